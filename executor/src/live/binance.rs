//! Binance USD-M futures over REST, in one-way position mode.
//!
//! A reply to a new order, and the same order when queried:
//! ```json
//! {"orderId":283194212,"symbol":"BTCUSDT","status":"NEW","clientOrderId":"abc","origQty":"0.4","executedQty":"0",
//!  "side":"BUY","updateTime":1571110484038}
//! ```
//! <https://developers.binance.com/docs/derivatives/usds-margined-futures/trade/rest-api>
//!
//! A client id is unique among *open* orders only, so a repeated market order could execute twice: nothing here relies on
//! a refusal of duplicates. What counts is `recvWindow`: a request that arrives later than that behind its timestamp is
//! refused with -1021.

use schemas::desk::{Order, OrderKind, TimeInForce};
use schemas::exec::Liquidity;
use schemas::{Notional, Price, Qty, Side};
use serde::Deserialize;

use super::sign::{self, Query};
use super::{Answer, Ask, Keys, Protocol, Reply, Request, Status, Trade, View, supported};

/// See the module.
pub struct Usdm;

/// The venue gives at most so many executions in one reply.
const TRADES_MAX: usize = 1_000;

impl Protocol for Usdm {
    fn id(&self) -> &'static str {
        "binance-usdm"
    }
    fn base_url(&self) -> &'static str {
        "https://fapi.binance.com"
    }

    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)> {
        supported(order)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".:/_-".contains(&b);
        if order.id.is_empty() || order.id.len() > 36 || !order.id.bytes().all(legal) {
            return Err((
                "invalid",
                format!("`{}` is no client order id of the venue: 1 to 36 of [.A-Z:/a-z0-9_-]", order.id),
            ));
        }
        if order.post_only && (order.kind != OrderKind::Limit || order.time_in_force != TimeInForce::Gtc) {
            return Err(("invalid", "post-only is for limit orders that wait".into()));
        }
        Ok(())
    }

    fn request(&self, ask: &Ask, keys: &Keys, timestamp_ms: i64, recv_window_ms: u32) -> Request {
        let mut query = Query::default();
        let (method, path) = match ask {
            Ask::Time => {
                return Request { method: "GET", path: "/fapi/v1/time", query: String::new(), key_header: None };
            }
            Ask::Query { id, symbol } => {
                query.add("symbol", symbol).add("origClientOrderId", id);
                ("GET", "/fapi/v1/order")
            }
            Ask::Cancel { id, symbol } => {
                query.add("symbol", symbol).add("origClientOrderId", id);
                ("DELETE", "/fapi/v1/order")
            }
            Ask::Trades { symbol, venue_order_id, .. } => {
                query.add("symbol", symbol).add("orderId", venue_order_id).add("limit", &TRADES_MAX.to_string());
                ("GET", "/fapi/v1/userTrades")
            }
            Ask::Place { order, .. } => {
                new_order(order, &mut query);
                ("POST", "/fapi/v1/order")
            }
        };
        query.add("recvWindow", &recv_window_ms.to_string()).add("timestamp", &timestamp_ms.to_string());
        let signature = sign::binance::hmac(&keys.secret, query.as_str());
        query.add("signature", &signature);
        Request { method, path, query: query.into_string(), key_header: Some(sign::binance::KEY_HEADER) }
    }

    fn answer(&self, ask: &Ask, reply: &Reply) -> Answer {
        if reply.status == 200 {
            let read = match ask {
                Ask::Time => serde_json::from_str(&reply.body)
                    .map(|TimeReply { server_time }| Answer::Time { server_ms: server_time })
                    .map_err(|error| error.to_string()),
                Ask::Query { id, .. } | Ask::Cancel { id, .. } => view(id, &reply.body),
                Ask::Place { order, .. } => view(&order.id, &reply.body),
                Ask::Trades { venue_order_id, .. } => trades(venue_order_id, &reply.body),
            };
            return read.unwrap_or_else(|why| Answer::Doubt { why: format!("a reply that cannot be read: {why}") });
        }
        let error: Option<ErrorReply> = serde_json::from_str(&reply.body).ok();
        let code = error.as_ref().map_or(0, |error| error.code);
        let why = match error {
            Some(ErrorReply { code, msg }) => format!("{} ({code}): {msg}", reply.status),
            None => format!("status {}", reply.status),
        };
        let limited =
            |why| Answer::Limited { retry_after_ms: reply.retry_after_s.map(|s| s.saturating_mul(1_000)), why };
        match (ask, reply.status, code) {
            // 403 is the venue's firewall, in front of everything.
            (_, 403 | 418 | 429, _) | (_, 400, -1003 | -1015) => limited(why),
            // "Service Unavailable" says that nothing was done, "Unknown error" does not; both are 503.
            (_, 503, -1008) => limited(why),
            (_, 500.., _) | (_, _, -1006 | -1007 | -1000 | -1001) => Answer::Doubt { why },
            (_, _, -1021) => Answer::Late,
            (_, _, -1002 | -1022 | -2014 | -2015) | (_, 401, _) => Answer::Forbidden { why },
            (Ask::Query { .. }, 400 | 404, -2013) | (Ask::Cancel { .. }, 400 | 404, -2011 | -2013) => Answer::Unknown,
            (Ask::Place { .. }, 400, -4116) => Answer::Duplicate,
            // The venue's word that this order is not taken; what it says without a code is not one.
            (Ask::Place { .. }, 400, ..0) => Answer::Refused { code: code.to_string(), reason: why },
            _ => Answer::Doubt { why },
        }
    }
}

fn new_order(order: &Order, query: &mut Query) {
    let (side, kind) = match (order.side, order.kind) {
        (Side::Buy, OrderKind::Limit) => ("BUY", "LIMIT"),
        (Side::Sell, OrderKind::Limit) => ("SELL", "LIMIT"),
        (Side::Buy, _) => ("BUY", "MARKET"),
        (Side::Sell, _) => ("SELL", "MARKET"),
    };
    query.add("symbol", &order.symbol).add("side", side).add("type", kind).add("quantity", &order.qty.to_string());
    if let Some(limit) = order.limit {
        let life = match order.time_in_force {
            TimeInForce::Gtc if order.post_only => "GTX",
            TimeInForce::Gtc => "GTC",
            TimeInForce::Ioc => "IOC",
            TimeInForce::Fok => "FOK",
        };
        query.add("price", &limit.to_string()).add("timeInForce", life);
    }
    if order.reduce_only {
        query.add("reduceOnly", "true");
    }
    query.add("newClientOrderId", &order.id).add("newOrderRespType", "RESULT");
}

#[derive(Deserialize)]
struct ErrorReply {
    code: i64,
    #[serde(default)]
    msg: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TimeReply {
    server_time: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderReply {
    order_id: u64,
    client_order_id: String,
    symbol: String,
    status: String,
    side: String,
    orig_qty: Qty,
    executed_qty: Qty,
    update_time: i64,
}

/// Error: what is wrong with it, in words.
fn view(id: &str, body: &str) -> Result<Answer, String> {
    let reply: OrderReply = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if reply.client_order_id != id {
        return Err(format!("asked for {id}, answered of {}", reply.client_order_id));
    }
    let status = match reply.status.as_str() {
        "NEW" | "PARTIALLY_FILLED" => Status::Open,
        "FILLED" => Status::Filled,
        "CANCELED" => Status::Cancelled,
        "EXPIRED" | "EXPIRED_IN_MATCH" => Status::Expired,
        "REJECTED" => Status::Rejected,
        other => return Err(format!("unknown status `{other}`")),
    };
    Ok(Answer::Order(View {
        venue_order_id: reply.order_id.to_string(),
        symbol: reply.symbol,
        side: side(&reply.side)?,
        qty: reply.orig_qty,
        filled: reply.executed_qty,
        status,
        updated_ms: reply.update_time,
    }))
}

fn side(word: &str) -> Result<Side, String> {
    match word {
        "BUY" => Ok(Side::Buy),
        "SELL" => Ok(Side::Sell),
        other => Err(format!("unknown side `{other}`")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TradeReply {
    id: u64,
    order_id: u64,
    price: Price,
    qty: Qty,
    /// Positive is a cost, as the venue answers.
    commission: Notional,
    commission_asset: String,
    maker: bool,
    time: i64,
}

fn trades(venue_order_id: &str, body: &str) -> Result<Answer, String> {
    let mut rows: Vec<TradeReply> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if rows.len() >= TRADES_MAX {
        return Err(format!("an order of {TRADES_MAX} executions or more, of which the venue shows no more"));
    }
    rows.retain(|row| row.order_id.to_string() == venue_order_id);
    rows.sort_by_key(|row| row.id);
    let trade = |row: TradeReply| Trade {
        id: row.id.to_string(),
        venue_order_id: row.order_id.to_string(),
        price: row.price,
        qty: row.qty,
        fee: row.commission,
        fee_asset: row.commission_asset,
        liquidity: if row.maker { Liquidity::Maker } else { Liquidity::Taker },
        ts_ms: row.time,
    };
    Ok(Answer::Trades(rows.into_iter().map(trade).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::sign::Secret;
    use crate::tape::order;

    fn keys() -> Keys {
        Keys { key: "k".into(), secret: Secret::new("s") }
    }
    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after_s: Some(3), body: body.into() }
    }
    fn query() -> Ask {
        Ask::Query { id: "abc".into(), symbol: "BTCUSDT".into() }
    }
    fn place() -> Ask {
        Ask::Place { order: Box::new(order("buy 0.4 BTCUSDT")), timestamp_ms: 1 }
    }

    #[test]
    fn orders_go_out_in_the_venues_words_with_our_id_and_the_attempts_timestamp() {
        let of = |text: &str| {
            let ask = Ask::Place { order: Box::new(order(text)), timestamp_ms: 1 };
            let request = Usdm.request(&ask, &keys(), 1_499_827_319_559, 3_000);
            let (signed, signature) = request.query.split_once("&signature=").unwrap();
            assert_eq!(sign::binance::hmac(&keys().secret, signed), signature);
            (request.method, request.path, signed.replace("&recvWindow=3000&timestamp=1499827319559", " ok"))
        };
        let said = |query: &str| ("POST", "/fapi/v1/order", query.to_owned());
        assert_eq!(
            of("buy 0.40 BTCUSDT"),
            said("symbol=BTCUSDT&side=BUY&type=MARKET&quantity=0.4&newClientOrderId=o1&newOrderRespType=RESULT ok")
        );
        assert_eq!(
            of("sell 1 BTCUSDT limit=99.5 post reduce"),
            said(
                "symbol=BTCUSDT&side=SELL&type=LIMIT&quantity=1&price=99.5&timeInForce=GTX&reduceOnly=true&newClientOrderId=o1&newOrderRespType=RESULT ok"
            )
        );
        assert!(of("buy 1 BTCUSDT limit=99.5 fok").2.contains("timeInForce=FOK"));
    }

    #[test]
    fn an_id_that_the_venue_would_refuse_is_refused_at_the_door() {
        let mut long = order("buy 1 BTCUSDT");
        long.id = "x".repeat(37);
        assert_eq!(Usdm.admits(&long).unwrap_err().0, "invalid");
        assert!(Usdm.admits(&order("buy 1 BTCUSDT limit=9 post")).is_ok());
        assert!(Usdm.admits(&order("buy 1 BTCUSDT post")).is_err());
    }

    #[test]
    fn recorded_orders_and_executions_are_read() {
        let Some(root) = schemas::fixtures::root() else { return };
        let text = std::fs::read_to_string(root.join("fixtures/venues/binance/rest_examples.jsonl")).expect("examples");
        let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        let response = |method: &str, path: &str| {
            let row = rows.iter().find(|row| row["method"] == method && row["path"] == path).expect("an example");
            row["response"].clone()
        };
        let orders = response("GET", "/fapi/v1/allOrders");
        let Ok(Answer::Order(seen)) = view("abc", &orders[0].to_string()) else { panic!("not read: {orders}") };
        assert_eq!(
            (seen.venue_order_id.as_str(), seen.status, seen.qty),
            ("1917641", Status::Open, "0.4".parse().unwrap())
        );
        let cancelled = response("DELETE", "/fapi/v1/order");
        let ask = Ask::Cancel { id: "myOrder1".into(), symbol: "BTCUSDT".into() };
        let answer = Usdm.answer(&ask, &reply(200, &cancelled.to_string()));
        assert!(matches!(&answer, Answer::Order(view) if view.status == Status::Cancelled), "{answer:?}");
        let executions = response("GET", "/fapi/v1/userTrades").to_string();
        let Ok(Answer::Trades(of_it)) = trades("25851813", &executions) else { panic!("not read: {executions}") };
        assert_eq!((of_it.len(), of_it[0].id.as_str(), of_it[0].qty), (1, "698759", "0.002".parse().unwrap()));
        assert_eq!(trades("1", &executions), Ok(Answer::Trades(vec![])), "executions of other orders are not ours");
    }

    #[test]
    fn what_may_have_been_done_is_doubt_and_what_was_not_done_is_not() {
        let error = |code: i64| format!("{{\"code\":{code},\"msg\":\"m\"}}");
        let of = |ask: &Ask, status: u16, code: i64| Usdm.answer(ask, &reply(status, &error(code)));
        for (status, code) in [(503, -1000), (504, 0), (408, -1007), (400, -1006), (404, 0), (400, 7)] {
            assert!(matches!(of(&place(), status, code), Answer::Doubt { .. }), "{status} {code}");
        }
        for code in [-2019, -2022, -1111, -1121, -4164, -5022] {
            assert!(matches!(of(&place(), 400, code), Answer::Refused { .. }), "{code}");
            assert!(matches!(of(&query(), 400, code), Answer::Doubt { .. }), "a query refuses no order: {code}");
        }
        assert_eq!(of(&place(), 400, -4116), Answer::Duplicate);
        assert_eq!(of(&place(), 400, -1021), Answer::Late);
        assert_eq!(of(&query(), 400, -2013), Answer::Unknown);
        assert!(matches!(of(&place(), 400, -2013), Answer::Refused { .. }));
        for status in [403, 418, 429] {
            let answer = of(&place(), status, -1003);
            assert!(matches!(answer, Answer::Limited { retry_after_ms: Some(3_000), .. }), "{answer:?}");
        }
        assert!(matches!(of(&query(), 401, -2015), Answer::Forbidden { .. }));
        assert!(matches!(of(&place(), 400, -1022), Answer::Forbidden { .. }));
    }

    #[test]
    fn a_reply_of_another_order_or_in_unknown_words_is_doubt() {
        let body = |id: &str, status: &str| {
            format!(
                "{{\"orderId\":1,\"symbol\":\"BTCUSDT\",\"status\":\"{status}\",\"clientOrderId\":\"{id}\",\
                 \"origQty\":\"1\",\"executedQty\":\"0\",\"side\":\"BUY\",\"updateTime\":5}}"
            )
        };
        assert!(matches!(Usdm.answer(&query(), &reply(200, &body("abc", "NEW"))), Answer::Order(_)));
        for (id, status) in [("other", "NEW"), ("abc", "MYSTERY")] {
            assert!(matches!(Usdm.answer(&query(), &reply(200, &body(id, status))), Answer::Doubt { .. }));
        }
    }
}
