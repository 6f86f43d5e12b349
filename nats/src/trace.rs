//! W3C trace context in the header `traceparent` of stored facts: <https://www.w3.org/TR/trace-context/>.
//!
//! A trace begins with a raw fact and goes through everything that follows from it. Its ids are hashes of positions,
//! not random: a raw fact needs no header to begin a trace, an output that is said again has the same header, and
//! whoever knows a fact's place knows its span. Never compared: the header is no part of what a task says.

use std::fmt;

/// The header's name.
pub const HEADER: &str = "traceparent";
/// `01`: whoever began the trace records it.
const SAMPLED: u8 = 1;

/// `00-<trace id>-<span id>-<flags>`; neither id is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl Traceparent {
    /// The trace that begins with the fact at `seq` of `stream`.
    pub fn root(stream: &str, seq: u64) -> Self {
        let (high, low) = (hash(1, stream, seq), hash(2, stream, seq));
        Self { trace: (u128::from(high) << 64) | u128::from(low.max(1)), span: span(stream, seq), flags: SAMPLED }
    }

    /// The same trace at the fact that follows, at `seq` of `stream`.
    pub fn child(self, stream: &str, seq: u64) -> Self {
        Self { span: span(stream, seq), ..self }
    }

    /// Reads a header; `None` for what the standard calls invalid. Later versions may add fields behind.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, len: usize| {
            let good = part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            good.then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let span = hex(parts.next()?, 16)? as u64;
        let flags = hex(parts.next()?, 2)? as u8;
        let ended = parts.next().is_none();
        let valid = version != 0xff && (version != 0 || ended) && trace != 0 && span != 0;
        valid.then_some(Self { trace, span, flags })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

fn span(stream: &str, seq: u64) -> u64 {
    hash(3, stream, seq).max(1)
}

/// FNV-1a-64 over a seed, a stream's name and a sequence, mixed once more so that neighbours differ in every bit.
fn hash(seed: u8, stream: &str, seq: u64) -> u64 {
    let bytes = [seed].into_iter().chain(stream.bytes()).chain(seq.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_standards_example_is_read_and_what_it_calls_invalid_is_not() {
        let example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(Traceparent::parse(example).unwrap().to_string(), example);
        assert!(Traceparent::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes").is_some());
        for invalid in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(Traceparent::parse(invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn a_trace_reads_back_as_it_prints_and_keeps_its_id_through_its_children(seq: u64, k: u64) {
            let root = Traceparent::root("RAW_BINANCE", seq);
            let child = root.child("AGG_BINANCE_3", k);
            prop_assert_eq!(Traceparent::parse(&child.to_string()), Some(child));
            prop_assert_eq!(&root.to_string()[..35], &child.to_string()[..35]);
        }
    }
}
