//! A venue's feed with a standby. Only the holder of the lease is connected to the venue; the other goes on behind what
//! the stream holds, and asks the venue for what came between. (The ledger's standby: `tests/it/ledger.rs`.)

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use nats::Layout;
use schemas::subject::stream;
use tests::cluster::Cluster;
use tests::fleet::Fleet;
use tests::standby::{goes_on, working};
use tests::ticks::Ticks;
use tests::venue::Venues;
use tests::{program, wait_for};

use super::{BOUND, VENUE};

const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_a_live_feed_takes_over_within_seconds_and_no_trade_is_missing() -> anyhow::Result<()> {
    for nodes in [1, 3] {
        let mut servers = Cluster::start(nodes).await?;
        let bus = servers.operator().await?;
        let layout = Layout { venues: vec![VENUE.into()], accounts: vec![], traders: vec![], partitions: 2 };
        servers.create(&bus, &layout).await?;
        let venues = Venues::start(servers.dir(), &[VENUE], 3, 4).await?;
        let config = servers.dir().join("tapeline.toml");
        std::fs::write(&config, venues.configuration())?;
        let env = [("ingest", servers.env_direct("ingest"))].into();
        let mut fleet = Fleet::new(servers.dir(), &config, vec!["--partitions".into(), "2".into()], env);
        fleet.spawn_with("ingest", &["--lease"])?;
        fleet.spawn_with("ingest", &["--lease"])?;
        goes_on(&fleet, &bus, VENUE).await?;
        wait_for("tapeline status to show who stands by", BOUND, || async {
            let mut status = Command::new(program("tapeline").ok()?);
            let shown = status.arg("status").envs(servers.env_direct("operator")).output().ok()?;
            String::from_utf8_lossy(&shown.stdout).contains("standby").then_some(())
        })
        .await?;
        let mut took_ms = Vec::new();
        for round in 0..ROUNDS {
            let (doomed, before) = working(&fleet, &bus, VENUE).await?;
            let killed = Instant::now();
            if nodes > 1 && round > 0 {
                let lease = servers.leader(&bus, &nats::kv::stream(stream::KV_LEASE)).await?;
                servers.kill9(lease.context("the leases have a leader")?)?;
            }
            fleet.kill9_one(doomed)?;
            goes_on(&fleet, &bus, VENUE).await?;
            took_ms.push(killed.elapsed().as_millis());
            assert_ne!(working(&fleet, &bus, VENUE).await?.1, before);
            fleet.spawn_with("ingest", &["--lease"])?;
            wait_for("every node to be back", BOUND, || async { servers.unhealthy().await.is_empty().then_some(()) })
                .await?;
        }
        let ended = fleet.ended()?;
        assert!(ended.is_empty(), "nobody ends for another: {ended:?}");
        fleet.kill_all();
        let ticks = Ticks::read(&bus, VENUE).await?;
        eprintln!(
            "standby of ingest, {nodes} nodes: {took_ms:?} ms to new trades (ttl 2 s; with three nodes the leases' \
             leader dies too, from the second time on), {} trades, {} holes told",
            ticks.trades(),
            ticks.told_holes()
        );
        assert!(took_ms[0] < 10_000, "{took_ms:?}");
        assert_eq!(ticks.trouble(), Vec::<String>::new());
        assert_eq!(ticks.symbols(), 2);
    }
    Ok(())
}
