//! The checkpoint: a core's state with the positions it belongs to, in one KV entry, written behind the
//! acknowledged outputs by compare-and-set.

use bytes::Bytes;
use schemas::wire::{decode, encode};
use schemas::{Core, WireError};
use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::error::BusError;
use crate::grant::{self, Grant};
use crate::kv::{self, Put};
use crate::reader::Message;
use crate::task::Accept;

pub const BUCKET: &str = schemas::subject::stream::KV_CHECKPOINT;
const MAGIC: &[u8; 4] = b"TLC1";

/// Where a task stands. Free of wall time, so that two instances at the same place write the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub code_version: u32,
    pub input: String,
    pub filter: String,
    pub output: String,
    /// The last input that was folded.
    pub in_seq: u64,
    /// [`message_id`] of that input; 0 where it was not read (a fresh task behind expired messages).
    pub in_id: u64,
    /// The last output that was acknowledged.
    pub out_seq: u64,
    /// The last time that an operator let a halt of this task pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
}

/// What an operator let pass, kept in every later checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Names of the halts, see [`BusError::halt`].
    pub halts: Vec<String>,
    /// Where the task went on: behind this input,
    pub in_seq: u64,
    /// and behind this output.
    pub out_seq: u64,
    pub by: String,
    pub reason: String,
}

/// A header with the core's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub header: Header,
    pub state: Vec<u8>,
}

impl Checkpoint {
    /// Magic, length of the header, header, state, and an FNV-1a-64 sum over all of it.
    pub fn to_bytes(&self) -> Bytes {
        let header = encode(&self.header);
        let mut bytes = Vec::with_capacity(header.len() + self.state.len() + 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.state);
        let sum = fnv64(0, &bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        bytes.into()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let damaged = || WireError::invalid("damaged checkpoint");
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        if fnv64(0, body) != u64::from_be_bytes(*sum) {
            return Err(damaged());
        }
        let rest = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(damaged)?;
        Ok(Self { header: decode(header)?, state: rest[length..].to_vec() })
    }
}

/// Key of a task's checkpoint: `<stage>.<task>`.
pub fn key(stage: &str, task: &str) -> String {
    format!("{stage}.{task}")
}

/// A cheap identity of a stored message: FNV-1a-64 over subject and payload, never 0.
pub fn message_id(message: &Message) -> u64 {
    let subject = fnv64(0, message.subject.as_bytes());
    fnv64(fnv64(subject, &[0]), &message.payload).max(1)
}

fn fnv64(seed: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What the bucket holds of a task.
pub struct Loaded {
    /// Revision that the next write has to expect, whichever revision was readable.
    pub revision: u64,
    /// The newest readable checkpoint. Its state is in the core, unless its code version is another and not accepted.
    pub header: Option<Header>,
    /// What passes: the arguments' word and the operator's together.
    pub accept: Accept,
    /// The operator's word about this revision.
    pub grant: Option<Grant>,
}

/// Puts the newest readable revision into `core`. A damaged revision is passed over for the one before it: the
/// outputs in between are regenerated and compared.
pub async fn load<C: Core>(bus: &Bus, key: &str, core: &mut C, accept: Accept) -> Result<Loaded, BusError> {
    let history = history(bus, key).await?;
    let grant = grant::of(bus, key, history.revision).await?;
    let accept = accept.and(grant.as_ref().map(Grant::accept).unwrap_or_default());
    let revision = history.revision;
    let mut trouble = None;
    for (seq, read) in history.newest_first {
        let restored = read.and_then(|found| {
            if found.header.code_version == C::CODE_VERSION || accept.version {
                core.restore(&found.state)?;
            }
            Ok(found.header)
        });
        match restored {
            Ok(header) => return Ok(Loaded { revision, header: Some(header), accept, grant }),
            Err(error) => {
                let why = crate::bus::why(&error);
                tracing::error!(key, revision = seq, why, "checkpoint cannot be read, trying the one before it");
                trouble.get_or_insert(why);
            }
        }
    }
    match trouble {
        Some(why) => Err(BusError::CheckpointUnreadable { key: key.to_owned(), why }),
        None => Ok(Loaded { revision, header: None, accept, grant }),
    }
}

/// The revisions of a checkpoint that count.
pub struct History {
    /// Of the newest entry, whatever it is; 0 where there never was one.
    pub revision: u64,
    /// When the newest entry was stored, wall clock; 0 where there never was one.
    pub stored_ns: i64,
    /// Revision and contents, newest first, up to where an operator dropped them.
    pub newest_first: Vec<(u64, Result<Checkpoint, WireError>)>,
}

/// Reads what the bucket keeps of a checkpoint.
pub async fn history(bus: &Bus, key: &str) -> Result<History, BusError> {
    let kept = kv::history(bus, BUCKET, key).await?;
    let (revision, stored_ns) = kept.last().map_or((0, 0), |newest| (newest.seq, newest.time_ns));
    let newest_first = kept
        .iter()
        .rev()
        // Dropped by an operator: what is older does not count.
        .take_while(|entry| !entry.payload.is_empty())
        .map(|entry| (entry.seq, Checkpoint::from_bytes(&entry.payload)))
        .collect();
    Ok(History { revision, stored_ns, newest_first })
}

/// Drops the checkpoint by a marker behind `revision`; gives the marker's. What is older does not count from then on.
pub async fn drop_behind(bus: &Bus, key: &str, revision: u64) -> Result<u64, BusError> {
    match kv::delete(bus, BUCKET, key, revision).await? {
        Put::Stored(revision) => Ok(revision),
        Put::Moved => Err(BusError::CheckpointFenced { key: key.to_owned() }),
    }
}

/// Writes behind `revision`; gives the new one. [`BusError::CheckpointFenced`] when another instance was faster
/// and wrote other bytes.
pub async fn store(bus: &Bus, key: &str, checkpoint: &Checkpoint, revision: u64) -> Result<u64, BusError> {
    let bytes = checkpoint.to_bytes();
    // Headers need a little of it as well.
    let max = bus.client().max_payload().saturating_sub(512);
    if bytes.len() > max {
        return Err(BusError::CheckpointTooLarge { key: key.to_owned(), bytes: bytes.len(), max });
    }
    match kv::update(bus, BUCKET, key, bytes, revision).await? {
        Put::Stored(revision) => Ok(revision),
        Put::Moved => Err(BusError::CheckpointFenced { key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(state: Vec<u8>) -> Checkpoint {
        let header = Header {
            code_version: 3,
            input: "RAW_X".into(),
            filter: "raw.0.x.>".into(),
            output: "AGG_X_0".into(),
            in_seq: 9,
            in_id: 77,
            out_seq: 4,
            accepted: None,
        };
        Checkpoint { header, state }
    }

    proptest! {
        #[test]
        fn a_checkpoint_reads_back_as_written(state in proptest::collection::vec(any::<u8>(), 0..200)) {
            let checkpoint = sample(state);
            prop_assert_eq!(Checkpoint::from_bytes(&checkpoint.to_bytes()).unwrap(), checkpoint);
        }

        #[test]
        fn any_damaged_byte_is_noticed(at in 0usize..150, flip in 1u8..=255) {
            let mut bytes = sample(vec![5; 64]).to_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Checkpoint::from_bytes(&bytes).is_err());
        }

        #[test]
        fn a_cut_checkpoint_is_noticed(keep in 0usize..100) {
            let bytes = sample(vec![5; 64]).to_bytes();
            prop_assert!(Checkpoint::from_bytes(&bytes[..keep.min(bytes.len() - 1)]).is_err());
        }
    }
}
