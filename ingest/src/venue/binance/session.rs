//! One Binance connection: subscriptions in batches, order books through REST snapshots, trades without holes.

use std::collections::BTreeMap;

use schemas::Nanos;
use serde_json::json;

use super::{Kind, decode, rest};
use crate::book::Rule;
use crate::event::{Control, Event, Frame};
use crate::feed::{Feed, Want};
use crate::session::{Action, HttpResult, Limits, Paced, Plan, Session, Waiting, Watchdog, after_ms, earliest};
use crate::venue::{Endpoints, Request};

/// Streams of one connection; the venue allows 1024.
const STREAMS_MAX: usize = 1024;
/// Streams of one SUBSCRIBE message.
const BATCH_MAX: usize = 100;

/// Between two messages to the venue. Spot takes 5 a second, and its pings are answered out of the same budget;
/// futures take 10.
fn send_spacing_ms(kind: Kind) -> i64 {
    match kind {
        Kind::Spot => 300,
        Kind::Usdm | Kind::Coinm => 150,
    }
}

/// USD-M splits its streams over paths; the others have one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Path {
    Only,
    Public,
    Market,
}

impl Path {
    fn of(kind: Kind, stream: &str) -> Self {
        if kind != Kind::Usdm {
            return Path::Only;
        }
        let channel = stream.split('@').nth(1).unwrap_or("");
        match channel {
            "trade" | "bookTicker" => Path::Public,
            depth if depth.starts_with("depth") => Path::Public,
            _ => Path::Market,
        }
    }
    fn text(self) -> &'static str {
        match self {
            Path::Only => "/stream",
            Path::Public => "/public/stream",
            Path::Market => "/market/stream",
        }
    }
    fn name(self) -> &'static str {
        match self {
            Path::Only => "stream",
            Path::Public => "public",
            Path::Market => "market",
        }
    }
}

/// `{}@trade` and the like: `{}` is the symbol, or an all-market stream such as `!markPrice@arr`.
pub fn check_channel(kind: Kind, channel: &str) -> Result<(), String> {
    const BOTH: &str = "{}@trade, {}@aggTrade, {}@depth[@100ms], {}@depth5|10|20[@100ms], {}@bookTicker, {}@kline_<width>, \
                        {}@ticker, {}@miniTicker";
    const FUTURES: &str = "{}@markPrice[@1s], {}@forceOrder, !markPrice@arr[@1s], !forceOrder@arr";
    let futures = kind != Kind::Spot;
    let known = match channel.split_once('@') {
        Some(("{}", rest)) => match rest.split('@').next().unwrap_or("") {
            "trade" | "aggTrade" | "bookTicker" | "ticker" | "miniTicker" => true,
            "depth" | "depth5" | "depth10" | "depth20" => true,
            "markPrice" | "forceOrder" => futures,
            width => width.strip_prefix("kline_").is_some_and(|w| !w.is_empty()),
        },
        Some(("!markPrice" | "!forceOrder", "arr" | "arr@1s")) => futures,
        _ => false,
    };
    if known {
        return Ok(());
    }
    Err(if futures { format!("allowed are {BOTH}, {FUTURES}") } else { format!("allowed are {BOTH}") })
}

/// As few connections as the limits allow. A symbol's streams of one path stay together.
pub fn sessions(kind: Kind, rule: Rule, plan: &Plan) -> Vec<Box<dyn Session>> {
    let mut groups: Vec<(Path, Vec<String>, Vec<String>)> = Vec::new();
    let mut put = |path: Path, symbol: Option<&String>, streams: Vec<String>| {
        if streams.is_empty() {
            return;
        }
        let fits = |g: &&mut (Path, Vec<String>, Vec<String>)| g.0 == path && g.2.len() + streams.len() <= STREAMS_MAX;
        match groups.iter_mut().rev().find(fits) {
            Some(group) => {
                group.1.extend(symbol.cloned());
                group.2.extend(streams);
            }
            None => groups.push((path, symbol.cloned().into_iter().collect(), streams)),
        }
    };
    for path in [Path::Only, Path::Public, Path::Market] {
        for symbol in &plan.symbols {
            let streams = plan.channels.iter().filter(|c| c.contains("{}"));
            let streams = streams.map(|c| c.replace("{}", &symbol.to_lowercase()));
            put(path, Some(symbol), streams.filter(|s| Path::of(kind, s) == path).collect());
        }
        let whole = plan.channels.iter().filter(|c| !c.contains("{}") && Path::of(kind, c) == path);
        put(path, None, whole.cloned().collect());
    }
    let session = |(n, (path, symbols, streams)): (usize, (Path, Vec<String>, Vec<String>))| {
        Box::new(Binance::new(kind, rule, plan, path, n, &symbols, streams)) as Box<dyn Session>
    };
    groups.into_iter().enumerate().map(session).collect()
}

struct Binance {
    kind: Kind,
    path: Path,
    number: usize,
    endpoints: Endpoints,
    limits: Limits,
    streams: Vec<String>,
    /// Trades come as aggregates; the two have ids of their own.
    aggregates: bool,
    feed: Feed,
    watchdog: Watchdog,
    sends: Paced<(u64, String)>,
    acks: Waiting<()>,
    fetches: Paced<(u64, Request)>,
    asked: BTreeMap<u64, Want>,
    next_id: u64,
    connected: bool,
    /// All SUBSCRIBE messages are acknowledged.
    subscribed: bool,
    events: Vec<Event>,
}

impl Binance {
    fn new(
        kind: Kind,
        rule: Rule,
        plan: &Plan,
        path: Path,
        number: usize,
        symbols: &[String],
        streams: Vec<String>,
    ) -> Self {
        let mut feed = Feed::new(rule, &plan.limits, true);
        let carries_trades = streams.iter().any(|s| s.ends_with("@trade") || s.ends_with("@aggTrade"));
        for symbol in symbols {
            feed.expect(symbol, plan.last_trades.get(symbol).copied().filter(|_| carries_trades));
        }
        Self {
            kind,
            path,
            number,
            endpoints: plan.endpoints.clone(),
            limits: plan.limits.clone(),
            aggregates: streams.iter().any(|s| s.ends_with("@aggTrade")),
            streams,
            feed,
            watchdog: Watchdog::new(&plan.limits),
            sends: Paced::new(send_spacing_ms(kind)),
            acks: Waiting::new(plan.limits.ack_timeout_ms),
            fetches: Paced::new(plan.limits.request_spacing_ms),
            asked: BTreeMap::new(),
            next_id: 1,
            connected: false,
            subscribed: false,
            events: Vec::new(),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn want(&mut self, now: Nanos, wants: Vec<Want>) {
        for want in wants {
            let (request, at) = match &want {
                Want::Book { symbol, again } => {
                    let wait = if *again { self.limits.snapshot_retry_ms } else { 0 };
                    (rest::depth(self.kind, &rest::percent(symbol)), after_ms(now, wait))
                }
                Want::Trades { symbol, after } => {
                    (rest::trades_after(self.kind, self.aggregates, &rest::percent(symbol), *after), now)
                }
            };
            let id = self.id();
            self.asked.insert(id, want);
            self.fetches.push_at(at, (id, request));
        }
    }

    fn flush(&mut self, now: Nanos, out: &mut Vec<Action>) {
        while let Some((id, text)) = self.sends.pop(now) {
            self.acks.sent(now, id.to_string(), ());
            out.push(Action::Send(text));
        }
        while let Some((id, request)) = self.fetches.pop(now) {
            out.push(Action::Fetch { id, request });
        }
    }

    fn control(&mut self, now: Nanos, control: Control, out: &mut Vec<Action>) {
        match control {
            Control::Ack { id } => {
                self.acks.answered(&id);
                if !self.subscribed && self.acks.is_empty() && self.sends.due().is_none() {
                    self.subscribed = true;
                    let mut wants = Vec::new();
                    self.feed.subscribed(&mut wants);
                    self.want(now, wants);
                }
            }
            Control::ServerShutdown => {
                out.push(Action::Reconnect {
                    reason: "the venue shuts this server down".into(),
                    planned: true,
                    after_ms: 0,
                });
            }
            _ => {}
        }
    }
}

impl Session for Binance {
    fn name(&self) -> String {
        format!("{}-{}", self.path.name(), self.number)
    }

    fn url(&self) -> String {
        format!("{}{}", self.endpoints.ws, self.path.text())
    }

    fn on_open(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.connected = true;
        self.subscribed = false;
        self.watchdog.open(now);
        for batch in self.streams.clone().chunks(BATCH_MAX) {
            let id = self.id();
            self.sends.push((id, json!({ "method": "SUBSCRIBE", "params": batch, "id": id }).to_string()));
        }
        self.flush(now, out);
    }

    fn on_frame(&mut self, now: Nanos, frame: Frame<'_>, out: &mut Vec<Action>) {
        let mut events = std::mem::take(&mut self.events);
        decode::decode(self.kind, frame, &mut events);
        let mut wants = Vec::new();
        for event in events.drain(..) {
            match event {
                Event::Control(control) => self.control(now, control, out),
                Event::Malformed(reason) => out.push(Action::Dead { reason }),
                Event::Error { code, message, id } => {
                    if let Some(id) = id {
                        self.acks.answered(&id);
                    }
                    out.push(Action::Warn(format!(
                        "the venue refused a request: {} {message}",
                        code.unwrap_or_default()
                    )));
                }
                event => {
                    self.watchdog.progress(now);
                    self.feed.take(now, event, out, &mut wants);
                }
            }
        }
        self.events = events;
        self.want(now, wants);
        self.flush(now, out);
    }

    fn on_timer(&mut self, now: Nanos, out: &mut Vec<Action>) {
        self.flush(now, out);
        self.acks.on_timer(now, out);
        self.watchdog.on_timer(now, out);
    }

    fn next_timer(&self) -> Option<Nanos> {
        if !self.connected {
            return None;
        }
        earliest([self.sends.due(), self.fetches.due(), self.acks.due(), self.watchdog.due()])
    }

    fn on_http(&mut self, now: Nanos, id: u64, answer: HttpResult, out: &mut Vec<Action>) {
        let Some(want) = self.asked.remove(&id) else { return };
        // Over the weight budget: quiet for as long as the venue says, then the same again. Going on would turn
        // the 429 into a ban (418).
        if let Ok(a) = &answer
            && matches!(a.status, 418 | 429)
        {
            let wait_s = a.retry_after_s.unwrap_or(60);
            out.push(Action::Warn(format!("the venue asks for quiet: status {} for {wait_s} s", a.status)));
            self.fetches.block_until(after_ms(now, wait_s as i64 * 1000));
            self.want(now, vec![want]);
            return;
        }
        let body = answer
            .and_then(|a| if a.status == 200 { Ok(a.body) } else { Err(format!("status {}: {}", a.status, a.body)) });
        let mut wants = Vec::new();
        match want {
            Want::Book { symbol, .. } => match body.and_then(|body| snapshot(self.kind, &symbol, &body)) {
                Ok(event) => self.feed.take(now, event, out, &mut wants),
                Err(why) => {
                    out.push(Action::Warn(format!("order book of {symbol}: {why}")));
                    wants.push(Want::Book { symbol, again: true });
                }
            },
            Want::Trades { symbol, .. } => {
                let rows = body.and_then(|body| rest::trades(self.kind, self.aggregates, &symbol, &body));
                self.feed.filled(now, &symbol, rows, out, &mut wants);
            }
        }
        self.want(now, wants);
        self.flush(now, out);
    }

    fn on_closed(&mut self, _now: Nanos, reason: &str, out: &mut Vec<Action>) {
        self.connected = false;
        self.subscribed = false;
        self.watchdog.close();
        self.sends.clear();
        self.acks.clear();
        self.fetches.clear();
        self.asked.clear();
        self.feed.closed(reason, out);
    }

    fn is_whole(&self) -> bool {
        self.connected && self.subscribed && self.feed.is_whole()
    }
}

/// A REST order book, with the symbol that was asked for.
fn snapshot(kind: Kind, symbol: &str, body: &str) -> Result<Event, String> {
    let mut events = Vec::new();
    decode::decode(kind, Frame::Text(body), &mut events);
    match events.pop() {
        Some(Event::Book(mut book)) if events.is_empty() => {
            book.symbol = symbol.into();
            Ok(Event::Book(book))
        }
        other => Err(format!("not an order book: {other:?}")),
    }
}
