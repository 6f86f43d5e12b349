//! All positions behind the order, long and short added up, as a share of equity.

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

pub struct GrossExposure;

impl Limit for GrossExposure {
    fn id(&self) -> &'static str {
        "gross_exposure"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.gross_exposure.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.gross_exposure.share_max.0, self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = limits.gross_exposure.share_max.0;
        asked.share_of_equity(asked.gross_others + asked.exposure_after().abs(), bound, "gross exposure of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn twice_the_equity_passes_and_more_is_refused() {
        check(&GrossExposure, "mark=100 qty=50 gross=15000 equity=10000", "passes");
        check(&GrossExposure, "mark=100 qty=51 gross=15000 equity=10000", "2.01, allowed 2");
    }

    #[test]
    fn a_short_adds_to_it_like_a_long() {
        check(&GrossExposure, "mark=100 sell qty=51 gross=15000 net=15000 equity=10000", "2.01, allowed 2");
    }
}
