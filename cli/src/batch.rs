//! The cores over files: `normalize`, `book`, `candles`, `indicators`. Files may be gzipped.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use ingest::normalize::Snapshot;
use schemas::Timeframe;

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
