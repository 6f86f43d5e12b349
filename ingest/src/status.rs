//! What venues say of their own state: one form for all, its sentence, and which of it is news.
//!
//! Such a message is no market data: it neither shows that a feed lives nor ends a gap.

use std::collections::BTreeMap;
use std::fmt;

use schemas::Nanos;
use serde::{Serialize, Serializer};

use crate::event::Symbol;
use crate::text::utc;

/// A venue's own text is cut here in a sentence.
const TEXT_BYTES_MAX: usize = 500;
/// What stands is shown of this many, the newest.
const STANDING_MAX: usize = 16;

/// What a venue says of its own state, or of an instrument's.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub of: Of,
    pub state: State,
    /// The venue's own word for the state.
    pub word: String,
    /// What the venue says besides; often empty.
    pub text: String,
    /// When it begins and ends, or is expected to.
    pub from: Option<Nanos>,
    pub to: Option<Nanos>,
    /// When the venue said it.
    pub ts: Option<Nanos>,
}

/// What a state is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// The venue, or a part of it in its own words: a system and the work on it, a service, an index.
    Venue(String),
    Symbol(Symbol),
}

/// The states that we tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It works, or works again.
    Online,
    /// A maintenance is announced and has not begun.
    Scheduled,
    /// It takes some orders only.
    Restricted,
    /// It is halted.
    Locked,
    Maintenance,
    Offline,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Scheduled => "scheduled",
            Self::Restricted => "restricted",
            Self::Locked => "locked",
            Self::Maintenance => "maintenance",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Venue(part) if part.is_empty() => f.write_str("the venue"),
            Self::Venue(part) => f.write_str(&part[..part.floor_char_boundary(TEXT_BYTES_MAX)]),
            Self::Symbol(symbol) => f.write_str(symbol),
        }
    }
}

/// `maintenance: linear-swap (heartbeat 0), until 2020-02-04T12:00:00Z`
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.state.as_str(), self.of, self.word)?;
        if let Some(from) = self.from {
            write!(f, ", from {}", utc(from))?;
        }
        if let Some(to) = self.to {
            write!(f, ", until {}", utc(to))?;
        }
        match &self.text[..self.text.floor_char_boundary(TEXT_BYTES_MAX)] {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}

/// What was said last of each, so that what a venue repeats is told once. It outlives connections, which venues begin with all
/// that they know.
#[derive(Debug)]
pub struct Told {
    max: usize,
    last: BTreeMap<Of, Status>,
}

impl Told {
    /// Remembers `max` of them; of further ones all is news.
    pub fn new(max: usize) -> Self {
        Self { max, last: BTreeMap::new() }
    }

    /// It is not what was said last of the same, nor older than that.
    pub fn is_news(&mut self, status: &Status) -> bool {
        let room = self.last.len() < self.max;
        match self.last.get_mut(&status.of) {
            Some(last) if last.ts.zip(status.ts).is_some_and(|(last, now)| now < last) => false,
            Some(last) => {
                let same = Status { ts: last.ts, ..status.clone() } == *last;
                last.clone_from(status);
                !same
            }
            None => {
                if room {
                    self.last.insert(status.of.clone(), status.clone());
                }
                true
            }
        }
    }
}

/// The sentences of what is not online at present, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing(Vec<(Of, String)>);

impl Standing {
    pub fn heed(&mut self, status: &Status) {
        self.0.retain(|(of, _)| *of != status.of);
        if status.state == State::Online {
            return;
        }
        if self.0.len() == STANDING_MAX {
            self.0.remove(0);
        }
        self.0.push((status.of.clone(), status.to_string()));
    }
}

impl Serialize for Standing {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(|(_, sentence)| sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(of: &str, state: State, ts_ms: i64) -> Status {
        Status {
            of: Of::Symbol(of.into()),
            state,
            word: "word".to_owned(),
            text: String::new(),
            from: None,
            to: None,
            ts: Some(Nanos::from_ms(ts_ms)),
        }
    }

    #[test]
    fn a_sentence_has_the_state_of_what_the_venues_word_its_times_and_its_text() {
        let mut said = status("BTC-USD", State::Offline, 0);
        assert_eq!(said.to_string(), "offline: BTC-USD (word)");
        (said.of, said.text) = (Of::Venue(String::new()), "be patient".to_owned());
        (said.from, said.to) = (Some(Nanos::from_ms(1_672_823_400_000)), Some(Nanos::from_ms(1_672_825_980_999)));
        assert_eq!(
            said.to_string(),
            "offline: the venue (word), from 2023-01-04T09:10:00Z, until 2023-01-04T09:53:00Z: be patient"
        );
        said.text = "ä".repeat(TEXT_BYTES_MAX);
        assert!(said.to_string().len() < TEXT_BYTES_MAX + 100);
    }

    #[test]
    fn what_a_venue_repeats_or_says_late_is_no_news_and_what_changes_is() {
        let mut told = Told::new(10);
        assert!(told.is_news(&status("BTC", State::Online, 1)));
        assert!(!told.is_news(&status("BTC", State::Online, 2)));
        assert!(told.is_news(&status("ETH", State::Online, 2)));
        assert!(told.is_news(&status("BTC", State::Offline, 5)));
        assert!(!told.is_news(&status("BTC", State::Online, 4)), "older than what was told");
        let later = Status { to: Some(Nanos::from_ms(9)), ..status("BTC", State::Offline, 6) };
        assert!(told.is_news(&later), "its end is known now");
        assert!(told.is_news(&status("BTC", State::Online, 7)));
    }

    #[test]
    fn beyond_its_bound_nothing_is_remembered_and_all_is_news() {
        let mut told = Told::new(1);
        for of in ["BTC", "ETH", "ETH"] {
            assert!(told.is_news(&status(of, State::Online, 1)));
        }
        assert!(!told.is_news(&status("BTC", State::Online, 1)));
        assert_eq!(told.last.len(), 1);
    }

    #[test]
    fn what_is_not_online_stands_until_it_is_and_the_oldest_gives_way() {
        let mut standing = Standing::default();
        for n in 0..=STANDING_MAX {
            standing.heed(&status(&format!("S{n}"), State::Locked, 1));
        }
        standing.heed(&status("S3", State::Online, 2));
        standing.heed(&status("S2", State::Offline, 3));
        let shown: Vec<String> = serde_json::from_value(serde_json::to_value(&standing).unwrap()).unwrap();
        assert_eq!(shown.len(), STANDING_MAX - 1);
        assert_eq!((shown[0].as_str(), shown[14].as_str()), ("locked: S1 (word)", "offline: S2 (word)"));
    }
}
