//! The action of new orders. Its members stand in the order in which the venue hashes them.

use rust_decimal::Decimal;
use serde::Serialize;

use super::super::SignError;
use super::wire_number;

/// One new order. There is no market order: that is an [`Tif::Ioc`] at a price that crosses.
#[derive(Clone, Debug)]
pub struct Order {
    /// A perpetual's index in `meta.universe`; 10000 more than a spot pair's index.
    pub asset: u32,
    pub is_buy: bool,
    /// Always positive, as are the size and the trigger's price.
    pub price: Decimal,
    /// In coins.
    pub size: Decimal,
    pub reduce_only: bool,
    pub kind: Kind,
    /// Our own id.
    pub client_id: Option<u128>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Limit(Tif),
    Trigger { price: Decimal, is_market: bool, tpsl: Tpsl },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Tif {
    /// "Add liquidity only": post-only.
    Alo,
    Ioc,
    Gtc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tpsl {
    /// Take profit.
    Tp,
    /// Stop loss.
    Sl,
}

/// The JSON of the action for [`super::Action`]. Error: a price or size is not positive, or has more decimals than the
/// venue takes.
pub fn order_action(orders: &[Order]) -> Result<String, SignError> {
    let orders = orders.iter().map(wire).collect::<Result<Vec<_>, _>>()?;
    let action = Action { kind: "order", orders, grouping: "na" };
    Ok(serde_json::to_string(&action).expect("Invariant: texts and integers are JSON"))
}

#[derive(Serialize)]
struct Action {
    #[serde(rename = "type")]
    kind: &'static str,
    orders: Vec<Wire>,
    grouping: &'static str,
}

#[derive(Serialize)]
struct Wire {
    a: u32,
    b: bool,
    p: String,
    s: String,
    r: bool,
    t: WireKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum WireKind {
    Limit {
        tif: Tif,
    },
    #[serde(rename_all = "camelCase")]
    Trigger {
        is_market: bool,
        trigger_px: String,
        tpsl: Tpsl,
    },
}

fn wire(order: &Order) -> Result<Wire, SignError> {
    Ok(Wire {
        a: order.asset,
        b: order.is_buy,
        p: positive(order.price)?,
        s: positive(order.size)?,
        r: order.reduce_only,
        t: match order.kind {
            Kind::Limit(tif) => WireKind::Limit { tif },
            Kind::Trigger { price, is_market, tpsl } => {
                WireKind::Trigger { is_market, trigger_px: positive(price)?, tpsl }
            }
        },
        c: order.client_id.map(|id| format!("0x{id:032x}")),
    })
}

fn positive(number: Decimal) -> Result<String, SignError> {
    if number > Decimal::ZERO {
        return wire_number(number);
    }
    Err(SignError::Input { name: "number", why: format!("{number} is not positive") })
}
