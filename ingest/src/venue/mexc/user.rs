//! What MEXC says of our own orders, fills and balances: binary on spot, JSON on contract.
//!
//! No recording holds any of the spot messages; they are read by their schema alone. What is marked [K] is general
//! knowledge that no source here confirms.

use std::borrow::Cow;

use schemas::{Decimal, Side};
use serde::Deserialize;

use super::contract;
use super::decode::parse;
use super::push::{Head, number, side};
use super::wire::fields;
use crate::event::{Event, Fill, OrderUpdate};
use crate::text::{Bare, instant};

/// The words that spot's REST uses for the numbers of its pushes; 5 is [K].
const SPOT_STATES: &[(i64, &str)] =
    &[(1, "NEW"), (2, "FILLED"), (3, "PARTIALLY_FILLED"), (4, "CANCELED"), (5, "PARTIALLY_CANCELED")];

/// [K]; the order of the types is that of contract's, which the notes state.
const SPOT_TYPES: &[(i64, &str)] = &[
    (1, "LIMIT"),
    (2, "LIMIT_MAKER"),
    (3, "IMMEDIATE_OR_CANCEL"),
    (4, "FILL_OR_KILL"),
    (5, "MARKET"),
    (100, "STOP_LIMIT"),
];

/// [K]; the recorded order has state 3 and is filled.
const CONTRACT_STATES: &[(i64, &str)] =
    &[(1, "UNINFORMED"), (2, "UNCOMPLETED"), (3, "COMPLETED"), (4, "CANCELLED"), (5, "INVALID")];

/// 6 is [K].
const CONTRACT_TYPES: &[(i64, &str)] =
    &[(1, "LIMIT"), (2, "POST_ONLY"), (3, "IOC"), (4, "FOK"), (5, "MARKET"), (6, "MARKET_TO_LIMIT")];

fn word(what: &str, words: &[(i64, &str)], number: i64) -> Result<String, String> {
    let found = words.iter().find(|(n, _)| *n == number).map(|(_, word)| (*word).to_owned());
    found.ok_or_else(|| format!("{what} {number}"))
}

/// Empty text is how the format leaves a number out.
fn optional(text: &str) -> Result<Option<Decimal>, String> {
    if text.is_empty() { Ok(None) } else { number(text).map(Some) }
}

pub(super) fn spot_order(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let (mut id, mut client_id, mut price, mut quantity, mut average, mut filled) = ("", "", "", "", "", "");
    let (mut kind, mut trade_type, mut status, mut created) = (0, 0, 0, None);
    for field in fields(body) {
        match field? {
            (1, value) => id = value.text()?,
            (2, value) => client_id = value.text()?,
            (3, value) => price = value.text()?,
            (4, value) => quantity = value.text()?,
            (6, value) => average = value.text()?,
            (7, value) => kind = value.int()?,
            (8, value) => trade_type = value.int()?,
            (13, value) => filled = value.text()?,
            (15, value) => status = value.int()?,
            (16, value) => created = Some(instant(value.int()?)),
            _ => {}
        }
    }
    let order_type = word("order type", SPOT_TYPES, kind)?;
    out.push(Event::Order(Box::new(OrderUpdate {
        symbol: head.symbol()?,
        client_order_id: client_id.to_owned(),
        venue_order_id: id.to_owned(),
        side: side(trade_type)?,
        order_type,
        tif: None,
        price: optional(price)?,
        // A market order that names an amount of quote has no quantity.
        size: optional(quantity)?.unwrap_or_default(),
        filled: optional(filled)?.unwrap_or_default(),
        avg_price: optional(average)?,
        status: word("order state", SPOT_STATES, status)?,
        exec_type: None,
        reduce_only: None,
        ts: head.time.or(created).ok_or("an order without a time")?,
    })));
    Ok(())
}

pub(super) fn spot_deal(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let (mut price, mut quantity, mut fee, mut fee_asset) = ("", "", "", "");
    let (mut trade_id, mut client_id, mut order_id) = ("", "", "");
    let (mut trade_type, mut maker, mut time) = (0, false, None);
    for field in fields(body) {
        match field? {
            (1, value) => price = value.text()?,
            (2, value) => quantity = value.text()?,
            (4, value) => trade_type = value.int()?,
            (5, value) => maker = value.int()? != 0,
            (7, value) => trade_id = value.text()?,
            (8, value) => client_id = value.text()?,
            (9, value) => order_id = value.text()?,
            (10, value) => fee = value.text()?,
            (11, value) => fee_asset = value.text()?,
            (12, value) => time = Some(instant(value.int()?)),
            _ => {}
        }
    }
    let told = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    out.push(Event::Fill(Box::new(Fill {
        symbol: head.symbol()?,
        venue_order_id: order_id.to_owned(),
        client_order_id: told(client_id),
        trade_id: trade_id.to_owned(),
        side: side(trade_type)?,
        price: number(price)?,
        size: number(quantity)?,
        fee: optional(fee)?.unwrap_or_default(),
        fee_asset: told(fee_asset),
        maker,
        ts: time.or(head.time).ok_or("a fill without a time")?,
    })));
    Ok(())
}

/// The balance is read as what is free beside what is frozen [K].
pub(super) fn spot_account(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let (mut asset, mut balance, mut frozen, mut time) = ("", "", "", None);
    for field in fields(body) {
        match field? {
            (1, value) => asset = value.text()?,
            (3, value) => balance = value.text()?,
            (5, value) => frozen = value.text()?,
            (8, value) => time = Some(instant(value.int()?)),
            _ => {}
        }
    }
    if asset.is_empty() {
        return Err("a balance without its coin".to_owned());
    }
    out.push(Event::Balance {
        asset: asset.to_owned(),
        free: number(balance)?,
        locked: optional(frozen)?.unwrap_or_default(),
        ts: time.or(head.time).ok_or("a balance without a time")?,
    });
    Ok(())
}

/// 1 opens long, 2 closes short, 3 opens short, 4 closes long: the side, and whether it can only reduce.
fn contract_side(code: i64) -> Result<(Side, bool), String> {
    Ok(match code {
        1 => (Side::Buy, false),
        2 => (Side::Buy, true),
        3 => (Side::Sell, false),
        4 => (Side::Sell, true),
        other => return Err(format!("side {other}")),
    })
}

/// An order id, which some messages write as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id<'a> {
    Number(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

pub(super) fn contract_order(head: &contract::Head, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        order_id: Id<'a>,
        #[serde(borrow)]
        symbol: Cow<'a, str>,
        external_oid: Option<String>,
        side: i64,
        order_type: i64,
        state: i64,
        price: Bare,
        vol: Bare,
        deal_vol: Bare,
        deal_avg_price: Bare,
        update_time: Option<i64>,
    }
    let row: Row = parse(data)?;
    let (side, reduces) = contract_side(row.side)?;
    out.push(Event::Order(Box::new(OrderUpdate {
        symbol: row.symbol.into(),
        client_order_id: row.external_oid.unwrap_or_default(),
        venue_order_id: row.order_id.to_string(),
        side,
        order_type: word("order type", CONTRACT_TYPES, row.order_type)?,
        tif: None,
        price: Some(row.price.0),
        size: row.vol.0,
        filled: row.deal_vol.0,
        avg_price: Some(row.deal_avg_price.0).filter(|price| !price.is_zero()),
        status: word("order state", CONTRACT_STATES, row.state)?,
        exec_type: None,
        reduce_only: Some(reduces),
        ts: row.update_time.map_or_else(|| head.time(), |ms| Ok(instant(ms)))?,
    })));
    Ok(())
}

pub(super) fn contract_deal(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        id: Id<'a>,
        #[serde(borrow)]
        order_id: Id<'a>,
        external_oid: Option<String>,
        #[serde(borrow)]
        symbol: Cow<'a, str>,
        side: i64,
        vol: Bare,
        price: Bare,
        fee: Bare,
        fee_currency: Option<String>,
        is_taker: bool,
        timestamp: i64,
    }
    let row: Row = parse(data)?;
    out.push(Event::Fill(Box::new(Fill {
        symbol: row.symbol.into(),
        venue_order_id: row.order_id.to_string(),
        client_order_id: row.external_oid.filter(|id| !id.is_empty()),
        trade_id: row.id.to_string(),
        side: contract_side(row.side)?.0,
        price: row.price.0,
        size: row.vol.0,
        fee: row.fee.0,
        fee_asset: row.fee_currency,
        maker: !row.is_taker,
        ts: instant(row.timestamp),
    })));
    Ok(())
}

pub(super) fn contract_asset(head: &contract::Head, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        currency: String,
        available_balance: Bare,
        frozen_balance: Bare,
    }
    let row: Row = parse(data)?;
    out.push(Event::Balance {
        asset: row.currency,
        free: row.available_balance.0,
        locked: row.frozen_balance.0,
        ts: head.time()?,
    });
    Ok(())
}
