//! Venue feeds and recordings to raw facts: writes `RAW_<VENUE>`.

use clap::Parser;

/// What venues send, and what was recorded of them, becomes raw facts.
#[derive(Parser)]
#[command(name = "ingest", version)]
struct Args {
    #[command(flatten)]
    stage: nats::StageArgs,
}

fn main() -> std::process::ExitCode {
    nats::exit::main(ingest::run::run(Args::parse().stage))
}
