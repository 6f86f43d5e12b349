//! Venues on loopback that speak Binance's and Deribit's real WebSocket and REST protocols, fed by a seeded market or
//! by a recording, with faults on command.
//!
//! Chance lives in one generator ([`rng`]), money in whole ticks and lots ([`instrument`]); floats only steer the fair
//! value ([`reference`]).

pub mod book;
pub mod history;
pub mod instrument;
pub mod market;
pub mod reference;
pub mod rng;
