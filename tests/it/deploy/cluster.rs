//! The cluster of `deploy/nats/cluster.conf`.

use anyhow::Context;
use nats::{BusError, Writer, kv};
use serde_json::Value;
use tests::{USERS, stored, wait_for};

use super::nodes::{BOUND, Cluster, Node, done, info, tapeline, whole};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_of_the_deployed_files_keep_every_stream_three_times_and_go_on_when_one_dies() -> anyhow::Result<()>
{
    let mut cluster = Cluster::start(None).await?;
    let init = ["init", "--venue", "x", "--partitions", "1", "--json"];
    let made = done(tapeline(&cluster.url(), &[&init[..], &["--replicas", "3"]].concat())?)?;
    let made: Value = serde_json::from_str(&made)?;
    let streams: Vec<&str> = made["streams"].as_array().context("streams")?.iter().filter_map(Value::as_str).collect();
    // Whoever forgets the option later does not lose copies.
    done(tapeline(&cluster.url(), &init)?)?;

    let operator = cluster.bus("operator").await?;
    for stream in &streams {
        whole(&operator, stream).await?;
        assert_eq!(info(&operator, stream).await?["config"]["num_replicas"], 3, "{stream}");
    }
    for user in USERS {
        let bus = cluster.bus(user).await.with_context(|| format!("{user} connects"))?;
        bus.client().flush().await?;
        assert!(bus.violation().is_none(), "{user}: {:?}", bus.violation());
    }

    let ingest = cluster.bus("ingest").await?;
    let mut writer = Writer::open(&ingest, "RAW_X").await?;
    for k in 0..200 {
        if k == 100 {
            writer.drain().await?;
            let leader = info(&operator, "RAW_X").await?["cluster"]["leader"].as_str().map(str::to_owned);
            let node = cluster.nodes.iter_mut().find(|n| Some(&n.name) == leader.as_ref()).context("the leader")?;
            node.kill9()?;
        }
        writer.push("raw.0.x.trade.A", format!("{k}")).await?;
    }
    tokio::time::timeout(BOUND, writer.drain()).await.context("the writer goes on with two nodes")??;
    kv::update(&cluster.bus("aggregate").await?, "ckpt", "aggregate.x.0", "state".into(), 0).await?;
    let facts = stored(&operator, "RAW_X").await?;
    let expected: Vec<_> =
        (0..200u64).map(|k| (k + 1, "raw.0.x.trade.A".to_owned(), k.to_string().into_bytes())).collect();
    assert!(facts == expected, "{} facts are stored", facts.len());

    // What a stage may not say is refused by a cluster as by one server.
    let mut foreign = Writer::resume(&cluster.bus("strategy").await?, "RAW_X", 200).await?;
    foreign.push("raw.0.x.trade.A", "not mine").await?;
    let error = tokio::time::timeout(BOUND, foreign.drain()).await?.unwrap_err();
    assert!(matches!(error, BusError::Rights(_)), "{error}");

    // One node alone takes nothing: the writer waits, and goes on when a second one is there.
    let running = cluster.nodes.iter_mut().position(Node::runs).context("two nodes run")?;
    cluster.nodes[running].kill9()?;
    wait_for("a stream without a leader", BOUND, || async {
        let led = info(&operator, "RAW_X").await.is_ok_and(|info| info["cluster"]["leader"].as_str().is_some());
        (!led).then_some(())
    })
    .await?;
    let waiting = tokio::spawn(async move {
        writer.push("raw.0.x.trade.A", "200").await?;
        writer.drain().await
    });
    for node in &mut cluster.nodes {
        if !node.runs() {
            node.restart()?;
        }
    }
    tokio::time::timeout(2 * BOUND, waiting).await.context("the writer goes on with three nodes")???;
    whole(&operator, "RAW_X").await?;

    // A disk is lost: the node comes back empty under its name and is filled by the others.
    let node = &mut cluster.nodes[0];
    node.kill9()?;
    node.lose_disk()?;
    node.restart()?;
    for stream in &streams {
        whole(&operator, stream).await?;
    }
    assert_eq!(stored(&operator, "RAW_X").await?.len(), 201);
    Ok(())
}
