//! The signal that asks is younger than a bound; a vote may count longer than it may ask.

use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub age_ms_max: u32,
}

pub struct StaleSignal;

impl Limit for StaleSignal {
    fn id(&self) -> &'static str {
        "stale_signal"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.stale_signal.on
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = i64::from(limits.stale_signal.age_ms_max);
        let Some(ts_ns) = asked.signal_ts_ns else { return Ok(()) };
        let age_ms = asked.now_ns.saturating_sub(ts_ns).max(0) / 1_000_000;
        if age_ms > bound {
            return Err(Broken::new(age_ms, bound, format!("the signal is {age_ms} ms old")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_signal_at_the_bound_passes_and_one_behind_it_is_refused() {
        check(&StaleSignal, "signal_age_ms=180000", "passes");
        check(&StaleSignal, "signal_age_ms=180001", "180001, allowed 180000");
    }

    #[test]
    fn a_signal_of_the_beginning_of_time_is_old_and_does_not_overflow() {
        check(&StaleSignal, "signal_ts_ns=-9223372036854775808", "9223372036854, allowed 180000");
    }
}
