//! Forms opinions: reads `AGG_<VENUE>_<p>`, writes `SIG_<VENUE>_<p>`; LLM traders write their prompts, replies,
//! verdicts and signals.

use clap::Parser;

/// Candles and indicators to signals, by rules and by language models.
#[derive(Parser)]
#[command(name = "strategy", version)]
struct Args {
    #[command(flatten)]
    stage: nats::StageArgs,
}

fn main() -> std::process::ExitCode {
    nats::exit::main(strategy::run::run(Args::parse().stage))
}
