//! Aroon.

use serde::{Deserialize, Serialize};

use super::window::{Fold, Rolling};
use super::{Kernel, Ohlcv};

/// The extremes of a window and the bars they stand at; of equal ones the newest counts.
#[derive(Clone, Debug)]
pub struct Newest;

/// (lowest, its bar, highest, its bar).
type Extremes = (f64, u64, f64, u64);

impl Fold for Newest {
    type Item = Extremes;
    const NONE: Extremes = (f64::INFINITY, 0, f64::NEG_INFINITY, 0);
    fn join(older: Extremes, newer: Extremes) -> Extremes {
        let (low, low_at) = if newer.0 <= older.0 { (newer.0, newer.1) } else { (older.0, older.1) };
        let (high, high_at) = if newer.2 >= older.2 { (newer.2, newer.3) } else { (older.2, older.3) };
        (low, low_at, high, high_at)
    }
}

/// up, down: 100 when the extreme of n + 1 bars is this bar, 0 when it is the oldest; osc = up - down.
#[derive(Clone, Serialize, Deserialize)]
pub struct Aroon {
    window: Rolling<Newest>,
    n: f64,
    bars: u64,
}

impl Aroon {
    pub fn new(n: usize) -> Self {
        Self { window: Rolling::new(n + 1), n: n as f64, bars: 0 }
    }
}
impl Kernel<3> for Aroon {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 3] {
        self.bars += 1;
        let Some((_, low_at, _, high_at)) = self.window.push((bar.low, self.bars, bar.high, self.bars)) else {
            return [f64::NAN; 3];
        };
        let nearness = |at: u64| 100.0 * ((self.n - (self.bars - at) as f64) / self.n);
        let (up, down) = (nearness(high_at), nearness(low_at));
        [up, down, up - down]
    }
}
