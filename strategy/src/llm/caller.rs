//! The only part of an LLM trader that touches the world: it asks, within one deadline, and records every attempt.
//!
//! A reply is stored before anything is made of it, and a prompt that has a stored reply is never asked again.
//! Between asking and storing lies the one gap that a crash can hit: then the question is asked (and paid) twice,
//! and still only one reply is stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nats::{Bus, Reader, Writer};
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use schemas::llm::{LlmAttempt, LlmPrompt, LlmReply, LlmUsage};
use schemas::subject::stream;
use schemas::{Fact, Nanos, Place, Version};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::retry::{self, Retry};
use super::{request, verdict};
use crate::config::{ExpiryClock, Trader};
use crate::text::plain;

/// Providers that asked for silence, by address and key name: shared by the traders of a process, because the
/// limit is the key's and not the trader's.
#[derive(Clone, Default)]
pub struct Gates(Arc<Mutex<BTreeMap<(String, String), Instant>>>);

impl Gates {
    fn key(trader: &Trader) -> (String, String) {
        (trader.base_url.clone(), trader.key_env.clone())
    }
    fn close(&self, trader: &Trader, until: Instant) {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(Self::key(trader)).or_insert(until);
        *gate = until.max(*gate);
    }
    fn closed_until(&self, trader: &Trader) -> Option<Instant> {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.get(&Self::key(trader)).copied().filter(|until| Instant::now() < *until)
    }
}

/// A key from the environment. It prints as `***` and leaves this file in one request header only.
struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// What came back, without the key: a server may echo it.
    fn scrub(&self, text: String) -> String {
        if self.0.is_empty() { text } else { text.replace(&self.0, "***") }
    }
}

/// Asks one trader's model.
pub struct Caller {
    trader: Trader,
    client: reqwest::Client,
    key: Option<Key>,
    gates: Gates,
}

/// What one HTTP exchange gave, with what the server asked for.
struct Exchange {
    attempt: LlmAttempt,
    retry_after_ms: Option<u64>,
}

impl Caller {
    /// `key`: the value of `key_env`, if it is set.
    pub fn new(trader: Trader, key: Option<String>, gates: Gates) -> anyhow::Result<Self> {
        nats::crypto::install();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tapeline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(trader.connect_timeout_ms))
            // A redirect could carry the key to another host.
            .redirect(reqwest::redirect::Policy::none());
        builder = if trader.plain_http_here() {
            // This machine: no proxy stands between, and no certificates are needed.
            builder.no_proxy().tls_certs_only([])
        } else {
            builder.https_only(true)
        };
        let client = builder.build().with_context(|| format!("make the HTTP client of trader {}", trader.name))?;
        Ok(Self { trader, client, key: key.filter(|key| !key.is_empty()).map(Key), gates })
    }

    /// Asks, retries and repairs within the deadline. `stored_ns` is when the prompt was stored.
    pub async fn answer(&self, prompt: &LlmPrompt, place: &Place, stored_ns: i64) -> LlmReply {
        let began = Instant::now();
        let late_ns = match self.trader.expiry_clock {
            ExpiryClock::Event => prompt.valid_until_ns,
            ExpiryClock::Stored => stored_ns.saturating_add(prompt.valid_until_ns - prompt.as_of_ns),
        };
        let left_ms = u64::try_from((late_ns - wall_ns()) / Nanos::PER_MS).unwrap_or(0);
        let attempts = if left_ms == 0 {
            vec![failed("ask", "expired: the prompt was too old to ask", 0)]
        } else {
            let deadline = began + Duration::from_millis(left_ms.min(self.trader.deadline_ms_max));
            self.ask(prompt, deadline).await
        };
        LlmReply {
            v: Version,
            trader: prompt.trader.clone(),
            cycle: prompt.cycle.clone(),
            as_of_ns: prompt.as_of_ns,
            valid_until_ns: prompt.valid_until_ns,
            request_hash: prompt.request_hash.clone(),
            model: self.trader.model.clone(),
            coins: prompt.coins.clone(),
            wall_ns: wall_ns(),
            attempts,
            cause: place.cause(0),
        }
    }

    async fn ask(&self, prompt: &LlmPrompt, deadline: Instant) -> Vec<LlmAttempt> {
        let trader = &self.trader;
        let mut body = request::ask(trader, &prompt.system, &prompt.user, &prompt.coins);
        if request::hash(trader, &body) != prompt.request_hash {
            return vec![failed(
                "ask",
                "request_changed: the configuration is not the one the prompt was made with",
                0,
            )];
        }
        if !trader.key_env.is_empty() && self.key.is_none() {
            return vec![failed("ask", &format!("missing_key: {} is not set", trader.key_env), 0)];
        }
        if let Some(until) = self.gates.closed_until(trader) {
            if deadline <= until {
                return vec![failed("ask", "rate_limited: the provider asked for silence beyond the deadline", 0)];
            }
            tokio::time::sleep_until(until).await;
        }
        let seed = prompt.as_of_ns.unsigned_abs();
        let mut attempts = Vec::new();
        let (mut kind, mut tries, mut repairs) = ("ask", 0, 0);
        loop {
            tries += 1;
            let exchange = self.exchange(kind, body.clone(), deadline).await;
            attempts.push(exchange.attempt);
            let attempt = &attempts[attempts.len() - 1];
            let examined = verdict::examine(trader, &prompt.coins, attempt);
            let complaints = match &examined {
                Ok(examined) => examined.complaints(),
                Err(failure) if failure.mendable() => vec![format!("{}: {}", failure.code, failure.detail)],
                Err(failure) => {
                    let wait_ms = exchange.retry_after_ms.unwrap_or_else(|| {
                        retry::backoff_ms(tries, seed, trader.backoff_ms_min, trader.backoff_ms_max)
                    });
                    let until = Instant::now() + Duration::from_millis(wait_ms);
                    if exchange.retry_after_ms.is_some() {
                        self.gates.close(trader, until);
                    }
                    let again = retry::after(attempt, &failure.code) == Retry::Again && tries < trader.attempts_max;
                    if !again || deadline <= until {
                        return attempts;
                    }
                    tokio::time::sleep_until(until).await;
                    continue;
                }
            };
            let content = attempt.content.as_deref().unwrap_or("");
            if complaints.is_empty() || trader.repairs_max <= repairs || deadline <= Instant::now() {
                return attempts;
            }
            body = request::repair(trader, prompt, content, &complaints);
            // A repair is tried once: what it cannot mend stays undecided.
            (kind, tries, repairs) = ("repair", trader.attempts_max, repairs + 1);
        }
    }

    async fn exchange(&self, kind: &str, body: Vec<u8>, deadline: Instant) -> Exchange {
        let began = Instant::now();
        let mut status = None;
        let mut retry_after_ms = None;
        let outcome = tokio::time::timeout_at(deadline, self.post(body, &mut status, &mut retry_after_ms)).await;
        let latency_ms = began.elapsed().as_millis() as u64;
        let mut attempt = match outcome {
            Ok(Ok(body)) => read(kind, status, &body),
            Ok(Err(error)) => failed(kind, &error, latency_ms),
            Err(_) => failed(kind, &format!("deadline: nothing whole within {latency_ms} ms"), latency_ms),
        };
        (attempt.status, attempt.latency_ms) = (status, latency_ms);
        if !self.trader.keep_reasoning {
            attempt.reasoning = None;
        }
        if let Some(key) = &self.key {
            for text in [
                &mut attempt.content,
                &mut attempt.reasoning,
                &mut attempt.refusal,
                &mut attempt.error,
                &mut attempt.finish_reason,
            ] {
                *text = text.take().map(|text| key.scrub(text));
            }
        }
        Exchange { attempt, retry_after_ms }
    }

    /// The body, if it came whole and within its bound; else what went wrong, as `code: words`.
    async fn post(
        &self,
        body: Vec<u8>,
        status: &mut Option<u16>,
        retry_after_ms: &mut Option<u64>,
    ) -> Result<Vec<u8>, String> {
        let url = format!("{}/chat/completions", self.trader.base_url.trim_end_matches('/'));
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.0))
                .map_err(|_| "missing_key: the key has characters that no header takes".to_owned())?;
            bearer.set_sensitive(true);
            request = request.header(reqwest::header::AUTHORIZATION, bearer);
        }
        let broken = |error: reqwest::Error| format!("transport: {}", chain(&error.without_url()));
        let mut response = request.send().await.map_err(broken)?;
        *status = Some(response.status().as_u16());
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        *retry_after_ms = header.and_then(|header| retry::after_ms(header, wall_ns()));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if self.trader.reply_bytes_max < bytes.len() + chunk.len() {
                return Err(format!("too_large: more than {} bytes", self.trader.reply_bytes_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words += &format!(": {inner}");
        source = inner.source();
    }
    plain(&words, 300)
}

fn failed(kind: &str, error: &str, latency_ms: u64) -> LlmAttempt {
    LlmAttempt {
        kind: kind.to_owned(),
        status: None,
        finish_reason: None,
        content: None,
        reasoning: None,
        refusal: None,
        error: Some(error.to_owned()),
        usage: LlmUsage::default(),
        latency_ms,
    }
}

/// A chat completion as far as it is read; providers add much more.
#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}
#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    finish_reason: Option<String>,
    message: Answer,
}
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    content: Option<String>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_cache_hit_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// What a body says. Only the first choice counts; status and latency are filled in by the caller.
fn read(kind: &str, status: Option<u16>, body: &[u8]) -> LlmAttempt {
    let shown = || plain(&String::from_utf8_lossy(&body[..body.len().min(400)]), 200);
    if status != Some(200) {
        // The status is the news; its page is kept short and never parsed.
        return failed(kind, &format!("http_{}: {}", status.unwrap_or(0), shown()), 0);
    }
    let completion: Completion = match serde_json::from_slice(body) {
        Ok(completion) => completion,
        Err(error) => return failed(kind, &format!("not_json_body: {error}: {}", shown()), 0),
    };
    if let Some(error) = completion.error.filter(|error| !error.is_null()) {
        return failed(kind, &format!("provider_error: {}", plain(&error.to_string(), 200)), 0);
    }
    let usage = completion.usage.unwrap_or_default();
    let details = usage.prompt_tokens_details.unwrap_or_default();
    let usage = LlmUsage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cached_tokens: details.cached_tokens.or(usage.prompt_cache_hit_tokens),
        reasoning_tokens: usage.completion_tokens_details.unwrap_or_default().reasoning_tokens,
    };
    let Some(choice) = completion.choices.into_iter().next() else {
        return LlmAttempt { usage, ..failed(kind, "empty: no choices", 0) };
    };
    LlmAttempt {
        kind: kind.to_owned(),
        status,
        finish_reason: choice.finish_reason,
        content: choice.message.content,
        reasoning: choice.message.reasoning_content,
        refusal: choice.message.refusal,
        error: None,
        usage,
        latency_ms: 0,
    }
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Answers the prompts of `LLMP_<trader>` in order, one stored reply each, until `stop`.
pub async fn run(
    bus: Bus,
    caller: Caller,
    stats: Arc<nats::telemetry::TaskStats>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let name = caller.trader.name.clone();
    let (prompts, replies) = (stream::llm_prompt(&name), stream::llm_reply(&name));
    let mut writer = Writer::open(&bus, &replies).await?;
    let answered = match writer.last_seq() {
        0 => 0,
        last => {
            let newest = nats::leader::get(&bus, &replies, last).await?;
            let newest = newest
                .with_context(|| format!("{replies}:{last} is gone: which prompts were answered is not known"))?;
            LlmReply::decode(&newest.payload).with_context(|| format!("read {replies}:{last}"))?.cause.seq
        }
    };
    let mut reader = Reader::open(&bus, &prompts, ">", if answered == 0 { 0 } else { answered + 1 }).await?;
    stats.opened();
    loop {
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            // Cancel safe: it takes a message or nothing.
            message = reader.next() => message?,
        };
        let prompt = LlmPrompt::decode(&message.payload).with_context(|| format!("read {prompts}:{}", message.seq))?;
        let place = Place::new(&prompts, message.seq);
        let reply = tokio::select! {
            biased;
            // Nothing is stored yet, so the next start asks this prompt again, if it is still young enough.
            () = stop.cancelled() => return Ok(()),
            reply = caller.answer(&prompt, &place, message.time_ns) => reply,
        };
        tell(&reply);
        writer.push(reply.subject(), reply.encode()).await?;
        writer.drain().await?;
        stats.heard(message.seq);
        stats.said(writer.last_seq());
        stats.state(message.pending, Some(reply.as_of_ns), writer.last_seq(), writer.resyncs());
    }
}

/// One line a reply. It holds no text of the model and nothing of the request.
fn tell(reply: &LlmReply) {
    let last = reply.attempts.last();
    tracing::info!(
        trader = reply.trader,
        cycle = reply.cycle,
        attempts = reply.attempts.len(),
        status = last.and_then(|a| a.status),
        error = last.and_then(|a| a.error.as_deref()).map(|e| e.split(':').next().unwrap_or(e)),
        latency_ms = reply.attempts.iter().map(|a| a.latency_ms).sum::<u64>(),
        "model asked"
    );
}

/// The caller of `trader`; its key is read here, once, from the environment.
pub fn of(trader: &Trader, gates: &Gates) -> anyhow::Result<Caller> {
    let key = if trader.key_env.is_empty() { None } else { std::env::var(&trader.key_env).ok() };
    if !trader.key_env.is_empty() && key.is_none() {
        tracing::warn!(trader = trader.name, key_env = trader.key_env, "no key: every prompt will be no_decision");
    }
    Caller::new(trader.clone(), key, gates.clone())
}

#[cfg(test)]
mod tests;
