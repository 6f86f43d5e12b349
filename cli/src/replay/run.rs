//! One replay: which streams, in which order, and when it is done.
//!
//! A task whose input the replay itself says hears that; every other one hears the recorded stream. The desk is
//! heard as it was recorded, its sequence being the merge order, so that risk and executor give their own words
//! again; or it is merged anew by the server, from what the run says and paced copies of everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::stream::{Config as Stream, DiscardPolicy, Source, StorageType, SubjectTransform};
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
/// A merged desk that stands still this long, with everything heard, has ended: risk and executor answer each other.
const DESK_QUIET: Duration = Duration::from_millis(1_500);
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
    /// Risk and executor hear a desk of this run's own. Only paced: at once, all ticks would stand before all signals.
    pub merged: bool,
}

impl Plan {
    /// The stream that holds a recorded input for the run's tasks.
    fn input(&self, live: &str) -> String {
        if self.speed > 0.0 { self.names.stream(live) } else { live.to_owned() }
    }
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

/// What a task hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hears {
    /// A recorded stream, or its paced copy; both ends included.
    Recorded { from: u64, to: u64 },
    /// What the run's task at this index says.
    Said(usize),
    /// The run's own desk.
    Merged,
}

/// A task with its place in the run.
struct Seat {
    task: Task,
    hears: Hears,
}

impl Seat {
    fn range(&self) -> (u64, u64) {
        match self.hears {
            Hears::Recorded { from, to } => (from, to),
            Hears::Said(_) | Hears::Merged => (1, u64::MAX),
        }
    }
}

/// Runs `tasks` to the end of the range, or until `stop`. False: stopped before the end.
pub async fn run(
    bus: &Bus,
    tasks: Vec<Task>,
    plan: &Plan,
    bar: &ProgressBar,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<Done>, bool)> {
    let (seats, recorded) = seats(bus, tasks, plan, bar).await?;
    create(bus, &seats, &recorded, plan).await?;
    bar.set_length(recorded.values().map(|(from, to)| (to + 1).saturating_sub(*from)).sum());

    let mut work: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let halt = stop.child_token();
    let ends: Vec<CancellationToken> = seats.iter().map(|_| halt.child_token()).collect();
    let stats: Vec<Arc<TaskStats>> = seats.iter().map(|seat| TaskStats::new(&seat.task.name())).collect();
    let ended: Vec<CancellationToken> = seats.iter().map(|_| CancellationToken::new()).collect();
    let mut specs = Vec::new();
    for (i, seat) in seats.iter().enumerate() {
        let (live, whole) = (&seat.task.spec, seat.task.spec.filter == ">");
        let input = match seat.hears {
            Hears::Recorded { .. } => plan.input(&live.input),
            Hears::Said(_) | Hears::Merged => plan.names.stream(&live.input),
        };
        let spec = TaskSpec {
            key: format!("bt.{}.{}", plan.names.run, seat.task.name()),
            // A paced copy holds every partition, under the run's subjects.
            filter: if input == live.input || whole { live.filter.clone() } else { plan.names.subject(&live.filter) },
            output: plan.names.stream(&live.output),
            input,
        };
        // Causes name the live stream, except where the positions are this run's own.
        let named = if seat.hears == Hears::Merged { &spec.input } else { &live.input };
        let core = ReplayCore::new(seat.task.core()?, &plan.names, named, seat.range().1);
        if let Hears::Recorded { from, .. } = seat.hears {
            begin_at(bus, &spec, &core, from).await?;
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
        let input = match seat.hears {
            Hears::Recorded { .. } => seat.task.spec.input.clone(),
            Hears::Said(_) | Hears::Merged => plan.names.stream(&seat.task.spec.input),
        };
        let (from, to) = seat.range();
        done.push(Done { task: seat.task.name(), input, from, to, output, said });
    }
    Ok((done, finished))
}

/// Recorded streams that a run needs, each with its range.
type Recorded = BTreeMap<String, (u64, u64)>;

/// Finds out what each task hears, and what of the recorded streams is needed for it.
async fn seats(bus: &Bus, tasks: Vec<Task>, plan: &Plan, bar: &ProgressBar) -> anyhow::Result<(Vec<Seat>, Recorded)> {
    let outputs: Vec<String> = tasks.iter().map(|t| t.spec.output.clone()).collect();
    let mut recorded = Recorded::new();
    let mut needed = BTreeSet::new();
    for task in &tasks {
        let input = &task.spec.input;
        if plan.merged && is_desk(input) {
            let sources = sources(bus, input).await?;
            needed.extend(sources.into_iter().map(|s| s.name).filter(|s| !is_bucket(s) && !outputs.contains(s)));
        } else if !outputs.contains(input) {
            needed.insert(input.clone());
        }
    }
    let plain = |points: &[Point]| points.iter().any(|p| matches!(p, Point::Seq(_)));
    if needed.len() > 1 && (plain(&plan.from) || plain(&plan.to)) {
        let streams: Vec<&str> = needed.iter().map(String::as_str).collect();
        bail!(
            "the run needs {} recorded streams: write sequences as STREAM:SEQ, or use times ({})",
            streams.len(),
            streams.join(", ")
        );
    }
    for input in needed {
        let mut said = Vec::new();
        let range = range::resolve(bus, &input, &plan.from, &plan.to, &mut said).await?;
        bar.suspend(|| said.iter().for_each(|line| eprintln!("{line}")));
        recorded.insert(input, range);
    }
    let mut seats = Vec::new();
    for task in tasks {
        let input = &task.spec.input;
        let hears = match outputs.iter().position(|output| output == input) {
            Some(before) => Hears::Said(before),
            None if plan.merged && is_desk(input) => Hears::Merged,
            None => {
                let (from, to) = recorded[input];
                Hears::Recorded { from, to }
            }
        };
        seats.push(Seat { task, hears });
    }
    Ok((seats, recorded))
}

fn is_desk(stream: &str) -> bool {
    stream.starts_with("DESK_")
}

fn is_bucket(stream: &str) -> bool {
    stream.starts_with("KV_")
}

/// The sources of a sequencer.
async fn sources(bus: &Bus, sequencer: &str) -> anyhow::Result<Vec<Source>> {
    let there = bus.js().get_stream(sequencer).await.with_context(|| format!("look at stream {sequencer}"))?;
    Ok(there.cached_info().config.sources.clone().unwrap_or_default())
}

/// The run's streams: one for each output; when it is paced, one for each recorded input; its own desk.
async fn create(bus: &Bus, seats: &[Seat], recorded: &Recorded, plan: &Plan) -> anyhow::Result<()> {
    let about = serde_json::json!({
        "tasks": seats.iter().map(|s| s.task.name()).collect::<Vec<_>>(),
        "speed": plan.speed,
        "desk": if plan.merged { "merged" } else { "recorded" },
    });
    let config = |name: String| Stream {
        name,
        storage: if plan.memory { StorageType::Memory } else { StorageType::File },
        discard: DiscardPolicy::New,
        max_messages: plan.messages_max,
        allow_direct: true,
        num_replicas: 1,
        metadata: [(RUN.to_owned(), plan.names.run.clone()), (ABOUT.to_owned(), about.to_string())].into(),
        ..Stream::default()
    };
    let mut wanted: BTreeMap<String, Option<u64>> = seats.iter().map(|s| (s.task.spec.output.clone(), None)).collect();
    if plan.speed > 0.0 {
        // The copy keeps the sequences of the recorded stream, so causes are the same.
        wanted.extend(recorded.iter().map(|(stream, (from, _))| (stream.clone(), Some(*from))));
    }
    for (live, first) in wanted {
        let there = bus.js().get_stream(&live).await.with_context(|| format!("look at stream {live}"))?;
        let mut subjects = there.cached_info().config.subjects.clone();
        if subjects.is_empty() {
            // A sequencer takes the subjects of its sources.
            subjects.push(">".to_owned());
        }
        let name = plan.names.stream(&live);
        let stream = Stream {
            subjects: subjects.iter().map(|s| plan.names.subject(s)).collect(),
            first_sequence: first.filter(|first| *first > 1),
            ..config(name.clone())
        };
        bus.js().create_stream(stream).await.with_context(|| format!("create stream {name}"))?;
    }
    let desks: BTreeSet<&String> =
        seats.iter().filter(|s| s.hears == Hears::Merged).map(|s| &s.task.spec.input).collect();
    for live in desks {
        let name = plan.names.stream(live);
        // An operator's commands are of another day; instruments are as they are.
        let sources =
            sources(bus, live).await?.into_iter().filter(|s| !is_bucket(&s.name) || s.name.ends_with("instruments"));
        let ours = |source: Source| {
            if is_bucket(&source.name) {
                return source;
            }
            let under = |t: SubjectTransform| SubjectTransform { source: plan.names.subject(&t.source), ..t };
            let subject_transforms = source.subject_transforms.into_iter().map(under).collect();
            Source { name: plan.names.stream(&source.name), subject_transforms, ..Source::default() }
        };
        let stream = Stream { sources: Some(sources.map(ours).collect()), ..config(name.clone()) };
        bus.js().create_stream(stream).await.with_context(|| format!("create stream {name}"))?;
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
        accepted: None,
    };
    let key = checkpoint::key(bus.stage(), &spec.key);
    checkpoint::store(bus, &key, &Checkpoint { header, state: core.save() }, 0).await?;
    Ok(())
}

/// Copies the recorded ranges message by message, each as long after the first of them all as it was stored, divided
/// by the speed. `fed` is cancelled when all is copied.
async fn feed(
    bus: &Bus,
    recorded: &Recorded,
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
        let mut still = (Vec::new(), Instant::now());
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
                let heard = match self.seats[i].hears {
                    Hears::Recorded { .. } if !fed.is_cancelled() => false,
                    Hears::Said(before) if !self.ended[before].is_cancelled() => false,
                    Hears::Recorded { .. } | Hears::Said(_) => {
                        if !goals.contains_key(&i) {
                            goals.insert(i, self.goal(i).await?);
                        }
                        self.stats[i].in_seq() >= goals[&i]
                    }
                    Hears::Merged => {
                        let others = |i: &usize| self.seats[*i].hears != Hears::Merged;
                        fed.is_cancelled() && !open.iter().any(others) && self.quiet(&mut still).await?
                    }
                };
                if heard {
                    self.ends[i].cancel();
                    open.remove(&i);
                }
            }
            bar.set_position(self.position());
        }
        Ok(true)
    }

    /// Whether every merged desk has stood still for a while, with all of it heard. `still`: the ends of the desks, and
    /// since when they are so.
    async fn quiet(&self, still: &mut (Vec<u64>, Instant)) -> anyhow::Result<bool> {
        let mut ends = Vec::new();
        let mut heard = true;
        for (i, _) in self.seats.iter().enumerate().filter(|(_, seat)| seat.hears == Hears::Merged) {
            let last = self.bus.stream(&self.specs[i].input).await?.last_seq;
            heard &= self.stats[i].in_seq() >= last;
            ends.push(last);
        }
        if ends != still.0 || !heard {
            *still = (ends, Instant::now());
        }
        Ok(still.1.elapsed() >= DESK_QUIET)
    }

    /// The sequence at which the task has heard all of its range; 0: there is nothing to hear.
    async fn goal(&self, i: usize) -> anyhow::Result<u64> {
        let (spec, (begin, to)) = (&self.specs[i], self.seats[i].range());
        let newest = leader::last_by_subject(self.bus, &spec.input, &spec.filter).await?.map_or(0, |m| m.seq);
        Ok(if newest < begin || to < begin {
            0
        } else if newest <= to {
            newest
        } else {
            // The first input beyond the range is passed over and shows that everything before was heard.
            match leader::next_by_subject(self.bus, &spec.input, &spec.filter, to + 1).await? {
                Some(beyond) => beyond.seq,
                None => newest,
            }
        })
    }

    /// Messages of the recorded ranges that were heard by the slowest task of each.
    fn position(&self) -> u64 {
        let mut slowest: BTreeMap<&str, u64> = BTreeMap::new();
        for (seat, stats) in self.seats.iter().zip(self.stats) {
            let Hears::Recorded { from, to } = seat.hears else { continue };
            let heard = if stats.in_seq() == 0 { 0 } else { (stats.in_seq().min(to) + 1).saturating_sub(from) };
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
    // A desk that was merged anew has another order than the live one.
    let merged = |done: &&Done| done.input.starts_with(&names.stream("DESK_"));
    for done in done.iter().filter(|done| !merged(done)) {
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
