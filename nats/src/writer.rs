//! The positioned writer: its k-th output is stored at sequence k or nowhere.
//!
//! Invariant W-1: an item leaves the queue only when it is known to stand at its position, by an acknowledgement
//! of that sequence or by comparing the stored bytes. So nothing is lost in a connection's write buffer, and
//! nothing stands twice.
//!
//! Invariant W-2: of two live writers of one `OwnState` stream exactly one goes on. A position alone does not fence a
//! pipelined window: whoever is refused at k may still be stored at k+1, because k exists by then. So there every
//! message names its predecessor (`Nats-Expected-Last-Msg-Id`), and a window is sent only behind a first message that
//! was acknowledged alone.
//!
//! Acknowledgements come on one subscription of the writer's own: all that are outstanding are awaited at once,
//! no permit and no future hangs in between.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;

use async_nats::header::{
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID,
};
use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use serde::Deserialize;
use tokio::sync::watch;

use crate::bus::{Bus, Trouble, parse, why};
use crate::config::ms;
use crate::error::BusError;
use crate::leader;
use crate::trace::{self, Traceparent};

/// Whose bytes may stand at a position of this writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A second instance of the same fold writes the same bytes: equal bytes are as good as our own.
    Deterministic,
    /// The stream is the state of this one process (ingest, a caller of the world): anything at its positions that
    /// this instance did not write means that another instance took over.
    OwnState,
}

/// Appends to one stream that only this task writes.
pub struct Writer {
    bus: Bus,
    stream: String,
    mode: Mode,
    /// This instance, in `OwnState`.
    id: String,
    /// In `OwnState`: the message before the queue is known to be ours, stored under this epoch, so the next may name
    /// it.
    linked: Option<u64>,
    /// Position of the next push.
    next: u64,
    /// The stream is known to reach up to here.
    stored: u64,
    queue: VecDeque<Item>,
    /// Counts resyncs; errors of an older epoch are about publishes that were repeated since.
    epoch: u64,
    inbox: String,
    acks: Subscriber,
    connections: watch::Receiver<u64>,
    /// Last acknowledgement, or first publish after an empty queue.
    moved: Instant,
    /// Resyncs since the last acknowledged message.
    tries: u32,
    resyncs: u64,
}

struct Item {
    k: u64,
    subject: Subject,
    payload: Bytes,
    trace: Option<Traceparent>,
    state: State,
    /// Under which it was sent last, or stored.
    epoch: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for the acknowledgement of the first message behind an opening or a resync (`OwnState`).
    Held,
    /// On its way.
    Sent,
    /// Stands at its position.
    Acked,
    /// Was refused; the resync decides.
    Refused,
    /// The stream reaches beyond its position already: not published, but compared.
    Stored,
}

/// What the acknowledgements that are here say together.
enum Word {
    Fine,
    /// Somebody may stand at our positions, or the connection was lost.
    Resync(String),
    /// The server asks to slow down.
    PushBack(String),
}

impl Writer {
    /// Appends behind what is stored, as the only writer (`Mode::OwnState`). A second instance that does the same
    /// ends the first with [`BusError::Fenced`] at its next push.
    pub async fn open(bus: &Bus, stream: &str) -> Result<Self, BusError> {
        let stored = bus.stream(stream).await?.last_seq;
        Self::at(bus, stream, stored, stored, Mode::OwnState).await
    }

    /// Goes on behind position `out_seq` (`Mode::Deterministic`). What the stream holds beyond it is compared with
    /// what is pushed, not written again.
    pub async fn resume(bus: &Bus, stream: &str, out_seq: u64) -> Result<Self, BusError> {
        let stored = bus.stream_reaching(stream, out_seq).await?.last_seq;
        if stored < out_seq {
            return Err(BusError::LostTail { stream: stream.to_owned(), last: stored, expected: out_seq });
        }
        Self::at(bus, stream, out_seq, stored, Mode::Deterministic).await
    }

    async fn at(bus: &Bus, stream: &str, position: u64, stored: u64, mode: Mode) -> Result<Self, BusError> {
        let inbox = bus.client().new_inbox();
        let acks = bus
            .client()
            .subscribe(format!("{inbox}.*.*"))
            .await
            .map_err(|error| BusError::Publish { subject: stream.to_owned(), why: why(&error) })?;
        let mut connections = bus.connections();
        connections.borrow_and_update();
        Ok(Self {
            bus: bus.clone(),
            stream: stream.to_owned(),
            mode,
            id: format!("{:016x}", rand::random::<u64>()),
            linked: None,
            next: position + 1,
            stored,
            queue: VecDeque::new(),
            epoch: 0,
            inbox,
            acks,
            connections,
            moved: Instant::now(),
            tries: 0,
            resyncs: 0,
        })
    }

    /// Queues one fact for the next position, which it returns, and waits while the window is full. Not
    /// acknowledged yet when it returns: [`Writer::drain`] is.
    pub async fn push(&mut self, subject: impl Into<String>, payload: impl Into<Bytes>) -> Result<u64, BusError> {
        let begins = self.mode == Mode::OwnState && self.bus.config().trace.raw;
        let trace = begins.then(|| Traceparent::root(&self.stream, self.next));
        self.push_traced(subject, payload, trace).await
    }

    /// Like [`Writer::push`], with the trace that the fact belongs to. Equal facts may differ in it.
    pub async fn push_traced(
        &mut self,
        subject: impl Into<String>,
        payload: impl Into<Bytes>,
        trace: Option<Traceparent>,
    ) -> Result<u64, BusError> {
        let k = self.next;
        let state = match self.mode {
            Mode::Deterministic if k <= self.stored => State::Stored,
            Mode::OwnState if self.linked.is_none() && !self.queue.is_empty() => State::Held,
            _ => State::Sent,
        };
        if state == State::Sent {
            // Behind what is stored only once all of it was compared: who disagrees with it adds nothing to it.
            while self.queue.front().is_some_and(|front| front.state == State::Stored) {
                self.compare(self.stored).await?;
            }
        }
        let (subject, payload) = (Subject::from(subject.into()), payload.into());
        self.queue.push_back(Item { k, subject, payload, trace, state, epoch: self.epoch });
        self.next += 1;
        if state == State::Sent {
            if self.queue.len() == 1 {
                self.moved = Instant::now();
            }
            self.send(self.queue.len() - 1).await?;
        }
        self.pump().await?;
        while self.queue.len() >= self.bus.config().writer.window {
            self.settle().await?;
        }
        Ok(k)
    }

    /// Waits until everything that was pushed stands at its position.
    pub async fn drain(&mut self) -> Result<(), BusError> {
        while !self.queue.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Takes the acknowledgements that are here, without waiting for more.
    pub async fn pump(&mut self) -> Result<(), BusError> {
        match self.hear_ready()? {
            Word::Fine => self.release().await,
            word => self.resync(word).await,
        }
    }

    /// The last position that is known to be stored.
    pub fn last_seq(&self) -> u64 {
        self.queue.front().map_or(self.next - 1, |front| front.k - 1)
    }
    /// The last position that was pushed.
    pub fn pushed(&self) -> u64 {
        self.next - 1
    }
    /// What was stored beyond our checkpoint when this writer was opened, or was found since.
    pub fn known(&self) -> u64 {
        self.stored
    }
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }
    /// Pushed and not yet known to be stored.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    async fn send(&mut self, index: usize) -> Result<(), BusError> {
        let before = if index > 0 { Some(self.queue[index - 1].epoch) } else { self.linked };
        self.queue[index].epoch = self.epoch;
        let item = &self.queue[index];
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (item.k - 1).to_string().as_str());
        if index == 0 {
            // The others follow it by position, and every acknowledgement names the stream: 30 bytes less a message.
            headers.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        }
        if self.mode == Mode::OwnState {
            headers.insert(NATS_MESSAGE_ID, self.message_id(item.epoch, item.k).as_str());
            if let Some(epoch) = before {
                headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, self.message_id(epoch, item.k - 1).as_str());
            }
        }
        if let Some(trace) = item.trace {
            headers.insert(trace::HEADER, trace.to_string().as_str());
        }
        let reply = format!("{}.{}.{}", self.inbox, self.epoch, item.k);
        self.bus
            .client()
            .publish_with_reply_and_headers(item.subject.clone(), reply, headers, item.payload.clone())
            .await
            .map_err(|error| BusError::Publish { subject: item.subject.to_string(), why: why(&error) })
    }

    /// Names one message of this instance, where equal bytes do not prove that it is ours. A repetition has an id of
    /// its own: a cluster refuses one that it has under way.
    fn message_id(&self, epoch: u64, k: u64) -> String {
        format!("{}.{epoch}.{k}", self.id)
    }

    /// Sends what waited for the acknowledgement of its predecessor.
    async fn release(&mut self) -> Result<(), BusError> {
        if self.linked.is_none() || self.queue.back().is_none_or(|back| back.state != State::Held) {
            return Ok(());
        }
        for index in 0..self.queue.len() {
            if self.queue[index].state == State::Held {
                self.queue[index].state = State::Sent;
                self.send(index).await?;
            }
        }
        Ok(())
    }

    /// Takes at least one step: pops what is settled, compares what is stored, or waits for an acknowledgement.
    async fn settle(&mut self) -> Result<(), BusError> {
        match self.hear_ready()? {
            Word::Fine => self.release().await?,
            word => return self.resync(word).await,
        }
        let Some(front) = self.queue.front() else { return Ok(()) };
        if front.state == State::Stored {
            return self.compare(self.stored).await;
        }
        let left = ms(self.bus.config().writer.ack_timeout_ms).saturating_sub(self.moved.elapsed());
        let word = tokio::select! {
            biased;
            // Cancel safe: `next` takes a message or nothing. First, because mostly it is ready and the others then cost
            // nothing.
            ack = self.acks.next() => match ack {
                Some(ack) => self.hear(ack)?,
                None => Word::Resync("acknowledgements ended".to_owned()),
            },
            // Dropping the wait loses nothing: the process is about to end.
            violation = self.bus.violated() => return Err(violation),
            // Cancel safe: an unseen change is seen by the next call.
            _ = self.connections.changed() => Word::Resync("new connection".to_owned()),
            () = tokio::time::sleep(left) => Word::Resync("no acknowledgement in time".to_owned()),
        };
        self.pop_acked();
        match word {
            Word::Fine => self.release().await,
            word => self.resync(word).await,
        }
    }

    /// Hears every acknowledgement that is here, without waiting.
    fn hear_ready(&mut self) -> Result<Word, BusError> {
        let mut word = Word::Fine;
        while let Some(Some(ack)) = self.acks.next().now_or_never() {
            match self.hear(ack)? {
                Word::Fine => {}
                news => word = news,
            }
        }
        self.pop_acked();
        Ok(word)
    }

    fn pop_acked(&mut self) {
        while let Some(front) = self.queue.front().filter(|front| front.state == State::Acked) {
            self.linked = (self.mode == Mode::OwnState).then_some(front.epoch);
            self.queue.pop_front();
        }
    }

    fn hear(&mut self, ack: async_nats::Message) -> Result<Word, BusError> {
        #[derive(Deserialize)]
        struct PubAck<'a> {
            #[serde(borrow)]
            stream: Cow<'a, str>,
            seq: u64,
        }
        let mut tokens = ack.subject.rsplit('.');
        let k = tokens.next().and_then(|t| t.parse::<u64>().ok());
        let epoch = tokens.next().and_then(|t| t.parse::<u64>().ok());
        let (Some(k), Some(epoch)) = (k, epoch) else { return Ok(Word::Fine) };
        let Some(first) = self.queue.front().map(|front| front.k) else { return Ok(Word::Fine) };
        let Some(item) = k.checked_sub(first).and_then(|i| self.queue.get_mut(i as usize)) else {
            return Ok(Word::Fine); // settled already
        };
        if ack.status == Some(StatusCode::NO_RESPONDERS) {
            if epoch == self.epoch {
                item.state = State::Refused;
                return Ok(Word::PushBack(format!("no stream takes {}", item.subject)));
            }
            return Ok(Word::Fine);
        }
        match parse::<PubAck>(&ack.payload) {
            // True for any epoch: what is stored is stored.
            Ok(stored) if stored.stream == self.stream && stored.seq == k => {
                (item.state, item.epoch) = (State::Acked, epoch);
                self.moved = Instant::now();
                self.tries = 0;
                self.stored = self.stored.max(k);
                Ok(Word::Fine)
            }
            Ok(stored) => Err(BusError::Publish {
                subject: item.subject.to_string(),
                why: format!("stored at {}:{}, expected {}:{k}", stored.stream, stored.seq, self.stream),
            }),
            Err(_) if epoch != self.epoch => Ok(Word::Fine),
            Err(Trouble::Again(text)) => {
                item.state = State::Refused;
                Ok(Word::PushBack(text))
            }
            Err(Trouble::Refused { code, text }) => {
                item.state = State::Refused;
                match code {
                    // 10071: another sequence was expected. 10164: the same, in a cluster, while a write is under way.
                    // 10070: another message id was; a restarted server may have forgotten ours.
                    10070 | 10071 | 10164 => Ok(Word::Resync(text)),
                    // Stream full (messages, bytes, storage), too many requests, a server that is short of something, an
                    // earlier message of the same id under way.
                    10158 | 10077 | 10047 | 10023 | 10028 | 10167 => Ok(Word::PushBack(text)),
                    _ => Err(BusError::Refused { what: format!("publish on {}", item.subject), code, text }),
                }
            }
        }
    }

    /// Finds out where the stream stands, compares what is there, and sends the rest again in order.
    async fn resync(&mut self, word: Word) -> Result<(), BusError> {
        self.resyncs += 1;
        self.tries += 1;
        let config = self.bus.config().writer.clone();
        let reason = match word {
            Word::Fine => return Ok(()),
            Word::Resync(reason) => reason,
            Word::PushBack(reason) => {
                tokio::time::sleep(ms((10 << self.tries.min(10)).min(config.backoff_ms_max))).await;
                reason
            }
        };
        if self.tries > config.resync_tries_max {
            let why = format!("gave up after {} resyncs: {reason}", config.resync_tries_max);
            return Err(BusError::Publish { subject: self.stream.clone(), why });
        }
        tracing::debug!(stream = self.stream, reason, in_flight = self.queue.len(), "writer asks where it stands");
        self.hear_outstanding(&reason).await?;

        self.bus.connected().await?;
        self.connections.borrow_and_update();
        let expected = self.queue.front().map_or(self.next, |front| front.k) - 1;
        let last = self.bus.stream_reaching(&self.stream, expected).await?.last_seq;
        if last < expected {
            return Err(BusError::LostTail { stream: self.stream.clone(), last, expected });
        }
        while self.queue.front().is_some_and(|front| front.k <= last) {
            self.compare(last).await?;
            self.tries = 0;
        }
        self.stored = self.stored.max(last);
        self.epoch += 1;
        self.moved = Instant::now();
        self.linked = None;
        for index in 0..self.queue.len() {
            let alone = self.mode == Mode::OwnState && index > 0;
            self.queue[index].state = if alone { State::Held } else { State::Sent };
            if !alone {
                self.send(index).await?;
            }
        }
        Ok(())
    }

    /// Waits for every answer that is outstanding, all at once, within one timeout. After a new connection none
    /// of the old answers will come.
    async fn hear_outstanding(&mut self, reason: &str) -> Result<(), BusError> {
        if reason == "new connection" {
            return Ok(());
        }
        let begun = Instant::now();
        let bound = ms(self.bus.config().writer.ack_timeout_ms);
        while self.queue.iter().any(|item| item.state == State::Sent) {
            let left = bound.saturating_sub(begun.elapsed());
            tokio::select! {
                biased;
                ack = self.acks.next() => match ack {
                    // Only the sum counts here; a refusal is what the resync is for.
                    Some(ack) => drop(self.hear(ack)?),
                    None => return Ok(()),
                },
                _ = self.connections.changed() => return Ok(()),
                () = tokio::time::sleep(left) => return Ok(()),
            }
            self.pop_acked();
        }
        Ok(())
    }

    /// Compares up to a window of items at the front with what stands at their positions up to `last`, and pops
    /// them.
    async fn compare(&mut self, last: u64) -> Result<(), BusError> {
        let window = self.bus.config().writer.compare_window;
        let there = self.queue.iter().take(window).take_while(|item| item.k <= last && item.state != State::Acked);
        let positions: Vec<u64> = there.map(|item| item.k).collect();
        let (bus, stream) = (&self.bus, self.stream.as_str());
        let found: Vec<_> = futures_util::stream::iter(positions)
            .map(|k| async move { leader::get_whole(bus, stream, k).await })
            .buffered(window)
            .try_collect()
            .await?;
        for found in found {
            let Some(item) = self.queue.pop_front() else { break };
            match found {
                Some(found) => self.same(&item, &found)?,
                // Stored once and gone by retention since: its position is taken and cannot be compared.
                None => tracing::debug!(stream = self.stream, seq = item.k, "stored output has expired, not compared"),
            }
        }
        self.pop_acked();
        self.moved = Instant::now();
        Ok(())
    }

    fn same(&self, item: &Item, found: &async_nats::jetstream::message::StreamMessage) -> Result<(), BusError> {
        let fenced = |why: String| BusError::Fenced { stream: self.stream.clone(), seq: item.k, why };
        if found.subject != item.subject {
            return Err(fenced(format!("{} is stored, {} is ours", found.subject, item.subject)));
        }
        if found.payload != item.payload {
            return Err(fenced("other bytes".to_owned()));
        }
        let id = found.headers.get(NATS_MESSAGE_ID).map(|id| id.as_str()).unwrap_or_default();
        if self.mode == Mode::OwnState && id.split('.').next() != Some(self.id.as_str()) {
            return Err(fenced("written by another instance".to_owned()));
        }
        Ok(())
    }
}
