//! LLM traders: a shell around a pure core.
//!
//! candles and indicators → [`core::PromptCore`] → `llm.<trader>.prompt` → caller (the only impure part; it asks
//! and stores what came back) → `llm.<trader>.reply` → [`core::VerdictCore`] → `llm.<trader>.verdict`, then
//! signals. A reply is stored before it is judged, so a replay judges the recorded replies and asks nobody.
//!
//! Modules in reading order: what is shown, what is asked, what came back, what it means, the two cores, the call.

pub mod core;
pub mod json;
pub mod parse;
pub mod prompt;
pub mod request;
pub mod retry;
pub mod verdict;

#[cfg(feature = "stage")]
pub mod caller;
#[cfg(all(test, feature = "stage"))]
mod scripted;
