//! MEXC contract on the socket: JSON text.
//!
//! `{"channel":"push.deal","data":[{"p":115309.8,"v":55,"T":2,"O":3,"M":1,"t":1755487578276,"i":"13064218826"}],
//! "symbol":"BTC_USDT","ts":1755487578276}`
//! <https://www.mexc.com/api-docs/futures/websocket-api>

use std::borrow::Cow;

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::decode::{Int, parse};
use super::push::{seconds, side};
use super::user;
use crate::event::{Bar, Book, Control, Event, Frame, Funding, Mark, Symbol, Ticker, Trade};
use crate::text::{Bare, instant};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    symbol: Option<Cow<'a, str>>,
    ts: Option<i64>,
}

/// What stands beside the data of a push.
pub(super) struct Head<'a> {
    symbol: Option<&'a str>,
    /// When the venue sent it.
    pub time: Option<Nanos>,
}

impl Head<'_> {
    fn symbol(&self) -> Result<Symbol, String> {
        self.symbol.map(Symbol::from).ok_or_else(|| "no symbol".to_owned())
    }
    pub fn time(&self) -> Result<Nanos, String> {
        self.time.ok_or_else(|| "no time".to_owned())
    }
}

/// Known pushes without a normalised form: a contract's terms changed, and what is told about one's own positions and
/// conditional orders.
const UNMAPPED: &[&str] = &[
    "contract",
    "personal.position",
    "personal.plan.order",
    "personal.stop.planorder",
    "personal.track.order",
    "personal.generic.notify",
];

/// Reads one frame of the contract socket.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) {
    if let Err(why) = frame.text().and_then(|text| read(text, out)) {
        out.push(Event::Malformed(why));
    }
}

fn read(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let m: Message = parse(frame)?;
    let data = m.data.get();
    if m.channel == "pong" {
        out.push(Event::Control(Control::Pong));
        return Ok(());
    }
    if let Some(method) = m.channel.strip_prefix("rs.") {
        out.push(answer(method, data)?);
        return Ok(());
    }
    let Some(name) = m.channel.strip_prefix("push.") else {
        return Err(format!("unknown channel `{}`", m.channel));
    };
    let head = Head { symbol: m.symbol.as_deref(), time: m.ts.map(instant) };
    match name {
        "deal" => deals(&head, data, out),
        "depth" => depth(&head, data, BookAction::Update, out),
        "depth.full" => depth(&head, data, BookAction::Snapshot, out),
        "kline" => kline(&head, data, out),
        "ticker" => ticker(&head, parse(data)?, out),
        "tickers" => parse::<Vec<TickerRow>>(data)?.into_iter().try_for_each(|row| ticker(&head, row, out)),
        "funding.rate" => funding(&head, data, out),
        "index.price" => price(&head, data, out, |symbol, price, ts| Event::Index { symbol, price, ts }),
        "fair.price" => price(&head, data, out, |symbol, mark, ts| {
            Event::Mark(Mark { symbol, mark, index: None, funding_rate: None, next_funding: None, ts })
        }),
        "personal.order" => user::contract_order(&head, data, out),
        "personal.order.deal" => user::contract_deal(data, out),
        "personal.asset" => user::contract_asset(&head, data, out),
        name if UNMAPPED.contains(&name) => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(m.channel.into_owned()));
            Ok(())
        }
        name => Err(format!("unknown channel `push.{name}`")),
    }
}

/// `{"channel":"rs.sub.deal","data":"success","ts":...}`: the answer names the method and nothing else.
/// `{"channel":"rs.error","data":"Contract [X_USDT] not exists","ts":...}` does not even name that.
fn answer(method: &str, data: &str) -> Result<Event, String> {
    let said = parse::<Cow<str>>(data).unwrap_or(Cow::Borrowed(data));
    Ok(match (method, said.as_ref()) {
        ("error", message) => Event::Error { code: None, message: message.to_owned(), id: None },
        (method, "success") => Event::Control(Control::Ack { id: method.to_owned() }),
        (method, message) => Event::Error { code: None, message: message.to_owned(), id: Some(method.to_owned()) },
    })
}

#[derive(Deserialize)]
pub(super) struct DealRow<'a> {
    p: Bare,
    v: Bare,
    #[serde(rename = "T")]
    kind: i64,
    t: i64,
    #[serde(borrow)]
    i: Option<Cow<'a, str>>,
}

impl DealRow<'_> {
    pub fn trade(self, symbol: Symbol, event_ts: Option<Nanos>, backfill: bool) -> Result<Trade, String> {
        Ok(Trade {
            symbol,
            id: 0,
            venue_id: self.i.map(Symbol::from),
            price: self.p.0,
            size: self.v.0,
            unit: SizeUnit::Contracts,
            side: side(self.kind)?,
            ts: instant(self.t),
            event_ts,
            aggregate: None,
            backfill,
            extra: None,
        })
    }
}

/// One deal until 2025, a list of them since.
fn deals(head: &Head, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let rows: Vec<DealRow> = if data.starts_with('[') { parse(data)? } else { vec![parse(data)?] };
    for row in rows {
        out.push(Event::Trade(row.trade(head.symbol()?, head.time, false)?));
    }
    Ok(())
}

/// Price, contracts, number of orders.
type Level = (Bare, Bare, IgnoredAny);

#[derive(Deserialize)]
pub(super) struct DepthRow {
    asks: Vec<Level>,
    bids: Vec<Level>,
    version: u64,
    /// The versions that a message sums up, where it sums up several.
    begin: Option<Int>,
    end: Option<Int>,
    /// Of a REST answer.
    timestamp: Option<i64>,
}

impl DepthRow {
    pub fn book(self, symbol: Symbol, action: BookAction, partial: bool, time: Option<Nanos>) -> Result<Book, String> {
        let levels = |rows: Vec<Level>| rows.into_iter().map(|(price, size, _)| (price.0, size.0)).collect();
        let version = |bound: Option<Int>| match bound {
            Some(Int(n)) => u64::try_from(n).map_err(|_| format!("version {n}")),
            None => Ok(self.version),
        };
        let ts = time.or(self.timestamp.map(instant));
        Ok(Book {
            symbol,
            action,
            partial,
            seq_first: if action == BookAction::Update { Some(version(self.begin)?) } else { None },
            seq_last: Some(version(self.end)?),
            seq_prev: None,
            bids: levels(self.bids),
            asks: levels(self.asks),
            unit: SizeUnit::Contracts,
            checksum: None,
            ts,
            event_ts: ts,
        })
    }
}

/// `push.depth` changes a book; `push.depth.full` is the top of it, whole each time.
fn depth(head: &Head, data: &str, action: BookAction, out: &mut Vec<Event>) -> Result<(), String> {
    let row: DepthRow = parse(data)?;
    out.push(Event::Book(row.book(head.symbol()?, action, action == BookAction::Snapshot, head.time)?));
    Ok(())
}

/// Contracts settled in the coin are named after plain dollars: `BTC_USD`. What they turn over is counted in the coin.
pub(super) fn is_inverse(symbol: &str) -> bool {
    symbol.ends_with("_USD")
}

/// The turnover as (base, quote).
pub(super) fn turnover(symbol: &str, amount: Option<Decimal>) -> (Option<Decimal>, Option<Decimal>) {
    if is_inverse(symbol) { (amount, None) } else { (None, amount) }
}

fn kline(head: &Head, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row {
        t: i64,
        interval: String,
        o: Bare,
        h: Bare,
        l: Bare,
        c: Bare,
        q: Bare,
        a: Bare,
    }
    let row: Row = parse(data)?;
    let symbol = head.symbol()?;
    let (volume_base, volume_quote) = turnover(&symbol, Some(row.a.0));
    out.push(Event::Bar(Box::new(Bar {
        symbol,
        interval: row.interval,
        open_ts: seconds(row.t),
        close_ts: None,
        open: row.o.0,
        high: row.h.0,
        low: row.l.0,
        close: row.c.0,
        volume_base,
        volume_quote,
        volume: Some(row.q.0),
        trades: None,
        closed: None,
        event_ts: head.time,
    })));
    Ok(())
}

/// Of `push.ticker`; `push.tickers` sends fewer members.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TickerRow<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    last_price: Option<Bare>,
    bid1: Option<Bare>,
    ask1: Option<Bare>,
    fair_price: Option<Bare>,
    index_price: Option<Bare>,
    funding_rate: Option<Bare>,
    hold_vol: Option<Bare>,
    high24_price: Option<Bare>,
    lower24_price: Option<Bare>,
    volume24: Option<Bare>,
    amount24: Option<Bare>,
    timestamp: Option<i64>,
}

fn ticker(head: &Head, row: TickerRow, out: &mut Vec<Event>) -> Result<(), String> {
    let value = |number: Option<Bare>| number.map(|n| n.0);
    let (volume_base_24h, volume_quote_24h) = turnover(&row.symbol, value(row.amount24));
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: row.symbol.into(),
        ts: row.timestamp.map(instant).or(head.time),
        last: value(row.last_price),
        bid: value(row.bid1),
        ask: value(row.ask1),
        mark: value(row.fair_price),
        index: value(row.index_price),
        funding_rate: value(row.funding_rate),
        open_interest: value(row.hold_vol),
        high_24h: value(row.high24_price),
        low_24h: value(row.lower24_price),
        volume_24h: value(row.volume24),
        volume_base_24h,
        volume_quote_24h,
        ..Ticker::default()
    })));
    Ok(())
}

fn funding(head: &Head, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        rate: Bare,
        next_settle_time: Option<i64>,
    }
    let row: Row = parse(data)?;
    out.push(Event::Funding(Box::new(Funding {
        symbol: head.symbol()?,
        rate: row.rate.0,
        due: None,
        next_rate: None,
        next_due: row.next_settle_time.map(instant),
        ts: head.time()?,
    })));
    Ok(())
}

fn price(
    head: &Head,
    data: &str,
    out: &mut Vec<Event>,
    event: impl FnOnce(Symbol, Decimal, Nanos) -> Event,
) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Row {
        price: Bare,
    }
    let row: Row = parse(data)?;
    out.push(event(head.symbol()?, row.price.0, head.time()?));
    Ok(())
}
