//! Parabolic stop and reverse.

use serde::{Deserialize, Serialize};

use super::{Kernel, Ohlcv};

/// The stop of this bar: it runs after the extreme of the trend, faster with each new one, and turns over when a
/// bar TOUCHES it. First at bar 2, whose downward move alone makes the first trend a fall.
#[derive(Clone, Serialize, Deserialize)]
pub struct Psar {
    step: f64,
    step_max: f64,
    before: Option<(f64, f64)>,
    trend: Option<Trend>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Trend {
    long: bool,
    /// The stop of the next bar.
    stop: f64,
    extreme: f64,
    speed: f64,
}

impl Psar {
    pub fn new(step: f64, step_max: f64) -> Self {
        Self { step, step_max, before: None, trend: None }
    }
}
impl Kernel<1> for Psar {
    fn update(&mut self, bar: &Ohlcv) -> [f64; 1] {
        let Some((high, low)) = self.before.replace((bar.high, bar.low)) else {
            return [f64::NAN];
        };
        // The second bar stands as its own predecessor: the first stop is not pulled back to the first bar.
        let (trend, (high, low)) = match &mut self.trend {
            Some(trend) => (trend, (high, low)),
            none => {
                let (up, down) = (bar.high - high, low - bar.low);
                let long = !(down > 0.0 && up < down);
                let (stop, extreme) = if long { (low, bar.high) } else { (high, bar.low) };
                let trend = none.insert(Trend { long, stop, extreme, speed: self.step });
                (trend, (bar.high, bar.low))
            }
        };
        // A stop is never inside this bar or the one before it.
        let outside =
            |stop: f64, long: bool| if long { stop.min(low).min(bar.low) } else { stop.max(high).max(bar.high) };

        let touched = if trend.long { bar.low <= trend.stop } else { bar.high >= trend.stop };
        let stop = if touched {
            let stop = outside(trend.extreme, !trend.long);
            let extreme = if trend.long { bar.low } else { bar.high };
            *trend = Trend { long: !trend.long, stop, extreme, speed: self.step };
            stop
        } else {
            let further = if trend.long { bar.high > trend.extreme } else { bar.low < trend.extreme };
            if further {
                trend.extreme = if trend.long { bar.high } else { bar.low };
                trend.speed = (trend.speed + self.step).min(self.step_max);
            }
            trend.stop
        };
        trend.stop = outside(trend.stop + trend.speed * (trend.extreme - trend.stop), trend.long);
        [stop]
    }
}
