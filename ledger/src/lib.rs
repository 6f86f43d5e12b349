//! Facts to SQL rows, for history and audit. Only the streams are the truth: the tables can be rebuilt from them.
//!
//! Modules in reading order: what may be configured, the tables, rows and their merge rules, the fold of a stream
//! into rows, rows as SQL; then the shell.

pub mod config;
pub mod core;
pub mod row;
pub mod schema;
pub mod sql;
pub mod trip;

#[cfg(test)]
mod sample;

#[cfg(feature = "stage")]
pub mod db;
#[cfg(feature = "stage")]
pub mod run;
#[cfg(feature = "stage")]
pub mod writer;
