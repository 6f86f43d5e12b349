//! Relative strength index.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::{Block, Column, STEP_BARS};
use super::{Kernel, Ohlcv, one_by_one};

/// Below this sum of mean gain and mean loss the close does not move.
const STILL: f64 = 1e-14;

/// Wilder's means of gains and losses over `n` changes; the part that RSI, StochRSI and CMO share.
///
/// (mean * (n - 1) + x) * (1 / n) rounds as TA-Lib 0.8 does, to the last bit: StochRSI divides differences of these
/// numbers, and another rounding would be another indicator in a market that rests.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "Saved", from = "Saved")]
#[repr(C)]
pub struct Moves {
    // The order is for the processor: no number that each bar changes has a constant beside it. A read of a constant
    // may take its neighbour along, and if that was written a moment ago the read waits longer than all of the
    // arithmetic here takes.
    /// Sums while `seen < n`, means afterwards.
    gain: f64,
    loss: f64,
    n: u32,
    /// n - 1 and 1 / n.
    rest: f64,
    share: f64,
    /// Changes seen, up to `n`.
    seen: u32,
    /// `NaN` before the first bar.
    before: f64,
}

/// Its fields as checkpoints have them: one after another in this order.
#[derive(Serialize, Deserialize)]
struct Saved(u32, u32, f64, f64, f64, f64, f64);

impl From<Moves> for Saved {
    fn from(m: Moves) -> Self {
        Self(m.n, m.seen, m.rest, m.share, m.before, m.gain, m.loss)
    }
}
impl From<Saved> for Moves {
    fn from(Saved(n, seen, rest, share, before, gain, loss): Saved) -> Self {
        Self { gain, loss, rest, share, n, seen, before }
    }
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
        self.step(change.max(0.0), (-change).max(0.0))
    }

    #[inline]
    fn step(&mut self, up: f64, down: f64) -> (f64, f64) {
        self.gain = (self.gain * self.rest + up) * self.share;
        self.loss = (self.loss * self.rest + down) * self.share;
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
        rsi(gain, loss)
    }
    /// 100 * (gain - loss) / (gain + loss); 0 where the close does not move.
    #[inline]
    pub fn push_cmo(&mut self, close: f64) -> f64 {
        let (gain, loss) = self.push(close);
        let both = gain + loss;
        if both < STILL { 0.0 } else { 100.0 * ((gain - loss) / both) }
    }
}

#[inline]
fn rsi(gain: f64, loss: f64) -> f64 {
    let both = gain + loss;
    if both < STILL { 0.0 } else { 100.0 * (gain / both) }
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
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; 1]) {
        let moves = &mut self.0;
        let (Some(last), true) = (rows.clone().last(), moves.seen >= moves.n && rows.len() == STEP_BARS) else {
            return one_by_one(self, bars, rows, out);
        };
        // What does not wait for the bar before goes through all bars at once.
        let close = &bars.close[rows.clone()];
        let mut changes = [close[0] - moves.before; STEP_BARS];
        for i in 1..STEP_BARS {
            changes[i] = close[i] - close[i - 1];
        }
        moves.before = bars.close[last];
        let means = changes.map(|change| (change.max(0.0), (-change).max(0.0))).map(|(up, down)| moves.step(up, down));
        for (out, (gain, loss)) in out[0][rows].iter_mut().zip(means) {
            *out = rsi(gain, loss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_the_numbers_in_the_order_that_they_always_had() {
        let mut moves = Moves::new(2);
        for close in [5.0, 7.0, 6.0, 6.5] {
            moves.push(close);
        }
        let bytes = rmp_serde::to_vec(&moves).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec(&(2u32, 2u32, 1.0, 0.5, 6.5, 0.75, 0.25)).unwrap());
        let back: Moves = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(rmp_serde::to_vec(&back).unwrap(), bytes);
    }
}
