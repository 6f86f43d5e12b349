//! Indicators: one file and one registry line each, one kernel for the live stream and for whole columns.
//!
//! A kernel hears closed bars in order and answers its outputs of this bar; `NaN` means "not yet", or that the
//! value does not exist (a volume-weighted price without volume). Kernels are pure: the same bars give the same
//! bits, also after a save and a restore in the middle. Conventions are those of `indicators.md`.
//!
//! Modules in reading order: the contract, the list, what a user holds, the parts that kernels are made of, the
//! kernels.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod block;
pub mod log;
pub mod memory;
pub mod moments;
pub mod registry;
pub mod set;
pub mod smooth;
pub mod window;

pub mod ad;
pub mod adosc;
pub mod adx;
pub mod aroon;
pub mod atr;
pub mod bbands;
pub mod bop;
pub mod cci;
pub mod cmf;
pub mod cmo;
pub mod correl;
pub mod dema;
pub mod donchian;
pub mod ema;
pub mod hma;
pub mod ichimoku;
pub mod kama;
pub mod keltner;
pub mod linreg;
pub mod macd;
pub mod mfi;
pub mod midpoint;
pub mod obv;
pub mod ppo;
pub mod psar;
pub mod realised_vol;
pub mod roc;
pub mod rsi;
pub mod sma;
pub mod stoch;
pub mod stochrsi;
pub mod supertrend;
pub mod t3;
pub mod tema;
pub mod trima;
pub mod trix;
pub mod ultosc;
pub mod var;
pub mod vwap;
pub mod vwma;
pub mod willr;
pub mod wma;

#[cfg(test)]
mod goldens;

pub use block::{BLOCK_BARS, Block};
pub use registry::{Entry, REGISTRY, Setting};
pub use set::{Columns, Set, SetState};

use block::{Column, Step};
use schemas::WireError;

/// One closed bar as indicators see it. Statistics, not money: floats. Every number is finite.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ohlcv {
    /// Start of the bar, event time, nanoseconds since 1970 UTC.
    pub open_ns: i64,
    pub open: f64,
    pub high: f64,
    pub low: f64,
    pub close: f64,
    /// In the instrument's size unit, not negative.
    pub volume: f64,
}

impl Ohlcv {
    /// (high + low + close) / 3.
    #[inline]
    pub fn typical(&self) -> f64 {
        (self.high + self.low + self.close) / 3.0
    }
}

impl From<&schemas::market::Candle> for Ohlcv {
    fn from(c: &schemas::market::Candle) -> Self {
        Self {
            open_ns: c.open_ns,
            open: c.open.to_f64(),
            high: c.high.to_f64(),
            low: c.low.to_f64(),
            close: c.close.to_f64(),
            volume: c.volume.to_f64(),
        }
    }
}

/// The arithmetic of one indicator with `N` outputs. Its serialised form is its whole state.
pub trait Kernel<const N: usize>: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The outputs of this bar; `NaN` where there is none.
    fn update(&mut self, bar: &Ohlcv) -> [f64; N];
    /// The same for bars of a block, each row in its place. A kernel with a faster way through many bars says the same
    /// bits in it.
    fn run(&mut self, bars: &Block, rows: Range<usize>, out: &mut [Column; N]) {
        one_by_one(self, bars, rows, out);
    }
}

/// Bar after bar, as [`Kernel::update`] says them.
#[inline]
pub fn one_by_one<K: Kernel<N>, const N: usize>(
    kernel: &mut K,
    bars: &Block,
    rows: Range<usize>,
    out: &mut [Column; N],
) {
    for i in rows {
        for (column, value) in out.iter_mut().zip(kernel.update(&bars.bar(i))) {
            column[i] = value;
        }
    }
}

/// A running indicator behind its names; what [`Set`] holds. Kernels get it through [`streamed`].
pub trait Indicator: Send + Sync {
    /// The family, which is also the stem of its golden file: what stands before the dot of its outputs.
    fn id(&self) -> &'static str {
        family(self.outputs()[0])
    }
    /// Full names such as `bbands.upper`, in the order of `update`'s `out`.
    fn outputs(&self) -> &'static [&'static str];
    /// Folds the next closed bar.
    fn update(&mut self, bar: &Ohlcv);
    /// Outputs of the newest bar, in the order of `outputs`; `NaN` = no value.
    fn row(&self) -> &[f64];
    fn row_mut(&mut self) -> &mut [f64];
    /// The same for a step of a block, each output into the next column of `out`; gives the columns behind them.
    fn run<'a>(&mut self, bars: &Block, step: Step, out: &'a mut [Column]) -> &'a mut [Column];
    /// The whole state, bit for bit.
    fn save(&self) -> Vec<u8>;
    /// Puts back what [`Indicator::save`] of the same indicator gave.
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError>;
    fn boxed_clone(&self) -> Box<dyn Indicator>;
}

/// What stands before the dot of an output's name.
pub fn family(output: &str) -> &str {
    output.split_once('.').map_or(output, |(family, _)| family)
}

/// Puts a kernel behind its output names.
pub fn streamed<K: Kernel<N>, const N: usize>(outputs: &'static [&'static str], kernel: K) -> Box<dyn Indicator> {
    assert_eq!(outputs.len(), N, "Invariant: {outputs:?} names every output of its kernel");
    Box::new(Streamed { outputs, kernel, row: [f64::NAN; N] })
}

#[derive(Clone)]
struct Streamed<K, const N: usize> {
    outputs: &'static [&'static str],
    kernel: K,
    row: [f64; N],
}

impl<K: Kernel<N>, const N: usize> Indicator for Streamed<K, N> {
    fn outputs(&self) -> &'static [&'static str] {
        self.outputs
    }
    fn update(&mut self, bar: &Ohlcv) {
        self.row = self.kernel.update(bar);
    }
    fn row(&self) -> &[f64] {
        &self.row
    }
    fn row_mut(&mut self) -> &mut [f64] {
        &mut self.row
    }
    fn run<'a>(&mut self, bars: &Block, step: Step, out: &'a mut [Column]) -> &'a mut [Column] {
        let (mine, rest) = out.split_first_chunk_mut::<N>().expect("Invariant: room for every output");
        let rows = step.rows();
        self.kernel.run(bars, rows.clone(), mine);
        for (value, column) in self.row.iter_mut().zip(mine) {
            *value = column[rows.end - 1];
        }
        rest
    }
    fn save(&self) -> Vec<u8> {
        rmp_serde::to_vec(&self.kernel).expect("Invariant: a kernel's state serialises")
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.kernel = rmp_serde::from_slice(state)
            .map_err(|e| WireError::invalid(format_args!("state of indicator {}: {e}", self.outputs[0])))?;
        Ok(())
    }
    fn boxed_clone(&self) -> Box<dyn Indicator> {
        Box::new(self.clone())
    }
}
