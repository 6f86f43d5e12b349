//! Stretches of missing trades of one instrument.

use serde::{Deserialize, Serialize};

/// `(from, to)` in event time; `to` is absent while trades are missing still. Oldest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gaps(Vec<(i64, Option<i64>)>);

impl Gaps {
    /// A stretch with an end replaces the open ones that began before that end. Beyond `max` the oldest go.
    pub fn add(&mut self, from_ns: i64, to_ns: Option<i64>, max: usize) {
        match to_ns {
            Some(to) => self.0.retain(|gap| gap.1.is_some() || gap.0 > to),
            None => self.0.retain(|gap| *gap != (from_ns, None)),
        }
        self.0.push((from_ns, to_ns));
        if self.0.len() > max {
            self.0.remove(0);
        }
    }

    /// A stretch that lasts still, else one that overlaps `[from, until)`.
    pub fn touching(&self, from_ns: i64, until_ns: i64) -> Option<(i64, Option<i64>)> {
        let open = self.0.iter().find(|gap| gap.1.is_none());
        let overlaps = |gap: &&(i64, Option<i64>)| gap.0 < until_ns && gap.1.is_some_and(|to| to > from_ns);
        open.or_else(|| self.0.iter().find(overlaps)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_touches_the_intervals_that_it_overlaps_and_no_other() {
        let mut gaps = Gaps::default();
        gaps.add(10, Some(20), 4);
        assert_eq!(gaps.touching(0, 10), None);
        assert_eq!(gaps.touching(19, 30), Some((10, Some(20))));
        assert_eq!(gaps.touching(20, 30), None);
    }

    #[test]
    fn a_gap_that_lasts_touches_everything_until_its_end_is_told() {
        let mut gaps = Gaps::default();
        gaps.add(10, None, 4);
        assert_eq!(gaps.touching(50, 60), Some((10, None)));
        gaps.add(10, Some(20), 4);
        assert_eq!(gaps.touching(50, 60), None);
        assert_eq!(gaps.touching(15, 60), Some((10, Some(20))));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut gaps = Gaps::default();
        (0..9).for_each(|i| gaps.add(i * 10, Some(i * 10 + 5), 2));
        assert_eq!(gaps.0, [(70, Some(75)), (80, Some(85))]);
    }
}
