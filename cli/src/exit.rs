//! Exit codes, stable for scripts: 0 ok, 1 failed, 2 usage, 64 bad configuration.

use std::process::ExitCode;

use schemas::config::ConfigError;

/// Something worked on and failed.
pub const FAILED: u8 = 1;
/// The configuration cannot be used.
pub const CONFIG: u8 = 64;

/// Prints the error once, with its chain, and gives its exit code.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that went away (`tapeline tap | head`) is not a failure.
            if error
                .chain()
                .filter_map(|e| e.downcast_ref::<std::io::Error>())
                .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("tapeline: {error:#}");
            let is_config = error.chain().any(|e| e.downcast_ref::<ConfigError>().is_some());
            ExitCode::from(if is_config { CONFIG } else { FAILED })
        }
    }
}
