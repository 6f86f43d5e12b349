//! Leases in a cluster of three, where the bucket itself has a leader that can die.

use std::time::Instant;

use anyhow::Context;
use schemas::subject::stream;
use tests::wait_for;

use super::{BOUND, Floor};

/// How long until every partition says something more, in milliseconds: an instance is killed, the node that leads the
/// leases is killed, and both at once. Without its leader the bucket takes no renewal until the other two have
/// elected one, which takes nats-server some seconds; the holders stop before their leases end, and claim again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_work_goes_on_though_a_holder_and_the_leader_of_the_leases_die() -> anyhow::Result<()> {
    let mut floor = Floor::open(3).await?;
    let feed = floor.feed(20).await?;
    for n in 1..=2 {
        floor.compete("aggregate")?;
        floor.shared_by("aggregate", n).await?;
    }
    let bucket = nats::kv::stream(stream::KV_LEASE);
    let mut took = Vec::new();
    for (holder, node) in [(true, false), (false, true), (true, true)] {
        let leader = {
            let floor = &floor;
            wait_for("the leases to have a leader", BOUND, || async {
                floor.servers.leader(&floor.bus, &bucket).await.ok()?
            })
            .await?
        };
        let struck = Instant::now();
        if node {
            floor.servers.kill9(leader)?;
        }
        if holder {
            floor.fleet.kill9("aggregate")?;
            floor.compete("aggregate")?;
        }
        floor.goes_on().await?;
        took.push(struck.elapsed().as_millis());
        floor.shared_by("aggregate", 2).await?;
        wait_for("every node to be back", BOUND, || async { floor.servers.unhealthy().await.is_empty().then_some(()) })
            .await?;
    }
    let ended = floor.fleet.ended()?;
    assert!(ended.is_empty(), "no instance ends for a node: {ended:?}");
    feed.end().await?;
    let (candles, _) = floor.assert_exact(false).await.context("streams of the cluster")?;
    eprintln!(
        "three nodes, until every partition goes on: {} ms behind a holder's death, {} ms behind that of the node that \
         leads the leases, {} ms behind both; {candles} candles exact",
        took[0], took[1], took[2]
    );
    assert!(took[0] < 6_000, "{took:?}");
    Ok(())
}
