//! Bars that close by what was traded, not by the time: so many trades, so much volume, so much money.

use std::fmt;
use std::str::FromStr;

use schemas::{Decimal, Scale};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sum::Sum;

/// A text is not a bar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a bar: tick-100, volume-2.5 or notional-10000 (a positive number, whole for ticks)")]
pub struct BarError(String);

/// What a bar counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// Trades.
    Tick,
    /// The instrument's size unit.
    Volume,
    /// Quote currency: price times size.
    Notional,
}

/// When a bar closes: with the trade that brings its count to `limit`. A trade is never split, so a bar may hold
/// more than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarSpec {
    pub kind: BarKind,
    pub limit: Decimal,
}

impl FromStr for BarSpec {
    type Err = BarError;
    fn from_str(text: &str) -> Result<Self, BarError> {
        let wrong = || BarError(text.to_owned());
        let (kind, limit) = text.split_once('-').ok_or_else(wrong)?;
        let kind = match kind {
            "tick" => BarKind::Tick,
            "volume" => BarKind::Volume,
            "notional" => BarKind::Notional,
            _ => return Err(wrong()),
        };
        let limit = schemas::num::parse_decimal(limit).map_err(|_| wrong())?;
        let whole = kind != BarKind::Tick || limit.is_integer();
        if limit <= Decimal::ZERO || !whole {
            return Err(wrong());
        }
        Ok(Self { kind, limit })
    }
}
impl fmt::Display for BarSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            BarKind::Tick => "tick",
            BarKind::Volume => "volume",
            BarKind::Notional => "notional",
        };
        write!(f, "{kind}-{}", self.limit)
    }
}
impl Serialize for BarSpec {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for BarSpec {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl BarSpec {
    /// The limit as an integer in the unit that is counted, rounded up: below it the bar stays open.
    pub(super) fn limit_m(&self, scale: Scale) -> i128 {
        let digits = match self.kind {
            BarKind::Tick => 0,
            BarKind::Volume => scale.qty as u32,
            BarKind::Notional => scale.price as u32 + scale.qty as u32,
        };
        let (mantissa, have) = (self.limit.mantissa(), self.limit.scale());
        if digits >= have {
            // A limit beyond 128 bits is never reached.
            10i128.checked_pow(digits - have).and_then(|f| mantissa.checked_mul(f)).unwrap_or(i128::MAX)
        } else {
            let factor = 10i128.pow(have - digits);
            (mantissa + factor - 1) / factor
        }
    }

    pub(super) fn counted(&self, sum: &Sum) -> i128 {
        match self.kind {
            BarKind::Tick => sum.trades as i128,
            BarKind::Volume => sum.volume,
            BarKind::Notional => sum.quote,
        }
    }
}

/// The bar that is forming.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Forming {
    pub sum: Sum,
    pub first_ns: i64,
    pub last_ns: i64,
}

impl Default for Forming {
    fn default() -> Self {
        Self { sum: Sum::EMPTY, first_ns: 0, last_ns: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_print_as_they_are_written() {
        for text in ["tick-100", "volume-2.5", "notional-10000"] {
            assert_eq!(text.parse::<BarSpec>().unwrap().to_string(), text);
        }
        for text in ["tick-1.5", "tick-0", "volume--1", "range-5", "tick", "notional-x"] {
            assert!(text.parse::<BarSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_finer_than_the_scale_is_rounded_up() {
        let bar: BarSpec = "volume-2.55".parse().unwrap();
        assert_eq!(bar.limit_m(Scale { price: 2, qty: 1 }), 26);
        assert_eq!(bar.limit_m(Scale { price: 2, qty: 4 }), 25_500);
    }
}
