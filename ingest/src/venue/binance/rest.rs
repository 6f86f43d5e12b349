//! Binance REST: paths and answers of the public calls that a feed needs.

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::wire::Version;
use schemas::{Instrument, Notional, Price, Qty, Side};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Kind;
use super::decode::parse;
use crate::event::{Bar, Event, Trade};
use crate::text::{Quoted, instant};
use crate::venue::{HistoryPage, Request, digits, percent};

fn base(kind: Kind) -> &'static str {
    match kind {
        Kind::Spot => "/api/v3",
        Kind::Usdm => "/fapi/v1",
        Kind::Coinm => "/dapi/v1",
    }
}

/// The order book's first 1000 levels a side; weight 50 on spot, 20 on futures.
pub fn depth(kind: Kind, symbol: &str) -> Request {
    let weight = if kind == Kind::Spot { 50 } else { 20 };
    Request::get(format!("{}/depth?symbol={symbol}&limit=1000", base(kind))).weight(weight)
}

/// Up to 1000 trades after an id. Spot reads any page of its history; futures ask a key for that, so that only the
/// newest 1000 can be had there. Aggregates can be paged everywhere.
pub fn trades_after(kind: Kind, aggregates: bool, symbol: &str, after: u64) -> Request {
    let base = base(kind);
    let path = match (aggregates, kind) {
        (true, _) => format!("{base}/aggTrades?symbol={symbol}&fromId={}&limit=1000", after + 1),
        (false, Kind::Spot) => format!("{base}/historicalTrades?symbol={symbol}&fromId={}&limit=1000", after + 1),
        (false, Kind::Usdm | Kind::Coinm) => format!("{base}/trades?symbol={symbol}&limit=1000"),
    };
    // Spot asks 25 for trades and 4 for aggregates; futures 5 and 20.
    let weight = match (aggregates, kind) {
        (true, Kind::Spot) => 4,
        (false, Kind::Spot) => 25,
        (true, _) => 20,
        (false, _) => 5,
    };
    Request::get(path).weight(weight)
}

/// The trades of such an answer, oldest first.
pub fn trades(kind: Kind, aggregates: bool, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
    #[derive(Deserialize)]
    struct Row {
        id: u64,
        price: Quoted,
        qty: Quoted,
        time: i64,
        #[serde(rename = "isBuyerMaker")]
        buyer_is_maker: bool,
    }
    #[derive(Deserialize)]
    struct Aggregate {
        a: u64,
        p: Quoted,
        q: Quoted,
        f: u64,
        l: u64,
        #[serde(rename = "T")]
        time: i64,
        m: bool,
    }
    let row = |id, price: Quoted, size: Quoted, time, buyer_is_maker, aggregate| Trade {
        symbol: symbol.into(),
        id,
        venue_id: None,
        price: price.0,
        size: size.0,
        unit: if kind == Kind::Coinm { SizeUnit::Contracts } else { SizeUnit::Base },
        side: if buyer_is_maker { Side::Sell } else { Side::Buy },
        ts: instant(time),
        event_ts: None,
        aggregate,
        backfill: true,
        extra: None,
    };
    let mut trades: Vec<Trade> = if aggregates {
        let rows: Vec<Aggregate> = parse(body)?;
        rows.into_iter().map(|r| row(r.a, r.p, r.q, r.time, r.m, Some((r.f, r.l)))).collect()
    } else {
        let rows: Vec<Row> = parse(body)?;
        rows.into_iter().map(|r| row(r.id, r.price, r.qty, r.time, r.buyer_is_maker, None)).collect()
    };
    trades.sort_by_key(|t| t.id);
    Ok(trades)
}

/// Open interest of one symbol: the venue has no call for several. Weight 1 on both futures markets (the venue's documentation,
/// not confirmed by a fixture).
/// <https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api/Open-Interest>
pub fn open_interest_request(kind: Kind, symbol: &str) -> Request {
    Request::get(format!("{}/openInterest?symbol={symbol}", base(kind))).spare()
}

/// `{"symbol":"BTCUSDT","openInterest":"84617.188","time":1654336844754}`: coins on USD-M, contracts on COIN-M, which is each
/// market's size unit.
pub fn open_interest(body: &str) -> Result<Event, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        symbol: String,
        open_interest: Quoted,
        time: i64,
    }
    let row: Row = parse(body)?;
    Ok(Event::OpenInterest { symbol: row.symbol.into(), size: row.open_interest.0, coins: None, ts: instant(row.time) })
}

/// Widths of the venue's candles.
const WIDTHS: &[&str] = &["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d"];

/// `klines`: weight 2 on spot, up to 10 on futures by the number of candles.
pub fn history_request(kind: Kind, page: HistoryPage<'_>) -> Option<Request> {
    let width = page.timeframe.to_string();
    if !WIDTHS.contains(&width.as_str()) {
        return None;
    }
    let limit = page.limit.min(1000);
    let (base, symbol, end) = (base(kind), percent(page.symbol), page.before.as_ms() - 1);
    let weight = match kind {
        Kind::Spot => 2,
        Kind::Usdm | Kind::Coinm if limit <= 499 => 2,
        Kind::Usdm | Kind::Coinm => 5,
    };
    let path = format!("{base}/klines?symbol={symbol}&interval={width}&endTime={end}&limit={limit}");
    Some(Request::get(path).weight(weight))
}

/// The candles of such an answer: open, prices, volume, close, quote volume, number of trades, takers' share.
pub fn history(page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    type Row = (i64, Quoted, Quoted, Quoted, Quoted, Quoted, i64, Quoted, u64, Quoted, Quoted, IgnoredAny);
    let rows: Vec<Row> = parse(body)?;
    let bar = |(open_ms, open, high, low, close, volume, close_ms, quote, trades, _, _, _): Row| Bar {
        symbol: page.symbol.into(),
        interval: page.timeframe.to_string(),
        open_ts: instant(open_ms),
        close_ts: Some(instant(close_ms)),
        open: open.0,
        high: high.0,
        low: low.0,
        close: close.0,
        volume_base: Some(volume.0),
        volume_quote: Some(quote.0),
        volume: None,
        trades: Some(trades),
        closed: Some(instant(close_ms) < page.before),
        event_ts: None,
    };
    Ok(rows.into_iter().map(bar).collect())
}

/// Spot can be asked for some symbols (weight 20 either way); futures answer with all.
pub fn instrument_requests(kind: Kind, symbols: &[String]) -> Vec<Request> {
    let base = base(kind);
    match kind {
        Kind::Spot => symbols
            .chunks(100)
            .map(|some| {
                let list: Vec<String> = some.iter().map(|s| format!("%22{}%22", percent(s))).collect();
                Request::get(format!("{base}/exchangeInfo?symbols=%5B{}%5D", list.join("%2C"))).weight(20)
            })
            .collect(),
        Kind::Usdm | Kind::Coinm => vec![Request::get(format!("{base}/exchangeInfo"))],
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    symbols: Vec<Symbol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    /// COIN-M calls it `contractStatus`.
    #[serde(alias = "contractStatus")]
    status: String,
    base_asset: String,
    quote_asset: String,
    contract_type: Option<String>,
    contract_size: Option<serde_json::Number>,
    margin_asset: Option<String>,
    /// Milliseconds; perpetuals have a date in the far future.
    delivery_date: Option<i64>,
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<Quoted>,
    step_size: Option<Quoted>,
    min_notional: Option<Quoted>,
    /// USD-M's name of it.
    notional: Option<Quoted>,
}

/// The instruments of an `exchangeInfo` answer. Contract types and states that are not known here are left out and
/// named.
pub fn instruments(kind: Kind, venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    let info: Info = parse(body)?;
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    for symbol in info.symbols {
        match instrument(kind, venue, &symbol) {
            Ok(instrument) => known.push(instrument),
            Err(why) => left_out.push(format!("{}: {why}", symbol.symbol)),
        }
    }
    Ok((known, left_out))
}

fn instrument(kind: Kind, venue: &str, s: &Symbol) -> Result<Instrument, String> {
    let contract = match (kind, s.contract_type.as_deref()) {
        (Kind::Spot, _) => InstrumentKind::Spot,
        (_, Some("PERPETUAL" | "TRADIFI_PERPETUAL")) => InstrumentKind::Perpetual,
        (_, Some("CURRENT_QUARTER" | "NEXT_QUARTER" | "CURRENT_MONTH" | "NEXT_MONTH")) => InstrumentKind::Future,
        (_, Some("CURRENT_QUARTER DELIVERING" | "NEXT_QUARTER DELIVERING")) => InstrumentKind::Future,
        (_, other) => return Err(format!("contract type `{}`", other.unwrap_or(""))),
    };
    let trading = match s.status.as_str() {
        "TRADING" => true,
        "PRE_TRADING" | "POST_TRADING" | "END_OF_DAY" | "HALT" | "AUCTION_MATCH" | "BREAK" => false,
        "PENDING_TRADING" | "PRE_DELIVERING" | "DELIVERING" | "DELIVERED" | "PRE_SETTLE" | "SETTLING" | "CLOSE" => {
            false
        }
        other => return Err(format!("status `{other}`")),
    };
    let filter = |name: &str| s.filters.iter().find(|f| f.filter_type == name);
    let tick = filter("PRICE_FILTER").and_then(|f| f.tick_size).map(|t| t.0).unwrap_or_default();
    let lot = filter("LOT_SIZE").and_then(|f| f.step_size).map(|t| t.0).unwrap_or_default();
    let least = filter("NOTIONAL").or_else(|| filter("MIN_NOTIONAL"));
    let min_notional = least.and_then(|f| f.min_notional.or(f.notional)).map(|n| n.0).unwrap_or_default();
    let contract_size = match &s.contract_size {
        Some(size) => size.to_string().parse::<Qty>().map_err(|e| e.to_string())?,
        None => Qty::new(1.into()),
    };
    let size_unit = if kind == Kind::Coinm { SizeUnit::Contracts } else { SizeUnit::Base };
    Ok(Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: s.symbol.clone(),
        base: s.base_asset.clone(),
        quote: s.quote_asset.clone(),
        kind: contract,
        size_unit,
        contract_size,
        inverse: kind == Kind::Coinm,
        tick: Price::new(tick),
        lot: Qty::new(lot),
        min_notional: Notional::new(min_notional),
        scale: Scale { price: digits(tick), qty: digits(lot) },
        trading,
        terms: Terms {
            settle: s.margin_asset.clone().unwrap_or_default(),
            expiry_ns: s.delivery_date.filter(|_| contract == InstrumentKind::Future).map(|ms| instant(ms).0),
            status: s.status.clone(),
            ..Terms::default()
        },
    }
    .named())
}
