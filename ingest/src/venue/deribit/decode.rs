//! Deribit JSON-RPC frames: subscription data, answers, heartbeats.
//!
//! `{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[...]}}`
//! <https://docs.deribit.com/>

use std::borrow::Cow;

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Side};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::event::{Bar, Bbo, Book, Control, Event, Frame, Ticker, Trade, TradeExtra};
use crate::status::{Of, State, Status};
use crate::text::{Bare, instant};

/// The channel on which the venue speaks of its own state.
pub(super) const PLATFORM_STATE: &str = "platform_state";

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

/// Reads one frame.
pub fn decode(frame: Frame<'_>, out: &mut Vec<Event>) {
    if let Err(why) = frame.text().and_then(|text| read(text, out)) {
        out.push(Event::Malformed(why));
    }
}

fn read(frame: &str, out: &mut Vec<Event>) -> Result<(), String> {
    let f: Message = parse(frame)?;
    let id = f.id.map(|raw| raw.get().trim_matches('"').to_owned());
    match (f.method.as_deref(), f.params) {
        (Some("subscription"), Some(Params { channel: Some(channel), data: Some(data), .. })) => {
            return subscription(&channel, data.get(), out);
        }
        (Some("heartbeat"), Some(Params { kind: Some(kind), .. })) => {
            out.push(Event::Control(match kind.as_ref() {
                "heartbeat" => Control::Heartbeat,
                "test_request" => Control::TestRequest,
                other => return Err(format!("heartbeat type `{other}`")),
            }));
            return Ok(());
        }
        (Some(method), _) => return Err(format!("method `{method}` without what belongs to it")),
        (None, _) => {}
    }
    if let Some(refusal) = f.error {
        out.push(Event::Error { code: Some(refusal.code), message: refusal.message, id });
        return Ok(());
    }
    let (Some(result), Some(id)) = (f.result, id) else {
        return Err("neither data nor an answer".to_owned());
    };
    out.push(answer(result.get(), id));
    Ok(())
}

/// A list of texts is what `subscribe` and `unsubscribe` answer; `"ok"` and the like say only that it went well.
fn answer(result: &str, id: String) -> Event {
    if let Ok(channels) = serde_json::from_str::<Vec<String>>(result) {
        return Event::Control(Control::Subscribed { id, channels });
    }
    if result.starts_with('{') || result.starts_with('[') {
        return Event::Other(format!("answer {id}"));
    }
    Event::Control(Control::Ack { id })
}

pub(super) fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

fn subscription(channel: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    match channel.split('.').next().unwrap_or("") {
        "trades" => trades(data, out),
        "book" => book(channel, data, out),
        "ticker" | "incremental_ticker" => ticker(data, out),
        "quote" => quote(data, out),
        "chart" => chart(channel, data, out),
        "deribit_price_index" => price_index(data, out),
        "platform_state" if channel == PLATFORM_STATE => platform_state(data, out),
        "deribit_volatility_index"
        | "perpetual"
        | "instrument"
        | "platform_state"
        | "user"
        | "deribit_price_ranking"
        | "deribit_price_statistics"
        | "estimated_expiration_price"
        | "markprice" => {
            parse::<IgnoredAny>(data)?;
            out.push(Event::Other(channel.to_owned()));
            Ok(())
        }
        _ => Err(format!("unknown channel `{channel}`")),
    }
}

/// The unit of an instrument's amounts, which its name tells: inverse futures and their spreads count USD,
/// options, linear contracts and spot count coins.
pub fn size_unit(instrument: &str) -> SizeUnit {
    let parts: Vec<&str> = instrument.split('-').collect();
    if parts[0].contains('_') {
        return SizeUnit::Base;
    }
    match parts[..] {
        [_, "FS", _] => SizeUnit::QuoteUsd,
        [_, _] => SizeUnit::QuoteUsd,
        _ => SizeUnit::Base,
    }
}

#[derive(Deserialize)]
pub(super) struct TradeRow<'a> {
    pub trade_seq: u64,
    #[serde(borrow)]
    trade_id: Cow<'a, str>,
    timestamp: i64,
    price: Bare,
    amount: Bare,
    #[serde(borrow)]
    direction: Cow<'a, str>,
    #[serde(borrow)]
    instrument_name: Cow<'a, str>,
    mark_price: Option<Bare>,
    index_price: Option<Bare>,
    iv: Option<Bare>,
    contracts: Option<Bare>,
    liquidation: Option<String>,
}

impl TradeRow<'_> {
    pub fn event(self) -> Result<Event, String> {
        let side = match self.direction.as_ref() {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(format!("trade {} has direction `{other}`", self.trade_id)),
        };
        Ok(Event::Trade(Trade {
            unit: size_unit(&self.instrument_name),
            symbol: self.instrument_name.into(),
            id: self.trade_seq,
            venue_id: Some(self.trade_id.into()),
            price: self.price.0,
            size: self.amount.0,
            side,
            ts: instant(self.timestamp),
            event_ts: None,
            aggregate: None,
            backfill: false,
            extra: Some(Box::new(TradeExtra {
                seq: Some(self.trade_seq),
                mark: value(self.mark_price),
                index: value(self.index_price),
                iv: value(self.iv),
                contracts: value(self.contracts),
                liquidation: self.liquidation,
            })),
        }))
    }
}

fn value(number: Option<Bare>) -> Option<Decimal> {
    number.map(|n| n.0)
}

fn trades(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    for row in parse::<Vec<TradeRow>>(data)? {
        out.push(row.event()?);
    }
    Ok(())
}

/// `book.X.100ms` is a snapshot, then changes; `book.X.none.20.100ms` (grouped) is a whole top each time.
fn book(channel: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    if channel.split('.').count() > 3 { grouped_book(data, out) } else { change_book(data, out) }
}

fn grouped_book(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        timestamp: i64,
        instrument_name: String,
        change_id: u64,
        bids: Vec<(Bare, Bare)>,
        asks: Vec<(Bare, Bare)>,
    }
    let m: Msg = parse(data)?;
    let levels = |rows: Vec<(Bare, Bare)>| rows.into_iter().map(|(p, q)| (p.0, q.0)).collect();
    out.push(Event::Book(Book {
        unit: size_unit(&m.instrument_name),
        symbol: m.instrument_name.into(),
        action: BookAction::Snapshot,
        partial: true,
        seq_first: None,
        seq_last: Some(m.change_id),
        seq_prev: None,
        bids: levels(m.bids),
        asks: levels(m.asks),
        checksum: None,
        ts: Some(instant(m.timestamp)),
        event_ts: None,
    }));
    Ok(())
}

fn change_book(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    type Rows<'a> = Vec<(Cow<'a, str>, Bare, Bare)>;
    #[derive(Deserialize)]
    struct Msg<'a> {
        timestamp: i64,
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
        instrument_name: String,
        change_id: u64,
        prev_change_id: Option<u64>,
        #[serde(borrow)]
        bids: Rows<'a>,
        #[serde(borrow)]
        asks: Rows<'a>,
    }
    fn levels(rows: Rows<'_>) -> Result<Vec<(Decimal, Decimal)>, String> {
        rows.into_iter()
            .map(|(action, price, amount)| match action.as_ref() {
                "new" | "change" => Ok((price.0, amount.0)),
                "delete" => Ok((price.0, Decimal::ZERO)),
                other => Err(format!("book row with action `{other}`")),
            })
            .collect()
    }
    let m: Msg = parse(data)?;
    let action = match m.kind.as_deref() {
        Some("snapshot") => BookAction::Snapshot,
        Some("change") => BookAction::Update,
        Some(other) => return Err(format!("book message of type `{other}`")),
        // Recordings of 2019 have no type: what has a predecessor is a change.
        None if m.prev_change_id.is_some() => BookAction::Update,
        None => BookAction::Snapshot,
    };
    out.push(Event::Book(Book {
        unit: size_unit(&m.instrument_name),
        symbol: m.instrument_name.into(),
        action,
        partial: false,
        seq_first: None,
        seq_last: Some(m.change_id),
        seq_prev: m.prev_change_id,
        bids: levels(m.bids)?,
        asks: levels(m.asks)?,
        checksum: None,
        ts: Some(instant(m.timestamp)),
        event_ts: None,
    }));
    Ok(())
}

fn ticker(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        timestamp: i64,
        instrument_name: String,
        last_price: Option<Bare>,
        best_bid_price: Option<Bare>,
        best_bid_amount: Option<Bare>,
        best_ask_price: Option<Bare>,
        best_ask_amount: Option<Bare>,
        mark_price: Option<Bare>,
        index_price: Option<Bare>,
        underlying_price: Option<Bare>,
        open_interest: Option<Bare>,
        current_funding: Option<Bare>,
        funding_8h: Option<Bare>,
        mark_iv: Option<Bare>,
        bid_iv: Option<Bare>,
        ask_iv: Option<Bare>,
        #[serde(default)]
        greeks: Greeks,
        #[serde(default)]
        stats: Stats,
    }
    #[derive(Deserialize, Default)]
    struct Greeks {
        delta: Option<Bare>,
        gamma: Option<Bare>,
        vega: Option<Bare>,
        theta: Option<Bare>,
        rho: Option<Bare>,
    }
    #[derive(Deserialize, Default)]
    struct Stats {
        volume: Option<Bare>,
        high: Option<Bare>,
        low: Option<Bare>,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Ticker(Box::new(Ticker {
        symbol: m.instrument_name.into(),
        ts: Some(instant(m.timestamp)),
        last: value(m.last_price),
        bid: value(m.best_bid_price),
        bid_size: value(m.best_bid_amount),
        ask: value(m.best_ask_price),
        ask_size: value(m.best_ask_amount),
        mark: value(m.mark_price),
        index: value(m.index_price),
        underlying: value(m.underlying_price),
        open_interest: value(m.open_interest),
        current_funding: value(m.current_funding),
        funding_8h: value(m.funding_8h),
        mark_iv: value(m.mark_iv),
        bid_iv: value(m.bid_iv),
        ask_iv: value(m.ask_iv),
        delta: value(m.greeks.delta),
        gamma: value(m.greeks.gamma),
        vega: value(m.greeks.vega),
        theta: value(m.greeks.theta),
        rho: value(m.greeks.rho),
        volume_24h: value(m.stats.volume),
        high_24h: value(m.stats.high),
        low_24h: value(m.stats.low),
        ..Ticker::default()
    })));
    Ok(())
}

fn quote(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        timestamp: i64,
        instrument_name: String,
        best_bid_price: Option<Bare>,
        best_bid_amount: Option<Bare>,
        best_ask_price: Option<Bare>,
        best_ask_amount: Option<Bare>,
    }
    let m: Msg = parse(data)?;
    // A missing side is null or has amount zero. Its price may be zero or, on combos, negative and real.
    let side = |price: Option<Bare>, size: Option<Bare>| match (price, size) {
        (Some(price), Some(size)) if !size.0.is_zero() => Some((price.0, size.0)),
        _ => None,
    };
    out.push(Event::Bbo(Bbo {
        unit: size_unit(&m.instrument_name),
        symbol: m.instrument_name.into(),
        bid: side(m.best_bid_price, m.best_bid_amount),
        ask: side(m.best_ask_price, m.best_ask_amount),
        seq: None,
        ts: Some(instant(m.timestamp)),
        event_ts: None,
    }));
    Ok(())
}

/// `chart.trades.<instrument>.<resolution>`
fn chart(channel: &str, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        tick: i64,
        open: Bare,
        high: Bare,
        low: Bare,
        close: Bare,
        volume: Bare,
        cost: Bare,
    }
    let Some((symbol, interval)) = channel.strip_prefix("chart.trades.").and_then(|c| c.rsplit_once('.')) else {
        return Err(format!("unknown channel `{channel}`"));
    };
    let m: Msg = parse(data)?;
    out.push(Event::Bar(Box::new(Bar {
        symbol: symbol.into(),
        interval: interval.to_owned(),
        open_ts: instant(m.tick),
        close_ts: None,
        open: m.open.0,
        high: m.high.0,
        low: m.low.0,
        close: m.close.0,
        volume_base: Some(m.volume.0),
        volume_quote: Some(m.cost.0),
        volume: None,
        trades: None,
        closed: None,
        event_ts: None,
    })));
    Ok(())
}

fn price_index(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        timestamp: i64,
        price: Bare,
        index_name: String,
    }
    let m: Msg = parse(data)?;
    out.push(Event::Index { symbol: m.index_name.into(), price: m.price.0, ts: instant(m.timestamp) });
    Ok(())
}

/// `{"price_index":"btc_usd","locked":true}`, `{"maintenance":true}`, or both in one. No message was recorded: these are the
/// documentation's members as they are remembered.
fn platform_state(data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Msg {
        locked: Option<bool>,
        maintenance: Option<bool>,
        price_index: Option<String>,
    }
    let m: Msg = parse(data)?;
    let (state, word) = match (m.maintenance, m.locked) {
        (Some(true), _) => (State::Maintenance, "maintenance"),
        (_, Some(true)) => (State::Locked, "locked"),
        (_, Some(false)) => (State::Online, "not locked"),
        (Some(false), None) => (State::Online, "no maintenance"),
        (None, None) => return Err("a platform state that says neither locked nor maintenance".to_owned()),
    };
    let of = Of::Venue(m.price_index.map(|index| format!("index {index}")).unwrap_or_default());
    let (word, text) = (word.to_owned(), String::new());
    out.push(Event::Status(Box::new(Status { of, state, word, text, from: None, to: None, ts: None })));
    Ok(())
}
