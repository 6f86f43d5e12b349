//! The positioned writer: windows over kills of the server, owners that overtake each other, streams that are full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::stream::Config as StreamConfig;
use nats::{Bus, BusError, Writer};
use tests::{Server, stored, wait_for};

use super::{BOUND, make, make_with, quick, server_and_bus};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_server_in_the_middle_of_a_window_neither_lose_nor_double() -> anyhow::Result<()> {
    const N: u64 = 12_000;
    let (mut server, bus) = server_and_bus().await?;
    make(&bus, "S", "s.>").await?;
    let pushed = Arc::new(AtomicU64::new(0));
    let (counter, writer_bus) = (Arc::clone(&pushed), bus.clone());
    let writing = tokio::spawn(async move {
        let mut writer = Writer::resume(&writer_bus, "S", 0).await?;
        for i in 1..=N {
            writer.push("s.n", i.to_string()).await?;
            counter.store(i, Relaxed);
        }
        writer.drain().await?;
        anyhow::Ok(writer.resyncs())
    });
    for kill in 1..=3 {
        let pushed = &pushed;
        wait_for("the writer to get on", BOUND, || async { (pushed.load(Relaxed) >= kill * N / 4).then_some(()) })
            .await?;
        server.kill9()?;
        server.restart().await?;
    }
    let resyncs = tokio::time::timeout(BOUND, writing).await???;
    assert!(resyncs >= 3, "{resyncs} resyncs: the kills did not hit a window");
    let expected: Vec<_> = (1..=N).map(|i| (i, "s.n".to_owned(), i.to_string().into_bytes())).collect();
    assert_eq!(stored(&bus, "S").await?, expected);
    Ok(())
}

/// A stream S whose first owner stored `a1`, and whose second has overtaken it with `b1`.
async fn overtaken() -> anyhow::Result<(Server, Bus, Writer, Writer)> {
    let (server, bus) = server_and_bus().await?;
    make(&bus, "S", "s.>").await?;
    let mut first = Writer::open(&bus, "S").await?;
    first.push("s.n", "a1").await?;
    first.drain().await?;
    let mut second = Writer::open(&bus, "S").await?;
    second.push("s.n", "b1").await?;
    second.drain().await?;
    Ok((server, bus, first, second))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_owner_of_a_stream_ends_the_first_even_with_equal_bytes() -> anyhow::Result<()> {
    let (_server, bus, mut first, _second) = overtaken().await?;
    // The refusal may be heard by the push already.
    let error = async { first.push("s.n", "b1").await.and(first.drain().await) }.await.unwrap_err();
    assert!(matches!(error, BusError::Fenced { seq: 2, .. }), "{error}");
    assert_eq!(stored(&bus, "S").await?.len(), 2);
    Ok(())
}

/// A position alone does not fence a window: the one who is refused at k would be stored at k+1, which exists by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_overtaken_stores_nothing_more_of_its_window() -> anyhow::Result<()> {
    let (_server, bus, mut first, mut second) = overtaken().await?;
    let window = async {
        for n in 2..40 {
            first.push("s.n", format!("a{n}")).await?;
        }
        first.drain().await
    };
    let error = window.await.unwrap_err();
    assert!(matches!(error, BusError::Fenced { seq: 2, .. }), "{error}");
    second.push("s.n", "b2").await?;
    second.drain().await?;
    let words: Vec<Vec<u8>> = stored(&bus, "S").await?.into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(words, [b"a1", b"b1", b"b2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_owners_with_full_windows_exactly_one_goes_on_without_a_hole() -> anyhow::Result<()> {
    const FACTS: u32 = 3000;
    let (_server, bus) = server_and_bus().await?;
    for round in 0..10u32 {
        let (name, subject) = (format!("S{round}"), format!("s{round}.n"));
        make(&bus, &name, &format!("s{round}.>")).await?;
        let mut first = Writer::open(&bus, &name).await?;
        first.push(subject.as_str(), "a0").await?;
        first.drain().await?;
        // The second opens while the first has a window on its way, and both push on as fast as they can.
        let run = |mut writer: Writer, who: char| {
            let subject = subject.clone();
            async move {
                for i in 1..=FACTS {
                    writer.push(subject.as_str(), format!("{who}{i}")).await?;
                }
                writer.drain().await?;
                Ok::<_, BusError>(who)
            }
        };
        let begin = 100 * round;
        let opening = async {
            wait_for("the first to be under way", BOUND, || async {
                (bus.stream(&name).await.ok()?.last_seq > u64::from(begin)).then_some(())
            })
            .await
            .map_err(|e| BusError::Config(e.to_string()))?;
            run(Writer::open(&bus, &name).await?, 'b').await
        };
        let (a, b) = tokio::join!(run(first, 'a'), opening);
        let there = stored(&bus, &name).await?;
        let words: Vec<String> = there.iter().map(|(_, _, p)| String::from_utf8_lossy(p).into_owned()).collect();
        let of = |who: char| words.iter().filter(|w| w.starts_with(who)).cloned().collect::<Vec<_>>();
        let unbroken = |who: char, from: u32, count: usize| {
            let wanted: Vec<String> = (from..).take(count).map(|i| format!("{who}{i}")).collect();
            assert_eq!(of(who), wanted, "round {round}: a hole in what {who} stored");
        };
        unbroken('a', 0, of('a').len());
        unbroken('b', 1, of('b').len());
        let fenced = |r: &Result<char, BusError>| matches!(r, Err(BusError::Fenced { .. }));
        match (&a, &b) {
            (Ok(_), b) if fenced(b) => assert_eq!(of('a').len(), FACTS as usize + 1),
            (a, Ok(_)) if fenced(a) => assert_eq!(of('b').len(), FACTS as usize),
            // The first had said everything before the second began.
            (Ok(_), Ok(_)) => assert_eq!(words.len(), 2 * FACTS as usize + 1),
            ended => panic!("round {round}: {ended:?}"),
        }
    }
    Ok(())
}

/// With async-nats' own publish, futures that nobody awaits keep their permits and the 5,001st publish hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_pushes_that_nobody_drains_do_not_hang() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let mut config = quick();
    config.writer.window = 4096;
    let bus = server.bus_with("test", config).await?;
    make(&bus, "S", "s.>").await?;
    let mut writer = Writer::open(&bus, "S").await?;
    let pushing = async {
        for i in 0..20_000u32 {
            writer.push("s.n", i.to_string()).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(BOUND, pushing).await.context("hangs")??;
    writer.drain().await?;
    assert_eq!(bus.stream("S").await?.last_seq, 20_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_pushes_back_and_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let (_server, bus) = server_and_bus().await?;
    let full = StreamConfig {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        max_messages: 10,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Default::default()
    };
    make_with(&bus, full.clone()).await?;
    let mut writer = Writer::open(&bus, "S").await?;
    for i in 0..15u32 {
        writer.push("s.n", i.to_string()).await?;
    }
    let waiting = tokio::time::timeout(Duration::from_millis(600), writer.drain()).await;
    assert!(waiting.is_err(), "a full stream is not an error yet: {waiting:?}");
    bus.js().update_stream(StreamConfig { max_messages: 100, ..full }).await?;
    tokio::time::timeout(BOUND, writer.drain()).await??;
    assert_eq!(stored(&bus, "S").await?.len(), 15);
    Ok(())
}
