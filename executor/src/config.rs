//! The manual and defaults are in `config.toml`.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::config::{ConfigError, UserFile};
use schemas::exec::Liquidity;
use schemas::{Fraction, Nanos, Price, Timeframe};
use serde::Deserialize;

use crate::fill::{MODELS, model};

/// The manual and the defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// What the user may set; units are in the names.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub mode: String,
    pub accounts: Vec<String>,
    pub orders_open_max: usize,
    pub ended_ids_max: usize,
    pub instruments_max: usize,
    pub fill: FillConfig,
    pub fees: Fees,
    pub funding: FundingConfig,
    pub liquidation: LiquidationConfig,
    pub live: LiveConfig,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillConfig {
    pub model: String,
    pub latency_ns: i64,
    /// Read as a price for its exact text; a ratio in basis points.
    pub slippage_bps: Price,
    pub partial_by_trade_size: bool,
    pub queue: Queue,
    pub trigger: Trigger,
    pub candle_timeframe: Timeframe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    Shown,
    Front,
    Through,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Trade,
    Mark,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fees {
    pub maker_bps: Price,
    pub taker_bps: Price,
    pub venues: BTreeMap<String, VenueFees>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueFees {
    pub maker_bps: Price,
    pub taker_bps: Price,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FundingConfig {
    pub interval_seconds: i64,
}

/// Isolated margin. Shares are of the notional: 0.1 is ten times leverage.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiquidationConfig {
    pub on: bool,
    pub initial_share: Fraction,
    pub maintenance_share: Fraction,
    pub fee_bps: Price,
}

/// Live venues; only `mode = "live"` looks at it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveConfig {
    pub consent_to_real_orders: bool,
    pub fresh_ms: u32,
    pub attempts_max: u32,
    pub recv_window_ms: u32,
    pub settle_ms: u32,
    pub poll_ms: u32,
    pub request_timeout_ms: u32,
    pub backoff_ms_min: u32,
    pub backoff_ms_max: u32,
    pub clock_ms_max: u64,
    /// By venue id.
    pub venues: BTreeMap<String, LiveVenueConfig>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveVenueConfig {
    /// Empty: the venue's real one.
    pub base_url: String,
}

impl LiveVenueConfig {
    /// Unencrypted, and therefore on this machine.
    pub fn plain_http(&self) -> bool {
        self.base_url.starts_with("http://")
    }
    fn check(&self) -> Result<(), String> {
        let url = &self.base_url;
        let host = url.strip_prefix("http://").unwrap_or("");
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let here = ["127.0.0.1", "localhost", "[::1]"].contains(&name);
        if url.is_empty() || here || (url.starts_with("https://") && !url.ends_with('/')) {
            return Ok(());
        }
        Err(format!("`{url}`; allowed are https://..., http:// on this machine, and nothing for the venue's own"))
    }
}

impl Config {
    /// Orders go to real venues.
    pub fn is_live(&self) -> bool {
        self.mode == "live"
    }

    /// The defaults with the user's `[executor]` table laid over them.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("executor", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// Values that read well but mean nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: String| Err(ConfigError::value(&format!("executor.{key}"), why));
        if !["paper", "sim", "live"].contains(&self.mode.as_str()) {
            return wrong("mode", format!("`{}`; allowed are paper, sim, live", self.mode));
        }
        self.check_live()?;
        if self.accounts.is_empty() {
            return wrong("accounts", "no account; at least one name".into());
        }
        if let Some(account) = self.accounts.iter().find(|a| a.is_empty() || schemas::subject::escape(a) != **a) {
            return wrong("accounts", format!("`{account}`; allowed are letters, digits, _ and -"));
        }
        if model(&self.fill.model).is_none() {
            let names: Vec<_> = MODELS.iter().map(|m| m.id()).collect();
            return wrong("fill.model", format!("`{}`; allowed are {}", self.fill.model, names.join(", ")));
        }
        if !(0..=60 * Nanos::PER_SECOND).contains(&self.fill.latency_ns) {
            return wrong("fill.latency_ns", format!("{}; allowed are 0 to 60000000000", self.fill.latency_ns));
        }
        let bps = |key: &str, value: Price, low: i64| {
            if value.get() < low.into() || value.get() > 1_000.into() {
                return wrong(key, format!("{value}; allowed are {low} to 1000"));
            }
            Ok(())
        };
        bps("fill.slippage_bps", self.fill.slippage_bps, 0)?;
        bps("fees.maker_bps", self.fees.maker_bps, -1_000)?;
        bps("fees.taker_bps", self.fees.taker_bps, -1_000)?;
        for (venue, fees) in &self.fees.venues {
            bps(&format!("fees.venues.{venue}.maker_bps"), fees.maker_bps, -1_000)?;
            bps(&format!("fees.venues.{venue}.taker_bps"), fees.taker_bps, -1_000)?;
        }
        for (key, value) in [
            ("orders_open_max", self.orders_open_max),
            ("ended_ids_max", self.ended_ids_max),
            ("instruments_max", self.instruments_max),
        ] {
            if value == 0 {
                return wrong(key, "0; at least 1".into());
            }
        }
        if self.funding.interval_seconds <= 0 {
            return wrong("funding.interval_seconds", format!("{}; at least 1", self.funding.interval_seconds));
        }
        let LiquidationConfig { initial_share, maintenance_share, fee_bps, .. } = &self.liquidation;
        if maintenance_share.get().is_zero() || maintenance_share >= initial_share {
            let allowed =
                format!("{maintenance_share}; allowed is above 0 and below initial_share, which is {initial_share}");
            return wrong("liquidation.maintenance_share", allowed);
        }
        bps("liquidation.fee_bps", *fee_bps, 0)?;
        Ok(())
    }

    fn check_live(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: String| Err(ConfigError::value(&format!("executor.live.{key}"), why));
        let live = &self.live;
        if self.is_live() && !live.consent_to_real_orders {
            let why = "false; allowed is true with mode = \"live\", which sends real orders with real money";
            return wrong("consent_to_real_orders", why.into());
        }
        for (key, value, low, high) in [
            ("fresh_ms", live.fresh_ms, 1, 600_000),
            ("attempts_max", live.attempts_max, 1, 100),
            ("recv_window_ms", live.recv_window_ms, 50, 60_000),
            ("settle_ms", live.settle_ms, 50, 60_000),
            ("poll_ms", live.poll_ms, 10, 600_000),
            ("request_timeout_ms", live.request_timeout_ms, 50, 60_000),
            ("backoff_ms_min", live.backoff_ms_min, 10, 60_000),
            ("backoff_ms_max", live.backoff_ms_max, live.backoff_ms_min, 600_000),
        ] {
            if !(low..=high).contains(&value) {
                return wrong(key, format!("{value}; allowed are {low} to {high}"));
            }
        }
        if !(1_000..=3_600_000).contains(&live.clock_ms_max) {
            return wrong("clock_ms_max", format!("{}; allowed are 1000 to 3600000", live.clock_ms_max));
        }
        if self.is_live() && self.accounts.len() > 1 {
            let why =
                format!("{}; allowed with mode = \"live\" is one: the keys are of one account", self.accounts.len());
            return Err(ConfigError::value("executor.accounts", why));
        }
        if self.is_live() && live.venues.is_empty() {
            return wrong("venues", "no venue; at least one".into());
        }
        for (id, venue) in &live.venues {
            if crate::live::protocol(id).is_none() {
                let known: Vec<_> = crate::live::PROTOCOLS.iter().map(|protocol| protocol.id()).collect();
                return wrong(&format!("venues.{id}"), format!("no live venue; allowed are {}", known.join(", ")));
            }
            venue.check().or_else(|why| wrong(&format!("venues.{id}.base_url"), why))?;
        }
        Ok(())
    }

    /// What the fill engine needs, in its own units.
    pub fn rules(&self) -> Rules {
        Rules {
            latency_ns: self.fill.latency_ns,
            slippage: ratio(self.fill.slippage_bps),
            partial_by_trade_size: self.fill.partial_by_trade_size,
            queue: self.fill.queue,
            queue_front: self.fill.queue == Queue::Front,
            trigger_on_mark: self.fill.trigger == Trigger::Mark,
            funding_interval_ns: self.funding.interval_seconds * Nanos::PER_SECOND,
            fees: self.fees.clone(),
            margin: self.liquidation.on.then(|| Margin {
                initial: self.liquidation.initial_share.get(),
                maintenance: self.liquidation.maintenance_share.get(),
                fee: ratio(self.liquidation.fee_bps),
            }),
            instruments_max: self.instruments_max,
        }
    }
}

/// The fill engine's rules; ratios are plain (5 bps is 0.0005).
#[derive(Clone, PartialEq, Debug)]
pub struct Rules {
    pub latency_ns: i64,
    pub slippage: Decimal,
    pub partial_by_trade_size: bool,
    pub queue: Queue,
    pub queue_front: bool,
    pub trigger_on_mark: bool,
    pub funding_interval_ns: i64,
    pub fees: Fees,
    /// Absent: positions are never liquidated.
    pub margin: Option<Margin>,
    pub instruments_max: usize,
}

/// Margin of isolated positions, as shares of the notional.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Margin {
    pub initial: Decimal,
    pub maintenance: Decimal,
    /// Of a liquidation; positive is a cost.
    pub fee: Decimal,
}

impl Rules {
    /// Share of the notional; positive is a cost.
    pub fn fee(&self, venue: &str, liquidity: Liquidity) -> Decimal {
        let (maker, taker) = match self.fees.venues.get(venue) {
            Some(own) => (own.maker_bps, own.taker_bps),
            None => (self.fees.maker_bps, self.fees.taker_bps),
        };
        ratio(match liquidity {
            Liquidity::Maker => maker,
            Liquidity::Taker => taker,
        })
    }
}

/// Basis points as a plain ratio.
fn ratio(bps: Price) -> Decimal {
    (bps.get() * Decimal::new(1, 4)).normalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserFile {
        UserFile { name: "tapeline.toml".into(), text: text.into() }
    }

    #[test]
    fn the_default_configuration_loads_and_means_something() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.rules().fee("binance", Liquidity::Taker), Decimal::new(1, 3));
        assert_eq!(config.rules().fee("elsewhere", Liquidity::Maker), Decimal::new(2, 4));
    }

    #[test]
    fn values_that_mean_nothing_name_their_key_and_what_is_allowed() {
        for (text, key) in [
            ("[executor]\nmode = \"real\"\n", "executor.mode"),
            ("[executor]\nmode = \"live\"\n", "executor.live.consent_to_real_orders"),
            (
                "[executor]\nmode = \"live\"\naccounts = [\"a\", \"b\"]\n[executor.live]\nconsent_to_real_orders = true\n",
                "executor.accounts",
            ),
            ("[executor.live]\nrecv_window_ms = 90000\n", "executor.live.recv_window_ms"),
            ("[executor.live.venues.nowhere]\nbase_url = \"\"\n", "executor.live.venues.nowhere"),
            (
                "[executor.live.venues.binance-usdm]\nbase_url = \"http://127.0.0.1:1@example.com\"\n",
                "executor.live.venues.binance-usdm.base_url",
            ),
            ("[executor]\naccounts = [\"a.b\"]\n", "executor.accounts"),
            ("[executor]\naccounts = []\n", "executor.accounts"),
            ("[executor.fill]\nmodel = \"oracle\"\n", "executor.fill.model"),
            ("[executor.fill]\nlatency_ns = -1\n", "executor.fill.latency_ns"),
            ("[executor.fill]\nslippage_bps = \"-1\"\n", "executor.fill.slippage_bps"),
            ("[executor.fees.venues.x]\nmaker_bps = \"0\"\ntaker_bps = \"2000\"\n", "executor.fees.venues.x.taker_bps"),
            ("[executor]\nended_ids_max = 0\n", "executor.ended_ids_max"),
            ("[executor.fill]\nqueue = \"luck\"\n", "executor.fill.queue"),
            ("[executor.liquidation]\nmaintenance_share = \"0.2\"\n", "executor.liquidation.maintenance_share"),
            ("[executor.liquidation]\nfee_bps = \"-1\"\n", "executor.liquidation.fee_bps"),
            ("[executor]\nmood = 1\n", "executor.mood"),
        ] {
            let error = Config::load(Some(&user(text))).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(
                error.why.contains("allowed") || error.why.contains("at least") || error.why.contains("expected"),
                "{error}"
            );
        }
    }
}
