//! The connection: its settings, its events and requests that survive a restart of the server.
//!
//! Absent on purpose: async-nats' own JetStream publish (its permits live in un-awaited futures and hang at
//! 5,000; its timeouts start when they are awaited) and its ordered consumer (recreated from the stream's first
//! message when it loses its consumer before the first delivery).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Request, RequestErrorKind, ServerError};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Config, ms};
use crate::error::BusError;

/// Who connects, and where to.
#[derive(Clone, Default)]
pub struct Login {
    /// `nats://host:port`, several divided by commas.
    pub url: String,
    /// The stage: connection name and inbox prefix `_INBOX_<stage>`.
    pub stage: String,
    /// Absent: no credentials are sent.
    pub user: Option<String>,
    pub password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("Login").field("url", &self.url).field("user", &self.user).field("password", &password).finish()
    }
}

/// A connection to nats-server, shared by everything in a process. Cloning is cheap.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    js: jetstream::Context,
    config: Config,
    login: Login,
    events: Arc<Events>,
}

/// What the connection reported; counters since the process started.
struct Events {
    connections: watch::Sender<u64>,
    violation: watch::Sender<Option<String>>,
    slow_consumers: AtomicU64,
    disconnects: AtomicU64,
}

/// State of a stream as its leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct StreamState {
    /// Sequence of the first message that is there; `last_seq + 1` when the stream is empty.
    #[serde(default)]
    pub first_seq: u64,
    /// Sequence of the last message that was stored; survives deletion.
    #[serde(default)]
    pub last_seq: u64,
    #[serde(default)]
    pub messages: u64,
}

impl StreamState {
    /// What is stored before the first message there is.
    pub fn before_first(&self) -> u64 {
        if self.messages == 0 { self.last_seq } else { self.first_seq.saturating_sub(1) }
    }
}

/// Why one attempt at a request gave nothing.
pub(crate) enum Trouble {
    /// The server is away, restarting or slow: worth another try.
    Again(String),
    /// JetStream's own answer, with its `err_code`.
    Refused { code: u64, text: String },
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// `stream not found`
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
/// How often a request that is repeated says so in the log.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// `no message found`
pub(crate) const NO_MESSAGE_FOUND: u64 = 10037;

impl Bus {
    /// Connects, waiting up to `connection.outage_s_max` for the server. A wrong password fails at once.
    ///
    /// The client's own retry on the first connect is not used: it hides a wrong password behind endless tries.
    pub async fn connect(login: Login, config: Config) -> Result<Self, BusError> {
        crate::crypto::install();
        let bound = Duration::from_secs(config.connection.outage_s_max);
        let events = Arc::new(Events {
            connections: watch::Sender::new(0),
            violation: watch::Sender::new(None),
            slow_consumers: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
        });
        let servers: Vec<String> =
            login.url.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
        let begun = Instant::now();
        let mut pause_ms = 50;
        let client = loop {
            let error = match options(&login, &config, &events).connect(servers.clone()).await {
                Ok(client) => break client,
                Err(error) => error,
            };
            let fatal = matches!(
                error.kind(),
                ConnectErrorKind::Authentication
                    | ConnectErrorKind::AuthorizationViolation
                    | ConnectErrorKind::ServerParse
            );
            if fatal || begun.elapsed() >= bound {
                return Err(BusError::Connect { url: login.url.clone(), why: why(&error) });
            }
            tracing::warn!(url = %login.url, error = %why(&error), "nats-server does not answer yet");
            tokio::time::sleep(ms(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(config.connection.reconnect_delay_ms_max);
        };
        let js = jetstream::context::ContextBuilder::new()
            .timeout(ms(config.connection.request_timeout_ms))
            .build(client.clone());
        Ok(Self { inner: Arc::new(Inner { client, js, config, login, events }) })
    }

    pub fn client(&self) -> &Client {
        &self.inner.client
    }
    /// For reading and administration. Publish with [`crate::Writer`] or [`crate::kv`].
    pub fn js(&self) -> &jetstream::Context {
        &self.inner.js
    }
    pub fn config(&self) -> &Config {
        &self.inner.config
    }
    /// The stage that this connection belongs to.
    pub fn stage(&self) -> &str {
        &self.inner.login.stage
    }
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == State::Connected
    }
    /// How often a connection was made; a change means that whatever was in flight may be lost.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.inner.events.connections.subscribe()
    }
    /// Deliveries that the client dropped because a subscription was full.
    pub fn slow_consumers(&self) -> u64 {
        self.inner.events.slow_consumers.load(Relaxed)
    }
    pub fn disconnects(&self) -> u64 {
        self.inner.events.disconnects.load(Relaxed)
    }

    /// The server's first `Permissions Violation`, if there was one. Violations are silent otherwise: a forbidden
    /// publish returns Ok, a forbidden request times out, a forbidden subscription pends.
    pub fn violation(&self) -> Option<BusError> {
        self.inner.events.violation.borrow().clone().map(BusError::Rights)
    }

    /// Ends when the server refuses this user anything; the text names the subject.
    pub async fn violated(&self) -> BusError {
        let mut seen = self.inner.events.violation.subscribe();
        match seen.wait_for(Option::is_some).await {
            Ok(text) => BusError::Rights(text.clone().unwrap_or_default()),
            Err(_) => BusError::Rights("connection closed".to_owned()),
        }
    }

    /// A message without JetStream: may be lost, is never stored. For previews, logs and health.
    pub async fn publish(&self, subject: String, payload: impl Into<Bytes>) -> Result<(), BusError> {
        let named = subject.clone();
        self.client()
            .publish(subject, payload.into())
            .await
            .map_err(|error| BusError::Publish { subject: named, why: why(&error) })
    }

    /// Waits until the server is there again, up to `connection.outage_s_max`.
    pub async fn connected(&self) -> Result<(), BusError> {
        let bound = Duration::from_secs(self.config().connection.outage_s_max);
        let begun = Instant::now();
        while !self.is_connected() {
            if begun.elapsed() >= bound {
                let waited_ms = bound.as_millis() as u64;
                return Err(BusError::Unreachable { what: "wait for the server".to_owned(), waited_ms });
            }
            // The state has no event of its own that cannot be lost, so it is polled, cheaply.
            tokio::time::sleep(ms(20)).await;
        }
        Ok(())
    }

    /// What the stream's leader says; waits while the server recovers.
    pub async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        #[derive(Deserialize)]
        struct Info {
            state: StreamState,
        }
        let what = format!("state of stream {stream}");
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let info: Result<Info, BusError> = self.patiently(&what, || self.api_once(&subject, &())).await;
        info.map(|info| info.state).map_err(|error| absent(error, stream))
    }

    /// The same of a stream that is known to reach `seq`. In a cluster a new leader answers with what it has applied,
    /// which may be less for a moment; so a shorter stream is asked again for `connection.behind_ms_max`, and then it
    /// is for the caller to say what is lost.
    pub(crate) async fn stream_reaching(&self, stream: &str, seq: u64) -> Result<StreamState, BusError> {
        let (begun, bound) = (Instant::now(), ms(self.config().connection.behind_ms_max));
        loop {
            let state = self.stream(stream).await?;
            if state.last_seq >= seq || begun.elapsed() >= bound {
                return Ok(state);
            }
            tracing::warn!(stream, last = state.last_seq, seq, "stream ends before what was read of it, asked again");
            tokio::time::sleep(ms(100)).await;
        }
    }

    /// One request with the configured timeout.
    pub(crate) async fn api_once<T, V>(&self, subject: &str, body: &T) -> Result<V, Trouble>
    where
        T: Serialize,
        V: DeserializeOwned,
    {
        let body = serde_json::to_vec(body).map_err(|error| Trouble::Refused { code: 0, text: error.to_string() })?;
        self.ask(subject, None, body.into()).await
    }

    /// One request with headers; the reply is JSON, or JSON with an `error`.
    pub(crate) async fn ask<V: DeserializeOwned>(
        &self,
        subject: &str,
        headers: Option<async_nats::HeaderMap>,
        body: Bytes,
    ) -> Result<V, Trouble> {
        let mut request = Request::new().payload(body).timeout(Some(ms(self.config().connection.request_timeout_ms)));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let reply = match self.client().send_request(subject.to_owned(), request).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match error.kind() {
                    RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                        Trouble::Refused { code: 0, text: why(&error) }
                    }
                    _ => Trouble::Again(why(&error)),
                });
            }
        };
        parse(&reply.payload)
    }

    /// Repeats `attempt` while it asks for another try, with a pause that doubles up to a second: at least
    /// `connection.request_tries_max` times, and for as long as an outage may last (`connection.outage_s_max`). A
    /// cluster that has lost its majority answers, but not with what was asked for. Ends at once when the server
    /// refuses this user anything.
    pub(crate) async fn patiently<V, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<V, BusError>
    where
        F: Future<Output = Result<V, Trouble>>,
    {
        let connection = &self.config().connection;
        let (tries_min, bound) = (connection.request_tries_max, Duration::from_secs(connection.outage_s_max));
        let begun = Instant::now();
        let (mut tried, mut pause_ms, mut told) = (0, 20, Duration::ZERO);
        loop {
            self.connected().await?;
            let answer = tokio::select! {
                biased;
                // Dropping the request loses nothing: the process is about to end.
                violation = self.violated() => return Err(violation),
                answer = attempt() => answer,
            };
            let reason = match answer {
                Ok(value) => return Ok(value),
                Err(Trouble::Refused { code, text }) => {
                    return Err(BusError::Refused { what: what.to_owned(), code, text });
                }
                Err(Trouble::Again(reason)) => reason,
            };
            tried += 1;
            let waited = begun.elapsed();
            if tried >= tries_min && waited >= bound {
                return Err(BusError::Unreachable {
                    what: format!("{what} ({reason})"),
                    waited_ms: waited.as_millis() as u64,
                });
            }
            if waited - told > TELL_AGAIN {
                told = waited;
                tracing::warn!(what, reason, waited_ms = waited.as_millis() as u64, "asked again and again");
            }
            tokio::time::sleep(ms(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(1000);
        }
    }
}

/// Turns `stream not found` into the error that says how to create it.
pub(crate) fn absent(error: BusError, stream: &str) -> BusError {
    match error {
        BusError::Refused { code: STREAM_NOT_FOUND, .. } => BusError::StreamAbsent { stream: stream.to_owned() },
        other => other,
    }
}

const ERROR_KEY: &[u8] = b"\"error\"";

/// JetStream's reply: the value, or its error. 503 and 10008 mean that it is still starting.
pub(crate) fn parse<'a, V: Deserialize<'a>>(payload: &'a [u8]) -> Result<V, Trouble> {
    #[derive(Deserialize)]
    struct Reply {
        error: Option<ApiError>,
    }
    // Most replies are acknowledgements: they are read once, not twice.
    let may_be_error = payload.windows(ERROR_KEY.len()).any(|at| at == ERROR_KEY);
    if may_be_error && let Ok(Reply { error: Some(error) }) = serde_json::from_slice(payload) {
        let text = format!("{} {}", error.code, error.description);
        return Err(match (error.code, error.err_code) {
            (503, code) if code != 10077 => Trouble::Again(text),
            (_, code) => Trouble::Refused { code, text },
        });
    }
    serde_json::from_slice(payload)
        .map_err(|error| Trouble::Refused { code: 0, text: format!("reply is not JSON: {error}") })
}

/// An error with its sources on one line.
pub(crate) fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some libraries print their source themselves.
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

fn options(login: &Login, config: &Config, events: &Arc<Events>) -> ConnectOptions {
    let c = &config.connection;
    let delay_max = c.reconnect_delay_ms_max;
    let seen = Arc::clone(events);
    let mut options = ConnectOptions::new()
        .name(format!("tapeline {}", login.stage))
        .custom_inbox_prefix(format!("_INBOX_{}", login.stage))
        .ping_interval(ms(c.ping_interval_ms))
        .connection_timeout(ms(c.connect_timeout_ms))
        .request_timeout(Some(ms(c.request_timeout_ms)))
        .subscription_capacity(c.subscription_messages_max)
        .reconnect_delay_callback(move |attempt| reconnect_delay(attempt, delay_max))
        .event_callback(move |event| {
            notice(&seen, event);
            std::future::ready(())
        });
    if let (Some(user), Some(password)) = (&login.user, &login.password) {
        options = options.user_and_password(user.clone(), password.clone());
    }
    options
}

/// Before a connection attempt, counted from 1 since the last success: the first is made at once, later ones back off.
fn reconnect_delay(attempt: usize, delay_ms_max: u64) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        later => ms((50 << (later - 2).min(10)).min(delay_ms_max)),
    }
}

fn notice(events: &Events, event: Event) {
    match event {
        Event::Connected => events.connections.send_modify(|n| *n += 1),
        Event::Disconnected => {
            events.disconnects.fetch_add(1, Relaxed);
            tracing::warn!("connection to nats-server lost");
        }
        Event::SlowConsumer(_) => {
            // Counted, not logged: a flood of them would drown the log.
            events.slow_consumers.fetch_add(1, Relaxed);
        }
        Event::ServerError(ServerError::Other(text)) if is_late_answer(&text) => {
            tracing::warn!(text, "an answer came too late for whoever asked");
        }
        Event::ServerError(ServerError::Other(text)) if text.to_lowercase().contains("permissions violation") => {
            tracing::error!(text, "nats-server refused this user");
            events.violation.send_if_modified(|first| {
                let news = first.is_none();
                first.get_or_insert(text);
                news
            });
        }
        Event::ServerError(error) => tracing::warn!(%error, "nats-server reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "nats client reports an error"),
        Event::LameDuckMode => tracing::warn!("nats-server is about to stop"),
        Event::Draining | Event::Closed => tracing::debug!("connection closed"),
    }
}

/// Whether the server refused an answer to a request that it has forgotten: `allow_responses` ends after 5 s and with
/// the server's own end. Nothing of ours is missing then, so it is no violation.
fn is_late_answer(text: &str) -> bool {
    text.to_lowercase().starts_with("permissions violation for publish to \"_inbox_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let login = Login { user: Some("risk".into()), password: Some("hunter2".into()), ..Login::default() };
        let text = format!("{login:?}");
        assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_first_attempt_to_connect_is_made_at_once_and_later_ones_back_off_to_their_bound() {
        let delays = [1, 2, 3, 4, 7, 60, usize::MAX].map(|attempt| reconnect_delay(attempt, 1000).as_millis());
        assert_eq!(delays, [0, 50, 100, 200, 1000, 1000, 1000]);
    }

    #[test]
    fn a_server_that_still_starts_is_asked_again_and_a_full_stream_is_an_answer() {
        let again =
            br#"{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}"#;
        assert!(matches!(parse::<StreamState>(again), Err(Trouble::Again(_))));
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#;
        assert!(matches!(parse::<StreamState>(full), Err(Trouble::Refused { code: 10077, .. })));
        let state = parse::<StreamState>(br#"{"first_seq":3,"last_seq":9,"messages":7,"bytes":1}"#);
        assert!(matches!(state, Ok(StreamState { first_seq: 3, last_seq: 9, messages: 7 })));
    }
}
