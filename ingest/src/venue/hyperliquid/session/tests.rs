//! Scripts: what happens to a session, and what it asks for.

use expect_test::expect;
use serde_json::json;

use crate::session::tests::{Bench, plan};

/// Trades as (tid, time in ms).
fn trades(coin: &str, rows: &[(u64, i64)]) -> String {
    let row = |&(tid, time): &(u64, i64)| json!({ "coin": coin, "side": "B", "px": "61800.0", "sz": "0.5", "time": time, "hash": "0x0", "tid": tid, "users": [] });
    json!({ "channel": "trades", "data": rows.iter().map(row).collect::<Vec<_>>() }).to_string()
}

fn ack(method: &str, kind: &str, coin: &str) -> String {
    let data = json!({ "method": method, "subscription": { "type": kind, "coin": coin } });
    json!({ "channel": "subscriptionResponse", "data": data }).to_string()
}

fn book(time: i64, bid: &str, ask: &str) -> String {
    let level = |px: &str| json!([{ "px": px, "sz": "1.0", "n": 1 }]);
    json!({ "channel": "l2Book", "data": { "coin": "BTC", "time": time, "levels": [level(bid), level(ask)] } })
        .to_string()
}

#[test]
fn each_channel_is_a_message_and_the_first_trades_are_the_past() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades", "{}@candle.1m"], &[]))
        .open()
        .until(1040)
        .frame("history", &trades("BTC", &[(900, 10), (17, 20), (450, 20)]))
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("candle ack", r#"{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"candle","interval":"1m","coin":"BTC"}}}"#)
        .frame("trade", &trades("BTC", &[(3, 20)]))
        .frame("the same trade", &trades("BTC", &[(3, 20)]))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1040
              send {"method":"subscribe","subscription":{"coin":"BTC","interval":"1m","type":"candle"}}
            history
              trade BTC 10000 (900) from the past
              trade BTC 20000 (17) from the past
              trade BTC 20001 (450) from the past
            ack
            candle ack (whole)
            trade (whole)
              trade BTC 20002 (3)
            the same trade (whole)
        "#]]);
}

#[test]
fn what_was_missed_comes_with_the_next_subscription_and_a_known_trade_proves_that_nothing_is_missing() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10)]))
        .frame("trade", &trades("BTC", &[(17, 20)]))
        .close()
        .until(1100)
        .open()
        .frame("history", &trades("BTC", &[(17, 20), (450, 25), (8, 30)]))
        .frame("a trade before the ack", &trades("BTC", &[(5, 40)]))
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack (whole)
            history (whole)
              trade BTC 10000 (900) from the past
            trade (whole)
              trade BTC 20000 (17)
            close
              GAP BTC link 20..: cut
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            history
            a trade before the ack
              GAP BTC link 20..40: cut
            ack (whole)
              trade BTC 25000 (450) from the past
              trade BTC 30000 (8) from the past
              trade BTC 40000 (5)
            trade (whole)
              trade BTC 50000 (4)
        "#]]);
}

#[test]
fn history_that_does_not_reach_back_is_a_gap_and_so_is_none_at_all() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10)]))
        .close()
        .until(1100)
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(450, 25), (8, 30)]))
        .close()
        .until(1200)
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .until(12_000)
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack (whole)
            history (whole)
              trade BTC 10000 (900) from the past
            close
              GAP BTC link 10..: cut
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack
            history (whole)
              GAP BTC trade 10..: what the venue still has of its trades does not reach back to ours
              GAP BTC trade 10..25: what the venue still has of its trades does not reach back to ours
              trade BTC 25000 (450) from the past
              trade BTC 30000 (8) from the past
            close
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack
            timer 11200 (whole)
              warn backfill BTC: the venue sent no history
              GAP BTC trade 30..: what the venue still has of its trades does not reach back to ours
            trade (whole)
              GAP BTC trade 30..50: what the venue still has of its trades does not reach back to ours
              trade BTC 50000 (4) from the past
        "#]]);
}

#[test]
fn a_broken_frame_that_may_have_held_trades_asks_for_those_of_its_coin_again() {
    let half = trades("BTC", &[(450, 25)]);
    let half = &half[..half.len() / 2];
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC", "ETH"], &["{}@trades"], &[]))
        .open()
        .until(1040)
        .frame("BTC ack", &ack("subscribe", "trades", "BTC"))
        .frame("ETH ack", &ack("subscribe", "trades", "ETH"))
        .frame("BTC history", &trades("BTC", &[(900, 10)]))
        .frame("ETH history", &trades("ETH", &[(901, 11)]))
        .frame("half a quote", r#"{"channel":"bbo","data":{"coi"#)
        .frame("half a trade", half)
        .until(1200)
        .frame("a trade on its way", &trades("BTC", &[(8, 30)]))
        .frame("left", &ack("unsubscribe", "trades", "BTC"))
        .frame("back", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10), (450, 25), (8, 30)]))
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .frame("a frame that says nothing", r#"{"channel":"tra"#)
        .until(1400)
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1040
              send {"method":"subscribe","subscription":{"coin":"ETH","type":"trades"}}
            BTC ack
            ETH ack (whole)
            BTC history (whole)
              trade BTC 10000 (900) from the past
            ETH history (whole)
              trade ETH 11000 (901) from the past
            half a quote (whole)
              DEAD EOF while parsing a string at line 1 column 29
            half a trade
              DEAD EOF while parsing a string at line 1 column 62
            timer 1080
              send {"method":"unsubscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1120
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            a trade on its way
            left
            back
            history (whole)
              trade BTC 25000 (450) from the past
              trade BTC 30000 (8)
            trade (whole)
              trade BTC 50000 (4)
            a frame that says nothing
              DEAD EOF while parsing a string at line 1 column 15
              send {"method":"unsubscribe","subscription":{"coin":"ETH","type":"trades"}}
            timer 1240
              send {"method":"subscribe","subscription":{"coin":"ETH","type":"trades"}}
        "#]]);
}

#[test]
fn an_unknown_coin_is_refused_and_told_as_a_gap_that_lasts() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["NOPE"], &["{}@trades"], &[]))
        .open()
        .frame("error", r#"{"channel":"error","data":"Invalid subscription {\"type\":\"trades\",\"coin\":\"NOPE\"}"}"#)
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"NOPE","type":"trades"}}
            error (whole)
              warn the venue refused a request: Invalid subscription {"type":"trades","coin":"NOPE"}
              warn the venue did not subscribe NOPE@trades
              GAP NOPE trade 1000..: the venue did not subscribe NOPE@trades
        "#]]);
}

#[test]
fn books_replace_each_other_by_time_and_a_crossed_one_is_not_published() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@l2Book"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "l2Book", "BTC"))
        .frame("book", &book(500, "10.0", "11.0"))
        .frame("the same time", &book(500, "10.0", "11.0"))
        .frame("an older one", &book(499, "9.0", "10.0"))
        .frame("a crossed one", &book(1000, "12.0", "11.0"))
        .http(1, 200, r#"{"coin":"BTC","time":1200,"levels":[[],[]]}"#)
        .frame("the next", &book(1500, "10.0", "11.0"))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"l2Book"}}
            ack (whole)
            book (whole)
              book BTC snapshot at 500
            the same time (whole)
              book BTC snapshot at 500
            an older one (whole)
            a crossed one (whole)
              GAP BTC book 1000..: the book is crossed: bid 12, ask 11
              fetch 1 /info {"coin":"BTC","type":"l2Book"}
            http 1 200 (whole)
              GAP BTC book 1000..1200: the book is crossed: bid 12, ask 11
              book BTC snapshot at 1200
            the next (whole)
              book BTC snapshot at 1500
        "#]]);
}

#[test]
fn a_quiet_market_is_pinged_and_a_ping_without_an_answer_ends_the_connection() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10)]))
        .until(21_500)
        .frame("pong", r#"{"channel":"pong"}"#)
        .frame("trade", &trades("BTC", &[(4, 20_000)]))
        .until(51_000)
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack (whole)
            history (whole)
              trade BTC 10000 (900) from the past
            timer 16000 (whole)
              stale true
            timer 21000 (whole)
              send {"method":"ping"}
            pong (whole)
            trade (whole)
              trade BTC 20000000 (4)
              stale false
            timer 36500 (whole)
              stale true
            timer 41000 (whole)
              send {"method":"ping"}
            timer 51000 (whole)
              RECONNECT after 0 ms: no answer to a request for 10000 ms
        "#]]);
}
