//! Files of rows as a source: CSV by its header's names, or one JSON object a line.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::{Nanos, Timeframe};
use time::macros::format_description;

use super::description::Description;
use super::json::Json;
use super::keys::Keys;
use super::message::About;
use crate::event::{Bar, Event, Symbol};
use crate::feed::subject_of;
use crate::session::Missing;

/// `[files]`.
#[derive(Clone, Debug)]
pub struct Files {
    pub format: Format,
    /// Lines before the header.
    skip_lines: usize,
    calendar: Option<Calendar>,
}

#[derive(Clone, Debug)]
pub enum Format {
    Csv {
        delimiter: u8,
        /// Of files that begin with their rows.
        header: Option<Vec<String>>,
        /// Cells that mean that nothing is there.
        empty: Vec<String>,
    },
    Ndjson,
}

/// On which days a daily bar is expected.
#[derive(Clone, Debug)]
struct Calendar {
    /// Days since 1970 modulo 7; 0 is a Thursday.
    closed_days: BTreeSet<i64>,
    /// Days since 1970.
    closed_dates: BTreeSet<i64>,
}

/// Weekdays by the remainder of days since 1970-01-01, a Thursday.
const WEEKDAYS: &[(&str, i64)] = &[("thu", 0), ("fri", 1), ("sat", 2), ("sun", 3), ("mon", 4), ("tue", 5), ("wed", 6)];

impl Files {
    pub fn read(keys: Keys<'_>) -> Option<Self> {
        keys.needed("format", "csv or ndjson");
        let format = keys.has("format").then(|| keys.one_of("format", &[("csv", true), ("ndjson", false)])).flatten();
        let skip_lines = keys.number("skip_lines", 0..=1000).unwrap_or(0) as usize;
        let format = match format {
            Some(true) => {
                let delimiter = match keys.text("delimiter") {
                    None => b',',
                    Some(text) if text.len() == 1 && text.is_ascii() => text.as_bytes()[0],
                    Some(text) => {
                        keys.wrong("delimiter", format!("`{text}` stands there; allowed is one ASCII character"));
                        b','
                    }
                };
                let (header, empty) = (keys.words("header"), keys.words("empty"));
                Some(Format::Csv { delimiter, header, empty: empty.unwrap_or_else(|| vec![String::new()]) })
            }
            Some(false) => Some(Format::Ndjson),
            None => {
                // What the other keys mean is not known.
                ["delimiter", "header", "empty"].iter().for_each(|key| {
                    keys.value(key);
                });
                None
            }
        };
        let calendar = keys.table("calendar").map(Calendar::read);
        keys.done();
        Some(Self { format: format?, skip_lines, calendar })
    }
}

impl Calendar {
    fn read(keys: Keys<'_>) -> Self {
        let mut this = Self { closed_days: BTreeSet::new(), closed_dates: BTreeSet::new() };
        for day in keys.words("closed_days").unwrap_or_default() {
            match WEEKDAYS.iter().find(|(name, _)| *name == day) {
                Some((_, n)) => drop(this.closed_days.insert(*n)),
                None => keys.wrong(
                    "closed_days",
                    format!("`{day}` stands there; allowed are mon, tue, wed, thu, fri, sat, sun"),
                ),
            }
        }
        for date in keys.words("closed_dates").unwrap_or_default() {
            match time::Date::parse(&date, format_description!("[year]-[month]-[day]")) {
                Ok(day) => {
                    this.closed_dates.insert(day.midnight().assume_utc().unix_timestamp().div_euclid(86_400));
                }
                Err(_) => {
                    keys.wrong("closed_dates", format!("`{date}` stands there; allowed are dates such as 2024-12-25"))
                }
            }
        }
        keys.done();
        this
    }

    /// Days between two bars on which one was expected, the first of them, and how many.
    fn missing(&self, last: Nanos, next: Nanos) -> Option<(Nanos, i64)> {
        /// More is told without being counted.
        const DAYS_MAX: i64 = 100_000;
        let day = |ns: Nanos| ns.0.div_euclid(Nanos::PER_DAY);
        let between = (day(last) + 1..day(next)).take(DAYS_MAX as usize);
        let mut open =
            between.filter(|d| !self.closed_days.contains(&d.rem_euclid(7)) && !self.closed_dates.contains(d));
        let first = open.next()?;
        Some((Nanos(first * Nanos::PER_DAY), 1 + open.count() as i64))
    }
}

/// One thing that a row says.
#[derive(Debug, PartialEq)]
pub enum Said {
    Event(Event),
    Gap(Missing),
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The place of its `[[message]]`.
    pub message: usize,
    /// When it was known: the close of a candle, the time of a trade or quote.
    pub at: Nanos,
    pub said: Vec<Said>,
}

/// Reads the files of one symbol, or of many where rows name theirs, one behind the other.
#[derive(Debug)]
pub struct Reader {
    description: Arc<Description>,
    /// Of the file; empty where rows tell it.
    symbol: String,
    columns: Option<Vec<String>>,
    /// Lines of this file so far.
    lines: usize,
    newest: Nanos,
    /// The open of each symbol's last bar.
    bars: BTreeMap<Symbol, Nanos>,
}

impl Reader {
    pub fn new(description: Arc<Description>, symbol: &str) -> Self {
        let symbol = symbol.to_owned();
        Self { description, symbol, columns: None, lines: 0, newest: Nanos(i64::MIN), bars: BTreeMap::new() }
    }

    /// The next line is the first of another file.
    pub fn next_file(&mut self) {
        (self.columns, self.lines) = (None, 0);
    }

    /// Reads a line; `None`: it is a header or before it. The error says why it says nothing.
    pub fn line(&mut self, line: &str) -> Option<Result<Row, String>> {
        let description = Arc::clone(&self.description);
        let Some(files) = &description.files else { return Some(Err("the description has no [files]".to_owned())) };
        self.lines += 1;
        if self.lines <= files.skip_lines {
            return None;
        }
        match &files.format {
            Format::Ndjson => Some(Json::parse(line).and_then(|json| self.row(files, &json))),
            Format::Csv { delimiter, header, empty } => {
                let cells = match cells(line, *delimiter) {
                    Ok(cells) => cells,
                    Err(why) => return Some(Err(why)),
                };
                if self.columns.is_none() {
                    self.columns = header.clone();
                }
                let Some(columns) = &self.columns else {
                    self.columns = Some(cells.iter().map(|cell| cell.trim().to_owned()).collect());
                    return None;
                };
                if cells.len() != columns.len() {
                    return Some(Err(format!("{} cells, the header has {}", cells.len(), columns.len())));
                }
                let cell = |text: &str| match text.trim() {
                    nothing if empty.iter().any(|e| e == nothing) => Json::Null,
                    text => Json::Text(Cow::Owned(text.to_owned())),
                };
                let members = columns.iter().zip(&cells).map(|(name, text)| (Cow::Owned(name.clone()), cell(text)));
                Some(self.row(files, &Json::Object(members.collect())))
            }
        }
    }

    fn row(&mut self, files: &Files, json: &Json<'_>) -> Result<Row, String> {
        let about = About { channel: "", symbol: Some(self.symbol.as_str()).filter(|s| !s.is_empty()) };
        let mut events = Vec::new();
        let message = self.description.decode_json(json, about, &mut events);
        let mut row = Row { message: message.unwrap_or_default(), at: self.newest, said: Vec::new() };
        for mut event in events {
            let at = match &mut event {
                Event::Malformed(why) => return Err(std::mem::take(why)),
                // Understood, and left out.
                Event::Other(_) => continue,
                Event::Bar(bar) => {
                    let at = finish(bar)?;
                    row.said.extend(self.missing(files, bar)?.map(Said::Gap));
                    at
                }
                other => match subject_of(other) {
                    Some((_, Some(ts))) => ts,
                    _ => return Err("a row of a file must tell its time".to_owned()),
                },
            };
            if at < self.newest {
                return Err("the row is older than the one before it: files are read in the order of time".to_owned());
            }
            (self.newest, row.at) = (at, at);
            row.said.push(Said::Event(event));
        }
        Ok(row)
    }

    /// The hole before a bar.
    fn missing(&mut self, files: &Files, bar: &Bar) -> Result<Option<Missing>, String> {
        let last = self.bars.get(&bar.symbol).copied();
        if last.is_some_and(|last| bar.open_ts <= last) {
            return Err("the bar does not open after the one before it".to_owned());
        }
        self.bars.insert(bar.symbol.clone(), bar.open_ts);
        let hole = files.calendar.as_ref().zip(last).and_then(|(days, last)| days.missing(last, bar.open_ts));
        Ok(hole.map(|(from, days)| Missing {
            symbol: bar.symbol.to_string(),
            channel: "bar",
            from,
            to: Some(bar.open_ts),
            reason: format!("the file has no bar for {days} days on which one was expected"),
        }))
    }
}

/// A bar of a file is closed, and known from its close on; it gives that time.
fn finish(bar: &mut Bar) -> Result<Nanos, String> {
    let width = bar.interval.parse::<Timeframe>();
    let close = match (bar.close_ts, width) {
        (Some(close), _) => close,
        (None, Ok(width)) => bar.open_ts.plus_ns(width.ns()),
        (None, Err(why)) => return Err(format!("when the bar closes is not told: {why}; `close_time` would tell it")),
    };
    let (low, high) = (bar.low, bar.high);
    if [bar.open, bar.close].iter().any(|price| *price < low || *price > high) {
        return Err(format!("open {} and close {} are not within low {low} and high {high}", bar.open, bar.close));
    }
    bar.closed.get_or_insert(true);
    bar.close_ts = Some(close);
    Ok(*bar.event_ts.get_or_insert(close))
}

fn cells(line: &str, delimiter: u8) -> Result<Vec<String>, String> {
    let reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(line.len().max(64))
        .from_reader(line.as_bytes());
    let mut records = reader.into_records();
    match records.next() {
        Some(Ok(record)) => Ok(record.iter().map(str::to_owned).collect()),
        Some(Err(why)) => Err(format!("no CSV: {why}")),
        None => Err("an empty line".to_owned()),
    }
}
