//! Backtests: which cores play, what the tape puts in, what is added up. Trades play on the [`Engine`], candles on
//! the [`Queue`].

use std::collections::BTreeMap;

use executor::ExecutorCore;
use schemas::config::UserFile;
use schemas::desk::Refusal;
use schemas::exec::{Fill, Funding};
use schemas::instrument::{InstrumentKind, SizeUnit};
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::subject::{self, stream};
use schemas::{Cause, Decimal, Fact, Instrument, Nanos, Notional, Price, Qty, Scale, Timeframe, Version};
use strategy::StrategyCore;

use crate::account::Account;
use crate::doubles::Doubles;
use crate::engine::{self, Engine};
use crate::fact::{Entry, Typed};
use crate::metrics::Stats;
use crate::options::{CandleOptions, Sizing, TradeOptions};
use crate::portfolio::Portfolio;
use crate::queue::{Input, Queue, Recorded};
use crate::report::{Background, Report};
use crate::setup::{Setup, strategy_config};
use crate::sizing::{Sizer, When};
use crate::source::{Tape, TradesFile, trades_tape};
use crate::tape::{self, Bar};

/// The account of a backtest.
const ACCOUNT: &str = "backtest";
/// Streams of the tape itself in a candle backtest.
const TAPE: &str = "TAPE";
const CANDLE_VENUE: &str = "recording";
const CANDLE_SYMBOL: &str = "TAPE";
/// A progress call for at least this many facts of the tape.
const PROGRESS_EVERY: u64 = 4_096;

/// How far a backtest is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// Candles or trades played.
    pub done: u64,
    /// Absent while it is not known (trades are read as they come).
    pub total: Option<u64>,
    /// Event time of the newest one.
    pub ts_ns: i64,
    pub fills: u64,
}

/// Plays candles: each as its open, where waiting orders execute, and as its close, which the strategy hears.
pub fn run_candles(options: &CandleOptions, mut progress: impl FnMut(Progress)) -> anyhow::Result<Report> {
    let (bars, timeframe) = tape::candles(&options.candles)?;
    let p = subject::partition(CANDLE_VENUE, CANDLE_SYMBOL, subject::PARTITIONS);
    let mut queue = Queue::new(ACCOUNT, true);
    let rules = strategy_config(&options.strategy, timeframe)?;
    let signals = stream::signal(CANDLE_VENUE, p);
    queue.join("strategy", Input::Stream(TAPE.to_owned()), signals, StrategyCore::new(&rules)?);
    let user = options.user.as_ref();
    join_desk(&mut queue, options.sizing, options.initial_cash, user)?;
    let mut config = executor_config(user, "next_open", 0, options.fee_bps, options.slippage_bps)?;
    config.fill.candle_timeframe = timeframe;
    config.check()?;
    queue.join("executor", Input::Desk, stream::exec(ACCOUNT), ExecutorCore::new(ACCOUNT, &config));
    let mut indicators = outputs_of(&rules)?
        .map(|outputs| aggregate::indicator::Set::new(Some(&outputs), timeframe.seconds()))
        .transpose()?;

    let mut ledger = Ledger::new(options.initial_cash);
    if let Some(Sizing::Equity(share)) = options.sizing {
        let double = |value: Decimal| Notional::new(value).to_f64();
        let fee_rate = double(options.fee_bps / Decimal::from(10_000));
        let doubles = Doubles::new(double(share.get()), fee_rate, double(options.initial_cash));
        ledger.account = ledger.account.with_doubles(doubles);
    }
    let digits = bars.iter().fold(Scale::default(), |s, b| s.widened(b.open.get(), b.volume.get()));
    let instrument = instrument(CANDLE_VENUE, CANDLE_SYMBOL, InstrumentKind::Perpetual, digits);
    queue.play(TAPE, instrument.subject(), instrument.encode(), &mut |fact| ledger.see(fact))?;
    let total = bars.len() as u64;
    for (i, bar) in bars.iter().enumerate() {
        let (forming, closed) = (candle(bar, timeframe, p, ClosedBy::Open), candle(bar, timeframe, p, ClosedBy::Count));
        queue.play(TAPE, forming.subject(), forming.encode(), &mut |fact| ledger.see(fact))?;
        queue.play(TAPE, closed.subject(), closed.encode(), &mut |fact| ledger.see(fact))?;
        if let Some(set) = &mut indicators {
            let values = values(set, &closed);
            queue.play(TAPE, values.subject(), values.encode(), &mut |fact| ledger.see(fact))?;
        }
        ledger.account.on_close(bar.open_ms, bar.close);
        let done = i as u64 + 1;
        if done.is_multiple_of(PROGRESS_EVERY) || done == total {
            progress(Progress { done, total: Some(total), ts_ns: closed.close_ns, fills: ledger.account.fills() });
        }
    }
    Ok(ledger.report(timeframe, &queue))
}

/// Plays trades through aggregate, strategy, risk (or a sizing rule) and executor.
pub fn run_trades(options: &TradeOptions, progress: impl FnMut(Progress)) -> anyhow::Result<Report> {
    let setup = trades_setup(options)?;
    let (venue, symbol) = (options.venue.clone(), options.symbol.clone());
    let file = TradesFile { path: options.trades.clone(), venue, symbol, spot: options.spot };
    let grace_ns = |venue: &str| setup.aggregate.grace_ns(venue);
    let mut tape = trades_tape(&[file], setup.timeframe_min(), grace_ns)?;
    play(&setup, &mut tape, progress)
}

/// The cores of a trades backtest.
pub fn trades_setup(options: &TradeOptions) -> anyhow::Result<Setup> {
    let user = options.user.as_ref();
    let mut setup = Setup::of(user)?.with_strategy(&options.strategy, options.timeframe)?;
    setup.account = ACCOUNT.to_owned();
    setup.executor =
        executor_config(user, &options.fill_model, options.latency_ns, options.fee_bps, options.slippage_bps)?;
    Ok(setup.with_cash(options.initial_cash).with_sizing(options.sizing))
}

/// Plays a tape through the cores of a setup, to its end.
pub fn play(setup: &Setup, tape: &mut dyn Tape, progress: impl FnMut(Progress)) -> anyhow::Result<Report> {
    play_before(setup, tape, None, progress)
}

/// As [`play`], with the candles and gaps of the run kept in `background` for the report.
pub fn play_before(
    setup: &Setup,
    tape: &mut dyn Tape,
    mut background: Option<&mut Background>,
    mut progress: impl FnMut(Progress),
) -> anyhow::Result<Report> {
    let tf = setup.timeframe_marking()?.to_string();
    let mut portfolio = Portfolio::new(setup.cash(), setup.timeframe_marking()?);
    let mut engine = Engine::new(setup)?;
    let total = tape.ticks_total();
    let (mut done, mut shown, mut ts_ns) = (0, 0, 0);
    watch(&mut engine, tape, |entry, of_tape| {
        portfolio.see(entry);
        if let Some(background) = &mut background {
            background.hear(&entry.fact, &tf);
        }
        if of_tape {
            done += engine::ticks(&entry.fact);
            ts_ns = entry.fact.ts_ns().unwrap_or(ts_ns);
            if shown + PROGRESS_EVERY <= done {
                shown = done;
                progress(Progress { done, total, ts_ns, fills: portfolio.fills() });
            }
        }
        Ok(())
    })?;
    progress(Progress { done, total, ts_ns, fills: portfolio.fills() });
    if let Some(background) = background {
        background.settle();
    }
    portfolio.report(engine.facts(), engine.hash())
}

/// Plays a tape to its end; `see` hears every fact in its order, and whether the tape holds it.
pub fn watch(
    engine: &mut Engine,
    tape: &mut dyn Tape,
    mut see: impl FnMut(&Entry, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (i, instrument) in tape.instruments()?.into_iter().enumerate() {
        let stream = format!("KV_{}", stream::KV_INSTRUMENTS);
        let place = schemas::Place::new(&stream, i as u64 + 1);
        let entry = Entry { place, fact: Typed::Instrument(Box::new(instrument)) };
        engine.play(entry, &mut |entry| see(entry, !entry.fact.is_said()))?;
    }
    while let Some(entry) = tape.next()? {
        engine.play(entry, &mut |entry| see(entry, !entry.fact.is_said()))?;
    }
    Ok(())
}

/// Who turns signals into orders: a sizing rule without any limit, or risk with all of its own.
fn join_desk(queue: &mut Queue, sizing: Option<Sizing>, cash: Decimal, user: Option<&UserFile>) -> anyhow::Result<()> {
    let output = stream::risk(ACCOUNT);
    if let Some(sizing) = sizing {
        queue.join("sizing", Input::Desk, output, Sizer::new(ACCOUNT, sizing, When::NextOpen, cash));
        return Ok(());
    }
    let mut config = risk::Config::load(user)?;
    config.mode = "sim".to_owned();
    config.initial_cash = Notional::new(cash);
    queue.join("risk", Input::Desk, output, risk::RiskCore::new(ACCOUNT, &config)?);
    Ok(())
}

/// Adds up what the queue says.
struct Ledger {
    account: Account,
    kinds: BTreeMap<String, u64>,
    /// By limit.
    refusals: BTreeMap<String, u64>,
}

impl Ledger {
    fn new(initial_cash: Decimal) -> Self {
        Self { account: Account::new(initial_cash), kinds: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    fn report(self, timeframe: Timeframe, queue: &Queue) -> Report {
        let stats = Stats::of(&self.account, timeframe);
        let (trips, equity) = self.account.into_parts();
        let (facts, hash) = (queue.facts(), queue.hash());
        let (kinds, refusals) = (self.kinds, self.refusals);
        Report { trips, markets: Vec::new(), equity, stats, facts, hash, kinds, refusals }
    }

    fn see(&mut self, fact: &Recorded) -> anyhow::Result<()> {
        let mut tokens = fact.subject.split('.');
        let head = tokens.next().unwrap_or("");
        let kind = if head == "raw" { tokens.nth(2).unwrap_or(head) } else { head };
        match self.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.kinds.insert(kind.to_owned(), 1);
            }
        }
        match kind {
            "fill" => self.account.on_fill(&Fill::decode(&fact.payload)?),
            "refusal" => *self.refusals.entry(Refusal::decode(&fact.payload)?.limit).or_default() += 1,
            "funding" => self.account.on_funding(&Funding::decode(&fact.payload)?),
            _ => {}
        }
        Ok(())
    }
}

/// Indicator outputs that the configured rule declares; `None` where it runs on candles alone.
fn outputs_of(config: &strategy::Config) -> anyhow::Result<Option<Vec<String>>> {
    let mut outputs = Vec::new();
    for rule in config.rules()? {
        outputs.extend(rule.kind()?.0.outputs().iter().map(|name| (*name).to_owned()));
    }
    Ok((!outputs.is_empty()).then_some(outputs))
}

/// The executor as the options want it; one fee for makers and takers of all venues.
fn executor_config(
    user: Option<&UserFile>,
    model: &str,
    latency_ns: i64,
    fee_bps: Decimal,
    slippage_bps: Decimal,
) -> anyhow::Result<executor::Config> {
    let mut config = executor::Config::load(user)?;
    config.mode = "sim".to_owned();
    config.fill.model = model.to_owned();
    config.fill.latency_ns = latency_ns;
    config.fill.slippage_bps = Price::new(slippage_bps);
    config.fees.maker_bps = Price::new(fee_bps);
    config.fees.taker_bps = Price::new(fee_bps);
    config.fees.venues.clear();
    config.check()?;
    Ok(config)
}

/// What a recording trades: linear, in steps of its own digits. Sizes may be finer: contracts traded in whole numbers
/// are played as coins.
pub(crate) fn instrument(venue: &str, symbol: &str, kind: InstrumentKind, scale: Scale) -> Instrument {
    let step = |digits: u8| Decimal::new(1, u32::from(digits));
    Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        base: String::new(),
        quote: String::new(),
        kind,
        size_unit: SizeUnit::Base,
        contract_size: Qty::new(Decimal::ONE),
        inverse: false,
        tick: Price::new(step(scale.price)),
        lot: Qty::new(step(scale.qty.max(3))),
        min_notional: Notional::ZERO,
        scale,
        trading: true,
        terms: schemas::instrument::Terms::default(),
    }
}

/// A candle of the tape: forming, when only its open is known, or closed.
fn candle(bar: &Bar, timeframe: Timeframe, p: u32, closed_by: ClosedBy) -> Candle {
    let open = Nanos::from_ms(bar.open_ms);
    let forming = closed_by == ClosedBy::Open;
    let seen = |price: Price| if forming { bar.open } else { price };
    Candle {
        v: Version,
        venue: CANDLE_VENUE.to_owned(),
        symbol: CANDLE_SYMBOL.to_owned(),
        p,
        tf: timeframe.to_string(),
        open_ns: open.0,
        close_ns: timeframe.close_of(open).0,
        open: bar.open,
        high: seen(bar.high),
        low: seen(bar.low),
        close: seen(bar.close),
        volume: if forming { Qty::ZERO } else { bar.volume },
        buy_volume: Qty::ZERO,
        quote_volume: Notional::ZERO,
        trades: 0,
        buy_trades: 0,
        first_id: None,
        last_id: None,
        closed_by,
        complete: true,
        filled: false,
        cause: Cause::default(),
    }
}

fn values(set: &mut aggregate::indicator::Set, candle: &Candle) -> Indicators {
    set.update(&aggregate::indicator::Ohlcv::from(candle));
    Indicators {
        v: Version,
        venue: candle.venue.clone(),
        symbol: candle.symbol.clone(),
        p: candle.p,
        tf: candle.tf.clone(),
        open_ns: candle.open_ns,
        close_ns: candle.close_ns,
        close: candle.close,
        complete: candle.complete,
        values: set
            .values()
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        // Bars of a tape are whole.
        gaps: Default::default(),
        cause: candle.cause.clone(),
    }
}

#[cfg(test)]
mod tests;
