//! What HTX tells of our own account: the second socket of spot, and the notification sockets of swaps.

use std::borrow::Cow;

use schemas::Decimal;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::decode::{Message, Ms, Num, Sum, offset, parse, side, unquoted};
use crate::event::{Event, Fill, OrderUpdate};

/// A push of `/ws/v2`: `orders#btcusdt`, `trade.clearing#btcusdt#1`, `accounts.update#2`.
pub(super) fn spot(channel: &str, m: &Message<'_>, out: &mut Vec<Event>) -> Result<(), String> {
    let data = m.data.ok_or_else(|| format!("{channel} without data"))?.get();
    match channel.split('#').next().unwrap_or("") {
        "orders" => spot_order(data, out),
        "trade.clearing" => spot_clearing(channel, data, out),
        "accounts.update" => spot_account(channel, data, out),
        _ => Err(format!("unknown channel `{channel}`")),
    }
}

/// `buy-limit`, `sell-market`, `buy-limit-maker`, ...: side and type.
fn typed(word: &str) -> Result<(schemas::Side, &str), String> {
    let (direction, kind) = word.split_once('-').ok_or_else(|| format!("order type `{word}`"))?;
    match kind {
        "market" | "limit" | "ioc" | "limit-maker" | "limit-fok" | "stop-limit" | "stop-limit-fok" | "limit-grid"
        | "market-grid" => Ok((side(direction)?, kind)),
        _ => Err(format!("order type `{word}`")),
    }
}

fn spot_status(word: &str) -> Result<String, String> {
    match word {
        "submitted" | "partial-filled" | "filled" | "partial-canceled" | "canceled" | "rejected" => Ok(word.to_owned()),
        other => Err(format!("order status `{other}`")),
    }
}

fn spot_order(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        event_type: Cow<'a, str>,
        symbol: String,
        /// Absent when a trigger failed before there was an order.
        #[serde(borrow)]
        order_id: Option<&'a RawValue>,
        client_order_id: Option<String>,
        #[serde(rename = "type", borrow)]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow)]
        order_status: Cow<'a, str>,
        order_price: Option<Num>,
        order_size: Option<Sum>,
        /// In quote currency, of a market buy.
        order_value: Option<Sum>,
        exec_amt: Option<Sum>,
        remain_amt: Option<Sum>,
        order_create_time: Option<Ms>,
        last_act_time: Option<Ms>,
        trade_time: Option<Ms>,
        trade_price: Option<Num>,
        trade_volume: Option<Num>,
        #[serde(borrow)]
        trade_id: Option<&'a RawValue>,
        aggressor: Option<bool>,
    }
    let row: Row = parse(data)?;
    match row.event_type.as_ref() {
        "creation" | "trade" | "cancellation" => {}
        // Of conditional orders, which are none yet.
        "trigger" | "deletion" => {
            out.push(Event::Other(format!("orders {}", row.event_type)));
            return Ok(());
        }
        other => return Err(format!("order event `{other}`")),
    }
    let id = row.order_id.map(|raw| unquoted(raw).to_owned()).ok_or("an order without orderId")?;
    let (side, kind) = typed(row.kind.as_deref().ok_or("an order without type")?)?;
    let ts = row.trade_time.or(row.last_act_time).or(row.order_create_time).ok_or("an order without a time")?.at();
    let size = row.order_size.or(row.order_value).map(|s| s.value);
    let filled = match (row.exec_amt, row.remain_amt, size) {
        (Some(filled), ..) => filled.value,
        (None, Some(open), Some(size)) => size - open.value,
        (None, None, Some(size)) if row.order_status == "filled" => size,
        _ if matches!(row.order_status.as_ref(), "submitted" | "rejected") => Decimal::ZERO,
        _ => return Err(format!("order {id} does not tell what was filled")),
    };
    let client_order_id = row.client_order_id.unwrap_or_default();
    out.push(Event::Order(Box::new(OrderUpdate {
        symbol: row.symbol.as_str().into(),
        client_order_id: client_order_id.clone(),
        venue_order_id: id.clone(),
        side,
        order_type: kind.to_owned(),
        tif: None,
        price: row.order_price.map(|n| n.0).filter(|p| !p.is_zero()),
        // A trade's push repeats no size where the order was a market buy.
        size: size.unwrap_or(filled),
        filled,
        avg_price: None,
        status: spot_status(&row.order_status)?,
        exec_type: Some(row.event_type.into_owned()),
        reduce_only: None,
        ts,
    })));
    if let (Some(price), Some(size), Some(trade)) = (row.trade_price, row.trade_volume, row.trade_id) {
        // Without its fee: that comes on `trade.clearing`.
        out.push(Event::Fill(Box::new(Fill {
            symbol: row.symbol.into(),
            venue_order_id: id,
            client_order_id: Some(client_order_id).filter(|id| !id.is_empty()),
            trade_id: unquoted(trade).to_owned(),
            side,
            price: price.0,
            size: size.0,
            fee: Decimal::ZERO,
            fee_asset: None,
            maker: !row.aggressor.ok_or("a fill that does not tell the aggressor")?,
            ts,
        })));
    }
    Ok(())
}

/// A fill with its fee, or a cancellation on the same channel.
fn spot_clearing(channel: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        event_type: Cow<'a, str>,
        symbol: String,
        #[serde(borrow)]
        order_id: &'a RawValue,
        client_order_id: Option<String>,
        trade_price: Option<Num>,
        trade_volume: Option<Num>,
        #[serde(borrow)]
        order_side: Cow<'a, str>,
        aggressor: Option<bool>,
        #[serde(borrow)]
        trade_id: Option<&'a RawValue>,
        trade_time: Option<Ms>,
        transact_fee: Option<Sum>,
        fee_currency: Option<String>,
    }
    let row: Row = parse(data)?;
    match row.event_type.as_ref() {
        "trade" => {}
        "cancellation" => {
            out.push(Event::Other(channel.to_owned()));
            return Ok(());
        }
        other => return Err(format!("clearing event `{other}`")),
    }
    let missing = |what: &str| format!("a cleared trade without {what}");
    out.push(Event::Fill(Box::new(Fill {
        symbol: row.symbol.into(),
        venue_order_id: unquoted(row.order_id).to_owned(),
        client_order_id: row.client_order_id.filter(|id| !id.is_empty()),
        trade_id: unquoted(row.trade_id.ok_or_else(|| missing("tradeId"))?).to_owned(),
        side: side(&row.order_side)?,
        price: row.trade_price.ok_or_else(|| missing("tradePrice"))?.0,
        size: row.trade_volume.ok_or_else(|| missing("tradeVolume"))?.0,
        fee: row.transact_fee.map(|s| s.value).unwrap_or_default(),
        fee_asset: row.fee_currency.filter(|coin| !coin.is_empty()),
        maker: !row.aggressor.ok_or_else(|| missing("aggressor"))?,
        ts: row.trade_time.ok_or_else(|| missing("tradeTime"))?.at(),
    })));
    Ok(())
}

/// Only mode 2 tells balance and what of it is free; the others tell one of the two, which is no balance in our form.
fn spot_account(channel: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        currency: String,
        balance: Option<Sum>,
        available: Option<Sum>,
        change_time: Option<Ms>,
    }
    let row: Row = parse(data)?;
    out.push(match (row.balance, row.available) {
        (Some(balance), Some(free)) => Event::Balance {
            asset: row.currency,
            free: free.value,
            locked: balance.value - free.value,
            // The picture that the subscription begins with has no time.
            ts: row.change_time.map(Ms::at).unwrap_or_default(),
        },
        _ => Event::Other(channel.to_owned()),
    });
    Ok(())
}

/// A notification of `orders`, `matchOrders`, `accounts`, `positions`, each alone, `_cross`, or of one contract.
pub(super) fn swap(topic: &str, m: &Message<'_>, frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let word = topic.split('.').next().unwrap_or("");
    match word.strip_suffix("_cross").unwrap_or(word) {
        "orders" | "matchOrders" => swap_order(frame, out),
        "accounts" if word == "accounts_cross" => swap_cross_account(m, out),
        // One balance for each contract, where a balance of ours is one for each coin.
        "accounts" | "positions" => {
            parse::<IgnoredAny>(m.data.ok_or("a notification without data")?.get())?;
            out.push(Event::Other(topic.to_owned()));
            Ok(())
        }
        _ => Err(format!("unknown topic `{topic}`")),
    }
}

fn swap_status(number: i64) -> Result<&'static str, String> {
    Ok(match number {
        3 => "submitted",
        4 => "partial-filled",
        5 => "partial-canceled",
        6 => "filled",
        7 => "canceled",
        11 => "cancelling",
        other => return Err(format!("order status {other}")),
    })
}

fn swap_order(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row<'a> {
        contract_code: String,
        status: i64,
        /// The number beside it is printed as a float by those who store it.
        order_id_str: String,
        #[serde(borrow)]
        client_order_id: Option<&'a RawValue>,
        ts: Ms,
        volume: Num,
        trade_volume: Num,
        trade_avg_price: Option<Num>,
        #[serde(borrow)]
        direction: Cow<'a, str>,
        #[serde(borrow)]
        offset: Cow<'a, str>,
        price: Option<Num>,
        order_price_type: String,
        reduce_only: Option<i64>,
        #[serde(borrow, default)]
        trade: Vec<Filled<'a>>,
    }
    #[derive(Deserialize)]
    struct Filled<'a> {
        /// Unique; `trade_id` is the match's, which an order may share with others.
        #[serde(borrow)]
        id: Cow<'a, str>,
        trade_volume: Num,
        trade_price: Num,
        trade_fee: Option<Num>,
        fee_asset: Option<String>,
        created_at: Ms,
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    let row: Row = parse(frame)?;
    let side = side(&row.direction)?;
    let offset = offset(&row.offset)?;
    let client_order_id = row.client_order_id.map(|raw| unquoted(raw).to_owned()).filter(|id| id != "null");
    let reduce_only = match row.reduce_only {
        None => (offset == "close").then_some(true),
        Some(0) => Some(offset == "close"),
        Some(1) => Some(true),
        Some(other) => return Err(format!("reduce_only {other}")),
    };
    out.push(Event::Order(Box::new(OrderUpdate {
        symbol: row.contract_code.as_str().into(),
        client_order_id: client_order_id.clone().unwrap_or_default(),
        venue_order_id: row.order_id_str.clone(),
        side,
        order_type: row.order_price_type,
        tif: None,
        price: row.price.map(|n| n.0),
        size: row.volume.0,
        filled: row.trade_volume.0,
        avg_price: row.trade_avg_price.map(|n| n.0),
        status: swap_status(row.status)?.to_owned(),
        exec_type: None,
        reduce_only,
        ts: row.ts.at(),
    })));
    for fill in row.trade {
        let maker = match fill.role.as_ref() {
            "maker" => true,
            "taker" => false,
            other => return Err(format!("role `{other}`")),
        };
        out.push(Event::Fill(Box::new(Fill {
            symbol: row.contract_code.as_str().into(),
            venue_order_id: row.order_id_str.clone(),
            client_order_id: client_order_id.clone(),
            trade_id: fill.id.into_owned(),
            side,
            price: fill.trade_price.0,
            size: fill.trade_volume.0,
            // The venue counts what the account gains: a fee paid is negative there.
            fee: fill.trade_fee.map(|n| -n.0).unwrap_or_default(),
            fee_asset: fill.fee_asset,
            maker,
            ts: fill.created_at.at(),
        })));
    }
    Ok(())
}

/// The cross account: one balance for all contracts of a coin.
fn swap_cross_account(m: &Message<'_>, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row {
        margin_asset: String,
        margin_balance: Num,
        withdraw_available: Num,
    }
    let ts = parse::<Ms>(m.ts.ok_or("a notification without ts")?.get())?.at();
    for row in parse::<Vec<Row>>(m.data.ok_or("a notification without data")?.get())? {
        let (whole, free) = (row.margin_balance.0, row.withdraw_available.0);
        out.push(Event::Balance { asset: row.margin_asset, free, locked: whole - free, ts });
    }
    Ok(())
}
