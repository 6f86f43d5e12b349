//! A reduce-only order neither grows nor flips what is held.

use schemas::config::ConfigError;

use super::{Asked, Broken, Limit, Limits, always_on};

pub struct ReduceOnly;

impl Limit for ReduceOnly {
    fn id(&self) -> &'static str {
        "reduce_only"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.reduce_only.on
    }
    fn applies_to_closes(&self) -> bool {
        true
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        always_on(limits.reduce_only.on, self.id())
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        if !asked.order.reduce_only {
            return Ok(());
        }
        let delta = asked.delta();
        if asked.held.signum() * delta.signum() >= 0 {
            return Err(Broken::new(asked.order.qty, 0, format!("{} held is not reduced by {delta}", asked.held)));
        }
        if delta.abs() > asked.held.abs() {
            return Err(Broken::new(
                asked.order.qty,
                asked.held.abs(),
                format!("{} held would be flipped", asked.held),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_close_of_what_is_held_or_less_passes() {
        check(&ReduceOnly, "held=2 sell qty=2 close", "passes");
        check(&ReduceOnly, "held=-2 buy qty=1 close", "passes");
    }

    #[test]
    fn a_close_that_grows_flips_or_has_nothing_to_close_is_refused() {
        check(&ReduceOnly, "held=2 buy qty=1 close", "1, allowed 0");
        check(&ReduceOnly, "held=2 sell qty=2.1 close", "2.1, allowed 2");
        check(&ReduceOnly, "held=0 sell qty=1 close", "1, allowed 0");
    }

    #[test]
    fn an_order_that_may_open_is_not_its_business() {
        check(&ReduceOnly, "held=2 sell qty=5", "passes");
    }
}
