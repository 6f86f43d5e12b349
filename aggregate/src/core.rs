//! The pure core: raw trades, clocks and gaps in; candles, indicators, late trades and previews out.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::core::{Cause, Core, Fault, Listen, Place, Speak};
use schemas::fixed::decimal_of;
use schemas::holes::Holes;
use schemas::market::{Candle, ClosedBy, Indicators, Late};
use schemas::raw::{Clock, Gap, Raw, Trades, VenueBar, VenueBars};
use schemas::wire::{self, Fact, Version, WireError};
use schemas::{Nanos, Notional, PriceM, Qty, QtyM, Scale, Timeframe};
use serde::{Deserialize, Serialize};

use crate::candle::{Closed, Columns, Event, FoldError, Folder, Plan, Saved, Slot, Sum};
use crate::config::Config;
use crate::indicator::memory::{MEMORY_BARS_MAX, memory_bars};
use crate::indicator::{Ohlcv, Set, SetState};

/// What aggregate hears.
#[derive(Clone, Debug, PartialEq)]
pub enum In {
    Trades(Trades),
    Clock(Clock),
    /// Missing trades; gaps of other channels are passed over.
    Gap(Gap),
    /// The venue's own candles: only those from before we listened are taken.
    Bars(VenueBars),
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        let kind = subject.split('.').nth(3).unwrap_or("");
        // Books and quotes are most of the bytes of a raw stream: not even decoded here.
        if !matches!(kind, "trade" | "clock" | "gap" | "bar") {
            return Ok(None);
        }
        Ok(match Raw::hear(subject, payload)? {
            Some(Raw::Trades(trades)) => Some(Self::Trades(trades)),
            Some(Raw::Clock(clock)) => Some(Self::Clock(clock)),
            Some(Raw::Bars(bars)) if tells_history(&bars) => Some(Self::Bars(bars)),
            Some(Raw::Gap(gap)) if gap.channel == Trades::KIND => Some(Self::Gap(gap)),
            _ => None,
        })
    }
}

/// Among the venue's own candles are some from before we listened.
pub fn tells_history(bars: &VenueBars) -> bool {
    bars.items.iter().any(|bar| !bar.origin.is_live())
}

/// What aggregate says.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    Candle(Candle),
    Indicators(Indicators),
    Late(Late),
    /// A forming candle; never stored.
    Preview(Candle),
}

impl Speak for Out {
    fn subject(&self) -> String {
        match self {
            Self::Candle(fact) | Self::Preview(fact) => fact.subject(),
            Self::Indicators(fact) => fact.subject(),
            Self::Late(fact) => fact.subject(),
        }
    }
    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Candle(fact) | Self::Preview(fact) => fact.encode(),
            Self::Indicators(fact) => fact.encode(),
            Self::Late(fact) => fact.encode(),
        }
    }
    fn stored(&self) -> bool {
        !matches!(self, Self::Preview(_))
    }
}

/// Folds any number of instruments of any number of venues; a live task feeds it one partition of one venue.
pub struct AggregateCore {
    config: Config,
    plan: Arc<Plan>,
    /// By timeframe of the plan.
    with_indicators: Vec<bool>,
    /// Timeframes of the plan that are shown while they form.
    previews: Vec<usize>,
    /// By venue and symbol.
    venues: BTreeMap<String, BTreeMap<String, Symbol>>,
    watermark: Option<Nanos>,
    events: Vec<Event>,
}

struct Symbol {
    p: u32,
    folder: Folder,
    /// By timeframe of the plan; empty until its first candle.
    sets: Vec<Option<Set>>,
    /// By timeframe of the plan: open of the newest candle from before we listened.
    history: Vec<Option<i64>>,
    /// By timeframe of the plan: which of its newest candles were not seen whole.
    holes: Vec<Holes>,
}

/// The whole state of the core, for a checkpoint.
#[derive(Serialize, Deserialize)]
struct State {
    watermark: Option<Nanos>,
    /// Outputs that the saved sets were made for.
    indicators: Vec<String>,
    symbols: Vec<SymbolState>,
}

#[derive(Serialize, Deserialize)]
struct SymbolState {
    venue: String,
    symbol: String,
    p: u32,
    folder: Saved,
    sets: Vec<(Timeframe, SetState)>,
    #[serde(default)]
    history: Vec<(Timeframe, i64)>,
    /// Of timeframes that had a whole candle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holes: Vec<(Timeframe, Holes)>,
}

impl AggregateCore {
    /// Error: the configuration's key and what is allowed.
    pub fn new(config: &Config) -> Result<Self, schemas::config::ConfigError> {
        config.check()?;
        let plan = config.plan()?;
        let timeframes = plan.timeframes();
        let with_indicators = timeframes.iter().map(|tf| config.indicator_timeframes.contains(tf)).collect();
        let previews = (0..timeframes.len()).filter(|&k| config.preview_timeframes.contains(&timeframes[k])).collect();
        Ok(Self {
            config: config.clone(),
            with_indicators,
            previews,
            venues: BTreeMap::new(),
            watermark: None,
            events: Vec::new(),
            plan: Arc::new(plan),
        })
    }

    /// Folds a pack of trades; the same as [`Core::handle`] with it, for drivers in the same process.
    pub fn on_trades(&mut self, place: &Place, trades: &Trades, out: &mut Vec<Out>) -> Result<(), Fault> {
        let symbol = symbol_of(&mut self.venues, &self.config, &self.plan, &trades.venue, &trades.symbol, trades.p)?;
        let mut events = std::mem::take(&mut self.events);
        symbol.folder.fold(Columns::of(trades), &mut events).map_err(|e| fault(trades, &e))?;
        let speaker = Speaker {
            config: &self.config,
            plan: &self.plan,
            with_indicators: &self.with_indicators,
            venue: &trades.venue,
            symbol: &trades.symbol,
            place,
        };
        for event in events.drain(..) {
            match event {
                Event::Closed { index, closed } => speaker.say(symbol, closed, index, out)?,
                Event::Late { index } => out.push(Out::Late(Late {
                    v: Version,
                    venue: trades.venue.clone(),
                    symbol: trades.symbol.clone(),
                    p: trades.p,
                    ts_ns: trades.ts_ns[index],
                    id: trades.id[index],
                    price: PriceM(trades.price[index]).price(trades.scale),
                    size: QtyM(trades.size[index]).qty(trades.scale),
                    tf: self.plan.timeframes()[0].to_string(),
                    cause: place.cause(index),
                })),
            }
        }
        self.events = events;
        Ok(())
    }

    fn on_clock(&mut self, place: &Place, clock: &Clock, out: &mut Vec<Out>) -> Result<(), Fault> {
        self.watermark = self.watermark.max(Some(Nanos(clock.watermark_ns)));
        let Some(symbols) = self.venues.get_mut(&clock.venue) else {
            return Ok(());
        };
        let until = Nanos(clock.watermark_ns.saturating_sub(self.config.grace_ns(&clock.venue)));
        let mut here: Vec<(&String, &mut Symbol)> = symbols.iter_mut().filter(|(_, s)| s.p == clock.p).collect();
        let mut closed: Vec<(usize, Closed)> = Vec::new();
        for (n, (name, symbol)) in here.iter_mut().enumerate() {
            let said = symbol.folder.close_until(until, |c| closed.push((n, c)));
            said.map_err(|e| Fault(format!("fold {} {name}: {e}", clock.venue)))?;
        }
        // Stable: candles of one close and timeframe stay in the order of their symbols.
        closed.sort_by_key(|(_, c)| (c.close_ns, c.slot));
        let speaker = |symbol| Speaker {
            config: &self.config,
            plan: &self.plan,
            with_indicators: &self.with_indicators,
            venue: &clock.venue,
            symbol,
            place,
        };
        for (n, closed) in closed {
            let (name, symbol) = &mut here[n];
            speaker(name).say(symbol, closed, 0, out)?;
        }
        for (name, symbol) in here {
            if !symbol.folder.take_changed() {
                continue;
            }
            for closed in self.previews.iter().filter_map(|&k| symbol.folder.forming(k)) {
                out.push(Out::Preview(speaker(name).candle(symbol, &closed, 0)?));
            }
        }
        Ok(())
    }

    fn on_gap(&mut self, gap: &Gap) -> Result<(), Fault> {
        let symbol = symbol_of(&mut self.venues, &self.config, &self.plan, &gap.venue, &gap.symbol, gap.p)?;
        symbol.folder.gap(gap.from_ns, gap.to_ns);
        Ok(())
    }

    /// Candles from before we listened: each timeframe's in rising order, and none once a trade was folded.
    fn on_bars(&mut self, place: &Place, bars: &VenueBars, out: &mut Vec<Out>) -> Result<(), Fault> {
        let symbol = symbol_of(&mut self.venues, &self.config, &self.plan, &bars.venue, &bars.symbol, bars.p)?;
        if symbol.folder.started() {
            return Ok(());
        }
        for (index, bar) in bars.items.iter().enumerate().filter(|(_, bar)| bar.closed && !bar.origin.is_live()) {
            let Ok(tf) = bar.interval.parse::<Timeframe>() else { continue };
            let Some(k) = self.plan.timeframes().iter().position(|t| *t == tf) else { continue };
            let open = Nanos(bar.open_ts_ns);
            if tf.open_of(open) != open || symbol.history[k].is_some_and(|last| open.0 <= last) {
                continue;
            }
            symbol.history[k] = Some(open.0);
            let candle = past(bars, bar, tf, place.cause(index));
            let values = self.with_indicators[k].then(|| {
                let set = symbol.sets[k].get_or_insert_with(|| new_set(&self.config, tf));
                // Not pushed: a series begins with the first whole candle of our own, so that where we began is no hole.
                indicators(set, &symbol.holes[k], &candle)
            });
            out.push(Out::Candle(candle));
            out.extend(values.map(Out::Indicators));
        }
        Ok(())
    }

    /// The end of a batch: says every open candle and bar as it stands, marked incomplete. The live path never does
    /// this.
    pub fn flush(mut self, place: &Place, out: &mut Vec<Out>) -> Result<(), Fault> {
        for (venue, symbols) in std::mem::take(&mut self.venues) {
            for (symbol_name, mut symbol) in symbols {
                let mut closed = Vec::new();
                symbol.folder.clone().flush(|c| closed.push(c));
                let speaker = Speaker {
                    config: &self.config,
                    plan: &self.plan,
                    with_indicators: &self.with_indicators,
                    venue: &venue,
                    symbol: &symbol_name,
                    place,
                };
                for c in closed {
                    speaker.say(&mut symbol, c, 0, out)?;
                }
            }
        }
        Ok(())
    }
}

impl Core for AggregateCore {
    type In = In;
    type Out = Out;

    const CODE_VERSION: u32 = 2;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        match input {
            In::Trades(trades) => self.on_trades(place, &trades, out),
            In::Clock(clock) => self.on_clock(place, &clock, out),
            In::Gap(gap) => self.on_gap(&gap),
            In::Bars(bars) => self.on_bars(place, &bars, out),
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut symbols = Vec::new();
        for (venue, of_venue) in &self.venues {
            for (name, symbol) in of_venue {
                let sets = self.plan.timeframes().iter().zip(&symbol.sets);
                let holes = self.plan.timeframes().iter().zip(&symbol.holes);
                let begun = holes.filter(|(_, holes)| **holes != Holes::default());
                symbols.push(SymbolState {
                    venue: venue.clone(),
                    symbol: name.clone(),
                    p: symbol.p,
                    folder: symbol.folder.save(),
                    sets: sets.filter_map(|(tf, set)| Some((*tf, set.as_ref()?.state()))).collect(),
                    history: self
                        .plan
                        .timeframes()
                        .iter()
                        .zip(&symbol.history)
                        .filter_map(|(tf, open)| Some((*tf, (*open)?)))
                        .collect(),
                    holes: begun.map(|(tf, holes)| (*tf, holes.clone())).collect(),
                });
            }
        }
        let indicators = self.config.indicators.clone();
        wire::encode(&State { watermark: self.watermark, indicators, symbols })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        let State { watermark, indicators, symbols } = wire::decode(state)?;
        // Other outputs than before: they warm up anew.
        let same_outputs = indicators == self.config.indicators;
        self.watermark = watermark;
        self.venues.clear();
        for SymbolState { venue, symbol, p, folder, sets, history, holes } in symbols {
            let bars = self.config.bars_of(&venue, &symbol);
            let folder = Folder::restore(self.plan.clone(), bars, folder).map_err(WireError::invalid)?;
            let mut restored = Symbol::new(p, folder);
            for (tf, open) in history {
                if let Some(k) = self.plan.timeframes().iter().position(|t| *t == tf) {
                    restored.history[k] = Some(open);
                }
            }
            for (tf, saved) in sets {
                let Some(k) = self.plan.timeframes().iter().position(|t| *t == tf) else { continue };
                if self.with_indicators[k] && same_outputs {
                    let mut set = new_set(&self.config, tf);
                    set.restore(&saved)?;
                    restored.sets[k] = Some(set);
                }
            }
            for (tf, saved) in holes {
                let Some(k) = self.plan.timeframes().iter().position(|t| *t == tf) else { continue };
                if self.with_indicators[k] && same_outputs {
                    restored.holes[k] = saved;
                }
            }
            self.venues.entry(venue).or_default().insert(symbol, restored);
        }
        Ok(())
    }

    fn watermark(&self) -> Option<Nanos> {
        self.watermark
    }
}

impl Symbol {
    fn new(p: u32, folder: Folder) -> Self {
        let n = folder.timeframes().len();
        Self { p, folder, sets: vec_of_none(n), history: vec_of_none(n), holes: vec![Holes::default(); n] }
    }
}

fn vec_of_none<T>(n: usize) -> Vec<Option<T>> {
    std::iter::repeat_with(|| None).take(n).collect()
}

fn symbol_of<'a>(
    venues: &'a mut BTreeMap<String, BTreeMap<String, Symbol>>,
    config: &Config,
    plan: &Arc<Plan>,
    venue: &str,
    symbol: &str,
    p: u32,
) -> Result<&'a mut Symbol, Fault> {
    // Looked up twice because only the first sight of a name is worth an allocation.
    if !venues.get(venue).is_some_and(|of_venue| of_venue.contains_key(symbol)) {
        let known: usize = venues.values().map(BTreeMap::len).sum();
        if known >= config.symbols_max {
            let max = config.symbols_max;
            return Err(Fault(format!("{venue} {symbol} is one instrument more than aggregate.symbols_max = {max}")));
        }
        let folder = Folder::new(plan.clone(), config.bars_of(venue, symbol));
        venues.entry(venue.to_owned()).or_default().insert(symbol.to_owned(), Symbol::new(p, folder));
    }
    let found = venues.get_mut(venue).and_then(|of_venue| of_venue.get_mut(symbol));
    Ok(found.expect("Invariant: inserted above"))
}

fn new_set(config: &Config, tf: Timeframe) -> Set {
    let outputs = (!config.indicators.is_empty()).then_some(config.indicators.as_slice());
    Set::new(outputs, tf.seconds()).expect("Invariant: `Config::check` knows these outputs")
}

fn fault(trades: &Trades, e: &FoldError) -> Fault {
    Fault(format!("fold {} {}: {e}", trades.venue, trades.symbol))
}

/// Where a candle belongs and what it follows from.
struct Speaker<'a> {
    config: &'a Config,
    plan: &'a Plan,
    with_indicators: &'a [bool],
    venue: &'a str,
    symbol: &'a str,
    place: &'a Place,
}

impl Speaker<'_> {
    /// The candle and, where wanted, its indicators; `index` is the tick that closed it.
    fn say(&self, symbol: &mut Symbol, closed: Closed, index: usize, out: &mut Vec<Out>) -> Result<(), Fault> {
        let candle = self.candle(symbol, &closed, index)?;
        let indicators = match closed.slot {
            Slot::Time(k) if self.with_indicators[k] => {
                let set = symbol.sets[k].get_or_insert_with(|| new_set(self.config, self.plan.timeframes()[k]));
                let holes = &mut symbol.holes[k];
                holes.push(candle.complete, MEMORY_BARS_MAX);
                Some(indicators(set, holes, &candle))
            }
            Slot::Time(_) | Slot::Bar(_) => None,
        };
        out.push(Out::Candle(candle));
        out.extend(indicators.map(Out::Indicators));
        Ok(())
    }

    fn candle(&self, symbol: &Symbol, closed: &Closed, index: usize) -> Result<Candle, Fault> {
        let tf = match closed.slot {
            Slot::Time(k) => self.plan.timeframes()[k].to_string(),
            Slot::Bar(b) => symbol.folder.bars()[b].to_string(),
        };
        let scale = symbol.folder.scale();
        let Sum { open, high, low, close, trades, buy_trades, first_id, last_id, .. } = closed.sum;
        let price = |m: i64| PriceM(m).price(scale);
        let [volume, buy_volume, quote] = sums(&closed.sum, scale)
            .ok_or_else(|| Fault(format!("{} {} {tf}: a sum has more than 28 digits", self.venue, self.symbol)))?;
        Ok(Candle {
            v: Version,
            venue: self.venue.to_owned(),
            symbol: self.symbol.to_owned(),
            p: symbol.p,
            tf,
            open_ns: closed.open_ns,
            close_ns: closed.close_ns,
            open: price(open),
            high: price(high),
            low: price(low),
            close: price(close),
            volume: Qty::new(volume),
            buy_volume: Qty::new(buy_volume),
            quote_volume: Notional::new(quote),
            trades,
            buy_trades,
            first_id: (first_id != 0).then_some(first_id),
            last_id: (last_id != 0).then_some(last_id),
            closed_by: closed.by,
            complete: closed.complete,
            filled: closed.filled,
            cause: self.place.cause(index),
        })
    }
}

/// A venue's own candle as ours.
fn past(bars: &VenueBars, bar: &VenueBar, tf: Timeframe, cause: Cause) -> Candle {
    Candle {
        v: Version,
        venue: bars.venue.clone(),
        symbol: bars.symbol.clone(),
        p: bars.p,
        tf: tf.to_string(),
        open_ns: bar.open_ts_ns,
        close_ns: tf.close_of(Nanos(bar.open_ts_ns)).0,
        open: bar.open,
        high: bar.high,
        low: bar.low,
        close: bar.close,
        volume: bar.volume,
        buy_volume: Qty::ZERO,
        quote_volume: bar.quote_volume.unwrap_or(Notional::ZERO),
        trades: bar.trades.unwrap_or(0),
        buy_trades: 0,
        first_id: None,
        last_id: None,
        closed_by: ClosedBy::History,
        complete: true,
        filled: false,
        cause,
    }
}

fn indicators(set: &mut Set, holes: &Holes, candle: &Candle) -> Indicators {
    set.update(&Ohlcv::from(candle));
    // Not finite: without a value for this bar, which a reader learns from its absence.
    let values = || set.values().filter(|(_, value)| value.is_finite());
    let mut gaps = BTreeMap::new();
    if !holes.is_empty() {
        let counted = values().map(|(name, _)| (name, holes.among(memory_bars(name))));
        gaps.extend(counted.filter(|(_, bars)| *bars > 0).map(|(name, bars)| (name.to_owned(), bars)));
    }
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
        values: values().map(|(name, value)| (name.to_owned(), value)).collect(),
        gaps,
        cause: candle.cause.clone(),
    }
}

fn sums(sum: &Sum, scale: Scale) -> Option<[schemas::Decimal; 3]> {
    let qty = scale.qty as u32;
    Some([
        decimal_of(sum.volume, qty)?,
        decimal_of(sum.buy_volume, qty)?,
        decimal_of(sum.quote, qty + scale.price as u32)?,
    ])
}

#[cfg(test)]
mod tests;
