//! All stages as separate programs over a real nats-server with rights, fed by a recorded quarter of an hour.
//!
//! What follows from the recording alone (RAW, AGG, SIG) is byte for byte the same whatever dies meanwhile. The
//! desk's merge order depends on timing and is recorded; what risk and executor said is byte for byte the fold of
//! that recorded desk, done again here without any disturbance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Layout};
use schemas::core::{Core, Listen, Place, Speak};
use schemas::market::Candle;
use schemas::raw::Clock;
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{Decimal, Fact, Instrument, InstrumentKind, Scale, Version};
use tests::{Server, stored, wait_for};

pub const STAGES: [&str; 7] = ["ledger", "gateway", "executor", "risk", "strategy", "aggregate", "ingest"];
/// A whole run on a busy machine.
const RUN_BOUND: Duration = Duration::from_secs(180);
const STEP_BOUND: Duration = Duration::from_secs(60);
/// Event time of the recording's end; the closing clock stands behind it.
const RECORDING_END_NS: i64 = 1_723_162_000_000_000_000;

/// A program that cargo built beside this test.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("target folder")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

/// The stages of one pipeline; dropping it kills exactly these processes.
pub struct Pipeline {
    pub server: Server,
    config: PathBuf,
    children: BTreeMap<&'static str, Child>,
}

impl Pipeline {
    pub async fn start(recording: &[PathBuf], speed: f64) -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let layout = Layout {
            venues: vec!["binance".into()],
            accounts: vec!["main".into()],
            traders: vec![],
            partitions: PARTITIONS,
        };
        let operator = server.bus("operator").await?;
        layout.apply(&operator).await?;
        // The recording holds no instrument list; an operator writes what the venue said of it.
        let key = stream::instrument_key("binance", "BTCUSDT");
        nats::kv::put(&operator, stream::KV_INSTRUMENTS, &key, instrument()?.encode().into()).await?;
        let config = server.dir().join("tapeline.toml");
        std::fs::write(&config, configuration(server.dir(), recording, speed))?;
        let mut pipeline = Self { server, config, children: BTreeMap::new() };
        for stage in STAGES {
            pipeline.spawn(stage)?;
        }
        Ok(pipeline)
    }

    fn spawn(&mut self, stage: &'static str) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(stage))?;
        let child = Command::new(program(stage)?)
            .arg("--config")
            .arg(&self.config)
            .envs(self.server.env(stage))
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {stage}"))?;
        self.children.insert(stage, child);
        Ok(())
    }

    fn log(&self, stage: &str) -> PathBuf {
        self.server.dir().join(format!("{stage}.log"))
    }

    /// SIGKILL by pid, and a new instance at once.
    fn kill9(&mut self, stage: &'static str) -> anyhow::Result<()> {
        let child = self.children.get_mut(stage).context("no such stage")?;
        ensure!(
            child.try_wait()?.is_none(),
            "{stage} ended by itself: {}",
            tail(&self.server.dir().join(format!("{stage}.log")))
        );
        child.kill()?;
        child.wait()?;
        self.spawn(stage)
    }

    /// Waits until the whole recording went through every stage and nothing moves any more.
    async fn settle(&mut self, bus: &Bus) -> anyhow::Result<()> {
        let clock = schemas::subject::clock(0, "binance");
        wait_for("the recording's last clock", RUN_BOUND, || async {
            let last = nats::leader::last_by_subject(bus, &stream::raw("binance"), &clock).await.ok()??;
            (Clock::decode(&last.payload).ok()?.watermark_ns > RECORDING_END_NS).then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        let mut before = Vec::new();
        let mut quiet = 0;
        let begun = std::time::Instant::now();
        while quiet < 4 {
            ensure!(begun.elapsed() < RUN_BOUND, "not settled\n{}", self.logs());
            let answers = nats::stats::gather(bus, Duration::from_millis(300)).await?;
            let all = STAGES.iter().all(|s| *s == "ingest" || answers.iter().any(|a| a.stage == *s));
            let idle = answers.iter().all(|a| a.tasks.iter().all(|t| t["lag"] == 0 && t["running"] == true));
            let mut ends = Vec::new();
            for name in streams() {
                ends.push(bus.stream(&name).await?.last_seq);
            }
            quiet = if all && (idle || answers.iter().all(|a| a.lag() == 0)) && ends == before { quiet + 1 } else { 0 };
            before = ends;
        }
        Ok(())
    }

    /// The last lines of every stage's log, for a failure.
    fn logs(&self) -> String {
        STAGES.iter().map(|stage| format!("--- {stage}\n{}\n", tail(&self.log(stage)))).collect()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            // Dead already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn configuration(dir: &Path, recording: &[PathBuf], speed: f64) -> String {
    let files: Vec<String> = recording.iter().map(|p| format!("{:?}", p.display().to_string())).collect();
    format!(
        r#"
[ingest.venues.binance]
enabled = true
source = "recording"
symbols = ["BTCUSDT"]
files = [{files}]
speed = {speed:.1}
flush_open = true
[aggregate]
venues = ["binance"]
indicator_timeframes = ["1s", "1m"]
[strategy]
venues = ["binance"]
[strategy.rule]
timeframe = "1s"
valid_bars = 30
[ledger]
database = "sqlite://{db}"
[gateway]
listen = "127.0.0.1:0"
# Spot without a borrow: the recorded session is to trade both ways.
[risk.limits.spot_short]
on = false
"#,
        files = files.join(", "),
        db = dir.join("ledger.db").display(),
    )
}

fn instrument() -> anyhow::Result<Instrument> {
    Ok(Instrument {
        v: Version,
        venue: "binance".into(),
        symbol: "BTCUSDT".into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        kind: InstrumentKind::Spot,
        size_unit: Default::default(),
        contract_size: "1".parse()?,
        inverse: false,
        tick: "0.01".parse()?,
        lot: "0.00001".parse()?,
        min_notional: "5".parse()?,
        scale: Scale { price: 2, qty: 5 },
        trading: true,
    })
}

/// Streams that follow from the recording alone.
fn determined() -> Vec<String> {
    let mut names = vec![stream::raw("binance")];
    names.extend((0..PARTITIONS).flat_map(|p| [stream::aggregate("binance", p), stream::signal("binance", p)]));
    names
}

fn streams() -> Vec<String> {
    let mut names = determined();
    names.extend([stream::desk("main"), stream::risk("main"), stream::exec("main")]);
    names
}

pub type Stored = Vec<(u64, String, Vec<u8>)>;

async fn contents(bus: &Bus, names: &[String]) -> anyhow::Result<BTreeMap<String, Stored>> {
    let mut all = BTreeMap::new();
    for name in names {
        all.insert(name.clone(), stored(bus, name).await?);
    }
    Ok(all)
}

/// Panics with the first difference, both facts shown.
pub fn assert_same(name: &str, expected: &Stored, found: &Stored) {
    for (e, f) in expected.iter().zip(found) {
        assert!(
            e == f,
            "{name}: first difference at {}:\n  expected {} {:?}\n  found    {} {:?}",
            e.0,
            e.1,
            text(&e.2),
            f.1,
            text(&f.2)
        );
    }
    assert_eq!(expected.len(), found.len(), "{name}: number of facts");
}

fn text(payload: &[u8]) -> String {
    rmp_serde::from_slice::<serde_json::Value>(payload).map_or_else(|_| format!("{payload:?}"), |v| v.to_string())
}

/// The stored outputs of a core over a stored input, without any disturbance.
pub fn fold<C: Core>(core: &mut C, input: &str, facts: &Stored) -> Stored
where
    C::In: Listen,
    C::Out: Speak,
{
    let mut said = Vec::new();
    let mut out = Vec::new();
    for (seq, subject, payload) in facts {
        // What cannot be decoded is counted and passed over by the loop as well.
        let Ok(Some(fact)) = C::In::hear(subject, payload) else { continue };
        core.handle(&Place::new(input, *seq), fact, &mut out).expect("core goes on");
        for fact in out.drain(..).filter(Speak::stored) {
            said.push((said.len() as u64 + 1, fact.subject(), fact.payload()));
        }
    }
    said
}

/// What risk and executor said equals the fold of the desk as it was recorded.
async fn assert_desk_is_its_own_fold(bus: &Bus, config: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(config)?;
    let user = schemas::config::UserFile { name: "tapeline.toml".into(), text };
    let desk = stored(bus, &stream::desk("main")).await?;
    let risk = stored(bus, &stream::risk("main")).await?;
    let mut core = risk::RiskCore::new("main", &risk::Config::load(Some(&user))?)?;
    assert_same("RISK_main", &fold(&mut core, &stream::desk("main"), &desk), &risk);
    let exec = stored(bus, &stream::exec("main")).await?;
    let mut core = executor::core::ExecutorCore::new("main", &executor::config::Config::load(Some(&user))?);
    assert_same("EXEC_main", &fold(&mut core, &stream::desk("main"), &desk), &exec);
    Ok(exec.iter().filter(|(_, subject, _)| subject.starts_with("fill.")).count())
}

pub fn recording() -> Option<Vec<PathBuf>> {
    let root = schemas::fixtures::root()?;
    Some(["part1", "part2"].map(|part| root.join(format!("data/ws_raw/binance_spot_BTCUSDT_{part}.gz"))).to_vec())
}

/// Every golden candle of the recording, read back from JetStream.
async fn assert_candles_are_golden(bus: &Bus) -> anyhow::Result<usize> {
    let root =
        schemas::fixtures::root().context("fixtures")?.join("goldens/candles/binance_spot_BTCUSDT_2024-08-08T2354");
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let mut found: BTreeMap<String, Vec<Candle>> = BTreeMap::new();
    for (_, subject, payload) in stored(bus, &stream::aggregate("binance", p)).await? {
        if subject.starts_with("candle.") {
            let candle = Candle::decode(&payload)?;
            found.entry(candle.tf.clone()).or_default().push(candle);
        }
    }
    let mut compared = 0;
    for tf in schemas::Timeframe::DEFAULT {
        let file = std::fs::File::open(root.join(format!("{tf}.sparse.csv.gz")))?;
        let mut rows = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
        let names = rows.headers()?.clone();
        let golden: Vec<BTreeMap<String, String>> = rows
            .records()
            .map(|r| Ok(names.iter().map(str::to_owned).zip(r?.iter().map(str::to_owned)).collect()))
            .collect::<anyhow::Result<_>>()?;
        let candles = found.get(tf).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(candles.len(), golden.len(), "{tf}: number of candles");
        for (c, g) in candles.iter().zip(&golden) {
            let exact = |name: &str| g[name].parse::<Decimal>().expect("golden number");
            assert_eq!((c.open_ns / 1_000_000).to_string(), g["open_ts_ms"], "{tf}");
            for (name, value) in [
                ("open", c.open.get()),
                ("high", c.high.get()),
                ("low", c.low.get()),
                ("close", c.close.get()),
                ("volume", c.volume.get()),
                ("buy_volume", c.buy_volume.get()),
                ("quote_volume", c.quote_volume.get()),
            ] {
                assert_eq!(value, exact(name), "{tf} {} {name}", c.open_ns);
            }
            assert_eq!(
                (c.trades.to_string(), c.buy_trades.to_string()),
                (g["trades"].clone(), g["buy_trades"].clone()),
                "{tf}"
            );
            compared += 1;
        }
    }
    Ok(compared)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_ends_the_same_whatever_is_killed_meanwhile() -> anyhow::Result<()> {
    let Some(files) = recording() else { return Ok(()) };
    // Paced too: opinions on a past that is long over are rightly refused, and the session is to trade.
    let mut calm = Pipeline::start(&files, 120.0).await?;
    let bus = calm.server.bus("operator").await?;
    calm.settle(&bus).await?;
    let expected = contents(&bus, &determined()).await?;
    let golden = assert_candles_are_golden(&bus).await?;
    let fills = assert_desk_is_its_own_fold(&bus, &calm.config).await?;
    eprintln!("undisturbed: {golden} golden candles equal, {} raw facts, {fills} fills", expected["RAW_BINANCE"].len());
    assert!(fills > 0, "the recorded session trades on paper");
    drop(calm);

    // Paced, so that every kill falls into the run.
    let mut pipeline = Pipeline::start(&files, 60.0).await?;
    let bus = pipeline.server.bus("operator").await?;
    let raw = stream::raw("binance");
    let mut reached = 0;
    for victim in
        ["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway", "nats-server", "aggregate", "risk"]
    {
        let goal = reached + 150;
        reached = wait_for("more raw facts", STEP_BOUND, || async {
            let last = bus.stream(&raw).await.ok()?.last_seq;
            (last > goal).then_some(last)
        })
        .await
        .with_context(|| format!("before the end of {victim}\n{}", pipeline.logs()))?;
        if victim == "nats-server" {
            pipeline.server.kill9()?;
            pipeline.server.restart().await?;
        } else {
            pipeline.kill9(victim)?;
        }
    }
    assert!(reached < expected[&raw].len() as u64, "the last kill came before the end of the recording");
    pipeline.settle(&bus).await?;
    let found = contents(&bus, &determined()).await?;
    for (name, facts) in &expected {
        assert_same(name, facts, &found[name]);
    }
    let fills = assert_desk_is_its_own_fold(&bus, &pipeline.config).await?;
    eprintln!("disturbed: 10 kills, {} streams byte for byte the same, {fills} fills", found.len());
    assert!(fills > 0);
    Ok(())
}
