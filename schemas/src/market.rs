//! What aggregate says: closed candles, their indicators, late trades; forming candles for watchers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::Cause;
use crate::num::{Nanos, Notional, Price, Qty};
use crate::subject;
use crate::wire::{Fact, Version};

/// What closed a candle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClosedBy {
    /// A trade of a later bucket.
    Trade,
    /// A `clock` fact whose watermark passed the close plus grace.
    Clock,
    /// The bar's own threshold (tick, volume and notional bars), or the end of a batch.
    Count,
    /// It is still forming (`preview.>` only).
    Open,
    /// The venue's own candle from before we listened. It warms indicators and strategies, nothing is traded on it, and
    /// what venues do not tell of it is 0: `buy_volume`, `buy_trades`.
    History,
}

/// A final candle: append-only, one per (symbol, timeframe, open).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candle {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    pub p: u32,
    /// `1s` .. `1d` for time bars; `tick-100`, `volume-5`, `notional-10000` for the others.
    pub tf: String,
    /// Start of the bucket, event time, epoch-aligned UTC. Other bars: time of the first trade.
    pub open_ns: i64,
    /// First instant behind the bucket. Other bars: time of the last trade.
    pub close_ns: i64,
    pub open: Price,
    pub high: Price,
    pub low: Price,
    pub close: Price,
    /// In the instrument's size unit.
    pub volume: Qty,
    /// Part of `volume` that takers bought.
    pub buy_volume: Qty,
    /// Sum of price * size.
    pub quote_volume: Notional,
    pub trades: u64,
    pub buy_trades: u64,
    /// Venue trade ids; absent in a candle without trades.
    pub first_id: Option<u64>,
    pub last_id: Option<u64>,
    pub closed_by: ClosedBy,
    /// We saw the whole interval: no start of ours and no gap inside it.
    pub complete: bool,
    /// No trade at all: prices repeat the previous close (only when configured).
    pub filled: bool,
    pub cause: Cause,
}

impl Candle {
    /// Volume-weighted average price; `None` without volume. A ratio, so a float.
    pub fn vwap(&self) -> Option<f64> {
        (!self.volume.is_zero()).then(|| self.quote_volume.to_f64() / self.volume.to_f64())
    }
    pub fn open_time(&self) -> Nanos {
        Nanos(self.open_ns)
    }
    pub fn close_time(&self) -> Nanos {
        Nanos(self.close_ns)
    }
}
impl Fact for Candle {
    const KIND: &'static str = "candle";
    fn subject(&self) -> String {
        let kind = if self.closed_by == ClosedBy::Open { "preview" } else { Self::KIND };
        subject::market(kind, self.p, &self.venue, &self.tf, &self.symbol)
    }
}

/// All indicator outputs of one closed candle; an output that is not warmed up is absent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Indicators {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    pub p: u32,
    pub tf: String,
    pub open_ns: i64,
    pub close_ns: i64,
    /// The candle's close, so that a reader needs no join.
    pub close: Price,
    /// The candle was complete.
    pub complete: bool,
    /// By output name, such as `ema.ema_9`, `bbands.upper`. Statistics, not money: floats.
    pub values: BTreeMap<String, f64>,
    /// Values that were computed over a gap: by output name, how many of the bars that it looks back on (its own
    /// included) were not seen whole. Bars in front of the first whole one do not count: see [`crate::holes::Holes`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gaps: BTreeMap<String, u32>,
    pub cause: Cause,
}
impl Indicators {
    /// Bars over a gap behind these outputs: of the one that looks back on most.
    pub fn gap_bars(&self, outputs: &[impl AsRef<str>]) -> u32 {
        outputs.iter().filter_map(|name| self.gaps.get(name.as_ref())).copied().max().unwrap_or(0)
    }
}
impl Fact for Indicators {
    const KIND: &'static str = "indicator";
    fn subject(&self) -> String {
        subject::market(Self::KIND, self.p, &self.venue, &self.tf, &self.symbol)
    }
}

/// A trade whose candle was closed before it came; the candle stays as it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Late {
    pub v: Version,
    pub venue: String,
    pub symbol: String,
    pub p: u32,
    pub ts_ns: i64,
    pub id: u64,
    pub price: Price,
    pub size: Qty,
    /// The smallest timeframe whose candle was closed already.
    pub tf: String,
    pub cause: Cause,
}
impl Fact for Late {
    const KIND: &'static str = "late";
    fn subject(&self) -> String {
        subject::late(self.p, &self.venue, &self.symbol)
    }
}
