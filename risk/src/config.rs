//! The stage's configuration; `config.toml` is its manual and holds every default.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemas::config::{ConfigError, UserFile};
use schemas::{Fraction, Notional, Qty};
use serde::Deserialize;

use crate::limit::Limits;
use crate::mark::Source;

/// The manual and the defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// A ratio that may be above 1, as decimal text; floats are refused because they are not exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(from = "Notional")]
pub struct Ratio(pub Decimal);
impl From<Notional> for Ratio {
    fn from(number: Notional) -> Self {
        Self(number.get())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub accounts: Vec<String>,
    pub mode: String,
    pub initial_cash: Notional,
    pub mark_sources: Vec<Source>,
    pub instruments_max: usize,
    pub strategies_max: usize,
    pub fills_remembered_max: usize,
    pub gaps_max: usize,
    pub policy: PolicyConfig,
    pub votes: Votes,
    pub cool_down: CoolDown,
    pub weights: Weights,
    pub sizing: Sizing,
    pub entry: Entry,
    pub protect: ProtectConfig,
    pub orders: Orders,
    pub limits: Limits,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    pub name: String,
    pub quorum: usize,
    pub majority_share: Fraction,
    pub threshold: Fraction,
    pub leader: String,
    pub guardians: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Votes {
    pub age_ms_max: u32,
    pub ahead_ms_max: u32,
    pub confidence_min: Fraction,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoolDown {
    pub losses_in_row: u32,
    pub pause_ms: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    pub on: bool,
    pub trades_max: usize,
    pub prior: Ratio,
    pub fixed: BTreeMap<String, Fraction>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeBy {
    EquityShare,
    Notional,
    Qty,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrengthBy {
    Full,
    Scaled,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    Never,
    Shrink,
    Both,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizing {
    pub by: SizeBy,
    pub share: Ratio,
    pub notional: Notional,
    pub qty: Qty,
    pub strength: StrengthBy,
    pub resize: Resize,
    pub resize_share_min: Fraction,
    pub reenter: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Market,
    Limit,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub kind: EntryKind,
    pub offset_bps: Ratio,
    pub post_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtectFrom {
    SignalOrConfig,
    Signal,
    Config,
    None,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectConfig {
    pub from: ProtectFrom,
    pub stop_share: Fraction,
    pub take_share: Ratio,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    pub entry_timeout_ms: u32,
    pub close_timeout_ms: u32,
    pub cancel_retry_ms: u32,
    pub cancels_max: u32,
    pub close_retry_ms: u32,
    pub closes_max: u32,
}

impl Config {
    /// The defaults with the user's `[risk]` table over them, checked.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("risk", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// What single types cannot say. Error: the key and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let need = |ok: bool, key: &str, why: &str| if ok { Ok(()) } else { Err(ConfigError::value(key, why)) };
        need(!self.accounts.is_empty(), "risk.accounts", "needs at least one account")?;
        for (i, account) in self.accounts.iter().enumerate() {
            need(!account.is_empty(), "risk.accounts", "an account's name is not empty")?;
            need(!self.accounts[..i].contains(account), "risk.accounts", "names an account twice")?;
        }
        need(self.initial_cash > Notional::ZERO, "risk.initial_cash", "must be above 0")?;
        need(!self.mark_sources.is_empty(), "risk.mark_sources", "needs at least one of mark, quote, trade, candle")?;
        need(self.instruments_max > 0, "risk.instruments_max", "must be above 0")?;
        need(self.strategies_max > 0, "risk.strategies_max", "must be above 0")?;
        need(self.fills_remembered_max > 0, "risk.fills_remembered_max", "must be above 0")?;
        need(self.gaps_max > 0, "risk.gaps_max", "must be above 0")?;
        let policy = crate::policy::by_id(&self.policy.name)?;
        policy.check(&self.policy)?;
        need(self.policy.quorum > 0, "risk.policy.quorum", "must be above 0")?;
        need(self.weights.trades_max > 0, "risk.weights.trades_max", "must be above 0")?;
        need(self.weights.prior.0 > Decimal::ZERO, "risk.weights.prior", "must be above 0")?;
        let size = match self.sizing.by {
            SizeBy::EquityShare => ("risk.sizing.share", self.sizing.share.0),
            SizeBy::Notional => ("risk.sizing.notional", self.sizing.notional.get()),
            SizeBy::Qty => ("risk.sizing.qty", self.sizing.qty.get()),
        };
        need(size.1 > Decimal::ZERO, size.0, "must be above 0")?;
        let offset = self.entry.offset_bps.0;
        need(
            offset >= Decimal::ZERO && offset < Decimal::from(10_000),
            "risk.entry.offset_bps",
            "must be in 0..10000",
        )?;
        need(
            !self.entry.post_only || self.entry.kind == EntryKind::Limit,
            "risk.entry.post_only",
            "needs kind = \"limit\"",
        )?;
        need(self.protect.stop_share < Fraction::ONE, "risk.protect.stop_share", "must be below 1")?;
        let take = self.protect.take_share.0;
        need(take >= Decimal::ZERO && take < Decimal::ONE, "risk.protect.take_share", "must be in 0..1")?;
        let stopless = match self.protect.from {
            ProtectFrom::None => true,
            ProtectFrom::Config => self.protect.stop_share == Fraction::ZERO,
            ProtectFrom::Signal | ProtectFrom::SignalOrConfig => false,
        };
        let required = self.limits.stop_distance.on && self.limits.stop_distance.required;
        need(
            !(stopless && required),
            "risk.protect",
            "sets no stop-loss, and limits.stop_distance.required refuses every entry then",
        )?;
        need(self.orders.cancels_max > 0, "risk.orders.cancels_max", "must be above 0")?;
        need(self.orders.closes_max > 0, "risk.orders.closes_max", "must be above 0")?;
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(&UserFile { name: "tapeline.toml".into(), text: text.into() }))
    }

    #[test]
    fn the_manual_is_a_valid_configuration() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.limits.max_position_share.share_max.0.to_string(), "0.2");
        assert_eq!(config.limits.leverage.times_max.0.to_string(), "10");
        assert_eq!(config.limits.drawdown.share_max.to_string(), "0.3");
        assert_eq!(config.limits.stop_distance.share_max.to_string(), "0.15");
    }

    #[test]
    fn what_means_nothing_names_its_key() {
        for (text, key) in [
            ("accounts = []", "risk.accounts"),
            ("accounts = [\"a\", \"a\"]", "risk.accounts"),
            ("initial_cash = \"0\"", "risk.initial_cash"),
            ("[risk.policy]\nname = \"dictator\"", "risk.policy.name"),
            ("[risk.policy]\nname = \"leader\"", "risk.policy.leader"),
            ("[risk.policy]\nname = \"risk_override\"", "risk.policy.guardians"),
            ("[risk.policy]\nquorum = 0", "risk.policy.quorum"),
            ("[risk.sizing]\nshare = \"0\"", "risk.sizing.share"),
            ("[risk.protect]\nfrom = \"none\"", "risk.protect"),
            ("[risk.entry]\npost_only = true", "risk.entry.post_only"),
            ("[risk.limits.reduce_only]\non = false", "risk.limits.reduce_only.on"),
            ("[risk.limits.leverage]\ntimes_max = \"-1\"", "risk.limits.leverage.times_max"),
        ] {
            let error = user(&format!("[risk]\n{text}\n")).unwrap_err();
            assert_eq!(error.key, key, "{error}");
        }
    }

    #[test]
    fn a_float_where_money_is_meant_is_refused() {
        assert!(user("[risk.limits.leverage]\ntimes_max = 2.5\n").is_err());
    }
}
