use super::*;
use crate::Command;
use crate::faults::FAULTS;

/// The next connection is turned away, the one behind it is not.
pub(super) async fn turned_away(sim: &Handle, venue: VenueId, path: &str) {
    let addr = sim.addr(venue);
    sim.fault(venue, Command::new("turn_away")).unwrap();
    assert!(connect_async(format!("ws://{addr}{path}")).await.is_err());
    Client::open(addr, path).await;
}

/// Where each fault is watched, and what it looks like from outside. A kind without a case here fails the test.
async fn see(sim: &Handle, venue: VenueId, kind: &str) {
    if venue == VenueId::Hyperliquid {
        if kind == "turn_away" {
            return turned_away(sim, venue, "/ws").await;
        }
        return hyperliquid::see(sim, kind).await;
    }
    if venue.is_coinbase() && super::coinbase::see(sim, venue, kind).await {
        return;
    }
    let addr = sim.addr(venue);
    let strike = |command: Command| sim.fault(venue, command).unwrap();
    let deribit = venue == VenueId::Deribit;
    let (symbol, rest) = match venue {
        VenueId::BinanceSpot => ("BTCUSDT", "/api/v3"),
        VenueId::BinanceUsdm => ("BTCUSDT", "/fapi/v1"),
        VenueId::BinanceCoinm => ("BTCUSD_PERP", "/dapi/v1"),
        VenueId::Deribit => ("BTC-PERPETUAL", "/api/v2/public"),
        VenueId::CoinbaseAdvanced => ("BTC-USD", "/api/v3/brokerage"),
        VenueId::CoinbaseExchange => ("BTC-USD", ""),
        other => unreachable!("Invariant: {} has a walk of its own", other.name()),
    };
    let ping = match venue {
        VenueId::Deribit => format!("{rest}/get_time"),
        _ if venue.is_coinbase() => format!("{rest}/time"),
        _ => format!("{rest}/ping"),
    };
    let lower = symbol.to_lowercase();
    let depth = async || {
        if deribit {
            let mut c = Client::open(addr, "/ws/api/v2").await;
            c.call(json!(1), "public/subscribe", json!({ "channels": [format!("book.{symbol}.100ms")] })).await;
            c
        } else {
            Client::open(addr, &format!("/ws/{lower}@depth@100ms")).await
        }
    };
    let trades = async || {
        if venue.is_coinbase() {
            super::coinbase::trades(sim, venue).await
        } else if deribit {
            let mut c = Client::open(addr, "/ws/api/v2").await;
            c.call(json!(1), "public/subscribe", json!({ "channels": [format!("trades.{symbol}.raw")] })).await;
            c
        } else {
            Client::open(addr, &format!("/ws/{lower}@trade")).await
        }
    };
    // First and last id and predecessor of the next depth event.
    let ids = async |c: &mut Client| {
        let v = c.until(|v| v["e"] == "depthUpdate" || v["params"]["data"]["type"] == "change").await;
        let d = if deribit { v["params"]["data"].clone() } else { v };
        let n = |a: &str, b: &str| d[a].as_u64().or(d[b].as_u64()).unwrap_or(0);
        (n("U", "change_id"), n("u", "change_id"), n("pu", "prev_change_id"))
    };
    let chained = |before: (u64, u64, u64), after: (u64, u64, u64)| match venue {
        VenueId::BinanceSpot => after.0 == before.1 + 1,
        _ => after.2 == before.1,
    };
    match kind {
        "drop_depth" | "swap_depth" | "jump_pu" | "break_chain" | "repeat_depth" | "stale_depth" => {
            let mut c = depth().await;
            let before = ids(&mut c).await;
            strike(Command::new(kind).symbol(symbol));
            let mut rows = vec![before];
            for _ in 0..5 {
                rows.push(ids(&mut c).await);
            }
            let broken = rows.windows(2).filter(|w| !chained(w[0], w[1])).count();
            match kind {
                "drop_depth" | "jump_pu" | "break_chain" => assert_eq!(broken, 1, "{rows:?}"),
                "repeat_depth" => assert!(rows.windows(2).any(|w| w[0] == w[1]), "{rows:?}"),
                "swap_depth" => assert!(rows.windows(2).any(|w| w[1].1 < w[0].1), "{rows:?}"),
                _ => assert!(rows.windows(2).any(|w| w[1].1 < w[0].1 && broken >= 1), "{rows:?}"),
            }
        }
        "bad_json" => {
            let mut c = trades().await;
            c.next().await;
            strike(Command::new(kind).symbol(symbol));
            while serde_json::from_str::<Value>(&c.text().await.unwrap()).is_ok() {}
        }
        "unknown_enum" => {
            let mut c = trades().await;
            strike(Command::new(kind).symbol(symbol));
            loop {
                let text = c.text().await.unwrap();
                if text.contains("ystery") || text.contains("MYSTERY") || text.contains("sideways") {
                    break;
                }
            }
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            let mut c = if deribit { Client::open(addr, "/ws/api/v2").await } else { Client::open(addr, "/ws").await };
            if deribit {
                let params = json!({ "channels": [format!("book.{symbol}.100ms")] });
                c.say(json!({ "jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": params })).await;
            } else {
                c.say(json!({ "method": "SUBSCRIBE", "params": [format!("{lower}@depth@100ms")], "id": 1 })).await;
            }
            assert!(c.next().await["id"].is_null(), "data comes before the acknowledgement");
            c.until(|v| v["id"] == 1).await;
        }
        "null_numbers" => {
            let mut c = Client::open(addr, "/ws/api/v2").await;
            strike(Command::new(kind));
            c.call(json!(1), "public/subscribe", json!({ "channels": [format!("ticker.{symbol}.100ms")] })).await;
            let v = c.until(|v| v["params"]["data"]["last_price"].is_null()).await;
            assert!(v["params"]["data"]["stats"]["high"].is_null() && v["params"]["data"]["mark_price"].is_f64());
        }
        "scientific" => {
            let mut c = depth().await;
            strike(Command::new(kind).count(3));
            c.until(|v| v["params"]["data"]["type"] == "change").await;
            assert!(
                c.heard.iter().any(|t| t.contains(".0e") || t.contains("e1") || t.contains("e2") || t.contains("e3"))
            );
        }
        "push_first" | "too_many_requests" | "expire_tokens" | "maintenance" | "settlement" => {
            let mut c = Client::open(addr, "/ws/api/v2").await;
            let account = config().account;
            let login = json!({ "grant_type": "client_credentials", "client_id": account.api_key, "client_secret": account.api_secret });
            c.call(json!(1), "public/auth", login).await;
            c.call(json!(2), "private/subscribe", json!({ "channels": ["user.trades.any.any.raw", "platform_state"] }))
                .await;
            strike(Command::new(kind).ms(60_000));
            let order = json!({ "instrument_name": symbol, "amount": 10, "type": "market" });
            let answer = c.call(json!(3), "private/buy", order).await;
            let expected = match kind {
                "push_first" => {
                    assert!(c.heard.iter().any(|t| t.contains("user.trades")));
                    assert_eq!(answer["result"]["order"]["order_state"], "filled");
                    return;
                }
                "too_many_requests" => 10028,
                "expire_tokens" => 13009,
                "maintenance" => 11051,
                _ => 10041,
            };
            assert_eq!(answer["error"]["code"], expected, "{answer}");
            if kind == "maintenance" {
                assert!(c.heard.iter().any(|t| t.contains("platform_state") && t.contains("locked")));
            }
        }
        "test_request" => {
            let mut c = Client::open(addr, "/ws/api/v2").await;
            c.call(json!(1), "public/set_heartbeat", json!({ "interval": 10 })).await;
            strike(Command::new(kind));
            c.until(|v| v["params"]["type"] == "test_request").await;
        }
        "turn_away" => {
            let path = match venue {
                VenueId::Deribit => "/ws/api/v2",
                _ if venue.is_coinbase() => "/",
                _ => "/ws",
            };
            turned_away(sim, venue, path).await;
        }
        "delay" => {
            let mut c = trades().await;
            c.next().await;
            strike(Command::new(kind).ms(300));
            let from = c.heard.len();
            for _ in 0..10 {
                c.next().await;
            }
            // Held back, not lost and not disordered.
            let id = |t: &String| -> u64 {
                let v: Value = serde_json::from_str(t).unwrap();
                let newest = v["events"][0]["trades"][0]["trade_id"].as_str().map(|id| id.parse().unwrap());
                v["t"]
                    .as_u64()
                    .or(v["params"]["data"][0]["trade_seq"].as_u64())
                    .or(v["trade_id"].as_u64())
                    .or(newest)
                    .unwrap()
            };
            assert!(c.heard[from..].windows(2).all(|w| id(&w[0]) < id(&w[1])));
        }
        "pause" | "resume" => {
            strike(Command::new("pause"));
            let before = get(addr, "/sim/state").await["time_ns"].clone();
            let after = get(addr, "/sim/state").await["time_ns"].clone();
            assert_eq!(before, after);
            strike(Command::new("resume"));
            eventually("time goes on", async || get(addr, "/sim/state").await["time_ns"] != after).await;
        }
        "silence" => {
            let mut c = trades().await;
            c.next().await;
            strike(Command::new(kind));
            // What was sent before may still arrive; then nothing does, not even a pong.
            let quiet = async {
                loop {
                    if tokio::time::timeout(Duration::from_millis(400), c.ws.next()).await.is_err() {
                        return;
                    }
                }
            };
            tokio::time::timeout(WAIT, quiet).await.expect("silence within the bound");
            c.ws.send(Message::Ping("x".into())).await.unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(300), c.ws.next()).await.is_err());
            assert_eq!(get(addr, "/sim/state").await["clients"], 1);
        }
        "cut" | "end_of_life" => {
            let mut c = trades().await;
            c.next().await;
            strike(Command::new(kind));
            assert_eq!(c.end().await, End::Cut);
        }
        "close" => {
            let mut c = trades().await;
            c.next().await;
            strike(Command::new(kind));
            assert!(matches!(c.end().await, End::Closed(1001, _)));
        }
        "server_shutdown" => {
            let mut c = Client::open(addr, &format!("/stream?streams={lower}@trade")).await;
            c.next().await;
            strike(Command::new(kind));
            let v = c.until(|v| v["stream"] == "!serverShutdown").await;
            if let Some(known) = fixture("binance", "ws_spot_serverShutdown.jsonl", 1) {
                assert_eq!((members(&v), members(&v["data"])), (members(&known), members(&known["data"])));
            }
            assert!(matches!(c.end().await, End::Closed(1001, _)));
        }
        "ping" => {
            let mut c = trades().await;
            strike(Command::new(kind).ms(30_000));
            loop {
                if let Message::Ping(payload) = c.step().await.unwrap() {
                    assert!(payload.starts_with(b"ping-"));
                    break;
                }
            }
        }
        "snapshot_older" | "snapshot_inside" | "snapshot_newer" => {
            if kind == "snapshot_older" {
                strike(Command::new(kind));
            }
            let mut c = depth().await;
            let first = ids(&mut c).await;
            if kind != "snapshot_older" {
                strike(Command::new(kind).ms(500));
            }
            let snapshot = get(addr, &format!("{rest}/depth?symbol={symbol}&limit=5")).await;
            let id = snapshot["lastUpdateId"].as_u64().unwrap();
            match kind {
                "snapshot_older" => assert!(id < first.0, "{id} {first:?}"),
                "snapshot_inside" => {
                    let mut last = first;
                    while last.1 <= id {
                        last = ids(&mut c).await;
                    }
                    assert!(id >= first.0, "the snapshot falls into what was buffered");
                }
                _ => {
                    let next = ids(&mut c).await;
                    assert!(id >= first.1 && chained(first, next), "held back, not lost");
                }
            }
        }
        "rest_429" | "rest_418" => {
            strike(Command::new(kind));
            let (status, headers, body) = http(addr, "GET", &ping, "").await;
            let expected = if kind == "rest_429" { 429 } else { 418 };
            assert_eq!((status, &body["code"]), (expected, &json!(-1003)));
            assert!(headers.contains_key("retry-after"));
        }
        "rest_503" => {
            strike(Command::new(kind));
            assert_eq!(http(addr, "GET", &ping, "").await.0, 503);
            assert_eq!(http(addr, "GET", &ping, "").await.0, 200);
        }
        "rest_delay" => {
            strike(Command::new(kind).ms(250));
            let since = std::time::Instant::now();
            assert_eq!(http(addr, "GET", &ping, "").await.0, 200);
            assert!(since.elapsed() >= Duration::from_millis(250));
        }
        "rest_lost" => {
            strike(Command::new(kind));
            let lost = client().get(format!("http://{addr}{ping}")).timeout(Duration::from_millis(300)).send().await;
            assert!(lost.unwrap_err().is_timeout());
            assert_eq!(http(addr, "GET", &ping, "").await.0, 200);
        }
        "clock_skew" => {
            strike(Command::new(kind));
            let at = crate::server::wall_ns() / 1_000_000;
            let (_, _, body) = http(addr, "GET", &format!("{rest}/openOrders?timestamp={at}&signature=x"), "").await;
            assert_eq!(body["code"], -1021);
        }
        "listen_key_expired" => {
            let key =
                http(addr, "POST", &format!("{rest}/listenKey"), "").await.2["listenKey"].as_str().unwrap().to_owned();
            let mut c = Client::open(addr, &format!("/ws/{key}")).await;
            strike(Command::new(kind));
            assert_eq!(c.until(|v| v["e"] == "listenKeyExpired").await["listenKey"], json!(key));
            assert_eq!(http(addr, "PUT", &format!("{rest}/listenKey"), "").await.2["code"], -1125);
        }
        "stream_terminated" | "unwrapped_events" => {
            let account = config().account;
            let at = crate::server::wall_ns() / 1_000_000;
            let payload = format!("apiKey={}&timestamp={at}", account.api_key);
            let signature = crate::sign::hmac_sha256_hex(&account.api_secret, &payload);
            let mut c = Client::open(addr, "/ws-api/v3").await;
            let params = json!({ "apiKey": account.api_key, "timestamp": at, "signature": signature });
            c.call(json!(1), "userDataStream.subscribe.signature", params).await;
            strike(Command::new(kind));
            if kind == "stream_terminated" {
                assert!(c.next().await["event"]["e"] == "eventStreamTerminated");
                return;
            }
            let query = format!("symbol={symbol}&side=BUY&type=MARKET&quantity=0.01&timestamp={at}");
            let signature = crate::sign::hmac_sha256_hex(&account.api_secret, &query);
            http(addr, "POST", &format!("{rest}/order?{query}&signature={signature}"), "").await;
            assert_eq!(c.next().await["e"], "executionReport");
            assert_eq!(c.next().await["event"]["e"], "executionReport");
        }
        other => panic!("fault `{other}` has no case in this test"),
    }
}

/// A third of the table each, so that the tests run side by side.
async fn walk(venue: VenueId) {
    for fault in FAULTS.iter().filter(|f| f.venues.has(venue)) {
        let sim = start(venue).await;
        see(&sim, venue, fault.name).await;
        let struck = sim.faults(venue)["struck"][fault.name].as_u64();
        assert!(struck >= Some(1), "{} at {}", fault.name, venue.name());
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn every_fault_of_the_spot_market_shows_itself_once() {
    walk(VenueId::BinanceSpot).await;
}

#[tokio::test]
async fn every_fault_of_the_futures_shows_itself_once() {
    walk(VenueId::BinanceUsdm).await;
}

#[tokio::test]
async fn every_fault_of_deribit_shows_itself_once() {
    walk(VenueId::Deribit).await;
}

#[tokio::test]
async fn every_fault_of_hyperliquid_shows_itself_once() {
    walk(VenueId::Hyperliquid).await;
}

#[tokio::test]
async fn every_fault_of_coinbase_advanced_shows_itself_once() {
    walk(VenueId::CoinbaseAdvanced).await;
}

#[tokio::test]
async fn every_fault_of_coinbase_exchange_shows_itself_once() {
    walk(VenueId::CoinbaseExchange).await;
}

#[tokio::test]
async fn faults_are_listed_armed_and_disarmed_over_http() {
    let sim = start(VenueId::BinanceSpot).await;
    let addr = sim.addr(VenueId::BinanceSpot);
    let list = get(addr, "/sim/faults").await;
    let kinds = list["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), FAULTS.iter().filter(|f| f.venues.has(VenueId::BinanceSpot)).count());
    let post = async |body: &str| http(addr, "POST", "/sim/faults", body).await;
    assert_eq!(post(r#"{"kind":"drop_depth","symbol":"BTCUSDT","count":2}"#).await.0, 200);
    let armed = get(addr, "/sim/faults").await["armed"].clone();
    assert_eq!((&armed[0]["kind"], &armed[0]["count"]), (&json!("drop_depth"), &json!(2)));
    for (body, word) in [
        (r#"{"kind":"drop_depht"}"#, "drop_depth"),
        (r#"{"kind":"drop_depth","symbol":"NOPE"}"#, "NOPE"),
        (r#"{"kind":"drop_depth","cuont":2}"#, "cuont"),
        ("nonsense", "not a fault"),
    ] {
        let (status, _, answer) = post(body).await;
        assert!(status == 400 && answer["error"].as_str().unwrap().contains(word), "{body}: {answer}");
    }
    http(addr, "DELETE", "/sim/faults", "").await;
    assert_eq!(get(addr, "/sim/faults").await["armed"], json!([]));
    sim.stop().await.unwrap();
}
