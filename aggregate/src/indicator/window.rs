//! Sliding windows of a fixed length that never subtract: nothing drifts, an empty sum is exactly zero.
//!
//! [`Rolling`] cuts the past into blocks as long as the window. The window is always the tail of the block before
//! and the head of this one; tails are folded once when a block ends, the head as it grows. That is two folds a
//! bar on average and one array, for sums as well as for extremes.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How two neighbouring parts of a window become one.
pub trait Fold: Clone + Send + Sync + 'static {
    type Item: Copy + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The fold of nothing.
    const NONE: Self::Item;
    fn join(older: Self::Item, newer: Self::Item) -> Self::Item;
}

/// Their sum.
#[derive(Clone, Debug)]
pub struct Sum;
impl Fold for Sum {
    type Item = f64;
    const NONE: f64 = 0.0;
    #[inline]
    fn join(older: f64, newer: f64) -> f64 {
        older + newer
    }
}

/// Two sums that move together.
#[derive(Clone, Debug)]
pub struct Sum2;
impl Fold for Sum2 {
    type Item = (f64, f64);
    const NONE: (f64, f64) = (0.0, 0.0);
    #[inline]
    fn join(older: (f64, f64), newer: (f64, f64)) -> (f64, f64) {
        (older.0 + newer.0, older.1 + newer.1)
    }
}

/// The lowest and the highest: pushed as (low, high).
#[derive(Clone, Debug)]
pub struct Range;
impl Fold for Range {
    type Item = (f64, f64);
    const NONE: (f64, f64) = (f64::INFINITY, f64::NEG_INFINITY);
    #[inline]
    fn join(older: (f64, f64), newer: (f64, f64)) -> (f64, f64) {
        (older.0.min(newer.0), older.1.max(newer.1))
    }
}

/// The fold of the newest `n` items.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "", deserialize = ""))]
pub struct Rolling<F: Fold> {
    /// Below `at`: items of this block. From `at` on: folds of the block before from there to its end.
    slots: Vec<F::Item>,
    at: usize,
    head: F::Item,
    full: bool,
}

impl<F: Fold> Rolling<F> {
    /// `n` is at least 1.
    pub fn new(n: usize) -> Self {
        assert!(n > 0, "Invariant: a window holds something");
        Self { slots: vec![F::NONE; n], at: 0, head: F::NONE, full: false }
    }

    /// The fold of the newest `n` items with `item`; `None` while there are fewer.
    #[inline]
    pub fn push(&mut self, item: F::Item) -> Option<F::Item> {
        self.head = F::join(self.head, item);
        self.slots[self.at] = item;
        self.at += 1;
        if self.at < self.slots.len() {
            let whole = F::join(self.slots[self.at], self.head);
            return self.full.then_some(whole);
        }
        let whole = self.head;
        tails::<F>(&mut self.slots);
        (self.at, self.head, self.full) = (0, F::NONE, true);
        Some(whole)
    }
}

/// Puts in each item's place the fold from there to the end. It takes the slots alone, so that the rest of a window
/// may live in registers.
#[inline(never)]
fn tails<F: Fold>(slots: &mut [F::Item]) {
    for i in (1..slots.len()).rev() {
        slots[i - 1] = F::join(slots[i - 1], slots[i]);
    }
}

/// The mean of the newest `n` values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mean {
    sum: Rolling<Sum>,
    n: f64,
}

impl Mean {
    pub fn new(n: usize) -> Self {
        Self { sum: Rolling::new(n), n: n as f64 }
    }
    /// `NaN` while there are fewer than `n` values.
    #[inline]
    pub fn push(&mut self, x: f64) -> f64 {
        self.sum.push(x).map_or(f64::NAN, |sum| sum / self.n)
    }
}

/// The newest `n` values in order, for indicators that must look at each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tape<T = f64> {
    n: usize,
    values: VecDeque<T>,
}

impl<T> Tape<T> {
    pub fn new(n: usize) -> Self {
        Self { n, values: VecDeque::with_capacity(n + 1) }
    }
    /// The value that falls out: the one pushed `n` pushes ago.
    #[inline]
    pub fn push(&mut self, x: T) -> Option<T> {
        let gone = if self.values.len() == self.n { self.values.pop_front() } else { None };
        self.values.push_back(x);
        gone
    }
    pub fn is_full(&self) -> bool {
        self.values.len() == self.n
    }
    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.values.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rolling_fold_is_the_fold_of_the_newest_items(xs in prop::collection::vec(-1000i32..1000, 0..200), n in 1usize..40) {
            let xs: Vec<f64> = xs.into_iter().map(f64::from).collect();
            let (mut sum, mut range) = (Rolling::<Sum>::new(n), Rolling::<Range>::new(n));
            for (i, &x) in xs.iter().enumerate() {
                let (got, got_range) = (sum.push(x), range.push((x, x)));
                let window = (i + 1 >= n).then(|| &xs[i + 1 - n..=i]);
                prop_assert_eq!(got, window.map(|w| w.iter().sum()));
                let lowest = |w: &[f64]| w.iter().copied().fold(f64::INFINITY, f64::min);
                let highest = |w: &[f64]| w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                prop_assert_eq!(got_range, window.map(|w| (lowest(w), highest(w))));
            }
        }
    }

    #[test]
    fn a_huge_value_leaves_nothing_behind_once_it_is_out_of_the_window() {
        let mut sum = Rolling::<Sum>::new(3);
        sum.push(1e18);
        for _ in 0..3 {
            sum.push(0.0);
        }
        assert_eq!(sum.push(0.001), Some(0.001));
    }

    #[test]
    fn a_tape_gives_back_what_was_pushed_n_pushes_ago() {
        let mut tape = Tape::new(2);
        let gone: Vec<_> = (0..5).map(|i| tape.push(i as f64)).collect();
        assert_eq!(gone, [None, None, Some(0.0), Some(1.0), Some(2.0)]);
    }
}
