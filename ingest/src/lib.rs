//! Ingest: what venues send becomes raw facts.
//!
//! The library is the protocol without I/O: decoders, sessions, books, packs. It has no clock and no socket; the
//! shell (feature `stage`) brings both.

pub mod book;
pub mod connection;
pub mod custom;
pub mod event;
pub mod feed;
pub mod polls;
pub mod session;
pub mod status;
pub mod text;
pub mod venue;

pub mod pack;
pub mod rate;
pub mod recording;
pub mod watermark;

pub mod config;
pub mod normalize;

#[cfg(feature = "stage")]
pub mod ctl;
#[cfg(feature = "stage")]
pub mod http;
#[cfg(feature = "stage")]
pub mod instruments;
#[cfg(feature = "stage")]
pub mod link;
#[cfg(feature = "stage")]
pub mod live;
#[cfg(feature = "stage")]
pub mod metrics;
#[cfg(feature = "stage")]
pub mod poll;
#[cfg(feature = "stage")]
pub mod proxy;
#[cfg(feature = "stage")]
pub mod quota;
#[cfg(feature = "stage")]
pub mod run;
#[cfg(feature = "stage")]
pub mod source;
#[cfg(feature = "stage")]
pub mod wall;
#[cfg(feature = "stage")]
pub mod warmup;
