//! The signal came over a gap: bars that were not seen whole stand behind its averages and indicators.

use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits};

pub struct GapBars;

/// `[limits.gap_bars]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    /// So many bars may stand behind it.
    pub bars_max: u32,
}

impl Limit for GapBars {
    fn id(&self) -> &'static str {
        "gap_bars"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.gap_bars.on
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bars_max = limits.gap_bars.bars_max;
        if asked.gap_bars <= bars_max {
            return Ok(());
        }
        Err(Broken::new(asked.gap_bars, bars_max, "bars behind the signal were not seen whole"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_signal_over_no_gap_passes_and_one_over_as_many_bars_as_allowed() {
        check(&GapBars, "", "passes");
        check(&GapBars, "gap_bars=2 gap_bars_max=2", "passes");
    }

    #[test]
    fn a_signal_over_a_gap_is_refused() {
        check(&GapBars, "gap_bars=1", "1, allowed 0");
        check(&GapBars, "gap_bars=3 gap_bars_max=2", "3, allowed 2");
    }
}
