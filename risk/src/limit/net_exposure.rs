//! All positions behind the order, long less short, as a share of equity.

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

pub struct NetExposure;

impl Limit for NetExposure {
    fn id(&self) -> &'static str {
        "net_exposure"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.net_exposure.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.net_exposure.share_max.0, self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = limits.net_exposure.share_max.0;
        asked.share_of_equity((asked.net_others + asked.exposure_after()).abs(), bound, "net exposure of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_equity_itself_passes_and_more_is_refused_on_both_sides() {
        check(&NetExposure, "mark=100 qty=50 net=5000 equity=10000", "passes");
        check(&NetExposure, "mark=100 qty=51 net=5000 equity=10000", "1.01, allowed 1");
        check(&NetExposure, "mark=100 sell qty=51 net=-5000 equity=10000", "1.01, allowed 1");
    }

    #[test]
    fn the_other_side_takes_off_it() {
        check(&NetExposure, "mark=100 sell qty=51 net=5000 equity=10000", "passes");
    }
}
