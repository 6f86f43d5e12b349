//! What HTX says, as text, and how it is packed. Numbers are printed as the venue prints them: spot as its Java does (with
//! an exponent below a thousandth), derivatives plainly, contract terms with eighteen decimals.

use std::fmt::Write as _;
use std::io::Write as _;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::faults::DepthFrame;
use crate::floor::Floor;
use crate::history::Bar;
use crate::instrument::{Spec, VenueId, decimal_number, decimal_text};
use crate::market::{Listing, Trade};

/// One binary frame of the public sockets.
pub fn packed(text: &str) -> Bytes {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail; if it did, the frame would be short and the client would say so.
    let _ = gz.write_all(text.as_bytes());
    gz.finish().unwrap_or_default().into()
}

pub fn is_swap(spec: &Spec) -> bool {
    spec.venue != VenueId::HtxSpot
}

/// A plain decimal as a Java double prints it: `0.00042` is `4.2E-4`.
pub fn java(plain: &str) -> String {
    let Some(part) = plain.strip_prefix("0.") else { return plain.to_owned() };
    let zeros = part.bytes().take_while(|b| *b == b'0').count();
    let digits = part[zeros..].trim_end_matches('0');
    if zeros < 3 || digits.is_empty() {
        return plain.to_owned();
    }
    let (head, tail) = digits.split_at(1);
    let tail = if tail.is_empty() { "0" } else { tail };
    format!("{head}.{tail}E-{}", zeros + 1)
}

fn price(spec: &Spec, ticks: i64) -> String {
    let text = spec.price.number(ticks);
    if is_swap(spec) { text } else { java(&text) }
}

/// Coins on spot, contracts on derivatives: there a lot is a contract.
fn amount(spec: &Spec, lots: i64) -> String {
    if is_swap(spec) { lots.to_string() } else { java(&spec.size.number(lots)) }
}

fn float(l: &Listing, value: f64) -> String {
    let digits = l.spec.price.s.max(2);
    decimal_number((value * 10f64.powi(digits as i32)) as i128, digits)
}

/// Coins and money of so many lots at a value (at the scale of `Spec::value`).
fn worth(spec: &Spec, lots: i64, value: i128) -> (String, String) {
    if spec.inverse {
        let dollars = i128::from(lots) * i128::from(spec.contract_size);
        return (decimal_number(value, 8), decimal_number(dollars, 0));
    }
    let coins = i128::from(lots) * i128::from(spec.size.m);
    (decimal_number(coins, spec.size.s), decimal_number(value, spec.price.s + spec.size.s))
}

/// `{"ch":...,"ts":...,"tick":...}`
pub fn market(channel: &str, at_ns: i64, tick: &str) -> String {
    format!(r#"{{"ch":"{channel}","ts":{},"tick":{tick}}}"#, at_ns / 1_000_000)
}

/// One row of the tape. Derivatives count both sides.
pub fn trade(spec: &Spec, t: &Trade) -> String {
    let (ms, direction, at) = (t.time_ns / 1_000_000, t.taker.lower(), price(spec, t.price));
    if !is_swap(spec) {
        // 13 digits of the trade behind 14 of the match: 27, more than any machine word holds.
        let id = format!("{:014}{:013}", 10_000_000_000_000 + t.aggregate % 1_000_000_000_000, t.id);
        let size = amount(spec, t.qty);
        return format!(
            r#"{{"id":{id},"ts":{ms},"tradeId":{},"amount":{size},"price":{at},"direction":"{direction}"}}"#,
            t.id
        );
    }
    let both = t.qty * 2;
    let (value, _) = spec.value(t.price, both);
    let (_, turnover) = worth(spec, both, value);
    let quantity = if spec.inverse {
        // With all the digits that the division gives.
        let price = Decimal::new(t.price * spec.price.m, spec.price.s);
        (Decimal::from(both * spec.contract_size) / price.max(Decimal::new(1, 8))).to_string()
    } else {
        decimal_number(i128::from(both) * i128::from(spec.size.m), spec.size.s)
    };
    let id = swap_id(t.id);
    format!(
        r#"{{"amount":{both},"quantity":{quantity},"trade_turnover":{turnover},"ts":{ms},"id":{id},"price":{at},"direction":"{direction}"}}"#
    )
}

/// Derivatives number matches of all kinds, and the trades of a match in the last four digits.
pub fn swap_id(id: u64) -> u64 {
    id * 10_000
}

/// Several rows of one match, newest first, as the venue sends them.
pub fn trades(spec: &Spec, trades: &[Trade]) -> String {
    let rows: Vec<String> = trades.iter().rev().map(|t| trade(spec, t)).collect();
    let (id, ms) = trades.last().map_or((0, 0), |t| (t.aggregate, t.time_ns / 1_000_000));
    format!(r#"{{"id":{id},"ts":{ms},"data":[{}]}}"#, rows.join(","))
}

fn levels(spec: &Spec, rows: impl Iterator<Item = (i64, i64)>) -> String {
    let mut out = String::from("[");
    for (n, (at, lots)) in rows.enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}[{},{}]", price(spec, at), amount(spec, lots));
    }
    out.push(']');
    out
}

type Rows = [(i64, i64)];

/// The answer to a `req`, and what `mbp.refresh` repeats.
pub fn numbered_book(spec: &Spec, number: u64, bids: &Rows, asks: &Rows) -> String {
    let (bids, asks) = (levels(spec, bids.iter().copied()), levels(spec, asks.iter().copied()));
    format!(r#"{{"bids":{bids},"asks":{asks},"seqNum":{number}}}"#)
}

/// `mbp.N`: a side without a change is left out.
pub fn linked_changes(spec: &Spec, d: &DepthFrame) -> String {
    let side = |name: &str, rows: &[(i64, i64, bool)]| match rows {
        [] => String::new(),
        rows => format!(r#","{name}":{}"#, levels(spec, rows.iter().map(|(p, q, _)| (*p, *q)))),
    };
    let (asks, bids) = (side("asks", &d.asks), side("bids", &d.bids));
    format!(r#"{{"seqNum":{},"prevSeqNum":{}{asks}{bids}}}"#, d.last, d.prev)
}

/// `depth.size_N.high_freq`: an empty side is null.
pub fn counted_book(spec: &Spec, channel: &str, event: &str, d: &DepthFrame) -> String {
    let side = |rows: &[(i64, i64, bool)]| match rows {
        [] => "null".to_owned(),
        rows => levels(spec, rows.iter().map(|(p, q, _)| (*p, *q))),
    };
    let (asks, bids, ms) = (side(&d.asks), side(&d.bids), d.time_ns / 1_000_000);
    let (version, id) = (d.last, d.first);
    format!(
        r#"{{"asks":{asks},"bids":{bids},"ch":"{channel}","event":"{event}","id":{id},"mrid":{id},"ts":{ms},"version":{version}}}"#
    )
}

/// `depth.stepN`: derivatives count its version in seconds.
pub fn step_book(floor: &Floor, i: usize, channel: &str, levels_max: usize, at_ns: i64) -> String {
    let (spec, s) = (&floor.market.listing(i).spec, floor.market.snapshot(i, levels_max));
    let (bids, asks) = (levels(spec, s.bids.into_iter()), levels(spec, s.asks.into_iter()));
    let ms = at_ns / 1_000_000;
    if is_swap(spec) {
        let (mrid, second) = (s.id, ms / 1000);
        return format!(
            r#"{{"mrid":{mrid},"id":{second},"bids":{bids},"asks":{asks},"ts":{ms},"version":{second},"ch":"{channel}"}}"#
        );
    }
    format!(r#"{{"bids":{bids},"asks":{asks},"version":{},"ts":{ms}}}"#, s.id)
}

pub fn bbo(l: &Listing, channel: &str, bid: (i64, i64), ask: (i64, i64), at_ns: i64) -> String {
    let (spec, ms, number) = (&l.spec, at_ns / 1_000_000, l.update_id);
    let (bp, bq) = (price(spec, bid.0), amount(spec, bid.1));
    let (ap, aq) = (price(spec, ask.0), amount(spec, ask.1));
    if is_swap(spec) {
        let second = ms / 1000;
        return format!(
            r#"{{"mrid":{number},"id":{second},"bid":[{bp},{bq}],"ask":[{ap},{aq}],"ts":{ms},"version":{number},"ch":"{channel}"}}"#
        );
    }
    let symbol = &spec.symbol;
    format!(
        r#"{{"seqId":{number},"ask":{ap},"askSize":{aq},"bid":{bp},"bidSize":{bq},"quoteTime":{ms},"symbol":"{symbol}"}}"#
    )
}

/// The members of a bar, in the family's own counting.
pub fn bar(spec: &Spec, id: i64, b: &Bar) -> String {
    let (open, close, low, high) = (price(spec, b.open), price(spec, b.close), price(spec, b.low), price(spec, b.high));
    let prices = format!(r#""id":{id},"open":{open},"close":{close},"low":{low},"high":{high}"#);
    if !is_swap(spec) {
        let (coins, money) = worth(spec, b.volume, b.value);
        return format!(r#"{{{prices},"amount":{},"vol":{},"count":{}}}"#, java(&coins), java(&money), b.n);
    }
    let (coins, money) = worth(spec, b.volume * 2, b.value * 2);
    let turnover = if spec.inverse { String::new() } else { format!(r#","trade_turnover":{money}"#) };
    let contracts = b.volume * 2;
    format!(r#"{{{prices},"mrid":{id},"amount":{coins},"vol":{contracts},"count":{}{turnover}}}"#, b.n)
}

/// A bar of index or mark price, which has no volume; numbers are texts.
pub fn price_bar(l: &Listing, id: i64, value: f64) -> String {
    let at = float(l, value);
    format!(r#"{{"id":{id},"open":"{at}","close":"{at}","high":"{at}","low":"{at}","amount":"0","vol":"0","count":0}}"#)
}

/// A notification of funding: the rate with eighteen decimals.
pub fn funding(l: &Listing, topic: &str, at_ns: i64) -> String {
    const EIGHT_HOURS_MS: i64 = 8 * 3_600_000;
    let (spec, ms) = (&l.spec, at_ns / 1_000_000);
    let rate = decimal_text((l.funding() * 1e18) as i128, 18, 18);
    let settlement = (ms / EIGHT_HOURS_MS + 1) * EIGHT_HOURS_MS;
    let fee_asset = if spec.inverse { &spec.base } else { &spec.quote };
    let (base, code, due) = (&spec.base, &spec.symbol, ms / 60_000 * 60_000);
    format!(
        r#"{{"op":"notify","topic":"{topic}","ts":{ms},"data":[{{"symbol":"{base}","contract_code":"{code}","fee_asset":"{fee_asset}","funding_time":"{due}","funding_rate":"{rate}","estimated_rate":null,"settlement_time":"{settlement}"}}]}}"#
    )
}

/// Whether the service works; `back_ms`: it does not, and may again then.
pub fn heartbeat(topic: &str, event: &str, back_ms: Option<i64>, ts: i64) -> String {
    let (up, back) = (u8::from(back_ms.is_none()), back_ms.map_or("null".to_owned(), |ms| ms.to_string()));
    format!(
        r#"{{"op":"notify","topic":"{topic}","event":"{event}","ts":{ts},"data":{{"heartbeat":{up},"estimated_recovery_time":{back}}}}}"#
    )
}

/// A notification of a forced order, of one side.
pub fn liquidation(spec: &Spec, topic: &str, t: &Trade) -> String {
    let (base, code, ms) = (&spec.base, &spec.symbol, t.time_ns / 1_000_000);
    let (direction, at) = (t.taker.lower(), price(spec, t.price));
    format!(
        r#"{{"op":"notify","topic":"{topic}","ts":{ms},"data":[{{"symbol":"{base}","contract_code":"{code}","direction":"{direction}","offset":"close","volume":{}.0,"price":{at},"created_at":{ms}}}]}}"#,
        t.qty
    )
}

/// A row of `swap_open_interest`: what is open is counted once, what was traded in the day `day` both sides of it.
pub fn open_interest(l: &Listing, lots: i64, price: i64, day: &Bar) -> String {
    let (spec, both) = (&l.spec, day.volume * 2);
    let (coins, money) = worth(spec, lots, spec.value(price, lots).0);
    let (traded_coins, traded_money) = worth(spec, both, day.value * 2);
    let (base, code) = (&spec.base, &spec.symbol);
    let linear = match spec.inverse {
        true => String::new(),
        false => format!(
            r#","value":{money},"business_type":"swap","pair":"{code}","contract_type":"swap","trade_partition":"{}""#,
            spec.quote
        ),
    };
    format!(
        r#"{{"volume":{lots}.000000000000000000,"amount":{coins},"symbol":"{base}","contract_code":"{code}","trade_amount":{traded_coins},"trade_volume":{both},"trade_turnover":{traded_money}{linear}}}"#
    )
}

/// A row of `/v1/common/symbols`.
pub fn pair(spec: &Spec) -> Value {
    json!({
        "base-currency": spec.base.to_lowercase(), "quote-currency": spec.quote.to_lowercase(),
        "price-precision": spec.price.s, "amount-precision": spec.size.s, "symbol-partition": "main",
        "symbol": spec.symbol, "state": "online", "value-precision": 8, "min-order-value": spec.min_notional,
        "api-trading": "enabled", "tags": "",
    })
}

/// A row of `swap_contract_info`, with the venue's eighteen decimals.
pub fn contract(spec: &Spec) -> String {
    let size = match spec.inverse {
        true => decimal_text(i128::from(spec.contract_size), 0, 18),
        false => decimal_text(i128::from(spec.size.m), spec.size.s, 18),
    };
    let tick = decimal_text(i128::from(spec.price.m), spec.price.s, 18);
    let (base, code) = (&spec.base, &spec.symbol);
    let linear = match spec.inverse {
        true => String::new(),
        false => format!(
            r#","delivery_date":"","support_margin_mode":"all","business_type":"swap","pair":"{code}","contract_type":"swap","trade_partition":"{}""#,
            spec.quote
        ),
    };
    format!(
        r#"{{"symbol":"{base}","contract_code":"{code}","contract_size":{size},"price_tick":{tick},"delivery_time":"","create_date":"20201021","contract_status":1,"settlement_date":"1645315200000"{linear}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_have_an_exponent_and_stay_the_same_number() {
        for (plain, text) in [
            ("0.00042", "4.2E-4"),
            ("0.0002", "2.0E-4"),
            ("0.00000092", "9.2E-7"),
            ("0.0015", "0.0015"),
            ("12.5", "12.5"),
        ] {
            assert_eq!(java(plain), text);
            assert_eq!(plain.parse::<f64>().unwrap(), text.parse::<f64>().unwrap());
        }
        assert_eq!(java("0.0"), "0.0");
    }
}
