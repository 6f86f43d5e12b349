//! HTX frames: market data, answers, heartbeats and notifications, of spot and of derivatives.
//!
//! `{"ch":"market.btcusdt.trade.detail","ts":1616243199157,"tick":{"id":123140716701,"ts":1616243199156,"data":[...]}}`
//! <https://www.htx.com/en-us/opend/newApiPages/>

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::GzDecoder;
use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use self::notices::{integer, notification, private, refusal};
pub(super) use self::number::{Ms, Num, Sum, unquoted};
use super::{Kind, user};
use crate::event::{Bar, Bbo, Book, Control, Event, Frame, Mark, Symbol, Ticker, Trade};
use crate::text::instant;

mod notices;
mod number;

/// What a packed frame may hold. The largest that were seen are books of 400 levels (some 20 KB) and the list of all
/// tickers (some 200 KB).
const UNPACKED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads one frame of the market.
pub fn decode(kind: Kind, frame: Frame<'_>, out: &mut Vec<Event>) {
    if let Err(why) = text(frame).and_then(|text| read(kind, text.trim(), out)) {
        out.push(Event::Malformed(why));
    }
}

/// What a frame says, unpacked where it is packed.
pub(super) fn text(frame: Frame<'_>) -> Result<Cow<'_, str>, String> {
    match frame {
        Frame::Text(text) => Ok(text.into()),
        Frame::Binary(bytes) => unpack(bytes).map(Cow::Owned),
    }
}

/// The text in a gzip frame: one member, whole, with the right checksum and nothing behind it.
fn unpack(packed: &[u8]) -> Result<String, String> {
    let mut rest = packed;
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a frame at the bound from one above it.
    GzDecoder::new(&mut rest)
        .take(UNPACKED_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("a binary frame that is not gzip: {e}"))?;
    if bytes.len() as u64 > UNPACKED_BYTES_MAX {
        return Err(format!("a gzip frame of more than {UNPACKED_BYTES_MAX} bytes"));
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes behind the end of a gzip frame", rest.len()));
    }
    String::from_utf8(bytes).map_err(|_| "a gzip frame that holds no text".to_owned())
}

/// What a frame may look like, all families together. Members that only some have are read where they are needed.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub ch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ts: Option<&'a RawValue>,
    #[serde(borrow)]
    tick: Option<&'a RawValue>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    #[serde(borrow)]
    ping: Option<&'a RawValue>,
    #[serde(borrow)]
    pong: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// `"ok"` or `"error"` in answers; a number in an order.
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    subbed: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unsubbed: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rep: Option<Cow<'a, str>>,
    #[serde(borrow)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cid: Option<&'a RawValue>,
    #[serde(borrow, rename = "err-code")]
    err_code: Option<&'a RawValue>,
    #[serde(borrow, rename = "err-msg")]
    err_msg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    code: Option<i64>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

impl Message<'_> {
    fn time(&self) -> Result<Nanos, String> {
        self.ts.map(time).transpose()?.ok_or_else(|| "no ts".to_owned())
    }
    /// The id that a request carried.
    fn id(&self) -> Option<String> {
        self.id.or(self.cid).map(|raw| unquoted(raw).to_owned())
    }
}

fn time(raw: &RawValue) -> Result<Nanos, String> {
    parse::<Ms>(raw.get()).map(Ms::at)
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

fn read(kind: Kind, frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let m: Message = parse(frame)?;
    if let Some(number) = m.ping {
        let answer = format!("{{\"pong\":{}}}", integer(number)?);
        out.push(Event::Control(Control::Ping { answer }));
        return Ok(());
    }
    if m.pong.is_some() {
        out.push(Event::Control(Control::Pong));
        return Ok(());
    }
    if let Some(action) = &m.action {
        return private(action, &m, out);
    }
    if let Some(op) = &m.op {
        return notification(kind, op, &m, frame, out);
    }
    if m.status.is_some_and(|s| s.get() == "\"error\"") {
        out.push(refusal(&m));
        return Ok(());
    }
    if let Some(channel) = &m.subbed {
        let id = m.id().unwrap_or_else(|| channel.to_string());
        out.push(Event::Control(Control::Subscribed { id, channels: vec![channel.to_string()] }));
        return Ok(());
    }
    if let Some(channel) = &m.unsubbed {
        let id = m.id().unwrap_or_else(|| channel.to_string());
        out.push(Event::Control(Control::Ack { id }));
        return Ok(());
    }
    if let (Some(channel), Some(data)) = (&m.rep, m.data) {
        let id = m.id().unwrap_or_else(|| channel.to_string());
        out.push(Event::Control(Control::Ack { id }));
        return reply(kind, channel, m.time()?, data.get(), out);
    }
    match (&m.ch, m.tick) {
        (Some(channel), Some(tick)) => market(kind, channel, m.time()?, tick.get(), out),
        (Some(channel), None) if *channel == "market.tickers" => {
            parse::<IgnoredAny>(m.data.ok_or("tickers without data")?.get())?;
            out.push(Event::Other(channel.to_string()));
            Ok(())
        }
        (Some(channel), None) if !channel.starts_with("market.") => user::spot(channel, &m, out),
        _ => Err("neither data nor an answer".to_owned()),
    }
}

/// Sizes: coins on spot, contracts on derivatives.
pub(super) fn unit(kind: Kind) -> SizeUnit {
    if kind.is_swap() { SizeUnit::Contracts } else { SizeUnit::Base }
}

/// `market.<symbol>.<what>`: symbol and what.
fn of_market(channel: &str) -> Result<(&str, &str), String> {
    let unknown = || format!("unknown channel `{channel}`");
    channel.strip_prefix("market.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)
}

fn market(kind: Kind, channel: &str, at: Nanos, tick: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let (symbol, what) = of_market(channel)?;
    let parts: Vec<&str> = what.split('.').collect();
    match parts[..] {
        ["trade", "detail"] => trades(kind, symbol, Some(at), tick, out),
        ["mbp", "refresh", _] => book(kind, symbol, at, tick, Form::Top, out),
        ["mbp", _] => book(kind, symbol, at, tick, Form::Changes, out),
        ["depth", _, "high_freq"] => book(kind, symbol, at, tick, Form::Told, out),
        ["depth", "step0"] => book(kind, symbol, at, tick, Form::Whole, out),
        // Levels that are gathered, or fewer: a view of the book, not the book.
        ["depth", step] if step.starts_with("step") => book(kind, symbol, at, tick, Form::Top, out),
        ["bbo"] => bbo(kind, symbol, at, tick, out),
        ["detail"] => detail(kind, symbol, at, tick, out),
        ["kline", interval] => {
            let row: Kline = parse(tick)?;
            out.push(Event::Bar(Box::new(row.bar(kind, symbol, interval, Some(at)))));
            Ok(())
        }
        // A bar of the index or mark price: its close is the newest one.
        ["index", _] => {
            let price = parse::<Close>(tick)?.close.0;
            out.push(Event::Index { symbol: symbol.into(), price, ts: at });
            Ok(())
        }
        ["mark_price", _] => {
            let mark = parse::<Close>(tick)?.close.0;
            let symbol = symbol.into();
            out.push(Event::Mark(Mark { symbol, mark, index: None, funding_rate: None, next_funding: None, ts: at }));
            Ok(())
        }
        ["premium_index" | "estimated_rate", _] | ["basis", _, _] => {
            parse::<IgnoredAny>(tick)?;
            out.push(Event::Other(channel.to_owned()));
            Ok(())
        }
        _ => Err(format!("unknown channel `{channel}`")),
    }
}

/// The answer to `{"req":<channel>}`: history, or the book that changes are applied to.
fn reply(kind: Kind, channel: &str, at: Nanos, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let (symbol, what) = of_market(channel)?;
    let parts: Vec<&str> = what.split('.').collect();
    match parts[..] {
        ["mbp", _] | ["depth", "step0"] => book(kind, symbol, at, data, Form::Whole, out),
        ["kline", interval] => {
            for row in parse::<Vec<Kline>>(data)? {
                out.push(Event::Bar(Box::new(row.bar(kind, symbol, interval, None))));
            }
            Ok(())
        }
        ["trade", "detail"] => {
            for row in parse::<Vec<TradeRow>>(data)? {
                out.push(row.event(kind, symbol, None, true)?);
            }
            Ok(())
        }
        ["bbo" | "detail"] | ["depth", _] => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(format!("answer {channel}")));
            Ok(())
        }
        _ => Err(format!("unknown channel `{channel}`")),
    }
}

/// One row of the tape. The `id` has up to 28 digits on spot, where `tradeId` stands beside it; an answer over REST
/// prints it as a float.
#[derive(Deserialize)]
pub(super) struct TradeRow<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(rename = "tradeId", alias = "trade-id")]
    trade_id: Option<u64>,
    ts: i64,
    amount: Num,
    price: Num,
    #[serde(borrow)]
    direction: Cow<'a, str>,
}

impl TradeRow<'_> {
    pub(super) fn event(self, kind: Kind, symbol: &str, at: Option<Nanos>, backfill: bool) -> Result<Event, String> {
        let text = unquoted(self.id);
        let (id, venue_id) = match self.trade_id {
            Some(id) => (id, None),
            None if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(format!("trade id `{text}`"));
            }
            // What 64 bits do not hold only tells trades apart.
            None => text.parse().map_or_else(|_| (0, Some(Symbol::from(text))), |id| (id, None)),
        };
        let side = match self.direction.as_ref() {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            // Recorded on derivatives. Whose trade it was is not known, and a guess would be traded on.
            "" if kind.is_swap() => {
                let reason = format!("trade {text} without a direction");
                return Ok(Event::Ignored { reason, trade: Some((symbol.into(), id)) });
            }
            other => return Err(format!("trade {text} has direction `{other}`")),
        };
        Ok(Event::Trade(Trade {
            symbol: symbol.into(),
            id,
            venue_id,
            price: self.price.0,
            size: one_sided(kind, self.amount.0),
            unit: unit(kind),
            side,
            ts: instant(self.ts),
            event_ts: at,
            aggregate: None,
            backfill,
            extra: None,
        }))
    }
}

/// Derivatives count the buyer's and the seller's contracts: every recorded amount is even.
fn one_sided(kind: Kind, amount: Decimal) -> Decimal {
    if kind.is_swap() { (amount / Decimal::TWO).normalize() } else { amount }
}

/// Rows as the venue orders them: newest first where it sends several at once.
fn trades(kind: Kind, symbol: &str, at: Option<Nanos>, tick: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Tick<'a> {
        #[serde(borrow)]
        data: Vec<TradeRow<'a>>,
    }
    for row in parse::<Tick>(tick)?.data {
        out.push(row.event(kind, symbol, at, false)?);
    }
    Ok(())
}

/// What a book message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The whole book.
    Whole,
    /// Only its top, or levels that are gathered.
    Top,
    /// What changed.
    Changes,
    /// Its `event` tells.
    Told,
}

type Levels = Vec<(Num, Num)>;

/// Spot numbers `mbp` by `seqNum` and `prevSeqNum`, everything else has a `version`. A side may be absent or null: then
/// nothing of it changed, or it is empty.
fn book(kind: Kind, symbol: &str, at: Nanos, tick: &str, form: Form, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Tick<'a> {
        #[serde(rename = "seqNum")]
        number: Option<u64>,
        #[serde(rename = "prevSeqNum")]
        previous: Option<u64>,
        version: Option<u64>,
        ts: Option<i64>,
        #[serde(borrow)]
        event: Option<Cow<'a, str>>,
        bids: Option<Levels>,
        asks: Option<Levels>,
    }
    let levels = |rows: Option<Levels>| rows.unwrap_or_default().into_iter().map(|(p, q)| (p.0, q.0)).collect();
    let t: Tick = parse(tick)?;
    let action = match (form, t.event.as_deref()) {
        (Form::Changes, _) | (Form::Told, Some("update")) => BookAction::Update,
        (Form::Whole | Form::Top, _) | (Form::Told, Some("snapshot")) => BookAction::Snapshot,
        (Form::Told, Some(other)) => return Err(format!("book event `{other}`")),
        (Form::Told, None) => return Err("a book message without its event".to_owned()),
    };
    if form == Form::Changes && t.previous.is_none() {
        return Err("changes without prevSeqNum".to_owned());
    }
    let Some(number) = t.number.or(t.version) else {
        return Err("a book message without its number".to_owned());
    };
    out.push(Event::Book(Book {
        symbol: symbol.into(),
        action,
        partial: form == Form::Top,
        seq_first: None,
        seq_last: Some(number),
        seq_prev: t.previous,
        bids: levels(t.bids),
        asks: levels(t.asks),
        unit: unit(kind),
        checksum: None,
        ts: Some(t.ts.map_or(at, instant)),
        event_ts: Some(at),
    }));
    Ok(())
}

fn bbo(kind: Kind, symbol: &str, at: Nanos, tick: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Spot {
        #[serde(rename = "seqId")]
        number: Option<u64>,
        bid: Option<Num>,
        #[serde(rename = "bidSize")]
        bid_size: Option<Num>,
        ask: Option<Num>,
        #[serde(rename = "askSize")]
        ask_size: Option<Num>,
        #[serde(rename = "quoteTime")]
        ts: i64,
    }
    #[derive(Deserialize)]
    struct Swap {
        version: u64,
        ts: i64,
        bid: Option<(Num, Num)>,
        ask: Option<(Num, Num)>,
    }
    let pair = |price: Option<Num>, size: Option<Num>| price.zip(size).map(|(p, q)| (p.0, q.0));
    let (bid, ask, seq, ts) = if kind.is_swap() {
        let t: Swap = parse(tick)?;
        (t.bid.map(|(p, q)| (p.0, q.0)), t.ask.map(|(p, q)| (p.0, q.0)), Some(t.version), t.ts)
    } else {
        let t: Spot = parse(tick)?;
        (pair(t.bid, t.bid_size), pair(t.ask, t.ask_size), t.number, t.ts)
    };
    out.push(Event::Bbo(Bbo {
        symbol: symbol.into(),
        bid,
        ask,
        unit: unit(kind),
        seq,
        ts: Some(instant(ts)),
        event_ts: Some(at),
    }));
    Ok(())
}

/// The last 24 hours. On spot `amount` is coins and `vol` money; on derivatives `vol` is contracts, `amount` coins and
/// `trade_turnover` money, each of both sides.
fn detail(kind: Kind, symbol: &str, at: Nanos, tick: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Tick {
        open: Num,
        high: Num,
        low: Num,
        close: Num,
        amount: Sum,
        vol: Sum,
        trade_turnover: Option<Sum>,
        bid: Option<(Num, Num)>,
        ask: Option<(Num, Num)>,
    }
    let t: Tick = parse(tick)?;
    let half = |sum: Sum| one_sided(kind, sum.value);
    let mut ticker = Ticker {
        symbol: symbol.into(),
        ts: Some(at),
        last: Some(t.close.0),
        open_24h: Some(t.open.0),
        high_24h: Some(t.high.0),
        low_24h: Some(t.low.0),
        bid: t.bid.map(|(price, _)| price.0),
        bid_size: t.bid.map(|(_, size)| size.0),
        ask: t.ask.map(|(price, _)| price.0),
        ask_size: t.ask.map(|(_, size)| size.0),
        ..Ticker::default()
    };
    if kind.is_swap() {
        ticker.volume_24h = Some(half(t.vol));
        ticker.volume_quote_24h = t.trade_turnover.map(half);
    } else {
        ticker.volume_quote_24h = Some(t.vol.value);
        ticker.volume_base_24h_text = t.amount.text.clone();
    }
    ticker.volume_base_24h = Some(half(t.amount));
    out.push(Event::Ticker(Box::new(ticker)));
    Ok(())
}

/// A bar; `id` is its open in seconds. Nothing says whether it is closed: it is when the next one appears.
#[derive(Deserialize)]
pub(super) struct Kline {
    id: i64,
    open: Num,
    high: Num,
    low: Num,
    close: Num,
    amount: Sum,
    vol: Sum,
    count: Option<Num>,
    trade_turnover: Option<Sum>,
}

impl Kline {
    pub(super) fn open_ts(&self) -> Nanos {
        Nanos(self.id.saturating_mul(Nanos::PER_SECOND))
    }

    pub(super) fn bar(self, kind: Kind, symbol: &str, interval: &str, at: Option<Nanos>) -> Bar {
        let half = |sum: Sum| one_sided(kind, sum.value);
        let open_ts = self.open_ts();
        let (volume, volume_quote) = if kind.is_swap() {
            (Some(half(self.vol)), self.trade_turnover.map(half))
        } else {
            (None, Some(self.vol.value))
        };
        Bar {
            symbol: symbol.into(),
            interval: interval.to_owned(),
            open_ts,
            close_ts: None,
            open: self.open.0,
            high: self.high.0,
            low: self.low.0,
            close: self.close.0,
            volume_base: Some(half(self.amount)),
            volume_quote,
            volume,
            trades: self.count.and_then(|n| u64::try_from(n.0).ok()),
            closed: None,
            event_ts: at,
        }
    }
}

/// What counts of a bar of an index: its newest price.
#[derive(Deserialize)]
struct Close {
    close: Num,
}

pub(super) fn side(word: &str) -> Result<Side, String> {
    match word {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(format!("direction `{other}`")),
    }
}

/// What a derivative order does to a position; `both` where an account holds one direction only.
pub(super) fn offset(word: &str) -> Result<String, String> {
    match word {
        "open" | "close" | "both" => Ok(word.to_owned()),
        other => Err(format!("offset `{other}`")),
    }
}

#[cfg(test)]
mod tests;
