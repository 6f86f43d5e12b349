//! `tapeline sweep`: one strategy over a grid of parameters, what luck makes of the best, and walk-forward.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use backtest::sweep::{self, Axis, Play, Trial, page};
use backtest::walk::{Lengths, WalkForward, walk};
use backtest::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
use indicatif::{ProgressBar, ProgressStyle};
use schemas::{Decimal, Timeframe};
use serde_json::{Value, json};

/// `tapeline sweep`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline sweep --candles btc.5m.csv.gz --strategy ema_cross --param fast=5..20..5 --param slow=20,40,80 --out sweep/
  tapeline sweep --trades day.trades.csv.gz --strategy ema_cross --timeframe 5s --param fast=3..9..2 --param slow=20,40 --by calmar --out sweep/
  tapeline sweep --candles btc.5m.csv.gz --strategy ema_cross --param fast=5,10 --param slow=20,40 --walk-forward train=30d,test=10d --out sweep/

Every trial is a whole backtest. The best of many trials is partly luck: the deflated Sharpe ratio and the probability of
overfitting say how much.")]
pub struct Args {
    /// CSV of candles: open_ts_ms,open,high,low,close,volume
    #[arg(long, required_unless_present = "trades", conflicts_with = "trades")]
    candles: Option<PathBuf>,
    /// CSV of trades: seq,ts_ns,trade_id,price,qty,side
    #[arg(long)]
    trades: Option<PathBuf>,
    /// A strategy of the registry
    #[arg(long)]
    strategy: StrategyChoice,
    /// A parameter and its values: key=from..to..step or key=value,value; may be repeated
    #[arg(long, value_name = "KEY=VALUES", required = true)]
    param: Vec<Axis>,
    /// Candles that the strategy looks at (trades only)
    #[arg(long, default_value = "1m")]
    timeframe: Timeframe,
    /// next-trade or book (trades only)
    #[arg(long, default_value = "next-trade", conflicts_with = "candles")]
    fill_model: String,
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
    /// Which statistic of stats.json is the best's; the larger the better, or the smaller: -max_drawdown
    #[arg(long, default_value = "sharpe_bar", allow_hyphen_values = true)]
    by: String,
    /// Choose on the train window, trade the next one, and so on: train=30d,test=10d
    #[arg(long, value_name = "LENGTHS")]
    walk_forward: Option<Lengths>,
    /// Backtests at the same time; 0: as many as the machine has cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// More combinations than this are refused
    #[arg(long, default_value_t = 2_000)]
    trials_max: usize,
    /// Rows of the table on the terminal
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Folder for sweep.html, sweep.csv and sweep.json
    #[arg(long)]
    out: PathBuf,
}

/// Statistics in the table on the terminal.
const COLUMNS: [&str; 5] = ["total_return", "max_drawdown", "sharpe_bar", "profit_factor", "closed_trades"];

pub fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let play = play(&args)?;
    let mut keys = BTreeSet::new();
    for axis in &args.param {
        if !keys.insert(axis.key.as_str()) {
            bail!("--param {}: it is given twice; name all of its values in one", axis.key);
        }
    }
    let grid = sweep::grid(&args.param, args.trials_max)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.threads == 0 { cores } else { args.threads };
    let bar = bar(json, "trials");
    bar.set_length(grid.len() as u64);
    let trials = sweep::run(&play, &grid, threads, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let order = sweep::ranked(&trials, &args.by);
    let Some(best) = order.first().copied().filter(|i| trials[*i].outcome.is_ok()) else {
        let why = trials.iter().find_map(|t| t.outcome.as_ref().err()).map_or("the grid is empty", String::as_str);
        bail!("none of {} combinations runs; the first says: {why}", grid.len());
    };
    known(&trials[best], &args.by)?;
    let verdict = sweep::verdict(&trials, best);
    let walked = match args.walk_forward {
        None => None,
        Some(lengths) => {
            let bar = self::bar(json, "walk-forward trials");
            let progress = |done: usize, all: usize| {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
            };
            let walked = walk(&play, &grid, lengths, &args.by, threads, progress);
            bar.finish_and_clear();
            Some(walked.context("walk forward")?)
        }
    };

    let file = args.candles.as_ref().or(args.trades.as_ref()).and_then(|path| path.file_name());
    let file = file.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let title = format!("{} on {file}", play.strategy().kind);
    let sizing = match args.sizing {
        None => "sized by risk".to_owned(),
        Some(Sizing::Fixed(units)) => format!("{units} units"),
        Some(Sizing::Equity(share)) => format!("{share} of the equity"),
    };
    let about = format!(
        "{sizing}, fee {} bps a side, slippage {} bps, initial cash {}",
        args.fee_bps, args.slippage_bps, args.initial_cash
    );
    let sweep = page::Sweep {
        title: &title,
        about: &about,
        axes: &args.param,
        trials: &trials,
        by: &args.by,
        verdict: &verdict,
        walk: walked.as_ref(),
        initial_cash: args.initial_cash.to_string().parse().unwrap_or(f64::NAN),
    };
    let document = document(&args, &trials, &order, &verdict, walked.as_ref())?;
    write(&args.out, "sweep.html", page::html(&sweep).as_bytes())?;
    write(&args.out, "sweep.json", &serde_json::to_vec_pretty(&document)?)?;
    write(&args.out, "sweep.csv", csv(&args.param, &trials)?.as_bytes())?;
    if json {
        println!("{document}");
        return Ok(());
    }
    println!("{}", table(&args, &trials, &order));
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
    println!(
        "{} trials ran; of the best: probabilistic Sharpe {}, deflated {}; probability of overfitting {}",
        verdict.trials,
        number(verdict.probabilistic_sharpe),
        number(verdict.deflated_sharpe),
        number(verdict.overfitting_probability)
    );
    for warning in &verdict.warnings {
        println!("warning: {warning}");
    }
    if let Some(w) = &walked {
        println!(
            "walk forward, out of sample: {:.2} % return, {:.2} % max drawdown, {} trades in {} windows, efficiency {}",
            w.total_return * 100.0,
            w.max_drawdown * 100.0,
            w.test_trades,
            w.steps.len(),
            number(w.efficiency)
        );
    }
    println!("written to {}", args.out.display());
    Ok(())
}

fn play(args: &Args) -> anyhow::Result<Play> {
    let user = crate::config_cmd::user_file(args.config.as_deref())?;
    Ok(match (&args.candles, &args.trades) {
        (Some(candles), _) => Play::Candles(CandleOptions {
            candles: candles.clone(),
            strategy: args.strategy.clone(),
            sizing: args.sizing,
            fee_bps: args.fee_bps,
            slippage_bps: args.slippage_bps,
            initial_cash: args.initial_cash,
            user,
        }),
        (None, Some(trades)) => {
            let mut options = TradeOptions::new(trades.clone(), args.strategy.clone());
            options.timeframe = args.timeframe;
            options.fill_model = backtest::options::fill_model(&args.fill_model)?;
            options.latency_ns = args.latency_ms * schemas::Nanos::PER_MS;
            options.sizing = args.sizing;
            options.fee_bps = args.fee_bps;
            options.slippage_bps = args.slippage_bps;
            options.initial_cash = args.initial_cash;
            options.user = user;
            Play::Trades(options)
        }
        (None, None) => bail!("name a file with --candles or --trades"),
    })
}

fn bar(json: bool, what: &'static str) -> ProgressBar {
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// The statistic is one of a backtest's.
fn known(trial: &Trial, by: &str) -> anyhow::Result<()> {
    let Ok(outcome) = &trial.outcome else { return Ok(()) };
    let stats = serde_json::to_value(&outcome.stats)?;
    if stats.get(by.trim_start_matches('-')).is_none() {
        let names: Vec<&str> = stats.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        bail!("--by {by}: allowed are {}", names.join(", "));
    }
    Ok(())
}

fn params(trial: &Trial) -> Value {
    let value = |v: &toml::Value| serde_json::to_value(v).unwrap_or(Value::Null);
    Value::Object(trial.params.iter().map(|(key, v)| (key.clone(), value(v))).collect())
}

fn document(
    args: &Args,
    trials: &[Trial],
    order: &[usize],
    verdict: &sweep::Verdict,
    walked: Option<&WalkForward>,
) -> anyhow::Result<Value> {
    let one = |i: &usize| match &trials[*i].outcome {
        Ok(o) => json!({ "params": params(&trials[*i]), "stats": o.stats, "hash": o.hash }),
        Err(why) => json!({ "params": params(&trials[*i]), "error": why }),
    };
    Ok(json!({
        "by": args.by,
        "verdict": verdict,
        "trials": order.iter().map(one).collect::<Vec<_>>(),
        "walk_forward": serde_json::to_value(walked)?,
        "out": args.out,
    }))
}

/// A row a trial in the order of the grid: parameters, every statistic, the run's hash, the error.
fn csv(axes: &[Axis], trials: &[Trial]) -> anyhow::Result<String> {
    let outcomes = trials.iter().filter_map(|t| t.outcome.as_ref().ok());
    let stats: Vec<Value> = outcomes.map(|o| serde_json::to_value(&o.stats)).collect::<Result<_, _>>()?;
    let names: Vec<String> =
        stats.first().and_then(Value::as_object).into_iter().flatten().map(|(n, _)| n.clone()).collect();
    let mut out = csv::Writer::from_writer(Vec::new());
    let header = axes.iter().map(|a| a.key.as_str()).chain(names.iter().map(String::as_str)).chain(["hash", "error"]);
    out.write_record(header)?;
    let mut stats = stats.iter();
    for trial in trials {
        let mut row: Vec<String> = axes.iter().map(|a| sweep::shown(&trial.params[&a.key])).collect();
        match &trial.outcome {
            Ok(outcome) => {
                let of = stats.next();
                let text = |v: Option<&Value>| v.filter(|v| !v.is_null()).map(Value::to_string).unwrap_or_default();
                row.extend(names.iter().map(|n| text(of.and_then(|of| of.get(n)))));
                row.extend([outcome.hash.clone(), String::new()]);
            }
            Err(why) => {
                row.extend(names.iter().map(|_| String::new()));
                row.extend([String::new(), why.clone()]);
            }
        }
        out.write_record(&row)?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

fn table(args: &Args, trials: &[Trial], order: &[usize]) -> comfy_table::Table {
    let mut columns = COLUMNS.to_vec();
    if !columns.contains(&args.by.as_str()) {
        columns.insert(0, &args.by);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(args.param.iter().map(|a| a.key.as_str()).chain(columns.iter().copied()));
    for i in order.iter().take(args.top) {
        let trial = &trials[*i];
        let mut row: Vec<String> = args.param.iter().map(|a| sweep::shown(&trial.params[&a.key])).collect();
        match &trial.outcome {
            Ok(_) => row.extend(columns.iter().map(|name| page::cell(name, trial.score(name)))),
            Err(why) => row.push(why.clone()),
        }
        table.add_row(row);
    }
    table
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("make folder {}", dir.display()))?;
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
}
