//! Binance: spot, USD-M and COIN-M futures over one implementation. Market streams, WebSocket API, user data, REST.

pub mod channel;
pub mod encode;
pub mod feed;
mod rest;
mod trading;
mod user;
mod wsapi;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use self::channel::Route;
use self::encode::Unit;
use self::feed::{Feed, Manner};
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::instrument::VenueId;
use crate::market::{Event, Snapshot};
use crate::orders::Update;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Streams,
    /// Requests with answers (orders, user data of the spot market).
    Api,
    /// User data of the futures by listen key.
    User,
}

#[derive(Debug)]
struct Session {
    purpose: Purpose,
    route: Route,
    manner: Manner,
    names: BTreeSet<String>,
    /// Times of the last messages in real milliseconds.
    messages: VecDeque<u64>,
    born_ms: u64,
    ping_at_ms: u64,
    /// Payload of the ping that waits for its echo, and until when.
    awaited: Option<(String, u64)>,
    /// Number of its user data subscription (spot WebSocket API).
    user: Option<u64>,
    /// Which user events it wants; empty: all (futures `events=`).
    wanted: Vec<String>,
    listen_key: Option<String>,
}

/// Requests and orders counted in their windows.
#[derive(Debug, Default)]
struct Budget {
    minute: u64,
    weight: u64,
    warnings: u32,
    banned_until_ms: u64,
    /// Real times of the orders of the last ten seconds.
    orders: VecDeque<u64>,
    orders_of_day: u64,
}

pub struct Binance {
    venue: VenueId,
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    budget: Budget,
    /// Futures listen keys and when they end in real milliseconds.
    listen_keys: BTreeMap<String, u64>,
    next_subscription: u64,
    next_listen_key: u64,
    /// Books as they were when `snapshot_older` was armed.
    old_books: BTreeMap<usize, Snapshot>,
    next_execution: u64,
}

/// Subscriptions and listen keys that may exist at the same time.
const LISTEN_KEYS_MAX: usize = 64;

impl Binance {
    pub fn new(venue: VenueId) -> Self {
        Self {
            venue,
            feed: Feed::default(),
            sessions: BTreeMap::new(),
            budget: Budget::default(),
            listen_keys: BTreeMap::new(),
            next_subscription: 0,
            next_listen_key: 1,
            old_books: BTreeMap::new(),
            next_execution: 8_000_000,
        }
    }

    fn futures(&self) -> bool {
        self.venue != VenueId::BinanceSpot
    }

    fn open(&mut self, floor: &Floor, client: ClientId, purpose: Purpose, route: Route, manner: Manner) {
        let config = &floor.config.binance;
        let period = if self.futures() { config.futures_ping_period_ms } else { config.spot_ping_period_ms };
        let session = Session {
            purpose,
            route,
            manner,
            names: BTreeSet::new(),
            messages: VecDeque::new(),
            born_ms: floor.mono_ms,
            ping_at_ms: floor.mono_ms + period,
            awaited: None,
            user: None,
            wanted: Vec::new(),
            listen_key: None,
        };
        self.sessions.insert(client, session);
    }

    fn subscribe(&mut self, floor: &Floor, client: ClientId, name: &str) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if !session.names.insert(name.to_owned()) {
            return;
        }
        // What another path carries is acknowledged and stays silent, like an unknown stream.
        let carried = channel::parse(name, self.venue)
            .is_none_or(|(_, c)| session.route == Route::Any || session.route == c.route());
        if carried {
            self.feed.subscribe(floor, name, client, session.manner);
        }
    }

    /// Counts an incoming message; false when it was one too many and the connection ends.
    fn count(&mut self, floor: &mut Floor, client: ClientId) -> bool {
        let config = &floor.config.binance;
        let max =
            if self.futures() { config.futures_messages_per_second_max } else { config.spot_messages_per_second_max };
        let Some(session) = self.sessions.get_mut(&client) else { return false };
        if session.purpose == Purpose::Api {
            return true; // The WebSocket API is bounded by weight.
        }
        let now = floor.mono_ms;
        while session.messages.front().is_some_and(|at| *at + 1_000 <= now) {
            session.messages.pop_front();
        }
        session.messages.push_back(now);
        if session.messages.len() > max {
            floor.hub.put(client, Out::Close(1008, "Too many requests".to_owned()));
            return false;
        }
        true
    }

    fn stream_request(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let bad = |msg: &str, id: Option<&Value>| {
            let mut body = json!({ "code": 2, "msg": format!("Invalid request: {msg}") });
            if let Some(id) = id {
                body["id"] = id.clone();
            }
            body.to_string()
        };
        let request: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(e) => return floor.hub.text(client, bad(&format!("invalid JSON: {e}"), None)),
        };
        let id = request.get("id").filter(|id| id.is_u64() || id.is_string() || id.is_null());
        let Some(id) = id else {
            return floor.hub.text(client, bad("request ID must be an unsigned integer or a string", None));
        };
        let params: Option<Vec<String>> =
            request.get("params").and_then(|p| p.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        let mut late_ms = 0;
        let result = match (request["method"].as_str(), params) {
            (Some("SUBSCRIBE"), Some(names)) => {
                let held = self.sessions.get(&client).map_or(0, |s| s.names.len());
                if held + names.len() > floor.config.binance.streams_per_connection_max {
                    return floor.hub.text(client, bad("too many streams on this connection", Some(id)));
                }
                names.iter().for_each(|name| self.subscribe(floor, client, name));
                late_ms = floor.faults.take("late_ack", "").map_or(0, |f| f.ms);
                Value::Null
            }
            (Some("UNSUBSCRIBE"), Some(names)) => {
                for name in &names {
                    if let Some(session) = self.sessions.get_mut(&client)
                        && session.names.remove(name)
                    {
                        self.feed.unsubscribe(name, client, session.manner.unit);
                    }
                }
                Value::Null
            }
            (Some("LIST_SUBSCRIPTIONS"), _) => {
                json!(self.sessions.get(&client).map(|s| s.names.iter().collect::<Vec<_>>()).unwrap_or_default())
            }
            (Some("SET_PROPERTY"), _) => {
                let (Some("combined"), Some(on)) = (request["params"][0].as_str(), request["params"][1].as_bool())
                else {
                    return floor.hub.text(client, bad("the property is `combined`, true or false", Some(id)));
                };
                self.set_combined(floor, client, on);
                Value::Null
            }
            (Some("GET_PROPERTY"), _) => {
                json!(self.sessions.get(&client).is_some_and(|s| s.manner.combined))
            }
            (Some(method @ ("SUBSCRIBE" | "UNSUBSCRIBE")), None) => {
                return floor.hub.text(client, bad(&format!("{method} needs an array of strings as params"), Some(id)));
            }
            (Some(other), _) => {
                let why = format!(
                    "unknown variant `{other}`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
                );
                return floor.hub.text(client, bad(&why, Some(id)));
            }
            (None, _) => return floor.hub.text(client, bad("missing field `method`", Some(id))),
        };
        let id = serde_json::to_string(id).unwrap_or_default();
        floor.answer(client, format!(r#"{{"result":{result},"id":{id}}}"#), late_ms);
    }

    fn set_combined(&mut self, floor: &Floor, client: ClientId, on: bool) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let before = std::mem::replace(&mut session.manner.combined, on);
        if before == on {
            return;
        }
        let (names, manner) = (session.names.clone(), session.manner);
        for name in names {
            self.feed.unsubscribe(&name, client, manner.unit);
            self.feed.subscribe(floor, &name, client, manner);
        }
    }

    fn shutdown(&mut self, floor: &mut Floor) {
        let at = floor.now_ms();
        for (client, session) in &self.sessions {
            let event = format!(r#"{{"e":"serverShutdown","E":{at}}}"#);
            let text = match (session.purpose, session.manner.combined) {
                (Purpose::Streams, true) => format!(r#"{{"stream":"!serverShutdown","data":{event}}}"#),
                _ => event,
            };
            floor.hub.text(*client, text);
            floor.hub.put(*client, Out::Close(1001, "server shutdown".to_owned()));
        }
    }
}

/// `a=1&b=2` as decoded pairs in their order.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 2;
            }
            None => out.push(if bytes[i] == b'+' { b' ' } else { bytes[i] }),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Protocol for Binance {
    fn event(&mut self, floor: &mut Floor, event: &Event) {
        self.feed.event(floor, event);
    }

    fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        self.feed.time(floor, at_ns);
    }

    fn update(&mut self, floor: &mut Floor, update: &Update) {
        self.push(floor, update);
    }

    fn recorded(&mut self, floor: &mut Floor, stream: &str, data: &str) {
        self.feed.recorded(floor, stream, data);
    }

    fn listened(&self) -> bool {
        self.feed.listened()
    }

    fn connect(&mut self, floor: &mut Floor, client: ClientId, path: &str, query: &str) -> Result<(), Reply> {
        let query = pairs(query);
        let get = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let unit = match get("timeUnit") {
            Some(unit) if unit.eq_ignore_ascii_case("MICROSECOND") && !self.futures() => Unit::Micro,
            _ => Unit::Milli,
        };
        let (route, rest) = match path.split('/').nth(1) {
            Some("public") if self.futures() => (Route::Public, &path["/public".len()..]),
            Some("market") if self.futures() => (Route::Market, &path["/market".len()..]),
            Some("private") if self.futures() => (Route::Private, &path["/private".len()..]),
            _ => (Route::Any, path),
        };
        let api = if self.futures() { "/ws-fapi/v1" } else { "/ws-api/v3" };
        if rest == api {
            self.open(floor, client, Purpose::Api, Route::Any, Manner { combined: false, unit });
            return Ok(());
        }
        let (combined, names): (bool, Vec<String>) = match rest.strip_prefix("/ws") {
            Some("") => (false, Vec::new()),
            Some(names) if names.starts_with('/') => (false, names[1..].split('/').map(decode).collect()),
            _ if rest == "/stream" => {
                (true, get("streams").map(|s| s.split('/').map(str::to_owned).collect()).unwrap_or_default())
            }
            _ => return Err(Reply::json(404, "")),
        };
        let manner = Manner { combined, unit };
        let names: Vec<String> = names.into_iter().filter(|n| !n.is_empty()).collect();
        if names.len() > floor.config.binance.streams_per_connection_max {
            return Err(Reply::json(400, r#"{"code":3,"msg":"too many streams"}"#));
        }
        let key = get("listenKey").map(str::to_owned).or_else(|| names.first().cloned());
        if let Some(key) = key.filter(|key| self.listen_keys.contains_key(key)) {
            self.open(floor, client, Purpose::User, route, manner);
            if let Some(session) = self.sessions.get_mut(&client) {
                session.listen_key = Some(key);
                session.wanted = get("events").map(|e| e.split('/').map(str::to_owned).collect()).unwrap_or_default();
            }
            return Ok(());
        }
        if route == Route::Private {
            return Err(Reply::json(400, r#"{"code":-1125,"msg":"This listenKey does not exist."}"#));
        }
        self.open(floor, client, Purpose::Streams, route, manner);
        names.iter().for_each(|name| self.subscribe(floor, client, name));
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        if !self.count(floor, client) {
            return;
        }
        match self.sessions.get(&client).map(|s| s.purpose) {
            Some(Purpose::Api) => self.api_request(floor, client, text),
            Some(_) => self.stream_request(floor, client, text),
            None => {}
        }
    }

    fn control(&mut self, floor: &mut Floor, client: ClientId, pong: Option<&[u8]>) {
        if !self.count(floor, client) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        // Only the echo of our payload counts as life.
        if session.awaited.as_ref().is_some_and(|(payload, _)| Some(payload.as_bytes()) == pong) {
            session.awaited = None;
        }
    }

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.remove(&client) else { return };
        for name in &session.names {
            self.feed.unsubscribe(name, client, session.manner.unit);
        }
    }

    fn beat(&mut self, floor: &mut Floor) {
        let config = floor.config.binance.clone();
        let (period, wait) = if self.futures() {
            (config.futures_ping_period_ms, config.futures_pong_wait_ms)
        } else {
            (config.spot_ping_period_ms, config.spot_pong_wait_ms)
        };
        let now = floor.mono_ms;
        for (client, session) in &mut self.sessions {
            if session.awaited.as_ref().is_some_and(|(_, until)| *until <= now)
                || now >= session.born_ms + config.connection_life_ms_max
            {
                floor.hub.put(*client, Out::Cut);
            } else if session.ping_at_ms <= now {
                session.ping_at_ms = now + period;
                let payload = floor.now_ms().to_string();
                floor.hub.put(*client, Out::Ping(payload.clone().into()));
                // The deadline of an echo that is owed already stays.
                let until = session.awaited.as_ref().map_or(now + wait, |(_, until)| *until);
                session.awaited = Some((payload, until));
            }
        }
        self.listen_keys.retain(|_, until| *until > now);
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        self.rest_request(floor, request)
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        match command.kind.as_str() {
            "server_shutdown" => self.shutdown(floor),
            "end_of_life" => self.sessions.keys().for_each(|c| floor.hub.put(*c, Out::Cut)),
            "ping" => {
                let payload = format!("ping-{}", floor.mono_ms);
                for (client, session) in &mut self.sessions {
                    floor.hub.put(*client, Out::Ping(payload.clone().into()));
                    session.awaited = Some((payload.clone(), floor.mono_ms + command.ms));
                }
            }
            "snapshot_older" => {
                let all = 0..floor.market.listings().len();
                self.old_books = all.map(|i| (i, floor.market.snapshot(i, 5_000))).collect();
            }
            "listen_key_expired" => self.expire_listen_keys(floor),
            "stream_terminated" => self.terminate_user_streams(floor),
            _ => {}
        }
    }
}
