//! A table of a description, read key by key: every wrong one is told with what stands there and what is allowed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use schemas::Decimal;
use schemas::config::ConfigError;
use toml::{Table, Value};

use super::json::Path;
use crate::text::decimal;

/// What is wrong with a description, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Problems {
    file: String,
    found: RefCell<Vec<ConfigError>>,
    /// Every key that was asked for: the manual must name it.
    #[cfg(test)]
    pub known: RefCell<BTreeSet<&'static str>>,
}

/// More are not told: the first ones cause the rest.
const PROBLEMS_MAX: usize = 50;

impl Problems {
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }
    pub fn add(&self, key: impl Into<String>, why: impl std::fmt::Display) {
        let mut found = self.found.borrow_mut();
        if found.len() < PROBLEMS_MAX {
            found.push(ConfigError::new(&self.file, key, why));
        }
    }
    pub fn none(&self) -> bool {
        self.found.borrow().is_empty()
    }
    pub fn into_vec(self) -> Vec<ConfigError> {
        self.found.into_inner()
    }
}

/// One table, and which of its keys were asked for: what is left over is unknown.
pub struct Keys<'t> {
    at: String,
    table: &'t Table,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: &'t Problems,
}

impl<'t> Keys<'t> {
    pub fn new(at: impl Into<String>, table: &'t Table, problems: &'t Problems) -> Self {
        Self { at: at.into(), table, asked: RefCell::default(), problems }
    }

    /// The table's own name.
    pub fn at(&self) -> &str {
        &self.at
    }

    pub fn problems(&self) -> &'t Problems {
        self.problems
    }

    fn key(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    pub fn wrong(&self, key: &str, why: impl std::fmt::Display) {
        self.problems.add(self.key(key), why);
    }

    /// What stands there is not what is allowed.
    fn other(&self, key: &str, value: &Value, allowed: impl std::fmt::Display) {
        self.wrong(key, format!("`{}` stands there; allowed is {allowed}", short(value)));
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn value(&self, key: &'static str) -> Option<&'t Value> {
        self.asked.borrow_mut().insert(key);
        #[cfg(test)]
        self.problems.known.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// A key that must be there.
    pub fn needed(&self, key: &'static str, what: &str) {
        if !self.has(key) {
            self.value(key);
            self.wrong(key, format!("is absent; it is needed: {what}"));
        }
    }

    pub fn text(&self, key: &'static str) -> Option<&'t str> {
        match self.value(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            other => {
                self.other(key, other, "a text");
                None
            }
        }
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(flag) => Some(*flag),
            other => {
                self.other(key, other, "true or false");
                None
            }
        }
    }

    pub fn number(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value(key)? {
            Value::Integer(n) if range.contains(n) => Some(*n),
            other => {
                self.other(key, other, format!("a whole number in {}..={}", range.start(), range.end()));
                None
            }
        }
    }

    /// A decimal in quotes: a bare TOML number is a float.
    pub fn decimal(&self, key: &'static str) -> Option<Decimal> {
        let value = self.value(key)?;
        match value.as_str().map(decimal) {
            Some(Ok(number)) if number >= Decimal::ZERO => Some(number),
            _ => {
                self.other(key, value, "a decimal in quotes, not below 0, such as \"0.01\"");
                None
            }
        }
    }

    pub fn words(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let words: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        if words.is_none() {
            self.other(key, value, "a list of texts");
        }
        words
    }

    pub fn one_of<T: Copy>(&self, key: &'static str, known: &[(&str, T)]) -> Option<T> {
        let value = self.value(key)?;
        let found = value.as_str().and_then(|word| known.iter().find(|(name, _)| *name == word));
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.other(key, value, names.join(", "));
        }
        found.map(|(_, what)| *what)
    }

    /// A path to one value.
    pub fn path(&self, key: &'static str) -> Option<Path> {
        let path = self.any_path(key)?;
        if path.is_list() {
            self.wrong(key, format!("`{}` stands for many values; allowed is a path without [*]", path.text()));
            return None;
        }
        Some(path)
    }

    /// A path to the items of a list.
    pub fn list(&self, key: &'static str) -> Option<Path> {
        let path = self.any_path(key)?;
        if !path.is_list() {
            self.wrong(key, format!("`{}` stands for one value; allowed is a path with [*]", path.text()));
            return None;
        }
        Some(path)
    }

    fn any_path(&self, key: &'static str) -> Option<Path> {
        let value = self.value(key)?;
        match value.as_str().map(Path::parse) {
            Some(Ok(path)) => Some(path),
            Some(Err(why)) => {
                self.wrong(key, why);
                None
            }
            None => {
                self.other(key, value, "a path such as \"data.price\"");
                None
            }
        }
    }

    pub fn table(&self, key: &'static str) -> Option<Keys<'t>> {
        match self.value(key)? {
            Value::Table(table) => Some(Keys::new(self.key(key), table, self.problems)),
            other => {
                self.other(key, other, "a table");
                None
            }
        }
    }

    /// `[[key]]`; they are counted from 1 in errors.
    pub fn tables(&self, key: &'static str) -> Vec<Keys<'t>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let tables: Option<Vec<&Table>> = value.as_array().and_then(|list| list.iter().map(Value::as_table).collect());
        match tables {
            Some(tables) => {
                let named = |(n, table)| Keys::new(format!("{}[{}]", self.key(key), n + 1), table, self.problems);
                tables.into_iter().enumerate().map(named).collect()
            }
            None => {
                self.other(key, value, format!("tables written [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// All members of a table whose names are free.
    pub fn members(&self) -> impl Iterator<Item = (&'t str, &'t Value)> {
        self.table.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Everything was asked for: what is left is unknown.
    pub fn done(self) {
        let asked = self.asked.borrow();
        for key in self.table.keys().filter(|key| !asked.contains(key.as_str())) {
            let known: Vec<&str> = asked.iter().copied().collect();
            self.wrong(key, format!("is unknown here; there are: {}", known.join(", ")));
        }
    }
}

/// A value in errors: on one line, cut.
pub fn short(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string().replace('\n', " "),
    };
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
