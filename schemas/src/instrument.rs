//! What a venue trades and by which steps.

use serde::{Deserialize, Serialize};

use crate::fixed::Scale;
use crate::num::{Notional, Price, Qty};
use crate::subject;
use crate::wire::{Fact, Version};

/// The kind of contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstrumentKind {
    Spot,
    Perpetual,
    Future,
    Option,
    Combo,
}

/// What one unit of an instrument's size is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeUnit {
    /// Coins of the base currency.
    #[default]
    Base,
    /// Quote currency (Deribit inverse: USD).
    QuoteUsd,
    /// Contracts of `contract_size`.
    Contracts,
}

/// One instrument as its venue describes it; lives in KV `instruments` under `<venue>.<symbol>`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Instrument {
    pub v: Version,
    pub venue: String,
    /// The venue's own symbol.
    pub symbol: String,
    pub base: String,
    pub quote: String,
    pub kind: InstrumentKind,
    #[serde(default)]
    pub size_unit: SizeUnit,
    /// Size of one contract in quote (inverse) or base (linear); 1 for spot.
    pub contract_size: Qty,
    /// Settled in the base coin.
    pub inverse: bool,
    /// Smallest price step; zero when unknown.
    pub tick: Price,
    /// Smallest size step; zero when unknown.
    pub lot: Qty,
    /// Smallest order in quote currency; zero when the venue states none.
    pub min_notional: Notional,
    /// Digits of prices and sizes on the hot path.
    pub scale: Scale,
    /// The venue accepts orders in it now.
    pub trading: bool,
}

impl Fact for Instrument {
    const KIND: &'static str = "instrument";
    fn subject(&self) -> String {
        format!(
            "$KV.{}.{}",
            subject::stream::KV_INSTRUMENTS,
            subject::stream::instrument_key(&self.venue, &self.symbol)
        )
    }
}
