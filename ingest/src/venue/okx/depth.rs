//! OKX books: changes, snapshots, whole tops, and the best levels alone.

use schemas::Decimal;
use schemas::raw::BookAction;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{Stamp, parse, size_unit};
use crate::book::as_sent;
use crate::event::{Bbo, Book, Event, Symbol};
use crate::text::decimal;

/// Price, size, nothing any more, number of orders.
#[derive(Deserialize)]
pub(super) struct Level<'a>(#[serde(borrow)] &'a str, &'a str, IgnoredAny, IgnoredAny);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookRow<'a> {
    #[serde(borrow)]
    bids: Vec<Level<'a>>,
    #[serde(borrow)]
    asks: Vec<Level<'a>>,
    ts: Stamp,
    #[serde(default)]
    checksum: i32,
    /// Absent before 2023.
    seq_id: Option<i64>,
    /// -1 on a snapshot.
    prev_seq_id: Option<i64>,
}

impl BookRow<'_> {
    pub fn book(self, symbol: &str, action: BookAction, partial: bool) -> Result<Book, String> {
        // Since 2026 the venue sends 0, and changes are read the short way; a snapshot keeps its digits, for checksums behind
        // it. See `book/checksum.rs`.
        let sum = Some(self.checksum).filter(|sum| *sum != 0);
        let keeps_digits = sum.is_some() || (action == BookAction::Snapshot && !partial);
        let read = if keeps_digits { as_sent } else { |text: &str| decimal(text).map_err(|e| e.to_string()) };
        let levels = |rows: Vec<Level>| -> Result<Vec<(Decimal, Decimal)>, String> {
            rows.into_iter().map(|level| Ok((read(level.0)?, read(level.1)?))).collect()
        };
        Ok(Book {
            symbol: symbol.into(),
            action,
            partial,
            seq_first: None,
            seq_last: self.seq_id.and_then(|id| u64::try_from(id).ok()),
            seq_prev: self.prev_seq_id.and_then(|id| u64::try_from(id).ok()),
            bids: levels(self.bids)?,
            asks: levels(self.asks)?,
            unit: size_unit(symbol),
            checksum: sum,
            ts: Some(self.ts.0),
            event_ts: None,
        })
    }
}

pub(super) fn books(
    symbol: &str,
    action: BookAction,
    partial: bool,
    data: &str,
    out: &mut Vec<Event>,
) -> Result<(), String> {
    for row in parse::<Vec<BookRow>>(data)? {
        out.push(Event::Book(row.book(symbol, action, partial)?));
    }
    Ok(())
}

pub(super) fn best(symbol: &Symbol, data: &str, out: &mut Vec<Event>) -> Result<(), String> {
    for row in parse::<Vec<BookRow>>(data)? {
        let book = row.book(symbol, BookAction::Snapshot, true)?;
        out.push(Event::Bbo(Bbo {
            symbol: book.symbol,
            bid: book.bids.first().copied(),
            ask: book.asks.first().copied(),
            unit: book.unit,
            seq: book.seq_last,
            ts: book.ts,
            event_ts: None,
        }));
    }
    Ok(())
}
