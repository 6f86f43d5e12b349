//! MEXC on a socket: one request a channel, books and missed trades by REST.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::names::Names;
use super::{Kind, contract, decode, push, rest};
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Lost, Protocol, Refused, Topic, cut};
use crate::event::{Control, Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session, Tail};
use crate::text::member;
use crate::venue::Request;

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

/// As few connections as the limits allow; a symbol's channels stay together.
pub fn sessions(kind: Kind, rule: Rule, plan: &Plan) -> Vec<Box<dyn Session>> {
    let protocol = || Mexc::new(kind, plan);
    let whole = plan.channels.iter().filter(|c| !c.contains("{}"));
    let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
    let parts = cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max);
    let session = |(n, (symbols, topics)): (usize, (Vec<String>, Vec<Topic>))| {
        let ids = TradeIds::Unordered;
        Box::new(Connection::new(protocol(), n, plan, rule, ids, &symbols, topics)) as Box<dyn Session>
    };
    parts.into_iter().enumerate().map(session).collect()
}

struct Mexc {
    kind: Kind,
    /// Of the configuration.
    channels: Vec<String>,
    /// Contract: topics that wait for the answer to a method, in the order of their requests.
    unanswered: BTreeMap<String, VecDeque<Topic>>,
    tails: BTreeMap<String, Tail>,
    remembered_max: usize,
    /// By symbol; REST answers are read through a shared reference.
    names: RefCell<BTreeMap<String, Names>>,
}

impl Mexc {
    fn new(kind: Kind, plan: &Plan) -> Self {
        Self {
            kind,
            channels: plan.channels.clone(),
            unanswered: BTreeMap::new(),
            tails: plan.last_trades.clone(),
            // An answer tells the newest trades only; pushes come while it is on its way.
            remembered_max: plan.limits.trades_remembered_max.min(2 * rest::page_max(kind)),
            names: RefCell::default(),
        }
    }

    fn named<R>(&self, symbol: &str, with: impl FnOnce(&mut Names) -> R) -> R {
        let mut all = self.names.borrow_mut();
        let new = || Names::new(self.remembered_max, self.tails.get(symbol));
        if !all.contains_key(symbol) {
            all.insert(symbol.to_owned(), new());
        }
        with(all.get_mut(symbol).expect("Invariant: was put there above"))
    }

    /// Contract's answers name their method and no symbol: they are taken for the oldest request of that method. An error
    /// names not even that, but its words hold the contract.
    fn answered(&mut self, event: &mut Event) {
        match event {
            Event::Control(Control::Ack { id }) => {
                if let Some(topic) = self.unanswered.get_mut(id).and_then(VecDeque::pop_front) {
                    *id = key(id, &topic);
                }
            }
            Event::Error { id: id @ Some(_), .. } => {
                let method = id.clone().unwrap_or_default();
                if let Some(topic) = self.unanswered.get_mut(&method).and_then(VecDeque::pop_front) {
                    *id = Some(key(&method, &topic));
                }
            }
            Event::Error { id: id @ None, message, .. } => {
                let named = |t: &Topic| !t.symbol.is_empty() && message.contains(&format!("[{}]", t.symbol));
                let found = self
                    .unanswered
                    .iter_mut()
                    .find_map(|(method, topics)| topics.iter().position(named).map(|at| (method, topics, at)));
                if let Some((method, topics, at)) = found
                    && let Some(topic) = topics.remove(at)
                {
                    *id = Some(key(method, &topic));
                }
            }
            _ => {}
        }
    }
}

/// What an answer is waited for under.
fn key(method: &str, topic: &Topic) -> String {
    format!("{method} {}", topic.text)
}

fn carries(kind: Kind, channel: &str) -> Carries {
    let name = match kind {
        Kind::Spot => channel.strip_prefix("spot@public.").and_then(|c| c.split_once(".v3.api")).map_or("", |c| c.0),
        Kind::Contract => channel.split('@').next().unwrap_or(""),
    };
    match name {
        "aggre.deals" | "deal" => Carries::Trades,
        "aggre.depth" | "depth" => Carries::Book,
        _ => Carries::Other,
    }
}

/// `kline@BTC_USDT@Min1` as method and parameters.
fn method(topic: &str, on: bool) -> (String, Value) {
    let mut parts = topic.split('@');
    let channel = parts.next().unwrap_or("");
    let mut param = json!({});
    if let Some(symbol) = parts.next() {
        param["symbol"] = json!(symbol);
    }
    match (channel, parts.next()) {
        ("kline", Some(interval)) => param["interval"] = json!(interval),
        ("depth.full", Some(levels)) => param["limit"] = json!(levels.parse::<u32>().unwrap_or_default()),
        _ => {}
    }
    (format!("{}.{channel}", if on { "sub" } else { "unsub" }), param)
}

impl Protocol for Mexc {
    fn group(&self) -> &'static str {
        "ws"
    }

    fn path(&self) -> String {
        match self.kind {
            Kind::Spot => "/ws".to_owned(),
            Kind::Contract => "/edge".to_owned(),
        }
    }

    fn ping(&self) -> Option<String> {
        let ping = match self.kind {
            Kind::Spot => r#"{"method":"PING"}"#,
            Kind::Contract => r#"{"method":"ping"}"#,
        };
        Some(ping.to_owned())
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let channels = self.channels.iter().filter(|c| c.contains("{}"));
        channels.map(|c| Topic::new(symbol, carries(self.kind, c), c.replace("{}", symbol))).collect()
    }

    fn opened(&mut self) {
        self.unanswered.clear();
    }

    /// One channel a request, so that an answer is about one.
    fn subscribe(&mut self, _ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let kind = self.kind;
        let one = |topic: &Topic| match kind {
            Kind::Spot => {
                let method = if on { "SUBSCRIPTION" } else { "UNSUBSCRIPTION" };
                let text = json!({ "method": method, "params": [topic.text] }).to_string();
                Call::by_topic(text, std::slice::from_ref(topic))
            }
            Kind::Contract => {
                let (method, param) = method(&topic.text, on);
                let text = json!({ "method": method, "param": param }).to_string();
                let awaits = vec![(key(&method, topic), vec![topic.clone()])];
                self.unanswered.entry(method).or_default().push_back(topic.clone());
                Call { text, awaits }
            }
        };
        topics.iter().map(one).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        let before = out.len();
        match self.kind {
            Kind::Spot => decode::decode(frame, out),
            Kind::Contract => contract::decode(frame, out),
        }
        for event in &mut out[before..] {
            match event {
                Event::Trade(trade) => {
                    let symbol = trade.symbol.clone();
                    self.named(&symbol, |names| names.push(trade));
                }
                event if self.kind == Kind::Contract => self.answered(event),
                _ => {}
            }
        }
    }

    fn lost_trades(&self, frame: Frame<'_>) -> Lost {
        let (trades, symbol) = match (self.kind, frame) {
            (Kind::Spot, Frame::Binary(bytes)) => {
                let (channel, symbol) = push::subject(bytes);
                (channel.is_none_or(|c| carries(self.kind, c) == Carries::Trades), symbol)
            }
            (Kind::Contract, Frame::Text(text)) => (text.contains("push.deal\""), member(text, "symbol")),
            _ => (false, None),
        };
        match (trades, symbol) {
            (false, _) => Lost::Nothing,
            (true, Some(symbol)) => Lost::Of(symbol.to_owned()),
            (true, None) => Lost::Any,
        }
    }

    fn refused(&self, _code: Option<i64>, message: &str) -> Refused {
        match self.kind {
            Kind::Spot if !message.contains("spot@") => Refused::Oldest,
            Kind::Spot | Kind::Contract => Refused::Named,
        }
    }

    fn book(&mut self, _ids: &mut Ids, symbol: &str) -> BookSource {
        BookSource::Rest(rest::depth(self.kind, symbol))
    }

    fn decode_book(&self, symbol: &str, body: &str) -> Result<Event, String> {
        let mut book = rest::snapshot(self.kind, body)?;
        book.symbol = symbol.into();
        Ok(Event::Book(book))
    }

    fn trades_after(&self, symbol: &str, _after: u64) -> Option<Request> {
        Some(rest::recent_trades(self.kind, symbol))
    }

    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        let mut trades = rest::trades(self.kind, symbol, body)?;
        self.named(symbol, |names| names.page(&mut trades));
        Ok(trades)
    }
}

#[cfg(test)]
mod tests;
