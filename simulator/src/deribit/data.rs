//! The objects: tickers, books, trades, instruments. Floats are printed as the venue prints them.

use std::fmt::Write;

use crate::book::Side;
use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::history::Bar;
use crate::instrument::{Spec, decimal_number};
use crate::market::{Listing, Trade};
use crate::orders::settlement;

/// A float price cut to `digits` decimals.
pub fn float(value: f64, digits: u32) -> String {
    decimal_number((value * 10f64.powi(digits as i32)) as i128, digits)
}

/// `btc_usd`, `sol_usdc`.
pub fn index_name(spec: &Spec) -> String {
    format!("{}_{}", spec.base.to_ascii_lowercase(), spec.quote.to_ascii_lowercase())
}

/// Venue currency of an instrument: its settlement coin.
pub fn currency(spec: &Spec) -> &str {
    settlement(spec)
}

/// Size of the contract in the instrument's amount unit: the smallest amount.
fn contracts(spec: &Spec, lots: i64) -> String {
    let mantissa = i128::from(lots) * i128::from(spec.size.m);
    match spec.inverse {
        true => decimal_number(mantissa / i128::from(spec.contract_size), spec.size.s),
        false => format!("{lots}.0"),
    }
}

/// One trade; `tick` is its direction against the trades before (0 up, 1 flat after up, 2 down, 3 flat after down).
pub fn trade(l: &Listing, t: &Trade, sequence: u64, tick: u8) -> String {
    let spec = &l.spec;
    let (price, amount) = (spec.price.number(t.price), spec.size.number(t.qty));
    let prefix = if spec.inverse && spec.base == "BTC" { String::new() } else { format!("{}-", currency(spec)) };
    let liquidation = if t.liquidation { r#""liquidation":"T","# } else { "" };
    format!(
        r#"{{"timestamp":{},"price":{price},"direction":"{}","index_price":{},"instrument_name":"{}",{liquidation}"trade_id":"{prefix}{}","trade_seq":{sequence},"amount":{amount},"mark_price":{},"tick_direction":{tick},"contracts":{},"starbase_match_id":{},"starbase_timestamp":{}}}"#,
        t.time_ns / 1_000_000,
        t.taker.lower(),
        float(l.index(), 2.max(spec.price.s)),
        spec.symbol,
        t.id,
        float(l.mark(), 2.max(spec.price.s)),
        contracts(spec, t.qty),
        200_000_000_000_000_000 + t.id,
        t.time_ns,
    )
}

/// Rows of `[price, amount]`, or with an action in front.
pub fn rows(spec: &Spec, rows: &[(i64, i64)], action: Option<&str>) -> String {
    let action = action.map(|a| format!("\"{a}\",")).unwrap_or_default();
    let mut out = String::from("[");
    for (n, (price, qty)) in rows.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}[{action}{},{}]", spec.price.number(*price), spec.size.number(*qty));
    }
    out.push(']');
    out
}

fn changes(spec: &Spec, rows: &[(i64, i64, bool)], scientific: bool) -> String {
    let mut out = String::from("[");
    for (n, &(price, qty, existed)) in rows.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let action = match (qty, existed) {
            (0, _) => "delete",
            (_, true) => "change",
            (_, false) => "new",
        };
        let amount = if scientific { exponent(&spec.size.number(qty)) } else { spec.size.number(qty) };
        // Writing to a String cannot fail.
        let _ = write!(out, r#"{comma}["{action}",{},{amount}]"#, spec.price.number(price));
    }
    out.push(']');
    out
}

/// `1000200.0` as `1.0002e6`: the same number as the venue sometimes prints it.
fn exponent(number: &str) -> String {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = format!("{whole}{}", part.trim_end_matches('0'));
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return "0.0".to_owned();
    }
    let power = whole.len() as i64 - 1 - (digits.len() - significant.len()) as i64;
    let (head, tail) = significant.split_at(1);
    let tail = tail.trim_end_matches('0');
    format!("{head}.{}e{power}", if tail.is_empty() { "0" } else { tail })
}

/// The first message of a book channel.
pub fn book_snapshot(floor: &Floor, i: usize) -> String {
    let (l, s) = (floor.market.listing(i), floor.market.snapshot(i, usize::MAX));
    format!(
        r#"{{"type":"snapshot","timestamp":{},"instrument_name":"{}","change_id":{},"bids":{},"asks":{}}}"#,
        floor.now_ms(),
        l.spec.symbol,
        s.id,
        rows(&l.spec, &s.bids, Some("new")),
        rows(&l.spec, &s.asks, Some("new"))
    )
}

/// A change that chains to the one before.
pub fn book_change(spec: &Spec, d: &DepthFrame, scientific: bool) -> String {
    format!(
        r#"{{"type":"change","timestamp":{},"prev_change_id":{},"instrument_name":"{}","change_id":{},"bids":{},"asks":{}}}"#,
        d.time_ns / 1_000_000,
        d.prev,
        spec.symbol,
        d.last,
        changes(spec, &d.bids, scientific),
        changes(spec, &d.asks, scientific)
    )
}

/// Whole levels, prices rounded outwards to a group of ticks.
pub fn book_grouped(floor: &Floor, i: usize, group: Option<i64>, depth: usize) -> String {
    let (l, s) = (floor.market.listing(i), floor.market.snapshot(i, usize::MAX));
    let gather = |rows: &[(i64, i64)], up: bool| {
        let mut grouped: Vec<(i64, i64)> = Vec::new();
        for &(price, qty) in rows {
            let price = match group {
                Some(g) if up => (price + g - 1).div_euclid(g) * g,
                Some(g) => price.div_euclid(g) * g,
                None => price,
            };
            let full = grouped.len() == depth;
            match grouped.last_mut().filter(|last| last.0 == price) {
                Some(last) => last.1 += qty,
                None if full => break,
                None => grouped.push((price, qty)),
            }
        }
        grouped
    };
    format!(
        r#"{{"timestamp":{},"instrument_name":"{}","change_id":{},"bids":{},"asks":{}}}"#,
        floor.now_ms(),
        l.spec.symbol,
        s.id,
        rows(&l.spec, &gather(&s.bids, false), None),
        rows(&l.spec, &gather(&s.asks, true), None)
    )
}

pub fn quote(l: &Listing, bid: (i64, i64), ask: (i64, i64), at_ns: i64) -> String {
    format!(
        r#"{{"timestamp":{},"instrument_name":"{}","best_bid_price":{},"best_bid_amount":{},"best_ask_price":{},"best_ask_amount":{}}}"#,
        at_ns / 1_000_000,
        l.spec.symbol,
        l.spec.price.number(bid.0),
        l.spec.size.number(bid.1),
        l.spec.price.number(ask.0),
        l.spec.size.number(ask.1)
    )
}

/// Volume in coins and in dollars.
fn volumes(spec: &Spec, bar: &Bar) -> (String, String) {
    let (value, scale) = (bar.value, if spec.inverse { 8 } else { spec.price.s + spec.size.s });
    let amount = spec.size.number(bar.volume);
    match spec.inverse {
        true => (decimal_number(value, scale), amount),
        false => (amount, decimal_number(value, scale)),
    }
}

/// Inside of a ticker: everything but the braces, shared with `get_order_book`.
pub fn ticker_members(floor: &Floor, i: usize, at_ns: i64, nulls: bool) -> String {
    let l = floor.market.listing(i);
    let spec = &l.spec;
    let digits = 2.max(spec.price.s);
    let day = floor.history[i].day(at_ns / 1_000_000).filter(|d| d.n > 0 && !nulls);
    let stats = match &day {
        Some(d) => {
            let (coins, dollars) = volumes(spec, d);
            let change = (d.close - d.open) as f64 / d.open.max(1) as f64 * 100.0;
            format!(
                r#"{{"high":{},"low":{},"price_change":{},"volume":{coins},"volume_usd":{dollars},"volume_notional":{dollars}}}"#,
                spec.price.number(d.high),
                spec.price.number(d.low),
                float(change, 4)
            )
        }
        None => r#"{"high":null,"low":null,"price_change":null,"volume":0.0,"volume_usd":0.0,"volume_notional":0.0}"#
            .to_owned(),
    };
    let last = l.last.filter(|_| !nulls).map_or("null".to_owned(), |t| spec.price.number(t.price));
    let (bid, ask) = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
    let (mark, index) = (float(l.mark(), digits), float(l.index(), digits));
    let interest: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
    let (min, max) = ((l.mark() / spec.price.step() * 0.985) as i64, (l.mark() / spec.price.step() * 1.015) as i64);
    format!(
        r#""timestamp":{},"state":"open","stats":{stats},"index_price":{index},"instrument_name":"{}","last_price":{last},"settlement_price":{},"min_price":{},"max_price":{},"open_interest":{},"mark_price":{mark},"interest_value":{},"current_funding":{},"estimated_delivery_price":{index},"funding_8h":{},"best_ask_price":{},"best_bid_price":{},"best_ask_amount":{},"best_bid_amount":{}"#,
        at_ns / 1_000_000,
        spec.symbol,
        float(spec.start_price, digits),
        spec.price.number(min),
        spec.price.number(max),
        spec.size.number(interest),
        float(l.funding() * 100.0, 12),
        float(l.funding(), 8),
        float(l.funding(), 8),
        spec.price.number(ask.0),
        spec.price.number(bid.0),
        spec.size.number(ask.1),
        spec.size.number(bid.1)
    )
}

/// A bar of `chart.trades`: volume in coins, cost in dollars.
pub fn chart(spec: &Spec, bar: &Bar) -> String {
    let (coins, dollars) = volumes(spec, bar);
    let price = |units| spec.price.number(units);
    format!(
        r#"{{"volume":{coins},"tick":{},"open":{},"low":{},"high":{},"cost":{dollars},"close":{}}}"#,
        bar.open_ms,
        price(bar.open),
        price(bar.low),
        price(bar.high),
        price(bar.close)
    )
}

pub fn instrument(l: &Listing) -> serde_json::Value {
    let spec = &l.spec;
    serde_json::json!({
        "instrument_name": spec.symbol, "instrument_id": 200_000, "kind": "future", "is_active": true, "state": "open",
        "settlement_period": "perpetual", "instrument_type": if spec.inverse { "reversed" } else { "linear" },
        "future_type": if spec.inverse { "reversed" } else { "linear" }, "base_currency": spec.base,
        "quote_currency": spec.quote, "counter_currency": spec.quote, "settlement_currency": settlement(spec),
        "price_index": index_name(spec), "tick_size": spec.price.step(), "tick_size_steps": [],
        "min_trade_amount": spec.size.step(),
        "contract_size": if spec.inverse { spec.contract_size as f64 } else { spec.size.step() },
        "taker_commission": 0.0005, "maker_commission": 0.0, "block_trade_commission": 0.0001,
        "max_liquidation_commission": 0.0075, "max_leverage": 50, "rfq": false,
        "creation_timestamp": 1_534_167_754_000_i64, "expiration_timestamp": 32_503_708_800_000_i64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_an_exponent_is_the_same_number() {
        for (plain, text) in
            [("1000200.0", "1.0002e6"), ("10.0", "1.0e1"), ("0.25", "2.5e-1"), ("0.0", "0.0"), ("3.5", "3.5e0")]
        {
            assert_eq!(exponent(plain), text);
            assert_eq!(plain.parse::<f64>().unwrap(), text.parse::<f64>().unwrap());
        }
    }
}
