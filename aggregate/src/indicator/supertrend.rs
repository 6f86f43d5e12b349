//! SuperTrend.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// The band that the price has not crossed and the direction (+1 up: the band is below; -1 down). Bands are
/// (high + low) / 2 +- width * ATR, an average whose first true range is the first bar's own reach (first value
/// at bar `n`); a band only moves towards the price until the close crosses it. It begins downwards, so the first
/// trend is a habit of the formula and not a finding.
#[derive(Clone, Serialize, Deserialize)]
pub struct SuperTrend {
    mean: Smooth,
    width: f64,
    /// Close, upper and lower band of the bar before.
    before: Option<(f64, f64, f64)>,
    close: f64,
    up: bool,
}

impl SuperTrend {
    pub fn new(n: u32, width: f64) -> Self {
        Self { mean: Smooth::wilder(n), width, before: None, close: f64::NAN, up: false }
    }
}
impl Kernel<2> for SuperTrend {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        let reach = bar.high - bar.low;
        let last = std::mem::replace(&mut self.close, bar.close);
        let range = if last.is_nan() { reach } else { reach.max((bar.high - last).abs()).max((bar.low - last).abs()) };
        let atr = self.mean.push(range);
        if atr.is_nan() {
            return [f64::NAN; 2];
        }
        let middle = (bar.high + bar.low) / 2.0;
        let (mut upper, mut lower) = (middle + self.width * atr, middle - self.width * atr);
        if let Some((close, upper_before, lower_before)) = self.before {
            if upper >= upper_before && close <= upper_before {
                upper = upper_before;
            }
            if lower <= lower_before && close >= lower_before {
                lower = lower_before;
            }
            self.up = if self.up { bar.close >= lower } else { bar.close > upper };
        }
        self.before = Some((bar.close, upper, lower));
        if self.up { [lower, 1.0] } else { [upper, -1.0] }
    }
}
