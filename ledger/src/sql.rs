//! Changes as SQL text with parameters, for both databases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::row::{Change, Rule, Value};
use crate::schema::{Kind, Table};

/// The database's manner of speaking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// Text with one `$n` for each value. The kinds matter for NULLs: a prepared statement keeps the types that it was
/// first given.
#[derive(Clone, PartialEq, Debug)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<(Kind, Value)>,
    pub rows: usize,
}

/// Rows of one statement at most: below SQLite's 32766 and PostgreSQL's 65535 parameters for every table.
pub const ROWS_MAX: usize = 200;

/// Groups changes of one shape into statements of many rows where their rules let them change places; all others
/// stay in order, one a statement.
pub fn statements(dialect: Dialect, changes: Vec<Change>) -> Vec<Statement> {
    let mut groups: Vec<Vec<Change>> = Vec::new();
    // By shape: the group that is being filled, and the keys in it (one statement cannot touch a row twice).
    let mut open: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
    for change in changes {
        if change.cells.iter().any(|c| c.rule == Rule::Replace) {
            groups.push(vec![change]);
            continue;
        }
        let (shape, key) = (shape(&change), format!("{:?}", change.key_values().collect::<Vec<_>>()));
        match open.get_mut(&shape) {
            Some((at, keys)) if keys.len() < ROWS_MAX && !keys.contains(&key) => {
                groups[*at].push(change);
                keys.insert(key);
            }
            _ => {
                open.insert(shape, (groups.len(), BTreeSet::from([key])));
                groups.push(vec![change]);
            }
        }
    }
    groups.into_iter().map(|rows| upsert(dialect, rows)).collect()
}

fn shape(change: &Change) -> String {
    let mut shape = change.table.name.to_owned();
    for cell in &change.cells {
        let _ = write!(shape, " {}:{:?}", cell.column, cell.rule); // a String takes every write
    }
    shape
}

/// `rows` have one shape and different keys.
fn upsert(dialect: Dialect, rows: Vec<Change>) -> Statement {
    let table = rows[0].table;
    let head: Vec<(&str, Rule)> = rows[0].cells.iter().map(|c| (c.column, c.rule)).collect();
    let columns: Vec<String> = head.iter().map(|(column, _)| quoted(column)).collect();
    let mut sql = format!("INSERT INTO {} ({}) VALUES ", table.name, columns.join(", "));
    let count = rows.len();
    let mut values = Vec::with_capacity(count * head.len());
    for (n, row) in rows.into_iter().enumerate() {
        sql.push_str(if n == 0 { "(" } else { ", (" });
        for (i, cell) in row.cells.into_iter().enumerate() {
            sql.push_str(if i == 0 { "" } else { ", " });
            let kind = table.kind(cell.column).expect("Invariant: checked when the cell was made");
            values.push((kind, cell.value));
            sql.push_str(&parameter(dialect, values.len(), kind));
        }
        sql.push(')');
    }
    let sets: Vec<String> = head.iter().filter_map(|(column, rule)| set(table, column, *rule)).collect();
    let key: Vec<String> = table.key.iter().map(|column| quoted(column)).collect();
    let _ = match sets.is_empty() {
        true => write!(sql, " ON CONFLICT ({}) DO NOTHING", key.join(", ")),
        false => write!(sql, " ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), sets.join(", ")),
    };
    Statement { sql, values, rows: count }
}

fn set(table: &Table, column: &str, rule: Rule) -> Option<String> {
    let (name, column) = (table.name, quoted(column));
    match rule {
        Rule::Key | Rule::Once => None,
        Rule::Keep => Some(format!("{column} = COALESCE({name}.{column}, excluded.{column})")),
        Rule::Replace => Some(format!("{column} = excluded.{column}")),
    }
}

/// `open`, `close`, `key` and `n` are words of SQL to some parser or other.
fn quoted(column: &str) -> String {
    format!("\"{column}\"")
}

/// Decimals and JSON travel as text: their exact form. PostgreSQL is told what they are.
fn parameter(dialect: Dialect, n: usize, kind: Kind) -> String {
    match (dialect, kind) {
        (Dialect::Postgres, Kind::Decimal) => format!("CAST(${n} AS NUMERIC)"),
        (Dialect::Postgres, Kind::Json) => format!("CAST(${n} AS JSONB)"),
        (Dialect::Postgres, Kind::Int) => format!("CAST(${n} AS BIGINT)"),
        (Dialect::Postgres, Kind::Bool) => format!("CAST(${n} AS BOOLEAN)"),
        (Dialect::Postgres, Kind::Text) | (Dialect::Sqlite, _) => format!("${n}"),
    }
}

/// Every row of a table as texts, in the order of its key; what rebuilt tables are compared by.
pub fn select_all(table: &Table) -> String {
    let texts = table.columns.iter().map(|(column, _)| format!("CAST({} AS TEXT)", quoted(column)));
    let key: Vec<String> = table.key.iter().map(|column| quoted(column)).collect();
    let (columns, name) = (texts.collect::<Vec<_>>().join(", "), table.name);
    format!("SELECT {columns} FROM {name} ORDER BY {}", key.join(", "))
}
