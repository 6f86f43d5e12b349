//! A live feed with a hot standby whose holder is killed again and again: no trade may be missing or stored twice.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nats::{Bus, Layout, kv};
use schemas::subject::stream;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::fleet::Fleet;
use crate::ticks::{Ticks, newest_trade};
use crate::venue::Venues;
use crate::wait_for;

const BOUND: Duration = Duration::from_secs(60);
const INGEST: &str = "ingest";

/// What a run is.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    pub venue: String,
    pub seed: u64,
    /// How long it goes on.
    pub minutes: u64,
    /// Between two kills of the holder.
    pub every_s: u64,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub options: Options,
    pub kills: usize,
    /// From each kill to the next stored trade, in milliseconds.
    pub takeover_ms: Vec<u64>,
    pub symbols: usize,
    pub trades: usize,
    /// Trades that were asked for afterwards.
    pub backfilled: usize,
    /// Holes that the venue could not fill and a gap tells.
    pub told_holes: usize,
    /// Everything that must not be; empty.
    pub trouble: Vec<String>,
}

/// The instance that holds a lease.
pub async fn holder(bus: &Bus, key: &str) -> anyhow::Result<Option<String>> {
    let Some(entry) = kv::get(bus, stream::KV_LEASE, key).await? else { return Ok(None) };
    let entry: serde_json::Value = rmp_serde::from_slice(&entry.value)?;
    Ok(Some(entry["id"].as_str().context("no id")?.to_owned()))
}

/// The ingest that holds a venue's lease, by its process and its own id.
pub async fn working(fleet: &Fleet, bus: &Bus, venue: &str) -> anyhow::Result<(u32, String)> {
    wait_for("a holder", BOUND, || async {
        let id = holder(bus, &nats::lease::task_key(INGEST, venue)).await.ok()??;
        // It logs its id when it begins to compete.
        let pid = fleet.pids(INGEST).into_iter().find(|pid| fleet.log(*pid).contains(&id))?;
        Some((pid, id))
    })
    .await
    .with_context(|| fleet.logs())
}

/// Waits until more trades of the venue are stored than now.
pub async fn goes_on(fleet: &Fleet, bus: &Bus, venue: &str) -> anyhow::Result<()> {
    let stood = newest_trade(bus, venue).await?;
    wait_for("its trades to go on", BOUND, || async { (newest_trade(bus, venue).await.ok()? > stood).then_some(()) })
        .await
        .with_context(|| fleet.logs())
}

/// Two instances with leases over the simulator; the holder is killed every `every_s` seconds, and another starts.
/// `progress` hears the kills so far.
pub async fn run(options: &Options, mut progress: impl FnMut(u64)) -> anyhow::Result<Report> {
    let venue = options.venue.as_str();
    let servers = Cluster::start(1).await?;
    let bus = servers.operator().await?;
    let layout = Layout { venues: vec![venue.into()], accounts: vec![], traders: vec![], partitions: 2 };
    servers.create(&bus, &layout).await?;
    let venues = Venues::start(servers.dir(), &[venue], options.seed, 1).await?;
    let config = servers.dir().join("tapeline.toml");
    std::fs::write(&config, venues.configuration())?;
    let env = [(INGEST, servers.env_direct(INGEST))].into();
    let mut fleet = Fleet::new(servers.dir(), &config, vec!["--partitions".into(), "2".into()], env);
    fleet.spawn_with(INGEST, &["--lease"])?;
    fleet.spawn_with(INGEST, &["--lease"])?;
    goes_on(&fleet, &bus, venue).await?;
    let (begun, mut takeover_ms) = (Instant::now(), Vec::new());
    let mut beat = tokio::time::interval(Duration::from_secs(options.every_s));
    // The first beat is now.
    beat.tick().await;
    while begun.elapsed() < Duration::from_secs(options.minutes * 60) {
        beat.tick().await;
        let (doomed, _) = working(&fleet, &bus, venue).await?;
        let killed = Instant::now();
        fleet.kill9_one(doomed)?;
        goes_on(&fleet, &bus, venue).await?;
        takeover_ms.push(u64::try_from(killed.elapsed().as_millis())?);
        fleet.spawn_with(INGEST, &["--lease"])?;
        let ended = fleet.ended()?;
        ensure!(ended.is_empty(), "nobody ends for another: {ended:?}");
        progress(takeover_ms.len() as u64);
    }
    fleet.kill_all();
    let ticks = Ticks::read(&bus, venue).await?;
    Ok(Report {
        options: options.clone(),
        kills: takeover_ms.len(),
        takeover_ms,
        symbols: ticks.symbols(),
        trades: ticks.trades(),
        backfilled: ticks.backfilled(),
        told_holes: ticks.told_holes(),
        trouble: ticks.trouble(),
    })
}
