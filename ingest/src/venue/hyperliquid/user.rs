//! Hyperliquid's private data: our own orders, fills and balances, pushed and asked for.
//!
//! What has no place in the normalised form is left out: position, direction and profit of a fill, its liquidation and
//! builder's fee, triggers of an order.

use std::borrow::Cow;

use schemas::{Decimal, Nanos};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::{parse, side};
use crate::event::{Event, Fill, OrderUpdate};
use crate::text::{Quoted, instant};

/// An order. `sz` is what is left of `origSz`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderRow<'a> {
    #[serde(borrow)]
    coin: Cow<'a, str>,
    #[serde(borrow)]
    side: Cow<'a, str>,
    limit_px: Quoted,
    sz: Quoted,
    orig_sz: Quoted,
    oid: u64,
    cloid: Option<String>,
    timestamp: i64,
    /// These come with `frontendOpenOrders` only.
    order_type: Option<String>,
    tif: Option<String>,
    reduce_only: Option<bool>,
}

impl OrderRow<'_> {
    /// `status` is passed on in the venue's words: new reasons of a cancel or a rejection appear in them.
    fn update(self, status: String, ts: Nanos) -> Result<OrderUpdate, String> {
        let (size, left) = (self.orig_sz.0, self.sz.0);
        if left > size {
            return Err(format!("order {} has {left} left of {size}", self.oid));
        }
        Ok(OrderUpdate {
            side: side(&self.side)?,
            symbol: self.coin.as_ref().into(),
            client_order_id: self.cloid.unwrap_or_default(),
            venue_order_id: self.oid.to_string(),
            // The pushed form does not tell it.
            order_type: self.order_type.unwrap_or_default(),
            tif: self.tif,
            price: Some(self.limit_px.0),
            size,
            filled: size - left,
            avg_price: None,
            status,
            exec_type: None,
            reduce_only: self.reduce_only,
            ts,
        })
    }
}

/// `orderUpdates`: `[{"order":{...},"status":"open","statusTimestamp":...}]`.
pub(super) fn order_updates(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        #[serde(borrow)]
        order: OrderRow<'a>,
        status: String,
        status_timestamp: i64,
    }
    let rows: Vec<Row> = parse(data)?;
    let updates: Vec<OrderUpdate> = rows
        .into_iter()
        .map(|row| row.order.update(row.status, instant(row.status_timestamp)))
        .collect::<Result<_, _>>()?;
    out.extend(updates.into_iter().map(|update| Event::Order(Box::new(update))));
    Ok(())
}

/// A fill of ours. `fee` is negative for a rebate. Rows of 2023 have neither `tid` nor `feeToken`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FillRow<'a> {
    #[serde(borrow)]
    coin: Cow<'a, str>,
    px: Quoted,
    sz: Quoted,
    /// What we did.
    #[serde(borrow)]
    side: Cow<'a, str>,
    time: i64,
    oid: u64,
    /// We took.
    crossed: bool,
    fee: Quoted,
    fee_token: Option<String>,
    tid: Option<u64>,
    cloid: Option<String>,
}

impl FillRow<'_> {
    fn fill(self) -> Result<Fill, String> {
        Ok(Fill {
            side: side(&self.side)?,
            symbol: self.coin.as_ref().into(),
            venue_order_id: self.oid.to_string(),
            client_order_id: self.cloid,
            trade_id: self.tid.map(|tid| tid.to_string()).unwrap_or_default(),
            price: self.px.0,
            size: self.sz.0,
            fee: self.fee.0,
            fee_asset: self.fee_token,
            maker: !self.crossed,
            ts: instant(self.time),
        })
    }
}

fn push_fills(rows: Vec<FillRow>, out: &mut Vec<Event>) -> Result<(), String> {
    let fills: Vec<Fill> = rows.into_iter().map(FillRow::fill).collect::<Result<_, _>>()?;
    out.extend(fills.into_iter().map(|fill| Event::Fill(Box::new(fill))));
    Ok(())
}

/// `user` (subscribed as `userEvents`): an object of one member that says what happened.
pub(super) fn user_events(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Msg<'a> {
        #[serde(borrow)]
        fills: Option<Vec<FillRow<'a>>>,
        #[serde(borrow)]
        funding: Option<&'a RawValue>,
        #[serde(borrow)]
        liquidation: Option<&'a RawValue>,
        #[serde(borrow)]
        non_user_cancel: Option<&'a RawValue>,
        #[serde(borrow)]
        twap_history: Option<&'a RawValue>,
        #[serde(borrow)]
        twap_slice_fills: Option<&'a RawValue>,
    }
    let m: Msg = parse(data)?;
    if let Some(fills) = m.fills {
        push_fills(fills, out)?;
    }
    for (name, found) in [
        ("funding", m.funding),
        ("liquidation", m.liquidation),
        ("nonUserCancel", m.non_user_cancel),
        ("twapHistory", m.twap_history),
        ("twapSliceFills", m.twap_slice_fills),
    ] {
        if found.is_some() {
            out.push(Event::Other(format!("user {name}")));
        }
    }
    Ok(())
}

/// `userFills`: the first message after subscribing is the past (`isSnapshot`); `trade_id` tells a fill that came before.
pub(super) fn user_fills(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        fills: Vec<FillRow<'a>>,
    }
    push_fills(parse::<Msg>(data)?.fills, out)
}

/// The answer to `userFills`, in the venue's order: the newest first.
pub fn fills(body: &str) -> Result<Vec<Fill>, String> {
    parse::<Vec<FillRow>>(body)?.into_iter().map(FillRow::fill).collect()
}

/// The answer to `openOrders` or `frontendOpenOrders`. An order that waits for another one stands beside it, too.
pub fn open_orders(body: &str) -> Result<Vec<OrderUpdate>, String> {
    let rows: Vec<OrderRow> = parse(body)?;
    rows.into_iter()
        .map(|row| {
            let ts = instant(row.timestamp);
            row.update("open".to_owned(), ts)
        })
        .collect()
}

/// The answer to `spotClearinghouseState`: coins, free and held by orders. It tells no time: `at` is the asker's.
pub fn spot_balances(body: &str, at: Nanos) -> Result<Vec<Event>, String> {
    #[derive(Deserialize)]
    struct Answer {
        balances: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        coin: String,
        total: Quoted,
        hold: Quoted,
    }
    let balance = |row: Row| {
        let (asset, locked) = (row.coin, row.hold.0);
        Event::Balance { asset, free: row.total.0 - locked, locked, ts: at }
    };
    Ok(parse::<Answer>(body)?.balances.into_iter().map(balance).collect())
}

/// The answer to `clearinghouseState`: the collateral of the perpetuals, in USDC. Free is what may be withdrawn, locked the
/// rest of the account's value (margin, and profit that is not withdrawable). `at` stands in where the answer has no time.
pub fn collateral(body: &str, at: Nanos) -> Result<Event, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        margin_summary: Margin,
        withdrawable: Quoted,
        time: Option<i64>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Margin {
        account_value: Quoted,
    }
    let answer: Answer = parse(body)?;
    let free: Decimal = answer.withdrawable.0;
    let locked = answer.margin_summary.account_value.0 - free;
    Ok(Event::Balance { asset: "USDC".to_owned(), free, locked, ts: answer.time.map_or(at, instant) })
}
