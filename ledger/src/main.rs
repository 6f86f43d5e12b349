//! Facts to SQL rows: reads what stages say, writes SQLite or PostgreSQL.

use clap::{Parser, Subcommand};
use ledger::run::{Job, run};

/// Facts to SQL rows, for history and audit.
#[derive(Parser)]
#[command(
    name = "ledger",
    version,
    after_help = "Example:\n  DATABASE_URL=sqlite:history.sqlite ledger --nats-url nats://127.0.0.1:4222"
)]
struct Args {
    #[command(flatten)]
    stage: nats::StageArgs,
    /// The database; set it in the environment when it holds a password. Without it: `ledger.database` of the
    /// configuration.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Fill an empty database with everything that the streams hold now, then end.
    Rebuild,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let job = match args.command {
        Some(Command::Rebuild) => Job::Rebuild,
        None => Job::Follow,
    };
    nats::exit::main(run(args.stage, args.database_url, job))
}
