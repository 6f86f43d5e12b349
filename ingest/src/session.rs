//! The contract between a venue's protocol and the link that carries it, without I/O.
//!
//! The link calls a handler (`on_*`) with what happened and the time, then performs the actions that it appended,
//! in order. It calls `on_timer` when `next_timer` is reached. Time never steps back. A session lives through
//! many connections: `on_open` after each connect, `on_closed` after each loss.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemas::Nanos;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Frame};
use crate::status::Status;
use crate::venue::{Endpoints, Request};

/// What a venue takes of each of our connections; `pace` of its table in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Between two messages to the venue.
    pub send_spacing_ms: i64,
    /// Topics that a connection may carry.
    pub topics_max: usize,
    /// Between two pings of ours, or the heartbeats that the venue is asked for; 0 where it does both.
    pub ping_ms: i64,
    /// Quiet after a 429 that does not say for how long.
    pub quiet_ms: i64,
}

/// Bounds of a session; `[ingest.link]` in the configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Without market data for this long a connection counts as dead, whatever its pings say.
    pub idle_timeout_ms: i64,
    /// A request on the socket that is not answered for this long ends the connection.
    pub ack_timeout_ms: i64,
    /// A connection is renewed after this long, before the venue cuts it.
    pub lifetime_ms: i64,
    /// Between two REST requests of one connection.
    pub request_spacing_ms: i64,
    /// Between two polls of what a venue tells by REST alone, such as open interest; of each symbol, or of all at once.
    pub poll_period_ms: i64,
    /// Before an order book snapshot that failed, or was too old, is asked for again.
    pub snapshot_retry_ms: i64,
    /// Tries to fill a hole in the trades before it is told as a gap.
    pub backfill_tries_max: u32,
    /// Trades that are fetched to fill one hole; a larger one is told as a gap.
    pub backfill_trades_max: u64,
    /// Messages of one symbol that wait for a snapshot or a backfill.
    pub held_max: usize,
    /// Symbols of one connection; frames of further ones go to the dead letters.
    pub symbols_max: usize,
    /// While data comes but its event time does not grow for this long, a connection is stale.
    pub stale_after_ms: i64,
    /// Levels a side of a published order book; 0: all that the venue sends.
    pub book_levels: usize,
    /// Levels a side that are kept; the farthest are forgotten.
    pub book_levels_kept_max: usize,
    /// Trades of one symbol that are remembered where the venue's ids only tell them apart.
    pub trades_remembered_max: usize,
}

/// What a market's connections are to carry.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    pub endpoints: Endpoints,
    /// In the venue's own spelling.
    pub symbols: Vec<String>,
    /// In the venue's own spelling; `{}` stands for each symbol.
    pub channels: Vec<String>,
    pub limits: Limits,
    pub pace: Pace,
    /// What is stored of each symbol's trades.
    pub last_trades: BTreeMap<String, Tail>,
}

/// The end of a symbol's stored trades.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Newest id and time.
    pub id: u64,
    pub ts: Nanos,
    /// The venue's own ids of the newest ones, oldest first, where trades are told apart by them.
    pub venue_ids: Vec<(String, Nanos)>,
}

/// What an operator asks of a venue's connections while they run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Subscribe {
        symbol: String,
    },
    Unsubscribe {
        symbol: String,
    },
    /// Throws the order book away and starts it again.
    Resync {
        symbol: String,
    },
    /// Every connection is made anew.
    Reconnect,
}

/// Data that is missing, between two event times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    pub symbol: String,
    /// `trade`, `book`, or `link` while the connection is down.
    pub channel: &'static str,
    pub from: Nanos,
    /// Absent while it lasts.
    pub to: Option<Nanos>,
    pub reason: String,
}

/// What a session asks of its link.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A text frame.
    Send(String),
    /// A REST request; the answer comes to `on_http` under this id.
    Fetch {
        id: u64,
        request: Request,
    },
    /// Market data, read at `recv`.
    Emit {
        recv: Nanos,
        event: Event,
    },
    /// Market data that did not come over the socket, read at `recv`: it does not show how far the socket's data has come.
    Aside {
        recv: Nanos,
        event: Event,
    },
    /// The venue spoke of its own state, and it is news. No market data: see [`crate::status`].
    Status(Box<Status>),
    Gap(Missing),
    /// The frame just handed over was not understood.
    Dead {
        reason: String,
    },
    /// Give this connection up and make another, `after_ms` later at the earliest.
    Reconnect {
        reason: String,
        planned: bool,
        after_ms: i64,
    },
    /// The event time of this connection stopped growing although it lives (`true`), or grows again.
    Stale(bool),
    /// For people; nothing depends on it.
    Warn(String),
}

/// The answer to a [`Action::Fetch`]; the error is one of transport.
pub type HttpResult = Result<HttpAnswer, String>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// The `Retry-After` header, in seconds.
    pub retry_after_s: Option<u64>,
    /// What the venue says is spent of the request's bucket.
    pub used: Option<u32>,
    pub body: String,
}

/// One connection's protocol.
pub trait Session: Send {
    /// Names the connection in facts and metrics, unique within the market.
    fn name(&self) -> String;
    /// Sessions of one group carry the same channels, of different symbols.
    fn group(&self) -> &'static str;
    /// Where to connect to.
    fn url(&self) -> String;
    fn on_open(&mut self, now: Nanos, out: &mut Vec<Action>);
    fn on_frame(&mut self, now: Nanos, frame: Frame<'_>, out: &mut Vec<Action>);
    /// Does what is due; harmless when nothing is.
    fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>);
    /// When `on_timer` wants to be called next.
    fn next_timer(&self) -> Option<Nanos>;
    fn on_http(&mut self, now: Nanos, id: u64, answer: HttpResult, out: &mut Vec<Action>);
    fn on_closed(&mut self, now: Nanos, reason: &str, out: &mut Vec<Action>);
    /// An operator's wish; the error says why it cannot be.
    fn on_command(&mut self, now: Nanos, command: &Command, out: &mut Vec<Action>) -> Result<(), String>;
    /// The symbols that it carries.
    fn symbols(&self) -> BTreeSet<String>;
    /// Channels that it could carry beside those it has.
    fn room(&self) -> usize;
    /// Everything is subscribed and no hole is being filled: what the venue has sent so far is complete.
    fn is_whole(&self) -> bool;
    /// It has no socket: it asks by REST again and again.
    fn is_polled(&self) -> bool {
        false
    }
    /// Of a polled one: up to when it has heard all that happened.
    fn heard(&self) -> Option<Nanos> {
        None
    }
}

pub(crate) fn after_ms(now: Nanos, ms: i64) -> Nanos {
    now.plus_ns(ms.saturating_mul(Nanos::PER_MS))
}

/// A queue that lets one thing out per interval.
#[derive(Debug)]
pub struct Paced<T> {
    queue: VecDeque<(Nanos, T)>,
    spacing_ms: i64,
    free_at: Nanos,
}

impl<T> Paced<T> {
    pub fn new(spacing_ms: i64) -> Self {
        Self { queue: VecDeque::new(), spacing_ms, free_at: Nanos(i64::MIN) }
    }
    pub fn push(&mut self, item: T) {
        self.push_at(Nanos(i64::MIN), item);
    }
    /// Not before `at`.
    pub fn push_at(&mut self, at: Nanos, item: T) {
        let place = self.queue.iter().position(|(due, _)| *due > at).unwrap_or(self.queue.len());
        self.queue.insert(place, (at, item));
    }
    /// Nothing leaves before `at`: the venue asked for quiet.
    pub fn block_until(&mut self, at: Nanos) {
        self.free_at = self.free_at.max(at);
    }
    pub fn pop(&mut self, now: Nanos) -> Option<T> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.free_at = after_ms(now, self.spacing_ms);
        self.queue.pop_front().map(|(_, item)| item)
    }
    /// When something may leave again.
    pub fn free_at(&self) -> Nanos {
        self.free_at
    }
    pub fn due(&self) -> Option<Nanos> {
        self.queue.front().map(|(at, _)| (*at).max(self.free_at))
    }
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
    pub fn clear(&mut self) {
        self.queue.clear();
    }
}

/// Watches that a connection makes progress and is renewed in time.
#[derive(Debug)]
pub struct Watchdog {
    idle_ms: i64,
    lifetime_ms: i64,
    opened: Option<(Nanos, Nanos)>,
}

impl Watchdog {
    pub fn new(limits: &Limits) -> Self {
        Self { idle_ms: limits.idle_timeout_ms, lifetime_ms: limits.lifetime_ms, opened: None }
    }
    pub fn open(&mut self, now: Nanos) {
        self.opened = Some((now, now));
    }
    pub fn close(&mut self) {
        self.opened = None;
    }
    /// Market data arrived.
    pub fn progress(&mut self, now: Nanos) {
        if let Some((_, data)) = &mut self.opened {
            *data = now;
        }
    }
    pub fn due(&self) -> Option<Nanos> {
        let (opened, data) = self.opened?;
        Some(after_ms(opened, self.lifetime_ms).min(after_ms(data, self.idle_ms)))
    }
    /// Says `Reconnect` once when it is time.
    pub fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let Some((opened, data)) = self.opened else { return };
        let (reason, planned) = if now >= after_ms(opened, self.lifetime_ms) {
            (format!("renewed after {} ms", self.lifetime_ms), true)
        } else if now >= after_ms(data, self.idle_ms) {
            (format!("idle: no market data for {} ms", self.idle_ms), false)
        } else {
            return;
        };
        self.opened = None;
        out.push(Action::Reconnect { reason, planned, after_ms: 0 });
    }
}

/// Requests on the socket that wait for their answer, in the order in which they were sent.
#[derive(Debug)]
pub struct Waiting<T> {
    timeout_ms: i64,
    /// By key: its place in the order, when it is due, what it is about.
    open: BTreeMap<String, (u64, Nanos, T)>,
    sent: u64,
}

impl<T> Waiting<T> {
    pub fn new(timeout_ms: i64) -> Self {
        Self { timeout_ms, open: BTreeMap::new(), sent: 0 }
    }
    pub fn sent(&mut self, now: Nanos, key: String, what: T) {
        self.sent += 1;
        self.open.insert(key, (self.sent, after_ms(now, self.timeout_ms), what));
    }
    pub fn answered(&mut self, key: &str) -> Option<T> {
        self.open.remove(key).map(|(_, _, what)| what)
    }
    /// The oldest one that is not `key`: what an answer without a name is about.
    pub fn oldest_but(&mut self, key: &str) -> Option<T> {
        let others = self.open.iter().filter(|(k, _)| *k != key);
        let oldest = others.min_by_key(|(_, (place, ..))| *place).map(|(k, _)| k.clone())?;
        self.answered(&oldest)
    }
    pub fn has(&self, key: &str) -> bool {
        self.open.contains_key(key)
    }
    /// Nothing but `key` is waited for.
    pub fn is_empty_but(&self, key: &str) -> bool {
        self.open.keys().all(|k| k == key)
    }
    pub fn clear(&mut self) {
        self.open.clear();
    }
    pub fn due(&self) -> Option<Nanos> {
        self.open.values().map(|(_, due, _)| *due).min()
    }
    pub fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.due().is_some_and(|due| due <= now) {
            let reason = format!("no answer to a request for {} ms", self.timeout_ms);
            self.open.clear();
            out.push(Action::Reconnect { reason, planned: false, after_ms: 0 });
        }
    }
}

/// The earliest of several timers.
pub(crate) fn earliest(timers: impl IntoIterator<Item = Option<Nanos>>) -> Option<Nanos> {
    timers.into_iter().flatten().min()
}

#[cfg(test)]
pub(crate) mod tests;
