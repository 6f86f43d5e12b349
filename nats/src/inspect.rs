//! Looking at a task from outside: its checkpoint, its streams, and whether it would open. For operators.

use crate::bus::{Bus, StreamState};
use crate::checkpoint::{self, Header};
use crate::error::BusError;
use crate::grant::{self, Grant};
use crate::leader;
use crate::reader::Reader;
use crate::rules::{self, Found};
use crate::task::Accept;

/// What is stored of one task.
#[derive(Debug)]
pub struct Inspection {
    /// `<stage>.<key>`
    pub task: String,
    /// Of the checkpoint's newest entry; 0 where there never was one.
    pub revision: u64,
    /// When that entry was stored, wall clock.
    pub stored_ns: i64,
    /// Newer revisions that cannot be read.
    pub damaged: usize,
    /// `None`: there is no checkpoint, or none can be read.
    pub header: Option<Header>,
    pub input: Option<StreamState>,
    pub output: Option<StreamState>,
    /// The operator's word for the next start.
    pub grant: Option<Grant>,
    /// What stands against the next start, with the operator's word not yet counted.
    pub halts: Vec<BusError>,
    /// The halt that a start would end with; `None`: it would open.
    pub verdict: Option<BusError>,
}

/// Looks at `task`. `code_version`: of the program that would open it, where it is known.
pub async fn inspect(bus: &Bus, task: &str, code_version: Option<u32>) -> Result<Inspection, BusError> {
    let history = checkpoint::history(bus, task).await?;
    let grant = grant::of(bus, task, history.revision).await?;
    let kept = history.newest_first.len();
    let mut unreadable = None;
    let mut header = None;
    let mut damaged = 0;
    for (_, read) in history.newest_first {
        match read {
            Ok(found) => {
                header = Some(found.header);
                break;
            }
            Err(error) => {
                damaged += 1;
                unreadable.get_or_insert(crate::bus::why(&error));
            }
        }
    }
    let mut seen = Inspection {
        task: task.to_owned(),
        revision: history.revision,
        stored_ns: history.stored_ns,
        damaged,
        header: None,
        input: None,
        output: None,
        grant,
        halts: Vec::new(),
        verdict: None,
    };
    let accept = seen.grant.as_ref().map(Grant::accept).unwrap_or_default();
    let Some(header) = header else {
        if let (true, Some(why)) = (kept > 0, unreadable) {
            let unreadable = || BusError::CheckpointUnreadable { key: task.to_owned(), why: why.clone() };
            seen.halts.push(unreadable());
            seen.verdict = Some(unreadable());
        }
        return Ok(seen);
    };
    let (input, output) = match (bus.stream(&header.input).await, bus.stream(&header.output).await) {
        (Ok(input), Ok(output)) => (input, output),
        (Err(absent @ BusError::StreamAbsent { .. }), _) | (_, Err(absent @ BusError::StreamAbsent { .. })) => {
            seen.header = Some(header);
            seen.verdict = Some(absent);
            return Ok(seen);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let in_id = if header.in_seq > 0 && header.in_seq <= input.last_seq {
        leader::get(bus, &header.input, header.in_seq).await?.as_ref().map(checkpoint::message_id)
    } else {
        None
    };
    let found = Found {
        task,
        header: Some(&header),
        code_version,
        input_stream: &header.input,
        output_stream: &header.output,
        input,
        output,
        in_id,
    };
    seen.halts = rules::halts(&found);
    seen.verdict = rules::start(&found, accept).err();
    (seen.input, seen.output, seen.header) = (Some(input), Some(output), Some(header));
    Ok(seen)
}

/// Every task that has, or had, a checkpoint, sorted; at most `max`.
pub async fn tasks(bus: &Bus, max: usize) -> Result<Vec<String>, BusError> {
    let stream = crate::kv::stream(checkpoint::BUCKET);
    let prefix = crate::kv::subject(checkpoint::BUCKET, "");
    let newest = Reader::latest(bus, &stream, &format!("{prefix}>"), max).await?;
    let mut tasks: Vec<String> =
        newest.iter().filter_map(|m| m.subject.strip_prefix(&prefix)).map(str::to_owned).collect();
    tasks.sort();
    Ok(tasks)
}

/// Whether dropping the checkpoint loses nothing, or why it does: the state is the fold of the whole input, and what
/// was said stays at its positions and is compared.
pub fn resettable(seen: &Inspection) -> Result<(), String> {
    let (Some(input), Some(output), Some(header)) = (seen.input, seen.output, &seen.header) else {
        // Without a readable checkpoint the next start looks by itself: outputs without their first input halt it.
        return Ok(());
    };
    if output.last_seq == 0 || input.before_first() == 0 {
        return Ok(());
    }
    Err(format!(
        "{} begins at {}: the state of {} cannot be folded again, and {} outputs stand in {}",
        header.input,
        input.before_first() + 1,
        seen.task,
        output.last_seq,
        header.output
    ))
}

/// What an operator's word has to let pass so that the task opens.
pub fn needed(seen: &Inspection) -> Accept {
    let mut accept = Accept::default();
    for halt in &seen.halts {
        match halt {
            BusError::CodeVersion { .. } => accept.version = true,
            BusError::LostTail { .. } | BusError::InputExpired { .. } | BusError::InputRewritten { .. } => {
                accept.loss = true;
            }
            _ => {}
        }
    }
    accept
}
