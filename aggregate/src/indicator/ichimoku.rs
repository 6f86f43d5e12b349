//! Ichimoku lines, not displaced.

use serde::{Deserialize, Serialize};

use super::window::{Range, Rolling};
use super::{Kernel, Ohlcv};

/// Middle of the highest high and lowest low of 9 (tenkan), 26 (kijun) and 52 (senkou b) bars; senkou a is the mean
/// of the first two. The values computed at this bar: a chart draws the cloud 26 bars ahead, and the lagging line
/// is absent because it is the future close.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ichimoku {
    tenkan: Rolling<Range>,
    kijun: Rolling<Range>,
    senkou: Rolling<Range>,
}

impl Ichimoku {
    pub fn new(tenkan: usize, kijun: usize, senkou: usize) -> Self {
        Self { tenkan: Rolling::new(tenkan), kijun: Rolling::new(kijun), senkou: Rolling::new(senkou) }
    }
}
impl Kernel<4> for Ichimoku {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 4] {
        let middle = |window: &mut Rolling<Range>| {
            window.push((bar.low, bar.high)).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
        };
        let (tenkan, kijun) = (middle(&mut self.tenkan), middle(&mut self.kijun));
        [tenkan, kijun, (tenkan + kijun) / 2.0, middle(&mut self.senkou)]
    }
}
