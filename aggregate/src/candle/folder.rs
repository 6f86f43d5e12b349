//! One symbol's candles: columns of trades in, closed buckets out.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::market::ClosedBy;
use schemas::raw::Trades;
use schemas::{Nanos, Scale, Timeframe};
use serde::{Deserialize, Serialize};

use super::bar::{BarSpec, Forming};
use super::gap::Gaps;
use super::sum::{FoldError, Sum};

/// Which candles are made; the same for all symbols of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    timeframes: Vec<Timeframe>,
    /// By timeframe: a bucket without trades becomes a candle as well.
    fill: Vec<bool>,
    /// Buckets filled in one step at most; a longer silence is left empty.
    fill_run_max: i64,
    /// Gaps remembered at a time; more are joined.
    gaps_max: usize,
}

impl Plan {
    /// `timeframes` in any order, the smallest dividing all others; `fill` names those whose empty buckets become
    /// candles. Error: what is wrong, in words.
    pub fn new(
        timeframes: &[Timeframe],
        fill: &[Timeframe],
        fill_run_max: u64,
        gaps_max: usize,
    ) -> Result<Self, String> {
        let mut timeframes = timeframes.to_vec();
        timeframes.sort_unstable();
        timeframes.dedup();
        let Some(base) = timeframes.first().copied() else {
            return Err("name at least one timeframe".to_owned());
        };
        if let Some(odd) = timeframes.iter().find(|tf| tf.seconds() % base.seconds() != 0) {
            return Err(format!("{odd} is not a multiple of {base}, the smallest; add a timeframe that divides both"));
        }
        if let Some(unknown) = fill.iter().find(|tf| !timeframes.contains(tf)) {
            return Err(format!("{unknown} is to be filled but is not among the timeframes"));
        }
        let fill = timeframes.iter().map(|tf| fill.contains(tf)).collect();
        let fill_run_max = i64::try_from(fill_run_max).unwrap_or(i64::MAX);
        Ok(Self { timeframes, fill, fill_run_max, gaps_max })
    }

    /// Ascending.
    pub fn timeframes(&self) -> &[Timeframe] {
        &self.timeframes
    }
}

/// Which candle of a symbol: the n-th timeframe of the plan, or the n-th of its bars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Slot {
    Time(usize),
    Bar(usize),
}

/// A final bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    pub slot: Slot,
    pub open_ns: i64,
    pub close_ns: i64,
    pub sum: Sum,
    pub by: ClosedBy,
    pub complete: bool,
    /// No trade: `sum` repeats the close before.
    pub filled: bool,
}

/// What one tick brought about; `index` is its place in the columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Closed {
        index: usize,
        closed: Closed,
    },
    /// The tick's bucket of the smallest timeframe was closed before it came.
    Late {
        index: usize,
    },
}

impl Event {
    fn index(&self) -> usize {
        match self {
            Self::Closed { index, .. } | Self::Late { index } => *index,
        }
    }
}

/// Trades of one symbol by column, all of one length; `side` holds `b` where the taker bought.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    pub scale: Scale,
    pub ts_ns: &'a [i64],
    pub id: &'a [u64],
    pub price: &'a [i64],
    pub size: &'a [i64],
    pub side: &'a [u8],
}

impl<'a> Columns<'a> {
    pub fn of(trades: &'a Trades) -> Self {
        Self {
            scale: trades.scale,
            ts_ns: &trades.ts_ns,
            id: &trades.id,
            price: &trades.price,
            size: &trades.size,
            side: trades.side.as_bytes(),
        }
    }
}

/// The bucket of one timeframe that is open now. Invariant C-1: `open_ns` only grows; everything before it is
/// closed for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Bucket {
    open_ns: i64,
    /// From here on all trades were seen; buckets that open earlier are incomplete.
    seen_from_ns: i64,
    /// Higher timeframes: without the trades of the base bucket that is still open.
    sum: Sum,
}

/// One symbol's candles.
#[derive(Clone, Debug)]
pub struct Folder {
    plan: Arc<Plan>,
    bars: Vec<BarSpec>,
    /// `BarSpec::limit_m` at `scale`.
    limits: Vec<i128>,
    state: State,
    /// Columns of a pack whose scale is narrower than ours, made as wide.
    widened: (Vec<i64>, Vec<i64>),
    /// Room for what one step closes; empty between steps.
    closing: Vec<Closed>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    scale: Scale,
    started: bool,
    /// Highest trade id folded; trades at or below it are duplicates. 0 before the first.
    id_max: u64,
    /// Trades dropped as duplicates.
    duplicates: u64,
    /// Close of the last closed base bucket that had trades.
    close: i64,
    gaps: Gaps,
    /// One a timeframe, ascending. Invariant C-2: each holds the instant at which the base bucket opens.
    buckets: Vec<Bucket>,
    forming: Vec<Forming>,
    /// A trade was folded since `take_changed`.
    changed: bool,
}

/// A [`Folder`] without its plan, for a checkpoint; timeframes and bars by name, so that a configuration may grow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    scale: Scale,
    started: bool,
    id_max: u64,
    duplicates: u64,
    close: i64,
    gaps: Gaps,
    buckets: Vec<(Timeframe, Bucket)>,
    bars: BTreeMap<String, Forming>,
    changed: bool,
}

impl Folder {
    pub fn new(plan: Arc<Plan>, bars: Vec<BarSpec>) -> Self {
        let nothing = Bucket { open_ns: i64::MIN, seen_from_ns: i64::MIN, sum: Sum::EMPTY };
        let state = State {
            scale: Scale::default(),
            started: false,
            id_max: 0,
            duplicates: 0,
            close: 0,
            gaps: Gaps::default(),
            buckets: vec![nothing; plan.timeframes.len()],
            forming: vec![Forming::default(); bars.len()],
            changed: false,
        };
        let mut folder =
            Self { plan, bars, limits: Vec::new(), state, widened: Default::default(), closing: Vec::new() };
        folder.set_limits();
        folder
    }

    /// Digits of all mantissas that this folder gives.
    pub fn scale(&self) -> Scale {
        self.state.scale
    }

    /// Ascending.
    pub fn timeframes(&self) -> &[Timeframe] {
        self.plan.timeframes()
    }

    pub fn bars(&self) -> &[BarSpec] {
        &self.bars
    }

    /// A trade was folded.
    pub fn started(&self) -> bool {
        self.state.started
    }

    /// Trades dropped as duplicates so far.
    pub fn duplicates(&self) -> u64 {
        self.state.duplicates
    }

    /// Folds trades in source order; what closes or comes late is appended to `events` in the order of its cause.
    /// Behind an error the folder is not to be used.
    pub fn fold(&mut self, columns: Columns<'_>, events: &mut Vec<Event>) -> Result<(), FoldError> {
        let first_event = events.len();
        let (mut prices, mut sizes) = std::mem::take(&mut self.widened);
        let columns = self.at_our_scale(columns, &mut prices, &mut sizes)?;
        let id_max = self.state.id_max;
        self.fold_time(columns, events)?;
        if !self.bars.is_empty() {
            self.fold_bars(columns, id_max, events)?;
            events[first_event..].sort_by_key(Event::index);
        }
        self.widened = (prices, sizes);
        Ok(())
    }

    fn fold_time(&mut self, columns: Columns<'_>, events: &mut Vec<Event>) -> Result<(), FoldError> {
        let n = columns.ts_ns.len();
        // Equal lengths, told to the compiler once: no bounds check remains in the loop.
        let (ts, ids) = (&columns.ts_ns[..n], &columns.id[..n]);
        let (prices, sizes, sides) = (&columns.price[..n], &columns.size[..n], &columns.side[..n]);
        let width = self.plan.timeframes[0].ns() as u64;
        let mut i = 0;
        while i < n {
            let base = self.state.buckets[0];
            let (open, mut sum) = (base.open_ns, base.sum);
            let (mut id_max, mut duplicates, mut over) = (self.state.id_max, 0u64, false);
            while i < n && (ts[i].wrapping_sub(open) as u64) < width {
                let id = ids[i];
                // Id 0, a venue without ids, wraps round and is never a duplicate.
                if id.wrapping_sub(1) < id_max {
                    duplicates += 1;
                } else {
                    id_max = id_max.max(id);
                    over |= sum.add(prices[i], sizes[i], sides[i] == b'b', id);
                }
                i += 1;
            }
            self.state.changed |= sum.trades != base.sum.trades;
            self.state.buckets[0].sum = sum;
            self.state.id_max = id_max;
            self.state.duplicates += duplicates;
            if over {
                return Err(self.overflow("quote volume"));
            }
            if i < n && self.turn(i, ts[i], ids[i], events)? {
                i += 1;
            }
        }
        Ok(())
    }

    /// A tick outside the open base bucket. True: it is dealt with; false: its bucket is open now.
    fn turn(&mut self, index: usize, ts: i64, id: u64, events: &mut Vec<Event>) -> Result<bool, FoldError> {
        if id.wrapping_sub(1) < self.state.id_max {
            self.state.duplicates += 1;
            return Ok(true);
        }
        let to = self.plan.timeframes[0].open_of(Nanos(ts)).0;
        if !self.state.started {
            self.start(ts);
            return Ok(false);
        }
        if ts < self.state.buckets[0].open_ns {
            self.state.id_max = self.state.id_max.max(id);
            events.push(Event::Late { index });
            return Ok(true);
        }
        self.advance(to, ClosedBy::Trade, |closed| events.push(Event::Closed { index, closed }))?;
        Ok(false)
    }

    fn start(&mut self, ts: i64) {
        let state = &mut self.state;
        state.started = true;
        // A gap that ended before the first trade says when we began to listen. Without one even another trade at
        // the same instant may have been missed.
        let seen_from_ns = state.gaps.first_end().filter(|&to| to <= ts).unwrap_or(ts.saturating_add(1));
        for (bucket, tf) in state.buckets.iter_mut().zip(&self.plan.timeframes) {
            *bucket = Bucket { open_ns: tf.open_of(Nanos(ts)).0, seen_from_ns, sum: Sum::EMPTY };
        }
    }

    /// The clock says that all trades before `until` were heard: closes every bucket that ends at or before it.
    pub fn close_until(&mut self, until: Nanos, mut said: impl FnMut(Closed)) -> Result<(), FoldError> {
        let to = self.plan.timeframes[0].open_of(until).0;
        if !self.state.started || to <= self.state.buckets[0].open_ns {
            return Ok(());
        }
        self.advance(to, ClosedBy::Clock, &mut said)?;
        // Here and not behind trades: how trades are packed must not decide what a bar knows of gaps.
        if !self.state.gaps.is_empty() {
            let buckets = self.state.buckets.iter().map(|b| b.open_ns);
            let bars = self.state.forming.iter().filter(|f| !f.sum.is_empty()).map(|f| f.first_ns);
            let oldest = buckets.chain(bars).min().unwrap_or(i64::MIN);
            self.state.gaps.forget(oldest);
        }
        Ok(())
    }

    /// Moves on to the base bucket that opens at `to`; says what that closes by end, the smaller timeframe first.
    fn advance(&mut self, to: i64, by: ClosedBy, mut said: impl FnMut(Closed)) -> Result<(), FoldError> {
        let (base, higher) = self.state.buckets.split_first_mut().expect("Invariant: a plan has a timeframe");
        if !base.sum.is_empty() {
            self.state.close = base.sum.close;
            for bucket in higher {
                if bucket.sum.merge(&base.sum).is_none() {
                    return Err(self.overflow("volume"));
                }
            }
        }
        let mut closed = std::mem::take(&mut self.closing);
        for k in 0..self.plan.timeframes.len() {
            self.close_slot(k, to, by, &mut closed);
        }
        if closed.len() > 1 {
            closed.sort_by_key(|c: &Closed| (c.close_ns, c.slot));
        }
        closed.drain(..).for_each(&mut said);
        self.closing = closed;
        Ok(())
    }

    fn close_slot(&mut self, k: usize, to: i64, by: ClosedBy, closed: &mut Vec<Closed>) {
        let tf = self.plan.timeframes[k];
        let target = tf.open_of(Nanos(to)).0;
        let state = &mut self.state;
        let bucket = &mut state.buckets[k];
        if target <= bucket.open_ns {
            return;
        }
        let Bucket { open_ns, seen_from_ns, sum } = *bucket;
        let gaps = &state.gaps;
        let candle = |open_ns: i64, sum: Sum| Closed {
            slot: Slot::Time(k),
            open_ns,
            close_ns: open_ns + tf.ns(),
            sum,
            by,
            complete: open_ns >= seen_from_ns && !gaps.touch(open_ns, open_ns + tf.ns()),
            filled: sum.is_empty(),
        };
        if !sum.is_empty() {
            closed.push(candle(open_ns, sum));
        }
        if self.plan.fill[k] {
            let first = if sum.is_empty() { open_ns } else { open_ns + tf.ns() };
            let count = (target - first) / tf.ns();
            if count <= self.plan.fill_run_max {
                closed.extend((0..count).map(|i| candle(first + i * tf.ns(), Sum::flat(state.close))));
            }
        }
        *bucket = Bucket { open_ns: target, seen_from_ns, sum: Sum::EMPTY };
    }

    fn fold_bars(&mut self, columns: Columns<'_>, mut id_max: u64, events: &mut Vec<Event>) -> Result<(), FoldError> {
        for i in 0..columns.ts_ns.len() {
            let id = columns.id[i];
            if id.wrapping_sub(1) < id_max {
                continue;
            }
            id_max = id_max.max(id);
            for b in 0..self.bars.len() {
                let forming = &mut self.state.forming[b];
                if forming.sum.is_empty() {
                    forming.first_ns = columns.ts_ns[i];
                }
                forming.last_ns = columns.ts_ns[i];
                if forming.sum.add(columns.price[i], columns.size[i], columns.side[i] == b'b', id) {
                    return Err(self.overflow("quote volume"));
                }
                if self.bars[b].counted(&forming.sum) < self.limits[b] {
                    continue;
                }
                let Forming { sum, first_ns, last_ns } = std::mem::take(forming);
                let complete = !self.state.gaps.touch(first_ns, last_ns + 1);
                let closed = Closed {
                    slot: Slot::Bar(b),
                    open_ns: first_ns,
                    close_ns: last_ns,
                    sum,
                    by: ClosedBy::Count,
                    complete,
                    filled: false,
                };
                events.push(Event::Closed { index: i, closed });
            }
        }
        Ok(())
    }

    /// Trades are missing in [from, to), or from `from` on until another call tells the end.
    pub fn gap(&mut self, from_ns: i64, to_ns: Option<i64>) {
        self.state.gaps.add(from_ns, to_ns, self.plan.gaps_max);
    }

    /// Was a trade folded since the last call?
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.state.changed)
    }

    /// The `k`-th timeframe's candle as it stands; `None` without a trade in it.
    pub fn forming(&self, k: usize) -> Option<Closed> {
        let bucket = self.state.buckets[k];
        let mut sum = bucket.sum;
        if k > 0 {
            // What overflows here is an error at the close; a preview is left out.
            sum.merge(&self.state.buckets[0].sum)?;
        }
        let close_ns = bucket.open_ns.saturating_add(self.plan.timeframes[k].ns());
        let complete = bucket.open_ns >= bucket.seen_from_ns && !self.state.gaps.touch(bucket.open_ns, close_ns);
        let closed = Closed {
            slot: Slot::Time(k),
            open_ns: bucket.open_ns,
            close_ns,
            sum,
            by: ClosedBy::Open,
            complete,
            filled: false,
        };
        (!sum.is_empty()).then_some(closed)
    }

    /// The end of a batch: every open candle and bar as it stands, marked incomplete. The live path never does this.
    pub fn flush(mut self, mut said: impl FnMut(Closed)) {
        for k in 0..self.plan.timeframes.len() {
            if let Some(closed) = self.forming(k) {
                said(Closed { by: ClosedBy::Count, complete: false, ..closed });
            }
        }
        for (b, forming) in std::mem::take(&mut self.state.forming).into_iter().enumerate() {
            if !forming.sum.is_empty() {
                said(Closed {
                    slot: Slot::Bar(b),
                    open_ns: forming.first_ns,
                    close_ns: forming.last_ns,
                    sum: forming.sum,
                    by: ClosedBy::Count,
                    complete: false,
                    filled: false,
                });
            }
        }
    }

    fn overflow(&self, what: &'static str) -> FoldError {
        FoldError::Sum { what, scale: self.state.scale }
    }

    fn set_limits(&mut self) {
        self.limits = self.bars.iter().map(|bar| bar.limit_m(self.state.scale)).collect();
    }

    /// Widens our state to the columns' scale, or the columns to ours, so that both count in the same digits.
    fn at_our_scale<'a>(
        &mut self,
        columns: Columns<'a>,
        prices: &'a mut Vec<i64>,
        sizes: &'a mut Vec<i64>,
    ) -> Result<Columns<'a>, FoldError> {
        let have = self.state.scale;
        if have == columns.scale {
            return Ok(columns);
        }
        let want = Scale { price: have.price.max(columns.scale.price), qty: have.qty.max(columns.scale.qty) };
        if want != have {
            self.rescale(want)?;
        }
        let mut wide = columns;
        if columns.scale.price < want.price {
            wide.price = widen(columns.price, want.price - columns.scale.price, prices)?;
        }
        if columns.scale.qty < want.qty {
            wide.size = widen(columns.size, want.qty - columns.scale.qty, sizes)?;
        }
        wide.scale = want;
        Ok(wide)
    }

    fn rescale(&mut self, want: Scale) -> Result<(), FoldError> {
        let (price, qty) = (want.price - self.state.scale.price, want.qty - self.state.scale.qty);
        let sums = self.state.buckets.iter_mut().map(|b| &mut b.sum);
        let fits =
            sums.chain(self.state.forming.iter_mut().map(|f| &mut f.sum)).all(|sum| sum.rescale(price, qty).is_some());
        if !fits {
            return Err(FoldError::Sum { what: "an open candle", scale: want });
        }
        let mut close = Vec::new();
        self.state.close = widen(&[self.state.close], price, &mut close)?[0];
        self.state.scale = want;
        self.set_limits();
        Ok(())
    }

    /// The state, by the names of timeframes and bars.
    pub fn save(&self) -> Saved {
        let s = self.state.clone();
        Saved {
            scale: s.scale,
            started: s.started,
            id_max: s.id_max,
            duplicates: s.duplicates,
            close: s.close,
            gaps: s.gaps,
            buckets: self.plan.timeframes.iter().copied().zip(s.buckets).collect(),
            bars: self.bars.iter().map(BarSpec::to_string).zip(s.forming).collect(),
            changed: s.changed,
        }
    }

    /// The folder that was saved, under a plan that may have other timeframes and bars: those that are new begin
    /// incomplete, those that are gone are forgotten. Error: a sum leaves 128 bits.
    pub fn restore(plan: Arc<Plan>, bars: Vec<BarSpec>, saved: Saved) -> Result<Self, FoldError> {
        let mut folder = Self::new(plan, bars);
        let Saved { scale, started, id_max, duplicates, close, gaps, mut buckets, bars, changed } = saved;
        let forming = folder.bars.iter().map(|bar| bars.get(&bar.to_string()).copied().unwrap_or_default()).collect();
        let overflow = FoldError::Sum { what: "volume", scale };
        let Some((old_base, _)) = buckets.first().copied() else {
            return Ok(folder);
        };
        if old_base != folder.plan.timeframes[0] {
            // The old base is rolled up as if it had closed here; it goes on as a higher timeframe or not at all.
            let (base, higher) = buckets.split_first_mut().expect("Invariant: checked above");
            for (_, bucket) in higher {
                bucket.sum.merge(&base.1.sum).ok_or_else(|| overflow.clone())?;
            }
        }
        let opened = buckets[0].1.open_ns;
        let known: BTreeMap<Timeframe, Bucket> = buckets.into_iter().collect();
        let fresh = |tf: &Timeframe| Bucket {
            open_ns: if started { tf.open_of(Nanos(opened)).0 } else { i64::MIN },
            seen_from_ns: opened.saturating_add(old_base.ns()),
            sum: Sum::EMPTY,
        };
        let buckets =
            folder.plan.timeframes.iter().map(|tf| known.get(tf).copied().unwrap_or_else(|| fresh(tf))).collect();
        folder.state = State { scale, started, id_max, duplicates, close, gaps, buckets, forming, changed };
        folder.set_limits();
        Ok(folder)
    }
}

fn widen<'a>(values: &[i64], digits: u8, into: &'a mut Vec<i64>) -> Result<&'a [i64], FoldError> {
    let factor = 10i64.checked_pow(digits as u32);
    into.clear();
    for &mantissa in values {
        let wide = factor.and_then(|f| mantissa.checked_mul(f)).or((mantissa == 0).then_some(0));
        into.push(wide.ok_or(FoldError::Rescale { mantissa, digits })?);
    }
    Ok(into)
}
