//! Binance's futures under a script: what is asked for by REST again and again. The other scripts are in `session/tests.rs`.

use expect_test::expect;

use super::*;
use crate::session::Command;
use crate::session::tests::{Bench, plan};
use crate::venue::by_id;

const POLLED: &[&str] = &["{}@trade", "{}@openInterest"];

fn ack(id: u64) -> String {
    format!(r#"{{"result":null,"id":{id}}}"#)
}

fn trade(symbol: &str, id: u64, ms: i64) -> String {
    format!(r#"{{"e":"trade","E":{ms},"s":"{symbol}","t":{id},"p":"1","q":"1","T":{ms},"X":"MARKET","m":true}}"#)
}

fn interest(symbol: &str, size: &str, ms: i64) -> String {
    format!(r#"{{"symbol":"{symbol}","openInterest":"{size}","time":{ms}}}"#)
}

/// Of one symbol for the first time, at once; then every `period_ms`.
fn asked(period_ms: i64) -> Bench {
    let mut plan = plan("binance-usdm", &["BTCUSDT"], POLLED, &[]);
    plan.limits.poll_period_ms = period_ms;
    Bench::new("binance-usdm", &plan).open().frame("ack", &ack(1)).said(concat!(
        "open\n  send {\"id\":1,\"method\":\"SUBSCRIBE\",\"params\":[\"btcusdt@trade\"]}\n",
        "ack (whole)\n  fetch 2 /fapi/v1/openInterest?symbol=BTCUSDT\n"
    ))
}

#[test]
fn open_interest_is_asked_for_a_symbol_at_a_time_and_a_failed_answer_waits_for_its_next_turn() {
    let mut plan = plan("binance-usdm", &["BTCUSDT", "ETHUSDT"], POLLED, &[]);
    plan.limits.poll_period_ms = 5_000;
    Bench::new("binance-usdm", &plan)
        .open()
        .until(1_050)
        .frame("ack", &ack(1))
        .until(3_000)
        .http(2, 200, &interest("BTCUSDT", "84617.188", 2_990))
        .until(3_100)
        .http(3, 500, "down")
        .until(6_100)
        .frame("trade", &trade("BTCUSDT", 1, 6_100))
        .http(4, 200, "[]")
        .until(8_000)
        .http(5, 200, r#"{"symbol":"ETHUSDT","openInterest":"7.50","time":8000,"pair":"x","contractType":"PERPETUAL"}"#)
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusdt@trade","ethusdt@trade"]}
            ack (whole)
              fetch 2 /fapi/v1/openInterest?symbol=BTCUSDT
            http 2 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 84617.188, coins: None, ts: Nanos(2990000000) }
              fetch 3 /fapi/v1/openInterest?symbol=ETHUSDT
            http 3 500 (whole)
              warn poll /fapi/v1/openInterest?symbol=ETHUSDT: status 500: down
            timer 6050 (whole)
              fetch 4 /fapi/v1/openInterest?symbol=BTCUSDT
            trade (whole)
              trade BTCUSDT 1
            http 4 200 (whole)
              warn poll /fapi/v1/openInterest?symbol=BTCUSDT: invalid length 0, expected struct Row with 3 elements at line 1 column 2
            timer 8000 (whole)
              fetch 5 /fapi/v1/openInterest?symbol=ETHUSDT
            http 5 200 (whole)
              aside OpenInterest { symbol: "ETHUSDT", size: 7.5, coins: None, ts: Nanos(8000000000) }
        "#]]);
}

#[test]
fn an_order_book_and_missed_trades_go_before_open_interest() {
    let mut plan =
        plan("binance-coinm", &["BTCUSD_PERP"], &["{}@trade", "{}@depth", "{}@openInterest"], &[("BTCUSD_PERP", 3)]);
    plan.limits.poll_period_ms = 5_000;
    Bench::new("binance-coinm", &plan)
        .open()
        .frame(
            "change",
            r#"{"e":"depthUpdate","E":9,"T":9,"s":"BTCUSD_PERP","ps":"BTCUSD","U":1,"u":2,"pu":0,"b":[],"a":[]}"#,
        )
        .frame("ack", &ack(1))
        .until(1_400)
        .until(1_700)
        .end(expect![[r#"
            open
              send {"id":1,"method":"SUBSCRIBE","params":["btcusd_perp@trade","btcusd_perp@depth"]}
            change
              fetch 2 /dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000
            ack
            timer 1250
              fetch 3 /dapi/v1/trades?symbol=BTCUSD_PERP&limit=1000
            timer 1500
              fetch 4 /dapi/v1/openInterest?symbol=BTCUSD_PERP
        "#]]);
}

#[test]
fn the_quiet_that_a_venue_asks_for_holds_for_open_interest_too() {
    asked(10_000)
        .http(2, 429, "")
        .frame("a hole", &trade("BTCUSDT", 1, 1_000))
        .frame("a hole", &trade("BTCUSDT", 3, 1_000))
        .until(8_100)
        .http(3, 200, "[]")
        .until(12_000)
        .end(expect![[r#"
            http 2 429 (whole)
              warn the venue asks for quiet: status 429 for 7 s
            a hole (whole)
              trade BTCUSDT 1
            a hole
            timer 8000
              fetch 3 /fapi/v1/trades?symbol=BTCUSDT&limit=1000
            http 3 200 (whole)
              warn backfill BTCUSDT: the venue does not have the trades between
              GAP BTCUSDT trade 1000..1000: trade 3 after 1
              trade BTCUSDT 3
            timer 11000 (whole)
              fetch 4 /fapi/v1/openInterest?symbol=BTCUSDT
        "#]]);
}

#[test]
fn an_answer_neither_ends_a_gap_nor_makes_a_feed_look_alive_and_an_older_one_is_no_news() {
    asked(10_000)
        .http(2, 200, &interest("BTCUSDT", "5", 900))
        .frame("trade", &trade("BTCUSDT", 1, 1_000))
        .close()
        .until(2_000)
        .open()
        .frame("ack", &ack(3))
        .http(4, 200, "[]")
        .until(11_100)
        .http(5, 200, &interest("BTCUSDT", "6", 2_400))
        .until(21_100)
        .http(6, 200, &interest("BTCUSDT", "6", 2_400))
        .until(31_100)
        .http(7, 200, &interest("BTCUSDT", "7", 31_000))
        .until(32_400)
        .end(expect![[r#"
            http 2 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 5, coins: None, ts: Nanos(900000000) }
            trade (whole)
              trade BTCUSDT 1
            close
              GAP BTCUSDT link 1000..: cut
            open
              send {"id":3,"method":"SUBSCRIBE","params":["btcusdt@trade"]}
            ack
              fetch 4 /fapi/v1/trades?symbol=BTCUSDT&limit=1000
            http 4 200 (whole)
            timer 11000 (whole)
              fetch 5 /fapi/v1/openInterest?symbol=BTCUSDT
            http 5 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 6, coins: None, ts: Nanos(2400000000) }
            timer 17000 (whole)
              stale true
            timer 21000 (whole)
              fetch 6 /fapi/v1/openInterest?symbol=BTCUSDT
            http 6 200 (whole)
            timer 31000 (whole)
              fetch 7 /fapi/v1/openInterest?symbol=BTCUSDT
            http 7 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 7, coins: None, ts: Nanos(31000000000) }
            timer 32000 (whole)
              RECONNECT after 0 ms: idle: no market data for 30000 ms
        "#]]);
}

#[test]
fn a_symbol_that_is_left_is_asked_for_no_more_and_a_new_one_at_once() {
    asked(5_000)
        .until(2_000)
        .command("subscribe", Command::Subscribe { symbol: "ETHUSDT".into() })
        .http(2, 200, &interest("BTCUSDT", "1", 2_000))
        .until(3_000)
        .command("unsubscribe", Command::Unsubscribe { symbol: "ETHUSDT".into() })
        .http(4, 200, &interest("ETHUSDT", "2", 3_000))
        .until(7_000)
        .http(6, 200, &interest("BTCUSDT", "3", 7_000))
        .until(11_500)
        .end(expect![[r#"
            subscribe (whole)
              send {"id":3,"method":"SUBSCRIBE","params":["ethusdt@trade"]}
            http 2 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 1, coins: None, ts: Nanos(2000000000) }
              fetch 4 /fapi/v1/openInterest?symbol=ETHUSDT
            unsubscribe (whole)
              send {"id":5,"method":"UNSUBSCRIBE","params":["ethusdt@trade"]}
            http 4 200 (whole)
            timer 6000 (whole)
              fetch 6 /fapi/v1/openInterest?symbol=BTCUSDT
            http 6 200 (whole)
              aside OpenInterest { symbol: "BTCUSDT", size: 3, coins: None, ts: Nanos(7000000000) }
            timer 11000 (whole)
              fetch 7 /fapi/v1/openInterest?symbol=BTCUSDT
        "#]]);
}

#[test]
fn one_of_a_symbols_connections_asks_and_only_where_it_is_configured_on_futures() {
    let asks = |id: &str, channels: &[&str]| -> Vec<String> {
        let (venue, market) = by_id(id).unwrap();
        let channels_of = channels.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        for channel in &channels_of {
            venue.check_channel(market, channel).unwrap();
        }
        venue.check_together(market, &channels_of).unwrap();
        let plan = plan(id, &["BTCUSDT"], channels, &[]);
        let of = |mut session: Box<dyn Session>| {
            let (mut out, now) = (Vec::new(), schemas::Nanos::from_ms(1_000));
            session.on_open(now, &mut out);
            session.on_frame(now, Frame::Text(&ack(1)), &mut out);
            let asked = out.iter().any(|action| matches!(action, crate::session::Action::Fetch { .. }));
            asked.then(|| session.name())
        };
        venue.sessions(market, &plan).into_iter().filter_map(of).collect()
    };
    assert_eq!(asks("binance-usdm", &["{}@trade", "{}@markPrice@1s", "{}@openInterest"]), ["market-1"]);
    assert_eq!(asks("binance-usdm", &["{}@trade", "!markPrice@arr", "{}@openInterest"]), ["public-0"]);
    assert_eq!(asks("binance-coinm", &["{}@trade", "{}@openInterest"]), ["stream-0"]);
    assert!(asks("binance-usdm", &["{}@trade", "{}@markPrice@1s"]).is_empty());
    let refused = |kind, channel| check_channel(kind, channel).unwrap_err();
    assert!(!refused(Kind::Spot, "{}@openInterest").contains("openInterest"));
    assert!(refused(Kind::Usdm, "{}@openInterest@1s").contains("{}@openInterest (by REST)"));
    let alone = ["!markPrice@arr".to_owned(), "{}@openInterest".to_owned()];
    assert!(check_together(&alone).unwrap_err().contains("{}@markPrice@1s"));
}

#[test]
fn the_recorded_answers_are_read() {
    let Some(root) = schemas::fixtures::root() else { return };
    let text = std::fs::read_to_string(root.join("fixtures/venues/binance/rest_usdm_openInterest.jsonl")).unwrap();
    let read: Vec<String> = text.lines().map(|line| format!("{:?}", rest::open_interest(line).unwrap())).collect();
    assert_eq!(
        read,
        [
            r#"OpenInterest { symbol: "BTCUSDT_220624", size: 1275.028, coins: None, ts: Nanos(1654336785074000000) }"#,
            r#"OpenInterest { symbol: "BTCUSDT", size: 84617.188, coins: None, ts: Nanos(1654336844754000000) }"#,
        ]
    );
    assert!(rest::open_interest(r#"{"symbol":"BTCUSDT","openInterest":"much","time":1}"#).is_err());
}
