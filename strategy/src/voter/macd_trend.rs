//! With the histogram of MACD (12, 26, 9): long while it is above zero, short while below. A dead zone keeps the
//! last side; a higher timeframe, when one is configured, must agree, else flat.

use schemas::signal::Stance;
use serde::{Deserialize, Serialize};

use super::{Bar, Opinion, ParamRange, ParamSpec, Params, StrategyKind, Voter, keeps_state, number};

pub struct MacdTrend;

const HIST: usize = 0;

impl StrategyKind for MacdTrend {
    fn name(&self) -> &'static str {
        "macd_trend"
    }
    fn about(&self) -> &'static str {
        "long while the MACD histogram is above zero, short while below; a higher timeframe must agree, else flat"
    }
    fn params(&self) -> &'static [ParamSpec] {
        &[ParamSpec {
            key: "dead_zone_bps",
            about: "the histogram must leave zero by this much of the close, in 0.01 %, before the side changes",
            range: ParamRange::Number { min: 0.0, max: 1000.0, default: 0.0 },
        }]
    }
    fn outputs(&self) -> &'static [&'static str] {
        &["macd.hist"]
    }
    fn higher_outputs(&self) -> Option<&'static [&'static str]> {
        Some(&["macd.hist"])
    }
    fn start(&self, params: &Params) -> Box<dyn Voter> {
        Box::new(Trend { dead_zone_bps: params.number("dead_zone_bps"), state: State { side: None } })
    }
}

struct Trend {
    dead_zone_bps: f64,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// The side of the own timeframe, whatever the higher one says.
    side: Option<Stance>,
}

impl Voter for Trend {
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion> {
        let hist = bar.value(HIST)?;
        let zone = bar.close() * self.dead_zone_bps / 10_000.0;
        if zone < hist {
            self.state.side = Some(Stance::Long);
        } else if hist < -zone {
            self.state.side = Some(Stance::Short);
        }
        let side = self.state.side?;
        let words = if side == Stance::Long { "long" } else { "short" };
        let own = format!("MACD histogram {} stands for {words}, dead zone {}", number(hist), number(zone));
        if !bar.watches_higher() {
            return Some(Opinion::new(side, own));
        }
        let higher = bar.higher(HIST)?;
        let agrees = match side {
            Stance::Long => 0.0 < higher,
            Stance::Short => higher < 0.0,
            Stance::Flat => true,
        };
        let words = if agrees { "agrees" } else { "disagrees" };
        let side = if agrees { side } else { Stance::Flat };
        Some(Opinion::new(side, format!("{own}; the higher timeframe's {} {words}", number(higher))))
    }
    keeps_state!(state);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::check;
    use expect_test::expect;

    #[test]
    fn the_dead_zone_keeps_the_last_side() {
        let hist = [None, Some(0.5), Some(2.0), Some(-0.5), Some(-1.5), Some(0.9)];
        let bars: Vec<_> = hist.iter().map(|h| (10_000.0, std::slice::from_ref(h))).collect();
        check(
            "macd_trend",
            "dead_zone_bps = 1",
            &bars,
            expect![[r#"
            2 Long: MACD histogram 2 stands for long, dead zone 1
            4 Short: MACD histogram -1.5 stands for short, dead zone 1
        "#]],
        );
    }
}
