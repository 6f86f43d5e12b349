//! Simple moving average of the close.

use serde::{Deserialize, Serialize};

use super::window::Mean;
use super::{Kernel, Ohlcv};

/// The mean of the newest `n` closes; first at bar `n`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Sma(Mean);

impl Sma {
    pub fn new(n: usize) -> Self {
        Self(Mean::new(n))
    }
}
impl Kernel<1> for Sma {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push(bar.close)]
    }
}
