//! Stages scaled out, as real programs: shares by `--tasks`, shares by `--lease`, death, zombies and rolling restarts, on
//! one server and on three. Whatever happens, the streams are byte for byte what one undisturbed fold of the raw ticks
//! says.

mod nodes;
mod shares;
mod standby;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aggregate::core::AggregateCore;
use anyhow::Context;
use nats::{Bus, Config, Layout, Writer};
use schemas::fixed::{PriceM, QtyM};
use schemas::raw::{Clock, Trade, Trades};
use schemas::subject::{partition, stream};
use schemas::{Fact, Nanos, Scale, Side, Version};
use strategy::core::StrategyCore;
use tests::cluster::Cluster;
use tests::fleet::Fleet;
use tests::standby::holder;
use tests::{stored, wait_for};
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

/// Servers with their streams, and the stages over them.
struct Floor {
    servers: Cluster,
    bus: Bus,
    fleet: Fleet,
}

impl Floor {
    /// `nodes`: 1 or 3.
    async fn open(nodes: usize) -> anyhow::Result<Self> {
        let servers = Cluster::start(nodes).await?;
        let bus = servers.operator().await?;
        let (venues, accounts) = (vec![VENUE.into()], vec!["main".into()]);
        servers.create(&bus, &Layout { venues, accounts, traders: vec![], partitions: PARTITIONS }).await?;
        let config = servers.dir().join("tapeline.toml");
        std::fs::write(&config, CONFIG)?;
        let env = ["aggregate", "strategy"].map(|stage| (stage, servers.env_direct(stage))).into();
        let args = vec!["--partitions".to_owned(), PARTITIONS.to_string()];
        let fleet = Fleet::new(servers.dir(), &config, args, env);
        Ok(Self { servers, bus, fleet })
    }

    /// One more instance that competes for leases.
    fn compete(&mut self, stage: &'static str) -> anyhow::Result<u32> {
        self.fleet.spawn_with(stage, &["--lease"])
    }

    /// Partition to the instance that holds it.
    async fn holders(&self, stage: &str) -> anyhow::Result<BTreeMap<u32, String>> {
        let mut holders = BTreeMap::new();
        for p in 0..PARTITIONS {
            let key = nats::lease::task_key(stage, &format!("{VENUE}.{p}"));
            if let Some(id) = holder(&self.bus, &key).await? {
                holders.insert(p, id);
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
        .with_context(|| self.fleet.logs())
    }

    /// Waits until aggregate says something more in every partition.
    async fn goes_on(&self) -> anyhow::Result<()> {
        let stood = self.ends().await?;
        wait_for("every partition to go on", BOUND, || async {
            let now = self.ends().await.ok()?;
            now.iter().zip(&stood).all(|(now, stood)| now > stood).then_some(())
        })
        .await
        .with_context(|| self.fleet.logs())
    }

    async fn ends(&self) -> anyhow::Result<Vec<u64>> {
        let mut all = Vec::new();
        for p in 0..PARTITIONS {
            all.push(self.bus.stream(&stream::aggregate(VENUE, p)).await?.last_seq);
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
        .with_context(|| self.fleet.logs())?;
        stored(&self.bus, name).await
    }

    /// The writer of the raw ticks.
    async fn raw(&self) -> anyhow::Result<Writer> {
        let bus = Bus::connect(self.servers.login("ingest"), Config::default()).await?;
        Ok(Writer::open(&bus, &stream::raw(VENUE)).await?)
    }

    /// Ticks that flow until they are stopped.
    async fn feed(&self, pause_ms: u64) -> anyhow::Result<Feed> {
        let mut writer = self.raw().await?;
        let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&steps));
        let feeding = tokio::spawn(async move {
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
