//! Linearly weighted moving average.

use serde::{Deserialize, Serialize};

use super::window::Tape;
use super::{Kernel, Ohlcv};

/// Weights 1 to `n`, the newest heaviest. The part that [`super::hma`] is made of too.
#[derive(Clone, Serialize, Deserialize)]
pub struct Weighted {
    tape: Tape,
    /// 1 + 2 + .. + n.
    weights: f64,
}

impl Weighted {
    pub fn new(n: usize) -> Self {
        Self { tape: Tape::new(n), weights: (n * (n + 1) / 2) as f64 }
    }
    /// `NaN` while there are fewer than `n` values.
    pub fn push(&mut self, x: f64) -> f64 {
        self.tape.push(x);
        if !self.tape.is_full() {
            return f64::NAN;
        }
        let (sum, _) = self.tape.iter().fold((0.0, 1.0), |(sum, weight), x| (sum + weight * x, weight + 1.0));
        sum / self.weights
    }
}

/// The weighted mean of the newest `n` closes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Wma(Weighted);

impl Wma {
    pub fn new(n: usize) -> Self {
        Self(Weighted::new(n))
    }
}
impl Kernel<1> for Wma {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push(bar.close)]
    }
}
