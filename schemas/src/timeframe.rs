//! Lengths of candles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::num::Nanos;

/// A candle's length in whole seconds, written `1s`, `3m`, `4h`, `1d`. Buckets are counted from 1970-01-01T00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timeframe {
    seconds: u32,
}

/// A text is not a timeframe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a timeframe: a whole number and s, m, h or d, at most 7d, such as 1s, 5m, 4h, 1d")]
pub struct TimeframeError(String);

impl Timeframe {
    /// The timeframes that are folded by default.
    pub const DEFAULT: [&'static str; 8] = ["1s", "1m", "3m", "5m", "15m", "1h", "4h", "1d"];
    const SECONDS_MAX: u32 = 7 * 86_400;

    pub fn seconds(self) -> u32 {
        self.seconds
    }
    pub fn ns(self) -> i64 {
        self.seconds as i64 * Nanos::PER_SECOND
    }
    /// The start of the bucket that holds `t`: half-open [open, open + length).
    #[inline]
    pub fn open_of(self, t: Nanos) -> Nanos {
        Nanos(t.0.div_euclid(self.ns()) * self.ns())
    }
    /// The first instant behind the bucket that opens at `open`.
    #[inline]
    pub fn close_of(self, open: Nanos) -> Nanos {
        Nanos(open.0 + self.ns())
    }
    /// Bars in 365 days; the unit of annualised volatility.
    pub fn bars_per_year(self) -> f64 {
        365.0 * 86_400.0 / self.seconds as f64
    }
}

impl FromStr for Timeframe {
    type Err = TimeframeError;
    fn from_str(text: &str) -> Result<Self, TimeframeError> {
        let wrong = || TimeframeError(text.to_owned());
        if !text.is_ascii() || text.len() < 2 {
            return Err(wrong());
        }
        let (count, unit) = text.split_at(text.len() - 1);
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        match count.checked_mul(unit) {
            Some(seconds) if seconds > 0 && seconds <= Self::SECONDS_MAX => Ok(Self { seconds }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.seconds;
        match s {
            s if s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s % 3_600 == 0 => write!(f, "{}h", s / 3_600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}
impl Serialize for Timeframe {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timeframe {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_timeframes_print_as_they_are_written() {
        for text in Timeframe::DEFAULT {
            assert_eq!(text.parse::<Timeframe>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_timeframe_is_refused() {
        for text in ["", "m", "0m", "1w", "-1m", "1.5h", "8d", "99999999999s", "é"] {
            assert!(text.parse::<Timeframe>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_bucket_is_half_open_and_counted_from_1970() {
        let m1: Timeframe = "1m".parse().unwrap();
        assert_eq!(m1.open_of(Nanos(59_999_999_999)), Nanos(0));
        assert_eq!(m1.open_of(Nanos(60_000_000_000)), Nanos(60_000_000_000));
        assert_eq!(m1.open_of(Nanos(-1)), Nanos(-60_000_000_000));
    }
}
