//! The objects: books, trades, tickers, candles, instruments. Every number is a text without trailing zeros.

use serde_json::{Value, json};

use crate::book::Side;
use crate::faults::DepthFrame;
use crate::history::Bar;
use crate::instrument::{Grid, Spec, decimal_text};
use crate::market::{Listing, Trade};
use crate::orders::settlement;

/// Levels of each side that the books channel and its checksum cover.
pub const BOOK_LEVELS: usize = 400;
const CHECKSUM_LEVELS: usize = 25;

/// Coins of one contract of a linear swap, as mantissa and scale; 1 where it is not listed.
const CONTRACTS: &[(&str, i64, u32)] =
    &[("BTC", 1, 2), ("ETH", 1, 1), ("BNB", 1, 2), ("SOL", 1, 0), ("XRP", 100, 0), ("DOGE", 1000, 0)];
/// A linear swap trades in hundredths of a contract.
const LOT_DIGITS: u32 = 2;

/// The swap on a pair: of the pair's own coins, or inverse in contracts of 100 (BTC) or 10 dollars.
pub fn swap(pair: Spec, inverse: bool) -> Spec {
    let (size, contract_size) = match inverse {
        true => (Grid::new(1, 0, 0), if pair.base == "BTC" { 100 } else { 10 }),
        false => {
            let known = CONTRACTS.iter().find(|(base, ..)| *base == pair.base);
            let (m, s) = known.map_or((1, 0), |(_, m, s)| (*m, *s));
            (Grid::new(m, s + LOT_DIGITS, s + LOT_DIGITS), 1)
        }
    };
    let quote = if inverse { "USD".to_owned() } else { pair.quote.clone() };
    Spec { symbol: format!("{}-{quote}-SWAP", pair.base), quote, size, contract_size, inverse, perpetual: true, ..pair }
}

pub fn plain(mantissa: i128, scale: u32) -> String {
    let text = decimal_text(mantissa, scale, scale);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A float cut to `digits` decimals.
pub fn cut(value: f64, digits: u32) -> String {
    plain((value * 10f64.powi(digits as i32)) as i128, digits)
}

fn on(grid: Grid, units: i64) -> String {
    plain(i128::from(units) * i128::from(grid.m), grid.s)
}

pub fn price(spec: &Spec, units: i64) -> String {
    on(spec.price, units)
}

/// In coins on spot, else in contracts.
pub fn size(spec: &Spec, lots: i64) -> String {
    match spec.perpetual && !spec.inverse {
        true => plain(i128::from(lots), LOT_DIGITS),
        false => on(spec.size, lots),
    }
}

/// Volume in coins, and in quote currency.
fn volumes(spec: &Spec, bar: &Bar) -> (String, String) {
    match spec.inverse {
        true => (plain(bar.value, 8), plain(i128::from(bar.volume) * i128::from(spec.contract_size), 0)),
        false => (on(spec.size, bar.volume), plain(bar.value, spec.price.s + spec.size.s)),
    }
}

/// `BTC-USD`: what an instrument is on.
pub fn underlying(spec: &Spec) -> String {
    format!("{}-{}", spec.base, spec.quote)
}

pub fn inst_type(spec: &Spec) -> &'static str {
    if spec.perpetual { "SWAP" } else { "SPOT" }
}

/// One trade; `count`: how many fills the row sums up, where it may be several.
pub fn trade(spec: &Spec, t: &Trade, count: Option<u64>) -> String {
    let count = count.map(|n| format!(r#","count":"{n}","source":"0","seqId":{}"#, t.id)).unwrap_or_default();
    format!(
        r#"{{"instId":"{}","tradeId":"{}","px":"{}","sz":"{}","side":"{}","ts":"{}"{count}}}"#,
        spec.symbol,
        t.id,
        price(spec, t.price),
        size(spec, t.qty),
        t.taker.lower(),
        t.time_ns / 1_000_000
    )
}

/// `[["price","size","0","orders"],...]`; size 0 has no orders.
pub fn rows(spec: &Spec, rows: impl Iterator<Item = (i64, i64)>) -> String {
    let row = |(p, q): (i64, i64)| format!(r#"["{}","{}","0","{}"]"#, price(spec, p), size(spec, q), u8::from(q > 0));
    format!("[{}]", rows.map(row).collect::<Vec<_>>().join(","))
}

/// The whole book, as a channel's snapshot and as REST give it.
pub fn book(l: &Listing, levels: usize, at_ms: i64, numbers: &str) -> String {
    let side = |side| rows(&l.spec, l.book.top(side, levels).into_iter());
    format!(r#"{{"asks":{},"bids":{},"ts":"{at_ms}"{numbers}}}"#, side(Side::Sell), side(Side::Buy))
}

pub fn change(spec: &Spec, d: &DepthFrame, sum: i32) -> String {
    let side = |levels: &[(i64, i64, bool)]| rows(spec, levels.iter().map(|(p, q, _)| (*p, *q)));
    format!(
        r#"{{"asks":{},"bids":{},"ts":"{}","checksum":{sum},"seqId":{},"prevSeqId":{}}}"#,
        side(&d.asks),
        side(&d.bids),
        d.time_ns / 1_000_000,
        d.last,
        d.prev
    )
}

/// CRC-32 of `bid:size:ask:size:...` over the best levels.
pub fn checksum(l: &Listing) -> i32 {
    let (bids, asks) = (l.book.top(Side::Buy, CHECKSUM_LEVELS), l.book.top(Side::Sell, CHECKSUM_LEVELS));
    let mut parts = Vec::new();
    for n in 0..CHECKSUM_LEVELS {
        for (p, q) in [bids.get(n), asks.get(n)].into_iter().flatten() {
            parts.extend([price(&l.spec, *p), size(&l.spec, *q)]);
        }
    }
    let mut crc = flate2::Crc::new();
    crc.update(parts.join(":").as_bytes());
    crc.sum().cast_signed()
}

pub fn best(l: &Listing, at_ms: i64, seq: u64) -> String {
    book(l, 1, at_ms, &format!(r#","seqId":{seq}"#))
}

pub fn ticker(l: &Listing, day: Option<&Bar>, at_ms: i64) -> String {
    let spec = &l.spec;
    let touch = |side| match l.book.touch(side) {
        Some((p, q)) => (price(spec, p), size(spec, q)),
        None => Default::default(),
    };
    let ((bid, bid_size), (ask, ask_size)) = (touch(Side::Buy), touch(Side::Sell));
    let last = l.last.map(|t| (price(spec, t.price), size(spec, t.qty))).unwrap_or_default();
    let of = |f: fn(&Bar) -> i64| day.map(|d| price(spec, f(d))).unwrap_or_default();
    let (volume, ccy) = match day {
        Some(d) if spec.perpetual => (size(spec, d.volume), volumes(spec, d).0),
        Some(d) => volumes(spec, d),
        None => ("0".to_owned(), "0".to_owned()),
    };
    json!({
        "instType": inst_type(spec), "instId": spec.symbol, "last": last.0, "lastSz": last.1, "askPx": ask, "askSz": ask_size,
        "bidPx": bid, "bidSz": bid_size, "open24h": of(|d| d.open), "high24h": of(|d| d.high), "low24h": of(|d| d.low),
        "sodUtc0": of(|d| d.open), "sodUtc8": of(|d| d.open), "volCcy24h": ccy, "vol24h": volume, "ts": at_ms.to_string(),
    })
    .to_string()
}

pub fn candle(spec: &Spec, bar: &Bar, closed: bool) -> Value {
    let (coins, quote) = volumes(spec, bar);
    let ccy = if spec.perpetual { coins } else { quote.clone() };
    let p = |units| price(spec, units);
    json!([
        bar.open_ms.to_string(),
        p(bar.open),
        p(bar.high),
        p(bar.low),
        p(bar.close),
        size(spec, bar.volume),
        ccy,
        quote,
        u8::from(closed).to_string(),
    ])
}

pub fn mark(l: &Listing, at_ms: i64) -> String {
    let (kind, symbol, px) = (inst_type(&l.spec), &l.spec.symbol, cut(l.mark(), 2.max(l.spec.price.s)));
    json!({ "instType": kind, "instId": symbol, "markPx": px, "ts": at_ms.to_string() }).to_string()
}

pub fn index(l: &Listing, at_ms: i64) -> String {
    let px = cut(l.index(), 2.max(l.spec.price.s));
    json!({
        "instId": underlying(&l.spec), "idxPx": px, "open24h": px, "high24h": px, "low24h": px, "sodUtc0": px, "sodUtc8": px,
        "ts": at_ms.to_string(),
    })
    .to_string()
}

pub fn funding(l: &Listing, at_ms: i64) -> String {
    const PERIOD_MS: i64 = 8 * 3_600_000;
    let due = (at_ms.div_euclid(PERIOD_MS) + 1) * PERIOD_MS;
    json!({
        "fundingRate": cut(l.funding(), 12), "fundingTime": due.to_string(), "instId": l.spec.symbol, "instType": "SWAP",
        "method": "current_period", "maxFundingRate": "0.0075", "minFundingRate": "-0.0075", "nextFundingRate": "",
        "nextFundingTime": (due + PERIOD_MS).to_string(), "premium": "0", "settFundingRate": "0", "settState": "settled",
        "ts": at_ms.to_string(),
    })
    .to_string()
}

pub fn open_interest(l: &Listing, at_ms: i64) -> String {
    let lots: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
    let coins = match l.spec.inverse {
        true => cut(lots as f64 * l.spec.contract_size as f64 / l.index(), 8),
        false => on(l.spec.size, lots),
    };
    json!({ "instId": l.spec.symbol, "instType": "SWAP", "oi": size(&l.spec, lots), "oiCcy": coins, "ts": at_ms.to_string() })
        .to_string()
}

pub fn liquidation(spec: &Spec, t: &Trade) -> String {
    let (at, closed) = (t.time_ns / 1_000_000, if t.taker == Side::Buy { "short" } else { "long" });
    json!({
        "details": [{
            "bkLoss": "0", "bkPx": price(spec, t.price), "ccy": "", "posSide": closed, "side": t.taker.lower(),
            "sz": size(spec, t.qty), "ts": at.to_string(),
        }],
        "instFamily": underlying(spec), "instId": spec.symbol, "instType": "SWAP", "uly": underlying(spec),
    })
    .to_string()
}

pub fn instrument(l: &Listing) -> Value {
    let spec = &l.spec;
    let swap = spec.perpetual;
    let only = |wanted: bool, text: &str| if wanted { text.to_owned() } else { String::new() };
    let lot = if swap { size(spec, 1) } else { on(spec.size, 1) };
    let value = match spec.inverse {
        true => spec.contract_size.to_string(),
        false => plain(i128::from(spec.size.m) * 10i128.pow(LOT_DIGITS), spec.size.s),
    };
    json!({
        "alias": "", "baseCcy": only(!swap, &spec.base), "category": "1", "ctMult": only(swap, "1"),
        "ctType": only(swap, if spec.inverse { "inverse" } else { "linear" }), "ctVal": only(swap, &value),
        "ctValCcy": only(swap, if spec.inverse { "USD" } else { &spec.base }), "expTime": "",
        "instFamily": only(swap, &underlying(spec)), "instId": spec.symbol, "instType": inst_type(spec), "lever": "10",
        "listTime": "1548133413000", "lotSz": lot, "minSz": lot, "optType": "", "quoteCcy": only(!swap, &spec.quote),
        "settleCcy": only(swap, settlement(spec)), "state": "live", "stk": "", "tickSz": price(spec, 1),
        "uly": only(swap, &underlying(spec)),
    })
}
