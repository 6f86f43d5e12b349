//! Distance of the stop-loss from the mark, on the losing side.

use rust_decimal::Decimal;
use schemas::config::ConfigError;
use schemas::{Fraction, Side};
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, positive};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub share_max: Fraction,
    pub required: bool,
}

pub struct StopDistance;

impl Limit for StopDistance {
    fn id(&self) -> &'static str {
        "stop_distance"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.stop_distance.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.stop_distance.share_max.get(), self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let Bounds { share_max, required, .. } = limits.stop_distance;
        let protect = asked.order.protect.unwrap_or_default();
        let Some(mark) = asked.mark else { return Ok(()) };
        // How far `price` lies on the losing side of the mark; `None`: too far to be counted.
        let losing = |price: schemas::Price| {
            let distance = mark.price.get().checked_sub(price.get())?;
            Some(if asked.order.side == Side::Buy { distance } else { -distance })
        };
        let share = |distance: Option<Decimal>| match distance.and_then(|d| d.checked_div(mark.price.get())) {
            Some(share) => share.round_dp(6).normalize().to_string(),
            None => "beyond".to_owned(),
        };
        if let Some(take) = protect.take_profit {
            let distance = losing(take);
            if distance.is_none_or(|d| d >= Decimal::ZERO) {
                return Err(Broken::new(
                    share(distance),
                    0,
                    format!("a take-profit of {take} would lose at {}", mark.price),
                ));
            }
        }
        let Some(stop) = protect.stop_loss else {
            return if required { Err(Broken::new("none", share_max, "an entry needs a stop-loss")) } else { Ok(()) };
        };
        let distance = losing(stop);
        if distance.is_none_or(|d| d <= Decimal::ZERO) {
            return Err(Broken::new(share(distance), 0, format!("a stop-loss of {stop} would fire at {}", mark.price)));
        }
        if distance.is_none_or(|d| d > share_max.get() * mark.price.get()) {
            return Err(Broken::new(
                share(distance),
                share_max,
                format!("a stop-loss of {stop} is far from {}", mark.price),
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
    fn a_stop_within_fifteen_percent_on_the_losing_side_passes() {
        check(&StopDistance, "mark=100 buy stop=85", "passes");
        check(&StopDistance, "mark=100 sell stop=115 take=80", "passes");
    }

    #[test]
    fn a_stop_further_away_is_refused() {
        check(&StopDistance, "mark=100 buy stop=84.9", "0.151, allowed 0.15");
        check(&StopDistance, "mark=100 sell stop=115.1", "0.151, allowed 0.15");
    }

    #[test]
    fn protective_prices_on_the_wrong_side_are_refused() {
        check(&StopDistance, "mark=100 buy stop=101", "-0.01, allowed 0");
        check(&StopDistance, "mark=100 buy stop=100", "0, allowed 0");
        check(&StopDistance, "mark=100 sell stop=99", "-0.01, allowed 0");
        check(&StopDistance, "mark=100 buy stop=90 take=99", "0.01, allowed 0");
    }

    #[test]
    fn an_entry_without_a_stop_is_refused_where_one_is_required() {
        check(&StopDistance, "mark=100 no_stop", "none, allowed 0.15");
        check(&StopDistance, "mark=100 no_stop stop_required=false", "passes");
    }

    #[test]
    fn an_absurd_stop_is_refused_and_does_not_overflow() {
        check(
            &StopDistance,
            "mark=100 sell stop=79000000000000000000000000000",
            "789999999999999999999999999, allowed 0.15",
        );
        check(&StopDistance, "mark=0.00000001 sell stop=79000000000000000000000000000", "beyond, allowed 0.15");
    }
}
