//! What a venue's messages cost to read, and how much of a venue one ingest process bears.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use ingest::event::{Book, Event, Frame};
use ingest::venue::{Market, VENUES, Venue};
use nats::{Bus, leader};
use schemas::Fact;
use schemas::raw::Trades;
use schemas::subject::{self, PARTITIONS, partition, stream};
use serde_json::{Value, json};
use tests::{Server, wait_for};

use crate::bus::runtime;
use crate::method::{Aim, ROUNDS, Report, median, program, resident_mib, took};
use crate::pipeline::{Stages, layout};

/// Times that one message is read in a round.
const REPEATS: usize = 400_000;
/// Levels that a book message should have on both sides together.
const LEVELS: usize = 10;
const BOUND: Duration = Duration::from_secs(180);

/// A message as it comes.
#[derive(Clone)]
struct Sample {
    market: Market,
    bytes: Vec<u8>,
    binary: bool,
    levels: usize,
}

impl Sample {
    fn frame(&self) -> anyhow::Result<Frame<'_>> {
        Ok(if self.binary { Frame::Binary(&self.bytes) } else { Frame::Text(std::str::from_utf8(&self.bytes)?) })
    }
}

/// The recorded messages of a venue: one with a single trade, and the book message nearest to ten levels.
fn samples(venue: &dyn Venue, folder: &Path) -> anyhow::Result<(Option<Sample>, Option<Sample>)> {
    let (mut trade, mut book): (Option<Sample>, Option<Sample>) = (None, None);
    let mut names: Vec<_> = std::fs::read_dir(folder)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    for name in names.iter().filter(|n| n.starts_with("ws_") || n.starts_with("seq_")) {
        let hex = name.ends_with(".hex");
        if !hex && !name.ends_with(".jsonl") {
            continue;
        }
        let word = name.split(['_', '.']).nth(1).unwrap_or("");
        let market = *venue.markets().iter().find(|m| m.name == word).unwrap_or(&venue.markets()[0]);
        for line in std::fs::read_to_string(folder.join(name))?.lines().take(300) {
            let bytes = if hex {
                (0..line.len() / 2).filter_map(|n| u8::from_str_radix(line.get(2 * n..2 * n + 2)?, 16).ok()).collect()
            } else {
                line.as_bytes().to_vec()
            };
            let mut sample = Sample { market, bytes, binary: hex, levels: 0 };
            let mut events = Vec::new();
            venue.decode(market, sample.frame()?, &mut events);
            match &events[..] {
                [Event::Trade(_)] if trade.is_none() => trade = Some(sample),
                [Event::Book(Book { bids, asks, .. })] => {
                    sample.levels = bids.len() + asks.len();
                    let far = |s: &Sample| s.levels.abs_diff(LEVELS);
                    if book.as_ref().is_none_or(|best| far(&sample) < far(best)) {
                        book = Some(sample);
                    }
                }
                _ => {}
            }
        }
    }
    Ok((trade, book))
}

/// Nanoseconds to read a venue's message into events, beside serde_json reading its text into a `Value`.
pub fn decode(report: &mut Report) -> anyhow::Result<()> {
    let Some(root) = schemas::fixtures::root() else {
        report.skip("decode of venue messages", "the shared fixtures are not here");
        return Ok(());
    };
    for venue in VENUES {
        let (trade, book) = samples(*venue, &root.join("fixtures/venues").join(venue.id()))?;
        for (what, sample) in [("trade", trade), ("book message", book)] {
            let Some(sample) = sample else {
                report.skip(format!("{} {what}", venue.id()), "no recorded message of one event");
                continue;
            };
            let size = if sample.levels > 0 { format!(" of {} levels", sample.levels) } else { String::new() };
            one(report, *venue, &format!("{} {what}{size}", venue.id()), &sample)?;
            // HTX packs every frame.
            if venue.id() == "htx" {
                let mut packed = GzEncoder::new(Vec::new(), Compression::default());
                std::io::Write::write_all(&mut packed, &sample.bytes)?;
                let packed = Sample { bytes: packed.finish()?, binary: true, ..sample.clone() };
                one(report, *venue, &format!("{} {what}{size}, gzip", venue.id()), &packed)?;
            }
        }
    }
    Ok(())
}

fn one(report: &mut Report, venue: &dyn Venue, what: &str, sample: &Sample) -> anyhow::Result<()> {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    let mut events = Vec::new();
    for _ in 0..ROUNDS {
        let frame = sample.frame()?;
        ours.push(took(&[], || {
            for _ in 0..REPEATS {
                events.clear();
                venue.decode(sample.market, black_box(frame), &mut events);
                black_box(&events);
            }
            Ok(())
        })?);
        if let Frame::Text(text) = frame {
            plain.push(took(&[], || {
                for _ in 0..REPEATS {
                    black_box(serde_json::from_str::<Value>(black_box(text))?);
                }
                Ok(())
            })?);
        }
    }
    let ns = |list: &[crate::method::Took]| median(list.iter().map(|t| t.cpu_s * 1e9 / REPEATS as f64).collect());
    let beside = (!plain.is_empty()).then(|| ("serde_json into a Value", ns(&plain)));
    report.value("Venues", format!("decode, {what}"), ns(&ours), "ns", beside, None);
    Ok(())
}

/// The simulator with a seeded market, as a process. Dropping it kills exactly that one.
struct StandIn {
    child: Child,
    address: String,
}

impl StandIn {
    async fn start(dir: &Path, symbols: &[String], flags: &[&str]) -> anyhow::Result<Self> {
        let ports = dir.join("ports.json");
        // Absent the first time.
        let _ = std::fs::remove_file(&ports);
        let config = dir.join("simulator.toml");
        std::fs::write(&config, "[simulator]\nclient_outbox_frames_max = 1000000\n")?;
        let child = Command::new(program("simulator")?)
            .args(["--venue", "binance", "--listen", "127.0.0.1:0", "--levels", "20", "--history", "60"])
            .args(["--symbols", &symbols.join(",")])
            .args(flags)
            .arg("--config")
            .arg(&config)
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the simulator")?;
        let mut market = Self { child, address: String::new() };
        market.address = wait_for("the simulator's address", BOUND, || async {
            let said: Value = serde_json::from_str(&std::fs::read_to_string(&ports).ok()?).ok()?;
            Some(said.get("binance")?.as_str()?.to_owned())
        })
        .await?;
        Ok(market)
    }

    async fn state(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&reqwest::get(format!("http://{}/sim/state", self.address)).await?.text().await?)?)
    }

    async fn frames(&self) -> anyhow::Result<u64> {
        self.state().await?["frames"].as_u64().context("frames")
    }

    async fn pause(&self) -> anyhow::Result<()> {
        let asked = reqwest::Client::new().post(format!("http://{}/sim/faults", self.address));
        let said = asked.body(json!({ "kind": "pause" }).to_string()).send().await?;
        ensure!(said.status().is_success(), "{}", said.status());
        Ok(())
    }

    /// Newest trade id of a symbol, by REST.
    async fn newest(&self, symbol: &str) -> anyhow::Result<u64> {
        let url = format!("http://{}/api/v3/trades?symbol={symbol}&limit=1", self.address);
        let rows: Value = serde_json::from_str(&reqwest::get(url).await?.text().await?)?;
        rows[0]["id"].as_u64().with_context(|| format!("trades of {symbol}: {rows}"))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn symbols(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("S{n:03}USDT")).collect()
}

fn configuration(server: &Server, address: &str, symbols: &[String]) -> anyhow::Result<std::path::PathBuf> {
    let path = server.dir().join("tapeline.toml");
    let text = format!(
        "[ingest.warmup]\ncandles = {{}}\n[ingest.venues.binance]\nsymbols = {symbols:?}\n\
         channels = [\"{{}}@trade\", \"{{}}@bookTicker\", \"{{}}@depth@100ms\"]\nws_url = \"ws://{0}\"\n\
         rest_url = \"http://{0}\"\n",
        address
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The newest stored trade of a symbol; `None` before the first.
async fn newest_stored(bus: &Bus, symbol: &str) -> anyhow::Result<Option<u64>> {
    let subject = subject::raw(partition("binance", symbol, PARTITIONS), "binance", Trades::KIND, symbol);
    let Some(last) = leader::last_by_subject(bus, &stream::raw("binance"), &subject).await? else { return Ok(None) };
    Ok(Trades::decode(&last.payload)?.id.last().copied())
}

async fn whole(bus: &Bus) -> Option<()> {
    let asked = bus.client().request(ingest::ctl::subject("binance"), r#"{"op":"status"}"#.into()).await.ok()?;
    let said: Value = serde_json::from_slice(&asked.payload).ok()?;
    said["links"].as_array()?.iter().all(|link| link["whole"] == json!(true)).then_some(())
}

/// From the start of a process to its first connection to the venue, on a bus without anything stored.
pub fn startup(report: &mut Report) -> anyhow::Result<()> {
    let rt = runtime()?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let server = rt.block_on(Server::start())?;
        rt.block_on(layout(&server, false))?;
        let venue = rt.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let config = configuration(&server, &venue.local_addr()?.to_string(), &symbols(20))?;
        let begun = Instant::now();
        let stages = Stages::start(&server, &config, &["ingest"])?;
        rt.block_on(async { tokio::time::timeout(BOUND, venue.accept()).await })??;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        drop(stages);
        let begun = Instant::now();
        ensure!(
            Command::new(program("ingest")?).arg("--version").stdout(Stdio::null()).status()?.success(),
            "--version"
        );
        bare.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let beside = Some(("the program that only says its version", median(bare)));
    let what = "from the start of ingest to its first connection to the venue";
    report.value("Venues", what, median(ours), "ms", beside, Some(Aim::AtMost(100.0)));
    Ok(())
}

/// 50,000 messages a second for a minute from the simulator through ingest to JetStream, without loss.
pub fn sustained(report: &mut Report) -> anyhow::Result<()> {
    const SECONDS: u64 = 60;
    const AIM: f64 = 50_000.0;
    let dir = tempfile::tempdir()?;
    let names = symbols(20);
    runtime()?.block_on(async {
        let server = Server::start().await?;
        let bus = layout(&server, false).await?;
        // A market operation is about one message: a trade or a new best price, and changes of books ten times a second.
        let market = StandIn::start(dir.path(), &names, &["--flood", "84000"]).await?;
        let config = configuration(&server, &market.address, &names)?;
        let stages = Stages::start(&server, &config, &["ingest"])?;
        wait_for("a whole feed", BOUND, || async { whole(&bus).await }).await?;
        let ingest_pid = stages.pids(&server)[0].to_string();
        let mut first = BTreeMap::new();
        for name in &names {
            let id = wait_for("a first trade", BOUND, || async { newest_stored(&bus, name).await.ok()? }).await?;
            first.insert(name, id);
        }
        let (begun, before) = (Instant::now(), market.frames().await?);
        let cpu_before = crate::method::cpu_seconds(&ingest_pid);
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let mut mib: f64 = 0.0;
        for _ in 0..SECONDS {
            beat.tick().await;
            mib = mib.max(resident_mib(&ingest_pid));
        }
        let (sent, wall_s) = (market.frames().await? - before, begun.elapsed().as_secs_f64());
        let cpu_s = crate::method::cpu_seconds(&ingest_pid) - cpu_before;
        market.pause().await?;
        let behind = Instant::now();
        for name in &names {
            let newest = market.newest(name).await?;
            wait_for("the last trade to be stored", BOUND, || async {
                (newest_stored(&bus, name).await.ok()?? >= newest).then_some(())
            })
            .await
            .with_context(|| format!("{name} up to {newest}"))?;
        }
        let drained_s = behind.elapsed().as_secs_f64();
        let state = market.state().await?;
        let lost = tests::ticks::Ticks::read(&bus, "binance").await?;
        let trouble = lost.trouble();
        ensure!(trouble.is_empty(), "lost or doubled: {:?}", &trouble[..trouble.len().min(5)]);
        ensure!(lost.told_holes() == 0 && state["slow_clients_cut"] == 0, "holes {}, {state}", lost.told_holes());
        let rate = sent as f64 / wall_s;
        let what = format!("{SECONDS} s of a flooding venue (20 symbols, trades, quotes, books), nothing lost");
        report.value("Venues", what, rate, "messages/s", None, Some(Aim::AtLeast(AIM)));
        report.value("Venues", "ingest's CPU a message of it", cpu_s * 1e9 / sent as f64, "ns", None, None);
        report.value("Venues", "until the last of it was stored", drained_s, "s", None, None);
        report.value("Venues", "ingest's memory during it, most", mib, "MiB", None, None);
        report.value("Venues", "trades of it, each stored once", lost.trades() as f64, "trades", None, None);
        anyhow::Ok(())
    })
}

/// Memory of one ingest process with 500 symbols: trades, quotes and books.
pub fn memory(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    runtime()?.block_on(async {
        for n in [20, 500] {
            let names = symbols(n);
            let server = Server::start().await?;
            let bus = layout(&server, false).await?;
            let market = StandIn::start(dir.path(), &names, &["--flood", "5000"]).await?;
            let config = configuration(&server, &market.address, &names)?;
            let stages = Stages::start(&server, &config, &["ingest"])?;
            wait_for("a whole feed", BOUND, || async { whole(&bus).await }).await?;
            for name in &names {
                wait_for("a trade of each", BOUND, || async { newest_stored(&bus, name).await.ok()? }).await?;
            }
            let mib = resident_mib(&stages.pids(&server)[0].to_string());
            let aim = (n == 500).then_some(Aim::AtMost(512.0));
            report.value("Venues", format!("memory of ingest with {n} symbols"), mib, "MiB", None, aim);
        }
        anyhow::Ok(())
    })
}
