//! Stages scaled out, as real programs: shares by `--tasks`, shares by `--lease`, death, zombies and rolling restarts.
//! Whatever happens, the streams are byte for byte what one undisturbed fold of the raw ticks says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use aggregate::core::AggregateCore;
use anyhow::{Context, ensure};
use nats::{Bus, Layout, Writer, kv};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schemas::fixed::{PriceM, QtyM};
use schemas::raw::{Clock, Trade, Trades};
use schemas::subject::{partition, stream};
use schemas::{Fact, Nanos, Scale, Side, Version};
use strategy::core::StrategyCore;
use tests::{Server, program, stored, wait_for};
use tokio::task::JoinHandle;

use crate::fold::{Stored, assert_same, fold};

const BOUND: Duration = Duration::from_secs(60);
const VENUE: &str = "binance";
const PARTITIONS: u32 = 8;
const SYMBOLS: u64 = 16;
/// Event time of the first tick.
const START_NS: i64 = 1_723_161_600_000_000_000;
/// Event time of a step of the feed; the wall clock is paced by the test.
const STEP_NS: i64 = 250_000_000;
/// A feed that nobody stops ends here.
const STEPS_MAX: u64 = 20_000;

const CONFIG: &str = r#"
[aggregate]
venues = ["binance"]
timeframes = ["1s", "5s", "1m"]
indicator_timeframes = ["1s"]
preview_timeframes = []
[strategy]
venues = ["binance"]
[strategy.rule]
timeframe = "1s"
"#;

/// One program; dropping it kills exactly this process.
struct Instance {
    stage: &'static str,
    name: String,
    child: Child,
}

impl Instance {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
    fn kill9(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
    /// SIGTERM, and a peaceful end.
    async fn stop(mut self) -> anyhow::Result<()> {
        kill(self.pid(), Signal::SIGTERM)?;
        let child = &mut self.child;
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "{} ended with {status}", self.name);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("{} does not stop", self.name)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Floor {
    server: Server,
    bus: Bus,
    config: PathBuf,
}

impl Floor {
    async fn open() -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        let (venues, accounts) = (vec![VENUE.into()], vec!["main".into()]);
        Layout { venues, accounts, traders: vec![], partitions: PARTITIONS }.apply(&bus).await?;
        let config = server.dir().join("tapeline.toml");
        std::fs::write(&config, CONFIG)?;
        Ok(Self { server, bus, config })
    }

    fn spawn(&self, stage: &'static str, name: &str, args: &[&str]) -> anyhow::Result<Instance> {
        let log = self.server.dir().join(format!("{name}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program(stage)?)
            .arg("--config")
            .arg(&self.config)
            .args(["--partitions", &PARTITIONS.to_string()])
            .args(args)
            .envs(self.server.env(stage))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Instance { stage, name: name.to_owned(), child })
    }

    /// Ends of all logs, for errors.
    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.server.dir()).into_iter().flatten().flatten();
        let mut all = String::new();
        for file in files.filter(|f| f.path().extension().is_some_and(|e| e == "log")) {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            all += &format!("--- {}\n{tail}\n", file.path().display());
        }
        all
    }

    /// Partition to the instance that holds it.
    async fn holders(&self, stage: &str) -> anyhow::Result<BTreeMap<u32, String>> {
        let mut holders = BTreeMap::new();
        for p in 0..PARTITIONS {
            let key = nats::lease::task_key(stage, &format!("{VENUE}.{p}"));
            if let Some(entry) = kv::get(&self.bus, stream::KV_LEASE, &key).await? {
                let entry: serde_json::Value = rmp_serde::from_slice(&entry.value)?;
                holders.insert(p, entry["id"].as_str().context("no id")?.to_owned());
            }
        }
        Ok(holders)
    }

    /// Waits until `n` instances hold all partitions between them, in fair parts.
    async fn shared_by(&self, stage: &str, n: usize) -> anyhow::Result<BTreeMap<u32, String>> {
        wait_for(&format!("{n} instances of {stage} to share"), BOUND, || async {
            let holders = self.holders(stage).await.ok()?;
            let ids: BTreeSet<&String> = holders.values().collect();
            let most = ids.iter().map(|id| holders.values().filter(|h| h == id).count()).max()?;
            let fair = (PARTITIONS as usize).div_ceil(n);
            (holders.len() == PARTITIONS as usize && ids.len() == n && most == fair).then_some(holders)
        })
        .await
        .with_context(|| self.logs())
    }

    async fn last_seqs(&self, names: impl Iterator<Item = String>) -> anyhow::Result<Vec<u64>> {
        let mut all = Vec::new();
        for name in names {
            all.push(self.bus.stream(&name).await?.last_seq);
        }
        Ok(all)
    }

    /// Folds the stored ticks here, undisturbed, and waits until the streams hold exactly that. Gives the number of
    /// candles and of signals.
    async fn assert_exact(&self, signals: bool) -> anyhow::Result<(usize, usize)> {
        let user = schemas::config::UserFile { name: "test".into(), text: CONFIG.into() };
        let raw = stored(&self.bus, &stream::raw(VENUE)).await?;
        let (mut candles, mut said) = (0, 0);
        for p in 0..PARTITIONS {
            let mine = format!("raw.{p}.{VENUE}.");
            let facts: Stored = raw.iter().filter(|(_, subject, _)| subject.starts_with(&mine)).cloned().collect();
            let mut core = AggregateCore::new(&aggregate::config::Config::load(Some(&user))?)?;
            let expected = fold(&mut core, &stream::raw(VENUE), &facts);
            candles += expected.iter().filter(|(_, subject, _)| subject.starts_with("candle.")).count();
            let found = self.reaches(&stream::aggregate(VENUE, p), expected.len()).await?;
            assert_same(&stream::aggregate(VENUE, p), &expected, &found);
            if signals {
                let mut core = StrategyCore::new(&strategy::config::Config::load(Some(&user))?)?;
                let expected = fold(&mut core, &stream::aggregate(VENUE, p), &found);
                said += expected.len();
                let found = self.reaches(&stream::signal(VENUE, p), expected.len()).await?;
                assert_same(&stream::signal(VENUE, p), &expected, &found);
            }
        }
        Ok((candles, said))
    }

    async fn reaches(&self, name: &str, len: usize) -> anyhow::Result<Stored> {
        wait_for(&format!("{name} to hold {len}"), BOUND, || async {
            (self.bus.stream(name).await.ok()?.last_seq >= len as u64).then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        stored(&self.bus, name).await
    }

    /// Ticks that flow until they are stopped.
    async fn feed(&self, pause_ms: u64) -> anyhow::Result<Feed> {
        let bus = self.server.bus("ingest").await?;
        let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&steps));
        let feeding = tokio::spawn(async move {
            let mut writer = Writer::open(&bus, &stream::raw(VENUE)).await?;
            let mut pace = tokio::time::interval(Duration::from_millis(pause_ms.max(1)));
            for step in 0..STEPS_MAX {
                if stopped.load(Relaxed) {
                    break;
                }
                if pause_ms > 0 {
                    pace.tick().await; // the pace is the input of the test
                }
                push_step(&mut writer, step).await?;
                counted.store(step + 1, Relaxed);
            }
            writer.drain().await?;
            Ok(())
        });
        Ok(Feed { stop, steps, feeding })
    }
}

struct Feed {
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    feeding: JoinHandle<anyhow::Result<()>>,
}

impl Feed {
    async fn reaches(&self, step: u64) -> anyhow::Result<()> {
        wait_for("the feed to get on", BOUND, || async { (self.steps.load(Relaxed) >= step).then_some(()) }).await
    }
    /// Ends it, with the number of its steps.
    async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Relaxed);
        tokio::time::timeout(BOUND, self.feeding).await???;
        Ok(self.steps.load(Relaxed))
    }
}

/// One pack of every symbol, and once a second of event time the clock of every partition. A function of `step`.
async fn push_step(writer: &mut Writer, step: u64) -> anyhow::Result<()> {
    let ts = START_NS + step as i64 * STEP_NS;
    for s in 0..SYMBOLS {
        let symbol = format!("S{s:02}USDT");
        let p = partition(VENUE, &symbol, PARTITIONS);
        let mut pack = Trades::new(p, VENUE, &symbol, Scale { price: 2, qty: 3 });
        for i in 0..2u64 {
            let id = step * 2 + i + 1;
            // A slow wave a symbol, with a little noise on it.
            let wave = ((step as f64 / (12.0 + s as f64)).sin() * 400.0) as i64;
            let noise = (id.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(s) >> 59) as i64;
            pack.push(Trade {
                ts: Nanos(ts + i as i64),
                recv: Nanos(ts + i as i64),
                id,
                price: PriceM(100_000 + wave + noise),
                size: QtyM(1 + (id % 7) as i64),
                side: if id.is_multiple_of(3) { Side::Sell } else { Side::Buy },
            });
        }
        writer.push(pack.subject(), pack.encode()).await?;
    }
    if step % 4 == 3 {
        for p in 0..PARTITIONS {
            let clock = Clock { v: Version, venue: VENUE.into(), p, watermark_ns: ts, wall_ns: ts };
            writer.push(clock.subject(), clock.encode()).await?;
        }
    }
    Ok(())
}

fn outputs() -> impl Iterator<Item = String> {
    (0..PARTITIONS).flat_map(|p| [stream::aggregate(VENUE, p), stream::signal(VENUE, p)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_with_a_share_each_say_byte_for_byte_what_one_says() -> anyhow::Result<()> {
    const STEPS: u64 = 200;
    let mut said: Vec<BTreeMap<String, Stored>> = Vec::new();
    for shares in [vec![""], vec!["0-2", "3-7"]] {
        let floor = Floor::open().await?;
        let mut writer = Writer::open(&floor.server.bus("ingest").await?, &stream::raw(VENUE)).await?;
        let mut instances = Vec::new();
        for (i, share) in shares.iter().enumerate() {
            for stage in ["aggregate", "strategy"] {
                let list = if share.is_empty() { String::new() } else { format!("{stage}.{VENUE}.{share}") };
                instances.push(floor.spawn(stage, &format!("{stage}{i}"), &["--tasks", &list])?);
            }
        }
        for step in 0..STEPS {
            push_step(&mut writer, step).await?;
        }
        writer.drain().await?;
        let (candles, signals) = floor.assert_exact(true).await?;
        eprintln!("{} instances of each stage: {candles} candles, {signals} signals", shares.len());
        assert!(candles > 500 && signals > 0);
        let mut all = BTreeMap::new();
        for name in outputs() {
            all.insert(name.clone(), stored(&floor.bus, &name).await?);
        }
        said.push(all);
    }
    for (name, one) in &said[0] {
        assert_same(name, one, &said[1][name]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_holder_is_killed_another_takes_over_within_seconds() -> anyhow::Result<()> {
    let floor = Floor::open().await?;
    let feed = floor.feed(10).await?;
    let mut doomed = floor.spawn("aggregate", "a", &["--lease"])?;
    floor.shared_by("aggregate", 1).await?;
    let _heir = floor.spawn("aggregate", "b", &["--lease"])?;
    floor.shared_by("aggregate", 2).await?;
    let mut took_ms = Vec::new();
    for round in 0..3 {
        let before = floor.holders("aggregate").await?;
        let killed = Instant::now();
        std::mem::replace(&mut doomed, floor.spawn("aggregate", &format!("c{round}"), &["--lease"])?).kill9()?;
        let names = || (0..PARTITIONS).map(|p| stream::aggregate(VENUE, p));
        let stood = floor.last_seqs(names()).await?;
        wait_for("every partition to go on", BOUND, || async {
            let now = floor.last_seqs(names()).await.ok()?;
            now.iter().zip(&stood).all(|(now, stood)| now > stood).then_some(())
        })
        .await
        .with_context(|| floor.logs())?;
        took_ms.push(killed.elapsed().as_millis());
        let after = floor.shared_by("aggregate", 2).await?;
        assert_ne!(before, after);
    }
    feed.end().await?;
    let (candles, _) = floor.assert_exact(false).await?;
    took_ms.sort_unstable();
    eprintln!(
        "takeover after kill -9 (ttl 2 s): {took_ms:?} ms to new outputs of every partition; {candles} candles exact"
    );
    assert!(took_ms.iter().all(|ms| *ms < 6_000), "{took_ms:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_that_wakes_beyond_its_lease_does_no_harm_and_takes_its_part_again() -> anyhow::Result<()> {
    let floor = Floor::open().await?;
    let feed = floor.feed(10).await?;
    let mut zombie = floor.spawn("aggregate", "zombie", &["--lease"])?;
    let mut other = floor.spawn("aggregate", "other", &["--lease"])?;
    let shared = floor.shared_by("aggregate", 2).await?;
    let ids: BTreeSet<String> = shared.values().cloned().collect();
    kill(zombie.pid(), Signal::SIGSTOP)?;
    let alone = floor.shared_by("aggregate", 1).await?;
    let survivor = alone[&0].clone();
    // The survivor's outputs get past whatever the zombie held in its hands.
    let step = feed.steps.load(Relaxed);
    feed.reaches(step + 50).await?;
    kill(zombie.pid(), Signal::SIGCONT)?;
    let again = floor.shared_by("aggregate", 2).await?;
    let now: BTreeSet<String> = again.values().cloned().collect();
    assert!(ids.contains(&survivor) && now == ids, "the same two processes: {ids:?} {now:?}");
    let steps = feed.end().await?;
    let (candles, _) = floor.assert_exact(false).await?;
    for instance in [&mut zombie, &mut other] {
        assert!(instance.child.try_wait()?.is_none(), "{} ended\n{}", instance.name, floor.logs());
    }
    eprintln!("zombie: {candles} candles of {steps} steps exact");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_misses_no_candle() -> anyhow::Result<()> {
    let floor = Floor::open().await?;
    let feed = floor.feed(10).await?;
    let mut instances = Vec::new();
    for stage in ["aggregate", "strategy"] {
        for i in 0..2 {
            instances.push(floor.spawn(stage, &format!("{stage}{i}"), &["--lease"])?);
        }
        floor.shared_by(stage, 2).await?;
    }
    let begun = Instant::now();
    for _ in 0..4 {
        let old = instances.remove(0);
        let (stage, name) = (old.stage, old.name.clone());
        old.stop().await.with_context(|| floor.logs())?;
        instances.push(floor.spawn(stage, &name, &["--lease"])?);
        floor.shared_by(stage, 2).await?;
    }
    let took = begun.elapsed();
    let steps = feed.end().await?;
    let (candles, signals) = floor.assert_exact(true).await?;
    eprintln!(
        "rolling restart of 4 instances in {:.1} s under load: {candles} candles and {signals} signals of {steps} steps exact",
        took.as_secs_f64()
    );
    assert!(candles > 500 && signals > 0);
    Ok(())
}
