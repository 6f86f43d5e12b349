//! `tapeline gaps`: what was missing, by day: the gap facts of the raw streams added up.

mod days;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use futures_util::TryStreamExt;
use nats::{Bus, Reader, leader};
use schemas::Fact;
use schemas::raw::Gap;
use schemas::subject::stream;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::records::time_text;
use crate::target;
use days::{Channel, DAY_NS, Day, Ledger, Told};

/// Gaps held in memory.
const GAPS_MAX: usize = 1_000_000;
/// Gap facts of one read.
const BATCH: usize = 512;

/// `tapeline gaps`
#[derive(clap::Args)]
#[command(
    after_help = "Days are UTC, times are event times. A gap over midnight stands in both days. One that lasts still \
                        counts up to the newest\nmessage of its stream. Streams keep what [nats.layout] says; older gaps \
                        are gone.\nExamples:\n  tapeline gaps\n  tapeline gaps --venue binance --symbol BTCUSDT --from \
                        2026-11-20\n  tapeline gaps --from 2026-11-21 --to 2026-11-21 --list\n  tapeline gaps --json"
)]
pub struct Args {
    /// Only of this venue; default: every venue with a stream
    #[arg(long, value_name = "V")]
    venue: Option<String>,
    /// Only of this symbol, as the venue writes it
    #[arg(long, value_name = "S")]
    symbol: Option<String>,
    /// First day: 2026-11-20
    #[arg(long, value_name = "D", value_parser = day_of)]
    from: Option<i64>,
    /// Last day, included
    #[arg(long, value_name = "D", value_parser = day_of)]
    to: Option<i64>,
    /// Every gap with its begin, end and reason instead of a row a day
    #[arg(long)]
    list: bool,
}

/// What one stream holds of gaps.
struct Found {
    ledger: Ledger,
    /// When its newest message was stored.
    now_ns: i64,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let days = (args.from.unwrap_or(i64::MIN), args.to.unwrap_or(i64::MAX));
    ensure!(days.0 <= days.1, "--from lies behind --to");
    let found = target::block_on(async {
        let bus = target::operator_bus(data).await?;
        let mut found = Vec::new();
        for name in streams(&bus, args.venue.as_deref()).await? {
            found.push(read(&bus, &name, args.symbol.as_deref()).await.with_context(|| format!("read {name}"))?);
        }
        Ok(found)
    })?;
    match (args.list, json) {
        (true, _) => list(&found, days, json),
        (false, true) => {
            let rows: Vec<_> = rows(&found, days).map(|(day, channel, row)| day_json(day, &channel, &row)).collect();
            println!("{}", json!({ "days": rows }));
        }
        (false, false) => table(&found, days),
    }
    Ok(())
}

/// The raw streams that are asked about, by name.
async fn streams(bus: &Bus, venue: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = bus.js().stream_names().try_collect().await.context("list streams")?;
    names.retain(|name| name.starts_with("RAW_"));
    names.sort();
    let Some(venue) = venue else {
        ensure!(!names.is_empty(), "the server has no raw stream (make them with `tapeline up` or `tapeline init`)");
        return Ok(names);
    };
    let wanted = stream::raw(venue);
    if !names.contains(&wanted) {
        bail!("no stream {wanted}; there are {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    }
    Ok(vec![wanted])
}

/// Every gap fact that a stream holds.
async fn read(bus: &Bus, name: &str, symbol: Option<&str>) -> anyhow::Result<Found> {
    let newest = leader::last_by_subject(bus, name, ">").await?;
    let mut found = Found { ledger: Ledger::default(), now_ns: newest.map_or(0, |message| message.time_ns) };
    // The server picks: of millions of ticks only the gaps come over.
    let mut reader = Reader::open(bus, name, &format!("raw.*.*.{}.*", Gap::KIND), 0).await?;
    while !reader.caught_up() {
        for message in reader.next_batch(BATCH).await? {
            let gap = Gap::decode(&message.payload).with_context(|| format!("read {name}:{}", message.seq))?;
            if symbol.is_none_or(|symbol| symbol == gap.symbol) {
                found.ledger.hear(gap, GAPS_MAX)?;
            }
        }
    }
    Ok(found)
}

/// Rows of all streams, oldest day first.
fn rows(found: &[Found], days: (i64, i64)) -> impl Iterator<Item = (i64, Channel, Day)> {
    let mut rows: Vec<_> = found.iter().flat_map(|f| f.ledger.days(days, f.now_ns)).collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().map(|((day, channel), row)| (day, channel, row))
}

fn table(found: &[Found], days: (i64, i64)) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["day", "venue", "symbol", "channel", "gaps", "open", "missing s", "longest s"]);
    for (day, c, row) in rows(found, days) {
        let (missing, longest) = (seconds(row.missing_ns), seconds(row.longest_ns));
        let (gaps, open) = (row.gaps.to_string(), row.open.to_string());
        table.add_row([day_text(day), c.venue, c.symbol, c.channel, gaps, open, missing, longest]);
    }
    show(&mut table, 4..8);
}

fn list(found: &[Found], days: (i64, i64), json: bool) {
    let told = || found.iter().flat_map(|f| f.ledger.told(days, f.now_ns).map(|(c, told)| (c, told, f.now_ns)));
    if json {
        let gaps: Vec<_> = told().map(|(channel, told, now_ns)| told_json(channel, told, now_ns)).collect();
        println!("{}", json!({ "gaps": gaps }));
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["venue", "symbol", "channel", "from", "to", "seconds", "reason"]);
    for (c, t, now_ns) in told() {
        let to = t.to_ns.map_or("open".to_owned(), time_text);
        let lasted = seconds(t.end(now_ns) - t.from_ns);
        table.add_row([&c.venue, &c.symbol, &c.channel, &time_text(t.from_ns), &to, &lasted, t.reason]);
    }
    show(&mut table, 5..6);
}

/// The table with these columns as numbers, or a word where it is empty.
fn show(table: &mut Table, numbers: std::ops::Range<usize>) {
    if table.is_empty() {
        println!("no gaps");
        return;
    }
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

fn day_json(day: i64, c: &Channel, row: &Day) -> serde_json::Value {
    json!({
        "day": day_text(day), "venue": c.venue, "symbol": c.symbol, "channel": c.channel, "gaps": row.gaps,
        "open": row.open, "missing_ns": row.missing_ns, "longest_ns": row.longest_ns,
    })
}

fn told_json(c: &Channel, told: Told<'_>, now_ns: i64) -> serde_json::Value {
    json!({
        "venue": c.venue, "symbol": c.symbol, "channel": c.channel, "from_ns": told.from_ns, "to_ns": told.to_ns,
        "missing_ns": told.end(now_ns) - told.from_ns, "reason": told.reason,
    })
}

/// With milliseconds: shorter is below what a gap can mean.
fn seconds(ns: i64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

fn day_text(day: i64) -> String {
    time_text(day.saturating_mul(DAY_NS)).split('T').next().unwrap_or_default().to_owned()
}

/// Days since 1970 of `2026-11-20`.
fn day_of(text: &str) -> Result<i64, String> {
    let at = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
    let at = at.map_err(|_| format!("`{text}` is no day (2026-11-20)"))?;
    Ok(at.unix_timestamp().div_euclid(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_date_and_back() {
        assert_eq!(day_of("1970-01-02"), Ok(1));
        assert_eq!(day_text(day_of("2026-11-21").unwrap()), "2026-11-21");
        for text in ["", "today", "2026-11-31", "2026-11-21T10:00:00Z", "20261121"] {
            assert!(day_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_show_milliseconds() {
        assert_eq!([0, 1_500_000, 61_000_000_000].map(seconds), ["0.000", "0.001", "61.000"]);
    }
}
