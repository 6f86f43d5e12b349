//! Hull moving average.

use serde::{Deserialize, Serialize};

use super::wma::Weighted;
use super::{Kernel, Ohlcv};

/// WMA(2*WMA(n/2) - WMA(n), sqrt n), half and root rounded down.
#[derive(Clone, Serialize, Deserialize)]
pub struct Hma {
    half: Weighted,
    whole: Weighted,
    last: Weighted,
}

impl Hma {
    pub fn new(n: usize) -> Self {
        Self { half: Weighted::new(n / 2), whole: Weighted::new(n), last: Weighted::new(n.isqrt()) }
    }
}
impl Kernel<1> for Hma {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let (half, whole) = (self.half.push(bar.close), self.whole.push(bar.close));
        if whole.is_nan() { [whole] } else { [self.last.push(2.0 * half - whole)] }
    }
}
