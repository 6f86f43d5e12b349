//! The messages: protobuf on spot, JSON on contract. Numbers are printed without trailing zeros, as the venue does.

use std::fmt::Write;

use super::channel::Carries;
use super::proto::Message;
use crate::book::Side;
use crate::faults::DepthFrame;
use crate::history::Bar;
use crate::instrument::{Spec, decimal_text};
use crate::market::{Listing, Snapshot, Trade};

/// Without trailing zeros and without a bare point.
pub fn plain(mut text: String) -> String {
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

pub fn price(spec: &Spec, ticks: i64) -> String {
    plain(spec.price.text(ticks))
}
/// Coins.
pub fn size(spec: &Spec, lots: i64) -> String {
    plain(spec.size.text(lots))
}
/// The value of a bar in quote.
pub fn value(spec: &Spec, bar: &Bar) -> String {
    let scale = spec.price.s + spec.size.s;
    plain(decimal_text(bar.value, scale, scale))
}
pub fn float(value: f64, digits: u32) -> String {
    plain(format!("{value:.0$}", digits as usize))
}

fn side(taker: Side) -> i64 {
    if taker == Side::Buy { 1 } else { 2 }
}

/// The taker's and the maker's id of a spot trade.
pub fn pair(id: u64) -> String {
    format!("{}X0_{}X0", 2 * id, 2 * id + 1)
}

/// The outer message of a spot frame. Klines say when they were made, the others when they were sent.
pub fn frame(channel: &str, spec: &Spec, carries: Carries, at_ms: i64, body: Option<Message>) -> Message {
    let frame = Message::default().text(1, channel).text(3, &spec.symbol);
    let frame = match carries {
        Carries::Kline { .. } => frame.text(4, "2fb942154ef44a4ab2ef98c8afb6a4a7").int(5, at_ms),
        _ => frame.int(6, at_ms),
    };
    let number = match carries {
        Carries::Top { .. } => 303,
        Carries::Kline { .. } => 308,
        Carries::Ticker => 309,
        Carries::Depth => 313,
        Carries::Deals => 314,
        _ => 315,
    };
    match body {
        Some(body) => frame.message(number, body),
        None => frame,
    }
}

/// What the venue repeats inside the bodies: the channel without its symbol.
fn event_type(channel: &str) -> &str {
    channel.rsplit_once('@').map_or(channel, |(kind, _)| kind)
}

/// `old`: as before trades had ids.
pub fn deals(channel: &str, spec: &Spec, trades: &[Trade], old: bool) -> Message {
    let deal = |t: &Trade| {
        let deal = Message::default().text(1, &price(spec, t.price)).text(2, &size(spec, t.qty));
        let deal = deal.int(3, side(t.taker)).int(4, t.time_ns / 1_000_000);
        if old { deal } else { deal.text(5, &pair(t.id)) }
    };
    let list = trades.iter().fold(Message::default(), |list, t| list.message(1, deal(t)));
    list.text(2, event_type(channel))
}

fn level(spec: &Spec, ticks: i64, lots: i64) -> Message {
    Message::default().text(1, &price(spec, ticks)).text(2, &size(spec, lots))
}

/// Asks first; versions are text.
pub fn depth(channel: &str, spec: &Spec, d: &DepthFrame) -> Message {
    let body = d.asks.iter().fold(Message::default(), |body, (p, q, _)| body.message(1, level(spec, *p, *q)));
    let body = d.bids.iter().fold(body, |body, (p, q, _)| body.message(2, level(spec, *p, *q)));
    body.text(3, event_type(channel))
        .text(4, &d.first.to_string())
        .text(5, &d.last.to_string())
        .int(6, d.time_ns / 1_000_000)
}

pub fn limit_depth(channel: &str, spec: &Spec, snapshot: &Snapshot, at_ms: i64) -> Message {
    let body = snapshot.asks.iter().fold(Message::default(), |body, (p, q)| body.message(1, level(spec, *p, *q)));
    let body = snapshot.bids.iter().fold(body, |body, (p, q)| body.message(2, level(spec, *p, *q)));
    body.text(3, event_type(channel)).text(4, &snapshot.id.to_string()).int(5, at_ms)
}

pub fn touch(spec: &Spec, bid: (i64, i64), ask: (i64, i64), version: u64, at_ms: i64) -> Message {
    Message::default()
        .text(1, &price(spec, bid.0))
        .text(2, &size(spec, bid.1))
        .text(3, &price(spec, ask.0))
        .text(4, &size(spec, ask.1))
        .text(5, &version.to_string())
        .int(6, at_ms)
}

/// Close comes before high and low; the window is in seconds.
pub fn kline(spec: &Spec, bar: &Bar, interval: &str, width_ms: i64) -> Message {
    Message::default()
        .text(1, interval)
        .int(2, bar.open_ms / 1_000)
        .text(3, &price(spec, bar.open))
        .text(4, &price(spec, bar.close))
        .text(5, &price(spec, bar.high))
        .text(6, &price(spec, bar.low))
        .text(7, &size(spec, bar.volume))
        .text(8, &value(spec, bar))
        .int(9, (bar.open_ms + width_ms) / 1_000)
}

/// `volume` is the turnover, `quantity` the coins.
pub fn mini_ticker(spec: &Spec, day: &Bar) -> Message {
    let rate = float(day.close as f64 / day.open as f64 - 1.0, 4);
    Message::default()
        .text(1, &spec.symbol)
        .text(2, &price(spec, day.close))
        .text(3, &rate)
        .text(4, &rate)
        .text(5, &price(spec, day.high))
        .text(6, &price(spec, day.low))
        .text(7, &value(spec, day))
        .text(8, &size(spec, day.volume))
}

/// `{"channel":"push.<name>","data":...,"symbol":"BTC_USDT","ts":...}`
pub fn push(name: &str, symbol: Option<&str>, data: &str, at_ms: i64) -> String {
    let symbol = symbol.map(|s| format!(r#","symbol":"{s}""#)).unwrap_or_default();
    format!(r#"{{"channel":"push.{name}","data":{data}{symbol},"ts":{at_ms}}}"#)
}

/// A contract's deal; `old`: as it was before deals had ids.
pub fn contract_deal(spec: &Spec, t: &Trade, old: bool) -> String {
    let at_ms = t.time_ns / 1_000_000;
    let new = if old { String::new() } else { format!(r#","i":"{}","cts":"{at_ms}""#, t.id) };
    format!(r#"{{"p":{},"v":{},"T":{},"O":3,"M":2,"t":{at_ms}{new}}}"#, price(spec, t.price), t.qty, side(t.taker))
}

/// `[[price, contracts, orders], ...]`
pub fn contract_rows(spec: &Spec, rows: impl Iterator<Item = (i64, i64)>) -> String {
    let mut out = String::from("[");
    for (n, (ticks, lots)) in rows.enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}[{},{lots},{}]", price(spec, ticks), i64::from(lots > 0));
    }
    out.push(']');
    out
}

/// One change carries its version alone, several the range that they sum up.
pub fn contract_depth(spec: &Spec, d: &DepthFrame) -> String {
    let rows = |rows: &[(i64, i64, bool)]| contract_rows(spec, rows.iter().map(|(p, q, _)| (*p, *q)));
    let range = if d.first == d.last { String::new() } else { format!(r#""begin":{},"end":{},"#, d.first, d.last) };
    format!(r#"{{"asks":{},"bids":{},{range}"version":{}}}"#, rows(&d.asks), rows(&d.bids), d.last)
}

pub fn contract_book(spec: &Spec, s: &Snapshot) -> String {
    let rows = |rows: &[(i64, i64)]| contract_rows(spec, rows.iter().copied());
    format!(r#""asks":{},"bids":{},"version":{}"#, rows(&s.asks), rows(&s.bids), s.id)
}

pub fn contract_kline(spec: &Spec, bar: &Bar, interval: &str) -> String {
    let p = |ticks: i64| price(spec, ticks);
    let (o, h, l, c) = (p(bar.open), p(bar.high), p(bar.low), p(bar.close));
    format!(
        r#"{{"a":{},"c":{c},"h":{h},"interval":"{interval}","l":{l},"o":{o},"q":{},"rc":{c},"rh":{h},"rl":{l},"ro":{o},"symbol":"{}","t":{}}}"#,
        value(spec, bar),
        bar.volume,
        spec.symbol,
        bar.open_ms / 1_000
    )
}

pub fn contract_ticker(l: &Listing, number: usize, day: &Bar, at_ms: i64) -> String {
    let spec = &l.spec;
    let digits = spec.price.s + 1;
    let best = |side: Side| price(spec, l.book.best(side).unwrap_or_default());
    // Nobody counts positions here: what the book holds on both sides stands for it.
    let lots: i64 = [Side::Buy, Side::Sell].iter().flat_map(|s| l.book.top(*s, usize::MAX)).map(|(_, q)| q).sum();
    let change = day.close - day.open;
    format!(
        r#"{{"amount24":{},"ask1":{},"bid1":{},"contractId":{},"fairPrice":{},"fundingRate":{},"high24Price":{},"holdVol":{lots},"indexPrice":{},"lastPrice":{},"lower24Price":{},"maxBidPrice":{},"minAskPrice":{},"riseFallRate":{},"riseFallValue":{},"symbol":"{}","timestamp":{at_ms},"volume24":{}}}"#,
        value(spec, day),
        best(Side::Sell),
        best(Side::Buy),
        number + 10,
        float(l.mark(), digits),
        float(l.funding(), 6),
        price(spec, day.high),
        float(l.index(), digits),
        price(spec, day.close),
        price(spec, day.low),
        float(l.index() * 1.1, spec.price.s),
        float(l.index() * 0.9, spec.price.s),
        float(change as f64 / day.open as f64, 4),
        price(spec, change),
        spec.symbol,
        day.volume
    )
}

/// A row of `push.tickers`.
pub fn contract_brief(l: &Listing, day: &Bar) -> String {
    let (spec, change) = (&l.spec, day.close as f64 / day.open as f64 - 1.0);
    format!(
        r#"{{"fairPrice":{},"lastPrice":{},"riseFallRate":{},"symbol":"{}","volume24":{}}}"#,
        float(l.mark(), spec.price.s + 1),
        price(spec, day.close),
        float(change, 4),
        spec.symbol,
        day.volume
    )
}
