use std::collections::BTreeMap;

use super::*;

const D: VenueId = VenueId::Deribit;

async fn open(sim: &Handle) -> Client {
    Client::open(sim.addr(D), "/ws/api/v2").await
}

async fn login(c: &mut Client) -> Value {
    let account = config().account;
    let params = json!({ "grant_type": "client_credentials", "client_id": account.api_key, "client_secret": account.api_secret });
    c.call(json!("auth"), "public/auth", params).await["result"].clone()
}

#[tokio::test]
async fn ids_come_back_as_they_went_and_bad_channels_are_left_out() {
    let sim = start(D).await;
    let mut c = open(&sim).await;
    for id in [json!(7), json!("seven")] {
        let answer = c.call(id, "public/test", json!({})).await;
        assert_eq!(answer["result"]["version"], "1.2.26");
        let diff = answer["usOut"].as_i64().unwrap() - answer["usIn"].as_i64().unwrap();
        assert_eq!(answer["usDiff"].as_i64(), Some(diff));
        assert_eq!(answer["testnet"], true);
    }
    let channels = json!({ "channels": ["quote.BTC-PERPETUAL", "quote.NOPE", "user.orders.any.any.raw", "nonsense"] });
    let answer = c.call(json!(1), "public/subscribe", channels).await;
    assert_eq!(answer["result"], json!(["quote.BTC-PERPETUAL"]));
    if let Some(known) = fixture("deribit", "ws_subscribe_ack.jsonl", 0) {
        assert_eq!(members(&answer), members(&known));
    }
    c.until(|v| v["params"]["channel"] == "quote.BTC-PERPETUAL").await;
    assert_eq!(c.call(json!(2), "public/unsubscribe_all", json!({})).await["result"], "ok");
    assert_eq!(c.call(json!(3), "public/nonsense", json!({})).await["error"]["code"], -32601);
    assert_eq!(c.call(json!(4), "private/buy", json!({})).await["error"]["code"], 10000);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_below_ten_is_refused_and_an_unanswered_test_request_ends_the_session() {
    let mut quick = options(D);
    quick.config.deribit.test_request_wait_ms = 300;
    let sim = Simulator::start(quick).await.unwrap();
    let mut c = open(&sim).await;
    let refused = c.call(json!(7), "public/set_heartbeat", json!({ "interval": 5 })).await;
    assert_eq!(refused["error"]["data"], json!({ "reason": "value must be >= 10", "param": "interval" }));
    if let Some(known) = fixture("deribit", "ws_error.jsonl", 1) {
        assert_eq!((members(&refused), &refused["error"]), (members(&known), &known["error"]));
    }
    assert_eq!(c.call(json!(8), "public/set_heartbeat", json!({ "interval": 10 })).await["result"], "ok");
    for _ in 0..2 {
        sim.fault(D, crate::Command::new("test_request").ms(30_000)).unwrap();
        let request = c.until(|v| v["method"] == "heartbeat").await;
        assert_eq!(request["params"]["type"], "test_request");
        c.call(json!(9), "public/test", json!({})).await;
    }
    sim.fault(D, crate::Command::new("test_request").ms(100)).unwrap();
    assert!(matches!(c.end().await, End::Closed(1000, _)));
    sim.stop().await.unwrap();
}

/// A book kept from `[action, price, amount]` rows.
#[derive(Default)]
struct Book {
    id: u64,
    sides: [BTreeMap<String, f64>; 2],
}

impl Book {
    fn apply(&mut self, data: &Value) {
        for (half, name) in self.sides.iter_mut().zip(["bids", "asks"]) {
            for row in data[name].as_array().unwrap() {
                let (action, price, amount) = (row[0].as_str().unwrap(), row[1].to_string(), row[2].as_f64().unwrap());
                let was = match action {
                    "delete" => half.remove(&price).is_some(),
                    _ => half.insert(price.clone(), amount).is_some(),
                };
                assert_eq!(was, action != "new", "{action} {price}");
                assert_eq!(amount == 0.0, action == "delete");
            }
        }
        self.id = data["change_id"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn books_chain_from_the_snapshot_to_the_rest_book_also_for_who_comes_later() {
    let mut calm = options(D);
    calm.flow.rate = 6.0;
    calm.config.deribit.credits_max = 100_000_000;
    let sim = Simulator::start(calm).await.unwrap();
    let addr = sim.addr(D);
    let mut early = open(&sim).await;
    let channel = json!({ "channels": ["book.BTC-PERPETUAL.100ms"] });
    early.call(json!(1), "public/subscribe", channel.clone()).await;
    early.until(|v| v["params"]["data"]["type"] == "change").await;
    let mut late = open(&sim).await;
    late.call(json!(1), "public/subscribe", channel).await;
    let mut book = Book::default();
    let first = late.next().await;
    assert_eq!(first["params"]["data"]["type"], "snapshot");
    book.apply(&first["params"]["data"]);
    let mut equal = false;
    for _ in 0..200 {
        let truth =
            get(addr, "/api/v2/public/get_order_book?instrument_name=BTC-PERPETUAL&depth=1000").await["result"].clone();
        while book.id < truth["change_id"].as_u64().unwrap() {
            let data = late.next().await["params"]["data"].clone();
            assert_eq!(data["prev_change_id"].as_u64(), Some(book.id));
            book.apply(&data);
        }
        if Some(book.id) == truth["change_id"].as_u64() {
            for (half, name) in book.sides.iter().zip(["bids", "asks"]) {
                let rows = truth[name].as_array().unwrap();
                let rows: BTreeMap<String, f64> =
                    rows.iter().map(|r| (r[0].to_string(), r[1].as_f64().unwrap())).collect();
                assert_eq!(*half, rows);
            }
            equal = true;
            break;
        }
    }
    assert!(equal, "no snapshot fell between two changes");
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn every_channel_has_the_members_that_the_venue_sends() {
    if schemas::fixtures::root().is_none() {
        return;
    }
    let mut fast = options(D);
    fast.speed = crate::Speed::Factor(5.0);
    let sim = Simulator::start(fast).await.unwrap();
    let mut c = open(&sim).await;
    let table = [
        ("ticker.BTC-PERPETUAL.100ms", "ws_ticker.jsonl", 1),
        ("book.BTC-PERPETUAL.100ms", "ws_book.jsonl", 1),
        ("book.BTC-PERPETUAL.none.20.100ms", "ws_book_grouped.jsonl", 0),
        ("trades.BTC-PERPETUAL.100ms", "ws_trades.jsonl", 4),
        ("quote.BTC-PERPETUAL", "ws_quote.jsonl", 1),
        ("chart.trades.BTC-PERPETUAL.1", "ws_chart.jsonl", 0),
    ];
    let more = ["deribit_price_index.btc_usd", "perpetual.BTC-PERPETUAL.100ms", "trades.future.BTC.raw"];
    let names: Vec<&str> = table.iter().map(|r| r.0).chain(more).collect();
    assert_eq!(c.call(json!(1), "public/subscribe", json!({ "channels": names })).await["result"], json!(names));
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    while seen.len() < names.len() {
        let v = c.next().await;
        assert_eq!(members(&v), ["jsonrpc", "method", "params"].map(str::to_owned).into());
        let channel = v["params"]["channel"].as_str().unwrap().to_owned();
        seen.entry(channel).or_insert(v["params"]["data"].clone());
    }
    for (channel, file, line) in table {
        let known = fixture("deribit", file, line).unwrap()["params"]["data"].clone();
        let (known, seen) = if known.is_array() { (&known[0], &seen[channel][0]) } else { (&known, &seen[channel]) };
        let mut ours = members(seen);
        ours.remove("liquidation");
        assert_eq!(ours, members(known), "{channel}");
        assert_eq!(members(&seen["stats"]), members(&known["stats"]), "{channel}");
    }
    assert_eq!(
        members(&seen["deribit_price_index.btc_usd"]),
        ["timestamp", "price", "index_name"].map(str::to_owned).into()
    );
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn rest_serves_instruments_books_trades_and_errors() {
    let sim = start(D).await;
    let addr = sim.addr(D);
    let all = get(addr, "/api/v2/public/get_instruments?currency=BTC&kind=future").await;
    let instrument = &all["result"][0];
    assert_eq!(
        (&instrument["instrument_name"], &instrument["tick_size"], &instrument["contract_size"]),
        (&json!("BTC-PERPETUAL"), &json!(0.5), &json!(10.0))
    );
    if let Some(root) = schemas::fixtures::root() {
        let text =
            std::fs::read_to_string(root.join("fixtures/venues/deribit/rest_get_instruments_USDC.json")).unwrap();
        let known: Value = serde_json::from_str(&text).unwrap();
        let missing: Vec<_> = members(&known["result"][0]).difference(&members(instrument)).cloned().collect();
        assert!(missing.is_empty(), "{missing:?}");
        let known = fixture("deribit", "rest_order_book.jsonl", 0).unwrap();
        let book = get(addr, "/api/v2/public/get_order_book?instrument_name=BTC-PERPETUAL&depth=3").await;
        let missing: Vec<_> = members(&known["result"]).difference(&members(&book["result"])).cloned().collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    let trades = get(addr, "/api/v2/public/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&count=5").await;
    let rows = trades["result"]["trades"].as_array().unwrap();
    let first = rows[4]["trade_seq"].as_u64().unwrap();
    assert_eq!((rows.len(), rows[0]["trade_seq"].as_u64()), (5, Some(first + 4)));
    let from = get(
        addr,
        &format!(
            "/api/v2/public/get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&start_seq={first}&count=2"
        ),
    )
    .await;
    assert_eq!(from["result"]["trades"][1]["trade_seq"].as_u64(), Some(first + 1));
    let (status, _, body) = http(addr, "GET", "/api/v2/public/ticker?instrument_name=NOPE", "").await;
    assert_eq!((status, body["error"]["code"].as_i64()), (400, Some(-32602)));
    let body = json!({ "jsonrpc": "2.0", "id": "x", "method": "public/get_time", "params": {} }).to_string();
    let (_, _, time) = http(addr, "POST", "/api/v2", &body).await;
    assert!(time["id"] == "x" && time["result"].as_i64().unwrap() > 1_600_000_000_000);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn orders_trade_rest_are_edited_cancelled_and_pushed() {
    let sim = start(D).await;
    let mut c = open(&sim).await;
    assert_eq!(login(&mut c).await["token_type"], "bearer");
    let channels = json!({ "channels": ["user.orders.any.any.raw", "user.trades.BTC-PERPETUAL.raw"] });
    assert_eq!(c.call(json!(1), "private/subscribe", channels.clone()).await["result"], channels["channels"]);
    let market = json!({ "instrument_name": "BTC-PERPETUAL", "amount": 20_000, "type": "market", "label": "one" });
    let bought = c.call(json!(2), "private/buy", market.clone()).await["result"].clone();
    assert_eq!(
        (&bought["order"]["order_state"], &bought["order"]["filled_amount"]),
        (&json!("filled"), &json!(20_000.0))
    );
    let sum: f64 = bought["trades"].as_array().unwrap().iter().map(|t| t["amount"].as_f64().unwrap()).sum();
    assert_eq!(sum, 20_000.0);
    // The pushes come after the answer, unless a fault turns them round.
    let push = c.until(|v| v["params"]["channel"] == "user.trades.BTC-PERPETUAL.raw").await;
    assert_eq!(push["params"]["data"][0]["order_id"], bought["order"]["order_id"]);
    sim.fault(D, crate::Command::new("push_first")).unwrap();
    let before = c.heard.len();
    c.call(json!(3), "private/sell", market).await;
    assert!(c.heard[before..].iter().any(|t| t.contains("user.trades")), "pushed before the answer");

    let low = json!({ "instrument_name": "BTC-PERPETUAL", "amount": 100, "price": 40_000.5, "post_only": true });
    let resting = c.call(json!(4), "private/buy", low).await["result"]["order"].clone();
    assert_eq!((&resting["order_state"], &resting["price"]), (&json!("open"), &json!(40_000.5)));
    let id = resting["order_id"].clone();
    let edited = c.call(json!(5), "private/edit", json!({ "order_id": id, "amount": 200, "price": 40_001 })).await;
    let order = &edited["result"]["order"];
    assert_eq!(
        (&order["amount"], &order["price"], &order["replaced"]),
        (&json!(200.0), &json!(40_001.0), &json!(true))
    );
    let gone = c.call(json!(6), "private/cancel", json!({ "order_id": id })).await["result"].clone();
    assert_eq!((&gone["order_state"], &gone["cancel_reason"]), (&json!("cancelled"), &json!("user_request")));
    if let Some(known) = fixture("deribit", "ws_private_order_rpc.lgpl.jsonl", 3) {
        assert_eq!(members(&gone), members(&known["result"]));
    }
    assert_eq!(c.call(json!(7), "private/cancel", json!({ "order_id": id })).await["error"]["code"], 11044);
    assert_eq!(c.call(json!(8), "private/cancel", json!({ "order_id": "nope" })).await["error"]["code"], 10004);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn post_only_moves_the_price_in_silence_or_is_rejected_and_amounts_keep_their_grid() {
    let sim = start(D).await;
    let mut c = open(&sim).await;
    login(&mut c).await;
    let order = |extra: Value| {
        let mut order =
            json!({ "instrument_name": "BTC-PERPETUAL", "amount": 100, "price": 100_000, "post_only": true });
        extra.as_object().unwrap().iter().for_each(|(k, v)| order[k] = v.clone());
        order
    };
    let moved = c.call(json!(1), "private/buy", order(json!({}))).await["result"]["order"].clone();
    assert!(moved["order_state"] == "open" && moved["price"].as_f64().unwrap() < 99_000.0, "{moved}");
    let rejected = c.call(json!(2), "private/buy", order(json!({ "reject_post_only": true }))).await;
    assert_eq!(rejected["error"]["code"], 11054);
    for (extra, param) in [
        (json!({ "amount": 15 }), "amount"),
        (json!({ "price": 100.3 }), "price"),
        (json!({ "instrument_name": "NOPE" }), "instrument_name"),
        (json!({ "type": "dance" }), "type"),
    ] {
        let error = c.call(json!(3), "private/buy", order(extra)).await;
        assert_eq!((&error["error"]["code"], &error["error"]["data"]["param"]), (&json!(-32602), &json!(param)));
    }
    let poor = c.call(json!(4), "private/buy", order(json!({ "amount": 900_000_000 }))).await;
    assert_eq!(poor["error"]["code"], 10009);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn orders_of_a_dropped_connection_are_cancelled_when_asked_for() {
    let sim = start(D).await;
    let (mut c, mut other) = (open(&sim).await, open(&sim).await);
    login(&mut c).await;
    login(&mut other).await;
    c.call(json!(1), "private/enable_cancel_on_disconnect", json!({ "scope": "connection" })).await;
    let low = json!({ "instrument_name": "BTC-PERPETUAL", "amount": 100, "price": 40_000 });
    c.call(json!(2), "private/buy", low.clone()).await;
    let kept = other.call(json!(3), "private/buy", low).await["result"]["order"]["order_id"].clone();
    other.call(json!(4), "private/subscribe", json!({ "channels": ["user.orders.any.any.raw"] })).await;
    drop(c);
    other.until(|v| v["params"]["data"]["order_state"] == "cancelled").await;
    let open = other.call(json!(5), "private/get_open_orders", json!({})).await["result"].clone();
    assert_eq!((open.as_array().unwrap().len(), &open[0]["order_id"]), (1, &kept));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn credits_run_out_with_10028_and_the_end_and_tokens_are_refreshed() {
    let mut poor = options(D);
    poor.config.deribit.credits_max = 5_000;
    poor.config.deribit.credits_per_second = 1;
    let sim = Simulator::start(poor).await.unwrap();
    let mut c = open(&sim).await;
    let tokens = login(&mut c).await;
    let refresh = json!({ "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"] });
    let fresh = c.call(json!(1), "public/auth", refresh.clone()).await;
    assert_ne!(fresh["result"]["access_token"], tokens["access_token"]);
    assert_eq!(c.call(json!(2), "public/auth", refresh).await["error"]["code"], 13004);
    let wrong = json!({ "grant_type": "client_credentials", "client_id": "x", "client_secret": "y" });
    let error = c.call(json!(3), "public/auth", wrong).await;
    assert_eq!(error["error"], json!({ "code": 13004, "message": "invalid_credentials" }));
    let mut last = Value::Null;
    for n in 10..30 {
        last = c.call(json!(n), "public/test", json!({})).await;
        if last["error"]["code"] == 10028 {
            break;
        }
    }
    assert_eq!(last["error"]["message"], "too_many_requests");
    assert!(matches!(c.end().await, End::Closed(1008, _)));
    sim.stop().await.unwrap();
}
