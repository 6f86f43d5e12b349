//! Accumulation and distribution line.

use serde::{Deserialize, Serialize};

use super::{Kernel, Ohlcv};

/// Volume signed by the place of the close in the bar: the whole at the high, its negative at the low, nothing in a
/// bar without reach. The part that AD, ADOSC and CMF share.
#[inline]
pub fn flow(bar: &Ohlcv) -> f64 {
    let reach = bar.high - bar.low;
    if reach > 0.0 { ((bar.close - bar.low) - (bar.high - bar.close)) / reach * bar.volume } else { 0.0 }
}

/// The running sum of that flow.
#[derive(Clone, Serialize, Deserialize, Default)]
pub struct Ad(f64);

impl Ad {
    pub fn new() -> Self {
        Self(0.0)
    }
    pub fn push(&mut self, bar: &Ohlcv) -> f64 {
        self.0 += flow(bar);
        self.0
    }
}
impl Kernel<1> for Ad {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.push(bar)]
    }
}
