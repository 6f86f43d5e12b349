//! Order life cycle and simulated venues, for the accounts of the configuration.

use clap::Parser;
use nats::StageArgs;

/// Orders in, what became of them out: `DESK_<account>` to `EXEC_<account>`.
#[derive(Parser)]
#[command(name = "executor", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    executor::run::run(Args::parse().stage).await
}
