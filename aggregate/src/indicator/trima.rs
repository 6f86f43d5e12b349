//! Triangular moving average.

use serde::{Deserialize, Serialize};

use super::window::Mean;
use super::{Kernel, Ohlcv};

/// A mean of means: weights rise to the middle of `n` closes and fall again.
#[derive(Clone, Serialize, Deserialize)]
pub struct Trima {
    inner: Mean,
    outer: Mean,
}

impl Trima {
    pub fn new(n: usize) -> Self {
        Self { inner: Mean::new(n.div_ceil(2)), outer: Mean::new(n / 2 + 1) }
    }
}
impl Kernel<1> for Trima {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let mean = self.inner.push(bar.close);
        if mean.is_nan() { [mean] } else { [self.outer.push(mean)] }
    }
}
