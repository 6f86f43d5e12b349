//! A spot position is not sold below zero: there is nothing to deliver.

use schemas::InstrumentKind;

use super::{Asked, Broken, Limit, Limits};

pub struct SpotShort;

impl Limit for SpotShort {
    fn id(&self) -> &'static str {
        "spot_short"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.spot_short.on
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        let spot = asked.instrument.as_ref().is_some_and(|i| i.kind == InstrumentKind::Spot);
        let after = asked.after();
        if spot && after.signum() < 0 && asked.delta().signum() < 0 {
            return Err(Broken::new(after, 0, "a spot position cannot be short"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn spot_is_sold_down_to_zero_and_no_further() {
        check(&SpotShort, "spot held=2 sell qty=2", "passes");
        check(&SpotShort, "spot held=2 sell qty=3", "-1, allowed 0");
        check(&SpotShort, "spot held=0 sell qty=1", "-1, allowed 0");
    }

    #[test]
    fn a_perpetual_may_be_short() {
        check(&SpotShort, "held=0 sell qty=1", "passes");
    }
}
