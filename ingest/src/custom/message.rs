//! `[[message]]`: how one kind of message is known, where its rows are, and what each row says.

use std::collections::BTreeMap;

use schemas::instrument::SizeUnit;
use schemas::raw::BookAction;
use schemas::{Decimal, Nanos, Side};

use super::json::{Json, Path, Scope};
use super::keys::Keys;
use super::value::{
    SideAt, SymbolAt, Symbols, Template, TimeAt, When, maybe_flag, maybe_number, maybe_whole, number, whole, word,
};
use crate::event::{Bar, Bbo, Book, Control, Event, Symbol, Ticker, Trade};
use crate::feed::TradeIds;

/// How a venue's trades are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    Consecutive,
    Rising,
    Unordered,
    /// There are none: time, price, size and side tell them apart, and among equal ones of a frame their count.
    None,
}

impl Ids {
    pub const KNOWN: &[(&str, Ids)] = &[
        ("consecutive", Ids::Consecutive),
        ("rising", Ids::Rising),
        ("unordered", Ids::Unordered),
        ("none", Ids::None),
    ];

    pub fn rule(self) -> TradeIds {
        match self {
            Ids::Consecutive => TradeIds::Consecutive,
            Ids::Rising => TradeIds::Rising,
            Ids::Unordered | Ids::None => TradeIds::Unordered,
        }
    }
}

/// What holds for all messages of a description.
#[derive(Clone, Debug)]
pub struct Common {
    pub unit: SizeUnit,
    pub ids: Ids,
    pub symbols: Symbols,
}

/// What is known of a frame beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'c> {
    /// What it answers: a polled `[[channel]]`, `backfill`, `history` or `snapshot` (of a book). Empty: it came on the socket.
    pub channel: &'c str,
    /// Of the request or file, in our spelling; for rows that name none.
    pub symbol: Option<&'c str>,
}

/// One `[[message]]`.
#[derive(Clone, Debug)]
pub struct Message {
    /// `message[2]`, as errors call it.
    pub name: String,
    pub kind: &'static str,
    /// Of this channel's answers alone; empty: of the socket, and of every answer.
    pub channel: String,
    when: When,
    list: Option<Path>,
    symbol: Option<SymbolAt>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Trade {
        price: Path,
        size: Path,
        side: SideAt,
        id: Option<Path>,
        time: TimeAt,
        event_time: Option<TimeAt>,
        history: Option<When>,
    },
    Quote {
        bid: Path,
        bid_size: Path,
        ask: Path,
        ask_size: Path,
        seq: Option<Path>,
        time: Option<TimeAt>,
        event_time: Option<TimeAt>,
    },
    Book(Box<BookAt>),
    Bar(Box<BarAt>),
    Ticker {
        time: Option<TimeAt>,
        fields: Vec<(TickerField, Path)>,
    },
    Ack(Key),
    Error {
        key: Option<Key>,
        code: Option<Path>,
        text: Option<Path>,
    },
    Ping {
        answer: Template,
    },
    Pong,
    Heartbeat,
    Shutdown,
    Ignore,
}

/// What names the request that an answer is about.
#[derive(Clone, Debug)]
enum Key {
    Id(Path),
    Topic(Template),
}

#[derive(Clone, Debug)]
struct BookAt {
    action: ActionAt,
    bids: Option<LevelsAt>,
    asks: Option<LevelsAt>,
    /// Both sides in one list.
    levels: Option<(LevelsAt, SideAt)>,
    partial: bool,
    first: Option<Path>,
    last: Option<Path>,
    previous: Option<Path>,
    time: Option<TimeAt>,
    event_time: Option<TimeAt>,
}

#[derive(Clone, Debug)]
enum ActionAt {
    Always(BookAction),
    /// A snapshot where this holds.
    SnapshotWhen(When),
}

#[derive(Clone, Debug)]
struct LevelsAt {
    list: Path,
    price: Path,
    size: Path,
}

#[derive(Clone, Debug)]
struct BarAt {
    width: Result<String, Path>,
    open_time: TimeAt,
    close_time: Option<TimeAt>,
    prices: [Path; 4],
    volume: Option<Path>,
    quote_volume: Option<Path>,
    trades: Option<Path>,
    closed: Result<Option<bool>, Path>,
    event_time: Option<TimeAt>,
}

type TickerField = fn(&mut Ticker) -> &mut Option<Decimal>;

/// Keys of a ticker's numbers.
const TICKER: &[(&str, TickerField)] = &[
    ("last", |t| &mut t.last),
    ("open_24h", |t| &mut t.open_24h),
    ("high_24h", |t| &mut t.high_24h),
    ("low_24h", |t| &mut t.low_24h),
    ("volume_24h", |t| &mut t.volume_base_24h),
    ("quote_volume_24h", |t| &mut t.volume_quote_24h),
    ("bid", |t| &mut t.bid),
    ("bid_size", |t| &mut t.bid_size),
    ("ask", |t| &mut t.ask),
    ("ask_size", |t| &mut t.ask_size),
    ("mark", |t| &mut t.mark),
    ("index", |t| &mut t.index),
    ("funding_rate", |t| &mut t.funding_rate),
    ("open_interest", |t| &mut t.open_interest),
];

/// The kinds of messages.
pub const KINDS: &[&str] =
    &["trade", "quote", "book", "bar", "ticker", "ack", "error", "ping", "pong", "heartbeat", "shutdown", "ignore"];

impl Message {
    pub fn parse(keys: Keys<'_>, ids: Ids) -> Option<Self> {
        let known: Vec<(&str, &'static str)> = KINDS.iter().map(|k| (*k, *k)).collect();
        keys.needed("kind", &KINDS.join(", "));
        let kind = keys.has("kind").then(|| keys.one_of("kind", &known)).flatten();
        let Some(kind) = kind else {
            // What its keys mean is not known.
            return None;
        };
        let when = When::parse(&keys, "when");
        let channel = keys.text("channel").unwrap_or_default().to_owned();
        let data = matches!(kind, "trade" | "quote" | "book" | "bar" | "ticker");
        let list = if data { keys.list("list") } else { None };
        let symbol = if data { SymbolAt::parse(&keys, "symbol") } else { None };
        let what = What::parse(kind, &keys, &channel, ids);
        let name = keys.at().to_owned();
        keys.done();
        Some(Self { name, kind, channel, when, list, symbol, what: what? })
    }

    /// Rows name their symbol.
    pub fn names_symbol(&self) -> bool {
        self.symbol.is_some()
    }

    /// The answer to a REST book or the like may say nothing of its symbol.
    pub fn is_data(&self) -> bool {
        matches!(self.kind, "trade" | "quote" | "book" | "bar" | "ticker")
    }

    pub fn matches(&self, frame: &Json<'_>, message: &Json<'_>, about: About<'_>) -> bool {
        (self.channel.is_empty() || self.channel == about.channel) && self.when.holds(Scope { frame, row: message })
    }

    /// Says what the message says; the error is that of the first row that is not understood, with their number.
    pub fn decode(
        &self,
        frame: &Json<'_>,
        message: &Json<'_>,
        about: About<'_>,
        common: &Common,
        out: &mut Vec<Event>,
    ) -> Result<(), String> {
        let rows = match &self.list {
            None => vec![message],
            Some(list) => list
                .all(Scope { frame, row: message })
                .ok_or_else(|| format!("{} ({}): no list at `{}`", self.name, self.kind, list.text()))?,
        };
        let (mut wrong, mut first) = (0, None);
        let mut seen = BTreeMap::new();
        for row in &rows {
            if let Err(why) = self.row(Scope { frame, row }, about, common, &mut seen, out) {
                wrong += 1;
                first.get_or_insert(why);
            }
        }
        match first {
            None => Ok(()),
            Some(why) if rows.len() == 1 => Err(format!("{} ({}): {why}", self.name, self.kind)),
            Some(why) => Err(format!("{} ({}): {wrong} of {} rows: {why}", self.name, self.kind, rows.len())),
        }
    }

    fn row(
        &self,
        scope: Scope<'_, '_>,
        about: About<'_>,
        common: &Common,
        seen: &mut BTreeMap<String, usize>,
        out: &mut Vec<Event>,
    ) -> Result<(), String> {
        let event = match &self.what {
            What::Ack(key) => Event::Control(Control::Ack { id: key.read(scope)? }),
            What::Error { key, code, text } => Event::Error {
                code: code.as_ref().and_then(|path| path.get(scope)?.scalar()?.parse().ok()),
                message: text.as_ref().map_or(Ok("no reason given"), |path| word(path, scope))?.to_owned(),
                id: key.as_ref().and_then(|key| key.read(scope).ok()),
            },
            What::Ping { answer } => Event::Control(Control::Ping { answer: answer.fill_from(scope)? }),
            What::Pong => Event::Control(Control::Pong),
            What::Heartbeat => Event::Control(Control::Heartbeat),
            What::Shutdown => Event::Control(Control::ServerShutdown),
            What::Ignore => Event::Other(self.name.clone()),
            What::Book(book) => {
                // A REST book tells no symbol: whoever asked knows.
                let symbol = match &self.symbol {
                    Some(_) => self.symbol(scope, about, common)?,
                    None => about.symbol.unwrap_or_default().into(),
                };
                Event::Book(book.read(symbol, scope, common.unit)?)
            }
            data => data.read(self.symbol(scope, about, common)?, scope, common, seen)?,
        };
        out.push(event);
        Ok(())
    }

    fn symbol(&self, scope: Scope<'_, '_>, about: About<'_>, common: &Common) -> Result<Symbol, String> {
        match (&self.symbol, about.symbol) {
            (Some(at), _) => Ok(common.symbols.ours(&at.read(scope)?)),
            (None, Some(symbol)) => Ok(symbol.into()),
            (None, None) => {
                Err("nothing tells the symbol: `symbol` is absent here, and it is no answer to a request".to_owned())
            }
        }
    }
}

impl What {
    fn parse(kind: &str, keys: &Keys<'_>, channel: &str, ids: Ids) -> Option<Self> {
        let need = |key: &'static str, what: &str| {
            keys.needed(key, what);
            keys.path(key)
        };
        let time = |key: &'static str| TimeAt::parse(keys, key);
        match kind {
            "trade" => {
                keys.needed("side", "the aggressor's side, such as { at = \"side\", buy = \"buy\", sell = \"sell\" }");
                keys.needed("time", "the trade's time, such as { at = \"T\", unit = \"ms\" }");
                if ids != Ids::None {
                    keys.needed("id", "the trade's id, because trade_ids is not \"none\"");
                }
                let (price, size) = (need("price", "the price's path"), need("size", "the size's path"));
                let (side, id, at) = (SideAt::parse(keys, "side"), keys.path("id"), time("time"));
                let event_time = time("event_time");
                let history = keys.has("history_when").then(|| When::parse(keys, "history_when"));
                Some(Self::Trade { price: price?, size: size?, side: side?, id, time: at?, event_time, history })
            }
            "quote" => {
                let bid = (need("bid", "the best bid's price"), need("bid_size", "the best bid's size"));
                let ask = (need("ask", "the best ask's price"), need("ask_size", "the best ask's size"));
                let (seq, at, event_time) = (keys.path("seq"), time("time"), time("event_time"));
                let (bid, bid_size, ask, ask_size) = (bid.0?, bid.1?, ask.0?, ask.1?);
                Some(Self::Quote { bid, bid_size, ask, ask_size, seq, time: at, event_time })
            }
            "book" => BookAt::parse(keys).map(|book| Self::Book(Box::new(book))),
            "bar" => BarAt::parse(keys, channel).map(|bar| Self::Bar(Box::new(bar))),
            "ticker" => {
                let fields: Vec<_> = TICKER.iter().filter_map(|(key, field)| Some((*field, keys.path(key)?))).collect();
                if fields.is_empty() {
                    let known: Vec<&str> = TICKER.iter().map(|(key, _)| *key).collect();
                    keys.wrong("kind", format!("a ticker needs at least one of {}", known.join(", ")));
                }
                Some(Self::Ticker { time: time("time"), fields })
            }
            "ack" => {
                if !keys.has("id") && !keys.has("topic") {
                    keys.wrong("id", "is absent; it is needed: the path of the request's id, or `topic`");
                }
                Key::parse(keys).map(Self::Ack)
            }
            "error" => Some(Self::Error { key: Key::parse(keys), code: keys.path("code"), text: keys.path("message") }),
            "ping" => {
                keys.needed("answer", "the text that answers it; {path} is what stands there");
                let answer = Template::parse(keys.text("answer")?);
                answer.places().filter_map(|place| Path::parse(place).err()).for_each(|why| keys.wrong("answer", why));
                Some(Self::Ping { answer })
            }
            "pong" => Some(Self::Pong),
            "heartbeat" => Some(Self::Heartbeat),
            "shutdown" => Some(Self::Shutdown),
            _ => Some(Self::Ignore),
        }
    }

    fn read(
        &self,
        symbol: Symbol,
        scope: Scope<'_, '_>,
        common: &Common,
        seen: &mut BTreeMap<String, usize>,
    ) -> Result<Event, String> {
        Ok(match self {
            Self::Trade { price, size, side, id, time, event_time, history } => {
                let (price, side, ts) = (number(price, scope)?, side.read(scope)?, time.read(scope)?);
                // The sign of a size tells the side, where it tells anything.
                let size = number(size, scope)?.abs();
                if size.is_zero() {
                    return Err("a trade of size 0".to_owned());
                }
                let (id, venue_id) = match (common.ids, id) {
                    (Ids::Consecutive | Ids::Rising, Some(path)) => (whole(path, scope)?, None),
                    (Ids::Unordered, Some(path)) => (0, Some(word(path, scope)?.into())),
                    _ => (0, Some(apart(&symbol, ts, price, size, side, seen))),
                };
                let event_ts = TimeAt::maybe(event_time.as_ref(), scope)?;
                let backfill = history.as_ref().is_some_and(|when| when.holds(scope));
                let (unit, aggregate, extra) = (common.unit, None, None);
                Event::Trade(Trade {
                    symbol,
                    id,
                    venue_id,
                    price,
                    size,
                    unit,
                    side,
                    ts,
                    event_ts,
                    aggregate,
                    backfill,
                    extra,
                })
            }
            Self::Quote { bid, bid_size, ask, ask_size, seq, time, event_time } => {
                // An empty side is written as nothing, null, or a price of zero.
                let pair = |price: &Path, size: &Path| -> Result<_, String> {
                    match maybe_number(Some(price), scope)?.filter(|price| !price.is_zero()) {
                        Some(price) => Ok(Some((price, number(size, scope)?))),
                        None => Ok(None),
                    }
                };
                let (bid, ask) = (pair(bid, bid_size)?, pair(ask, ask_size)?);
                if bid.is_none() && ask.is_none() {
                    return Err("a quote without a bid and without an ask".to_owned());
                }
                let (ts, event_ts) = (TimeAt::maybe(time.as_ref(), scope)?, TimeAt::maybe(event_time.as_ref(), scope)?);
                let seq = maybe_whole(seq.as_ref(), scope)?;
                Event::Bbo(Bbo { symbol, bid, ask, unit: common.unit, seq, ts, event_ts })
            }
            Self::Bar(bar) => Event::Bar(Box::new(bar.read(symbol, scope)?)),
            Self::Ticker { time, fields } => {
                let ts = TimeAt::maybe(time.as_ref(), scope)?;
                let mut ticker = Ticker { symbol, ts, ..Ticker::default() };
                let mut any = false;
                for (field, path) in fields {
                    let value = maybe_number(Some(path), scope)?;
                    any |= value.is_some();
                    *field(&mut ticker) = value;
                }
                if !any {
                    return Err("a ticker without any of its numbers".to_owned());
                }
                Event::Ticker(Box::new(ticker))
            }
            _ => unreachable!("Invariant: the caller read the other kinds"),
        })
    }
}

/// Tells a trade without an id apart: what it says, and which one among equal ones of its frame it is.
fn apart(
    symbol: &str,
    ts: Nanos,
    price: Decimal,
    size: Decimal,
    side: Side,
    seen: &mut BTreeMap<String, usize>,
) -> Symbol {
    let what = format!("{}-{}-{}-{}", ts.0, price.normalize(), size.normalize(), side.as_str());
    let count = seen.entry(format!("{symbol} {what}")).or_default();
    *count += 1;
    if *count == 1 { what.into() } else { format!("{what}-{count}").into() }
}

impl Key {
    /// `id`, the path of the request's id, or `topic`, a template of the topic that is answered.
    fn parse(keys: &Keys<'_>) -> Option<Self> {
        if let Some(text) = keys.has("topic").then(|| keys.text("topic")).flatten() {
            let topic = Template::parse(text);
            topic.places().filter_map(|place| Path::parse(place).err()).for_each(|why| keys.wrong("topic", why));
            return Some(Self::Topic(topic));
        }
        keys.value("topic");
        keys.path("id").map(Self::Id)
    }

    fn read(&self, scope: Scope<'_, '_>) -> Result<String, String> {
        match self {
            Self::Id(path) => word(path, scope).map(str::to_owned),
            Self::Topic(topic) => topic.fill_from(scope),
        }
    }
}

impl LevelsAt {
    fn parse(keys: &Keys<'_>, key: &'static str) -> Option<Self> {
        let table = keys.table(key)?;
        let this = Self::of(&table);
        table.done();
        this
    }

    fn of(table: &Keys<'_>) -> Option<Self> {
        table.needed("list", "the path of the levels, with [*]");
        table.needed("price", "the price's path in a level, such as \"[0]\"");
        table.needed("size", "the size's path in a level; 0 deletes it");
        let (list, price, size) = (table.list("list"), table.path("price"), table.path("size"));
        Some(Self { list: list?, price: price?, size: size? })
    }

    fn one(&self, scope: Scope<'_, '_>) -> Result<(Decimal, Decimal), String> {
        Ok((number(&self.price, scope)?, number(&self.size, scope)?))
    }

    /// `None`: the message has no such list.
    fn read(&self, scope: Scope<'_, '_>) -> Result<Option<Vec<(Decimal, Decimal)>>, String> {
        let Some(rows) = self.list.all(scope) else { return Ok(None) };
        rows.into_iter().map(|row| self.one(Scope { row, ..scope })).collect::<Result<_, _>>().map(Some)
    }
}

impl BookAt {
    fn parse(keys: &Keys<'_>) -> Option<Self> {
        let action = if keys.has("snapshot_when") {
            keys.value("action");
            Some(ActionAt::SnapshotWhen(When::parse(keys, "snapshot_when")))
        } else {
            keys.needed("action", "snapshot or update; or `snapshot_when`, which tells one from the other");
            let known = [("snapshot", BookAction::Snapshot), ("update", BookAction::Update)];
            keys.has("action").then(|| keys.one_of("action", &known)).flatten().map(ActionAt::Always)
        };
        let (bids, asks) = (LevelsAt::parse(keys, "bids"), LevelsAt::parse(keys, "asks"));
        let levels = keys.has("levels").then(|| keys.table("levels")).flatten().and_then(|table| {
            let (levels, side) = (LevelsAt::of(&table), {
                table.needed("side", "which side a level is of; buy is the bids");
                SideAt::parse(&table, "side")
            });
            table.done();
            levels.zip(side)
        });
        if !keys.has("levels") && !(keys.has("bids") && keys.has("asks")) {
            keys.value("levels");
            keys.wrong("bids", "is absent; needed are `bids` and `asks`, or `levels` with both sides in one list");
        }
        let partial = keys.flag("partial").unwrap_or(false);
        let (first, last, previous) = (keys.path("first"), keys.path("last"), keys.path("previous"));
        let (time, event_time) = (TimeAt::parse(keys, "time"), TimeAt::parse(keys, "event_time"));
        Some(Self { action: action?, bids, asks, levels, partial, first, last, previous, time, event_time })
    }

    fn read(&self, symbol: Symbol, scope: Scope<'_, '_>, unit: SizeUnit) -> Result<Book, String> {
        let action = match &self.action {
            ActionAt::Always(action) => *action,
            ActionAt::SnapshotWhen(when) if when.holds(scope) => BookAction::Snapshot,
            ActionAt::SnapshotWhen(_) => BookAction::Update,
        };
        let side = |at: &Option<LevelsAt>| at.as_ref().map_or(Ok(None), |at| at.read(scope));
        let (mut bids, mut asks) = (side(&self.bids)?, side(&self.asks)?);
        if let Some((levels, side)) = &self.levels
            && let Some(rows) = levels.list.all(scope)
        {
            for row in rows {
                let scope = Scope { row, ..scope };
                let to = if side.read(scope)? == Side::Buy { &mut bids } else { &mut asks };
                to.get_or_insert_default().push(levels.one(scope)?);
            }
            bids.get_or_insert_default();
        }
        if bids.is_none() && asks.is_none() {
            return Err("a book without bids and without asks".to_owned());
        }
        Ok(Book {
            symbol,
            action,
            partial: self.partial,
            seq_first: maybe_whole(self.first.as_ref(), scope)?,
            seq_last: maybe_whole(self.last.as_ref(), scope)?,
            seq_prev: maybe_whole(self.previous.as_ref(), scope)?,
            bids: bids.unwrap_or_default(),
            asks: asks.unwrap_or_default(),
            unit,
            checksum: None,
            ts: TimeAt::maybe(self.time.as_ref(), scope)?,
            event_ts: TimeAt::maybe(self.event_time.as_ref(), scope)?,
        })
    }
}

impl BarAt {
    fn parse(keys: &Keys<'_>, channel: &str) -> Option<Self> {
        let width = if keys.has("width_at") {
            keys.value("width");
            keys.path("width_at").map(Err)
        } else {
            // Of history the width is the one that was asked for.
            if channel != "history" {
                keys.needed("width", "the venue's name of the candle's width, such as \"1d\"; or `width_at`, its path");
            }
            Some(Ok(keys.text("width").unwrap_or_default().to_owned()))
        };
        keys.needed("open_time", "when it opens, such as { at = \"Date\", form = \"%Y-%m-%d\" }");
        let (open_time, close_time) = (TimeAt::parse(keys, "open_time"), TimeAt::parse(keys, "close_time"));
        let prices = ["open", "high", "low", "close"].map(|key| {
            keys.needed(key, "the price's path");
            keys.path(key)
        });
        let (volume, quote_volume, trades) = (keys.path("volume"), keys.path("quote_volume"), keys.path("trades"));
        let closed = match keys.value("closed") {
            Some(toml::Value::Boolean(closed)) => Ok(Some(*closed)),
            Some(_) => Err(keys.path("closed")?),
            None => Ok(None),
        };
        let event_time = TimeAt::parse(keys, "event_time");
        let [open, high, low, close] = prices;
        let prices = [open?, high?, low?, close?];
        let (width, open_time) = (width?, open_time?);
        Some(Self { width, open_time, close_time, prices, volume, quote_volume, trades, closed, event_time })
    }

    fn read(&self, symbol: Symbol, scope: Scope<'_, '_>) -> Result<Bar, String> {
        let price = |n: usize| number(&self.prices[n], scope);
        Ok(Bar {
            symbol,
            interval: match &self.width {
                Ok(width) => width.clone(),
                Err(path) => word(path, scope)?.to_owned(),
            },
            open_ts: self.open_time.read(scope)?,
            close_ts: TimeAt::maybe(self.close_time.as_ref(), scope)?,
            open: price(0)?,
            high: price(1)?,
            low: price(2)?,
            close: price(3)?,
            volume_base: maybe_number(self.volume.as_ref(), scope)?,
            volume_quote: maybe_number(self.quote_volume.as_ref(), scope)?,
            volume: None,
            trades: maybe_whole(self.trades.as_ref(), scope)?,
            closed: match &self.closed {
                Ok(closed) => *closed,
                Err(path) => maybe_flag(Some(path), scope)?,
            },
            event_ts: TimeAt::maybe(self.event_time.as_ref(), scope)?,
        })
    }
}
