use rust_decimal::Decimal;

use super::*;
use crate::server::wall_ns;
use crate::sign::hmac_sha256_hex;

fn signed(query: &str) -> String {
    let query = format!("{query}&timestamp={}", wall_ns() / 1_000_000);
    format!("{query}&signature={}", hmac_sha256_hex(&config().account.api_secret, &query))
}

async fn order(addr: SocketAddr, method: &str, path: &str, query: &str) -> (u16, Value) {
    let (status, _, body) = http(addr, method, &format!("{path}?{}", signed(query)), "").await;
    (status, body)
}

/// Parameters of a WebSocket API call, signed over their names in order.
fn api_params(pairs: &[(&str, &str)]) -> Value {
    let mut all: std::collections::BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert("apiKey".into(), config().account.api_key);
    all.insert("timestamp".into(), (wall_ns() / 1_000_000).to_string());
    let payload = all.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
    all.insert("signature".into(), hmac_sha256_hex(&config().account.api_secret, &payload));
    json!(all)
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).parse().unwrap()
}

async fn touch(addr: SocketAddr, prefix: &str) -> (Decimal, Decimal) {
    let t = get(addr, &format!("{prefix}/ticker/bookTicker?symbol=BTCUSDT")).await;
    (decimal(&t["bidPrice"]), decimal(&t["askPrice"]))
}

#[tokio::test]
async fn a_spot_order_is_answered_in_three_sizes_and_filled_from_the_book() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let market = "symbol=BTCUSDT&side=BUY&type=MARKET&quantity=0.1";
    let path = "/api/v3/order";
    let (_, ack) = order(addr, "POST", path, &format!("{market}&newOrderRespType=ACK")).await;
    assert_eq!(
        members(&ack),
        ["symbol", "orderId", "orderListId", "clientOrderId", "transactTime"].map(str::to_owned).into()
    );
    let (_, result) = order(addr, "POST", path, &format!("{market}&newOrderRespType=RESULT")).await;
    assert_eq!((&result["status"], &result["fills"]), (&json!("FILLED"), &Value::Null));
    let (_, full) = order(addr, "POST", path, market).await;
    let fills = full["fills"].as_array().unwrap();
    assert!(fills.len() > 1, "a tenth of a coin is more than one level holds");
    assert_eq!(fills.iter().map(|f| decimal(&f["qty"])).sum::<Decimal>(), decimal(&full["executedQty"]));
    assert_eq!(full["executedQty"], "0.10000000");
    // The fee comes in another coin than the quote.
    assert!(fills.iter().all(|f| f["commissionAsset"] == "BNB" && decimal(&f["commission"]) > Decimal::ZERO));
    let (_, account) = order(addr, "GET", "/api/v3/account", "omitZeroBalances=false").await;
    let coin = |name: &str| {
        let rows = account["balances"].as_array().unwrap();
        decimal(&rows.iter().find(|b| b["asset"] == name).unwrap()["free"])
    };
    assert_eq!(coin("BTC"), Decimal::new(203, 1));
    assert!(coin("USDT") < Decimal::from(1_000_000) && coin("BNB") < Decimal::from(1_000));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn execution_reports_tell_new_partial_and_filled_before_the_rest_answer() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut user = Client::open(addr, "/ws-api/v3").await;
    let answer = user.call(json!("u"), "userDataStream.subscribe.signature", api_params(&[])).await;
    assert_eq!((&answer["status"], &answer["result"]["subscriptionId"]), (&json!(200), &json!(0)));
    sim.fault(VenueId::BinanceSpot, crate::Command::new("rest_delay").ms(300)).unwrap();
    let query = "symbol=BTCUSDT&side=BUY&type=MARKET&quantity=0.2&newClientOrderId=mine-1";
    let rest = tokio::spawn(async move { order(addr, "POST", "/api/v3/order", query).await });
    let report = |v: &Value| v["event"]["e"] == "executionReport";
    let new = user.until(report).await;
    assert!(!rest.is_finished(), "the events come before the delayed answer");
    let known = fixture("binance", "ws_spot_userdata.jsonl", 3);
    if let Some(known) = known {
        assert_eq!(members(&new["event"]), members(&known["event"]));
        assert_eq!(members(&new), members(&known));
    }
    assert_eq!(
        (&new["event"]["x"], &new["event"]["X"], &new["event"]["c"]),
        (&json!("NEW"), &json!("NEW"), &json!("mine-1"))
    );
    let mut states = Vec::new();
    let last = loop {
        let event = user.until(report).await["event"].clone();
        assert_eq!((&event["x"], &event["N"], &event["m"]), (&json!("TRADE"), &json!("BNB"), &json!(false)));
        states.push(event["X"].as_str().unwrap().to_owned());
        if event["X"] == "FILLED" {
            break event;
        }
    };
    assert!(states.len() > 1 && states[..states.len() - 1].iter().all(|s| s == "PARTIALLY_FILLED"), "{states:?}");
    assert_eq!(decimal(&last["z"]), decimal(&last["q"]));
    let (status, answer) = rest.await.unwrap();
    assert_eq!((status, answer["orderId"].as_u64()), (200, last["i"].as_u64()));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_resting_order_is_seen_in_the_book_cancelled_and_gone() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut user = Client::open(addr, "/ws-api/v3").await;
    user.call(json!(1), "userDataStream.subscribe.signature", api_params(&[])).await;
    // Far below the market, at a price where nobody else is.
    let place = [
        ("symbol", "BTCUSDT"),
        ("side", "BUY"),
        ("type", "LIMIT"),
        ("timeInForce", "GTC"),
        ("quantity", "1"),
        ("price", "40000.01"),
        ("newClientOrderId", "low"),
    ];
    let placed = user.call(json!(2), "order.place", api_params(&place)).await;
    assert_eq!((&placed["status"], &placed["result"]["status"]), (&json!(200), &json!("NEW")));
    assert_eq!(placed["rateLimits"][0]["rateLimitType"], "ORDERS");
    let book = get(addr, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await;
    let ours = json!(["40000.01000000", "1.00000000"]);
    assert!(book["bids"].as_array().unwrap().contains(&ours));
    let twice = user.call(json!(3), "order.place", api_params(&place)).await;
    assert_eq!((&twice["error"]["code"], &twice["error"]["msg"]), (&json!(-2010), &json!("Duplicate order sent.")));
    let (_, open) = order(addr, "GET", "/api/v3/openOrders", "symbol=BTCUSDT").await;
    assert_eq!(open[0]["clientOrderId"], "low");
    let cancel = [("symbol", "BTCUSDT"), ("origClientOrderId", "low")];
    let id = json!(4);
    user.say(json!({ "id": id, "method": "order.cancel", "params": api_params(&cancel) })).await;
    let event = user.until(|v| v["event"]["x"] == "CANCELED").await["event"].clone();
    // On a cancel the order's own id stands in C.
    assert_eq!((&event["C"], &event["X"]), (&json!("low"), &json!("CANCELED")));
    assert_ne!(event["c"], "low");
    assert_eq!(user.until(|v| v["id"] == id).await["result"]["origClientOrderId"], "low");
    let (status, again) = order(addr, "DELETE", "/api/v3/order", "symbol=BTCUSDT&origClientOrderId=low").await;
    assert_eq!((status, again["code"].as_i64()), (400, Some(-2011)));
    let (_, shown) = order(addr, "GET", "/api/v3/order", "symbol=BTCUSDT&origClientOrderId=low").await;
    assert_eq!(shown["status"], "CANCELED");
    let book = get(addr, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await;
    assert!(!book["bids"].as_array().unwrap().contains(&ours));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_resting_order_is_filled_as_maker_when_the_market_comes() {
    let mut fast = options(VenueId::BinanceUsdm);
    fast.speed = crate::Speed::Factor(30.0);
    let sim = Simulator::start(fast).await.unwrap();
    let addr = sim.addr(VenueId::BinanceUsdm);
    let key = http(addr, "POST", "/fapi/v1/listenKey", "").await.2["listenKey"].as_str().unwrap().to_owned();
    let mut user =
        Client::open(addr, &format!("/private/ws?listenKey={key}&events=ORDER_TRADE_UPDATE/ACCOUNT_UPDATE")).await;
    let (bid, _) = touch(addr, "/fapi/v1").await;
    let query =
        format!("symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTX&quantity=0.010&price={}", bid - Decimal::from(5));
    let (status, placed) = order(addr, "POST", "/fapi/v1/order", &query).await;
    assert_eq!((status, &placed["status"]), (200, &json!("NEW")), "{placed}");
    let new = user.until(|v| v["e"] == "ORDER_TRADE_UPDATE").await;
    assert_eq!(new["o"]["x"], "NEW");
    let filled = user.until(|v| v["o"]["X"] == "FILLED").await;
    assert_eq!(
        (&filled["o"]["m"], &filled["o"]["N"], &filled["o"]["L"]),
        (&json!(true), &json!("USDT"), &filled["o"]["p"])
    );
    let account = user.until(|v| v["e"] == "ACCOUNT_UPDATE" && v["a"]["P"][0]["pa"] == "0.010").await;
    assert_eq!(members(&account["a"]), ["m", "B", "P"].map(str::to_owned).into());
    if let Some(known) = fixture("binance", "ws_usdm_userdata.lgpl.jsonl", 3) {
        let missing: Vec<_> = members(&known["o"]).difference(&members(&filled["o"])).cloned().collect();
        assert!(missing.iter().all(|m| ["AP", "cr"].contains(&m.as_str())), "{missing:?}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn orders_are_refused_with_the_venues_codes() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let (bid, ask) = touch(addr, "/api/v3").await;
    let limit = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC";
    for (query, code, text) in [
        (format!("{limit}&quantity=1&price=40000.015"), -1013, "PRICE_FILTER"),
        (format!("{limit}&quantity=0.000015&price=40000"), -1013, "LOT_SIZE"),
        (format!("{limit}&quantity=0.00005&price=40000"), -1013, "NOTIONAL"),
        (format!("{limit}&quantity=1&price=4"), -1013, "NOTIONAL"),
        (format!("{limit}&quantity=10&price=1000"), -1013, "PERCENT_PRICE"),
        (format!("{limit}&quantity=1&price=0.0000000001"), -1111, "precision"),
        (format!("{limit}&quantity=500&price=40000"), -2010, "insufficient balance"),
        (
            format!("symbol=BTCUSDT&side=BUY&type=LIMIT_MAKER&quantity=0.01&price={}", ask + Decimal::ONE),
            -2010,
            "immediately match",
        ),
        (format!("symbol=BTCUSDT&side=HOLD&type=LIMIT&quantity=1&price={bid}"), -1117, "side"),
        ("symbol=BTCUSDT&side=BUY&type=DANCE&quantity=1".to_owned(), -1116, "orderType"),
        ("symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=1".to_owned(), -1102, "timeInForce"),
        (format!("{limit}&price=40000"), -1102, "quantity"),
        ("symbol=NOPE&side=BUY&type=MARKET&quantity=1".to_owned(), -1121, "symbol"),
    ] {
        let (status, body) = order(addr, "POST", "/api/v3/order", &query).await;
        assert_eq!((status, body["code"].as_i64()), (400, Some(code)), "{query}: {body}");
        assert!(body["msg"].as_str().unwrap().contains(text), "{query}: {body}");
    }
    let (status, _, body) = http(addr, "POST", "/api/v3/order?symbol=BTCUSDT&timestamp=5&signature=00", "").await;
    assert_eq!((status, body["code"].as_i64()), (400, Some(-1021)));
    let forged = format!("symbol=BTCUSDT&timestamp={}&signature=00", wall_ns() / 1_000_000);
    let (_, _, body) = http(addr, "POST", "/api/v3/order", &forged).await;
    assert_eq!(body["code"], -1022);
    let answer = client().post(format!("http://{addr}/api/v3/order?{forged}")).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], -2014);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn the_body_is_signed_like_the_query_and_a_stop_fires_on_a_trade() {
    let mut fast = options(VenueId::BinanceSpot);
    fast.speed = crate::Speed::Factor(20.0);
    let sim = Simulator::start(fast).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let (_, ask) = touch(addr, "/api/v3").await;
    let stop = format!(
        "symbol=BTCUSDT&side=BUY&type=STOP_LOSS&quantity=0.01&stopPrice={}&newClientOrderId=stop",
        ask + Decimal::from(5)
    );
    let (status, _, body) = http(addr, "POST", "/api/v3/order", &signed(&stop)).await;
    assert_eq!(status, 200, "{body}");
    let state = async || order(addr, "GET", "/api/v3/order", "symbol=BTCUSDT&origClientOrderId=stop").await.1;
    eventually("the stop is filled", async || state().await["status"] == "FILLED").await;
    assert!(decimal(&state().await["cummulativeQuoteQty"]) > Decimal::from(100));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn futures_differ_where_the_venue_differs() {
    let sim = start(VenueId::BinanceUsdm).await;
    let addr = sim.addr(VenueId::BinanceUsdm);
    let path = "/fapi/v1/order";
    let limit = "symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=0.01&price=50000";
    for (query, code) in [
        ("symbol=BTCUSDT&side=BUY&type=STOP_MARKET&quantity=1&stopPrice=1".to_owned(), -4120),
        (format!("{limit}.05&timeInForce=GTC"), -4014),
        ("symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=0.001&price=50000&timeInForce=GTC".to_owned(), -4164),
        ("symbol=BTCUSDT&side=SELL&type=LIMIT&timeInForce=GTX&quantity=0.01&price=50000".to_owned(), -5022),
        ("symbol=BTCUSDT&side=SELL&type=MARKET&quantity=1&reduceOnly=true".to_owned(), -2022),
        ("symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=FOK&quantity=300&price=60000".to_owned(), -5021),
    ] {
        let (_, body) = order(addr, "POST", path, &query).await;
        assert_eq!(body["code"], code, "{query}: {body}");
    }
    let (_, done) =
        order(addr, "POST", path, "symbol=BTCUSDT&side=BUY&type=MARKET&quantity=0.5&newOrderRespType=RESULT").await;
    assert_eq!((&done["status"], &done["executedQty"]), (&json!("FILLED"), &json!("0.500")));
    let (_, risk) = order(addr, "GET", "/fapi/v2/positionRisk", "symbol=BTCUSDT").await;
    assert_eq!(risk[0]["positionAmt"], "0.500");
    let (_, placed) = order(addr, "POST", path, &format!("{limit}&timeInForce=GTC")).await;
    let (_, gone) = order(addr, "DELETE", path, &format!("symbol=BTCUSDT&orderId={}", placed["orderId"])).await;
    assert_eq!(gone["status"], "CANCELED");
    if let Some(root) = schemas::fixtures::root() {
        let text = std::fs::read_to_string(root.join("fixtures/venues/binance/rest_examples.jsonl")).unwrap();
        let rows = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        let known = rows.into_iter().find(|v| v["method"] == "DELETE" && v["path"] == path).unwrap();
        let missing: Vec<_> = members(&known["response"]).difference(&members(&gone)).cloned().collect();
        assert!(missing.iter().all(|m| ["activatePrice", "priceRate"].contains(&m.as_str())), "{missing:?}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn orders_are_bounded_in_ten_seconds() {
    let mut tight = options(VenueId::BinanceSpot);
    tight.config.binance.orders_per_10s_max = 3;
    let sim = Simulator::start(tight).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut codes = Vec::new();
    for _ in 0..5 {
        let (status, headers, body) = http(
            addr,
            "POST",
            &format!("/api/v3/order?{}", signed("symbol=BTCUSDT&side=BUY&type=MARKET&quantity=0.001")),
            "",
        )
        .await;
        assert!(headers.contains_key("x-mbx-order-count-10s"));
        codes.push((status, body["code"].as_i64()));
    }
    assert!(codes.contains(&(429, Some(-1015))) && codes[0] == (200, None), "{codes:?}");
    sim.stop().await.unwrap();
}
