//! `tapeline import`: a recording or files of trades into RAW_<VENUE>, resumable, with progress.

use std::path::PathBuf;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ingest::config::{Config, Source};
use ingest::source::{Job, import};
use schemas::subject::stream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::target;

/// `tapeline import`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline import --venue binance --form recording btcusdt_20240808.gz btcusdt_20240809.gz
  tapeline import --venue bitmex --symbol XBTUSD --form trades XBTUSD.trades.csv.gz")]
pub struct Args {
    /// Venue id: the recording is stored in RAW_<VENUE>
    #[arg(long)]
    venue: String,
    /// recording: lines of `<receive ns> <frame>`; trades: CSV seq,ts_ns,trade_id,price,qty,side
    #[arg(long, value_parser = ["recording", "trades"])]
    form: String,
    /// Symbol, where the files do not tell it
    #[arg(long, default_value = "")]
    symbol: String,
    /// 0 at once, 1 as recorded, 10 ten times as fast
    #[arg(long, default_value_t = 0.0)]
    speed: f64,
    /// Close the candles that are open at the end
    #[arg(long)]
    flush_open: bool,
    /// Files in order, plain or gzip
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let job = job(&args)?;
    target::block_on(async {
        let bus = target::operator_bus(data).await?;
        nats::stage::require(&bus, &[&stream::raw(&args.venue)]).await?;
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        tokio::spawn(async move {
            // An error means that there is no signal to wait for; then the import ends by itself.
            if tokio::signal::ctrl_c().await.is_ok() {
                stopper.cancel();
            }
        });
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
        if let Ok(style) = ProgressStyle::with_template("  {bar:40} {bytes}/{total_bytes} {msg} {eta}") {
            bar.set_style(style);
        }
        let ended = import(&bus, &job, &stop, None, |p| {
            bar.set_length(p.bytes_total);
            bar.set_position(p.bytes_read);
            bar.set_message(format!("{} facts", p.facts));
        })
        .await;
        bar.finish_and_clear();
        let p = ended.with_context(|| format!("import into {}", stream::raw(&args.venue)))?;
        let new = p.facts - p.facts_found;
        if json {
            println!("{}", json!({"finished": p.finished, "facts": p.facts, "new": new, "found": p.facts_found}));
        } else {
            let word = if p.finished { "the recording is stored" } else { "stopped; run it again to go on" };
            println!("{word}: {new} new facts, {} were there", p.facts_found);
        }
        Ok(())
    })
}

/// The venue's configuration with the arguments over it.
fn job(args: &Args) -> anyhow::Result<Job> {
    let config = Config::load(None)?;
    let mut settings = config.venues.get(&args.venue).cloned().unwrap_or_default();
    settings.source = if args.form == "trades" { Source::Trades } else { Source::Recording };
    settings.enabled = true;
    settings.files = args.files.clone();
    settings.symbol = args.symbol.clone();
    settings.speed = args.speed;
    settings.flush_open = args.flush_open;
    ingest::config::check_venue(&args.venue, &settings)?;
    Ok(Job::of(&args.venue, &settings, &config, schemas::subject::PARTITIONS))
}
