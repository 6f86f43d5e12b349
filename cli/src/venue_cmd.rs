//! `tapeline venue`: which venues there are, and whether a description of another one can be used.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use ingest::custom::sample::{self, Report};
use ingest::custom::{self, Description};
use ingest::venue::{Market, VENUES, Venue};
use serde_json::{Value, json};

use crate::{batch, config_cmd};

/// `tapeline venue`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline venue list
  tapeline venue check ingest/examples/venues/kraken.toml
  tapeline venue check my-venue.toml --sample frames.jsonl
  tapeline venue check polled.toml --channel trades --symbol BTCUSD --sample answers.jsonl")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Venues and markets with what their trade ids and books tell; described ones by --config
    List {
        /// tapeline.toml whose enabled venues with `describe` are listed too
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Check a description, and try it on recorded lines: exit 0 all understood, 1 some not, 64 bad description
    Check {
        /// TOML file as in ingest/examples/venues/
        file: PathBuf,
        /// Recorded lines, plain or gzip: frames, `<receive ns> <frame>`, or rows where the description has [files]
        #[arg(long)]
        sample: Option<PathBuf>,
        /// The polled channel (or backfill, history, snapshot) whose answers the sample holds
        #[arg(long, default_value = "")]
        channel: String,
        /// Symbol of the request or file, where lines do not tell it
        #[arg(long, default_value = "")]
        symbol: String,
    },
}

pub fn run(args: Args, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::List { config } => list(config, json),
        Action::Check { file, sample, channel, symbol } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let name = file.display().to_string();
            let description = Arc::new(Description::parse(&name, &text).map_err(custom::together)?);
            let Some(sample) = sample else {
                return said(&description, json);
            };
            let lines = batch::open(&sample)?;
            let report = sample::check(&description, &channel, &symbol, lines)
                .with_context(|| format!("read {}", sample.display()))?;
            if json {
                println!("{}", serde_json::to_string(&report).context("write the report")?);
            } else {
                show(&report);
            }
            if report.lines == 0 {
                bail!("the sample holds no line");
            }
            if report.wrong > 0 {
                bail!("{} of {} lines were not understood", report.wrong, report.lines);
            }
            Ok(())
        }
    }
}

/// What a description that can be used consists of.
fn said(description: &Description, json: bool) -> anyhow::Result<()> {
    let channels: Vec<&str> = description.channels.iter().map(|c| c.name.as_str()).collect();
    if json {
        let messages = description.messages.len();
        println!("{}", json!({ "name": description.name, "channels": channels, "messages": messages }));
    } else {
        let messages = description.messages.len();
        println!("{}: the description can be used", description.name);
        println!(
            "channels: {}; kinds of messages: {messages}",
            if channels.is_empty() { "none (files)".to_owned() } else { channels.join(", ") }
        );
    }
    Ok(())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

fn show(report: &Report) {
    let mut messages = table(&["message", "kind", "lines"]);
    for m in &report.messages {
        let lines = if m.lines == 0 { "never in the sample".to_owned() } else { m.lines.to_string() };
        messages.add_row([m.message.clone(), m.kind.clone(), lines]);
    }
    println!("{messages}");
    let mut events = table(&["event", "symbol", "count"]);
    for (kind, symbols) in &report.events {
        for (symbol, count) in symbols {
            events.add_row([kind.clone(), symbol.clone(), count.to_string()]);
        }
    }
    println!("{events}");
    for wrong in &report.first_wrong {
        println!("line {}: {}\n  {}", wrong.line, wrong.reason, wrong.start);
    }
    println!("{} lines, {} of them not understood", report.lines, report.wrong);
}

fn list(config: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let user = config_cmd::user_file(config.as_deref())?;
    // Registers the described venues.
    ingest::config::Config::load(user.as_ref())?;
    let mut rows = Vec::new();
    for venue in VENUES {
        rows.extend(venue.markets().iter().map(|market| row(*venue, *market, "built in")));
    }
    rows.extend(custom::all().into_iter().map(|described| row(described, described.market(), "described")));
    if json {
        println!("{}", json!({ "venues": rows }));
        return Ok(());
    }
    let columns = ["venue", "market", "id", "trade_ids", "book_rule", "from"];
    let mut shown = table(&columns);
    for row in &rows {
        shown.add_row(columns.map(|key| row[key].as_str().unwrap_or("").to_owned()));
    }
    println!("{shown}");
    Ok(())
}

fn row(venue: &dyn Venue, market: Market, from: &str) -> Value {
    let rule = venue.book_rule(market);
    let rule = custom::description::RULES.iter().find(|(_, r)| *r == rule).map_or("other", |(word, _)| *word);
    let ids = format!("{:?}", venue.trade_ids(market)).to_lowercase();
    json!({
        "venue": venue.id(), "market": market.name, "id": market.id, "trade_ids": ids, "book_rule": rule, "from": from,
    })
}
