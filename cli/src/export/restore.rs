//! `tapeline import --form tables`: what `tapeline export` wrote, back into streams at the same sequences.
//!
//! A stream's files are read twice: first to see that they hold exactly the bytes of the manifest's fingerprint, then to
//! store them. What the stream holds already is compared, so a stopped import goes on where it was.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::stream::Config as StreamConfig;
use nats::{Bus, BusError, Writer};

use super::parquet;
use super::table::Message;
use super::{Fingerprint, MANIFEST, Manifest, Piece};

/// What an import of one stream did.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Restored {
    pub stream: String,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Rows and messages in the files.
    pub rows: u64,
    pub messages: u64,
    /// Of these, stored by this import; the others were there with the same bytes.
    pub stored: u64,
    pub sha256: String,
}

/// The stream folders in `dir`, or `dir` itself.
pub fn folders(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if dir.join(MANIFEST).is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.join(MANIFEST).is_file() {
            found.push(path);
        }
    }
    found.sort();
    ensure!(
        !found.is_empty(),
        "{} holds no export: no {MANIFEST} in it or below (an unfinished one ends in .part)",
        dir.display()
    );
    Ok(found)
}

/// Imports one stream; makes it, as it was configured, where it is absent. `progress` hears messages stored and in all.
pub async fn restore(bus: &Bus, folder: &Path, progress: impl Fn(u64, u64)) -> anyhow::Result<Restored> {
    let manifest = manifest(folder)?;
    let stream = manifest.stream.clone();
    let (rows, messages, sha256) = check(folder, &manifest)?;
    let stored = if messages == 0 { 0 } else { store(bus, folder, &manifest, progress).await? };
    Ok(Restored { stream, first_seq: manifest.first_seq, last_seq: manifest.last_seq, rows, messages, stored, sha256 })
}

fn manifest(folder: &Path) -> anyhow::Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is no manifest", path.display()))?;
    ensure!(
        manifest.v == parquet::FORM,
        "{} has form {}, this program reads {}",
        path.display(),
        manifest.v,
        parquet::FORM
    );
    let span = manifest.last_seq.checked_sub(manifest.first_seq).map(|n| n + 1);
    let whole = manifest.messages == 0 || (manifest.first_seq > 0 && span == Some(manifest.messages));
    ensure!(
        whole,
        "{} had holes when it was exported ({} messages in {}..={}): they cannot stand at the same sequences again",
        manifest.stream,
        manifest.messages,
        manifest.first_seq,
        manifest.last_seq
    );
    Ok(manifest)
}

/// Reads everything once: rows, messages, fingerprint, all as the manifest says.
fn check(folder: &Path, manifest: &Manifest) -> anyhow::Result<(u64, u64, String)> {
    let mut merge = Merge::new(folder, manifest);
    let (mut messages, mut fingerprint) = (0, Fingerprint::default());
    while let Some(message) = merge.next()? {
        ensure!(message.seq == manifest.first_seq + messages, "message {} is missing", manifest.first_seq + messages);
        fingerprint.add(message.seq, &message.subject, &message.payload);
        messages += 1;
    }
    let sha256 = fingerprint.hex();
    ensure!(
        (messages, merge.rows) == (manifest.messages, manifest.rows),
        "{} holds {messages} messages in {} rows, its manifest says {} in {}",
        folder.display(),
        merge.rows,
        manifest.messages,
        manifest.rows
    );
    ensure!(
        sha256 == manifest.sha256,
        "{} was changed since its export (fingerprint {sha256}, manifest {}); nothing was stored",
        folder.display(),
        manifest.sha256
    );
    Ok((merge.rows, messages, sha256))
}

async fn store(bus: &Bus, folder: &Path, manifest: &Manifest, progress: impl Fn(u64, u64)) -> anyhow::Result<u64> {
    let stream = &manifest.stream;
    make(bus, manifest).await?;
    let before = manifest.first_seq - 1;
    let state = bus.stream(stream).await?;
    ensure!(
        state.last_seq >= before,
        "{stream} ends at {} and the export begins at {}: import into a server without this stream, where it is made to begin there",
        state.last_seq,
        manifest.first_seq
    );
    // A stream that expired its beginning cannot be compared there; what is left must agree.
    let skip = state.before_first().min(manifest.last_seq);
    let from = before.max(skip);
    let mut writer = Writer::resume(bus, stream, from).await?;
    let known = state.last_seq.min(manifest.last_seq);
    let mut merge = Merge::new(folder, manifest);
    let mut count = 0;
    while let Some(message) = merge.next()? {
        if message.seq <= from {
            continue;
        }
        let seq = message.seq;
        let at = writer.push(message.subject, message.payload).await.with_context(|| format!("store message {seq}"))?;
        ensure!(at == seq, "message {seq} would stand at {at}");
        if seq == known {
            // Everything that was there is compared before anything stands behind it.
            writer.drain().await.with_context(|| format!("compare with what {stream} holds"))?;
        }
        count += 1;
        if count % 1_024 == 0 {
            progress(seq - before, manifest.messages);
        }
    }
    writer.drain().await.context("store the last messages")?;
    progress(manifest.messages, manifest.messages);
    Ok(manifest.last_seq - known.max(before))
}

/// Makes the stream where it is absent; its first message gets the sequence that it had.
async fn make(bus: &Bus, manifest: &Manifest) -> anyhow::Result<()> {
    let stream = &manifest.stream;
    let mut config: StreamConfig =
        serde_json::from_value(manifest.config.clone()).with_context(|| format!("configuration of {stream}"))?;
    let sourced = config.sources.as_ref().is_some_and(|s| !s.is_empty()) || config.mirror.is_some();
    ensure!(
        !sourced,
        "{stream} takes its messages from other streams, nobody may write it: import those, or use the files as they are"
    );
    match bus.stream(stream).await {
        Ok(_) => return Ok(()),
        Err(BusError::StreamAbsent { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    config.first_sequence = (manifest.first_seq > 1).then_some(manifest.first_seq);
    config.num_replicas = bus.config().layout.replicas;
    match bus.js().create_stream(config).await {
        Ok(_) => Ok(()),
        Err(error) => bail!("create {stream}: {error}"),
    }
}

/// All messages of an export in the order of their sequences. Open are only files whose sequences overlap: those of one
/// piece of the export.
struct Merge<'a> {
    folder: &'a Path,
    waiting: VecDeque<&'a Piece>,
    open: Vec<VecDeque<Message>>,
    rows: u64,
}

impl<'a> Merge<'a> {
    fn new(folder: &'a Path, manifest: &'a Manifest) -> Self {
        let mut pieces: Vec<&Piece> = manifest.files.iter().collect();
        pieces.sort_by_key(|p| p.first_seq);
        Self { folder, waiting: pieces.into(), open: Vec::new(), rows: 0 }
    }

    fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            let first = |open: &VecDeque<Message>| open.front().map_or(u64::MAX, |m| m.seq);
            let least = self.open.iter().map(first).min().unwrap_or(u64::MAX);
            match self.waiting.front() {
                Some(piece) if piece.first_seq < least => self.open_next()?,
                _ => break,
            }
        }
        self.open.retain(|open| !open.is_empty());
        let least = self.open.iter_mut().min_by_key(|open| open.front().map(|m| m.seq));
        Ok(least.and_then(VecDeque::pop_front))
    }

    fn open_next(&mut self) -> anyhow::Result<()> {
        let Some(piece) = self.waiting.pop_front() else { return Ok(()) };
        // A path of a manifest stays inside its folder.
        let inside = Path::new(&piece.path).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        ensure!(inside, "{MANIFEST} names {}, which is not inside its folder", piece.path);
        let path = self.folder.join(&piece.path);
        let table = parquet::read(&path)?;
        let (messages, rows) = (table.len() as u64, table.rows_total());
        ensure!(
            (messages, rows) == (piece.messages, piece.rows),
            "{} holds {messages} messages in {rows} rows, its manifest says {} in {}",
            path.display(),
            piece.messages,
            piece.rows
        );
        self.rows += rows;
        let messages =
            table.messages().with_context(|| format!("{}: its columns contradict each other", path.display()))?;
        self.open.push(messages.into());
        Ok(())
    }
}
