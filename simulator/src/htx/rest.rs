//! HTX over REST: instruments, books, recent trades, candles, open interest.

use std::collections::BTreeMap;

use serde_json::json;

use super::data;
use super::feed::period;
use crate::book::Side;
use crate::floor::{Floor, Reply, Request};
use crate::instrument::VenueId;

/// Rows of one answer.
const ROWS_MAX: usize = 2000;

pub fn answer(floor: &mut Floor, request: &Request) -> Reply {
    let (base, terms, name) = match floor.venue {
        VenueId::HtxLinear => ("/linear-swap-ex/market", "/linear-swap-api/v1", "contract_code"),
        VenueId::HtxInverse => ("/swap-ex/market", "/swap-api/v1", "contract_code"),
        _ => ("/market", "/v1/common", "symbol"),
    };
    let swap = floor.venue != VenueId::HtxSpot;
    if let Some(list) = request.path.strip_prefix(terms) {
        return match (list, swap) {
            ("/symbols", false) => pairs(floor),
            ("/timestamp", false) => ok(floor, &floor.wall_ms.to_string()),
            ("/swap_contract_info", true) => contracts(floor),
            ("/swap_open_interest", true) => open_interest(floor, &request.query),
            _ => Reply::json(404, r#"{"status":"error","err-code":"not-found","err-msg":"no such path"}"#),
        };
    }
    let Some(call) = request.path.strip_prefix(base) else { return Reply::json(404, "") };
    let query: BTreeMap<String, String> = crate::binance::pairs(&request.query).into_iter().collect();
    let Some(i) = query.get(name).and_then(|symbol| floor.market.find(symbol)) else {
        return refused(floor, swap, "invalid symbol");
    };
    let size = query.get("size").map_or(Some(1), |n| n.parse().ok()).filter(|n| (1..=ROWS_MAX).contains(n));
    let Some(size) = size else { return refused(floor, swap, "invalid size, valid range: [1,2000]") };
    let symbol = floor.market.listing(i).spec.symbol.clone();
    match call {
        "/history/trade" => {
            let body = trades(floor, i, size);
            wrapped(floor, &format!("market.{symbol}.trade.detail"), "data", &body)
        }
        "/history/kline" => {
            let Some((word, width_ms)) = query.get("period").and_then(|word| Some((word, period(word)?))) else {
                return refused(floor, swap, "invalid period");
            };
            let body = candles(floor, i, width_ms, size);
            wrapped(floor, &format!("market.{symbol}.kline.{word}"), "data", &body)
        }
        "/depth" => {
            let channel = format!("market.{symbol}.depth.step0");
            let body = data::step_book(floor, i, &channel, 150, floor.now_ns);
            wrapped(floor, &channel, "tick", &body)
        }
        _ => Reply::json(404, ""),
    }
}

fn refused(floor: &Floor, swap: bool, why: &str) -> Reply {
    let ts = floor.now_ms();
    Reply::json(
        200,
        match swap {
            true => json!({ "status": "error", "err_code": 1030, "err_msg": why, "ts": ts }),
            false => json!({ "status": "error", "err-code": "invalid-parameter", "err-msg": why, "ts": ts }),
        },
    )
}

fn ok(floor: &Floor, data: &str) -> Reply {
    Reply::json(200, format!(r#"{{"status":"ok","data":{data},"ts":{}}}"#, floor.now_ms()))
}

fn wrapped(floor: &Floor, channel: &str, member: &str, body: &str) -> Reply {
    Reply::json(200, format!(r#"{{"ch":"{channel}","status":"ok","ts":{},"{member}":{body}}}"#, floor.now_ms()))
}

fn pairs(floor: &Floor) -> Reply {
    let rows: Vec<_> = floor.market.listings().iter().map(|l| data::pair(&l.spec)).collect();
    ok(floor, &json!(rows).to_string())
}

fn contracts(floor: &Floor) -> Reply {
    let rows: Vec<String> = floor.market.listings().iter().map(|l| data::contract(&l.spec)).collect();
    ok(floor, &format!("[{}]", rows.join(",")))
}

/// Of the `contract_code` that is named, or of all. What rests in the book stands for what is open.
fn open_interest(floor: &mut Floor, query: &str) -> Reply {
    let query: BTreeMap<String, String> = crate::binance::pairs(query).into_iter().collect();
    let listed = floor.market.listings().len();
    let wanted = match query.get("contract_code").map(|code| floor.market.find(code)) {
        None => 0..listed,
        Some(Some(i)) => i..i + 1,
        Some(None) => return refused(floor, true, "contract_code"),
    };
    let now_ms = floor.now_ms();
    let mut rows = Vec::new();
    for i in wanted {
        floor.history[i].pass(now_ms);
        let (l, day) = (floor.market.listing(i), floor.history[i].day(now_ms).unwrap_or_default());
        let open: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
        let price = l.book.touch(Side::Buy).map_or(day.close, |(price, _)| price);
        rows.push(data::open_interest(l, open, price, &day));
    }
    ok(floor, &format!("[{}]", rows.join(",")))
}

/// The newest trades, each match with its rows, newest first. The big id is printed as a float on spot.
fn trades(floor: &Floor, i: usize, size: usize) -> String {
    let spec = &floor.market.listing(i).spec;
    let row = |t: &crate::market::Trade| {
        let mut text = data::trade(spec, t);
        if !data::is_swap(spec) {
            let (_, rest) = text.split_once(',').unwrap_or(("", "}"));
            text = format!(r#"{{"id":1.361078430513484e+26,{}"#, rest.replacen("tradeId", "trade-id", 1));
        }
        format!(r#"{{"id":{},"ts":{},"data":[{text}]}}"#, t.aggregate, t.time_ns / 1_000_000)
    };
    let rows: Vec<String> = floor.history[i].trades().rev().take(size).map(row).collect();
    format!("[{}]", rows.join(","))
}

/// Candles: the newest first on spot, last on derivatives.
fn candles(floor: &mut Floor, i: usize, width_ms: i64, size: usize) -> String {
    let now_ms = floor.now_ms();
    floor.history[i].pass(now_ms);
    let spec = &floor.market.listing(i).spec;
    let bars = floor.history[i].bars(width_ms, 0, now_ms, size);
    let mut rows: Vec<String> = bars.iter().map(|b| data::bar(spec, b.open_ms / 1000, b)).collect();
    if !data::is_swap(spec) {
        rows.reverse();
    }
    format!("[{}]", rows.join(","))
}
