//! What a rule strategy is. One file a strategy and one line in [`STRATEGIES`].

mod params;

mod bollinger_breakout;
mod ema_cross;
mod macd_trend;
mod rsi_mean_reversion;
mod supertrend;

use schemas::WireError;
use schemas::market::Candle;
use schemas::signal::Stance;

pub use params::{ParamError, ParamRange, ParamSpec, Params};

/// Every strategy that a configuration can name as `kind`.
pub const STRATEGIES: &[&dyn StrategyKind] = &[
    &bollinger_breakout::BollingerBreakout,
    &ema_cross::EmaCross,
    &macd_trend::MacdTrend,
    &rsi_mean_reversion::RsiMeanReversion,
    &supertrend::Supertrend,
];

/// The kind with this name.
pub fn find(name: &str) -> Option<&'static dyn StrategyKind> {
    STRATEGIES.iter().copied().find(|kind| kind.name() == name)
}

/// A way to form an opinion: its name, its parameters, what it looks at, and how to start one for one instrument.
pub trait StrategyKind: Sync {
    /// The name that a configuration writes as `kind`.
    fn name(&self) -> &'static str;

    /// One sentence for people.
    fn about(&self) -> &'static str;

    /// Every parameter with its range and default; whatever is not listed is refused.
    fn params(&self) -> &'static [ParamSpec];

    /// Rules between parameters, each of which is in its own range already.
    fn check(&self, _params: &Params) -> Result<(), ParamError> {
        Ok(())
    }

    /// Indicator outputs of its timeframe that it needs, by the names in `Indicators::values`. Empty: it runs on
    /// candles alone. Otherwise it runs once the candle and its indicators are both heard.
    fn outputs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Outputs that it can read of a higher timeframe; `None`: it looks at one timeframe only.
    fn higher_outputs(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Closed bars, the newest included, that the kind's own averages look back on; a bar among them that was not seen
    /// whole is told in the signal. What its declared outputs look back on is told by those.
    fn memory_bars(&self, _params: &Params) -> u32 {
        1
    }

    /// One instance for one instrument.
    fn start(&self, params: &Params) -> Box<dyn Voter>;
}

/// A strategy at work on one instrument. It keeps what it needs between bars and nothing else.
pub trait Voter: Send {
    /// Folds the next closed bar; gives the opinion that now stands, or none yet. It hears every bar, also those
    /// whose opinion is not said (incomplete or stale ones), so that its averages stay right.
    fn on_bar(&mut self, bar: &Bar<'_>) -> Option<Opinion>;
    fn save(&self) -> Vec<u8>;
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError>;
}

/// The side that a strategy is for, and why, with the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    pub side: Stance,
    pub reason: String,
}

impl Opinion {
    pub fn new(side: Stance, reason: String) -> Self {
        Self { side, reason }
    }
}

/// All that a strategy sees at a bar's close: the closed candle, the outputs that its kind declared, and the same
/// of the newest closed bar of its higher timeframe. There is no account in it, and no way to one.
pub struct Bar<'a> {
    candle: &'a Candle,
    outputs: &'a [Option<f64>],
    higher: &'a [Option<f64>],
    watches_higher: bool,
}

impl<'a> Bar<'a> {
    /// `outputs` and `higher` in the order that the kind declared; `higher` is empty until a bar of it closed.
    pub fn new(
        candle: &'a Candle,
        outputs: &'a [Option<f64>],
        higher: &'a [Option<f64>],
        watches_higher: bool,
    ) -> Self {
        Self { candle, outputs, higher, watches_higher }
    }
    pub fn candle(&self) -> &'a Candle {
        self.candle
    }
    /// The close as a float: strategies compute statistics, never money.
    pub fn close(&self) -> f64 {
        self.candle.close.to_f64()
    }
    /// The `i`-th declared output; `None` while it is not warmed up.
    pub fn value(&self, i: usize) -> Option<f64> {
        self.outputs.get(i).copied().flatten()
    }
    /// The instance was configured with a `higher_timeframe`.
    pub fn watches_higher(&self) -> bool {
        self.watches_higher
    }
    /// The `i`-th declared output of the higher timeframe's newest closed bar.
    pub fn higher(&self, i: usize) -> Option<f64> {
        self.higher.get(i).copied().flatten()
    }
}

/// Saves and restores a voter that is one serde value; the configuration is not part of it.
macro_rules! keeps_state {
    ($field:ident) => {
        fn save(&self) -> Vec<u8> {
            schemas::wire::encode(&self.$field)
        }
        fn restore(&mut self, state: &[u8]) -> Result<(), schemas::WireError> {
            self.$field = schemas::wire::decode(state)?;
            Ok(())
        }
    };
}
use keeps_state;

/// Nine digits: enough to check a reason by hand.
fn number(x: f64) -> String {
    crate::text::significant(x, 9)
}

#[cfg(test)]
pub(crate) mod fixture {
    use schemas::market::{Candle, ClosedBy};
    use schemas::{Cause, Notional, Price, Qty, Version};

    pub const MINUTE: i64 = 60_000_000_000;

    /// The `i`-th minute of 1970 of `BTCUSDT`, flat at `close`.
    pub fn candle(i: i64, close: &str) -> Candle {
        let price: Price = close.parse().unwrap();
        Candle {
            v: Version,
            venue: "binance".into(),
            symbol: "BTCUSDT".into(),
            p: 3,
            tf: "1m".into(),
            open_ns: i * MINUTE,
            close_ns: (i + 1) * MINUTE,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Qty::ZERO,
            buy_volume: Qty::ZERO,
            quote_volume: Notional::ZERO,
            trades: 1,
            buy_trades: 0,
            first_id: None,
            last_id: None,
            closed_by: ClosedBy::Trade,
            complete: true,
            filled: false,
            cause: Cause::default(),
        }
    }

    /// Runs one voter of `kind` over closes (and the outputs beside them); a line for each change of opinion.
    pub fn check(kind: &str, params: &str, bars: &[(f64, &[Option<f64>])], expected: expect_test::Expect) {
        let kind = super::find(kind).expect("kind");
        let params = super::Params::read(kind.params(), &params.parse().expect("toml")).expect("params");
        kind.check(&params).expect("rules between parameters");
        let mut voter = kind.start(&params);
        let mut said = None;
        let mut lines = String::new();
        for (i, (close, outputs)) in bars.iter().enumerate() {
            let candle = candle(i as i64, &close.to_string());
            let state = voter.save();
            voter = kind.start(&params);
            voter.restore(&state).expect("its own state");
            let opinion = voter.on_bar(&super::Bar::new(&candle, outputs, &[], false));
            let side = opinion.as_ref().map(|o| o.side);
            if side != said {
                let text = opinion.map_or("no opinion".to_owned(), |o| format!("{:?}: {}", o.side, o.reason));
                lines += &format!("{i} {text}\n");
                said = side;
            }
        }
        expected.assert_eq(&lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_in_the_table_once_in_order_and_starts_with_its_defaults() {
        let names: Vec<_> = STRATEGIES.iter().map(|k| k.name()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        for kind in STRATEGIES {
            let params = Params::read(kind.params(), &toml::Table::new()).unwrap();
            kind.check(&params).unwrap();
            let mut voter = kind.start(&params);
            let state = voter.save();
            voter.restore(&state).unwrap();
            assert!(voter.restore(b"\xc1").is_err(), "{} takes any bytes as its state", kind.name());
            assert!(!kind.about().is_empty());
        }
    }
}
