//! `tapeline task`: what a task's next start would find, and the operator's word about it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use comfy_table::{Table, presets};
use nats::error::BusError;
use nats::grant::{self, Grant};
use nats::inspect::{self, Inspection};
use nats::{Bus, checkpoint, stats};
use schemas::{Core, Version};
use serde_json::{Value, json};

use crate::target;

/// How long stages may take to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(700);
/// Checkpoints that are looked at.
const TASKS_MAX: usize = 8192;

/// `tapeline task`
#[derive(clap::Args)]
#[command(after_help = "TASK is <stage>.<key>: aggregate.binance.3, risk.main, strategy.llm.owl.prompt.
Examples:
  tapeline task status
  tapeline task status aggregate.binance.3 --json
  tapeline task accept-loss aggregate.binance.3 --reason 'disk was full on Monday' --yes
  tapeline task reset strategy.binance.3 --yes

What cannot be done: to replace what a task has said. JetStream never gives a sequence twice, so outputs cannot be \
purged and said again at their positions, RAW and EXEC streams refuse a purge altogether, and whoever reads the \
stream has acted on what it said. A task can be folded again (reset: the same outputs are compared, not written \
again), or go on behind what stands there (accept-outputs, accept-loss, reset --start-empty).")]
pub struct Args {
    #[command(subcommand)]
    wish: Wish,
}

#[derive(Subcommand)]
enum Wish {
    /// Checkpoint, streams and verdict of one task or all; exit code 1 when one would halt
    Status {
        /// Such as aggregate.binance.3; all without it
        task: Option<String>,
    },
    /// Let the next start go on behind lost outputs, and expired or rewritten input; once
    AcceptLoss(Word),
    /// Let the next start resume a checkpoint of another code version; once
    AcceptVersion(Word),
    /// Let the next start take the outputs behind the checkpoint as they are stored, instead of comparing them; once.
    /// As many outputs of its own are left unsaid, so it is exact only where both say as many
    AcceptOutputs(Word),
    /// Drop the checkpoint: the next start folds the whole input again and compares what it says with what is stored
    Reset {
        #[command(flatten)]
        word: Word,
        /// Also where the input's beginning has expired: the task goes on with an EMPTY state at the first input there
        /// is, behind the stored outputs. Risk forgets its positions that way, the executor its orders
        #[arg(long)]
        start_empty: bool,
    },
}

/// Which task, and who says why.
#[derive(clap::Args)]
struct Word {
    /// Such as aggregate.binance.3
    task: String,
    /// Stored with the word, for the audit
    #[arg(long, default_value = "operator's command")]
    reason: String,
    /// Do it; without this the command only says what it would do
    #[arg(long)]
    yes: bool,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async move {
        let bus = target::operator_bus(data).await?;
        match args.wish {
            Wish::Status { task } => status(&bus, task, json).await,
            Wish::AcceptLoss(word) => accept(&bus, word, json, What::Loss).await,
            Wish::AcceptVersion(word) => accept(&bus, word, json, What::Version).await,
            Wish::AcceptOutputs(word) => accept(&bus, word, json, What::Outputs).await,
            Wish::Reset { word, start_empty } => reset(&bus, word, start_empty, json).await,
        }
    })
}

/// The code version of the core that runs `task` in this release; `None` for a stage that is not ours.
fn code_version(task: &str) -> Option<u32> {
    let (stage, key) = task.split_once('.')?;
    match stage {
        "aggregate" => Some(aggregate::core::AggregateCore::CODE_VERSION),
        "strategy" if key.starts_with("llm.") && key.ends_with(".prompt") => {
            Some(strategy::llm::core::PromptCore::CODE_VERSION)
        }
        "strategy" if key.starts_with("llm.") && key.ends_with(".verdict") => {
            Some(strategy::llm::core::VerdictCore::CODE_VERSION)
        }
        "strategy" => Some(strategy::core::StrategyCore::CODE_VERSION),
        "risk" => Some(risk::RiskCore::CODE_VERSION),
        "executor" => Some(executor::core::ExecutorCore::CODE_VERSION),
        _ => None,
    }
}

/// Tasks that answer on the bus as running, as (`<stage>.<key>`, id of the process).
async fn running(bus: &Bus) -> anyhow::Result<Vec<(String, String)>> {
    let answers = stats::gather(bus, ANSWER_WAIT).await?;
    let tasks = answers.iter().flat_map(|a| a.tasks.iter().map(move |t| (a, t)));
    Ok(tasks
        .filter(|(_, t)| t["running"] == json!(true))
        .filter_map(|(a, t)| Some((checkpoint::key(&a.stage, t["task"].as_str()?), a.id.clone())))
        .collect())
}

async fn status(bus: &Bus, task: Option<String>, json: bool) -> anyhow::Result<()> {
    let tasks = match task {
        Some(task) => vec![task],
        None => inspect::tasks(bus, TASKS_MAX).await.context("list checkpoints")?,
    };
    let running = running(bus).await?;
    let mut rows = Vec::with_capacity(tasks.len());
    for task in &tasks {
        let seen = inspect::inspect(bus, task, code_version(task)).await.with_context(|| format!("look at {task}"))?;
        let instances = running.iter().filter(|(name, _)| name == task).count();
        rows.push((seen, instances));
    }
    if json {
        let tasks: Vec<Value> = rows.iter().map(|(seen, instances)| task_json(seen, *instances)).collect();
        println!("{}", json!({ "tasks": tasks }));
    } else {
        println!("{}", table(&rows));
        for (seen, _) in rows.iter().filter(|(seen, instances)| *instances == 0 && seen.verdict.is_some()) {
            let Some(halt) = &seen.verdict else { continue };
            println!("{}: {halt}\n  remedy: {}", seen.task, halt.remedy(&seen.task).unwrap_or_default());
        }
    }
    // A running task is past its start: its checkpoint lags behind its streams, which is not a verdict about it.
    let halting: Vec<&str> =
        rows.iter().filter(|(s, n)| *n == 0 && s.verdict.is_some()).map(|(s, _)| s.task.as_str()).collect();
    ensure!(halting.is_empty(), "would halt: {}", halting.join(", "));
    Ok(())
}

/// `running`, `running twice`, `would open`, `begins anew`, or the name of the halt.
fn verdict(seen: &Inspection, instances: usize) -> String {
    match (instances, &seen.verdict, &seen.header) {
        (0, Some(BusError::StreamAbsent { .. }), _) => "stream_absent".to_owned(),
        (0, Some(halt), _) => halt.halt().unwrap_or("unknown").to_owned(),
        (0, None, Some(_)) => "would open".to_owned(),
        (0, None, None) => "begins anew".to_owned(),
        (1, _, _) => "running".to_owned(),
        (n, _, _) => format!("running {n} times"),
    }
}

fn age_ms(stored_ns: i64) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (stored_ns > 0).then(|| (now.as_nanos() as i64 - stored_ns) / 1_000_000)
}

fn task_json(seen: &Inspection, instances: usize) -> Value {
    let stream = |name: Option<&String>, state: Option<nats::bus::StreamState>| {
        state.map(|s| json!({"stream": name, "first_seq": s.first_seq, "last_seq": s.last_seq, "messages": s.messages}))
    };
    let header = seen.header.as_ref();
    json!({
        "task": seen.task,
        "verdict": verdict(seen, instances),
        "halts": seen.halts.iter().map(|halt| json!({
            "halt": halt.halt(), "text": halt.to_string(), "remedy": halt.remedy(&seen.task),
        })).collect::<Vec<_>>(),
        "instances": instances,
        "in_seq": header.map(|h| h.in_seq),
        "out_seq": header.map(|h| h.out_seq),
        "code_version": header.map(|h| h.code_version),
        "revision": seen.revision,
        "damaged_revisions": seen.damaged,
        "age_ms": age_ms(seen.stored_ns),
        "input": stream(header.map(|h| &h.input), seen.input),
        "filter": header.map(|h| &h.filter),
        "output": stream(header.map(|h| &h.output), seen.output),
        "granted": seen.grant,
        "accepted": header.and_then(|h| h.accepted.as_ref()),
    })
}

fn table(rows: &[(Inspection, usize)]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["task", "verdict", "in seq", "input", "out seq", "output", "version", "age s", "operator"]);
    for (seen, instances) in rows {
        let number = |value: Option<u64>| value.map_or(String::new(), |n| n.to_string());
        let range = |state: Option<nats::bus::StreamState>| {
            state.map_or(String::new(), |s| format!("{}..{}", s.before_first() + 1, s.last_seq))
        };
        let header = seen.header.as_ref();
        let said = match (&seen.grant, header.and_then(|h| h.accepted.as_ref())) {
            (Some(grant), _) => format!("granted by {}: {}", grant.by, grant.reason),
            (None, Some(past)) => format!("accepted {} at {}", past.halts.join(", "), past.out_seq),
            (None, None) => String::new(),
        };
        table.add_row([
            seen.task.clone(),
            verdict(seen, *instances),
            number(header.map(|h| h.in_seq)),
            range(seen.input),
            number(header.map(|h| h.out_seq)),
            range(seen.output),
            number(header.map(|h| h.code_version.into())),
            age_ms(seen.stored_ns).map_or(String::new(), |ms| format!("{:.1}", ms as f64 / 1000.0)),
            said,
        ]);
    }
    table
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Loss,
    Version,
    Outputs,
}

async fn accept(bus: &Bus, word: Word, json: bool, what: What) -> anyhow::Result<()> {
    refuse_running(bus, &word.task).await?;
    let seen = inspect::inspect(bus, &word.task, code_version(&word.task)).await?;
    let needed = inspect::needed(&seen);
    let behind = match (&seen.header, seen.output) {
        (Some(header), Some(output)) => output.last_seq.saturating_sub(header.out_seq),
        _ => 0,
    };
    let nothing = match what {
        // A fresh task behind expired input shows what it lacks only at its start.
        What::Loss => !needed.loss && (seen.header.is_some() || seen.damaged > 0),
        What::Version => !needed.version,
        What::Outputs => behind == 0,
    };
    ensure!(
        !nothing,
        "nothing to accept: {} {}",
        word.task,
        match &seen.verdict {
            Some(halt) => format!("halts for another reason: {halt}"),
            None => "would open as it is".to_owned(),
        }
    );
    let mut text: Vec<String> = seen.halts.iter().map(ToString::to_string).collect();
    if what == What::Outputs {
        text.push(format!("{behind} outputs behind the checkpoint are taken as they are stored"));
    }
    if !word.yes {
        bail!("this would let pass, once, at the next start of {}: {}; say --yes to do it", word.task, text.join("; "));
    }
    // An earlier word about the same checkpoint stands: several halts may have to pass together.
    let mut said = word.grant(&seen)?;
    if let Some(earlier) = &seen.grant {
        (said.loss, said.version, said.outputs) = (earlier.loss, earlier.version, earlier.outputs);
    }
    match what {
        What::Loss => said.loss = true,
        What::Version => said.version = true,
        What::Outputs => said.outputs = true,
    }
    grant::give(bus, &said).await.context("store the word")?;
    let after = inspect::inspect(bus, &word.task, code_version(&word.task)).await?;
    done(json, &word.task, &format!("accepted for its next start: {}", text.join("; ")), &after);
    Ok(())
}

async fn reset(bus: &Bus, word: Word, start_empty: bool, json: bool) -> anyhow::Result<()> {
    refuse_running(bus, &word.task).await?;
    let seen = inspect::inspect(bus, &word.task, code_version(&word.task)).await?;
    ensure!(
        seen.header.is_some() || seen.damaged > 0,
        "{} has no checkpoint: its next start begins anew (tapeline task status)",
        word.task
    );
    let lost = inspect::resettable(&seen).err();
    if let (Some(why), false) = (&lost, start_empty) {
        bail!("{why}; --start-empty drops the state all the same: the task goes on empty, behind what it has said");
    }
    if !word.yes {
        let what = lost.as_deref().unwrap_or("its state is folded again from the whole input, which is there");
        bail!("this would drop the checkpoint of {}: {what}; say --yes to do it", word.task);
    }
    let marker = checkpoint::drop_behind(bus, &word.task, seen.revision).await.context("drop the checkpoint")?;
    // Where the whole input is there, the state is folded again whatever was asked for.
    let empty = start_empty && (lost.is_some() || seen.header.is_none());
    if empty {
        let said = Grant { revision: marker, loss: true, ..word.grant(&seen)? };
        grant::give(bus, &said).await.context("store the word")?;
    }
    let after = inspect::inspect(bus, &word.task, None).await?;
    let text = if empty { "checkpoint dropped, it begins empty" } else { "checkpoint dropped, it begins anew" };
    done(json, &word.task, text, &after);
    Ok(())
}

impl Word {
    /// This operator's word about the checkpoint as it was seen; lets nothing pass yet.
    fn grant(&self, seen: &Inspection) -> anyhow::Result<Grant> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
        Ok(Grant {
            v: Version,
            task: self.task.clone(),
            revision: seen.revision,
            loss: false,
            version: false,
            outputs: false,
            by: "operator".to_owned(),
            reason: self.reason.clone(),
            ts_ns: now.as_nanos() as i64,
        })
    }
}

/// A running task is asked first: its next checkpoint would spend the word unseen, or end it as fenced.
async fn refuse_running(bus: &Bus, task: &str) -> anyhow::Result<()> {
    ensure!(task.contains('.'), "`{task}` is not <stage>.<key>, such as aggregate.binance.3");
    let running = running(bus).await?;
    let holders: Vec<&str> = running.iter().filter(|(name, _)| name == task).map(|(_, id)| id.as_str()).collect();
    ensure!(holders.is_empty(), "{task} runs (in {}): stop its stage first", holders.join(", "));
    Ok(())
}

fn done(json: bool, task: &str, text: &str, after: &Inspection) {
    if json {
        println!("{}", json!({"task": task, "done": text, "verdict": verdict(after, 0), "revision": after.revision}));
    } else {
        println!("{task}: {text}\nnow: {}", verdict(after, 0));
    }
}
