//! The reader: an own ephemeral consumer without acknowledgements and with one filter, thrown away and made anew
//! from the cursor on any doubt.
//!
//! Doubt is: an error status, a gap in the consumer's numbering (the client drops messages when its buffer is
//! full), a missed heartbeat, a new connection. The position is ours, so a new consumer loses nothing, and
//! whatever comes twice is at or below the cursor and passed over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::bus::{Bus, STREAM_NOT_FOUND, Trouble};
use crate::config::ms;
use crate::error::BusError;
use crate::leader;
use crate::trace::{self, Traceparent};

/// A stored fact with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Sequence in its stream, from 1.
    pub seq: u64,
    pub subject: Subject,
    pub payload: Bytes,
    /// Messages of this filter that were stored behind it when it was delivered; 0 from single reads.
    pub pending: u64,
    /// When the server stored it. Not for cores: they take time from facts.
    pub time_ns: i64,
    /// The trace that it belongs to, where its header says one.
    pub trace: Option<Traceparent>,
}

/// Reads one stream with one filter, in order, without end.
pub struct Reader {
    bus: Bus,
    stream: String,
    filter: String,
    /// Sequence of the newest message that came in.
    cursor: u64,
    pending: u64,
    buffer: VecDeque<Message>,
    connections: watch::Receiver<u64>,
    session: Option<Session>,
    /// Attempts since the last sign of life of a consumer.
    tries: u32,
    created: u64,
    expiry_checked: Instant,
}

/// One consumer's life.
struct Session {
    name: String,
    inbox: String,
    deliveries: Subscriber,
    /// Number that the consumer gave to its newest delivery, from 1.
    delivered: u64,
    /// Messages asked for and not yet here.
    credit: usize,
    /// Bytes of one request; grows only for a message that does not fit.
    bytes_max: usize,
    /// `delivered` when the last request was answered with "too large".
    stuck_at: Option<u64>,
    heard: Instant,
}

/// What a delivery means.
enum News {
    Fact(Message),
    Nothing,
    Doubt(String),
}

impl Reader {
    /// Reads `stream` from the message at `from_seq`; `filter` is one subject with wildcards, `>` for all. 0 reads
    /// from the first message that is there; any other position must not have expired.
    pub async fn open(bus: &Bus, stream: &str, filter: &str, from_seq: u64) -> Result<Self, BusError> {
        let cursor = match from_seq {
            0 => bus.stream(stream).await?.before_first(),
            seq => seq - 1,
        };
        let mut reader = Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            filter: if filter.is_empty() { ">".to_owned() } else { filter.to_owned() },
            cursor,
            pending: 0,
            buffer: VecDeque::new(),
            connections: bus.connections(),
            session: None,
            tries: 0,
            created: 0,
            expiry_checked: Instant::now(),
        };
        reader.create().await?;
        Ok(reader)
    }

    /// Reads what is stored from now on.
    pub async fn tail(bus: &Bus, stream: &str, filter: &str) -> Result<Self, BusError> {
        let from = bus.stream(stream).await?.last_seq + 1;
        Self::open(bus, stream, filter, from).await
    }

    /// The newest message of every subject under `filter`, in stream order, at most `max` of them.
    pub async fn latest(bus: &Bus, stream: &str, filter: &str, max: usize) -> Result<Vec<Message>, BusError> {
        let batch = max.min(bus.config().reader.batch);
        let what = format!("newest of each {filter} in {stream}");
        bus.patiently(&what, || async {
            let (mut session, waiting) =
                Session::create(bus, stream, filter, json!({ "deliver_policy": "last_per_subject" })).await?;
            let wanted = (waiting as usize).min(batch);
            let mut newest = Vec::with_capacity(wanted);
            if wanted > 0 {
                session.ask(bus, stream, wanted).await?;
            }
            while newest.len() < wanted {
                let bound = ms(bus.config().connection.request_timeout_ms);
                match tokio::time::timeout(bound, session.deliveries.next()).await {
                    Ok(Some(delivery)) => match session.hear(delivery) {
                        News::Fact(message) => newest.push(message),
                        News::Nothing => {}
                        News::Doubt(why) => return Err(Trouble::Again(why)),
                    },
                    _ => return Err(Trouble::Again("the newest messages did not come".to_owned())),
                }
            }
            session.end(bus, stream).await;
            Ok(newest)
        })
        .await
        .map_err(|error| crate::bus::absent(error, stream))
    }

    /// The next message; waits for it. Cancel safe.
    pub async fn next(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(message) = self.buffer.pop_front() {
                return Ok(message);
            }
            self.fill(self.bus.config().task.batch).await?;
        }
    }

    /// At least one message, at most `max`: what is there already, without waiting for more. Cancel safe.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>, BusError> {
        while self.buffer.is_empty() {
            self.fill(max).await?;
        }
        let n = self.buffer.len().min(max);
        Ok(self.buffer.drain(..n).collect())
    }

    /// Sequence of the newest message that was read or waits in the buffer.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
    /// Messages of the filter behind the newest one, as of its delivery.
    pub fn pending(&self) -> u64 {
        self.pending
    }
    /// Moves the cursor of a caught-up reader over messages that the filter passes by, to the end of the stream;
    /// gives the new cursor, or `None` where nothing is proved.
    ///
    /// Without it the cursor of a filter that is silent for a whole retention period falls behind the stream's first
    /// message, which looks like a loss. The proof is in the order of three questions to the leader: where the stream
    /// ends, whether the filter finds anything behind the cursor now, and only then whether anything behind the
    /// cursor has expired. So nothing of the filter is, or ever was, between the cursor and that end.
    pub async fn pass_silence(&mut self) -> Result<Option<u64>, BusError> {
        let end = self.bus.stream(&self.stream).await?.last_seq;
        if !self.caught_up() || end <= self.cursor {
            return Ok(None);
        }
        let next = leader::next_by_subject(&self.bus, &self.stream, &self.filter, self.cursor + 1).await?;
        let expired = self.bus.stream(&self.stream).await?.before_first() > self.cursor;
        if next.is_some() || expired {
            // On its way; or, where it expired, the next consumer or start will say so.
            return Ok(None);
        }
        self.cursor = end;
        Ok(Some(end))
    }
    pub fn caught_up(&self) -> bool {
        self.pending == 0 && self.buffer.is_empty()
    }
    /// Consumers made so far, the first included.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Moves deliveries into the buffer until there is at least one, at most `max`.
    async fn fill(&mut self, max: usize) -> Result<(), BusError> {
        loop {
            if let Some(violation) = self.bus.violation() {
                return Err(violation);
            }
            self.check_expiry().await?;
            if self.session.is_none() {
                self.create().await?;
            }
            if let Err(trouble) = self.ask().await {
                self.doubt(&trouble).await;
                continue;
            }
            let silence_max = ms(2 * self.bus.config().reader.heartbeat_ms + 500);
            let Some(session) = self.session.as_mut() else { continue };
            let silence_left = silence_max.saturating_sub(session.heard.elapsed());
            let delivery = tokio::select! {
                biased;
                // Ready deliveries first: what came over the old connection is good.
                delivery = session.deliveries.next() => delivery,
                // Cancel safe: the change is seen again by the next session, which starts from the cursor anyway.
                _ = self.connections.changed() => {
                    self.doubt("new connection").await;
                    continue;
                }
                () = tokio::time::sleep(silence_left) => {
                    self.doubt("missed heartbeat").await;
                    continue;
                }
            };
            session.heard = Instant::now();
            let mut delivery = delivery;
            // No await from here to the return: a dropped call loses nothing that was taken out.
            loop {
                let Some(taken) = delivery else {
                    self.session = None;
                    break;
                };
                if let Err(reason) = self.take(taken) {
                    tracing::debug!(stream = self.stream, reason, "reader starts again from its cursor");
                    // Dropping the session ends its subscription; the server removes the idle consumer.
                    self.session = None;
                    break;
                }
                if self.buffer.len() >= max {
                    break;
                }
                let Some(session) = self.session.as_mut() else { break };
                match session.deliveries.next().now_or_never() {
                    Some(next) => delivery = next,
                    None => break,
                }
            }
            if !self.buffer.is_empty() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, delivery: async_nats::Message) -> Result<(), String> {
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        match session.hear(delivery) {
            News::Fact(message) => {
                self.tries = 0;
                if message.seq > self.cursor {
                    self.cursor = message.seq;
                    self.pending = message.pending;
                    self.buffer.push_back(message);
                }
                Ok(())
            }
            News::Nothing => {
                self.tries = 0;
                Ok(())
            }
            News::Doubt(reason) => Err(reason),
        }
    }

    /// Keeps at least half a batch on its way, so that the pipe never runs dry.
    async fn ask(&mut self) -> Result<(), String> {
        let batch = self.bus.config().reader.batch;
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        if session.credit > batch / 2 {
            return Ok(());
        }
        session.ask(&self.bus, &self.stream, batch).await.map_err(|trouble| match trouble {
            Trouble::Again(text) | Trouble::Refused { text, .. } => text,
        })
    }

    /// Drops the consumer; the next turn makes a new one from the cursor.
    async fn doubt(&mut self, reason: &str) {
        tracing::debug!(stream = self.stream, reason, cursor = self.cursor, "reader starts again from its cursor");
        if let Some(session) = self.session.take() {
            session.end(&self.bus, &self.stream).await;
        }
    }

    /// A new consumer from `cursor + 1`.
    async fn create(&mut self) -> Result<(), BusError> {
        loop {
            if self.tries >= self.bus.config().reader.recreate_tries_max {
                let waited_ms = 1000 * u64::from(self.tries);
                return Err(BusError::Unreachable { what: format!("consumer on {}", self.stream), waited_ms });
            }
            if self.tries > 0 {
                tokio::time::sleep(ms((20 << self.tries.min(6)).min(1000))).await;
            }
            self.tries += 1;
            self.bus.connected().await?;
            self.connections.borrow_and_update();
            self.expired_by(self.bus.stream_reaching(&self.stream, self.cursor).await?)?;
            let start = json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": self.cursor + 1 });
            match Session::create(&self.bus, &self.stream, &self.filter, start).await {
                Ok((session, waiting)) => {
                    self.pending = self.buffer.len() as u64 + waiting;
                    self.session = Some(session);
                    self.created += 1;
                    return Ok(());
                }
                Err(Trouble::Refused { code: STREAM_NOT_FOUND, .. }) => {
                    return Err(BusError::StreamAbsent { stream: self.stream.clone() });
                }
                Err(Trouble::Refused { code, text }) => {
                    let what = format!("consumer on {} with filter {}", self.stream, self.filter);
                    return Err(BusError::Refused { what, code, text });
                }
                Err(Trouble::Again(reason)) => {
                    if let Some(violation) = self.bus.violation() {
                        return Err(violation);
                    }
                    tracing::debug!(stream = self.stream, reason, "consumer not made yet");
                }
            }
        }
    }

    /// A reader that lags looks now and then whether retention has overtaken it: the server passes over expired
    /// messages without a word.
    async fn check_expiry(&mut self) -> Result<(), BusError> {
        if self.pending == 0 || self.expiry_checked.elapsed() < ms(self.bus.config().reader.expiry_check_ms) {
            return Ok(());
        }
        self.expiry_checked = Instant::now();
        self.expired_by(self.bus.stream_reaching(&self.stream, self.cursor).await?)
    }

    fn expired_by(&self, state: crate::bus::StreamState) -> Result<(), BusError> {
        if state.before_first() > self.cursor {
            let first = state.before_first() + 1;
            return Err(BusError::InputExpired { stream: self.stream.clone(), first, cursor: self.cursor });
        }
        if state.last_seq < self.cursor {
            return Err(BusError::InputRewritten {
                stream: self.stream.clone(),
                seq: self.cursor,
                why: format!("the stream ends at {}", state.last_seq),
            });
        }
        Ok(())
    }
}

impl Session {
    /// A named consumer whose filter is visible in the request's subject, so that rights can name it. Also gives
    /// the number of messages that wait.
    async fn create(bus: &Bus, stream: &str, filter: &str, start: serde_json::Value) -> Result<(Self, u64), Trouble> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(default)]
            num_pending: u64,
        }
        let name = format!("{}-{:016x}", bus.stage(), rand::random::<u64>());
        let inbox = bus.client().new_inbox();
        let deliveries =
            bus.client().subscribe(inbox.clone()).await.map_err(|error| Trouble::Again(crate::bus::why(&error)))?;
        let mut config = json!({
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": filter,
            "inactive_threshold": Duration::from_secs(bus.config().reader.inactive_s).as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
        });
        if let (Some(config), Some(start)) = (config.as_object_mut(), start.as_object()) {
            config.extend(start.clone());
        }
        let body = json!({ "stream_name": stream, "config": config, "action": "create" });
        let made: Made = bus.api_once(&format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}"), &body).await?;
        let session = Self {
            name,
            inbox,
            deliveries,
            delivered: 0,
            credit: 0,
            bytes_max: bus.config().reader.batch_bytes_max,
            stuck_at: None,
            heard: Instant::now(),
        };
        Ok((session, made.num_pending))
    }

    async fn ask(&mut self, bus: &Bus, stream: &str, batch: usize) -> Result<(), Trouble> {
        let config = &bus.config().reader;
        if self.stuck_at == Some(self.delivered) {
            // A request smaller than the next message would never be answered; no message is larger than this.
            self.bytes_max = self.bytes_max.max(2 * bus.client().max_payload());
        }
        let request = json!({
            "batch": batch,
            "max_bytes": self.bytes_max,
            "expires": ms(config.expires_ms).as_nanos() as u64,
            "idle_heartbeat": ms(config.heartbeat_ms).as_nanos() as u64,
        });
        bus.client()
            .publish_with_reply(
                format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", self.name),
                self.inbox.clone(),
                request.to_string().into(),
            )
            .await
            .map_err(|error| Trouble::Again(crate::bus::why(&error)))?;
        self.credit += batch;
        Ok(())
    }

    fn hear(&mut self, delivery: async_nats::Message) -> News {
        let Some(status) = delivery.status else {
            let Some(place) = delivery.reply.as_deref().and_then(place_of) else {
                return News::Nothing;
            };
            if place.consumer_seq != self.delivered + 1 {
                return News::Doubt(format!("delivery {} behind {}", place.consumer_seq, self.delivered));
            }
            self.delivered = place.consumer_seq;
            self.credit = self.credit.saturating_sub(1);
            return News::Fact(Message {
                seq: place.seq,
                subject: delivery.subject,
                payload: delivery.payload,
                pending: place.pending,
                time_ns: place.time_ns,
                trace: delivery.headers.as_ref().and_then(traced),
            });
        };
        let number = |name: &str| {
            delivery.headers.as_ref().and_then(|h| h.get(name)).and_then(|v| v.as_str().parse::<u64>().ok())
        };
        let text = delivery.description.as_deref().unwrap_or("");
        match status {
            StatusCode::IDLE_HEARTBEAT => match number("Nats-Last-Consumer") {
                Some(last) if last > self.delivered => {
                    News::Doubt(format!("{last} deliveries were sent, {} came", self.delivered))
                }
                _ => News::Nothing,
            },
            // A request ran out, or its bytes were used up: what it leaves open is taken back.
            StatusCode::TIMEOUT | StatusCode::REQUEST_TERMINATED => match number("Nats-Pending-Messages") {
                Some(open)
                    if !text.contains("Deleted") && !text.contains("Leadership") && !text.contains("Shutdown") =>
                {
                    self.credit = self.credit.saturating_sub(open as usize);
                    if text.contains("MaxBytes") {
                        self.stuck_at = Some(self.delivered);
                    }
                    News::Nothing
                }
                _ => News::Doubt(format!("{status} {text}")),
            },
            other => News::Doubt(format!("{other} {text}")),
        }
    }

    /// Removes the consumer, without waiting: where this fails the server does it after `reader.inactive_s`.
    async fn end(self, bus: &Bus, stream: &str) {
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{}", self.name);
        if let Err(error) = bus.client().publish(subject, Bytes::new()).await {
            tracing::debug!(error = %crate::bus::why(&error), "consumer not removed");
        }
    }
}

/// The trace that a message's headers say it belongs to.
pub(crate) fn traced(headers: &async_nats::HeaderMap) -> Option<Traceparent> {
    Traceparent::parse(headers.get(trace::HEADER)?.as_str())
}

struct PlaceOf {
    seq: u64,
    consumer_seq: u64,
    time_ns: i64,
    pending: u64,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<consumer seq>.<time>.<pending>`, which since 2.15 may
/// carry `<domain>.<account>` in front and a token behind.
fn place_of(reply: &str) -> Option<PlaceOf> {
    let mut rest = reply.strip_prefix("$JS.ACK.")?.split('.');
    let tokens = reply.bytes().filter(|b| *b == b'.').count() + 1;
    let skipped = if tokens >= 11 { 5 } else { 3 };
    let seq = rest.nth(skipped)?.parse().ok()?;
    let consumer_seq = rest.next()?.parse().ok()?;
    let time_ns = rest.next()?.parse().ok()?;
    let pending = rest.next()?.parse().ok()?;
    Some(PlaceOf { seq, consumer_seq, time_ns, pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_read() {
        for reply in
            ["$JS.ACK.RAW.c.1.42.7.1700000000000000000.3", "$JS.ACK.hub.AX.RAW.c.1.42.7.1700000000000000000.3.t"]
        {
            let place = place_of(reply).unwrap();
            assert_eq!((place.seq, place.consumer_seq, place.pending), (42, 7, 3), "{reply}");
            assert_eq!(place.time_ns, 1_700_000_000_000_000_000);
        }
        assert!(place_of("$JS.ACK.RAW.c.1").is_none());
        assert!(place_of("_INBOX.x").is_none());
    }
}
