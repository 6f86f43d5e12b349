//! What the REST interfaces remember of one instrument: the latest trades, bars of a second and of a minute. Bounded.

use std::collections::VecDeque;

use crate::book::Side;
use crate::instrument::Spec;
use crate::market::Trade;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;
/// Trades kept for `/trades` and its kin.
pub const TRADES_MAX: usize = 10_000;
/// Minute bars kept: twenty days, so that a hundred bars of four hours can be built.
pub const MINUTES_MAX: usize = 28_800;
/// Second bars kept: ten minutes.
pub const SECONDS_MAX: usize = 600;

/// One bar in ticks and lots; an empty one repeats the last close and has `n` = 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bar {
    pub open_ms: i64,
    pub open: i64,
    pub high: i64,
    pub low: i64,
    pub close: i64,
    /// Lots.
    pub volume: i64,
    /// Value at the scale of `Spec::value`.
    pub value: i128,
    pub buy_volume: i64,
    pub buy_value: i128,
    pub n: u64,
    /// First and last trade id; 0 when there was none.
    pub first: u64,
    pub last: u64,
}

impl Bar {
    fn empty(open_ms: i64, price: i64) -> Self {
        Self { open_ms, open: price, high: price, low: price, close: price, ..Self::default() }
    }

    fn add(&mut self, trade: &Trade, value: i128) {
        if self.n == 0 {
            (self.open, self.high, self.low, self.first) = (trade.price, trade.price, trade.price, trade.id);
        }
        self.high = self.high.max(trade.price);
        self.low = self.low.min(trade.price);
        self.close = trade.price;
        self.volume += trade.qty;
        self.value += value;
        if trade.taker == Side::Buy {
            self.buy_volume += trade.qty;
            self.buy_value += value;
        }
        self.n += 1;
        self.last = trade.id;
    }

    fn join(&mut self, later: &Self) {
        if later.n > 0 {
            if self.n == 0 {
                (self.open, self.high, self.low, self.first) = (later.open, later.high, later.low, later.first);
            }
            self.high = self.high.max(later.high);
            self.low = self.low.min(later.low);
            self.last = later.last;
        }
        self.close = later.close;
        self.volume += later.volume;
        self.value += later.value;
        self.buy_volume += later.buy_volume;
        self.buy_value += later.buy_value;
        self.n += later.n;
    }
}

/// Latest trades and bars of one instrument.
#[derive(Clone, Debug, Default)]
pub struct History {
    trades: VecDeque<Trade>,
    minutes: VecDeque<Bar>,
    seconds: VecDeque<Bar>,
}

impl History {
    pub fn add(&mut self, spec: &Spec, trade: &Trade) {
        if self.trades.len() == TRADES_MAX {
            self.trades.pop_front();
        }
        self.trades.push_back(*trade);
        let value = spec.value(trade.price, trade.qty).0;
        let time_ms = trade.time_ns / 1_000_000;
        for (bars, width, max) in self.rings() {
            roll(bars, time_ms, width, max, trade.price);
            if let Some(bar) = bars.back_mut() {
                bar.add(trade, value);
            }
        }
    }

    /// Puts minutes before the first one that is known; the newest ones, where there are more than may be kept.
    pub fn precede(&mut self, minutes: Vec<Bar>) {
        let known = self.minutes.front().map_or(i64::MAX, |b| b.open_ms);
        for bar in minutes.into_iter().rev().filter(|b| b.open_ms < known) {
            if self.minutes.len() == MINUTES_MAX {
                return;
            }
            self.minutes.push_front(bar);
        }
    }

    /// Opens the bars that `time_ms` lies in, flat ones between.
    pub fn pass(&mut self, time_ms: i64) {
        for (bars, width, max) in self.rings() {
            if let Some(price) = bars.back().map(|b| b.close) {
                roll(bars, time_ms, width, max, price);
            }
        }
    }

    fn rings(&mut self) -> [(&mut VecDeque<Bar>, i64, usize); 2] {
        [(&mut self.seconds, SECOND_MS, SECONDS_MAX), (&mut self.minutes, MINUTE_MS, MINUTES_MAX)]
    }

    pub fn trades(&self) -> impl DoubleEndedIterator<Item = &Trade> + ExactSizeIterator {
        self.trades.iter()
    }

    /// The bar of `width_ms` that opens at `open_ms`, as far as it is known; `None` before the first trade.
    pub fn bar(&self, width_ms: i64, open_ms: i64) -> Option<Bar> {
        let bars = if width_ms < MINUTE_MS { &self.seconds } else { &self.minutes };
        let from = bars.partition_point(|b| b.open_ms < open_ms);
        let to = bars.partition_point(|b| b.open_ms < open_ms + width_ms);
        let mut parts = bars.range(from..to);
        let mut bar = Bar { open_ms, ..*parts.next()? };
        parts.for_each(|b| bar.join(b));
        Some(bar)
    }

    /// Bars of `width_ms` from `from_ms` to the present, oldest first, at most `limit` (the newest ones).
    pub fn bars(&self, width_ms: i64, from_ms: i64, to_ms: i64, limit: usize) -> Vec<Bar> {
        let bars = if width_ms < MINUTE_MS { &self.seconds } else { &self.minutes };
        let (Some(first), Some(last)) = (bars.front(), bars.back()) else { return Vec::new() };
        let first = from_ms.max(first.open_ms).div_euclid(width_ms) * width_ms;
        let last = to_ms.min(last.open_ms).div_euclid(width_ms) * width_ms;
        let first = first.max(last - (limit as i64 - 1) * width_ms);
        (0..=((last - first) / width_ms)).filter_map(|n| self.bar(width_ms, first + n * width_ms)).collect()
    }

    /// The last 24 hours as one bar.
    pub fn day(&self, now_ms: i64) -> Option<Bar> {
        let open = now_ms.div_euclid(MINUTE_MS) * MINUTE_MS - 1_439 * MINUTE_MS;
        self.bar(1_440 * MINUTE_MS, open)
    }
}

fn roll(bars: &mut VecDeque<Bar>, time_ms: i64, width: i64, max: usize, price: i64) {
    let open = time_ms.div_euclid(width) * width;
    let (mut next, close) = match bars.back() {
        Some(last) => (last.open_ms + width, last.close),
        None => (open, price),
    };
    // After a long leap only the bars that would be kept are made.
    next = next.max(open - (max as i64 - 1) * width);
    while next <= open {
        if bars.len() == max {
            bars.pop_front();
        }
        bars.push_back(Bar::empty(next, close));
        next += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::VenueId;

    fn trade(id: u64, time_ms: i64, price: i64, qty: i64) -> Trade {
        let time_ns = time_ms * 1_000_000;
        Trade { instrument: 0, time_ns, id, price, qty, taker: Side::Buy, aggregate: id, liquidation: false }
    }

    #[test]
    fn minutes_join_into_wider_bars_and_empty_ones_repeat_the_close() {
        let spec = Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap();
        let mut h = History::default();
        for t in [trade(1, 0, 100, 2), trade(2, 61_000, 90, 1), trade(3, 179_000, 120, 5)] {
            h.add(&spec, &t);
        }
        h.pass(240_000);
        let bar = h.bar(180_000, 0).unwrap();
        assert_eq!((bar.open, bar.high, bar.low, bar.close, bar.volume, bar.n), (100, 120, 90, 120, 8, 3));
        assert_eq!((bar.first, bar.last), (1, 3));
        let flat = h.bar(60_000, 180_000).unwrap();
        assert_eq!((flat.open, flat.close, flat.n, flat.volume), (120, 120, 0, 0));
        assert_eq!(h.bars(60_000, 0, i64::MAX, 500).len(), 5);
        assert_eq!(h.bars(60_000, 0, i64::MAX, 2).iter().map(|b| b.open_ms).collect::<Vec<_>>(), [180_000, 240_000]);
        assert_eq!(h.day(240_000).unwrap().n, 3);
    }

    #[test]
    fn a_past_stands_before_what_happened_and_joins_its_bars() {
        let spec = Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap();
        let minute = |n: i64, close: i64| Bar { close, n: 1, volume: 2, ..Bar::empty(n * 60_000, close - 1) };
        let mut h = History::default();
        h.precede((0..3).map(|n| minute(n, 100 + n)).collect());
        h.add(&spec, &trade(1, 4 * 60_000, 120, 5));
        h.precede(vec![minute(4, 7)]);
        let bars = h.bars(60_000, 0, i64::MAX, 10);
        assert_eq!(bars.iter().map(|b| b.close).collect::<Vec<_>>(), [100, 101, 102, 102, 120]);
        let all = h.bar(300_000, 0).unwrap();
        assert_eq!((all.open, all.close, all.volume, all.n), (99, 120, 11, 4));
        h.precede((-30_000..0).map(|n| minute(n, 50)).collect());
        assert_eq!(
            (h.minutes.len(), h.minutes.front().unwrap().open_ms),
            (MINUTES_MAX, (5 - MINUTES_MAX as i64) * 60_000)
        );
    }

    #[test]
    fn memory_stays_bounded_over_a_leap_of_years() {
        let spec = Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap();
        let mut h = History::default();
        h.add(&spec, &trade(1, 0, 100, 2));
        h.pass(100_000_000_000);
        assert!(h.minutes.len() <= MINUTES_MAX && h.seconds.len() <= SECONDS_MAX);
        (2..TRADES_MAX as u64 + 10).for_each(|id| h.add(&spec, &trade(id, 100_000_000_000, 100, 1)));
        assert_eq!(h.trades().len(), TRADES_MAX);
    }
}
