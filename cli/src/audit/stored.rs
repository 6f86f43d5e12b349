//! Stored facts beside what a fold says now: read in order, compared position by position.

use nats::{Bus, Message, Reader};
use serde::Serialize;
use serde_json::Value;

use crate::cores::Said;
use crate::decode;

/// The messages of one stream from a position on, up to an end that is fixed when it is opened.
pub struct Stored {
    reader: Option<Reader>,
    /// The first position that can be compared; what stood before has expired.
    first: u64,
    last: u64,
    batch: std::vec::IntoIter<Message>,
    ahead: Option<Message>,
}

/// Messages taken from the reader at once.
const BATCH: usize = 512;

impl Stored {
    /// From position `from` up to `last`, both included.
    pub async fn open(bus: &Bus, stream: &str, from: u64, last: u64) -> anyhow::Result<Self> {
        let first = from.max(bus.stream(stream).await?.before_first() + 1);
        let reader = if first <= last { Some(Reader::open(bus, stream, ">", first).await?) } else { None };
        Ok(Self { reader, first, last, batch: Vec::new().into_iter(), ahead: None })
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// The message at `k`; positions are asked for in rising order. `None`: expired, or beyond the end.
    pub async fn at(&mut self, k: u64) -> anyhow::Result<Option<Message>> {
        if k < self.first || self.last < k {
            return Ok(None);
        }
        loop {
            if let Some(ahead) = &self.ahead {
                if ahead.seq > k {
                    return Ok(None);
                }
                let found = self.ahead.take().filter(|message| message.seq == k);
                if found.is_some() {
                    return Ok(found);
                }
            }
            if self.batch.len() == 0 {
                let Some(reader) = &mut self.reader else { return Ok(None) };
                self.batch = reader.next_batch(BATCH).await?.into_iter();
            }
            self.ahead = self.batch.next();
        }
    }
}

/// A fact for people and scripts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// `stream:seq`; absent for what only a fold says.
    pub place: Option<String>,
    pub subject: String,
    pub fact: Value,
}

impl Shown {
    pub fn stored(stream: &str, message: &Message) -> Self {
        Self {
            place: Some(format!("{stream}:{}", message.seq)),
            subject: message.subject.to_string(),
            fact: decode::json_of(&message.payload),
        }
    }
    pub fn said(said: &Said) -> Self {
        Self { place: None, subject: said.subject.clone(), fact: decode::json_of(&said.payload) }
    }
}

/// Whether the message is what the fold says.
pub fn same(message: &Message, said: &Said) -> bool {
    *message.subject == *said.subject && *message.payload == *said.payload
}

/// Where two facts differ, as `path: a, then b`; at most [`DIFFERENCES_MAX`] of them.
pub fn differences(a: &Value, b: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", a, b, &mut found);
    found.truncate(DIFFERENCES_MAX);
    found
}

const DIFFERENCES_MAX: usize = 16;

fn differ(path: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    if a == b || found.len() > DIFFERENCES_MAX {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differ(&below(key), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&below(&i.to_string()), a, b, found);
            }
        }
        _ => found.push(format!("{path}: {a}, then {b}")),
    }
}

/// `{"place": ..., "subject": ..., "fact": ...}` on one line for people.
pub fn line(shown: Option<&Shown>) -> String {
    match shown {
        Some(Shown { place, subject, fact }) => {
            let place = place.as_deref().map(|place| format!("{place} ")).unwrap_or_default();
            format!("{place}{subject} {fact}")
        }
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_facts_are_told_apart_by_the_paths_that_differ() {
        let a = json!({"close": "1.5", "n": [1, 2], "same": true});
        let b = json!({"close": "1.6", "n": [1, 3], "same": true, "more": 1});
        assert_eq!(differences(&a, &b), [r#"close: "1.5", then "1.6""#, "more: null, then 1", "n.1: 2, then 3"]);
        assert!(differences(&a, &a).is_empty());
    }
}
