//! The two pure ends of an LLM trader: bars in, prompts out; replies in, verdicts and signals out.

use std::collections::{BTreeMap, VecDeque};

use schemas::holes::Holes;
use schemas::llm::{LlmCoin, LlmPrompt, LlmReply, LlmVerdict};
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::signal::Signal;
use schemas::subject::Tokens;
use schemas::{Core, Fact, Fault, Listen, Nanos, Place, Timeframe, Version, WireError};
use serde::{Deserialize, Serialize};

use super::prompt::{self, CoinView, Cycle, Row};
use super::{request, verdict};
use crate::config::Trader;
pub use crate::core::In as PromptIn;

schemas::says! {
    /// All that the prompt core can say.
    pub enum PromptOut { Prompt(LlmPrompt) }
}

/// Gathers closed bars and asks once a cycle: at a close of the trader's timeframe, when every coin's bars of
/// that close are heard, or when event time has passed it by `grace_ms`.
pub struct PromptCore {
    trader: Trader,
    system: String,
    state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Newest close heard of anything: event time.
    now_ns: i64,
    /// The close of the last cycle; older ones are not asked about.
    asked_ns: i64,
    /// The oldest close that some coin has and that was not asked about yet.
    pending_ns: Option<i64>,
    /// By position of the coin, then timeframe in seconds.
    series: BTreeMap<(u32, u32), Series>,
    /// By position of the coin: most digits behind the point of a price seen.
    price_digits: BTreeMap<u32, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Series {
    rows: VecDeque<Row>,
    /// Which of the newest rows were not seen whole.
    #[serde(default)]
    holes: Holes,
    /// Halves of the newest bar that has not both.
    candle: Option<Candle>,
    values: Option<Indicators>,
}

impl PromptCore {
    pub fn new(trader: Trader) -> Self {
        let system = prompt::system(&trader);
        Self { trader, system, state: State::default() }
    }

    /// The coin and timeframe that a bar belongs to, when this trader looks at it.
    fn key(&self, venue: &str, symbol: &str, tf: &str) -> Option<(u32, Timeframe)> {
        let tf: Timeframe = tf.parse().ok().filter(|tf| self.trader.timeframes.contains(tf))?;
        let coin = self.trader.coins.iter().position(|c| c.venue == venue && c.symbol == symbol)?;
        Some((coin as u32, tf))
    }

    /// Event time moves on; a cycle that waited for a silent coin is asked without it.
    fn passes(&mut self, now_ns: i64, place: &Place, out: &mut Vec<PromptOut>) {
        self.state.now_ns = self.state.now_ns.max(now_ns);
        let grace_ns = self.trader.grace_ms * Nanos::PER_MS;
        if let Some(close_ns) = self.state.pending_ns
            && close_ns.saturating_add(grace_ns) <= self.state.now_ns
            && close_ns < now_ns
        {
            self.ask(close_ns, place, out);
        }
    }

    fn joined(
        &mut self,
        coin: u32,
        tf: Timeframe,
        candle: &Candle,
        values: Option<&Indicators>,
        place: &Place,
        out: &mut Vec<PromptOut>,
    ) {
        let picked = self.trader.outputs.iter().map(|name| values?.values.get(name).copied().filter(|x| x.is_finite()));
        let row = Row {
            close_ns: candle.close_ns,
            high: candle.high,
            low: candle.low,
            close: candle.close,
            volume: candle.volume,
            complete: candle.complete,
            values: picked.collect(),
            gap_bars: values.map_or(0, |values| values.gap_bars(&self.trader.outputs)),
        };
        let rows_shown = self.rows_shown();
        let series = self.state.series.entry((coin, tf.seconds())).or_default();
        if series.rows.back().is_some_and(|newest| row.close_ns <= newest.close_ns) {
            return;
        }
        let digits = [candle.high, candle.low, candle.close].map(|price| price.get().scale());
        let most = self.state.price_digits.entry(coin).or_default();
        *most = digits.into_iter().fold(*most, u32::max);
        if candle.closed_by != ClosedBy::History {
            // The venue's own candles end where we began, which is no hole.
            series.holes.push(row.complete, rows_shown);
        }
        series.rows.push_back(row);
        // More than is shown: bars go on closing while a close waits for a silent coin.
        let waiting = usize::try_from(self.trader.grace_ms * Nanos::PER_MS / tf.ns()).unwrap_or(0) + 1;
        while self.trader.bars + waiting < series.rows.len() {
            series.rows.pop_front();
        }
        if tf == self.trader.timeframe && self.state.asked_ns < candle.close_ns {
            let pending_ns = self.state.pending_ns.map_or(candle.close_ns, |p| p.min(candle.close_ns));
            self.state.pending_ns = Some(pending_ns);
        }
        if let Some(close_ns) = self.state.pending_ns
            && self.all_heard(close_ns)
        {
            self.ask(close_ns, place, out);
        }
    }

    /// Every coin has its bar of every timeframe that closes at this instant.
    fn all_heard(&self, close_ns: i64) -> bool {
        let closing = || self.trader.timeframes.iter().filter(|tf| close_ns % tf.ns() == 0);
        let has = |coin: u32, tf: &Timeframe| {
            let series = self.state.series.get(&(coin, tf.seconds()));
            series.is_some_and(|series| series.rows.iter().any(|row| row.close_ns == close_ns))
        };
        (0..self.trader.coins.len() as u32).all(|coin| closing().all(|tf| has(coin, tf)))
    }

    /// Says the prompt of this close, unless no coin can be asked about.
    fn ask(&mut self, close_ns: i64, place: &Place, out: &mut Vec<PromptOut>) {
        self.state.asked_ns = close_ns;
        // A coin may have closed the next bar already while another was waited for.
        let newest = |series: &Series| series.rows.back().map(|row| row.close_ns);
        let own = self.trader.timeframe.seconds();
        let later = self.state.series.iter().filter(|((_, tf), _)| *tf == own).filter_map(|(_, series)| newest(series));
        self.state.pending_ns = later.filter(|later| close_ns < *later).min();

        let trader = &self.trader;
        let views: Vec<_> = (0u32..).zip(&trader.coins).map(|(i, coin)| self.view(i, coin, close_ns)).collect();
        let mut coins = Vec::new();
        for (i, view) in (0u32..).zip(&views).filter(|(_, view)| view.asked.is_ok()) {
            let own = view.series.iter().find(|(tf, _)| *tf == trader.timeframe);
            if let Some(row) = own.and_then(|(_, rows)| rows.last()) {
                coins.push(LlmCoin {
                    coin: view.coin.coin.clone(),
                    venue: view.coin.venue.clone(),
                    symbol: view.coin.symbol.clone(),
                    timeframe: trader.timeframe.to_string(),
                    close: row.close,
                    gap_bars: self.gap_bars(i, row),
                });
            }
        }
        if coins.is_empty() {
            return;
        }
        let name = format!("{}-{}", trader.name, Nanos(close_ns).as_ms());
        let valid_until_ns = close_ns.saturating_add(trader.ttl_ms * Nanos::PER_MS);
        let user = prompt::user(trader, &Cycle { name: &name, as_of_ns: close_ns, valid_until_ns }, &views);
        let body = request::ask(trader, &self.system, &user, &coins);
        out.push(PromptOut::Prompt(LlmPrompt {
            v: Version,
            trader: trader.name.clone(),
            cycle: name,
            as_of_ns: close_ns,
            valid_until_ns,
            template: prompt::TEMPLATE.to_owned(),
            request_hash: request::hash(trader, &body),
            system: self.system.clone(),
            user,
            coins,
            cause: place.cause(0),
        }));
    }

    /// Bars over a gap behind what a coin shows of the trader's own timeframe: its rows, and the newest one's values.
    fn gap_bars(&self, coin: u32, newest: &Row) -> u32 {
        let series = self.state.series.get(&(coin, self.trader.timeframe.seconds()));
        let shown = series.map_or(0, |series| series.holes.among(self.rows_shown()));
        shown.max(newest.gap_bars)
    }

    fn rows_shown(&self) -> u32 {
        u32::try_from(self.trader.bars).unwrap_or(u32::MAX)
    }

    /// What a coin shows at a close: nothing that closed later.
    fn view<'a>(&'a self, i: u32, coin: &'a crate::config::Coin, close_ns: i64) -> CoinView<'a> {
        let trader = &self.trader;
        let rows = |tf: &Timeframe| {
            let rows = self.state.series.get(&(i, tf.seconds())).map(|series| &series.rows);
            let known: Vec<&Row> = rows.into_iter().flatten().filter(|row| row.close_ns <= close_ns).collect();
            known[known.len().saturating_sub(trader.bars)..].to_vec()
        };
        let mut timeframes = trader.timeframes.clone();
        timeframes.sort_unstable_by(|a, b| b.cmp(a));
        let own = rows(&trader.timeframe);
        let asked = match own.last() {
            Some(newest) if newest.close_ns == close_ns => {
                if own.len() < trader.bars_min {
                    Err(format!("{} of {} bars seen", own.len(), trader.bars_min))
                } else if !newest.complete && !trader.trade_incomplete {
                    Err("its newest bar was not seen whole".to_owned())
                } else {
                    Ok(())
                }
            }
            _ => Err("no bar for this close".to_owned()),
        };
        let seen = self.state.price_digits.get(&i).copied().unwrap_or(0);
        let price_digits = if coin.tick.is_zero() { seen } else { coin.tick.get().scale() };
        CoinView { coin, price_digits, series: timeframes.iter().map(|tf| (*tf, rows(tf))).collect(), asked }
    }
}

impl Core for PromptCore {
    type In = PromptIn;
    type Out = PromptOut;
    const CODE_VERSION: u32 = 2;

    fn handle(&mut self, place: &Place, input: PromptIn, out: &mut Vec<PromptOut>) -> Result<(), Fault> {
        let (close_ns, key) = match &input {
            PromptIn::Candle(c) => (c.close_ns, self.key(&c.venue, &c.symbol, &c.tf)),
            PromptIn::Indicators(v) => (v.close_ns, self.key(&v.venue, &v.symbol, &v.tf)),
        };
        self.passes(close_ns, place, out);
        let Some((coin, tf)) = key else { return Ok(()) };
        if self.trader.outputs.is_empty() {
            if let PromptIn::Candle(candle) = &input {
                self.joined(coin, tf, candle, None, place, out);
            }
            return Ok(());
        }
        let series = self.state.series.entry((coin, tf.seconds())).or_default();
        match input {
            PromptIn::Candle(candle) => series.candle = Some(candle),
            PromptIn::Indicators(values) => series.values = Some(values),
        }
        let whole = match (&series.candle, &series.values) {
            (Some(candle), Some(values)) => candle.open_ns == values.open_ns,
            _ => false,
        };
        if whole && let (Some(candle), Some(values)) = (series.candle.take(), series.values.take()) {
            self.joined(coin, tf, &candle, Some(&values), place, out);
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&self.state)
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = schemas::wire::decode(state)?;
        Ok(())
    }
    fn watermark(&self) -> Option<Nanos> {
        (self.state.now_ns != 0).then_some(Nanos(self.state.now_ns))
    }
}

/// What the verdict core hears of `LLMR_<trader>`.
#[derive(Clone, Debug, PartialEq)]
pub struct VerdictIn(pub LlmReply);

impl Listen for VerdictIn {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        let tokens = Tokens::of(subject);
        if tokens.head() != "llm" || tokens.get(2) != "reply" {
            return Ok(None);
        }
        LlmReply::decode(payload).map(|reply| Some(Self(reply)))
    }
}

schemas::says! {
    /// All that the verdict core can say: the verdict first, then the signals that follow from it.
    pub enum VerdictOut { Verdict(LlmVerdict), Signal(Signal) }
}

/// Judges stored replies. A cycle is judged once.
pub struct VerdictCore {
    trader: Trader,
    /// The newest cycle that was judged.
    as_of_ns: Option<i64>,
}

impl VerdictCore {
    pub fn new(trader: Trader) -> Self {
        Self { trader, as_of_ns: None }
    }
}

impl Core for VerdictCore {
    type In = VerdictIn;
    type Out = VerdictOut;
    const CODE_VERSION: u32 = 1;

    fn handle(&mut self, place: &Place, VerdictIn(reply): VerdictIn, out: &mut Vec<VerdictOut>) -> Result<(), Fault> {
        if self.as_of_ns.is_some_and(|newest| reply.as_of_ns <= newest) {
            return Ok(());
        }
        self.as_of_ns = Some(reply.as_of_ns);
        let (verdict, signals) = verdict::judge(&self.trader, &reply, &place.cause(0));
        out.push(verdict.into());
        out.extend(signals.into_iter().map(VerdictOut::Signal));
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&self.as_of_ns)
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.as_of_ns = schemas::wire::decode(state)?;
        Ok(())
    }
    fn watermark(&self) -> Option<Nanos> {
        self.as_of_ns.map(Nanos)
    }
}

#[cfg(test)]
mod tests;
