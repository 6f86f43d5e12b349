//! `tapeline feed`: what a running venue feed carries, and changes to it while it runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use nats::Bus;
use serde_json::{Value, json};

use crate::target;

/// A feed answers within this, or does not run.
const ANSWER_WAIT: Duration = Duration::from_secs(6);

/// `tapeline feed`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline feed status binance
  tapeline feed subscribe binance SOLUSDT
  tapeline feed resync binance BTCUSDT
  nats request ctl.ingest.binance '{\"op\":\"status\"}'
What is changed lasts until ingest ends: symbols that are to stay belong into [ingest.venues.<venue>].")]
pub struct Args {
    #[command(subcommand)]
    wish: Wish,
}

#[derive(Subcommand)]
enum Wish {
    /// Every connection of a venue: what it carries, and how it does
    Status(Venue),
    /// Carry another symbol
    Subscribe(Symbol),
    /// Carry a symbol no longer
    Unsubscribe(Symbol),
    /// Throw a symbol's order book away and start it again
    Resync(Symbol),
    /// Make every connection anew
    Reconnect(Venue),
}

#[derive(clap::Args)]
struct Venue {
    /// Such as binance, binance-usdm, hyperliquid
    venue: String,
}

#[derive(clap::Args)]
struct Symbol {
    /// Such as binance, binance-usdm, hyperliquid
    venue: String,
    /// In the venue's spelling
    symbol: String,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async move {
        let bus = target::operator_bus(data).await?;
        let (venue, request) = match &args.wish {
            Wish::Status(v) => (&v.venue, json!({ "op": "status" })),
            Wish::Reconnect(v) => (&v.venue, json!({ "op": "reconnect" })),
            Wish::Subscribe(s) => (&s.venue, json!({ "op": "subscribe", "symbol": s.symbol })),
            Wish::Unsubscribe(s) => (&s.venue, json!({ "op": "unsubscribe", "symbol": s.symbol })),
            Wish::Resync(s) => (&s.venue, json!({ "op": "resync", "symbol": s.symbol })),
        };
        let answer = ask(&bus, venue, &request).await?;
        if json {
            println!("{answer}");
        } else if let Wish::Status(_) = args.wish {
            println!("{}", table(&answer));
            said(&answer).for_each(|sentence| println!("{sentence}"));
        } else {
            println!("done");
        }
        Ok(())
    })
}

/// The feed's answer; its refusal is an error.
async fn ask(bus: &Bus, venue: &str, request: &Value) -> anyhow::Result<Value> {
    let subject = ingest::ctl::subject(venue);
    let asked = bus.client().request(subject.clone(), request.to_string().into());
    let answer = match tokio::time::timeout(ANSWER_WAIT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => bail!("nobody answers on {subject}: is ingest running with {venue} enabled? ({error})"),
        Err(_) => bail!("no answer on {subject} within {} s", ANSWER_WAIT.as_secs()),
    };
    let answer: Value = serde_json::from_slice(&answer.payload).context("read the answer")?;
    if answer["ok"] != json!(true) {
        bail!("{}", answer["error"].as_str().unwrap_or("refused without a reason"));
    }
    Ok(answer)
}

/// What the venue said of its own state and did not take back, of all connections.
fn said(answer: &Value) -> impl Iterator<Item = &str> {
    let links = answer["links"].as_array().into_iter().flatten();
    links.flat_map(|link| link["says"].as_array().into_iter().flatten()).filter_map(Value::as_str)
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["connection", "state", "silent", "connections", "symbols", "room", "last end"]);
    for link in answer["links"].as_array().into_iter().flatten() {
        let state = match (link["connected"] == json!(true), link["whole"] == json!(true)) {
            (false, _) => "down",
            (true, false) => "filling",
            (true, true) if link["stale"] == json!(true) => "STALE",
            (true, true) => "whole",
        };
        let symbols: Vec<&str> = link["symbols"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let shown = match symbols.len() {
            0..=6 => symbols.join(" "),
            n => format!("{} ... ({n})", symbols[..6].join(" ")),
        };
        table.add_row([
            link["name"].as_str().unwrap_or_default().to_owned(),
            state.to_owned(),
            format!("{} ms", link["silent_ms"]),
            link["connections"].to_string(),
            shown,
            link["room"].to_string(),
            link["last_end"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    table
}
