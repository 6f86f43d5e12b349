//! MEXC REST: paths and answers of the public calls that a feed needs.
//!
//! Spot speaks like Binance, with text for what counts. Contract wraps everything: `{"success":true,"code":0,"data":...}`.

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::raw::BookAction;
use schemas::wire::Version;
use schemas::{Decimal, Instrument, Nanos, Notional, Price, Qty, Side};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Kind;
use super::contract::{DealRow, DepthRow, turnover};
use super::decode::parse;
use super::push::seconds;
use crate::event::{Bar, Book, Event, Symbol, Trade};
use crate::text::{Bare, Quoted, instant};
use crate::venue::{HistoryPage, Request, digits, percent};

/// Levels of a book snapshot: spot's most; contract names no limit, this is what others ask for [K].
const SPOT_LEVELS: u32 = 5000;
const CONTRACT_LEVELS: u32 = 1000;
/// The most that one answer holds: of spot's trades [K] and candles [K], of contract's deals [K] and candles (documented).
const SPOT_TRADES: u32 = 1000;
const SPOT_CANDLES: u32 = 1000;
const CONTRACT_DEALS: u32 = 100;
const CONTRACT_CANDLES: u32 = 2000;

/// The data of a contract answer; a refusal becomes its words.
fn unwrapped(body: &str) -> Result<&str, String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        success: bool,
        code: i64,
        message: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let answer: Answer = parse(body)?;
    match answer.data {
        Some(data) if answer.success => Ok(data.get()),
        _ => Err(format!("refused with {} {}", answer.code, answer.message.unwrap_or_default())),
    }
}

/// The order book.
pub fn depth(kind: Kind, symbol: &str) -> Request {
    let symbol = percent(symbol);
    Request::get(match kind {
        Kind::Spot => format!("/api/v3/depth?symbol={symbol}&limit={SPOT_LEVELS}"),
        Kind::Contract => format!("/api/v1/contract/depth/{symbol}?limit={CONTRACT_LEVELS}"),
    })
}

/// The book of such an answer; it does not name its symbol.
pub fn snapshot(kind: Kind, body: &str) -> Result<Book, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spot {
        last_update_id: u64,
        bids: Vec<(Quoted, Quoted)>,
        asks: Vec<(Quoted, Quoted)>,
        timestamp: Option<i64>,
    }
    if kind == Kind::Contract {
        return parse::<DepthRow>(unwrapped(body)?)?.book(Symbol::default(), BookAction::Snapshot, false, None);
    }
    let book: Spot = parse(body)?;
    let levels = |rows: Vec<(Quoted, Quoted)>| rows.into_iter().map(|(price, size)| (price.0, size.0)).collect();
    let ts = book.timestamp.map(instant);
    Ok(Book {
        symbol: Symbol::default(),
        action: BookAction::Snapshot,
        partial: false,
        seq_first: None,
        seq_last: Some(book.last_update_id),
        seq_prev: None,
        bids: levels(book.bids),
        asks: levels(book.asks),
        unit: SizeUnit::Base,
        checksum: None,
        ts,
        event_ts: ts,
    })
}

/// Trades that one answer tells at most.
pub fn page_max(kind: Kind) -> usize {
    match kind {
        Kind::Spot => SPOT_TRADES as usize,
        Kind::Contract => CONTRACT_DEALS as usize,
    }
}

/// The newest trades: the venue pages neither by id nor, on contract, by time.
pub fn recent_trades(kind: Kind, symbol: &str) -> Request {
    let symbol = percent(symbol);
    match kind {
        // Weight 5 [K].
        Kind::Spot => Request::get(format!("/api/v3/trades?symbol={symbol}&limit={SPOT_TRADES}")).weight(5),
        Kind::Contract => Request::get(format!("/api/v1/contract/deals/{symbol}?limit={CONTRACT_DEALS}")),
    }
}

/// The trades of such an answer, oldest first. The venue answers with the newest first and, as far as was recorded, without
/// ids.
pub fn trades(kind: Kind, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        id: Option<serde_json::Value>,
        price: Quoted,
        qty: Quoted,
        time: i64,
        /// `BID`: the buyer took.
        trade_type: String,
    }
    let mut trades = Vec::new();
    if kind == Kind::Contract {
        for row in parse::<Vec<DealRow>>(unwrapped(body)?)? {
            trades.push(row.trade(symbol.into(), None, true)?);
        }
    } else {
        for row in parse::<Vec<Row>>(body)? {
            let side = match row.trade_type.as_str() {
                "BID" => Side::Buy,
                "ASK" => Side::Sell,
                other => return Err(format!("trade type `{other}`")),
            };
            trades.push(Trade {
                symbol: symbol.into(),
                id: 0,
                venue_id: row.id.map(|id| Symbol::from(id.as_str().map_or_else(|| id.to_string(), str::to_owned))),
                price: row.price.0,
                size: row.qty.0,
                unit: SizeUnit::Base,
                side,
                ts: instant(row.time),
                event_ts: None,
                aggregate: None,
                backfill: true,
                extra: None,
            });
        }
    }
    trades.reverse();
    trades.sort_by_key(|t| t.ts);
    Ok(trades)
}

/// The venue's name of a candle's width. Neither market has 3 minutes.
fn width(kind: Kind, page: HistoryPage<'_>) -> Option<&'static str> {
    Some(match (page.timeframe.to_string().as_str(), kind) {
        ("1m", Kind::Spot) => "1m",
        ("1m", Kind::Contract) => "Min1",
        ("5m", Kind::Spot) => "5m",
        ("5m", Kind::Contract) => "Min5",
        ("15m", Kind::Spot) => "15m",
        ("15m", Kind::Contract) => "Min15",
        ("30m", Kind::Spot) => "30m",
        ("30m", Kind::Contract) => "Min30",
        ("1h", Kind::Spot) => "60m",
        ("1h", Kind::Contract) => "Min60",
        ("4h", Kind::Spot) => "4h",
        ("4h", Kind::Contract) => "Hour4",
        ("8h", Kind::Contract) => "Hour8",
        ("1d", Kind::Spot) => "1d",
        ("1d", Kind::Contract) => "Day1",
        _ => return None,
    })
}

/// Both ends are asked for: with one alone the venue counts from where it likes.
pub fn history_request(kind: Kind, page: HistoryPage<'_>) -> Option<Request> {
    let width = width(kind, page)?;
    let (symbol, end) = (percent(page.symbol), page.before.plus_ns(-1));
    let limit = page.limit.min(if kind == Kind::Spot { SPOT_CANDLES } else { CONTRACT_CANDLES });
    let open = page.timeframe.open_of(end);
    let start = open.plus_ns(-page.timeframe.ns().saturating_mul(i64::from(limit.max(1)) - 1));
    Some(Request::get(match kind {
        Kind::Spot => {
            let (start, end) = (start.as_ms(), end.as_ms());
            format!("/api/v3/klines?symbol={symbol}&interval={width}&startTime={start}&endTime={end}&limit={limit}")
        }
        Kind::Contract => {
            let (start, end) = (start.0 / Nanos::PER_SECOND, end.0 / Nanos::PER_SECOND);
            format!("/api/v1/contract/kline/{symbol}?interval={width}&start={start}&end={end}")
        }
    }))
}

/// The candles of such an answer, oldest first. One that closes behind the end of the page is still open.
pub fn history(kind: Kind, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    let mut bars = match kind {
        Kind::Spot => spot_candles(page, body)?,
        Kind::Contract => contract_candles(page, unwrapped(body)?)?,
    };
    bars.sort_by_key(|bar| bar.open_ts);
    Ok(bars)
}

fn bar(page: HistoryPage<'_>, open_ts: Nanos, [open, high, low, close]: [Decimal; 4]) -> Bar {
    let close_ts = page.timeframe.close_of(open_ts);
    Bar {
        symbol: page.symbol.into(),
        interval: page.timeframe.to_string(),
        open_ts,
        close_ts: Some(close_ts),
        open,
        high,
        low,
        close,
        volume_base: None,
        volume_quote: None,
        volume: None,
        trades: None,
        closed: Some(close_ts <= page.before),
        event_ts: None,
    }
}

/// Rows of open time (ms), open, high, low, close, volume, close time (ms), turnover.
fn spot_candles(page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    type Row = (i64, Quoted, Quoted, Quoted, Quoted, Quoted, i64, Quoted);
    let rows: Vec<Row> = parse(body)?;
    let one = |(open_ms, open, high, low, close, volume, _, turnover): Row| Bar {
        volume_base: Some(volume.0),
        volume_quote: Some(turnover.0),
        ..bar(page, instant(open_ms), [open.0, high.0, low.0, close.0])
    };
    Ok(rows.into_iter().map(one).collect())
}

/// Columns; times are seconds.
fn contract_candles(page: HistoryPage<'_>, data: &str) -> Result<Vec<Bar>, String> {
    #[derive(Deserialize)]
    struct Columns {
        time: Vec<i64>,
        open: Vec<Bare>,
        high: Vec<Bare>,
        low: Vec<Bare>,
        close: Vec<Bare>,
        vol: Vec<Bare>,
        amount: Vec<Bare>,
    }
    let c: Columns = parse(data)?;
    let n = c.time.len();
    if [&c.open, &c.high, &c.low, &c.close, &c.vol, &c.amount].iter().any(|column| column.len() != n) {
        return Err("columns of unequal length".to_owned());
    }
    let one = |i: usize| {
        let (volume_base, volume_quote) = turnover(page.symbol, Some(c.amount[i].0));
        let prices = [c.open[i].0, c.high[i].0, c.low[i].0, c.close[i].0];
        Bar { volume_base, volume_quote, volume: Some(c.vol[i].0), ..bar(page, seconds(c.time[i]), prices) }
    };
    Ok((0..n).map(one).collect())
}

/// Spot can be asked for some symbols (weight 10 [K]); contract answers for one or for all.
pub fn instrument_requests(kind: Kind, symbols: &[String]) -> Vec<Request> {
    // Keeps the path within what servers take.
    const SYMBOLS_MAX: usize = 100;
    match kind {
        Kind::Spot => symbols
            .chunks(SYMBOLS_MAX)
            .map(|some| {
                let list: Vec<String> = some.iter().map(|s| percent(s)).collect();
                Request::get(format!("/api/v3/exchangeInfo?symbols={}", list.join(","))).weight(10)
            })
            .collect(),
        Kind::Contract => vec![Request::get("/api/v1/contract/detail")],
    }
}

/// The instruments of such an answer. Kinds and states that are not known here are left out and named.
pub fn instruments(kind: Kind, venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    let mut take = |symbol: &str, read: Result<Instrument, String>| match read {
        Ok(instrument) => known.push(instrument.named()),
        Err(why) => left_out.push(format!("{symbol}: {why}")),
    };
    match kind {
        Kind::Spot => {
            #[derive(Deserialize)]
            struct Info {
                symbols: Vec<Pair>,
            }
            parse::<Info>(body)?.symbols.iter().for_each(|pair| take(&pair.symbol, spot(venue, pair)));
        }
        Kind::Contract => {
            let data = unwrapped(body)?;
            // One contract comes alone, several as a list.
            let rows: Vec<Contract> = if data.starts_with('[') { parse(data)? } else { vec![parse(data)?] };
            rows.iter().for_each(|row| take(&row.symbol, contract(venue, row)));
        }
    }
    Ok((known, left_out))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pair {
    symbol: String,
    status: String,
    base_asset: String,
    base_asset_precision: u32,
    quote_asset: String,
    /// Digits of a price.
    quote_asset_precision: u32,
    /// The smallest order in quote.
    quote_amount_precision: Quoted,
    is_spot_trading_allowed: bool,
}

/// 10 to the minus `digits`.
fn step(digits: u32) -> Result<Decimal, String> {
    Decimal::try_new(1, digits).map_err(|_| format!("{digits} digits"))
}

/// Spot states digits instead of steps. Its `baseSizePrecision` is the smallest order in coins [K]: no step, and nothing that
/// an instrument holds.
fn spot(venue: &str, pair: &Pair) -> Result<Instrument, String> {
    // 1 is online, 2 paused, 3 offline [K].
    let open = match pair.status.as_str() {
        "1" => true,
        "2" | "3" => false,
        other => return Err(format!("status `{other}`")),
    };
    let (tick, lot) = (step(pair.quote_asset_precision)?, step(pair.base_asset_precision)?);
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: pair.symbol.clone(),
        base: pair.base_asset.clone(),
        quote: pair.quote_asset.clone(),
        kind: InstrumentKind::Spot,
        size_unit: SizeUnit::Base,
        contract_size: Qty::new(1.into()),
        inverse: false,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::new(pair.quote_amount_precision.0),
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: open && pair.is_spot_trading_allowed,
        terms: Terms { status: pair.status.clone(), ..Terms::default() },
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contract {
    symbol: String,
    base_coin: String,
    quote_coin: String,
    settle_coin: String,
    contract_size: Bare,
    price_unit: Bare,
    vol_unit: Bare,
    state: i64,
    /// Absent before 2025.
    future_type: Option<i64>,
    api_allowed: Option<bool>,
}

fn contract(venue: &str, row: &Contract) -> Result<Instrument, String> {
    // 1 is perpetual; the venue names no other, and its dated ones would need their date.
    if let Some(other) = row.future_type.filter(|kind| *kind != 1) {
        return Err(format!("future type {other}"));
    }
    // 0 is enabled, 1 delivering, 2 delivered, 3 offline, 4 paused [K].
    let open = match row.state {
        0 => true,
        1..=4 => false,
        other => return Err(format!("state {other}")),
    };
    let (tick, lot) = (row.price_unit.0, row.vol_unit.0);
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: row.symbol.clone(),
        base: row.base_coin.clone(),
        quote: row.quote_coin.clone(),
        kind: InstrumentKind::Perpetual,
        size_unit: SizeUnit::Contracts,
        contract_size: Qty::new(row.contract_size.0),
        inverse: row.settle_coin == row.base_coin,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: open && row.api_allowed != Some(false),
        terms: Terms { settle: row.settle_coin.clone(), status: row.state.to_string(), ..Terms::default() },
    })
}

/// Reads a book answer into events; a refusal becomes an error.
pub fn snapshot_events(kind: Kind, body: &str, out: &mut Vec<Event>) {
    out.push(match snapshot(kind, body) {
        Ok(book) => Event::Book(book),
        Err(why) => Event::Malformed(why),
    });
}

#[cfg(test)]
mod tests;
