//! Advanced Trade frames: an envelope with the connection's sequence number around a list of events.
//!
//! `{"channel":"market_trades","timestamp":"...Z","sequence_num":39,"events":[{"type":"update","trades":[...]}]}`
//! <https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels>

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemas::Nanos;
use schemas::raw::BookAction;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::decode::{level, parse, state, taker, time, unit};
use super::user;
use crate::event::{Bar, Book, Control, Event, Frame, Ticker, Trade};
use crate::status::{Of, Status};
use crate::text::{MaybeQuoted, Quoted, rfc3339};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    sequence_num: Option<u64>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    /// Refusals have this and `message` alone.
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    message: Option<String>,
}

/// Reads one frame. Returns its number within the connection, which every message but a refusal carries.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) -> Option<u64> {
    let mut sequence = None;
    if let Err(why) = frame.text().and_then(|text| read(text, &mut sequence, out)) {
        out.push(Event::Malformed(why));
    }
    sequence
}

fn read(text: &str, sequence: &mut Option<u64>, out: &mut Vec<Event>) -> Result<(), String> {
    let f: Envelope = parse(text)?;
    *sequence = f.sequence_num;
    match (f.kind.as_deref(), f.message) {
        (Some("error"), Some(message)) => {
            out.push(Event::Error { code: None, message, id: None });
            return Ok(());
        }
        (Some(other), _) => return Err(format!("message of type `{other}`")),
        (None, _) => {}
    }
    let (Some(channel), Some(at), Some(events)) = (f.channel, f.timestamp, f.events) else {
        return Err("neither data nor an answer".to_owned());
    };
    let (at, events) = (rfc3339(&at)?, events.get());
    match channel.as_ref() {
        "l2_data" => books(events, at, out),
        "market_trades" => trades(events, at, out),
        "ticker" | "ticker_batch" => tickers(events, at, out),
        "candles" => candles(events, at, out),
        "subscriptions" => subscriptions(events, out),
        "heartbeats" => {
            parse::<IgnoredAny>(events)?;
            out.push(Event::Control(Control::Heartbeat));
            Ok(())
        }
        "user" => user::orders(events, at, out),
        "futures_balance_summary" => user::futures_balance(events, at, out),
        "status" => statuses(events, at, out),
        other => Err(format!("unknown channel `{other}`")),
    }
}

/// Whether a product is traded; what else it is comes by REST, where it is told whole.
fn statuses(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        products: Vec<Product<'a>>,
    }
    #[derive(Deserialize)]
    struct Product<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        status: Cow<'a, str>,
        status_message: Option<String>,
    }
    for m in parse::<Vec<Msg>>(events)? {
        is_snapshot(&m.kind)?;
        for p in m.products {
            let state = state(&p.status).map_err(|why| format!("product {} has {why}", p.id))?;
            out.push(Event::Status(Box::new(Status {
                of: Of::Symbol(p.id.into()),
                state,
                word: p.status.into_owned(),
                text: p.status_message.unwrap_or_default(),
                from: None,
                to: None,
                ts: Some(at),
            })));
        }
    }
    Ok(())
}

/// `snapshot` is what was before; `update` is what happened.
pub(super) fn is_snapshot(word: &str) -> Result<bool, String> {
    match word {
        "snapshot" => Ok(true),
        "update" => Ok(false),
        other => Err(format!("event of type `{other}`")),
    }
}

/// Each event is one product's. Levels come in no order, and those that never changed have a time of 1970: the newest
/// time of the levels is the message's.
fn books(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        product_id: Cow<'a, str>,
        #[serde(borrow)]
        updates: Vec<Level<'a>>,
    }
    #[derive(Deserialize)]
    struct Level<'a> {
        #[serde(borrow)]
        side: Cow<'a, str>,
        #[serde(borrow)]
        event_time: Cow<'a, str>,
        price_level: Quoted,
        new_quantity: Quoted,
    }
    for m in parse::<Vec<Msg>>(events)? {
        let action = if is_snapshot(&m.kind)? { BookAction::Snapshot } else { BookAction::Update };
        let (mut bids, mut asks, mut newest) = (Vec::new(), Vec::new(), None);
        // The levels of an update share their time: it is read once.
        let mut last: Option<&str> = None;
        for row in &m.updates {
            if last != Some(&row.event_time) {
                newest = newest.max(time(&row.event_time)?.filter(|ts| ts.0 > 0));
                last = Some(&row.event_time);
            }
            let level = level(row.price_level, row.new_quantity)?;
            match row.side.as_ref() {
                "bid" => bids.push(level),
                "offer" => asks.push(level),
                other => return Err(format!("level with side `{other}`")),
            }
        }
        out.push(Event::Book(Book {
            unit: unit(&m.product_id),
            symbol: m.product_id.into(),
            action,
            partial: false,
            seq_first: None,
            seq_last: None,
            seq_prev: None,
            bids,
            asks,
            checksum: None,
            ts: newest,
            event_ts: Some(at),
        }));
    }
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct TradeRow<'a> {
    #[serde(borrow)]
    product_id: Cow<'a, str>,
    #[serde(borrow)]
    trade_id: Cow<'a, str>,
    price: Quoted,
    size: Quoted,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    side: Cow<'a, str>,
}

impl TradeRow<'_> {
    pub fn trade(self, event_ts: Option<Nanos>, backfill: bool) -> Result<Trade, String> {
        let id = self.trade_id.as_ref();
        Ok(Trade {
            id: id.parse().map_err(|_| format!("trade id `{id}`"))?,
            venue_id: None,
            price: self.price.0,
            size: self.size.0,
            unit: unit(&self.product_id),
            side: taker(&self.side).map_err(|why| format!("trade {id} has {why}"))?,
            ts: rfc3339(&self.time)?,
            event_ts,
            aggregate: None,
            backfill,
            extra: None,
            symbol: self.product_id.into(),
        })
    }
}

/// In the order of the message, which may be newest first. What comes as a snapshot happened before the subscription.
fn trades(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        trades: Vec<TradeRow<'a>>,
    }
    for m in parse::<Vec<Msg>>(events)? {
        let before = is_snapshot(&m.kind)?;
        for row in m.trades {
            out.push(Event::Trade(row.trade(Some(at), before)?));
        }
    }
    Ok(())
}

/// `ticker_batch` is the same every five seconds, without the best bid and ask.
fn tickers(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "type")]
        kind: String,
        tickers: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        product_id: String,
        price: Quoted,
        volume_24_h: MaybeQuoted,
        low_24_h: MaybeQuoted,
        high_24_h: MaybeQuoted,
        #[serde(default)]
        best_bid: MaybeQuoted,
        #[serde(default)]
        best_bid_quantity: MaybeQuoted,
        #[serde(default)]
        best_ask: MaybeQuoted,
        #[serde(default)]
        best_ask_quantity: MaybeQuoted,
    }
    for m in parse::<Vec<Msg>>(events)? {
        is_snapshot(&m.kind)?;
        for row in m.tickers {
            out.push(Event::Ticker(Box::new(Ticker {
                symbol: row.product_id.into(),
                ts: Some(at),
                last: Some(row.price.0),
                high_24h: row.high_24_h.0,
                low_24h: row.low_24_h.0,
                volume_base_24h: row.volume_24_h.0,
                bid: row.best_bid.0,
                bid_size: row.best_bid_quantity.0,
                ask: row.best_ask.0,
                ask_size: row.best_ask_quantity.0,
                ..Ticker::default()
            })));
        }
    }
    Ok(())
}

/// Candles of five minutes; there are no others on the socket.
fn candles(events: &str, at: Nanos, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        #[serde(rename = "type")]
        kind: String,
        candles: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        product_id: String,
        #[serde(flatten)]
        candle: Candle,
    }
    for m in parse::<Vec<Msg>>(events)? {
        is_snapshot(&m.kind)?;
        for row in m.candles {
            let mut bar = row.candle.bar(&row.product_id, "5m")?;
            bar.event_ts = Some(at);
            out.push(Event::Bar(Box::new(bar)));
        }
    }
    Ok(())
}

/// A candle as the socket and REST write it.
#[derive(Deserialize)]
pub(super) struct Candle {
    /// Seconds.
    start: String,
    open: Quoted,
    high: Quoted,
    low: Quoted,
    close: Quoted,
    volume: Quoted,
}

impl Candle {
    pub fn bar(self, symbol: &str, interval: &str) -> Result<Bar, String> {
        let start = self.start.parse::<i64>().ok().and_then(|s| s.checked_mul(Nanos::PER_SECOND));
        Ok(Bar {
            symbol: symbol.into(),
            interval: interval.to_owned(),
            open_ts: Nanos(start.ok_or_else(|| format!("candle starts at `{}`", self.start))?),
            close_ts: None,
            open: self.open.0,
            high: self.high.0,
            low: self.low.0,
            close: self.close.0,
            volume_base: Some(self.volume.0),
            volume_quote: None,
            volume: None,
            trades: None,
            closed: None,
            event_ts: None,
        })
    }
}

/// Everything that is subscribed now, as `channel:product`; heartbeats have no product.
fn subscriptions(events: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        subscriptions: BTreeMap<String, Vec<String>>,
    }
    for m in parse::<Vec<Msg>>(events)? {
        let topic = |channel: &str, product: &str| {
            if channel == product { channel.to_owned() } else { format!("{channel}:{product}") }
        };
        let channels = m.subscriptions.iter().flat_map(|(c, list)| list.iter().map(|p| topic(c, p))).collect();
        out.push(Event::Control(Control::Listed { channels }));
    }
    Ok(())
}
