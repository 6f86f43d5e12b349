//! Correlation of highs and lows.

use serde::{Deserialize, Serialize};

use super::window::Tape;
use super::{Kernel, Ohlcv};

/// Pearson's r of the highs and the lows of `n` bars, -1..1; 0 where one of them stands still.
#[derive(Clone, Serialize, Deserialize)]
pub struct Correl {
    tape: Tape<(f64, f64)>,
    n: f64,
}

impl Correl {
    pub fn new(n: usize) -> Self {
        Self { tape: Tape::new(n), n: n as f64 }
    }
}
impl Kernel<1> for Correl {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        self.tape.push((bar.high, bar.low));
        if !self.tape.is_full() {
            return [f64::NAN];
        }
        // Distances to this bar, which is in the window: no digits cancel.
        let (mut sx, mut sy, mut sxx, mut syy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(high, low) in self.tape.iter() {
            let (x, y) = (high - bar.high, low - bar.low);
            sx += x;
            sy += y;
            sxx += x * x;
            syy += y * y;
            sxy += x * y;
        }
        let (vx, vy) = (sxx - sx * sx / self.n, syy - sy * sy / self.n);
        if vx <= 0.0 || vy <= 0.0 { [0.0] } else { [(sxy - sx * sy / self.n) / (vx * vy).sqrt()] }
    }
}
