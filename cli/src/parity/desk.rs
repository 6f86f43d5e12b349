//! The recorded desk beside the ticks: which raw fact stood before each of its facts, and where its order is another
//! one than that of a backtest.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use nats::{Bus, Message, Reader, checkpoint};
use schemas::desk::DeskState;
use schemas::subject::stream;
use schemas::{Cause, Fact};

/// A raw message of the tape.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Its stream, by position in [`Tape::streams`].
    pub stream: usize,
    pub seq: u64,
}

/// All raw streams in one order: that of their storing.
#[derive(Debug, Default)]
pub struct Tape {
    pub streams: Vec<String>,
    pub ticks: Vec<Tick>,
    /// By stream: index in `ticks` and identity of each message that a desk hears.
    heard: Vec<Vec<(u64, u64)>>,
}

/// A fact that is no tick and no word of a stage: instruments, an operator's commands, signals of LLM traders and of
/// other programs. The backtest hears it behind the tick that stood before it on the desk.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Ticks that go before it.
    pub after: u64,
    pub subject: String,
    pub payload: Vec<u8>,
}

/// A fact that stands elsewhere between the ticks than in a backtest.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Inversion {
    /// Where the desk recorded it.
    pub desk: String,
    pub subject: String,
    /// The tick that goes before it on the desk, and in the backtest: `stream:seq`.
    pub live_behind: String,
    pub backtest_behind: String,
    /// Ticks that go before it in the backtest.
    #[serde(skip)]
    pub coordinate: u64,
}

/// Inversions that are kept as witnesses; the first ones.
const INVERSIONS_MAX: usize = 200_000;

/// What the recorded desk says.
#[derive(Debug, Default)]
pub struct Desk {
    pub extras: Vec<Extra>,
    /// By desk sequence (from 1): ticks that go before it.
    coordinates: Vec<u64>,
    /// Facts in another order than in a backtest, at most [`INVERSIONS_MAX`] of them.
    inversions: Vec<Inversion>,
    pub inversions_count: u64,
    /// Inputs of the desk that are not what the raw and signal streams hold; each is a reason of its own.
    pub wrong: Vec<String>,
    /// Signals of rule strategies by their stream, in the desk's order: desk sequence and identity.
    pub signals: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Tape {
    /// Every raw message of `venues` up to the ends given, in the order of storing; at most `messages_max`.
    pub async fn read(bus: &Bus, venues: &[(String, u64)], messages_max: u64) -> anyhow::Result<Self> {
        let mut tape = Self::default();
        let mut readers = Vec::new();
        for (venue, last) in venues {
            let name = stream::raw(venue);
            let state = bus.stream(&name).await?;
            ensure!(
                state.before_first() == 0,
                "{name} begins at {}: a comparison needs it from its first message",
                state.before_first() + 1
            );
            ensure!(*last <= messages_max, "{name} holds {last} messages; --messages-max is {messages_max}");
            let mut reader = Reader::open(bus, &name, ">", 1).await?;
            let next = if *last > 0 { Some(reader.next().await?) } else { None };
            tape.streams.push(name);
            tape.heard.push(Vec::new());
            readers.push((reader, next, *last));
        }
        loop {
            let oldest =
                readers.iter().enumerate().filter_map(|(i, (_, next, _))| next.as_ref().map(|m| (m.time_ns, i))).min();
            let Some((_, i)) = oldest else { return Ok(tape) };
            let (reader, next, last) = &mut readers[i];
            let Some(message) = next.take() else { continue };
            let index = tape.ticks.len() as u64;
            ensure!(index < messages_max, "more than {messages_max} raw messages; see --messages-max");
            if desk_hears(&message.subject) {
                tape.heard[i].push((index, checkpoint::message_id(&message)));
            }
            tape.ticks.push(Tick { stream: i, seq: message.seq });
            if message.seq < *last {
                *next = Some(reader.next().await?);
            }
        }
    }

    /// `stream:seq` of the tick before `coordinate`.
    pub fn place(&self, coordinate: u64) -> String {
        match coordinate.checked_sub(1).and_then(|i| self.ticks.get(i as usize)) {
            Some(tick) => format!("{}:{}", self.streams[tick.stream], tick.seq),
            None => "nothing".to_owned(),
        }
    }
}

/// The raw facts that a desk sources, see `nats::Layout`.
pub fn desk_hears(subject: &str) -> bool {
    let mut tokens = subject.split('.').skip(1);
    let (p, _, kind) = (tokens.next(), tokens.next(), tokens.next());
    matches!(kind, Some("trade" | "quote" | "ticker" | "gap")) || (kind == Some("clock") && p == Some("0"))
}

impl Desk {
    /// Ticks that go before the desk's fact at `seq`; `None` beyond what was read.
    pub fn coordinate(&self, seq: u64) -> Option<u64> {
        self.coordinates.get(seq.checked_sub(1)? as usize).copied()
    }

    /// Walks the desk of `account` beside the tape.
    pub async fn read(bus: &Bus, account: &str, tape: &Tape, messages_max: u64) -> anyhow::Result<Self> {
        let name = stream::desk(account);
        let state = bus.stream(&name).await?;
        ensure!(
            state.before_first() == 0,
            "{name} begins at {}: a comparison needs it from its first message",
            state.before_first() + 1
        );
        ensure!(state.last_seq <= messages_max, "{name} holds {} messages; see --messages-max", state.last_seq);
        let mut desk = Self::default();
        let mut at = vec![0usize; tape.streams.len()];
        let mut before = 0;
        if state.last_seq == 0 {
            return Ok(desk);
        }
        let mut reader = Reader::open(bus, &name, ">", 1).await?;
        loop {
            let message = reader.next().await?;
            let end = message.seq >= state.last_seq;
            before = desk.hear(&name, message, tape, &mut at, before)?;
            if end {
                break;
            }
        }
        for (stream, heard) in tape.heard.iter().enumerate() {
            if let Some((index, _)) = heard.get(at[stream]) {
                let next = tape.place(index + 1);
                desk.wrong.push(format!("{name} has not recorded {next} yet: ask again when it has caught up"));
            }
        }
        Ok(desk)
    }

    /// Gives the ticks that go before the next fact.
    fn hear(
        &mut self,
        name: &str,
        message: Message,
        tape: &Tape,
        at: &mut [usize],
        before: u64,
    ) -> anyhow::Result<u64> {
        let head = message.subject.split('.').next().unwrap_or("").to_owned();
        let mut now = before;
        match head.as_str() {
            "raw" => {
                let venue = message.subject.split('.').nth(2).unwrap_or("");
                let stream = tape.streams.iter().position(|s| *s == stream::raw(venue));
                let stream = stream.with_context(|| format!("{name}:{} is of another venue", message.seq))?;
                let id = checkpoint::message_id(&message);
                match tape.heard[stream].get(at[stream]) {
                    Some((index, found)) if *found == id => {
                        at[stream] += 1;
                        if index + 1 < before {
                            // A tick of one venue went behind a later stored one of another.
                            self.invert(name, &message, tape, before, index + 1);
                        }
                        now = before.max(index + 1);
                    }
                    // Beyond the end of the tape.
                    None => now = tape.ticks.len() as u64 + 1,
                    Some((index, _)) => {
                        let wrong = format!("{name}:{} is not the raw fact {}", message.seq, tape.place(index + 1));
                        self.wrong.push(wrong);
                    }
                }
            }
            "signal" if !ours(&message.subject) => self.extra(before, &message),
            "$KV" => {
                let derived = DeskState::decode(&message.payload)
                    .is_ok_and(|state| message.subject.starts_with("$KV.cfg.desk.") && state.by != "operator");
                // Risk's own states come back through KV; the backtest's risk says its own.
                if !derived && !message.payload.is_empty() {
                    self.extra(before, &message);
                }
            }
            "signal" => {
                let mut tokens = message.subject.split('.').skip(1);
                let (p, _, venue) = (tokens.next(), tokens.next(), tokens.next());
                if let (Some(p), Some(venue)) = (p.and_then(|p| p.parse().ok()), venue) {
                    let of = self.signals.entry(stream::signal(venue, p)).or_default();
                    of.push((message.seq, checkpoint::message_id(&message)));
                }
            }
            _ => self.feedback(name, &message, tape, before),
        }
        self.coordinates.push(now);
        Ok(now)
    }

    fn extra(&mut self, after: u64, message: &Message) {
        self.extras.push(Extra { after, subject: message.subject.to_string(), payload: message.payload.to_vec() });
    }

    /// An order, a fill: in a backtest it is heard before the next tick.
    fn feedback(&mut self, name: &str, message: &Message, tape: &Tape, before: u64) {
        #[derive(serde::Deserialize)]
        struct HasCause {
            cause: Option<Cause>,
        }
        let cause = schemas::wire::decode::<HasCause>(&message.payload).ok().and_then(|c| c.cause);
        let said = cause.filter(|c| c.stream == name).and_then(|c| self.coordinate(c.seq));
        if let Some(said) = said
            && said < before
        {
            self.invert(name, message, tape, before, said);
        }
    }

    /// Notes that `message` stands behind `live` ticks on the desk and behind `backtest` ticks in a backtest.
    fn invert(&mut self, name: &str, message: &Message, tape: &Tape, live: u64, backtest: u64) {
        self.note(format!("{name}:{}", message.seq), message.subject.to_string(), tape, live, backtest);
    }

    /// As [`Desk::invert`], for a signal that the backtest said behind `backtest` ticks.
    pub fn note(&mut self, desk: String, subject: String, tape: &Tape, live: u64, backtest: u64) {
        self.inversions_count += 1;
        if self.inversions.len() < INVERSIONS_MAX {
            let (live_behind, backtest_behind) = (tape.place(live), tape.place(backtest));
            let coordinate = live.min(backtest);
            self.inversions.push(Inversion { desk, subject, live_behind, backtest_behind, coordinate });
        }
    }

    /// Puts the witnesses in the order of the ticks; before it [`Desk::witness`] finds nothing right.
    pub fn sort(&mut self) {
        self.inversions.sort_by_key(|i| i.coordinate);
    }

    /// The first place where the two orders part.
    pub fn first(&self) -> Option<&Inversion> {
        self.inversions.first()
    }

    /// What stands in another order at or before `coordinate`: the newest of the same instrument, else the newest.
    pub fn witness(&self, subject: &str, coordinate: u64) -> Option<&Inversion> {
        /// How far back the same instrument is looked for.
        const BACK_MAX: usize = 1_000;
        let end = self.inversions.partition_point(|i| i.coordinate <= coordinate);
        let before = &self.inversions[..end];
        let instrument = |subject: &str| subject.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
        let own = instrument(subject);
        // A tick between two venues says less than a signal or fill that moved.
        let near = |i: &&Inversion| !i.subject.starts_with("raw.") && instrument(&i.subject) == own;
        before.iter().rev().take(BACK_MAX).find(near).or(before.last())
    }
}

/// A rule strategy's own signal; others come from outside of the cores.
fn ours(subject: &str) -> bool {
    subject.split('.').nth(1).is_some_and(|origin| origin.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_hears_market_data_and_one_clock_of_a_venue() {
        for (subject, heard) in [
            ("raw.3.binance.trade.BTCUSDT", true),
            ("raw.0.binance.clock._", true),
            ("raw.3.binance.clock._", false),
            ("raw.3.binance.book.BTCUSDT", false),
            ("raw.0.binance.dead", false),
        ] {
            assert_eq!(desk_hears(subject), heard, "{subject}");
        }
        assert!(ours("signal.3.ema.binance.X") && !ours("signal.ext.mine.binance.X"));
    }
}
