//! A venue that is asked again and again: one session for all its polled channels, sans-I/O as the others.
//!
//! An answer tells all that happened before it was asked for. So the session knows up to when it has heard everything:
//! the oldest request among the newest answered ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::Nanos;

use super::description::{Description, How};
use super::message::About;
use super::venue::{carries_trades, request};
use crate::book::Rule;
use crate::event::{Control, Event, Frame, Trade};
use crate::feed::{Feed, TradeIds};
use crate::session::{Action, Command, HttpResult, Paced, Plan, Session, after_ms, earliest};
use crate::venue::Request;

/// Requests that fail one after the other before the connection counts as lost: the gap is told and the pause grows.
const FAILURES_MAX: u32 = 3;
/// Of an answer that was not understood, for its dead letter.
const DEAD_CHARS_MAX: usize = 2000;

/// A symbol and the place of its channel.
type Ask = (String, usize);

pub struct Polled {
    description: Arc<Description>,
    number: usize,
    url: String,
    quiet_ms: i64,
    channels: Vec<usize>,
    symbols: BTreeSet<String>,
    feed: Feed,
    /// When each is asked for next; absent while its answer is awaited.
    due: BTreeMap<Ask, Nanos>,
    fetches: Paced<(u64, Ask, Request)>,
    /// On their way: since when.
    asked: BTreeMap<u64, (Ask, Nanos)>,
    /// When the newest answered request of each was sent.
    heard: BTreeMap<Ask, Nanos>,
    next_id: u64,
    failures: u32,
    connected: bool,
}

impl Polled {
    pub fn new(
        description: Arc<Description>,
        number: usize,
        plan: &Plan,
        rule: Rule,
        ids: TradeIds,
        channels: Vec<usize>,
    ) -> Self {
        let mut feed = Feed::new(rule, ids, &plan.limits, true);
        let with_trades = channels.iter().any(|n| carries_trades(&description.channels[*n]));
        for symbol in &plan.symbols {
            feed.expect(symbol, plan.last_trades.get(symbol).filter(|_| with_trades));
        }
        Self {
            number,
            url: plan.endpoints.rest.clone(),
            quiet_ms: description.limits.quiet_ms,
            channels,
            symbols: plan.symbols.iter().cloned().collect(),
            feed,
            due: BTreeMap::new(),
            fetches: Paced::new(plan.limits.request_spacing_ms),
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            next_id: 1,
            failures: 0,
            connected: false,
            description,
        }
    }

    fn asks(&self) -> impl Iterator<Item = Ask> + '_ {
        self.symbols.iter().flat_map(|symbol| self.channels.iter().map(|n| (symbol.clone(), *n)))
    }

    fn every_ms(&self, channel: usize) -> i64 {
        match self.description.channels[channel].how {
            How::Poll { every_ms, .. } => every_ms,
            How::Topic { .. } => unreachable!("Invariant: only polled channels are given to it"),
        }
    }

    /// Queues what is due and lets out what the pace allows.
    fn flush(&mut self, now: Nanos, out: &mut Vec<Action>) {
        let ready: Vec<Ask> = self.due.iter().filter(|(_, due)| **due <= now).map(|(ask, _)| ask.clone()).collect();
        for ask in ready {
            self.due.remove(&ask);
            let How::Poll { get, .. } = &self.description.channels[ask.1].how else { continue };
            let Some(request) = request(&self.description, get, &ask.0, |_| None) else { continue };
            self.next_id += 1;
            self.fetches.push((self.next_id, ask, request));
        }
        while let Some((id, ask, request)) = self.fetches.pop(now) {
            self.asked.insert(id, (ask, now));
            out.push(Action::Fetch { id, request });
        }
    }

    fn answered(
        &mut self,
        now: Nanos,
        ask: &Ask,
        sent: Nanos,
        body: &str,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let channel = &self.description.channels[ask.1];
        let about = About { channel: &channel.name, symbol: Some(&ask.0) };
        let mut events = Vec::new();
        self.description.decode(body, about, &mut events);
        let mut pages: BTreeMap<String, Vec<Trade>> = BTreeMap::new();
        let mut wrong = None;
        for event in events {
            match event {
                Event::Malformed(reason) => {
                    let start: String = body.chars().take(DEAD_CHARS_MAX).collect();
                    out.push(Action::Dead { reason: format!("{}: {reason}: {start}", channel.name) });
                    wrong = Some(reason);
                }
                Event::Error { message, .. } => return Err(format!("the venue refused: {message}")),
                Event::Control(Control::ServerShutdown) => return Err("the venue shuts its server down".to_owned()),
                Event::Control(_) | Event::Other(_) => {}
                Event::Trade(trade) => pages.entry(trade.symbol.to_string()).or_default().push(trade),
                // A polled book is whole: the feed asks for nothing.
                event => self.feed.take(now, event, out, &mut Vec::new()),
            }
        }
        let covers = match channel.how {
            How::Poll { covers_ms, .. } => covers_ms * Nanos::PER_MS,
            How::Topic { .. } => 0,
        };
        let reaches = self.heard.get(ask).is_some_and(|before| sent - *before < covers);
        for (symbol, page) in pages {
            self.feed.page(now, &symbol, page, reaches, out);
        }
        // What was not understood was not heard.
        wrong.map_or(Ok(()), Err)
    }
}

impl Session for Polled {
    fn name(&self) -> String {
        format!("polled-{}", self.number)
    }

    fn group(&self) -> &'static str {
        "polled"
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn is_polled(&self) -> bool {
        true
    }

    fn on_open(&mut self, now: Nanos, out: &mut Vec<Action>) {
        (self.connected, self.failures) = (true, 0);
        self.due = self.asks().map(|ask| (ask, now)).collect();
        self.flush(now, out);
    }

    /// Nothing comes by itself.
    fn on_frame(&mut self, _now: Nanos, _frame: Frame<'_>, _out: &mut Vec<Action>) {}

    fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if self.connected {
            self.flush(now, out);
        }
    }

    fn next_timer(&self) -> Option<Nanos> {
        if !self.connected {
            return None;
        }
        earliest([self.due.values().min().copied(), self.fetches.due()])
    }

    fn on_http(&mut self, now: Nanos, id: u64, answer: HttpResult, out: &mut Vec<Action>) {
        let Some((ask, sent)) = self.asked.remove(&id) else { return };
        if !self.symbols.contains(&ask.0) {
            return;
        }
        let mut next = after_ms(sent, self.every_ms(ask.1)).max(now);
        let outcome = match answer {
            Ok(a) if matches!(a.status, 418 | 429) => {
                let wait_ms = a.retry_after_s.map_or(self.quiet_ms, |s| (s as i64).saturating_mul(1000));
                out.push(Action::Warn(format!(
                    "the venue asks for quiet: status {} for {} s",
                    a.status,
                    wait_ms / 1000
                )));
                self.fetches.block_until(after_ms(now, wait_ms));
                next = next.max(after_ms(now, wait_ms));
                self.due.insert(ask, next);
                return self.flush(now, out);
            }
            Ok(a) if a.status == 200 => self.answered(now, &ask, sent, &a.body, out),
            Ok(a) => Err(format!("status {}: {}", a.status, a.body.chars().take(200).collect::<String>())),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.heard.insert(ask.clone(), sent);
            }
            Err(why) => {
                self.failures += 1;
                let channel = &self.description.channels[ask.1].name;
                out.push(Action::Warn(format!("poll {channel} of {}: {why}", ask.0)));
                if self.failures >= FAILURES_MAX {
                    let reason = format!("{FAILURES_MAX} requests failed one after the other: {why}");
                    out.push(Action::Reconnect { reason, planned: false, after_ms: 0 });
                    return;
                }
            }
        }
        self.due.insert(ask, next);
        self.flush(now, out);
    }

    fn on_closed(&mut self, _now: Nanos, reason: &str, out: &mut Vec<Action>) {
        self.connected = false;
        self.due.clear();
        self.fetches.clear();
        self.asked.clear();
        self.heard.clear();
        self.feed.closed(reason, out);
    }

    fn on_command(&mut self, now: Nanos, command: &Command, out: &mut Vec<Action>) -> Result<(), String> {
        match command {
            Command::Subscribe { symbol } => {
                if !self.symbols.insert(symbol.clone()) {
                    return Err(format!("{symbol} is polled already"));
                }
                self.feed.expect(symbol, None);
                if self.connected {
                    self.due.extend(self.channels.iter().map(|n| ((symbol.clone(), *n), now)));
                    self.flush(now, out);
                }
            }
            Command::Unsubscribe { symbol } => {
                if !self.symbols.remove(symbol) {
                    return Err(format!("{symbol} is not polled"));
                }
                self.feed.forget(symbol);
                self.due.retain(|(s, _), _| s != symbol);
                self.heard.retain(|(s, _), _| s != symbol);
            }
            Command::Resync { symbol } => return Err(format!("{symbol} is polled: every answer is whole")),
            Command::Reconnect => {
                let reason = "asked for by the operator".to_owned();
                out.push(Action::Reconnect { reason, planned: true, after_ms: 0 });
            }
        }
        Ok(())
    }

    fn symbols(&self) -> BTreeSet<String> {
        self.symbols.clone()
    }

    fn room(&self) -> usize {
        let most = self.description.limits.topics_max;
        most.saturating_sub(self.symbols.len() * self.channels.len())
    }

    fn is_whole(&self) -> bool {
        self.heard().is_some()
    }

    fn heard(&self) -> Option<Nanos> {
        if !self.connected || self.asks().any(|ask| !self.heard.contains_key(&ask)) {
            return None;
        }
        self.heard.values().min().copied()
    }
}
