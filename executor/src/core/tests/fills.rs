//! When, at what price and how much of an order executes.

use expect_test::expect;

use super::with;
use crate::config::Queue;
use crate::tape::{check, check_with};

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
