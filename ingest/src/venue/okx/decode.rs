//! OKX v5 frames: channel data, acknowledgements, notices.
//!
//! `{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"674510827","px":"95635.3",
//! "sz":"0.00011194","side":"sell","ts":"1740394561686","count":"1"}]}`
//! All numbers are texts. <https://www.okx.com/docs-v5/en/>

use std::borrow::Cow;

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Nanos, Side};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};
use serde_json::value::RawValue;

use super::depth::{best, books};
use super::{status, user};
use crate::event::{Bar, Control, Event, Frame, Funding, Liquidation, Mark, Symbol, Ticker, Trade};
use crate::text::{MaybeQuoted, Quoted, decimal, instant};

/// What both ends send as bare text when nothing else is sent.
pub(super) const PING: &str = "ping";
const PONG: &str = "pong";
/// The notice that the server will close the connection for an upgrade.
const SERVICE_UPGRADE: &str = "64008";
/// Trade ids that one row may stand for; of a row of more than these they are told as a hole, which is then asked for.
const MERGED_MAX: u64 = 1000;

/// Channels that are known and have no normalised form.
const UNMAPPED: &[&str] = &[
    "instruments",
    "estimated-price",
    "price-limit",
    "opt-summary",
    "option-trades",
    "adl-warning",
    "economic-calendar",
    "call-auction-details",
    "block-tickers",
    "public-block-trades",
    "public-struc-block-trades",
];

/// Widths of candles; those from six hours on also come as `...utc`, without it they begin at 16:00 UTC.
const WIDTHS: &[&str] =
    &["1s", "1m", "3m", "5m", "15m", "30m", "1H", "2H", "4H", "6H", "12H", "1D", "2D", "3D", "5D", "1W", "1M", "3M"];

/// The width that a candle channel names.
pub(super) fn width(channel: &str) -> Option<&str> {
    let width = channel.strip_prefix("candle")?;
    WIDTHS.contains(&width.strip_suffix("utc").unwrap_or(width)).then_some(width)
}

#[derive(Deserialize)]
struct Message<'a> {
    event: Option<&'a str>,
    #[serde(borrow)]
    arg: Option<Arg<'a>>,
    action: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    op: Option<&'a str>,
    code: Option<&'a str>,
    #[serde(borrow)]
    msg: Option<Cow<'a, str>>,
}

/// What a channel is of: at most one of these beside its name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg<'a> {
    channel: &'a str,
    inst_id: Option<&'a str>,
    inst_family: Option<&'a str>,
    uly: Option<&'a str>,
    inst_type: Option<&'a str>,
}

impl Arg<'_> {
    /// `books:BTC-USDT`, as the configuration writes it.
    fn topic(&self) -> String {
        match self.inst_id.or(self.inst_family).or(self.uly).or(self.inst_type) {
            Some(of) => format!("{}:{of}", self.channel),
            None => self.channel.to_owned(),
        }
    }
}

/// Milliseconds since 1970, as text.
#[derive(Clone, Copy)]
pub(super) struct Stamp(pub Nanos);

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        stamp(<&str>::deserialize(d)?).map(Self).map_err(D::Error::custom)
    }
}

pub(super) fn stamp(text: &str) -> Result<Nanos, String> {
    match text.parse() {
        Ok(ms) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(instant(ms)),
        _ => Err(format!("time `{text}`")),
    }
}

/// A time that may be empty.
pub(super) fn maybe_stamp(text: Option<&str>) -> Result<Option<Nanos>, String> {
    text.filter(|t| !t.is_empty()).map(stamp).transpose()
}

/// Reads one frame.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) {
    if let Err(why) = frame.text().and_then(|text| read(text, out)) {
        out.push(Event::Malformed(why));
    }
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

pub(super) fn side(word: &str) -> Result<Side, String> {
    match word {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(format!("side `{other}`")),
    }
}

/// Pairs are spot and count coins; whatever has a third part is a contract and counts contracts.
pub(super) fn size_unit(symbol: &str) -> SizeUnit {
    if symbol.bytes().filter(|b| *b == b'-').count() < 2 { SizeUnit::Base } else { SizeUnit::Contracts }
}

fn read(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    if frame == PONG {
        out.push(Event::Control(Control::Pong));
        return Ok(());
    }
    let m: Message = parse(frame)?;
    if let Some(event) = m.event {
        out.push(said(event, &m)?);
        return Ok(());
    }
    match (&m.arg, m.data, m.op) {
        (Some(arg), Some(data), None) => channel(arg, m.action, data.get(), out),
        (None, _, Some(op)) => user::answer(op, m.id.as_deref(), m.code, m.msg.as_deref(), out),
        _ => Err("neither channel data nor an answer".to_owned()),
    }
}

/// What the venue says about the connection.
fn said(event: &str, m: &Message) -> Result<Event, String> {
    let topic = || m.arg.as_ref().map(Arg::topic).ok_or(format!("{event} without an argument"));
    Ok(match event {
        // One for each argument of a request, so that the request's own id would not tell them apart.
        "subscribe" => Event::Control(Control::Ack { id: topic()? }),
        "unsubscribe" => Event::Control(Control::Ack { id: unsubscribed(&topic()?) }),
        "login" => Event::Control(Control::Ack { id: "login".to_owned() }),
        "error" => {
            let message = m.msg.as_deref().unwrap_or_default().to_owned();
            // The text names the channel that was refused; the id is that of a whole request.
            let id = refused_topic(&message).or_else(|| m.id.as_deref().map(str::to_owned));
            Event::Error { code: m.code.and_then(|code| code.parse().ok()), message, id }
        }
        "notice" if m.code == Some(SERVICE_UPGRADE) => Event::Control(Control::ServerShutdown),
        "notice" => Event::Other(format!("notice {}", m.code.unwrap_or_default())),
        "channel-conn-count" | "channel-conn-count-error" => Event::Other(event.to_owned()),
        other => return Err(format!("unknown event `{other}`")),
    })
}

/// How the acknowledgement of an unsubscription is told from that of a subscription to the same channel.
pub(super) fn unsubscribed(topic: &str) -> String {
    format!("unsubscribe {topic}")
}

/// The topic in `Wrong URL or channel:candle1m,instId:BTC-USD-SWAP doesn't exist. ...`
fn refused_topic(message: &str) -> Option<String> {
    let named = message.split_once("channel:")?.1.split_once(" doesn't exist")?.0;
    match named.split_once(',') {
        Some((channel, of)) => Some(format!("{channel}:{}", of.split_once(':')?.1)),
        None => Some(named.to_owned()),
    }
}

fn channel(arg: &Arg, action: Option<&str>, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let named = || arg.inst_id.map(Symbol::from).ok_or(format!("channel `{}` without an instrument", arg.channel));
    match arg.channel {
        "trades" | "trades-all" => trades(data, out),
        "books" | "books-l2-tbt" | "books50-l2-tbt" => {
            let action = match action {
                Some("snapshot") => BookAction::Snapshot,
                Some("update") => BookAction::Update,
                other => return Err(format!("book message with action `{}`", other.unwrap_or_default())),
            };
            books(&named()?, action, false, data, out)
        }
        "books5" => books(&named()?, BookAction::Snapshot, true, data, out),
        "bbo-tbt" => best(&named()?, data, out),
        "tickers" => tickers(data, out),
        "mark-price" => mark_price(data, out),
        "index-tickers" => index_tickers(data, out),
        "funding-rate" => funding_rate(data, out),
        "open-interest" => open_interest(data, out),
        "liquidation-orders" => liquidations(data, out),
        "status" => status::statuses(data, out),
        name if name.starts_with("index-candle") || name.starts_with("mark-price-candle") => other(name, data, out),
        name if UNMAPPED.contains(&name) => other(name, data, out),
        name => match width(name) {
            Some(width) => candles(&named()?, width, data, out),
            None => user::channel(name, data, out),
        },
    }
}

/// A known channel without a normalised form.
pub(super) fn other(name: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    parse::<IgnoredAny>(data)?;
    out.push(Event::Other(name.to_owned()));
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TradeRow<'a> {
    inst_id: &'a str,
    trade_id: &'a str,
    px: Quoted,
    sz: Quoted,
    side: &'a str,
    ts: Stamp,
    /// Fills of one order at one price that this row sums up; only on `trades`.
    count: Option<&'a str>,
}

impl TradeRow<'_> {
    /// The trade, and how many ids it stands for.
    pub fn trade(&self) -> Result<(Trade, u64), String> {
        let id = self.trade_id.parse().map_err(|_| format!("trade id `{}`", self.trade_id))?;
        let count = match self.count {
            Some(count) => count.parse().map_err(|_| format!("trade {id} has count `{count}`"))?,
            None => 1,
        };
        let trade = Trade {
            symbol: self.inst_id.into(),
            id,
            venue_id: None,
            price: self.px.0,
            size: self.sz.0,
            unit: size_unit(self.inst_id),
            side: side(self.side).map_err(|why| format!("trade {id} has {why}"))?,
            ts: self.ts.0,
            event_ts: None,
            aggregate: None,
            backfill: false,
            extra: None,
        };
        Ok((trade, count))
    }
}

/// A row of several fills carries the id of the last; the others are told as used up, so that they are no hole.
fn trades(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    for row in parse::<Vec<TradeRow>>(data)? {
        let (trade, count) = row.trade()?;
        let merged = count.saturating_sub(1);
        if merged < MERGED_MAX {
            out.extend((trade.id.saturating_sub(merged)..trade.id).map(|id| Event::Ignored {
                reason: format!("fill {id} is part of trade {}", trade.id),
                trade: Some((trade.symbol.clone(), id)),
            }));
        }
        out.push(Event::Trade(trade));
    }
    Ok(())
}

fn tickers(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        last: MaybeQuoted,
        ask_px: MaybeQuoted,
        ask_sz: MaybeQuoted,
        bid_px: MaybeQuoted,
        bid_sz: MaybeQuoted,
        open24h: MaybeQuoted,
        high24h: MaybeQuoted,
        low24h: MaybeQuoted,
        vol24h: MaybeQuoted,
        vol_ccy24h: MaybeQuoted,
        ts: Stamp,
    }
    for row in parse::<Vec<Row>>(data)? {
        // `vol24h` counts coins on spot and contracts elsewhere, `volCcy24h` quote currency on spot and coins elsewhere.
        let (base, quote) = match size_unit(row.inst_id) {
            SizeUnit::Base => (row.vol24h.0, row.vol_ccy24h.0),
            SizeUnit::Contracts | SizeUnit::QuoteUsd => (row.vol_ccy24h.0, None),
        };
        out.push(Event::Ticker(Box::new(Ticker {
            symbol: row.inst_id.into(),
            ts: Some(row.ts.0),
            last: row.last.0,
            open_24h: row.open24h.0,
            high_24h: row.high24h.0,
            low_24h: row.low24h.0,
            volume_24h: row.vol24h.0,
            volume_base_24h: base,
            volume_quote_24h: quote,
            bid: row.bid_px.0,
            bid_size: row.bid_sz.0,
            ask: row.ask_px.0,
            ask_size: row.ask_sz.0,
            ..Ticker::default()
        })));
    }
    Ok(())
}

fn candles(symbol: &Symbol, width: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    for row in parse::<Vec<Vec<&str>>>(data)? {
        out.push(Event::Bar(Box::new(candle(symbol, width, &row)?)));
    }
    Ok(())
}

/// Open time, open, high, low, close, volume (contracts, or coins on spot), volume in coins (quote currency on spot); since
/// 2023 also volume in quote currency and whether the candle is closed.
pub(super) fn candle(symbol: &str, width: &str, row: &[&str]) -> Result<Bar, String> {
    let (fixed, rest) = match row {
        [fixed @ .., quote, confirm] if row.len() == 9 => (fixed, Some((*quote, *confirm))),
        fixed => (fixed, None),
    };
    let [ts, open, high, low, close, volume, volume_ccy] = fixed else {
        return Err(format!("candle of {} values", row.len()));
    };
    let number = |text: &str| decimal(text).map_err(|e| e.to_string());
    let (volume, ccy) = (number(volume)?, number(volume_ccy)?);
    let quote = rest.map(|(quote, _)| number(quote)).transpose()?;
    let closed = match rest {
        Some((_, "1")) => Some(true),
        Some((_, "0")) => Some(false),
        Some((_, other)) => return Err(format!("candle with confirm `{other}`")),
        None => None,
    };
    let (base, quote) = match size_unit(symbol) {
        SizeUnit::Base => (volume, Some(quote.unwrap_or(ccy))),
        SizeUnit::Contracts | SizeUnit::QuoteUsd => (ccy, quote),
    };
    Ok(Bar {
        symbol: symbol.into(),
        interval: width.to_owned(),
        open_ts: stamp(ts)?,
        close_ts: None,
        open: number(open)?,
        high: number(high)?,
        low: number(low)?,
        close: number(close)?,
        volume_base: Some(base),
        volume_quote: quote,
        volume: Some(volume),
        trades: None,
        closed,
        event_ts: None,
    })
}

fn mark_price(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        mark_px: Quoted,
        ts: Stamp,
    }
    out.extend(parse::<Vec<Row>>(data)?.into_iter().map(|row| {
        Event::Mark(Mark {
            symbol: row.inst_id.into(),
            mark: row.mark_px.0,
            index: None,
            funding_rate: None,
            next_funding: None,
            ts: row.ts.0,
        })
    }));
    Ok(())
}

fn index_tickers(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        idx_px: Quoted,
        ts: Stamp,
    }
    out.extend(parse::<Vec<Row>>(data)?.into_iter().map(|row| Event::Index {
        symbol: row.inst_id.into(),
        price: row.idx_px.0,
        ts: row.ts.0,
    }));
    Ok(())
}

fn funding_rate(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        #[serde(default)]
        funding_rate: MaybeQuoted,
        funding_time: Option<&'a str>,
        #[serde(default)]
        next_funding_rate: MaybeQuoted,
        next_funding_time: Option<&'a str>,
        /// Absent before 2023.
        ts: Option<Stamp>,
    }
    for row in parse::<Vec<Row>>(data)? {
        let (symbol, due) = (Symbol::from(row.inst_id), maybe_stamp(row.funding_time)?);
        let (rate, next_rate) = (row.funding_rate.0, row.next_funding_rate.0);
        out.push(match (rate, row.ts) {
            (Some(rate), Some(ts)) => {
                let next_due = maybe_stamp(row.next_funding_time)?;
                Event::Funding(Box::new(Funding { symbol, rate, due, next_rate, next_due, ts: ts.0 }))
            }
            (rate, _) => Event::FundingOutlook { symbol, rate, due, next_rate },
        });
    }
    Ok(())
}

fn open_interest(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        oi: Quoted,
        oi_ccy: Quoted,
        ts: Stamp,
    }
    out.extend(parse::<Vec<Row>>(data)?.into_iter().map(|row| Event::OpenInterest {
        symbol: row.inst_id.into(),
        size: row.oi.0,
        coins: Some(row.oi_ccy.0),
        ts: row.ts.0,
    }));
    Ok(())
}

fn liquidations(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row<'a> {
        inst_id: &'a str,
        #[serde(borrow)]
        details: Vec<Detail<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detail<'a> {
        /// The price at which the position is worth nothing.
        bk_px: Quoted,
        sz: Quoted,
        side: &'a str,
        pos_side: &'a str,
        ts: Stamp,
    }
    for row in parse::<Vec<Row>>(data)? {
        for detail in row.details {
            out.push(Event::Liquidation(Box::new(Liquidation {
                symbol: row.inst_id.into(),
                side: side(detail.side)?,
                price: detail.bk_px.0,
                avg_price: None,
                size: detail.sz.0,
                unit: size_unit(row.inst_id),
                filled: None,
                status: None,
                // One-way positions say nothing.
                pos_side: Some(detail.pos_side.to_owned()).filter(|side| !side.is_empty()),
                offset: None,
                ts: detail.ts.0,
            })));
        }
    }
    Ok(())
}
