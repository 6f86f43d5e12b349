//! What ends: closes that are tried until nothing is held, orders that hang, and the account's state.
//!
//! Invariant R-8: HALTED becomes ACTIVE by an operator only.

use schemas::desk::{Cancel, DeskState, Order, OrderKind, TimeInForce, TradingState};
use schemas::{Cause, Qty, Side, Version};
use serde::{Deserialize, Serialize};

use super::{Key, OPERATOR, Out, RiskCore, Work};
use crate::account::Breach;
use crate::limit::daily_loss::{DailyLoss, Then};
use crate::limit::{self, Broken, By};

/// Reason codes of bounds that are not limits of an order: `[orders] closes_max` and `cancels_max`.
const CLOSES_MAX: &str = "closes_max";
const CANCELS_MAX: &str = "cancels_max";

/// A position that is to be closed, until it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Exit {
    by: By,
    /// Orders said since the last fill.
    tries: u32,
    /// No order before this event time.
    next_ns: i64,
    reason: String,
    strategies: Vec<String>,
}

impl RiskCore {
    /// A close is decided or on its way.
    pub(super) fn is_closing(&self, venue: &str, symbol: &str) -> bool {
        self.state.exits.contains_key(&(venue.to_owned(), symbol.to_owned()))
            || self.state.orders.of(venue, symbol).any(|w| !w.is_entry())
    }

    /// Closes all that is held of an instrument, as often as it takes within the bound.
    #[expect(clippy::too_many_arguments, reason = "one close has one caller's whole story")]
    pub(super) fn close(
        &mut self,
        venue: &str,
        symbol: &str,
        by: By,
        reason: &str,
        strategies: &[String],
        now_ns: i64,
        work: &mut Work<'_>,
    ) {
        let key = (venue.to_owned(), symbol.to_owned());
        let exit = self.state.exits.entry(key.clone()).or_insert_with(|| Exit {
            by,
            tries: 0,
            next_ns: now_ns,
            reason: reason.to_owned(),
            strategies: strategies.to_vec(),
        });
        if by != By::Strategy {
            // It goes on in a halted account, and at once, whatever a strategy's close has tried.
            *exit = Exit { by, tries: 0, next_ns: now_ns, reason: reason.to_owned(), strategies: vec![] };
        }
        self.drive(&key, now_ns, work);
    }

    /// Orders the close of `key` when nothing of it is on its way and it is time.
    fn drive(&mut self, key: &Key, now_ns: i64, work: &mut Work<'_>) {
        let Some(exit) = self.state.exits.get(key) else { return };
        let Some(book) = self.book(&key.0, &key.1).filter(|book| !book.position.is_flat()) else {
            self.state.exits.remove(key);
            return;
        };
        if now_ns < exit.next_ns || self.state.orders.of(&key.0, &key.1).any(|w| !w.is_entry()) {
            return;
        }
        let order = self.close_order(&key.0, &key.1, book.held(), &exit.strategies, now_ns, &exit.reason, &work.cause);
        let bound = self.config.orders.closes_max;
        if exit.tries >= bound {
            let reason = format!("{} close orders without a fill: an operator is needed", exit.tries);
            self.refuse(CLOSES_MAX, Broken::new(exit.tries, bound, reason), &order, work);
            self.state.exits.remove(key);
            return;
        }
        let asked = self.asked(book, order, exit.by, now_ns, None, None, false);
        if let Some((id, broken)) = limit::first_broken(&asked, &self.config.limits) {
            self.refuse(id, broken, &asked.order, work);
            self.state.exits.remove(key);
            return;
        }
        let retry_ns = i64::from(self.config.orders.close_retry_ms) * 1_000_000;
        if let Some(exit) = self.state.exits.get_mut(key) {
            exit.tries += 1;
            exit.next_ns = now_ns.saturating_add(retry_ns);
        }
        self.say_order(asked.order, work);
    }

    /// A market order that takes off `held` and nothing more.
    #[expect(clippy::too_many_arguments, reason = "the parts of one order")]
    pub(super) fn close_order(
        &self,
        venue: &str,
        symbol: &str,
        held: Qty,
        strategies: &[String],
        now_ns: i64,
        reason: &str,
        cause: &Cause,
    ) -> Order {
        Order {
            v: Version,
            account: self.account.clone(),
            id: String::new(),
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            side: if held.signum() > 0 { Side::Sell } else { Side::Buy },
            kind: OrderKind::Market,
            qty: held.abs(),
            limit: None,
            trigger: None,
            reduce_only: true,
            post_only: false,
            time_in_force: TimeInForce::Gtc,
            protect: None,
            parent: None,
            strategies: strategies.to_vec(),
            ts_ns: now_ns,
            reason: reason.to_owned(),
            cause: cause.clone(),
        }
    }

    /// Says a cancellation, once: what is not answered is said again by `sweep`.
    pub(super) fn cancel(&mut self, id: &str, reason: &str, now_ns: i64, work: &mut Work<'_>) {
        match self.state.orders.get(id) {
            Some(working) if working.cancels == 0 => self.say_cancel(id, reason, now_ns, work),
            _ => {}
        }
    }

    fn say_cancel(&mut self, id: &str, reason: &str, now_ns: i64, work: &mut Work<'_>) {
        let Some(working) = self.state.orders.get_mut(id) else { return };
        working.cancels += 1;
        working.said_ns = now_ns;
        work.out.push(Out::Cancel(Cancel {
            v: Version,
            account: self.account.clone(),
            id: id.to_owned(),
            venue: working.order.venue.clone(),
            symbol: working.order.symbol.clone(),
            ts_ns: now_ns,
            reason: reason.to_owned(),
            cause: work.cause.clone(),
        }));
    }

    fn cancel_entries(&mut self, reason: &str, now_ns: i64, work: &mut Work<'_>) {
        let entries: Vec<String> =
            self.state.orders.all().filter(|w| w.is_entry()).map(|w| w.order.id.clone()).collect();
        for id in entries {
            self.cancel(&id, reason, now_ns, work);
        }
    }

    /// Looks at what hangs: orders that have not ended in time, and closes whose time has come.
    pub(super) fn sweep(&mut self, now_ns: i64, work: &mut Work<'_>) {
        let bounds = &self.config.orders;
        let (cancels_max, retry_ms) = (bounds.cancels_max, bounds.cancel_retry_ms);
        let hanging = |w: &&crate::working::Working| {
            let allowed_ms = match (w.cancels, w.is_entry()) {
                (0, true) => bounds.entry_timeout_ms,
                (0, false) => bounds.close_timeout_ms,
                _ => retry_ms,
            };
            w.cancels <= cancels_max && now_ns.saturating_sub(w.said_ns) > i64::from(allowed_ms) * 1_000_000
        };
        let hanging: Vec<_> = self.state.orders.all().filter(hanging).map(|w| (w.order.clone(), w.cancels)).collect();
        for (order, cancels) in hanging {
            if cancels < cancels_max {
                let reason =
                    if cancels == 0 { "it has not ended in time" } else { "the cancellation was not answered" };
                self.say_cancel(&order.id, reason, now_ns, work);
                continue;
            }
            // Its instrument opens nothing more until the executor says what became of it.
            let mut order = order;
            order.ts_ns = now_ns;
            let broken =
                Broken::new(cancels, cancels_max, format!("order {} hangs: no cancellation was answered", order.id));
            self.refuse(CANCELS_MAX, broken, &order, work);
            if let Some(working) = self.state.orders.get_mut(&order.id) {
                working.cancels += 1;
            }
        }
        let exits: Vec<Key> = self.state.exits.keys().cloned().collect();
        for key in exits {
            self.drive(&key, now_ns, work);
        }
    }

    /// A fill of this instrument has moved the position.
    pub(super) fn after_fill(&mut self, key: &Key, work: &mut Work<'_>) {
        let now_ns = self.now_ns();
        if let Some(exit) = self.state.exits.get_mut(key) {
            exit.tries = 0;
        } else if let Some(by) = self.state.account.flatten
            && self.state.open.contains(key)
        {
            // An entry that was filled before its cancellation came.
            self.close(&key.0, &key.1, by, "everything is being closed", &[], now_ns, work);
        }
        self.drive(key, now_ns, work);
        self.settle(key, work);
    }

    /// An order was rejected or is done.
    pub(super) fn on_end(&mut self, account: &str, id: &str, work: &mut Work<'_>) {
        if account != self.account {
            return;
        }
        let Some(ended) = self.state.orders.remove(id) else { return };
        let key = (ended.order.venue.clone(), ended.order.symbol.clone());
        if ended.is_entry()
            && ended.left == ended.order.qty
            && let Some(book) = self.book_mut(&key.0, &key.1)
        {
            // Nothing came of it: the next vote for the same side may try again.
            book.acted = None;
        }
        self.settle(&key, work);
    }

    /// Makes the decision that waited, and ends the closing of everything, when nothing is on its way any more.
    fn settle(&mut self, key: &Key, work: &mut Work<'_>) {
        let quiet = self.state.orders.of(&key.0, &key.1).next().is_none() && !self.state.exits.contains_key(key);
        if self.state.account.flatten.is_some()
            && self.state.open.is_empty()
            && !self.state.orders.all().any(|w| w.is_entry())
        {
            self.state.account.flatten = None;
        }
        let Some(book) = self.book_mut(&key.0, &key.1) else { return };
        if quiet && std::mem::take(&mut book.waits) {
            let now_ns = self.now_ns();
            self.decide(&key.0, &key.1, false, now_ns, work);
        }
    }

    /// The newest event time; 1970 before any market data.
    fn now_ns(&self) -> i64 {
        self.state.now.ts_ns.unwrap_or_default()
    }

    /// Takes the worth of what is held and does what a loss asks for.
    pub(super) fn revalue(&mut self, ts_ns: i64, work: &mut Work<'_>) {
        let now_ns = self.state.now.ts_ns.unwrap_or(ts_ns);
        let equity = self.state.account.cash + self.worth();
        let Some(Breach { code, broken }) = self.state.account.revalue(equity, now_ns, &self.config.limits) else {
            return;
        };
        let then = match code {
            DailyLoss::ID if self.config.limits.daily_loss.then == Then::Reducing => TradingState::Reducing,
            _ => TradingState::Halted,
        };
        let stricter = match self.state.account.trading {
            TradingState::Active => true,
            TradingState::Reducing => then == TradingState::Halted,
            TradingState::Halted => false,
        };
        if !stricter {
            return;
        }
        let reason = format!("{code}: {}", broken.reason);
        self.state.account.trading = then;
        self.state.account.by = code.to_owned();
        self.cancel_entries(&reason, now_ns, work);
        let everything = code != DailyLoss::ID;
        if everything {
            self.close_everything(By::Emergency, &reason, now_ns, work);
        } else if then == TradingState::Halted {
            self.drop_strategy_exits();
        }
        self.say_state(everything, &broken.reason, now_ns, work);
    }

    fn close_everything(&mut self, by: By, reason: &str, now_ns: i64, work: &mut Work<'_>) {
        let waits_for_entries = self.state.orders.all().any(|w| w.is_entry());
        self.state.account.flatten = (waits_for_entries || !self.state.open.is_empty()).then_some(by);
        let open: Vec<Key> = self.state.open.iter().cloned().collect();
        for (venue, symbol) in open {
            self.close(&venue, &symbol, by, reason, &[], now_ns, work);
        }
    }

    fn drop_strategy_exits(&mut self) {
        self.state.exits.retain(|_, exit| exit.by != By::Strategy);
    }

    /// An operator's word; it wins over ours. What carries a cause is the mirror of our own.
    pub(super) fn on_state(&mut self, state: &DeskState, work: &mut Work<'_>) {
        if state.account != self.account || state.cause.is_some() {
            return;
        }
        let now_ns = self.state.now.ts_ns.unwrap_or(state.ts_ns);
        let reason = if state.reason.is_empty() { "by an operator" } else { &state.reason };
        self.state.account.trading = state.state;
        self.state.account.by = OPERATOR.to_owned();
        match state.state {
            TradingState::Active => {
                self.state.account.rebase();
                self.give_up_closing_everything();
            }
            TradingState::Reducing => {
                self.give_up_closing_everything();
                self.cancel_entries(reason, now_ns, work);
            }
            // An emergency close that is under way goes on.
            TradingState::Halted => {
                self.drop_strategy_exits();
                self.cancel_entries(reason, now_ns, work);
            }
        }
        if state.flatten {
            self.cancel_entries(reason, now_ns, work);
            self.close_everything(By::Operator, reason, now_ns, work);
        }
        self.say_state(state.flatten, reason, now_ns, work);
    }

    fn give_up_closing_everything(&mut self) {
        self.state.account.flatten = None;
        self.state.exits.retain(|_, exit| exit.by == By::Strategy);
    }

    /// A REDUCING for the day's loss ends with the day.
    pub(super) fn day_began(&mut self, work: &mut Work<'_>) {
        let account = &mut self.state.account;
        if account.trading == TradingState::Reducing && account.by == DailyLoss::ID {
            account.trading = TradingState::Active;
            let now_ns = self.now_ns();
            self.say_state(false, "a new day", now_ns, work);
        }
    }

    fn say_state(&mut self, flatten: bool, reason: &str, ts_ns: i64, work: &mut Work<'_>) {
        work.out.push(Out::State(DeskState {
            v: Version,
            account: self.account.clone(),
            state: self.state.account.trading,
            flatten,
            by: self.state.account.by.clone(),
            reason: reason.to_owned(),
            ts_ns,
            cause: Some(work.cause.clone()),
        }));
    }
}
