//! What stands at a path, as what it means: numbers, times, sides, symbols, words. Errors say what stands there.

use std::collections::BTreeMap;

use rust_decimal::prelude::ToPrimitive;
use schemas::{Decimal, Nanos, Side};
use time::format_description::OwnedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, PrimitiveDateTime};
use toml::Value;

use super::json::{Json, Path, Scope};
use super::keys::{Keys, short};
use crate::event::Symbol;
use crate::text::{decimal, instant};

/// A constant that a description compares with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Const {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl Const {
    fn parse(value: &Value) -> Option<Self> {
        Some(match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Integer(n) => Self::Number(*n),
            Value::Boolean(b) => Self::Bool(*b),
            _ => return None,
        })
    }

    fn is(&self, json: &Json<'_>) -> bool {
        match (self, json) {
            (Self::Text(want), Json::Text(text)) => *want == **text,
            (Self::Number(want), Json::Number(text)) => text.parse() == Ok(*want),
            (Self::Bool(want), Json::Bool(value)) => want == value,
            _ => false,
        }
    }
}

impl std::fmt::Display for Const {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Bool(b) => write!(f, "{b}"),
        }
    }
}

/// A constant, or a list of them.
fn constants(value: &Value) -> Option<Vec<Const>> {
    match value {
        Value::Array(list) => list.iter().map(Const::parse).collect(),
        one => Some(vec![Const::parse(one)?]),
    }
}

fn show(words: &[Const]) -> String {
    words.iter().map(Const::to_string).collect::<Vec<_>>().join(" or ")
}

/// What must hold at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    OneOf(Vec<Const>),
    /// Something but null stands there, or nothing.
    Exists(bool),
    Starts(String),
    Ends(String),
}

impl Test {
    fn parse(value: &Value) -> Option<Self> {
        let Value::Table(table) = value else { return constants(value).map(Self::OneOf) };
        let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
        Some(match (key.as_str(), value) {
            ("exists", Value::Boolean(yes)) => Self::Exists(*yes),
            ("starts", Value::String(text)) => Self::Starts(text.clone()),
            ("ends", Value::String(text)) => Self::Ends(text.clone()),
            _ => return None,
        })
    }

    fn holds(&self, json: Option<&Json<'_>>) -> bool {
        match self {
            Self::Exists(yes) => json.is_some() == *yes,
            Self::OneOf(list) => json.is_some_and(|json| list.iter().any(|c| c.is(json))),
            Self::Starts(start) => json.and_then(Json::scalar).is_some_and(|text| text.starts_with(start)),
            Self::Ends(end) => json.and_then(Json::scalar).is_some_and(|text| text.ends_with(end)),
        }
    }
}

/// Conditions that must all hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct When(Vec<(Path, Test)>);

impl When {
    pub fn parse(keys: &Keys<'_>, key: &'static str) -> Self {
        let Some(table) = keys.table(key) else { return Self::default() };
        let mut tests = Vec::new();
        for (path, value) in table.members() {
            match (Path::parse(path), Test::parse(value)) {
                (Ok(path), Some(test)) if !path.is_list() => tests.push((path, test)),
                (Ok(path), Some(_)) => table.wrong(path.text(), "a condition is about one value: a path without [*]"),
                (Err(why), _) => table.wrong(path, why),
                (_, None) => table.wrong(
                    path,
                    format!(
                        "`{}` stands there; allowed is a text, number, true, false, a list of them, or one of \
                         {{ exists = true }}, {{ starts = \"...\" }}, {{ ends = \"...\" }}",
                        short(value)
                    ),
                ),
            }
        }
        Self(tests)
    }

    pub fn holds(&self, scope: Scope<'_, '_>) -> bool {
        self.0.iter().all(|(path, test)| test.holds(path.get(scope)))
    }
}

fn at<'j, 'a>(path: &Path, scope: Scope<'j, 'a>) -> Result<&'j Json<'a>, String> {
    path.get(scope).ok_or_else(|| format!("nothing at `{}`", path.text()))
}

pub fn number(path: &Path, scope: Scope<'_, '_>) -> Result<Decimal, String> {
    read_number(path, at(path, scope)?)
}

fn read_number(path: &Path, json: &Json<'_>) -> Result<Decimal, String> {
    let read = json.scalar().and_then(|text| decimal(text).ok());
    read.ok_or_else(|| format!("{json} at `{}` is no number", path.text()))
}

/// Absent where nothing, null or an empty text stands.
pub fn maybe_number(path: Option<&Path>, scope: Scope<'_, '_>) -> Result<Option<Decimal>, String> {
    match path.and_then(|path| Some((path, path.get(scope)?))) {
        None => Ok(None),
        Some((_, Json::Text(text))) if text.is_empty() => Ok(None),
        Some((path, json)) => read_number(path, json).map(Some),
    }
}

pub fn whole(path: &Path, scope: Scope<'_, '_>) -> Result<u64, String> {
    let json = at(path, scope)?;
    let read = json.scalar().and_then(|text| text.parse().ok());
    read.ok_or_else(|| format!("{json} at `{}` is no whole number", path.text()))
}

pub fn maybe_whole(path: Option<&Path>, scope: Scope<'_, '_>) -> Result<Option<u64>, String> {
    path.filter(|path| path.get(scope).is_some()).map(|path| whole(path, scope)).transpose()
}

/// A text or number as text.
pub fn word<'j>(path: &Path, scope: Scope<'j, '_>) -> Result<&'j str, String> {
    let json = at(path, scope)?;
    json.scalar().ok_or_else(|| format!("{json} at `{}` is neither text nor number", path.text()))
}

pub fn maybe_flag(path: Option<&Path>, scope: Scope<'_, '_>) -> Result<Option<bool>, String> {
    match path.and_then(|path| Some((path, path.get(scope)?))) {
        None => Ok(None),
        Some((_, Json::Bool(flag))) => Ok(Some(*flag)),
        Some((path, json)) => Err(format!("{json} at `{}` is neither true nor false", path.text())),
    }
}

/// How a time is written.
#[derive(Clone, Debug)]
enum Unit {
    /// A number of units of so many nanoseconds since 1970.
    Ns(i64),
    /// Milli-, micro- or nanoseconds, told apart by their magnitude.
    Magnitude,
    Rfc3339,
    /// A text of this form, in UTC where it names no offset; a bare date is its midnight.
    Form(OwnedFormatItem),
}

const UNITS: &[(&str, Option<i64>)] =
    &[("s", Some(1_000_000_000)), ("ms", Some(1_000_000)), ("us", Some(1000)), ("ns", Some(1)), ("magnitude", None)];

/// A time: where it stands and how it is written.
#[derive(Clone, Debug)]
pub struct TimeAt {
    path: Path,
    unit: Unit,
}

impl TimeAt {
    /// `{ at = "T", unit = "ms" }`, or `{ at = "Date", form = "%Y-%m-%d" }`.
    pub fn parse(keys: &Keys<'_>, key: &'static str) -> Option<Self> {
        let table = keys.table(key)?;
        table.needed("at", "the path of the time");
        let path = table.path("at");
        let unit = if table.has("form") {
            if table.has("unit") {
                table.wrong("unit", "stands beside `form`; allowed is one of them");
            }
            table.value("unit");
            form(&table).map(Unit::Form)
        } else {
            table.needed("unit", "s, ms, us, ns, magnitude or rfc3339; or `form`, such as \"%Y-%m-%d\"");
            let mut known: Vec<(&str, Option<Option<i64>>)> = UNITS.iter().map(|(n, ns)| (*n, Some(*ns))).collect();
            known.push(("rfc3339", None));
            table.has("unit").then(|| table.one_of("unit", &known)).flatten().map(|unit| match unit {
                Some(Some(ns)) => Unit::Ns(ns),
                Some(None) => Unit::Magnitude,
                None => Unit::Rfc3339,
            })
        };
        table.done();
        Some(Self { path: path?, unit: unit? })
    }

    pub fn read(&self, scope: Scope<'_, '_>) -> Result<Nanos, String> {
        let json = at(&self.path, scope)?;
        let text = json.scalar().ok_or_else(|| format!("{json} at `{}` is no time", self.path.text()))?;
        self.instant(text).ok_or_else(|| format!("{json} at `{}` is no time {}", self.path.text(), self.unit.name()))
    }

    /// Absent where nothing stands there.
    pub fn maybe(this: Option<&Self>, scope: Scope<'_, '_>) -> Result<Option<Nanos>, String> {
        this.filter(|time| time.path.get(scope).is_some()).map(|time| time.read(scope)).transpose()
    }

    fn instant(&self, text: &str) -> Option<Nanos> {
        let utc = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos()).ok().map(Nanos);
        match &self.unit {
            Unit::Ns(ns) => match text.parse::<i64>() {
                Ok(number) => number.checked_mul(*ns).map(Nanos),
                Err(_) => decimal(text).ok()?.checked_mul(Decimal::from(*ns))?.trunc().to_i64().map(Nanos),
            },
            Unit::Magnitude => text.parse().ok().map(instant),
            Unit::Rfc3339 => utc(OffsetDateTime::parse(text, &Rfc3339).ok()?),
            Unit::Form(form) => match (OffsetDateTime::parse(text, form), PrimitiveDateTime::parse(text, form)) {
                (Ok(at), _) => utc(at),
                (_, Ok(at)) => utc(at.assume_utc()),
                _ => utc(Date::parse(text, form).ok()?.midnight().assume_utc()),
            },
        }
    }
}

impl Unit {
    fn name(&self) -> String {
        match self {
            Self::Ns(ns) => {
                let name = UNITS.iter().find(|(_, unit)| *unit == Some(*ns)).map_or("", |(name, _)| *name);
                format!("in {name}")
            }
            Self::Magnitude => "in ms, us or ns".to_owned(),
            Self::Rfc3339 => "of RFC 3339".to_owned(),
            Self::Form(_) => "of the form described".to_owned(),
        }
    }
}

fn form(table: &Keys<'_>) -> Option<OwnedFormatItem> {
    let text = table.text("form")?;
    match time::format_description::parse_strftime_owned(text) {
        Ok(form) => Some(form),
        Err(why) => {
            table.wrong("form", format!("`{text}` is no form of a time ({why}); allowed is such as %Y-%m-%d %H:%M:%S"));
            None
        }
    }
}

/// The aggressor's side.
#[derive(Clone, Debug)]
pub enum SideAt {
    Words {
        path: Path,
        buy: Vec<Const>,
        sell: Vec<Const>,
    },
    /// Sells are negative.
    SignOf(Path),
}

impl SideAt {
    /// `{ at = "side", buy = ["buy"], sell = ["sell"] }`, or `{ sign_of = "amount" }`.
    pub fn parse(keys: &Keys<'_>, key: &'static str) -> Option<Self> {
        let table = keys.table(key)?;
        let side = if table.has("sign_of") {
            table.path("sign_of").map(Self::SignOf)
        } else {
            table.needed("at", "the path of the side; or `sign_of`, the path of a number that is negative for sells");
            let path = table.path("at");
            let words = |key: &'static str| {
                table.needed(key, "the venue's word for it, or a list of them");
                let value = table.value(key)?;
                let words = constants(value);
                if words.is_none() {
                    table.wrong(
                        key,
                        format!("`{}` stands there; allowed are texts, numbers, true, false", short(value)),
                    );
                }
                words
            };
            match (path, words("buy"), words("sell")) {
                (Some(path), Some(buy), Some(sell)) => Some(Self::Words { path, buy, sell }),
                _ => None,
            }
        };
        table.done();
        side
    }

    pub fn read(&self, scope: Scope<'_, '_>) -> Result<Side, String> {
        match self {
            Self::Words { path, buy, sell } => {
                let json = at(path, scope)?;
                if buy.iter().any(|c| c.is(json)) {
                    Ok(Side::Buy)
                } else if sell.iter().any(|c| c.is(json)) {
                    Ok(Side::Sell)
                } else {
                    let (buy, sell) = (show(buy), show(sell));
                    Err(format!("{json} at `{}` is no side: buy is {buy}, sell is {sell}", path.text()))
                }
            }
            Self::SignOf(path) => {
                let number = number(path, scope)?;
                if number.is_zero() {
                    return Err(format!("0 at `{}` has no side", path.text()));
                }
                Ok(if number.is_sign_negative() { Side::Sell } else { Side::Buy })
            }
        }
    }
}

/// Where a row names its symbol, and what of the text is it.
#[derive(Clone, Debug)]
pub struct SymbolAt {
    path: Path,
    after: Option<String>,
    before: Option<String>,
    upper: Option<bool>,
}

impl SymbolAt {
    /// A path, or `{ at = "$.stream", before = "@", case = "upper" }`.
    pub fn parse(keys: &Keys<'_>, key: &'static str) -> Option<Self> {
        if keys.value(key)?.is_str() {
            return Some(Self { path: keys.path(key)?, after: None, before: None, upper: None });
        }
        let table = keys.table(key)?;
        table.needed("at", "the path of the symbol");
        let (path, after, before) = (table.path("at"), table.text("after"), table.text("before"));
        let upper = table.one_of("case", &[("upper", true), ("lower", false)]);
        table.done();
        Some(Self { path: path?, after: after.map(str::to_owned), before: before.map(str::to_owned), upper })
    }

    /// In the venue's spelling.
    pub fn read(&self, scope: Scope<'_, '_>) -> Result<String, String> {
        let whole = word(&self.path, scope)?;
        let wrong = |mark: &str| format!("`{whole}` at `{}` has no `{mark}`", self.path.text());
        let mut text = whole;
        if let Some(mark) = &self.after {
            text = text.split_once(mark).ok_or_else(|| wrong(mark))?.1;
        }
        if let Some(mark) = &self.before {
            text = text.split_once(mark).ok_or_else(|| wrong(mark))?.0;
        }
        if text.is_empty() {
            return Err(format!("an empty symbol at `{}`", self.path.text()));
        }
        Ok(match self.upper {
            Some(true) => text.to_uppercase(),
            Some(false) => text.to_lowercase(),
            None => text.to_owned(),
        })
    }
}

/// Our names of symbols and the venue's; what is not listed has the same on both sides.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    theirs: BTreeMap<String, String>,
    ours: BTreeMap<String, String>,
}

impl Symbols {
    pub fn parse(keys: &Keys<'_>, key: &'static str) -> Self {
        let mut symbols = Self::default();
        let Some(table) = keys.table(key) else { return symbols };
        for (ours, value) in table.members() {
            let Some(theirs) = value.as_str().filter(|text| !text.is_empty()) else {
                table.wrong(ours, format!("`{}` stands there; allowed is the venue's name of it", short(value)));
                continue;
            };
            if let Some(other) = symbols.ours.insert(theirs.to_owned(), ours.to_owned()) {
                table.wrong(ours, format!("`{theirs}` is the venue's name of {other} already"));
            }
            symbols.theirs.insert(ours.to_owned(), theirs.to_owned());
        }
        symbols
    }
    pub fn theirs<'s>(&'s self, ours: &'s str) -> &'s str {
        self.theirs.get(ours).map_or(ours, String::as_str)
    }
    pub fn ours(&self, theirs: &str) -> Symbol {
        self.ours.get(theirs).map_or(theirs, String::as_str).into()
    }
}

/// A text with places to fill in: `{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Place(String),
}

impl Template {
    /// A `{` begins a place only where a name or path and a `}` follow: a JSON object's brace is plain text.
    pub fn parse(text: &str) -> Self {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '@' | '[' | ']');
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(c) = rest.chars().next() {
            if c == '{' {
                let inner = &rest[1..];
                let end = inner.find(|c| !name(c)).unwrap_or(inner.len());
                if end > 0 && inner[end..].starts_with('}') {
                    parts.push(Part::Plain(std::mem::take(&mut plain)));
                    parts.push(Part::Place(inner[..end].to_owned()));
                    rest = &inner[end + 1..];
                    continue;
                }
            }
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
        parts.push(Part::Plain(plain));
        Self { text: text.to_owned(), parts }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(name) => Some(name.as_str()),
            Part::Plain(_) => None,
        })
    }

    /// Every place by `value`; one that it does not know is an error.
    pub fn fill(&self, mut value: impl FnMut(&str) -> Result<String, String>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Plain(plain) => text.push_str(plain),
                Part::Place(name) => text.push_str(&value(name)?),
            }
        }
        Ok(text)
    }

    /// Every place by what stands at the path that it names.
    pub fn fill_from(&self, scope: Scope<'_, '_>) -> Result<String, String> {
        self.fill(|path| {
            let path = Path::parse(path)?;
            match at(&path, scope)? {
                Json::Bool(flag) => Ok(flag.to_string()),
                other => other.scalar().map(inside).ok_or_else(|| format!("{other} at `{}`", path.text())),
            }
        })
    }
}

/// As it is written between the quotes of a JSON text.
pub fn inside(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("Invariant: texts serialise");
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::keys::Problems;

    fn time(description: &str, json: &str) -> Result<i64, String> {
        let table: toml::Table = description.parse().unwrap();
        let problems = Problems::new("x");
        let keys = Keys::new("", &table, &problems);
        let time = TimeAt::parse(&keys, "time").unwrap();
        let json = Json::parse(json).unwrap();
        time.read(Scope { frame: &json, row: &json }).map(|t| t.0)
    }

    #[test]
    fn a_time_is_read_in_every_unit_and_never_through_a_float() {
        for (unit, json, ns) in [
            ("unit = \"s\"", "1700000000", 1_700_000_000_000_000_000),
            ("unit = \"s\"", "\"1534614248.456738001\"", 1_534_614_248_456_738_001),
            ("unit = \"ms\"", "1700000000123", 1_700_000_000_123_000_000),
            ("unit = \"ms\"", "1700000000123.5", 1_700_000_000_123_500_000),
            ("unit = \"us\"", "\"1700000000123456\"", 1_700_000_000_123_456_000),
            ("unit = \"ns\"", "1700000000123456789", 1_700_000_000_123_456_789),
            ("unit = \"magnitude\"", "1700000000123456", 1_700_000_000_123_456_000),
            ("unit = \"rfc3339\"", "\"2023-11-14T22:13:20.000000001Z\"", 1_700_000_000_000_000_001),
            ("unit = \"rfc3339\"", "\"2023-11-14T23:13:20+01:00\"", 1_700_000_000_000_000_000),
            ("form = \"%Y-%m-%d\"", "\"1970-01-02\"", 86_400_000_000_000),
            ("form = \"%d.%m.%Y %H:%M\"", "\"02.01.1970 00:01\"", 86_460_000_000_000),
            ("form = \"%Y%m%d\"", "19700102", 86_400_000_000_000),
        ] {
            let read = time(&format!("time = {{ at = \"@\", {unit} }}"), json);
            assert_eq!(read, Ok(ns), "{unit} {json}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_with_its_place() {
        let why = |unit: &str, json: &str| time(&format!("time = {{ at = \"@\", {unit} }}"), json).unwrap_err();
        assert_eq!(why("unit = \"ms\"", "\"soon\""), "\"soon\" at `@` is no time in ms");
        assert_eq!(why("unit = \"s\"", "99999999999999"), "99999999999999 at `@` is no time in s");
        assert_eq!(
            why("unit = \"rfc3339\"", "\"2023-13-14T22:13:20Z\""),
            "\"2023-13-14T22:13:20Z\" at `@` is no time of RFC 3339"
        );
        assert_eq!(
            why("form = \"%Y-%m-%d\"", "\"1970-02-30\""),
            "\"1970-02-30\" at `@` is no time of the form described"
        );
    }

    #[test]
    fn a_brace_of_json_is_no_place() {
        let template = Template::parse(r#"{"op":"sub","args":[{topics}],"id":{id},"x":{}}"#);
        assert_eq!(template.places().collect::<Vec<_>>(), ["topics", "id"]);
        let filled = template.fill(|name| Ok(format!("<{name}>"))).unwrap();
        assert_eq!(filled, r#"{"op":"sub","args":[<topics>],"id":<id>,"x":{}}"#);
        let json = Json::parse(r#"{"ping":{"at":17,"who":"a\"b"}}"#).unwrap();
        let answer = Template::parse(r#"{"pong":{ping.at},"who":"{ping.who}"}"#);
        let scope = Scope { frame: &json, row: &json };
        assert_eq!(answer.fill_from(scope).unwrap(), r#"{"pong":17,"who":"a\"b"}"#);
    }
}
