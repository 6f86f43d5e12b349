//! Many backtests of one tape over a grid of parameters, and what luck makes of the best of them.
//!
//! Trials run on several threads; each is the whole backtest, so results do not depend on their number or order.

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemas::Decimal;
use schemas::num::parse_decimal;
use serde::Serialize;
use toml::{Table, Value};

use crate::account::Point;
use crate::metrics::{Stats, returns};
use crate::options::{CandleOptions, OptionError, StrategyChoice, TradeOptions};
use crate::overfit::{self, Moments, Overfitting, deflated_sharpe, expected_maximum_sharpe};
use crate::report::Report;

pub mod page;

/// Values of one axis.
const VALUES_MAX: usize = 1_000;
/// Returns that are kept of a trial; longer runs are kept at equal steps.
const RETURNS_MAX: usize = 2_048;

/// A parameter and the values to try: `fast=5..20..5` (both ends, step last), `slow=20,40`, `side=long`.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    pub key: String,
    pub values: Vec<Value>,
}

impl FromStr for Axis {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let wrong = |why: String| OptionError { option: "--param", value: text.to_owned(), allowed: why };
        let bad =
            || wrong("allowed are key=from..to..step and key=value,value, such as fast=5..20..5, slow=20,40".into());
        let (key, list) = text.split_once('=').ok_or_else(bad)?;
        let values = match list.split("..").map(str::trim).collect::<Vec<_>>().as_slice() {
            [from, to, step] => {
                let number = |text: &str| parse_decimal(text).map_err(|_| bad());
                let (from, to, step) = (number(from)?, number(to)?, number(step)?);
                if step <= Decimal::ZERO || to < from {
                    return Err(bad());
                }
                let count = ((to - from) / step).floor() + Decimal::ONE;
                if count > Decimal::from(VALUES_MAX) {
                    return Err(wrong(format!("{count} values; at most {VALUES_MAX}")));
                }
                // Whole numbers stay whole: a period of 5.0 is not a count.
                let whole = [from, step].iter().all(|n| n.fract().is_zero());
                let mut values = Vec::new();
                let mut at = from;
                while at <= to {
                    values.push(value_of(&at.normalize().to_string(), !whole).ok_or_else(bad)?);
                    at += step;
                }
                values
            }
            [list] if !list.is_empty() => {
                let values: Option<Vec<_>> = list.split(',').map(|v| value_of(v.trim(), false)).collect();
                values.ok_or_else(bad)?
            }
            _ => return Err(bad()),
        };
        let key = key.trim();
        if key.is_empty() || values.len() > VALUES_MAX {
            return Err(bad());
        }
        Ok(Self { key: key.to_owned(), values })
    }
}

/// As in TOML; a bare word is a text.
fn value_of(text: &str, float: bool) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    if float && let Ok(number) = text.parse::<f64>() {
        return Some(Value::Float(number));
    }
    let table: Option<Table> = format!("value = {text}").parse().ok();
    match table.and_then(|mut t| t.remove("value")) {
        Some(value) => Some(value),
        None => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| Value::String(text.to_owned())),
    }
}

/// A value as it is shown.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every combination, the last axis fastest; at most `trials_max`.
pub fn grid(axes: &[Axis], trials_max: usize) -> Result<Vec<Table>, OptionError> {
    let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len())).unwrap_or(usize::MAX);
    if count > trials_max {
        return Err(OptionError {
            option: "--param",
            value: format!("{count} combinations"),
            allowed: format!("at most {trials_max} trials: take wider steps, or raise --trials-max"),
        });
    }
    let mut grid = vec![Table::new()];
    for axis in axes {
        grid = grid
            .iter()
            .flat_map(|params| {
                axis.values.iter().map(|value| {
                    let mut params = params.clone();
                    params.insert(axis.key.clone(), value.clone());
                    params
                })
            })
            .collect();
    }
    Ok(grid)
}

/// What is played in every trial.
#[derive(Clone, Debug)]
pub enum Play {
    Candles(CandleOptions),
    Trades(TradeOptions),
}

impl Play {
    pub fn strategy(&self) -> &StrategyChoice {
        match self {
            Self::Candles(options) => &options.strategy,
            Self::Trades(options) => &options.strategy,
        }
    }

    /// The backtest with `params` laid over those of the strategy.
    pub fn run(&self, params: &Table) -> anyhow::Result<Report> {
        let laid = |strategy: &mut StrategyChoice| {
            strategy.params.extend(params.iter().map(|(key, value)| (key.clone(), value.clone())));
        };
        match self.clone() {
            Self::Candles(mut options) => {
                laid(&mut options.strategy);
                crate::run_candles(&options, |_| ())
            }
            Self::Trades(mut options) => {
                laid(&mut options.strategy);
                crate::run_trades(&options, |_| ())
            }
        }
    }
}

/// One backtest of a sweep.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    pub params: Table,
    /// Error: why these parameters cannot run, such as a slow average that is faster than the fast one.
    pub outcome: Result<Outcome, String>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    pub stats: Stats,
    pub hash: String,
    /// Of equal periods, at most 2,048.
    pub returns: Vec<f64>,
}

impl Trial {
    /// See [`score`]; `None` where it does not exist.
    pub fn score(&self, by: &str) -> Option<f64> {
        score(&self.outcome.as_ref().ok()?.stats, by)
    }
}

/// The statistic named `by`, as in `stats.json`; negated with a minus before the name, where small is good.
pub fn score(stats: &Stats, by: &str) -> Option<f64> {
    let stats = serde_json::to_value(stats).ok()?;
    match by.strip_prefix('-') {
        Some(name) => stats.get(name)?.as_f64().map(|value| -value),
        None => stats.get(by)?.as_f64(),
    }
}

/// Runs every combination; the trials stand in the order of the grid. `progress` hears how many are done.
pub fn run(play: &Play, grid: &[Table], threads: usize, progress: impl Fn(usize) + Sync) -> Vec<Trial> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let outcomes: Vec<Mutex<Option<Result<Outcome, String>>>> = grid.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, grid.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(params) = grid.get(i) else { return };
                    let outcome = play.run(params).map(Outcome::of).map_err(|error| format!("{error:#}"));
                    *outcomes[i].lock().expect("Invariant: a trial does not panic while it holds its place") =
                        Some(outcome);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let outcome = |place: Mutex<Option<Result<Outcome, String>>>| match place.into_inner() {
        Ok(Some(outcome)) => outcome,
        _ => Err("it was not run".to_owned()),
    };
    grid.iter().zip(outcomes).map(|(params, place)| Trial { params: params.clone(), outcome: outcome(place) }).collect()
}

impl Outcome {
    fn of(report: Report) -> Self {
        let returns = period_returns(report.stats.initial_cash, &report.equity);
        Self { stats: report.stats, hash: report.hash, returns }
    }
}

/// Returns over equal numbers of bars; the last bars that fill no whole period are left out.
fn period_returns(initial: f64, points: &[Point]) -> Vec<f64> {
    let bars = points.len().div_ceil(RETURNS_MAX).max(1);
    returns(initial, points.chunks_exact(bars).filter_map(|part| part.last()).map(|p| p.equity.to_f64()))
}

/// The trials from best to worst by a statistic: places in `trials`. Those without it come last, equal ones in the
/// order of the grid.
pub fn ranked(trials: &[Trial], by: &str) -> Vec<usize> {
    let scores: Vec<Option<f64>> = trials.iter().map(|trial| trial.score(by)).collect();
    let mut places: Vec<usize> = (0..trials.len()).collect();
    places.sort_by(|a, b| {
        let of = |i: &usize| scores[*i].unwrap_or(f64::NEG_INFINITY);
        of(b).total_cmp(&of(a)).then(scores[*b].is_some().cmp(&scores[*a].is_some())).then(a.cmp(b))
    });
    places
}

/// What the number of trials says about the best of them. Sharpe ratios are of one period of the sweep.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// That ran; those that cannot run are not counted.
    pub trials: usize,
    pub periods: usize,
    /// Of the best trial.
    pub sharpe: Option<f64>,
    /// What the best of as many strategies without skill is expected to show.
    pub sharpe_by_luck: Option<f64>,
    /// Probability that the best one's true Sharpe ratio is above 0, as if it had been the only trial.
    pub probabilistic_sharpe: Option<f64>,
    /// The same, above what luck shows.
    pub deflated_sharpe: Option<f64>,
    /// Probability of backtest overfitting, by combinatorially symmetric cross-validation.
    pub overfitting_probability: Option<f64>,
    /// Probability that the best in one half loses in the other.
    pub loss_probability: Option<f64>,
    /// For people; empty where nothing speaks against the best trial.
    pub warnings: Vec<String>,
}

/// See [`Verdict`]; `best` is a place in `trials`.
pub fn verdict(trials: &[Trial], best: usize) -> Verdict {
    let ran: Vec<&Outcome> = trials.iter().filter_map(|t| t.outcome.as_ref().ok()).collect();
    // A trial that never traded has a Sharpe ratio of 0 and was tried all the same.
    let sharpes: Vec<f64> = ran.iter().map(|o| Moments::of(&o.returns).map_or(0.0, |m| m.sharpe)).collect();
    let moments = trials.get(best).and_then(|t| t.outcome.as_ref().ok()).and_then(|o| Moments::of(&o.returns));
    let all: Vec<Vec<f64>> = ran.iter().map(|o| o.returns.clone()).collect();
    let cross: Option<Overfitting> = overfit::overfitting(&all);
    let deflated = moments.and_then(|m| deflated_sharpe(&m, &sharpes));
    let mean = sharpes.iter().sum::<f64>() / sharpes.len().max(1) as f64;
    let variance = sharpes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (sharpes.len() as f64 - 1.0).max(1.0);
    let mut verdict = Verdict {
        trials: ran.len(),
        periods: all.iter().map(Vec::len).min().unwrap_or(0),
        sharpe: moments.map(|m| m.sharpe),
        sharpe_by_luck: moments.map(|_| expected_maximum_sharpe(variance, sharpes.len())),
        probabilistic_sharpe: moments.and_then(|m| m.probabilistic_sharpe(0.0)),
        deflated_sharpe: deflated,
        overfitting_probability: cross.map(|c| c.probability),
        loss_probability: cross.map(|c| c.loss_probability),
        warnings: Vec::new(),
    };
    verdict.warnings = warnings(&verdict);
    verdict
}

/// Bounds that people use: 95 % for the Sharpe ratio, a half for overfitting (the best does no better than the median).
fn warnings(v: &Verdict) -> Vec<String> {
    let mut said = Vec::new();
    if v.trials > 1 {
        match v.deflated_sharpe {
            Some(p) if p < 0.95 => said.push(format!(
                "{} trials: the deflated Sharpe ratio of the best is {p:.3}, below 0.95; luck alone would show a Sharpe ratio of {:.4} a period, the best has {:.4}",
                v.trials, v.sharpe_by_luck.unwrap_or(0.0), v.sharpe.unwrap_or(0.0)
            )),
            Some(_) => {}
            None => said.push(format!("{} trials, and too few returns to say how much of the best is luck", v.trials)),
        }
        match v.overfitting_probability {
            Some(p) if p >= 0.5 => said.push(format!(
                "probability of overfitting {p:.2}: chosen on one half of the time, the best was at or below the median in the other"
            )),
            Some(p) if p >= 0.2 => said.push(format!("probability of overfitting {p:.2}: choose with care")),
            _ => {}
        }
    }
    if v.periods < 60 && v.trials > 0 {
        said.push(format!("{} returns are few: the figures above have wide errors", v.periods));
    }
    said
}

#[cfg(test)]
mod tests;
