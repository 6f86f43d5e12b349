//! REST of both APIs: paths and answers of the public calls that a feed needs.
//!
//! Exchange pages its trades by id, Advanced by time (whole seconds). Lists come newest first on both.

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::raw::BookAction;
use schemas::wire::Version;
use schemas::{Decimal, Instrument, Nanos, Notional, Price, Qty, Timeframe};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Api;
use super::advanced::{Candle, TradeRow};
use super::decode::{level, parse, taker, time, unit};
use crate::event::{Bar, Book, Event, Trade};
use crate::text::{Bare, MaybeQuoted, Quoted, rfc3339};
use crate::venue::{HistoryPage, Request, digits};

/// Public market data of Advanced Trade; needs no key.
const MARKET: &str = "/api/v3/brokerage/market";

/// Trades of a page: the most that Exchange gives (its documentation), and what is asked of Advanced, whose most is not
/// documented.
pub const TRADES_MAX: u64 = 1000;

/// Trades of Exchange after an id: ids are consecutive, so the page that ends `TRADES_MAX` above it holds them.
pub fn trades_after(product: &str, after: u64) -> Request {
    // `after` means older than.
    let end = after + 1 + TRADES_MAX;
    Request::get(format!("/products/{product}/trades?limit={TRADES_MAX}&after={end}"))
}

/// Trades of Advanced since a time, the newest `TRADES_MAX` of them.
pub fn trades_since(product: &str, since: Nanos) -> Request {
    let start = since.0.div_euclid(Nanos::PER_SECOND);
    Request::get(format!("{MARKET}/products/{product}/ticker?limit={TRADES_MAX}&start={start}"))
}

/// The trades of such an answer, oldest first. Sides are the maker's here too.
pub fn trades(api: Api, product: &str, body: &str) -> Result<Vec<Trade>, String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        trades: Vec<TradeRow<'a>>,
    }
    #[derive(Deserialize)]
    struct Row {
        time: String,
        trade_id: u64,
        price: Quoted,
        size: Quoted,
        side: String,
    }
    let row = |row: Row| {
        Ok(Trade {
            symbol: product.into(),
            id: row.trade_id,
            venue_id: None,
            price: row.price.0,
            size: row.size.0,
            unit: SizeUnit::Base,
            side: taker(&row.side).map_err(|why| format!("trade {} has {why}", row.trade_id))?,
            ts: rfc3339(&row.time)?,
            event_ts: None,
            aggregate: None,
            backfill: true,
            extra: None,
        })
    };
    let mut trades: Vec<Trade> = match api {
        Api::Exchange => parse::<Vec<Row>>(body)?.into_iter().map(row).collect::<Result<_, String>>()?,
        Api::Advanced => {
            let rows = parse::<Answer>(body)?.trades;
            rows.into_iter().map(|row| row.trade(None, true)).collect::<Result<_, String>>()?
        }
    };
    trades.sort_by_key(|t| t.id);
    Ok(trades)
}

/// The whole book. Nothing ties it to the socket's changes, which have no numbers: it is for looking, not for joining.
pub fn book(api: Api, body: &str) -> Result<Event, String> {
    #[derive(Deserialize)]
    struct Advanced {
        pricebook: Pricebook,
    }
    #[derive(Deserialize)]
    struct Pricebook {
        product_id: String,
        bids: Vec<Row>,
        asks: Vec<Row>,
        time: Option<String>,
    }
    #[derive(Deserialize)]
    struct Row {
        price: Quoted,
        size: Quoted,
    }
    #[derive(Deserialize)]
    struct Exchange {
        sequence: u64,
        /// Price, size, number of orders.
        bids: Vec<(Quoted, Quoted, IgnoredAny)>,
        asks: Vec<(Quoted, Quoted, IgnoredAny)>,
        time: Option<String>,
    }
    type Side = Result<Vec<(Decimal, Decimal)>, String>;
    let (symbol, sequence, bids, asks, at): (_, _, Side, Side, _) = match api {
        Api::Advanced => {
            let b = parse::<Advanced>(body)?.pricebook;
            let side = |rows: Vec<Row>| rows.into_iter().map(|r| level(r.price, r.size)).collect();
            (b.product_id, None, side(b.bids), side(b.asks), b.time)
        }
        Api::Exchange => {
            let b: Exchange = parse(body)?;
            let side =
                |rows: Vec<(Quoted, Quoted, IgnoredAny)>| rows.into_iter().map(|(p, q, _)| level(p, q)).collect();
            (String::new(), Some(b.sequence), side(b.bids), side(b.asks), b.time)
        }
    };
    Ok(Event::Book(Book {
        unit: unit(&symbol),
        symbol: symbol.into(),
        action: BookAction::Snapshot,
        partial: false,
        seq_first: None,
        seq_last: sequence,
        seq_prev: None,
        bids: bids?,
        asks: asks?,
        checksum: None,
        ts: at.as_deref().map(time).transpose()?.flatten(),
        event_ts: None,
    }))
}

/// The venue's names of candle widths: seconds at Exchange, words at Advanced.
const WIDTHS: &[(u32, &str, bool)] = &[
    (60, "ONE_MINUTE", true),
    (300, "FIVE_MINUTE", true),
    (900, "FIFTEEN_MINUTE", true),
    (1_800, "THIRTY_MINUTE", false),
    (3_600, "ONE_HOUR", true),
    (7_200, "TWO_HOUR", false),
    (21_600, "SIX_HOUR", true),
    (86_400, "ONE_DAY", true),
];

/// Candles that one answer holds, by the venue's documentation; a longer range is refused.
fn candles_max(api: Api) -> u32 {
    match api {
        Api::Advanced => 350,
        Api::Exchange => 300,
    }
}

fn width(api: Api, timeframe: Timeframe) -> Option<&'static str> {
    let of = |(seconds, word, at_exchange): &(u32, &'static str, bool)| {
        (*seconds == timeframe.seconds() && (api == Api::Advanced || *at_exchange)).then_some(*word)
    };
    WIDTHS.iter().find_map(of)
}

/// Both ends of the range are within it, in seconds: the last candle is the one that opens before `before`.
pub fn history_request(api: Api, page: HistoryPage<'_>) -> Option<Request> {
    let word = width(api, page.timeframe)?;
    let limit = page.limit.clamp(1, candles_max(api));
    let last = page.timeframe.open_of(page.before.plus_ns(-1));
    let first = last.plus_ns(-page.timeframe.ns().saturating_mul(i64::from(limit) - 1));
    let (product, start, end) = (page.symbol, first.0 / Nanos::PER_SECOND, last.0 / Nanos::PER_SECOND);
    Some(Request::get(match api {
        Api::Advanced => {
            format!("{MARKET}/products/{product}/candles?granularity={word}&start={start}&end={end}&limit={limit}")
        }
        Api::Exchange => {
            let seconds = page.timeframe.seconds();
            format!("/products/{product}/candles?granularity={seconds}&start={start}&end={end}")
        }
    }))
}

/// The candles of such an answer, oldest first. A span without a trade has none.
pub fn history(api: Api, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    #[derive(Deserialize)]
    struct Answer {
        candles: Vec<Candle>,
    }
    /// Seconds, low, high, open, close, volume: as bare numbers, read from their text.
    type Row = (i64, Bare, Bare, Bare, Bare, Bare);
    let interval = page.timeframe.to_string();
    let row = |(start, low, high, open, close, volume): Row| Bar {
        symbol: page.symbol.into(),
        interval: interval.clone(),
        open_ts: Nanos(start.saturating_mul(Nanos::PER_SECOND)),
        close_ts: None,
        open: open.0,
        high: high.0,
        low: low.0,
        close: close.0,
        volume_base: Some(volume.0),
        volume_quote: None,
        volume: None,
        trades: None,
        closed: None,
        event_ts: None,
    };
    let mut bars: Vec<Bar> = match api {
        Api::Exchange => parse::<Vec<Row>>(body)?.into_iter().map(row).collect(),
        Api::Advanced => {
            let rows = parse::<Answer>(body)?.candles;
            rows.into_iter().map(|c| c.bar(page.symbol, &interval)).collect::<Result<_, String>>()?
        }
    };
    for bar in &mut bars {
        bar.closed = Some(page.timeframe.close_of(bar.open_ts) <= page.before);
    }
    bars.sort_by_key(|b| b.open_ts);
    bars.retain(|b| b.open_ts < page.before);
    Ok(bars)
}

/// Exchange answers with all of its products; Advanced is asked for those that are wanted.
pub fn instrument_requests(api: Api, symbols: &[String]) -> Vec<Request> {
    match api {
        Api::Exchange => vec![Request::get("/products")],
        // A query of thousands of names would be refused; each batch costs one request.
        Api::Advanced => symbols
            .chunks(100)
            .map(|batch| {
                let names: Vec<String> = batch.iter().map(|s| format!("product_ids={s}")).collect();
                Request::get(format!("{MARKET}/products?{}", names.join("&")))
            })
            .collect(),
    }
}

/// The instruments of such an answer; what is of an unknown kind or state is left out and named.
pub fn instruments(api: Api, venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    let rows: Vec<(String, Result<Instrument, String>)> = match api {
        Api::Exchange => {
            let rows: Vec<ExchangeRow> = parse(body)?;
            rows.into_iter().map(|r| (r.id.clone(), r.instrument(venue))).collect()
        }
        Api::Advanced => {
            // A list, or one product alone where it was asked for by its path.
            #[derive(Deserialize)]
            struct List {
                products: Option<Vec<AdvancedRow>>,
            }
            let rows = match parse::<List>(body)?.products {
                Some(rows) => rows,
                None => vec![parse::<AdvancedRow>(body)?],
            };
            rows.into_iter().map(|r| (r.product_id.clone(), r.instrument(venue))).collect()
        }
    };
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for (name, row) in rows {
        match row {
            Ok(instrument) => known.push(instrument),
            Err(why) => left_out.push(format!("{name}: {why}")),
        }
    }
    Ok((known, left_out))
}

/// Whether orders are taken: the state is `online` and nothing forbids them. Words other than `online` are the
/// documentation's; none was recorded.
fn trading(status: &str, forbidden: bool) -> Result<bool, String> {
    match status {
        "online" => Ok(!forbidden),
        "offline" | "internal" | "delisted" => Ok(false),
        other => Err(format!("status `{other}`")),
    }
}

#[derive(Deserialize)]
struct ExchangeRow {
    id: String,
    base_currency: String,
    quote_currency: String,
    quote_increment: Quoted,
    base_increment: Quoted,
    min_market_funds: MaybeQuoted,
    cancel_only: bool,
    trading_disabled: bool,
    status: String,
}

impl ExchangeRow {
    fn instrument(self, venue: &str) -> Result<Instrument, String> {
        let (tick, lot) = (self.quote_increment.0, self.base_increment.0);
        Ok(Instrument {
            v: Version,
            venue: venue.to_owned(),
            symbol: self.id,
            base: self.base_currency,
            quote: self.quote_currency,
            kind: InstrumentKind::Spot,
            size_unit: SizeUnit::Base,
            contract_size: Qty::new(1.into()),
            inverse: false,
            tick: Price::new(tick),
            lot: Qty::new(lot),
            min_notional: Notional::new(self.min_market_funds.0.unwrap_or_default()),
            scale: Scale { price: digits(tick), qty: digits(lot) },
            trading: trading(&self.status, self.cancel_only || self.trading_disabled)?,
            terms: Terms { status: self.status, ..Terms::default() },
        }
        .named())
    }
}

#[derive(Deserialize)]
struct AdvancedRow {
    product_id: String,
    product_type: String,
    base_currency_id: String,
    quote_currency_id: String,
    price_increment: Quoted,
    base_increment: Quoted,
    quote_min_size: MaybeQuoted,
    status: String,
    cancel_only: bool,
    trading_disabled: bool,
    is_disabled: bool,
    view_only: bool,
    future_product_details: Option<Contract>,
}

#[derive(Deserialize)]
struct Contract {
    contract_expiry: String,
    contract_size: Quoted,
    contract_root_unit: String,
    contract_expiry_type: String,
}

impl AdvancedRow {
    fn instrument(self, venue: &str) -> Result<Instrument, String> {
        let size_unit = unit(&self.product_id);
        let forbidden = self.cancel_only || self.trading_disabled || self.is_disabled || self.view_only;
        let (kind, base, contract_size, expiry) = match (self.product_type.as_str(), self.future_product_details) {
            ("SPOT", _) => (InstrumentKind::Spot, self.base_currency_id, Decimal::ONE, None),
            ("FUTURE", Some(c)) => {
                let (kind, expiry) = match c.contract_expiry_type.as_str() {
                    "PERPETUAL" => (InstrumentKind::Perpetual, None),
                    "EXPIRING" => (InstrumentKind::Future, time(&c.contract_expiry)?),
                    other => return Err(format!("expiry type `{other}`")),
                };
                // The size counts only where contracts do.
                let size = if size_unit == SizeUnit::Contracts { c.contract_size.0 } else { Decimal::ONE };
                (kind, c.contract_root_unit, size, expiry)
            }
            ("FUTURE", None) => return Err("a future without the details of its contract".to_owned()),
            (other, _) => return Err(format!("product type `{other}`")),
        };
        let (tick, lot) = (self.price_increment.0, self.base_increment.0);
        Ok(Instrument {
            v: Version,
            venue: venue.to_owned(),
            symbol: self.product_id,
            base,
            quote: self.quote_currency_id,
            kind,
            size_unit,
            contract_size: Qty::new(contract_size),
            inverse: false,
            tick: Price::new(tick),
            lot: Qty::new(lot),
            min_notional: Notional::new(self.quote_min_size.0.unwrap_or_default()),
            scale: Scale { price: digits(tick), qty: digits(lot) },
            trading: trading(&self.status, forbidden)?,
            terms: Terms { expiry_ns: expiry.map(|ts| ts.0), status: self.status, ..Terms::default() },
        }
        .named())
    }
}

#[cfg(test)]
mod tests;
