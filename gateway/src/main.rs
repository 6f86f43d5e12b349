//! `gateway`: REST, WebSocket fan-out and the dashboard.

use clap::Parser;
use nats::StageArgs;

/// REST, WebSocket fan-out and the dashboard of the pipeline. It shows; it says nothing on the bus.
#[derive(Parser)]
#[command(
    name = "gateway",
    version,
    after_help = "Example:\n  gateway --nats-url nats://127.0.0.1:4222 --config tapeline.toml"
)]
struct Cli {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    nats::exit::main(gateway::run::run(cli.stage))
}
