//! A venue's description: the TOML file as a struct. The files in `ingest/examples/venues/` are the manual.

use rust_decimal::Decimal;
use schemas::config::ConfigError;
use schemas::fixed::Scale;
use schemas::instrument::{InstrumentKind, SizeUnit, Terms};
use schemas::wire::Version;
use schemas::{Instrument, Notional, Price, Qty, Timeframe};
use sha2::{Digest, Sha256};

use super::files::Files;
use super::json::{Json, Path, Scope};
use super::keys::{Keys, Problems, short};
use super::message::{About, Common, Ids, Message};
use super::value::{Symbols, Template, inside};
use crate::book::Rule;
use crate::connection::Carries;
use crate::event::Event;
use crate::venue::digits;

/// A whole description, checked.
#[derive(Clone, Debug)]
pub struct Description {
    /// For people.
    pub name: String,
    /// SHA-256 (hex) of the text: what is read by another description is another recording.
    pub digest: String,
    pub common: Common,
    /// The message proper, where frames wrap it.
    pub unwrap: Option<Path>,
    pub connect: Connect,
    pub subscribe: Option<Subscribe>,
    pub ping: Option<(i64, String)>,
    pub limits: Bounds,
    pub channels: Vec<Channel>,
    pub book: BookRule,
    pub backfill: Option<Get>,
    pub history: Option<History>,
    pub messages: Vec<Message>,
    pub files: Option<Files>,
    terms: Vec<(String, Stated)>,
    usual: Stated,
}

/// Addresses; a venue that is only read from files has none.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// Scheme and host, and those of the venue's test system.
    pub url: String,
    pub test_url: String,
    /// Path and query behind it.
    pub path: String,
    pub rest: String,
    pub test_rest: String,
    /// Sent first; nothing comes back.
    pub hello: Vec<String>,
}

/// How topics are subscribed and left.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub message: Template,
    pub unsubscribe: Template,
    pub topics_per_message: usize,
    pub answer: Answer,
}

/// What comes back of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// One answer with the request's id.
    Id,
    /// One answer a topic, with its text.
    Topic,
    Nothing,
}

/// What the venue allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub messages_per_s: i64,
    pub topics_max: usize,
    pub quiet_ms: i64,
    pub requests_per_minute: u32,
    pub connects_per_minute: u32,
}

/// One channel of the configuration's `channels`.
#[derive(Clone, Debug)]
pub struct Channel {
    pub name: String,
    pub carries: Carries,
    pub how: How,
}

#[derive(Clone, Debug)]
pub enum How {
    /// Subscribed on the socket, under this name; with messages of its own where it needs them.
    Topic { topic: Template, subscribe: Option<Template>, unsubscribe: Option<Template> },
    /// Asked for again and again.
    Poll {
        get: Get,
        every_ms: i64,
        /// An answer holds everything of this long before it was asked for; 0: it holds the newest rows, however old.
        covers_ms: i64,
    },
}

/// A REST request for public data.
#[derive(Clone, Debug)]
pub struct Get {
    /// Path and query.
    pub path: Template,
    pub weight: u32,
}

#[derive(Clone, Debug)]
pub struct BookRule {
    pub rule: Rule,
    pub snapshot: Option<Get>,
    /// Levels a side that the venue keeps up: it does not delete what falls behind them. 0: all.
    pub depth: usize,
}

#[derive(Clone, Debug)]
pub struct History {
    pub get: Get,
    /// Our width, and the venue's word for it.
    pub widths: Vec<(Timeframe, String)>,
}

/// What is stated of an instrument.
#[derive(Clone, Debug, Default)]
struct Stated {
    base: Option<String>,
    quote: Option<String>,
    kind: Option<InstrumentKind>,
    tick: Option<Decimal>,
    lot: Option<Decimal>,
    contract_size: Option<Decimal>,
}

/// Book rules by their words.
pub const RULES: &[(&str, Rule)] = &[
    ("first_last", Rule::FirstLast),
    ("previous_last", Rule::PreviousLast),
    ("chain", Rule::Chain),
    ("asked", Rule::Asked),
    ("linked", Rule::Linked),
    ("counted", Rule::Counted),
    ("unnumbered", Rule::Unnumbered),
    ("whole", Rule::Whole),
];

const UNITS: &[(&str, SizeUnit)] =
    &[("base", SizeUnit::Base), ("quote_usd", SizeUnit::QuoteUsd), ("contracts", SizeUnit::Contracts)];

const CARRIES: &[(&str, Carries)] = &[("trades", Carries::Trades), ("book", Carries::Book), ("other", Carries::Other)];

/// Names that a channel cannot have: answers of requests are known by them.
const TAKEN: &[&str] = &["backfill", "history", "snapshot"];

/// Places of a template that stand for a symbol: as the venue spells it, and in lower and upper case.
const SYMBOL: &[&str] = &["symbol", "lower", "upper"];

impl Description {
    /// Reads and checks a description; `file` names it in errors. All that is wrong is told.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| vec![ConfigError::new(file, "(syntax)", e.to_string().trim())])?;
        let problems = Problems::new(file);
        let this = Self::read_all(&table, text, &problems);
        match (this, problems.into_vec()) {
            (Some(this), problems) if problems.is_empty() => Ok(this),
            (_, problems) => Err(problems),
        }
    }

    pub(super) fn read_all(table: &toml::Table, text: &str, problems: &Problems) -> Option<Self> {
        let this = Self::read(Keys::new("", table, problems), text)?;
        // What is half read would only be told twice.
        if problems.none() {
            this.check(problems);
        }
        Some(this)
    }

    fn read(keys: Keys<'_>, text: &str) -> Option<Self> {
        let name = keys.text("name").unwrap_or_default().to_owned();
        let unit = keys.one_of("size_unit", UNITS).unwrap_or(SizeUnit::Base);
        keys.needed("trade_ids", "consecutive, rising, unordered or none");
        let ids = keys.has("trade_ids").then(|| keys.one_of("trade_ids", Ids::KNOWN)).flatten().unwrap_or(Ids::None);
        let common = Common { unit, ids, symbols: Symbols::parse(&keys, "symbols") };
        let unwrap = keys.path("unwrap");
        let connect = keys.table("connect").map(Connect::read).unwrap_or_default();
        let limits = Bounds::read(keys.table("limits"));
        let subscribe = keys.table("subscribe").and_then(Subscribe::read);
        let ping = keys.table("ping").and_then(|table| {
            table.needed("every_ms", "between two pings");
            table.needed("message", "the ping");
            let ping = table.number("every_ms", 100..=3_600_000).zip(table.text("message").map(str::to_owned));
            table.done();
            ping
        });
        let channels = keys.tables("channel").into_iter().filter_map(Channel::read).collect();
        let book = keys.table("book").and_then(BookRule::read);
        let book = book.unwrap_or(BookRule { rule: Rule::Whole, snapshot: None, depth: 0 });
        let backfill = keys.table("backfill").and_then(|table| {
            let get = Get::read(&table, &["after", "next"]);
            table.done();
            get
        });
        let history = keys.table("history").and_then(History::read);
        let messages: Vec<Message> = {
            keys.needed("message", "at least one [[message]]");
            keys.tables("message").into_iter().filter_map(|table| Message::parse(table, ids)).collect()
        };
        let files = keys.table("files").and_then(Files::read);
        let usual = keys.table("instrument").map(Stated::read).unwrap_or_default();
        let mut terms = Vec::new();
        if let Some(table) = keys.table("instruments") {
            for (symbol, value) in table.members() {
                match value {
                    toml::Value::Table(inner) => {
                        let at = format!("instruments.{symbol}");
                        terms.push((symbol.to_owned(), Stated::read(Keys::new(at, inner, keys.problems()))));
                    }
                    other => table.wrong(symbol, format!("`{}` stands there; allowed is a table", short(other))),
                }
            }
        }
        keys.done();
        let digest = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self {
            name,
            digest,
            common,
            unwrap,
            connect,
            subscribe,
            ping,
            limits,
            channels,
            book,
            backfill,
            history,
            messages,
            files,
            terms,
            usual,
        })
    }

    /// What only shows when all is put together.
    fn check(&self, problems: &Problems) {
        let has = |kind: &str| self.messages.iter().any(|m| m.kind == kind);
        let topics = self.channels.iter().any(|c| matches!(c.how, How::Topic { .. }));
        let polls = self.channels.iter().any(|c| matches!(c.how, How::Poll { .. }));
        if !topics && !polls && self.files.is_none() {
            problems.add("channel", "there is none, and no [files] either: nothing could be read");
        }
        if topics && self.connect.url.is_empty() {
            problems.add("connect.url", "is absent; channels with a `topic` need it, such as wss://stream.example.com");
        }
        if topics && self.subscribe.is_none() {
            problems.add("subscribe", "is absent; channels with a `topic` need it");
        }
        if (polls || self.book.snapshot.is_some() || self.backfill.is_some() || self.history.is_some())
            && self.connect.rest.is_empty()
        {
            problems.add("connect.rest", "is absent; REST requests need it, such as https://api.example.com");
        }
        if self.ping.is_some() && !has("pong") {
            problems.add("ping", "must be answered, but no [[message]] has kind = \"pong\"");
        }
        if let Some(subscribe) = &self.subscribe
            && subscribe.answer != Answer::Nothing
            && !has("ack")
        {
            let why = "an answer is awaited, but no [[message]] has kind = \"ack\"; allowed is answer = \"nothing\"";
            problems.add("subscribe.answer", why);
        }
        for (n, channel) in self.channels.iter().enumerate() {
            if self.channels[..n].iter().any(|c| c.name == channel.name) {
                problems.add(format!("channel[{}].name", n + 1), format!("`{}` is there already", channel.name));
            }
            let at = |key: &str| format!("channel[{}].{key}", n + 1);
            match &channel.how {
                How::Topic { topic, subscribe, unsubscribe } => {
                    let filled = self.topic(topic, "X-Y");
                    for (key, own) in [("subscribe", subscribe), ("unsubscribe", unsubscribe)] {
                        let one = [(filled.clone(), "X-Y".to_owned())];
                        if let Some(Err(why)) = own.as_ref().map(|own| self.request(own, 7, &one)) {
                            problems.add(at(key), why);
                        }
                    }
                }
                How::Poll { .. } if channel.carries == Carries::Book && self.book.rule != Rule::Whole => {
                    problems
                        .add(at("carries"), "a book that is polled is whole each time: book.rule must be \"whole\"");
                }
                How::Poll { .. } => {}
            }
        }
        self.check_subscribe(problems);
        let answers = self.channels.iter().filter(|c| matches!(c.how, How::Poll { .. })).map(|c| c.name.as_str());
        let answers: Vec<&str> = answers.chain(TAKEN.iter().copied()).collect();
        for message in self.messages.iter().filter(|m| !m.channel.is_empty()) {
            if !answers.contains(&message.channel.as_str()) {
                let why = format!("`{}` stands there; allowed is one of {}", message.channel, answers.join(", "));
                problems.add(format!("{}.channel", message.name), why);
            }
        }
        for message in self.messages.iter().filter(|m| m.is_data() && !m.names_symbol()) {
            if topics && !polls && self.files.is_none() && message.channel.is_empty() && message.kind != "book" {
                let why = "is absent; it is needed: what comes on the socket tells its symbol nowhere else";
                problems.add(format!("{}.symbol", message.name), why);
            }
        }
    }

    /// Filled in as they will be, requests must be what the venue can read.
    fn check_subscribe(&self, problems: &Problems) {
        let Some(subscribe) = &self.subscribe else { return };
        let many: Vec<(String, String)> =
            (0..subscribe.topics_per_message.min(2)).map(|n| (format!("t{n}"), format!("S{n}"))).collect();
        for (key, message) in [("message", &subscribe.message), ("unsubscribe", &subscribe.unsubscribe)] {
            if let Err(why) = self.request(message, 7, &many) {
                problems.add(format!("subscribe.{key}"), why);
            }
        }
        if subscribe.answer == Answer::Id && !subscribe.message.places().any(|p| p == "id") {
            problems.add("subscribe.message", "has no {id}, but answer = \"id\" knows requests by it");
        }
    }

    /// A request for these topics and their symbols (in the venue's spelling), filled in.
    pub fn request(&self, message: &Template, id: u64, topics: &[(String, String)]) -> Result<String, String> {
        let only = |what: &str| match topics {
            [one] => Ok(one),
            _ => Err(format!("{{{what}}} is of one topic: topics_per_message must be 1")),
        };
        let text = message.fill(|place| match place {
            "id" => Ok(id.to_string()),
            "topics" => {
                Ok(topics.iter().map(|(topic, _)| format!("\"{}\"", inside(topic))).collect::<Vec<_>>().join(","))
            }
            "topic" => Ok(inside(&only(place)?.0)),
            "symbol" => Ok(inside(&only(place)?.1)),
            "lower" => Ok(inside(&only(place)?.1.to_lowercase())),
            "upper" => Ok(inside(&only(place)?.1.to_uppercase())),
            other => Err(format!(
                "{{{other}}} is unknown; there are: {{id}}, {{topics}}, {{topic}}, {{symbol}}, {{lower}}, {{upper}}"
            )),
        })?;
        if message.text().trim_start().starts_with(['{', '[']) {
            Json::parse(&text).map_err(|why| format!("filled in it is `{text}`: {why}"))?;
        }
        Ok(text)
    }

    /// The topic of a symbol in the venue's spelling.
    pub fn topic(&self, topic: &Template, theirs: &str) -> String {
        topic.fill(|place| symbol(place, theirs)).unwrap_or_default()
    }

    /// Reads a frame; what it says is appended. Gives the place of the message that it was.
    pub fn decode(&self, text: &str, about: About<'_>, out: &mut Vec<Event>) -> Option<usize> {
        let frame = match Json::parse(text) {
            Ok(frame) => frame,
            Err(why) => {
                out.push(Event::Malformed(why));
                return None;
            }
        };
        self.decode_json(&frame, about, out)
    }

    pub fn decode_json(&self, frame: &Json<'_>, about: About<'_>, out: &mut Vec<Event>) -> Option<usize> {
        let inner = self.unwrap.as_ref().and_then(|path| path.get(Scope { frame, row: frame }));
        let message = inner.unwrap_or(frame);
        let Some(at) = self.messages.iter().position(|m| m.matches(frame, message, about)) else {
            out.push(Event::Malformed(format!(
                "none of the {} [[message]] tables is of this: {message}",
                self.messages.len()
            )));
            return None;
        };
        if let Err(why) = self.messages[at].decode(frame, message, about, &self.common, out) {
            out.push(Event::Malformed(why));
        }
        Some(at)
    }

    /// What is stated of an instrument; what is not has no size or step.
    pub fn instrument(&self, venue: &str, symbol: &str) -> Instrument {
        let own = self.terms.iter().find(|(name, _)| name == symbol).map(|(_, stated)| stated);
        let own = own.unwrap_or(&self.usual);
        let usual = &self.usual;
        let kind = own.kind.or(usual.kind).unwrap_or(InstrumentKind::Spot);
        let (tick, lot) = (own.tick.or(usual.tick).unwrap_or_default(), own.lot.or(usual.lot).unwrap_or_default());
        let word = |own: &Option<String>, usual: &Option<String>| own.clone().or_else(|| usual.clone());
        Instrument {
            v: Version,
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            base: word(&own.base, &usual.base).unwrap_or_else(|| symbol.to_owned()),
            quote: word(&own.quote, &usual.quote).unwrap_or_default(),
            kind,
            size_unit: self.common.unit,
            contract_size: Qty::new(own.contract_size.or(usual.contract_size).unwrap_or(Decimal::ONE)),
            inverse: self.common.unit == SizeUnit::QuoteUsd,
            tick: Price::new(tick),
            lot: Qty::new(lot),
            min_notional: Notional::new(Decimal::ZERO),
            scale: Scale { price: digits(tick), qty: digits(lot) },
            trading: true,
            terms: Terms::default(),
        }
        .named()
    }
}

/// A place of a template that stands for a symbol.
pub fn symbol(place: &str, theirs: &str) -> Result<String, String> {
    match place {
        "symbol" => Ok(theirs.to_owned()),
        "lower" => Ok(theirs.to_lowercase()),
        "upper" => Ok(theirs.to_uppercase()),
        other => Err(format!("{{{other}}} is unknown here")),
    }
}

/// A template that knows these places alone.
fn template(keys: &Keys<'_>, key: &'static str, more: &[&str]) -> Option<Template> {
    let template = Template::parse(keys.text(key)?);
    let known = || SYMBOL.iter().chain(more);
    for place in template.places().filter(|place| !known().any(|k| k == place)) {
        let known: Vec<String> = known().map(|place| format!("{{{place}}}")).collect();
        keys.wrong(key, format!("{{{place}}} is unknown; there are: {}", known.join(", ")));
    }
    Some(template)
}

impl Connect {
    fn read(keys: Keys<'_>) -> Self {
        let url = |key: &'static str, schemes: [&str; 2]| {
            let text = keys.text(key).unwrap_or_default().trim_end_matches('/');
            if !text.is_empty() && !schemes.iter().any(|scheme| text.starts_with(scheme)) {
                keys.wrong(key, format!("`{text}` does not begin with {} or {}", schemes[0], schemes[1]));
            }
            text.to_owned()
        };
        let (ws, http) = (["wss://", "ws://"], ["https://", "http://"]);
        let this = Self {
            url: url("url", ws),
            test_url: url("test_url", ws),
            path: keys.text("path").unwrap_or_default().to_owned(),
            rest: url("rest", http),
            test_rest: url("test_rest", http),
            hello: keys.words("hello").unwrap_or_default(),
        };
        keys.done();
        this
    }
}

impl Subscribe {
    fn read(keys: Keys<'_>) -> Option<Self> {
        keys.needed("message", "the request that subscribes; {topics}, {topic}, {symbol}, {id} are filled in");
        keys.needed("unsubscribe", "the request that leaves");
        keys.needed("answer", "id, topic or nothing");
        let message = keys.text("message").map(Template::parse);
        let unsubscribe = keys.text("unsubscribe").map(Template::parse);
        let topics_per_message = keys.number("topics_per_message", 1..=10_000).unwrap_or(1) as usize;
        let known = [("id", Answer::Id), ("topic", Answer::Topic), ("nothing", Answer::Nothing)];
        let answer = keys.has("answer").then(|| keys.one_of("answer", &known)).flatten();
        keys.done();
        Some(Self { message: message?, unsubscribe: unsubscribe?, topics_per_message, answer: answer? })
    }
}

impl Bounds {
    fn read(keys: Option<Keys<'_>>) -> Self {
        let number = |key: &'static str, usual: i64, max: i64| {
            keys.as_ref().and_then(|keys| keys.number(key, 1..=max)).unwrap_or(usual)
        };
        let this = Self {
            messages_per_s: number("messages_per_s", 5, 1000),
            topics_max: number("topics_max", 100, 100_000) as usize,
            quiet_ms: number("quiet_ms", 60_000, 3_600_000),
            requests_per_minute: number("requests_per_minute", 60, 1_000_000) as u32,
            connects_per_minute: number("connects_per_minute", 20, 100_000) as u32,
        };
        if let Some(keys) = keys {
            keys.done();
        }
        this
    }
}

impl Channel {
    fn read(keys: Keys<'_>) -> Option<Self> {
        keys.needed("name", "as ingest.venues.<id>.channels names it");
        keys.needed("carries", "trades, book or other");
        let name = keys.text("name").map(str::to_owned);
        if let Some(taken) = name.as_deref().filter(|name| TAKEN.contains(name)) {
            keys.wrong("name", format!("`{taken}` names other answers; it cannot be {}", TAKEN.join(", ")));
        }
        let carries = keys.has("carries").then(|| keys.one_of("carries", CARRIES)).flatten();
        let how = if keys.has("get") {
            keys.needed("every_ms", "between two requests of a symbol");
            let every_ms = keys.number("every_ms", 100..=86_400_000);
            let covers_ms = keys.number("covers_ms", 1..=604_800_000).unwrap_or(0);
            Get::read(&keys, &[]).zip(every_ms).map(|(get, every_ms)| How::Poll { get, every_ms, covers_ms })
        } else {
            keys.needed("topic", "as the venue names it for a {symbol}; or `get`, a path that is polled");
            let topic = template(&keys, "topic", &[]);
            let own = |key: &'static str| keys.text(key).map(Template::parse);
            let (subscribe, unsubscribe) = (own("subscribe"), own("unsubscribe"));
            topic.map(|topic| How::Topic { topic, subscribe, unsubscribe })
        };
        keys.done();
        Some(Self { name: name?, carries: carries?, how: how? })
    }
}

impl Get {
    /// `get` and `weight` of a table.
    fn read(keys: &Keys<'_>, more: &[&str]) -> Option<Self> {
        keys.needed("get", "a path and query, such as /trades?pair={symbol}");
        let path = template(keys, "get", more);
        let weight = keys.number("weight", 1..=100_000).unwrap_or(1) as u32;
        let path = path?;
        if !path.text().starts_with('/') {
            keys.wrong("get", format!("`{}` stands there; allowed is a path that begins with /", path.text()));
        }
        Some(Self { path, weight })
    }
}

impl BookRule {
    fn read(keys: Keys<'_>) -> Option<Self> {
        keys.needed("rule", "whole, unnumbered, counted, chain, linked, asked, first_last or previous_last");
        let rule = keys.has("rule").then(|| keys.one_of("rule", RULES)).flatten();
        let snapshot = keys.has("get").then(|| Get::read(&keys, &[])).flatten();
        let depth = keys.number("depth", 1..=100_000).unwrap_or(0) as usize;
        if let Some(rule) = rule {
            if rule.wants_snapshot() && !keys.has("get") {
                keys.wrong("get", "is absent; by this rule a book starts from a snapshot by REST");
            }
            if !rule.wants_snapshot() && keys.has("get") {
                keys.wrong("get", "stands there, but by this rule the snapshot comes on the channel itself");
            }
        }
        keys.value("get");
        keys.value("weight");
        keys.done();
        Some(Self { rule: rule?, snapshot, depth })
    }
}

impl History {
    fn read(keys: Keys<'_>) -> Option<Self> {
        let get = Get::read(&keys, &["width", "before_ms", "before_s", "limit"]);
        keys.needed("widths", "our widths and the venue's words for them, such as { \"1m\" = \"1min\" }");
        let mut widths = Vec::new();
        if let Some(table) = keys.table("widths") {
            for (ours, value) in table.members() {
                match (ours.parse::<Timeframe>(), value.as_str()) {
                    (Ok(width), Some(theirs)) => widths.push((width, theirs.to_owned())),
                    (Err(why), _) => table.wrong(ours, why),
                    (_, None) => table.wrong(ours, format!("`{}` stands there; allowed is a text", short(value))),
                }
            }
        }
        keys.done();
        Some(Self { get: get?, widths })
    }
}

impl Stated {
    fn read(keys: Keys<'_>) -> Self {
        const KINDS: &[(&str, InstrumentKind)] = &[
            ("spot", InstrumentKind::Spot),
            ("perpetual", InstrumentKind::Perpetual),
            ("future", InstrumentKind::Future),
        ];
        let this = Self {
            base: keys.text("base").map(str::to_owned),
            quote: keys.text("quote").map(str::to_owned),
            kind: keys.one_of("kind", KINDS),
            tick: keys.decimal("tick"),
            lot: keys.decimal("lot"),
            contract_size: keys.decimal("contract_size"),
        };
        keys.done();
        this
    }
}
