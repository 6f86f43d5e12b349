//! Bars by column, a block at a time: what kernels run over when many bars are there at once.
//!
//! A block is small enough that its bars and everything that kernels say of them stay in the first cache. Kernels take
//! turns after a [`Step`] of it: most of them are chains in which each bar waits for the one before, and a processor
//! looks far enough ahead to work on several chains at once when their turns are short.

use super::Ohlcv;

/// Bars of a block.
pub const BLOCK_BARS: usize = 256;
/// Bars of a step; a block holds a whole number of steps.
pub const STEP_BARS: usize = 8;

/// One number of each bar of a block.
pub type Column<T = f64> = [T; BLOCK_BARS];

/// Bars by column.
#[derive(Clone, Debug)]
pub struct Block {
    pub open_ns: Column<i64>,
    pub open: Column,
    pub high: Column,
    pub low: Column,
    pub close: Column,
    pub volume: Column,
}

/// Some bars of a block, next to each other: always as many, so that the loop over them is known to the compiler.
#[derive(Clone, Copy, Debug)]
pub struct Step(usize);

impl Block {
    #[inline(always)]
    pub fn bar(&self, i: usize) -> Ohlcv {
        Ohlcv {
            open_ns: self.open_ns[i],
            open: self.open[i],
            high: self.high[i],
            low: self.low[i],
            close: self.close[i],
            volume: self.volume[i],
        }
    }
    /// Puts at most [`BLOCK_BARS`] bars where the block begins.
    pub fn fill(&mut self, bars: &[Ohlcv]) {
        for (i, bar) in bars.iter().enumerate().take(BLOCK_BARS) {
            self.open_ns[i] = bar.open_ns;
            self.open[i] = bar.open;
            self.high[i] = bar.high;
            self.low[i] = bar.low;
            self.close[i] = bar.close;
            self.volume[i] = bar.volume;
        }
    }
}

impl Default for Block {
    fn default() -> Self {
        let zero = [0.0; BLOCK_BARS];
        Self { open_ns: [0; BLOCK_BARS], open: zero, high: zero, low: zero, close: zero, volume: zero }
    }
}

impl Step {
    /// The whole steps of the first `len` bars of a block; the bars behind them are too few for one.
    pub fn whole(len: usize) -> impl Iterator<Item = Step> {
        (0..len.min(BLOCK_BARS) / STEP_BARS).map(Step)
    }
    /// The places of its bars.
    #[inline(always)]
    pub fn rows(self) -> std::ops::Range<usize> {
        assert!(self.0 < BLOCK_BARS / STEP_BARS, "Invariant: a step is inside its block");
        self.0 * STEP_BARS..(self.0 + 1) * STEP_BARS
    }
}

const _: () = assert!(BLOCK_BARS.is_multiple_of(STEP_BARS));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_what_is_behind_them_are_the_bars_of_the_block() {
        for len in 0..=BLOCK_BARS {
            let rows: Vec<usize> = Step::whole(len).flat_map(Step::rows).collect();
            assert_eq!(rows, (0..len / STEP_BARS * STEP_BARS).collect::<Vec<_>>());
        }
    }
}
