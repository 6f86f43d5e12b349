//! Two exponential averages of the close: long when the fast one crosses above the slow one, short when it
//! crosses below. Nothing before the first crossing.

use schemas::signal::Stance;
use serde::{Deserialize, Serialize};

use super::{Bar, Opinion, ParamError, ParamRange, ParamSpec, Params, StrategyKind, Voter, keeps_state, number};
use crate::kernel::Ema;

pub struct EmaCross;

impl StrategyKind for EmaCross {
    fn name(&self) -> &'static str {
        "ema_cross"
    }
    fn about(&self) -> &'static str {
        "long when the fast average of the close crosses above the slow one, short when it crosses below"
    }
    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                key: "fast",
                about: "period in bars",
                range: ParamRange::Count { min: 1, max: 1000, default: 9 },
            },
            ParamSpec {
                key: "slow",
                about: "period in bars, above `fast`",
                range: ParamRange::Count { min: 2, max: 2000, default: 21 },
            },
        ]
    }
    fn check(&self, params: &Params) -> Result<(), ParamError> {
        let (fast, slow) = (params.count("fast"), params.count("slow"));
        if slow <= fast {
            return Err(ParamError::new("slow", format!("{slow} is not above `fast`, which is {fast}")));
        }
        Ok(())
    }
    fn memory_bars(&self, params: &Params) -> u32 {
        // And the bar before, against which a crossing is seen.
        Ema::memory_bars(params.count("slow")) + 1
    }
    fn start(&self, params: &Params) -> Box<dyn Voter> {
        let (fast, slow) = (params.count("fast"), params.count("slow"));
        let state = State { fast: Ema::new(fast), slow: Ema::new(slow), gap: None, side: None };
        Box::new(Crossing { fast, slow, state })
    }
}

struct Crossing {
    fast: u32,
    slow: u32,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    fast: Ema,
    slow: Ema,
    /// Fast less slow at the previous bar.
    gap: Option<f64>,
    side: Option<Stance>,
}

impl Voter for Crossing {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let (fast, slow) = (self.state.fast.push(bar.close()), self.state.slow.push(bar.close()));
        let (fast, slow) = (fast?, slow?);
        let gap = fast - slow;
        let before = self.state.gap.replace(gap)?;
        let crossed = if before <= 0.0 && 0.0 < gap {
            Some(Stance::Long)
        } else if 0.0 <= before && gap < 0.0 {
            Some(Stance::Short)
        } else {
            None
        };
        self.state.side = crossed.or(self.state.side);
        let side = self.state.side?;
        let reason = format!(
            "EMA{} {} {} EMA{} {}",
            self.fast,
            number(fast),
            match (crossed, side) {
                (Some(Stance::Long), _) => "crossed above",
                (Some(_), _) => "crossed below",
                (None, Stance::Long) => "has stayed above",
                (None, _) => "has stayed below",
            },
            self.slow,
            number(slow)
        );
        Some(Opinion::new(side, reason))
    }
    keeps_state!(state);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;
    use expect_test::expect;

    #[test]
    fn it_says_nothing_before_the_first_crossing_and_turns_at_each() {
        let closes = [10.0, 9.0, 8.0, 7.0, 9.0, 12.0, 13.0, 9.0, 5.0];
        check(
            "ema_cross",
            "fast = 2\nslow = 3",
            &closes.map(|c| (c, &[][..])),
            expect![[r#"
                5 Long: EMA2 10.8333333 crossed above EMA3 10.25
                7 Short: EMA2 10.0925926 crossed below EMA3 10.3125
            "#]],
        );
    }
}
