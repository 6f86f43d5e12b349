//! REST: routes with their weights, the budget with its 429 and 418, signatures, public answers.

use serde_json::json;

use super::channel::INTERVALS;
use super::encode;
use super::trading::{Params, instrument, need};
use super::user::{eight, open_orders};
use super::{Binance, LISTEN_KEYS_MAX, pairs};
use crate::book::Side;
use crate::floor::{Floor, Reply, Request};
use crate::history::Bar;
use crate::instrument::VenueId;
use crate::market::Listing;
use crate::orders::size;
use crate::sign::hmac_sha256_hex;

/// `{"code":-1121,"msg":"Invalid symbol."}` with its HTTP status.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub status: u16,
    pub code: i64,
    pub msg: String,
}

impl ApiError {
    pub(super) fn bad(code: i64, msg: &str) -> Self {
        Self { status: 400, code, msg: msg.to_owned() }
    }
    pub fn body(&self) -> String {
        json!({ "code": self.code, "msg": self.msg }).to_string()
    }
}

/// Who may call a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    /// The key in the header.
    Key,
    /// Key, timestamp and signature.
    Signed,
}

type Handler = fn(&mut Binance, &mut Floor, &Params) -> Result<String, ApiError>;

struct Route {
    method: &'static str,
    /// Without the market's prefix (`/api/v3`, `/fapi/v1`, `/dapi/v1`).
    path: &'static str,
    access: Access,
    /// Weight on the spot market; the futures' are close enough to be counted alike.
    weight: fn(&Params) -> u64,
    handler: Handler,
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    weight: fn(&Params) -> u64,
    handler: Handler,
) -> Route {
    Route { method, path, access, weight, handler }
}

fn limit(params: &Params, usual: usize) -> usize {
    params.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usual)
}

fn depth_weight(params: &Params) -> u64 {
    match limit(params, 100) {
        0..=100 => 5,
        101..=500 => 25,
        501..=1000 => 50,
        _ => 250,
    }
}

const ROUTES: &[Route] = &[
    route("GET", "/ping", Access::Public, |_| 1, |_, _, _| Ok("{}".to_owned())),
    route("GET", "/time", Access::Public, |_| 1, |_, f, _| Ok(format!(r#"{{"serverTime":{}}}"#, f.now_ms()))),
    route("GET", "/exchangeInfo", Access::Public, |_| 20, exchange_info),
    route("GET", "/depth", Access::Public, depth_weight, depth),
    route("GET", "/trades", Access::Public, |_| 25, |_, f, p| trades(f, p, None)),
    route("GET", "/historicalTrades", Access::Key, |_| 25, |_, f, p| trades(f, p, p.get("fromId"))),
    route("GET", "/aggTrades", Access::Public, |_| 4, agg_trades),
    route("GET", "/klines", Access::Public, |_| 2, klines),
    route("GET", "/ticker/24hr", Access::Public, |_| 2, ticker_24hr),
    route("GET", "/ticker/price", Access::Public, |_| 2, ticker_price),
    route("GET", "/ticker/bookTicker", Access::Public, |_| 2, book_ticker),
    route("GET", "/premiumIndex", Access::Public, |_| 1, premium_index),
    route("GET", "/openInterest", Access::Public, |_| 1, open_interest),
    route("POST", "/order", Access::Signed, |_| 1, |b, f, p| b.new_order(f, p, false)),
    route("POST", "/order/test", Access::Signed, |_| 1, |b, f, p| b.new_order(f, p, true)),
    route("DELETE", "/order", Access::Signed, |_| 1, |b, f, p| b.cancel_order(f, p)),
    route("GET", "/order", Access::Signed, |_| 4, |b, f, p| b.query_order(f, p)),
    route("GET", "/openOrders", Access::Signed, |_| 6, list_open),
    route("DELETE", "/openOrders", Access::Signed, |_| 1, |b, f, p| b.cancel_all(f, p)),
    route("DELETE", "/allOpenOrders", Access::Signed, |_| 1, |b, f, p| b.cancel_all(f, p)),
    route("GET", "/allOrders", Access::Signed, |_| 20, list_all),
    route("GET", "/myTrades", Access::Signed, |_| 20, my_trades),
    route("GET", "/userTrades", Access::Signed, |_| 5, my_trades),
    route("GET", "/account", Access::Signed, |_| 20, account),
    route("GET", "/balance", Access::Signed, |_| 5, balance),
    route("GET", "/positionRisk", Access::Signed, |_| 5, positions),
    route("POST", "/listenKey", Access::Key, |_| 1, new_listen_key),
    route("PUT", "/listenKey", Access::Key, |_| 1, keep_listen_key),
    route("DELETE", "/listenKey", Access::Key, |_| 1, end_listen_key),
];

const FUTURES_ONLY: &[&str] =
    &["/premiumIndex", "/openInterest", "/allOpenOrders", "/userTrades", "/balance", "/positionRisk", "/listenKey"];
const SPOT_ONLY: &[&str] = &["/order/test", "/myTrades"];

impl Binance {
    pub(super) fn rest_request(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let prefixes: &[&str] = match self.venue {
            VenueId::BinanceSpot => &["/api/v3"],
            VenueId::BinanceUsdm => &["/fapi/v1", "/fapi/v2", "/fapi/v3"],
            _ => &["/dapi/v1"],
        };
        let path = prefixes.iter().find_map(|p| request.path.strip_prefix(p));
        let wrong_market = |path: &str| if self.futures() { SPOT_ONLY } else { FUTURES_ONLY }.contains(&path);
        let found = path.filter(|p| !wrong_market(p)).and_then(|path| {
            let same_path = || ROUTES.iter().filter(move |r| r.path == path);
            same_path().find(|r| r.method == request.method).or_else(|| same_path().next())
        });
        let Some(route) = found else { return Reply::json(404, "") };
        if route.method != request.method {
            return Reply::json(405, r#"{"code":-1099,"msg":"Not found, authenticated, or authorized."}"#);
        }
        let mut all = pairs(&request.query);
        all.extend(pairs(&request.body));
        let params: Params = all.into_iter().collect();
        if let Err(reply) = self.spend(floor, (route.weight)(&params)) {
            return reply;
        }
        let result = self
            .admit(floor, request, route.access, &params)
            .and_then(|()| self.count_order(floor, route))
            .and_then(|()| (route.handler)(self, floor, &params));
        let mut reply = match result {
            Ok(body) => Reply::json(200, body),
            Err(error) => Reply::json(error.status, error.body()),
        };
        reply.headers.push(("x-mbx-used-weight-1m".to_owned(), self.budget.weight.to_string()));
        reply.headers.push(("x-mbx-used-weight".to_owned(), self.budget.weight.to_string()));
        if route.path == "/order" && route.method == "POST" {
            reply.headers.push(("x-mbx-order-count-10s".to_owned(), self.budget.orders.len().to_string()));
            reply.headers.push(("x-mbx-order-count-1d".to_owned(), self.budget.orders_of_day.to_string()));
        }
        if route.path == "/depth" && reply.status == 200 {
            let symbol = params.get("symbol").map_or("", String::as_str);
            if let Some(fault) = floor.faults.take("snapshot_inside", symbol) {
                reply.delay_ms = fault.ms;
            }
            if let Some(fault) = floor.faults.take("snapshot_newer", symbol) {
                floor.hold(fault.ms);
            }
        }
        reply
    }

    /// Takes weight from the minute's budget; the error is the 429 or 418.
    pub(super) fn spend(&mut self, floor: &mut Floor, weight: u64) -> Result<(), Reply> {
        let config = floor.config.binance.clone();
        let now = floor.mono_ms;
        let minute = now / 60_000;
        if self.budget.minute != minute {
            (self.budget.minute, self.budget.weight, self.budget.warnings) = (minute, 0, 0);
        }
        if floor.faults.take("rest_418", "").is_some() {
            self.budget.banned_until_ms = now + config.ban_ms;
        }
        let refused = |status: u16, after_s: u64, msg: String| {
            let mut reply = Reply::json(status, json!({ "code": -1003, "msg": msg }));
            reply.headers.push(("retry-after".to_owned(), after_s.to_string()));
            reply
        };
        let banned = |until_ms: u64| {
            let until = floor.wall_ms + (until_ms - now) as i64;
            let msg = format!(
                "Way too much request weight used; IP banned until {until}. Please use WebSocket Streams for live updates to avoid bans."
            );
            refused(418, (until_ms - now).div_ceil(1_000), msg)
        };
        if self.budget.banned_until_ms > now {
            return Err(banned(self.budget.banned_until_ms));
        }
        let max = if self.futures() { config.futures_weight_per_minute_max } else { config.spot_weight_per_minute_max };
        self.budget.weight += weight;
        let forced = floor.faults.take("rest_429", "").is_some();
        if forced || self.budget.weight > max {
            self.budget.warnings += 1;
            if self.budget.warnings > config.warnings_before_ban {
                self.budget.banned_until_ms = now + config.ban_ms;
                return Err(banned(self.budget.banned_until_ms));
            }
            let msg = format!(
                "Too much request weight used; current limit is {max} request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
            );
            // A refusal on command is over as soon as a header can say.
            let after_s = if forced { 1 } else { 60 - now / 1_000 % 60 };
            return Err(refused(429, after_s, msg));
        }
        Ok(())
    }

    fn count_order(&mut self, floor: &Floor, route: &Route) -> Result<(), ApiError> {
        if route.path != "/order" || route.method != "POST" {
            return Ok(());
        }
        self.spend_order(floor)
    }

    pub(super) fn spend_order(&mut self, floor: &Floor) -> Result<(), ApiError> {
        let max = floor.config.binance.orders_per_10s_max;
        while self.budget.orders.front().is_some_and(|at| at + 10_000 <= floor.mono_ms) {
            self.budget.orders.pop_front();
        }
        if self.budget.orders.len() >= max {
            let msg = format!("Too many new orders; current limit is {max} orders per 10 SECOND.");
            return Err(ApiError { status: 429, code: -1015, msg });
        }
        self.budget.orders.push_back(floor.mono_ms);
        self.budget.orders_of_day += 1;
        Ok(())
    }

    pub(super) fn used_weight(&self) -> u64 {
        self.budget.weight
    }
    pub(super) fn orders_of_10s(&self) -> usize {
        self.budget.orders.len()
    }

    fn admit(&self, floor: &mut Floor, request: &Request, access: Access, params: &Params) -> Result<(), ApiError> {
        if access == Access::Public {
            return Ok(());
        }
        match request.headers.get("x-mbx-apikey") {
            // historicalTrades has become public on the spot market; a listen key needs no more than the key.
            None if access == Access::Key && request.path.ends_with("/historicalTrades") && !self.futures() => {
                return Ok(());
            }
            None => return Err(ApiError::bad(-2014, "API-key format invalid.")),
            Some(key) if *key != floor.config.account.api_key => {
                return Err(ApiError {
                    status: 401,
                    code: -2015,
                    msg: "Invalid API-key, IP, or permissions for action.".to_owned(),
                });
            }
            Some(_) if access == Access::Key => return Ok(()),
            Some(_) => {}
        }
        self.on_time(floor, params)?;
        let signature = need(params, "signature")?;
        let without =
            |text: &str| text.split('&').filter(|part| !part.starts_with("signature=")).collect::<Vec<_>>().join("&");
        // Query and body are signed as one text without a separator.
        let payload = format!("{}{}", without(&request.query), without(&request.body));
        if hmac_sha256_hex(&floor.config.account.api_secret, &payload) != signature {
            return Err(ApiError::bad(-1022, "Signature for this request is not valid."));
        }
        Ok(())
    }

    /// The timestamp must be near the virtual clock or near the machine's: clients use the one or the other.
    pub(super) fn on_time(&self, floor: &mut Floor, params: &Params) -> Result<(), ApiError> {
        let timestamp: i64 = need(params, "timestamp")?.parse().map_err(|_| {
            ApiError::bad(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
        })?;
        let timestamp = if timestamp > 100_000_000_000_000 { timestamp / 1_000 } else { timestamp };
        let window: i64 = params.get("recvWindow").and_then(|w| w.parse().ok()).unwrap_or(5_000);
        if window > 60_000 {
            return Err(ApiError::bad(-1131, "recvWindow must be less than 60000."));
        }
        let fits = |clock_ms: i64| timestamp <= clock_ms + 1_000 && clock_ms - timestamp <= window;
        let skewed = floor.faults.take("clock_skew", "").is_some();
        if skewed || !(fits(floor.now_ms()) || fits(floor.wall_ms)) {
            return Err(ApiError::bad(-1021, "Timestamp for this request is outside of the recvWindow."));
        }
        Ok(())
    }
}

pub(super) fn depth(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let limit = limit(params, if b.futures() { 500 } else { 100 }).clamp(1, 5_000);
    if b.futures() && ![5, 10, 20, 50, 100, 500, 1000].contains(&limit) {
        return Err(ApiError::bad(-4021, &format!("{limit} is not valid depth limit.")));
    }
    let symbol = floor.market.listing(i).spec.symbol.clone();
    if let Some(recorded) = &floor.recorded {
        let (id, bids, asks) = recorded.depth(&symbol, limit).ok_or_else(|| ApiError::bad(-1121, "Invalid symbol."))?;
        let rows = |rows: Vec<(String, String)>| json!(rows).to_string();
        let (bids, asks, at) = (rows(bids), rows(asks), floor.now_ms());
        let times = if b.futures() { format!(r#""E":{at},"T":{at},"#) } else { String::new() };
        return Ok(format!(r#"{{"lastUpdateId":{id},{times}"bids":{bids},"asks":{asks}}}"#));
    }
    let old = floor.faults.take("snapshot_older", &symbol).and_then(|_| b.old_books.get(&i).cloned());
    let mut snapshot = old.unwrap_or_else(|| floor.market.snapshot(i, limit));
    snapshot.bids.truncate(limit);
    snapshot.asks.truncate(limit);
    Ok(encode::rest_depth(&floor.market.listing(i).spec, &snapshot, b.futures().then(|| floor.now_ms())))
}

pub(super) fn exchange_info(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let config = &floor.config.binance;
    let wanted: Option<Vec<String>> = match (params.get("symbol"), params.get("symbols")) {
        (Some(symbol), _) => Some(vec![symbol.clone()]),
        (None, Some(list)) => Some(
            serde_json::from_str(list)
                .map_err(|_| ApiError::bad(-1100, "Illegal characters found in parameter 'symbols'."))?,
        ),
        (None, None) => None,
    };
    if let Some(unknown) = wanted.iter().flatten().find(|s| floor.market.find(s).is_none()) {
        return Err(ApiError::bad(-1121, &format!("Invalid symbol `{unknown}`.")));
    }
    let shown = |l: &&Listing| wanted.as_ref().is_none_or(|w| w.contains(&l.spec.symbol));
    let symbols: Vec<_> = floor.market.listings().iter().filter(shown).map(symbol_info).collect();
    let weight = if b.futures() { config.futures_weight_per_minute_max } else { config.spot_weight_per_minute_max };
    let limits = json!([
        { "rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight },
        { "rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": config.orders_per_10s_max },
        { "rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 160000 },
    ]);
    let mut info = json!({
        "timezone": "UTC", "serverTime": floor.now_ms(), "rateLimits": limits, "exchangeFilters": [], "symbols": symbols,
    });
    if b.futures() {
        info["futuresType"] = json!(if b.venue == VenueId::BinanceUsdm { "U_MARGINED" } else { "C_MARGINED" });
    }
    Ok(info.to_string())
}

fn symbol_info(l: &Listing) -> serde_json::Value {
    let spec = &l.spec;
    let (tick, step) = (spec.price.step_text(), spec.size.step_text());
    let price = json!({ "filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00", "tickSize": tick });
    let lot = json!({ "filterType": "LOT_SIZE", "minQty": step, "maxQty": "900000.00", "stepSize": step });
    let (base, quote) = (&spec.base, &spec.quote);
    if !spec.perpetual {
        return json!({
            "symbol": spec.symbol, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8,
            "quoteAsset": quote, "quotePrecision": 8, "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"],
            "icebergAllowed": false, "ocoAllowed": false, "otoAllowed": false, "quoteOrderQtyMarketAllowed": true,
            "allowTrailingStop": false, "cancelReplaceAllowed": false, "isSpotTradingAllowed": true,
            "isMarginTradingAllowed": false, "permissions": [], "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "NONE", "allowedSelfTradePreventionModes": ["NONE"],
            "filters": [price, lot,
                { "filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "900000.00000000", "stepSize": "0.00000000" },
                { "filterType": "NOTIONAL", "minNotional": format!("{}.00000000", spec.min_notional), "applyMinToMarket": true, "maxNotional": "9000000.00000000", "applyMaxToMarket": false, "avgPriceMins": 5 },
                { "filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2", "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5 },
                { "filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200 }],
        });
    }
    let mut info = json!({
        "symbol": spec.symbol, "pair": format!("{base}{quote}"), "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000_i64, "onboardDate": 1_569_398_400_000_i64,
        "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000", "baseAsset": base, "quoteAsset": quote,
        "marginAsset": if spec.inverse { base } else { quote },
        "pricePrecision": spec.price.digits, "quantityPrecision": spec.size.s,
        "baseAssetPrecision": 8, "quotePrecision": 8, "underlyingType": "COIN", "underlyingSubType": [],
        "triggerProtect": "0.0500", "liquidationFee": "0.012000", "marketTakeBound": "0.30",
        "filters": [price, lot,
            { "filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": "900000", "stepSize": step },
            { "filterType": "MAX_NUM_ORDERS", "limit": 200 },
            { "filterType": "MIN_NOTIONAL", "notional": spec.min_notional.to_string() },
            { "filterType": "PERCENT_PRICE", "multiplierUp": "5", "multiplierDown": "0.2", "multiplierDecimal": "4" }],
        "orderTypes": ["LIMIT", "MARKET"], "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    });
    // COIN-M calls the status by another name and says what a contract is worth.
    if spec.inverse {
        info["contractStatus"] = json!("TRADING");
        info["contractSize"] = json!(spec.contract_size);
    } else {
        info["status"] = json!("TRADING");
    }
    info
}

fn trades(floor: &Floor, params: &Params, from: Option<&String>) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let limit = limit(params, 500).clamp(1, 1_000);
    let listing = floor.market.listing(i);
    let spec = &listing.spec;
    let all = floor.history[i].trades();
    let skip = match from {
        Some(id) => {
            let id: u64 = id.parse().map_err(|_| {
                ApiError::bad(-1102, "Mandatory parameter 'fromId' was not sent, was empty/null, or malformed.")
            })?;
            floor.history[i].trades().take_while(|t| t.id < id).count()
        }
        None => all.len().saturating_sub(limit),
    };
    let best = if spec.perpetual { "" } else { r#","isBestMatch":true"# };
    let key = if spec.inverse { "baseQty" } else { "quoteQty" };
    let row = |t: &crate::market::Trade| {
        let (p, q) = (spec.price.text(t.price), spec.size.text(t.qty));
        let value = encode::quote_text(spec, spec.value(t.price, t.qty).0);
        let (id, at, maker) = (t.id, t.time_ns / 1_000_000, t.taker == Side::Sell);
        format!(r#"{{"id":{id},"price":"{p}","qty":"{q}","{key}":"{value}","time":{at},"isBuyerMaker":{maker}{best}}}"#)
    };
    let rows: Vec<String> = floor.history[i].trades().skip(skip).take(limit).map(row).collect();
    Ok(format!("[{}]", rows.join(",")))
}

fn agg_trades(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let limit = limit(params, 500).clamp(1, 1_000);
    let number = |key: &str| params.get(key).and_then(|v| v.parse::<i64>().ok());
    let mut rows: Vec<encode::Aggregate> = Vec::new();
    for t in floor.history[i].trades() {
        match rows.last_mut().filter(|a| a.id == t.aggregate) {
            Some(a) => {
                a.qty += t.qty;
                a.last = t.id;
            }
            None => rows.push(encode::Aggregate::of(t)),
        }
    }
    let (from, start, end) = (number("fromId"), number("startTime"), number("endTime"));
    rows.retain(|a| {
        let at = a.time_ns / 1_000_000;
        from.is_none_or(|f| a.id as i64 >= f) && start.is_none_or(|s| at >= s) && end.is_none_or(|e| at <= e)
    });
    // Without a beginning the newest are meant.
    if from.is_none() && start.is_none() {
        rows.drain(..rows.len().saturating_sub(limit));
    }
    rows.truncate(limit);
    let spec = &floor.market.listing(i).spec;
    let best = if b.futures() { "" } else { r#","M":true"# };
    let row = |a: &encode::Aggregate| {
        let (p, q, at) = (spec.price.text(a.price), spec.size.text(a.qty), a.time_ns / 1_000_000);
        let (id, f, l, m) = (a.id, a.first, a.last, a.taker == Side::Sell);
        format!(r#"{{"a":{id},"p":"{p}","q":"{q}","f":{f},"l":{l},"T":{at},"m":{m}{best}}}"#)
    };
    Ok(format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join(",")))
}

fn klines(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let interval = need(params, "interval")?;
    let known = INTERVALS.iter().find(|(name, _)| *name == interval && !(b.futures() && *name == "1s"));
    let Some(&(_, width)) = known else { return Err(ApiError::bad(-1120, "Invalid interval.")) };
    let limit = limit(params, 500).clamp(1, if b.futures() { 1_500 } else { 1_000 });
    let number = |key: &str| params.get(key).and_then(|v| v.parse::<i64>().ok());
    let now_ms = floor.now_ms();
    floor.history[i].pass(now_ms);
    let start = number("startTime").unwrap_or(i64::MIN / 4);
    let end = number("endTime").unwrap_or(now_ms).min(now_ms);
    let end = if number("startTime").is_some() { end.min(start.saturating_add(width * limit as i64 - 1)) } else { end };
    let rows = floor.history[i].bars(width, start, end, limit);
    let spec = &floor.market.listing(i).spec;
    let fits = |bar: &&Bar| bar.open_ms >= start && bar.open_ms <= end;
    let rows: Vec<String> =
        rows.iter().filter(fits).take(limit).map(|bar| encode::kline_row(spec, bar, width)).collect();
    Ok(format!("[{}]", rows.join(",")))
}

/// The asked-for symbol's rows, or all in an array.
fn each(floor: &Floor, params: &Params, row: impl Fn(usize) -> serde_json::Value) -> Result<String, ApiError> {
    if params.contains_key("symbol") {
        return instrument(floor, params).map(|i| row(i).to_string());
    }
    Ok(json!((0..floor.market.listings().len()).map(row).collect::<Vec<_>>()).to_string())
}

fn ticker_24hr(_: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let now_ms = floor.now_ms();
    floor.history.iter_mut().for_each(|h| h.pass(now_ms));
    each(floor, params, |i| {
        let l = floor.market.listing(i);
        let day = floor.history[i].day(now_ms).unwrap_or_default();
        let price = |units| l.spec.price.text(units);
        json!({
            "symbol": l.spec.symbol, "priceChange": price(day.close - day.open), "priceChangePercent": encode::percent(&day, 3),
            "lastPrice": price(day.close), "openPrice": price(day.open), "highPrice": price(day.high), "lowPrice": price(day.low),
            "bidPrice": price(l.book.best(Side::Buy).unwrap_or(0)), "askPrice": price(l.book.best(Side::Sell).unwrap_or(0)),
            "volume": l.spec.size.text(day.volume), "quoteVolume": encode::quote_text(&l.spec, day.value),
            "openTime": now_ms - 86_400_000, "closeTime": now_ms, "firstId": day.first, "lastId": day.last, "count": day.n,
        })
    })
}

fn ticker_price(_: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    each(floor, params, |i| {
        let l = floor.market.listing(i);
        let last = l.last.map(|t| t.price).or(l.book.best(Side::Buy)).unwrap_or(0);
        json!({ "symbol": l.spec.symbol, "price": l.spec.price.text(last) })
    })
}

fn book_ticker(_: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    each(floor, params, |i| {
        let l = floor.market.listing(i);
        let (bid, ask) = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
        json!({
            "symbol": l.spec.symbol, "bidPrice": l.spec.price.text(bid.0), "bidQty": l.spec.size.text(bid.1),
            "askPrice": l.spec.price.text(ask.0), "askQty": l.spec.size.text(ask.1),
        })
    })
}

fn premium_index(_: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let now = floor.now_ms();
    each(floor, params, |i| {
        let l = floor.market.listing(i);
        json!({
            "symbol": l.spec.symbol, "markPrice": encode::float8(l.mark()), "indexPrice": encode::float8(l.index()),
            "estimatedSettlePrice": encode::float8(l.mark()), "lastFundingRate": encode::float8(l.funding()),
            "interestRate": "0.00010000", "nextFundingTime": encode::next_funding_ms(now), "time": now,
        })
    })
}

fn open_interest(_: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let l = floor.market.listing(i);
    // Nobody counts positions here: what the book holds on both sides stands for it.
    let lots: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
    let mut row = json!({ "symbol": l.spec.symbol, "openInterest": l.spec.size.text(lots), "time": floor.now_ms() });
    // COIN-M counts contracts, and names the pair and the kind beside the symbol.
    if l.spec.inverse {
        row["pair"] = json!(format!("{}USD", l.spec.base));
        row["contractType"] = json!("PERPETUAL");
    }
    Ok(row.to_string())
}

fn list_open(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = if params.contains_key("symbol") { Some(instrument(floor, params)?) } else { None };
    let rows: Vec<String> = open_orders(floor, i).map(|o| b.shown(floor, o)).collect();
    Ok(format!("[{}]", rows.join(",")))
}

fn list_all(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let limit = limit(params, 500).clamp(1, 1_000);
    let mine: Vec<_> = floor.desk.orders().filter(|o| o.ask.instrument == i).collect();
    let rows: Vec<String> = mine.iter().skip(mine.len().saturating_sub(limit)).map(|o| b.shown(floor, o)).collect();
    Ok(format!("[{}]", rows.join(",")))
}

fn my_trades(b: &mut Binance, floor: &mut Floor, params: &Params) -> Result<String, ApiError> {
    let i = instrument(floor, params)?;
    let limit = limit(params, 500).clamp(1, 1_000);
    let spec = &floor.market.listing(i).spec;
    let mut rows = Vec::new();
    let wanted = |id: u64| params.get("orderId").is_none_or(|asked| *asked == id.to_string());
    for order in floor.desk.orders().filter(|o| o.ask.instrument == i && wanted(o.id)) {
        let buyer = order.ask.side == Side::Buy;
        for f in &order.fills {
            let mut row = json!({
                "symbol": spec.symbol, "id": f.trade, "orderId": order.id, "price": spec.price.text(f.price),
                "qty": spec.size.text(f.qty), "quoteQty": encode::quote_text(spec, spec.value(f.price, f.qty).0),
                "commission": eight(f.fee), "commissionAsset": f.fee_coin, "time": f.time_ns / 1_000_000,
            });
            if b.futures() {
                row["buyer"] = json!(buyer);
                row["maker"] = json!(f.maker);
                row["side"] = json!(order.ask.side.upper());
                row["positionSide"] = json!("BOTH");
                row["realizedPnl"] = json!(eight(f.profit));
            } else {
                row["orderListId"] = json!(-1);
                row["isBuyer"] = json!(buyer);
                row["isMaker"] = json!(f.maker);
                row["isBestMatch"] = json!(true);
            }
            rows.push(row);
        }
    }
    rows.drain(..rows.len().saturating_sub(limit));
    Ok(json!(rows).to_string())
}

pub(super) fn account(b: &mut Binance, floor: &mut Floor, _: &Params) -> Result<String, ApiError> {
    let balances = floor.desk.balances();
    if b.futures() {
        let asset = |(coin, amount): (&String, &rust_decimal::Decimal)| {
            let amount = eight(*amount);
            json!({ "asset": coin, "walletBalance": amount, "marginBalance": amount, "availableBalance": amount, "crossWalletBalance": amount, "unrealizedProfit": "0.00000000" })
        };
        let assets: Vec<_> = balances.iter().map(asset).collect();
        return Ok(json!({ "canTrade": true, "updateTime": floor.now_ms(), "assets": assets, "positions": position_rows(floor) }).to_string());
    }
    let row = |coin: &String| {
        let locked = floor.desk.locked(&floor.market, coin);
        json!({ "asset": coin, "free": eight(floor.desk.balance(coin) - locked), "locked": eight(locked) })
    };
    let rows: Vec<_> = balances.keys().map(row).collect();
    let fee = eight(floor.desk.account().spot_fee);
    Ok(json!({
        "makerCommission": 10, "takerCommission": 10, "buyerCommission": 0, "sellerCommission": 0,
        "commissionRates": { "maker": fee, "taker": fee, "buyer": "0.00000000", "seller": "0.00000000" },
        "canTrade": true, "canWithdraw": false, "canDeposit": false, "brokered": false,
        "requireSelfTradePrevention": false, "preventSor": false, "updateTime": floor.now_ms(), "accountType": "SPOT",
        "balances": rows, "permissions": ["SPOT"], "uid": 1,
    })
    .to_string())
}

fn balance(_: &mut Binance, floor: &mut Floor, _: &Params) -> Result<String, ApiError> {
    let row = |(coin, amount): (&String, &rust_decimal::Decimal)| {
        let amount = eight(*amount);
        json!({ "accountAlias": "sim", "asset": coin, "balance": amount, "crossWalletBalance": amount, "crossUnPnl": "0.00000000", "availableBalance": amount, "maxWithdrawAmount": amount })
    };
    Ok(json!(floor.desk.balances().iter().map(row).collect::<Vec<_>>()).to_string())
}

fn position_rows(floor: &Floor) -> Vec<serde_json::Value> {
    let row = |(i, l): (usize, &Listing)| {
        let position = floor.desk.position(i);
        let tick = rust_decimal::Decimal::new(l.spec.price.m, l.spec.price.s);
        let entry = (position.entry * tick).round_dp(8);
        json!({
            "symbol": l.spec.symbol, "positionSide": "BOTH", "positionAmt": size(&l.spec, position.lots).to_string(),
            "entryPrice": entry.to_string(), "markPrice": encode::float8(l.mark()), "updateTime": floor.now_ms(),
        })
    };
    floor.market.listings().iter().enumerate().map(row).collect()
}

fn positions(_: &mut Binance, floor: &mut Floor, _: &Params) -> Result<String, ApiError> {
    Ok(json!(position_rows(floor)).to_string())
}

fn new_listen_key(b: &mut Binance, floor: &mut Floor, _: &Params) -> Result<String, ApiError> {
    let until = floor.mono_ms + floor.config.binance.listen_key_life_ms;
    // An account has one key: asking again prolongs it.
    if let Some((key, old)) = b.listen_keys.iter_mut().next() {
        *old = until;
        return Ok(json!({ "listenKey": key }).to_string());
    }
    debug_assert!(b.listen_keys.len() < LISTEN_KEYS_MAX, "Invariant: listen keys are bounded");
    let key = format!("simulatedlistenkey{:046}", b.next_listen_key);
    b.next_listen_key += 1;
    b.listen_keys.insert(key.clone(), until);
    Ok(json!({ "listenKey": key }).to_string())
}

fn keep_listen_key(b: &mut Binance, floor: &mut Floor, _: &Params) -> Result<String, ApiError> {
    if b.listen_keys.is_empty() {
        return Err(ApiError::bad(-1125, "This listenKey does not exist."));
    }
    new_listen_key(b, floor, &Params::new())
}

fn end_listen_key(b: &mut Binance, _: &mut Floor, _: &Params) -> Result<String, ApiError> {
    b.listen_keys.clear();
    Ok("{}".to_owned())
}
