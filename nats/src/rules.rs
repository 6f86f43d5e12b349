//! The halt rules: whether a task may go on from its checkpoint over the streams as they are. Pure, so that a start
//! and an operator's `tapeline task status` cannot disagree.

use crate::bus::StreamState;
use crate::checkpoint::Header;
use crate::error::BusError;
use crate::task::Accept;

/// What a task finds when it opens.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// `<stage>.<key>`
    pub task: &'a str,
    /// `None`: no checkpoint, the task is fresh.
    pub header: Option<&'a Header>,
    /// Of the program that opens the task; `None` where the one who asks does not know.
    pub code_version: Option<u32>,
    pub input_stream: &'a str,
    pub output_stream: &'a str,
    pub input: StreamState,
    pub output: StreamState,
    /// [`crate::checkpoint::message_id`] of what stands at the checkpoint's input position now; `None` when nothing
    /// does.
    pub in_id: Option<u64>,
}

/// Where the task goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The last input that counts as folded.
    pub cursor: u64,
    /// Its identity; 0 where it was not read.
    pub in_id: u64,
    /// The last output that counts as said.
    pub out_seq: u64,
    /// Names of the halts that an operator let pass.
    pub passed: Vec<&'static str>,
}

/// Everything that stands against going on, in the order in which a start looks.
pub fn halts(found: &Found<'_>) -> Vec<BusError> {
    let expired = |cursor: u64| BusError::InputExpired {
        stream: found.input_stream.to_owned(),
        first: found.input.before_first() + 1,
        cursor,
    };
    let Some(header) = found.header else {
        // Outputs without a checkpoint can only be regenerated from the very first input.
        let lost = found.output.last_seq > 0 && found.input.before_first() > 0;
        return lost.then(|| expired(0)).into_iter().collect();
    };
    let mut halts = Vec::new();
    if let Some(mine) = found.code_version.filter(|mine| *mine != header.code_version) {
        halts.push(BusError::CodeVersion { key: found.task.to_owned(), found: header.code_version, mine });
    }
    if found.output.last_seq < header.out_seq {
        let (last, expected) = (found.output.last_seq, header.out_seq);
        halts.push(BusError::LostTail { stream: found.output_stream.to_owned(), last, expected });
    }
    let rewritten =
        |why: String| BusError::InputRewritten { stream: found.input_stream.to_owned(), seq: header.in_seq, why };
    if found.input.last_seq < header.in_seq {
        halts.push(rewritten(format!("the stream ends at {}", found.input.last_seq)));
    } else if header.in_id != 0 && found.in_id.is_some_and(|id| id != header.in_id) {
        halts.push(rewritten("its bytes differ".to_owned()));
    } else if found.input.before_first() > header.in_seq {
        // A message that is gone by retention cannot be compared; whether that matters is this rule's question.
        halts.push(expired(header.in_seq));
    }
    halts
}

/// Where the task goes on, or the first halt that nobody let pass.
pub fn start(found: &Found<'_>, accept: Accept) -> Result<Start, BusError> {
    let stored_behind = found.header.is_some_and(|header| found.output.last_seq > header.out_seq);
    let mut passed = Vec::new();
    for halt in halts(found) {
        let lets_pass = match halt {
            // Outputs behind the checkpoint would be compared with what another version said.
            BusError::CodeVersion { .. } => accept.version && (!stored_behind || accept.outputs),
            _ => accept.loss,
        };
        match halt.halt() {
            Some(name) if lets_pass => passed.push(name),
            _ => return Err(halt),
        }
    }
    let before_first = found.input.before_first();
    let Some(header) = found.header else {
        let out_seq = if passed.is_empty() { 0 } else { found.output.last_seq };
        return Ok(Start { cursor: before_first, in_id: 0, out_seq, passed });
    };
    let rewritten = passed.contains(&"input_rewritten");
    let mut cursor = if rewritten { header.in_seq.min(found.input.last_seq) } else { header.in_seq };
    cursor = cursor.max(before_first);
    let in_id = if cursor == header.in_seq && !rewritten { header.in_id } else { 0 };
    Ok(Start { cursor, in_id, out_seq: header.out_seq.min(found.output.last_seq), passed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(in_seq: u64, out_seq: u64) -> Header {
        Header {
            code_version: 1,
            input: "IN".into(),
            filter: ">".into(),
            output: "OUT".into(),
            in_seq,
            in_id: 7,
            out_seq,
            accepted: None,
        }
    }

    fn state(first: u64, last: u64) -> StreamState {
        StreamState { first_seq: first, last_seq: last, messages: (last + 1).saturating_sub(first) }
    }

    fn found(header: Option<&Header>, input: StreamState, output: StreamState, in_id: Option<u64>) -> Found<'_> {
        let (input_stream, output_stream) = ("IN", "OUT");
        Found { task: "t.a", header, code_version: Some(1), input_stream, output_stream, input, output, in_id }
    }

    fn names(found: &Found<'_>) -> Vec<&'static str> {
        halts(found).iter().filter_map(BusError::halt).collect()
    }

    const EVERYTHING: Accept = Accept { version: true, loss: true, outputs: true };

    #[test]
    fn each_halt_is_told_by_its_name() {
        let header = header(10, 4);
        let h = Some(&header);
        assert_eq!(names(&found(h, state(1, 20), state(1, 4), Some(7))), [""; 0]);
        assert_eq!(names(&found(h, state(1, 20), state(1, 3), Some(7))), ["output_lost_tail"]);
        assert_eq!(names(&found(h, state(1, 20), state(1, 4), Some(8))), ["input_rewritten"]);
        assert_eq!(names(&found(h, state(1, 9), state(1, 4), None)), ["input_rewritten"]);
        assert_eq!(names(&found(h, state(12, 20), state(1, 4), None)), ["input_expired"]);
        assert_eq!(names(&found(h, state(11, 20), state(1, 4), None)), [""; 0], "exactly what was read is gone");
        assert_eq!(names(&found(None, state(2, 20), state(1, 4), None)), ["input_expired"]);
        assert_eq!(names(&found(None, state(2, 20), state(1, 0), None)), [""; 0], "nothing was said yet");
        let other = Found { code_version: Some(2), ..found(h, state(1, 20), state(1, 4), Some(7)) };
        assert_eq!(names(&other), ["code_version"]);
        assert_eq!(names(&Found { code_version: None, ..other }), [""; 0], "who asks does not know its version");
    }

    #[test]
    fn another_version_passes_only_where_nothing_is_to_be_compared() {
        let header = header(10, 4);
        let version = Accept { version: true, ..Accept::default() };
        let at_rest = Found { code_version: Some(2), ..found(Some(&header), state(1, 20), state(1, 4), Some(7)) };
        assert!(start(&at_rest, version).is_ok());
        let behind = Found { output: state(1, 5), ..at_rest };
        assert!(matches!(start(&behind, version), Err(BusError::CodeVersion { .. })));
        assert!(start(&behind, Accept { outputs: true, ..version }).is_ok());
    }

    proptest! {
        /// Whatever is accepted, a start never reads what is not there and never leaves a hole in its output.
        #[test]
        fn an_accepted_start_lies_inside_both_streams(
            in_seq in 0u64..40, out_seq in 0u64..40, first in 1u64..40, more in 0u64..40, out_last in 0u64..40,
            id in proptest::option::of(6u64..9), fresh: bool,
        ) {
            let header = header(in_seq, out_seq);
            let input = state(first, first + more - 1);
            let found = found((!fresh).then_some(&header), input, state(1, out_last), id);
            let start = start(&found, EVERYTHING).unwrap();
            prop_assert!(start.cursor >= input.before_first() && start.cursor <= input.last_seq);
            prop_assert!(start.out_seq <= out_last);
            prop_assert!(start.in_id == 0 || start.cursor == in_seq);
        }

        /// Without a word of the operator a start that succeeds is exactly the checkpoint.
        #[test]
        fn a_start_that_nobody_had_to_accept_is_the_checkpoint(
            in_seq in 0u64..40, out_seq in 0u64..40, first in 1u64..40, more in 0u64..40, out_last in 0u64..40,
            id in proptest::option::of(6u64..9),
        ) {
            let header = header(in_seq, out_seq);
            let found = found(Some(&header), state(first, first + more - 1), state(1, out_last), id);
            if let Ok(start) = start(&found, Accept::default()) {
                prop_assert_eq!((start.cursor, start.in_id, start.out_seq), (in_seq, 7, out_seq));
                prop_assert!(start.passed.is_empty());
            }
        }
    }
}
