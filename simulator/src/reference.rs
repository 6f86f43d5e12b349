//! The fair value of a coin: a random walk whose volatility clusters. Every venue makes its own copy from the same
//! seed, so all venues agree on the price without talking to each other.

use crate::rng::Rng;

/// The walk moves once in this many nanoseconds.
pub const STEP_NS: i64 = 50_000_000;
const YEAR_S: f64 = 31_557_600.0;
// GARCH(1,1): how much of the last move and of the last variance lives on.
const SHOCK: f64 = 0.08;
const MEMORY: f64 = 0.90;

/// How wild the walk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mood {
    /// Standard deviation of a year's move as a fraction: 0.8 is 80 % a year.
    pub volatility: f64,
    /// How much of every coin's move is the whole market's, 0 to 1.
    pub correlation: f64,
}

/// One coin's walk. Pure: the time goes in, the price comes out.
#[derive(Clone, Debug)]
pub struct Walk {
    mood: Mood,
    own: Rng,
    /// Same label for every coin: all copies draw the same market-wide moves and regime changes.
    common: Rng,
    start: f64,
    price: f64,
    /// Variance of one step, relative to the long-run one.
    heat: f64,
    wild: bool,
    next_ns: i64,
}

impl Walk {
    pub fn new(seed: u64, coin: &str, start: f64, mood: Mood, start_ns: i64) -> Self {
        Self {
            mood,
            own: Rng::new(seed, &format!("walk/{coin}")),
            common: Rng::new(seed, "walk/*"),
            start,
            price: start,
            heat: 1.0,
            wild: false,
            next_ns: start_ns + STEP_NS,
        }
    }

    /// Takes every step due at or before `now_ns`; time does not go back.
    pub fn advance(&mut self, now_ns: i64) {
        while self.next_ns <= now_ns {
            self.next_ns += STEP_NS;
            self.step();
        }
    }

    /// Quote per base.
    pub fn price(&self) -> f64 {
        self.price
    }

    /// Present standard deviation over the long-run one, 0.25 to 4: how busy the market is.
    pub fn activity(&self) -> f64 {
        (self.heat.sqrt() * self.regime()).clamp(0.25, 4.0)
    }

    fn regime(&self) -> f64 {
        if self.wild { 2.2 } else { 0.75 }
    }

    fn step(&mut self) {
        // Calm lasts about 100 seconds, a storm about 25.
        let turn = self.common.unit();
        self.wild = if self.wild { turn >= 0.002 } else { turn < 0.0005 };
        let rho = self.mood.correlation;
        let z = rho * self.common.normal() + (1.0 - rho * rho).max(0.0).sqrt() * self.own.normal();
        let sigma = self.mood.volatility * (STEP_NS as f64 / 1e9 / YEAR_S).sqrt();
        let shock = self.heat.sqrt() * z;
        self.heat = (1.0 - SHOCK - MEMORY) + SHOCK * shock * shock + MEMORY * self.heat;
        let moved = self.price * (1.0 + sigma * self.regime() * shock);
        // A run of months at high speed must not leave the price grid.
        self.price = moved.clamp(self.start / 20.0, self.start * 20.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOOD: Mood = Mood { volatility: 0.8, correlation: 0.6 };

    fn returns(coin: &str, n: i64) -> Vec<f64> {
        let mut walk = Walk::new(1, coin, 100.0, MOOD, 0);
        let mut last = 100.0;
        (1..=n)
            .map(|i| {
                walk.advance(i * STEP_NS);
                let r = walk.price() / last - 1.0;
                last = walk.price();
                r
            })
            .collect()
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let n = a.len() as f64;
        let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
        let cov: f64 = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum();
        let va: f64 = a.iter().map(|x| (x - ma) * (x - ma)).sum();
        let vb: f64 = b.iter().map(|x| (x - mb) * (x - mb)).sum();
        cov / (va * vb).sqrt()
    }

    #[test]
    fn volatility_clusters_while_returns_do_not_follow_each_other() {
        let r = returns("BTC", 40_000);
        let size: Vec<f64> = r.iter().map(|x| x.abs()).collect();
        assert!(correlation(&size[..size.len() - 1], &size[1..]) > 0.1);
        assert!(correlation(&r[..r.len() - 1], &r[1..]).abs() < 0.05);
    }

    #[test]
    fn coins_move_together_as_much_as_asked() {
        let c = correlation(&returns("BTC", 20_000), &returns("ETH", 20_000));
        assert!((0.25..0.5).contains(&c), "{c}");
    }

    #[test]
    fn many_small_steps_in_time_are_one_large_one() {
        let mut a = Walk::new(3, "BTC", 100.0, MOOD, 0);
        let mut b = a.clone();
        a.advance(10_000_000_000);
        (0..=1000).for_each(|i| b.advance(i * 10_000_000));
        assert_eq!(a.price(), b.price());
    }
}
