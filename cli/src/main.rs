//! `tapeline`: starts the pipeline, looks into it, and runs its cores over files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::{
    audit, backtest_cmd, batch, config_cmd, decode, desk_cmd, doctor, exit, export, feed_cmd, gaps, grow, import, init,
    parity, records, replay, status, stop, sweep_cmd, tap, task_cmd, top, up, venue_cmd, why,
};

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
    /// Move the streams of one server to a cluster, sequences kept
    Grow(grow::Args),
    /// Every stage with its tasks, lag and watermark
    Status(status::Args),
    /// End the pipeline that `up` started
    Stop(stop::Args),
    /// Show facts of a subject as JSON, live or from the streams
    Tap(tap::Args),
    /// One payload from stdin (MessagePack) as JSON
    Decode(decode::Args),
    /// A running venue feed: what it carries, and changes to it
    Feed(feed_cmd::Args),
    /// Put a recording, a file of trades or an export into streams
    Import(import::Args),
    /// Streams as Parquet files, complete and typed
    Export(export::Args),
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
    /// Many backtests over grids of parameters, with what luck makes of the best
    Sweep(sweep_cmd::Args),
    /// Positions of an account
    Positions(records::PositionsArgs),
    /// Executions of an account, newest first
    Trades(records::TradesArgs),
    /// Signals, newest first
    Signals(records::SignalsArgs),
    /// What was missing, by day: gaps in trades and books
    Gaps(gaps::Args),
    /// Let an account trade, only reduce, or halt
    Desk(desk_cmd::Args),
    /// A task's checkpoint and halts, and the operator's word about them
    Task(task_cmd::Args),
    /// The venues, and whether a description of another one can be used
    Venue(venue_cmd::Args),
    /// Check or show the configuration of every stage
    Config(config_cmd::Args),
    /// Stages over a stored range again, into streams of their own
    Replay(replay::Args),
    /// Feed every task its stored inputs and compare with what it said then
    Audit(audit::Args),
    /// From an order, fill, refusal or signal back to the ticks
    Why(why::Args),
    /// The backtest over the recorded ticks beside what the live pipeline said
    Parity(parity::Args),
    /// Everything around a pipeline that can be wrong, with a remedy each
    Doctor(doctor::Args),
    /// The running pipeline, redrawn: tasks, rates, lag, watermark, orders
    Top(top::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (json, data) = (cli.json, cli.data_dir);
    exit::code(match cli.command {
        Command::Up(args) => up::run(args, data, json),
        Command::Init(args) => init::run(args, data, json),
        Command::Grow(args) => grow::run(args, data, json),
        Command::Status(args) => status::run(args, data, json),
        Command::Stop(args) => stop::run(args, data, json),
        Command::Tap(args) => tap::run(args, data, json),
        Command::Decode(args) => decode::run(args),
        Command::Feed(args) => feed_cmd::run(args, data, json),
        Command::Import(args) => import::run(args, data, json),
        Command::Export(args) => export::run(args, data, json),
        Command::Normalize(args) => batch::normalize(args),
        Command::Book(args) => batch::book(args),
        Command::Candles(args) => batch::candles(args, json),
        Command::Indicators(args) => batch::indicators(args),
        Command::Backtest(args) => backtest_cmd::run(args, data, json),
        Command::Sweep(args) => sweep_cmd::run(args, json),
        Command::Positions(args) => records::positions(args, data, json),
        Command::Trades(args) => records::trades(args, data, json),
        Command::Signals(args) => records::signals(args, data, json),
        Command::Gaps(args) => gaps::run(args, data, json),
        Command::Desk(args) => desk_cmd::run(args, data, json),
        Command::Task(args) => task_cmd::run(args, data, json),
        Command::Venue(args) => venue_cmd::run(args, json),
        Command::Config(args) => config_cmd::run(args, json),
        Command::Replay(args) => replay::run(args, data, json),
        Command::Audit(args) => audit::run(args, data, json),
        Command::Why(args) => why::run(args, data, json),
        Command::Parity(args) => parity::run(args, data, json),
        Command::Doctor(args) => doctor::run(args, data, json),
        Command::Top(args) => top::run(args, data, json),
    })
}
