//! Hyperliquid REST: questions as JSON, posted to `/info`.

use std::collections::BTreeSet;

use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::wire::Version;
use schemas::{Decimal, Instrument, Notional, Price, Qty, Timeframe};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use super::decode::{self, CandleRow, TradeRow, parse};
use crate::event::{Bar, Book, Trade};
use crate::text::Quoted;
use crate::venue::{HistoryPage, Request};

/// What most questions cost of the 1200 a minute; an answer's rows come on top.
const WEIGHT: u32 = 20;

fn info(question: &serde_json::Value) -> Request {
    Request::post("/info", question.to_string()).weight(WEIGHT)
}

/// The book of a coin, the 20 best levels a side.
pub fn book_request(coin: &str) -> Request {
    info(&json!({ "type": "l2Book", "coin": coin })).weight(2)
}

/// Such an answer: the same object as on the socket.
pub fn book(body: &str) -> Result<Book, String> {
    decode::book(body)
}

/// The newest trades of a coin. The documentation leaves this question out; clients of the venue ask it and get some ten
/// rows, the newest first.
pub fn trades_request(coin: &str) -> Request {
    const ROWS_MAX: u32 = 200;
    info(&json!({ "type": "recentTrades", "coin": coin })).weight(WEIGHT + ROWS_MAX / 20)
}

/// The trades of such an answer, oldest first. Those of one millisecond keep the order in which they happened.
pub fn trades(body: &str) -> Result<Vec<Trade>, String> {
    let rows: Vec<TradeRow> = parse(body)?;
    let mut trades: Vec<Trade> = rows.into_iter().map(|row| row.trade(true)).collect::<Result<_, _>>()?;
    trades.reverse();
    trades.sort_by_key(|t| t.ts);
    Ok(trades)
}

/// Widths of the venue's candles that begin at whole multiples since 1970. It has `3d`, `1w` and `1M` too, whose
/// beginnings nothing here confirms.
const WIDTHS: &[&str] = &["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d"];

/// `candleSnapshot` gives the newest 5000 candles at most (the venue's documentation; no recording reaches that far).
const CANDLES_MAX: u32 = 5000;

/// Candles whose end lies behind `startTime` and whose begin is not behind `endTime`: the recorded answer begins with the
/// candle that `startTime` lies in.
pub fn history_request(page: HistoryPage<'_>) -> Option<Request> {
    let width = page.timeframe.to_string();
    if !WIDTHS.contains(&width.as_str()) {
        return None;
    }
    let limit = page.limit.min(CANDLES_MAX);
    let end = page.before.plus_ns(-1);
    // From the begin of the last candle wanted back to the begin of the first.
    let last_open = page.timeframe.open_of(end);
    let start = last_open.plus_ns(-page.timeframe.ns().saturating_mul(i64::from(limit.saturating_sub(1))));
    let req = json!({ "coin": page.symbol, "interval": width, "startTime": start.as_ms(), "endTime": end.as_ms() });
    Some(info(&json!({ "type": "candleSnapshot", "req": req })).weight(WEIGHT + limit.div_ceil(60)))
}

/// The candles of such an answer, oldest first. What belongs to another coin or width is not an answer to this question.
pub fn history(page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String> {
    let rows: Vec<CandleRow> = parse(body)?;
    let width: Timeframe = page.timeframe;
    let bar = |row: CandleRow| {
        // The close is the last millisecond of the candle.
        let closed = row.close_ms < page.before.as_ms();
        let bar = row.bar(Some(closed));
        match bar.symbol == page.symbol && bar.interval == width.to_string() {
            true => Ok(bar),
            false => Err(format!("a candle of {} {}, not of {} {width}", bar.symbol, bar.interval, page.symbol)),
        }
    };
    rows.into_iter().map(bar).collect()
}

/// One question for the perpetuals, one for spot, one for each builder's exchange (`dex:COIN`).
pub fn instrument_requests(symbols: &[String]) -> Vec<Request> {
    let mut questions = BTreeSet::new();
    for symbol in symbols {
        let question = match symbol.split_once(':') {
            Some((dex, _)) => json!({ "type": "metaAndAssetCtxs", "dex": dex }),
            None if symbol.contains(['@', '/']) => json!({ "type": "spotMetaAndAssetCtxs" }),
            None => json!({ "type": "metaAndAssetCtxs" }),
        };
        questions.insert(question.to_string());
    }
    questions.into_iter().map(|question| Request::post("/info", question).weight(WEIGHT)).collect()
}

/// The smallest order in USDC. From general knowledge: no recording holds such a refusal with its bound.
const NOTIONAL_MIN: Decimal = Decimal::TEN;
/// Prices have at most this many digits that count, unless they are integers.
const FIGURES_MAX: i32 = 5;
/// Decimals that a price and a size share: a size has `szDecimals`, a price at most the rest.
const PERPETUAL_DECIMALS: u32 = 6;
const SPOT_DECIMALS: u32 = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Coin {
    name: String,
    sz_decimals: u32,
    #[serde(default)]
    is_delisted: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Perpetuals {
    universe: Vec<Coin>,
    /// Number of the token that profit is paid in; 0 (and where it is absent) is USDC.
    collateral_token: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spot {
    universe: Vec<Pair>,
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    tokens: (u64, u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    name: String,
    sz_decimals: u32,
    index: u64,
}

/// What stands beside an instrument: in the same order for perpetuals, with its name for spot.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    coin: Option<String>,
    mark_px: Option<Quoted>,
}

/// The instruments of an answer to `metaAndAssetCtxs` or `spotMetaAndAssetCtxs`: a list and its contexts; or of `meta` or
/// `spotMeta`: the list alone. Those whose grid or money is not known here are left out and named.
pub fn instruments(venue: &str, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String> {
    /// Only spot lists tokens.
    #[derive(Deserialize)]
    struct Kind {
        tokens: Option<IgnoredAny>,
    }
    let (list, contexts): (&str, Vec<Context>) = match body.trim_start().starts_with('[') {
        true => {
            let (list, contexts): (&RawValue, Vec<Context>) = parse(body)?;
            (list.get(), contexts)
        }
        false => (body, Vec::new()),
    };
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    let mut put = |name: &str, instrument: Result<Instrument, String>| match instrument {
        Ok(instrument) => known.push(instrument.named()),
        Err(why) => left_out.push(format!("{name}: {why}")),
    };
    if parse::<Kind>(list)?.tokens.is_some() {
        let list: Spot = parse(list)?;
        for pair in &list.universe {
            let of = |c: &&Context| c.coin.as_deref() == Some(pair.name.as_str());
            let mark = contexts.iter().find(of).and_then(|c| c.mark_px).map(|px| px.0);
            put(&pair.name, spot(venue, pair, &list.tokens, mark));
        }
    } else {
        let list: Perpetuals = parse(list)?;
        for (n, coin) in list.universe.iter().enumerate() {
            let mark = contexts.get(n).and_then(|c| c.mark_px).map(|px| px.0);
            put(&coin.name, perpetual(venue, coin, list.collateral_token, mark));
        }
    }
    Ok((known, left_out))
}

fn perpetual(venue: &str, coin: &Coin, collateral: Option<u64>, mark: Option<Decimal>) -> Result<Instrument, String> {
    if collateral.is_some_and(|token| token != 0) {
        return Err(format!("collateral token {}", collateral.unwrap_or_default()));
    }
    let decimals = PERPETUAL_DECIMALS
        .checked_sub(coin.sz_decimals)
        .ok_or_else(|| format!("sizes of {} decimals", coin.sz_decimals))?;
    // A builder's coin is spelled with its exchange: `xyz:NVDA` trades NVDA.
    let base = coin.name.rsplit_once(':').map_or(coin.name.as_str(), |(_, base)| base);
    Ok(Instrument {
        kind: InstrumentKind::Perpetual,
        trading: !coin.is_delisted,
        terms: Terms {
            settle: "USDC".to_owned(),
            status: if coin.is_delisted { "delisted".to_owned() } else { String::new() },
            ..Terms::default()
        },
        ..grid(venue, &coin.name, (base, "USDC"), coin.sz_decimals, decimals, mark)
    })
}

fn spot(venue: &str, pair: &Pair, tokens: &[Token], mark: Option<Decimal>) -> Result<Instrument, String> {
    let token = |index: u64| {
        tokens.iter().find(|t| t.index == index).ok_or_else(|| format!("token {index} is not in the list"))
    };
    let (base, quote) = (token(pair.tokens.0)?, token(pair.tokens.1)?);
    let decimals =
        SPOT_DECIMALS.checked_sub(base.sz_decimals).ok_or_else(|| format!("sizes of {} decimals", base.sz_decimals))?;
    Ok(grid(venue, &pair.name, (&base.name, &quote.name), base.sz_decimals, decimals, mark))
}

/// A spot instrument that trades, on its grid.
///
/// The step of a price depends on the price. `tick` is the step at the mark price of this answer ([`tick_at`]), or the
/// finest one where the answer has no price. `scale` holds the finest one, so that a price which falls still fits.
fn grid(
    venue: &str,
    symbol: &str,
    (base, quote): (&str, &str),
    size_decimals: u32,
    price_decimals: u32,
    mark: Option<Decimal>,
) -> Instrument {
    Instrument {
        v: Version,
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        kind: InstrumentKind::Spot,
        size_unit: SizeUnit::Base,
        contract_size: Qty::new(Decimal::ONE),
        inverse: false,
        tick: Price::new(tick_at(mark, price_decimals)),
        lot: Qty::new(Decimal::new(1, size_decimals)),
        min_notional: Notional::new(NOTIONAL_MIN),
        scale: Scale { price: price_decimals as u8, qty: size_decimals as u8 },
        trading: true,
        terms: Terms::default(),
    }
}

/// The smallest step of a price near `price`: five figures that count, at most `decimals` decimals, never above 1.
fn tick_at(price: Option<Decimal>, decimals: u32) -> Decimal {
    let finest = Decimal::new(1, decimals);
    let Some(price) = price.map(|p| p.normalize()).filter(|p| !p.is_zero()) else { return finest };
    // The power of ten of the first digit: 0 for 1 to 9.99.
    let digits = price.mantissa().unsigned_abs().ilog10() as i32;
    let first = digits - price.scale() as i32;
    let decimals_of_figures = FIGURES_MAX - 1 - first;
    Decimal::new(1, decimals_of_figures.clamp(0, decimals as i32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_step_of_a_price_is_its_fifth_figure_within_the_decimals() {
        let step = |price: &str, size_decimals: u32| {
            tick_at(Some(price.parse().unwrap()), PERPETUAL_DECIMALS - size_decimals).to_string()
        };
        // BTC, ETH, SOL, a coin of whole units, and the recorded "0.001601" of kPEPE.
        assert_eq!(step("64040.0", 5), "1");
        assert_eq!(step("123456", 5), "1");
        assert_eq!(step("1903.95", 4), "0.1");
        assert_eq!(step("155.21", 2), "0.01");
        assert_eq!(step("0.105", 0), "0.00001");
        assert_eq!(step("0.001601", 0), "0.000001");
        assert_eq!(tick_at(None, 1).to_string(), "0.1");
        assert_eq!(tick_at(Some(Decimal::ZERO), 3).to_string(), "0.001");
    }

    proptest! {
        /// Whole steps near a price keep the venue's rule, and a finer step would break it.
        #[test]
        fn a_price_of_whole_steps_is_one_that_the_venue_takes(mantissa in 1i64..1_000_000_000_000, scale in 0u32..10, sz in 0u32..7) {
            let decimals = PERPETUAL_DECIMALS - sz;
            let price = Decimal::new(mantissa, scale);
            let tick = tick_at(Some(price), decimals);
            let floor = (price / tick).trunc() * tick;
            let floor = floor.normalize();
            let figures = if floor.is_zero() { 0 } else { floor.mantissa().unsigned_abs().ilog10() + 1 };
            prop_assert!(floor.scale() == 0 || figures <= FIGURES_MAX as u32, "{floor}");
            prop_assert!(floor.scale() <= decimals);
            // The next finer step has a figure or a decimal too many, whatever the price's digits are.
            let finer = tick / Decimal::TEN;
            let whole_figures = (price / finer).trunc().normalize();
            let count = if whole_figures.is_zero() { 0 } else { (price / finer).trunc().to_string().len() as i32 };
            prop_assert!(finer.normalize().scale() > decimals || count > FIGURES_MAX, "{price} {tick}");
        }
    }
}
