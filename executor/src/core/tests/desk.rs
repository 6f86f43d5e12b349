//! What the desk asks beside plain orders: closes, states, cancellations, time, funding.

use expect_test::expect;
use schemas::{Core, Place};

use super::with;
use crate::core::{ExecutorCore, In};
use crate::tape::{Tape, check, check_with, config, instrument};

#[test]
fn reduce_only_never_grows_or_turns_the_position() {
    check(
        "next_trade",
        "order sell 1 BTC reduce | order buy 2 BTC | trade 100 x9 | order buy 1 BTC reduce | order sell 5 BTC reduce | trade 101 x9",
        expect![[r#"
            reject o1 reduce_only
            sending o2 buy 2 market
            ack o2
            fill o2 1 2@100 taker fee 0.2 left 0: next trade 3 at 100
            done o2 Filled 2
            reject o3 reduce_only
            sending o4 sell 5 market
            ack o4
            fill o4 1 2@101 taker fee 0.202 left 3: next trade 6 at 101
            done o4 Cancelled 2: reduce-only and nothing is left to reduce
        "#]],
    );
}

#[test]
fn two_closes_of_the_same_position_end_flat() {
    check(
        "next_trade",
        "order buy 2 BTC | trade 100 x9 | order sell 2 BTC reduce | order sell 2 BTC reduce | trade 101 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending o2 sell 2 market
        ack o2
        sending o3 sell 2 market
        ack o3
        fill o2 1 2@101 taker fee 0.202 left 0: next trade 5 at 101
        done o2 Filled 2
        done o3 Cancelled 0: reduce-only and nothing is left to reduce
    "#]],
    );
}

#[test]
fn a_halted_account_opens_nothing_loses_its_resting_entries_and_closes() {
    check(
        "next_trade",
        "order buy 1 BTC | trade 100 x9 | order buy 1 BTC limit=90 | order sell 1 BTC limit=120 reduce | state halted | order buy 1 BTC | order sell 1 BTC reduce | trade 101 x9 | state active | order buy 1 BTC",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
        sending o2 buy 1 limit 90
        ack o2
        sending o3 sell 1 limit 120
        ack o3
        done o2 Cancelled 0: the account is halted
        reject o4 halted
        sending o5 sell 1 market
        ack o5
        fill o5 1 1@101 taker fee 0.101 left 0: next trade 8 at 101
        done o5 Filled 1
        sending o6 buy 1 market
        done o3 Cancelled 0: reduce-only and nothing is left to reduce
        ack o6
    "#]],
    );
}

#[test]
fn a_reducing_account_takes_closes_only() {
    check(
        "next_trade",
        "order buy 1 BTC | trade 100 x9 | order buy 1 BTC limit=90 | state reducing | order buy 1 BTC | order sell 1 BTC reduce | trade 101 x9",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
        sending o2 buy 1 limit 90
        ack o2
        done o2 Cancelled 0: the account is reducing
        reject o3 reducing
        sending o4 sell 1 market
        ack o4
        fill o4 1 1@101 taker fee 0.101 left 0: next trade 7 at 101
        done o4 Filled 1
    "#]],
    );
}

#[test]
fn nothing_is_said_of_an_ended_order() {
    check(
        "next_trade",
        "order buy 1 BTC | trade 100 x9 | cancel o1 | trade 101 x9 | cancel o7",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn a_cancelled_order_fills_no_more() {
    check(
        "next_trade",
        "order buy 3 BTC | trade 100 x1 | cancel o1 | trade 100 x9",
        expect![[r#"
        sending o1 buy 3 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 2: next trade 2 at 100
        done o1 Cancelled 1: asked
    "#]],
    );
}

#[test]
fn a_fill_may_overtake_a_cancellation_on_its_way() {
    let config = with("next_trade", |c| c.fill.latency_ns = 3_000_000_000);
    check_with(
        &config,
        "order buy 3 BTC @1 | trade 100 x1 @5 | cancel o1 @6 | trade 101 x1 @7 | clock @9 | trade 102 x9 @10",
        expect![[r#"
        sending o1 buy 3 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 2: next trade 2 at 100
        fill o1 2 1@101 taker fee 0.101 left 1: next trade 4 at 101
        done o1 Cancelled 2: asked
    "#]],
    );
}

#[test]
fn a_clock_brings_an_order_to_the_venue_in_a_quiet_market() {
    let config = with("book", |c| c.fill.latency_ns = 3_000_000_000);
    check_with(
        &config,
        "quote 99x9 101x9 @1 | order buy 1 BTC @2 | clock @4 | clock @5",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@101 taker fee 0.101 left 0: quote level 1 at 101
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn longs_pay_a_positive_funding_rate_once() {
    check(
        "next_trade",
        "order buy 2 BTC | trade 100 x9 | ticker mark=110 rate=0.0001 next=60 | trade 120 x1 @59 | trade 120 x1 @61 | ticker mark=120 rate=0.0003 next=60 @62 | ticker rate=-0.0002 next=120 @63 | clock @121",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        funding 0.0001 at 110 on 2: -0.022
        funding -0.0002 at 120 on 2: 0.048
    "#]],
    );
}

#[test]
fn who_holds_nothing_pays_no_funding() {
    check(
        "next_trade",
        "ticker mark=110 rate=0.0001 next=60 | trade 120 x1 @61 | order buy 1 BTC | trade 120 x1",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@120 taker fee 0.12 left 0: next trade 4 at 120
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn orders_that_mean_nothing_are_rejected() {
    check(
        "next_trade",
        "order buy 0 BTC | order buy 1 DOGE | order buy 1 BTC kind=stop | order buy 1 BTC trigger=5",
        expect![[r#"
        reject o1 invalid
        reject o2 no_instrument
        reject o3 invalid
        reject o4 invalid
    "#]],
    );
}

#[test]
fn too_many_open_orders_reject_entries_but_not_closes() {
    let config = with("next_trade", |c| c.orders_open_max = 2);
    check_with(
        &config,
        "order buy 1 BTC | trade 100 x9 | order buy 1 BTC limit=50 | order buy 1 BTC limit=51 | order buy 1 BTC limit=52 | order sell 1 BTC reduce",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
        sending o2 buy 1 limit 50
        ack o2
        sending o3 buy 1 limit 51
        ack o3
        reject o4 too_many_orders
        sending o5 sell 1 market
        ack o5
    "#]],
    );
}

#[test]
fn an_order_of_another_account_is_not_ours() {
    let mut tape = Tape::new(&config("next_trade"));
    let In::Order(mut order) = tape.input("order buy 1 BTC") else { panic!("no order") };
    order.account = "other".into();
    tape.hear(In::Order(order));
    assert_eq!(tape.log(), "");
}

#[test]
fn a_redelivered_order_is_executed_once() {
    let mut tape = Tape::new(&config("next_trade"));
    let order = tape.input("order buy 1 BTC");
    tape.hear(order.clone());
    tape.play("trade 100 x9");
    let before = tape.log().len();
    tape.hear(order);
    tape.play("trade 100 x9");
    assert_eq!(tape.log().len(), before);
}

#[test]
fn ticks_of_an_instrument_without_orders_lead_to_nothing() {
    let mut core = ExecutorCore::new("main", &config("next_trade"));
    core.handle(&Place::new("DESK_main", 1), In::Instrument(instrument()), &mut Vec::new()).unwrap();
    let mut tape = Tape::new(&config("next_trade"));
    let mut out = Vec::new();
    for seq in 2..200 {
        let input = tape.input(&format!("trade {} x1", 100 + seq % 7));
        core.handle(&Place::new("DESK_main", seq), input, &mut out).unwrap();
    }
    assert!(out.is_empty());
}
