//! Scripts of both markets' connections: what happens to them, and what they ask for.

use expect_test::expect;
use schemas::Nanos;
use simulator::mexc::proto::Message;

use super::{Kind, check_channel};
use crate::session::tests::{Bench, plan};
use crate::session::{Command, Tail};

const DEALS: &str = "spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT";
const DEPTH: &str = "spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT";

fn ack(channel: &str) -> String {
    format!(r#"{{"id":0,"code":0,"msg":"{channel}"}}"#)
}

fn head(channel: &str, ms: i64) -> Message {
    Message::default().text(1, channel).text(3, "BTCUSDT").int(6, ms)
}

/// Trades as (ms, size, id).
fn deals(rows: &[(i64, &str, &str)]) -> Vec<u8> {
    let row = |(ms, size, id): &(i64, &str, &str)| {
        Message::default().text(1, "1").text(2, size).int(3, 1).int(4, *ms).text(5, id)
    };
    let body = rows.iter().fold(Message::default(), |body, r| body.message(1, row(r)));
    head(DEALS, rows.last().map_or(0, |r| r.0)).message(314, body).0
}

fn depth(ms: i64, from: u64, to: u64) -> Vec<u8> {
    let body = Message::default().text(4, &from.to_string()).text(5, &to.to_string());
    head(DEPTH, ms).message(313, body).0
}

/// REST trades as (ms, size), the newest first as the venue answers.
fn history(rows: &[(i64, &str)]) -> String {
    let row = |(ms, size): &(i64, &str)| {
        format!(r#"{{"id":null,"price":"1","qty":"{size}","time":{ms},"isBuyerMaker":false,"tradeType":"BID"}}"#)
    };
    format!("[{}]", rows.iter().rev().map(row).collect::<Vec<_>>().join(","))
}

fn snapshot(id: u64) -> String {
    format!(r#"{{"lastUpdateId":{id},"bids":[["1","1"]],"asks":[["2","1"]]}}"#)
}

const BOTH: &[&str] = &["spot@public.aggre.deals.v3.api.pb@100ms@{}", "spot@public.aggre.depth.v3.api.pb@100ms@{}"];

/// A spot channel of [`BOTH`], acknowledged.
fn subscribed(channels: &[&str], ours: &str) -> Bench {
    Bench::new("mexc", &plan("mexc", &["BTCUSDT"], channels, &[]))
        .open()
        .frame("ack", &ack(ours))
        .said(&format!("open\n  send {{\"method\":\"SUBSCRIPTION\",\"params\":[\"{ours}\"]}}\nack (whole)\n"))
}

/// The trades alone.
fn following() -> Bench {
    subscribed(&BOTH[..1], DEALS)
}

/// One trade has come.
fn traded() -> Bench {
    following()
        .binary("trade", &deals(&[(1001, "1", "1X0_2X0")]))
        .said("trade (whole)\n  trade BTCUSDT 1001000 (1X0_2X0)\n")
}

/// The connection was cut behind it, and the trades are subscribed again.
fn reconnected() -> Bench {
    traded().close().open().until(1100).said(concat!(
        "close\n  GAP BTCUSDT link 1001..: cut\n",
        "open\ntimer 1025\n",
        "  send {\"method\":\"SUBSCRIPTION\",\"params\":[\"spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT\"]}\n",
    ))
}

#[test]
fn spot_is_whole_when_each_channel_was_answered_with_its_name() {
    Bench::new("mexc", &plan("mexc", &["BTCUSDT"], BOTH, &[]))
        .open()
        .frame("first ack", &ack(DEALS))
        .until(1025)
        .frame("second ack", &ack(DEPTH))
        .binary("trade", &deals(&[(1030, "1", "1X0_2X0")]))
        .binary("the same again", &deals(&[(1030, "1", "1X0_2X0")]))
        .end(expect![[r#"
            open
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            first ack
            timer 1025
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT"]}
            second ack (whole)
            trade (whole)
              trade BTCUSDT 1030000 (1X0_2X0)
            the same again (whole)
        "#]]);
}

#[test]
fn a_refused_channel_is_a_gap_that_lasts_although_its_code_is_0() {
    let refusal = format!(r#"{{"id":0,"code":0,"msg":"Not Subscribed successfully! [{DEALS}].  Reason： Blocked! "}}"#);
    Bench::new("mexc", &plan("mexc", &["BTCUSDT"], BOTH, &[]))
        .open()
        .until(1025)
        .frame("ack", &ack(DEPTH))
        .frame("refusal", &refusal)
        .end(expect![[r#"
            open
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            timer 1025
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT"]}
            ack
            refusal (whole)
              warn the venue refused a request: 0 Not Subscribed successfully! [spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT].  Reason： Blocked!
              warn the venue did not subscribe spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT
              GAP BTCUSDT trade 1025..: the venue did not subscribe spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT
        "#]]);
}

#[test]
fn a_channel_that_is_never_answered_ends_the_connection() {
    Bench::new("mexc", &plan("mexc", &["BTCUSDT"], &BOTH[..1], &[])).open().until(12_000).end(expect![[r#"
        open
          send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
        timer 11000
          RECONNECT after 0 ms: no answer to a request for 10000 ms
    "#]]);
}

#[test]
fn the_connection_pings_in_the_venues_words_and_wants_the_answer() {
    following()
        .until(21_500)
        .frame("pong", r#"{"id":0,"code":0,"msg":"PONG"}"#)
        .binary("trade", &deals(&[(21_500, "1", "1X0_2X0")]))
        .until(43_000)
        .binary("trade", &deals(&[(43_000, "1", "3X0_4X0")]))
        .until(52_000)
        .end(expect![[r#"
            timer 21000 (whole)
              send {"method":"PING"}
            pong (whole)
            trade (whole)
              trade BTCUSDT 21500000 (1X0_2X0)
            timer 36500 (whole)
              stale true
            timer 41000 (whole)
              send {"method":"PING"}
            trade (whole)
              trade BTCUSDT 43000000 (3X0_4X0)
              stale false
            timer 51000 (whole)
              RECONNECT after 0 ms: no answer to a request for 10000 ms
        "#]]);
}

#[test]
fn a_spot_book_starts_from_rest_and_starts_again_behind_a_missing_version() {
    subscribed(&BOTH[1..], DEPTH)
        .binary("100-104", &depth(1001, 100, 104))
        .binary("105-106", &depth(1002, 105, 106))
        .http(1, 200, &snapshot(90))
        .until(2100)
        .http(2, 200, &snapshot(103))
        .binary("105-106 again", &depth(1003, 105, 106))
        .binary("107-107", &depth(1004, 107, 107))
        .binary("109-110", &depth(1005, 109, 110))
        .until(2500)
        .http(3, 200, &snapshot(120))
        .binary("119-121", &depth(1006, 119, 121))
        .end(expect![[r#"
            100-104 (whole)
              fetch 1 /api/v3/depth?symbol=BTCUSDT&limit=5000
            105-106 (whole)
            http 1 200 (whole)
            timer 2000 (whole)
              fetch 2 /api/v3/depth?symbol=BTCUSDT&limit=5000
            http 2 200 (whole)
              book BTCUSDT snapshot 103
              book BTCUSDT update 104
              book BTCUSDT update 106
            105-106 again (whole)
            107-107 (whole)
              book BTCUSDT update 107
            109-110 (whole)
              GAP BTCUSDT book 1005..: book sequence 109 after 107
            timer 2250 (whole)
              fetch 3 /api/v3/depth?symbol=BTCUSDT&limit=5000
            http 3 200 (whole)
              GAP BTCUSDT book 1005..1005: book sequence 109 after 107
              book BTCUSDT snapshot 120
            119-121 (whole)
              book BTCUSDT update 121
        "#]]);
}

#[test]
fn behind_a_reconnect_rest_fills_the_hole_without_ids_and_nothing_comes_twice() {
    following()
        .binary("trades", &deals(&[(1001, "1", "1X0_2X0"), (1001, "1", "3X0_4X0")]))
        .close()
        .open()
        .until(1100)
        // Data may come before the answer; it waits for the history.
        .binary("trade before the ack", &deals(&[(1009, "3", "9X0_10X0")]))
        .frame("ack", &ack(DEALS))
        // What stands before our first trade is not of our time.
        .http(1, 200, &history(&[(1000, "5"), (1001, "1"), (1001, "1"), (1005, "2"), (1009, "3")]))
        .binary("trade that rest had told", &deals(&[(1005, "2", "5X0_6X0")]))
        .binary("trade", &deals(&[(1010, "1", "11X0_12X0")]))
        .end(expect![[r#"
            trades (whole)
              trade BTCUSDT 1001000 (1X0_2X0)
              trade BTCUSDT 1001001 (3X0_4X0)
            close
              GAP BTCUSDT link 1001..: cut
            open
            timer 1025
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            trade before the ack
              GAP BTCUSDT link 1001..1009: cut
            ack
              fetch 1 /api/v3/trades?symbol=BTCUSDT&limit=1000
            http 1 200 (whole)
              trade BTCUSDT 1005000 (1005/buy/1/2/1) from the past
              trade BTCUSDT 1009000 (9X0_10X0)
            trade that rest had told (whole)
            trade (whole)
              trade BTCUSDT 1010000 (11X0_12X0)
        "#]]);
}

#[test]
fn a_process_that_starts_again_knows_its_stored_trades_in_an_answer_without_ids() {
    let mut plan = plan("mexc", &["BTCUSDT"], &BOTH[..1], &[]);
    let stored = [("1X0_2X0", 1001), ("3X0_4X0", 1002), ("5X0_6X0", 1002)];
    let venue_ids = stored.map(|(id, ms)| (id.to_owned(), Nanos::from_ms(ms))).to_vec();
    plan.last_trades.insert("BTCUSDT".to_owned(), Tail { id: 1_002_001, ts: Nanos::from_ms(1002), venue_ids });
    Bench::new("mexc", &plan)
        .open()
        .frame("ack", &ack(DEALS))
        // A third one of the last moment was not stored, nor what follows.
        .http(1, 200, &history(&[(1000, "5"), (1001, "1"), (1002, "1"), (1002, "1"), (1002, "2"), (1004, "1")]))
        .binary("trade that rest had told", &deals(&[(1004, "1", "9X0_10X0")]))
        .binary("trade", &deals(&[(1005, "1", "11X0_12X0")]))
        .end(expect![[r#"
            open
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            ack
              fetch 1 /api/v3/trades?symbol=BTCUSDT&limit=1000
            http 1 200 (whole)
              trade BTCUSDT 1002002 (1002/buy/1/2/1) from the past
              trade BTCUSDT 1004000 (1004/buy/1/1/1) from the past
            trade that rest had told (whole)
            trade (whole)
              trade BTCUSDT 1005000 (11X0_12X0)
        "#]]);
}

#[test]
fn history_that_does_not_reach_back_to_what_is_stored_is_a_gap() {
    reconnected().frame("ack", &ack(DEALS)).http(1, 200, &history(&[(1005, "2"), (1009, "3")])).end(expect![[r#"
            ack
              fetch 1 /api/v3/trades?symbol=BTCUSDT&limit=1000
            http 1 200 (whole)
              GAP BTCUSDT trade 1001..: what the venue still has of its trades does not reach back to ours
              GAP BTCUSDT trade 1001..1005: what the venue still has of its trades does not reach back to ours
              trade BTCUSDT 1005000 (1005/buy/1/2/1) from the past
              trade BTCUSDT 1009000 (1009/buy/1/3/1) from the past
        "#]]);
}

#[test]
fn an_answer_that_is_older_than_what_was_pushed_is_asked_for_again_and_then_a_gap() {
    reconnected()
        .frame("ack", &ack(DEALS))
        .binary("trade", &deals(&[(1090, "3", "9X0_10X0")]))
        .http(1, 200, &history(&[(1001, "1"), (1050, "2")]))
        .until(1500)
        .http(2, 200, &history(&[(1001, "1"), (1050, "2"), (1060, "2")]))
        .end(expect![[r#"
            ack
              fetch 1 /api/v3/trades?symbol=BTCUSDT&limit=1000
            trade
              GAP BTCUSDT link 1001..1090: cut
            http 1 200
            timer 1350
              fetch 2 /api/v3/trades?symbol=BTCUSDT&limit=1000
            http 2 200 (whole)
              GAP BTCUSDT trade 1060..1090: what the venue tells of its trades does not reach up to what it pushed
              trade BTCUSDT 1050000 (1050/buy/1/2/1) from the past
              trade BTCUSDT 1060000 (1060/buy/1/2/1) from the past
              trade BTCUSDT 1090000 (9X0_10X0)
        "#]]);
}

#[test]
fn what_still_comes_of_a_symbol_that_was_left_says_nothing() {
    let leave = Command::Unsubscribe { symbol: "BTCUSDT".to_owned() };
    let come = Command::Subscribe { symbol: "BTCUSDT".to_owned() };
    traded()
        .until(1100)
        .command("leave", leave)
        .binary("trade", &deals(&[(1002, "1", "3X0_4X0")]))
        .frame("ack", &ack(DEALS))
        .until(1200)
        .command("come back", come)
        .frame("ack", &ack(DEALS))
        .binary("trade", &deals(&[(1003, "1", "5X0_6X0")]))
        .end(expect![[r#"
            leave (whole)
              send {"method":"UNSUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            trade (whole)
            ack (whole)
            come back (whole)
              send {"method":"SUBSCRIPTION","params":["spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"]}
            ack (whole)
            trade (whole)
              trade BTCUSDT 1003000 (5X0_6X0)
        "#]]);
}

#[test]
fn trades_that_cannot_be_read_are_asked_for() {
    let cut = deals(&[(1002, "2", "3X0_4X0")]);
    traded()
        .binary("a cut frame", &cut[..cut.len() / 2])
        .http(1, 200, &history(&[(1001, "1"), (1002, "2")]))
        .binary("trade", &deals(&[(1003, "1", "5X0_6X0")]))
        .end(expect![[r#"
            a cut frame
              DEAD cut: 47 bytes announced, 41 there
              fetch 1 /api/v3/trades?symbol=BTCUSDT&limit=1000
            http 1 200 (whole)
              trade BTCUSDT 1002000 (1002/buy/1/2/1) from the past
            trade (whole)
              trade BTCUSDT 1003000 (5X0_6X0)
        "#]]);
}

fn contract_deal(ms: i64, id: &str) -> String {
    format!(
        r#"{{"channel":"push.deal","data":[{{"p":1,"v":1,"T":1,"O":3,"M":2,"t":{ms},"i":"{id}"}}],"symbol":"BTC_USDT","ts":{ms}}}"#
    )
}

fn contract_depth(ms: i64, version: u64) -> String {
    format!(
        r#"{{"channel":"push.depth","data":{{"asks":[],"bids":[],"version":{version}}},"symbol":"BTC_USDT","ts":{ms}}}"#
    )
}

#[test]
fn contract_answers_are_taken_in_the_order_of_their_method_and_an_error_by_the_contract_that_it_names() {
    let success = |method: &str| format!(r#"{{"channel":"rs.{method}","data":"success","ts":1}}"#);
    Bench::new("mexc-contract", &plan("mexc-contract", &["BTC_USDT", "X_USDT"], &["deal@{}", "kline@{}@Min1"], &[]))
        .open()
        .until(1100)
        .frame("deal", &success("sub.deal"))
        .frame("error", r#"{"channel":"rs.error","data":"Contract [X_USDT] not exists","ts":1}"#)
        .frame("kline", &success("sub.kline"))
        .frame("error", r#"{"channel":"rs.error","data":"Contract [X_USDT] not exists","ts":1}"#)
        .end(expect![[r#"
            open
              send {"method":"sub.deal","param":{"symbol":"BTC_USDT"}}
            timer 1025
              send {"method":"sub.kline","param":{"interval":"Min1","symbol":"BTC_USDT"}}
            timer 1050
              send {"method":"sub.deal","param":{"symbol":"X_USDT"}}
            timer 1075
              send {"method":"sub.kline","param":{"interval":"Min1","symbol":"X_USDT"}}
            deal
            error
              warn the venue refused a request: Contract [X_USDT] not exists
              warn the venue did not subscribe deal@X_USDT
              GAP X_USDT trade 1100..: the venue did not subscribe deal@X_USDT
            kline
            error (whole)
              warn the venue refused a request: Contract [X_USDT] not exists
              warn the venue did not subscribe kline@X_USDT@Min1
              GAP X_USDT channel 1100..: the venue did not subscribe kline@X_USDT@Min1
        "#]]);
}

#[test]
fn a_contract_book_counts_versions_behind_a_rest_snapshot() {
    let body = |version: u64| {
        format!(
            r#"{{"success":true,"code":0,"data":{{"asks":[[2,1,1]],"bids":[[1,1,1]],"version":{version},"timestamp":1002}}}}"#
        )
    };
    Bench::new("mexc-contract", &plan("mexc-contract", &["BTC_USDT"], &["depth@{}", "deal@{}"], &[]))
        .open()
        .until(1025)
        .frame("depth", r#"{"channel":"rs.sub.depth","data":"success","ts":1}"#)
        .frame("deal", r#"{"channel":"rs.sub.deal","data":"success","ts":1}"#)
        .frame("11", &contract_depth(1001, 11))
        .frame("12", &contract_depth(1002, 12))
        .http(1, 429, "")
        .until(8500)
        .http(2, 200, &body(11))
        .frame("13", &contract_depth(1003, 13))
        .frame("15", &contract_depth(1004, 15))
        .http(3, 200, &body(15))
        .frame("trade", &contract_deal(1005, "7"))
        .end(expect![[r#"
            open
              send {"method":"sub.depth","param":{"symbol":"BTC_USDT"}}
            timer 1025
              send {"method":"sub.deal","param":{"symbol":"BTC_USDT"}}
            depth
            deal (whole)
            11 (whole)
              fetch 1 /api/v1/contract/depth/BTC_USDT?limit=1000
            12 (whole)
            http 1 429 (whole)
              warn the venue asks for quiet: status 429 for 7 s
            timer 8025 (whole)
              fetch 2 /api/v1/contract/depth/BTC_USDT?limit=1000
            http 2 200 (whole)
              book BTC_USDT snapshot 11
              book BTC_USDT update 12
            13 (whole)
              book BTC_USDT update 13
            15 (whole)
              GAP BTC_USDT book 1004..: book sequence 15 after 13
              fetch 3 /api/v1/contract/depth/BTC_USDT?limit=1000
            http 3 200 (whole)
              GAP BTC_USDT book 1004..1004: book sequence 15 after 13
              book BTC_USDT snapshot 15
            trade (whole)
              trade BTC_USDT 1005000 (7)
        "#]]);
}

#[test]
fn a_channel_is_checked_against_what_the_market_has() {
    for (kind, good) in [
        (Kind::Spot, "spot@public.aggre.deals.v3.api.pb@100ms@{}"),
        (Kind::Spot, "spot@public.limit.depth.v3.api.pb@{}@20"),
        (Kind::Spot, "spot@public.kline.v3.api.pb@{}@Min15"),
        (Kind::Contract, "deal@{}"),
        (Kind::Contract, "kline@{}@Hour4"),
        (Kind::Contract, "tickers"),
    ] {
        check_channel(kind, good).unwrap();
    }
    for (kind, bad) in [
        (Kind::Spot, "spot@public.deals.v3.api.pb@{}"),
        (Kind::Spot, "spot@public.aggre.deals.v3.api.pb@{}"),
        (Kind::Spot, "spot@public.aggre.deals.v3.api@100ms@{}"),
        (Kind::Spot, "deal@{}"),
        (Kind::Contract, "kline@{}@3m"),
        (Kind::Contract, "deal"),
    ] {
        assert!(check_channel(kind, bad).unwrap_err().contains("allowed are"), "{bad}");
    }
}
