//! Stochastic of the relative strength index.

use serde::{Deserialize, Serialize};

use super::rsi::Moves;
use super::window::{Mean, Range, Rolling};
use super::{Kernel, Ohlcv};

/// k = mean of 3 of the place of RSI 14 between its lowest and highest of 14 (0..100; 0 where it did not move at
/// all), d = mean of 3 of k. No reach is too small to count, as in TA-Lib: where the close rests for the whole window
/// this measures the rounding of the RSI and means nothing.
#[derive(Clone, Serialize, Deserialize)]
pub struct StochRsi {
    rsi: Moves,
    range: Rolling<Range>,
    k: Mean,
    d: Mean,
}

impl StochRsi {
    pub fn new(rsi: u32, n: usize, k: usize, d: usize) -> Self {
        Self { rsi: Moves::new(rsi), range: Rolling::new(n), k: Mean::new(k), d: Mean::new(d) }
    }
}
impl Kernel<2> for StochRsi {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        let rsi = self.rsi.push_rsi(bar.close);
        if rsi.is_nan() {
            return [f64::NAN; 2];
        }
        let Some((low, high)) = self.range.push((rsi, rsi)) else {
            return [f64::NAN; 2];
        };
        let raw = if high == low { 0.0 } else { 100.0 * (rsi - low) / (high - low) };
        let k = self.k.push(raw);
        [k, if k.is_nan() { k } else { self.d.push(k) }]
    }
}
