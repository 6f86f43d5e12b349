//! What a venue trades and by which steps.

use serde::{Deserialize, Serialize};

use crate::fixed::Scale;
use crate::num::{Nanos, Notional, Price, Qty, civil_day};
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
    /// What a contract adds to a pair of coins.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
}

/// Whether an option is a right to buy or to sell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionRight {
    Call,
    Put,
}

/// The terms of a contract; each only where the venue states it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// The currency in which profit and loss are paid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub settle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strike: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<OptionRight>,
    /// The venue's own word for its state.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The same thing on every venue: see [`Instrument::canonical_name`]. Empty in what was stored before there was one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical: String,
}

impl Terms {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Other names of a coin, and its usual one.
const ALIASES: &[(&str, &str)] = &[("XBT", "BTC"), ("XDG", "DOGE")];

fn coin(name: &str) -> String {
    let upper = name.to_uppercase();
    ALIASES.iter().find(|(alias, _)| *alias == upper).map_or(upper, |(_, usual)| (*usual).to_owned())
}

impl Instrument {
    /// One name for the same thing on different venues: `BTC/USDT` spot, `BTC/USDT:USDT` a perpetual settled in USDT,
    /// `BTC/USD:BTC-220325` a future that expires on that day (UTC), `BTC/USD:BTC-220624-50000-C` an option. Combos keep
    /// the venue's symbol. (The convention is the one that ccxt made common.)
    pub fn canonical_name(&self) -> String {
        let (base, quote) = (coin(&self.base), coin(&self.quote));
        let pair = format!("{base}/{quote}");
        let settle = match self.terms.settle.as_str() {
            "" if self.inverse => base,
            "" => quote,
            stated => coin(stated),
        };
        let day = self.terms.expiry_ns.map(expiry_day).unwrap_or_default();
        match self.kind {
            InstrumentKind::Spot => pair,
            InstrumentKind::Perpetual => format!("{pair}:{settle}"),
            InstrumentKind::Future => format!("{pair}:{settle}-{day}"),
            InstrumentKind::Option => {
                let strike = self.terms.strike.map(|s| s.get().normalize().to_string()).unwrap_or_default();
                let right = match self.terms.right {
                    Some(OptionRight::Call) => "C",
                    Some(OptionRight::Put) => "P",
                    None => "",
                };
                format!("{pair}:{settle}-{day}-{strike}-{right}")
            }
            InstrumentKind::Combo => self.symbol.clone(),
        }
    }

    /// With its canonical name filled in.
    pub fn named(mut self) -> Self {
        self.terms.canonical = self.canonical_name();
        self
    }
}

/// `yymmdd` of a time, in UTC.
fn expiry_day(ns: i64) -> String {
    let (year, month, day) = civil_day(ns.div_euclid(Nanos::PER_DAY));
    format!("{:02}{month:02}{day:02}", year.rem_euclid(100))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instrument(kind: InstrumentKind, base: &str, quote: &str, inverse: bool, terms: Terms) -> Instrument {
        Instrument {
            v: Version,
            venue: "v".into(),
            symbol: "S".into(),
            base: base.into(),
            quote: quote.into(),
            kind,
            size_unit: SizeUnit::Base,
            contract_size: Qty::new(1.into()),
            inverse,
            tick: Price::ZERO,
            lot: Qty::ZERO,
            min_notional: Notional::ZERO,
            scale: Scale::default(),
            trading: true,
            terms,
        }
    }

    #[test]
    fn the_same_thing_has_one_name_on_every_venue() {
        let day = |text: &str| text.parse::<i64>().unwrap() * 1_000_000;
        let dated = |ms: &str| Terms { expiry_ns: Some(day(ms)), ..Terms::default() };
        let name = |kind, base, quote, inverse, terms| instrument(kind, base, quote, inverse, terms).canonical_name();
        use InstrumentKind::*;
        assert_eq!(name(Spot, "xbt", "usdt", false, Terms::default()), "BTC/USDT");
        assert_eq!(name(Perpetual, "BTC", "USDT", false, Terms::default()), "BTC/USDT:USDT");
        assert_eq!(name(Perpetual, "BTC", "USD", true, Terms::default()), "BTC/USD:BTC");
        assert_eq!(name(Future, "BTC", "USD", true, dated("1648195200000")), "BTC/USD:BTC-220325");
        let option = Terms {
            settle: "BTC".into(),
            strike: Some(Price::new("50000.0".parse().unwrap())),
            right: Some(OptionRight::Put),
            ..dated("1656057600000")
        };
        assert_eq!(name(Option, "BTC", "USD", false, option), "BTC/USD:BTC-220624-50000-P");
    }

    #[test]
    fn what_was_stored_before_there_were_terms_is_read_and_written_as_it_was() {
        let plain = instrument(InstrumentKind::Spot, "BTC", "USDT", false, Terms::default());
        let bytes = plain.encode();
        assert!(!bytes.windows(5).any(|w| w == b"terms"));
        assert_eq!(Instrument::decode(&bytes).unwrap(), plain);
    }
}
