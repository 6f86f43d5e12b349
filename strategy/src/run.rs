//! The shell: a task for each partition of each venue, and three for each LLM trader.
//!
//! `--tasks` names the first `strategy.<venue>[.<p>]` and the second `llm.<trader>`. Their checkpoints are
//! `strategy.<venue>.<p>`, `strategy.llm.<trader>.prompt` and `strategy.llm.<trader>.verdict`.

use anyhow::Context;
use nats::{Stage, StageArgs, TaskSpec};
use schemas::subject::stream;

use crate::config::{Config, Trader};
use crate::core::StrategyCore;
use crate::llm::caller;
use crate::llm::core::{PromptCore, VerdictCore};

/// The stage's name: in `--tasks`, checkpoints and logs.
pub const STAGE: &str = "strategy";
/// The name of LLM traders in `--tasks`.
pub const LLM: &str = "llm";

/// The rule tasks that `args` and `config` ask for, in the order of venues and partitions.
pub fn rule_tasks(config: &Config, args: &StageArgs) -> anyhow::Result<Vec<TaskSpec>> {
    let list = args.task_list()?;
    let mut tasks = Vec::new();
    for venue in &config.venues {
        for p in list.partitions(STAGE, venue, args.partitions) {
            tasks.push(TaskSpec {
                key: format!("{venue}.{p}"),
                input: stream::aggregate(venue, p),
                filter: ">".to_owned(),
                output: stream::signal(venue, p),
            });
        }
    }
    Ok(tasks)
}

/// The LLM traders that `args` and `config` ask for.
pub fn traders(config: &Config, args: &StageArgs) -> anyhow::Result<Vec<Trader>> {
    let list = args.task_list()?;
    Ok(config.traders()?.into_iter().filter(|trader| list.has(LLM, &trader.name)).collect())
}

/// Runs until a signal or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let specs = rule_tasks(&config, &args)?;
    let traders = traders(&config, &args)?;
    anyhow::ensure!(
        !specs.is_empty() || !traders.is_empty(),
        "--tasks `{}` names no partition of strategy.venues ({}) and no trader of strategy.traders",
        args.tasks,
        config.venues.join(", ")
    );
    let stage = Stage::start(STAGE, &args).await?;
    for spec in specs {
        let core = StrategyCore::new(&config).context("make the core")?;
        stage.task(spec, core);
    }
    let gates = caller::Gates::default();
    for trader in traders {
        start(&stage, trader, &gates)?;
    }
    stage.wait().await
}

/// Prompt task, caller and verdict task of one trader.
fn start(stage: &Stage, trader: Trader, gates: &caller::Gates) -> anyhow::Result<()> {
    let name = trader.name.clone();
    let spec = |part: &str, input: String, filter: &str, output: String| TaskSpec {
        key: format!("{LLM}.{name}.{part}"),
        input,
        filter: filter.to_owned(),
        output,
    };
    let prompt = spec("prompt", stream::llm_desk(&name), ">", stream::llm_prompt(&name));
    let verdict = spec("verdict", stream::llm_reply(&name), ">", stream::llm_signal(&name));
    // Tried once here, so that a trader that cannot be called ends the start.
    caller::of(&trader, gates)?;
    stage.task(prompt, PromptCore::new(trader.clone()));
    stage.task(verdict, VerdictCore::new(trader.clone()));

    let (bus, gates) = (stage.bus(), gates.clone());
    stage.exclusive(&format!("{LLM}.{name}.call"), move |stats, stop| {
        let (bus, gates, trader) = (bus.clone(), gates.clone(), trader.clone());
        Box::pin(async move {
            let caller = caller::of(&trader, &gates)?;
            let (prompts, replies) = (stream::llm_prompt(&trader.name), stream::llm_reply(&trader.name));
            let needed = [prompts.as_str(), replies.as_str()];
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                there = nats::stage::require(&bus, &needed) => there?,
            }
            caller::run(bus, caller, stats, stop).await
        })
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "[strategy]\nvenues = [\"binance\", \"deribit\"]\n[strategy.traders.owl]\nbase_url = \"http://localhost\"\nmodel = \"m\"\n\
                    coins = [{ coin = \"BTC\", venue = \"binance\", symbol = \"BTCUSDT\" }]\n";
        let user = schemas::config::UserFile { name: "test".into(), text: text.into() };
        Config::load(Some(&user)).unwrap()
    }

    fn named(list: &str) -> Vec<String> {
        let args = StageArgs { tasks: list.into(), partitions: 2, ..StageArgs::default() };
        let rules = rule_tasks(&config(), &args).unwrap().into_iter().map(|task| task.key);
        rules.chain(traders(&config(), &args).unwrap().into_iter().map(|trader| trader.name)).collect()
    }

    #[test]
    fn without_a_list_every_partition_and_every_trader_is_run_and_a_list_is_a_share_of_them() {
        assert_eq!(named(""), ["binance.0", "binance.1", "deribit.0", "deribit.1", "owl"]);
        assert_eq!(named("strategy.deribit.1,risk.main"), ["deribit.1"]);
        assert_eq!(named("llm.owl"), ["owl"]);
        assert_eq!(named("strategy"), ["binance.0", "binance.1", "deribit.0", "deribit.1"]);
    }
}
