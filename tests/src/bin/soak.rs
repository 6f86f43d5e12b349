//! `make soak`: the whole pipeline over accelerated venues for a long time, its memory and files measured.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tests::soak::{Options, Report, run};

const EXAMPLES: &str = "Examples:
  soak                              half an hour, five hours of market
  soak --minutes 480 --json         a night, for scripts
A stage is flat when its memory grows by at most 64 KiB a minute behind the first third of the run, nats-server and the
simulator by at most 1024; a checkpoint when it is at most 1.5 times what it was in the first
third, or 16 KiB. The tick streams are bounded at 128 MiB each; the others grow with what is stored.
Exit codes: 0 flat, 1 not flat or a failure, 2 usage.";

/// Memory of every process, sizes of checkpoints and files, with slopes by least squares.
#[derive(Parser)]
#[command(name = "soak", version, after_help = EXAMPLES)]
struct Args {
    /// Minutes to run
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Seconds of market in a real one
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    speed: u64,
    /// The simulated market
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Partitions of every venue
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    nats::exit::main(work(Args::parse()))
}

async fn work(args: Args) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        // Dropping the work ends every process that it started.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        done = soak(&args) => done,
    }
}

async fn soak(args: &Args) -> anyhow::Result<()> {
    let options = Options { minutes: args.minutes, speed: args.speed, seed: args.seed, partitions: args.partitions };
    let bar = ProgressBar::new(args.minutes * 60);
    bar.set_style(ProgressStyle::with_template("  {bar:40} {elapsed} {msg} {eta}")?);
    let report = run(&options, |minute| bar.set_position((minute * 60.0) as u64)).await;
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        println!("{}", json!(report));
    } else {
        print(&report);
    }
    ensure!(report.flat, "not flat");
    Ok(())
}

fn print(report: &Report) {
    let word = |flat: bool| if flat { "flat" } else { "NOT FLAT" };
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["process", "start MiB", "warm MiB", "end MiB", "most MiB", "KiB/min", "bound", ""]);
    for m in &report.memory {
        let mib = |kib: f64| format!("{:.1}", kib / 1024.0);
        table.add_row([
            m.process.to_owned(),
            mib(m.start_kib),
            mib(m.warm_kib),
            mib(m.end_kib),
            mib(m.max_kib),
            format!("{:+.1}", m.slope_kib_per_min),
            format!("{:.0}", m.bound_kib_per_min),
            word(m.flat).to_owned(),
        ]);
    }
    println!("{table}\n");
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["checkpoint or file", "warm bytes", "end bytes", "KiB/min", ""]);
    for s in report.checkpoints.iter().chain(&report.files) {
        table.add_row([
            s.name.clone(),
            s.warm_bytes.to_string(),
            s.end_bytes.to_string(),
            format!("{:+.1}", s.slope_kib_per_min),
            s.flat.map_or("grows with what is stored, up to its retention", word).to_owned(),
        ]);
    }
    println!("{table}\n");
    println!(
        "{:.1} h of market in {} min, {} messages stored, {:.0} bytes of store for each: {}",
        report.market_h,
        report.options.minutes,
        report.messages,
        report.store_bytes_per_message,
        word(report.flat)
    );
}
