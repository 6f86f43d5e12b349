//! How much of a Sharpe ratio is luck: the probabilistic and the deflated Sharpe ratio, and the probability of
//! backtest overfitting.
//!
//! * Probabilistic Sharpe ratio: D. H. Bailey, M. Lopez de Prado, "The Sharpe Ratio Efficient Frontier", Journal of
//!   Risk 15(2), 2012.
//! * Deflated Sharpe ratio: the same, "The Deflated Sharpe Ratio: Correcting for Selection Bias, Backtest Overfitting
//!   and Non-Normality", Journal of Portfolio Management 40(5), 2014.
//! * PBO by combinatorially symmetric cross-validation (CSCV): D. H. Bailey, J. M. Borwein, M. Lopez de Prado, Q. J.
//!   Zhu, "The Probability of Backtest Overfitting", Journal of Computational Finance 20(4), 2017.
//!
//! Sharpe ratios here are those of one period (a day, a bar), never annualised.

use std::f64::consts::{E, SQRT_2};

/// Euler's constant, in the expected maximum of normal variables.
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
/// Blocks of the cross-validation; the paper's choice, 12,870 ways to halve them.
const BLOCKS_MAX: usize = 16;
/// Trials times ways: above this there are fewer blocks, so that the work stays bounded.
const WORK_MAX: u64 = 50_000_000;

/// What one trial's returns come to; all per period.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moments {
    /// Number of returns.
    pub n: usize,
    /// Mean over sample deviation (ddof 1).
    pub sharpe: f64,
    /// Third standardised moment of the population; 0 for a normal distribution.
    pub skewness: f64,
    /// Fourth standardised moment of the population; 3 for a normal distribution.
    pub kurtosis: f64,
}

impl Moments {
    /// `None` for fewer than three returns and for returns that do not move.
    pub fn of(returns: &[f64]) -> Option<Self> {
        let n = returns.len();
        if n < 3 {
            return None;
        }
        let mean = returns.iter().sum::<f64>() / n as f64;
        let central = |k: i32| returns.iter().map(|r| (r - mean).powi(k)).sum::<f64>();
        let variance = central(2) / n as f64;
        // A constant series has the rounding of its own mean for a deviation.
        if variance.is_nan() || variance.sqrt() <= 1e-15 * mean.abs().max(f64::MIN_POSITIVE) {
            return None;
        }
        Some(Self {
            n,
            sharpe: mean / (central(2) / (n as f64 - 1.0)).sqrt(),
            skewness: central(3) / n as f64 / variance.powf(1.5),
            kurtosis: central(4) / n as f64 / variance.powi(2),
        })
    }

    /// Probability that the true Sharpe ratio is above `benchmark` (both of one period), 0..1:
    /// `Φ((SR - SR*) √(n-1) / √(1 - γ3 SR + (γ4-1)/4 SR²))`. `None` where the root does not exist.
    pub fn probabilistic_sharpe(&self, benchmark: f64) -> Option<f64> {
        let Self { n, sharpe, skewness, kurtosis } = *self;
        let spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe;
        let z = (sharpe - benchmark) * (n as f64 - 1.0).sqrt() / spread.sqrt();
        (spread > 0.0 && z.is_finite()).then(|| normal_cdf(z))
    }
}

/// The Sharpe ratio that the best of `trials` independent strategies without any skill is expected to show, where
/// `variance` is that of the trials' Sharpe ratios:
/// `√V ((1-γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e)))`. 0 for a single trial.
pub fn expected_maximum_sharpe(variance: f64, trials: usize) -> f64 {
    if trials < 2 {
        return 0.0;
    }
    let n = trials as f64;
    let quantile = |p: f64| normal_quantile(1.0 - p);
    variance.sqrt() * ((1.0 - EULER_GAMMA) * quantile(1.0 / n) + EULER_GAMMA * quantile(1.0 / (n * E)))
}

/// The deflated Sharpe ratio of the best trial: the probability, 0..1, that its Sharpe ratio is above what the best
/// of as many strategies without skill is expected to show. `sharpes` are those of all trials that were made.
pub fn deflated_sharpe(best: &Moments, sharpes: &[f64]) -> Option<f64> {
    let n = sharpes.len() as f64;
    if sharpes.len() < 2 {
        return best.probabilistic_sharpe(0.0);
    }
    let mean = sharpes.iter().sum::<f64>() / n;
    let variance = sharpes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
    best.probabilistic_sharpe(expected_maximum_sharpe(variance, sharpes.len()))
}

/// What the cross-validation found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Overfitting {
    /// Share of the ways in which the trial that was best in one half was at or below the median of the other, 0..1.
    pub probability: f64,
    /// Share of the ways in which it lost money in the other half, 0..1.
    pub loss_probability: f64,
    pub blocks: usize,
    /// Ways to choose half of the blocks.
    pub ways: u64,
}

/// Probability of backtest overfitting by CSCV. `returns[t]` is trial t's returns; all of equal length. The periods
/// are cut into blocks; for every choice of half of them, the trial with the best Sharpe ratio there is ranked by
/// its Sharpe ratio in the other half: `ω = rank / (N + 1)`, overfit where `ln(ω / (1 - ω)) <= 0`. Equal Sharpe ratios
/// share their mean rank; among equal best trials the first counts.
///
/// `None` for fewer than two trials or fewer than eight periods.
pub fn overfitting(returns: &[Vec<f64>]) -> Option<Overfitting> {
    let trials = returns.len();
    let periods = returns.iter().map(Vec::len).min()?;
    if trials < 2 || periods < 8 {
        return None;
    }
    let blocks = blocks(trials, periods);
    let sums: Vec<Vec<Sums>> = returns.iter().map(|trial| Sums::of_blocks(&trial[..periods], blocks)).collect();
    let (mut ways, mut overfit, mut lost) = (0u64, 0u64, 0u64);
    let mut outside = vec![0.0; trials];
    for mask in 0u32..1 << blocks {
        if mask.count_ones() as usize != blocks / 2 {
            continue;
        }
        let mut best = (f64::NEG_INFINITY, 0);
        for (t, parts) in sums.iter().enumerate() {
            let (mut inside, mut rest) = (Sums::default(), Sums::default());
            for (b, part) in parts.iter().enumerate() {
                let half = if mask >> b & 1 == 1 { &mut inside } else { &mut rest };
                half.add(part);
            }
            if inside.sharpe() > best.0 {
                best = (inside.sharpe(), t);
            }
            outside[t] = rest.sharpe();
        }
        let chosen = outside[best.1];
        let below = outside.iter().filter(|s| **s < chosen).count() as f64;
        let equal = outside.iter().filter(|s| **s == chosen).count() as f64;
        let rank = below + (equal + 1.0) / 2.0;
        ways += 1;
        overfit += u64::from(2.0 * rank <= trials as f64 + 1.0);
        lost += u64::from(chosen < 0.0);
    }
    let share = |count: u64| count as f64 / ways as f64;
    Some(Overfitting { probability: share(overfit), loss_probability: share(lost), blocks, ways })
}

/// An even number of blocks of at least two periods each, fewer where the work would be too much.
fn blocks(trials: usize, periods: usize) -> usize {
    let mut blocks = BLOCKS_MAX.min(periods / 2) & !1;
    while blocks > 4 && ways_of(blocks) * trials as u64 > WORK_MAX {
        blocks -= 2;
    }
    blocks
}

/// `blocks` choose half of them.
fn ways_of(blocks: usize) -> u64 {
    (1..=blocks as u64 / 2).fold(1, |ways, i| ways * (blocks as u64 / 2 + i) / i)
}

/// Sums that give a Sharpe ratio, and add up.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Sums {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    /// Blocks of equal length; what is left over belongs to the last ones.
    fn of_blocks(returns: &[f64], blocks: usize) -> Vec<Self> {
        let edge = |b: usize| b * returns.len() / blocks;
        (0..blocks)
            .map(|b| {
                let part = &returns[edge(b)..edge(b + 1)];
                Self { n: part.len() as f64, sum: part.iter().sum(), squares: part.iter().map(|r| r * r).sum() }
            })
            .collect()
    }
    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
    }
    /// 0 where nothing moves: a trial that never traded is neither good nor bad.
    fn sharpe(&self) -> f64 {
        let mean = self.sum / self.n;
        let variance = (self.squares - self.sum * mean) / (self.n - 1.0);
        let sharpe = mean / variance.sqrt();
        if sharpe.is_finite() { sharpe } else { 0.0 }
    }
}

/// Φ, the standard normal distribution function.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// Φ⁻¹, by bisection: the nearest double, for 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    // Each step halves the range; 128 of them leave no double between the ends.
    for _ in 0..128 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a}, expected {b}");
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_tables() {
        near(normal_cdf(0.0), 0.5, 0.0);
        near(normal_cdf(1.96), 0.975_002_104_851_780, 1e-14);
        near(normal_cdf(-3.0), 0.001_349_898_031_630_095, 1e-16);
        near(normal_quantile(0.975), 1.959_963_984_540_054, 1e-13);
        near(normal_quantile(0.01), -2.326_347_874_040_841, 1e-13);
    }

    #[test]
    fn probabilistic_sharpe_is_the_papers_hedge_fund() {
        // Bailey and Lopez de Prado 2012: 24 monthly returns, a Sharpe ratio of 0.458 a month. 0.982 if they were
        // normal; 0.913 with the skewness and kurtosis that they had.
        let normal = Moments { n: 24, sharpe: 0.458, skewness: 0.0, kurtosis: 3.0 };
        near(normal.probabilistic_sharpe(0.0).unwrap(), 0.982, 5e-4);
        let real = Moments { skewness: -2.448, kurtosis: 10.164, ..normal };
        near(real.probabilistic_sharpe(0.0).unwrap(), 0.913, 5e-4);
    }

    #[test]
    fn deflated_sharpe_is_the_papers_example() {
        // Bailey and Lopez de Prado 2014: an annual Sharpe ratio of 2.5 over 1,250 days, 250 a year, skewness -3,
        // kurtosis 10. Annual variance of the trials' Sharpe ratios 1/2: SR0 = 0.1132 and DSR = 0.9004 for 100 trials,
        // 0.9505 for 46.
        let best = Moments { n: 1_250, sharpe: 2.5 / 250f64.sqrt(), skewness: -3.0, kurtosis: 10.0 };
        let deflated = |trials| best.probabilistic_sharpe(expected_maximum_sharpe(0.5 / 250.0, trials)).unwrap();
        near(expected_maximum_sharpe(0.5 / 250.0, 100), 0.1132, 5e-5);
        near(deflated(100), 0.9004, 5e-5);
        near(deflated(46), 0.9505, 5e-5);
    }

    #[test]
    fn moments_of_a_small_series_are_those_done_by_hand() {
        // 1, 2, 6: mean 3, deviations -2 -1 3; sums of powers 14, 18, 98.
        let m = Moments::of(&[1.0, 2.0, 6.0]).unwrap();
        near(m.sharpe, 3.0 / 7f64.sqrt(), 1e-15);
        near(m.skewness, 6.0 / (14f64 / 3.0).powf(1.5), 1e-15);
        near(m.kurtosis, 98.0 / 3.0 / (14f64 / 3.0).powi(2), 1e-15);
        assert_eq!(Moments::of(&[0.1; 50]), None);
    }

    #[test]
    fn cross_validation_of_two_trials_is_that_done_by_hand() {
        // Blocks of two periods. A earns in the first half of time, B in the second, so the best of any half that is
        // not balanced is the worst of the other: 1 1 0 0 and 0 0 1 1 give rank 1 of 2. The four balanced halves
        // tie: A counts, with the mean rank 1.5 of 2, which is the median.
        let (good, bad) = ([0.03, 0.01], [-0.01, -0.03]);
        let a: Vec<f64> = [good, good, bad, bad].concat();
        let b: Vec<f64> = [bad, bad, good, good].concat();
        let found = overfitting(&[a.clone(), b]).unwrap();
        assert_eq!((found.blocks, found.ways, found.probability), (4, 6, 1.0));
        // Half of the ways that are not balanced lose; in the balanced ones the mean is 0.
        near(found.loss_probability, 2.0 / 6.0, 1e-12);
        // One that is better everywhere is not overfit.
        let worse: Vec<f64> = a.iter().map(|r| r - 0.02).collect();
        assert_eq!(overfitting(&[worse, a]).unwrap().probability, 0.0);
    }

    #[test]
    fn the_number_of_ways_is_bounded_by_fewer_blocks() {
        assert_eq!((ways_of(16), ways_of(4), blocks(100, 1_000)), (12_870, 6, 16));
        assert!(blocks(100_000, 1_000) < 16);
        assert_eq!(blocks(2, 9), 4);
        assert_eq!(overfitting(&vec![vec![0.1; 7]; 3]), None);
    }

    #[test]
    fn noise_is_found_to_be_overfit_about_half_of_the_time() {
        let mut state = 7u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / 2f64.powi(31) - 0.5
        };
        let mut trials: Vec<Vec<f64>> = (0..40).map(|_| (0..320).map(|_| noise()).collect()).collect();
        let luck = overfitting(&trials).unwrap();
        assert!((0.2..0.8).contains(&luck.probability), "{luck:?}");
        trials[3].iter_mut().for_each(|r| *r += 0.2);
        let skill = overfitting(&trials).unwrap();
        assert!(skill.probability < 0.01, "{skill:?}");
    }

    proptest! {
        #[test]
        fn a_quantile_is_where_the_distribution_reaches_it(p in 1e-6f64..0.999_999) {
            prop_assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-12);
        }

        #[test]
        fn more_trials_and_longer_odds_only_deflate(trials in 2usize..5_000, sharpe in 0.01f64..0.3, n in 30usize..2_000) {
            let best = Moments { n, sharpe, skewness: -0.5, kurtosis: 4.0 };
            let variance = 0.001;
            prop_assert!(expected_maximum_sharpe(variance, trials) < expected_maximum_sharpe(variance, trials + 1));
            let plain = best.probabilistic_sharpe(0.0).unwrap();
            let deflated = best.probabilistic_sharpe(expected_maximum_sharpe(variance, trials)).unwrap();
            prop_assert!(deflated <= plain && plain > 0.5);
        }

        #[test]
        fn scale_and_order_of_trials_do_not_change_the_verdict(
            trials in prop::collection::vec(prop::collection::vec(-0.1f64..0.1, 24), 2..6),
            scale in 1i32..6,
        ) {
            let found = overfitting(&trials).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.probability));
            // A power of two scales doubles without rounding.
            let scaled: Vec<Vec<f64>> = trials.iter().map(|t| t.iter().map(|r| r * 2f64.powi(scale)).collect()).collect();
            prop_assert_eq!(overfitting(&scaled).unwrap(), found);
            let mut turned = trials.clone();
            turned.rotate_left(1);
            prop_assert_eq!(overfitting(&turned).unwrap().probability, found.probability);
        }
    }
}
