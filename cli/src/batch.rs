//! The cores over files: `normalize`, `book`, `candles`, `indicators`, `backtest`. Files may be gzipped.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use backtest::report::Background;
use backtest::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
use flate2::read::MultiGzDecoder;
use ingest::normalize::Snapshot;
use schemas::{Decimal, Timeframe};

/// Opens a file, unpacking it when it is gzip by its first two bytes.
pub fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut magic = [0u8; 2];
    let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).with_context(|| format!("read {}", path.display()))?;
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::with_capacity(1 << 18, file))
    })
}

/// `tapeline normalize`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline normalize --venue binance --market usdm frames.jsonl")]
pub struct NormalizeArgs {
    /// binance or deribit
    #[arg(long)]
    venue: String,
    /// Market of the venue: spot, usdm, coinm; `default` where it has one
    #[arg(long, default_value = "default")]
    market: String,
    /// How a line holds a frame: text, or hex for binary frames
    #[arg(long, default_value = "text", value_parser = ["text", "hex"])]
    encoding: String,
    /// One message a line
    file: PathBuf,
}

pub fn normalize(args: NormalizeArgs) -> anyhow::Result<()> {
    let what = || format!("normalize {}", args.file.display());
    ingest::normalize::normalize(
        &args.venue,
        &args.market,
        &args.encoding,
        open(&args.file)?,
        BufWriter::new(stdout().lock()),
    )
    .with_context(what)
}

/// `tapeline book`
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tapeline book --venue binance --market spot --snapshot depth.json --snapshot-after 54 frames.jsonl"
)]
pub struct BookArgs {
    /// binance or deribit
    #[arg(long)]
    venue: String,
    #[arg(long, default_value = "default")]
    market: String,
    /// REST book that the deltas are applied to
    #[arg(long, requires = "snapshot_after")]
    snapshot: Option<PathBuf>,
    /// After how many messages it arrived
    #[arg(long, requires = "snapshot")]
    snapshot_after: Option<usize>,
    /// One message a line
    file: PathBuf,
}

pub fn book(args: BookArgs) -> anyhow::Result<()> {
    let body = match &args.snapshot {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None => String::new(),
    };
    let snapshot = args.snapshot_after.map(|after| Snapshot { body: &body, after });
    let what = || format!("follow the book in {}", args.file.display());
    ingest::normalize::book(&args.venue, &args.market, snapshot, open(&args.file)?, BufWriter::new(stdout().lock()))
        .with_context(what)
}

/// `tapeline candles`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline candles --timeframe 5m --fill day.trades.csv.gz > day.5m.csv")]
pub struct CandlesArgs {
    /// 1s, 1m, 3m, 5m, 15m, 1h, 4h, 1d or any other whole number of s, m, h, d
    #[arg(long)]
    timeframe: Timeframe,
    /// A row for intervals without a trade too
    #[arg(long)]
    fill: bool,
    /// CSV: seq,ts_ns,trade_id,price,qty,side
    file: PathBuf,
}

pub fn candles(args: CandlesArgs, json: bool) -> anyhow::Result<()> {
    let what = || format!("fold {}", args.file.display());
    let mut out = BufWriter::new(stdout().lock());
    if !json {
        return aggregate::batch::candles_csv(args.timeframe, args.fill, open(&args.file)?, out).with_context(what);
    }
    let mut written = Ok(());
    aggregate::batch::candles(&[args.timeframe], args.fill, open(&args.file)?, |candle| {
        if written.is_ok() {
            written =
                serde_json::to_writer(&mut out, &candle).map_err(std::io::Error::from).and_then(|()| writeln!(out));
        }
    })
    .with_context(what)?;
    written.and_then(|()| out.flush()).context("write")
}

/// `tapeline indicators`
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tapeline indicators day.5m.csv > day.5m.indicators.csv")]
pub struct IndicatorsArgs {
    /// CSV: open_ts_ms,open,high,low,close,volume
    file: PathBuf,
}

pub fn indicators(args: IndicatorsArgs) -> anyhow::Result<()> {
    let what = || format!("indicators of {}", args.file.display());
    aggregate::frames::indicators_csv(open(&args.file)?, BufWriter::new(stdout().lock())).with_context(what)
}

/// `tapeline backtest`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline backtest --trades day.trades.csv.gz --strategy ema_cross --timeframe 1m --out report/
  tapeline backtest --candles btc.5m.csv.gz --strategy ema_cross_9_21 --sizing equity:0.5 --out report/
  tapeline backtest --trades day.trades.csv.gz --strategy supertrend --param confirm_bars=2 --fill-model book

The same cores as live, on one queue: two runs of the same files give the same hash.")]
pub struct BacktestArgs {
    /// CSV of candles: open_ts_ms,open,high,low,close,volume
    #[arg(long, required_unless_present = "trades", conflicts_with = "trades")]
    candles: Option<PathBuf>,
    /// CSV of trades: seq,ts_ns,trade_id,price,qty,side
    #[arg(long)]
    trades: Option<PathBuf>,
    /// A strategy of the registry, or a short name with periods such as ema_cross_9_21
    #[arg(long)]
    strategy: StrategyChoice,
    /// A parameter of the strategy, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    param: Vec<String>,
    /// Candles that the strategy looks at (trades only)
    #[arg(long, default_value = "1m")]
    timeframe: Timeframe,
    /// next-open (candles), next-trade or book; default: next-open over candles, next-trade over trades
    #[arg(long)]
    fill_model: Option<String>,
    /// fixed:<units> or equity:<share>; without it risk decides, with its limits
    #[arg(long)]
    sizing: Option<Sizing>,
    /// Fee of a side, in 0.01 % of the notional
    #[arg(long, default_value = "5")]
    fee_bps: Decimal,
    /// Taker fills are worse by this much, in 0.01 %
    #[arg(long, default_value = "0")]
    slippage_bps: Decimal,
    /// From decision to venue (trades only), in ms of event time
    #[arg(long, default_value_t = 50)]
    latency_ms: i64,
    /// Money at the start
    #[arg(long, default_value = "100000")]
    initial_cash: Decimal,
    /// Your tapeline.toml: [risk], [executor] and [aggregate] count
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder for report.html, report.json, trades.csv, equity.csv and stats.json
    #[arg(long)]
    out: PathBuf,
}

pub fn backtest(args: BacktestArgs, json: bool) -> anyhow::Result<()> {
    let strategy = args.param.iter().try_fold(args.strategy, |choice, text| choice.param(text))?;
    let bar = if json { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new_spinner() };
    let show = |p: backtest::Progress| {
        if let Some(total) = p.total {
            bar.set_length(total);
        }
        bar.set_position(p.done);
        bar.set_message(format!("{}  {} fills", crate::records::time_text(p.ts_ns), p.fills));
    };
    let style = indicatif::ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} {per_sec} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    let (report, background) = match (args.candles, args.trades) {
        (Some(candles), _) => {
            if let Some(model) = args.fill_model.as_deref().filter(|m| *m != "next-open") {
                anyhow::bail!("--fill-model {model}: over candles there is next-open; {model} needs --trades");
            }
            let user = crate::config_cmd::user_file(args.config.as_deref())?;
            let (fee_bps, slippage_bps) = (args.fee_bps, args.slippage_bps);
            let options = CandleOptions {
                candles,
                strategy,
                sizing: args.sizing,
                fee_bps,
                slippage_bps,
                initial_cash: args.initial_cash,
                user,
            };
            (backtest::run_candles(&options, show)?, Background::of_candles(&options)?)
        }
        (None, Some(trades)) => {
            let mut options = TradeOptions::new(trades, strategy);
            options.timeframe = args.timeframe;
            options.fill_model = backtest::options::fill_model(args.fill_model.as_deref().unwrap_or("next-trade"))?;
            options.latency_ns = args.latency_ms * schemas::Nanos::PER_MS;
            options.sizing = args.sizing;
            options.fee_bps = args.fee_bps;
            options.slippage_bps = args.slippage_bps;
            options.initial_cash = args.initial_cash;
            options.user = crate::config_cmd::user_file(args.config.as_deref())?;
            (backtest::run_trades(&options, show)?, Background::of_trades(&options)?)
        }
        (None, None) => anyhow::bail!("name a file with --candles or --trades"),
    };
    bar.finish_and_clear();
    report.write_with(&args.out, &background)?;
    let stats = serde_json::to_value(&report.stats).context("write the statistics")?;
    if json {
        println!(
            "{}",
            serde_json::json!({"stats": stats, "facts": report.facts, "hash": report.hash, "kinds": report.kinds, "out": args.out})
        );
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    for (name, value) in stats.as_object().into_iter().flatten() {
        table.add_row([name.clone(), value.to_string()]);
    }
    println!("{table}\n{} facts, hash {}\nwritten to {}", report.facts, report.hash, args.out.display());
    Ok(())
}
