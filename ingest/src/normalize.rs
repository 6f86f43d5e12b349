//! Events as JSON rows, and the final books of a recorded sequence: what `tapeline normalize` and
//! `tapeline book` print.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};
use serde_json::{Map, Value, json};

use crate::book::{Levels, Outcome, Rule, Sync, side_sha256};
use crate::event::{Book, Control, Event, Frame, Mark, Ticker, Trade};
use crate::status::{Of, Status};
use crate::venue::{self, Market, Venue};

/// A file of recorded messages cannot be read as asked.
#[derive(Debug, thiserror::Error)]
pub enum NormalizeError {
    /// Unknown venue, market or encoding; the text names what exists.
    #[error("{0}")]
    Usage(String),
    #[error("read or write messages")]
    Io(#[from] std::io::Error),
}

/// How the lines of a file hold the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Text,
    /// Binary frames, two digits a byte.
    Hex,
}

impl std::str::FromStr for Encoding {
    type Err = NormalizeError;
    fn from_str(text: &str) -> Result<Self, NormalizeError> {
        match text {
            "text" => Ok(Self::Text),
            "hex" => Ok(Self::Hex),
            other => Err(NormalizeError::Usage(format!("unknown encoding `{other}`; known: text, hex"))),
        }
    }
}

/// Reads recorded messages, one a line, and writes `{"line": n, "events": [...]}` for each. Lines count from 1;
/// empty lines are passed over but counted.
pub fn normalize(
    venue: &str,
    market: &str,
    encoding: &str,
    reader: impl BufRead,
    mut writer: impl Write,
) -> Result<(), NormalizeError> {
    let (venue, market) = venue::by_name(venue, market).map_err(NormalizeError::Usage)?;
    let encoding = encoding.parse()?;
    let mut events = Vec::new();
    for (n, line) in reader.split(b'\n').enumerate() {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        events.clear();
        decode_line(venue, market, encoding, &line, &mut events);
        events.iter_mut().for_each(|event| keep_the_sign(venue, event));
        let rows: Vec<Value> = events.iter().flat_map(rows).collect();
        writeln!(writer, "{}", json!({ "line": n + 1, "events": rows }))?;
    }
    writer.flush()?;
    Ok(())
}

/// Inside a fee that was paid is positive; a row has the venue's own sign.
fn keep_the_sign(venue: &dyn Venue, event: &mut Event) {
    if let Event::Fill(fill) = event
        && venue.charged_fees_are_negative()
    {
        fill.fee = Decimal::ZERO - fill.fee;
    }
}

fn decode_line(venue: &dyn Venue, market: Market, encoding: Encoding, line: &[u8], out: &mut Vec<Event>) {
    let bytes = match encoding {
        Encoding::Text => line.to_vec(),
        Encoding::Hex => match unhex(line) {
            Some(bytes) => bytes,
            None => return out.push(Event::Malformed("not a line of hexadecimal digits".into())),
        },
    };
    if encoding == Encoding::Hex {
        return venue.decode(market, Frame::Binary(&bytes), out);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => venue.decode(market, Frame::Text(text.trim()), out),
        Err(e) => out.push(Event::Malformed(format!("frame is not text: {e}"))),
    }
}

fn unhex(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    if !line.len().is_multiple_of(2) {
        return None;
    }
    line.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The REST book that a sequence starts from: its text, and after how many messages it arrived.
pub struct Snapshot<'a> {
    pub body: &'a str,
    pub after: usize,
}

/// Plays a recorded sequence through the venue's book rules and writes its summary as one JSON object: message and
/// event counts, trade totals, and for each symbol the final book.
pub fn book(
    venue: &str,
    market: &str,
    snapshot: Option<Snapshot>,
    reader: impl BufRead,
    mut writer: impl Write,
) -> Result<(), NormalizeError> {
    let (venue, market) = venue::by_name(venue, market).map_err(NormalizeError::Usage)?;
    let mut replay = Replay::new(venue, market);
    let mut snapshot = snapshot;
    let mut events = Vec::new();
    for line in reader.split(b'\n') {
        if let Some(due) = snapshot.take_if(|s| s.after == replay.messages) {
            replay.rest_snapshot(due.body)?;
        }
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        events.clear();
        decode_line(venue, market, Encoding::Text, &line, &mut events);
        replay.messages += 1;
        events.drain(..).for_each(|event| replay.event(event));
    }
    if let Some(due) = snapshot {
        if due.after > replay.messages {
            let why = format!("the snapshot is due after message {}, the file has {}", due.after, replay.messages);
            return Err(NormalizeError::Usage(why));
        }
        replay.rest_snapshot(due.body)?;
    }
    writeln!(writer, "{}", replay.summary())?;
    writer.flush()?;
    Ok(())
}

/// How many changes may wait for the snapshot when a file is played.
const HELD_MAX: usize = 100_000;

struct Replay {
    venue: &'static dyn Venue,
    market: Market,
    messages: usize,
    kinds: BTreeMap<&'static str, u64>,
    trades: Totals,
    books: BTreeMap<String, Played>,
    /// Events that are no book messages, by symbol and kind.
    beside: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

struct Played {
    rule: Rule,
    sync: Sync,
    levels: Levels,
    messages: u64,
    /// Messages that had to follow another one.
    changes: u64,
    last_ts: Option<Nanos>,
}

#[derive(Default)]
struct Totals {
    count: u64,
    buy: u64,
    sell: u64,
    size: Decimal,
    notional: Decimal,
    ids: Option<(String, String)>,
}

impl Replay {
    fn new(venue: &'static dyn Venue, market: Market) -> Self {
        Self {
            venue,
            market,
            messages: 0,
            kinds: BTreeMap::new(),
            trades: Totals::default(),
            books: BTreeMap::new(),
            beside: BTreeMap::new(),
        }
    }

    fn played(&mut self, symbol: &str) -> &mut Played {
        let rule = self.venue.book_rule(self.market);
        self.books.entry(symbol.to_owned()).or_insert_with(|| Played {
            rule,
            sync: Sync::new(rule, HELD_MAX),
            levels: Levels::default(),
            messages: 0,
            changes: 0,
            last_ts: None,
        })
    }

    /// A REST body without a symbol belongs to the one symbol of the file.
    fn rest_snapshot(&mut self, body: &str) -> Result<(), NormalizeError> {
        let mut events = Vec::new();
        self.venue.decode_snapshot(self.market, body, &mut events);
        let [Event::Book(book)] = &mut events[..] else {
            return Err(NormalizeError::Usage(format!("the snapshot is no order book: {events:?}")));
        };
        if book.symbol.is_empty() {
            let mut known = self.books.keys();
            match (known.next(), known.next()) {
                (Some(only), None) => book.symbol = only.into(),
                _ => return Err(NormalizeError::Usage("the snapshot names no symbol and the file has not one".into())),
            }
        }
        let book = book.clone();
        self.book(book);
        Ok(())
    }

    fn event(&mut self, event: Event) {
        for row in rows(&event) {
            let kind = kind_of(&row);
            *self.kinds.entry(kind).or_default() += 1;
            if kind != "book"
                && let Some(symbol) = row.get("symbol").and_then(Value::as_str)
            {
                *self.beside.entry(symbol.to_owned()).or_default().entry(kind).or_default() += 1;
            }
        }
        match event {
            Event::Trade(trade) => self.trades.add(&trade),
            Event::Book(book) if !book.partial => {
                let played = self.played(&book.symbol);
                played.messages += 1;
                played.changes += u64::from(book.action == BookAction::Update);
                self.book(book);
            }
            _ => {}
        }
    }

    fn book(&mut self, book: Book) {
        let played = self.played(&book.symbol);
        let mut said = Vec::new();
        let outcome = played.sync.take(book, &mut said);
        for book in &said {
            played.levels.apply(book);
            played.last_ts = book.ts.or(played.last_ts);
        }
        if let Outcome::Gap { .. } = outcome {
            played.levels = Levels::default();
        }
    }

    fn summary(&self) -> Value {
        let mut summary = Map::new();
        summary.insert("kind".into(), json!("sequence_summary"));
        summary.insert("messages".into(), json!(self.messages));
        summary.insert("events".into(), json!(self.kinds));
        if let Some((first, last)) = &self.trades.ids {
            let t = &self.trades;
            let totals = json!({
                "count": t.count, "buy": t.buy, "sell": t.sell, "size_sum": text(t.size),
                "notional_sum": text(t.notional), "first_id": first, "last_id": last,
            });
            summary.insert("trades".into(), totals);
        }
        let books: Map<String, Value> = self
            .books
            .iter()
            .map(|(symbol, played)| (symbol.clone(), played.summary(self.beside.get(symbol))))
            .collect();
        summary.insert("final_books".into(), Value::Object(books));
        Value::Object(summary)
    }
}

impl Played {
    fn summary(&self, beside: Option<&BTreeMap<&'static str, u64>>) -> Value {
        let pair = |(p, q): (Decimal, Decimal)| json!([text(p), text(q)]);
        let mut replay: Map<String, Value> =
            beside.into_iter().flatten().map(|(k, n)| ((*k).to_owned(), json!(n))).collect();
        replay.insert("stale".into(), json!(self.sync.stale));
        replay.insert("applied".into(), json!(self.sync.applied));
        let chained = self.sync.is_numbered() && (self.changes > 0 || self.rule == Rule::Chain);
        let mut row = json!({
            "messages": self.messages,
            "sequence": self.sync.sequence(),
            // Whole books that merely follow each other are no chain.
            "chain_breaks": chained.then_some(self.sync.breaks),
            "live": self.sync.is_live(),
            "replay": replay,
            "bid_levels": self.levels.bid_levels(),
            "ask_levels": self.levels.ask_levels(),
            "top10_bids": self.levels.bids().take(10).map(pair).collect::<Vec<_>>(),
            "top10_asks": self.levels.asks().take(10).map(pair).collect::<Vec<_>>(),
            "sha256_bids": side_sha256(self.levels.bids()),
            "sha256_asks": side_sha256(self.levels.asks()),
        });
        if let Some(ts) = self.last_ts {
            row["last_ts_ns"] = json!(ts.0);
        }
        if let Some(best) = self.levels.bids().next() {
            row["best_bid"] = pair(best);
        }
        if let Some(best) = self.levels.asks().next() {
            row["best_ask"] = pair(best);
        }
        row
    }
}

impl Totals {
    fn add(&mut self, trade: &Trade) {
        self.count += 1;
        match trade.side {
            Side::Buy => self.buy += 1,
            Side::Sell => self.sell += 1,
        }
        self.size += trade.size;
        self.notional += trade.price * trade.size;
        let id = trade_id(trade);
        match &mut self.ids {
            Some((_, last)) => *last = id,
            None => self.ids = Some((id.clone(), id)),
        }
    }
}

fn trade_id(trade: &Trade) -> String {
    trade.venue_id.as_ref().map_or_else(|| trade.id.to_string(), |id| id.to_string())
}

/// Plain decimal text without exponent and trailing zeros.
fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

/// The kinds of the normalised form.
const KINDS: &[&str] = &[
    "trade",
    "book",
    "bbo",
    "ticker",
    "bar",
    "funding_rate",
    "mark_price",
    "index_price",
    "open_interest",
    "liquidation",
    "order_update",
    "fill",
    "balance",
    "control",
    "error",
    "ignored",
    "malformed",
];

fn kind_of(row: &Value) -> &'static str {
    let kind = row.get("kind").and_then(Value::as_str).unwrap_or("");
    KINDS.iter().find(|k| **k == kind).expect("Invariant: a row is of a known kind")
}

/// One row being written: absent values leave no key.
struct Row(Map<String, Value>);

impl Row {
    fn new(kind: &str) -> Self {
        Self(Map::from_iter([("kind".to_owned(), json!(kind))]))
    }
    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }
    fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }
    fn dec(self, key: &str, value: Decimal) -> Self {
        self.put(key, text(value))
    }
    fn maybe_dec(self, key: &str, value: Option<Decimal>) -> Self {
        self.maybe(key, value.map(text))
    }
    fn ts(self, key: &str, value: Nanos) -> Self {
        self.put(key, value.0)
    }
    fn maybe_ts(self, key: &str, value: Option<Nanos>) -> Self {
        self.maybe(key, value.map(|t| t.0))
    }
    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// An event as rows of the normalised form: one, but a mark price tells up to three.
pub fn rows(event: &Event) -> Vec<Value> {
    let row = match event {
        Event::Trade(t) => trade_row(t),
        Event::Book(b) => book_row(b),
        Event::Bbo(b) => Row::new("bbo")
            .put("symbol", b.symbol.as_str())
            .maybe_dec("bid_price", b.bid.map(|x| x.0))
            .maybe_dec("bid_size", b.bid.map(|x| x.1))
            .maybe_dec("ask_price", b.ask.map(|x| x.0))
            .maybe_dec("ask_size", b.ask.map(|x| x.1))
            .put("size_unit", unit(b.unit))
            .maybe("seq_last", b.seq)
            .maybe_ts("ts_ns", b.ts)
            .maybe_ts("event_ts_ns", b.event_ts),
        Event::Ticker(t) => ticker_row(t),
        Event::Bar(b) => Row::new("bar")
            .put("symbol", b.symbol.as_str())
            .put("interval", b.interval.as_str())
            .ts("open_ts_ns", b.open_ts)
            .maybe_ts("close_ts_ns", b.close_ts)
            .dec("open", b.open)
            .dec("high", b.high)
            .dec("low", b.low)
            .dec("close", b.close)
            .maybe_dec("volume_base", b.volume_base)
            .maybe_dec("volume_quote", b.volume_quote)
            .maybe_dec("volume", b.volume)
            .maybe("trades", b.trades)
            .maybe("closed", b.closed)
            .maybe_ts("event_ts_ns", b.event_ts),
        Event::Mark(m) => return mark_rows(m),
        Event::Index { symbol, price, ts } => price_row("index_price", symbol, *price, *ts),
        Event::Funding(f) => Row::new("funding_rate")
            .put("symbol", f.symbol.as_str())
            .dec("rate", f.rate)
            .maybe_ts("funding_ts_ns", f.due)
            .maybe_dec("next_rate", f.next_rate)
            .maybe_ts("next_funding_ts_ns", f.next_due)
            .ts("ts_ns", f.ts),
        Event::FundingOutlook { symbol, rate, due, next_rate } => Row::new("funding_rate")
            .put("symbol", symbol.as_str())
            .maybe_dec("rate", *rate)
            .maybe_ts("funding_ts_ns", *due)
            .maybe_dec("next_rate", *next_rate),
        Event::OpenInterest { symbol, size, coins, ts } => Row::new("open_interest")
            .put("symbol", symbol.as_str())
            .dec("contracts", *size)
            .maybe_dec("coin", *coins)
            .ts("ts_ns", *ts),
        Event::Liquidation(l) => Row::new("liquidation")
            .put("symbol", l.symbol.as_str())
            .put("side", l.side.as_str())
            .dec("price", l.price)
            .maybe_dec("avg_price", l.avg_price)
            .dec("size", l.size)
            .put("size_unit", unit(l.unit))
            .maybe_dec("filled", l.filled)
            .maybe("status", l.status.as_deref())
            .maybe("pos_side", l.pos_side.as_deref())
            .maybe("offset", l.offset.as_deref())
            .ts("ts_ns", l.ts),
        Event::Order(o) => Row::new("order_update")
            .put("symbol", o.symbol.as_str())
            .put("client_order_id", o.client_order_id.as_str())
            .put("venue_order_id", o.venue_order_id.as_str())
            .put("side", o.side.as_str())
            .put("order_type", o.order_type.as_str())
            .maybe("tif", o.tif.as_deref())
            .maybe_dec("price", o.price)
            .dec("size", o.size)
            .dec("filled", o.filled)
            .maybe_dec("avg_price", o.avg_price)
            .put("status", o.status.as_str())
            .maybe("exec_type", o.exec_type.as_deref())
            .maybe("reduce_only", o.reduce_only)
            .ts("ts_ns", o.ts),
        Event::Fill(f) => Row::new("fill")
            .put("symbol", f.symbol.as_str())
            .put("venue_order_id", f.venue_order_id.as_str())
            .put("trade_id", f.trade_id.as_str())
            .put("side", f.side.as_str())
            .dec("price", f.price)
            .dec("size", f.size)
            .dec("fee", f.fee)
            .maybe("fee_asset", f.fee_asset.as_deref())
            .put("maker", f.maker)
            .ts("ts_ns", f.ts),
        Event::Balance { asset, free, locked, ts } => {
            Row::new("balance").put("asset", asset.as_str()).dec("free", *free).dec("locked", *locked).ts("ts_ns", *ts)
        }
        Event::Status(s) => status_row(s),
        Event::Control(c) => control_row(c),
        Event::Error { code, message, .. } => Row::new("error").maybe("code", *code).put("message", message.as_str()),
        Event::Ignored { reason, .. } => Row::new("ignored").put("reason", reason.as_str()),
        Event::Other(name) => Row::new("ignored").put("reason", format!("{name} has no normalised form")),
        Event::Malformed(reason) => Row::new("malformed").put("reason", reason.as_str()),
    };
    vec![row.done()]
}

fn status_row(s: &Status) -> Row {
    let row = match &s.of {
        Of::Venue(part) => Row::new("status").put("of", part.as_str()),
        Of::Symbol(symbol) => Row::new("status").put("symbol", symbol.as_str()),
    };
    row.put("state", s.state.as_str())
        .put("word", s.word.as_str())
        .put("text", s.text.as_str())
        .maybe_ts("from_ts_ns", s.from)
        .maybe_ts("to_ts_ns", s.to)
        .maybe_ts("ts_ns", s.ts)
}

fn unit(unit: SizeUnit) -> &'static str {
    match unit {
        SizeUnit::Base => "base",
        SizeUnit::QuoteUsd => "quote_usd",
        SizeUnit::Contracts => "contracts",
    }
}

fn trade_row(t: &Trade) -> Row {
    let mut row = Row::new("trade")
        .maybe("replayed", t.backfill.then_some(true))
        .put("symbol", t.symbol.as_str())
        .put("trade_id", trade_id(t))
        .dec("price", t.price)
        .dec("size", t.size)
        .put("size_unit", unit(t.unit))
        .put("side", t.side.as_str())
        .ts("ts_ns", t.ts)
        .maybe_ts("event_ts_ns", t.event_ts);
    if let Some((first, last)) = t.aggregate {
        row =
            row.put("aggregated", true).put("first_trade_id", first.to_string()).put("last_trade_id", last.to_string());
    }
    match &t.extra {
        Some(x) => row
            .maybe("seq_last", x.seq)
            .maybe_dec("mark_price", x.mark)
            .maybe_dec("index_price", x.index)
            .maybe_dec("iv", x.iv)
            .maybe_dec("contracts", x.contracts)
            .maybe("liquidation", x.liquidation.as_deref()),
        None => row,
    }
}

fn book_row(b: &Book) -> Row {
    let side =
        |rows: &[(Decimal, Decimal)]| -> Value { rows.iter().map(|(p, q)| json!([text(*p), text(*q)])).collect() };
    let action = match b.action {
        BookAction::Snapshot => "snapshot",
        BookAction::Update => "update",
    };
    Row::new("book")
        .put("symbol", b.symbol.as_str())
        .put("action", action)
        .maybe("seq_first", b.seq_first)
        .maybe("seq_last", b.seq_last)
        .maybe("seq_prev", b.seq_prev)
        .put("bids", side(&b.bids))
        .put("asks", side(&b.asks))
        .put("size_unit", unit(b.unit))
        .maybe("checksum", b.checksum)
        .maybe_ts("ts_ns", b.ts)
        .maybe_ts("event_ts_ns", b.event_ts)
}

fn ticker_row(t: &Ticker) -> Row {
    Row::new("ticker")
        .put("symbol", t.symbol.as_str())
        .maybe_dec("last", t.last)
        .maybe_dec("open_24h", t.open_24h)
        .maybe_dec("high_24h", t.high_24h)
        .maybe_dec("low_24h", t.low_24h)
        .maybe_dec("volume_base_24h", t.volume_base_24h)
        .maybe("volume_base_24h", t.volume_base_24h_text.as_deref())
        .maybe_dec("volume_quote_24h", t.volume_quote_24h)
        .maybe_dec("volume_24h", t.volume_24h)
        .maybe_dec("bid_price", t.bid)
        .maybe_dec("bid_size", t.bid_size)
        .maybe_dec("ask_price", t.ask)
        .maybe_dec("ask_size", t.ask_size)
        .maybe_dec("mark_price", t.mark)
        .maybe_dec("index_price", t.index)
        .maybe_dec("underlying_price", t.underlying)
        .maybe_dec("open_interest", t.open_interest)
        .maybe_dec("oracle_price", t.oracle)
        .maybe_dec("mid_price", t.mid)
        .maybe_dec("prev_day_price", t.prev_day)
        .maybe_dec("funding_rate", t.funding_rate)
        .maybe_dec("current_funding", t.current_funding)
        .maybe_dec("funding_8h", t.funding_8h)
        .maybe_dec("mark_iv", t.mark_iv)
        .maybe_dec("bid_iv", t.bid_iv)
        .maybe_dec("ask_iv", t.ask_iv)
        .maybe_dec("delta", t.delta)
        .maybe_dec("gamma", t.gamma)
        .maybe_dec("vega", t.vega)
        .maybe_dec("theta", t.theta)
        .maybe_dec("rho", t.rho)
        .maybe("seq_last", t.seq)
        .maybe_ts("ts_ns", t.ts)
}

fn price_row(kind: &str, symbol: &str, price: Decimal, ts: Nanos) -> Row {
    Row::new(kind).put("symbol", symbol).dec("price", price).ts("ts_ns", ts)
}

fn mark_rows(m: &Mark) -> Vec<Value> {
    let mut rows = vec![price_row("mark_price", &m.symbol, m.mark, m.ts).done()];
    if let Some(index) = m.index {
        rows.push(price_row("index_price", &m.symbol, index, m.ts).done());
    }
    if let Some(rate) = m.funding_rate {
        let row = Row::new("funding_rate")
            .put("symbol", m.symbol.as_str())
            .dec("rate", rate)
            .maybe_ts("next_funding_ts_ns", m.next_funding)
            .ts("ts_ns", m.ts);
        rows.push(row.done());
    }
    rows
}

fn control_row(control: &Control) -> Row {
    let row = Row::new("control");
    match control {
        Control::Ack { id } => row.put("type", "rpc_ok").put("id", id.as_str()),
        Control::Subscribed { id, channels } => {
            row.put("type", "subscribe_ack").put("id", id.as_str()).put("channels", channels.clone())
        }
        Control::Listed { channels } => row.put("type", "subscribe_ack").put("channels", channels.clone()),
        Control::Heartbeat => row.put("type", "heartbeat"),
        Control::Ping { answer } => row.put("type", "ping").put("answer", answer.as_str()),
        Control::Pong => row.put("type", "pong"),
        Control::Broken { reason } => row.put("type", "broken").put("reason", reason.as_str()),
        Control::TestRequest => row.put("type", "test_request"),
        Control::ServerShutdown => row.put("type", "server_shutdown"),
        Control::Request { method } => row.put("type", "request").put("method", method.as_str()),
    }
}
