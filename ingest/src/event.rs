//! What a venue's frame says, in one form for all venues and with exact numbers.
//!
//! A decoder turns a frame into events; `pack` turns events into raw facts, `normalize` into JSON rows. Times are
//! the venue's unless a name says otherwise. Nothing here is guessed: what a frame does not tell is `None`.

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};

/// An instrument in the venue's spelling. Up to 24 bytes stand in place: an event of a real symbol allocates nothing
/// for it.
pub type Symbol = compact_str::CompactString;

/// One thing that a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Trade(Trade),
    Book(Book),
    /// Best bid and ask.
    Bbo(Bbo),
    Ticker(Box<Ticker>),
    Bar(Box<Bar>),
    /// Mark price with what the venue sends beside it.
    Mark(Mark),
    /// A price index, or the index of an instrument where it comes alone.
    Index {
        symbol: Symbol,
        price: Decimal,
        ts: Nanos,
    },
    OpenInterest {
        symbol: Symbol,
        size: Decimal,
        ts: Nanos,
    },
    Liquidation(Box<Liquidation>),
    Order(Box<OrderUpdate>),
    Fill(Box<Fill>),
    Balance {
        asset: String,
        free: Decimal,
        locked: Decimal,
        ts: Nanos,
    },
    Control(Control),
    /// The venue refused something that we asked for.
    Error {
        code: i64,
        message: String,
        id: Option<String>,
    },
    /// Understood, and deliberately left out. A trade id that it uses up is told, so that it is no gap.
    Ignored {
        reason: String,
        trade: Option<(Symbol, u64)>,
    },
    /// A known message that has no normalised form.
    Other(String),
    /// Not understood; goes to the dead letters with this reason.
    Malformed(String),
}

/// One trade of the public tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    pub symbol: Symbol,
    /// Rises by one with every trade of the symbol: the venue's id, or its trade sequence.
    pub id: u64,
    /// The venue's id where that is another thing than `id`.
    pub venue_id: Option<Symbol>,
    pub price: Decimal,
    /// In `unit`; always positive.
    pub size: Decimal,
    pub unit: SizeUnit,
    /// The aggressor's side.
    pub side: Side,
    /// Trade time.
    pub ts: Nanos,
    /// Push time where the venue tells it.
    pub event_ts: Option<Nanos>,
    /// First and last trade id when this row sums up several fills of one order.
    pub aggregate: Option<(u64, u64)>,
    pub extra: Option<Box<TradeExtra>>,
}

/// What only derivative venues add to a trade.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TradeExtra {
    pub mark: Option<Decimal>,
    pub index: Option<Decimal>,
    /// Implied volatility in percent.
    pub iv: Option<Decimal>,
    pub contracts: Option<Decimal>,
    /// `M`, `T` or `MT`: the maker, the taker or both were liquidated.
    pub liquidation: Option<String>,
}

/// A book message: absolute sizes by price, size 0 deletes.
#[derive(Clone, Debug, PartialEq)]
pub struct Book {
    /// Empty where the message does not tell (a REST answer): the asker knows.
    pub symbol: Symbol,
    pub action: BookAction,
    /// Only the top of the book, whole each time: never merged into a book of deltas.
    pub partial: bool,
    pub seq_first: Option<u64>,
    pub seq_last: Option<u64>,
    pub seq_prev: Option<u64>,
    pub bids: Vec<(Decimal, Decimal)>,
    pub asks: Vec<(Decimal, Decimal)>,
    pub ts: Option<Nanos>,
    pub event_ts: Option<Nanos>,
}

/// Best bid and ask as (price, size); `None` is an empty side.
#[derive(Clone, Debug, PartialEq)]
pub struct Bbo {
    pub symbol: Symbol,
    pub bid: Option<(Decimal, Decimal)>,
    pub ask: Option<(Decimal, Decimal)>,
    pub seq: Option<u64>,
    pub ts: Option<Nanos>,
    pub event_ts: Option<Nanos>,
}

/// A day's summary and the prices beside it; each field only where the venue sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticker {
    pub symbol: Symbol,
    pub ts: Nanos,
    pub last: Option<Decimal>,
    pub open_24h: Option<Decimal>,
    pub high_24h: Option<Decimal>,
    pub low_24h: Option<Decimal>,
    pub volume_base_24h: Option<Decimal>,
    pub volume_quote_24h: Option<Decimal>,
    /// In the instrument's own unit (Deribit).
    pub volume_24h: Option<Decimal>,
    pub bid: Option<Decimal>,
    pub bid_size: Option<Decimal>,
    pub ask: Option<Decimal>,
    pub ask_size: Option<Decimal>,
    pub mark: Option<Decimal>,
    pub index: Option<Decimal>,
    pub underlying: Option<Decimal>,
    pub open_interest: Option<Decimal>,
    pub current_funding: Option<Decimal>,
    pub funding_8h: Option<Decimal>,
    pub mark_iv: Option<Decimal>,
    pub bid_iv: Option<Decimal>,
    pub ask_iv: Option<Decimal>,
    pub delta: Option<Decimal>,
    pub gamma: Option<Decimal>,
    pub vega: Option<Decimal>,
    pub theta: Option<Decimal>,
    pub rho: Option<Decimal>,
}

/// A candle as the venue publishes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub symbol: Symbol,
    /// The venue's own name of the width.
    pub interval: String,
    pub open_ts: Nanos,
    pub close_ts: Option<Nanos>,
    pub open: Decimal,
    pub high: Decimal,
    pub low: Decimal,
    pub close: Decimal,
    pub volume_base: Decimal,
    pub volume_quote: Decimal,
    pub trades: Option<u64>,
    pub closed: Option<bool>,
    pub event_ts: Option<Nanos>,
}

/// Mark price, index and funding of a derivative.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub symbol: Symbol,
    pub mark: Decimal,
    pub index: Option<Decimal>,
    /// Of one funding interval, a plain ratio; positive means longs pay. Absent on delivery contracts.
    pub funding_rate: Option<Decimal>,
    pub next_funding: Option<Nanos>,
    pub ts: Nanos,
}

/// A forced order.
#[derive(Clone, Debug, PartialEq)]
pub struct Liquidation {
    pub symbol: Symbol,
    pub side: Side,
    pub price: Decimal,
    pub avg_price: Decimal,
    pub size: Decimal,
    pub filled: Decimal,
    pub status: String,
    pub ts: Nanos,
}

/// What the venue says of one of our orders.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderUpdate {
    pub symbol: Symbol,
    pub client_order_id: String,
    pub venue_order_id: String,
    pub side: Side,
    pub order_type: String,
    pub tif: String,
    pub price: Decimal,
    pub size: Decimal,
    pub filled: Decimal,
    pub avg_price: Option<Decimal>,
    pub status: String,
    pub exec_type: String,
    pub reduce_only: Option<bool>,
    pub ts: Nanos,
}

/// A fill of one of our orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    pub symbol: Symbol,
    pub venue_order_id: String,
    pub trade_id: String,
    pub side: Side,
    pub price: Decimal,
    pub size: Decimal,
    /// Paid is positive.
    pub fee: Decimal,
    pub fee_asset: Option<String>,
    pub maker: bool,
    pub ts: Nanos,
}

/// What the two ends say to each other about the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    /// A request was taken; the venue does not say what came of it.
    Ack {
        id: String,
    },
    /// The channels that are subscribed now.
    Subscribed {
        id: String,
        channels: Vec<String>,
    },
    Heartbeat,
    /// Must be answered at once.
    TestRequest,
    /// The server will close the connection soon.
    ServerShutdown,
    /// A request of the client's own (documentation examples).
    Request {
        method: String,
    },
}
