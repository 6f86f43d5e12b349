//! Orders that open, in a sliding window of event time.

use schemas::config::ConfigError;
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, positive};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub orders_max: u32,
    pub window_ms: u32,
}

pub struct OrderRate;

impl Limit for OrderRate {
    fn id(&self) -> &'static str {
        "order_rate"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.order_rate.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.order_rate.orders_max.into(), self.id(), "orders_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let Bounds { orders_max, window_ms, .. } = limits.order_rate;
        let behind = asked.orders_in_window + 1;
        if behind > orders_max as usize {
            return Err(Broken::new(behind, orders_max, format!("{behind} orders in {window_ms} ms")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_last_order_of_the_window_passes_and_the_next_is_refused() {
        check(&OrderRate, "orders=29", "passes");
        check(&OrderRate, "orders=30", "31, allowed 30");
    }
}
