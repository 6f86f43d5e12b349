//! What our own fills have made us hold. It exists to clip reduce-only orders and to size protective ones; what
//! the account is worth is risk's to say.

use std::collections::BTreeMap;

use schemas::exec::Fill;
use schemas::{Qty, Side};
use serde::{Deserialize, Serialize};

/// Signed sizes by venue and symbol.
///
/// Invariant E-2: `held` moves in [`Positions::apply_fill`] and nowhere else.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Positions {
    held: BTreeMap<String, BTreeMap<String, Qty>>,
}

impl Positions {
    /// Signed: long positive, short negative, zero when nothing is held.
    pub fn held(&self, venue: &str, symbol: &str) -> Qty {
        self.held.get(venue).and_then(|v| v.get(symbol)).copied().unwrap_or(Qty::ZERO)
    }

    /// The size held behind the fill. Flat instruments leave the map, so that it holds only open positions.
    pub fn apply_fill(&mut self, fill: &Fill) -> Qty {
        let venue = self.held.entry(fill.venue.clone()).or_default();
        let held = venue.get(&fill.symbol).copied().unwrap_or(Qty::ZERO) + signed(fill.side, fill.qty);
        if held.is_zero() {
            venue.remove(&fill.symbol);
        } else {
            venue.insert(fill.symbol.clone(), held);
        }
        held
    }
}

/// `qty` with the sign of `side`.
pub fn signed(side: Side, qty: Qty) -> Qty {
    match side {
        Side::Buy => qty,
        Side::Sell => -qty,
    }
}

/// How much of `qty` an order of `side` may execute without growing or flipping `held`.
pub fn reducible(held: Qty, side: Side, qty: Qty) -> Qty {
    let closes = match side {
        Side::Buy => held.signum() < 0,
        Side::Sell => held.signum() > 0,
    };
    if closes { qty.min(held.abs()) } else { Qty::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_reduce_only_execution_never_grows_or_flips(held in -100i64..100, qty in 1i64..200, buy in any::<bool>()) {
            let (held, qty) = (Qty::new(held.into()), Qty::new(qty.into()));
            let side = if buy { Side::Buy } else { Side::Sell };
            let after = held + signed(side, reducible(held, side, qty));
            prop_assert!(after.abs() <= held.abs());
            prop_assert!(after.is_zero() || after.signum() == held.signum());
        }
    }
}
