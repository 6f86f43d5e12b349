//! What the executor says: the journal of every order. End states are absorbing: behind `Done` or `Reject`
//! nothing more is said of an order.

use serde::{Deserialize, Serialize};

use crate::core::Cause;
use crate::desk::Order;
use crate::num::{Notional, Price, Qty, Side};
use crate::subject;
use crate::wire::{Fact, Version};

/// Stored before the venue hears of an order; protective orders of the executor's own appear here first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sending {
    pub v: Version,
    pub order: Order,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Sending {
    const KIND: &'static str = "sending";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.order.account, &self.order.venue, &self.order.symbol)
    }
}

/// Stored before a live venue hears that an order is taken back; what became of it follows as `live` facts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cancelling {
    pub v: Version,
    pub account: String,
    /// The order's client id.
    pub id: String,
    pub venue: String,
    pub symbol: String,
    pub reason: String,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Cancelling {
    const KIND: &'static str = "cancelling";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// The venue took the order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ack {
    pub v: Version,
    pub account: String,
    pub id: String,
    pub venue: String,
    pub symbol: String,
    /// The venue's own order id; the client id in simulation.
    pub venue_order_id: String,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Ack {
    const KIND: &'static str = "ack";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// Whether an order took liquidity or gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liquidity {
    Maker,
    Taker,
}

/// A (partial) execution of one of our orders.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Fill {
    pub v: Version,
    pub account: String,
    /// The order's client id.
    pub id: String,
    /// 1 for the order's first fill; (id, n) is unique.
    pub n: u32,
    pub venue: String,
    pub symbol: String,
    pub side: Side,
    pub price: Price,
    /// Always positive.
    pub qty: Qty,
    /// In the account's currency; positive is a cost, negative a rebate.
    pub fee: Notional,
    pub liquidity: Liquidity,
    pub reduce_only: bool,
    /// What is left of the order behind this fill.
    pub left: Qty,
    /// The fill model's account of itself: `next trade 123 at 60000.1`, `book walk level 2`.
    pub why: String,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Fill {
    const KIND: &'static str = "fill";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// The order was not taken: by the venue, or by the executor's own check of the trading state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reject {
    pub v: Version,
    pub account: String,
    pub id: String,
    pub venue: String,
    pub symbol: String,
    /// Stable code: `halted`, `reduce_only`, `no_instrument`, `post_only`, ...
    pub code: String,
    pub reason: String,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Reject {
    const KIND: &'static str = "reject";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// How an accepted order ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoneState {
    Filled,
    Cancelled,
    Expired,
}

/// An accepted order ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Done {
    pub v: Version,
    pub account: String,
    pub id: String,
    pub venue: String,
    pub symbol: String,
    pub state: DoneState,
    /// Filled in all.
    pub filled: Qty,
    pub reason: String,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Done {
    const KIND: &'static str = "done";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// A funding payment on a held perpetual.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Funding {
    pub v: Version,
    pub account: String,
    pub venue: String,
    pub symbol: String,
    pub held: Qty,
    pub mark: Price,
    /// Plain ratio of one interval; positive means longs pay.
    pub rate: Price,
    /// What the account received; negative was paid.
    pub amount: Notional,
    pub ts_ns: i64,
    pub cause: Cause,
}
impl Fact for Funding {
    const KIND: &'static str = "funding";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// What a live venue did with one of our orders, as its caller heard it; each is stored before anything is made of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LiveReport {
    pub v: Version,
    pub account: String,
    /// The order's client id.
    pub id: String,
    pub venue: String,
    pub symbol: String,
    pub what: LiveWhat,
    /// When it happened by the venue's clock, in nanoseconds since 1970.
    pub ts_ns: i64,
    /// When the caller heard of it by its machine's clock.
    pub recv_ns: i64,
    /// The order's `sending`.
    pub cause: Cause,
}
impl Fact for LiveReport {
    const KIND: &'static str = "live";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// See [`LiveReport`]. Of one order: any number of `Attempt`, then `Acked`, `Filled` and `Ended`, or `Rejected`, or
/// `Ended` alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveWhat {
    /// Stored before the order goes out: signed at `timestamp_ms` by the venue's clock, and refused by the venue when it
    /// arrives more than `recv_window_ms` later. Until then nobody knows whether the venue has it.
    Attempt {
        timestamp_ms: i64,
        recv_window_ms: u32,
    },
    Acked {
        venue_order_id: String,
    },
    Filled {
        /// The venue's; unique within the order.
        trade_id: String,
        price: Price,
        /// Always positive.
        qty: Qty,
        /// In `fee_asset`; positive is a cost.
        fee: Notional,
        fee_asset: String,
        liquidity: Liquidity,
    },
    /// Not taken, for good.
    Rejected {
        code: String,
        reason: String,
    },
    /// Cancelled or expired; all its fills stand before it.
    Ended {
        state: DoneState,
        reason: String,
    },
}
