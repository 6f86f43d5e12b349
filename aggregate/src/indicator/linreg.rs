//! Line through the newest closes.

use serde::{Deserialize, Serialize};

use super::window::Tape;
use super::{Kernel, Ohlcv};

/// Least squares over `n` closes: slope in price per bar, and the line's value at this bar.
#[derive(Clone, Serialize, Deserialize)]
pub struct Linreg {
    tape: Tape,
    n: f64,
}

impl Linreg {
    pub fn new(n: usize) -> Self {
        Self { tape: Tape::new(n), n: n as f64 }
    }
}
impl Kernel<2> for Linreg {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 2] {
        self.tape.push(bar.close);
        if !self.tape.is_full() {
            return [f64::NAN; 2];
        }
        // Places are counted from the middle of the window and prices from this close: small numbers, few digits lost.
        let middle = (self.n - 1.0) / 2.0;
        let (mut place, mut sum, mut product) = (-middle, 0.0, 0.0);
        for close in self.tape.iter() {
            let d = close - bar.close;
            sum += d;
            product += place * d;
            place += 1.0;
        }
        let slope = product / (self.n * (self.n * self.n - 1.0) / 12.0);
        [slope, bar.close + sum / self.n + slope * middle]
    }
}
