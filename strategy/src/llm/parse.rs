//! From what came back to decisions, without guessing: the transport's verdict first, then `message.content`
//! alone, then strict JSON, then the last balanced value in the text. Repairs lose and invent nothing: marks
//! around values are mended, never keys, numbers or missing closers.

use schemas::llm::LlmAttempt;

use super::json::{self, Json, JsonError};

/// Longer contents are refused, so that parsing takes bounded time.
pub const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Brackets in prose that open nothing; after so many the search ends.
const STRAY_OPENERS_MAX: usize = 32;
/// The version of the reply that this program reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole reply decides nothing: a stable word and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub detail: String,
}

impl Failure {
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
    /// Asking again with the reason may help: there was an answer, and its form was wrong.
    pub fn mendable(&self) -> bool {
        ["not_json", "ambiguous", "duplicate_key", "schema", "version"].contains(&self.code.as_str())
    }
}

/// What a reply decides, before any coin is checked.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Document {
    pub decisions: Vec<Decision>,
    pub summary: String,
    /// Marks around values were mended.
    pub repaired: bool,
}

/// One coin's fields under the names of our schema, as they stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub coin: String,
    /// Field and value; the same field twice when two of its names were given.
    pub fields: Vec<(&'static str, Json)>,
}

impl Decision {
    /// The field's value, `Err` when two names of it say different things.
    pub fn field(&self, name: &str) -> Result<Option<&Json>, ()> {
        let mut values = self.fields.iter().filter(|(field, _)| *field == name).map(|(_, value)| value);
        let first = values.next();
        if values.all(|value| Some(value) == first) { Ok(first) } else { Err(()) }
    }
}

/// Names that a field has in our schema and in others that models know.
const FIELDS: &[(&str, &[&str])] = &[
    ("action", &["action", "signal"]),
    ("confidence", &["confidence"]),
    ("stop_loss", &["stop_loss"]),
    ("take_profit", &["take_profit", "profit_target"]),
    ("justification", &["justification", "reasoning"]),
];
const COIN: [&str; 2] = ["coin", "symbol"];

/// The content of an attempt, if its transport lets anything be read from it.
pub fn content(attempt: &LlmAttempt) -> Result<&str, Failure> {
    if let Some(error) = &attempt.error {
        let (code, detail) = error.split_once(": ").unwrap_or((error, ""));
        return Err(Failure::new(code, detail));
    }
    match attempt.status {
        Some(200) => {}
        Some(status) => return Err(Failure::new(&format!("http_{status}"), "")),
        None => return Err(Failure::new("transport", "no status")),
    }
    if let Some(refusal) = attempt.refusal.as_deref().filter(|text| !text.is_empty()) {
        return Err(Failure::new("refused", crate::text::plain(refusal, 200)));
    }
    match attempt.finish_reason.as_deref() {
        Some("stop") => {}
        Some("length") => return Err(Failure::new("truncated", "finish_reason length: the answer was cut off")),
        Some("content_filter") => return Err(Failure::new("content_filter", "")),
        Some(other) => return Err(Failure::new("finish_reason", crate::text::plain(other, 40))),
        None => return Err(Failure::new("no_terminator", "the answer does not say that it is whole")),
    }
    match attempt.content.as_deref() {
        Some(text) if !text.trim().is_empty() => Ok(text),
        _ => Err(Failure::new("empty", "the answer has no content")),
    }
}

/// The decisions in a content.
pub fn document(text: &str) -> Result<Document, Failure> {
    if CONTENT_BYTES_MAX < text.len() {
        return Err(Failure::new(
            "too_large",
            format!("content of {} bytes; {CONTENT_BYTES_MAX} are read", text.len()),
        ));
    }
    // A text that is JSON as a whole has no thoughts around it, whatever its strings say.
    match json::read(text) {
        Ok(value) => return shaped(&value, false).unwrap_or_else(no_decisions),
        Err(JsonError::Duplicate(key)) => return Err(duplicate(&key)),
        Err(_) => {}
    }
    let spoken = without_thoughts(text)?;
    let mut found: Option<Document> = None;
    let mut any_json = false;
    for slice in balanced(&spoken)? {
        let (value, repaired) = match json::read(slice) {
            Ok(value) => (value, false),
            Err(JsonError::Duplicate(key)) => return Err(duplicate(&key)),
            Err(_) => match json::read(&mended(slice)) {
                Ok(value) => (value, true),
                Err(JsonError::Duplicate(key)) => return Err(duplicate(&key)),
                Err(_) => continue,
            },
        };
        any_json = true;
        let Some(document) = shaped(&value, repaired) else { continue };
        let document = document?;
        if let Some(earlier) = &found
            && earlier.decisions != document.decisions
        {
            return Err(Failure::new("ambiguous", "two different decision objects; exactly one is wanted"));
        }
        found = Some(document);
    }
    match found {
        Some(document) => Ok(document),
        None if any_json => no_decisions(),
        None => Err(Failure::new("not_json", "the answer holds no JSON value")),
    }
}

fn no_decisions() -> Result<Document, Failure> {
    Err(Failure::new("schema", "the JSON has no `decisions`"))
}
fn duplicate(key: &str) -> Failure {
    Failure::new("duplicate_key", format!("key `{}` stands twice in one object", crate::text::plain(key, 40)))
}

/// The text without `<think>` blocks. Some servers drop the opening mark, so what stands before a lone closing
/// one is thought too. An unclosed block means that the answer was cut off.
fn without_thoughts(text: &str) -> Result<String, Failure> {
    const OPEN: &str = "<think>";
    const CLOSE: &str = "</think>";
    let mut spoken = String::new();
    let mut rest = text;
    if let Some(close) = rest.find(CLOSE)
        && rest.find(OPEN).is_none_or(|open| close < open)
    {
        rest = &rest[close + CLOSE.len()..];
    }
    while let Some(open) = rest.find(OPEN) {
        spoken += &rest[..open];
        let Some(close) = rest[open..].find(CLOSE) else {
            return Err(Failure::new("truncated", "an unclosed <think>"));
        };
        rest = &rest[open + close + CLOSE.len()..];
    }
    spoken += rest;
    Ok(spoken)
}

/// Top-level `{...}` and `[...]` in a text, aware of strings, in order. A lone bracket in prose is passed over; what
/// opens like a value and does not close is an answer cut off or broken, and nothing inside it is a value.
fn balanced(text: &str) -> Result<Vec<&str>, Failure> {
    let mut slices = Vec::new();
    let mut at = 0;
    let mut strays = 0;
    while let Some(open) = text[at..].find(['{', '[', '｛', '［']) {
        let start = at + open;
        if let Some(length) = closing(&text[start..]) {
            slices.push(&text[start..start + length]);
            at = start + length;
            continue;
        }
        // A look ahead of bounded length, so that a million brackets take no million looks at a million brackets.
        let mut behind = text[start..].chars().take(256);
        let behind = behind.find(|c| !matches!(c, '{' | '[' | '｛' | '［') && !c.is_whitespace());
        strays += 1;
        if STRAY_OPENERS_MAX < strays || matches!(behind, Some('"' | '“' | '”' | '＂')) {
            return Err(Failure::new("not_json", "a value is not closed"));
        }
        at = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
    Ok(slices)
}

/// The length of the value that `text` opens with; `None` when it does not close, or closes with the wrong mark.
fn closing(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut marks = Marks::default();
    for (i, c) in text.char_indices() {
        match marks.next(c) {
            Mark::Open(close) => {
                if json::DEPTH_MAX < open.len() {
                    return None;
                }
                open.push(close);
            }
            Mark::Close(close) => {
                if open.pop() != Some(close) {
                    return None;
                }
                if open.is_empty() {
                    return Some(i + c.len_utf8());
                }
            }
            Mark::Other => {}
        }
    }
    None
}

enum Mark {
    Open(char),
    Close(char),
    Other,
}

/// Which characters are marks and which stand in a string. A string that opens with a typographic quote closes
/// with one.
#[derive(Default)]
struct Marks {
    string: Option<Quote>,
    escaped: bool,
}
#[derive(Clone, Copy, PartialEq)]
enum Quote {
    Plain,
    Smart,
}

impl Marks {
    fn next(&mut self, c: char) -> Mark {
        if self.string.is_some() {
            if self.escaped {
                self.escaped = false;
            } else if c == '\\' {
                self.escaped = true;
            } else if self.closes(c) {
                self.string = None;
            }
            return Mark::Other;
        }
        match c {
            '"' => self.string = Some(Quote::Plain),
            '“' | '”' | '＂' => self.string = Some(Quote::Smart),
            '{' | '｛' => return Mark::Open('}'),
            '[' | '［' => return Mark::Open(']'),
            '}' | '｝' => return Mark::Close('}'),
            ']' | '］' => return Mark::Close(']'),
            _ => {}
        }
        Mark::Other
    }
    fn closes(&self, c: char) -> bool {
        match self.string {
            Some(Quote::Plain) => c == '"',
            Some(Quote::Smart) => matches!(c, '“' | '”' | '＂'),
            None => false,
        }
    }
}

/// The same values with plain marks: full-width and typographic marks around values become ASCII, invisible
/// characters between them become spaces, commas before a closer go. Strings keep every character.
fn mended(slice: &str) -> String {
    let mut text = String::with_capacity(slice.len());
    let mut marks = Marks::default();
    for c in slice.chars() {
        let inside = marks.string;
        marks.next(c);
        match (inside, marks.string) {
            (Some(Quote::Smart), Some(_)) if c == '"' => text.push_str("\\\""),
            (Some(_), Some(_)) => text.push(c),
            (None, Some(_)) | (Some(_), None) => text.push('"'),
            (None, None) => match c {
                '｛' => text.push('{'),
                '［' => text.push('['),
                '：' => text.push(':'),
                '，' => text.push(','),
                // A space, not nothing: dropped from the middle of a number it would make another number.
                '\u{feff}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{a0}' | '\u{3000}' => text.push(' '),
                '}' | '｝' | ']' | '］' => {
                    let kept = text.trim_end().strip_suffix(',').map(str::len);
                    text.truncate(kept.unwrap_or(text.len()));
                    text.push(if matches!(c, '}' | '｝') { '}' } else { ']' });
                }
                c => text.push(c),
            },
        }
    }
    text
}

/// The shapes in which models give decisions, as one: `{decisions: [...]}`, `{decisions: {COIN: ...}}`, a list of
/// decisions or of one-key objects, `{COIN: {...}}` with or without `trade_signal_args`, a single decision.
/// `None`: this is something else.
fn shaped(value: &Json, repaired: bool) -> Option<Result<Document, Failure>> {
    let decisions = match value.get("decisions") {
        Some(inner) => listed(inner, true)?,
        None => listed(value, false)?,
    };
    match value.get("schema_version") {
        None => {}
        Some(Json::Number(n)) if *n == SCHEMA_VERSION.to_string() => {}
        Some(_) => {
            let why = format!("schema_version is not {SCHEMA_VERSION}");
            return Some(Err(Failure::new("version", why)));
        }
    }
    let summary = value.get("summary").and_then(Json::text).unwrap_or("");
    Some(Ok(Document { decisions, summary: crate::text::plain(summary, 300), repaired }))
}

/// `sure`: it stands under `decisions`, so an object without an action is a bad decision. Elsewhere it is some
/// other object.
fn listed(value: &Json, sure: bool) -> Option<Vec<Decision>> {
    match value {
        Json::Array(items) => {
            let each = items.iter().map(|item| flat(item, sure).map(|d| vec![d]).or_else(|| by_coin(item, sure)));
            let decisions: Vec<_> = each.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
            Some(decisions).filter(|decisions| !decisions.is_empty())
        }
        Json::Object(_) => flat(value, sure).map(|d| vec![d]).or_else(|| by_coin(value, sure)),
        _ => None,
    }
}

/// `{coin: ..., action: ...}`
fn flat(value: &Json, sure: bool) -> Option<Decision> {
    let coin = COIN.iter().find_map(|name| value.get(name))?.text()?;
    named(coin, value, sure)
}

/// `{COIN: {...}, ...}`; what is no object (a summary, a version) is not a coin.
fn by_coin(value: &Json, sure: bool) -> Option<Vec<Decision>> {
    let Json::Object(fields) = value else { return None };
    let objects = fields.iter().filter(|(_, inner)| matches!(inner, Json::Object(_)));
    let decisions = objects.map(|(coin, inner)| named(coin, inner.get("trade_signal_args").unwrap_or(inner), sure));
    decisions.collect::<Option<Vec<_>>>().filter(|decisions| !decisions.is_empty())
}

fn named(coin: &str, value: &Json, sure: bool) -> Option<Decision> {
    let mut fields = Vec::new();
    for (field, names) in FIELDS {
        fields.extend(names.iter().filter_map(|name| value.get(name)).map(|value| (*field, value.clone())));
    }
    let decision = Decision { coin: coin.to_owned(), fields };
    (sure || decision.fields.iter().any(|(field, _)| *field == "action")).then_some(decision)
}

#[cfg(test)]
mod tests;
