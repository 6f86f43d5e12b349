//! Channels, who listens, and what is published when.

use std::collections::BTreeMap;

use axum::extract::ws::Utf8Bytes;

use super::data;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::market::{Event, Trade};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topic {
    /// Snapshot, then chained changes.
    Book,
    Grouped {
        group: Option<i64>,
        depth: usize,
    },
    Trades,
    Ticker,
    Quote,
    Chart {
        width_ms: i64,
    },
    PriceIndex,
    Perpetual,
    PlatformState,
}

/// How often a channel speaks: at every operation or by the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Topics {
    topic: Topic,
    /// 0: at every operation.
    period_ms: i64,
}

#[derive(Debug)]
struct Channel {
    name: String,
    what: Topics,
    instruments: Vec<usize>,
    listeners: Vec<ClientId>,
    due_ns: i64,
    /// Last change id that went out.
    prev: u64,
    bids: BTreeMap<i64, (i64, bool)>,
    asks: BTreeMap<i64, (i64, bool)>,
    trades: Vec<String>,
    dirty: bool,
    touch: ((i64, i64), (i64, i64)),
}

/// Trades of one message; more are sent at once.
const TRADES_IN_MESSAGE_MAX: usize = 100;

#[derive(Debug, Default)]
pub struct Feed {
    channels: BTreeMap<String, Channel>,
    next_due_ns: i64,
    /// Per instrument: the id before the first trade, and the last price with its direction.
    sequences: Vec<Sequence>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    price: i64,
    tick: u8,
}

const INTERVALS: &[(&str, i64)] = &[("raw", 0), ("100ms", 100), ("agg2", 1_000)];
const RESOLUTIONS: &[(&str, i64)] = &[
    ("1", 60_000),
    ("3", 180_000),
    ("5", 300_000),
    ("10", 600_000),
    ("15", 900_000),
    ("30", 1_800_000),
    ("60", 3_600_000),
    ("120", 7_200_000),
    ("180", 10_800_000),
    ("360", 21_600_000),
    ("720", 43_200_000),
    ("1D", 86_400_000),
];

/// Milliseconds of a chart resolution.
pub fn resolution(word: &str) -> Option<i64> {
    RESOLUTIONS.iter().find(|(name, _)| *name == word).map(|(_, ms)| *ms)
}

/// What a channel name means; `None` is left out of the answer.
fn parse(floor: &Floor, name: &str) -> Option<(Topics, Vec<usize>)> {
    let parts: Vec<&str> = name.split('.').collect();
    let find = |symbol: &str| floor.market.find(symbol).map(|i| vec![i]);
    let period = |word: &str| INTERVALS.iter().find(|(name, _)| *name == word).map(|(_, ms)| *ms);
    let index = |index: &str| {
        let of = |l: &crate::market::Listing| data::index_name(&l.spec) == index;
        floor.market.listings().iter().position(of).map(|i| vec![i])
    };
    let all = |topic, period_ms, instruments| Some((Topics { topic, period_ms }, instruments));
    match parts.as_slice() {
        ["book", symbol, interval] => all(Topic::Book, period(interval)?, find(symbol)?),
        ["book", symbol, group, depth, interval] => {
            let depth = depth.parse().ok().filter(|d| [1, 10, 20].contains(d))?;
            let group = match *group {
                "none" => None,
                group => Some(group.parse().ok().filter(|g| [1, 2, 5, 10, 25, 100, 250].contains(g))?),
            };
            all(Topic::Grouped { group, depth }, period(interval).filter(|p| *p > 0)?, find(symbol)?)
        }
        ["trades", symbol, interval] => all(Topic::Trades, period(interval)?, find(symbol)?),
        ["trades", "future" | "any" | "perpetual", currency, interval] => {
            let of = |(i, l): (usize, &crate::market::Listing)| {
                (*currency == "any" || data::currency(&l.spec) == *currency).then_some(i)
            };
            let instruments: Vec<usize> = floor.market.listings().iter().enumerate().filter_map(of).collect();
            all(Topic::Trades, period(interval)?, instruments).filter(|(_, i)| !i.is_empty())
        }
        ["ticker", symbol, interval] => all(Topic::Ticker, period(interval)?, find(symbol)?),
        ["quote", symbol] => all(Topic::Quote, 0, find(symbol)?),
        ["chart", "trades", symbol, word] => all(Topic::Chart { width_ms: resolution(word)? }, 1_000, find(symbol)?),
        ["deribit_price_index", name] => all(Topic::PriceIndex, 1_000, index(name)?),
        ["perpetual", symbol, interval] => {
            let period = period(interval)?;
            all(Topic::Perpetual, if period == 0 { 100 } else { period }, find(symbol)?)
        }
        ["platform_state"] => all(Topic::PlatformState, 0, Vec::new()),
        _ => None,
    }
}

impl Feed {
    /// False: there is no such channel.
    pub fn subscribe(&mut self, floor: &mut Floor, name: &str, client: ClientId) -> bool {
        if let Some(channel) = self.channels.get_mut(name) {
            // What is pending belongs to those who listened until now; the newcomer gets a snapshot instead.
            if channel.what.topic == Topic::Book {
                flush_book(channel, floor, floor.now_ns);
            }
            channel.listeners.push(client);
            return true;
        }
        let Some((what, instruments)) = parse(floor, name) else { return false };
        self.sequences.resize(floor.market.listings().len(), Sequence::default());
        let period = if what.period_ms == 0 { i64::MAX / 2 } else { what.period_ms * 1_000_000 };
        let channel = Channel {
            name: name.to_owned(),
            what,
            prev: instruments.first().map_or(0, |i| floor.market.listing(*i).update_id),
            instruments,
            listeners: vec![client],
            due_ns: (floor.now_ns.div_euclid(period) + 1).saturating_mul(period),
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            trades: Vec::new(),
            dirty: true,
            touch: Default::default(),
        };
        self.next_due_ns = self.next_due_ns.min(channel.due_ns);
        self.channels.insert(name.to_owned(), channel);
        true
    }

    pub fn unsubscribe(&mut self, name: &str, client: ClientId) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.listeners.retain(|id| *id != client);
            if channel.listeners.is_empty() {
                self.channels.remove(name);
            }
        }
    }

    pub fn listened(&self) -> bool {
        !self.channels.is_empty()
    }

    /// The first message of each newly subscribed channel that has one.
    pub fn welcome(&mut self, floor: &mut Floor, client: ClientId, names: &[String]) {
        for name in names {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            let Some(&i) = channel.instruments.first() else { continue };
            let data = match channel.what.topic {
                Topic::Book => data::book_snapshot(floor, i),
                Topic::Grouped { group, depth } => data::book_grouped(floor, i, group, depth),
                Topic::Ticker => {
                    let nulls = floor.faults.take("null_numbers", &floor.market.listing(i).spec.symbol).is_some();
                    format!("{{{}}}", data::ticker_members(floor, i, floor.now_ns, nulls))
                }
                Topic::Trades | Topic::Quote | Topic::Chart { .. } | Topic::PriceIndex | Topic::Perpetual => continue,
                Topic::PlatformState => continue,
            };
            let text = wrap(&channel.name, &data);
            floor.data(client, text);
        }
    }

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, side, price, was, qty, .. } => {
                for channel in self.of(instrument) {
                    if channel.what.topic == Topic::Book {
                        let half = if side == Side::Buy { &mut channel.bids } else { &mut channel.asks };
                        half.entry(price).or_insert((0, was > 0)).0 = qty;
                    }
                    channel.dirty = true;
                }
            }
            Event::Trade(trade) => self.trade(floor, &trade),
            Event::Done { instrument, time_ns } => {
                for channel in self.of(instrument) {
                    if channel.what.period_ms == 0 {
                        publish(channel, floor, time_ns);
                    }
                }
            }
            Event::Fill { .. } => {}
        }
    }

    fn of(&mut self, instrument: usize) -> impl Iterator<Item = &mut Channel> {
        self.channels.values_mut().filter(move |c| c.instruments.contains(&instrument))
    }

    fn trade(&mut self, floor: &mut Floor, t: &Trade) {
        let Some(sequence) = self.sequences.get_mut(t.instrument) else { return };
        sequence.tick = match (t.price.cmp(&sequence.price), sequence.tick) {
            (std::cmp::Ordering::Greater, _) => 0,
            (std::cmp::Ordering::Less, _) => 2,
            (std::cmp::Ordering::Equal, 0 | 1) => 1,
            (std::cmp::Ordering::Equal, _) => 3,
        };
        sequence.price = t.price;
        let tick = sequence.tick;
        let mut text = None;
        for channel in self.channels.values_mut() {
            if channel.what.topic != Topic::Trades || !channel.instruments.contains(&t.instrument) {
                continue;
            }
            // The per-instrument sequence is the trade id itself: both count without holes.
            let text = text.get_or_insert_with(|| data::trade(floor.market.listing(t.instrument), t, t.id, tick));
            channel.trades.push(text.clone());
            if channel.trades.len() >= TRADES_IN_MESSAGE_MAX {
                publish(channel, floor, t.time_ns);
            }
        }
    }

    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        while self.next_due_ns <= at_ns {
            let due = self.next_due_ns;
            let horizon = at_ns - 3_600_000_000_000;
            for channel in self.channels.values_mut().filter(|c| c.due_ns <= due.max(horizon)) {
                publish(channel, floor, channel.due_ns);
                let period =
                    if channel.what.period_ms == 0 { i64::MAX / 2 } else { channel.what.period_ms * 1_000_000 };
                channel.due_ns = (channel.due_ns.max(horizon).div_euclid(period) + 1).saturating_mul(period);
            }
            self.next_due_ns = self.channels.values().map(|c| c.due_ns).min().unwrap_or(i64::MAX);
        }
    }
}

fn wrap(channel: &str, data: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}"#)
}

fn send(channel: &Channel, floor: &mut Floor, data: &str) {
    let symbol = channel.instruments.first().map(|i| floor.market.listing(*i).spec.symbol.clone()).unwrap_or_default();
    let text = floor.faults.text(channel.what.topic == Topic::Trades, &symbol, wrap(&channel.name, data));
    let text = Utf8Bytes::from(text);
    channel.listeners.iter().for_each(|client| floor.data(*client, text.clone()));
}

fn publish(channel: &mut Channel, floor: &mut Floor, at_ns: i64) {
    if channel.what.topic == Topic::Trades {
        if !channel.trades.is_empty() {
            let data = format!("[{}]", std::mem::take(&mut channel.trades).join(","));
            send(channel, floor, &data);
        }
        return;
    }
    let Some(&i) = channel.instruments.first() else { return };
    let dirty = std::mem::take(&mut channel.dirty);
    match channel.what.topic {
        Topic::Book => flush_book(channel, floor, at_ns),
        Topic::Grouped { group, depth } if dirty => {
            let data = data::book_grouped(floor, i, group, depth);
            send(channel, floor, &data);
        }
        Topic::Ticker if dirty => {
            floor.history[i].pass(at_ns / 1_000_000);
            let nulls = floor.faults.take("null_numbers", &floor.market.listing(i).spec.symbol).is_some();
            let data = format!("{{{}}}", data::ticker_members(floor, i, at_ns, nulls));
            send(channel, floor, &data);
        }
        Topic::Quote => {
            let l = floor.market.listing(i);
            let touch = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
            if channel.touch != touch {
                channel.touch = touch;
                let data = data::quote(l, touch.0, touch.1, at_ns);
                send(channel, floor, &data);
            }
        }
        Topic::Chart { width_ms } if dirty => {
            let at_ms = at_ns / 1_000_000;
            floor.history[i].pass(at_ms);
            let spec = &floor.market.listing(i).spec;
            // The bar that ends with this second is sent a last time whole.
            let open = (at_ms - 1).div_euclid(width_ms) * width_ms;
            let Some(bar) = floor.history[i].bar(width_ms, open) else { return };
            let data = data::chart(spec, &bar);
            send(channel, floor, &data);
        }
        Topic::PriceIndex => {
            let l = floor.market.listing(i);
            let (price, name) = (data::float(l.index(), 2.max(l.spec.price.s)), data::index_name(&l.spec));
            let data = format!(r#"{{"timestamp":{},"price":{price},"index_name":"{name}"}}"#, at_ns / 1_000_000);
            send(channel, floor, &data);
        }
        Topic::Perpetual => {
            let l = floor.market.listing(i);
            let digits = 2.max(l.spec.price.s);
            let data = format!(
                r#"{{"timestamp":{},"interest":{},"index_price":{}}}"#,
                at_ns / 1_000_000,
                data::float(l.funding(), 8),
                data::float(l.index(), digits)
            );
            send(channel, floor, &data);
        }
        Topic::Grouped { .. } | Topic::Ticker | Topic::Chart { .. } | Topic::Trades | Topic::PlatformState => {}
    }
}

fn flush_book(channel: &mut Channel, floor: &mut Floor, at_ns: i64) {
    let Some(&i) = channel.instruments.first() else { return };
    if channel.bids.is_empty() && channel.asks.is_empty() {
        return;
    }
    let l = floor.market.listing(i);
    let (last, spec) = (l.update_id, l.spec.clone());
    // A level that came and went between two messages is no change.
    let rows = |half: BTreeMap<i64, (i64, bool)>| {
        half.into_iter().filter(|(_, (q, was))| *q > 0 || *was).map(|(p, (q, was))| (p, q, was)).collect()
    };
    let (bids, asks) = (rows(std::mem::take(&mut channel.bids)), rows(std::mem::take(&mut channel.asks)));
    let frame = DepthFrame { time_ns: at_ns, first: last, last, prev: channel.prev, bids, asks };
    channel.prev = last;
    for frame in floor.faults.depth(&channel.name, &spec.symbol, frame) {
        let scientific = floor.faults.take("scientific", &spec.symbol).is_some();
        let data = data::book_change(&spec, &frame, scientific);
        send(channel, floor, &data);
    }
}
