//! Tapes: words in, orders out; `tape.rs` explains the words.

use expect_test::expect;
use proptest::prelude::*;
use schemas::Core;

use crate::tape::{Desk, check, check_with};

mod closes;
mod limits;
mod policies;
mod state;

#[test]
fn a_second_vote_for_the_same_side_orders_nothing() {
    check(
        "mark BTC 100 | vote ema long | vote ema long",
        expect![[r#"
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn a_filled_order_is_not_given_again_by_votes_that_repeat_themselves() {
    check(
        "mark BTC 100 | vote ema long | fill | mark BTC 101 | vote ema long | wait 5s | mark BTC 99 | vote ema long",
        expect![[r#"
            order buy 10 BTC stop 95
        "#]],
    );
}

#[test]
fn an_order_is_a_share_of_equity_rounded_down_to_lots_with_a_stop_on_the_tick() {
    check(
        "mark BTC 97.3 | vote ema long",
        expect![[r#"
        order buy 10.277 BTC stop 92.5
    "#]],
    );
    check(
        "mark BTC 97.3 | vote ema short",
        expect![[r#"
        order sell 10.277 BTC stop 102.1
    "#]],
    );
}

#[test]
fn the_signals_own_protective_prices_are_used() {
    check(
        "mark BTC 100 | vote ema long stop=93.33 take=120.06",
        expect![[r#"
        order buy 10 BTC stop 93.4 take 120
    "#]],
    );
}

#[test]
fn a_limit_entry_rests_at_its_offset() {
    check_with(
        "entry = { kind = \"limit\", offset_bps = \"20\", post_only = true }",
        "mark BTC 100 | vote ema short",
        expect![[r#"
            order sell 10 BTC limit 100.2 stop 105
        "#]],
    );
}

#[test]
fn an_intent_is_said_for_news_only() {
    check(
        "show intents | mark BTC 100 | vote ema long | vote ema long | fill | vote ema long | vote rsi long | vote ema long | vote rsi short | vote rsi short",
        expect![[r#"
            intent long target 10 held 0 working 0: order (1 of 1 weight)
              ema long weight 1
            order buy 10 BTC stop 95
            intent long target 10 held 10 working 0: none (2 of 2 weight; it is held)
              ema long weight 1
              rsi long weight 1
            intent none target 10 held 10 working 0: none (tie)
              ema long weight 1
              rsi short weight 1
        "#]],
    );
}

#[test]
fn no_opinion_is_not_a_sell() {
    check(
        "show intents | mark BTC 100 | vote ema long valid=10s | fill | wait 20s | vote rsi short age=5s valid=1s",
        expect![[r#"
            intent long target 10 held 0 working 0: order (1 of 1 weight)
              ema long weight 1
            order buy 10 BTC stop 95
            intent none target 10 held 10 working 0: none (0 of 1 votes needed)
              ema long weight 1 not counted: ran out 10000 ms ago
              rsi short weight 1 not counted: ran out 4000 ms ago
        "#]],
    );
    check(
        "mark BTC 100 | vote ema long | fill | vote rsi short",
        expect![[r#"
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn flat_closes_what_is_held_and_nothing_where_nothing_is() {
    check(
        "mark BTC 100 | vote ema flat | vote ema long | fill | vote ema flat | fill | vote ema flat",
        expect![[r#"
        order buy 10 BTC stop 95
        order sell 10 BTC reduce-only
    "#]],
    );
}

#[test]
fn a_turn_is_one_order_from_the_old_position_to_the_new() {
    check(
        "show positions | mark BTC 100 | vote ema long | fill | mark BTC 110 | vote ema short | fee 0.1 | fill",
        expect![[r#"
            order buy 10 BTC stop 95
            position BTC 10 at 100, realised 0, unrealised 0, fees 0, funding 0
            order sell 19.181 BTC stop 115.5
            position BTC -9.181 at 110, realised 100, unrealised 0, fees 0.1, funding 0
        "#]],
    );
}

#[test]
fn where_the_opening_half_of_a_turn_is_refused_the_closing_half_goes_alone() {
    check(
        "mark SPOT 100 | vote ema long SPOT | fill | vote ema short SPOT",
        expect![[r#"
        order buy 10 SPOT stop 95
        refused sell 20 SPOT: spot_short -10 (allowed 0)
        order sell 10 SPOT reduce-only
    "#]],
    );
    check(
        "mark BTC 100 | vote ema long | fill | gap BTC 5s | vote ema short | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        refused sell 20 BTC: market_data_gap 999995000000000 (allowed none)
        order sell 10 BTC reduce-only
    "#]],
    );
}

#[test]
fn a_further_vote_for_the_held_side_can_take_off_and_not_put_on() {
    let both = "sizing = { strength = \"scaled\", resize = \"both\" }";
    let tape = "mark BTC 100 | vote ema long 0.5 | fill | vote ema long 1 | fill | vote ema long 0.4";
    check_with(
        "sizing = { strength = \"scaled\" }",
        tape,
        expect![[r#"
        order buy 5 BTC stop 95
        order sell 1 BTC reduce-only
    "#]],
    );
    check_with(
        both,
        tape,
        expect![[r#"
        order buy 5 BTC stop 95
        order buy 5 BTC stop 95
        order sell 6 BTC reduce-only
    "#]],
    );
    check_with(
        "sizing = { strength = \"scaled\", resize = \"never\" }",
        tape,
        expect![[r#"
        order buy 5 BTC stop 95
    "#]],
    );
    // A change below a fifth of the target is not worth its fee.
    check_with(
        both,
        "mark BTC 100 | vote ema long 0.5 | fill | vote ema long 0.6",
        expect![[r#"
        order buy 5 BTC stop 95
    "#]],
    );
}

#[test]
fn what_a_stop_has_closed_is_not_opened_again_by_votes_that_repeat_themselves() {
    let tape = "mark BTC 100 | vote ema long | fill | outside sell 10 at 95 | mark BTC 95 | vote ema long";
    check(
        tape,
        expect![[r#"
        order buy 10 BTC stop 95
    "#]],
    );
    check(
        &format!("{tape} | vote rsi long"),
        expect![[r#"
        order buy 10 BTC stop 95
        order buy 10.473 BTC stop 90.3
    "#]],
    );
    check_with(
        "sizing = { reenter = true }",
        tape,
        expect![[r#"
        order buy 10 BTC stop 95
        order buy 10.473 BTC stop 90.3
    "#]],
    );
}

#[test]
fn an_order_that_came_to_nothing_may_be_given_again() {
    check(
        "mark BTC 100 | vote ema long | reject | vote ema long | done | vote ema long",
        expect![[r#"
        order buy 10 BTC stop 95
        order buy 10 BTC stop 95
        order buy 10 BTC stop 95
    "#]],
    );
}

#[test]
fn a_vote_against_an_entry_on_its_way_cancels_it_and_is_decided_when_it_has_ended() {
    check(
        "mark BTC 100 | vote ema long | vote ema short | vote ema short | done",
        expect![[r#"
        order buy 10 BTC stop 95
        cancel BTC: 1 of 1 weight; the entry of the other side is cancelled first
        order sell 10 BTC stop 105
    "#]],
    );
    // It was filled before the cancellation came: then the turn is one order.
    check(
        "mark BTC 100 | vote ema long | vote ema short | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        cancel BTC: 1 of 1 weight; the entry of the other side is cancelled first
        order sell 20 BTC stop 105
    "#]],
    );
    // A part was filled.
    check(
        "mark BTC 100 | vote ema long | fill 4 | vote ema flat | done | fill",
        expect![[r#"
        order buy 10 BTC stop 95
        cancel BTC: 1 of 1 weight; the entry is cancelled first
        order sell 4 BTC reduce-only
    "#]],
    );
}

#[test]
fn an_entry_that_does_not_end_in_time_is_cancelled_a_bounded_number_of_times() {
    check_with(
        "orders = { cancels_max = 2 }",
        "mark BTC 100 | vote ema long | wait 90s",
        expect![[r#"
        order buy 10 BTC stop 95
        cancel BTC: it has not ended in time
        cancel BTC: the cancellation was not answered
        refused buy 10 BTC: cancels_max 2 (allowed 2)
    "#]],
    );
}

#[test]
fn an_older_signal_than_the_strategys_vote_moves_nothing() {
    check("mark BTC 100 | vote ema flat | vote ema long age=5s", expect![""]);
}

#[test]
fn a_program_outside_votes_under_its_own_name() {
    check(
        "show intents | mark BTC 100 | vote ema long | vote ema short ext",
        expect![[r#"
        intent long target 10 held 0 working 0: order (1 of 1 weight)
          ema long weight 1
        order buy 10 BTC stop 95
        intent none target 10 held 0 working 10: none (tie)
          ema long weight 1
          ext/ema short weight 1
    "#]],
    );
}

#[test]
fn a_fill_that_is_delivered_twice_moves_the_position_once() {
    let mut desk = Desk::run("", "mark BTC 100 | vote ema long | fill 4");
    let mut order = crate::limit::testing::sound().order;
    order.id = desk.core.working().next().unwrap().to_owned();
    let fill = schemas::exec::Fill {
        v: schemas::Version,
        account: "main".into(),
        id: order.id,
        n: 1,
        venue: order.venue,
        symbol: order.symbol,
        side: order.side,
        price: "100".parse().unwrap(),
        qty: "4".parse().unwrap(),
        fee: Default::default(),
        liquidity: schemas::exec::Liquidity::Taker,
        reduce_only: false,
        left: "6".parse().unwrap(),
        why: String::new(),
        ts_ns: 0,
        cause: Default::default(),
    };
    desk.hear(crate::In::Fill(Box::new(fill.clone())));
    assert_eq!(desk.core.held("binance", "BTC").to_string(), "4");
    desk.hear(crate::In::Fill(Box::new(schemas::exec::Fill { account: "other".into(), n: 7, ..fill })));
    assert_eq!(desk.core.held("binance", "BTC").to_string(), "4");
}

#[test]
fn money_is_told_at_fills_payments_and_full_minutes() {
    check(
        "show account | mark BTC 100 | vote ema long | fee 1 | fill | mark BTC 110 | funding BTC -3 | wait 61s",
        expect![[r#"
            account cash 10000 equity 10000 unrealised 0 realised 0 fees 0 day 10000 peak 10000 drawdown 0 gross 0 net 0
            order buy 10 BTC stop 95
            account cash 8999 equity 9999 unrealised 0 realised 0 fees 1 day 10000 peak 10000 drawdown 0.0001 gross 1000 net 1000
            account cash 8996 equity 10096 unrealised 100 realised 0 fees 1 day 10000 peak 10099 drawdown 0.000297059115 gross 1100 net 1100
            account cash 8996 equity 10096 unrealised 100 realised 0 fees 1 day 10000 peak 10099 drawdown 0.000297059115 gross 1100 net 1100
        "#]],
    );
}

#[test]
fn positions_are_told_with_their_entry_and_what_they_earned() {
    check(
        "show positions | mark BTC 100 | vote ema long | fee 1 | fill 4 | mark BTC 102 | fill at 101 | funding BTC -3 | vote ema flat | fill at 105",
        expect![[r#"
            order buy 10 BTC stop 95
            position BTC 4 at 100, realised 0, unrealised 0, fees 1, funding 0
            position BTC 10 at 100.6, realised 0, unrealised 14, fees 2, funding 0
            position BTC 10 at 100.6, realised 0, unrealised 14, fees 2, funding -3
            order sell 10 BTC reduce-only
            position BTC 0 at -, realised 44, unrealised 0, fees 3, funding -3
        "#]],
    );
}

#[test]
fn a_losing_streak_stops_a_strategy_from_opening_and_not_from_closing() {
    check_with(
        "cool_down = { losses_in_row = 1, pause_ms = 60000 }",
        "show intents | mark BTC 100 | vote ema long | fill | mark BTC 99 | vote ema flat | fill | vote ema long | wait 61s | mark BTC 99 | vote ema long",
        expect![[r#"
            intent long target 10 held 0 working 0: order (1 of 1 weight)
              ema long weight 1
            order buy 10 BTC stop 95
            intent flat target 0 held 10 working 0: order (1 of 1 weight)
              ema flat weight 1
            order sell 10 BTC reduce-only
            intent none target 0 held 0 working 0: none (0 of 1 votes needed)
              ema long weight 1 not counted: cooling down
            intent long target 10.09 held 0 working 0: order (1 of 1 weight)
              ema long weight 1
            order buy 10.09 BTC stop 94.1
        "#]],
    );
}

#[test]
fn weights_follow_the_trades_that_a_strategys_votes_opened() {
    check_with(
        "weights = { on = true }",
        "show intents | mark BTC 100 | vote ema long | fill | mark BTC 110 | vote ema flat | fill | vote ema long | vote rsi short",
        expect![[r#"
            intent long target 10 held 0 working 0: order (0.5 of 0.5 weight)
              ema long weight 0.5
            order buy 10 BTC stop 95
            intent flat target 0 held 10 working 0: order (0.5 of 0.5 weight)
              ema flat weight 0.5
            order sell 10 BTC reduce-only
            intent long target 9.181 held 0 working 0: order (0.75 of 0.75 weight)
              ema long weight 0.75
            order buy 9.181 BTC stop 104.5
            intent long target 9.181 held 0 working 9.181: none (0.75 of 1.25 weight; an entry is on its way)
              ema long weight 0.75
              rsi short weight 0.5
        "#]],
    );
}

/// Steps that make sense in any order.
fn step() -> impl Strategy<Value = String> {
    let symbol = prop::sample::select(vec!["BTC", "ETH", "SPOT"]);
    let strategy = prop::sample::select(vec!["ema", "rsi", "macd"]);
    let side = prop::sample::select(vec!["long", "flat", "short"]);
    prop_oneof![
        4 => (symbol.clone(), 60i64..140).prop_map(|(s, p)| format!("mark {s} {p}")),
        1 => (symbol.clone(), 60i64..140).prop_map(|(s, p)| format!("quote {s} {p} {}", p + 1)),
        6 => (symbol.clone(), strategy, side, 1i64..10).prop_map(|(s, v, w, n)| format!("vote {v} {w} {s} 0.{n}")),
        1 => Just("vote ema long again".to_owned()),
        3 => Just("fill".to_owned()),
        2 => Just("fill 0.5".to_owned()),
        1 => Just("reject".to_owned()),
        1 => Just("done".to_owned()),
        1 => Just("fee 0.03".to_owned()),
        1 => (symbol.clone(), -9i64..9).prop_map(|(s, a)| format!("funding {s} {a}")),
        3 => (1i64..90).prop_map(|s| format!("wait {s}s")),
        1 => Just("silence 30s".to_owned()),
        1 => symbol.prop_map(|s| format!("gap {s} 5s")),
        1 => prop::sample::select(vec!["active", "active flatten", "reducing", "halted", "halted flatten"]).prop_map(|s| format!("operator {s}")),
        1 => Just("outside sell 1 at 90".to_owned()),
    ]
}

fn settings() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "policy = { name = \"weighted_sum\" }\nweights = { on = true }\nsizing = { strength = \"scaled\", resize = \"both\" }",
        "policy = { name = \"leader\", leader = \"rsi\" }\nentry = { kind = \"limit\", offset_bps = \"5\" }\ncool_down = { losses_in_row = 1 }",
        "policy = { name = \"risk_override\", guardians = [\"macd\"] }\nsizing = { by = \"qty\", qty = \"3\", reenter = true }\nlimits = { daily_loss = { share_max = \"0.01\", then = \"halted\", confirm_ms = 0 } }",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_core_that_is_saved_and_restored_anywhere_says_the_same_bytes(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..60),
        at in 0usize..60,
    ) {
        let mut whole = Desk::new(settings);
        let mut restored = Desk::new(settings);
        for (i, step) in steps.iter().enumerate() {
            if i == at {
                let saved = restored.core.save();
                let mut fresh = crate::RiskCore::new("main", &crate::tape::config(settings)).unwrap();
                fresh.restore(&saved).unwrap();
                prop_assert_eq!(fresh.save(), saved);
                restored.core = fresh;
            }
            whole.step(step);
            restored.step(step);
        }
        prop_assert_eq!(&whole.text, &restored.text);
        prop_assert_eq!(&whole.said, &restored.said);
        prop_assert_eq!(whole.core.save(), restored.core.save());
    }

    /// R-1, R-5, R-6 on whole tapes; R-7 is asserted by the core at every account fact.
    #[test]
    fn on_any_tape_reduce_only_orders_reduce_and_a_halted_account_opens_nothing(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut desk = Desk::new(settings);
        for step in &steps {
            let trading = desk.core.trading();
            let from = desk.text.len();
            desk.step(step);
            let said = &desk.text[from..];
            for line in said.lines().filter(|line| line.starts_with("order ")) {
                if !line.ends_with("reduce-only") {
                    let woken = step.starts_with("operator active") || step.starts_with("wait");
                    prop_assert!(trading == schemas::desk::TradingState::Active || woken, "{step}: {line}");
                }
            }
        }
        let held_by_fills = desk.core.held("binance", "BTC");
        prop_assert_eq!(held_by_fills, desk.held_by_fills("BTC"));
    }
}

#[test]
fn an_instrument_with_terms_outlives_a_restart() {
    use schemas::instrument::Terms;
    let mut core = crate::RiskCore::new("main", &crate::tape::config("")).unwrap();
    let mut out = Vec::new();
    // As a spot market has them: no settlement, no expiry, no strike.
    let terms = Terms { status: "TRADING".into(), canonical: "BTC/USDT".into(), ..Terms::default() };
    let listed = schemas::Instrument { terms, ..crate::tape::instrument("BTC") };
    core.handle(&schemas::Place::new("DESK_main", 1), crate::In::Instrument(Box::new(listed)), &mut out).unwrap();
    let saved = core.save();
    let mut again = crate::RiskCore::new("main", &crate::tape::config("")).unwrap();
    again.restore(&saved).unwrap();
    assert_eq!(again.save(), saved);
}
