//! The side with more than a share (one half by default) of the counted weight.

use schemas::desk::Vote;
use schemas::signal::Stance;

use super::{Policy, Verdict, quorum, strength, weight};
use crate::config::PolicyConfig;

pub struct Majority;

impl Policy for Majority {
    fn id(&self) -> &'static str {
        "majority"
    }
    fn decide(&self, votes: &[Vote], config: &PolicyConfig) -> Verdict {
        if let Err(none) = quorum(votes, config) {
            return none;
        }
        let all = weight(votes, None);
        for side in [Stance::Flat, Stance::Long, Stance::Short] {
            let mine = weight(votes, Some(side));
            let rival = [Stance::Flat, Stance::Long, Stance::Short]
                .into_iter()
                .filter(|other| *other != side)
                .any(|other| weight(votes, Some(other)) >= mine);
            if mine > all * config.majority_share.get() && !rival {
                return Verdict::of(side, strength(votes, side), format!("{mine} of {all} weight"));
            }
        }
        Verdict::none("tie")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::decide;

    fn check(settings: &str, votes: &str, verdict: &str) {
        assert_eq!(decide(&Majority, settings, votes), verdict);
    }

    #[test]
    fn two_of_three_win() {
        check("", "ema long 0.5 | rsi long 1 | macd short", "long 0.75 (2 of 3 weight)");
    }

    #[test]
    fn a_tie_is_no_opinion() {
        check("", "ema long | rsi short", "no opinion (tie)");
        check("", "ema long | rsi short | macd flat", "no opinion (tie)");
    }

    #[test]
    fn flat_is_a_wish_of_its_own_and_not_a_short() {
        check("", "ema flat | rsi flat | macd short", "flat 1 (2 of 3 weight)");
    }

    #[test]
    fn what_is_not_counted_makes_no_quorum_and_no_majority() {
        check("quorum = 2", "ema long | rsi long uncounted", "no opinion (1 of 2 votes needed)");
        check("quorum = 2", "ema long | rsi long | macd short uncounted", "long 1 (2 of 2 weight)");
    }

    #[test]
    fn weight_decides_and_not_heads() {
        check("", "ema long w=0.9 | rsi short w=0.4 | macd short w=0.4", "long 1 (0.9 of 1.7 weight)");
    }

    #[test]
    fn a_larger_share_can_be_asked_for_and_a_smaller_one_lets_no_tie_win() {
        check("majority_share = \"0.7\"", "ema long | rsi long | macd short", "no opinion (tie)");
        check("majority_share = \"0.3\"", "ema long | rsi short", "no opinion (tie)");
    }
}
