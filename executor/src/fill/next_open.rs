//! Candles: what was decided by a candle's close executes at the next candle's open.
//!
//! Inside a candle only its high and low are known, not their order. Stops are therefore asked before
//! take-profits (the engine's order), a trigger inside the range executes at the trigger price, and a candle that
//! opens beyond it executes at its open.

use schemas::exec::Liquidity;
use schemas::market::ClosedBy;

use super::{FillModel, Mode, Outcome, Slice, Want, accepts};
use crate::config::Rules;
use crate::market::{Market, better, within};
use crate::venue::Tick;

pub struct NextOpen;

impl FillModel for NextOpen {
    fn id(&self) -> &'static str {
        "next_open"
    }
    fn about(&self) -> &'static str {
        "Orders execute at the open of the first candle that opens at or after their arrival."
    }
    fn chance(&self, since_ns: i64, market: &Market, _ts_ns: i64, _tick: &Tick<'_>) -> bool {
        market.candle.is_some_and(|(open_ns, _)| open_ns >= since_ns)
    }

    fn execute(&self, want: &Want, market: &Market, _ts_ns: i64, tick: &Tick<'_>, rules: &Rules) -> Outcome {
        let Some((open_ns, open)) = market.candle.filter(|(open_ns, _)| *open_ns >= want.since_ns) else {
            return Outcome::default();
        };
        let at_open =
            |liquidity, why: String| Slice { price: open, qty: want.qty, liquidity, why, ts_ns: open_ns, level: None };
        // The range of a forming candle is not known yet.
        let range = match tick {
            Tick::Candle(candle) if candle.closed_by != ClosedBy::Open => Some(*candle),
            _ => None,
        };
        match want.mode {
            Mode::Take { limit } if accepts(want, limit, open) => {
                Outcome::one(at_open(Liquidity::Taker, format!("next open {open}")))
            }
            Mode::Take { .. } => Outcome::default(),
            Mode::Rest { limit, .. } if within(want.side, open, limit) => {
                Outcome::one(at_open(Liquidity::Taker, format!("open {open} within limit {limit}")))
            }
            Mode::Rest { limit, queue } => {
                let Some(candle) = range else { return Outcome::default() };
                let worst = if want.side == schemas::Side::Buy { candle.low } else { candle.high };
                let front = queue == Some(schemas::Qty::ZERO) && rules.queue_front;
                if better(want.side, limit, worst) || (front && worst == limit) {
                    let why = format!("candle traded to {worst}, limit {limit}");
                    return Outcome::one(Slice {
                        price: limit,
                        qty: want.qty,
                        liquidity: Liquidity::Maker,
                        why,
                        ts_ns: candle.close_ns,
                        level: None,
                    });
                }
                Outcome::default()
            }
            Mode::Await { trigger, rising } => {
                let beyond = |price| if rising { price >= trigger } else { price <= trigger };
                if beyond(open) {
                    return Outcome::one(at_open(Liquidity::Taker, format!("open {open} beyond trigger {trigger}")));
                }
                let Some(candle) = range else { return Outcome::default() };
                let extreme = if rising { candle.high } else { candle.low };
                if !beyond(extreme) {
                    return Outcome::default();
                }
                let why = format!("candle traded to {extreme}, trigger {trigger}");
                Outcome::one(Slice {
                    price: trigger,
                    qty: want.qty,
                    liquidity: Liquidity::Taker,
                    why,
                    ts_ns: candle.close_ns,
                    level: None,
                })
            }
        }
    }
}
