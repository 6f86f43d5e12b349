//! The methods by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Deribit, RpcError, TOKENS_MAX, Token, data, feed};
use crate::floor::Floor;
use crate::hub::ClientId;
use crate::orders::settlement;
use crate::sign::hmac_sha256_hex;

type Handler = fn(&mut Deribit, &mut Floor, Option<ClientId>, &Value) -> Result<Value, RpcError>;

/// Everything that can be called. A `private/` method needs a token.
const METHODS: &[(&str, Handler)] = &[
    ("public/test", |d, _, c, _| {
        if let Some(session) = c.and_then(|c| d.sessions.get_mut(&c)) {
            session.test_until_ms = None;
        }
        Ok(json!({ "version": "1.2.26" }))
    }),
    ("public/hello", |_, _, _, _| Ok(json!({ "version": "1.2.26" }))),
    ("public/get_time", |_, f, _, _| Ok(json!(f.now_ms()))),
    ("public/status", |d, f, _, _| Ok(json!({ "locked": d.maintenance_until_ms > f.mono_ms, "locked_indices": [] }))),
    ("public/set_heartbeat", set_heartbeat),
    ("public/disable_heartbeat", |d, _, c, _| {
        if let Some(session) = c.and_then(|c| d.sessions.get_mut(&c)) {
            (session.heartbeat_s, session.test_until_ms) = (None, None);
        }
        Ok(json!("ok"))
    }),
    ("public/subscribe", subscribe),
    ("private/subscribe", subscribe),
    ("public/unsubscribe", unsubscribe),
    ("private/unsubscribe", unsubscribe),
    ("public/unsubscribe_all", unsubscribe_all),
    ("private/unsubscribe_all", unsubscribe_all),
    ("public/auth", auth),
    ("public/get_instruments", |_, f, _, p| {
        let currency = text(p, "currency")?;
        let kind = p["kind"].as_str().unwrap_or("future");
        let fits = |l: &&crate::market::Listing| {
            (currency == "any" || data::currency(&l.spec) == currency) && (kind == "future" || kind == "any")
        };
        Ok(f.market.listings().iter().filter(fits).map(data::instrument).collect())
    }),
    ("public/get_instrument", |_, f, _, p| Ok(data::instrument(f.market.listing(instrument(f, p)?)))),
    ("public/get_order_book", order_book),
    ("public/ticker", |_, f, _, p| {
        let i = instrument(f, p)?;
        f.history[i].pass(f.now_ns / 1_000_000);
        parsed(&format!("{{{}}}", data::ticker_members(f, i, f.now_ns, false)))
    }),
    ("public/get_index_price", |_, f, _, p| {
        let name = text(p, "index_name")?;
        let found = f.market.listings().iter().find(|l| data::index_name(&l.spec) == name);
        let l = found.ok_or_else(|| RpcError::param("index_name", "unknown index"))?;
        parsed(&format!(r#"{{"index_price":{0},"estimated_delivery_price":{0}}}"#, data::float(l.index(), 2)))
    }),
    ("public/get_last_trades_by_instrument", last_trades),
    ("public/get_last_trades_by_instrument_and_time", last_trades),
    ("public/get_tradingview_chart_data", chart),
    ("private/buy", |d, f, c, p| d.order(f, c, p, crate::book::Side::Buy)),
    ("private/sell", |d, f, c, p| d.order(f, c, p, crate::book::Side::Sell)),
    ("private/edit", |d, f, _, p| d.edit(f, p)),
    ("private/cancel", |d, f, _, p| d.cancel(f, p)),
    ("private/cancel_all", |d, f, _, p| d.cancel_some(f, p)),
    ("private/cancel_all_by_instrument", |d, f, _, p| d.cancel_some(f, p)),
    ("private/cancel_by_label", |d, f, _, p| d.cancel_some(f, p)),
    ("private/get_order_state", |_, f, _, p| super::trading::order_state(f, p)),
    ("private/get_open_orders", |_, f, _, _| Ok(super::trading::open_orders(f, None))),
    ("private/get_open_orders_by_instrument", |_, f, _, p| {
        let i = instrument(f, p)?;
        Ok(super::trading::open_orders(f, Some(i)))
    }),
    ("private/get_positions", |_, f, _, _| Ok(super::trading::positions(f))),
    ("private/get_account_summary", |_, f, _, p| {
        let currency = text(p, "currency")?;
        let balance: f64 = f.desk.balance(currency).to_string().parse().unwrap_or(0.0);
        Ok(
            json!({ "currency": currency, "balance": balance, "equity": balance, "available_funds": balance, "margin_balance": balance, "initial_margin": 0.0, "maintenance_margin": 0.0, "type": "main" }),
        )
    }),
    ("private/enable_cancel_on_disconnect", |d, _, c, _| cancel_on_disconnect(d, c, true)),
    ("private/disable_cancel_on_disconnect", |d, _, c, _| cancel_on_disconnect(d, c, false)),
];

/// Methods of the matching engine have a bucket of their own.
pub fn is_matching(method: &str) -> bool {
    let Some(name) = method.strip_prefix("private/") else { return false };
    matches!(name, "buy" | "sell" | "edit") || name.starts_with("cancel")
}

pub fn call(
    d: &mut Deribit,
    floor: &mut Floor,
    client: Option<ClientId>,
    method: &str,
    params: &Value,
) -> Result<Value, RpcError> {
    let Some((_, handler)) = METHODS.iter().find(|(name, _)| *name == method) else {
        return Err(RpcError::new(-32601, "Method not found"));
    };
    if method.starts_with("private/") {
        d.authorized(floor, client, params)?;
    }
    handler(d, floor, client, params)
}

pub fn text<'a>(params: &'a Value, key: &str) -> Result<&'a str, RpcError> {
    params[key].as_str().ok_or_else(|| RpcError::param(key, "value required"))
}

pub fn instrument(floor: &Floor, params: &Value) -> Result<usize, RpcError> {
    let name = text(params, "instrument_name")?;
    floor.market.find(name).ok_or_else(|| RpcError::param("instrument_name", "wrong format"))
}

/// Text of ours as a value. Numbers keep their text only on the subscription path; here they are floats again.
fn parsed(text: &str) -> Result<Value, RpcError> {
    serde_json::from_str(text).map_err(|_| RpcError::new(11030, "other_reject"))
}

fn set_heartbeat(
    d: &mut Deribit,
    floor: &mut Floor,
    client: Option<ClientId>,
    params: &Value,
) -> Result<Value, RpcError> {
    let interval = params["interval"].as_f64().ok_or_else(|| RpcError::param("interval", "value required"))?;
    if interval < 10.0 {
        return Err(RpcError::param("interval", "value must be >= 10"));
    }
    let Some(session) = client.and_then(|c| d.sessions.get_mut(&c)) else {
        return Err(RpcError::new(-32600, "Invalid Request"));
    };
    session.heartbeat_s = Some(interval as u64);
    session.next_beat_ms = floor.mono_ms + (interval * 1_000.0) as u64;
    Ok(json!("ok"))
}

fn names(params: &Value) -> Result<Vec<String>, RpcError> {
    let list = params["channels"].as_array().ok_or_else(|| RpcError::param("channels", "value required"))?;
    Ok(list.iter().filter_map(|c| c.as_str().map(str::to_owned)).collect())
}

/// Unknown and forbidden channels are left out without a word.
fn subscribe(d: &mut Deribit, floor: &mut Floor, client: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let Some(client) = client else { return Err(RpcError::new(-32600, "Invalid Request")) };
    let allowed = d.authorized(floor, Some(client), params).is_ok();
    let max = floor.config.deribit.channels_per_connection_max;
    let mut done = Vec::new();
    for name in names(params)? {
        let Some(session) = d.sessions.get_mut(&client) else { break };
        if session.channels.contains(&name) {
            done.push(name);
            continue;
        }
        if session.channels.len() >= max {
            continue;
        }
        let ok = match name.strip_prefix("user.") {
            Some(_) => allowed,
            None => d.feed.subscribe(floor, &name, client),
        };
        if ok {
            session.channels.insert(name.clone());
            done.push(name);
        }
    }
    Ok(json!(done))
}

fn unsubscribe(d: &mut Deribit, _: &mut Floor, client: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let Some(client) = client else { return Err(RpcError::new(-32600, "Invalid Request")) };
    let mut done = Vec::new();
    for name in names(params)? {
        if d.sessions.get_mut(&client).is_some_and(|s| s.channels.remove(&name)) {
            d.feed.unsubscribe(&name, client);
            done.push(name);
        }
    }
    Ok(json!(done))
}

fn unsubscribe_all(d: &mut Deribit, _: &mut Floor, client: Option<ClientId>, _: &Value) -> Result<Value, RpcError> {
    let Some(session) = client.and_then(|c| d.sessions.get_mut(&c)) else {
        return Err(RpcError::new(-32600, "Invalid Request"));
    };
    let channels = std::mem::take(&mut session.channels);
    if let Some(client) = client {
        channels.iter().for_each(|name| d.feed.unsubscribe(name, client));
    }
    Ok(json!("ok"))
}

fn auth(d: &mut Deribit, floor: &mut Floor, client: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let account = &floor.config.account;
    let wrong = || RpcError::new(13004, "invalid_credentials");
    match text(params, "grant_type")? {
        "client_credentials" => {
            let pair = (text(params, "client_id")?, text(params, "client_secret")?);
            if pair != (account.api_key.as_str(), account.api_secret.as_str()) {
                return Err(wrong());
            }
        }
        "client_signature" => {
            let number = |key: &str| params[key].as_i64().map(|n| n.to_string());
            let timestamp = number("timestamp").or(params["timestamp"].as_str().map(str::to_owned)).unwrap_or_default();
            let (nonce, data) = (params["nonce"].as_str().unwrap_or(""), params["data"].as_str().unwrap_or(""));
            let signature = hmac_sha256_hex(&account.api_secret, &format!("{timestamp}\n{nonce}\n{data}"));
            if text(params, "client_id")? != account.api_key || text(params, "signature")? != signature {
                return Err(wrong());
            }
        }
        "refresh_token" => {
            let refresh = text(params, "refresh_token")?;
            let Some(old) = d.tokens.iter().find(|(_, t)| t.refresh == refresh).map(|(k, _)| k.clone()) else {
                return Err(wrong());
            };
            d.tokens.remove(&old);
        }
        _ => {
            return Err(RpcError::param("grant_type", "must be client_credentials, client_signature or refresh_token"));
        }
    }
    while d.tokens.len() >= TOKENS_MAX {
        d.tokens.pop_first();
    }
    let life_ms = floor.config.deribit.token_life_ms;
    let (access, refresh) = (format!("access-{:08}", d.next_token), format!("refresh-{:08}", d.next_token));
    d.next_token += 1;
    d.tokens.insert(access.clone(), Token { until_ms: floor.mono_ms + life_ms, refresh: refresh.clone() });
    if let Some(session) = client.and_then(|c| d.sessions.get_mut(&c)) {
        session.token = Some(access.clone());
    }
    Ok(json!({
        "access_token": access, "refresh_token": refresh, "expires_in": life_ms / 1_000, "token_type": "bearer",
        "scope": "connection trade:read_write account:read", "enabled_features": [],
    }))
}

fn order_book(_: &mut Deribit, floor: &mut Floor, _: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let i = instrument(floor, params)?;
    let depth = params["depth"].as_u64().unwrap_or(5).clamp(1, 10_000) as usize;
    floor.history[i].pass(floor.now_ns / 1_000_000);
    let s = floor.market.snapshot(i, depth);
    let spec = &floor.market.listing(i).spec;
    parsed(&format!(
        r#"{{{},"change_id":{},"bids":{},"asks":{}}}"#,
        data::ticker_members(floor, i, floor.now_ns, false),
        s.id,
        data::rows(spec, &s.bids, None),
        data::rows(spec, &s.asks, None)
    ))
}

fn last_trades(_: &mut Deribit, floor: &mut Floor, _: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let i = instrument(floor, params)?;
    let count = params["count"].as_u64().unwrap_or(10).clamp(1, 1_000) as usize;
    let number = |key: &str| params[key].as_i64();
    let (from, to) = (number("start_timestamp"), number("end_timestamp"));
    let (first, last) = (params["start_seq"].as_u64(), params["end_seq"].as_u64());
    let l = floor.market.listing(i);
    let rows: Vec<_> = floor.history[i]
        .trades()
        .filter(|t| {
            let at = t.time_ns / 1_000_000;
            from.is_none_or(|f| at >= f)
                && to.is_none_or(|e| at <= e)
                && first.is_none_or(|f| t.id >= f)
                && last.is_none_or(|e| t.id <= e)
        })
        .collect();
    let ascending = params["sorting"].as_str() == Some("asc") || first.is_some() || from.is_some();
    let chosen: Vec<_> = match ascending {
        true => rows.iter().take(count).collect(),
        false => rows.iter().rev().take(count).collect(),
    };
    let texts: Vec<String> = chosen.iter().map(|t| data::trade(l, t, t.id, 0)).collect();
    parsed(&format!(r#"{{"trades":[{}],"has_more":{}}}"#, texts.join(","), rows.len() > count))
}

fn chart(_: &mut Deribit, floor: &mut Floor, _: Option<ClientId>, params: &Value) -> Result<Value, RpcError> {
    let i = instrument(floor, params)?;
    let word = params["resolution"].as_str().map_or_else(|| params["resolution"].to_string(), str::to_owned);
    let width = feed::resolution(&word).ok_or_else(|| RpcError::param("resolution", "unknown resolution"))?;
    let now = floor.now_ms();
    floor.history[i].pass(now);
    let from =
        params["start_timestamp"].as_i64().ok_or_else(|| RpcError::param("start_timestamp", "value required"))?;
    let to = params["end_timestamp"].as_i64().unwrap_or(now).min(now);
    let spec = &floor.market.listing(i).spec;
    let mut columns: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let names = ["ticks", "open", "high", "low", "close", "volume", "cost"];
    names.into_iter().for_each(|name| drop(columns.insert(name, Vec::new())));
    for bar in floor.history[i].bars(width, from, to, 5_000) {
        let row = parsed(&data::chart(spec, &bar))?;
        for (name, column) in &mut columns {
            column.push(row[if *name == "ticks" { "tick" } else { name }].clone());
        }
    }
    let status = if columns["ticks"].is_empty() { "no_data" } else { "ok" };
    let mut out = json!(columns);
    out["status"] = json!(status);
    Ok(out)
}

fn cancel_on_disconnect(d: &mut Deribit, client: Option<ClientId>, on: bool) -> Result<Value, RpcError> {
    let Some(session) = client.and_then(|c| d.sessions.get_mut(&c)) else {
        return Err(RpcError::new(-32600, "Invalid Request"));
    };
    session.cancel_on_disconnect = on;
    Ok(json!("ok"))
}

/// Channels that a private event of an instrument goes to.
pub fn user_channels(kind: &str, floor: &Floor, i: usize) -> Vec<String> {
    let spec = &floor.market.listing(i).spec;
    let mut names = Vec::new();
    for target in [
        spec.symbol.clone(),
        format!("future.{}", settlement(spec)),
        "any.any".to_owned(),
        "future.any".to_owned(),
        format!("any.{}", settlement(spec)),
    ] {
        for interval in ["raw", "100ms"] {
            names.push(format!("user.{kind}.{target}.{interval}"));
        }
    }
    names
}
