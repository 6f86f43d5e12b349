//! The backtest engine's figures, each beside its reference of the same run: an EMA cross from ticks with risk and the
//! full simulated executor, over a Parquet tape and straight from a JetStream stream.
//!
//! Runs are processes of their own, so that each has its own memory figure; rounds alternate and medians are printed.
//! `ENGINE_TICKS` sets the length of the tape; below 8 million the shortest run has too few bars to trade, which is an error.
//! `--json` prints one JSON document.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use backtest::fact::Typed;
use backtest::pack::{Columns, Listed};
use backtest::parquet::{TradesWriter, tape};
use backtest::{Setup, Tape, play};
use cli::stream_tape::{Range, StreamTape};
use nats::{Layout, Reader, Writer};
use schemas::raw::{PACK_MAX, Raw, Trades};
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{Fact, Scale};
use serde_json::{Value, json};
use tests::Server;

const ROUNDS: usize = 5;
const TICKS: usize = 10_000_000;
const STREAM_TICKS: usize = 3_000_000;
/// Rows of a row group: what is held in memory at once.
const GROUP_ROWS: usize = 1 << 17;
const SCALE: Scale = Scale { price: 2, qty: 5 };
const START_NS: i64 = 1_700_000_000_000_000_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--child") {
        return child(&args[at + 1..]);
    }
    let ticks = std::env::var("ENGINE_TICKS").ok().and_then(|n| n.parse().ok()).unwrap_or(TICKS);
    let dir = tempfile::tempdir()?;
    let (whole, short) = (dir.path().join("whole.parquet"), dir.path().join("short.parquet"));
    write(&whole, ticks)?;
    write(&short, ticks / 10)?;
    let variants: [(&str, &Path, &[&str]); 6] = [
        ("EMA 9/21 on 1m, risk and executor, hashed", &whole, &["ema_cross_9_21", "1m", "hash"]),
        ("the same, not hashed", &whole, &["ema_cross_9_21", "1m", "-"]),
        ("the same on a tenth of the tape", &short, &["ema_cross_9_21", "1m", "-"]),
        ("few orders (EMA 150/300 on 5s)", &whole, &["ema_cross_150_300", "5s", "-"]),
        ("many orders (EMA 1/2 on 5s)", &whole, &["ema_cross_1_2", "5s", "-"]),
        ("lean loop: the tape and one candle", &whole, &["lean", "1m", "-"]),
    ];
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((_, path, args), runs) in variants.iter().zip(&mut runs) {
            runs.push(spawn(path, args)?);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (lean, engine) = from_stream(&runtime)?;
    let median = |runs: &[Value], key: &str| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut rows = Vec::new();
    for ((name, _, _), runs) in variants.iter().zip(&runs) {
        rows.push(json!({
            "what": name,
            "ticks_per_s": median(runs, "ticks_per_s"),
            "cpu_ns_per_tick": median(runs, "cpu_ns_per_tick"),
            "rss_mib": median(runs, "rss_mib"),
            "ticks": runs[0]["ticks"], "orders": runs[0]["orders"], "fills": runs[0]["fills"],
        }));
    }
    let per_tick = |i: usize| 1.0 / median(&runs[i], "ticks_per_s");
    let flat = per_tick(4) / per_tick(3);
    if args.iter().any(|a| a == "--json") {
        let from_stream = json!({"engine_ticks_per_s": engine, "lean_ticks_per_s": lean, "ratio": engine / lean});
        let report = json!({"runs": rows, "many_orders_over_few": flat, "from_stream": from_stream});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    for row in &rows {
        println!(
            "{:<44} {:>7.2} M ticks/s  {:>6.1} ns CPU a tick  {:>5.0} MiB  {} ticks, {} orders, {} fills",
            row["what"].as_str().unwrap_or_default(),
            row["ticks_per_s"].as_f64().unwrap_or_default() / 1e6,
            row["cpu_ns_per_tick"].as_f64().unwrap_or_default(),
            row["rss_mib"].as_f64().unwrap_or_default(),
            row["ticks"],
            row["orders"],
            row["fills"]
        );
    }
    println!("many orders over few, time a tick: {flat:.2}");
    println!(
        "from JetStream, packs of {PACK_MAX}: engine {:.2} M ticks/s, lean reader with decoding {:.2} M (ratio {:.2})",
        engine / 1e6,
        lean / 1e6,
        engine / lean
    );
    Ok(())
}

/// A hundred trades a second, a walk of a cent; the generator is written down so that every machine plays the same.
struct Market {
    state: u64,
    price: i64,
    done: usize,
}

impl Market {
    fn new() -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, price: 6_000_000, done: 0 }
    }
    fn next(&mut self, n: usize) -> Columns {
        let mut c = Columns::default();
        for i in self.done..self.done + n {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = self.state >> 33;
            self.price += (dice % 3) as i64 - 1;
            c.ts_ns.push(START_NS + i as i64 * 10_000_000);
            c.id.push(i as u64 + 1);
            c.price.push(self.price);
            c.size.push(1 + (dice % 1000) as i64);
            c.side.push(if dice & 8 == 0 { b'b' } else { b's' });
        }
        c.recv_ns.clone_from(&c.ts_ns);
        self.done += n;
        c
    }
}

fn listed() -> Listed {
    Listed { venue: "binance-usdm".into(), symbol: "BTCUSDT".into(), scale: SCALE, spot: false }
}

fn write(path: &Path, ticks: usize) -> anyhow::Result<()> {
    let mut market = Market::new();
    let mut writer = TradesWriter::create(path, listed())?;
    while market.done < ticks {
        writer.write(&market.next(GROUP_ROWS.min(ticks - market.done)))?;
    }
    writer.end()
}

fn spawn(path: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let out = Command::new(std::env::current_exe()?).arg("--child").arg(path).args(args).output()?;
    ensure!(out.status.success(), "run {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("read a run's figures")
}

fn setup(strategy: &str, timeframe: &str, hash: bool) -> anyhow::Result<Setup> {
    let mut setup = Setup::of(None)?.with_strategy(&strategy.parse()?, timeframe.parse()?)?;
    setup.executor.fill.model = "next_trade".to_owned();
    // Fees, 50 ms of latency and partial fills as configured; a taker pays a basis point of slippage.
    setup.executor.fill.slippage_bps = "1".parse()?;
    setup.hash = hash;
    Ok(setup)
}

/// `PATH STRATEGY|lean TIMEFRAME hash|-`
fn child(args: &[String]) -> anyhow::Result<()> {
    let [path, strategy, timeframe, hash] = args else { anyhow::bail!("PATH STRATEGY TIMEFRAME hash|-") };
    let files = [PathBuf::from(path)];
    let grace_ns = |_: &str| 500_000_000;
    let (begun, cpu) = (Instant::now(), cpu_s()?);
    let (ticks, orders, fills);
    if strategy == "lean" {
        let mut tape = tape(&files, timeframe.parse()?, grace_ns)?;
        let (mut count, mut check) = (0u64, 0i64);
        while let Some(entry) = tape.next()? {
            if let Typed::Raw(Raw::Trades(pack)) = &entry.fact {
                count += pack.len() as u64;
                check = check.wrapping_add(bare(pack));
            }
        }
        std::hint::black_box(check);
        (ticks, orders, fills) = (count, 0, 0);
    } else {
        let setup = setup(strategy, timeframe, hash == "hash")?;
        let mut tape = tape(&files, setup.timeframe_min(), grace_ns)?;
        let mut played = 0;
        let report = play(&setup, &mut tape, |p| played = p.done)?;
        let count = |kind: &str| report.kinds.get(kind).copied().unwrap_or(0);
        ensure!(count("fill") > 0, "nothing was traded: {:?} {:?}", report.kinds, report.refusals);
        (ticks, orders, fills) = (played, count("order"), count("fill"));
    }
    let (wall_s, cpu_s) = (begun.elapsed().as_secs_f64(), cpu_s()? - cpu);
    let figures = json!({
        "ticks": ticks, "orders": orders, "fills": fills,
        "ticks_per_s": ticks as f64 / wall_s, "cpu_ns_per_tick": cpu_s * 1e9 / ticks as f64, "rss_mib": rss_mib()?,
    });
    println!("{figures}");
    Ok(())
}

/// A candle of one timeframe and nothing else.
fn bare(pack: &Trades) -> i64 {
    let (mut high, mut low, mut volume) = (i64::MIN, i64::MAX, 0i64);
    for (price, size) in pack.price.iter().zip(&pack.size) {
        high = high.max(*price);
        low = low.min(*price);
        volume += size;
    }
    high ^ low ^ volume ^ pack.ts_ns[0]
}

/// User and system time of this process.
fn cpu_s() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no command")?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).context("no time");
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The most memory that this process has had.
fn rss_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Ticks a second of a reader that only decodes, and of the engine, over the same stream.
fn from_stream(runtime: &tokio::runtime::Runtime) -> anyhow::Result<(f64, f64)> {
    let raw = stream::raw("binance-usdm");
    let (_server, bus, last) = runtime.block_on(async {
        let server = Server::start().await?;
        let bus = server.bus("operator").await?;
        let layout = Layout {
            venues: vec!["binance-usdm".into()],
            accounts: vec!["main".into()],
            traders: vec![],
            partitions: PARTITIONS,
        };
        layout.apply(&bus).await?;
        let mut writer = Writer::open(&bus, &raw).await?;
        let mut market = Market::new();
        while market.done < STREAM_TICKS {
            let c = market.next(PACK_MAX.min(STREAM_TICKS - market.done));
            let p = partition("binance-usdm", "BTCUSDT", PARTITIONS);
            let mut pack = Trades::new(p, "binance-usdm", "BTCUSDT", SCALE);
            (pack.ts_ns, pack.recv_ns, pack.id, pack.price, pack.size) = (c.ts_ns, c.recv_ns, c.id, c.price, c.size);
            pack.side = String::from_utf8(c.side)?;
            writer.push(pack.subject(), pack.encode()).await?;
        }
        writer.drain().await?;
        let last = bus.stream(&raw).await?.last_seq;
        anyhow::Ok((server, bus, last))
    })?;
    let (mut lean, mut engine) = (Vec::new(), Vec::new());
    let setup = setup("ema_cross_9_21", "1m", true)?;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        runtime.block_on(async {
            let mut reader = Reader::open(&bus, &raw, ">", 1).await?;
            let mut check = 0;
            loop {
                for message in reader.next_batch(256).await? {
                    if let Some(Raw::Trades(pack)) = Raw::hear(&message.subject, &message.payload)? {
                        check ^= bare(&pack);
                    }
                    if message.seq == last {
                        std::hint::black_box(check);
                        return anyhow::Ok(());
                    }
                }
            }
        })?;
        lean.push(STREAM_TICKS as f64 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let mut tape = runtime.block_on(StreamTape::open(&bus, std::slice::from_ref(&raw), Range::ALL, false))?;
        let report = play(&setup, &mut tape, |_| ())?;
        ensure!(report.kinds["fill"] > 0, "{:?}", report.kinds);
        engine.push(STREAM_TICKS as f64 / begun.elapsed().as_secs_f64());
    }
    lean.sort_by(f64::total_cmp);
    engine.sort_by(f64::total_cmp);
    Ok((lean[ROUNDS / 2], engine[ROUNDS / 2]))
}
