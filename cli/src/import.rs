//! `tapeline import`: a recording or files of trades into RAW_<VENUE>, or an export into its streams; resumable, with
//! progress.

use std::path::PathBuf;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ingest::config::{Config, Source};
use ingest::source::{Job, import};
use schemas::subject::stream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::export::restore;
use crate::target;

/// `tapeline import`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline import --venue binance --form recording btcusdt_20240808.gz btcusdt_20240809.gz
  tapeline import --venue bitmex --symbol XBTUSD --form trades XBTUSD.trades.csv.gz
  tapeline import --venue eod --form files --describe ingest/examples/venues/daily-csv.toml 2024.csv 2025.csv
  tapeline import --form tables archive/           what `tapeline export` wrote, at the same sequences")]
pub struct Args {
    /// Venue id: the recording is stored in RAW_<VENUE>
    #[arg(long, default_value = "", required_if_eq_any([("form", "recording"), ("form", "trades"), ("form", "files")]))]
    venue: String,
    /// recording: lines of `<receive ns> <frame>`; trades: CSV seq,ts_ns,trade_id,price,qty,side; files: rows as --describe
    /// says; tables: folders of `tapeline export`
    #[arg(long, value_parser = ["recording", "trades", "files", "tables"])]
    form: String,
    /// Description of a venue that is not built in
    #[arg(long, default_value = "", required_if_eq("form", "files"))]
    describe: String,
    /// Symbol, where the files do not tell it
    #[arg(long, default_value = "")]
    symbol: String,
    /// 0 at once, 1 as recorded, 10 ten times as fast
    #[arg(long, default_value_t = 0.0)]
    speed: f64,
    /// Close the candles that are open at the end
    #[arg(long)]
    flush_open: bool,
    /// Files in order, plain or gzip; folders of an export
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    if args.form == "tables" {
        return tables(&args.files, data, json);
    }
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

/// Every stream of these exports, one behind the other.
fn tables(dirs: &[PathBuf], data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let mut folders = Vec::new();
    for dir in dirs {
        folders.extend(restore::folders(dir)?);
    }
    target::block_on(async {
        let bus = target::operator_bus(data).await?;
        let mut done = Vec::new();
        for folder in &folders {
            let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
            if let Ok(style) = ProgressStyle::with_template("  {msg} {bar:40} {human_pos}/{human_len} {per_sec} {eta}")
            {
                bar.set_style(style);
            }
            bar.set_message(folder.display().to_string());
            let progress = |done: u64, total: u64| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let restored = restore::restore(&bus, folder, progress).await;
            bar.finish_and_clear();
            done.push(restored.with_context(|| format!("import {}", folder.display()))?);
        }
        if json {
            println!("{}", json!({ "streams": done }));
            return Ok(());
        }
        let mut shown = comfy_table::Table::new();
        shown.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY).set_header([
            "stream",
            "first",
            "last",
            "rows in",
            "messages out",
            "stored now",
            "bytes",
        ]);
        for r in &done {
            let counts = [r.first_seq, r.last_seq, r.rows, r.messages, r.stored].map(|n| n.to_string());
            shown.add_row([r.stream.clone()].into_iter().chain(counts).chain(["identical".to_owned()]));
        }
        println!("{shown}");
        Ok(())
    })
}

/// The venue's configuration with the arguments over it.
fn job(args: &Args) -> anyhow::Result<Job> {
    let config = Config::load(None)?;
    let mut settings = config.venues.get(&args.venue).cloned().unwrap_or_default();
    settings.source = match args.form.as_str() {
        "trades" => Source::Trades,
        "files" => Source::Files,
        _ => Source::Recording,
    };
    if !args.describe.is_empty() {
        ingest::config::describe(&args.venue, &args.describe)?;
        settings.describe = args.describe.clone();
    }
    settings.enabled = true;
    settings.files = args.files.clone();
    settings.symbol = args.symbol.clone();
    settings.speed = args.speed;
    settings.flush_open = args.flush_open;
    ingest::config::check_venue(&args.venue, &settings)?;
    Ok(Job::of(&args.venue, &settings, &config, schemas::subject::PARTITIONS))
}
