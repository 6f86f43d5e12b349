//! Strategies: candles and indicators in, opinions (`Signal`) out. Nothing here knows an account, a position or
//! another strategy, and nothing here can order anything: [`core::Out`] has one variant.
//!
//! Modules in reading order: what can be configured, what a rule strategy is, the core that runs them over facts,
//! then the LLM traders.

pub mod config;
pub mod kernel;
pub mod text;
pub mod voter;

pub mod core;
pub mod llm;

#[cfg(feature = "stage")]
pub mod run;

pub use config::{Config, Rule, Trader};
pub use core::{In, Out, StrategyCore};
pub use voter::{STRATEGIES, StrategyKind};
