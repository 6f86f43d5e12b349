//! REST of both markets: public data, and what is allowed in a window.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::Mexc;
use super::channel::{INTERVALS, is_spot};
use super::encode;
use crate::binance::pairs;
use crate::book::Side;
use crate::floor::{Floor, Reply, Request};
use crate::market::{Listing, Snapshot, Trade};

type Params = BTreeMap<String, String>;

/// Weight or requests of the last window: real time and what was spent then.
#[derive(Debug, Default)]
pub struct Budget(VecDeque<(u64, u64)>);

impl Budget {
    /// False: more than the window allows.
    fn take(&mut self, now_ms: u64, window_ms: u64, max: u64, cost: u64) -> bool {
        while self.0.front().is_some_and(|(at, _)| at + window_ms <= now_ms) {
            self.0.pop_front();
        }
        let spent: u64 = self.0.iter().map(|(_, cost)| cost).sum();
        let enough = spent + cost <= max;
        if enough {
            self.0.push_back((now_ms, cost));
        }
        enough
    }
}

/// A refusal of spot: `{"code":-1121,"msg":"Invalid symbol."}`; of contract: `{"success":false,"code":..,"message":..}`.
fn refused(spot: bool, status: u16, code: i64, message: &str) -> Reply {
    Reply::json(
        status,
        match spot {
            true => json!({ "code": code, "msg": message }),
            false => json!({ "success": false, "code": code, "message": message }),
        },
    )
}

impl Mexc {
    pub(super) fn rest_request(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let spot = is_spot(floor);
        let params: Params = pairs(&request.query).into_iter().collect();
        let weight = match (spot, request.path.as_str()) {
            (true, "/api/v3/exchangeInfo") => 10,
            (true, "/api/v3/trades") => 5,
            _ => 1,
        };
        let config = &floor.config.mexc;
        let (window_ms, max) = match spot {
            true => (10_000, config.spot_weight_per_10s_max),
            false => (2_000, config.contract_requests_per_2s_max),
        };
        let enough = self.budget.take(floor.mono_ms, window_ms, max, weight);
        let forced = floor.faults.take("rest_429", "").is_some();
        if forced || !enough {
            let (code, message) = if spot {
                (429, "Too Many Requests")
            } else {
                (510, "Excessive frequency of requests, please try again later!")
            };
            let mut reply = refused(spot, 429, code, message);
            // A refusal on command is over as soon as a header can say.
            let after_s = if forced { 1 } else { window_ms.div_ceil(1_000) };
            reply.headers.push(("retry-after".to_owned(), after_s.to_string()));
            return reply;
        }
        if request.method != "GET" {
            return refused(spot, 405, 405, "Method Not Allowed");
        }
        let answer =
            if spot { self.spot(floor, &request.path, &params) } else { self.contract(floor, &request.path, &params) };
        let (mut reply, symbol) = match answer {
            Some(Ok((body, symbol))) => (Reply::json(200, body), symbol),
            Some(Err(reply)) => return reply,
            None => return Reply::json(404, ""),
        };
        if request.path.contains("/depth") {
            if let Some(fault) = floor.faults.take("snapshot_inside", &symbol) {
                reply.delay_ms = fault.ms;
            }
            if let Some(fault) = floor.faults.take("snapshot_newer", &symbol) {
                floor.hold(fault.ms);
            }
        }
        reply
    }

    /// The book as it is, or as it was when `snapshot_older` was armed.
    fn book(&self, floor: &mut Floor, i: usize, limit: usize) -> Snapshot {
        let symbol = floor.market.listing(i).spec.symbol.clone();
        let old = floor.faults.take("snapshot_older", &symbol).and_then(|_| self.old_books.get(&i).cloned());
        let mut snapshot = old.unwrap_or_else(|| floor.market.snapshot(i, limit));
        snapshot.bids.truncate(limit);
        snapshot.asks.truncate(limit);
        snapshot
    }

    /// The body and the symbol that it is about; `None`: no such path.
    fn spot(&self, floor: &mut Floor, path: &str, params: &Params) -> Option<Result<(String, String), Reply>> {
        let path = path.strip_prefix("/api/v3")?;
        let now = floor.now_ms();
        match path {
            "/ping" => return Some(Ok(("{}".to_owned(), String::new()))),
            "/time" => return Some(Ok((format!(r#"{{"serverTime":{now}}}"#), String::new()))),
            "/exchangeInfo" => return Some(Ok((spot_info(floor, params), String::new()))),
            "/depth" | "/trades" | "/aggTrades" | "/klines" | "/ticker/bookTicker" => {}
            _ => return None,
        }
        let Some(i) = params.get("symbol").and_then(|s| floor.market.find(s)) else {
            return Some(Err(refused(true, 400, -1121, "Invalid symbol.")));
        };
        let limit =
            |usual: usize, max: usize| params.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usual).clamp(1, max);
        let spec = floor.market.listing(i).spec.clone();
        let body = match path {
            "/depth" => {
                let snapshot = self.book(floor, i, limit(100, 5_000));
                let rows = |rows: &[(i64, i64)]| -> Value {
                    rows.iter().map(|(p, q)| json!([encode::price(&spec, *p), encode::size(&spec, *q)])).collect()
                };
                json!({ "lastUpdateId": snapshot.id, "bids": rows(&snapshot.bids), "asks": rows(&snapshot.asks), "timestamp": now })
            }
            // Neither has ids, and both begin with the newest.
            "/trades" => newest(floor, i, limit(500, 1_000), |t| {
                json!({
                    "id": null, "price": encode::price(&spec, t.price), "qty": encode::size(&spec, t.qty),
                    "quoteQty": worth(&spec, t), "time": t.time_ns / 1_000_000,
                    "isBuyerMaker": t.taker == Side::Sell, "isBestMatch": true,
                    "tradeType": if t.taker == Side::Buy { "BID" } else { "ASK" },
                })
            }),
            "/aggTrades" => newest(floor, i, limit(500, 1_000), |t| {
                json!({
                    "a": null, "f": null, "l": null, "p": encode::price(&spec, t.price), "q": encode::size(&spec, t.qty),
                    "T": t.time_ns / 1_000_000, "m": t.taker == Side::Sell, "M": true,
                })
            }),
            "/klines" => {
                const WIDTHS: &[(&str, i64)] = &[
                    ("1m", 60_000),
                    ("5m", 300_000),
                    ("15m", 900_000),
                    ("30m", 1_800_000),
                    ("60m", 3_600_000),
                    ("4h", 14_400_000),
                    ("1d", 86_400_000),
                ];
                let word = params.get("interval").map_or("", String::as_str);
                let Some((_, width_ms)) = WIDTHS.iter().find(|(name, _)| *name == word) else {
                    return Some(Err(refused(true, 400, -1121, "Invalid interval.")));
                };
                let ms = |key: &str, usual: i64| params.get(key).and_then(|v| v.parse().ok()).unwrap_or(usual);
                floor.history[i].pass(now);
                let bars = floor.history[i].bars(*width_ms, ms("startTime", 0), ms("endTime", now), limit(500, 1_000));
                bars.iter()
                    .map(|b| {
                        let p = |ticks: i64| encode::price(&spec, ticks);
                        json!([
                            b.open_ms,
                            p(b.open),
                            p(b.high),
                            p(b.low),
                            p(b.close),
                            encode::size(&spec, b.volume),
                            b.open_ms + width_ms,
                            encode::value(&spec, b),
                        ])
                    })
                    .collect()
            }
            _ => {
                let l = floor.market.listing(i);
                let touch = |side: Side| l.book.touch(side).unwrap_or_default();
                let (bid, ask) = (touch(Side::Buy), touch(Side::Sell));
                json!({
                    "symbol": spec.symbol, "bidPrice": encode::price(&spec, bid.0), "bidQty": encode::size(&spec, bid.1),
                    "askPrice": encode::price(&spec, ask.0), "askQty": encode::size(&spec, ask.1),
                })
            }
        };
        Some(Ok((body.to_string(), spec.symbol)))
    }

    fn contract(&self, floor: &mut Floor, path: &str, params: &Params) -> Option<Result<(String, String), Reply>> {
        let path = path.strip_prefix("/api/v1/contract/")?;
        let now = floor.now_ms();
        let good = |data: String, symbol: &str| {
            Some(Ok((format!(r#"{{"success":true,"code":0,"data":{data}}}"#), symbol.to_owned())))
        };
        let (what, symbol) = path.split_once('/').unwrap_or((path, ""));
        let unknown = || Some(Err(refused(false, 200, 1001, "Contract does not exist")));
        if what == "ping" {
            return good(now.to_string(), "");
        }
        if what == "detail" {
            let rows: Vec<Value> = floor.market.listings().iter().map(detail).collect();
            return match params.get("symbol") {
                Some(wanted) => match rows.iter().find(|r| r["symbol"] == **wanted) {
                    Some(row) => good(row.to_string(), wanted),
                    None => unknown(),
                },
                None => good(Value::Array(rows).to_string(), ""),
            };
        }
        let Some(i) = floor.market.find(symbol) else {
            return if ["depth", "deals", "kline", "funding_rate"].contains(&what) { unknown() } else { None };
        };
        let limit =
            |usual: usize, max: usize| params.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usual).clamp(1, max);
        let spec = floor.market.listing(i).spec.clone();
        let data = match what {
            "depth" => {
                let snapshot = self.book(floor, i, limit(usize::MAX, usize::MAX));
                format!(r#"{{{},"timestamp":{now}}}"#, encode::contract_book(&spec, &snapshot))
            }
            "deals" => {
                // Without the ids that the pushes have.
                let rows = floor.history[i].trades().rev().take(limit(100, 100));
                let rows: Vec<String> = rows.map(|t| encode::contract_deal(&spec, t, true)).collect();
                format!("[{}]", rows.join(","))
            }
            "kline" => {
                let word = params.get("interval").map_or("Min1", String::as_str);
                let Some((_, width_ms)) = INTERVALS.iter().find(|(name, _)| *name == word) else {
                    return Some(Err(refused(false, 200, 600, "Parameter error")));
                };
                let ms = |key: &str, usual: i64| {
                    params.get(key).and_then(|v| v.parse::<i64>().ok()).map_or(usual, |s| s.saturating_mul(1_000))
                };
                floor.history[i].pass(now);
                let bars = floor.history[i].bars(*width_ms, ms("start", 0), ms("end", now), 2_000);
                let column = |of: &dyn Fn(&crate::history::Bar) -> String| {
                    format!("[{}]", bars.iter().map(of).collect::<Vec<_>>().join(","))
                };
                let p = |of: fn(&crate::history::Bar) -> i64| column(&|b| encode::price(&spec, of(b)));
                format!(
                    r#"{{"time":{},"open":{},"close":{},"high":{},"low":{},"vol":{},"amount":{}}}"#,
                    column(&|b| (b.open_ms / 1_000).to_string()),
                    p(|b| b.open),
                    p(|b| b.close),
                    p(|b| b.high),
                    p(|b| b.low),
                    column(&|b| b.volume.to_string()),
                    column(&|b| encode::value(&spec, b))
                )
            }
            "funding_rate" => {
                let rate = encode::float(floor.market.listing(i).funding(), 6);
                format!(r#"{{"symbol":"{symbol}","fundingRate":{rate},"collectCycle":8,"timestamp":{now}}}"#)
            }
            _ => return None,
        };
        good(data, symbol)
    }
}

fn newest(floor: &Floor, i: usize, limit: usize, row: impl Fn(&Trade) -> Value) -> Value {
    floor.history[i].trades().rev().take(limit).map(row).collect()
}

fn worth(spec: &crate::instrument::Spec, t: &Trade) -> String {
    let (mantissa, scale) = spec.value(t.price, t.qty);
    encode::plain(crate::instrument::decimal_text(mantissa, scale, scale))
}

fn spot_info(floor: &Floor, params: &Params) -> String {
    let wanted: Option<Vec<&str>> =
        params.get("symbols").or(params.get("symbol")).map(|list| list.split(',').collect());
    let shown = |l: &&Listing| wanted.as_ref().is_none_or(|w| w.contains(&l.spec.symbol.as_str()));
    let row = |l: &Listing| {
        let s = &l.spec;
        json!({
            "symbol": s.symbol, "status": "1", "baseAsset": s.base, "baseAssetPrecision": s.size.s, "quoteAsset": s.quote,
            "quotePrecision": s.price.s, "quoteAssetPrecision": s.price.s, "baseCommissionPrecision": s.size.s,
            "quoteCommissionPrecision": s.price.s, "orderTypes": ["LIMIT", "MARKET", "LIMIT_MAKER"],
            "isSpotTradingAllowed": true, "isMarginTradingAllowed": false,
            "quoteAmountPrecision": s.min_notional.to_string(), "baseSizePrecision": s.size.step_text(),
            "permissions": ["SPOT"], "filters": [], "maxQuoteAmount": "2000000", "makerCommission": "0.0005",
            "takerCommission": "0.0005", "fullName": s.base, "tradeSideType": 1,
        })
    };
    let symbols: Vec<Value> = floor.market.listings().iter().filter(shown).map(row).collect();
    json!({ "timezone": "CST", "serverTime": floor.now_ms(), "rateLimits": [], "exchangeFilters": [], "symbols": symbols })
        .to_string()
}

fn detail(l: &Listing) -> Value {
    let s = &l.spec;
    // As numbers that are printed without an exponent.
    let number = |text: String| serde_json::from_str::<Value>(&text).unwrap_or(Value::Null);
    json!({
        "symbol": s.symbol, "displayName": s.symbol, "displayNameEn": format!("{} PERPETUAL", s.symbol),
        "positionOpenType": 3, "baseCoin": s.base, "quoteCoin": s.quote, "settleCoin": s.quote, "futureType": 1,
        "contractSize": number(encode::size(s, 1)), "minLeverage": 1, "maxLeverage": 125, "priceScale": s.price.s,
        "volScale": 0, "amountScale": 4, "priceUnit": number(encode::price(s, 1)), "volUnit": 1, "minVol": 1,
        "maxVol": 1_000_000, "state": 0, "isNew": false, "isHot": true, "isHidden": false, "apiAllowed": true,
    })
}
