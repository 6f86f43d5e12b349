//! The shell: one task an account, `DESK_<account>` to `EXEC_<account>`; with live venues its caller as well,
//! `EXEC_<account>` to `LIVE_<account>`, which the desk hears.

use anyhow::ensure;
use nats::{Stage, StageArgs, TaskSpec};
use schemas::subject::stream;

use crate::config::Config;
use crate::core::ExecutorCore;
use crate::live::caller::{self, Caller};

/// Runs until SIGINT, SIGTERM or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let tasks = args.task_list()?;
    let accounts: Vec<&String> = config.accounts.iter().filter(|account| tasks.has("executor", account)).collect();
    ensure!(!accounts.is_empty(), "--tasks `{}` names none of the accounts {}", args.tasks, config.accounts.join(", "));
    // Before anything is connected: without keys there is no live account.
    let callers = if config.is_live() {
        accounts.iter().map(|account| Caller::new(account, &config)).collect::<anyhow::Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let stage = Stage::start("executor", &args).await?;
    for account in accounts {
        tracing::info!(account, mode = config.mode, model = config.fill.model, "execute orders");
        stage.task(spec(account), ExecutorCore::new(account, &config));
    }
    for caller in callers {
        call(&stage, caller);
    }
    stage.wait().await
}

/// Brings the orders of one account to their venues; one instance at a time, and fenced by its stream.
fn call(stage: &Stage, caller: Caller) {
    let bus = stage.bus();
    stage.exclusive(&format!("live.{}", caller.account()), move |stats, stop| {
        let (bus, caller) = (bus.clone(), caller.clone());
        Box::pin(async move {
            let (exec, live) = (stream::exec(caller.account()), stream::live(caller.account()));
            let needed = [exec.as_str(), live.as_str()];
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // Nothing was begun yet.
                there = nats::stage::require(&bus, &needed) => there?,
            }
            caller::run(bus, caller, stats, stop).await
        })
    });
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
