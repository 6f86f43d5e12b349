//! What became of the trades that strategies' votes opened: weights and cool-downs.
//!
//! A trade is a position from flat to flat. Its result, net of fees and with funding, divided by the most that was
//! paid for it, counts in full for every strategy whose counted vote agreed with an order that opened or grew it.

use std::collections::{BTreeMap, VecDeque};

use rust_decimal::Decimal;
use schemas::Fraction;
use serde::{Deserialize, Serialize};

use crate::config::{CoolDown, Weights};
use crate::position::ClosedTrade;

/// Track records by strategy.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Records(BTreeMap<String, Record>);

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Returns of the last closed trades, oldest first, 12 digits.
    returns: VecDeque<Decimal>,
    losses_in_row: u32,
    cool_until_ns: Option<i64>,
    newest_ns: i64,
}

impl Records {
    /// Beyond `strategies_max` the record that was not touched for longest makes room.
    pub fn closed(
        &mut self,
        strategies: &[String],
        trade: &ClosedTrade,
        cool: &CoolDown,
        weights: &Weights,
        strategies_max: usize,
    ) {
        let earned = trade.result.get().checked_div(trade.notional.get()).unwrap_or_default().round_dp(12);
        for strategy in strategies {
            if !self.0.contains_key(strategy) && self.0.len() >= strategies_max {
                let oldest = self.0.iter().min_by_key(|(_, record)| record.newest_ns).map(|(name, _)| name.clone());
                oldest.map(|name| self.0.remove(&name));
            }
            let record = self.0.entry(strategy.clone()).or_default();
            record.newest_ns = trade.until_ns;
            record.returns.push_back(earned);
            while record.returns.len() > weights.trades_max {
                record.returns.pop_front();
            }
            if trade.result.get() >= Decimal::ZERO {
                record.losses_in_row = 0;
                continue;
            }
            record.losses_in_row += 1;
            if cool.losses_in_row > 0 && record.losses_in_row >= cool.losses_in_row {
                record.losses_in_row = 0;
                record.cool_until_ns = Some(trade.until_ns.saturating_add(i64::from(cool.pause_ms) * 1_000_000));
            }
        }
    }

    /// Event time until which the strategy may not open, while it has not come.
    pub fn cooling_until(&self, strategy: &str, now_ns: i64) -> Option<i64> {
        self.0.get(strategy)?.cool_until_ns.filter(|until| now_ns < *until)
    }

    /// Fixed factor times `(gains + prior) / (gains + losses + 2 * prior)`; within 0..=1, 12 digits.
    pub fn weight(&self, strategy: &str, config: &Weights) -> Fraction {
        let fixed = config.fixed.get(strategy).copied().unwrap_or(Fraction::ONE);
        if !config.on {
            return fixed;
        }
        let (mut gains, mut losses) = (config.prior.0, config.prior.0);
        for earned in self.0.get(strategy).into_iter().flat_map(|record| &record.returns) {
            if *earned >= Decimal::ZERO { gains += earned } else { losses -= earned }
        }
        let share = gains.checked_div(gains + losses).unwrap_or_default();
        Fraction::clamped((fixed.get() * share).round_dp(12))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;
    use schemas::Notional;

    fn config(on: bool) -> (CoolDown, Weights) {
        let mut config = Config::load(None).unwrap();
        config.weights.on = on;
        config.weights.fixed.insert("half".into(), Fraction::new(Decimal::new(5, 1)).unwrap());
        (CoolDown { losses_in_row: 2, pause_ms: 1 }, config.weights)
    }
    fn records(strategy: &str, results: &[i64]) -> Records {
        let (cool, weights) = config(true);
        let mut records = Records::default();
        for (i, result) in results.iter().enumerate() {
            let trade = ClosedTrade {
                since_ns: 0,
                until_ns: i as i64,
                result: Notional::new((*result).into()),
                notional: Notional::new(1_000.into()),
            };
            records.closed(&[strategy.to_owned()], &trade, &cool, &weights, 3);
        }
        records
    }

    #[test]
    fn a_weight_starts_at_one_half_and_follows_the_results() {
        let (_, on) = config(true);
        assert_eq!(Records::default().weight("ema", &on).to_string(), "0.5");
        assert_eq!(records("ema", &[100]).weight("ema", &on).to_string(), "0.75");
        assert_eq!(records("ema", &[-100]).weight("ema", &on).to_string(), "0.25");
        assert_eq!(records("half", &[100]).weight("half", &on).to_string(), "0.375");
    }

    #[test]
    fn weights_that_are_off_are_one_or_the_fixed_factor() {
        let (_, off) = config(false);
        assert_eq!(records("ema", &[-900]).weight("ema", &off), Fraction::ONE);
        assert_eq!(records("half", &[-900]).weight("half", &off).to_string(), "0.5");
    }

    #[test]
    fn a_losing_streak_cools_down_and_a_win_breaks_it() {
        let losing = records("ema", &[-1, -1]);
        assert_eq!(losing.cooling_until("ema", 1), Some(1_000_001));
        assert_eq!(losing.cooling_until("ema", 1_000_001), None);
        assert_eq!(records("ema", &[-1, 0, -1]).cooling_until("ema", 2), None);
        assert_eq!(losing.cooling_until("rsi", 1), None);
    }

    #[test]
    fn the_oldest_record_makes_room() {
        let (cool, weights) = config(true);
        let mut records = Records::default();
        for (i, name) in ["a", "b", "c", "d"].iter().enumerate() {
            let trade =
                ClosedTrade { since_ns: 0, until_ns: i as i64, result: Notional::ZERO, notional: Notional::ZERO };
            records.closed(&[(*name).to_owned()], &trade, &cool, &weights, 3);
        }
        assert_eq!(records.0.keys().collect::<Vec<_>>(), ["b", "c", "d"]);
    }

    proptest! {
        #[test]
        fn a_weight_is_never_outside_zero_to_one(results in prop::collection::vec(-5_000i64..5_000, 0..60)) {
            let (_, on) = config(true);
            let records = records("ema", &results);
            let weight = records.weight("ema", &on).get();
            prop_assert!(weight > Decimal::ZERO && weight < Decimal::ONE);
            prop_assert!(records.0.get("ema").is_none_or(|r| r.returns.len() <= on.trades_max));
        }
    }
}
