//! The two backtests: which cores sit at the queue, what the tape puts in, what is added up.

use std::collections::BTreeMap;

use aggregate::core::AggregateCore;
use anyhow::Context;
use executor::ExecutorCore;
use schemas::config::UserFile;
use schemas::desk::Refusal;
use schemas::exec::{Fill, Funding};
use schemas::fixed::mantissa_at;
use schemas::instrument::{InstrumentKind, SizeUnit};
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::raw::{Clock, PACK_MAX, Trade, Trades};
use schemas::subject::{self, stream};
use schemas::{Cause, Decimal, Fact, Instrument, Nanos, Notional, Price, PriceM, Qty, QtyM, Scale, Timeframe, Version};
use strategy::StrategyCore;
use toml::{Table, Value};

use crate::account::Account;
use crate::doubles::Doubles;
use crate::metrics::Stats;
use crate::options::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
use crate::queue::{Input, Queue, Recorded};
use crate::report::Report;
use crate::sizing::{Sizer, When};
use crate::tape::{self, Bar, Print};

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
    join_desk(&mut queue, options.sizing, When::NextOpen, options.initial_cash, user)?;
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
pub fn run_trades(options: &TradeOptions, mut progress: impl FnMut(Progress)) -> anyhow::Result<Report> {
    let (venue, symbol, timeframe) = (options.venue.as_str(), options.symbol.as_str(), options.timeframe);
    let p = subject::partition(venue, symbol, subject::PARTITIONS);
    let user = options.user.as_ref();
    let (raw, agg) = (stream::raw(venue), stream::aggregate(venue, p));
    let mut queue = Queue::new(ACCOUNT, false);

    let rules = strategy_config(&options.strategy, timeframe)?;
    let mut folding = aggregate::config::Config::load(user)?;
    folding.timeframes = vec![timeframe];
    folding.fill.retain(|tf| *tf == timeframe);
    folding.preview_timeframes = Vec::new();
    let outputs = outputs_of(&rules)?;
    folding.indicator_timeframes = if outputs.is_some() { vec![timeframe] } else { Vec::new() };
    folding.indicators = outputs.unwrap_or_default();
    let grace_ns = folding.grace_ns(venue);
    queue.join("aggregate", Input::Stream(raw.clone()), agg.clone(), AggregateCore::new(&folding)?);
    queue.join("strategy", Input::Stream(agg), stream::signal(venue, p), StrategyCore::new(&rules)?);
    join_desk(&mut queue, options.sizing, When::Now, options.initial_cash, user)?;
    let config = executor_config(user, &options.fill_model, options.latency_ns, options.fee_bps, options.slippage_bps)?;
    queue.join("executor", Input::Desk, stream::exec(ACCOUNT), ExecutorCore::new(ACCOUNT, &config));

    let mut run = TradeRun {
        ledger: Ledger::new(options.initial_cash),
        tape: Packer {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            p,
            timeframe,
            grace_ns,
            scale: Scale::default(),
            pack: None,
            newest_ns: i64::MIN,
        },
        queue,
        raw,
    };
    run.ledger.timeframe = Some(timeframe.to_string());
    // The scale must be known before the first order, and it is the widest of the file.
    let mut scale = Scale::default();
    let total = tape::trades(&options.trades, |print| {
        scale = scale.widened(print.price, print.qty);
        Ok(())
    })?;
    run.tape.scale = scale;
    // What is spot cannot be sold short, and risk knows it.
    let kind = if options.spot { InstrumentKind::Spot } else { InstrumentKind::Perpetual };
    let listed = instrument(venue, symbol, kind, scale);
    run.play(vec![(listed.subject(), listed.encode())])?;
    let mut done: u64 = 0;
    tape::trades(&options.trades, |print| {
        done += 1;
        let ts_ns = print.ts_ns;
        let facts = run.tape.push(&print)?;
        run.play(facts)?;
        if done.is_multiple_of(PROGRESS_EVERY) || done == total {
            progress(Progress { done, total: Some(total), ts_ns, fills: run.ledger.account.fills() });
        }
        Ok(())
    })?;
    let facts = run.tape.end();
    run.play(facts)?;
    Ok(run.ledger.report(timeframe, &run.queue))
}

/// Who turns signals into orders: a sizing rule without any limit, or risk with all of its own.
fn join_desk(
    queue: &mut Queue,
    sizing: Option<Sizing>,
    when: When,
    cash: Decimal,
    user: Option<&UserFile>,
) -> anyhow::Result<()> {
    let output = stream::risk(ACCOUNT);
    if let Some(sizing) = sizing {
        queue.join("sizing", Input::Desk, output, Sizer::new(ACCOUNT, sizing, when, cash));
        return Ok(());
    }
    let mut config = risk::Config::load(user)?;
    config.mode = "sim".to_owned();
    config.initial_cash = Notional::new(cash);
    queue.join("risk", Input::Desk, output, risk::RiskCore::new(ACCOUNT, &config)?);
    Ok(())
}

struct TradeRun {
    queue: Queue,
    ledger: Ledger,
    tape: Packer,
    raw: String,
}

impl TradeRun {
    fn play(&mut self, facts: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        for (subject, payload) in facts {
            self.queue.play(&self.raw, subject, payload, &mut |fact| self.ledger.see(fact))?;
        }
        Ok(())
    }
}

/// Trades as packs and clocks. A trade that opens a new bar stands alone in its pack, so that what follows from the
/// bar that it closes is decided before any later trade is heard; quiet bars are closed by clocks on time.
struct Packer {
    venue: String,
    symbol: String,
    p: u32,
    timeframe: Timeframe,
    grace_ns: i64,
    scale: Scale,
    pack: Option<Trades>,
    newest_ns: i64,
}

impl Packer {
    fn push(&mut self, print: &Print) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut facts = Vec::new();
        let bucket = |ts_ns: i64| self.timeframe.open_of(Nanos(ts_ns)).0;
        let first = self.newest_ns == i64::MIN;
        let opens = !first && bucket(self.newest_ns) < bucket(print.ts_ns);
        if opens {
            facts.extend(self.flush());
            facts.extend(self.clocks(print.ts_ns));
        }
        let digits = |value, scale| mantissa_at(value, scale).with_context(|| format!("{value} at {scale} digits"));
        let trade = Trade {
            ts: Nanos(print.ts_ns),
            recv: Nanos(print.ts_ns),
            id: print.id,
            price: PriceM(digits(print.price, self.scale.price)?),
            size: QtyM(digits(print.qty, self.scale.qty)?),
            side: print.side,
        };
        let pack = self.pack.get_or_insert_with(|| Trades::new(self.p, &self.venue, &self.symbol, self.scale));
        pack.push(trade);
        let full = pack.len() == PACK_MAX;
        if first || opens || full {
            facts.extend(self.flush());
        }
        self.newest_ns = self.newest_ns.max(print.ts_ns);
        Ok(facts)
    }

    fn flush(&mut self) -> Option<(String, Vec<u8>)> {
        self.pack.take().map(|pack| (pack.subject(), pack.encode()))
    }

    /// A clock behind the end of every bar that closed before `until_ns`, as far as the time between two trades
    /// allows.
    fn clocks(&self, until_ns: i64) -> Vec<(String, Vec<u8>)> {
        let mut facts = Vec::new();
        let mut close_ns = self.timeframe.close_of(self.timeframe.open_of(Nanos(self.newest_ns))).0;
        while close_ns + self.grace_ns < until_ns {
            facts.push(self.clock(close_ns + self.grace_ns));
            close_ns += self.timeframe.ns();
        }
        facts
    }

    fn clock(&self, watermark_ns: i64) -> (String, Vec<u8>) {
        let clock = Clock { v: Version, venue: self.venue.clone(), p: self.p, watermark_ns, wall_ns: watermark_ns };
        (clock.subject(), clock.encode())
    }

    /// The last bar closes too, so that the equity shows everything that happened.
    fn end(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut facts: Vec<_> = self.flush().into_iter().collect();
        let close_ns = self.timeframe.close_of(self.timeframe.open_of(Nanos(self.newest_ns))).0;
        facts.push(self.clock(close_ns + self.grace_ns));
        facts
    }
}

/// Adds up what the queue says.
struct Ledger {
    account: Account,
    kinds: BTreeMap<String, u64>,
    /// By limit.
    refusals: BTreeMap<String, u64>,
    /// Timeframe whose closes mark the account; `None` where the caller marks it.
    timeframe: Option<String>,
}

impl Ledger {
    fn new(initial_cash: Decimal) -> Self {
        Self { account: Account::new(initial_cash), kinds: BTreeMap::new(), refusals: BTreeMap::new(), timeframe: None }
    }

    fn report(self, timeframe: Timeframe, queue: &Queue) -> Report {
        let stats = Stats::of(&self.account, timeframe);
        let (trips, equity) = self.account.into_parts();
        let (facts, hash) = (queue.facts(), queue.hash());
        Report { trips, equity, stats, facts, hash, kinds: self.kinds, refusals: self.refusals }
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
            "candle" if self.timeframe.is_some() => {
                let candle = Candle::decode(&fact.payload)?;
                if self.timeframe.as_deref() == Some(candle.tf.as_str()) {
                    self.account.on_close(candle.open_time().as_ms(), candle.close);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The strategy alone, on one timeframe.
fn strategy_config(choice: &StrategyChoice, timeframe: Timeframe) -> anyhow::Result<strategy::Config> {
    let mut rule = Table::new();
    rule.insert("timeframe".to_owned(), Value::String(timeframe.to_string()));
    rule.insert("params".to_owned(), Value::Table(choice.params.clone()));
    Ok(strategy::Config::only(&choice.kind, rule)?)
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
fn instrument(venue: &str, symbol: &str, kind: InstrumentKind, scale: Scale) -> Instrument {
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
        cause: candle.cause.clone(),
    }
}

#[cfg(test)]
mod tests;
