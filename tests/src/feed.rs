//! Stores a recorded stream again on another server: fact by fact, at the same sequences, up to a mark.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::stream::{Config, SubjectTransform};
use futures_util::future::join_all;
use nats::{Bus, Message, Reader};

use crate::beat;

/// Publishes in flight.
const WINDOW: usize = 64;
/// How long the server may be away.
const OUTAGE_BOUND: Duration = Duration::from_secs(120);
/// Under this a copy hears what it stores without it: the copy's subjects would meet those of the streams that the
/// facts came from.
const PREFIX: &str = "tape";

/// Copies `stream` of one server to another.
pub struct Feed {
    stream: String,
    prefix: Option<&'static str>,
    to: Bus,
    reader: Reader,
    /// Read and not yet known to be stored.
    ahead: VecDeque<Message>,
    fed: u64,
    last: u64,
}

impl Feed {
    /// Into a stream of the same name that takes the facts' own subjects.
    pub async fn new(from: &Bus, stream: &str, to: &Bus) -> anyhow::Result<Self> {
        Self::of(from, stream, to, None).await
    }

    /// Into a plain stream of the same name that is made here, in place of the sequencer that the recorded one was.
    pub async fn sequencer(from: &Bus, stream: &str, to: &Bus, replicas: usize) -> anyhow::Result<Self> {
        // Absent is fine: a layout without accounts makes none.
        let _ = to.js().delete_stream(stream).await;
        let transform = SubjectTransform { source: format!("{PREFIX}.>"), destination: ">".to_owned() };
        let config = Config {
            name: stream.to_owned(),
            subjects: vec![format!("{PREFIX}.>")],
            subject_transform: Some(transform),
            num_replicas: replicas,
            allow_direct: true,
            ..Config::default()
        };
        to.js().create_stream(config).await.with_context(|| format!("create a plain {stream}"))?;
        Self::of(from, stream, to, Some(PREFIX)).await
    }

    async fn of(from: &Bus, stream: &str, to: &Bus, prefix: Option<&'static str>) -> anyhow::Result<Self> {
        let last = from.stream(stream).await?.last_seq;
        let reader = Reader::open(from, stream, ">", 1).await?;
        Ok(Self { stream: stream.to_owned(), prefix, to: to.clone(), reader, ahead: VecDeque::new(), fed: 0, last })
    }

    /// Facts of the recorded stream.
    pub fn last(&self) -> u64 {
        self.last
    }
    /// Facts that are known to be stored.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Stores everything up to and with sequence `mark`, whatever happens to the server meanwhile. Not cancel safe
    /// as to `fed`; a repeated call finds out.
    pub async fn up_to(&mut self, mark: u64) -> anyhow::Result<()> {
        let mark = mark.min(self.last);
        let (mut moved, mut beat) = (Instant::now(), beat());
        while self.fed < mark {
            let before = self.fed;
            let trouble = self.window(mark).await?;
            if self.fed > before {
                moved = Instant::now();
                continue;
            }
            ensure!(moved.elapsed() < OUTAGE_BOUND, "{} does not go on behind {before}: {trouble:?}", self.stream);
            beat.tick().await;
        }
        Ok(())
    }

    /// Stores what comes next, as far as the server takes it; what stood in the way.
    async fn window(&mut self, mark: u64) -> anyhow::Result<Option<anyhow::Error>> {
        let wanted = WINDOW.min((mark - self.fed) as usize);
        while self.ahead.len() < wanted {
            let message = self.reader.next().await.context("read the recorded stream")?;
            let expected = self.ahead.back().map_or(self.fed, |m| m.seq) + 1;
            ensure!(message.seq == expected, "{} has a hole before {}", self.stream, message.seq);
            self.ahead.push_back(message);
        }
        let sent = join_all(self.ahead.iter().take(wanted).map(|m| self.store(m))).await;
        let Some(trouble) = sent.into_iter().filter_map(Result::err).next() else {
            self.settle(self.fed + wanted as u64)?;
            return Ok(None);
        };
        // Some are stored and some are not: the stream itself says how many, once it is there.
        match self.to.stream(&self.stream).await {
            Ok(state) => self.settle(state.last_seq)?,
            Err(away) => return Ok(Some(away.into())),
        }
        Ok(Some(trouble))
    }

    fn settle(&mut self, stored: u64) -> anyhow::Result<()> {
        ensure!(stored >= self.fed, "{} lost its tail: {stored} of {} are left", self.stream, self.fed);
        while self.ahead.front().is_some_and(|m| m.seq <= stored) {
            self.ahead.pop_front();
        }
        self.fed = stored;
        Ok(())
    }

    async fn store(&self, message: &Message) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (message.seq - 1).to_string().as_str());
        headers.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        let subject = match self.prefix {
            Some(prefix) => format!("{prefix}.{}", message.subject),
            None => message.subject.to_string(),
        };
        let ack = self.to.js().publish_with_headers(subject, headers, message.payload.clone()).await?.await?;
        ensure!(ack.sequence == message.seq, "stored at {}, expected {}", ack.sequence, message.seq);
        Ok(())
    }
}
