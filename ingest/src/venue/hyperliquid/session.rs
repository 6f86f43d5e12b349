//! Hyperliquid on a socket: a message for each subscription, pings of our own, history at the head of the trades.

use std::collections::BTreeSet;

use serde_json::json;

use super::decode::{self, request_id};
use super::rest;
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Lost, Protocol, Topic, cut};
use crate::event::{Control, Event, Frame, Symbol, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};
use crate::text::member;
use crate::venue::Request;

/// Widths of the candles that the venue pushes.
const WIDTHS: &[&str] = &["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M"];

/// `{}` is the coin.
pub fn check_channel(channel: &str) -> Result<(), String> {
    let known = match channel.strip_prefix("{}@") {
        Some("trades" | "l2Book" | "bbo" | "activeAssetCtx") => true,
        Some(other) => other.strip_prefix("candle.").is_some_and(|width| WIDTHS.contains(&width)),
        None => false,
    };
    if known {
        return Ok(());
    }
    let widths = WIDTHS.join(", ");
    Err(format!(
        "allowed are {{}}@trades, {{}}@l2Book, {{}}@bbo, {{}}@activeAssetCtx, {{}}@candle.<width>; widths: {widths}"
    ))
}

/// As few connections as the limits allow; the channels of one coin stay together.
pub fn sessions(plan: &Plan) -> Vec<Box<dyn Session>> {
    let protocol = || Hyperliquid { channels: plan.channels.clone(), live: BTreeSet::new() };
    let parts = cut(&plan.symbols, |symbol| protocol().topics(symbol), Vec::new(), plan.pace.topics_max);
    let session = |(n, (symbols, topics)): (usize, (Vec<String>, Vec<Topic>))| {
        let ids = TradeIds::Unordered;
        Box::new(Connection::new(protocol(), n, plan, Rule::Whole, ids, &symbols, topics)) as Box<dyn Session>
    };
    parts.into_iter().enumerate().map(session).collect()
}

struct Hyperliquid {
    /// Of the configuration.
    channels: Vec<String>,
    /// Coins whose history has come on this connection: what follows happens now.
    live: BTreeSet<Symbol>,
}

fn carries(kind: &str) -> Carries {
    match kind {
        "trades" => Carries::Trades,
        "l2Book" => Carries::Book,
        _ => Carries::Other,
    }
}

/// What a topic is to the venue: `BTC@candle.1m` is `{"type":"candle","coin":"BTC","interval":"1m"}`.
fn subscription(topic: &Topic) -> serde_json::Value {
    let kind = topic.text.rsplit_once('@').map_or("", |(_, kind)| kind);
    match kind.split_once('.') {
        Some((kind, interval)) => json!({ "type": kind, "coin": topic.symbol, "interval": interval }),
        None => json!({ "type": kind, "coin": topic.symbol }),
    }
}

impl Hyperliquid {
    /// The first message of trades behind a subscription is the past, and nothing in it says so.
    fn mark_history(&mut self, events: &mut [Event]) {
        let mut came = BTreeSet::new();
        for event in events {
            match event {
                Event::Trade(trade) if !self.live.contains(&trade.symbol) => {
                    trade.backfill = true;
                    came.insert(trade.symbol.clone());
                }
                // Until here trades of the subscription that was left may have come.
                Event::Control(Control::Ack { id }) => {
                    if let Some(coin) = id.strip_prefix("unsubscribe ").and_then(|t| t.strip_suffix("@trades")) {
                        self.live.remove(coin);
                    }
                }
                _ => {}
            }
        }
        self.live.append(&mut came);
    }
}

impl Protocol for Hyperliquid {
    fn group(&self) -> &'static str {
        "ws"
    }

    fn path(&self) -> String {
        "/ws".to_owned()
    }

    fn ping(&self) -> Option<String> {
        Some(json!({ "method": "ping" }).to_string())
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let kinds = self.channels.iter().filter_map(|c| c.strip_prefix("{}@"));
        kinds.map(|kind| Topic::new(symbol, carries(kind), format!("{symbol}@{kind}"))).collect()
    }

    fn opened(&mut self) {
        self.live.clear();
    }

    /// The answer repeats the method and the subscription, so that they are the request's id.
    fn subscribe(&mut self, _ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let method = if on { "subscribe" } else { "unsubscribe" };
        let call = |topic: &Topic| Call {
            text: json!({ "method": method, "subscription": subscription(topic) }).to_string(),
            awaits: vec![(request_id(method, &topic.text), vec![topic.clone()])],
        };
        topics.iter().map(call).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        let before = out.len();
        decode::decode(frame, out);
        self.mark_history(&mut out[before..]);
    }

    /// Frames begin with their channel, and rows of trades with their coin.
    fn lost_trades(&self, frame: Frame<'_>) -> Lost {
        let text = frame.text().unwrap_or("");
        let Some(rest) = text.strip_prefix(r#"{"channel":""#) else { return Lost::Any };
        match rest.split_once('"') {
            Some(("trades", data)) => member(data, "coin").map_or(Lost::Any, |coin| Lost::Of(coin.to_owned())),
            Some(_) => Lost::Nothing,
            None if "trades".starts_with(rest) => Lost::Any,
            None => Lost::Nothing,
        }
    }

    /// The next message would do, too; this one is asked for at once.
    fn book(&mut self, _ids: &mut Ids, symbol: &str) -> BookSource {
        BookSource::Rest(rest::book_request(symbol))
    }

    fn decode_book(&self, _symbol: &str, body: &str) -> Result<Event, String> {
        rest::book(body).map(Event::Book)
    }

    /// A subscription begins with the newest ones, which are more than REST has.
    fn trades_after(&self, _symbol: &str, _after: u64) -> Option<Request> {
        None
    }

    fn decode_trades(&self, _symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        rest::trades(body)
    }
}

#[cfg(test)]
mod tests;
