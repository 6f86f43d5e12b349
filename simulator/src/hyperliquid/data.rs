//! The objects: trades, books, quotes, candles, contexts. Numbers are texts as the venue prints them: `61800.0`, `0.5`.

use serde_json::{Value, json};

use super::feed::LEVELS;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::history::Bar;
use crate::instrument::{Spec, decimal_number};
use crate::market::{Listing, Trade};

/// A float cut to `digits` decimals.
fn float(value: f64, digits: u32) -> String {
    decimal_number((value * 10f64.powi(digits as i32)) as i128, digits)
}

fn push(channel: &str, data: Value) -> String {
    json!({ "channel": channel, "data": data }).to_string()
}

const TID_BITS: u64 = (1 << 50) - 1;
const TID_FACTOR: u64 = 0x2545_F491_4F6C_DD1D;

/// Fifty bits that tell a trade apart and say nothing of its place: an odd factor turns different ids into different ones.
pub fn tid(id: u64) -> u64 {
    id.wrapping_mul(TID_FACTOR) & TID_BITS
}

/// The market's own number of a trade, which rises by one: what only a test may know.
pub fn trade_number(tid: u64) -> u64 {
    // Each step doubles the bits of the factor's inverse that are right.
    let mut inverse = TID_FACTOR;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(TID_FACTOR.wrapping_mul(inverse)));
    }
    tid.wrapping_mul(inverse) & TID_BITS
}

fn address(n: u64) -> String {
    format!("0x{:040x}", u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64 | u128::from(n))
}

fn trade(l: &Listing, t: &Trade) -> Value {
    let side = if t.taker == Side::Buy { "B" } else { "A" };
    // Fills of one order share a transaction; some have none, as the recorded ones of the venue's own matching.
    let hash = if t.aggregate % 8 == 0 { 0 } else { t.aggregate };
    json!({
        "coin": l.spec.symbol, "side": side, "px": l.spec.price.number(t.price), "sz": l.spec.size.number(t.qty),
        "time": t.time_ns / 1_000_000, "hash": format!("0x{hash:064x}"), "tid": tid(t.id),
        "users": [address(t.id), address(t.aggregate)],
    })
}

/// Rows of an answer, oldest first.
pub fn trade_rows(l: &Listing, trades: &[Trade]) -> Value {
    trades.iter().map(|t| trade(l, t)).collect()
}

pub fn trades(l: &Listing, trades: &[Trade]) -> String {
    push("trades", trade_rows(l, trades))
}

fn level(spec: &Spec, price: i64, qty: i64) -> Value {
    // How many orders stand there is not kept; one or two is usual.
    json!({ "px": spec.price.number(price), "sz": spec.size.number(qty), "n": 1 + qty % 2 })
}

pub fn book(spec: &Spec, frame: &DepthFrame) -> String {
    push("l2Book", book_object(spec, frame))
}

fn book_object(spec: &Spec, frame: &DepthFrame) -> Value {
    let side = |rows: &[(i64, i64, bool)]| -> Value { rows.iter().map(|(p, q, _)| level(spec, *p, *q)).collect() };
    json!({ "coin": spec.symbol, "time": frame.time_ns / 1_000_000, "levels": [side(&frame.bids), side(&frame.asks)] })
}

/// The book as it stands.
pub fn book_state(floor: &Floor, i: usize) -> Value {
    let snapshot = floor.market.snapshot(i, LEVELS);
    let rows = |half: Vec<(i64, i64)>| half.into_iter().map(|(p, q)| (p, q, true)).collect();
    let (last, bids, asks) = (snapshot.id, rows(snapshot.bids), rows(snapshot.asks));
    let frame = DepthFrame { time_ns: floor.now_ns, first: last, last, prev: last, bids, asks };
    book_object(&floor.market.listing(i).spec, &frame)
}

pub fn book_now(floor: &Floor, i: usize) -> String {
    push("l2Book", book_state(floor, i))
}

pub fn bbo(spec: &Spec, bid: Option<(i64, i64)>, ask: Option<(i64, i64)>, at_ms: i64) -> String {
    let side = |side: Option<(i64, i64)>| side.map_or(Value::Null, |(price, qty)| level(spec, price, qty));
    push("bbo", json!({ "coin": spec.symbol, "time": at_ms, "bbo": [side(bid), side(ask)] }))
}

/// A row of `candleSnapshot` and of the channel: `T` is the candle's last millisecond.
pub fn candle_row(spec: &Spec, bar: &Bar, interval: &str, width_ms: i64) -> Value {
    let price = |units| spec.price.number(units);
    json!({
        "t": bar.open_ms, "T": bar.open_ms + width_ms - 1, "s": spec.symbol, "i": interval, "o": price(bar.open),
        "c": price(bar.close), "h": price(bar.high), "l": price(bar.low), "v": spec.size.number(bar.volume), "n": bar.n,
    })
}

pub fn candle(floor: &Floor, i: usize, interval: &str, width_ms: i64, open_ms: i64) -> Option<String> {
    let bar = floor.history[i].bar(width_ms, open_ms)?;
    Some(push("candle", candle_row(&floor.market.listing(i).spec, &bar, interval, width_ms)))
}

/// The candle that is open.
pub fn candle_now(floor: &Floor, i: usize, interval: &str, width_ms: i64) -> Option<String> {
    candle(floor, i, interval, width_ms, floor.now_ms().div_euclid(width_ms) * width_ms)
}

fn mid(l: &Listing) -> Option<String> {
    let (bid, ask) = (l.book.best(Side::Buy)?, l.book.best(Side::Sell)?);
    // Between two ticks it has a digit more.
    Some(decimal_number(i128::from(bid + ask) * i128::from(l.spec.price.m) * 5, l.spec.price.s + 1))
}

/// The context of a coin, without its name.
pub fn context_object(floor: &Floor, i: usize) -> Value {
    let l = floor.market.listing(i);
    let spec = &l.spec;
    // Prices that are no order's have more digits than its grid.
    let digits = spec.price.s + 1;
    let day = floor.history[i].day(floor.now_ms()).unwrap_or_default();
    let touch = |side: Side| l.book.best(side).map(|price| spec.price.number(price));
    let impact = match (touch(Side::Buy), touch(Side::Sell)) {
        (Some(bid), Some(ask)) => json!([bid, ask]),
        _ => Value::Null,
    };
    let interest: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
    json!({
        // The rate of an hour.
        "funding": float(l.funding() / 8.0, 10), "openInterest": spec.size.number(interest),
        "prevDayPx": spec.price.number(day.open), "dayNtlVlm": decimal_number(day.value, spec.price.s + spec.size.s),
        "premium": float(l.mark() / l.index() - 1.0, 10), "oraclePx": float(l.index(), digits),
        "markPx": float(l.mark(), digits), "midPx": mid(l), "impactPxs": impact,
        "dayBaseVlm": spec.size.number(day.volume),
    })
}

pub fn context(floor: &Floor, i: usize) -> String {
    let coin = &floor.market.listing(i).spec.symbol;
    push("activeAssetCtx", json!({ "coin": coin, "ctx": context_object(floor, i) }))
}

pub fn mids(floor: &Floor) -> Value {
    let row = |l: &Listing| mid(l).map(|mid| (l.spec.symbol.clone(), Value::String(mid)));
    Value::Object(floor.market.listings().iter().filter_map(row).collect())
}

pub fn all_mids(floor: &Floor) -> String {
    push("allMids", json!({ "mids": mids(floor) }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_tell_trades_apart_and_do_not_rise() {
        let start = 1_700_000_000_000_u64;
        let ids: Vec<u64> = (start..start + 1000).map(tid).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1000);
        assert!(ids.iter().all(|id| *id < 1 << 50));
        assert!(ids.iter().map(|tid| trade_number(*tid)).eq(start..start + 1000));
        let falls = ids.windows(2).filter(|two| two[1] < two[0]).count();
        assert!((200..800).contains(&falls), "{falls}");
    }
}
