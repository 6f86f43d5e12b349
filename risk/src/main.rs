//! The only stage that turns opinions into orders: reads `DESK_<account>`, writes `RISK_<account>`.

use clap::Parser;

/// Signals to orders or refusals, for the accounts of the configuration.
#[derive(Parser)]
#[command(name = "risk", version)]
struct Args {
    #[command(flatten)]
    stage: nats::StageArgs,
}

fn main() -> std::process::ExitCode {
    nats::exit::main(risk::run::run(Args::parse().stage))
}
