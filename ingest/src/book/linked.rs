//! The rule of books whose changes name the number of the change before them, and nothing else can be said of the numbers
//! ([`Rule::Linked`](super::Rule::Linked)).

use schemas::raw::BookAction;

use super::{Outcome, State, Sync, show};
use crate::event::Book;

impl Sync {
    pub(super) fn take_linked(&mut self, book: Book, out: &mut Vec<Book>) -> Outcome {
        match (book.action, book.seq_last, &self.state) {
            (BookAction::Snapshot, Some(id), _) => self.linked_snapshot(id, book, out),
            (BookAction::Snapshot, None, _) => {
                self.held.clear();
                self.state = State::Unnumbered;
                self.say(book, out)
            }
            (BookAction::Update, None, State::Unnumbered) => self.say(book, out),
            (BookAction::Update, None, State::Waiting) => {
                self.stale += 1;
                Outcome::Stale
            }
            (BookAction::Update, Some(_), State::Waiting) => self.hold(book),
            (BookAction::Update, Some(last), &State::Live(id)) => self.linked_change(id, last, false, book, out),
            (BookAction::Update, Some(last), &State::Bridging(id)) => self.linked_change(id, last, true, book, out),
            (BookAction::Update, number, _) => self.broken(format!("a change numbered {}", show(number))),
        }
    }

    /// The snapshot of the channel, or one from REST: then what was held goes on behind it.
    fn linked_snapshot(&mut self, id: u64, book: Book, out: &mut Vec<Book>) -> Outcome {
        let is_contained = |change: &Book| change.seq_last <= Some(id);
        let meets = |change: &Book| change.seq_prev <= Some(id);
        if self.held.iter().find(|change| !is_contained(change)).is_some_and(|change| !meets(change)) {
            return Outcome::TooOld;
        }
        self.state = State::Bridging(id);
        let outcome = self.say(book, out);
        for change in std::mem::take(&mut self.held) {
            if let gap @ Outcome::Gap { .. } = self.take_linked(change, out) {
                return gap;
            }
        }
        outcome
    }

    /// `bridging`: a snapshot was taken last, which need not stand at the end of a change.
    fn linked_change(&mut self, id: u64, last: u64, bridging: bool, book: Book, out: &mut Vec<Book>) -> Outcome {
        let follows = match book.seq_prev {
            // Also a keep-alive, whose two numbers are equal, and the first change of a sequence that started anew.
            Some(prev) if prev == id => true,
            Some(prev) if prev < id && last <= id => {
                self.stale += 1;
                return Outcome::Stale;
            }
            Some(prev) => bridging && prev < id,
            None => false,
        };
        if !follows {
            return self.broken(format!("book sequence {} after {id}", show(book.seq_prev)));
        }
        self.state = State::Live(last);
        self.say(book, out)
    }

    fn say(&mut self, book: Book, out: &mut Vec<Book>) -> Outcome {
        self.applied += 1;
        out.push(book);
        Outcome::Applied
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::super::{Levels, Rule};
    use super::*;

    fn message(action: BookAction, last: Option<u64>, prev: Option<u64>) -> Book {
        Book {
            symbol: "X".into(),
            action,
            partial: false,
            seq_first: None,
            seq_last: last,
            seq_prev: prev,
            bids: vec![],
            asks: vec![],
            unit: schemas::instrument::SizeUnit::Base,
            checksum: None,
            ts: None,
            event_ts: None,
        }
    }

    /// `snap 10` or `snap -` (without a number), `12<10` (number after previous), `-` (a change without a number).
    fn check(tape: &str, expected: Expect) {
        let mut sync = Sync::new(Rule::Linked, 3);
        let mut said = String::new();
        for word in tape.split('|').map(str::trim) {
            let n = |t: &str| t.parse::<u64>().ok();
            let book = match (word.strip_prefix("snap "), word.split_once('<')) {
                (Some(id), _) => message(BookAction::Snapshot, n(id), None),
                (None, Some((last, prev))) => message(BookAction::Update, n(last), n(prev)),
                (None, None) => message(BookAction::Update, None, None),
            };
            let mut out = Vec::new();
            let outcome = match sync.take(book, &mut out) {
                Outcome::Gap { reason } => format!("GAP {reason}"),
                other => format!("{other:?}").to_lowercase(),
            };
            let ids: Vec<_> = out.iter().map(|b| b.seq_last.map_or("-".to_owned(), |id| id.to_string())).collect();
            said += &format!("{word}: {outcome} [{}]\n", ids.join(" "));
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn changes_follow_the_number_before_them_whatever_their_own_is() {
        check(
            "snap 10 | 15<10 | 15<15 | 15<15 | 3<15 | 7<3 | 7<3 | 9<8",
            expect![[r#"
                snap 10: applied [10]
                15<10: applied [15]
                15<15: applied [15]
                15<15: applied [15]
                3<15: applied [3]
                7<3: applied [7]
                7<3: stale []
                9<8: GAP book sequence 8 after 7 []
            "#]],
        );
    }

    #[test]
    fn without_a_snapshot_on_the_channel_changes_wait_for_one_from_rest() {
        check(
            "12<10 | 15<12 | 20<15 | snap 13 | 22<20",
            expect![[r#"
                12<10: held []
                15<12: held []
                20<15: held []
                snap 13: applied [13 15 20]
                22<20: applied [22]
            "#]],
        );
    }

    #[test]
    fn a_snapshot_older_than_all_that_is_held_is_asked_for_again() {
        check(
            "15<12 | snap 11 | snap 12 | 18<15",
            expect![[r#"
                15<12: held []
                snap 11: tooold []
                snap 12: applied [12 15]
                18<15: applied [18]
            "#]],
        );
    }

    #[test]
    fn a_snapshot_newer_than_all_that_is_held_waits_for_its_bridge() {
        check(
            "12<10 | snap 16 | 15<12 | 18<15 | 19<18 | 25<20",
            expect![[r#"
                12<10: held []
                snap 16: applied [16]
                15<12: stale []
                18<15: applied [18]
                19<18: applied [19]
                25<20: GAP book sequence 20 after 19 []
            "#]],
        );
    }

    #[test]
    fn a_second_snapshot_begins_the_book_anew() {
        check(
            "snap 10 | 12<10 | snap 12 | 13<12 | snap 40 | 13<12 | 41<40",
            expect![[r#"
                snap 10: applied [10]
                12<10: applied [12]
                snap 12: applied [12]
                13<12: applied [13]
                snap 40: applied [40]
                13<12: stale []
                41<40: applied [41]
            "#]],
        );
    }

    #[test]
    fn without_numbers_changes_follow_their_snapshot() {
        check(
            "- | snap - | - | - | 5<4 | - | snap 9 | -",
            expect![[r#"
                -: stale []
                snap -: applied [-]
                -: applied [-]
                -: applied [-]
                5<4: GAP a change numbered 5 []
                -: stale []
                snap 9: applied [9]
                -: GAP a change numbered nothing []
            "#]],
        );
    }

    proptest! {
        /// Whatever is dropped, doubled or swapped, and whenever a snapshot comes: what is said on is the venue's book at the
        /// number that it ends with.
        #[test]
        fn what_is_said_on_is_the_venues_book(
            steps in prop::collection::vec((1u64..4, 1u8..5, 0u8..3), 1..40),
            fates in prop::collection::vec(0u8..10, 40),
        ) {
            // The venue: each change sets one level.
            let (mut id, mut book) = (1u64, Levels::default());
            let mut states = std::collections::BTreeMap::from([(1, book.clone())]);
            let mut tape = Vec::new();
            for (rise, price, size) in steps {
                let mut change = message(BookAction::Update, Some(id + rise), Some(id));
                change.bids.push((price.into(), size.into()));
                book.apply(&change);
                id += rise;
                states.insert(id, book.clone());
                tape.push(change);
            }
            // The way: some are lost, some come twice, some swap with the next, some bring a snapshot from REST.
            let mut came = Vec::new();
            for (change, fate) in tape.into_iter().zip(fates) {
                let at = change.seq_last;
                match fate {
                    0 => {}
                    1 => came.extend([change.clone(), change]),
                    2 => came.insert(came.len().saturating_sub(1), change),
                    3 => {
                        came.push(change);
                        let mut snapshot = message(BookAction::Snapshot, at, None);
                        snapshot.bids = states[&at.unwrap()].bids().collect();
                        came.push(snapshot);
                    }
                    _ => came.push(change),
                }
            }
            let (mut sync, mut own, mut last) = (Sync::new(Rule::Linked, 8), Levels::default(), None);
            for message in came {
                let mut out = Vec::new();
                sync.take(message, &mut out);
                for said in out {
                    prop_assert!(last.is_some() || said.action == BookAction::Snapshot);
                    own.apply(&said);
                    last = said.seq_last;
                    prop_assert_eq!(&own, &states[&last.unwrap()]);
                }
            }
        }
    }
}
