//! Signals become orders or refusals; fills alone become positions.
//!
//! Modules in reading order: what is heard, what is kept of one instrument, how opinions become a size, what limits
//! allow, and the core that ties them together.

pub mod config;
pub mod core;
pub mod hear;

pub mod account;
pub mod book;
pub mod gap;
pub mod mark;
pub mod position;
pub mod working;

pub mod limit;
pub mod policy;
pub mod record;
pub mod sizing;
pub mod vote;

#[cfg(feature = "stage")]
pub mod run;

#[cfg(test)]
mod tape;

pub use config::Config;
pub use core::{In, Out, RiskCore};
