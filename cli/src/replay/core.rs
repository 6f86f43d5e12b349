//! A core as a replay runs it: under the real stage loop, with its words kept apart from the live ones.

use std::sync::Arc;

use schemas::{Core, Fault, Listen, Nanos, Place, Speak, WireError};

use crate::cores::{AnyCore, Said};

/// Where a replay's streams and subjects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub run: String,
}

impl Names {
    /// The stream that stands for a live one. Live streams never begin with `BT_`.
    pub fn stream(&self, live: &str) -> String {
        format!("BT_{}_{live}", self.run)
    }
    /// `bt.<run>.<subject>`: no live stream takes the token `bt`.
    pub fn subject(&self, live: &str) -> String {
        format!("bt.{}.{live}", self.run)
    }
    fn prefix(&self) -> String {
        self.subject("")
    }
}

/// A core of the pipeline, heard and speaking in the replay's names. It hears live subjects as well, so its input
/// may be a live stream.
pub struct ReplayCore {
    inner: Box<dyn AnyCore>,
    prefix: Arc<str>,
    /// Causes name the live stream, so that a replay says the same bytes as the live task.
    input: Arc<str>,
    /// Inputs beyond it are passed over.
    to: u64,
}

impl ReplayCore {
    pub fn new(inner: Box<dyn AnyCore>, names: &Names, input: &str, to: u64) -> Self {
        Self { inner, prefix: names.prefix().into(), input: input.into(), to }
    }
}

/// Any message: the wrapped core itself decides what it hears.
pub struct In {
    subject: String,
    payload: Vec<u8>,
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(Some(Self { subject: subject.to_owned(), payload: payload.to_vec() }))
    }
}

/// A stored fact under the replay's subject. Nothing of it is mirrored into KV or shown to watchers.
pub struct Out {
    subject: String,
    payload: Vec<u8>,
}

impl Speak for Out {
    fn subject(&self) -> String {
        self.subject.clone()
    }
    fn payload(&self) -> Vec<u8> {
        self.payload.clone()
    }
}

impl Core for ReplayCore {
    type In = In;
    type Out = Out;
    /// The wrapped core's version stands in front of its state.
    const CODE_VERSION: u32 = 1;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        if place.seq > self.to {
            return Ok(());
        }
        let subject = input.subject.strip_prefix(&*self.prefix).unwrap_or(&input.subject);
        let place = Place { stream: Arc::clone(&self.input), seq: place.seq };
        let mut said: Vec<Said> = Vec::new();
        self.inner.fold(&place, subject, &input.payload, &mut said)?;
        let here = |s: Said| Out { subject: format!("{}{}", self.prefix, s.subject), payload: s.payload };
        out.extend(said.into_iter().map(here));
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let mut state = self.inner.code_version().to_be_bytes().to_vec();
        state.extend(self.inner.save());
        state
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        let (version, state) = state.split_first_chunk::<4>().ok_or_else(|| WireError::invalid("no version"))?;
        let (found, mine) = (u32::from_be_bytes(*version), self.inner.code_version());
        if found != mine {
            return Err(WireError::invalid(format_args!("state of code version {found}, this program is {mine}")));
        }
        self.inner.restore(state)
    }

    fn watermark(&self) -> Option<Nanos> {
        self.inner.watermark_ns().map(Nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replays_names_keep_the_live_ones_readable_and_apart() {
        let names = Names { run: "a1".into() };
        assert_eq!(names.stream("AGG_BINANCE_3"), "BT_a1_AGG_BINANCE_3");
        assert_eq!(names.subject("candle.3.binance.1m.BTCUSDT"), "bt.a1.candle.3.binance.1m.BTCUSDT");
    }
}
