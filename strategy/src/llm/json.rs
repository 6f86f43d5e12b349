//! Strict JSON that keeps what orders need kept: numbers as their own text, and duplicate keys as an error.
//! `serde_json` would round the first and hide the second. Size is bounded by the caller, depth here.

/// A JSON value; numbers are the text that stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Why a text is no JSON value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    #[error("key `{0}` stands twice in one object")]
    Duplicate(String),
    #[error("nested deeper than {DEPTH_MAX}")]
    Deep,
}

/// Deeper nesting is refused.
pub const DEPTH_MAX: usize = 32;

/// The one value that `text` is, with white space around it.
pub fn read(text: &str) -> Result<Json, JsonError> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { Err(JsonError::Syntax(reader.at)) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn wrong<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }
    fn take(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return self.wrong();
        }
        self.at += 1;
        Ok(())
    }
    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return self.wrong();
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if DEPTH_MAX < depth {
            return Err(JsonError::Deep);
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.wrong(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.take(b'{')?;
        let mut fields: Vec<(String, Json)> = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            let key = self.string()?;
            if fields.iter().any(|(name, _)| *name == key) {
                return Err(JsonError::Duplicate(key));
            }
            self.space();
            self.take(b':')?;
            fields.push((key, self.value(depth + 1)?));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(fields));
                }
                _ => return self.wrong(),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.take(b'[')?;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return self.wrong(),
            }
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(c) = rest.chars().next() else { return self.wrong() };
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => {
                    self.at += 1;
                    text.push(self.escaped()?);
                }
                c if (c as u32) < 0x20 => return self.wrong(),
                c => {
                    self.at += c.len_utf8();
                    text.push(c);
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let Some(byte) = self.peek() else { return self.wrong() };
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.wrong(),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            self.take(b'\\')?;
            self.take(b'u')?;
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.wrong();
            }
            0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or(JsonError::Syntax(self.at))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else { return self.wrong() };
        self.at += 4;
        u32::from_str_radix(digits, 16).or_else(|_| self.wrong())
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.wrong(),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.wrong() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_keep_their_text_and_a_key_may_stand_once() {
        let value = read(" {\"a\": [1.50, -0e3, \"\\u00e9\\ud83d\\ude00\"], \"b\": null} ").unwrap();
        let numbers = [Json::Number("1.50".into()), Json::Number("-0e3".into()), Json::Text("é😀".into())];
        assert_eq!(value.get("a"), Some(&Json::Array(numbers.to_vec())));
        assert_eq!(read("{\"a\":1,\"a\":1}"), Err(JsonError::Duplicate("a".into())));
    }

    #[test]
    fn what_is_almost_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "NaN",
            "01",
            "1.",
            ".5",
            "+1",
            "0x10",
            "'a'",
            "\"\n\"",
            "{a:1}",
            "1 2",
            "\"\\ud800\"",
            "\"\\u00g0\"",
            "tru",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(&"[".repeat(100_000)), Err(JsonError::Deep));
    }

    proptest! {
        #[test]
        fn it_takes_exactly_what_serde_json_takes(text in "[\\[\\]{}\":,0-9.eE+\\-ntrufalse\\\\ ]{0,12}") {
            // Apart from duplicate keys, which serde_json hides, and numbers beyond a double, which it cannot hold.
            let ours = read(&text);
            if !matches!(ours, Err(JsonError::Duplicate(_))) {
                let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text);
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(read(&written).unwrap(), Json::Text(text.clone()));
            let _ = read(&text); // it must not panic; either answer is right
        }
    }
}
