//! The backtest over the recorded ticks, and every fact that it says beside what the live pipeline said.

use std::collections::BTreeMap;

use anyhow::Context;
use backtest::queue::{Input, Queue, Recorded};
use nats::{Bus, Reader};
use schemas::subject::stream;
use schemas::{Core, Fault, Listen, Place, Speak, WireError};
use serde::Serialize;
use serde_json::Value;

use super::desk::{Desk, Inversion, Tape, desk_hears};
use crate::audit::stored::Stored;
use crate::cores::{AnyCore, Said, Task};
use crate::decode;

/// Kinds of the desk that are compared by content; ids and causes name desk positions and differ with them.
const DESK_KINDS: [&str; 5] = ["order", "cancel", "refusal", "fill", "reject"];
/// Differences shown of a kind and side.
const SHOWN_MAX: usize = 3;

/// One kind of facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    pub kind: String,
    pub live: u64,
    pub backtest: u64,
    pub equal: u64,
    /// Facts of either side without their equal, behind the first place where the two merge orders part.
    pub explained: u64,
    pub unexplained: u64,
    /// The first of them.
    pub shown: Vec<Difference>,
}

/// A fact that only one side said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// `live` or `backtest`.
    pub side: &'static str,
    /// The tick before it: `stream:seq`.
    pub behind: String,
    pub explained: bool,
    /// The nearest fact before it whose place between the ticks is another one in the backtest.
    pub because: Option<Inversion>,
    pub subject: String,
    pub fact: Value,
}

/// What the backtest said.
pub struct Backtest {
    rows: BTreeMap<String, Row>,
    /// By stream: how many facts.
    said: BTreeMap<String, u64>,
    /// By signal stream: ticks played when each signal was said, and its subject.
    pub signals: BTreeMap<String, Vec<(u64, String)>>,
    /// Facts of the desk kinds: by content, the ticks played when they were said.
    desk: BTreeMap<(String, String), Vec<u64>>,
}

/// A core at the queue that hears the subjects of its task alone.
struct Member {
    inner: Box<dyn AnyCore>,
    filter: String,
    /// It hears the desk, which sources one clock of a venue and not all of them.
    desk: bool,
}

struct In {
    subject: String,
    payload: Vec<u8>,
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(Some(Self { subject: subject.to_owned(), payload: payload.to_vec() }))
    }
}

impl Speak for Said {
    fn subject(&self) -> String {
        self.subject.clone()
    }
    fn payload(&self) -> Vec<u8> {
        self.payload.clone()
    }
}

impl Core for Member {
    type In = In;
    type Out = Said;
    const CODE_VERSION: u32 = 0;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Said>) -> Result<(), Fault> {
        let sourced = !self.desk || !input.subject.starts_with("raw.") || desk_hears(&input.subject);
        if sourced && matches(&self.filter, &input.subject) {
            self.inner.fold(place, &input.subject, &input.payload, out)?;
        }
        Ok(())
    }
    fn save(&self) -> Vec<u8> {
        self.inner.save()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.inner.restore(state)
    }
}

/// Whether a subject is under a filter with wildcards.
fn matches(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(f), Some(s)) if f == "*" || f == s => {}
            _ => return false,
        }
    }
}

/// Plays the tape through `tasks` and compares candles, indicators and signals position by position as they come.
pub async fn play(
    bus: &Bus,
    account: &str,
    tasks: &[Task],
    tape: &Tape,
    desk: &Desk,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Backtest> {
    let mut queue = Queue::new(account, false);
    let desk_name = stream::desk(account);
    let mut live: BTreeMap<String, Stored> = BTreeMap::new();
    for task in tasks {
        let spec = &task.spec;
        let input = if spec.input == desk_name { Input::Desk } else { Input::Stream(spec.input.clone()) };
        let member = Member { inner: task.core()?, filter: spec.filter.clone(), desk: spec.input == desk_name };
        queue.join(&task.name(), input, spec.output.clone(), member);
        if spec.input != desk_name {
            let last = bus.stream(&spec.output).await?.last_seq;
            live.insert(spec.output.clone(), Stored::open(bus, &spec.output, 1, last).await?);
        }
    }
    let mut test =
        Backtest { rows: BTreeMap::new(), said: BTreeMap::new(), signals: BTreeMap::new(), desk: BTreeMap::new() };
    let mut readers = Vec::new();
    for name in &tape.streams {
        readers.push(Reader::open(bus, name, ">", 1).await?);
    }
    let mut extras = desk.extras.iter().peekable();
    for (played, tick) in tape.ticks.iter().enumerate() {
        let played = played as u64;
        while let Some(extra) = extras.next_if(|extra| extra.after <= played) {
            let from = extra_stream(&extra.subject);
            test.put(&mut queue, &mut live, tape, played, (&from, &extra.subject, &extra.payload)).await?;
        }
        let message = readers[tick.stream].next().await?;
        let name = &tape.streams[tick.stream];
        anyhow::ensure!(message.seq == tick.seq, "{name} changed while it was read");
        test.put(&mut queue, &mut live, tape, played + 1, (name, &message.subject, &message.payload)).await?;
        if played.is_multiple_of(1024) {
            progress(played);
        }
    }
    for extra in extras {
        let (from, played) = (extra_stream(&extra.subject), tape.ticks.len() as u64);
        test.put(&mut queue, &mut live, tape, played, (&from, &extra.subject, &extra.payload)).await?;
    }
    test.rest(bus, tasks, &desk_name, tape).await?;
    Ok(test)
}

/// The stream that an extra is put into.
fn extra_stream(subject: &str) -> String {
    subject.split('.').take(2).collect::<Vec<_>>().join("_")
}

impl Backtest {
    async fn put(
        &mut self,
        queue: &mut Queue,
        live: &mut BTreeMap<String, Stored>,
        tape: &Tape,
        played: u64,
        (stream, subject, payload): (&str, &str, &[u8]),
    ) -> anyhow::Result<()> {
        let mut said: Vec<Recorded> = Vec::new();
        queue.play(stream, subject.to_owned(), payload.to_vec(), &mut |fact| {
            said.push(fact.clone());
            Ok(())
        })?;
        // The first is what was put in.
        for fact in said.into_iter().skip(1) {
            let kind = fact.subject.split('.').next().unwrap_or("").to_owned();
            let name = fact.place.stream.to_string();
            self.said.insert(name.clone(), fact.place.seq);
            if kind == "signal" {
                self.signals.entry(name.clone()).or_default().push((played, fact.subject.clone()));
            }
            let Some(live) = live.get_mut(&name) else {
                if DESK_KINDS.contains(&kind.as_str()) {
                    self.row(&kind).backtest += 1;
                    self.desk.entry((fact.subject, content(&fact.payload))).or_default().push(played);
                }
                continue;
            };
            let found = live.at(fact.place.seq).await?;
            let row = self.row(&kind);
            row.backtest += 1;
            match found {
                Some(found) if *found.payload == *fact.payload && *found.subject == *fact.subject => {
                    row.live += 1;
                    row.equal += 1;
                }
                found => {
                    row.live += u64::from(found.is_some());
                    row.differs("backtest", &fact.subject, &fact.payload, tape, played, None);
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, kind: &str) -> &mut Row {
        let fresh = || Row { kind: kind.to_owned(), ..Row::default() };
        self.rows.entry(kind.to_owned()).or_insert_with(fresh)
    }

    /// What the live tasks said beyond the backtest, of ticks that were played.
    async fn rest(&mut self, bus: &Bus, tasks: &[Task], desk: &str, tape: &Tape) -> anyhow::Result<()> {
        let played: BTreeMap<&str, u64> = (0..tape.streams.len())
            .map(|i| (tape.streams[i].as_str(), tape.ticks.iter().rev().find(|t| t.stream == i).map_or(0, |t| t.seq)))
            .collect();
        for task in tasks.iter().filter(|task| task.spec.input != desk) {
            let (name, said) = (&task.spec.output, self.said.get(&task.spec.output).copied().unwrap_or(0));
            let heard = match played.get(task.spec.input.as_str()) {
                Some(seq) => *seq,
                None => self.said.get(&task.spec.input).copied().unwrap_or(0),
            };
            let last = bus.stream(name).await?.last_seq;
            let mut stored = Stored::open(bus, name, said + 1, last).await?;
            for k in said + 1..=last {
                let Some(found) = stored.at(k).await? else { continue };
                let fact = decode::json_of(&found.payload);
                let cause = fact["cause"].as_str().and_then(|c| c.parse::<schemas::Cause>().ok());
                if cause.is_none_or(|cause| cause.seq > heard) {
                    break; // of ticks that came later
                }
                let kind = found.subject.split('.').next().unwrap_or("").to_owned();
                let row = self.row(&kind);
                row.live += 1;
                row.differs("live", &found.subject, &found.payload, tape, tape.ticks.len() as u64, None);
            }
        }
        Ok(())
    }

    /// Compares orders, fills and refusals by content with what risk and executor said; those behind the first
    /// place where the merge orders part are explained when `proved`.
    pub async fn desk(
        mut self,
        bus: &Bus,
        account: &str,
        tape: &Tape,
        desk: &Desk,
        proved: bool,
    ) -> anyhow::Result<Vec<Row>> {
        let explains = |subject: &str, at: u64| if proved { desk.witness(subject, at) } else { None };
        let end = tape.ticks.len() as u64;
        for name in [stream::risk(account), stream::exec(account)] {
            let last = bus.stream(&name).await.context("look at the live stream")?.last_seq;
            let mut stored = Stored::open(bus, &name, 1, last).await?;
            for k in 1..=last {
                let Some(found) = stored.at(k).await? else { continue };
                let kind = found.subject.split('.').next().unwrap_or("").to_owned();
                if !DESK_KINDS.contains(&kind.as_str()) {
                    continue;
                }
                let cause = decode::json_of(&found.payload)["cause"].as_str().and_then(|c| c.parse().ok());
                let at = cause.and_then(|cause: schemas::Cause| desk.coordinate(cause.seq));
                let Some(at) = at.filter(|at| *at <= end) else { continue };
                let key = (found.subject.to_string(), content(&found.payload));
                let there = self.desk.get_mut(&key).and_then(|times| (!times.is_empty()).then(|| times.remove(0)));
                let row = self.row(&kind);
                row.live += 1;
                match there {
                    Some(_) => row.equal += 1,
                    None => {
                        let because = explains(&found.subject, at);
                        row.differs("live", &found.subject, &found.payload, tape, at, because);
                    }
                }
            }
        }
        for ((subject, content), times) in std::mem::take(&mut self.desk) {
            let kind = subject.split('.').next().unwrap_or("").to_owned();
            for at in times {
                let because = explains(&subject, at);
                self.row(&kind).differs("backtest", &subject, content.as_bytes(), tape, at, because);
            }
        }
        Ok(self.rows.into_values().collect())
    }
}

impl Row {
    /// Notes a fact that only one side said; `because` explains it.
    fn differs(
        &mut self,
        side: &'static str,
        subject: &str,
        payload: &[u8],
        tape: &Tape,
        at: u64,
        because: Option<&Inversion>,
    ) {
        let explained = because.is_some();
        *(if explained { &mut self.explained } else { &mut self.unexplained }) += 1;
        if self.shown.iter().filter(|shown| shown.side == side).count() < SHOWN_MAX {
            self.shown.push(Difference {
                side,
                behind: tape.place(at),
                explained,
                because: because.cloned(),
                subject: subject.to_owned(),
                fact: decode::json_of(payload),
            });
        }
    }
}

/// A fact without what names places of the desk.
fn content(payload: &[u8]) -> String {
    let mut fact = decode::json_of(payload);
    if let Some(fact) = fact.as_object_mut() {
        for name in ["id", "cause", "parent"] {
            fact.remove(name);
        }
    }
    fact.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_as_the_server_matches() {
        for (filter, subject, expected) in [
            (">", "a.b", true),
            ("raw.3.binance.>", "raw.3.binance.trade.X", true),
            ("raw.3.binance.>", "raw.3.binance", false),
            ("raw.*.binance.trade", "raw.1.binance.trade", true),
            ("raw.3.binance.>", "raw.13.binance.trade.X", false),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }

    #[test]
    fn content_leaves_out_what_names_places() {
        let fact = |id: &str, qty: &str| {
            schemas::wire::encode(&serde_json::json!({"id": id, "cause": format!("DESK_main:{id}:0"), "qty": qty}))
        };
        assert_eq!(content(&fact("1", "5")), content(&fact("2", "5")));
        assert_ne!(content(&fact("1", "5")), content(&fact("1", "6")));
    }
}
