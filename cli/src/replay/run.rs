//! One replay: which streams, in which order, and when it is done.
//!
//! A task whose input the replay itself says hears that; every other one hears the recorded stream. The desk is
//! heard as it was recorded: its sequence is the merge order, so risk and executor give their own words again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::stream::{Config as Stream, DiscardPolicy, StorageType};
use indicatif::ProgressBar;
use nats::checkpoint::{self, Checkpoint, Header};
use nats::telemetry::TaskStats;
use nats::{Accept, Bus, Reader, TaskSpec, Writer, leader};
use schemas::Core;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::{Names, ReplayCore};
use crate::audit::stored::Stored;
use crate::cores::Task;
use crate::range::{self, Point};

/// How often the progress of the tasks is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a run's streams say of it, in their metadata.
pub const RUN: &str = "tapeline.replay";
pub const ABOUT: &str = "tapeline.replay.about";

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    pub names: Names,
    pub from: Vec<Point>,
    pub to: Vec<Point>,
    /// 0 at once, 1 as it was stored, 10 ten times as fast.
    pub speed: f64,
    pub memory: bool,
    /// Facts that one stream of the run may hold; the task halts beyond it.
    pub messages_max: i64,
}

/// What one task of a replay did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    pub task: String,
    /// The stream that it heard, and the range of it.
    pub input: String,
    pub from: u64,
    pub to: u64,
    pub output: String,
    /// Facts said.
    pub said: u64,
}

/// A task with its place in the run.
struct Seat {
    task: Task,
    /// Whose output it hears; `None`: a recorded stream.
    after: Option<usize>,
    from: u64,
    to: u64,
}

/// Runs `tasks` to the end of the range, or until `stop`. False: stopped before the end.
pub async fn run(
    bus: &Bus,
    tasks: Vec<Task>,
    plan: &Plan,
    bar: &ProgressBar,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<Done>, bool)> {
    let seats = seats(bus, tasks, plan, bar).await?;
    create(bus, &seats, plan).await?;
    let recorded: BTreeMap<String, (u64, u64)> =
        seats.iter().filter(|s| s.after.is_none()).map(|s| (s.task.spec.input.clone(), (s.from, s.to))).collect();
    bar.set_length(recorded.values().map(|(from, to)| (to + 1).saturating_sub(*from)).sum());

    let mut work: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let halt = stop.child_token();
    let ends: Vec<CancellationToken> = seats.iter().map(|_| halt.child_token()).collect();
    let stats: Vec<Arc<TaskStats>> = seats.iter().map(|seat| TaskStats::new(&seat.task.name())).collect();
    let ended: Vec<CancellationToken> = seats.iter().map(|_| CancellationToken::new()).collect();
    let mut specs = Vec::new();
    for (i, seat) in seats.iter().enumerate() {
        let copied = seat.after.is_some() || plan.speed > 0.0;
        let spec = TaskSpec {
            key: format!("bt.{}.{}", plan.names.run, seat.task.name()),
            input: if copied { plan.names.stream(&seat.task.spec.input) } else { seat.task.spec.input.clone() },
            filter: if copied { ">".to_owned() } else { seat.task.spec.filter.clone() },
            output: plan.names.stream(&seat.task.spec.output),
        };
        // A paced copy holds every partition.
        let filter = if copied && seat.after.is_none() && seat.task.spec.filter != ">" {
            plan.names.subject(&seat.task.spec.filter)
        } else {
            spec.filter.clone()
        };
        let spec = TaskSpec { filter, ..spec };
        let core = ReplayCore::new(seat.task.core()?, &plan.names, &seat.task.spec.input, seat.to);
        if seat.after.is_none() {
            begin_at(bus, &spec, &core, seat.from).await?;
        }
        specs.push(spec.clone());
        let (bus, stats, end, gone) = (bus.clone(), stats[i].clone(), ends[i].clone(), ended[i].clone());
        let name = seat.task.name();
        work.spawn(async move {
            let ran = nats::task::run(&bus, &spec, core, Accept::default(), &stats, &end).await;
            gone.cancel();
            ran.with_context(|| format!("replay {name}"))
        });
    }
    let feeding = CancellationToken::new();
    if plan.speed > 0.0 {
        feed(bus, &recorded, plan, &halt, &feeding, &mut work).await?;
    } else {
        feeding.cancel();
    }
    let watched = Watched { bus, seats: &seats, specs: &specs, stats: &stats, ends: &ends, ended: &ended };
    let finished = watched.until_done(&mut work, &feeding, bar, stop).await;
    halt.cancel();
    while let Some(ended) = work.join_next().await {
        ended.context("a replay's task panicked")??;
    }
    let finished = finished?;

    let mut done = Vec::new();
    for seat in &seats {
        let output = plan.names.stream(&seat.task.spec.output);
        let said = bus.stream(&output).await?.last_seq;
        let input = match seat.after {
            Some(_) => plan.names.stream(&seat.task.spec.input),
            None => seat.task.spec.input.clone(),
        };
        done.push(Done { task: seat.task.name(), input, from: seat.from, to: seat.to, output, said });
    }
    Ok((done, finished))
}

/// Puts the tasks in the order of the pipeline and finds out what each hears.
async fn seats(bus: &Bus, tasks: Vec<Task>, plan: &Plan, bar: &ProgressBar) -> anyhow::Result<Vec<Seat>> {
    let outputs: Vec<String> = tasks.iter().map(|t| t.spec.output.clone()).collect();
    let mut seats: Vec<Seat> = Vec::new();
    let mut ranges: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let plain = |points: &[Point]| points.iter().any(|p| matches!(p, Point::Seq(_)));
    for task in tasks {
        let input = task.spec.input.clone();
        if let Some(after) = outputs.iter().position(|output| *output == input) {
            seats.push(Seat { task, after: Some(after), from: 1, to: u64::MAX });
            continue;
        }
        let known = ranges.get(&input).copied();
        let (from, to) = match known {
            Some(range) => range,
            None => {
                let mut said = Vec::new();
                let range = range::resolve(bus, &input, &plan.from, &plan.to, &mut said).await?;
                bar.suspend(|| said.iter().for_each(|line| eprintln!("{line}")));
                ranges.insert(input.clone(), range);
                range
            }
        };
        seats.push(Seat { task, after: None, from, to });
    }
    if ranges.len() > 1 && (plain(&plan.from) || plain(&plan.to)) {
        let streams: Vec<String> = ranges.into_keys().collect();
        bail!(
            "the stages hear {} recorded streams: write sequences as STREAM:SEQ, or use times ({})",
            streams.len(),
            streams.join(", ")
        );
    }
    Ok(seats)
}

/// The run's streams: one for each output and, when it is paced, one for each recorded input.
async fn create(bus: &Bus, seats: &[Seat], plan: &Plan) -> anyhow::Result<()> {
    let about = serde_json::json!({
        "tasks": seats.iter().map(|s| s.task.name()).collect::<Vec<_>>(),
        "speed": plan.speed,
    });
    let mut wanted: BTreeMap<String, Option<u64>> = seats.iter().map(|s| (s.task.spec.output.clone(), None)).collect();
    if plan.speed > 0.0 {
        // The copy keeps the sequences of the recorded stream, so causes are the same.
        let inputs = seats.iter().filter(|s| s.after.is_none());
        wanted.extend(inputs.map(|s| (s.task.spec.input.clone(), Some(s.from))));
    }
    for (live, first) in wanted {
        let there = bus.js().get_stream(&live).await.with_context(|| format!("look at stream {live}"))?;
        let mut subjects = there.cached_info().config.subjects.clone();
        if subjects.is_empty() {
            // A sequencer takes the subjects of its sources.
            subjects.push(">".to_owned());
        }
        let name = plan.names.stream(&live);
        let config = Stream {
            name: name.clone(),
            subjects: subjects.iter().map(|s| plan.names.subject(s)).collect(),
            storage: if plan.memory { StorageType::Memory } else { StorageType::File },
            discard: DiscardPolicy::New,
            max_messages: plan.messages_max,
            allow_direct: true,
            num_replicas: 1,
            first_sequence: first.filter(|first| *first > 1),
            metadata: [(RUN.to_owned(), plan.names.run.clone()), (ABOUT.to_owned(), about.to_string())].into(),
            ..Stream::default()
        };
        bus.js().create_stream(config).await.with_context(|| format!("create stream {name}"))?;
    }
    Ok(())
}

/// Lets a fresh task begin at `from`: a checkpoint of an empty core behind the input before it.
async fn begin_at(bus: &Bus, spec: &TaskSpec, core: &ReplayCore, from: u64) -> anyhow::Result<()> {
    let header = Header {
        code_version: ReplayCore::CODE_VERSION,
        input: spec.input.clone(),
        filter: spec.filter.clone(),
        output: spec.output.clone(),
        in_seq: from - 1,
        in_id: 0,
        out_seq: 0,
    };
    let key = checkpoint::key(bus.stage(), &spec.key);
    checkpoint::store(bus, &key, &Checkpoint { header, state: core.save() }, 0).await?;
    Ok(())
}

/// Copies the recorded ranges message by message, each as long after the first of them all as it was stored, divided
/// by the speed. `fed` is cancelled when all is copied.
async fn feed(
    bus: &Bus,
    recorded: &BTreeMap<String, (u64, u64)>,
    plan: &Plan,
    stop: &CancellationToken,
    fed: &CancellationToken,
    work: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut first_ns = i64::MAX;
    for (stream, (from, to)) in recorded {
        if from <= to
            && let Some(message) = leader::next_by_subject(bus, stream, ">", *from).await?
        {
            first_ns = first_ns.min(message.time_ns);
        }
    }
    let anchor = Instant::now();
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(recorded.len()));
    for (stream, (from, to)) in recorded.clone() {
        let (bus, plan, stop, fed, left) = (bus.clone(), plan.clone(), stop.clone(), fed.clone(), left.clone());
        work.spawn(async move {
            let mut writer = Writer::resume(&bus, &plan.names.stream(&stream), from - 1).await?;
            if from <= to {
                let mut reader = Reader::open(&bus, &stream, ">", from).await?;
                loop {
                    let message = reader.next().await?;
                    if message.seq > to {
                        break;
                    }
                    ensure!(message.seq == writer.pushed() + 1, "{stream} has a hole before {}", message.seq);
                    let after = Duration::from_nanos((message.time_ns - first_ns).max(0) as u64).div_f64(plan.speed);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        // Only time is lost.
                        () = tokio::time::sleep_until(anchor + after) => {}
                    }
                    let last = message.seq == to;
                    writer.push(plan.names.subject(&message.subject), message.payload).await?;
                    if last {
                        break;
                    }
                }
                writer.drain().await?;
            }
            if left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1 {
                fed.cancel();
            }
            Ok(())
        });
    }
    Ok(())
}

struct Watched<'a> {
    bus: &'a Bus,
    seats: &'a [Seat],
    specs: &'a [TaskSpec],
    stats: &'a [Arc<TaskStats>],
    /// Cancelled here: the task has heard all that it is to hear.
    ends: &'a [CancellationToken],
    /// Cancelled there: the task has drained and ended.
    ended: &'a [CancellationToken],
}

impl Watched<'_> {
    /// Ends every task once it has heard all of its input; those behind it follow. False: stopped before that.
    async fn until_done(
        &self,
        work: &mut JoinSet<anyhow::Result<()>>,
        fed: &CancellationToken,
        bar: &ProgressBar,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let mut open: BTreeSet<usize> = (0..self.seats.len()).collect();
        let mut goals: BTreeMap<usize, u64> = BTreeMap::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        while !open.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(false),
                // Cancel safe: an end is reported once, here or by the caller.
                Some(ended) = work.join_next() => {
                    ended.context("a replay's task panicked")??;
                    continue;
                }
                _ = look.tick() => {}
            }
            if stop.is_cancelled() {
                return Ok(false);
            }
            let candidates: Vec<usize> = open.iter().copied().collect();
            for i in candidates {
                let ready = match self.seats[i].after {
                    Some(before) => self.ended[before].is_cancelled(),
                    None => fed.is_cancelled(),
                };
                if !ready {
                    continue;
                }
                let goal = match goals.get(&i) {
                    Some(goal) => *goal,
                    None => {
                        let goal = self.goal(i).await?;
                        goals.insert(i, goal);
                        goal
                    }
                };
                if self.stats[i].in_seq() >= goal {
                    self.ends[i].cancel();
                    open.remove(&i);
                }
            }
            bar.set_position(self.position());
        }
        Ok(true)
    }

    /// The sequence at which the task has heard all of its range; 0: there is nothing to hear.
    async fn goal(&self, i: usize) -> anyhow::Result<u64> {
        let (seat, spec) = (&self.seats[i], &self.specs[i]);
        let newest = leader::last_by_subject(self.bus, &spec.input, &spec.filter).await?.map_or(0, |m| m.seq);
        let begin = if seat.after.is_some() { 1 } else { seat.from };
        Ok(if newest < begin || seat.to < begin {
            0
        } else if newest <= seat.to {
            newest
        } else {
            // The first input beyond the range is passed over and shows that everything before was heard.
            match leader::next_by_subject(self.bus, &spec.input, &spec.filter, seat.to + 1).await? {
                Some(beyond) => beyond.seq,
                None => newest,
            }
        })
    }

    /// Messages of the recorded ranges that were heard by the slowest task of each.
    fn position(&self) -> u64 {
        let mut slowest: BTreeMap<&str, u64> = BTreeMap::new();
        for (seat, stats) in self.seats.iter().zip(self.stats).filter(|(seat, _)| seat.after.is_none()) {
            let heard =
                if stats.in_seq() == 0 { 0 } else { (stats.in_seq().min(seat.to) + 1).saturating_sub(seat.from) };
            let of = slowest.entry(&seat.task.spec.input).or_insert(0);
            // Partitions without data hear nothing: the busiest one shows how far the stream is.
            *of = heard.max(*of);
        }
        slowest.into_values().sum()
    }
}

/// How the words of a replay compare with those of the live tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub output: String,
    pub live: String,
    /// Positions that hold the same bytes.
    pub equal: u64,
    /// Positions that only the replay, or only the live stream (within the range), holds.
    pub replay_only: u64,
    /// The first position with other bytes.
    pub differs_at: Option<u64>,
}

/// Compares position by position; meaningful where the range begins at the stream's first message.
pub async fn compare(bus: &Bus, done: &[Done], names: &Names) -> anyhow::Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for done in done {
        let live = done.output.strip_prefix(&names.stream("")).unwrap_or(&done.output).to_owned();
        let last = bus.stream(&live).await?.last_seq;
        let (mut ours, mut theirs) =
            (Stored::open(bus, &done.output, 1, done.said).await?, Stored::open(bus, &live, 1, last).await?);
        let mut row = Compared { output: done.output.clone(), live, equal: 0, replay_only: 0, differs_at: None };
        for k in 1..=done.said {
            let Some(our) = ours.at(k).await? else { continue };
            match theirs.at(k).await? {
                None => row.replay_only += 1,
                Some(their) if our.payload == their.payload && *our.subject == *names.subject(&their.subject) => {
                    row.equal += 1;
                }
                Some(_) => {
                    row.differs_at = Some(k);
                    break;
                }
            }
        }
        compared.push(row);
    }
    Ok(compared)
}
