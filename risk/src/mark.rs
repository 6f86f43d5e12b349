//! What an instrument is worth now: the newest price of every source, and the choice between them.

use schemas::Price;
use serde::{Deserialize, Serialize};

/// Where a price comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The venue's mark price.
    Mark,
    /// The middle of best bid and ask.
    Quote,
    /// The last trade.
    Trade,
    /// The close of a closed candle, the open of a forming one.
    Candle,
}

/// One price as it was heard.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
struct Seen {
    price: Price,
    ts_ns: i64,
    /// Wall time of the newest clock fact before it; `None` before the first.
    wall_ns: Option<i64>,
}

/// What time it is by the facts heard so far.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// The newest event time of market data.
    pub ts_ns: Option<i64>,
    /// The newest wall time that a clock fact told.
    pub wall_ns: Option<i64>,
}

impl Now {
    /// Time never goes back.
    pub fn advance(&mut self, ts_ns: i64) {
        self.ts_ns = Some(self.ts_ns.map_or(ts_ns, |now| now.max(ts_ns)));
    }
    pub fn advance_wall(&mut self, wall_ns: i64) {
        self.wall_ns = Some(self.wall_ns.map_or(wall_ns, |now| now.max(wall_ns)));
    }
}

/// The price chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mark {
    pub price: Price,
    /// Never negative. By event time, or by the wall clock recorded beside it when that is greater: event time
    /// stands still when a venue falls silent.
    pub age_ns: i64,
}

/// The newest price of every source.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    mark: Option<Seen>,
    quote: Option<Seen>,
    trade: Option<Seen>,
    candle: Option<Seen>,
    /// Price of our own last fill: worth something when nothing else is known.
    fill: Option<Seen>,
    bid: Option<Price>,
    ask: Option<Price>,
}

impl Marks {
    /// Older prices than the source's newest are passed over, and so are prices that are not above zero.
    pub fn see(&mut self, source: Source, price: Price, ts_ns: i64, now: &Now) {
        let slot = match source {
            Source::Mark => &mut self.mark,
            Source::Quote => &mut self.quote,
            Source::Trade => &mut self.trade,
            Source::Candle => &mut self.candle,
        };
        Self::put(slot, price, ts_ns, now);
    }
    /// The best prices; the mark is their middle, where there are both.
    pub fn see_quote(&mut self, bid: Option<Price>, ask: Option<Price>, ts_ns: i64, now: &Now) {
        if self.quote.is_some_and(|seen| ts_ns < seen.ts_ns) {
            return;
        }
        (self.bid, self.ask) = (bid, ask);
        if let (Some(bid), Some(ask)) = (bid, ask) {
            let middle = (bid.get() + ask.get()) / rust_decimal::Decimal::TWO;
            Self::put(&mut self.quote, Price::new(middle), ts_ns, now);
        }
    }
    pub fn see_fill(&mut self, price: Price, ts_ns: i64, now: &Now) {
        Self::put(&mut self.fill, price, ts_ns, now);
    }
    fn put(slot: &mut Option<Seen>, price: Price, ts_ns: i64, now: &Now) {
        if price > Price::ZERO && slot.is_none_or(|seen| seen.ts_ns <= ts_ns) {
            *slot = Some(Seen { price, ts_ns, wall_ns: now.wall_ns });
        }
    }

    /// The first source of `order` that is not older than `age_ns_max`; else the youngest there is; else our own last
    /// fill.
    pub fn best(&self, order: &[Source], age_ns_max: i64, now: &Now) -> Option<Mark> {
        let mut youngest: Option<Mark> = None;
        for source in order {
            let seen = match source {
                Source::Mark => self.mark,
                Source::Quote => self.quote,
                Source::Trade => self.trade,
                Source::Candle => self.candle,
            };
            let Some(mark) = seen.map(|seen| aged(seen, now)) else { continue };
            if mark.age_ns <= age_ns_max {
                return Some(mark);
            }
            if youngest.is_none_or(|y| mark.age_ns < y.age_ns) {
                youngest = Some(mark);
            }
        }
        youngest.or_else(|| self.fill.map(|seen| aged(seen, now)))
    }

    /// What a market order would meet: the best opposite price, else the last trade.
    pub fn expected(&self, side: schemas::Side) -> Option<Price> {
        let best = match side {
            schemas::Side::Buy => self.ask,
            schemas::Side::Sell => self.bid,
        };
        best.or(self.trade.map(|seen| seen.price))
    }
}

fn aged(seen: Seen, now: &Now) -> Mark {
    let by_event = now.ts_ns.map_or(0, |ts| ts.saturating_sub(seen.ts_ns));
    let by_wall = now.wall_ns.zip(seen.wall_ns).map_or(0, |(wall, then)| wall.saturating_sub(then));
    Mark { price: seen.price, age_ns: by_event.max(by_wall).max(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [Source; 2] = [Source::Mark, Source::Trade];

    fn price(text: &str) -> Price {
        text.parse().unwrap()
    }
    fn now(ts_ns: i64, wall_ns: i64) -> Now {
        Now { ts_ns: Some(ts_ns), wall_ns: Some(wall_ns) }
    }

    #[test]
    fn the_first_fresh_source_wins_and_a_stale_one_gives_way() {
        let mut marks = Marks::default();
        marks.see(Source::Mark, price("100"), 10, &now(10, 0));
        marks.see(Source::Trade, price("101"), 50, &now(50, 0));
        assert_eq!(marks.best(&ORDER, 100, &now(50, 0)).unwrap().price, price("100"));
        assert_eq!(marks.best(&ORDER, 30, &now(50, 0)).unwrap().price, price("101"));
    }

    #[test]
    fn a_venue_that_falls_silent_ages_by_the_recorded_wall_clock() {
        let mut marks = Marks::default();
        marks.see(Source::Trade, price("100"), 10, &now(10, 1_000));
        assert_eq!(marks.best(&ORDER, 5, &now(10, 1_000)).unwrap().age_ns, 0);
        assert_eq!(marks.best(&ORDER, 5, &now(10, 9_000)).unwrap().age_ns, 8_000);
    }

    #[test]
    fn a_late_price_and_a_price_of_zero_are_passed_over() {
        let mut marks = Marks::default();
        marks.see(Source::Trade, price("100"), 10, &now(10, 0));
        marks.see(Source::Trade, price("90"), 9, &now(10, 0));
        marks.see(Source::Trade, price("0"), 11, &now(10, 0));
        assert_eq!(marks.best(&ORDER, 5, &now(10, 0)).unwrap().price, price("100"));
    }

    #[test]
    fn a_quote_with_an_empty_side_is_no_mark_but_tells_what_an_order_would_meet() {
        let mut marks = Marks::default();
        marks.see_quote(None, Some(price("101")), 10, &now(10, 0));
        assert_eq!(marks.best(&[Source::Quote], 5, &now(10, 0)), None);
        assert_eq!(marks.expected(schemas::Side::Buy), Some(price("101")));
        assert_eq!(marks.expected(schemas::Side::Sell), None);
    }
}
