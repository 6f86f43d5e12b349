//! Percentage price oscillator.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// 100 * (fast - slow) / slow EMA of the close, each seeded on its own; first at bar `slow`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ppo {
    fast: Smooth,
    slow: Smooth,
}

impl Ppo {
    pub fn new(fast: u32, slow: u32) -> Self {
        Self { fast: Smooth::ema(fast), slow: Smooth::ema(slow) }
    }
}
impl Kernel<1> for Ppo {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let (fast, slow) = (self.fast.push(bar.close), self.slow.push(bar.close));
        if slow == 0.0 { [0.0] } else { [100.0 * ((fast - slow) / slow)] }
    }
}
