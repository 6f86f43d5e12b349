//! The size is at least one lot and a whole number of lots.

use super::{Asked, Broken, Limit, Limits};

pub struct MinLot;

impl Limit for MinLot {
    fn id(&self) -> &'static str {
        "min_lot"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.min_lot.on
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        let lot = asked.instrument.as_ref().map(|i| i.lot).unwrap_or_default();
        let qty = asked.order.qty;
        if qty <= schemas::Qty::ZERO || qty < lot {
            return Err(Broken::new(qty, lot, "less than one lot"));
        }
        // A flip carries what is held, which may be off the lots; only what opens is ours to choose.
        let closes = if asked.held.signum() * asked.delta().signum() < 0 {
            asked.held.abs().min(qty)
        } else {
            schemas::Qty::ZERO
        };
        let opens = qty - closes;
        if opens.round_down_to(lot) != opens {
            return Err(Broken::new(opens, lot, "not a whole number of lots"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn whole_lots_pass() {
        check(&MinLot, "lot=0.1 qty=0.1", "passes");
        check(&MinLot, "lot=0.1 qty=2.3", "passes");
        check(&MinLot, "lot=0 qty=0.123", "passes");
    }

    #[test]
    fn less_than_a_lot_and_parts_of_one_are_refused() {
        check(&MinLot, "lot=0.1 qty=0.09", "0.09, allowed 0.1");
        check(&MinLot, "lot=0.1 qty=0.15", "0.15, allowed 0.1");
        check(&MinLot, "lot=0 qty=0", "0, allowed 0");
    }

    #[test]
    fn a_flip_of_an_odd_position_opens_whole_lots() {
        check(&MinLot, "lot=0.1 held=0.05 sell qty=0.25", "passes");
        check(&MinLot, "lot=0.1 held=0.05 sell qty=0.2", "0.15, allowed 0.1");
    }
}
