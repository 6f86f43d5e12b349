//! What every stage of Tapeline says and hears: facts, exact numbers with units, subjects, instruments and the
//! `Core` trait. Pure: no clock, no I/O, no randomness.
//!
//! Modules in reading order: numbers first, then where facts live, then the facts from tick to fill.

pub mod num;
pub mod fixed;
pub mod subject;
pub mod timeframe;
pub mod instrument;
pub mod wire;
mod columns;
pub mod core;
pub mod config;
pub mod fixtures;

pub mod raw;
pub mod holes;
pub mod market;
pub mod signal;
pub mod llm;
pub mod desk;
pub mod exec;

pub use crate::core::{Cause, Core, Fault, Listen, Place, Speak};
pub use crate::fixed::{NotionalM, PriceM, QtyM, Scale};
pub use crate::instrument::{Instrument, InstrumentKind};
pub use crate::num::{Fraction, Nanos, Notional, Price, Qty, Side};
pub use crate::timeframe::Timeframe;
pub use crate::wire::{Fact, Version, WireError};
/// The decimal of the edges (configuration, orders, ledger, JSON); re-exported so that one version is used.
pub use rust_decimal::Decimal;
