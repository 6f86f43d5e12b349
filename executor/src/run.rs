//! The shell: one task an account, `DESK_<account>` to `EXEC_<account>`.

use anyhow::ensure;
use nats::{Stage, StageArgs, TaskSpec};
use schemas::subject::stream;

use crate::config::Config;
use crate::core::ExecutorCore;

/// Runs until SIGINT, SIGTERM or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let tasks = args.task_list()?;
    let accounts: Vec<&String> = config.accounts.iter().filter(|account| tasks.has("executor", account)).collect();
    ensure!(!accounts.is_empty(), "--tasks `{}` names none of the accounts {}", args.tasks, config.accounts.join(", "));
    let stage = Stage::start("executor", &args).await?;
    for account in accounts {
        tracing::info!(account, mode = config.mode, model = config.fill.model, "execute orders");
        stage.task(spec(account), ExecutorCore::new(account, &config));
    }
    stage.wait().await
}

/// The task of one account. The whole desk is read: the core passes over what is not its own.
pub fn spec(account: &str) -> TaskSpec {
    TaskSpec {
        key: account.to_owned(),
        input: stream::desk(account),
        filter: ">".to_owned(),
        output: stream::exec(account),
    }
}
