//! What can be configured; `config.toml` is the manual. Rules and traders are tables laid over a table of
//! defaults, so that each setting is described once.

use std::collections::{BTreeMap, BTreeSet};

use schemas::config::{ConfigError, UserFile};
use schemas::{Decimal, Fraction, Nanos, Price, Timeframe};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::voter::{self, Params, STRATEGIES, StrategyKind};

/// The commented defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// The stage's configuration as written; [`Config::rules`] and [`Config::traders`] give what it means.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub venues: Vec<String>,
    pub symbols_max: usize,
    rule: Table,
    rules: BTreeMap<String, Table>,
    trader: Table,
    #[serde(default)]
    traders: BTreeMap<String, Table>,
}

/// One rule strategy as configured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The table's name; `strategy` of its signals.
    #[serde(skip)]
    pub name: String,
    pub kind: String,
    pub enabled: bool,
    pub timeframe: String,
    pub higher_timeframe: String,
    pub venues: Vec<String>,
    pub symbols: Vec<String>,
    pub valid_bars: u32,
    pub valid_for_ms: u64,
    pub reaffirm: Reaffirm,
    pub trade_incomplete: bool,
    pub stale_bars_max: u32,
    pub strength: Fraction,
    pub confidence: Fraction,
    pub params: Table,
}

/// When an unchanged opinion is said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaffirm {
    Never,
    Open,
    Always,
}

/// One LLM trader as configured. Holds the name of its key's environment variable, never the key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trader {
    /// The table's name; `strategy` of its signals.
    #[serde(skip)]
    pub name: String,
    pub enabled: bool,
    pub base_url: String,
    pub model: String,
    pub key_env: String,
    pub coins: Vec<Coin>,
    pub coins_max: usize,
    pub timeframe: Timeframe,
    pub timeframes: Vec<Timeframe>,
    pub bars: usize,
    pub outputs: Vec<String>,
    pub bars_min: usize,
    pub trade_incomplete: bool,
    pub grace_ms: i64,
    pub ttl_ms: i64,
    pub expiry_clock: ExpiryClock,
    pub deadline_ms_max: u64,
    pub connect_timeout_ms: u64,
    pub attempts_max: u32,
    pub repairs_max: u32,
    pub backoff_ms_min: u64,
    pub backoff_ms_max: u64,
    pub reply_bytes_max: usize,
    pub structured: Structured,
    pub temperature: String,
    pub max_tokens: u32,
    pub max_tokens_field: MaxTokensField,
    pub extra: BTreeMap<String, Scalar>,
    pub valid_bars: u32,
    pub strength: Fraction,
    pub stop_loss_required: bool,
    pub stop_distance_min: Fraction,
    pub keep_reasoning: bool,
}

/// An instrument that a trader is asked about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coin {
    pub coin: String,
    pub venue: String,
    pub symbol: String,
    /// Zero: unknown.
    #[serde(default)]
    pub tick: Price,
}

/// Against which clock an answer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpiryClock {
    Event,
    Stored,
}

/// What a provider can be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Structured {
    JsonSchema,
    JsonObject,
    None,
}

/// How a provider calls the limit of an answer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    MaxTokens,
    MaxCompletionTokens,
}

/// A value of `extra`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Flag(bool),
    Count(i64),
    Number(f64),
    Text(String),
}

impl Default for Config {
    fn default() -> Self {
        Self::load(None).expect("Invariant: the defaults load, which a test shows")
    }
}

impl Config {
    /// The defaults with the user's `[strategy]` laid over them, checked.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("strategy", DEFAULT, user)?;
        config.check().map_err(|e| match user {
            Some(user) => ConfigError::new(&user.name, e.key, e.why),
            None => e,
        })?;
        Ok(config)
    }

    /// Names the first value that cannot work, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        within("strategy.symbols_max", self.symbols_max as u64, 1, 1 << 20)?;
        if let Some(venue) = self.venues.iter().find(|venue| !is_token(venue)) {
            return Err(ConfigError::value(
                "strategy.venues",
                format_args!("`{venue}` is not 1 to 64 of A-Z a-z 0-9 _ -"),
            ));
        }
        let rules = self.rules()?;
        let traders = self.traders()?;
        if let Some(both) = traders.iter().find(|t| rules.iter().any(|r| r.name == t.name)) {
            return Err(ConfigError::value(&format!("strategy.traders.{}", both.name), "a rule has this name already"));
        }
        Ok(())
    }

    /// The rules that are enabled, by name.
    pub fn rules(&self) -> Result<Vec<Rule>, ConfigError> {
        let mut rules = Vec::new();
        for (name, own) in &self.rules {
            let key = format!("strategy.rules.{name}");
            let mut rule: Rule = laid_over(&self.rule, own, &key)?;
            rule.name = name_of(&key, name)?;
            rule.check(&key)?;
            if rule.enabled {
                rules.push(rule);
            }
        }
        Ok(rules)
    }

    /// The traders that are enabled, by name.
    pub fn traders(&self) -> Result<Vec<Trader>, ConfigError> {
        let mut traders = Vec::new();
        for (name, own) in &self.traders {
            let key = format!("strategy.traders.{name}");
            let mut trader: Trader = laid_over(&self.trader, own, &key)?;
            trader.name = name_of(&key, name)?;
            trader.check(&key)?;
            if trader.enabled {
                traders.push(trader);
            }
        }
        Ok(traders)
    }

    /// This configuration with one rule and no other, as a backtest of one strategy needs it. `own` is what a
    /// `[strategy.rules.<name>]` table would hold, without `kind`.
    pub fn only(kind: &str, own: Table) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut own = own;
        own.insert("kind".to_owned(), Value::String(kind.to_owned()));
        config.rules = BTreeMap::from([(kind.to_owned(), own)]);
        config.check()?;
        Ok(config)
    }
}

impl Rule {
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        let at = |field: &str| format!("{key}.{field}");
        let kind = self.find(key)?;
        self.params(key)?;
        match self.timeframe.parse::<Timeframe>() {
            Ok(_) => within(&at("valid_bars"), self.valid_bars.into(), 1, 1000)?,
            Err(_) if !is_token(&self.timeframe) => {
                return Err(ConfigError::value(
                    &at("timeframe"),
                    format_args!("`{}` is no bar: 1s 5m 4h 1d, tick-100, ...", self.timeframe),
                ));
            }
            Err(_) => within(&at("valid_for_ms"), self.valid_for_ms, 1, 86_400_000)?,
        }
        within(&at("valid_for_ms"), self.valid_for_ms, 0, 7 * 86_400_000)?;
        within(&at("stale_bars_max"), self.stale_bars_max.into(), 1, 100_000)?;
        if !self.higher_timeframe.is_empty() {
            if kind.higher_outputs().is_none() {
                return Err(ConfigError::value(
                    &at("higher_timeframe"),
                    format_args!("{} looks at one timeframe only", kind.name()),
                ));
            }
            let own = self.timeframe.parse::<Timeframe>().ok();
            let higher = self.higher_timeframe.parse::<Timeframe>();
            let higher = higher.map_err(|e| ConfigError::value(&at("higher_timeframe"), e))?;
            if own.is_none_or(|own| higher <= own) {
                return Err(ConfigError::value(
                    &at("higher_timeframe"),
                    format_args!("{higher} is not longer than `timeframe`, which is {}", self.timeframe),
                ));
            }
        }
        for (field, patterns) in [("venues", &self.venues), ("symbols", &self.symbols)] {
            if patterns.is_empty() {
                return Err(ConfigError::value(&at(field), "names none; [\"*\"] is all of them"));
            }
        }
        Ok(())
    }

    fn find(&self, key: &str) -> Result<&'static dyn StrategyKind, ConfigError> {
        voter::find(&self.kind).ok_or_else(|| {
            let known: Vec<_> = STRATEGIES.iter().map(|kind| kind.name()).collect();
            ConfigError::value(
                &format!("{key}.kind"),
                format_args!("`{}` is not one of {}", self.kind, known.join(", ")),
            )
        })
    }

    fn params(&self, key: &str) -> Result<Params, ConfigError> {
        let kind = self.find(key)?;
        let params = Params::read(kind.params(), &self.params);
        let params = params.and_then(|params| kind.check(&params).map(|()| params));
        params.map_err(|e| ConfigError::value(&format!("{key}.params.{}", e.key), e.why))
    }

    /// Its kind and parameters.
    ///
    /// # Errors
    /// As [`Config::check`] would have said.
    pub fn kind(&self) -> Result<(&'static dyn StrategyKind, Params), ConfigError> {
        let key = format!("strategy.rules.{}", self.name);
        Ok((self.find(&key)?, self.params(&key)?))
    }

    /// This instrument is one of those it looks at.
    pub fn watches(&self, venue: &str, symbol: &str) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
        any(&self.venues, venue) && any(&self.symbols, symbol)
    }

    /// How long an opinion counts behind the close, in nanoseconds.
    pub fn valid_ns(&self) -> i64 {
        match self.timeframe.parse::<Timeframe>() {
            Ok(tf) if self.valid_for_ms == 0 => tf.ns() * i64::from(self.valid_bars),
            _ => self.valid_for_ms as i64 * Nanos::PER_MS,
        }
    }

    /// How far behind the newest close a bar may be, in nanoseconds; none for bars without a fixed length.
    pub fn stale_ns(&self) -> Option<i64> {
        Some(self.timeframe.parse::<Timeframe>().ok()?.ns() * i64::from(self.stale_bars_max))
    }
}

impl Trader {
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        let at = |field: &str| format!("{key}.{field}");
        let refuse = |field: &str, why: std::fmt::Arguments<'_>| Err(ConfigError::value(&at(field), why));
        if !self.plain_http_here() && !self.base_url.starts_with("https://") {
            return refuse(
                "base_url",
                format_args!("`{}` is neither https:// nor http:// to 127.0.0.1, [::1] or localhost", self.base_url),
            );
        }
        if self.base_url.contains(['?', '#', '@', ' ']) {
            return refuse("base_url", format_args!("must be scheme, host and path; keys go into the environment"));
        }
        if self.model.is_empty() {
            return refuse("model", format_args!("names none"));
        }
        if !self.key_env.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return refuse("key_env", format_args!("must be the name of an environment variable (A-Z a-z 0-9 _)"));
        }
        within(&at("coins_max"), self.coins_max as u64, 1, 200)?;
        within(&at("coins"), self.coins.len() as u64, 1, self.coins_max as u64)?;
        let mut names = BTreeSet::new();
        for coin in &self.coins {
            let legal = (1..=20).contains(&coin.coin.len())
                && coin.coin.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            if !legal {
                return refuse("coins", format_args!("coin `{}` is not 1 to 20 of A-Z 0-9", coin.coin));
            }
            if !is_token(&coin.venue) || coin.symbol.is_empty() {
                return refuse("coins", format_args!("coin {} needs a venue and a symbol", coin.coin));
            }
            if coin.tick.get() < Decimal::ZERO {
                return refuse("coins", format_args!("coin {} has a negative tick", coin.coin));
            }
            if !names.insert(&coin.coin) {
                return refuse("coins", format_args!("coin {} stands twice", coin.coin));
            }
        }
        within(&at("timeframes"), self.timeframes.len() as u64, 1, 8)?;
        if !self.timeframes.contains(&self.timeframe) {
            return refuse("timeframes", format_args!("must hold `timeframe`, which is {}", self.timeframe));
        }
        if self.timeframes.iter().collect::<BTreeSet<_>>().len() != self.timeframes.len() {
            return refuse("timeframes", format_args!("one stands twice"));
        }
        within(&at("bars"), self.bars as u64, 1, 200)?;
        within(&at("bars_min"), self.bars_min as u64, 1, self.bars as u64)?;
        within(&at("outputs"), self.outputs.len() as u64, 0, 100)?;
        within(&at("grace_ms"), u64::try_from(self.grace_ms).unwrap_or(u64::MAX), 0, 600_000)?;
        within(&at("ttl_ms"), u64::try_from(self.ttl_ms).unwrap_or(u64::MAX), 1, 86_400_000)?;
        within(&at("deadline_ms_max"), self.deadline_ms_max, 1, 3_600_000)?;
        within(&at("connect_timeout_ms"), self.connect_timeout_ms, 1, 600_000)?;
        within(&at("attempts_max"), self.attempts_max.into(), 1, 20)?;
        within(&at("repairs_max"), self.repairs_max.into(), 0, 1)?;
        within(&at("backoff_ms_min"), self.backoff_ms_min, 1, self.backoff_ms_max)?;
        within(&at("backoff_ms_max"), self.backoff_ms_max, 1, 600_000)?;
        within(&at("reply_bytes_max"), self.reply_bytes_max as u64, 1024, 16 << 20)?;
        within(&at("max_tokens"), self.max_tokens.into(), 1, 1_000_000)?;
        within(&at("valid_bars"), self.valid_bars.into(), 1, 1000)?;
        if !self.temperature.is_empty() && !self.temperature.parse::<f64>().is_ok_and(|t| (0.0..=2.0).contains(&t)) {
            return refuse(
                "temperature",
                format_args!("`{}` is neither empty nor a number within 0..=2", self.temperature),
            );
        }
        const OURS: [&str; 7] =
            ["model", "messages", "response_format", "temperature", "max_tokens", "max_completion_tokens", "stream"];
        if let Some(ours) = self.extra.keys().find(|k| OURS.contains(&k.as_str())) {
            return refuse("extra", format_args!("`{ours}` is set by its own key"));
        }
        Ok(())
    }

    /// `base_url` is plain http, which is allowed to this machine only.
    pub fn plain_http_here(&self) -> bool {
        let host = self.base_url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(""));
        host.is_some_and(|host| {
            let name = match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
                _ => host,
            };
            ["127.0.0.1", "localhost", "[::1]"].contains(&name)
        })
    }
}

/// `own` over `defaults` as a `T`; errors name the key below `key`.
fn laid_over<T: DeserializeOwned>(defaults: &Table, own: &Table, key: &str) -> Result<T, ConfigError> {
    fn lay(base: &mut Table, over: &Table) {
        for (key, value) in over {
            match (base.get_mut(key), value) {
                (Some(Value::Table(base)), Value::Table(over)) => lay(base, over),
                _ => {
                    base.insert(key.clone(), value.clone());
                }
            }
        }
    }
    let mut table = defaults.clone();
    lay(&mut table, own);
    Value::Table(table).try_into().map_err(|e: toml::de::Error| {
        let text = e.to_string();
        let place = text.rsplit_once("in `").and_then(|(_, rest)| rest.split('`').next());
        let key = place.map_or(key.to_owned(), |place| format!("{key}.{place}"));
        ConfigError::value(&key, e.message().trim().replace('\n', " "))
    })
}

fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(key, format_args!("{value} is not within {low}..={high}")))
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn name_of(key: &str, name: &str) -> Result<String, ConfigError> {
    if is_token(name) {
        return Ok(name.to_owned());
    }
    Err(ConfigError::value(key, "a name has 1 to 64 of A-Z a-z 0-9 _ -"))
}

/// `*` in a pattern stands for any characters, none included; everything else for itself.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(tail) = text.strip_prefix(head) else {
        return false;
    };
    (0..=tail.len()).filter(|&i| tail.is_char_boundary(i)).any(|i| matches(rest, &tail[i..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(&UserFile { name: "tapeline.toml".into(), text: text.into() }))
    }

    const ALICE: &str = "[strategy.traders.alice]\nbase_url = \"https://llm.example/v1\"\nmodel = \"m\"\n\
        coins = [{ coin = \"BTC\", venue = \"binance\", symbol = \"BTCUSDT\" }]\n";

    #[test]
    fn the_defaults_run_all_five_rules_and_no_trader() {
        let config = Config::default();
        let names: Vec<_> = config.rules().unwrap().into_iter().map(|rule| rule.name).collect();
        assert_eq!(names, ["bollinger_breakout", "ema_cross", "macd_trend", "rsi_mean_reversion", "supertrend"]);
        assert_eq!(config.traders().unwrap(), []);
    }

    #[test]
    fn one_kind_runs_twice_under_two_names() {
        let config =
            load("[strategy.rules.slow]\nkind = \"ema_cross\"\ntimeframe = \"1h\"\nparams = { slow = 55 }\n").unwrap();
        let rules = config.rules().unwrap();
        let of = |name: &str| rules.iter().find(|r| r.name == name).unwrap().clone();
        assert_eq!((of("slow").timeframe.as_str(), of("ema_cross").timeframe.as_str()), ("1h", "1m"));
        assert_eq!(of("slow").kind().unwrap().1.count("slow"), 55);
        assert_eq!(of("slow").valid_ns(), 2 * 3_600_000_000_000);
    }

    #[test]
    fn a_disabled_rule_is_not_run() {
        let config = load("[strategy.rules.supertrend]\nenabled = false\n").unwrap();
        assert_eq!(config.rules().unwrap().len(), 4);
    }

    #[test]
    fn what_cannot_work_is_named_with_what_is_allowed() {
        let rule = |line: &str| format!("[strategy.rules.ema_cross]\n{line}\n");
        let alice = |line: &str| format!("{ALICE}{line}\n");
        for (text, key, why) in [
            (rule("kind = \"ema\""), "strategy.rules.ema_cross.kind", "one of bollinger_breakout, ema_cross"),
            (rule("params = { slow = 9 }"), "strategy.rules.ema_cross.params.slow", "9 is not above `fast`"),
            (rule("params = { speed = 9 }"), "strategy.rules.ema_cross.params.speed", "allowed are `fast`, `slow`"),
            (rule("timeframe = \"\""), "strategy.rules.ema_cross.timeframe", "is no bar"),
            (rule("timeframe = \"tick-100\""), "strategy.rules.ema_cross.valid_for_ms", "within 1..="),
            (rule("higher_timeframe = \"1h\""), "strategy.rules.ema_cross.higher_timeframe", "one timeframe only"),
            (rule("valid_bars = 0"), "strategy.rules.ema_cross.valid_bars", "within 1..=1000"),
            (rule("strength = \"2\""), "strategy.rules.ema_cross.strength", "0..=1"),
            (rule("symbols = []"), "strategy.rules.ema_cross.symbols", "names none"),
            (rule("timeframes = \"1m\""), "strategy.rules.ema_cross", "unknown field `timeframes`"),
            ("[strategy.rules.\"a b\"]\nkind = \"ema_cross\"\n".into(), "strategy.rules.a b", "1 to 64"),
            (
                "[strategy.rules.macd_trend]\nhigher_timeframe = \"1m\"\n".into(),
                "strategy.rules.macd_trend.higher_timeframe",
                "not longer than `timeframe`",
            ),
            (alice("base_url = \"\""), "(syntax)", "duplicate key"),
            (alice("key_env = \"sk-123\""), "strategy.traders.alice.key_env", "name of an environment variable"),
            (alice("timeframes = [\"1h\"]"), "strategy.traders.alice.timeframes", "must hold `timeframe`"),
            (alice("temperature = \"hot\""), "strategy.traders.alice.temperature", "within 0..=2"),
            (alice("extra = { model = \"x\" }"), "strategy.traders.alice.extra", "`model` is set by its own key"),
            (alice("structured = \"tools\""), "strategy.traders.alice.structured", "`json_schema`"),
            (ALICE.replace("https:", "http:"), "strategy.traders.alice.base_url", "neither https"),
            (ALICE.replace("https://", "http://127.0.0.1:80@"), "strategy.traders.alice.base_url", "neither https"),
            (ALICE.replace("\"BTC\"", "\"ВТС\""), "strategy.traders.alice.coins", "A-Z 0-9"),
            (ALICE.replace("alice", "ema_cross"), "strategy.traders.ema_cross", "a rule has this name"),
        ] {
            let e = load(&text).unwrap_err();
            assert_eq!((e.file.as_str(), e.key.as_str()), ("tapeline.toml", key), "{}", e.why);
            assert!(e.why.contains(why), "{key}: {}", e.why);
        }
    }

    #[test]
    fn plain_http_is_allowed_to_this_machine_only() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:11434"] {
            load(&ALICE.replace("https://llm.example", &format!("http://{host}"))).unwrap();
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("BTC*", "BTCUSDT", true),
            ("BTC*", "ETHBTC", false),
            ("*USDT", "BTCUSDT", true),
            ("B*U*T", "BTCUSDT", true),
            ("BTCUSDT", "BTCUSD", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }
}
