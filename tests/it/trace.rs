//! The header `traceparent` of derived facts: one trace from a raw fact to what follows from it, on a real server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nats::task::{self, Accept};
use nats::telemetry::TaskStats;
use nats::trace::Traceparent;
use nats::{Bus, Config, Reader, TaskSpec, leader};
use tests::{Server, wait_for};
use tokio_util::sync::CancellationToken;

use crate::bus::{Fold, make, quick, task_streams};

const BOUND: Duration = Duration::from_secs(30);

/// One life of a fold from `input` to `output`, until it has read `in_seq`.
async fn fold(bus: &Bus, input: &str, output: &str, in_seq: u64) -> anyhow::Result<()> {
    let (stop, stats) = (CancellationToken::new(), TaskStats::new(output));
    let spec = TaskSpec { key: output.to_lowercase(), input: input.into(), filter: ">".into(), output: output.into() };
    let (bus, token, shared) = (bus.clone(), stop.clone(), Arc::clone(&stats));
    let life =
        tokio::spawn(
            async move { task::run(&bus, &spec, Fold::<1>::default(), Accept::default(), &shared, &token).await },
        );
    wait_for("the fold", BOUND, || async { (stats.in_seq() >= in_seq || life.is_finished()).then_some(()) }).await?;
    stop.cancel();
    Ok(tokio::time::timeout(BOUND, life).await???)
}

fn traced(derived: bool) -> Config {
    let mut config = quick();
    config.trace.derived = derived;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_a_raw_fact_through_what_follows_and_is_no_part_of_what_is_compared() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let bus = server.bus_with("test", traced(true)).await?;
    task_streams(&bus, 20).await?;
    fold(&bus, "IN", "OUT", 20).await?;
    let raw = leader::get(&bus, "IN", 7).await?.context("no input")?;
    assert_eq!(raw.trace, None, "raw facts begin a trace by their position, without a header");
    let root = Traceparent::root("IN", 7);
    let out = leader::get(&bus, "OUT", 7).await?.context("no output")?;
    assert_eq!(out.trace, Some(root.child("OUT", 7)));
    // A reader hears it too, so that the next task hands it on.
    let heard = Reader::open(&bus, "OUT", ">", 7).await?.next().await?;
    assert_eq!(heard.trace, Some(root.child("OUT", 7)));

    // Said again without traces, from the first input: equal facts, whatever their headers.
    let plain = server.bus_with("test", traced(false)).await?;
    nats::kv::delete(&plain, "ckpt", "test.out", nats::checkpoint::history(&plain, "test.out").await?.revision).await?;
    fold(&plain, "IN", "OUT", 20).await?;
    assert_eq!(bus.stream("OUT").await?.last_seq, 20);
    Ok(())
}

/// The cost, as a figure; nothing is asserted but that both ends are reached, because machines differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_traces_is_measured() -> anyhow::Result<()> {
    const N: u64 = 10_000;
    let server = Server::start().await?;
    let bus = server.bus_with("test", traced(true)).await?;
    task_streams(&bus, N).await?;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..3u32 {
        for derived in [false, true] {
            let bus = server.bus_with("test", traced(derived)).await?;
            bus.js().delete_stream("OUT").await?;
            make(&bus, "OUT", "t.out.>").await?;
            let revision = nats::checkpoint::history(&bus, "test.out").await?.revision;
            if revision > 0 {
                nats::kv::delete(&bus, "ckpt", "test.out", revision).await?;
            }
            let begun = Instant::now();
            fold(&bus, "IN", "OUT", N).await?;
            took[usize::from(derived)].push(begun.elapsed());
            let stored = bus.js().get_stream("OUT").await?.cached_info().state.clone();
            assert_eq!(stored.messages, N);
            if round == 0 {
                eprintln!("traces {derived}: {} bytes a message in the stream", stored.bytes / N);
            }
        }
    }
    for (derived, times) in [false, true].iter().zip(&mut took) {
        times.sort_unstable();
        eprintln!("traces {derived}: {N} inputs folded and said in {:?} (median of 3)", times[1]);
    }
    Ok(())
}
