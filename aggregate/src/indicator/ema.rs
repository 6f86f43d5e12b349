//! Exponential moving average of the close.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::{Block, Column};
use super::smooth::Smooth;
use super::{Kernel, Ohlcv, one_by_one};

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
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; 1]) {
        if !self.0.is_warm() {
            return one_by_one(self, bars, rows, out);
        }
        for i in rows {
            out[0][i] = self.0.step(bars.close[i]);
        }
    }
}
