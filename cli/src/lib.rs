//! The parts of `tapeline`, a module a command; `main.rs` is the table of contents.

pub mod exit;

pub mod feed_cmd;
pub mod grow;
pub mod init;
pub mod nats_server;
pub mod plan;
pub mod process;
pub mod run_file;
pub mod stop;
pub mod target;
pub mod up;

pub mod config_cmd;
pub mod decode;
pub mod desk_cmd;
pub mod export;
pub mod import;
pub mod records;
pub mod status;
pub mod tap;
pub mod task_cmd;

pub mod backtest_cmd;
pub mod batch;
pub mod stream_tape;

pub mod cores;
pub mod range;
pub mod audit;
pub mod replay;
pub mod why;
pub mod parity;
pub mod doctor;
pub mod gaps;
pub mod top;
pub mod sweep_cmd;
pub mod venue_cmd;
