//! Who listens to which channel, and what is published when.

use std::collections::BTreeMap;

use axum::body::Bytes;

use super::channel::{Carries, Topic, is_spot};
use super::encode;
use super::proto::Message;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::{ClientId, Out};
use crate::market::{Event, Trade};

#[derive(Debug)]
struct Channel {
    topic: Topic,
    listeners: Vec<ClientId>,
    due_ns: i64,
    /// Changes since the last message: the first version among them (0: none) and the last one that went out.
    first: u64,
    prev: u64,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    trades: Vec<Trade>,
    touch: ((i64, i64), (i64, i64)),
}

/// Trades of one message; more are sent at once.
const TRADES_IN_MESSAGE_MAX: usize = 100;
/// Virtual time between two fundings.
const FUNDING_MS: i64 = 8 * 3_600_000;

/// All channels that somebody listens to.
#[derive(Debug, Default)]
pub struct Feed {
    channels: BTreeMap<String, Channel>,
    next_due_ns: i64,
    /// When each client was last sent data, in real time.
    pub flowed_ms: BTreeMap<ClientId, u64>,
}

impl Feed {
    pub fn subscribe(&mut self, floor: &Floor, topic: Topic, client: ClientId) {
        if let Some(channel) = self.channels.get_mut(&topic.name) {
            if !channel.listeners.contains(&client) {
                channel.listeners.push(client);
            }
            return;
        }
        let prev = topic.instrument.map_or(0, |i| floor.market.listing(i).update_id);
        let period_ns = period_ns(&topic);
        let channel = Channel {
            listeners: vec![client],
            due_ns: (floor.now_ns.div_euclid(period_ns) + 1).saturating_mul(period_ns),
            first: 0,
            prev,
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            trades: Vec::new(),
            touch: Default::default(),
            topic,
        };
        self.next_due_ns = self.next_due_ns.min(channel.due_ns);
        self.channels.insert(channel.topic.name.clone(), channel);
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

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, id, side, price, qty, .. } => {
                for channel in self.of(instrument).filter(|c| c.topic.carries == Carries::Depth) {
                    if channel.first == 0 {
                        channel.first = id;
                    }
                    let half = if side == Side::Buy { &mut channel.bids } else { &mut channel.asks };
                    half.insert(price, qty);
                }
            }
            Event::Trade(trade) => {
                let flow = &mut self.flowed_ms;
                let mine = |c: &&mut Channel| {
                    c.topic.instrument == Some(trade.instrument) && c.topic.carries == Carries::Deals
                };
                for channel in self.channels.values_mut().filter(mine) {
                    channel.trades.push(trade);
                    if channel.trades.len() >= TRADES_IN_MESSAGE_MAX {
                        publish(channel, floor, trade.time_ns, flow);
                    }
                }
            }
            Event::Done { instrument, time_ns } => {
                let flow = &mut self.flowed_ms;
                let mine = |c: &&mut Channel| c.topic.instrument == Some(instrument) && c.topic.period_ms == 0;
                self.channels.values_mut().filter(mine).for_each(|c| publish(c, floor, time_ns, flow));
            }
            Event::Fill { .. } => {}
        }
    }

    fn of(&mut self, instrument: usize) -> impl Iterator<Item = &mut Channel> {
        self.channels.values_mut().filter(move |c| c.topic.instrument == Some(instrument))
    }

    /// Publishes everything whose time is at or before `at_ns`.
    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        while self.next_due_ns <= at_ns {
            let due = self.next_due_ns;
            // After a pause old periods are passed over instead of being sent in a burst.
            let horizon = at_ns - 3_600_000_000_000;
            let flow = &mut self.flowed_ms;
            for channel in self.channels.values_mut().filter(|c| c.due_ns <= due.max(horizon)) {
                publish(channel, floor, channel.due_ns, flow);
                let period_ns = period_ns(&channel.topic);
                channel.due_ns = (channel.due_ns.max(horizon).div_euclid(period_ns) + 1).saturating_mul(period_ns);
            }
            self.next_due_ns = self.channels.values().map(|c| c.due_ns).min().unwrap_or(i64::MAX);
        }
    }
}

fn period_ns(topic: &Topic) -> i64 {
    if topic.period_ms == 0 { i64::MAX / 2 } else { topic.period_ms * 1_000_000 }
}

fn publish(channel: &mut Channel, floor: &mut Floor, at_ns: i64, flow: &mut BTreeMap<ClientId, u64>) {
    for out in messages(channel, floor, at_ns) {
        for client in &channel.listeners {
            flow.insert(*client, floor.mono_ms);
            floor.data(*client, out.clone());
        }
    }
}

fn messages(channel: &mut Channel, floor: &mut Floor, at_ns: i64) -> Vec<Out> {
    let at_ms = at_ns / 1_000_000;
    let topic = channel.topic.clone();
    let Some(i) = topic.instrument else {
        let rows = floor.market.listings().iter().zip(&floor.history);
        let rows: Vec<String> =
            rows.filter_map(|(l, h)| h.day(at_ms).map(|day| encode::contract_brief(l, &day))).collect();
        let text = encode::push("tickers", None, &format!("[{}]", rows.join(",")), at_ms);
        return vec![json(floor, "", false, text)];
    };
    floor.history[i].pass(at_ms);
    let symbol = floor.market.listing(i).spec.symbol.clone();
    match topic.carries {
        Carries::Depth => {
            if channel.first == 0 {
                return Vec::new();
            }
            let last = floor.market.listing(i).update_id;
            let rows = |half: &mut BTreeMap<i64, i64>| {
                std::mem::take(half).into_iter().map(|(p, q)| (p, q, true)).collect::<Vec<_>>()
            };
            let (bids, asks) = (rows(&mut channel.bids), rows(&mut channel.asks));
            let (first, prev) = (std::mem::take(&mut channel.first), std::mem::replace(&mut channel.prev, last));
            let frame = DepthFrame { time_ns: at_ns, first, last, prev, bids, asks };
            let frames = floor.faults.depth(&topic.name, &symbol, frame);
            frames.into_iter().map(|frame| depth(floor, &topic, i, &frame)).collect()
        }
        Carries::Deals => {
            let trades = std::mem::take(&mut channel.trades);
            if trades.is_empty() { Vec::new() } else { deals(floor, &topic, i, &trades) }
        }
        Carries::Touch => {
            let l = floor.market.listing(i);
            let touch = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
            if std::mem::replace(&mut channel.touch, touch) == touch {
                return Vec::new();
            }
            let body = encode::touch(&l.spec, touch.0, touch.1, l.update_id, at_ms);
            vec![binary(floor, &topic, i, at_ms, body)]
        }
        _ => clocked(floor, &topic, i, at_ms).into_iter().collect(),
    }
}

/// What the clock alone makes speak.
fn clocked(floor: &mut Floor, topic: &Topic, i: usize, at_ms: i64) -> Option<Out> {
    let (spot, l) = (is_spot(floor), floor.market.listing(i));
    let spec = l.spec.clone();
    let one = |floor: &mut Floor, name: &str, data: String| {
        let text = encode::push(name, Some(&spec.symbol), &data, at_ms);
        Some(json(floor, &spec.symbol, false, text))
    };
    let price =
        |value: f64| format!(r#"{{"price":{},"symbol":"{}"}}"#, encode::float(value, spec.price.s + 1), spec.symbol);
    match topic.carries {
        Carries::Top { levels } => {
            let snapshot = floor.market.snapshot(i, levels);
            if spot {
                let body = encode::limit_depth(&topic.name, &spec, &snapshot, at_ms);
                return Some(binary(floor, topic, i, at_ms, body));
            }
            one(floor, "depth.full", format!("{{{}}}", encode::contract_book(&spec, &snapshot)))
        }
        Carries::Kline { interval, width_ms } => {
            let bar = floor.history[i].bar(width_ms, (at_ms - 1).div_euclid(width_ms) * width_ms)?;
            if spot {
                return Some(binary(floor, topic, i, at_ms, encode::kline(&spec, &bar, interval, width_ms)));
            }
            one(floor, "kline", encode::contract_kline(&spec, &bar, interval))
        }
        Carries::Ticker => {
            let day = floor.history[i].day(at_ms)?;
            if spot {
                return Some(binary(floor, topic, i, at_ms, encode::mini_ticker(&spec, &day)));
            }
            let data = encode::contract_ticker(l, i, &day, at_ms);
            one(floor, "ticker", data)
        }
        Carries::Funding => {
            let next = (at_ms.div_euclid(FUNDING_MS) + 1) * FUNDING_MS;
            let rate = encode::float(l.funding(), 6);
            let data = format!(r#"{{"rate":{rate},"symbol":"{}","nextSettleTime":{next}}}"#, spec.symbol);
            one(floor, "funding.rate", data)
        }
        Carries::Index => {
            let data = price(l.index());
            one(floor, "index.price", data)
        }
        Carries::Fair => {
            let data = price(l.mark());
            one(floor, "fair.price", data)
        }
        Carries::Depth | Carries::Deals | Carries::Touch | Carries::Tickers => None,
    }
}

fn depth(floor: &mut Floor, topic: &Topic, i: usize, frame: &DepthFrame) -> Out {
    let (spec, at_ms) = (floor.market.listing(i).spec.clone(), frame.time_ns / 1_000_000);
    if is_spot(floor) {
        return binary(floor, topic, i, at_ms, encode::depth(&topic.name, &spec, frame));
    }
    let text = encode::push("depth", Some(&spec.symbol), &encode::contract_depth(&spec, frame), at_ms);
    json(floor, &spec.symbol, false, text)
}

/// Contract sent one deal a message until 2025, and a list since.
fn deals(floor: &mut Floor, topic: &Topic, i: usize, trades: &[Trade]) -> Vec<Out> {
    let spec = floor.market.listing(i).spec.clone();
    let old = floor.faults.take("old_deals", &spec.symbol).is_some();
    let at_ms = trades.last().map_or(0, |t| t.time_ns / 1_000_000);
    if is_spot(floor) {
        return vec![binary(floor, topic, i, at_ms, encode::deals(&topic.name, &spec, trades, old))];
    }
    let rows: Vec<String> = trades.iter().map(|t| encode::contract_deal(&spec, t, old)).collect();
    let data = if old { rows } else { vec![format!("[{}]", rows.join(","))] };
    let push = |data: String| encode::push("deal", Some(&spec.symbol), &data, at_ms);
    let texts: Vec<String> = data.into_iter().map(push).collect();
    texts.into_iter().map(|text| json(floor, &spec.symbol, true, text)).collect()
}

/// A spot frame with the faults that strike it.
fn binary(floor: &mut Floor, topic: &Topic, i: usize, at_ms: i64, body: Message) -> Out {
    let spec = &floor.market.listing(i).spec;
    let symbol = spec.symbol.clone();
    let empty = floor.faults.take("empty_body", &symbol).is_some();
    let spec = &floor.market.listing(i).spec;
    let mut frame = encode::frame(&topic.name, spec, topic.carries, at_ms, (!empty).then_some(body));
    if floor.faults.take("unknown_fields", &symbol).is_some() {
        // In front and behind, of every wire type.
        let extra = Message::default().int(900, 7).text(901, "later").fixed64(902, 7).fixed32(903, 7);
        frame = Message([extra.0.clone(), frame.0, extra.0].concat());
    }
    if topic.carries == Carries::Deals && floor.faults.take("unknown_enum", &symbol).is_some() {
        let deal = Message::default().text(1, "1").text(2, "1").int(3, 9).int(4, at_ms);
        let spec = &floor.market.listing(i).spec;
        let body = Message::default().message(1, deal);
        frame = encode::frame(&topic.name, spec, topic.carries, at_ms, Some(body));
    }
    if floor.faults.take("bad_json", &symbol).is_some() {
        frame.0.truncate(frame.0.len() / 2);
    }
    Out::Binary(Bytes::from(frame.0))
}

/// A contract frame with the faults that strike it.
fn json(floor: &mut Floor, symbol: &str, is_trade: bool, text: String) -> Out {
    let text = if is_trade && floor.faults.take("unknown_enum", symbol).is_some() {
        text.replace(r#""T":1"#, r#""T":9"#).replace(r#""T":2"#, r#""T":9"#)
    } else {
        text
    };
    floor.faults.text(false, symbol, text).into()
}
