//! The shell: a reader for each stream, one writer. New streams are found while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::TryStreamExt;
use nats::error::BusError;
use nats::telemetry::TaskStats;
use nats::{Bus, Message, Reader, Stage, StageArgs};
use schemas::config::ConfigError;
use schemas::subject::stream::{KV_CONFIG, SIGNAL_EXTERNAL};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, address, redacted};
use crate::core::{Fold, config_entry};
use crate::db::DbError;
use crate::schema::TABLES;
use crate::writer::{WriteError, Writer};

/// The stage's name: in checkpoints and logs.
pub const STAGE: &str = "ledger";
/// Its one task. With `--lease` all instances are to write one database.
const MAIN: &str = "main";

/// Between two tries to list the streams.
const LIST_PAUSE: Duration = Duration::from_millis(500);

/// What a process is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// Write what comes, until a signal.
    Follow,
    /// Fill an empty database with everything that the streams hold now, then end.
    Rebuild,
}

/// What readers hand to the writer.
enum Batch {
    Facts {
        stream: Arc<str>,
        messages: Vec<Message>,
    },
    /// Newest entries of KV `cfg`.
    Config(Vec<Message>),
}

/// By stream: sequence written, facts that wait behind it.
type Streams = Arc<Mutex<BTreeMap<Arc<str>, (u64, u64)>>>;

/// How far the streams were written, for telemetry.
struct Progress {
    main: Arc<TaskStats>,
    streams: Streams,
}

impl Progress {
    fn note(&self, stream: &Arc<str>, newest: &Message, heard: usize) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(stream.clone(), (newest.seq, newest.pending));
        let waiting = streams.values().map(|(_, pending)| pending).sum();
        for _ in 0..heard {
            self.main.heard(newest.seq);
        }
        self.main.state(waiting, None, 0, 0);
    }
}

fn shown(streams: &Streams) -> serde_json::Value {
    let streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
    streams.iter().map(|(name, (seq, lag))| (name.to_string(), serde_json::json!({ "seq": seq, "lag": lag }))).collect()
}

/// Runs until the job is done, a signal or the first failure. `database_url` goes before the configuration.
pub async fn run(args: StageArgs, database_url: Option<String>, job: Job) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let url = database_url.unwrap_or_else(|| config.database.clone());
    address(&url).map_err(|why| ConfigError::new("environment", "DATABASE_URL", why))?;
    if args.lease && job == Job::Rebuild {
        return Err(ConfigError::new("arguments", "--lease", "a rebuild runs alone, without it").into());
    }
    let stage = Stage::start(STAGE, &args).await?;
    let streams = Streams::default();
    let told = streams.clone();
    stage.stats("streams", Box::new(move || shown(&told)));
    let (bus, accept_loss, leased) = (stage.bus(), args.accept_loss, args.lease);
    stage.exclusive(MAIN, move |stats, stop| {
        let progress = Arc::new(Progress { main: stats, streams: streams.clone() });
        let work = work(bus.clone(), config.clone(), url.clone(), job, accept_loss, progress, stop);
        Box::pin(async move { work.await.map_err(|error| if leased { overtaken(error) } else { error }) })
    });
    stage.wait().await
}

/// Under a lease the last transaction of the holder before us may come behind our look at the cursors: a reason to open
/// again, as with a checkpoint.
fn overtaken(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(WriteError::Db(DbError::Fenced { stream })) => {
            BusError::CheckpointFenced { key: format!("{stream} in SQL") }.into()
        }
        _ => error,
    }
}

/// Writes one database, from where it stands, until the job is done or `stop`.
async fn work(
    bus: Bus,
    config: Config,
    url: String,
    job: Job,
    accept_loss: bool,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut writer = Writer::open(&config, &url).await.context("open the database")?;
    if job == Job::Rebuild {
        let empty = writer.db().is_empty().await?;
        anyhow::ensure!(empty, "rebuild: {} is not empty; name a new database in DATABASE_URL", redacted(&url));
    }
    tracing::info!(database = %redacted(&url), ?job, "ledger opens");
    let (batches, queue) = mpsc::channel(config.queue_batches_max);
    let cursors = writer.cursors().clone();
    let readers = Readers { bus, stop: stop.clone(), cursors, accept_loss, config, batches, entries: BTreeMap::new() };
    let mut parts = JoinSet::new();
    parts.spawn(write(writer, queue, progress, stop));
    parts.spawn(async move {
        match job {
            Job::Follow => readers.follow().await,
            Job::Rebuild => readers.once().await,
        }
    });
    while let Some(ended) = parts.join_next().await {
        ended.context("a part of the ledger panicked")??;
    }
    Ok(())
}

/// Takes batches into transactions until all readers are gone, or `stop`; what was taken is written first.
async fn write(
    mut writer: Writer,
    mut queue: mpsc::Receiver<Batch>,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (rows_max, share) = {
        let config = writer.config();
        (config.transaction_rows_max, Duration::from_millis(config.transaction_ms_max))
    };
    progress.main.opened();
    let mut open = true;
    while open {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            // Cancel safe: takes a batch or nothing.
            batch = queue.recv() => batch,
        };
        let Some(first) = first else { break };
        take(&mut writer, first, &progress)?;
        let until = Instant::now() + share;
        while writer.waiting() < rows_max {
            match tokio::time::timeout_at(until, queue.recv()).await {
                Ok(Some(batch)) => take(&mut writer, batch, &progress)?,
                Ok(None) => {
                    open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        writer.commit().await?;
        progress.main.checkpointed(0);
    }
    progress.main.ended(false);
    Ok(writer.close().await?)
}

fn take(writer: &mut Writer, batch: Batch, progress: &Progress) -> Result<(), WriteError> {
    match batch {
        Batch::Facts { stream, messages } => {
            for m in &messages {
                match writer.hear(&stream, m.seq, &m.subject, &m.payload) {
                    // Programs in other languages may say nonsense; our own stages may not.
                    Err(error @ WriteError::Fact { .. }) if *stream == *SIGNAL_EXTERNAL => {
                        progress.main.undecodable();
                        tracing::warn!(error = %format!("{:#}", anyhow::Error::new(error)), "passed over");
                        writer.skip(&stream, m.seq);
                    }
                    heard => heard?,
                }
            }
            if let Some(newest) = messages.last() {
                progress.note(&stream, newest, messages.len());
            }
        }
        Batch::Config(entries) => {
            for m in entries {
                let key = m.subject.strip_prefix("$KV.cfg.").unwrap_or(&m.subject);
                writer.change(config_entry(key, &m.payload, m.seq, m.time_ns));
            }
        }
    }
    Ok(())
}

/// Finds streams and reads them.
struct Readers {
    bus: Bus,
    stop: CancellationToken,
    /// Where the database stands.
    cursors: BTreeMap<String, u64>,
    accept_loss: bool,
    config: Config,
    batches: mpsc::Sender<Batch>,
    /// Revisions of KV `cfg` that were handed over.
    entries: BTreeMap<String, u64>,
}

impl Readers {
    /// Reads every stream there is or will be, without end.
    async fn follow(mut self) -> anyhow::Result<()> {
        let mut reading = JoinSet::new();
        let mut known = BTreeSet::new();
        let mut look = tokio::time::interval(Duration::from_millis(self.config.discover_ms));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                // Cancel safe: a reader that ended is reported again.
                Some(ended) = reading.join_next() => ended.context("a reader panicked")??,
                // Cancel safe: the next tick comes.
                _ = look.tick() => {
                    let names = tokio::select! {
                        biased;
                        () = self.stop.cancelled() => break,
                        // Nothing was taken yet.
                        names = streams(&self.bus) => names?,
                    };
                    for stream in names {
                        if known.insert(stream.clone()) {
                            reading.spawn(self.reader(stream, None));
                        }
                    }
                    self.config_entries().await?;
                }
            }
        }
        reading.shutdown().await;
        Ok(())
    }

    /// Reads what every stream holds now.
    async fn once(mut self) -> anyhow::Result<()> {
        let mut reading = JoinSet::new();
        for stream in streams(&self.bus).await? {
            let last = self.bus.stream(&stream).await?.last_seq;
            reading.spawn(self.reader(stream, Some(last)));
        }
        self.config_entries().await?;
        while let Some(ended) = reading.join_next().await {
            ended.context("a reader panicked")??;
        }
        tracing::info!(tables = TABLES.len(), "everything was read");
        Ok(())
    }

    /// Hands over one stream from its cursor on; with `last`, up to there.
    fn reader(&self, stream: String, last: Option<u64>) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let (bus, stop, batches, max) =
            (self.bus.clone(), self.stop.clone(), self.batches.clone(), self.config.read_batch);
        let (cursor, accept_loss) = (self.cursors.get(&stream).copied(), self.accept_loss);
        async move {
            let name: Arc<str> = stream.as_str().into();
            let work = async {
                let mut reader = open(&bus, &stream, cursor, accept_loss).await?;
                while last.is_none_or(|last| reader.cursor() < last && !reader.caught_up()) {
                    let messages = reader.next_batch(max).await?;
                    // The writer is gone only when it failed, and says so itself.
                    if batches.send(Batch::Facts { stream: name.clone(), messages }).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                // Dropped at stop: the database says where the next start goes on.
                done = work => done,
            }
        }
    }

    /// Hands over what changed in KV `cfg`.
    async fn config_entries(&mut self) -> anyhow::Result<()> {
        let stream = nats::kv::stream(KV_CONFIG);
        let all = nats::kv::subject(KV_CONFIG, ">");
        let newest = match Reader::latest(&self.bus, &stream, &all, self.config.config_keys_max).await {
            Ok(newest) => newest,
            Err(BusError::StreamAbsent { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut changed = Vec::new();
        for entry in newest {
            if self.entries.insert(entry.subject.to_string(), entry.seq) != Some(entry.seq) {
                changed.push(entry);
            }
        }
        if !changed.is_empty() {
            // The writer is gone only when it failed, and says so itself.
            let _ = self.batches.send(Batch::Config(changed)).await;
        }
        Ok(())
    }
}

async fn open(bus: &Bus, stream: &str, cursor: Option<u64>, accept_loss: bool) -> anyhow::Result<Reader> {
    match Reader::open(bus, stream, ">", cursor.map_or(0, |seq| seq + 1)).await {
        Err(error @ BusError::InputExpired { .. }) if accept_loss => {
            tracing::warn!(stream, %error, "going on behind lost facts");
            Ok(Reader::open(bus, stream, ">", 0).await?)
        }
        opened => Ok(opened?),
    }
}

/// Names of the streams that the ledger reads, sorted. Asked again while the server is away or slow: an outage is no
/// reason to end, the readers outlive it as well.
async fn streams(bus: &Bus) -> anyhow::Result<Vec<String>> {
    let (begun, bound) = (Instant::now(), Duration::from_secs(bus.config().connection.outage_s_max));
    let mut names: Vec<String> = loop {
        bus.connected().await?;
        match bus.js().stream_names().try_collect().await {
            Ok(names) => break names,
            Err(error) => {
                if begun.elapsed() >= bound {
                    return Err(error).context("list streams");
                }
                tracing::warn!(error = %error, "streams cannot be listed yet");
            }
        }
        tokio::time::sleep(LIST_PAUSE).await;
    };
    names.retain(|name| Fold::reads(name));
    names.sort_unstable();
    Ok(names)
}
