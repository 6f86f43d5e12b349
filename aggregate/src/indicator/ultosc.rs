//! Ultimate oscillator.

use serde::{Deserialize, Serialize};

use super::window::{Rolling, Sum2};
use super::{Kernel, Ohlcv};

/// Buying pressure over true range of 7, 14 and 28 bars, weighted 4:2:1, 0..100. A window without range adds
/// nothing.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ultosc {
    /// `NaN` before the first bar.
    before: f64,
    windows: [Rolling<Sum2>; 3],
}

impl Ultosc {
    pub fn new(lengths: [usize; 3]) -> Self {
        Self { before: f64::NAN, windows: lengths.map(Rolling::new) }
    }
}
impl Kernel<1> for Ultosc {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let before = std::mem::replace(&mut self.before, bar.close);
        if before.is_nan() {
            return [f64::NAN];
        }
        let low = bar.low.min(before);
        let (pressure, range) = (bar.close - low, bar.high.max(before) - low);
        let mut sum = 0.0;
        for (window, weight) in self.windows.iter_mut().zip([4.0, 2.0, 1.0]) {
            match window.push((pressure, range)) {
                Some((pressure, range)) if range > 0.0 => sum += weight * (pressure / range),
                Some(_) => {}
                None => sum = f64::NAN,
            }
        }
        [100.0 * (sum / 7.0)]
    }
}
