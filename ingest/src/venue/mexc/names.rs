//! One name for each trade, whichever way it is seen: pushed with the venue's id, pushed without one, or told by REST, which
//! has no ids.
//!
//! A trade is known by what it says (time, price, size, side) and by the how-manieth of its like it is: two fills of one
//! order may be alike in everything, and both the pushes and REST tell both. What was seen first gives the name. Of trades
//! that a former process stored only names and times are known: REST's trades of those times are them, in their order.

use std::collections::{BTreeMap, VecDeque};

use schemas::{Decimal, Nanos, Side};

use crate::event::{Symbol, Trade};
use crate::session::Tail;

type Likeness = (Nanos, Decimal, Decimal, bool);

fn likeness(trade: &Trade) -> Likeness {
    (trade.ts, trade.price, trade.size, trade.side == Side::Buy)
}

/// A trade that was seen.
#[derive(Debug)]
struct Seen {
    name: Symbol,
    /// It came as a push; REST told all others.
    pushed: bool,
    /// The name is the venue's.
    given: bool,
}

/// The trades of one symbol. Bounded: the oldest kinds are forgotten.
#[derive(Debug)]
pub(super) struct Names {
    max: usize,
    seen: BTreeMap<Likeness, Vec<Seen>>,
    order: VecDeque<Likeness>,
    /// Names of a former process, by time.
    stored: BTreeMap<Nanos, Vec<Symbol>>,
}

impl Names {
    pub fn new(max: usize, tail: Option<&Tail>) -> Self {
        let mut stored: BTreeMap<Nanos, Vec<Symbol>> = BTreeMap::new();
        for (name, ts) in tail.iter().flat_map(|tail| &tail.venue_ids) {
            stored.entry(*ts).or_default().push(name.as_str().into());
        }
        Self { max, seen: BTreeMap::new(), order: VecDeque::new(), stored }
    }

    /// Names a trade that was pushed.
    pub fn push(&mut self, trade: &mut Trade) {
        let like = likeness(trade);
        let own = trade.venue_id.take();
        let seen = self.of(like);
        if let Some(known) = own.as_ref().and_then(|own| seen.iter_mut().find(|s| s.name == *own)) {
            known.pushed = true;
            trade.venue_id = own;
            return;
        }
        // REST told it before the push came; two ids that the venue gave are two trades.
        let told = seen.iter_mut().find(|s| !s.pushed && !(s.given && own.is_some()));
        trade.venue_id = Some(match told {
            Some(told) => {
                told.pushed = true;
                told.name.clone()
            }
            None => add(seen, like, own, true),
        });
    }

    /// Names the trades of a REST answer; alike ones stand in their order.
    pub fn page(&mut self, trades: &mut [Trade]) {
        let mut alike: BTreeMap<Likeness, usize> = BTreeMap::new();
        let mut at_once: BTreeMap<Nanos, usize> = BTreeMap::new();
        for trade in trades {
            let like = likeness(trade);
            if let Some(names) = self.stored.get(&trade.ts) {
                let n = at_once.entry(trade.ts).or_default();
                *n += 1;
                // What is stored begins somewhere inside its first moment: all of that moment came already.
                let begins = self.stored.first_key_value().is_some_and(|(first, _)| *first == trade.ts);
                if let Some(name) = names.get(*n - 1).or(names.last().filter(|_| begins)) {
                    trade.venue_id = Some(name.clone());
                    continue;
                }
            }
            let n = alike.entry(like).or_default();
            *n += 1;
            let own = trade.venue_id.take();
            let seen = self.of(like);
            let by_id = own.as_ref().and_then(|own| seen.iter().find(|s| s.name == *own));
            let by_place = seen.get(*n - 1).filter(|s| !(s.given && own.is_some()));
            trade.venue_id = Some(match by_id.or(by_place) {
                Some(known) => known.name.clone(),
                None => add(seen, like, own, false),
            });
        }
    }

    fn of(&mut self, like: Likeness) -> &mut Vec<Seen> {
        if !self.seen.contains_key(&like) {
            if self.order.len() >= self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
            self.order.push_back(like);
        }
        self.seen.entry(like).or_default()
    }
}

/// A trade that was not seen before. Without an id of the venue's its name says what it is.
fn add(seen: &mut Vec<Seen>, like: Likeness, own: Option<Symbol>, pushed: bool) -> Symbol {
    let given = own.is_some();
    let name = own.unwrap_or_else(|| {
        let (ts, price, size, buy) = like;
        let side = if buy { "buy" } else { "sell" };
        let place = seen.len() + 1;
        Symbol::from(format!("{}/{side}/{}/{}/{place}", ts.as_ms(), price.normalize(), size.normalize()))
    });
    seen.push(Seen { name: name.clone(), pushed, given });
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use schemas::instrument::SizeUnit;

    use super::*;

    fn trade(ms: i64, size: i64, id: Option<&str>) -> Trade {
        Trade {
            symbol: "X".into(),
            id: 0,
            venue_id: id.map(Symbol::from),
            price: 1.into(),
            size: size.into(),
            unit: SizeUnit::Base,
            side: Side::Buy,
            ts: Nanos::from_ms(ms),
            event_ts: None,
            aggregate: None,
            backfill: false,
            extra: None,
        }
    }

    fn pushed(names: &mut Names, mut trade: Trade) -> String {
        names.push(&mut trade);
        trade.venue_id.unwrap().to_string()
    }

    fn told(names: &mut Names, mut trades: Vec<Trade>) -> Vec<String> {
        names.page(&mut trades);
        trades.into_iter().map(|t| t.venue_id.unwrap().to_string()).collect()
    }

    #[test]
    fn what_was_pushed_is_known_when_rest_tells_it_without_an_id() {
        let mut names = Names::new(100, None);
        assert_eq!(pushed(&mut names, trade(5, 1, Some("a"))), "a");
        assert_eq!(pushed(&mut names, trade(5, 1, Some("b"))), "b");
        let page = vec![trade(4, 1, None), trade(5, 1, None), trade(5, 1, None), trade(5, 1, None)];
        assert_eq!(told(&mut names, page), ["4/buy/1/1/1", "a", "b", "5/buy/1/1/3"]);
    }

    #[test]
    fn what_rest_told_first_keeps_its_name_when_the_push_comes() {
        let mut names = Names::new(100, None);
        assert_eq!(told(&mut names, vec![trade(5, 1, None)]), ["5/buy/1/1/1"]);
        assert_eq!(pushed(&mut names, trade(5, 1, Some("a"))), "5/buy/1/1/1");
        assert_eq!(pushed(&mut names, trade(5, 1, Some("b"))), "b");
    }

    #[test]
    fn ids_that_both_ways_have_decide() {
        let mut names = Names::new(100, None);
        assert_eq!(pushed(&mut names, trade(5, 1, Some("a"))), "a");
        assert_eq!(told(&mut names, vec![trade(5, 1, Some("b")), trade(5, 1, Some("a"))]), ["b", "a"]);
        assert_eq!(pushed(&mut names, trade(5, 1, Some("c"))), "c");
        assert_eq!(pushed(&mut names, trade(5, 1, Some("b"))), "b");
    }

    #[test]
    fn trades_of_a_former_process_are_known_by_their_times() {
        let tail = Tail {
            id: 9,
            ts: Nanos::from_ms(6),
            venue_ids: vec![("a".into(), Nanos::from_ms(5)), ("b".into(), Nanos::from_ms(6))],
        };
        let mut names = Names::new(100, Some(&tail));
        let page = vec![trade(5, 9, None), trade(5, 1, None), trade(6, 2, None), trade(6, 3, None), trade(7, 1, None)];
        assert_eq!(told(&mut names, page), ["a", "a", "b", "6/buy/1/3/1", "7/buy/1/1/1"]);
    }

    proptest! {
        /// Any tape, any stretch of it lost on the socket, any page that reaches back before the hole: each trade gets one
        /// name in both views, and no two trades get the same.
        #[test]
        fn each_trade_has_one_name_and_no_two_have_the_same(
            tape in prop::collection::vec((0i64..30, 1i64..3), 1..40),
            lost in (0usize..40, 0usize..10), first in 0usize..40, more in 0usize..10, ids in any::<bool>(),
        ) {
            let mut tape = tape;
            tape.sort_by_key(|(ms, _)| *ms);
            // A page is cut between two times: at its oldest one it tells all or nothing.
            let start = tape[first % tape.len()].0;
            let (from, to) = (lost.0 % tape.len(), (lost.0 % tape.len() + lost.1).min(tape.len()));
            let asked = (to + more).min(tape.len());
            let id = |n: usize| ids.then(|| format!("id{n}"));
            let mut names = Names::new(1000, None);
            let mut name: BTreeMap<usize, String> = BTreeMap::new();
            // A lost trade must not be alike to one pushed later at the same time: the views' order would differ.
            let alike = |a: usize, b: usize| tape[a] == tape[b];
            prop_assume!(!(from..to).any(|a| (to..tape.len()).any(|b| alike(a, b))));
            let push = |names: &mut Names, name: &mut BTreeMap<usize, String>, n: usize| {
                let said = pushed(names, trade(tape[n].0, tape[n].1, id(n).as_deref()));
                name.entry(n).or_insert_with(|| said.clone()) == &said
            };
            for n in (0..from).chain(to..asked) {
                prop_assert!(push(&mut names, &mut name, n));
            }
            let page: Vec<usize> = (0..asked).filter(|n| tape[*n].0 >= start).collect();
            let said = told(&mut names, page.iter().map(|n| trade(tape[*n].0, tape[*n].1, None)).collect());
            // Alike trades are exchangeable: what counts is that the page uses each name once.
            prop_assert_eq!(said.iter().collect::<BTreeSet<_>>().len(), said.len());
            let before: BTreeSet<String> =
                name.iter().filter(|(n, _)| tape[**n].0 >= start).map(|(_, name)| name.clone()).collect();
            let page_names: BTreeSet<String> = said.iter().cloned().collect();
            prop_assert!(before.is_subset(&page_names), "{:?} {:?}", before, page_names);
            prop_assert_eq!(page_names.len(), page.len());
            // What follows is new.
            let known: BTreeSet<String> = page_names.into_iter().chain(name.into_values()).collect();
            let mut later = BTreeMap::new();
            for n in asked..tape.len() {
                prop_assert!(push(&mut names, &mut later, n));
            }
            prop_assert!(later.values().all(|name| !known.contains(name)));
        }
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bound() {
        let mut names = Names::new(2, None);
        for ms in 1..=3 {
            pushed(&mut names, trade(ms, 1, Some("a")));
        }
        assert_eq!((names.seen.len(), names.order.len()), (2, 2));
    }
}
