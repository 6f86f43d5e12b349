//! The position behind the order as a share of equity.

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

pub struct MaxPositionShare;

impl Limit for MaxPositionShare {
    fn id(&self) -> &'static str {
        "max_position_share"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.max_position_share.on
    }
    fn check_config(&self, limits: &Limits) -> Result<(), ConfigError> {
        positive(limits.max_position_share.share_max.0, self.id(), "share_max")
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = limits.max_position_share.share_max.0;
        asked.share_of_equity(asked.exposure_after().abs(), bound, "a position of")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_fifth_of_the_equity_passes_and_more_is_refused() {
        check(&MaxPositionShare, "mark=100 qty=20 equity=10000", "passes");
        check(&MaxPositionShare, "mark=100 qty=20.01 equity=10000", "0.2001, allowed 0.2");
    }

    #[test]
    fn what_is_held_and_on_its_way_counts_with_the_order() {
        check(&MaxPositionShare, "mark=100 held=15 working=3 qty=3 equity=10000", "0.21, allowed 0.2");
        check(&MaxPositionShare, "mark=100 held=15 working=3 sell qty=38 equity=10000", "passes");
    }

    #[test]
    fn without_equity_nothing_is_opened() {
        check(&MaxPositionShare, "mark=100 qty=1 equity=0", "none, allowed 0.2");
        check(&MaxPositionShare, "mark=100 qty=1 equity=-5", "none, allowed 0.2");
    }
}
