//! HTX over REST: instruments, candles, recent trades. Spot and derivatives have hosts, paths and words of their own.

use std::collections::BTreeSet;

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::wire::Version;
use schemas::{Decimal, Instrument, Nanos, Notional, Price, Qty, Timeframe};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Kind;
use super::decode::{Kline, Ms, Num, Sum, TradeRow, parse, unquoted};
use crate::event::{Bar, Event};
use crate::venue::{HistoryPage, Request, digits, percent};

/// What every answer has around its data. Refusals: `err-code` on spot, `err_code` on derivatives.
#[derive(Deserialize)]
struct Answer<'a> {
    status: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    ts: Option<Ms>,
    #[serde(borrow, alias = "err_code", rename = "err-code")]
    code: Option<&'a RawValue>,
    #[serde(alias = "err_msg", rename = "err-msg")]
    message: Option<String>,
}

fn answer(body: &str) -> Result<(&str, Option<Nanos>), String> {
    let a: Answer = parse(body)?;
    match (a.status.as_str(), a.data) {
        ("ok", Some(data)) => Ok((data.get(), a.ts.map(Ms::at))),
        ("ok", None) => Err("an answer without data".to_owned()),
        (status, _) => {
            let code = a.code.map(unquoted).unwrap_or("no code");
            Err(format!("status `{status}`: {code} {}", a.message.unwrap_or_default()))
        }
    }
}

/// The whole list: the venue cannot be asked for some symbols at once.
pub fn instrument_requests(kind: Kind) -> Vec<Request> {
    vec![Request::get(match kind {
        Kind::Spot => "/v1/common/symbols",
        Kind::Linear => "/linear-swap-api/v1/swap_contract_info?business_type=all",
        Kind::Inverse => "/swap-api/v1/swap_contract_info",
    })]
}

pub fn instruments(kind: Kind, venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    let (data, _) = answer(body)?;
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    let mut put = |symbol: String, read: Result<Instrument, String>| match read {
        Ok(instrument) => known.push(instrument.named()),
        Err(why) => left_out.push(format!("{symbol}: {why}")),
    };
    if kind.is_swap() {
        for row in parse::<Vec<Contract>>(data)? {
            put(row.contract_code.clone(), contract(kind, venue, row));
        }
    } else {
        for row in parse::<Vec<Pair>>(data)? {
            put(row.symbol.clone(), pair(venue, row));
        }
    }
    Ok((known, left_out))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pair {
    symbol: String,
    base_currency: String,
    quote_currency: String,
    price_precision: u32,
    amount_precision: u32,
    min_order_value: Option<Num>,
    state: String,
    api_trading: Option<String>,
}

fn pair(venue: &str, row: Pair) -> Result<Instrument, String> {
    let online = match row.state.as_str() {
        "online" => true,
        "offline" | "suspend" | "not-online" | "pre-online" | "transfer-board" | "fuse" => false,
        other => return Err(format!("state `{other}`")),
    };
    let allowed = match row.api_trading.as_deref() {
        None | Some("enabled") => true,
        Some("disabled") => false,
        Some(other) => return Err(format!("api-trading `{other}`")),
    };
    let step = |places: u32| match places {
        0..=28 => Ok(Decimal::new(1, places)),
        _ => Err(format!("{places} digits")),
    };
    let (tick, lot) = (step(row.price_precision)?, step(row.amount_precision)?);
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        base: row.base_currency.to_uppercase(),
        quote: row.quote_currency.to_uppercase(),
        symbol: row.symbol,
        kind: InstrumentKind::Spot,
        size_unit: SizeUnit::Base,
        contract_size: Qty::new(Decimal::ONE),
        inverse: false,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::new(row.min_order_value.map(|n| n.0).unwrap_or_default()),
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading: online && allowed,
        terms: Terms { status: row.state, ..Terms::default() },
    })
}

#[derive(Deserialize)]
struct Contract {
    /// The coin.
    symbol: String,
    contract_code: String,
    /// In coins (linear) or dollars (inverse).
    contract_size: Num,
    price_tick: Num,
    /// `swap`, `this_week`, ...; inverse swaps have none.
    contract_type: Option<String>,
    contract_status: i64,
    /// Empty where it never expires.
    delivery_time: Option<String>,
    /// What linear contracts are settled in.
    trade_partition: Option<String>,
}

fn contract(kind: Kind, venue: &str, row: Contract) -> Result<Instrument, String> {
    let dated = match row.contract_type.as_deref() {
        None | Some("swap") => false,
        Some("this_week" | "next_week" | "quarter" | "next_quarter") => true,
        Some(other) => return Err(format!("contract type `{other}`")),
    };
    // The venue numbers its states; the words are those of its documentation.
    let status = match row.contract_status {
        0 => "delisted",
        1 => "listed",
        2 => "pending",
        3 => "suspended",
        4 => "suspending",
        5 => "settling",
        6 => "delivering",
        7 => "settled",
        8 => "delivered",
        9 => "halted",
        other => return Err(format!("contract status {other}")),
    };
    let inverse = kind == Kind::Inverse;
    let quote = if inverse { "USD".to_owned() } else { row.trade_partition.unwrap_or_else(|| "USDT".to_owned()) };
    let expiry: Option<Ms> = match row.delivery_time.as_deref() {
        None | Some("") => None,
        Some(text) => Some(parse(text)?),
    };
    if dated && expiry.is_none() {
        return Err("a dated contract without its delivery time".to_owned());
    }
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: row.contract_code,
        kind: if dated { InstrumentKind::Future } else { InstrumentKind::Perpetual },
        size_unit: SizeUnit::Contracts,
        contract_size: Qty::new(row.contract_size.0),
        inverse,
        tick: Price::new(row.price_tick.0),
        lot: Qty::new(Decimal::ONE),
        min_notional: Notional::ZERO,
        scale: Scale { price: digits(row.price_tick.0), qty: 0 },
        trading: row.contract_status == 1,
        terms: Terms {
            settle: if inverse { row.symbol.clone() } else { quote.clone() },
            expiry_ns: expiry.filter(|_| dated).map(|ms| ms.at().0),
            status: status.to_owned(),
            ..Terms::default()
        },
        base: row.symbol,
        quote,
    })
}

/// Where the market data of the kind stands, and what it calls a symbol.
fn market(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Spot => ("/market", "symbol"),
        Kind::Linear => ("/linear-swap-ex/market", "contract_code"),
        Kind::Inverse => ("/swap-ex/market", "contract_code"),
    }
}

/// Trades of one answer, and candles of one.
const ROWS_MAX: u32 = 2000;

/// The newest trades: the venue has no page by id.
pub fn trades_request(kind: Kind, symbol: &str) -> Request {
    let ((base, name), symbol) = (market(kind), percent(symbol));
    Request::get(format!("{base}/history/trade?{name}={symbol}&size={ROWS_MAX}"))
}

/// The rows of such an answer (trades, and ids that are used up for none), oldest first.
pub fn trades(kind: Kind, symbol: &str, body: &str) -> Result<Vec<Event>, String> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        data: Vec<TradeRow<'a>>,
    }
    let (data, _) = answer(body)?;
    let mut rows = Vec::new();
    for batch in parse::<Vec<Batch>>(data)? {
        for row in batch.data {
            rows.push(row.event(kind, symbol, None, true)?);
        }
    }
    rows.sort_by_key(|row| match row {
        Event::Trade(trade) => trade.id,
        Event::Ignored { trade: Some((_, id)), .. } => *id,
        _ => 0,
    });
    Ok(rows)
}

/// Open interest of one swap, or of all of them at once: the venue has no call for some. Costs one request either way.
pub fn open_interest_request(kind: Kind, symbols: &BTreeSet<String>) -> Option<Request> {
    let base = match kind {
        Kind::Spot => return None,
        Kind::Linear => "/linear-swap-api/v1/swap_open_interest",
        Kind::Inverse => "/swap-api/v1/swap_open_interest",
    };
    let mut symbols = symbols.iter();
    let query = match (symbols.next(), symbols.next()) {
        (None, _) => return None,
        (Some(only), None) => format!("?contract_code={}", percent(only)),
        // Dated contracts too (not confirmed by a fixture), as in the list of instruments.
        (Some(_), Some(_)) if kind == Kind::Linear => "?business_type=all".to_owned(),
        (Some(_), Some(_)) => String::new(),
    };
    Some(Request::get(format!("{base}{query}")).spare())
}

/// The rows of such an answer, all of the answer's time. `volume` is contracts and, unlike what was traded, counts a contract
/// once: three of the four recorded ones are odd.
pub fn open_interest(body: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row {
        contract_code: String,
        volume: Num,
        amount: Option<Sum>,
    }
    let (data, ts) = answer(body)?;
    let ts = ts.ok_or("open interest without ts")?;
    for row in parse::<Vec<&RawValue>>(data)? {
        // A contract that is not understood does not take the others along.
        out.push(match parse::<Row>(row.get()) {
            Ok(row) => Event::OpenInterest {
                symbol: row.contract_code.into(),
                size: row.volume.0,
                coins: row.amount.map(|sum| sum.value),
                ts,
            },
            Err(why) => Event::Malformed(why),
        });
    }
    Ok(())
}

/// The venue's name of a width. Its days begin at 16:00 UTC (not confirmed by a fixture), ours at midnight: those are
/// left out, as are weeks.
fn period(width: Timeframe) -> Option<&'static str> {
    Some(match width.to_string().as_str() {
        "1m" => "1min",
        "5m" => "5min",
        "15m" => "15min",
        "30m" => "30min",
        "1h" => "60min",
        "4h" => "4hour",
        _ => return None,
    })
}

/// Candles. The venue gives the newest ones only, up to [`ROWS_MAX`] back: older pages are cut out of the same answer.
pub fn history_request(kind: Kind, page: HistoryPage<'_>) -> Option<Request> {
    let ((base, name), symbol, period) = (market(kind), percent(page.symbol), period(page.timeframe)?);
    Some(Request::get(format!("{base}/history/kline?{name}={symbol}&period={period}&size={ROWS_MAX}")))
}

pub fn history(kind: Kind, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    let (data, now) = answer(body)?;
    let now = now.ok_or("candles without ts")?;
    let mut rows: Vec<Kline> = parse(data)?;
    // Newest first on spot.
    rows.sort_by_key(Kline::open_ts);
    rows.retain(|row| row.open_ts() < page.before);
    let surplus = rows.len().saturating_sub(page.limit as usize);
    let width = page.timeframe.to_string();
    rows.into_iter()
        .skip(surplus)
        .map(|row| {
            let open = row.open_ts();
            if page.timeframe.open_of(open) != open {
                return Err(format!("a candle of {width} that opens at {}", open.0));
            }
            let close = page.timeframe.close_of(open);
            let bar = row.bar(kind, page.symbol, &width, None);
            Ok(Bar { close_ts: Some(close), closed: Some(close <= now), ..bar })
        })
        .collect()
}

#[cfg(test)]
mod tests;
