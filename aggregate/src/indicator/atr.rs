//! True range and its average.

use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{Kernel, Ohlcv};

/// The true range of a bar: its reach together with the close before it.
#[derive(Clone, Serialize, Deserialize)]
pub struct TrueRange {
    /// `NaN` before the first bar.
    before: f64,
}

impl TrueRange {
    pub fn new() -> Self {
        Self { before: f64::NAN }
    }
    /// `NaN` at the first bar.
    #[inline]
    pub fn push(&mut self, bar: &Ohlcv) -> f64 {
        let before = std::mem::replace(&mut self.before, bar.close);
        if before.is_nan() {
            return f64::NAN;
        }
        (bar.high - bar.low).max((bar.high - before).abs()).max((bar.low - before).abs())
    }
}
impl Default for TrueRange {
    fn default() -> Self {
        Self::new()
    }
}
impl Kernel<1> for TrueRange {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.push(bar)]
    }
}

/// Wilder's mean of the true range, seeded with the mean of the first `n` (the first bar has none); first at
/// bar n + 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Atr {
    range: TrueRange,
    mean: Smooth,
}

impl Atr {
    pub fn new(n: u32) -> Self {
        Self { range: TrueRange::new(), mean: Smooth::wilder(n) }
    }
    #[inline]
    pub fn push(&mut self, bar: &Ohlcv) -> f64 {
        let range = self.range.push(bar);
        self.mean.push_ready(range)
    }
}
impl Kernel<1> for Atr {
    #[inline]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.push(bar)]
    }
}
/// The average and its percentage of the close (0 at a close of 0).
impl Kernel<2> for Atr {
    #[inline]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        let atr = self.push(bar);
        [atr, if bar.close == 0.0 { 0.0 * atr } else { atr / bar.close * 100.0 }]
    }
}
