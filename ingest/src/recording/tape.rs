//! Files of recorded data as entries in time order.
//!
//! Three forms: raw recordings (`<receive ns> <frame>`), rows as a venue's description reads them, and CSV files with a header, either trades
//! (`ts_ns,trade_id,price,qty,side` and perhaps `seq,recv_ns`) or best bid and ask (`recv_ns,bid,bid_qty,ask,ask_qty`).
//! Files of one symbol follow each other; those of several symbols are merged by time.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use schemas::instrument::SizeUnit;
use schemas::{Nanos, Side};

use crate::custom::Described;
use crate::custom::files::{Reader, Said};
use crate::event::{Bbo, Event, Trade};
use crate::text::{decimal, leading_number};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Raw,
    Csv,
    Described(Rows),
}

/// A description that reads rows. By another text they are another recording: `Debug` shows its digest.
#[derive(Clone, Copy)]
pub struct Rows(pub &'static Described);

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.0.description.digest == other.0.description.digest
    }
}

impl Eq for Rows {}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.description.digest)
    }
}

/// One line of a recording.
#[derive(Debug, PartialEq)]
pub struct Entry<'a> {
    /// When it was recorded; the trade time where a file does not say.
    pub recv: Nanos,
    /// As the file was named with; may be empty for raw recordings.
    pub symbol: &'a str,
    pub what: What<'a>,
}

#[derive(Debug, PartialEq)]
pub enum What<'a> {
    Frame(&'a str),
    Event(Box<Event>),
    /// What a described row says.
    Row {
        said: Vec<Said>,
        line: &'a str,
    },
    /// The line is not of the form.
    Bad {
        reason: String,
        line: &'a str,
    },
}

/// What was read of a track's line and not given out yet.
struct Next {
    recv: Nanos,
    what: Kept,
}

enum Kept {
    /// The line from here on.
    Frame(usize),
    Event(Box<Event>),
    Row(Vec<Said>),
    Bad(String),
}

/// The files of one symbol, one behind the other.
struct Track<R> {
    symbol: String,
    files: VecDeque<R>,
    columns: Option<Columns>,
    /// Of described rows.
    rows_of: Option<Reader>,
    /// Rows so far, over all files.
    rows: u64,
    last_recv: Nanos,
    /// Newest trade id; older ones are copies.
    last_id: Option<u64>,
    /// The source counts its trades; otherwise the row number is the id.
    has_ids: Option<bool>,
    /// The line that was read last, without what is blank around it.
    line: String,
    next: Option<Next>,
}

/// All files of a recording.
pub struct Tape<R> {
    form: Form,
    line_bytes_max: usize,
    tracks: Vec<Track<R>>,
}

impl<R: BufRead> Tape<R> {
    /// `files`: symbol and reader, in order; equal symbols make one track.
    pub fn new(form: Form, line_bytes_max: usize, files: impl IntoIterator<Item = (String, R)>) -> Self {
        let mut tracks: Vec<Track<R>> = Vec::new();
        for (symbol, file) in files {
            match tracks.iter_mut().find(|t| t.symbol == symbol) {
                Some(track) => track.files.push_back(file),
                None => tracks.push(Track {
                    files: VecDeque::from([file]),
                    columns: None,
                    rows_of: match form {
                        Form::Described(Rows(venue)) => Some(Reader::new(Arc::clone(&venue.description), &symbol)),
                        Form::Raw | Form::Csv => None,
                    },
                    rows: 0,
                    last_recv: Nanos(i64::MIN),
                    last_id: None,
                    symbol,
                    has_ids: None,
                    line: String::new(),
                    next: None,
                }),
            }
        }
        Self { form, line_bytes_max, tracks }
    }

    /// The entry with the earliest time; of equal ones that of the track named first. `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        let mut best: Option<(Nanos, usize)> = None;
        for at in 0..self.tracks.len() {
            if self.tracks[at].next.is_none() {
                self.tracks[at].next = self.tracks[at].read(self.form, self.line_bytes_max)?;
            }
            if let Some(next) = &self.tracks[at].next
                && best.is_none_or(|(recv, _)| next.recv < recv)
            {
                best = Some((next.recv, at));
            }
        }
        let Some((recv, at)) = best else { return Ok(None) };
        let Track { symbol, line, next, .. } = &mut self.tracks[at];
        Ok(next.take().map(|next| {
            let what = match next.what {
                Kept::Frame(begin) => What::Frame(&line[begin..]),
                Kept::Event(event) => What::Event(event),
                Kept::Row(said) => What::Row { said, line },
                Kept::Bad(reason) => What::Bad { reason, line },
            };
            Entry { recv, symbol, what }
        }))
    }
}

impl<R: BufRead> Track<R> {
    fn read(&mut self, form: Form, line_bytes_max: usize) -> io::Result<Option<Next>> {
        loop {
            let Some(file) = self.files.front_mut() else { return Ok(None) };
            let mut bytes = std::mem::take(&mut self.line).into_bytes();
            bytes.clear();
            let limit = line_bytes_max as u64 + 1;
            let n = file.take(limit).read_until(b'\n', &mut bytes)?;
            if n == 0 {
                self.files.pop_front();
                self.columns = None;
                if let Some(rows) = &mut self.rows_of {
                    rows.next_file();
                }
                continue;
            }
            if n as u64 == limit {
                let why = format!("line {} is longer than line_bytes_max = {line_bytes_max}", self.rows + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            let mut text =
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
            text.truncate(text.trim_end().len());
            if text.starts_with(char::is_whitespace) {
                text = text.trim_start().to_owned();
            }
            self.line = text;
            let line = self.line.as_str();
            if line.is_empty() {
                continue;
            }
            let (recv, what) = match form {
                Form::Raw => raw_line(line, self.last_recv),
                Form::Described(_) => match self.rows_of.as_mut().and_then(|rows| rows.line(line)) {
                    None => continue,
                    Some(Ok(row)) if row.said.is_empty() => continue,
                    Some(Ok(row)) => (row.at, Kept::Row(row.said)),
                    Some(Err(why)) => (self.last_recv.max(Nanos(0)), Kept::Bad(why)),
                },
                Form::Csv => match &self.columns {
                    None => {
                        let columns =
                            Columns::of(line).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                        self.columns = Some(columns);
                        continue;
                    }
                    Some(columns) => {
                        let row = Row {
                            symbol: &self.symbol,
                            number: self.rows,
                            has_ids: &mut self.has_ids,
                            last_id: &mut self.last_id,
                        };
                        match columns.read(line, row) {
                            Ok(Some((recv, event))) => (recv, Kept::Event(Box::new(event))),
                            Ok(None) => continue,
                            Err(reason) => (self.last_recv, Kept::Bad(reason)),
                        }
                    }
                },
            };
            self.rows += 1;
            self.last_recv = self.last_recv.max(recv);
            return Ok(Some(Next { recv: self.last_recv, what }));
        }
    }
}

/// A line without a time stands at the time of the line before.
fn raw_line(line: &str, last: Nanos) -> (Nanos, Kept) {
    if let Some((recv, [b' ', frame @ ..])) = leading_number(line.as_bytes())
        && let (Ok(recv), [b'{' | b'[', ..]) = (i64::try_from(recv), frame)
    {
        return (Nanos(recv), Kept::Frame(line.len() - frame.len()));
    }
    match line.split_once(' ').map(|(recv, frame)| (recv.parse::<i64>(), frame)) {
        Some((Ok(recv), frame)) => (Nanos(recv), Kept::Frame(line.len() - frame.trim_start().len())),
        _ => (last.max(Nanos(0)), Kept::Bad("the line does not begin with a receive time in ns".to_owned())),
    }
}

/// Where the columns stand.
enum Columns {
    Trades {
        seq: Option<usize>,
        ts: usize,
        id: Option<usize>,
        price: usize,
        qty: usize,
        side: usize,
        recv: Option<usize>,
    },
    Quotes {
        recv: usize,
        bid: usize,
        bid_qty: usize,
        ask: usize,
        ask_qty: usize,
    },
}

struct Row<'a> {
    symbol: &'a str,
    number: u64,
    has_ids: &'a mut Option<bool>,
    last_id: &'a mut Option<u64>,
}

impl Columns {
    fn of(header: &str) -> Result<Self, String> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let find = |name: &str| names.iter().position(|n| *n == name);
        let trades = (find("ts_ns"), find("price"), find("qty"), find("side"));
        if let (Some(ts), Some(price), Some(qty), Some(side)) = trades {
            let (seq, id, recv) = (find("seq"), find("trade_id"), find("recv_ns"));
            return Ok(Self::Trades { seq, ts, id, price, qty, side, recv });
        }
        let quotes = (find("recv_ns"), find("bid"), find("bid_qty"), find("ask"), find("ask_qty"));
        if let (Some(recv), Some(bid), Some(bid_qty), Some(ask), Some(ask_qty)) = quotes {
            return Ok(Self::Quotes { recv, bid, bid_qty, ask, ask_qty });
        }
        Err(format!("header `{header}` has neither ts_ns,price,qty,side nor recv_ns,bid,bid_qty,ask,ask_qty"))
    }

    /// `None`: a copy of a trade that was read before.
    fn read(&self, line: &str, row: Row) -> Result<Option<(Nanos, Event)>, String> {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |at: usize| cells.get(at).copied().ok_or_else(|| format!("{} columns", cells.len()));
        let number = |at: usize| cell(at)?.parse::<i64>().map_err(|_| format!("`{}` is not a number", cells[at]));
        let amount = |at: usize| decimal(cell(at)?).map_err(|e| e.to_string());
        match *self {
            Self::Trades { seq, ts, id, price, qty, side, recv } => {
                let side = match cell(side)? {
                    "buy" => Side::Buy,
                    "sell" => Side::Sell,
                    other => return Err(format!("side `{other}`")),
                };
                let ts = Nanos(number(ts)?);
                let recv = match recv.map(cell).transpose()? {
                    None | Some("") => ts,
                    Some(text) => Nanos(text.parse().map_err(|_| format!("`{text}` is not a number"))?),
                };
                let own = id.map(cell).transpose()?.unwrap_or("");
                let has_ids = *row.has_ids.get_or_insert_with(|| own.parse::<u64>().is_ok());
                let id = match (has_ids, seq) {
                    (true, _) => own.parse::<u64>().map_err(|_| format!("trade id `{own}`"))?,
                    (false, Some(seq)) => number(seq)?.unsigned_abs() + 1,
                    (false, None) => row.number + 1,
                };
                let trade = Trade {
                    symbol: row.symbol.into(),
                    id,
                    venue_id: None,
                    price: amount(price)?,
                    size: amount(qty)?,
                    unit: SizeUnit::Base,
                    side,
                    ts,
                    event_ts: None,
                    aggregate: None,
                    backfill: false,
                    extra: None,
                };
                if row.last_id.is_some_and(|last| id <= last) {
                    return Ok(None);
                }
                *row.last_id = Some(id);
                Ok(Some((recv, Event::Trade(trade))))
            }
            Self::Quotes { recv, bid, bid_qty, ask, ask_qty } => {
                let side = |price: usize, size: usize| -> Result<_, String> {
                    if cell(price)?.is_empty() { Ok(None) } else { Ok(Some((amount(price)?, amount(size)?))) }
                };
                let recv = Nanos(number(recv)?);
                let bbo = Bbo {
                    symbol: row.symbol.into(),
                    bid: side(bid, bid_qty)?,
                    ask: side(ask, ask_qty)?,
                    unit: SizeUnit::Base,
                    seq: None,
                    ts: None,
                    event_ts: None,
                };
                Ok(Some((recv, Event::Bbo(bbo))))
            }
        }
    }
}
