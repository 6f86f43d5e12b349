//! Binance on a socket: subscriptions in batches, order books and missed trades by REST.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Kind, decode, rest};
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Protocol, Topic, cut};
use crate::event::{Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};
use crate::venue::{Request, percent};

/// Streams of one SUBSCRIBE message.
const BATCH_MAX: usize = 100;

/// USD-M splits its streams over paths; the others have one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Path {
    Only,
    Public,
    Market,
}

impl Path {
    fn of(kind: Kind, stream: &str) -> Self {
        if kind != Kind::Usdm {
            return Path::Only;
        }
        let channel = stream.split('@').nth(1).unwrap_or("");
        match channel {
            "trade" | "bookTicker" => Path::Public,
            depth if depth.starts_with("depth") => Path::Public,
            _ => Path::Market,
        }
    }
    fn text(self) -> &'static str {
        match self {
            Path::Only => "/stream",
            Path::Public => "/public/stream",
            Path::Market => "/market/stream",
        }
    }
    fn name(self) -> &'static str {
        match self {
            Path::Only => "stream",
            Path::Public => "public",
            Path::Market => "market",
        }
    }
}

/// Open interest of a symbol: no stream has it, it is asked for by REST on the connection of the symbol's other channels.
const OPEN_INTEREST: &str = "{}@openInterest";

/// `{}@trade` and the like: `{}` is the symbol, or an all-market stream such as `!markPrice@arr`.
pub fn check_channel(kind: Kind, channel: &str) -> Result<(), String> {
    const BOTH: &str = "{}@trade, {}@aggTrade, {}@depth[@100ms], {}@depth5|10|20[@100ms], {}@bookTicker, {}@kline_<width>, \
                        {}@ticker, {}@miniTicker";
    const FUTURES: &str =
        "{}@markPrice[@1s], {}@forceOrder, {}@openInterest (by REST), !markPrice@arr[@1s], !forceOrder@arr";
    let futures = kind != Kind::Spot;
    let known = match channel.split_once('@') {
        Some(("{}", rest)) => match rest.split('@').next().unwrap_or("") {
            "trade" | "aggTrade" | "bookTicker" | "ticker" | "miniTicker" => true,
            "depth" | "depth5" | "depth10" | "depth20" => true,
            "markPrice" | "forceOrder" => futures,
            "openInterest" => futures && channel == OPEN_INTEREST,
            width => width.strip_prefix("kline_").is_some_and(|w| !w.is_empty()),
        },
        Some(("!markPrice" | "!forceOrder", "arr" | "arr@1s")) => futures,
        _ => false,
    };
    if known {
        return Ok(());
    }
    Err(if futures { format!("allowed are {BOTH}, {FUTURES}") } else { format!("allowed are {BOTH}") })
}

/// What is asked for by REST needs a connection that lives by something else.
pub fn check_together(channels: &[String]) -> Result<(), String> {
    let polled = channels.iter().any(|c| c == OPEN_INTEREST);
    if polled && !channels.iter().any(|c| c.contains("{}") && c != OPEN_INTEREST) {
        return Err(format!(
            "{OPEN_INTEREST} is asked for beside a stream of the symbol: name one, such as {{}}@markPrice@1s"
        ));
    }
    Ok(())
}

/// As few connections as the limits allow. A symbol's streams of one path stay together.
pub fn sessions(kind: Kind, rule: Rule, plan: &Plan) -> Vec<Box<dyn Session>> {
    let mut sessions: Vec<Box<dyn Session>> = Vec::new();
    for path in [Path::Only, Path::Public, Path::Market] {
        let protocol = || Binance { kind, path, channels: plan.channels.clone() };
        let whole = plan.channels.iter().filter(|c| !c.contains("{}") && Path::of(kind, c) == path);
        let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
        for (symbols, topics) in cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max) {
            let number = sessions.len();
            let ids = TradeIds::Consecutive;
            sessions.push(Box::new(Connection::new(protocol(), number, plan, rule, ids, &symbols, topics)));
        }
    }
    sessions
}

struct Binance {
    kind: Kind,
    path: Path,
    /// Of the configuration.
    channels: Vec<String>,
}

impl Binance {
    /// Trades come as aggregates; the two have ids of their own.
    fn aggregates(&self) -> bool {
        self.channels.iter().any(|c| c.ends_with("@aggTrade"))
    }

    /// The streams of a symbol, as they are configured.
    fn streams(&self) -> impl Iterator<Item = &String> {
        self.channels.iter().filter(|c| c.contains("{}") && *c != OPEN_INTEREST)
    }

    /// One of a symbol's connections asks for its open interest: that of its prices, where there is one.
    fn polls_here(&self) -> bool {
        let path = self.streams().map(|c| Path::of(self.kind, c)).max();
        self.channels.iter().any(|c| c == OPEN_INTEREST) && path == Some(self.path)
    }
}

fn carries(stream: &str) -> Carries {
    match stream.split('@').nth(1) {
        Some("trade" | "aggTrade") => Carries::Trades,
        Some("depth") => Carries::Book,
        _ => Carries::Other,
    }
}

impl Protocol for Binance {
    fn group(&self) -> &'static str {
        self.path.name()
    }

    fn path(&self) -> String {
        self.path.text().to_owned()
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let streams = self.streams().map(|c| c.replace("{}", &symbol.to_lowercase()));
        let mine = streams.filter(|stream| Path::of(self.kind, stream) == self.path);
        mine.map(|stream| Topic::new(symbol, carries(&stream), stream)).collect()
    }

    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let method = if on { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
        let call = |batch: &[Topic]| {
            let streams: Vec<&str> = batch.iter().map(|t| t.text.as_str()).collect();
            let id = ids.take();
            Call::by_id(id, json!({ "method": method, "params": streams, "id": id }).to_string(), batch)
        };
        topics.chunks(BATCH_MAX).map(call).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(self.kind, frame, out);
    }

    fn book(&mut self, _ids: &mut Ids, symbol: &str) -> BookSource {
        BookSource::Rest(rest::depth(self.kind, &percent(symbol)))
    }

    fn decode_book(&self, symbol: &str, body: &str) -> Result<Event, String> {
        let mut events = Vec::new();
        decode::decode(self.kind, Frame::Text(body), &mut events);
        match events.pop() {
            Some(Event::Book(mut book)) if events.is_empty() => {
                book.symbol = symbol.into();
                Ok(Event::Book(book))
            }
            other => Err(format!("not an order book: {other:?}")),
        }
    }

    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request> {
        Some(rest::trades_after(self.kind, self.aggregates(), &percent(symbol), after))
    }

    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        rest::trades(self.kind, self.aggregates(), symbol, body)
    }

    fn polls(&self, symbols: &BTreeSet<String>) -> Vec<Request> {
        if !self.polls_here() {
            return Vec::new();
        }
        symbols.iter().map(|symbol| rest::open_interest_request(self.kind, &percent(symbol))).collect()
    }

    fn decode_poll(&self, body: &str, out: &mut Vec<Event>) {
        out.push(rest::open_interest(body).unwrap_or_else(Event::Malformed));
    }
}

#[cfg(test)]
mod tests;
