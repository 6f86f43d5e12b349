//! Runs a stage's tasks under leases: looks, decides, claims, and holds what it has while it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::BoxFuture;
use schemas::Version;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::share::{self, Member, View};
use super::{Lease, Presence, attend, leave, look};
use crate::bus::{Bus, Trouble};
use crate::config::ms;
use crate::error::BusError;
use crate::telemetry::{Board, TaskStats};

/// Reopens in a row after another instance moved the checkpoint, or the end of the stream, of a task whose lease is ours.
const REOPENS_MAX: u32 = 5;

/// Work that one instance at a time should do. It is run again after it was lost or taken over.
pub trait Work: Send {
    /// The task's key within its stage.
    fn stats(&self) -> &Arc<TaskStats>;
    /// What it stored is its state (ingest, callers): overtaken by another instance, it goes on behind what stands there.
    /// A fold that meets other bytes would meet them again.
    fn resumes(&self) -> bool {
        false
    }
    /// Runs until `stop`, drains, and ends; before that only when nothing is left to do. Dropping it is as a crash of
    /// the process.
    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// The tasks of one process that are run under leases.
pub struct Host {
    bus: Bus,
    board: Board,
    /// Of this instance, new at every start.
    id: String,
    idle: BTreeMap<String, Box<dyn Work>>,
    /// What each running task is told to stop by, when another instance is to have it.
    letting: BTreeMap<String, CancellationToken>,
    running: JoinSet<(Box<dyn Work>, anyhow::Result<Ended>)>,
    tasks: BTreeSet<String>,
    shown: Arc<Mutex<Shown>>,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    held: usize,
    members: usize,
    lost: u64,
}

/// How holding a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Drained and given back.
    Given,
    /// Nothing is left to do: a recording that is stored to its end.
    Done,
    /// The lease ran out or is another's: the work was dropped where it stood.
    Lost,
}

impl Host {
    pub fn new(bus: &Bus, board: &Board, work: Vec<Box<dyn Work>>) -> Self {
        let idle: BTreeMap<String, Box<dyn Work>> =
            work.into_iter().map(|work| (work.stats().key().to_owned(), work)).collect();
        let shown: Arc<Mutex<Shown>> = Arc::default();
        let (id, told) = (format!("{:016x}", rand::random::<u64>()), Arc::clone(&shown));
        let named = id.clone();
        let stats = move || {
            let shown = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            json!({ "id": named, "held": shown.held, "members": shown.members, "lost": shown.lost })
        };
        board.add_extra("lease", Box::new(stats));
        Self {
            bus: bus.clone(),
            board: board.clone(),
            id,
            tasks: idle.keys().cloned().collect(),
            idle,
            letting: BTreeMap::new(),
            running: JoinSet::new(),
            shown,
        }
    }

    /// Competes for the tasks until `stop`; then drains what it holds and gives it back. A halt of one task is told
    /// and tried again every `lease.halt_retry_s` while the others go on: given up, it would end one instance after
    /// the other. Other trouble ends this instance, and so does the end of the last task that has one.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        crate::stage::require(&self.bus, &[&crate::kv::stream(schemas::subject::stream::KV_LEASE)]).await?;
        let mut tick = tokio::time::interval(ms(self.bus.config().lease.renew_ms));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tracing::info!(id = self.id, tasks = self.tasks.len(), "competes for leases");
        while !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Cancel safe: what ended is reported again.
                Some(ended) = self.running.join_next() => self.ended(ended.context("a task panicked")?)?,
                // Cancel safe: the next tick comes.
                _ = tick.tick() => self.turn(&stop).await?,
            }
        }
        // The tokens of running tasks are children of `stop`.
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended.context("a task panicked")?)?;
        }
        leave(&self.bus, &self.id).await;
        Ok(())
    }

    /// One look and what follows from it. A server that does not answer is no reason to end: the leases run out.
    async fn turn(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let quota = self.bus.config().lease.quota;
        let presence = Presence {
            v: Version,
            id: self.id.clone(),
            tasks: self.tasks.iter().cloned().collect(),
            held: self.letting.len(),
            quota,
        };
        let bound = ms(self.bus.config().lease.renew_ms.max(250) * 2);
        match tokio::time::timeout(bound, attend(&self.bus, &presence)).await {
            Ok(Ok(())) => {}
            Ok(Err(Trouble::Refused { code, text })) => {
                anyhow::bail!("leases: refused by JetStream: {text} (err_code {code})");
            }
            Ok(Err(Trouble::Again(_))) | Err(_) => return Ok(()),
        }
        let seen = match look(&self.bus).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(error = %crate::bus::why(&error), "leases not read");
                return Ok(());
            }
        };
        let members: Vec<Member> = seen
            .members
            .into_iter()
            .take(self.bus.config().lease.members_max)
            .map(|m| Member { id: m.id, tasks: m.tasks.into_iter().collect(), held: m.held, quota: limit(m.quota) })
            .collect();
        let me =
            Member { id: self.id.clone(), tasks: self.tasks.clone(), held: self.letting.len(), quota: limit(quota) };
        let mine: BTreeSet<String> = self.letting.keys().cloned().collect();
        let taken: BTreeSet<String> = seen.holders.keys().cloned().chain(mine.iter().cloned()).collect();
        let go = share::decide(&View { me: &me, others: &members, mine: &mine, taken: &taken });
        for task in go.release {
            if let Some(token) = self.letting.get(&task) {
                tracing::info!(task, "another instance is to have it");
                token.cancel();
            }
        }
        for task in go.claim {
            let revision = seen.markers.get(&task).copied().unwrap_or(0);
            match Lease::claim(&self.bus, &task, &self.id, revision).await {
                Ok(Some(lease)) => self.hold(task, lease, stop),
                Ok(None) => tracing::debug!(task, "another instance was faster"),
                Err(error @ BusError::Unreachable { .. }) => {
                    tracing::debug!(task, error = %error, "lease not claimed");
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        (shown.held, shown.members) = (self.letting.len(), members.len());
        Ok(())
    }

    fn hold(&mut self, task: String, lease: Lease, stop: &CancellationToken) {
        let Some(work) = self.idle.remove(&task) else { return };
        let token = stop.child_token();
        let (halt_retry, key) = (
            Duration::from_secs(self.bus.config().lease.halt_retry_s),
            crate::checkpoint::key(self.bus.stage(), &task),
        );
        self.board.add(Arc::clone(work.stats()));
        tracing::info!(task, "lease taken");
        self.letting.insert(task, token.clone());
        self.running.spawn(hold(work, lease, token, halt_retry, key));
    }

    fn ended(&mut self, (work, ended): (Box<dyn Work>, anyhow::Result<Ended>)) -> anyhow::Result<()> {
        let task = work.stats().key().to_owned();
        self.letting.remove(&task);
        self.board.remove(&task);
        match ended.with_context(|| task.clone())? {
            Ended::Given => tracing::info!(task, "lease given back"),
            Ended::Done => {
                tracing::info!(task, "done, lease given back");
                self.tasks.remove(&task);
                return Ok(());
            }
            Ended::Lost => {
                self.shown.lock().unwrap_or_else(PoisonError::into_inner).lost += 1;
                tracing::warn!(task, "lease lost, work dropped");
            }
        }
        self.idle.insert(task, work);
        Ok(())
    }
}

fn limit(quota: usize) -> usize {
    if quota == 0 { usize::MAX } else { quota }
}

/// Runs `work` while the lease lives.
async fn hold(
    mut work: Box<dyn Work>,
    mut lease: Lease,
    stop: CancellationToken,
    halt_retry: Duration,
    task: String,
) -> (Box<dyn Work>, anyhow::Result<Ended>) {
    let mut reopens = 0;
    let mut pause = Duration::ZERO;
    let outcome = loop {
        let ended = {
            let run = async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    // Dropping the sleep loses nothing.
                    () = tokio::time::sleep(pause) => {}
                }
                work.run(&stop).await
            };
            let mut run = std::pin::pin!(run);
            loop {
                tokio::select! {
                    biased;
                    // First, because a process that was stopped for a while wakes up here: somebody else may hold it.
                    // Dropping the work is as a crash.
                    () = tokio::time::sleep_until(lease.ends().into()) => break None,
                    // Dropped only with the lease itself.
                    renewed = renew(&mut lease) => match renewed {
                        Ok(true) => {}
                        Ok(false) => break None,
                        // The server does not answer; the lease's end decides.
                        Err(error) => tracing::debug!(task, error = %crate::bus::why(&error), "lease not renewed"),
                    },
                    ended = &mut run => break Some(ended),
                }
            }
        };
        let Some(ended) = ended else {
            work.stats().ended(false);
            break Ok(Ended::Lost);
        };
        let Err(error) = ended else {
            work.stats().ended(false);
            lease.release().await;
            // Asked to stop, it may be somebody else's turn; if not, running it again would find nothing to do.
            break Ok(if stop.is_cancelled() { Ended::Given } else { Ended::Done });
        };
        let halt = error.downcast_ref::<BusError>().and_then(BusError::halt);
        work.stats().ended(error.downcast_ref::<BusError>().is_some_and(BusError::fenced));
        let overtaken = halt == Some("checkpoint_fenced") || (halt == Some("fenced") && work.resumes());
        match halt {
            // A holder before us wrote its last checkpoint late, or a holder behind us wrote its first; or its last facts
            // came behind our look at the stream.
            Some(fenced) if overtaken && reopens < REOPENS_MAX => match lease.renew().await {
                Ok(false) => break Ok(Ended::Lost),
                Ok(true) | Err(_) => {
                    reopens += 1;
                    pause = Duration::ZERO;
                    tracing::warn!(task, reopens, fenced, "another instance came between, opened again");
                }
            },
            Some(_) => {
                pause = halt_retry;
                reopens = 0;
                let remedy = error.downcast_ref::<BusError>().and_then(|halt| halt.remedy(&task)).unwrap_or_default();
                tracing::error!(task, error = %format!("{error:#}"), remedy, retry_s = pause.as_secs(), "task halts");
            }
            None => {
                lease.release().await;
                break Err(error);
            }
        }
    };
    (work, outcome)
}

/// Waits until it is time, then renews.
async fn renew(lease: &mut Lease) -> Result<bool, BusError> {
    tokio::time::sleep_until(lease.due().max(Instant::now() + Duration::from_millis(1)).into()).await;
    lease.renew().await
}
