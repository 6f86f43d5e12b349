//! Through JetStream: the positioned writer beside a plain publisher, the reader beside a bare pull, the stage loop
//! beside the reader.

use std::time::Duration;

use aggregate::config::Config as AggregateConfig;
use aggregate::core::AggregateCore;
use anyhow::{Context, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Compression, Config as Stream};
use futures_util::StreamExt;
use nats::telemetry::TaskStats;
use nats::{Accept, Bus, Layout, Reader, TaskSpec, Writer};
use schemas::Fact;
use schemas::raw::Trades;
use schemas::subject::{PARTITIONS, partition, stream};
use tests::{Server, wait_for};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::market::{packs, ticks};
use crate::method::{Aim, ROUNDS, Report, took};

pub fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn make(bus: &Bus, name: &str, subjects: &[String]) -> anyhow::Result<()> {
    let config = Stream {
        name: name.to_owned(),
        subjects: subjects.to_vec(),
        compression: Some(Compression::S2),
        duplicate_window: Duration::from_secs(1),
        ..Stream::default()
    };
    bus.js().create_stream(config).await?;
    Ok(())
}

/// Streams of the same form on one server; payloads are ready before the clock starts. A fresh stream a round.
pub fn writer(report: &mut Report) -> anyhow::Result<()> {
    let rt = runtime()?;
    for (bytes, count) in [(100usize, 200_000usize), (8_000, 40_000)] {
        let server = rt.block_on(Server::start())?;
        let bus = rt.block_on(server.bus("bench"))?;
        let window = bus.config().writer.window;
        let payloads: Vec<bytes::Bytes> = (0..count).map(|i| vec![(i % 251) as u8; bytes].into()).collect();
        let (mut own, mut folded, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            for (kind, list) in [("own", &mut own), ("fold", &mut folded)] {
                let name = format!("W_{kind}_{round}");
                rt.block_on(make(&bus, &name, &[format!("w.{kind}.{round}.>")]))?;
                let subject = format!("w.{kind}.{round}.x");
                list.push(took(&[server.pid()], || {
                    rt.block_on(async {
                        let mut writer = match kind {
                            "own" => Writer::open(&bus, &name).await?,
                            _ => Writer::resume(&bus, &name, 0).await?,
                        };
                        for payload in &payloads {
                            writer.push(subject.as_str(), payload.clone()).await?;
                        }
                        writer.drain().await?;
                        ensure!(writer.resyncs() == 0, "{} resyncs", writer.resyncs());
                        Ok(())
                    })
                })?);
                rt.block_on(bus.js().delete_stream(&name))?;
            }
            let name = format!("P_{round}");
            rt.block_on(make(&bus, &name, &[format!("p.{round}.>")]))?;
            let subject = format!("p.{round}.x");
            plain.push(took(&[server.pid()], || rt.block_on(plain_publish(&bus, &subject, &payloads, window)))?);
            rt.block_on(bus.js().delete_stream(&name))?;
        }
        let beside = Some(("async-nats publisher, same window", &plain[..]));
        for (what, list) in [("of a fold", &folded), ("that owns its stream", &own)] {
            let what = format!("positioned writer {what}, {bytes} bytes, window {window}");
            report.rate("Bus", what, count, "msg/s", list, beside, Some(Aim::RatioAtLeast(0.9)));
        }
    }
    Ok(())
}

/// Publishes with acknowledgements, at most `window` in flight: the reference of the positioned writer.
async fn plain_publish(bus: &Bus, subject: &str, payloads: &[bytes::Bytes], window: usize) -> anyhow::Result<()> {
    let js = bus.js();
    let mut acks = futures_util::stream::iter(payloads)
        .map(|payload| async move {
            js.publish(subject.to_owned(), payload.clone()).await?.await.map_err(anyhow::Error::from)
        })
        .buffer_unordered(window);
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(())
}

async fn layout(server: &Server) -> anyhow::Result<Bus> {
    let operator = server.bus("operator").await?;
    let layout = Layout {
        venues: vec!["binance".into()],
        // No account: a desk would source every message and be measured too.
        accounts: vec![],
        traders: vec![],
        partitions: PARTITIONS,
    };
    layout.apply(&operator).await?;
    Ok(operator)
}

/// Fills RAW with packs; the sequence of the last one.
async fn fill(bus: &Bus, all: &[Trades]) -> anyhow::Result<u64> {
    let mut writer = Writer::open(bus, &stream::raw("binance")).await?;
    for pack in all {
        writer.push(pack.subject(), pack.encode()).await?;
    }
    writer.drain().await?;
    Ok(writer.last_seq())
}

/// Our reader with decoding, beside async-nats' pull consumer without acknowledgements that decodes nothing.
pub fn reader(report: &mut Report) -> anyhow::Result<()> {
    let rt = runtime()?;
    for size in [1usize, 32, 256] {
        let count = if size == 1 { 300_000 } else { 2_000_000 };
        let server = rt.block_on(Server::start())?;
        let bus = rt.block_on(layout(&server))?;
        let raw = stream::raw("binance");
        let last = rt.block_on(fill(&bus, &packs("BTCUSDT", &ticks(0, count), size)))?;
        let filter = format!("raw.{}.binance.>", partition("binance", "BTCUSDT", PARTITIONS));
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(took(&[server.pid()], || {
                rt.block_on(async {
                    let mut reader = Reader::open(&bus, &raw, &filter, 1).await?;
                    let mut ticks = 0usize;
                    loop {
                        for message in reader.next_batch(1024).await? {
                            ticks += Trades::decode(&message.payload)?.len();
                            if message.seq == last {
                                ensure!(ticks == count, "{ticks} of {count} ticks");
                                return Ok(());
                            }
                        }
                    }
                })
            })?);
            bare.push(took(&[server.pid()], || {
                rt.block_on(async {
                    let config = pull::Config {
                        ack_policy: AckPolicy::None,
                        filter_subject: filter.clone(),
                        ..Default::default()
                    };
                    let consumer = bus.js().get_stream(&raw).await?.create_consumer(config).await?;
                    let mut messages = consumer.stream().max_messages_per_batch(5000).messages().await?;
                    let mut seen = 0u64;
                    while let Some(message) = messages.next().await {
                        std::hint::black_box(message.map_err(|e| anyhow::anyhow!("{e}"))?);
                        seen += 1;
                        if seen == last {
                            return Ok(());
                        }
                    }
                    anyhow::bail!("the consumer ended at {seen}")
                })
            })?);
        }
        let what = format!("reader with decoding, packs of {size}");
        let beside = Some(("bare pull without decoding", &bare[..]));
        report.rate("Bus", what, count, "ticks/s", &ours, beside, Some(Aim::RatioAtLeast(0.6)));
    }
    Ok(())
}

/// The aggregate core under the stage loop: raw packs in, candles out; beside it our reader that decodes and folds
/// nothing.
pub fn aggregate(report: &mut Report) -> anyhow::Result<()> {
    let rt = runtime()?;
    for size in [1usize, 32, 256] {
        let count = if size == 1 { 200_000 } else { 2_000_000 };
        let server = rt.block_on(Server::start())?;
        let bus = rt.block_on(layout(&server))?;
        let raw = stream::raw("binance");
        let last = rt.block_on(fill(&bus, &packs("BTCUSDT", &ticks(0, count), size)))?;
        let p = partition("binance", "BTCUSDT", PARTITIONS);
        let filter = format!("raw.{p}.binance.>");
        rt.block_on(bus.js().delete_stream(stream::aggregate("binance", p)))?;
        let (mut folds, mut reads) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            reads.push(took(&[server.pid()], || {
                rt.block_on(async {
                    let mut reader = Reader::open(&bus, &raw, &filter, 1).await?;
                    while reader.next().await?.seq < last {}
                    Ok(())
                })
            })?);
            // A fresh output stream a round: the task starts from nothing.
            let output = format!("BENCH_{round}");
            let subjects = ["candle", "indicator", "late"].map(|kind| format!("{kind}.{p}.binance.>"));
            rt.block_on(make(&bus, &output, &subjects))?;
            let mut config = AggregateConfig::load(None)?;
            config.indicator_timeframes = Vec::new();
            let core = AggregateCore::new(&config)?;
            let spec = TaskSpec {
                key: format!("bench.{round}"),
                input: raw.clone(),
                filter: filter.clone(),
                output: output.clone(),
            };
            folds.push(took(&[server.pid()], || {
                rt.block_on(async {
                    let (stats, stop) = (TaskStats::new(&spec.key), CancellationToken::new());
                    let task = tokio::spawn({
                        let (bus, stats, stop, spec) = (bus.clone(), stats.clone(), stop.clone(), spec.clone());
                        async move { nats::task::run(&bus, &spec, core, Accept::default(), &stats, &stop).await }
                    });
                    wait_for("the task to catch up", Duration::from_secs(120), || async {
                        (stats.in_seq() >= last).then_some(())
                    })
                    .await?;
                    stop.cancel();
                    task.await?.context("end the task")
                })
            })?);
            rt.block_on(bus.js().delete_stream(&output))?;
        }
        let what = format!("aggregate through JetStream, packs of {size}");
        let beside = Some(("reader of the same messages", &reads[..]));
        report.rate("Bus", what, count, "ticks/s", &folds, beside, None);
    }
    Ok(())
}
