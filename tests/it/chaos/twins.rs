//! Two live instances of one venue's feed. Each hears the venue for itself, so the bytes of one are never those of the
//! other: who writes has to be decided at every position.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Layout};
use simulator::rng::Rng;
use tests::cluster::Cluster;
use tests::fleet::Fleet;
use tests::ticks::{Ticks, newest_trade};
use tests::venue::Venues;
use tests::wait_for;

const BOUND: Duration = Duration::from_secs(60);
const VENUE: &str = "binance";
const INGEST: &str = "ingest";
/// Facts that are stored until a blow falls on instances that just started: into their start, or behind it.
const AFTER_FACTS_MAX: u64 = 60;

/// Waits until the newest trade stands at least `facts` positions behind `stood`.
async fn trades_behind(bus: &Bus, stood: u64, facts: u64) -> anyhow::Result<()> {
    wait_for("trades to go on", BOUND, || async {
        (newest_trade(bus, VENUE).await.ok()? >= stood + facts).then_some(())
    })
    .await
}

/// Waits until one of two instances lost its task to the other and ended, and the other stores trades.
async fn one_goes_on(fleet: &mut Fleet, bus: &Bus) -> anyhow::Result<usize> {
    // In a cell: the wait asks it again and again.
    let seen = RefCell::new((&mut *fleet, Vec::new()));
    let alone = wait_for("one of two to end", BOUND, || async {
        let (fleet, ends) = &mut *seen.borrow_mut();
        match fleet.ended() {
            Ok(ended) => ends.extend(ended),
            Err(error) => return Some(Err(error)),
        }
        (fleet.count(INGEST) <= 1).then_some(Ok(()))
    })
    .await;
    let (_, ends) = seen.into_inner();
    alone.with_context(|| fleet.logs())??;
    let own = ends.iter().find(|end| !end.ousted);
    ensure!(own.is_none(), "ended by itself: {own:?}");
    ensure!(fleet.count(INGEST) == 1, "no instance is left");
    let stood = newest_trade(bus, VENUE).await?;
    trades_behind(bus, stood, 1).await.with_context(|| fleet.logs())?;
    let ended = fleet.ended()?;
    ensure!(ended.is_empty(), "the one that was left ended: {ended:?}");
    Ok(ends.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_live_ingests_that_are_killed_again_and_again_one_goes_on_and_stores_every_trade_once()
-> anyhow::Result<()> {
    const ROUNDS: u64 = 12;
    let servers = Cluster::start(1).await?;
    let bus = servers.operator().await?;
    Layout { venues: vec![VENUE.into()], accounts: vec![], traders: vec![], partitions: 2 }.apply(&bus).await?;
    let venues = Venues::start(servers.dir(), &[VENUE], 7, 4).await?;
    let config = servers.dir().join("tapeline.toml");
    std::fs::write(&config, venues.configuration())?;
    let env = [(INGEST, servers.env_direct(INGEST))].into();
    let mut fleet = Fleet::new(servers.dir(), &config, vec!["--partitions".into(), "2".into()], env).of_a_live_feed();
    let mut rng = Rng::new(7, "twins");
    let (mut kills, mut ousted) = (0, 0);
    fleet.spawn(INGEST)?;
    fleet.spawn(INGEST)?;
    for round in 0..=ROUNDS {
        ousted += one_goes_on(&mut fleet, &bus).await.with_context(|| format!("round {round}, {kills} kills"))?;
        if round == ROUNDS {
            break;
        }
        let owner = fleet.pids(INGEST)[0];
        let twin = fleet.spawn(INGEST)?;
        // How far the feed gets before the blow is the input of this test.
        let (stood, facts) = (newest_trade(&bus, VENUE).await?, rng.below(AFTER_FACTS_MAX));
        trades_behind(&bus, stood, facts).await.with_context(|| fleet.logs())?;
        let doomed = match rng.below(3) {
            0 => vec![owner],
            1 => vec![twin],
            _ => vec![owner, twin],
        };
        for pid in &doomed {
            fleet.kill9_one(*pid)?;
            kills += 1;
            fleet.spawn(INGEST)?;
        }
    }
    fleet.kill_all();
    let ticks = Ticks::read(&bus, VENUE).await?;
    eprintln!(
        "twins: {kills} kills, {ousted} lost their task, {} trades of {} symbols, {} holes told",
        ticks.trades(),
        ticks.symbols(),
        ticks.told_holes()
    );
    assert!(ticks.symbols() == 2 && ticks.trades() > 200 && ousted > 3);
    assert_eq!(ticks.trouble(), Vec::<String>::new());
    Ok(())
}
