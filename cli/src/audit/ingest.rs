//! The audit of a recording: its files normalised again, beside the raw stream that was made of them.
//!
//! What a venue sent live is stored once, in the raw stream itself; there is nothing to compare it with.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use ingest::config::{Config, Source};
use ingest::recording::{Player, Tape};
use ingest::source::Job;
use nats::{Bus, Message, leader};
use schemas::Fact;
use schemas::config::UserFile;
use schemas::raw::{LinkEvent, Raw};
use schemas::subject::{self, PARTITIONS, stream};
use tokio::sync::mpsc;

use super::stored::{Shown, Stored, differences, same};
use super::task::{Divergence, Outcome};
use crate::cores::Said;
use crate::decode;

/// Facts handed over at once, and such chunks that wait.
const CHUNK_FACTS: usize = 256;
const CHUNKS_MAX: usize = 16;

/// One outcome for each venue that ingest reads.
pub async fn audit(
    bus: &Bus,
    user: Option<&UserFile>,
    only: Option<&str>,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Vec<Outcome>> {
    let config = Config::load(user)?;
    let mut outcomes = Vec::new();
    for (id, settings) in config.venues.iter().filter(|(id, v)| v.enabled && only.is_none_or(|only| only == *id)) {
        let raw = stream::raw(id);
        let outcome = Outcome::new(&format!("ingest.{id}"), "", &raw);
        if settings.source == Source::Venue {
            outcomes.push(outcome.skip("what the venue sent is stored once, in this stream: nothing to compare with"));
            continue;
        }
        let partitions = nats::layout::partitions(bus, id).await?.unwrap_or(PARTITIONS);
        let job = Job::of(id, settings, &config, partitions);
        outcomes.push(recording(bus, job, outcome, &mut progress).await?);
    }
    Ok(outcomes)
}

async fn recording(
    bus: &Bus,
    job: Job,
    mut outcome: Outcome,
    progress: &mut impl FnMut(u64, u64),
) -> anyhow::Result<Outcome> {
    let raw = outcome.output.clone();
    outcome.input = job.files.iter().map(|(_, path)| file_name(path)).collect::<Vec<_>>().join(", ");
    let last = match bus.stream(&raw).await {
        Ok(state) => state.last_seq,
        Err(nats::BusError::StreamAbsent { .. }) => return Ok(outcome.skip(format!("no stream {raw}"))),
        Err(error) => return Err(error.into()),
    };
    let Some((first, name)) = beginning(bus, &raw, &subject::link(&job.venue), &outcome.input).await? else {
        let why = format!("{raw} holds no recording of {}", outcome.input);
        return Ok(outcome.skip(why));
    };
    let mut stored = Stored::open(bus, &raw, first, last).await?;
    let (out, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let player = tokio::task::spawn_blocking(move || play(&job, &name, &out));
    let mut k = first;
    while let Some(chunk) = chunks.recv().await {
        for said in chunk {
            if last < k {
                outcome.ahead += 1;
                continue;
            }
            match stored.at(k).await? {
                None => outcome.passed += 1,
                Some(found) if same(&found, &said) => outcome.compared += 1,
                Some(found) => {
                    outcome.divergence = Some(divergence(&raw, &found, &said));
                    return Ok(outcome);
                }
            }
            k += 1;
        }
        outcome.inputs = k - first;
        progress(outcome.inputs, last + 1 - first);
    }
    player.await.context("play the recording")??;
    Ok(outcome)
}

fn divergence(raw: &str, found: &Message, said: &Said) -> Divergence {
    Divergence {
        position: format!("{raw}:{}", found.seq),
        input: None,
        stored: Some(Shown::stored(raw, found)),
        folded: Some(Shown::said(said)),
        differs: differences(&decode::json_of(&found.payload), &decode::json_of(&said.payload)),
        why: "other bytes".to_owned(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Where the recording of these files begins, and its whole name there.
async fn beginning(bus: &Bus, raw: &str, link: &str, files: &str) -> anyhow::Result<Option<(u64, String)>> {
    let mut from = 1;
    // Bounded by the stream: link facts are one a connection or recording.
    while let Some(found) = leader::next_by_subject(bus, raw, link, from).await? {
        from = found.seq + 1;
        let fact = LinkEvent::decode(&found.payload).context("read a link fact")?;
        let ours = fact.reason.strip_prefix(files).is_some_and(|rest| rest.starts_with("; sha256 "));
        if fact.link == "recording" && fact.event == "connected" && ours {
            return Ok(Some((found.seq, fact.reason)));
        }
    }
    Ok(None)
}

/// Reads, decodes and packs, on a thread that may block; ends early when nobody listens any more.
fn play(job: &Job, name: &str, out: &mpsc::Sender<Vec<Said>>) -> anyhow::Result<()> {
    let files = job.files.iter().map(|(symbol, path)| Ok((symbol.clone(), open(path)?)));
    let files: Vec<_> = files.collect::<anyhow::Result<_>>()?;
    let mut tape = Tape::new(job.form, job.line_bytes_max, files);
    let mut player = Player::new(&job.venue, ingest::venue::by_id(&job.venue), job.options.clone());
    let mut facts: Vec<Raw> = Vec::new();
    let mut begun = false;
    let hand_over = |facts: &mut Vec<Raw>| {
        let said = facts.drain(..).map(|fact| Said { subject: fact.subject(), payload: fact.encode() }).collect();
        out.blocking_send(said).is_ok()
    };
    while let Some(entry) = tape.next_entry().context("read the recording")? {
        if !begun {
            player.begin(name, entry.recv, &mut facts);
            begun = true;
        }
        player.take(entry, &mut facts);
        if facts.len() >= CHUNK_FACTS && !hand_over(&mut facts) {
            return Ok(());
        }
    }
    player.finish(name, &mut facts);
    hand_over(&mut facts);
    Ok(())
}

/// Plain or gzip, told by the first bytes.
fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let mut file =
        BufReader::with_capacity(1 << 16, File::open(path).with_context(|| format!("open {}", path.display()))?);
    let gz = file.fill_buf().with_context(|| format!("read {}", path.display()))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gz { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}
