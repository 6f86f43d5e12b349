//! One MEXC connection: what it subscribes and how.

use super::Kind;
use crate::session::{Plan, Session};

/// Widths of candles on the socket.
const WIDTHS: &[&str] = &["Min1", "Min5", "Min15", "Min30", "Min60", "Hour4", "Hour8", "Day1", "Week1", "Month1"];
/// Levels of a top of the book.
const TOPS: &[&str] = &["5", "10", "20"];

/// `{}` is the symbol. Spot's are the venue's own names. Contract subscribes by a method and its parameters; the text for
/// that is `<method>@<symbol>@<parameter>`.
pub fn check_channel(kind: Kind, channel: &str) -> Result<(), String> {
    const SPOT: &str = "spot@public.aggre.deals|aggre.depth|aggre.bookTicker.v3.api.pb@10ms|100ms@{}, \
                        spot@public.limit.depth.v3.api.pb@{}@5|10|20, spot@public.bookTicker.batch.v3.api.pb@{}, \
                        spot@public.kline.v3.api.pb@{}@Min1|Min5|..., spot@public.miniTicker.v3.api.pb@{}@UTC+8, \
                        spot@public.miniTickers.v3.api.pb@UTC+8";
    const CONTRACT: &str = "deal@{}, depth@{}, depth.full@{}@5|10|20, kline@{}@Min1|Min5|..., ticker@{}, tickers, \
                            funding.rate@{}, index.price@{}, fair.price@{}";
    let parts: Vec<&str> = channel.split('@').collect();
    let (known, allowed) = match kind {
        Kind::Spot => (is_spot(&parts), SPOT),
        Kind::Contract => (is_contract(&parts), CONTRACT),
    };
    if known { Ok(()) } else { Err(format!("allowed are {allowed}")) }
}

fn is_spot(parts: &[&str]) -> bool {
    let ["spot", name, rest @ ..] = parts else { return false };
    let Some(name) = name.strip_prefix("public.").and_then(|n| n.strip_suffix(".v3.api.pb")) else { return false };
    match (name, rest) {
        ("aggre.deals" | "aggre.depth" | "aggre.bookTicker", ["10ms" | "100ms", "{}"]) => true,
        ("bookTicker.batch", ["{}"]) => true,
        ("limit.depth", ["{}", levels]) => TOPS.contains(levels),
        ("kline", ["{}", width]) => WIDTHS.contains(width),
        ("miniTicker", ["{}", zone]) | ("miniTickers", [zone]) => !zone.is_empty(),
        _ => false,
    }
}

fn is_contract(parts: &[&str]) -> bool {
    match parts {
        ["deal" | "depth" | "ticker" | "funding.rate" | "index.price" | "fair.price", "{}"] | ["tickers"] => true,
        ["depth.full", "{}", levels] => TOPS.contains(levels),
        ["kline", "{}", width] => WIDTHS.contains(width),
        _ => false,
    }
}

/// The connections come with the next change: nothing is subscribed yet.
pub fn sessions(_kind: Kind, _plan: &Plan) -> Vec<Box<dyn Session>> {
    Vec::new()
}
