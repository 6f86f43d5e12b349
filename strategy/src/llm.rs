//! LLM traders.
