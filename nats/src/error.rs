//! Why the bus stops a task, in words that say what to do.

use schemas::{Fault, WireError};

/// Trouble on the bus. Some of it is a halt ([`BusError::halt`]): repeating does not help, an operator has to decide,
/// and [`BusError::remedy`] says between what.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("nats-server at {url}: {why}")]
    Connect { url: String, why: String },
    #[error("{what}: no answer from nats-server within {waited_ms} ms")]
    Unreachable { what: String, waited_ms: u64 },
    #[error("{what}: refused by JetStream: {text} (err_code {code})")]
    Refused { what: String, code: u64, text: String },
    #[error("stream {stream} is not there; create the streams with `tapeline up` or `tapeline init`")]
    StreamAbsent { stream: String },
    #[error("rights: {0}; check the user's rights in server.conf")]
    Rights(String),
    #[error(
        "fenced or nondeterministic: {stream} holds at {seq} what this task did not write ({why}); another instance \
         or version owns this task: stop it, or correct the code"
    )]
    Fenced { stream: String, seq: u64, why: String },
    #[error("fenced: checkpoint {key} was moved by another instance of this task")]
    CheckpointFenced { key: String },
    #[error(
        "output log lost its tail: {stream} ends at {last}, but {expected} were acknowledged; restore it from a replica \
         or backup, or go on without the lost outputs with --accept-loss"
    )]
    LostTail { stream: String, last: u64, expected: u64 },
    #[error(
        "input expired: {stream} begins at {first}, this task has read up to {cursor}; raise the stream's retention \
         and restore it, or go on from its first message with --accept-loss"
    )]
    InputExpired { stream: String, first: u64, cursor: u64 },
    #[error(
        "input rewritten: {stream}:{seq} is not the message that the checkpoint was made behind ({why}); restore the \
         stream, or go on behind it with --accept-loss"
    )]
    InputRewritten { stream: String, seq: u64, why: String },
    #[error(
        "checkpoint {key} was made by code version {found}, this program is version {mine}; stop the old version \
         in peace, then start this one with --accept-version"
    )]
    CodeVersion { key: String, found: u32, mine: u32 },
    #[error(
        "no revision of checkpoint {key} can be read ({why}); `tapeline task reset` drops it, to fold the input again \
         from its beginning"
    )]
    CheckpointUnreadable { key: String, why: String },
    #[error("checkpoint {key} takes {bytes} bytes, the server's max_payload is {max}")]
    CheckpointTooLarge { key: String, bytes: usize, max: usize },
    #[error("publish on {subject}: {why}")]
    Publish { subject: String, why: String },
    #[error("{place}: {fault}")]
    Core { place: String, fault: Fault },
    #[error("{what}")]
    Wire { what: String, source: WireError },
    #[error("{0}")]
    Config(String),
}

impl BusError {
    /// True: this instance lost its task to another, or its code disagrees with what is stored.
    pub fn fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::CheckpointFenced { .. })
    }

    /// The halt's name for scripts; `None` for trouble that may pass by itself.
    pub fn halt(&self) -> Option<&'static str> {
        Some(match self {
            Self::Fenced { .. } => "fenced",
            Self::CheckpointFenced { .. } => "checkpoint_fenced",
            Self::LostTail { .. } => "output_lost_tail",
            Self::InputExpired { .. } => "input_expired",
            Self::InputRewritten { .. } => "input_rewritten",
            Self::CodeVersion { .. } => "code_version",
            Self::CheckpointUnreadable { .. } => "checkpoint_unreadable",
            Self::CheckpointTooLarge { .. } => "checkpoint_too_large",
            Self::Core { .. } => "core_fault",
            _ => return None,
        })
    }

    /// What an operator can do about a halt of `task` (`<stage>.<key>`), the lossless way first.
    pub fn remedy(&self, task: &str) -> Option<String> {
        Some(match self {
            Self::LostTail { stream, last, .. } => format!(
                "restore {stream} from a replica or backup; or `tapeline task reset {task} --yes` says everything again, \
                 where the whole input is there; or `tapeline task accept-loss {task} --yes` goes on at {}, without \
                 what was lost",
                last + 1
            ),
            Self::InputExpired { stream, first, .. } => format!(
                "restore {stream}; or `tapeline task accept-loss {task} --yes` goes on at its first message, {first}, \
                 without what expired (and raise its retention)"
            ),
            Self::InputRewritten { stream, seq, .. } => format!(
                "restore {stream}; or `tapeline task accept-loss {task} --yes` goes on behind {seq}, or behind its end \
                 where it ends before that"
            ),
            Self::Fenced { .. } => format!(
                "`tapeline task status {task}` says whether another instance runs: stop it, and start this one again; \
                 if none does, code or configuration changed behind the checkpoint: run again what wrote the outputs \
                 and stop it in peace, or `tapeline task accept-outputs {task} --yes` takes them as they are stored"
            ),
            Self::CheckpointFenced { .. } => {
                "another instance runs this task: stop one of the two; nothing is lost".to_owned()
            }
            Self::CodeVersion { found, .. } => format!(
                "start version {found} once more, stop it in peace (SIGTERM), then `tapeline task accept-version {task} \
                 --yes`; or `tapeline task reset {task} --yes` folds the whole input again"
            ),
            Self::CheckpointUnreadable { .. } => {
                format!("`tapeline task reset {task} --yes` drops it and folds the whole input again")
            }
            Self::CheckpointTooLarge { .. } => "raise max_payload of nats-server, and start the task again".to_owned(),
            Self::Core { .. } => {
                "this is a bug or an impossible input: nothing was written, report the place".to_owned()
            }
            _ => return None,
        })
    }
}

/// A halt as a stage ends with it: what was found, and what to do about exactly this task.
#[derive(Debug, thiserror::Error)]
#[error("{halt}; remedy: {remedy}")]
pub struct Halted {
    pub halt: BusError,
    pub remedy: String,
}

impl Halted {
    /// Adds the remedy to a halt of `task`; other trouble stays what it is.
    pub fn of(error: BusError, task: &str) -> anyhow::Error {
        match error.remedy(task) {
            Some(remedy) => Self { halt: error, remedy }.into(),
            None => error.into(),
        }
    }
}
