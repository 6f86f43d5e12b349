//! `tapeline positions`, `trades`, `signals`: the gateway's REST answers as tables or JSON.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::run_file::RunFile;
use crate::target;

/// How long the gateway may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Where the gateway is.
#[derive(clap::Args)]
struct Gateway {
    /// Address of a gateway; default: the one of the running pipeline
    #[arg(long)]
    url: Option<String>,
}

/// `tapeline positions`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline positions --json")]
pub struct PositionsArgs {
    #[command(flatten)]
    gateway: Gateway,
}

/// `tapeline trades`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline trades --limit 20")]
pub struct TradesArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// How many, 1..=1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// `tapeline signals`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline signals --strategy ema_cross --limit 20")]
pub struct SignalsArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// Only of this strategy
    #[arg(long)]
    strategy: Option<String>,
    /// How many, 1..=1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub fn positions(args: PositionsArgs, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    show(
        &args.gateway,
        data,
        json,
        "positions",
        &[],
        &["venue", "symbol", "held", "entry", "mark", "unrealised", "realised"],
    )
}

pub fn trades(args: TradesArgs, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let query = [("limit", args.limit.to_string())];
    show(
        &args.gateway,
        data,
        json,
        "trades",
        &query,
        &["ts_ns", "venue", "symbol", "side", "qty", "price", "fee", "why"],
    )
}

pub fn signals(args: SignalsArgs, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let mut query = vec![("limit", args.limit.to_string())];
    if let Some(strategy) = args.strategy {
        query.push(("strategy", strategy));
    }
    show(
        &args.gateway,
        data,
        json,
        "signals",
        &query,
        &["ts_ns", "strategy", "venue", "symbol", "timeframe", "side", "strength", "reason"],
    )
}

fn show(
    gateway: &Gateway,
    data: Option<PathBuf>,
    json: bool,
    what: &str,
    query: &[(&str, String)],
    columns: &[&str],
) -> anyhow::Result<()> {
    let base = match &gateway.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => RunFile::required(&target::folder(data)?)?.dashboard.context("this pipeline runs no gateway")?,
    };
    let answer = target::block_on(fetch(&format!("{base}/api/{what}"), query))?;
    if json {
        println!("{answer}");
        return Ok(());
    }
    let rows = answer.get(what).unwrap_or(&answer).as_array().cloned().unwrap_or_default();
    if rows.is_empty() {
        println!("no {what}");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(columns.iter().map(|c| c.trim_end_matches("_ns")));
    for row in &rows {
        table.add_row(columns.iter().map(|c| cell(c, &row[*c])));
    }
    println!("{table}");
    Ok(())
}

fn cell(column: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) if column.ends_with("_ns") => n.as_i64().map_or(n.to_string(), time_text),
        other => other.to_string(),
    }
}

/// `2026-11-21T10:46:00.123Z`
pub fn time_text(ns: i64) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp_nanos(ns as i128) else { return ns.to_string() };
    let (date, clock) = (at.date(), at.time());
    format!("{date}T{:02}:{:02}:{:02}.{:03}Z", clock.hour(), clock.minute(), clock.second(), clock.millisecond())
}

async fn fetch(url: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
    nats::crypto::install();
    let client = reqwest::Client::builder().timeout(ANSWER_WAIT_MAX).build().context("prepare the request")?;
    let answer = client.get(url).query(query).send().await.with_context(|| format!("ask {url}"))?;
    let status = answer.status();
    let body = answer.text().await.with_context(|| format!("read the answer of {url}"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {}", body.chars().take(300).collect::<String>());
    }
    serde_json::from_str(&body).with_context(|| format!("{url} answered no JSON"))
}
