//! Frames of both APIs, and our own orders.

use proptest::prelude::*;
use schemas::{Nanos, Side};

use crate::event::{Event, Frame};
use crate::venue::by_id;

pub(super) fn fixture(name: &str) -> Option<String> {
    let root = schemas::fixtures::root()?;
    Some(std::fs::read_to_string(root.join("fixtures/venues/coinbase").join(name)).unwrap())
}

/// The body of the recorded example of a path.
pub(super) fn example(path: &str) -> Option<String> {
    let rows = fixture("rest_examples.jsonl")?;
    let rows = rows.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let found = rows.filter(|row| row["path"] == path).map(|row| row["response"].to_string()).next();
    Some(found.unwrap_or_else(|| panic!("no example of {path}")))
}

#[test]
fn unknown_words_are_refused_on_both_apis() {
    let reason = |id: &str, frame: &str| {
        let (venue, market) = by_id(id).unwrap();
        let mut out = Vec::new();
        venue.decode(market, Frame::Text(frame), &mut out);
        match &out[..] {
            [Event::Malformed(reason)] => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let advanced = |channel: &str, events: &str| {
        let at = "2026-01-01T00:00:00Z";
        reason(
            "coinbase",
            &format!(r#"{{"channel":"{channel}","timestamp":"{at}","sequence_num":1,"events":{events}}}"#),
        )
    };
    assert_eq!(advanced("gossip", "[]"), "unknown channel `gossip`");
    assert_eq!(advanced("l2_data", r#"[{"type":"rumour","product_id":"X","updates":[]}]"#), "event of type `rumour`");
    let row = r#"{"product_id":"X","trade_id":"7","price":"1","size":"1","time":"2026-01-01T00:00:00Z","side":"HOLD"}"#;
    assert_eq!(
        advanced("market_trades", &format!(r#"[{{"type":"update","trades":[{row}]}}]"#)),
        "trade 7 has side `HOLD`"
    );
    let level = |side: &str, size: &str| {
        let row = format!(
            r#"{{"side":"{side}","event_time":"1970-01-01T00:00:00Z","price_level":"1","new_quantity":"{size}"}}"#
        );
        advanced("l2_data", &format!(r#"[{{"type":"update","product_id":"X","updates":[{row}]}}]"#))
    };
    assert_eq!(level("ask", "1"), "level with side `ask`");
    assert_eq!(level("bid", "-1"), "level 1 has size -1");
    assert!(level("bid", "0.-10000").contains("0.-10000"));
    assert_eq!(reason("coinbase", r#"{"type":"rumour"}"#), "message of type `rumour`");
    assert_eq!(reason("coinbase-exchange", r#"{"type":"rumour"}"#), "unknown type `rumour`");
    let change = r#"{"type":"l2update","product_id":"X","changes":[["bid","1","1"]]}"#;
    assert_eq!(reason("coinbase-exchange", change), "side `bid`");
}

#[test]
fn a_products_status_is_told_and_an_unknown_one_is_refused() {
    let Some(frame) = fixture("ws_adv_status.jsonl") else { return };
    let read = |frame: &str| {
        let mut out = Vec::new();
        super::advanced::decode(Frame::Text(frame), &mut out);
        match &out[..] {
            [Event::Status(status)] => status.to_string(),
            [Event::Malformed(why)] => format!("malformed: {why}"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(frame.trim()), "online: ETH-USDT (online)");
    let halted = frame
        .replace(r#""status":"online""#, r#""status":"offline""#)
        .replace(r#""status_message":"""#, r#""status_message":"halted for an auction""#);
    assert_eq!(read(&halted), "offline: ETH-USDT (offline): halted for an auction");
    let odd = frame.replace(r#""status":"online""#, r#""status":"dreaming""#);
    assert_eq!(read(&odd), "malformed: product ETH-USDT has status `dreaming`");
}

#[test]
fn exchange_tells_whether_products_are_traded_and_what_orders_they_take() {
    let Some(products) = fixture("rest_ex_products.json") else { return };
    let mut products: Vec<serde_json::Value> = serde_json::from_str(&products).unwrap();
    products.truncate(5);
    for (product, limit) in products.iter_mut().zip(["", "trading_disabled", "cancel_only", "post_only"]) {
        if !limit.is_empty() {
            product[limit] = true.into();
        }
    }
    products[4]["status"] = "delisted".into();
    products[4]["status_message"] = "gone".into();
    let read = |products: &[serde_json::Value], carried: &dyn Fn(&str) -> bool| {
        let frame = serde_json::json!({ "type": "status", "products": products, "currencies": [{ "id": "USD" }] });
        let mut out = Vec::new();
        super::exchange::decode(Frame::Text(&frame.to_string()), carried, &mut out);
        let told = out.into_iter().map(|event| match event {
            Event::Status(status) => status.to_string(),
            Event::Malformed(why) => format!("malformed: {why}"),
            other => panic!("{other:?}"),
        });
        told.collect::<Vec<_>>()
    };
    expect_test::expect![[r#"
        [
            "online: SKL-EUR (online)",
            "locked: BTC-GBP (trading_disabled)",
            "restricted: OMG-GBP (cancel_only)",
            "restricted: CVC-USDC (post_only)",
        ]
    "#]]
    .assert_debug_eq(&read(&products[..4], &|_| true));
    let last = products[4]["id"].as_str().unwrap().to_owned();
    assert_eq!(read(&products, &|p| p == last), [format!("offline: {last} (delisted): gone")]);
    products[4]["status"] = "dreaming".into();
    assert_eq!(read(&products, &|_| true).last().unwrap(), &format!("malformed: product {last} has status `dreaming`"));
    assert_eq!(read(&products, &|p| p != last).len(), 4, "what is not carried spoils nothing");
}

#[test]
fn levels_that_never_changed_give_a_book_no_time() {
    let row = |at: &str| format!(r#"{{"side":"bid","event_time":"{at}","price_level":"1","new_quantity":"2"}}"#);
    let ts = |rows: &str| {
        let mut out = Vec::new();
        let frame = format!(
            r#"{{"channel":"l2_data","timestamp":"2026-01-01T00:00:00Z","sequence_num":0,"events":[{{"type":"snapshot","product_id":"X","updates":[{rows}]}}]}}"#
        );
        super::advanced::decode(Frame::Text(&frame), &mut out);
        let [Event::Book(book)] = &out[..] else { panic!("{out:?}") };
        book.ts
    };
    let (old, new) = (row("1970-01-01T00:00:00Z"), row("2026-01-01T00:00:00.5Z"));
    assert_eq!(ts(&old), None);
    assert_eq!(ts(&format!("{old},{new},{old}")), Some(Nanos(1_767_225_600_500_000_000)));
}

#[test]
fn orders_and_balances_of_the_private_channels_are_read() {
    let Some(lines) = fixture("ws_adv_user.jsonl") else { return };
    let read = |line: &str| {
        let mut out = Vec::new();
        super::advanced::decode(Frame::Text(line), &mut out);
        out
    };
    let events = read(lines.lines().next().unwrap());
    let [Event::Order(order)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (order.status.as_str(), order.size.to_string(), order.filled.to_string()),
        ("FILLED", "0.01".into(), "0.01".into())
    );
    assert_eq!((order.side, order.price.unwrap().to_string()), (Side::Buy, "50000".into()));
    let odd = read(&lines.lines().next().unwrap().replace("FILLED", "NODDED"));
    assert_eq!(odd, [Event::Malformed("order YYY has status `NODDED`".into())]);
    let events = read(fixture("ws_adv_futures_balance_summary.jsonl").unwrap().trim());
    let [Event::Balance { asset, free, locked, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((asset.as_str(), free.to_string(), locked.to_string()), ("USD", "100".into(), "500".into()));
}

#[test]
fn accounts_and_fills_by_rest_are_read_and_unknown_liquidity_is_no_guess() {
    let Some(body) = example("/api/v3/brokerage/accounts") else { return };
    let balances = super::user::accounts(&body).unwrap();
    let [Event::Balance { asset, free, locked, .. }] = &balances[..] else { panic!("{balances:?}") };
    assert_eq!((asset.as_str(), free.to_string(), locked.to_string()), ("BTC", "1.23".into(), "1.23".into()));
    let body = example("/api/v3/brokerage/orders/historical/fills").unwrap();
    let why = super::user::fills(&body).unwrap_err();
    assert_eq!(why, "fill 1111-11111-111111 has liquidity `UNKNOWN_LIQUIDITY_INDICATOR`");
    let fills = super::user::fills(&body.replace("UNKNOWN_LIQUIDITY_INDICATOR", "MAKER")).unwrap();
    let [fill] = &fills[..] else { panic!("{fills:?}") };
    assert_eq!((fill.maker, fill.fee.to_string(), fill.fee_asset.as_deref()), (true, "1.25".into(), Some("USD")));
}

#[test]
fn the_ids_of_the_recording_are_consecutive_and_the_side_of_a_ticker_is_the_takers() {
    let Some(lines) = fixture("seq_exchange_l2_2021_a.jsonl") else { return };
    let (venue, market) = by_id("coinbase-exchange").unwrap();
    let (mut last, mut steps, mut tickers) = (std::collections::BTreeMap::new(), Vec::new(), 0);
    for line in lines.lines() {
        let mut events = Vec::new();
        venue.decode(market, Frame::Text(line), &mut events);
        for event in events {
            if let Event::Trade(trade) = event
                && let Some((before, _)) = last.insert(trade.symbol.clone(), (trade.id, trade.side))
            {
                steps.push(trade.id - before);
            }
        }
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["type"] == "ticker"
            && let Some((id, side)) = last.get(row["product_id"].as_str().unwrap())
            && row["trade_id"] == *id
        {
            assert_eq!(row["side"], side.as_str(), "{line}");
            tickers += 1;
        }
    }
    assert_eq!((last.len(), steps.len(), steps.iter().all(|step| *step == 1)), (7, 88, true));
    // The other 21 come before their match.
    assert_eq!(tickers, 74);
}

proptest! {
    /// Whatever arrives in place of a recorded message: it is told as something, and nothing panics.
    #[test]
    fn a_spoiled_message_is_told_as_something(line in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in 32u8..127, cut in any::<bool>()) {
        let names = ["ws_adv_l2_data", "ws_adv_market_trades", "ws_adv_ticker", "ws_adv_candles", "ws_adv_user", "ws_ex_level2", "ws_ex_ticker", "ws_ex_matches"];
        let mut lines = Vec::new();
        for name in names {
            let Some(text) = fixture(&format!("{name}.jsonl")) else { return Ok(()) };
            let market = if name.contains("_ex_") { "coinbase-exchange" } else { "coinbase" };
            lines.extend(text.lines().map(|l| (market, l.to_owned())));
        }
        let (market, mut text) = lines[line.index(lines.len())].clone();
        let at = at.index(text.len());
        prop_assume!(text.is_char_boundary(at) && text.is_char_boundary(at + 1));
        if cut { text.truncate(at) } else { text.replace_range(at..at + 1, char::from(byte).encode_utf8(&mut [0; 4])) }
        let (venue, market) = by_id(market).unwrap();
        let mut out = Vec::new();
        venue.decode(market, Frame::Text(&text), &mut out);
        prop_assert!(!cut || matches!(out[..], [Event::Malformed(_)]), "{:?}", out);
    }
}
