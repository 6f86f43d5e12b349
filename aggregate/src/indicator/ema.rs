//! Exponential moving average of the close.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// alpha = 2 / (n + 1), seeded with the mean of the first `n` closes at bar `n`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ema(Smooth);

impl Ema {
    pub fn new(n: u32) -> Self {
        Self(Smooth::ema(n))
    }
}
impl Kernel<1> for Ema {
    #[inline]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push(bar.close)]
    }
}
