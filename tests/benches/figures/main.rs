//! `make bench`: figures, not promises; each beside its reference in the same run. Rounds alternate and medians are
//! printed, because machines are shared and noisy. `--json` prints one JSON document instead of the table.
//!
//! Build the stage programs first (`make bench` does): the latency part runs them as processes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aggregate::candle::{Columns, Folder, Plan};
use aggregate::config::Config as AggregateConfig;
use aggregate::core::{AggregateCore, In};
use anyhow::{Context, ensure};
use futures_util::StreamExt;
use nats::telemetry::TaskStats;
use nats::{Accept, Bus, Layout, Reader, TaskSpec, Writer};
use schemas::core::{Core, Listen, Place};
use schemas::desk::Order;
use schemas::raw::{Clock, PACK_MAX, Quote, Quotes, Trade, Trades};
use schemas::subject::{self, PARTITIONS, partition, stream};
use schemas::{Fact, Instrument, InstrumentKind, Nanos, PriceM, QtyM, Scale, Side, Timeframe, Version};
use serde_json::json;
use tests::{Server, wait_for};
use tokio_util::sync::CancellationToken;

/// Rounds of everything that is compared; the median is printed.
const ROUNDS: usize = 5;
const SIX: [&str; 6] = ["1s", "1m", "5m", "15m", "1h", "1d"];
const SCALE: Scale = Scale { price: 2, qty: 5 };
const START_NS: i64 = 1_700_000_000_000_000_000;

/// One row of the report.
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// The reference of the same run, and `value / reference`.
    beside: Option<(String, f64)>,
}

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`; criterion-style filters are not used here.
    let json = std::env::args().any(|a| a == "--json");
    let mut rows = Vec::new();
    wire(&mut rows)?;
    library(&mut rows)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bus(&mut rows))?;
    runtime.block_on(latency(&mut rows))?;
    if json {
        let list: Vec<_> = rows
            .iter()
            .map(|r| json!({"what": r.what, "value": r.value, "unit": r.unit, "beside": r.beside.as_ref().map(|b| json!({"what": b.0, "value": b.1, "ratio": r.value / b.1}))}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    for r in &rows {
        let beside =
            r.beside.as_ref().map(|(what, v)| format!("   beside {what}: {} (ratio {:.2})", number(*v), r.value / v));
        println!("{:<58} {:>10} {:<9}{}", r.what, number(r.value), r.unit, beside.unwrap_or_default());
    }
    Ok(())
}

fn number(v: f64) -> String {
    match v {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.3}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ticks that look like a busy market: a hundred a second, a walk of a cent, both sides. The generator is a linear one, written
/// down so that every machine folds the same ticks.
fn ticks(symbol: usize, count: usize) -> Vec<Trade> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64.wrapping_add(symbol as u64);
    let mut price = 6_000_000i64;
    (0..count)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = state >> 33;
            price += (dice % 3) as i64 - 1;
            let ts = Nanos(START_NS + i as i64 * 10_000_000);
            let side = if dice & 8 == 0 { Side::Buy } else { Side::Sell };
            Trade { ts, recv: ts, id: i as u64 + 1, price: PriceM(price), size: QtyM(1 + (dice % 1000) as i64), side }
        })
        .collect()
}

fn packs(symbol: &str, ticks: &[Trade], size: usize) -> Vec<Trades> {
    let p = partition("binance", symbol, PARTITIONS);
    ticks
        .chunks(size)
        .map(|chunk| {
            let mut pack = Trades::new(p, "binance", symbol, SCALE);
            chunk.iter().for_each(|t| pack.push(*t));
            pack
        })
        .collect()
}

fn per_second(count: usize, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// A trade as decimal text by row: the form that was not chosen.
#[derive(serde::Serialize, serde::Deserialize)]
struct TextTrade {
    ts_ns: i64,
    recv_ns: i64,
    id: u64,
    price: schemas::Price,
    size: schemas::Qty,
    side: Side,
}

/// The wire form of a pack: columns of mantissas, beside rows of decimal text; ticks a second there and back.
fn wire(rows: &mut Vec<Row>) -> anyhow::Result<()> {
    const N: usize = 200_000;
    let all = packs("BTCUSDT", &ticks(0, N), PACK_MAX);
    let (mut columns, mut texts) = (Vec::new(), Vec::new());
    let (mut column_bytes, mut text_bytes) = (0usize, 0usize);
    for _ in 0..ROUNDS {
        column_bytes = 0;
        columns.push(per_second(N, || {
            for pack in &all {
                let bytes = pack.encode();
                column_bytes += bytes.len();
                std::hint::black_box(Trades::decode(&bytes)?.checked()?);
            }
            Ok(())
        })?);
        text_bytes = 0;
        texts.push(per_second(N, || {
            for pack in &all {
                let list: Vec<TextTrade> = pack
                    .iter()
                    .map(|t| TextTrade {
                        ts_ns: t.ts.0,
                        recv_ns: t.recv.0,
                        id: t.id,
                        price: t.price.price(pack.scale),
                        size: t.size.qty(pack.scale),
                        side: t.side,
                    })
                    .collect();
                let bytes = schemas::wire::encode(&list);
                text_bytes += bytes.len();
                let back: Vec<TextTrade> = schemas::wire::decode(&bytes)?;
                std::hint::black_box(back);
            }
            Ok(())
        })?);
    }
    rows.push(Row {
        what: "encode and decode a pack of 256, mantissa columns".into(),
        value: median(columns),
        unit: "ticks/s",
        beside: Some(("rows of decimal text".into(), median(texts))),
    });
    rows.push(Row {
        what: "bytes a tick, mantissa columns".into(),
        value: column_bytes as f64 / N as f64,
        unit: "bytes",
        beside: Some(("rows of decimal text".into(), text_bytes as f64 / N as f64)),
    });
    Ok(())
}

/// Folding in the library: the folder over columns, the core over packs, the core over bytes; beside them the
/// simplest loop that only keeps one candle per bucket of one timeframe.
fn library(rows: &mut Vec<Row>) -> anyhow::Result<()> {
    const N: usize = 2_000_000;
    let timeframes: Vec<Timeframe> = SIX.iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    for symbols in [1usize, 50] {
        let each: Vec<Vec<Trades>> =
            (0..symbols).map(|s| packs(&format!("S{s}"), &ticks(s, N / symbols), PACK_MAX)).collect();
        // Interleaved as a venue sends them: a pack of each symbol in turn.
        let mut tape: Vec<&Trades> = Vec::new();
        for i in 0..each[0].len() {
            tape.extend(each.iter().map(|packs| &packs[i]));
        }
        let names: std::collections::BTreeMap<&str, usize> =
            each.iter().enumerate().map(|(i, p)| (p[0].symbol.as_str(), i)).collect();
        let order: Vec<usize> = tape.iter().map(|p| names[p.symbol.as_str()]).collect();
        let plan = Arc::new(Plan::new(&timeframes, &[], 0, 64).map_err(anyhow::Error::msg)?);
        let (mut folded, mut bound) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            folded.push(per_second(N, || {
                let mut folders: Vec<Folder> = (0..symbols).map(|_| Folder::new(plan.clone(), Vec::new())).collect();
                let mut events = Vec::new();
                let mut closed = 0usize;
                for (pack, at) in tape.iter().zip(&order) {
                    folders[*at].fold(Columns::of(pack), &mut events)?;
                    closed += events.len();
                    events.clear();
                }
                ensure!(std::hint::black_box(closed) > 0, "nothing closed");
                Ok(())
            })?);
            bound.push(per_second(N, || {
                std::hint::black_box(bare_loop(&tape));
                Ok(())
            })?);
        }
        let what = format!("fold six timeframes, library, {symbols} symbol(s)");
        rows.push(Row {
            what,
            value: median(folded),
            unit: "ticks/s",
            beside: Some(("bare loop, one timeframe".into(), median(bound))),
        });
    }

    let encoded: Vec<(String, Vec<u8>)> =
        packs("BTCUSDT", &ticks(0, N), PACK_MAX).iter().map(|p| (p.subject(), p.encode())).collect();
    let mut config = AggregateConfig::load(None)?;
    config.timeframes = timeframes;
    config.indicator_timeframes = Vec::new();
    config.preview_timeframes = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..ROUNDS {
        whole.push(per_second(N, || {
            let mut core = AggregateCore::new(&config)?;
            let mut out = Vec::new();
            for (i, (subject, payload)) in encoded.iter().enumerate() {
                let input = In::hear(subject, payload)?.context("a trade pack")?;
                core.handle(&Place::new("RAW_BINANCE", i as u64 + 1), input, &mut out)?;
                std::hint::black_box(&out);
                out.clear();
            }
            Ok(())
        })?);
    }
    rows.push(Row {
        what: "decode packs of 256 and run the aggregate core".into(),
        value: median(whole),
        unit: "ticks/s",
        beside: None,
    });
    Ok(())
}

/// A candle of one timeframe and nothing else: what the machine could do at best.
fn bare_loop(tape: &[&Trades]) -> i64 {
    let mut check = 0i64;
    for pack in tape {
        let (mut bucket, mut open, mut high, mut low, mut close, mut volume) = (i64::MIN, 0, 0, 0, 0, 0i64);
        for i in 0..pack.len() {
            let of = pack.ts_ns[i] / 1_000_000_000;
            let price = pack.price[i];
            if of != bucket {
                check = check.wrapping_add(open ^ high ^ low ^ close ^ volume);
                (bucket, open, high, low, volume) = (of, price, price, price, 0);
            }
            high = high.max(price);
            low = low.min(price);
            close = price;
            volume += pack.size[i];
        }
        check = check.wrapping_add(open ^ high ^ low ^ close ^ volume);
    }
    check
}

async fn layout(server: &Server) -> anyhow::Result<Bus> {
    let operator = server.bus("operator").await?;
    let layout = Layout {
        venues: vec!["binance".into()],
        accounts: vec!["main".into()],
        traders: vec![],
        partitions: PARTITIONS,
    };
    layout.apply(&operator).await?;
    Ok(operator)
}

/// Through JetStream: raw packs in, candles out, by the stage loop; beside it a lean reader of the same messages, and
/// the positioned writer beside a plain publisher with the same window.
async fn bus(rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for size in [1usize, 32, 256] {
        let count = if size == 1 { 100_000 } else { 2_000_000 };
        let all = packs("BTCUSDT", &ticks(0, count), size);
        let server = Server::start().await?;
        let operator = layout(&server).await?;
        let raw = stream::raw("binance");

        // Two streams of the same form, so that neither publisher finds the other's messages.
        let mut writes = Vec::new();
        let mut plain = Vec::new();
        let begun = Instant::now();
        let mut writer = Writer::open(&operator, &raw).await?;
        for pack in &all {
            writer.push(pack.subject(), pack.encode()).await?;
        }
        writer.drain().await?;
        writes.push(count as f64 / begun.elapsed().as_secs_f64());
        let payloads: Vec<Vec<u8>> = all.iter().map(Fact::encode).collect();
        operator
            .js()
            .create_stream(async_nats::jetstream::stream::Config {
                name: "PLAIN".into(),
                subjects: vec!["plain.>".into()],
                compression: Some(async_nats::jetstream::stream::Compression::S2),
                ..Default::default()
            })
            .await?;
        let begun = Instant::now();
        plain_publish(&operator, payloads, operator.config().writer.window).await?;
        plain.push(count as f64 / begun.elapsed().as_secs_f64());
        rows.push(Row {
            what: format!("write packs of {size} by position"),
            value: median(writes),
            unit: "ticks/s",
            beside: Some(("plain publisher, same window".into(), median(plain))),
        });

        let last = operator.stream(&raw).await?.last_seq;
        let (mut folds, mut reads) = (Vec::new(), Vec::new());
        let p = partition("binance", "BTCUSDT", PARTITIONS);
        for round in 0..ROUNDS.min(3) {
            let begun = Instant::now();
            let mut reader = Reader::open(&operator, &raw, &format!("raw.{p}.binance.>"), 1).await?;
            while reader.next().await?.seq < last {}
            reads.push(count as f64 / begun.elapsed().as_secs_f64());

            // A fresh output stream a round: the task starts from nothing.
            let output = format!("BENCH_{round}");
            let subjects = ["candle", "indicator", "late"].map(|kind| format!("{kind}.{p}.binance.>")).to_vec();
            if round > 0 {
                operator.js().delete_stream(format!("BENCH_{}", round - 1)).await?;
            } else {
                operator.js().delete_stream(stream::aggregate("binance", p)).await?;
            }
            operator
                .js()
                .create_stream(async_nats::jetstream::stream::Config {
                    name: output.clone(),
                    subjects,
                    ..Default::default()
                })
                .await?;
            let mut config = AggregateConfig::load(None)?;
            config.indicator_timeframes = Vec::new();
            let core = AggregateCore::new(&config)?;
            let spec = TaskSpec {
                key: format!("bench.{round}"),
                input: raw.clone(),
                filter: format!("raw.{p}.binance.>"),
                output,
            };
            let (stats, stop) = (TaskStats::new(&spec.key), CancellationToken::new());
            let begun = Instant::now();
            let task = tokio::spawn({
                let (bus, stats, stop) = (operator.clone(), stats.clone(), stop.clone());
                async move { nats::task::run(&bus, &spec, core, Accept::default(), &stats, &stop).await }
            });
            wait_for("the task to catch up", Duration::from_secs(120), || async {
                (stats.in_seq() >= last).then_some(())
            })
            .await?;
            folds.push(count as f64 / begun.elapsed().as_secs_f64());
            stop.cancel();
            task.await??;
        }
        rows.push(Row {
            what: format!("aggregate through JetStream, packs of {size}"),
            value: median(folds),
            unit: "ticks/s",
            beside: Some(("lean reader of the same messages".into(), median(reads))),
        });
    }
    Ok(())
}

/// Publishes with acknowledgements, at most `window` in flight: the reference of the positioned writer.
async fn plain_publish(bus: &Bus, payloads: Vec<Vec<u8>>, window: usize) -> anyhow::Result<()> {
    let js = bus.js();
    futures_util::stream::iter(payloads)
        .map(|payload| async move { js.publish("plain.x", payload.into()).await?.await.map_err(anyhow::Error::from) })
        .buffer_unordered(window)
        .for_each(|ack| async {
            if let Err(error) = ack {
                eprintln!("plain publisher: {error:#}");
            }
        })
        .await;
    Ok(())
}

struct Stages(Vec<Child>);
impl Drop for Stages {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Dead already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let path = bench.ancestors().nth(2).context("target folder")?.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --release --bins", path.display());
    Ok(path)
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// From the instant before a tick is written to the instant a subscriber has the order that it caused: aggregate,
/// strategy and risk as processes, five JetStream hops (RAW, AGG, SIG, DESK, RISK). Beside it one hop of the same
/// server in the same run.
async fn latency(rows: &mut Vec<Row>) -> anyhow::Result<()> {
    const RATE_HZ: u64 = 500;
    const SECONDS: u64 = 15;
    /// Ticks between two turns of the price: each turn is a new opinion.
    const TURN: u64 = 25;
    let server = Server::start().await?;
    let bus = layout(&server).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, LATENCY_CONFIG)?;
    let instrument = Instrument {
        v: Version,
        venue: "binance".into(),
        symbol: "BTCUSDT".into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        kind: InstrumentKind::Perpetual,
        size_unit: Default::default(),
        contract_size: "1".parse()?,
        inverse: false,
        tick: "0.01".parse()?,
        lot: "0.00001".parse()?,
        min_notional: "5".parse()?,
        scale: SCALE,
        trading: true,
    };
    let key = stream::instrument_key("binance", "BTCUSDT");
    nats::kv::put(&bus, stream::KV_INSTRUMENTS, &key, instrument.encode().into()).await?;
    let mut stages = Stages(Vec::new());
    for stage in ["executor", "risk", "strategy", "aggregate"] {
        let child = Command::new(program(stage)?)
            .arg("--config")
            .arg(&config)
            .envs(server.env(stage))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {stage}"))?;
        stages.0.push(child);
    }
    wait_for("the stages", Duration::from_secs(30), || async {
        let answers = nats::stats::gather(&bus, Duration::from_millis(300)).await.ok()?;
        let all = ["executor", "risk", "strategy", "aggregate"]
            .iter()
            .all(|s| answers.iter().any(|a| a.stage == *s && a.tasks.iter().all(|t| t["running"] == true)));
        all.then_some(())
    })
    .await?;

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
    let raw = stream::raw("binance");
    let mut writer = Writer::open(&bus, &raw).await?;
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE_HZ));
    let mut clock_due = 0;
    for i in 0..RATE_HZ * SECONDS {
        tick.tick().await;
        // A triangle: up for TURN ticks, down for TURN ticks.
        let phase = (i % (2 * TURN)) as i64;
        let price = 6_000_000 + 500 * phase.min(2 * TURN as i64 - phase);
        let ts = Nanos(now_ns());
        if i % 10 == 0 {
            let mut quotes = Quotes::new(p, "binance", "BTCUSDT", SCALE);
            quotes.push(Quote {
                ts,
                recv: ts,
                bid: Some((PriceM(price - 1), QtyM(500_000))),
                ask: Some((PriceM(price + 1), QtyM(500_000))),
            });
            writer.push(quotes.subject(), quotes.encode()).await?;
        }
        if ts.0 >= clock_due {
            clock_due = ts.0 + 100_000_000;
            for q in 0..PARTITIONS {
                let clock = Clock { v: Version, venue: "binance".into(), p: q, watermark_ns: ts.0 - 1, wall_ns: ts.0 };
                writer.push(subject::clock(q, "binance"), clock.encode()).await?;
            }
        }
        let ts = Nanos(now_ns());
        let mut pack = Trades::new(p, "binance", "BTCUSDT", SCALE);
        pack.push(Trade { ts, recv: ts, id: i + 1, price: PriceM(price), size: QtyM(100_000), side: Side::Buy });
        writer.push(pack.subject(), pack.encode()).await?;
    }
    writer.drain().await?;
    let (mut orders, mut hops) = (heard.await?, hops.await?);
    ensure!(orders.len() > 20, "only {} orders came of {} ticks", orders.len(), RATE_HZ * SECONDS);
    orders.sort_by(f64::total_cmp);
    hops.sort_by(f64::total_cmp);
    let at = |list: &[f64], q: f64| list[((list.len() - 1) as f64 * q) as usize];
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        rows.push(Row {
            what: format!("tick to order, {name} of {} orders at {RATE_HZ} ticks/s", orders.len()),
            value: at(&orders, q),
            unit: "ms",
            beside: Some((format!("one hop, {name}"), at(&hops, q))),
        });
    }
    Ok(())
}

const LATENCY_CONFIG: &str = r#"
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
[executor.fill]
model = "next_trade"
latency_ns = 0
"#;
