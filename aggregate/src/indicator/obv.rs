//! On-balance volume.

use serde::{Deserialize, Serialize};

use super::{Kernel, Ohlcv};

/// Volume added when the close rises, taken away when it falls; starts at the first bar's volume.
#[derive(Clone, Serialize, Deserialize)]
pub struct Obv {
    /// `NaN` before the first bar.
    before: f64,
    total: f64,
}

impl Obv {
    pub fn new() -> Self {
        Self { before: f64::NAN, total: 0.0 }
    }
}
impl Default for Obv {
    fn default() -> Self {
        Self::new()
    }
}
impl Kernel<1> for Obv {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let before = std::mem::replace(&mut self.before, bar.close);
        if before.is_nan() || bar.close > before {
            self.total += bar.volume;
        } else if bar.close < before {
            self.total -= bar.volume;
        }
        [self.total]
    }
}
