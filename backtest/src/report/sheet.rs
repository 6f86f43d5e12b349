//! The numbers of a report: what `report.json` holds and `report.html` shows.

use std::collections::BTreeMap;

use schemas::{Nanos, Notional};
use serde::Serialize;
use time::OffsetDateTime;

use super::Report;
use super::background::{Background, Bar, Window};
use crate::account::{Point, Trip};
use crate::metrics::Stats;

/// Points of a series in the report; the whole series is in `equity.csv`.
const POINTS_MAX: usize = 1_200;
/// Candles of a chart; more are folded together.
const BARS_MAX: usize = 420;
/// Candles of the chart in detail.
const DETAIL_MAX: usize = 160;
/// Trades in the list and on a chart; `trades.csv` has all.
const TRADES_MAX: usize = 2_000;
/// Windows without data in the list.
const WINDOWS_MAX: usize = 100;

/// Everything that a report says. Money in the account's currency, shares as ratios (0.01 is 1 %), times in ms UTC.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sheet {
    pub v: u32,
    pub title: String,
    pub hash: String,
    pub facts: u64,
    /// Opens of the first and the last bar.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    pub settings: Vec<Setting>,
    pub stats: Stats,
    /// Facts by kind, refusals by limit.
    pub kinds: BTreeMap<String, u64>,
    pub refusals: BTreeMap<String, u64>,
    pub months: Vec<Year>,
    pub symbols: Vec<Group>,
    pub strategies: Vec<Group>,
    pub gaps: Gaps,
    pub series: Vec<Sample>,
    pub charts: Vec<Market>,
    pub trades: Vec<Trade>,
    pub trades_total: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

/// Returns of a year's months, January first; `None` where there was no bar.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Year {
    pub year: i32,
    pub months: [Option<f64>; 12],
    pub total: f64,
}

/// Closed trades that have something in common.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Group {
    pub name: String,
    pub trades: usize,
    pub longs: usize,
    pub win_rate: Option<f64>,
    pub net: f64,
    pub fees: f64,
    pub profit_factor: Option<f64>,
    pub best: Option<f64>,
    pub worst: Option<f64>,
    /// Mean time held.
    pub held_ms: Option<f64>,
}

/// What was earned while data was missing: trades whose holding time overlaps a window without data.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Gaps {
    pub windows_total: usize,
    /// The longest ones first.
    pub windows: Vec<Window>,
    pub trades: usize,
    pub net: f64,
    /// Of the net PnL of all trades; `None` where that is 0. Above 1 or negative where wins and losses cancel out.
    pub net_share: Option<f64>,
    /// Of the sum of all trades' absolute net PnL, 0..1.
    pub absolute_share: Option<f64>,
}

/// The account at a bar's close. Of several bars in one sample: the last one's equity, the largest drawdown, the
/// mean exposure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Sample {
    pub open_ms: i64,
    pub equity: f64,
    /// Share of the highest equity so far that is lost, 0..1.
    pub drawdown: f64,
    /// Position value over equity; negative is short.
    pub exposure: f64,
}

/// A market's candles and the trades to draw on them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Market {
    pub name: String,
    /// How many candles of the run are one here.
    pub folded: usize,
    pub bars: Vec<Ohlc>,
    /// The newest candles of the run as they are, where the others are folded.
    pub detail: Vec<Ohlc>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ohlc {
    pub open_ms: i64,
    pub close_ms: i64,
    pub open: f64,
    pub high: f64,
    pub low: f64,
    pub close: f64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trade {
    pub symbol: String,
    pub strategy: String,
    pub long: bool,
    pub units: f64,
    pub entry_ms: i64,
    pub exit_ms: i64,
    pub entry_price: f64,
    pub exit_price: f64,
    pub fees: f64,
    pub net: f64,
    /// Held while data was missing.
    pub gap: bool,
}

impl Sheet {
    pub fn of(report: &Report, background: &Background) -> Self {
        let market = market_name(&background.venue, &background.symbol);
        let strategy = match background.strategy.as_str() {
            "" => "strategy".to_owned(),
            name => name.to_owned(),
        };
        let spans = disjoint(&background.windows);
        let trades: Vec<Trade> = (report.trips.iter().enumerate())
            .map(|(i, trip)| {
                let named = report.markets.get(i).map(|(venue, symbol)| market_name(venue, symbol));
                trade(trip, named.as_deref().unwrap_or(&market), &strategy, overlaps(trip, &spans))
            })
            .collect();
        let first = trades.len().saturating_sub(TRADES_MAX);
        let charts = background.charts.iter().filter(|chart| !chart.bars.is_empty());
        Self {
            v: 1,
            title: format!("{strategy} on {market}"),
            hash: report.hash.clone(),
            facts: report.facts,
            first_ms: report.equity.first().map(|p| p.open_ms),
            last_ms: report.equity.last().map(|p| p.open_ms),
            settings: background
                .settings
                .iter()
                .map(|(name, value)| Setting { name: name.clone(), value: value.clone() })
                .collect(),
            stats: report.stats.clone(),
            kinds: report.kinds.clone(),
            refusals: report.refusals.clone(),
            months: months(report.stats.initial_cash, &report.equity),
            symbols: groups(&trades, |t| &t.symbol),
            strategies: groups(&trades, |t| &t.strategy),
            gaps: gaps(&trades, &background.windows),
            series: series(report.stats.initial_cash, &report.equity),
            charts: charts
                .map(|chart| {
                    let (bars, folded) = folded(&chart.bars);
                    let newest = &chart.bars[chart.bars.len().saturating_sub(DETAIL_MAX)..];
                    let detail = if folded > 1 { newest.iter().copied().map(Ohlc::from).collect() } else { Vec::new() };
                    Market { name: market_name(&chart.venue, &chart.symbol), folded, bars, detail }
                })
                .collect(),
            trades_total: trades.len(),
            trades: trades[first..].to_vec(),
        }
    }
}

/// `binance BTCUSDT`; a file of candles has no venue, and a run without a background no name at all.
pub fn market_name(venue: &str, symbol: &str) -> String {
    match (venue, symbol) {
        ("", "") => "the tape".to_owned(),
        ("", symbol) => symbol.to_owned(),
        (venue, symbol) => format!("{venue} {symbol}"),
    }
}

impl From<Bar> for Ohlc {
    fn from(bar: Bar) -> Self {
        let Bar { open_ms, close_ms, open, high, low, close } = bar;
        Self { open_ms, close_ms, open, high, low, close }
    }
}

fn trade(trip: &Trip, market: &str, strategy: &str, gap: bool) -> Trade {
    Trade {
        symbol: market.to_owned(),
        strategy: strategy.to_owned(),
        long: trip.long,
        units: trip.units.to_f64(),
        entry_ms: Nanos(trip.entry_ns).as_ms(),
        exit_ms: Nanos(trip.exit_ns).as_ms(),
        entry_price: trip.entry_price.to_f64(),
        exit_price: trip.exit_price.to_f64(),
        fees: trip.fees.to_f64(),
        net: trip.net.to_f64(),
        gap,
    }
}

/// Times without data, apart from each other, in order.
fn disjoint(windows: &[Window]) -> Vec<(i64, i64)> {
    let mut spans: Vec<(i64, i64)> = windows.iter().map(|w| (w.from_ns, w.to_ns)).filter(|(a, b)| a < b).collect();
    spans.sort_unstable();
    spans.dedup_by(|next, before| {
        let joined = next.0 <= before.1;
        if joined {
            before.1 = before.1.max(next.1);
        }
        joined
    });
    spans
}

/// The trade was held for some time without data.
fn overlaps(trip: &Trip, spans: &[(i64, i64)]) -> bool {
    let next = spans.partition_point(|(_, to_ns)| *to_ns <= trip.entry_ns);
    spans.get(next).is_some_and(|(from_ns, _)| *from_ns < trip.exit_ns)
}

fn gaps(trades: &[Trade], windows: &[Window]) -> Gaps {
    let held: Vec<&Trade> = trades.iter().filter(|t| t.gap).collect();
    let net: f64 = held.iter().map(|t| t.net).sum();
    let all: f64 = trades.iter().map(|t| t.net).sum();
    let share = |part: f64, whole: f64| (whole != 0.0).then(|| part / whole);
    let absolute = |trades: &mut dyn Iterator<Item = f64>| trades.map(f64::abs).sum::<f64>();
    let mut longest = windows.to_vec();
    longest.sort_by_key(|w| (w.from_ns - w.to_ns, w.from_ns));
    longest.truncate(WINDOWS_MAX);
    Gaps {
        windows_total: windows.len(),
        windows: longest,
        trades: held.len(),
        net,
        net_share: share(net, all),
        absolute_share: share(absolute(&mut held.iter().map(|t| t.net)), absolute(&mut trades.iter().map(|t| t.net))),
    }
}

fn groups(trades: &[Trade], key: impl Fn(&Trade) -> &str) -> Vec<Group> {
    let mut by_name: BTreeMap<&str, Vec<&Trade>> = BTreeMap::new();
    for trade in trades {
        by_name.entry(key(trade)).or_default().push(trade);
    }
    by_name
        .into_iter()
        .map(|(name, trades)| {
            let n = trades.len();
            let won: f64 = trades.iter().map(|t| t.net.max(0.0)).sum();
            let lost: f64 = trades.iter().map(|t| t.net.min(0.0)).sum();
            let wins = trades.iter().filter(|t| t.net > 0.0).count();
            let held: i64 = trades.iter().map(|t| t.exit_ms - t.entry_ms).sum();
            Group {
                name: name.to_owned(),
                trades: n,
                longs: trades.iter().filter(|t| t.long).count(),
                win_rate: (n > 0).then(|| wins as f64 / n as f64),
                net: won + lost,
                fees: trades.iter().map(|t| t.fees).sum(),
                profit_factor: (lost < 0.0).then(|| won / -lost),
                best: trades.iter().map(|t| t.net).max_by(f64::total_cmp),
                worst: trades.iter().map(|t| t.net).min_by(f64::total_cmp),
                held_ms: (n > 0).then(|| held as f64 / n as f64),
            }
        })
        .collect()
}

/// Equity at the last bar of each UTC month against that of the month before it, the first against the initial cash.
fn months(initial: f64, points: &[Point]) -> Vec<Year> {
    let mut last: BTreeMap<(i32, usize), Notional> = BTreeMap::new();
    for point in points {
        let Ok(at) = OffsetDateTime::from_unix_timestamp(point.open_ms.div_euclid(1_000)) else { continue };
        last.insert((at.year(), at.month() as usize - 1), point.equity);
    }
    let mut years: Vec<Year> = Vec::new();
    let (mut before, mut year_before) = (initial, initial);
    for ((year, month), equity) in last {
        let equity = equity.to_f64();
        if years.last().is_none_or(|y| y.year != year) {
            year_before = before;
            years.push(Year { year, months: [None; 12], total: 0.0 });
        }
        if let Some(row) = years.last_mut() {
            row.months[month] = Some(equity / before - 1.0);
            row.total = equity / year_before - 1.0;
        }
        before = equity;
    }
    years
}

/// At most [`POINTS_MAX`] samples.
fn series(initial: f64, points: &[Point]) -> Vec<Sample> {
    let per_sample = points.len().div_ceil(POINTS_MAX).max(1);
    let mut peak = initial;
    let mut samples = Vec::with_capacity(points.len().min(POINTS_MAX));
    for part in points.chunks(per_sample) {
        let (mut drawdown, mut exposure) = (0.0f64, 0.0);
        for point in part {
            let equity = point.equity.to_f64();
            peak = peak.max(equity);
            drawdown = drawdown.max(1.0 - equity / peak);
            let share = point.exposure.to_f64() / equity;
            exposure += if share.is_finite() { share } else { 0.0 };
        }
        let Some(last) = part.last() else { continue };
        let exposure = exposure / part.len() as f64;
        samples.push(Sample { open_ms: last.open_ms, equity: last.equity.to_f64(), drawdown, exposure });
    }
    samples
}

/// At most [`BARS_MAX`] candles, and how many are one.
fn folded(bars: &[Bar]) -> (Vec<Ohlc>, usize) {
    let per_bar = bars.len().div_ceil(BARS_MAX).max(1);
    let fold = |part: &[Bar]| Ohlc {
        open_ms: part[0].open_ms,
        close_ms: part[part.len() - 1].close_ms,
        open: part[0].open,
        high: part.iter().map(|b| b.high).fold(f64::NEG_INFINITY, f64::max),
        low: part.iter().map(|b| b.low).fold(f64::INFINITY, f64::min),
        close: part[part.len() - 1].close,
    };
    (bars.chunks(per_bar).map(fold).collect(), per_bar)
}

#[cfg(test)]
mod tests;
