//! Rate of change and momentum.

use serde::{Deserialize, Serialize};

use super::window::Tape;
use super::{Kernel, Ohlcv};

/// Change of the close against `n` bars ago: in percent (0 against a close of 0) and in price.
#[derive(Clone, Serialize, Deserialize)]
pub struct Roc(Tape);

impl Roc {
    pub fn new(n: usize) -> Self {
        Self(Tape::new(n))
    }
}
impl Kernel<2> for Roc {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        let Some(past) = self.0.push(bar.close) else {
            return [f64::NAN; 2];
        };
        let change = bar.close - past;
        [if past == 0.0 { 0.0 } else { 100.0 * (change / past) }, change]
    }
}
