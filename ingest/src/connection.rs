//! What every venue's connection does: subscribe and be acknowledged, keep within rates, answer pings, start books, fill
//! holes, renew itself. A venue adds only its words ([`Protocol`]).
//!
//! Invariant N-1: a topic that was asked for is acknowledged, refused (and told as a gap), or the connection ends.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Nanos;

pub use self::protocol::{BookSource, Call, Carries, Ids, Lost, Protocol, Refused, Topic, cut};
use crate::book::Rule;
use crate::event::{Control, Event, Frame};
use crate::feed::{Feed, TradeIds, Want, subject_of};
use crate::polls::Polls;
use crate::session::{
    Action, Command, HttpResult, Limits, Missing, Pace, Paced, Plan, Session, Waiting, Watchdog, after_ms, earliest,
};
use crate::status::{Of, Status, Told};
use crate::venue::Request;

mod protocol;

/// One connection of a venue.
pub struct Connection<P> {
    protocol: P,
    number: usize,
    ws: String,
    rule: Rule,
    limits: Limits,
    pace: Pace,
    ids: Ids,
    topics: Vec<Topic>,
    /// Symbols that were left on this connection: something of them may still be on its way.
    left: BTreeSet<String>,
    feed: Feed,
    watchdog: Watchdog,
    sends: Paced<Call>,
    waiting: Waiting<Vec<Topic>>,
    fetches: Paced<(u64, Request)>,
    asked: BTreeMap<u64, Want>,
    polls: Polls,
    /// What the venue said of its own state.
    told: Told,
    ping_due: Option<Nanos>,
    /// Books that were subscribed, and when each is asked for again if it has not started by then.
    books_due: BTreeMap<String, Nanos>,
    /// When each book, or trades, were subscribed anew for the last time: a venue whose books break at once is not flooded.
    restarted: BTreeMap<(Carries, String), Nanos>,
    /// The newest event time, when it last grew, and whether that is too long ago.
    newest: Option<Nanos>,
    grown: Nanos,
    stale: bool,
    connected: bool,
    /// Every first subscription was answered.
    subscribed: bool,
    /// The first subscriptions of this connection bring the history that may be wanted; later it takes another one.
    history_comes: bool,
    /// Of the frame at hand; empty between frames.
    events: Vec<Event>,
}

/// The key under which our own ping waits; no venue answers with such an id.
const PING: &str = "our ping";

impl<P: Protocol> Connection<P> {
    pub fn new(
        protocol: P,
        number: usize,
        plan: &Plan,
        rule: Rule,
        ids: TradeIds,
        symbols: &[String],
        topics: Vec<Topic>,
    ) -> Self {
        let mut feed = Feed::new(rule, ids, &plan.limits, true);
        let with_trades: BTreeSet<&str> =
            topics.iter().filter(|t| t.carries == Carries::Trades).map(|t| t.symbol.as_str()).collect();
        for symbol in symbols {
            feed.expect(symbol, plan.last_trades.get(symbol).filter(|_| with_trades.contains(symbol.as_str())));
        }
        Self {
            number,
            ws: plan.endpoints.ws.clone(),
            rule,
            limits: plan.limits.clone(),
            ids: Ids(1),
            feed,
            watchdog: Watchdog::new(&plan.limits),
            sends: Paced::new(plan.pace.send_spacing_ms),
            waiting: Waiting::new(plan.limits.ack_timeout_ms),
            fetches: Paced::new(plan.limits.request_spacing_ms),
            asked: BTreeMap::new(),
            polls: Polls::new(&plan.limits),
            told: Told::new(plan.limits.symbols_max),
            ping_due: None,
            books_due: BTreeMap::new(),
            restarted: BTreeMap::new(),
            newest: None,
            grown: Nanos(0),
            stale: false,
            connected: false,
            subscribed: false,
            history_comes: false,
            events: Vec::new(),
            protocol,
            pace: plan.pace,
            topics,
            left: BTreeSet::new(),
        }
    }

    fn subscribe(&mut self, topics: &[Topic], on: bool) {
        self.subscribe_at(Nanos(i64::MIN), topics, on);
    }

    /// Not before `at`.
    fn subscribe_at(&mut self, at: Nanos, topics: &[Topic], on: bool) {
        for mut call in self.protocol.subscribe(&mut self.ids, topics, on) {
            if !on {
                // What is left is not missed.
                call.awaits.iter_mut().for_each(|(_, topics)| topics.clear());
            }
            self.sends.push_at(at, call);
        }
    }

    /// At once, before anything that waits its turn.
    fn send(&mut self, now: Nanos, call: Call, out: &mut Vec<Action>) {
        for (key, topics) in call.awaits {
            // A snapshot that comes by itself may be lost, or not be understood.
            let books = topics.iter().filter(|t| t.carries == Carries::Book && !self.rule.wants_snapshot());
            let due = after_ms(now, self.limits.ack_timeout_ms);
            self.books_due.extend(books.map(|t| (t.symbol.clone(), due)));
            self.waiting.sent(now, key, topics);
        }
        out.push(Action::Send(call.text));
    }

    fn flush(&mut self, now: Nanos, out: &mut Vec<Action>) {
        while let Some(call) = self.sends.pop(now) {
            self.send(now, call, out);
        }
        while let Some((id, request)) = self.fetches.pop(now) {
            out.push(Action::Fetch { id, request });
        }
        // Whatever else was due has left.
        if self.poll_due().is_some_and(|due| due <= now) {
            let id = self.ids.take();
            out.extend(self.polls.next(now, id).map(|request| Action::Fetch { id, request }));
        }
    }

    /// Behind all other requests, and quiet while they are.
    fn poll_due(&self) -> Option<Nanos> {
        self.polls.due().filter(|_| self.subscribed).map(|due| due.max(self.fetches.free_at()))
    }

    /// Polls what the symbols that are carried now ask for.
    fn poll_carried(&mut self, now: Nanos) {
        if self.subscribed {
            let symbols = self.symbols();
            self.polls.carry(now, self.protocol.polls(&symbols), &symbols);
        }
    }

    /// The answer to a poll. It goes past the feed: whatever its time, it neither shows that the socket lives nor ends a gap. One
    /// that failed is made again in its turn.
    fn polled(&mut self, now: Nanos, asked: &str, body: Result<String, String>, out: &mut Vec<Action>) {
        let (mut events, carried) = (Vec::new(), self.symbols());
        match body {
            Ok(body) => self.protocol.decode_poll(&body, &mut events),
            Err(why) => events.push(Event::Malformed(why)),
        }
        let mut wrong = Vec::new();
        for event in events {
            if let Event::Malformed(why) = event {
                wrong.push(why);
                continue;
            }
            let Some((symbol, Some(ts))) = subject_of(&event) else { continue };
            if carried.contains(symbol) && self.polls.is_news(symbol, ts) {
                out.push(Action::Aside { recv: now, event });
            }
        }
        if let Some(first) = wrong.first() {
            let more = if wrong.len() > 1 { format!(" (and {} more)", wrong.len() - 1) } else { String::new() };
            out.push(Action::Warn(format!("poll {asked}: {first}{more}")));
        }
    }

    /// What the venue says of its own state goes past the feed and the watchdog: it is no data, and its times are not those of any.
    fn status(&mut self, status: Box<Status>, out: &mut Vec<Action>) {
        let left = matches!(&status.of, Of::Symbol(symbol) if self.left.contains(symbol.as_str()));
        if !left && self.told.is_news(&status) {
            out.push(Action::Status(status));
        }
    }

    fn fetch(&mut self, at: Nanos, want: Want, request: Request) {
        let id = self.ids.take();
        self.asked.insert(id, want);
        self.fetches.push_at(at, (id, request));
    }

    fn want(&mut self, now: Nanos, wants: Vec<Want>, out: &mut Vec<Action>) {
        for want in wants {
            match &want {
                Want::Book { symbol, again } => {
                    let at = if *again { after_ms(now, self.limits.snapshot_retry_ms) } else { now };
                    match self.protocol.book(&mut self.ids, symbol) {
                        BookSource::Rest(request) => self.fetch(at, want, request),
                        BookSource::Ask(call) => self.sends.push_at(at, call),
                        BookSource::Resubscribe => self.resubscribe(now, &symbol.clone(), Carries::Book, out),
                    }
                }
                Want::Trades { symbol, after } => match self.protocol.trades_after(symbol, *after) {
                    Some(request) => self.fetch(now, want, request),
                    None => {
                        if !self.history_comes {
                            self.resubscribe(now, &symbol.clone(), Carries::Trades, out);
                        }
                        self.feed.awaits_history(symbol, after_ms(now, self.limits.ack_timeout_ms));
                    }
                },
            }
        }
    }

    /// Leaves what carries a symbol's book or trades and comes back: the venue begins anew.
    fn resubscribe(&mut self, now: Nanos, symbol: &str, carries: Carries, out: &mut Vec<Action>) {
        let mine = |t: &&Topic| t.carries == carries && t.symbol == symbol;
        let topics: Vec<Topic> = self.topics.iter().filter(mine).cloned().collect();
        if topics.is_empty() {
            let what = if carries == Carries::Book { "order book" } else { "trades" };
            out.push(Action::Warn(format!("no channel gives the {what} of {symbol}")));
            return;
        }
        let key = (carries, symbol.to_owned());
        let last = self.restarted.get(&key).copied();
        let at = last.map_or(now, |last| after_ms(last, self.limits.snapshot_retry_ms)).max(now);
        self.restarted.insert(key, at);
        self.subscribe_at(at, &topics, false);
        self.subscribe_at(at, &topics, true);
    }

    fn control(&mut self, now: Nanos, control: Control, out: &mut Vec<Action>) {
        if self.protocol.is_quiet() {
            self.watchdog.progress(now);
        }
        match control {
            Control::Ack { id } => {
                self.waiting.answered(&id);
            }
            Control::Subscribed { id, channels } => {
                if let Some(wanted) = self.waiting.answered(&id) {
                    self.left_out(now, &wanted, &channels, out);
                }
            }
            Control::Listed { channels } => {
                if let Some(wanted) = self.waiting.oldest_but(PING) {
                    self.left_out(now, &wanted, &channels, out);
                }
            }
            Control::Pong => {
                self.waiting.answered(PING);
            }
            Control::Ping { answer } => out.push(Action::Send(answer)),
            Control::TestRequest => {
                if let Some(call) = self.protocol.test(&mut self.ids) {
                    self.send(now, call, out);
                }
            }
            Control::ServerShutdown => {
                let reason = "the venue shuts this server down".to_owned();
                out.push(Action::Reconnect { reason, planned: true, after_ms: 0 });
            }
            Control::Broken { reason } => {
                let mut wants = Vec::new();
                self.feed.broken(now, &reason, out, &mut wants);
                self.want(now, wants, out);
            }
            Control::Heartbeat | Control::Request { .. } => {}
        }
        self.maybe_subscribed(now, out);
    }

    fn maybe_subscribed(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.connected && !self.subscribed && self.sends.is_empty() && self.waiting.is_empty_but(PING) {
            self.subscribed = true;
            let mut wants = Vec::new();
            self.feed.subscribed(&mut wants);
            self.want(now, wants, out);
            self.history_comes = false;
            self.poll_carried(now);
        }
    }

    fn refused(&mut self, now: Nanos, code: Option<i64>, message: &str, id: Option<String>, out: &mut Vec<Action>) {
        let wanted = match (self.protocol.refused(code, message), id) {
            (Refused::Leave { after_ms }, _) => {
                let reason = format!("error {} {message}", code.unwrap_or_default());
                out.push(Action::Reconnect { reason, planned: false, after_ms });
                return;
            }
            (Refused::Named, Some(id)) => self.waiting.answered(&id),
            (Refused::Named, None) => None,
            (Refused::Oldest, _) => self.waiting.oldest_but(PING),
        };
        let code = code.map(|code| format!("{code} ")).unwrap_or_default();
        out.push(Action::Warn(format!("the venue refused a request: {code}{message}")));
        self.left_out(now, &wanted.unwrap_or_default(), &[], out);
        self.maybe_subscribed(now, out);
    }

    fn stale_due(&self) -> Nanos {
        after_ms(self.grown, self.limits.stale_after_ms)
    }

    fn may_stale(&self) -> bool {
        !self.stale && self.newest.is_some() && !self.protocol.is_quiet()
    }

    fn grows(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.feed.newest() > self.newest {
            (self.newest, self.grown) = (self.feed.newest(), now);
            if std::mem::take(&mut self.stale) {
                out.push(Action::Stale(false));
            }
        }
    }

    fn ping(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.ping_due.is_some_and(|due| due <= now)
            && let Some(text) = self.protocol.ping()
        {
            self.ping_due = Some(after_ms(now, self.pace.ping_ms));
            if !self.waiting.has(PING) {
                self.waiting.sent(now, PING.to_owned(), Vec::new());
            }
            out.push(Action::Send(text));
        }
    }

    /// A venue may leave out what it does not know or allow without an error: each such topic is a gap that lasts.
    fn left_out(&mut self, now: Nanos, wanted: &[Topic], got: &[String], out: &mut Vec<Action>) {
        for topic in wanted.iter().filter(|t| !got.contains(&t.text)) {
            let channel = match topic.carries {
                Carries::Trades => "trade",
                Carries::Book => "book",
                Carries::Other => "channel",
            };
            if topic.carries == Carries::Book {
                self.books_due.remove(&topic.symbol);
            }
            let reason = format!("the venue did not subscribe {}", topic.text);
            out.push(Action::Warn(reason.clone()));
            out.push(Action::Gap(Missing { symbol: topic.symbol.clone(), channel, from: now, to: None, reason }));
        }
    }

    /// Asks again for the books that did not start in time.
    fn late_books(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let late: Vec<String> =
            self.books_due.iter().filter(|(_, due)| **due <= now).map(|(symbol, _)| symbol.clone()).collect();
        let mut wants = Vec::new();
        for symbol in late {
            self.books_due.remove(&symbol);
            self.feed.restart_late_book(now, &symbol, out, &mut wants);
        }
        self.want(now, wants, out);
        self.flush(now, out);
    }
}

impl<P: Protocol> Session for Connection<P> {
    fn name(&self) -> String {
        format!("{}-{}", self.protocol.group(), self.number)
    }

    fn group(&self) -> &'static str {
        self.protocol.group()
    }

    fn url(&self) -> String {
        format!("{}{}", self.ws, self.protocol.path())
    }

    fn on_open(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.connected = true;
        self.subscribed = false;
        self.history_comes = true;
        self.watchdog.open(now);
        self.protocol.opened();
        self.grown = now;
        self.ping_due = self.protocol.ping().map(|_| after_ms(now, self.pace.ping_ms));
        for call in self.protocol.hello(&mut self.ids) {
            self.sends.push(call);
        }
        let topics = self.topics.clone();
        self.subscribe(&topics, true);
        self.flush(now, out);
        self.maybe_subscribed(now, out);
    }

    fn on_frame(&mut self, now: Nanos, frame: Frame<'_>, out: &mut Vec<Action>) {
        let mut events = std::mem::take(&mut self.events);
        self.protocol.decode(frame, &mut events);
        self.feed.order(&mut events);
        let mut wants = Vec::new();
        for event in events.drain(..) {
            match event {
                Event::Control(control) => self.control(now, control, out),
                Event::Malformed(reason) => {
                    out.push(Action::Dead { reason });
                    match self.protocol.lost_trades(frame) {
                        Lost::Nothing => {}
                        Lost::Of(symbol) => self.feed.doubt_trades(Some(&symbol), &mut wants),
                        Lost::Any => self.feed.doubt_trades(None, &mut wants),
                    }
                }
                Event::Error { code, message, id } => self.refused(now, code, &message, id, out),
                Event::Status(status) => self.status(status, out),
                // An answer whose content says nothing to us.
                Event::Other(what) => {
                    if let Some(id) = what.strip_prefix("answer ") {
                        self.waiting.answered(id);
                        self.maybe_subscribed(now, out);
                    }
                }
                event => {
                    self.watchdog.progress(now);
                    if self.left.is_empty() || !subject_of(&event).is_some_and(|(name, _)| self.left.contains(name)) {
                        self.feed.take(now, event, out, &mut wants);
                    }
                }
            }
        }
        self.events = events;
        self.feed.frame_ended(out);
        self.grows(now, out);
        self.want(now, wants, out);
        self.flush(now, out);
    }

    fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.flush(now, out);
        self.ping(now, out);
        self.feed.on_timer(now, out);
        self.late_books(now, out);
        if self.may_stale() && self.stale_due() <= now {
            self.stale = true;
            out.push(Action::Stale(true));
        }
        self.waiting.on_timer(now, out);
        self.watchdog.on_timer(now, out);
    }

    fn next_timer(&self) -> Option<Nanos> {
        if !self.connected {
            return None;
        }
        let own = [self.sends.due(), self.fetches.due(), self.waiting.due(), self.watchdog.due(), self.ping_due];
        let books = self.books_due.values().min().copied();
        let stale = self.may_stale().then(|| self.stale_due());
        earliest(own.into_iter().chain([self.feed.due(), stale, books, self.poll_due()]))
    }

    fn on_http(&mut self, now: Nanos, id: u64, answer: HttpResult, out: &mut Vec<Action>) {
        let want = self.asked.remove(&id);
        let poll = self.polls.answered(id);
        if want.is_none() && poll.is_none() {
            return;
        }
        // Over the budget: quiet for as long as the venue says, then the same again. Going on would turn a 429 into a ban.
        if let Ok(a) = &answer
            && matches!(a.status, 418 | 429)
        {
            let wait_ms = a.retry_after_s.map_or(self.pace.quiet_ms, |s| s as i64 * 1000);
            out.push(Action::Warn(format!("the venue asks for quiet: status {} for {} s", a.status, wait_ms / 1000)));
            self.fetches.block_until(after_ms(now, wait_ms));
            self.want(now, want.into_iter().collect(), out);
            return;
        }
        let body = answer
            .and_then(|a| if a.status == 200 { Ok(a.body) } else { Err(format!("status {}: {}", a.status, a.body)) });
        let mut wants = Vec::new();
        match want {
            None => self.polled(now, &poll.unwrap_or_default(), body, out),
            Some(Want::Book { symbol, .. }) => match body.and_then(|body| self.protocol.decode_book(&symbol, &body)) {
                Ok(event) => self.feed.take(now, event, out, &mut wants),
                Err(why) => {
                    out.push(Action::Warn(format!("order book of {symbol}: {why}")));
                    wants.push(Want::Book { symbol, again: true });
                }
            },
            Some(Want::Trades { symbol, .. }) => {
                let rows = body.and_then(|body| self.protocol.decode_trades(&symbol, &body));
                self.feed.filled(now, &symbol, rows, out, &mut wants);
            }
        }
        // An answer does not show that the socket's data goes on.
        self.newest = self.newest.max(self.feed.newest());
        self.want(now, wants, out);
        self.flush(now, out);
    }

    fn on_closed(&mut self, _now: Nanos, reason: &str, out: &mut Vec<Action>) {
        self.connected = false;
        self.subscribed = false;
        self.ping_due = None;
        self.books_due.clear();
        self.restarted.clear();
        self.watchdog.close();
        self.sends.clear();
        self.waiting.clear();
        self.fetches.clear();
        self.asked.clear();
        self.polls.closed();
        self.left.clear();
        self.feed.closed(reason, out);
    }

    fn on_command(&mut self, now: Nanos, command: &Command, out: &mut Vec<Action>) -> Result<(), String> {
        match command {
            Command::Subscribe { symbol } => {
                let topics = self.protocol.topics(symbol);
                if self.topics.iter().any(|t| t.symbol == *symbol) {
                    return Err(format!("{symbol} is subscribed already"));
                }
                if self.topics.len() + topics.len() > self.pace.topics_max {
                    return Err(format!("this connection carries at most {} channels", self.pace.topics_max));
                }
                self.left.remove(symbol);
                self.feed.expect(symbol, None);
                self.topics.extend(topics.iter().cloned());
                if self.connected {
                    self.subscribe(&topics, true);
                }
                self.poll_carried(now);
            }
            Command::Unsubscribe { symbol } => {
                let (leave, stay) = std::mem::take(&mut self.topics).into_iter().partition(|t| t.symbol == *symbol);
                self.topics = stay;
                let leave: Vec<Topic> = leave;
                if leave.is_empty() {
                    return Err(format!("{symbol} is not subscribed"));
                }
                self.feed.forget(symbol);
                self.books_due.remove(symbol);
                self.restarted.retain(|(_, of), _| of != symbol);
                if self.connected {
                    self.left.insert(symbol.clone());
                }
                if self.connected {
                    self.subscribe(&leave, false);
                }
                self.poll_carried(now);
            }
            Command::Resync { symbol } => {
                if !self.topics.iter().any(|t| t.symbol == *symbol && t.carries == Carries::Book) {
                    return Err(format!("this connection carries no order book of {symbol}"));
                }
                let mut wants = Vec::new();
                self.feed.resync(now, symbol, out, &mut wants)?;
                self.want(now, wants, out);
            }
            Command::Reconnect => {
                let reason = "asked for by the operator".to_owned();
                out.push(Action::Reconnect { reason, planned: true, after_ms: 0 });
            }
        }
        self.flush(now, out);
        Ok(())
    }

    fn symbols(&self) -> BTreeSet<String> {
        self.topics.iter().filter(|t| !t.symbol.is_empty()).map(|t| t.symbol.clone()).collect()
    }

    fn room(&self) -> usize {
        self.pace.topics_max.saturating_sub(self.topics.len())
    }

    fn is_whole(&self) -> bool {
        self.connected && self.subscribed && self.feed.is_whole()
    }
}
