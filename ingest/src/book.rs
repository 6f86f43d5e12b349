//! Order books: the venue's sequence rules (`Sync`) and the levels themselves (`Levels`).
//!
//! `Sync` decides which messages follow each other. It says them on in an order that needs no rule any more: a
//! snapshot, then changes without a hole. `Levels` folds them.

use std::collections::{BTreeMap, VecDeque};

use schemas::raw::BookAction;
use schemas::{Decimal, Nanos};
use sha2::{Digest, Sha256};

use crate::event::Book;

mod checksum;
mod linked;

pub(crate) use checksum::as_sent;

/// How the messages of a market's book follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Binance spot: `U` is the previous `u` plus one; starts from a REST snapshot.
    FirstLast,
    /// Binance futures: `pu` is the previous `u`; starts from a REST snapshot.
    PreviousLast,
    /// Deribit: a snapshot on the channel itself, then the predecessor that a change names is the last one.
    Chain,
    /// HTX spot: the predecessor that a change names is the last one; starts from a snapshot that is asked for.
    Asked,
    /// HTX swaps: a snapshot on the channel itself, then versions rise by exactly one.
    Counted,
    /// Coinbase: a snapshot on the channel itself, then changes without numbers; a loss shows elsewhere or not at all.
    Unnumbered,
    /// Hyperliquid: every message is the whole book, and an older one is dropped by its time.
    Whole,
    /// OKX: `prevSeqId` is the last `seqId`, which may repeat and may start anew. Begins with a snapshot on the channel, or
    /// with one from REST. Without numbers (recordings of 2022) the changes follow their snapshot as they come.
    Linked,
}

impl Rule {
    /// Whether the first snapshot has to be fetched.
    pub fn wants_snapshot(self) -> bool {
        match self {
            Rule::FirstLast | Rule::PreviousLast | Rule::Asked => true,
            Rule::Chain | Rule::Linked | Rule::Counted | Rule::Unnumbered | Rule::Whole => false,
        }
    }

    /// Whether messages carry numbers that follow each other.
    fn numbered(self) -> bool {
        !matches!(self, Rule::Unnumbered | Rule::Whole)
    }
}

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It follows; it (and whatever waited for it) was said on.
    Applied,
    /// It waits for a snapshot.
    Held,
    /// It is older than the book.
    Stale,
    /// It does not follow: the book is stale from here on and needs a new snapshot.
    Gap { reason: String },
    /// A snapshot that is older than everything held: fetch another.
    TooOld,
}

#[derive(Debug)]
enum State {
    /// No snapshot yet: changes are held back.
    Waiting,
    /// A snapshot with this id was taken; the change that bridges it has not come yet.
    Bridging(u64),
    /// The last id that was said on.
    Live(u64),
    /// A snapshot without a number was taken: nothing tells whether what follows is whole.
    Unnumbered,
}

/// The sequence of one symbol's book.
#[derive(Debug)]
pub struct Sync {
    rule: Rule,
    state: State,
    held: VecDeque<Book>,
    held_max: usize,
    /// Of the last whole book, where that is what orders them.
    last_ts: Option<Nanos>,
    /// Messages that were older than the book, that were said on, and breaks of the sequence.
    pub stale: u64,
    pub applied: u64,
    pub breaks: u64,
}

impl Sync {
    /// `held_max`: how many changes may wait for a snapshot; the oldest is dropped beyond it (then the snapshot
    /// that comes will not bridge, and another one is fetched).
    pub fn new(rule: Rule, held_max: usize) -> Self {
        Self {
            rule,
            state: State::Waiting,
            held: VecDeque::new(),
            held_max,
            last_ts: None,
            stale: 0,
            applied: 0,
            breaks: 0,
        }
    }

    /// The book follows the venue.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, State::Waiting)
    }

    /// The venue numbers the messages: a break can be told.
    pub fn is_numbered(&self) -> bool {
        self.rule.numbered() && !matches!(self.state, State::Unnumbered)
    }

    /// The last sequence number that was said on.
    pub fn sequence(&self) -> Option<u64> {
        match self.state {
            State::Waiting | State::Unnumbered => None,
            State::Bridging(id) | State::Live(id) => self.rule.numbered().then_some(id),
        }
    }

    /// Forgets everything: the connection is new.
    pub fn reset(&mut self) {
        self.state = State::Waiting;
        self.held.clear();
        self.last_ts = None;
    }

    /// Takes a message of the stream; what follows is appended to `out`.
    pub fn take(&mut self, book: Book, out: &mut Vec<Book>) -> Outcome {
        if self.rule == Rule::Linked {
            return self.take_linked(book, out);
        }
        if book.action == BookAction::Snapshot {
            return self.snapshot(book, out);
        }
        match (self.rule, &self.state) {
            (Rule::Whole, _) => return self.broken("a change where only whole books come".to_owned()),
            (Rule::Unnumbered, State::Bridging(_) | State::Live(_)) => return self.apply(0, book, out),
            _ => {}
        }
        let Some(last) = book.seq_last.or((!self.rule.numbered()).then_some(0)) else {
            return self.broken("a change without a sequence number".to_owned());
        };
        match (self.rule, &self.state) {
            (Rule::Chain | Rule::Counted | Rule::Unnumbered, State::Waiting) => {
                self.stale += 1;
                Outcome::Stale
            }
            (_, State::Waiting) => self.hold(book),
            (_, State::Unnumbered) => self.broken("a number behind a snapshot without one".to_owned()),
            (_, &State::Bridging(id)) => self.bridge(id, last, book, out),
            (_, &State::Live(id)) => self.follow(id, last, book, out),
        }
    }

    fn hold(&mut self, book: Book) -> Outcome {
        if self.held.len() == self.held_max {
            self.held.pop_front();
        }
        self.held.push_back(book);
        Outcome::Held
    }

    fn snapshot(&mut self, book: Book, out: &mut Vec<Book>) -> Outcome {
        if self.rule == Rule::Whole && book.ts < self.last_ts {
            self.stale += 1;
            return Outcome::Stale;
        }
        let Some(id) = book.seq_last.or((!self.rule.numbered()).then_some(0)) else {
            return self.broken("a snapshot without a sequence number".to_owned());
        };
        if !self.rule.wants_snapshot() {
            self.last_ts = book.ts.max(self.last_ts);
            self.state = State::Live(id);
            self.applied += 1;
            out.push(book);
            return Outcome::Applied;
        }
        let first_kept = self.held.iter().find(|b| !self.is_before(b, id));
        if first_kept.is_some_and(|b| !self.bridges(b, id)) {
            return Outcome::TooOld;
        }
        self.state = State::Bridging(id);
        out.push(book);
        for held in std::mem::take(&mut self.held) {
            if let gap @ Outcome::Gap { .. } = self.take(held, out) {
                return gap;
            }
        }
        Outcome::Applied
    }

    /// Wholly contained in a snapshot of this id.
    fn is_before(&self, book: &Book, id: u64) -> bool {
        let last = book.seq_last.unwrap_or(0);
        match self.rule {
            Rule::FirstLast | Rule::Asked => last <= id,
            _ => last < id,
        }
    }

    /// The first change after a snapshot of this id.
    fn bridges(&self, book: &Book, id: u64) -> bool {
        let (first, last) = (book.seq_first.unwrap_or(u64::MAX), book.seq_last.unwrap_or(0));
        match self.rule {
            Rule::FirstLast => first <= id + 1 && id < last,
            // One that began before the snapshot overlaps it: harmless, sizes are absolute.
            Rule::Asked => book.seq_prev.is_some_and(|prev| prev <= id && id < last),
            _ => (first <= id && id <= last) || book.seq_prev == Some(id),
        }
    }

    fn bridge(&mut self, id: u64, last: u64, book: Book, out: &mut Vec<Book>) -> Outcome {
        if self.is_before(&book, id) {
            self.stale += 1;
            return Outcome::Stale;
        }
        if !self.bridges(&book, id) {
            return self.broken(format!("changes from {} do not meet the snapshot {id}", show(book.seq_first)));
        }
        self.apply(last, book, out)
    }

    fn follow(&mut self, id: u64, last: u64, book: Book, out: &mut Vec<Book>) -> Outcome {
        let follows = match self.rule {
            Rule::FirstLast if last <= id => {
                self.stale += 1;
                return Outcome::Stale;
            }
            // An overlap is harmless: sizes are absolute.
            Rule::FirstLast => book.seq_first.is_some_and(|first| first <= id + 1),
            Rule::Counted | Rule::Asked if last <= id => {
                self.stale += 1;
                return Outcome::Stale;
            }
            Rule::Counted => last == id + 1,
            _ if last < id => {
                self.stale += 1;
                return Outcome::Stale;
            }
            _ => book.seq_prev == Some(id),
        };
        if follows {
            return self.apply(last, book, out);
        }
        let found = match self.rule {
            Rule::FirstLast => book.seq_first,
            Rule::Counted => book.seq_last,
            _ => book.seq_prev,
        };
        self.broken(format!("book sequence {} after {id}", show(found)))
    }

    fn apply(&mut self, last: u64, book: Book, out: &mut Vec<Book>) -> Outcome {
        self.state = State::Live(last);
        self.applied += 1;
        out.push(book);
        Outcome::Applied
    }

    fn broken(&mut self, reason: String) -> Outcome {
        self.breaks += 1;
        self.reset();
        Outcome::Gap { reason }
    }
}

fn show(id: Option<u64>) -> String {
    id.map_or("nothing".to_owned(), |id| id.to_string())
}

/// The levels of one book.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels {
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
}

impl Levels {
    /// Folds a message that [`Sync`] let through.
    pub fn apply(&mut self, book: &Book) {
        if book.action == BookAction::Snapshot {
            self.bids.clear();
            self.asks.clear();
        }
        for (side, rows) in [(&mut self.bids, &book.bids), (&mut self.asks, &book.asks)] {
            for (price, size) in rows {
                if size.is_zero() {
                    side.remove(price);
                } else {
                    side.insert(*price, *size);
                }
            }
        }
    }

    /// Best first: descending prices.
    pub fn bids(&self) -> impl Iterator<Item = (Decimal, Decimal)> + '_ {
        self.bids.iter().rev().map(|(p, q)| (*p, *q))
    }

    /// Best first: ascending prices.
    pub fn asks(&self) -> impl Iterator<Item = (Decimal, Decimal)> + '_ {
        self.asks.iter().map(|(p, q)| (*p, *q))
    }

    /// Forgets the levels farthest from the middle.
    fn trim(&mut self, levels_max: usize) {
        while self.bids.len() > levels_max {
            self.bids.pop_first();
        }
        while self.asks.len() > levels_max {
            self.asks.pop_last();
        }
    }

    pub fn bid_levels(&self) -> usize {
        self.bids.len()
    }

    pub fn ask_levels(&self) -> usize {
        self.asks.len()
    }
}

/// What of a book is published: at most so many levels a side, and never a crossed book.
///
/// The whole book is kept here, so that a level that comes into sight behind a deleted one is told.
#[derive(Clone, Debug)]
pub struct View {
    levels: Levels,
    /// Levels a side; 0: as many as the venue sends.
    depth: usize,
    /// Levels a side that are kept; the farthest are forgotten.
    kept_max: usize,
}

/// The best bid is at or above the best ask: the book cannot be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossed {
    pub bid: Decimal,
    pub ask: Decimal,
}

impl View {
    pub fn new(depth: usize, kept_max: usize) -> Self {
        Self { levels: Levels::default(), depth, kept_max: kept_max.max(depth) }
    }

    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    pub fn clear(&mut self) {
        self.levels = Levels::default();
    }

    /// Folds a message that [`Sync`] let through, and gives what to publish of it. A change that touches nothing that is
    /// published stays, with empty sides: its sequence number counts.
    pub fn take(&mut self, mut book: Book) -> Result<Book, Crossed> {
        let before = (self.depth > 0 && book.action == BookAction::Update).then(|| self.top());
        self.levels.apply(&book);
        if let (Some((bid, _)), Some((ask, _))) = (self.levels.bids().next(), self.levels.asks().next())
            && bid >= ask
        {
            return Err(Crossed { bid, ask });
        }
        self.levels.trim(self.kept_max);
        if self.depth > 0 {
            let after = self.top();
            match before {
                Some(before) => {
                    (book.bids, book.asks) = (changes(&before.0, &after.0), changes(&before.1, &after.1));
                }
                None => (book.bids, book.asks) = after,
            }
        }
        Ok(book)
    }

    fn top(&self) -> (Vec<(Decimal, Decimal)>, Vec<(Decimal, Decimal)>) {
        (self.levels.bids().take(self.depth).collect(), self.levels.asks().take(self.depth).collect())
    }
}

/// What leads from one top of a side to another; size 0 deletes.
fn changes(before: &[(Decimal, Decimal)], after: &[(Decimal, Decimal)]) -> Vec<(Decimal, Decimal)> {
    let old: BTreeMap<Decimal, Decimal> = before.iter().copied().collect();
    let new: BTreeMap<Decimal, Decimal> = after.iter().copied().collect();
    let gone = old.keys().filter(|price| !new.contains_key(price)).map(|price| (*price, Decimal::ZERO));
    let set = after.iter().filter(|(price, size)| old.get(price) != Some(size)).copied();
    gone.chain(set).collect()
}

/// SHA-256 (hex) of the compact JSON list `[["price","size"],...]` in book order.
pub fn side_sha256(side: impl Iterator<Item = (Decimal, Decimal)>) -> String {
    let rows: Vec<[String; 2]> = side.map(|(p, q)| [p.normalize().to_string(), q.normalize().to_string()]).collect();
    let text = serde_json::to_string(&rows).expect("Invariant: texts serialise");
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn message(action: BookAction, first: Option<u64>, last: u64, prev: Option<u64>) -> Book {
        Book {
            symbol: "X".into(),
            action,
            partial: false,
            seq_first: first,
            seq_last: Some(last),
            seq_prev: prev,
            bids: vec![],
            asks: vec![],
            unit: schemas::instrument::SizeUnit::Base,
            checksum: None,
            ts: None,
            event_ts: None,
        }
    }

    /// `snap 100`, `101-105` (first-last), `105<110` (last after previous), `100..103<99` (first..last<previous).
    fn check(rule: Rule, tape: &str, expected: Expect) {
        let mut sync = Sync::new(rule, 3);
        let mut said = String::new();
        for word in tape.split('|').map(str::trim) {
            let n = |t: &str| t.parse::<u64>().unwrap();
            let book = if let Some(id) = word.strip_prefix("snap ") {
                message(BookAction::Snapshot, None, n(id), None)
            } else if let Some((range, prev)) = word.split_once('<') {
                let (first, last) = range.split_once("..").unwrap_or((range, range));
                message(BookAction::Update, Some(n(first)), n(last), Some(n(prev)))
            } else {
                let (first, last) = word.split_once('-').unwrap();
                message(BookAction::Update, Some(n(first)), n(last), None)
            };
            let mut out = Vec::new();
            let outcome = match sync.take(book, &mut out) {
                Outcome::Gap { reason } => format!("GAP {reason}"),
                other => format!("{other:?}").to_lowercase(),
            };
            let ids: Vec<_> = out.iter().map(|b| b.seq_last.unwrap().to_string()).collect();
            said += &format!("{word}: {outcome} [{}]\n", ids.join(" "));
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn spot_changes_wait_for_the_snapshot_and_the_old_ones_are_dropped() {
        check(
            Rule::FirstLast,
            "95-99 | 100-104 | 105-106 | snap 102 | 107-107 | 105-107 | 110-111 | 112-113",
            expect![[r#"
                95-99: held []
                100-104: held []
                105-106: held []
                snap 102: applied [102 104 106]
                107-107: applied [107]
                105-107: stale []
                110-111: GAP book sequence 110 after 107 []
                112-113: held []
            "#]],
        );
    }

    #[test]
    fn a_snapshot_older_than_all_that_is_held_is_asked_for_again() {
        check(
            Rule::FirstLast,
            "105-106 | snap 100 | snap 105",
            expect![[r#"
                105-106: held []
                snap 100: tooold []
                snap 105: applied [105 106]
            "#]],
        );
    }

    #[test]
    fn a_snapshot_newer_than_all_that_is_held_waits_for_its_bridge() {
        check(
            Rule::FirstLast,
            "95-99 | snap 110 | 100-108 | 109-112 | 113-113",
            expect![[r#"
                95-99: held []
                snap 110: applied [110]
                100-108: stale []
                109-112: applied [112]
                113-113: applied [113]
            "#]],
        );
    }

    #[test]
    fn futures_follow_the_previous_last_id_only() {
        check(
            Rule::PreviousLast,
            "90..95<89 | 97..105<95 | snap 100 | 120..130<105 | 131..140<131 | 141..150<140",
            expect![[r#"
                90..95<89: held []
                97..105<95: held []
                snap 100: applied [100 105]
                120..130<105: applied [130]
                131..140<131: GAP book sequence 131 after 130 []
                141..150<140: held []
            "#]],
        );
    }

    #[test]
    fn a_futures_change_that_ends_at_the_snapshot_bridges_it() {
        check(
            Rule::PreviousLast,
            "97..100<95 | snap 100 | 110..120<100",
            expect![[r#"
                97..100<95: held []
                snap 100: applied [100 100]
                110..120<100: applied [120]
            "#]],
        );
    }

    #[test]
    fn a_broken_chain_stays_broken_until_the_venue_sends_a_snapshot() {
        check(
            Rule::Chain,
            "5<4 | snap 10 | 12<10 | 20<13 | 21<20 | snap 30 | 31<30",
            expect![[r#"
                5<4: stale []
                snap 10: applied [10]
                12<10: applied [12]
                20<13: GAP book sequence 13 after 12 []
                21<20: stale []
                snap 30: applied [30]
                31<30: applied [31]
            "#]],
        );
    }

    #[test]
    fn versions_that_are_counted_rise_by_one_and_a_repeat_is_stale() {
        check(
            Rule::Counted,
            "5-5 | snap 10 | 11-11 | 11-11 | 13-13 | 14-14 | snap 20 | 21-21",
            expect![[r#"
                5-5: stale []
                snap 10: applied [10]
                11-11: applied [11]
                11-11: stale []
                13-13: GAP book sequence 13 after 11 []
                14-14: stale []
                snap 20: applied [20]
                21-21: applied [21]
            "#]],
        );
    }

    #[test]
    fn whole_books_replace_each_other_and_an_older_one_is_dropped() {
        let mut sync = Sync::new(Rule::Whole, 3);
        let mut out = Vec::new();
        let mut at = |ms: i64| {
            let book =
                Book { ts: Some(Nanos::from_ms(ms)), seq_last: None, ..message(BookAction::Snapshot, None, 0, None) };
            sync.take(book, &mut out)
        };
        let outcomes = [at(5), at(5), at(4), at(6)];
        assert_eq!(outcomes, [Outcome::Applied, Outcome::Applied, Outcome::Stale, Outcome::Applied]);
        assert_eq!((out.len(), sync.sequence()), (3, None));
    }

    #[test]
    fn changes_without_numbers_wait_for_a_snapshot_and_then_all_count() {
        let mut sync = Sync::new(Rule::Unnumbered, 3);
        let mut out = Vec::new();
        let mut at = |action| sync.take(Book { seq_last: None, ..message(action, None, 0, None) }, &mut out);
        let outcomes =
            [at(BookAction::Update), at(BookAction::Snapshot), at(BookAction::Update), at(BookAction::Update)];
        assert_eq!(outcomes, [Outcome::Stale, Outcome::Applied, Outcome::Applied, Outcome::Applied]);
    }

    fn level(price: i64, size: i64) -> (Decimal, Decimal) {
        (price.into(), size.into())
    }

    #[test]
    fn a_crossed_book_is_refused() {
        let mut view = View::new(0, 100);
        let whole = Book {
            bids: vec![level(99, 1)],
            asks: vec![level(100, 1)],
            ..message(BookAction::Snapshot, None, 1, None)
        };
        view.take(whole).unwrap();
        let crossing = Book { bids: vec![level(101, 1)], ..message(BookAction::Update, Some(2), 2, None) };
        assert_eq!(view.take(crossing), Err(Crossed { bid: 101.into(), ask: 100.into() }));
    }

    #[test]
    fn linked_changes_wait_for_the_book_that_was_asked_for_and_start_behind_its_number() {
        check(
            Rule::Asked,
            "95<90 | 100<95 | 110<100 | snap 100 | 110<100 | 120<110 | 140<130 | 150<140 | snap 145 | 160<150",
            expect![[r#"
                95<90: held []
                100<95: held []
                110<100: held []
                snap 100: applied [100 110]
                110<100: stale []
                120<110: applied [120]
                140<130: GAP book sequence 130 after 120 []
                150<140: held []
                snap 145: applied [145 150]
                160<150: applied [160]
            "#]],
        );
    }

    #[test]
    fn a_book_that_is_older_than_the_first_linked_change_is_asked_for_again() {
        check(
            Rule::Asked,
            "110<105 | snap 100 | snap 105 | 120<110",
            expect![[r#"
                110<105: held []
                snap 100: tooold []
                snap 105: applied [105 110]
                120<110: applied [120]
            "#]],
        );
    }

    proptest! {
        /// Folding what is published of a book gives its top, whatever changes.
        #[test]
        fn what_is_published_of_a_book_is_its_top(
            depth in 1usize..5,
            tape in prop::collection::vec((any::<bool>(), 1i64..12, 0i64..4, prop::bool::weighted(0.1)), 1..60),
        ) {
            let (mut view, mut whole, mut published) = (View::new(depth, 1000), Levels::default(), Levels::default());
            for (bid, distance, size, snapshot) in tape {
                let action = if snapshot { BookAction::Snapshot } else { BookAction::Update };
                let rows = |mine: bool, price: i64| if mine { vec![level(price, size)] } else { Vec::new() };
                let book = Book {
                    bids: rows(bid, 100 - distance),
                    asks: rows(!bid, 100 + distance),
                    ..message(action, None, 1, None)
                };
                whole.apply(&book);
                published.apply(&view.take(book).unwrap());
                prop_assert_eq!(published.bids().collect::<Vec<_>>(), whole.bids().take(depth).collect::<Vec<_>>());
                prop_assert_eq!(published.asks().collect::<Vec<_>>(), whole.asks().take(depth).collect::<Vec<_>>());
            }
        }

        /// Whatever is dropped, doubled or swapped: what is said on never has a hole.
        #[test]
        fn what_is_said_on_never_has_a_hole(tape in prop::collection::vec((1u64..40, 0u64..4, prop::bool::weighted(0.1)), 0..120)) {
            let mut sync = Sync::new(Rule::FirstLast, 8);
            let mut last: Option<u64> = None;
            for (first, width, snapshot) in tape {
                let book = if snapshot {
                    message(BookAction::Snapshot, None, first, None)
                } else {
                    message(BookAction::Update, Some(first), first + width, None)
                };
                let mut out = Vec::new();
                sync.take(book, &mut out);
                for said in out {
                    if said.action == BookAction::Update {
                        let from = last.expect("a change before any snapshot");
                        prop_assert!(said.seq_first.unwrap() <= from + 1 && said.seq_last.unwrap() > from);
                    }
                    last = said.seq_last;
                }
            }
        }
    }
}
