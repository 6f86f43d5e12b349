//! One binary for all cross-stage tests: linking is what costs. A module an area.

mod bus;
mod browser;
mod edges;
mod executor;
mod gateway;
mod goldens;
mod halt;
mod ingest;
mod lease;
mod ledger;
mod metrics;
mod pipeline;
mod rights;
mod strategy;
