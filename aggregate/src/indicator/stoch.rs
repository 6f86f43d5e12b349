//! Stochastic oscillator.

use serde::{Deserialize, Serialize};

use super::window::{Mean, Range, Rolling};
use super::{Kernel, Ohlcv};

/// 100 * (close - lowest) / (highest - lowest) over `n` bars (0 in a flat window), its mean of 3 (slow k and fast
/// d), and the mean of 3 of that (slow d). Lines that belong together start together.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stoch {
    range: Rolling<Range>,
    k: Mean,
    d: Mean,
}

impl Stoch {
    pub fn new(n: usize, k: usize, d: usize) -> Self {
        Self { range: Rolling::new(n), k: Mean::new(k), d: Mean::new(d) }
    }
}
/// slow k, slow d, fast k, fast d.
impl Kernel<4> for Stoch {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 4] {
        let Some((low, high)) = self.range.push((bar.low, bar.high)) else {
            return [f64::NAN; 4];
        };
        let raw = if high == low { 0.0 } else { (bar.close - low) / ((high - low) / 100.0) };
        let k = self.k.push(raw);
        let d = if k.is_nan() { k } else { self.d.push(k) };
        [k + 0.0 * d, d, raw + 0.0 * k, k]
    }
}
