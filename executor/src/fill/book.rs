//! Books and quotes: an order walks what is shown on the other side, level by level.
//!
//! With a full book (a snapshot and its updates) every level counts, otherwise the best quote alone. What our
//! orders took is gone until the venue tells the level again. A market order that finds too little waits for the
//! next message of the book. Where nothing was ever shown, as on venues without quotes, the next trade fills.

use schemas::Qty;
use schemas::exec::Liquidity;

use super::{FillModel, Interest, Mode, Outcome, Slice, Want, accepts, rested, triggered};
use crate::config::Rules;
use crate::fill::next_trade::NextTrade;
use crate::market::Market;
use crate::venue::Tick;

pub struct BookWalk;

impl BookWalk {
    fn shows(market: &Market) -> bool {
        market.book_known || market.bid.is_some() || market.ask.is_some()
    }

    fn walk(
        want: &Want,
        limit: Option<schemas::Price>,
        market: &Market,
        ts_ns: i64,
        liquidity: Liquidity,
    ) -> Vec<Slice> {
        let mut left = want.qty;
        let mut slices = Vec::new();
        let source = if market.book_known { "book walk level" } else { "quote level" };
        for (level, (price, size)) in market.shown(want.side).enumerate() {
            if left.is_zero() || !accepts(want, limit, price) {
                break;
            }
            let qty = left.min(size);
            left -= qty;
            let why = format!("{source} {} at {price}", level + 1);
            slices.push(Slice { price, qty, liquidity, why, ts_ns, level: Some(price) });
        }
        slices
    }
}

impl FillModel for BookWalk {
    fn id(&self) -> &'static str {
        "book"
    }
    fn about(&self) -> &'static str {
        "Orders walk the shown book, or the best quote, with partial fills."
    }
    fn books(&self) -> bool {
        true
    }
    fn same_tick(&self) -> bool {
        true
    }
    fn chance(&self, since_ns: i64, market: &Market, ts_ns: i64, tick: &Tick<'_>) -> bool {
        if Self::shows(market) { ts_ns >= since_ns } else { NextTrade.chance(since_ns, market, ts_ns, tick) }
    }
    fn interest(&self, want: &Want, market: &Market) -> Interest {
        // A resting order that the shown prices have reached and not filled waits for anything at all.
        if let Mode::Rest { limit, .. } = want.mode
            && market.shown(want.side).next().is_some_and(|(price, _)| accepts(want, Some(limit), price))
        {
            return Interest::ALL;
        }
        NextTrade.interest(want, market)
    }

    fn execute(&self, want: &Want, market: &Market, ts_ns: i64, tick: &Tick<'_>, rules: &Rules) -> Outcome {
        if ts_ns < want.since_ns {
            return Outcome::default();
        }
        match want.mode {
            Mode::Await { trigger, rising } => Outcome {
                fired: triggered(trigger, rising, want.since_ns, market, ts_ns, tick, rules),
                ..Outcome::default()
            },
            Mode::Take { .. } if !Self::shows(market) => NextTrade.execute(want, market, ts_ns, tick, rules),
            Mode::Take { limit } => {
                Outcome { slices: Self::walk(want, limit, market, ts_ns, Liquidity::Taker), ..Outcome::default() }
            }
            Mode::Rest { limit, queue } => {
                let met = rested(want, limit, queue, ts_ns, tick, rules);
                if !met.slices.is_empty() || met.queue.is_some() {
                    return met;
                }
                // The other side came to our price: whoever is shown there has met us first.
                let mut slices = Self::walk(want, Some(limit), market, ts_ns, Liquidity::Maker);
                for slice in &mut slices {
                    slice.why = format!("shown price {} reached limit {limit}", slice.price);
                    slice.price = limit;
                }
                let total: Qty = slices.iter().map(|s| s.qty).sum();
                debug_assert!(total <= want.qty, "Invariant: a walk gives at most what is wanted");
                Outcome { slices, ..Outcome::default() }
            }
        }
    }
}
