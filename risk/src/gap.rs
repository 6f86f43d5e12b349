//! Stretches of missing trades of one instrument.

use serde::{Deserialize, Serialize};

/// `(from, to)` in event time; `to` is absent while trades are missing still. Oldest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gaps(Vec<(i64, Option<i64>)>);

impl Gaps {
    /// A stretch with an end also ends the open ones that began before that end. Beyond `max` the oldest that has
    /// ended goes, and an open one only where none has.
    pub fn add(&mut self, from_ns: i64, to_ns: Option<i64>, max: usize) {
        if let Some(to) = to_ns {
            self.0.iter_mut().filter(|gap| gap.1.is_none() && gap.0 <= to).for_each(|gap| gap.1 = to_ns);
        }
        if !self.0.contains(&(from_ns, to_ns)) {
            self.0.push((from_ns, to_ns));
        }
        if self.0.len() > max {
            let oldest = self.0.iter().position(|gap| gap.1.is_some()).unwrap_or(0);
            self.0.remove(oldest);
        }
    }

    /// A stretch that lasts still, else one that overlaps `[from, until)`; one without length lies at its instant.
    pub fn touching(&self, from_ns: i64, until_ns: i64) -> Option<(i64, Option<i64>)> {
        let open = self.0.iter().find(|gap| gap.1.is_none());
        let overlaps =
            |gap: &&(i64, Option<i64>)| gap.0 < until_ns && (gap.1.is_some_and(|to| to > from_ns) || gap.0 >= from_ns);
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
        gaps.add(12, Some(20), 4);
        assert_eq!(gaps.touching(50, 60), None);
        assert_eq!(gaps.touching(5, 11), Some((10, Some(20))));
    }

    #[test]
    fn a_gap_of_one_instant_touches_its_interval() {
        let mut gaps = Gaps::default();
        gaps.add(10, Some(10), 4);
        assert_eq!(gaps.touching(10, 20), Some((10, Some(10))));
        assert_eq!(gaps.touching(0, 10), None);
        assert_eq!(gaps.touching(11, 20), None);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut gaps = Gaps::default();
        (0..9).for_each(|i| gaps.add(i * 10, Some(i * 10 + 5), 2));
        assert_eq!(gaps.0, [(70, Some(75)), (80, Some(85))]);
        gaps.add(90, None, 2);
        gaps.add(100, None, 2);
        assert_eq!(gaps.0, [(90, None), (100, None)], "what lasts still is kept before what has ended");
    }
}
