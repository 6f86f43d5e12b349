//! Change of the triple exponential average.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// Percent change of EMA(EMA(EMA(close))) against the bar before, each seeded on its own; first at bar 3n - 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Trix {
    stages: [Smooth; 3],
    before: f64,
}

impl Trix {
    pub fn new(n: u32) -> Self {
        Self { stages: [Smooth::ema(n), Smooth::ema(n), Smooth::ema(n)], before: f64::NAN }
    }
}
impl Kernel<1> for Trix {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let now = self.stages.iter_mut().fold(bar.close, |x, stage| stage.push_ready(x));
        let before = std::mem::replace(&mut self.before, now);
        if before == 0.0 { [0.0] } else { [100.0 * ((now - before) / before)] }
    }
}
