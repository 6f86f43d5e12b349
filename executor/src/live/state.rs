//! What the caller of an account asks next. Data in, data out: facts, answers and the time come in, and a step goes out.
//!
//! Invariant E-4: a venue never gets an order twice.
//!
//! * An attempt is stored before the order goes out ([`LiveWhat::Attempt`]), and with it the time by the venue's clock from
//!   which on the venue refuses it. The stream is fenced, so a caller that was overtaken stores no attempt any more.
//! * An order goes out only when no attempt was ever stored; or each of them was refused in words that say so; or the last
//!   of them has expired *and* the venue was asked by client order id after that and does not know the order.
//!   Asking alone is not enough: a request whose reply was lost may still be on its way, and arrive behind the question.
//! * After a start, a timeout and any other doubt the venue is asked first.
//!
//! Invariant E-5: an execution is stored once, in the venue's order, and all of them before the order's end.

use std::collections::{BTreeMap, BTreeSet};

use schemas::exec::{Cancelling, DoneState, LiveReport, LiveWhat, Sending};
use schemas::{Cause, Nanos, Qty, Version};

use super::{Answer, Ask, Status, Trade, View};
use crate::config::LiveConfig;

/// Open orders of one account, and the venues' clocks and moods.
#[derive(Clone, Debug)]
pub struct State {
    account: String,
    rules: LiveConfig,
    /// By the sequence of their `sending`, so that earlier orders come first.
    open: BTreeMap<u64, Open>,
    seq_of: BTreeMap<String, u64>,
    venues: BTreeMap<String, Venue>,
}

#[derive(Clone, Debug)]
struct Open {
    sending: Sending,
    cause: Cause,
    /// When `sending` was stored, by the server's clock.
    sent_ns: i64,
    /// Something of it may be at the venue, or on its way there: the venue is asked before anything else.
    doubt: bool,
    /// Venue time from which on no stored attempt can arrive any more; 0 without attempts.
    expires_ms: i64,
    attempts: u32,
    /// A stored attempt that has not gone out yet.
    signed_ms: Option<i64>,
    acked: bool,
    trades: BTreeSet<String>,
    filled: Qty,
    /// The newest that the venue showed since the start.
    view: Option<View>,
    cancel: Option<String>,
    /// Nothing is asked before.
    due_ns: i64,
    /// Failures in a row.
    tries: u32,
    trouble: String,
}

#[derive(Clone, Debug, Default)]
struct Venue {
    /// Its clock less ours, and when it was measured.
    clock: Option<(i64, i64)>,
    /// It asked for silence until then.
    quiet_until_ns: i64,
    tries: u32,
}

/// What to do next.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Store this; then [`State::stored`].
    Store(Box<LiveReport>),
    /// Ask this venue; then [`State::answered`].
    Ask { venue: String, ask: Ask },
    /// Nothing until then, by our clock; `None` without open orders.
    Wait { until_ns: Option<i64> },
}

/// What an operator has to look at: going on would be a guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "{venue} does not know order {id} in {symbol} any more, which it had taken: what became of it would be a guess. \
         Look at the venue's order history; publish its end as a `live` fact as the operator, or trade on under another \
         account"
    )]
    Vanished { venue: String, id: String, symbol: String },
    #[error("{venue} has another order under our id {id}: {theirs}, ours is {ours}")]
    Another { venue: String, id: String, ours: String, theirs: String },
    #[error("{venue} refuses our requests: {why}; check the keys' permissions for futures and their address list")]
    Forbidden { venue: String, why: String },
}

impl State {
    pub fn new(account: &str, rules: &LiveConfig) -> Self {
        let (account, rules) = (account.to_owned(), rules.clone());
        Self { account, rules, open: BTreeMap::new(), seq_of: BTreeMap::new(), venues: BTreeMap::new() }
    }

    /// Client ids of what has not ended.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.open.values().map(|open| open.sending.order.id.as_str())
    }

    /// A `sending` of the journal at `place`, stored at `sent_ns`. `old`: it was there before this caller began, so an
    /// earlier one may have sent it.
    pub fn sending(&mut self, place: Cause, sending: Sending, sent_ns: i64, old: bool) {
        let (id, seq) = (sending.order.id.clone(), place.seq);
        if sending.order.account != self.account || self.seq_of.contains_key(&id) {
            return;
        }
        self.seq_of.insert(id, seq);
        let open = Open {
            sending,
            cause: place,
            sent_ns,
            doubt: old,
            expires_ms: 0,
            attempts: 0,
            signed_ms: None,
            acked: false,
            trades: BTreeSet::new(),
            filled: Qty::ZERO,
            view: None,
            cancel: None,
            due_ns: 0,
            tries: 0,
            trouble: String::new(),
        };
        self.open.insert(seq, open);
    }

    /// A `cancelling` of the journal.
    pub fn cancelling(&mut self, cancelling: Cancelling) {
        if let Some(open) = self.of(&cancelling.id) {
            open.cancel.get_or_insert(cancelling.reason);
            open.due_ns = 0;
        }
    }

    /// The journal knows the order's end.
    pub fn done(&mut self, id: &str) {
        if let Some(seq) = self.seq_of.remove(id) {
            self.open.remove(&seq);
        }
    }

    /// A report that stands in the stream: of an earlier caller, or the one that was to be stored.
    pub fn stored(&mut self, report: &LiveReport) {
        let Some(open) = self.of(&report.id) else { return };
        let ended = match &report.what {
            LiveWhat::Attempt { timestamp_ms, recv_window_ms } => {
                open.expires_ms = open.expires_ms.max(timestamp_ms + i64::from(*recv_window_ms));
                open.attempts += 1;
                // One of our own, to go out now; one of an earlier caller is doubt already.
                open.signed_ms = (!open.doubt).then_some(*timestamp_ms);
                false
            }
            LiveWhat::Acked { .. } => {
                (open.acked, open.doubt) = (true, false);
                false
            }
            LiveWhat::Filled { trade_id, qty, .. } => {
                if open.trades.insert(trade_id.clone()) {
                    open.filled += *qty;
                }
                open.filled >= open.sending.order.qty
            }
            LiveWhat::Rejected { .. } | LiveWhat::Ended { .. } => true,
        };
        if ended {
            self.done(&report.id);
        }
    }

    fn of(&mut self, id: &str) -> Option<&mut Open> {
        self.open.get_mut(self.seq_of.get(id)?)
    }

    /// The venue's clock at our `now_ns`, in milliseconds since 1970; `None` before it was asked.
    pub fn venue_ms(&self, venue: &str, now_ns: i64) -> Option<i64> {
        let (offset_ns, _) = self.venues.get(venue)?.clock?;
        Some((now_ns + offset_ns) / Nanos::PER_MS)
    }

    /// What to do now. New orders go first, then what is in doubt, then cancellations, executions and polls.
    pub fn next(&self, now_ns: i64) -> Step {
        let mut best: Option<(u8, Step)> = None;
        let mut until_ns: Option<i64> = None;
        for open in self.open.values() {
            match self.want(open, now_ns) {
                Want::Now(rank, step) => {
                    if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                        best = Some((rank, step));
                    }
                }
                Want::At(at_ns) => until_ns = Some(until_ns.map_or(at_ns, |least| least.min(at_ns))),
            }
        }
        best.map_or(Step::Wait { until_ns }, |(_, step)| step)
    }

    fn want(&self, open: &Open, now_ns: i64) -> Want {
        let order = &open.sending.order;
        let (id, symbol) = (order.id.clone(), order.symbol.clone());
        let ask = |rank: u8, ask: Ask| Want::Now(rank, Step::Ask { venue: order.venue.clone(), ask });
        let store = |what: LiveWhat| Want::Now(0, Step::Store(Box::new(self.report(open, what, now_ns, now_ns))));
        let quiet_ns = self.venues.get(&order.venue).map_or(0, |venue| venue.quiet_until_ns);
        if now_ns < quiet_ns {
            return Want::At(quiet_ns);
        }
        let clock = self.venues.get(&order.venue).and_then(|venue| venue.clock);
        let fresh = clock.filter(|(_, at_ns)| now_ns - at_ns < ns(self.rules.clock_ms_max) && *at_ns <= now_ns);
        let Some((offset_ns, _)) = fresh else { return ask(0, Ask::Time) };

        if open.acked {
            let Some(view) = &open.view else { return later(open, now_ns, ask(2, Ask::Query { id, symbol })) };
            if view.filled > open.filled {
                let venue_order_id = view.venue_order_id.clone();
                return later(open, now_ns, ask(4, Ask::Trades { id, symbol, venue_order_id }));
            }
            let ended = |state| {
                let ours = open.cancel.clone().filter(|_| state == DoneState::Cancelled);
                let reason = ours.unwrap_or_else(|| format!("{} at the venue", word(state)));
                let ts_ns = view.updated_ms.saturating_mul(Nanos::PER_MS);
                let what = LiveWhat::Ended { state, reason };
                Want::Now(0, Step::Store(Box::new(self.report(open, what, ts_ns, now_ns))))
            };
            return match view.status {
                Status::Cancelled => ended(DoneState::Cancelled),
                Status::Expired | Status::Rejected => ended(DoneState::Expired),
                Status::Open if open.cancel.is_some() => later(open, now_ns, ask(3, Ask::Cancel { id, symbol })),
                // Filled by less than was ordered would be the venue's mistake: asked again, with the patience of a poll.
                Status::Open | Status::Filled => later(open, now_ns, ask(5, Ask::Query { id, symbol })),
            };
        }
        if open.doubt {
            return later(open, now_ns, ask(2, Ask::Query { id, symbol }));
        }
        if let Some(timestamp_ms) = open.signed_ms {
            return ask(1, Ask::Place { order: Box::new(order.clone()), timestamp_ms });
        }
        // From here on nothing of it is at the venue, and nothing is on its way there.
        if let Some(reason) = &open.cancel {
            return store(LiveWhat::Ended { state: DoneState::Cancelled, reason: reason.clone() });
        }
        let age_ms = (now_ns - open.sent_ns) / Nanos::PER_MS;
        let never = |why: String| store(LiveWhat::Ended { state: DoneState::Expired, reason: why });
        if age_ms > i64::from(self.rules.fresh_ms) {
            return never(format!("never reached the venue: {age_ms} ms old{}", open.trouble));
        }
        if open.attempts >= self.rules.attempts_max {
            return never(format!("never reached the venue in {} attempts{}", open.attempts, open.trouble));
        }
        let timestamp_ms = (now_ns + offset_ns) / Nanos::PER_MS;
        let attempt = LiveWhat::Attempt { timestamp_ms, recv_window_ms: self.rules.recv_window_ms };
        later(open, now_ns, store(attempt))
    }

    fn report(&self, open: &Open, what: LiveWhat, ts_ns: i64, recv_ns: i64) -> LiveReport {
        let order = &open.sending.order;
        LiveReport {
            v: Version,
            account: self.account.clone(),
            id: order.id.clone(),
            venue: order.venue.clone(),
            symbol: order.symbol.clone(),
            what,
            ts_ns,
            recv_ns,
            cause: open.cause.clone(),
        }
    }

    /// What follows from an answer to a question that was asked at `asked_ns`: facts to store, in this order.
    pub fn answered(
        &mut self,
        venue: &str,
        ask: &Ask,
        answer: Answer,
        asked_ns: i64,
        now_ns: i64,
    ) -> Result<Vec<LiveReport>, Halt> {
        let asked_ms = self.venue_ms(venue, asked_ns);
        let tries = self.venues.entry(venue.to_owned()).or_default().tries;
        let patience_ns = self.backoff_ns(tries);
        let at_venue = self.venues.entry(venue.to_owned()).or_default();
        match &answer {
            Answer::Forbidden { why } => {
                return Err(Halt::Forbidden { venue: venue.to_owned(), why: why.clone() });
            }
            Answer::Time { server_ms } => {
                // The reply was made somewhere between question and answer; half the way is the best guess.
                let middle_ns = asked_ns + (now_ns - asked_ns) / 2;
                at_venue.clock = Some((server_ms.saturating_mul(Nanos::PER_MS) - middle_ns, now_ns));
                at_venue.tries = 0;
                return Ok(Vec::new());
            }
            Answer::Late => at_venue.clock = None,
            Answer::Limited { retry_after_ms, .. } => {
                at_venue.tries += 1;
                at_venue.quiet_until_ns = now_ns + patience_ns.max(ns(retry_after_ms.unwrap_or(0)));
            }
            _ if *ask == Ask::Time => {
                at_venue.tries += 1;
                at_venue.quiet_until_ns = now_ns + patience_ns;
            }
            _ => at_venue.tries = 0,
        }
        let Some(seq) = ask.id().and_then(|id| self.seq_of.get(id)).copied() else { return Ok(Vec::new()) };
        let placed = matches!(ask, Ask::Place { .. });
        let backoff_ns = self.backoff_ns(self.open[&seq].tries);
        let (settle_ms, poll_ns) = (i64::from(self.rules.settle_ms), ns(u64::from(self.rules.poll_ms)));
        let Some(open) = self.open.get_mut(&seq) else { return Ok(Vec::new()) };
        if placed {
            open.signed_ms = None;
        }
        let trouble = |why: &str| format!(": {why}");
        match (ask, answer) {
            (Ask::Trades { .. }, Answer::Trades(trades)) => {
                open.due_ns = now_ns + backoff_ns;
                open.tries += 1;
                return Ok(self.executions(seq, trades, now_ns));
            }
            (Ask::Place { .. } | Ask::Query { .. } | Ask::Cancel { .. }, Answer::Order(view)) => {
                open.tries = 0;
                open.due_ns = now_ns + poll_ns;
                return self.seen(seq, view, now_ns);
            }
            (Ask::Query { .. }, Answer::Unknown) if open.acked => {
                let order = &open.sending.order;
                let (id, symbol) = (order.id.clone(), order.symbol.clone());
                return Err(Halt::Vanished { venue: venue.to_owned(), id, symbol });
            }
            (Ask::Query { .. }, Answer::Unknown) => {
                // Asked when no attempt could arrive any more: it is not there and will not be.
                let clear_ms = open.expires_ms + settle_ms;
                if asked_ms.is_some_and(|asked_ms| asked_ms > clear_ms) || open.attempts == 0 {
                    (open.doubt, open.due_ns, open.tries) = (false, 0, 0);
                } else {
                    let left_ms = asked_ms.map_or(0, |asked_ms| (clear_ms - asked_ms + 1).max(0));
                    open.due_ns = now_ns.max(asked_ns + left_ms * Nanos::PER_MS + 1);
                }
            }
            (Ask::Place { .. }, Answer::Refused { code, reason }) => {
                let open = &self.open[&seq];
                return Ok(vec![self.report(open, LiveWhat::Rejected { code, reason }, now_ns, now_ns)]);
            }
            (Ask::Place { .. }, Answer::Duplicate) => {
                (open.doubt, open.due_ns) = (true, 0);
                open.trouble = trouble("the venue has an open order of this id");
            }
            // Nothing was done: the attempt is void, and the next one needs no question.
            (_, Answer::Late) => {
                open.due_ns = now_ns + backoff_ns;
                open.tries += 1;
                open.trouble = trouble("outside the venue's window of time");
            }
            (_, Answer::Limited { why, .. }) => open.trouble = trouble(&why),
            // Its end may have overtaken us: the question says which.
            (Ask::Cancel { .. }, Answer::Unknown) => {
                open.view = None;
                open.due_ns = now_ns + backoff_ns;
                open.tries += 1;
            }
            (_, answer) => {
                open.doubt |= placed;
                open.due_ns = now_ns + backoff_ns;
                open.tries += 1;
                open.trouble = match answer {
                    Answer::Doubt { why } | Answer::Refused { reason: why, .. } => trouble(&why),
                    other => trouble(&format!("an answer that fits no question: {other:?}")),
                };
            }
        }
        Ok(Vec::new())
    }

    /// The venue shows the order.
    fn seen(&mut self, seq: u64, view: View, now_ns: i64) -> Result<Vec<LiveReport>, Halt> {
        let open = &self.open[&seq];
        let order = &open.sending.order;
        if (order.symbol.as_str(), order.side, order.qty) != (view.symbol.as_str(), view.side, view.qty) {
            let words = |side: schemas::Side, qty: Qty, symbol: &str| format!("{} {qty} {symbol}", side.as_str());
            return Err(Halt::Another {
                venue: order.venue.clone(),
                id: order.id.clone(),
                ours: words(order.side, order.qty, &order.symbol),
                theirs: words(view.side, view.qty, &view.symbol),
            });
        }
        let ts_ns = view.updated_ms.saturating_mul(Nanos::PER_MS);
        let what = match (open.acked, view.status) {
            (true, _) => None,
            (false, Status::Rejected) => {
                let (code, reason) = ("venue".to_owned(), "the venue shows it as rejected".to_owned());
                Some(LiveWhat::Rejected { code, reason })
            }
            (false, _) => Some(LiveWhat::Acked { venue_order_id: view.venue_order_id.clone() }),
        };
        let said = what.map(|what| self.report(open, what, ts_ns, now_ns)).into_iter().collect();
        let Some(open) = self.open.get_mut(&seq) else { return Ok(said) };
        if view.filled > open.filled || (view.status == Status::Open && open.cancel.is_some()) {
            open.due_ns = 0;
        }
        open.view = Some(view);
        Ok(said)
    }

    /// Executions that are not stored yet.
    fn executions(&self, seq: u64, trades: Vec<Trade>, now_ns: i64) -> Vec<LiveReport> {
        let open = &self.open[&seq];
        let mut said = Vec::new();
        let (mut left, mut seen) = (open.sending.order.qty - open.filled, BTreeSet::new());
        for trade in trades {
            if open.trades.contains(&trade.id) || !seen.insert(trade.id.clone()) || trade.qty > left {
                continue;
            }
            left -= trade.qty;
            let Trade { id: trade_id, price, qty, fee, fee_asset, liquidity, ts_ms, .. } = trade;
            let what = LiveWhat::Filled { trade_id, price, qty, fee, fee_asset, liquidity };
            said.push(self.report(open, what, ts_ms.saturating_mul(Nanos::PER_MS), now_ns));
        }
        said
    }

    /// Doubles with each failure, within its bounds.
    fn backoff_ns(&self, tries: u32) -> i64 {
        let (least, most) = (u64::from(self.rules.backoff_ms_min), u64::from(self.rules.backoff_ms_max));
        ns((least << tries.min(16)).min(most))
    }
}

enum Want {
    /// With its rank: the least goes first.
    Now(u8, Step),
    At(i64),
}

fn later(open: &Open, now_ns: i64, want: Want) -> Want {
    if now_ns < open.due_ns { Want::At(open.due_ns) } else { want }
}

fn ns(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(Nanos::PER_MS)
}

fn word(state: DoneState) -> &'static str {
    match state {
        DoneState::Filled => "filled",
        DoneState::Cancelled => "cancelled",
        DoneState::Expired => "expired",
    }
}

#[cfg(test)]
mod tests;
