//! Our orders from the moment they are said until they are filled, rejected or done.

use std::collections::{BTreeMap, VecDeque};

use schemas::desk::Order;
use schemas::{Qty, Side};
use serde::{Deserialize, Serialize};

/// An order on its way.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Working {
    pub order: Order,
    /// Not filled yet; positive.
    pub left: Qty,
    /// When it, or its last cancellation, was said.
    pub said_ns: i64,
    /// Cancellations said.
    pub cancels: u32,
}

impl Working {
    /// `left` with the sign of its side.
    pub fn signed(&self) -> Qty {
        match self.order.side {
            Side::Buy => self.left,
            Side::Sell => -self.left,
        }
    }
    /// It may open; a close is reduce-only.
    pub fn is_entry(&self) -> bool {
        !self.order.reduce_only
    }
}

/// All orders on their way, by id, and when the newest ones that open were said.
///
/// Invariant R-6: at most one entry an instrument is on its way.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Orders {
    by_id: BTreeMap<String, Working>,
    entry_times_ns: VecDeque<i64>,
}

impl Orders {
    /// `times_max`: how many entry times are remembered.
    pub fn put(&mut self, order: Order, times_max: usize) {
        if !order.reduce_only {
            debug_assert!(
                !self.of(&order.venue, &order.symbol).any(Working::is_entry),
                "Invariant R-6: one entry an instrument"
            );
            self.entry_times_ns.push_back(order.ts_ns);
            while self.entry_times_ns.len() > times_max {
                self.entry_times_ns.pop_front();
            }
        }
        let working = Working { left: order.qty, said_ns: order.ts_ns, cancels: 0, order };
        self.by_id.insert(working.order.id.clone(), working);
    }
    pub fn get(&self, id: &str) -> Option<&Working> {
        self.by_id.get(id)
    }
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Working> {
        self.by_id.get_mut(id)
    }
    pub fn remove(&mut self, id: &str) -> Option<Working> {
        self.by_id.remove(id)
    }
    pub fn all(&self) -> impl Iterator<Item = &Working> {
        self.by_id.values()
    }
    pub fn of<'a>(&'a self, venue: &'a str, symbol: &'a str) -> impl Iterator<Item = &'a Working> + 'a {
        self.by_id.values().filter(move |w| w.order.symbol == symbol && w.order.venue == venue)
    }
    /// Signed sum of what is on its way.
    pub fn signed(&self, venue: &str, symbol: &str) -> Qty {
        self.of(venue, symbol).map(Working::signed).sum()
    }
    /// Entries said within `window_ns` before `now_ns`.
    pub fn entries_since(&self, now_ns: i64, window_ns: i64) -> usize {
        self.entry_times_ns.iter().filter(|ts| now_ns.saturating_sub(**ts) < window_ns).count()
    }
}

/// The number of the last fill of the newest orders, so that a fill that is delivered twice moves nothing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FillsSeen {
    last: BTreeMap<String, u32>,
    ids: VecDeque<String>,
}

impl FillsSeen {
    /// True: the `n`-th fill of order `id` was not seen before.
    pub fn is_new(&mut self, id: &str, n: u32, max: usize) -> bool {
        if let Some(last) = self.last.get_mut(id) {
            let new = n > *last;
            *last = n.max(*last);
            return new;
        }
        self.last.insert(id.to_owned(), n);
        self.ids.push_back(id.to_owned());
        if self.ids.len() > max {
            let oldest = self.ids.pop_front();
            oldest.map(|id| self.last.remove(&id));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_that_comes_twice_is_seen_once() {
        let mut seen = FillsSeen::default();
        assert!(seen.is_new("a", 1, 2) && seen.is_new("a", 2, 2));
        assert!(!seen.is_new("a", 2, 2) && !seen.is_new("a", 1, 2));
    }

    #[test]
    fn only_so_many_orders_are_remembered() {
        let mut seen = FillsSeen::default();
        ["a", "b", "c"].iter().for_each(|id| assert!(seen.is_new(id, 1, 2)));
        assert_eq!((seen.last.len(), seen.ids.len()), (2, 2));
        assert!(!seen.is_new("c", 1, 2));
    }

    #[test]
    fn the_window_of_entries_slides_and_closes_do_not_count() {
        let mut orders = Orders::default();
        let mut order = crate::limit::testing::sound().order;
        for (i, reduce_only) in [false, true, false].into_iter().enumerate() {
            (order.id, order.symbol) = (i.to_string(), i.to_string());
            (order.ts_ns, order.reduce_only) = (i as i64 * 10, reduce_only);
            orders.put(order.clone(), 9);
        }
        assert_eq!(orders.entries_since(20, 30), 2);
        assert_eq!(orders.entries_since(20, 20), 1);
    }
}
