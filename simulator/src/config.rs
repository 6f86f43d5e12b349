//! Bounds and manners of the stand-ins; `config.toml` beside `Cargo.toml` is the manual.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::config::{ConfigError, UserFile, load};
use serde::Deserialize;

pub const DEFAULT: &str = include_str!("../config.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub clients_max: usize,
    pub client_outbox_frames_max: usize,
    pub slow_client_wait_ms_max: u64,
    pub faults_armed_max: usize,
    pub tick_ms: u64,
    pub message_bytes_max: usize,
    pub orders_remembered_max: usize,
    pub open_orders_max: usize,
    pub binance: Binance,
    pub deribit: Deribit,
    pub hyperliquid: Hyperliquid,
    pub mexc: Mexc,
    pub coinbase: Coinbase,
    pub htx: Htx,
    pub okx: Okx,
    pub account: Account,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binance {
    pub spot_messages_per_second_max: usize,
    pub futures_messages_per_second_max: usize,
    pub streams_per_connection_max: usize,
    pub spot_ping_period_ms: u64,
    pub spot_pong_wait_ms: u64,
    pub futures_ping_period_ms: u64,
    pub futures_pong_wait_ms: u64,
    pub connection_life_ms_max: u64,
    pub spot_weight_per_minute_max: u64,
    pub futures_weight_per_minute_max: u64,
    pub warnings_before_ban: u32,
    pub ban_ms: u64,
    pub orders_per_10s_max: usize,
    pub listen_key_life_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deribit {
    pub credits_max: u64,
    pub credits_per_request: u64,
    pub credits_per_second: u64,
    pub matching_burst_max: u64,
    pub matching_per_second: u64,
    pub test_request_wait_ms: u64,
    pub token_life_ms: u64,
    pub channels_per_connection_max: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperliquid {
    pub connections_max: usize,
    pub subscriptions_max: usize,
    pub users_max: usize,
    pub messages_per_minute_max: usize,
    pub weight_per_minute_max: u64,
    pub silence_ms_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mexc {
    pub subscriptions_per_connection_max: usize,
    pub messages_per_second_max: usize,
    pub unsubscribed_ms_max: u64,
    pub idle_ms_max: u64,
    pub connection_life_ms_max: u64,
    pub spot_weight_per_10s_max: u64,
    pub contract_requests_per_2s_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coinbase {
    pub subscribe_wait_ms: u64,
    pub quiet_close_ms: u64,
    pub advanced_messages_per_second_max: usize,
    pub exchange_messages_per_second_max: usize,
    pub connections_per_second_max: usize,
    pub rest_per_second_max: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Okx {
    pub idle_ms: u64,
    pub keep_alive_ms: i64,
    pub requests_per_hour_max: usize,
    pub rest_per_2s_max: usize,
    pub checksums: bool,
    pub snapshots: bool,
    pub rest_seq_ids: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Htx {
    pub ping_period_ms: u64,
    pub pings_unanswered_max: u32,
    pub messages_per_second_max: usize,
    pub topics_per_connection_max: usize,
    pub requests_per_window_max: usize,
    pub requests_window_ms: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub api_key: String,
    pub api_secret: String,
    pub spot_fee: Decimal,
    pub futures_maker_fee: Decimal,
    pub futures_taker_fee: Decimal,
    pub leverage_max: u32,
    pub fee_coin: String,
    pub fee_coin_price: Decimal,
    pub balances: BTreeMap<String, Decimal>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("api_key", &self.api_key).field("api_secret", &"***").finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults with the user's `[simulator]` table over them.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = load("simulator", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("simulator.clients_max", self.clients_max as u64),
            ("simulator.tick_ms", self.tick_ms),
            ("simulator.message_bytes_max", self.message_bytes_max as u64),
            ("simulator.slow_client_wait_ms_max", self.slow_client_wait_ms_max),
            ("simulator.open_orders_max", self.open_orders_max as u64),
            ("simulator.binance.spot_ping_period_ms", self.binance.spot_ping_period_ms),
            ("simulator.binance.futures_ping_period_ms", self.binance.futures_ping_period_ms),
            ("simulator.binance.connection_life_ms_max", self.binance.connection_life_ms_max),
            ("simulator.deribit.credits_per_request", self.deribit.credits_per_request),
            ("simulator.coinbase.subscribe_wait_ms", self.coinbase.subscribe_wait_ms),
            ("simulator.coinbase.quiet_close_ms", self.coinbase.quiet_close_ms),
            ("simulator.deribit.test_request_wait_ms", self.deribit.test_request_wait_ms),
            ("simulator.hyperliquid.silence_ms_max", self.hyperliquid.silence_ms_max),
            ("simulator.mexc.unsubscribed_ms_max", self.mexc.unsubscribed_ms_max),
            ("simulator.mexc.idle_ms_max", self.mexc.idle_ms_max),
            ("simulator.mexc.connection_life_ms_max", self.mexc.connection_life_ms_max),
            ("simulator.okx.idle_ms", self.okx.idle_ms),
            ("simulator.okx.rest_per_2s_max", self.okx.rest_per_2s_max as u64),
            ("simulator.htx.ping_period_ms", self.htx.ping_period_ms),
            ("simulator.htx.requests_window_ms", self.htx.requests_window_ms),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(ConfigError::value(key, "must be above zero"));
            }
        }
        if self.client_outbox_frames_max < 64 {
            return Err(ConfigError::value("simulator.client_outbox_frames_max", "must be at least 64"));
        }
        if self.orders_remembered_max < self.open_orders_max {
            return Err(ConfigError::value("simulator.orders_remembered_max", "must be at least open_orders_max"));
        }
        if self.account.fee_coin_price <= Decimal::ZERO || self.account.leverage_max == 0 {
            return Err(ConfigError::value("simulator.account", "fee_coin_price and leverage_max must be above zero"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_a_valid_configuration_and_hides_the_secret() {
        let config = Config::load(None).unwrap();
        assert!(!format!("{config:?}").contains(&config.account.api_secret));
    }

    #[test]
    fn a_bound_of_zero_is_refused_by_name() {
        let user = UserFile { name: "t.toml".into(), text: "[simulator]\nclients_max = 0\n".into() };
        assert_eq!(Config::load(Some(&user)).unwrap_err().key, "simulator.clients_max");
    }
}
