//! The payloads, member for member as the venue sends them. Times come in nanoseconds of virtual time.

use std::fmt::Write;

use crate::book::Side;
use crate::faults::DepthFrame;
use crate::history::Bar;
use crate::instrument::{Spec, VenueId, decimal_text, put_decimal};
use crate::market::{Listing, Snapshot, Trade};

/// Milliseconds, or microseconds for who asked for them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unit {
    Milli,
    Micro,
}

impl Unit {
    pub fn of(self, ns: i64) -> i64 {
        match self {
            Self::Milli => ns / 1_000_000,
            Self::Micro => ns / 1_000,
        }
    }
    /// The last unit before a moment given in milliseconds.
    fn before_ms(self, ms: i64) -> i64 {
        match self {
            Self::Milli => ms - 1,
            Self::Micro => ms * 1_000 - 1,
        }
    }
}

fn spot(spec: &Spec) -> bool {
    spec.venue == VenueId::BinanceSpot
}

/// COIN-M names the pair beside the symbol.
fn pair(spec: &Spec) -> String {
    match spec.venue {
        VenueId::BinanceCoinm => format!(r#""ps":"{}USD","#, spec.base),
        _ => String::new(),
    }
}

/// Value in quote with the digits of the market.
pub fn quote_text(spec: &Spec, value: i128) -> String {
    let scale = if spec.inverse { 8 } else { spec.price.s + spec.size.s };
    decimal_text(value, scale, if spot(spec) || spec.inverse { 8 } else { scale })
}

/// `{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}`
pub fn trade(spec: &Spec, t: &Trade, unit: Unit) -> String {
    let (at, maker) = (unit.of(t.time_ns), t.taker == Side::Sell);
    let (s, p, q, id) = (&spec.symbol, spec.price.text(t.price), spec.size.text(t.qty), t.id);
    if spot(spec) {
        format!(r#"{{"e":"trade","E":{at},"s":"{s}","t":{id},"p":"{p}","q":"{q}","T":{at},"m":{maker},"M":true}}"#)
    } else {
        format!(r#"{{"e":"trade","E":{at},"T":{at},"s":"{s}","t":{id},"p":"{p}","q":"{q}","X":"MARKET","m":{maker}}}"#)
    }
}

/// Pieces of one taker order at one price.
#[derive(Clone, Copy, Debug)]
pub struct Aggregate {
    pub id: u64,
    pub first: u64,
    pub last: u64,
    pub price: i64,
    pub qty: i64,
    pub time_ns: i64,
    pub taker: Side,
}

impl Aggregate {
    pub fn of(t: &Trade) -> Self {
        let &Trade { id, price, qty, time_ns, taker, aggregate, .. } = t;
        Self { id: aggregate, first: id, last: id, price, qty, time_ns, taker }
    }
}

pub fn agg_trade(spec: &Spec, a: &Aggregate, unit: Unit) -> String {
    let (at, maker) = (unit.of(a.time_ns), a.taker == Side::Sell);
    let (s, p, q) = (&spec.symbol, spec.price.text(a.price), spec.size.text(a.qty));
    let (id, f, l) = (a.id, a.first, a.last);
    let head = if spot(spec) {
        format!(r#"{{"e":"aggTrade","E":{at},"s":"{s}","a":{id},"#)
    } else {
        format!(r#"{{"e":"aggTrade","E":{at},"a":{id},"s":"{s}","#)
    };
    let best = if spot(spec) { r#","M":true"# } else { "" };
    format!(r#"{head}"p":"{p}","q":"{q}","f":{f},"l":{l},"T":{at},"m":{maker}{best}}}"#)
}

fn put_rows(out: &mut String, spec: &Spec, rows: impl Iterator<Item = (i64, i64)>) {
    out.push('[');
    for (n, (price, qty)) in rows.enumerate() {
        out.push_str(if n == 0 { "[\"" } else { ",[\"" });
        spec.price.put(out, price);
        out.push_str("\",\"");
        spec.size.put(out, qty);
        out.push_str("\"]");
    }
    out.push(']');
}

/// `{"e":"depthUpdate","E":..,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[]}`; futures add `T` and `pu`.
pub fn depth(spec: &Spec, d: &DepthFrame, unit: Unit) -> String {
    let at = unit.of(d.time_ns);
    let mut out = String::with_capacity(160 + (d.bids.len() + d.asks.len()) * 36);
    // Writing to a String cannot fail.
    let _ = if spot(spec) {
        write!(out, r#"{{"e":"depthUpdate","E":{at},"s":"{}","U":{},"u":{},"#, spec.symbol, d.first, d.last)
    } else {
        let (s, ps) = (&spec.symbol, pair(spec));
        write!(
            out,
            r#"{{"e":"depthUpdate","E":{at},"T":{at},"s":"{s}",{ps}"U":{},"u":{},"pu":{},"#,
            d.first, d.last, d.prev
        )
    };
    out.push_str("\"b\":");
    put_rows(&mut out, spec, d.bids.iter().map(|r| (r.0, r.1)));
    out.push_str(",\"a\":");
    put_rows(&mut out, spec, d.asks.iter().map(|r| (r.0, r.1)));
    out.push('}');
    out
}

/// The best levels, whole: spot has no event name there, futures call it `depthUpdate`.
pub fn partial(spec: &Spec, s: &Snapshot, prev: u64, at_ns: i64, unit: Unit) -> String {
    if spot(spec) {
        return rest_depth(spec, s, None);
    }
    let row = |r: &(i64, i64)| (r.0, r.1, true);
    let (bids, asks) = (s.bids.iter().map(row).collect(), s.asks.iter().map(row).collect());
    let frame = DepthFrame { time_ns: at_ns, first: prev + 1, last: s.id, prev, bids, asks };
    depth(spec, &frame, unit)
}

/// The REST snapshot; futures add the times.
pub fn rest_depth(spec: &Spec, s: &Snapshot, times_ms: Option<i64>) -> String {
    let mut out = format!(r#"{{"lastUpdateId":{},"#, s.id);
    if let Some(at) = times_ms {
        let _ = write!(out, r#""E":{at},"T":{at},"#);
        if spec.venue == VenueId::BinanceCoinm {
            let _ = write!(out, r#""symbol":"{}","pair":"{}USD","#, spec.symbol, spec.base);
        }
    }
    out.push_str("\"bids\":");
    put_rows(&mut out, spec, s.bids.iter().copied());
    out.push_str(",\"asks\":");
    put_rows(&mut out, spec, s.asks.iter().copied());
    out.push('}');
    out
}

pub fn book_ticker(l: &Listing, bid: (i64, i64), ask: (i64, i64), at_ns: i64, unit: Unit) -> String {
    let spec = &l.spec;
    let (b, bq) = (spec.price.text(bid.0), spec.size.text(bid.1));
    let (a, aq) = (spec.price.text(ask.0), spec.size.text(ask.1));
    let (u, s, ps) = (l.update_id, &spec.symbol, pair(spec));
    if spot(spec) {
        return format!(r#"{{"u":{u},"s":"{s}","b":"{b}","B":"{bq}","a":"{a}","A":"{aq}"}}"#);
    }
    let at = unit.of(at_ns);
    format!(r#"{{"e":"bookTicker","u":{u},"s":"{s}",{ps}"b":"{b}","B":"{bq}","a":"{a}","A":"{aq}","T":{at},"E":{at}}}"#)
}

pub fn kline(spec: &Spec, bar: &Bar, interval: &str, width_ms: i64, at_ns: i64, closed: bool, unit: Unit) -> String {
    let mut out = String::with_capacity(400);
    let at = unit.of(at_ns);
    let (t, end) = (unit.of(bar.open_ms * 1_000_000), unit.before_ms(bar.open_ms + width_ms));
    let s = &spec.symbol;
    let (f, l) = if bar.n == 0 { (-1, -1) } else { (bar.first as i64, bar.last as i64) };
    let price = |units| spec.price.text(units);
    let (o, c, h, lo) = (price(bar.open), price(bar.close), price(bar.high), price(bar.low));
    let (v, tv) = (spec.size.text(bar.volume), spec.size.text(bar.buy_volume));
    let (q, tq) = (quote_text(spec, bar.value), quote_text(spec, bar.buy_value));
    let n = bar.n;
    let _ = write!(
        out,
        r#"{{"e":"kline","E":{at},"s":"{s}","k":{{"t":{t},"T":{end},"s":"{s}","i":"{interval}","f":{f},"L":{l},"o":"{o}","c":"{c}","h":"{h}","l":"{lo}","v":"{v}","n":{n},"x":{closed},"q":"{q}","V":"{tv}","Q":"{tq}","B":"0"}}}}"#
    );
    out
}

/// One row of the REST klines.
pub fn kline_row(spec: &Spec, bar: &Bar, width_ms: i64) -> String {
    let price = |units| spec.price.text(units);
    let (o, h, l, c) = (price(bar.open), price(bar.high), price(bar.low), price(bar.close));
    let (v, tv) = (spec.size.text(bar.volume), spec.size.text(bar.buy_volume));
    let (q, tq) = (quote_text(spec, bar.value), quote_text(spec, bar.buy_value));
    let (t, end, n) = (bar.open_ms, bar.open_ms + width_ms - 1, bar.n);
    format!(r#"[{t},"{o}","{h}","{l}","{c}","{v}",{end},"{q}",{n},"{tv}","{tq}","0"]"#)
}

/// Value over volume as a price.
fn average(spec: &Spec, bar: &Bar) -> String {
    let scale = if spec.inverse { 8 } else { spec.price.s + spec.size.s };
    let lots = i128::from(bar.volume) * i128::from(spec.size.m);
    if lots == 0 || spec.inverse {
        return spec.price.text(bar.close);
    }
    let digits = if spot(spec) { 8 } else { spec.price.s };
    // value / 10^scale divided by lots / 10^size.s, with `digits` decimals.
    let scaled = bar.value * 10i128.pow(digits + spec.size.s) / (lots * 10i128.pow(scale));
    decimal_text(scaled, digits, digits)
}

/// Price change over the bar in hundredths or thousandths of a percent.
pub fn percent(bar: &Bar, digits: u32) -> String {
    let change = i128::from(bar.close - bar.open) * 100 * 10i128.pow(digits);
    decimal_text(change / i128::from(bar.open.max(1)), digits, digits)
}

pub fn ticker(l: &Listing, day: &Bar, at_ns: i64, unit: Unit) -> String {
    let spec = &l.spec;
    let price = |units| spec.price.text(units);
    let at = unit.of(at_ns);
    let (opened, s) = (unit.of(at_ns - 86_400_000_000_000), &spec.symbol);
    let (p, pc, w) = (price(day.close - day.open), percent(day, 3), average(spec, day));
    let (c, o, h, lo) = (price(day.close), price(day.open), price(day.high), price(day.low));
    let q = l.last.map_or_else(|| spec.size.text(0), |t| spec.size.text(t.qty));
    let (v, qv) = (spec.size.text(day.volume), quote_text(spec, day.value));
    let (f, last, n) = (day.first, day.last, day.n);
    let ps = pair(spec);
    let (x, touch) = if spot(spec) {
        let (bid, ask) = (l.book.touch(Side::Buy).unwrap_or_default(), l.book.touch(Side::Sell).unwrap_or_default());
        let (b, bq) = (price(bid.0), spec.size.text(bid.1));
        let (a, aq) = (price(ask.0), spec.size.text(ask.1));
        (format!(r#""x":"{o}","#), format!(r#""b":"{b}","B":"{bq}","a":"{a}","A":"{aq}","#))
    } else {
        Default::default()
    };
    format!(
        r#"{{"e":"24hrTicker","E":{at},"s":"{s}",{ps}"p":"{p}","P":"{pc}","w":"{w}",{x}"c":"{c}","Q":"{q}",{touch}"o":"{o}","h":"{h}","l":"{lo}","v":"{v}","q":"{qv}","O":{opened},"C":{at},"F":{f},"L":{last},"n":{n}}}"#
    )
}

pub fn mini_ticker(spec: &Spec, day: &Bar, at_ns: i64, unit: Unit) -> String {
    let price = |units| spec.price.text(units);
    let (at, s, ps) = (unit.of(at_ns), &spec.symbol, pair(spec));
    let (c, o, h, l) = (price(day.close), price(day.open), price(day.high), price(day.low));
    let (v, q) = (spec.size.text(day.volume), quote_text(spec, day.value));
    format!(
        r#"{{"e":"24hrMiniTicker","E":{at},"s":"{s}",{ps}"c":"{c}","o":"{o}","h":"{h}","l":"{l}","v":"{v}","q":"{q}"}}"#
    )
}

pub fn avg_price(spec: &Spec, bar: &Bar, at_ns: i64, unit: Unit) -> String {
    let (at, s, w) = (unit.of(at_ns), &spec.symbol, average(spec, bar));
    format!(r#"{{"e":"avgPrice","E":{at},"s":"{s}","i":"5m","w":"{w}","T":{at}}}"#)
}

/// Eight decimals of a float price: mark and index are no grid prices.
pub fn float8(value: f64) -> String {
    let mut out = String::new();
    put_decimal(&mut out, (value * 1e8) as i128, 8, 8);
    out
}

pub fn mark_price(l: &Listing, at_ns: i64, unit: Unit) -> String {
    let (at, s) = (unit.of(at_ns), &l.spec.symbol);
    let (p, i, r) = (float8(l.mark()), float8(l.index()), float8(l.funding()));
    let next = unit.of(next_funding_ms(at_ns / 1_000_000) * 1_000_000);
    format!(r#"{{"e":"markPriceUpdate","E":{at},"s":"{s}","p":"{p}","P":"{p}","i":"{i}","r":"{r}","T":{next}}}"#)
}

/// Funding is exchanged at 00:00, 08:00 and 16:00 UTC.
pub fn next_funding_ms(now_ms: i64) -> i64 {
    (now_ms.div_euclid(28_800_000) + 1) * 28_800_000
}

/// A liquidation: one message for the whole sweep.
pub fn force_order(spec: &Spec, a: &Aggregate, unit: Unit) -> String {
    let (at, s, side) = (unit.of(a.time_ns), &spec.symbol, a.taker.upper());
    let (q, p, ps) = (spec.size.text(a.qty), spec.price.text(a.price), pair(spec));
    format!(
        r#"{{"e":"forceOrder","E":{at},"o":{{"s":"{s}",{ps}"S":"{side}","o":"LIMIT","f":"IOC","q":"{q}","p":"{p}","ap":"{p}","X":"FILLED","l":"{q}","z":"{q}","T":{at}}}}}"#
    )
}
