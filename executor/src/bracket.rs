//! Protective orders that live and die with the position.
//!
//! An entry with `protect` leaves a [`Bracket`] on its instrument at its first fill, however small. From then on
//! [`Bracket::plan`] says which protective orders there should be for what is held, and the core makes it so: a
//! replacement is placed before the order that it replaces is cancelled, and both are reduce-only, so there is no
//! instant without protection and none with too much of it.

use schemas::desk::{Order, OrderKind};
use schemas::{Price, Qty, Side};
use serde::{Deserialize, Serialize};

/// What protects one position.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bracket {
    /// The entry that asked for it; the newest one where several did.
    pub parent: Order,
    /// Side of the protective orders.
    pub side: Side,
    pub stop: Leg,
    pub take: Leg,
}

/// One of the two protective orders.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Leg {
    /// Absent: not asked for.
    pub trigger: Option<Price>,
    /// The order that works for it now.
    pub id: Option<String>,
}

/// A working protective order as the plan sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Working {
    pub left: Qty,
    pub trigger: Price,
}

/// What is to be done about one leg.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    Keep,
    /// Place an order of this size and price, then cancel the one before, if there is one.
    Replace {
        qty: Qty,
        trigger: Price,
    },
    Cancel,
}

impl Bracket {
    pub fn of(entry: &Order) -> Option<Self> {
        let protect =
            entry.protect.filter(|p| !entry.reduce_only && (p.stop_loss.is_some() || p.take_profit.is_some()))?;
        Some(Self {
            parent: entry.clone(),
            side: entry.side.opposite(),
            stop: Leg { trigger: protect.stop_loss, id: None },
            take: Leg { trigger: protect.take_profit, id: None },
        })
    }

    /// The bracket still belongs to what is held: it would reduce it.
    pub fn fits(&self, held: Qty) -> bool {
        match self.side {
            Side::Sell => held.signum() > 0,
            Side::Buy => held.signum() < 0,
        }
    }

    /// What one leg needs, given what is held and what works for it.
    pub fn plan(&self, leg: &Leg, held: Qty, working: Option<Working>) -> Action {
        match (leg.trigger.filter(|_| self.fits(held)), working) {
            (Some(trigger), Some(now)) if now.left == held.abs() && now.trigger == trigger => Action::Keep,
            (Some(trigger), _) => Action::Replace { qty: held.abs(), trigger },
            (None, Some(_)) => Action::Cancel,
            (None, None) => Action::Keep,
        }
    }

    /// A protective order, still without its trigger; its id follows from the input that made it necessary.
    pub fn order(&self, kind: OrderKind, id: String, qty: Qty, ts_ns: i64, cause: schemas::Cause) -> Order {
        let name = if kind == OrderKind::Stop { "stop-loss" } else { "take-profit" };
        Order {
            id,
            side: self.side,
            kind,
            qty,
            limit: None,
            trigger: None,
            reduce_only: true,
            post_only: false,
            time_in_force: Default::default(),
            protect: None,
            parent: Some(self.parent.id.clone()),
            ts_ns,
            reason: format!("{name} of {}", self.parent.id),
            cause,
            ..self.parent.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::order;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plan_protects_exactly_what_is_held_and_nothing_else(held in -20i64..20, working in prop::option::of(1i64..20)) {
            let bracket = Bracket::of(&order("buy 5 BTC stop=90")).unwrap();
            let held = Qty::new(held.into());
            let working = working.map(|left| Working { left: Qty::new(left.into()), trigger: bracket.stop.trigger.unwrap() });
            let covered = match bracket.plan(&bracket.stop, held, working) {
                Action::Keep => working.map_or(Qty::ZERO, |w| w.left),
                Action::Replace { qty, .. } => qty,
                Action::Cancel => Qty::ZERO,
            };
            prop_assert_eq!(covered, held.max(Qty::ZERO));
            prop_assert_eq!(bracket.plan(&bracket.take, held, None), Action::Keep);
        }
    }

    #[test]
    fn a_reduce_only_order_asks_for_no_protection() {
        assert_eq!(Bracket::of(&order("buy 5 BTC stop=90 reduce")), None);
        assert_eq!(Bracket::of(&order("buy 5 BTC")), None);
    }
}
