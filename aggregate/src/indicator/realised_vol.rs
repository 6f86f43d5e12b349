//! Realised volatility of logarithmic returns.

use serde::{Deserialize, Serialize};

use super::log::log_return;
use super::moments::Moments;
use super::window::{Rolling, Sum};
use super::{Kernel, Ohlcv};

/// rv: sample deviation of `n` returns, and the same without removing their mean, both times the root of the bars in
/// 365 days (no value for bars that are not cut by time); ewma_var: exponential mean of squared returns per bar,
/// alpha = 0.06, started with the first. A bar whose close or predecessor is not above zero has no return and is
/// passed over.
#[derive(Clone, Serialize, Deserialize)]
pub struct RealisedVol {
    /// `NaN` before the first bar.
    before: f64,
    returns: Moments,
    squares: Rolling<Sum>,
    n: f64,
    /// Root of the bars in a year; `NaN` where there is no such number.
    per_year: f64,
    ewma: f64,
}

const ALPHA: f64 = 0.06;

impl RealisedVol {
    /// `bars_per_year`: `NaN` for bars that are not cut by time.
    pub fn new(n: usize, bars_per_year: f64) -> Self {
        Self {
            before: f64::NAN,
            returns: Moments::new(n),
            squares: Rolling::new(n),
            n: n as f64,
            per_year: bars_per_year.sqrt(),
            ewma: f64::NAN,
        }
    }
}
impl Kernel<3> for RealisedVol {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 3] {
        let before = std::mem::replace(&mut self.before, bar.close);
        // Written so that NaN, the mark of the first bar, has no return either.
        if !(before > 0.0 && bar.close > 0.0) {
            return [f64::NAN, f64::NAN, self.ewma];
        }
        let r = log_return(before, bar.close);
        let square = r * r;
        self.ewma = if self.ewma.is_nan() { square } else { self.ewma + (square - self.ewma) * ALPHA };
        let (Some(spread), Some(squares)) = (self.returns.push(r), self.squares.push(square)) else {
            return [f64::NAN, f64::NAN, self.ewma];
        };
        let sample = (spread.squares / (self.n - 1.0)).sqrt();
        [sample * self.per_year, (squares / self.n).sqrt() * self.per_year, self.ewma]
    }
}
