//! What a live feed stored of its trades. It cannot be compared with another run; the venue's ids tell what is missing,
//! double or out of order.

use std::collections::BTreeMap;

use nats::{Bus, leader};
use schemas::Fact;
use schemas::raw::{Gap, Trades};
use schemas::subject::stream;

use crate::stored;

/// The trades of a venue's stream in stored order, and its gaps.
#[derive(Debug, Default)]
pub struct Ticks {
    /// Id and event time in nanoseconds, by symbol.
    trades: BTreeMap<String, Vec<(u64, i64)>>,
    backfilled: usize,
    gaps: Vec<Gap>,
}

impl Ticks {
    pub async fn read(bus: &Bus, venue: &str) -> anyhow::Result<Self> {
        let mut ticks = Self::default();
        for (_, subject, payload) in stored(bus, &stream::raw(venue)).await? {
            if subject.contains(".trade.") {
                let pack = Trades::decode(&payload)?;
                let trades = pack.iter().map(|trade| (trade.id, trade.ts.0)).collect::<Vec<_>>();
                ticks.backfilled += if pack.origin.is_live() { 0 } else { trades.len() };
                ticks.trades.entry(pack.symbol).or_default().extend(trades);
            } else if subject.contains(".gap.") {
                ticks.gaps.push(Gap::decode(&payload)?);
            }
        }
        Ok(ticks)
    }

    pub fn symbols(&self) -> usize {
        self.trades.len()
    }
    pub fn trades(&self) -> usize {
        self.trades.values().map(Vec::len).sum()
    }

    /// Trades that were asked for afterwards.
    pub fn backfilled(&self) -> usize {
        self.backfilled
    }

    /// Holes in the ids that a gap of trades tells.
    pub fn told_holes(&self) -> usize {
        self.holes().filter(|hole| self.tells(hole)).count()
    }

    /// Everything that must not be: a trade that is stored twice or behind a later one, and a hole that no gap tells.
    pub fn trouble(&self) -> Vec<String> {
        let mut trouble: Vec<String> = Vec::new();
        for (symbol, trades) in &self.trades {
            for pair in trades.windows(2).filter(|pair| pair[1].0 <= pair[0].0) {
                trouble.push(format!("{symbol}: trade {} behind {}", pair[1].0, pair[0].0));
            }
        }
        let untold = self.holes().filter(|hole| !self.tells(hole));
        trouble.extend(untold.map(|h| format!("{}: {} follows {} without a gap", h.symbol, h.to.0, h.from.0)));
        trouble
    }

    fn holes(&self) -> impl Iterator<Item = Hole<'_>> {
        self.trades.iter().flat_map(|(symbol, trades)| {
            let pairs = trades.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1);
            pairs.map(move |pair| Hole { symbol, from: pair[0], to: pair[1] })
        })
    }

    fn tells(&self, hole: &Hole) -> bool {
        let mine = self.gaps.iter().filter(|gap| gap.symbol == hole.symbol && gap.channel == Trades::KIND);
        mine.into_iter().any(|gap| gap.from_ns <= hole.to.1 && gap.to_ns.is_none_or(|to| to >= hole.from.1))
    }
}

/// Ids that are absent between two stored trades.
struct Hole<'a> {
    symbol: &'a str,
    from: (u64, i64),
    to: (u64, i64),
}

/// Sequence of the newest stored trade of a venue; 0 while there is none.
pub async fn newest_trade(bus: &Bus, venue: &str) -> anyhow::Result<u64> {
    let newest = leader::last_by_subject(bus, &stream::raw(venue), &format!("raw.*.{venue}.trade.*")).await?;
    Ok(newest.map_or(0, |message| message.seq))
}
