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

/// The common form; `None`: it is another, or no number.
fn small(text: &[u8]) -> Option<Decimal> {
    // Venues pad: what stands behind the last digit that counts is dropped before it is read.
    let point = text.iter().position(|b| *b == b'.');
    let (whole, mut part) = match point {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    // Without a digit on either side of a point it is not the common form; nor with more digits than 18.
    if whole.is_empty() || (point.is_some() && part.is_empty()) || whole.len() + part.len() > 18 {
        return None;
    }
    while let [rest @ .., b'0'] = part {
        part = rest;
    }
    let mut mantissa = 0u64;
    for byte in whole.iter().chain(part) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        mantissa = mantissa * 10 + u64::from(digit);
    }
    Some(Decimal::from_parts(mantissa as u32, (mantissa >> 32) as u32, 0, false, part.len() as u32))
}

/// The number that the digits at the front of `text` write, and what stands behind them. `None`: there is no digit, or
/// there are more than 19, which 64 bits may not hold.
#[inline]
pub(crate) fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    const DIGITS_MAX: usize = 19;
    let (mut rest, mut value) = (text, 0u64);
    for _ in 0..2 {
        let Some((eight, tail)) = rest.split_first_chunk() else { break };
        let Some(digits) = eight_digits(*eight) else { break };
        (value, rest) = (value * 100_000_000 + digits, tail);
    }
    while let [digit @ b'0'..=b'9', tail @ ..] = rest {
        if text.len() - tail.len() > DIGITS_MAX {
            return None;
        }
        (value, rest) = (value * 10 + u64::from(digit - b'0'), tail);
    }
    (rest.len() < text.len()).then_some((value, rest))
}

/// The number that eight digits write, all at once: pairs, then fours, then all.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    let threes = |word: u64| word & 0xF0F0_F0F0_F0F0_F0F0 == 0x3030_3030_3030_3030;
    // 0x3A to 0x3F are no digits: six more carries them over.
    if !threes(word) || !threes(word.wrapping_add(0x0606_0606_0606_0606)) {
        return None;
    }
    let ones = word & 0x0F0F_0F0F_0F0F_0F0F;
    let pairs = (ones.wrapping_mul(10) + (ones >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF)
}

/// Milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude: each unit's numbers of the
/// years 1973 to 5138 are below the next unit's. A time that 64 bits of nanoseconds do not hold (behind the year 2262)
/// becomes the last that they do.
pub fn instant(number: i64) -> Nanos {
    const MS_MAX: i64 = 100_000_000_000_000;
    const US_MAX: i64 = MS_MAX * 1000;
    match number.unsigned_abs() as i64 {
        n if n < MS_MAX => Nanos(number.saturating_mul(1_000_000)),
        n if n < US_MAX => Nanos(number.saturating_mul(1_000)),
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

    #[test]
    fn a_time_that_nanoseconds_do_not_hold_is_the_last_that_they_do() {
        assert_eq!(instant(99_999_999_999_999), Nanos(i64::MAX));
        assert_eq!(instant(99_999_999_999_999_999), Nanos(i64::MAX));
    }

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_way_reads(text in "0{0,2}[0-9]{1,12}(\\.[0-9]{1,12}0{0,4})?") {
            prop_assert_eq!(decimal(&text).unwrap(), parse_decimal(&text).unwrap());
            prop_assert_eq!(decimal(&text).unwrap().to_string(), parse_decimal(&text).unwrap().to_string());
        }

        #[test]
        fn eight_digits_are_their_number(n in 0u64..100_000_000, at in 0usize..8, other in any::<u8>()) {
            let text = format!("{n:08}");
            let mut bytes: [u8; 8] = text.as_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(bytes), Some(n));
            bytes[at] = other;
            let parsed = std::str::from_utf8(&bytes).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            prop_assert_eq!(eight_digits(bytes), parsed.and_then(|t| t.parse().ok()));
        }

        #[test]
        fn a_number_ends_where_its_digits_end(digits in "[0-9]{0,22}", tail in "([^0-9][ -~]{0,9})?") {
            let text = format!("{digits}{tail}");
            let number = if (1..=19).contains(&digits.len()) { digits.parse::<u64>().ok() } else { None };
            prop_assert_eq!(leading_number(text.as_bytes()), number.map(|n| (n, tail.as_bytes())));
        }
    }
}
