//! Backtests: the same cores as live, on one queue in one process, over a recorded tape.
//!
//! A candle backtest plays each candle as its open and its close; a trades backtest plays trades through aggregate,
//! strategy, risk and executor. Whatever a report says was said by a core: the accounts here only add up fills.
//!
//! Modules in reading order: what may be asked for, what is played, the queue, who decides sizes, what came of it; then
//! many of them: sweeps, what luck makes of the best, walk-forward.

pub mod account;
pub mod doubles;
pub mod metrics;
pub mod options;
pub mod overfit;
pub mod queue;
pub mod report;
pub mod run;
pub mod sizing;
pub mod sweep;
pub mod tape;
pub mod walk;

pub use options::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
pub use report::Report;
pub use run::{Progress, run_candles, run_trades};
