//! What is published when: changes of books and trades of Advanced gather for 50 ms, candles for a second; matches of
//! Exchange go out at once.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::data::{self, Levels};
use super::{Api, Coinbase, HEARTBEATS};
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::market::{Event, Listing, Trade};

const GATHER_NS: i64 = 50_000_000;
const CANDLE_PERIOD_NS: i64 = 1_000_000_000;
/// Channels of Advanced whose messages hold several products, and how often they speak.
const TOGETHER: &[(&str, i64)] = &[
    ("market_trades", GATHER_NS),
    ("ticker", GATHER_NS),
    ("ticker_batch", 5_000_000_000),
    ("candles", CANDLE_PERIOD_NS),
];
const CANDLE_MS: i64 = 300_000;
/// Exchange lists all products again after so many heartbeats (its documentation: after a preset interval).
const STATUS_BEATS: u64 = 5;
/// Trades of before that a subscription begins with.
const HISTORY_MAX: usize = 100;
/// Messages of a book whose numbers are remembered for those that are sent late.
const NUMBERS_MAX: usize = 8;

/// One channel of one instrument.
#[derive(Debug, Default)]
pub struct Channel {
    pub listeners: Vec<ClientId>,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    trades: Vec<Trade>,
    dirty: bool,
    /// Counts the changes of the book, for faults.
    changes: u64,
    /// The numbers that a change has at each listener (Advanced).
    numbers: VecDeque<(u64, Vec<(ClientId, u64)>)>,
}

impl Coinbase {
    pub fn heard(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, side, price, qty, .. } => {
                for name in ["level2", "level2_batch"] {
                    if let Some(channel) = self.channels.get_mut(&(name.to_owned(), instrument)) {
                        let half = if side == Side::Buy { &mut channel.bids } else { &mut channel.asks };
                        half.insert(price, qty);
                    }
                }
            }
            Event::Trade(trade) => {
                for name in ["market_trades", "matches", "ticker", "ticker_batch", "candles"] {
                    if let Some(channel) = self.channels.get_mut(&(name.to_owned(), trade.instrument)) {
                        channel.dirty = true;
                        if matches!(name, "market_trades" | "matches") || self.api == Api::Exchange {
                            channel.trades.push(trade);
                        }
                    }
                }
            }
            Event::Done { instrument, time_ns } if self.api == Api::Exchange => {
                for name in ["matches", "ticker"] {
                    self.publish_key(floor, (name.to_owned(), instrument), time_ns);
                }
            }
            Event::Done { .. } | Event::Fill { .. } => {}
        }
    }

    pub fn pass(&mut self, floor: &mut Floor, at_ns: i64) {
        // After a long leap only what is due now is sent.
        self.due_ns = self.due_ns.max(at_ns.div_euclid(GATHER_NS) * GATHER_NS - CANDLE_PERIOD_NS);
        while self.due_ns <= at_ns {
            let due = self.due_ns;
            self.due_ns += GATHER_NS;
            for key in self.channels.keys().cloned().collect::<Vec<_>>() {
                if !TOGETHER.iter().any(|(name, _)| *name == key.0) {
                    self.publish_key(floor, key, due);
                }
            }
            for (name, period_ns) in TOGETHER {
                if due % period_ns == 0 && self.api == Api::Advanced {
                    self.publish_together(floor, name, due);
                }
            }
        }
    }

    fn publish_key(&mut self, floor: &mut Floor, key: (String, usize), at_ns: i64) {
        if let Some(mut channel) = self.channels.remove(&key) {
            self.publish(floor, &key, &mut channel, at_ns);
            self.channels.insert(key, channel);
        }
    }

    /// What has gathered on a channel of several products goes to each listener in one message.
    fn publish_together(&mut self, floor: &mut Floor, name: &str, at_ns: i64) {
        let mut events: BTreeMap<ClientId, Vec<String>> = BTreeMap::new();
        for key in self.channels.keys().filter(|(n, _)| n == name).cloned().collect::<Vec<_>>() {
            let Some(mut channel) = self.channels.remove(&key) else { continue };
            if let Some(event) = self.gathered(floor, &key, &mut channel, at_ns) {
                channel.listeners.iter().for_each(|client| events.entry(*client).or_default().push(event.clone()));
            }
            self.channels.insert(key, channel);
        }
        for (client, events) in events {
            self.say(floor, client, name, &events.join(","));
        }
    }

    /// The event of Advanced that says what has gathered on a channel since the last one.
    fn gathered(
        &mut self,
        floor: &mut Floor,
        key: &(String, usize),
        channel: &mut Channel,
        at_ns: i64,
    ) -> Option<String> {
        let (name, i) = (key.0.as_str(), key.1);
        let trades = std::mem::take(&mut channel.trades);
        if !std::mem::take(&mut channel.dirty) {
            return None;
        }
        let event = match name {
            "market_trades" => self.trades_event(floor, i, "update", trades.iter().rev()),
            "ticker" | "ticker_batch" => {
                let row = data::advanced_ticker(floor, i, name == "ticker");
                format!(r#"{{"type":"update","tickers":[{row}]}}"#)
            }
            "candles" => candles_event(floor, i, "update", at_ns / 1_000_000, 1)?,
            _ => return None,
        };
        let symbol = floor.market.listing(i).spec.symbol.clone();
        Some(floor.faults.text(name == "market_trades", &symbol, event))
    }

    /// Sends what has gathered on a channel.
    pub fn publish(&mut self, floor: &mut Floor, key: &(String, usize), channel: &mut Channel, at_ns: i64) {
        let (name, i) = (key.0.as_str(), key.1);
        match (name, self.api) {
            ("level2" | "level2_batch", _) => self.publish_book(floor, key, channel, at_ns),
            (_, Api::Advanced) => {
                if let Some(event) = self.gathered(floor, key, channel, at_ns) {
                    channel.listeners.iter().for_each(|client| self.say(floor, *client, name, &event));
                }
            }
            ("matches", Api::Exchange) => {
                for trade in std::mem::take(&mut channel.trades) {
                    let text = data::exchange_match(&floor.market.listing(i).spec, &trade, "match");
                    self.send(floor, channel, true, i, &text);
                }
            }
            ("ticker", Api::Exchange) => {
                for trade in std::mem::take(&mut channel.trades) {
                    let text = data::exchange_ticker(floor, i, &trade);
                    self.send(floor, channel, false, i, &text);
                }
            }
            _ => {}
        }
    }

    /// A message of Exchange to every listener.
    fn send(&mut self, floor: &mut Floor, channel: &Channel, is_trade: bool, i: usize, text: &str) {
        let symbol = floor.market.listing(i).spec.symbol.clone();
        let text = floor.faults.text(is_trade, &symbol, text.to_owned());
        channel.listeners.iter().for_each(|client| floor.data(*client, text.clone()));
    }

    fn publish_book(&mut self, floor: &mut Floor, key: &(String, usize), channel: &mut Channel, at_ns: i64) {
        if channel.bids.is_empty() && channel.asks.is_empty() {
            return;
        }
        let spec = floor.market.listing(key.1).spec.clone();
        let take = |half: &mut BTreeMap<i64, i64>| -> Vec<(i64, i64, bool)> {
            std::mem::take(half).into_iter().map(|(price, qty)| (price, qty, true)).collect()
        };
        let (bids, asks) = (take(&mut channel.bids), take(&mut channel.asks));
        channel.changes += 1;
        let n = channel.changes;
        if self.api == Api::Advanced {
            // A message that is dropped or sent late has its number all the same.
            let numbers = channel.listeners.iter().map(|client| (*client, self.number(floor, *client))).collect();
            channel.numbers.push_back((n, numbers));
            if channel.numbers.len() > NUMBERS_MAX {
                channel.numbers.pop_front();
            }
        }
        let frame = DepthFrame { time_ns: at_ns, first: n, last: n, prev: n - 1, bids, asks };
        for frame in floor.faults.depth(&format!("{}:{}", key.0, spec.symbol), &spec.symbol, frame) {
            let pairs = |rows: &[(i64, i64, bool)]| rows.iter().map(|(p, q, _)| (*p, *q)).collect::<Vec<_>>();
            let levels = Levels {
                bids: &pairs(&frame.bids),
                asks: &pairs(&frame.asks),
                at_ns: frame.time_ns,
                snapshot: false,
                bad: floor.faults.take("bad_level", &spec.symbol).is_some(),
                no_time: floor.faults.take("no_time", &spec.symbol).is_some(),
            };
            match self.api {
                Api::Advanced => {
                    let text = floor.faults.text(false, &spec.symbol, data::l2_event(&spec, &levels));
                    let numbers = channel.numbers.iter().find(|(change, _)| *change == frame.last);
                    for (client, number) in numbers.map_or(&[][..], |(_, numbers)| numbers) {
                        Self::say_numbered(floor, *client, *number, "l2_data", &text);
                    }
                }
                Api::Exchange => {
                    let text = floor.faults.text(false, &spec.symbol, data::exchange_book(&spec, &levels));
                    channel.listeners.iter().for_each(|client| floor.data(*client, text.clone()));
                }
            }
        }
    }

    fn trades_event<'a>(
        &self,
        floor: &Floor,
        i: usize,
        kind: &str,
        newest_first: impl Iterator<Item = &'a Trade>,
    ) -> String {
        let spec = &floor.market.listing(i).spec;
        let rows: Vec<String> = newest_first.map(|t| data::advanced_trade(spec, t)).collect();
        format!(r#"{{"type":"{kind}","trades":[{}]}}"#, rows.join(","))
    }

    fn is_online(&self, i: usize) -> bool {
        self.halted.is_none_or(|(_, halted)| halted != i)
    }

    fn status_event(&self, floor: &Floor, i: usize, kind: &str) -> String {
        let row = data::status_row(&floor.market.listing(i).spec, self.is_online(i));
        json!({ "type": kind, "products": [row] }).to_string()
    }

    /// All products of Exchange.
    pub fn exchange_products(&self, floor: &Floor) -> Value {
        let row = |(i, l): (usize, &Listing)| data::exchange_product(&l.spec, self.is_online(i));
        floor.market.listings().iter().enumerate().map(row).collect()
    }

    fn tell_products(&self, floor: &mut Floor, client: ClientId) {
        let products = self.exchange_products(floor);
        floor.data(client, json!({ "type": "status", "products": products, "currencies": [] }).to_string());
    }

    /// The state of a product, to all who listen to it.
    pub fn tell_status(&mut self, floor: &mut Floor, i: usize) {
        let topic = ("status".to_owned(), (self.api == Api::Advanced).then_some(i));
        let listeners: Vec<ClientId> =
            self.sessions.iter().filter(|(_, s)| s.topics.contains(&topic)).map(|(client, _)| *client).collect();
        let event = self.status_event(floor, i, "update");
        for client in listeners {
            match self.api {
                Api::Advanced => self.say(floor, client, "status", &event),
                Api::Exchange => self.tell_products(floor, client),
            }
        }
    }

    /// What a subscription begins with.
    pub fn welcome(&mut self, floor: &mut Floor, client: ClientId, channel: &str, instruments: &[usize]) {
        if self.api == Api::Exchange {
            return self.welcome_to_exchange(floor, client, channel, instruments);
        }
        let mut events = Vec::new();
        for &i in instruments {
            match channel {
                // The books come one a message, the rest together.
                "level2" => {
                    let event = data::l2_event(&floor.market.listing(i).spec.clone(), &snapshot(floor, i).levels());
                    self.say(floor, client, "l2_data", &event);
                }
                "market_trades" => {
                    let trades: Vec<Trade> = floor.history[i].trades().rev().take(HISTORY_MAX).copied().collect();
                    events.push(self.trades_event(floor, i, "snapshot", trades.iter()));
                }
                "ticker" | "ticker_batch" => {
                    let row = data::advanced_ticker(floor, i, channel == "ticker");
                    events.push(format!(r#"{{"type":"snapshot","tickers":[{row}]}}"#));
                }
                "candles" => events.extend(candles_event(floor, i, "snapshot", floor.now_ms(), 100)),
                "status" => {
                    events.push(self.status_event(floor, i, "snapshot"));
                }
                _ => {}
            }
        }
        if !events.is_empty() {
            self.say(floor, client, channel, &events.join(","));
        }
    }

    fn welcome_to_exchange(&mut self, floor: &mut Floor, client: ClientId, channel: &str, instruments: &[usize]) {
        if channel == "status" {
            self.tell_products(floor, client);
        }
        for &i in instruments {
            let l = floor.market.listing(i);
            let text = match (channel, l.last) {
                ("level2_batch", _) => data::exchange_book(&l.spec.clone(), &snapshot(floor, i).levels()),
                ("matches", Some(last)) => data::exchange_match(&l.spec, &last, "last_match"),
                ("ticker", Some(last)) => data::exchange_ticker(floor, i, &last),
                _ => continue,
            };
            floor.data(client, text);
        }
    }

    pub fn heartbeat(&mut self, floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.get(&client) else { return };
        if self.api == Api::Advanced {
            if session.topics.contains(&(HEARTBEATS.to_owned(), None)) {
                let at = data::time(floor.now_ns, false).replace('T', " ").replace('Z', "");
                let counter = session.beats;
                let event =
                    format!(r#"{{"current_time":"{at} +0000 UTC m=+{counter}.5","heartbeat_counter":{counter}}}"#);
                self.say(floor, client, HEARTBEATS, &event);
            }
            return;
        }
        let products: Vec<usize> =
            session.topics.iter().filter(|(name, _)| name == "heartbeat").filter_map(|(_, i)| *i).collect();
        if session.topics.contains(&("status".to_owned(), None)) && session.beats % STATUS_BEATS == 0 {
            self.tell_products(floor, client);
        }
        for i in products {
            let l = floor.market.listing(i);
            let beat = json!({
                "type": "heartbeat",
                "sequence": l.trade_id * 3,
                "last_trade_id": l.trade_id,
                "product_id": l.spec.symbol,
                "time": data::time(floor.now_ns, true),
            });
            floor.data(client, beat.to_string());
        }
    }
}

/// A whole book, and whether a fault spoils it.
struct Whole {
    bids: Vec<(i64, i64)>,
    asks: Vec<(i64, i64)>,
    at_ns: i64,
    bad: bool,
}

impl Whole {
    fn levels(&self) -> Levels<'_> {
        let Self { bids, asks, at_ns, bad } = self;
        Levels { bids, asks, at_ns: *at_ns, snapshot: true, bad: *bad, no_time: false }
    }
}

fn snapshot(floor: &mut Floor, i: usize) -> Whole {
    let symbol = floor.market.listing(i).spec.symbol.clone();
    let book = floor.market.snapshot(i, usize::MAX);
    let bad = floor.faults.take("bad_snapshot", &symbol).is_some();
    Whole { bids: book.bids, asks: book.asks, at_ns: floor.now_ns, bad }
}

/// The newest candles of five minutes, oldest first; `None` before the first trade.
fn candles_event(floor: &mut Floor, i: usize, kind: &str, at_ms: i64, n: usize) -> Option<String> {
    floor.history[i].pass(at_ms);
    let spec = &floor.market.listing(i).spec;
    let bars = floor.history[i].bars(CANDLE_MS, 0, at_ms, n);
    if bars.is_empty() {
        return None;
    }
    let rows: Vec<_> = bars.iter().map(|bar| data::candle(spec, bar, true)).collect();
    Some(json!({ "type": kind, "candles": rows }).to_string())
}
