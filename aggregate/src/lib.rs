//! Ticks to candles of many timeframes and their indicators: a pure fold over raw facts, and the same kernels over
//! polars frames.
//!
//! Modules in reading order: what may be configured, the core that hears and says facts, then its nouns.

pub mod config;
pub mod core;
pub mod candle;
pub mod batch;
pub mod indicator;
#[cfg(feature = "frames")]
pub mod frames;

#[cfg(feature = "stage")]
pub mod run;
