//! Folds trades to candles and indicators: reads `RAW_<VENUE>`, writes `AGG_<VENUE>_<p>`.

use clap::Parser;

/// Trades to candles of many timeframes and their indicators.
#[derive(Parser)]
#[command(name = "aggregate", version)]
struct Args {
    #[command(flatten)]
    stage: nats::StageArgs,
}

fn main() -> std::process::ExitCode {
    nats::exit::main(aggregate::run::run(Args::parse().stage))
}
