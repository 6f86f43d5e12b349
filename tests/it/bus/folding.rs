//! The stage loop: the same stream over kills and twins, what is passed over, previews and mirrors.

use std::sync::Arc;

use anyhow::Context;
use async_nats::jetstream::stream::Config as StreamConfig;
use futures_util::StreamExt;
use nats::{BusError, Writer, kv};
use tests::{stored, wait_for};

use super::{
    BOUND, checkpoint_back_to_start, feed, make_with, quick, run, server_and_bus, task_streams, totals, value,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_gives_the_same_stream_over_kills_of_itself_and_of_the_server() -> anyhow::Result<()> {
    const N: u64 = 6000;
    let (mut server, bus) = server_and_bus().await?;
    task_streams(&bus, N / 2).await?;
    // Aborted somewhere: no drain, no last checkpoint.
    for reached in [500, 1500] {
        let task = run::<1>(&bus, 0);
        let stats = Arc::clone(&task.stats);
        wait_for("the task to get on", BOUND, || async { (stats.in_seq() >= reached).then_some(()) }).await?;
        task.handle.abort();
    }
    let task = run::<1>(&bus, 0);
    server.kill9()?;
    server.restart().await?;
    feed(&bus, N / 2 + 1, N).await?;
    task.until(N).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(N));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_instances_give_one_stream_and_the_slower_checkpoint_ends_its_task() -> anyhow::Result<()> {
    const N: u64 = 4000;
    let (server, bus) = server_and_bus().await?;
    let twin_bus = server.bus_with("test", quick()).await?;
    task_streams(&bus, N).await?;
    // A first life writes the first checkpoint, so that both instances open from the same place.
    run::<1>(&bus, 0).until(10).await?;
    let (one, two) = (run::<1>(&bus, 0), run::<1>(&twin_bus, 0));
    // Input that keeps coming: sooner or later both write a checkpoint at different places.
    let mut writer = Writer::open(&bus, "IN").await?;
    let mut n = N;
    while !one.handle.is_finished() && !two.handle.is_finished() {
        n += 1;
        anyhow::ensure!(n < 200_000, "both instances live on");
        writer.push("t.in.number", n.to_string()).await?;
        writer.drain().await?;
    }
    let (ended, living) = if one.handle.is_finished() { (one, two) } else { (two, one) };
    let error = ended.ends().await?;
    assert!(matches!(error, BusError::CheckpointFenced { .. }), "{error}");
    living.until(n).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(n));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_with_other_bytes_ends_fenced_and_changes_nothing() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 50).await?;
    let task = run::<1>(&bus, 0);
    let stats = Arc::clone(&task.stats);
    wait_for("the outputs", BOUND, || async { (stats.in_seq() >= 50).then_some(()) }).await?;
    task.handle.abort(); // outputs stand beyond the only checkpoint, the one at the start
    checkpoint_back_to_start(&bus).await?;
    let error = run::<1>(&bus, 7).ends().await?;
    assert!(matches!(error, BusError::Fenced { seq: 1, .. }), "{error}");
    assert!(error.to_string().contains("fenced or nondeterministic"), "{error}");
    let there = stored(&bus, "OUT").await?;
    assert_eq!(there, totals(there.len() as u64));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_counted_and_passed_over_like_kinds_that_nobody_listens_to() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 2).await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    writer.push("t.in.number", "not a number").await?;
    writer.push("t.in.other", "anything").await?;
    writer.push("t.in.number", "3").await?;
    writer.drain().await?;
    let task = run::<1>(&bus, 0);
    let stats = Arc::clone(&task.stats);
    task.until(5).await?;
    assert_eq!((stats.undecodable_count(), stats.unknown_count(), stats.heard_count()), (1, 1, 5));
    let said: Vec<_> = stored(&bus, "OUT").await?.into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(said, [b"1 at 1".to_vec(), b"3 at 2".to_vec(), b"6 at 5".to_vec()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previews_reach_watchers_and_are_never_stored() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 3).await?;
    let mut watcher = bus.client().subscribe("preview.>").await?;
    bus.client().flush().await?;
    run::<1>(&bus, 0).until(3).await?;
    let preview = tokio::time::timeout(BOUND, watcher.next()).await?.context("no preview")?;
    assert_eq!((preview.subject.as_str(), &preview.payload[..]), ("preview.t", &b"6"[..]), "the newest of the batch");
    assert_eq!(stored(&bus, "OUT").await?, totals(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_follows_its_stored_output_and_a_restart_does_not_undo_the_operator() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    task_streams(&bus, 0).await?;
    let cfg = StreamConfig {
        name: "KV_cfg".into(),
        subjects: vec!["$KV.cfg.>".into()],
        max_messages_per_subject: 16,
        ..Default::default()
    };
    make_with(&bus, cfg).await?;
    feed(&bus, 1_000_000, 1_000_000).await?;
    run::<1>(&bus, 0).until(1).await?;
    assert_eq!(value(&bus, "cfg", "desk.t").await?.as_deref(), Some("1000000"));
    kv::put(&bus, "cfg", "desk.t", "operator".into()).await?;
    checkpoint_back_to_start(&bus).await?;
    run::<1>(&bus, 0).until(1).await?;
    assert_eq!(value(&bus, "cfg", "desk.t").await?.as_deref(), Some("operator"));
    assert_eq!(bus.stream("OUT").await?.last_seq, 2);
    Ok(())
}
