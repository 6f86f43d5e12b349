//! Raw facts: what a venue sent, normalised, in packs of 1 to 256 ticks of one symbol and kind.
//!
//! Trades and quotes, the hot kinds, are stored by column (one array a field), the others by row. A cause names
//! a tick as `stream:seq:index`.

use serde::{Deserialize, Serialize};

use crate::columns::Map;
use crate::fixed::{PriceM, QtyM, Scale};
use crate::num::{Nanos, Notional, Price, Qty, Side};
use crate::subject;
use crate::wire::{Fact, Version, WireError};

/// What stands before a text on the wire, at most.
const TEXT_HEAD_BYTES_MAX: usize = 5;

/// The most ticks in one pack.
pub const PACK_MAX: usize = 256;

/// One trade between others on a venue (not one of ours: that is a `Fill`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trade {
    /// Venue trade time.
    pub ts: Nanos,
    /// When our link read the frame.
    pub recv: Nanos,
    /// Rises with every trade of a symbol: the venue's numeric id or trade sequence. Duplicates are dropped by it. Where the
    /// venue's ids do not rise it is ours, and [`Trades::venue_id`] holds theirs.
    pub id: u64,
    pub price: PriceM,
    pub size: QtyM,
    /// The aggressor's (taker's) side.
    pub side: Side,
}

/// A pack of trades, by column.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trades {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    /// Digits of `price` and `size`.
    pub scale: Scale,
    /// Partition of the symbol.
    pub p: u32,
    pub ts_ns: Vec<i64>,
    pub recv_ns: Vec<i64>,
    pub id: Vec<u64>,
    /// Mantissas at `scale.price` digits.
    pub price: Vec<i64>,
    /// Mantissas at `scale.qty` digits.
    pub size: Vec<i64>,
    /// One letter a trade: `b` the taker bought, `s` the taker sold.
    pub side: String,
    /// The venue's own ids, of every trade; empty where `id` is the venue's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub venue_id: Vec<String>,
    /// How the pack came to us.
    #[serde(default, skip_serializing_if = "Origin::is_live")]
    pub origin: Origin,
}

/// How data came to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Pushed by the venue as it happened.
    #[default]
    Live,
    /// Asked for afterwards, or sent by the venue as history when we subscribed.
    Backfill,
}

impl Origin {
    pub fn is_live(&self) -> bool {
        *self == Self::Live
    }
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfill => "backfill",
        }
    }
}

impl Trades {
    pub fn new(p: u32, venue: &str, symbol: &str, scale: Scale) -> Self {
        Self { p, venue: venue.to_owned(), symbol: symbol.to_owned(), scale, ..Self::default() }
    }
    /// An empty pack in the room of this one: what was allocated is used again.
    pub fn renew(&mut self, p: u32, venue: &str, symbol: &str, scale: Scale) {
        (self.p, self.scale) = (p, scale);
        venue.clone_into(&mut self.venue);
        symbol.clone_into(&mut self.symbol);
        for column in [&mut self.ts_ns, &mut self.recv_ns, &mut self.price, &mut self.size] {
            column.clear();
        }
        self.id.clear();
        self.side.clear();
        self.venue_id.clear();
        self.origin = Origin::Live;
    }
    pub fn len(&self) -> usize {
        self.ts_ns.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ts_ns.is_empty()
    }
    #[inline]
    pub fn push(&mut self, t: Trade) {
        self.ts_ns.push(t.ts.0);
        self.recv_ns.push(t.recv.0);
        self.id.push(t.id);
        self.price.push(t.price.0);
        self.size.push(t.size.0);
        self.side.push(match t.side {
            Side::Buy => 'b',
            Side::Sell => 's',
        });
    }
    pub fn iter(&self) -> impl Iterator<Item = Trade> + '_ {
        let side = self.side.as_bytes();
        (0..self.len()).map(move |i| Trade {
            ts: Nanos(self.ts_ns[i]),
            recv: Nanos(self.recv_ns[i]),
            id: self.id[i],
            price: PriceM(self.price[i]),
            size: QtyM(self.size[i]),
            side: if side[i] == b'b' { Side::Buy } else { Side::Sell },
        })
    }
    /// Columns of equal length, 1 to 256 ticks, sides `b` or `s`: checked once at the door, nobody inside checks
    /// again.
    pub fn checked(self) -> Result<Self, WireError> {
        let n = self.len();
        let even = [self.recv_ns.len(), self.id.len(), self.price.len(), self.size.len(), self.side.len()] == [n; 5];
        if !even || n == 0 || n > PACK_MAX {
            return Err(WireError::invalid(format_args!("trade pack of {n} ticks with uneven or empty columns")));
        }
        if !self.venue_id.is_empty() && self.venue_id.len() != n {
            return Err(WireError::invalid(format_args!(
                "trade pack of {n} ticks with {} venue ids",
                self.venue_id.len()
            )));
        }
        if self.side.bytes().any(|b| b != b'b' && b != b's') {
            return Err(WireError::invalid(format_args!("trade pack with sides `{}`", self.side)));
        }
        Ok(self)
    }
}
impl Fact for Trades {
    const KIND: &'static str = "trade";
    fn subject(&self) -> String {
        subject::raw(self.p, &self.venue, Self::KIND, &self.symbol)
    }
    fn encode(&self) -> Vec<u8> {
        let ids = self.venue_id.iter().map(|id| TEXT_HEAD_BYTES_MAX + id.len()).sum::<usize>();
        let text = self.venue.len() + self.symbol.len() + self.side.len() + ids;
        let ints = [&self.ts_ns, &self.recv_ns, &self.price, &self.size].map(Vec::len).iter().sum::<usize>();
        let fields = 11 + u32::from(!self.venue_id.is_empty()) + u32::from(!self.origin.is_live());
        let mut map = Map::new(fields, text, ints + self.id.len());
        map.version().text("venue", &self.venue).text("symbol", &self.symbol).scale(self.scale).uint("p", self.p);
        map.ints("ts_ns", &self.ts_ns).ints("recv_ns", &self.recv_ns).uints("id", &self.id);
        map.ints("price", &self.price).ints("size", &self.size).text("side", &self.side);
        map.texts("venue_id", &self.venue_id);
        if !self.origin.is_live() {
            map.text("origin", self.origin.as_str());
        }
        map.done()
    }
}

/// The best bid and ask at one instant. `None`: that side of the book is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote {
    /// Venue time; the receive time where the venue gives none (Binance spot).
    pub ts: Nanos,
    pub recv: Nanos,
    pub bid: Option<(PriceM, QtyM)>,
    pub ask: Option<(PriceM, QtyM)>,
}

/// A pack of quotes, by column; a price of `nil` is an empty side.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quotes {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    pub scale: Scale,
    pub p: u32,
    pub ts_ns: Vec<i64>,
    pub recv_ns: Vec<i64>,
    pub bid: Vec<Option<i64>>,
    pub bid_size: Vec<i64>,
    pub ask: Vec<Option<i64>>,
    pub ask_size: Vec<i64>,
}

impl Quotes {
    pub fn new(p: u32, venue: &str, symbol: &str, scale: Scale) -> Self {
        Self { p, venue: venue.to_owned(), symbol: symbol.to_owned(), scale, ..Self::default() }
    }
    /// See [`Trades::renew`].
    pub fn renew(&mut self, p: u32, venue: &str, symbol: &str, scale: Scale) {
        (self.p, self.scale) = (p, scale);
        venue.clone_into(&mut self.venue);
        symbol.clone_into(&mut self.symbol);
        for column in [&mut self.ts_ns, &mut self.recv_ns, &mut self.bid_size, &mut self.ask_size] {
            column.clear();
        }
        self.bid.clear();
        self.ask.clear();
    }
    pub fn len(&self) -> usize {
        self.ts_ns.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ts_ns.is_empty()
    }
    pub fn push(&mut self, q: Quote) {
        self.ts_ns.push(q.ts.0);
        self.recv_ns.push(q.recv.0);
        self.bid.push(q.bid.map(|b| b.0.0));
        self.bid_size.push(q.bid.map_or(0, |b| b.1.0));
        self.ask.push(q.ask.map(|a| a.0.0));
        self.ask_size.push(q.ask.map_or(0, |a| a.1.0));
    }
    pub fn iter(&self) -> impl Iterator<Item = Quote> + '_ {
        (0..self.len()).map(move |i| Quote {
            ts: Nanos(self.ts_ns[i]),
            recv: Nanos(self.recv_ns[i]),
            bid: self.bid[i].map(|p| (PriceM(p), QtyM(self.bid_size[i]))),
            ask: self.ask[i].map(|p| (PriceM(p), QtyM(self.ask_size[i]))),
        })
    }
    /// See [`Trades::checked`].
    pub fn checked(self) -> Result<Self, WireError> {
        let n = self.len();
        let even =
            [self.recv_ns.len(), self.bid.len(), self.bid_size.len(), self.ask.len(), self.ask_size.len()] == [n; 5];
        if !even || n == 0 || n > PACK_MAX {
            return Err(WireError::invalid(format_args!("quote pack of {n} ticks with uneven or empty columns")));
        }
        Ok(self)
    }
}
impl Fact for Quotes {
    const KIND: &'static str = "quote";
    fn subject(&self) -> String {
        subject::raw(self.p, &self.venue, Self::KIND, &self.symbol)
    }
    fn encode(&self) -> Vec<u8> {
        let ints = [self.ts_ns.len(), self.recv_ns.len(), self.bid_size.len(), self.ask_size.len()];
        let ints = ints.iter().sum::<usize>() + self.bid.len() + self.ask.len();
        let mut map = Map::new(11, self.venue.len() + self.symbol.len(), ints);
        map.version().text("venue", &self.venue).text("symbol", &self.symbol).scale(self.scale).uint("p", self.p);
        map.ints("ts_ns", &self.ts_ns).ints("recv_ns", &self.recv_ns);
        map.maybe_ints("bid", &self.bid).ints("bid_size", &self.bid_size);
        map.maybe_ints("ask", &self.ask).ints("ask_size", &self.ask_size);
        map.done()
    }
}

/// Whether a book message replaces the book or changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BookAction {
    Snapshot,
    Update,
}

/// One book message: absolute sizes by price; size 0 deletes the level.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BookUpdate {
    pub ts_ns: i64,
    pub recv_ns: i64,
    pub action: BookAction,
    /// The venue's sequence numbers, as it gives them.
    pub seq_first: Option<u64>,
    pub seq_last: Option<u64>,
    pub seq_prev: Option<u64>,
    /// (price, size) mantissas.
    pub bids: Vec<(i64, i64)>,
    pub asks: Vec<(i64, i64)>,
}

/// What a venue's ticker-like channels tell; each field only where the venue sent it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TickerUpdate {
    pub ts_ns: i64,
    pub recv_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid_size: Option<Qty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_size: Option<Qty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Price>,
    /// Funding rate of one interval, a plain ratio (0.0001 = 0.01 %), signed: positive means longs pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funding_rate: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_funding_ns: Option<i64>,
    /// In the instrument's size unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_interest: Option<Qty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_24h: Option<Qty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote_volume_24h: Option<Notional>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_24h: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_24h: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_24h: Option<Price>,
}

/// A candle as the venue itself publishes it; kept to compare with ours, never folded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VenueBar {
    pub ts_ns: i64,
    pub recv_ns: i64,
    pub interval: String,
    pub open_ts_ns: i64,
    pub open: Price,
    pub high: Price,
    pub low: Price,
    pub close: Price,
    pub volume: Qty,
    pub closed: bool,
    /// Sum of price * size, where the venue tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote_volume: Option<Notional>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trades: Option<u64>,
    #[serde(default, skip_serializing_if = "Origin::is_live")]
    pub origin: Origin,
}

/// A forced order that the venue reported.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Liquidation {
    pub ts_ns: i64,
    pub recv_ns: i64,
    pub side: Side,
    pub price: Price,
    pub size: Qty,
}

macro_rules! rows {
    ($(#[$doc:meta])* $name:ident, $item:ty, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        pub struct $name {
            pub v: Version,
            pub venue: String,
            pub symbol: String,
            pub scale: Scale,
            pub p: u32,
            pub items: Vec<$item>,
        }
        impl $name {
            pub fn new(p: u32, venue: &str, symbol: &str, scale: Scale) -> Self {
                Self { v: Version, venue: venue.to_owned(), symbol: symbol.to_owned(), scale, p, items: Vec::new() }
            }
        }
        impl Fact for $name {
            const KIND: &'static str = $kind;
            fn subject(&self) -> String {
                subject::raw(self.p, &self.venue, Self::KIND, &self.symbol)
            }
        }
    };
}
rows!(
    /// A pack of book messages.
    Books, BookUpdate, "book"
);
rows!(
    /// A pack of ticker messages.
    Tickers, TickerUpdate, "ticker"
);
rows!(
    /// A pack of the venue's own candles.
    VenueBars, VenueBar, "bar"
);
rows!(
    /// A pack of liquidations.
    Liquidations, Liquidation, "liquidation"
);

/// The venue's clock in one partition: all data with event time at or below `watermark` has been written before
/// this fact. The only time that cores know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Clock {
    pub v: Version,
    pub venue: String,
    pub p: u32,
    /// Event-time low watermark.
    pub watermark_ns: i64,
    /// Ingest's wall clock (the recorder's, for a recording).
    pub wall_ns: i64,
}
impl Fact for Clock {
    const KIND: &'static str = "clock";
    fn subject(&self) -> String {
        subject::clock(self.p, &self.venue)
    }
}

/// Data is missing: between `from_ns` and `to_ns` (event time; `to_ns` absent while it lasts).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    pub p: u32,
    /// What is missing: `trade`, `book`, ...
    pub channel: String,
    pub from_ns: i64,
    pub to_ns: Option<i64>,
    /// For people: `sequence 105 after 101`, `reconnect after idle 30 s`.
    pub reason: String,
}
impl Fact for Gap {
    const KIND: &'static str = "gap";
    fn subject(&self) -> String {
        subject::raw(self.p, &self.venue, Self::KIND, &self.symbol)
    }
}

/// A connection to a venue was made or lost, or what the venue said over it of its own state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkEvent {
    pub v: Version,
    pub venue: String,
    /// Which connection of the venue's.
    pub link: String,
    pub wall_ns: i64,
    /// `connected`, `lost`, `planned_reconnect`, `unreachable`, `stale`, `fresh`; `status`: the venue spoke of its own state
    /// or of an instrument's, and `reason` is the sentence. A recording's are `connected` and `finished`.
    pub event: String,
    pub reason: String,
    /// Connections made since start.
    pub count: u64,
}
impl Fact for LinkEvent {
    const KIND: &'static str = "link";
    fn subject(&self) -> String {
        subject::link(&self.venue)
    }
}

/// A frame that could not be decoded; the stream goes on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dead {
    pub v: Version,
    pub venue: String,
    pub recv_ns: i64,
    pub reason: String,
    /// The frame as text (hex when it is not UTF-8), cut at 64 KiB.
    pub frame: String,
}
impl Fact for Dead {
    const KIND: &'static str = "dead";
    fn subject(&self) -> String {
        subject::dead(&self.venue)
    }
}

/// Any raw fact, by the kind token of its subject.
#[derive(Clone, PartialEq, Debug)]
pub enum Raw {
    Trades(Trades),
    Quotes(Quotes),
    Books(Books),
    Tickers(Tickers),
    Bars(VenueBars),
    Liquidations(Liquidations),
    Clock(Clock),
    Gap(Gap),
    Link(LinkEvent),
    Dead(Dead),
}

impl Raw {
    /// `Ok(None)`: not a raw subject, or a kind this version does not know.
    pub fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        let mut tokens = subject.split('.');
        if tokens.next() != Some("raw") {
            return Ok(None);
        }
        let raw = match tokens.nth(2).unwrap_or("") {
            "trade" => Self::Trades(Trades::decode(payload)?.checked()?),
            "quote" => Self::Quotes(Quotes::decode(payload)?.checked()?),
            "book" => Self::Books(Books::decode(payload)?),
            "ticker" => Self::Tickers(Tickers::decode(payload)?),
            "bar" => Self::Bars(VenueBars::decode(payload)?),
            "liquidation" => Self::Liquidations(Liquidations::decode(payload)?),
            "clock" => Self::Clock(Clock::decode(payload)?),
            "gap" => Self::Gap(Gap::decode(payload)?),
            "link" => Self::Link(LinkEvent::decode(payload)?),
            "dead" => Self::Dead(Dead::decode(payload)?),
            _ => return Ok(None),
        };
        Ok(Some(raw))
    }

    pub fn subject(&self) -> String {
        match self {
            Self::Trades(f) => f.subject(),
            Self::Quotes(f) => f.subject(),
            Self::Books(f) => f.subject(),
            Self::Tickers(f) => f.subject(),
            Self::Bars(f) => f.subject(),
            Self::Liquidations(f) => f.subject(),
            Self::Clock(f) => f.subject(),
            Self::Gap(f) => f.subject(),
            Self::Link(f) => f.subject(),
            Self::Dead(f) => f.subject(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Trades(f) => f.encode(),
            Self::Quotes(f) => f.encode(),
            Self::Books(f) => f.encode(),
            Self::Tickers(f) => f.encode(),
            Self::Bars(f) => f.encode(),
            Self::Liquidations(f) => f.encode(),
            Self::Clock(f) => f.encode(),
            Self::Gap(f) => f.encode(),
            Self::Link(f) => f.encode(),
            Self::Dead(f) => f.encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trade() -> impl Strategy<Value = Trade> {
        (any::<i64>(), any::<i64>(), any::<u64>(), any::<i64>(), any::<i64>(), any::<bool>()).prop_map(
            |(ts, recv, id, price, size, buy)| Trade {
                ts: Nanos(ts),
                recv: Nanos(recv),
                id,
                price: PriceM(price),
                size: QtyM(size),
                side: if buy { Side::Buy } else { Side::Sell },
            },
        )
    }

    proptest! {
        #[test]
        fn a_pack_of_trades_reads_back_as_written(trades in prop::collection::vec(trade(), 1..=PACK_MAX)) {
            let mut pack = Trades::new(3, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
            trades.iter().for_each(|t| pack.push(*t));
            let Some(Raw::Trades(back)) = Raw::hear(&pack.subject(), &pack.encode()).unwrap() else { panic!("not trades") };
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), trades);
        }
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), any::<i32>().prop_map(i64::from), -300i64..300, Just(i64::MIN), Just(i64::MAX)]
    }

    proptest! {
        // Serde's way is what earlier versions stored.
        #[test]
        fn columns_are_written_as_serde_writes_them(
            columns in (prop::collection::vec(number(), 0..300), prop::collection::vec(number(), 0..40)),
            names in ("\\PC{0,300}", "[a-z]{0,40}", "[bs]{0,300}", prop::collection::vec("[a-z0-9]{0,40}", 0..20)),
            (p, price, qty, backfill) in any::<(u32, u8, u8, bool)>(),
        ) {
            let (many, few) = columns;
            let scale = Scale { price, qty };
            let trades = Trades {
                id: many.iter().map(|v| *v as u64).collect(),
                ts_ns: many.clone(),
                price: few.clone(),
                size: many.clone(),
                side: names.2,
                venue_id: names.3,
                origin: if backfill { Origin::Backfill } else { Origin::Live },
                ..Trades::new(p, &names.1, &names.0, scale)
            };
            prop_assert_eq!(trades.encode(), crate::wire::encode(&trades));
            let maybe = |list: &[i64]| list.iter().map(|v| (v % 3 != 0).then_some(*v)).collect();
            let quotes = Quotes {
                ts_ns: few.clone(),
                bid: maybe(&many),
                ask: maybe(&few),
                ask_size: many,
                ..Quotes::new(p, &names.0, &names.1, scale)
            };
            prop_assert_eq!(quotes.encode(), crate::wire::encode(&quotes));
        }
    }

    #[test]
    fn a_renewed_pack_is_like_a_new_one() {
        let mut trades = Trades::new(7, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
        trades.push(Trade { ts: Nanos(1), recv: Nanos(1), id: 1, price: PriceM(1), size: QtyM(1), side: Side::Buy });
        trades.renew(1, "deribit", "X", Scale::default());
        assert_eq!(trades, Trades::new(1, "deribit", "X", Scale::default()));
        let mut quotes = Quotes::new(7, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
        quotes.push(Quote { ts: Nanos(1), recv: Nanos(1), bid: Some((PriceM(1), QtyM(1))), ask: None });
        quotes.renew(1, "deribit", "X", Scale::default());
        assert_eq!(quotes, Quotes::new(1, "deribit", "X", Scale::default()));
    }

    #[test]
    fn a_pack_with_uneven_columns_stops_at_the_door() {
        let mut pack = Trades::new(0, "binance", "X", Scale::default());
        assert!(pack.clone().checked().is_err(), "an empty pack");
        pack.push(Trade { ts: Nanos(1), recv: Nanos(1), id: 1, price: PriceM(1), size: QtyM(1), side: Side::Buy });
        pack.id.push(2);
        assert!(pack.checked().is_err());
    }

    #[test]
    fn a_fact_of_a_later_major_version_is_refused() {
        let clock = Clock { v: Version, venue: "binance".into(), p: 0, watermark_ns: 1, wall_ns: 2 };
        let mut bytes = clock.encode();
        let at = bytes.windows(2).position(|w| w == b"\xa1v").unwrap() + 2;
        assert_eq!(bytes[at], 1);
        bytes[at] = 2;
        assert!(Clock::decode(&bytes).is_err());
    }
}
