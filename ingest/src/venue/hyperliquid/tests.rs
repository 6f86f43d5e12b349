//! Against the recorded bodies of the venue, and against what it might say some day.

use schemas::instrument::InstrumentKind;
use schemas::{Nanos, Side, Timeframe};
use serde_json::{Value, json};

use super::*;
use crate::event::{Control, Fill};
use crate::venue::Method;

const VENUE: Hyperliquid = Hyperliquid;
const MARKET: Market = MARKETS[0];

fn events(frame: &str) -> Vec<Event> {
    let mut out = Vec::new();
    VENUE.decode(MARKET, Frame::Text(frame), &mut out);
    out
}

/// Rows of a fixture file; none without the shared fixtures.
fn rows(file: &str) -> Vec<Value> {
    let Some(root) = schemas::fixtures::root() else { return Vec::new() };
    let text = std::fs::read_to_string(root.join("fixtures/venues/hyperliquid").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The recorded request and answer of a type.
fn recorded(kind: &str) -> Option<(Value, String)> {
    let row = rows("rest_info_recorded.jsonl").into_iter().find(|row| row["request"]["type"] == kind)?;
    Some((row["request"].clone(), row["response"].to_string()))
}

/// An example of the venue's documentation.
fn example(name: &str) -> Option<String> {
    rows("rest_examples.jsonl").into_iter().find(|row| row["example"] == name).map(|row| row["response"].to_string())
}

fn page(symbol: &str, width: &str, before_ms: i64, limit: u32) -> (String, Timeframe, Nanos, u32) {
    (symbol.to_owned(), width.parse().unwrap(), Nanos::from_ms(before_ms), limit)
}

fn history_page((symbol, timeframe, before, limit): &(String, Timeframe, Nanos, u32)) -> HistoryPage<'_> {
    HistoryPage { symbol, timeframe: *timeframe, before: *before, limit: *limit }
}

#[test]
fn every_line_of_the_recordings_is_expected_somewhere() {
    // What the registry's own walk compares of this venue: 21 messages, and the 37 of a sequence.
    let expected = rows("expected.jsonl");
    if expected.is_empty() {
        return;
    }
    let lines = expected.iter().filter(|row| row.get("line").is_some()).count();
    assert_eq!((lines, rows("expected_btc_20250126_a.events.jsonl").len()), (21, 37));
    let recorded = std::fs::read_dir(schemas::fixtures::root().unwrap().join("fixtures/venues/hyperliquid")).unwrap();
    let names = recorded.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let frames = names.filter(|n| n.ends_with(".jsonl") && (n.starts_with("ws_") || n.starts_with("seq_")));
    assert_eq!(frames.map(|name| rows(&name).len()).sum::<usize>(), 21 + 37);
}

#[test]
fn perpetuals_are_named_settled_and_on_the_grid_of_their_price() {
    let Some(body) = example("Futures/ExchangeData/GetExchangeInfo") else { return };
    let (list, left) = VENUE.decode_instruments(MARKET, &body).unwrap();
    assert!(left.is_empty(), "{left:?}");
    let row = |n: usize| {
        let i = &list[n];
        assert_eq!((i.kind, i.quote.as_str(), i.terms.settle.as_str()), (InstrumentKind::Perpetual, "USDC", "USDC"));
        (i.terms.canonical.clone(), i.tick.to_string(), i.lot.to_string(), i.trading, i.terms.status.clone())
    };
    let words = |canonical: &str, tick: &str, lot: &str, trading, status: &str| {
        (canonical.to_owned(), tick.to_owned(), lot.to_owned(), trading, status.to_owned())
    };
    // Without a price the finest step; one decimal is left of six where sizes have five.
    assert_eq!(row(0), words("BTC/USDC:USDC", "0.1", "0.00001", true, ""));
    assert_eq!(row(1), words("ETH/USDC:USDC", "0.01", "0.0001", true, ""));
    assert_eq!(row(3), words("LOOM/USDC:USDC", "0.00001", "0.1", false, "delisted"));

    let Some(body) = example("Futures/ExchangeData/GetExchangeInfoAndTickers") else { return };
    let (list, left) = VENUE.decode_instruments(MARKET, &body).unwrap();
    assert!(left.is_empty(), "{left:?}");
    // The example says that BTC is marked 14.3161: five figures would be three decimals, sizes of five leave one.
    assert_eq!((list[0].tick.to_string(), list[0].scale.price), ("0.1".to_owned(), 1));
    // HPOS at 8.4542 with whole sizes: four decimals are five figures, six are possible.
    assert_eq!((list[2].tick.to_string(), list[2].scale.price, list[2].scale.qty), ("0.0001".to_owned(), 6, 0));
    assert_eq!(list[2].min_notional.to_string(), "10");
}

#[test]
fn a_spot_pair_has_the_names_of_its_tokens() {
    let Some(body) = example("Spot/ExchangeData/GetExchangeInfoAndTickers") else { return };
    let (list, left) = VENUE.decode_instruments(MARKET, &body).unwrap();
    assert!(left.is_empty(), "{left:?}");
    let [purr] = &list[..] else { panic!("{list:?}") };
    assert_eq!((purr.symbol.as_str(), purr.terms.canonical.as_str()), ("PURR/USDC", "PURR/USDC"));
    assert_eq!((purr.kind, purr.lot.to_string()), (InstrumentKind::Spot, "1".to_owned()));
    assert_eq!((purr.tick.to_string(), purr.scale.price), ("0.00001".to_owned(), 8));
}

#[test]
fn instruments_whose_money_or_grid_is_unknown_are_left_out_and_named() {
    let body = json!({
        "universe": [{ "name": "xyz:NVDA", "szDecimals": 3 }],
        "collateralToken": 235
    });
    let (list, left) = VENUE.decode_instruments(MARKET, &body.to_string()).unwrap();
    assert_eq!((list.len(), &left[..]), (0, &["xyz:NVDA: collateral token 235".to_owned()][..]));
    let body = json!({ "universe": [{ "name": "xyz:NVDA", "szDecimals": 3 }, { "name": "ODD", "szDecimals": 7 }] });
    let (list, left) = VENUE.decode_instruments(MARKET, &body.to_string()).unwrap();
    assert_eq!((list[0].base.as_str(), list[0].terms.canonical.as_str()), ("NVDA", "NVDA/USDC:USDC"));
    assert_eq!(left, ["ODD: sizes of 7 decimals"]);
    let body = json!({ "universe": [{ "name": "@1", "tokens": [9, 0] }], "tokens": [{ "name": "USDC", "szDecimals": 8, "index": 0 }] });
    let (_, left) = VENUE.decode_instruments(MARKET, &body.to_string()).unwrap();
    assert_eq!(left, ["@1: token 9 is not in the list"]);
    assert!(VENUE.decode_instruments(MARKET, r#"{"error":"rate limited"}"#).is_err());
}

#[test]
fn instruments_are_asked_for_by_the_kinds_of_the_symbols() {
    let symbols = ["BTC", "ETH", "@107", "PURR/USDC", "xyz:NVDA", "xyz:TSLA"].map(str::to_owned);
    let requests = VENUE.instrument_requests(MARKET, &symbols);
    let questions: Vec<Value> = requests.iter().map(|r| serde_json::from_str(&r.body).unwrap()).collect();
    assert_eq!(questions.len(), 3);
    for question in [
        json!({ "type": "metaAndAssetCtxs" }),
        json!({ "type": "metaAndAssetCtxs", "dex": "xyz" }),
        json!({ "type": "spotMetaAndAssetCtxs" }),
    ] {
        assert!(questions.contains(&question), "{question}");
    }
    assert!(requests.iter().all(|r| (r.method, r.path.as_str(), r.weight) == (Method::Post, "/info", 20)));
}

#[test]
fn the_recorded_candles_are_read_whole_and_the_last_one_is_open() {
    let Some((asked, body)) = recorded("candleSnapshot") else { return };
    let before_ms = asked["req"]["endTime"].as_i64().unwrap();
    let wanted = page("kPEPE", "1h", before_ms, 24);
    let bars = VENUE.decode_history(MARKET, history_page(&wanted), &body).unwrap();
    assert_eq!(bars.len(), 24);
    assert!(bars.windows(2).all(|two| two[1].open_ts.0 - two[0].open_ts.0 == wanted.1.ns()));
    let (first, last) = (&bars[0], &bars[23]);
    assert_eq!(
        (first.open.to_string(), first.volume_base.unwrap().to_string(), first.trades),
        ("0.001601".into(), "520665683".into(), Some(709))
    );
    assert_eq!((first.closed, last.closed), (Some(true), Some(false)));
    // The same 24 candles are what our own question would ask for.
    let request = VENUE.history_request(MARKET, history_page(&wanted)).unwrap();
    let question: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(question["req"]["startTime"], first.open_ts.as_ms());
    assert_eq!(question["req"]["interval"], "1h");
    assert!(question["req"]["endTime"].as_i64().unwrap() < before_ms);
    assert!(VENUE.decode_history(MARKET, history_page(&page("BTC", "1h", before_ms, 24)), &body).is_err());
}

#[test]
fn what_a_fresh_start_warms_up_with_is_two_questions_a_coin() {
    let before_ms = 1_800_000_000_000 + 60_000;
    let ask = |width: &str, limit: u32| {
        let wanted = page("BTC", width, before_ms, limit);
        let request = VENUE.history_request(MARKET, history_page(&wanted)).unwrap();
        let question: Value = serde_json::from_str(&request.body).unwrap();
        let (start, end) =
            (question["req"]["startTime"].as_i64().unwrap(), question["req"]["endTime"].as_i64().unwrap());
        let width_ms = wanted.1.ns() / 1_000_000;
        assert_eq!((start % width_ms, end), (0, before_ms - 1));
        ((end - start) / width_ms + 1, request.weight)
    };
    assert_eq!(ask("3m", 200), (200, 24));
    assert_eq!(ask("4h", 100), (100, 22));
    // Six coins cost 276 of the 1200 a minute.
    assert_eq!((ask("3m", 200).1 + ask("4h", 100).1) * 6, 276);
    assert!(VENUE.history_request(MARKET, history_page(&page("BTC", "10m", before_ms, 5))).is_none());
    assert_eq!(ask("1m", 1_000_000), (5000, 104));
}

#[test]
fn recent_trades_come_oldest_first_and_are_told_apart_by_their_id() {
    let row = |tid: u64, time: i64| {
        json!({ "coin": "BTC", "side": "A", "px": "104320.0", "sz": "0.01500", "time": time, "hash": "0x0", "tid": tid,
                "users": ["0xb", "0xs"] })
    };
    let body = json!([row(5, 1_769_916_002_000), row(3, 1_769_916_001_000), row(9, 1_769_916_001_000)]).to_string();
    let trades = rest::trades(&body).unwrap();
    let ids: Vec<_> = trades.iter().map(|t| t.venue_id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["9", "3", "5"]);
    assert!(trades.iter().all(|t| t.backfill && t.side == Side::Sell && t.price.to_string() == "104320"));
}

#[test]
fn the_recorded_book_of_a_coin_is_read_as_the_socket_sends_it() {
    let Some((_, body)) = recorded("l2Book") else { return };
    let book = rest::book(&body).unwrap();
    assert_eq!((book.symbol.as_str(), book.bids.len(), book.asks.len()), ("DYDX", 20, 20));
    assert!(book.bids[0].0 < book.asks[0].0 && book.ts == Some(Nanos::from_ms(1_689_630_203_930)));
    let request = rest::book_request("DYDX");
    assert_eq!((request.body.as_str(), request.weight), (r#"{"coin":"DYDX","type":"l2Book"}"#, 2));
}

#[test]
fn a_pushed_order_says_what_is_filled_and_a_pushed_fill_what_it_cost() {
    for row in rows("ws_order_updates.jsonl") {
        let said = events(&row.to_string());
        let [Event::Order(order)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((order.symbol.as_str(), order.side, order.status.as_str()), ("@107", Side::Buy, "open"));
        assert_eq!((order.size.to_string(), order.filled.is_zero()), ("0.49".to_owned(), true));
        assert_eq!((order.venue_order_id.as_str(), order.client_order_id.as_str()), ("1", ""));
    }
    for row in rows("ws_user_events.lgpl.jsonl") {
        let said = events(&row.to_string());
        let [Event::Fill(fill)] = &said[..] else { panic!("{said:?}") };
        let Fill { maker, side, fee, fee_asset, client_order_id, trade_id, .. } = &**fill;
        assert_eq!(
            (*maker, *side, fee.to_string(), fee_asset.as_deref()),
            (true, Side::Sell, "0.009997".into(), Some("USDC"))
        );
        assert_eq!(client_order_id.as_deref(), Some("0xe8d5fd7ebbb4c3cff4d1803472a11463"));
        assert_eq!(trade_id, "745210434703679");
    }
    let part = r#"{"channel":"orderUpdates","data":[{"order":{"coin":"BTC","side":"A","limitPx":"61000.0","sz":"0.25","oid":7,
        "timestamp":1,"origSz":"1.0","cloid":"0x01"},"status":"selfTradeCanceled","statusTimestamp":1764843090519}]}"#;
    let said = events(part);
    let [Event::Order(order)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(
        (order.filled.to_string(), order.status.as_str(), order.client_order_id.as_str()),
        ("0.75".into(), "selfTradeCanceled", "0x01")
    );
    let more = part.replace(r#""sz":"0.25""#, r#""sz":"1.25""#);
    assert_eq!(events(&more), [Event::Malformed("order 7 has 1.25 left of 1".to_owned())]);
}

#[test]
fn the_recorded_private_answers_are_read() {
    let Some((_, body)) = recorded("userFills") else { return };
    let fills = user::fills(&body).unwrap();
    assert_eq!((fills.len(), fills[0].symbol.as_str(), fills[0].side, fills[0].maker), (30, "SUI", Side::Sell, false));
    // Fills of 2023 have no id.
    assert!(fills.iter().all(|f| f.trade_id.is_empty() && f.fee_asset.is_none()));
    let spot = user::fills(&example("Spot/Trading/GetUserTrades").unwrap()).unwrap();
    assert_eq!((spot[0].trade_id.as_str(), spot[0].maker), ("118906512037719", true));
    let orders = user::open_orders(&recorded("frontendOpenOrders").unwrap().1).unwrap();
    assert_eq!(
        (orders.len(), orders[0].order_type.as_str(), orders[0].reduce_only),
        (3, "Take Profit Market", Some(true))
    );
    assert_eq!(orders[2].tif.as_deref(), Some("Gtc"));
    let at = Nanos::from_ms(5);
    let balances = user::spot_balances(&example("Spot/Account/GetBalances").unwrap(), at).unwrap();
    assert!(matches!(&balances[0], Event::Balance { asset, free, locked, ts }
        if asset == "USDC" && free.to_string() == "2.77363" && locked.is_zero() && *ts == at));
    // In both recorded answers what is not withdrawable is exactly the margin that is used.
    for (body, margin, ts) in [
        (example("Futures/Account/GetAccountInfo").unwrap(), "7.525754", Nanos::from_ms(1_754_467_216_357)),
        (recorded("clearinghouseState").unwrap().1, "171.740766", at),
    ] {
        let Event::Balance { asset, locked, ts: found, .. } = user::collateral(&body, at).unwrap() else { panic!() };
        assert_eq!((asset.as_str(), locked.to_string().as_str(), found), ("USDC", margin, ts));
    }
}

#[test]
fn an_answer_names_the_request_and_an_error_the_channel_that_it_is_about() {
    let ack = |method: &str, subscription: Value| {
        let frame =
            json!({ "channel": "subscriptionResponse", "data": { "method": method, "subscription": subscription } });
        match &events(&frame.to_string())[..] {
            [Event::Control(Control::Ack { id })] => id.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ack("subscribe", json!({ "type": "candle", "interval": "1m", "coin": "BTC" })),
        "subscribe BTC@candle.1m"
    );
    assert_eq!(
        ack("unsubscribe", json!({ "type": "l2Book", "coin": "@107", "nSigFigs": null, "mantissa": null })),
        "unsubscribe @107@l2Book"
    );
    assert_eq!(ack("subscribe", json!({ "type": "userFills", "user": "0xa" })), "subscribe 0xa@userFills");
    let error = |data: &str| events(&json!({ "channel": "error", "data": data }).to_string());
    let refusal = |message: &str, id: Option<&str>| Event::Error {
        code: None,
        message: message.to_owned(),
        id: id.map(str::to_owned),
    };
    let unknown = r#"Invalid subscription {"type":"trades","coin":"NOPE"}"#;
    assert_eq!(error(unknown), [refusal(unknown, Some("subscribe NOPE@trades"))]);
    assert_eq!(error("Too many messages"), [refusal("Too many messages", None)]);
    // What is as it was asked for is no refusal.
    for (message, id) in [
        (r#"Already subscribed: {"type":"candle","interval":"30m","coin":"UNI"}"#, "subscribe UNI@candle.30m"),
        (r#"Already unsubscribed: {"type":"bbo","coin":"BTC"}"#, "unsubscribe BTC@bbo"),
    ] {
        assert_eq!(error(message), [Event::Control(Control::Ack { id: id.to_owned() }), refusal(message, None)]);
    }
    assert_eq!(events(r#"{"channel":"pong"}"#), [Event::Control(Control::Pong)]);
    let post = r#"{"channel":"post","data":{"id":3,"response":{"type":"error","payload":"nonce too low"}}}"#;
    assert!(
        matches!(&events(post)[..], [Event::Error { message, id: Some(id), .. }] if message == "nonce too low" && id == "3")
    );
}

#[test]
fn a_word_that_is_not_in_a_closed_list_is_refused() {
    let reason = |frame: &str| match &events(frame)[..] {
        [Event::Malformed(reason)] => reason.clone(),
        other => panic!("{other:?}"),
    };
    let trades = |side: &str| {
        let row = |tid: u64, side: &str| {
            format!(r#"{{"coin":"BTC","side":"{side}","px":"1","sz":"1","time":1,"tid":{tid}}}"#)
        };
        format!(r#"{{"channel":"trades","data":[{},{}]}}"#, row(1, "B"), row(2, side))
    };
    assert_eq!(events(&trades("A")).len(), 2);
    assert_eq!(reason(&trades("C")), "trade 2 has side `C`");
    assert_eq!(reason(r#"{"channel":"gossip","data":{}}"#), "unknown channel `gossip`");
    assert_eq!(reason(r#"{"channel":"trades"}"#), "channel `trades` without data");
    assert_eq!(
        reason(r#"{"channel":"bbo","data":{"coin":"BTC","time":1,"bbo":[null,null,null]}}"#),
        "best bid and ask of 3 elements"
    );
    assert!(reason(r#"{"channel":"user","data":{"gift":{}}}"#).contains("gift"));
    assert_eq!(
        reason(
            r#"{"channel":"subscriptionResponse","data":{"method":"praise","subscription":{"type":"bbo","coin":"X"}}}"#
        ),
        "answer to the method `praise`"
    );
    // A number that is no text is another form than the venue's.
    assert!(
        reason(r#"{"channel":"trades","data":[{"coin":"X","side":"B","px":1.5,"sz":"1","time":1,"tid":1}]}"#)
            .contains("quotes")
    );
}

#[test]
fn channels_are_the_kinds_of_subscription_that_have_data_for_us() {
    for channel in ["{}@trades", "{}@l2Book", "{}@bbo", "{}@activeAssetCtx", "{}@candle.1m", "{}@candle.4h"] {
        VENUE.check_channel(MARKET, channel).unwrap();
    }
    for channel in ["trades", "{}@trade", "{}@candle", "{}@candle.7m", "{}@userFills", "allMids", "BTC@trades"] {
        assert!(VENUE.check_channel(MARKET, channel).unwrap_err().contains("{}@trades"), "{channel}");
    }
}
