//! What the fill engine knows of one instrument's market, and our orders that rest in it.

use std::collections::BTreeMap;

use schemas::desk::Order;
use schemas::raw::{BookAction, BookUpdate, TickerUpdate};
use schemas::{Price, PriceM, Qty, QtyM, Scale, Side};
use serde::{Deserialize, Serialize};

use crate::venue::Tick;

/// The next funding payment as the venue announced it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FundingDue {
    /// Plain ratio; positive means longs pay.
    pub rate: Price,
    pub at_ns: i64,
}

/// One of our orders at the venue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Resting {
    pub order: Order,
    pub left: Qty,
    /// Event time at which the venue has it.
    pub arrives_ns: i64,
    pub arrived: bool,
    /// It may execute on data of this event time and later: its arrival, or the firing of its trigger.
    pub since_ns: i64,
    /// A stop or take-profit whose trigger fired: a market order now.
    pub fired: bool,
    /// It takes liquidity at its first chance; afterwards a limit order rests.
    pub taking: bool,
    /// Size that stands before ours at our price; `None`: unknown, so only a print through the price fills us.
    pub queue: Option<Qty>,
    /// Event time and reason of a cancellation on its way.
    pub cancel: Option<(i64, String)>,
}

/// The market of one instrument.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Market {
    /// The newest event time heard.
    pub now_ns: i64,
    pub last: Option<Price>,
    pub bid: Option<(Price, Qty)>,
    pub ask: Option<(Price, Qty)>,
    /// The full book; empty and unknown until a snapshot.
    pub bids: BTreeMap<Price, Qty>,
    pub asks: BTreeMap<Price, Qty>,
    pub book_known: bool,
    pub mark: Option<Price>,
    pub funding: Option<FundingDue>,
    /// The newest funding time that is settled.
    pub funding_done_ns: i64,
    /// What our orders took of the shown sizes since the venue last told them, by price.
    pub taken: BTreeMap<Price, Qty>,
    /// Open time and open of the newest candle.
    pub candle: Option<(i64, Price)>,
    /// In the order of placing.
    pub orders: BTreeMap<u64, Resting>,
    /// What the open position was entered at on average; kept only where positions are liquidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Price>,
}

impl Market {
    /// Learns from a tick. Books are kept only where the fill model asks for them (`books`).
    pub fn hear(&mut self, ts_ns: i64, tick: &Tick<'_>, books: bool, funding_interval_ns: i64) {
        self.now_ns = self.now_ns.max(ts_ns);
        match tick {
            Tick::Trade { price, .. } => self.last = Some(*price),
            Tick::Quote { bid, ask } => {
                (self.bid, self.ask) = (*bid, *ask);
                if !self.book_known {
                    self.taken.clear();
                }
            }
            Tick::Book(update, scale) if books => self.hear_book(update, *scale),
            Tick::Book(..) | Tick::Clock => {}
            Tick::Ticker(ticker) => self.hear_ticker(ts_ns, ticker, funding_interval_ns),
            Tick::Candle(candle) => {
                let price =
                    if candle.closed_by == schemas::market::ClosedBy::Open { candle.open } else { candle.close };
                self.last = Some(price);
                self.candle = Some((candle.open_ns, candle.open));
            }
            Tick::BookGap => {
                self.bids.clear();
                self.asks.clear();
                self.taken.clear();
                self.book_known = false;
            }
        }
    }

    fn hear_book(&mut self, update: &BookUpdate, scale: Scale) {
        if update.action == BookAction::Snapshot {
            self.bids.clear();
            self.asks.clear();
            self.taken.clear();
            self.book_known = true;
        } else if !self.book_known {
            return; // Changes without what they change mean nothing.
        }
        for (side, levels) in [(&mut self.bids, &update.bids), (&mut self.asks, &update.asks)] {
            for &(price, size) in levels {
                let price = PriceM(price).price(scale);
                self.taken.remove(&price);
                if size == 0 {
                    side.remove(&price);
                } else {
                    side.insert(price, QtyM(size).qty(scale));
                }
            }
        }
    }

    fn hear_ticker(&mut self, ts_ns: i64, ticker: &TickerUpdate, funding_interval_ns: i64) {
        if ticker.mark.is_some() {
            self.mark = ticker.mark;
        }
        if let Some(rate) = ticker.funding_rate {
            // A venue that names no time settles at whole intervals counted from 1970.
            let next =
                ticker.next_funding_ns.unwrap_or((ts_ns.div_euclid(funding_interval_ns) + 1) * funding_interval_ns);
            if next > self.funding_done_ns {
                self.funding = Some(FundingDue { rate, at_ns: next });
            }
        }
    }

    /// What is shown for a taker of `side`, best price first, less what our own orders took of it already.
    pub fn shown(&self, side: Side) -> Box<dyn Iterator<Item = (Price, Qty)> + '_> {
        let rest = |(price, size): (Price, Qty)| {
            let left = size - self.taken.get(&price).copied().unwrap_or(Qty::ZERO);
            (left > Qty::ZERO).then_some((price, left))
        };
        match (self.book_known, side) {
            (true, Side::Buy) => Box::new(self.asks.iter().map(|(p, q)| (*p, *q)).filter_map(rest)),
            (true, Side::Sell) => Box::new(self.bids.iter().rev().map(|(p, q)| (*p, *q)).filter_map(rest)),
            (false, Side::Buy) => Box::new(self.ask.into_iter().filter_map(rest)),
            (false, Side::Sell) => Box::new(self.bid.into_iter().filter_map(rest)),
        }
    }

    /// The price that a taker of `side` meets: the best shown one, else that of the newest trade.
    pub fn meets(&self, side: Side) -> Option<Price> {
        let best = self.shown(side).next().map(|level| level.0);
        best.or(self.last)
    }

    /// Size that stands at `price` on the side of an order of `side`: what a newcomer there queues behind.
    /// Zero when the price is better than every shown one; `None` when it is not known.
    pub fn ahead(&self, side: Side, price: Price) -> Option<Qty> {
        if self.book_known {
            let own = if side == Side::Buy { &self.bids } else { &self.asks };
            return Some(own.get(&price).copied().unwrap_or(Qty::ZERO));
        }
        let (best, size) = if side == Side::Buy { self.bid? } else { self.ask? };
        match (price == best, better(side, price, best)) {
            (true, _) => Some(size),
            (false, true) => Some(Qty::ZERO),
            (false, false) => None,
        }
    }
}

/// `a` is strictly better than `b` for somebody who waits on `side`: a higher bid, a lower offer.
pub fn better(side: Side, a: Price, b: Price) -> bool {
    match side {
        Side::Buy => a > b,
        Side::Sell => a < b,
    }
}

/// A trader of `side` with this limit accepts `price`.
pub fn within(side: Side, price: Price, limit: Price) -> bool {
    !better(side, price, limit)
}
