//! A venue that floods: the simulator plays a recording over its WebSocket as fast as its one client reads, into a live
//! ingest process. Beside it a client that only reads the frames: what the simulator and the socket leave room for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use nats::{Bus, leader};
use schemas::raw::Trades;
use schemas::subject::{self, PARTITIONS, partition, stream};
use schemas::{Fact, Side};
use tests::{Server, wait_for};
use tokio_tungstenite::tungstenite::Message;

use crate::bus::runtime;
use crate::market::ticks;
use crate::method::{Aim, ROUNDS, Report, Took, cpu_seconds, median, program};
use crate::pipeline::{Stages, layout};

/// Trades of one round.
const N: usize = 400_000;
const STEP_BOUND: Duration = Duration::from_secs(120);

/// The simulator as a process. Dropping it kills exactly that one.
struct Venue {
    child: Child,
    address: String,
}

impl Venue {
    async fn start(dir: &Path, recording: &Path) -> anyhow::Result<Self> {
        let ports = dir.join("ports.json");
        // Absent in the first round.
        let _ = std::fs::remove_file(&ports);
        let child = Command::new(program("simulator")?)
            .args(["--venue", "binance", "--listen", "127.0.0.1:0", "--speed", "max", "--recording"])
            .arg(recording)
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the simulator")?;
        let mut venue = Self { child, address: String::new() };
        venue.address = wait_for("the simulator's address", STEP_BOUND, || async {
            let said: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&ports).ok()?).ok()?;
            Some(said.get("binance")?.as_str()?.to_owned())
        })
        .await?;
        Ok(venue)
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn recording(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("flood.txt");
    let lines = ticks(0, N).into_iter().map(|t| {
        let ms = t.ts.0 / 1_000_000;
        format!(
            "{} {{\"stream\":\"btcusdt@trade\",\"data\":{{\"e\":\"trade\",\"E\":{ms},\"s\":\"BTCUSDT\",\"t\":{},\
             \"p\":\"{}.{:02}000000\",\"q\":\"0.{:05}000\",\"T\":{ms},\"m\":{},\"M\":true}}}}\n",
            t.recv.0,
            t.id,
            t.price.0 / 100,
            t.price.0 % 100,
            t.size.0,
            t.side == Side::Sell
        )
    });
    std::fs::write(&path, lines.collect::<String>())?;
    Ok(path)
}

/// CPU seconds of three processes: ingest, server, simulator.
type Shares = [f64; 3];

pub fn flood(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let recording = recording(dir.path())?;
    let rt = runtime()?;
    let (mut stored, mut read, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (took, of) = rt.block_on(live(dir.path(), &recording))?;
        stored.push(took);
        shares.push(of);
        read.push(rt.block_on(bare(dir.path(), &recording))?);
    }
    let beside = Some(("a client that only reads the frames", &read[..]));
    let what = "ingest, a flooding venue's WebSocket to stored packs";
    report.rate("Pipeline", what, N, "ticks/s", &stored, beside, Some(Aim::AtLeast(3e6)));
    for (at, process) in ["ingest", "nats-server", "the simulator"].into_iter().enumerate() {
        let ns = median(shares.iter().map(|of| of[at] * 1e9 / N as f64).collect());
        report.value("Pipeline", format!("CPU a tick of that flood, {process}"), ns, "ns", None, None);
    }
    Ok(())
}

/// From the first stored trade to the last.
async fn live(dir: &Path, recording: &Path) -> anyhow::Result<(Took, Shares)> {
    let server = Server::start().await?;
    let bus = layout(&server, false).await?;
    let venue = Venue::start(dir, recording).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(
        &config,
        format!(
            "[ingest.venues.binance]\nsymbols = [\"BTCUSDT\"]\nchannels = [\"{{}}@trade\"]\n\
             ws_url = \"ws://{0}\"\nrest_url = \"http://{0}\"\n",
            venue.address
        ),
    )?;
    let stages = Stages::start(&server, &config, &["ingest"])?;
    let pids = [stages.pids(&server)[0], server.pid(), venue.child.id()];
    let used = || pids.map(|pid| cpu_seconds(&pid.to_string()));
    let first = reached(&bus, 1).await?;
    let (before, begun) = (used(), Instant::now());
    let last = reached(&bus, N as u64).await?;
    let (wall_s, after) = (begun.elapsed().as_secs_f64(), used());
    // What was stored before the clock was read does not count for us.
    let whole = N as f64 / (last - first) as f64;
    let of = [0, 1, 2].map(|at| (after[at] - before[at]) * whole);
    Ok((Took { wall_s: wall_s * whole, cpu_s: of.iter().sum() }, of))
}

/// Waits until the trade `id` is stored; the newest that is.
async fn reached(bus: &Bus, id: u64) -> anyhow::Result<u64> {
    let subject = subject::raw(partition("binance", "BTCUSDT", PARTITIONS), "binance", Trades::KIND, "BTCUSDT");
    wait_for("the flood to be stored", STEP_BOUND, || async {
        let last = leader::last_by_subject(bus, &stream::raw("binance"), &subject).await.ok()??;
        let pack = Trades::decode(&last.payload).ok()?;
        pack.id.last().copied().filter(|last| *last >= id)
    })
    .await
}

async fn bare(dir: &Path, recording: &Path) -> anyhow::Result<Took> {
    let venue = Venue::start(dir, recording).await?;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/stream", venue.address)).await?;
    let subscribe = r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#;
    socket.send(Message::text(subscribe)).await?;
    let mut frames = 0;
    let (mut begun, mut cpu_begun) = (Instant::now(), 0.0);
    let cpu = || cpu_seconds("self") + cpu_seconds(&venue.child.id().to_string());
    while frames < N {
        let frame = tokio::time::timeout(STEP_BOUND, socket.next()).await?.context("the simulator hung up")??;
        let Message::Text(text) = frame else { continue };
        if text.contains("@trade") {
            if frames == 0 {
                (begun, cpu_begun) = (Instant::now(), cpu());
            }
            frames += 1;
        }
    }
    ensure!(frames == N, "{frames} frames");
    Ok(Took { wall_s: begun.elapsed().as_secs_f64(), cpu_s: cpu() - cpu_begun })
}
