//! A tape from JetStream: raw streams as they are stored, read and decoded beside the cores that play them.
//!
//! Several streams are merged by the time at which the server stored their messages, of equal times in the order in
//! which they were named: the order in which a desk would have sourced them.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context, bail};
use backtest::fact::{Entry, Typed};
use backtest::pack::Listed;
use backtest::source::{Tape, is_spot};
use nats::{Bus, Reader};
use schemas::raw::Raw;
use schemas::subject::stream;
use schemas::{Fact, Instrument, Place};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Batches of decoded facts that wait to be played, for each stream.
const BATCHES_MAX: usize = 8;
/// Messages of a batch.
const BATCH: usize = 256;
/// Instruments that are read from KV `instruments`.
const INSTRUMENTS_MAX: usize = 10_000;

/// Which messages of the streams, by sequence; both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// 0: the first that is there.
    pub from_seq: u64,
    /// `None`: the last that is stored when the tape is opened.
    pub to_seq: Option<u64>,
}

impl Range {
    pub const ALL: Self = Self { from_seq: 0, to_seq: None };
}

/// What a reader hands over; an error ends it.
type Batch = anyhow::Result<Vec<(i64, Entry)>>;

/// See the module.
pub struct StreamTape {
    tracks: Vec<Track>,
    instruments: Vec<Instrument>,
    known: BTreeSet<(String, String)>,
    /// An instrument that nobody listed stands before its first trades.
    waiting: VecDeque<Entry>,
}

struct Track {
    batches: mpsc::Receiver<Batch>,
    facts: VecDeque<(i64, Entry)>,
    ended: bool,
}

impl StreamTape {
    /// Opens `streams` on `bus`; `books`: full order books too. The readers run on the current runtime.
    pub async fn open(bus: &Bus, streams: &[String], range: Range, books: bool) -> anyhow::Result<Self> {
        let mut tracks = Vec::new();
        for name in streams {
            let state = bus.stream(name).await?;
            let last = range.to_seq.unwrap_or(state.last_seq).min(state.last_seq);
            let from = if range.from_seq == 0 { state.before_first() + 1 } else { range.from_seq };
            if state.messages == 0 || last < from {
                bail!("{name} holds nothing from {from} to {last}; it has {} to {}", state.first_seq, state.last_seq);
            }
            let reader = Reader::open(bus, name, ">", from).await?;
            let (hand_over, batches) = mpsc::channel(BATCHES_MAX);
            Handle::current().spawn(read(reader, name.clone(), last, books, hand_over));
            tracks.push(Track { batches, facts: VecDeque::new(), ended: false });
        }
        let mut instruments = Vec::new();
        let listed = Reader::latest(bus, &nats::kv::stream(stream::KV_INSTRUMENTS), ">", INSTRUMENTS_MAX).await?;
        for message in listed.iter().filter(|message| !message.payload.is_empty()) {
            instruments
                .push(Instrument::decode(&message.payload).with_context(|| format!("read {}", message.subject))?);
        }
        let known = instruments.iter().map(|i| (i.venue.clone(), i.symbol.clone())).collect();
        Ok(Self { tracks, instruments, known, waiting: VecDeque::new() })
    }

    /// What a symbol's ticks tell of it, where KV `instruments` tells nothing.
    fn unlisted(&mut self, entry: &Entry) -> Option<Entry> {
        let Typed::Raw(Raw::Trades(pack)) = &entry.fact else { return None };
        let key = (pack.venue.clone(), pack.symbol.clone());
        if self.known.contains(&key) {
            return None;
        }
        let spot = is_spot(&pack.venue);
        let listed = Listed { venue: pack.venue.clone(), symbol: pack.symbol.clone(), scale: pack.scale, spot };
        eprintln!("{} {} is not in KV instruments: its steps are taken from its ticks", listed.venue, listed.symbol);
        self.known.insert(key);
        let stream = nats::kv::stream(stream::KV_INSTRUMENTS);
        let fact = Typed::Instrument(Box::new(listed.instrument()));
        Some(Entry { place: Place::new(&stream, self.known.len() as u64), fact })
    }
}

impl Tape for StreamTape {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        if let Some(entry) = self.waiting.pop_front() {
            return Ok(Some(entry));
        }
        let mut first: Option<(i64, usize)> = None;
        for (at, track) in self.tracks.iter_mut().enumerate() {
            if let Some(stored_ns) = track.head()?
                && first.is_none_or(|first| (stored_ns, at) < first)
            {
                first = Some((stored_ns, at));
            }
        }
        let Some((_, entry)) = first.and_then(|(_, at)| self.tracks[at].facts.pop_front()) else { return Ok(None) };
        Ok(Some(match self.unlisted(&entry) {
            Some(instrument) => {
                self.waiting.push_back(entry);
                instrument
            }
            None => entry,
        }))
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        Ok(self.instruments.clone())
    }
}

impl Track {
    /// When the next fact was stored; waits for it. Not to be called from async code.
    fn head(&mut self) -> anyhow::Result<Option<i64>> {
        while self.facts.is_empty() && !self.ended {
            match self.batches.blocking_recv() {
                Some(batch) => self.facts.extend(batch?),
                None => self.ended = true,
            }
        }
        Ok(self.facts.front().map(|(stored_ns, _)| *stored_ns))
    }
}

/// Reads and decodes up to `last`.
async fn read(mut reader: Reader, name: String, last: u64, books: bool, hand_over: mpsc::Sender<Batch>) {
    let place: std::sync::Arc<str> = name.as_str().into();
    loop {
        let messages = match reader.next_batch(BATCH).await {
            Ok(messages) => messages,
            Err(error) => {
                // Whoever plays the tape consumes the error; without a player there is nobody to tell.
                let _ = hand_over.send(Err(anyhow::Error::new(error).context(format!("read {name}")))).await;
                return;
            }
        };
        let mut batch = Vec::with_capacity(messages.len());
        let mut ends = false;
        for message in messages {
            if last < message.seq {
                ends = true;
                break;
            }
            ends = message.seq == last;
            if !books && message.subject.split('.').nth(3) == Some("book") {
                continue;
            }
            // What cannot be decoded is passed over, as every stage does.
            if let Ok(Some(raw)) = Raw::hear(&message.subject, &message.payload) {
                let place = Place { stream: std::sync::Arc::clone(&place), seq: message.seq };
                batch.push((message.time_ns, Entry { place, fact: Typed::Raw(raw) }));
            }
        }
        if hand_over.send(Ok(batch)).await.is_err() || ends {
            return;
        }
    }
}
