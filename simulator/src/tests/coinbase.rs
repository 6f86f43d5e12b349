use super::*;
use crate::Command;

pub const A: VenueId = VenueId::CoinbaseAdvanced;
pub const X: VenueId = VenueId::CoinbaseExchange;

pub async fn open(sim: &Handle, venue: VenueId) -> Client {
    Client::open(sim.addr(venue), "/").await
}

/// Asks for one channel in the venue's way.
pub async fn ask(c: &mut Client, venue: VenueId, channel: &str, products: &[&str]) {
    let request = match venue {
        VenueId::CoinbaseAdvanced => json!({ "type": "subscribe", "channel": channel, "product_ids": products }),
        _ => json!({ "type": "subscribe", "channels": [channel], "product_ids": products }),
    };
    c.say(request).await;
}

/// A client that follows the trades of BTC-USD, behind the first of them.
pub async fn trades(sim: &Handle, venue: VenueId) -> Client {
    let mut c = open(sim, venue).await;
    ask(&mut c, venue, if venue == A { "market_trades" } else { "matches" }, &["BTC-USD"]).await;
    c.until(|v| v["type"] == "match" || v["events"][0]["type"] == "update").await;
    c
}

async fn books(sim: &Handle, venue: VenueId) -> Client {
    let mut c = open(sim, venue).await;
    ask(&mut c, venue, if venue == A { "level2" } else { "level2_batch" }, &["BTC-USD"]).await;
    c.until(|v| is_change(v)).await;
    c
}

fn is_change(v: &Value) -> bool {
    v["type"] == "l2update" || (v["channel"] == "l2_data" && v["events"][0]["type"] == "update")
}

fn numbers(c: &Client, from: usize) -> Vec<i64> {
    let number = |t: &String| serde_json::from_str::<Value>(t).unwrap()["sequence_num"].as_i64().unwrap();
    c.heard[from..].iter().map(number).collect()
}

/// What each fault looks like that other venues do not have, or show in another way. False: it is watched elsewhere.
pub async fn see(sim: &Handle, venue: VenueId, kind: &str) -> bool {
    let strike = |command: Command| sim.fault(venue, command).unwrap();
    let command = Command::new(kind).symbol("BTC-USD");
    match kind {
        "drop_depth" | "repeat_depth" | "swap_depth" | "drop_message" => {
            let mut c = books(sim, venue).await;
            let from = c.heard.len() - 1;
            strike(if kind == "drop_message" { Command::new(kind) } else { command });
            for _ in 0..6 {
                c.until(is_change).await;
            }
            if venue == A {
                let steps: Vec<i64> = numbers(&c, from).windows(2).map(|w| w[1] - w[0]).filter(|s| *s != 1).collect();
                match kind {
                    "repeat_depth" => assert_eq!(steps, [0]),
                    "swap_depth" => assert_eq!(steps, [2, -1, 2]),
                    _ => assert_eq!(steps, [2]),
                }
            } else if kind == "repeat_depth" {
                assert!(c.heard.windows(2).any(|w| w[0] == w[1]));
            }
        }
        "bad_level" | "no_time" => {
            let mut c = books(sim, venue).await;
            strike(command);
            let word = match (kind, venue) {
                ("bad_level", _) => "\"0.-10000\"",
                (_, VenueId::CoinbaseAdvanced) => "1970-01-01T00:00:00Z",
                _ => "0001-01-01T00:00:00.000000Z",
            };
            while !c.text().await.unwrap().contains(word) {}
        }
        "bad_snapshot" => {
            strike(command);
            let c = books(sim, venue).await;
            assert!(c.heard.iter().any(|t| t.contains("\"0.-10000\"") && t.contains("snapshot")));
        }
        "status" => {
            let mut c = open(sim, venue).await;
            ask(&mut c, venue, "status", &["BTC-USD"]).await;
            c.until(|v| v["type"] == "subscriptions" || v["channel"] == "subscriptions").await;
            strike(command.ms(100));
            for state in ["offline", "online"] {
                let products = |v: &Value| match venue {
                    A => v["events"][0]["products"].clone(),
                    _ => v["products"].clone(),
                };
                let of_btc = |v: &Value| {
                    let rows = products(v);
                    rows.as_array().and_then(|rows| rows.iter().find(|p| p["id"] == "BTC-USD")).cloned()
                };
                c.until(|v| of_btc(v).is_some_and(|p| p["status"] == state)).await;
            }
        }
        "leave_out" => {
            strike(Command::new(kind));
            let mut c = open(sim, venue).await;
            ask(&mut c, venue, "ticker", &["BTC-USD", "ETH-USD"]).await;
            let ack = c.until(|v| v["type"] == "subscriptions" || v["channel"] == "subscriptions").await.to_string();
            assert!(ack.contains("BTC-USD") && !ack.contains("ETH-USD"), "{ack}");
        }
        "refuse" => {
            strike(Command::new(kind));
            let mut c = open(sim, venue).await;
            ask(&mut c, venue, "ticker", &["BTC-USD"]).await;
            assert_eq!(c.next().await["type"], "error");
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            let mut c = books(sim, venue).await;
            assert!(!c.heard.iter().any(|t| t.contains("subscriptions")), "data comes before the acknowledgement");
            let from = c.heard.len();
            c.until(|v| v["type"] == "subscriptions" || v["channel"] == "subscriptions").await;
            assert!(
                venue == X || numbers(&c, from).windows(2).all(|w| w[1] == w[0] + 1),
                "it has the number of its place"
            );
        }
        "rest_429" => {
            strike(Command::new(kind));
            let path = if venue == A { "/api/v3/brokerage/time" } else { "/time" };
            assert_eq!(http(sim.addr(venue), "GET", path, "").await.0, 429);
            assert_eq!(http(sim.addr(venue), "GET", path, "").await.0, 200);
        }
        _ => return false,
    }
    true
}

#[tokio::test]
async fn messages_of_coinbase_are_numbered_over_all_channels_and_snapshots_come_before_the_acknowledgement() {
    let sim = start(A).await;
    let mut c = open(&sim, A).await;
    for channel in ["level2", "market_trades", "ticker", "candles", "heartbeats"] {
        ask(&mut c, A, channel, &["BTC-USD", "NOPE-USD", "ETH-USD"]).await;
    }
    let ack = c.until(|v| v["events"][0]["subscriptions"]["heartbeats"].is_array()).await;
    let set = &ack["events"][0]["subscriptions"];
    assert_eq!(set["level2"], json!(["BTC-USD", "ETH-USD"]));
    assert_eq!(set["heartbeats"], json!(["heartbeats"]));
    c.until(|v| v["channel"] == "heartbeats").await;
    let products = |v: &Value| v["events"].as_array().map_or(0, Vec::len);
    c.until(|v| v["channel"] == "market_trades" && v["events"][0]["type"] == "update" && products(v) == 2).await;
    assert!(numbers(&c, 0).iter().enumerate().all(|(n, number)| n as i64 == *number));
    let first: Value = serde_json::from_str(&c.heard[0]).unwrap();
    assert_eq!((&first["channel"], &first["events"][0]["type"]), (&json!("l2_data"), &json!("snapshot")));
    let rows = first["events"][0]["updates"].as_array().unwrap();
    let prices: Vec<f64> = rows.iter().map(|r| r["price_level"].as_str().unwrap().parse().unwrap()).collect();
    assert!(prices.windows(2).any(|w| w[0] < w[1]) && prices.windows(2).any(|w| w[0] > w[1]), "in no order");
    assert!(rows.iter().any(|r| r["event_time"] == "1970-01-01T00:00:00Z"));
    // History is newest first.
    let snapshot = c.heard.iter().map(|t| serde_json::from_str::<Value>(t).unwrap());
    let snapshot = snapshot.filter(|v| v["channel"] == "market_trades").next().unwrap();
    let ids: Vec<u64> = snapshot["events"][0]["trades"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["trade_id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(ids.len() > 1 && ids.windows(2).all(|w| w[0] == w[1] + 1));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn every_channel_of_coinbase_has_the_members_that_the_venue_sends() {
    for (venue, channel, sent_as, file, line, rows) in [
        (A, "level2", "l2_data", "ws_adv_l2_data.jsonl", 0, "updates"),
        (A, "market_trades", "market_trades", "ws_adv_market_trades.jsonl", 1, "trades"),
        (A, "ticker", "ticker", "ws_adv_ticker.jsonl", 2, "tickers"),
        (A, "ticker_batch", "ticker_batch", "ws_adv_ticker_batch.jsonl", 0, "tickers"),
        (A, "candles", "candles", "ws_adv_candles.jsonl", 0, "candles"),
        (A, "heartbeats", "heartbeats", "ws_adv_heartbeats.jsonl", 1, ""),
        (A, "status", "status", "ws_adv_status.jsonl", 0, "products"),
        (X, "matches", "last_match", "ws_ex_matches.jsonl", 0, ""),
        (X, "ticker", "ticker", "ws_ex_ticker.jsonl", 2, ""),
        (X, "level2_batch", "l2update", "ws_ex_level2.jsonl", 0, ""),
    ] {
        let Some(known) = fixture("coinbase", file, line) else { return };
        let sim = start(venue).await;
        let mut c = open(&sim, venue).await;
        ask(&mut c, venue, channel, &["BTC-USD"]).await;
        let got = c.until(|v| v["channel"] == sent_as || v["type"] == sent_as).await;
        if venue == X {
            assert_eq!(members(&got), members(&known), "{channel}");
        } else {
            let (got, known) = (&got["events"][0], &known["events"][0]);
            assert_eq!(members(got), members(known), "{channel}");
            assert_eq!(members(&got[rows][0]), members(&known[rows][0]), "{channel}");
        }
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_book_of_coinbase_kept_by_its_changes_is_the_book_by_rest() {
    for venue in [A, X] {
        let sim = start(venue).await;
        let mut c = open(&sim, venue).await;
        ask(&mut c, venue, if venue == A { "level2" } else { "level2_batch" }, &["BTC-USD"]).await;
        let mut book: [std::collections::BTreeMap<String, String>; 2] = Default::default();
        let plain = |v: &Value| crate::tests::coinbase::plain(v.as_str().unwrap());
        let (mut changes, mut paused) = (0, false);
        // Until the market stands still and everything was heard.
        loop {
            if changes >= 20 && !paused {
                paused = true;
                sim.fault(venue, Command::new("pause")).unwrap();
                // A newcomer makes the stand-in send on what has gathered until now.
                let mut other = open(&sim, venue).await;
                ask(&mut other, venue, if venue == A { "level2" } else { "level2_batch" }, &["BTC-USD"]).await;
                other.next().await;
            }
            let next =
                tokio::time::timeout(Duration::from_millis(if changes >= 20 { 400 } else { 60_000 }), c.text()).await;
            let Ok(Ok(text)) = next else { break };
            let v: Value = serde_json::from_str(&text).unwrap();
            let mut set = |bid: bool, price: &Value, size: &Value| {
                let half = &mut book[usize::from(bid)];
                match plain(size) {
                    zero if zero == "0" => half.remove(&plain(price)),
                    size => half.insert(plain(price), size),
                };
            };
            for row in v["events"][0]["updates"].as_array().into_iter().flatten() {
                set(row["side"] == "bid", &row["price_level"], &row["new_quantity"]);
            }
            for (name, bid) in [("bids", true), ("asks", false)] {
                v[name].as_array().into_iter().flatten().for_each(|row| set(bid, &row[0], &row[1]));
            }
            v["changes"].as_array().into_iter().flatten().for_each(|row| set(row[0] == "buy", &row[1], &row[2]));
            changes += usize::from(is_change(&v));
        }
        let path = match venue {
            VenueId::CoinbaseAdvanced => "/api/v3/brokerage/market/product_book?product_id=BTC-USD",
            _ => "/products/BTC-USD/book?level=2",
        };
        let rest = get(sim.addr(venue), path).await;
        let rest = if venue == A { rest["pricebook"].clone() } else { rest };
        for (name, bid) in [("bids", true), ("asks", false)] {
            let row = |r: &Value| match venue {
                VenueId::CoinbaseAdvanced => (plain(&r["price"]), plain(&r["size"])),
                _ => (plain(&r[0]), plain(&r[1])),
            };
            let whole: std::collections::BTreeMap<_, _> = rest[name].as_array().unwrap().iter().map(row).collect();
            assert_eq!(book[usize::from(bid)], whole, "{name} at {}", venue.name());
        }
        sim.stop().await.unwrap();
    }
}

fn plain(text: &str) -> String {
    text.parse::<rust_decimal::Decimal>().unwrap().normalize().to_string()
}

#[tokio::test]
async fn coinbase_closes_who_says_nothing_or_too_much() {
    let mut quick = options(A);
    quick.config.coinbase.subscribe_wait_ms = 200;
    let sim = Simulator::start(quick).await.unwrap();
    let mut silent = open(&sim, A).await;
    assert!(matches!(silent.end().await, End::Closed(1008, why) if why.contains("subscribe")));
    let mut loud = open(&sim, A).await;
    for _ in 0..9 {
        loud.say(json!({ "type": "subscribe", "channel": "heartbeats" })).await;
    }
    assert!(matches!(loud.end().await, End::Closed(1008, why) if why.contains("rate")));
    let mut wrong = open(&sim, A).await;
    ask(&mut wrong, A, "gossip", &["BTC-USD"]).await;
    let refusal = wrong.next().await;
    if let Some(known) = fixture("coinbase", "ws_adv_error.jsonl", 0) {
        assert_eq!(refusal, known);
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_connection_of_coinbase() {
    let mut quick = options(A);
    quick.config.coinbase.quiet_close_ms = 1500;
    let sim = Simulator::start(quick).await.unwrap();
    let (mut quiet, mut beating) = (open(&sim, A).await, open(&sim, A).await);
    ask(&mut quiet, A, "status", &["BTC-USD"]).await;
    ask(&mut beating, A, "heartbeats", &[]).await;
    assert!(matches!(quiet.end().await, End::Closed(1000, why) if why == "quiet"));
    for _ in 0..3 {
        beating.until(|v| v["channel"] == "heartbeats").await;
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn coinbase_exchange_refuses_a_message_with_one_wrong_name_and_lists_the_whole_set() {
    let sim = start(X).await;
    let mut c = open(&sim, X).await;
    ask(&mut c, X, "ticker", &["BTC-USD", "NOPE-USD"]).await;
    assert_eq!(c.next().await["reason"], "NOPE-USD is not a valid product");
    ask(&mut c, X, "level2", &["BTC-USD"]).await;
    assert!(c.next().await["reason"].as_str().unwrap().contains("authentication"));
    let channels = json!(["heartbeat", { "name": "matches", "product_ids": ["ETH-USD"] }]);
    c.say(json!({ "type": "subscribe", "product_ids": ["BTC-USD"], "channels": channels })).await;
    let ack = c.until(|v| v["type"] == "subscriptions").await;
    assert_eq!(
        ack["channels"],
        json!([{ "name": "heartbeat", "product_ids": ["BTC-USD"] }, { "name": "matches", "product_ids": ["ETH-USD"] }])
    );
    let beat = c.until(|v| v["type"] == "heartbeat").await;
    assert!(beat["last_trade_id"].as_u64() > Some(0));
    c.say(json!({ "type": "unsubscribe", "product_ids": ["ETH-USD"], "channels": ["matches"] })).await;
    let ack = c.until(|v| v["type"] == "subscriptions").await;
    assert_eq!(ack["channels"].as_array().unwrap().len(), 1);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn rest_of_coinbase_pages_trades_and_candles() {
    let mut slow = options(X);
    slow.config.coinbase.rest_per_second_max = 1000;
    let sim = Simulator::start(slow).await.unwrap();
    let addr = sim.addr(X);
    let product = get(addr, "/products").await[0].clone();
    if let Some(known) = fixture("coinbase", "rest_ex_products.json", 0) {
        assert_eq!(members(&product), members(&known[0]));
    }
    let ids = |v: &Value| v.as_array().unwrap().iter().map(|t| t["trade_id"].as_u64().unwrap()).collect::<Vec<_>>();
    let newest = ids(&get(addr, "/products/BTC-USD/trades?limit=5").await);
    assert!(newest.len() == 5 && newest.windows(2).all(|w| w[0] == w[1] + 1));
    let older = ids(&get(addr, &format!("/products/BTC-USD/trades?limit=3&after={}", newest[4])).await);
    assert_eq!(older[0] + 1, newest[4]);
    let book = get(addr, "/products/BTC-USD/book?level=2").await;
    assert!(book["bids"].as_array().unwrap().len() > 10 && book["sequence"].is_u64());
    let now = get(addr, "/time").await["epoch"].as_i64().unwrap();
    let (start, end) = (now - 180, now);
    let path = format!("/products/BTC-USD/candles?granularity=60&start={start}&end={end}");
    let candles = get(addr, &path).await;
    let opens: Vec<i64> = candles.as_array().unwrap().iter().map(|c| c[0].as_i64().unwrap()).collect();
    assert!(!opens.is_empty() && opens.windows(2).all(|w| w[0] > w[1]), "{opens:?}");
    let wide = format!("/products/BTC-USD/candles?granularity=60&start={}&end={end}", now - 60 * 301);
    assert_eq!(http(addr, "GET", &wide, "").await.0, 400);
    assert_eq!(http(addr, "GET", "/products/NOPE-USD/trades", "").await.0, 404);
    sim.stop().await.unwrap();

    let mut tight = options(A);
    tight.config.coinbase.rest_per_second_max = 2;
    let sim = Simulator::start(tight).await.unwrap();
    let addr = sim.addr(A);
    let market = "/api/v3/brokerage/market";
    let list = get(addr, &format!("{market}/products?product_ids=ETH-USD")).await;
    assert_eq!((&list["num_products"], &list["products"][0]["product_id"]), (&json!(1), &json!("ETH-USD")));
    let trades = get(addr, &format!("{market}/products/BTC-USD/ticker?limit=2")).await;
    if let Some(known) = fixture("coinbase", "ws_adv_market_trades.jsonl", 0) {
        assert_eq!(members(&trades["trades"][0]), members(&known["events"][0]["trades"][0]));
    }
    // Within the second, so far: the third is one too many, unless the machine took a second for two.
    let mut refused = false;
    for _ in 0..20 {
        refused |= http(addr, "GET", "/api/v3/brokerage/time", "").await.0 == 429;
    }
    assert!(refused);
    sim.stop().await.unwrap();
}
