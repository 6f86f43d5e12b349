//! The audit of one deterministic task: its stored input through its core again, every output beside what it said
//! then.

use nats::checkpoint::{self, Checkpoint};
use nats::{Bus, Message, Reader, kv};
use schemas::Place;
use serde::Serialize;
use serde_json::Value;

use super::stored::{Shown, Stored, differences, same};
use crate::cores::{AnyCore, Heard, Said, Task};
use crate::decode;
use crate::range::{self, Point};

/// How one task came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub task: String,
    pub input: String,
    pub output: String,
    /// `first`: from the stream's first message. `checkpoint <in_seq>`: from a stored checkpoint behind that input.
    pub began: String,
    /// Inputs folded.
    pub inputs: u64,
    pub undecodable: u64,
    /// Outputs that equal what is stored at their positions.
    pub compared: u64,
    /// Outputs whose stored counterpart has expired, or stands outside of the range asked for.
    pub passed: u64,
    /// Outputs of inputs that the task itself has not folded yet.
    pub ahead: u64,
    /// Why the task cannot be audited at all.
    pub skipped: Option<String>,
    pub divergence: Option<Divergence>,
}

/// The first position at which the task said something else than its core says now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// `stream:seq` of the output.
    pub position: String,
    /// The input that was being folded.
    pub input: Option<Shown>,
    /// What stands there; absent: nothing was said.
    pub stored: Option<Shown>,
    /// What the core says; absent: nothing.
    pub folded: Option<Shown>,
    /// `path: stored, then folded`.
    pub differs: Vec<String>,
    pub why: String,
}

/// What to compare.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub from: Vec<Point>,
    pub to: Vec<Point>,
    /// Begin at the oldest stored checkpoint instead of the first input.
    pub checkpoint: bool,
}

impl Outcome {
    pub fn new(task: &str, input: &str, output: &str) -> Self {
        Self {
            task: task.to_owned(),
            input: input.to_owned(),
            output: output.to_owned(),
            began: "first".to_owned(),
            inputs: 0,
            undecodable: 0,
            compared: 0,
            passed: 0,
            ahead: 0,
            skipped: None,
            divergence: None,
        }
    }
    pub fn skip(mut self, why: impl Into<String>) -> Self {
        self.skipped = Some(why.into());
        self
    }
}

/// Inputs folded between two calls of `progress`, at most.
const BATCH: usize = 512;

/// Folds the task's input again. `progress` hears (inputs folded, inputs in all) and `said` gets a line for each
/// time that was turned into a sequence.
pub async fn audit(
    bus: &Bus,
    task: &Task,
    scope: &Scope,
    said: &mut Vec<String>,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Outcome> {
    let spec = &task.spec;
    let outcome = Outcome::new(&task.name(), &spec.input, &spec.output);
    // In this order: whatever is stored in the output now follows from an input that is stored now.
    let output = match bus.stream(&spec.output).await {
        Ok(state) => state,
        Err(nats::BusError::StreamAbsent { stream }) => return Ok(outcome.skip(format!("no stream {stream}"))),
        Err(error) => return Err(error.into()),
    };
    let input = match bus.stream(&spec.input).await {
        Ok(state) => state,
        Err(nats::BusError::StreamAbsent { stream }) => return Ok(outcome.skip(format!("no stream {stream}"))),
        Err(error) => return Err(error.into()),
    };
    let first = input.before_first() + 1;
    let core = task.core()?;
    let checkpoints = checkpoints(bus, task, core.as_ref()).await?;
    let (from, to) = if scope.from.is_empty() && scope.to.is_empty() {
        (first, input.last_seq)
    } else {
        range::resolve(bus, &spec.input, &scope.from, &scope.to, said).await?
    };

    let whole = first == 1 && !scope.checkpoint;
    let within = |c: &&Checkpoint| c.header.in_seq + 1 >= first && c.header.in_seq <= to;
    let start = match (whole, scope.from.is_empty()) {
        // The newest checkpoint before the range saves the way from the beginning.
        (_, false) => checkpoints.iter().rev().filter(within).find(|c| c.header.in_seq < from),
        (true, true) => None,
        (false, true) => checkpoints.iter().find(within),
    };
    let mut fold =
        Fold { core, next: 1, checkpoints: &checkpoints, stored: None, from, input_last: input.last_seq, outcome };
    if let Some(newest) = checkpoints.last() {
        let (said, there) = (newest.header.out_seq, bus.stream(&spec.output).await?.last_seq);
        if there < said {
            fold.next = there + 1;
            let why = format!("the output lost its tail: {said} facts were acknowledged, it ends at {there}");
            fold.diverge(None, None, None, why);
            return Ok(fold.outcome);
        }
    }
    let mut cursor = first - 1;
    match start {
        Some(checkpoint) => {
            fold.core.restore(&checkpoint.state)?;
            fold.next = checkpoint.header.out_seq + 1;
            cursor = checkpoint.header.in_seq;
            fold.outcome.began = format!("checkpoint {cursor}");
        }
        None if first > 1 => {
            let why = format!(
                "{} begins at {first} and no stored checkpoint of this code version stands behind that",
                spec.input
            );
            return Ok(fold.outcome.skip(why));
        }
        None => {}
    }
    fold.checkpoints = &checkpoints[checkpoints.partition_point(|c| c.header.in_seq <= cursor)..];
    fold.stored = Some(Stored::open(bus, &spec.output, fold.next, output.last_seq).await?);
    fold.run(bus, task, cursor, to, &mut progress).await
}

/// The readable checkpoints of this task and code version, oldest first.
async fn checkpoints(bus: &Bus, task: &Task, core: &dyn AnyCore) -> anyhow::Result<Vec<Checkpoint>> {
    let history = match kv::history(bus, checkpoint::BUCKET, &task.name()).await {
        Ok(history) => history,
        Err(nats::BusError::StreamAbsent { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut found: Vec<Checkpoint> = Vec::new();
    for entry in history {
        if entry.payload.is_empty() {
            found.clear(); // deleted by an operator: what is older does not count
            continue;
        }
        let Ok(read) = Checkpoint::from_bytes(&entry.payload) else { continue };
        let (h, spec) = (&read.header, &task.spec);
        let ours = h.input == spec.input && h.filter == spec.filter && h.output == spec.output;
        if ours && h.code_version == core.code_version() {
            found.push(read);
        }
    }
    found.sort_by_key(|c| c.header.in_seq);
    Ok(found)
}

struct Fold<'a> {
    core: Box<dyn AnyCore>,
    /// Position of the next output.
    next: u64,
    /// Those that were not passed yet.
    checkpoints: &'a [Checkpoint],
    stored: Option<Stored>,
    /// Outputs of earlier inputs are not compared.
    from: u64,
    /// Of the input stream when the audit began.
    input_last: u64,
    outcome: Outcome,
}

impl Fold<'_> {
    async fn run(
        mut self,
        bus: &Bus,
        task: &Task,
        mut cursor: u64,
        to: u64,
        progress: &mut impl FnMut(u64, u64),
    ) -> anyhow::Result<Outcome> {
        let spec = &task.spec;
        let place_of: std::sync::Arc<str> = spec.input.as_str().into();
        let mut last: Option<Message> = None;
        let mut reader = Reader::open(bus, &spec.input, &spec.filter, cursor + 1).await?;
        let total = reader.pending().min(to.saturating_sub(cursor));
        let mut said = Vec::new();
        'all: while cursor < to && !reader.caught_up() {
            for message in reader.next_batch(BATCH).await? {
                if message.seq > to {
                    break 'all;
                }
                if !self.counts(message.seq - 1, last.as_ref(), &spec.input) {
                    return Ok(self.outcome);
                }
                cursor = message.seq;
                let place = Place { stream: place_of.clone(), seq: message.seq };
                match self.core.fold(&place, &message.subject, &message.payload, &mut said) {
                    Ok(Heard::Fact | Heard::Unknown) => {}
                    Ok(Heard::Undecodable(_)) => self.outcome.undecodable += 1,
                    Err(fault) => {
                        self.diverge(Some((&spec.input, &message)), None, None, format!("the core halts: {fault}"));
                        return Ok(self.outcome);
                    }
                }
                for said in said.drain(..) {
                    if !self.compare(&spec.input, &message, &said).await? {
                        return Ok(self.outcome);
                    }
                }
                self.outcome.inputs += 1;
                last = Some(message);
            }
            progress(self.outcome.inputs, total);
        }
        // Whether or not another input matched the filter, all up to here was folded.
        if self.counts(to, last.as_ref(), &spec.input) {
            self.ends(&spec.input, to, last.as_ref()).await?;
        }
        Ok(self.outcome)
    }

    /// False: the fold and the store part here.
    async fn compare(&mut self, input: &str, message: &Message, said: &Said) -> anyhow::Result<bool> {
        let k = self.next;
        self.next += 1;
        let Some(stored) = &mut self.stored else { return Ok(true) };
        if stored.last() < k {
            // The task has not come this far; a checkpoint that says otherwise is met later.
            self.outcome.ahead += 1;
            return Ok(true);
        }
        match stored.at(k).await? {
            _ if message.seq < self.from => self.outcome.passed += 1,
            None => self.outcome.passed += 1,
            Some(found) if same(&found, said) => self.outcome.compared += 1,
            Some(found) => {
                self.next = k;
                self.diverge(Some((input, message)), Some(&found), Some(said), "other bytes".to_owned());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every checkpoint up to input `seq` says how many outputs there were; false: the fold has another number.
    fn counts(&mut self, seq: u64, last: Option<&Message>, input: &str) -> bool {
        while let Some((checkpoint, rest)) = self.checkpoints.split_first() {
            let header = &checkpoint.header;
            if header.in_seq > seq {
                return true;
            }
            if header.out_seq != self.next - 1 {
                let why = format!(
                    "behind input {} the task had said {} facts, its core says {}",
                    header.in_seq,
                    header.out_seq,
                    self.next - 1
                );
                self.next = header.out_seq.min(self.next - 1) + 1;
                self.diverge(last.map(|message| (input, message)), None, None, why);
                return false;
            }
            self.checkpoints = rest;
        }
        true
    }

    /// At the end of the whole input nothing more may be stored than the core says.
    async fn ends(&mut self, input: &str, to: u64, last: Option<&Message>) -> anyhow::Result<()> {
        let Some(stored) = &mut self.stored else { return Ok(()) };
        let k = self.next;
        if stored.last() < k || to < self.input_last {
            return Ok(());
        }
        let Some(found) = stored.at(k).await? else { return Ok(()) };
        let input = last.map(|message| (input, message));
        self.diverge(input, Some(&found), None, "the core says nothing more".to_owned());
        Ok(())
    }

    fn diverge(
        &mut self,
        input: Option<(&str, &Message)>,
        stored: Option<&Message>,
        folded: Option<&Said>,
        why: String,
    ) {
        let output = self.outcome.output.clone();
        let value = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, decode::json_of);
        let differs = match (stored, folded) {
            (Some(stored), Some(folded)) => differences(&value(Some(&stored.payload)), &value(Some(&folded.payload))),
            _ => Vec::new(),
        };
        self.outcome.divergence = Some(Divergence {
            position: format!("{output}:{}", self.next),
            input: input.map(|(stream, message)| Shown::stored(stream, message)),
            stored: stored.map(|message| Shown::stored(&output, message)),
            folded: folded.map(Shown::said),
            differs,
            why,
        });
    }
}
