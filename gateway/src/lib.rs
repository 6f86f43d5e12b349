//! The gateway: REST, WebSocket fan-out and the dashboard. It says nothing on the bus; it only shows.
//!
//! Pure: `channel` (what may be asked for), `protocol` (the words), `outbox` (what waits for a slow client),
//! `view` (the fold that REST answers from). Shell, behind the feature `stage`: `feed` (facts in), `hub` (clients),
//! `ws`, `rest`, `server`.

pub mod channel;
pub mod config;
pub mod outbox;
pub mod protocol;
pub mod view;

#[cfg(feature = "stage")]
pub mod candles;
#[cfg(feature = "stage")]
pub mod feed;
#[cfg(feature = "stage")]
pub mod hub;
#[cfg(feature = "stage")]
pub mod rest;
#[cfg(feature = "stage")]
pub mod run;
#[cfg(feature = "stage")]
pub mod server;
#[cfg(feature = "stage")]
pub mod store;
#[cfg(feature = "stage")]
pub mod ui;
#[cfg(feature = "stage")]
pub mod ws;
