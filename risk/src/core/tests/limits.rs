//! Every limit on a tape: once refusing, once accepting. The bounds themselves are tested beside each limit.

use expect_test::expect;

use crate::tape::{check, check_with};

#[test]
fn trading_state() {
    check(
        "mark BTC 100 | operator reducing | vote ema long | operator active | vote ema long",
        expect![[r#"
        REDUCING by operator: by an operator
        refused buy 10 BTC: trading_state reducing (allowed active)
        ACTIVE by operator: by an operator
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn instrument() {
    check(
        "mark DOGE 100 | vote ema long DOGE | mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 10 DOGE: instrument unknown (allowed known)
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn spot_short() {
    check(
        "mark SPOT 100 | vote ema short SPOT | vote ema long SPOT",
        expect![[r#"
        refused sell 10 SPOT: spot_short -10 (allowed 0)
        order buy 10 SPOT stop 95
    "#]],
    );
    check_with(
        "limits = { spot_short = { on = false } }",
        "mark SPOT 100 | vote ema short SPOT",
        expect![[r#"
        order sell 10 SPOT stop 105
    "#]],
    );
}

#[test]
fn stale_mark() {
    check(
        "vote ema long | mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 0 BTC: stale_mark none (allowed 10000)
        order buy 10 BTC stop 95
    "#]],
    );
    check(
        "mark BTC 100 | wait 11s | vote ema long | mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 10 BTC: stale_mark 11000 (allowed 10000)
        order buy 10 BTC stop 95
    "#]],
    );
    // The venue is silent: its watermark stands still, the recorded wall clock does not.
    check(
        "silence 1s | mark BTC 100 | silence 11s | vote ema long",
        expect![[r#"
        refused buy 10 BTC: stale_mark 11000 (allowed 10000)
    "#]],
    );
}

#[test]
fn stale_signal() {
    check(
        "wait 1s | mark BTC 100 | vote ema long age=181s | vote ema long age=180s",
        expect![[r#"
        refused buy 10 BTC: stale_signal 181000 (allowed 180000)
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn market_data_gap() {
    check(
        "mark BTC 100 | gap BTC 5s | vote ema long | wait 59s | mark BTC 100 | vote ema long | wait 2s | mark BTC 100 | vote ema long",
        expect![[r#"
            refused buy 10 BTC: market_data_gap 999995000000000 (allowed none)
            order buy 10 BTC stop 95
        "#]],
    );
    check(
        "mark BTC 100 | gap BTC open | wait 5s | mark BTC 100 | vote ema long | gap ETH 5s | gap BTC closed | wait 61s | mark BTC 100 | vote ema long",
        expect![[r#"
            refused buy 10 BTC: market_data_gap 1000000000000000 (allowed none)
            order buy 10 BTC stop 95
        "#]],
    );
    check_with(
        "limits = { market_data_gap = { on = false } }",
        "mark BTC 100 | gap BTC 5s | vote ema long",
        expect![[r#"
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn gap_bars() {
    check(
        "mark BTC 100 | vote ema long gap_bars=2 | wait 60s | mark BTC 100 | vote ema long gap_bars=1 | wait 60s | mark BTC 100 | vote ema long",
        expect![[r#"
            refused buy 10 BTC: gap_bars 2 (allowed 0)
            order buy 10 BTC stop 95
        "#]],
    );
    // Of the votes that agree the one with the most; what disagrees does not count.
    check(
        "mark BTC 100 | vote rsi long gap_bars=3 | wait 1s | vote ema long | wait 1s | vote rsi short gap_bars=3 | wait 1s | vote macd long",
        expect![[r#"
            refused buy 10 BTC: gap_bars 3 (allowed 0)
            refused buy 10 BTC: gap_bars 3 (allowed 0)
            order buy 10 BTC stop 95
        "#]],
    );
    check_with(
        "limits = { gap_bars = { bars_max = 2 } }",
        "mark BTC 100 | vote ema long gap_bars=2",
        expect![[r#"
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn what_came_over_a_gap_closes_what_is_held_and_opens_nothing() {
    check(
        "mark BTC 100 | vote ema long | fill | wait 60s | mark BTC 100 | vote ema short gap_bars=1",
        expect![[r#"
            order buy 10 BTC stop 95
            refused sell 20 BTC: gap_bars 1 (allowed 0)
            order sell 10 BTC reduce-only
        "#]],
    );
}

#[test]
fn duplicate_intent() {
    check(
        "mark BTC 100 | vote ema long | reject | vote ema long again | vote ema long",
        expect![[r#"
        order buy 10 BTC stop 95
        refused buy 10 BTC: duplicate_intent 2 (allowed 1)
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn min_lot() {
    check(
        "mark BTC 100000000 | vote ema long | mark ETH 900000 | vote ema long ETH",
        expect![[r#"
        refused buy 0.00001 BTC: min_lot 0.00001 (allowed 0.001)
        order buy 0.001 ETH stop 855000
    "#]],
    );
}

#[test]
fn order_notional_min() {
    check_with(
        "sizing = { by = \"notional\", notional = \"9\" }",
        "mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 0.09 BTC: order_notional_min 9 (allowed 10)
    "#]],
    );
    check_with(
        "sizing = { by = \"notional\", notional = \"11\" }",
        "mark BTC 100 | vote ema long",
        expect![[r#"
        order buy 0.11 BTC stop 95
    "#]],
    );
}

#[test]
fn order_notional_max() {
    let wide = "initial_cash = \"10000000\"\nsizing = { by = \"notional\", notional = ";
    check_with(
        &format!("{wide}\"100001\" }}"),
        "mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 1000.01 BTC: order_notional_max 100001 (allowed 100000)
    "#]],
    );
    check_with(
        &format!("{wide}\"100000\" }}"),
        "mark BTC 100 | vote ema long",
        expect![[r#"
        order buy 1000 BTC stop 95
    "#]],
    );
}

#[test]
fn price_collar() {
    let quoted = "mark_sources = [\"trade\"]";
    check_with(
        quoted,
        "mark BTC 100 | quote BTC 99 103 | vote ema long | quote BTC 99 101 | vote ema long",
        expect![[r#"
            refused buy 10 BTC: price_collar 0.03 (allowed 0.02)
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn max_position_share() {
    check_with(
        "sizing = { share = \"0.25\" }",
        "mark BTC 100 | vote ema long",
        expect![[r#"
        refused buy 25 BTC: max_position_share 0.25 (allowed 0.2)
    "#]],
    );
    check_with(
        "sizing = { share = \"0.2\" }",
        "mark BTC 100 | vote ema long",
        expect![[r#"
        order buy 20 BTC stop 95
    "#]],
    );
}

#[test]
fn gross_exposure() {
    let narrow = "limits = { gross_exposure = { share_max = \"0.2\" } }";
    check_with(
        narrow,
        "mark BTC 100 | mark ETH 10 | mark SPOT 1 | vote ema long | vote ema short ETH | vote ema long SPOT",
        expect![[r#"
            order buy 10 BTC stop 95
            order sell 100 ETH stop 10.5
            refused buy 1000 SPOT: gross_exposure 0.3 (allowed 0.2)
        "#]],
    );
}

#[test]
fn net_exposure() {
    let narrow = "limits = { net_exposure = { share_max = \"0.1\" } }";
    check_with(
        narrow,
        "mark BTC 100 | mark ETH 10 | vote ema long | vote ema long ETH | vote ema short ETH",
        expect![[r#"
            order buy 10 BTC stop 95
            refused buy 100 ETH: net_exposure 0.2 (allowed 0.1)
            order sell 100 ETH stop 10.5
        "#]],
    );
}

#[test]
fn leverage() {
    let geared = "sizing = { by = \"notional\", notional = \"60000\" }\n[risk.limits.max_position_share]\non = false\n[risk.limits.gross_exposure]\non = false\n[risk.limits.net_exposure]\non = false";
    check_with(
        geared,
        "mark BTC 100 | mark ETH 10 | vote ema long | fill | vote ema short ETH",
        expect![[r#"
        order buy 600 BTC stop 95
        refused sell 6000 ETH: leverage 12 (allowed 10)
    "#]],
    );
}

#[test]
fn order_rate() {
    let slow = "limits = { order_rate = { orders_max = 1, window_ms = 2000 } }";
    check_with(
        slow,
        "mark BTC 100 | mark ETH 10 | vote ema long | vote ema long ETH | wait 2s | mark ETH 10 | vote ema long ETH",
        expect![[r#"
            order buy 10 BTC stop 95
            refused buy 100 ETH: order_rate 2 (allowed 1)
            order buy 100 ETH stop 9.5
        "#]],
    );
}

#[test]
fn daily_loss_and_drawdown() {
    // The loss is there and has not lasted yet: nothing is opened, nothing is closed.
    let tape = "mark BTC 100 | mark ETH 10 | vote ema long | fill | mark BTC 80 | vote ema long ETH | mark BTC 95 | vote rsi long ETH";
    check_with(
        "limits = { daily_loss = { share_max = \"0.015\" } }",
        tape,
        expect![[r#"
        order buy 10 BTC stop 95
        refused buy 98 ETH: daily_loss 0.02 (allowed 0.015)
        order buy 99.5 ETH stop 9.5
    "#]],
    );
    check_with(
        "limits = { drawdown = { share_max = \"0.015\" } }",
        tape,
        expect![[r#"
        order buy 10 BTC stop 95
        refused buy 98 ETH: drawdown 0.02 (allowed 0.015)
        order buy 99.5 ETH stop 9.5
    "#]],
    );
}

#[test]
fn stop_distance() {
    check(
        "mark BTC 100 | vote ema long stop=84 | vote ema long stop=101 | vote ema long stop=85",
        expect![[r#"
        refused buy 10 BTC: stop_distance 0.16 (allowed 0.15)
        order buy 10 BTC stop 85
    "#]],
    );
    check_with(
        "protect = { from = \"signal\" }",
        "mark BTC 100 | vote ema long | vote rsi long stop=99",
        expect![[r#"
        refused buy 10 BTC: stop_distance none (allowed 0.15)
        order buy 10 BTC stop 99
    "#]],
    );
}
