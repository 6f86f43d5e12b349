//! What risk says: decisions with their votes, orders, refusals, positions, the account and its state.

use serde::{Deserialize, Serialize};

use crate::core::{Cause, Place};
use crate::num::{Fraction, Notional, Price, Qty, Side};
use crate::signal::Stance;
use crate::subject;
use crate::wire::{Fact, Version};

/// One strategy's vote as the policy counted it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vote {
    pub strategy: String,
    pub side: Stance,
    pub strength: Fraction,
    pub confidence: Fraction,
    /// Weight that the policy gave it, 0..; 1 where weights are off.
    pub weight: Fraction,
    /// Event time of the signal.
    pub ts_ns: i64,
    /// False: too old, cooling down or without weight; shown but not counted.
    pub counted: bool,
    /// Why it was not counted; empty when it was.
    pub note: String,
    /// The signal's place.
    pub cause: Cause,
}

/// A decision on one instrument: what the policy wants held, every vote, and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Intent {
    pub v: Version,
    pub account: String,
    pub venue: String,
    pub symbol: String,
    pub ts_ns: i64,
    pub policy: String,
    pub votes: Vec<Vote>,
    /// The policy's verdict; absent: no opinion (no quorum, a tie, all stale): the position stays as it is.
    pub side: Option<Stance>,
    /// Signed size wanted; equals `held + working` when nothing is to be done.
    pub target: Qty,
    /// Signed size held, from fills.
    pub held: Qty,
    /// Signed size of orders on their way.
    pub working: Qty,
    /// `order`, `refused`, `none`.
    pub outcome: String,
    pub reason: String,
    pub cause: Cause,
}
impl Fact for Intent {
    const KIND: &'static str = "intent";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// How an order is to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    Market,
    /// Needs `limit`.
    Limit,
    /// A market order once the price is at or beyond `trigger` against the position.
    Stop,
    /// A market order once the price is at or beyond `trigger` in the position's favour.
    TakeProfit,
}

/// How long an order lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeInForce {
    /// Until it is filled or cancelled.
    #[default]
    Gtc,
    /// What fills at once; the rest is cancelled.
    Ioc,
    /// All at once or nothing.
    Fok,
}

/// Protective prices of an entry: the executor keeps a stop and a take-profit order for them, reduce-only, that
/// live and die with the position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Protect {
    pub stop_loss: Option<Price>,
    pub take_profit: Option<Price>,
}

/// An order that passed every limit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    pub v: Version,
    pub account: String,
    /// Client order id: [`order_id`] of the input that caused it; the same everywhere, venue included.
    pub id: String,
    pub venue: String,
    pub symbol: String,
    pub side: Side,
    pub kind: OrderKind,
    /// Always positive; in the instrument's size unit.
    pub qty: Qty,
    pub limit: Option<Price>,
    pub trigger: Option<Price>,
    pub reduce_only: bool,
    #[serde(default)]
    pub post_only: bool,
    #[serde(default)]
    pub time_in_force: TimeInForce,
    #[serde(default)]
    pub protect: Option<Protect>,
    /// The entry order that this one protects.
    #[serde(default)]
    pub parent: Option<String>,
    /// Strategies whose counted votes agree with it, in registry order.
    #[serde(default)]
    pub strategies: Vec<String>,
    /// Event time of the decision.
    pub ts_ns: i64,
    pub reason: String,
    pub cause: Cause,
}
impl Fact for Order {
    const KIND: &'static str = "order";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// Takes a working order back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cancel {
    pub v: Version,
    pub account: String,
    /// The order to cancel.
    pub id: String,
    pub venue: String,
    pub symbol: String,
    pub ts_ns: i64,
    pub reason: String,
    pub cause: Cause,
}
impl Fact for Cancel {
    const KIND: &'static str = "cancel";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// An order that was not given: the limit, what it measured and its bound.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub v: Version,
    pub account: String,
    pub venue: String,
    pub symbol: String,
    pub ts_ns: i64,
    /// Stable reason code: the limit's id, such as `stale_mark`.
    pub limit: String,
    /// What was measured, decimal text in the limit's unit.
    pub number: String,
    /// The bound that it broke, decimal text in the limit's unit.
    pub bound: String,
    pub side: Side,
    pub qty: Qty,
    pub reduce_only: bool,
    pub reason: String,
    pub cause: Cause,
}
impl Fact for Refusal {
    const KIND: &'static str = "refusal";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// The position after a fill (or funding payment); nothing else moves it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PositionFact {
    pub v: Version,
    pub account: String,
    pub venue: String,
    pub symbol: String,
    pub ts_ns: i64,
    /// Signed: long positive, short negative.
    pub held: Qty,
    /// Average entry price; absent when flat.
    pub entry: Option<Price>,
    /// Event time at which the position left flat; absent when flat.
    pub since_ns: Option<i64>,
    /// Of this instrument since the account's start, fees and funding not included.
    pub realised: Notional,
    /// Paid since the account's start; positive is a cost.
    pub fees: Notional,
    /// Received since the account's start; negative was paid.
    pub funding: Notional,
    pub mark: Option<Price>,
    /// Against `mark`; absent without a mark.
    pub unrealised: Option<Notional>,
    pub cause: Cause,
}
impl Fact for PositionFact {
    const KIND: &'static str = "position";
    fn subject(&self) -> String {
        subject::desk(Self::KIND, &self.account, &self.venue, &self.symbol)
    }
}

/// Whether an account may open, only reduce, or do nothing but close what is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TradingState {
    #[default]
    Active,
    /// Closes only.
    Reducing,
    /// No strategy order at all; resting entries are cancelled; closes by operator or emergency only.
    Halted,
}

/// The account as a whole, at every fill and at every full minute of the clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AccountFact {
    pub v: Version,
    pub account: String,
    pub ts_ns: i64,
    pub mode: String,
    /// Money without open positions.
    pub cash: Notional,
    /// Cash plus the worth of open positions at their marks.
    pub equity: Notional,
    pub unrealised: Notional,
    pub realised: Notional,
    pub fees: Notional,
    pub funding: Notional,
    /// Equity at 00:00 UTC of this day.
    pub day_start_equity: Notional,
    /// Highest equity so far.
    pub peak_equity: Notional,
    /// Share of the peak that is lost now, 0..1.
    pub drawdown: Fraction,
    /// Sum of |position * mark|.
    pub gross: Notional,
    /// Sum of position * mark, signed.
    pub net: Notional,
    pub state: TradingState,
    pub cause: Cause,
}
impl Fact for AccountFact {
    const KIND: &'static str = "account";
    fn subject(&self) -> String {
        subject::account(Self::KIND, &self.account)
    }
}

/// A change of the account's trading state. Mirrored in KV `cfg` as `desk.<account>`; operators write it there,
/// and the desk stream hears it, so that risk and executor obey the same recorded fact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeskState {
    pub v: Version,
    pub account: String,
    pub state: TradingState,
    /// Close all open positions as well.
    #[serde(default)]
    pub flatten: bool,
    /// `operator`, or the limit's code (`drawdown`, `daily_loss`).
    pub by: String,
    pub reason: String,
    pub ts_ns: i64,
    /// Absent when an operator wrote it.
    #[serde(default)]
    pub cause: Option<Cause>,
}
impl Fact for DeskState {
    const KIND: &'static str = "state";
    fn subject(&self) -> String {
        subject::account(Self::KIND, &self.account)
    }
}

/// Client order id of the `n`-th order caused by the input at `place`: 128-bit FNV-1a over stream, sequence and
/// n, in 26 letters of RFC 4648 base32 (lower case), which every venue accepts as a client id.
pub fn order_id(place: &Place, n: u16) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let bytes = place.stream.bytes().chain([0]).chain(place.seq.to_be_bytes()).chain(n.to_be_bytes());
    for byte in bytes {
        hash = (hash ^ byte as u128).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    (0..26).map(|i| b"abcdefghijklmnopqrstuvwxyz234567"[((hash >> (i * 5)) & 31) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_ids_of_neighbouring_inputs_differ_and_are_stable() {
        let id = order_id(&Place::new("DESK_main", 7), 0);
        assert_eq!(id.len(), 26);
        assert_eq!(id, order_id(&Place::new("DESK_main", 7), 0));
        assert_ne!(id, order_id(&Place::new("DESK_main", 7), 1));
        assert_ne!(id, order_id(&Place::new("DESK_main", 8), 0));
        assert_ne!(id, order_id(&Place::new("DESK_main2", 7), 0));
    }
}
