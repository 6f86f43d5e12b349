//! Both of Coinbase's feeds on a socket: every answer lists all that is subscribed, and books start with a subscription.
//!
//! Advanced numbers the messages of a connection over all its channels, and that is all that tells a lost change of a
//! book: which one lost it is not told, so that all of them start again. Exchange numbers nothing: there a lost change
//! shows only where it crosses the book.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemas::Nanos;
use serde_json::json;

use super::{Api, advanced, exchange, rest};
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Protocol, Refused, Topic, cut};
use crate::event::{Control, Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};
use crate::venue::Request;

/// Products of one subscribe message of Advanced: a choice of ours, no bound is documented.
const PRODUCTS_MAX: usize = 100;
/// Frames of trades whose times are remembered for a product: a hole in the trades of Advanced is asked for by time.
const RECENT_MAX: usize = 256;
/// Products whose times are remembered.
const PRODUCTS_REMEMBERED_MAX: usize = 5000;

pub fn sessions(api: Api, plan: &Plan) -> Vec<Box<dyn Session>> {
    let protocol = || Coinbase::new(api, plan);
    // Each connection needs heartbeats of its own: they go before everything else.
    let whole = plan.channels.iter().filter(|c| !c.contains("{}") && *c != HEARTBEATS);
    let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
    let parts = cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max);
    let session = |(n, (symbols, topics)): (usize, (Vec<String>, Vec<Topic>))| {
        let ids = TradeIds::Consecutive;
        Box::new(Connection::new(protocol(), n, plan, Rule::Unnumbered, ids, &symbols, topics)) as Box<dyn Session>
    };
    parts.into_iter().enumerate().map(session).collect()
}

/// The channel of Advanced that speaks every second whatever the market does.
const HEARTBEATS: &str = "heartbeats";

struct Coinbase {
    api: Api,
    /// Of the configuration.
    channels: Vec<String>,
    /// Products that are followed: of the plan, and what came and went since.
    carried: BTreeSet<String>,
    order: Order,
    /// Of Advanced: newest id and its time, frame by frame, oldest first. Within a frame the newest trade comes first.
    recent: BTreeMap<String, VecDeque<(u64, Nanos)>>,
}

impl Coinbase {
    fn new(api: Api, plan: &Plan) -> Self {
        let recent = plan.last_trades.iter().map(|(symbol, tail)| (symbol.clone(), [(tail.id, tail.ts)].into()));
        let carried = plan.symbols.iter().cloned().collect();
        Self { api, channels: plan.channels.clone(), carried, order: Order::default(), recent: recent.collect() }
    }

    fn advanced(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        let from = out.len();
        let sequence = advanced::decode(frame, out);
        let refused = out[from..].iter().any(|e| matches!(e, Event::Malformed(_)));
        match sequence.map(|n| self.order.take(n)) {
            None | Some(Place::Next) => {}
            Some(Place::Lost(reason)) => out.insert(from, Event::Control(Control::Broken { reason })),
            // Its trades and answers still count, and so do statuses, which their time tells from newer ones; any other state
            // of then must not replace one of now.
            Some(Place::Late) => {
                let counts = |e: &Event| {
                    matches!(e, Event::Trade(_) | Event::Status(_) | Event::Control(_) | Event::Malformed(_))
                };
                let mut at = 0;
                out.retain(|e| {
                    at += 1;
                    at <= from || counts(e)
                });
            }
            Some(Place::Again) => out.truncate(from),
        }
        // One that cannot be read at all is missed when the next one comes, and a snapshot that is not read has no book yet.
        let of_book = |text: &str| text.contains("\"l2_data\"") && text.contains("\"update\"");
        if refused && sequence.is_some() && frame.text().is_ok_and(of_book) {
            let reason = "a change of a book was not understood".to_owned();
            out.push(Event::Control(Control::Broken { reason }));
        }
        for event in &out[from..] {
            if let Event::Trade(trade) = event {
                self.remember(trade);
            }
        }
    }

    fn remember(&mut self, trade: &Trade) {
        if !self.recent.contains_key(trade.symbol.as_str()) && self.recent.len() == PRODUCTS_REMEMBERED_MAX {
            return;
        }
        let times = self.recent.entry(trade.symbol.to_string()).or_default();
        match times.back_mut() {
            Some(last) if trade.id <= last.0 => {}
            // Trades of one time are one entry.
            Some(last) if trade.ts == last.1 => last.0 = trade.id,
            _ => {
                if times.len() == RECENT_MAX {
                    times.pop_front();
                }
                times.push_back((trade.id, trade.ts));
            }
        }
    }

    fn exchange(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        let from = out.len();
        exchange::decode(frame, |product| self.carried.contains(product), out);
        if let [Event::Malformed(why)] = &out[from..] {
            // Nothing else would tell that a change was lost. A snapshot that is not read has no book yet.
            if frame.text().map_or(true, |text| text.contains("\"l2update\"")) {
                let reason = format!("a message of a book was not understood: {why}");
                out.push(Event::Control(Control::Broken { reason }));
            }
        }
        // Whether batches are listed under their own name is not recorded: the book comes either way.
        if let Some(Event::Control(Control::Listed { channels })) = out.get_mut(from) {
            let batches: Vec<String> = channels
                .iter()
                .filter_map(|c| c.strip_prefix("level2:"))
                .map(|p| format!("level2_batch:{p}"))
                .collect();
            channels.extend(batches);
        }
    }
}

fn carries(channel: &str) -> Carries {
    match channel.split(':').next() {
        Some("market_trades" | "matches") => Carries::Trades,
        Some("level2" | "level2_batch") => Carries::Book,
        _ => Carries::Other,
    }
}

impl Protocol for Coinbase {
    fn group(&self) -> &'static str {
        "ws"
    }

    fn path(&self) -> String {
        String::new()
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let mine = self.channels.iter().filter(|c| c.contains("{}")).map(|c| c.replace("{}", symbol));
        mine.map(|text| Topic::new(symbol, carries(&text), text)).collect()
    }

    fn opened(&mut self) {
        self.order = Order::default();
    }

    fn hello(&mut self, ids: &mut Ids) -> Vec<Call> {
        if !self.channels.iter().any(|c| c == HEARTBEATS) {
            return Vec::new();
        }
        let topic = Topic::new("", Carries::Other, HEARTBEATS);
        vec![Call::by_id(ids.take(), json!({ "type": "subscribe", "channel": HEARTBEATS }).to_string(), &[topic])]
    }

    /// Advanced takes one channel a message. Exchange takes several, but what it makes of a message with one wrong product
    /// is not recorded: a message there has one product.
    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        let word = if on { "subscribe" } else { "unsubscribe" };
        let channel_of = |t: &Topic| t.text.split(':').next().unwrap_or_default().to_owned();
        let mut groups: Vec<(String, Vec<Topic>)> = Vec::new();
        for symbol in topics.iter().map(|t| &t.symbol).filter(|symbol| !symbol.is_empty()) {
            if on {
                self.carried.insert(symbol.clone());
            } else if self.topics(symbol).iter().all(|mine| topics.contains(mine)) {
                self.carried.remove(symbol);
            }
        }
        for topic in topics {
            let key = match self.api {
                Api::Advanced => channel_of(topic),
                Api::Exchange => topic.symbol.clone(),
            };
            match groups.iter_mut().find(|(k, list)| *k == key && list.len() < PRODUCTS_MAX) {
                Some((_, list)) => list.push(topic.clone()),
                None => groups.push((key, vec![topic.clone()])),
            }
        }
        let call = |(key, topics): (String, Vec<Topic>)| {
            let text = match self.api {
                Api::Advanced => {
                    let products: Vec<&str> = topics.iter().map(|t| t.symbol.as_str()).collect();
                    json!({ "type": word, "channel": key, "product_ids": products })
                }
                Api::Exchange => {
                    let products: Vec<&str> = [key.as_str()].into_iter().filter(|p| !p.is_empty()).collect();
                    json!({ "type": word, "product_ids": products, "channels": topics.iter().map(channel_of).collect::<Vec<_>>() })
                }
            };
            // The answer carries no id: answers come in the order of the requests.
            Call::by_id(ids.take(), text.to_string(), &topics)
        };
        groups.into_iter().map(call).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        match self.api {
            Api::Advanced => self.advanced(frame, out),
            Api::Exchange => self.exchange(frame, out),
        }
    }

    fn refused(&self, _code: Option<i64>, _message: &str) -> Refused {
        Refused::Oldest
    }

    fn book(&mut self, _ids: &mut Ids, _symbol: &str) -> BookSource {
        BookSource::Resubscribe
    }

    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request> {
        match self.api {
            Api::Exchange => Some(rest::trades_after(symbol, after)),
            Api::Advanced => {
                let times = self.recent.get(symbol)?;
                let before = times.iter().rev().find(|(id, _)| *id <= after).or(times.front())?;
                Some(rest::trades_since(symbol, before.1))
            }
        }
    }

    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        rest::trades(self.api, symbol, body)
    }
}

/// The numbers of a connection's messages, which begin at 0.
#[derive(Debug, Default)]
struct Order {
    /// The number that comes next.
    next: u64,
    /// Bit n: the message n + 1 before the next one came.
    seen: u64,
}

/// Where a message stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Next,
    /// Messages before it did not come, or the venue counts anew.
    Lost(String),
    /// It was missed before.
    Late,
    /// It came before.
    Again,
}

impl Order {
    fn take(&mut self, number: u64) -> Place {
        let Some(back) = self.next.checked_sub(number) else {
            let reason = format!("message {number} of the connection after {}", shown(self.next));
            let steps = u32::try_from(number - self.next + 1).unwrap_or(u32::MAX);
            (self.next, self.seen) = (number + 1, self.seen.checked_shl(steps).unwrap_or(0) | 1);
            return Place::Lost(reason);
        };
        if back == 0 {
            (self.next, self.seen) = (number + 1, self.seen << 1 | 1);
            return Place::Next;
        }
        // So far back, or at the beginning: it is no straggler.
        if back > 64 || number == 0 {
            let reason = format!("message {number} of the connection after {}", shown(self.next));
            (self.next, self.seen) = (number + 1, 1);
            return Place::Lost(reason);
        }
        let bit = 1 << (back - 1);
        if self.seen & bit != 0 {
            return Place::Again;
        }
        self.seen |= bit;
        Place::Late
    }
}

fn shown(next: u64) -> String {
    next.checked_sub(1).map_or("none".to_owned(), |last| last.to_string())
}

#[cfg(test)]
mod tests;
