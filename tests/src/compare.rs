//! Two servers' streams side by side, one fact of each at a time.

use std::time::Duration;

use anyhow::Context;
use nats::{Bus, Message, Reader};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::session::Tables;

/// How long a reader may wait for the next stored fact.
const READ_BOUND: Duration = Duration::from_secs(60);

/// One stream of both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    pub stream: String,
    /// Facts that are equal, from the first on.
    pub facts: u64,
    /// Over the subjects and payloads of those facts.
    pub sha256: String,
    /// The first one, with both facts decoded.
    pub difference: Option<String>,
}

/// Compares sequence, subject and payload of every fact. Headers are the writers' own business.
pub async fn stream(expected: &Bus, found: &Bus, name: &str) -> anyhow::Result<Compared> {
    let ends = (expected.stream(name).await?.last_seq, found.stream(name).await?.last_seq);
    up_to(expected, found, name, ends).await
}

/// Like [`stream`], of a run that was ended behind `last`.
pub async fn beginning(expected: &Bus, found: &Bus, name: &str, last: u64) -> anyhow::Result<Compared> {
    let there = found.stream(name).await?.last_seq;
    up_to(expected, found, name, (last, there)).await
}

/// The first difference in what both stored of a stream so far, if there is one.
pub async fn so_far(expected: &Bus, found: &Bus, name: &str) -> anyhow::Result<Option<String>> {
    let both = expected.stream(name).await?.last_seq.min(found.stream(name).await?.last_seq);
    Ok(up_to(expected, found, name, (both, both)).await?.difference)
}

async fn up_to(expected: &Bus, found: &Bus, name: &str, ends: (u64, u64)) -> anyhow::Result<Compared> {
    let both = ends.0.min(ends.1);
    let mut hash = Sha256::new();
    let mut facts = 0;
    let mut difference = None;
    let mut one = Reader::open(expected, name, ">", 1).await?;
    let mut other = Reader::open(found, name, ">", 1).await?;
    while facts < both {
        let (e, f) = (next(&mut one).await?, next(&mut other).await?);
        if (e.seq, &e.subject, &e.payload) != (f.seq, &f.subject, &f.payload) {
            difference = Some(format!("{name}: expected {}\n{name}: found    {}", text(&e), text(&f)));
            break;
        }
        hash.update(e.subject.as_bytes());
        hash.update((e.payload.len() as u64).to_be_bytes());
        hash.update(&e.payload);
        facts += 1;
    }
    if difference.is_none() && ends.0 != ends.1 {
        let (reader, word) = if ends.0 > ends.1 { (&mut one, "missing") } else { (&mut other, "too many") };
        let first = text(&next(reader).await?);
        difference = Some(format!("{name}: {} facts expected, {} found; first {word}: {first}", ends.0, ends.1));
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Compared { stream: name.to_owned(), facts, sha256, difference })
}

async fn next(reader: &mut Reader) -> anyhow::Result<Message> {
    Ok(tokio::time::timeout(READ_BOUND, reader.next()).await.context("a stored fact does not come")??)
}

/// Where a fact stands and what it says.
fn text(message: &Message) -> String {
    let payload = &message.payload;
    let json = rmp_serde::from_slice::<serde_json::Value>(payload)
        .map_or_else(|_| format!("{payload:?}"), |value| value.to_string());
    format!("{} {} {json}", message.seq, message.subject)
}

/// The first row in which two ledgers differ.
pub fn tables(expected: &Tables, found: &Tables) -> Option<String> {
    for (name, rows) in expected {
        let others = found.get(name).map(Vec::as_slice).unwrap_or_default();
        if let Some((e, f)) = rows.iter().zip(others).find(|(e, f)| e != f) {
            return Some(format!("table {name}: expected {e:?}\ntable {name}: found    {f:?}"));
        }
        if rows.len() != others.len() {
            return Some(format!("table {name}: {} rows expected, {} found", rows.len(), others.len()));
        }
    }
    None
}
