//! The shell: one task for each account.

use anyhow::Context;
use nats::{Stage, StageArgs, TaskSpec};
use schemas::subject::stream;

use crate::config::Config;
use crate::core::RiskCore;

/// The stage's name: in `--tasks`, checkpoints and logs.
pub const STAGE: &str = "risk";

/// The accounts that `args` and `config` ask for, each with its task.
pub fn tasks(config: &Config, args: &StageArgs) -> anyhow::Result<Vec<(String, TaskSpec)>> {
    let list = args.task_list()?;
    let accounts = config.accounts.iter().filter(|account| list.has(STAGE, account));
    let tasks: Vec<_> = accounts
        .map(|account| {
            let spec = TaskSpec {
                key: account.clone(),
                input: stream::desk(account),
                // The sequencer holds what risk and the executor need and little else; both read all of it.
                filter: ">".to_owned(),
                output: stream::risk(account),
            };
            (account.clone(), spec)
        })
        .collect();
    let accounts = config.accounts.join(", ");
    anyhow::ensure!(!tasks.is_empty(), "--tasks `{}` names no account of risk.accounts ({accounts})", args.tasks);
    Ok(tasks)
}

/// Runs until a signal or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let tasks = tasks(&config, &args)?;
    let stage = Stage::start(STAGE, &args).await?;
    for (account, spec) in tasks {
        let core = RiskCore::new(&account, &config).context("make the core")?;
        stage.task(spec, core);
    }
    stage.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(list: &str) -> Vec<String> {
        let mut config = Config::load(None).unwrap();
        config.accounts = vec!["main".into(), "alpha.1".into()];
        let args = StageArgs { tasks: list.into(), ..StageArgs::default() };
        tasks(&config, &args).unwrap().into_iter().map(|(_, t)| format!("{} {} {}", t.key, t.input, t.output)).collect()
    }

    #[test]
    fn every_account_is_a_task_from_its_desk_to_its_risk_stream() {
        assert_eq!(keys("risk.main"), ["main DESK_main RISK_main"]);
        assert_eq!(keys("").len(), 2);
    }

    #[test]
    fn a_list_without_a_known_account_is_an_error_that_names_the_accounts() {
        let config = Config::load(None).unwrap();
        let args = StageArgs { tasks: "risk.other".into(), ..StageArgs::default() };
        let why = tasks(&config, &args).unwrap_err().to_string();
        assert!(why.contains("risk.other") && why.contains("main"), "{why}");
    }
}
