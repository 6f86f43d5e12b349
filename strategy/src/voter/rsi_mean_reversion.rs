//! Against the extremes of the relative strength index: long when it falls below `low`, short when it rises
//! above `high`, flat again once it is back at `exit`.

use schemas::signal::Stance;
use serde::{Deserialize, Serialize};

use super::{Bar, Opinion, ParamError, ParamRange, ParamSpec, Params, StrategyKind, Voter, keeps_state, number};
use crate::kernel::Rsi;

pub struct RsiMeanReversion;

impl StrategyKind for RsiMeanReversion {
    fn name(&self) -> &'static str {
        "rsi_mean_reversion"
    }
    fn about(&self) -> &'static str {
        "long when RSI crosses below `low`, short when it crosses above `high`, flat once it is back at `exit`"
    }
    fn params(&self) -> &'static [ParamSpec] {
        const fn level(key: &'static str, default: f64) -> ParamSpec {
            ParamSpec { key, about: "RSI, 0..100", range: ParamRange::Number { min: 0.0, max: 100.0, default } }
        }
        const PARAMS: &[ParamSpec] = &[
            ParamSpec { key: "period", about: "bars", range: ParamRange::Count { min: 2, max: 1000, default: 14 } },
            level("low", 30.0),
            level("exit", 50.0),
            level("high", 70.0),
        ];
        PARAMS
    }
    fn check(&self, params: &Params) -> Result<(), ParamError> {
        let (low, exit, high) = (params.number("low"), params.number("exit"), params.number("high"));
        if !(low < exit && exit < high) {
            return Err(ParamError::new(
                "exit",
                format!("{low} < {exit} < {high} does not hold: `low` < `exit` < `high`"),
            ));
        }
        Ok(())
    }
    fn memory_bars(&self, params: &Params) -> u32 {
        Rsi::memory_bars(params.count("period"))
    }
    fn start(&self, params: &Params) -> Box<dyn Voter> {
        let period = params.count("period");
        let state = State { rsi: Rsi::new(period), before: None, side: None };
        let (low, exit, high) = (params.number("low"), params.number("exit"), params.number("high"));
        Box::new(Reversion { period, low, exit, high, state })
    }
}

struct Reversion {
    period: u32,
    low: f64,
    exit: f64,
    high: f64,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    rsi: Rsi,
    /// RSI at the previous bar.
    before: Option<f64>,
    /// None before the first entry.
    side: Option<Stance>,
}

impl Voter for Reversion {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let rsi = self.state.rsi.push(bar.close())?;
        let before = self.state.before.replace(rsi)?;
        let (now, bound, words) = match self.state.side {
            Some(Stance::Long) if self.exit <= rsi => (Stance::Flat, self.exit, "is back at"),
            Some(Stance::Short) if rsi <= self.exit => (Stance::Flat, self.exit, "is back at"),
            Some(Stance::Long) => (Stance::Long, self.exit, "is still below"),
            Some(Stance::Short) => (Stance::Short, self.exit, "is still above"),
            None | Some(Stance::Flat) if self.low <= before && rsi < self.low => {
                (Stance::Long, self.low, "crossed below")
            }
            None | Some(Stance::Flat) if before <= self.high && self.high < rsi => {
                (Stance::Short, self.high, "crossed above")
            }
            Some(Stance::Flat) => (Stance::Flat, self.exit, "has left no extreme since it was back at"),
            None => return None,
        };
        self.state.side = Some(now);
        Some(Opinion::new(now, format!("RSI{} {} {words} {}", self.period, number(rsi), number(bound))))
    }
    keeps_state!(state);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;
    use expect_test::expect;

    #[test]
    fn it_enters_at_an_extreme_and_leaves_at_the_middle() {
        let closes = [100.0, 101.0, 100.0, 99.0, 98.0, 99.5, 98.5, 103.0, 104.0, 101.0, 97.0, 96.0];
        check(
            "rsi_mean_reversion",
            "period = 2",
            &closes.map(|c| (c, &[][..])),
            expect![[r#"
                3 Long: RSI2 25 crossed below 30
                5 Flat: RSI2 65 is back at 50
                7 Short: RSI2 87.2222222 crossed above 70
                9 Flat: RSI2 35.1910828 is back at 50
                10 Long: RSI2 13.377724 crossed below 30
            "#]],
        );
    }
}
