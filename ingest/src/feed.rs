//! What every session does with decoded events, whatever the protocol: trades by consecutive id without a hole
//! and without a double, books by sequence, gaps told where neither can be had.
//!
//! Invariant F-1: the trades of a symbol leave in rising id. While a hole is being filled the later ones wait.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Nanos;

use self::held::{Held, Memory, by_time};
use crate::book::{Crossed, Outcome, Rule, Sync, View};
use crate::event::{Book, Event, Trade};
use crate::session::{Action, Limits, Missing, Tail};

mod held;

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
    ids: TradeIds,
    /// Holes are filled through the venue; a recording only tells them.
    recover: bool,
    symbols: BTreeMap<String, Symbol>,
    /// Symbols whose history the venue sends by itself: until when it is waited for, and whose came with this frame.
    history_due: BTreeMap<String, Nanos>,
    history_came: BTreeSet<String>,
    newest: Option<Nanos>,
    /// Trades that came twice.
    pub duplicates: u64,
}

#[derive(Debug)]
struct Symbol {
    trades: Trades,
    /// Of trades whose ids do not rise.
    memory: Memory,
    /// A frame of trades was lost while older ones were waited for already.
    doubted: bool,
    book: Sync,
    view: View,
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

impl Feed {
    pub fn new(rule: Rule, ids: TradeIds, limits: &Limits, recover: bool) -> Self {
        Self {
            limits: limits.clone(),
            rule,
            ids,
            recover,
            symbols: BTreeMap::new(),
            history_due: BTreeMap::new(),
            history_came: BTreeSet::new(),
            newest: None,
            duplicates: 0,
        }
    }

    /// Names a symbol before its first event, with what is stored of its trades.
    pub fn expect(&mut self, symbol: &str, tail: Option<&Tail>) {
        let limits = &self.limits;
        self.symbols.insert(
            symbol.to_owned(),
            Symbol {
                trades: match tail {
                    Some(tail) => Trades::Following { last: tail.id, sure: false },
                    None => Trades::Unknown,
                },
                memory: tail.map(|tail| Memory::of(tail, limits.trades_remembered_max)).unwrap_or_default(),
                doubted: false,
                book: Sync::new(self.rule, limits.held_max),
                view: View::new(limits.book_levels, limits.book_levels_kept_max),
                book_asked: false,
                last_ts: tail.map(|tail| tail.ts),
                trade_ts: tail.map(|tail| tail.ts),
                open: BTreeMap::new(),
            },
        );
    }

    /// Forgets a symbol; what still comes of it begins anew.
    pub fn forget(&mut self, symbol: &str) {
        self.symbols.remove(symbol);
        self.history_due.remove(symbol);
        self.history_came.remove(symbol);
    }

    /// No hole is open in the trades.
    pub fn is_whole(&self) -> bool {
        self.symbols
            .values()
            .all(|s| !matches!(s.trades, Trades::Filling { .. } | Trades::Following { sure: false, .. }))
    }

    /// The newest event time of all symbols.
    pub fn newest(&self) -> Option<Nanos> {
        self.newest
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
        self.history_due.clear();
        self.history_came.clear();
        for (name, s) in &mut self.symbols {
            s.book.reset();
            s.view.clear();
            s.book_asked = false;
            s.doubted = false;
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
            match s.trades {
                Trades::Following { last, sure: false } => s.trades = filling(last, Vec::new()),
                // Trades came before the last acknowledgement: they wait already, and nobody was asked yet.
                Trades::Filling { .. } if self.ids != TradeIds::Consecutive => {}
                _ => continue,
            }
            if let Trades::Filling { last, .. } = s.trades {
                wants.push(Want::Trades { symbol: name.clone(), after: last });
            }
        }
    }

    /// A frame was lost that may have held trades, of one symbol or of any. Consecutive ids show it by themselves; others do not, so that the venue is
    /// asked.
    pub fn doubt_trades(&mut self, of: Option<&str>, wants: &mut Vec<Want>) {
        if self.ids == TradeIds::Consecutive || !self.recover {
            return;
        }
        for (name, s) in self.symbols.iter_mut().filter(|(name, _)| of.is_none_or(|of| of == name.as_str())) {
            match s.trades {
                Trades::Following { last, sure: true } => {
                    s.trades = filling(last, Vec::new());
                    wants.push(Want::Trades { symbol: name.clone(), after: last });
                }
                Trades::Filling { .. } => s.doubted = true,
                Trades::Following { sure: false, .. } | Trades::Unknown => {}
            }
        }
    }

    /// The venue lost messages of this connection: no book on it can be trusted any more, and no tape whose ids show no hole.
    pub fn broken(&mut self, now: Nanos, reason: &str, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
        for (name, s) in self.symbols.iter_mut().filter(|(_, s)| s.book.is_live()) {
            restart_book(s, name, s.last_ts.unwrap_or(now), reason, out, wants);
        }
        self.doubt_trades(None, wants);
    }

    /// Asks once more for a book whose snapshot should have come by now. A book that follows is left alone.
    pub fn restart_late_book(&mut self, now: Nanos, name: &str, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
        if let Some(s) = self.symbols.get_mut(name).filter(|s| !s.book.is_live()) {
            restart_book(s, name, s.last_ts.unwrap_or(now), "no snapshot came", out, wants);
        }
    }

    /// Throws a symbol's book away and starts it again.
    pub fn resync(
        &mut self,
        now: Nanos,
        name: &str,
        out: &mut Vec<Action>,
        wants: &mut Vec<Want>,
    ) -> Result<(), String> {
        let s = self.symbols.get_mut(name).ok_or_else(|| format!("{name} is not subscribed"))?;
        restart_book(s, name, s.last_ts.unwrap_or(now), "asked for by the operator", out, wants);
        Ok(())
    }

    /// Nearly always: the next trade of a tape without a hole, which may leave as it is. False: nothing was done,
    /// [`Feed::take`] decides.
    pub fn passes(&mut self, event: &Event) -> bool {
        let Event::Trade(trade) = event else { return false };
        if self.ids != TradeIds::Consecutive {
            return false;
        }
        let Some(s) = self.symbols.get_mut(trade.symbol.as_str()) else { return false };
        match &mut s.trades {
            Trades::Following { last, sure } if s.open.is_empty() && trade.id.checked_sub(1) == Some(*last) => {
                (*last, *sure) = (trade.id, true);
                s.last_ts = s.last_ts.max(Some(trade.ts));
                self.newest = self.newest.max(Some(trade.ts));
                s.trade_ts = Some(trade.ts);
                true
            }
            _ => false,
        }
    }

    /// Puts the trades of one frame in the order of their ids, where ids have one: some venues send the newest first.
    pub fn order(&self, events: &mut [Event]) {
        if self.ids == TradeIds::Unordered || events.len() < 2 {
            return;
        }
        // Each run of trades for itself, and only where one stands before an older one: else all stays as it was sent.
        for run in events.chunk_by_mut(|a, b| numbered(a).is_some() && numbered(b).is_some()) {
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            let rises = |(symbol, id)| last.insert(symbol, id).is_none_or(|before| before <= id);
            if !run.iter().filter_map(numbered).all(rises) {
                run.sort_by_cached_key(|event| numbered(event).map(|(symbol, id)| (symbol.to_owned(), id)));
            }
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
        if !self.symbols.contains_key(name) {
            if self.symbols.len() == self.limits.symbols_max {
                out.push(Action::Dead { reason: format!("symbol {name} is one more than symbols_max") });
                return;
            }
            self.expect(name, None);
        }
        let s = self.symbols.get_mut(name).expect("Invariant: was put there above");
        if let Some(ts) = ts {
            s.last_ts = s.last_ts.max(Some(ts));
            self.newest = self.newest.max(Some(ts));
            // History says nothing about the present.
            if !matches!(&event, Event::Trade(trade) if trade.backfill) {
                close_gap(s, name, "link", ts, out);
            }
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
        let (ids, recover, held_max) = (self.ids, self.recover, self.limits.held_max);
        let remembered_max = self.limits.trades_remembered_max;
        let s = self.symbols.get_mut(name).expect("Invariant: the caller knows the symbol");
        match &mut s.trades {
            Trades::Unknown => {
                s.trades = Trades::Following { last: row.id, sure: true };
                self.duplicates += u64::from(!emit(row, s, ids, remembered_max, out));
            }
            Trades::Filling { held, .. } => {
                let is_past = row.is_past();
                held.push(row);
                // The past is one frame or answer, whose end settles it whole.
                if is_past && self.history_due.contains_key(name) {
                    self.history_came.insert(name.to_owned());
                } else if !is_past && held.len() >= held_max {
                    self.overflow(name, out);
                }
            }
            Trades::Following { last, .. } if ids != TradeIds::Unordered && row.id <= *last => self.duplicates += 1,
            Trades::Following { last, sure } if ids == TradeIds::Consecutive => {
                if row.id == *last + 1 {
                    (*last, *sure) = (row.id, true);
                    emit(row, s, ids, remembered_max, out);
                } else if recover {
                    wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
                    s.trades = filling(*last, vec![row]);
                } else {
                    out.push(Action::Gap(hole(name, *last, &row, s.trade_ts)));
                    (*last, *sure) = (row.id, true);
                    emit(row, s, ids, remembered_max, out);
                }
            }
            // Behind a reconnect the ids do not tell whether something is missing: the venue is asked first.
            Trades::Following { last, sure: false } if recover => s.trades = filling(*last, vec![row]),
            Trades::Following { last, sure } => {
                (*last, *sure) = (row.id, true);
                self.duplicates += u64::from(!emit(row, s, ids, remembered_max, out));
            }
        }
    }

    /// REST does not tell a symbol's trades: the venue sends history when it is subscribed to, until `due` or never.
    pub fn awaits_history(&mut self, name: &str, due: Nanos) {
        if let Some(Symbol { trades: Trades::Filling { held, .. }, .. }) = self.symbols.get(name) {
            if held.iter().any(Held::is_past) {
                self.history_came.insert(name.to_owned());
            }
            self.history_due.insert(name.to_owned(), due);
        }
    }

    /// A frame was taken whole: history that came with it is settled.
    pub fn frame_ended(&mut self, out: &mut Vec<Action>) {
        while let Some(name) = self.history_came.pop_first() {
            self.history_due.remove(&name);
            self.settle(&name, out);
        }
    }

    pub fn due(&self) -> Option<Nanos> {
        self.history_due.values().min().copied()
    }

    pub fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let late: Vec<String> =
            self.history_due.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect();
        for name in late {
            self.history_due.remove(&name);
            self.doubt_present(&name);
            self.give_up(&name, "the venue sent no history", out);
        }
    }

    /// The newest trades of a symbol as a poll brought them. Those that are new leave in order; where the page does not
    /// reach back to those that left already, that is told as a gap. `reaches`: it is known to.
    pub fn page(&mut self, recv: Nanos, name: &str, rows: Vec<Trade>, reaches: bool, out: &mut Vec<Action>) {
        if rows.is_empty() {
            return;
        }
        if !self.symbols.contains_key(name) {
            if self.symbols.len() == self.limits.symbols_max {
                out.push(Action::Dead { reason: format!("symbol {name} is one more than symbols_max") });
                return;
            }
            self.expect(name, None);
        }
        let s = self.symbols.get_mut(name).expect("Invariant: was put there above");
        let newest = rows.iter().map(|t| t.ts).max();
        s.last_ts = s.last_ts.max(newest);
        self.newest = self.newest.max(newest);
        if let Some(ts) = newest {
            close_gap(s, name, "link", ts, out);
        }
        let last = match &s.trades {
            Trades::Following { last, .. } | Trades::Filling { last, .. } => *last,
            // The first page: nothing was seen that it could reach back to.
            Trades::Unknown => rows.iter().map(|t| t.id).min().map_or(0, |first| first.saturating_sub(1)),
        };
        let held = rows.into_iter().map(|trade| Held { recv, id: trade.id, trade: Some(trade) }).collect();
        s.trades = filling(last, held);
        self.settle_page(name, reaches, out);
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
        let (ids, remembered_max) = (self.ids, self.limits.trades_remembered_max);
        let Some(s) = self.symbols.get_mut(name) else { return };
        let Trades::Filling { last, held, tries, fetched } = &mut s.trades else { return };
        let mut rows = match answer {
            Ok(rows) => rows,
            Err(why) if *tries < tries_max => {
                *tries += 1;
                out.push(Action::Warn(format!("backfill {name}: {why}")));
                wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
                return;
            }
            Err(why) => return self.give_up(name, &why, out),
        };
        rows.iter_mut().for_each(|t| t.backfill = true);
        let rows = rows.into_iter().map(|trade| Held { recv, id: trade.id, trade: Some(trade) });
        if ids != TradeIds::Consecutive {
            // The newest ones: whether they reach back far enough shows when all is put in order. An answer may also be older
            // than what was pushed meanwhile: then it is asked for again.
            let rows: Vec<Held> = rows.collect();
            let told = rows.iter().filter_map(|row| Some(row.trade.as_ref()?.ts)).max();
            let pushed = held.iter().filter_map(|row| row.trade.as_ref().filter(|t| !t.backfill)).map(|t| t.ts).min();
            held.extend(rows);
            if let (Some(told), Some(pushed)) = (told, pushed)
                && told < pushed
            {
                if *tries < tries_max {
                    *tries += 1;
                    wants.push(Want::Trades { symbol: name.to_owned(), after: *last });
                    return;
                }
                let reason = "what the venue tells of its trades does not reach up to what it pushed".to_owned();
                let (symbol, to) = (name.to_owned(), Some(pushed));
                out.push(Action::Gap(Missing { symbol, channel: "trade", from: told, to, reason }));
            }
            return self.settle(name, out);
        }
        let before = *last;
        let first_held = held.iter().map(|h| h.id).min();
        let (mut at, mut taken) = (before, *fetched);
        for row in rows {
            if row.id <= at {
                continue;
            }
            if row.id > at + 1 {
                out.push(Action::Gap(hole(name, at, &row, s.trade_ts)));
            }
            at = row.id;
            taken += 1;
            emit(row, s, ids, remembered_max, out);
        }
        if let Trades::Filling { last, fetched, .. } = &mut s.trades {
            (*last, *fetched) = (at, taken);
        }
        if first_held.is_none_or(|first| first <= at + 1) {
            return self.settle(name, out);
        }
        // Something came: the next page. Nothing came although later trades exist: the venue does not have it.
        if at > before && taken < trades_max {
            wants.push(Want::Trades { symbol: name.to_owned(), after: at });
            return;
        }
        self.give_up(name, "the venue does not have the trades between", out);
    }

    /// To be sent history a subscription is left and taken again: what happens between is missing unless history comes.
    fn doubt_present(&mut self, name: &str) {
        if let Some(s) = self.symbols.get_mut(name) {
            s.doubted = true;
        }
    }

    /// More trades wait than may: they go, and history that comes by itself is waited for still.
    fn overflow(&mut self, name: &str, out: &mut Vec<Action>) {
        let history_comes = self.history_due.contains_key(name);
        if history_comes {
            self.doubt_present(name);
        }
        self.give_up(name, "more trades arrived than may wait", out);
        if let Some(s) = self.symbols.get_mut(name).filter(|_| history_comes)
            && let Trades::Following { last, .. } = s.trades
        {
            s.trades = filling(last, Vec::new());
        }
    }

    fn give_up(&mut self, name: &str, why: &str, out: &mut Vec<Action>) {
        out.push(Action::Warn(format!("backfill {name}: {why}")));
        self.settle(name, out);
    }

    /// Lets what waited go in order, holes told.
    fn settle(&mut self, name: &str, out: &mut Vec<Action>) {
        self.settle_page(name, false, out);
    }

    /// `reaches`: what waited is known to reach back to what left already.
    fn settle_page(&mut self, name: &str, reaches: bool, out: &mut Vec<Action>) {
        let (ids, remembered_max) = (self.ids, self.limits.trades_remembered_max);
        let Some(s) = self.symbols.get_mut(name) else { return };
        let Trades::Filling { last, held, .. } = &mut s.trades else { return };
        let mut last = *last;
        let mut held = std::mem::take(held);
        // Behind what was told as missing already, and went by since: it would come too late.
        if let (TradeIds::Unordered, Some(newest)) = (ids, s.trade_ts) {
            let open = s.open.get("trade").map_or(newest, |(from, _)| *from);
            let late = |t: &Trade| t.ts < newest && (s.memory.is_missing(t) || t.ts >= open && !s.memory.has(t));
            let known = held.len();
            held.retain(|row| !row.trade.as_ref().is_some_and(late));
            if held.len() < known {
                let late = known - held.len();
                out.push(Action::Warn(format!("history {name}: {late} trades of a gap came behind later ones")));
            }
        }
        let time = |row: &Held| row.trade.as_ref().map(|t| t.ts);
        let past = held.iter().filter(|row| row.is_past()).filter_map(time).min();
        let first = past.or(held.iter().filter_map(time).min());
        match ids {
            TradeIds::Unordered => self.duplicates += by_time(&mut held),
            TradeIds::Consecutive | TradeIds::Rising => held.sort_by_key(|row| row.id),
        }
        // Without consecutive ids only a trade that is stored already proves that nothing lies between.
        let proven = reaches
            || match ids {
                TradeIds::Consecutive => true,
                TradeIds::Rising => held.iter().any(|row| row.id <= last),
                TradeIds::Unordered => held.iter().any(|row| row.trade.as_ref().is_some_and(|t| s.memory.has(t))),
            };
        // What the venue gave has no hole, and it reaches to the present; before it there may be some.
        let doubted = std::mem::take(&mut s.doubted);
        let mut lasting = None;
        if (!proven || doubted)
            && let Some(from) = s.trade_ts
        {
            let why = match proven {
                true => "a frame of trades was lost while older ones were asked for",
                false => "what the venue still has of its trades does not reach back to ours",
            };
            open_gap(s, name, "trade", from, why, out);
            if doubted {
                // One may have been lost behind it: the next trade ends the gap, and none of these.
                lasting = s.open.remove("trade");
            } else if let Some(to) = first {
                close_gap(s, name, "trade", to, out);
            }
        }
        for row in held {
            if ids != TradeIds::Unordered && row.id <= last {
                self.duplicates += 1;
                continue;
            }
            if ids == TradeIds::Consecutive && row.id > last + 1 {
                out.push(Action::Gap(hole(name, last, &row, s.trade_ts)));
            }
            last = row.id;
            self.duplicates += u64::from(!emit(row, s, ids, remembered_max, out));
        }
        s.open.extend(lasting.map(|open| ("trade", open)));
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
            // A snapshot may have no time of its own (Coinbase Exchange).
            close_gap(s, &name, "book", at.unwrap_or(recv), out);
        }
        for book in said {
            // A recording is told as it is.
            let sum = book.checksum.filter(|_| recover);
            let shown = if recover { s.view.take(book) } else { Ok(book) };
            match shown {
                Ok(book) => match sum.and_then(|sum| s.view.disagrees(sum)) {
                    Some(reason) => return restart_book(s, &name, at.unwrap_or(recv), &reason, out, wants),
                    None => out.push(Action::Emit { recv, event: Event::Book(book) }),
                },
                Err(Crossed { bid, ask }) => {
                    let reason = format!("the book is crossed: bid {bid}, ask {ask}");
                    return restart_book(s, &name, at.unwrap_or(recv), &reason, out, wants);
                }
            }
        }
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
            Outcome::Gap { reason } => restart_book(s, &name, at.unwrap_or_default(), &reason, out, wants),
        }
    }
}

fn filling(last: u64, held: Vec<Held>) -> Trades {
    Trades::Filling { last, held, tries: 1, fetched: 0 }
}

/// A book that cannot be trusted from `from` on: nothing of it is published until it started again.
fn restart_book(s: &mut Symbol, name: &str, from: Nanos, reason: &str, out: &mut Vec<Action>, wants: &mut Vec<Want>) {
    s.book.reset();
    s.view.clear();
    open_gap(s, name, "book", from, reason, out);
    s.book_asked = true;
    wants.push(Want::Book { symbol: name.to_owned(), again: false });
}

/// The symbol and id of a trade, or of what used up the id of one.
fn numbered(event: &Event) -> Option<(&str, u64)> {
    match event {
        Event::Trade(trade) => Some((&trade.symbol, trade.id)),
        Event::Ignored { trade: Some((symbol, id)), .. } => Some((symbol, *id)),
        _ => None,
    }
}

/// False: the trade came already.
fn emit(row: Held, s: &mut Symbol, ids: TradeIds, remembered_max: usize, out: &mut Vec<Action>) -> bool {
    let Some(trade) = row.trade else { return true };
    let trade = match ids {
        TradeIds::Unordered => s.memory.number(trade, remembered_max),
        TradeIds::Consecutive | TradeIds::Rising => Some(trade),
    };
    let Some(trade) = trade else { return false };
    close_gap(s, &trade.symbol, "trade", trade.ts, out);
    s.trade_ts = s.trade_ts.max(Some(trade.ts));
    out.push(Action::Emit { recv: row.recv, event: Event::Trade(trade) });
    true
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
        if channel == "trade" {
            s.memory.missed(from, to);
        }
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
        Event::FundingOutlook { symbol, .. } => (symbol, None),
        // A bar's own times are those of its interval, not of now.
        Event::Bar(b) => (&b.symbol, b.event_ts),
        Event::Mark(m) => (&m.symbol, Some(m.ts)),
        Event::Index { symbol, ts, .. } | Event::OpenInterest { symbol, ts, .. } => (symbol, Some(*ts)),
        Event::Liquidation(l) => (&l.symbol, Some(l.ts)),
        Event::Ignored { trade: Some((symbol, _)), .. } => (symbol, None),
        Event::Order(_) | Event::Fill(_) | Event::Balance { .. } | Event::Control(_) | Event::Error { .. } => {
            return None;
        }
        Event::Ignored { trade: None, .. } | Event::Status(_) | Event::Other(_) | Event::Malformed(_) => return None,
    })
}
