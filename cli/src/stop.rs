//! `tapeline stop`: asks the supervising `tapeline up` to end and waits until it is gone.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run_file::RunFile;
use crate::{process, target};

/// `tapeline stop`
#[derive(clap::Args)]
#[command(after_help = "Only the pipeline's own processes end. To stop trading and keep watching: tapeline desk halt")]
pub struct Args {
    /// How long to wait until everything has ended, in seconds
    #[arg(long, default_value_t = 60)]
    wait_s: u64,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let folder = target::folder(data)?;
    let run = RunFile::required(&folder)?;
    kill(Pid::from_raw(run.pid as i32), Signal::SIGTERM).with_context(|| format!("signal process {}", run.pid))?;
    let until = Instant::now() + Duration::from_secs(args.wait_s);
    while process::alive(run.pid) {
        if Instant::now() > until {
            bail!(
                "process {} still runs after {} s (its logs: {})",
                run.pid,
                args.wait_s,
                folder.join("logs").display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if json {
        println!("{}", serde_json::json!({"stopped": run.pid}));
    } else {
        println!("stopped");
    }
    Ok(())
}
