//! From votes to an order: the verdict, the size, the limits, and what is said of it.
//!
//! A decision is made at every signal that is not older than the strategy's vote, and when what it waited for has
//! ended. An `Intent` is said when there is something new in it: a vote that is new, changed or had run out; another
//! verdict than the last one said; an order; a refusal by another limit. A signal that only repeats itself renews its
//! vote's time and says nothing.

use schemas::desk::{Intent, Order, OrderKind, Protect, Refusal, TimeInForce, Vote};
use schemas::signal::Stance;
use schemas::{Notional, Qty, Side, Version};

use super::{Out, RiskCore, Work};
use crate::book::{Book, Said};
use crate::config::Resize;
use crate::limit::{self, Asked, Broken, By};
use crate::sizing;
use crate::vote::Heard;
use crate::working::Working;

/// A decision on one instrument, before it is carried out.
struct Decision {
    side: Option<Stance>,
    votes: Vec<Vote>,
    vote_set: String,
    /// Strategies whose counted votes agree.
    strategies: Vec<String>,
    target: Qty,
    reason: String,
    action: Action,
}

enum Action {
    None,
    /// It passed every limit.
    Enter(Box<Order>),
    /// A part of what is held is sold; it passed every limit.
    Reduce(Box<Order>),
    /// All that is held is closed.
    Close,
    /// The decision is made again when what is on its way has ended.
    Wait {
        cancel: Vec<String>,
        close: bool,
    },
    /// The order was refused; `close`: what it would have closed on its way is closed all the same.
    Refuse {
        id: &'static str,
        broken: Broken,
        order: Box<Order>,
        close: bool,
    },
}

/// What a decision looks at.
struct View<'a> {
    book: &'a Book,
    venue: &'a str,
    symbol: &'a str,
    /// The strategy's vote is new, another, or had run out.
    changed: bool,
    now_ns: i64,
    cause: &'a schemas::Cause,
    votes: &'a [Vote],
    strategies: &'a [String],
    vote_set: &'a str,
    reason: &'a str,
}

impl RiskCore {
    pub(super) fn decide(&mut self, venue: &str, symbol: &str, changed: bool, now_ns: i64, work: &mut Work<'_>) {
        let Some(decision) = self.decision(venue, symbol, changed, now_ns, work) else { return };
        self.carry_out(venue, symbol, decision, changed, now_ns, work);
    }

    fn decision(&self, venue: &str, symbol: &str, changed: bool, now_ns: i64, work: &Work<'_>) -> Option<Decision> {
        let book = self.book(venue, symbol)?;
        let votes = book.votes.tally(now_ns, book.held(), &self.state.records, &self.config);
        let verdict = self.policy.decide(&votes, &self.config.policy);
        let agree = |vote: &&Vote| vote.counted && Some(vote.side) == verdict.side;
        let strategies: Vec<String> = votes.iter().filter(agree).map(|vote| vote.strategy.clone()).collect();
        let vote_set = book.vote_set(&votes);
        let here = book.held() + self.state.orders.signed(venue, symbol);
        let (target, reason, action) = match verdict.side {
            None => (here, verdict.reason, Action::None),
            Some(side) => {
                let view = View {
                    book,
                    venue,
                    symbol,
                    changed,
                    now_ns,
                    cause: &work.cause,
                    votes: &votes,
                    strategies: &strategies,
                    vote_set: &vote_set,
                    reason: &verdict.reason,
                };
                let (target, why, action) = match side {
                    Stance::Flat => self.toward_flat(&view),
                    Stance::Long | Stance::Short => self.toward(side, verdict.strength, &view),
                };
                let reason = if why.is_empty() { verdict.reason.clone() } else { format!("{}; {why}", verdict.reason) };
                (target, reason, action)
            }
        };
        Some(Decision { side: verdict.side, votes, vote_set, strategies, target, reason, action })
    }

    fn toward_flat(&self, view: &View<'_>) -> (Qty, String, Action) {
        let held = view.book.held();
        let entries = self.entries(view);
        if !entries.is_empty() {
            let cancel = entries.into_iter().map(|w| w.order.id.clone()).collect();
            let close = !held.is_zero() && !self.is_closing(view.venue, view.symbol);
            return (Qty::ZERO, "the entry is cancelled first".into(), Action::Wait { cancel, close });
        }
        if held.is_zero() {
            return (Qty::ZERO, "nothing is held".into(), Action::None);
        }
        if self.is_closing(view.venue, view.symbol) {
            return (Qty::ZERO, "it is being closed".into(), Action::None);
        }
        let order =
            self.close_order(view.venue, view.symbol, held, view.strategies, view.now_ns, view.reason, view.cause);
        let asked = self.asked(view.book, order, By::Strategy, view.now_ns, None, None, false);
        match limit::first_broken(&asked, &self.config.limits) {
            None => (Qty::ZERO, String::new(), Action::Close),
            Some((id, broken)) => {
                let why = format!("{id}: {}", broken.reason);
                (Qty::ZERO, why, Action::Refuse { id, broken, order: Box::new(asked.order), close: false })
            }
        }
    }

    fn toward(&self, side: Stance, strength: schemas::Fraction, view: &View<'_>) -> (Qty, String, Action) {
        let book = view.book;
        let held = book.held();
        let order_side = if side == Stance::Long { Side::Buy } else { Side::Sell };
        let signed = |qty: Qty| if side == Stance::Long { qty } else { -qty };
        let here = held + self.state.orders.signed(view.venue, view.symbol);
        let agrees = held.signum() == signed(Qty::new(1.into())).signum();
        let stay = |why: &str| (here, why.to_owned(), Action::None);

        let entries = self.entries(view);
        if entries.iter().any(|w| w.order.side == order_side) {
            return stay("an entry is on its way");
        }
        if !entries.is_empty() {
            let cancel = entries.into_iter().map(|w| w.order.id.clone()).collect();
            let close = !held.is_zero() && !agrees && !self.is_closing(view.venue, view.symbol);
            return (here, "the entry of the other side is cancelled first".into(), Action::Wait { cancel, close });
        }
        if self.state.account.flatten.is_some() {
            return stay("everything is being closed");
        }
        if self.is_closing(view.venue, view.symbol) {
            return (here, "waits for the close".into(), Action::Wait { cancel: vec![], close: false });
        }
        if held.is_zero() && book.acted == Some(side) && !view.changed && !self.config.sizing.reenter {
            return stay("it was closed; a new vote opens again");
        }

        let mark = self.mark(book);
        let contract = book.contract();
        let lot = book.instrument.as_ref().map(|i| i.lot).unwrap_or_default();
        let wanted = mark.and_then(|mark| {
            sizing::target(side, strength, self.state.account.equity, mark.price, contract, &self.config)
        });
        // Without a mark or an instrument there is no size: the limits that ask for them refuse an empty order.
        let wanted = wanted.unwrap_or_default().abs();
        let rounded = wanted.round_down_to(lot);

        if agrees {
            let target = signed(rounded);
            let change = (rounded - held.abs()).abs().round_down_to(lot);
            let small = change.get() < rounded.get() * self.config.sizing.resize_share_min.get();
            let grows = rounded > held.abs();
            if !view.changed || small || change.is_zero() || rounded.is_zero() {
                return stay("it is held");
            }
            return match (self.config.sizing.resize, grows) {
                (Resize::Never, _) | (Resize::Shrink, true) => stay("it is held"),
                (Resize::Shrink | Resize::Both, false) => self.reduce(target, order_side.opposite(), change, view),
                (Resize::Both, true) => self.enter(target, order_side, change, view),
            };
        }
        // A size that rounds to nothing is shown as it was, for `min_lot` to refuse.
        let opens = if rounded.is_zero() { wanted } else { rounded };
        self.enter(signed(opens), order_side, held.abs() + opens, view)
    }

    fn reduce(&self, target: Qty, side: Side, qty: Qty, view: &View<'_>) -> (Qty, String, Action) {
        let held = if side == Side::Sell { qty } else { -qty };
        let order =
            self.close_order(view.venue, view.symbol, held, view.strategies, view.now_ns, view.reason, view.cause);
        let asked = self.asked(view.book, order, By::Strategy, view.now_ns, None, None, false);
        match limit::first_broken(&asked, &self.config.limits) {
            None => (target, String::new(), Action::Reduce(Box::new(asked.order))),
            Some((id, broken)) => {
                let why = format!("{id}: {}", broken.reason);
                (target, why, Action::Refuse { id, broken, order: Box::new(asked.order), close: false })
            }
        }
    }

    fn enter(&self, target: Qty, side: Side, qty: Qty, view: &View<'_>) -> (Qty, String, Action) {
        let book = view.book;
        let instrument = book.instrument.as_ref();
        let mark = self.mark(book).map(|mark| mark.price).unwrap_or_default();
        let asking = self.asking(view);
        let (kind, limit) = sizing::entry(side, mark, instrument, &self.config);
        let order = Order {
            v: Version,
            account: self.account.clone(),
            id: String::new(),
            venue: view.venue.to_owned(),
            symbol: view.symbol.to_owned(),
            side,
            kind,
            qty,
            limit,
            trigger: None,
            reduce_only: false,
            post_only: kind == OrderKind::Limit && self.config.entry.post_only,
            time_in_force: TimeInForce::Gtc,
            protect: sizing::protect(side, mark, self.suggested(view), instrument, &self.config),
            parent: None,
            strategies: view.strategies.to_vec(),
            ts_ns: view.now_ns,
            reason: view.reason.to_owned(),
            cause: view.cause.clone(),
        };
        let duplicate = !view.vote_set.is_empty() && book.acted_on == view.vote_set;
        let gap = asking.and_then(|vote| book.gaps.touching(vote.ts_ns.saturating_sub(vote.candle_ns), vote.ts_ns));
        let asked = self.asked(book, order, By::Strategy, view.now_ns, asking.map(|vote| vote.ts_ns), gap, duplicate);
        let asked = Asked { gap_bars: self.agreeing(view).map(|vote| vote.gap_bars).max().unwrap_or(0), ..asked };
        match limit::first_broken(&asked, &self.config.limits) {
            None => (target, String::new(), Action::Enter(Box::new(asked.order))),
            Some((id, broken)) => {
                let why = format!("{id}: {}", broken.reason);
                let close = !book.position.is_flat() && book.held().signum() * target.signum() < 0;
                (target, why, Action::Refuse { id, broken, order: Box::new(asked.order), close })
            }
        }
    }

    /// Everything that limits may look at.
    #[expect(clippy::too_many_arguments, reason = "one place fills in the whole of `Asked`")]
    pub(super) fn asked(
        &self,
        book: &Book,
        order: Order,
        by: By,
        now_ns: i64,
        signal_ts_ns: Option<i64>,
        gap: Option<(i64, Option<i64>)>,
        duplicate: bool,
    ) -> Asked {
        let account = &self.state.account;
        let (gross_others, net_others) = self.others(&order.venue, &order.symbol);
        let window_ns = i64::from(self.config.limits.order_rate.window_ms) * 1_000_000;
        Asked {
            by,
            trading: account.trading,
            now_ns,
            instrument: book.instrument.clone(),
            contract: book.contract(),
            mark: self.mark(book),
            expected: order.limit.or(book.marks.expected(order.side)),
            held: book.held(),
            working: self.state.orders.signed(&order.venue, &order.symbol),
            equity: account.equity,
            day_start_equity: account.day_start_equity,
            peak_equity: account.peak_equity,
            gross_others,
            net_others,
            orders_in_window: self.state.orders.entries_since(now_ns, window_ns),
            signal_ts_ns,
            gap,
            gap_bars: 0,
            duplicate,
            order,
        }
    }

    /// Held and working of all other instruments at their marks: added up, and with their signs.
    fn others(&self, venue: &str, symbol: &str) -> (Notional, Notional) {
        let working = self.state.orders.all().map(|w| (w.order.venue.clone(), w.order.symbol.clone()));
        let keys: std::collections::BTreeSet<_> = working.chain(self.state.open.iter().cloned()).collect();
        let (mut gross, mut net) = (Notional::ZERO, Notional::ZERO);
        for (v, s) in keys.iter().filter(|(v, s)| (v.as_str(), s.as_str()) != (venue, symbol)) {
            let Some(book) = self.book(v, s) else { continue };
            let Some(mark) = self.mark(book) else { continue };
            let notional = book.contract().notional(book.held() + self.state.orders.signed(v, s), mark.price);
            gross += notional.abs();
            net += notional;
        }
        (gross, net)
    }

    fn entries<'a>(&'a self, view: &View<'a>) -> Vec<&'a Working> {
        self.state.orders.of(view.venue, view.symbol).filter(|w| w.is_entry()).collect()
    }

    /// The newest vote that agrees: it is the one that asks.
    fn asking<'a>(&self, view: &View<'a>) -> Option<&'a Heard> {
        self.agreeing(view).max_by_key(|heard| heard.ts_ns)
    }

    /// The counted votes that the order follows from.
    fn agreeing<'a>(&self, view: &View<'a>) -> impl Iterator<Item = &'a Heard> {
        let (strategies, votes) = (view.strategies, &view.book.votes);
        strategies.iter().filter_map(|name| votes.get(name))
    }

    /// Each protective price from the newest agreeing vote that suggests one.
    fn suggested(&self, view: &View<'_>) -> Protect {
        let newest = |price: fn(&Heard) -> Option<schemas::Price>| {
            let agreeing = view.votes.iter().filter(|vote| view.strategies.contains(&vote.strategy));
            let heard = agreeing.filter_map(|vote| view.book.votes.get(&vote.strategy));
            heard.filter(|heard| price(heard).is_some()).max_by_key(|heard| heard.ts_ns).and_then(price)
        };
        Protect { stop_loss: newest(|heard| heard.stop_loss), take_profit: newest(|heard| heard.take_profit) }
    }

    fn carry_out(
        &mut self,
        venue: &str,
        symbol: &str,
        decision: Decision,
        changed: bool,
        now_ns: i64,
        work: &mut Work<'_>,
    ) {
        let Decision { side, votes, vote_set, strategies, target, reason, action } = decision;
        let outcome = match &action {
            Action::Enter(_) | Action::Reduce(_) | Action::Close => "order",
            Action::Wait { close: true, .. } => "order",
            Action::Wait { .. } | Action::None => "none",
            Action::Refuse { id, .. } => id,
        };
        let working = self.state.orders.signed(venue, symbol);
        let Some(book) = self.book_mut(venue, symbol) else { return };
        let held = book.held();
        if book.acted.is_some() && side.is_some() && book.acted != side {
            book.acted = None;
        }
        let said = Said { side, outcome: outcome.to_owned() };
        let refused = matches!(action, Action::Refuse { .. });
        let news = match &book.said {
            None => true,
            Some(before) => {
                let other_refusal = refused && before.outcome != outcome;
                changed || before.side != side || outcome == "order" || other_refusal
            }
        };
        if news {
            book.said = Some(said);
            work.out.push(Out::Intent(Box::new(Intent {
                v: Version,
                account: self.account.clone(),
                venue: venue.to_owned(),
                symbol: symbol.to_owned(),
                ts_ns: now_ns,
                policy: self.policy.id().to_owned(),
                votes,
                side,
                target,
                held,
                working,
                outcome: if refused { "refused" } else { outcome }.to_owned(),
                reason: reason.clone(),
                cause: work.cause.clone(),
            })));
        }
        match action {
            Action::None => {}
            Action::Enter(order) => {
                if let Some(book) = self.book_mut(venue, symbol) {
                    (book.acted, book.acted_on) = (side, vote_set);
                }
                self.say_order(*order, work);
            }
            Action::Reduce(order) => self.say_order(*order, work),
            Action::Close => self.close(venue, symbol, By::Strategy, &reason, &strategies, now_ns, work),
            Action::Wait { cancel, close } => {
                if let Some(book) = self.book_mut(venue, symbol) {
                    book.waits = true;
                }
                for id in cancel {
                    self.cancel(&id, &reason, now_ns, work);
                }
                if close {
                    self.close(venue, symbol, By::Strategy, &reason, &strategies, now_ns, work);
                }
            }
            Action::Refuse { id, broken, order, close } => {
                if news {
                    self.refuse(id, broken, &order, work);
                }
                if close {
                    self.close(venue, symbol, By::Strategy, &reason, &strategies, now_ns, work);
                }
            }
        }
    }

    pub(super) fn say_order(&mut self, mut order: Order, work: &mut Work<'_>) {
        order.id = work.order_id();
        self.state.orders.put(order.clone(), self.config.limits.order_rate.orders_max as usize);
        work.out.push(Out::Order(Box::new(order)));
    }

    pub(super) fn refuse(&self, id: &str, broken: Broken, order: &Order, work: &mut Work<'_>) {
        work.out.push(Out::Refusal(Refusal {
            v: Version,
            account: self.account.clone(),
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            ts_ns: order.ts_ns,
            limit: id.to_owned(),
            number: broken.number,
            bound: broken.bound,
            side: order.side,
            qty: order.qty,
            reduce_only: order.reduce_only,
            reason: broken.reason,
            cause: work.cause.clone(),
        }));
    }
}
