//! One binary for all cross-stage tests: linking is what costs. A module an area.

mod audit;
mod backtest;
mod browser;
mod bus;
mod chaos;
mod deploy;
mod edges;
mod executor;
mod export;
mod fold;
mod gaps;
mod gateway;
mod goldens;
mod halt;
mod ingest;
mod lease;
mod ledger;
mod live;
mod matrix;
mod metrics;
mod operator;
mod pipeline;
mod report;
mod rights;
mod strategy;
mod trace;
