//! What every session does with decoded events, whatever the protocol: trades by consecutive id without a hole
//! and without a double, books by sequence, gaps told where neither can be had.
//!
//! Invariant F-1: the trades of a symbol leave in rising id. While a hole is being filled the later ones wait.

use std::collections::BTreeMap;

use schemas::Nanos;

use crate::book::{Outcome, Rule, Sync};
use crate::event::{Book, Event, Trade};
use crate::session::{Action, Limits, Missing};

/// What a market's trade ids tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TradeIds {
    /// They rise by one with every trade of a symbol: a hole shows.
    Consecutive,
    /// They rise with every trade of a symbol, by any number: what came before tells what is new, not what is missing.
    Rising,
    /// They only tell trades apart. The feed numbers the trades itself.
    Unordered,
}

/// What only the venue can give: the session turns it into a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Want {
    /// An order book snapshot. `again`: the last one did not do.
    Book { symbol: String, again: bool },
    /// The trades after this id, oldest first.
    Trades { symbol: String, after: u64 },
}

/// The state of all symbols of one connection.
#[derive(Debug)]
pub struct Feed {
    limits: Limits,
    rule: Rule,
    /// Holes are filled through the venue; a recording only tells them.
    recover: bool,
    symbols: BTreeMap<String, Symbol>,
    /// Trades that came twice.
    pub duplicates: u64,
}

#[derive(Debug)]
struct Symbol {
    trades: Trades,
    book: Sync,
    /// Changes are waiting and a snapshot was asked for.
    book_asked: bool,
    /// Newest event time of the symbol, and of its trades.
    last_ts: Option<Nanos>,
    trade_ts: Option<Nanos>,
    /// Open gaps: since when, and why.
    open: BTreeMap<&'static str, (Nanos, String)>,
}

#[derive(Debug)]
enum Trades {
    /// None seen yet, here or in the store.
    Unknown,
    /// `sure`: nothing is missing up to `last`. After a reconnect that is open until the next trade follows, or
    /// the venue was asked.
    Following {
        last: u64,
        sure: bool,
    },
    Filling {
        last: u64,
        held: Vec<Held>,
        tries: u32,
        fetched: u64,
    },
}

#[derive(Debug, Clone)]
struct Held {
    recv: Nanos,
    id: u64,
    /// `None`: an id that the venue used up for something that is no trade.
    trade: Option<Trade>,
}

impl Feed {
    pub fn new(rule: Rule, limits: &Limits, recover: bool) -> Self {
        Self { limits: limits.clone(), rule, recover, symbols: BTreeMap::new(), duplicates: 0 }
    }

    /// Names a symbol before its first event, with the newest trade that is stored.
    pub fn expect(&mut self, symbol: &str, last_trade: Option<(u64, Nanos)>) {
        let held_max = self.limits.held_max;
        let rule = self.rule;
        self.symbols.insert(
            symbol.to_owned(),
            Symbol {
                trades: match last_trade {
                    Some((last, _)) => Trades::Following { last, sure: false },
                    None => Trades::Unknown,
                },
                book: Sync::new(rule, held_max),
                book_asked: false,
                last_ts: last_trade.map(|(_, ts)| ts),
                trade_ts: last_trade.map(|(_, ts)| ts),
                open: BTreeMap::new(),
            },
        );
    }

    /// No hole is open in the trades.
    pub fn is_whole(&self) -> bool {
        self.symbols
            .values()
            .all(|s| !matches!(s.trades, Trades::Filling { .. } | Trades::Following { sure: false, .. }))
    }

    /// The one symbol whose book waits for a snapshot, for a snapshot that names none.
    pub fn only_waiting_book(&self) -> Option<String> {
        let mut waiting = self.symbols.iter().filter(|(_, s)| s.book_asked).map(|(name, _)| name);
        match (waiting.next(), waiting.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        }
    }

    /// The connection is gone: books start anew, and what follows may leave a hole.
    pub fn closed(&mut self, reason: &str, out: &mut Vec<Action>) {
        for (name, s) in &mut self.symbols {
            s.book.reset();
            s.book_asked = false;
            match &mut s.trades {
                Trades::Following { sure, .. } => *sure = false,
                // What waits is asked for again after the reconnect: the fetch may answer for the old connection.
                Trades::Filling { last, .. } => s.trades = Trades::Following { last: *last, sure: false },
                Trades::Unknown => {}
            }
            if let Some(from) = s.last_ts {
                open_gap(s, name, "link", from, reason, out);
            }
        }
    }

    /// Everything is subscribed: asks for the trades of each symbol that may have a hole.
    pub fn subscribed(&mut self, wants: &mut Vec<Want>) {
        for (name, s) in &mut self.symbols {
            if let Trades::Following { last, sure: false } = s.trades {
                s.trades = Trades::Filling { last, held: Vec::new(), tries: 1, fetched: 0 };
                wants.push(Want::Trades { symbol: name.clone(), after: last });
            }
        }
    }

    /// Nearly always: the next trade of a tape without a hole, which may leave as it is. False: nothing was done,
    /// [`Feed::take`] decides.
    pub fn passes(&mut self, event: &Event) -> bool {
        let Event::Trade(trade) = event else { return false };
        let Some(s) = self.symbols.get_mut(trade.symbol.as_str()) else { return false };
        match &mut s.trades {
            Trades::Following { last, sure } if s.open.is_empty() && trade.id.checked_sub(1) == Some(*last) => {
                (*last, *sure) = (trade.id, true);
                s.last_ts = s.last_ts.max(Some(trade.ts));
                s.trade_ts = Some(trade.ts);
                true
            }
            _ => false,
        }
    }

    /// Takes one event that was read at `recv`.
    pub fn take(&mut self, recv: Nanos, event: Event, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
        if self.passes(&event) {
            out.push(Action::Emit { recv, event });
            return;
        }
        let Some((name, ts)) = subject_of(&event) else {
            out.push(Action::Emit { recv, event });
            return;
        };
        let s = match self.symbols.get_mut(name) {
            Some(s) => s,
            None => {
                if self.symbols.len() == self.limits.symbols_max {
                    out.push(Action::Dead { reason: format!("symbol {name} is one more than symbols_max") });
                    return;
                }
                self.expect(name, None);
                self.symbols.get_mut(name).expect("Invariant: was put there above")
            }
        };
        if let Some(ts) = ts {
            s.last_ts = s.last_ts.max(Some(ts));
            close_gap(s, name, "link", ts, out);
        }
        match event {
            Event::Trade(trade) => {
                let (name, id) = (trade.symbol.clone(), trade.id);
                self.trade(&name, Held { recv, id, trade: Some(trade) }, out, wants);
            }
            Event::Ignored { trade: Some((name, id)), .. } => {
                self.trade(&name, Held { recv, id, trade: None }, out, wants);
            }
            Event::Book(book) if !book.partial => self.book(recv, book, out, wants),
            event => out.push(Action::Emit { recv, event }),
        }
    }

    fn trade(&mut self, name: &str, row: Held, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
        let (recover, held_max) = (self.recover, self.limits.held_max);
        let s = self.symbols.get_mut(name).expect("Invariant: the caller knows the symbol");
        match &mut s.trades {
            Trades::Unknown => {
                s.trades = Trades::Following { last: row.id, sure: true };
                emit(row, &mut s.trade_ts, out);
            }
            Trades::Following { last, .. } if row.id <= *last => self.duplicates += 1,
            Trades::Following { last, sure } if row.id == *last + 1 => {
                (*last, *sure) = (row.id, true);
                emit(row, &mut s.trade_ts, out);
            }
            Trades::Following { last, .. } if recover => {
                wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
                s.trades = Trades::Filling { last: *last, held: vec![row], tries: 1, fetched: 0 };
            }
            Trades::Following { last, sure } => {
                out.push(Action::Gap(hole(name, *last, &row, s.trade_ts)));
                (*last, *sure) = (row.id, true);
                emit(row, &mut s.trade_ts, out);
            }
            Trades::Filling { held, .. } => {
                held.push(row);
                if held.len() >= held_max {
                    self.give_up(name, "more trades arrived than may wait", out);
                }
            }
        }
    }

    /// The venue's answer to [`Want::Trades`], oldest first.
    pub fn filled(
        &mut self,
        recv: Nanos,
        name: &str,
        answer: Result<Vec<Trade>, String>,
        out: &mut Vec<Action>,
        wants: &mut Vec<Want>,
    ) {
        let (tries_max, trades_max) = (self.limits.backfill_tries_max, self.limits.backfill_trades_max);
        let Some(s) = self.symbols.get_mut(name) else { return };
        let Trades::Filling { last, held, tries, fetched } = &mut s.trades else { return };
        let rows = match answer {
            Ok(rows) => rows,
            Err(why) if *tries < tries_max => {
                *tries += 1;
                out.push(Action::Warn(format!("backfill {name}: {why}")));
                wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
                return;
            }
            Err(why) => return self.give_up(name, &why, out),
        };
        let before = *last;
        for trade in rows.into_iter().filter(|t| t.id > before) {
            let row = Held { recv, id: trade.id, trade: Some(trade) };
            if row.id <= *last {
                continue;
            }
            if row.id > *last + 1 {
                out.push(Action::Gap(hole(name, *last, &row, s.trade_ts)));
            }
            *last = row.id;
            *fetched += 1;
            emit(row, &mut s.trade_ts, out);
        }
        let reached = held.iter().map(|h| h.id).min().is_none_or(|first| first <= *last + 1);
        if reached {
            return self.settle(name, out);
        }
        // Something came: the next page. Nothing came although later trades exist: the venue does not have it.
        if *last > before && *fetched < trades_max {
            wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
            return;
        }
        self.give_up(name, "the venue does not have the trades between", out);
    }

    fn give_up(&mut self, name: &str, why: &str, out: &mut Vec<Action>) {
        out.push(Action::Warn(format!("backfill {name}: {why}")));
        self.settle(name, out);
    }

    /// Lets what waited go, holes told.
    fn settle(&mut self, name: &str, out: &mut Vec<Action>) {
        let s = self.symbols.get_mut(name).expect("Invariant: the caller knows the symbol");
        let Trades::Filling { last, held, .. } = &mut s.trades else { return };
        let mut last = *last;
        let mut held = std::mem::take(held);
        held.sort_by_key(|row| row.id);
        for row in held {
            if row.id <= last {
                self.duplicates += 1;
                continue;
            }
            if row.id > last + 1 {
                out.push(Action::Gap(hole(name, last, &row, s.trade_ts)));
            }
            last = row.id;
            emit(row, &mut s.trade_ts, out);
        }
        s.trades = Trades::Following { last, sure: true };
    }

    fn book(&mut self, recv: Nanos, book: Book, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
        let (name, ts, recover) = (book.symbol.clone(), book.ts, self.recover);
        let s = self.symbols.get_mut(name.as_str()).expect("Invariant: the caller knows the symbol");
        let mut said = Vec::new();
        let outcome = s.book.take(book, &mut said);
        let at = ts.or(s.last_ts);
        if !said.is_empty() {
            s.book_asked = false;
            if let Some(at) = at {
                close_gap(s, &name, "book", at, out);
            }
        }
        out.extend(said.into_iter().map(|book| Action::Emit { recv, event: Event::Book(book) }));
        match outcome {
            Outcome::Applied | Outcome::Stale => {}
            Outcome::Held => {
                if !std::mem::replace(&mut s.book_asked, true) {
                    if !recover {
                        open_gap(s, &name, "book", at.unwrap_or(recv), "no snapshot yet", out);
                    }
                    wants.push(Want::Book { symbol: name.into(), again: false });
                }
            }
            Outcome::TooOld => {
                s.book_asked = true;
                wants.push(Want::Book { symbol: name.into(), again: true });
            }
            Outcome::Gap { reason } => {
                open_gap(s, &name, "book", at.unwrap_or_default(), &reason, out);
                s.book_asked = true;
                wants.push(Want::Book { symbol: name.into(), again: false });
            }
        }
    }
}

fn emit(row: Held, trade_ts: &mut Option<Nanos>, out: &mut Vec<Action>) {
    if let Some(trade) = row.trade {
        *trade_ts = Some(trade.ts);
        out.push(Action::Emit { recv: row.recv, event: Event::Trade(trade) });
    }
}

fn hole(name: &str, last: u64, row: &Held, last_ts: Option<Nanos>) -> Missing {
    let at = row.trade.as_ref().map(|t| t.ts).or(last_ts).unwrap_or(row.recv);
    Missing {
        symbol: name.to_owned(),
        channel: "trade",
        from: last_ts.map_or(at, |ts| ts.min(at)),
        to: Some(at),
        reason: format!("trade {} after {last}", row.id),
    }
}

fn open_gap(s: &mut Symbol, name: &str, channel: &'static str, from: Nanos, reason: &str, out: &mut Vec<Action>) {
    if s.open.contains_key(channel) {
        return;
    }
    s.open.insert(channel, (from, reason.to_owned()));
    out.push(Action::Gap(Missing { symbol: name.to_owned(), channel, from, to: None, reason: reason.to_owned() }));
}

fn close_gap(s: &mut Symbol, name: &str, channel: &'static str, to: Nanos, out: &mut Vec<Action>) {
    if let Some((from, reason)) = s.open.remove(channel) {
        out.push(Action::Gap(Missing { symbol: name.to_owned(), channel, from, to: Some(to.max(from)), reason }));
    }
}

/// The symbol that an event is about, and the venue's time of it. `None`: it is about no symbol.
pub fn subject_of(event: &Event) -> Option<(&str, Option<Nanos>)> {
    Some(match event {
        Event::Trade(t) => (&t.symbol, Some(t.ts)),
        Event::Book(b) => (&b.symbol, b.ts),
        Event::Bbo(b) => (&b.symbol, b.ts),
        Event::Ticker(t) => (&t.symbol, t.ts),
        Event::Funding(f) => (&f.symbol, Some(f.ts)),
        // A bar's own times are those of its interval, not of now.
        Event::Bar(b) => (&b.symbol, b.event_ts),
        Event::Mark(m) => (&m.symbol, Some(m.ts)),
        Event::Index { symbol, ts, .. } | Event::OpenInterest { symbol, ts, .. } => (symbol, Some(*ts)),
        Event::Liquidation(l) => (&l.symbol, Some(l.ts)),
        Event::Ignored { trade: Some((symbol, _)), .. } => (symbol, None),
        Event::Order(_) | Event::Fill(_) | Event::Balance { .. } | Event::Control(_) | Event::Error { .. } => {
            return None;
        }
        Event::Ignored { trade: None, .. } | Event::Other(_) | Event::Malformed(_) => return None,
    })
}
