//! Balance of power.

use serde::{Deserialize, Serialize};

use super::{Kernel, Ohlcv};

/// (close - open) / (high - low), -1..1; 0 in a bar without reach.
#[derive(Clone, Serialize, Deserialize, Default)]
pub struct Bop {}

impl Kernel<1> for Bop {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let reach = bar.high - bar.low;
        if reach > 0.0 { [(bar.close - bar.open) / reach] } else { [0.0] }
    }
}
