//! OKX connections: what is subscribed where.

use serde_json::{Value, json};

use super::decode::width;

/// The socket that carries a channel; the others refuse it with 60018.
fn path(topic: &str) -> &'static str {
    match name(topic) {
        "trades-all" => "business",
        name if width(name).is_some() => "business",
        _ => "public",
    }
}

/// `books` of `books:BTC-USDT`.
fn name(topic: &str) -> &str {
    topic.split_once(':').map_or(topic, |(name, _)| name)
}

/// `{}` is the symbol.
pub fn check_channel(channel: &str) -> Result<(), String> {
    const ALLOWED: &str = "trades-all:{}, trades:{}, books:{}, books5:{}, bbo-tbt:{}, tickers:{}, mark-price:{}, \
                           funding-rate:{}, open-interest:{}, price-limit:{}, candle<width>:{}, index-tickers:<index>, \
                           liquidation-orders:<kind>, instruments:<kind>, opt-summary:<family>, status";
    let known = match channel.split_once(':') {
        Some((
            "trades-all" | "trades" | "books" | "books5" | "bbo-tbt" | "tickers" | "mark-price" | "funding-rate"
            | "open-interest" | "price-limit",
            of,
        )) => of == "{}",
        Some(("liquidation-orders" | "instruments", kind)) => {
            ["SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"].contains(&kind)
        }
        Some(("index-tickers" | "opt-summary", of)) => !of.is_empty(),
        Some((name, of)) => of == "{}" && width(name).is_some(),
        None => channel == "status",
    };
    if known { Ok(()) } else { Err(format!("allowed are {ALLOWED}")) }
}

/// The argument that names a topic to the venue.
fn argument(topic: &str) -> Value {
    match topic.split_once(':') {
        Some((channel @ ("liquidation-orders" | "instruments"), of)) => json!({ "channel": channel, "instType": of }),
        Some((channel @ "opt-summary", of)) => json!({ "channel": channel, "instFamily": of }),
        Some((channel, of)) => json!({ "channel": channel, "instId": of }),
        None => json!({ "channel": topic }),
    }
}

/// Connections of this venue come with its protocol.
pub fn sessions(_plan: &crate::session::Plan) -> Vec<Box<dyn crate::session::Session>> {
    Vec::new()
}
