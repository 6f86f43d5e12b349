//! `make chaos`: strikes the pipeline while it works, and compares what it stored with an undisturbed run.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use tests::chaos::{Options, Report, run};
use tests::command::{self, Common};
use tests::session::{Reference, Session};
use tests::standby;

const EXAMPLES: &str = "Examples:
  chaos                                     a minute against one server, with a seed of its own
  chaos --nodes 3 --seed 7                  the same strikes as every run with seed 7, against a cluster
  chaos --kills 1000 --seconds 3600 --json  the long run, for scripts
  chaos --standby 10                        a live feed's holder killed every 30 s for ten minutes
Exit codes: 0 equal byte for byte, 1 a difference (both facts are printed) or a failure, 2 usage.";

/// Kills, freezes, doubles and disconnects every stage and nats-server over a recorded session; every stream must be
/// byte for byte that of an undisturbed run.
#[derive(Parser)]
#[command(name = "chaos", version, after_help = EXAMPLES)]
struct Args {
    /// Servers: one, or a cluster of three with every stream three times
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    nodes: String,
    /// Strike for at most so many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Strike at most until so many processes were killed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    kills: Option<u64>,
    /// Seconds of one round; each stores the session anew and compares it
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=3600))]
    round_seconds: u64,
    /// Mean pause between two strikes in milliseconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pause_ms: u64,
    /// Instead: a live feed with a standby, whose holder is killed again and again for so many minutes
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=1440))]
    standby: Option<u64>,
    /// Seconds between two kills of the standby run
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    every_seconds: u64,
    /// Venue of the standby run, one whose trade ids rise by one
    #[arg(long, default_value = "binance")]
    venue: String,
    /// Lines of the recording, about 120 a recorded second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=99_574))]
    lines: u32,
    /// Speed of the undisturbed run; its opinions must not be older than risk allows
    #[arg(long, default_value_t = 60.0)]
    calm_speed: f64,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    command::main(async move { chaos(&args).await })
}

async fn chaos(args: &Args) -> anyhow::Result<()> {
    let seed = args.common.seed();
    if let Some(minutes) = args.standby {
        return standby(args, seed, minutes).await;
    }
    let options = Options {
        seed,
        nodes: args.nodes.parse()?,
        seconds: args.seconds,
        kills: args.kills.unwrap_or(u64::MAX),
        round_seconds: args.round_seconds,
        pause_ms: args.pause_ms,
    };
    eprintln!("chaos: --seed {seed} --nodes {}", args.nodes);
    let whole = Session::whole(args.common.partitions)
        .context("no recording: set TAPELINE_FIXTURES to the shared folder that holds data/ and goldens/")?;
    let dir = tempfile::tempdir()?;
    let session = whole.cut(args.lines as usize, dir.path())?;
    let bar = command::bar(args.kills.unwrap_or(args.seconds * 1000 / args.pause_ms), "{pos} kills")?;
    bar.set_message("undisturbed run");
    bar.tick();
    let reference = Reference::record(session, args.calm_speed).await.context("undisturbed run")?;
    eprintln!("undisturbed: {} facts, {} fills", reference.facts(), reference.fills());
    ensure!(reference.fills() > 0, "the undisturbed run did not trade: take more --lines or a lower --calm-speed");
    let report = run(&reference, &options, |kills, round| {
        bar.set_position(kills);
        bar.set_message(format!("round {round}"));
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    args.common.report(&report, print)?;
    for difference in report.rounds.iter().flat_map(|round| &round.verdict.differences) {
        eprintln!("{difference}");
    }
    ensure!(report.differences == 0, "{} differences; again: --seed {seed} --nodes {}", report.differences, args.nodes);
    Ok(())
}

async fn standby(args: &Args, seed: u64, minutes: u64) -> anyhow::Result<()> {
    eprintln!("standby: --seed {seed} --venue {}", args.venue);
    let options = standby::Options { venue: args.venue.clone(), seed, minutes, every_s: args.every_seconds };
    let bar = command::bar(minutes * 60 / args.every_seconds, "{pos} kills")?;
    let report = standby::run(&options, |kills| bar.set_position(kills)).await;
    bar.finish_and_clear();
    let report = report?;
    args.common.report(&report, |report| {
        let took = &report.takeover_ms;
        println!(
            "{} kills of the holder; {} trades of {} symbols, {} of them fetched afterwards, {} holes told; takeover {} to \
             {} ms; {} missing or doubled",
            report.kills,
            report.trades,
            report.symbols,
            report.backfilled,
            report.told_holes,
            took.iter().min().unwrap_or(&0),
            took.iter().max().unwrap_or(&0),
            report.trouble.len()
        );
    })?;
    for trouble in &report.trouble {
        eprintln!("{trouble}");
    }
    ensure!(report.trouble.is_empty(), "trades are missing or doubled; again: --seed {seed} --standby {minutes}");
    Ok(())
}

fn print(report: &Report) {
    let mut table = command::table([
        "round",
        "kills",
        "frozen",
        "doubles",
        "cuts",
        "held",
        "ousted",
        "raw when it ended",
        "equal facts",
    ]);
    for round in &report.rounds {
        let counts = &round.counts;
        let (at, of) = round.struck_until;
        let equal: u64 = round.verdict.streams.iter().map(|s| s.facts).sum();
        let numbers = [counts.kills(), counts.frozen, counts.doubles, counts.cuts, counts.holds, counts.ousted];
        let mut row = vec![round.round.to_string()];
        row.extend(numbers.map(|n| n.to_string()));
        row.extend([format!("{at} of {of}"), equal.to_string()]);
        table.add_row(row);
    }
    println!("{table}");
    let by: Vec<String> = report.counts.kills.iter().map(|(who, n)| format!("{who} {n}")).collect();
    println!(
        "{} kills ({}), {:.0} a minute; {} facts compared, {} differences",
        report.counts.kills(),
        by.join(", "),
        report.kills_per_minute,
        report.facts,
        report.differences
    );
}
