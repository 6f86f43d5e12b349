//! Which cores play, and as what they are configured.

use schemas::config::UserFile;
use schemas::{Decimal, Notional, Price, Timeframe};
use strategy::StrategyCore;
use strategy::voter::{Params, StrategyKind};
use toml::{Table, Value};

use crate::engine::Wire;
use crate::options::{Sizing, StrategyChoice};

/// The rules of a lane.
#[derive(Clone)]
pub enum Strategies {
    /// As configured.
    Rules(strategy::Config),
    /// One rule thought by a kind that need not stand in the registry.
    Kind { rule: strategy::Rule, kind: &'static dyn StrategyKind, params: Params },
}

impl Strategies {
    pub fn start(&self) -> anyhow::Result<StrategyCore> {
        Ok(match self {
            Self::Rules(config) => StrategyCore::new(config)?,
            Self::Kind { rule, kind, params } => StrategyCore::thinking(rule.clone(), *kind, params.clone()),
        })
    }

    /// The rules that are enabled.
    pub fn rules(&self) -> anyhow::Result<Vec<strategy::Rule>> {
        Ok(match self {
            Self::Rules(config) => config.rules()?,
            Self::Kind { rule, .. } => vec![rule.clone()],
        })
    }
}

/// Who decides sizes.
#[derive(Clone)]
pub enum Desk {
    /// Risk, with all of its limits.
    Risk(Box<risk::Config>),
    /// A rule without any limit.
    Sizing { sizing: Sizing, cash: Decimal },
}

/// The cores of one backtest.
#[derive(Clone)]
pub struct Setup {
    pub account: String,
    pub aggregate: aggregate::config::Config,
    pub strategies: Strategies,
    pub desk: Desk,
    pub executor: executor::Config,
    /// The executor hears full order books. A live desk carries quotes only.
    pub books: bool,
    /// Hash what is said.
    pub hash: bool,
    pub wire: Wire,
}

impl Setup {
    /// The stages as the user's configuration has them, all rules and timeframes: what a live pipeline would run.
    pub fn of(user: Option<&UserFile>) -> anyhow::Result<Self> {
        let mut aggregate = aggregate::config::Config::load(user)?;
        // Never stored, so nobody here hears them.
        aggregate.preview_timeframes = Vec::new();
        let mut risk = risk::Config::load(user)?;
        risk.mode = "sim".to_owned();
        let mut executor = executor::Config::load(user)?;
        executor.mode = "sim".to_owned();
        Ok(Self {
            account: risk.accounts.first().cloned().unwrap_or_else(|| "main".to_owned()),
            aggregate,
            strategies: Strategies::Rules(strategy::Config::load(user)?),
            desk: Desk::Risk(Box::new(risk)),
            executor,
            books: false,
            hash: true,
            wire: Wire::Typed,
        })
    }

    /// One strategy on one timeframe and no other; aggregate makes what it looks at and nothing else.
    pub fn with_strategy(mut self, choice: &StrategyChoice, timeframe: Timeframe) -> anyhow::Result<Self> {
        self.strategies = Strategies::Rules(strategy_config(choice, timeframe)?);
        self.narrow()?;
        Ok(self)
    }

    /// Leaves away timeframes and indicators that no rule looks at.
    pub fn narrow(&mut self) -> anyhow::Result<()> {
        let (mut timeframes, mut outputs) = (Vec::new(), Vec::new());
        let mut joined: Vec<Timeframe> = Vec::new();
        for rule in self.strategies.rules()? {
            let kind = match &self.strategies {
                Strategies::Kind { kind, .. } => *kind,
                Strategies::Rules(_) => rule.kind()?.0,
            };
            let higher = kind.higher_outputs().unwrap_or(&[]);
            for (timeframe, names) in [(&rule.timeframe, kind.outputs()), (&rule.higher_timeframe, higher)] {
                // Bars that close by what was traded have no length; they stand in their own table.
                let Ok(timeframe) = timeframe.parse::<Timeframe>() else { continue };
                timeframes.push(timeframe);
                if !names.is_empty() {
                    joined.push(timeframe);
                    outputs.extend(names.iter().map(|name| (*name).to_owned()));
                }
            }
        }
        outputs.sort_unstable();
        outputs.dedup();
        timeframes.sort_unstable();
        timeframes.dedup();
        if timeframes.is_empty() {
            return Ok(());
        }
        let aggregate = &mut self.aggregate;
        aggregate.fill.retain(|tf| timeframes.contains(tf));
        aggregate.indicator_timeframes = timeframes.iter().copied().filter(|tf| joined.contains(tf)).collect();
        aggregate.indicators = outputs;
        aggregate.timeframes = timeframes;
        // A higher timeframe that the lower one does not divide needs one that divides both.
        if aggregate.check().is_err() {
            aggregate.timeframes.insert(0, "1s".parse().expect("Invariant: a timeframe"));
        }
        aggregate.check()?;
        Ok(())
    }

    /// Money at the start.
    pub fn cash(&self) -> Decimal {
        match &self.desk {
            Desk::Risk(config) => config.initial_cash.get(),
            Desk::Sizing { cash, .. } => *cash,
        }
    }

    pub fn with_cash(mut self, money: Decimal) -> Self {
        match &mut self.desk {
            Desk::Risk(config) => config.initial_cash = Notional::new(money),
            Desk::Sizing { cash, .. } => *cash = money,
        }
        self
    }

    /// Sizes by rule instead of by risk.
    pub fn with_sizing(mut self, sizing: Option<Sizing>) -> Self {
        if let Some(sizing) = sizing {
            self.desk = Desk::Sizing { sizing, cash: self.cash() };
        }
        self
    }

    /// One fee for makers and takers of all venues, in 0.01 % of the notional.
    pub fn with_fee(mut self, fee_bps: Decimal) -> Self {
        self.executor.fees.maker_bps = Price::new(fee_bps);
        self.executor.fees.taker_bps = Price::new(fee_bps);
        self.executor.fees.venues.clear();
        self
    }

    /// The smallest candle that is made.
    pub fn timeframe_min(&self) -> Timeframe {
        let smallest = self.aggregate.timeframes.iter().min().copied();
        smallest.expect("Invariant: a checked configuration has a timeframe")
    }

    /// The candles whose closes mark the account: the smallest that a rule looks at.
    pub fn timeframe_marking(&self) -> anyhow::Result<Timeframe> {
        let of_rules = self.strategies.rules()?.iter().filter_map(|rule| rule.timeframe.parse().ok()).min();
        Ok(of_rules.unwrap_or_else(|| self.timeframe_min()))
    }
}

/// The strategy alone, on one timeframe.
pub(crate) fn strategy_config(choice: &StrategyChoice, timeframe: Timeframe) -> anyhow::Result<strategy::Config> {
    let mut rule = Table::new();
    rule.insert("timeframe".to_owned(), Value::String(timeframe.to_string()));
    rule.insert("params".to_owned(), Value::Table(choice.params.clone()));
    Ok(strategy::Config::only(&choice.kind, rule)?)
}
