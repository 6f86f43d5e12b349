//! REST: what the view holds, as JSON. One table of routes serves the router and `/api/openapi.json`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemas::Timeframe;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::candles;
use crate::hub::now_ms;
use crate::server::App;

/// A query parameter: name, meaning, whether it must be there.
pub type Parameter = (&'static str, &'static str, bool);

/// Every route with its meaning and parameters; the test of the OpenAPI document walks it.
pub const ROUTES: &[(&str, &str, &[Parameter])] = &[
    ("/api/status", "Mode, trading state, uptime, data age and bus connection", &[]),
    ("/api/positions", "Positions of the account", &[]),
    ("/api/trades", "Executions of the account, newest first", &[LIMIT]),
    ("/api/orders", "Orders with their state, newest first", &[LIMIT]),
    ("/api/account", "The account's newest snapshot", &[]),
    (
        "/api/equity",
        "Equity over time, oldest first",
        &[("from_ns", "Event time of the first point, ns since 1970", false)],
    ),
    (
        "/api/candles",
        "Closed candles of one instrument, oldest first",
        &[
            ("venue", "Venue id, such as binance", true),
            ("symbol", "The venue's symbol", true),
            ("tf", "Timeframe, such as 1m", true),
            ("indicators", "Output names to add, comma-separated, such as ema.ema_20", false),
            LIMIT,
        ],
    ),
    ("/api/crypto-prices", "Newest price, quote and mark of every instrument", &[]),
    ("/api/conversations", "LLM cycles: prompt, reply and verdict, newest first", &[LIMIT]),
    ("/api/instruments", "Instruments with their steps", &[]),
    ("/api/stages", "Every stage with its tasks and lag", &[]),
    ("/api/signals", "Signals, newest first", &[("strategy", "Only of this strategy", false), LIMIT]),
    ("/api/decisions", "Decisions of risk with their votes, newest first", &[LIMIT]),
    ("/api/refusals", "Refused orders with limit, number and bound, newest first", &[LIMIT]),
];

const LIMIT: Parameter = ("limit", "How many, 1..=1000; 100 by default", false);
const LIMIT_MAX: usize = 1_000;

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Asked {
    limit: Option<usize>,
    strategy: Option<String>,
    from_ns: Option<i64>,
    venue: Option<String>,
    symbol: Option<String>,
    tf: Option<String>,
    indicators: Option<String>,
}

/// A request that cannot be answered: status, stable code, words.
struct Trouble(StatusCode, &'static str, String);

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": {"code": self.1, "message": self.2}}))).into_response()
    }
}

fn limit(asked: &Asked) -> Result<usize, Trouble> {
    match asked.limit.unwrap_or(100) {
        n @ 1..=LIMIT_MAX => Ok(n),
        n => Err(Trouble(StatusCode::BAD_REQUEST, "bad_limit", format!("limit {n} is not in 1..={LIMIT_MAX}"))),
    }
}

/// One handler for all routes: the last part of the path says what is asked.
pub async fn answer(State(app): State<Arc<App>>, uri: axum::http::Uri, asked: Query<Asked>) -> Response {
    let what = uri.path().trim_start_matches("/api/");
    match reply(&app, what, &asked).await {
        Ok(value) => Json(value).into_response(),
        Err(trouble) => trouble.into_response(),
    }
}

async fn reply(app: &App, what: &str, asked: &Asked) -> Result<Value, Trouble> {
    let hub = &app.hub;
    let n = limit(asked)?;
    Ok(match what {
        "status" => status(app),
        "positions" => hub.with_view(|v| json!({"positions": v.positions()})),
        "trades" => hub.with_view(|v| json!({"trades": v.fills(n)})),
        "orders" => hub.with_view(|v| json!({"orders": v.orders(n)})),
        "account" => hub.with_view(|v| json!({"account": v.account()})),
        "equity" => hub.with_view(|v| json!({"equity": v.equity(asked.from_ns.unwrap_or(i64::MIN))})),
        "crypto-prices" => hub.with_view(|v| json!({"prices": v.tickers()})),
        "conversations" => hub.with_view(|v| json!({"conversations": v.conversations(n)})),
        "instruments" => hub.with_view(|v| json!({"instruments": v.instruments()})),
        "stages" => json!({"stages": hub.stages()}),
        "signals" => hub.with_view(|v| json!({"signals": v.signals(asked.strategy.as_deref(), n)})),
        "decisions" => hub.with_view(|v| json!({"decisions": v.intents(n)})),
        "refusals" => hub.with_view(|v| json!({"refusals": v.refusals(n)})),
        "candles" => candles(app, asked, n).await?,
        _ => return Err(Trouble(StatusCode::NOT_FOUND, "not_found", format!("no /api/{what}; see /api/openapi.json"))),
    })
}

fn status(app: &App) -> Value {
    let hub = &app.hub;
    let (state, newest_ns, account) = hub.with_view(|v| {
        let newest = v.tickers().iter().map(|t| t.ts_ns).max();
        (v.state().cloned(), newest, v.account().cloned())
    });
    json!({
        "mode": hub.config.mode,
        "account": hub.config.account,
        "state": state.as_ref().map_or(json!("active"), |s| json!(s.state)),
        "state_by": state.as_ref().map(|s| &s.by),
        "state_reason": state.as_ref().map(|s| &s.reason),
        "equity": account.map(|a| a.equity),
        "uptime_s": app.started.elapsed().as_secs(),
        "data_age_ms": newest_ns.map(|ns| now_ms() - ns / 1_000_000),
        "bus_connected": app.bus.is_connected(),
        "clients": hub.clients(),
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": hub.epoch,
    })
}

async fn candles(app: &App, asked: &Asked, n: usize) -> Result<Value, Trouble> {
    let missing = |name: &str| Trouble(StatusCode::BAD_REQUEST, "missing_parameter", format!("`{name}` is missing"));
    let venue = asked.venue.as_deref().ok_or_else(|| missing("venue"))?;
    let symbol = asked.symbol.as_deref().ok_or_else(|| missing("symbol"))?;
    let tf = asked.tf.as_deref().ok_or_else(|| missing("tf"))?;
    let tf: Timeframe = tf.parse().map_err(|e| Trouble(StatusCode::BAD_REQUEST, "bad_timeframe", format!("{e}")))?;
    if venue.is_empty() || !venue.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(Trouble(StatusCode::BAD_REQUEST, "bad_venue", format!("`{venue}` is no venue id")));
    }
    let names: Vec<&str> = asked.indicators.as_deref().unwrap_or("").split(',').filter(|s| !s.is_empty()).collect();
    let n = n.min(app.hub.config.history.candles_max);
    let found = candles::history(&app.bus, venue, symbol, tf, n, &names).await;
    let found =
        found.map_err(|e| Trouble(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", format!("{e:#}")))?;
    Ok(json!({"venue": venue, "symbol": symbol, "tf": tf.to_string(), "candles": found}))
}

/// The OpenAPI 3.1 document of [`ROUTES`].
pub fn openapi() -> Value {
    let mut paths = serde_json::Map::new();
    for (path, summary, parameters) in ROUTES {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|(name, meaning, required)| {
                let kind = if ["limit", "from_ns"].contains(name) { "integer" } else { "string" };
                json!({"name": name, "in": "query", "required": required, "description": meaning, "schema": {"type": kind}})
            })
            .collect();
        let answers = json!({
            "200": {"description": "As said", "content": {"application/json": {"schema": {"type": "object"}}}},
            "400": {"description": "A parameter is wrong", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
        });
        paths.insert(
            (*path).to_owned(),
            json!({"get": {"summary": summary, "parameters": parameters, "responses": answers}}),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tapeline gateway", "version": env!("CARGO_PKG_VERSION"),
            "description": "Money and sizes are decimal text. Times are nanoseconds since 1970-01-01T00:00Z. Live data: WebSocket /ws/market (market data) and /api/stream (operator).",
        },
        "paths": paths,
        "components": {"schemas": {"Error": {"type": "object", "properties": {"error": {"type": "object", "properties": {"code": {"type": "string"}, "message": {"type": "string"}}}}}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_names_every_route_once() {
        let document = openapi();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), ROUTES.len());
        for (path, summary, _) in ROUTES {
            assert_eq!(paths[*path]["get"]["summary"], *summary);
        }
    }
}
