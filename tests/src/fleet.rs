//! Stage programs as processes: started, killed, paused, doubled, and looked after.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{program, tail, wait_for};

/// All stages in the order of their start: readers first.
pub const STAGES: [&str; 7] = ["ledger", "gateway", "executor", "risk", "strategy", "aggregate", "ingest"];

/// Instances of one stage at a time: itself, and a zombie or a twin.
pub const INSTANCES_MAX: usize = 2;

/// What the losing one of two instances says. Other bytes at a position are not among it: the tasks of a recorded
/// session are deterministic.
const OUSTED: [&str; 3] = ["fenced: checkpoint", "fenced: another ledger moved", "(written by another instance)"];
/// And what it says where two instances never say the same: of a venue's live feed.
const OUSTED_LIVE: &str = "fenced or nondeterministic: RAW_";

/// The processes of a pipeline. Dropping it kills exactly these.
pub struct Fleet {
    dir: PathBuf,
    config: PathBuf,
    args: Vec<String>,
    env: BTreeMap<&'static str, Vec<(String, String)>>,
    live: Vec<Instance>,
    started: u64,
    live_feed: bool,
}

struct Instance {
    stage: &'static str,
    child: Child,
    log: PathBuf,
    paused: bool,
}

/// An instance that ended by itself.
#[derive(Clone, Debug)]
pub struct End {
    pub stage: &'static str,
    /// Another instance owned its task.
    pub ousted: bool,
    /// Its last words.
    pub words: String,
}

impl Fleet {
    /// `args` go to every stage, `env` by stage.
    pub fn new(
        dir: &Path,
        config: &Path,
        args: Vec<String>,
        env: BTreeMap<&'static str, Vec<(String, String)>>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            config: config.to_owned(),
            args,
            env,
            live: Vec::new(),
            started: 0,
            live_feed: false,
        }
    }

    /// Its ingest hears a live venue: other bytes at a position are another instance's.
    pub fn of_a_live_feed(mut self) -> Self {
        self.live_feed = true;
        self
    }

    /// Starts one more instance; gives its process id.
    pub fn spawn(&mut self, stage: &'static str) -> anyhow::Result<u32> {
        self.spawn_with(stage, &[])
    }

    /// Starts one more instance with further arguments.
    pub fn spawn_with(&mut self, stage: &'static str, args: &[&str]) -> anyhow::Result<u32> {
        self.started += 1;
        let log = self.dir.join(format!("{stage}.{}.log", self.started));
        let child = Command::new(program(stage)?)
            .arg("--config")
            .arg(&self.config)
            .args(&self.args)
            .args(args)
            .envs(self.env.get(stage).with_context(|| format!("no environment for {stage}"))?.iter().cloned())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).with_context(|| format!("create {}", log.display()))?)
            .spawn()
            .with_context(|| format!("start {stage}"))?;
        let pid = child.id();
        self.live.push(Instance { stage, child, log, paused: false });
        Ok(pid)
    }

    /// Instances of a stage that were not seen ending, paused ones included.
    pub fn count(&self, stage: &str) -> usize {
        self.live.iter().filter(|i| i.stage == stage).count()
    }
    /// Instances of a stage that run.
    pub fn running(&self, stage: &str) -> usize {
        self.live.iter().filter(|i| i.stage == stage && !i.paused).count()
    }
    /// Process ids of a stage.
    pub fn pids(&self, stage: &str) -> Vec<u32> {
        self.live.iter().filter(|i| i.stage == stage).map(|i| i.child.id()).collect()
    }

    /// SIGKILL for the oldest instance; gives whether there was one.
    pub fn kill9(&mut self, stage: &str) -> anyhow::Result<bool> {
        let Some(oldest) = self.live.iter().find(|i| i.stage == stage) else { return Ok(false) };
        let pid = oldest.child.id();
        self.kill9_one(pid)?;
        Ok(true)
    }

    /// SIGKILL for one instance.
    pub fn kill9_one(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut instance = self.take(pid)?;
        let stage = instance.stage;
        // One that ended by itself a moment ago keeps its log, and is told.
        ensure!(
            instance.child.try_wait()?.is_none() || instance.end(self.live_feed).ousted,
            "{stage} ended by itself:\n{}",
            tail(&instance.log, 12)
        );
        instance.child.kill().with_context(|| format!("kill {stage}"))?;
        instance.child.wait()?;
        let _ = std::fs::remove_file(&instance.log); // only of use when it ended by itself
        Ok(())
    }

    /// SIGTERM for one instance, and its peaceful end within `bound`.
    pub async fn stop(&mut self, pid: u32, bound: Duration) -> anyhow::Result<()> {
        let instance = self.take(pid)?;
        let (stage, log) = (instance.stage, instance.log);
        // In a cell: the wait asks it again and again.
        let child = std::cell::RefCell::new(instance.child);
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM).with_context(|| format!("end {stage}"))?;
        let ended =
            wait_for(&format!("the end of {stage}"), bound, || async { child.borrow_mut().try_wait().ok().flatten() })
                .await;
        let mut child = child.into_inner();
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = ended.with_context(|| tail(&log, 8))?;
        ensure!(status.success(), "{stage} ended with {status}:\n{}", tail(&log, 8));
        Ok(())
    }

    fn take(&mut self, pid: u32) -> anyhow::Result<Instance> {
        let at = self.live.iter().position(|i| i.child.id() == pid).with_context(|| format!("no instance {pid}"))?;
        Ok(self.live.remove(at))
    }

    /// SIGSTOP for the oldest instance that runs; gives its process id.
    pub fn pause(&mut self, stage: &str) -> anyhow::Result<Option<u32>> {
        let Some(instance) = self.live.iter().find(|i| i.stage == stage && !i.paused) else { return Ok(None) };
        let pid = instance.child.id();
        self.pause_one(pid)?;
        Ok(Some(pid))
    }

    /// SIGSTOP for one instance.
    pub fn pause_one(&mut self, pid: u32) -> anyhow::Result<()> {
        let instance =
            self.live.iter_mut().find(|i| i.child.id() == pid).with_context(|| format!("no instance {pid}"))?;
        kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).with_context(|| format!("pause {}", instance.stage))?;
        instance.paused = true;
        Ok(())
    }

    /// SIGCONT for a paused instance; nothing when it was killed meanwhile.
    pub fn resume(&mut self, pid: u32) -> anyhow::Result<()> {
        let Some(instance) = self.live.iter_mut().find(|i| i.child.id() == pid && i.paused) else { return Ok(()) };
        instance.paused = false;
        kill(Pid::from_raw(pid as i32), Signal::SIGCONT).with_context(|| format!("continue {}", instance.stage))
    }

    pub fn resume_all(&mut self) -> anyhow::Result<()> {
        let paused: Vec<u32> = self.live.iter().filter(|i| i.paused).map(|i| i.child.id()).collect();
        paused.into_iter().try_for_each(|pid| self.resume(pid))
    }

    /// Takes out what ended by itself since the last call.
    pub fn ended(&mut self) -> anyhow::Result<Vec<End>> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.live.len() {
            if self.live[at].child.try_wait()?.is_none() {
                at += 1;
                continue;
            }
            let instance = self.live.remove(at);
            let end = instance.end(self.live_feed);
            if end.ousted {
                let _ = std::fs::remove_file(&instance.log); // said already
            }
            ended.push(end);
        }
        Ok(ended)
    }

    /// SIGKILL for every instance.
    pub fn kill_all(&mut self) {
        for mut instance in self.live.drain(..) {
            // Dead already is fine.
            let _ = instance.child.kill();
            let _ = instance.child.wait();
        }
    }

    /// What one instance has logged so far.
    pub fn log(&self, pid: u32) -> String {
        let instance = self.live.iter().find(|i| i.child.id() == pid);
        instance.and_then(|i| std::fs::read_to_string(&i.log).ok()).unwrap_or_default()
    }

    /// The last words of every instance, for a failure.
    pub fn logs(&self) -> String {
        self.live.iter().map(|i| format!("--- {}\n{}\n", i.stage, tail(&i.log, 8))).collect()
    }
}

impl Instance {
    fn end(&self, live_feed: bool) -> End {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        // A panic stands before its backtrace.
        let panic: Vec<&str> = log.lines().skip_while(|line| !line.contains("panicked at")).take(3).collect();
        let words = format!("{}\n{}", panic.join("\n"), tail(&self.log, 6)).trim().to_owned();
        let ousted = OUSTED.iter().any(|o| words.contains(o)) || (live_feed && words.contains(OUSTED_LIVE));
        End { stage: self.stage, ousted, words }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}
