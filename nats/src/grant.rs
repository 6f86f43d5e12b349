//! An operator's word that lets a halt pass, once: `tapeline task accept-loss` and its like.
//!
//! It stands in KV `cfg`, where only operators write, and names the revision of the checkpoint that it is about. A
//! task that uses it writes a checkpoint at once, which moves the revision: so the word is spent by being used, also
//! when the task dies in between, and can never be used for a later halt.

use schemas::Version;
use schemas::subject::stream::KV_CONFIG;
use schemas::wire::{decode, encode};
use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::error::BusError;
use crate::kv;
use crate::task::Accept;

/// What an operator lets pass at the next start of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub v: Version,
    /// `<stage>.<key>`
    pub task: String,
    /// Revision of the task's checkpoint that this is about; 0 where there is none.
    pub revision: u64,
    /// See [`Accept`].
    #[serde(default)]
    pub loss: bool,
    #[serde(default)]
    pub version: bool,
    #[serde(default)]
    pub outputs: bool,
    pub by: String,
    pub reason: String,
    /// When the operator said so, wall clock.
    pub ts_ns: i64,
}

impl Grant {
    pub fn accept(&self) -> Accept {
        Accept { version: self.version, loss: self.loss, outputs: self.outputs }
    }
}

/// `accept.<stage>.<key>` in KV `cfg`.
pub fn key(task: &str) -> String {
    format!("accept.{task}")
}

/// Stores the operator's word for the next start of its task.
pub async fn give(bus: &Bus, grant: &Grant) -> Result<u64, BusError> {
    kv::put(bus, KV_CONFIG, &key(&grant.task), encode(grant).into()).await
}

/// The word about exactly this revision of the checkpoint, if an operator gave one.
pub async fn of(bus: &Bus, task: &str, revision: u64) -> Result<Option<Grant>, BusError> {
    let entry = match kv::get(bus, KV_CONFIG, &key(task)).await {
        Ok(entry) => entry,
        // A deployment without a configuration bucket has no operator's words.
        Err(BusError::StreamAbsent { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(entry) = entry else { return Ok(None) };
    match decode::<Grant>(&entry.value) {
        Ok(grant) => Ok((grant.task == task && grant.revision == revision).then_some(grant)),
        Err(error) => {
            // A word that cannot be read lets nothing pass.
            tracing::error!(task, error = %crate::bus::why(&error), "operator's word in KV cfg cannot be read");
            Ok(None)
        }
    }
}
