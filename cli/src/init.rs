//! `tapeline init`: the streams and buckets of a pipeline on an existing server, by its operator.

use std::path::PathBuf;

use anyhow::Context;
use nats::Layout;
use serde_json::json;

use crate::{config_cmd, target};

/// `tapeline init`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  NATS_URL=nats://bus:4222 NATS_PASSWORD=... tapeline init --venue binance,deribit --account main
  tapeline init --venue binance --replicas 3       streams of a cluster
  tapeline init --venue binance --config my.toml   retention from [nats.layout]")]
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
    /// Copies of every stream: 1 on one server, 3 in a cluster. Default: nats.layout.replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// Your tapeline.toml; its table [nats.layout] holds retention and replicas
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let mut bounds = nats::Config::load(config_cmd::user_file(args.config.as_deref())?.as_ref())?;
    if let Some(replicas) = args.replicas {
        bounds.layout.replicas = replicas.into();
    }
    let layout =
        Layout { venues: args.venue, accounts: args.account, traders: args.trader, partitions: args.partitions };
    target::block_on(async {
        let bus = target::operator_bus_with(data, bounds).await?;
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
