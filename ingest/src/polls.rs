//! What a venue tells by REST alone, asked for again and again while a connection lives. Pure.
//!
//! A poll is the least of what a connection asks for: one at a time, behind every book and every missed trade, and paid from
//! what others leave of the allowance ([`Request::spare`]). What it brings is stored and says nothing about the socket: it
//! neither shows that the feed lives nor that its data goes on.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Nanos;

use crate::session::{Limits, after_ms};
use crate::venue::Request;

/// The polls of one connection.
#[derive(Debug)]
pub struct Polls {
    period_ms: i64,
    spacing_ms: i64,
    /// Each request, and when it is due next.
    due: Vec<(Nanos, Request)>,
    free_at: Nanos,
    /// The one that waits for its answer, and what it asks.
    open: Option<(u64, String)>,
    /// By symbol: the time of the newest answer.
    told: BTreeMap<String, Nanos>,
}

impl Polls {
    pub fn new(limits: &Limits) -> Self {
        Self {
            period_ms: limits.poll_period_ms,
            spacing_ms: limits.request_spacing_ms,
            due: Vec::new(),
            free_at: Nanos(i64::MIN),
            open: None,
            told: BTreeMap::new(),
        }
    }

    /// These requests are made from now on, about `symbols`. Those that were made before keep their turn, new ones are due at
    /// once.
    pub fn carry(&mut self, now: Nanos, requests: Vec<Request>, symbols: &BTreeSet<String>) {
        let before = std::mem::take(&mut self.due);
        let due_of = |request: &Request| before.iter().find(|(_, known)| known == request).map_or(now, |(due, _)| *due);
        self.due = requests.into_iter().map(|request| (due_of(&request), request)).collect();
        self.told.retain(|symbol, _| symbols.contains(symbol));
    }

    /// The connection is gone, and with it the answer that was waited for. Turns stay as they are: a connection that is lost
    /// again and again does not ask more often.
    pub fn closed(&mut self) {
        self.open = None;
    }

    /// When the next request wants to leave; `None` while one waits for its answer.
    pub fn due(&self) -> Option<Nanos> {
        let first = self.due.iter().map(|(due, _)| *due).min()?;
        self.open.is_none().then(|| first.max(self.free_at))
    }

    /// The request that has waited longest, which leaves at `now` under `id`. Whatever becomes of it, its next turn is a
    /// period later.
    pub fn next(&mut self, now: Nanos, id: u64) -> Option<Request> {
        let (due, request) = self.due.iter_mut().min_by_key(|(due, _)| *due)?;
        *due = after_ms(now, self.period_ms);
        self.free_at = after_ms(now, self.spacing_ms);
        self.open = Some((id, request.path.clone()));
        Some(request.clone())
    }

    /// What the answer under `id` is to, if it is to the poll that waits, which it ends.
    pub fn answered(&mut self, id: u64) -> Option<String> {
        self.open.take_if(|(open, _)| *open == id).map(|(_, path)| path)
    }

    /// Whether an answer about `symbol` of the venue's time `ts` is newer than what was told. One out of a cache may not be.
    pub fn is_news(&mut self, symbol: &str, ts: Nanos) -> bool {
        if self.told.get(symbol).is_some_and(|told| *told >= ts) {
            return false;
        }
        self.told.insert(symbol.to_owned(), ts);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn polls(period_ms: i64, spacing_ms: i64) -> Polls {
        let mut limits = Config::load(None).unwrap().session;
        (limits.poll_period_ms, limits.request_spacing_ms) = (period_ms, spacing_ms);
        Polls::new(&limits)
    }

    fn of(symbols: &[&str]) -> (Vec<Request>, BTreeSet<String>) {
        let symbols: BTreeSet<String> = symbols.iter().map(|s| (*s).to_owned()).collect();
        (symbols.iter().map(Request::get).collect(), symbols)
    }

    #[test]
    fn a_symbol_that_comes_later_is_due_at_once_and_the_others_keep_their_turn() {
        let mut polls = polls(60_000, 250);
        let (requests, symbols) = of(&["A"]);
        polls.carry(Nanos::from_ms(0), requests, &symbols);
        assert_eq!(polls.next(Nanos::from_ms(0), 1).unwrap().path, "A");
        assert_eq!((polls.answered(2), polls.answered(1), polls.answered(1)), (None, Some("A".to_owned()), None));
        let (requests, symbols) = of(&["A", "B"]);
        polls.carry(Nanos::from_ms(5_000), requests, &symbols);
        assert_eq!(polls.due(), Some(Nanos::from_ms(5_000)));
        assert_eq!(polls.next(Nanos::from_ms(5_000), 2).unwrap().path, "B");
        polls.answered(2);
        assert_eq!(polls.due(), Some(Nanos::from_ms(60_000)));
        let (requests, symbols) = of(&["B"]);
        polls.carry(Nanos::from_ms(6_000), requests, &symbols);
        assert_eq!(polls.due(), Some(Nanos::from_ms(65_000)));
        polls.next(Nanos::from_ms(65_000), 3);
        polls.closed();
        assert_eq!((polls.answered(3), polls.due()), (None, Some(Nanos::from_ms(125_000))));
    }

    #[test]
    fn an_answer_that_is_not_newer_than_the_last_one_is_no_news() {
        let mut polls = polls(60_000, 250);
        let news: Vec<bool> = [5, 5, 4, 6].into_iter().map(|ms| polls.is_news("A", Nanos::from_ms(ms))).collect();
        assert_eq!(news, [true, false, false, true]);
        assert!(polls.is_news("B", Nanos::from_ms(1)));
    }

    proptest! {
        /// However slow the answers are: one at a time, never closer than the spacing, each symbol at most once a period,
        /// and none waits while another is asked twice.
        #[test]
        fn polls_are_spaced_and_take_turns(
            count in 1usize..40, period_ms in 1i64..5_000, spacing_ms in 0i64..500,
            delays_ms in prop::collection::vec(0i64..800, 100..200),
        ) {
            let names: Vec<String> = (0..count).map(|n| format!("S{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut polls = polls(period_ms, spacing_ms);
            let (requests, symbols) = of(&names);
            polls.carry(Nanos::from_ms(0), requests, &symbols);
            let (mut now, mut last) = (Nanos::from_ms(0), BTreeMap::<String, i64>::new());
            let (mut asked, mut before) = (BTreeMap::<String, usize>::new(), None);
            for (id, delay_ms) in delays_ms.into_iter().enumerate() {
                now = polls.due().unwrap().max(now);
                let path = polls.next(now, id as u64).unwrap().path;
                prop_assert_eq!(polls.due(), None);
                let at_ms = now.as_ms();
                if let Some(before) = before.replace(at_ms) {
                    prop_assert!(at_ms - before >= spacing_ms);
                }
                if let Some(last) = last.insert(path.clone(), at_ms) {
                    prop_assert!(at_ms - last >= period_ms);
                }
                *asked.entry(path).or_default() += 1;
                let least = if asked.len() < count { 0 } else { *asked.values().min().unwrap() };
                prop_assert!(asked.values().max().unwrap() - least <= 1);
                now = after_ms(now, delay_ms);
                prop_assert!(polls.answered(id as u64).is_some());
            }
        }
    }
}
