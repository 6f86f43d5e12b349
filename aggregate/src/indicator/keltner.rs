//! Keltner channel.

use serde::{Deserialize, Serialize};

use super::atr::Atr;
use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// upper, middle, lower = EMA of the close +- width * ATR; all start with the later of the two.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keltner {
    middle: Smooth,
    range: Atr,
    width: f64,
}

impl Keltner {
    pub fn new(ema: u32, atr: u32, width: f64) -> Self {
        Self { middle: Smooth::ema(ema), range: Atr::new(atr), width }
    }
}
impl Kernel<3> for Keltner {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 3] {
        let middle = self.middle.push(bar.close);
        let reach = self.width * self.range.push(bar);
        if reach.is_nan() {
            return [f64::NAN; 3];
        }
        [middle + reach, middle, middle - reach]
    }
}
