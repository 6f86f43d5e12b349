//! One binary for all cross-stage tests: linking is what costs. A module an area.

mod bus;
mod browser;
mod edges;
mod executor;
mod export;
mod gateway;
mod goldens;
mod ingest;
mod ledger;
mod pipeline;
mod report;
mod rights;
mod strategy;
