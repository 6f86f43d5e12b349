//! Binance market data frames, bare or wrapped (`{"stream":...,"data":...}`).
//!
//! The commonest frames are told apart by their first bytes, so that a trade costs one pass over its text (`scan.rs`):
//! `{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true}`
//! <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>

use std::borrow::Cow;

use schemas::Side;
use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Kind, scan, user};
use crate::event::{Bar, Bbo, Book, Control, Event, Frame, Liquidation, Mark, Ticker, Trade};
use crate::text::{MaybeQuoted, Quoted, instant};

/// Reads one frame of any stream of the market.
pub fn decode(kind: Kind, frame: Frame<'_>, out: &mut Vec<Event>) {
    match frame.text() {
        Ok(text) => text_frame(kind, text, out),
        Err(why) => out.push(Event::Malformed(why)),
    }
}

fn text_frame(kind: Kind, frame: &str, out: &mut Vec<Event>) {
    let frame = frame.trim();
    let (stream, data) = match unwrap_fast(frame) {
        Some((stream, data)) => (Some(stream), data),
        None => (None, frame),
    };
    if let Err(why) = payload(kind, stream, data, out) {
        out.push(Event::Malformed(why));
    }
}

/// Cuts `{"stream":"x","data":DATA}` without parsing it: whoever parses DATA finds out if it was more than one
/// value.
fn unwrap_fast(frame: &str) -> Option<(&str, &str)> {
    let rest = frame.strip_prefix("{\"stream\":\"")?;
    let (stream, rest) = rest.split_once('"')?;
    let data = rest.strip_prefix(",\"data\":")?.strip_suffix('}')?;
    (!stream.contains('\\')).then_some((stream, data))
}

/// The `"e"` of a payload that begins with it.
fn event_fast(data: &str) -> Option<&str> {
    let (name, _) = data.strip_prefix("{\"e\":\"")?.split_once('"')?;
    (!name.contains('\\')).then_some(name)
}

/// What a payload may look like when its first bytes do not tell.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "event")]
    user_event: Option<&'a RawValue>,
    #[serde(rename = "lastUpdateId")]
    last_update_id: Option<IgnoredAny>,
    u: Option<IgnoredAny>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    code: Option<i64>,
    msg: Option<String>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    msg: String,
}

/// Tells `"result":null` from no result.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

fn payload(kind: Kind, stream: Option<&str>, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    if let Some(row) = scan::row(data) {
        out.push(row_event(kind, row));
        return Ok(());
    }
    if let Some(name) = event_fast(data) {
        return event(kind, stream, name, data, out);
    }
    if stream.is_some_and(|s| s.ends_with("@bookTicker")) {
        return book_ticker(kind, data, out);
    }
    if data.starts_with('[') {
        let items: Vec<&RawValue> = parse(data)?;
        return items.into_iter().try_for_each(|item| payload(kind, stream, item.get(), out));
    }
    let head: Head = parse(data)?;
    if let (Some(stream), Some(data)) = (&head.stream, head.data) {
        return payload(kind, Some(stream), data.get(), out);
    }
    if let Some(inner) = head.user_event {
        return payload(kind, stream, inner.get(), out);
    }
    if let Some(name) = &head.e {
        return event(kind, stream, name, data, out);
    }
    if head.last_update_id.is_some() {
        return whole_book(kind, stream, data, out);
    }
    let id = head.id.map(|raw| raw.get().trim_matches('"').to_owned());
    if let Some(method) = head.method {
        out.push(Event::Control(Control::Request { method: method.into_owned() }));
    } else if let Some(refusal) = head.error {
        out.push(Event::Error { code: Some(refusal.code), message: refusal.msg, id });
    } else if let Some(code) = head.code {
        out.push(Event::Error { code: Some(code), message: head.msg.unwrap_or_default(), id });
    } else if let (Some(_), Some(id)) = (head.result, id) {
        out.push(Event::Control(Control::Ack { id }));
    } else if head.u.is_some() {
        return book_ticker(kind, data, out);
    } else {
        return Err("neither an event nor an answer".to_owned());
    }
    Ok(())
}

/// Events that we know and have no normalised form for: they must parse, and are left out.
const UNMAPPED: &[&str] = &[
    "avgPrice",
    "blockTrade",
    "referencePrice",
    "1hTicker",
    "4hTicker",
    "1dTicker",
    "indexPriceUpdate",
    "compositeIndex",
    "contractInfo",
    "assetIndexUpdate",
    "index_candle",
    "indexPrice_kline",
    "markPrice_kline",
];

fn event(kind: Kind, stream: Option<&str>, name: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    match name {
        "trade" => trade(kind, data, out),
        "aggTrade" => aggregate_trade(kind, data, out),
        "depthUpdate" => depth(kind, stream, data, out),
        "bookTicker" => book_ticker(kind, data, out),
        "kline" | "continuous_kline" => kline(data, out),
        "24hrTicker" | "24hrMiniTicker" => ticker(data, out),
        "markPriceUpdate" => mark_price(data, out),
        "forceOrder" => force_order(kind, data, out),
        "serverShutdown" => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Control(Control::ServerShutdown));
            Ok(())
        }
        name if UNMAPPED.contains(&name) => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(name.to_owned()));
            Ok(())
        }
        name => user::event(name, data, out),
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

fn aggressor(buyer_is_maker: bool) -> Side {
    if buyer_is_maker { Side::Sell } else { Side::Buy }
}

fn unit(kind: Kind) -> SizeUnit {
    match kind {
        Kind::Spot | Kind::Usdm => SizeUnit::Base,
        Kind::Coinm => SizeUnit::Contracts,
    }
}

/// A trade that was read in one pass.
pub(super) fn row_event(kind: Kind, row: scan::Row<'_>) -> Event {
    Event::Trade(Trade {
        symbol: row.symbol.into(),
        id: row.id,
        venue_id: None,
        price: row.price,
        size: row.size,
        unit: unit(kind),
        side: aggressor(row.buyer_is_maker),
        ts: instant(row.time),
        event_ts: Some(instant(row.event_time)),
        aggregate: row.aggregate,
        backfill: false,
        extra: None,
    })
}

pub(super) fn trade(kind: Kind, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        s: Cow<'a, str>,
        t: u64,
        p: Quoted,
        q: Quoted,
        #[serde(rename = "T")]
        time: i64,
        m: bool,
        #[serde(rename = "X", borrow)]
        order_type: Option<Cow<'a, str>>,
    }
    let m: Msg = parse(data)?;
    match m.order_type.as_deref() {
        None | Some("MARKET") => {}
        // Book-keeping rows of the futures tape, not trades between two.
        Some(other @ ("INSURANCE_FUND" | "ADL" | "NA" | "LIQUIDATION")) => {
            let reason = format!("trade type {other}");
            out.push(Event::Ignored { reason, trade: Some((m.s.into(), m.t)) });
            return Ok(());
        }
        Some(other) => return Err(format!("trade {} has type `{other}`", m.t)),
    }
    out.push(Event::Trade(Trade {
        symbol: m.s.into(),
        id: m.t,
        venue_id: None,
        price: m.p.0,
        size: m.q.0,
        unit: unit(kind),
        side: aggressor(m.m),
        ts: instant(m.time),
        event_ts: Some(instant(m.event_time)),
        aggregate: None,
        backfill: false,
        extra: None,
    }));
    Ok(())
}

pub(super) fn aggregate_trade(kind: Kind, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        s: Cow<'a, str>,
        a: u64,
        p: Quoted,
        q: Quoted,
        f: u64,
        l: u64,
        #[serde(rename = "T")]
        time: i64,
        m: bool,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Trade(Trade {
        symbol: m.s.into(),
        id: m.a,
        venue_id: None,
        price: m.p.0,
        size: m.q.0,
        unit: unit(kind),
        side: aggressor(m.m),
        ts: instant(m.time),
        event_ts: Some(instant(m.event_time)),
        aggregate: Some((m.f, m.l)),
        backfill: false,
        extra: None,
    }));
    Ok(())
}

type Levels = Vec<(Quoted, Quoted)>;

fn levels(rows: Levels) -> Vec<(schemas::Decimal, schemas::Decimal)> {
    rows.into_iter().map(|(price, size)| (price.0, size.0)).collect()
}

/// `@depth5`, `@depth10`, `@depth20` are whole top-of-book snapshots; `@depth` is the stream of changes.
fn is_partial(stream: Option<&str>) -> bool {
    stream.is_some_and(|s| s.split('@').skip(1).any(|part| matches!(part, "depth5" | "depth10" | "depth20")))
}

fn depth(kind: Kind, stream: Option<&str>, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(rename = "T")]
        time: Option<i64>,
        #[serde(borrow)]
        s: Cow<'a, str>,
        #[serde(rename = "U")]
        first: u64,
        u: u64,
        pu: Option<u64>,
        b: Levels,
        a: Levels,
    }
    let m: Msg = parse(data)?;
    let partial = is_partial(stream);
    out.push(Event::Book(Book {
        symbol: m.s.into(),
        action: if partial { BookAction::Snapshot } else { BookAction::Update },
        partial,
        seq_first: Some(m.first),
        seq_last: Some(m.u),
        seq_prev: m.pu,
        bids: levels(m.b),
        asks: levels(m.a),
        unit: unit(kind),
        checksum: None,
        ts: Some(instant(m.time.unwrap_or(m.event_time))),
        event_ts: Some(instant(m.event_time)),
    }));
    Ok(())
}

/// A spot partial book, or the answer of a REST `depth` call.
fn whole_book(kind: Kind, stream: Option<&str>, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "lastUpdateId")]
        last: u64,
        #[serde(rename = "E")]
        event_time: Option<i64>,
        #[serde(rename = "T")]
        time: Option<i64>,
        symbol: Option<String>,
        bids: Levels,
        asks: Levels,
    }
    let m: Msg = parse(data)?;
    let of_stream = stream.and_then(|s| s.split('@').next()).map(str::to_uppercase);
    out.push(Event::Book(Book {
        symbol: m.symbol.or(of_stream).unwrap_or_default().into(),
        action: BookAction::Snapshot,
        partial: stream.is_some(),
        seq_first: None,
        seq_last: Some(m.last),
        seq_prev: None,
        bids: levels(m.bids),
        asks: levels(m.asks),
        unit: unit(kind),
        checksum: None,
        ts: m.time.map(instant),
        event_ts: m.event_time.map(instant),
    }));
    Ok(())
}

fn book_ticker(kind: Kind, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        u: u64,
        #[serde(borrow)]
        s: Cow<'a, str>,
        b: Quoted,
        #[serde(rename = "B")]
        bid_size: Quoted,
        a: Quoted,
        #[serde(rename = "A")]
        ask_size: Quoted,
        #[serde(rename = "T")]
        time: Option<i64>,
        #[serde(rename = "E")]
        event_time: Option<i64>,
    }
    let m: Msg = parse(data)?;
    // The venue writes an empty side as price and size zero.
    let side = |price: Quoted, size: Quoted| (!price.0.is_zero()).then_some((price.0, size.0));
    out.push(Event::Bbo(Bbo {
        symbol: m.s.into(),
        bid: side(m.b, m.bid_size),
        ask: side(m.a, m.ask_size),
        unit: unit(kind),
        seq: Some(m.u),
        ts: m.time.map(instant),
        event_ts: m.event_time.map(instant),
    }));
    Ok(())
}

fn kline(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        s: Option<Cow<'a, str>>,
        /// Continuous contracts name the pair.
        #[serde(borrow)]
        ps: Option<Cow<'a, str>>,
        #[serde(borrow)]
        k: K<'a>,
    }
    #[derive(Deserialize)]
    struct K<'a> {
        t: i64,
        #[serde(rename = "T")]
        close_time: i64,
        #[serde(borrow)]
        i: Cow<'a, str>,
        o: Quoted,
        c: Quoted,
        h: Quoted,
        l: Quoted,
        v: Quoted,
        n: u64,
        x: bool,
        q: Quoted,
    }
    let m: Msg = parse(data)?;
    let symbol = m.s.or(m.ps).ok_or("kline without a symbol")?;
    out.push(Event::Bar(Box::new(Bar {
        symbol: symbol.into(),
        interval: m.k.i.into_owned(),
        open_ts: instant(m.k.t),
        close_ts: Some(instant(m.k.close_time)),
        open: m.k.o.0,
        high: m.k.h.0,
        low: m.k.l.0,
        close: m.k.c.0,
        volume_base: Some(m.k.v.0),
        volume_quote: Some(m.k.q.0),
        volume: None,
        trades: Some(m.k.n),
        closed: Some(m.k.x),
        event_ts: Some(instant(m.event_time)),
    })));
    Ok(())
}

fn ticker(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        s: Cow<'a, str>,
        c: Quoted,
        o: Quoted,
        h: Quoted,
        l: Quoted,
        v: Quoted,
        q: Quoted,
        b: Option<Quoted>,
        #[serde(rename = "B")]
        bid_size: Option<Quoted>,
        a: Option<Quoted>,
        #[serde(rename = "A")]
        ask_size: Option<Quoted>,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: m.s.into(),
        ts: Some(instant(m.event_time)),
        last: Some(m.c.0),
        open_24h: Some(m.o.0),
        high_24h: Some(m.h.0),
        low_24h: Some(m.l.0),
        volume_base_24h: Some(m.v.0),
        volume_quote_24h: Some(m.q.0),
        bid: m.b.map(|x| x.0),
        bid_size: m.bid_size.map(|x| x.0),
        ask: m.a.map(|x| x.0),
        ask_size: m.ask_size.map(|x| x.0),
        ..Ticker::default()
    })));
    Ok(())
}

fn mark_price(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        s: Cow<'a, str>,
        p: Quoted,
        #[serde(default)]
        i: MaybeQuoted,
        #[serde(default)]
        r: MaybeQuoted,
        #[serde(rename = "T")]
        next: Option<i64>,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Mark(Mark {
        symbol: m.s.into(),
        mark: m.p.0,
        index: m.i.0,
        funding_rate: m.r.0,
        next_funding: m.next.filter(|t| *t > 0).map(instant),
        ts: instant(m.event_time),
    }));
    Ok(())
}

/// `BUY` or `SELL`; anything else is refused.
pub(super) fn side(text: &str) -> Result<Side, String> {
    match text {
        "BUY" => Ok(Side::Buy),
        "SELL" => Ok(Side::Sell),
        other => Err(format!("side `{other}`")),
    }
}

fn force_order(kind: Kind, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        o: Order<'a>,
    }
    #[derive(Deserialize)]
    struct Order<'a> {
        s: String,
        #[serde(rename = "S", borrow)]
        side: Cow<'a, str>,
        q: Quoted,
        p: Quoted,
        ap: Quoted,
        #[serde(rename = "X")]
        status: String,
        z: Quoted,
        #[serde(rename = "T")]
        time: i64,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Liquidation(Box::new(Liquidation {
        side: side(&m.o.side)?,
        symbol: m.o.s.into(),
        price: m.o.p.0,
        avg_price: Some(m.o.ap.0),
        size: m.o.q.0,
        unit: unit(kind),
        filled: Some(m.o.z.0),
        status: Some(m.o.status),
        pos_side: None,
        offset: None,
        ts: instant(m.o.time),
    })));
    Ok(())
}
