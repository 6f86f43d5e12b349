//! Signatures of requests, one file a venue. Pure: key, time and nonce are arguments, and the same arguments give the
//! same bytes always (ECDSA by RFC 6979). What is signed is what is sent: where the order of members or the text of a
//! number counts, a function takes the very text that goes out.
//!
//! `tests.rs` walks every `signing_vectors.json` of the shared fixtures. Only `binance.rs` is used by a live venue so far.

use std::fmt;
use std::fmt::Write as _;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub mod key;

pub mod binance;
pub mod coinbase;
pub mod deribit;
pub mod htx;
pub mod hyperliquid;
pub mod mexc;
pub mod okx;

/// A text that is never shown: it prints as `***`. Whoever needs it says [`Secret::reveal`].
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An API key of a venue that asks for a passphrase too (OKX, Coinbase Exchange).
#[derive(Clone, PartialEq, Debug)]
pub struct Credentials {
    pub key: String,
    pub secret: Secret,
    pub passphrase: Secret,
}

/// Why nothing was signed. Says nothing of a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    #[error("the private key is not usable: {0}")]
    Key(&'static str),
    #[error("{name}: {why}")]
    Input { name: &'static str, why: String },
}

/// HMAC-SHA256 (RFC 2104) in lower-case hex.
pub fn hmac_hex(secret: &[u8], payload: &str) -> String {
    HEXLOWER.encode(&hmac(secret, payload))
}

/// HMAC-SHA256 (RFC 2104) in base64 with padding.
pub fn hmac_base64(secret: &[u8], payload: &str) -> String {
    BASE64.encode(&hmac(secret, payload))
}

fn hmac(secret: &[u8], payload: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("Invariant: HMAC takes a key of any length");
    mac.update(payload.as_bytes());
    mac.finalize().into_bytes().into()
}

/// `a=1&b=2`, names and values percent-encoded. It may carry a signature, so it is not shown.
#[derive(Clone, Default, PartialEq)]
pub struct Query(String);

impl Query {
    pub fn add(&mut self, name: &str, value: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode_into(name, &mut self.0);
        self.0.push('=');
        encode_into(value, &mut self.0);
        self
    }

    /// By name, then by value, in the order of their bytes.
    pub fn sorted(pairs: &[(&str, &str)]) -> Self {
        let mut pairs = pairs.to_vec();
        pairs.sort_unstable();
        let mut query = Self::default();
        for (name, value) in pairs {
            query.add(name, value);
        }
        query
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Percent-encoding of RFC 3986: the bytes of UTF-8 in upper-case hex, `A-Z a-z 0-9 - . _ ~` as they are.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(text, &mut out);
    out
}

fn encode_into(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}"); // a String takes every write
        }
    }
}

/// `2017-05-11T15:19:30`: UTC, whole seconds (cut, not rounded), no zone.
pub fn utc_s(timestamp_ms: i64) -> Result<String, SignError> {
    // Other years have a sign or more digits, which no venue reads.
    const END_OF_9999_MS: i64 = 253_402_300_800_000;
    if !(0..END_OF_9999_MS).contains(&timestamp_ms) {
        let why = format!("{timestamp_ms} ms is outside 1970 to 9999");
        return Err(SignError::Input { name: "timestamp", why });
    }
    let timestamp_s = timestamp_ms / 1_000;
    let (year, month, day) = schemas::num::civil_day(timestamp_s / 86_400);
    let (h, m, s) = (timestamp_s / 3_600 % 24, timestamp_s / 60 % 60, timestamp_s % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}"))
}

/// `2020-12-08T09:08:57.715Z`: UTC with milliseconds.
pub fn utc_ms(timestamp_ms: i64) -> Result<String, SignError> {
    Ok(format!("{}.{:03}Z", utc_s(timestamp_ms)?, timestamp_ms % 1_000))
}

/// A text that stands between line ends or commas of what is signed, so it may hold neither.
fn plain(name: &'static str, text: &str) -> Result<(), SignError> {
    if text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
        return Ok(());
    }
    Err(SignError::Input { name, why: format!("`{}` is not printable ASCII without commas", text.escape_debug()) })
}

#[cfg(test)]
mod tests;
