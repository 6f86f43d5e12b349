//! What an order must not break: a limit is a file in `limit/`, a line in [`LIMITS`] and a table in `config.toml`.
//!
//! Limits are asked in the order of the registry and the first broken one refuses: the earlier ones (is there an
//! instrument, a fresh mark?) make the numbers of the later ones meaningful. A refusal is a fact with the limit's
//! id, what it measured and its bound.
//!
//! Invariant R-5: an order that only reduces what is held is asked of those limits alone whose `applies_to_closes`
//! says so, and no configuration of any limit stops a close by market of a held position while the account is
//! ACTIVE or REDUCING, nor an operator's or an emergency close at any time.

use rust_decimal::Decimal;
use schemas::config::ConfigError;
use schemas::desk::{Order, TradingState};
use schemas::{Instrument, Notional, Price, Qty, Side};
use serde::Deserialize;

use crate::mark::Mark;
use crate::position::Contract;

pub mod daily_loss;
pub mod drawdown;
pub mod duplicate_intent;
pub mod gap_bars;
pub mod gross_exposure;
pub mod instrument;
pub mod leverage;
pub mod market_data_gap;
pub mod max_position_share;
pub mod min_lot;
pub mod net_exposure;
pub mod order_notional_max;
pub mod order_notional_min;
pub mod order_rate;
pub mod price_collar;
pub mod reduce_only;
pub mod spot_short;
pub mod stale_mark;
pub mod stale_signal;
pub mod stop_distance;
pub mod tick;
pub mod trading_state;

/// All limits, in the order in which they are asked.
pub const LIMITS: &[&dyn Limit] = &[
    &trading_state::TradingStateLimit,
    &instrument::InstrumentLimit,
    &reduce_only::ReduceOnly,
    &spot_short::SpotShort,
    &stale_mark::StaleMark,
    &stale_signal::StaleSignal,
    &market_data_gap::MarketDataGap,
    &gap_bars::GapBars,
    &duplicate_intent::DuplicateIntent,
    &min_lot::MinLot,
    &tick::Tick,
    &order_notional_min::OrderNotionalMin,
    &order_notional_max::OrderNotionalMax,
    &price_collar::PriceCollar,
    &max_position_share::MaxPositionShare,
    &gross_exposure::GrossExposure,
    &net_exposure::NetExposure,
    &leverage::Leverage,
    &order_rate::OrderRate,
    &daily_loss::DailyLoss,
    &drawdown::Drawdown,
    &stop_distance::StopDistance,
];

/// The bounds of all limits, one table each, named by the limit's id.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub trading_state: Switch,
    pub instrument: Switch,
    pub reduce_only: Switch,
    pub spot_short: Switch,
    pub stale_mark: stale_mark::Bounds,
    pub stale_signal: stale_signal::Bounds,
    pub market_data_gap: Switch,
    pub gap_bars: gap_bars::Bounds,
    pub duplicate_intent: Switch,
    pub min_lot: Switch,
    pub tick: Switch,
    pub order_notional_min: order_notional_min::Bounds,
    pub order_notional_max: order_notional_max::Bounds,
    pub price_collar: price_collar::Bounds,
    pub max_position_share: max_position_share::Bounds,
    pub gross_exposure: gross_exposure::Bounds,
    pub net_exposure: net_exposure::Bounds,
    pub leverage: leverage::Bounds,
    pub order_rate: order_rate::Bounds,
    pub daily_loss: daily_loss::Bounds,
    pub drawdown: drawdown::Bounds,
    pub stop_distance: stop_distance::Bounds,
}

impl Limits {
    /// Error: the key and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        for limit in LIMITS {
            limit.check_config(self)?;
        }
        Ok(())
    }
}

/// The table of a limit without a bound.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    pub on: bool,
}

/// One thing that an order must not break.
pub trait Limit: Sync {
    /// Stable reason code, and the name of its table in the configuration.
    fn id(&self) -> &'static str;
    fn on(&self, limits: &Limits) -> bool;
    /// False: an order that only reduces what is held is not asked.
    fn applies_to_closes(&self) -> bool {
        false
    }
    /// Error: its table means nothing.
    fn check_config(&self, _limits: &Limits) -> Result<(), ConfigError> {
        Ok(())
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken>;
}

/// What a limit measured and what it allows, decimal text in the limit's unit.
#[derive(Clone, PartialEq, Debug)]
pub struct Broken {
    pub number: String,
    pub bound: String,
    /// For people.
    pub reason: String,
}

impl Broken {
    pub fn new(number: impl ToString, bound: impl ToString, reason: impl Into<String>) -> Self {
        Self { number: number.to_string(), bound: bound.to_string(), reason: reason.into() }
    }
}

/// On whose behalf an order is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Strategy,
    Operator,
    Emergency,
}

/// An order and all that limits may look at. Sizes are signed in the instrument's unit, money is the account's.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// As it would be said, without its id.
    pub order: Order,
    pub by: By,
    pub trading: TradingState,
    pub now_ns: i64,
    pub instrument: Option<Instrument>,
    pub contract: Contract,
    pub mark: Option<Mark>,
    /// What the order would trade at now: its limit, the best opposite price or the last trade.
    pub expected: Option<Price>,
    pub held: Qty,
    /// Of our orders on their way.
    pub working: Qty,
    pub equity: Notional,
    pub day_start_equity: Notional,
    pub peak_equity: Notional,
    /// Held and working of all other instruments at their marks: added up, and with their signs.
    pub gross_others: Notional,
    pub net_others: Notional,
    /// Orders that opened within the window of `order_rate`.
    pub orders_in_window: usize,
    /// The signal that asks; `None` where none does.
    pub signal_ts_ns: Option<i64>,
    /// Missing trades that touch the candle of the signal or last still: `(from, to)` in event time.
    pub gap: Option<(i64, Option<i64>)>,
    /// Bars that were not seen whole behind the votes that agree: of the one with the most.
    pub gap_bars: u32,
    /// The same votes have led to an order before.
    pub duplicate: bool,
}

impl Asked {
    /// The order's size with the sign of its side.
    pub fn delta(&self) -> Qty {
        match self.order.side {
            Side::Buy => self.order.qty,
            Side::Sell => -self.order.qty,
        }
    }
    /// What would be held with all that is on its way.
    pub fn after(&self) -> Qty {
        self.held + self.working + self.delta()
    }
    /// The order at the mark, or at its own price where there is none; positive.
    pub fn notional(&self) -> Notional {
        let price = self.mark.map(|mark| mark.price).or(self.expected).unwrap_or_default();
        self.contract.notional(self.order.qty, price).abs()
    }
    /// This instrument's position behind the order at the mark; signed.
    pub fn exposure_after(&self) -> Notional {
        let price = self.mark.map(|mark| mark.price).or(self.expected).unwrap_or_default();
        self.contract.notional(self.after(), price)
    }
    /// The order closes and does nothing else.
    pub fn is_close(&self) -> bool {
        self.order.reduce_only
    }
    /// `part` as a share of equity; error: there is none left to measure with.
    fn share_of_equity(&self, part: Notional, bound: Decimal, what: &str) -> Result<(), Broken> {
        if self.equity <= Notional::ZERO {
            return Err(Broken::new("none", bound, format!("{what} of an equity of {}", self.equity)));
        }
        // Compared as products: a division would round.
        if part.get() <= bound * self.equity.get() {
            return Ok(());
        }
        let share = part.get().checked_div(self.equity.get()).unwrap_or(Decimal::MAX).round_dp(6).normalize();
        Err(Broken::new(share, bound, format!("{what} {} of equity {}", money(part), money(self.equity))))
    }
}

/// To the cent, for people.
fn money(n: Notional) -> Decimal {
    n.get().round_dp(2).normalize()
}

/// Every limit that is on and concerns the order, in the order of the registry.
fn concerned<'a>(asked: &'a Asked, limits: &'a Limits) -> impl Iterator<Item = &'static dyn Limit> + 'a {
    LIMITS.iter().copied().filter(|limit| limit.on(limits) && (limit.applies_to_closes() || !asked.is_close()))
}

/// The first limit that the order breaks.
pub fn first_broken(asked: &Asked, limits: &Limits) -> Option<(&'static str, Broken)> {
    concerned(asked, limits).find_map(|limit| limit.check(asked, limits).err().map(|broken| (limit.id(), broken)))
}

fn always_on(on: bool, id: &str) -> Result<(), ConfigError> {
    if on { Ok(()) } else { Err(ConfigError::value(&format!("risk.limits.{id}.on"), "cannot be off")) }
}

fn positive(value: Decimal, id: &str, key: &str) -> Result<(), ConfigError> {
    if value > Decimal::ZERO {
        return Ok(());
    }
    Err(ConfigError::value(&format!("risk.limits.{id}.{key}"), "must be above 0"))
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
