//! Tillson's T3.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// Six exponential averages in a row, each seeded on its own, mixed by the volume factor; first at bar 6n - 5.
#[derive(Clone, Serialize, Deserialize)]
pub struct T3 {
    stages: [Smooth; 6],
    /// Weights of stages 3, 4, 5, 6; their sum is 1.
    weights: [f64; 4],
}

impl T3 {
    pub fn new(n: u32, factor: f64) -> Self {
        let (v, v2, v3) = (factor, factor * factor, factor * factor * factor);
        Self {
            stages: std::array::from_fn(|_| Smooth::ema(n)),
            weights: [1.0 + 3.0 * v + 3.0 * v2 + v3, -3.0 * v - 6.0 * v2 - 3.0 * v3, 3.0 * v2 + 3.0 * v3, -v3],
        }
    }
}
impl Kernel<1> for T3 {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let mut x = bar.close;
        let values = self.stages.each_mut().map(|stage| {
            x = stage.push_ready(x);
            x
        });
        [values[2..].iter().zip(self.weights).map(|(value, weight)| value * weight).sum()]
    }
}
