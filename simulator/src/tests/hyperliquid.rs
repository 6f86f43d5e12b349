use super::*;
use crate::Command;

const H: VenueId = VenueId::Hyperliquid;
const COINS: [&str; 6] = ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"];

async fn open(sim: &Handle) -> Client {
    Client::open(sim.addr(H), "/ws").await
}

/// Asks for a subscription; the answer is left to the reader.
async fn ask(c: &mut Client, method: &str, subscription: Value) {
    c.say(json!({ "method": method, "subscription": subscription })).await;
}

async fn subscribe(c: &mut Client, kind: &str, coin: &str) {
    ask(c, "subscribe", json!({ "type": kind, "coin": coin })).await;
    c.until(|v| v["channel"] == "subscriptionResponse").await;
}

async fn of(c: &mut Client, channel: &str) -> Value {
    c.until(|v| v["channel"] == channel).await["data"].clone()
}

async fn info(sim: &Handle, question: Value) -> (u16, Value) {
    let (status, _, body) = http(sim.addr(H), "POST", "/info", &question.to_string()).await;
    (status, body)
}

async fn known(sim: &Handle, question: Value) -> Value {
    let (status, body) = info(sim, question).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn tids(data: &Value) -> Vec<u64> {
    data.as_array().unwrap().iter().map(|t| t["tid"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_subscription_is_echoed_once_and_refused_by_a_sentence() {
    let sim = start(H).await;
    let mut c = open(&sim).await;
    let candle = json!({ "type": "candle", "interval": "1m", "coin": "BTC" });
    ask(&mut c, "subscribe", candle.clone()).await;
    let answer = c.next().await;
    assert_eq!(
        answer,
        json!({ "channel": "subscriptionResponse", "data": { "method": "subscribe", "subscription": candle } })
    );
    if let Some(recorded) = fixture("hyperliquid", "ws_subscription_response.jsonl", 0) {
        assert_eq!(answer, recorded);
    }
    let refusal = async |c: &mut Client, method: &str, subscription: Value| -> String {
        ask(c, method, subscription).await;
        of(c, "error").await.as_str().unwrap().to_owned()
    };
    assert!(refusal(&mut c, "subscribe", candle.clone()).await.starts_with("Already subscribed: {"));
    for bad in [
        json!({ "type": "trades", "coin": "NOPE" }),
        json!({ "type": "gossip", "coin": "BTC" }),
        json!({ "type": "candle", "coin": "BTC", "interval": "7m" }),
        json!({ "type": "l2Book", "coin": "BTC", "nSigFigs": 3 }),
    ] {
        let why = refusal(&mut c, "subscribe", bad.clone()).await;
        assert_eq!(why, format!("Invalid subscription {bad}"));
    }
    ask(&mut c, "unsubscribe", candle.clone()).await;
    let left = c.until(|v| v["data"]["method"] == "unsubscribe").await;
    assert_eq!(left["data"]["subscription"], candle);
    assert!(refusal(&mut c, "unsubscribe", candle).await.starts_with("Already unsubscribed: {"));
    c.ws.send(Message::text("nonsense")).await.unwrap();
    assert!(of(&mut c, "error").await.as_str().unwrap().contains("parsing JSON"));
    c.say(json!({ "method": "ping" })).await;
    assert_eq!(c.until(|v| v["channel"] == "pong").await, json!({ "channel": "pong" }));
    c.say(json!({ "method": "post", "id": 5, "request": { "type": "info", "payload": { "type": "allMids" } } })).await;
    let answer = of(&mut c, "post").await;
    assert!(answer["id"] == 5 && answer["response"]["payload"]["data"]["BTC"].is_string(), "{answer}");
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn trades_begin_with_the_newest_ones_and_none_is_missing_or_comes_twice() {
    let sim = start(H).await;
    let mut c = open(&sim).await;
    ask(&mut c, "subscribe", json!({ "type": "trades", "coin": "BTC" })).await;
    let history = of(&mut c, "trades").await;
    assert_eq!(history.as_array().unwrap().len(), 30);
    let mut heard = tids(&history);
    while heard.len() < 60 {
        let more = of(&mut c, "trades").await;
        if let Some(recorded) = fixture("hyperliquid", "ws_trades.jsonl", 1) {
            assert_eq!(members(&more[0]), members(&recorded["data"][0]));
        }
        assert!(more.as_array().unwrap().iter().all(|t| t["coin"] == "BTC" && (t["side"] == "A" || t["side"] == "B")));
        heard.extend(tids(&more));
    }
    assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), heard.len());
    assert!(heard.windows(2).any(|two| two[1] < two[0]), "ids do not rise");
    // Who comes back hears what was missed, and what it knows.
    ask(&mut c, "unsubscribe", json!({ "type": "trades", "coin": "BTC" })).await;
    c.until(|v| v["data"]["method"] == "unsubscribe").await;
    ask(&mut c, "subscribe", json!({ "type": "trades", "coin": "BTC" })).await;
    let again = tids(&of(&mut c, "trades").await);
    let meets = again.iter().position(|tid| *tid == heard[heard.len() - 1]).expect("the last one known is among them");
    assert!(
        again[..=meets].iter().all(|tid| heard.contains(tid))
            && again[meets + 1..].iter().all(|tid| !heard.contains(tid))
    );
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn books_are_whole_twice_at_the_start_and_then_by_the_half_second() {
    let sim = start(H).await;
    let mut c = open(&sim).await;
    ask(&mut c, "subscribe", json!({ "type": "l2Book", "coin": "ETH" })).await;
    let books: Vec<Value> = [
        of(&mut c, "l2Book").await,
        of(&mut c, "l2Book").await,
        of(&mut c, "l2Book").await,
        of(&mut c, "l2Book").await,
    ]
    .into();
    let times: Vec<i64> = books.iter().map(|b| b["time"].as_i64().unwrap()).collect();
    assert_eq!((times[0], books[0].clone()), (times[1], books[1].clone()));
    assert!(times[1] <= times[2] && times[2] % 500 == 0 && (times[3] - times[2]) % 500 == 0 && times[3] > times[2]);
    for book in &books {
        assert_eq!(book["coin"], "ETH");
        let side = |n: usize| -> Vec<f64> {
            let rows = book["levels"][n].as_array().unwrap();
            rows.iter().map(|l| l["px"].as_str().unwrap().parse().unwrap()).collect()
        };
        let (bids, asks) = (side(0), side(1));
        assert_eq!((bids.len(), asks.len()), (20, 20));
        assert!(bids.windows(2).all(|w| w[0] > w[1]) && asks.windows(2).all(|w| w[0] < w[1]) && bids[0] < asks[0]);
    }
    if let Some(recorded) = fixture("hyperliquid", "ws_l2_book.jsonl", 0) {
        assert_eq!(members(&books[0]), members(&recorded["data"]));
        assert_eq!(members(&books[0]["levels"][0][0]), members(&recorded["data"]["levels"][0][0]));
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn quotes_contexts_candles_and_mids_look_as_recorded() {
    let sim = start(H).await;
    let mut c = open(&sim).await;
    for (kind, channel, file, line) in [
        ("bbo", "bbo", "ws_bbo.jsonl", 0),
        ("activeAssetCtx", "activeAssetCtx", "ws_active_asset_ctx.jsonl", 0),
        ("allMids", "allMids", "ws_all_mids.jsonl", 0),
    ] {
        subscribe(&mut c, kind, "BTC").await;
        let data = of(&mut c, channel).await;
        if let Some(recorded) = fixture("hyperliquid", file, line) {
            assert_eq!(members(&data), members(&recorded["data"]), "{kind}");
            assert_eq!(members(&data["ctx"]), members(&recorded["data"]["ctx"]));
            assert_eq!(members(&data["bbo"][0]), members(&recorded["data"]["bbo"][0]));
        }
    }
    ask(&mut c, "subscribe", json!({ "type": "candle", "coin": "BTC", "interval": "1m" })).await;
    let first = of(&mut c, "candle").await;
    if let Some(recorded) = fixture("hyperliquid", "ws_candle.jsonl", 1) {
        assert_eq!(members(&first), members(&recorded["data"]));
    }
    assert_eq!(first["T"].as_i64().unwrap() - first["t"].as_i64().unwrap(), 59_999);
    let later = of(&mut c, "candle").await;
    assert!(later["t"].as_i64() >= first["t"].as_i64());
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_fresh_start_finds_the_candles_of_days_of_six_coins() {
    let mut six = options(H);
    six.symbols = COINS.map(str::to_owned).to_vec();
    let sim = Simulator::start(six).await.unwrap();
    let now_ms = crate::server::wall_ns() / 1_000_000;
    for coin in COINS {
        let ask = async |interval: &str, width_ms: i64, n: i64| -> Vec<Value> {
            let last_open = now_ms / width_ms * width_ms;
            let req = json!({ "coin": coin, "interval": interval, "startTime": last_open - (n - 1) * width_ms, "endTime": now_ms });
            let rows = known(&sim, json!({ "type": "candleSnapshot", "req": req })).await.as_array().unwrap().clone();
            assert_eq!(rows.len() as i64, n, "{coin} {interval}");
            for two in rows.windows(2) {
                assert_eq!(two[1]["t"].as_i64().unwrap() - two[0]["t"].as_i64().unwrap(), width_ms);
            }
            assert!(rows.iter().all(|r| r["s"] == coin && r["i"] == interval && r["n"].as_u64() > Some(0)));
            rows
        };
        let short = ask("3m", 180_000, 200).await;
        let long = ask("4h", 14_400_000, 100).await;
        // The widths tell one story.
        let newest = &long[long.len() - 1];
        if let Some(same) = short.iter().find(|r| r["t"] == newest["t"]) {
            assert_eq!(same["o"], newest["o"]);
        }
        assert_eq!(short[short.len() - 1]["s"], coin);
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn questions_are_answered_as_recorded_and_cost_their_weight() {
    let mut small = options(H);
    small.config.hyperliquid.weight_per_minute_max = 200;
    let sim = Simulator::start(small).await.unwrap();
    let list = known(&sim, json!({ "type": "metaAndAssetCtxs" })).await;
    let names: Vec<&str> =
        list[0]["universe"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!((names, list[0]["universe"][0]["szDecimals"].as_u64()), (vec!["BTC", "ETH"], Some(5)));
    assert_eq!(list[1].as_array().unwrap().len(), 2);
    let book = known(&sim, json!({ "type": "l2Book", "coin": "BTC" })).await;
    assert_eq!(book["levels"][1].as_array().unwrap().len(), 20);
    let trades = known(&sim, json!({ "type": "recentTrades", "coin": "BTC" })).await;
    let times: Vec<i64> = trades.as_array().unwrap().iter().map(|t| t["time"].as_i64().unwrap()).collect();
    assert!(times.len() == 10 && times.windows(2).all(|w| w[0] >= w[1]), "the newest first: {times:?}");
    assert_eq!(info(&sim, json!({ "type": "l2Book", "coin": "NOPE" })).await.0, 500);
    assert_eq!(info(&sim, json!({ "type": "gossip" })).await.0, 422);
    assert_eq!(http(sim.addr(H), "POST", "/info", "nonsense").await.0, 422);
    assert_eq!(http(sim.addr(H), "GET", "/info", "").await.0, 404);
    // 20 + 2 + 20 are spent; the window may turn once meanwhile.
    let mut refused = 0;
    for _ in 0..20 {
        let (status, _) = info(&sim, json!({ "type": "meta" })).await;
        assert!(status == 200 || status == 429);
        refused += u32::from(status == 429);
    }
    assert!(refused > 0);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn who_hears_nothing_is_let_go_and_a_ping_keeps_it() {
    let mut quick = options(H);
    quick.config.hyperliquid.silence_ms_max = 400;
    quick.config.hyperliquid.messages_per_minute_max = 1_000_000;
    let sim = Simulator::start(quick).await.unwrap();
    let (mut quiet, mut pings) = (open(&sim).await, open(&sim).await);
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        pings.say(json!({ "method": "ping" })).await;
        assert_eq!(pings.next().await["channel"], "pong");
    }
    assert!(matches!(quiet.end().await, End::Closed(1000, _)));
    // Data keeps it, too.
    subscribe(&mut pings, "trades", "BTC").await;
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        pings.next().await;
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_has_its_connections_subscriptions_users_and_messages() {
    let mut small = options(H);
    small.config.hyperliquid.connections_max = 2;
    small.config.hyperliquid.subscriptions_max = 3;
    small.config.hyperliquid.users_max = 1;
    small.config.hyperliquid.messages_per_minute_max = 6;
    let sim = Simulator::start(small).await.unwrap();
    let (mut one, mut two) = (open(&sim).await, open(&sim).await);
    assert!(connect_async(format!("ws://{}/ws", sim.addr(H))).await.is_err());
    ask(&mut one, "subscribe", json!({ "type": "userFills", "user": "0xa" })).await;
    assert_eq!(of(&mut one, "userFills").await, json!({ "isSnapshot": true, "user": "0xa", "fills": [] }));
    ask(&mut two, "subscribe", json!({ "type": "userFills", "user": "0xb" })).await;
    assert!(of(&mut two, "error").await.as_str().unwrap().contains("1 total users"));
    subscribe(&mut one, "bbo", "BTC").await;
    subscribe(&mut two, "bbo", "BTC").await;
    ask(&mut two, "subscribe", json!({ "type": "bbo", "coin": "ETH" })).await;
    assert!(of(&mut two, "error").await.as_str().unwrap().contains("3 total subscriptions"));
    one.say(json!({ "method": "ping" })).await;
    one.until(|v| v["channel"] == "pong").await;
    one.say(json!({ "method": "ping" })).await;
    assert!(matches!(one.end().await, End::Closed(1008, _)));
    sim.stop().await.unwrap();
}

/// What each fault looks like from outside.
pub async fn see(sim: &Handle, kind: &str) {
    let addr = sim.addr(H);
    let strike = |command: Command| sim.fault(H, command).unwrap();
    let mut c = open(sim).await;
    let meta = json!({ "type": "meta" }).to_string();
    match kind {
        "drop_depth" | "repeat_depth" | "swap_depth" | "empty_book" => {
            subscribe(&mut c, "l2Book", "BTC").await;
            for _ in 0..3 {
                of(&mut c, "l2Book").await;
            }
            strike(Command::new(kind).symbol("BTC"));
            let mut books = Vec::new();
            for _ in 0..6 {
                books.push(of(&mut c, "l2Book").await);
            }
            let times: Vec<i64> = books.iter().map(|b| b["time"].as_i64().unwrap()).collect();
            let steps: Vec<i64> = times.windows(2).map(|w| w[1] - w[0]).collect();
            match kind {
                "drop_depth" => assert!(times[5] - times[0] >= 2500, "{times:?}"),
                "repeat_depth" => assert!(steps.contains(&0), "{times:?}"),
                "swap_depth" => assert!(steps.iter().any(|step| *step < 0), "{times:?}"),
                _ => assert!(books.iter().any(|b| b["levels"] == json!([[], []]))),
            }
        }
        "one_sided_bbo" => {
            subscribe(&mut c, "bbo", "BTC").await;
            strike(Command::new(kind).symbol("BTC"));
            let quote = c.until(|v| v["channel"] == "bbo" && v["data"]["bbo"][1].is_null()).await;
            assert!(quote["data"]["bbo"][0]["px"].is_string());
        }
        "no_pong" => {
            strike(Command::new(kind));
            c.say(json!({ "method": "ping" })).await;
            subscribe(&mut c, "bbo", "BTC").await;
            assert!(c.heard.iter().all(|t| !t.contains("pong")));
            c.say(json!({ "method": "ping" })).await;
            c.until(|v| v["channel"] == "pong").await;
        }
        "bad_json" | "unknown_enum" => {
            subscribe(&mut c, "trades", "BTC").await;
            of(&mut c, "trades").await;
            strike(Command::new(kind).symbol("BTC"));
            loop {
                let text = c.text().await.unwrap();
                if serde_json::from_str::<Value>(&text).is_err() || text.contains("Mystery") {
                    break;
                }
            }
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            ask(&mut c, "subscribe", json!({ "type": "l2Book", "coin": "BTC" })).await;
            assert_eq!(c.next().await["channel"], "l2Book", "data comes before the acknowledgement");
            c.until(|v| v["channel"] == "subscriptionResponse").await;
        }
        "delay" => {
            subscribe(&mut c, "trades", "BTC").await;
            of(&mut c, "trades").await;
            strike(Command::new(kind).ms(300));
            let mut last = 0;
            for _ in 0..10 {
                let time = of(&mut c, "trades").await[0]["time"].as_i64().unwrap();
                assert!(time >= last, "held back, not disordered");
                last = time;
            }
        }
        "pause" | "resume" => {
            strike(Command::new("pause"));
            let before = get(addr, "/sim/state").await["time_ns"].clone();
            assert_eq!(get(addr, "/sim/state").await["time_ns"], before);
            strike(Command::new("resume"));
            eventually("time goes on", async || get(addr, "/sim/state").await["time_ns"] != before).await;
        }
        "silence" => {
            subscribe(&mut c, "trades", "BTC").await;
            strike(Command::new(kind));
            let quiet = async { while tokio::time::timeout(Duration::from_millis(400), c.ws.next()).await.is_ok() {} };
            tokio::time::timeout(WAIT, quiet).await.expect("silence within the bound");
            assert_eq!(get(addr, "/sim/state").await["clients"], 1);
        }
        "cut" | "close" => {
            subscribe(&mut c, "trades", "BTC").await;
            strike(Command::new(kind));
            let end = c.end().await;
            assert!(if kind == "cut" { end == End::Cut } else { matches!(end, End::Closed(1001, _)) }, "{end:?}");
        }
        "rest_429" | "rest_503" => {
            strike(Command::new(kind));
            let (status, headers, _) = http(addr, "POST", "/info", &meta).await;
            assert_eq!(status.to_string(), kind[5..]);
            assert_eq!(headers.contains_key("retry-after"), kind == "rest_429");
            assert_eq!(http(addr, "POST", "/info", &meta).await.0, 200);
        }
        "rest_delay" => {
            strike(Command::new(kind).ms(250));
            let since = std::time::Instant::now();
            assert_eq!(http(addr, "POST", "/info", &meta).await.0, 200);
            assert!(since.elapsed() >= Duration::from_millis(250));
        }
        "rest_lost" => {
            strike(Command::new(kind));
            let asked = client().post(format!("http://{addr}/info")).body(meta.clone());
            assert!(asked.timeout(Duration::from_millis(300)).send().await.unwrap_err().is_timeout());
            assert_eq!(http(addr, "POST", "/info", &meta).await.0, 200);
        }
        other => panic!("fault `{other}` has no case in this test"),
    }
}
