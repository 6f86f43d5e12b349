//! One strategy leads; the others are shown and make the quorum.

use schemas::config::ConfigError;
use schemas::desk::Vote;

use super::{Policy, Verdict, counted, quorum};
use crate::config::PolicyConfig;

pub struct Leader;

impl Policy for Leader {
    fn id(&self) -> &'static str {
        "leader"
    }
    fn check(&self, config: &PolicyConfig) -> Result<(), ConfigError> {
        if config.leader.is_empty() {
            return Err(ConfigError::value("risk.policy.leader", "names the strategy that leads"));
        }
        Ok(())
    }
    fn decide(&self, votes: &[Vote], config: &PolicyConfig) -> Verdict {
        if let Err(none) = quorum(votes, config) {
            return none;
        }
        match counted(votes).find(|vote| vote.strategy == config.leader) {
            Some(vote) => Verdict::of(vote.side, vote.strength, format!("{} leads", vote.strategy)),
            None => Verdict::none(format!("no vote of {} counts", config.leader)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::decide;

    fn check(settings: &str, votes: &str, verdict: &str) {
        assert_eq!(decide(&Leader, &format!("leader = \"ema\"\n{settings}"), votes), verdict);
    }

    #[test]
    fn the_leader_decides_against_any_number_of_others() {
        check("", "ema short 0.6 | rsi long | macd long", "short 0.6 (ema leads)");
    }

    #[test]
    fn without_a_counted_vote_of_the_leader_there_is_no_opinion() {
        check("", "rsi long | macd long", "no opinion (no vote of ema counts)");
        check("", "ema long uncounted | macd long", "no opinion (no vote of ema counts)");
    }

    #[test]
    fn the_leader_needs_the_quorum_too() {
        check("quorum = 2", "ema long", "no opinion (1 of 2 votes needed)");
        check("quorum = 2", "ema long | rsi short", "long 1 (ema leads)");
    }
}
