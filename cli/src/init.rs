//! `tapeline init`: the streams and buckets of a pipeline on an existing server, by its operator.

use std::path::PathBuf;

use anyhow::Context;
use nats::Layout;
use serde_json::json;

use crate::target;

/// `tapeline init`
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  NATS_URL=nats://bus:4222 NATS_PASSWORD=... tapeline init --venue binance,deribit --account main"
)]
pub struct Args {
    /// Venues, comma-separated
    #[arg(long, value_delimiter = ',', required = true)]
    venue: Vec<String>,
    /// Accounts, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "main")]
    account: Vec<String>,
    /// LLM traders, comma-separated
    #[arg(long, value_delimiter = ',')]
    trader: Vec<String>,
    /// Partitions of every venue; frozen when its streams are made
    #[arg(long, default_value_t = schemas::subject::PARTITIONS)]
    partitions: u32,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let layout =
        Layout { venues: args.venue, accounts: args.account, traders: args.trader, partitions: args.partitions };
    target::block_on(async {
        let bus = target::operator_bus(data).await?;
        layout.apply(&bus).await.context("create the streams")
    })?;
    let streams = layout.streams();
    if json {
        println!("{}", json!({"streams": streams}));
    } else {
        println!("{} streams and buckets are there", streams.len());
    }
    Ok(())
}
