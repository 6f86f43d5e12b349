//! The account's orders on one venue: their life cycle, balances and positions. Protocols turn what happens here into
//! their own words.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use crate::book::Side;
use crate::config::{Account, Config};
use crate::instrument::{Spec, VenueId};
use crate::market::{Event, Market, Trade};

/// Where an order stands; the last four are absorbing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A stop that waits for its trigger.
    Untriggered,
    Open,
    Filled,
    Cancelled,
    /// Immediate-or-cancel remainder, fill-or-kill that could not.
    Expired,
    Rejected,
}

impl State {
    pub fn closed(self) -> bool {
        !matches!(self, Self::Untriggered | Self::Open)
    }
}

/// How long an order may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    UntilCancelled,
    ImmediateOrCancel,
    FillOrKill,
}

/// When a stop becomes an order: at the first trade at or above (`rising`), or at or below, the price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trigger {
    pub price: i64,
    pub rising: bool,
}

/// What the client asked for, in ticks and lots.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub instrument: usize,
    pub side: Side,
    /// The venue's own words, kept for the answers.
    pub type_word: String,
    pub life_word: String,
    pub life: Life,
    /// `None` is a market order.
    pub limit: Option<i64>,
    pub trigger: Option<Trigger>,
    pub qty: i64,
    /// Client order id or label.
    pub client: String,
    pub post_only: bool,
    pub reduce_only: bool,
}

/// One fill of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct FillRow {
    pub trade: u64,
    pub time_ns: i64,
    pub price: i64,
    pub qty: i64,
    pub maker: bool,
    pub fee: Decimal,
    pub fee_coin: String,
    /// Profit realised against the average entry price, in quote (inverse: in base coin).
    pub profit: Decimal,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: u64,
    pub ask: Ask,
    pub state: State,
    pub filled: i64,
    /// Traded value at the scale of `Spec::value`.
    pub value: i128,
    /// Sum of price times quantity of the fills, in ticks times lots.
    pub price_lots: i128,
    pub created_ns: i64,
    pub updated_ns: i64,
    pub replaced: bool,
    pub fills: Vec<FillRow>,
}

/// What happened to an order, to be told to its owner. Carries the order as it is right after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    New(Order),
    Triggered(Order),
    Filled(Order, FillRow),
    Cancelled(Order),
    Expired(Order),
    Amended(Order),
}

impl Update {
    pub fn order(&self) -> &Order {
        match self {
            Self::New(o) | Self::Triggered(o) | Self::Filled(o, _) => o,
            Self::Cancelled(o) | Self::Expired(o) | Self::Amended(o) => o,
        }
    }
}

/// Why an order is not accepted; the protocols give it their code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    Funds,
    WouldTake,
    ReduceOnly,
    TooManyOpen,
    Duplicate,
    NoLiquidity,
    FillOrKill,
}

/// Signed lots and the average entry price in ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    pub lots: i64,
    pub entry: Decimal,
}

/// All orders, balances and positions on one venue.
#[derive(Debug)]
pub struct Desk {
    account: Account,
    remembered_max: usize,
    open_max: usize,
    orders: BTreeMap<u64, Order>,
    /// Ids of orders that are not closed.
    live: BTreeSet<u64>,
    next: u64,
    balances: BTreeMap<String, Decimal>,
    positions: BTreeMap<usize, Position>,
}

impl Desk {
    pub fn new(config: &Config) -> Self {
        Self {
            account: config.account.clone(),
            remembered_max: config.orders_remembered_max,
            open_max: config.open_orders_max,
            orders: BTreeMap::new(),
            live: BTreeSet::new(),
            next: 4_000_001,
            balances: config.account.balances.clone(),
            positions: BTreeMap::new(),
        }
    }

    pub fn account(&self) -> &Account {
        &self.account
    }
    pub fn order(&self, id: u64) -> Option<&Order> {
        self.orders.get(&id)
    }
    /// The newest order with this client id.
    pub fn by_client(&self, client: &str) -> Option<&Order> {
        self.orders.values().rev().find(|o| o.ask.client == client)
    }
    pub fn open(&self) -> impl Iterator<Item = &Order> {
        self.live.iter().filter_map(|id| self.orders.get(id))
    }
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.values()
    }
    pub fn balances(&self) -> &BTreeMap<String, Decimal> {
        &self.balances
    }
    pub fn balance(&self, coin: &str) -> Decimal {
        self.balances.get(coin).copied().unwrap_or_default()
    }
    pub fn position(&self, instrument: usize) -> Position {
        self.positions.get(&instrument).cloned().unwrap_or_default()
    }
    /// What open spot orders hold back, by coin.
    pub fn locked(&self, market: &Market, coin: &str) -> Decimal {
        let held = |o: &Order| {
            let spec = &market.listing(o.ask.instrument).spec;
            let left = o.ask.qty - o.filled;
            match o.ask.side {
                Side::Sell if spec.base == coin => size(spec, left),
                Side::Buy if spec.quote == coin => o.ask.limit.map(|p| value(spec, p, left)).unwrap_or_default(),
                _ => Decimal::ZERO,
            }
        };
        self.open().filter(|o| o.state == State::Open).map(held).sum()
    }

    /// Takes an order in and performs it. `Ok` carries its id; the updates follow in order, fills come as events.
    pub fn place(
        &mut self,
        market: &mut Market,
        ask: Ask,
        updates: &mut Vec<Update>,
        events: &mut Vec<Event>,
    ) -> Result<u64, Refusal> {
        if self.live.len() >= self.open_max {
            return Err(Refusal::TooManyOpen);
        }
        let crosses = |limit| market.listing(ask.instrument).book.crosses(ask.side, limit);
        if ask.post_only && ask.trigger.is_none() && ask.limit.is_some_and(crosses) {
            return Err(Refusal::WouldTake);
        }
        if ask.trigger.is_none() {
            let available = market.available(ask.instrument, ask.side, ask.limit);
            if ask.limit.is_none() && available == 0 {
                return Err(Refusal::NoLiquidity);
            }
            if ask.life == Life::FillOrKill && available < ask.qty {
                return Err(Refusal::FillOrKill);
            }
        }
        let mut ask = ask;
        if ask.reduce_only {
            let held = self.position(ask.instrument).lots;
            let room = if ask.side == Side::Sell { held } else { -held };
            if room <= 0 {
                return Err(Refusal::ReduceOnly);
            }
            ask.qty = ask.qty.min(room);
        }
        self.affordable(market, &ask)?;
        let id = self.next;
        self.next += 1;
        let state = if ask.trigger.is_some() { State::Untriggered } else { State::Open };
        let now = market.now_ns();
        let order = Order {
            id,
            ask,
            state,
            filled: 0,
            value: 0,
            price_lots: 0,
            created_ns: now,
            updated_ns: now,
            replaced: false,
            fills: Vec::new(),
        };
        updates.push(Update::New(order.clone()));
        self.orders.insert(id, order);
        self.live.insert(id);
        self.forget();
        if state == State::Open {
            self.launch(market, id, events);
        }
        Ok(id)
    }

    /// Brings an open order to the book. Its fills come back through [`Desk::hear`].
    fn launch(&mut self, market: &mut Market, id: u64, events: &mut Vec<Event>) {
        let Some(order) = self.orders.get(&id) else { return };
        let ask = &order.ask;
        let rests = ask.limit.is_some() && ask.life == Life::UntilCancelled;
        market.submit(ask.instrument, id, ask.side, ask.limit, ask.qty - order.filled, rests, events);
    }

    /// After the events of [`Desk::place`] were heard: what cannot rest expires.
    pub fn settle(&mut self, market: &Market, id: u64, updates: &mut Vec<Update>) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        let rests = order.ask.limit.is_some() && order.ask.life == Life::UntilCancelled;
        if order.state == State::Open && !rests {
            order.state = State::Expired;
            order.updated_ns = market.now_ns();
            self.live.remove(&id);
            updates.push(Update::Expired(order.clone()));
        }
    }

    /// Invariant O-1: `filled`, balances and positions move here and nowhere else.
    pub fn hear(&mut self, market: &Market, event: &Event) -> Option<Update> {
        let &Event::Fill { instrument, time_ns, order: id, price, qty, trade, maker } = event else { return None };
        let spec = &market.listing(instrument).spec;
        let side = self.orders.get(&id)?.ask.side;
        let profit = self.apply(spec, instrument, side, price, qty);
        let (fee, fee_coin) = self.fee(spec, price, qty, maker);
        *self.balances.entry(fee_coin.clone()).or_default() -= fee;
        let order = self.orders.get_mut(&id)?;
        order.filled += qty;
        order.value += spec.value(price, qty).0;
        order.price_lots += i128::from(price) * i128::from(qty);
        order.updated_ns = time_ns;
        if order.filled >= order.ask.qty {
            order.state = State::Filled;
            self.live.remove(&id);
        }
        let row = FillRow { trade, time_ns, price, qty, maker, fee, fee_coin, profit };
        // A resting order is filled at most once a lot, but only the first few hundred are worth telling again.
        if order.fills.len() < 500 {
            order.fills.push(row.clone());
        }
        Some(Update::Filled(order.clone(), row))
    }

    /// Stops that a trade sets off; each is launched by [`Desk::fire`].
    pub fn triggered(&self, trade: &Trade) -> Vec<u64> {
        let off = |o: &&Order| {
            o.state == State::Untriggered
                && o.ask.instrument == trade.instrument
                && o.ask.trigger.is_some_and(|t| if t.rising { trade.price >= t.price } else { trade.price <= t.price })
        };
        self.open().filter(off).map(|o| o.id).collect()
    }

    pub fn fire(&mut self, market: &mut Market, id: u64, updates: &mut Vec<Update>, events: &mut Vec<Event>) {
        let Some(order) = self.orders.get_mut(&id).filter(|o| o.state == State::Untriggered) else { return };
        order.state = State::Open;
        order.updated_ns = market.now_ns();
        updates.push(Update::Triggered(order.clone()));
        self.launch(market, id, events);
    }

    /// Takes an open or waiting order back; `None` when it is closed or unknown.
    pub fn cancel(&mut self, market: &mut Market, id: u64, events: &mut Vec<Event>) -> Option<Update> {
        let order = self.orders.get_mut(&id).filter(|o| !o.state.closed())?;
        if let (State::Open, Some(price)) = (order.state, order.ask.limit) {
            market.withdraw(order.ask.instrument, id, order.ask.side, price, events);
        }
        order.state = State::Cancelled;
        order.updated_ns = market.now_ns();
        self.live.remove(&id);
        Some(Update::Cancelled(order.clone()))
    }

    /// Changes size and price; the order goes to the end of the queue. `None` when it is closed or unknown.
    pub fn edit(
        &mut self,
        market: &mut Market,
        id: u64,
        qty: i64,
        limit: Option<i64>,
        events: &mut Vec<Event>,
    ) -> Option<Update> {
        let order = self.orders.get_mut(&id).filter(|o| !o.state.closed() && qty > o.filled)?;
        if let (State::Open, Some(price)) = (order.state, order.ask.limit) {
            market.withdraw(order.ask.instrument, id, order.ask.side, price, events);
        }
        order.ask.qty = qty;
        order.ask.limit = limit.or(order.ask.limit);
        order.replaced = true;
        order.updated_ns = market.now_ns();
        let update = Update::Amended(order.clone());
        if order.state == State::Open {
            self.launch(market, id, events);
        }
        Some(update)
    }

    fn affordable(&self, market: &Market, ask: &Ask) -> Result<(), Refusal> {
        let listing = market.listing(ask.instrument);
        let spec = &listing.spec;
        let touch = listing.book.best(ask.side.other()).unwrap_or_default();
        let worth = value(spec, ask.limit.unwrap_or(touch), ask.qty);
        let (coin, needed) = match (spec.venue, ask.side) {
            (VenueId::BinanceSpot, Side::Buy) => (&spec.quote, worth),
            (VenueId::BinanceSpot, Side::Sell) => (&spec.base, size(spec, ask.qty)),
            _ if ask.reduce_only => return Ok(()),
            _ => (settlement(spec), worth / Decimal::from(self.account.leverage_max)),
        };
        let free = self.balance(coin) - if spec.perpetual { Decimal::ZERO } else { self.locked(market, coin) };
        if needed > free { Err(Refusal::Funds) } else { Ok(()) }
    }

    fn fee(&self, spec: &Spec, price: i64, qty: i64, maker: bool) -> (Decimal, String) {
        let worth = value(spec, price, qty);
        if spec.perpetual {
            let rate = if maker { self.account.futures_maker_fee } else { self.account.futures_taker_fee };
            return ((worth * rate).round_dp(8), settlement(spec).clone());
        }
        // The fee coin is priced in dollars; a quote that is no dollar is taken for one here.
        let fee = worth * self.account.spot_fee / self.account.fee_coin_price;
        (fee.round_dp(8), self.account.fee_coin.clone())
    }

    /// Moves balances (spot) or the position (derivatives). Returns the realised profit.
    fn apply(&mut self, spec: &Spec, instrument: usize, side: Side, price: i64, qty: i64) -> Decimal {
        let signed = if side == Side::Buy { qty } else { -qty };
        if !spec.perpetual {
            let (base, quote) = (size(spec, signed), value(spec, price, signed));
            *self.balances.entry(spec.base.clone()).or_default() += base;
            *self.balances.entry(spec.quote.clone()).or_default() -= quote;
            return Decimal::ZERO;
        }
        let position = self.positions.entry(instrument).or_default();
        let held = position.lots;
        let closing = if held.signum() * signed.signum() < 0 { qty.min(held.abs()) } else { 0 };
        let tick = Decimal::new(spec.price.m, spec.price.s);
        let (at, entry) = (Decimal::from(price) * tick, position.entry * tick);
        let mut profit = Decimal::ZERO;
        if closing > 0 {
            let lots = Decimal::from(closing * held.signum()) * Decimal::new(spec.size.m, spec.size.s);
            let per = Decimal::from(if spec.venue == VenueId::BinanceCoinm { spec.contract_size } else { 1 });
            profit = if spec.inverse {
                lots * per * (Decimal::ONE / entry - Decimal::ONE / at)
            } else {
                lots * (at - entry)
            };
        }
        position.lots = held + signed;
        let opening = qty - closing;
        if position.lots == 0 {
            position.entry = Decimal::ZERO;
        } else if closing > 0 && opening > 0 {
            position.entry = Decimal::from(price);
        } else if opening > 0 {
            let before = Decimal::from(held.abs());
            let added = Decimal::from(opening);
            position.entry = ((position.entry * before + Decimal::from(price) * added) / (before + added)).round_dp(8);
        }
        let profit = profit.round_dp(8);
        *self.balances.entry(settlement(spec).clone()).or_default() += profit;
        profit
    }

    fn forget(&mut self) {
        while self.orders.len() > self.remembered_max {
            let Some(id) = self.orders.values().find(|o| o.state.closed()).map(|o| o.id) else { return };
            self.orders.remove(&id);
        }
    }
}

/// The coin that margin, profit and fees are paid in.
pub fn settlement(spec: &Spec) -> &String {
    if spec.inverse { &spec.base } else { &spec.quote }
}

/// Lots as an amount.
pub fn size(spec: &Spec, lots: i64) -> Decimal {
    Decimal::from(lots) * Decimal::new(spec.size.m, spec.size.s)
}

/// Lots at a price in quote (inverse: in base coin).
pub fn value(spec: &Spec, price: i64, lots: i64) -> Decimal {
    let (mantissa, scale) = spec.value(price, lots);
    Decimal::try_from_i128_with_scale(mantissa, scale).unwrap_or(Decimal::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Flow;
    use crate::reference::Mood;

    fn market(venue: VenueId) -> Market {
        let flow = Flow { mood: Mood { volatility: 0.8, correlation: 0.5 }, rate: 40.0, levels: 40 };
        Market::new(1, vec![Spec::parse(venue, "BTCUSDT").unwrap()], flow, 1_000_000_000)
    }

    fn ask(side: Side, limit: Option<i64>, qty: i64) -> Ask {
        let (type_word, life_word, life) = (String::new(), String::new(), Life::UntilCancelled);
        let (client, trigger) = ("me".to_owned(), None);
        let (post_only, reduce_only) = (false, false);
        Ask { instrument: 0, side, type_word, life_word, life, limit, trigger, qty, client, post_only, reduce_only }
    }

    fn place(desk: &mut Desk, market: &mut Market, ask: Ask) -> Result<(u64, Vec<Update>), Refusal> {
        let (mut updates, mut events) = (Vec::new(), Vec::new());
        let id = desk.place(market, ask, &mut updates, &mut events)?;
        updates.extend(events.iter().filter_map(|e| desk.hear(market, e)));
        desk.settle(market, id, &mut updates);
        Ok((id, updates))
    }

    #[test]
    fn a_market_order_is_filled_level_by_level_and_moves_the_balances() {
        let (mut market, mut desk) = (market(VenueId::BinanceSpot), Desk::new(&Config::load(None).unwrap()));
        let (id, updates) = place(&mut desk, &mut market, ask(Side::Buy, None, 50_000)).unwrap();
        let order = desk.order(id).unwrap();
        assert_eq!((order.state, order.filled), (State::Filled, 50_000));
        assert!(updates.len() >= 2 && matches!(updates[0], Update::New(_)));
        assert_eq!(desk.balance("BTC"), Decimal::new(205, 1));
        let spec = &market.listing(0).spec;
        let spent = Decimal::from_i128_with_scale(order.value, spec.price.s + spec.size.s);
        assert_eq!(desk.balance("USDT"), Decimal::from(1_000_000) - spent);
        assert!(desk.balance("BNB") < Decimal::from(1000));
    }

    #[test]
    fn a_position_goes_long_then_short_and_pays_its_profit() {
        let (mut market, mut desk) = (market(VenueId::BinanceUsdm), Desk::new(&Config::load(None).unwrap()));
        place(&mut desk, &mut market, ask(Side::Buy, None, 30)).unwrap();
        let entry = desk.position(0).entry;
        let (id, _) = place(&mut desk, &mut market, ask(Side::Sell, None, 50)).unwrap();
        assert_eq!(desk.position(0).lots, -20);
        assert!(desk.position(0).entry < entry);
        let profit: Decimal = desk.order(id).unwrap().fills.iter().map(|f| f.profit).sum();
        assert!(profit < Decimal::ZERO, "the spread costs: {profit}");
        let reduce = Ask { reduce_only: true, ..ask(Side::Sell, None, 5) };
        assert_eq!(place(&mut desk, &mut market, reduce).unwrap_err(), Refusal::ReduceOnly);
        let reduce = Ask { reduce_only: true, ..ask(Side::Buy, None, 500) };
        place(&mut desk, &mut market, reduce).unwrap();
        assert_eq!(desk.position(0), Position::default());
    }

    #[test]
    fn refusals_have_their_reasons_and_change_nothing() {
        let (mut market, mut desk) = (market(VenueId::BinanceSpot), Desk::new(&Config::load(None).unwrap()));
        let best = market.listing(0).book.best(Side::Sell).unwrap();
        let cases = [
            (Ask { post_only: true, ..ask(Side::Buy, Some(best), 100) }, Refusal::WouldTake),
            (ask(Side::Sell, Some(best + 9), 9_000_000_000), Refusal::Funds),
            (Ask { life: Life::FillOrKill, ..ask(Side::Buy, Some(best), 1_000_000_000) }, Refusal::FillOrKill),
        ];
        for (ask, why) in cases {
            assert_eq!(place(&mut desk, &mut market, ask).unwrap_err(), why);
        }
        assert_eq!(desk.orders().count(), 0);
    }

    #[test]
    fn a_stop_waits_for_its_trade_and_a_cancel_of_a_closed_order_is_refused() {
        let (mut market, mut desk) = (market(VenueId::BinanceUsdm), Desk::new(&Config::load(None).unwrap()));
        let best = market.listing(0).book.best(Side::Sell).unwrap();
        let trigger = Some(Trigger { price: best, rising: true });
        let (id, _) = place(&mut desk, &mut market, Ask { trigger, ..ask(Side::Buy, None, 5) }).unwrap();
        assert_eq!(desk.order(id).unwrap().state, State::Untriggered);
        let (mut updates, mut events) = (Vec::new(), Vec::new());
        market.submit(0, 0, Side::Buy, None, 1, false, &mut events);
        let Some(Event::Trade(trade)) = events.iter().find(|e| matches!(e, Event::Trade(_))).cloned() else { panic!() };
        assert_eq!(desk.triggered(&trade), [id]);
        events.clear();
        desk.fire(&mut market, id, &mut updates, &mut events);
        events.iter().for_each(|e| drop(desk.hear(&market, e)));
        assert_eq!(desk.order(id).unwrap().state, State::Filled);
        assert!(desk.cancel(&mut market, id, &mut events).is_none());
    }
}
