//! Chande momentum oscillator.

use serde::{Deserialize, Serialize};

use super::rsi::Moves;
use super::{Kernel, Ohlcv};

/// 100 * (gain - loss) / (gain + loss) on Wilder's means, -100..100; 0 where the close does not move.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cmo(Moves);

impl Cmo {
    pub fn new(n: u32) -> Self {
        Self(Moves::new(n))
    }
}
impl Kernel<1> for Cmo {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push_cmo(bar.close)]
    }
}
