//! The shell: one task a venue, each the only writer of its `RAW_<VENUE>`.

use anyhow::ensure;
use nats::{Stage, StageArgs};
use schemas::subject::stream;

use crate::config::{Config, Source};
use crate::metrics::Metrics;
use crate::{live, source};

/// The stage's name: in `--tasks` and logs.
pub const STAGE: &str = "ingest";

/// The enabled venues that this process runs.
pub fn venues(config: &Config, args: &StageArgs) -> anyhow::Result<Vec<String>> {
    let list = args.task_list()?;
    let enabled = config.venues.iter().filter(|(_, venue)| venue.enabled).map(|(id, _)| id.clone());
    let enabled: Vec<String> = enabled.collect();
    ensure!(!enabled.is_empty(), "no venue is enabled: set ingest.venues.<id>.enabled");
    let mine: Vec<String> = enabled.iter().filter(|id| list.has(STAGE, id)).cloned().collect();
    ensure!(!mine.is_empty(), "--tasks `{}` names none of the enabled venues ({})", args.tasks, enabled.join(", "));
    Ok(mine)
}

/// Runs until a signal or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let venues = venues(&config, &args)?;
    let stage = Stage::start(STAGE, &args).await?;
    spawn(&stage, &config, &venues, args.partitions);
    stage.wait().await
}

/// Starts the tasks of `venues` on a stage. With `--lease` an instance connects to a venue only while it holds its
/// lease: a standby's connection would count against the venue's limits.
pub fn spawn(stage: &Stage, config: &Config, venues: &[String], partitions: u32) {
    let metrics = Metrics::default();
    stage.metrics(|registry| metrics.register(registry));
    for id in venues {
        let (bus, name, config, metrics) = (stage.bus(), id.clone(), config.clone(), metrics.clone());
        stage.exclusive(id, move |stats, stop| {
            let task = live::Task {
                bus: bus.clone(),
                id: name.clone(),
                config: config.clone(),
                partitions,
                metrics: metrics.clone(),
                stats,
                stop,
            };
            Box::pin(feed(task))
        });
    }
}

/// One venue's task, once its streams are there.
async fn feed(task: live::Task) -> anyhow::Result<()> {
    let buckets = [stream::KV_INSTRUMENTS, stream::KV_QUOTA].map(nats::kv::stream);
    let needed = [vec![stream::raw(&task.id)], buckets.to_vec()].concat();
    let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
    let stop = task.stop.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        // Nothing was begun yet.
        there = nats::stage::require(&task.bus, &needed) => there?,
    }
    nats::layout::check_partitions(&task.bus, needed[0], task.partitions).await?;
    match task.config.venues[&task.id].source {
        Source::Venue => live::run(task).await,
        Source::Recording | Source::Trades | Source::Files => source::run(task).await,
    }
}
