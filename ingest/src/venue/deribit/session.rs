//! One Deribit connection: heartbeat first, then subscriptions whose answers are compared with what was asked.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Nanos;
use serde_json::{Value, json};

use super::{decode, rest};
use crate::book::Rule;
use crate::event::{Control, Event, Frame};
use crate::feed::{Feed, Want};
use crate::session::{Action, HttpResult, Missing, Paced, Plan, Session, Waiting, Watchdog, after_ms, earliest};
use crate::venue::{Endpoints, Request};

/// Channels of one connection and of one subscribe request; the venue allows 500 a request.
const CHANNELS_MAX: usize = 500;
const BATCH_MAX: usize = 100;
/// Between two requests: subscribing costs more than the ordinary 20 a second, 3 a second are safe.
const SEND_SPACING_MS: i64 = 350;
/// The venue sends a test request this often; it refuses less than 10.
const HEARTBEAT_S: u64 = 30;
/// After error 10028 (no credits left; the venue ends the session).
const OUT_OF_CREDITS_MS: i64 = 10_000;
const TOO_MANY_REQUESTS: i64 = 10_028;

/// `{}` is the instrument.
pub fn check_channel(channel: &str) -> Result<(), String> {
    const ALLOWED: &str = "trades.{}.<interval>, trades.<kind>.<currency>.<interval>, ticker.{}.<interval>, quote.{}, \
                           book.{}.<interval>, book.{}.<group>.<depth>.<interval>, chart.trades.{}.<resolution>, \
                           deribit_price_index.<name>";
    let parts: Vec<&str> = channel.split('.').collect();
    let known = match parts[..] {
        ["trades" | "ticker" | "book", "{}", interval] => !interval.is_empty(),
        ["trades", kind, currency, interval] => ![kind, currency, interval].contains(&""),
        ["quote", "{}"] => true,
        ["book", "{}", group, depth, interval] => ![group, depth, interval].contains(&""),
        ["chart", "trades", "{}", resolution] => !resolution.is_empty(),
        ["deribit_price_index", name] => !name.is_empty(),
        _ => false,
    };
    if known { Ok(()) } else { Err(format!("allowed are {ALLOWED}")) }
}

/// As few connections as the limits allow; the channels of one instrument stay together.
pub fn sessions(plan: &Plan) -> Vec<Box<dyn Session>> {
    let mut groups: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut put = |symbol: Option<&String>, channels: Vec<String>| match groups.last_mut() {
        Some(group) if group.1.len() + channels.len() <= CHANNELS_MAX => {
            group.0.extend(symbol.cloned());
            group.1.extend(channels);
        }
        _ if channels.is_empty() => {}
        _ => groups.push((symbol.cloned().into_iter().collect(), channels)),
    };
    for symbol in &plan.symbols {
        let channels = plan.channels.iter().filter(|c| c.contains("{}"));
        put(Some(symbol), channels.map(|c| c.replace("{}", symbol)).collect());
    }
    put(None, plan.channels.iter().filter(|c| !c.contains("{}")).cloned().collect());
    let session = |(n, (symbols, channels)): (usize, (Vec<String>, Vec<String>))| {
        Box::new(Deribit::new(plan, n, &symbols, channels)) as Box<dyn Session>
    };
    groups.into_iter().enumerate().map(session).collect()
}

/// What a request on the socket was for.
#[derive(Debug, Clone)]
enum Asked {
    Heartbeat,
    Test,
    Subscribe(Vec<String>),
    Unsubscribe,
}

struct Deribit {
    number: usize,
    endpoints: Endpoints,
    channels: Vec<String>,
    feed: Feed,
    watchdog: Watchdog,
    sends: Paced<(Asked, &'static str, Value)>,
    waiting: Waiting<Asked>,
    fetches: Paced<(u64, Request)>,
    asked: BTreeMap<u64, Want>,
    next_id: u64,
    connected: bool,
    subscribed: bool,
    events: Vec<Event>,
}

impl Deribit {
    fn new(plan: &Plan, number: usize, symbols: &[String], channels: Vec<String>) -> Self {
        let mut feed = Feed::new(Rule::Chain, &plan.limits, true);
        for symbol in symbols {
            let carries_trades = channels.iter().any(|c| c.starts_with(&format!("trades.{symbol}.")));
            feed.expect(symbol, plan.last_trades.get(symbol).copied().filter(|_| carries_trades));
        }
        Self {
            number,
            endpoints: plan.endpoints.clone(),
            channels,
            feed,
            watchdog: Watchdog::new(&plan.limits),
            sends: Paced::new(SEND_SPACING_MS),
            waiting: Waiting::new(plan.limits.ack_timeout_ms),
            fetches: Paced::new(plan.limits.request_spacing_ms),
            asked: BTreeMap::new(),
            next_id: 1,
            connected: false,
            subscribed: false,
            events: Vec::new(),
        }
    }

    fn request(&mut self, now: Nanos, asked: Asked, method: &str, params: Value) -> Action {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.sent(now, id.to_string(), asked);
        Action::Send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
    }

    fn subscribe(&mut self, channels: &[String]) {
        for batch in channels.chunks(BATCH_MAX) {
            let params = json!({ "channels": batch });
            self.sends.push((Asked::Subscribe(batch.to_vec()), "public/subscribe", params));
        }
    }

    fn want(&mut self, now: Nanos, wants: Vec<Want>, out: &mut Vec<Action>) {
        for want in wants {
            match want {
                // The venue starts a channel with a snapshot: leave it and come back.
                Want::Book { symbol, .. } => {
                    let mine = |c: &&String| {
                        c.strip_prefix("book.")
                            .and_then(|c| c.strip_prefix(&symbol))
                            .is_some_and(|c| c.matches('.').count() == 1)
                    };
                    let channels: Vec<String> = self.channels.iter().filter(mine).cloned().collect();
                    if channels.is_empty() {
                        out.push(Action::Warn(format!("no channel gives the order book of {symbol}")));
                        continue;
                    }
                    self.sends.push((Asked::Unsubscribe, "public/unsubscribe", json!({ "channels": channels })));
                    self.subscribe(&channels);
                }
                Want::Trades { ref symbol, after } => {
                    let id = self.next_id;
                    self.next_id += 1;
                    self.fetches.push_at(now, (id, rest::trades_after(symbol, after)));
                    self.asked.insert(id, want);
                }
            }
        }
    }

    fn flush(&mut self, now: Nanos, out: &mut Vec<Action>) {
        while let Some((asked, method, params)) = self.sends.pop(now) {
            let send = self.request(now, asked, method, params);
            out.push(send);
        }
        while let Some((id, request)) = self.fetches.pop(now) {
            out.push(Action::Fetch { id, request });
        }
    }

    fn control(&mut self, now: Nanos, control: Control, out: &mut Vec<Action>) {
        match control {
            Control::TestRequest => {
                // At once, before anything that waits its turn.
                let send = self.request(now, Asked::Test, "public/test", json!({}));
                out.push(send);
            }
            Control::Subscribed { id, channels } => {
                if let Some(Asked::Subscribe(wanted)) = self.waiting.answered(&id) {
                    left_out(now, &wanted, &channels, out);
                }
                self.maybe_subscribed(now, out);
            }
            Control::Ack { id } => {
                self.waiting.answered(&id);
                self.maybe_subscribed(now, out);
            }
            _ => {}
        }
    }

    fn maybe_subscribed(&mut self, now: Nanos, out: &mut Vec<Action>) {
        if !self.subscribed && self.waiting.is_empty() && self.sends.due().is_none() {
            self.subscribed = true;
            let mut wants = Vec::new();
            self.feed.subscribed(&mut wants);
            self.want(now, wants, out);
        }
    }

    fn refused(&mut self, now: Nanos, code: i64, message: &str, id: Option<String>, out: &mut Vec<Action>) {
        let asked = id.and_then(|id| self.waiting.answered(&id));
        if code == TOO_MANY_REQUESTS {
            let reason = format!("error {code} {message}");
            out.push(Action::Reconnect { reason, planned: false, after_ms: OUT_OF_CREDITS_MS });
            return;
        }
        if let Some(Asked::Subscribe(wanted)) = &asked {
            left_out(now, wanted, &[], out);
        }
        out.push(Action::Warn(format!("the venue refused {asked:?}: {code} {message}")));
        self.maybe_subscribed(now, out);
    }
}

/// The venue leaves out what it does not know or allow without an error: each such channel is a gap that lasts.
fn left_out(now: Nanos, wanted: &[String], got: &[String], out: &mut Vec<Action>) {
    let got: BTreeSet<&String> = got.iter().collect();
    for channel in wanted.iter().filter(|c| !got.contains(c)) {
        let parts: Vec<&str> = channel.split('.').collect();
        let (kind, symbol) = match parts[..] {
            ["trades", symbol, _] => ("trade", symbol),
            ["book", symbol, ..] => ("book", symbol),
            ["chart", _, symbol, _] | [_, symbol, ..] => ("channel", symbol),
            _ => ("channel", ""),
        };
        let reason = format!("the venue did not subscribe {channel}");
        out.push(Action::Warn(reason.clone()));
        out.push(Action::Gap(Missing { symbol: symbol.to_owned(), channel: kind, from: now, to: None, reason }));
    }
}

impl Session for Deribit {
    fn name(&self) -> String {
        format!("ws-{}", self.number)
    }

    fn url(&self) -> String {
        format!("{}/ws/api/v2", self.endpoints.ws)
    }

    fn on_open(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.connected = true;
        self.subscribed = false;
        self.watchdog.open(now);
        self.sends.push((Asked::Heartbeat, "public/set_heartbeat", json!({ "interval": HEARTBEAT_S })));
        let channels = self.channels.clone();
        self.subscribe(&channels);
        self.flush(now, out);
    }

    fn on_frame(&mut self, now: Nanos, frame: Frame<'_>, out: &mut Vec<Action>) {
        let mut events = std::mem::take(&mut self.events);
        decode::decode(frame, &mut events);
        let mut wants = Vec::new();
        for event in events.drain(..) {
            match event {
                Event::Control(control) => self.control(now, control, out),
                Event::Malformed(reason) => out.push(Action::Dead { reason }),
                Event::Error { code, message, id } => self.refused(now, code.unwrap_or_default(), &message, id, out),
                // The answer to public/test is an object with the venue's version.
                Event::Other(what) => {
                    if let Some(id) = what.strip_prefix("answer ") {
                        self.waiting.answered(id);
                        self.maybe_subscribed(now, out);
                    }
                }
                event => {
                    self.watchdog.progress(now);
                    self.feed.take(now, event, out, &mut wants);
                }
            }
        }
        self.events = events;
        self.want(now, wants, out);
        self.flush(now, out);
    }

    fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.flush(now, out);
        self.waiting.on_timer(now, out);
        self.watchdog.on_timer(now, out);
    }

    fn next_timer(&self) -> Option<Nanos> {
        if !self.connected {
            return None;
        }
        earliest([self.sends.due(), self.fetches.due(), self.waiting.due(), self.watchdog.due()])
    }

    fn on_http(&mut self, now: Nanos, id: u64, answer: HttpResult, out: &mut Vec<Action>) {
        let Some(Want::Trades { symbol, after }) = self.asked.remove(&id) else { return };
        let mut wants = Vec::new();
        match answer {
            Ok(a) if a.status == 429 => {
                let wait_s = a.retry_after_s.unwrap_or(10);
                self.fetches.block_until(after_ms(now, wait_s as i64 * 1000));
                wants.push(Want::Trades { symbol, after });
            }
            Ok(a) if a.status != 200 => {
                self.feed.filled(now, &symbol, Err(format!("status {}: {}", a.status, a.body)), out, &mut wants);
            }
            answer => {
                let rows = answer.and_then(|a| rest::trades(&a.body));
                self.feed.filled(now, &symbol, rows, out, &mut wants);
            }
        }
        self.want(now, wants, out);
        self.flush(now, out);
    }

    fn on_closed(&mut self, _now: Nanos, reason: &str, out: &mut Vec<Action>) {
        self.connected = false;
        self.subscribed = false;
        self.watchdog.close();
        self.sends.clear();
        self.waiting.clear();
        self.fetches.clear();
        self.asked.clear();
        self.feed.closed(reason, out);
    }

    fn is_whole(&self) -> bool {
        self.connected && self.subscribed && self.feed.is_whole()
    }
}
