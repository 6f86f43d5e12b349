//! `tapeline`: starts the pipeline, looks into it, and runs its cores over files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::{backtest_cmd, batch, config_cmd, decode, desk_cmd, exit, import, init, records, status, stop, tap, up};

/// A trading pipeline over NATS JetStream.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 64 bad configuration.
#[derive(Parser)]
#[command(name = "tapeline", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Machine-readable output: one JSON document, or one a line for endless output.
    #[arg(long, global = true)]
    json: bool,
    /// Folder of a pipeline's streams, logs and run file. Default: the running one of .tapeline/live and .tapeline/demo.
    #[arg(long, global = true, env = "TAPELINE_DATA")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  tapeline up --demo                              the pipeline over the venue simulator
  tapeline up --venue binance                     the same over the venue's public feed
  tapeline status                                 every stage with its lag
  tapeline tap 'candle.*.binance.1m.>'            facts as JSON, as they come
  nats sub 'candle.>' --translate 'tapeline decode'
  tapeline backtest --trades DAY.trades.csv.gz --strategy ema_cross --out report/";

#[derive(Subcommand)]
enum Command {
    /// Start nats-server and every stage, and keep them running until Ctrl-C
    Up(up::Args),
    /// Create the streams and buckets of a pipeline on an existing server (`up` does this itself)
    Init(init::Args),
    /// Every stage with its tasks, lag and watermark
    Status(status::Args),
    /// End the pipeline that `up` started
    Stop(stop::Args),
    /// Show facts of a subject as JSON, live or from the streams
    Tap(tap::Args),
    /// One payload from stdin (MessagePack) as JSON
    Decode(decode::Args),
    /// Put a recording or a file of trades into the raw stream of a venue
    Import(import::Args),
    /// Venue messages as normalised events, one JSON object a line
    Normalize(batch::NormalizeArgs),
    /// The order book that a recorded sequence ends with
    Book(batch::BookArgs),
    /// Candles of a file of trades, as CSV
    Candles(batch::CandlesArgs),
    /// All indicators of a file of candles, as CSV
    Indicators(batch::IndicatorsArgs),
    /// Run a strategy, or the whole configuration, over recorded candles, trades or raw streams
    Backtest(backtest_cmd::Args),
    /// Positions of an account
    Positions(records::PositionsArgs),
    /// Executions of an account, newest first
    Trades(records::TradesArgs),
    /// Signals, newest first
    Signals(records::SignalsArgs),
    /// Let an account trade, only reduce, or halt
    Desk(desk_cmd::Args),
    /// Check or show the configuration of every stage
    Config(config_cmd::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (json, data) = (cli.json, cli.data_dir);
    exit::code(match cli.command {
        Command::Up(args) => up::run(args, data, json),
        Command::Init(args) => init::run(args, data, json),
        Command::Status(args) => status::run(args, data, json),
        Command::Stop(args) => stop::run(args, data, json),
        Command::Tap(args) => tap::run(args, data, json),
        Command::Decode(args) => decode::run(args),
        Command::Import(args) => import::run(args, data, json),
        Command::Normalize(args) => batch::normalize(args),
        Command::Book(args) => batch::book(args),
        Command::Candles(args) => batch::candles(args, json),
        Command::Indicators(args) => batch::indicators(args),
        Command::Backtest(args) => backtest_cmd::run(args, data, json),
        Command::Positions(args) => records::positions(args, data, json),
        Command::Trades(args) => records::trades(args, data, json),
        Command::Signals(args) => records::signals(args, data, json),
        Command::Desk(args) => desk_cmd::run(args, data, json),
        Command::Config(args) => config_cmd::run(args, json),
    })
}
