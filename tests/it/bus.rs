//! The traps of the bus, each against a real nats-server: kill -9 in the middle of a window, twins, lost tails,
//! expired and rewritten input, drops in the client.
//!
//! Why the writer exists at all: `publish()` and `flush()` of the client return Ok for bytes that are dropped with
//! the write buffer when the connection is replaced, so only an acknowledgement counts, and after a lost
//! acknowledgement only the position tells whether a message is stored.

mod folding;
mod layout;
mod reader;
mod recovery;
mod stage;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::stream::Config as StreamConfig;
use nats::checkpoint::{self, Checkpoint};
use nats::task::{self, Accept};
use nats::telemetry::TaskStats;
use nats::{Bus, BusError, Config, TaskSpec, Writer, kv};
use schemas::{Core, Fault, Listen, Place, Speak, WireError};
use tests::{Server, wait_for};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(20);

/// Bounds that make a restart of the server short.
pub fn quick() -> Config {
    let mut config = Config::default();
    config.connection.reconnect_delay_ms_max = 100;
    config.connection.request_timeout_ms = 500;
    config.connection.streams_wait_s_max = 1;
    config.connection.behind_ms_max = 300;
    config.writer.ack_timeout_ms = 500;
    config.reader.heartbeat_ms = 200;
    config.reader.expires_ms = 1000;
    config.task.checkpoint_ms_max = 100;
    config
}

async fn server_and_bus() -> anyhow::Result<(Server, Bus)> {
    let server = Server::start().await?;
    let bus = server.bus_with("test", quick()).await?;
    Ok((server, bus))
}

pub async fn make(bus: &Bus, name: &str, subject: &str) -> anyhow::Result<()> {
    make_with(bus, StreamConfig { name: name.into(), subjects: vec![subject.into()], ..Default::default() }).await
}

pub async fn make_with(bus: &Bus, config: StreamConfig) -> anyhow::Result<()> {
    bus.js().create_stream(config).await?;
    Ok(())
}

pub async fn make_checkpoints(bus: &Bus) -> anyhow::Result<()> {
    make_with(
        bus,
        StreamConfig {
            name: "KV_ckpt".into(),
            subjects: vec!["$KV.ckpt.>".into()],
            max_messages_per_subject: 5,
            ..Default::default()
        },
    )
    .await
}

/// IN, OUT and the checkpoint bucket with the numbers `1..=n` in IN.
pub async fn task_streams(bus: &Bus, n: u64) -> anyhow::Result<()> {
    make(bus, "IN", "t.in.>").await?;
    make(bus, "OUT", "t.out.>").await?;
    make_checkpoints(bus).await?;
    feed(bus, 1, n).await
}

pub async fn feed(bus: &Bus, from: u64, to: u64) -> anyhow::Result<()> {
    let mut writer = Writer::open(bus, "IN").await?;
    for i in from..=to {
        writer.push("t.in.number", i.to_string()).await?;
    }
    Ok(writer.drain().await?)
}

/// A KV value as text.
async fn value(bus: &Bus, bucket: &str, key: &str) -> anyhow::Result<Option<String>> {
    let entry = kv::get(bus, bucket, key).await?;
    Ok(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
}

fn spec() -> TaskSpec {
    TaskSpec { key: "fold".into(), input: "IN".into(), filter: "t.in.>".into(), output: "OUT".into() }
}

/// Sums what it hears and says every total; `salt` makes it another program.
#[derive(Default)]
pub struct Fold<const VERSION: u32> {
    pub total: u64,
    pub salt: u64,
}

pub struct Number(u64);

impl Listen for Number {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        if subject.starts_with("t.in.other") {
            return Ok(None);
        }
        let text = std::str::from_utf8(payload).map_err(WireError::invalid)?;
        text.parse().map(|n| Some(Self(n))).map_err(WireError::invalid)
    }
}

pub enum Said {
    Total { total: u64, cause: u64 },
    Preview(u64),
    State(u64),
}

impl Speak for Said {
    fn subject(&self) -> String {
        match self {
            Self::Total { .. } => "t.out.total".into(),
            Self::Preview(_) => "preview.t".into(),
            Self::State(_) => "t.out.state".into(),
        }
    }
    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Total { total, cause } => format!("{total} at {cause}").into_bytes(),
            Self::Preview(n) | Self::State(n) => n.to_string().into_bytes(),
        }
    }
    fn stored(&self) -> bool {
        !matches!(self, Self::Preview(_))
    }
    fn mirror(&self) -> Option<(String, String)> {
        matches!(self, Self::State(_)).then(|| ("cfg".to_owned(), "desk.t".to_owned()))
    }
}

impl<const VERSION: u32> Core for Fold<VERSION> {
    type In = Number;
    type Out = Said;
    const CODE_VERSION: u32 = VERSION;

    fn handle(&mut self, place: &Place, Number(n): Number, out: &mut Vec<Said>) -> Result<(), Fault> {
        self.total += n;
        out.push(Said::Total { total: self.total + self.salt, cause: place.seq });
        out.push(Said::Preview(self.total));
        if n.is_multiple_of(1_000_000) {
            out.push(Said::State(n));
        }
        Ok(())
    }
    fn save(&self) -> Vec<u8> {
        self.total.to_be_bytes().to_vec()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.total = u64::from_be_bytes(state.try_into().map_err(WireError::invalid)?);
        Ok(())
    }
}

/// What the fold of `1..=n` puts into OUT.
pub fn totals(n: u64) -> Vec<(u64, String, Vec<u8>)> {
    let mut total = 0;
    (1..=n)
        .map(|i| {
            total += i;
            (i, "t.out.total".to_owned(), format!("{total} at {i}").into_bytes())
        })
        .collect()
}

/// A running task that a test can stop.
struct Running {
    stop: CancellationToken,
    stats: Arc<TaskStats>,
    handle: tokio::task::JoinHandle<Result<(), BusError>>,
}

fn run<const VERSION: u32>(bus: &Bus, salt: u64) -> Running {
    run_accepting::<VERSION>(bus, salt, Accept::default())
}

fn run_accepting<const VERSION: u32>(bus: &Bus, salt: u64, accept: Accept) -> Running {
    let (stop, stats) = (CancellationToken::new(), TaskStats::new("fold"));
    let (bus, token, shared) = (bus.clone(), stop.clone(), Arc::clone(&stats));
    let handle = tokio::spawn(async move {
        let core = Fold::<VERSION> { total: 0, salt };
        task::run(&bus, &spec(), core, accept, &shared, &token).await
    });
    Running { stop, stats, handle }
}

impl Running {
    /// Stops when the task has folded everything up to `in_seq`.
    async fn until(self, in_seq: u64) -> anyhow::Result<()> {
        let stats = Arc::clone(&self.stats);
        let handle = &self.handle;
        wait_for("the task to read its input", BOUND, || async {
            (stats.in_seq() >= in_seq || handle.is_finished()).then_some(())
        })
        .await?;
        self.stop.cancel();
        Ok(tokio::time::timeout(BOUND, self.handle).await???)
    }
    async fn ends(self) -> anyhow::Result<BusError> {
        let ended = tokio::time::timeout(BOUND, self.handle).await.context("the task goes on")??;
        Ok(ended.err().context("the task ended in peace")?)
    }
}

/// Puts the state before the first input into the bucket, as a crash before the second checkpoint leaves it.
async fn checkpoint_back_to_start(bus: &Bus) -> anyhow::Result<()> {
    let newest = kv::get(bus, "ckpt", "test.fold").await?.context("no checkpoint")?;
    let mut back = Checkpoint::from_bytes(&newest.value)?;
    (back.header.in_seq, back.header.in_id, back.header.out_seq) = (0, 0, 0);
    back.state = 0u64.to_be_bytes().to_vec();
    checkpoint::store(bus, "test.fold", &back, newest.revision).await?;
    Ok(())
}
