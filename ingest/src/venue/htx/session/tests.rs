//! HTX's connections under a script.

use expect_test::expect;

use crate::session::Command;
use crate::session::tests::{Bench, plan};
use crate::venue;

const SPOT: &[&str] = &["market.{}.trade.detail"];
const FEED: &[&str] = &["market.{}.mbp.150"];
const SWAP: &[&str] = &["market.{}.trade.detail", "market.{}.depth.size_150.high_freq"];

fn subbed(id: u64, channel: &str) -> String {
    format!(r#"{{"id":"{id}","status":"ok","subbed":"{channel}","ts":1}}"#)
}

/// Newest first, as the venue sends them.
fn trades(symbol: &str, ids: &[u64]) -> String {
    format!(r#"{{"ch":"market.{symbol}.trade.detail","ts":9,"tick":{{"id":1,"ts":9,"data":[{}]}}}}"#, rows(ids))
}

fn rows(ids: &[u64]) -> String {
    let row =
        |id: &u64| format!(r#"{{"id":1{id:027},"ts":{id},"tradeId":{id},"amount":2,"price":1,"direction":"buy"}}"#);
    ids.iter().rev().map(row).collect::<Vec<_>>().join(",")
}

/// Swaps have no tradeId.
fn swap_trades(ids: &[u64]) -> String {
    let row = |id: &u64| format!(r#"{{"id":{id},"ts":{id},"amount":2,"price":1,"direction":"buy"}}"#);
    let rows: Vec<_> = ids.iter().map(row).collect();
    format!(r#"{{"ch":"market.BTC-USDT.trade.detail","ts":9,"tick":{{"id":1,"ts":9,"data":[{}]}}}}"#, rows.join(","))
}

fn history(ids: &[u64]) -> String {
    format!(r#"{{"ch":"x","status":"ok","ts":9,"data":[{{"id":1,"ts":9,"data":[{}]}}]}}"#, rows(ids))
}

fn swap_history(ids: &[u64]) -> String {
    let row = |id: &u64| format!(r#"{{"id":{id},"ts":{id},"amount":2,"price":1,"direction":"buy"}}"#);
    let rows: Vec<_> = ids.iter().map(row).collect();
    format!(r#"{{"ch":"x","status":"ok","ts":9,"data":[{{"id":1,"ts":9,"data":[{}]}}]}}"#, rows.join(","))
}

fn mbp(number: u64, previous: u64) -> String {
    format!(
        r#"{{"ch":"market.btcusdt.mbp.150","ts":{number},"tick":{{"seqNum":{number},"prevSeqNum":{previous},"asks":[[2,1]]}}}}"#
    )
}

fn asked_book(id: u64, number: u64) -> String {
    format!(
        r#"{{"id":"{id}","status":"ok","ts":{number},"rep":"market.btcusdt.mbp.150","data":{{"bids":[[1,1]],"asks":[[2,1]],"seqNum":{number}}}}}"#
    )
}

fn high_freq(event: &str, version: u64) -> String {
    format!(
        r#"{{"ch":"market.BTC-USDT.depth.size_150.high_freq","tick":{{"asks":[[2,1]],"bids":null,"event":"{event}","ts":{version},"version":{version}}},"ts":{version}}}"#
    )
}

#[test]
fn pings_are_answered_at_once_and_topics_are_asked_for_one_by_one() {
    Bench::new("htx", &plan("htx", &["btcusdt", "ethusdt"], SPOT, &[]))
        .open()
        .frame("ping", r#"{"ping":1786563068868}"#)
        .until(1100)
        .frame("ack", &subbed(1, "market.btcusdt.trade.detail"))
        .frame("ack", &subbed(2, "market.ethusdt.trade.detail"))
        .frame("two trades, newest first", &trades("btcusdt", &[7, 8]))
        .frame("one comes again", &trades("btcusdt", &[8, 9]))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.btcusdt.trade.detail"}
            ping
              send {"pong":1786563068868}
            timer 1050
              send {"id":"2","sub":"market.ethusdt.trade.detail"}
            ack
            ack (whole)
            two trades, newest first (whole)
              trade btcusdt 7
              trade btcusdt 8
            one comes again (whole)
              trade btcusdt 9
        "#]]);
}

#[test]
fn the_book_by_changes_is_asked_for_on_the_same_connection_and_again_after_a_gap() {
    Bench::new("htx", &plan("htx", &["btcusdt"], FEED, &[]))
        .open()
        .frame("ack", &subbed(1, "market.btcusdt.mbp.150"))
        .frame("change", &mbp(105, 100))
        .until(1100)
        .frame("change", &mbp(110, 105))
        .frame("book", &asked_book(2, 105))
        .frame("change", &mbp(120, 110))
        .frame("a hole", &mbp(140, 130))
        .until(1200)
        .frame("change", &mbp(150, 140))
        .frame("a book that is too old", &asked_book(3, 120))
        .until(3000)
        .frame("book", &asked_book(4, 145))
        .frame("change", &mbp(160, 150))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.btcusdt.mbp.150"}
            ack (whole)
            change (whole)
            timer 1050 (whole)
              send {"id":"2","req":"market.btcusdt.mbp.150"}
            change (whole)
            book (whole)
              book btcusdt snapshot 105
              book btcusdt update 110
            change (whole)
              book btcusdt update 120
            a hole (whole)
              GAP btcusdt book 140..: book sequence 130 after 120
              send {"id":"3","req":"market.btcusdt.mbp.150"}
            change (whole)
            a book that is too old (whole)
            timer 2200 (whole)
              send {"id":"4","req":"market.btcusdt.mbp.150"}
            book (whole)
              GAP btcusdt book 140..145: book sequence 130 after 120
              book btcusdt snapshot 145
              book btcusdt update 150
            change (whole)
              book btcusdt update 160
        "#]]);
}

#[test]
fn a_book_that_is_refused_is_told_as_a_gap() {
    let refused = r#"{"status":"error","ts":1,"id":"2","err-code":"bad-request","err-msg":"invalid req"}"#;
    Bench::new("htx", &plan("htx", &["btcusdt"], FEED, &[]))
        .open()
        .frame("ack", &subbed(1, "market.btcusdt.mbp.150"))
        .frame("change", &mbp(105, 100))
        .until(1100)
        .frame("refused", refused)
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.btcusdt.mbp.150"}
            ack (whole)
            change (whole)
            timer 1050 (whole)
              send {"id":"2","req":"market.btcusdt.mbp.150"}
            refused (whole)
              warn the venue refused a request: bad-request: invalid req
              warn the venue did not subscribe market.btcusdt.mbp.150
              GAP btcusdt book 1100..: the venue did not subscribe market.btcusdt.mbp.150
        "#]]);
}

#[test]
fn a_swaps_book_starts_with_its_topic_and_one_hole_asks_for_the_topic_again() {
    Bench::new("htx-linear", &plan("htx-linear", &["BTC-USDT"], SWAP, &[]))
        .open()
        .until(1100)
        .frame("ack", &subbed(1, "market.BTC-USDT.trade.detail"))
        .frame("ack", &subbed(2, "market.BTC-USDT.depth.size_150.high_freq"))
        .frame("snapshot", &high_freq("snapshot", 5))
        .frame("update", &high_freq("update", 6))
        .frame("hole", &high_freq("update", 8))
        .until(1300)
        .frame("late", &high_freq("update", 9))
        .frame("ack", r#"{"id":"3","status":"ok","unsubbed":"market.BTC-USDT.depth.size_150.high_freq","ts":1}"#)
        .frame("ack", &subbed(4, "market.BTC-USDT.depth.size_150.high_freq"))
        .frame("snapshot", &high_freq("snapshot", 11))
        .frame("update", &high_freq("update", 12))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.BTC-USDT.trade.detail"}
            timer 1050
              send {"data_type":"incremental","id":"2","sub":"market.BTC-USDT.depth.size_150.high_freq"}
            ack
            ack (whole)
            snapshot (whole)
              book BTC-USDT snapshot 5
            update (whole)
              book BTC-USDT update 6
            hole (whole)
              GAP BTC-USDT book 8..: book sequence 8 after 6
              send {"id":"3","unsub":"market.BTC-USDT.depth.size_150.high_freq"}
            timer 1150 (whole)
              send {"data_type":"incremental","id":"4","sub":"market.BTC-USDT.depth.size_150.high_freq"}
            late (whole)
            ack (whole)
            ack (whole)
            snapshot (whole)
              GAP BTC-USDT book 8..11: book sequence 8 after 6
              book BTC-USDT snapshot 11
            update (whole)
              book BTC-USDT update 12
        "#]]);
}

#[test]
fn trades_missed_on_spot_are_fetched_from_the_newest_ones() {
    let plan = plan("htx", &["btcusdt"], SPOT, &[("btcusdt", 10)]);
    Bench::new("htx", &plan)
        .open()
        .frame("ack", &subbed(1, "market.btcusdt.trade.detail"))
        .frame("trade", &trades("btcusdt", &[13]))
        .http(2, 200, &history(&[9, 10, 11, 12, 13]))
        .frame("trade", &trades("btcusdt", &[14]))
        .close()
        .until(2000)
        .open()
        .frame("trade before its ack", &trades("btcusdt", &[16]))
        .frame("ack", &subbed(3, "market.btcusdt.trade.detail"))
        .http(4, 200, &history(&[15, 16]))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.btcusdt.trade.detail"}
            ack
              fetch 2 /market/history/trade?symbol=btcusdt&size=2000
            trade
            http 2 200 (whole)
              trade btcusdt 11
              trade btcusdt 12
              trade btcusdt 13
            trade (whole)
              trade btcusdt 14
            close
              GAP btcusdt link 14..: cut
            open
              send {"id":"3","sub":"market.btcusdt.trade.detail"}
            trade before its ack
              GAP btcusdt link 14..16: cut
              fetch 4 /market/history/trade?symbol=btcusdt&size=2000
            ack
            http 4 200 (whole)
              trade btcusdt 15
              trade btcusdt 16
        "#]]);
}

#[test]
fn swap_trades_behind_a_reconnect_wait_for_what_the_venue_still_has_also_when_they_come_before_the_ack() {
    let channels = &SWAP[..1];
    let plan = plan("htx-linear", &["BTC-USDT"], channels, &[("BTC-USDT", 500)]);
    Bench::new("htx-linear", &plan)
        .open()
        .frame("the newest one comes again", &swap_trades(&[500]))
        .frame("a trade before the ack", &swap_trades(&[900]))
        .frame("ack", &subbed(1, "market.BTC-USDT.trade.detail"))
        .http(2, 200, &swap_history(&[400, 500, 600, 900]))
        .frame("trade", &swap_trades(&[1000]))
        .close()
        .until(2000)
        .open()
        .frame("ack", &subbed(3, "market.BTC-USDT.trade.detail"))
        .http(4, 200, &swap_history(&[1500, 1600]))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.BTC-USDT.trade.detail"}
            the newest one comes again
            a trade before the ack
            ack
              fetch 2 /linear-swap-ex/market/history/trade?contract_code=BTC-USDT&size=2000
            http 2 200 (whole)
              trade BTC-USDT 600
              trade BTC-USDT 900
            trade (whole)
              trade BTC-USDT 1000
            close
              GAP BTC-USDT link 1000..: cut
            open
              send {"id":"3","sub":"market.BTC-USDT.trade.detail"}
            ack
              fetch 4 /linear-swap-ex/market/history/trade?contract_code=BTC-USDT&size=2000
            http 4 200 (whole)
              GAP BTC-USDT trade 1000..: what the venue still has of its trades does not reach back to ours
              GAP BTC-USDT trade 1000..1500: what the venue still has of its trades does not reach back to ours
              trade BTC-USDT 1500
              trade BTC-USDT 1600
        "#]]);
}

#[test]
fn a_lost_frame_that_may_have_held_trades_of_a_swap_asks_for_them_again() {
    let plan = plan("htx-linear", &["BTC-USDT"], &SWAP[..1], &[]);
    Bench::new("htx-linear", &plan)
        .open()
        .frame("ack", &subbed(1, "market.BTC-USDT.trade.detail"))
        .frame("trade", &swap_trades(&[500]))
        .frame("a book that is cut", r#"{"ch":"market.BTC-USDT.depth.size_150.high_freq","tick":{"as"#)
        .frame("trades that are cut", r#"{"ch":"market.BTC-USDT.trade.detail","ts":9,"tick":{"id":1,"#)
        .frame("trade", &swap_trades(&[900]))
        .http(2, 200, &swap_history(&[400, 500, 600, 900]))
        .until(2000)
        .frame("no JSON at all", "?")
        .http(3, 200, &swap_history(&[600, 900]))
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.BTC-USDT.trade.detail"}
            ack (whole)
            trade (whole)
              trade BTC-USDT 500
            a book that is cut (whole)
              DEAD EOF while parsing a string at line 1 column 60
            trades that are cut
              DEAD EOF while parsing an object at line 1 column 59
              fetch 2 /linear-swap-ex/market/history/trade?contract_code=BTC-USDT&size=2000
            trade
            http 2 200 (whole)
              trade BTC-USDT 600
              trade BTC-USDT 900
            no JSON at all
              DEAD expected value at line 1 column 1
              fetch 3 /linear-swap-ex/market/history/trade?contract_code=BTC-USDT&size=2000
            http 3 200 (whole)
        "#]]);
}

#[test]
fn an_unknown_topic_is_a_gap_that_lasts_and_too_many_requests_end_the_connection_for_a_while() {
    let refused = r#"{"status":"error","ts":1,"id":"1","err-code":"bad-request","err-msg":"invalid topic market.x.trade.detail"}"#;
    let many = r#"{"status":"error","ts":1,"id":"2","err-code":"429","err-msg":"too many request"}"#;
    Bench::new("htx", &plan("htx", &["x", "btcusdt"], SPOT, &[]))
        .open()
        .frame("refused", refused)
        .until(1100)
        .frame("too many", many)
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.x.trade.detail"}
            refused
              warn the venue refused a request: bad-request: invalid topic market.x.trade.detail
              warn the venue did not subscribe market.x.trade.detail
              GAP x trade 1000..: the venue did not subscribe market.x.trade.detail
            timer 1050
              send {"id":"2","sub":"market.btcusdt.trade.detail"}
            too many
              RECONNECT after 10000 ms: error 429 too many request
        "#]]);
}

#[test]
fn notifications_may_be_rare_while_the_venue_pings() {
    let plan = plan("htx-linear", &["BTC-USDT"], &["public.{}.funding_rate"], &[]);
    let mut bench = Bench::new("htx-linear", &plan)
        .open()
        .frame("ack", r#"{"op":"sub","cid":"1","topic":"public.BTC-USDT.funding_rate","ts":1,"err-code":0}"#);
    for second in [21, 41, 61] {
        bench = bench.until(second * 1000).frame("ping", &format!(r#"{{"op":"ping","ts":"{second}"}}"#));
    }
    bench
        .frame(
            "funding",
            r#"{"op":"notify","topic":"public.BTC-USDT.funding_rate","ts":60000,"data":[{"contract_code":"BTC-USDT","funding_rate":"0.0001","funding_time":"60000","estimated_rate":null}]}"#,
        )
        .until(90_000)
        .until(91_500)
        .end(expect![[r#"
            open
              send {"cid":"1","op":"sub","topic":"public.BTC-USDT.funding_rate"}
            ack (whole)
            ping (whole)
              send {"op":"pong","ts":"21"}
            ping (whole)
              send {"op":"pong","ts":"41"}
            ping (whole)
              send {"op":"pong","ts":"61"}
            funding (whole)
              Funding(Funding { symbol: "BTC-USDT", rate: 0.0001, due: Some(Nanos(60000000000)), next_rate: None, next_due: None, ts: Nanos(60000000000) })
            timer 91000 (whole)
              RECONNECT after 0 ms: idle: no market data for 30000 ms
        "#]]);
}

#[test]
fn each_socket_has_its_own_connections() {
    let urls = |id: &str, symbols: &[&str], channels: &[&str]| -> Vec<String> {
        let (found, market) = venue::by_id(id).unwrap();
        let plan = plan(id, symbols, channels, &[]);
        found.sessions(market, &plan).iter().map(|s| format!("{} {}", s.name(), s.url())).collect()
    };
    assert_eq!(
        urls("htx", &["btcusdt"], &["market.{}.bbo", "market.{}.mbp.20"]),
        ["market-0 wss://api.huobi.pro/ws", "feed-1 wss://api.huobi.pro/feed"]
    );
    assert_eq!(
        urls("htx-inverse", &["BTC-USD"], &["market.{}.bbo", "public.{}.funding_rate", "market.{}.index.1min"]),
        [
            "market-0 wss://api.hbdm.com/swap-ws",
            "notification-1 wss://api.hbdm.com/swap-notification",
            "index-2 wss://api.hbdm.com/ws_index"
        ]
    );
    let many: Vec<String> = (0..300).map(|n| format!("S{n}-USDT")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(urls("htx-linear", &many, SWAP).len(), 3, "600 topics, 200 a connection");
}

fn interest(rows: &[(&str, &str)], ms: i64) -> String {
    let row =
        |(code, volume): &(&str, &str)| format!(r#"{{"volume":{volume},"amount":1.50,"contract_code":"{code}"}}"#);
    let rows: Vec<_> = rows.iter().map(row).collect();
    format!(r#"{{"status":"ok","data":[{}],"ts":{ms}}}"#, rows.join(","))
}

const POLLED: &[&str] = &["market.{}.trade.detail", "market.{}.open_interest"];

/// Of one swap for the first time, at once; then every `period_ms`.
fn asked(id: &str, swap: &str, period_ms: i64) -> Bench {
    let mut plan = plan(id, &[swap], POLLED, &[]);
    plan.limits.poll_period_ms = period_ms;
    let (topic, path) = (format!("market.{swap}.trade.detail"), id.replace("htx-linear", "linear-swap"));
    let path = path.replace("htx-inverse", "swap");
    Bench::new(id, &plan).open().frame("ack", &subbed(1, &topic)).said(&format!(
        "open\n  send {{\"id\":\"1\",\"sub\":\"{topic}\"}}\n\
         ack (whole)\n  fetch 2 /{path}-api/v1/swap_open_interest?contract_code={swap}\n"
    ))
}

#[test]
fn open_interest_of_one_swap_is_asked_for_by_its_name() {
    asked("htx-inverse", "BTC-USD", 5_000)
        .http(2, 200, &interest(&[("BTC-USD", "119125.000000000000000000")], 1_000))
        .until(6_100)
        .http(3, 200, r#"{"status":"error","err_code":1032,"err_msg":"too many","ts":6100}"#)
        .until(11_100)
        .http(4, 429, "exceeded limit")
        .until(17_000)
        .end(expect![[r#"
            http 2 200 (whole)
              aside OpenInterest { symbol: "BTC-USD", size: 119125, coins: Some(1.5), ts: Nanos(1000000000) }
            timer 6000 (whole)
              fetch 3 /swap-api/v1/swap_open_interest?contract_code=BTC-USD
            http 3 200 (whole)
              warn poll /swap-api/v1/swap_open_interest?contract_code=BTC-USD: status `error`: 1032 too many
            timer 11000 (whole)
              fetch 4 /swap-api/v1/swap_open_interest?contract_code=BTC-USD
            http 4 429 (whole)
              warn the venue asks for quiet: status 429 for 7 s
        "#]]);
}

#[test]
fn open_interest_of_several_swaps_is_one_answer_of_which_the_others_are_left_out() {
    let mut plan = plan("htx-linear", &["BTC-USDT", "ETH-USDT"], POLLED, &[]);
    plan.limits.poll_period_ms = 5_000;
    Bench::new("htx-linear", &plan)
        .open()
        .until(1_050)
        .frame("ack", &subbed(1, "market.BTC-USDT.trade.detail"))
        .frame("ack", &subbed(2, "market.ETH-USDT.trade.detail"))
        .http(
            3,
            200,
            &interest(&[("ADA-USDT", "1"), ("BTC-USDT", "2"), ("XRP-USDT", "null"), ("ETH-USDT", "3.0")], 1_100),
        )
        .until(6_100)
        .http(4, 200, &interest(&[("BTC-USDT", "9"), ("ETH-USDT", "9")], 1_100))
        .command("unsubscribe", Command::Unsubscribe { symbol: "BTC-USDT".into() })
        .until(6_300)
        .http(6, 200, &interest(&[("BTC-USDT", "5"), ("ETH-USDT", "4")], 6_300))
        .until(11_250)
        .end(expect![[r#"
            open
              send {"id":"1","sub":"market.BTC-USDT.trade.detail"}
            timer 1050
              send {"id":"2","sub":"market.ETH-USDT.trade.detail"}
            ack
            ack (whole)
              fetch 3 /linear-swap-api/v1/swap_open_interest?business_type=all
            http 3 200 (whole)
              aside OpenInterest { symbol: "BTC-USDT", size: 2, coins: Some(1.5), ts: Nanos(1100000000) }
              aside OpenInterest { symbol: "ETH-USDT", size: 3, coins: Some(1.5), ts: Nanos(1100000000) }
              warn poll /linear-swap-api/v1/swap_open_interest?business_type=all: `null` is not a decimal number of at most 28 digits at line 1 column 14
            timer 6050 (whole)
              fetch 4 /linear-swap-api/v1/swap_open_interest?business_type=all
            http 4 200 (whole)
            unsubscribe (whole)
              send {"id":"5","unsub":"market.BTC-USDT.trade.detail"}
            timer 6300 (whole)
              fetch 6 /linear-swap-api/v1/swap_open_interest?contract_code=ETH-USDT
            http 6 200 (whole)
              aside OpenInterest { symbol: "ETH-USDT", size: 4, coins: Some(1.5), ts: Nanos(6300000000) }
        "#]]);
}

#[test]
fn an_answer_about_open_interest_neither_ends_a_gap_nor_makes_a_socket_look_alive() {
    asked("htx-linear", "BTC-USDT", 10_000)
        .http(2, 200, &interest(&[("BTC-USDT", "1")], 1_000))
        .frame("trade", &swap_trades(&[500]))
        .close()
        .until(2_000)
        .open()
        .frame("ack", &subbed(3, "market.BTC-USDT.trade.detail"))
        .http(4, 200, &swap_history(&[500]))
        .until(11_100)
        .http(5, 200, &interest(&[("BTC-USDT", "2")], 11_100))
        .until(21_100)
        .http(6, 200, &interest(&[("BTC-USDT", "3")], 21_100))
        .until(31_100)
        .http(7, 200, &interest(&[("BTC-USDT", "4")], 31_100))
        .until(32_500)
        .end(expect![[r#"
            http 2 200 (whole)
              aside OpenInterest { symbol: "BTC-USDT", size: 1, coins: Some(1.5), ts: Nanos(1000000000) }
            trade (whole)
              trade BTC-USDT 500
            close
              GAP BTC-USDT link 500..: cut
            open
              send {"id":"3","sub":"market.BTC-USDT.trade.detail"}
            ack
              fetch 4 /linear-swap-ex/market/history/trade?contract_code=BTC-USDT&size=2000
            http 4 200 (whole)
            timer 11000 (whole)
              fetch 5 /linear-swap-api/v1/swap_open_interest?contract_code=BTC-USDT
            http 5 200 (whole)
              aside OpenInterest { symbol: "BTC-USDT", size: 2, coins: Some(1.5), ts: Nanos(11100000000) }
            timer 17000 (whole)
              stale true
            timer 21000 (whole)
              fetch 6 /linear-swap-api/v1/swap_open_interest?contract_code=BTC-USDT
            http 6 200 (whole)
              aside OpenInterest { symbol: "BTC-USDT", size: 3, coins: Some(1.5), ts: Nanos(21100000000) }
            timer 31000 (whole)
              fetch 7 /linear-swap-api/v1/swap_open_interest?contract_code=BTC-USDT
            http 7 200 (whole)
              aside OpenInterest { symbol: "BTC-USDT", size: 4, coins: Some(1.5), ts: Nanos(31100000000) }
            timer 32000 (whole)
              RECONNECT after 0 ms: idle: no market data for 30000 ms
        "#]]);
}

#[test]
fn one_socket_of_a_swap_asks_for_open_interest_and_spot_has_none() {
    let channels = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    let (found, market) = venue::by_id("htx-linear").unwrap();
    let asks = |list: &[&str]| super::polling(super::Kind::Linear, &channels(list)).map(super::Socket::name);
    assert_eq!(asks(&["public.{}.funding_rate", "market.{}.open_interest", "market.{}.bbo"]), Some("market"));
    assert_eq!(
        asks(&["market.{}.index.1min", "public.{}.funding_rate", "market.{}.open_interest"]),
        Some("notification")
    );
    assert_eq!(asks(&["market.{}.bbo"]), None);
    found.check_channel(market, "market.{}.open_interest").unwrap();
    let alone = found.check_together(market, &channels(&["market.{}.open_interest"])).unwrap_err();
    assert!(alone.contains("market.{}.detail"), "{alone}");
    let (found, market) = venue::by_id("htx").unwrap();
    let why = found.check_channel(market, "market.{}.open_interest").unwrap_err();
    assert!(!why.contains("open_interest"), "{why}");
}
