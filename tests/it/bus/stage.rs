//! A stage process: what it waits for, answers and ends with.

use anyhow::Context;
use futures_util::StreamExt;
use nats::checkpoint::Checkpoint;
use nats::kv;
use tests::{Server, wait_for};

use super::{BOUND, Fold, server_and_bus, spec, task_streams};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_without_its_streams_says_how_to_create_them() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    let error = nats::stage::require(&bus, &["RAW_X"]).await.unwrap_err().to_string();
    assert!(error.contains("RAW_X") && error.contains("tapeline init"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_answers_the_service_protocol_metrics_and_health() -> anyhow::Result<()> {
    let (server, bus) = server_and_bus().await?;
    task_streams(&bus, 100).await?;
    let args = nats::StageArgs { nats_url: server.url(), ..Default::default() };
    let stage = nats::Stage::start("fold", &args).await?;
    let mut log = bus.client().subscribe("log.fold").await?;
    bus.client().flush().await?;
    stage.task(spec(), Fold::<1>::default());
    let asked = &bus;
    let data = wait_for("the task in $SRV.STATS", BOUND, || async {
        let reply = asked.client().request("$SRV.STATS.tapeline-fold", "".into()).await.ok()?;
        let stats: serde_json::Value = serde_json::from_slice(&reply.payload).ok()?;
        let data = stats["endpoints"][0]["data"].clone();
        (data["tasks"][0]["in_seq"] == 100 && data["tasks"][0]["out_seq"] == 100).then_some(data)
    })
    .await?;
    assert_eq!((&data["stage"], &data["tasks"][0]["lag"]), (&"fold".into(), &0.into()));
    for key in ["ckpt_age_ms", "watermark_ns", "fenced", "undecodable"] {
        assert!(data["tasks"][0].get(key).is_some(), "{key} is missing in {data}");
    }
    for verb in ["PING", "INFO"] {
        let reply = bus.client().request(format!("$SRV.{verb}.tapeline-fold"), "".into()).await?;
        let info: serde_json::Value = serde_json::from_slice(&reply.payload)?;
        assert_eq!(info["metadata"]["http"], format!("http://{}", stage.http()), "{verb}");
    }
    let metrics = reqwest::get(format!("http://{}/metrics", stage.http())).await?.text().await?;
    assert!(metrics.contains("tapeline_input_messages_total{stage=\"fold\",task=\"fold\"} 100"), "{metrics}");
    assert!(metrics.contains("tapeline_lag_messages{stage=\"fold\",task=\"fold\"} 0"), "{metrics}");
    let health = reqwest::get(format!("http://{}/healthz", stage.http())).await?;
    assert_eq!(health.status(), 200);
    let line = tokio::time::timeout(BOUND, log.next()).await?.context("no log line on the bus")?;
    let line: serde_json::Value = serde_json::from_slice(&line.payload)?;
    assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    stage.stop().cancel();
    tokio::time::timeout(BOUND, stage.wait()).await??;
    let saved = kv::get(&bus, "ckpt", "fold.fold").await?.context("no checkpoint at the stop")?;
    assert_eq!(Checkpoint::from_bytes(&saved.value)?.header.in_seq, 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_part_ends_the_whole_stage_with_its_reason() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let args = nats::StageArgs { nats_url: server.url(), ..Default::default() };
    let stage = nats::Stage::start("fold", &args).await?;
    let stop = stage.stop();
    stage.spawn("steady", async move {
        stop.cancelled().await;
        Ok(())
    });
    stage.spawn("broken", async { anyhow::bail!("no such venue") });
    let error = tokio::time::timeout(BOUND, stage.wait()).await?.unwrap_err();
    assert_eq!(format!("{error:#}"), "fold broken: no such venue");
    Ok(())
}
