//! Bollinger bands.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::{Block, Column, STEP_BARS};
use super::moments::{Moments, Spread};
use super::{Kernel, Ohlcv, one_by_one};

/// Mean of `n` closes and `width` population deviations. The bands and what is derived from them are two kernels over
/// this part: divisions cost more than the rest together, and most users want the bands alone.
#[derive(Clone, Serialize, Deserialize)]
struct Band {
    moments: Moments,
    share: f64,
    width: f64,
}

impl Band {
    fn new(n: usize, width: f64) -> Self {
        Self { moments: Moments::new(n), share: 1.0 / n as f64, width }
    }
    /// Middle and deviation; `NaN` while there are fewer than `n` closes.
    #[inline(always)]
    fn push(&mut self, close: f64) -> (f64, f64) {
        match self.moments.push(close) {
            Some(spread) => (spread.mean, (spread.squares * self.share).sqrt()),
            None => (f64::NAN, f64::NAN),
        }
    }
}

/// lower, middle, upper = mean -+ width * deviation; the deviation.
#[derive(Clone, Serialize, Deserialize)]
pub struct Bbands(Band);

impl Bbands {
    pub fn new(n: usize, width: f64) -> Self {
        Self(Band::new(n, width))
    }
}
impl Kernel<4> for Bbands {
    #[inline(always)]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 4] {
        let (middle, deviation) = self.0.push(bar.close);
        let reach = self.0.width * deviation;
        [middle - reach, middle, middle + reach, deviation]
    }
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; 4]) {
        if rows.len() != STEP_BARS {
            return one_by_one(self, bars, rows, out);
        }
        let Band { moments, share, width } = &mut self.0;
        let none = Spread { mean: f64::NAN, squares: f64::NAN };
        let mut spreads = [none; STEP_BARS];
        for (spread, close) in spreads.iter_mut().zip(&bars.close[rows.clone()]) {
            *spread = moments.push(*close).unwrap_or(none);
        }
        // Roots do not wait for the bar before: they go through all bars at once.
        let [lower, middle, upper, deviation] = out;
        for (i, spread) in rows.zip(spreads) {
            deviation[i] = (spread.squares * *share).sqrt();
            let reach = *width * deviation[i];
            (lower[i], middle[i], upper[i]) = (spread.mean - reach, spread.mean, spread.mean + reach);
        }
    }
}

/// bandwidth in percent of the middle; percent_b, the place of the close: 0 at the lower band and 1 at the upper (0.5
/// where they coincide).
#[derive(Clone, Serialize, Deserialize)]
pub struct Place(Band);

impl Place {
    pub fn new(n: usize, width: f64) -> Self {
        Self(Band::new(n, width))
    }
}
impl Kernel<2> for Place {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        let (middle, deviation) = self.0.push(bar.close);
        let reach = self.0.width * deviation;
        let percent_b = if reach == 0.0 { 0.5 } else { (bar.close - middle) / (2.0 * reach) + 0.5 };
        [200.0 * reach / middle, percent_b]
    }
}
