//! One order book in steps of tick and lot. Most of it is the crowd's quantity; our users' orders stand in the queue
//! of their level with a known quantity ahead of them.

use std::collections::BTreeMap;

/// Buy or sell; of a trade: what the taker did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    Buy,
    Sell,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
    /// `BUY` or `SELL`.
    pub fn upper(self) -> &'static str {
        match self {
            Self::Buy => "BUY",
            Self::Sell => "SELL",
        }
    }
    /// `buy` or `sell`.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// A user's order in a level's queue.
#[derive(Clone, Debug, PartialEq)]
struct Resting {
    order: u64,
    qty: i64,
    /// Crowd quantity that is served before it.
    ahead: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Level {
    crowd: i64,
    users: Vec<Resting>,
}

impl Level {
    fn total(&self) -> i64 {
        self.crowd + self.users.iter().map(|u| u.qty).sum::<i64>()
    }
}

/// A piece that a taker took at one level from one maker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    pub qty: i64,
    /// The user's order that gave it; `None` is the crowd.
    pub maker: Option<u64>,
}

/// Invariant B-1: every stored level has quantity, and the best bid is below the best ask.
#[derive(Clone, Debug, Default)]
pub struct Book {
    bids: BTreeMap<i64, Level>,
    asks: BTreeMap<i64, Level>,
}

impl Book {
    /// The side of the book where orders of `side` rest.
    fn half(&self, side: Side) -> &BTreeMap<i64, Level> {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }
    fn half_mut(&mut self, side: Side) -> &mut BTreeMap<i64, Level> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Best price where orders of `side` rest.
    pub fn best(&self, side: Side) -> Option<i64> {
        match side {
            Side::Buy => self.bids.last_key_value().map(|(p, _)| *p),
            Side::Sell => self.asks.first_key_value().map(|(p, _)| *p),
        }
    }
    /// Worst price where orders of `side` rest.
    pub fn worst(&self, side: Side) -> Option<i64> {
        match side {
            Side::Buy => self.bids.first_key_value().map(|(p, _)| *p),
            Side::Sell => self.asks.last_key_value().map(|(p, _)| *p),
        }
    }
    /// Price and whole quantity of the best level.
    pub fn touch(&self, side: Side) -> Option<(i64, i64)> {
        self.best(side).map(|p| (p, self.quantity(side, p)))
    }
    pub fn count(&self, side: Side) -> usize {
        self.half(side).len()
    }
    /// Whole quantity at a price, zero where nothing rests.
    pub fn quantity(&self, side: Side, price: i64) -> i64 {
        self.half(side).get(&price).map_or(0, Level::total)
    }
    pub fn crowd(&self, side: Side, price: i64) -> i64 {
        self.half(side).get(&price).map_or(0, |l| l.crowd)
    }
    /// The n-th level from the touch.
    pub fn nth(&self, side: Side, n: usize) -> Option<i64> {
        match side {
            Side::Buy => self.bids.keys().rev().nth(n).copied(),
            Side::Sell => self.asks.keys().nth(n).copied(),
        }
    }
    /// The best `n` levels as (price, quantity), from the touch outwards.
    pub fn top(&self, side: Side, n: usize) -> Vec<(i64, i64)> {
        let row = |(p, l): (&i64, &Level)| (*p, l.total());
        match side {
            Side::Buy => self.bids.iter().rev().take(n).map(row).collect(),
            Side::Sell => self.asks.iter().take(n).map(row).collect(),
        }
    }

    /// Would an order of `side` at `price` trade at once?
    pub fn crosses(&self, side: Side, price: i64) -> bool {
        match side {
            Side::Buy => self.best(Side::Sell).is_some_and(|ask| price >= ask),
            Side::Sell => self.best(Side::Buy).is_some_and(|bid| price <= bid),
        }
    }

    /// Sets the crowd's quantity at a price that does not cross. Returns the level's whole quantity afterwards.
    pub fn set_crowd(&mut self, side: Side, price: i64, qty: i64) -> i64 {
        debug_assert!(qty == 0 || !self.crosses(side, price), "Invariant: the book never crosses");
        let half = self.half_mut(side);
        let level = half.entry(price).or_default();
        level.crowd = qty.max(0);
        for user in &mut level.users {
            user.ahead = user.ahead.min(level.crowd);
        }
        let total = level.total();
        if total == 0 {
            half.remove(&price);
        }
        total
    }

    /// Puts a user's order at the end of its level's queue. Returns the level's whole quantity afterwards.
    pub fn rest(&mut self, side: Side, price: i64, qty: i64, order: u64) -> i64 {
        debug_assert!(qty > 0 && !self.crosses(side, price), "Invariant: a resting order does not cross");
        let level = self.half_mut(side).entry(price).or_default();
        let ahead = level.crowd;
        level.users.push(Resting { order, qty, ahead });
        level.total()
    }

    /// Takes a user's order out. Returns the level's whole quantity afterwards, `None` when it does not rest there.
    pub fn remove(&mut self, side: Side, price: i64, order: u64) -> Option<i64> {
        let half = self.half_mut(side);
        let level = half.get_mut(&price)?;
        let before = level.users.len();
        level.users.retain(|u| u.order != order);
        let found = level.users.len() < before;
        let total = level.total();
        if total == 0 {
            half.remove(&price);
        }
        found.then_some(total)
    }

    /// A taker of `taker` side takes up to `qty` from the best opposite level. Queue order is kept.
    /// Returns the price, the pieces and what is left of the level; `None` on an empty side.
    pub fn take_best(&mut self, taker: Side, qty: i64) -> Option<(i64, Vec<Piece>, i64)> {
        let side = taker.other();
        let price = self.best(side)?;
        let half = self.half_mut(side);
        let level = half.get_mut(&price)?;
        let mut left = qty;
        let mut pieces = Vec::new();
        while left > 0 && level.total() > 0 {
            let from_crowd = level.users.first().map_or(level.crowd, |u| u.ahead.min(level.crowd)).min(left);
            if from_crowd > 0 {
                level.crowd -= from_crowd;
                level.users.iter_mut().for_each(|u| u.ahead = (u.ahead - from_crowd).max(0));
                pieces.push(Piece { qty: from_crowd, maker: None });
                left -= from_crowd;
                continue;
            }
            let first = &mut level.users[0];
            let part = first.qty.min(left);
            first.qty -= part;
            left -= part;
            pieces.push(Piece { qty: part, maker: Some(first.order) });
            if first.qty == 0 {
                level.users.remove(0);
            }
        }
        let total = level.total();
        if total == 0 {
            half.remove(&price);
        }
        Some((price, pieces, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_ahead_is_served_before_our_order_and_the_rest_after() {
        let mut book = Book::default();
        book.set_crowd(Side::Sell, 100, 5);
        assert_eq!(book.rest(Side::Sell, 100, 3, 7), 8);
        book.set_crowd(Side::Sell, 100, 9);
        let (price, pieces, left) = book.take_best(Side::Buy, 10).unwrap();
        assert_eq!((price, left), (100, 2));
        let expected = [(5, None), (3, Some(7)), (2, None)];
        assert_eq!(pieces.iter().map(|p| (p.qty, p.maker)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn when_the_crowd_leaves_our_order_moves_up_and_an_empty_level_goes() {
        let mut book = Book::default();
        book.set_crowd(Side::Buy, 99, 5);
        book.rest(Side::Buy, 99, 2, 1);
        assert_eq!(book.set_crowd(Side::Buy, 99, 0), 2);
        assert_eq!(book.take_best(Side::Sell, 9).unwrap(), (99, vec![Piece { qty: 2, maker: Some(1) }], 0));
        assert_eq!(book.best(Side::Buy), None);
        assert_eq!(book.remove(Side::Buy, 99, 1), None);
    }
}
