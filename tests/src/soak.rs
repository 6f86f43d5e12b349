//! Accelerated input for a long time, while memory and files are measured: do they stay flat?
//!
//! The slope is Theil and Sen's over the last two thirds: the run is cut into sixty equal parts, each is its mean, and of
//! the last forty the median of the slopes of all pairs counts. So a single peak decides nothing, and what fills first
//! (indicator windows, caches, allocators, a garbage collector's room) is no growth. Beside it stands its interval of
//! 95 % confidence (Sen 1968, from Kendall's statistic; parts of one process hang together, so it is rather narrow). Below
//! the bound as a whole it is flat, above the bound as a whole it is not; else the run was too short to tell, and says so.
//!
//! nats-server's resident memory is its live heap and about as much again, which its garbage collector lets grow before
//! it runs; so the live heap is measured as well. It breathes with the blocks that it writes to and drops from: the large
//! streams are bounded so that they reach their retention in the first minutes and have small blocks (a quarter of the
//! bound, at most 8 MiB). Where a compressed stream reaches its retention the memory takes a step: from then on the oldest
//! block is decoded to drop from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nats::{Bus, Layout, Reader};
use schemas::config::UserFile;
use schemas::subject::stream::KV_CHECKPOINT;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::Server;
use crate::fleet::{Fleet, STAGES};
use crate::venue::Venues;

/// Share of the run that is warming up: windows of indicators and caches fill, allocators settle.
const WARM_UP: f64 = 1.0 / 3.0;
/// Equal parts that a run is cut into for its slopes.
const PARTS: f64 = 60.0;
/// A stage is flat when its memory grows by less than this: KiB a minute, 90 MiB a day.
pub const STAGE_SLOPE_MAX: f64 = 64.0;
/// nats-server holds an index of what is stored, which grows with the streams until their retention is reached.
pub const SERVER_SLOPE_MAX: f64 = 1024.0;
/// A checkpoint, or what is stored, is flat when its largest size behind the warm-up is at most this times the largest
/// before, ...
pub const SIZE_GROWTH_MAX: f64 = 1.5;
/// ... or at most this.
pub const SIZE_BYTES_SMALL: f64 = 16_384.0;
/// Bound of each venue's tick stream and of the desk, and of each stream of candles, so that the run reaches them and
/// goes on for most of its time with all that it may keep.
const STREAM_BYTES_MAX: u64 = 16 << 20;
const AGGREGATE_MESSAGES_MAX: u64 = 4_000;
/// What is stored in all streams: bounded, so it has a verdict.
const STREAMS: &str = "streams";
/// Of nats-server, from its own statistics.
const LIVE_HEAP: &str = "nats-server live heap";
const MONITOR_BOUND: Duration = Duration::from_secs(5);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const CHECKPOINTS_MAX: usize = 4096;
const VENUES: [&str; 2] = ["binance", "binance-usdm"];

#[derive(Clone, Debug, Serialize)]
pub struct Options {
    pub minutes: u64,
    /// Virtual seconds in a real one.
    pub speed: u64,
    pub seed: u64,
    pub partitions: u32,
}

/// Memory of one process.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub process: &'static str,
    pub start_kib: f64,
    /// Behind the warm-up.
    pub warm_kib: f64,
    pub end_kib: f64,
    pub max_kib: f64,
    /// Theil and Sen's, behind the warm-up.
    pub slope_kib_per_min: f64,
    /// Its interval of 95 % confidence.
    pub slope_from_kib_per_min: f64,
    pub slope_to_kib_per_min: f64,
    pub bound_kib_per_min: f64,
    pub growth: Growth,
    /// Mean of every minute, from the start.
    pub kib_by_minute: Vec<f64>,
}

/// What a slope says of its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    Flat,
    /// The noise is larger than the distance to the bound: run for longer.
    NotTold,
    NotFlat,
}

impl Growth {
    /// `slope` as [`slopes`] gives it, in the unit of `bound`.
    pub fn of(slope: [f64; 3], bound: f64) -> Self {
        let [from, _, to] = slope;
        if to <= bound {
            Self::Flat
        } else if from > bound {
            Self::NotFlat
        } else {
            Self::NotTold
        }
    }
}

/// A file, folder or checkpoint, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    pub name: String,
    pub warm_bytes: u64,
    pub end_bytes: u64,
    pub slope_kib_per_min: f64,
    /// `None`: grows with the length of the run; no verdict.
    pub flat: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub options: Options,
    pub memory: Vec<Memory>,
    pub checkpoints: Vec<Size>,
    pub files: Vec<Size>,
    /// Messages stored in all streams, those included that retention dropped since.
    pub messages: u64,
    /// Market time that passed, in hours.
    pub market_h: f64,
    /// Everything is, and was told to be.
    pub flat: bool,
}

/// Theil and Sen's slope of points (x, y) between the ends of its interval of 95 % confidence. Zeros for fewer than two
/// points.
pub fn slopes(points: &[(f64, f64)]) -> [f64; 3] {
    let pairs = points.iter().enumerate().flat_map(|(i, a)| points[i + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> = pairs.filter(|(a, b)| a.0 != b.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    slopes.sort_by(f64::total_cmp);
    let n = points.len() as f64;
    // 1.96 standard deviations of Kendall's S under no trend.
    let wide = 1.96 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).max(0.0).sqrt();
    let all = slopes.len() as f64;
    let at = |rank: f64| slopes.get(rank.clamp(0.0, (all - 1.0).max(0.0)) as usize).copied().unwrap_or(0.0);
    [at((all - wide) / 2.0), at(all / 2.0), at((all + wide) / 2.0)]
}

/// Named values over time, in minutes.
#[derive(Default)]
struct Series(BTreeMap<String, Vec<(f64, f64)>>);

impl Series {
    fn add(&mut self, name: &str, minute: f64, value: f64) {
        self.0.entry(name.to_owned()).or_default().push((minute, value));
    }
    /// What came before and behind the warm-up.
    fn halves(points: &[(f64, f64)], minutes: f64) -> (&[(f64, f64)], &[(f64, f64)]) {
        points.split_at(points.partition_point(|(minute, _)| *minute < minutes * WARM_UP))
    }
    /// [`slopes`] of the means of the equal parts behind the warm-up.
    fn slopes(points: &[(f64, f64)], minutes: f64) -> [f64; 3] {
        let part = |point: &(f64, f64)| (point.0 * PARTS / minutes) as u64;
        let parts = Self::halves(points, minutes).1.chunk_by(|a, b| part(a) == part(b));
        slopes(&parts.map(mean).collect::<Vec<_>>())
    }
}

/// Runs all stages over the venue simulator. `progress` hears the minutes that have passed.
pub async fn run(options: &Options, mut progress: impl FnMut(f64)) -> anyhow::Result<Report> {
    let server = Server::start_with_rights().await?;
    let text = format!(
        "[nats.layout]\nraw_bytes_max = {STREAM_BYTES_MAX}\ndesk_bytes_max = {STREAM_BYTES_MAX}\n\
         aggregate_messages_max = {AGGREGATE_MESSAGES_MAX}\n"
    );
    let config = nats::Config::load(Some(&UserFile { name: "soak".into(), text }))?;
    let bus = server.bus_with("operator", config).await?;
    let venues: Vec<String> = VENUES.map(str::to_owned).to_vec();
    let layout =
        Layout { venues, accounts: vec!["main".to_owned()], traders: Vec::new(), partitions: options.partitions };
    layout.apply(&bus).await?;
    let simulator = Venues::start(server.dir(), &VENUES, options.seed, options.speed).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, configuration(server.dir(), &simulator))?;
    let env = STAGES.map(|stage| (stage, server.env(stage))).into();
    let args = vec!["--partitions".to_owned(), options.partitions.to_string()];
    let mut fleet = Fleet::new(server.dir(), &config, args, env);
    for stage in STAGES {
        fleet.spawn(stage)?;
    }
    let (mut memory, mut sizes, mut checkpoints) = (Series::default(), Series::default(), Series::default());
    let (http, monitor) = (reqwest::Client::new(), server.monitor()?);
    let begun = Instant::now();
    let minutes = options.minutes as f64;
    let mut messages = 0;
    let mut sample = tokio::time::interval(SAMPLE_EVERY);
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sample.tick().await;
        let minute = begun.elapsed().as_secs_f64() / 60.0;
        if minute >= minutes {
            break;
        }
        progress(minute);
        let ended = fleet.ended()?;
        ensure!(ended.is_empty(), "ended by themselves: {ended:?}");
        for stage in STAGES {
            let pid = fleet.pids(stage).first().copied().context("a stage is gone")?;
            memory.add(stage, minute, rss_kib(pid)?);
        }
        memory.add("nats-server", minute, rss_kib(server.pid())?);
        memory.add(LIVE_HEAP, minute, live_heap_kib(&http, &monitor).await?);
        memory.add("simulator", minute, rss_kib(simulator.pid())?);
        sizes.add(STREAMS, minute, folder_bytes(&server.store()) as f64);
        sizes.add("ledger.db", minute, files_bytes(server.dir(), "ledger.db") as f64);
        sizes.add("logs", minute, files_bytes(server.dir(), ".log") as f64);
        for entry in Reader::latest(&bus, &nats::kv::stream(KV_CHECKPOINT), ">", CHECKPOINTS_MAX).await? {
            let key = entry.subject.trim_start_matches("$KV.ckpt.").to_owned();
            checkpoints.add(&key, minute, entry.payload.len() as f64);
        }
        messages = stored_messages(&bus, &layout).await?;
    }
    fleet.kill_all();
    drop(simulator);
    Ok(report(options, &memory, &sizes, &checkpoints, messages))
}

fn report(options: &Options, memory: &Series, sizes: &Series, checkpoints: &Series, messages: u64) -> Report {
    let minutes = options.minutes as f64;
    let names = STAGES.iter().chain(&["nats-server", LIVE_HEAP, "simulator"]);
    let memory: Vec<Memory> = names
        .filter_map(|name| {
            let points = memory.0.get(*name)?;
            let warm = Series::halves(points, minutes).1;
            let slopes = Series::slopes(points, minutes);
            let bound = match *name {
                "nats-server" | LIVE_HEAP | "simulator" => SERVER_SLOPE_MAX,
                _ => STAGE_SLOPE_MAX,
            };
            Some(Memory {
                process: name,
                start_kib: points.first()?.1,
                warm_kib: warm.first()?.1,
                end_kib: warm.last()?.1,
                max_kib: points.iter().map(|p| p.1).fold(0.0, f64::max),
                slope_from_kib_per_min: slopes[0],
                slope_kib_per_min: slopes[1],
                slope_to_kib_per_min: slopes[2],
                bound_kib_per_min: bound,
                growth: Growth::of(slopes, bound),
                kib_by_minute: by_minute(points),
            })
        })
        .collect();
    let size = |name: &String, points: &Vec<(f64, f64)>, judged: bool| {
        let (before, behind) = Series::halves(points, minutes);
        let max = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(0.0, f64::max);
        Some(Size {
            name: name.clone(),
            warm_bytes: behind.first()?.1 as u64,
            end_bytes: behind.last()?.1 as u64,
            slope_kib_per_min: Series::slopes(points, minutes)[1] / 1024.0,
            flat: judged.then(|| max(behind) <= SIZE_GROWTH_MAX * max(before).max(SIZE_BYTES_SMALL / SIZE_GROWTH_MAX)),
        })
    };
    let files: Vec<Size> = sizes.0.iter().filter_map(|(name, points)| size(name, points, name == STREAMS)).collect();
    let checkpoints: Vec<Size> = checkpoints.0.iter().filter_map(|(name, points)| size(name, points, true)).collect();
    let flat = memory.iter().all(|m| m.growth == Growth::Flat)
        && checkpoints.iter().chain(&files).all(|size| size.flat != Some(false));
    Report {
        options: options.clone(),
        memory,
        checkpoints,
        files,
        messages,
        market_h: minutes * options.speed as f64 / 60.0,
        flat,
    }
}

fn by_minute(points: &[(f64, f64)]) -> Vec<f64> {
    points.chunk_by(|a, b| a.0.floor() == b.0.floor()).map(|points| mean(points).1).collect()
}

/// Of points that are not none.
fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

async fn stored_messages(bus: &Bus, layout: &Layout) -> anyhow::Result<u64> {
    let mut all = 0;
    for name in layout.streams() {
        all += bus.stream(&name).await?.last_seq;
    }
    Ok(all)
}

fn configuration(dir: &Path, simulator: &Venues) -> String {
    let (feeds, venues) = (simulator.configuration(), format!("{VENUES:?}"));
    let database = dir.join("ledger.db").display().to_string();
    format!(
        r#"{feeds}
[aggregate]
venues = {venues}
indicator_timeframes = ["1s", "1m"]
[strategy]
venues = {venues}
[strategy.rule]
timeframe = "1m"
valid_bars = 5
[ledger]
database = "sqlite://{database}"
[gateway]
listen = "127.0.0.1:0"
"#
    )
}

/// Resident memory of a process in KiB.
fn rss_kib(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the state of a process")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("a process has no memory")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS without a number")?.parse()?)
}

/// What nats-server held when it last collected its garbage: the next collection comes at about twice that (GOGC 100).
async fn live_heap_kib(http: &reqwest::Client, monitor: &str) -> anyhow::Result<f64> {
    let answer = http.get(format!("{monitor}/debug/vars")).timeout(MONITOR_BOUND).send().await;
    let vars: serde_json::Value = answer.context("ask nats-server for its memory")?.json().await?;
    let next = vars["memstats"]["NextGC"].as_f64().context("nats-server tells no memory")?;
    Ok(next / 2.0 / 1024.0)
}

/// Bytes of all files under a folder; what vanishes meanwhile counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let bytes = |path: &PathBuf| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(path),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.iter().map(bytes).sum()
}

/// Bytes of the files in a folder whose name contains `part`.
fn files_bytes(folder: &Path, part: &str) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = files.filter(|f| f.file_name().to_string_lossy().contains(part));
    wanted.filter_map(|f| f.metadata().ok()).map(|meta| meta.len()).sum()
}
