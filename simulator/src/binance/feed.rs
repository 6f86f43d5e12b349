//! Who listens to which stream, and what is published when.

use std::collections::BTreeMap;

use axum::extract::ws::Utf8Bytes;

use super::channel::{Channel, parse};
use super::encode::{self, Aggregate, Unit};
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::market::Event;

/// How a client wants its payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// `{"stream":..,"data":..}` around each payload.
    pub combined: bool,
    pub unit: Unit,
}

/// Changes since the last depth event of one stream.
#[derive(Debug, Default)]
struct Pending {
    first: u64,
    /// Last id that was published.
    prev: u64,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    unit: Unit,
    channel: Channel,
    instrument: Option<usize>,
    listeners: Vec<(ClientId, bool)>,
    /// Virtual time of the next publication by the clock.
    due_ns: i64,
    pending: Pending,
    touch: ((i64, i64), (i64, i64)),
    aggregate: Option<Aggregate>,
    /// Open of the bar that was published last.
    bar_open_ms: i64,
    quiet_until_ns: i64,
}

/// All streams that somebody listens to.
#[derive(Debug, Default)]
pub struct Feed {
    streams: BTreeMap<(String, Unit), usize>,
    slots: Vec<Option<Stream>>,
    by_instrument: Vec<Vec<usize>>,
    /// Nothing is due before this.
    next_due_ns: i64,
}

impl Feed {
    /// A client listens to a stream from now on. A stream that does not exist stays silent.
    pub fn subscribe(&mut self, floor: &Floor, name: &str, client: ClientId, manner: Manner) {
        let key = (name.to_owned(), manner.unit);
        if let Some(&slot) = self.streams.get(&key) {
            if let Some(stream) = &mut self.slots[slot] {
                stream.listeners.push((client, manner.combined));
            }
            return;
        }
        let recorded = floor.recorded.is_some();
        let parsed = parse(name, floor.venue);
        let instrument = match &parsed {
            Some((Some(symbol), _)) => match floor.market.find(symbol) {
                Some(i) => Some(i),
                None => return,
            },
            Some((None, _)) => None,
            None if recorded => None,
            None => return,
        };
        let channel = parsed.map_or(Channel::Trade, |p| p.1);
        let prev = instrument.map_or(0, |i| floor.market.listing(i).update_id);
        let period = channel.period_ms().unwrap_or(i64::MAX / 2_000_000) * 1_000_000;
        let stream = Stream {
            name: name.to_owned(),
            unit: manner.unit,
            channel,
            instrument,
            listeners: vec![(client, manner.combined)],
            due_ns: if recorded { i64::MAX } else { (floor.now_ns.div_euclid(period) + 1).saturating_mul(period) },
            pending: Pending { prev, ..Pending::default() },
            touch: Default::default(),
            aggregate: None,
            bar_open_ms: i64::MIN,
            quiet_until_ns: i64::MIN,
        };
        self.next_due_ns = self.next_due_ns.min(stream.due_ns);
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(stream);
        self.streams.insert(key, slot);
        self.index(floor.market.listings().len());
    }

    pub fn unsubscribe(&mut self, name: &str, client: ClientId, unit: Unit) {
        let key = (name.to_owned(), unit);
        let Some(&slot) = self.streams.get(&key) else { return };
        if let Some(stream) = &mut self.slots[slot] {
            stream.listeners.retain(|(id, _)| *id != client);
            if stream.listeners.is_empty() {
                self.slots[slot] = None;
                self.streams.remove(&key);
                self.index(self.by_instrument.len());
            }
        }
    }

    pub fn listened(&self) -> bool {
        !self.streams.is_empty()
    }

    fn index(&mut self, instruments: usize) {
        self.by_instrument = vec![Vec::new(); instruments];
        for (slot, stream) in self.slots.iter().enumerate() {
            let Some(stream) = stream else { continue };
            match (stream.instrument, stream.channel) {
                (Some(i), _) => self.by_instrument[i].push(slot),
                (None, Channel::AllForceOrder) => self.by_instrument.iter_mut().for_each(|v| v.push(slot)),
                (None, _) => {}
            }
        }
    }

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        let (&Event::Level { instrument, .. } | &Event::Done { instrument, .. } | &Event::Fill { instrument, .. }) =
            event
        else {
            let Event::Trade(trade) = event else { return };
            for n in 0..self.by_instrument.get(trade.instrument).map_or(0, Vec::len) {
                let slot = self.by_instrument[trade.instrument][n];
                self.trade(floor, slot, trade);
            }
            return;
        };
        for n in 0..self.by_instrument.get(instrument).map_or(0, Vec::len) {
            let slot = self.by_instrument[instrument][n];
            let Some(stream) = &mut self.slots[slot] else { continue };
            match (event, stream.channel) {
                (&Event::Level { id, side, price, qty, .. }, Channel::Depth { .. }) => {
                    let pending = &mut stream.pending;
                    if pending.first == 0 {
                        // Spot ids are consecutive; on the futures other symbols use the ids between.
                        pending.first = id;
                    }
                    match side {
                        Side::Buy => pending.bids.insert(price, qty),
                        Side::Sell => pending.asks.insert(price, qty),
                    };
                }
                (&Event::Done { time_ns, .. }, Channel::Depth { period_ms: 0 }) => self.depth(floor, slot, time_ns),
                (&Event::Done { time_ns, .. }, Channel::BookTicker) => {
                    let listing = floor.market.listing(instrument);
                    let (Some(bid), Some(ask)) = (listing.book.touch(Side::Buy), listing.book.touch(Side::Sell)) else {
                        continue;
                    };
                    if stream.touch != (bid, ask) {
                        stream.touch = (bid, ask);
                        let text = encode::book_ticker(listing, bid, ask, time_ns, stream.unit);
                        send(stream, floor, text);
                    }
                }
                (Event::Done { .. }, Channel::AggTrade | Channel::ForceOrder | Channel::AllForceOrder) => {
                    self.flush_aggregate(floor, slot, instrument);
                }
                _ => {}
            }
        }
    }

    fn trade(&mut self, floor: &mut Floor, slot: usize, trade: &crate::market::Trade) {
        let Some(stream) = &mut self.slots[slot] else { return };
        match stream.channel {
            Channel::Trade => {
                let text = encode::trade(&floor.market.listing(trade.instrument).spec, trade, stream.unit);
                send(stream, floor, text);
            }
            Channel::AggTrade => {
                if stream.aggregate.is_some_and(|a| a.id != trade.aggregate) {
                    self.flush_aggregate(floor, slot, trade.instrument);
                }
                let Some(stream) = &mut self.slots[slot] else { return };
                let aggregate = stream.aggregate.get_or_insert(Aggregate { qty: 0, ..Aggregate::of(trade) });
                aggregate.qty += trade.qty;
                aggregate.last = trade.id;
            }
            Channel::ForceOrder | Channel::AllForceOrder if trade.liquidation => {
                let aggregate = stream.aggregate.get_or_insert(Aggregate { qty: 0, ..Aggregate::of(trade) });
                aggregate.qty += trade.qty;
                aggregate.price = trade.price;
            }
            _ => {}
        }
    }

    fn flush_aggregate(&mut self, floor: &mut Floor, slot: usize, instrument: usize) {
        let Some(stream) = &mut self.slots[slot] else { return };
        let Some(aggregate) = stream.aggregate.take() else { return };
        let spec = &floor.market.listing(instrument).spec;
        let text = match stream.channel {
            Channel::AggTrade => encode::agg_trade(spec, &aggregate, stream.unit),
            _ => {
                // One liquidation a second and symbol at most.
                if aggregate.time_ns < stream.quiet_until_ns {
                    return;
                }
                stream.quiet_until_ns = aggregate.time_ns + 1_000_000_000;
                encode::force_order(spec, &aggregate, stream.unit)
            }
        };
        send(stream, floor, text);
    }

    /// Publishes everything whose time is at or before `at_ns`, in order of its time.
    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        while self.next_due_ns <= at_ns {
            let due = self.next_due_ns;
            for slot in 0..self.slots.len() {
                if self.slots[slot].as_ref().is_some_and(|s| s.due_ns == due) {
                    self.publish(floor, slot, due);
                }
            }
            // After a pause of the market old periods are passed over instead of being sent in a burst.
            let horizon = at_ns - 3_600_000_000_000;
            for stream in self.slots.iter_mut().flatten().filter(|s| s.due_ns <= due.max(horizon)) {
                let period = stream.channel.period_ms().unwrap_or(i64::MAX / 2_000_000) * 1_000_000;
                stream.due_ns = (stream.due_ns.max(horizon).div_euclid(period) + 1) * period;
            }
            self.next_due_ns = self.slots.iter().flatten().map(|s| s.due_ns).min().unwrap_or(i64::MAX);
        }
    }

    fn publish(&mut self, floor: &mut Floor, slot: usize, at_ns: i64) {
        let Some(stream) = &mut self.slots[slot] else { return };
        let (unit, at_ms) = (stream.unit, at_ns / 1_000_000);
        let Some(i) = stream.instrument else {
            let rows: Vec<String> = match stream.channel {
                Channel::AllMarkPrice { .. } => {
                    floor.market.listings().iter().map(|l| encode::mark_price(l, at_ns, unit)).collect()
                }
                Channel::AllMiniTicker => {
                    let row = |(l, h): (&crate::market::Listing, &crate::history::History)| {
                        h.day(at_ms).map(|day| encode::mini_ticker(&l.spec, &day, at_ns, unit))
                    };
                    floor.market.listings().iter().zip(&floor.history).filter_map(row).collect()
                }
                _ => return,
            };
            return send(stream, floor, format!("[{}]", rows.join(",")));
        };
        floor.history[i].pass(at_ms);
        let listing = floor.market.listing(i);
        let text = match stream.channel {
            Channel::Depth { .. } => return self.depth(floor, slot, at_ns),
            Channel::Partial { levels, .. } => {
                let snapshot = floor.market.snapshot(i, levels);
                let prev = std::mem::replace(&mut stream.pending.prev, snapshot.id);
                if prev == snapshot.id {
                    return;
                }
                encode::partial(&listing.spec, &snapshot, prev, at_ns, unit)
            }
            Channel::MarkPrice { .. } => encode::mark_price(listing, at_ns, unit),
            Channel::Ticker | Channel::MiniTicker => {
                let Some(day) = floor.history[i].day(at_ms) else { return };
                match stream.channel {
                    Channel::Ticker => encode::ticker(listing, &day, at_ns, unit),
                    _ => encode::mini_ticker(&listing.spec, &day, at_ns, unit),
                }
            }
            Channel::AvgPrice => {
                let open = at_ms.div_euclid(60_000) * 60_000 - 240_000;
                let Some(bar) = floor.history[i].bar(300_000, open) else { return };
                encode::avg_price(&listing.spec, &bar, at_ns, unit)
            }
            Channel::Kline { interval, width_ms } => {
                let open = at_ms.div_euclid(width_ms) * width_ms;
                let mut texts = Vec::new();
                // At its end a bar is sent once more, closed; then the next one begins with its first trade.
                if open == at_ms
                    && let Some(bar) = floor.history[i].bar(width_ms, open - width_ms)
                {
                    texts.push(encode::kline(&listing.spec, &bar, interval, width_ms, at_ns, true, unit));
                }
                if open < at_ms
                    && let Some(bar) = floor.history[i].bar(width_ms, open)
                {
                    texts.push(encode::kline(&listing.spec, &bar, interval, width_ms, at_ns, false, unit));
                }
                stream.bar_open_ms = open;
                texts.into_iter().for_each(|text| send(stream, floor, text));
                return;
            }
            _ => return,
        };
        send(stream, floor, text);
    }

    fn depth(&mut self, floor: &mut Floor, slot: usize, at_ns: i64) {
        let Some(stream) = &mut self.slots[slot] else { return };
        let Some(i) = stream.instrument else { return };
        if stream.pending.first == 0 {
            return;
        }
        let last = floor.market.listing(i).update_id;
        let pending = std::mem::replace(&mut stream.pending, Pending { prev: last, ..Pending::default() });
        let rows = |half: BTreeMap<i64, i64>| half.into_iter().map(|(p, q)| (p, q, true)).collect();
        let (bids, asks) = (rows(pending.bids), rows(pending.asks));
        let frame = DepthFrame { time_ns: at_ns, first: pending.first, last, prev: pending.prev, bids, asks };
        let symbol = floor.market.listing(i).spec.symbol.clone();
        for frame in floor.faults.depth(&stream.name, &symbol, frame) {
            let text = encode::depth(&floor.market.listing(i).spec, &frame, stream.unit);
            send(stream, floor, text);
        }
    }

    /// One frame of a recording to who listens to its stream.
    pub fn recorded(&mut self, floor: &mut Floor, name: &str, data: &str) {
        let Some(&slot) = self.streams.get(&(name.to_owned(), Unit::Milli)) else { return };
        if let Some(stream) = &mut self.slots[slot] {
            send(stream, floor, data.to_owned());
        }
    }
}

/// To all listeners of a stream; the wrapped form is made once.
fn send(stream: &Stream, floor: &mut Floor, payload: String) {
    let symbol = stream.instrument.map(|i| floor.market.listing(i).spec.symbol.clone()).unwrap_or_default();
    let payload = floor.faults.text(stream.channel == Channel::Trade, &symbol, payload);
    let wrapped = stream.listeners.iter().any(|(_, combined)| *combined);
    let wrapped = wrapped.then(|| Utf8Bytes::from(format!(r#"{{"stream":"{}","data":{payload}}}"#, stream.name)));
    let bare = Utf8Bytes::from(payload);
    for (client, combined) in &stream.listeners {
        let text = match (&wrapped, combined) {
            (Some(wrapped), true) => wrapped.clone(),
            _ => bare.clone(),
        };
        floor.data(*client, text);
    }
}
