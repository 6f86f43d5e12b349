//! Fill models: when, at what price and how much of an order executes. One file and one line in [`MODELS`] each.
//!
//! A model sees one order, the market and one tick, and changes nothing; the engine books what it answers. Rules
//! that all models share:
//! * an order executes on data at or after its arrival (decision time plus latency), never on earlier data;
//! * a resting limit order is a maker. A print strictly through its price fills it whole at its own price. A print
//!   at its price first uses up the size that stood there when the order arrived (`queue`), then ours;
//! * every fill says why.

pub mod book;
pub mod next_open;
pub mod next_trade;

use schemas::exec::Liquidity;
use schemas::{Price, Qty, Side};

use crate::config::Rules;
use crate::market::{Market, better, within};
use crate::venue::Tick;

/// All models; a test walks them.
pub const MODELS: &[&dyn FillModel] = &[&next_open::NextOpen, &next_trade::NextTrade, &book::BookWalk];

/// The model of this name.
pub fn model(id: &str) -> Option<&'static dyn FillModel> {
    MODELS.iter().copied().find(|m| m.id() == id)
}

/// What an order wants of the market now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// Whatever is there, up to a limit.
    Take { limit: Option<Price> },
    /// To be found at its price, behind `queue`.
    Rest { limit: Price, queue: Option<Qty> },
    /// The price to come to `trigger`: at or above when `rising`, at or below otherwise.
    Await { trigger: Price, rising: bool },
}

/// One order as a model sees it.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub side: Side,
    /// The most that may execute: what is left, clipped to the position for reduce-only orders.
    pub qty: Qty,
    pub mode: Mode,
    /// Nothing before this event time counts.
    pub since_ns: i64,
}

/// A part of an order that executes.
#[derive(Clone, PartialEq, Debug)]
pub struct Slice {
    pub price: Price,
    pub qty: Qty,
    pub liquidity: Liquidity,
    pub why: String,
    pub ts_ns: i64,
    /// The shown level that it used up, which our next order does not find again.
    pub level: Option<Price>,
}

/// A model's answer.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    pub slices: Vec<Slice>,
    /// The queue before us behind this tick, when it changed.
    pub queue: Option<Qty>,
    /// The trigger fired, and on what.
    pub fired: Option<String>,
}

impl Outcome {
    fn one(slice: Slice) -> Self {
        Self { slices: vec![slice], ..Self::default() }
    }
}

/// Which of the trades to come can matter to an order: those from an instant on, and those at or beyond a price.
/// Naming too many costs time; naming too few would change what is said.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interest {
    pub from_ns: i64,
    pub at_or_below: Option<Price>,
    pub at_or_above: Option<Price>,
}

impl Interest {
    pub const NONE: Self = Self { from_ns: i64::MAX, at_or_below: None, at_or_above: None };
    pub const ALL: Self = Self { from_ns: i64::MIN, at_or_below: None, at_or_above: None };

    pub fn from(from_ns: i64) -> Self {
        Self { from_ns, ..Self::NONE }
    }
    /// Trades at the price or on the side where `side` would rather buy or sell.
    pub fn at_limit(side: Side, limit: Price) -> Self {
        match side {
            Side::Buy => Self { at_or_below: Some(limit), ..Self::NONE },
            Side::Sell => Self { at_or_above: Some(limit), ..Self::NONE },
        }
    }
    pub fn at_trigger(rising: bool, trigger: Price) -> Self {
        if rising {
            Self { at_or_above: Some(trigger), ..Self::NONE }
        } else {
            Self { at_or_below: Some(trigger), ..Self::NONE }
        }
    }
    /// What matters to either.
    pub fn or(self, other: Self) -> Self {
        let both = |pick: fn(Price, Price) -> Price, a: Option<Price>, b: Option<Price>| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (a, b) => a.or(b),
        };
        Self {
            from_ns: self.from_ns.min(other.from_ns),
            at_or_below: both(Price::max, self.at_or_below, other.at_or_below),
            at_or_above: both(Price::min, self.at_or_above, other.at_or_above),
        }
    }
}

/// When, at what price and how much of an order executes.
pub trait FillModel: Sync {
    /// Its name in the configuration.
    fn id(&self) -> &'static str;
    /// One sentence for `--help` and reports.
    fn about(&self) -> &'static str;
    /// It walks order books, so the engine keeps them.
    fn books(&self) -> bool {
        false
    }
    /// An order whose trigger fires may execute on the same tick.
    fn same_tick(&self) -> bool {
        false
    }
    /// This tick is a chance to execute for an order that waits since `since_ns`; immediate-or-cancel orders have
    /// one.
    fn chance(&self, since_ns: i64, market: &Market, ts_ns: i64, tick: &Tick<'_>) -> bool;
    /// Trades that can change anything for an order that the model was asked about just now. A model that does not
    /// say sees every one.
    fn interest(&self, _want: &Want, _market: &Market) -> Interest {
        Interest::ALL
    }
    /// What executes on this tick; the market has heard it already.
    fn execute(&self, want: &Want, market: &Market, ts_ns: i64, tick: &Tick<'_>, rules: &Rules) -> Outcome;
}

/// The trigger by trade or mark price, for models that see ticks.
fn triggered(
    trigger: Price,
    rising: bool,
    since_ns: i64,
    market: &Market,
    ts_ns: i64,
    tick: &Tick<'_>,
    rules: &Rules,
) -> Option<String> {
    if ts_ns < since_ns {
        return None;
    }
    let by_mark = rules.trigger_on_mark && market.mark.is_some();
    let (price, source) = match tick {
        Tick::Trade { price, .. } if !by_mark => (*price, "trade"),
        Tick::Ticker(ticker) if by_mark => (ticker.mark?, "mark"),
        _ => return None,
    };
    let fires = if rising { price >= trigger } else { price <= trigger };
    fires.then(|| format!("{source} {price} reached trigger {trigger}"))
}

/// A resting limit order met by a trade.
fn rested(want: &Want, limit: Price, queue: Option<Qty>, ts_ns: i64, tick: &Tick<'_>, rules: &Rules) -> Outcome {
    let Tick::Trade { id, price, size, side } = *tick else { return Outcome::default() };
    if ts_ns < want.since_ns {
        return Outcome::default();
    }
    let slice =
        |qty: Qty, why: String| Slice { price: limit, qty, liquidity: Liquidity::Maker, why, ts_ns, level: None };
    let capped = |room: Qty| if rules.partial_by_trade_size { want.qty.min(room) } else { want.qty };
    if better(want.side, limit, price) {
        return Outcome::one(slice(capped(size), format!("trade {id} at {price} printed through limit {limit}")));
    }
    // A trade at our price that we could have been in: its taker is on the other side.
    let (true, true, Some(ahead)) = (price == limit, side != want.side, queue) else { return Outcome::default() };
    if size <= ahead {
        return Outcome { queue: Some(ahead - size), ..Outcome::default() };
    }
    let why = format!("trade {id} at limit {limit} passed the queue of {ahead}");
    Outcome { slices: vec![slice(capped(size - ahead), why)], queue: Some(Qty::ZERO), fired: None }
}

/// The limit, if there is one, accepts this price.
fn accepts(want: &Want, limit: Option<Price>, price: Price) -> bool {
    limit.is_none_or(|limit| within(want.side, price, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_its_own_name_and_says_what_it_does() {
        for (i, m) in MODELS.iter().enumerate() {
            assert!(MODELS[..i].iter().all(|other| other.id() != m.id()), "{}", m.id());
            assert!(m.id().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", m.id());
            assert!(m.about().ends_with('.'), "{}", m.id());
            assert_eq!(model(m.id()).map(|found| found.id()), Some(m.id()));
        }
        assert!(model("oracle").is_none());
    }
}
