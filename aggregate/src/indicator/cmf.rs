//! Chaikin money flow.

use serde::{Deserialize, Serialize};

use super::ad::flow;
use super::window::{Rolling, Sum2};
use super::{Kernel, Ohlcv};

/// Accumulated flow over volume of `n` bars, -1..1; no value where nothing was traded.
#[derive(Clone, Serialize, Deserialize)]
pub struct Cmf(Rolling<Sum2>);

impl Cmf {
    pub fn new(n: usize) -> Self {
        Self(Rolling::new(n))
    }
}
impl Kernel<1> for Cmf {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        match self.0.push((flow(bar), bar.volume)) {
            Some((flow, volume)) if volume > 0.0 => [flow / volume],
            _ => [f64::NAN],
        }
    }
}
