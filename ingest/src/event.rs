//! What a venue's frame says, in one form for all venues and with exact numbers.
//!
//! A decoder turns a frame into events; `pack` turns events into raw facts, `normalize` into JSON rows. Times are
//! the venue's unless a name says otherwise. Nothing here is guessed: what a frame does not tell is `None`.

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};

use crate::status::Status;

/// An instrument in the venue's spelling. Up to 24 bytes stand in place: an event of a real symbol allocates nothing
/// for it.
pub type Symbol = compact_str::CompactString;

/// What a venue sends at once, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    Text(&'a str),
    /// Packed text (HTX) or a format of its own (MEXC spot).
    Binary(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// For venues that send text only, in whichever kind of frame.
    pub fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Binary(bytes) => std::str::from_utf8(bytes).map_err(|_| "a binary frame that is not text".to_owned()),
        }
    }
}

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
    /// A funding rate that comes alone.
    Funding(Box<Funding>),
    OpenInterest {
        symbol: Symbol,
        /// In the instrument's size unit.
        size: Decimal,
        /// In coins, where the venue tells it too.
        coins: Option<Decimal>,
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
    /// What the venue says of its own state.
    Status(Box<Status>),
    Control(Control),
    /// The venue refused something that we asked for.
    Error {
        code: Option<i64>,
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
    /// A funding message that lacks the rate or its own time (OKX of 2022): stored with the receive time.
    FundingOutlook {
        symbol: Symbol,
        rate: Option<Decimal>,
        /// When it is paid.
        due: Option<Nanos>,
        next_rate: Option<Decimal>,
    },
}

/// One trade of the public tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    pub symbol: Symbol,
    /// The venue's id, or its trade sequence: it rises as [`crate::feed::TradeIds`] says of the market. 0 where the venue's
    /// ids do not rise: then `venue_id` tells trades apart, and the feed numbers them.
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
    /// Not pushed as it happened: history that the venue sends at a subscription, or an answer to a request.
    pub backfill: bool,
    pub extra: Option<Box<TradeExtra>>,
}

/// What only some venues add to a trade.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TradeExtra {
    /// The venue's sequence number of the message or of the book, beside the id.
    pub seq: Option<u64>,
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
    pub unit: SizeUnit,
    /// CRC-32 over the top of the book behind this message, where the venue sends one; the session compares it.
    pub checksum: Option<i32>,
    pub ts: Option<Nanos>,
    pub event_ts: Option<Nanos>,
}

/// Best bid and ask as (price, size); `None` is an empty side.
#[derive(Clone, Debug, PartialEq)]
pub struct Bbo {
    pub symbol: Symbol,
    pub bid: Option<(Decimal, Decimal)>,
    pub ask: Option<(Decimal, Decimal)>,
    pub unit: SizeUnit,
    pub seq: Option<u64>,
    pub ts: Option<Nanos>,
    pub event_ts: Option<Nanos>,
}

/// A day's summary and the prices beside it; each field only where the venue sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticker {
    pub symbol: Symbol,
    pub ts: Option<Nanos>,
    pub seq: Option<u64>,
    pub last: Option<Decimal>,
    pub open_24h: Option<Decimal>,
    pub high_24h: Option<Decimal>,
    pub low_24h: Option<Decimal>,
    pub volume_base_24h: Option<Decimal>,
    /// The venue's text of it, where that has more digits than a decimal holds: then the number is rounded.
    pub volume_base_24h_text: Option<String>,
    pub volume_quote_24h: Option<Decimal>,
    /// In the instrument's own unit (Deribit, HTX contracts).
    pub volume_24h: Option<Decimal>,
    pub bid: Option<Decimal>,
    pub bid_size: Option<Decimal>,
    pub ask: Option<Decimal>,
    pub ask_size: Option<Decimal>,
    pub mark: Option<Decimal>,
    pub index: Option<Decimal>,
    pub underlying: Option<Decimal>,
    pub open_interest: Option<Decimal>,
    /// The oracle's price that funding is computed from (Hyperliquid).
    pub oracle: Option<Decimal>,
    pub mid: Option<Decimal>,
    pub prev_day: Option<Decimal>,
    /// Of one funding interval, a plain ratio; positive means longs pay.
    pub funding_rate: Option<Decimal>,
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
    pub volume_base: Option<Decimal>,
    pub volume_quote: Option<Decimal>,
    /// In the instrument's own unit, where the venue counts contracts.
    pub volume: Option<Decimal>,
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

/// A funding rate: of one interval, a plain ratio; positive means longs pay.
#[derive(Clone, Debug, PartialEq)]
pub struct Funding {
    pub symbol: Symbol,
    pub rate: Decimal,
    /// When `rate` is paid.
    pub due: Option<Nanos>,
    /// The estimate for the interval behind it.
    pub next_rate: Option<Decimal>,
    /// When the next payment is, where the venue names it so.
    pub next_due: Option<Nanos>,
    pub ts: Nanos,
}

/// A forced order.
#[derive(Clone, Debug, PartialEq)]
pub struct Liquidation {
    pub symbol: Symbol,
    /// Of the forced order.
    pub side: Side,
    pub price: Decimal,
    pub avg_price: Option<Decimal>,
    pub size: Decimal,
    pub unit: SizeUnit,
    pub filled: Option<Decimal>,
    pub status: Option<String>,
    /// `long` or `short`: the position that was liquidated.
    pub pos_side: Option<String>,
    /// `open` or `close`.
    pub offset: Option<String>,
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
    pub tif: Option<String>,
    /// Absent on market orders where the venue leaves it out.
    pub price: Option<Decimal>,
    pub size: Decimal,
    pub filled: Decimal,
    pub avg_price: Option<Decimal>,
    pub status: String,
    pub exec_type: Option<String>,
    pub reduce_only: Option<bool>,
    pub ts: Nanos,
}

/// A fill of one of our orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    pub symbol: Symbol,
    pub venue_order_id: String,
    pub client_order_id: Option<String>,
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
    /// A request was taken. `id` is what the request carried: an id, or the channel itself.
    Ack { id: String },
    /// The channels that a request subscribed.
    Subscribed { id: String, channels: Vec<String> },
    /// Everything that is subscribed now, in answer to the oldest request.
    Listed { channels: Vec<String> },
    /// The venue is there; nothing to answer.
    Heartbeat,
    /// Must be answered at once with `answer`.
    Ping { answer: String },
    /// The answer to our own ping.
    Pong,
    /// Must be answered at once with a request (Deribit).
    TestRequest,
    /// Messages of this connection were lost: no book on it can be trusted.
    Broken { reason: String },
    /// The server will close the connection soon.
    ServerShutdown,
    /// A request of the client's own (documentation examples).
    Request { method: String },
}
