//! How many opinions become one: a policy is a file in `policy/` and a line in [`POLICIES`].

use rust_decimal::Decimal;
use schemas::Fraction;
use schemas::config::ConfigError;
use schemas::desk::Vote;
use schemas::signal::Stance;

use crate::config::PolicyConfig;

pub mod leader;
pub mod majority;
pub mod risk_override;
pub mod weighted_sum;

/// All policies.
pub const POLICIES: &[&dyn Policy] =
    &[&majority::Majority, &weighted_sum::WeightedSum, &leader::Leader, &risk_override::RiskOverride];

/// What the votes together want held.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// `None`: no opinion; what is held stays as it is.
    pub side: Option<Stance>,
    /// How much of the allowed position; 0 without a side.
    pub strength: Fraction,
    /// For people.
    pub reason: String,
}

impl Verdict {
    pub fn none(reason: impl Into<String>) -> Self {
        Self { side: None, strength: Fraction::ZERO, reason: reason.into() }
    }
    pub fn of(side: Stance, strength: Fraction, reason: impl Into<String>) -> Self {
        Self { side: Some(side), strength, reason: reason.into() }
    }
}

/// One way to turn votes into a verdict. It sees counted and uncounted votes and must look at the counted ones only;
/// a strategy without a vote has no opinion, and `Flat` is a wish to hold nothing.
pub trait Policy: Sync {
    /// The name in the configuration and on `Intent` facts.
    fn id(&self) -> &'static str;
    /// Error: the configuration lacks what this policy needs.
    fn check(&self, _config: &PolicyConfig) -> Result<(), ConfigError> {
        Ok(())
    }
    fn decide(&self, votes: &[Vote], config: &PolicyConfig) -> Verdict;
}

/// The policy of that name; error: what names there are.
pub fn by_id(id: &str) -> Result<&'static dyn Policy, ConfigError> {
    POLICIES.iter().copied().find(|policy| policy.id() == id).ok_or_else(|| {
        let all: Vec<_> = POLICIES.iter().map(|policy| policy.id()).collect();
        ConfigError::value("risk.policy.name", format_args!("`{id}` is not one of {}", all.join(", ")))
    })
}

fn counted(votes: &[Vote]) -> impl Iterator<Item = &Vote> + Clone {
    votes.iter().filter(|vote| vote.counted)
}

/// `Err`: too few votes count.
fn quorum(votes: &[Vote], config: &PolicyConfig) -> Result<(), Verdict> {
    let have = counted(votes).count();
    if have >= config.quorum && have > 0 {
        return Ok(());
    }
    Err(Verdict::none(format!("{have} of {} votes needed", config.quorum)))
}

/// Weight of the counted votes for `side`; for all sides when `None`.
fn weight(votes: &[Vote], side: Option<Stance>) -> Decimal {
    counted(votes).filter(|vote| side.is_none_or(|side| vote.side == side)).map(|vote| vote.weight.get()).sum()
}

/// Mean strength of the counted votes for `side`, by weight.
fn strength(votes: &[Vote], side: Stance) -> Fraction {
    let sum: Decimal =
        counted(votes).filter(|vote| vote.side == side).map(|vote| vote.weight.get() * vote.strength.get()).sum();
    let weight = weight(votes, Some(side));
    Fraction::clamped(sum.checked_div(weight).unwrap_or_default().round_dp(12))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::config::Config;

    /// `ema long 0.8 | rsi flat | old short uncounted | heavy long w=0.5`: votes; the verdict as text.
    pub fn decide(policy: &dyn Policy, settings: &str, votes: &str) -> String {
        let text = format!("[risk.policy]\nname = \"{}\"\n{settings}\n", policy.id());
        let user = schemas::config::UserFile { name: "test".into(), text };
        let config = Config::load(Some(&user)).unwrap();
        let votes: Vec<Vote> = votes.split('|').filter(|v| !v.trim().is_empty()).map(vote).collect();
        let verdict = policy.decide(&votes, &config.policy);
        match verdict.side {
            Some(side) => format!("{side:?} {} ({})", verdict.strength, verdict.reason).to_lowercase(),
            None => format!("no opinion ({})", verdict.reason),
        }
    }

    fn vote(text: &str) -> Vote {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut vote = Vote {
            strategy: words[0].into(),
            side: match words[1] {
                "long" => Stance::Long,
                "flat" => Stance::Flat,
                "short" => Stance::Short,
                other => panic!("side {other}"),
            },
            strength: Fraction::ONE,
            confidence: Fraction::ONE,
            weight: Fraction::ONE,
            ts_ns: 0,
            counted: true,
            note: String::new(),
            cause: Default::default(),
        };
        for word in &words[2..] {
            if *word == "uncounted" {
                vote.counted = false;
            } else if let Some(weight) = word.strip_prefix("w=") {
                vote.weight = Fraction::new(weight.parse().unwrap()).unwrap();
            } else {
                vote.strength = Fraction::new(word.parse().unwrap()).unwrap();
            }
        }
        vote
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn policy_ids_are_unique_and_each_is_named_in_the_manual() {
        for (i, policy) in POLICIES.iter().enumerate() {
            assert!(POLICIES[..i].iter().all(|other| other.id() != policy.id()), "{} twice", policy.id());
            assert!(crate::config::DEFAULT.contains(policy.id()), "{} is not in config.toml", policy.id());
            assert_eq!(by_id(policy.id()).unwrap().id(), policy.id());
        }
    }

    #[test]
    fn no_policy_has_an_opinion_where_no_vote_counts() {
        let config = Config::load(None).unwrap();
        for policy in POLICIES {
            assert_eq!(policy.decide(&[], &config.policy).side, None, "{}", policy.id());
        }
    }
}
