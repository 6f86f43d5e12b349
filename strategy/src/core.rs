//! Rule strategies over the facts of one partition: candles and indicators in, signals out.
//!
//! A closed bar reaches a strategy once: with its candle, or, where the kind declared indicator outputs, once the
//! candle and the indicators of the same open are both heard. A signal follows when the opinion changes or must
//! be said again (`reaffirm`), and says how many bars over a gap stand behind it (`gap_bars`). Bars that were not seen whole, and bars far behind the newest one heard, warm
//! strategies up and are not spoken on.

use std::collections::{BTreeMap, BTreeSet};

use schemas::config::ConfigError;
use schemas::holes::Holes;
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::signal::{Signal, Stance};
use schemas::subject::Tokens;
use schemas::{Cause, Core, Fact, Fault, Listen, Nanos, Place, Version, WireError};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Reaffirm, Rule};
use crate::voter::{Bar, Opinion, Params, StrategyKind, Voter};

/// What the core hears of `AGG_<VENUE>_<p>`.
#[derive(Clone, Debug, PartialEq)]
pub enum In {
    Candle(Candle),
    Indicators(Indicators),
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        match Tokens::of(subject).head() {
            "candle" => Ok(Some(Self::Candle(Candle::decode(payload)?))),
            "indicator" => Ok(Some(Self::Indicators(Indicators::decode(payload)?))),
            _ => Ok(None),
        }
    }
}

schemas::says! {
    /// All that this core can say.
    pub enum Out { Signal(Signal) }
}

/// The rules of one partition. Invariant S-1: it holds candles, indicators and what strategies keep of them;
/// there is no way in for an account, a position, a fill or another strategy's signal.
pub struct StrategyCore {
    plans: Vec<Plan>,
    /// Every timeframe that some rule looks at.
    timeframes: BTreeSet<String>,
    symbols_max: usize,
    books: BTreeMap<(String, String), Book>,
    /// Newest close heard.
    watermark_ns: i64,
}

/// A rule, ready to start for an instrument.
struct Plan {
    rule: Rule,
    kind: &'static dyn StrategyKind,
    params: Params,
    /// Empty when it runs on candles alone.
    outputs: &'static [&'static str],
    higher_outputs: &'static [&'static str],
    /// Closed bars that the kind itself looks back on.
    memory_bars: u32,
    /// What a saved state must have been made with to be taken back.
    fingerprint: String,
}

impl Plan {
    fn new(rule: Rule) -> Result<Self, ConfigError> {
        let (kind, params) = rule.kind()?;
        Ok(Self::thinking(rule, kind, params))
    }
    fn thinking(rule: Rule, kind: &'static dyn StrategyKind, params: Params) -> Self {
        let watches_higher = !rule.higher_timeframe.is_empty();
        let higher_outputs = if watches_higher { kind.higher_outputs().unwrap_or(&[]) } else { &[] };
        let fingerprint = format!("{} {} {} {params:?}", rule.kind, rule.timeframe, rule.higher_timeframe);
        let memory_bars = kind.memory_bars(&params);
        Self { outputs: kind.outputs(), higher_outputs, memory_bars, kind, params, fingerprint, rule }
    }
    fn start(&self) -> Slot {
        Slot {
            voter: self.kind.start(&self.params),
            last_open_ns: None,
            said: None,
            holes: Holes::default(),
            higher: Vec::new(),
            higher_open_ns: None,
            higher_gap_bars: 0,
        }
    }
}

/// One instrument.
#[derive(Default)]
struct Book {
    /// Beside `plans`; `None` where the rule does not watch this instrument.
    slots: Vec<Option<Slot>>,
    /// By timeframe: half of a bar that waits for its other half. One a timeframe: a newer half replaces it.
    waiting: BTreeMap<String, Half>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Half {
    Candle(Candle),
    Indicators(Indicators),
}

/// One strategy at work on one instrument.
struct Slot {
    voter: Box<dyn Voter>,
    /// Open of the newest bar that it heard; an older one, or the same again, is passed over.
    last_open_ns: Option<i64>,
    said: Option<Stance>,
    /// Which of the bars that it looks back on were not seen whole.
    holes: Holes,
    /// Declared outputs of the newest closed bar of the higher timeframe, and bars over a gap behind them.
    higher: Vec<Option<f64>>,
    higher_open_ns: Option<i64>,
    higher_gap_bars: u32,
}

impl StrategyCore {
    /// The enabled rules of `config`.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let plans = config.rules()?.into_iter().map(Plan::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::planned(plans, config.symbols_max))
    }

    /// One rule thought by `kind`, which need not stand in the registry: for whoever tries a strategy of their own.
    pub fn thinking(rule: Rule, kind: &'static dyn StrategyKind, params: Params) -> Self {
        Self::planned(vec![Plan::thinking(rule, kind, params)], Config::default().symbols_max)
    }

    fn planned(plans: Vec<Plan>, symbols_max: usize) -> Self {
        let mut timeframes = BTreeSet::new();
        for plan in &plans {
            timeframes.insert(plan.rule.timeframe.clone());
            if !plan.rule.higher_timeframe.is_empty() {
                timeframes.insert(plan.rule.higher_timeframe.clone());
            }
        }
        Self { plans, timeframes, symbols_max, books: BTreeMap::new(), watermark_ns: i64::MIN }
    }

    /// Folds a closed candle; what strategies say is appended to `out`.
    pub fn on_candle(&mut self, candle: &Candle, cause: &Cause, out: &mut Vec<Signal>) -> Result<(), Fault> {
        self.watermark_ns = self.watermark_ns.max(candle.close_ns);
        let watermark_ns = self.watermark_ns;
        let Some((plans, book)) = self.book(&candle.venue, &candle.symbol, &candle.tf)? else {
            return Ok(());
        };
        let mut joins = false;
        for (plan, slot) in plans.iter().zip(&mut book.slots) {
            let Some(slot) = slot else { continue };
            if plan.rule.timeframe != candle.tf {
                continue;
            }
            if plan.outputs.is_empty() {
                out.extend(slot.on_bar(plan, candle, &Outputs::default(), watermark_ns, cause));
            } else {
                joins = true;
            }
        }
        if !joins {
            return Ok(());
        }
        match book.waiting.remove(&candle.tf) {
            Some(Half::Indicators(values)) if values.open_ns == candle.open_ns => {
                book.on_joined(plans, candle, &values, watermark_ns, cause, out);
            }
            _ => {
                book.waiting.insert(candle.tf.clone(), Half::Candle(candle.clone()));
            }
        }
        Ok(())
    }

    /// Folds the indicators of a closed candle; what strategies say is appended to `out`.
    pub fn on_indicators(&mut self, values: &Indicators, cause: &Cause, out: &mut Vec<Signal>) -> Result<(), Fault> {
        self.watermark_ns = self.watermark_ns.max(values.close_ns);
        let watermark_ns = self.watermark_ns;
        let Some((plans, book)) = self.book(&values.venue, &values.symbol, &values.tf)? else {
            return Ok(());
        };
        for (plan, slot) in plans.iter().zip(&mut book.slots) {
            let Some(slot) = slot else { continue };
            let newer = slot.higher_open_ns.is_none_or(|open| open < values.open_ns);
            if plan.rule.higher_timeframe == values.tf && newer && (values.complete || plan.rule.trade_incomplete) {
                let higher = Outputs::of(plan.higher_outputs, values);
                (slot.higher, slot.higher_gap_bars) = (higher.values, higher.gap_bars);
                slot.higher_open_ns = Some(values.open_ns);
            }
        }
        if !plans.iter().zip(&book.slots).any(|(plan, slot)| slot.is_some() && plan.joins(&values.tf)) {
            return Ok(());
        }
        match book.waiting.remove(&values.tf) {
            Some(Half::Candle(candle)) if candle.open_ns == values.open_ns => {
                book.on_joined(plans, &candle, values, watermark_ns, cause, out);
            }
            _ => {
                book.waiting.insert(values.tf.clone(), Half::Indicators(values.clone()));
            }
        }
        Ok(())
    }

    /// The instrument's book, started when it is heard first; `None` when no rule looks at these bars.
    fn book(&mut self, venue: &str, symbol: &str, tf: &str) -> Result<Option<(&[Plan], &mut Book)>, Fault> {
        if !self.timeframes.contains(tf) {
            return Ok(None);
        }
        let key = (venue.to_owned(), symbol.to_owned());
        if !self.books.contains_key(&key) {
            if self.symbols_max <= self.books.len() {
                return Err(Fault(format!(
                    "{symbol} is instrument {} of this task; symbols_max is {}",
                    self.books.len() + 1,
                    self.symbols_max
                )));
            }
            let started = |plan: &Plan| plan.rule.watches(venue, symbol).then(|| plan.start());
            let book = Book { slots: self.plans.iter().map(started).collect(), waiting: BTreeMap::new() };
            self.books.insert(key.clone(), book);
        }
        Ok(self.books.get_mut(&key).map(|book| (&*self.plans, book)))
    }
}

impl Plan {
    fn joins(&self, tf: &str) -> bool {
        self.rule.timeframe == tf && !self.outputs.is_empty()
    }
}

impl Book {
    fn on_joined(
        &mut self,
        plans: &[Plan],
        candle: &Candle,
        values: &Indicators,
        watermark_ns: i64,
        cause: &Cause,
        out: &mut Vec<Signal>,
    ) {
        for (plan, slot) in plans.iter().zip(&mut self.slots) {
            if let Some(slot) = slot
                && plan.joins(&candle.tf)
            {
                out.extend(slot.on_bar(plan, candle, &Outputs::of(plan.outputs, values), watermark_ns, cause));
            }
        }
    }
}

impl Slot {
    fn on_bar(
        &mut self,
        plan: &Plan,
        candle: &Candle,
        outputs: &Outputs,
        watermark_ns: i64,
        cause: &Cause,
    ) -> Option<Signal> {
        if self.last_open_ns.is_some_and(|last| candle.open_ns <= last) {
            return None;
        }
        self.last_open_ns = Some(candle.open_ns);
        let rule = &plan.rule;
        if candle.closed_by != ClosedBy::History {
            // The venue's own candles end where we began, which is no hole.
            self.holes.push(candle.complete, plan.memory_bars);
        }
        let bar = Bar::new(candle, &outputs.values, &self.higher, !rule.higher_timeframe.is_empty());
        // Heard in any case, so that averages stay right; what follows decides only whether it is said.
        let opinion = self.voter.on_bar(&bar)?;
        if candle.closed_by == ClosedBy::History {
            return None;
        }
        let whole = candle.complete || rule.trade_incomplete;
        let fresh = rule.stale_ns().is_none_or(|stale_ns| watermark_ns - candle.close_ns <= stale_ns);
        if !whole || !fresh {
            return None;
        }
        let again = match rule.reaffirm {
            Reaffirm::Never => false,
            Reaffirm::Open => opinion.side != Stance::Flat,
            Reaffirm::Always => true,
        };
        let changed = self.said != Some(opinion.side);
        self.said = Some(opinion.side);
        let gap_bars = self.holes.among(plan.memory_bars).max(outputs.gap_bars).max(self.higher_gap_bars);
        (changed || again).then(|| Signal { gap_bars, ..signal(rule, candle, opinion, cause) })
    }
}

/// Outputs that a kind declared.
#[derive(Default)]
struct Outputs {
    /// In the order that the kind declared; `None` while one is not warmed up.
    values: Vec<Option<f64>>,
    /// Bars over a gap behind them.
    gap_bars: u32,
}

impl Outputs {
    fn of(names: &[&str], said: &Indicators) -> Self {
        let finite = |name: &&str| said.values.get(*name).copied().filter(|x| x.is_finite());
        Self { values: names.iter().map(finite).collect(), gap_bars: said.gap_bars(names) }
    }
}

fn signal(rule: &Rule, candle: &Candle, opinion: Opinion, cause: &Cause) -> Signal {
    Signal {
        v: Version,
        origin: candle.p.to_string(),
        strategy: rule.name.clone(),
        venue: candle.venue.clone(),
        symbol: candle.symbol.clone(),
        timeframe: candle.tf.clone(),
        side: opinion.side,
        strength: rule.strength,
        confidence: rule.confidence,
        ts_ns: candle.close_ns,
        valid_until_ns: candle.close_ns.saturating_add(rule.valid_ns()),
        reason: crate::text::plain(&opinion.reason, 400),
        stop_loss: None,
        take_profit: None,
        gap_bars: 0,
        cause: cause.clone(),
    }
}

/// A core between two facts.
#[derive(Serialize, Deserialize)]
struct Saved {
    watermark_ns: i64,
    books: Vec<SavedBook>,
}
#[derive(Serialize, Deserialize)]
struct SavedBook {
    venue: String,
    symbol: String,
    waiting: BTreeMap<String, Half>,
    slots: Vec<SavedSlot>,
}
#[derive(Serialize, Deserialize)]
struct SavedSlot {
    rule: String,
    fingerprint: String,
    voter: Vec<u8>,
    last_open_ns: Option<i64>,
    said: Option<Stance>,
    #[serde(default)]
    holes: Holes,
    higher: Vec<Option<f64>>,
    higher_open_ns: Option<i64>,
    #[serde(default)]
    higher_gap_bars: u32,
}

impl Core for StrategyCore {
    type In = In;
    type Out = Out;
    const CODE_VERSION: u32 = 2;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        let mut signals = Vec::new();
        match input {
            In::Candle(candle) => self.on_candle(&candle, &place.cause(0), &mut signals)?,
            In::Indicators(values) => self.on_indicators(&values, &place.cause(0), &mut signals)?,
        }
        out.extend(signals.into_iter().map(Out::Signal));
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let slot = |(plan, slot): (&Plan, &Option<Slot>)| {
            slot.as_ref().map(|slot| SavedSlot {
                rule: plan.rule.name.clone(),
                fingerprint: plan.fingerprint.clone(),
                voter: slot.voter.save(),
                last_open_ns: slot.last_open_ns,
                said: slot.said,
                holes: slot.holes.clone(),
                higher: slot.higher.clone(),
                higher_open_ns: slot.higher_open_ns,
                higher_gap_bars: slot.higher_gap_bars,
            })
        };
        let book = |((venue, symbol), book): (&(String, String), &Book)| SavedBook {
            venue: venue.clone(),
            symbol: symbol.clone(),
            waiting: book.waiting.clone(),
            slots: self.plans.iter().zip(&book.slots).filter_map(slot).collect(),
        };
        schemas::wire::encode(&Saved { watermark_ns: self.watermark_ns, books: self.books.iter().map(book).collect() })
    }

    /// A rule that was configured otherwise when the state was saved starts anew; the others go on.
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        let saved: Saved = schemas::wire::decode(state)?;
        let mut books = BTreeMap::new();
        for mut book in saved.books {
            let mut slots = Vec::new();
            for plan in &self.plans {
                if !plan.rule.watches(&book.venue, &book.symbol) {
                    slots.push(None);
                    continue;
                }
                let mut slot = plan.start();
                let same = |s: &SavedSlot| s.rule == plan.rule.name && s.fingerprint == plan.fingerprint;
                if let Some(i) = book.slots.iter().position(same) {
                    let saved = book.slots.swap_remove(i);
                    slot.voter.restore(&saved.voter)?;
                    (slot.last_open_ns, slot.said) = (saved.last_open_ns, saved.said);
                    slot.holes = saved.holes;
                    (slot.higher, slot.higher_open_ns) = (saved.higher, saved.higher_open_ns);
                    slot.higher_gap_bars = saved.higher_gap_bars;
                }
                slots.push(Some(slot));
            }
            books.insert((book.venue, book.symbol), Book { slots, waiting: book.waiting });
        }
        self.books = books;
        self.watermark_ns = saved.watermark_ns;
        Ok(())
    }

    fn watermark(&self) -> Option<Nanos> {
        (self.watermark_ns != i64::MIN).then_some(Nanos(self.watermark_ns))
    }
}

#[cfg(test)]
mod tests;
