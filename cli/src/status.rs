//! `tapeline status`: every stage as it answers on the bus.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use comfy_table::{Table, presets};
use nats::Bus;
use nats::stats::{StageStats, gather};
use serde_json::{Value, json};

use crate::run_file::RunFile;
use crate::{plan, target};

/// How long stages may take to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(700);

/// `tapeline status`
#[derive(clap::Args)]
#[command(
    after_help = "Exit code 1 when a stage does not answer or a task does not run.\nExamples:\n  tapeline status\n  tapeline status --tasks\n  tapeline status --json"
)]
pub struct Args {
    /// One row a task instead of one a stage
    #[arg(long)]
    tasks: bool,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(show(args, data, json))
}

async fn show(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let run = match &data {
        Some(folder) => RunFile::read(folder)?,
        None => target::folder(None).ok().and_then(|folder| RunFile::read(&folder).ok().flatten()),
    };
    let bus = target::operator_bus(data).await?;
    let answers = gather(&bus, ANSWER_WAIT).await?;
    let missing: Vec<&str> = plan::STAGES.into_iter().filter(|s| answers.iter().all(|a| a.stage != *s)).collect();
    let idle: Vec<String> = answers
        .iter()
        .flat_map(|a| a.tasks.iter().map(move |t| (a, t)))
        .filter(|(_, t)| t["running"] == json!(false))
        .map(|(a, t)| format!("{}.{}", a.stage, t["task"].as_str().unwrap_or("?")))
        .collect();
    if json {
        let stages: Vec<Value> = answers.iter().map(|a| stage_json(a)).collect();
        println!(
            "{}",
            json!({"up": missing.is_empty() && idle.is_empty(), "missing": missing, "idle": idle, "run": run, "stages": stages})
        );
    } else {
        if let Some(run) = &run {
            println!(
                "{} mode, bus {}, dashboard {}",
                run.mode,
                run.nats_url,
                run.dashboard.as_deref().unwrap_or("none")
            );
        }
        println!("{}", if args.tasks { task_table(&answers) } else { stage_table(&answers) });
    }
    if !missing.is_empty() {
        bail!("no answer from {}", missing.join(", "));
    }
    if !idle.is_empty() {
        bail!("not running: {}", idle.join(", "));
    }
    Ok(())
}

fn stage_json(a: &StageStats) -> Value {
    json!({"stage": a.stage, "id": a.id, "version": a.version, "lag": a.lag(), "heard": sum(a, "heard"), "said": sum(a, "said"), "watermark_ns": watermark(a), "tasks": a.tasks, "more": a.whole})
}

fn sum(a: &StageStats, field: &str) -> u64 {
    a.tasks.iter().filter_map(|t| t[field].as_u64()).sum()
}

/// The oldest watermark of its tasks: up to then the stage has heard everything.
fn watermark(a: &StageStats) -> Option<i64> {
    a.tasks.iter().filter_map(|t| t["watermark_ns"].as_i64()).min()
}

fn age_text(watermark_ns: Option<i64>) -> String {
    let Some(ns) = watermark_ns else { return String::new() };
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    let age_s = (now_ns - ns) as f64 / 1e9;
    if age_s.abs() < 600.0 { format!("{age_s:.1} s") } else { crate::records::time_text(ns) }
}

fn stage_table(answers: &[StageStats]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "stage",
        "tasks",
        "heard",
        "said",
        "lag",
        "watermark age",
        "state",
    ]);
    for a in answers {
        let stopped = a.tasks.iter().filter(|t| t["running"] == json!(false)).count();
        let state = if a.whole["connected"] == json!(false) {
            "disconnected".to_owned()
        } else if stopped > 0 {
            format!("{stopped} stopped")
        } else if a.tasks.is_empty() && a.whole["lease"].is_object() {
            // Another instance holds what it would run.
            "standby".to_owned()
        } else {
            "up".to_owned()
        };
        table.add_row([
            a.stage.clone(),
            a.tasks.len().to_string(),
            sum(a, "heard").to_string(),
            sum(a, "said").to_string(),
            a.lag().to_string(),
            age_text(watermark(a)),
            state,
        ]);
    }
    table
}

fn task_table(answers: &[StageStats]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "stage",
        "task",
        "in seq",
        "lag",
        "out seq",
        "checkpoint age ms",
        "watermark age",
        "state",
    ]);
    for a in answers {
        for t in &a.tasks {
            let state = if t["fenced"] == json!(true) {
                "fenced"
            } else if t["running"] == json!(false) {
                "stopped"
            } else {
                "up"
            };
            let text = |field: &str| t[field].as_u64().map_or(String::new(), |n| n.to_string());
            table.add_row([
                a.stage.clone(),
                t["task"].as_str().unwrap_or("").to_owned(),
                text("in_seq"),
                text("lag"),
                text("out_seq"),
                text("ckpt_age_ms"),
                age_text(t["watermark_ns"].as_i64()),
                state.to_owned(),
            ]);
        }
    }
    table
}

/// Waits until every stage answers with all its tasks running.
pub async fn wait_for_stages(bus: &Bus, stages: &[&str], wait_max: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + wait_max;
    loop {
        let answers = gather(bus, Duration::from_millis(300)).await?;
        let ready = |stage: &&&str| {
            answers.iter().any(|a| a.stage == **stage && a.tasks.iter().all(|t| t["running"] != json!(false)))
        };
        let missing: Vec<&str> = stages.iter().filter(|s| !ready(s)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("no answer from {} within {} s", missing.join(", "), wait_max.as_secs());
        }
    }
}
