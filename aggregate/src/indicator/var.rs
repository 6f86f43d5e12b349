//! Variance of the close.

use serde::{Deserialize, Serialize};

use super::moments::Moments;
use super::{Kernel, Ohlcv};

/// Population variance of `n` closes, price squared.
#[derive(Clone, Serialize, Deserialize)]
pub struct Var {
    moments: Moments,
    n: f64,
}

impl Var {
    pub fn new(n: usize) -> Self {
        Self { moments: Moments::new(n), n: n as f64 }
    }
}
impl Kernel<1> for Var {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.moments.push(bar.close).map_or(f64::NAN, |spread| spread.squares / self.n)]
    }
}
