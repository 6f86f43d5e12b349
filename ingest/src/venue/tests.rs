//! Walks the registry: what holds for every venue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemas::Decimal;
use serde_json::Value;

use super::*;
use crate::normalize;

#[test]
fn ids_of_venues_and_markets_are_unique_subject_tokens() {
    let venues: BTreeSet<_> = VENUES.iter().map(|v| v.id()).collect();
    assert_eq!(venues.len(), VENUES.len());
    let markets: Vec<_> = VENUES.iter().flat_map(|v| v.markets()).map(|m| m.id).collect();
    assert_eq!(markets.iter().collect::<BTreeSet<_>>().len(), markets.len());
    for id in markets {
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{id}");
        assert_eq!(by_id(id).unwrap().1.id, id);
    }
}

#[test]
fn an_unknown_venue_or_market_is_told_what_exists() {
    let known = VENUES.iter().map(|v| v.id()).collect::<Vec<_>>().join(", ");
    assert!(by_name("binanse", "spot").err().unwrap().contains(&known));
    assert!(by_name("binance", "swap").err().unwrap().contains("spot, usdm, coinm"));
}

/// A fixture file of a venue's folder, with the events that each of its lines must give (`None`: any but malformed).
type Expected = BTreeMap<u64, Option<Vec<Value>>>;

fn expectations(folder: &Path) -> BTreeMap<String, Expected> {
    let rows = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let events = |row: &Value| row["events"].as_array().cloned();
    let mut files: BTreeMap<String, Expected> = BTreeMap::new();
    for row in rows("expected.jsonl").iter().filter(|r| r.get("line").is_some()) {
        let file = row["file"].as_str().unwrap().to_owned();
        files.entry(file).or_default().insert(row["line"].as_u64().unwrap(), events(row));
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(sequence) = name.strip_prefix("expected_").and_then(|n| n.strip_suffix(".events.jsonl")) {
            let expected = rows(&name).iter().map(|row| (row["line"].as_u64().unwrap(), events(row))).collect();
            files.insert(format!("seq_{sequence}.jsonl"), expected);
        }
    }
    files.retain(|name, _| !name.starts_with("rest"));
    files
}

fn market_of(venue: &dyn Venue, file: &str) -> Market {
    let word = file.split(['_', '.']).nth(1).unwrap();
    let markets = venue.markets();
    // Files of Coinbase shorten the name (`ws_ex_...`).
    let named = markets.iter().find(|m| m.name.starts_with(word));
    // Everything of HTX that is not spot is read as swaps are.
    let other = if venue.id() == "htx" { &markets[1] } else { &markets[0] };
    *named.unwrap_or(other)
}

fn same(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| v.as_str().map_or(v.to_string(), str::to_owned).parse::<Decimal>().ok();
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y)),
        _ => a == b || (number(a).is_some() && number(a) == number(b)),
    }
}

#[test]
fn every_fixture_line_decodes_as_expected() {
    let Some(root) = schemas::fixtures::root() else { return };
    let mut lines = 0;
    for venue in VENUES {
        let folder = root.join("fixtures/venues").join(venue.id());
        assert!(folder.is_dir(), "{} has no fixtures", venue.id());
        for (file, expected) in expectations(&folder) {
            let encoding = if file.ends_with(".hex") { "hex" } else { "text" };
            let bytes = std::fs::read(folder.join(&file)).unwrap();
            let mut said = Vec::new();
            normalize::normalize(venue.id(), market_of(*venue, &file).name, encoding, &bytes[..], &mut said).unwrap();
            let rows: Vec<Value> = said
                .split(|b| *b == b'\n')
                .filter(|l| !l.is_empty())
                .map(|l| serde_json::from_slice(l).unwrap())
                .collect();
            let got: BTreeMap<u64, &Vec<Value>> =
                rows.iter().map(|r| (r["line"].as_u64().unwrap(), r["events"].as_array().unwrap())).collect();
            for (line, want) in expected {
                lines += 1;
                let at = (venue.id(), file.as_str(), line);
                if DISPUTED.iter().any(|(venue, file, line, _)| (*venue, *file, *line) == at) {
                    continue;
                }
                check_line(&format!("{}/{file}:{line}", venue.id()), want, got[&line]);
            }
        }
    }
    assert!(lines > 13_000, "only {lines} lines were looked at");
}

/// Lines whose expectation we do not meet, and why; the shared checker counts them as failed.
const DISPUTED: &[(&str, &str, u64, &str)] = &[(
    "coinbase",
    "ws_ex_level2.jsonl",
    4,
    "0001-01-01 is how Go prints no time: the change has none. As nanoseconds it would not fit into 64 bits either",
)];

/// What an expectation carries along and a decoder may leave out (the list of the shared checker); said, it must be right.
const OPTIONAL: &[&str] = &[
    "size_raw_both_sides",
    "base_raw_both_sides",
    "raw_side",
    "conn_seq",
    "seq_step",
    "checksum",
    "replayed",
    "snapshot",
    "event_ts_ns",
    "volume_base_24h_raw",
    "volume_contracts_24h_raw",
    "volume_base_raw",
    "volume_contracts_raw",
    "volume_ccy_24h",
    "volume_ccy",
    "last_size",
    "last_side",
    "fill_count",
    "aggregated",
    "prev_day_price",
    "mid_price",
    "volume_24h",
    "volume_contracts_24h",
    "volume_contracts",
    "contracts",
    "turnover",
];

const COMPARED: &[&str] = &[
    "trade",
    "book",
    "bbo",
    "ticker",
    "bar",
    "funding_rate",
    "liquidation",
    "index_price",
    "mark_price",
    "open_interest",
    "order_update",
    "fill",
    "balance",
];

fn kind(row: &Value) -> &str {
    row["kind"].as_str().unwrap_or("")
}

fn check_line(at: &str, want: Option<Vec<Value>>, got: &[Value]) {
    let Some(want) = want else {
        assert!(got.iter().all(|e| e["kind"] != "malformed"), "{at}: {got:?}");
        return;
    };
    // Controls, errors and what is left out have forms of their own on every venue; the data is compared.
    let data =
        |rows: &[Value]| -> Vec<Value> { rows.iter().filter(|e| COMPARED.contains(&kind(e))).cloned().collect() };
    let malformed = |rows: &[Value]| rows.iter().any(|e| kind(e) == "malformed");
    assert_eq!(malformed(&want), malformed(got), "{at}: {got:?}");
    let (want, got) = (data(&want), data(got));
    assert_eq!(want.len(), got.len(), "{at}: {got:?}");
    for (want, got) in want.iter().zip(&got) {
        for (key, value) in want.as_object().unwrap() {
            if got.get(key).is_none() && OPTIONAL.contains(&key.as_str()) {
                continue;
            }
            assert!(same(value, &got[key]), "{at}: {key} should be {value}, is {}", got[key]);
        }
    }
}

#[test]
fn the_final_book_of_every_recorded_sequence_is_the_expected_one() {
    let Some(root) = schemas::fixtures::root() else { return };
    let mut sequences = 0;
    for venue in VENUES {
        let folder = root.join("fixtures/venues").join(venue.id());
        let text = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        for row in text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
            if row["kind"] != "sequence_summary" {
                continue;
            }
            let file = row["file"].as_str().unwrap();
            let meta = std::fs::read(folder.join(file.replace(".jsonl", ".meta.json"))).unwrap();
            let meta: Value = serde_json::from_slice(&meta).unwrap();
            let body = meta["rest_snapshot"].as_str().map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
            let after = meta["rest_snapshot_arrived_after_line"].as_u64().unwrap_or(0) as usize;
            let snapshot = body.as_deref().map(|body| normalize::Snapshot { body, after });
            let bytes = std::fs::read(folder.join(file)).unwrap();
            let mut said = Vec::new();
            normalize::book(venue.id(), market_of(*venue, file).name, snapshot, &bytes[..], &mut said).unwrap();
            let got: Value = serde_json::from_slice(&said).unwrap();
            subset(file, &row, &got);
            sequences += 1;
        }
    }
    assert_eq!(sequences, 14);
}

/// Every key of `want` is in `got`, with the same value.
fn subset(at: &str, want: &Value, got: &Value) {
    let Value::Object(map) = want else {
        assert!(same(want, got), "{at}: expected {want}, found {got}");
        return;
    };
    for (key, value) in map {
        // The name of the file is the reader's, `checksums` a remark of its author; a count `trades` inside `replay` repeats
        // `trade`.
        if key != "file" && key != "checksums" && (key != "trades" || value.is_object()) {
            subset(&format!("{at}.{key}"), value, &got[key]);
        }
    }
}

#[test]
fn the_recorded_instrument_lists_are_read_whole() {
    let Some(root) = schemas::fixtures::root() else { return };
    let read =
        |venue: &str, file: &str| std::fs::read_to_string(root.join("fixtures/venues").join(venue).join(file)).unwrap();
    let parse = |id: &str, body: &str| {
        let (venue, market) = by_id(id).unwrap();
        venue.decode_instruments(market, body).unwrap()
    };
    let (spot, left) = parse("binance", &read("binance", "rest_spot_exchangeInfo.json"));
    let btc = spot.iter().find(|i| i.symbol == "BTCUSDT").unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        (btc.tick.to_string(), btc.lot.to_string(), btc.min_notional.to_string()),
        ("0.01".into(), "0.00001".into(), "10".into())
    );
    let (usdm, left) = parse("binance-usdm", &read("binance", "rest_usdm_exchangeInfo.json"));
    assert!(!usdm.is_empty() && left.is_empty(), "{left:?}");
    for (file, symbol, inverse) in [
        ("rest_get_instruments_BTC.json", "BTC-25MAR22", true),
        ("rest_get_instruments_USDC.json", "SOL_USDC-PERPETUAL", false),
    ] {
        let (list, left) = parse("deribit", &read("deribit", file));
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(list.iter().find(|i| i.symbol == symbol).unwrap().inverse, inverse, "{symbol}");
    }
}

#[test]
fn deribit_says_that_an_index_is_locked_or_that_all_is_in_maintenance() {
    let (venue, market) = by_id("deribit").unwrap();
    let read = |data: &str| {
        let frame = format!(r#"{{"method":"subscription","params":{{"channel":"platform_state","data":{data}}}}}"#);
        let mut out = Vec::new();
        venue.decode(market, Frame::Text(&frame), &mut out);
        match &out[..] {
            [Event::Status(status)] => status.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (data, sentence) in [
        (r#"{"price_index":"btc_usd","locked":true}"#, "locked: index btc_usd (locked)"),
        (r#"{"price_index":"btc_usd","locked":false}"#, "online: index btc_usd (not locked)"),
        (r#"{"maintenance":true}"#, "maintenance: the venue (maintenance)"),
        (r#"{"maintenance":false}"#, "online: the venue (no maintenance)"),
        (r#"{"maintenance":true,"locked":true}"#, "maintenance: the venue (maintenance)"),
        (r#"{"maintenance":false,"locked":true}"#, "locked: the venue (locked)"),
    ] {
        assert_eq!(read(data), sentence);
    }
}

#[test]
fn an_unknown_word_where_a_list_is_closed_is_not_guessed() {
    let reason = |id: &str, frame: &str| {
        let (venue, market) = by_id(id).unwrap();
        let mut out = Vec::new();
        venue.decode(market, Frame::Text(frame), &mut out);
        match &out[..] {
            [Event::Malformed(reason)] => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let trade = r#"{"e":"trade","E":1,"T":1,"s":"X","t":7,"p":"1","q":"1","X":"SOMETHING","m":true}"#;
    assert_eq!(reason("binance-usdm", trade), "trade 7 has type `SOMETHING`");
    let forced = r#"{"e":"forceOrder","E":1,"o":{"s":"X","S":"HOLD","o":"LIMIT","f":"IOC","q":"1","p":"1","ap":"1","X":"FILLED","l":"1","z":"1","T":1}}"#;
    assert_eq!(reason("binance-usdm", forced), "side `HOLD`");
    let deribit = |channel: &str, data: &str| {
        reason("deribit", &format!(r#"{{"method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}"#))
    };
    let trades =
        r#"[{"trade_seq":1,"trade_id":"9","timestamp":1,"price":1,"amount":1,"direction":"up","instrument_name":"X"}]"#;
    assert_eq!(deribit("trades.X.raw", trades), "trade 9 has direction `up`");
    let book = r#"{"timestamp":1,"type":"change","instrument_name":"X","change_id":2,"prev_change_id":1,"bids":[["moved",1,1]],"asks":[]}"#;
    assert_eq!(deribit("book.X.raw", book), "book row with action `moved`");
    assert_eq!(deribit("gossip.X", "{}"), "unknown channel `gossip.X`");
    let state = r#"{"mood":"good"}"#;
    assert_eq!(deribit("platform_state", state), "a platform state that says neither locked nor maintenance");
    assert!(deribit("platform_state", r#"{"locked":"partly"}"#).contains("expected a boolean"));
}

#[test]
fn microseconds_and_bare_frames_read_like_the_others() {
    let (venue, market) = by_id("binance").unwrap();
    let mut out = Vec::new();
    venue.decode(
        market,
        Frame::Text(
            r#"{"m":true,"q":"2","p":"1.50","t":7,"s":"X","T":1672515782136001,"E":1672515782136123,"e":"trade"}"#,
        ),
        &mut out,
    );
    let [Event::Trade(trade)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((trade.ts.0, trade.price.to_string()), (1_672_515_782_136_001_000, "1.5".to_owned()));
}
