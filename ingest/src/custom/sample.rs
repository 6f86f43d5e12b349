//! A description tried on recorded lines: what was understood, what was not and why.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;

use serde::Serialize;

use super::description::Description;
use super::files::{Reader, Said};
use super::message::About;
use crate::event::Event;
use crate::feed::subject_of;
use crate::normalize;

/// Lines that are shown in full; all are counted.
pub const SHOWN_MAX: usize = 10;
/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 160;

/// What a description makes of a sample.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// Lines with something on them, and how many of them said something that was not understood.
    pub lines: u64,
    pub wrong: u64,
    /// By `[[message]]`, also those that the sample never showed.
    pub messages: Vec<Seen>,
    /// Events by kind and symbol (`` where it tells none), in the normalised form.
    pub events: BTreeMap<String, BTreeMap<String, u64>>,
    /// The first lines that were not understood.
    pub first_wrong: Vec<Wrong>,
}

/// How often a `[[message]]` was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Seen {
    pub message: String,
    pub kind: String,
    pub lines: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Wrong {
    /// From 1.
    pub line: u64,
    pub reason: String,
    pub start: String,
}

/// Reads every line: a row of a file where the description has `[files]`, else a frame, perhaps behind its receive time.
/// `channel` names the polled channel whose answers they are; `symbol` is that of the request or file.
pub fn check(description: &Arc<Description>, channel: &str, symbol: &str, lines: impl BufRead) -> io::Result<Report> {
    let seen = |m: &super::message::Message| Seen { message: m.name.clone(), kind: m.kind.to_owned(), lines: 0 };
    let mut report = Report { messages: description.messages.iter().map(seen).collect(), ..Report::default() };
    let mut rows = description.files.is_some().then(|| Reader::new(Arc::clone(description), symbol));
    let about = About { channel, symbol: Some(symbol).filter(|s| !s.is_empty()) };
    for (n, line) in lines.split(b'\n').enumerate() {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let mut events = Vec::new();
        let message = match &mut rows {
            None => description.decode(frame(text), about, &mut events),
            Some(rows) => match rows.line(text) {
                // A header.
                None => continue,
                Some(Err(why)) => {
                    events.push(Event::Malformed(why));
                    None
                }
                Some(Ok(row)) => {
                    for said in row.said {
                        match said {
                            Said::Event(event) => events.push(event),
                            Said::Gap(gap) => report.event("gap", &gap.symbol),
                        }
                    }
                    Some(row.message)
                }
            },
        };
        report.lines += 1;
        if let Some(at) = message {
            report.messages[at].lines += 1;
        }
        report.take(n as u64 + 1, text, &events);
    }
    Ok(report)
}

/// Without the receive time of a recording.
fn frame(line: &str) -> &str {
    match line.split_once(' ') {
        Some((recv, frame)) if !recv.is_empty() && recv.bytes().all(|b| b.is_ascii_digit()) => frame.trim_start(),
        _ => line,
    }
}

impl Report {
    fn event(&mut self, kind: &str, symbol: &str) {
        *self.events.entry(kind.to_owned()).or_default().entry(symbol.to_owned()).or_default() += 1;
    }

    fn take(&mut self, number: u64, line: &str, events: &[Event]) {
        let mut reason = None;
        for event in events {
            if let Event::Malformed(why) = event {
                reason.get_or_insert(why);
                continue;
            }
            let symbol = subject_of(event).map_or("", |(symbol, _)| symbol).to_owned();
            for row in normalize::rows(event) {
                self.event(row["kind"].as_str().unwrap_or(""), &symbol);
            }
        }
        let Some(reason) = reason else { return };
        self.wrong += 1;
        if self.first_wrong.len() < SHOWN_MAX {
            let start = line.chars().take(LINE_CHARS_MAX).collect();
            self.first_wrong.push(Wrong { line: number, reason: reason.clone(), start });
        }
    }
}
