//! Positions on margin that the venue closes by itself.

use expect_test::expect;
use schemas::{Fraction, InstrumentKind};

use super::with;
use crate::config::Config;
use crate::core::In;
use crate::tape::{Tape, check_with, instrument};

fn on_margin(model: &str) -> Config {
    with(model, |c| {
        c.liquidation.on = true;
        c.liquidation.initial_share = Fraction::new("0.1".parse().unwrap()).unwrap();
        c.liquidation.maintenance_share = Fraction::new("0.05".parse().unwrap()).unwrap();
        c.liquidation.fee_bps = "100".parse().unwrap();
    })
}

#[test]
fn a_long_position_is_liquidated_with_a_reason_and_its_orders_end() {
    check_with(
        &on_margin("next_trade"),
        "order buy 2 BTC take=120 | trade 100 x9 | order buy 1 BTC limit=80 | trade 95 x9 | trade 94 x9 | trade 70 x9",
        expect![[r#"
            sending o1 buy 2 market
            ack o1
            fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
            done o1 Filled 2
            sending p1 sell 2 takeprofit 120 for o1
            ack p1
            sending o2 buy 1 limit 80
            ack o2
            sending p2 sell 2 market
            ack p2
            fill p2 1 2@94 taker fee 1.88 left 0: liquidation: mark 94 reached 94.736842105263, entry 100
            done p2 Filled 2
            done p1 Cancelled 0: the position was liquidated
            done o2 Cancelled 0: the position was liquidated
        "#]],
    );
}

#[test]
fn a_short_position_loses_no_more_than_its_margin() {
    check_with(
        &on_margin("next_trade"),
        "order sell 1 BTC | trade 100 x9 | order sell 1 BTC | trade 102 x9 | trade 150 x9",
        expect![[r#"
            sending o1 sell 1 market
            ack o1
            fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
            done o1 Filled 1
            sending o2 sell 1 market
            ack o2
            fill o2 1 1@102 taker fee 0.102 left 0: next trade 4 at 102
            done o2 Filled 1
            sending p1 buy 2 market
            ack p1
            fill p1 1 2@111.1 taker fee 2.222 left 0: liquidation: mark 150 reached 105.809523809524, entry 101
            done p1 Filled 2
        "#]],
    );
}

#[test]
fn where_the_venue_tells_a_mark_a_wild_print_liquidates_nobody() {
    check_with(
        &on_margin("next_trade"),
        "ticker mark=100 | order buy 1 BTC | trade 100 x9 | trade 10 x9 | ticker mark=94",
        expect![[r#"
            sending o1 buy 1 market
            ack o1
            fill o1 1 1@100 taker fee 0.1 left 0: next trade 3 at 100
            done o1 Filled 1
            sending p1 sell 1 market
            ack p1
            fill p1 1 1@94 taker fee 0.94 left 0: liquidation: mark 94 reached 94.736842105263, entry 100
            done p1 Filled 1
        "#]],
    );
}

#[test]
fn a_candle_that_dips_far_enough_liquidates() {
    check_with(
        &on_margin("next_open"),
        "order buy 1 BTC | open 100 | candle 100 101 93 100",
        expect![[r#"
            sending o1 buy 1 market
            ack o1
            fill o1 1 1@100 taker fee 0.1 left 0: next open 100
            done o1 Filled 1
            sending p1 sell 1 market
            ack p1
            fill p1 1 1@93 taker fee 0.93 left 0: liquidation: mark 93 reached 94.736842105263, entry 100
            done p1 Filled 1
        "#]],
    );
}

#[test]
fn spot_is_never_liquidated_and_nothing_is_where_it_is_off() {
    let tape = "order buy 1 BTC | trade 100 x9 | trade 1 x9";
    let mut spot = Tape::new(&on_margin("next_trade"));
    spot.hear(In::Instrument(schemas::Instrument { kind: InstrumentKind::Spot, ..instrument() }));
    let mut off = Tape::new(&with("next_trade", |_| ()));
    for tape in [spot.play(tape), off.play(tape)] {
        assert_eq!(tape.log().lines().count(), 4, "{}", tape.log());
    }
}

#[test]
fn a_restarted_venue_remembers_what_the_position_was_entered_at() {
    let config = on_margin("next_trade");
    let mut tape = Tape::new(&config);
    tape.play("order buy 1 BTC | trade 100 x9");
    tape.restart(&config);
    assert!(tape.play("trade 94 x1").log().contains("liquidation: mark 94 reached 94.73"), "{}", tape.log());
}
