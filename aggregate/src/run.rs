//! The shell: one task for each partition of each venue.

use anyhow::Context;
use nats::{Stage, StageArgs, TaskSpec};
use schemas::subject::stream;

use crate::config::Config;
use crate::core::AggregateCore;

/// The stage's name: in `--tasks`, checkpoints and logs.
pub const STAGE: &str = "aggregate";

/// The tasks that `args` and `config` ask for, in the order of venues and partitions.
pub fn tasks(config: &Config, args: &StageArgs) -> anyhow::Result<Vec<TaskSpec>> {
    let list = args.task_list()?;
    let mut tasks = Vec::new();
    for venue in &config.venues {
        for p in list.partitions(STAGE, venue, args.partitions) {
            tasks.push(TaskSpec {
                key: format!("{venue}.{p}"),
                input: stream::raw(venue),
                filter: format!("raw.{p}.{venue}.>"),
                output: stream::aggregate(venue, p),
            });
        }
    }
    let venues = config.venues.join(", ");
    anyhow::ensure!(!tasks.is_empty(), "--tasks `{}` names no partition of aggregate.venues ({venues})", args.tasks);
    Ok(tasks)
}

/// Runs until a signal or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let specs = tasks(&config, &args)?;
    let stage = Stage::start(STAGE, &args).await?;
    for spec in specs {
        let core = AggregateCore::new(&config).context("make the core")?;
        stage.task(spec, core);
    }
    stage.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(list: &str) -> Vec<String> {
        let mut config = Config::load(None).unwrap();
        config.venues = vec!["binance".into(), "deribit".into()];
        let args = StageArgs { tasks: list.into(), partitions: 2, ..StageArgs::default() };
        tasks(&config, &args).unwrap().into_iter().map(|t| t.key).collect()
    }

    #[test]
    fn without_a_list_every_partition_of_every_venue_is_a_task() {
        assert_eq!(keys(""), ["binance.0", "binance.1", "deribit.0", "deribit.1"]);
        assert_eq!(keys("aggregate.deribit.1,risk.main"), ["deribit.1"]);
    }

    #[test]
    fn a_list_without_a_known_partition_is_an_error_that_names_the_venues() {
        let config = Config::load(None).unwrap();
        let args = StageArgs { tasks: "aggregate.kraken".into(), ..StageArgs::default() };
        let why = tasks(&config, &args).unwrap_err().to_string();
        assert!(why.contains("aggregate.kraken") && why.contains("binance"), "{why}");
    }
}
