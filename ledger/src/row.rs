//! Rows as the pure part says them: cells with a rule for what happens when the row is there already. The rules
//! commute, so facts of different streams may come in any order.

use schemas::{Decimal, Notional, Price, Qty};

use crate::schema::{Kind, Table};

/// One value of a row.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Text(String),
    /// Counts, sequences and nanoseconds.
    Int(i64),
    /// Exact: `TEXT` in SQLite, `NUMERIC` in PostgreSQL.
    Decimal(Decimal),
    Bool(bool),
    /// A JSON text: `TEXT` in SQLite, `JSONB` in PostgreSQL.
    Json(String),
}

impl Value {
    /// Anything that serialises, as JSON text.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Self {
        Self::Json(clean(
            serde_json::to_string(value).expect("Invariant: facts serialise to JSON").replace("\\u0000", "\\ufffd"),
        ))
    }

    /// May this value stand in a column of `kind`?
    pub fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Null => true,
            Self::Text(_) => kind == Kind::Text,
            Self::Int(_) => kind == Kind::Int,
            Self::Decimal(_) => kind == Kind::Decimal,
            Self::Bool(_) => kind == Kind::Bool,
            Self::Json(_) => kind == Kind::Json,
        }
    }
}

/// PostgreSQL stores no NUL; models and programs in other languages may send one.
fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(clean(text.to_owned()))
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(clean(text))
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}
impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Self::Int(n.into())
    }
}
impl From<u64> for Value {
    /// Counts and sequences; one above 2^63 does not occur before the end of the universe's ticks.
    fn from(n: u64) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}
impl From<Decimal> for Value {
    fn from(d: Decimal) -> Self {
        Self::Decimal(d.normalize())
    }
}
impl From<Price> for Value {
    fn from(p: Price) -> Self {
        Self::Decimal(p.get())
    }
}
impl From<Qty> for Value {
    fn from(q: Qty) -> Self {
        Self::Decimal(q.get())
    }
}
impl From<Notional> for Value {
    fn from(n: Notional) -> Self {
        Self::Decimal(n.get())
    }
}
impl From<schemas::Fraction> for Value {
    fn from(f: schemas::Fraction) -> Self {
        Self::Decimal(f.get())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a cell does to a row that is there already.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// Says which row.
    Key,
    /// Written when there is no value yet. All facts that say it say the same.
    Keep,
    /// Written with a new row only.
    Once,
    /// Written always. Invariant L-1: such a column is said by the facts of one stream, which come in order.
    Replace,
}

/// One cell of a [`Change`].
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    pub column: &'static str,
    pub rule: Rule,
    pub value: Value,
}

/// A row to insert, or to merge into the one with the same key.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub table: &'static Table,
    pub cells: Vec<Cell>,
}

impl Change {
    pub fn new(table: &'static Table) -> Self {
        Self { table, cells: Vec::new() }
    }
    pub fn key(self, column: &'static str, value: impl Into<Value>) -> Self {
        self.cell(column, Rule::Key, value)
    }
    pub fn keep(self, column: &'static str, value: impl Into<Value>) -> Self {
        self.cell(column, Rule::Keep, value)
    }
    pub fn once(self, column: &'static str, value: impl Into<Value>) -> Self {
        self.cell(column, Rule::Once, value)
    }
    pub fn replace(self, column: &'static str, value: impl Into<Value>) -> Self {
        self.cell(column, Rule::Replace, value)
    }
    fn cell(mut self, column: &'static str, rule: Rule, value: impl Into<Value>) -> Self {
        let value = value.into();
        debug_assert!(
            self.table.kind(column).is_some_and(|kind| value.fits(kind)),
            "Invariant: {}.{column} takes {value:?}",
            self.table.name
        );
        self.cells.push(Cell { column, rule, value });
        self
    }

    /// The values of the key cells.
    pub fn key_values(&self) -> impl Iterator<Item = &Value> {
        self.cells.iter().filter(|c| c.rule == Rule::Key).map(|c| &c.value)
    }
}
