//! Moving average convergence and divergence.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

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
}
