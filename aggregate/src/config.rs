//! What may be configured; `config.toml` is the manual.

use std::collections::BTreeMap;

use schemas::Timeframe;
use schemas::config::{ConfigError, UserFile};
use serde::Deserialize;

use crate::candle::{BarSpec, Plan};
use crate::indicator;

/// The manual and the defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// See `config.toml` for each key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub venues: Vec<String>,
    pub timeframes: Vec<Timeframe>,
    pub fill: Vec<Timeframe>,
    pub fill_run_max: u64,
    pub indicator_timeframes: Vec<Timeframe>,
    pub indicators: Vec<String>,
    pub preview_timeframes: Vec<Timeframe>,
    pub grace_ms: u32,
    pub symbols_max: usize,
    pub gaps_max: usize,
    pub venue: BTreeMap<String, VenueConfig>,
    #[serde(default)]
    pub bars: Vec<BarConfig>,
}

/// One venue's own values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueConfig {
    pub grace_ms: u32,
}

/// Bars of some instruments of one venue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BarConfig {
    pub bar: BarSpec,
    pub venue: String,
    /// Empty: all.
    #[serde(default)]
    pub symbols: Vec<String>,
}

impl Config {
    /// The defaults with the user's `[aggregate]` laid over them, checked.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("aggregate", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// Error: the key and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.plan()?;
        for (key, some) in [
            ("aggregate.indicator_timeframes", &self.indicator_timeframes),
            ("aggregate.preview_timeframes", &self.preview_timeframes),
        ] {
            if let Some(tf) = some.iter().find(|tf| !self.timeframes.contains(tf)) {
                return Err(ConfigError::value(key, format_args!("{tf} is not among the timeframes")));
            }
        }
        indicator::set::check(&self.indicators).map_err(|e| ConfigError::value("aggregate.indicators", e.why))?;
        if self.symbols_max == 0 {
            return Err(ConfigError::value("aggregate.symbols_max", "must be at least 1"));
        }
        if self.gaps_max == 0 {
            return Err(ConfigError::value("aggregate.gaps_max", "must be at least 1"));
        }
        Ok(())
    }

    /// Error: the timeframes do not fit together.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        Plan::new(&self.timeframes, &self.fill, self.fill_run_max, self.gaps_max)
            .map_err(|why| ConfigError::value("aggregate.timeframes", why))
    }

    /// Event time that the watermark must be behind a close before the clock closes it.
    pub fn grace_ns(&self, venue: &str) -> i64 {
        let ms = self.venue.get(venue).map_or(self.grace_ms, |v| v.grace_ms);
        ms as i64 * schemas::Nanos::PER_MS
    }

    /// The bars of one instrument, in the order of the configuration.
    pub fn bars_of(&self, venue: &str, symbol: &str) -> Vec<BarSpec> {
        let wanted =
            |b: &&BarConfig| b.venue == venue && (b.symbols.is_empty() || b.symbols.iter().any(|s| s == symbol));
        let mut bars: Vec<BarSpec> = Vec::new();
        for b in self.bars.iter().filter(wanted) {
            if !bars.contains(&b.bar) {
                bars.push(b.bar);
            }
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserFile {
        UserFile { name: "tapeline.toml".into(), text: text.into() }
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.timeframes.len(), Timeframe::DEFAULT.len());
        assert_eq!(config.grace_ns("binance"), 500_000_000);
    }

    #[test]
    fn bars_and_graces_of_the_manual_can_be_written() {
        let text = "[aggregate.venue.deribit]\ngrace_ms = 1000\n\
            [[aggregate.bars]]\nbar = \"tick-100\"\nvenue = \"binance\"\nsymbols = [\"BTCUSDT\"]\n";
        let config = Config::load(Some(&user(text))).unwrap();
        assert_eq!(config.grace_ns("deribit"), 1_000_000_000);
        assert_eq!(config.bars_of("binance", "BTCUSDT").len(), 1);
        assert!(config.bars_of("binance", "ETHUSDT").is_empty() && config.bars_of("deribit", "BTCUSDT").is_empty());
    }

    #[test]
    fn what_does_not_fit_together_names_its_key() {
        for (text, key, part) in [
            ("timeframes = [\"2m\", \"3m\"]", "aggregate.timeframes", "not a multiple of 2m"),
            ("preview_timeframes = [\"2m\"]", "aggregate.preview_timeframes", "2m is not among"),
            ("fill = [\"2m\"]", "aggregate.timeframes", "2m is to be filled"),
            ("indicators = [\"ema.none\"]", "aggregate.indicators", "`ema.none`"),
            ("symbols_max = 0", "aggregate.symbols_max", "at least 1"),
        ] {
            let e = Config::load(Some(&user(&format!("[aggregate]\n{text}\n")))).unwrap_err();
            assert_eq!(e.key, key, "{text}");
            assert!(e.why.contains(part), "{text}: {}", e.why);
        }
    }

    #[test]
    fn a_misspelt_bar_names_what_is_allowed() {
        let e = Config::load(Some(&user("[[aggregate.bars]]\nbar = \"ticks-5\"\nvenue = \"binance\"\n"))).unwrap_err();
        assert!(e.key.starts_with("aggregate.bars") && e.why.contains("tick-100"), "{}: {}", e.key, e.why);
    }
}
