//! The mean of weight * strength with the sign of the side; flat pulls to zero.

use rust_decimal::Decimal;
use schemas::Fraction;
use schemas::desk::Vote;
use schemas::signal::Stance;

use super::{Policy, Verdict, counted, quorum, weight};
use crate::config::PolicyConfig;

pub struct WeightedSum;

impl Policy for WeightedSum {
    fn id(&self) -> &'static str {
        "weighted_sum"
    }
    fn decide(&self, votes: &[Vote], config: &PolicyConfig) -> Verdict {
        if let Err(none) = quorum(votes, config) {
            return none;
        }
        let sum: Decimal = counted(votes)
            .map(|vote| {
                let pull = vote.weight.get() * vote.strength.get();
                match vote.side {
                    Stance::Long => pull,
                    Stance::Flat => Decimal::ZERO,
                    Stance::Short => -pull,
                }
            })
            .sum();
        let all = weight(votes, None);
        let mean = sum.checked_div(all).unwrap_or_default().round_dp(12).normalize();
        let reason = format!("mean {mean} against {}", config.threshold);
        if mean.abs() >= config.threshold.get() && !mean.is_zero() {
            let side = if mean > Decimal::ZERO { Stance::Long } else { Stance::Short };
            return Verdict::of(side, Fraction::clamped(mean.abs()), reason);
        }
        // Weak is not flat: only those who ask for flat make it so.
        if weight(votes, Some(Stance::Flat)) * Decimal::TWO > all {
            return Verdict::of(Stance::Flat, Fraction::ONE, reason);
        }
        Verdict::none(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::decide;

    fn check(settings: &str, votes: &str, verdict: &str) {
        assert_eq!(decide(&WeightedSum, settings, votes), verdict);
    }

    #[test]
    fn the_mean_beyond_the_threshold_wins_and_is_the_strength() {
        check("", "ema long 0.8 | rsi short 0.2", "long 0.3 (mean 0.3 against 0.2)");
        check("", "ema short 0.8 | rsi flat", "short 0.4 (mean -0.4 against 0.2)");
    }

    #[test]
    fn a_mean_below_the_threshold_is_no_opinion_and_not_a_sell() {
        check("", "ema long 0.5 | rsi short 0.4", "no opinion (mean 0.05 against 0.2)");
        check("threshold = \"0\"", "ema long | rsi short", "no opinion (mean 0 against 0)");
    }

    #[test]
    fn more_than_half_of_the_weight_for_flat_is_flat() {
        check("", "ema flat | rsi flat | macd long 0.3", "flat 1 (mean 0.1 against 0.2)");
        check("", "ema flat | macd long 0.1", "no opinion (mean 0.05 against 0.2)");
    }

    #[test]
    fn weights_pull_and_a_quorum_is_asked_first() {
        check("", "ema long w=0.9 | rsi short w=0.3", "long 0.5 (mean 0.5 against 0.2)");
        check("quorum = 3", "ema long | rsi long", "no opinion (2 of 3 votes needed)");
    }
}
