//! The executor of one account: desk facts in, the order journal out.
//!
//! Invariant E-3: `Sending` of an order is said before its venue hears of it, and behind `Done` or `Reject` nothing
//! more is said of an order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemas::desk::{Cancel, DeskState, Order, OrderKind, TradingState, order_id};
use schemas::exec::{Ack, Cancelling, Done, DoneState, Fill, Funding, LiveReport, Reject, Sending};
use schemas::market::Candle;
use schemas::raw::{Books, Clock, Gap, Quotes, Raw, Tickers, Trades};
use schemas::{Cause, Core, Fact, Fault, Instrument, Listen, Nanos, Place, Qty, Timeframe, Version, WireError};
use serde::{Deserialize, Serialize};

use crate::bracket::{Action, Bracket, Leg, Working};
use crate::config::Config;
use crate::engine::Engine;
use crate::live::venue::LiveVenue;
use crate::order::{Event, State, Tracked};
use crate::position::{Positions, reducible, signed};
use crate::venue::{ExecVenue, Report, Tick};

/// What the executor hears.
#[derive(Clone, PartialEq, Debug)]
pub enum In {
    Order(Box<Order>),
    Cancel(Cancel),
    State(DeskState),
    Instrument(Instrument),
    Trades(Trades),
    Quotes(Quotes),
    Books(Books),
    Tickers(Tickers),
    /// Only where candles are the market data, as in a candle backtest.
    Candle(Box<Candle>),
    Clock(Clock),
    Gap(Gap),
    /// What a live venue said, as its caller stored it.
    Live(Box<LiveReport>),
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        let mut tokens = subject.split('.');
        let heard = match tokens.next().unwrap_or("") {
            "raw" => match tokens.nth(2).unwrap_or("") {
                "trade" | "quote" | "book" | "ticker" | "clock" | "gap" => match Raw::hear(subject, payload)? {
                    Some(Raw::Trades(f)) => Self::Trades(f),
                    Some(Raw::Quotes(f)) => Self::Quotes(f),
                    Some(Raw::Books(f)) => Self::Books(f),
                    Some(Raw::Tickers(f)) => Self::Tickers(f),
                    Some(Raw::Clock(f)) => Self::Clock(f),
                    Some(Raw::Gap(f)) => Self::Gap(f),
                    _ => return Ok(None),
                },
                _ => return Ok(None),
            },
            "candle" | "preview" => Self::Candle(Box::new(Candle::decode(payload)?)),
            "order" => Self::Order(Box::new(Order::decode(payload)?)),
            "cancel" => Self::Cancel(Cancel::decode(payload)?),
            "state" => Self::State(DeskState::decode(payload)?),
            "live" => Self::Live(Box::new(LiveReport::decode(payload)?)),
            "$KV" => match (tokens.next(), tokens.next()) {
                // A deleted key has an empty body; the state before it stays.
                _ if payload.is_empty() => return Ok(None),
                (Some("cfg"), Some("desk")) => Self::State(DeskState::decode(payload)?),
                (Some("instruments"), Some(_)) => Self::Instrument(Instrument::decode(payload)?),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(heard))
    }
}

schemas::says! {
    /// What the executor says, and all that it can say.
    pub enum Out {
        Sending(Sending),
        Cancelling(Cancelling),
        Ack(Ack),
        Fill(Fill),
        Reject(Reject),
        Done(Done),
        Funding(Funding),
    }
}

/// See the module.
pub struct ExecutorCore {
    account: String,
    /// The stream that it writes; protective order ids are made of it, so that they never equal risk's, which are
    /// made of the desk's.
    stream: String,
    orders_open_max: usize,
    ended_ids_max: usize,
    candle_timeframe: Timeframe,
    state: CoreState,
    venue: Box<dyn ExecVenue + Send>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct CoreState {
    trading: TradingState,
    /// Open orders by client id.
    orders: BTreeMap<String, Tracked>,
    /// Ids of ended orders, oldest first.
    ended: VecDeque<String>,
    positions: Positions,
    /// By venue and symbol.
    brackets: BTreeMap<String, BTreeMap<String, Bracket>>,
    watermark_ns: i64,
    /// Not in the checkpoint: it is the set of `ended`.
    #[serde(skip)]
    ended_set: BTreeSet<String>,
}

/// One input's work: where it stands, what follows.
struct Work<'a> {
    place: &'a Place,
    cause: Cause,
    /// Protective orders made so far for this input.
    made: u16,
    reports: VecDeque<Report>,
    out: &'a mut Vec<Out>,
}

impl Work<'_> {
    /// Puts what a venue reported behind what is waiting.
    fn take(&mut self, reports: Vec<Report>) {
        self.reports.extend(reports);
    }
}

impl ExecutorCore {
    /// `config` has passed [`Config::check`].
    pub fn new(account: &str, config: &Config) -> Self {
        let venue: Box<dyn ExecVenue + Send> = match config.is_live() {
            true => Box::new(LiveVenue::new(config)),
            false => Box::new(Engine::new(config)),
        };
        Self::at_venue(account, config, venue)
    }

    /// The same executor in front of another venue.
    pub fn at_venue(account: &str, config: &Config, venue: Box<dyn ExecVenue + Send>) -> Self {
        Self {
            account: account.to_owned(),
            stream: schemas::subject::stream::exec(account),
            orders_open_max: config.orders_open_max,
            ended_ids_max: config.ended_ids_max,
            candle_timeframe: config.fill.candle_timeframe,
            state: CoreState::default(),
            venue,
        }
    }

    /// Signed size held, from our own fills.
    pub fn held(&self, venue: &str, symbol: &str) -> Qty {
        self.state.positions.held(venue, symbol)
    }
    /// Orders that have not ended, by client id.
    pub fn open_orders(&self) -> impl Iterator<Item = &Tracked> {
        self.state.orders.values()
    }

    fn on_order(&mut self, order: Order, work: &mut Work<'_>) {
        if order.account != self.account || self.known(&order.id) {
            return;
        }
        if let Err((code, reason)) = self.admit(&order) {
            self.remember(order.id.clone());
            work.out.push(Out::Reject(Reject {
                v: Version,
                account: order.account,
                id: order.id,
                venue: order.venue,
                symbol: order.symbol,
                code: code.to_owned(),
                reason,
                ts_ns: order.ts_ns,
                cause: work.cause.clone(),
            }));
            return;
        }
        self.send(order, work);
        self.settle(work);
    }

    /// The executor's own door. Closes pass whatever the trading state and however many orders are open.
    fn admit(&self, order: &Order) -> Result<(), (&'static str, String)> {
        if order.qty <= Qty::ZERO {
            return Err(("invalid", format!("quantity {} is not positive", order.qty)));
        }
        let needs_limit = order.kind == OrderKind::Limit;
        let needs_trigger = matches!(order.kind, OrderKind::Stop | OrderKind::TakeProfit);
        if needs_limit != order.limit.is_some() || needs_trigger != order.trigger.is_some() {
            return Err((
                "invalid",
                format!("{:?} with limit {:?} and trigger {:?}", order.kind, order.limit, order.trigger),
            ));
        }
        if !order.reduce_only {
            match self.state.trading {
                TradingState::Active => {}
                TradingState::Reducing => return Err(("reducing", "the account is reducing: closes only".into())),
                TradingState::Halted => return Err(("halted", "the account is halted: closes only".into())),
            }
            if self.state.orders.len() >= self.orders_open_max {
                return Err(("too_many_orders", format!("{} orders are open already", self.state.orders.len())));
            }
        } else if reducible(self.held(&order.venue, &order.symbol), order.side, order.qty).is_zero() {
            return Err(("reduce_only", format!("nothing is held that a {} would reduce", order.side.as_str())));
        }
        self.venue.admits(order)
    }

    /// Says `Sending`, then lets the venue hear.
    fn send(&mut self, order: Order, work: &mut Work<'_>) {
        let mut tracked = Tracked::new(order.clone());
        tracked.apply(Event::Send).expect("Invariant: a new order can be sent");
        work.out.push(Out::Sending(Sending {
            v: Version,
            order: order.clone(),
            ts_ns: order.ts_ns,
            cause: work.cause.clone(),
        }));
        self.state.orders.insert(order.id.clone(), tracked);
        let held = self.held_at_venue(&order.venue, &order.symbol, work);
        let mut reports = Vec::new();
        self.venue.place(&order, held, &mut reports);
        work.take(reports);
    }

    /// What is held when every fill that is reported but not yet told is counted.
    fn held_at_venue(&self, venue: &str, symbol: &str, work: &Work<'_>) -> Qty {
        let reported = work.reports.iter().filter_map(|report| match report {
            Report::Filled { id, qty, .. } => Some((self.state.orders.get(id)?.order(), *qty)),
            _ => None,
        });
        let here = reported.filter(|(order, _)| order.venue == venue && order.symbol == symbol);
        self.held(venue, symbol) + here.map(|(order, qty)| signed(order.side, qty)).sum()
    }

    fn cancel(&mut self, id: &str, ts_ns: i64, reason: &str, work: &mut Work<'_>) {
        let Some(tracked) = self.state.orders.get(id) else { return };
        let mut reports = Vec::new();
        self.venue.cancel(tracked.order(), ts_ns, reason, &mut reports);
        work.take(reports);
    }

    fn on_state(&mut self, state: DeskState, work: &mut Work<'_>) {
        if state.account != self.account {
            return;
        }
        self.state.trading = state.state;
        if state.state == TradingState::Active {
            return;
        }
        // What could still open leaves the venue. Its reports come at the newest time known: an operator's own
        // clock may be behind or ahead of the data.
        let entries: Vec<String> =
            self.state.orders.values().filter(|t| !t.order().reduce_only).map(|t| t.order().id.clone()).collect();
        let ts_ns = self.state.watermark_ns;
        let reason =
            format!("the account is {}", if state.state == TradingState::Halted { "halted" } else { "reducing" });
        for id in entries {
            self.cancel(&id, ts_ns, &reason, work);
        }
        self.settle(work);
    }

    /// One tick of one instrument. Told: something may follow from it.
    fn on_tick(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, work: &mut Work<'_>) {
        self.state.watermark_ns = self.state.watermark_ns.max(ts_ns);
        let held = self.state.positions.held(venue, symbol);
        let mut reports = Vec::new();
        self.venue.tick(venue, symbol, ts_ns, tick, held, &mut reports);
        work.take(reports);
        self.settle(work);
    }

    /// Turns reports into facts until nothing follows any more. Each round ends orders or fills them, and a fill
    /// places at most two protective orders, so it comes to an end.
    fn settle(&mut self, work: &mut Work<'_>) {
        while let Some(report) = work.reports.pop_front() {
            match report {
                Report::Acked { id, venue_order_id, ts_ns } => {
                    let Some(order) = self.moved(&id, Event::Ack) else { continue };
                    work.out.push(Out::Ack(Ack {
                        v: Version,
                        account: order.account,
                        id,
                        venue: order.venue,
                        symbol: order.symbol,
                        venue_order_id,
                        ts_ns,
                        cause: work.cause.clone(),
                    }));
                }
                Report::Rejected { id, code, reason, ts_ns } => {
                    let Some(order) = self.moved(&id, Event::Reject) else { continue };
                    self.forget(&id);
                    work.out.push(Out::Reject(Reject {
                        v: Version,
                        account: order.account.clone(),
                        id: id.clone(),
                        venue: order.venue.clone(),
                        symbol: order.symbol.clone(),
                        code: code.into_owned(),
                        reason,
                        ts_ns,
                        cause: work.cause.clone(),
                    }));
                    self.unprotected(&order, ts_ns, work);
                }
                Report::Cancelling { id, reason, ts_ns } => {
                    let Some(order) = self.state.orders.get(&id).map(Tracked::order) else { continue };
                    work.out.push(Out::Cancelling(Cancelling {
                        v: Version,
                        account: order.account.clone(),
                        id,
                        venue: order.venue.clone(),
                        symbol: order.symbol.clone(),
                        reason,
                        ts_ns,
                        cause: work.cause.clone(),
                    }));
                }
                Report::Ended { id, state, reason, ts_ns } => {
                    let event = if state == DoneState::Expired { Event::Expire } else { Event::Cancel };
                    if let Some(order) = self.moved(&id, event) {
                        self.done(&order, state, reason, ts_ns, work);
                        self.protect(&order.venue, &order.symbol, ts_ns, work);
                    }
                }
                Report::Filled { .. } => self.on_fill(report, work),
                Report::Liquidated { venue, symbol, side, price, qty, fee, why, ts_ns } => {
                    // The venue's own order; it stands in the journal like ours.
                    let id = self.next_id(work);
                    let order = Order {
                        v: Version,
                        account: self.account.clone(),
                        id: id.clone(),
                        venue,
                        symbol,
                        side,
                        kind: OrderKind::Market,
                        qty,
                        limit: None,
                        trigger: None,
                        reduce_only: true,
                        post_only: false,
                        time_in_force: Default::default(),
                        protect: None,
                        parent: None,
                        strategies: Vec::new(),
                        ts_ns,
                        reason: why.clone(),
                        cause: work.cause.clone(),
                    };
                    let mut tracked = Tracked::new(order.clone());
                    tracked.apply(Event::Send).expect("Invariant: a new order can be sent");
                    self.state.orders.insert(id.clone(), tracked);
                    work.out.push(Out::Sending(Sending { v: Version, order, ts_ns, cause: work.cause.clone() }));
                    let liquidity = schemas::exec::Liquidity::Taker;
                    let venue_order_id = id.clone();
                    work.reports.push_front(Report::Filled { id: id.clone(), price, qty, fee, liquidity, why, ts_ns });
                    work.reports.push_front(Report::Acked { id, venue_order_id, ts_ns });
                }
                Report::Funding { venue, symbol, mark, rate, amount, ts_ns } => {
                    let held = self.state.positions.held(&venue, &symbol);
                    let (account, cause) = (self.account.clone(), work.cause.clone());
                    let fact = Funding { v: Version, account, venue, symbol, held, mark, rate, amount, ts_ns, cause };
                    work.out.push(Out::Funding(fact));
                }
            }
        }
    }

    fn on_fill(&mut self, report: Report, work: &mut Work<'_>) {
        let Report::Filled { id, price, qty, fee, liquidity, why, ts_ns } = report else { return };
        let Some(order) = self.moved(&id, Event::Fill(qty)) else { return };
        let tracked = &self.state.orders[&id];
        let (n, left, state) = (tracked.fills(), tracked.left(), tracked.state());
        let fill = Fill {
            v: Version,
            account: order.account.clone(),
            id,
            n,
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            side: order.side,
            price,
            qty,
            fee,
            liquidity,
            reduce_only: order.reduce_only,
            left,
            why,
            ts_ns,
            cause: work.cause.clone(),
        };
        self.state.positions.apply_fill(&fill);
        work.out.push(Out::Fill(fill));
        if state == State::Filled {
            self.done(&order, DoneState::Filled, String::new(), ts_ns, work);
        }
        // While an order still closes the other side, that side's own bracket stays.
        let held = self.held(&order.venue, &order.symbol);
        if let Some(asked) = Bracket::of(&order).filter(|asked| asked.fits(held)) {
            self.adopt(asked);
        }
        self.protect(&order.venue, &order.symbol, ts_ns, work);
    }

    /// An entry's bracket replaces the prices of the one before. The ids of what works stay: the plan replaces or
    /// cancels those orders, also where the position has turned.
    fn adopt(&mut self, mut asked: Bracket) {
        let brackets = self.state.brackets.entry(asked.parent.venue.clone()).or_default();
        let symbol = asked.parent.symbol.clone();
        if let Some(now) = brackets.get(&symbol) {
            if now.parent.id == asked.parent.id {
                return;
            }
            asked.stop.id = now.stop.id.clone();
            asked.take.id = now.take.id.clone();
        }
        brackets.insert(symbol, asked);
    }

    /// A venue that refuses a stop leaves the position naked, so the position is closed at the market. A refused
    /// take-profit is only missed. Neither is tried again: the venue would refuse it again.
    fn unprotected(&mut self, refused: &Order, ts_ns: i64, work: &mut Work<'_>) {
        let Some(bracket) = self.state.brackets.get_mut(&refused.venue).and_then(|b| b.get_mut(&refused.symbol)) else {
            return;
        };
        let refused_id = Some(&refused.id);
        if bracket.take.id.as_ref() == refused_id {
            bracket.take = Leg::default();
        }
        if bracket.stop.id.as_ref() != refused_id {
            return;
        }
        bracket.stop = Leg::default();
        let bracket = bracket.clone();
        let held = self.held_at_venue(&refused.venue, &refused.symbol, work);
        if bracket.fits(held) {
            let mut close = bracket.order(OrderKind::Market, self.next_id(work), held.abs(), ts_ns, work.cause.clone());
            close.reason = format!("the venue refused the stop-loss of {}", bracket.parent.id);
            self.send(close, work);
        }
    }

    /// Id of the next order of our own that this input leads to.
    fn next_id(&self, work: &mut Work<'_>) -> String {
        work.made += 1;
        order_id(&Place::new(&self.stream, work.place.seq), work.made - 1)
    }

    /// Makes the protective orders of an instrument what its bracket plans for what is held.
    fn protect(&mut self, venue: &str, symbol: &str, ts_ns: i64, work: &mut Work<'_>) {
        let Some(mut bracket) = self.state.brackets.get_mut(venue).and_then(|b| b.remove(symbol)) else { return };
        let held = self.state.positions.held(venue, symbol);
        for kind in [OrderKind::Stop, OrderKind::TakeProfit] {
            let leg = if kind == OrderKind::Stop { bracket.stop.clone() } else { bracket.take.clone() };
            let id = match bracket.plan(&leg, held, self.working(&leg, bracket.side)) {
                Action::Keep => leg.id.filter(|id| self.state.orders.contains_key(id)),
                Action::Cancel => {
                    self.cancel_leg(&leg, "the position that it protects is gone", ts_ns, work);
                    None
                }
                Action::Replace { qty, trigger } => {
                    let id = self.next_id(work);
                    let mut order = bracket.order(kind, id.clone(), qty, ts_ns, work.cause.clone());
                    order.trigger = Some(trigger);
                    self.send(order, work);
                    self.cancel_leg(&leg, "replaced: the position or the price that it protects changed", ts_ns, work);
                    Some(id)
                }
            };
            match kind {
                OrderKind::Stop => bracket.stop.id = id,
                _ => bracket.take.id = id,
            }
        }
        // It dies with the position; an entry that fills again later asks for it again.
        if bracket.fits(held) {
            self.state.brackets.entry(venue.to_owned()).or_default().insert(symbol.to_owned(), bracket);
        }
    }

    fn cancel_leg(&mut self, leg: &Leg, reason: &str, ts_ns: i64, work: &mut Work<'_>) {
        if let Some(id) = &leg.id {
            self.cancel(id, ts_ns, reason, work);
        }
    }

    /// The leg's order while it is open and on the bracket's side.
    fn working(&self, leg: &Leg, side: schemas::Side) -> Option<Working> {
        let tracked = self.state.orders.get(leg.id.as_ref()?)?;
        let order = tracked.order();
        // An order of the other side is what is left of a position that turned: to be replaced or cancelled.
        let left = if order.side == side { tracked.left() } else { Qty::ZERO };
        Some(Working { left, trigger: order.trigger? })
    }

    /// Applies an event; `None` when the order is unknown or does not admit it, and then nothing is said.
    fn moved(&mut self, id: &str, event: Event) -> Option<Order> {
        let tracked = self.state.orders.get_mut(id)?;
        tracked.apply(event).ok()?;
        Some(tracked.order().clone())
    }

    fn done(&mut self, order: &Order, state: DoneState, reason: String, ts_ns: i64, work: &mut Work<'_>) {
        let filled = self.forget(&order.id);
        work.out.push(Out::Done(Done {
            v: Version,
            account: order.account.clone(),
            id: order.id.clone(),
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            state,
            filled,
            reason,
            ts_ns,
            cause: work.cause.clone(),
        }));
    }

    /// The order leaves the open ones; its id is remembered. What it filled.
    fn forget(&mut self, id: &str) -> Qty {
        let filled = self.state.orders.remove(id).map_or(Qty::ZERO, |tracked| tracked.filled());
        self.remember(id.to_owned());
        filled
    }
    fn remember(&mut self, id: String) {
        if self.state.ended.len() >= self.ended_ids_max
            && let Some(oldest) = self.state.ended.pop_front()
        {
            self.state.ended_set.remove(&oldest);
        }
        self.state.ended_set.insert(id.clone());
        self.state.ended.push_back(id);
    }
    fn known(&self, id: &str) -> bool {
        self.state.orders.contains_key(id) || self.state.ended_set.contains(id)
    }

    /// Folds a pack of trades; the same as [`Core::handle`] with it, for drivers in the same process.
    pub fn on_trades(&mut self, place: &Place, pack: &Trades, out: &mut Vec<Out>) {
        let mut work = Work { place, cause: place.cause(0), made: 0, reports: VecDeque::new(), out };
        let (venue, symbol) = (&pack.venue, &pack.symbol);
        let Some(newest) = pack.len().checked_sub(1) else { return };
        let mut i = self.first_of(venue, symbol, pack.len());
        let watched = i == 0;
        while i <= newest {
            if watched {
                let held = self.state.positions.held(venue, symbol);
                // The newest is told in any case: its price is what the market knows.
                let next = self.venue.first_told(pack, i, held).min(newest);
                if let Some(passed_ns) = pack.ts_ns[i..next].iter().copied().max() {
                    self.state.watermark_ns = self.state.watermark_ns.max(passed_ns);
                    self.venue.pass(venue, symbol, passed_ns);
                }
                i = next;
            }
            work.cause = place.cause(i);
            let price = schemas::PriceM(pack.price[i]).price(pack.scale);
            let size = schemas::QtyM(pack.size[i]).qty(pack.scale);
            let side = if pack.side.as_bytes()[i] == b'b' { schemas::Side::Buy } else { schemas::Side::Sell };
            let tick = Tick::Trade { id: pack.id[i], price, size, side };
            self.on_tick(venue, symbol, pack.ts_ns[i], tick, &mut work);
            i += 1;
        }
    }

    /// Every tick of a pack where something may follow from it, else the newest alone.
    fn first_of(&self, venue: &str, symbol: &str, len: usize) -> usize {
        let held = self.state.positions.held(venue, symbol);
        if self.venue.watches(venue, symbol, held) { 0 } else { len.saturating_sub(1) }
    }
}

impl Core for ExecutorCore {
    type In = In;
    type Out = Out;
    const CODE_VERSION: u32 = 1;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        let mut work = Work { place, cause: place.cause(0), made: 0, reports: VecDeque::new(), out };
        match input {
            In::Order(order) => {
                self.state.watermark_ns = self.state.watermark_ns.max(order.ts_ns);
                self.on_order(*order, &mut work);
            }
            In::Cancel(cancel) if cancel.account == self.account => {
                self.cancel(&cancel.id, cancel.ts_ns, &cancel.reason, &mut work);
                self.settle(&mut work);
            }
            In::Cancel(_) => {}
            In::State(state) => self.on_state(state, &mut work),
            In::Instrument(instrument) => self.venue.instrument(&instrument),
            In::Trades(pack) => self.on_trades(place, &pack, work.out),
            In::Quotes(pack) => {
                let from = self.first_of(&pack.venue, &pack.symbol, pack.len());
                for (i, quote) in pack.iter().enumerate().skip(from) {
                    work.cause = place.cause(i);
                    let level = |side: Option<(schemas::PriceM, schemas::QtyM)>| {
                        side.map(|(p, q)| (p.price(pack.scale), q.qty(pack.scale)))
                    };
                    let tick = Tick::Quote { bid: level(quote.bid), ask: level(quote.ask) };
                    self.on_tick(&pack.venue, &pack.symbol, quote.ts.0, tick, &mut work);
                }
            }
            In::Books(pack) => {
                // A book is the sum of its messages, so each is told.
                for (i, update) in pack.items.iter().enumerate() {
                    work.cause = place.cause(i);
                    self.on_tick(&pack.venue, &pack.symbol, update.ts_ns, Tick::Book(update, pack.scale), &mut work);
                }
            }
            In::Tickers(pack) => {
                for (i, ticker) in pack.items.iter().enumerate() {
                    work.cause = place.cause(i);
                    self.on_tick(&pack.venue, &pack.symbol, ticker.ts_ns, Tick::Ticker(ticker), &mut work);
                }
            }
            In::Candle(candle) if candle.tf.parse() == Ok(self.candle_timeframe) => {
                // A forming candle is known at its open, a closed one at its close.
                let forming = candle.closed_by == schemas::market::ClosedBy::Open;
                let ts_ns = if forming { candle.open_ns } else { candle.close_ns };
                self.on_tick(&candle.venue, &candle.symbol, ts_ns, Tick::Candle(&candle), &mut work);
            }
            In::Candle(_) => {}
            In::Clock(clock) => {
                self.state.watermark_ns = self.state.watermark_ns.max(clock.watermark_ns);
                // A desk hears the clock of one partition of a venue; it is the clock of them all.
                for symbol in self.venue.waiting(&clock.venue) {
                    self.on_tick(&clock.venue, &symbol, clock.watermark_ns, Tick::Clock, &mut work);
                }
            }
            In::Gap(gap) if gap.channel == "book" => {
                self.on_tick(&gap.venue, &gap.symbol, gap.from_ns, Tick::BookGap, &mut work);
            }
            In::Gap(_) => {}
            In::Live(report) if report.account == self.account => {
                self.state.watermark_ns = self.state.watermark_ns.max(report.ts_ns);
                let mut reports = Vec::new();
                self.venue.live(&report, &mut reports);
                work.take(reports);
                self.settle(&mut work);
            }
            In::Live(_) => {}
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&(self.state.clone(), self.venue.save()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        let (mut state, venue): (CoreState, Vec<u8>) = schemas::wire::decode(state)?;
        self.venue.restore(&venue)?;
        state.ended_set = state.ended.iter().cloned().collect();
        self.state = state;
        Ok(())
    }

    fn watermark(&self) -> Option<Nanos> {
        (self.state.watermark_ns > 0).then_some(Nanos(self.state.watermark_ns))
    }
}

#[cfg(test)]
mod tests;
