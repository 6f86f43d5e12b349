//! `tapeline export`: streams as Parquet files, typed, by kind and day, and complete: `tapeline import --form tables`
//! puts the same bytes at the same sequences of another server.
//!
//! ```text
//! DIR/<STREAM>/manifest.json
//! DIR/<STREAM>/<kind>/day=2024-08-08/<first seq>.parquet
//! ```
//!
//! The day is that of the fact's own time (UTC), the stored one where it has none. A folder is named `<STREAM>.part` until
//! it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use comfy_table::{Table as Shown, presets};
use indicatif::{ProgressBar, ProgressStyle};
use nats::{Bus, Reader};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::target;

pub mod parquet;
pub mod restore;
pub mod table;
pub mod value;

use table::{Message, Table};
use value::Value;

/// Bounds of a piece that is held in memory; at its end every kind and day of it gets a file.
const PIECE_MESSAGES_MAX: usize = 65_536;
const PIECE_BYTES_MAX: usize = 8 << 20;
/// A stored message that does not come within this time ends the export.
const MESSAGE_WAIT_MAX: Duration = Duration::from_secs(60);
pub const MANIFEST: &str = "manifest.json";
/// Where a fact's own time is, the first that it has.
const TIMES: [&str; 6] = ["ts_ns", "open_ns", "watermark_ns", "from_ns", "wall_ns", "recv_ns"];
const DAY_NS: i64 = 86_400_000_000_000;

/// `tapeline export`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline export RAW_BINANCE --out archive/
  tapeline export RAW_BINANCE SIG_BINANCE_3 RISK_main EXEC_main --out archive/
  tapeline import --form tables archive/           the same bytes at the same sequences of another server

In polars: pl.scan_parquet('archive/RAW_BINANCE/trade/**/*.parquet'); a trade a row, price = mantissa / 10^`scale/price`.")]
pub struct Args {
    /// Streams, such as RAW_BINANCE
    #[arg(required = true)]
    streams: Vec<String>,
    /// Folder; each stream gets one of its own in it
    #[arg(long)]
    out: PathBuf,
}

/// What an export of a stream holds; the last file that is written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the form.
    pub v: u32,
    pub stream: String,
    /// 0 where the stream holds nothing.
    pub first_seq: u64,
    pub last_seq: u64,
    pub messages: u64,
    pub rows: u64,
    /// Messages whose bytes stand in `_payload` because the columns cannot say them.
    pub kept: u64,
    /// SHA-256 over sequence, subject and payload of every message, in hex.
    pub sha256: String,
    /// The stream's configuration at the server.
    pub config: serde_json::Value,
    pub files: Vec<Piece>,
}

/// A file of an export, its path relative to the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    pub path: String,
    pub kind: String,
    pub day: String,
    pub first_seq: u64,
    pub last_seq: u64,
    pub messages: u64,
    pub rows: u64,
}

/// The fingerprint of messages in order.
#[derive(Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    pub fn add(&mut self, seq: u64, subject: &str, payload: &[u8]) {
        self.0.update(seq.to_be_bytes());
        // Lengths stand before what they measure, so no two different streams read the same.
        for part in [subject.as_bytes(), payload] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }
    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async {
        let bus = target::operator_bus(data).await?;
        let mut done = Vec::new();
        for stream in &args.streams {
            let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
            if let Ok(style) = ProgressStyle::with_template("  {msg} {bar:40} {human_pos}/{human_len} {per_sec} {eta}")
            {
                bar.set_style(style);
            }
            bar.set_message(stream.clone());
            let progress = |done: u64, total: u64| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let exported = export(&bus, stream, &args.out, progress).await;
            bar.finish_and_clear();
            done.push(exported.with_context(|| format!("export {stream}"))?);
        }
        if json {
            let streams: Vec<_> = done.iter().map(summary).collect();
            println!("{}", json!({ "out": args.out, "streams": streams }));
            return Ok(());
        }
        let mut shown = Shown::new();
        shown.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "stream",
            "first",
            "last",
            "messages",
            "rows",
            "files",
            "kept as bytes",
            "sha-256",
        ]);
        for m in &done {
            let counts = [m.first_seq, m.last_seq, m.messages, m.rows, m.files.len() as u64, m.kept];
            let counts = counts.map(|n| n.to_string());
            shown.add_row([m.stream.clone()].into_iter().chain(counts).chain([m.sha256[..16].to_owned()]));
        }
        println!("{shown}\nwritten to {}", args.out.display());
        Ok(())
    })
}

/// A manifest without its files and configuration.
pub fn summary(m: &Manifest) -> serde_json::Value {
    json!({
        "stream": m.stream, "first_seq": m.first_seq, "last_seq": m.last_seq, "messages": m.messages, "rows": m.rows,
        "kept": m.kept, "files": m.files.len(), "sha256": m.sha256,
    })
}

/// Exports what `stream` holds now into `out/<stream>`, which must not exist. `progress` hears messages done and in all.
pub async fn export(bus: &Bus, stream: &str, out: &Path, progress: impl Fn(u64, u64)) -> anyhow::Result<Manifest> {
    ensure!(
        !stream.starts_with("KV_"),
        "a bucket's deletions stand in headers, which an export does not hold; back it up with `nats stream backup`"
    );
    let state = bus.stream(stream).await?;
    let config = match bus.js().get_stream(stream).await {
        Ok(stream) => serde_json::to_value(&stream.cached_info().config)?,
        Err(error) => bail!("read the configuration: {error}"),
    };
    let (whole, part) = (out.join(stream), out.join(format!("{stream}.part")));
    ensure!(!whole.exists(), "{} is there already; name another folder or remove it", whole.display());
    if part.exists() {
        // Only an export that ended early leaves it.
        fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("make folder {}", part.display()))?;
    let mut manifest = Manifest {
        v: parquet::FORM,
        stream: stream.to_owned(),
        first_seq: 0,
        last_seq: 0,
        messages: 0,
        rows: 0,
        kept: 0,
        sha256: String::new(),
        config,
        files: Vec::new(),
    };
    let mut fingerprint = Fingerprint::default();
    let mut piece = PieceInMemory::default();
    if state.messages > 0 {
        let mut reader = Reader::open(bus, stream, ">", 0).await?;
        loop {
            let next = tokio::time::timeout(MESSAGE_WAIT_MAX, reader.next()).await;
            let message = next.with_context(|| format!("no message within {} s", MESSAGE_WAIT_MAX.as_secs()))??;
            // What was stored since is the next export's.
            let last = message.seq >= state.last_seq;
            if message.seq <= state.last_seq {
                fingerprint.add(message.seq, &message.subject, &message.payload);
                if manifest.messages == 0 {
                    manifest.first_seq = message.seq;
                }
                manifest.messages += 1;
                manifest.last_seq = message.seq;
                piece.add(Message {
                    seq: message.seq,
                    subject: message.subject.to_string(),
                    stored_ns: message.time_ns,
                    payload: message.payload.to_vec(),
                });
            }
            if piece.is_full() || last {
                piece.write(stream, &part, &mut manifest)?;
                progress(manifest.messages, state.messages);
            }
            if last {
                break;
            }
        }
    }
    manifest.sha256 = fingerprint.hex();
    let path = part.join(MANIFEST);
    fs::write(&path, serde_json::to_vec_pretty(&manifest)?).with_context(|| format!("write {}", path.display()))?;
    fs::rename(&part, &whole).with_context(|| format!("name {}", whole.display()))?;
    Ok(manifest)
}

/// Messages that wait for their files, by kind and day.
#[derive(Default)]
struct PieceInMemory {
    groups: BTreeMap<(String, i64), Vec<Message>>,
    messages: usize,
    bytes: usize,
}

impl PieceInMemory {
    fn add(&mut self, message: Message) {
        self.messages += 1;
        self.bytes += message.payload.len();
        let key = (kind_of(&message.subject).to_owned(), day_of(&message));
        self.groups.entry(key).or_default().push(message);
    }

    fn is_full(&self) -> bool {
        self.messages >= PIECE_MESSAGES_MAX || self.bytes >= PIECE_BYTES_MAX
    }

    fn write(&mut self, stream: &str, folder: &Path, manifest: &mut Manifest) -> anyhow::Result<()> {
        for ((kind, day), messages) in std::mem::take(&mut self.groups) {
            let day = day_text(day)?;
            let (first_seq, last_seq) = match (messages.first(), messages.last()) {
                (Some(first), Some(last)) => (first.seq, last.seq),
                _ => continue,
            };
            let path = format!("{kind}/day={day}/{first_seq:020}.parquet");
            let file = folder.join(&path);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent).with_context(|| format!("make folder {}", parent.display()))?;
            }
            let count = messages.len() as u64;
            let table = Table::of(&kind, messages);
            parquet::write(&file, stream, &kind, &table)?;
            let rows = table.rows_total();
            manifest.rows += rows;
            manifest.kept += table.kept();
            manifest.files.push(Piece { path, kind, day, first_seq, last_seq, messages: count, rows });
        }
        (self.messages, self.bytes) = (0, 0);
        Ok(())
    }
}

/// The kind token of a subject: the fourth of `raw.`, the last of `llm.`, otherwise the first. A name of a folder.
fn kind_of(subject: &str) -> &str {
    let mut tokens = subject.split('.');
    let kind = match tokens.next() {
        Some("raw") => tokens.nth(2),
        Some("llm") => tokens.nth(1),
        first => first,
    };
    let is_name = |kind: &&str| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    kind.filter(is_name).unwrap_or("other")
}

/// Whole days since 1970 (UTC) of the fact's own time; a pack is filed by its first tick.
fn day_of(message: &Message) -> i64 {
    let own = Value::read(&message.payload).and_then(|payload| time_in(&payload));
    own.unwrap_or(message.stored_ns).div_euclid(DAY_NS)
}

fn time_in(value: &Value) -> Option<i64> {
    let Value::Map(fields) = value else { return None };
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    let time = |name: &&str| match field(name)? {
        Value::Int(ns) => Some(*ns),
        Value::List(ticks) => match ticks.first() {
            Some(Value::Int(ns)) => Some(*ns),
            _ => None,
        },
        _ => None,
    };
    let of_item = || match field("items")? {
        Value::List(items) => time_in(items.first()?),
        _ => None,
    };
    TIMES.iter().find_map(time).or_else(of_item)
}

fn day_text(day: i64) -> anyhow::Result<String> {
    let at = time::OffsetDateTime::from_unix_timestamp(day * 86_400).context("a day within the calendar")?;
    Ok(at.date().to_string())
}
