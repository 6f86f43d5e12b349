//! A recorded session, and what the pipeline says of it when nothing disturbs it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flate2::read::MultiGzDecoder;
use ledger::db::Db;
use ledger::schema::{SYSTEM_CONFIG, TABLES};
use nats::{Bus, Layout, leader};
use schemas::raw::LinkEvent;
use schemas::subject::stream;
use schemas::{Fact, Instrument, InstrumentKind, fixtures};

use crate::fleet::{Fleet, STAGES};
use crate::{Server, wait_for};

pub const VENUE: &str = "binance";
pub const SYMBOL: &str = "BTCUSDT";
pub const ACCOUNT: &str = "main";

/// A whole undisturbed run on a busy machine.
const RUN_BOUND: Duration = Duration::from_secs(180);
const DATABASE_BOUND: Duration = Duration::from_secs(20);

/// Rows of a ledger, by table. What operators configured is left out: it carries the server's time.
pub type Tables = BTreeMap<&'static str, Vec<Vec<Option<String>>>>;

/// A recorded session of one symbol, and how it is cut into tasks.
#[derive(Clone, Debug)]
pub struct Session {
    pub files: Vec<PathBuf>,
    pub partitions: u32,
}

impl Session {
    /// The shared recording of eleven minutes; `None` without fixtures.
    pub fn whole(partitions: u32) -> Option<Self> {
        let root = schemas::fixtures::root()?;
        let files = ["part1", "part2"].map(|part| root.join(format!("data/ws_raw/binance_spot_BTCUSDT_{part}.gz")));
        Some(Self { files: files.to_vec(), partitions })
    }

    /// Its first lines (about 120 a recorded second), as a file in `dir`.
    pub fn cut(&self, lines: usize, dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("recording.txt");
        let mut out = BufWriter::new(std::fs::File::create(&path)?);
        let mut left = lines;
        for file in &self.files {
            let file = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
            for line in BufReader::new(MultiGzDecoder::new(file)).lines().take(left) {
                writeln!(out, "{}", line?)?;
                left -= 1;
            }
        }
        out.flush()?;
        Ok(Self { files: vec![path], partitions: self.partitions })
    }

    /// Receive time from the first line to the last, in seconds.
    pub fn recorded_s(&self) -> anyhow::Result<f64> {
        let (mut first, mut last) = (None, 0i64);
        for path in &self.files {
            let mut file = BufReader::new(std::fs::File::open(path)?);
            let gz = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            let file: Box<dyn BufRead> =
                if gz { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
            for line in file.lines() {
                last = line?.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(last);
                first.get_or_insert(last);
            }
        }
        Ok((last - first.context("the recording is empty")?) as f64 / 1e9)
    }

    pub fn layout(&self) -> Layout {
        Layout {
            venues: vec![VENUE.to_owned()],
            accounts: vec![ACCOUNT.to_owned()],
            traders: vec![],
            partitions: self.partitions,
        }
    }

    /// Streams that the stages write, in the order of the pipeline.
    pub fn streams(&self) -> Vec<String> {
        let mut names = vec![stream::raw(VENUE)];
        names.extend((0..self.partitions).flat_map(|p| [stream::aggregate(VENUE, p), stream::signal(VENUE, p)]));
        names.extend([stream::desk(ACCOUNT), stream::risk(ACCOUNT), stream::exec(ACCOUNT)]);
        names
    }

    /// tapeline.toml of all stages; `speed` 0 is at once.
    pub fn configuration(&self, database: &str, speed: f64, more: &str) -> String {
        let files: Vec<String> = self.files.iter().map(|p| format!("{:?}", p.display().to_string())).collect();
        format!(
            r#"
[ingest.venues.{VENUE}]
enabled = true
source = "recording"
symbols = ["{SYMBOL}"]
files = [{files}]
speed = {speed:.3}
flush_open = true
[aggregate]
venues = ["{VENUE}"]
indicator_timeframes = ["1s", "1m"]
[strategy]
venues = ["{VENUE}"]
[strategy.rule]
timeframe = "1s"
valid_bars = 30
[ledger]
database = "{database}"
[gateway]
listen = "127.0.0.1:0"
# Spot without a borrow: the recorded session is to trade both ways.
[risk.limits.spot_short]
on = false
{more}"#,
            files = files.join(", "),
        )
    }
}

/// What an undisturbed run stored. Its server lives on, so that streams are compared without being loaded.
pub struct Reference {
    pub session: Session,
    pub server: Server,
    pub bus: Bus,
    pub config: PathBuf,
    /// Last sequence by stream.
    pub ends: BTreeMap<String, u64>,
    pub tables: Tables,
    /// KV `cfg` as risk mirrored it.
    pub desk_state: Option<Vec<u8>>,
}

impl Reference {
    /// Runs all stages over the session. Paced: opinions on a past that is long over are rightly refused, and the
    /// session is to trade.
    pub async fn record(session: Session, speed: f64) -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        session.layout().apply(&bus).await?;
        put_instrument(&bus).await?;
        let (config, database) = (server.dir().join("tapeline.toml"), database(server.dir()));
        std::fs::write(&config, session.configuration(&database, speed, ""))?;
        let env = STAGES.map(|stage| (stage, server.env(stage))).into();
        let args = vec!["--partitions".to_owned(), session.partitions.to_string()];
        let mut fleet = Fleet::new(server.dir(), &config, args, env);
        for stage in STAGES {
            fleet.spawn(stage)?;
        }
        let ends = settled(&bus, &session, &mut fleet).await.with_context(|| fleet.logs())?;
        wait_for("the ledger", RUN_BOUND, || async { written(&database, &ends).await.ok()?.then_some(()) }).await?;
        fleet.kill_all();
        let tables = tables(&database).await?;
        let desk_state = desk_state(&bus).await?;
        Ok(Self { session, server, bus, config, ends, tables, desk_state })
    }

    /// Fills in the recorded session: without any, nothing of the desk would be tried.
    pub fn fills(&self) -> usize {
        self.tables.get("fills").map_or(0, Vec::len)
    }
    /// Facts of all streams.
    pub fn facts(&self) -> u64 {
        self.ends.values().sum()
    }
}

/// Waits until the whole recording went through every stage and nothing moves any more.
async fn settled(bus: &Bus, session: &Session, fleet: &mut Fleet) -> anyhow::Result<BTreeMap<String, u64>> {
    wait_for("the recording's end", RUN_BOUND, || async { finished(bus).await.ok()?.then_some(()) }).await?;
    let begun = Instant::now();
    let (mut before, mut quiet) = (BTreeMap::new(), 0);
    while quiet < 4 {
        ensure!(begun.elapsed() < RUN_BOUND, "not settled");
        let ended = fleet.ended()?;
        ensure!(ended.is_empty(), "ended by themselves: {ended:?}");
        let answers = nats::stats::gather(bus, Duration::from_millis(250)).await?;
        let all = STAGES.iter().all(|s| *s == "ingest" || answers.iter().any(|a| a.stage == *s));
        let ends = ends(bus, session).await?;
        quiet = if all && answers.iter().all(|a| a.lag() == 0) && ends == before { quiet + 1 } else { 0 };
        before = ends;
    }
    Ok(before)
}

/// Whether the recording is stored to its end.
pub async fn finished(bus: &Bus) -> anyhow::Result<bool> {
    let last = leader::last_by_subject(bus, &stream::raw(VENUE), &schemas::subject::link(VENUE)).await?;
    let Some(last) = last else { return Ok(false) };
    Ok(LinkEvent::decode(&last.payload)?.event == "finished")
}

/// Last sequence of every stream.
pub async fn ends(bus: &Bus, session: &Session) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut ends = BTreeMap::new();
    for name in session.streams() {
        let last = bus.stream(&name).await?.last_seq;
        ends.insert(name, last);
    }
    Ok(ends)
}

/// The address of the ledger's database in `dir`.
pub fn database(dir: &Path) -> String {
    format!("sqlite://{}", dir.join("ledger.db").display())
}

/// Makes the database before a ledger comes: two that migrate one SQLite file at once would meet.
pub async fn make_database(url: &str) -> anyhow::Result<()> {
    Ok(Db::open(url, DATABASE_BOUND).await?.close().await?)
}

/// Whether the ledger wrote every stream that it reads up to its end.
pub async fn written(url: &str, ends: &BTreeMap<String, u64>) -> anyhow::Result<bool> {
    let mut db = Db::open(url, DATABASE_BOUND).await?;
    let cursors = db.cursors().await?;
    let reads = ends.iter().filter(|(name, last)| ledger::core::Fold::reads(name) && **last > 0);
    let all = reads.into_iter().all(|(name, last)| cursors.get(name).is_some_and(|cursor| cursor.seq == *last));
    db.close().await?;
    Ok(all)
}

pub async fn tables(url: &str) -> anyhow::Result<Tables> {
    let mut db = Db::open(url, DATABASE_BOUND).await?;
    let mut tables = Tables::new();
    for table in TABLES.iter().filter(|table| **table != &SYSTEM_CONFIG) {
        tables.insert(table.name, db.rows(table).await?);
    }
    db.close().await?;
    Ok(tables)
}

/// The account's state as risk mirrored it in KV `cfg`.
pub async fn desk_state(bus: &Bus) -> anyhow::Result<Option<Vec<u8>>> {
    let entry = nats::kv::get(bus, stream::KV_CONFIG, &stream::desk_state_key(ACCOUNT)).await?;
    Ok(entry.map(|entry| entry.value.to_vec()))
}

/// Stores what the recording does not tell, as an operator would.
pub async fn put_instrument(operator: &Bus) -> anyhow::Result<()> {
    let key = stream::instrument_key(VENUE, SYMBOL);
    nats::kv::put(operator, stream::KV_INSTRUMENTS, &key, instrument()?.encode().into()).await?;
    Ok(())
}

/// The venue's word on the instrument.
pub fn instrument() -> anyhow::Result<Instrument> {
    let listed = fixtures::instrument(VENUE, SYMBOL, InstrumentKind::Spot, "0.01", "0.00001");
    Ok(Instrument { min_notional: "5".parse()?, ..listed })
}
