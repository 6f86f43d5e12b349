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

fn main() -> std::process::ExitCode {
    nats::exit::main(executor::run::run(Args::parse().stage))
}
