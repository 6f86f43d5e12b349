//! Williams %R.

use serde::{Deserialize, Serialize};

use super::window::{Range, Rolling};
use super::{Kernel, Ohlcv};

/// -100 (close at the lowest low of `n` bars) .. 0 (at the highest high); 0 in a flat window.
#[derive(Clone, Serialize, Deserialize)]
pub struct Willr(Rolling<Range>);

impl Willr {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<1> for Willr {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        match self.0.push((bar.low, bar.high)) {
            Some((low, high)) if high > low => [-100.0 * ((high - bar.close) / (high - low))],
            Some(_) => [0.0],
            None => [f64::NAN],
        }
    }
}
