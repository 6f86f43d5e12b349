//! The `main` of every stage: one runtime, one line for an error, stable exit codes.

use std::process::ExitCode;

use schemas::config::ConfigError;

/// Something worked on and failed.
pub const FAILED: u8 = 1;
/// The configuration cannot be used; starting again changes nothing.
pub const CONFIG: u8 = 64;

/// Runs a stage to its end: 0 ok, 1 failed, 64 bad configuration (2, usage, is clap's).
pub fn main(stage: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(stage),
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    code(ended)
}

/// Prints the error once, with its chain, and gives its exit code.
pub fn code(ended: anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    let bad_config = error.chain().any(|e| e.downcast_ref::<ConfigError>().is_some());
    ExitCode::from(if bad_config { CONFIG } else { FAILED })
}
