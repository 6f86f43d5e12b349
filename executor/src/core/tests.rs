use expect_test::expect;
use proptest::prelude::*;
use schemas::desk::Order;
use schemas::{Core, Instrument, Place, Qty, Speak, WireError};

use crate::config::{Config, Queue, Trigger};
use crate::core::{ExecutorCore, In, Out};
use crate::tape::{Tape, check, check_with, config, instrument};
use crate::venue::{ExecVenue, Report, Tick};

fn with(model: &str, change: impl FnOnce(&mut Config)) -> Config {
    let mut c = config(model);
    change(&mut c);
    c
}

#[test]
fn a_market_order_fills_at_the_first_trade_behind_it() {
    check(
        "next_trade",
        "trade 100 x5 | order buy 2 BTC | trade 101 x5 | trade 102 x5",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@101 taker fee 0.202 left 0: next trade 3 at 101
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn an_order_waits_for_its_latency() {
    let config = with("next_trade", |c| c.fill.latency_ns = 3_000_000_000);
    check_with(
        &config,
        "order buy 2 BTC | trade 101 x5 @1 | trade 102 x5 @4 | trade 103 x5 @5",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@102 taker fee 0.204 left 0: next trade 3 at 102
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn a_trade_fills_at_most_its_own_size() {
    check(
        "next_trade",
        "order buy 10 BTC | trade 100 x4 | trade 101 x1 | trade 102 x50",
        expect![[r#"
        sending o1 buy 10 market
        ack o1
        fill o1 1 4@100 taker fee 0.4 left 6: next trade 2 at 100
        fill o1 2 1@101 taker fee 0.101 left 5: next trade 3 at 101
        fill o1 3 5@102 taker fee 0.51 left 0: next trade 4 at 102
        done o1 Filled 10
    "#]],
    );
}

#[test]
fn two_orders_share_one_trade_in_the_order_of_their_placing() {
    check(
        "next_trade",
        "order buy 3 BTC | order buy 3 BTC | trade 100 x4 | trade 101 x4",
        expect![[r#"
        sending o1 buy 3 market
        ack o1
        sending o2 buy 3 market
        ack o2
        fill o1 1 3@100 taker fee 0.3 left 0: next trade 3 at 100
        done o1 Filled 3
        fill o2 1 1@100 taker fee 0.1 left 2: next trade 3 at 100
        fill o2 2 2@101 taker fee 0.202 left 0: next trade 4 at 101
        done o2 Filled 3
    "#]],
    );
}

#[test]
fn without_partial_fills_the_next_trade_fills_all() {
    let config = with("next_trade", |c| c.fill.partial_by_trade_size = false);
    check_with(
        &config,
        "order buy 10 BTC | trade 100 x4",
        expect![[r#"
        sending o1 buy 10 market
        ack o1
        fill o1 1 10@100 taker fee 1 left 0: next trade 2 at 100
        done o1 Filled 10
    "#]],
    );
}

#[test]
fn slippage_is_rounded_against_us_to_the_tick() {
    let config = with("next_trade", |c| c.fill.slippage_bps = "1".parse().unwrap());
    check_with(
        &config,
        "order buy 1 BTC | trade 100 x4 | order sell 1 BTC | trade 100 x4",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100.5 taker fee 0.1005 left 0: next trade 2 at 100
        done o1 Filled 1
        sending o2 sell 1 market
        ack o2
        fill o2 1 1@99.5 taker fee 0.0995 left 0: next trade 4 at 100
        done o2 Filled 1
    "#]],
    );
}

#[test]
fn slippage_stops_at_the_limit() {
    let config = with("next_trade", |c| c.fill.slippage_bps = "100".parse().unwrap());
    check_with(
        &config,
        "trade 99 x1 | order buy 1 BTC limit=100 | trade 100 x4",
        expect![[r#"
        sending o1 buy 1 limit 100
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 3 at 100
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn a_print_through_a_resting_limit_fills_it_as_maker_at_its_own_price() {
    check(
        "next_trade",
        "trade 100 x1 | order buy 2 BTC limit=99 | trade 99 x9 sell | trade 98.5 x9 sell",
        expect![[r#"
        sending o1 buy 2 limit 99
        ack o1
        fill o1 1 2@99 maker fee 0 left 0: trade 4 at 98.5 printed through limit 99
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn a_print_at_the_limit_fills_only_behind_the_queue_that_was_shown() {
    check(
        "next_trade",
        "quote 99x5 101x5 | order buy 2 BTC limit=99 | trade 99 x3 sell | trade 99 x1 buy | trade 99 x3 sell | trade 99 x9 sell",
        expect![[r#"
        sending o1 buy 2 limit 99
        ack o1
        fill o1 1 1@99 maker fee 0 left 1: trade 5 at limit 99 passed the queue of 2
        fill o1 2 1@99 maker fee 0 left 0: trade 6 at limit 99 passed the queue of 0
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn an_order_that_betters_the_best_price_has_no_queue_before_it() {
    check(
        "next_trade",
        "quote 99x5 101x5 | order buy 2 BTC limit=100 | trade 100 x3 sell",
        expect![[r#"
        sending o1 buy 2 limit 100
        ack o1
        fill o1 1 2@100 maker fee 0 left 0: trade 3 at limit 100 passed the queue of 0
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn with_queue_through_a_print_at_the_limit_fills_nothing() {
    let config = with("next_trade", |c| c.fill.queue = Queue::Through);
    check_with(
        &config,
        "quote 99x5 101x5 | order buy 2 BTC limit=100 | trade 100 x3 sell | trade 99.5 x3 sell",
        expect![[r#"
        sending o1 buy 2 limit 100
        ack o1
        fill o1 1 2@100 maker fee 0 left 0: trade 4 at 99.5 printed through limit 100
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn a_limit_that_crosses_takes_at_the_trade_and_pays_as_taker() {
    check(
        "next_trade",
        "trade 100 x1 | order buy 2 BTC limit=101 | trade 100.5 x1 | trade 100 x9 sell",
        expect![[r#"
        sending o1 buy 2 limit 101
        ack o1
        fill o1 1 1@100.5 taker fee 0.1005 left 1: next trade 3 at 100.5
        fill o1 2 1@101 maker fee 0 left 0: trade 4 at 100 printed through limit 101
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn post_only_is_rejected_where_it_would_take() {
    check(
        "next_trade",
        "quote 99x5 101x5 | order buy 1 BTC limit=101 post | order buy 1 BTC limit=100 post | trade 99 x1 sell",
        expect![[r#"
        sending o1 buy 1 limit 101
        reject o1 post_only
        sending o2 buy 1 limit 100
        ack o2
        fill o2 1 1@100 maker fee 0 left 0: trade 4 at 99 printed through limit 100
        done o2 Filled 1
    "#]],
    );
}

#[test]
fn immediate_or_cancel_has_one_chance() {
    check(
        "next_trade",
        "trade 100 x1 | order buy 3 BTC limit=101 ioc | trade 100 x2 | order buy 3 BTC limit=99 ioc | trade 100 x2",
        expect![[r#"
        sending o1 buy 3 limit 101
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 1: next trade 3 at 100
        done o1 Expired 2: immediate or cancel: the rest found nothing
        sending o2 buy 3 limit 99
        ack o2
        done o2 Expired 0: immediate or cancel: the rest found nothing
    "#]],
    );
}

#[test]
fn fill_or_kill_takes_all_or_nothing() {
    check(
        "book",
        "quote 99x5 101x5 | order buy 6 BTC fok | order buy 5 BTC fok",
        expect![[r#"
        sending o1 buy 6 market
        ack o1
        done o1 Expired 0: fill or kill: 5 of 6 were there
        sending o2 buy 5 market
        ack o2
        fill o2 1 5@101 taker fee 0.505 left 0: quote level 1 at 101
        done o2 Filled 5
    "#]],
    );
}

#[test]
fn a_market_order_walks_the_levels_of_the_book() {
    check(
        "book",
        "book bids=99x1 asks=101x1,102x2,103x5 | order buy 4 BTC | update asks=101x1",
        expect![[r#"
        sending o1 buy 4 market
        ack o1
        fill o1 1 1@101 taker fee 0.101 left 3: book walk level 1 at 101
        fill o1 2 2@102 taker fee 0.204 left 1: book walk level 2 at 102
        fill o1 3 1@103 taker fee 0.103 left 0: book walk level 3 at 103
        done o1 Filled 4
    "#]],
    );
}

#[test]
fn what_we_took_from_the_book_is_gone_until_it_is_told_again() {
    check(
        "book",
        "book asks=101x1,102x2 | order buy 2 BTC | order buy 2 BTC | update asks=102x4",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 1@101 taker fee 0.101 left 1: book walk level 1 at 101
        fill o1 2 1@102 taker fee 0.102 left 0: book walk level 2 at 102
        done o1 Filled 2
        sending o2 buy 2 market
        ack o2
        fill o2 1 1@102 taker fee 0.102 left 1: book walk level 1 at 102
        fill o2 2 1@102 taker fee 0.102 left 0: book walk level 1 at 102
        done o2 Filled 2
    "#]],
    );
}

#[test]
fn without_a_book_the_best_quote_fills_and_the_rest_waits_for_the_next() {
    check(
        "book",
        "quote 99x1 101x2 | order buy 3 BTC | trade 101 x9 | quote 99x1 101.5x2",
        expect![[r#"
        sending o1 buy 3 market
        ack o1
        fill o1 1 2@101 taker fee 0.202 left 1: quote level 1 at 101
        fill o1 2 1@101.5 taker fee 0.1015 left 0: quote level 1 at 101.5
        done o1 Filled 3
    "#]],
    );
}

#[test]
fn where_nothing_is_shown_the_next_trade_fills() {
    check(
        "book",
        "order buy 3 BTC | trade 101 x2 | quote 99x1 102x5",
        expect![[r#"
            sending o1 buy 3 market
            ack o1
            fill o1 1 2@101 taker fee 0.202 left 1: next trade 2 at 101
            fill o1 2 1@102 taker fee 0.102 left 0: quote level 1 at 102
            done o1 Filled 3
        "#]],
    );
}

#[test]
fn behind_a_gap_the_book_is_not_used() {
    check(
        "book",
        "book asks=101x5 | gap | order buy 1 BTC | update asks=101x4 | book asks=103x4",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@103 taker fee 0.103 left 0: book walk level 1 at 103
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn a_resting_limit_fills_when_the_other_side_is_shown_at_its_price() {
    check(
        "book",
        "book bids=99x1 asks=101x1 | order buy 2 BTC limit=100 | update asks=100x1 | update asks=99.5x9",
        expect![[r#"
        sending o1 buy 2 limit 100
        ack o1
        fill o1 1 1@100 maker fee 0 left 1: shown price 100 reached limit 100
        fill o1 2 1@100 maker fee 0 left 0: shown price 99.5 reached limit 100
        done o1 Filled 2
    "#]],
    );
}

#[test]
fn a_limit_beyond_the_book_takes_up_to_its_price_and_rests() {
    check(
        "book",
        "book bids=99x1 asks=101x1,103x5 | order buy 3 BTC limit=102 | trade 102 x1 sell",
        expect![[r#"
        sending o1 buy 3 limit 102
        ack o1
        fill o1 1 1@101 taker fee 0.101 left 2: book walk level 1 at 101
        fill o1 2 1@102 maker fee 0 left 1: trade 3 at limit 102 passed the queue of 0
    "#]],
    );
}

#[test]
fn orders_fill_at_the_open_of_the_next_candle() {
    check(
        "next_open",
        "candle 100 110 90 105 @1 | order buy 1 BTC @2 | candle 106 110 90 105 @2",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@106 taker fee 0.106 left 0: next open 106
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn an_order_decided_at_an_open_that_is_known_fills_there() {
    check(
        "next_open",
        "open 106 @2 | order buy 1 BTC @2 | candle 106 110 90 105 @2",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@106 taker fee 0.106 left 0: next open 106
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn an_order_given_inside_a_candle_waits_for_the_next_one() {
    check(
        "next_open",
        "candle 100 110 90 105 @1 | order buy 1 BTC @1.5 | candle 106 110 90 105 @2",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@106 taker fee 0.106 left 0: next open 106
        done o1 Filled 1
    "#]],
    );
}

#[test]
fn a_candle_that_holds_stop_and_take_profit_is_counted_as_stopped() {
    check(
        "next_open",
        "candle 100 101 99 100 @1 | order buy 1 BTC stop=95 take=105 @2 | open 100 @2 | candle 100 106 94 100 @2",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next open 100
        done o1 Filled 1
        sending p1 sell 1 stop 95 for o1
        sending p2 sell 1 takeprofit 105 for o1
        ack p1
        ack p2
        fill p1 1 1@95 taker fee 0.095 left 0: candle traded to 94, trigger 95
        done p1 Filled 1
        done p2 Cancelled 0: reduce-only and nothing is left to reduce
    "#]],
    );
}

#[test]
fn a_candle_that_opens_beyond_the_stop_fills_at_its_open() {
    check(
        "next_open",
        "candle 100 101 99 100 @1 | order buy 1 BTC stop=95 @2 | open 100 @2 | candle 100 101 99 100 @2 | candle 90 91 89 90 @3",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next open 100
        done o1 Filled 1
        sending p1 sell 1 stop 95 for o1
        ack p1
        fill p1 1 1@90 taker fee 0.09 left 0: open 90 beyond trigger 95
        done p1 Filled 1
    "#]],
    );
}

#[test]
fn a_limit_inside_a_candles_range_fills_as_maker() {
    check(
        "next_open",
        "candle 100 101 99 100 @1 | order buy 1 BTC limit=95 @2 | candle 100 101 95 100 @2 | candle 100 101 94.5 100 @3 | order sell 1 BTC limit=99 reduce @4 | candle 100 101 94 100 @4",
        expect![[r#"
        sending o1 buy 1 limit 95
        ack o1
        fill o1 1 1@95 maker fee 0 left 0: candle traded to 94.5, limit 95
        done o1 Filled 1
        sending o2 sell 1 limit 99
        ack o2
        fill o2 1 1@100 taker fee 0.1 left 0: next open 100
        done o2 Filled 1
    "#]],
    );
}

#[test]
fn an_entry_is_protected_from_its_first_partial_fill_on() {
    check(
        "next_trade",
        "order buy 10 BTC stop=90 take=120 | trade 100 x4 | trade 101 x9",
        expect![[r#"
        sending o1 buy 10 market
        ack o1
        fill o1 1 4@100 taker fee 0.4 left 6: next trade 2 at 100
        sending p1 sell 4 stop 90 for o1
        sending p2 sell 4 takeprofit 120 for o1
        ack p1
        ack p2
        fill o1 2 6@101 taker fee 0.606 left 0: next trade 3 at 101
        done o1 Filled 10
        sending p3 sell 10 stop 90 for o1
        sending p4 sell 10 takeprofit 120 for o1
        ack p3
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
        ack p4
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
    "#]],
    );
}

#[test]
fn the_stop_fires_fills_and_takes_the_take_profit_with_it() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 take=120 | trade 100 x9 | trade 90 x1 sell | trade 89.5 x1 sell | trade 89 x9 sell | trade 130 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        fill p1 1 1@89.5 taker fee 0.0895 left 1: next trade 4 at 89.5
        sending p3 sell 1 takeprofit 120 for o1
        ack p3
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
        fill p1 2 1@89 taker fee 0.089 left 0: next trade 5 at 89
        done p1 Filled 2
        done p3 Cancelled 0: reduce-only and nothing is left to reduce
    "#]],
    );
}

#[test]
fn the_take_profit_fires_and_takes_the_stop_with_it() {
    check(
        "book",
        "quote 99x9 100x9 | order buy 2 BTC stop=90 take=120 | quote 119.5x9 120.5x9 | trade 120 x1 | trade 80 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: quote level 1 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        fill p2 1 2@119.5 taker fee 0.239 left 0: quote level 1 at 119.5
        done p2 Filled 2
        done p1 Cancelled 0: the position that it protects is gone
    "#]],
    );
}

#[test]
fn a_close_by_another_order_shrinks_and_then_ends_the_protection() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 | trade 100 x9 | order sell 0.5 BTC reduce | trade 101 x9 | order sell 5 BTC reduce | trade 102 x9 | trade 80 x9",
        expect![[r#"
            sending o1 buy 2 market
            ack o1
            fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
            done o1 Filled 2
            sending p1 sell 2 stop 90 for o1
            ack p1
            sending o2 sell 0.5 market
            ack o2
            fill o2 1 0.5@101 taker fee 0.0505 left 0: next trade 4 at 101
            done o2 Filled 0.5
            sending p2 sell 1.5 stop 90 for o1
            ack p2
            done p1 Cancelled 0: replaced: the position or the price that it protects changed
            sending o3 sell 5 market
            ack o3
            fill o3 1 1.5@102 taker fee 0.153 left 3.5: next trade 6 at 102
            done o3 Cancelled 1.5: reduce-only and nothing is left to reduce
            done p2 Cancelled 0: the position that it protects is gone
        "#]],
    );
}

#[test]
fn a_second_entry_brings_its_own_prices_for_all_that_is_held() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 | trade 100 x9 | order buy 1 BTC stop=95 | trade 102 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        ack p1
        sending o2 buy 1 market
        ack o2
        fill o2 1 1@102 taker fee 0.102 left 0: next trade 4 at 102
        done o2 Filled 1
        sending p2 sell 3 stop 95 for o2
        ack p2
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
    "#]],
    );
}

#[test]
fn an_order_that_turns_the_position_ends_the_old_protection_and_starts_its_own() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 take=120 | trade 100 x9 | order sell 3 BTC stop=110 | trade 101 x1 | trade 101 x9 | trade 111 x1 | trade 111 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        sending o2 sell 3 market
        ack o2
        fill o2 1 1@101 taker fee 0.101 left 2: next trade 4 at 101
        sending p3 sell 1 stop 90 for o1
        sending p4 sell 1 takeprofit 120 for o1
        ack p3
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
        ack p4
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
        fill o2 2 2@101 taker fee 0.202 left 0: next trade 5 at 101
        done o2 Filled 3
        sending p5 buy 1 stop 110 for o2
        done p4 Cancelled 0: reduce-only and nothing is left to reduce
        done p3 Cancelled 0: reduce-only and nothing is left to reduce
        ack p5
        fill p5 1 1@111 taker fee 0.111 left 0: next trade 7 at 111
        done p5 Filled 1
    "#]],
    );
}

#[test]
fn a_short_is_protected_on_the_other_side() {
    check(
        "next_trade",
        "order sell 1 BTC stop=110 take=80 | trade 100 x9 | trade 109 x1 | trade 80 x1 | trade 79 x1",
        expect![[r#"
        sending o1 sell 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
        sending p1 buy 1 stop 110 for o1
        sending p2 buy 1 takeprofit 80 for o1
        ack p1
        ack p2
        fill p2 1 1@79 taker fee 0.079 left 0: next trade 5 at 79
        done p2 Filled 1
        done p1 Cancelled 0: the position that it protects is gone
    "#]],
    );
}

#[test]
fn stops_on_mark_prices_ignore_trades() {
    let config = with("next_trade", |c| c.fill.trigger = Trigger::Mark);
    check_with(
        &config,
        "ticker mark=100 | order buy 1 BTC stop=90 | trade 100 x9 | trade 80 x1 | ticker mark=89 | trade 85 x9",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 3 at 100
        done o1 Filled 1
        sending p1 sell 1 stop 90 for o1
        ack p1
        fill p1 1 1@85 taker fee 0.085 left 0: next trade 6 at 85
        done p1 Filled 1
    "#]],
    );
}

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

/// A venue that takes everything, fills market orders at once at 100 and refuses stops.
#[derive(Default)]
struct NoStops;

impl ExecVenue for NoStops {
    fn instrument(&mut self, _: &Instrument) {}
    fn admits(&self, _: &Order) -> Result<(), (&'static str, String)> {
        Ok(())
    }
    fn place(&mut self, order: &Order, _: Qty, out: &mut Vec<Report>) {
        let (id, ts_ns) = (order.id.clone(), order.ts_ns);
        if order.trigger.is_some() {
            out.push(Report::Rejected { id, code: "venue", reason: "no stops here".into(), ts_ns });
            return;
        }
        out.push(Report::Acked { id: id.clone(), venue_order_id: "v1".into(), ts_ns });
        let (price, fee) = ("100".parse().unwrap(), Default::default());
        out.push(Report::Filled {
            id,
            price,
            qty: order.qty,
            fee,
            liquidity: schemas::exec::Liquidity::Taker,
            why: "at once".into(),
            ts_ns,
        });
    }
    fn cancel(&mut self, _: &Order, _: i64, _: &str, _: &mut Vec<Report>) {}
    fn watches(&self, _: &str, _: &str, _: Qty) -> bool {
        false
    }
    fn tick(&mut self, _: &str, _: &str, _: i64, _: Tick<'_>, _: Qty, _: &mut Vec<Report>) {}
    fn waiting(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
}

#[test]
fn a_venue_that_refuses_the_stop_gets_a_market_close_instead() {
    let mut tape = Tape::at_venue(&config("next_trade"), Box::new(NoStops));
    expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0 left 0: at once
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        reject p1 venue
        sending p3 sell 2 market for o1
        reject p2 venue
        ack p3
        fill p3 1 2@100 taker fee 0 left 0: at once
        done p3 Filled 2
    "#]]
    .assert_eq(tape.play("order buy 2 BTC stop=90 take=120").log());
    assert!(tape.core.held("binance-usdm", "BTC").is_zero());
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
            Out::Funding(_) => {}
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
