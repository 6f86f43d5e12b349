//! How a fact becomes bytes: a MessagePack map with field names, the version first.
//!
//! Fields are only added, with a serde default, inside one major version; unknown fields pass. A reader refuses
//! a higher major version rather than guess.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The major version of all facts; the number behind the first field, `v`.
pub const VERSION: u16 = 1;

/// The first field of every fact. Serialises as [`VERSION`]; a higher number is an error when read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u16(VERSION)
    }
}
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let v = u16::deserialize(d)?;
        if v == 0 || v > VERSION {
            return Err(serde::de::Error::custom(format_args!(
                "fact of version {v}; this program reads 1..={VERSION}"
            )));
        }
        Ok(Self)
    }
}

/// Bytes are not the fact that their subject promises.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("decode {kind}")]
    Decode { kind: &'static str, source: rmp_serde::decode::Error },
    #[error("{0}")]
    Invalid(String),
}

impl WireError {
    pub fn invalid(why: impl fmt::Display) -> Self {
        Self::Invalid(why.to_string())
    }
}

/// One thing that happened, with the subject it is stored under.
pub trait Fact: Serialize + DeserializeOwned {
    /// The first token of its subject, or its kind token for raw facts.
    const KIND: &'static str;

    fn subject(&self) -> String;

    fn encode(&self) -> Vec<u8> {
        encode(self)
    }
    fn decode(payload: &[u8]) -> Result<Self, WireError> {
        rmp_serde::from_slice(payload).map_err(|source| WireError::Decode { kind: Self::KIND, source })
    }
}

/// A MessagePack map with field names. Panics only when a type cannot be serialised at all, which its tests show.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("Invariant: a fact serialises")
}

/// State of a core for its checkpoint; the reverse of [`encode`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    rmp_serde::from_slice(bytes).map_err(|source| WireError::Decode { kind: "state", source })
}
