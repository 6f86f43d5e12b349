//! Volume-weighted average price of a day and of a window.

use serde::{Deserialize, Serialize};

use super::window::{Rolling, Sum2};
use super::{Kernel, Ohlcv};

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// Of the UTC day: typical price weighted by volume since 00:00; the bar that opens at 00:00 begins the day. No
/// value before the day's first trade.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    day: i64,
    worth: f64,
    volume: f64,
}

impl Session {
    pub fn new() -> Self {
        Self { day: i64::MIN, worth: 0.0, volume: 0.0 }
    }
}
impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}
impl Kernel<1> for Session {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let day = bar.open_ns.div_euclid(DAY_NS);
        if day != self.day {
            *self = Self { day, worth: 0.0, volume: 0.0 };
        }
        self.worth += bar.typical() * bar.volume;
        self.volume += bar.volume;
        if self.volume > 0.0 { [self.worth / self.volume] } else { [f64::NAN] }
    }
}

/// Of the newest `n` bars; no value where nothing was traded.
#[derive(Clone, Serialize, Deserialize)]
pub struct Recent(Rolling<Sum2>);

impl Recent {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<1> for Recent {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        match self.0.push((bar.typical() * bar.volume, bar.volume)) {
            Some((worth, volume)) if volume > 0.0 => [worth / volume],
            _ => [f64::NAN],
        }
    }
}
