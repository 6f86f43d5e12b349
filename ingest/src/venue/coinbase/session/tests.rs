//! Scripts of both sessions: what happens to them, and what they ask for.

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::session::Command;
use crate::session::tests::{Bench, plan};

const AT: &str = "2026-01-01T00:00:00Z";

/// A message of Advanced.
fn advanced(n: u64, channel: &str, events: &str) -> String {
    format!(r#"{{"channel":"{channel}","timestamp":"{AT}","sequence_num":{n},"events":[{events}]}}"#)
}

fn book(n: u64, kind: &str, products: &[&str]) -> String {
    let level = format!(r#"{{"side":"bid","event_time":"{AT}","price_level":"1","new_quantity":"2"}}"#);
    let events = products.iter().map(|p| format!(r#"{{"type":"{kind}","product_id":"{p}","updates":[{level}]}}"#));
    advanced(n, "l2_data", &events.collect::<Vec<_>>().join(","))
}

/// Newest first, as the venue sends them.
fn trades(n: u64, kind: &str, ids: &[u64]) -> String {
    let row = |id: &u64| {
        format!(
            r#"{{"product_id":"BTC-USD","trade_id":"{id}","price":"1","size":"1","time":"2026-01-01T00:00:0{}Z","side":"BUY"}}"#,
            id % 10
        )
    };
    let rows: Vec<String> = ids.iter().rev().map(row).collect();
    advanced(n, "market_trades", &format!(r#"{{"type":"{kind}","trades":[{}]}}"#, rows.join(",")))
}

fn listed(n: u64, subscriptions: &str) -> String {
    advanced(n, "subscriptions", &format!(r#"{{"subscriptions":{{{subscriptions}}}}}"#))
}

#[test]
fn advanced_subscribes_channel_by_channel_and_knows_what_was_left_out() {
    Bench::new(
        "coinbase",
        &plan("coinbase", &["BTC-USD", "NO-USD"], &["level2:{}", "heartbeats", "market_trades:{}"], &[]),
    )
    .open()
    .frame("ack of heartbeats", &listed(0, r#""heartbeats":["heartbeats"]"#))
    .until(1150)
    .frame("snapshot before the ack", &book(1, "snapshot", &["BTC-USD"]))
    .frame("ack of level2", &listed(2, r#""heartbeats":["heartbeats"],"level2":["BTC-USD"]"#))
    .until(1300)
    .frame("trades of before, newest first", &trades(3, "snapshot", &[5, 6, 7]))
    .frame(
        "ack of trades",
        &listed(4, r#""heartbeats":["heartbeats"],"level2":["BTC-USD"],"market_trades":["BTC-USD"]"#),
    )
    .frame("change", &book(5, "update", &["BTC-USD"]))
    .frame("trades, newest first", &trades(6, "update", &[8, 9]))
    .end(expect![[r#"
        open
          send {"channel":"heartbeats","type":"subscribe"}
        ack of heartbeats
        timer 1150
          send {"channel":"level2","product_ids":["BTC-USD","NO-USD"],"type":"subscribe"}
        snapshot before the ack
          book BTC-USD snapshot at 1767225600000
        ack of level2
          warn the venue did not subscribe level2:NO-USD
          GAP NO-USD book 1150..: the venue did not subscribe level2:NO-USD
        timer 1300
          send {"channel":"market_trades","product_ids":["BTC-USD","NO-USD"],"type":"subscribe"}
        trades of before, newest first
          trade BTC-USD 5
          trade BTC-USD 6
          trade BTC-USD 7
        ack of trades (whole)
          warn the venue did not subscribe market_trades:NO-USD
          GAP NO-USD trade 1300..: the venue did not subscribe market_trades:NO-USD
        change (whole)
          book BTC-USD update at 1767225600000
        trades, newest first (whole)
          trade BTC-USD 8
          trade BTC-USD 9
    "#]]);
}

#[test]
fn a_number_that_is_missing_restarts_every_book_of_the_connection() {
    Bench::new("coinbase", &plan("coinbase", &["BTC-USD", "ETH-USD"], &["level2:{}"], &[]))
        .open()
        .frame("snapshots", &book(0, "snapshot", &["BTC-USD", "ETH-USD"]))
        .frame("ack", &listed(1, r#""level2":["BTC-USD","ETH-USD"]"#))
        .frame("3, not 2", &book(3, "update", &["ETH-USD"]))
        .frame("2 again late", &book(2, "update", &["BTC-USD"]))
        .until(1700)
        .frame("ack of leaving", &listed(4, r#""level2":["ETH-USD"]"#))
        .frame("new snapshot", &book(5, "snapshot", &["BTC-USD"]))
        .frame("a repeat", &book(5, "snapshot", &["BTC-USD"]))
        .end(expect![[r#"
            open
              send {"channel":"level2","product_ids":["BTC-USD","ETH-USD"],"type":"subscribe"}
            snapshots
              book BTC-USD snapshot at 1767225600000
              book ETH-USD snapshot at 1767225600000
            ack (whole)
            3, not 2 (whole)
              GAP BTC-USD book 1767225600000..: message 3 of the connection after 1
              GAP ETH-USD book 1767225600000..: message 3 of the connection after 1
            2 again late (whole)
            timer 1150 (whole)
              send {"channel":"level2","product_ids":["BTC-USD"],"type":"unsubscribe"}
            timer 1300 (whole)
              send {"channel":"level2","product_ids":["BTC-USD"],"type":"subscribe"}
            timer 1450 (whole)
              send {"channel":"level2","product_ids":["ETH-USD"],"type":"unsubscribe"}
            timer 1600 (whole)
              send {"channel":"level2","product_ids":["ETH-USD"],"type":"subscribe"}
            ack of leaving (whole)
            new snapshot (whole)
              GAP BTC-USD book 1767225600000..1767225600000: message 3 of the connection after 1
              book BTC-USD snapshot at 1767225600000
            a repeat (whole)
        "#]]);
}

#[test]
fn a_hole_in_the_trades_of_advanced_is_asked_for_from_the_time_before_it() {
    Bench::new("coinbase", &plan("coinbase", &["BTC-USD"], &["market_trades:{}"], &[]))
        .open()
        .frame("ack", &listed(0, r#""market_trades":["BTC-USD"]"#))
        .frame("trades", &trades(1, "update", &[3, 4]))
        .frame("7 after 4", &trades(2, "update", &[7]))
        .until(1300)
        .http(2, 200, r#"{"trades":[{"product_id":"BTC-USD","trade_id":"6","price":"1","size":"1","time":"2026-01-01T00:00:06Z","side":"BUY"},
                                    {"product_id":"BTC-USD","trade_id":"5","price":"1","size":"1","time":"2026-01-01T00:00:05Z","side":"BUY"}],
                         "best_bid":"1","best_ask":"2"}"#)
        .end(expect![[r#"
            open
              send {"channel":"market_trades","product_ids":["BTC-USD"],"type":"subscribe"}
            ack (whole)
            trades (whole)
              trade BTC-USD 3
              trade BTC-USD 4
            7 after 4
              fetch 2 /api/v3/brokerage/market/products/BTC-USD/ticker?limit=1000&start=1767225604
            http 2 200 (whole)
              trade BTC-USD 5
              trade BTC-USD 6
              trade BTC-USD 7
        "#]]);
}

#[test]
fn a_refusal_that_names_nothing_is_of_the_oldest_request() {
    Bench::new("coinbase", &plan("coinbase", &["BTC-USD"], &["level2:{}", "ticker:{}"], &[]))
        .open()
        .until(1150)
        .frame("refusal", r#"{"type":"error","message":"authentication failure"}"#)
        .frame("ack", &listed(0, r#""ticker":["BTC-USD"]"#))
        .end(expect![[r#"
            open
              send {"channel":"level2","product_ids":["BTC-USD"],"type":"subscribe"}
            timer 1150
              send {"channel":"ticker","product_ids":["BTC-USD"],"type":"subscribe"}
            refusal
              warn the venue refused a request: authentication failure
              warn the venue did not subscribe level2:BTC-USD
              GAP BTC-USD book 1150..: the venue did not subscribe level2:BTC-USD
            ack (whole)
        "#]]);
}

#[test]
fn a_book_whose_snapshot_was_not_understood_is_asked_for_again_and_the_others_stay() {
    let bad = book(1, "snapshot", &["BTC-USD"]).replace(r#""2""#, r#""0.-10000""#);
    Bench::new("coinbase", &plan("coinbase", &["BTC-USD", "ETH-USD"], &["level2:{}"], &[]))
        .open()
        .frame("snapshot", &book(0, "snapshot", &["ETH-USD"]))
        .frame("bad snapshot", &bad)
        .frame("ack", &listed(2, r#""level2":["BTC-USD","ETH-USD"]"#))
        .frame("a change of a book that is not there", &book(3, "update", &["BTC-USD", "ETH-USD"]))
        .until(11_200)
        .frame("left", &listed(4, r#""level2":["ETH-USD"]"#))
        .frame("snapshot", &book(5, "snapshot", &["BTC-USD"]))
        .frame("back", &listed(6, r#""level2":["BTC-USD","ETH-USD"]"#))
        .end(expect![[r#"
            open
              send {"channel":"level2","product_ids":["BTC-USD","ETH-USD"],"type":"subscribe"}
            snapshot
              book ETH-USD snapshot at 1767225600000
            bad snapshot
              DEAD `0.-10000` is not a decimal number of at most 28 digits at line 1 column 147
            ack (whole)
            a change of a book that is not there (whole)
              book ETH-USD update at 1767225600000
            timer 11000 (whole)
              GAP BTC-USD book 1767225600000..: no snapshot came
              send {"channel":"level2","product_ids":["BTC-USD"],"type":"unsubscribe"}
            timer 11150 (whole)
              send {"channel":"level2","product_ids":["BTC-USD"],"type":"subscribe"}
            left (whole)
            snapshot (whole)
              GAP BTC-USD book 1767225600000..1767225600000: no snapshot came
              book BTC-USD snapshot at 1767225600000
            back (whole)
        "#]]);
}

#[test]
fn exchange_subscribes_product_by_product_and_pages_the_trades_that_were_missed() {
    let matched = |kind: &str, id: u64| {
        format!(
            r#"{{"type":"{kind}","trade_id":{id},"side":"sell","size":"1","price":"1","product_id":"BTC-USD","time":"{AT}"}}"#
        )
    };
    let all = r#"{"name":"level2","product_ids":["BTC-USD"]},{"name":"matches","product_ids":["BTC-USD"]}"#;
    Bench::new(
        "coinbase-exchange",
        &plan("coinbase-exchange", &["BTC-USD", "ETH-USD"], &["level2_batch:{}", "matches:{}"], &[("BTC-USD", 40)]),
    )
    .open()
    .frame("ack", &format!(r#"{{"type":"subscriptions","channels":[{all}]}}"#))
    .frame("snapshot", r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["1","2"]],"asks":[]}"#)
    .frame("the last trade of before", &matched("last_match", 42))
    .until(1020)
    .frame("refusal", r#"{"type":"error","message":"Failed to subscribe","reason":"ETH-USD is not a valid product"}"#)
    .frame("43", &matched("match", 43))
    .until(1300)
    .http(
        3,
        200,
        r#"[{"time":"2026-01-01T00:00:01Z","trade_id":42,"price":"1","size":"1","side":"sell"},
                      {"time":"2026-01-01T00:00:00Z","trade_id":41,"price":"1","size":"1","side":"sell"}]"#,
    )
    .frame(
        "a change that is no change",
        r#"{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","0.-10000"]]}"#,
    )
    .until(1400)
    .end(expect![[r#"
        open
          send {"channels":["level2_batch","matches"],"product_ids":["BTC-USD"],"type":"subscribe"}
        ack
        snapshot
          book BTC-USD snapshot 
        the last trade of before
          fetch 3 /products/BTC-USD/trades?limit=1000&after=1041
        timer 1020
          send {"channels":["level2_batch","matches"],"product_ids":["ETH-USD"],"type":"subscribe"}
        refusal
          warn the venue refused a request: Failed to subscribe: ETH-USD is not a valid product
          warn the venue did not subscribe level2_batch:ETH-USD
          GAP ETH-USD book 1020..: the venue did not subscribe level2_batch:ETH-USD
          warn the venue did not subscribe matches:ETH-USD
          GAP ETH-USD trade 1020..: the venue did not subscribe matches:ETH-USD
        43
        http 3 200 (whole)
          trade BTC-USD 41
          trade BTC-USD 42
          trade BTC-USD 43
        a change that is no change (whole)
          DEAD `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
          GAP BTC-USD book 1767225600000..: a message of a book was not understood: `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
          send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"unsubscribe"}
        timer 1320 (whole)
          send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}
    "#]]);
}

#[test]
fn exchange_lists_all_its_products_and_those_that_are_followed_are_told_once_and_when_they_change() {
    let listed = |followed: &[&str]| {
        let rows = serde_json::json!([{ "name": "matches", "product_ids": followed }, { "name": "status" }]);
        serde_json::json!({ "type": "subscriptions", "channels": rows }).to_string()
    };
    let products = |eth: &str| {
        let rows = [("BTC-USD", "online"), ("ETH-USD", eth), ("OMG-USD", "delisted")]
            .map(|(id, status)| serde_json::json!({ "id": id, "status": status, "status_message": null }));
        serde_json::json!({ "type": "status", "products": rows, "currencies": [] }).to_string()
    };
    Bench::new("coinbase-exchange", &plan("coinbase-exchange", &["BTC-USD"], &["matches:{}", "status"], &[]))
        .open()
        .frame("ack", &listed(&["BTC-USD"]))
        .until(1100)
        .frame("ack", &listed(&["BTC-USD"]))
        .frame("products", &products("offline"))
        .frame("products", &products("offline"))
        .command("subscribe", Command::Subscribe { symbol: "ETH-USD".into() })
        .frame("ack", &listed(&["BTC-USD", "ETH-USD"]))
        .frame("products", &products("offline"))
        .frame("products", &products("online"))
        .command("unsubscribe", Command::Unsubscribe { symbol: "ETH-USD".into() })
        .frame("ack", &listed(&["BTC-USD"]))
        .frame("products", &products("offline"))
        .end(expect![[r#"
            open
              send {"channels":["matches"],"product_ids":["BTC-USD"],"type":"subscribe"}
            ack
            timer 1020
              send {"channels":["status"],"product_ids":[],"type":"subscribe"}
            ack (whole)
            products (whole)
              STATUS online: BTC-USD (online)
            products (whole)
            subscribe (whole)
              send {"channels":["matches"],"product_ids":["ETH-USD"],"type":"subscribe"}
            ack (whole)
            products (whole)
              STATUS offline: ETH-USD (offline)
            products (whole)
              STATUS online: ETH-USD (online)
            unsubscribe (whole)
            ack (whole)
            products (whole)
        "#]]);
}

#[test]
fn a_book_that_breaks_at_once_again_waits_before_it_is_subscribed_anew() {
    let bad = r#"{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","0.-10000"]]}"#;
    let snapshot = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["1","2"]],"asks":[]}"#;
    let listed = r#"{"type":"subscriptions","channels":[{"name":"level2_batch","product_ids":["BTC-USD"]}]}"#;
    Bench::new("coinbase-exchange", &plan("coinbase-exchange", &["BTC-USD"], &["level2_batch:{}"], &[]))
        .open()
        .frame("ack", listed)
        .frame("snapshot", snapshot)
        .frame("bad", bad)
        .until(1100)
        .frame("snapshot", snapshot)
        .frame("bad", bad)
        .frame("bad", bad)
        .until(3000)
        .end(expect![[r#"
            open
              send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}
            ack (whole)
            snapshot (whole)
              book BTC-USD snapshot 
            bad (whole)
              DEAD `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
              GAP BTC-USD book 1000..: a message of a book was not understood: `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
            timer 1020 (whole)
              send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"unsubscribe"}
            timer 1040 (whole)
              send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}
            snapshot (whole)
              GAP BTC-USD book 1000..1100: a message of a book was not understood: `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
              book BTC-USD snapshot 
            bad (whole)
              DEAD `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
              GAP BTC-USD book 1100..: a message of a book was not understood: `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
            bad (whole)
              DEAD `0.-10000` is not a decimal number of at most 28 digits at line 1 column 74
            timer 2000 (whole)
              send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"unsubscribe"}
            timer 2020 (whole)
              send {"channels":["level2_batch"],"product_ids":["BTC-USD"],"type":"subscribe"}
        "#]]);
}

proptest! {
    /// Whatever is lost, doubled or swapped: a message that is not the next one is never taken for it.
    #[test]
    fn a_message_is_next_only_behind_all_before_it(tape in prop::collection::vec(0u64..90, 0..300)) {
        let mut order = Order::default();
        let mut came = std::collections::BTreeSet::new();
        let mut newest: Option<u64> = None;
        for number in tape {
            match order.take(number) {
                Place::Next => {
                    prop_assert_eq!(number, newest.map_or(0, |n| n + 1));
                    newest = Some(number);
                }
                Place::Lost(_) => {
                    prop_assert_ne!(Some(number), newest.map(|n| n + 1));
                    if newest.is_none_or(|n| number < n) {
                        came.clear();
                    }
                    newest = Some(number);
                }
                Place::Late => prop_assert!(Some(number) < newest && !came.contains(&number)),
                Place::Again => prop_assert!(came.contains(&number)),
            }
            came.insert(number);
        }
    }
}
