//! OKX on a socket: channels by path, acknowledged one by one; books by REST where the channel does not begin with one.

use std::cell::Cell;

use serde_json::{Value, json};

use super::decode::{self, PING, unsubscribed, width};
use super::rest;
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Protocol, Refused, Topic, cut};
use crate::event::{Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};
use crate::venue::Request;

/// Channels of one subscribe message, which may have 64 KB.
const BATCH_MAX: usize = 50;
/// `60014`: too many requests on the socket.
const TOO_FREQUENT: i64 = 60_014;
const TOO_FREQUENT_MS: i64 = 60_000;

/// The sockets for public data; each refuses the channels of the other with 60018.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Path {
    Public,
    Business,
}

impl Path {
    fn of(topic: &str) -> Self {
        match name(topic) {
            "trades-all" => Path::Business,
            name if width(name).is_some() => Path::Business,
            _ => Path::Public,
        }
    }
    fn name(self) -> &'static str {
        match self {
            Path::Public => "public",
            Path::Business => "business",
        }
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

/// As few connections as the limits allow. A symbol's channels of one path stay together.
pub fn sessions(plan: &Plan) -> Vec<Box<dyn Session>> {
    let mut sessions: Vec<Box<dyn Session>> = Vec::new();
    for path in [Path::Public, Path::Business] {
        let protocol = || Okx { path, channels: plan.channels.clone(), rest_is_unnumbered: Cell::new(false) };
        let whole = plan.channels.iter().filter(|c| !c.contains("{}") && Path::of(c) == path);
        let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
        for (symbols, topics) in cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max) {
            let (number, rule, ids) = (sessions.len(), Rule::Linked, TradeIds::Consecutive);
            sessions.push(Box::new(Connection::new(protocol(), number, plan, rule, ids, &symbols, topics)));
        }
    }
    sessions
}

struct Okx {
    path: Path,
    /// Of the configuration.
    channels: Vec<String>,
    /// A book came by REST without its place in the sequence: then only the channel's own snapshot helps.
    rest_is_unnumbered: Cell<bool>,
}

/// Whether the venue has a channel for an instrument: what it does not have it would refuse.
fn exists(channel: &str, symbol: &str) -> bool {
    match name(channel) {
        "funding-rate" => rest::inst_type(symbol) == "SWAP",
        "open-interest" => rest::inst_type(symbol) != "SPOT",
        _ => true,
    }
}

fn carries(topic: &str) -> Carries {
    match name(topic) {
        "trades" | "trades-all" => Carries::Trades,
        "books" => Carries::Book,
        _ => Carries::Other,
    }
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

impl Protocol for Okx {
    fn group(&self) -> &'static str {
        self.path.name()
    }

    fn path(&self) -> String {
        format!("/ws/v5/{}", self.path.name())
    }

    fn ping(&self) -> Option<String> {
        Some(PING.to_owned())
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let channels = self.channels.iter().filter(|c| c.contains("{}") && exists(c, symbol));
        let mine = channels.map(|c| c.replace("{}", symbol)).filter(|topic| Path::of(topic) == self.path);
        mine.map(|topic| Topic::new(symbol, carries(&topic), topic)).collect()
    }

    fn subscribe(&mut self, _ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let call = |batch: &[Topic]| {
            let args: Vec<Value> = batch.iter().map(|t| argument(&t.text)).collect();
            let op = if on { "subscribe" } else { "unsubscribe" };
            let mut call = Call::by_topic(json!({ "op": op, "args": args }).to_string(), batch);
            if !on {
                call.awaits.iter_mut().for_each(|(topic, _)| *topic = unsubscribed(topic));
            }
            call
        };
        topics.chunks(BATCH_MAX).map(call).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(frame, out);
    }

    fn refused(&self, code: Option<i64>, _message: &str) -> Refused {
        match code {
            Some(TOO_FREQUENT) => Refused::Leave { after_ms: TOO_FREQUENT_MS },
            _ => Refused::Named,
        }
    }

    /// A channel that begins with its snapshot asks for none. Where there is no such snapshot any more, and after a gap, the
    /// book comes by REST and the changes that were held are aligned with it.
    fn book(&mut self, _ids: &mut Ids, symbol: &str) -> BookSource {
        match self.rest_is_unnumbered.get() {
            true => BookSource::Resubscribe,
            false => BookSource::Rest(rest::book_request(symbol)),
        }
    }

    fn decode_book(&self, symbol: &str, body: &str) -> Result<Event, String> {
        let book = rest::book(symbol, body)?;
        if book.seq_last.is_none() {
            self.rest_is_unnumbered.set(true);
            return Err("it has no seqId".to_owned());
        }
        Ok(Event::Book(book))
    }

    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request> {
        Some(rest::trades_after(symbol, after))
    }

    fn decode_trades(&self, _symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        rest::trades(body)
    }
}

#[cfg(test)]
mod tests;
