//! Our own orders, fills and balances: the private channels of Advanced Trade, and its private REST answers.

use schemas::{Nanos, Side};
use serde::Deserialize;

use super::advanced::is_snapshot;
use super::decode::{parse, side, time};
use crate::event::{Event, Fill, OrderUpdate};
use crate::text::{MaybeQuoted, Quoted, rfc3339};

/// States of an order.
const STATES: &[&str] =
    &["PENDING", "OPEN", "FILLED", "CANCELLED", "EXPIRED", "FAILED", "QUEUED", "CANCEL_QUEUED", "EDIT_QUEUED"];

/// The channel `user`: orders open at the subscription, then each order as it changes. Fills are not told apart: how
/// much is filled only grows. Positions have no normalised form and are left out.
pub(super) fn orders(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        orders: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        product_id: String,
        order_id: String,
        client_order_id: String,
        order_side: String,
        order_type: String,
        time_in_force: Option<String>,
        #[serde(default)]
        limit_price: MaybeQuoted,
        #[serde(default)]
        avg_price: MaybeQuoted,
        cumulative_quantity: Quoted,
        leaves_quantity: Quoted,
        status: String,
    }
    for m in parse::<Vec<Msg>>(events)? {
        is_snapshot(&m.kind)?;
        for row in m.orders {
            if !STATES.contains(&row.status.as_str()) {
                return Err(format!("order {} has status `{}`", row.order_id, row.status));
            }
            let (filled, left) = (row.cumulative_quantity.0, row.leaves_quantity.0);
            out.push(Event::Order(Box::new(OrderUpdate {
                symbol: row.product_id.into(),
                client_order_id: row.client_order_id,
                side: side(&row.order_side).map_err(|why| format!("order {} has {why}", row.order_id))?,
                venue_order_id: row.order_id,
                order_type: row.order_type,
                tif: row.time_in_force,
                // Zero stands where there is none.
                price: row.limit_price.0.filter(|p| !p.is_zero()),
                size: filled + left,
                filled,
                avg_price: row.avg_price.0.filter(|p| !p.is_zero()),
                status: row.status,
                exec_type: None,
                reduce_only: None,
                ts: at,
            })));
        }
    }
    Ok(())
}

/// The channel `futures_balance_summary`: dollars that may be traded with, and those on hold for open orders.
pub(super) fn futures_balance(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "type")]
        kind: String,
        fcm_balance_summary: Summary,
    }
    #[derive(Deserialize)]
    struct Summary {
        futures_buying_power: Quoted,
        total_open_orders_hold_amount: Quoted,
    }
    for m in parse::<Vec<Msg>>(events)? {
        is_snapshot(&m.kind)?;
        let s = m.fcm_balance_summary;
        out.push(Event::Balance {
            asset: "USD".to_owned(),
            free: s.futures_buying_power.0,
            locked: s.total_open_orders_hold_amount.0,
            ts: at,
        });
    }
    Ok(())
}

/// The balances of an answer to `GET /api/v3/brokerage/accounts`.
pub fn accounts(body: &str) -> Result<Vec<Event>, String> {
    #[derive(Deserialize)]
    struct Answer {
        accounts: Vec<Account>,
    }
    #[derive(Deserialize)]
    struct Account {
        currency: String,
        available_balance: Amount,
        hold: Amount,
        updated_at: String,
    }
    #[derive(Deserialize)]
    struct Amount {
        value: Quoted,
    }
    let answer: Answer = parse(body)?;
    let balance = |a: Account| {
        let ts = time(&a.updated_at)?.unwrap_or_default();
        Ok(Event::Balance { asset: a.currency, free: a.available_balance.value.0, locked: a.hold.value.0, ts })
    };
    answer.accounts.into_iter().map(balance).collect()
}

/// The fills of an answer to `GET /api/v3/brokerage/orders/historical/fills`. One whose liquidity is not told is
/// refused: whether it paid as maker or taker would be a guess.
pub fn fills(body: &str) -> Result<Vec<Fill>, String> {
    #[derive(Deserialize)]
    struct Answer {
        fills: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        trade_id: String,
        order_id: String,
        trade_time: String,
        price: Quoted,
        size: Quoted,
        commission: Quoted,
        product_id: String,
        liquidity_indicator: String,
        #[serde(default)]
        size_in_quote: bool,
        side: String,
    }
    let fill = |row: Row| {
        let maker = match row.liquidity_indicator.as_str() {
            "MAKER" => true,
            "TAKER" => false,
            other => return Err(format!("fill {} has liquidity `{other}`", row.trade_id)),
        };
        let side: Side = side(&row.side).map_err(|why| format!("fill {} has {why}", row.trade_id))?;
        if row.size_in_quote {
            return Err(format!("fill {} has its size in quote currency", row.trade_id));
        }
        Ok(Fill {
            // Fees of a pair are paid in its quote currency.
            fee_asset: match row.product_id.split('-').collect::<Vec<_>>()[..] {
                [_, quote] => Some(quote.to_owned()),
                _ => None,
            },
            symbol: row.product_id.into(),
            venue_order_id: row.order_id,
            client_order_id: None,
            trade_id: row.trade_id,
            side,
            price: row.price.0,
            size: row.size.0,
            fee: row.commission.0,
            maker,
            ts: rfc3339(&row.trade_time)?,
        })
    };
    parse::<Answer>(body)?.fills.into_iter().map(fill).collect()
}
