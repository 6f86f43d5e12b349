//! What is spent of a venue's allowance, within a window that slides. Pure.
//!
//! Invariant Q-1: whatever the times of asking, the weight that is granted within any stretch as long as the window is at
//! most the allowance.

use serde::{Deserialize, Serialize};

/// An allowance: so much weight within a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub weight: u32,
    pub window_ms: u64,
}

impl Allowance {
    /// So much of it in the same window, and at least 1.
    pub fn part(self, percent: u32) -> Self {
        let weight = (u64::from(self.weight) * u64::from(percent) / 100).max(1);
        Self { weight: u32::try_from(weight).unwrap_or(u32::MAX), ..self }
    }
}

/// Parts that a window is counted in; what is spent in a part counts until the whole part is older than the window.
const SLOTS: i64 = 60;

/// What was spent of one bucket; the same for everybody who shares it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Part of the window that the last of `used` is about, counted from 1970.
    newest: i64,
    /// Weight by part, oldest first.
    used: Vec<u32>,
    /// The venue asked for quiet until then.
    quiet_until_ms: i64,
}

impl Spent {
    fn slot_ms(allowance: Allowance) -> i64 {
        (allowance.window_ms as i64 / SLOTS).max(1)
    }

    /// Parts that still count at `now_ms`. A clock that stepped back (another machine's) counts as standing still.
    fn roll(&mut self, allowance: Allowance, now_ms: i64) -> i64 {
        let now = (now_ms / Self::slot_ms(allowance)).max(self.newest);
        let passed = usize::try_from(now - self.newest).unwrap_or(usize::MAX);
        self.used.extend(std::iter::repeat_n(0, passed.min(SLOTS as usize + 1)));
        let kept = SLOTS as usize + 1;
        self.used.drain(..self.used.len().saturating_sub(kept));
        self.newest = now;
        if self.used.is_empty() {
            self.used.push(0);
        }
        now
    }

    /// Spends `weight` at `now_ms`, or says after how many milliseconds to ask again. What costs more than the allowance
    /// costs all of it.
    pub fn take(&mut self, allowance: Allowance, now_ms: i64, weight: u32) -> Result<(), u64> {
        let now = self.roll(allowance, now_ms);
        if self.quiet_until_ms > now_ms {
            return Err((self.quiet_until_ms - now_ms) as u64);
        }
        let weight = weight.min(allowance.weight);
        let mut sum: u64 = self.used.iter().map(|w| u64::from(*w)).sum();
        if sum + u64::from(weight) <= u64::from(allowance.weight) {
            if let Some(last) = self.used.last_mut() {
                *last += weight;
            }
            return Ok(());
        }
        // When enough of the oldest parts no longer count.
        let oldest = now - (self.used.len() as i64 - 1);
        let mut free_at = now + SLOTS + 1;
        for (n, used) in self.used.iter().enumerate() {
            sum -= u64::from(*used);
            if sum + u64::from(weight) <= u64::from(allowance.weight) {
                free_at = oldest + n as i64 + SLOTS + 1;
                break;
            }
        }
        Err((free_at * Self::slot_ms(allowance) - now_ms).max(1) as u64)
    }

    /// The venue says that `used` of the window is spent: whatever we do not know of was somebody else's.
    pub fn told(&mut self, allowance: Allowance, now_ms: i64, used: u32) {
        self.roll(allowance, now_ms);
        let known: u64 = self.used.iter().map(|w| u64::from(*w)).sum();
        let missing = u64::from(used).saturating_sub(known);
        if let Some(last) = self.used.last_mut() {
            *last = last.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
        }
    }

    /// The venue asks for quiet until `until_ms`.
    pub fn quiet(&mut self, until_ms: i64) {
        self.quiet_until_ms = self.quiet_until_ms.max(until_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Allowance = Allowance { weight: 100, window_ms: 60_000 };

    #[test]
    fn what_is_spent_comes_back_when_the_window_has_passed() {
        let mut spent = Spent::default();
        assert_eq!(spent.take(MINUTE, 0, 60), Ok(()));
        assert_eq!(spent.take(MINUTE, 500, 40), Ok(()));
        assert_eq!(spent.take(MINUTE, 30_000, 1), Err(31_000));
        assert_eq!(spent.take(MINUTE, 61_000, 1), Ok(()));
    }

    #[test]
    fn quiet_holds_for_everybody_and_the_venues_count_is_believed() {
        let mut spent = Spent::default();
        spent.quiet(5_000);
        assert_eq!(spent.take(MINUTE, 1_000, 1), Err(4_000));
        spent.told(MINUTE, 5_000, 90);
        assert_eq!(spent.take(MINUTE, 5_000, 10), Ok(()));
        assert!(spent.take(MINUTE, 5_001, 1).is_err());
    }

    proptest! {
        #[test]
        fn no_stretch_as_long_as_the_window_grants_more_than_the_allowance(
            steps in prop::collection::vec((0i64..20_000, 1u32..70), 1..200),
        ) {
            let (mut spent, mut now, mut granted) = (Spent::default(), 0, Vec::new());
            for (step, weight) in steps {
                now += step;
                if spent.take(MINUTE, now, weight).is_ok() {
                    granted.push((now, weight));
                }
            }
            for (from, _) in &granted {
                let within = granted.iter().filter(|(at, _)| at >= from && *at < from + 60_000);
                prop_assert!(within.map(|(_, w)| *w).sum::<u32>() <= 100);
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_is_granted(
            before in prop::collection::vec((0i64..5_000, 1u32..70), 0..60), weight in 1u32..=100,
        ) {
            let (mut spent, mut now) = (Spent::default(), 0);
            for (step, weight) in before {
                now += step;
                let _ = spent.take(MINUTE, now, weight);
            }
            if let Err(wait) = spent.take(MINUTE, now, weight) {
                prop_assert_eq!(spent.take(MINUTE, now + wait as i64, weight), Ok(()));
            }
        }
    }
}
