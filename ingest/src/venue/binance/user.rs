//! Binance user-data events: our own orders, fills and balances.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{parse, side};
use crate::event::{Event, Fill, OrderUpdate};
use crate::text::{Quoted, instant};

/// Account events that we know and have no normalised form for.
const UNMAPPED: &[&str] = &[
    "balanceUpdate",
    "listStatus",
    "externalLockUpdate",
    "eventStreamTerminated",
    "listenKeyExpired",
    "ALGO_UPDATE",
    "ACCOUNT_CONFIG_UPDATE",
    "ACCOUNT_UPDATE",
    "MARGIN_CALL",
    "GRID_UPDATE",
    "STRATEGY_UPDATE",
    "TRADE_LITE",
    "CONDITIONAL_ORDER_TRIGGER_REJECT",
];

pub(super) fn event(name: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    match name {
        "executionReport" => execution_report(data, out),
        "ORDER_TRADE_UPDATE" => order_trade_update(data, out),
        "outboundAccountPosition" => account_position(data, out),
        name if UNMAPPED.contains(&name) => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(name.to_owned()));
            Ok(())
        }
        name => Err(format!("unknown event `{name}`")),
    }
}

/// The members that spot's `executionReport` and the `o` of futures' `ORDER_TRADE_UPDATE` share.
#[derive(Deserialize)]
struct Order<'a> {
    s: String,
    c: String,
    #[serde(rename = "C")]
    original_client_id: Option<String>,
    #[serde(rename = "S", borrow)]
    side: Cow<'a, str>,
    o: String,
    f: String,
    q: Quoted,
    p: Quoted,
    ap: Option<Quoted>,
    #[serde(rename = "x", borrow)]
    exec_type: Cow<'a, str>,
    #[serde(rename = "X")]
    status: String,
    i: i64,
    l: Quoted,
    z: Quoted,
    #[serde(rename = "L")]
    last_price: Quoted,
    n: Option<Quoted>,
    #[serde(rename = "N")]
    fee_asset: Option<String>,
    #[serde(rename = "T")]
    time: i64,
    t: i64,
    m: bool,
    #[serde(rename = "R")]
    reduce_only: Option<bool>,
}

fn execution_report(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    order(parse(data)?, out)
}

fn order_trade_update(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        o: Order<'a>,
    }
    order(parse::<Msg>(data)?.o, out)
}

fn order(m: Order, out: &mut Vec<Event>) -> Result<(), String> {
    let side = side(&m.side)?;
    let filled = match m.exec_type.as_ref() {
        // CALCULATED: a liquidation or auto-deleveraging that traded.
        "TRADE" | "CALCULATED" => !m.l.0.is_zero(),
        "NEW" | "CANCELED" | "REPLACED" | "REJECTED" | "EXPIRED" | "TRADE_PREVENTION" | "AMENDMENT" => false,
        other => return Err(format!("execution type `{other}`")),
    };
    // A cancel has an id of its own; the order's is in C.
    let client_order_id = match m.original_client_id {
        Some(original) if m.exec_type == "CANCELED" && !original.is_empty() => original,
        _ => m.c,
    };
    let ts = instant(m.time);
    out.push(Event::Order(Box::new(OrderUpdate {
        symbol: m.s.as_str().into(),
        client_order_id: client_order_id.clone(),
        venue_order_id: m.i.to_string(),
        side,
        order_type: m.o,
        tif: Some(m.f),
        price: Some(m.p.0),
        size: m.q.0,
        filled: m.z.0,
        avg_price: m.ap.map(|p| p.0),
        status: m.status,
        exec_type: Some(m.exec_type.into_owned()),
        reduce_only: m.reduce_only,
        ts,
    })));
    if filled {
        out.push(Event::Fill(Box::new(Fill {
            symbol: m.s.into(),
            venue_order_id: m.i.to_string(),
            client_order_id: Some(client_order_id),
            trade_id: m.t.to_string(),
            side,
            price: m.last_price.0,
            size: m.l.0,
            fee: m.n.map(|n| n.0).unwrap_or_default(),
            fee_asset: m.fee_asset,
            maker: m.m,
            ts,
        })));
    }
    Ok(())
}

fn account_position(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(rename = "B")]
        balances: Vec<Balance>,
    }
    #[derive(Deserialize)]
    struct Balance {
        a: String,
        f: Quoted,
        l: Quoted,
    }
    let m: Msg = parse(data)?;
    let ts = instant(m.event_time);
    out.extend(m.balances.into_iter().map(|b| Event::Balance { asset: b.a, free: b.f.0, locked: b.l.0, ts }));
    Ok(())
}
