//! One queue in one process: what streams, sequencers and stage loops are for live.
//!
//! Facts are bytes here as well, so a core hears exactly what it would hear from a stream. A fact is handled to its
//! end before the next one of the tape is put in, and members hear it in the order in which they joined; so the
//! same tape gives the same facts, which [`Queue::hash`] shows.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, anyhow};
use schemas::{Core, Listen, Place, Speak};
use sha2::{Digest, Sha256};

/// A fact with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    pub place: Place,
    pub subject: String,
    pub payload: Vec<u8>,
}

/// What a member hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// One stream.
    Stream(String),
    /// The sequencer: everything that the desk merges, under its own places.
    Desk,
}

/// A core of any kind.
trait Member {
    fn hear(
        &mut self,
        place: &Place,
        subject: &str,
        payload: &[u8],
        out: &mut Vec<(String, Vec<u8>)>,
    ) -> anyhow::Result<()>;
}

impl<C: Core> Member for C {
    fn hear(
        &mut self,
        place: &Place,
        subject: &str,
        payload: &[u8],
        out: &mut Vec<(String, Vec<u8>)>,
    ) -> anyhow::Result<()> {
        let Some(input) = C::In::hear(subject, payload)? else { return Ok(()) };
        let mut said = Vec::new();
        self.handle(place, input, &mut said).map_err(|fault| anyhow!(fault.0))?;
        out.extend(said.iter().filter(|fact| fact.stored()).map(|fact| (fact.subject(), fact.payload())));
        Ok(())
    }
}

struct Seat {
    name: String,
    input: Input,
    output: String,
    member: Box<dyn Member>,
}

/// See the module.
pub struct Queue {
    seats: Vec<Seat>,
    desk: String,
    /// The desk also hears candles: they are the market data of a candle backtest.
    desk_hears_candles: bool,
    sequences: BTreeMap<String, u64>,
    waiting: VecDeque<Recorded>,
    hash: Sha256,
    facts: u64,
}

impl Queue {
    pub fn new(account: &str, desk_hears_candles: bool) -> Self {
        Self {
            seats: Vec::new(),
            desk: schemas::subject::stream::desk(account),
            desk_hears_candles,
            sequences: BTreeMap::new(),
            waiting: VecDeque::new(),
            hash: Sha256::new(),
            facts: 0,
        }
    }

    /// A core joins; what it says stands in `output`.
    pub fn join(&mut self, name: &str, input: Input, output: String, core: impl Core + 'static) {
        self.seats.push(Seat { name: name.to_owned(), input, output, member: Box::new(core) });
    }

    /// Puts a fact of the tape into `stream` and lets everything follow; `watch` sees each fact in its order.
    pub fn play(
        &mut self,
        stream: &str,
        subject: String,
        payload: Vec<u8>,
        watch: &mut dyn FnMut(&Recorded) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.put(stream, subject, payload);
        while let Some(fact) = self.waiting.pop_front() {
            watch(&fact)?;
            let desk_place = self.desk_place(&fact);
            let mut said = Vec::new();
            for seat in &mut self.seats {
                let place = match &seat.input {
                    Input::Stream(stream) if **stream == *fact.place.stream => &fact.place,
                    Input::Desk => match &desk_place {
                        Some(place) => place,
                        None => continue,
                    },
                    Input::Stream(_) => continue,
                };
                let mut out = Vec::new();
                let heard = seat.member.hear(place, &fact.subject, &fact.payload, &mut out);
                heard.with_context(|| format!("{} at {} {}", seat.name, place.seq, fact.subject))?;
                said.extend(out.into_iter().map(|(subject, payload)| (seat.output.clone(), subject, payload)));
            }
            for (stream, subject, payload) in said {
                self.put(&stream, subject, payload);
            }
        }
        Ok(())
    }

    fn put(&mut self, stream: &str, subject: String, payload: Vec<u8>) {
        let seq = self.next(stream);
        // Lengths stand before what they measure, so no two different runs read the same.
        for part in [stream.as_bytes(), &seq.to_be_bytes(), subject.as_bytes(), &payload] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
        self.facts += 1;
        self.waiting.push_back(Recorded { place: Place::new(stream, seq), subject, payload });
    }

    fn next(&mut self, stream: &str) -> u64 {
        let seq = self.sequences.entry(stream.to_owned()).or_insert(0);
        *seq += 1;
        *seq
    }

    /// Where the sequencer records the fact; `None` where it does not source it.
    fn desk_place(&mut self, fact: &Recorded) -> Option<Place> {
        let mut tokens = fact.subject.split('.');
        let sourced = match tokens.next().unwrap_or("") {
            "raw" => matches!(tokens.nth(2), Some("trade" | "quote" | "ticker" | "gap" | "clock")),
            "candle" | "preview" => self.desk_hears_candles,
            "signal" | "order" | "cancel" | "state" | "sending" | "cancelling" | "ack" | "fill" | "reject" | "done"
            | "funding" | "$KV" => true,
            _ => false,
        };
        sourced.then(|| {
            let desk = self.desk.clone();
            let seq = self.next(&desk);
            Place::new(&desk, seq)
        })
    }

    /// Facts so far, those of the tape included.
    pub fn facts(&self) -> u64 {
        self.facts
    }

    /// SHA-256 over stream, sequence, subject and bytes of every fact so far, in hex.
    pub fn hash(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
