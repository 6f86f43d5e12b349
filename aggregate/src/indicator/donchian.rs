//! Donchian channel.

use serde::{Deserialize, Serialize};

use super::window::{Range, Rolling};
use super::{Kernel, Ohlcv};

/// upper = highest high, lower = lowest low of `n` bars (this one included), mid between them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Donchian(Rolling<Range>);

impl Donchian {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<3> for Donchian {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 3] {
        match self.0.push((bar.low, bar.high)) {
            Some((low, high)) => [high, low, (high + low) / 2.0],
            None => [f64::NAN; 3],
        }
    }
}
