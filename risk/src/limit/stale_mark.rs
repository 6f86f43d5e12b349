//! The mark is younger than a bound: what is measured with an old price means nothing.

use serde::Deserialize;

use super::{Asked, Broken, Limit, Limits};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub on: bool,
    pub age_ms_max: u32,
}

pub struct StaleMark;

impl Limit for StaleMark {
    fn id(&self) -> &'static str {
        "stale_mark"
    }
    fn on(&self, limits: &Limits) -> bool {
        limits.stale_mark.on
    }
    fn check(&self, asked: &Asked, limits: &Limits) -> Result<(), Broken> {
        let bound = i64::from(limits.stale_mark.age_ms_max);
        let Some(mark) = asked.mark else {
            return Err(Broken::new("none", bound, "no mark was heard"));
        };
        // Whole milliseconds, rounded up, so that the number shown is above the bound.
        let age_ms = (mark.age_ns as u64).div_ceil(1_000_000) as i64;
        if age_ms > bound {
            return Err(Broken::new(age_ms, bound, format!("the mark is {age_ms} ms old")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_mark_at_the_bound_passes_and_one_behind_it_is_refused() {
        check(&StaleMark, "mark_age_ms=10000", "passes");
        check(&StaleMark, "mark_age_ms=10001", "10001, allowed 10000");
    }

    #[test]
    fn without_any_mark_nothing_is_opened() {
        check(&StaleMark, "no_mark", "none, allowed 10000");
    }
}
