//! Why the bus stops a task, in words that say what to do.

use schemas::{Fault, WireError};

/// Trouble on the bus. `Fenced`, `LostTail`, `InputExpired`, `InputRewritten`, `CodeVersion` and
/// `CheckpointUnreadable` are halts: repeating does not help, and the text names the remedy.
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
        "no revision of checkpoint {key} can be read ({why}); delete the key to fold the input again from its beginning"
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
}
