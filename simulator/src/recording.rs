//! A raw recording in place of the seeded market: lines of `<receive time ns> <JSON as the venue sent it>`, gzip or
//! plain. Frames go out byte for byte; the REST depth snapshot comes from the recording while its own is the newest,
//! and from the book that its deltas make afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Lines longer than this are not a message of any venue.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Symbols that one recording may have.
const SYMBOLS_MAX: usize = 512;

#[derive(Deserialize)]
struct Combined<'a> {
    #[serde(borrow)]
    stream: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Clone)]
struct Depth {
    #[serde(rename = "s", default)]
    symbol: String,
    #[serde(rename = "u")]
    last: u64,
    b: Vec<(String, String)>,
    a: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Rest {
    #[serde(rename = "lastUpdateId")]
    id: u64,
    bids: Vec<(String, String)>,
    asks: Vec<(String, String)>,
    symbol: Option<String>,
}

/// What comes next.
pub enum Next {
    Frame {
        at_ns: i64,
        stream: String,
        data: String,
    },
    /// Nothing is due yet.
    Later,
    End,
}

/// One symbol's book as the recording makes it: price text by value, so that it prints as it came.
#[derive(Default)]
struct RecordedBook {
    id: u64,
    bids: BTreeMap<Decimal, (String, String)>,
    asks: BTreeMap<Decimal, (String, String)>,
    /// A snapshot has been read.
    whole: bool,
    /// Deltas read before the snapshot: those that are newer than it are laid over it.
    early: VecDeque<Depth>,
}

/// Deltas kept while the snapshot has not come.
const EARLY_MAX: usize = 1_024;

impl RecordedBook {
    fn apply(&mut self, depth: Depth) -> anyhow::Result<()> {
        if depth.last <= self.id {
            return Ok(());
        }
        self.id = depth.last;
        Self::lay(&mut self.bids, depth.b)?;
        Self::lay(&mut self.asks, depth.a)
    }

    fn lay(half: &mut BTreeMap<Decimal, (String, String)>, rows: Vec<(String, String)>) -> anyhow::Result<()> {
        for (price, qty) in rows {
            let key: Decimal = price.parse().with_context(|| format!("price `{price}`"))?;
            let zero = qty.bytes().all(|b| b == b'0' || b == b'.');
            if zero {
                half.remove(&key)
            } else {
                half.insert(key, (price, qty))
            };
        }
        Ok(())
    }
}

/// The recording at its position.
pub struct Recorded {
    path: PathBuf,
    lines: Lines,
    line: u64,
    pending: Option<(i64, String)>,
    first_ns: i64,
    ended: bool,
    symbols: Vec<String>,
    books: BTreeMap<String, RecordedBook>,
    /// First snapshot of each symbol, for who asks before the recording reaches it.
    ahead: BTreeMap<String, Rest>,
}

type Lines = BufReader<Box<dyn Read + Send>>;

fn open(path: &Path) -> anyhow::Result<Lines> {
    let file = File::open(path).with_context(|| format!("open recording {}", path.display()))?;
    let gz = path.extension().is_some_and(|e| e == "gz");
    let reader: Box<dyn Read + Send> =
        if gz { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(BufReader::with_capacity(1 << 16, reader))
}

fn read_line(lines: &mut Lines, line: u64) -> anyhow::Result<Option<(i64, String)>> {
    let mut text = String::new();
    let n = lines.by_ref().take(LINE_BYTES_MAX as u64).read_line(&mut text).context("read recording")?;
    if n == 0 {
        return Ok(None);
    }
    if n == LINE_BYTES_MAX {
        bail!("line {line} is longer than {LINE_BYTES_MAX} bytes");
    }
    let (time, json) = text.trim_end().split_once(' ').with_context(|| format!("line {line} has no receive time"))?;
    let at = time.parse().with_context(|| format!("line {line}: receive time `{time}`"))?;
    Ok(Some((at, json.to_owned())))
}

impl Recorded {
    /// Reads the file once for its symbols and first snapshots, and stands at its beginning.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut lines = open(path)?;
        let (mut symbols, mut ahead) = (BTreeSet::new(), BTreeMap::new());
        let (mut line, mut first_ns) = (0, None);
        while let Some((at, json)) = read_line(&mut lines, line + 1)? {
            line += 1;
            first_ns.get_or_insert(at);
            let frame: Combined = serde_json::from_str(&json).with_context(|| format!("line {line}"))?;
            match frame.stream {
                Some(stream) => {
                    let symbol = stream.split('@').next().unwrap_or_default().to_ascii_uppercase();
                    if !symbol.starts_with('!') {
                        symbols.insert(symbol);
                    }
                }
                None => {
                    if let Ok(rest) = serde_json::from_str::<Rest>(&json) {
                        let symbol = rest.symbol.clone().or_else(|| symbols.first().cloned()).unwrap_or_default();
                        ahead.entry(symbol).or_insert(rest);
                    }
                }
            }
            if symbols.len() > SYMBOLS_MAX {
                bail!("recording {} has more than {SYMBOLS_MAX} symbols", path.display());
            }
        }
        let first_ns = first_ns.with_context(|| format!("recording {} is empty", path.display()))?;
        Ok(Self {
            lines: open(path)?,
            path: path.to_owned(),
            line: 0,
            pending: None,
            first_ns,
            ended: false,
            symbols: symbols.into_iter().collect(),
            books: BTreeMap::new(),
            ahead,
        })
    }

    /// Receive time of the first line.
    pub fn first_ns(&self) -> i64 {
        self.first_ns
    }
    /// Every line has been played.
    pub fn ended(&self) -> bool {
        self.ended
    }
    /// The symbols in it, upper case.
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next frame that was received at or before `to_ns`.
    pub fn next_due(&mut self, to_ns: i64) -> anyhow::Result<Next> {
        loop {
            if self.pending.is_none() {
                self.line += 1;
                self.pending = read_line(&mut self.lines, self.line)?;
            }
            let Some((at, _)) = &self.pending else {
                self.ended = true;
                return Ok(Next::End);
            };
            if *at > to_ns {
                return Ok(Next::Later);
            }
            let Some((at_ns, json)) = self.pending.take() else { return Ok(Next::End) };
            let frame: Combined = serde_json::from_str(&json).with_context(|| format!("line {}", self.line))?;
            let (Some(stream), Some(data)) = (frame.stream, frame.data) else {
                self.snapshot(&json)?;
                continue;
            };
            let (stream, data) = (stream.to_owned(), data.get().to_owned());
            if stream.contains("@depth") && data.contains("\"u\"") {
                self.delta(&data)?;
            }
            return Ok(Next::Frame { at_ns, stream, data });
        }
    }

    fn snapshot(&mut self, json: &str) -> anyhow::Result<()> {
        let Ok(rest) = serde_json::from_str::<Rest>(json) else { return Ok(()) };
        let symbol = rest.symbol.clone().or_else(|| self.symbols.first().cloned()).unwrap_or_default();
        let book = self.books.entry(symbol).or_default();
        let early = std::mem::take(&mut book.early);
        *book = RecordedBook { id: rest.id, whole: true, ..RecordedBook::default() };
        RecordedBook::lay(&mut book.bids, rest.bids)?;
        RecordedBook::lay(&mut book.asks, rest.asks)?;
        early.into_iter().try_for_each(|depth| book.apply(depth))
    }

    fn delta(&mut self, data: &str) -> anyhow::Result<()> {
        let depth: Depth = serde_json::from_str(data).with_context(|| format!("line {}", self.line))?;
        let book = self.books.entry(depth.symbol.clone()).or_default();
        // A later snapshot may be older than the newest delta too, so the last ones are always kept.
        if book.early.len() == EARLY_MAX {
            book.early.pop_front();
        }
        book.early.push_back(depth.clone());
        if book.whole { book.apply(depth) } else { Ok(()) }
    }

    /// Update id, bids and asks of a symbol, best first; `None` when the recording has no snapshot of it.
    #[allow(clippy::type_complexity)]
    pub fn depth(&self, symbol: &str, limit: usize) -> Option<(u64, Vec<(String, String)>, Vec<(String, String)>)> {
        if let Some(book) = self.books.get(symbol).filter(|b| b.whole) {
            let bids = book.bids.values().rev().take(limit).cloned().collect();
            return Some((book.id, bids, book.asks.values().take(limit).cloned().collect()));
        }
        let rest = self.ahead.get(symbol)?;
        let top = |rows: &[(String, String)]| rows.iter().take(limit).cloned().collect();
        Some((rest.id, top(&rest.bids), top(&rest.asks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("simulator-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("write");
        path
    }

    #[test]
    fn a_snapshot_is_served_ahead_of_its_time_and_from_the_deltas_after_it() {
        let path = file(
            "rec",
            r#"10 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":6,"b":[["7.0","1.0"]],"a":[]}}
20 {"lastUpdateId":5,"bids":[["9.0","2.0"],["8.0","2.0"]],"asks":[["10.0","1.0"]]}
30 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":7,"u":9,"b":[["9.0","0.0"]],"a":[]}}
"#,
        );
        let mut r = Recorded::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((r.symbols(), r.first_ns()), (&["BTCUSDT".to_owned()][..], 10));
        assert_eq!(r.depth("BTCUSDT", 1).unwrap().1, [("9.0".to_owned(), "2.0".to_owned())]);
        let Next::Frame { at_ns: 10, stream, data } = r.next_due(15).unwrap() else { panic!() };
        assert_eq!(stream, "btcusdt@depth@100ms");
        assert!(data.starts_with(r#"{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"#));
        assert!(matches!(r.next_due(15).unwrap(), Next::Later));
        assert!(matches!(r.next_due(99).unwrap(), Next::Frame { at_ns: 30, .. }));
        assert_eq!(r.depth("BTCUSDT", 9).unwrap().0, 9);
        assert_eq!(
            r.depth("BTCUSDT", 9).unwrap().1,
            [("8.0".to_owned(), "2.0".to_owned()), ("7.0".to_owned(), "1.0".to_owned())]
        );
        assert!(matches!(r.next_due(99).unwrap(), Next::End));
    }

    #[test]
    fn a_line_that_is_no_recording_is_named() {
        let path = file("bad", "not a time {}\n");
        let error = Recorded::open(&path).err().expect("refused");
        std::fs::remove_file(&path).unwrap();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }
}
