//! Closes are tried until nothing is held, and nothing meant for entries stops them.

use expect_test::expect;

use crate::tape::{check, check_with};

#[test]
fn a_close_needs_no_fresh_mark_no_whole_lot_and_no_free_rate() {
    let strict = "limits = { order_rate = { orders_max = 1, window_ms = 999000 }, order_notional_min = { notional_min = \"500\" } }";
    check_with(
        strict,
        "mark BTC 100 | vote ema long | fill | outside sell 9.9996 at 100 | wait 60s | gap BTC 5s | vote ema flat",
        expect![[r#"
            order buy 10 BTC stop 95
            order sell 0.0004 BTC reduce-only
        "#]],
    );
}

#[test]
fn a_rejected_close_is_tried_again_in_its_time_and_a_bounded_number_of_times() {
    check_with(
        "orders = { closes_max = 3 }",
        "mark BTC 100 | vote ema long | fill | vote ema flat | reject | vote ema flat | wait 1s | reject | wait 1s | reject | wait 1s | wait 9s | vote ema flat",
        expect![[r#"
            order buy 10 BTC stop 95
            order sell 10 BTC reduce-only
            order sell 10 BTC reduce-only
            order sell 10 BTC reduce-only
            refused sell 10 BTC: closes_max 3 (allowed 3)
            order sell 10 BTC reduce-only
        "#]],
    );
}

#[test]
fn a_close_that_is_filled_in_part_goes_on_with_the_rest() {
    check(
        "mark BTC 100 | vote ema long | fill | vote ema flat | fill 4 | done | wait 1s",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
        order sell 6 BTC reduce-only
    "#]],
    );
}

#[test]
fn a_close_that_hangs_is_cancelled_and_tried_again() {
    check(
        "mark BTC 100 | vote ema long | fill | vote ema flat | wait 16s | done | wait 1s",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
        cancel BTC: it has not ended in time
        order sell 10 BTC reduce-only
    "#]],
    );
}

#[test]
fn a_new_opinion_waits_for_the_close_on_its_way() {
    check(
        "mark BTC 100 | vote ema long | fill | vote ema flat | vote ema long | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
        order buy 10 BTC stop 95
    "#]],
    );
    check(
        "mark BTC 100 | vote ema long | fill | vote ema flat | vote ema short | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
        order sell 10 BTC stop 105
    "#]],
    );
}

#[test]
fn a_close_is_forgotten_when_a_stop_was_faster() {
    check(
        "mark BTC 100 | vote ema long | fill | vote ema flat | outside sell 10 at 95 | reject | wait 9s",
        expect![[r#"
            order buy 10 BTC stop 95
            order sell 10 BTC reduce-only
        "#]],
    );
}
