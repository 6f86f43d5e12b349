//! Trades: an order executes at the first trade at or after its arrival.

use schemas::exec::Liquidity;

use super::{FillModel, Interest, Mode, Outcome, Slice, Want, accepts, rested, triggered};
use crate::config::Rules;
use crate::market::Market;
use crate::venue::Tick;

pub struct NextTrade;

impl FillModel for NextTrade {
    fn id(&self) -> &'static str {
        "next_trade"
    }
    fn about(&self) -> &'static str {
        "Orders execute at the first trade at or after their arrival, limited by its size when configured."
    }
    fn chance(&self, since_ns: i64, _market: &Market, ts_ns: i64, tick: &Tick<'_>) -> bool {
        matches!(tick, Tick::Trade { .. }) && ts_ns >= since_ns
    }
    fn interest(&self, want: &Want, _market: &Market) -> Interest {
        match want.mode {
            Mode::Await { trigger, rising } => Interest::at_trigger(rising, trigger),
            Mode::Rest { limit, .. } => Interest::at_limit(want.side, limit),
            Mode::Take { .. } => Interest::from(want.since_ns),
        }
    }

    fn execute(&self, want: &Want, market: &Market, ts_ns: i64, tick: &Tick<'_>, rules: &Rules) -> Outcome {
        match want.mode {
            Mode::Await { trigger, rising } => Outcome {
                fired: triggered(trigger, rising, want.since_ns, market, ts_ns, tick, rules),
                ..Outcome::default()
            },
            Mode::Rest { limit, queue } => rested(want, limit, queue, ts_ns, tick, rules),
            Mode::Take { limit } => {
                let Tick::Trade { id, price, size, .. } = *tick else { return Outcome::default() };
                if ts_ns < want.since_ns || !accepts(want, limit, price) {
                    return Outcome::default();
                }
                let qty = if rules.partial_by_trade_size { want.qty.min(size) } else { want.qty };
                let why = format!("next trade {id} at {price}");
                Outcome::one(Slice { price, qty, liquidity: Liquidity::Taker, why, ts_ns, level: None })
            }
        }
    }
}
