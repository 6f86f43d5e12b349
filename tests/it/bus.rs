//! The traps of the bus, each against a real nats-server: kill -9 in the middle of a window, twins, lost tails,
//! expired and rewritten input, drops in the client.
//!
//! Why the writer exists at all: `publish()` and `flush()` of the client return Ok for bytes that are dropped with
//! the write buffer when the connection is replaced, so only an acknowledgement counts, and after a lost
//! acknowledgement only the position tells whether a message is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::stream::{Config as StreamConfig, SubjectTransform};
use futures_util::StreamExt;
use nats::checkpoint::{self, Checkpoint};
use nats::kv::{self, Put};
use nats::task::{self, Accept};
use nats::telemetry::TaskStats;
use nats::{Bus, BusError, Config, Layout, Reader, TaskSpec, Writer};
use schemas::{Core, Fault, Listen, Place, Speak, WireError};
use tests::{Server, stored, wait_for};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_server_in_the_middle_of_a_window_neither_lose_nor_double() -> anyhow::Result<()> {
    const N: u64 = 12_000;
    let (mut server, bus) = server_and_bus().await?;
    make(&bus, "S", "s.>").await?;
    let pushed = Arc::new(AtomicU64::new(0));
    let (counter, writer_bus) = (Arc::clone(&pushed), bus.clone());
    let writing = tokio::spawn(async move {
        let mut writer = Writer::resume(&writer_bus, "S", 0).await?;
        for i in 1..=N {
            writer.push("s.n", i.to_string()).await?;
            counter.store(i, Relaxed);
        }
        writer.drain().await?;
        anyhow::Ok(writer.resyncs())
    });
    for kill in 1..=3 {
        let pushed = &pushed;
        wait_for("the writer to get on", BOUND, || async { (pushed.load(Relaxed) >= kill * N / 4).then_some(()) })
            .await?;
        server.kill9()?;
        server.restart().await?;
    }
    let resyncs = tokio::time::timeout(BOUND, writing).await???;
    assert!(resyncs >= 3, "{resyncs} resyncs: the kills did not hit a window");
    let expected: Vec<_> = (1..=N).map(|i| (i, "s.n".to_owned(), i.to_string().into_bytes())).collect();
    assert_eq!(stored(&bus, "S").await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_gives_the_same_stream_over_kills_of_itself_and_of_the_server() -> anyhow::Result<()> {
    const N: u64 = 6000;
    let (mut server, bus) = server_and_bus().await?;
    task_streams(&bus, N / 2).await?;
    // Aborted somewhere: no drain, no last checkpoint.
    for reached in [500, 1500] {
        let task = run::<1>(&bus, 0);
        let stats = Arc::clone(&task.stats);
        wait_for("the task to get on", BOUND, || async { (stats.in_seq() >= reached).then_some(()) }).await?;
        task.handle.abort();
    }
    let task = run::<1>(&bus, 0);
    server.kill9()?;
    server.restart().await?;
    feed(&bus, N / 2 + 1, N).await?;
    task.until(N).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(N));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_instances_give_one_stream_and_the_slower_checkpoint_ends_its_task() -> anyhow::Result<()> {
    const N: u64 = 4000;
    let (server, bus) = server_and_bus().await?;
    let twin_bus = server.bus_with("test", quick()).await?;
    task_streams(&bus, N).await?;
    // A first life writes the first checkpoint, so that both instances open from the same place.
    run::<1>(&bus, 0).until(10).await?;
    let (one, two) = (run::<1>(&bus, 0), run::<1>(&twin_bus, 0));
    // Input that keeps coming: sooner or later both write a checkpoint at different places.
    let mut writer = Writer::open(&bus, "IN").await?;
    let mut n = N;
    while !one.handle.is_finished() && !two.handle.is_finished() {
        n += 1;
        anyhow::ensure!(n < 200_000, "both instances live on");
        writer.push("t.in.number", n.to_string()).await?;
        writer.drain().await?;
    }
    let (ended, living) = if one.handle.is_finished() { (one, two) } else { (two, one) };
    let error = ended.ends().await?;
    assert!(matches!(error, BusError::CheckpointFenced { .. }), "{error}");
    living.until(n).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(n));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_with_other_bytes_ends_fenced_and_changes_nothing() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 50).await?;
    let task = run::<1>(&bus, 0);
    let stats = Arc::clone(&task.stats);
    wait_for("the outputs", BOUND, || async { (stats.in_seq() >= 50).then_some(()) }).await?;
    task.handle.abort(); // outputs stand beyond the only checkpoint, the one at the start
    checkpoint_back_to_start(&bus).await?;
    let error = run::<1>(&bus, 7).ends().await?;
    assert!(matches!(error, BusError::Fenced { seq: 1, .. }), "{error}");
    assert!(error.to_string().contains("fenced or nondeterministic"), "{error}");
    let there = stored(&bus, "OUT").await?;
    assert_eq!(there, totals(there.len() as u64));
    Ok(())
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_owner_of_a_stream_ends_the_first_even_with_equal_bytes() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make(&bus, "S", "s.>").await?;
    let mut first = Writer::open(&bus, "S").await?;
    first.push("s.n", "a").await?;
    first.drain().await?;
    let mut second = Writer::open(&bus, "S").await?;
    second.push("s.n", "b").await?;
    second.drain().await?;
    first.push("s.n", "b").await?;
    let error = first.drain().await.unwrap_err();
    assert!(matches!(error, BusError::Fenced { seq: 2, .. }), "{error}");
    assert_eq!(stored(&bus, "S").await?.len(), 2);
    Ok(())
}

/// A position alone does not fence a window: the one who is refused at k would be stored at k+1, which exists by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_overtaken_stores_nothing_more_of_its_window() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make(&bus, "S", "s.>").await?;
    let mut first = Writer::open(&bus, "S").await?;
    first.push("s.n", "a1").await?;
    first.drain().await?;
    let mut second = Writer::open(&bus, "S").await?;
    second.push("s.n", "b1").await?;
    second.drain().await?;
    let window = async {
        for n in 2..40 {
            first.push("s.n", format!("a{n}")).await?;
        }
        first.drain().await
    };
    let error = window.await.unwrap_err();
    assert!(matches!(error, BusError::Fenced { seq: 2, .. }), "{error}");
    second.push("s.n", "b2").await?;
    second.drain().await?;
    let words: Vec<Vec<u8>> = stored(&bus, "S").await?.into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(words, [b"a1", b"b1", b"b2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_owners_with_full_windows_exactly_one_goes_on_without_a_hole() -> anyhow::Result<()> {
    const FACTS: u32 = 3000;
    let (_server, bus) = server_and_bus().await?;
    for round in 0..10u32 {
        let (name, subject) = (format!("S{round}"), format!("s{round}.n"));
        make(&bus, &name, &format!("s{round}.>")).await?;
        let mut first = Writer::open(&bus, &name).await?;
        first.push(subject.as_str(), "a0").await?;
        first.drain().await?;
        // The second opens while the first has a window on its way, and both push on as fast as they can.
        let run = |mut writer: Writer, who: char| {
            let subject = subject.clone();
            async move {
                for i in 1..=FACTS {
                    writer.push(subject.as_str(), format!("{who}{i}")).await?;
                }
                writer.drain().await?;
                Ok::<_, BusError>(who)
            }
        };
        let begin = 100 * round;
        let opening = async {
            wait_for("the first to be under way", BOUND, || async {
                (bus.stream(&name).await.ok()?.last_seq > u64::from(begin)).then_some(())
            })
            .await
            .map_err(|e| BusError::Config(e.to_string()))?;
            run(Writer::open(&bus, &name).await?, 'b').await
        };
        let (a, b) = tokio::join!(run(first, 'a'), opening);
        let there = stored(&bus, &name).await?;
        let words: Vec<String> = there.iter().map(|(_, _, p)| String::from_utf8_lossy(p).into_owned()).collect();
        let of = |who: char| words.iter().filter(|w| w.starts_with(who)).cloned().collect::<Vec<_>>();
        let unbroken = |who: char, from: u32, count: usize| {
            let wanted: Vec<String> = (from..).take(count).map(|i| format!("{who}{i}")).collect();
            assert_eq!(of(who), wanted, "round {round}: a hole in what {who} stored");
        };
        unbroken('a', 0, of('a').len());
        unbroken('b', 1, of('b').len());
        let fenced = |r: &Result<char, BusError>| matches!(r, Err(BusError::Fenced { .. }));
        match (&a, &b) {
            (Ok(_), b) if fenced(b) => assert_eq!(of('a').len(), FACTS as usize + 1),
            (a, Ok(_)) if fenced(a) => assert_eq!(of('b').len(), FACTS as usize),
            // The first had said everything before the second began.
            (Ok(_), Ok(_)) => assert_eq!(words.len(), 2 * FACTS as usize + 1),
            ended => panic!("round {round}: {ended:?}"),
        }
    }
    Ok(())
}

/// With async-nats' own publish, futures that nobody awaits keep their permits and the 5,001st publish hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_pushes_that_nobody_drains_do_not_hang() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.writer.window = 4096;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "S", "s.>").await?;
    let mut writer = Writer::open(&bus, "S").await?;
    let pushing = async {
        for i in 0..20_000u32 {
            writer.push("s.n", i.to_string()).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(BOUND, pushing).await.context("hangs")??;
    writer.drain().await?;
    assert_eq!(bus.stream("S").await?.last_seq, 20_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_pushes_back_and_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    let full = StreamConfig {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        max_messages: 10,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Default::default()
    };
    make_with(&bus, full.clone()).await?;
    let mut writer = Writer::open(&bus, "S").await?;
    for i in 0..15u32 {
        writer.push("s.n", i.to_string()).await?;
    }
    let waiting = tokio::time::timeout(Duration::from_millis(600), writer.drain()).await;
    assert!(waiting.is_err(), "a full stream is not an error yet: {waiting:?}");
    bus.js().update_stream(StreamConfig { max_messages: 100, ..full }).await?;
    tokio::time::timeout(BOUND, writer.drain()).await??;
    assert_eq!(stored(&bus, "S").await?.len(), 15);
    Ok(())
}

/// The client's ordered consumer would begin at sequence 1 here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lost_its_consumer_before_the_first_message_goes_on_from_its_cursor() -> anyhow::Result<()> {
    let (mut server, bus) = server_and_bus().await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, 100).await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.>", 101).await?;
    let idle = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    server.kill9()?;
    server.restart().await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    writer.push("t.in.number", "101").await?;
    let message = tokio::time::timeout(BOUND, reader.next()).await??;
    assert_eq!((message.seq, &message.payload[..]), (101, &b"101"[..]));
    assert!(reader.created() >= 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_passes_a_kill_of_the_server_without_gap_or_copy_and_keeps_to_its_filter() -> anyhow::Result<()> {
    const N: u64 = 20_000;
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch = 1000; // many requests, so that the kill finds one open
    let bus = server.bus_with("test", config).await?;
    let mut server = server;
    make(&bus, "IN", "t.in.>").await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    for i in 1..=N {
        writer.push(if i % 2 == 0 { "t.in.even" } else { "t.in.odd" }, i.to_string()).await?;
    }
    writer.drain().await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.even", 0).await?;
    let mut seen = Vec::new();
    while (seen.len() as u64) < N / 2 {
        let batch = tokio::time::timeout(BOUND, reader.next_batch(500)).await??;
        assert!(batch.len() <= 500);
        let before = seen.len();
        seen.extend(batch.iter().map(|m| m.seq));
        if before < 3000 && seen.len() >= 3000 {
            server.kill9()?;
            server.restart().await?;
        }
    }
    assert_eq!(seen, (1..=N / 2).map(|i| i * 2).collect::<Vec<_>>());
    assert!(reader.caught_up());
    Ok(())
}

/// The client drops what does not fit its subscription; the reader never asks for more than fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_loses_nothing() -> anyhow::Result<()> {
    const N: u64 = 10_000;
    let server = Server::start().await?;
    let mut config = quick();
    config.connection.subscription_messages_max = 1024;
    config.reader.batch = 512;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, N).await?;
    let mut reader = Reader::open(&bus, "IN", ">", 0).await?;
    assert_eq!(reader.next().await?.seq, 1);
    // The pause is the input of this test; nothing is waited for.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for seq in 2..=N {
        assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.seq, seq);
    }
    assert_eq!(bus.slow_consumers(), 0);
    // Requests run out and are renewed, heartbeats come: an idle reader keeps its consumer.
    let idle = tokio::time::timeout(Duration::from_millis(2500), reader.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    assert_eq!(reader.created(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_larger_than_a_readers_request_pass_and_its_memory_stays_bounded() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch_bytes_max = 1 << 20;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    let sizes: Vec<usize> = (0..40).map(|i| if i % 10 == 9 { 2 << 20 } else { 100_000 }).collect();
    for size in &sizes {
        writer.push("t.in.blob", vec![7u8; *size]).await?;
    }
    writer.drain().await?;
    let mut reader = Reader::open(&bus, "IN", ">", 0).await?;
    for size in &sizes {
        assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.payload.len(), *size);
    }
    assert_eq!(reader.created(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_expired_behind_the_checkpoint_halts() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    run::<1>(&bus, 0).until(100).await?;
    feed(&bus, 101, 300).await?;
    bus.js().get_stream("IN").await?.purge().sequence(201).await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputExpired { first: 201, cursor: 100, .. }), "{error}");
    // An operator may let it pass; the outputs go on at the next position.
    run_accepting::<1>(&bus, 0, Accept { loss: true, ..Accept::default() }).until(300).await?;
    assert_eq!(bus.stream("OUT").await?.last_seq, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_expires_under_a_lagging_reader_halts() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch = 64;
    config.reader.expiry_check_ms = 100;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, 2000).await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.>", 0).await?;
    assert_eq!(reader.next().await?.seq, 1);
    bus.js().get_stream("IN").await?.purge().sequence(1900).await?;
    let reading = async {
        loop {
            if let Err(error) = reader.next().await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(2)).await; // a slow fold
        }
    };
    let error = tokio::time::timeout(BOUND, reading).await?;
    assert!(matches!(error, BusError::InputExpired { .. }), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_stream_that_lost_its_tail_halts() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    run::<1>(&bus, 0).until(100).await?;
    bus.js().delete_stream("OUT").await?;
    make(&bus, "OUT", "t.out.>").await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::LostTail { last: 0, expected: 100, .. }), "{error}");
    assert!(error.to_string().contains("--accept-loss"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_was_rewritten_halts() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    run::<1>(&bus, 0).until(100).await?;
    bus.js().delete_stream("IN").await?;
    make(&bus, "IN", "t.in.>").await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputRewritten { seq: 100, .. }), "shorter: {error}");
    feed(&bus, 1001, 1200).await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputRewritten { seq: 100, .. }), "other bytes: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_another_code_version_halts_until_an_operator_accepts_it() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    run::<1>(&bus, 0).until(100).await?;
    let error = run::<2>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::CodeVersion { found: 1, mine: 2, .. }), "{error}");
    feed(&bus, 101, 200).await?;
    run_accepting::<2>(&bus, 0, Accept { version: true, ..Accept::default() }).until(200).await?;
    run::<2>(&bus, 0).until(0).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(200));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_checkpoint_falls_back_to_the_one_before() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    run::<1>(&bus, 0).until(100).await?;
    feed(&bus, 101, 200).await?;
    run::<1>(&bus, 0).until(200).await?;
    let newest = kv::get(&bus, "ckpt", "test.fold").await?.context("no checkpoint")?;
    let mut damaged = newest.value.to_vec();
    damaged[20] ^= 1;
    kv::put(&bus, "ckpt", "test.fold", damaged.into()).await?;
    feed(&bus, 201, 300).await?;
    run::<1>(&bus, 0).until(300).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(300));

    for _ in 0..5 {
        kv::put(&bus, "ckpt", "test.fold", "rubbish".into()).await?;
    }
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::CheckpointUnreadable { .. }), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_moves_only_from_the_revision_it_expects_and_a_lost_acknowledgement_is_found() -> anyhow::Result<()>
{
    let (_server, bus) = server_and_bus().await?;
    make_checkpoints(&bus).await?;
    let Put::Stored(first) = kv::update(&bus, "ckpt", "a.b", "one".into(), 0).await? else {
        panic!("a new key is free")
    };
    // The same write again, as after a lost acknowledgement.
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "one".into(), 0).await?, Put::Stored(first));
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "two".into(), 0).await?, Put::Moved);
    assert!(matches!(kv::update(&bus, "ckpt", "a.b", "two".into(), first).await?, Put::Stored(_)));
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "three".into(), first).await?, Put::Moved);
    assert_eq!(kv::create(&bus, "ckpt", "a.b", "four".into()).await?, Put::Moved);
    assert_eq!(value(&bus, "ckpt", "a.b").await?.as_deref(), Some("two"));
    assert_eq!(kv::get(&bus, "ckpt", "a.c").await?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_counted_and_passed_over_like_kinds_that_nobody_listens_to() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 2).await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    writer.push("t.in.number", "not a number").await?;
    writer.push("t.in.other", "anything").await?;
    writer.push("t.in.number", "3").await?;
    writer.drain().await?;
    let task = run::<1>(&bus, 0);
    let stats = Arc::clone(&task.stats);
    task.until(5).await?;
    assert_eq!((stats.undecodable_count(), stats.unknown_count(), stats.heard_count()), (1, 1, 5));
    let said: Vec<_> = stored(&bus, "OUT").await?.into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(said, [b"1 at 1".to_vec(), b"3 at 2".to_vec(), b"6 at 5".to_vec()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previews_reach_watchers_and_are_never_stored() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 3).await?;
    let mut watcher = bus.client().subscribe("preview.>").await?;
    bus.client().flush().await?;
    run::<1>(&bus, 0).until(3).await?;
    let preview = tokio::time::timeout(BOUND, watcher.next()).await?.context("no preview")?;
    assert_eq!((preview.subject.as_str(), &preview.payload[..]), ("preview.t", &b"6"[..]), "the newest of the batch");
    assert_eq!(stored(&bus, "OUT").await?, totals(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_follows_its_stored_output_and_a_restart_does_not_undo_the_operator() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 0).await?;
    let cfg = StreamConfig {
        name: "KV_cfg".into(),
        subjects: vec!["$KV.cfg.>".into()],
        max_messages_per_subject: 16,
        ..Default::default()
    };
    make_with(&bus, cfg).await?;
    feed(&bus, 1_000_000, 1_000_000).await?;
    run::<1>(&bus, 0).until(1).await?;
    assert_eq!(value(&bus, "cfg", "desk.t").await?.as_deref(), Some("1000000"));
    kv::put(&bus, "cfg", "desk.t", "operator".into()).await?;
    checkpoint_back_to_start(&bus).await?;
    run::<1>(&bus, 0).until(1).await?;
    assert_eq!(value(&bus, "cfg", "desk.t").await?.as_deref(), Some("operator"));
    assert_eq!(bus.stream("OUT").await?.last_seq, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_partition_is_the_servers() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make_with(
        &bus,
        StreamConfig {
            name: "P".into(),
            subjects: vec!["part.*.*".into()],
            subject_transform: Some(SubjectTransform {
                source: "part.*.*".into(),
                destination: "placed.{{partition(16,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}".into(),
            }),
            ..Default::default()
        },
    )
    .await?;
    let symbols: Vec<String> = (0..500).map(|i| format!("SYM{}/{}.é{i}", i % 7, i * 31)).collect();
    for symbol in &symbols {
        let subject = format!("part.binance.{}", schemas::subject::escape(symbol));
        bus.js().publish(subject, "".into()).await?.await?;
    }
    for (seq, (symbol, (_, subject, _))) in symbols.iter().zip(stored(&bus, "P").await?).enumerate() {
        let p = schemas::subject::partition("binance", symbol, 16);
        assert_eq!(subject, format!("placed.{p}.binance.{}", schemas::subject::escape(symbol)), "{seq}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn escaped_symbols_are_good_subjects_and_good_keys() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    make(&bus, "RAW_X", "raw.*.x.>").await?;
    make_checkpoints(&bus).await?;
    let mut writer = Writer::open(&bus, "RAW_X").await?;
    let symbols = ["BTC/USDT:USDT", "1INCH.USD", "BTC-USDT", "*", ">", "a b", "a..b", "=", "", "é漢%~$@#", ".x.", "-"];
    for symbol in symbols {
        let subject = schemas::subject::raw(0, "x", "trade", symbol);
        writer.push(subject.clone(), symbol).await?;
        writer.drain().await?;
        let key = format!("x.{}", schemas::subject::escape(symbol));
        kv::put(&bus, "ckpt", &key, format!("value of {symbol}").into()).await?;
        assert_eq!(value(&bus, "ckpt", &key).await?, Some(format!("value of {symbol}")));
        // The literal subject is a filter that matches this symbol alone.
        let found = Reader::latest(&bus, "RAW_X", &subject, 10).await?;
        assert_eq!(found.len(), 1, "{symbol}");
        assert_eq!(&found[0].payload[..], symbol.as_bytes());
    }
    let all = Reader::latest(&bus, "RAW_X", "raw.*.x.trade.*", 100).await?;
    assert_eq!(all.len(), symbols.len());
    Ok(())
}

fn layout() -> Layout {
    Layout { venues: vec!["x".into()], accounts: vec!["main".into()], traders: vec!["owl".into()], partitions: 2 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layout_is_applied_twice_and_its_partitions_are_frozen() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    layout().apply(&bus).await?;
    for stream in layout().streams() {
        bus.stream(&stream).await?;
    }
    let more = Layout { venues: vec!["x".into(), "y".into()], ..layout() };
    more.apply(&bus).await?;
    let desk = bus.js().get_stream("DESK_main").await?.cached_info().config.clone();
    assert!(desk.sources.iter().flatten().any(|s| s.name == "RAW_Y"), "a new venue reaches the desk");
    assert_eq!(nats::layout::partitions(&bus, "x").await?, Some(2));
    let error = Layout { partitions: 4, ..layout() }.apply(&bus).await.unwrap_err().to_string();
    assert!(error.contains("frozen"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_desk_is_the_recorded_merge_of_its_sources_over_a_kill_of_the_server() -> anyhow::Result<()> {
    const N: u64 = 600;
    let (mut server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    // (stream, subjects in turn, how many of them the desk hears)
    let sources: &[(&str, &[&str], &[&str])] = &[
        (
            "RAW_X",
            &[
                "raw.1.x.trade.A",
                "raw.0.x.clock._",
                "raw.1.x.clock._",
                "raw.1.x.book.A",
                "raw.0.x.quote.B",
                "raw.0.x.gap.B",
            ],
            &["raw.1.x.trade.A", "raw.0.x.clock._", "raw.0.x.quote.B", "raw.0.x.gap.B"],
        ),
        ("SIG_X_1", &["signal.1.ema.x.A"], &["signal.1.ema.x.A"]),
        ("SIG_EXT", &["signal.ext.mine.x.A"], &["signal.ext.mine.x.A"]),
        ("SIG_LLM_owl", &["llm.owl.verdict", "signal.llm.owl.x.A"], &["signal.llm.owl.x.A"]),
        (
            "RISK_main",
            &["order.main.x.A", "cancel.main.x.A", "position.main.x.A", "state.main"],
            &["order.main.x.A", "cancel.main.x.A", "state.main"],
        ),
        ("EXEC_main", &["ack.main.x.A", "fill.main.x.A"], &["ack.main.x.A", "fill.main.x.A"]),
    ];
    for half in 0..2 {
        for (stream, subjects, _) in sources {
            let mut writer = Writer::open(&bus, stream).await?;
            for i in half * N / 2..(half + 1) * N / 2 {
                writer.push(subjects[i as usize % subjects.len()], i.to_string()).await?;
            }
            writer.drain().await?;
        }
        kv::put(&bus, "cfg", "desk.main", format!("state {half}").into()).await?;
        kv::put(&bus, "cfg", "desk.other", "not ours".into()).await?;
        // Two keys: of one key, the older value is gone from its bucket as soon as the newer is there.
        kv::put(&bus, "instruments", &format!("x.{half}"), format!("instrument {half}").into()).await?;
        if half == 0 {
            server.kill9()?;
            server.restart().await?;
        }
    }
    let heard_of = |stream: &(&str, &[&str], &[&str])| -> Vec<(String, Vec<u8>)> {
        (0..N)
            .map(|i| (stream.1[i as usize % stream.1.len()].to_owned(), i.to_string().into_bytes()))
            .filter(|(subject, _)| stream.2.contains(&subject.as_str()))
            .collect()
    };
    let expected: usize = sources.iter().map(|s| heard_of(s).len()).sum::<usize>() + 4;
    let desk_bus = &bus;
    wait_for("the desk to hear everything", BOUND, || async {
        let state = desk_bus.stream("DESK_main").await.ok()?;
        (state.last_seq as usize >= expected).then_some(())
    })
    .await?;
    let desk = stored(&bus, "DESK_main").await?;
    assert_eq!(desk.len(), expected, "nothing is missing and nothing is there twice");
    for source in sources {
        let wanted = heard_of(source);
        let subjects: Vec<&str> = source.2.to_vec();
        let heard: Vec<_> = desk
            .iter()
            .filter(|(_, s, _)| subjects.contains(&s.as_str()))
            .map(|(_, s, p)| (s.clone(), p.clone()))
            .collect();
        assert_eq!(heard, wanted, "{} keeps its order and its subjects", source.0);
    }
    let of = |subject: &str| -> Vec<String> {
        desk.iter().filter(|(_, s, _)| s == subject).map(|(_, _, p)| String::from_utf8_lossy(p).into_owned()).collect()
    };
    assert_eq!(of("$KV.cfg.desk.main"), ["state 0", "state 1"]);
    assert_eq!([of("$KV.instruments.x.0"), of("$KV.instruments.x.1")], [["instrument 0"], ["instrument 1"]]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_opened_later_does_not_trade_the_past() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    layout().apply(&bus).await?;
    let mut raw = Writer::open(&bus, "RAW_X").await?;
    raw.push("raw.0.x.trade.A", "old").await?;
    raw.drain().await?;
    kv::put(&bus, "instruments", "x.A", "instrument".into()).await?;
    Layout { accounts: vec!["main".into(), "late".into()], ..layout() }.apply(&bus).await?;
    raw.push("raw.0.x.trade.A", "new").await?;
    raw.drain().await?;
    let late = &bus;
    wait_for("the late desk", BOUND, || async { (late.stream("DESK_late").await.ok()?.last_seq >= 2).then_some(()) })
        .await?;
    let mut heard: Vec<String> = stored(&bus, "DESK_late")
        .await?
        .into_iter()
        .map(|(_, _, p)| String::from_utf8_lossy(&p).into_owned())
        .collect();
    heard.sort();
    assert_eq!(heard, ["instrument", "new"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_without_its_streams_says_how_to_create_them() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    let error = nats::stage::require(&bus, &["RAW_X"]).await.unwrap_err().to_string();
    assert!(error.contains("RAW_X") && error.contains("tapeline init"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_answers_the_service_protocol_metrics_and_health() -> anyhow::Result<()> {
    let (server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    let args = nats::StageArgs { nats_url: server.url(), ..Default::default() };
    let stage = nats::Stage::start("fold", &args).await?;
    let mut log = bus.client().subscribe("log.fold").await?;
    bus.client().flush().await?;
    stage.task(spec(), Fold::<1>::default());
    let asked = &bus;
    let data = wait_for("the task in $SRV.STATS", BOUND, || async {
        let reply = asked.client().request("$SRV.STATS.tapeline-fold", "".into()).await.ok()?;
        let stats: serde_json::Value = serde_json::from_slice(&reply.payload).ok()?;
        let data = stats["endpoints"][0]["data"].clone();
        (data["tasks"][0]["in_seq"] == 100 && data["tasks"][0]["out_seq"] == 100).then_some(data)
    })
    .await?;
    assert_eq!((&data["stage"], &data["tasks"][0]["lag"]), (&"fold".into(), &0.into()));
    for key in ["ckpt_age_ms", "watermark_ns", "fenced", "undecodable"] {
        assert!(data["tasks"][0].get(key).is_some(), "{key} is missing in {data}");
    }
    for verb in ["PING", "INFO"] {
        let reply = bus.client().request(format!("$SRV.{verb}.tapeline-fold"), "".into()).await?;
        let info: serde_json::Value = serde_json::from_slice(&reply.payload)?;
        assert_eq!(info["metadata"]["http"], format!("http://{}", stage.http()), "{verb}");
    }
    let metrics = reqwest::get(format!("http://{}/metrics", stage.http())).await?.text().await?;
    assert!(metrics.contains("tapeline_input_messages_total{stage=\"fold\",task=\"fold\"} 100"), "{metrics}");
    assert!(metrics.contains("tapeline_lag_messages{stage=\"fold\",task=\"fold\"} 0"), "{metrics}");
    let health = reqwest::get(format!("http://{}/healthz", stage.http())).await?;
    assert_eq!(health.status(), 200);
    let line = tokio::time::timeout(BOUND, log.next()).await?.context("no log line on the bus")?;
    let line: serde_json::Value = serde_json::from_slice(&line.payload)?;
    assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    stage.stop().cancel();
    tokio::time::timeout(BOUND, stage.wait()).await??;
    let saved = kv::get(&bus, "ckpt", "fold.fold").await?.context("no checkpoint at the stop")?;
    assert_eq!(Checkpoint::from_bytes(&saved.value)?.header.in_seq, 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_part_ends_the_whole_stage_with_its_reason() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let args = nats::StageArgs { nats_url: server.url(), ..Default::default() };
    let stage = nats::Stage::start("fold", &args).await?;
    let stop = stage.stop();
    stage.spawn("steady", async move {
        stop.cancelled().await;
        Ok(())
    });
    stage.spawn("broken", async { anyhow::bail!("no such venue") });
    let error = tokio::time::timeout(BOUND, stage.wait()).await?.unwrap_err();
    assert_eq!(format!("{error:#}"), "fold broken: no such venue");
    Ok(())
}
