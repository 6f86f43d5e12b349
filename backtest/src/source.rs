//! Tapes: where the raw facts of a backtest come from. A tape is read as it is played and never held as a whole.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use schemas::fixed::mantissa_at;
use schemas::{Instrument, Scale, Side, Timeframe};

use crate::engine::ticks;
use crate::fact::{Entry, Typed};
use crate::options::market_of;
use crate::pack::{Chain, ColumnTape, Columns, Listed, Source};
use crate::tape::Prints;

/// Raw facts in the order in which a desk would record them.
pub trait Tape {
    /// The next fact with its place in its venue's stream; `None` at the end.
    fn next(&mut self) -> anyhow::Result<Option<Entry>>;

    /// What is traded; told before the first fact. Error: the tape cannot tell.
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>>;

    /// Ticks in all, where it is known.
    fn ticks_total(&self) -> Option<u64> {
        None
    }
}

impl<T: Tape + ?Sized> Tape for Box<T> {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        (**self).next()
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        (**self).instruments()
    }
    fn ticks_total(&self) -> Option<u64> {
        (**self).ticks_total()
    }
}

/// A file of trades and the market that it is of.
#[derive(Clone, PartialEq, Debug)]
pub struct TradesFile {
    pub path: PathBuf,
    pub venue: String,
    pub symbol: String,
    /// Spot: nobody may go short in it.
    pub spot: bool,
}

impl TradesFile {
    /// The market from a name such as `binance_spot_BTCUSDT_2024-08-08T2354.trades.csv.gz`; other files are `TAPE`
    /// on `recording`.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (venue, symbol) = market_of(&name).unwrap_or_else(|| ("recording".to_owned(), "TAPE".to_owned()));
        let spot = is_spot(&venue);
        Self { path: path.to_owned(), venue, symbol, spot }
    }
}

/// The venue trades coins for money, nothing borrowed.
pub fn is_spot(venue: &str) -> bool {
    venue == "binance" || venue == "kraken"
}

/// Trades of a file that are read at once.
const ROWS_MAX: usize = 4096;

/// Files of trades, merged by time; of equal times the file named first goes first. Files of one instrument follow
/// each other in time. They are read once before for their digits and their number: an instrument's steps do not
/// depend on where a run ends.
pub fn trades_tape(
    files: &[TradesFile],
    timeframe: Timeframe,
    grace_ns: impl Fn(&str) -> i64,
) -> anyhow::Result<ColumnTape> {
    ensure!(!files.is_empty(), "no file of trades");
    let mut instruments: Vec<(Listed, Vec<&TradesFile>)> = Vec::new();
    let mut total = 0;
    for file in files {
        let same = |l: &Listed| (&l.venue, &l.symbol) == (&file.venue, &file.symbol);
        let at = instruments.iter().position(|(l, _)| same(l)).unwrap_or(instruments.len());
        if at == instruments.len() {
            let (venue, symbol, spot) = (file.venue.clone(), file.symbol.clone(), file.spot);
            instruments.push((Listed { venue, symbol, scale: Scale::default(), spot }, Vec::new()));
        }
        let (listed, of_instrument) = &mut instruments[at];
        total += crate::tape::trades(&file.path, |print| {
            listed.scale = listed.scale.widened(print.price, print.qty);
            Ok(())
        })?;
        of_instrument.push(file);
    }
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for (listed, files) in &instruments {
        let mut chain: VecDeque<Box<dyn Source>> = VecDeque::new();
        for file in files {
            let prints = Prints::open(&file.path)?;
            chain.push_back(Box::new(PrintColumns { prints, scale: listed.scale, ended: false }));
        }
        sources.push(Box::new(Chain(chain)));
    }
    let listed = instruments.into_iter().map(|(listed, _)| listed).collect();
    Ok(ColumnTape::new(listed, sources, timeframe, grace_ns, Some(total)))
}

/// The rows of a file as columns.
struct PrintColumns {
    prints: Prints,
    scale: Scale,
    ended: bool,
}

impl Source for PrintColumns {
    fn fill(&mut self, columns: &mut Columns) -> anyhow::Result<()> {
        while columns.len() < ROWS_MAX && !self.ended {
            let Some(print) = self.prints.next()? else {
                self.ended = true;
                break;
            };
            let digits =
                |value, digits| mantissa_at(value, digits).with_context(|| format!("{value} at {digits} digits"));
            columns.ts_ns.push(print.ts_ns);
            columns.recv_ns.push(print.ts_ns);
            columns.id.push(print.id);
            columns.price.push(digits(print.price, self.scale.price)?);
            columns.size.push(digits(print.qty, self.scale.qty)?);
            columns.side.push(if print.side == Side::Buy { b'b' } else { b's' });
        }
        Ok(())
    }
}

/// Facts in memory, for tests and short pieces.
pub struct Held {
    pub(crate) facts: VecDeque<Entry>,
    pub(crate) instruments: Vec<Instrument>,
}

impl Held {
    pub fn new(facts: impl IntoIterator<Item = Entry>, instruments: Vec<Instrument>) -> Self {
        Self { facts: facts.into_iter().collect(), instruments }
    }
    /// Everything of a tape.
    pub fn all(tape: &mut dyn Tape) -> anyhow::Result<Self> {
        let instruments = tape.instruments()?;
        let mut facts = VecDeque::new();
        while let Some(entry) = tape.next()? {
            facts.push_back(entry);
        }
        Ok(Self { facts, instruments })
    }
}

impl Tape for Held {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        Ok(self.facts.pop_front())
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        Ok(self.instruments.clone())
    }
    fn ticks_total(&self) -> Option<u64> {
        Some(self.facts.iter().map(|entry| ticks(&entry.fact)).sum())
    }
}

/// A piece of a tape: the facts behind the first `skip`, `take` of them.
pub struct Piece<T> {
    tape: T,
    skip: u64,
    take: u64,
}

impl<T: Tape> Piece<T> {
    pub fn new(tape: T, skip: u64, take: u64) -> Self {
        Self { tape, skip, take }
    }
}

impl<T: Tape> Tape for Piece<T> {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        while self.skip > 0 {
            self.skip -= 1;
            if self.tape.next()?.is_none() {
                return Ok(None);
            }
        }
        if self.take == 0 {
            return Ok(None);
        }
        self.take -= 1;
        self.tape.next()
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        self.tape.instruments()
    }
}

/// Event times `from_ns <= t < to_ns`, by the newest tick of a fact.
pub struct Between<T> {
    tape: T,
    from_ns: i64,
    to_ns: i64,
}

impl<T: Tape> Between<T> {
    pub fn new(tape: T, from_ns: Option<i64>, to_ns: Option<i64>) -> Self {
        Self { tape, from_ns: from_ns.unwrap_or(i64::MIN), to_ns: to_ns.unwrap_or(i64::MAX) }
    }
}

impl<T: Tape> Tape for Between<T> {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        while let Some(entry) = self.tape.next()? {
            let inside = entry.fact.ts_ns().is_none_or(|ts_ns| self.from_ns <= ts_ns && ts_ns < self.to_ns);
            if inside || matches!(entry.fact, Typed::Instrument(_)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        self.tape.instruments()
    }
    fn ticks_total(&self) -> Option<u64> {
        let whole = self.from_ns == i64::MIN && self.to_ns == i64::MAX;
        if whole { self.tape.ticks_total() } else { None }
    }
}
