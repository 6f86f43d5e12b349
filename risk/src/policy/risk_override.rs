//! A guardian's flat or short wins over everybody; without one the majority decides.

use schemas::config::ConfigError;
use schemas::desk::Vote;
use schemas::signal::Stance;

use super::{Policy, Verdict, counted, majority::Majority};
use crate::config::PolicyConfig;

pub struct RiskOverride;

impl Policy for RiskOverride {
    fn id(&self) -> &'static str {
        "risk_override"
    }
    fn check(&self, config: &PolicyConfig) -> Result<(), ConfigError> {
        if config.guardians.is_empty() {
            return Err(ConfigError::value("risk.policy.guardians", "names at least one strategy"));
        }
        Ok(())
    }
    fn decide(&self, votes: &[Vote], config: &PolicyConfig) -> Verdict {
        // Of two guardians the one who wants nothing held wins: it is the smaller risk.
        for side in [Stance::Flat, Stance::Short] {
            let guard = counted(votes).find(|vote| vote.side == side && config.guardians.contains(&vote.strategy));
            if let Some(vote) = guard {
                return Verdict::of(side, vote.strength, format!("{} overrides", vote.strategy));
            }
        }
        Majority.decide(votes, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::decide;

    fn check(settings: &str, votes: &str, verdict: &str) {
        assert_eq!(decide(&RiskOverride, &format!("guardians = [\"guard\", \"vix\"]\n{settings}"), votes), verdict);
    }

    #[test]
    fn one_guardian_overrides_any_majority_and_any_quorum() {
        check("", "ema long | rsi long | guard flat", "flat 1 (guard overrides)");
        check("quorum = 3", "ema long | vix short 0.4", "short 0.4 (vix overrides)");
    }

    #[test]
    fn of_two_guardians_flat_wins_over_short() {
        check("", "guard short | vix flat", "flat 1 (vix overrides)");
    }

    #[test]
    fn a_guardians_long_is_a_vote_like_any_other() {
        check("", "guard long | ema short | rsi short", "short 1 (2 of 3 weight)");
    }

    #[test]
    fn a_guardian_whose_vote_does_not_count_overrides_nothing() {
        check("", "guard flat uncounted | ema long", "long 1 (1 of 1 weight)");
    }
}
