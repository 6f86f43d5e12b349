//! With the break of the Bollinger bands (20, 2): long when the close is above the upper band, short when it is
//! below the lower one, flat once the close is back at the middle.

use schemas::signal::Stance;
use serde::{Deserialize, Serialize};

use super::{Bar, Opinion, ParamRange, ParamSpec, Params, StrategyKind, Voter, keeps_state, number};

pub struct BollingerBreakout;

const UPPER: usize = 0;
const MIDDLE: usize = 1;
const LOWER: usize = 2;

impl StrategyKind for BollingerBreakout {
    fn name(&self) -> &'static str {
        "bollinger_breakout"
    }
    fn about(&self) -> &'static str {
        "long when the close breaks the upper band, short when it breaks the lower one, flat once it is back at the middle"
    }
    fn params(&self) -> &'static [ParamSpec] {
        &[ParamSpec {
            key: "width_percent_min",
            about: "bands narrower than this share of the middle, in %, break for nothing: no entry",
            range: ParamRange::Number { min: 0.0, max: 100.0, default: 0.0 },
        }]
    }
    fn outputs(&self) -> &'static [&'static str] {
        &["bbands.upper", "bbands.middle", "bbands.lower"]
    }
    fn start(&self, params: &Params) -> Box<dyn Voter> {
        Box::new(Breakout { width_percent_min: params.number("width_percent_min"), state: State { side: None } })
    }
}

struct Breakout {
    width_percent_min: f64,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// None before the first break.
    side: Option<Stance>,
}

impl Voter for Breakout {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let (upper, middle, lower) = (bar.value(UPPER)?, bar.value(MIDDLE)?, bar.value(LOWER)?);
        let close = bar.close();
        let wide = self.width_percent_min * middle <= 100.0 * (upper - lower);
        let (now, bound, words) = match self.state.side {
            // The other band is beyond the middle: a break through both turns at once.
            _ if wide && upper < close => (Stance::Long, upper, "is above the upper band"),
            _ if wide && close < lower => (Stance::Short, lower, "is below the lower band"),
            Some(Stance::Long) if close <= middle => (Stance::Flat, middle, "is back at the middle"),
            Some(Stance::Short) if middle <= close => (Stance::Flat, middle, "is back at the middle"),
            Some(Stance::Long) => (Stance::Long, middle, "is still above the middle"),
            Some(Stance::Short) => (Stance::Short, middle, "is still below the middle"),
            Some(Stance::Flat) => (Stance::Flat, middle, "has broken no band since it was back at the middle"),
            None => return None,
        };
        self.state.side = Some(now);
        Some(Opinion::new(now, format!("close {} {words} {}", number(close), number(bound))))
    }
    keeps_state!(state);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;
    use expect_test::expect;

    const BANDS: &[Option<f64>] = &[Some(102.0), Some(100.0), Some(98.0)];

    #[test]
    fn it_enters_outside_the_bands_and_leaves_at_the_middle() {
        let bars = [101.0, 103.0, 101.0, 100.0, 97.0, 99.0, 103.0].map(|c| (c, BANDS));
        check(
            "bollinger_breakout",
            "",
            &bars,
            expect![[r#"
            1 Long: close 103 is above the upper band 102
            3 Flat: close 100 is back at the middle 100
            4 Short: close 97 is below the lower band 98
            6 Long: close 103 is above the upper band 102
        "#]],
        );
    }

    #[test]
    fn narrow_bands_break_for_nothing() {
        check("bollinger_breakout", "width_percent_min = 4.1", &[(103.0, BANDS)], expect![[""]]);
        check(
            "bollinger_breakout",
            "width_percent_min = 4.0",
            &[(103.0, BANDS)],
            expect![[r#"
            0 Long: close 103 is above the upper band 102
        "#]],
        );
    }
}
