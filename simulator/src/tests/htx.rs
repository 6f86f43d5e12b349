//! The stand-in for HTX from outside: packed frames, pings, books by their numbers, notifications, REST, and its faults.

use std::io::Read;

use super::*;
use crate::Command;
use crate::faults::FAULTS;

const S: VenueId = VenueId::HtxSpot;
const L: VenueId = VenueId::HtxLinear;

/// A client that unpacks what it hears.
struct Packed(Client);

impl Packed {
    async fn open(addr: SocketAddr, path: &str) -> Self {
        Self(Client::open(addr, path).await)
    }

    /// The next frame: its text, or why it is none.
    async fn frame(&mut self) -> Result<Result<String, String>, End> {
        loop {
            match self.0.step().await? {
                Message::Binary(bytes) => {
                    let mut text = String::new();
                    let read = flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text);
                    return Ok(read.map(|_| text).map_err(|e| e.to_string()));
                }
                Message::Text(text) => panic!("a frame that is not packed: {text}"),
                _ => {}
            }
        }
    }

    /// The next message; pings are answered.
    async fn next(&mut self) -> Value {
        loop {
            let text = self.frame().await.expect("the connection lives").expect("a whole frame");
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:.200}"));
            match (&value["ping"], value["op"] == "ping") {
                (Value::Null, false) => return value,
                (Value::Null, true) => self.0.say(json!({ "op": "pong", "ts": value["ts"] })).await,
                (number, _) => self.0.say(json!({ "pong": number })).await,
            }
        }
    }

    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..100_000 {
            let value = self.next().await;
            if fits(&value) {
                return value;
            }
        }
        panic!("no message fitted");
    }

    async fn sub(&mut self, channel: &str) {
        self.0.say(json!({ "sub": channel, "id": "1" })).await;
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn answers_are_packed_and_an_unknown_topic_is_refused_in_the_venues_words() {
    let sim = start(S).await;
    let mut c = Packed::open(sim.addr(S), "/ws").await;
    c.sub("market.btcusdt.bbo").await;
    let ack = c.until(|v| !v["subbed"].is_null()).await;
    assert_eq!((&ack["id"], &ack["status"], &ack["subbed"]), (&json!("1"), &json!("ok"), &json!("market.btcusdt.bbo")));
    if let Some(recorded) = fixture("htx", "ws_spot_sub_ack.jsonl", 0) {
        assert_eq!(members(&ack), members(&recorded));
    }
    // The book by changes is on another socket.
    for topic in ["market.nope.bbo", "market.btcusdt.mbp.20"] {
        c.0.say(json!({ "sub": topic, "id": 2 })).await;
        let refused = c.until(|v| v["status"] == "error").await;
        assert_eq!((&refused["err-code"], &refused["id"]), (&json!("bad-request"), &json!(2)));
        assert!(refused["err-msg"].as_str().unwrap().contains(topic));
    }
    c.0.say(json!({ "unsub": "market.btcusdt.bbo", "id": "3" })).await;
    c.until(|v| v["unsubbed"] == "market.btcusdt.bbo").await;
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn data_has_the_members_of_the_recorded_messages() {
    for (venue, path, symbol, rows) in [
        (
            S,
            "/ws",
            "btcusdt",
            [
                ("bbo", "ws_spot_bbo.jsonl", 0),
                ("trade.detail", "ws_spot_trade_detail.jsonl", 0),
                ("kline.1min", "ws_spot_kline.jsonl", 0),
                ("depth.step1", "ws_spot_depth_step.jsonl", 0),
            ],
        ),
        (
            L,
            "/linear-swap-ws",
            "BTC-USDT",
            [
                ("bbo", "ws_swap_bbo.jsonl", 1),
                ("trade.detail", "ws_swap_trade_detail.jsonl", 0),
                ("kline.1min", "ws_swap_kline.jsonl", 1),
                ("depth.size_150.high_freq", "ws_swap_depth_high_freq.jsonl", 4),
            ],
        ),
    ] {
        let sim = start(venue).await;
        let mut c = Packed::open(sim.addr(venue), path).await;
        for (what, file, line) in rows {
            let Some(recorded) = fixture("htx", file, line) else { return };
            let channel = format!("market.{symbol}.{what}");
            c.sub(&channel).await;
            let said = c.until(|v| v["ch"] == channel && v["tick"]["event"] != "snapshot").await;
            assert_eq!(members(&said), members(&recorded), "{channel}");
            assert_eq!(members(&said["tick"]), members(&recorded["tick"]), "{channel}");
            assert_eq!(members(&said["tick"]["data"][0]), members(&recorded["tick"]["data"][0]), "{channel}");
        }
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn ids_have_more_digits_than_a_word_holds_and_derivatives_count_both_sides() {
    let sim = start(S).await;
    let mut c = Packed::open(sim.addr(S), "/ws").await;
    c.sub("market.btcusdt.trade.detail").await;
    loop {
        let text = c.frame().await.unwrap().unwrap();
        let Some((_, rest)) = text.split_once(r#""data":[{"id":"#) else { continue };
        assert_eq!(rest.bytes().take_while(u8::is_ascii_digit).count(), 27, "{text}");
        break;
    }
    sim.stop().await.unwrap();
    let sim = start(L).await;
    let mut c = Packed::open(sim.addr(L), "/linear-swap-ws").await;
    c.sub("market.BTC-USDT.trade.detail").await;
    for _ in 0..5 {
        let v = c.until(|v| v["tick"]["data"].is_array()).await;
        let rows = v["tick"]["data"].as_array().unwrap();
        for row in rows {
            assert!(number(&row["amount"]).is_multiple_of(2) && number(&row["id"]).is_multiple_of(10_000), "{row}");
        }
        // Newest first.
        assert!(rows.windows(2).all(|w| number(&w[0]["id"]) > number(&w[1]["id"])), "{v}");
    }
    sim.stop().await.unwrap();
}

/// Prices and sizes of one side, as text.
type Book = std::collections::BTreeMap<String, String>;

fn fold(book: &mut Book, rows: &Value) {
    for row in rows.as_array().into_iter().flatten() {
        let (price, size) = (row[0].to_string(), row[1].to_string());
        if row[1].as_f64() == Some(0.0) {
            book.remove(&price);
        } else {
            book.insert(price, size);
        }
    }
}

#[tokio::test]
async fn the_book_that_is_asked_for_meets_the_changes_and_leads_to_the_book_that_is_asked_for_later() {
    let sim = start(S).await;
    let mut c = Packed::open(sim.addr(S), "/feed").await;
    let channel = "market.btcusdt.mbp.20";
    c.sub(channel).await;
    let first = c.until(|v| v["ch"] == channel).await;
    assert!(first["tick"]["seqNum"].is_u64());
    c.0.say(json!({ "req": channel, "id": "7" })).await;
    let (mut bids, mut asks, mut last) = (Book::new(), Book::new(), None);
    let mut changes = 0;
    // The second answer is compared with what the changes made of the first.
    for answers in 0.. {
        let v = loop {
            let v = c.next().await;
            if v["ch"] == channel && last.is_some() {
                let tick = &v["tick"];
                assert_eq!(Some(number(&tick["prevSeqNum"])), last, "{v}");
                last = Some(number(&tick["seqNum"]));
                fold(&mut bids, &tick["bids"]);
                fold(&mut asks, &tick["asks"]);
                changes += 1;
                if changes == 20 {
                    c.0.say(json!({ "req": channel, "id": "8" })).await;
                }
            }
            if v["rep"] == channel {
                break v;
            }
        };
        let (mut whole_bids, mut whole_asks) = (Book::new(), Book::new());
        fold(&mut whole_bids, &v["data"]["bids"]);
        fold(&mut whole_asks, &v["data"]["asks"]);
        if answers == 1 {
            assert_eq!((Some(number(&v["data"]["seqNum"])), &bids, &asks), (last, &whole_bids, &whole_asks));
            break;
        }
        (bids, asks, last) = (whole_bids, whole_asks, Some(number(&v["data"]["seqNum"])));
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn versions_of_a_swaps_book_rise_by_one_also_for_who_comes_later_and_who_comes_back() {
    let sim = start(L).await;
    let channel = "market.BTC-USDT.depth.size_20.high_freq";
    let mut c = Packed::open(sim.addr(L), "/linear-swap-ws").await;
    c.sub(channel).await;
    let snapshot = c.until(|v| v["tick"]["event"] == "snapshot").await;
    let mut last = number(&snapshot["tick"]["version"]);
    let mut later = Packed::open(sim.addr(L), "/linear-swap-ws").await;
    later.sub(channel).await;
    let begin = number(&later.until(|v| v["tick"]["event"] == "snapshot").await["tick"]["version"]);
    assert_eq!(number(&later.until(|v| v["tick"]["event"] == "update").await["tick"]["version"]), begin + 1);
    for _ in 0..10 {
        let version = number(&c.until(|v| v["tick"]["event"] == "update").await["tick"]["version"]);
        assert_eq!(version, last + 1);
        last = version;
    }
    c.0.say(json!({ "unsub": channel, "id": "9" })).await;
    c.until(|v| v["unsubbed"] == channel).await;
    c.sub(channel).await;
    assert!(number(&c.until(|v| v["tick"]["event"] == "snapshot").await["tick"]["version"]) >= last);
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn pings_have_growing_numbers_and_two_that_stay_unanswered_end_the_connection() {
    let mut o = options(L);
    o.config.htx.ping_period_ms = 100;
    let sim = Simulator::start(o).await.unwrap();
    for (path, notification) in [("/linear-swap-ws", false), ("/linear-swap-notification", true)] {
        let mut c = Packed::open(sim.addr(L), path).await;
        let mut pings = Vec::new();
        let end = loop {
            match c.frame().await {
                Ok(text) => {
                    let v: Value = serde_json::from_str(&text.unwrap()).unwrap();
                    pings.push(match notification {
                        true => v["ts"].as_str().unwrap().parse::<u64>().unwrap(),
                        false => number(&v["ping"]),
                    });
                    // The first ones are answered.
                    if pings.len() <= 3 && !notification {
                        c.0.say(json!({ "pong": pings.last() })).await;
                    }
                    if pings.len() <= 3 && notification {
                        c.0.say(json!({ "op": "pong", "ts": v["ts"] })).await;
                    }
                }
                Err(end) => break end,
            }
        };
        assert_eq!(end, End::Closed(1000, "ping timeout".into()));
        assert!(pings.len() == 5 && pings.windows(2).all(|w| w[0] < w[1]), "{pings:?}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn notifications_speak_in_ops_and_index_prices_have_a_socket_of_their_own() {
    let sim = start(L).await;
    let mut c = Packed::open(sim.addr(L), "/linear-swap-notification").await;
    let topic = "public.BTC-USDT.funding_rate";
    c.0.say(json!({ "op": "sub", "cid": "1", "topic": topic })).await;
    let ack = c.until(|v| v["op"] == "sub").await;
    let funding = c.until(|v| v["op"] == "notify").await;
    c.0.say(json!({ "op": "sub", "cid": "2", "topic": "public.NOPE.funding_rate" })).await;
    let refused = c.until(|v| v["cid"] == "2").await;
    assert_ne!(refused["err-code"], json!(0));
    if let (Some(recorded_ack), Some(recorded)) =
        (fixture("htx", "ws_swap_sub_ack.jsonl", 0), fixture("htx", "ws_swap_funding_rate.jsonl", 0))
    {
        assert_eq!(members(&ack), members(&recorded_ack));
        assert_eq!(members(&funding), members(&recorded));
        assert_eq!(members(&funding["data"][0]), members(&recorded["data"][0]));
    }
    let mut c = Packed::open(sim.addr(L), "/ws_index").await;
    for what in ["index.1min", "mark_price.1min"] {
        c.sub(&format!("market.BTC-USDT.{what}")).await;
        let v = c.until(|v| !v["tick"]["close"].is_null()).await;
        assert!(v["tick"]["close"].is_string(), "{v}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn rest_serves_terms_books_trades_and_candles_with_the_members_that_were_recorded() {
    let sim = start(S).await;
    let addr = sim.addr(S);
    let list = get(addr, "/v1/common/symbols").await;
    assert_eq!(list["data"][0]["symbol"], "btcusdt");
    let trades = get(addr, "/market/history/trade?symbol=btcusdt&size=5").await;
    assert!(trades["data"][0]["data"][0]["trade-id"].is_u64(), "{trades}");
    let candles = get(addr, "/market/history/kline?symbol=btcusdt&period=1min&size=10").await;
    let rows = candles["data"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.windows(2).all(|w| number(&w[0]["id"]) == number(&w[1]["id"]) + 60));
    assert_eq!(get(addr, "/market/history/kline?symbol=btcusdt&period=3min").await["err-code"], "invalid-parameter");
    sim.stop().await.unwrap();
    let sim = start(L).await;
    let addr = sim.addr(L);
    let list = get(addr, "/linear-swap-api/v1/swap_contract_info").await;
    assert_eq!(
        (&list["data"][0]["contract_code"], &list["data"][0]["contract_status"]),
        (&json!("BTC-USDT"), &json!(1))
    );
    let depth = get(addr, "/linear-swap-ex/market/depth?contract_code=BTC-USDT&type=step0").await;
    assert!(depth["tick"]["bids"][0][0].as_f64() < depth["tick"]["asks"][0][0].as_f64());
    assert_eq!(get(addr, "/linear-swap-ex/market/history/trade?contract_code=NOPE").await["err_code"], 1030);
    if let Some(recorded) = schemas::fixtures::root()
        .map(|r| std::fs::read_to_string(r.join("fixtures/venues/htx/rest_linear_swap_contract_info.json")).unwrap())
    {
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        assert_eq!(members(&list["data"][0]), members(&recorded["data"][0]));
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn open_interest_is_told_by_rest_of_one_swap_or_of_all() {
    for (venue, path, code, line) in
        [(L, "/linear-swap-api/v1", "BTC-USDT", 1), (VenueId::HtxInverse, "/swap-api/v1", "BTC-USD", 0)]
    {
        let sim = start(venue).await;
        let addr = sim.addr(venue);
        let (one, all) =
            (format!("{path}/swap_open_interest?contract_code={code}"), format!("{path}/swap_open_interest"));
        let (one, all) = (get(addr, &one).await, get(addr, &all).await);
        assert_eq!((one["data"].as_array().unwrap().len(), &one["data"][0]["contract_code"]), (1, &json!(code)));
        assert!(all["data"].as_array().unwrap().len() > 1);
        assert!(one["data"][0]["volume"].as_f64() > Some(0.0));
        if let Some(known) = fixture("htx", "rest_swap_open_interest.jsonl", line) {
            assert_eq!((members(&one), members(&one["data"][0])), (members(&known), members(&known["data"][0])));
        }
        assert_eq!(get(addr, &format!("{path}/swap_open_interest?contract_code=NOPE")).await["err_code"], 1030);
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn more_messages_topics_or_requests_than_allowed_are_refused() {
    let mut o = options(S);
    (o.config.htx.messages_per_second_max, o.config.htx.topics_per_connection_max) = (20, 2);
    (o.config.htx.requests_per_window_max, o.config.htx.requests_window_ms) = (3, 60_000);
    let sim = Simulator::start(o).await.unwrap();
    let mut c = Packed::open(sim.addr(S), "/ws").await;
    for what in ["bbo", "detail", "trade.detail"] {
        c.sub(&format!("market.btcusdt.{what}")).await;
    }
    c.until(|v| v["err-msg"] == "too many topics").await;
    for _ in 0..40 {
        c.sub("market.btcusdt.bbo").await;
    }
    c.until(|v| v["err-code"] == "429").await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(http(sim.addr(S), "GET", "/v1/common/symbols", "").await.0);
    }
    // A window may have ended in between.
    assert!(statuses == [200, 200, 200, 429] || statuses == [200; 4], "{statuses:?}");
    sim.stop().await.unwrap();
}

/// Where each fault is watched, and what it looks like from outside. A kind without a case here fails the test.
async fn see(sim: &Handle, venue: VenueId, kind: &str) {
    let addr = sim.addr(venue);
    let strike = |command: Command| sim.fault(venue, command).unwrap();
    let (symbol, market, changes) = match venue {
        S => ("btcusdt", "/ws", ("/feed", "mbp.20")),
        _ => ("BTC-USDT", "/linear-swap-ws", ("/linear-swap-ws", "depth.size_20.high_freq")),
    };
    if kind == "turn_away" {
        return super::faults::turned_away(sim, venue, market).await;
    }
    let rest = if venue == S { "/v1/common/symbols" } else { "/linear-swap-api/v1/swap_contract_info" };
    let trades = async || {
        let mut c = Packed::open(addr, market).await;
        c.sub(&format!("market.{symbol}.trade.detail")).await;
        c.until(|v| !v["subbed"].is_null()).await;
        c
    };
    match kind {
        "drop_depth" | "repeat_depth" | "swap_depth" | "break_chain" | "snapshot_again" => {
            let mut c = Packed::open(addr, changes.0).await;
            c.sub(&format!("market.{symbol}.{}", changes.1)).await;
            let tick = async |c: &mut Packed| {
                let v = c
                    .until(|v| !v["tick"].is_null() && (kind == "snapshot_again" || v["tick"]["event"] != "snapshot"))
                    .await;
                let t = &v["tick"];
                let last = t["seqNum"].as_u64().or(t["version"].as_u64()).unwrap();
                (t["prevSeqNum"].as_u64().unwrap_or(last - 1), last, t["event"] == "snapshot")
            };
            let mut rows = vec![tick(&mut c).await];
            strike(Command::new(kind).symbol(symbol));
            for _ in 0..6 {
                rows.push(tick(&mut c).await);
            }
            let broken = rows.windows(2).filter(|w| w[1].0 != w[0].1).count();
            match kind {
                "drop_depth" | "break_chain" => assert_eq!(broken, 1, "{rows:?}"),
                "repeat_depth" => assert!(rows.windows(2).any(|w| w[0].1 == w[1].1), "{rows:?}"),
                "snapshot_again" => assert!(rows.iter().skip(2).any(|row| row.2), "{rows:?}"),
                _ => assert!(rows.windows(2).any(|w| w[1].1 < w[0].1), "{rows:?}"),
            }
        }
        "bad_gzip" | "bad_json" | "big_gzip" | "unknown_enum" | "empty_direction" => {
            let mut c = trades().await;
            strike(Command::new(kind).symbol(symbol));
            loop {
                let frame = c.frame().await.unwrap();
                let hit = match (kind, &frame) {
                    ("bad_gzip", frame) => frame.is_err(),
                    ("bad_json", Ok(text)) => serde_json::from_str::<Value>(text).is_err(),
                    ("big_gzip", Ok(text)) => text.len() > 32 * 1024 * 1024,
                    ("unknown_enum", Ok(text)) => text.contains("sideways"),
                    (_, Ok(text)) => text.contains(r#""direction":"""#),
                    (_, Err(why)) => panic!("{why}"),
                };
                if hit {
                    break;
                }
            }
        }
        "status" => {
            let mut c = Packed::open(addr, "/center-notification").await;
            c.0.say(json!({ "op": "sub", "cid": "1", "topic": "public.linear-swap.heartbeat" })).await;
            assert_eq!(c.next().await["err-code"], 0);
            let told = c.next().await;
            assert_eq!((&told["event"], &told["data"]["heartbeat"]), (&json!("init"), &json!(1)));
            strike(Command::new(kind).ms(100));
            let down = c.next().await;
            assert_eq!(down["data"]["heartbeat"], 0);
            assert!(down["data"]["estimated_recovery_time"].as_i64() > down["ts"].as_i64(), "{down}");
            if let Some(known) = fixture("htx", "ws_swap_heartbeat_status.jsonl", 0) {
                assert_eq!((members(&down), members(&down["data"])), (members(&known), members(&known["data"])));
            }
            assert_eq!(c.next().await["data"]["heartbeat"], 1);
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            let mut c = Packed::open(addr, market).await;
            c.sub(&format!("market.{symbol}.trade.detail")).await;
            assert!(!c.next().await["tick"].is_null(), "data comes before the acknowledgement");
            c.until(|v| !v["subbed"].is_null()).await;
        }
        "delay" => {
            let mut c = trades().await;
            let since = std::time::Instant::now();
            strike(Command::new(kind).ms(300));
            while since.elapsed() < Duration::from_millis(300) {
                c.next().await;
            }
        }
        "pause" | "resume" => {
            let mut c = trades().await;
            strike(Command::new("pause"));
            assert_eq!(get(addr, "/sim/state").await["paused"], true);
            strike(Command::new("resume"));
            c.until(|v| !v["tick"].is_null()).await;
        }
        "silence" => {
            let mut c = trades().await;
            strike(Command::new(kind));
            // What was under way still arrives; then nothing.
            while tokio::time::timeout(Duration::from_millis(1500), c.frame()).await.is_ok() {}
        }
        "cut" | "close" | "outage" => {
            let mut c = trades().await;
            strike(Command::new(kind).ms(60_000));
            let end = loop {
                if let Err(end) = c.frame().await {
                    break end;
                }
            };
            assert_eq!(matches!(end, End::Cut), kind == "cut", "{end:?}");
            let again = connect_async(format!("ws://{addr}{market}")).await;
            assert_eq!(again.is_err(), kind == "outage");
        }
        "deaf" => {
            let mut c = trades().await;
            strike(Command::new(kind));
            let end = loop {
                match c.frame().await {
                    Ok(text) => {
                        let v: Value = serde_json::from_str(&text.unwrap()).unwrap();
                        if !v["ping"].is_null() {
                            c.0.say(json!({ "pong": v["ping"] })).await;
                        }
                    }
                    Err(end) => break end,
                }
            };
            assert_eq!(end, End::Closed(1000, "ping timeout".into()));
        }
        "rest_429" | "rest_503" => {
            strike(Command::new(kind));
            let status = http(addr, "GET", rest, "").await.0;
            assert_eq!(status.to_string(), kind.trim_start_matches("rest_"));
        }
        "rest_delay" => {
            strike(Command::new(kind).ms(300));
            let since = std::time::Instant::now();
            get(addr, rest).await;
            assert!(since.elapsed() >= Duration::from_millis(300));
        }
        "rest_lost" => {
            strike(Command::new(kind));
            let call = client().get(format!("http://{addr}{rest}")).timeout(Duration::from_millis(500)).send();
            assert!(call.await.unwrap_err().is_timeout());
        }
        other => panic!("fault `{other}` has no case in this test"),
    }
}

async fn walk(venue: VenueId) {
    for fault in FAULTS.iter().filter(|f| f.venues.has(venue)) {
        let mut o = options(venue);
        o.config.htx.ping_period_ms = 200;
        let sim = Simulator::start(o).await.unwrap();
        see(&sim, venue, fault.name).await;
        let struck = sim.faults(venue)["struck"][fault.name].as_u64();
        assert!(struck >= Some(1), "{} at {}", fault.name, venue.name());
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn every_fault_of_spot_shows_itself_once() {
    walk(S).await;
}

#[tokio::test]
async fn every_fault_of_linear_swaps_shows_itself_once() {
    walk(L).await;
}
