//! Mean and spread of a sliding window without drift.
//!
//! Sums are taken of distances to an anchor, the newest value when the block began (blocks as in `window`).
//! Where the window has moved so far from the anchor that digits would cancel, it is summed again around its
//! newest value, which is inside the window and so cannot cancel.

use serde::{Deserialize, Serialize};

/// Mean and spread of the newest `n` values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moments {
    /// The newest values, each at its place in the block.
    values: Vec<f64>,
    /// Sums of d and d*d over the block before, from the place to its end; one longer than the block.
    tail: Vec<(f64, f64)>,
    at: usize,
    anchor: f64,
    head: (f64, f64),
    full: bool,
    /// 1 / n.
    share: f64,
}

/// What a window's values are around.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub mean: f64,
    /// Sum of squared distances to the mean; not negative, exactly zero where all values are equal.
    pub squares: f64,
}

/// Digits that may cancel (four) before the window is summed again.
const CANCEL_MAX: f64 = 1e4;

impl Moments {
    /// `n` is at least 2.
    pub fn new(n: usize) -> Self {
        assert!(n > 1, "Invariant: a spread needs two values");
        Self {
            values: vec![0.0; n],
            tail: vec![(0.0, 0.0); n + 1],
            at: 0,
            anchor: 0.0,
            head: (0.0, 0.0),
            full: false,
            share: 1.0 / n as f64,
        }
    }

    /// `None` while there are fewer than `n` values.
    #[inline(always)]
    pub fn push(&mut self, x: f64) -> Option<Spread> {
        if !self.full || self.at + 1 == self.values.len() {
            return self.turn(x);
        }
        let (sum, squares) = self.take(x);
        Some(self.spread(sum, squares, self.anchor, x))
    }

    /// The sums of the window with `x`, which has a place in the block.
    #[inline(always)]
    fn take(&mut self, x: f64) -> (f64, f64) {
        let d = x - self.anchor;
        self.head = (self.head.0 + d, self.head.1 + d * d);
        self.values[self.at] = x;
        self.at += 1;
        let tail = self.tail[self.at];
        (tail.0 + self.head.0, tail.1 + self.head.1)
    }

    #[inline(always)]
    fn spread(&self, sum: f64, squares: f64, anchor: f64, newest: f64) -> Spread {
        let mean = sum * self.share;
        let around = squares - sum * mean;
        if around * CANCEL_MAX < squares {
            return again(&self.values, newest, self.share);
        }
        Spread { mean: anchor + mean, squares: around }
    }

    /// [`Moments::push`] where a block ends, and in the first one. Apart, so that what happens most is short.
    #[inline(never)]
    fn turn(&mut self, x: f64) -> Option<Spread> {
        let ((sum, squares), anchor) = (self.take(x), self.anchor);
        if self.at == self.values.len() {
            tails(&self.values, &mut self.tail, x);
            (self.at, self.anchor, self.head, self.full) = (0, x, (0.0, 0.0), true);
        }
        self.full.then(|| self.spread(sum, squares, anchor, x))
    }
}

/// Sums of d and d*d from each place to the end. It takes the arrays alone, so that the rest may live in registers.
#[inline(never)]
fn tails(values: &[f64], tail: &mut [(f64, f64)], anchor: f64) {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (value, tail) in values.iter().zip(tail).rev() {
        let d = value - anchor;
        (sum, squares) = (sum + d, squares + d * d);
        *tail = (sum, squares);
    }
}

#[cold]
#[inline(never)]
fn again(values: &[f64], newest: f64, share: f64) -> Spread {
    let (mut sum, mut squares) = (0.0, 0.0);
    for value in values {
        let d = value - newest;
        sum += d;
        squares += d * d;
    }
    let mean = sum * share;
    Spread { mean: newest + mean, squares: (squares - sum * mean).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two_passes(window: &[f64]) -> Spread {
        let first = window[0];
        let mean = window.iter().map(|x| x - first).sum::<f64>() / window.len() as f64;
        Spread { mean: first + mean, squares: window.iter().map(|x| (x - first - mean) * (x - first - mean)).sum() }
    }

    proptest! {
        #[test]
        fn the_spread_is_that_of_two_passes_even_behind_a_jump(
            steps in prop::collection::vec(prop_oneof![8 => -50i32..50, 1 => Just(0), 1 => -2_000_000i32..2_000_000], 2..300),
            n in 2usize..30,
        ) {
            let mut moments = Moments::new(n);
            let (mut price, mut all) = (42_000.0, Vec::new());
            for step in steps {
                price += f64::from(step) / 64.0;
                all.push(price);
                let got = moments.push(price);
                prop_assert_eq!(got.is_some(), all.len() >= n);
                if let Some(got) = got {
                    let want = two_passes(&all[all.len() - n..]);
                    // Prices of this walk reach some 1e5, whatever their mean.
                    prop_assert!((got.mean - want.mean).abs() <= 1e-9, "{got:?} {want:?}");
                    prop_assert!((got.squares - want.squares).abs() <= 1e-10 * want.squares, "{got:?} {want:?}");
                }
            }
        }
    }

    #[test]
    fn a_flat_window_has_exactly_no_spread() {
        let mut moments = Moments::new(20);
        let mut last = None;
        for i in 0..70 {
            last = moments.push(if i < 11 { 50_000.3 + i as f64 } else { 411.74 });
        }
        assert_eq!(last, Some(Spread { mean: 411.74, squares: 0.0 }));
    }
}
