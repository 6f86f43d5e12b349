//! The fill engine: a venue made of market data. `sim` and `paper` are both this.
//!
//! It holds no position of its own: what we hold comes with every call, so that there is one truth.

use std::collections::BTreeMap;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::desk::{Order, OrderKind, TimeInForce};
use schemas::exec::{DoneState, Liquidity};
use schemas::instrument::{InstrumentKind, SizeUnit};
use schemas::raw::Trades;
use schemas::{Instrument, Notional, Price, Qty, Scale, Side, WireError};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Queue, Rules};
use crate::fill::{self, FillModel, Interest, Mode, Slice, Want};
use crate::liquidation;
use crate::market::{Market, Resting, within};
use crate::position::{reducible, signed};
use crate::venue::{ExecVenue, Report, Tick};

/// See the module.
pub struct Engine {
    rules: Rules,
    model: &'static dyn FillModel,
    state: EngineState,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct EngineState {
    instruments: BTreeMap<String, BTreeMap<String, Instrument>>,
    markets: BTreeMap<String, BTreeMap<String, Market>>,
    /// Orders placed so far: the key of the next one, so that earlier orders come first.
    placed: u64,
}

impl Engine {
    /// `config` has passed [`Config::check`].
    pub fn new(config: &Config) -> Self {
        let model = fill::model(&config.fill.model).expect("Invariant: a checked configuration names a known model");
        Self { rules: config.rules(), model, state: EngineState::default() }
    }

    fn instrument_of(&self, venue: &str, symbol: &str) -> Option<&Instrument> {
        self.state.instruments.get(venue)?.get(symbol)
    }
    fn market_of(&self, venue: &str, symbol: &str) -> Option<&Market> {
        self.state.markets.get(venue)?.get(symbol)
    }
    /// The market, made when there is room for it.
    fn market_entry(&mut self, venue: &str, symbol: &str) -> Option<&mut Market> {
        if self.market_of(venue, symbol).is_none() {
            if self.state.markets.values().map(BTreeMap::len).sum::<usize>() >= self.rules.instruments_max {
                return None;
            }
            let venue = self.state.markets.entry(venue.to_owned()).or_default();
            venue.insert(symbol.to_owned(), Market::default());
        }
        self.state.markets.get_mut(venue)?.get_mut(symbol)
    }

    /// Pays or receives what is due by now on what is held.
    fn settle_funding(&mut self, venue: &str, symbol: &str, ts_ns: i64, held: Qty, out: &mut Vec<Report>) {
        let Some(market) = self.state.markets.get_mut(venue).and_then(|v| v.get_mut(symbol)) else { return };
        let Some(due) = market.funding.take_if(|due| due.at_ns <= ts_ns) else { return };
        market.funding_done_ns = due.at_ns;
        let Some(mark) = market.mark.or(market.last) else { return };
        let instrument = self.instrument_of(venue, symbol).filter(|i| i.kind == InstrumentKind::Perpetual);
        let (Some(instrument), false) = (instrument, held.is_zero()) else { return };
        let paid = worth(instrument, mark, held).get() * due.rate.get();
        out.push(Report::Funding {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            mark,
            rate: due.rate,
            amount: Notional::new(-paid),
            ts_ns: due.at_ns,
        });
    }

    /// Lets every order of one instrument see this tick; gives what is held behind it.
    fn work(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, held: Qty, out: &mut Vec<Report>) -> Qty {
        let Some(market) = self.state.markets.get_mut(venue).and_then(|v| v.get_mut(symbol)) else { return held };
        if market.orders.is_empty() {
            return held;
        }
        let Some(instrument) = self.state.instruments.get(venue).and_then(|v| v.get(symbol)) else { return held };
        // Stops first: where a candle holds both a stop and a take-profit, the worse one is assumed.
        let mut keys: Vec<(bool, u64)> =
            market.orders.iter().map(|(key, r)| (r.order.kind != OrderKind::Stop, *key)).collect();
        keys.sort_unstable();
        // Out of the market's hands meanwhile, so that an order is looked at where it lies: each is half a kilobyte.
        let mut orders = std::mem::take(&mut market.orders);
        let mut step = Step { rules: &self.rules, model: self.model, instrument, market, ts_ns, tick, held, out };
        for (_, key) in keys {
            if orders.get_mut(&key).is_some_and(|resting| !step.order(resting)) {
                orders.remove(&key);
            }
        }
        step.market.orders = orders;
        step.held
    }

    /// Closes what is held when too little of its margin is left. Stops went first: they stand nearer.
    fn liquidate(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, held: Qty, out: &mut Vec<Report>) {
        let Some(bound) = self.liquidation_price(venue, symbol, held) else { return };
        let Some(margin) = self.rules.margin else { return };
        let Some(instrument) = self.state.instruments.get(venue).and_then(|v| v.get(symbol)) else { return };
        let Some(market) = self.state.markets.get_mut(venue).and_then(|v| v.get_mut(symbol)) else { return };
        let long = held.signum() > 0;
        let worst = match tick {
            Tick::Candle(c) if c.closed_by != schemas::market::ClosedBy::Open => {
                Some(if long { c.low } else { c.high })
            }
            _ => market.mark.or(market.last),
        };
        let Some(mark) = worst.filter(|mark| if long { *mark <= bound } else { *mark >= bound }) else { return };
        let Some(entry) = market.entry.take() else { return };
        // Beyond the bankruptcy price the loss is the venue's.
        let ruin = liquidation::bankruptcy(instrument, entry, held, &margin);
        let price = if long { mark.max(ruin) } else { mark.min(ruin) };
        let qty = held.abs();
        out.push(Report::Liquidated {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            side: if long { Side::Sell } else { Side::Buy },
            price,
            qty,
            fee: Notional::new(worth(instrument, price, qty).get() * margin.fee),
            why: format!("liquidation: mark {mark} reached {bound}, entry {entry}"),
            ts_ns,
        });
        // Behind the fill, so that nobody protects what is gone.
        for (_, resting) in std::mem::take(&mut market.orders) {
            let (id, reason) = (resting.order.id, "the position was liquidated".to_owned());
            out.push(Report::Ended { id, state: DoneState::Cancelled, reason, ts_ns });
        }
    }

    /// Where the venue closes what is held by itself; `None`: nowhere.
    fn liquidation_price(&self, venue: &str, symbol: &str, held: Qty) -> Option<Price> {
        let margin = self.rules.margin.filter(|_| !held.is_zero())?;
        let entry = self.market_of(venue, symbol)?.entry?;
        let instrument = self.instrument_of(venue, symbol).filter(|i| liquidation::applies(i))?;
        Some(liquidation::trigger(instrument, entry, held, &margin))
    }

    /// Which trades of an instrument can matter to its orders and to what is held.
    fn interest(&self, venue: &str, symbol: &str, held: Qty) -> Interest {
        let Some(market) = self.market_of(venue, symbol) else { return Interest::ALL };
        let mut all = Interest::NONE;
        for resting in market.orders.values() {
            all = all.or(order_interest(self.model, resting, market, held));
        }
        if let (Some(due), false) = (&market.funding, held.is_zero()) {
            all = all.or(Interest::from(due.at_ns));
        }
        let Some(bound) = self.liquidation_price(venue, symbol, held) else { return all };
        let rising = held.signum() < 0;
        // Entered beyond its own bound: whatever comes next closes it.
        if market.mark.is_some_and(|mark| if rising { mark >= bound } else { mark <= bound }) {
            return Interest::ALL;
        }
        all.or(Interest::at_trigger(rising, bound))
    }
}

fn order_interest(model: &dyn FillModel, resting: &Resting, market: &Market, held: Qty) -> Interest {
    if !resting.arrived {
        return Interest::from(resting.arrives_ns);
    }
    let order = &resting.order;
    let qty = if order.reduce_only { reducible(held, order.side, resting.left) } else { resting.left };
    if qty.is_zero() {
        return Interest::ALL;
    }
    let want = Want { side: order.side, qty, mode: mode(resting), since_ns: resting.since_ns };
    let wanted = model.interest(&want, market);
    match &resting.cancel {
        Some((due_ns, _)) => wanted.or(Interest::from(*due_ns)),
        None => wanted,
    }
}

/// The mantissas that meet a price: at or below `low`, at or above `high`.
fn mantissas(interest: &Interest, scale: Scale) -> (i64, i64) {
    let scaled = |price: Price, strategy, beyond| {
        let at = price.get().checked_mul(Decimal::from(10u64.pow(u32::from(scale.price.min(18)))));
        at.and_then(|at| at.round_dp_with_strategy(0, strategy).to_i64()).unwrap_or(beyond)
    };
    // What no mantissa can hold is met by every trade: too many, never too few.
    let low = interest.at_or_below.map(|p| scaled(p, RoundingStrategy::ToNegativeInfinity, i64::MAX));
    let high = interest.at_or_above.map(|p| scaled(p, RoundingStrategy::ToPositiveInfinity, i64::MIN));
    (low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX))
}

/// One tick's way through the orders of an instrument.
struct Step<'a> {
    rules: &'a Rules,
    model: &'static dyn FillModel,
    instrument: &'a Instrument,
    market: &'a mut Market,
    ts_ns: i64,
    tick: Tick<'a>,
    held: Qty,
    out: &'a mut Vec<Report>,
}

impl Step<'_> {
    /// False: the order has ended.
    fn order(&mut self, resting: &mut Resting) -> bool {
        if !resting.arrived {
            if self.ts_ns < resting.arrives_ns {
                return true;
            }
            if !self.arrive(resting) {
                return false;
            }
        }
        if let Some((due_ns, reason)) = &resting.cancel
            && *due_ns <= self.ts_ns
        {
            let reason = reason.clone();
            return self.end(resting, DoneState::Cancelled, reason, self.ts_ns);
        }
        // A trigger that fires may execute on the same tick in some models: at most two rounds.
        for _round in 0..2 {
            let qty = if resting.order.reduce_only {
                reducible(self.held, resting.order.side, resting.left)
            } else {
                resting.left
            };
            if qty.is_zero() {
                return self.end(
                    resting,
                    DoneState::Cancelled,
                    "reduce-only and nothing is left to reduce".into(),
                    self.ts_ns,
                );
            }
            let want = Want { side: resting.order.side, qty, mode: mode(resting), since_ns: resting.since_ns };
            let outcome = self.model.execute(&want, self.market, self.ts_ns, &self.tick, self.rules);
            if let Some(ahead) = outcome.queue {
                resting.queue = Some(ahead);
            }
            if outcome.fired.is_some() {
                resting.fired = true;
                resting.since_ns = self.ts_ns;
                if self.model.same_tick() {
                    continue;
                }
                return true;
            }
            return self.execute(resting, &want, outcome.slices);
        }
        true
    }

    /// The venue has it: acknowledged, or refused because it would take liquidity.
    fn arrive(&mut self, resting: &mut Resting) -> bool {
        let order = &resting.order;
        let ts_ns = resting.arrives_ns;
        resting.arrived = true;
        match (order.kind, order.limit) {
            (OrderKind::Limit, Some(limit)) => {
                let crosses = self.market.meets(order.side).is_some_and(|price| within(order.side, price, limit));
                if crosses && order.post_only {
                    let reason = format!("limit {limit} would take liquidity");
                    self.out.push(Report::Rejected { id: order.id.clone(), code: "post_only".into(), reason, ts_ns });
                    return false;
                }
                resting.taking = crosses || order.time_in_force != TimeInForce::Gtc;
                resting.queue = self.queue(order.side, limit);
            }
            _ => resting.taking = true,
        }
        self.out.push(Report::Acked { id: order.id.clone(), venue_order_id: order.id.clone(), ts_ns });
        true
    }

    fn queue(&self, side: Side, limit: Price) -> Option<Qty> {
        match self.rules.queue {
            Queue::Shown => self.market.ahead(side, limit),
            Queue::Front => Some(Qty::ZERO),
            Queue::Through => None,
        }
    }

    /// Books what the model answered. False: the order has ended.
    fn execute(&mut self, resting: &mut Resting, want: &Want, slices: Vec<Slice>) -> bool {
        let tif = resting.order.time_in_force;
        let chance = self.model.chance(resting.since_ns, self.market, self.ts_ns, &self.tick);
        let total: Qty = slices.iter().map(|slice| slice.qty).sum();
        if tif == TimeInForce::Fok && chance && total < want.qty {
            let reason = format!("fill or kill: {total} of {} were there", want.qty);
            return self.end(resting, DoneState::Expired, reason, self.ts_ns);
        }
        for slice in slices {
            self.book(resting, slice);
        }
        if resting.left.is_zero() {
            return false;
        }
        let order = &resting.order;
        if order.reduce_only && reducible(self.held, order.side, resting.left).is_zero() {
            return self.end(
                resting,
                DoneState::Cancelled,
                "reduce-only and nothing is left to reduce".into(),
                self.ts_ns,
            );
        }
        if tif != TimeInForce::Gtc && chance {
            return self.end(
                resting,
                DoneState::Expired,
                "immediate or cancel: the rest found nothing".into(),
                self.ts_ns,
            );
        }
        // A limit order that took what it could at its first chance rests with what is left.
        if let (true, true, OrderKind::Limit, Some(limit)) =
            (resting.taking, chance, resting.order.kind, resting.order.limit)
        {
            resting.taking = false;
            resting.queue = self.queue(resting.order.side, limit);
        }
        true
    }

    fn book(&mut self, resting: &mut Resting, slice: Slice) {
        let order = &resting.order;
        // Sizes are used up once, whichever of our orders comes first.
        match &mut self.tick {
            Tick::Trade { size, .. } if self.rules.partial_by_trade_size => *size = (*size - slice.qty).max(Qty::ZERO),
            _ => {}
        }
        if let Some(level) = slice.level {
            *self.market.taken.entry(level).or_insert(Qty::ZERO) += slice.qty;
        }
        let price = self.slipped(order, &slice);
        let rate = self.rules.fee(&order.venue, slice.liquidity);
        let fee = Notional::new(worth(self.instrument, price, slice.qty).get() * rate);
        resting.left -= slice.qty;
        let change = signed(order.side, slice.qty);
        if self.rules.margin.is_some() {
            let inverse = self.instrument.inverse;
            self.market.entry = liquidation::entry_behind(self.market.entry, self.held, change, price, inverse);
        }
        self.held += change;
        self.out.push(Report::Filled {
            id: order.id.clone(),
            price,
            qty: slice.qty,
            fee,
            liquidity: slice.liquidity,
            why: slice.why,
            ts_ns: slice.ts_ns.max(resting.arrives_ns),
        });
    }

    /// A taker's price is worse by the configured slippage, rounded against us, but never beyond its own limit.
    fn slipped(&self, order: &Order, slice: &Slice) -> Price {
        if slice.liquidity == Liquidity::Maker || self.rules.slippage.is_zero() {
            return slice.price;
        }
        let price = slice.price.moved_by(self.rules.slippage * order.side.sign());
        let tick = self.instrument.tick.get();
        let strategy = match order.side {
            Side::Buy => RoundingStrategy::ToPositiveInfinity,
            Side::Sell => RoundingStrategy::ToNegativeInfinity,
        };
        let price = if tick.is_zero() {
            price
        } else {
            Price::new((price.get() / tick).round_dp_with_strategy(0, strategy) * tick)
        };
        match order.limit {
            Some(limit) if !within(order.side, price, limit) => limit,
            _ => price,
        }
    }

    fn end(&mut self, resting: &Resting, state: DoneState, reason: String, ts_ns: i64) -> bool {
        self.out.push(Report::Ended { id: resting.order.id.clone(), state, reason, ts_ns });
        false
    }
}

/// What an order wants now.
fn mode(resting: &Resting) -> Mode {
    let order = &resting.order;
    let Some(trigger) = order.trigger.filter(|_| !resting.fired) else {
        return match order.limit {
            Some(limit) if !resting.taking => Mode::Rest { limit, queue: resting.queue },
            limit => Mode::Take { limit },
        };
    };
    // A stop waits for the price to go against the position, a take-profit for it to go with it.
    let rising = (order.kind == OrderKind::Stop) == (order.side == Side::Buy);
    Mode::Await { trigger, rising }
}

/// What `qty` of an instrument is worth in quote currency at `price`; signed like `qty`.
pub fn worth(instrument: &Instrument, price: Price, qty: Qty) -> Notional {
    match (instrument.size_unit, instrument.inverse) {
        (SizeUnit::Base, _) => price * qty,
        (SizeUnit::QuoteUsd, _) => Notional::new(qty.get()),
        (SizeUnit::Contracts, true) => Notional::new(qty.get() * instrument.contract_size.get()),
        (SizeUnit::Contracts, false) => price * Qty::new(qty.get() * instrument.contract_size.get()),
    }
}

impl ExecVenue for Engine {
    fn instrument(&mut self, instrument: &Instrument) {
        let known: usize = self.state.instruments.values().map(BTreeMap::len).sum();
        let venue = self.state.instruments.entry(instrument.venue.clone()).or_default();
        if known < self.rules.instruments_max || venue.contains_key(&instrument.symbol) {
            venue.insert(instrument.symbol.clone(), instrument.clone());
        }
    }

    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)> {
        let Some(instrument) = self.instrument_of(&order.venue, &order.symbol) else {
            return Err(("no_instrument", format!("no instrument {} on {}", order.symbol, order.venue)));
        };
        if !instrument.trading {
            return Err(("not_trading", format!("{} takes no orders in {}", order.venue, order.symbol)));
        }
        let markets: usize = self.state.markets.values().map(BTreeMap::len).sum();
        if markets >= self.rules.instruments_max && self.market_of(&order.venue, &order.symbol).is_none() {
            return Err(("no_instrument", format!("{markets} instruments are followed already")));
        }
        Ok(())
    }

    fn place(&mut self, order: &Order, held: Qty, out: &mut Vec<Report>) {
        let arrives_ns = order.ts_ns.saturating_add(self.rules.latency_ns);
        let latency_ns = self.rules.latency_ns;
        let key = self.state.placed;
        self.state.placed += 1;
        let Some(market) = self.market_entry(&order.venue, &order.symbol) else { return };
        let now_ns = if latency_ns == 0 { market.now_ns.max(arrives_ns) } else { market.now_ns };
        let resting = Resting {
            order: order.clone(),
            left: order.qty,
            arrives_ns,
            arrived: false,
            since_ns: arrives_ns,
            fired: false,
            taking: false,
            queue: None,
            cancel: None,
        };
        market.orders.insert(key, resting);
        // What the venue shows already may execute it at once.
        self.work(&order.venue, &order.symbol, now_ns, Tick::Clock, held, out);
    }

    fn cancel(&mut self, order: &Order, ts_ns: i64, reason: &str, out: &mut Vec<Report>) {
        let due_ns = ts_ns.saturating_add(self.rules.latency_ns);
        let at_once = self.rules.latency_ns == 0;
        let Some(market) = self.state.markets.get_mut(&order.venue).and_then(|v| v.get_mut(&order.symbol)) else {
            return;
        };
        let Some((&key, resting)) = market.orders.iter_mut().find(|(_, r)| r.order.id == order.id) else { return };
        if at_once || due_ns <= market.now_ns {
            market.orders.remove(&key);
            let (id, reason) = (order.id.clone(), reason.to_owned());
            out.push(Report::Ended { id, state: DoneState::Cancelled, reason, ts_ns: due_ns });
        } else if resting.cancel.is_none() {
            resting.cancel = Some((due_ns, reason.to_owned()));
        }
    }

    fn watches(&self, venue: &str, symbol: &str, held: Qty) -> bool {
        let Some(market) = self.market_of(venue, symbol) else { return false };
        let exposed = market.funding.is_some() || market.entry.is_some();
        !market.orders.is_empty() || (exposed && !held.is_zero())
    }

    fn first_told(&self, pack: &Trades, from: usize, held: Qty) -> usize {
        let interest = self.interest(&pack.venue, &pack.symbol, held);
        if interest == Interest::NONE {
            return pack.len();
        }
        let (low, high) = mantissas(&interest, pack.scale);
        let n = pack.len();
        let (ts, prices) = (&pack.ts_ns[..n], &pack.price[..n]);
        (from..n).find(|&i| ts[i] >= interest.from_ns || prices[i] <= low || prices[i] >= high).unwrap_or(n)
    }

    fn pass(&mut self, venue: &str, symbol: &str, ts_ns: i64) {
        if let Some(market) = self.market_entry(venue, symbol) {
            market.now_ns = market.now_ns.max(ts_ns);
        }
    }

    fn tick(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, held: Qty, out: &mut Vec<Report>) {
        let (books, interval_ns) = (self.model.books(), self.rules.funding_interval_ns);
        // Funding first: this tick may carry the next interval's rate.
        self.settle_funding(venue, symbol, ts_ns, held, out);
        let Some(market) = self.market_entry(venue, symbol) else { return };
        market.hear(ts_ns, &tick, books, interval_ns);
        let held = self.work(venue, symbol, ts_ns, tick, held, out);
        self.liquidate(venue, symbol, ts_ns, tick, held, out);
    }

    fn waiting(&self, venue: &str) -> Vec<String> {
        let Some(markets) = self.state.markets.get(venue) else { return Vec::new() };
        let waits = |m: &Market| m.funding.is_some() || m.orders.values().any(|r| !r.arrived || r.cancel.is_some());
        markets.iter().filter(|(_, m)| waits(m)).map(|(symbol, _)| symbol.clone()).collect()
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&self.state)
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = schemas::wire::decode(state)?;
        Ok(())
    }
}
