//! The positioned log over NATS JetStream, and the loop that runs every pure core on it.
//!
//! A task reads one stream with one filter and writes one stream that only it writes. Its k-th output is
//! published with `Nats-Expected-Last-Sequence: k-1`: it lands at sequence k or nowhere. Its state goes to the
//! KV bucket `ckpt` behind the acknowledged outputs. There are no input acknowledgements, no message ids and no
//! transactions; whatever is repeated after a crash regenerates the same bytes at the same positions.
//!
//! Modules in reading order: bounds and errors, the connection, then what the loop is made of, then the loop.

pub mod config;
pub mod crypto;
pub mod error;
pub mod exit;

pub mod bus;
pub mod checkpoint;
pub mod grant;
pub mod kv;
pub mod leader;
pub mod reader;
pub mod writer;

pub mod layout;
pub mod lease;
pub mod rules;
pub mod inspect;
pub mod tasklist;

pub mod log;
pub mod service;
pub mod stage;
pub mod stats;
pub mod task;
pub mod telemetry;
pub mod trace;

pub use bus::{Bus, Login};
pub use config::Config;
pub use error::BusError;
pub use layout::Layout;
pub use log::LogFormat;
pub use reader::{Message, Reader};
pub use stage::{Stage, StageArgs};
pub use task::{Accept, TaskSpec};
pub use tasklist::TaskList;
pub use writer::{Mode, Writer};

/// Names, passwords and rights of every stage, for nats-server's `-c`; see `conf/server.conf` for the variables.
pub const SERVER_CONF: &str = include_str!("../conf/server.conf");
