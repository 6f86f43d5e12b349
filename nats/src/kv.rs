//! Key-value entries: read from the leader, written with an acknowledgement. A bucket is the stream `KV_<bucket>`,
//! a key the subject `$KV.<bucket>.<key>`.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;

use crate::bus::{Bus, Trouble, absent};
use crate::error::BusError;
use crate::leader;
use crate::reader::Message;

/// An entry and its revision: its sequence in the bucket's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub revision: u64,
    pub value: Bytes,
}

/// What became of a write that named the revision it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Stored under this revision.
    Stored(u64),
    /// Somebody else moved the key first.
    Moved,
}

#[derive(Deserialize)]
struct PubAck {
    seq: u64,
}

pub fn stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}
pub fn subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The newest value; `None` when there is none or it was deleted.
pub async fn get(bus: &Bus, bucket: &str, key: &str) -> Result<Option<Entry>, BusError> {
    let found = leader::last_by_subject(bus, &stream(bucket), &subject(bucket, key)).await?;
    let Some(found) = found else { return Ok(None) };
    if found.payload.is_empty() {
        // Deleted entries are markers without a payload; none of our values is empty.
        return Ok(None);
    }
    Ok(Some(Entry { revision: found.seq, value: found.payload }))
}

/// Every revision that the bucket's history keeps, oldest first, deletions included (as empty payloads).
pub async fn history(bus: &Bus, bucket: &str, key: &str) -> Result<Vec<Message>, BusError> {
    let (stream, subject) = (stream(bucket), subject(bucket, key));
    let mut entries = Vec::new();
    let mut from = 1;
    // Bounded by the server: at most 64 revisions of a key are kept.
    while let Some(found) = leader::next_by_subject(bus, &stream, &subject, from).await? {
        from = found.seq + 1;
        entries.push(found);
    }
    Ok(entries)
}

/// Writes whatever is there now; returns the revision.
///
/// The write names the revision that it follows all the same: what is stored can then never be stored once more by
/// somebody who only has it delivered to this subject (a direct get's answer goes wherever its asker likes).
pub async fn put(bus: &Bus, bucket: &str, key: &str, value: Bytes) -> Result<u64, BusError> {
    put_with(bus, bucket, key, HeaderMap::new(), value).await
}

/// Like [`put`], with headers beside the value.
pub(crate) async fn put_with(
    bus: &Bus,
    bucket: &str,
    key: &str,
    headers: HeaderMap,
    value: Bytes,
) -> Result<u64, BusError> {
    let what = format!("put {key} in {bucket}");
    let attempt = || async {
        let newest = leader::last_by_subject(bus, &stream(bucket), &subject(bucket, key)).await;
        let newest = newest.map_err(|error| Trouble::Again(error.to_string()))?.map_or(0, |m| m.seq);
        let mut headers = headers.clone();
        headers.insert("Nats-Expected-Last-Subject-Sequence", newest.to_string().as_str());
        match send(bus, bucket, key, headers, value.clone()).await {
            // Somebody was quicker: behind theirs, then.
            Err(Trouble::Refused { code: 10071 | 10164, text }) => Err(Trouble::Again(text)),
            answer => answer,
        }
    };
    bus.patiently(&what, attempt).await.map_err(|error| absent(error, &stream(bucket)))
}

/// Writes only when the key has no value; `Moved` when it has.
pub async fn create(bus: &Bus, bucket: &str, key: &str, value: Bytes) -> Result<Put, BusError> {
    let last = leader::last_by_subject(bus, &stream(bucket), &subject(bucket, key)).await?;
    match last {
        Some(entry) if !entry.payload.is_empty() => Ok(Put::Moved),
        Some(marker) => update(bus, bucket, key, value, marker.seq).await,
        None => update(bus, bucket, key, value, 0).await,
    }
}

/// Writes only when `revision` is still the newest (0: the key never was). A lost acknowledgement is found out by
/// reading back: equal bytes behind `revision` are this write, so that writers who compete must not write equal ones.
pub async fn update(bus: &Bus, bucket: &str, key: &str, value: Bytes, revision: u64) -> Result<Put, BusError> {
    update_with(bus, bucket, key, HeaderMap::new(), value, revision).await
}

/// Marks the key as deleted when `revision` is still the newest. History keeps the marker.
pub async fn delete(bus: &Bus, bucket: &str, key: &str, revision: u64) -> Result<Put, BusError> {
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    update_with(bus, bucket, key, headers, Bytes::new(), revision).await
}

async fn update_with(
    bus: &Bus,
    bucket: &str,
    key: &str,
    headers: HeaderMap,
    value: Bytes,
    revision: u64,
) -> Result<Put, BusError> {
    let what = format!("update {key} in {bucket}");
    let attempt = || async {
        let mut headers = headers.clone();
        headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string().as_str());
        match send(bus, bucket, key, headers, value.clone()).await {
            Ok(stored) => Ok(Put::Stored(stored)),
            // 10071: the key moved. 10164: a cluster refuses it while another write is under way. Both also
            // happen when our first try was stored and its acknowledgement was lost.
            Err(Trouble::Refused { code: 10071 | 10164, text }) => {
                let newest = leader::last_by_subject(bus, &stream(bucket), &subject(bucket, key)).await;
                match newest {
                    Ok(Some(newest)) if newest.seq > revision && newest.payload == value => Ok(Put::Stored(newest.seq)),
                    Ok(Some(newest)) if newest.seq != revision => Ok(Put::Moved),
                    _ => Err(Trouble::Again(text)),
                }
            }
            Err(other) => Err(other),
        }
    };
    bus.patiently(&what, attempt).await.map_err(|error| absent(error, &stream(bucket)))
}

async fn send(bus: &Bus, bucket: &str, key: &str, headers: HeaderMap, value: Bytes) -> Result<u64, Trouble> {
    let ack: PubAck = bus.ask(&subject(bucket, key), Some(headers), value).await?;
    Ok(ack.seq)
}
