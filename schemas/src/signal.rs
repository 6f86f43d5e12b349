//! What a strategy says, and all that it can say: an opinion. It moves nothing.

use serde::{Deserialize, Serialize};

use crate::core::Cause;
use crate::num::{Fraction, Nanos};
use crate::subject;
use crate::wire::{Fact, Version, WireError};

/// The side that a strategy wants to be on. `Flat` is a wish to hold nothing; no opinion is no signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    Long,
    Flat,
    Short,
}

/// An opinion on one instrument.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Signal {
    pub v: Version,
    /// Partition of a rule strategy, `llm` or `ext`: keeps the subjects of two writers apart.
    pub origin: String,
    pub strategy: String,
    pub venue: String,
    pub symbol: String,
    /// The timeframe that it was formed on.
    pub timeframe: String,
    pub side: Stance,
    /// How much of the allowed position, 0..1.
    pub strength: Fraction,
    /// How sure, 0..1; never used for size until it is calibrated.
    pub confidence: Fraction,
    /// Event time of the candle's close that it follows from.
    pub ts_ns: i64,
    /// Event time after which it no longer counts.
    pub valid_until_ns: i64,
    /// For people, at most 400 characters.
    pub reason: String,
    /// Suggested protective prices; risk checks them and may set its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_loss: Option<crate::num::Price>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_profit: Option<crate::num::Price>,
    /// How many bars that were not seen whole stand behind it: the most that any average or indicator that it follows
    /// from looks back on. 0: it came over no gap.
    #[serde(default, skip_serializing_if = "crate::holes::is_zero")]
    pub gap_bars: u32,
    pub cause: Cause,
}

impl Signal {
    pub fn valid_until(&self) -> Nanos {
        Nanos(self.valid_until_ns)
    }
    /// The subject and the body agree and the text is short: what a program in another language may get wrong.
    pub fn checked(self, subject: &str) -> Result<Self, WireError> {
        if self.subject() != subject {
            return Err(WireError::invalid(format_args!("signal of {} stands on {subject}", self.subject())));
        }
        if self.reason.len() > 1_600 {
            return Err(WireError::invalid(format_args!(
                "signal reason of {} bytes; 1600 are allowed",
                self.reason.len()
            )));
        }
        Ok(self)
    }
}
impl Fact for Signal {
    const KIND: &'static str = "signal";
    fn subject(&self) -> String {
        subject::signal(&self.origin, &self.strategy, &self.venue, &self.symbol)
    }
}
