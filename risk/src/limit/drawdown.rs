//! Equity lost since its peak as a share of it. It refuses orders at once; when the loss lasts, everything is closed
//! and the account is HALTED.

use rust_decimal::Decimal;
use schemas::config::ConfigError;
use schemas::{Fraction, Notional};
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, money, positive};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub share_max: Fraction,
    pub confirm_ms: u32,
}

pub struct Drawdown;

impl Drawdown {
    pub const ID: &str = "drawdown";

    /// Error: more of `peak` is lost than allowed.
    pub fn measure(equity: Notional, peak: Notional, limits: &Limits) -> Result<(), Broken> {
        lost(equity, peak, limits.drawdown.share_max, "since the peak")
    }
}

/// Error: `share_max` of `before` is lost or more.
pub(super) fn lost(equity: Notional, before: Notional, share_max: Fraction, since: &str) -> Result<(), Broken> {
    let lost = before - equity;
    // Compared as a product: it is exact.
    if before <= Notional::ZERO || lost < before * share_max {
        return Ok(());
    }
    let share = lost.get().checked_div(before.get()).unwrap_or(Decimal::MAX).round_dp(6).normalize();
    Err(Broken::new(share, share_max, format!("{} of {} lost {since}", money(lost), money(before))))
}

impl Limit for Drawdown {
    fn id(&self) -> &'static str {
        Self::ID
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.drawdown.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.drawdown.share_max.get(), self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        Self::measure(asked.equity, asked.peak_equity, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn less_than_thirty_percent_below_the_peak_passes_and_thirty_are_refused() {
        check(&Drawdown, "equity=7000.01 peak=10000", "passes");
        check(&Drawdown, "equity=7000 peak=10000", "0.3, allowed 0.3");
    }
}
