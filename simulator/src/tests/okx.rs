use std::collections::BTreeMap;

use super::*;
use crate::Command;
use crate::faults::FAULTS;

const O: VenueId = VenueId::Okx;
const SPOT: &str = "BTC-USDT";

async fn open(sim: &Handle, path: &str) -> Client {
    Client::open(sim.addr(O), &format!("/ws/v5/{path}")).await
}

fn args(channels: &[&str]) -> Value {
    channels.iter().map(|channel| json!({ "channel": channel, "instId": SPOT })).collect()
}

/// Subscribed, acknowledgements awaited.
async fn listener(sim: &Handle, path: &str, channels: &[&str]) -> Client {
    let mut c = open(sim, path).await;
    c.say(json!({ "op": "subscribe", "args": args(channels) })).await;
    for _ in channels {
        c.until(|v| v["event"] == "subscribe").await;
    }
    c
}

#[tokio::test]
async fn the_sockets_refuse_each_others_channels_and_what_is_no_request() {
    let sim = start(O).await;
    let mut public = open(&sim, "public").await;
    let request = json!([
        { "channel": "books", "instId": SPOT },
        { "channel": "candle1m", "instId": SPOT },
        { "channel": "books", "instId": "NOPE-USDT" }
    ]);
    public.say(json!({ "id": "md", "op": "subscribe", "args": request })).await;
    let ack = public.until(|v| v["event"] == "subscribe").await;
    if let Some(known) = fixture("okx", "ws_subscribe_ack.jsonl", 0) {
        assert_eq!((members(&ack), members(&ack["arg"])), (members(&known), members(&known["arg"])));
    }
    for named in ["channel:candle1m,instId:BTC-USDT doesn't exist", "channel:books,instId:NOPE-USDT doesn't exist"] {
        let refused = public.until(|v| v["event"] == "error").await;
        assert_eq!((&refused["code"], &refused["id"]), (&json!("60018"), &json!("md")));
        assert!(refused["msg"].as_str().unwrap().contains(named), "{refused}");
    }
    public.say(json!({ "op": "dance" })).await;
    assert_eq!(public.until(|v| v["event"] == "error").await["code"], "60012");
    let mut business = listener(&sim, "business", &["candle1m", "trades-all"]).await;
    business.say(json!({ "op": "subscribe", "args": args(&["books"]) })).await;
    assert_eq!(business.until(|v| v["event"] == "error").await["code"], "60018");
    let mut private = open(&sim, "private").await;
    private.say(json!({ "op": "subscribe", "args": [{ "channel": "account" }] })).await;
    assert_eq!(private.until(|v| v["event"] == "error").await["code"], "60011");
    private.say(json!({ "op": "login", "args": [{}] })).await;
    assert_eq!(private.until(|v| v["event"] == "error").await["code"], "60009");
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_text_ping_is_answered_and_a_silent_connection_is_closed() {
    let mut quick = options(O);
    quick.config.okx.idle_ms = 300;
    let sim = Simulator::start(quick).await.unwrap();
    let mut c = open(&sim, "public").await;
    for _ in 0..3 {
        c.ws.send(Message::text("ping")).await.unwrap();
        assert_eq!(c.text().await.unwrap(), "pong");
    }
    assert_eq!(c.end().await, End::Closed(4004, "No data received in 30s.".to_owned()));
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn requests_are_counted_on_the_socket_and_over_rest() {
    let mut narrow = options(O);
    (narrow.config.okx.requests_per_hour_max, narrow.config.okx.rest_per_2s_max) = (2, 2);
    let sim = Simulator::start(narrow).await.unwrap();
    let mut c = listener(&sim, "public", &["tickers"]).await;
    c.say(json!({ "op": "unsubscribe", "args": args(&["tickers"]) })).await;
    c.until(|v| v["event"] == "unsubscribe").await;
    c.say(json!({ "op": "subscribe", "args": args(&["tickers"]) })).await;
    assert_eq!(c.until(|v| v["event"] == "error").await["code"], "60014");
    let path = "/api/v5/market/books?instId=BTC-USDT&sz=5";
    get(sim.addr(O), path).await;
    get(sim.addr(O), path).await;
    let (status, _, body) = http(sim.addr(O), "GET", path, "").await;
    assert_eq!((status, &body["code"]), (429, &json!("50011")));
    // Each endpoint has a window of its own.
    get(sim.addr(O), "/api/v5/public/time").await;
    sim.stop().await.unwrap();
}

/// A book kept by the venue's rules, from the texts that were sent.
#[derive(Default)]
struct Kept {
    seq: i64,
    sides: [BTreeMap<rust_decimal::Decimal, [String; 2]>; 2],
}

impl Kept {
    fn apply(&mut self, message: &Value) {
        let data = &message["data"][0];
        if message["action"] == "snapshot" {
            assert_eq!(data["prevSeqId"], -1);
            self.sides.iter_mut().for_each(BTreeMap::clear);
        } else {
            assert_eq!(data["prevSeqId"].as_i64(), Some(self.seq), "{message}");
        }
        self.seq = data["seqId"].as_i64().unwrap();
        for (half, name) in self.sides.iter_mut().zip(["bids", "asks"]) {
            for row in data[name].as_array().unwrap() {
                let [price, size] = [0, 1].map(|n| row[n].as_str().unwrap().to_owned());
                let key = price.parse().unwrap();
                if size == "0" {
                    half.remove(&key)
                } else {
                    half.insert(key, [price, size])
                };
            }
        }
    }

    fn checksum(&self) -> i64 {
        let (mut bids, mut asks) = (self.sides[0].values().rev(), self.sides[1].values());
        let parts: Vec<String> =
            (0..25).flat_map(|_| [bids.next(), asks.next()]).flatten().map(|row| row.join(":")).collect();
        let mut crc = flate2::Crc::new();
        crc.update(parts.join(":").as_bytes());
        i64::from(crc.sum().cast_signed())
    }

    fn texts(&self) -> [Vec<[String; 2]>; 2] {
        [self.sides[0].values().rev().cloned().collect(), self.sides[1].values().cloned().collect()]
    }
}

#[tokio::test]
async fn books_chain_and_agree_with_their_checksums_and_with_rest() {
    let mut calm = options(O);
    (calm.flow.rate, calm.config.okx.checksums, calm.config.okx.rest_per_2s_max) = (6.0, true, 1_000_000);
    let sim = Simulator::start(calm).await.unwrap();
    let mut early = listener(&sim, "public", &["books"]).await;
    early.until(|v| v["action"] == "update").await;
    let mut c = listener(&sim, "public", &["books"]).await;
    let mut book = Kept::default();
    let mut equal = false;
    for _ in 0..300 {
        let truth = get(sim.addr(O), "/api/v5/market/books?instId=BTC-USDT&sz=400&source=0").await["data"][0].clone();
        while book.seq < truth["seqId"].as_i64().unwrap() {
            let message = c.next().await;
            book.apply(&message);
            assert_eq!(message["data"][0]["checksum"].as_i64(), Some(book.checksum()));
        }
        if Some(book.seq) == truth["seqId"].as_i64() {
            for (own, name) in book.texts().iter().zip(["bids", "asks"]) {
                let rows = truth[name].as_array().unwrap().iter();
                let rows: Vec<[String; 2]> = rows.map(|r| [0, 1].map(|n| r[n].as_str().unwrap().to_owned())).collect();
                assert_eq!(*own, rows);
            }
            equal = true;
            break;
        }
    }
    assert!(equal, "no REST book fell between two changes");
    // Subscribed again: acknowledged again, with the snapshot once more.
    c.say(json!({ "op": "subscribe", "args": args(&["books"]) })).await;
    book.apply(&c.until(|v| v["action"] == "snapshot").await);
    sim.fault(O, Command::new("reset_sequence")).unwrap();
    let before = book.seq;
    while book.seq >= before {
        book.apply(&c.next().await);
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn every_channel_has_the_members_that_the_venue_sends() {
    if schemas::fixtures::root().is_none() {
        return;
    }
    let mut fast = options(O);
    fast.speed = crate::Speed::Factor(20.0);
    fast.symbols = vec![SPOT.to_owned(), "BTC-USD-SWAP".to_owned(), "BTC-USDT-SWAP".to_owned()];
    let sim = Simulator::start(fast).await.unwrap();
    let mut public = open(&sim, "public").await;
    let mut business = open(&sim, "business").await;
    let of = |channel: &str, symbol: &str| json!({ "channel": channel, "instId": symbol });
    let table = [
        ("books", "BTC-USDT-SWAP", "ws_books_2026.jsonl", 0),
        ("bbo-tbt", "BTC-USDT-SWAP", "ws_bbo_tbt.jsonl", 4),
        ("tickers", SPOT, "ws_tickers.jsonl", 0),
        ("trades", SPOT, "ws_trades.jsonl", 4),
        ("mark-price", "BTC-USD-SWAP", "ws_mark_price.jsonl", 0),
        ("index-tickers", "BTC-USD", "ws_index_tickers.jsonl", 0),
        ("funding-rate", "BTC-USD-SWAP", "ws_funding_rate.jsonl", 0),
        ("open-interest", "BTC-USD-SWAP", "ws_open_interest.jsonl", 0),
    ];
    let list: Vec<Value> = table.iter().map(|row| of(row.0, row.1)).collect();
    public.say(json!({ "op": "subscribe", "args": list })).await;
    business.say(json!({ "op": "subscribe", "args": [of("candle1m", SPOT), of("trades-all", SPOT)] })).await;
    for (channel, symbol, file, line) in table {
        let fits = |v: &Value| v["arg"] == of(channel, symbol) && v["data"].is_array() && v["action"] != "snapshot";
        let mut ours = None;
        if let Some(text) = public.heard.iter().find(|t| fits(&serde_json::from_str(t).unwrap())) {
            ours = serde_json::from_str::<Value>(text).ok();
        }
        let ours = match ours {
            Some(v) => v,
            None => public.until(fits).await,
        };
        let known = fixture("okx", file, line).unwrap();
        assert_eq!(members(&ours), members(&known), "{channel}");
        let mut row = members(&ours["data"][0]);
        if channel == "trades" {
            // Newer than the recorded row.
            assert!(row.remove("source") && row.remove("seqId"));
        }
        assert_eq!(row, members(&known["data"][0]), "{channel}");
    }
    let candle = business.until(|v| v["arg"]["channel"] == "candle1m" && v["data"].is_array()).await;
    assert_eq!(candle["data"][0].as_array().unwrap().len(), 9);
    let addr = sim.addr(O);
    for (path, file) in [("SPOT", "rest_instruments_SPOT.json"), ("SWAP", "rest_instruments_SWAP.json")] {
        let ours = get(addr, &format!("/api/v5/public/instruments?instType={path}")).await;
        let path = schemas::fixtures::root().unwrap().join("fixtures/venues/okx").join(file);
        let known: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let known = members(&known["data"][0]);
        // Beside the largest sizes, which the stand-in does not bound.
        let missing: Vec<_> = known.iter().filter(|k| !members(&ours["data"][0]).contains(*k)).collect();
        assert!(missing.iter().all(|key| key.starts_with("max")), "{missing:?}");
    }
    let trades = get(addr, "/api/v5/market/history-trades?instId=BTC-USDT&limit=3").await;
    let known = ["instId", "tradeId", "px", "sz", "side", "ts"].map(str::to_owned);
    assert_eq!(members(&trades["data"][0]), known.into());
    let newest = trades["data"][0]["tradeId"].as_str().unwrap().parse::<u64>().unwrap();
    let page = format!("/api/v5/market/history-trades?instId=BTC-USDT&type=1&after={}&limit=2", newest - 1);
    let ids: Vec<Value> =
        get(addr, &page).await["data"].as_array().unwrap().iter().map(|t| t["tradeId"].clone()).collect();
    assert_eq!(ids, [(newest - 2).to_string(), (newest - 3).to_string()]);
    let candles = get(addr, "/api/v5/market/history-candles?instId=BTC-USDT&bar=1m&limit=2").await;
    assert_eq!(candles["data"].as_array().unwrap().len(), 2);
    sim.stop().await.unwrap();
}

/// What each fault looks like from outside.
async fn see(sim: &Handle, kind: &str) {
    let addr = sim.addr(O);
    let strike = |command: Command| sim.fault(O, command).unwrap();
    let numbers = async |c: &mut Client| {
        let data = c.until(|v| v["action"] == "update").await["data"][0].clone();
        (data["prevSeqId"].as_i64().unwrap(), data["seqId"].as_i64().unwrap())
    };
    let time = "/api/v5/public/time";
    match kind {
        "drop_depth" | "repeat_depth" | "swap_depth" | "keep_alive" | "reset_sequence" => {
            let mut c = listener(sim, "public", &["books"]).await;
            let mut rows = vec![numbers(&mut c).await];
            strike(Command::new(kind));
            for _ in 0..6 {
                rows.push(numbers(&mut c).await);
            }
            let broken = rows.windows(2).filter(|w| w[1].0 != w[0].1).count();
            match kind {
                "drop_depth" => assert_eq!(broken, 1, "{rows:?}"),
                "repeat_depth" => assert!(rows.windows(2).any(|w| w[0] == w[1]), "{rows:?}"),
                "swap_depth" => assert!(rows.windows(2).any(|w| w[1].1 < w[0].1), "{rows:?}"),
                "keep_alive" => assert!(broken == 0 && rows.iter().any(|r| r.0 == r.1), "{rows:?}"),
                _ => assert!(broken == 0 && rows.iter().any(|r| r.1 < r.0), "{rows:?}"),
            }
        }
        "wrong_checksum" => {
            let mut c = open(sim, "public").await;
            c.say(json!({ "op": "subscribe", "args": args(&["books"]) })).await;
            let mut book = Kept::default();
            book.apply(&c.until(|v| v["action"] == "snapshot").await);
            strike(Command::new(kind));
            loop {
                let message = c.next().await;
                book.apply(&message);
                if message["data"][0]["checksum"].as_i64() != Some(book.checksum()) {
                    break;
                }
            }
        }
        "bad_json" | "unknown_enum" => {
            let mut c = listener(sim, "business", &["trades-all"]).await;
            strike(Command::new(kind).symbol(SPOT));
            loop {
                let text = c.text().await.unwrap();
                let broken = serde_json::from_str::<Value>(&text).is_err();
                if broken && kind == "bad_json" || text.contains("sideways") {
                    break;
                }
            }
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            let mut c = open(sim, "public").await;
            c.say(json!({ "op": "subscribe", "args": args(&["books"]) })).await;
            assert!(c.next().await["event"].is_null(), "data comes before the acknowledgement");
            c.until(|v| v["event"] == "subscribe").await;
        }
        "no_pong" => {
            let mut c = open(sim, "public").await;
            strike(Command::new(kind));
            c.ws.send(Message::text("ping")).await.unwrap();
            c.ws.send(Message::text("ping")).await.unwrap();
            c.say(json!({ "op": "dance" })).await;
            let heard = [c.text().await.unwrap(), c.text().await.unwrap()];
            assert!(heard[0] == "pong" && heard[1].contains("60012"), "{heard:?}");
        }
        "upgrade_notice" => {
            let mut c = open(sim, "public").await;
            c.say(json!({ "op": "subscribe", "args": [{ "channel": "status" }] })).await;
            c.until(|v| v["event"] == "subscribe").await;
            strike(Command::new(kind).ms(100));
            assert_eq!(c.until(|v| v["event"] == "notice").await["code"], "64008");
            assert_eq!(c.until(|v| v["arg"]["channel"] == "status").await["data"][0]["state"], "ongoing");
            assert!(matches!(c.end().await, End::Closed(1001, _)));
        }
        "status" => {
            let mut c = open(sim, "public").await;
            c.say(json!({ "op": "subscribe", "args": [{ "channel": "status" }] })).await;
            c.until(|v| v["event"] == "subscribe").await;
            strike(Command::new(kind).ms(100));
            for state in ["ongoing", "completed"] {
                assert_eq!(c.until(|v| v["arg"]["channel"] == "status").await["data"][0]["state"], state);
            }
        }
        "turn_away" => {
            strike(Command::new(kind));
            assert!(connect_async(format!("ws://{addr}/ws/v5/public")).await.is_err());
            open(sim, "public").await;
        }
        "delay" => {
            let mut c = listener(sim, "business", &["trades-all"]).await;
            c.until(|v| v["data"].is_array()).await;
            strike(Command::new(kind).ms(300));
            let from = c.heard.len();
            for _ in 0..10 {
                c.next().await;
            }
            let id = |t: &String| -> u64 {
                let v: Value = serde_json::from_str(t).unwrap();
                v["data"][0]["tradeId"].as_str().unwrap().parse().unwrap()
            };
            assert!(c.heard[from..].windows(2).all(|w| id(&w[0]) < id(&w[1])));
        }
        "pause" | "resume" => {
            strike(Command::new("pause"));
            let before = get(addr, "/sim/state").await["time_ns"].clone();
            assert_eq!(get(addr, "/sim/state").await["time_ns"], before);
            strike(Command::new("resume"));
            eventually("time goes on", async || get(addr, "/sim/state").await["time_ns"] != before).await;
        }
        "silence" => {
            let mut c = listener(sim, "business", &["trades-all"]).await;
            strike(Command::new(kind));
            let quiet = async { while tokio::time::timeout(Duration::from_millis(400), c.ws.next()).await.is_ok() {} };
            tokio::time::timeout(WAIT, quiet).await.expect("silence within the bound");
            assert_eq!(get(addr, "/sim/state").await["clients"], 1);
        }
        "cut" | "close" => {
            let mut c = listener(sim, "business", &["trades-all"]).await;
            strike(Command::new(kind));
            let end = c.end().await;
            assert!(if kind == "cut" { end == End::Cut } else { matches!(end, End::Closed(1001, _)) });
        }
        "rest_429" => {
            strike(Command::new(kind));
            let (status, _, body) = http(addr, "GET", time, "").await;
            assert_eq!((status, &body["code"]), (429, &json!("50011")));
        }
        "rest_503" => {
            strike(Command::new(kind));
            assert_eq!(http(addr, "GET", time, "").await.0, 503);
        }
        "rest_delay" => {
            strike(Command::new(kind).ms(250));
            let since = std::time::Instant::now();
            get(addr, time).await;
            assert!(since.elapsed() >= Duration::from_millis(250));
        }
        "rest_lost" => {
            strike(Command::new(kind));
            let lost = client().get(format!("http://{addr}{time}")).timeout(Duration::from_millis(300)).send().await;
            assert!(lost.unwrap_err().is_timeout());
        }
        other => panic!("fault `{other}` has no case in this test"),
    }
}

#[tokio::test]
async fn every_fault_shows_itself_once() {
    for fault in FAULTS.iter().filter(|f| f.venues.has(O)) {
        let mut summed = options(O);
        summed.config.okx.checksums = true;
        let sim = Simulator::start(summed).await.unwrap();
        see(&sim, fault.name).await;
        assert!(sim.faults(O)["struck"][fault.name].as_u64() >= Some(1), "{}", fault.name);
        sim.stop().await.unwrap();
    }
}
