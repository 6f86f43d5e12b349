//! Commodity channel index.

use serde::{Deserialize, Serialize};

use super::window::{Mean, Tape};
use super::{Kernel, Ohlcv};

/// A mean deviation below this part of the price is rounding, not movement.
const STILL: f64 = 1e-13;

/// (typical price - its mean) / (0.015 * mean absolute deviation) over `n` bars; 0 in a flat window.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cci {
    tape: Tape,
    mean: Mean,
    n: f64,
}

impl Cci {
    pub fn new(n: usize) -> Self {
        Self { tape: Tape::new(n), mean: Mean::new(n), n: n as f64 }
    }
}
impl Kernel<1> for Cci {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let typical = bar.typical();
        self.tape.push(typical);
        let mean = self.mean.push(typical);
        if mean.is_nan() {
            return [f64::NAN];
        }
        let deviation = self.tape.iter().map(|x| (x - mean).abs()).sum::<f64>() / self.n;
        if deviation <= STILL * mean.abs() { [0.0] } else { [(typical - mean) / (0.015 * deviation)] }
    }
}
