//! The crash matrix: a stage is killed exactly between two of its inputs, for every boundary of a window in turn, and
//! alone at sampled ones. What it says in the end is byte for byte what it says without a crash.
//!
//! The gate is the input stream itself: the recorded inputs are stored up to a boundary, the stage folds them and
//! stores what it says, dies, is started again, and the next input comes. Ingest reads a file; its gate is a bound on
//! the messages of its output stream.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::jetstream::stream::DiscardPolicy;
use ledger::db::Db;
use nats::Bus;
use schemas::config::UserFile;
use schemas::core::{Core, Listen, Place, Speak};
use schemas::subject::{partition, stream};
use serde_json::Value;
use tests::feed::Feed;
use tests::fleet::Fleet;
use tests::session::{self, ACCOUNT, Reference, SYMBOL, Session, VENUE};
use tests::{Server, compare, stored, wait_for};

/// Boundaries of the window.
const WINDOW: usize = 32;
/// Boundaries that are struck alone, each in a run of its own.
const SAMPLES: usize = 2;
const BOUND: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 2;
/// Checkpoints right behind some boundaries and not behind others.
const CHECKPOINTS: &str = "[nats.task]\ncheckpoint_inputs_max = 3\n";

/// A stage with its one gated input, and what it says of it.
struct Row {
    stage: &'static str,
    task: String,
    input: String,
    output: String,
    /// Sequences of its inputs, in order, each with the number of outputs up to and with it.
    steps: Vec<(u64, u64)>,
    /// Steps in whose middle something happens worth dying at.
    window: Range<usize>,
}

impl Row {
    /// Folds the recorded input to learn where the boundaries are.
    async fn of<C: Core>(
        reference: &Reference,
        (stage, task): (&'static str, String),
        (input, filter, output): (String, &str, String),
        mut core: C,
        telling: &str,
    ) -> anyhow::Result<Self>
    where
        C::In: Listen,
        C::Out: Speak,
    {
        let (mut steps, mut told, mut said, mut out) = (Vec::new(), Vec::new(), 0, Vec::new());
        for (seq, subject, payload) in stored(&reference.bus, &input).await? {
            if !subject.starts_with(filter) {
                continue;
            }
            if let Ok(Some(fact)) = C::In::hear(&subject, &payload) {
                core.handle(&Place::new(&input, seq), fact, &mut out).map_err(|fault| anyhow::anyhow!(fault.0))?;
            }
            if out.iter().any(|fact| fact.subject().starts_with(telling)) {
                told.push(steps.len());
            }
            said += out.drain(..).filter(Speak::stored).count() as u64;
            steps.push((seq, said));
        }
        ensure!(said == reference.ends[&output], "{stage}: the fold says {said} facts");
        let middle = *told.get(told.len() / 2).with_context(|| format!("{stage} never says {telling}"))?;
        let from = middle.saturating_sub(WINDOW / 2).min(steps.len().saturating_sub(WINDOW));
        ensure!(steps.len() > WINDOW, "{stage} has {} inputs", steps.len());
        Ok(Self { stage, task, input, output, steps, window: from..from + WINDOW })
    }

    /// One run of the whole session with a kill behind each of `boundaries`.
    async fn run(&self, reference: &Reference, boundaries: &[usize]) -> anyhow::Result<()> {
        let Bench { server, bus, mut fleet } = Bench::start(reference, self.stage, &self.task).await?;
        let mut feed = if self.input == stream::desk(ACCOUNT) {
            Feed::sequencer(&reference.bus, &self.input, &bus, 1).await?
        } else {
            Feed::new(&reference.bus, &self.input, &bus).await?
        };
        fleet.spawn(self.stage)?;
        let last = self.steps.len() - 1;
        for step in boundaries.iter().chain([&last]) {
            let (seq, said) = self.steps[*step];
            // Behind the last boundary all the rest, with what the filter passes over.
            feed.up_to(if *step == last { u64::MAX } else { seq }).await?;
            wait_for("the stage at its boundary", BOUND, || async {
                let there = bus.stream(&self.output).await.ok()?.last_seq;
                (there == said && cursor(&bus, self.stage).await? == seq).then_some(())
            })
            .await
            .with_context(|| format!("{} behind {}:{seq}\n{}", self.stage, self.input, fleet.logs()))?;
            ensure!(fleet.kill9(self.stage)?, "{} is gone", self.stage);
            if *step != last {
                fleet.spawn(self.stage)?;
            }
        }
        let compared = compare::stream(&reference.bus, &bus, &self.output).await?;
        drop(server);
        ensure!(compared.difference.is_none(), "{}", compared.difference.unwrap_or_default());
        Ok(())
    }
}

/// A server with all streams, and a fleet of one stage that is not started yet.
struct Bench {
    server: Server,
    bus: Bus,
    fleet: Fleet,
}

impl Bench {
    async fn start(reference: &Reference, stage: &'static str, task: &str) -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        reference.session.layout().apply(&bus).await?;
        let config = server.dir().join("tapeline.toml");
        let database = session::database(server.dir());
        std::fs::write(&config, reference.session.configuration(&database, 0.0, CHECKPOINTS))?;
        let mut args = vec!["--partitions".to_owned(), PARTITIONS.to_string()];
        if !task.is_empty() {
            args.extend(["--tasks".to_owned(), task.to_owned()]);
        }
        let fleet = Fleet::new(server.dir(), &config, args, [(stage, server.env(stage))].into());
        Ok(Self { server, bus, fleet })
    }
}

/// The last input that the stage's one task folded, as it says itself.
async fn cursor(bus: &Bus, stage: &str) -> Option<u64> {
    let asked = bus.client().request(format!("$SRV.STATS.tapeline-{stage}"), "".into());
    let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    let status = answer["endpoints"].as_array()?.iter().find(|e| e["name"] == "status")?;
    status["data"]["tasks"][0]["in_seq"].as_u64()
}

async fn rows(reference: &Reference) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(&reference.config)?;
    let user = UserFile { name: "tapeline.toml".into(), text };
    let p = partition(VENUE, SYMBOL, PARTITIONS);
    let (raw, candles, signals) = (stream::raw(VENUE), stream::aggregate(VENUE, p), stream::signal(VENUE, p));
    let (desk, said, executed) = (stream::desk(ACCOUNT), stream::risk(ACCOUNT), stream::exec(ACCOUNT));
    let aggregate = aggregate::core::AggregateCore::new(&aggregate::config::Config::load(Some(&user))?)?;
    let strategy = strategy::core::StrategyCore::new(&strategy::config::Config::load(Some(&user))?)?;
    let risk = risk::RiskCore::new(ACCOUNT, &risk::Config::load(Some(&user))?)?;
    let executor = executor::core::ExecutorCore::new(ACCOUNT, &executor::config::Config::load(Some(&user))?);
    let of = |stage: &'static str| (stage, format!("{stage}.{VENUE}.{p}"));
    let account = |stage: &'static str| (stage, format!("{stage}.{ACCOUNT}"));
    let filter = format!("raw.{p}.");
    Ok(vec![
        Row::of(reference, of("aggregate"), (raw, &filter, candles.clone()), aggregate, "candle.").await?,
        Row::of(reference, of("strategy"), (candles, "", signals), strategy, "signal.").await?,
        Row::of(reference, account("risk"), (desk.clone(), "", said), risk, "order.").await?,
        Row::of(reference, account("executor"), (desk, "", executed), executor, "fill.").await?,
    ])
}

/// Ingest dies behind every fact of a window of its stream.
async fn ingest(reference: &Reference, boundaries: Range<u64>) -> anyhow::Result<()> {
    let Bench { server, bus, mut fleet } = Bench::start(reference, "ingest", "").await?;
    let raw = stream::raw(VENUE);
    let open_to = async |messages: i64| -> anyhow::Result<()> {
        let mut config = bus.js().get_stream(&raw).await?.cached_info().config.clone();
        config.max_messages = messages;
        config.discard = DiscardPolicy::New;
        bus.js().update_stream(config).await?;
        Ok(())
    };
    let last = reference.ends[&raw];
    for seq in boundaries.chain([last]) {
        open_to(if seq == last { -1 } else { seq as i64 }).await?;
        fleet.spawn("ingest")?;
        wait_for("ingest at its boundary", BOUND, || async {
            (bus.stream(&raw).await.ok()?.last_seq == seq).then_some(())
        })
        .await
        .with_context(|| format!("ingest behind {seq}\n{}", fleet.logs()))?;
        ensure!(fleet.kill9("ingest")?, "ingest is gone");
    }
    let compared = compare::stream(&reference.bus, &bus, &raw).await?;
    drop(server);
    ensure!(compared.difference.is_none(), "{}", compared.difference.unwrap_or_default());
    Ok(())
}

/// The ledger dies behind every fact of a window of the executor's journal; risk's facts are there before.
async fn ledger(reference: &Reference) -> anyhow::Result<()> {
    let Bench { server, bus, mut fleet } = Bench::start(reference, "ledger", "").await?;
    let url = session::database(server.dir());
    session::make_database(&url).await?;
    let mut others = reference.session.streams();
    others.retain(|name| ledger::core::Fold::reads(name) && *name != stream::exec(ACCOUNT));
    for name in &others {
        Feed::new(&reference.bus, name, &bus).await?.up_to(u64::MAX).await?;
    }
    let exec = stream::exec(ACCOUNT);
    let mut feed = Feed::new(&reference.bus, &exec, &bus).await?;
    let from = (feed.last() / 2).saturating_sub(WINDOW as u64 / 2).max(1);
    fleet.spawn("ledger")?;
    for seq in (from..from + WINDOW as u64).chain([feed.last()]) {
        feed.up_to(seq).await?;
        wait_for("the ledger at its boundary", BOUND, || async {
            let mut db = Db::open(&url, BOUND).await.ok()?;
            (db.cursors().await.ok()?.get(&exec)?.seq == seq).then_some(())
        })
        .await
        .with_context(|| format!("ledger behind {exec}:{seq}\n{}", fleet.logs()))?;
        ensure!(fleet.kill9("ledger")?, "the ledger is gone");
        fleet.spawn("ledger")?;
    }
    let ends = session::ends(&bus, &reference.session).await?;
    wait_for("the ledger", BOUND, || async { session::written(&url, &ends).await.ok()?.then_some(()) }).await?;
    let difference = compare::tables(&reference.tables, &session::tables(&url).await?);
    ensure!(difference.is_none(), "{}", difference.unwrap_or_default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_dies_between_any_two_inputs_says_what_it_would_have_said() -> anyhow::Result<()> {
    let Some(whole) = Session::whole(PARTITIONS) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let reference = Reference::record(whole.cut(8_000, dir.path())?, 20.0).await?;
    ensure!(reference.fills() > 0, "the recorded session trades");
    let raw = reference.ends[&stream::raw(VENUE)] / 2;
    for row in rows(&reference).await? {
        let begun = std::time::Instant::now();
        let boundaries: Vec<usize> = row.window.clone().collect();
        row.run(&reference, &boundaries).await.with_context(|| format!("{}, every boundary", row.stage))?;
        for sample in boundaries.chunks(WINDOW / SAMPLES) {
            row.run(&reference, &sample[sample.len() / 2..][..1])
                .await
                .with_context(|| format!("{}, alone", row.stage))?;
        }
        eprintln!("{}: {WINDOW} boundaries and {SAMPLES} alone, {:?}", row.stage, begun.elapsed());
    }
    let begun = std::time::Instant::now();
    ingest(&reference, raw..raw + WINDOW as u64).await.context("ingest, every boundary")?;
    eprintln!("ingest: {WINDOW} boundaries, {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    ledger(&reference).await.context("ledger, every boundary")?;
    eprintln!("ledger: {WINDOW} boundaries, {:?}", begun.elapsed());
    Ok(())
}
