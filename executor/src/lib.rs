//! Order life cycle and the venues that fill.
//!
//! The core hears the desk (orders, cancels, trading state, market data) and says what became of every order:
//! `Sending`, `Ack`, `Fill`, `Reject`, `Done`, `Funding`. It decides nothing about positions; it only refuses what
//! the trading state forbids and keeps the protective orders that an entry asked for. `sim` and `paper` are one
//! fill engine: only the source of the facts differs, and facts are the only clock.
//!
//! Absent in the core on purpose: sockets, keys and retries. A live venue is another [`venue::ExecVenue`], which hears
//! what the caller in [`live`] has stored.

pub mod config;
pub mod core;

pub mod bracket;
pub mod engine;
pub mod fill;
pub mod liquidation;
pub mod market;
pub mod order;
pub mod position;
pub mod venue;
pub mod live;

#[cfg(feature = "stage")]
pub mod run;

pub use crate::config::Config;
pub use crate::core::{ExecutorCore, In, Out};

#[cfg(test)]
mod tape;
