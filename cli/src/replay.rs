//! `tapeline replay`: stages over a stored range again, into streams of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use nats::Bus;
use schemas::config::UserFile;
use schemas::subject::stream::KV_CHECKPOINT;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::range::Point;
use crate::{cores, target};

pub mod core;
pub mod run;

use self::core::Names;
use run::{Compared, Done, Plan};

/// `tapeline replay`
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "A run's facts stand on bt.<run>.<subject> in streams BT_<run>_<STREAM>; nothing live is touched. A stage hears what
the run itself says where the stage before it runs too, and the recorded stream otherwise; risk and executor hear the
desk in its recorded order, or with --desk merged one that this run merges anew as the live one was. A task begins empty at the first message of the range.
Exit code 1 when --compare finds another fact.
Examples:
  tapeline replay --stage aggregate,strategy --compare
  tapeline replay --stage aggregate --from 2026-11-21T10:00:00Z --to 2026-11-21T11:00:00Z --name morning
  tapeline replay --stage strategy,risk,executor --desk merged --config other.toml --speed 60 --storage file
  tapeline tap 'bt.morning.candle.*.binance.1m.>' --from-seq 1 --end
  tapeline replay list; tapeline replay drop morning"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Stages or tasks, comma-separated: aggregate, strategy, risk, executor, strategy.binance.3
    #[arg(long, value_delimiter = ',')]
    stage: Vec<String>,
    /// Name of the run: 1 to 32 of a-z 0-9 -; default: from the clock
    #[arg(long)]
    name: Option<String>,
    /// From this input on: a sequence, STREAM:SEQ, or the time at which it was stored (RFC 3339)
    #[arg(long)]
    from: Vec<Point>,
    /// Up to this input
    #[arg(long)]
    to: Vec<Point>,
    /// 0 at once, 1 as it was stored, 10 ten times as fast
    #[arg(long, default_value_t = 0.0)]
    speed: f64,
    /// What risk and executor hear: the recorded desk, or one merged from this run's signals, orders and fills and the
    /// recorded rest (needs --speed; no operator's commands)
    #[arg(long, default_value = "recorded", value_parser = ["recorded", "merged"])]
    desk: String,
    /// Where the run's streams are kept
    #[arg(long, default_value = "memory", value_parser = ["memory", "file"])]
    storage: String,
    /// Facts that one stream of the run may hold
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    messages_max: i64,
    /// Compare with what the live tasks said, position by position (ranges that begin at the first message)
    #[arg(long)]
    compare: bool,
    /// The tapeline.toml to run with; default: the running pipeline's
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Runs that are kept, with their size
    List,
    /// Delete runs with their streams and checkpoints
    Drop {
        /// Names of runs
        #[arg(required = true)]
        runs: Vec<String>,
    },
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async {
        let user = cores::user_file(args.config.as_deref(), data.as_deref())?;
        let bus = target::operator_bus(data).await?;
        let done = match &args.action {
            Some(Action::List) => list(&bus, json).await,
            Some(Action::Drop { runs }) => remove(&bus, runs, json).await,
            None => replay(args, &bus, user.as_ref(), json).await,
        };
        // What the server forbids shows as silence; its own word says more.
        match bus.violation() {
            Some(violation) if done.is_err() => Err(violation).context("a replay is the operator's"),
            _ => done,
        }
    })
}

async fn replay(args: Args, bus: &Bus, user: Option<&UserFile>, json: bool) -> anyhow::Result<()> {
    if args.stage.is_empty() {
        bail!("name what to run with --stage: aggregate, strategy, risk, executor, or tasks of them");
    }
    if !(0.0..=1e6).contains(&args.speed) {
        bail!("--speed {}: allowed are 0 to 1000000", args.speed);
    }
    let merged = args.desk == "merged";
    if merged && args.speed == 0.0 {
        bail!("--desk merged needs a --speed: at once, every tick would stand before the first signal");
    }
    let name = name_of(args.name.as_deref())?;
    if runs(bus).await?.contains_key(&name) {
        bail!("there is a run `{name}` already: choose another --name, or `tapeline replay drop {name}`");
    }
    let tasks = cores::chosen(cores::tasks(bus, user).await?, &args.stage)?;
    let names = Names { run: name.clone() };
    let plan = Plan {
        names: names.clone(),
        from: args.from,
        to: args.to,
        speed: args.speed,
        memory: args.storage == "memory",
        messages_max: args.messages_max,
        merged,
    };
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        // An error means that there is no signal to wait for; then the run ends by itself.
        if tokio::signal::ctrl_c().await.is_ok() {
            stopper.cancel();
        }
    });
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    let begun = std::time::Instant::now();
    let ran = run::run(bus, tasks, &plan, &bar, &stop).await;
    bar.finish_and_clear();
    let (done, finished) = match ran {
        Ok(ran) => ran,
        Err(error) => {
            // Half a run is of no use, and its name is free again.
            remove_run(bus, &name).await?;
            return Err(error);
        }
    };
    let compared = if args.compare { run::compare(bus, &done, &names).await? } else { Vec::new() };
    show(&name, &done, &compared, finished, begun.elapsed(), json);
    let differing: Vec<String> =
        compared.iter().filter_map(|c| c.differs_at.map(|k| format!("{}:{k}", c.live))).collect();
    if !differing.is_empty() {
        bail!("the replay says something else than the live tasks said, first at {}", differing.join(", "));
    }
    if !finished {
        bail!("stopped before the end of the range");
    }
    Ok(())
}

fn show(name: &str, done: &[Done], compared: &[Compared], finished: bool, took: Duration, json: bool) {
    let took_ms = took.as_millis() as u64;
    if json {
        println!(
            "{}",
            json!({"run": name, "finished": finished, "took_ms": took_ms, "tasks": done, "compared": compared})
        );
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["task", "input", "range", "output", "said", "against live"]);
    for d in done.iter().filter(|d| d.said > 0) {
        let range = if d.to == u64::MAX { "all".to_owned() } else { format!("{}..{}", d.from, d.to) };
        let against = match compared.iter().find(|c| c.output == d.output) {
            None => String::new(),
            Some(Compared { differs_at: Some(k), .. }) => format!("differs at {k}"),
            Some(c) if c.replay_only > 0 => format!("{} equal, {} more than live", c.equal, c.replay_only),
            Some(c) => format!("{} equal", c.equal),
        };
        table.add_row([d.task.clone(), d.input.clone(), range, d.output.clone(), d.said.to_string(), against]);
    }
    println!("{table}\nrun {name} in {took_ms} ms; `tapeline replay drop {name}` deletes it");
}

/// The name as given and allowed, or one from the clock.
fn name_of(named: Option<&str>) -> anyhow::Result<String> {
    let Some(name) = named else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
        return Ok(format!("r{}", now.as_millis()));
    };
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(legal) {
        bail!("--name `{name}`: allowed are 1 to 32 of a-z 0-9 -");
    }
    Ok(name.to_owned())
}

/// A run as its streams show it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    pub streams: Vec<String>,
    pub messages: u64,
    pub bytes: u64,
    /// When its first stream was made.
    pub created_ns: i64,
    pub about: serde_json::Value,
}

/// Every run on the server, by name.
pub async fn runs(bus: &Bus) -> anyhow::Result<BTreeMap<String, Run>> {
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    let mut streams = bus.js().streams();
    while let Some(info) = streams.try_next().await.context("list streams")? {
        let config = &info.config;
        let Some(name) = config.metadata.get(run::RUN).filter(|_| config.name.starts_with("BT_")) else { continue };
        let run = runs.entry(name.clone()).or_default();
        run.streams.push(config.name.clone());
        run.messages += info.state.messages;
        run.bytes += info.state.bytes;
        let created_ns = info.created.unix_timestamp_nanos() as i64;
        run.created_ns = if run.created_ns == 0 { created_ns } else { run.created_ns.min(created_ns) };
        let about = config.metadata.get(run::ABOUT).and_then(|text| serde_json::from_str(text).ok());
        run.about = about.unwrap_or_default();
    }
    Ok(runs)
}

async fn list(bus: &Bus, json: bool) -> anyhow::Result<()> {
    let runs = runs(bus).await?;
    if json {
        println!("{}", json!({ "runs": runs }));
        return Ok(());
    }
    if runs.is_empty() {
        println!("no runs");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["run", "made", "streams", "facts", "bytes", "tasks"]);
    for (name, run) in runs {
        let tasks = run.about["tasks"].as_array().map_or(0, Vec::len);
        table.add_row([
            name,
            crate::records::time_text(run.created_ns),
            run.streams.len().to_string(),
            run.messages.to_string(),
            run.bytes.to_string(),
            tasks.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn remove(bus: &Bus, names: &[String], json: bool) -> anyhow::Result<()> {
    let there = runs(bus).await?;
    if let Some(unknown) = names.iter().find(|name| !there.contains_key(*name)) {
        bail!("no run `{unknown}`; there are {}", there.keys().cloned().collect::<Vec<_>>().join(", "));
    }
    let mut streams = 0;
    for name in names {
        streams += remove_run(bus, name).await?;
    }
    if json {
        println!("{}", json!({"dropped": names, "streams": streams}));
    } else {
        println!("{streams} streams are deleted");
    }
    Ok(())
}

/// Deletes a run's streams and checkpoints; gives the number of streams.
async fn remove_run(bus: &Bus, name: &str) -> anyhow::Result<usize> {
    let run = runs(bus).await?.remove(name).unwrap_or_default();
    for stream in &run.streams {
        bus.js().delete_stream(stream).await.with_context(|| format!("delete stream {stream}"))?;
    }
    let bucket = nats::kv::stream(KV_CHECKPOINT);
    let keys = nats::kv::subject(KV_CHECKPOINT, &format!("{}.bt.{name}.>", bus.stage()));
    let stream = bus.js().get_stream(&bucket).await.with_context(|| format!("open {bucket}"))?;
    stream.purge().filter(keys).await.context("delete the run's checkpoints")?;
    Ok(run.streams.len())
}
