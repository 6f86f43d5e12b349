//! Largest order.

use schemas::Notional;
use schemas::config::ConfigError;
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, money, positive};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub notional_max: Notional,
}

pub struct OrderNotionalMax;

impl Limit for OrderNotionalMax {
    fn id(&self) -> &'static str {
        "order_notional_max"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.order_notional_max.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.order_notional_max.notional_max.get(), self.id(), "notional_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = limits.order_notional_max.notional_max;
        let notional = asked.notional();
        if notional > bound {
            return Err(Broken::new(notional, bound, format!("an order of {} is too large", money(notional))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn an_order_at_the_bound_passes_and_a_larger_one_is_refused() {
        check(&OrderNotionalMax, "mark=100 qty=1000", "passes");
        check(&OrderNotionalMax, "mark=100 qty=1000.01", "100001, allowed 100000");
    }

    #[test]
    fn an_inverse_order_is_as_large_as_its_dollars() {
        check(&OrderNotionalMax, "inverse mark=60000 qty=100000", "passes");
        check(&OrderNotionalMax, "inverse mark=60000 qty=100010", "100010, allowed 100000");
    }
}
