//! Moving average convergence and divergence.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::{Block, Column};
use super::smooth::Smooth;
use super::{Kernel, Ohlcv, one_by_one};

/// macd = EMA12 - EMA26, signal = EMA9 of it, hist = macd - signal; each average seeded on its own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Macd {
    fast: Smooth,
    slow: Smooth,
    signal: Smooth,
}

impl Macd {
    pub fn new(fast: u32, slow: u32, signal: u32) -> Self {
        Self { fast: Smooth::ema(fast), slow: Smooth::ema(slow), signal: Smooth::ema(signal) }
    }
}
impl Kernel<3> for Macd {
    #[inline]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 3] {
        let macd = self.fast.push(bar.close) - self.slow.push(bar.close);
        let signal = self.signal.push_ready(macd);
        [macd, signal, macd - signal]
    }
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; 3]) {
        // It is seeded with what both others say, so it is the last to be warm.
        if !self.signal.is_warm() {
            return one_by_one(self, bars, rows, out);
        }
        let [macd, signal, hist] = out;
        for i in rows {
            macd[i] = self.fast.step(bars.close[i]) - self.slow.step(bars.close[i]);
            signal[i] = self.signal.step(macd[i]);
            hist[i] = macd[i] - signal[i];
        }
    }
}
