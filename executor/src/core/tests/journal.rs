//! What holds for every journal, whatever happened.

use proptest::prelude::*;
use schemas::desk::Order;
use schemas::{Core, Qty, Speak};

use super::with;
use crate::core::Out;
use crate::tape::{Tape, config};

/// Any step that the tape knows, around a price of 100.
fn step() -> impl Strategy<Value = String> {
    let price = 90..110i64;
    prop_oneof![
        4 => (price.clone(), 1..6i64, any::<bool>()).prop_map(|(p, q, sell)| format!("trade {p} x{q}{}", if sell { " sell" } else { "" })),
        2 => (price.clone(), 1..6i64, 1..6i64).prop_map(|(p, b, a)| format!("quote {}x{b} {}x{a}", p - 1, p + 1)),
        1 => (price.clone(), 1..6i64).prop_map(|(p, q)| format!("book bids={}x{q} asks={}x{q},{}x{q}", p - 1, p + 1, p + 2)),
        1 => (price.clone(), 0..6i64).prop_map(|(p, q)| format!("update asks={p}x{q}")),
        1 => (price.clone(), -5..5i64).prop_map(|(p, r)| format!("ticker mark={p} rate=0.000{}", r.abs())),
        1 => (price.clone(), 1..9i64).prop_map(|(p, d)| format!("candle {p} {} {} {}", p + d, p - d, p + 1)),
        1 => Just("clock".to_owned()),
        1 => Just("gap".to_owned()),
        4 => order_step(),
        1 => (1..12u32).prop_map(|n| format!("cancel o{n}")),
        1 => prop::sample::select(vec!["state halted", "state reducing", "state active", "state active"]).prop_map(str::to_owned),
    ]
}

fn order_step() -> impl Strategy<Value = String> {
    let side = prop::sample::select(vec!["buy", "sell"]);
    let how = prop::sample::select(vec![
        "",
        "limit=99",
        "limit=101",
        "limit=100 post",
        "limit=100 ioc",
        "fok",
        "kind=stop trigger=103",
        "reduce",
        "reduce",
        "limit=102 reduce",
    ]);
    let protect = prop::sample::select(vec!["", "", "stop=93 take=107", "stop=95", "take=104"]);
    (side, 1..6i64, how, protect)
        .prop_map(|(side, qty, how, protect)| format!("order {side} {qty} BTC {how} {protect}"))
}

fn model() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["next_open", "next_trade", "book"])
}

/// What every journal must obey, whatever happened.
fn obeys(tape: &Tape) {
    use std::collections::BTreeMap;
    let mut sent: BTreeMap<&str, &Order> = BTreeMap::new();
    let mut ended: BTreeMap<&str, ()> = BTreeMap::new();
    let mut filled: BTreeMap<&str, (u32, Qty)> = BTreeMap::new();
    let mut held = Qty::ZERO;
    for fact in &tape.said {
        let id = match fact {
            Out::Sending(f) => f.order.id.as_str(),
            Out::Cancelling(f) => f.id.as_str(),
            Out::Ack(f) => f.id.as_str(),
            Out::Fill(f) => f.id.as_str(),
            Out::Reject(f) => f.id.as_str(),
            Out::Done(f) => f.id.as_str(),
            Out::Funding(_) => continue,
        };
        assert!(!ended.contains_key(id), "{id} is spoken of behind its end: {fact:?}");
        match fact {
            Out::Sending(f) => assert!(sent.insert(id, &f.order).is_none(), "{id} is sent twice"),
            Out::Ack(_) => assert!(sent.contains_key(id)),
            Out::Fill(f) => {
                let order = sent[id];
                let (n, sum) = filled.get(id).copied().unwrap_or_default();
                assert_eq!(f.n, n + 1);
                assert_eq!(f.left, order.qty - sum - f.qty);
                assert!(f.qty > Qty::ZERO && f.left >= Qty::ZERO && !f.why.is_empty());
                if let Some(limit) = order.limit {
                    assert!(crate::market::within(f.side, f.price, limit), "{f:?} beyond {limit}");
                }
                let before = held;
                held += crate::position::signed(f.side, f.qty);
                if f.reduce_only {
                    assert!(held.abs() < before.abs() && held.signum() * before.signum() >= 0, "{f:?} on {before}");
                }
                filled.insert(id, (f.n, sum + f.qty));
            }
            Out::Reject(_) => {
                ended.insert(id, ());
            }
            Out::Done(f) => {
                assert_eq!(f.filled, filled.get(id).map_or(Qty::ZERO, |(_, sum)| *sum));
                ended.insert(id, ());
            }
            Out::Funding(_) | Out::Cancelling(_) => {}
        }
    }
    assert_eq!(tape.core.held("binance-usdm", "BTC"), held);
    let open: Vec<&Order> = tape.core.open_orders().map(|t| t.order()).collect();
    assert!(open.iter().all(|o| !ended.contains_key(o.id.as_str())));
    // Protective orders stand for exactly what is held, on its other side, or not at all.
    for tracked in tape.core.open_orders().filter(|t| t.order().parent.is_some()) {
        assert_eq!(crate::position::signed(tracked.order().side, tracked.left()), -held, "{:?}", tracked.order());
    }
}

proptest! {
    #[test]
    fn every_journal_obeys_the_life_of_orders_and_protection_matches_what_is_held(model in model(), steps in prop::collection::vec(step(), 1..60)) {
        let mut tape = Tape::new(&config(model));
        for step in &steps {
            tape.play(step);
            obeys(&tape);
        }
    }

    #[test]
    fn a_core_that_is_saved_and_restored_goes_on_as_if_nothing_had_happened(model in model(), latency in prop::sample::select(vec![0i64, 2_000_000_000]), steps in prop::collection::vec(step(), 2..50), cut in 0usize..50) {
        let config = with(model, |c| c.fill.latency_ns = latency);
        let (mut whole, mut cut_once) = (Tape::new(&config), Tape::new(&config));
        for (i, step) in steps.iter().enumerate() {
            if i == cut % steps.len() {
                cut_once.restart(&config);
            }
            whole.play(step);
            cut_once.play(step);
        }
        prop_assert_eq!(&whole.said, &cut_once.said);
        prop_assert_eq!(whole.core.save(), cut_once.core.save());
        let bytes = |t: &Tape| t.said.iter().map(|f| (f.subject(), f.payload())).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&whole), bytes(&cut_once));
    }

    #[test]
    fn with_latency_no_reduce_only_fill_grows_or_turns_the_position(steps in prop::collection::vec(step(), 1..60)) {
        let mut tape = Tape::new(&with("next_trade", |c| c.fill.latency_ns = 2_000_000_000));
        let mut held = Qty::ZERO;
        for step in &steps {
            tape.play(step);
        }
        for fact in &tape.said {
            if let Out::Fill(f) = fact {
                let before = held;
                held += crate::position::signed(f.side, f.qty);
                prop_assert!(!f.reduce_only || (held.abs() < before.abs() && held.signum() * before.signum() >= 0), "{:?} on {}", f, before);
            }
        }
    }
}
