//! Distance of the price that the order would trade at from the mark.

use rust_decimal::Decimal;
use schemas::config::ConfigError;
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, positive};
use crate::config::Ratio;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub share_max: Ratio,
}

pub struct PriceCollar;

impl Limit for PriceCollar {
    fn id(&self) -> &'static str {
        "price_collar"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.price_collar.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.price_collar.share_max.0, self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        // Without a mark `stale_mark` speaks; without a quote or trade there is nothing to compare it with.
        let (Some(mark), Some(expected)) = (asked.mark, asked.order.limit.or(asked.expected)) else { return Ok(()) };
        let bound = limits.price_collar.share_max.0;
        let distance = (expected - mark.price).abs();
        if distance <= bound * mark.price.get() {
            return Ok(());
        }
        let share = distance.checked_div(mark.price.get()).unwrap_or(Decimal::MAX).round_dp(6).normalize();
        Err(Broken::new(share, bound, format!("{expected} against a mark of {}", mark.price)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_market_order_meets_a_price_near_the_mark_or_is_refused() {
        check(&PriceCollar, "mark=100 expected=102", "passes");
        check(&PriceCollar, "mark=100 expected=102.1", "0.021, allowed 0.02");
        check(&PriceCollar, "mark=100 sell expected=97", "0.03, allowed 0.02");
    }

    #[test]
    fn a_limit_order_is_measured_by_its_limit() {
        check(&PriceCollar, "mark=100 expected=150 limit=99", "passes");
        check(&PriceCollar, "mark=100 expected=100 limit=110", "0.1, allowed 0.02");
    }
}
