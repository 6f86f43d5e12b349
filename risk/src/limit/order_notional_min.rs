//! Smallest order: the configured one or the venue's own, whichever is greater.

use schemas::Notional;
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, money};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub notional_min: Notional,
}

pub struct OrderNotionalMin;

impl Limit for OrderNotionalMin {
    fn id(&self) -> &'static str {
        "order_notional_min"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.order_notional_min.on
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let venue = asked.instrument.as_ref().map(|i| i.min_notional).unwrap_or_default();
        let bound = limits.order_notional_min.notional_min.max(venue);
        let notional = asked.notional();
        if notional < bound {
            return Err(Broken::new(notional, bound, format!("an order of {} is too small", money(notional))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn an_order_at_the_bound_passes_and_a_smaller_one_is_refused() {
        check(&OrderNotionalMin, "mark=100 qty=0.1", "passes");
        check(&OrderNotionalMin, "mark=100 qty=0.09", "9, allowed 10");
    }

    #[test]
    fn the_venues_own_minimum_counts_as_well() {
        check(&OrderNotionalMin, "mark=100 qty=0.2 venue_min=25", "20, allowed 25");
    }
}
