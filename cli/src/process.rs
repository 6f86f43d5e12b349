//! One process that `tapeline up` started: its log file with a bound, its restarts with a bound, its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A log file is started anew behind this size; one old file is kept.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How long a process may take to end by itself before it is killed.
const END_WAIT_MAX: Duration = Duration::from_secs(15);

/// What to start, again and again the same.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Added to our own environment; secrets travel here and nowhere else.
    pub env: Vec<(String, String)>,
}

/// A started process. Dropping it does not end it: call [`Running::end`].
pub struct Running {
    pub plan: Plan,
    child: Child,
    pid: u32,
    logs: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts in a process group of its own, so that a Ctrl-C in the terminal reaches only us and we end the
    /// others in order.
    pub fn start(plan: &Plan, log_dir: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(&plan.program)
            .args(&plan.args)
            .envs(plan.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} ({})", plan.name, plan.program.display()))?;
        let pid = child.id().context("process ended at once")?;
        let path = log_dir.join(format!("{}.log", plan.name));
        let mut logs = Vec::new();
        if let Some(out) = child.stdout.take() {
            logs.push(tokio::spawn(copy_lines(out, path.clone())));
        }
        if let Some(err) = child.stderr.take() {
            logs.push(tokio::spawn(copy_lines(err, path)));
        }
        Ok(Self { plan: plan.clone(), child, pid, logs })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Cancel safe: waiting again after a drop finds the same end.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// SIGTERM, a bounded wait, SIGKILL; returns when the process is gone.
    pub async fn end(mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            // ESRCH: it ended between the two calls; the wait below sees it.
            let _ = kill(Pid::from_raw(self.pid as i32), Signal::SIGTERM);
            if tokio::time::timeout(END_WAIT_MAX, self.child.wait()).await.is_err() {
                self.child.kill().await.with_context(|| format!("kill {}", self.plan.name))?;
            }
        }
        for log in self.logs {
            // The writer ends with its pipe; a grandchild that keeps the pipe open must not keep us.
            let _ = tokio::time::timeout(Duration::from_secs(1), log).await;
        }
        Ok(())
    }
}

/// Appends lines to a file that never grows beyond its bound.
async fn copy_lines(from: impl AsyncRead + Unpin, path: PathBuf) {
    let mut lines = BufReader::new(from).split(b'\n');
    let mut file = None;
    let mut size = 0u64;
    // An unreadable pipe or a full disk must not stop the pipeline: the log is a convenience, streams are the truth.
    while let Ok(Some(mut line)) = lines.next_segment().await {
        if file.is_none() || size > LOG_BYTES_MAX {
            if size > LOG_BYTES_MAX {
                let _ = tokio::fs::rename(&path, path.with_extension("log.1")).await;
            }
            file = tokio::fs::OpenOptions::new().create(true).append(true).open(&path).await.ok();
            size = match &file {
                Some(f) => f.metadata().await.map(|m| m.len()).unwrap_or(0),
                None => 0,
            };
        }
        line.push(b'\n');
        if let Some(f) = &mut file {
            let _ = f.write_all(&line).await;
            let _ = f.flush().await;
        }
        size += line.len() as u64;
    }
}

/// Whether a process with this pid exists.
pub fn alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid as i32), None).is_ok()
}
