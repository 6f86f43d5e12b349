//! Exchange frames: flat objects that tell their `type`.
//!
//! `{"type":"match","trade_id":881613,"side":"sell","size":"0.04","price":"14.7775","product_id":"BAND-GBP",...}`
//! <https://docs.cdp.coinbase.com/exchange/websocket-feed/channels>

use std::borrow::Cow;

use schemas::raw::BookAction;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{level, parse, side, state, taker, time};
use crate::event::{Book, Control, Event, Frame, Ticker, Trade, TradeExtra};
use crate::status::{Of, State, Status};
use crate::text::{MaybeQuoted, Quoted, rfc3339};

/// Reads one frame. Channel `status` tells of all products of the venue: those that are not `carried` are passed over.
pub fn decode(frame: Frame<'_>, carried: impl Fn(&str) -> bool, out: &mut Vec<Event>) {
    if let Err(why) = frame.text().and_then(|text| read(text, carried, out)) {
        out.push(Event::Malformed(why));
    }
}

fn read(text: &str, carried: impl Fn(&str) -> bool, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let kind = parse::<Head>(text)?.kind;
    match kind.as_ref() {
        "l2update" => change(text, out),
        "match" => trade(text, false, out),
        // The last trade before the subscription.
        "last_match" => trade(text, true, out),
        "ticker" => ticker(text, out),
        "snapshot" => snapshot(text, out),
        "heartbeat" => {
            parse::<IgnoredAny>(text)?;
            out.push(Event::Control(Control::Heartbeat));
            Ok(())
        }
        "subscriptions" => subscriptions(text, out),
        "error" => {
            #[derive(Deserialize)]
            struct Refusal {
                message: String,
                reason: Option<String>,
            }
            let Refusal { message, reason } = parse(text)?;
            let message = reason.map_or(message.clone(), |reason| format!("{message}: {reason}"));
            out.push(Event::Error { code: None, message, id: None });
            Ok(())
        }
        "status" => statuses(text, carried, out),
        // The life of single orders (channels `full` and `user`).
        "received" | "open" | "done" | "change" | "activate" => {
            parse::<IgnoredAny>(text)?;
            out.push(Event::Other(kind.into_owned()));
            Ok(())
        }
        other => Err(format!("unknown type `{other}`")),
    }
}

fn trade(text: &str, before: bool, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        trade_id: u64,
        #[serde(borrow)]
        side: Cow<'a, str>,
        size: Quoted,
        price: Quoted,
        #[serde(borrow)]
        product_id: Cow<'a, str>,
        sequence: Option<u64>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let m: Msg = parse(text)?;
    out.push(Event::Trade(Trade {
        symbol: m.product_id.into(),
        id: m.trade_id,
        venue_id: None,
        price: m.price.0,
        size: m.size.0,
        unit: schemas::instrument::SizeUnit::Base,
        side: taker(&m.side).map_err(|why| format!("trade {} has {why}", m.trade_id))?,
        ts: rfc3339(&m.time)?,
        event_ts: None,
        aggregate: None,
        backfill: before,
        extra: m.sequence.map(|seq| Box::new(TradeExtra { seq: Some(seq), ..TradeExtra::default() })),
    }));
    Ok(())
}

fn book(symbol: &str, action: BookAction) -> Book {
    Book {
        symbol: symbol.into(),
        action,
        partial: false,
        seq_first: None,
        seq_last: None,
        seq_prev: None,
        bids: Vec::new(),
        asks: Vec::new(),
        unit: schemas::instrument::SizeUnit::Base,
        checksum: None,
        ts: None,
        event_ts: None,
    }
}

/// The whole book. A level that is no number (`0.-10000` was recorded) refuses it whole: a book that lacks a level
/// looks like a book.
fn snapshot(text: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        product_id: Cow<'a, str>,
        bids: Vec<(Quoted, Quoted)>,
        asks: Vec<(Quoted, Quoted)>,
        #[serde(borrow)]
        time: Option<Cow<'a, str>>,
    }
    let m: Msg = parse(text)?;
    let side = |rows: Vec<(Quoted, Quoted)>| rows.into_iter().map(|(p, q)| level(p, q)).collect::<Result<_, _>>();
    out.push(Event::Book(Book {
        bids: side(m.bids)?,
        asks: side(m.asks)?,
        ts: m.time.as_deref().map(time).transpose()?.flatten(),
        ..book(&m.product_id, BookAction::Snapshot)
    }));
    Ok(())
}

fn change(text: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg<'a> {
        #[serde(borrow)]
        product_id: Cow<'a, str>,
        #[serde(borrow)]
        changes: Vec<(Cow<'a, str>, Quoted, Quoted)>,
        #[serde(borrow)]
        time: Option<Cow<'a, str>>,
    }
    let m: Msg = parse(text)?;
    let mut book = book(&m.product_id, BookAction::Update);
    for (word, price, size) in m.changes {
        let rows = match side(&word)? {
            schemas::Side::Buy => &mut book.bids,
            schemas::Side::Sell => &mut book.asks,
        };
        rows.push(level(price, size)?);
    }
    book.ts = m.time.as_deref().map(time).transpose()?.flatten();
    out.push(Event::Book(book));
    Ok(())
}

/// Sent with every match; its `side` is the taker's, unlike that of the match.
fn ticker(text: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        sequence: Option<u64>,
        product_id: String,
        price: Quoted,
        #[serde(default)]
        open_24h: MaybeQuoted,
        #[serde(default)]
        volume_24h: MaybeQuoted,
        #[serde(default)]
        low_24h: MaybeQuoted,
        #[serde(default)]
        high_24h: MaybeQuoted,
        #[serde(default)]
        best_bid: MaybeQuoted,
        /// Since 2022.
        #[serde(default)]
        best_bid_size: MaybeQuoted,
        #[serde(default)]
        best_ask: MaybeQuoted,
        #[serde(default)]
        best_ask_size: MaybeQuoted,
        /// Absent before the first trade of a product.
        time: Option<String>,
    }
    let m: Msg = parse(text)?;
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: m.product_id.into(),
        ts: m.time.as_deref().map(time).transpose()?.flatten(),
        seq: m.sequence,
        last: Some(m.price.0),
        open_24h: m.open_24h.0,
        high_24h: m.high_24h.0,
        low_24h: m.low_24h.0,
        volume_base_24h: m.volume_24h.0,
        bid: m.best_bid.0,
        bid_size: m.best_bid_size.0,
        ask: m.best_ask.0,
        ask_size: m.best_ask_size.0,
        ..Ticker::default()
    })));
    Ok(())
}

/// Whether products are traded. The message is the documentation's, none was recorded: all products and currencies, again and
/// again, without a time; a product as REST tells it, which was recorded.
fn statuses(text: &str, carried: impl Fn(&str) -> bool, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        products: Vec<Product>,
    }
    #[derive(Deserialize)]
    struct Product {
        id: String,
        status: String,
        status_message: Option<String>,
        #[serde(default)]
        trading_disabled: bool,
        #[serde(default)]
        cancel_only: bool,
        #[serde(default)]
        post_only: bool,
        #[serde(default)]
        limit_only: bool,
    }
    for p in parse::<Msg>(text)?.products.into_iter().filter(|p| carried(&p.id)) {
        let said = state(&p.status).map_err(|why| format!("product {} has {why}", p.id))?;
        let limits = [
            (p.trading_disabled, "trading_disabled", State::Locked),
            (p.cancel_only, "cancel_only", State::Restricted),
            (p.post_only, "post_only", State::Restricted),
            (p.limit_only, "limit_only", State::Restricted),
        ];
        let limit = limits.into_iter().find(|(on, ..)| *on && said == State::Online);
        let (word, state) = limit.map_or((p.status, said), |(_, word, state)| (word.to_owned(), state));
        let (text, of) = (p.status_message.unwrap_or_default(), Of::Symbol(p.id.into()));
        out.push(Event::Status(Box::new(Status { of, state, word, text, from: None, to: None, ts: None })));
    }
    Ok(())
}

/// Everything that is subscribed now, as `channel:product`; a channel without products is its name alone.
fn subscriptions(text: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        channels: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        name: String,
        #[serde(default)]
        product_ids: Option<Vec<String>>,
    }
    let mut channels = Vec::new();
    for row in parse::<Msg>(text)?.channels {
        match row.product_ids.unwrap_or_default() {
            none if none.is_empty() => channels.push(row.name),
            products => channels.extend(products.iter().map(|p| format!("{}:{p}", row.name))),
        }
    }
    out.push(Event::Control(Control::Listed { channels }));
    Ok(())
}
