//! Stages as processes over a real server: ingest from a venue's JSON, tick to order, catching up, the kill switch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use ingest::config::{Config as IngestConfig, Source};
use ingest::source::{Job, import};
use nats::{Bus, Layout, Reader, Writer};
use schemas::desk::{DeskState, Order, TradingState};
use schemas::raw::{Clock, Quote, Quotes, Trade, Trades};
use schemas::subject::{self, PARTITIONS, partition, stream};
use schemas::{Fact, Nanos, PriceM, QtyM, Side, Version};
use tests::{Server, wait_for};
use tokio_util::sync::CancellationToken;

use crate::bus::runtime;
use crate::market::{SCALE, START_NS, instrument, packs, ticks};
use crate::method::{Aim, ROUNDS, Report, median, program, quantile, took};

const STEP_BOUND: Duration = Duration::from_secs(120);
/// Ticks in a message of the flood that the kill switch is tried in.
const FLOOD_PACK: usize = 16;

/// Dropping it kills exactly these processes.
pub struct Stages(Vec<Child>);

impl Stages {
    pub fn start(server: &Server, config: &Path, names: &[&str]) -> anyhow::Result<Self> {
        let mut stages = Self(Vec::new());
        for stage in names {
            let child = Command::new(program(stage)?)
                .arg("--config")
                .arg(config)
                .envs(server.env(stage))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("start {stage}"))?;
            stages.0.push(child);
        }
        Ok(stages)
    }

    pub fn pids(&self, server: &Server) -> Vec<u32> {
        self.0.iter().map(Child::id).chain([server.pid()]).collect()
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Dead already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

pub async fn layout(server: &Server, account: bool) -> anyhow::Result<Bus> {
    let operator = server.bus("operator").await?;
    let layout = Layout {
        venues: vec!["binance".into()],
        accounts: if account { vec!["main".into()] } else { vec![] },
        traders: vec![],
        partitions: PARTITIONS,
    };
    layout.apply(&operator).await?;
    let instrument = instrument()?;
    let key = stream::instrument_key(&instrument.venue, &instrument.symbol);
    nats::kv::put(&operator, stream::KV_INSTRUMENTS, &key, instrument.encode().into()).await?;
    Ok(operator)
}

/// Waits until every stage answers and each of its tasks runs and has read everything.
async fn idle(bus: &Bus, names: &[&str]) -> anyhow::Result<()> {
    wait_for("the stages to be idle", STEP_BOUND, || async {
        let answers = nats::stats::gather(bus, Duration::from_millis(200)).await.ok()?;
        let ready = |stage: &str| {
            answers.iter().any(|a| a.stage == stage && a.tasks.iter().all(|t| t["running"] == true && t["lag"] == 0))
        };
        names.iter().all(|s| ready(s)).then_some(())
    })
    .await
}

/// Recordings of Binance trades through decoding and packing into RAW, no account: JSON lines to stored packs. At a
/// hundred ticks a second sixteen of seventeen messages are clocks, one a second and partition; a flood is mostly ticks.
pub fn ingest(report: &mut Report) -> anyhow::Result<()> {
    recorded(report, "ingest, recorded venue JSON to stored packs", 10_000_000)?;
    recorded(report, "ingest, the same recorded at 50,000 ticks/s", 20_000)
}

/// `every_ns`: recorded time between two ticks.
fn recorded(report: &mut Report, what: &str, every_ns: i64) -> anyhow::Result<()> {
    const N: usize = 1_000_000;
    let rt = runtime()?;
    let dir = tempfile::tempdir()?;
    let path: PathBuf = dir.path().join("flood.txt");
    let text: String = ticks(0, N)
        .iter()
        .zip(0..)
        .map(|(t, i)| {
            let recv_ns = START_NS + i * every_ns;
            let ms = recv_ns / 1_000_000;
            format!(
                "{} {{\"e\":\"trade\",\"E\":{ms},\"s\":\"BTCUSDT\",\"t\":{},\"p\":\"{}.{:02}\",\"q\":\"0.{:05}\",\"T\":{ms},\"m\":{}}}\n",
                recv_ns,
                t.id,
                t.price.0 / 100,
                t.price.0 % 100,
                t.size.0,
                t.side == Side::Sell
            )
        })
        .collect();
    std::fs::write(&path, &text)?;
    let config = IngestConfig::load(None)?;
    let mut settings = config.venues["binance"].clone();
    settings.source = Source::Recording;
    settings.files = vec![path];
    settings.speed = 0.0;
    let job = Job::of("binance", &settings, &config, PARTITIONS);
    let (mut stored, mut parsed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let server = rt.block_on(Server::start())?;
        let bus = rt.block_on(layout(&server, false))?;
        stored.push(took(&[server.pid()], || {
            let done = rt.block_on(import(&bus, &job, &CancellationToken::new(), None, |_| {}))?;
            ensure!(done.finished, "the import did not finish");
            Ok(())
        })?);
        parsed.push(took(&[], || {
            for line in text.lines() {
                let (_, frame) = line.split_once(' ').context("a line")?;
                std::hint::black_box(serde_json::from_str::<serde::de::IgnoredAny>(frame)?);
            }
            Ok(())
        })?);
    }
    let beside = Some(("serde_json passing over the same lines", &parsed[..]));
    report.rate("Pipeline", what, N, "ticks/s", &stored, beside, Some(Aim::AtLeast(3e6)));
    Ok(())
}

/// From the instant before a tick is written to the instant a subscriber has the order that it caused: aggregate,
/// strategy and risk as processes, five JetStream hops (RAW, AGG, SIG, DESK, RISK). Beside it one hop of the same
/// server in the same run.
pub fn latency(report: &mut Report) -> anyhow::Result<()> {
    let rt = runtime()?;
    // A bar a tick is the most that this rate can ask for: a candle, an indicator and an opinion with every tick.
    for bar in ["tick-1", "tick-20"] {
        rt.block_on(latency_at(report, 5000, bar))?;
    }
    Ok(())
}

async fn latency_at(report: &mut Report, rate_hz: u64, bar: &str) -> anyhow::Result<()> {
    const SECONDS: u64 = 15;
    let server = Server::start().await?;
    let bus = layout(&server, true).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, config_of(bar))?;
    let names = ["executor", "risk", "strategy", "aggregate"];
    let stages = Stages::start(&server, &config, &names)?;
    idle(&bus, &names).await?;

    let mut orders = bus.client().subscribe("order.>").await?;
    let mut hop = bus.client().subscribe("raw.*.binance.trade.>").await?;
    bus.client().flush().await?;
    let heard = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(3), orders.next()).await {
            if let Ok(order) = Order::decode(&message.payload) {
                all.push((now_ns() - order.ts_ns) as f64 / 1e6);
            }
        }
        all
    });
    let hops = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(3), hop.next()).await {
            if let Ok(pack) = Trades::decode(&message.payload) {
                all.push((now_ns() - pack.ts_ns[0]) as f64 / 1e6);
            }
        }
        all
    });
    let mut market = Market::open(&bus).await?;
    let load = took(&stages.pids(&server), || {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate_hz));
                for i in 0..rate_hz * SECONDS {
                    tick.tick().await;
                    market.tick(i, rate_hz / 20).await?;
                }
                market.writer.drain().await?;
                Ok(())
            })
        })
    })?;
    let (mut orders, mut hops) = (heard.await?, hops.await?);
    ensure!(orders.len() > 20, "only {} orders came of {} ticks", orders.len(), rate_hz * SECONDS);
    orders.sort_by(f64::total_cmp);
    hops.sort_by(f64::total_cmp);
    for (name, q, aim) in [("p50", 0.5, 0.8), ("p99", 0.99, 5.0)] {
        report.value(
            "Pipeline",
            format!("tick to order, {name} of {} orders at {rate_hz} ticks/s, {bar} bars", orders.len()),
            quantile(&orders, q),
            "ms",
            Some((&format!("one JetStream hop, {name}"), quantile(&hops, q))),
            Some(Aim::AtMost(aim)),
        );
    }
    let busy = load.cpu_s / load.wall_s;
    report.value(
        "Pipeline",
        format!("cores busy at {rate_hz} ticks/s, {bar} bars, all processes"),
        busy,
        "cores",
        None,
        None,
    );
    Ok(())
}

/// A market that turns often: every turn is a new opinion.
struct Market {
    writer: Writer,
    p: u32,
    clock_due_ns: i64,
}

impl Market {
    async fn open(bus: &Bus) -> anyhow::Result<Self> {
        let writer = Writer::open(bus, &stream::raw("binance")).await?;
        Ok(Self { writer, p: partition("binance", "BTCUSDT", PARTITIONS), clock_due_ns: 0 })
    }

    /// Tick `i` of a triangle of `2 * turn` ticks; a quote with every tenth, clocks ten times a second.
    async fn tick(&mut self, i: u64, turn: u64) -> anyhow::Result<()> {
        let phase = (i % (2 * turn)) as i64;
        let price = 6_000_000 + 500 * phase.min(2 * turn as i64 - phase);
        let ts = Nanos(now_ns());
        if i.is_multiple_of(10) {
            let mut quotes = Quotes::new(self.p, "binance", "BTCUSDT", SCALE);
            let side = |price| Some((PriceM(price), QtyM(500_000)));
            quotes.push(Quote { ts, recv: ts, bid: side(price - 1), ask: side(price + 1) });
            self.writer.push(quotes.subject(), quotes.encode()).await?;
        }
        if ts.0 >= self.clock_due_ns {
            self.clock_due_ns = ts.0 + 100_000_000;
            self.clocks(ts).await?;
        }
        let ts = Nanos(now_ns());
        let mut pack = Trades::new(self.p, "binance", "BTCUSDT", SCALE);
        pack.push(Trade { ts, recv: ts, id: i + 1, price: PriceM(price), size: QtyM(100_000), side: Side::Buy });
        self.writer.push(pack.subject(), pack.encode()).await?;
        Ok(())
    }

    async fn clocks(&mut self, ts: Nanos) -> anyhow::Result<()> {
        for p in 0..PARTITIONS {
            let clock = Clock { v: Version, venue: "binance".into(), p, watermark_ns: ts.0 - 1, wall_ns: ts.0 };
            self.writer.push(subject::clock(p, "binance"), clock.encode()).await?;
        }
        Ok(())
    }
}

/// An hour of a hundred ticks a second, one a message as a quiet feed stores them, waits in RAW; the stages start and
/// read it all. Beside it the hour itself.
pub fn catch_up(report: &mut Report) -> anyhow::Result<()> {
    const HOUR_S: usize = 3600;
    let rt = runtime()?;
    let server = rt.block_on(Server::start())?;
    let bus = rt.block_on(layout(&server, true))?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, CATCH_UP)?;
    let all = packs("BTCUSDT", &ticks(0, HOUR_S * 100), 1);
    rt.block_on(async {
        let mut market = Market::open(&bus).await?;
        for (i, pack) in all.iter().enumerate() {
            market.writer.push(pack.subject(), pack.encode()).await?;
            if i.is_multiple_of(100) {
                market.clocks(Nanos(pack.ts_ns[0])).await?;
            }
        }
        market.writer.drain().await?;
        anyhow::Ok(())
    })?;
    let names = ["executor", "risk", "strategy", "aggregate"];
    let begun = Instant::now();
    let _stages = Stages::start(&server, &config, &names)?;
    rt.block_on(idle(&bus, &names))?;
    let took_s = begun.elapsed().as_secs_f64();
    report.value(
        "Pipeline",
        "catching up with an hour, stage start included",
        HOUR_S as f64 / took_s,
        "x real",
        None,
        Some(Aim::AtLeast(100.0)),
    );
    Ok(())
}

/// An operator halts the account while a million ticks pour in: from the write of the command to the moment risk says
/// that it is halted. An order can come no later than that. Beside it a plain subscriber to the command.
pub fn kill_switch(report: &mut Report) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let server = Server::start().await?;
        let bus = layout(&server, true).await?;
        let config = server.dir().join("tapeline.toml");
        // A candle a tick would be a flood of a million candles as well, in every stage behind.
        std::fs::write(&config, config_of("tick-100"))?;
        let names = ["executor", "risk", "strategy", "aggregate"];
        let _stages = Stages::start(&server, &config, &names)?;
        idle(&bus, &names).await?;
        let quiet = kills(&bus, 50, None).await?;
        // A million ticks in small packs: the flood is to last for some kills.
        let (over, flood) = (CancellationToken::new(), packs("BTCUSDT", &ticks(0, 1_000_000), FLOOD_PACK));
        let pouring = tokio::spawn({
            let (bus, over) = (bus.clone(), over.clone());
            async move {
                let mut market = Market::open(&bus).await?;
                for pack in &flood {
                    market.writer.push(pack.subject(), pack.encode()).await?;
                }
                market.writer.drain().await?;
                over.cancel();
                anyhow::Ok(())
            }
        });
        let heard = listener(&server).await?;
        let flooded = kills(&bus, 1000, Some(&over)).await?;
        pouring.await??;
        ensure!(flooded.len() > 10, "only {} kills fell into the flood", flooded.len());
        let way = way_of(&bus, &flooded).await?;
        let heard = heard.await?;
        let at = |kill: &Kill| heard.get(&kill.ts_ns).map(|ns| (ns - kill.ts_ns) as f64 / 1e6);
        let mut plain: Vec<f64> = flooded.iter().filter_map(at).collect();
        ensure!(!plain.is_empty(), "the plain subscriber heard nothing");
        plain.sort_by(f64::total_cmp);
        let mut quiet: Vec<f64> = quiet.iter().map(|kill| kill.took_ms).collect();
        let mut flooded: Vec<f64> = flooded.iter().map(|kill| kill.took_ms).collect();
        quiet.sort_by(f64::total_cmp);
        flooded.sort_by(f64::total_cmp);
        report.value(
            "Pipeline",
            format!("kill switch under a flood, p99 of {}", flooded.len()),
            quantile(&flooded, 0.99),
            "ms",
            Some(("a plain subscriber hears the command, p99", quantile(&plain, 0.99))),
            Some(Aim::AtMost(5.0)),
        );
        let beside = Some(("a plain subscriber hears the command, median", median(plain)));
        report.value("Pipeline", "kill switch under a flood, median", median(flooded), "ms", beside, None);
        report.value("Pipeline", "kill switch on a quiet bus, p99", quantile(&quiet, 0.99), "ms", None, None);
        for (hop, took_ms) in way {
            report.value("Pipeline", format!("kill switch under a flood, median of {hop}"), took_ms, "ms", None, None);
        }
        Ok(())
    })
}

/// Hears the commands as soon as the server has them, without JetStream, on a connection of its own: nobody can act
/// earlier. When each was heard, by its name.
async fn listener(server: &Server) -> anyhow::Result<tokio::task::JoinHandle<BTreeMap<i64, i64>>> {
    let bus = server.bus("listener").await?;
    let mut commands = bus.client().subscribe(nats::kv::subject(stream::KV_CONFIG, ">")).await?;
    bus.client().flush().await?;
    Ok(tokio::spawn(async move {
        let mut heard = BTreeMap::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(5), commands.next()).await {
            if let Ok(wish) = DeskState::decode(&message.payload) {
                heard.entry(wish.ts_ns).or_insert_with(now_ns);
            }
        }
        drop(bus);
        heard
    }))
}

/// One halt.
struct Kill {
    /// The operator's clock when it was written; its name too.
    ts_ns: i64,
    /// Until the write was acknowledged.
    written_ms: f64,
    /// Until risk's word was here.
    took_ms: f64,
}

/// The medians of a halt's hops: where the time goes.
async fn way_of(bus: &Bus, kills: &[Kill]) -> anyhow::Result<[(&'static str, f64); 4]> {
    let stored = async |stream: String, filter: String| {
        let mut reader = Reader::open(bus, &stream, &filter, 0).await?;
        let mut all = Vec::new();
        while all.is_empty() || !reader.caught_up() {
            let message = reader.next().await?;
            all.push((message.seq, message.time_ns, DeskState::decode(&message.payload)?));
        }
        anyhow::Ok(all)
    };
    let wish = nats::kv::subject(stream::KV_CONFIG, &stream::desk_state_key("main"));
    let merged = stored(stream::desk("main"), wish).await?;
    let said = stored(stream::risk("main"), subject::account("state", "main")).await?;
    let (mut write, mut merge, mut fold, mut hear) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for kill in kills {
        let Some((seq, merged_ns, _)) = merged.iter().find(|(_, _, wish)| wish.ts_ns == kill.ts_ns) else { continue };
        let caused = |state: &DeskState| state.cause.as_ref().is_some_and(|cause| cause.seq == *seq);
        let Some((_, said_ns, _)) = said.iter().find(|(_, _, state)| caused(state)) else { continue };
        let ms = |ns: i64| ns as f64 / 1e6;
        write.push(kill.written_ms);
        merge.push(ms(merged_ns - kill.ts_ns) - kill.written_ms);
        fold.push(ms(said_ns - merged_ns));
        hear.push(kill.took_ms - ms(said_ns - kill.ts_ns));
    }
    ensure!(!write.is_empty(), "no halt was found on the desk");
    Ok([
        ("the operator's write", median(write)),
        ("its way onto the desk", median(merge)),
        ("risk's answer stored", median(fold)),
        ("its way back", median(hear)),
    ])
}

/// Halts and resumes until `count` or `over`; milliseconds from the write to risk's word.
async fn kills(bus: &Bus, count: usize, over: Option<&CancellationToken>) -> anyhow::Result<Vec<Kill>> {
    let mut states = bus.client().subscribe("state.main").await?;
    bus.client().flush().await?;
    let mut halts = Vec::new();
    for i in 0..2 * count {
        if over.is_some_and(CancellationToken::is_cancelled) {
            break;
        }
        let halt = i.is_multiple_of(2);
        let wish = DeskState {
            v: Version,
            account: "main".into(),
            state: if halt { TradingState::Halted } else { TradingState::Active },
            flatten: false,
            by: "operator".into(),
            reason: "bench".into(),
            ts_ns: now_ns(),
            cause: None,
        };
        let begun = Instant::now();
        nats::kv::put(bus, stream::KV_CONFIG, &stream::desk_state_key("main"), wish.encode().into()).await?;
        let written_ms = begun.elapsed().as_secs_f64() * 1e3;
        loop {
            let message = tokio::time::timeout(STEP_BOUND, states.next()).await?.context("the subscription ended")?;
            if DeskState::decode(&message.payload)?.state == wish.state {
                break;
            }
        }
        if halt {
            halts.push(Kill { ts_ns: wish.ts_ns, written_ms, took_ms: begun.elapsed().as_secs_f64() * 1e3 });
        }
    }
    Ok(halts)
}

/// The pipeline with an opinion that turns often, on these bars.
fn config_of(bar: &str) -> String {
    CONFIG.replace("tick-1", bar)
}

const CONFIG: &str = r#"
[aggregate]
venues = ["binance"]
timeframes = ["1s"]
indicator_timeframes = []
preview_timeframes = []
[[aggregate.bars]]
bar = "tick-1"
venue = "binance"
symbols = []
[strategy]
venues = ["binance"]
[strategy.rule]
enabled = false
[strategy.rules.ema_cross]
enabled = true
kind = "ema_cross"
timeframe = "tick-1"
valid_for_ms = 5000
valid_bars = 0
trade_incomplete = true
params = { fast = 2, slow = 5 }
# The sample is to be large; nothing else about risk is loosened.
[risk.limits.order_rate]
orders_max = 1000000
[executor.fill]
model = "next_trade"
latency_ns = 0
"#;

const CATCH_UP: &str = r#"
[aggregate]
venues = ["binance"]
[strategy]
venues = ["binance"]
[executor.fill]
model = "next_trade"
"#;
