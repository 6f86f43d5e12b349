//! `make soak`: the whole pipeline over accelerated venues for a long time, its memory and files measured.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use tests::command::{self, Common};
use tests::soak::{Growth, Options, Report, run};

const EXAMPLES: &str = "Examples:
  soak                              half an hour, five hours of market
  soak --minutes 480 --json         a night, for scripts
A stage is flat when its memory grows by at most 64 KiB a minute in the last two thirds of the run, nats-server and the
simulator by at most 1024; a checkpoint, and all that is stored, when it is at most 1.5 times what it was in the first
third, or 16 KiB. The slope is Theil and Sen's, with its interval of 95 % confidence: when the bound lies within it, the run
was too short to tell. nats-server's memory is its live heap and the room that its garbage collector takes. Tick streams
and the desk are bounded at 16 MiB each, candles at 4,000 messages a partition; logs and the ledger's file grow with the
run.
Exit codes: 0 flat, 1 not flat, not told or a failure, 2 usage.";

/// Memory of every process, sizes of checkpoints and files, with their slopes.
#[derive(Parser)]
#[command(name = "soak", version, after_help = EXAMPLES)]
struct Args {
    /// Minutes to run
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Seconds of market in a real one
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    speed: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    command::main(async move { soak(&args).await })
}

async fn soak(args: &Args) -> anyhow::Result<()> {
    let (seed, partitions) = (args.common.seed(), args.common.partitions);
    eprintln!("soak: --seed {seed}");
    let bar = command::bar(args.minutes * 60, "{pos} of {len} s")?;
    let options = Options { minutes: args.minutes, speed: args.speed, seed, partitions };
    let report = run(&options, |minute| bar.set_position((minute * 60.0) as u64)).await;
    bar.finish_and_clear();
    let report = report?;
    args.common.report(&report, print)?;
    ensure!(report.flat, "not shown to be flat; again: --seed {seed}");
    Ok(())
}

fn growth(growth: Growth) -> &'static str {
    match growth {
        Growth::Flat => "flat",
        Growth::NotTold => "not told: run for longer",
        Growth::NotFlat => "NOT FLAT",
    }
}

fn print(report: &Report) {
    let word = |flat: bool| if flat { "flat" } else { "NOT FLAT" };
    let mut table =
        command::table(["process", "start MiB", "warm MiB", "end MiB", "most MiB", "KiB/min", "95 %", "bound", ""]);
    for m in &report.memory {
        let mib = |kib: f64| format!("{:.1}", kib / 1024.0);
        table.add_row([
            m.process.to_owned(),
            mib(m.start_kib),
            mib(m.warm_kib),
            mib(m.end_kib),
            mib(m.max_kib),
            format!("{:+.1}", m.slope_kib_per_min),
            format!("{:+.0} .. {:+.0}", m.slope_from_kib_per_min, m.slope_to_kib_per_min),
            format!("{:.0}", m.bound_kib_per_min),
            growth(m.growth).to_owned(),
        ]);
    }
    println!("{table}\n");
    let mut table = command::table(["checkpoint or file", "warm bytes", "end bytes", "KiB/min", ""]);
    for s in report.checkpoints.iter().chain(&report.files) {
        table.add_row([
            s.name.clone(),
            s.warm_bytes.to_string(),
            s.end_bytes.to_string(),
            format!("{:+.1}", s.slope_kib_per_min),
            s.flat.map_or("grows with the run", word).to_owned(),
        ]);
    }
    println!("{table}\n");
    println!(
        "{:.1} h of market in {} min, {} messages stored: {}",
        report.market_h,
        report.options.minutes,
        report.messages,
        if report.flat { "all is flat" } else { "not all is shown to be flat" }
    );
}
