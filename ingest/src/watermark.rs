//! The event time up to which a venue's data is complete.
//!
//! The venue's clock is not ours: its newest time stamp is carried on by the time that passed here since it was
//! read. What is older than that by more than the allowed lateness will not come any more, or comes late.

use schemas::Nanos;

/// Low watermark of one venue. Never falls.
#[derive(Clone, Debug)]
pub struct Watermark {
    lateness_ns: i64,
    /// Newest event time, and when it was read.
    newest: Option<(Nanos, Nanos)>,
    said: Nanos,
}

impl Watermark {
    /// `floor`: what was said before a restart.
    pub fn new(lateness_ms: i64, floor: Nanos) -> Self {
        Self { lateness_ns: lateness_ms * Nanos::PER_MS, newest: None, said: floor }
    }

    /// An event of venue time `ts` was read at `recv`.
    pub fn observe(&mut self, ts: Nanos, recv: Nanos) {
        if self.newest.is_none_or(|(newest, _)| ts > newest) {
            self.newest = Some((ts, recv));
        }
    }

    /// The watermark at local time `now`, which may lie before the newest event; `None` before the first one.
    pub fn at(&mut self, now: Nanos) -> Option<Nanos> {
        let (ts, recv) = self.newest?;
        let passed = now - recv;
        self.said = self.said.max(ts.plus_ns(passed - self.lateness_ns));
        Some(self.said)
    }

    /// What was said last, without going on; `None` before the first.
    pub fn said(&self) -> Option<Nanos> {
        (self.said.0 > i64::MIN).then_some(self.said)
    }

    /// The newest event time.
    pub fn newest(&self) -> Option<Nanos> {
        self.newest.map(|(ts, _)| ts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = Nanos::PER_MS;

    #[test]
    fn it_goes_on_by_our_own_time_when_the_venue_is_quiet_and_the_clocks_differ() {
        let mut w = Watermark::new(100, Nanos(0));
        assert_eq!(w.at(Nanos(5)), None);
        // The venue is an hour ahead.
        w.observe(Nanos(3_600_000 * MS), Nanos(1000 * MS));
        assert_eq!(w.at(Nanos(1000 * MS)), Some(Nanos(3_599_900 * MS)));
        assert_eq!(w.at(Nanos(1500 * MS)), Some(Nanos(3_600_400 * MS)));
    }

    #[test]
    fn it_never_falls() {
        let mut w = Watermark::new(0, Nanos(50 * MS));
        w.observe(Nanos(10 * MS), Nanos(10 * MS));
        assert_eq!(w.at(Nanos(10 * MS)), Some(Nanos(50 * MS)));
        w.observe(Nanos(90 * MS), Nanos(100 * MS));
        assert_eq!(w.at(Nanos(100 * MS)), Some(Nanos(90 * MS)));
        w.observe(Nanos(80 * MS), Nanos(300 * MS));
        assert_eq!(w.at(Nanos(20 * MS)), Some(Nanos(90 * MS)));
    }
}
