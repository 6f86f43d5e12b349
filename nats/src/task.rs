//! The stage loop: runs one pure core on one input stream and one output stream.
//!
//! open: checkpoint, halt rules. run: hear, handle, push, and every N inputs or T ms a checkpoint, which is written
//! behind its acknowledged outputs while the fold goes on.
//! Starting is recovering: what the output stream holds beyond the checkpoint is regenerated and compared.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use schemas::{Core, Listen, Place, Speak};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::checkpoint::{self, Accepted, Checkpoint, Header};
use crate::config::ms;
use crate::error::BusError;
use crate::kv;
use crate::leader;
use crate::reader::{Message, Reader};
use crate::rules::{self, Found};
use crate::telemetry::TaskStats;
use crate::trace::Traceparent;
use crate::writer::Writer;

/// Which output a mirrored KV entry shows: `<stream>:<seq>`.
const MIRROR_OF: &str = "Tapeline-Output";

/// One task: its key within the stage and its two streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// `binance.3`, `main`: the checkpoint is `<stage>.<key>`.
    pub key: String,
    pub input: String,
    /// One subject with wildcards; `>` for the whole stream.
    pub filter: String,
    /// Written by this task and nobody else.
    pub output: String,
}

/// What an operator may let pass at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// A checkpoint of another code version, when nothing is to be regenerated behind it.
    pub version: bool,
    /// Lost outputs and lost or rewritten input: go on behind them.
    pub loss: bool,
    /// Outputs behind the checkpoint are taken as they are stored, not compared: as many of our own are left unsaid.
    pub outputs: bool,
}

impl Accept {
    /// What either of the two lets pass.
    pub fn and(self, other: Self) -> Self {
        Self {
            version: self.version || other.version,
            loss: self.loss || other.loss,
            outputs: self.outputs || other.outputs,
        }
    }
}

/// Runs `core` until `stop`, or until the task halts. At `stop` it drains and writes a checkpoint.
///
/// Dropping it is as a crash of the process: what was not said yet is said by the next start.
pub async fn run<C: Core>(
    bus: &Bus,
    spec: &TaskSpec,
    mut core: C,
    accept: Accept,
    stats: &Arc<TaskStats>,
    stop: &CancellationToken,
) -> Result<(), BusError> {
    run_on(bus, spec, &mut core, accept, stats, stop).await
}

/// Like [`run`], on a core that the caller keeps; without a checkpoint it begins with the core as it is.
pub async fn run_on<C: Core>(
    bus: &Bus,
    spec: &TaskSpec,
    core: &mut C,
    accept: Accept,
    stats: &Arc<TaskStats>,
    stop: &CancellationToken,
) -> Result<(), BusError> {
    let mut task = Task::open(bus, spec, core, accept, stats).await?;
    let config = bus.config().task.clone();
    stats.opened();
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // Cancel safe: the write stays where it is and is polled again.
            kept = under_way(&mut task.keeping) => {
                task.kept(kept?);
                task.keep().await?;
                continue;
            }
            // Dropping the sleep loses nothing.
            () = tokio::time::sleep_until(task.due.into()), if task.dirty() && task.next.is_none() => {
                task.snapshot(core.save(), C::CODE_VERSION);
                task.keep().await?;
                continue;
            }
            // Nothing new for a while: what a snapshot waits for is asked for. Dropping the sleep loses nothing.
            () = tokio::time::sleep(IDLE), if task.waits() => {
                task.writer.drain().await?;
                task.keep().await?;
                continue;
            }
            // Dropping the sleep loses nothing.
            () = tokio::time::sleep_until(task.silence_due.into()) => {
                task.pass_silence().await?;
                continue;
            }
            // Cancel safe, see there.
            batch = task.reader.next_batch(config.batch) => batch?,
        };
        for message in batch {
            task.fold(core, message).await?;
        }
        task.show(core.watermark().map(|w| w.0)).await?;
        if task.since_checkpoint >= config.checkpoint_inputs_max {
            match task.next {
                None => task.snapshot(core.save(), C::CODE_VERSION),
                // The one before is not written yet: the fold waits for it.
                Some(_) => task.checkpoint(core.save(), C::CODE_VERSION).await?,
            }
        }
        task.keep().await?;
    }
    if task.dirty() || task.next.is_some() || task.keeping.is_some() || !task.mirrors.is_empty() {
        task.checkpoint(core.save(), C::CODE_VERSION).await?;
    }
    Ok(())
}

/// How long a snapshot waits for acknowledgements that nobody asks for.
const IDLE: Duration = Duration::from_millis(5);

/// A write into a bucket, while the fold goes on.
type Keeping = Pin<Box<dyn Future<Output = Result<Kept, BusError>> + Send>>;

/// What was written.
enum Kept {
    Mirror,
    /// Under this revision, for outputs up to here.
    Checkpoint(u64, u64),
}

async fn under_way(keeping: &mut Option<Keeping>) -> Result<Kept, BusError> {
    let Some(write) = keeping else { return std::future::pending().await };
    let kept = write.await;
    *keeping = None;
    kept
}

struct Task<'a> {
    bus: &'a Bus,
    spec: &'a TaskSpec,
    stats: &'a TaskStats,
    key: String,
    revision: u64,
    reader: Reader,
    writer: Writer,
    input: Arc<str>,
    /// Outputs carry the trace of their input.
    traced: bool,
    cursor: u64,
    /// The input at the cursor, for its identity; absent right after a start.
    last: Option<Message>,
    last_id: u64,
    due: Instant,
    silence_due: Instant,
    since_checkpoint: u64,
    /// Outputs that are left unsaid because others stand at their positions and an operator took those.
    unsaid: u64,
    /// The last time that an operator let a halt pass.
    accepted: Option<Accepted>,
    /// What the output stream held when the task opened: mirrors of these may have been written already.
    stored_at_open: u64,
    /// Newest value of every mirrored entry that is not written yet, with its output's position.
    mirrors: BTreeMap<(String, String), (u64, Bytes)>,
    /// The next checkpoint, until the outputs before it are acknowledged and their mirrors written.
    next: Option<Checkpoint>,
    /// The one write into a bucket that is under way.
    keeping: Option<Keeping>,
    /// Newest preview of every subject in this batch.
    previews: BTreeMap<String, Bytes>,
}

/// One output, taken out of the core's own type so that nothing of it lives across an await.
struct Said {
    subject: String,
    payload: Bytes,
    stored: bool,
    mirror: Option<(String, String)>,
}

impl<'a> Task<'a> {
    async fn open<C: Core>(
        bus: &'a Bus,
        spec: &'a TaskSpec,
        core: &mut C,
        accept: Accept,
        stats: &'a TaskStats,
    ) -> Result<Task<'a>, BusError> {
        let key = checkpoint::key(bus.stage(), &spec.key);
        let initial = core.save();
        let loaded = checkpoint::load(bus, &key, core, accept).await?;
        let (in_seq, out_seq) = loaded.header.as_ref().map_or((0, 0), |header| (header.in_seq, header.out_seq));
        let input = bus.stream_reaching(&spec.input, in_seq).await?;
        let output = bus.stream_reaching(&spec.output, out_seq).await?;
        let mut in_id = None;
        match &loaded.header {
            Some(header) => {
                same_places(&key, spec, header)?;
                if header.in_seq > 0 && header.in_seq <= input.last_seq {
                    let there = leader::get(bus, &spec.input, header.in_seq).await?;
                    in_id = there.as_ref().map(checkpoint::message_id);
                }
            }
            // A damaged revision may have left something behind.
            None => core
                .restore(&initial)
                .map_err(|source| BusError::Wire { what: format!("empty state of {key}"), source })?,
        }
        let found = Found {
            task: &key,
            header: loaded.header.as_ref(),
            code_version: Some(C::CODE_VERSION),
            input_stream: &spec.input,
            output_stream: &spec.output,
            input,
            output,
            in_id,
        };
        let start = rules::start(&found, loaded.accept)?;
        let (cursor, out_seq) = (start.cursor, start.out_seq);
        let unsaid = if loaded.accept.outputs { output.last_seq - out_seq } else { 0 };
        let mut accepted = loaded.header.as_ref().and_then(|header| header.accepted.clone());
        if !start.passed.is_empty() || unsaid > 0 {
            let mut halts: Vec<String> = start.passed.iter().map(|name| (*name).to_owned()).collect();
            if unsaid > 0 {
                halts.push("fenced".to_owned());
            }
            let (by, reason) = match loaded.grant {
                Some(grant) => (grant.by, grant.reason),
                None => ("arguments".to_owned(), "--accept-loss or --accept-version at the start".to_owned()),
            };
            tracing::error!(task = key, ?halts, by, reason, cursor, out_seq, unsaid, "accepted on the operator's word");
            accepted = Some(Accepted { halts, in_seq: cursor, out_seq: out_seq + unsaid, by, reason });
        }
        let writer = Writer::resume(bus, &spec.output, out_seq + unsaid).await?;
        let reader = Reader::open(bus, &spec.input, &spec.filter, cursor + 1).await?;
        let config = &bus.config().task;
        let mut task = Task {
            bus,
            spec,
            stats,
            key,
            revision: loaded.revision,
            reader,
            writer,
            input: spec.input.as_str().into(),
            traced: bus.config().trace.derived,
            cursor,
            last: None,
            last_id: start.in_id,
            due: Instant::now() + ms(config.checkpoint_ms_max),
            silence_due: Instant::now() + ms(bus.config().reader.silence_check_ms),
            since_checkpoint: 0,
            unsaid,
            accepted,
            stored_at_open: output.last_seq,
            mirrors: BTreeMap::new(),
            next: None,
            keeping: None,
            previews: BTreeMap::new(),
        };
        tracing::info!(
            task = task.key, input = %task.input, cursor, output = spec.output, out_seq, stored = output.last_seq, "task opened"
        );
        if loaded.header.is_none() || loaded.accept != Accept::default() {
            // Written before the first input: it shows that the rights suffice, fixes where a fresh task began, and
            // spends the operator's word.
            task.checkpoint(core.save(), C::CODE_VERSION).await?;
        }
        Ok(task)
    }

    fn dirty(&self) -> bool {
        self.since_checkpoint > 0
    }

    /// One input: what the core says of it goes to the stream.
    async fn fold<C: Core>(&mut self, core: &mut C, message: Message) -> Result<(), BusError> {
        let place = Place { stream: Arc::clone(&self.input), seq: message.seq };
        let trace = self.traced.then(|| message.trace.unwrap_or_else(|| Traceparent::root(&self.input, message.seq)));
        for said in self.hear(core, &place, &message)? {
            if !said.stored {
                self.previews.insert(said.subject, said.payload);
                continue;
            }
            let k = self.say(said.subject, said.payload.clone(), trace).await?;
            if let Some(entry) = said.mirror {
                self.mirrors.insert(entry, (k, said.payload));
            }
        }
        self.cursor = message.seq;
        self.last = Some(message);
        self.since_checkpoint += 1;
        self.stats.heard(self.cursor);
        Ok(())
    }

    /// One output, at the next position; gives it.
    async fn say(&mut self, subject: String, payload: Bytes, trace: Option<Traceparent>) -> Result<u64, BusError> {
        if self.unsaid > 0 {
            let k = self.position() + 1;
            self.unsaid -= 1;
            return Ok(k);
        }
        let trace = trace.map(|trace| trace.child(&self.spec.output, self.writer.pushed() + 1));
        let k = self.writer.push_traced(subject, payload, trace).await?;
        self.stats.said(k);
        Ok(k)
    }

    /// The last output that was said, or left unsaid.
    fn position(&self) -> u64 {
        self.writer.pushed() - self.unsaid
    }

    /// Lets the cursor of a silent filter keep up with the stream.
    async fn pass_silence(&mut self) -> Result<(), BusError> {
        self.silence_due = Instant::now() + ms(self.bus.config().reader.silence_check_ms);
        if let Some(end) = self.reader.pass_silence().await? {
            let there = leader::get(self.bus, &self.spec.input, end).await?;
            self.last_id = there.as_ref().map_or(0, checkpoint::message_id);
            self.last = None;
            self.cursor = end;
            if self.since_checkpoint == 0 {
                self.due = Instant::now() + ms(self.bus.config().task.checkpoint_ms_max);
            }
            self.since_checkpoint += 1;
            self.stats.passed(end);
        }
        Ok(())
    }

    /// No await in here: the core's types need not be `Send`.
    fn hear<C: Core>(&self, core: &mut C, place: &Place, message: &Message) -> Result<Vec<Said>, BusError> {
        let input = match C::In::hear(&message.subject, &message.payload) {
            Ok(Some(input)) => input,
            Ok(None) => {
                self.stats.unknown();
                return Ok(Vec::new());
            }
            Err(error) => {
                // A function of the bytes alone, so every run passes it over alike.
                let count = self.stats.undecodable();
                if count <= 10 || count.is_multiple_of(1000) {
                    let (task, why) = (&self.key, crate::bus::why(&error));
                    tracing::error!(task, subject = %message.subject, stream = %place.stream, seq = place.seq, count, why, "input cannot be decoded, passed over");
                }
                return Ok(Vec::new());
            }
        };
        let mut out = Vec::new();
        core.handle(place, input, &mut out)
            .map_err(|fault| BusError::Core { place: format!("{}:{}", place.stream, place.seq), fault })?;
        Ok(out
            .iter()
            .map(|said| Said {
                subject: said.subject(),
                payload: said.payload().into(),
                stored: said.stored(),
                mirror: said.mirror(),
            })
            .collect())
    }

    /// Behind a batch: watchers see the newest previews, mirrors follow their stored outputs.
    async fn show(&mut self, watermark_ns: Option<i64>) -> Result<(), BusError> {
        let pending = self.reader.pending();
        self.stats.state(pending, watermark_ns, self.writer.last_seq(), self.writer.resyncs());
        let previews = std::mem::take(&mut self.previews);
        if pending <= self.bus.config().task.preview_pending_max {
            for (subject, payload) in previews {
                self.bus.publish(subject, payload).await?;
                self.stats.preview();
            }
        }
        Ok(())
    }

    /// Begins the next write that may be made, if none is under way: mirrors of acknowledged outputs first, then the
    /// checkpoint behind them. The fold does not wait for it.
    async fn keep(&mut self) -> Result<(), BusError> {
        if self.keeping.is_some() || (self.mirrors.is_empty() && self.next.is_none()) {
            return Ok(());
        }
        self.writer.pump().await?;
        let acked = self.writer.last_seq();
        let bus = self.bus.clone();
        // Those behind the next checkpoint wait for it: it is not to wait for ever. An entry that was said again since
        // is regenerated behind it.
        let due = self.next.as_ref().map_or(acked, |next| next.header.out_seq.min(acked));
        let ready = self.mirrors.iter().find(|(_, (k, _))| *k <= due).map(|(entry, _)| entry.clone());
        if let Some(entry) = ready
            && let Some((k, value)) = self.mirrors.remove(&entry)
        {
            let (output, stored_at_open) = (self.spec.output.clone(), self.stored_at_open);
            self.keeping = Some(Box::pin(async move {
                // A regenerated output: an entry of it, or a newer one, may be there, and an operator may have written
                // since.
                if k > stored_at_open || !mirrored(&bus, &output, &entry, k).await? {
                    let mut headers = HeaderMap::new();
                    headers.insert(MIRROR_OF, format!("{output}:{k}").as_str());
                    kv::put_with(&bus, &entry.0, &entry.1, headers, value).await?;
                }
                Ok(Kept::Mirror)
            }));
            return Ok(());
        }
        if self.next.as_ref().is_some_and(|next| next.header.out_seq <= acked)
            && let Some(checkpoint) = self.next.take()
        {
            let (key, revision, out_seq) = (self.key.clone(), self.revision, checkpoint.header.out_seq);
            self.keeping = Some(Box::pin(async move {
                let revision = checkpoint::store(&bus, &key, &checkpoint, revision).await?;
                Ok(Kept::Checkpoint(revision, out_seq))
            }));
        }
        Ok(())
    }

    fn kept(&mut self, kept: Kept) {
        if let Kept::Checkpoint(revision, out_seq) = kept {
            self.revision = revision;
            self.stats.checkpointed(out_seq);
        }
    }

    /// Whether a write waits for acknowledgements.
    fn waits(&self) -> bool {
        self.keeping.is_none() && (self.next.is_some() || !self.mirrors.is_empty())
    }

    /// What the next checkpoint holds; it is written once the outputs so far are acknowledged, never before them.
    fn snapshot(&mut self, state: Vec<u8>, code_version: u32) {
        self.due = Instant::now() + ms(self.bus.config().task.checkpoint_ms_max);
        if self.unsaid > 0 {
            // It would spend the operator's word before the stored outputs are passed; a crash begins again there.
            return;
        }
        if let Some(last) = &self.last {
            self.last_id = checkpoint::message_id(last);
        }
        let header = Header {
            code_version,
            input: self.spec.input.clone(),
            filter: self.spec.filter.clone(),
            output: self.spec.output.clone(),
            in_seq: self.cursor,
            in_id: self.last_id,
            out_seq: self.writer.pushed(),
            accepted: self.accepted.clone(),
        };
        self.next = Some(Checkpoint { header, state });
        self.since_checkpoint = 0;
    }

    /// A checkpoint of now, and waits until it is written.
    async fn checkpoint(&mut self, state: Vec<u8>, code_version: u32) -> Result<(), BusError> {
        self.snapshot(state, code_version);
        self.writer.drain().await?;
        loop {
            self.keep().await?;
            if self.keeping.is_none() {
                return Ok(());
            }
            let kept = under_way(&mut self.keeping).await?;
            self.kept(kept);
        }
    }
}

/// Whether the entry's history shows output `k` of the stream `output`, or a later one.
async fn mirrored(bus: &Bus, output: &str, (bucket, key): &(String, String), k: u64) -> Result<bool, BusError> {
    let stream = kv::stream(bucket);
    for entry in kv::history(bus, bucket, key).await? {
        let Some(whole) = leader::get_whole(bus, &stream, entry.seq).await? else { continue };
        let shown = whole.headers.get(MIRROR_OF).and_then(|of| of.as_str().rsplit_once(':'));
        if shown.is_some_and(|(of, seq)| of == output && seq.parse().is_ok_and(|seq: u64| seq >= k)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn same_places(key: &str, spec: &TaskSpec, header: &Header) -> Result<(), BusError> {
    let (mine, theirs) = ((&spec.input, &spec.filter, &spec.output), (&header.input, &header.filter, &header.output));
    if mine == theirs {
        return Ok(());
    }
    Err(BusError::Config(format!(
        "checkpoint {key} belongs to {} filter {} into {}, this task is {} filter {} into {}; give the task another key",
        theirs.0, theirs.1, theirs.2, mine.0, mine.1, mine.2
    )))
}
