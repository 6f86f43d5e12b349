//! `tapeline audit`: every task is fed its stored input order again; what its core says now is compared with what it
//! said then, position by position.

use std::path::PathBuf;

use anyhow::bail;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::range::Point;
use crate::{cores, target};

pub mod ingest;
pub mod ledger;
pub mod stored;
pub mod task;

use task::{Divergence, Outcome, Scope};

/// `tapeline audit`
#[derive(clap::Args)]
#[command(after_help = "Exit code 1 when a task said something else than its core says of the same inputs.
Examples:
  tapeline audit                                   every deterministic task, and ingest from a recording
  tapeline audit risk executor                     two stages
  tapeline audit aggregate.binance.3 --from 2026-11-21T10:00:00Z --to 2026-11-21T11:00:00Z
  tapeline audit --from-checkpoint                 only what follows the oldest stored checkpoint: seconds
  tapeline audit ledger                            the SQL tables against the streams (SQLite)")]
pub struct Args {
    /// Stages or tasks, such as risk or aggregate.binance.3; all without it
    tasks: Vec<String>,
    /// Compare from this input on: a sequence, STREAM:SEQ, or the time at which it was stored (RFC 3339)
    #[arg(long)]
    from: Vec<Point>,
    /// Compare up to this input
    #[arg(long)]
    to: Vec<Point>,
    /// Begin at the oldest stored checkpoint of each task instead of its first input
    #[arg(long, conflicts_with = "from")]
    from_checkpoint: bool,
    /// The tapeline.toml that the tasks ran with; default: the running pipeline's
    #[arg(long)]
    config: Option<PathBuf>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let outcomes = target::block_on(audit(args, data, json))?;
    if json {
        let clean = outcomes.iter().all(|o| o.divergence.is_none());
        println!("{}", json!({"clean": clean, "tasks": outcomes}));
    } else {
        println!("{}", table(&outcomes));
        for outcome in &outcomes {
            if let Some(divergence) = &outcome.divergence {
                print!("\n{}", text(&outcome.task, divergence));
            }
        }
    }
    let diverged: Vec<&str> = outcomes.iter().filter(|o| o.divergence.is_some()).map(|o| o.task.as_str()).collect();
    if !diverged.is_empty() {
        bail!("{} said something else than the same inputs give now", diverged.join(", "));
    }
    if outcomes.iter().all(|o| o.skipped.is_some()) {
        bail!("nothing could be audited");
    }
    Ok(())
}

async fn audit(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<Vec<Outcome>> {
    let user = cores::user_file(args.config.as_deref(), data.as_deref())?;
    let bus = target::operator_bus(data).await?;
    let named = |stage: &str| args.tasks.iter().any(|t| t == stage || t.starts_with(&format!("{stage}.")));
    let pure: Vec<String> = args
        .tasks
        .iter()
        .filter(|t| t.split('.').next().is_none_or(|s| s != "ingest" && s != "ledger"))
        .cloned()
        .collect();
    let all = args.tasks.is_empty();
    let mut tasks = cores::tasks(&bus, user.as_ref()).await?;
    tasks = if all || !pure.is_empty() { cores::chosen(tasks, &pure)? } else { Vec::new() };
    let inputs: std::collections::BTreeSet<&str> = tasks.iter().map(|task| task.spec.input.as_str()).collect();
    if inputs.len() > 1 && args.from.iter().chain(&args.to).any(|point| matches!(point, Point::Seq(_))) {
        bail!("the tasks hear {} streams: write sequences as STREAM:SEQ, use times, or name one task", inputs.len());
    }
    let scope = Scope { from: args.from, to: args.to, checkpoint: args.from_checkpoint };

    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} {per_sec} {msg} {eta}") {
        bar.set_style(style);
    }
    let show = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let mut outcomes = Vec::new();
    if all || named("ingest") {
        bar.set_message("ingest");
        let only = args.tasks.iter().find_map(|t| t.strip_prefix("ingest.")).map(str::to_owned);
        outcomes.extend(ingest::audit(&bus, user.as_ref(), only.as_deref(), show).await?);
    }
    for task in &tasks {
        bar.reset();
        bar.set_message(task.name());
        let mut said = Vec::new();
        let outcome = task::audit(&bus, task, &scope, &mut said, show).await?;
        if !json {
            bar.suspend(|| said.iter().for_each(|line| eprintln!("{line}")));
        }
        outcomes.push(outcome);
    }
    if named("ledger") {
        bar.set_message("ledger");
        outcomes.push(ledger::audit(&bus, user.as_ref(), show).await?);
    }
    bar.finish_and_clear();
    Ok(outcomes)
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["task", "from", "inputs", "equal", "passed", "ahead", "verdict"]);
    // Empty partitions say nothing, and a pipeline has few of the default venues; rows of them would hide the others.
    let quiet = |o: &&Outcome| {
        let absent = o.skipped.as_ref().is_some_and(|why| why.starts_with("no stream "));
        absent || (o.inputs == 0 && o.compared == 0 && o.skipped.is_none() && o.divergence.is_none())
    };
    for o in outcomes.iter().filter(|o| !quiet(o)) {
        let verdict = match (&o.skipped, &o.divergence) {
            (Some(why), _) => format!("not audited: {why}"),
            (None, Some(d)) => format!("diverges at {}", d.position),
            (None, None) => "clean".to_owned(),
        };
        table.add_row([
            o.task.clone(),
            o.began.clone(),
            o.inputs.to_string(),
            o.compared.to_string(),
            o.passed.to_string(),
            o.ahead.to_string(),
            verdict,
        ]);
    }
    let idle = outcomes.iter().filter(quiet).count();
    if idle > 0 {
        table.add_row([
            format!("{idle} tasks"),
            String::new(),
            "0".into(),
            "0".into(),
            "0".into(),
            "0".into(),
            "no input or no stream".into(),
        ]);
    }
    table
}

/// The first divergence with both facts decoded.
fn text(task: &str, d: &Divergence) -> String {
    let mut text = format!("{task}: first divergence at {}: {}\n", d.position, d.why);
    if d.input.is_some() {
        text += &format!("  input   {}\n", stored::line(d.input.as_ref()));
    }
    if d.stored.is_some() || d.folded.is_some() {
        text += &format!("  stored  {}\n", stored::line(d.stored.as_ref()));
        text += &format!("  folded  {}\n", stored::line(d.folded.as_ref()));
    }
    for difference in &d.differs {
        text += &format!("  differs {difference}\n");
    }
    text
}
