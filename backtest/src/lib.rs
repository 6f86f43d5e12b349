//! Backtests: the same cores as live, on one queue in one process, over a recorded tape.
//!
//! A candle backtest plays each candle as its open and its close, on the [`queue`]. Everything else plays raw facts of
//! a tape through aggregate, strategy, risk and executor, on the [`engine`]. Whatever a report says was said by a
//! core: the accounts here only add up fills.
//!
//! Modules in reading order: what may be asked for, what is played, on what, who decides sizes, what came of it; then
//! many of them: sweeps, what luck makes of the best, walk-forward.

pub mod options;
pub mod setup;

pub mod fact;
pub mod tape;
pub mod pack;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod source;

pub mod engine;
pub mod queue;
pub mod run;
pub mod lookahead;

pub mod sizing;
pub mod account;
pub mod portfolio;
pub mod doubles;
pub mod metrics;
pub mod report;

pub mod overfit;
pub mod sweep;
pub mod walk;

pub use engine::{Engine, Wire};
pub use options::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
pub use report::Report;
pub use run::{Progress, play, play_before, run_candles, run_trades};
pub use setup::Setup;
pub use source::Tape;
