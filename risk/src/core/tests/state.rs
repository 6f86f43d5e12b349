//! ACTIVE, REDUCING, HALTED: who sets them and what they do.

use expect_test::expect;

use crate::tape::{Desk, check, check_with};

/// Nine tenths of the equity in one position, so that a price can cost it.
const LARGE: &str = "sizing = { share = \"0.9\" }
[risk.limits.max_position_share]
on = false
[risk.limits.net_exposure]
on = false";

#[test]
fn a_drawdown_closes_everything_and_halts() {
    check_with(
        LARGE,
        "mark BTC 100 | mark ETH 100 | vote ema long | fill | mark BTC 66 | mark BTC 65 | wait 1s | fill | vote ema long | vote ema flat | wait 60s",
        expect![[r#"
            order buy 90 BTC stop 95
            order sell 90 BTC reduce-only
            HALTED by drawdown, closing everything: 3150 of 10000 lost since the peak
        "#]],
    );
}

#[test]
fn one_bad_print_halts_nothing() {
    check_with(
        LARGE,
        "mark BTC 100 | vote ema long | fill | mark BTC 60 | mark BTC 100 | wait 5s | mark BTC 100",
        expect![[r#"
            order buy 90 BTC stop 95
        "#]],
    );
}

#[test]
fn an_emergency_cancels_entries_and_closes_what_they_filled_all_the_same() {
    check_with(
        LARGE,
        "mark BTC 100 | mark ETH 100 | vote ema long | fill | vote ema long ETH | mark BTC 65 | wait 1s | fill",
        expect![[r#"
            order buy 90 BTC stop 95
            order buy 90 ETH stop 95
            cancel ETH: drawdown: 3150 of 10000 lost since the peak
            order sell 90 BTC reduce-only
            HALTED by drawdown, closing everything: 3150 of 10000 lost since the peak
            order sell 90 ETH reduce-only
        "#]],
    );
}

#[test]
fn an_emergency_close_is_tried_again_when_it_is_rejected_and_gives_up_aloud() {
    check_with(
        &format!("orders = {{ closes_max = 2 }}\n{LARGE}"),
        "mark BTC 100 | vote ema long | fill | mark BTC 65 | wait 1s | reject | wait 1s | reject | wait 1s | wait 60s | operator halted flatten | fill",
        expect![[r#"
            order buy 90 BTC stop 95
            order sell 90 BTC reduce-only
            HALTED by drawdown, closing everything: 3150 of 10000 lost since the peak
            order sell 90 BTC reduce-only
            refused sell 90 BTC: closes_max 2 (allowed 2)
            order sell 90 BTC reduce-only
            HALTED by operator, closing everything: by an operator
        "#]],
    );
}

#[test]
fn a_daily_loss_reduces_until_the_next_day() {
    // The tape starts at 13:46:40 UTC.
    check_with(
        LARGE,
        "mark BTC 100 | vote ema long | fill | mark BTC 87 | wait 1s | mark ETH 100 | vote ema long ETH | vote ema flat | fill | wait 36800s | mark ETH 100 | vote ema long ETH",
        expect![[r#"
            order buy 90 BTC stop 95
            REDUCING by daily_loss: 1170 of 10000 lost since 00:00 UTC
            refused buy 79.47 ETH: trading_state reducing (allowed active)
            order sell 90 BTC reduce-only
            ACTIVE by daily_loss: a new day
            order buy 79.47 ETH stop 95
        "#]],
    );
}

#[test]
fn a_daily_loss_can_halt_and_then_only_an_operator_wakes() {
    check_with(
        &format!("{LARGE}\n[risk.limits.daily_loss]\nthen = \"halted\""),
        "mark BTC 100 | vote ema long | fill | mark BTC 87 | wait 1s | vote ema flat | wait 36800s | vote ema flat | operator active | mark BTC 87 | vote rsi flat",
        expect![[r#"
            order buy 90 BTC stop 95
            HALTED by daily_loss: 1170 of 10000 lost since 00:00 UTC
            refused sell 90 BTC: trading_state halted (allowed active)
            refused sell 90 BTC: trading_state halted (allowed active)
            ACTIVE by operator: by an operator
            order sell 90 BTC reduce-only
        "#]],
    );
}

#[test]
fn an_operator_halts_cancels_entries_and_strategies_close_nothing() {
    check(
        "mark BTC 100 | mark ETH 10 | vote ema long | fill | vote ema long ETH | operator halted | done | vote ema flat | operator active | vote ema flat",
        expect![[r#"
            order buy 10 BTC stop 95
            order buy 100 ETH stop 9.5
            cancel ETH: by an operator
            HALTED by operator: by an operator
            refused sell 10 BTC: trading_state halted (allowed active)
            ACTIVE by operator: by an operator
            order sell 10 BTC reduce-only
        "#]],
    );
}

#[test]
fn an_operator_flattens_in_any_state() {
    check(
        "mark BTC 100 | vote ema long | fill | operator halted flatten | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
        HALTED by operator, closing everything: by an operator
    "#]],
    );
    check(
        "mark BTC 100 | vote ema long | fill | operator active flatten | vote rsi long | fill | vote ema long | vote macd long",
        expect![[r#"
            order buy 10 BTC stop 95
            order sell 10 BTC reduce-only
            ACTIVE by operator, closing everything: by an operator
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn after_an_operator_has_woken_it_losses_are_counted_from_there() {
    check_with(
        LARGE,
        "mark BTC 100 | vote ema long | fill | mark BTC 65 | wait 1s | fill | operator active | mark BTC 65 | wait 5s | mark BTC 65 | vote ema short",
        expect![[r#"
            order buy 90 BTC stop 95
            order sell 90 BTC reduce-only
            HALTED by drawdown, closing everything: 3150 of 10000 lost since the peak
            ACTIVE by operator: by an operator
            order sell 94.846 BTC stop 68.2
        "#]],
    );
}

#[test]
fn the_mirror_of_our_own_state_is_not_an_operators_word() {
    check(
        "echo halted | mark BTC 100 | vote ema long",
        expect![[r#"
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn our_own_state_is_mirrored_and_an_operators_is_not() {
    use schemas::Speak;
    let state = |by: &str| {
        crate::Out::State(schemas::desk::DeskState {
            v: schemas::Version,
            account: "main".into(),
            state: Default::default(),
            flatten: false,
            by: by.into(),
            reason: String::new(),
            ts_ns: 0,
            cause: None,
        })
    };
    assert_eq!(state("drawdown").mirror(), Some(("cfg".into(), "desk.main".into())));
    assert_eq!(state("operator").mirror(), None);
}

#[test]
fn equity_follows_the_mark_of_what_is_held() {
    let desk = Desk::run("", "mark BTC 100 | vote ema long | fee 2 | fill | mark BTC 103");
    assert_eq!(desk.core.equity().to_string(), "10028");
}
