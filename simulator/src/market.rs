//! The seeded market of one venue: instruments, books and trades that agree. Pure: virtual time in, events out.
//!
//! The flow of one instrument is a row of operations at random times, denser when the coin is restless: a taker sweeps
//! what the fair value has crossed, takes a random size, or somebody places, changes or withdraws quantity. Prices move
//! only because somebody trades, cancels or improves, so trades and book can never disagree.

use crate::book::{Book, Side};
use crate::instrument::{Spec, VenueId};
use crate::reference::{Mood, Walk};
use crate::rng::Rng;

/// What happened, in order. `Done` ends every operation: what touched the book together is published together.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A level's whole quantity was `was` lots and is now `qty` (0: none). `id` is the venue's update id.
    Level {
        instrument: usize,
        time_ns: i64,
        id: u64,
        side: Side,
        price: i64,
        was: i64,
        qty: i64,
    },
    /// A trade at the level that was the best one; `id` is consecutive per instrument.
    Trade(Trade),
    /// A user's order was filled by the trade with this id.
    Fill {
        instrument: usize,
        time_ns: i64,
        order: u64,
        price: i64,
        qty: i64,
        trade: u64,
        maker: bool,
    },
    Done {
        instrument: usize,
        time_ns: i64,
    },
}

/// One public trade in ticks and lots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    pub instrument: usize,
    pub time_ns: i64,
    pub id: u64,
    pub price: i64,
    pub qty: i64,
    /// What the taker did.
    pub taker: Side,
    /// Pieces of one taker order at one price share this number (an aggregate trade).
    pub aggregate: u64,
    /// The taker was liquidated.
    pub liquidation: bool,
}

/// How the market behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub mood: Mood,
    /// Operations per virtual second and instrument in an ordinary hour.
    pub rate: f64,
    /// Levels a side at the start and at most.
    pub levels: usize,
}

/// One instrument's state.
#[derive(Clone, Debug)]
pub struct Listing {
    pub spec: Spec,
    pub book: Book,
    walk: Walk,
    rng: Rng,
    next_ns: i64,
    /// Id of the last change of this instrument's book.
    pub update_id: u64,
    /// Id of the last trade.
    pub trade_id: u64,
    /// Number of the last aggregate trade.
    pub aggregate_id: u64,
    pub last: Option<Trade>,
    /// Perpetuals: smoothed distance of the book's middle from the index, in ticks.
    premium: f64,
}

impl Listing {
    /// Index price (quote per base): the fair value.
    pub fn index(&self) -> f64 {
        self.walk.price()
    }
    /// Mark price: index plus the smoothed premium of the book.
    pub fn mark(&self) -> f64 {
        self.index() + self.premium * self.spec.price.step()
    }
    /// Funding rate of eight hours: the premium over the index plus 0.01 % of interest, at most 0.75 % either way.
    pub fn funding(&self) -> f64 {
        let premium = self.mark() / self.index() - 1.0;
        (premium + (0.0001 - premium).clamp(-0.0005, 0.0005)).clamp(-0.0075, 0.0075)
    }
    fn fair_ticks(&self) -> i64 {
        ((self.walk.price() / self.spec.price.step()) as i64).max(self.half_spread() * 4 + 2)
    }
    /// Half of the spread that quoters ask for, in ticks: about a tenth of a basis point each side, at least one tick.
    fn half_spread(&self) -> i64 {
        ((self.walk.price() / self.spec.price.step() * 0.000_01) as i64).max(1)
    }
    /// Lots of an ordinary order: about two thousand units of quote.
    fn typical(&self) -> i64 {
        let lot = self.spec.size.step();
        let worth = match (self.spec.inverse, self.spec.venue) {
            (true, VenueId::BinanceCoinm | VenueId::Okx | VenueId::HtxInverse) => lot * self.spec.contract_size as f64,
            (true, _) => lot,
            (false, _) => lot * self.walk.price(),
        };
        ((2_000.0 / worth) as i64).max(2)
    }
}

/// All instruments of one venue.
#[derive(Clone, Debug)]
pub struct Market {
    listings: Vec<Listing>,
    flow: Flow,
    now_ns: i64,
    /// Update ids run over all symbols, in jumps, where the venue does not count each symbol's.
    global: Option<u64>,
    id_rng: Rng,
}

// A sweep takes at most this many levels in one operation, so one operation stays small.
const SWEEP_LEVELS_MAX: usize = 12;
const BOOK_ID_START: u64 = 10_000_000_000;

impl Market {
    /// Books as they stand at `start_ns`, made from the seed alone.
    pub fn new(seed: u64, specs: Vec<Spec>, flow: Flow, start_ns: i64) -> Self {
        let global = specs.first().filter(|s| !s.venue.counts_updates()).map(|_| BOOK_ID_START);
        // A venue never gives a trade id again: one that is started later goes on behind all that an earlier one gave,
        // as long as a symbol has less than a trade a millisecond.
        let ids_before = (start_ns / 1_000_000).max(0) as u64;
        let listings = specs
            .into_iter()
            .map(|spec| {
                let label = format!("{}/{}", spec.venue.name(), spec.symbol);
                let mut rng = Rng::new(seed, &label);
                Listing {
                    walk: Walk::new(seed, &spec.base, spec.start_price, flow.mood, start_ns),
                    next_ns: start_ns + 1 + rng.below(1_000_000) as i64,
                    update_id: BOOK_ID_START + rng.below(1_000_000_000),
                    trade_id: ids_before + 1_000_000 + rng.below(1_000_000_000),
                    aggregate_id: ids_before + 500_000 + rng.below(500_000_000),
                    rng,
                    spec,
                    book: Book::default(),
                    last: None,
                    premium: 0.0,
                }
            })
            .collect();
        let id_rng = Rng::new(seed, "update ids");
        let mut market = Self { listings, flow, now_ns: start_ns, global, id_rng };
        let mut unheard = Vec::new();
        for instrument in 0..market.listings.len() {
            for n in 0..market.flow.levels * 2 {
                let side = if n % 2 == 0 { Side::Buy } else { Side::Sell };
                market.quote(instrument, side, &mut unheard);
                unheard.clear();
            }
        }
        market
    }

    pub fn listings(&self) -> &[Listing] {
        &self.listings
    }
    pub fn listing(&self, instrument: usize) -> &Listing {
        &self.listings[instrument]
    }
    /// Virtual time of the last thing that happened.
    pub fn now_ns(&self) -> i64 {
        self.now_ns
    }
    pub fn find(&self, symbol: &str) -> Option<usize> {
        self.listings.iter().position(|l| l.spec.symbol == symbol)
    }
    /// Changes how dense the flow is from the next operation on.
    pub fn set_rate(&mut self, rate: f64) {
        self.flow.rate = rate;
    }
    /// Bids and asks of an instrument and the id of the last change: what a REST snapshot shows.
    pub fn snapshot(&self, instrument: usize, depth: usize) -> Snapshot {
        let l = &self.listings[instrument];
        Snapshot { id: l.update_id, bids: l.book.top(Side::Buy, depth), asks: l.book.top(Side::Sell, depth) }
    }

    /// When the next operation happens, and to which instrument.
    pub fn next(&self) -> Option<(i64, usize)> {
        self.listings.iter().enumerate().map(|(i, l)| (l.next_ns, i)).min()
    }

    /// Lets time pass without an operation; never backwards.
    pub fn set_time(&mut self, now_ns: i64) {
        self.now_ns = self.now_ns.max(now_ns);
        for l in &mut self.listings {
            l.walk.advance(self.now_ns);
        }
    }

    /// Performs every operation due at or before `to_ns`.
    pub fn advance(&mut self, to_ns: i64, out: &mut Vec<Event>) {
        while self.next().is_some_and(|(at, _)| at <= to_ns) {
            self.step(out);
        }
        self.set_time(to_ns);
    }

    /// Performs the next operation, whenever it is.
    pub fn step(&mut self, out: &mut Vec<Event>) {
        let Some((at, i)) = self.next() else { return };
        self.now_ns = at;
        let mean_ns = 1e9 / self.flow.rate;
        let l = &mut self.listings[i];
        l.walk.advance(at);
        // The product of two uniforms has mean 1/4: bursts and lulls without a logarithm.
        let gap = mean_ns * 4.0 * l.rng.unit() * l.rng.unit() / l.walk.activity();
        l.next_ns = at + (gap as i64).max(1_000);
        self.operate(i, out);
        self.tidy(i, out);
        let l = &mut self.listings[i];
        if let (Some(bid), Some(ask)) = (l.book.best(Side::Buy), l.book.best(Side::Sell)) {
            let off = (bid + ask) as f64 / 2.0 - l.walk.price() / l.spec.price.step();
            l.premium += (off - l.premium) * 0.02;
        }
        out.push(Event::Done { instrument: i, time_ns: at });
    }

    fn operate(&mut self, i: usize, out: &mut Vec<Event>) {
        let l = &mut self.listings[i];
        let fair = l.fair_ticks();
        if l.book.best(Side::Sell).is_some_and(|ask| ask <= fair) {
            let liquidation = l.rng.one_in(400);
            self.sweep(i, Side::Buy, fair, liquidation, out);
            return;
        }
        if l.book.best(Side::Buy).is_some_and(|bid| bid >= fair) {
            let liquidation = l.rng.one_in(400);
            self.sweep(i, Side::Sell, fair, liquidation, out);
            return;
        }
        let side = if l.rng.one_in(2) { Side::Buy } else { Side::Sell };
        match l.rng.below(10) {
            0..=2 => {
                let u = l.rng.unit();
                let large = if l.rng.one_in(25) { 10 } else { 1 };
                let qty = ((l.typical() as f64 * (0.01 + 1.5 * u * u * u)) as i64).max(1) * large;
                self.trade(i, side, None, qty, None, false, out);
            }
            3..=4 => {
                // Somebody near the touch changes or withdraws an order.
                let n = l.rng.below(20) as usize;
                let Some(price) = l.book.nth(side, n) else { return };
                let crowd = l.book.crowd(side, price);
                let qty = if l.rng.one_in(2) { 0 } else { crowd / 2 + l.rng.below(crowd.max(1) as u64) as i64 };
                self.set(i, side, price, qty, out);
            }
            _ => self.quote(i, side, out),
        }
    }

    /// The fair value crossed the touch: somebody takes everything up to it.
    fn sweep(&mut self, i: usize, taker: Side, fair: i64, liquidation: bool, out: &mut Vec<Event>) {
        self.trade(i, taker, Some(fair), i64::MAX, None, liquidation, out);
        // The quoters follow at once on the side that the price left behind.
        self.quote(i, taker, out);
    }

    /// Places quantity at a random distance behind the fair value, never across the other side.
    fn quote(&mut self, i: usize, side: Side, out: &mut Vec<Event>) {
        let l = &mut self.listings[i];
        let (fair, half) = (l.fair_ticks(), l.half_spread());
        let u = l.rng.unit();
        let behind = half + (10.0 * half as f64 * u * u / (1.03 - u)) as i64;
        let price = match side {
            Side::Buy => (fair - behind).min(l.book.best(Side::Sell).map_or(i64::MAX, |p| p - 1)),
            Side::Sell => (fair + behind).max(l.book.best(Side::Buy).map_or(0, |p| p + 1)),
        };
        if price < 1 {
            return;
        }
        let qty = (l.typical() as f64 * (0.1 + 4.0 * l.rng.unit() * l.rng.unit())) as i64;
        self.set(i, side, price, qty.max(1), out);
    }

    /// Keeps both sides between half of and all of `levels`, and closes holes at the touch.
    fn tidy(&mut self, i: usize, out: &mut Vec<Event>) {
        for side in [Side::Buy, Side::Sell] {
            let l = &self.listings[i];
            let (fair, half) = (l.fair_ticks(), l.half_spread());
            let far = l.book.best(side).is_none_or(|p| (fair - p).abs() > half * 6);
            let thin = l.book.count(side) < self.flow.levels / 2;
            if far {
                let l = &mut self.listings[i];
                let price = match side {
                    Side::Buy => (fair - half).min(l.book.best(Side::Sell).map_or(i64::MAX, |p| p - 1)),
                    Side::Sell => (fair + half).max(l.book.best(Side::Buy).map_or(0, |p| p + 1)),
                };
                let qty = l.typical() / 2 + l.rng.below(l.typical() as u64) as i64;
                self.set(i, side, price.max(1), qty.max(1), out);
            }
            if thin {
                self.quote(i, side, out);
            }
            while self.listings[i].book.count(side) > self.flow.levels {
                let Some(price) = self.listings[i].book.worst(side) else { break };
                if self.listings[i].book.crowd(side, price) < self.listings[i].book.quantity(side, price) {
                    break; // A user's order rests there; it may stay as long as it likes.
                }
                self.set(i, side, price, 0, out);
            }
        }
    }

    fn next_id(&mut self, i: usize) -> u64 {
        let id = match &mut self.global {
            Some(id) => {
                *id += 1 + self.id_rng.below(8);
                *id
            }
            None => self.listings[i].update_id + 1,
        };
        self.listings[i].update_id = id;
        id
    }

    fn say_level(&mut self, i: usize, side: Side, price: i64, was: i64, qty: i64, out: &mut Vec<Event>) {
        let id = self.next_id(i);
        out.push(Event::Level { instrument: i, time_ns: self.now_ns, id, side, price, was, qty });
    }

    fn set(&mut self, i: usize, side: Side, price: i64, qty: i64, out: &mut Vec<Event>) {
        let book = &mut self.listings[i].book;
        let before = book.quantity(side, price);
        let total = book.set_crowd(side, price, qty);
        if total != before {
            self.say_level(i, side, price, before, total, out);
        }
    }

    /// A taker takes up to `qty` lots at `limit` or better. Returns the lots that it got.
    #[allow(clippy::too_many_arguments)]
    fn trade(
        &mut self,
        i: usize,
        taker: Side,
        limit: Option<i64>,
        qty: i64,
        order: Option<u64>,
        liquidation: bool,
        out: &mut Vec<Event>,
    ) -> i64 {
        let mut left = qty;
        let mut levels = 0;
        while left > 0 && (order.is_some() || levels < SWEEP_LEVELS_MAX) {
            let Some(best) = self.listings[i].book.best(taker.other()) else { break };
            let beyond = limit.is_some_and(|limit| match taker {
                Side::Buy => best > limit,
                Side::Sell => best < limit,
            });
            // The crowd never empties a side: a book without a side is not a market.
            if beyond || (order.is_none() && self.listings[i].book.count(taker.other()) <= 2) {
                break;
            }
            let Some((price, pieces, rest)) = self.listings[i].book.take_best(taker, left) else { break };
            levels += 1;
            let was = rest + pieces.iter().map(|p| p.qty).sum::<i64>();
            self.listings[i].aggregate_id += 1;
            for piece in pieces {
                left -= piece.qty;
                let time_ns = self.now_ns;
                let l = &mut self.listings[i];
                l.trade_id += 1;
                let (id, aggregate) = (l.trade_id, l.aggregate_id);
                let trade = Trade { instrument: i, time_ns, id, price, qty: piece.qty, taker, aggregate, liquidation };
                l.last = Some(trade);
                out.push(Event::Trade(trade));
                for (user, maker) in [(order, false), (piece.maker, true)] {
                    if let Some(order) = user {
                        let (qty, trade) = (piece.qty, id);
                        out.push(Event::Fill { instrument: i, time_ns, order, price, qty, trade, maker });
                    }
                }
            }
            self.say_level(i, taker.other(), price, was, rest, out);
        }
        qty - left
    }

    /// A user's order takes what it can at `limit` or better and, if `rest` says so, the remainder waits in the book.
    /// Returns the lots taken.
    pub fn submit(
        &mut self,
        i: usize,
        order: u64,
        side: Side,
        limit: Option<i64>,
        qty: i64,
        rest: bool,
        out: &mut Vec<Event>,
    ) -> i64 {
        let taken = self.trade(i, side, limit, qty, Some(order), false, out);
        if let (true, Some(price)) = (rest && taken < qty, limit) {
            let total = self.listings[i].book.rest(side, price, qty - taken, order);
            self.say_level(i, side, price, total - (qty - taken), total, out);
        }
        out.push(Event::Done { instrument: i, time_ns: self.now_ns });
        taken
    }

    /// Takes a user's resting order out of the book; false when it does not rest at that price.
    pub fn withdraw(&mut self, i: usize, order: u64, side: Side, price: i64, out: &mut Vec<Event>) -> bool {
        let was = self.listings[i].book.quantity(side, price);
        let Some(total) = self.listings[i].book.remove(side, price, order) else { return false };
        self.say_level(i, side, price, was, total, out);
        out.push(Event::Done { instrument: i, time_ns: self.now_ns });
        true
    }

    /// How many lots a taker could get at `limit` or better now.
    pub fn available(&self, i: usize, taker: Side, limit: Option<i64>) -> i64 {
        let book = &self.listings[i].book;
        let reachable = |price: i64| {
            limit.is_none_or(|limit| match taker {
                Side::Buy => price <= limit,
                Side::Sell => price >= limit,
            })
        };
        book.top(taker.other(), usize::MAX).into_iter().take_while(|(p, _)| reachable(*p)).map(|(_, q)| q).sum()
    }
}

/// A book at one moment, in ticks and lots from the touch outwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub id: u64,
    pub bids: Vec<(i64, i64)>,
    pub asks: Vec<(i64, i64)>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn flow() -> Flow {
        Flow { mood: Mood { volatility: 1.0, correlation: 0.5 }, rate: 40.0, levels: 60 }
    }

    fn market(venue: VenueId, seed: u64) -> Market {
        let specs = ["BTCUSDT", "ETHUSDT", "DOGEUSDT"].map(|s| Spec::parse(venue, s).unwrap()).to_vec();
        Market::new(seed, specs, flow(), 1_700_000_000_000_000_000)
    }

    const START: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_venue_that_is_started_again_gives_no_trade_id_twice() {
        let minute_ns = 60_000_000_000;
        let market = |start_ns| {
            let specs = vec![Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap()];
            Market::new(7, specs, flow(), start_ns)
        };
        let mut first = market(START);
        let before = (first.listing(0).trade_id, first.listing(0).aggregate_id);
        first.advance(START + minute_ns, &mut Vec::new());
        let last = (first.listing(0).trade_id, first.listing(0).aggregate_id);
        assert!(last.0 > before.0 && last.1 > before.1);
        let again = market(START + minute_ns);
        assert!(again.listing(0).trade_id > last.0 && again.listing(0).aggregate_id > last.1);
    }

    /// A reader that knows only the published snapshot and events.
    struct Mirror {
        id: u64,
        sides: [BTreeMap<i64, i64>; 2],
        trade_id: u64,
    }

    impl Mirror {
        fn new(market: &Market, i: usize) -> Self {
            let s = market.snapshot(i, usize::MAX);
            let sides = [s.bids.into_iter().collect(), s.asks.into_iter().collect()];
            Self { id: s.id, sides, trade_id: market.listing(i).trade_id }
        }
        fn bid(&self) -> i64 {
            *self.sides[0].last_key_value().expect("bids").0
        }
        fn ask(&self) -> i64 {
            *self.sides[1].first_key_value().expect("asks").0
        }
        fn hear(&mut self, event: &Event, consecutive: bool) {
            match event {
                Event::Level { id, side, price, was, qty, .. } => {
                    assert!(if consecutive { *id == self.id + 1 } else { *id > self.id });
                    self.id = *id;
                    let half = &mut self.sides[usize::from(*side == Side::Sell)];
                    assert_eq!(half.get(price).copied().unwrap_or(0), *was, "what was there is told right");
                    if *qty == 0 {
                        half.remove(price)
                    } else {
                        half.insert(*price, *qty)
                    };
                }
                Event::Trade(t) => {
                    assert_eq!(t.id, self.trade_id + 1, "trade ids are consecutive");
                    self.trade_id = t.id;
                    let touch = if t.taker == Side::Buy { self.ask() } else { self.bid() };
                    assert_eq!(t.price, touch, "a trade happens at the touch");
                    let there = self.sides[usize::from(t.taker == Side::Buy)][&t.price];
                    assert!(t.qty > 0 && t.qty <= there, "nobody trades more than there is");
                }
                Event::Fill { .. } => {}
                Event::Done { .. } => assert!(self.bid() < self.ask(), "the book never crosses"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn the_events_replayed_on_the_snapshot_are_the_book(seed in any::<u64>(), v in 0..VenueId::ALL.len()) {
            let venue = VenueId::ALL[v];
            let mut market = market(venue, seed);
            let mut mirrors: Vec<_> = (0..3).map(|i| Mirror::new(&market, i)).collect();
            let mut events = Vec::new();
            market.advance(START + 20_000_000_000, &mut events);
            for event in &events {
                let (Event::Level { instrument, .. }
                | Event::Fill { instrument, .. }
                | Event::Done { instrument, .. }
                | Event::Trade(Trade { instrument, .. })) = event;
                mirrors[*instrument].hear(event, venue.counts_updates());
            }
            for (i, m) in mirrors.iter().enumerate() {
                let s = market.snapshot(i, usize::MAX);
                prop_assert_eq!(s.id, m.id);
                prop_assert_eq!(s.bids.into_iter().collect::<BTreeMap<_, _>>(), m.sides[0].clone());
                prop_assert_eq!(s.asks.into_iter().collect::<BTreeMap<_, _>>(), m.sides[1].clone());
            }
            prop_assert!(events.iter().any(|e| matches!(e, Event::Trade(_))));
        }

        #[test]
        fn the_size_of_the_time_steps_changes_nothing(seed in any::<u64>(), parts in 1i64..50) {
            let (mut a, mut b) = (market(VenueId::BinanceUsdm, seed), market(VenueId::BinanceUsdm, seed));
            let (mut one, mut many) = (Vec::new(), Vec::new());
            a.advance(START + 5_000_000_000, &mut one);
            for p in 1..=parts {
                b.advance(START + 5_000_000_000 * p / parts, &mut many);
            }
            prop_assert_eq!(one, many);
        }
    }

    #[test]
    fn the_book_follows_the_fair_value_and_stays_small() {
        let mut market = market(VenueId::BinanceSpot, 5);
        let mut events = Vec::new();
        for second in 1..=600 {
            market.advance(START + second * 1_000_000_000, &mut events);
            events.clear();
            for l in market.listings() {
                let (bid, ask) = (l.book.best(Side::Buy).unwrap(), l.book.best(Side::Sell).unwrap());
                let mid = (bid + ask) as f64 / 2.0 * l.spec.price.step();
                assert!((mid / l.index() - 1.0).abs() < 0.002, "{} {mid} {}", l.spec.symbol, l.index());
                assert!(l.book.count(Side::Buy) <= 60 && l.book.count(Side::Sell) <= 60);
            }
        }
    }

    #[test]
    fn a_users_order_rests_is_filled_when_the_price_comes_and_can_be_withdrawn() {
        let mut market = market(VenueId::BinanceSpot, 9);
        let mut out = Vec::new();
        let bid = market.listing(0).book.best(Side::Buy).unwrap();
        assert_eq!(market.submit(0, 77, Side::Buy, Some(bid), 10, true, &mut out), 0);
        let filled = |out: &[Event]| -> i64 {
            out.iter().map(|e| if let Event::Fill { order: 77, qty, .. } = e { *qty } else { 0 }).sum()
        };
        for second in 1..=300 {
            market.advance(START + second * 1_000_000_000, &mut out);
        }
        assert_eq!(filled(&out), 10);
        out.clear();
        let ask = market.listing(0).book.best(Side::Sell).unwrap();
        market.submit(0, 78, Side::Sell, Some(ask + 5000), 3, true, &mut out);
        assert!(market.withdraw(0, 78, Side::Sell, ask + 5000, &mut out));
        assert!(!market.withdraw(0, 78, Side::Sell, ask + 5000, &mut out));
        let got = market.submit(0, 79, Side::Buy, None, 1_000_000, false, &mut out);
        assert!(got > 0 && out.iter().any(|e| matches!(e, Event::Fill { order: 79, maker: false, .. })));
    }

    #[test]
    fn an_instrument_more_leaves_the_others_as_they_were() {
        let alone = Market::new(1, vec![Spec::parse(VenueId::BinanceSpot, "BTCUSDT").unwrap()], flow(), START);
        let (mut alone, mut three) = (alone, market(VenueId::BinanceSpot, 1));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        alone.advance(START + 3_000_000_000, &mut a);
        three.advance(START + 3_000_000_000, &mut b);
        let trades = |events: &[Event]| -> Vec<(u64, i64, i64)> {
            let mine = |e: &Event| {
                if let Event::Trade(t) = e { (t.instrument == 0).then_some((t.id, t.price, t.qty)) } else { None }
            };
            events.iter().filter_map(mine).collect()
        };
        assert_eq!(trades(&a), trades(&b));
    }
}
