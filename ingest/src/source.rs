//! Recordings and trade files into `RAW_<VENUE>`: as a configured source, and as `tapeline import`.
//!
//! The facts follow from the recording alone, so the writer compares what is stored with what is played: a run
//! that was killed goes on where it stopped, and a finished one does nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use nats::telemetry::TaskStats;
use nats::{Bus, Writer, leader};
use schemas::raw::{LinkEvent, Raw};
use schemas::subject::{self, stream};
use schemas::{Fact, Nanos};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Source, VenueConfig};
use crate::custom;
use crate::recording::{Form, Options, Player, Rows, Tape};
use crate::venue;
use crate::{instruments, live};

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// The venue token of its stream and subjects.
    pub venue: String,
    pub form: Form,
    /// Symbol (may be empty for raw recordings) and file, in order.
    pub files: Vec<(String, PathBuf)>,
    /// 0 at once, 1 as recorded.
    pub speed: f64,
    pub options: Options,
    pub line_bytes_max: usize,
    /// The venue's instrument list, stored in KV `instruments` first.
    pub instruments_file: Option<PathBuf>,
    /// Symbols whose instruments are stored; empty: all of the file.
    pub symbols: Vec<String>,
}

impl Job {
    /// The job of a venue's configuration. A file may be written `SYMBOL=path`; else it is of `symbol`.
    pub fn of(id: &str, settings: &VenueConfig, config: &Config, partitions: u32) -> Self {
        let form = match settings.source {
            Source::Trades => Form::Csv,
            // Checked with the configuration: a venue of files is described.
            Source::Files => custom::registered(id).map_or(Form::Raw, |described| Form::Described(Rows(described))),
            Source::Recording | Source::Venue => Form::Raw,
        };
        let files = settings.files.iter().map(|path| {
            let text = path.to_string_lossy();
            match text.split_once('=') {
                Some((symbol, path)) if !symbol.contains('/') => (symbol.to_owned(), PathBuf::from(path)),
                _ => (settings.symbol.clone(), path.clone()),
            }
        });
        let clock_period_ms =
            if form == Form::Raw { config.recording.clock_period_ms } else { config.recording.csv_clock_period_ms };
        Self {
            venue: id.to_owned(),
            form,
            files: files.collect(),
            speed: settings.speed,
            options: Options {
                partitions,
                ticks_max: config.pack_ticks_max,
                aggregates: settings.wants_aggregates(),
                frames_per_flush: config.recording.frames_per_flush,
                clock_period_ms,
                lateness_ms: config.lateness_ms,
                flush_open: settings.flush_open,
                limits: config.session.clone(),
            },
            line_bytes_max: config.recording.line_bytes_max,
            instruments_file: Some(&settings.instruments_file).filter(|f| !f.is_empty()).map(PathBuf::from),
            symbols: if settings.symbol.is_empty() { Vec::new() } else { vec![settings.symbol.clone()] },
        }
    }
}

/// How far an import is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Of the files as they lie on disk.
    pub bytes_read: u64,
    pub bytes_total: u64,
    /// Facts played so far, and how many of them were stored by an earlier run.
    pub facts: u64,
    pub facts_found: u64,
    /// The whole recording is stored.
    pub finished: bool,
}

/// Facts on their way from the player to the writer.
struct Chunk {
    recv: Nanos,
    /// First event time of the recording, once it is known.
    first_event: Option<Nanos>,
    facts: Vec<(String, Vec<u8>)>,
}

/// Facts of the player in one step of the writer.
const CHUNK_FACTS: usize = 64;
/// Chunks between them.
const CHUNKS_MAX: usize = 16;

/// Plays a recording into the venue's stream. Resumes an unfinished run of the same recording with the same
/// options; does nothing when it is the last one finished. A recording that begins before what the stream already
/// holds is refused: time does not go back.
pub async fn import(
    bus: &Bus,
    job: &Job,
    stop: &CancellationToken,
    stats: Option<&TaskStats>,
    mut progress: impl FnMut(Progress),
) -> anyhow::Result<Progress> {
    store_instruments(bus, job).await?;
    let hashed = job.clone();
    let name = tokio::task::spawn_blocking(move || name(&hashed)).await.context("hash the recording")??;
    let start = start(bus, job, &name).await?;
    let mut state = Progress { bytes_total: total(job)?, ..Progress::default() };
    let base = match start {
        Start::Finished => {
            state.finished = true;
            progress(state);
            return Ok(state);
        }
        Start::Resume { base } => base,
        Start::Fresh { base, .. } => base,
    };
    let mut writer = Writer::resume(bus, &stream::raw(&job.venue), base).await?;
    let stored = bus.stream(&stream::raw(&job.venue)).await?.last_seq;
    let read = Arc::new(AtomicU64::new(0));
    let (out, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let (played, counter) = (job.clone(), Arc::clone(&read));
    let player = tokio::task::spawn_blocking(move || play(&played, &name, &counter, &out));
    let mut pace = Pace { speed: job.speed, anchor: None };
    loop {
        let chunk = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // Cancel safe: a chunk is taken or stays in the channel.
            chunk = chunks.recv() => chunk,
        };
        let Some(chunk) = chunk else {
            state.finished = true;
            break;
        };
        if let (Start::Fresh { watermark, .. }, Some(first), 0) = (start, chunk.first_event, state.facts) {
            let lateness_ns = job.options.lateness_ms * Nanos::PER_MS;
            ensure!(
                first.plus_ns(lateness_ns) >= watermark,
                "the recording begins at {} ns, {} holds data up to {} ns already: an import cannot go back in time",
                first.0,
                stream::raw(&job.venue),
                watermark.0
            );
        }
        if base + state.facts >= stored && !pace.wait(chunk.recv, stop).await {
            break;
        }
        for (subject, payload) in chunk.facts {
            let seq = writer.push(subject, payload).await.context("store the recording")?;
            state.facts += 1;
            state.facts_found += u64::from(seq <= stored);
            if let Some(stats) = stats {
                stats.said(seq);
            }
        }
        // What is paced is seen at once.
        if job.speed > 0.0 {
            writer.drain().await?;
        }
        state.bytes_read = read.load(Relaxed);
        if let Some(stats) = stats {
            stats.state(0, Some(chunk.recv.0), writer.known(), writer.resyncs());
        }
        progress(state);
    }
    writer.drain().await.context("store the recording")?;
    drop(chunks);
    match player.await.context("play the recording")? {
        Ok(()) => {}
        // We stopped listening ourselves.
        Err(_) if !state.finished => {}
        Err(error) => return Err(error),
    }
    state.bytes_read = read.load(Relaxed);
    progress(state);
    Ok(state)
}

#[derive(Clone, Copy)]
enum Start {
    Finished,
    /// An unfinished run wrote its first fact behind `base`.
    Resume {
        base: u64,
    },
    /// Behind everything stored, whose watermark is this.
    Fresh {
        base: u64,
        watermark: Nanos,
    },
}

/// Where the recording stands in the stream: its first and last facts are link facts with its name.
async fn start(bus: &Bus, job: &Job, name: &str) -> anyhow::Result<Start> {
    let raw = stream::raw(&job.venue);
    let base = bus.stream(&raw).await?.last_seq;
    let last = leader::last_by_subject(bus, &raw, &subject::link(&job.venue)).await?;
    if let Some(message) = last {
        let link = LinkEvent::decode(&message.payload).context("read the stored link fact")?;
        match (link.link.as_str(), link.event.as_str()) {
            ("recording", "finished") if link.reason == name => return Ok(Start::Finished),
            ("recording", "connected") if link.reason == name => return Ok(Start::Resume { base: message.seq - 1 }),
            ("recording", "connected") => bail!(
                "{raw} ends in the middle of another recording, or of this one with other options ({}): finish that \
                 first, or empty the stream",
                link.reason
            ),
            _ => {}
        }
    }
    Ok(Start::Fresh { base, watermark: live::last_clock(bus, &job.venue).await? })
}

/// Names the recording by its files, their content and everything else that its facts depend on.
fn name(job: &Job) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let options = &job.options;
    hash.update(format!("{:?} {:?}", job.form, options));
    let mut names = Vec::new();
    for (symbol, path) in &job.files {
        let mut file = BufReader::with_capacity(1 << 20, open(path)?);
        hash.update(format!("\n{symbol}\n"));
        loop {
            let bytes = file.fill_buf().with_context(|| format!("read {}", path.display()))?;
            if bytes.is_empty() {
                break;
            }
            hash.update(bytes);
            let n = bytes.len();
            file.consume(n);
        }
        names.push(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}; sha256 {hex}", names.join(", ")))
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

fn total(job: &Job) -> anyhow::Result<u64> {
    job.files.iter().map(|(_, path)| Ok(open(path)?.metadata()?.len())).sum()
}

/// A file that counts what is read of it.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

/// Plain or gzip, told by the first bytes.
fn reader(path: &Path, read: &Arc<AtomicU64>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(1 << 16, Counted { file: open(path)?, read: Arc::clone(read) });
    let gz = file.fill_buf().with_context(|| format!("read {}", path.display()))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gz { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// Reads, decodes and packs, on a thread that may block.
fn play(job: &Job, name: &str, read: &Arc<AtomicU64>, out: &mpsc::Sender<Chunk>) -> anyhow::Result<()> {
    let files = job.files.iter().map(|(symbol, path)| Ok((symbol.clone(), reader(path, read)?)));
    let files: Vec<_> = files.collect::<anyhow::Result<_>>()?;
    let mut tape = Tape::new(job.form, job.line_bytes_max, files);
    let venue = venue::by_id(&job.venue);
    ensure!(venue.is_some() || job.form == Form::Csv, "no venue `{}` that could read the frames", job.venue);
    let mut player = Player::new(&job.venue, venue, job.options.clone());
    let mut facts: Vec<Raw> = Vec::new();
    let mut begun = false;
    let mut recv = Nanos(0);
    let send = |recv: Nanos, player: &mut Player, facts: &mut Vec<Raw>| {
        let said = facts.drain(..).map(|fact| {
            let said = (fact.subject(), fact.encode());
            player.reuse(fact);
            said
        });
        let facts = said.collect();
        let chunk = Chunk { recv, first_event: player.first_event(), facts };
        out.blocking_send(chunk).map_err(|_| anyhow::anyhow!("stopped"))
    };
    while let Some(entry) = tape.next_entry().context("read the recording")? {
        recv = entry.recv;
        if !begun {
            player.begin(name, recv, &mut facts);
            begun = true;
        }
        let before = facts.len();
        player.take(entry, &mut facts);
        // A paced recording is handed on flush by flush; the first chunk waits until the first event time is known.
        let flushed = facts.len() > before;
        if player.first_event().is_some() && (facts.len() >= CHUNK_FACTS || (job.speed > 0.0 && flushed)) {
            send(recv, &mut player, &mut facts)?;
        }
    }
    ensure!(begun, "the recording is empty");
    player.finish(name, &mut facts);
    send(recv, &mut player, &mut facts)
}

/// Lets recorded time pass at `speed`, from the first thing that is new.
struct Pace {
    speed: f64,
    anchor: Option<(Instant, Nanos)>,
}

impl Pace {
    /// False: stopped.
    async fn wait(&mut self, recv: Nanos, stop: &CancellationToken) -> bool {
        if self.speed <= 0.0 {
            return !stop.is_cancelled();
        }
        let (since, first) = *self.anchor.get_or_insert((Instant::now(), recv));
        let passed = Duration::from_nanos((recv - first).max(0) as u64).div_f64(self.speed);
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            // Only time is lost.
            () = tokio::time::sleep_until(since + passed) => true,
        }
    }
}

async fn store_instruments(bus: &Bus, job: &Job) -> anyhow::Result<()> {
    let Some(path) = &job.instruments_file else {
        let named: BTreeSet<String> =
            job.files.iter().map(|(symbol, _)| symbol.clone()).filter(|s| !s.is_empty()).collect();
        let named: Vec<String> = named.into_iter().chain(job.symbols.iter().cloned()).collect();
        let stated = venue::by_id(&job.venue).and_then(|(venue, market)| venue.stated_instruments(market, &named));
        for instrument in stated.unwrap_or_default() {
            instruments::put(bus, &instrument).await?;
        }
        return Ok(());
    };
    let body = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (venue, market) = venue::by_id(&job.venue).with_context(|| format!("no venue `{}`", job.venue))?;
    let (known, _) =
        venue.decode_instruments(market, &body).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?;
    let wanted = known.iter().filter(|i| job.symbols.is_empty() || job.symbols.contains(&i.symbol));
    for instrument in wanted {
        instruments::put(bus, instrument).await?;
    }
    Ok(())
}

/// Runs a configured recording to its end, then stays until the stop: the stage is there while its streams are.
pub async fn run(task: live::Task) -> anyhow::Result<()> {
    let settings = task.config.venues.get(&task.id).context("find the venue's configuration")?;
    let job = Job::of(&task.id, settings, &task.config, task.partitions);
    task.stats.opened();
    let done = import(&task.bus, &job, &task.stop, Some(&task.stats), |_| {}).await;
    let fenced = done
        .as_ref()
        .is_err_and(|e| e.chain().any(|c| c.downcast_ref::<nats::BusError>().is_some_and(nats::BusError::fenced)));
    if done.is_err() {
        task.stats.ended(fenced);
    }
    let done = done?;
    tracing::info!(
        venue = task.id,
        facts = done.facts,
        found = done.facts_found,
        finished = done.finished,
        "recording"
    );
    task.stop.cancelled().await;
    task.stats.ended(false);
    Ok(())
}
