//! REST of both APIs: products, books, trades by page, candles, time.

use serde_json::{Value, json};

use super::data;
use super::{Api, Coinbase};
use crate::floor::{Floor, Reply, Request};
use crate::history::Bar;
use crate::instrument::Spec;

const MARKET: &str = "/api/v3/brokerage/market";
/// Trades of one answer.
const TRADES_MAX: usize = 1000;
/// Widths of candles: seconds, Advanced's word, whether Exchange has them.
const WIDTHS: &[(i64, &str, bool)] = &[
    (60, "ONE_MINUTE", true),
    (300, "FIVE_MINUTE", true),
    (900, "FIFTEEN_MINUTE", true),
    (1_800, "THIRTY_MINUTE", false),
    (3_600, "ONE_HOUR", true),
    (7_200, "TWO_HOUR", false),
    (21_600, "SIX_HOUR", true),
    (86_400, "ONE_DAY", true),
];

fn wrong(status: u16, message: &str) -> Reply {
    Reply::json(status, json!({ "message": message }))
}

impl Coinbase {
    pub fn answer(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        if request.method != "GET" {
            return wrong(405, "only market data is served here");
        }
        let query = crate::binance::pairs(&request.query);
        let all = |name: &str| query.iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        let number = |name: &str| all(name).first().and_then(|v| v.parse::<i64>().ok());
        match self.api {
            Api::Advanced => {
                let path = request.path.strip_prefix(MARKET).unwrap_or("");
                let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
                match parts[..] {
                    _ if request.path == "/api/v3/brokerage/time" => {
                        let seconds = floor.now_ns / 1_000_000_000;
                        Reply::json(
                            200,
                            json!({ "iso": data::time(floor.now_ns, false), "epochSeconds": seconds.to_string() }),
                        )
                    }
                    ["products"] => {
                        let wanted = all("product_ids");
                        let rows: Vec<Value> = (0..floor.market.listings().len())
                            .filter(|i| wanted.is_empty() || wanted.contains(&floor.market.listing(*i).spec.symbol))
                            .map(|i| data::advanced_product(floor, i))
                            .collect();
                        Reply::json(200, json!({ "num_products": rows.len(), "products": rows }))
                    }
                    ["product_book"] => match all("product_id").first().and_then(|p| floor.market.find(p)) {
                        Some(i) => advanced_book(floor, i, number("limit").map_or(usize::MAX, |n| n.max(1) as usize)),
                        None => wrong(404, "product not found"),
                    },
                    ["products", product, ref rest @ ..] => match (floor.market.find(product), rest) {
                        (None, _) => wrong(404, "product not found"),
                        (Some(i), []) => Reply::json(200, data::advanced_product(floor, i)),
                        (Some(i), ["ticker"]) => {
                            advanced_trades(floor, i, number("limit"), number("start"), number("end"))
                        }
                        (Some(i), ["candles"]) => {
                            let word = all("granularity").first().cloned().unwrap_or_default();
                            let width = WIDTHS.iter().find(|(_, w, _)| *w == word).map(|(s, ..)| *s);
                            let bars = candles(floor, i, width, number("start"), number("end"), 350);
                            let row = |bar: &Bar, spec: &Spec| data::candle(spec, bar, false);
                            let spec = &floor.market.listing(i).spec;
                            match bars {
                                Ok(bars) => {
                                    let rows: Vec<Value> = bars.iter().rev().map(|bar| row(bar, spec)).collect();
                                    Reply::json(200, json!({ "candles": rows }))
                                }
                                Err(why) => wrong(400, why),
                            }
                        }
                        _ => wrong(404, "not found"),
                    },
                    _ => wrong(404, "not found"),
                }
            }
            Api::Exchange => {
                let parts: Vec<&str> = request.path.split('/').filter(|p| !p.is_empty()).collect();
                match parts[..] {
                    ["time"] => {
                        let seconds = floor.now_ns / 1_000_000_000;
                        Reply::json(200, json!({ "iso": data::time(floor.now_ns, true), "epoch": seconds }))
                    }
                    ["products"] => Reply::json(200, self.exchange_products(floor)),
                    ["products", product, ref rest @ ..] => match (floor.market.find(product), rest) {
                        (None, _) => wrong(404, "NotFound"),
                        (Some(i), []) => Reply::json(200, self.exchange_products(floor)[i].take()),
                        (Some(i), ["book"]) => exchange_book(floor, i, number("level").unwrap_or(1)),
                        (Some(i), ["trades"]) => {
                            exchange_trades(floor, i, number("limit"), number("before"), number("after"))
                        }
                        (Some(i), ["candles"]) => {
                            let width = number("granularity")
                                .filter(|s| WIDTHS.iter().any(|(seconds, _, here)| seconds == s && *here));
                            match candles(floor, i, width, number("start"), number("end"), 300) {
                                Ok(bars) => {
                                    let spec = &floor.market.listing(i).spec;
                                    let rows: Vec<String> =
                                        bars.iter().rev().map(|bar| data::candle_row(spec, bar)).collect();
                                    Reply::json(200, format!("[{}]", rows.join(",")))
                                }
                                Err(why) => wrong(400, why),
                            }
                        }
                        _ => wrong(404, "NotFound"),
                    },
                    _ => wrong(404, "NotFound"),
                }
            }
        }
    }
}

fn advanced_book(floor: &Floor, i: usize, limit: usize) -> Reply {
    let spec = &floor.market.listing(i).spec;
    let book = floor.market.snapshot(i, limit);
    let side = |rows: &[(i64, i64)]| -> Vec<Value> {
        let row = |(p, q): &(i64, i64)| json!({ "price": data::plain(&spec.price.text(*p)), "size": data::plain(&spec.size.text(*q)) });
        rows.iter().map(row).collect()
    };
    let (bids, asks, at) = (side(&book.bids), side(&book.asks), data::time(floor.now_ns, true));
    Reply::json(200, json!({ "pricebook": { "product_id": spec.symbol, "bids": bids, "asks": asks, "time": at } }))
}

/// Level 1 is the touch, level 2 all levels; the last member of a row is a number of orders.
fn exchange_book(floor: &Floor, i: usize, level: i64) -> Reply {
    let l = floor.market.listing(i);
    let book = floor.market.snapshot(i, if level == 1 { 1 } else { usize::MAX });
    let side = |rows: &[(i64, i64)]| -> Vec<Value> {
        rows.iter().map(|(p, q)| json!([l.spec.price.text(*p), l.spec.size.text(*q), 1])).collect()
    };
    let (bids, asks, at) = (side(&book.bids), side(&book.asks), data::time(floor.now_ns, true));
    Reply::json(
        200,
        json!({ "bids": bids, "asks": asks, "sequence": book.id, "auction_mode": false, "auction": null, "time": at }),
    )
}

/// The newest trades of a span of seconds, newest first.
fn advanced_trades(floor: &Floor, i: usize, limit: Option<i64>, start_s: Option<i64>, end_s: Option<i64>) -> Reply {
    let spec = &floor.market.listing(i).spec;
    let limit = limit.map_or(100, |n| n.clamp(1, TRADES_MAX as i64) as usize);
    let within = |ns: i64| {
        let s = ns / 1_000_000_000;
        start_s.is_none_or(|start| s >= start) && end_s.is_none_or(|end| s <= end)
    };
    let trades = floor.history[i].trades().rev().filter(|t| within(t.time_ns)).take(limit);
    let rows: Vec<String> = trades.map(|t| data::advanced_trade(spec, t)).collect();
    Reply::json(200, format!(r#"{{"trades":[{}],"best_bid":"","best_ask":""}}"#, rows.join(",")))
}

/// Newest first. `after` means older than, `before` newer than.
fn exchange_trades(floor: &Floor, i: usize, limit: Option<i64>, before: Option<i64>, after: Option<i64>) -> Reply {
    let spec = &floor.market.listing(i).spec;
    let limit = limit.map_or(TRADES_MAX, |n| n.clamp(1, TRADES_MAX as i64) as usize);
    let within = |id: u64| {
        let id = id as i64;
        after.is_none_or(|after| id < after) && before.is_none_or(|before| id > before)
    };
    let trades: Vec<_> = floor.history[i].trades().rev().filter(|t| within(t.id)).take(limit).collect();
    let rows: Vec<String> = trades.iter().map(|t| data::exchange_trade(spec, t)).collect();
    let mut reply = Reply::json(200, format!("[{}]", rows.join(",")));
    if let (Some(newest), Some(oldest)) = (trades.first(), trades.last()) {
        reply.headers.push(("cb-before".to_owned(), newest.id.to_string()));
        reply.headers.push(("cb-after".to_owned(), oldest.id.to_string()));
    }
    reply
}

/// Candles that open within a span, oldest first; one longer than `max` candles is refused.
fn candles(
    floor: &mut Floor,
    i: usize,
    width_s: Option<i64>,
    start_s: Option<i64>,
    end_s: Option<i64>,
    max: i64,
) -> Result<Vec<Bar>, &'static str> {
    let width_s = width_s.ok_or("Unsupported granularity")?;
    let now_s = floor.now_ns / 1_000_000_000;
    let end_s = end_s.unwrap_or(now_s);
    let start_s = start_s.unwrap_or(end_s - width_s * (max - 1));
    if (end_s - start_s) / width_s >= max {
        return Err("granularity too small for the requested time range");
    }
    let (now_ms, width_ms) = (floor.now_ms(), width_s * 1000);
    floor.history[i].pass(now_ms);
    let first = start_s.div_euclid(width_s) + i64::from(start_s.rem_euclid(width_s) > 0);
    let opens = (first..=end_s.div_euclid(width_s)).map(|n| n * width_ms);
    // A span without a trade has no candle.
    Ok(opens.filter_map(|open| floor.history[i].bar(width_ms, open)).filter(|bar| bar.n > 0).collect())
}
