//! The audit trail of an LLM strategy: what was asked, what came back, what we made of it. All three are stored
//! before a signal follows.

use serde::{Deserialize, Serialize};

use crate::core::Cause;
use crate::num::Price;
use crate::subject;
use crate::wire::{Fact, Version};

/// One question to a model; its bytes are a pure function of the candles, the template and the configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmPrompt {
    pub v: Version,
    pub trader: String,
    /// `<trader>-<bar close in ms>`: one cycle per bar close.
    pub cycle: String,
    /// Event time of the newest bar that the prompt shows.
    pub as_of_ns: i64,
    /// Event time after which an answer no longer opens anything.
    pub valid_until_ns: i64,
    pub template: String,
    /// sha256 of the request (model, messages, sampling, schema), hex.
    pub request_hash: String,
    pub system: String,
    pub user: String,
    /// The instruments asked about, in the prompt's order, with the close that it showed.
    pub coins: Vec<LlmCoin>,
    pub cause: Cause,
}

/// An instrument in a prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmCoin {
    /// The name used in the prompt and expected in the reply.
    pub coin: String,
    pub venue: String,
    pub symbol: String,
    pub timeframe: String,
    pub close: Price,
    /// How many bars of `timeframe` that were not seen whole stand behind what it shows; see `Signal::gap_bars`.
    #[serde(default, skip_serializing_if = "crate::holes::is_zero")]
    pub gap_bars: u32,
}
impl Fact for LlmPrompt {
    const KIND: &'static str = "llm";
    fn subject(&self) -> String {
        subject::llm(&self.trader, "prompt")
    }
}

/// Tokens as the provider counted them; absent where it did not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LlmUsage {
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

/// One HTTP attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmAttempt {
    /// `ask` or `repair`.
    pub kind: String,
    /// HTTP status; absent when none came.
    pub status: Option<u16>,
    pub finish_reason: Option<String>,
    /// `message.content`, the only text that is ever parsed.
    pub content: Option<String>,
    pub reasoning: Option<String>,
    pub refusal: Option<String>,
    /// The transport's trouble in words: timeout, reset, not JSON.
    pub error: Option<String>,
    pub usage: LlmUsage,
    pub latency_ms: u64,
}

/// All that came back for one prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmReply {
    pub v: Version,
    pub trader: String,
    pub cycle: String,
    /// Copied from the prompt so that a verdict needs one input.
    pub as_of_ns: i64,
    pub valid_until_ns: i64,
    pub request_hash: String,
    pub model: String,
    pub coins: Vec<LlmCoin>,
    /// Wall clock when the last attempt ended.
    pub wall_ns: i64,
    pub attempts: Vec<LlmAttempt>,
    /// Where the prompt stands.
    pub cause: Cause,
}
impl Fact for LlmReply {
    const KIND: &'static str = "llm";
    fn subject(&self) -> String {
        subject::llm(&self.trader, "reply")
    }
}

/// What became of one coin.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmCoinVerdict {
    pub coin: String,
    pub venue: String,
    pub symbol: String,
    /// `signal`, `hold` or `no_decision`.
    pub verdict: String,
    /// A stable rule code (`V01`..) or failure word when there is no decision.
    pub code: Option<String>,
    pub detail: String,
}

/// The judgement of one reply. `no_decision` is never a guess and never a hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LlmVerdict {
    pub v: Version,
    pub trader: String,
    pub cycle: String,
    pub as_of_ns: i64,
    /// `decided`, or `no_decision` for the whole reply.
    pub verdict: String,
    pub code: Option<String>,
    pub repaired: bool,
    pub coins: Vec<LlmCoinVerdict>,
    pub summary: String,
    /// Where the reply stands.
    pub cause: Cause,
}
impl Fact for LlmVerdict {
    const KIND: &'static str = "llm";
    fn subject(&self) -> String {
        subject::llm(&self.trader, "verdict")
    }
}
