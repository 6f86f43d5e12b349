//! Columns of trades of several instruments become raw facts: packs, and the clocks that quiet times need.
//!
//! * A pack ends where a bar of the smallest timeframe begins, and the trade that begins it stands alone: what follows
//!   from the bar that it closes is decided before any later trade is heard.
//! * Packs stand in the order of their first trades, of equal times in the order of the sources; a pack reaches less
//!   than [`SPAN_NS`] behind the next trade of any other instrument, so that nobody hears much of one instrument's
//!   future beside another's past.
//! * Behind the end of a bar, as soon as the tape is silent for the venue's grace, a clock closes it on time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemas::instrument::InstrumentKind;
use schemas::raw::{Clock, PACK_MAX, Raw, Trades};
use schemas::subject::{self, stream};
use schemas::{Instrument, Nanos, Place, Scale, Timeframe, Version};

use crate::fact::{Entry, Typed};
use crate::source::Tape;

/// How much event time packs of several instruments may overlap.
const SPAN_NS: i64 = 10 * Nanos::PER_MS;

/// Trades of one instrument, by column, all of one length.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Columns {
    pub ts_ns: Vec<i64>,
    pub recv_ns: Vec<i64>,
    pub id: Vec<u64>,
    /// Mantissas at the scale of the instrument.
    pub price: Vec<i64>,
    pub size: Vec<i64>,
    /// `b` the taker bought, `s` the taker sold.
    pub side: Vec<u8>,
}

impl Columns {
    pub fn clear(&mut self) {
        self.ts_ns.clear();
        self.recv_ns.clear();
        self.id.clear();
        self.price.clear();
        self.size.clear();
        self.side.clear();
    }
    pub fn len(&self) -> usize {
        self.ts_ns.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ts_ns.is_empty()
    }
}

/// Where the trades of one instrument come from, in the order of their times.
pub trait Source {
    /// Puts the next trades into `columns`, which are empty; none at the end. What it gives at once is held in memory.
    fn fill(&mut self, columns: &mut Columns) -> anyhow::Result<()>;
}

/// An instrument of the tape.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    pub venue: String,
    pub symbol: String,
    /// Digits of all its trades.
    pub scale: Scale,
    /// Spot: nobody may go short in it. Otherwise a linear perpetual.
    pub spot: bool,
}

impl Listed {
    pub fn instrument(&self) -> Instrument {
        let kind = if self.spot { InstrumentKind::Spot } else { InstrumentKind::Perpetual };
        crate::run::instrument(&self.venue, &self.symbol, kind, self.scale)
    }
}

/// See the module.
pub struct ColumnTape {
    timeframe: Timeframe,
    symbols: Vec<Symbol>,
    venues: Vec<Venue>,
    /// Beside `symbols`.
    tracks: Vec<Track>,
    newest_ns: Option<i64>,
    out: VecDeque<Entry>,
    ended: bool,
    total: Option<u64>,
}

struct Track {
    source: Box<dyn Source>,
    columns: Columns,
    next: usize,
    ended: bool,
}

struct Symbol {
    listed: Listed,
    p: u32,
    venue: usize,
    newest_ns: Option<i64>,
}

struct Venue {
    name: String,
    stream: Arc<str>,
    last_seq: u64,
    grace_ns: i64,
    /// Every partition that the tape holds, and 0, which is the desk's.
    partitions: Vec<u32>,
}

impl ColumnTape {
    /// `sources` beside the instruments of `listed`, one each; `timeframe`: the smallest candles that anybody makes;
    /// `grace_ns` by venue; `total`: trades in all, where it is known.
    pub fn new(
        listed: Vec<Listed>,
        sources: Vec<Box<dyn Source>>,
        timeframe: Timeframe,
        grace_ns: impl Fn(&str) -> i64,
        total: Option<u64>,
    ) -> Self {
        let partition = |l: &Listed| subject::partition(&l.venue, &l.symbol, subject::PARTITIONS);
        let mut partitions: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for l in &listed {
            partitions.entry(&l.venue).or_insert_with(|| vec![0]).push(partition(l));
        }
        let venue = |(name, mut partitions): (&str, Vec<u32>)| {
            partitions.sort_unstable();
            partitions.dedup();
            let stream = stream::raw(name).into();
            Venue { name: name.to_owned(), stream, last_seq: 0, grace_ns: grace_ns(name), partitions }
        };
        let venues: Vec<Venue> = partitions.into_iter().map(venue).collect();
        let symbol = |listed: Listed| Symbol {
            p: partition(&listed),
            venue: venues.iter().position(|v| v.name == listed.venue).unwrap_or_default(),
            newest_ns: None,
            listed,
        };
        let symbols = listed.into_iter().map(symbol).collect();
        let track = |source| Track { source, columns: Columns::default(), next: 0, ended: false };
        let tracks = sources.into_iter().map(track).collect();
        Self { timeframe, symbols, venues, tracks, newest_ns: None, out: VecDeque::new(), ended: false, total }
    }

    /// The next pack of the earliest track goes out, behind the clocks that are due before it.
    fn advance(&mut self) -> anyhow::Result<()> {
        let mut heads: [Option<(i64, usize)>; 2] = [None, None];
        for (at, track) in self.tracks.iter_mut().enumerate() {
            let Some(ts_ns) = track.head()? else { continue };
            let head = Some((ts_ns, at));
            match heads {
                [Some(first), _] if first <= (ts_ns, at) => {
                    heads[1] = heads[1].filter(|second| *second <= (ts_ns, at)).or(head);
                }
                _ => heads = [head, heads[0]],
            }
        }
        let Some((ts_ns, at)) = heads[0] else {
            // The last bar closes too, so that the equity shows everything that happened.
            if let Some(newest_ns) = self.newest_ns {
                self.clocks(newest_ns, None);
            }
            self.ended = true;
            return Ok(());
        };
        let begins = |newest: Option<i64>| newest.is_none_or(|newest_ns| self.close_of(newest_ns) <= ts_ns);
        let turns = begins(self.newest_ns);
        let symbol = &self.symbols[at];
        let alone = begins(symbol.newest_ns);
        let bar_end_ns = self.close_of(symbol.newest_ns.unwrap_or(ts_ns).max(ts_ns));
        let until_ns = heads[1].map_or(bar_end_ns, |(other_ns, _)| bar_end_ns.min(other_ns + SPAN_NS));
        if let Some(newest_ns) = self.newest_ns.filter(|_| turns) {
            self.clocks(newest_ns, Some(ts_ns));
        }
        let max = if alone { 1 } else { PACK_MAX };
        let track = &mut self.tracks[at];
        let symbol = &mut self.symbols[at];
        let pack = track.take(symbol, until_ns, max);
        let newest_ns = pack.ts_ns.iter().copied().max();
        symbol.newest_ns = symbol.newest_ns.max(newest_ns);
        self.newest_ns = self.newest_ns.max(newest_ns);
        let place = self.venues[symbol.venue].next();
        self.out.push_back(Entry { place, fact: Typed::Raw(Raw::Trades(pack)) });
        Ok(())
    }

    fn close_of(&self, ts_ns: i64) -> i64 {
        self.timeframe.close_of(self.timeframe.open_of(Nanos(ts_ns))).0
    }

    /// A clock behind the end of every bar from that of `newest_ns` on whose grace ends before `until_ns`; of that
    /// bar alone when the tape ends.
    fn clocks(&mut self, newest_ns: i64, until_ns: Option<i64>) {
        let mut close_ns = self.close_of(newest_ns);
        loop {
            let mut late = 0;
            for venue in &mut self.venues {
                let watermark_ns = close_ns + venue.grace_ns;
                if until_ns.is_some_and(|until_ns| until_ns <= watermark_ns) {
                    late += 1;
                    continue;
                }
                for i in 0..venue.partitions.len() {
                    let (p, name) = (venue.partitions[i], venue.name.clone());
                    let clock = Clock { v: Version, venue: name, p, watermark_ns, wall_ns: watermark_ns };
                    let place = venue.next();
                    self.out.push_back(Entry { place, fact: Typed::Raw(Raw::Clock(clock)) });
                }
            }
            if until_ns.is_none() || late == self.venues.len() {
                return;
            }
            close_ns += self.timeframe.ns();
        }
    }
}

impl Tape for ColumnTape {
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.out.pop_front() {
                return Ok(Some(entry));
            }
            if self.ended {
                return Ok(None);
            }
            self.advance()?;
        }
    }
    fn instruments(&mut self) -> anyhow::Result<Vec<Instrument>> {
        Ok(self.symbols.iter().map(|symbol| symbol.listed.instrument()).collect())
    }
    fn ticks_total(&self) -> Option<u64> {
        self.total
    }
}

impl Track {
    /// Time of the next trade; `None` at the end.
    fn head(&mut self) -> anyhow::Result<Option<i64>> {
        if self.next == self.columns.len() && !self.ended {
            self.columns.clear();
            self.next = 0;
            self.source.fill(&mut self.columns)?;
            self.ended = self.columns.is_empty();
        }
        Ok(self.columns.ts_ns.get(self.next).copied())
    }

    /// A pack of the next trades: at least one, those behind it while they are before `until_ns`, at most `max`.
    fn take(&mut self, symbol: &Symbol, until_ns: i64, max: usize) -> Trades {
        let (from, c) = (self.next, &self.columns);
        let most = c.len().min(from + max);
        let to = (from + 1..most).find(|&i| until_ns <= c.ts_ns[i]).unwrap_or(most);
        self.next = to;
        let listed = &symbol.listed;
        let mut pack = Trades::new(symbol.p, &listed.venue, &listed.symbol, listed.scale);
        pack.ts_ns.extend_from_slice(&c.ts_ns[from..to]);
        pack.recv_ns.extend_from_slice(&c.recv_ns[from..to]);
        pack.id.extend_from_slice(&c.id[from..to]);
        pack.price.extend_from_slice(&c.price[from..to]);
        pack.size.extend_from_slice(&c.size[from..to]);
        pack.side = String::from_utf8_lossy(&c.side[from..to]).into_owned();
        pack
    }
}

impl Venue {
    fn next(&mut self) -> Place {
        self.last_seq += 1;
        Place { stream: Arc::clone(&self.stream), seq: self.last_seq }
    }
}

/// Sources of one instrument that follow each other in time.
pub struct Chain(pub VecDeque<Box<dyn Source>>);

impl Source for Chain {
    fn fill(&mut self, columns: &mut Columns) -> anyhow::Result<()> {
        while let Some(first) = self.0.front_mut() {
            first.fill(columns)?;
            if !columns.is_empty() {
                return Ok(());
            }
            self.0.pop_front();
        }
        Ok(())
    }
}

/// Columns in memory, for tests and short pieces.
impl Source for VecDeque<Columns> {
    fn fill(&mut self, columns: &mut Columns) -> anyhow::Result<()> {
        *columns = self.pop_front().unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Trades of each symbol at these milliseconds, in chunks of a few; ids count over all.
    fn tape(times_ms: &[Vec<i64>]) -> (ColumnTape, Vec<Vec<u64>>) {
        let listed = |i: usize| Listed {
            venue: "binance".into(),
            symbol: format!("S{i}"),
            scale: Scale::default(),
            spot: false,
        };
        let mut ids = 0;
        let mut given = Vec::new();
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for times in times_ms {
            let chunk = |times: &[i64], ids: &mut u64| {
                let n = times.len();
                *ids += n as u64;
                let ts_ns: Vec<i64> = times.iter().map(|ms| ms * Nanos::PER_MS).collect();
                Columns {
                    recv_ns: ts_ns.clone(),
                    ts_ns,
                    id: (*ids - n as u64 + 1..=*ids).collect(),
                    price: vec![1; n],
                    size: vec![1; n],
                    side: vec![b'b'; n],
                }
            };
            let chunks: VecDeque<Columns> = times.chunks(7).map(|times| chunk(times, &mut ids)).collect();
            given.push(chunks.iter().flat_map(|c| c.id.clone()).collect());
            sources.push(Box::new(chunks));
        }
        let listed = (0..times_ms.len()).map(listed).collect();
        (ColumnTape::new(listed, sources, "1s".parse().unwrap(), |_| 500 * Nanos::PER_MS, None), given)
    }
    fn drain(tape: &mut ColumnTape) -> Vec<Raw> {
        let raw = |entry: Entry| match entry.fact {
            Typed::Raw(raw) => raw,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| tape.next().unwrap()).map(raw).collect()
    }

    proptest! {
        #[test]
        fn packs_hold_every_trade_once_in_order_within_a_bar_and_near_the_others(
            steps in prop::collection::vec((0usize..3, 0i64..400), 1..400), symbols in 1usize..=3,
        ) {
            let mut times = vec![Vec::new(); symbols];
            let mut ts_ms = 1_000_000;
            for (at, ms) in steps {
                ts_ms += ms;
                times[at % symbols].push(ts_ms);
            }
            let (mut tape, given) = tape(&times);
            let (mut got, mut firsts, mut heard_ns) = (vec![Vec::new(); symbols], Vec::new(), 0);
            for raw in drain(&mut tape) {
                match raw {
                    Raw::Trades(pack) => {
                        let pack = pack.checked().unwrap();
                        let at: usize = pack.symbol[1..].parse().unwrap();
                        got[at].extend_from_slice(&pack.id);
                        let (first, last) = (pack.ts_ns[0], *pack.ts_ns.last().unwrap());
                        prop_assert_eq!(first / Nanos::PER_SECOND, last / Nanos::PER_SECOND);
                        prop_assert!(heard_ns - first < SPAN_NS, "{} behind what was heard", heard_ns - first);
                        heard_ns = heard_ns.max(last);
                        firsts.push(first);
                    }
                    Raw::Clock(clock) => prop_assert!(heard_ns < clock.watermark_ns),
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(got, given);
            prop_assert!(firsts.is_sorted());
        }
    }

    #[test]
    fn a_silence_is_ticked_through_by_the_clock_of_every_partition() {
        let (mut tape, _) = tape(&[vec![100, 3_600]]);
        let facts = drain(&mut tape);
        let clocks: Vec<i64> = facts
            .iter()
            .filter_map(|raw| match raw {
                Raw::Clock(clock) if clock.p == 0 => Some(clock.watermark_ns / Nanos::PER_MS),
                _ => None,
            })
            .collect();
        assert_eq!(clocks, [1_500, 2_500, 3_500, 4_500]);
        let partitions = if subject::partition("binance", "S0", subject::PARTITIONS) == 0 { 1 } else { 2 };
        assert_eq!(facts.len(), 2 + partitions * 4, "{facts:?}");
    }
}
