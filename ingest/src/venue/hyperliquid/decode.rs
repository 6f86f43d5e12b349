//! Hyperliquid frames: a channel and its data. Members come in any order.
//!
//! `{"channel":"trades","data":[{"coin":"BTC","side":"B","px":"105056.0","sz":"0.02222","time":1737918847000,...}]}`
//! <https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/websocket>

use std::borrow::Cow;

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Side};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::user;
use crate::event::{Bar, Bbo, Book, Control, Event, Frame, Symbol, Ticker, Trade};
use crate::text::{Quoted, instant};

/// Channels that we know and have no normalised form for.
const UNMAPPED: &[&str] = &[
    "allMids",
    // Contexts by number of the asset, without a name.
    "allDexsAssetCtxs",
    "notification",
    "webData2",
    "webData3",
    "activeAssetData",
    "userFundings",
    "userNonFundingLedgerUpdates",
    // Fills that `userFills` tells too.
    "userTwapSliceFills",
];

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads one frame.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) {
    if let Err(why) = frame.text().and_then(|text| read(text, out)) {
        out.push(Event::Malformed(why));
    }
}

fn read(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let f: Message = parse(frame)?;
    let Some(data) = f.data.map(RawValue::get) else {
        return match f.channel.as_ref() {
            "pong" => {
                out.push(Event::Control(Control::Pong));
                Ok(())
            }
            other => Err(format!("channel `{other}` without data")),
        };
    };
    match f.channel.as_ref() {
        "trades" => trades(data, out),
        "l2Book" => {
            out.push(Event::Book(book(data)?));
            Ok(())
        }
        "bbo" => bbo(data, out),
        "candle" => {
            out.push(Event::Bar(Box::new(parse::<CandleRow>(data)?.bar(None))));
            Ok(())
        }
        "activeAssetCtx" | "activeSpotAssetCtx" => context(data, out),
        "subscriptionResponse" => answer(data, out),
        "error" => error(data, out),
        "pong" => {
            out.push(Event::Control(Control::Pong));
            Ok(())
        }
        "post" => post(data, out),
        "orderUpdates" => user::order_updates(data, out),
        "user" => user::user_events(data, out),
        "userFills" => user::user_fills(data, out),
        channel if UNMAPPED.contains(&channel) => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(channel.to_owned()));
            Ok(())
        }
        channel => Err(format!("unknown channel `{channel}`")),
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

/// `B` (bid) bought, `A` (ask) sold; of a public trade: what the aggressor did.
pub(super) fn side(word: &str) -> Result<Side, String> {
    match word {
        "B" => Ok(Side::Buy),
        "A" => Ok(Side::Sell),
        other => Err(format!("side `{other}`")),
    }
}

/// A public trade; `hash` and `users` are left out.
#[derive(Deserialize)]
pub(super) struct TradeRow<'a> {
    #[serde(borrow)]
    coin: Cow<'a, str>,
    #[serde(borrow)]
    side: Cow<'a, str>,
    px: Quoted,
    sz: Quoted,
    time: i64,
    tid: u64,
}

impl TradeRow<'_> {
    pub(super) fn trade(self, backfill: bool) -> Result<Trade, String> {
        Ok(Trade {
            side: side(&self.side).map_err(|why| format!("trade {} has {why}", self.tid))?,
            symbol: self.coin.as_ref().into(),
            // The feed numbers the trades: this id only tells them apart.
            id: 0,
            venue_id: Some(number(self.tid)),
            price: self.px.0,
            size: self.sz.0,
            unit: SizeUnit::Base,
            ts: instant(self.time),
            event_ts: None,
            aggregate: None,
            backfill,
            extra: None,
        })
    }
}

/// The text of an id: at most 20 digits, which stand in place.
fn number(id: u64) -> Symbol {
    compact_str::format_compact!("{id}")
}

fn trades(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let rows: Vec<TradeRow> = parse(data)?;
    // All of a message or nothing: half a message would look like a whole one.
    let trades: Vec<Trade> = rows.into_iter().map(|row| row.trade(false)).collect::<Result<_, _>>()?;
    out.extend(trades.into_iter().map(Event::Trade));
    Ok(())
}

#[derive(Deserialize)]
struct Level {
    px: Quoted,
    sz: Quoted,
}

/// `{"coin":"BTC","time":...,"levels":[[{"px","sz","n"}, ...bids], [...asks]]}`: both sides may be empty. The REST request
/// of the same name is answered so, too.
pub(super) fn book(data: &str) -> Result<Book, String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        coin: Cow<'a, str>,
        time: i64,
        levels: (Vec<Level>, Vec<Level>),
    }
    let m: Msg = parse(data)?;
    let rows = |side: Vec<Level>| side.into_iter().map(|l| (l.px.0, l.sz.0)).collect();
    Ok(Book {
        symbol: m.coin.as_ref().into(),
        action: BookAction::Snapshot,
        partial: false,
        seq_first: None,
        seq_last: None,
        seq_prev: None,
        bids: rows(m.levels.0),
        asks: rows(m.levels.1),
        unit: SizeUnit::Base,
        checksum: None,
        ts: Some(instant(m.time)),
        event_ts: None,
    })
}

/// `"bbo":[bid, ask]`, null where a side is empty; an ask that is missing altogether was recorded.
fn bbo(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        coin: Cow<'a, str>,
        time: i64,
        bbo: Vec<Option<Level>>,
    }
    let m: Msg = parse(data)?;
    if m.bbo.len() > 2 {
        return Err(format!("best bid and ask of {} elements", m.bbo.len()));
    }
    let side = |n: usize| m.bbo.get(n).and_then(Option::as_ref).map(|l| (l.px.0, l.sz.0));
    out.push(Event::Bbo(Bbo {
        symbol: m.coin.as_ref().into(),
        bid: side(0),
        ask: side(1),
        unit: SizeUnit::Base,
        seq: None,
        ts: Some(instant(m.time)),
        event_ts: None,
    }));
    Ok(())
}

/// A candle, pushed or asked for. The venue repeats the newest one until the next begins and never says that it is closed.
#[derive(Deserialize)]
pub(super) struct CandleRow<'a> {
    #[serde(rename = "t")]
    pub open_ms: i64,
    #[serde(rename = "T")]
    pub close_ms: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    i: String,
    o: Quoted,
    h: Quoted,
    l: Quoted,
    c: Quoted,
    v: Quoted,
    n: u64,
}

impl CandleRow<'_> {
    pub(super) fn bar(self, closed: Option<bool>) -> Bar {
        Bar {
            symbol: self.s.as_ref().into(),
            interval: self.i,
            open_ts: instant(self.open_ms),
            close_ts: Some(instant(self.close_ms)),
            open: self.o.0,
            high: self.h.0,
            low: self.l.0,
            close: self.c.0,
            volume_base: Some(self.v.0),
            volume_quote: None,
            volume: None,
            trades: Some(self.n),
            closed,
            event_ts: None,
        }
    }
}

/// The context of a coin: no time. Spot has neither funding nor an oracle; `midPx` may be null. Funding is of one hour.
fn context(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        coin: Cow<'a, str>,
        ctx: Context,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Context {
        funding: Option<Quoted>,
        open_interest: Option<Quoted>,
        prev_day_px: Option<Quoted>,
        day_ntl_vlm: Option<Quoted>,
        day_base_vlm: Option<Quoted>,
        oracle_px: Option<Quoted>,
        mark_px: Option<Quoted>,
        mid_px: Option<Quoted>,
    }
    let m: Msg = parse(data)?;
    let value = |n: Option<Quoted>| -> Option<Decimal> { n.map(|n| n.0) };
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: m.coin.as_ref().into(),
        mark: value(m.ctx.mark_px),
        mid: value(m.ctx.mid_px),
        oracle: value(m.ctx.oracle_px),
        funding_rate: value(m.ctx.funding),
        open_interest: value(m.ctx.open_interest),
        prev_day: value(m.ctx.prev_day_px),
        volume_base_24h: value(m.ctx.day_base_vlm),
        volume_quote_24h: value(m.ctx.day_ntl_vlm),
        ..Ticker::default()
    })));
    Ok(())
}

/// What is subscribed, as the venue echoes it with members of its own.
#[derive(Deserialize)]
struct Subscription<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    coin: Option<Cow<'a, str>>,
    #[serde(borrow)]
    interval: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
}

impl Subscription<'_> {
    /// As the configuration writes a channel: `BTC@trades`, `BTC@candle.1m`, `allMids`.
    fn topic(&self) -> String {
        let of = self.coin.as_deref().or(self.user.as_deref()).map(|of| format!("{of}@")).unwrap_or_default();
        let interval = self.interval.as_deref().map(|i| format!(".{i}")).unwrap_or_default();
        format!("{of}{}{interval}", self.kind)
    }
}

/// The id of a request: what it asks, and for which channel. The venue's answer repeats both.
pub(super) fn request_id(method: &str, topic: &str) -> String {
    format!("{method} {topic}")
}

fn answer(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        subscription: Subscription<'a>,
    }
    let m: Msg = parse(data)?;
    match m.method.as_ref() {
        "subscribe" | "unsubscribe" => {
            let id = request_id(&m.method, &m.subscription.topic());
            out.push(Event::Control(Control::Ack { id }));
            Ok(())
        }
        other => Err(format!("answer to the method `{other}`")),
    }
}

/// A sentence, often with the refused subscription behind it: `Already subscribed: {"type":"trades","coin":"BTC"}`.
fn error(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let message: String = parse(data)?;
    let asked = message.find('{').and_then(|at| serde_json::from_str::<Subscription>(&message[at..]).ok());
    let method = if message.contains("unsubscribe") { "unsubscribe" } else { "subscribe" };
    let mut id = asked.map(|asked| request_id(method, &asked.topic()));
    // Then it is as it was asked for: nothing is missing.
    if message.starts_with("Already ") {
        out.extend(id.take().map(|id| Event::Control(Control::Ack { id })));
    }
    out.push(Event::Error { code: None, message, id });
    Ok(())
}

/// The answer to a request that was posted on the socket. What it holds is the asker's to read: an order that was refused
/// stands in an answer that went well.
fn post(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        id: u64,
        #[serde(borrow)]
        response: Response<'a>,
    }
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let m: Msg = parse(data)?;
    match m.response.kind.as_ref() {
        "info" | "action" => out.push(Event::Other(format!("answer {}", m.id))),
        "error" => {
            let payload = m.response.payload.get();
            let message = parse::<String>(payload).unwrap_or_else(|_| payload.to_owned());
            out.push(Event::Error { code: None, message, id: Some(m.id.to_string()) });
        }
        other => return Err(format!("answer of type `{other}`")),
    }
    Ok(())
}
