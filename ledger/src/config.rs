//! What may be configured; `config.toml` is the manual.

use schemas::Timeframe;
use schemas::config::{ConfigError, UserFile};
use serde::Deserialize;

/// The manual and the defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// See `config.toml` for each key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database: String,
    pub market_data_timeframes: Vec<Timeframe>,
    pub transaction_rows_max: usize,
    pub transaction_ms_max: u64,
    pub read_batch: usize,
    pub queue_batches_max: usize,
    pub discover_ms: u64,
    pub config_keys_max: usize,
    pub write_tries_max: u32,
    pub database_wait_ms_max: u64,
}

impl Config {
    /// The defaults with the user's `[ledger]` laid over them, checked.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("ledger", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// Error: the key and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        address(&self.database).map_err(|why| ConfigError::value("ledger.database", why))?;
        if redacted(&self.database) != self.database {
            let why = "an address with a password belongs into the environment, as DATABASE_URL";
            return Err(ConfigError::value("ledger.database", why));
        }
        for (key, value) in [
            ("transaction_rows_max", self.transaction_rows_max as u64),
            ("transaction_ms_max", self.transaction_ms_max),
            ("read_batch", self.read_batch as u64),
            ("queue_batches_max", self.queue_batches_max as u64),
            ("discover_ms", self.discover_ms),
            ("config_keys_max", self.config_keys_max as u64),
            ("write_tries_max", self.write_tries_max as u64),
            ("database_wait_ms_max", self.database_wait_ms_max),
        ] {
            if value == 0 {
                return Err(ConfigError::value(&format!("ledger.{key}"), "must be at least 1"));
            }
        }
        Ok(())
    }
}

/// What an address asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    Sqlite,
    Postgres,
}

/// Error: what is allowed.
pub fn address(url: &str) -> Result<Address, String> {
    match url.split_once(':') {
        Some(("sqlite", _)) => Ok(Address::Sqlite),
        Some(("postgres" | "postgresql", _)) => Ok(Address::Postgres),
        _ => Err("must begin with sqlite: or postgres:".to_owned()),
    }
}

/// The address with its password as `***`, for people and logs.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return url.to_owned() };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(&UserFile { name: "tapeline.toml".into(), text: text.into() }))
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.market_data_timeframes[0].to_string(), "1m");
    }

    #[test]
    fn what_means_nothing_names_its_key() {
        for (text, key) in [
            ("database = \"mysql://x\"", "ledger.database"),
            ("database = \"postgres://u:secret@h/d\"", "ledger.database"),
            ("read_batch = 0", "ledger.read_batch"),
            ("market_data_timeframes = [\"tick-5\"]", "ledger.market_data_timeframes"),
        ] {
            let e = load(&format!("[ledger]\n{text}\n")).unwrap_err();
            assert_eq!(e.key, key, "{text}: {}", e.why);
            assert!(!e.to_string().contains("secret"), "{e}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(redacted("postgres://me:pa:ss@host:5432/db"), "postgres://me:***@host:5432/db");
        assert_eq!(redacted("postgres://me@host/db?x=a:b@c"), "postgres://me@host/db?x=a:b@c");
        assert_eq!(redacted("sqlite:tapeline.sqlite"), "sqlite:tapeline.sqlite");
    }
}
