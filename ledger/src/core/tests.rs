use std::collections::BTreeMap;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::row::{Rule, Value};
use crate::sample::{Stored, day, merged};

/// What a database makes of changes, in a few lines.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Model(BTreeMap<(&'static str, String), BTreeMap<&'static str, Value>>);

impl Model {
    pub(crate) fn apply(&mut self, change: &Change) {
        let key = format!("{:?}", change.key_values().collect::<Vec<_>>());
        let there = self.0.contains_key(&(change.table.name, key.clone()));
        let row = self.0.entry((change.table.name, key)).or_default();
        for cell in &change.cells {
            let old = row.entry(cell.column).or_insert(Value::Null);
            let write = match cell.rule {
                Rule::Key | Rule::Replace => true,
                Rule::Keep => *old == Value::Null,
                Rule::Once => !there,
            };
            if write {
                *old = cell.value.clone();
            }
        }
    }

    fn rows(&self, table: &str) -> impl Iterator<Item = &BTreeMap<&'static str, Value>> {
        self.0.iter().filter(move |((name, _), _)| *name == table).map(|(_, row)| row)
    }
}

fn timeframes() -> Vec<Timeframe> {
    vec!["1m".parse().unwrap()]
}

fn fold_all(facts: &[Stored]) -> Model {
    let mut folds: BTreeMap<String, Fold> = BTreeMap::new();
    let mut model = Model::default();
    for fact in facts {
        let fold = folds.entry(fact.stream.clone()).or_insert_with(|| Fold::new(&fact.stream, &timeframes()));
        let mut changes = Vec::new();
        fold.hear(fact.seq, &fact.subject, &fact.payload, &mut changes).unwrap();
        changes.iter().for_each(|c| model.apply(c));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_merge_of_the_streams_gives_the_same_tables(seed in any::<u64>(), order in prop::collection::vec(any::<u8>(), 0..400)) {
        let streams = day(seed);
        prop_assert_eq!(fold_all(&merged(&streams, &order)), fold_all(&merged(&streams, &[])));
    }

    #[test]
    fn a_fold_restored_between_two_facts_goes_on_as_if_nothing_happened(seed in any::<u64>()) {
        for (stream, facts) in day(seed) {
            let (mut through, mut often) = (Fold::new(&stream, &timeframes()), Fold::new(&stream, &timeframes()));
            let mut kept: Option<Vec<u8>> = None;
            for fact in facts {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                through.hear(fact.seq, &fact.subject, &fact.payload, &mut a).unwrap();
                often.hear(fact.seq, &fact.subject, &fact.payload, &mut b).unwrap();
                prop_assert_eq!(a, b);
                kept = often.take_state().or(kept);
                often = Fold::new(&stream, &timeframes());
                if let Some(state) = &kept {
                    often.restore(state).unwrap();
                }
            }
        }
    }
}

#[test]
fn every_trade_has_its_money_and_its_prices_and_every_order_its_end() {
    let model = fold_all(&merged(&day(7), &[]));
    assert!(model.rows("trades").count() > 3);
    for trade in model.rows("trades") {
        assert!(trade["realised"] != Value::Null && trade["entry_price"] != Value::Null, "{trade:?}");
        assert_eq!(trade["closed_ns"] == Value::Null, trade["qty_in"] != trade["qty_out"], "{trade:?}");
    }
    for order in model.rows("orders") {
        assert!(order["venue"] != Value::Null && order["ended_ns"] != Value::Null, "{order:?}");
    }
    assert!(model.rows("market_data").all(|row| row["indicators"] != Value::Null && row["close"] != Value::Null));
}

#[test]
fn money_of_trades_adds_up_to_the_account_s() {
    for seed in 0..20 {
        let model = fold_all(&merged(&day(seed), &[]));
        let sum = |table: &str, column: &str| -> schemas::Decimal {
            model.rows(table).map(|row| if let Value::Decimal(d) = row[column] { d } else { panic!("{row:?}") }).sum()
        };
        for column in ["realised", "fees", "funding"] {
            assert_eq!(sum("trades", column), sum("positions", column), "seed {seed} {column}");
        }
        assert_eq!(sum("fills", "fee"), sum("trades", "fees"), "seed {seed}");
    }
}

#[test]
fn candles_of_other_timeframes_are_not_even_decoded() {
    let mut fold = Fold::new("AGG_BINANCE_0", &timeframes());
    let mut out = Vec::new();
    fold.hear(1, "candle.0.binance.1s.BTCUSDT", b"not a candle", &mut out).unwrap();
    fold.hear(2, "candle.0.binance.tick-100.BTCUSDT", b"not a candle", &mut out).unwrap();
    assert!(out.is_empty());
    assert!(fold.hear(3, "candle.0.binance.1m.BTCUSDT", b"not a candle", &mut out).is_err());
}

#[test]
fn a_signal_whose_body_disagrees_with_its_subject_is_an_error() {
    let streams = day(1);
    let signal = &streams["SIG_BINANCE_0"][0];
    let mut out = Vec::new();
    let mut fold = Fold::new("SIG_EXT", &timeframes());
    assert!(fold.hear(1, "signal.ext.other.binance.BTCUSDT", &signal.payload, &mut out).is_err() && out.is_empty());
}

#[test]
fn configuration_is_shown_as_json_whatever_it_was_written_in() {
    let value = |payload: &[u8]| match &config_entry("k", payload, 1, 2).cells[1].value {
        Value::Json(text) => text.clone(),
        other => format!("{other:?}"),
    };
    expect![[r#"{"state":"halted"} | {"state":"halted"} | "plain words" | Null"#]].assert_eq(
        &[
            value(br#"{"state": "halted"}"#),
            value(&wire::encode(&BTreeMap::from([("state", "halted")]))),
            value(b"plain words"),
            value(b""),
        ]
        .join(" | "),
    );
}

#[test]
fn only_streams_of_facts_that_a_table_shows_are_read() {
    for stream in ["AGG_BINANCE_3", "SIG_EXT", "SIG_LLM_a", "LLMP_a", "LLMR_a", "RISK_main", "EXEC_main"] {
        assert!(Fold::reads(stream), "{stream}");
    }
    for stream in ["RAW_BINANCE", "DESK_main", "KV_cfg", "SEQ_LLM_a"] {
        assert!(!Fold::reads(stream), "{stream}");
    }
}
