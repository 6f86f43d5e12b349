//! Money flow index.

use serde::{Deserialize, Serialize};

use super::window::{Rolling, Sum2};
use super::{Kernel, Ohlcv};

/// Typical prices nearer than this part of the price are equal: (h+l+c)/3 of the same ticks can differ in its last
/// digits, and a whole bar's volume would be counted as flow. A tick is thousands of times larger.
const EQUAL: f64 = 1e-13;

/// 100 * flow up / all flow over `n` moves of the typical price, flow = typical price * volume; 0 without flow.
#[derive(Clone, Serialize, Deserialize)]
pub struct Mfi {
    /// `NaN` before the first bar.
    before: f64,
    flow: Rolling<Sum2>,
}

impl Mfi {
    pub fn new(n: usize) -> Self {
        Self { before: f64::NAN, flow: Rolling::new(n) }
    }
}
impl Kernel<1> for Mfi {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let typical = bar.typical();
        let before = std::mem::replace(&mut self.before, typical);
        if before.is_nan() {
            return [f64::NAN];
        }
        let (change, flow) = (typical - before, typical * bar.volume);
        let signed = match change {
            c if c.abs() <= EQUAL * typical.abs() => (0.0, 0.0),
            c if c > 0.0 => (flow, 0.0),
            _ => (0.0, flow),
        };
        let Some((up, down)) = self.flow.push(signed) else {
            return [f64::NAN];
        };
        let all = up + down;
        if all == 0.0 { [0.0] } else { [100.0 * (up / all)] }
    }
}
