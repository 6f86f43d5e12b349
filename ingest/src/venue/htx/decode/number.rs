//! Numbers and times as the venue writes them: bare or in quotes.

use schemas::{Decimal, Nanos};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::text::{decimal, instant};

/// A number, bare or in quotes: the venue writes the same field either way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::venue::htx) struct Num(pub Decimal);

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?;
        decimal(unquoted(raw)).map(Self).map_err(D::Error::custom)
    }
}

/// A sum that the venue may print with more digits than a [`Decimal`] holds, because it divided: rounded to what fits.
/// Prices and sizes are never read so.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::venue::htx) struct Sum {
    pub value: Decimal,
    /// The venue's text where `value` is rounded.
    pub text: Option<String>,
}

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?;
        let text = unquoted(raw);
        if let Ok(value) = decimal(text) {
            return Ok(Self { value, text: None });
        }
        // Rounds where `decimal` refuses; what is no number is refused by both.
        let value: Decimal = text.parse().map_err(D::Error::custom)?;
        Ok(Self { value: value.normalize(), text: Some(text.to_owned()) })
    }
}

/// A JSON text without its quotes; other values as they stand.
pub(in crate::venue::htx) fn unquoted(raw: &RawValue) -> &str {
    let text = raw.get();
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// Milliseconds, bare or in quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::venue::htx) struct Ms(pub i64);

impl Ms {
    pub(in crate::venue::htx) fn at(self) -> Nanos {
        instant(self.0)
    }
}

impl<'de> Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?;
        unquoted(raw).parse().map(Self).map_err(|_| D::Error::custom(format!("time `{}`", raw.get())))
    }
}
