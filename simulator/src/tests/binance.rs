use std::collections::BTreeMap;

use super::*;

const BINANCE: [(VenueId, &str, &str, &str); 3] = [
    (VenueId::BinanceSpot, "btcusdt", "BTCUSDT", "/api/v3"),
    (VenueId::BinanceUsdm, "btcusdt", "BTCUSDT", "/fapi/v1"),
    (VenueId::BinanceCoinm, "btcusd_perp", "BTCUSD_PERP", "/dapi/v1"),
];

#[tokio::test]
async fn subscriptions_are_acknowledged_listed_and_ended() {
    let sim = start(VenueId::BinanceSpot).await;
    let mut c = Client::open(sim.addr(VenueId::BinanceSpot), "/ws").await;
    c.say(json!({ "method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "nosuch@trade"], "id": 1 })).await;
    assert_eq!(c.until(|v| v["id"] == 1).await, json!({ "result": null, "id": 1 }));
    c.say(json!({ "method": "LIST_SUBSCRIPTIONS", "id": "two" })).await;
    let list = c.until(|v| v["id"] == "two").await;
    assert_eq!(list["result"], json!(["btcusdt@bookTicker", "nosuch@trade"]));
    c.until(|v| v["s"] == "BTCUSDT" && v["u"].is_u64()).await;
    c.say(json!({ "method": "UNSUBSCRIBE", "params": ["btcusdt@bookTicker"], "id": 3 })).await;
    c.until(|v| v["id"] == 3).await;
    c.say(json!({ "method": "LIST_SUBSCRIPTIONS", "id": 4 })).await;
    // Nothing of the ended stream comes between the two answers.
    assert_eq!(c.next().await, json!({ "result": ["nosuch@trade"], "id": 4 }));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_malformed_request_is_answered_and_too_many_end_with_1008() {
    let sim = start(VenueId::BinanceSpot).await;
    let mut c = Client::open(sim.addr(VenueId::BinanceSpot), "/ws").await;
    for (request, id) in [(json!({ "method": "NONSENSE", "id": 7 }), json!(7)), (json!({ "id": 8 }), json!(8))] {
        c.say(request).await;
        let answer = c.next().await;
        assert_eq!((&answer["code"], &answer["id"]), (&json!(2), &id));
    }
    c.ws.send(Message::text("not json")).await.unwrap();
    assert_eq!(c.next().await["code"], 2);
    for n in 0..9 {
        // The server may have closed already.
        let request = json!({ "method": "LIST_SUBSCRIPTIONS", "id": n });
        if c.ws.send(Message::text(request.to_string())).await.is_err() {
            break;
        }
    }
    assert_eq!(c.end().await, End::Closed(1008, "Too many requests".into()));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn bare_and_combined_streams_carry_identical_payloads() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut bare = Client::open(addr, "/ws/btcusdt@trade").await;
    let mut combined = Client::open(addr, "/stream?streams=btcusdt@trade/ethusdt@trade").await;
    let wrapped = combined.until(|v| v["stream"] == "btcusdt@trade").await;
    let id = wrapped["data"]["t"].clone();
    let same = bare.until(|v| v["t"].as_u64() >= id.as_u64()).await;
    if same["t"] == id {
        assert_eq!(same, wrapped["data"]);
        let text = bare.heard.last().unwrap();
        assert!(combined.heard.last().unwrap().contains(text.as_str()), "byte for byte");
    }
    sim.stop().await.unwrap();
}

/// The venue's own rules for a local book, as its documentation states them.
struct LocalBook {
    id: u64,
    sides: [BTreeMap<String, String>; 2],
}

impl LocalBook {
    fn of(snapshot: &Value) -> Self {
        let side = |name: &str| {
            let rows = snapshot[name].as_array().unwrap().iter();
            rows.map(|r| (r[0].as_str().unwrap().to_owned(), r[1].as_str().unwrap().to_owned())).collect()
        };
        Self { id: snapshot["lastUpdateId"].as_u64().unwrap(), sides: [side("bids"), side("asks")] }
    }
    fn apply(&mut self, event: &Value) {
        for (half, name) in self.sides.iter_mut().zip(["b", "a"]) {
            for row in event[name].as_array().unwrap() {
                let (price, qty) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
                if qty.bytes().all(|b| b == b'0' || b == b'.') {
                    half.remove(price);
                } else {
                    half.insert(price.to_owned(), qty.to_owned());
                }
            }
        }
        self.id = event["u"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn a_book_kept_by_the_venues_rules_is_the_venues_book() {
    for (venue, stream, symbol, rest) in BINANCE {
        let mut calm = options(venue);
        calm.flow.rate = 6.0;
        calm.config.binance.spot_weight_per_minute_max = 1_000_000;
        calm.config.binance.futures_weight_per_minute_max = 1_000_000;
        let sim = Simulator::start(calm).await.unwrap();
        let addr = sim.addr(venue);
        let mut c = Client::open(addr, &format!("/ws/{stream}@depth@100ms")).await;
        let mut buffer = vec![c.next().await];
        let mut book = LocalBook::of(&get(addr, &format!("{rest}/depth?symbol={symbol}&limit=1000")).await);
        let spot = venue == VenueId::BinanceSpot;
        let (mut bridged, mut last_u) = (false, 0);
        let mut applied = 0;
        while applied < 15 {
            if buffer.is_empty() {
                buffer.push(c.next().await);
            }
            let event = buffer.remove(0);
            let (first, last) = (event["U"].as_u64().unwrap(), event["u"].as_u64().unwrap());
            assert!(first <= last && event["E"].is_i64());
            if if spot { last <= book.id } else { last < book.id } {
                continue;
            }
            if !bridged && spot {
                assert!(first <= book.id + 1 && book.id < last, "the first kept event contains lastUpdateId+1");
            } else if !bridged {
                let pu = event["pu"].as_u64().unwrap();
                assert!((first <= book.id && book.id <= last) || pu == book.id, "{first} {pu} {} {last}", book.id);
            } else if spot {
                assert_eq!(first, book.id + 1);
            } else {
                assert_eq!(event["pu"].as_u64().unwrap(), last_u);
            }
            bridged = true;
            book.apply(&event);
            last_u = last;
            applied += 1;
        }
        // A snapshot that falls between two events is the book exactly; with a calm market that is often so.
        let mut equal = false;
        for _ in 0..200 {
            let truth = LocalBook::of(&get(addr, &format!("{rest}/depth?symbol={symbol}&limit=5")).await);
            while book.id < truth.id {
                book.apply(&c.next().await);
            }
            if book.id == truth.id {
                let whole = LocalBook::of(&get(addr, &format!("{rest}/depth?symbol={symbol}&limit=1000")).await);
                if whole.id == book.id {
                    assert_eq!(book.sides, whole.sides, "{}", venue.name());
                    equal = true;
                    break;
                }
            }
        }
        assert!(equal, "{}: no snapshot fell between two events", venue.name());
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn every_channel_has_the_members_that_the_venue_sends() {
    let spot = [
        ("btcusdt@trade", "ws_spot_trade.jsonl", 0),
        ("btcusdt@aggTrade", "ws_spot_aggTrade.jsonl", 1),
        ("btcusdt@depth@100ms", "ws_spot_depth.jsonl", 0),
        ("btcusdt@depth5@100ms", "ws_spot_partialDepth.jsonl", 1),
        ("btcusdt@bookTicker", "ws_spot_bookTicker.jsonl", 0),
        ("btcusdt@kline_1m", "ws_spot_kline.jsonl", 1),
        ("btcusdt@ticker", "ws_spot_24hrTicker.jsonl", 0),
        ("btcusdt@miniTicker", "ws_spot_24hrMiniTicker.jsonl", 0),
        ("btcusdt@avgPrice", "ws_spot_avgPrice.jsonl", 0),
    ];
    let usdm = [
        ("btcusdt@trade", "ws_usdm_trade.jsonl", 1),
        ("btcusdt@aggTrade", "ws_usdm_aggTrade.jsonl", 0),
        ("btcusdt@depth@100ms", "ws_usdm_depth.jsonl", 0),
        ("btcusdt@depth5@100ms", "ws_usdm_partialDepth.jsonl", 0),
        ("btcusdt@bookTicker", "ws_usdm_bookTicker.jsonl", 0),
        ("btcusdt@kline_1m", "ws_usdm_kline.jsonl", 0),
        ("btcusdt@ticker", "ws_usdm_24hrTicker.jsonl", 1),
        ("btcusdt@miniTicker", "ws_usdm_24hrMiniTicker.jsonl", 0),
        ("btcusdt@markPrice@1s", "ws_usdm_markPrice.jsonl", 0),
    ];
    if schemas::fixtures::root().is_none() {
        return;
    }
    for (venue, table) in [(VenueId::BinanceSpot, &spot[..]), (VenueId::BinanceUsdm, &usdm[..])] {
        let mut fast = options(venue);
        fast.speed = crate::Speed::Factor(20.0);
        let sim = Simulator::start(fast).await.unwrap();
        let names: Vec<&str> = table.iter().map(|row| row.0).collect();
        let mut c = Client::open(sim.addr(venue), &format!("/stream?streams={}", names.join("/"))).await;
        for (stream, file, line) in table {
            let seen = c.until(|v| v["stream"] == *stream).await;
            let known = fixture("binance", file, *line).unwrap();
            let known = if known["data"].is_object() { &known["data"] } else { &known };
            assert_eq!(members(&seen["data"]), members(known), "{stream} at {}", venue.name());
            assert_eq!(members(&seen["data"]["k"]), members(&known["k"]), "{stream}");
            assert_eq!(seen["data"]["e"], known["e"], "{stream}");
        }
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn rest_snapshots_and_exchange_info_have_the_members_of_the_recorded_ones() {
    let Some(root) = schemas::fixtures::root() else { return };
    for (venue, file, prefix) in [(VenueId::BinanceSpot, "spot", "/api/v3"), (VenueId::BinanceUsdm, "usdm", "/fapi/v1")]
    {
        let sim = start(venue).await;
        let addr = sim.addr(venue);
        let depth = get(addr, &format!("{prefix}/depth?symbol=BTCUSDT&limit=10")).await;
        let known = fixture("binance", &format!("rest_{file}_depth.jsonl"), 0).unwrap();
        assert_eq!(members(&depth), members(&known));
        assert_eq!(depth["bids"].as_array().unwrap().len(), 10);
        let path = root.join(format!("fixtures/venues/binance/rest_{file}_exchangeInfo.json"));
        let known: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let info = get(addr, &format!("{prefix}/exchangeInfo")).await;
        let missing: Vec<_> = members(&known).difference(&members(&info)).cloned().collect();
        assert!(missing.is_empty() || missing == ["assets"], "{missing:?}");
        let (ours, theirs) = (&info["symbols"][0], &known["symbols"][0]);
        for key in ["symbol", "status", "baseAsset", "quoteAsset", "filters", "orderTypes", "baseAssetPrecision"] {
            assert!(!ours[key].is_null() && !theirs[key].is_null(), "{key}");
        }
        let filter = |v: &Value, kind: &str| {
            v["filters"].as_array().unwrap().iter().find(|f| f["filterType"] == kind).map(members)
        };
        for kind in ["PRICE_FILTER", "LOT_SIZE"] {
            assert_eq!(filter(ours, kind), filter(theirs, kind));
        }
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn open_interest_is_told_by_rest_of_one_symbol_of_the_futures_only() {
    for (venue, path, symbol) in
        [(VenueId::BinanceUsdm, "/fapi/v1", "BTCUSDT"), (VenueId::BinanceCoinm, "/dapi/v1", "BTCUSD_PERP")]
    {
        let sim = start(venue).await;
        let addr = sim.addr(venue);
        let told = get(addr, &format!("{path}/openInterest?symbol={symbol}")).await;
        assert_eq!(told["symbol"], symbol);
        assert!(told["openInterest"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
        if let (VenueId::BinanceUsdm, Some(known)) = (venue, fixture("binance", "rest_usdm_openInterest.jsonl", 1)) {
            assert_eq!(members(&told), members(&known));
        }
        let (status, headers, _) = http(addr, "GET", &format!("{path}/openInterest?symbol={symbol}"), "").await;
        assert_eq!((status, headers["x-mbx-used-weight-1m"].to_str().unwrap()), (200, "2"));
        assert_eq!(http(addr, "GET", &format!("{path}/openInterest"), "").await.0, 400);
        sim.stop().await.unwrap();
    }
    let sim = start(VenueId::BinanceSpot).await;
    assert_eq!(http(sim.addr(VenueId::BinanceSpot), "GET", "/api/v3/openInterest?symbol=BTCUSDT", "").await.0, 404);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn trades_over_rest_continue_those_of_the_stream() {
    let sim = start(VenueId::BinanceUsdm).await;
    let addr = sim.addr(VenueId::BinanceUsdm);
    let mut c = Client::open(addr, "/ws/btcusdt@trade").await;
    let (first, mut last) = (c.next().await["t"].as_u64().unwrap(), 0);
    for _ in 0..20 {
        let id = c.next().await["t"].as_u64().unwrap();
        assert!(last == 0 || id == last + 1);
        last = id;
    }
    let rows = get(addr, &format!("/fapi/v1/historicalTrades?symbol=BTCUSDT&fromId={first}&limit=5")).await;
    let ids: Vec<u64> = rows.as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (first..first + 5).collect::<Vec<_>>());
    let rows = get(addr, "/fapi/v1/aggTrades?symbol=BTCUSDT&limit=3").await;
    assert_eq!(members(&rows[0]), ["a", "p", "q", "f", "l", "T", "m"].map(str::to_owned).into());
    let rows = get(addr, "/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=2").await;
    assert_eq!((rows.as_array().unwrap().len(), rows[0].as_array().unwrap().len()), (2, 12));
    assert_eq!(rows[0][6].as_i64().unwrap() - rows[0][0].as_i64().unwrap(), 59_999);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_closed_kline_is_what_rest_says_of_it_and_adds_up_to_its_trades() {
    let mut fast = options(VenueId::BinanceSpot);
    fast.speed = crate::Speed::Factor(30.0);
    let sim = Simulator::start(fast).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut c = Client::open(addr, "/stream?streams=btcusdt@kline_1m/btcusdt@trade").await;
    c.until(|v| v["data"]["k"]["x"] == true).await;
    let mut trades = Vec::new();
    let bar = loop {
        let v = c.next().await;
        match v["data"]["e"].as_str() {
            Some("trade") => trades.push(v["data"].clone()),
            _ if v["data"]["k"]["x"] == true => break v["data"]["k"].clone(),
            _ => {}
        }
    };
    let open = bar["t"].as_i64().unwrap();
    trades.retain(|t| t["T"].as_i64().unwrap() >= open && t["T"].as_i64().unwrap() < open + 60_000);
    assert_eq!(bar["n"].as_u64().unwrap() as usize, trades.len());
    assert_eq!((&bar["f"], &bar["L"]), (&trades[0]["t"], &trades.last().unwrap()["t"]));
    assert_eq!((&bar["o"], &bar["c"]), (&trades[0]["p"], &trades.last().unwrap()["p"]));
    let number = |v: &Value| v.as_str().unwrap().parse::<rust_decimal::Decimal>().unwrap();
    let volume: rust_decimal::Decimal = trades.iter().map(|t| number(&t["q"])).sum();
    assert_eq!(number(&bar["v"]), volume);
    let rest = get(addr, &format!("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={open}&limit=1")).await;
    assert_eq!((&rest[0][0], &rest[0][4], &rest[0][5]), (&bar["t"], &bar["c"], &bar["v"]));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn microseconds_are_a_thousand_times_the_milliseconds() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let mut micro = Client::open(addr, "/ws/btcusdt@trade?timeUnit=MICROSECOND").await;
    let mut milli = Client::open(addr, "/ws/btcusdt@trade").await;
    let m = milli.next().await;
    let u = micro.until(|v| v["t"].as_u64() >= m["t"].as_u64()).await;
    assert!(u["T"].as_i64().unwrap() > 1_000_000_000_000_000);
    if u["t"] == m["t"] {
        assert_eq!(u["T"].as_i64().unwrap() / 1_000, m["T"].as_i64().unwrap());
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn the_futures_paths_carry_their_channels_only() {
    let sim = start(VenueId::BinanceUsdm).await;
    let addr = sim.addr(VenueId::BinanceUsdm);
    let streams = "streams=btcusdt@depth@100ms/btcusdt@markPrice@1s";
    let mut public = Client::open(addr, &format!("/public/stream?{streams}")).await;
    let mut market = Client::open(addr, &format!("/market/stream?{streams}")).await;
    for _ in 0..12 {
        assert_eq!(public.next().await["stream"], "btcusdt@depth@100ms");
    }
    assert_eq!(market.next().await["stream"], "btcusdt@markPrice@1s");
    assert!(connect_async(format!("ws://{addr}/private/ws?listenKey=none")).await.is_err());
    assert!(connect_async(format!("ws://{addr}/nonsense")).await.is_err());
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn weight_is_counted_refused_with_429_and_banned_with_418() {
    let mut tight = options(VenueId::BinanceSpot);
    tight.config.binance.spot_weight_per_minute_max = 60;
    tight.config.binance.warnings_before_ban = 2;
    let sim = Simulator::start(tight).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    let (status, headers, _) = http(addr, "GET", "/api/v3/depth?symbol=BTCUSDT&limit=500", "").await;
    assert_eq!((status, headers["x-mbx-used-weight-1m"].to_str().unwrap()), (200, "25"));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (status, headers, body) = http(addr, "GET", "/api/v3/depth?symbol=BTCUSDT&limit=500", "").await;
        if status != 200 {
            assert_eq!(body["code"], -1003);
            assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 120);
        }
        seen.push(status);
    }
    // A minute may turn over in between; the order of the answers is what counts.
    let position = |s: u16| seen.iter().position(|x| *x == s);
    assert!(position(429) < position(418) && position(418).is_some(), "{seen:?}");
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn errors_have_the_venues_codes() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    for (path, status, code) in [
        ("/api/v3/depth?symbol=NOPE", 400, -1121),
        ("/api/v3/depth", 400, -1102),
        ("/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, -1120),
        ("/api/v3/exchangeInfo?symbol=NOPE", 400, -1121),
        ("/api/v3/order?symbol=BTCUSDT", 400, -1102),
        ("/api/v3/order?symbol=BTCUSDT&timestamp=1", 400, -1021),
    ] {
        let (s, _, body) = http(addr, "GET", path, "").await;
        assert_eq!((s, body["code"].as_i64()), (status, Some(code)), "{path} {body}");
    }
    assert_eq!(http(addr, "GET", "/fapi/v1/time", "").await.0, 404);
    assert_eq!(get(addr, "/api/v3/ping").await, json!({}));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn who_does_not_echo_the_ping_is_cut_and_who_echoes_stays() {
    let mut quick = options(VenueId::BinanceSpot);
    quick.config.binance.spot_ping_period_ms = 100;
    quick.config.binance.spot_pong_wait_ms = 400;
    quick.config.binance.spot_messages_per_second_max = 100;
    let sim = Simulator::start(quick).await.unwrap();
    let addr = sim.addr(VenueId::BinanceSpot);
    // It never reads, so it never answers a ping.
    let deaf = Client::open(addr, "/ws").await;
    let mut good = Client::open(addr, "/ws/btcusdt@trade").await;
    let clients = async |n: u64| get(addr, "/sim/state").await["clients"].as_u64() == Some(n);
    let reader = async {
        let mut pings = 0;
        while pings < 12 {
            if let Message::Ping(payload) = good.step().await.expect("who echoes stays") {
                assert!(!payload.is_empty());
                pings += 1;
            }
        }
    };
    reader.await;
    eventually("the deaf client is cut", async || clients(1).await).await;
    drop(deaf);
    sim.stop().await.unwrap();
}
