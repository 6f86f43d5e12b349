//! Relative strength index.

use serde::{Deserialize, Serialize};

use super::{Kernel, Ohlcv};

/// Below this sum of mean gain and mean loss the close does not move.
const STILL: f64 = 1e-14;

/// Wilder's means of gains and losses over `n` changes; the part that RSI, StochRSI and CMO share.
///
/// (mean * (n - 1) + x) * (1 / n) rounds as TA-Lib 0.8 does, to the last bit: StochRSI divides differences of these
/// numbers, and another rounding would be another indicator in a market that rests.
#[derive(Clone, Serialize, Deserialize)]
pub struct Moves {
    n: u32,
    /// Changes seen, up to `n`.
    seen: u32,
    /// n - 1 and 1 / n.
    rest: f64,
    share: f64,
    /// `NaN` before the first bar.
    before: f64,
    /// Sums while `seen < n`, means afterwards.
    gain: f64,
    loss: f64,
}

impl Moves {
    pub fn new(n: u32) -> Self {
        let (rest, share) = (f64::from(n) - 1.0, 1.0 / f64::from(n));
        Self { n, seen: 0, rest, share, before: f64::NAN, gain: 0.0, loss: 0.0 }
    }
    /// Mean gain and mean loss, both not negative; `NaN` until the `n`-th change.
    #[inline]
    pub fn push(&mut self, close: f64) -> (f64, f64) {
        let change = close - self.before;
        self.before = close;
        if self.seen < self.n {
            return self.seed(change);
        }
        // `max` and not an `if`: a market's next direction is what a branch predictor knows least.
        self.gain = (self.gain * self.rest + change.max(0.0)) * self.share;
        self.loss = (self.loss * self.rest + (-change).max(0.0)) * self.share;
        (self.gain, self.loss)
    }

    // Inlined, or the state would have to live in memory instead of registers for every later bar.
    #[inline(always)]
    fn seed(&mut self, change: f64) -> (f64, f64) {
        if !change.is_nan() {
            self.seen += 1;
            (self.gain, self.loss) = (self.gain + change.max(0.0), self.loss + (-change).max(0.0));
        }
        if self.seen < self.n {
            return (f64::NAN, f64::NAN);
        }
        let n = f64::from(self.n);
        (self.gain, self.loss) = (self.gain / n, self.loss / n);
        (self.gain, self.loss)
    }
    /// 100 * gain / (gain + loss); 0 where the close does not move.
    #[inline]
    pub fn push_rsi(&mut self, close: f64) -> f64 {
        let (gain, loss) = self.push(close);
        let both = gain + loss;
        if both < STILL { 0.0 } else { 100.0 * (gain / both) }
    }
    /// 100 * (gain - loss) / (gain + loss); 0 where the close does not move.
    #[inline]
    pub fn push_cmo(&mut self, close: f64) -> f64 {
        let (gain, loss) = self.push(close);
        let both = gain + loss;
        if both < STILL { 0.0 } else { 100.0 * ((gain - loss) / both) }
    }
}

/// 0..100; first at bar n + 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct Rsi(Moves);

impl Rsi {
    pub fn new(n: u32) -> Self {
        Self(Moves::new(n))
    }
}
impl Kernel<1> for Rsi {
    #[inline]
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        [self.0.push_rsi(bar.close)]
    }
}
