//! Moving average of the close weighted by volume.

use serde::{Deserialize, Serialize};

use super::window::{Rolling, Sum2};
use super::{Kernel, Ohlcv};

/// sum(close * volume) / sum(volume) over `n` bars; no value where nothing was traded.
#[derive(Clone, Serialize, Deserialize)]
pub struct Vwma(Rolling<Sum2>);

impl Vwma {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<1> for Vwma {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        match self.0.push((bar.close * bar.volume, bar.volume)) {
            Some((worth, volume)) if volume > 0.0 => [worth / volume],
            _ => [f64::NAN],
        }
    }
}
