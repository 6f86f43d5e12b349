//! The contract between a pure core and the loop that runs it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::WireError;

/// Where a fact stands: a stream and its sequence there (1-based).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub stream: std::sync::Arc<str>,
    pub seq: u64,
}

impl Place {
    pub fn new(stream: &str, seq: u64) -> Self {
        Self { stream: stream.into(), seq }
    }
    /// The cause of what follows from the `index`-th tick of the pack that stands here (0 for single facts).
    pub fn cause(&self, index: usize) -> Cause {
        Cause { stream: self.stream.as_ref().to_owned(), seq: self.seq, index: index as u16 }
    }
}

/// The input that a fact follows from, written `RAW_BINANCE:123:4` (stream, sequence, index in the pack).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cause {
    pub stream: String,
    pub seq: u64,
    pub index: u16,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.stream, self.seq, self.index)
    }
}
impl FromStr for Cause {
    type Err = WireError;
    fn from_str(text: &str) -> Result<Self, WireError> {
        let wrong = || WireError::invalid(format_args!("`{text}` is not a cause: stream:seq:index"));
        let mut parts = text.rsplitn(3, ':');
        let index = parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
        let seq = parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
        let stream = parts.next().ok_or_else(wrong)?.to_owned();
        Ok(Self { stream, seq, index })
    }
}
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a core can hear.
pub trait Listen: Sized {
    /// `Ok(None)`: a kind that this core does not listen to; it is passed over and counted.
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError>;
}

/// What a core can say: the closed list of its `Out` type.
pub trait Speak {
    fn subject(&self) -> String;
    fn payload(&self) -> Vec<u8>;
    /// False: for watchers only (`preview.>`); published without JetStream while the task is caught up, never
    /// stored, never compared.
    fn stored(&self) -> bool {
        true
    }
    /// A KV entry that shows this fact's newest value, `(bucket, key)`; written behind the stored output.
    fn mirror(&self) -> Option<(String, String)> {
        None
    }
}

/// Our own bug or impossible input: the task halts with this text and touches nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A pure fold over facts. It has no clock, no I/O, no randomness, no hash order and no float money: the same
/// inputs give the same outputs, byte for byte, on every machine and every run.
pub trait Core {
    type In: Listen;
    type Out: Speak;

    /// Changes whenever the same input could give other bytes: a checkpoint of another version is not resumed.
    const CODE_VERSION: u32;

    /// Folds the fact that stands at `place`; what follows from it is appended to `out` in order.
    fn handle(&mut self, place: &Place, input: Self::In, out: &mut Vec<Self::Out>) -> Result<(), Fault>;

    /// The whole state, for a checkpoint.
    fn save(&self) -> Vec<u8>;

    /// Puts back what [`Core::save`] gave; the configuration stays that of `self`.
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError>;

    /// Event time up to which the core has heard everything, for telemetry.
    fn watermark(&self) -> Option<crate::num::Nanos> {
        None
    }
}

/// Writes an `Out` enum with its `Speak`: one variant a fact, no logic. `stored` and `mirror` may be overridden
/// by writing the enum by hand.
#[macro_export]
macro_rules! says {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident($fact:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($(#[$vdoc])* $variant($fact)),+ }
        impl $crate::Speak for $name {
            fn subject(&self) -> String {
                match self { $(Self::$variant(fact) => $crate::Fact::subject(fact)),+ }
            }
            fn payload(&self) -> Vec<u8> {
                match self { $(Self::$variant(fact) => $crate::Fact::encode(fact)),+ }
            }
        }
        $(impl From<$fact> for $name {
            fn from(fact: $fact) -> Self { Self::$variant(fact) }
        })+
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_back_as_it_prints() {
        let cause = Place::new("RAW_BINANCE", 123).cause(4);
        assert_eq!(cause.to_string(), "RAW_BINANCE:123:4");
        assert_eq!("RAW_BINANCE:123:4".parse::<Cause>().unwrap(), cause);
        assert!("RAW:1".parse::<Cause>().is_err());
    }
}
