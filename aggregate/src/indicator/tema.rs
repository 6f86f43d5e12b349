//! Triple exponential moving average.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// 3*E1 - 3*E2 + E3, each the average of the one before and seeded on its own; first at bar 3n - 2.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tema([Smooth; 3]);

impl Tema {
    pub fn new(n: u32) -> Self {
        Self([Smooth::ema(n), Smooth::ema(n), Smooth::ema(n)])
    }
}
impl Kernel<1> for Tema {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let [first, second, third] = &mut self.0;
        let e1 = first.push(bar.close);
        let e2 = second.push_ready(e1);
        let e3 = third.push_ready(e2);
        [3.0 * e1 - 3.0 * e2 + e3]
    }
}
