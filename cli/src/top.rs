//! `tapeline top`: the running pipeline, redrawn: tasks with their rates, lag and watermark, accounts with their
//! orders.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use futures_util::TryStreamExt;
use nats::{Bus, leader, stats};
use schemas::Fact;
use schemas::desk::AccountFact;
use schemas::subject::unescape;
use serde::Serialize;
use serde_json::{Value, json};

use crate::target;

/// How long stages may take to answer one question.
const ANSWER_WAIT: Duration = Duration::from_millis(300);
/// Rows of tasks on a screen.
const ROWS_MAX: usize = 40;
/// Kinds of an account that are counted.
const KINDS: [&str; 5] = ["order", "refusal", "fill", "reject", "cancel"];

/// `tapeline top`
#[derive(clap::Args)]
#[command(after_help = "Ctrl-C ends it.
Examples:
  tapeline top                          live, every second
  tapeline top --all --interval-ms 500  idle tasks too
  tapeline top --once --json            one sample for a script")]
pub struct Args {
    /// Between two samples
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(200..=60_000))]
    interval_ms: u64,
    /// One sample (rates over one interval), then end
    #[arg(long)]
    once: bool,
    /// Tasks that say nothing and wait for nothing, too
    #[arg(long)]
    all: bool,
}

/// One task at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub task: String,
    /// Of the process.
    pub id: String,
    pub heard: u64,
    pub said: u64,
    /// Since the sample before; absent in the first one, and after a restart.
    pub heard_per_s: Option<f64>,
    pub said_per_s: Option<f64>,
    pub lag: u64,
    /// Now minus the event time heard completely; absent where there is none.
    pub watermark_age_ms: Option<f64>,
    pub checkpoint_age_ms: u64,
    /// `up`, `stopped`, `fenced`.
    pub state: &'static str,
}

/// One account at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Desk {
    pub account: String,
    /// By kind: facts so far.
    pub facts: BTreeMap<String, u64>,
    pub per_s: BTreeMap<String, f64>,
    pub equity: Option<String>,
    pub drawdown: Option<String>,
    pub trading: Option<Value>,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub wall_ns: i64,
    pub tasks: Vec<Row>,
    pub accounts: Vec<Desk>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async {
        let bus = target::operator_bus(data).await?;
        let screen = !json && !args.once && stdout().is_terminal();
        if screen {
            // The other screen, so that the terminal is as it was behind us; no cursor.
            print!("\x1b[?1049h\x1b[?25l");
        }
        let ended = tokio::select! {
            biased;
            // Dropping a sample loses nothing.
            _ = tokio::signal::ctrl_c() => Ok(()),
            ended = watch(&bus, &args, json, screen) => ended,
        };
        if screen {
            print!("\x1b[?25h\x1b[?1049l");
            let _ = stdout().flush();
        }
        ended
    })
}

async fn watch(bus: &Bus, args: &Args, json: bool, screen: bool) -> anyhow::Result<()> {
    let interval = Duration::from_millis(args.interval_ms);
    let mut before: Option<(Instant, Sample)> = None;
    loop {
        let begun = Instant::now();
        let mut sample = sample(bus).await?;
        if let Some((at, before)) = &before {
            rates(&mut sample, before, (begun - *at).as_secs_f64());
        }
        let first = before.is_none();
        if !args.once || !first {
            let mut out = stdout().lock();
            if json {
                writeln!(out, "{}", serde_json::to_string(&sample).context("write JSON")?)?;
            } else {
                if screen {
                    write!(out, "\x1b[H\x1b[2J")?;
                }
                writeln!(out, "{}", text(&sample, args.all))?;
            }
            out.flush()?;
        }
        if args.once && !first {
            return Ok(());
        }
        before = Some((begun, sample));
        tokio::time::sleep(interval.saturating_sub(begun.elapsed())).await;
    }
}

async fn sample(bus: &Bus) -> anyhow::Result<Sample> {
    let wall_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    let mut tasks = Vec::new();
    for a in stats::gather(bus, ANSWER_WAIT).await? {
        for t in &a.tasks {
            let count = |field: &str| t[field].as_u64().unwrap_or(0);
            tasks.push(Row {
                task: format!("{}.{}", a.stage, t["task"].as_str().unwrap_or("?")),
                id: a.id.clone(),
                heard: count("heard"),
                said: count("said"),
                heard_per_s: None,
                said_per_s: None,
                lag: count("lag"),
                watermark_age_ms: t["watermark_ns"].as_i64().map(|ns| (wall_ns - ns) as f64 / 1e6),
                checkpoint_age_ms: count("ckpt_age_ms"),
                state: match (&t["fenced"], &t["running"]) {
                    (Value::Bool(true), _) => "fenced",
                    (_, Value::Bool(false)) => "stopped",
                    _ => "up",
                },
            });
        }
    }
    let mut accounts = Vec::new();
    let mut names: Vec<String> = bus.js().stream_names().try_collect().await.context("list streams")?;
    names.sort_unstable();
    for risk in names.iter().filter(|name| name.starts_with("RISK_")) {
        let token = &risk["RISK_".len()..];
        let mut facts: BTreeMap<String, u64> = KINDS.iter().map(|kind| ((*kind).to_owned(), 0)).collect();
        for stream in [risk.clone(), format!("EXEC_{token}")] {
            for (subject, n) in subjects(bus, &stream).await? {
                if let Some(count) = facts.get_mut(subject.split('.').next().unwrap_or("")) {
                    *count += n;
                }
            }
        }
        let newest = leader::last_by_subject(bus, risk, &format!("account.{token}")).await?;
        let newest = newest.and_then(|m| AccountFact::decode(&m.payload).ok());
        accounts.push(Desk {
            account: unescape(token).unwrap_or_else(|| token.to_owned()),
            facts,
            per_s: BTreeMap::new(),
            equity: newest.as_ref().map(|a| a.equity.to_string()),
            drawdown: newest.as_ref().map(|a| a.drawdown.to_string()),
            trading: newest.and_then(|a| serde_json::to_value(a.state).ok()),
        });
    }
    Ok(Sample { wall_ns, tasks, accounts })
}

/// Facts by subject; a stream that is absent has none.
async fn subjects(bus: &Bus, stream: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let body = serde_json::to_vec(&json!({ "subjects_filter": ">" }))?;
    let answer = bus.client().request(format!("$JS.API.STREAM.INFO.{stream}"), body.into()).await;
    let answer = answer.with_context(|| format!("ask for the subjects of {stream}"))?;
    let answer: Value = serde_json::from_slice(&answer.payload).context("read the server's answer")?;
    let counts = answer["state"]["subjects"].as_object().cloned().unwrap_or_default();
    Ok(counts.into_iter().map(|(subject, n)| (subject, n.as_u64().unwrap_or(0))).collect())
}

/// Differences to the sample before, by second.
fn rates(now: &mut Sample, before: &Sample, passed_s: f64) {
    let per_s = |now: u64, then: u64| (passed_s > 0.0 && now >= then).then(|| (now - then) as f64 / passed_s);
    for row in &mut now.tasks {
        // A restarted process counts from nothing.
        let Some(then) = before.tasks.iter().find(|t| t.task == row.task && t.id == row.id) else { continue };
        row.heard_per_s = per_s(row.heard, then.heard);
        row.said_per_s = per_s(row.said, then.said);
    }
    for desk in &mut now.accounts {
        let Some(then) = before.accounts.iter().find(|d| d.account == desk.account) else { continue };
        let rate =
            |(kind, n): (&String, &u64)| Some((kind.clone(), per_s(*n, then.facts.get(kind).copied().unwrap_or(0))?));
        desk.per_s = desk.facts.iter().filter_map(rate).collect();
    }
}

fn text(sample: &Sample, all: bool) -> String {
    let mut table = Table::new();
    // A line a task: the screen is short.
    table.load_style(presets::NOTHING);
    table.set_header(["task", "heard/s", "said/s", "lag", "watermark age", "checkpoint age", "state"]);
    (1..6).for_each(|i| {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    });
    // Most partitions hear their clock alone.
    let busy = |r: &&Row| all || r.said > 0 || r.lag > 0 || r.state != "up" || r.task.starts_with("ledger.");
    let shown: Vec<&Row> = sample.tasks.iter().filter(busy).collect();
    let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.1}"));
    for row in shown.iter().take(ROWS_MAX) {
        table.add_row([
            row.task.clone(),
            rate(row.heard_per_s),
            rate(row.said_per_s),
            row.lag.to_string(),
            row.watermark_age_ms.map_or(String::new(), age),
            age(row.checkpoint_age_ms as f64),
            row.state.to_owned(),
        ]);
    }
    let mut desks = Table::new();
    desks.load_style(presets::NOTHING);
    desks.set_header(["account", "orders", "refusals", "fills", "rejects", "cancels", "equity", "drawdown", "trading"]);
    for desk in &sample.accounts {
        let counts = KINDS.iter().map(|kind| match desk.per_s.get(*kind).filter(|rate| **rate > 0.0) {
            Some(rate) => format!("{} (+{rate:.1}/s)", desk.facts[*kind]),
            None => desk.facts[*kind].to_string(),
        });
        let trading = desk.trading.as_ref().and_then(Value::as_str).unwrap_or("").to_owned();
        let short = |text: &Option<String>, digits: u32| {
            let number = text.as_ref().and_then(|text| text.parse::<schemas::Decimal>().ok());
            number.map_or(String::new(), |number| number.round_dp(digits).to_string())
        };
        let rest = [short(&desk.equity, 2), short(&desk.drawdown, 6), trading];
        desks.add_row(std::iter::once(desk.account.clone()).chain(counts).chain(rest));
    }
    let more = sample.tasks.len() - shown.len().min(ROWS_MAX);
    let more = if more > 0 { format!("\n{more} more tasks (--all)") } else { String::new() };
    format!("{}  {} tasks\n\n{table}{more}\n\n{desks}", crate::records::time_text(sample.wall_ns), sample.tasks.len())
}

/// `12 ms`, `3.4 s`, `2.1 h`
fn age(ms: f64) -> String {
    match ms.abs() {
        x if x < 1_000.0 => format!("{ms:.0} ms"),
        x if x < 600_000.0 => format!("{:.1} s", ms / 1e3),
        _ => format!("{:.1} h", ms / 3.6e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, heard: u64) -> Row {
        Row {
            task: "risk.main".into(),
            id: id.into(),
            heard,
            said: 0,
            heard_per_s: None,
            said_per_s: None,
            lag: 0,
            watermark_age_ms: None,
            checkpoint_age_ms: 0,
            state: "up",
        }
    }

    #[test]
    fn a_rate_is_of_one_process_and_a_restarted_one_has_none_yet() {
        let sample = |row| Sample { wall_ns: 0, tasks: vec![row], accounts: Vec::new() };
        let mut now = sample(row("a", 30));
        rates(&mut now, &sample(row("a", 10)), 2.0);
        assert_eq!(now.tasks[0].heard_per_s, Some(10.0));
        let mut now = sample(row("b", 30));
        rates(&mut now, &sample(row("a", 10)), 2.0);
        assert_eq!(now.tasks[0].heard_per_s, None);
    }
}
