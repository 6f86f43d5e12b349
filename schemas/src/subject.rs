//! Where facts live: escaped tokens, partitions, subjects and stream names (bus.md 1.1).
//!
//! | subject | fact |
//! |---|---|
//! | `raw.<p>.<venue>.<kind>.<symbol>` | packs of ticks (`trade quote book ticker bar liquidation`), `gap`, `clock._`, `link._` |
//! | `raw.<p>.<venue>.dead` | a frame that could not be decoded, with the reason |
//! | `candle|indicator|preview.<p>.<venue>.<tf>.<symbol>` | closed candles, their indicators; forming candles (core NATS only) |
//! | `late.<p>.<venue>.<symbol>` | a trade whose candle was closed already |
//! | `signal.<origin>.<strategy>.<venue>.<symbol>` | origin: the partition of a rule strategy, `llm` or `ext` (another language). The token keeps the subjects of two writers disjoint, which JetStream demands |
//! | `llm.<trader>.prompt|reply|verdict` | an LLM strategy's audit trail |
//! | `intent|order|refusal|position.<account>.<venue>.<symbol>`, `account|state.<account>` | said by risk |
//! | `sending|ack|fill|reject|done|cancelling.<account>.<venue>.<symbol>` | said by the executor |
//! | `live.<account>.<venue>.<symbol>` | what a live venue said of an order, stored by the executor's caller |
//! | `log.<stage>`, `health.<stage>` | never stored |

use std::fmt::Write as _;

/// Partitions of a venue; frozen for the life of its streams.
pub const PARTITIONS: u32 = 16;

/// A canonical symbol as one subject token, KV key, consumer name and file name: every byte outside
/// `[A-Za-z0-9_-]` becomes `=XX` (upper-case hex). Reversible by [`unescape`]. The empty symbol becomes `=`.
pub fn escape(symbol: &str) -> String {
    if symbol.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(symbol.len() + 4);
    for byte in symbol.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(byte as char);
        } else {
            let _ = write!(token, "={byte:02X}"); // a String takes every write
        }
    }
    token
}

/// The symbol that [`escape`] made `token` of; `None` when it made no such token.
pub fn unescape(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [first, tail @ ..] = rest {
        match first {
            b'=' => {
                let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
                if hex.bytes().any(|b| b.is_ascii_lowercase()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &tail[2..];
            }
            b if b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-' => {
                bytes.push(*b);
                rest = tail;
            }
            _ => return None,
        }
    }
    let symbol = String::from_utf8(bytes).ok()?;
    (escape(&symbol) == token).then_some(symbol)
}

/// The virtual partition of a symbol: FNV-1a-32 over the bytes of the venue and symbol tokens joined without a
/// separator, modulo `partitions`; what nats-server's `partition(P,1,2)` computes.
pub fn partition(venue: &str, symbol: &str, partitions: u32) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in venue.bytes().chain(escape(symbol).bytes()) {
        hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
    }
    hash % partitions
}

/// `raw.<p>.<venue>.<kind>.<symbol>`
pub fn raw(p: u32, venue: &str, kind: &str, symbol: &str) -> String {
    format!("raw.{p}.{venue}.{kind}.{}", escape(symbol))
}
/// `raw.<p>.<venue>.clock._`: the venue's clock in one partition.
pub fn clock(p: u32, venue: &str) -> String {
    format!("raw.{p}.{venue}.clock._")
}
/// `raw.0.<venue>.link._`: connections made and lost.
pub fn link(venue: &str) -> String {
    format!("raw.0.{venue}.link._")
}
/// `raw.0.<venue>.dead`: what could not be decoded.
pub fn dead(venue: &str) -> String {
    format!("raw.0.{venue}.dead")
}
/// `<kind>.<p>.<venue>.<tf>.<symbol>` for `candle`, `indicator`, `preview`.
pub fn market(kind: &str, p: u32, venue: &str, timeframe: &str, symbol: &str) -> String {
    format!("{kind}.{p}.{venue}.{timeframe}.{}", escape(symbol))
}
/// `late.<p>.<venue>.<symbol>`
pub fn late(p: u32, venue: &str, symbol: &str) -> String {
    format!("late.{p}.{venue}.{}", escape(symbol))
}
/// `signal.<origin>.<strategy>.<venue>.<symbol>`
pub fn signal(origin: &str, strategy: &str, venue: &str, symbol: &str) -> String {
    format!("signal.{origin}.{}.{venue}.{}", escape(strategy), escape(symbol))
}
/// `<kind>.<account>.<venue>.<symbol>` for what risk and executor say of an instrument.
pub fn desk(kind: &str, account: &str, venue: &str, symbol: &str) -> String {
    format!("{kind}.{}.{venue}.{}", escape(account), escape(symbol))
}
/// `<kind>.<account>` for `account` and `state`.
pub fn account(kind: &str, account: &str) -> String {
    format!("{kind}.{}", escape(account))
}
/// `llm.<trader>.<part>` for `prompt`, `reply`, `verdict`.
pub fn llm(trader: &str, part: &str) -> String {
    format!("llm.{}.{part}", escape(trader))
}

/// Stream names. Each is written by exactly one task (bus.md 1.2).
pub mod stream {
    use super::escape;

    fn upper(venue: &str) -> String {
        venue.to_ascii_uppercase()
    }
    /// Raw ticks of a venue; written by one ingest task.
    pub fn raw(venue: &str) -> String {
        format!("RAW_{}", upper(venue))
    }
    /// Candles, indicators and late records of one partition; written by one aggregate task.
    pub fn aggregate(venue: &str, p: u32) -> String {
        format!("AGG_{}_{p}", upper(venue))
    }
    /// Signals of the rule strategies of one partition.
    pub fn signal(venue: &str, p: u32) -> String {
        format!("SIG_{}_{p}", upper(venue))
    }
    /// Signals of programs in other languages (`signal.ext.>`); many writers, no positions.
    pub const SIGNAL_EXTERNAL: &str = "SIG_EXT";
    /// Merge of the candles that an LLM trader looks at (sequencer).
    pub fn llm_desk(trader: &str) -> String {
        format!("SEQ_LLM_{}", escape(trader))
    }
    pub fn llm_prompt(trader: &str) -> String {
        format!("LLMP_{}", escape(trader))
    }
    pub fn llm_reply(trader: &str) -> String {
        format!("LLMR_{}", escape(trader))
    }
    /// Verdicts and signals of an LLM trader.
    pub fn llm_signal(trader: &str) -> String {
        format!("SIG_LLM_{}", escape(trader))
    }
    /// Sequencer of an account: its sequence is the recorded merge order of signals, marks, orders and fills.
    pub fn desk(account: &str) -> String {
        format!("DESK_{}", escape(account))
    }
    pub fn risk(account: &str) -> String {
        format!("RISK_{}", escape(account))
    }
    pub fn exec(account: &str) -> String {
        format!("EXEC_{}", escape(account))
    }
    /// What live venues said of an account's orders; its caller's state.
    pub fn live(account: &str) -> String {
        format!("LIVE_{}", escape(account))
    }
    pub const KV_CHECKPOINT: &str = "ckpt";
    pub const KV_LEASE: &str = "lease";
    pub const KV_CONFIG: &str = "cfg";
    pub const KV_INSTRUMENTS: &str = "instruments";
    /// What is spent of venues' rate limits, by address, market and bucket.
    pub const KV_QUOTA: &str = "quota";
    /// Key in `cfg` of an account's state; the desk hears it as subject `$KV.cfg.desk.<account>`.
    pub fn desk_state_key(account: &str) -> String {
        format!("desk.{}", escape(account))
    }
    /// Key in `instruments`; heard as subject `$KV.instruments.<venue>.<symbol>`.
    pub fn instrument_key(venue: &str, symbol: &str) -> String {
        format!("{venue}.{}", escape(symbol))
    }
}

/// A subject cut into its tokens, for `Listen` implementations.
pub struct Tokens<'a>(pub Vec<&'a str>);

impl<'a> Tokens<'a> {
    pub fn of(subject: &'a str) -> Self {
        Self(subject.split('.').collect())
    }
    /// The first token: `raw`, `candle`, `signal`, ...
    pub fn head(&self) -> &'a str {
        self.0.first().copied().unwrap_or("")
    }
    pub fn get(&self, i: usize) -> &'a str {
        self.0.get(i).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_design_papers_examples_escape_as_written() {
        assert_eq!(escape("BTC/USDT:USDT"), "BTC=2FUSDT=3AUSDT");
        assert_eq!(escape("1INCH.USD"), "1INCH=2EUSD");
        assert_eq!(escape("BTC-USDT"), "BTC-USDT");
        assert_eq!(escape("a=b"), "a=3Db");
    }

    #[test]
    fn a_token_that_escape_does_not_make_is_refused() {
        for token in ["*", ">", "a.b", "=4", "=4g", "=2f", "=41", ""] {
            assert_eq!(unescape(token), None, "{token}");
        }
    }

    proptest! {
        #[test]
        fn every_symbol_survives_escaping(symbol in "\\PC*") {
            prop_assert_eq!(unescape(&escape(&symbol)), Some(symbol));
        }

        #[test]
        fn an_escaped_symbol_is_one_legal_token(symbol in "\\PC*") {
            let token = escape(&symbol);
            prop_assert!(!token.is_empty());
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)));
        }
    }
}
