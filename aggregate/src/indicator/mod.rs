//! Indicators: one file and one registry line each, one kernel for the live stream and for whole columns.
//!
//! A kernel hears closed bars in order and answers its outputs of this bar; `NaN` means "not yet", or that the
//! value does not exist (a volume-weighted price without volume). Kernels are pure: the same bars give the same
//! bits, also after a save and a restore in the middle. Conventions are those of `indicators.md`.
//!
//! Modules in reading order: the contract, the list, what a user holds, the parts that kernels are made of, the
//! kernels.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod log;
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

pub use registry::{Entry, REGISTRY, Setting};
pub use set::{Columns, Set, SetState};

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
}

/// A running indicator behind its names; what [`Set`] holds. Kernels get it through [`streamed`].
pub trait Indicator: Send + Sync {
    /// The family, which is also the stem of its golden file: what stands before the dot of its outputs.
    fn id(&self) -> &'static str {
        family(self.outputs()[0])
    }
    /// Full names such as `bbands.upper`, in the order of `update`'s `out`.
    fn outputs(&self) -> &'static [&'static str];
    /// Folds the next closed bar; `out` is as long as `outputs`, `NaN` = no value.
    fn update(&mut self, bar: &Ohlcv, out: &mut [f64]);
    /// The same for many bars: row `from + i` of every column gets the outputs of `bars[i]`.
    fn run(&mut self, bars: &[Ohlcv], columns: &mut [Vec<f64>], from: usize);
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
    Box::new(Streamed { outputs, kernel })
}

#[derive(Clone)]
struct Streamed<K, const N: usize> {
    outputs: &'static [&'static str],
    kernel: K,
}

impl<K: Kernel<N>, const N: usize> Indicator for Streamed<K, N> {
    fn outputs(&self) -> &'static [&'static str] {
        self.outputs
    }
    fn update(&mut self, bar: &Ohlcv, out: &mut [f64]) {
        out.copy_from_slice(&self.kernel.update(bar));
    }
    fn run(&mut self, bars: &[Ohlcv], columns: &mut [Vec<f64>], from: usize) {
        assert_eq!(columns.len(), N, "Invariant: one column per output");
        let mut columns = columns.iter_mut();
        let mut columns: [&mut [f64]; N] = std::array::from_fn(|_| {
            let column = columns.next().expect("Invariant: counted above");
            &mut column[from..from + bars.len()]
        });
        // A copy on the stack lets the compiler keep the state in registers for the length of the block.
        let mut kernel = self.kernel.clone();
        for (i, bar) in bars.iter().enumerate() {
            let row = kernel.update(bar);
            for (column, value) in columns.iter_mut().zip(row) {
                column[i] = value;
            }
        }
        self.kernel = kernel;
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
