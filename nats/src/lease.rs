//! Leases: which instance of a stage runs a task, so that another takes over within seconds of a death.
//!
//! A lease is an entry of KV `lease` that the server forgets after its TTL; its holder renews it by compare-and-set.
//! It is advisory: it keeps two instances from doing the same work, and is never what makes the outputs right. That
//! is the positioned log, where a holder that outlived its lease finds its positions taken.
//!
//! Entries are published with `Nats-TTL` by hand: the client's `kv.update` drops the TTL, after which a lease would
//! never end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use schemas::Version;
use schemas::subject::stream::KV_LEASE;
use schemas::wire::{decode, encode};
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, Trouble};
use crate::config::ms;
use crate::error::BusError;
use crate::kv;
use crate::leader;
use crate::reader::Message;

pub mod host;
pub mod share;

/// What a lease's entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    v: Version,
    /// Of the instance, new at every start.
    id: String,
}

/// What an instance says of itself beside its leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Presence {
    v: Version,
    id: String,
    tasks: Vec<String>,
    held: usize,
    /// 0: no limit.
    quota: usize,
}

/// A task that this instance may run until [`Lease::ends`].
pub struct Lease {
    bus: Bus,
    key: String,
    value: Bytes,
    revision: u64,
    /// When the last renewal that the server stored was sent: it lives at least its TTL from then.
    renewed: Instant,
}

/// Key of a task's lease: `<stage>.task.<key>`.
pub fn task_key(stage: &str, task: &str) -> String {
    format!("{stage}.task.{task}")
}

/// Key of an instance's presence: `<stage>.member.<id>`.
pub fn member_key(stage: &str, id: &str) -> String {
    format!("{stage}.member.{id}")
}

impl Lease {
    /// Takes the lease of a task that nobody holds. `revision`: of the marker that stands there, 0 for none. `None`:
    /// somebody was faster.
    pub async fn claim(bus: &Bus, task: &str, id: &str, revision: u64) -> Result<Option<Self>, BusError> {
        let value: Bytes = encode(&Holder { v: Version, id: id.to_owned() }).into();
        let key = task_key(bus.stage(), task);
        let mut lease = Self { bus: bus.clone(), key, value, revision, renewed: Instant::now() };
        Ok(lease.renew().await?.then_some(lease))
    }

    /// When work has to stop unless the lease is renewed, on the monotonic clock.
    pub fn ends(&self) -> Instant {
        let config = &self.bus.config().lease;
        self.renewed + Duration::from_secs(config.ttl_s) - ms(config.margin_ms)
    }

    /// When it should be renewed.
    pub fn due(&self) -> Instant {
        self.renewed + ms(self.bus.config().lease.renew_ms)
    }

    /// One more TTL from now. False: somebody else holds it. Ends within the lease's own time, by an error when the
    /// server does not answer.
    pub async fn renew(&mut self) -> Result<bool, BusError> {
        let bound = ms(self.bus.config().lease.renew_ms.max(250) * 2);
        let unanswered =
            || BusError::Unreachable { what: format!("renew lease {}", self.key), waited_ms: bound.as_millis() as u64 };
        match tokio::time::timeout(bound, self.store()).await {
            Ok(Ok((revision, sent))) => {
                (self.revision, self.renewed) = (revision, sent);
                Ok(true)
            }
            Ok(Err(Trouble::Refused { code: 10071, .. })) => Ok(false),
            Ok(Err(Trouble::Refused { code, text })) => Err(crate::bus::absent(
                BusError::Refused { what: format!("renew lease {}", self.key), code, text },
                &kv::stream(KV_LEASE),
            )),
            Ok(Err(Trouble::Again(_))) | Err(_) => Err(unanswered()),
        }
    }

    /// The revision under which the entry stands now, and when it was sent.
    async fn store(&self) -> Result<(u64, Instant), Trouble> {
        let ttl = Duration::from_secs(self.bus.config().lease.ttl_s);
        let mut revision = self.revision;
        // Three: our own write whose acknowledgement was lost, found by reading back, and one more for a cluster
        // that still has it under way.
        for _ in 0..3 {
            let sent = Instant::now();
            match put(&self.bus, &self.key, self.value.clone(), ttl, Some(revision)).await {
                Ok(revision) => return Ok((revision, sent)),
                Err(Trouble::Refused { code: 10071 | 10164, text }) => {
                    let (stream, subject) = (kv::stream(KV_LEASE), kv::subject(KV_LEASE, &self.key));
                    match leader::last_by_subject(&self.bus, &stream, &subject).await {
                        Ok(Some(there)) if there.payload == self.value => revision = there.seq,
                        _ => return Err(Trouble::Refused { code: 10071, text }),
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Err(Trouble::Again("the entry moves".to_owned()))
    }

    /// Gives it back, so that another instance need not wait for its end.
    pub async fn release(self) {
        let mut headers = ttl_header(Duration::from_secs(1));
        headers.insert("KV-Operation", "DEL");
        headers.insert("Nats-Expected-Last-Subject-Sequence", self.revision.to_string().as_str());
        let bound = ms(self.bus.config().lease.renew_ms);
        let send = ask(&self.bus, &self.key, headers, Bytes::new());
        if !matches!(tokio::time::timeout(bound, send).await, Ok(Ok(_))) {
            // It ends by itself within its TTL.
            tracing::debug!(key = self.key, "lease not given back");
        }
    }
}

/// Everything in the bucket about one stage.
#[derive(Clone, Debug, Default)]
struct Seen {
    members: Vec<Presence>,
    /// Task to the instance that holds it.
    holders: BTreeMap<String, String>,
    /// Task to the revision of what stands in place of a lease that ended.
    markers: BTreeMap<String, u64>,
}

/// Reads the stage's entries from the leader, one after the other. Not by direct get, though that were one request: who
/// may ask for one can have any stored bytes answered into a stream, and whoever renews leases writes such bytes
/// (`tests/it/rights.rs`).
async fn look(bus: &Bus) -> Result<Seen, BusError> {
    let (stream, prefix) = (kv::stream(KV_LEASE), kv::subject(KV_LEASE, &format!("{}.", bus.stage())));
    let (filter, entries_max) = (format!("{prefix}>"), bus.config().lease.entries_max);
    let what = || format!("leases of {}", bus.stage());
    let read = async {
        let (mut seen, mut from) = (Seen::default(), 1);
        for _ in 0..entries_max {
            let Some(entry) = leader::next_by_subject(bus, &stream, &filter, from).await? else { return Ok(seen) };
            from = entry.seq + 1;
            seen.hear(entry.subject.strip_prefix(&prefix).unwrap_or_default(), &entry);
        }
        Err(BusError::Config(format!("{}: more than lease.entries_max = {entries_max} entries", what())))
    };
    let bound = ms(bus.config().lease.renew_ms.max(250) * 2);
    let late = |_| BusError::Unreachable { what: what(), waited_ms: bound.as_millis() as u64 };
    tokio::time::timeout(bound, read).await.map_err(late)?
}

impl Seen {
    /// `kind.key` of an entry, and what stands there; a later entry of the same key replaces an earlier one.
    fn hear(&mut self, name: &str, entry: &Message) {
        let Some((kind, key)) = name.split_once('.') else { return };
        match kind {
            "task" if entry.payload.is_empty() => {
                self.holders.remove(key);
                self.markers.insert(key.to_owned(), entry.seq);
            }
            "task" => {
                // Whoever wrote what we cannot read holds it as well.
                let id = decode::<Holder>(&entry.payload).map_or_else(|_| "?".to_owned(), |holder| holder.id);
                self.markers.remove(key);
                self.holders.insert(key.to_owned(), id);
            }
            "member" => {
                self.members.retain(|member| member.id != key);
                self.members.extend(decode::<Presence>(&entry.payload).ok());
            }
            _ => {}
        }
    }
}

/// Says that this instance lives, what it would run and how much it holds.
async fn attend(bus: &Bus, presence: &Presence) -> Result<(), Trouble> {
    let ttl = Duration::from_secs(bus.config().lease.ttl_s);
    let key = member_key(bus.stage(), &presence.id);
    put(bus, &key, encode(presence).into(), ttl, None).await.map(drop)
}

/// Takes that back.
async fn leave(bus: &Bus, id: &str) {
    let mut headers = ttl_header(Duration::from_secs(1));
    headers.insert("KV-Operation", "DEL");
    let bound = ms(bus.config().lease.renew_ms);
    if !matches!(
        tokio::time::timeout(bound, ask(bus, &member_key(bus.stage(), id), headers, Bytes::new())).await,
        Ok(Ok(_))
    ) {
        tracing::debug!(id, "presence not taken back; it ends by itself");
    }
}

async fn put(bus: &Bus, key: &str, value: Bytes, ttl: Duration, revision: Option<u64>) -> Result<u64, Trouble> {
    let mut headers = ttl_header(ttl);
    if let Some(revision) = revision {
        headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string().as_str());
    }
    ask(bus, key, headers, value).await
}

fn ttl_header(ttl: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-TTL", format!("{}s", ttl.as_secs()).as_str());
    headers
}

async fn ask(bus: &Bus, key: &str, headers: HeaderMap, value: Bytes) -> Result<u64, Trouble> {
    #[derive(Deserialize)]
    struct PubAck {
        seq: u64,
    }
    let ack: PubAck = bus.ask(&kv::subject(KV_LEASE, key), Some(headers), value).await?;
    Ok(ack.seq)
}
