//! Subscriptions, who listens, and what is published when.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};

use super::{USER_KINDS, data};
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::market::{Event, Trade};

/// Widths of candles.
pub const WIDTHS: &[(&str, i64)] = &[
    ("1m", 60_000),
    ("3m", 180_000),
    ("5m", 300_000),
    ("15m", 900_000),
    ("30m", 1_800_000),
    ("1h", 3_600_000),
    ("2h", 7_200_000),
    ("4h", 14_400_000),
    ("8h", 28_800_000),
    ("12h", 43_200_000),
    ("1d", 86_400_000),
];

/// What one can subscribe to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Topic {
    Trades { instrument: usize },
    Book { instrument: usize },
    Bbo { instrument: usize },
    Context { instrument: usize },
    Candle { instrument: usize, interval: &'static str, width_ms: i64 },
    AllMids,
    User { kind: &'static str, user: String },
}

/// Between two books of a coin: the recordings show 0.5 to 0.6 s.
const BOOK_PERIOD_MS: i64 = 500;
/// Between two contexts, mids and candles that change; not recorded.
const SLOW_PERIOD_MS: i64 = 1_000;
/// Levels a side of a book.
pub const LEVELS: usize = 20;
/// Trades of the message that a subscription begins with: the recorded one has 30, over 50 s.
const HISTORY_TRADES: usize = 30;

impl Topic {
    /// `None`: there is no such thing here.
    pub fn parse(floor: &Floor, wanted: &Value) -> Option<Self> {
        let kind = wanted["type"].as_str()?;
        let coin = || wanted["coin"].as_str().and_then(|coin| floor.market.find(coin));
        match kind {
            "trades" => Some(Self::Trades { instrument: coin()? }),
            // A book of fewer figures is another book, which this stand-in does not keep.
            "l2Book" if wanted["nSigFigs"].is_null() => Some(Self::Book { instrument: coin()? }),
            "bbo" => Some(Self::Bbo { instrument: coin()? }),
            "activeAssetCtx" => Some(Self::Context { instrument: coin()? }),
            "candle" => {
                let (interval, width_ms) = *WIDTHS.iter().find(|(name, _)| wanted["interval"] == *name)?;
                Some(Self::Candle { instrument: coin()?, interval, width_ms })
            }
            "allMids" => Some(Self::AllMids),
            _ => {
                let kind = *USER_KINDS.iter().find(|known| **known == kind)?;
                Some(Self::User { kind, user: wanted["user"].as_str()?.to_owned() })
            }
        }
    }

    /// Names it; equal for equal things.
    pub fn key(&self) -> String {
        match self {
            Self::Trades { instrument } => format!("trades/{instrument}"),
            Self::Book { instrument } => format!("l2Book/{instrument}"),
            Self::Bbo { instrument } => format!("bbo/{instrument}"),
            Self::Context { instrument } => format!("activeAssetCtx/{instrument}"),
            Self::Candle { instrument, interval, .. } => format!("candle/{instrument}/{interval}"),
            Self::AllMids => "allMids".to_owned(),
            Self::User { kind, user } => format!("{kind}/user/{user}"),
        }
    }

    fn instrument(&self) -> Option<usize> {
        match self {
            Self::Trades { instrument }
            | Self::Book { instrument }
            | Self::Bbo { instrument }
            | Self::Context { instrument }
            | Self::Candle { instrument, .. } => Some(*instrument),
            Self::AllMids | Self::User { .. } => None,
        }
    }

    /// 0: at every operation of the market.
    fn period_ms(&self) -> i64 {
        match self {
            Self::Trades { .. } | Self::Bbo { .. } | Self::User { .. } => 0,
            Self::Book { .. } => BOOK_PERIOD_MS,
            Self::Context { .. } | Self::Candle { .. } | Self::AllMids => SLOW_PERIOD_MS,
        }
    }
}

#[derive(Debug)]
struct Channel {
    topic: Topic,
    listeners: Vec<ClientId>,
    due_ns: i64,
    dirty: bool,
    trades: Vec<Trade>,
    touch: (Option<(i64, i64)>, Option<(i64, i64)>),
}

#[derive(Debug, Default)]
pub struct Feed {
    channels: BTreeMap<String, Channel>,
    next_due_ns: i64,
    /// Clients that something was sent to since this was last asked.
    spoken: BTreeSet<ClientId>,
}

impl Feed {
    /// The newcomer gets what a subscription begins with: history, or the present state.
    pub fn subscribe(&mut self, floor: &mut Floor, topic: Topic, client: ClientId) {
        let key = topic.key();
        self.welcome(floor, &topic, client);
        if let Some(channel) = self.channels.get_mut(&key) {
            // What is pending belongs to those who listened until now; the newcomer heard it as history.
            publish(channel, floor, floor.now_ns, &mut self.spoken);
            channel.listeners.push(client);
            return;
        }
        let period_ns = topic.period_ms() * 1_000_000;
        let due_ns = if period_ns == 0 { i64::MAX } else { (floor.now_ns.div_euclid(period_ns) + 1) * period_ns };
        self.next_due_ns = if self.channels.is_empty() { due_ns } else { self.next_due_ns.min(due_ns) };
        let touch = topic.instrument().map(|i| touch(floor, i)).unwrap_or_default();
        let channel = Channel { topic, listeners: vec![client], due_ns, dirty: true, trades: Vec::new(), touch };
        self.channels.insert(key, channel);
    }

    pub fn unsubscribe(&mut self, key: &str, client: ClientId) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.listeners.retain(|id| *id != client);
            if channel.listeners.is_empty() {
                self.channels.remove(key);
            }
        }
    }

    pub fn listened(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Who was spoken to since the last call, as of `now_ms`.
    pub fn spoken(&mut self, now_ms: u64) -> Vec<(ClientId, u64)> {
        std::mem::take(&mut self.spoken).into_iter().map(|client| (client, now_ms)).collect()
    }

    fn welcome(&mut self, floor: &mut Floor, topic: &Topic, client: ClientId) {
        let texts = match *topic {
            Topic::Trades { instrument: i } => {
                let known = floor.history[i].trades();
                let newest: Vec<Trade> = known.skip(known_before(floor, i)).copied().collect();
                // While a message of the market is being made its trades are history already.
                if newest.is_empty() { Vec::new() } else { vec![data::trades(floor.market.listing(i), &newest)] }
            }
            // The same time twice in a row, as it was recorded.
            Topic::Book { instrument } => vec![data::book_now(floor, instrument); 2],
            Topic::Bbo { instrument: i } => {
                let (bid, ask) = touch(floor, i);
                vec![data::bbo(&floor.market.listing(i).spec, bid, ask, floor.now_ms())]
            }
            Topic::Context { instrument } => vec![data::context(floor, instrument)],
            Topic::Candle { instrument, interval, width_ms } => {
                data::candle_now(floor, instrument, interval, width_ms).into_iter().collect()
            }
            Topic::AllMids => vec![data::all_mids(floor)],
            Topic::User { kind: "userFills", ref user } => {
                let empty = json!({ "isSnapshot": true, "user": user, "fills": [] });
                vec![json!({ "channel": "userFills", "data": empty }).to_string()]
            }
            Topic::User { .. } => Vec::new(),
        };
        for text in texts {
            self.spoken.insert(client);
            floor.data(client, text);
        }
    }

    pub fn event(&mut self, floor: &mut Floor, event: &Event) {
        match *event {
            Event::Level { instrument, .. } => self.touched(instrument),
            Event::Trade(trade) => {
                self.touched(trade.instrument);
                let key = Topic::Trades { instrument: trade.instrument }.key();
                if let Some(channel) = self.channels.get_mut(&key) {
                    channel.trades.push(trade);
                }
            }
            Event::Done { instrument, time_ns } => {
                for channel in self.channels.values_mut() {
                    if channel.topic.period_ms() == 0 && channel.topic.instrument() == Some(instrument) {
                        publish(channel, floor, time_ns, &mut self.spoken);
                    }
                }
            }
            Event::Fill { .. } => {}
        }
    }

    fn touched(&mut self, instrument: usize) {
        for channel in self.channels.values_mut() {
            if channel.topic.instrument().is_none_or(|i| i == instrument) {
                channel.dirty = true;
            }
        }
    }

    pub fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        while !self.channels.is_empty() && self.next_due_ns <= at_ns {
            let due = self.next_due_ns;
            // After a pause of the market old periods are passed over instead of being sent in a burst.
            let horizon = at_ns - 3_600_000_000_000;
            for channel in self.channels.values_mut().filter(|c| c.due_ns <= due.max(horizon)) {
                publish(channel, floor, channel.due_ns, &mut self.spoken);
                let period_ns = channel.topic.period_ms() * 1_000_000;
                channel.due_ns = (channel.due_ns.max(horizon).div_euclid(period_ns) + 1) * period_ns;
            }
            self.next_due_ns = self.channels.values().map(|c| c.due_ns).min().unwrap_or(i64::MAX);
        }
    }
}

/// Remembered trades that are no longer part of what a subscription begins with.
fn known_before(floor: &Floor, i: usize) -> usize {
    floor.history[i].trades().len().saturating_sub(HISTORY_TRADES)
}

fn touch(floor: &Floor, i: usize) -> (Option<(i64, i64)>, Option<(i64, i64)>) {
    let book = &floor.market.listing(i).book;
    (book.touch(Side::Buy), book.touch(Side::Sell))
}

fn send(channel: &Channel, floor: &mut Floor, text: String, spoken: &mut BTreeSet<ClientId>) {
    let symbol = channel.topic.instrument().map(|i| floor.market.listing(i).spec.symbol.clone()).unwrap_or_default();
    let text = floor.faults.text(matches!(channel.topic, Topic::Trades { .. }), &symbol, text);
    let text = Utf8Bytes::from(text);
    for client in &channel.listeners {
        spoken.insert(*client);
        floor.data(*client, text.clone());
    }
}

fn publish(channel: &mut Channel, floor: &mut Floor, at_ns: i64, spoken: &mut BTreeSet<ClientId>) {
    let (at_ms, dirty) = (at_ns / 1_000_000, std::mem::take(&mut channel.dirty));
    match channel.topic {
        Topic::Trades { instrument } => {
            let trades = std::mem::take(&mut channel.trades);
            if !trades.is_empty() {
                let text = data::trades(floor.market.listing(instrument), &trades);
                send(channel, floor, text, spoken);
            }
        }
        Topic::Book { instrument } if dirty => book(channel, floor, instrument, at_ns, spoken),
        Topic::Bbo { instrument } => {
            let now = touch(floor, instrument);
            if channel.touch != now {
                channel.touch = now;
                let spec = floor.market.listing(instrument).spec.clone();
                let one_sided = floor.faults.take("one_sided_bbo", &spec.symbol).is_some();
                let text = data::bbo(&spec, now.0, now.1.filter(|_| !one_sided), at_ms);
                send(channel, floor, text, spoken);
            }
        }
        Topic::Context { instrument } if dirty => {
            floor.history[instrument].pass(at_ms);
            let text = data::context(floor, instrument);
            send(channel, floor, text, spoken);
        }
        Topic::Candle { instrument, interval, width_ms } if dirty => {
            floor.history[instrument].pass(at_ms);
            // The candle that ends with this second is sent a last time whole; that it is over nothing says.
            let open = (at_ms - 1).div_euclid(width_ms) * width_ms;
            if let Some(text) = data::candle(floor, instrument, interval, width_ms, open) {
                send(channel, floor, text, spoken);
            }
        }
        Topic::AllMids if dirty => {
            let text = data::all_mids(floor);
            send(channel, floor, text, spoken);
        }
        Topic::Book { .. } | Topic::Context { .. } | Topic::Candle { .. } | Topic::AllMids | Topic::User { .. } => {}
    }
}

/// A whole book; on command it is left out, doubled, held back behind its successor, or without levels.
fn book(channel: &Channel, floor: &mut Floor, i: usize, at_ns: i64, spoken: &mut BTreeSet<ClientId>) {
    let (snapshot, spec) = (floor.market.snapshot(i, LEVELS), floor.market.listing(i).spec.clone());
    let rows = |half: Vec<(i64, i64)>| half.into_iter().map(|(p, q)| (p, q, true)).collect();
    let (last, bids, asks) = (snapshot.id, rows(snapshot.bids), rows(snapshot.asks));
    let mut frame = DepthFrame { time_ns: at_ns, first: last, last, prev: last, bids, asks };
    if floor.faults.take("empty_book", &spec.symbol).is_some() {
        (frame.bids, frame.asks) = (Vec::new(), Vec::new());
    }
    for frame in floor.faults.depth(&channel.topic.key(), &spec.symbol, frame) {
        let text = data::book(&spec, &frame);
        send(channel, floor, text, spoken);
    }
}
