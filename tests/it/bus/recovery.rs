//! Opening a task: what halts it, what an operator lets pass, and the checkpoint under it.

use anyhow::Context;
use async_nats::jetstream::stream::Config as StreamConfig;
use nats::kv::{self, Put};
use nats::task::Accept;
use nats::{Bus, BusError, Reader};
use tests::{Server, stored};

use super::{
    BOUND, feed, make, make_checkpoints, make_with, quick, run, run_accepting, server_and_bus, task_streams, totals,
    value,
};

/// A server with a task that has folded `1..=n` and stopped.
async fn folded(n: u64) -> anyhow::Result<(Server, Bus)> {
    let (server, bus) = server_and_bus().await?;
    task_streams(&bus, n).await?;
    run::<1>(&bus, 0).until(n).await?;
    Ok((server, bus))
}

/// The stream was lost and made anew, empty.
async fn lost(bus: &Bus, stream: &str, subject: &str) -> anyhow::Result<()> {
    bus.js().delete_stream(stream).await?;
    make(bus, stream, subject).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_expired_behind_the_checkpoint_halts() -> anyhow::Result<()> {
    let (_server, bus) = folded(100).await?;
    feed(&bus, 101, 300).await?;
    bus.js().get_stream("IN").await?.purge().sequence(201).await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputExpired { first: 201, cursor: 100, .. }), "{error}");
    // An operator may let it pass; the outputs go on at the next position.
    run_accepting::<1>(&bus, 0, Accept { loss: true, ..Accept::default() }).until(300).await?;
    assert_eq!(bus.stream("OUT").await?.last_seq, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_outgrew_its_bound_behind_the_checkpoint_halts() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    for bound in ["max_messages", "max_bytes"] {
        for stream in ["IN", "OUT", "KV_ckpt"] {
            // Absent in the first round.
            let _ = bus.js().delete_stream(stream).await;
        }
        let (max_messages, max_bytes) = if bound == "max_messages" { (50, -1) } else { (-1, 4096) };
        let subjects = vec!["t.in.>".into()];
        make_with(&bus, StreamConfig { name: "IN".into(), subjects, max_messages, max_bytes, ..Default::default() })
            .await?;
        make(&bus, "OUT", "t.out.>").await?;
        make_checkpoints(&bus).await?;
        feed(&bus, 1, 20).await?;
        run::<1>(&bus, 0).until(20).await?;
        feed(&bus, 21, 300).await?;
        let error = run::<1>(&bus, 0).ends().await?;
        assert!(matches!(error, BusError::InputExpired { cursor: 20, .. }), "{bound}: {error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_expires_under_a_lagging_reader_halts() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch = 64;
    config.reader.expiry_check_ms = 0; // whenever it has to fetch more
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, 2000).await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.>", 0).await?;
    assert_eq!(reader.next().await?.seq, 1);
    // The purge is done before the reader goes on.
    bus.js().get_stream("IN").await?.purge().sequence(1900).await?;
    let mut seen = Vec::new();
    let reading = async {
        loop {
            match reader.next().await {
                Ok(message) => seen.push(message.seq),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(BOUND, reading).await?;
    assert!(matches!(error, BusError::InputExpired { first: 1900, .. }), "{error}");
    // What it had asked for, and nothing from behind the hole.
    assert_eq!(seen, (2..=seen.len() as u64 + 1).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_stream_that_lost_its_tail_halts() -> anyhow::Result<()> {
    let (_server, bus) = folded(100).await?;
    lost(&bus, "OUT", "t.out.>").await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::LostTail { last: 0, expected: 100, .. }), "{error}");
    assert!(error.to_string().contains("--accept-loss"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_was_rewritten_halts() -> anyhow::Result<()> {
    let (_server, bus) = folded(100).await?;
    lost(&bus, "IN", "t.in.>").await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputRewritten { seq: 100, .. }), "shorter: {error}");
    feed(&bus, 1001, 1200).await?;
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::InputRewritten { seq: 100, .. }), "other bytes: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_another_code_version_halts_until_an_operator_accepts_it() -> anyhow::Result<()> {
    let (_server, bus) = folded(100).await?;
    let error = run::<2>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::CodeVersion { found: 1, mine: 2, .. }), "{error}");
    feed(&bus, 101, 200).await?;
    run_accepting::<2>(&bus, 0, Accept { version: true, ..Accept::default() }).until(200).await?;
    run::<2>(&bus, 0).until(0).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(200));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_checkpoint_falls_back_to_the_one_before() -> anyhow::Result<()> {
    let (_server, bus) = folded(100).await?;
    feed(&bus, 101, 200).await?;
    run::<1>(&bus, 0).until(200).await?;
    let newest = kv::get(&bus, "ckpt", "test.fold").await?.context("no checkpoint")?;
    let mut damaged = newest.value.to_vec();
    damaged[20] ^= 1;
    kv::put(&bus, "ckpt", "test.fold", damaged.into()).await?;
    feed(&bus, 201, 300).await?;
    run::<1>(&bus, 0).until(300).await?;
    assert_eq!(stored(&bus, "OUT").await?, totals(300));

    for _ in 0..5 {
        kv::put(&bus, "ckpt", "test.fold", "rubbish".into()).await?;
    }
    let error = run::<1>(&bus, 0).ends().await?;
    assert!(matches!(error, BusError::CheckpointUnreadable { .. }), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_moves_only_from_the_revision_it_expects_and_a_lost_acknowledgement_is_found() -> anyhow::Result<()>
{
    let (_server, bus) = server_and_bus().await?;
    make_checkpoints(&bus).await?;
    let Put::Stored(first) = kv::update(&bus, "ckpt", "a.b", "one".into(), 0).await? else {
        panic!("a new key is free")
    };
    // The same write again, as after a lost acknowledgement.
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "one".into(), 0).await?, Put::Stored(first));
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "two".into(), 0).await?, Put::Moved);
    assert!(matches!(kv::update(&bus, "ckpt", "a.b", "two".into(), first).await?, Put::Stored(_)));
    assert_eq!(kv::update(&bus, "ckpt", "a.b", "three".into(), first).await?, Put::Moved);
    assert_eq!(kv::create(&bus, "ckpt", "a.b", "four".into()).await?, Put::Moved);
    assert_eq!(value(&bus, "ckpt", "a.b").await?.as_deref(), Some("two"));
    assert_eq!(kv::get(&bus, "ckpt", "a.c").await?, None);
    Ok(())
}
