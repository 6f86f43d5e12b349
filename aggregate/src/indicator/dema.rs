//! Double exponential moving average.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// 2*E1 - E2, where E2 is the average of E1, each seeded on its own; first at bar 2n - 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Dema([Smooth; 2]);

impl Dema {
    pub fn new(n: u32) -> Self {
        Self([Smooth::ema(n), Smooth::ema(n)])
    }
}
impl Kernel<1> for Dema {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let [first, second] = &mut self.0;
        let e1 = first.push(bar.close);
        let e2 = second.push_ready(e1);
        [2.0 * e1 - e2]
    }
}
