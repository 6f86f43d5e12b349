//! Numbers of venue JSON, read from their text: never through a binary float.

use std::fmt;

use schemas::num::{day_of_civil, parse_decimal};
use schemas::{Decimal, Nanos};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// Nanoseconds since 1970 of an RFC 3339 time with none to nine digits behind its second, read exactly: what Coinbase
/// and others that print with Go write (`2026-09-30T02:39:54.18954Z`). An offset such as `+02:00` may stand for `Z`. A
/// date that the calendar does not have, or that 64 bits of nanoseconds do not hold (1677 to 2262), is refused.
pub fn rfc3339(text: &str) -> Result<Nanos, String> {
    rfc3339_ns(text.as_bytes()).ok_or_else(|| format!("`{text}` is not an RFC 3339 time of the years 1678 to 2261"))
}

/// The second of a time as RFC 3339 writes it: `2026-09-30T02:39:54Z`.
pub fn utc(at: Nanos) -> String {
    let second = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(Nanos::PER_SECOND));
    second.ok().and_then(|second| second.format(&Rfc3339).ok()).expect("Invariant: 64 bits of nanoseconds end in 2262")
}

/// The text of the first member `key` of a JSON text, which may be broken behind it. Escapes stay as they are.
pub fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, behind) = json.split_once(&format!(r#""{key}":""#))?;
    behind.split_once('"').map(|(text, _)| text)
}

fn rfc3339_ns(text: &[u8]) -> Option<Nanos> {
    const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (head, tail) = text.split_first_chunk::<19>()?;
    let number = |at: usize, n: usize| {
        head[at..at + n].iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    if [head[4], head[7], head[10], head[13], head[16]] != *b"--T::" {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_max = i64::from(*MONTH_DAYS.get(usize::try_from(month - 1).ok()?)?) - i64::from(month == 2 && !leap);
    if !(1..=days_max).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (mut part_ns, mut zone) = (0i64, tail);
    if let [b'.', digits @ ..] = tail {
        let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&n) {
            return None;
        }
        let value = digits[..n].iter().fold(0i64, |sum, b| sum * 10 + i64::from(b - b'0'));
        (part_ns, zone) = (value * 10i64.pow(9 - n as u32), &digits[n..]);
    }
    let offset_s = match *zone {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(u8::is_ascii_digit) => {
            let two = |a: u8, b: u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    let seconds = day_of_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    seconds.checked_mul(Nanos::PER_SECOND)?.checked_add(part_ns).map(Nanos)
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

    #[test]
    fn a_time_is_read_with_none_to_nine_digits_behind_its_second() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-09-30T02:39:54.18954Z", 1_790_735_994_189_540_000),
            ("2026-09-30T02:39:54.348924289Z", 1_790_735_994_348_924_289),
            ("2026-09-30T04:39:54.3+02:00", 1_790_735_994_300_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1),
        ] {
            assert_eq!(rfc3339(text), Ok(Nanos(ns)), "{text}");
        }
    }

    #[test]
    fn a_time_that_the_calendar_or_nanoseconds_do_not_have_is_refused() {
        for text in [
            "",
            "Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01T00:00:00+2:00",
            "0001-01-01T00:00:00Z",
            "2263-01-01T00:00:00Z",
            "20x6-01-01T00:00:00Z",
        ] {
            assert!(rfc3339(text).is_err(), "{text}");
        }
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
        fn a_time_that_is_written_is_read_back(ns in -9_000_000_000_000_000_000i64..9_000_000_000_000_000_000, digits in 0usize..10, offset_min in -1439i64..1440) {
            let part = 10i64.pow(9 - digits as u32);
            let ns = ns.div_euclid(part) * part;
            // Written by the calendar's other direction.
            let local = ns + offset_min * 60 * Nanos::PER_SECOND;
            let (year, month, day) = schemas::num::civil_day(local.div_euclid(Nanos::PER_DAY));
            let of_day = local.rem_euclid(Nanos::PER_DAY);
            let (second, fraction) = (of_day / Nanos::PER_SECOND, of_day % Nanos::PER_SECOND);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let fraction = if digits == 0 { String::new() } else { format!(".{}", &format!("{fraction:09}")[..digits]) };
            let zone = match offset_min {
                0 => "Z".to_owned(),
                m => format!("{}{:02}:{:02}", if m < 0 { '-' } else { '+' }, m.abs() / 60, m.abs() % 60),
            };
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            prop_assert_eq!(rfc3339(&text), Ok(Nanos(ns)), "{}", text);
            let second = ns.div_euclid(Nanos::PER_SECOND) * Nanos::PER_SECOND;
            prop_assert_eq!(rfc3339(&utc(Nanos(ns))), Ok(Nanos(second)));
        }

        #[test]
        fn a_time_with_a_byte_changed_is_another_time_or_none(at in 0usize..26, byte in 32u8..127) {
            let mut text = *b"2026-09-30T02:39:54.18954Z";
            let other = text[at] != byte;
            text[at] = byte;
            let read = rfc3339(std::str::from_utf8(&text).unwrap());
            prop_assert_eq!(other, read != Ok(Nanos(1_790_735_994_189_540_000)));
        }

        #[test]
        fn a_number_ends_where_its_digits_end(digits in "[0-9]{0,22}", tail in "([^0-9][ -~]{0,9})?") {
            let text = format!("{digits}{tail}");
            let number = if (1..=19).contains(&digits.len()) { digits.parse::<u64>().ok() } else { None };
            prop_assert_eq!(leading_number(text.as_bytes()), number.map(|n| (n, tail.as_bytes())));
        }
    }
}
