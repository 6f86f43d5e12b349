//! Trades are missing: a gap lasts, or lies within the candle that the signal follows from.

use super::{Asked, Broken, Limit, Limits};

pub struct MarketDataGap;

impl Limit for MarketDataGap {
    fn id(&self) -> &'static str {
        "market_data_gap"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.market_data_gap.on
    }
    fn check(&self, asked: &Asked, _: &Limits) -> Result<(), Broken> {
        match asked.gap {
            None => Ok(()),
            Some((from, None)) => Err(Broken::new(from, "none", "trades are missing still")),
            Some((from, Some(_))) => Err(Broken::new(from, "none", "trades are missing in the signal's candle")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn without_a_gap_it_passes() {
        check(&MarketDataGap, "", "passes");
    }

    #[test]
    fn a_gap_in_the_candle_and_a_gap_that_lasts_are_refused() {
        check(&MarketDataGap, "gap=5..9", "5, allowed none");
        check(&MarketDataGap, "gap=5..", "5, allowed none");
    }
}
