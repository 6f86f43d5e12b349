//! All positions behind the order over equity.

use schemas::config::ConfigError;
use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits, positive};
use crate::config::Ratio;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub times_max: Ratio,
}

pub struct Leverage;

impl Limit for Leverage {
    fn id(&self) -> &'static str {
        "leverage"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.leverage.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.leverage.times_max.0, self.id(), "times_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = limits.leverage.times_max.0;
        asked.share_of_equity(asked.gross_others + asked.exposure_after().abs(), bound, "leverage by")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn ten_times_the_equity_passes_and_more_is_refused() {
        check(&Leverage, "mark=100 qty=100 gross=90000 equity=10000", "passes");
        check(&Leverage, "mark=100 qty=101 gross=90000 equity=10000", "10.01, allowed 10");
    }
}
