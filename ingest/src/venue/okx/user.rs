//! OKX private channels: our own orders, fills and balances.

use schemas::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::decode::{Stamp, maybe_stamp, other, parse, side};
use crate::event::{Control, Event, Fill, OrderUpdate, Symbol};
use crate::text::{MaybeQuoted, Quoted};

/// Private channels that are known and have no normalised form: `fills` says no fee, `balance_and_position` not what is
/// locked, and there is no form of a position.
const UNMAPPED: &[&str] = &[
    "fills",
    "positions",
    "balance_and_position",
    "liquidation-warning",
    "account-greeks",
    "orders-algo",
    "algo-advance",
    "deposit-info",
    "withdrawal-info",
];

/// Requests on the private socket.
const OPS: &[&str] = &[
    "order",
    "batch-orders",
    "cancel-order",
    "batch-cancel-orders",
    "amend-order",
    "batch-amend-orders",
    "mass-cancel",
];

/// States of an order.
const STATES: &[&str] = &["live", "partially_filled", "filled", "canceled", "mmp_canceled"];

pub(super) fn channel(name: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    match name {
        "orders" => orders(data, out),
        "account" => account(data, out),
        name if UNMAPPED.contains(&name) => other(name, data, out),
        name => Err(format!("unknown channel `{name}`")),
    }
}

/// The answer to a request of the private socket. Code 0: each order's own code says what became of it; the others: 1 none,
/// 2 some were taken, the rest that the request itself was refused.
pub(super) fn answer(
    op: &str,
    id: Option<&str>,
    code: Option<&str>,
    message: Option<&str>,
    out: &mut Vec<Event>,
) -> Result<(), String> {
    if !OPS.contains(&op) {
        return Err(format!("answer to an unknown request `{op}`"));
    }
    let id = id.ok_or(format!("answer to `{op}` without an id"))?.to_owned();
    out.push(match code {
        Some("0" | "1" | "2") => Event::Control(Control::Ack { id }),
        code => Event::Error {
            code: code.and_then(|code| code.parse().ok()),
            message: message.unwrap_or_default().to_owned(),
            id: Some(id),
        },
    });
    Ok(())
}

/// A flag that comes as a bare word, as a word in quotes, or empty.
struct Flag(Option<bool>);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Bare(bool),
            Text(&'a str),
        }
        match Either::deserialize(d)? {
            Either::Bare(flag) => Ok(Self(Some(flag))),
            Either::Text("true") => Ok(Self(Some(true))),
            Either::Text("false") => Ok(Self(Some(false))),
            Either::Text("") => Ok(Self(None)),
            Either::Text(other) => Err(D::Error::custom(format!("flag `{other}`"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderRow<'a> {
    inst_id: &'a str,
    ord_id: &'a str,
    cl_ord_id: &'a str,
    side: &'a str,
    ord_type: &'a str,
    px: MaybeQuoted,
    sz: Quoted,
    acc_fill_sz: Quoted,
    avg_px: MaybeQuoted,
    state: &'a str,
    reduce_only: Flag,
    u_time: Stamp,
    // The last fill; empty on messages about anything else.
    trade_id: &'a str,
    #[serde(default)]
    fill_px: MaybeQuoted,
    #[serde(default)]
    fill_sz: MaybeQuoted,
    fill_time: Option<&'a str>,
    /// Negative: charged.
    #[serde(default)]
    fill_fee: MaybeQuoted,
    fill_fee_ccy: Option<&'a str>,
    /// Of all fills.
    #[serde(default)]
    fee: MaybeQuoted,
    fee_ccy: Option<&'a str>,
    exec_type: Option<&'a str>,
}

fn orders(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    for row in parse::<Vec<OrderRow>>(data)? {
        if !STATES.contains(&row.state) {
            return Err(format!("order {} has state `{}`", row.ord_id, row.state));
        }
        let side = side(row.side)?;
        out.push(Event::Order(Box::new(OrderUpdate {
            symbol: row.inst_id.into(),
            client_order_id: row.cl_ord_id.to_owned(),
            venue_order_id: row.ord_id.to_owned(),
            side,
            order_type: row.ord_type.to_owned(),
            tif: None,
            price: row.px.0,
            size: row.sz.0,
            filled: row.acc_fill_sz.0,
            avg_price: row.avg_px.0,
            status: row.state.to_owned(),
            exec_type: row.exec_type.filter(|t| !t.is_empty()).map(str::to_owned),
            reduce_only: row.reduce_only.0,
            ts: row.u_time.0,
        })));
        if let (Some(price), Some(size)) = (row.fill_px.0, row.fill_sz.0)
            && !size.is_zero()
        {
            out.push(Event::Fill(Box::new(fill(&row, side, price, size)?)));
        }
    }
    Ok(())
}

fn fill(row: &OrderRow, side: schemas::Side, price: Decimal, size: Decimal) -> Result<Fill, String> {
    // Where the fill's own fee is not told, that of the order is the fill's if there was no other.
    let whole = (size == row.acc_fill_sz.0).then_some(row.fee.0).flatten();
    let Some(charged) = row.fill_fee.0.or(whole) else {
        return Err(format!("fill {} of order {} without its fee", row.trade_id, row.ord_id));
    };
    let maker = match row.exec_type {
        Some("M") => true,
        Some("T") => false,
        other => return Err(format!("fill {} has exec type `{}`", row.trade_id, other.unwrap_or_default())),
    };
    let asset = [row.fill_fee_ccy, row.fee_ccy].into_iter().flatten().find(|ccy| !ccy.is_empty());
    Ok(Fill {
        symbol: Symbol::from(row.inst_id),
        venue_order_id: row.ord_id.to_owned(),
        client_order_id: Some(row.cl_ord_id.to_owned()).filter(|id| !id.is_empty()),
        trade_id: row.trade_id.to_owned(),
        side,
        price,
        size,
        fee: Decimal::ZERO - charged,
        fee_asset: asset.map(str::to_owned),
        maker,
        ts: maybe_stamp(row.fill_time)?.unwrap_or(row.u_time.0),
    })
}

fn account(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Account<'a> {
        #[serde(borrow)]
        details: Vec<Detail<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detail<'a> {
        ccy: &'a str,
        /// Empty in some account modes.
        avail_bal: MaybeQuoted,
        frozen_bal: MaybeQuoted,
        u_time: Stamp,
    }
    for account in parse::<Vec<Account>>(data)? {
        out.extend(account.details.into_iter().map(|d| match (d.avail_bal.0, d.frozen_bal.0) {
            (Some(free), Some(locked)) => Event::Balance { asset: d.ccy.to_owned(), free, locked, ts: d.u_time.0 },
            _ => Event::Other(format!("account without what is available of {}", d.ccy)),
        }));
    }
    Ok(())
}
