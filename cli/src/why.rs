//! `tapeline why ID`: from an order, fill, refusal or signal back to the ticks.

use std::path::PathBuf;

use anyhow::Context;
use schemas::config::UserFile;
use serde_json::{Value, json};

use crate::{cores, target};

pub mod walk;

use walk::{Node, Walker};

/// `tapeline why`
#[derive(clap::Args)]
#[command(
    after_help = "The tree goes from effect to cause; `+` is the time between the storing of a fact and of the one above it.
Examples:
  tapeline why q4ni2hsxv6qhw2a3x2l7bq6mce          an order: decision, votes, limits, what became of it
  tapeline why q4ni2hsxv6qhw2a3x2l7bq6mce:1        its first fill
  tapeline why RISK_main:812                       a refusal, position or decision by its place
  tapeline why SIG_BINANCE_3:17 --json"
)]
pub struct Args {
    /// Client order id, <order id>:<n> for its n-th fill, or a place STREAM:SEQ[:INDEX]
    id: String,
    /// Single reads at most
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    reads_max: u64,
    /// Order facts that are looked through for an id, at most
    #[arg(long, default_value_t = 1_000_000)]
    scan_max: u64,
    /// The tapeline.toml whose limits were in force; default: the running pipeline's
    #[arg(long)]
    config: Option<PathBuf>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let user = cores::user_file(args.config.as_deref(), data.as_deref())?;
    let (tree, reads) = target::block_on(async {
        let bus = target::operator_bus(data).await?;
        let mut walker = Walker::new(&bus, args.reads_max, args.scan_max);
        let tree = walker.walk(&args.id).await?;
        anyhow::Ok((tree, walker.reads()))
    })?;
    let limits = limits(&tree, user.as_ref())?;
    if json {
        println!("{}", json!({"id": args.id, "tree": tree, "limits_passed": limits, "reads": reads}));
        return Ok(());
    }
    let mut text = String::new();
    draw(&tree, "", "", &mut text);
    print!("{text}");
    if !limits.is_empty() {
        println!("\npassed {} limits, in this order (bounds of the configuration now):", limits.len());
        for limit in &limits {
            println!("  {}", limit_text(limit));
        }
    }
    println!("{reads} reads");
    Ok(())
}

/// The limits that the order in the tree was asked of and passed, with their bounds; empty without an order of risk.
fn limits(tree: &Node, user: Option<&UserFile>) -> anyhow::Result<Vec<Value>> {
    let Some(order) = find(tree, &|n| n.subject.starts_with("order.")) else { return Ok(Vec::new()) };
    let closes = order.fact["reduce_only"] == json!(true);
    let table: toml::Table = schemas::config::load("risk", risk::config::DEFAULT, user)?;
    let bounds = serde_json::to_value(&table["limits"]).context("read the limits")?;
    let asked = risk::limit::LIMITS.iter().filter(|limit| {
        let on = bounds[limit.id()]["on"] != json!(false);
        on && (!closes || limit.applies_to_closes())
    });
    Ok(asked.map(|limit| json!({"limit": limit.id(), "bounds": bounds[limit.id()]})).collect())
}

fn find<'a>(node: &'a Node, wanted: &dyn Fn(&Node) -> bool) -> Option<&'a Node> {
    if wanted(node) {
        return Some(node);
    }
    node.because.iter().find_map(|below| find(below, wanted))
}

fn limit_text(limit: &Value) -> String {
    let bounds = limit["bounds"].as_object().into_iter().flatten().filter(|(name, _)| *name != "on");
    let bounds: Vec<String> = bounds.map(|(name, value)| format!("{name} {}", plain(value))).collect();
    format!("{} {}", limit["limit"].as_str().unwrap_or("?"), bounds.join(", ")).trim_end().to_owned()
}

fn draw(node: &Node, first: &str, rest: &str, text: &mut String) {
    text.push_str(&format!("{first}{}\n", line(node)));
    let count = node.because.len();
    for (i, below) in node.because.iter().enumerate() {
        let last = i + 1 == count;
        let (branch, bar) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(below, &format!("{rest}{branch}"), &format!("{rest}{bar}"), text);
    }
}

/// One fact in a line: role, what it says, where it stands, how long before the one above.
fn line(node: &Node) -> String {
    let mut text = format!("{}: {}  [{}]", node.role, saying(node), node.place);
    if let Some(ts_ns) = node.ts_ns {
        text += &format!("  {}", crate::records::time_text(ts_ns));
    }
    if let Some(hop_ns) = node.hop_ns {
        text += &format!("  +{}", span(hop_ns));
    }
    if let (Some(place), Some(merge_ns)) = (&node.heard_at, node.merge_ns) {
        text += &format!(" ({} until {place})", span(merge_ns));
    }
    if let (Some(ingest_ns), Some(venue_ns)) = (node.ingest_ns, node.venue_ns) {
        text += &format!("  received +{} after the venue's time, stored +{}", span(venue_ns), span(ingest_ns));
    }
    text
}

/// `1.2 ms`, `840 us`, `3.4 s`
fn span(ns: i64) -> String {
    match ns.unsigned_abs() {
        0..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000_000..3_600_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        _ => format!("{:.1} h", ns as f64 / 3.6e12),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a fact says, in the words that matter of its kind.
fn saying(node: &Node) -> String {
    let f = &node.fact;
    let words = |names: &[&str]| {
        let found = names.iter().map(|name| &f[*name]).filter(|v| !v.is_null()).map(plain);
        found.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let tokens: Vec<&str> = node.subject.split('.').collect();
    match tokens.first().copied().unwrap_or("") {
        "raw" => {
            let kind = tokens.get(3).copied().unwrap_or("raw");
            let fields = ["id", "side", "price", "size", "bid", "bid_size", "ask", "ask_size", "mark", "last"];
            format!("{kind} {} {}", tokens.get(4).copied().unwrap_or(""), words(&fields))
        }
        "candle" | "indicator" => {
            let kind = tokens[0];
            format!("{kind} {} closed by {}", words(&["symbol", "tf", "close"]), plain(&f["closed_by"]))
                .replace(" closed by null", "")
        }
        "signal" => {
            let vote = match (&f["vote_weight"], &f["vote_note"]) {
                (Value::Null, _) => String::new(),
                (weight, Value::String(note)) if !note.is_empty() => format!(" (weight {}, {note})", plain(weight)),
                (weight, _) => format!(" (weight {})", plain(weight)),
            };
            format!(
                "{}{vote}: {}",
                words(&["strategy", "symbol", "side", "strength", "confidence"]),
                plain(&f["reason"])
            )
        }
        "intent" => {
            format!("{} says {}: {}", plain(&f["policy"]), words(&["side", "target", "outcome"]), plain(&f["reason"]))
        }
        "refusal" => format!(
            "refused {} by {}: {} against {}: {}",
            words(&["side", "qty", "symbol"]),
            plain(&f["limit"]),
            plain(&f["number"]),
            plain(&f["bound"]),
            plain(&f["reason"])
        ),
        "order" => format!(
            "order {}: {}",
            words(&["id", "side", "qty", "symbol", "kind", "limit", "trigger"]),
            plain(&f["reason"])
        ),
        "sending" => {
            format!("sending {}", ["id", "side", "qty", "symbol", "kind"].map(|n| plain(&f["order"][n])).join(" "))
        }
        "live" => format!("{} says of {}: {}", plain(&f["venue"]), plain(&f["id"]), plain(&f["what"])),
        "fill" => format!("fill {} at {}: {}", words(&["side", "qty", "symbol"]), plain(&f["price"]), plain(&f["why"])),
        "reject" => format!("rejected {}: {}", plain(&f["code"]), plain(&f["reason"])),
        "done" => words(&["state", "filled", "reason"]),
        "position" => format!("position {}", words(&["symbol", "held", "entry"])),
        "$KV" => format!("{} {}", node.subject, words(&["state", "by", "reason"])),
        kind => format!("{kind} {}", words(&["symbol", "side", "reason", "summary"])),
    }
}
