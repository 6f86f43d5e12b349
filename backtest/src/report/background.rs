//! What a report shows beside what the cores said: candles, windows in which data was missing, settings.

use std::path::Path;

use schemas::market::Candle;
use schemas::raw::Raw;
use schemas::{Decimal, Nanos, Timeframe};
use serde::Serialize;

use crate::fact::Typed;
use crate::options::{CandleOptions, Sizing, StrategyChoice};
use crate::setup::Setup;
use crate::tape;

/// Candles of a chart that are kept; at the bound neighbours become one.
const BARS_MAX: usize = 1 << 17;
const INCOMPLETE: &str = "incomplete candle";

/// A candle to look at; prices as floats, because a picture has pixels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    pub open_ms: i64,
    pub close_ms: i64,
    pub open: f64,
    pub high: f64,
    pub low: f64,
    pub close: f64,
}

/// Candles of one market in time order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chart {
    pub venue: String,
    pub symbol: String,
    pub bars: Vec<Bar>,
}

/// A time in which market data was missing, event time, half-open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Window {
    pub venue: String,
    pub symbol: String,
    pub from_ns: i64,
    pub to_ns: i64,
    /// `gap` (the venue's sequence or the link told), `incomplete candle` or `no candle`.
    pub why: String,
}

/// See the module. Empty: the report has no candles, no gaps and no settings.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Background {
    /// What the trades of the run belong to.
    pub venue: String,
    pub symbol: String,
    pub strategy: String,
    pub charts: Vec<Chart>,
    pub windows: Vec<Window>,
    /// Name and value, in the order in which they are shown.
    pub settings: Vec<(String, String)>,
}

impl Background {
    /// Reads the candles once more; a step between two that is longer than the shortest one is a window without data.
    pub fn of_candles(options: &CandleOptions) -> anyhow::Result<Self> {
        let (bars, timeframe) = tape::candles(&options.candles)?;
        let symbol = name_of(&options.candles);
        let mut background = Self::named("", &symbol, &options.strategy);
        let bar_ms = i64::from(timeframe.seconds()) * 1_000;
        let shown = |b: &tape::Bar| Bar {
            open_ms: b.open_ms,
            close_ms: b.open_ms + bar_ms,
            open: b.open.to_f64(),
            high: b.high.to_f64(),
            low: b.low.to_f64(),
            close: b.close.to_f64(),
        };
        for pair in bars.windows(2) {
            let (from_ms, to_ms) = (pair[0].open_ms + bar_ms, pair[1].open_ms);
            if from_ms < to_ms {
                background.window(Nanos::from_ms(from_ms).0, Nanos::from_ms(to_ms).0, "no candle");
            }
        }
        background.charts[0].bars = bars.iter().map(shown).collect();
        background.set("candles", name_of(&options.candles));
        background.common(timeframe, options.sizing, options.fee_bps, options.slippage_bps, options.initial_cash);
        background.set("fill model", "next open");
        background.configured(options.user.as_ref());
        Ok(background)
    }

    /// A recording begins inside its first candle and ends inside its last one, which is no loss.
    pub fn settle(&mut self) {
        for chart in &self.charts {
            let edges = [chart.bars.first().map(|bar| bar.open_ms), chart.bars.last().map(|bar| bar.open_ms)];
            let at_edge = |w: &Window| edges.contains(&Some(Nanos(w.from_ns).as_ms())) && w.why == INCOMPLETE;
            self.windows.retain(|w| w.venue != chart.venue || w.symbol != chart.symbol || !at_edge(w));
        }
    }

    fn named(venue: &str, symbol: &str, strategy: &StrategyChoice) -> Self {
        let chart = Chart { venue: venue.to_owned(), symbol: symbol.to_owned(), bars: Vec::new() };
        let mut background = Self {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            strategy: strategy.kind.clone(),
            charts: vec![chart],
            ..Self::default()
        };
        background.set("strategy", &strategy.kind);
        background.set("parameters", parameters(strategy));
        background
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.push((name.to_owned(), value.into()));
    }

    fn common(&mut self, timeframe: Timeframe, sizing: Option<Sizing>, fee: Decimal, slippage: Decimal, cash: Decimal) {
        self.set("timeframe", timeframe.to_string());
        let sizing = match sizing {
            None => "risk, with its limits".to_owned(),
            Some(Sizing::Fixed(units)) => format!("{units} units"),
            Some(Sizing::Equity(share)) => format!("{share} of the equity"),
        };
        self.set("sizing", sizing);
        self.set("fee", format!("{fee} bps a side"));
        self.set("slippage", format!("{slippage} bps"));
        self.set("initial cash", cash.to_string());
    }

    fn configured(&mut self, user: Option<&schemas::config::UserFile>) {
        if let Some(file) = user {
            self.set("configuration", name_of(Path::new(&file.name)));
        }
    }

    /// For runs whose tape is not one file: what the user's configuration and the tape are called.
    pub fn of_tape(setup: &Setup, strategy: Option<&StrategyChoice>, tape: &str) -> Self {
        let mut background = Self::default();
        match strategy {
            Some(choice) => {
                background.strategy = choice.kind.clone();
                background.set("strategy", &choice.kind);
                background.set("parameters", parameters(choice));
            }
            None => background.set("strategy", "every configured rule"),
        }
        background.set("tape", tape);
        background.set("initial cash", setup.cash().to_string());
        background.set("fill model", setup.executor.fill.model.replace('_', " "));
        background.set("latency", format!("{} ms", setup.executor.fill.latency_ns / Nanos::PER_MS));
        background.set("slippage", format!("{} bps", setup.executor.fill.slippage_bps));
        background.set("taker fee", format!("{} bps", setup.executor.fees.taker_bps));
        background
    }

    /// Hears a fact of the run: candles of the timeframe `tf` and gaps are kept, everything else is passed over.
    pub fn hear(&mut self, fact: &Typed, tf: &str) {
        match fact {
            Typed::Market(aggregate::core::Out::Candle(candle)) if candle.tf == tf => {
                self.push(&candle.venue, &candle.symbol, candle);
            }
            Typed::Raw(Raw::Gap(gap)) => {
                // A gap that lasts is told again with its end.
                let Some(to_ns) = gap.to_ns else { return };
                let (venue, symbol, from_ns) = (gap.venue.clone(), gap.symbol.clone(), gap.from_ns);
                self.windows.push(Window { venue, symbol, from_ns, to_ns, why: "gap".to_owned() });
            }
            _ => {}
        }
    }

    fn push(&mut self, venue: &str, symbol: &str, candle: &Candle) {
        let place = self.charts.iter().position(|c| c.venue == venue && c.symbol == symbol).unwrap_or_else(|| {
            self.charts.push(Chart { venue: venue.to_owned(), symbol: symbol.to_owned(), bars: Vec::new() });
            self.charts.len() - 1
        });
        let bars = &mut self.charts[place].bars;
        if bars.len() == BARS_MAX {
            // The picture folds them anyway; memory stays bounded however long the tape is.
            *bars = bars.chunks(2).map(joined).collect();
        }
        bars.push(Bar {
            open_ms: candle.open_time().as_ms(),
            close_ms: candle.close_time().as_ms(),
            open: candle.open.to_f64(),
            high: candle.high.to_f64(),
            low: candle.low.to_f64(),
            close: candle.close.to_f64(),
        });
        if !candle.complete {
            self.windows.push(Window {
                venue: venue.to_owned(),
                symbol: symbol.to_owned(),
                from_ns: candle.open_ns,
                to_ns: candle.close_ns,
                why: INCOMPLETE.to_owned(),
            });
        }
    }

    fn window(&mut self, from_ns: i64, to_ns: i64, why: &str) {
        let (venue, symbol) = (self.venue.clone(), self.symbol.clone());
        self.windows.push(Window { venue, symbol, from_ns, to_ns, why: why.to_owned() });
    }
}

/// Two neighbours as one.
fn joined(bars: &[Bar]) -> Bar {
    let (first, last) = (bars[0], bars[bars.len() - 1]);
    Bar {
        high: first.high.max(last.high),
        low: first.low.min(last.low),
        close: last.close,
        close_ms: last.close_ms,
        ..first
    }
}

fn parameters(strategy: &StrategyChoice) -> String {
    let params: Vec<_> = strategy.params.iter().map(|(key, value)| format!("{key} {value}")).collect();
    if params.is_empty() { "defaults".to_owned() } else { params.join(", ") }
}

/// The file's name without its folders: a report holds no paths of a machine.
fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
