//! Venues on loopback that speak the real WebSocket and REST protocols of seven venues, fed by a seeded market or by a
//! recording, with faults on command. Orders are taken at Binance and Deribit; the others are market data.
//!
//! Chance lives in one generator ([`rng`]), money in whole ticks and lots ([`instrument`]); floats only steer the fair
//! value ([`reference`]).

pub mod binance;
pub mod book;
pub mod coinbase;
pub mod config;
pub mod deribit;
pub mod faults;
pub mod floor;
pub mod history;
pub mod htx;
pub mod hub;
pub mod hyperliquid;
pub mod instrument;
pub mod market;
pub mod mexc;
pub mod okx;
pub mod orders;
pub mod recording;
pub mod reference;
pub mod rng;
pub mod run;
pub mod server;
pub mod sign;

pub use faults::Command;
pub use instrument::VenueId;
pub use run::{Handle, Options, Simulator, Speed};

#[cfg(test)]
mod tests;
