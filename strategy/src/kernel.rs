//! Small streaming averages for strategies whose periods are free: aggregate publishes its indicators for fixed
//! periods only. Conventions are TA-Lib's, so where a period is published the numbers agree.
//!
//! One rule decides who computes what: a strategy with free periods (`ema_cross`, `rsi_mean_reversion`) computes
//! from candles here and needs no indicator fact; a strategy over a fixed, published indicator (`macd_trend`,
//! `bollinger_breakout`, `supertrend`) declares the outputs and computes nothing.

use serde::{Deserialize, Serialize};

/// Exponential moving average, seeded with the mean of the first `period` values; alpha = 2 / (period + 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ema {
    period: u32,
    seen: u32,
    /// Sum while seeding, then the average.
    value: f64,
}

impl Ema {
    pub fn new(period: u32) -> Self {
        Self { period, seen: 0, value: 0.0 }
    }
    /// Values until one weighs a hundredth of what it did: `ln 100 / -ln(1 - 2 / (period + 1))`, which is below
    /// `2.303 (period + 1)`.
    pub fn memory_bars(period: u32) -> u32 {
        (period + 1).saturating_mul(2303).div_ceil(1000)
    }
    /// `None` before `period` values.
    pub fn push(&mut self, x: f64) -> Option<f64> {
        if self.seen < self.period {
            self.seen += 1;
            self.value += x;
            if self.seen < self.period {
                return None;
            }
            self.value /= f64::from(self.period);
        } else {
            self.value += (x - self.value) * (2.0 / (f64::from(self.period) + 1.0));
        }
        Some(self.value)
    }
}

/// Wilder's relative strength index, 0..100, seeded with the mean of the first `period` changes; 0 where nothing
/// has moved at all (TA-Lib's answer to 0/0).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rsi {
    period: u32,
    changes: u32,
    last: Option<f64>,
    gain: f64,
    loss: f64,
}

impl Rsi {
    pub fn new(period: u32) -> Self {
        Self { period, changes: 0, last: None, gain: 0.0, loss: 0.0 }
    }
    /// Values until a change weighs a hundredth of what it did: `ln 100 / -ln(1 - 1 / period)`, which is below
    /// `4.606 period`; and the value before, since it averages changes.
    pub fn memory_bars(period: u32) -> u32 {
        period.saturating_mul(4606).div_ceil(1000) + 1
    }
    /// `None` before `period` changes, which is `period + 1` values.
    pub fn push(&mut self, x: f64) -> Option<f64> {
        let change = x - self.last.replace(x)?;
        let (up, down) = (change.max(0.0), (-change).max(0.0));
        let n = f64::from(self.period);
        if self.changes < self.period {
            self.changes += 1;
            self.gain += up;
            self.loss += down;
            if self.changes < self.period {
                return None;
            }
            self.gain /= n;
            self.loss /= n;
        } else {
            self.gain = (self.gain * (n - 1.0) + up) / n;
            self.loss = (self.loss * (n - 1.0) + down) / n;
        }
        let total = self.gain + self.loss;
        Some(if total == 0.0 { 0.0 } else { 100.0 * self.gain / total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_starts_as_the_mean_of_its_first_period() {
        let mut ema = Ema::new(3);
        assert_eq!([1.0, 2.0, 6.0, 7.0].map(|x| ema.push(x)), [None, None, Some(3.0), Some(5.0)]);
    }

    #[test]
    fn strength_is_all_gain_all_loss_or_nothing() {
        let run = |values: &[f64]| {
            let mut rsi = Rsi::new(2);
            values.iter().map(|&x| rsi.push(x)).collect::<Vec<_>>()
        };
        assert_eq!(run(&[1.0, 2.0, 3.0]), [None, None, Some(100.0)]);
        assert_eq!(run(&[3.0, 2.0, 1.0]), [None, None, Some(0.0)]);
        assert_eq!(run(&[2.0, 2.0, 2.0]), [None, None, Some(0.0)]);
    }
}
