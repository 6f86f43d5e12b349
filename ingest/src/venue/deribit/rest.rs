//! Deribit REST: the same methods as on the socket, asked with GET.

use std::collections::BTreeSet;

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, OptionRight, SizeUnit, Terms};
use schemas::wire::Version;
use schemas::{Instrument, Notional, Price, Qty, Timeframe};
use serde::Deserialize;

use super::decode::{TradeRow, parse, size_unit};
use crate::event::{Bar, Event, Trade};
use crate::text::{Bare, instant};
use crate::venue::{HistoryPage, Request, digits};

/// Up to 1000 trades of an instrument after a trade sequence.
pub fn trades_after(instrument: &str, after: u64) -> Request {
    let start = after + 1;
    Request::get(format!(
        "/api/v2/public/get_last_trades_by_instrument?instrument_name={instrument}&start_seq={start}&count=1000&sorting=asc"
    ))
}

/// The trades of such an answer, oldest first.
pub fn trades(body: &str) -> Result<Vec<Trade>, String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Page<'a>,
    }
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        trades: Vec<TradeRow<'a>>,
    }
    let answer: Answer = parse(body)?;
    let mut trades = Vec::with_capacity(answer.result.trades.len());
    for row in answer.result.trades {
        if let Event::Trade(trade) = row.event()? {
            trades.push(trade);
        }
    }
    trades.sort_by_key(|t| t.id);
    Ok(trades)
}

/// The venue's name of a candle's width.
fn resolution(timeframe: Timeframe) -> Option<&'static str> {
    Some(match timeframe.to_string().as_str() {
        "1m" => "1",
        "3m" => "3",
        "5m" => "5",
        "10m" => "10",
        "15m" => "15",
        "30m" => "30",
        "1h" => "60",
        "2h" => "120",
        "3h" => "180",
        "6h" => "360",
        "12h" => "720",
        "1d" => "1D",
        _ => return None,
    })
}

/// `get_tradingview_chart_data`: at most 5000 candles.
pub fn history_request(page: HistoryPage<'_>) -> Option<Request> {
    let resolution = resolution(page.timeframe)?;
    let end = page.before.plus_ns(-1);
    let start = page.before.plus_ns(-page.timeframe.ns().saturating_mul(i64::from(page.limit.min(5000))));
    let (symbol, start, end) = (page.symbol, start.as_ms(), end.as_ms());
    Some(Request::get(format!(
        "/api/v2/public/get_tradingview_chart_data?instrument_name={symbol}&start_timestamp={start}&end_timestamp={end}\
         &resolution={resolution}"
    )))
}

/// The candles of such an answer, which come by column.
pub fn history(page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Columns,
    }
    #[derive(Deserialize)]
    struct Columns {
        ticks: Vec<i64>,
        open: Vec<Bare>,
        high: Vec<Bare>,
        low: Vec<Bare>,
        close: Vec<Bare>,
        volume: Vec<Bare>,
        cost: Vec<Bare>,
    }
    let c = parse::<Answer>(body)?.result;
    let n = c.ticks.len();
    if [&c.open, &c.high, &c.low, &c.close, &c.volume, &c.cost].iter().any(|column| column.len() != n) {
        return Err("columns of unequal length".to_owned());
    }
    let bar = |i: usize| {
        let open_ts = instant(c.ticks[i]);
        Bar {
            symbol: page.symbol.into(),
            interval: page.timeframe.to_string(),
            open_ts,
            close_ts: None,
            open: c.open[i].0,
            high: c.high[i].0,
            low: c.low[i].0,
            close: c.close[i].0,
            volume_base: Some(c.volume[i].0),
            volume_quote: Some(c.cost[i].0),
            volume: None,
            trades: None,
            closed: Some(page.timeframe.close_of(open_ts) <= page.before),
            event_ts: None,
        }
    };
    Ok((0..n).map(bar).collect())
}

/// One request a settlement currency: the coin, or USDC and the like behind the `_` of linear contracts.
pub fn instrument_requests(symbols: &[String]) -> Vec<Request> {
    let currencies: BTreeSet<&str> = symbols
        .iter()
        .map(|s| {
            let pair = s.split('-').next().unwrap_or(s);
            pair.split_once('_').map_or(pair, |(_, quote)| quote)
        })
        .collect();
    let path = |currency: &str| format!("/api/v2/public/get_instruments?currency={currency}&expired=false");
    currencies.into_iter().map(|currency| Request::get(path(currency))).collect()
}

#[derive(Deserialize)]
struct Row {
    instrument_name: String,
    kind: String,
    base_currency: String,
    quote_currency: String,
    settlement_period: Option<String>,
    settlement_currency: Option<String>,
    /// `reversed` or `linear`; absent before 2022.
    future_type: Option<String>,
    contract_size: Option<Bare>,
    tick_size: Bare,
    min_trade_amount: Bare,
    is_active: bool,
    /// Milliseconds; perpetuals have a date in the far future.
    expiration_timestamp: Option<i64>,
    strike: Option<Bare>,
    option_type: Option<String>,
    state: Option<String>,
}

/// The instruments of a `get_instruments` answer. Kinds that are not known here are left out and named.
pub fn instruments(venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Vec<Row>,
    }
    let answer: Answer = parse(body)?;
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for row in answer.result {
        match instrument(venue, &row) {
            Ok(instrument) => known.push(instrument),
            Err(why) => left_out.push(format!("{}: {why}", row.instrument_name)),
        }
    }
    Ok((known, left_out))
}

fn instrument(venue: &str, row: &Row) -> Result<Instrument, String> {
    let kind = match (row.kind.as_str(), row.settlement_period.as_deref()) {
        ("future", Some("perpetual")) => InstrumentKind::Perpetual,
        ("future", _) => InstrumentKind::Future,
        ("option", _) => InstrumentKind::Option,
        ("spot", _) => InstrumentKind::Spot,
        ("future_combo" | "option_combo", _) => InstrumentKind::Combo,
        (other, _) => return Err(format!("kind `{other}`")),
    };
    let size_unit = size_unit(&row.instrument_name);
    let inverse = match (kind, row.future_type.as_deref()) {
        (InstrumentKind::Spot, _) => false,
        (_, Some("linear")) => false,
        (_, Some("reversed")) => true,
        (_, Some(other)) => return Err(format!("future type `{other}`")),
        // Options, and futures as the venue described them before 2022: settled in the coin unless the contract
        // says a currency of its own.
        (_, None) => match &row.settlement_currency {
            Some(settled) => *settled == row.base_currency,
            None => size_unit == SizeUnit::QuoteUsd || row.quote_currency != "USDC",
        },
    };
    let (tick, lot) = (row.tick_size.0, row.min_trade_amount.0);
    let expires = matches!(kind, InstrumentKind::Future | InstrumentKind::Option);
    let right = match row.option_type.as_deref() {
        Some("call") => Some(OptionRight::Call),
        Some("put") => Some(OptionRight::Put),
        None | Some("not_applicable") => None,
        Some(other) => return Err(format!("option type `{other}`")),
    };
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: row.instrument_name.clone(),
        base: row.base_currency.clone(),
        quote: row.quote_currency.clone(),
        kind,
        size_unit,
        contract_size: Qty::new(row.contract_size.map_or(1.into(), |n| n.0)),
        inverse,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: row.is_active,
        terms: Terms {
            settle: row.settlement_currency.clone().unwrap_or_default(),
            expiry_ns: row.expiration_timestamp.filter(|_| expires).map(|ms| instant(ms).0),
            strike: row.strike.map(|strike| Price::new(strike.0)),
            right,
            status: row.state.clone().unwrap_or_default(),
            ..Terms::default()
        },
    }
    .named())
}
