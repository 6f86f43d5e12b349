//! Kaufman's adaptive moving average.

use serde::{Deserialize, Serialize};

use super::window::{Rolling, Sum, Tape};
use super::{Kernel, Ohlcv};

/// An average whose speed lies between EMA 30 and EMA 2, by the efficiency of the newest `n` moves: way made over
/// way gone (1 where nothing moved). Starts from the close before its first value, which is at bar n + 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kama {
    closes: Tape,
    way: Rolling<Sum>,
    /// The newest close until the average starts. `NaN` before the first bar.
    before: f64,
    value: f64,
}

const FAST: f64 = 2.0 / 3.0;
const SLOW: f64 = 2.0 / 31.0;

impl Kama {
    pub fn new(n: usize) -> Self {
        Self { closes: Tape::new(n), way: Rolling::new(n), before: f64::NAN, value: f64::NAN }
    }
}
impl Kernel<1> for Kama {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let before = std::mem::replace(&mut self.before, bar.close);
        let past = self.closes.push(bar.close);
        if before.is_nan() {
            return [f64::NAN];
        }
        let (Some(gone), Some(past)) = (self.way.push((bar.close - before).abs()), past) else {
            return [f64::NAN];
        };
        let made = (bar.close - past).abs();
        let efficiency = if gone <= made { 1.0 } else { made / gone };
        let speed = efficiency * (FAST - SLOW) + SLOW;
        let value = if self.value.is_nan() { before } else { self.value };
        self.value = value + (bar.close - value) * speed * speed;
        [self.value]
    }
}
