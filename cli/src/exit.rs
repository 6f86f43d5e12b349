//! Exit codes, stable for scripts: 0 ok, 1 failed, 2 usage, 64 bad configuration; the stages' own (`nats::exit`).

use std::io::{Error, ErrorKind};
use std::process::ExitCode;

/// As a stage's, but a reader that went away (`tapeline tap | head`) is not a failure.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let reader_left = |error: &anyhow::Error| {
        error.chain().filter_map(|e| e.downcast_ref::<Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    match result {
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        result => nats::exit::code(result),
    }
}
