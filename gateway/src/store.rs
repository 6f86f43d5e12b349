//! Stored facts without consumers: direct gets in batches. The gateway's user may not create consumers (a push
//! consumer could speak for it), and what it reads is for screens, so any replica's answer will do.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use nats::Bus;
use serde_json::{Value, json};

/// Messages of one answer.
const BATCH: usize = 256;
/// How long the server may be silent inside an answer.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A stored fact.
#[derive(Debug, Clone)]
pub struct Stored {
    pub seq: u64,
    pub subject: String,
    pub payload: Bytes,
    /// When it was stored, RFC 3339 as the server wrote it.
    pub time: String,
}

/// Where a batch starts.
#[derive(Clone, Debug)]
pub enum From {
    Seq(u64),
    /// RFC 3339.
    Time(String),
}

/// Up to 256 messages whose subject matches `filter`, oldest first; empty: there is none from there on.
pub async fn batch(bus: &Bus, stream: &str, filter: &str, from: &From) -> anyhow::Result<Vec<Stored>> {
    let mut request = json!({"next_by_subj": filter, "batch": BATCH});
    match from {
        From::Seq(seq) => request["seq"] = json!(seq),
        From::Time(time) => request["start_time"] = json!(time),
    }
    ask(bus, stream, request).await
}

/// The newest message of one subject.
pub async fn last(bus: &Bus, stream: &str, subject: &str) -> anyhow::Result<Option<Stored>> {
    Ok(ask(bus, stream, json!({"multi_last": [subject]})).await?.pop())
}

async fn ask(bus: &Bus, stream: &str, request: Value) -> anyhow::Result<Vec<Stored>> {
    let client = bus.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.context("subscribe to the answer")?;
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(subject, inbox, request.to_string().into()).await.context("ask for stored facts")?;
    let mut found = Vec::new();
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, answers.next()).await;
        let message = next.with_context(|| format!("stream {stream} did not answer"))?.context("connection closed")?;
        match message.status.map(|s| s.as_u16()) {
            // 204: end of the batch. 404: nothing there.
            Some(204 | 404) => return Ok(found),
            Some(code) => bail!("stream {stream} answered {code} {}", message.description.unwrap_or_default()),
            None => found.push(stored(message.headers.unwrap_or_default(), message.payload)?),
        }
    }
}

fn stored(headers: HeaderMap, payload: Bytes) -> anyhow::Result<Stored> {
    let header = |name: &str| {
        headers.get(name).map(|v| v.as_str().to_owned()).with_context(|| format!("the answer lacks {name}"))
    };
    Ok(Stored {
        seq: header("Nats-Sequence")?.parse().context("read Nats-Sequence")?,
        subject: header("Nats-Subject")?,
        payload,
        time: header("Nats-Time-Stamp")?,
    })
}
