use std::sync::Arc;

use proptest::prelude::*;
use schemas::WireError;
use strategy::voter::{Bar, Opinion, ParamSpec, Params, StrategyKind, Voter};

use super::*;
use crate::engine::tests::{setup, wandering};
use crate::setup::Strategies;
use crate::source::Held;

/// A wandering three quarters of an hour of trades as facts, cut.
fn tape(cut: Cut) -> Held {
    let whole = wandering(5, 8_000, 1);
    let instruments = whole.instruments.clone();
    let facts = whole.facts.iter().skip(cut.skip as usize).take(usize::try_from(cut.take).unwrap_or(usize::MAX));
    Held::new(facts.cloned(), instruments)
}

/// Long below the mean of the whole tape, short above it: the mean knows the future.
struct Oracle {
    mean: f64,
}

impl StrategyKind for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }
    fn about(&self) -> &'static str {
        "long below the mean of the whole tape, short above it"
    }
    fn params(&self) -> &'static [ParamSpec] {
        &[]
    }
    fn start(&self, _params: &Params) -> Box<dyn Voter> {
        Box::new(Seer { mean: self.mean })
    }
}

struct Seer {
    mean: f64,
}

impl Voter for Seer {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let side = if bar.close() < self.mean { Stance::Long } else { Stance::Short };
        Some(Opinion::new(side, format!("the mean is {:.6}", self.mean)))
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
}

fn oracle(mean: f64) -> Setup {
    let mut setup = setup("ema_cross_2_5", "5s");
    let mut rule = setup.strategies.rules().unwrap().remove(0);
    rule.name = "oracle".to_owned();
    let params = Params::read(&[], &toml::Table::new()).unwrap();
    // A kind lives as long as the program, as those of the registry do.
    let kind: &'static Oracle = Box::leak(Box::new(Oracle { mean }));
    setup.strategies = Strategies::Kind { rule, kind, params };
    setup
}

fn mean_of(tape: &Held) -> f64 {
    let prices: Vec<f64> = tape
        .facts
        .iter()
        .filter_map(|entry| match &entry.fact {
            Typed::Raw(schemas::raw::Raw::Trades(pack)) => Some(pack),
            _ => None,
        })
        .flat_map(|pack| pack.iter().map(|t| t.price.price(pack.scale).to_f64()).collect::<Vec<_>>())
        .collect();
    prices.iter().sum::<f64>() / prices.len() as f64
}

#[test]
fn a_strategy_that_knows_the_mean_of_the_whole_tape_is_caught_with_both_facts_shown() {
    let make = |cut: Cut| -> anyhow::Result<(Setup, Box<dyn Tape>)> {
        Ok((oracle(mean_of(&tape(Cut { skip: 0, ..cut }))), Box::new(tape(Cut { skip: 0, ..cut }))))
    };
    let verdict = check(&make, Trials { ends: 2, starts: 0 }, |_, _| ()).unwrap();
    assert!(!verdict.is_clean());
    assert!(verdict.groups["market"].difference.is_none(), "{:?}", verdict.groups["market"]);
    let found = verdict.groups["oracle"].difference.as_ref().expect("it looks ahead");
    let (whole, cut) = (found.whole.as_ref().unwrap(), found.cut.as_ref().unwrap());
    assert_eq!(whole.place, cut.place, "the same position says something else");
    assert_ne!(whole.fact["reason"], cut.fact["reason"]);
    assert!(whole.fact["reason"].as_str().unwrap().starts_with("the mean is"), "{whole:?}");
    assert!(found.tape_fact <= found.end);
}

#[test]
fn the_same_strategy_with_a_mean_that_it_may_know_is_clean() {
    let mean = mean_of(&tape(Cut::WHOLE));
    let make = |cut: Cut| -> anyhow::Result<(Setup, Box<dyn Tape>)> {
        Ok((oracle(mean), Box::new(tape(Cut { skip: 0, ..cut }))))
    };
    let verdict = check(&make, Trials { ends: 3, starts: 0 }, |_, _| ()).unwrap();
    assert!(verdict.is_clean() && verdict.groups["oracle"].compared > 100, "{verdict:?}");
}

#[test]
fn every_registered_strategy_is_blind_for_the_future_and_converges() {
    let whole = Arc::new(wandering(5, 9_000, 1));
    for kind in strategy::STRATEGIES {
        let make = |_: Cut| -> anyhow::Result<(Setup, Box<dyn Tape>)> {
            let tape = Held::new(whole.facts.iter().cloned(), whole.instruments.clone());
            Ok((setup(kind.name(), "5s"), Box::new(tape)))
        };
        let mut seen = Vec::new();
        let trials = Trials { ends: 3, starts: 2 };
        let verdict = check(&make, trials, |done, of| seen.push((done, of))).unwrap();
        assert!(verdict.is_clean(), "{}: {:#?}", kind.name(), verdict.groups);
        let group = &verdict.groups[kind.name()];
        assert!(group.compared > 0 && group.warm_up.len() == 2, "{}: {group:?}", kind.name());
        assert!(verdict.converges(), "{}: {:?}", kind.name(), group.warm_up);
        assert_eq!(seen.last(), Some(&(6, 6)));
    }
}

const LONG: Stance = Stance::Long;
const SHORT: Stance = Stance::Short;

#[test]
fn histories_agree_from_their_last_different_opinion_on() {
    let full = [(1, LONG), (5, SHORT), (9, LONG), (12, SHORT)];
    assert_eq!(agreement(&full, &[(9, LONG), (12, SHORT)]), Some((9, 2)));
    // Short since 7 there, since 5 here: they agree since 7.
    assert_eq!(agreement(&full, &[(7, SHORT), (9, LONG), (12, SHORT)]), Some((7, 2)));
    assert_eq!(agreement(&full, &[(7, LONG), (8, SHORT), (9, LONG), (12, SHORT)]), Some((8, 2)));
    assert_eq!(agreement(&full, &[(6, LONG), (12, SHORT)]), Some((9, 1)));
    assert_eq!(agreement(&full, &[(6, SHORT)]), None);
    assert_eq!(agreement(&full, &[]), None);
}

proptest! {
    #[test]
    fn behind_the_instant_of_agreement_both_always_think_the_same(times in prop::collection::btree_set(0i64..60, 1..20), drop in 0usize..12, other in prop::collection::btree_set(0i64..30, 0..6)) {
        let alternate = |times: Vec<i64>| -> Vec<(i64, Stance)> {
            times.iter().rev().enumerate().map(|(i, t)| (*t, if i % 2 == 0 { LONG } else { SHORT })).rev().collect()
        };
        let full = alternate(times.iter().copied().collect());
        let kept: Vec<i64> = times.iter().copied().skip(drop.min(times.len() - 1)).collect();
        let late = alternate(other.iter().copied().filter(|t| *t < kept[0]).chain(kept.iter().copied()).collect());
        let at = |history: &[(i64, Stance)], t: i64| history.iter().rev().find(|(ts, _)| *ts <= t).map(|(_, side)| *side);
        let (since, agreed) = agreement(&full, &late).unwrap();
        prop_assert!(kept.len() <= agreed);
        for t in since..70 {
            prop_assert_eq!(at(&full, t), at(&late, t));
        }
    }
}
