//! OKX under scripts: what happens to a connection, and what it asks for.

use expect_test::expect;

use crate::session::tests::{Bench, plan};
use crate::venue::by_id;

const SYMBOL: &str = "BTC-USDT";

fn bench(channels: &[&str], last: &[(&str, u64)]) -> Bench {
    Bench::new("okx", &plan("okx", &[SYMBOL], channels, last))
}

fn ack(event: &str, channel: &str) -> String {
    format!(r#"{{"event":"{event}","arg":{{"channel":"{channel}","instId":"BTC-USDT"}},"connId":"a4d3ae55"}}"#)
}

fn trade(id: u64, count: u64) -> String {
    format!(
        r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}","px":"1","sz":"1","side":"buy","ts":"{id}","count":"{count}"}}]}}"#
    )
}

/// A page of trades as REST gives it: newest first.
fn page(ids: &[u64]) -> String {
    let rows: Vec<String> = ids
        .iter()
        .map(|id| format!(r#"{{"instId":"BTC-USDT","side":"sell","sz":"1","px":"1","tradeId":"{id}","ts":"{id}"}}"#))
        .collect();
    format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, rows.join(","))
}

fn book(action: &str, seq: i64, prev: i64) -> String {
    summed(action, seq, prev, 0)
}

/// One bid, 2 at 1.5.
fn summed(action: &str, seq: i64, prev: i64, sum: i32) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[["1.5","2","0","1"]],"ts":"{}","checksum":{sum},"seqId":{seq},"prevSeqId":{prev}}}]}}"#,
        1000 + seq
    )
}

fn rest_book(seq: &str) -> String {
    format!(r#"{{"code":"0","msg":"","data":[{{"asks":[],"bids":[["1.5","2","0","1"]],"ts":"1100"{seq}}}]}}"#)
}

/// One channel, acknowledged.
fn subscribed(channel: &str) -> Bench {
    let sent = format!(r#"{{"args":[{{"channel":"{channel}","instId":"BTC-USDT"}}],"op":"subscribe"}}"#);
    bench(&[&format!("{channel}:{{}}")], &[])
        .open()
        .frame("acknowledged", &ack("subscribe", channel))
        .said(&format!("open\n  send {sent}\nacknowledged (whole)\n"))
}

/// A book that has begun at 10.
fn begun() -> Bench {
    subscribed("books")
        .frame("snapshot 10", &book("snapshot", 10, -1))
        .said("snapshot 10 (whole)\n  book BTC-USDT snapshot 10\n")
}

/// And has a gap behind it.
fn broken() -> Bench {
    begun().frame("20 after 15", &book("update", 20, 15)).said(concat!(
        "20 after 15 (whole)\n",
        "  GAP BTC-USDT book 1020..: book sequence 15 after 10\n",
        "  fetch 1 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0\n",
    ))
}

#[test]
fn each_channel_is_acknowledged_and_a_quiet_connection_is_pinged() {
    bench(&["trades:{}", "tickers:{}", "funding-rate:{}", "status"], &[])
        .open()
        .frame("trades acknowledged", &ack("subscribe", "trades"))
        .frame("tickers acknowledged", &ack("subscribe", "tickers"))
        .frame("status acknowledged", r#"{"event":"subscribe","arg":{"channel":"status"},"connId":"a4d3ae55"}"#)
        .until(21_500)
        .frame("pong", "pong")
        .until(30_000)
        .end(expect![[r#"
            open
              send {"args":[{"channel":"trades","instId":"BTC-USDT"},{"channel":"tickers","instId":"BTC-USDT"},{"channel":"status"}],"op":"subscribe"}
            trades acknowledged
            tickers acknowledged
            status acknowledged (whole)
            timer 21000 (whole)
              send ping
            pong (whole)
        "#]]);
}

#[test]
fn the_channels_of_the_two_sockets_are_carried_apart() {
    let (venue, market) = by_id("okx").unwrap();
    let symbols = ["BTC-USDT", "BTC-USDT-SWAP"];
    let channels = ["trades-all:{}", "candle1m:{}", "books:{}", "funding-rate:{}", "open-interest:{}", "status"];
    let sessions = venue.sessions(market, &plan("okx", &symbols, &channels, &[]));
    let urls: Vec<_> = sessions.iter().map(|s| (s.name(), s.url(), s.symbols().len())).collect();
    assert_eq!(
        urls,
        [
            ("public-0".into(), "wss://ws.okx.com:8443/ws/v5/public".into(), 2),
            ("business-1".into(), "wss://ws.okx.com:8443/ws/v5/business".into(), 2)
        ]
    );
    // Two books, what exists of the swap alone, and the status.
    assert_eq!(sessions.iter().map(|s| 500 - s.room()).collect::<Vec<_>>(), [5, 4]);
    for wrong in ["books", "books:BTC-USDT", "books-l2-tbt:{}", "candle7m:{}", "liquidation-orders:{}", "gossip:{}"] {
        assert!(venue.check_channel(market, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_book_follows_its_snapshot_through_keep_alives_and_a_sequence_that_starts_anew() {
    begun()
        .frame("12 after 10", &book("update", 12, 10))
        .frame("keep-alive", &book("update", 12, 12))
        .frame("3 after 12", &book("update", 3, 12))
        .frame("5 after 3", &book("update", 5, 3))
        .frame("5 again", &book("update", 5, 3))
        .frame("snapshot 6 of a second subscription", &book("snapshot", 6, -1))
        .frame("7 after 6", &book("update", 7, 6))
        .end(expect![[r#"
            12 after 10 (whole)
              book BTC-USDT update 12
            keep-alive (whole)
              book BTC-USDT update 12
            3 after 12 (whole)
              book BTC-USDT update 3
            5 after 3 (whole)
              book BTC-USDT update 5
            5 again (whole)
            snapshot 6 of a second subscription (whole)
              book BTC-USDT snapshot 6
            7 after 6 (whole)
              book BTC-USDT update 7
        "#]]);
}

#[test]
fn behind_a_gap_the_book_comes_by_rest_and_what_was_held_is_aligned() {
    broken()
        .frame("25 after 20", &book("update", 25, 20))
        .http(1, 200, &rest_book(r#","seqId":18"#))
        .frame("30 after 25", &book("update", 30, 25))
        .until(2100)
        .http(2, 200, &rest_book(r#","seqId":27"#))
        .frame("33 after 30", &book("update", 33, 30))
        .end(expect![[r#"
            25 after 20 (whole)
            http 1 200 (whole)
            30 after 25 (whole)
            timer 2000 (whole)
              fetch 2 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0
            http 2 200 (whole)
              GAP BTC-USDT book 1020..1100: book sequence 15 after 10
              book BTC-USDT snapshot 27
              book BTC-USDT update 30
            33 after 30 (whole)
              book BTC-USDT update 33
        "#]]);
}

#[test]
fn without_a_snapshot_on_the_channel_the_book_starts_by_rest() {
    subscribed("books")
        .frame("12 after 10", &book("update", 12, 10))
        .frame("15 after 12", &book("update", 15, 12))
        .http(1, 429, "")
        .until(8500)
        .http(2, 200, &rest_book(r#","seqId":12"#))
        .frame("18 after 15", &book("update", 18, 15))
        .end(expect![[r#"
            12 after 10 (whole)
              fetch 1 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0
            15 after 12 (whole)
            http 1 429 (whole)
              warn the venue asks for quiet: status 429 for 7 s
            timer 8000 (whole)
              fetch 2 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0
            http 2 200 (whole)
              book BTC-USDT snapshot 12
              book BTC-USDT update 15
            18 after 15 (whole)
              book BTC-USDT update 18
        "#]]);
}

#[test]
fn a_rest_book_without_its_number_does_not_help_and_the_channel_is_subscribed_anew() {
    broken()
        .http(1, 200, &rest_book(""))
        .until(2500)
        .frame("left", &ack("unsubscribe", "books"))
        .frame("acknowledged", &ack("subscribe", "books"))
        .frame("snapshot 22", &book("snapshot", 22, -1))
        .frame("23 after 22", &book("update", 23, 22))
        .end(expect![[r#"
            http 1 200 (whole)
              warn order book of BTC-USDT: it has no seqId
            timer 1250 (whole)
              send {"args":[{"channel":"books","instId":"BTC-USDT"}],"op":"unsubscribe"}
            timer 1500 (whole)
              send {"args":[{"channel":"books","instId":"BTC-USDT"}],"op":"subscribe"}
            left (whole)
            acknowledged (whole)
            snapshot 22 (whole)
              GAP BTC-USDT book 1020..1022: book sequence 15 after 10
              book BTC-USDT snapshot 22
            23 after 22 (whole)
              book BTC-USDT update 23
        "#]]);
}

#[test]
fn a_checksum_that_does_not_agree_restarts_the_book() {
    // CRC-32 of `1.5:2`.
    let sum = -716_171_612;
    subscribed("books")
        .frame("snapshot 10", &summed("snapshot", 10, -1, sum))
        .frame("12 after 10", &summed("update", 12, 10, sum))
        .frame("15 after 12, wrong", &summed("update", 15, 12, sum + 1))
        .frame("18 after 15", &summed("update", 18, 15, sum))
        .http(1, 200, &rest_book(r#","seqId":15"#))
        .end(expect![[r#"
            snapshot 10 (whole)
              book BTC-USDT snapshot 10
            12 after 10 (whole)
              book BTC-USDT update 12
            15 after 12, wrong (whole)
              GAP BTC-USDT book 1015..: checksum -716171611, own -716171612
              fetch 1 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0
            18 after 15 (whole)
            http 1 200 (whole)
              GAP BTC-USDT book 1015..1100: checksum -716171611, own -716171612
              book BTC-USDT snapshot 15
              book BTC-USDT update 18
        "#]]);
}

#[test]
fn merged_fills_are_no_hole_and_a_hole_is_filled_by_rest() {
    subscribed("trades")
        .frame("trade 5", &trade(5, 1))
        .frame("trade 9 of 4 fills", &trade(9, 4))
        .frame("trade 13", &trade(13, 1))
        .http(1, 200, &page(&[13, 12, 11, 10, 9]))
        .frame("trade 14", &trade(14, 1))
        .end(expect![[r#"
            trade 5 (whole)
              trade BTC-USDT 5
            trade 9 of 4 fills (whole)
              trade BTC-USDT 9
            trade 13
              fetch 1 /api/v5/market/history-trades?instId=BTC-USDT&type=1&after=110&limit=100
            http 1 200 (whole)
              trade BTC-USDT 10
              trade BTC-USDT 11
              trade BTC-USDT 12
              trade BTC-USDT 13
            trade 14 (whole)
              trade BTC-USDT 14
        "#]]);
}

#[test]
fn behind_a_reconnect_the_trades_between_are_asked_for() {
    bench(&["trades:{}"], &[(SYMBOL, 5)])
        .open()
        .frame("trade 9", &trade(9, 1))
        .frame("acknowledged", &ack("subscribe", "trades"))
        .http(1, 200, r#"{"code":"50011","msg":"Too Many Requests","data":[]}"#)
        .until(1500)
        .http(2, 200, &page(&[9, 8, 7]))
        .close()
        .end(expect![[r#"
            open
              send {"args":[{"channel":"trades","instId":"BTC-USDT"}],"op":"subscribe"}
            trade 9
              fetch 1 /api/v5/market/history-trades?instId=BTC-USDT&type=1&after=106&limit=100
            acknowledged
            http 1 200
              warn backfill BTC-USDT: code 50011 Too Many Requests
            timer 1250
              fetch 2 /api/v5/market/history-trades?instId=BTC-USDT&type=1&after=106&limit=100
            http 2 200 (whole)
              GAP BTC-USDT trade 1..7: trade 7 after 5
              trade BTC-USDT 7
              trade BTC-USDT 8
              trade BTC-USDT 9
            close
              GAP BTC-USDT link 9..: cut
        "#]]);
}

#[test]
fn a_refused_channel_is_a_gap_that_lasts_and_too_many_requests_are_a_pause() {
    bench(&["trades:{}", "books:{}"], &[])
        .open()
        .frame(
            "books refused",
            r#"{"event":"error","msg":"Wrong URL or channel:books,instId:BTC-USDT doesn't exist. Please use the correct URL, channel and parameters referring to API document.","code":"60018","connId":"a4d3ae55"}"#,
        )
        .frame("trades acknowledged", &ack("subscribe", "trades"))
        .frame("too frequent", r#"{"event":"error","msg":"Requests too frequent.","code":"60014","connId":"a4d3ae55"}"#)
        .end(expect![[r#"
            open
              send {"args":[{"channel":"trades","instId":"BTC-USDT"},{"channel":"books","instId":"BTC-USDT"}],"op":"subscribe"}
            books refused
              warn the venue refused a request: 60018 Wrong URL or channel:books,instId:BTC-USDT doesn't exist. Please use the correct URL, channel and parameters referring to API document.
              warn the venue did not subscribe books:BTC-USDT
              GAP BTC-USDT book 1000..: the venue did not subscribe books:BTC-USDT
            trades acknowledged (whole)
            too frequent (whole)
              RECONNECT after 60000 ms: error 60014 Requests too frequent.
        "#]]);
}

#[test]
fn a_status_is_told_once_and_neither_ends_a_gap_nor_makes_a_stale_feed_look_alive() {
    let status = |state: &str, ts: i64| {
        format!(
            r#"{{"arg":{{"channel":"status"}},"data":[{{"begin":"1672823400000","end":"","state":"{state}","system":"unified","title":"work","ts":"{ts}"}}]}}"#
        )
    };
    broken()
        .frame("ongoing", &status("ongoing", 5_000))
        .frame("ongoing, again", &status("ongoing", 6_000))
        .frame("an older word", &status("scheduled", 4_000))
        .until(10_000)
        .frame("completed", &status("completed", 1_700_000_000_000))
        .until(17_000)
        .frame("an unknown word", &status("dreaming", 1_700_000_000_001))
        .close()
        .open()
        .frame("acknowledged", &ack("subscribe", "books"))
        .frame("completed, once more", &status("completed", 1_700_000_000_002))
        .end(expect![[r#"
            ongoing (whole)
              STATUS maintenance: unified: work (ongoing), from 2023-01-04T09:10:00Z
            ongoing, again (whole)
            an older word (whole)
            completed (whole)
              STATUS online: unified: work (completed), from 2023-01-04T09:10:00Z
            timer 11000 (whole)
              fetch 2 /api/v5/market/books?instId=BTC-USDT&sz=400&source=0
            timer 16000 (whole)
              stale true
            an unknown word (whole)
              DEAD status with state `dreaming`
            close
              GAP BTC-USDT link 1020..: cut
            open
              send {"args":[{"channel":"books","instId":"BTC-USDT"}],"op":"subscribe"}
            acknowledged (whole)
            completed, once more (whole)
        "#]]);
}

#[test]
fn a_notice_of_an_upgrade_is_a_planned_reconnect() {
    subscribed("trades")
        .frame(
            "notice",
            r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#,
        )
        .end(expect![[r#"
            notice (whole)
              RECONNECT as planned after 0 ms: the venue shuts this server down
        "#]]);
}
