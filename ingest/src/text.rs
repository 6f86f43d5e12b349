//! Numbers of venue JSON, read from their text: never through a binary float.

use std::fmt;

use schemas::num::parse_decimal;
use schemas::{Decimal, Nanos};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// A decimal in quotes, as Binance writes prices and sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quoted(pub Decimal);

impl<'de> Deserialize<'de> for Quoted {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quoted;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Quoted, E> {
                decimal(text).map(Quoted).map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

/// A decimal in quotes that may be empty, as Binance writes the funding rate of delivery contracts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MaybeQuoted(pub Option<Decimal>);

impl<'de> Deserialize<'de> for MaybeQuoted {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = MaybeQuoted;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal in quotes, or nothing in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MaybeQuoted, E> {
                if text.is_empty() {
                    return Ok(MaybeQuoted(None));
                }
                decimal(text).map(|v| MaybeQuoted(Some(v))).map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

/// A bare JSON number, perhaps with an exponent, as Deribit writes prices and sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bare(pub Decimal);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?;
        decimal(raw.get()).map(Self).map_err(D::Error::custom)
    }
}

/// The common form (digits and one point, at most 18 digits) is folded into an integer; the rest goes through
/// `schemas`. Trailing zeros are dropped either way.
pub fn decimal(text: &str) -> Result<Decimal, schemas::num::NumError> {
    match small(text.as_bytes()) {
        Some(value) => Ok(value),
        None => parse_decimal(text),
    }
}

fn small(text: &[u8]) -> Option<Decimal> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let (mut mantissa, mut scale, mut point, mut digits) = (0u64, 0u32, false, 0u32);
    for &byte in text {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                scale += u32::from(point);
                digits += 1;
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    if digits == 0 || digits > 18 || text[0] == b'.' || text[text.len() - 1] == b'.' {
        return None;
    }
    if mantissa == 0 {
        return Some(Decimal::ZERO);
    }
    while scale > 0 && mantissa.is_multiple_of(10) {
        mantissa /= 10;
        scale -= 1;
    }
    Some(Decimal::from_parts(mantissa as u32, (mantissa >> 32) as u32, 0, false, scale))
}

/// Milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude: each unit's numbers of the
/// years 1973 to 5138 are below the next unit's.
pub fn instant(number: i64) -> Nanos {
    const MS_MAX: i64 = 100_000_000_000_000;
    const US_MAX: i64 = MS_MAX * 1000;
    match number.unsigned_abs() as i64 {
        n if n < MS_MAX => Nanos(number * 1_000_000),
        n if n < US_MAX => Nanos(number * 1_000),
        _ => Nanos(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ".", "1.2.3", "1..2", "NaN", "inf", "0x1", "1,5", "--1", "1e", "null"] {
            assert!(decimal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn microseconds_are_told_by_their_magnitude() {
        assert_eq!(instant(1_672_515_782_136), Nanos(1_672_515_782_136_000_000));
        assert_eq!(instant(1_672_515_782_136_123), Nanos(1_672_515_782_136_123_000));
        assert_eq!(instant(1_786_563_104_514_208_300), Nanos(1_786_563_104_514_208_300));
    }

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_way_reads(text in "[0-9]{1,12}(\\.[0-9]{1,12})?") {
            prop_assert_eq!(decimal(&text).unwrap(), parse_decimal(&text).unwrap());
            prop_assert_eq!(decimal(&text).unwrap().to_string(), parse_decimal(&text).unwrap().to_string());
        }
    }
}
