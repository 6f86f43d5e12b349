//! Equity lost since 00:00 UTC as a share of what it was then. It refuses orders at once; the account's state follows
//! when the loss lasts.

use schemas::config::ConfigError;
use schemas::{Fraction, Notional};
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, drawdown, positive};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    Reducing,
    Halted,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub share_max: Fraction,
    pub then: Then,
    pub confirm_ms: u32,
}

pub struct DailyLoss;

impl DailyLoss {
    pub const ID: &str = "daily_loss";

    /// Error: more of `day_start` is lost than allowed.
    pub fn measure(equity: Notional, day_start: Notional, limits: &Limits) -> Result<(), Broken> {
        drawdown::lost(equity, day_start, limits.daily_loss.share_max, "since 00:00 UTC")
    }
}

impl Limit for DailyLoss {
    fn id(&self) -> &'static str {
        Self::ID
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.daily_loss.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.daily_loss.share_max.get(), self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        Self::measure(asked.equity, asked.day_start_equity, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn less_than_a_tenth_lost_passes_and_a_tenth_is_refused() {
        check(&DailyLoss, "equity=9000.01 day_start=10000", "passes");
        check(&DailyLoss, "equity=9000 day_start=10000", "0.1, allowed 0.1");
        check(&DailyLoss, "equity=11000 day_start=10000", "passes");
    }
}
