//! Seeded disturbance of a recorded session, and the verdict: byte for byte what the undisturbed run stored.
//!
//! A run is a sequence of rounds. Each stores the whole session anew on fresh servers, is struck for a bounded time,
//! is left to finish, and is compared. What strikes when follows from the seed alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use simulator::rng::Rng;

use crate::arena::{Arena, Verdict};
use crate::fleet::{INSTANCES_MAX, STAGES};
use crate::session::{ACCOUNT, Reference};
use crate::within;

/// How long a zombie or twin may stay beside the instance that took over, in milliseconds.
const DOUBLE_MS_MAX: u64 = 1500;
/// Share of the desk that is stored before the stages start to be struck.
const DESK_BEFORE: f64 = 0.2;

/// What a run is.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// What strikes when.
    pub seed: u64,
    /// Servers: 1 or 3.
    pub nodes: usize,
    /// The run strikes for at most this long, the end of the last round comes on top.
    pub seconds: u64,
    /// It strikes at most until so many processes were killed.
    pub kills: u64,
    /// One round strikes for this long.
    pub round_seconds: u64,
    /// Mean pause between two strikes, in milliseconds.
    pub pause_ms: u64,
}

/// One thing that happens to the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// `kill -9`, and a new instance after `down_ms`.
    Kill { stage: &'static str, down_ms: u64 },
    /// `kill -9` of a server, started again at once.
    KillServer { node: usize },
    /// `kill -9` of every node before any is started again.
    KillAllServers,
    /// A server stands still.
    FreezeServer { node: usize, ms: u64 },
    /// A stage stands still; `replaced`: another instance takes over before it wakes.
    Zombie { stage: &'static str, ms: u64, replaced: bool },
    /// A second instance of a running stage.
    Twin { stage: &'static str, ms: u64 },
    /// Its connections are cut.
    Cut { stage: &'static str },
    /// Its connections carry nothing for a while.
    Hold { stage: &'static str, ms: u64 },
}

/// A blow and the pause before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    pub after_ms: u64,
    pub blow: Blow,
}

/// An endless sequence of strikes that follows from a seed.
pub struct Schedule {
    rng: Rng,
    nodes: usize,
    pause_ms: u64,
}

impl Schedule {
    pub fn new(seed: u64, round: u64, nodes: usize, pause_ms: u64) -> Self {
        Self { rng: Rng::new(seed, &format!("chaos {round}")), nodes, pause_ms }
    }

    fn up_to(&mut self, max: u64) -> u64 {
        self.rng.below(max + 1)
    }
}

impl Iterator for Schedule {
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        let pause_ms = self.pause_ms;
        // A quarter comes right behind the last one: into the middle of a recovery.
        let after_ms = if self.rng.one_in(4) { self.up_to(pause_ms / 8) } else { self.up_to(pause_ms * 5 / 2) };
        let stage = STAGES[self.rng.below(STAGES.len() as u64) as usize];
        let node = self.rng.below(self.nodes as u64) as usize;
        let blow = match self.rng.below(100) {
            0..40 => Blow::Kill { stage, down_ms: 0 },
            40..52 => Blow::Kill { stage, down_ms: self.up_to(1200) },
            52..66 => Blow::KillServer { node },
            66..69 if self.nodes > 1 => Blow::KillAllServers,
            66..69 => Blow::KillServer { node },
            69..72 => Blow::FreezeServer { node, ms: 50 + self.up_to(700) },
            72..82 => Blow::Zombie { stage, ms: 100 + self.up_to(1500), replaced: self.up_to(3) > 0 },
            82..89 => Blow::Twin { stage, ms: 200 + self.up_to(DOUBLE_MS_MAX - 200) },
            89..95 => Blow::Cut { stage },
            _ => Blow::Hold { stage, ms: 50 + self.up_to(1500) },
        };
        Some(Strike { after_ms, blow })
    }
}

/// What happened so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Processes killed with SIGKILL, by name.
    pub kills: BTreeMap<&'static str, u64>,
    /// Stages and servers that stood still.
    pub frozen: u64,
    /// Second instances beside a running or standing one.
    pub doubles: u64,
    pub cuts: u64,
    pub holds: u64,
    /// Instances that ended because another one owned their task.
    pub ousted: u64,
}

impl Counts {
    pub fn kills(&self) -> u64 {
        self.kills.values().sum()
    }
    fn killed(&mut self, who: &'static str, n: u64) {
        *self.kills.entry(who).or_default() += n;
    }
    fn add(&mut self, other: &Counts) {
        for (who, n) in &other.kills {
            self.killed(who, *n);
        }
        self.frozen += other.frozen;
        self.doubles += other.doubles;
        self.cuts += other.cuts;
        self.holds += other.holds;
        self.ousted += other.ousted;
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub round: u64,
    pub counts: Counts,
    /// Facts of the recording that were stored when the strikes ended, of how many.
    pub struck_until: (u64, u64),
    pub verdict: Verdict,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub options: Options,
    pub counts: Counts,
    pub rounds: Vec<Round>,
    /// Facts compared in all rounds.
    pub facts: u64,
    /// While it struck.
    pub kills_per_minute: f64,
    pub differences: usize,
}

/// Strikes round after round until the time or the kills of `options` are reached, or a round differs. `progress`
/// hears the kills so far and the round.
pub async fn run(
    reference: &Reference,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Report> {
    let bound = Duration::from_secs(options.seconds);
    let speed = reference.session.recorded_s()? / options.round_seconds.max(1) as f64;
    let mut report = Report {
        options: options.clone(),
        counts: Counts::default(),
        rounds: Vec::new(),
        facts: 0,
        kills_per_minute: 0.0,
        differences: 0,
    };
    let mut struck = Duration::ZERO;
    while struck < bound && report.counts.kills() < options.kills && report.differences == 0 {
        let round = report.rounds.len() as u64 + 1;
        let named = || format!("seed {}, {} nodes, round {round}", options.seed, options.nodes);
        let arena = Arena::start(reference, options.nodes, speed, true).await.with_context(named)?;
        let left = (bound - struck).min(Duration::from_secs(options.round_seconds));
        let kills_left = options.kills - report.counts.kills();
        let mut striker = Striker { arena, counts: Counts::default(), later: Vec::new() };
        let begun = Instant::now();
        let before = report.counts.kills();
        let done = striker
            .strike(
                reference,
                Schedule::new(options.seed, round, options.nodes, options.pause_ms),
                left,
                kills_left,
                |n| progress(before + n, round),
            )
            .await;
        struck += begun.elapsed();
        let Striker { mut arena, counts, .. } = striker;
        if let Err(error) = done {
            let so_far = arena.so_far(reference).await;
            return Err(error.context(format!("{}, {} kills\n{so_far}\n", named(), counts.kills())));
        }
        let stored = arena.raw().await.unwrap_or_default();
        arena.finish(reference).await.with_context(named)?;
        let verdict = arena.verify(reference).await.with_context(named)?;
        report.counts.add(&counts);
        report.facts += verdict.streams.iter().map(|s| s.facts).sum::<u64>();
        report.differences += verdict.differences.len();
        let whole = reference.ends.get(&schemas::subject::stream::raw(crate::session::VENUE)).copied();
        report.rounds.push(Round { round, counts, struck_until: (stored, whole.unwrap_or_default()), verdict });
    }
    report.kills_per_minute = report.counts.kills() as f64 * 60.0 / struck.as_secs_f64().max(0.001);
    Ok(report)
}

/// What has to be undone at a later instant.
enum Later {
    Start(&'static str),
    Wake(u32),
    WakeServer(usize),
    Release(&'static str),
    /// One instance of a stage is enough again.
    Single(&'static str),
}

struct Striker {
    arena: Arena,
    counts: Counts,
    later: Vec<(Instant, Later)>,
}

impl Striker {
    async fn strike(
        &mut self,
        reference: &Reference,
        schedule: Schedule,
        bound: Duration,
        kills_max: u64,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let desk = reference.ends.get(&schemas::subject::stream::desk(ACCOUNT)).copied().unwrap_or_default();
        let mut due = begun;
        for strike in schedule {
            due = due.max(begun) + Duration::from_millis(strike.after_ms);
            // Until the strike is due the floor is looked after.
            let left = due.min(begun + bound).saturating_duration_since(Instant::now());
            within(left, async || {
                let share = DESK_BEFORE + (1.0 - DESK_BEFORE) * begun.elapsed().as_secs_f64() / bound.as_secs_f64();
                self.arena.desk_up_to((desk as f64 * share) as u64);
                self.undo()?;
                self.counts.ousted += u64::from(self.arena.look_after()?);
                Ok(None::<()>)
            })
            .await?;
            if begun.elapsed() >= bound || self.counts.kills() >= kills_max {
                break;
            }
            self.blow(strike.blow).await?;
            progress(self.counts.kills());
        }
        Ok(())
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        for (_, what) in due {
            match what {
                Later::Start(stage) => self.ensure_running(stage)?,
                Later::Wake(pid) => self.arena.fleet.resume(pid)?,
                Later::WakeServer(node) => self.arena.servers.resume(node)?,
                Later::Release(stage) => self.arena.proxies[stage].iter().for_each(|proxy| proxy.hold(false)),
                Later::Single(stage) => {
                    while self.arena.fleet.count(stage) > 1 {
                        self.arena.fleet.kill9(stage)?;
                        self.counts.killed(stage, 1);
                    }
                    self.ensure_running(stage)?;
                }
            }
        }
        Ok(())
    }

    fn later(&mut self, ms: u64, what: Later) {
        self.later.push((Instant::now() + Duration::from_millis(ms), what));
    }

    fn ensure_running(&mut self, stage: &'static str) -> anyhow::Result<()> {
        if self.arena.fleet.running(stage) == 0 && self.arena.fleet.count(stage) < INSTANCES_MAX {
            self.arena.fleet.spawn(stage)?;
        }
        Ok(())
    }

    async fn blow(&mut self, blow: Blow) -> anyhow::Result<()> {
        match blow {
            Blow::Kill { stage, down_ms } => {
                if self.arena.fleet.kill9(stage)? {
                    self.counts.killed(stage, 1);
                }
                if down_ms == 0 {
                    self.ensure_running(stage)?;
                } else {
                    self.later(down_ms, Later::Start(stage));
                }
            }
            Blow::KillServer { node } => {
                // A majority is kept: while one node is not back yet, it is the one that is struck again.
                let ill = self.arena.servers.unhealthy().await;
                let node =
                    if ill.is_empty() || ill.contains(&node) { node } else { *ill.iter().next().unwrap_or(&node) };
                self.arena.servers.kill9(node)?;
                self.counts.killed("nats-server", 1);
            }
            Blow::KillAllServers => {
                self.arena.servers.kill9_all()?;
                self.counts.killed("nats-server", self.arena.servers.nodes() as u64);
            }
            Blow::FreezeServer { node, ms } => {
                self.arena.servers.pause(node)?;
                self.counts.frozen += 1;
                self.later(ms, Later::WakeServer(node));
            }
            Blow::Zombie { stage, ms, replaced } => {
                let Some(pid) = self.arena.fleet.pause(stage)? else { return self.ensure_running(stage) };
                self.counts.frozen += 1;
                self.later(ms, Later::Wake(pid));
                if replaced && self.arena.fleet.count(stage) < INSTANCES_MAX {
                    self.arena.fleet.spawn(stage)?;
                    self.counts.doubles += 1;
                    self.later(ms + DOUBLE_MS_MAX, Later::Single(stage));
                }
            }
            Blow::Twin { stage, ms } => {
                if self.arena.fleet.count(stage) < INSTANCES_MAX {
                    self.arena.fleet.spawn(stage)?;
                    self.counts.doubles += 1;
                    self.later(ms, Later::Single(stage));
                }
            }
            Blow::Cut { stage } => {
                self.arena.proxies[stage].iter().for_each(crate::proxy::Proxy::cut);
                self.counts.cuts += 1;
            }
            Blow::Hold { stage, ms } => {
                self.arena.proxies[stage].iter().for_each(|proxy| proxy.hold(true));
                self.counts.holds += 1;
                self.later(ms, Later::Release(stage));
            }
        }
        Ok(())
    }
}
