//! `tapeline backtest`: the cores of the pipeline over a tape, in one process.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use backtest::lookahead::{self, Cut, Trials, Verdict};
use backtest::report::Background;
use backtest::source::{Between, Piece, TradesFile, trades_tape};
use backtest::{CandleOptions, Report, Setup, Sizing, StrategyChoice, Tape};
use nats::Bus;
use schemas::{Decimal, Nanos, Price, Timeframe};

use crate::stream_tape::{Range, StreamTape};
use crate::target;

/// `tapeline backtest`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline backtest --trades day.trades.csv.gz --strategy ema_cross --timeframe 1m --out report/
  tapeline backtest --candles btc.5m.csv.gz --strategy ema_cross_9_21 --sizing equity:0.5 --out report/
  tapeline backtest --trades day.trades.csv.gz --strategy supertrend --param confirm_bars=2 --fill-model book
  tapeline backtest --from-stream RAW_BINANCE --config tapeline.toml --out report/     what a live desk would have done
  tapeline backtest --from-stream RAW_BINANCE --seq 1000..250000 --strategy ema_cross --out report/
  tapeline backtest --tape btc.parquet --tape eth.parquet --strategy ema_cross --out report/
  tapeline backtest --trades day.trades.csv.gz --strategy supertrend --check-lookahead

The same cores as live, on one queue: two runs of the same files give the same hash. Without --strategy every rule,
timeframe and indicator of your configuration plays; with it, that strategy and what it looks at.
--check-lookahead plays the tape cut short and started late: exit 1 when a fact before a cut changes.")]
pub struct Args {
    /// CSV of candles: open_ts_ms,open,high,low,close,volume
    #[arg(long, group = "source", requires = "strategy")]
    candles: Option<PathBuf>,
    /// CSV of trades: seq,ts_ns,trade_id,price,qty,side; several files are merged by time
    #[arg(long, group = "source", num_args = 1..)]
    trades: Vec<PathBuf>,
    /// Parquet of trades, one instrument a file, as `tapeline export` writes them; may be repeated
    #[arg(long, group = "source", num_args = 1..)]
    tape: Vec<PathBuf>,
    /// A raw stream of the running pipeline (or of NATS_URL), such as RAW_BINANCE; may be repeated
    #[arg(long, group = "source", value_name = "STREAM")]
    from_stream: Vec<String>,
    /// Messages A to B of the stream, both included
    #[arg(long, value_name = "A..B", requires = "from_stream", conflicts_with_all = ["candles", "trades", "tape"])]
    seq: Option<SeqRange>,
    /// From this event time on: 2024-08-08, 2024-08-08T23:54:00Z or nanoseconds
    #[arg(long, value_parser = time_ns, conflicts_with = "candles")]
    from: Option<i64>,
    /// Before this event time
    #[arg(long, value_parser = time_ns, conflicts_with = "candles")]
    to: Option<i64>,
    /// A strategy of the registry, or a short name with periods such as ema_cross_9_21; default: all configured rules
    #[arg(long)]
    strategy: Option<StrategyChoice>,
    /// A parameter of the strategy, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "strategy")]
    param: Vec<String>,
    /// Candles that the strategy looks at (not with --candles, whose own length counts)
    #[arg(long, default_value = "1m")]
    timeframe: Timeframe,
    /// next-open (candles), next-trade or book; default: next-open over candles, next-trade over files of trades, as
    /// configured over streams and without --strategy
    #[arg(long)]
    fill_model: Option<String>,
    /// fixed:<units> or equity:<share>; without it risk decides, with its limits
    #[arg(long)]
    sizing: Option<Sizing>,
    /// Fee of a side, in 0.01 % of the notional [default: 5 with --strategy, else as configured]
    #[arg(long)]
    fee_bps: Option<Decimal>,
    /// Taker fills are worse by this much, in 0.01 % [default: 0 with --strategy, else as configured]
    #[arg(long)]
    slippage_bps: Option<Decimal>,
    /// From decision to venue, in ms of event time [default: as configured, 50]
    #[arg(long)]
    latency_ms: Option<i64>,
    /// Money at the start [default: 100000 with --strategy, else as configured]
    #[arg(long)]
    initial_cash: Option<Decimal>,
    /// Order books of the stream reach the executor; a live desk carries quotes only
    #[arg(long, requires = "from_stream", conflicts_with_all = ["candles", "trades", "tape"])]
    books: bool,
    /// Do not hash what is said: a little faster
    #[arg(long)]
    no_hash: bool,
    /// Your tapeline.toml: the same tables as live
    #[arg(long)]
    config: Option<PathBuf>,
    /// Try whether a strategy looks ahead, and how long it must warm up
    #[arg(long, conflicts_with = "candles")]
    check_lookahead: bool,
    /// Folder for report.html, report.json, trades.csv, equity.csv and stats.json
    #[arg(long, required_unless_present = "check_lookahead")]
    out: Option<PathBuf>,
}

/// `A..B`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeqRange(u64, u64);

impl std::str::FromStr for SeqRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range of sequences from 1 on, such as 1000..250000");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let count = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        let (from, to) = (count(from)?, count(to)?);
        if to < from { Err(wrong()) } else { Ok(Self(from, to)) }
    }
}

/// RFC 3339, a day (UTC), or nanoseconds since 1970.
fn time_ns(text: &str) -> Result<i64, String> {
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let at = time::OffsetDateTime::parse(&full, &time::format_description::well_known::Rfc3339);
    let at = at.map_err(|_| format!("`{text}` is no time: 2024-08-08, 2024-08-08T23:54:00Z or nanoseconds"))?;
    i64::try_from(at.unix_timestamp_nanos()).map_err(|_| format!("`{text}` is beyond the years 1678 to 2262"))
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let strategy = match &args.strategy {
        Some(choice) => Some(args.param.iter().try_fold(choice.clone(), |choice, text| choice.param(text))?),
        None => None,
    };
    if let Some(candles) = &args.candles {
        return over_candles(&args, candles.clone(), strategy.context("--candles needs --strategy")?, json);
    }
    ensure!(
        !(args.trades.is_empty() && args.tape.is_empty() && args.from_stream.is_empty()),
        "name a source: --candles, --trades, --tape or --from-stream"
    );
    let setup = setup(&args, strategy.as_ref())?;
    if args.from_stream.is_empty() {
        return over_tape(&args, &setup, &|| files_tape(&args, &setup), json);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bus = runtime.block_on(target::operator_bus(data))?;
    over_tape(&args, &setup, &|| runtime.block_on(stream_tape(&args, &setup, &bus)), json)
}

/// The cores that play: as configured, with the options laid over.
fn setup(args: &Args, strategy: Option<&StrategyChoice>) -> anyhow::Result<Setup> {
    let user = crate::config_cmd::user_file(args.config.as_deref())?;
    let mut setup = Setup::of(user.as_ref())?;
    let alone = strategy.is_some();
    if let Some(choice) = strategy {
        setup = setup.with_strategy(choice, args.timeframe)?;
    }
    // One strategy for itself is compared with others on plain terms; a whole configuration keeps its own.
    let plain = |given: Option<Decimal>, default: i64| given.or(alone.then(|| Decimal::from(default)));
    if let Some(fee_bps) = plain(args.fee_bps, 5) {
        setup = setup.with_fee(fee_bps);
    }
    if let Some(slippage_bps) = plain(args.slippage_bps, 0) {
        setup.executor.fill.slippage_bps = Price::new(slippage_bps);
    }
    if let Some(cash) = plain(args.initial_cash, 100_000) {
        setup = setup.with_cash(cash);
    }
    if let Some(latency_ms) = args.latency_ms {
        setup.executor.fill.latency_ns = latency_ms.saturating_mul(Nanos::PER_MS);
    }
    match &args.fill_model {
        Some(model) => setup.executor.fill.model = backtest::options::fill_model(model)?,
        None if alone && args.from_stream.is_empty() => setup.executor.fill.model = "next_trade".to_owned(),
        None => {}
    }
    setup = setup.with_sizing(args.sizing);
    setup.books = args.books;
    setup.hash = !args.no_hash;
    setup.executor.check()?;
    Ok(setup)
}

fn files_tape(args: &Args, setup: &Setup) -> anyhow::Result<Box<dyn Tape>> {
    let grace_ns = |venue: &str| setup.aggregate.grace_ns(venue);
    let timeframe = setup.timeframe_min();
    let tape = if args.tape.is_empty() {
        let files: Vec<TradesFile> = args.trades.iter().map(|path| TradesFile::of(path)).collect();
        trades_tape(&files, timeframe, grace_ns)?
    } else {
        backtest::parquet::tape(&args.tape, timeframe, grace_ns)?
    };
    Ok(Box::new(Between::new(tape, args.from, args.to)))
}

async fn stream_tape(args: &Args, setup: &Setup, bus: &Bus) -> anyhow::Result<Box<dyn Tape>> {
    let range = match args.seq {
        Some(_) if args.from_stream.len() > 1 => bail!("--seq is of one stream; name one --from-stream"),
        Some(SeqRange(from_seq, to_seq)) => Range { from_seq, to_seq: Some(to_seq) },
        None => Range::ALL,
    };
    let tape = StreamTape::open(bus, &args.from_stream, range, setup.books).await?;
    Ok(Box::new(Between::new(tape, args.from, args.to)))
}

type MakeTape<'a> = dyn Fn() -> anyhow::Result<Box<dyn Tape>> + 'a;

fn over_tape(args: &Args, setup: &Setup, tape: &MakeTape<'_>, json: bool) -> anyhow::Result<()> {
    if args.check_lookahead {
        return check(setup, tape, json);
    }
    let bar = Bar::new(json);
    let mut background = Background::of_tape(setup, args.strategy.as_ref(), &source_name(args));
    let report = backtest::play_before(setup, &mut *tape()?, Some(&mut background), |p| bar.show(p))?;
    bar.0.finish_and_clear();
    show(args, &report, &background, json)
}

/// What is played, without the folders: a report holds no paths of a machine.
fn source_name(args: &Args) -> String {
    let files = args.trades.iter().chain(&args.tape).filter_map(|path| path.file_name());
    let names = files.map(|name| name.to_string_lossy().into_owned()).chain(args.from_stream.iter().cloned());
    names.collect::<Vec<_>>().join(", ")
}

fn over_candles(args: &Args, candles: PathBuf, strategy: StrategyChoice, json: bool) -> anyhow::Result<()> {
    if let Some(model) = args.fill_model.as_deref().filter(|m| *m != "next-open") {
        bail!("--fill-model {model}: over candles there is next-open; {model} needs --trades");
    }
    let options = CandleOptions {
        candles,
        strategy,
        sizing: args.sizing,
        fee_bps: args.fee_bps.unwrap_or(Decimal::from(5)),
        slippage_bps: args.slippage_bps.unwrap_or_default(),
        initial_cash: args.initial_cash.unwrap_or(Decimal::from(100_000)),
        user: crate::config_cmd::user_file(args.config.as_deref())?,
    };
    let bar = Bar::new(json);
    let report = backtest::run_candles(&options, |p| bar.show(p))?;
    bar.0.finish_and_clear();
    show(args, &report, &Background::of_candles(&options)?, json)
}

/// Progress of a run.
struct Bar(indicatif::ProgressBar);

impl Bar {
    fn new(json: bool) -> Self {
        let bar = if json { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new_spinner() };
        if let Ok(style) = indicatif::ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} {per_sec} {msg}")
        {
            bar.set_style(style);
        }
        Self(bar)
    }
    fn show(&self, p: backtest::Progress) {
        if let Some(total) = p.total {
            self.0.set_length(total);
        }
        self.0.set_position(p.done);
        self.0.set_message(format!("{}  {} fills", crate::records::time_text(p.ts_ns), p.fills));
    }
}

fn show(args: &Args, report: &Report, background: &Background, json: bool) -> anyhow::Result<()> {
    let out = args.out.as_ref().context("--out names the folder of the report")?;
    report.write_with(out, background)?;
    let stats = serde_json::to_value(&report.stats).context("write the statistics")?;
    if json {
        println!(
            "{}",
            serde_json::json!({"stats": stats, "facts": report.facts, "hash": report.hash, "kinds": report.kinds, "refusals": report.refusals, "out": out})
        );
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    for (name, value) in stats.as_object().into_iter().flatten() {
        table.add_row([name.clone(), value.to_string()]);
    }
    let hash = if report.hash.is_empty() { "not hashed".to_owned() } else { format!("hash {}", report.hash) };
    println!("{table}\n{} facts, {hash}\nwritten to {}", report.facts, out.display());
    Ok(())
}

/// `--check-lookahead`: exit 1 when a fact before a cut changes.
fn check(setup: &Setup, tape: &MakeTape<'_>, json: bool) -> anyhow::Result<()> {
    let make = |cut: Cut| -> anyhow::Result<(Setup, Box<dyn Tape>)> {
        // A cut tape ends for whoever reads it: its end is no secret of the check.
        Ok((setup.clone(), Box::new(Piece::new(tape()?, 0, cut.skip.saturating_add(cut.take)))))
    };
    let bar = Bar::new(json);
    let verdict = lookahead::check(&make, Trials::default(), |done, of| {
        bar.0.set_length(of);
        bar.0.set_position(done);
    })?;
    bar.0.finish_and_clear();
    if json {
        let clean = verdict.is_clean();
        println!("{}", serde_json::json!({"clean": clean, "converges": verdict.converges(), "verdict": verdict}));
    } else {
        print_verdict(&verdict);
    }
    ensure!(verdict.is_clean(), "what was said before a cut changes with what lies behind it: somebody looks ahead");
    Ok(())
}

fn print_verdict(verdict: &Verdict) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["who", "facts compared", "looks ahead", "warm-up in bars, from each start"]);
    for (name, group) in &verdict.groups {
        let ahead = match &group.difference {
            Some(difference) => format!("YES, at fact {} of the tape", difference.tape_fact),
            None => "no".to_owned(),
        };
        let bars = |w: &lookahead::WarmUp| w.bars.map_or("not shown".to_owned(), |bars| bars.to_string());
        let warm_up: Vec<String> = group.warm_up.iter().map(bars).collect();
        table.add_row([name.clone(), group.compared.to_string(), ahead, warm_up.join(", ")]);
    }
    println!("{table}\n{} facts of the tape, cut at {:?}", verdict.tape_facts, verdict.ends);
    for (name, group) in &verdict.groups {
        let Some(difference) = &group.difference else { continue };
        println!("{name}: the first fact that differs, with the tape cut at fact {}", difference.end);
        for (what, fact) in [("whole tape", &difference.whole), ("cut tape", &difference.cut)] {
            match fact {
                Some(f) => println!("  {what}: {} {} {}", f.place, f.subject, f.fact),
                None => println!("  {what}: nothing"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_instants_or_nanoseconds() {
        assert_eq!(time_ns("1970-01-02"), Ok(86_400 * Nanos::PER_SECOND));
        assert_eq!(time_ns("1970-01-01T00:00:01.5Z"), Ok(1_500 * Nanos::PER_MS));
        assert_eq!(time_ns("77"), Ok(77));
        assert!(time_ns("yesterday").unwrap_err().contains("2024-08-08"));
    }

    #[test]
    fn a_range_of_sequences_starts_at_one_and_does_not_go_back() {
        assert_eq!("7..9".parse(), Ok(SeqRange(7, 9)));
        for text in ["0..9", "9..7", "7", "7..", "a..b"] {
            assert!(text.parse::<SeqRange>().unwrap_err().contains("1000..250000"), "{text}");
        }
    }
}
