//! Gap facts to a ledger of days. Pure.

use std::collections::BTreeMap;

use schemas::Nanos;
use schemas::raw::Gap;

/// Nanoseconds of a UTC day.
pub const DAY_NS: i64 = 86_400 * Nanos::PER_SECOND;

/// What is missing where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Channel {
    pub venue: String,
    pub symbol: String,
    /// `trade`, `book`, ...
    pub channel: String,
}

/// A gap as it was told, and as it was told to end. Event times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Told<'a> {
    pub from_ns: i64,
    /// `None`: it lasts still.
    pub to_ns: Option<i64>,
    pub reason: &'a str,
}

/// One channel on one day.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Day {
    /// Gaps that touch the day.
    pub gaps: u64,
    /// Those that last still.
    pub open: u64,
    /// Time of the day in which something is missing; what two gaps share counts once.
    pub missing_ns: i64,
    /// The longest stretch of it without a break, within the day.
    pub longest_ns: i64,
}

/// All gaps that were told, by channel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    channels: BTreeMap<Channel, Gaps>,
    count: usize,
}

/// Of one channel, with the reason that was told first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Gaps {
    /// By begin and end.
    ended: BTreeMap<(i64, i64), String>,
    /// By begin.
    open: BTreeMap<i64, String>,
}

impl Ledger {
    /// A gap with an end is also the end of those that lasted and began no later, as it is for candles: told for the
    /// same begin it is the same gap. Error: there are more than `max`.
    pub fn hear(&mut self, gap: Gap, max: usize) -> Result<(), TooMany> {
        let Gap { venue, symbol, channel, from_ns, to_ns, reason, .. } = gap;
        let gaps = self.channels.entry(Channel { venue, symbol, channel }).or_default();
        let before = gaps.len();
        match to_ns {
            None => drop(gaps.open.entry(from_ns).or_insert(reason)),
            Some(to) => {
                let lasting = gaps.open.split_off(&to.saturating_add(1));
                for (from, reason) in std::mem::replace(&mut gaps.open, lasting) {
                    gaps.ended.entry((from, to)).or_insert(reason);
                }
                gaps.ended.entry((from_ns, to)).or_insert(reason);
            }
        }
        self.count = self.count + gaps.len() - before;
        if max < self.count { Err(TooMany { max }) } else { Ok(()) }
    }

    /// Every gap that touches the days `from..=to` (counted since 1970), oldest first within its channel.
    pub fn told(&self, days: (i64, i64), now_ns: i64) -> impl Iterator<Item = (&Channel, Told<'_>)> {
        let told = self.channels.iter().flat_map(|(channel, gaps)| gaps.told().into_iter().map(move |t| (channel, t)));
        told.filter(move |(_, t)| !touched(t.from_ns, t.end(now_ns), days).is_empty())
    }

    /// A row for each of the days `from..=to` (counted since 1970) and channel with a gap; `now_ns` is how far one that
    /// lasts still has come.
    pub fn days(&self, days: (i64, i64), now_ns: i64) -> BTreeMap<(i64, Channel), Day> {
        let mut rows: BTreeMap<(i64, Channel), Day> = BTreeMap::new();
        for (channel, gaps) in &self.channels {
            let told = gaps.told();
            for gap in &told {
                for day in touched(gap.from_ns, gap.end(now_ns), days) {
                    let row = rows.entry((day, channel.clone())).or_default();
                    row.gaps += 1;
                    row.open += u64::from(gap.to_ns.is_none());
                }
            }
            for (from, to) in stretches(&told, now_ns) {
                for day in touched(from, to, days) {
                    let begin = day * DAY_NS;
                    let part = to.min(begin.saturating_add(DAY_NS)) - from.max(begin);
                    let row = rows.entry((day, channel.clone())).or_default();
                    row.missing_ns += part;
                    row.longest_ns = row.longest_ns.max(part);
                }
            }
        }
        rows
    }
}

impl Gaps {
    fn len(&self) -> usize {
        self.ended.len() + self.open.len()
    }

    /// Oldest first.
    fn told(&self) -> Vec<Told<'_>> {
        let ended = self.ended.iter().map(|(&(from_ns, to), reason)| Told { from_ns, to_ns: Some(to), reason });
        let open = self.open.iter().map(|(&from_ns, reason)| Told { from_ns, to_ns: None, reason });
        let mut told: Vec<_> = ended.chain(open).collect();
        told.sort_unstable();
        told
    }
}

impl Told<'_> {
    /// Its end, or how far it has come; not before its begin.
    pub fn end(&self, now_ns: i64) -> i64 {
        self.to_ns.unwrap_or(now_ns).max(self.from_ns)
    }
}

/// More gaps than are held in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {max} gaps: name a --venue and a --symbol")]
pub struct TooMany {
    pub max: usize,
}

/// Gaps, oldest first, as stretches that do not overlap.
fn stretches(told: &[Told<'_>], now_ns: i64) -> Vec<(i64, i64)> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for gap in told {
        match stretches.last_mut() {
            Some(before) if gap.from_ns <= before.1 => before.1 = before.1.max(gap.end(now_ns)),
            _ => stretches.push((gap.from_ns, gap.end(now_ns))),
        }
    }
    stretches
}

/// The days that a stretch touches, of those asked for. One that ends at midnight does not touch the day that begins
/// then; one of an instant touches the day of that instant.
fn touched(from_ns: i64, to_ns: i64, days: (i64, i64)) -> std::ops::RangeInclusive<i64> {
    let last_ns = if from_ns < to_ns { to_ns - 1 } else { to_ns };
    from_ns.div_euclid(DAY_NS).max(days.0)..=last_ns.div_euclid(DAY_NS).min(days.1)
}

#[cfg(test)]
mod tests {
    use schemas::Version;

    use super::*;

    const ALL: (i64, i64) = (0, 100_000);
    const HOUR: i64 = 3_600 * Nanos::PER_SECOND;

    fn gap(symbol: &str, from_ns: i64, to_ns: Option<i64>) -> Gap {
        let (venue, symbol, channel) = ("binance".to_owned(), symbol.to_owned(), "trade".to_owned());
        Gap { v: Version, venue, symbol, p: 0, channel, from_ns, to_ns, reason: "test".to_owned() }
    }

    /// Gaps of one symbol and now, in hours since 1970, and the rows that follow.
    fn check(gaps: &[(i64, Option<i64>)], now_h: i64, expected: &[&str]) {
        let mut ledger = Ledger::default();
        for (from, to) in gaps {
            ledger.hear(gap("BTC", from * HOUR, to.map(|to| to * HOUR)), 100).unwrap();
        }
        let rows = ledger.days(ALL, now_h * HOUR).into_iter().map(|((day, _), row)| {
            let Day { gaps, open, missing_ns, longest_ns } = row;
            format!("day {day}: {gaps} gaps, {open} open, {} h, longest {} h", missing_ns / HOUR, longest_ns / HOUR)
        });
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn gaps_of_a_day_add_up() {
        check(&[(1, Some(2)), (5, Some(8))], 20, &["day 0: 2 gaps, 0 open, 4 h, longest 3 h"]);
    }

    #[test]
    fn what_two_gaps_share_is_missing_once() {
        check(&[(1, Some(4)), (2, Some(3)), (3, Some(6))], 20, &["day 0: 3 gaps, 0 open, 5 h, longest 5 h"]);
    }

    #[test]
    fn a_gap_told_again_is_the_same_one() {
        check(&[(1, Some(4)), (1, Some(4))], 20, &["day 0: 1 gaps, 0 open, 3 h, longest 3 h"]);
        check(&[(1, None), (1, None)], 3, &["day 0: 1 gaps, 1 open, 2 h, longest 2 h"]);
    }

    #[test]
    fn a_gap_that_lasts_is_open_and_counts_up_to_now() {
        check(&[(1, None)], 5, &["day 0: 1 gaps, 1 open, 4 h, longest 4 h"]);
        // Now lies before its begin where clocks disagree.
        check(&[(6, None)], 5, &["day 0: 1 gaps, 1 open, 0 h, longest 0 h"]);
    }

    #[test]
    fn the_end_of_a_gap_ends_what_lasted_and_is_no_second_gap() {
        check(&[(1, None), (1, Some(3))], 20, &["day 0: 1 gaps, 0 open, 2 h, longest 2 h"]);
        check(&[(1, None), (2, Some(3))], 20, &["day 0: 2 gaps, 0 open, 2 h, longest 2 h"]);
        check(&[(4, None), (1, Some(3))], 20, &["day 0: 2 gaps, 1 open, 18 h, longest 16 h"]);
    }

    #[test]
    fn a_gap_over_midnight_stands_in_both_days_with_its_part_of_each() {
        check(
            &[(22, Some(25))],
            30,
            &["day 0: 1 gaps, 0 open, 2 h, longest 2 h", "day 1: 1 gaps, 0 open, 1 h, longest 1 h"],
        );
        check(&[(22, Some(24))], 30, &["day 0: 1 gaps, 0 open, 2 h, longest 2 h"]);
        check(&[(24, Some(24))], 30, &["day 1: 1 gaps, 0 open, 0 h, longest 0 h"]);
    }

    #[test]
    fn days_that_were_not_asked_for_stay_out_and_channels_stay_apart() {
        let mut ledger = Ledger::default();
        ledger.hear(gap("BTC", 22 * HOUR, Some(80 * HOUR)), 100).unwrap();
        ledger.hear(gap("ETH", 30 * HOUR, None), 100).unwrap();
        ledger.hear(Gap { channel: "book".to_owned(), ..gap("BTC", 30 * HOUR, None) }, 100).unwrap();
        let rows = ledger.days((1, 1), 31 * HOUR);
        let row = |((day, c), row): (&(i64, Channel), &Day)| {
            (*day, c.symbol.clone(), c.channel.clone(), row.open, row.missing_ns / HOUR)
        };
        let of = |symbol: &str, channel: &str, open, h| (1, symbol.to_owned(), channel.to_owned(), open, h);
        let expected = [of("BTC", "book", 1, 1), of("BTC", "trade", 0, 24), of("ETH", "trade", 1, 1)];
        assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), expected);
        assert_eq!(ledger.told((2, 9), 31 * HOUR).count(), 1);
    }

    #[test]
    fn one_gap_more_than_are_held_is_an_error() {
        let mut ledger = Ledger::default();
        ledger.hear(gap("BTC", 1, None), 1).unwrap();
        ledger.hear(gap("BTC", 1, Some(2)), 1).unwrap();
        assert_eq!(ledger.hear(gap("BTC", 3, Some(4)), 1), Err(TooMany { max: 1 }));
    }

    /// Every three gaps of a grid over three days, ended or not, against a count of the hours.
    #[test]
    fn the_days_hold_together_exactly_the_hours_in_which_something_is_missing() {
        const NOW_H: i64 = 60;
        let grid: Vec<(i64, Option<i64>)> = (0..54)
            .step_by(9)
            .flat_map(|from| {
                let ends = [Some(from), Some(from + 5), Some(from + 30), None];
                ends.map(|to| (from, to))
            })
            .collect();
        for a in &grid {
            for b in &grid {
                for c in &grid {
                    let mut ledger = Ledger::default();
                    for (from, to) in [a, b, c] {
                        ledger.hear(gap("BTC", from * HOUR, to.map(|to| to * HOUR)), 100).unwrap();
                    }
                    let now_ns = NOW_H * HOUR;
                    let told: Vec<_> = ledger.told(ALL, now_ns).map(|(_, t)| (t.from_ns, t.end(now_ns))).collect();
                    let inside = |h: &i64| told.iter().any(|(from, to)| *from <= h * HOUR && h * HOUR < *to);
                    let missing = (0..100).filter(inside).count() as i64 * HOUR;
                    let rows = ledger.days(ALL, now_ns);
                    assert_eq!(rows.values().map(|row| row.missing_ns).sum::<i64>(), missing, "{a:?} {b:?} {c:?}");
                    for row in rows.values() {
                        assert!(row.longest_ns <= row.missing_ns && row.missing_ns <= DAY_NS, "{row:?}");
                        assert!(0 < row.gaps && row.open <= row.gaps, "{row:?}");
                    }
                }
            }
        }
    }
}
