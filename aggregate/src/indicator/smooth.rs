//! Recursive means: the exponential one and Wilder's, both seeded with a plain mean.

use serde::{Deserialize, Serialize};

/// A mean that moves by `gain` of the distance to each new value; the first is the mean of the first `n` values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Smooth {
    gain: f64,
    n: u32,
    seen: u32,
    /// The sum of the values while `seen < n`, the mean afterwards.
    value: f64,
}

impl Smooth {
    /// Exponential: alpha = 2 / (n + 1).
    pub fn ema(n: u32) -> Self {
        Self { gain: 2.0 / (n as f64 + 1.0), n, seen: 0, value: 0.0 }
    }
    /// Wilder's: alpha = 1 / n.
    pub fn wilder(n: u32) -> Self {
        Self { gain: 1.0 / n as f64, n, seen: 0, value: 0.0 }
    }
    /// `NaN` until the `n`-th value. The distance is multiplied, not the old mean: a market that stands still
    /// brings the mean to rest at its price instead of next to it.
    #[inline]
    pub fn push(&mut self, x: f64) -> f64 {
        if !self.is_warm() {
            return self.seed(x);
        }
        self.step(x)
    }

    /// It has seen its first `n` values.
    #[inline]
    pub fn is_warm(&self) -> bool {
        self.seen >= self.n
    }
    /// [`Smooth::push`] of one that is warm.
    #[inline]
    pub fn step(&mut self, x: f64) -> f64 {
        self.value += (x - self.value) * self.gain;
        self.value
    }

    /// The same behind a stage that may not be ready: its `NaN` is passed on and not taken in.
    #[inline]
    pub fn push_ready(&mut self, x: f64) -> f64 {
        if x.is_nan() { x } else { self.push(x) }
    }

    // Inlined, or the state would have to live in memory instead of registers for every later value.
    #[inline(always)]
    fn seed(&mut self, x: f64) -> f64 {
        self.value += x;
        self.seen += 1;
        if self.seen < self.n {
            return f64::NAN;
        }
        self.value /= self.n as f64;
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_the_mean_of_the_first_n() {
        let mut ema = Smooth::ema(3);
        assert!(ema.push(1.0).is_nan() && ema.push(2.0).is_nan());
        assert_eq!(ema.push(6.0), 3.0);
        assert_eq!(ema.push(5.0), 4.0);
    }

    #[test]
    fn a_market_that_stands_still_brings_the_mean_to_rest_at_its_price() {
        let (mut fast, mut slow) = (Smooth::ema(9), Smooth::ema(21));
        let mut last = (0.0, 0.0);
        for i in 0..2000 {
            let x = if i < 50 { 42_000.1 + i as f64 } else { 42_049.1 };
            last = (fast.push(x), slow.push(x));
        }
        assert!((last.0 - 42_049.1).abs() < 1e-10 && (last.1 - last.0).abs() < 1e-10);
    }
}
