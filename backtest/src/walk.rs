//! Walk-forward: parameters are chosen on a train window and then trade the window behind it, again and again. What the
//! test windows made, put together, is what the way of choosing would have made without knowing the future.
//!
//! * Windows roll: train `[t, t + train)`, test `[t + train, t + train + test)`, next t = t + test. The last test window
//!   may be shorter.
//! * Choosing sees a file that ends where the test window begins; there is nothing to look ahead into.
//! * A test window is played over train and test together, so that indicators are warm; only its bars count. A position
//!   that these parameters hold when the window begins is carried in.
//! * Stitched equity: each test bar changes it by the same share as it changed the window's own equity; with a fixed
//!   size, by the same money.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, ensure};
use flate2::read::MultiGzDecoder;
use schemas::Nanos;
use serde::Serialize;
use toml::Table;

use crate::options::{OptionError, Sizing};
use crate::report::Report;
use crate::sweep::{self, Play, Trial, score};

/// More windows than this are refused.
const WINDOWS_MAX: usize = 200;

/// Lengths in ms of event time: `train=30d,test=10d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lengths {
    pub train_ms: i64,
    pub test_ms: i64,
}

impl FromStr for Lengths {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let bad = || OptionError {
            option: "--walk-forward",
            value: text.to_owned(),
            allowed: "train=<length>,test=<length> in s, m, h or d, such as train=30d,test=10d".to_owned(),
        };
        let (mut train_ms, mut test_ms) = (None, None);
        for part in text.split(',') {
            match part.trim().split_once('=') {
                Some(("train", length)) => train_ms = length_ms(length),
                Some(("test", length)) => test_ms = length_ms(length),
                _ => return Err(bad()),
            }
        }
        Ok(Self { train_ms: train_ms.ok_or_else(bad)?, test_ms: test_ms.ok_or_else(bad)? })
    }
}

fn length_ms(text: &str) -> Option<i64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit_ms).filter(|ms| *ms > 0)
}

/// Times in ms, half-open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Window {
    pub train_from_ms: i64,
    pub test_from_ms: i64,
    pub test_to_ms: i64,
}

/// The windows of a tape from its first time to `end_ms`, which is behind its last one.
pub fn windows(first_ms: i64, end_ms: i64, lengths: Lengths) -> anyhow::Result<Vec<Window>> {
    let mut windows = Vec::new();
    let mut train_from_ms = first_ms;
    while train_from_ms + lengths.train_ms < end_ms {
        let test_from_ms = train_from_ms + lengths.train_ms;
        let test_to_ms = (test_from_ms + lengths.test_ms).min(end_ms);
        windows.push(Window { train_from_ms, test_from_ms, test_to_ms });
        ensure!(windows.len() <= WINDOWS_MAX, "more than {WINDOWS_MAX} windows: take a longer test window");
        train_from_ms += lengths.test_ms;
    }
    let held = end_ms - first_ms;
    ensure!(
        !windows.is_empty(),
        "the tape is {} s long, the train window {} s: nothing is left to test",
        held / 1_000,
        lengths.train_ms / 1_000
    );
    Ok(windows)
}

/// One window: what was chosen, and what it made.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Step {
    #[serde(flatten)]
    pub window: Window,
    pub params: Table,
    /// The statistic of the choice in its train window.
    pub train_score: Option<f64>,
    pub train_return: f64,
    pub test_return: f64,
    /// Closed trades that were opened in the test window.
    pub test_trades: usize,
}

/// See the module. Returns as ratios.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WalkForward {
    pub by: String,
    pub steps: Vec<Step>,
    /// Out of sample: (open of the bar in ms, equity at its close).
    pub equity: Vec<(i64, f64)>,
    pub total_return: f64,
    pub max_drawdown: f64,
    /// Of one bar.
    pub sharpe: Option<f64>,
    pub test_trades: usize,
    /// Return a day out of sample over return a day in the train windows; `None` where the latter is not positive.
    pub efficiency: Option<f64>,
    /// Windows in which no combination had the statistic; they are not traded.
    pub idle: usize,
}

/// Walks `play` forward over the grid; the best by the statistic `by` is chosen, the first of equals. `progress` hears
/// trials done and in all.
pub fn walk(
    play: &Play,
    grid: &[Table],
    lengths: Lengths,
    by: &str,
    threads: usize,
    progress: impl Fn(usize, usize) + Sync,
) -> anyhow::Result<WalkForward> {
    let (first_ms, last_ms) = times(play)?;
    let windows = windows(first_ms, last_ms + 1, lengths)?;
    let folder = tempfile::tempdir().context("make a folder for the windows")?;
    let all = windows.len() * grid.len();
    let mut steps = Vec::with_capacity(windows.len());
    let (mut equity, mut at, mut idle) = (Vec::new(), initial_cash(play), 0);
    let additive = matches!(sizing(play), Some(Sizing::Fixed(_)));
    for (i, window) in windows.into_iter().enumerate() {
        let train = cut(play, folder.path(), "train.csv", window.train_from_ms, window.test_from_ms)?;
        let trials = sweep::run(&train, grid, threads, |done| progress(i * grid.len() + done, all));
        let Some((chosen, train_score)) = best(&trials, by) else {
            ensure!(trials.iter().any(|t| t.outcome.is_ok()), "no combination runs: {}", first_error(&trials));
            idle += 1;
            continue;
        };
        let both = cut(play, folder.path(), "both.csv", window.train_from_ms, window.test_to_ms)?;
        let report = both.run(&chosen.params)?;
        let before = at;
        for (open_ms, change) in changes(&report, window.test_from_ms, additive) {
            at = if additive { at + change } else { at * (1.0 + change) };
            equity.push((open_ms, at));
        }
        let train_return = chosen.outcome.as_ref().map_or(0.0, |o| o.stats.total_return);
        let opened = |ns: i64| Nanos(ns).as_ms() >= window.test_from_ms;
        steps.push(Step {
            window,
            params: chosen.params.clone(),
            train_score: Some(train_score),
            train_return,
            test_return: at / before - 1.0,
            test_trades: report.trips.iter().filter(|t| opened(t.entry_ns)).count(),
        });
    }
    Ok(WalkForward::of(by, initial_cash(play), steps, equity, idle))
}

impl WalkForward {
    fn of(by: &str, initial: f64, steps: Vec<Step>, equity: Vec<(i64, f64)>, idle: usize) -> Self {
        let (mut peak, mut max_drawdown) = (initial, 0.0f64);
        for (_, value) in &equity {
            peak = peak.max(*value);
            max_drawdown = max_drawdown.max(1.0 - value / peak);
        }
        let returns = crate::metrics::returns(initial, equity.iter().map(|(_, value)| *value));
        let per_ms = |made: &dyn Fn(&Step) -> f64, ms: &dyn Fn(&Step) -> i64| {
            steps.iter().map(made).sum::<f64>() / steps.iter().map(ms).sum::<i64>().max(1) as f64
        };
        let outside = per_ms(&|s| s.test_return, &|s| s.window.test_to_ms - s.window.test_from_ms);
        let inside = per_ms(&|s| s.train_return, &|s| s.window.test_from_ms - s.window.train_from_ms);
        Self {
            by: by.to_owned(),
            total_return: equity.last().map_or(0.0, |(_, value)| value / initial - 1.0),
            max_drawdown,
            sharpe: crate::overfit::Moments::of(&returns).map(|m| m.sharpe),
            test_trades: steps.iter().map(|s| s.test_trades).sum(),
            efficiency: (inside > 0.0).then(|| outside / inside),
            steps,
            equity,
            idle,
        }
    }
}

/// The first trial with the highest statistic, and that.
fn best<'a>(trials: &'a [Trial], by: &str) -> Option<(&'a Trial, f64)> {
    let first = *sweep::ranked(trials, by).first()?;
    let trial = &trials[first];
    let stats = &trial.outcome.as_ref().ok()?.stats;
    Some((trial, score(stats, by)?))
}

fn first_error(trials: &[Trial]) -> &str {
    trials.iter().find_map(|t| t.outcome.as_ref().err()).map_or("the grid is empty", String::as_str)
}

/// What each bar of the test window changed: a share of the equity before it, or money.
fn changes(report: &Report, test_from_ms: i64, additive: bool) -> Vec<(i64, f64)> {
    let mut before = report.stats.initial_cash;
    let mut changes = Vec::new();
    for point in &report.equity {
        let equity = point.equity.to_f64();
        if point.open_ms >= test_from_ms {
            changes.push((point.open_ms, if additive { equity - before } else { equity / before - 1.0 }));
        }
        before = equity;
    }
    changes
}

fn initial_cash(play: &Play) -> f64 {
    let cash = match play {
        Play::Candles(options) => options.initial_cash,
        Play::Trades(options) => options.initial_cash,
    };
    schemas::Notional::new(cash).to_f64()
}

fn sizing(play: &Play) -> Option<Sizing> {
    match play {
        Play::Candles(options) => options.sizing,
        Play::Trades(options) => options.sizing,
    }
}

/// The tape's file, its time column, and how many of its units are a ms.
fn column(play: &Play) -> (&Path, &'static str, i64) {
    match play {
        Play::Candles(options) => (&options.candles, "open_ts_ms", 1),
        Play::Trades(options) => (&options.trades, "ts_ns", Nanos::PER_MS),
    }
}

/// Time of the first and the last row, ms.
fn times(play: &Play) -> anyhow::Result<(i64, i64)> {
    let mut seen = None;
    rows(play, |ms, _| {
        let (first, last) = seen.unwrap_or((ms, ms));
        seen = Some((ms.min(first), ms.max(last)));
        Ok(())
    })?;
    seen.with_context(|| format!("{} holds no rows", column(play).0.display()))
}

/// The same play over the rows of `[from_ms, to_ms)`, as a file in `folder`.
fn cut(play: &Play, folder: &Path, name: &str, from_ms: i64, to_ms: i64) -> anyhow::Result<Play> {
    let path = folder.join(name);
    let mut out = BufWriter::new(File::create(&path).with_context(|| format!("write {}", path.display()))?);
    if let Some(header) = lines(column(play).0)?.next() {
        writeln!(out, "{}", header?)?;
    }
    rows(play, |ms, line| {
        if (from_ms..to_ms).contains(&ms) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    })?;
    out.flush()?;
    let mut play = play.clone();
    match &mut play {
        Play::Candles(options) => options.candles = path,
        Play::Trades(options) => options.trades = path,
    }
    Ok(play)
}

/// Every row of the tape with its time in ms, as text.
fn rows(play: &Play, mut each: impl FnMut(i64, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (path, name, per_ms) = column(play);
    let mut lines = lines(path)?;
    let header = lines.next().with_context(|| format!("{} is empty", path.display()))??;
    let place = header.split(',').position(|n| n == name);
    let place = place.with_context(|| format!("{}: no column `{name}`", path.display()))?;
    for (i, line) in lines.enumerate() {
        let line = line?;
        let time = line.split(',').nth(place).and_then(|cell| cell.parse::<i64>().ok());
        let time = time.with_context(|| format!("{} line {}: no {name}", path.display(), i + 2))?;
        each(time.div_euclid(per_ms), &line)?;
    }
    Ok(())
}

fn lines(path: &Path) -> anyhow::Result<std::io::Lines<BufReader<Box<dyn Read>>>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let bytes: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    Ok(BufReader::with_capacity(1 << 18, bytes).lines())
}

#[cfg(test)]
mod tests;
