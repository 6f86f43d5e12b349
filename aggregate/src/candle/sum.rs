//! What a bucket knows of its trades.

use schemas::Scale;
use serde::{Deserialize, Serialize};

/// Numbers of a symbol do not fit the integers that they are folded in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    #[error("{what} does not fit 128 bits at scale {scale:?}")]
    Sum { what: &'static str, scale: Scale },
    #[error("mantissa {mantissa} does not fit 63 bits at {digits} digits more")]
    Rescale { mantissa: i64, digits: u8 },
}

/// Exact sums over the trades of one bucket, as mantissas at the symbol's scale. Without trades the prices of
/// [`Sum::flat`] stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sum {
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    /// Sum of sizes.
    pub volume: i128,
    /// Sum of the sizes that takers bought.
    pub buy_volume: i128,
    /// Sum of price times size, at `Scale::price + Scale::qty` digits.
    pub quote: i128,
    pub trades: u64,
    pub buy_trades: u64,
    /// Venue ids of the first and last trade; 0 where the venue gives none.
    pub first_id: u64,
    pub last_id: u64,
}

impl Sum {
    pub const EMPTY: Self = Self {
        open: 0,
        high: i64::MIN,
        low: i64::MAX,
        close: 0,
        volume: 0,
        buy_volume: 0,
        quote: 0,
        trades: 0,
        buy_trades: 0,
        first_id: 0,
        last_id: 0,
    };

    /// A bucket without trades at the price of the one before it.
    pub fn flat(price: i64) -> Self {
        Self { open: price, high: price, low: price, close: price, ..Self::EMPTY }
    }

    pub fn is_empty(&self) -> bool {
        self.trades == 0
    }

    /// Adds one trade; true when the quote sum left 128 bits (the sum is useless then).
    #[inline(always)]
    pub(super) fn add(&mut self, price: i64, size: i64, buy: bool, id: u64) -> bool {
        if self.trades == 0 {
            self.open = price;
            self.first_id = id;
        }
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.close = price;
        self.last_id = id;
        self.trades += 1;
        self.buy_trades += buy as u64;
        self.volume += size as i128;
        // Masked instead of branched on: which side comes next is a coin toss.
        self.buy_volume += (size & -(buy as i64)) as i128;
        let (quote, over) = self.quote.overflowing_add(price as i128 * size as i128);
        self.quote = quote;
        over
    }

    /// Adds the trades of `later`, which came behind all of this bucket's; `None` when a sum leaves 128 bits.
    pub(super) fn merge(&mut self, later: &Self) -> Option<()> {
        if later.is_empty() {
            return Some(());
        }
        if self.is_empty() {
            *self = *later;
            return Some(());
        }
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.close = later.close;
        self.last_id = later.last_id;
        self.trades += later.trades;
        self.buy_trades += later.buy_trades;
        self.volume = self.volume.checked_add(later.volume)?;
        self.buy_volume = self.buy_volume.checked_add(later.buy_volume)?;
        self.quote = self.quote.checked_add(later.quote)?;
        Some(())
    }

    /// The same values with `price` and `qty` digits more; `None` when one does not fit.
    pub(super) fn rescale(&mut self, price: u8, qty: u8) -> Option<()> {
        if self.is_empty() {
            return Some(());
        }
        let price_factor = 10i64.checked_pow(price as u32)?;
        let qty_factor = 10i128.checked_pow(qty as u32)?;
        for value in [&mut self.open, &mut self.high, &mut self.low, &mut self.close] {
            *value = value.checked_mul(price_factor)?;
        }
        self.volume = self.volume.checked_mul(qty_factor)?;
        self.buy_volume = self.buy_volume.checked_mul(qty_factor)?;
        self.quote = self.quote.checked_mul(qty_factor.checked_mul(price_factor as i128)?)?;
        Some(())
    }
}
