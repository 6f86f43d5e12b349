//! JSON as text and structure, numbers untouched, and paths into it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of lists and objects; no venue comes near it.
const DEPTH_MAX: usize = 32;

/// A value of a frame. A number is the text that the venue wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        Self::read(raw, 0)
    }

    fn read(raw: &'a RawValue, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("JSON of more than {DEPTH_MAX} levels"));
        }
        let text = raw.get();
        let wrong = |e: serde_json::Error| format!("no JSON: {e}");
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text).map_err(wrong)?;
                let read = |(key, raw)| Ok((key, Self::read(raw, depth + 1)?));
                Self::Object(members.into_iter().map(read).collect::<Result<_, String>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                Self::List(items.into_iter().map(|raw| Self::read(raw, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str::<Word>(text).map_err(wrong)?.0),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(text),
        })
    }

    /// The text of a text or number, as numbers are read from both.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Number(text) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn step(&self, step: &Step) -> Option<&Self> {
        match (self, step) {
            (Self::Object(members), Step::Key(key)) => members.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            (Self::List(items), Step::At(n)) => items.get(*n),
            _ => None,
        }
    }
}

/// For reasons: short, as JSON.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Object(members) => {
                let keys: Vec<&str> = members.iter().take(8).map(|(key, _)| &**key).collect();
                write!(f, "an object of {}", keys.join(", "))
            }
        }
    }
}

/// A text, borrowed where it holds no escape.
struct Word<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Word<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Word<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(Text)
    }
}

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Word(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(Object)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Key(String),
    At(usize),
    /// Every item of a list.
    All,
}

/// Where a value stands: `data.price`, `rows[*]`, `[0]`, `$.stream`. `$` is the whole frame, `@` the row itself; without
/// either a path begins at the row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    text: String,
    from_frame: bool,
    steps: Vec<Step>,
}

/// What paths begin at.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'j, 'a> {
    pub frame: &'j Json<'a>,
    pub row: &'j Json<'a>,
}

impl Path {
    /// The error says what a path looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("`{text}` is no path: {what}; one is written `data.price`, `rows[*]`, `[0]`, `$.stream` or `@`")
        };
        let (from_frame, mut rest) = match text.as_bytes() {
            [] => return Err(wrong("it is empty")),
            [b'$', ..] => (true, &text[1..]),
            [b'@', ..] => (false, &text[1..]),
            [b'[', ..] => (false, text),
            _ => (false, text),
        };
        let mut steps = Vec::new();
        let mut bare = !matches!(text.as_bytes()[0], b'$' | b'@');
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let Some((index, tail)) = inner.split_once(']') else { return Err(wrong("a [ is not closed")) };
                steps.push(match index {
                    "*" => Step::All,
                    n => Step::At(n.parse().map_err(|_| wrong("between [ and ] stands a number or *"))?),
                });
                (rest, bare) = (tail, false);
                continue;
            }
            let name = match rest.strip_prefix('.') {
                Some(name) if !bare => name,
                None if bare => rest,
                _ => return Err(wrong("names are parted by one point")),
            };
            let end = name.find(['.', '[', ']']).unwrap_or(name.len());
            if end == 0 || name[end..].starts_with(']') {
                return Err(wrong("a name is empty, or a ] has no ["));
            }
            steps.push(Step::Key(name[..end].to_owned()));
            (rest, bare) = (&name[end..], false);
        }
        Ok(Self { text: text.to_owned(), from_frame, steps })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it stands for many values.
    pub fn is_list(&self) -> bool {
        self.steps.contains(&Step::All)
    }

    /// The one value, also when it is null.
    pub fn find<'j, 'a>(&self, scope: Scope<'j, 'a>) -> Option<&'j Json<'a>> {
        let from = if self.from_frame { scope.frame } else { scope.row };
        self.steps.iter().try_fold(from, |at, step| at.step(step))
    }

    /// The one value; `None` where it is absent or null.
    pub fn get<'j, 'a>(&self, scope: Scope<'j, 'a>) -> Option<&'j Json<'a>> {
        self.find(scope).filter(|value| **value != Json::Null)
    }

    /// Every value of a path with `[*]`, in order; `None`: there is no such list.
    pub fn all<'j, 'a>(&self, scope: Scope<'j, 'a>) -> Option<Vec<&'j Json<'a>>> {
        let mut at = vec![if self.from_frame { scope.frame } else { scope.row }];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in at {
                match (step, value) {
                    (Step::All, Json::List(items)) => next.extend(items),
                    (Step::All, _) => return None,
                    (step, value) => next.push(value.step(step)?),
                }
            }
            at = next;
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(path: &str, text: &str) -> String {
        let json = Json::parse(text).unwrap();
        let path = Path::parse(path).unwrap();
        let scope = Scope { frame: &json, row: &json };
        match path.all(scope) {
            Some(all) => all.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" "),
            None => "absent".to_owned(),
        }
    }

    #[test]
    fn a_path_finds_what_it_names_and_numbers_keep_their_text() {
        let text = r#"{"a":{"b":[{"p":1.50},{"p":"2"}]},"c":null,"d\"e":1e-7}"#;
        assert_eq!(show("a.b[0].p", text), "1.50");
        assert_eq!(show("a.b[*].p", text), "1.50 \"2\"");
        assert_eq!(show("$.a.b[1].p", text), "\"2\"");
        assert_eq!(show("d\"e", text), "1e-7");
        assert_eq!(show("c", text), "null");
        assert_eq!(show("@", "[1]"), "a list of 1");
        assert_eq!(show("[0]", "[7]"), "7");
        assert_eq!(show("a.x", text), "absent");
        assert_eq!(show("a[*]", text), "absent");
    }

    #[test]
    fn what_is_no_path_is_told_how_one_looks() {
        for text in ["", ".", "a.", "a..b", "a[", "a[x]", "a]", "$a", "@a", "a[-1]", "[0]b", ".a"] {
            let why = Path::parse(text).unwrap_err();
            assert!(why.contains("data.price"), "{text}: {why}");
        }
    }

    #[test]
    fn json_that_is_too_deep_is_refused() {
        let text = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert!(Json::parse(&text).unwrap_err().contains("levels"));
    }

    proptest! {
        #[test]
        fn reading_a_path_of_anything_in_anything_never_panics(path in "[a-c$@.\\[\\]*0-9]{0,12}", text in "[\\[\\]{}\":,a-c0-9. ]{0,40}") {
            if let (Ok(path), Ok(json)) = (Path::parse(&path), Json::parse(&text)) {
                let scope = Scope { frame: &json, row: &json };
                let one = path.find(scope);
                prop_assert!(!path.is_list() || one.is_none());
                if !path.is_list() {
                    prop_assert_eq!(path.all(scope).map(|all| all.len()), one.map(|_| 1));
                }
            }
        }

        #[test]
        fn what_serde_reads_is_read_the_same(value in arbitrary_json()) {
            let text = value.to_string();
            prop_assert_eq!(plain(&Json::parse(&text).unwrap()), value);
        }
    }

    fn plain(json: &Json<'_>) -> serde_json::Value {
        match json {
            Json::Null => serde_json::Value::Null,
            Json::Bool(b) => (*b).into(),
            Json::Number(text) => serde_json::from_str(text).unwrap(),
            Json::Text(text) => text.to_string().into(),
            Json::List(items) => items.iter().map(plain).collect::<Vec<_>>().into(),
            Json::Object(members) => members.iter().map(|(k, v)| (k.to_string(), plain(v))).collect(),
        }
    }

    fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|m| m.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }
}
