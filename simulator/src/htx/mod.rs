//! HTX: spot, linear and inverse swaps. Packed frames, pings with a number, books by changes, notifications, REST. Market
//! data only: there are no orders and no private sockets here.

mod data;
mod feed;
mod rest;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::feed::Feed;
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::instrument::VenueId;
use crate::market::Event;
use crate::orders::Update;

/// The sockets of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Socket {
    Market,
    /// Spot's books by changes.
    Feed,
    /// Spoken to in `op`s.
    Notification,
    Index,
    /// Says whether the service works; spoken to in `op`s.
    Center,
}

impl Socket {
    fn at(venue: VenueId, path: &str) -> Option<Self> {
        Some(match (venue, path) {
            (VenueId::HtxSpot, "/ws") => Self::Market,
            (VenueId::HtxSpot, "/feed") => Self::Feed,
            (VenueId::HtxLinear, "/linear-swap-ws") | (VenueId::HtxInverse, "/swap-ws") => Self::Market,
            (VenueId::HtxLinear, "/linear-swap-notification") => Self::Notification,
            (VenueId::HtxInverse, "/swap-notification") => Self::Notification,
            (VenueId::HtxLinear | VenueId::HtxInverse, "/ws_index") => Self::Index,
            (VenueId::HtxLinear | VenueId::HtxInverse, "/center-notification") => Self::Center,
            _ => return None,
        })
    }
}

/// The topic on which a kind of swaps says whether its service works.
fn heartbeat(venue: VenueId) -> &'static str {
    if venue == VenueId::HtxInverse { "public.swap.heartbeat" } else { "public.linear-swap.heartbeat" }
}

#[derive(Debug)]
struct Session {
    socket: Socket,
    channels: BTreeSet<String>,
    next_ping_ms: u64,
    /// Pings that were not answered.
    unanswered: u32,
    /// Answers to pings are not taken in (a fault).
    deaf: bool,
    window: Window,
}

/// How much was used of a window of time.
#[derive(Debug, Default)]
struct Window {
    number: u64,
    used: usize,
}

impl Window {
    /// False: the window is full.
    fn take(&mut self, now_ms: u64, width_ms: u64, max: usize) -> bool {
        let number = now_ms / width_ms;
        if number != self.number {
            (self.number, self.used) = (number, 0);
        }
        self.used += 1;
        self.used <= max
    }
}

pub struct Htx {
    venue: VenueId,
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    rest_window: Window,
    /// Pings have growing numbers.
    last_ping: i64,
    closed_until_ms: u64,
    /// A maintenance that was told of: when it is over in real time, and the time that was told.
    down: Option<(u64, i64)>,
}

impl Htx {
    pub fn new(venue: VenueId) -> Self {
        Self {
            venue,
            feed: Feed::default(),
            sessions: BTreeMap::new(),
            rest_window: Window::default(),
            last_ping: 0,
            closed_until_ms: 0,
            down: None,
        }
    }

    /// `{"sub":...}`, `{"unsub":...}`, `{"req":...}`.
    fn market_request(&mut self, floor: &mut Floor, client: ClientId, socket: Socket, message: &Value) {
        let now_ms = floor.now_ms();
        let id = &message["id"];
        let refuse = |code: &str, why: String| {
            json!({ "status": "error", "ts": now_ms, "id": id, "err-code": code, "err-msg": why }).to_string()
        };
        let text = |key: &str| message[key].as_str();
        if let Some(channel) = text("sub") {
            let answer = json!({ "id": id, "status": "ok", "subbed": channel, "ts": now_ms }).to_string();
            match self.subscribe(floor, client, socket, channel) {
                Ok(()) => self.welcome(floor, client, channel, answer),
                Err(why) => floor.hub.frame(client, data::packed(&refuse("bad-request", why))),
            }
        } else if let Some(channel) = text("unsub") {
            self.unsubscribe(client, channel);
            let answer = json!({ "id": id, "status": "ok", "unsubbed": channel, "ts": now_ms });
            floor.hub.frame(client, data::packed(&answer.to_string()));
        } else if let Some(channel) = text("req") {
            let answer = match self.feed.requested(floor, socket, channel) {
                Some(data) => {
                    format!(r#"{{"id":{id},"status":"ok","ts":{now_ms},"rep":"{channel}","data":{data}}}"#)
                }
                None => refuse("bad-request", format!("invalid topic {channel}")),
            };
            floor.hub.frame(client, data::packed(&answer));
        } else {
            floor.hub.frame(client, data::packed(&refuse("bad-request", "unknown request".to_owned())));
        }
    }

    /// `{"op":"sub","cid":...,"topic":...}`.
    fn notification_request(&mut self, floor: &mut Floor, client: ClientId, socket: Socket, message: &Value) {
        let (op, topic) = (message["op"].as_str().unwrap_or(""), message["topic"].as_str().unwrap_or(""));
        let answer = |code: i64, why: &str| {
            let ts = floor.now_ms();
            let mut answer = json!({ "op": op, "cid": message["cid"], "topic": topic, "ts": ts, "err-code": code });
            if code != 0 {
                answer["err-msg"] = json!(why);
            }
            answer.to_string()
        };
        match op {
            "sub" => {
                let ok = answer(0, "");
                let refused = answer(2011, "invalid topic");
                match self.subscribe(floor, client, socket, topic) {
                    Ok(()) => self.welcome(floor, client, topic, ok),
                    Err(_) => floor.hub.frame(client, data::packed(&refused)),
                }
            }
            "unsub" => {
                let ok = answer(0, "");
                self.unsubscribe(client, topic);
                floor.hub.frame(client, data::packed(&ok));
            }
            _ => {
                let refused = answer(2005, "unknown op");
                floor.hub.frame(client, data::packed(&refused));
            }
        }
    }

    fn subscribe(&mut self, floor: &mut Floor, client: ClientId, socket: Socket, channel: &str) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&client) else { return Err("gone".to_owned()) };
        if session.channels.len() >= floor.config.htx.topics_per_connection_max {
            return Err("too many topics".to_owned());
        }
        let known = match socket {
            Socket::Center => heartbeat(self.venue) == channel,
            _ => self.feed.subscribe(floor, socket, channel, client),
        };
        if !known {
            return Err(format!("invalid topic {channel}"));
        }
        session.channels.insert(channel.to_owned());
        Ok(())
    }

    fn unsubscribe(&mut self, client: ClientId, channel: &str) {
        if let Some(session) = self.sessions.get_mut(&client)
            && session.channels.remove(channel)
        {
            self.feed.unsubscribe(channel, client);
        }
    }

    /// To all who listen to it.
    fn tell_heartbeat(&self, floor: &mut Floor) {
        let topic = heartbeat(self.venue);
        let text = data::heartbeat(topic, "update", self.down.map(|(_, at)| at), floor.now_ms());
        for (client, _) in self.sessions.iter().filter(|(_, s)| s.channels.contains(topic)) {
            floor.data(*client, data::packed(&text));
        }
    }

    /// The acknowledgement, and what the channel begins with before or behind it.
    fn welcome(&mut self, floor: &mut Floor, client: ClientId, channel: &str, answer: String) {
        let late_ms = floor.faults.take("late_ack", "").map_or(0, |fault| fault.ms);
        let hasty = self.feed.is_hasty(channel, floor);
        if hasty {
            self.feed.welcome(floor, client, channel);
        }
        floor.answer(client, data::packed(&answer), late_ms);
        if !hasty {
            self.feed.welcome(floor, client, channel);
        }
        if channel == heartbeat(self.venue) {
            floor.data(
                client,
                data::packed(&data::heartbeat(channel, "init", self.down.map(|(_, at)| at), floor.now_ms())),
            );
        }
    }
}

impl Protocol for Htx {
    fn event(&mut self, floor: &mut Floor, event: &Event) {
        self.feed.event(floor, event);
    }

    fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        self.feed.time(floor, at_ns);
    }

    fn update(&mut self, _floor: &mut Floor, _update: &Update) {}

    fn recorded(&mut self, _floor: &mut Floor, _stream: &str, _data: &str) {}

    fn listened(&self) -> bool {
        self.feed.listened()
    }

    fn connect(&mut self, floor: &mut Floor, client: ClientId, path: &str, _query: &str) -> Result<(), Reply> {
        if floor.mono_ms < self.closed_until_ms {
            return Err(Reply::json(503, r#"{"status":"maintain"}"#));
        }
        let socket = Socket::at(self.venue, path).ok_or_else(|| Reply::json(404, ""))?;
        let session = Session {
            socket,
            channels: BTreeSet::new(),
            next_ping_ms: floor.mono_ms + floor.config.htx.ping_period_ms,
            unanswered: 0,
            deaf: false,
            window: Window::default(),
        };
        self.sessions.insert(client, session);
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let message: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let is_pong = !message["pong"].is_null() || message["op"] == "pong";
        if is_pong {
            if !session.deaf {
                session.unanswered = 0;
            }
            return;
        }
        let within = session.window.take(floor.mono_ms, 1000, floor.config.htx.messages_per_second_max);
        let socket = session.socket;
        if !within {
            let refused = json!({
                "status": "error", "ts": floor.now_ms(), "id": message["id"], "err-code": "429", "err-msg": "exceeded limit",
            });
            return floor.hub.frame(client, data::packed(&refused.to_string()));
        }
        if let Some(number) = message["ping"].as_i64() {
            return floor.hub.frame(client, data::packed(&json!({ "pong": number }).to_string()));
        }
        match socket {
            Socket::Notification | Socket::Center => self.notification_request(floor, client, socket, &message),
            Socket::Market | Socket::Feed | Socket::Index => self.market_request(floor, client, socket, &message),
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.remove(&client) else { return };
        for channel in &session.channels {
            self.feed.unsubscribe(channel, client);
        }
    }

    fn beat(&mut self, floor: &mut Floor) {
        let now = floor.mono_ms;
        let (period, unanswered_max) = (floor.config.htx.ping_period_ms, floor.config.htx.pings_unanswered_max);
        for (client, session) in self.sessions.iter_mut().filter(|(_, s)| s.next_ping_ms <= now) {
            session.next_ping_ms = now + period;
            if session.unanswered >= unanswered_max {
                floor.hub.put(*client, Out::Close(1000, "ping timeout".to_owned()));
                continue;
            }
            session.unanswered += 1;
            self.last_ping = floor.wall_ms.max(self.last_ping + 1);
            let ping = match session.socket {
                Socket::Notification | Socket::Center => format!(r#"{{"op":"ping","ts":"{}"}}"#, self.last_ping),
                Socket::Market | Socket::Feed | Socket::Index => format!(r#"{{"ping":{}}}"#, self.last_ping),
            };
            floor.hub.frame(*client, data::packed(&ping));
        }
        if self.down.take_if(|(until_ms, _)| *until_ms <= now).is_some() {
            self.tell_heartbeat(floor);
        }
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let (max, width_ms) = (floor.config.htx.requests_per_window_max, floor.config.htx.requests_window_ms);
        let within = self.rest_window.take(floor.mono_ms, width_ms, max);
        if floor.faults.take("rest_429", "").is_some() || !within {
            // Not JSON, and no Retry-After.
            return Reply { status: 429, body: "exceeded limit".to_owned(), ..Reply::default() };
        }
        rest::answer(floor, request)
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        match command.kind.as_str() {
            "status" => {
                self.down = Some((floor.mono_ms + command.ms, floor.now_ms() + command.ms as i64));
                self.tell_heartbeat(floor);
            }
            "deaf" => self.sessions.values_mut().for_each(|session| session.deaf = true),
            "outage" => {
                self.closed_until_ms = floor.mono_ms + command.ms;
                for client in floor.hub.ids() {
                    floor.hub.put(client, Out::Close(1001, "system maintenance".to_owned()));
                }
            }
            _ => {}
        }
    }
}
