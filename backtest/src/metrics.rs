//! Statistics of a backtest. Ratios are floats; sums of money are exact until they are printed.
//!
//! * daily returns: equity at the last bar of each UTC day against that of the day before it; the first day against
//!   the initial cash. Days without bars are passed over.
//! * Sharpe: mean over sample deviation (ddof 1) times the root of 365; risk-free rate 0.
//! * Sortino: mean times 365 over the root of the mean squared loss (gains count as 0) times the root of 365.
//! * `sharpe_bar`: the same as Sharpe over bar returns, with the bars in 365 days instead of 365.
//! * drawdown: the largest share of the highest equity so far, initial cash included, that was lost at a bar's close.
//!
//! A ratio that does not exist (no trades, no losses, no movement) is `null`.

use std::collections::BTreeMap;

use schemas::{Notional, Timeframe};
use serde::Serialize;

use crate::account::{Account, Point};

const DAY_MS: i64 = 86_400_000;
const DAYS_PER_YEAR: f64 = 365.0;

/// See the module. Money in the account's currency.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Stats {
    pub initial_cash: f64,
    pub final_equity: f64,
    pub total_return: f64,
    pub fees_paid_in_closed_trades: f64,
    pub closed_trades: usize,
    pub longs: usize,
    pub shorts: usize,
    pub win_rate: Option<f64>,
    pub sum_net_wins: f64,
    pub sum_net_losses: f64,
    pub profit_factor: Option<f64>,
    pub mean_net: Option<f64>,
    pub max_drawdown: f64,
    pub bars_in_position: usize,
    pub bars: usize,
    pub sharpe_daily_365: Option<f64>,
    pub sortino_daily_365: Option<f64>,
    pub volatility_daily_365: Option<f64>,
    pub sharpe_bar: Option<f64>,
    pub bars_per_year: f64,
}

impl Stats {
    pub fn of(account: &Account, timeframe: Timeframe) -> Self {
        let (trips, points) = (account.trips(), account.points());
        let initial = account.initial();
        let final_equity = points.last().map_or(initial, |p| p.equity);
        let wins: Vec<Notional> = trips.iter().map(|t| t.net).filter(|net| *net > Notional::ZERO).collect();
        let losses: Notional = trips.iter().map(|t| t.net).filter(|net| *net < Notional::ZERO).sum();
        let won: Notional = wins.iter().copied().sum();
        let net: Notional = trips.iter().map(|t| t.net).sum();
        let closed = trips.len();
        let longs = trips.iter().filter(|t| t.long).count();
        let start = initial.to_f64();
        let daily = returns(start, days(points).into_iter());
        let bar = returns(start, points.iter().map(|p| p.equity.to_f64()));
        let bars_per_year = timeframe.bars_per_year();
        Self {
            initial_cash: start,
            final_equity: final_equity.to_f64(),
            total_return: ratio(final_equity.to_f64(), start).map_or(0.0, |r| r - 1.0),
            fees_paid_in_closed_trades: trips.iter().map(|t| t.fees).sum::<Notional>().to_f64(),
            closed_trades: closed,
            longs,
            shorts: closed - longs,
            win_rate: ratio(wins.len() as f64, closed as f64),
            sum_net_wins: won.to_f64(),
            sum_net_losses: losses.to_f64(),
            profit_factor: ratio(won.to_f64(), -losses.to_f64()),
            mean_net: ratio(net.to_f64(), closed as f64),
            max_drawdown: max_drawdown(start, points),
            bars_in_position: points.iter().filter(|p| p.in_position).count(),
            bars: points.len(),
            sharpe_daily_365: sharpe(&daily, DAYS_PER_YEAR),
            sortino_daily_365: sortino(&daily, DAYS_PER_YEAR),
            volatility_daily_365: deviation(&daily).map(|d| d * DAYS_PER_YEAR.sqrt()),
            sharpe_bar: sharpe(&bar, bars_per_year),
            bars_per_year,
        }
    }
}

/// A quotient that exists.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    let r = part / whole;
    r.is_finite().then_some(r)
}

/// Equity at the last bar of each day that has one, in order.
fn days(points: &[Point]) -> Vec<f64> {
    let mut days = BTreeMap::new();
    for point in points {
        days.insert(point.open_ms.div_euclid(DAY_MS), point.equity);
    }
    days.into_values().map(Notional::to_f64).collect()
}

fn returns(start: f64, values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut before = start;
    let step = |value: f64| {
        let r = value / before - 1.0;
        before = value;
        r
    };
    values.map(step).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    ratio(values.iter().sum(), values.len() as f64)
}

/// Sample standard deviation (ddof 1).
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some(ratio(squares, values.len() as f64 - 1.0)?.sqrt())
}

fn sharpe(returns: &[f64], per_year: f64) -> Option<f64> {
    ratio(mean(returns)?, deviation(returns)?).map(|r| r * per_year.sqrt())
}

fn sortino(returns: &[f64], per_year: f64) -> Option<f64> {
    let squares: f64 = returns.iter().map(|r| r.min(0.0).powi(2)).sum();
    let downside = ratio(squares, returns.len() as f64)?.sqrt() * per_year.sqrt();
    ratio(mean(returns)? * per_year, downside)
}

fn max_drawdown(start: f64, points: &[Point]) -> f64 {
    let mut peak = start;
    let mut worst: f64 = 0.0;
    for point in points {
        let equity = point.equity.to_f64();
        peak = peak.max(equity);
        worst = worst.max(1.0 - equity / peak);
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Decimal;

    fn points(values: &[i64]) -> Vec<Point> {
        let point = |(i, v): (usize, &i64)| Point {
            open_ms: i as i64 * DAY_MS / 2,
            equity: Notional::new(Decimal::from(*v)),
            in_position: false,
        };
        values.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_day_counts_with_its_last_bar() {
        assert_eq!(days(&points(&[1, 2, 3, 4, 5])), [2.0, 4.0, 5.0]);
    }

    #[test]
    fn drawdown_counts_from_the_initial_cash_on() {
        assert_eq!(max_drawdown(100.0, &points(&[80, 90, 120, 60])), 0.5);
        assert_eq!(max_drawdown(100.0, &points(&[100, 110])), 0.0);
    }

    #[test]
    fn what_does_not_exist_is_null() {
        let stats = Stats::of(&Account::new(Decimal::from(100)), "1m".parse().unwrap());
        assert_eq!((stats.win_rate, stats.profit_factor, stats.sharpe_bar, stats.mean_net), (None, None, None, None));
        assert!(serde_json::to_string(&stats).unwrap().contains("\"profit_factor\":null"));
    }

    #[test]
    fn sharpe_and_sortino_of_a_small_series_are_the_textbooks() {
        let r = [0.01, -0.02, 0.03];
        let (m, d) = (
            0.02 / 3.0,
            (((0.01f64 - 0.02 / 3.0).powi(2) + (-0.02f64 - 0.02 / 3.0).powi(2) + (0.03f64 - 0.02 / 3.0).powi(2)) / 2.0)
                .sqrt(),
        );
        assert!((sharpe(&r, 365.0).unwrap() - m / d * 365f64.sqrt()).abs() < 1e-12);
        let downside = (0.0004f64 / 3.0).sqrt();
        assert!((sortino(&r, 365.0).unwrap() - m * 365.0 / (downside * 365f64.sqrt())).abs() < 1e-9);
    }
}
