//! Recorded ticks to candles in one go, through the same core as the live path; what `tapeline candles` calls.

use std::io::{BufRead, Write};

use schemas::config::ConfigError;
use schemas::core::{Core, Place};
use schemas::fixed::mantissa_at;
use schemas::market::Candle;
use schemas::num::parse_decimal;
use schemas::raw::{PACK_MAX, Trade, Trades};
use schemas::{Decimal, Nanos, PriceM, QtyM, Scale, Side, Timeframe};

use crate::config::Config;
use crate::core::{AggregateCore, In, Out};

/// Ticks cannot be made into candles.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("read ticks or write candles")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Fold(String),
}

/// The header that [`candles_csv`] writes.
pub const HEADER: &str = "open_ts_ms,open,high,low,close,volume,trades,buy_volume,buy_trades,quote_volume,vwap";

/// One timeframe's candles as CSV, `ticks` as plain CSV text of the ticks form (`seq,ts_ns,trade_id,price,qty,side`,
/// more columns allowed). With `fill` intervals without a trade get a row too; their vwap is empty.
pub fn candles_csv(
    timeframe: Timeframe,
    fill: bool,
    ticks: impl BufRead,
    mut out: impl Write,
) -> Result<(), BatchError> {
    writeln!(out, "{HEADER}")?;
    let mut written = Ok(());
    candles(&[timeframe], fill, ticks, |candle| {
        if written.is_ok() {
            written = writeln!(out, "{}", row(&candle));
        }
    })?;
    written?;
    Ok(out.flush()?)
}

/// One row under [`HEADER`].
pub fn row(c: &Candle) -> String {
    let vwap = c.vwap().map(|v| v.to_string()).unwrap_or_default();
    let (open_ms, volume, quote) = (c.open_time().as_ms(), c.volume, c.quote_volume);
    let (trades, buys, buy_trades) = (c.trades, c.buy_volume, c.buy_trades);
    format!(
        "{open_ms},{},{},{},{},{volume},{trades},{buys},{buy_trades},{quote},{vwap}",
        c.open, c.high, c.low, c.close
    )
}

/// All candles of `ticks` in the order in which the live path would say them; then those still open at the end.
pub fn candles(
    timeframes: &[Timeframe],
    fill: bool,
    ticks: impl BufRead,
    mut each: impl FnMut(Candle),
) -> Result<(), BatchError> {
    let mut config = Config::load(None)?;
    config.timeframes = timeframes.to_vec();
    config.fill = if fill { timeframes.to_vec() } else { Vec::new() };
    config.fill_run_max = u64::MAX; // asked for by name, and bounded by the file
    config.indicator_timeframes = Vec::new();
    config.preview_timeframes = Vec::new();
    let mut core = AggregateCore::new(&config)?;
    let mut said = Vec::new();
    let mut place = Place::new("batch", 0);
    let mut say = |said: &mut Vec<Out>| {
        said.drain(..).for_each(|out| {
            if let Out::Candle(candle) = out {
                each(candle);
            }
        })
    };
    let mut packs = Packs::new(ticks)?;
    while let Some(pack) = packs.next_pack()? {
        place.seq += 1;
        core.handle(&place, In::Trades(pack), &mut said).map_err(|f| BatchError::Fold(f.0))?;
        say(&mut said);
    }
    core.flush(&place, &mut said).map_err(|f| BatchError::Fold(f.0))?;
    say(&mut said);
    Ok(())
}

/// Ticks in CSV text as packs of one symbol; a trade without an id gets 0, which is never a duplicate.
struct Packs<R> {
    lines: R,
    line: u64,
    text: String,
    /// Places of ts_ns, trade_id, price, qty, side.
    at: [usize; 5],
    scale: Scale,
    /// Read, but of a wider scale than the pack before it.
    next: Option<(Row, Scale)>,
}

struct Row {
    ts: Nanos,
    id: u64,
    price: Decimal,
    qty: Decimal,
    side: Side,
}

impl<R: BufRead> Packs<R> {
    fn new(mut lines: R) -> Result<Self, BatchError> {
        let mut text = String::new();
        lines.read_line(&mut text)?;
        let names: Vec<&str> = text.trim_end().split(',').collect();
        let mut at = [0; 5];
        for (place, name) in at.iter_mut().zip(["ts_ns", "trade_id", "price", "qty", "side"]) {
            let found = names.iter().position(|n| *n == name);
            *place = found.ok_or_else(|| BatchError::Line { line: 1, why: format!("no column `{name}`") })?;
        }
        Ok(Self { lines, line: 1, text, at, scale: Scale::default(), next: None })
    }

    fn next_pack(&mut self) -> Result<Option<Trades>, BatchError> {
        let mut pack = Trades::new(0, "batch", "", self.scale);
        while pack.len() < PACK_MAX {
            let (row, scale) = match self.next.take() {
                Some(waiting) => waiting,
                None => match self.row()? {
                    Some(row) => {
                        let scale = self.scale.widened(row.price, row.qty);
                        (row, scale)
                    }
                    None => break,
                },
            };
            if scale != pack.scale {
                if !pack.is_empty() {
                    self.next = Some((row, scale));
                    break;
                }
                (pack.scale, self.scale) = (scale, scale);
            }
            let narrow = |what| BatchError::Line { line: self.line, why: format!("{what} has too many digits") };
            pack.push(Trade {
                ts: row.ts,
                recv: row.ts,
                id: row.id,
                price: PriceM(mantissa_at(row.price, scale.price).ok_or_else(|| narrow("price"))?),
                size: QtyM(mantissa_at(row.qty, scale.qty).ok_or_else(|| narrow("qty"))?),
                side: row.side,
            });
        }
        Ok((!pack.is_empty()).then_some(pack))
    }

    fn row(&mut self) -> Result<Option<Row>, BatchError> {
        self.text.clear();
        if self.lines.read_line(&mut self.text)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let wrong = |what: &str, text: &str| BatchError::Line { line: self.line, why: format!("{what} is `{text}`") };
        let mut cells = [""; 5];
        for (n, cell) in self.text.trim_end().split(',').enumerate() {
            if let Some(i) = self.at.iter().position(|&at| at == n) {
                cells[i] = cell;
            }
        }
        let [ts, id, price, qty, side] = cells;
        Ok(Some(Row {
            ts: Nanos(ts.parse().map_err(|_| wrong("ts_ns", ts))?),
            id: if id.is_empty() { 0 } else { id.parse().map_err(|_| wrong("trade_id", id))? },
            price: parse_decimal(price).map_err(|_| wrong("price", price))?,
            qty: parse_decimal(qty).map_err(|_| wrong("qty", qty))?,
            side: match side {
                "buy" => Side::Buy,
                "sell" => Side::Sell,
                other => return Err(wrong("side", other)),
            },
        }))
    }
}

#[cfg(test)]
mod tests;
