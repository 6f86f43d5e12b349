//! With the direction of SuperTrend (10, 3): long while it is up, short while it is down.

use schemas::signal::Stance;
use serde::{Deserialize, Serialize};

use super::{Bar, Opinion, ParamRange, ParamSpec, Params, StrategyKind, Voter, keeps_state, number};

pub struct Supertrend;

const DIRECTION: usize = 0;
const LINE: usize = 1;

impl StrategyKind for Supertrend {
    fn name(&self) -> &'static str {
        "supertrend"
    }
    fn about(&self) -> &'static str {
        "long while SuperTrend points up, short while it points down"
    }
    fn params(&self) -> &'static [ParamSpec] {
        &[
            ParamSpec {
                key: "confirm_bars",
                about: "closes in a row that must show a direction before it counts",
                range: ParamRange::Count { min: 1, max: 100, default: 1 },
            },
            ParamSpec {
                key: "wait_for_turn",
                about: "no opinion before the direction has turned once",
                range: ParamRange::Flag { default: false },
            },
        ]
    }
    fn outputs(&self) -> &'static [&'static str] {
        &["supertrend.direction", "supertrend.supertrend"]
    }
    fn start(&self, params: &Params) -> Box<dyn Voter> {
        let state = State { up: None, bars: 0, turned: false, side: None };
        let (confirm_bars, wait_for_turn) = (params.count("confirm_bars"), params.flag("wait_for_turn"));
        Box::new(Trend { confirm_bars, wait_for_turn, state })
    }
}

struct Trend {
    confirm_bars: u32,
    wait_for_turn: bool,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    up: Option<bool>,
    /// Closes in a row with this direction; not counted beyond what is asked for.
    bars: u32,
    turned: bool,
    side: Option<Stance>,
}

impl Voter for Trend {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let (direction, line) = (bar.value(DIRECTION)?, bar.value(LINE)?);
        let up = 0.0 < direction;
        let state = &mut self.state;
        if state.up == Some(up) {
            state.bars = self.confirm_bars.min(state.bars + 1);
        } else {
            state.turned |= state.up.is_some();
            (state.up, state.bars) = (Some(up), 1);
        }
        if state.bars == self.confirm_bars && (state.turned || !self.wait_for_turn) {
            state.side = Some(if up { Stance::Long } else { Stance::Short });
        }
        let words = if up { "up" } else { "down" };
        let reason = format!("SuperTrend points {words} from {}, close {}", number(line), number(bar.close()));
        Some(Opinion::new(state.side?, reason))
    }
    keeps_state!(state);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;
    use expect_test::expect;

    #[test]
    fn a_direction_counts_once_it_is_confirmed_and_has_turned() {
        let up = [Some(1.0), Some(99.0)];
        let down = [Some(-1.0), Some(101.0)];
        let bars: Vec<_> = [&up, &up, &down, &up, &up, &down, &down].map(|o| (100.0, &o[..])).to_vec();
        check(
            "supertrend",
            "",
            &bars,
            expect![[r#"
            0 Long: SuperTrend points up from 99, close 100
            2 Short: SuperTrend points down from 101, close 100
            3 Long: SuperTrend points up from 99, close 100
            5 Short: SuperTrend points down from 101, close 100
        "#]],
        );
        check(
            "supertrend",
            "confirm_bars = 2\nwait_for_turn = true",
            &bars,
            expect![[r#"
            4 Long: SuperTrend points up from 99, close 100
            6 Short: SuperTrend points down from 101, close 100
        "#]],
        );
    }
}
