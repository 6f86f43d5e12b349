//! Chaikin oscillator.

use serde::{Deserialize, Serialize};

use super::ad::Ad;
use super::{Kernel, Ohlcv};

/// EMA 3 - EMA 10 of the accumulation line, both started at its first value; shown from bar 10 on.
#[derive(Clone, Serialize, Deserialize)]
pub struct Adosc {
    line: Ad,
    gains: [f64; 2],
    means: Option<[f64; 2]>,
    bars: u32,
    slow: u32,
}

impl Adosc {
    pub fn new(fast: u32, slow: u32) -> Self {
        let gain = |n: u32| 2.0 / (n as f64 + 1.0);
        Self { line: Ad::new(), gains: [gain(fast), gain(slow)], means: None, bars: 0, slow }
    }
}
impl Kernel<1> for Adosc {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let line = self.line.push(bar);
        let means = self.means.get_or_insert([line; 2]);
        for (mean, gain) in means.iter_mut().zip(self.gains) {
            *mean += (line - *mean) * gain;
        }
        self.bars = self.bars.saturating_add(1);
        if self.bars < self.slow { [f64::NAN] } else { [means[0] - means[1]] }
    }
}
