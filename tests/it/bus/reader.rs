//! The reader: its own cursor over kills and pauses, its filter, its memory.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use futures_util::StreamExt;
use nats::{Bus, Reader, Writer};
use tests::{Server, wait_for};

use super::{BOUND, feed, make, quick, server_and_bus};

/// The client's ordered consumer would begin at sequence 1 here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lost_its_consumer_before_the_first_message_goes_on_from_its_cursor() -> anyhow::Result<()> {
    let (mut server, bus) = server_and_bus().await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, 100).await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.>", 101).await?;
    let idle = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    server.kill9()?;
    server.restart().await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    writer.push("t.in.number", "101").await?;
    let message = tokio::time::timeout(BOUND, reader.next()).await??;
    assert_eq!((message.seq, &message.payload[..]), (101, &b"101"[..]));
    assert!(reader.created() >= 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_passes_a_kill_of_the_server_without_gap_or_copy_and_keeps_to_its_filter() -> anyhow::Result<()> {
    const N: u64 = 20_000;
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch = 1000; // many requests, so that the kill finds one open
    let bus = server.bus_with("test", config).await?;
    let mut server = server;
    make(&bus, "IN", "t.in.>").await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    for i in 1..=N {
        writer.push(if i % 2 == 0 { "t.in.even" } else { "t.in.odd" }, i.to_string()).await?;
    }
    writer.drain().await?;
    let mut reader = Reader::open(&bus, "IN", "t.in.even", 0).await?;
    let mut seen = Vec::new();
    while (seen.len() as u64) < N / 2 {
        let batch = tokio::time::timeout(BOUND, reader.next_batch(500)).await??;
        assert!(batch.len() <= 500);
        let before = seen.len();
        seen.extend(batch.iter().map(|m| m.seq));
        if before < 3000 && seen.len() >= 3000 {
            server.kill9()?;
            server.restart().await?;
        }
    }
    assert_eq!(seen, (1..=N / 2).map(|i| i * 2).collect::<Vec<_>>());
    assert!(reader.caught_up());
    Ok(())
}

/// Waits until the only consumer of IN is in a state.
async fn consumer_that(bus: &Bus, reached: impl Fn(&Info) -> bool) -> anyhow::Result<Info> {
    let stream = bus.js().get_stream("IN").await?;
    let (stream, reached) = (&stream, &reached);
    wait_for("the state of the reader's consumer", BOUND, || async {
        stream.consumers().next().await?.ok().filter(|info| reached(info))
    })
    .await
}

/// The client drops what does not fit its subscription; the reader never asks for more than fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_loses_nothing() -> anyhow::Result<()> {
    const N: u64 = 10_000;
    const BATCH: u64 = 512;
    // What is left unread in front of the second pause. N is no multiple of BATCH: the last request stays open.
    const LEFT: u64 = 100;
    let server = Server::start().await?;
    let mut config = quick();
    config.connection.subscription_messages_max = 2 * BATCH as usize;
    config.reader.batch = BATCH as usize;
    // A request outlives the silence after which a reader doubts its consumer.
    config.reader.expires_ms = 2000;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    feed(&bus, 1, N).await?;
    let mut reader = Reader::open(&bus, "IN", ">", 0).await?;
    assert_eq!(reader.next().await?.seq, 1);
    // It pauses until all that it asked for lies in the client, and no request is open.
    let paused = consumer_that(&bus, |info| info.delivered.consumer_sequence >= BATCH && info.num_waiting == 0).await?;
    assert_eq!(paused.num_pending, N - paused.delivered.consumer_sequence, "more came than it asked for");
    for seq in 2..=N - LEFT {
        assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.seq, seq);
    }
    // It pauses until the open request has run out, longer than the silence after which it would doubt.
    consumer_that(&bus, |info| info.num_pending == 0 && info.num_waiting == 0).await?;
    for seq in N - LEFT + 1..=N {
        assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.seq, seq);
    }
    assert_eq!(bus.slow_consumers(), 0);
    // Requests run out and are renewed, heartbeats come: an idle reader keeps its consumer.
    let idle = tokio::time::timeout(Duration::from_millis(2500), reader.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    assert_eq!(reader.created(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_larger_than_a_readers_request_pass_and_its_memory_stays_bounded() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.reader.batch_bytes_max = 1 << 20;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "IN", "t.in.>").await?;
    let mut writer = Writer::open(&bus, "IN").await?;
    let sizes: Vec<usize> = (0..40).map(|i| if i % 10 == 9 { 2 << 20 } else { 100_000 }).collect();
    for size in &sizes {
        writer.push("t.in.blob", vec![7u8; *size]).await?;
    }
    writer.drain().await?;
    let mut reader = Reader::open(&bus, "IN", ">", 0).await?;
    for size in &sizes {
        assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.payload.len(), *size);
    }
    assert_eq!(reader.created(), 1);
    Ok(())
}
