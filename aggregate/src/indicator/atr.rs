//! True range and its average.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::{Block, Column, STEP_BARS};
use super::smooth::Smooth;
use super::{Kernel, Ohlcv, one_by_one};

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
        if before.is_nan() { f64::NAN } else { reach(bar.high, bar.low, before) }
    }
}
#[inline]
fn reach(high: f64, low: f64, before: f64) -> f64 {
    larger(larger(high - low, (high - before).abs()), (low - before).abs())
}
/// `f64::max` of numbers, without its care for `NaN`.
#[inline]
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
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
        // The mean is warm some bars behind the first, so there is a close before this one.
        if self.mean.is_warm() {
            let before = std::mem::replace(&mut self.range.before, bar.close);
            return self.mean.step(reach(bar.high, bar.low, before));
        }
        let range = self.range.push(bar);
        self.mean.push_ready(range)
    }
}
/// In percent of the close; 0 at a close of 0.
#[inline]
fn percent(atr: f64, close: f64) -> f64 {
    if close == 0.0 { 0.0 * atr } else { atr / close * 100.0 }
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
        [atr, percent(atr, bar.close)]
    }
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; 2]) {
        let (Some(last), true) = (rows.clone().last(), self.mean.is_warm() && rows.len() == STEP_BARS) else {
            return one_by_one(self, bars, rows, out);
        };
        // What does not wait for the bar before goes through all bars at once.
        let (high, low, close) = (&bars.high[rows.clone()], &bars.low[rows.clone()], &bars.close[rows.clone()]);
        let mut ranges = [0.0; STEP_BARS];
        ranges[0] = reach(high[0], low[0], self.range.before);
        for i in 1..STEP_BARS {
            ranges[i] = reach(high[i], low[i], close[i - 1]);
        }
        self.range.before = bars.close[last];
        let [atr, natr] = out;
        let (atr, natr) = (&mut atr[rows.clone()], &mut natr[rows]);
        for (atr, range) in atr.iter_mut().zip(ranges) {
            *atr = self.mean.step(range);
        }
        for ((natr, atr), close) in natr.iter_mut().zip(atr).zip(close) {
            *natr = percent(*atr, *close);
        }
    }
}
