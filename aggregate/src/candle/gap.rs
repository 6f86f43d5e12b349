//! Where trades are known to be missing.

use serde::{Deserialize, Serialize};

/// Stretches of event time in which trades are missing, oldest first; one that still lasts ends at `i64::MAX`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Gaps(Vec<(i64, i64)>);

impl Gaps {
    /// Notes a gap. One with an end also ends those that still lasted. Above `max` the two oldest become one that
    /// covers both: more is called incomplete, never less.
    pub fn add(&mut self, from_ns: i64, to_ns: Option<i64>, max: usize) {
        if let Some(to) = to_ns {
            for gap in self.0.iter_mut().filter(|gap| gap.1 == i64::MAX && gap.0 <= to) {
                gap.1 = to;
            }
        }
        let to_ns = to_ns.unwrap_or(i64::MAX);
        self.0.push((from_ns, to_ns));
        self.0.sort_unstable();
        self.0.dedup();
        while self.0.len() > max.max(1) {
            let second = self.0.remove(1);
            self.0[0].1 = self.0[0].1.max(second.1);
        }
    }

    /// Is something missing in [open, end)?
    pub fn touch(&self, open_ns: i64, end_ns: i64) -> bool {
        self.0.iter().any(|&(from, to)| from < end_ns && (to > open_ns || from >= open_ns))
    }

    /// Forgets what ended at or before `open_ns`, the oldest bucket that is still open.
    pub fn forget(&mut self, open_ns: i64) {
        self.0.retain(|&(from, to)| to > open_ns || from >= open_ns);
    }

    /// The end of the first gap, when it has one: from there on we listened.
    pub fn first_end(&self) -> Option<i64> {
        self.0.first().map(|gap| gap.1).filter(|&to| to != i64::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_lasts_touches_every_later_bucket_until_its_end_is_told() {
        let mut gaps = Gaps::default();
        gaps.add(15, None, 8);
        assert!(!gaps.touch(0, 10) && gaps.touch(10, 20) && gaps.touch(90, 100));
        gaps.add(15, Some(35), 8);
        assert!(gaps.touch(10, 20) && gaps.touch(30, 40) && !gaps.touch(40, 50));
    }

    #[test]
    fn a_gap_that_ends_where_a_bucket_opens_leaves_it_whole() {
        let mut gaps = Gaps::default();
        gaps.add(12, Some(20), 8);
        assert!(gaps.touch(10, 20) && !gaps.touch(20, 30));
    }

    #[test]
    fn above_the_bound_gaps_are_joined_not_lost() {
        let mut gaps = Gaps::default();
        for from in [0, 100, 200] {
            gaps.add(from, Some(from + 1), 2);
        }
        assert!(gaps.touch(0, 10) && gaps.touch(100, 110) && gaps.touch(200, 210) && gaps.touch(50, 60));
        assert!(!gaps.touch(150, 160));
    }
}
