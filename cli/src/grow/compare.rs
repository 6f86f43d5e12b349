//! Whether two streams hold the same, and whether a sequencer has heard everything: by reading them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::message::StreamMessage;
use indicatif::ProgressBar;
use nats::reader::Message;
use nats::{Bus, Reader, leader};

use super::view::StreamView;

/// Which message of which stream a sequencer's message was: `<stream> <sequence> ...`.
const SOURCE: &str = "Nats-Stream-Source";

/// What a publisher expected of the position: nats-server drops it from what it mirrors.
const EXPECTED: &str = "Nats-Expected-";

/// Every message of the frozen stream: sequence, time, subject and bytes are equal on both sides; of the first and
/// the last one the headers too, but for what was expected of their positions. Streams whose messages expire one by one are compared by their end only.
pub async fn same(old: &Bus, new: &Bus, stream: &StreamView, bar: &ProgressBar) -> anyhow::Result<()> {
    let name = &stream.name;
    let (there, here) = (old.stream(name).await?, new.stream(name).await?);
    ensure!(
        there.last_seq == here.last_seq && there.last_seq == stream.last_seq,
        "the old stream ends at {}, the mirror at {}",
        there.last_seq,
        here.last_seq
    );
    if there.messages == 0 || stream.forgets() {
        return Ok(());
    }
    let mut left = Reader::open(old, name, ">", 0).await?;
    let mut right = Reader::open(new, name, ">", 0).await?;
    let (mut a, mut b) = (left.next().await?, right.next().await?);
    let first = loop {
        if a.seq == b.seq {
            break a.seq;
        }
        // Retention works on both sides, not at the same instant: what only one side still has must be about to go.
        let floor = old.stream(name).await?.first_seq.max(new.stream(name).await?.first_seq);
        let behind = if a.seq < b.seq { &mut a } else { &mut b };
        ensure!(behind.seq < floor, "sequence {} is on one side only", behind.seq);
        if a.seq < b.seq { a = left.next().await? } else { b = right.next().await? }
    };
    loop {
        equal(&a, &b)?;
        bar.inc(1);
        if a.seq >= stream.last_seq {
            break;
        }
        (a, b) = tokio::try_join!(left.next(), right.next())?;
    }
    for seq in [first, stream.last_seq] {
        let (a, b) = (whole(old, name, seq).await?, whole(new, name, seq).await?);
        ensure!(headers(&a) == headers(&b), "sequence {seq} has other headers");
    }
    Ok(())
}

fn equal(a: &Message, b: &Message) -> anyhow::Result<()> {
    ensure!(a.seq == b.seq, "sequence {} follows on one side, {} on the other", a.seq, b.seq);
    ensure!(a.subject == b.subject, "sequence {} is {} and {}", a.seq, a.subject, b.subject);
    ensure!(a.payload == b.payload, "sequence {} ({}) has other bytes", a.seq, a.subject);
    ensure!(a.time_ns == b.time_ns, "sequence {} was stored at {} and {}", a.seq, a.time_ns, b.time_ns);
    Ok(())
}

fn headers(message: &StreamMessage) -> BTreeMap<String, Vec<String>> {
    let lasting = message.headers.iter().filter(|(name, _)| !name.to_string().starts_with(EXPECTED));
    lasting.map(|(name, values)| (name.to_string(), values.iter().map(|v| v.as_str().to_owned()).collect())).collect()
}

/// Sources of a sequencer whose last message it has not stored, each as a sentence; the sources are frozen.
pub async fn unheard(bus: &Bus, desk: &StreamView) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (source, filters, start) in desk.sources() {
        let filters = if filters.is_empty() { vec![">".to_owned()] } else { filters };
        let mut last: Option<Message> = None;
        for filter in &filters {
            let found = leader::last_by_subject(bus, &source, filter).await?;
            if found.as_ref().map(|m| m.seq) > last.as_ref().map(|m| m.seq) {
                last = found;
            }
        }
        let Some(last) = last.filter(|m| m.seq >= start) else { continue };
        if !heard(bus, desk, &source, &last).await? {
            missing.push(format!("{} has not heard {source}:{}", desk.name, last.seq));
        }
    }
    Ok(missing)
}

/// Subjects of sources are disjoint, and a sequencer keeps them: its newest message of that subject is the one.
async fn heard(bus: &Bus, desk: &StreamView, source: &str, last: &Message) -> anyhow::Result<bool> {
    let Some(copy) = leader::last_by_subject(bus, &desk.name, &last.subject).await? else {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_nanos() as i64;
        // Gone by the sequencer's own retention.
        return Ok(desk.max_age_ns() > 0 && now_ns - last.time_ns > desk.max_age_ns());
    };
    let copy = whole(bus, &desk.name, copy.seq).await?;
    let Some(from) = copy.headers.get(SOURCE) else {
        bail!("{}:{} does not say where it came from", desk.name, copy.sequence)
    };
    let mut words = from.as_str().split(' ');
    Ok(words.next() == Some(source) && words.next().and_then(|seq| seq.parse().ok()) == Some(last.seq))
}

async fn whole(bus: &Bus, stream: &str, seq: u64) -> anyhow::Result<StreamMessage> {
    let handle = bus.js().get_stream_no_info(stream).await.with_context(|| format!("name {stream}"))?;
    handle.get_raw_message(seq).await.with_context(|| format!("read {stream}:{seq}"))
}
