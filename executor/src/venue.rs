//! What the executor asks of a venue, simulated or real.
//!
//! The core stores `Sending` first and calls [`ExecVenue::place`] then. The fill engine answers within the call; a
//! live venue answers later, through facts that its shell records, and its `place` only notes what is under way.
//! Whatever comes back is a [`Report`], and the core alone turns reports into facts.

use std::borrow::Cow;

use schemas::desk::Order;
use schemas::exec::{DoneState, Liquidity, LiveReport};
use schemas::market::Candle;
use schemas::raw::{BookUpdate, TickerUpdate, Trades};
use schemas::{Instrument, Notional, Price, Qty, Scale, Side, WireError};

/// What a venue says of one of our orders, or of what we hold there.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    Acked {
        id: String,
        venue_order_id: String,
        ts_ns: i64,
    },
    Filled {
        id: String,
        price: Price,
        /// Always positive.
        qty: Qty,
        /// Positive is a cost.
        fee: Notional,
        liquidity: Liquidity,
        why: String,
        ts_ns: i64,
    },
    Rejected {
        id: String,
        code: Cow<'static, str>,
        reason: String,
        ts_ns: i64,
    },
    /// A live venue is about to be asked to take the order back.
    Cancelling {
        id: String,
        reason: String,
        ts_ns: i64,
    },
    /// Cancelled or expired; `Filled` follows from the fills.
    Ended {
        id: String,
        state: DoneState,
        reason: String,
        ts_ns: i64,
    },
    /// The venue closed what was held, because too little of its margin was left.
    Liquidated {
        venue: String,
        symbol: String,
        /// Of the closing execution.
        side: Side,
        price: Price,
        /// Always positive.
        qty: Qty,
        /// Positive is a cost.
        fee: Notional,
        why: String,
        ts_ns: i64,
    },
    Funding {
        venue: String,
        symbol: String,
        mark: Price,
        rate: Price,
        /// What we received; negative was paid.
        amount: Notional,
        ts_ns: i64,
    },
}

/// One piece of market data of one instrument.
#[derive(Clone, Copy, Debug)]
pub enum Tick<'a> {
    Trade {
        id: u64,
        price: Price,
        size: Qty,
        /// The taker's side.
        side: Side,
    },
    Quote {
        bid: Option<(Price, Qty)>,
        ask: Option<(Price, Qty)>,
    },
    Book(&'a BookUpdate, Scale),
    Ticker(&'a TickerUpdate),
    /// Closed, or forming (`ClosedBy::Open`): of a forming one only the open is used.
    Candle(&'a Candle),
    /// Nothing happened up to this time.
    Clock,
    /// The book is no longer known.
    BookGap,
}

/// Where our orders go.
pub trait ExecVenue {
    /// An instrument that may be traded from now on, or changed.
    fn instrument(&mut self, instrument: &Instrument);

    /// What a live venue said, as its caller stored it. A simulated one hears none.
    fn live(&mut self, _report: &LiveReport, _out: &mut Vec<Report>) {}

    /// Whether `place` can take an order of this instrument; error: (code, reason) for the `Reject`.
    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)>;

    /// Takes an order whose `Sending` has been said. `held` is what our fills have made of the position.
    fn place(&mut self, order: &Order, held: Qty, out: &mut Vec<Report>);

    /// Asks to take an order back, at event time `ts_ns`; unknown orders are passed over.
    fn cancel(&mut self, order: &Order, ts_ns: i64, reason: &str, out: &mut Vec<Report>);

    /// True: a tick of this instrument can lead to a report, so each one must be told. False: the newest of a pack
    /// is enough.
    fn watches(&self, venue: &str, symbol: &str, held: Qty) -> bool;

    /// Index of the first trade of `pack`, from `from` on, that can lead to a report; the length of the pack when
    /// there is none. What it passes over is told by [`ExecVenue::pass`].
    fn first_told(&self, _pack: &Trades, from: usize, _held: Qty) -> usize {
        from
    }

    /// Trades up to event time `ts_ns` were passed over.
    fn pass(&mut self, _venue: &str, _symbol: &str, _ts_ns: i64) {}

    /// One tick at event time `ts_ns`.
    fn tick(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, held: Qty, out: &mut Vec<Report>);

    /// Instruments of a venue that wait for time to pass (orders on their way, funding due).
    fn waiting(&self, venue: &str) -> Vec<String>;

    /// Its whole state, for a checkpoint.
    fn save(&self) -> Vec<u8>;

    /// Puts back what `save` gave.
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError>;
}
