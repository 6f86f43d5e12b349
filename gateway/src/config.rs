//! The gateway's configuration; `config.toml` is its manual.

use schemas::config::{self, ConfigError, UserFile};
use serde::{Deserialize, Serialize};

/// Defaults and manual in one.
pub const DEFAULT: &str = include_str!("../config.toml");

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: String,
    pub public_url: String,
    pub account: String,
    pub traders: Vec<String>,
    pub mode: String,
    pub limits: Limits,
    pub history: History,
}

/// Bounds of the WebSocket side.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub clients_max: usize,
    pub channels_max: usize,
    pub ops_per_s_max: u32,
    pub frame_bytes_max: usize,
    pub log_queue_max: usize,
    pub control_queue_max: usize,
    pub write_timeout_ms: u64,
    pub heartbeat_s: u64,
}

/// Bounds of what REST answers from memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub rows_max: usize,
    pub equity_points_max: usize,
    pub candles_max: usize,
    pub read_back_messages_max: u64,
}

impl Config {
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = config::load("gateway", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// Values that read well but mean nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listen.parse::<std::net::SocketAddr>().is_err() {
            return Err(ConfigError::value(
                "gateway.listen",
                format_args!("`{}` is not address:port, such as 127.0.0.1:8787", self.listen),
            ));
        }
        if !["paper", "testnet", "live", "sim"].contains(&self.mode.as_str()) {
            return Err(ConfigError::value(
                "gateway.mode",
                format_args!("`{}` is none of paper, sim, testnet, live", self.mode),
            ));
        }
        if !self.public_url.is_empty()
            && !self.public_url.starts_with("http://")
            && !self.public_url.starts_with("https://")
        {
            return Err(ConfigError::value("gateway.public_url", "must start with http:// or https://, or be empty"));
        }
        let l = &self.limits;
        for (key, value) in [
            ("clients_max", l.clients_max),
            ("channels_max", l.channels_max),
            ("ops_per_s_max", l.ops_per_s_max as usize),
            ("frame_bytes_max", l.frame_bytes_max),
            ("log_queue_max", l.log_queue_max),
            ("control_queue_max", l.control_queue_max),
            ("write_timeout_ms", l.write_timeout_ms as usize),
            ("heartbeat_s", l.heartbeat_s as usize),
        ] {
            if value == 0 {
                return Err(ConfigError::value(&format!("gateway.limits.{key}"), "must be at least 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_load_and_a_zero_bound_is_refused() {
        let mut config = Config::load(None).unwrap();
        config.limits.log_queue_max = 0;
        assert_eq!(config.check().unwrap_err().key, "gateway.limits.log_queue_max");
    }
}
