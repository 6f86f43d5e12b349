//! Midpoint of the closes.

use serde::{Deserialize, Serialize};

use super::window::{Range, Rolling};
use super::{Kernel, Ohlcv};

/// (highest + lowest close of `n` bars) / 2.
#[derive(Clone, Serialize, Deserialize)]
pub struct Midpoint(Rolling<Range>);

impl Midpoint {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<1> for Midpoint {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push((bar.close, bar.close)).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)]
    }
}
