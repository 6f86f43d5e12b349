//! Exact numbers with units, for the edges: configuration, orders, positions, ledger, JSON.
//!
//! On the wire each is decimal text without exponent or trailing zeros, so equal values are equal bytes.
//!
//! | expression              | result     |
//! |-------------------------|------------|
//! | `Price * Qty`           | `Notional` |
//! | `Notional / Price`      | `Option<Qty>` (`checked_qty`) |
//! | `Price - Price`         | `Decimal` (a distance, in quote per base) |
//! | `Qty ± Qty`, `-Qty`     | `Qty`      |
//! | `Notional ± Notional`   | `Notional` |
//! | `Notional * Fraction`   | `Notional` |
//! | `Nanos - Nanos`         | `i64` (nanoseconds) |

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text is not the number that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumError {
    #[error("`{0}` is not a decimal number of at most 28 digits")]
    Text(String),
    #[error("{0} is not in 0..=1")]
    Fraction(Decimal),
}

/// Decimal text, plain or with an exponent (`1.0002e6`, as Deribit and HTX print), read exactly.
pub fn parse_decimal(text: &str) -> Result<Decimal, NumError> {
    let parsed = match Decimal::from_str_exact(text) {
        Ok(value) => value,
        Err(_) => Decimal::from_scientific(text).map_err(|_| NumError::Text(text.to_owned()))?,
    };
    Ok(parsed.normalize())
}

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(Decimal);

        impl $name {
            pub const ZERO: Self = Self(Decimal::ZERO);
            /// Keeps the value, drops trailing zeros: equal values have equal bytes.
            pub fn new(value: Decimal) -> Self {
                Self(value.normalize())
            }
            pub fn get(self) -> Decimal {
                self.0
            }
            pub fn is_zero(self) -> bool {
                self.0.is_zero()
            }
            pub fn abs(self) -> Self {
                Self(self.0.abs())
            }
            /// For indicators and reports only; money never comes back from a float.
            pub fn to_f64(self) -> f64 {
                // `{value}` parses back to the nearest double; Decimal's own conversion rounds twice.
                self.0.to_string().parse().unwrap_or(f64::NAN)
            }
        }
        impl FromStr for $name {
            type Err = NumError;
            fn from_str(text: &str) -> Result<Self, NumError> {
                parse_decimal(text).map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl From<Decimal> for $name {
            fn from(value: Decimal) -> Self {
                Self::new(value)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                decimal_text(d).map(Self)
            }
        }
    };
}

/// Text, or a whole number where a person wrote one in a configuration. Floats are refused: they are not exact.
fn decimal_text<'de, D: Deserializer<'de>>(d: D) -> Result<Decimal, D::Error> {
    struct Text;
    impl serde::de::Visitor<'_> for Text {
        type Value = Decimal;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a decimal number as text, such as \"0.25\"")
        }
        fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Decimal, E> {
            parse_decimal(v).map_err(E::custom)
        }
        fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Decimal, E> {
            Ok(Decimal::from(v))
        }
        fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Decimal, E> {
            Ok(Decimal::from(v))
        }
    }
    d.deserialize_any(Text)
}

unit!(
    /// Quote currency per unit of base (inverse contracts: USD per coin). Positive for every market we trade.
    Price
);
unit!(
    /// Amount of the instrument in its own size unit (base coin, USD or contracts: see `Instrument::size_unit`).
    /// Signed where it is held or changed: long is positive, short negative.
    Qty
);
unit!(
    /// Money in the account's currency. Signed: what the account gains is positive.
    Notional
);

impl Mul<Qty> for Price {
    type Output = Notional;
    fn mul(self, qty: Qty) -> Notional {
        Notional::new(self.0 * qty.0)
    }
}
impl Sub for Price {
    type Output = Decimal;
    fn sub(self, other: Self) -> Decimal {
        self.0 - other.0
    }
}
impl Price {
    /// This price moved by a fraction of itself: `moved_by(-0.15)` is 15 % lower.
    pub fn moved_by(self, part: Decimal) -> Self {
        Self::new(self.0 * (Decimal::ONE + part))
    }
}
impl Notional {
    /// How much of an instrument at `price` this money is worth; `None` at price zero.
    pub fn checked_qty(self, price: Price) -> Option<Qty> {
        self.0.checked_div(price.0).map(Qty::new)
    }
}
impl Mul<Fraction> for Notional {
    type Output = Notional;
    fn mul(self, part: Fraction) -> Notional {
        Notional::new(self.0 * part.0)
    }
}

macro_rules! additive {
    ($name:ident) => {
        impl Add for $name {
            type Output = Self;
            fn add(self, o: Self) -> Self {
                Self::new(self.0 + o.0)
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, o: Self) -> Self {
                Self::new(self.0 - o.0)
            }
        }
        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self {
                Self::new(-self.0)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, o: Self) {
                *self = *self + o;
            }
        }
        impl SubAssign for $name {
            fn sub_assign(&mut self, o: Self) {
                *self = *self - o;
            }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, |a, b| a + b)
            }
        }
    };
}
additive!(Qty);
additive!(Notional);

impl Qty {
    /// -1, 0 or 1.
    pub fn signum(self) -> i32 {
        if self.0.is_zero() {
            0
        } else if self.0.is_sign_negative() {
            -1
        } else {
            1
        }
    }
    /// Rounded toward zero to a whole number of `lot`s; unchanged when `lot` is zero.
    pub fn round_down_to(self, lot: Qty) -> Self {
        if lot.is_zero() { self } else { Self::new((self.0 / lot.0).trunc() * lot.0) }
    }
}

/// A share in 0..=1 (strength, confidence, a limit's share of equity).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize)]
pub struct Fraction(#[serde(with = "rust_decimal::serde::str")] Decimal);

impl Fraction {
    pub const ZERO: Self = Self(Decimal::ZERO);
    pub const ONE: Self = Self(Decimal::ONE);
    /// Error: the value is below 0 or above 1.
    pub fn new(value: Decimal) -> Result<Self, NumError> {
        if value < Decimal::ZERO || value > Decimal::ONE {
            return Err(NumError::Fraction(value));
        }
        Ok(Self(value.normalize()))
    }
    /// The nearest value in 0..=1.
    pub fn clamped(value: Decimal) -> Self {
        Self(value.clamp(Decimal::ZERO, Decimal::ONE).normalize())
    }
    pub fn get(self) -> Decimal {
        self.0
    }
}
impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(decimal_text(d)?).map_err(serde::de::Error::custom)
    }
}
impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since 1970-01-01T00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub i64);

impl Nanos {
    pub const PER_MS: i64 = 1_000_000;
    pub const PER_SECOND: i64 = 1_000_000_000;
    pub const PER_DAY: i64 = 86_400 * Self::PER_SECOND;
    pub fn from_ms(ms: i64) -> Self {
        Self(ms * Self::PER_MS)
    }
    /// Whole milliseconds, rounded toward the past.
    pub fn as_ms(self) -> i64 {
        self.0.div_euclid(Self::PER_MS)
    }
    pub fn plus_ns(self, ns: i64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}
impl Sub for Nanos {
    type Output = i64;
    fn sub(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

/// Days of 400 years, behind which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01. A year starts in March here, so that the leap day is its last one and months need no
/// table.
const EPOCH_DAYS: i64 = 719_468;

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
pub fn civil_day(days: i64) -> (i64, i64, i64) {
    let shifted = days + EPOCH_DAYS;
    let (era, day_of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of a date, counted from 1970-01-01: the inverse of [`civil_day`]. A day beyond its month is of the next one.
pub fn day_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

/// The aggressor's side of a trade, or the side of an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Buy,
    Sell,
}
impl Side {
    /// +1 for a buy, -1 for a sell.
    pub fn sign(self) -> Decimal {
        match self {
            Side::Buy => Decimal::ONE,
            Side::Sell => Decimal::NEGATIVE_ONE,
        }
    }
    pub fn opposite(self) -> Self {
        match self {
            Side::Buy => Side::Sell,
            Side::Sell => Side::Buy,
        }
    }
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scientific_text_is_read_exactly() {
        assert_eq!("1.0002e6".parse::<Price>().unwrap().to_string(), "1000200");
        assert_eq!("2.0e-5".parse::<Qty>().unwrap().to_string(), "0.00002");
        assert!("NaN".parse::<Price>().is_err() && "".parse::<Price>().is_err() && "1e400".parse::<Price>().is_err());
    }

    #[test]
    fn a_day_of_the_calendar_is_told_from_its_number() {
        for (days, date) in [(0, (1970, 1, 1)), (-1, (1969, 12, 31)), (11_016, (2000, 2, 29)), (20_778, (2026, 11, 21))]
        {
            assert_eq!(civil_day(days), date);
        }
    }

    #[test]
    fn a_fraction_above_one_is_refused() {
        assert!(Fraction::new("1.01".parse().unwrap()).is_err());
        assert!(serde_json::from_str::<Fraction>("\"-0.1\"").is_err());
    }

    #[test]
    fn a_float_in_a_configuration_is_refused() {
        assert!(serde_json::from_str::<Price>("0.1").is_err());
        assert_eq!(serde_json::from_str::<Price>("3").unwrap(), "3".parse().unwrap());
    }

    proptest! {
        #[test]
        fn a_quantity_rounded_to_lots_never_grows_and_loses_less_than_one_lot(m in -1_000_000_000i64..1_000_000_000, lot in 1i64..10_000) {
            let (q, lot) = (Qty::new(Decimal::new(m, 5)), Qty::new(Decimal::new(lot, 5)));
            let r = q.round_down_to(lot);
            prop_assert!(r.abs() <= q.abs());
            prop_assert!((q - r).abs() < lot);
            prop_assert!((r.get() % lot.get()).is_zero());
        }

        #[test]
        fn a_day_has_one_date_and_a_date_one_day(days in -1_000_000i64..1_000_000) {
            let (year, month, day) = civil_day(days);
            prop_assert_eq!(day_of_civil(year, month, day), days);
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
            prop_assert!(civil_day(days + 1) > (year, month, day));
        }

        #[test]
        fn equal_values_have_equal_text(m in any::<i64>(), zeros in 0u32..4) {
            let a = Price::new(Decimal::new(m, 3));
            let mut wide = Decimal::new(m, 3);
            wide.rescale(3 + zeros);
            prop_assert_eq!(serde_json::to_string(&a).unwrap(), serde_json::to_string(&Price::new(wide)).unwrap());
        }
    }
}
