//! One binary for all cross-stage tests: linking is what costs. A module an area.

mod audit;
mod browser;
mod bus;
mod chaos;
mod deploy;
mod edges;
mod executor;
mod gateway;
mod goldens;
mod ingest;
mod ledger;
mod matrix;
mod operator;
mod pipeline;
mod rights;
mod strategy;
