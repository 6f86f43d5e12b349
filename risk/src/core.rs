//! Risk of one account: desk facts in; decisions, orders, refusals, positions and the account's state out.
//!
//! The files of this folder are one core: `core.rs` hears, `core/decide.rs` turns votes into orders, `core/close.rs`
//! closes what must be closed and takes back what hangs, `core/report.rs` says what is held and earned.

use std::collections::{BTreeMap, BTreeSet};

use schemas::config::ConfigError;
use schemas::desk::{AccountFact, Cancel, DeskState, Intent, Order, PositionFact, Refusal, TradingState, order_id};
use schemas::exec::{Fill, Funding};
use schemas::signal::Signal;
use schemas::subject::stream;
use schemas::{Cause, Core, Fact, Fault, Instrument, Nanos, Notional, Place, Qty, Speak, WireError};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::book::Book;
use crate::config::Config;
pub use crate::hear::{In, Seen, Tick};
use crate::mark::{Mark, Now, Source};
use crate::policy::Policy;
use crate::record::Records;
use crate::vote::{Heard, News, voter};
use crate::working::{FillsSeen, Orders};
use close::Exit;

mod close;
mod decide;
mod report;
#[cfg(test)]
mod tests;

/// What risk says, and all that it can say.
#[derive(Clone, PartialEq, Debug)]
pub enum Out {
    Intent(Box<Intent>),
    Order(Box<Order>),
    Cancel(Cancel),
    Refusal(Refusal),
    Position(PositionFact),
    Account(AccountFact),
    State(DeskState),
}

impl Speak for Out {
    fn subject(&self) -> String {
        match self {
            Self::Intent(f) => f.subject(),
            Self::Order(f) => f.subject(),
            Self::Cancel(f) => f.subject(),
            Self::Refusal(f) => f.subject(),
            Self::Position(f) => f.subject(),
            Self::Account(f) => f.subject(),
            Self::State(f) => f.subject(),
        }
    }
    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Intent(f) => f.encode(),
            Self::Order(f) => f.encode(),
            Self::Cancel(f) => f.encode(),
            Self::Refusal(f) => f.encode(),
            Self::Position(f) => f.encode(),
            Self::Account(f) => f.encode(),
            Self::State(f) => f.encode(),
        }
    }
    /// A state of our own is shown in KV `cfg`, where operators write theirs. What an operator wrote stands there
    /// already: writing it back could overwrite the next one.
    fn mirror(&self) -> Option<(String, String)> {
        match self {
            Self::State(state) if state.by != OPERATOR => {
                Some((stream::KV_CONFIG.to_owned(), stream::desk_state_key(&state.account)))
            }
            _ => None,
        }
    }
}

const OPERATOR: &str = "operator";
/// Timeouts are looked at no more often than this.
const SWEEP_NS: i64 = 100_000_000;

/// Venue and symbol.
type Key = (String, String);

/// See the module.
pub struct RiskCore {
    account: String,
    config: Config,
    policy: &'static dyn Policy,
    state: State,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct State {
    now: Now,
    account: Account,
    /// By venue, then symbol: market data finds its book without a copy of its name.
    books: BTreeMap<String, BTreeMap<String, Book>>,
    books_len: usize,
    /// Instruments that are held.
    open: BTreeSet<Key>,
    orders: Orders,
    exits: BTreeMap<Key, Exit>,
    records: Records,
    fills: FillsSeen,
    swept_ns: Option<i64>,
}

impl State {
    /// `None`: there is no room for another instrument.
    fn book_or_new(&mut self, venue: &str, symbol: &str, instruments_max: usize) -> Option<&mut Book> {
        let known = self.books.get(venue).is_some_and(|books| books.contains_key(symbol));
        if !known {
            if self.books_len >= instruments_max {
                return None;
            }
            self.books_len += 1;
            self.books.entry(venue.to_owned()).or_default().insert(symbol.to_owned(), Book::default());
        }
        self.books.get_mut(venue)?.get_mut(symbol)
    }
}

/// One input's work: where it stands and what follows from it.
struct Work<'a> {
    place: &'a Place,
    cause: Cause,
    orders: u16,
    out: &'a mut Vec<Out>,
}

impl Work<'_> {
    fn order_id(&mut self) -> String {
        self.orders += 1;
        order_id(self.place, self.orders - 1)
    }
}

impl RiskCore {
    /// Error: `config` does not pass [`Config::check`].
    pub fn new(account: &str, config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            account: account.to_owned(),
            policy: crate::policy::by_id(&config.policy.name)?,
            config: config.clone(),
            state: State {
                now: Now::default(),
                account: Account::new(config.initial_cash),
                books: BTreeMap::new(),
                books_len: 0,
                open: BTreeSet::new(),
                orders: Orders::default(),
                exits: BTreeMap::new(),
                records: Records::default(),
                fills: FillsSeen::default(),
                swept_ns: None,
            },
        })
    }

    /// Signed size held, from fills.
    pub fn held(&self, venue: &str, symbol: &str) -> Qty {
        self.book(venue, symbol).map_or(Qty::ZERO, Book::held)
    }
    /// Cash and what is held at its marks.
    pub fn equity(&self) -> Notional {
        self.state.account.cash + self.worth()
    }
    pub fn trading(&self) -> TradingState {
        self.state.account.trading
    }
    /// Ids of the orders on their way.
    pub fn working(&self) -> impl Iterator<Item = &str> {
        self.state.orders.all().map(|w| w.order.id.as_str())
    }

    fn on_tick(&mut self, tick: Tick, work: &mut Work<'_>) {
        self.advance(tick.ts_ns, work);
        let now = self.state.now;
        let Some(book) = self.state.book_or_new(&tick.venue, &tick.symbol, self.config.instruments_max) else { return };
        match tick.seen {
            Seen::Trade(price) => book.marks.see(Source::Trade, price, tick.ts_ns, &now),
            Seen::Candle(price) => book.marks.see(Source::Candle, price, tick.ts_ns, &now),
            Seen::Quote { bid, ask } => book.marks.see_quote(bid, ask, tick.ts_ns, &now),
            Seen::Ticker { mark, bid, ask, last } => {
                if let Some(mark) = mark {
                    book.marks.see(Source::Mark, mark, tick.ts_ns, &now);
                }
                if let (Some(bid), Some(ask)) = (bid, ask) {
                    book.marks.see_quote(Some(bid), Some(ask), tick.ts_ns, &now);
                }
                if let Some(last) = last {
                    book.marks.see(Source::Trade, last, tick.ts_ns, &now);
                }
            }
        }
        if !book.position.is_flat() {
            self.revalue(tick.ts_ns, work);
        }
        self.elapse(work);
    }

    fn on_signal(&mut self, signal: Signal, work: &mut Work<'_>) {
        let now_ns = self.decision_ns(signal.ts_ns);
        let heard = Heard::of(&signal, work.cause.clone());
        let config = &self.config;
        let Some(book) = self.state.book_or_new(&signal.venue, &signal.symbol, config.instruments_max) else { return };
        let news = book.votes.put(voter(&signal), heard, now_ns, config);
        if news != News::Nothing {
            self.decide(&signal.venue, &signal.symbol, news == News::Changed, now_ns, work);
        }
    }

    fn on_instrument(&mut self, instrument: Instrument) {
        let (venue, symbol) = (instrument.venue.clone(), instrument.symbol.clone());
        if let Some(book) = self.state.book_or_new(&venue, &symbol, self.config.instruments_max) {
            book.instrument = Some(instrument);
        }
    }

    fn on_fill(&mut self, fill: &Fill, work: &mut Work<'_>) {
        if fill.account != self.account || !self.state.fills.is_new(&fill.id, fill.n, self.config.fills_remembered_max)
        {
            return;
        }
        let key = (fill.venue.clone(), fill.symbol.clone());
        let now = self.state.now;
        // Strategies that asked for it; a protective order is nobody's.
        let mut strategies = Vec::new();
        if let Some(working) = self.state.orders.get_mut(&fill.id) {
            strategies.clone_from(&working.order.strategies);
            working.left -= fill.qty;
            if working.left <= Qty::ZERO || fill.left.is_zero() {
                self.state.orders.remove(&fill.id);
            }
        }
        // A fill is the truth even where there is no room for another instrument.
        let book = self.state.books.entry(key.0.clone()).or_default().entry(key.1.clone()).or_insert_with(|| {
            self.state.books_len += 1;
            Book::default()
        });
        let contract = book.contract();
        let realised = book.position.realised();
        let moved = book.position.apply_fill(fill, contract);
        book.marks.see_fill(fill.price, fill.ts_ns, &now);
        if let Some(trade) = &moved.closed {
            let openers = std::mem::take(&mut book.openers);
            self.state.records.closed(
                &openers,
                trade,
                &self.config.cool_down,
                &self.config.weights,
                self.config.strategies_max,
            );
        }
        if !book.position.is_flat() && !fill.reduce_only {
            for strategy in strategies {
                if !book.openers.contains(&strategy) {
                    book.openers.push(strategy);
                }
            }
        }
        let account = &mut self.state.account;
        account.cash += moved.cash;
        account.fees += fill.fee;
        account.realised += book.position.realised() - realised;
        if book.position.is_flat() {
            self.state.open.remove(&key);
        } else {
            self.state.open.insert(key.clone());
        }
        self.say_position(&key, fill.ts_ns, work);
        self.revalue(fill.ts_ns, work);
        self.say_account(fill.ts_ns, work);
        self.after_fill(&key, work);
    }

    fn on_funding(&mut self, funding: &Funding, work: &mut Work<'_>) {
        if funding.account != self.account {
            return;
        }
        let Some(book) = self.book_mut(&funding.venue, &funding.symbol) else { return };
        book.position.apply_funding(funding);
        self.state.account.cash += funding.amount;
        self.state.account.funding += funding.amount;
        self.say_position(&(funding.venue.clone(), funding.symbol.clone()), funding.ts_ns, work);
        self.revalue(funding.ts_ns, work);
        self.say_account(funding.ts_ns, work);
    }

    /// Event time goes on, never back.
    fn advance(&mut self, ts_ns: i64, work: &mut Work<'_>) {
        self.state.now.advance(ts_ns);
        if self.state.account.turn_of_day(ts_ns) {
            self.day_began(work);
        }
    }

    /// What the passing of time alone brings: the minute's account, timeouts, closes to be tried again.
    fn elapse(&mut self, work: &mut Work<'_>) {
        let Some(now_ns) = self.state.now.ts_ns else { return };
        if self.state.swept_ns.is_none_or(|then| now_ns - then >= SWEEP_NS) {
            self.state.swept_ns = Some(now_ns);
            self.revalue(now_ns, work);
            self.sweep(now_ns, work);
        }
        if self.state.account.turn_of_minute(now_ns) {
            self.revalue(now_ns, work);
            self.say_account(now_ns, work);
        }
    }

    /// The time of a decision: the newest market data or the signal's own time, which may be a little ahead of it.
    fn decision_ns(&self, signal_ts_ns: i64) -> i64 {
        let Some(now_ns) = self.state.now.ts_ns else { return signal_ts_ns };
        let ahead_ns_max = i64::from(self.config.votes.ahead_ms_max) * 1_000_000;
        if signal_ts_ns.saturating_sub(now_ns) > ahead_ns_max { now_ns } else { now_ns.max(signal_ts_ns) }
    }

    fn book(&self, venue: &str, symbol: &str) -> Option<&Book> {
        self.state.books.get(venue)?.get(symbol)
    }
    fn book_mut(&mut self, venue: &str, symbol: &str) -> Option<&mut Book> {
        self.state.books.get_mut(venue)?.get_mut(symbol)
    }
    fn mark(&self, book: &Book) -> Option<Mark> {
        let age_ns_max = i64::from(self.config.limits.stale_mark.age_ms_max) * 1_000_000;
        book.marks.best(&self.config.mark_sources, age_ns_max, &self.state.now)
    }
}

impl Core for RiskCore {
    type In = In;
    type Out = Out;
    const CODE_VERSION: u32 = 1;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        let work = &mut Work { place, cause: place.cause(0), orders: 0, out };
        match input {
            In::Tick(tick) => self.on_tick(tick, work),
            In::Clock(clock) => {
                self.state.now.advance_wall(clock.wall_ns);
                self.advance(clock.watermark_ns, work);
                self.elapse(work);
            }
            In::Signal(signal) => self.on_signal(*signal, work),
            In::Gap(gap) => {
                let config = &self.config;
                if gap.channel == "trade"
                    && let Some(book) = self.state.book_or_new(&gap.venue, &gap.symbol, config.instruments_max)
                {
                    book.gaps.add(gap.from_ns, gap.to_ns, config.gaps_max);
                }
            }
            In::Instrument(instrument) => self.on_instrument(*instrument),
            In::State(state) => self.on_state(&state, work),
            In::Fill(fill) => self.on_fill(&fill, work),
            In::Funding(funding) => self.on_funding(&funding, work),
            In::Reject(reject) => self.on_end(&reject.account, &reject.id, work),
            In::Done(done) => self.on_end(&done.account, &done.id, work),
            // An order counts as on its way from the moment it is said; that the venue took it changes nothing.
            In::Ack(_) => {}
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        // With field names: an instrument leaves out what its venue does not state, which places alone cannot tell.
        schemas::wire::encode(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = schemas::wire::decode(state)?;
        Ok(())
    }

    fn watermark(&self) -> Option<Nanos> {
        self.state.now.ts_ns.map(Nanos)
    }
}
