//! What may be asked of a backtest. No command line here: the caller fills these in.

use std::path::PathBuf;
use std::str::FromStr;

use schemas::config::UserFile;
use schemas::num::parse_decimal;
use schemas::{Decimal, Fraction, Timeframe};
use toml::{Table, Value};

/// An option's text means nothing; what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} `{value}`: {allowed}")]
pub struct OptionError {
    pub option: &'static str,
    pub value: String,
    pub allowed: String,
}

fn wrong(option: &'static str, value: &str, allowed: impl Into<String>) -> OptionError {
    OptionError { option, value: value.to_owned(), allowed: allowed.into() }
}

/// How large a position is, when it is not risk that decides.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sizing {
    /// This many units, in the instrument's size unit; positive.
    Fixed(Decimal),
    /// This share of the equity, valued at the fill's price before fees.
    Equity(Fraction),
}

impl FromStr for Sizing {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let bad = || {
            wrong(
                "--sizing",
                text,
                "allowed are risk, fixed:<units above 0> and equity:<share in 0..=1>, such as fixed:1, equity:0.5",
            )
        };
        let (kind, number) = text.split_once(':').ok_or_else(bad)?;
        let number = parse_decimal(number).map_err(|_| bad())?;
        match kind {
            "fixed" if number > Decimal::ZERO => Ok(Self::Fixed(number)),
            "equity" if number > Decimal::ZERO => Ok(Self::Equity(Fraction::new(number).map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }
}

/// A strategy's kind and the parameters that differ from its defaults.
#[derive(Clone, PartialEq, Debug)]
pub struct StrategyChoice {
    pub kind: String,
    pub params: Table,
}

impl FromStr for StrategyChoice {
    type Err = OptionError;
    /// A kind of the registry, or a short name that holds periods: `ema_cross_9_21`, `rsi14_mean_reversion`.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        if strategy::voter::find(text).is_some() {
            return Ok(Self { kind: text.to_owned(), params: Table::new() });
        }
        let count = |text: &str| text.parse::<i64>().ok();
        if let Some((fast, slow)) = text.strip_prefix("ema_cross_").and_then(|rest| rest.split_once('_'))
            && let (Some(fast), Some(slow)) = (count(fast), count(slow))
        {
            return Ok(Self::with("ema_cross", [("fast", fast), ("slow", slow)]));
        }
        if let Some(period) =
            text.strip_prefix("rsi").and_then(|rest| rest.strip_suffix("_mean_reversion")).and_then(count)
        {
            return Ok(Self::with("rsi_mean_reversion", [("period", period)]));
        }
        let known: Vec<_> = strategy::STRATEGIES.iter().map(|kind| kind.name()).collect();
        let short = "ema_cross_<fast>_<slow>, rsi<period>_mean_reversion";
        Err(wrong("--strategy", text, format!("allowed are {}, {short}", known.join(", "))))
    }
}

impl StrategyChoice {
    fn with<const N: usize>(kind: &str, params: [(&str, i64); N]) -> Self {
        let params = params.into_iter().map(|(key, value)| (key.to_owned(), Value::Integer(value))).collect();
        Self { kind: kind.to_owned(), params }
    }

    /// Lays `key=value` parameters over those of the name; values as in TOML.
    pub fn param(mut self, text: &str) -> Result<Self, OptionError> {
        let bad = || wrong("--param", text, "must be key=value, such as fast=12");
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let table: Table = format!("value = {value}").parse().map_err(|_| bad())?;
        self.params.insert(key.trim().to_owned(), table["value"].clone());
        Ok(self)
    }
}

/// `--sizing` as typed: `risk`, or a [`Sizing`].
pub fn sizing(text: &str) -> Result<Option<Sizing>, OptionError> {
    if text == "risk" { Ok(None) } else { text.parse().map(Some) }
}

/// How a backtest executes orders: `next-open`, `next-trade` or `book` as typed, the executor's name for it.
pub fn fill_model(text: &str) -> Result<String, OptionError> {
    let id = text.replace('-', "_");
    if executor::fill::model(&id).is_some() {
        return Ok(id);
    }
    let known: Vec<_> = executor::fill::MODELS.iter().map(|m| m.id().replace('_', "-")).collect();
    Err(wrong("--fill-model", text, format!("allowed are {}", known.join(", "))))
}

/// A candle backtest.
#[derive(Clone, Debug)]
pub struct CandleOptions {
    /// CSV (gzip when the name ends in `.gz`) with `open_ts_ms,open,high,low,close,volume`; more columns allowed.
    pub candles: PathBuf,
    pub strategy: StrategyChoice,
    /// `None`: risk decides, with its limits.
    pub sizing: Option<Sizing>,
    /// Per side, in 0.01 % of the notional.
    pub fee_bps: Decimal,
    /// Taker fills are worse by this much.
    pub slippage_bps: Decimal,
    pub initial_cash: Decimal,
    /// The user's configuration: `[risk]` and `[executor]` count here too, below the options above.
    pub user: Option<UserFile>,
}

/// A trades backtest.
#[derive(Clone, Debug)]
pub struct TradeOptions {
    /// CSV of the ticks form: `seq,ts_ns,trade_id,price,qty,side`; more columns allowed.
    pub trades: PathBuf,
    pub strategy: StrategyChoice,
    /// Candles that the strategy looks at.
    pub timeframe: Timeframe,
    /// The executor's name of a fill model.
    pub fill_model: String,
    /// Decision to venue, event time.
    pub latency_ns: i64,
    /// `None`: risk decides, with its limits.
    pub sizing: Option<Sizing>,
    pub fee_bps: Decimal,
    pub slippage_bps: Decimal,
    pub initial_cash: Decimal,
    pub venue: String,
    pub symbol: String,
    /// Spot: risk lets nobody go short. Otherwise a linear perpetual.
    pub spot: bool,
    /// The user's configuration: `[risk]`, `[executor]`, `[aggregate]` count here too, below the options above.
    pub user: Option<UserFile>,
}

impl TradeOptions {
    /// Everything but the file and the strategy as people usually want it. Venue and symbol come from a file name
    /// such as `binance_spot_BTCUSDT_2024-08-08T2354.trades.csv.gz`, else they are `recording` and `TAPE`.
    pub fn new(trades: PathBuf, strategy: StrategyChoice) -> Self {
        let name = trades.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (venue, symbol) = market_of(&name).unwrap_or_else(|| ("recording".to_owned(), "TAPE".to_owned()));
        Self {
            spot: venue == "binance" || venue == "kraken",
            trades,
            strategy,
            timeframe: "1m".parse().expect("Invariant: a default timeframe"),
            fill_model: "next_trade".to_owned(),
            latency_ns: 50_000_000,
            sizing: None,
            fee_bps: Decimal::from(5),
            slippage_bps: Decimal::ZERO,
            initial_cash: Decimal::from(100_000),
            venue,
            symbol,
            user: None,
        }
    }
}

/// Venue id and symbol in the name of a recording.
pub(crate) fn market_of(name: &str) -> Option<(String, String)> {
    let mut parts = name.split('_');
    let (exchange, second) = (parts.next()?, parts.next()?);
    let (venue, symbol) = match (exchange, second) {
        ("binance", "spot") => ("binance", parts.next()?),
        ("binance", "usdm") => ("binance-usdm", parts.next()?),
        ("bitmex" | "kraken" | "deribit", symbol) => (exchange, symbol),
        _ => return None,
    };
    symbol.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| (venue.to_owned(), symbol.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_of_strategies_hold_their_periods() {
        let ema: StrategyChoice = "ema_cross_9_21".parse().unwrap();
        assert_eq!(
            (ema.kind.as_str(), ema.params["fast"].as_integer(), ema.params["slow"].as_integer()),
            ("ema_cross", Some(9), Some(21))
        );
        let rsi: StrategyChoice = "rsi14_mean_reversion".parse().unwrap();
        assert_eq!((rsi.kind.as_str(), rsi.params["period"].as_integer()), ("rsi_mean_reversion", Some(14)));
        for kind in strategy::STRATEGIES {
            assert_eq!(kind.name().parse::<StrategyChoice>().unwrap().kind, kind.name());
        }
        let low = rsi.param("low=25.5").unwrap();
        assert_eq!(low.params["low"].as_float(), Some(25.5));
    }

    #[test]
    fn what_means_nothing_says_what_is_allowed() {
        assert!(
            "ema_cross_x_21".parse::<StrategyChoice>().unwrap_err().to_string().contains("ema_cross_<fast>_<slow>")
        );
        for text in ["fixed:0", "fixed:-1", "equity:1.5", "equity:0", "all", "fixed:many"] {
            assert!(text.parse::<Sizing>().unwrap_err().to_string().contains("equity:<share in 0..=1>"), "{text}");
        }
        assert_eq!((sizing("risk").unwrap(), sizing("fixed:2").unwrap()), (None, Some(Sizing::Fixed(Decimal::TWO))));
        assert_eq!(fill_model("next-open").unwrap(), "next_open");
        assert!(fill_model("last-close").unwrap_err().to_string().contains("next-trade"));
    }

    #[test]
    fn a_recordings_name_tells_its_market() {
        assert_eq!(
            market_of("binance_usdm_BTCUSDT_2024-08-08T2354.trades.csv.gz"),
            Some(("binance-usdm".into(), "BTCUSDT".into()))
        );
        assert_eq!(
            market_of("bitmex_XBTUSD_2018-01-01_2018-01-02.trades.csv.gz"),
            Some(("bitmex".into(), "XBTUSD".into()))
        );
        assert_eq!(market_of("mine.csv"), None);
    }
}
