//! What a report shows beside what the cores said: candles, windows in which data was missing, settings.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use schemas::market::Candle;
use schemas::raw::Gap;
use schemas::{Decimal, Fact, Nanos, Timeframe};
use serde::Serialize;

use crate::options::{CandleOptions, Sizing, StrategyChoice, TradeOptions};
use crate::tape;

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

    /// Folds the trades once more; candles that were not seen whole are windows without data.
    pub fn of_trades(options: &TradeOptions) -> anyhow::Result<Self> {
        let mut background = Self::named(&options.venue, &options.symbol, &options.strategy);
        let what = || format!("fold {} for the report", options.trades.display());
        let ticks = text_of(&options.trades)?;
        let (venue, symbol) = (options.venue.as_str(), options.symbol.as_str());
        aggregate::batch::candles(&[options.timeframe], false, ticks, |candle| background.push(venue, symbol, &candle))
            .with_context(what)?;
        // A recording begins inside its first candle and ends inside its last one, which is no loss.
        let bars = &background.charts[0].bars;
        let edges = [bars.first(), bars.last()].map(|bar| bar.map(|bar| Nanos::from_ms(bar.open_ms).0));
        background.windows.retain(|w| !edges.contains(&Some(w.from_ns)));
        background.set("trades", name_of(&options.trades));
        background.common(
            options.timeframe,
            options.sizing,
            options.fee_bps,
            options.slippage_bps,
            options.initial_cash,
        );
        background.set("fill model", options.fill_model.replace('_', " "));
        background.set("latency", format!("{} ms", options.latency_ns / Nanos::PER_MS));
        background.set("market", if options.spot { "spot" } else { "linear perpetual" });
        background.configured(options.user.as_ref());
        Ok(background)
    }

    fn named(venue: &str, symbol: &str, strategy: &StrategyChoice) -> Self {
        let params: Vec<_> = strategy.params.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let chart = Chart { venue: venue.to_owned(), symbol: symbol.to_owned(), bars: Vec::new() };
        let mut background = Self {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            strategy: strategy.kind.clone(),
            charts: vec![chart],
            ..Self::default()
        };
        background.set("strategy", &strategy.kind);
        background.set("parameters", if params.is_empty() { "defaults".to_owned() } else { params.join(", ") });
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

    /// Hears a fact of the run: candles of `timeframe` and gaps are kept, everything else is passed over. For runs
    /// whose tape is not one file.
    pub fn see(&mut self, subject: &str, payload: &[u8], timeframe: Timeframe) -> anyhow::Result<()> {
        let mut tokens = subject.split('.');
        match (tokens.next(), tokens.nth(2)) {
            (Some("candle"), Some(tf)) if tf == timeframe.to_string() => {
                let candle = Candle::decode(payload)?;
                self.push(&candle.venue, &candle.symbol, &candle);
            }
            (Some("raw"), Some("gap")) => {
                let gap = Gap::decode(payload)?;
                // A gap that lasts is told again with its end.
                if let Some(to_ns) = gap.to_ns {
                    let why = "gap".to_owned();
                    let (venue, symbol, from_ns) = (gap.venue, gap.symbol, gap.from_ns);
                    self.windows.push(Window { venue, symbol, from_ns, to_ns, why });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, venue: &str, symbol: &str, candle: &Candle) {
        let place = self.charts.iter().position(|c| c.venue == venue && c.symbol == symbol).unwrap_or_else(|| {
            self.charts.push(Chart { venue: venue.to_owned(), symbol: symbol.to_owned(), bars: Vec::new() });
            self.charts.len() - 1
        });
        self.charts[place].bars.push(Bar {
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
                why: "incomplete candle".to_owned(),
            });
        }
    }

    fn window(&mut self, from_ns: i64, to_ns: i64, why: &str) {
        let (venue, symbol) = (self.venue.clone(), self.symbol.clone());
        self.windows.push(Window { venue, symbol, from_ns, to_ns, why: why.to_owned() });
    }
}

/// The file's name without its folders: a report holds no paths of a machine.
fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn text_of(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let bytes: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    Ok(Box::new(BufReader::with_capacity(1 << 18, bytes)))
}
