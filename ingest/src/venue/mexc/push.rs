//! The binary frames of MEXC spot; `push.proto` describes them.
//!
//! A frame is read twice: once over its few outer fields, because the format promises no order and the body needs the
//! symbol and the time beside it, then the body.

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};

use super::user;
use super::wire::fields;
use crate::event::{Bar, Bbo, Book, Event, Symbol, Ticker, Trade};
use crate::text::{decimal, instant};

/// The outer fields of a frame.
#[derive(Clone, Copy, Default)]
pub(super) struct Head<'a> {
    pub channel: &'a str,
    pub symbol: &'a str,
    /// When the venue sent it; klines say when they were made instead.
    pub time: Option<Nanos>,
}

impl Head<'_> {
    pub fn symbol(&self) -> Result<Symbol, String> {
        if self.symbol.is_empty() { Err("no symbol".to_owned()) } else { Ok(self.symbol.into()) }
    }
}

/// Channels between `spot@` and `.v3.api`.
const CHANNELS: &[&str] = &[
    "public.aggre.deals",
    "public.aggre.depth",
    "public.aggre.bookTicker",
    "public.limit.depth",
    "public.bookTicker",
    "public.bookTicker.batch",
    "public.kline",
    "public.miniTicker",
    "public.miniTickers",
    "public.deals",
    "public.increase.depth",
    "public.increase.depth.batch",
    "private.account",
    "private.deals",
    "private.orders",
];

/// The bodies stand in one range of field numbers.
const BODIES: std::ops::RangeInclusive<u32> = 301..=399;

/// Reads one frame.
pub(super) fn decode(frame: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let mut head = Head::default();
    let (mut made, mut body) = (None, None);
    for field in fields(frame) {
        match field? {
            (1, value) => head.channel = value.text()?,
            (3, value) => head.symbol = value.text()?,
            (5, value) => made = Some(instant(value.int()?)),
            (6, value) => head.time = Some(instant(value.int()?)),
            (number, value) if BODIES.contains(&number) => body = Some((number, value.bytes()?)),
            _ => {}
        }
    }
    head.time = head.time.or(made);
    let Some((number, body)) = body else { return empty(&head, out) };
    match number {
        303 => depth(&head, body, Shape::Limit, out),
        304 => user::spot_order(&head, body, out),
        305 | 315 => book_ticker(&head, body, out),
        306 => user::spot_deal(&head, body, out),
        307 => user::spot_account(&head, body, out),
        308 => kline(&head, body, out),
        309 => mini_ticker(&head, body, out),
        310 => each(body, |item| mini_ticker(&head, item, out)),
        311 => each(body, |item| book_ticker(&head, item, out)),
        313 => depth(&head, body, Shape::Aggre, out),
        314 => each(body, |item| deal(&head, item, out)),
        // Not aggregated: the venue refuses to subscribe them nowadays.
        301 | 302 | 312 => {
            out.push(Event::Other(head.channel.to_owned()));
            Ok(())
        }
        other => Err(format!("unknown body {other} on channel `{}`", head.channel)),
    }
}

/// Channel and symbol of a frame that could not be read whole, as far as they can be.
pub(super) fn subject(frame: &[u8]) -> (Option<&str>, Option<&str>) {
    let (mut channel, mut symbol) = (None, None);
    for (number, value) in fields(frame).map_while(Result::ok) {
        match number {
            1 => channel = value.text().ok(),
            3 => symbol = value.text().ok(),
            _ => {}
        }
    }
    (channel, symbol)
}

/// A frame without a body is legal; it says nothing.
fn empty(head: &Head, out: &mut Vec<Event>) -> Result<(), String> {
    if !is_known(head.channel) {
        return Err(format!("unknown channel `{}`", head.channel));
    }
    out.push(Event::Ignored { reason: format!("an empty frame of {}", head.channel), trade: None });
    Ok(())
}

fn is_known(channel: &str) -> bool {
    let name = channel.strip_prefix("spot@").and_then(|c| c.split_once(".v3.api")).map(|(name, _)| name);
    name.is_some_and(|name| CHANNELS.contains(&name))
}

/// Every message in field 1.
fn each(body: &[u8], mut read: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
    for field in fields(body) {
        if let (1, value) = field? {
            read(value.bytes()?)?;
        }
    }
    Ok(())
}

/// `tradeType` of trades and orders.
pub(super) fn side(trade_type: i64) -> Result<Side, String> {
    match trade_type {
        1 => Ok(Side::Buy),
        2 => Ok(Side::Sell),
        other => Err(format!("trade type {other}")),
    }
}

pub(super) fn number(text: &str) -> Result<Decimal, String> {
    decimal(text).map_err(|e| e.to_string())
}

fn deal(head: &Head, message: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let (mut price, mut quantity, mut id) = ("", "", None);
    let (mut kind, mut time) = (0, None);
    for field in fields(message) {
        match field? {
            (1, value) => price = value.text()?,
            (2, value) => quantity = value.text()?,
            (3, value) => kind = value.int()?,
            (4, value) => time = Some(value.int()?),
            (5, value) => id = Some(value.text()?),
            _ => {}
        }
    }
    let time = time.ok_or("a trade without its time")?;
    out.push(trade(head, price, quantity, kind, time, id)?);
    Ok(())
}

/// Ids come as `<taker's>X0_<maker's>X0`. Frames of an older schema have none: nothing but their place tells such trades
/// apart then, because time, price, size and side of two trades may be the same.
pub(super) fn trade(
    head: &Head,
    price: &str,
    size: &str,
    kind: i64,
    time_ms: i64,
    id: Option<&str>,
) -> Result<Event, String> {
    Ok(Event::Trade(Trade {
        symbol: head.symbol()?,
        id: 0,
        venue_id: id.filter(|id| !id.is_empty()).map(Symbol::from),
        price: number(price)?,
        size: number(size)?,
        unit: SizeUnit::Base,
        side: side(kind)?,
        ts: instant(time_ms),
        event_ts: head.time,
        aggregate: None,
        backfill: false,
        extra: None,
    }))
}

/// How a depth message numbers itself.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Changes between two versions.
    Aggre,
    /// The whole top of the book at one version.
    Limit,
}

fn depth(head: &Head, body: &[u8], shape: Shape, out: &mut Vec<Event>) -> Result<(), String> {
    let (mut asks, mut bids) = (Vec::new(), Vec::new());
    let (mut first, mut last) = (None, None);
    for field in fields(body) {
        match (shape, field?) {
            (_, (1, value)) => asks.push(level(value.bytes()?)?),
            (_, (2, value)) => bids.push(level(value.bytes()?)?),
            (Shape::Aggre, (4, value)) => first = Some(version(value.text()?)?),
            (Shape::Aggre, (5, value)) | (Shape::Limit, (4, value)) => last = Some(version(value.text()?)?),
            _ => {}
        }
    }
    if last.is_none() || first.is_some() != (shape == Shape::Aggre) {
        return Err("a book without its versions".to_owned());
    }
    let action = if shape == Shape::Aggre { BookAction::Update } else { BookAction::Snapshot };
    out.push(Event::Book(Book {
        symbol: head.symbol()?,
        action,
        partial: shape == Shape::Limit,
        seq_first: first,
        seq_last: last,
        seq_prev: None,
        bids,
        asks,
        unit: SizeUnit::Base,
        checksum: None,
        ts: head.time,
        event_ts: head.time,
    }));
    Ok(())
}

fn level(message: &[u8]) -> Result<(Decimal, Decimal), String> {
    let (mut price, mut quantity) = ("", "");
    for field in fields(message) {
        match field? {
            (1, value) => price = value.text()?,
            (2, value) => quantity = value.text()?,
            _ => {}
        }
    }
    Ok((number(price)?, number(quantity)?))
}

pub(super) fn version(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("version `{text}`"))
}

fn book_ticker(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let (mut bid, mut ask) = (("", ""), ("", ""));
    let mut seq = None;
    for field in fields(body) {
        match field? {
            (1, value) => bid.0 = value.text()?,
            (2, value) => bid.1 = value.text()?,
            (3, value) => ask.0 = value.text()?,
            (4, value) => ask.1 = value.text()?,
            (5, value) => seq = Some(version(value.text()?)?),
            _ => {}
        }
    }
    out.push(bbo(head, bid, ask, seq)?);
    Ok(())
}

pub(super) fn bbo(head: &Head, bid: (&str, &str), ask: (&str, &str), seq: Option<u64>) -> Result<Event, String> {
    // A side without orders is not written, or has no size.
    let best = |(price, size): (&str, &str)| -> Result<Option<(Decimal, Decimal)>, String> {
        if price.is_empty() && size.is_empty() {
            return Ok(None);
        }
        let best = (number(price)?, number(size)?);
        Ok(Some(best).filter(|(_, size)| !size.is_zero()))
    };
    Ok(Event::Bbo(Bbo {
        symbol: head.symbol()?,
        bid: best(bid)?,
        ask: best(ask)?,
        unit: SizeUnit::Base,
        seq,
        ts: head.time,
        event_ts: head.time,
    }))
}

/// Close comes before high and low; the window is in seconds. Whether it is closed is not said.
fn kline(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let mut texts = [""; 6];
    let (mut interval, mut start, mut end) = ("", None, None);
    for field in fields(body) {
        match field? {
            (1, value) => interval = value.text()?,
            (2, value) => start = Some(seconds(value.int()?)),
            (at @ 3..=8, value) => texts[at as usize - 3] = value.text()?,
            (9, value) => end = Some(seconds(value.int()?)),
            _ => {}
        }
    }
    let [open, close, high, low, volume, amount] = texts;
    out.push(Event::Bar(Box::new(Bar {
        symbol: head.symbol()?,
        interval: interval.to_owned(),
        open_ts: start.ok_or("a candle without its start")?,
        close_ts: end,
        open: number(open)?,
        high: number(high)?,
        low: number(low)?,
        close: number(close)?,
        volume_base: Some(number(volume)?),
        volume_quote: Some(number(amount)?),
        volume: None,
        trades: None,
        closed: None,
        event_ts: head.time,
    })));
    Ok(())
}

/// Seconds since 1970 UTC, as klines write times.
pub(super) fn seconds(number: i64) -> Nanos {
    Nanos(number.saturating_mul(Nanos::PER_SECOND))
}

fn mini_ticker(head: &Head, body: &[u8], out: &mut Vec<Event>) -> Result<(), String> {
    let mut symbol = head.symbol;
    let (mut last, mut high, mut low, mut volume, mut quantity) = (None, None, None, None, None);
    for field in fields(body) {
        match field? {
            (1, value) => symbol = value.text()?,
            (2, value) => last = Some(number(value.text()?)?),
            (5, value) => high = Some(number(value.text()?)?),
            (6, value) => low = Some(number(value.text()?)?),
            (7, value) => volume = Some(number(value.text()?)?),
            (8, value) => quantity = Some(number(value.text()?)?),
            _ => {}
        }
    }
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: Head { symbol, ..*head }.symbol()?,
        ts: head.time,
        last,
        high_24h: high,
        low_24h: low,
        // What the venue calls volume is the turnover.
        volume_quote_24h: volume,
        volume_base_24h: quantity,
        ..Ticker::default()
    })));
    Ok(())
}
