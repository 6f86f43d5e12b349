//! Trades that wait for others, and what tells trades apart whose ids do not rise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemas::Nanos;

use crate::event::{self, Trade};
use crate::session::Tail;

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) recv: Nanos,
    pub(super) id: u64,
    /// `None`: an id that the venue used up for something that is no trade.
    pub(super) trade: Option<Trade>,
}

impl Held {
    pub(super) fn is_past(&self) -> bool {
        self.trade.as_ref().is_some_and(|t| t.backfill)
    }
}

/// Ended gaps whose stretch is remembered; what an older one held would be told late and out of order.
const GAPS_MAX: usize = 64;

/// Tells trades apart by the venue's ids and numbers them: by their time in microseconds, and always higher than before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Oldest first.
    order: VecDeque<(event::Symbol, Nanos)>,
    known: BTreeSet<event::Symbol>,
    last: u64,
    /// Trades before this time were forgotten, or never wanted: whatever comes from there is not missing.
    forgotten: Option<Nanos>,
    /// From and to of the gaps that ended, oldest first.
    missing: VecDeque<(Nanos, Nanos)>,
}

impl Memory {
    pub(super) fn of(tail: &Tail, max: usize) -> Self {
        let mut memory = Self { last: tail.id, ..Self::default() };
        for (id, ts) in &tail.venue_ids {
            memory.keep(id.as_str().into(), *ts, max);
        }
        // What stands before the remembered ones is stored too.
        memory.forgotten = tail.venue_ids.first().map(|(_, ts)| *ts);
        memory
    }

    pub(super) fn has(&self, trade: &Trade) -> bool {
        let named = trade.venue_id.as_ref().is_some_and(|id| self.known.contains(id));
        named || self.forgotten.is_some_and(|ts| trade.ts < ts)
    }

    /// It is none that left, and its time is one that was told as missing.
    pub(super) fn is_missing(&self, trade: &Trade) -> bool {
        self.missing.iter().any(|(from, to)| (*from..=*to).contains(&trade.ts)) && !self.has(trade)
    }

    /// Trades are told as missing from `from` to `to`.
    pub(super) fn missed(&mut self, from: Nanos, to: Nanos) {
        if self.missing.len() == GAPS_MAX {
            self.missing.pop_front();
        }
        self.missing.push_back((from, to));
    }

    pub(super) fn keep(&mut self, id: event::Symbol, ts: Nanos, max: usize) {
        if self.known.insert(id.clone()) {
            self.order.push_back((id, ts));
        }
        while self.order.len() > max {
            if let Some((id, ts)) = self.order.pop_front() {
                self.known.remove(&id);
                self.forgotten = self.forgotten.max(Some(ts));
            }
        }
    }

    /// The trade under its number; `None`: it came already.
    pub(super) fn number(&mut self, mut trade: Trade, max: usize) -> Option<Trade> {
        if self.has(&trade) {
            return None;
        }
        let micros = u64::try_from(trade.ts.0 / 1000).unwrap_or(0);
        self.last = micros.max(self.last + 1);
        trade.id = self.last;
        // What stands before the first one was never asked for.
        self.forgotten = self.forgotten.or(Some(trade.ts));
        // One without a name cannot be told from another: each counts.
        if let Some(id) = trade.venue_id.clone() {
            self.keep(id, trade.ts, max);
        }
        Some(trade)
    }
}

/// Puts trades in the order in which they happened, and gives how many came twice. Of one time, those that came live stand as
/// they came, and where the history has them, too, as it has them: it alone has all of its stretch.
pub(super) fn by_time(held: &mut Vec<Held>) -> u64 {
    let id = |row: &Held| row.trade.as_ref().and_then(|t| t.venue_id.clone());
    let past = held.iter().enumerate().filter(|(_, row)| row.is_past());
    let places: BTreeMap<event::Symbol, usize> = past.filter_map(|(n, row)| Some((id(row)?, n))).collect();
    let mut doubled = BTreeSet::new();
    for n in 0..held.len() {
        let place = id(&held[n]).and_then(|id| places.get(&id)).copied();
        if let Some(place) = place.filter(|place| *place != n && !held[n].is_past()) {
            held[place] = held[n].clone();
            doubled.insert(n);
        }
    }
    let once = std::mem::take(held).into_iter().enumerate().filter(|(n, _)| !doubled.contains(n));
    held.extend(once.map(|(_, row)| row));
    held.sort_by_key(|row| row.trade.as_ref().map(|t| t.ts));
    doubled.len() as u64
}
