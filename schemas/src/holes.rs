//! Which of the newest bars of a series were not seen whole, so that what is computed over them can say so.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The bars of one series over a gap, counted in closed bars.
///
/// Bars in front of the first whole one of our own do not count: they are where we began, not where we missed something.
/// The venue's own candles from before (`ClosedBy::History`) are not pushed, for the same reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Holes {
    /// Bars since the first whole one, that one included; 0 before it.
    bars: u64,
    /// Numbers of those that were not seen whole, ascending.
    at: VecDeque<u64>,
}

impl Holes {
    /// The next closed bar; nothing is remembered for longer than `memory_bars_max` bars.
    pub fn push(&mut self, complete: bool, memory_bars_max: u32) {
        if self.bars == 0 && !complete {
            return;
        }
        self.bars += 1;
        if !complete {
            self.at.push_back(self.bars);
        }
        while self.at.front().is_some_and(|&bar| bar + u64::from(memory_bars_max) <= self.bars) {
            self.at.pop_front();
        }
    }

    /// Bars over a gap among the newest `bars`.
    pub fn among(&self, bars: u32) -> u32 {
        let newest = self.at.iter().rev().take_while(|&&bar| self.bars < bar + u64::from(bars));
        u32::try_from(newest.count()).unwrap_or(u32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

/// For fields that are left out where they are 0.
pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holes(bars: &str, memory_bars_max: u32) -> Holes {
        let mut holes = Holes::default();
        bars.chars().for_each(|bar| holes.push(bar == '+', memory_bars_max));
        holes
    }

    #[test]
    fn the_bars_where_we_began_are_no_hole() {
        assert!(holes("---+++", 9).is_empty());
        assert_eq!(holes("---+-+", 9).among(9), 1);
    }

    #[test]
    fn a_hole_counts_until_it_is_as_far_back_as_one_looks() {
        let holes = holes("++-+-++", 9);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|bars| holes.among(bars)), [0, 0, 0, 1, 1, 2, 2]);
    }

    proptest! {
        #[test]
        fn what_is_forgotten_would_not_have_counted(bars in "[+-]{0,60}", memory in 1u32..20, back in 0u32..20) {
            let back = back.min(memory);
            let kept = holes(&bars, memory);
            prop_assert_eq!(kept.among(back), holes(&bars, 1000).among(back));
            prop_assert!(kept.at.len() <= memory as usize);
        }
    }
}
