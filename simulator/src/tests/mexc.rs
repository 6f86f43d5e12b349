use std::collections::BTreeMap;

use super::*;
use crate::Command;
use crate::faults::FAULTS;

/// The fields of a protobuf message, read without a schema: numbers stay numbers, the rest are bytes.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Int(u64),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// `None`: it ends inside a field.
fn walk(mut bytes: &[u8]) -> Option<Vec<(u64, Field)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                fields.push((tag >> 3, Field::Int(varint(&mut bytes)?)));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut bytes)? as usize,
            _ => return None,
        };
        fields.push((tag >> 3, Field::Bytes(bytes.get(..length)?.to_vec())));
        bytes = &bytes[length..];
    }
    Some(fields)
}

fn numbers(fields: &[(u64, Field)]) -> BTreeSet<u64> {
    fields.iter().map(|(number, _)| *number).collect()
}

fn bytes(fields: &[(u64, Field)], number: u64) -> Option<&[u8]> {
    fields.iter().find_map(|(n, field)| match field {
        Field::Bytes(bytes) if *n == number => Some(&bytes[..]),
        _ => None,
    })
}

/// Field numbers of a frame, of its body, and of the first message in the body's first field.
fn shape(frame: &[u8]) -> (BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>) {
    let outer = walk(frame).expect("a whole frame");
    let body = outer.iter().find(|(n, _)| *n >= 300).map(|(n, _)| *n).expect("a body");
    let body = walk(bytes(&outer, body).expect("bytes")).expect("a whole body");
    let inner = bytes(&body, 1).and_then(walk).map(|fields| numbers(&fields)).unwrap_or_default();
    (numbers(&outer), numbers(&body), inner)
}

/// A frame of either market.
#[derive(Clone, Debug)]
enum Heard {
    Text(String),
    Frame(Vec<u8>),
}

impl Heard {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Self::Frame(_) => Value::Null,
        }
    }
}

async fn hear(c: &mut Client) -> Heard {
    loop {
        match c.step().await.expect("the connection lives") {
            Message::Text(text) => return Heard::Text(text.to_string()),
            Message::Binary(bytes) => return Heard::Frame(bytes.to_vec()),
            _ => {}
        }
    }
}

async fn hear_until<T>(c: &mut Client, fits: impl Fn(&Heard) -> Option<T>) -> T {
    for _ in 0..100_000 {
        if let Some(found) = fits(&hear(c).await) {
            return found;
        }
    }
    panic!("no frame fitted");
}

fn spot(venue: VenueId) -> bool {
    venue == VenueId::MexcSpot
}

async fn open(sim: &Handle, venue: VenueId) -> Client {
    Client::open(sim.addr(venue), if spot(venue) { "/ws" } else { "/edge" }).await
}

const DEALS: &str = "spot@public.aggre.deals.v3.api.pb@10ms@BTCUSDT";
const DEPTH: &str = "spot@public.aggre.depth.v3.api.pb@10ms@BTCUSDT";

async fn ask(c: &mut Client, venue: VenueId, channel: &str) {
    let request = match (spot(venue), channel) {
        (true, channel) => json!({ "method": "SUBSCRIPTION", "params": [channel] }),
        (false, DEALS) => json!({ "method": "sub.deal", "param": { "symbol": "BTC_USDT" } }),
        (false, DEPTH) => json!({ "method": "sub.depth", "param": { "symbol": "BTC_USDT" } }),
        (false, other) => panic!("{other}"),
    };
    c.say(request).await;
}

/// Waits for the answer; data may come before it.
async fn subscribed(sim: &Handle, venue: VenueId, channel: &str) -> Client {
    let mut c = open(sim, venue).await;
    ask(&mut c, venue, channel).await;
    hear_until(&mut c, |h| is_answer(&h.json()).then_some(())).await;
    c
}

fn is_answer(v: &Value) -> bool {
    v["msg"].is_string() || v["channel"].as_str().is_some_and(|c| c.starts_with("rs."))
}

/// First and last version of a change of the book.
fn versions(h: &Heard) -> Option<(u64, u64)> {
    match h {
        Heard::Frame(frame) => {
            let outer = walk(frame)?;
            let body = walk(bytes(&outer, 313)?)?;
            let number = |n| std::str::from_utf8(bytes(&body, n)?).ok()?.parse().ok();
            Some((number(4)?, number(5)?))
        }
        Heard::Text(_) => {
            let v = h.json();
            let last = v["data"]["version"].as_u64().filter(|_| v["channel"] == "push.depth")?;
            Some((v["data"]["begin"].as_u64().unwrap_or(last), last))
        }
    }
}

/// The trades of a frame, each by its fields (spot) or members (contract).
fn deals(h: &Heard) -> Option<Vec<Value>> {
    match h {
        Heard::Frame(frame) => {
            let outer = walk(frame)?;
            let body = walk(bytes(&outer, 314)?)?;
            let deal = |fields: Vec<(u64, Field)>| {
                let text = |n| bytes(&fields, n).map(|b| String::from_utf8_lossy(b).into_owned());
                let kind = fields.iter().find_map(|(n, f)| match f {
                    Field::Int(kind) if *n == 3 => Some(*kind),
                    _ => None,
                });
                json!({ "p": text(1), "v": text(2), "T": kind, "i": text(5) })
            };
            let list = body.iter().filter(|(n, _)| *n == 1).filter_map(|(_, f)| match f {
                Field::Bytes(bytes) => walk(bytes).map(deal),
                Field::Int(_) => None,
            });
            Some(list.collect())
        }
        Heard::Text(_) => {
            let v = h.json();
            (v["channel"] == "push.deal").then(|| match &v["data"] {
                Value::Array(list) => list.clone(),
                one => vec![one.clone()],
            })
        }
    }
}

async fn see(sim: &Handle, venue: VenueId, kind: &str) {
    let addr = sim.addr(venue);
    let strike = |command: Command| sim.fault(venue, command).unwrap();
    let (symbol, ping, book) = match spot(venue) {
        true => ("BTCUSDT", "/api/v3/ping", "/api/v3/depth?symbol=BTCUSDT&limit=5"),
        false => ("BTC_USDT", "/api/v1/contract/ping", "/api/v1/contract/depth/BTC_USDT?limit=5"),
    };
    if kind == "turn_away" {
        return super::faults::turned_away(sim, venue, if spot(venue) { "/ws" } else { "/edge" }).await;
    }
    let version = |body: &Value| body["lastUpdateId"].as_u64().or(body["data"]["version"].as_u64()).expect("a version");
    match kind {
        "drop_depth" | "repeat_depth" | "swap_depth" | "stale_depth" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            let mut rows = vec![hear_until(&mut c, versions).await];
            strike(Command::new(kind).symbol(symbol));
            for _ in 0..6 {
                rows.push(hear_until(&mut c, versions).await);
            }
            let broken = rows.windows(2).filter(|w| w[1].0 != w[0].1 + 1).count();
            match kind {
                "drop_depth" => assert_eq!(broken, 1, "{rows:?}"),
                "repeat_depth" => assert!(rows.windows(2).any(|w| w[0] == w[1]), "{rows:?}"),
                _ => assert!(rows.windows(2).any(|w| w[1].1 < w[0].1), "{rows:?}"),
            }
        }
        "bad_json" => {
            let mut c = subscribed(sim, venue, DEALS).await;
            strike(Command::new(kind).symbol(symbol));
            let cut = |h: &Heard| match h {
                Heard::Frame(frame) => walk(frame).is_none().then_some(()),
                Heard::Text(text) => serde_json::from_str::<Value>(text).is_err().then_some(()),
            };
            hear_until(&mut c, cut).await;
        }
        "unknown_enum" | "old_deals" => {
            let mut c = subscribed(sim, venue, DEALS).await;
            strike(Command::new(kind).symbol(symbol));
            let odd = |d: &Value| if kind == "old_deals" { d["i"].is_null() } else { d["T"] == 9 };
            hear_until(&mut c, |h| deals(h).filter(|list| list.iter().any(odd)).map(|_| ())).await;
        }
        "unknown_fields" | "empty_body" => {
            let mut c = subscribed(sim, venue, DEALS).await;
            strike(Command::new(kind).symbol(symbol));
            let odd = |h: &Heard| {
                let Heard::Frame(frame) = h else { return None };
                let fields = numbers(&walk(frame)?);
                let fits = if kind == "empty_body" { *fields.last()? < 300 } else { fields.contains(&903) };
                fits.then_some(())
            };
            hear_until(&mut c, odd).await;
        }
        "late_ack" => {
            strike(Command::new(kind).ms(400));
            let mut c = open(sim, venue).await;
            ask(&mut c, venue, DEPTH).await;
            assert!(versions(&hear(&mut c).await).is_some(), "data comes before the acknowledgement");
            hear_until(&mut c, |h| is_answer(&h.json()).then_some(())).await;
        }
        "refuse_channel" => {
            strike(Command::new(kind));
            let mut c = open(sim, venue).await;
            ask(&mut c, venue, DEALS).await;
            let answer = hear_until(&mut c, |h| Some(h.json()).filter(is_answer)).await;
            if spot(venue) {
                let words = format!("Not Subscribed successfully! [{DEALS}].  Reason： Blocked! ");
                assert_eq!((&answer["code"], &answer["msg"]), (&json!(0), &json!(words)));
            } else {
                assert_eq!(answer["channel"], "rs.error");
            }
        }
        "no_pong" => {
            let mut c = open(sim, venue).await;
            strike(Command::new(kind));
            let word = if spot(venue) { "PING" } else { "ping" };
            c.say(json!({ "method": word })).await;
            c.say(json!({ "method": word })).await;
            let is_pong = |v: &Value| v["msg"] == "PONG" || v["channel"] == "pong";
            hear_until(&mut c, |h| is_pong(&h.json()).then_some(())).await;
            let more = tokio::time::timeout(Duration::from_millis(200), c.ws.next()).await;
            assert!(more.is_err(), "one of two pings is answered");
        }
        "delay" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            let mut rows = vec![hear_until(&mut c, versions).await];
            strike(Command::new(kind).ms(300));
            for _ in 0..10 {
                rows.push(hear_until(&mut c, versions).await);
            }
            assert!(rows.windows(2).all(|w| w[1].0 == w[0].1 + 1), "held back, not lost and not disordered: {rows:?}");
        }
        "pause" | "resume" => {
            strike(Command::new("pause"));
            let before = get(addr, "/sim/state").await["time_ns"].clone();
            assert_eq!(before, get(addr, "/sim/state").await["time_ns"]);
            strike(Command::new("resume"));
            eventually("time goes on", async || get(addr, "/sim/state").await["time_ns"] != before).await;
        }
        "silence" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            strike(Command::new(kind));
            let quiet = async { while tokio::time::timeout(Duration::from_millis(400), c.ws.next()).await.is_ok() {} };
            tokio::time::timeout(WAIT, quiet).await.expect("silence within the bound");
            assert_eq!(get(addr, "/sim/state").await["clients"], 1);
        }
        "cut" | "end_of_life" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            strike(Command::new(kind));
            assert_eq!(c.end().await, End::Cut);
        }
        "close" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            strike(Command::new(kind));
            assert!(matches!(c.end().await, End::Closed(1001, _)));
        }
        "snapshot_older" => {
            strike(Command::new(kind));
            let mut c = subscribed(sim, venue, DEPTH).await;
            let first = hear_until(&mut c, versions).await;
            assert!(version(&get(addr, book).await) < first.0);
        }
        "snapshot_inside" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            let first = hear_until(&mut c, versions).await;
            strike(Command::new(kind).ms(500));
            let id = version(&get(addr, book).await);
            let mut last = first;
            while last.1 <= id {
                last = hear_until(&mut c, versions).await;
            }
            assert!(id >= first.0, "the snapshot falls into what was buffered");
        }
        "snapshot_newer" => {
            let mut c = subscribed(sim, venue, DEPTH).await;
            let first = hear_until(&mut c, versions).await;
            strike(Command::new(kind).ms(500));
            let id = version(&get(addr, book).await);
            let next = hear_until(&mut c, versions).await;
            assert!(id >= first.1 && next.0 == first.1 + 1, "held back, not lost");
        }
        "rest_429" => {
            strike(Command::new(kind));
            let (status, headers, body) = http(addr, "GET", ping, "").await;
            let code = if spot(venue) { 429 } else { 510 };
            assert_eq!((status, &body["code"]), (429, &json!(code)));
            assert_eq!(headers["retry-after"], "1");
            assert_eq!(http(addr, "GET", ping, "").await.0, 200);
        }
        "rest_503" => {
            strike(Command::new(kind));
            assert_eq!((http(addr, "GET", ping, "").await.0, http(addr, "GET", ping, "").await.0), (503, 200));
        }
        "rest_delay" => {
            strike(Command::new(kind).ms(250));
            let since = std::time::Instant::now();
            assert_eq!(http(addr, "GET", ping, "").await.0, 200);
            assert!(since.elapsed() >= Duration::from_millis(250));
        }
        "rest_lost" => {
            strike(Command::new(kind));
            let lost = client().get(format!("http://{addr}{ping}")).timeout(Duration::from_millis(300)).send().await;
            assert!(lost.unwrap_err().is_timeout());
        }
        other => panic!("fault `{other}` has no case in this test"),
    }
}

async fn walk_faults(venue: VenueId) {
    for fault in FAULTS.iter().filter(|f| f.venues.has(venue)) {
        let sim = start(venue).await;
        see(&sim, venue, fault.name).await;
        let struck = sim.faults(venue)["struck"][fault.name].as_u64();
        assert!(struck >= Some(1), "{} at {}", fault.name, venue.name());
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn every_fault_of_mexc_spot_shows_itself_once() {
    walk_faults(VenueId::MexcSpot).await;
}

#[tokio::test]
async fn every_fault_of_mexc_contract_shows_itself_once() {
    walk_faults(VenueId::MexcContract).await;
}

/// A line of a `.hex` file; `None` without the shared fixtures.
fn recorded(file: &str) -> Option<Vec<u8>> {
    let path = schemas::fixtures::root()?.join("fixtures/venues/mexc").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let line = text.lines().next().expect("line");
    Some((0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).expect("hex")).collect())
}

#[tokio::test]
async fn every_spot_channel_has_the_fields_that_the_venue_sends() {
    let venue = VenueId::MexcSpot;
    let sim = start(venue).await;
    for (channel, file) in [
        ("spot@public.aggre.bookTicker.v3.api.pb@100ms@BTCUSDT", "ws_spot_pb_aggre_bookTicker.hex"),
        ("spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT", "ws_spot_pb_aggre_deals.hex"),
        ("spot@public.kline.v3.api.pb@BTCUSDT@Min1", "ws_spot_pb_kline.hex"),
        ("spot@public.limit.depth.v3.api.pb@BTCUSDT@5", "ws_spot_pb_limit_depth.hex"),
        ("spot@public.miniTicker.v3.api.pb@ETHUSDT@UTC+8", "ws_spot_pb_miniTicker.hex"),
    ] {
        let mut c = subscribed(&sim, venue, channel).await;
        let frame = hear_until(&mut c, |h| match h {
            Heard::Frame(frame) => Some(frame.clone()),
            Heard::Text(_) => None,
        })
        .await;
        let outer = walk(&frame).unwrap();
        assert_eq!(bytes(&outer, 1), Some(channel.as_bytes()));
        let Some(known) = recorded(file) else { continue };
        let ((mut known_outer, mut known_body, known_inner), (outer, body, inner)) = (shape(&known), shape(&frame));
        if file.contains("deals") {
            // Its recorder left out the type.
            known_body.insert(2);
        }
        if file.contains("miniTicker") {
            // The same against other closes is of no use here.
            known_body.retain(|n| *n < 9);
        }
        known_outer.retain(|n| outer.contains(n) || *n != 2);
        assert_eq!((outer, body, inner), (known_outer, known_body, known_inner), "{channel}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn every_contract_channel_has_the_members_that_the_venue_sends() {
    let venue = VenueId::MexcContract;
    let sim = start(venue).await;
    let symbol = json!({ "symbol": "BTC_USDT" });
    let with = |key: &str, value: Value| json!({ "symbol": "BTC_USDT", key: value });
    for (method, param, file, line) in [
        ("deal", symbol.clone(), "ws_contract_deal.jsonl", 0),
        ("depth", symbol.clone(), "ws_contract_depth.jsonl", 3),
        ("depth.full", with("limit", json!(5)), "ws_contract_depth_full.jsonl", 1),
        ("kline", with("interval", json!("Min1")), "ws_contract_kline.jsonl", 1),
        ("ticker", symbol.clone(), "ws_contract_ticker.jsonl", 3),
        ("tickers", json!({}), "ws_contract_tickers.jsonl", 0),
        ("funding.rate", symbol.clone(), "ws_contract_funding_rate.jsonl", 0),
        ("index.price", symbol.clone(), "ws_contract_index_price.jsonl", 0),
        ("fair.price", symbol.clone(), "ws_contract_fair_price.jsonl", 0),
    ] {
        let mut c = open(&sim, venue).await;
        c.say(json!({ "method": format!("sub.{method}"), "param": param })).await;
        let answer = c.until(is_answer).await;
        assert_eq!((&answer["channel"], &answer["data"]), (&json!(format!("rs.sub.{method}")), &json!("success")));
        let push = c.until(|v| v["channel"] == format!("push.{method}").as_str()).await;
        let Some(known) = fixture("mexc", file, line) else { continue };
        let inside = |v: &Value| members(if v["data"].is_array() { &v["data"][0] } else { &v["data"] });
        let mut said = inside(&push);
        // Where a message sums up several versions it says which.
        said.retain(|m| !["begin", "end"].contains(&m.as_str()));
        assert_eq!((members(&push), said), (members(&known), inside(&known)), "{method}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn a_31st_channel_an_unknown_one_and_another_spelling_are_refused_with_code_0() {
    let venue = VenueId::MexcSpot;
    let mut options = options(venue);
    options.symbols = ["BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX"].map(|c| format!("{c}USDT")).to_vec();
    let sim = Simulator::start(options).await.unwrap();
    let mut c = open(&sim, venue).await;
    let channels: Vec<String> = ["BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX"]
        .iter()
        .flat_map(|coin| {
            [
                "kline.v3.api.pb@{}@Min1",
                "kline.v3.api.pb@{}@Min5",
                "kline.v3.api.pb@{}@Min15",
                "miniTicker.v3.api.pb@{}@UTC+8",
            ]
            .map(|c| format!("spot@public.{}", c.replace("{}", &format!("{coin}USDT"))))
        })
        .collect();
    for (n, channel) in channels[..31].iter().enumerate() {
        c.say(json!({ "method": "SUBSCRIPTION", "params": [channel] })).await;
        let answer = hear_until(&mut c, |h| Some(h.json()).filter(is_answer)).await;
        assert_eq!(answer["code"], 0);
        assert_eq!(answer["msg"] == channel.as_str(), n < 30, "{n} {answer}");
    }
    for bad in ["spot@public.deals.v3.api.pb@BTCUSDT", "spot@public.kline.v3.api.pb@btcusdt@Min1"] {
        c.say(json!({ "method": "SUBSCRIPTION", "params": [bad] })).await;
        let answer = hear_until(&mut c, |h| Some(h.json()).filter(is_answer)).await;
        assert!(answer["msg"].as_str().unwrap().starts_with("Not Subscribed successfully!"), "{answer}");
    }
    sim.stop().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_a_useless_one_and_a_flooding_one_are_closed() {
    for venue in [VenueId::MexcSpot, VenueId::MexcContract] {
        let mut options = options(venue);
        options.config.mexc.unsubscribed_ms_max = 300;
        options.config.mexc.idle_ms_max = 600;
        let sim = Simulator::start(options).await.unwrap();
        let mut c = open(&sim, venue).await;
        assert_eq!(c.end().await, End::Closed(1000, "no subscription".to_owned()));
        let mut c = subscribed(&sim, venue, DEPTH).await;
        sim.fault(venue, Command::new("pause")).unwrap();
        assert_eq!(c.end().await, End::Closed(1000, "no data".to_owned()));
        let mut c = open(&sim, venue).await;
        for _ in 0..150 {
            let ping = if spot(venue) { "PING" } else { "ping" };
            if c.ws.send(Message::text(json!({ "method": ping }).to_string())).await.is_err() {
                break;
            }
        }
        assert!(matches!(c.end().await, End::Closed(1008, _) | End::Cut));
        sim.stop().await.unwrap();
    }
}

#[tokio::test]
async fn rest_answers_read_like_the_recorded_ones_and_end_with_the_budget() {
    let examples = |path: &str| -> Option<Value> {
        let file = schemas::fixtures::root()?.join("fixtures/venues/mexc/rest_examples.jsonl");
        let text = std::fs::read_to_string(file).expect("examples");
        let rows = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("json"));
        rows.filter(|r| r["path"] == path).map(|r| r["response"].clone()).last()
    };
    let sim = start(VenueId::MexcSpot).await;
    let addr = sim.addr(VenueId::MexcSpot);
    for (path, query) in [
        ("/api/v3/depth", "symbol=BTCUSDT"),
        ("/api/v3/trades", "symbol=BTCUSDT"),
        ("/api/v3/aggTrades", "symbol=BTCUSDT"),
        ("/api/v3/exchangeInfo", "symbols=BTCUSDT,ETHUSDT"),
        ("/api/v3/klines", "symbol=BTCUSDT&interval=1m"),
    ] {
        let answer = get(addr, &format!("{path}?{query}")).await;
        let Some(known) = examples(path) else { continue };
        let first = |v: &Value| match v {
            Value::Array(rows) => rows.first().cloned().unwrap_or_default(),
            v if v["symbols"].is_array() => v["symbols"][0].clone(),
            v => v.clone(),
        };
        let (mut said, known) = (first(&answer), first(&known));
        if let Some(object) = said.as_object_mut() {
            object.remove("timestamp");
        }
        let missing: Vec<String> = members(&known).difference(&members(&said)).cloned().collect();
        let left_out = ["quoteAmountPrecisionMarket", "maxQuoteAmountMarket"];
        assert!(missing.iter().all(|m| left_out.contains(&m.as_str())), "{path}: {missing:?}");
        assert_eq!(said.as_array().map(Vec::len), known.as_array().map(Vec::len), "{path}");
    }
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    for _ in 0..120 {
        *statuses.entry(http(addr, "GET", "/api/v3/trades?symbol=BTCUSDT&limit=1", "").await.0).or_default() += 1;
    }
    assert!(statuses[&429] >= 1 && statuses[&200] >= 50, "{statuses:?}");
    sim.stop().await.unwrap();

    let sim = start(VenueId::MexcContract).await;
    let addr = sim.addr(VenueId::MexcContract);
    for (path, known) in [
        ("/api/v1/contract/deals/ETH_USDT", "/api/v1/contract/deals/ETH_USDT"),
        ("/api/v1/contract/detail", "/api/v1/contract/detail"),
    ] {
        let answer = get(addr, path).await;
        let Some(known) = examples(known) else { continue };
        let (said, known) = (members(&answer["data"][0]), members(&known["data"][0]));
        // Margin tiers and fees are not traded here.
        let gone = |m: &String| {
            m.contains("isk") || m.contains("Rate") || m.contains("Margin") || m.contains("index") || m.contains("Coef")
        };
        assert!(known.difference(&said).all(gone), "{path}: {said:?}");
    }
    let body = get(addr, "/api/v1/contract/kline/BTC_USDT?interval=Min1").await;
    assert!(!body["data"]["time"].as_array().unwrap().is_empty(), "{body}");
    sim.stop().await.unwrap();
}
