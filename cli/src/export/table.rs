//! Messages of one kind as typed columns, and back to the same bytes. Pure.
//!
//! A field of the payload is a column, a nested map's fields are `outer/inner`, a list is JSON text. Packs have a row a
//! tick: fields that hold one value a tick become columns of single values (`Shape`). Decimals stay decimal text,
//! mantissas stay integers beside their `scale/price` and `scale/qty`.
//!
//! Whatever the columns cannot say again byte for byte (another field order, an unknown encoding, bytes that are no
//! MessagePack) is kept as it is in `_payload`; for all others that column is empty.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::value::Value;

/// Divides the names of nested fields.
const SLASH: char = '/';
/// Nested maps below this become JSON text.
const DEPTH_MAX: usize = 3;

/// A stored message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub seq: u64,
    pub subject: String,
    /// When the server stored it; not part of the message.
    pub stored_ns: i64,
    pub payload: Vec<u8>,
}

/// How a payload is laid out in rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// One row.
    One,
    /// A row a tick: lists as long as `ts_ns`, and `side` with a letter a tick.
    Columns,
    /// A row an item of the list `items`.
    Items,
}

impl Shape {
    pub fn of(kind: &str) -> Self {
        match kind {
            "trade" | "quote" => Self::Columns,
            "book" | "ticker" | "bar" | "liquidation" => Self::Items,
            _ => Self::One,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    Int,
    UInt,
    Float,
    Bool,
    Text,
    Bytes,
    /// A list or a deeper map, as text.
    Json,
    /// Never anything but nil; has no column in the file.
    Nil,
}

/// What a file says of a column, so that it reads back exactly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub r#type: Type,
    /// A value a tick; otherwise one a message, repeated in its rows.
    pub tick: bool,
    /// An empty cell is an explicit nil; otherwise the field is absent.
    pub nil: bool,
    /// Single letters that are one text in the payload.
    pub letters: bool,
}

/// Single values of one type.
#[derive(Clone, PartialEq, Debug)]
pub enum Cells {
    Int(Vec<Option<i64>>),
    UInt(Vec<Option<u64>>),
    Float(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
    /// Also JSON.
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Nil,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Column {
    pub field: Field,
    /// One a row for tick columns, otherwise one a message.
    pub cells: Cells,
}

/// Messages of one kind in the order of their sequences.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    pub shape: Shape,
    pub seq: Vec<u64>,
    pub subject: Vec<String>,
    pub stored_ns: Vec<i64>,
    /// Rows of each message, at least 1.
    pub rows: Vec<u32>,
    /// Ticks of each message: its rows, or 0 for a pack without any.
    pub ticks: Vec<u32>,
    /// What the columns cannot say.
    pub payload: Vec<Option<Vec<u8>>>,
    pub columns: Vec<Column>,
}

impl Table {
    /// Every message is in the table, whatever its bytes are.
    pub fn of(kind: &str, messages: Vec<Message>) -> Self {
        let shape = Shape::of(kind);
        let mut laid: Vec<Option<Laid>> = messages.iter().map(|m| Laid::of(shape, &m.payload)).collect();
        agree(&mut laid);
        let rows: Vec<u32> = laid.iter().map(|l| l.as_ref().map_or(1, |l| l.ticks.max(1))).collect();
        let mut drafts: Vec<Draft> = Vec::new();
        let (mut row, rows_all) = (0, rows.iter().map(|n| *n as usize).sum());
        for (m, laid) in laid.iter().enumerate() {
            if let Some(laid) = laid {
                let mut behind = 0;
                for (name, part) in &laid.fields {
                    let place = place(&mut drafts, name, part, behind, messages.len(), rows_all);
                    behind = place + 1;
                    drafts[place].put(m, row, part);
                }
            }
            row += rows[m] as usize;
        }
        for draft in &mut drafts {
            let mut row = 0;
            for (m, laid) in laid.iter().enumerate() {
                draft.look(m, row, laid.as_ref().map(|l| l.ticks));
                row += rows[m] as usize;
            }
        }
        let mut table = Self {
            shape,
            seq: messages.iter().map(|m| m.seq).collect(),
            subject: messages.iter().map(|m| m.subject.clone()).collect(),
            stored_ns: messages.iter().map(|m| m.stored_ns).collect(),
            ticks: laid.iter().map(|l| l.as_ref().map_or(0, |l| l.ticks)).collect(),
            rows,
            payload: vec![None; messages.len()],
            columns: drafts.into_iter().map(Draft::column).collect(),
        };
        let mut row = 0;
        for (m, message) in messages.into_iter().enumerate() {
            let said = laid[m].is_some() && table.said(m, row).as_ref() == Some(&message.payload);
            row += table.rows[m] as usize;
            if !said {
                table.payload[m] = Some(message.payload);
            }
        }
        table
    }

    pub fn len(&self) -> usize {
        self.seq.len()
    }
    pub fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }
    pub fn rows_total(&self) -> u64 {
        self.rows.iter().map(|n| u64::from(*n)).sum()
    }
    /// Messages whose bytes are kept beside the columns.
    pub fn kept(&self) -> u64 {
        self.payload.iter().flatten().count() as u64
    }

    /// The messages again, byte for byte. `None` where the columns contradict each other.
    pub fn messages(self) -> Option<Vec<Message>> {
        let mut messages = Vec::with_capacity(self.len());
        let mut row = 0;
        for m in 0..self.len() {
            let payload = match &self.payload[m] {
                Some(kept) => kept.clone(),
                None => self.said(m, row)?,
            };
            row += self.rows[m] as usize;
            let (seq, subject, stored_ns) = (self.seq[m], self.subject[m].clone(), self.stored_ns[m]);
            messages.push(Message { seq, subject, stored_ns, payload });
        }
        Some(messages)
    }

    /// The payload that the columns say for message `m`, whose first row is `row`.
    fn said(&self, m: usize, row: usize) -> Option<Vec<u8>> {
        let rows = row..row + self.ticks[m] as usize;
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut items: Option<Vec<Vec<(String, Value)>>> = None;
        for column in &self.columns {
            let field = &column.field;
            if !field.tick {
                if let Some(value) = column.value(m)? {
                    set(&mut fields, &field.name, value)?;
                }
                continue;
            }
            if self.shape == Shape::Items {
                let items = match &mut items {
                    Some(items) => items,
                    // The list stands where its first field stands.
                    None => {
                        fields.push(("items".to_owned(), Value::Nil));
                        items.insert(vec![Vec::new(); rows.len()])
                    }
                };
                for (item, row) in items.iter_mut().zip(rows.clone()) {
                    if let Some(value) = column.value(row)? {
                        set(item, field.name.strip_prefix("items/")?, value)?;
                    }
                }
                continue;
            }
            let values: Option<Vec<Value>> = rows.clone().map(|row| column.value(row).flatten()).collect();
            let values = values?;
            let value = if field.letters {
                let letter = |v: Value| if let Value::Text(text) = v { Some(text) } else { None };
                Value::Text(values.into_iter().map(letter).collect::<Option<String>>()?)
            } else {
                Value::List(values)
            };
            set(&mut fields, &field.name, value)?;
        }
        if self.shape == Shape::Items {
            let items = items.unwrap_or_default().into_iter().map(Value::Map).collect();
            match fields.iter_mut().find(|(name, _)| name == "items") {
                Some((_, list)) => *list = Value::List(items),
                None => fields.push(("items".to_owned(), Value::List(items))),
            }
        }
        Value::Map(fields).write()
    }
}

impl Column {
    /// `Some(None)`: absent.
    fn value(&self, i: usize) -> Option<Option<Value>> {
        let value = match &self.cells {
            Cells::Int(cells) => cells.get(i)?.map(Value::Int),
            Cells::UInt(cells) => cells.get(i)?.map(Value::from),
            Cells::Float(cells) => cells.get(i)?.map(Value::Float),
            Cells::Bool(cells) => cells.get(i)?.map(Value::Bool),
            Cells::Text(cells) => match (cells.get(i)?, self.field.r#type) {
                (Some(text), Type::Json) => Some(Value::from_json(text)?),
                (Some(text), _) => Some(Value::Text(text.clone())),
                (None, _) => None,
            },
            Cells::Bytes(cells) => cells.get(i)?.clone().map(Value::Bytes),
            Cells::Nil => None,
        };
        Some(value.or_else(|| self.field.nil.then_some(Value::Nil)))
    }
}

/// Puts a value at the path `name`, behind what is there.
fn set(fields: &mut Vec<(String, Value)>, name: &str, value: Value) -> Option<()> {
    let Some((outer, inner)) = name.split_once(SLASH) else {
        fields.push((name.to_owned(), value));
        return Some(());
    };
    // Nested fields stand together, so an open map is the last field.
    if fields.last().is_none_or(|(last, _)| last != outer) {
        fields.push((outer.to_owned(), Value::Map(Vec::new())));
    }
    match fields.last_mut() {
        Some((_, Value::Map(nested))) => set(nested, inner, value),
        _ => None,
    }
}

/// A payload as named parts, in the order of its bytes.
struct Laid {
    ticks: u32,
    fields: Vec<(String, Part)>,
}

enum Part {
    Head(Value),
    /// One a tick; absent where an item has no such field.
    Ticks(Vec<Option<Value>>, bool),
}

impl Part {
    /// One a tick, and as letters.
    fn kind(&self) -> (bool, bool) {
        match self {
            Self::Head(_) => (false, false),
            Self::Ticks(_, letters) => (true, *letters),
        }
    }
}

impl Laid {
    /// `None` where the payload is not laid out as its kind promises.
    fn of(shape: Shape, payload: &[u8]) -> Option<Self> {
        let Some(Value::Map(map)) = Value::read(payload) else { return None };
        let n = match shape {
            Shape::One => 0,
            Shape::Columns => list(&map, "ts_ns")?.len(),
            Shape::Items => list(&map, "items")?.len(),
        };
        let mut fields = Vec::new();
        for (name, value) in map {
            match (shape, value) {
                (Shape::Columns, Value::List(values)) if values.len() == n => {
                    fields.push((plain(name)?, Part::Ticks(values.into_iter().map(Some).collect(), false)));
                }
                (Shape::Columns, Value::Text(letters))
                    if name == "side" && letters.len() == n && letters.is_ascii() =>
                {
                    let letters = letters.chars().map(|c| Some(Value::Text(c.to_string()))).collect();
                    fields.push((name, Part::Ticks(letters, true)));
                }
                (Shape::Items, Value::List(values)) if name == "items" => items(values, &mut fields)?,
                (_, value) => {
                    flatten(&plain(name)?, value, 1, &mut |name, value| fields.push((name, Part::Head(value))))?
                }
            }
        }
        let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        (names.len() == fields.len()).then_some(Self { ticks: n as u32, fields })
    }
}

/// A name is a column a tick in all messages or in none; the first one decides, the others keep their bytes.
fn agree(laid: &mut [Option<Laid>]) {
    let mut kinds: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for message in laid {
        let Some(fields) = message.as_ref().map(|l| &l.fields) else { continue };
        let agrees = fields.iter().all(|(name, part)| kinds.get(name).is_none_or(|known| *known == part.kind()));
        if !agrees {
            *message = None;
            continue;
        }
        for (name, part) in fields {
            if !kinds.contains_key(name) {
                kinds.insert(name.clone(), part.kind());
            }
        }
    }
}

fn list<'a>(map: &'a [(String, Value)], name: &str) -> Option<&'a [Value]> {
    match map.iter().find(|(n, _)| n == name) {
        Some((_, Value::List(values))) => Some(values),
        _ => None,
    }
}

/// A name that cannot be taken for a path or for a column of our own.
fn plain(name: String) -> Option<String> {
    (!name.is_empty() && !name.contains(SLASH) && !name.starts_with('_')).then_some(name)
}

fn flatten(name: &str, value: Value, depth: usize, each: &mut dyn FnMut(String, Value)) -> Option<()> {
    match value {
        Value::Map(fields) if !fields.is_empty() && depth < DEPTH_MAX => {
            for (inner, value) in fields {
                flatten(&format!("{name}{SLASH}{}", plain(inner)?), value, depth + 1, each)?;
            }
        }
        value => each(name.to_owned(), value),
    }
    Some(())
}

/// The items' fields as columns named `items/...`, in an order that all of them keep.
fn items(values: Vec<Value>, fields: &mut Vec<(String, Part)>) -> Option<()> {
    let n = values.len();
    let start = fields.len();
    for (i, item) in values.into_iter().enumerate() {
        let Value::Map(item) = item else { return None };
        let mut behind = start;
        for (name, value) in item {
            flatten(&format!("items{SLASH}{}", plain(name)?), value, 1, &mut |name, value| {
                let place = match fields[start..].iter().position(|(known, _)| *known == name) {
                    Some(place) => start + place,
                    None => {
                        fields.insert(behind, (name, Part::Ticks(vec![None; n], false)));
                        behind
                    }
                };
                behind = place + 1;
                if let (_, Part::Ticks(cells, _)) = &mut fields[place] {
                    cells[i] = Some(value);
                }
            })?;
        }
    }
    Some(())
}

/// A column before its type is known.
struct Draft {
    name: String,
    tick: bool,
    letters: bool,
    cells: Vec<Option<Value>>,
    nil_seen: bool,
    absent_seen: bool,
}

/// Where the column of a field is; a new one stands behind the field before it.
fn place(drafts: &mut Vec<Draft>, name: &str, part: &Part, behind: usize, messages: usize, rows: usize) -> usize {
    let (tick, letters) = part.kind();
    drafts.iter().position(|d| d.name == name).unwrap_or_else(|| {
        let cells = vec![None; if tick { rows } else { messages }];
        let draft = Draft { name: name.to_owned(), tick, letters, cells, nil_seen: false, absent_seen: false };
        drafts.insert(behind, draft);
        behind
    })
}

impl Draft {
    fn put(&mut self, message: usize, row: usize, part: &Part) {
        match part {
            Part::Head(value) => self.cells[message] = Some(value.clone()),
            Part::Ticks(values, _) => self.cells[row..row + values.len()].clone_from_slice(values),
        }
    }

    /// Looks at what a message put here; one that is not laid out says nothing of the column.
    fn look(&mut self, message: usize, row: usize, ticks: Option<u32>) {
        let Some(ticks) = ticks else { return };
        let cells = match self.tick {
            true => &self.cells[row..row + ticks as usize],
            false => &self.cells[message..=message],
        };
        for cell in cells {
            self.nil_seen |= *cell == Some(Value::Nil);
            self.absent_seen |= cell.is_none();
        }
    }

    fn column(self) -> Column {
        let mut found: BTreeSet<u8> = BTreeSet::new();
        for value in self.cells.iter().flatten() {
            found.insert(match value {
                Value::Nil => continue,
                Value::Bool(_) => 0,
                Value::Int(n) if *n < 0 => 1,
                Value::Int(_) => 2,
                Value::UInt(_) => 3,
                Value::Float(_) => 4,
                Value::Text(_) => 5,
                Value::Bytes(_) => 6,
                Value::List(_) | Value::Map(_) => 7,
            });
        }
        let found: Vec<u8> = found.into_iter().collect();
        let r#type = match found.as_slice() {
            [] => Type::Nil,
            [0] => Type::Bool,
            [1] | [2] | [1, 2] => Type::Int,
            [3] | [2, 3] => Type::UInt,
            [4] => Type::Float,
            [5] => Type::Text,
            [6] => Type::Bytes,
            _ => Type::Json,
        };
        macro_rules! cells {
            ($pattern:pat => $value:expr) => {
                self.cells
                    .into_iter()
                    .map(|cell| match cell {
                        Some($pattern) => Some($value),
                        _ => None,
                    })
                    .collect()
            };
        }
        let cells = match r#type {
            Type::Nil => Cells::Nil,
            Type::Bool => Cells::Bool(cells!(Value::Bool(b) => b)),
            Type::Int => Cells::Int(cells!(Value::Int(n) => n)),
            Type::UInt => Cells::UInt(
                self.cells
                    .into_iter()
                    .map(|cell| match cell {
                        Some(Value::Int(n)) => u64::try_from(n).ok(),
                        Some(Value::UInt(n)) => Some(n),
                        _ => None,
                    })
                    .collect(),
            ),
            Type::Float => Cells::Float(cells!(Value::Float(x) => x)),
            Type::Text => Cells::Text(cells!(Value::Text(text) => text)),
            Type::Bytes => Cells::Bytes(cells!(Value::Bytes(bytes) => bytes)),
            Type::Json => {
                let text = |cell: Option<Value>| cell.filter(|v| *v != Value::Nil).and_then(|v| v.json());
                Cells::Text(self.cells.into_iter().map(text).collect())
            }
        };
        // Where both occur, absent is the rule, and messages with a nil keep their bytes.
        let nil = self.nil_seen && !self.absent_seen;
        Column { field: Field { name: self.name, r#type, tick: self.tick, nil, letters: self.letters }, cells }
    }
}
