//! Statistics of a backtest. Ratios are floats; sums of money are exact until they are printed.
//!
//! Returns
//! * daily returns: equity at the last bar of each UTC day against that of the day before it; the first day against
//!   the initial cash. Days without bars are passed over.
//! * Sharpe: mean over sample deviation (ddof 1) times the root of 365; risk-free rate 0.
//! * Sortino: mean times 365 over the root of the mean squared loss (gains count as 0) times the root of 365.
//! * `sharpe_bar`: the same as Sharpe over bar returns, with the bars in 365 days instead of 365.
//! * `cagr`: (final equity / initial cash) ^ (1 / years) - 1, where years = time from the first bar's open to the last
//!   one's close over 365 days; a period of less than a day is not annualised.
//! * skewness and kurtosis: standardised moments of the daily returns' population; a normal distribution has 0 and 3.
//! * probabilistic Sharpe: probability that the true Sharpe ratio of the daily returns is above 0, see
//!   [`crate::overfit::Moments::probabilistic_sharpe`].
//!
//! Losses
//! * drawdown: the largest share of the highest equity so far, initial cash included, that was lost at a bar's close.
//! * `drawdown_days_max`: the longest time from a highest equity to the bar's close that reached it again, or to the
//!   end, in days.
//! * Calmar: `cagr` over the largest drawdown of the whole period (not of three years).
//!
//! Trades: closed round trips, net of fees and funding
//! * expectancy: win rate times the mean win minus loss rate times the mean loss, in money a trade; `mean_net` by
//!   another way. A trade that nets 0 is neither.
//! * `expectancy_ratio`: expectancy over the mean loss: what is won for each unit that a loss costs.
//! * payoff ratio: mean win over mean loss.
//! * turnover: price times size of all fills, both sides, over the mean equity at bar closes; `turnover_per_year` is
//!   that over the years above.
//! * exposure: share of bars that closed with a position.
//!
//! A ratio that does not exist (no trades, no losses, no movement) is `null`.

use std::collections::BTreeMap;

use schemas::{Notional, Timeframe};
use serde::Serialize;

use crate::account::{Account, Point};
use crate::overfit::Moments;

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
    /// From the first bar's open to the last one's close, in days.
    pub period_days: f64,
    pub cagr: Option<f64>,
    pub calmar: Option<f64>,
    pub drawdown_days_max: f64,
    pub exposure: Option<f64>,
    pub mean_win: Option<f64>,
    /// Negative.
    pub mean_loss: Option<f64>,
    pub payoff_ratio: Option<f64>,
    pub expectancy: Option<f64>,
    pub expectancy_ratio: Option<f64>,
    pub turnover: Option<f64>,
    pub turnover_per_year: Option<f64>,
    pub skewness_daily: Option<f64>,
    pub kurtosis_daily: Option<f64>,
    pub probabilistic_sharpe: Option<f64>,
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
        let lost = trips.iter().filter(|t| t.net < Notional::ZERO).count();
        let mean_win = ratio(won.to_f64(), wins.len() as f64);
        let mean_loss = ratio(losses.to_f64(), lost as f64);
        let expectancy = expectancy(mean_win, wins.len(), mean_loss, lost, closed);
        let bar_ms = i64::from(timeframe.seconds()) * 1_000;
        let period_days = match (points.first(), points.last()) {
            (Some(first), Some(last)) => (last.open_ms + bar_ms - first.open_ms) as f64 / DAY_MS as f64,
            _ => 0.0,
        };
        let years = (period_days >= 1.0).then_some(period_days / DAYS_PER_YEAR);
        let total_return = ratio(final_equity.to_f64(), start).map_or(0.0, |r| r - 1.0);
        let max_drawdown = max_drawdown(start, points);
        let cagr = years.and_then(|years| cagr(total_return, years));
        let mean_equity = mean(&points.iter().map(|p| p.equity.to_f64()).collect::<Vec<_>>()).unwrap_or(start);
        let turnover = ratio(account.traded().to_f64(), mean_equity);
        let moments = Moments::of(&daily);
        Self {
            initial_cash: start,
            final_equity: final_equity.to_f64(),
            total_return,
            fees_paid_in_closed_trades: trips.iter().map(|t| t.fees).sum::<Notional>().to_f64(),
            closed_trades: closed,
            longs,
            shorts: closed - longs,
            win_rate: ratio(wins.len() as f64, closed as f64),
            sum_net_wins: won.to_f64(),
            sum_net_losses: losses.to_f64(),
            profit_factor: ratio(won.to_f64(), -losses.to_f64()),
            mean_net: ratio(net.to_f64(), closed as f64),
            max_drawdown,
            bars_in_position: points.iter().filter(|p| p.in_position).count(),
            bars: points.len(),
            sharpe_daily_365: sharpe(&daily, DAYS_PER_YEAR),
            sortino_daily_365: sortino(&daily, DAYS_PER_YEAR),
            volatility_daily_365: deviation(&daily).map(|d| d * DAYS_PER_YEAR.sqrt()),
            sharpe_bar: sharpe(&bar, bars_per_year),
            bars_per_year,
            period_days,
            cagr,
            calmar: cagr.and_then(|cagr| ratio(cagr, max_drawdown)),
            drawdown_days_max: drawdown_ms_max(start, points, bar_ms) as f64 / DAY_MS as f64,
            exposure: ratio(points.iter().filter(|p| p.in_position).count() as f64, points.len() as f64),
            mean_win,
            mean_loss,
            payoff_ratio: mean_win.zip(mean_loss).and_then(|(win, loss)| ratio(win, -loss)),
            expectancy,
            expectancy_ratio: expectancy.zip(mean_loss).and_then(|(e, loss)| ratio(e, -loss)),
            turnover,
            turnover_per_year: turnover.zip(years).map(|(t, years)| t / years),
            skewness_daily: moments.map(|m| m.skewness),
            kurtosis_daily: moments.map(|m| m.kurtosis),
            probabilistic_sharpe: moments.and_then(|m| m.probabilistic_sharpe(0.0)),
        }
    }
}

/// Win rate times mean win plus loss rate times mean loss (negative), money a trade.
fn expectancy(win: Option<f64>, wins: usize, loss: Option<f64>, losses: usize, closed: usize) -> Option<f64> {
    let part = |mean: Option<f64>, count: usize| Some(mean.unwrap_or(0.0) * ratio(count as f64, closed as f64)?);
    Some(part(win, wins)? + part(loss, losses)?)
}

/// Growth a year; `None` where nothing is left to grow.
fn cagr(total_return: f64, years: f64) -> Option<f64> {
    let growth = (1.0 + total_return).powf(1.0 / years) - 1.0;
    (total_return > -1.0 && growth.is_finite()).then_some(growth)
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

/// Each value against the one before it, the first against `start`.
pub(crate) fn returns(start: f64, values: impl Iterator<Item = f64>) -> Vec<f64> {
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

/// See the module; from the close of the bar that set the peak (the first bar's open for the initial cash).
fn drawdown_ms_max(start: f64, points: &[Point], bar_ms: i64) -> i64 {
    let Some(first) = points.first() else { return 0 };
    let (mut peak, mut peak_ms, mut longest) = (start, first.open_ms, 0);
    let mut below = false;
    for point in points {
        let (equity, close_ms) = (point.equity.to_f64(), point.open_ms + bar_ms);
        if below || equity < peak {
            longest = longest.max(close_ms - peak_ms);
        }
        below = equity < peak;
        if !below {
            (peak, peak_ms) = (equity, close_ms);
        }
    }
    longest
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
    use proptest::prelude::*;
    use schemas::Decimal;
    use schemas::exec::{Fill, Liquidity};
    use schemas::{Cause, Price, Qty, Side, Version};

    fn points(values: &[i64]) -> Vec<Point> {
        let point = |(i, v): (usize, &i64)| Point {
            open_ms: i as i64 * DAY_MS / 2,
            equity: Notional::new(Decimal::from(*v)),
            in_position: false,
            exposure: Notional::ZERO,
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

    fn fill(side: Side, qty: i64, price: i64, fee: i64) -> Fill {
        Fill {
            v: Version,
            account: "main".into(),
            id: "o".into(),
            n: 1,
            venue: "v".into(),
            symbol: "s".into(),
            side,
            price: Price::new(price.into()),
            qty: Qty::new(qty.into()),
            fee: Notional::new(fee.into()),
            liquidity: Liquidity::Taker,
            reduce_only: false,
            left: Qty::ZERO,
            why: String::new(),
            ts_ns: 7,
            cause: Cause::default(),
        }
    }

    /// An account that trades one unit a day at these prices, in and out in turn, from 1,000 on.
    fn account_of(fills: &[(Side, i64, i64)], closes: &[i64]) -> Account {
        let mut account = Account::new(Decimal::from(1_000));
        for (i, close) in closes.iter().enumerate() {
            if let Some((side, price, fee)) = fills.get(i) {
                account.on_fill(&fill(*side, 1, *price, *fee));
            }
            account.on_close(i as i64 * DAY_MS, Price::new((*close).into()));
        }
        account
    }

    fn near(a: Option<f64>, b: f64) {
        let a = a.expect("a number");
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a}, expected {b}");
    }

    #[test]
    fn statistics_of_three_trades_are_those_done_by_hand() {
        // Long 100 -> 110, fees 1 1: +8. Long 120 -> 100, fees 1 1: -22. Short 100 -> 80, fees 1 1: +18.
        let (b, s) = (Side::Buy, Side::Sell);
        let fills = [(b, 100, 1), (s, 110, 1), (b, 120, 1), (s, 100, 1), (s, 100, 1), (b, 80, 1)];
        let account = account_of(&fills, &[105, 110, 115, 100, 90, 80, 80, 80]);
        let equity: Vec<String> = account.points().iter().map(|p| p.equity.to_string()).collect();
        assert_eq!(equity, ["1004", "1008", "1002", "986", "995", "1004", "1004", "1004"]);
        let stats = Stats::of(&account, "1d".parse().unwrap());
        near(stats.win_rate, 2.0 / 3.0);
        near(stats.mean_win, 13.0);
        near(stats.mean_loss, -22.0);
        near(stats.payoff_ratio, 13.0 / 22.0);
        near(stats.expectancy, 4.0 / 3.0);
        near(stats.expectancy_ratio, 4.0 / 66.0);
        near(stats.profit_factor, 26.0 / 22.0);
        near(Some(stats.max_drawdown), 22.0 / 1_008.0);
        // The peak of 1,008 at the close of day 2 was not reached again: six days to the end.
        assert_eq!((stats.drawdown_days_max, stats.period_days), (6.0, 8.0));
        let cagr = 1.004f64.powf(365.0 / 8.0) - 1.0;
        near(stats.cagr, cagr);
        near(stats.calmar, cagr / (22.0 / 1_008.0));
        let turnover = 610.0 / (8_007.0 / 8.0);
        near(stats.turnover, turnover);
        near(stats.turnover_per_year, turnover * 365.0 / 8.0);
        near(stats.exposure, 3.0 / 8.0);
        // Worked out in Python by the formulas above: the daily returns are those of the equity from 1,000 on.
        near(stats.sharpe_daily_365, 1.2152865747942319);
        near(stats.sortino_daily_365, 1.679255135777819);
        near(stats.skewness_daily, -0.9069226370204395);
        near(stats.kurtosis_daily, 2.9518408262430182);
        near(stats.probabilistic_sharpe, 0.5649345447053521);
    }

    #[test]
    fn less_than_a_day_is_not_annualised() {
        let mut account = Account::new(Decimal::from(1_000));
        (0..100).for_each(|i| account.on_close(i * 60_000, Price::new(1.into())));
        let stats = Stats::of(&account, "1m".parse().unwrap());
        assert_eq!((stats.cagr, stats.calmar, stats.turnover_per_year, stats.turnover), (None, None, None, Some(0.0)));
    }

    #[test]
    fn a_drawdown_lasts_until_the_peak_is_reached_again() {
        let half_day = DAY_MS / 2;
        // Peak at the close of bar 1, reached again at the close of bar 3.
        assert_eq!(drawdown_ms_max(100.0, &points(&[110, 105, 120, 125]), half_day), 2 * half_day);
        // Below the initial cash from the start to the end.
        assert_eq!(drawdown_ms_max(100.0, &points(&[90, 95, 99]), half_day), 3 * half_day);
        assert_eq!(drawdown_ms_max(100.0, &points(&[100, 101, 101]), half_day), 0);
    }

    proptest! {
        #[test]
        fn ratios_of_returns_do_not_know_their_scale_and_turn_with_their_sign(r in prop::collection::vec(-0.2f64..0.2, 5..60), scale in 0.01f64..0.9) {
            let scaled: Vec<f64> = r.iter().map(|r| r * scale).collect();
            let turned: Vec<f64> = r.iter().map(|r| -r).collect();
            for ratio in [sharpe, sortino] {
                let (a, b) = (ratio(&r, 365.0), ratio(&scaled, 365.0));
                prop_assert_eq!(a.is_some(), b.is_some());
                let (a, b) = (a.unwrap_or(0.0), b.unwrap_or(0.0));
                prop_assert!((a - b).abs() < 1e-7 * a.abs().max(1.0), "{a} {b}");
            }
            let (a, b) = (sharpe(&r, 365.0).unwrap(), sharpe(&turned, 365.0).unwrap());
            prop_assert!((a + b).abs() < 1e-9 * a.abs().max(1.0));
            let p = |r: &[f64]| Moments::of(r).unwrap().probabilistic_sharpe(0.0).unwrap();
            prop_assert!((p(&r) + p(&turned) - 1.0).abs() < 1e-9);
            prop_assert_eq!(p(&r) > 0.5, mean(&r).unwrap() > 0.0);
        }

        #[test]
        fn order_of_returns_changes_the_drawdown_and_nothing_else(mut r in prop::collection::vec(-0.2f64..0.2, 5..60)) {
            let before = (sharpe(&r, 365.0).unwrap(), sortino(&r, 365.0));
            r.sort_by(f64::total_cmp);
            let after = (sharpe(&r, 365.0).unwrap(), sortino(&r, 365.0));
            prop_assert!((before.0 - after.0).abs() < 1e-9 * before.0.abs().max(1.0));
            prop_assert_eq!(before.1.is_some(), after.1.is_some());
        }

        #[test]
        fn equity_gives_laws_of_growth_and_loss(values in prop::collection::vec(1i64..10_000, 2..80)) {
            let points = points(&values);
            let worst = max_drawdown(values[0] as f64, &points);
            prop_assert!((0.0..1.0).contains(&worst));
            // Ten times the money is the same loss.
            let tenfold: Vec<i64> = values.iter().map(|v| v * 10).collect();
            prop_assert!((max_drawdown(values[0] as f64 * 10.0, &self::points(&tenfold)) - worst).abs() < 1e-12);
            let rising = values.windows(2).all(|w| w[0] <= w[1]);
            prop_assert_eq!(worst == 0.0, rising);
            prop_assert_eq!(drawdown_ms_max(values[0] as f64, &points, DAY_MS / 2) == 0, rising);
            let total = *values.last().unwrap() as f64 / values[0] as f64 - 1.0;
            // A year's growth over one year is the whole; over two it compounds to it.
            prop_assert!((cagr(total, 1.0).unwrap() - total).abs() < 1e-9 * total.abs().max(1.0));
            let two = cagr(total, 2.0).unwrap();
            prop_assert!(((1.0 + two).powi(2) - 1.0 - total).abs() < 1e-9 * total.abs().max(1.0));
        }

        #[test]
        fn expectancy_is_the_mean_of_the_trades(trades in prop::collection::vec((any::<bool>(), 50i64..150, 50i64..150, 0i64..3), 1..30)) {
            let mut account = Account::new(Decimal::from(10_000));
            for (long, entry, exit, fee) in trades {
                let (first, second) = if long { (Side::Buy, Side::Sell) } else { (Side::Sell, Side::Buy) };
                account.on_fill(&fill(first, 2, entry, fee));
                account.on_fill(&fill(second, 2, exit, fee));
            }
            let stats = Stats::of(&account, "1m".parse().unwrap());
            let (expectancy, mean) = (stats.expectancy.unwrap(), stats.mean_net.unwrap());
            prop_assert!((expectancy - mean).abs() < 1e-9 * mean.abs().max(1.0), "{expectancy} {mean}");
        }
    }
}
