//! Channels, who listens, and what is published when.

use std::collections::BTreeMap;

use axum::body::Bytes;

use super::Socket;
use super::data;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::market::{Event, Trade};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topic {
    Trades,
    /// Spot's book by changes: `seqNum` and `prevSeqNum`.
    Linked {
        depth: usize,
    },
    /// Its top, whole each time.
    Refresh {
        depth: usize,
    },
    /// The book of derivatives by changes: versions rise by one.
    Counted {
        depth: usize,
    },
    /// Whole books.
    Step {
        depth: usize,
    },
    Bbo,
    Detail,
    Kline {
        width_ms: i64,
    },
    Index,
    Mark,
    Funding,
    Liquidations,
}

impl Topic {
    /// 0: at every operation.
    fn period_ms(self, swap: bool) -> i64 {
        match self {
            Topic::Trades | Topic::Bbo | Topic::Liquidations => 0,
            Topic::Linked { .. } | Topic::Refresh { .. } | Topic::Counted { .. } => 100,
            Topic::Step { .. } if swap => 100,
            Topic::Step { .. } | Topic::Detail | Topic::Kline { .. } | Topic::Index | Topic::Mark => 1000,
            Topic::Funding => 60_000,
        }
    }
}

type Side2 = BTreeMap<i64, i64>;

#[derive(Debug)]
struct Channel {
    name: String,
    topic: Topic,
    instrument: usize,
    listeners: Vec<ClientId>,
    period_ns: i64,
    due_ns: i64,
    /// What a listener's book holds, and the number of the message that made it so.
    shown: (Side2, Side2),
    number: u64,
    trades: Vec<Trade>,
    dirty: bool,
    touch: ((i64, i64), (i64, i64)),
}

#[derive(Debug, Default)]
pub struct Feed {
    channels: BTreeMap<String, Channel>,
    next_due_ns: i64,
    /// Versions of books that nobody listens to at present: they go on where they were.
    versions: BTreeMap<String, u64>,
}

const PERIODS: &[(&str, i64)] = &[
    ("1min", 60_000),
    ("5min", 300_000),
    ("15min", 900_000),
    ("30min", 1_800_000),
    ("60min", 3_600_000),
    ("4hour", 14_400_000),
    ("1day", 86_400_000),
];

/// Milliseconds of a candle's period.
pub fn period(word: &str) -> Option<i64> {
    PERIODS.iter().find(|(name, _)| *name == word).map(|(_, ms)| *ms)
}

/// What a channel name means on a socket, and of which instrument.
fn parse(floor: &Floor, socket: Socket, name: &str) -> Option<(Topic, usize)> {
    let parts: Vec<&str> = name.split('.').collect();
    let depth = |word: &str, allowed: &[usize]| word.parse().ok().filter(|n| allowed.contains(n));
    let swap = floor.venue != crate::VenueId::HtxSpot;
    let (symbol, topic) = match (socket, parts.as_slice()) {
        (Socket::Market, ["market", symbol, "trade", "detail"]) => (symbol, Topic::Trades),
        (Socket::Market, ["market", symbol, "bbo"]) => (symbol, Topic::Bbo),
        (Socket::Market, ["market", symbol, "detail"]) => (symbol, Topic::Detail),
        (Socket::Market, ["market", symbol, "kline", word]) => (symbol, Topic::Kline { width_ms: period(word)? }),
        (Socket::Market, ["market", symbol, "depth", size, "high_freq"]) if swap => {
            (symbol, Topic::Counted { depth: depth(size.strip_prefix("size_")?, &[20, 150])? })
        }
        (Socket::Market, ["market", symbol, "depth", step]) => {
            let step: usize = step.strip_prefix("step")?.parse().ok().filter(|n| *n <= if swap { 19 } else { 5 })?;
            (symbol, Topic::Step { depth: if step == 0 { 150 } else { 20 } })
        }
        (Socket::Market, ["market", symbol, "mbp", "refresh", n]) if !swap => {
            (symbol, Topic::Refresh { depth: depth(n, &[5, 10, 20])? })
        }
        (Socket::Feed, ["market", symbol, "mbp", n]) => {
            (symbol, Topic::Linked { depth: depth(n, &[5, 20, 150, 400])? })
        }
        (Socket::Index, ["market", symbol, "index", word]) => period(word).map(|_| (symbol, Topic::Index))?,
        (Socket::Index, ["market", symbol, "mark_price", word]) => period(word).map(|_| (symbol, Topic::Mark))?,
        (Socket::Notification, ["public", symbol, "funding_rate"]) => (symbol, Topic::Funding),
        (Socket::Notification, ["public", symbol, "liquidation_orders"]) => (symbol, Topic::Liquidations),
        _ => return None,
    };
    Some((topic, floor.market.find(symbol)?))
}

impl Feed {
    /// False: there is no such channel on this socket.
    pub fn subscribe(&mut self, floor: &mut Floor, socket: Socket, name: &str, client: ClientId) -> bool {
        let Some((topic, instrument)) = parse(floor, socket, name) else { return false };
        if let Some(channel) = self.channels.get_mut(name) {
            // What is pending belongs to those who listened until now; the newcomer begins behind it.
            flush_book(channel, floor, floor.now_ns);
            if !channel.listeners.contains(&client) {
                channel.listeners.push(client);
            }
            return true;
        }
        let swap = data::is_swap(&floor.market.listing(instrument).spec);
        let period_ns = match topic.period_ms(swap) {
            0 => i64::MAX / 2,
            ms => ms * 1_000_000,
        };
        let number = match topic {
            Topic::Counted { .. } => self.versions.remove(name).unwrap_or(1_000),
            _ => floor.market.listing(instrument).update_id,
        };
        let channel = Channel {
            name: name.to_owned(),
            topic,
            instrument,
            listeners: vec![client],
            period_ns,
            due_ns: (floor.now_ns.div_euclid(period_ns) + 1).saturating_mul(period_ns),
            shown: top(floor, topic, instrument),
            number,
            trades: Vec::new(),
            dirty: true,
            touch: Default::default(),
        };
        self.next_due_ns = self.next_due_ns.min(channel.due_ns);
        self.channels.insert(name.to_owned(), channel);
        true
    }

    pub fn unsubscribe(&mut self, name: &str, client: ClientId) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.listeners.retain(|id| *id != client);
        if channel.listeners.is_empty()
            && let Some(left) = self.channels.remove(name)
            && matches!(left.topic, Topic::Counted { .. })
        {
            self.versions.insert(left.name, left.number);
        }
    }

    pub fn listened(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Whether the first data of a channel comes before the acknowledgement: recorded of the trades of derivatives.
    pub fn is_hasty(&self, name: &str, floor: &Floor) -> bool {
        let channel = self.channels.get(name);
        channel.is_some_and(|c| c.topic == Topic::Trades && data::is_swap(&floor.market.listing(c.instrument).spec))
    }

    /// What a channel begins with, to the newcomer alone.
    pub fn welcome(&mut self, floor: &mut Floor, client: ClientId, name: &str) {
        let Some(channel) = self.channels.get(name) else { return };
        let (i, now_ns) = (channel.instrument, floor.now_ns);
        let spec = &floor.market.listing(i).spec;
        let text = match channel.topic {
            // The newest trade comes again.
            Topic::Trades => match floor.history[i].trades().next_back() {
                Some(last) => data::market(name, now_ns, &data::trades(spec, &[*last])),
                None => return,
            },
            Topic::Counted { .. } => data::market(name, now_ns, &snapshot(channel, spec, now_ns)),
            Topic::Step { depth } => data::market(name, now_ns, &data::step_book(floor, i, name, depth, now_ns)),
            Topic::Funding => data::funding(floor.market.listing(i), name, now_ns),
            Topic::Linked { .. } | Topic::Refresh { .. } | Topic::Bbo | Topic::Detail | Topic::Kline { .. } => return,
            Topic::Index | Topic::Mark | Topic::Liquidations => return,
        };
        floor.data(client, data::packed(&text));
    }

    /// The data of an answer to `req`, as of the last message of the channel; `None`: it cannot be asked for.
    pub fn requested(&mut self, floor: &mut Floor, socket: Socket, name: &str) -> Option<String> {
        let (topic, i) = parse(floor, socket, name)?;
        let depth = match topic {
            Topic::Linked { depth } => depth,
            _ => return None,
        };
        if let Some(channel) = self.channels.get_mut(name) {
            flush_book(channel, floor, floor.now_ns);
        }
        let (spec, s) = (&floor.market.listing(i).spec, floor.market.snapshot(i, depth));
        let number = self.channels.get(name).map_or(s.id, |channel| channel.number);
        Some(data::numbered_book(spec, number, &s.bids, &s.asks))
    }

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, .. } => self.of(instrument).for_each(|channel| channel.dirty = true),
            Event::Trade(trade) => {
                for channel in self.of(trade.instrument) {
                    if channel.topic == Topic::Trades || (channel.topic == Topic::Liquidations && trade.liquidation) {
                        channel.trades.push(trade);
                    }
                }
            }
            Event::Done { instrument, time_ns } => {
                for channel in self.of(instrument).filter(|c| c.period_ns == i64::MAX / 2) {
                    publish(channel, floor, time_ns);
                }
            }
            Event::Fill { .. } => {}
        }
    }

    fn of(&mut self, instrument: usize) -> impl Iterator<Item = &mut Channel> {
        self.channels.values_mut().filter(move |c| c.instrument == instrument)
    }

    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        while self.next_due_ns <= at_ns {
            let due = self.next_due_ns;
            // After a leap only the last hour is published.
            let horizon = at_ns - 3_600_000_000_000;
            for channel in self.channels.values_mut().filter(|c| c.due_ns <= due.max(horizon)) {
                publish(channel, floor, channel.due_ns);
                let after = channel.due_ns.max(horizon).div_euclid(channel.period_ns) + 1;
                channel.due_ns = after.saturating_mul(channel.period_ns);
            }
            self.next_due_ns = self.channels.values().map(|c| c.due_ns).min().unwrap_or(i64::MAX);
        }
    }
}

/// What the channel's book shows at present.
fn top(floor: &Floor, topic: Topic, i: usize) -> (Side2, Side2) {
    match topic {
        Topic::Linked { depth } | Topic::Counted { depth } => {
            let s = floor.market.snapshot(i, depth);
            (s.bids.into_iter().collect(), s.asks.into_iter().collect())
        }
        _ => Default::default(),
    }
}

/// The book that a listener of the channel has.
fn snapshot(channel: &Channel, spec: &crate::instrument::Spec, at_ns: i64) -> String {
    let rows = |side: &Side2| -> Vec<(i64, i64, bool)> { side.iter().map(|(p, q)| (*p, *q, true)).collect() };
    let (mut bids, asks) = (rows(&channel.shown.0), rows(&channel.shown.1));
    bids.reverse();
    let number = channel.number;
    let frame = DepthFrame { time_ns: at_ns, first: number, last: number, prev: number, bids, asks };
    data::counted_book(spec, &channel.name, "snapshot", &frame)
}

/// Levels that differ, with whether they were there before; none is quantity 0.
fn differences(before: &Side2, after: &Side2) -> Vec<(i64, i64, bool)> {
    let gone = before.keys().filter(|price| !after.contains_key(price)).map(|price| (*price, 0, true));
    let set = after.iter().filter(|(price, qty)| before.get(price) != Some(qty));
    gone.chain(set.map(|(price, qty)| (*price, *qty, before.contains_key(price)))).collect()
}

fn flush_book(channel: &mut Channel, floor: &mut Floor, at_ns: i64) {
    let (Topic::Linked { .. } | Topic::Counted { .. }) = channel.topic else { return };
    if !std::mem::take(&mut channel.dirty) {
        return;
    }
    let i = channel.instrument;
    let now = top(floor, channel.topic, i);
    let (bids, asks) = (differences(&channel.shown.0, &now.0), differences(&channel.shown.1, &now.1));
    if bids.is_empty() && asks.is_empty() {
        return;
    }
    let l = floor.market.listing(i);
    let (update_id, spec) = (l.update_id, l.spec.clone());
    let counted = matches!(channel.topic, Topic::Counted { .. });
    let last = if counted { channel.number + 1 } else { update_id };
    let frame = DepthFrame { time_ns: at_ns, first: update_id, last, prev: channel.number, bids, asks };
    (channel.number, channel.shown) = (last, now);
    for frame in floor.faults.depth(&channel.name, &spec.symbol, frame) {
        let tick = match counted {
            true => data::counted_book(&spec, &channel.name, "update", &frame),
            false => data::linked_changes(&spec, &frame),
        };
        send(channel, floor, data::market(&channel.name, at_ns, &tick));
    }
    if counted && floor.faults.take("snapshot_again", &spec.symbol).is_some() {
        let tick = snapshot(channel, &spec, at_ns);
        send(channel, floor, data::market(&channel.name, at_ns, &tick));
    }
}

fn publish(channel: &mut Channel, floor: &mut Floor, at_ns: i64) {
    let i = channel.instrument;
    let (at_ms, name) = (at_ns / 1_000_000, channel.name.clone());
    let dirty = channel.dirty;
    let tick = match channel.topic {
        Topic::Linked { .. } | Topic::Counted { .. } => return flush_book(channel, floor, at_ns),
        Topic::Trades => {
            let trades = std::mem::take(&mut channel.trades);
            if trades.is_empty() {
                return;
            }
            data::trades(&floor.market.listing(i).spec, &trades)
        }
        Topic::Liquidations => {
            for trade in std::mem::take(&mut channel.trades) {
                let text = data::liquidation(&floor.market.listing(i).spec, &name, &trade);
                send(channel, floor, text);
            }
            return;
        }
        Topic::Funding => {
            let text = data::funding(floor.market.listing(i), &name, at_ns);
            return send(channel, floor, text);
        }
        Topic::Bbo => {
            let l = floor.market.listing(i);
            let touch = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
            if channel.touch == touch {
                return;
            }
            channel.touch = touch;
            data::bbo(l, &name, touch.0, touch.1, at_ns)
        }
        Topic::Refresh { depth } if dirty => {
            let s = floor.market.snapshot(i, depth);
            data::numbered_book(&floor.market.listing(i).spec, s.id, &s.bids, &s.asks)
        }
        // Sent also when nothing changed, as recorded.
        Topic::Step { depth } => data::step_book(floor, i, &name, depth, at_ns),
        Topic::Detail if dirty => {
            floor.history[i].pass(at_ms);
            let Some(day) = floor.history[i].day(at_ms).filter(|day| day.n > 0) else { return };
            data::bar(&floor.market.listing(i).spec, at_ms / 1000, &day)
        }
        Topic::Kline { width_ms } if dirty => {
            floor.history[i].pass(at_ms);
            // The bar that ends with this second is sent a last time whole.
            let open = (at_ms - 1).div_euclid(width_ms) * width_ms;
            let Some(bar) = floor.history[i].bar(width_ms, open) else { return };
            data::bar(&floor.market.listing(i).spec, open / 1000, &bar)
        }
        Topic::Index => {
            let l = floor.market.listing(i);
            data::price_bar(l, at_ms / 60_000 * 60, l.index())
        }
        Topic::Mark => {
            let l = floor.market.listing(i);
            data::price_bar(l, at_ms / 60_000 * 60, l.mark())
        }
        Topic::Refresh { .. } | Topic::Detail | Topic::Kline { .. } => return,
    };
    channel.dirty = false;
    send(channel, floor, data::market(&name, at_ns, &tick));
}

/// To every listener, packed, unless a fault says otherwise.
fn send(channel: &Channel, floor: &mut Floor, text: String) {
    let symbol = floor.market.listing(channel.instrument).spec.symbol.clone();
    let is_trade = channel.topic == Topic::Trades;
    let mut text = floor.faults.text(is_trade, &symbol, text);
    if is_trade && floor.faults.take("empty_direction", &symbol).is_some() {
        text = text.replacen(r#""direction":"buy""#, r#""direction":"""#, 1).replacen(
            r#""direction":"sell""#,
            r#""direction":"""#,
            1,
        );
    }
    let mut frame = data::packed(&text);
    if floor.faults.take("bad_gzip", &symbol).is_some() {
        let mut bytes = frame.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        frame = Bytes::from(bytes);
    }
    if floor.faults.take("big_gzip", &symbol).is_some() {
        frame = data::packed(&(text + &" ".repeat(32 * 1024 * 1024)));
    }
    channel.listeners.iter().for_each(|client| floor.data(*client, frame.clone()));
}
