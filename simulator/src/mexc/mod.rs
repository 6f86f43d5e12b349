//! MEXC: spot (protobuf frames beside JSON answers) and contract (JSON) over one implementation. Market data only: no orders,
//! no private streams.

mod channel;
mod encode;
mod feed;
pub mod proto;
mod rest;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use self::channel::is_spot;
use self::feed::Feed;
use self::rest::Budget;
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::market::{Event, Snapshot};
use crate::orders::Update;

#[derive(Debug)]
struct Session {
    topics: BTreeSet<String>,
    /// Real times: of its beginning, of the last message from it, and since when it has no subscription.
    born_ms: u64,
    heard_ms: u64,
    idle_ms: u64,
    /// Of the messages of the last second.
    messages: VecDeque<u64>,
}

pub struct Mexc {
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    budget: Budget,
    /// Books as they were when `snapshot_older` was armed.
    old_books: BTreeMap<usize, Snapshot>,
}

impl Mexc {
    pub fn new() -> Self {
        Self { feed: Feed::default(), sessions: BTreeMap::new(), budget: Budget::default(), old_books: BTreeMap::new() }
    }

    /// Counts an incoming message; false when it was one too many and the connection ends.
    fn count(&mut self, floor: &mut Floor, client: ClientId) -> bool {
        let (now, max) = (floor.mono_ms, floor.config.mexc.messages_per_second_max);
        let Some(session) = self.sessions.get_mut(&client) else { return false };
        session.heard_ms = now;
        while session.messages.front().is_some_and(|at| *at + 1_000 <= now) {
            session.messages.pop_front();
        }
        session.messages.push_back(now);
        if session.messages.len() > max {
            floor.hub.put(client, Out::Close(1008, "too many requests".to_owned()));
            return false;
        }
        true
    }

    /// A refused channel is answered with code 0 too.
    fn spot_request(&mut self, floor: &mut Floor, client: ClientId, method: &str, request: &Value) {
        let answer = |msg: &str| json!({ "id": 0, "code": 0, "msg": msg }).to_string();
        let params = request["params"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = params.iter().filter_map(Value::as_str).collect();
        match method {
            "PING" => {
                if floor.faults.take("no_pong", "").is_none() {
                    floor.hub.text(client, answer("PONG"));
                }
            }
            "SUBSCRIPTION" => {
                let late_ms = floor.faults.take("late_ack", "").map_or(0, |f| f.ms);
                let (mut good, mut bad) = (Vec::new(), Vec::new());
                for name in names {
                    let room = floor.config.mexc.subscriptions_per_connection_max;
                    let full = self.sessions.get(&client).is_some_and(|s| s.topics.len() >= room);
                    let blocked = floor.faults.take("refuse_channel", "").is_some();
                    match channel::spot(floor, name).filter(|_| !full && !blocked) {
                        Some(topic) => {
                            self.subscribe(floor, client, topic);
                            good.push(name);
                        }
                        None => bad.push(name),
                    }
                }
                if !good.is_empty() {
                    floor.answer(client, answer(&good.join(",")), late_ms);
                }
                if !bad.is_empty() {
                    let list = bad.join(",");
                    floor.answer(
                        client,
                        answer(&format!("Not Subscribed successfully! [{list}].  Reason： Blocked! ")),
                        0,
                    );
                }
            }
            "UNSUBSCRIPTION" => {
                names.iter().for_each(|name| self.unsubscribe(floor, client, name));
                floor.hub.text(client, answer(&names.join(",")));
            }
            other => floor
                .hub
                .text(client, json!({ "id": 0, "code": 1, "msg": format!("unknown method {other}") }).to_string()),
        }
    }

    fn contract_request(&mut self, floor: &mut Floor, client: ClientId, method: &str, request: &Value) {
        let now = floor.now_ms();
        let answer = |channel: &str, data: &str| json!({ "channel": channel, "data": data, "ts": now }).to_string();
        if method == "ping" {
            if floor.faults.take("no_pong", "").is_none() {
                floor.hub.text(client, format!(r#"{{"channel":"pong","data":{now},"ts":{now}}}"#));
            }
            return;
        }
        let (verb, name) = method.split_once('.').unwrap_or((method, ""));
        let topic = channel::contract(floor, name, &request["param"]);
        let blocked = floor.faults.take("refuse_channel", "").is_some();
        match (verb, topic) {
            ("sub", Ok(topic)) if !blocked => {
                let late_ms = floor.faults.take("late_ack", "").map_or(0, |f| f.ms);
                self.subscribe(floor, client, topic);
                floor.answer(client, answer(&format!("rs.{method}"), "success"), late_ms);
            }
            ("unsub", Ok(topic)) => {
                self.unsubscribe(floor, client, &topic.name);
                floor.hub.text(client, answer(&format!("rs.{method}"), "success"));
            }
            ("sub", Ok(topic)) => {
                let i = topic.instrument.map_or(String::new(), |i| floor.market.listing(i).spec.symbol.clone());
                floor.hub.text(client, answer("rs.error", &format!("Contract [{i}] not allowed")));
            }
            ("sub" | "unsub", Err(why)) => floor.hub.text(client, answer("rs.error", &why)),
            _ => floor.hub.text(client, answer("rs.error", "method is wrong")),
        }
    }

    fn subscribe(&mut self, floor: &Floor, client: ClientId, topic: channel::Topic) {
        if let Some(session) = self.sessions.get_mut(&client)
            && session.topics.insert(topic.name.clone())
        {
            self.feed.subscribe(floor, topic, client);
        }
    }

    fn unsubscribe(&mut self, floor: &Floor, client: ClientId, name: &str) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if session.topics.remove(name) {
            session.idle_ms = floor.mono_ms;
            self.feed.unsubscribe(name, client);
        }
    }
}

impl Default for Mexc {
    fn default() -> Self {
        Self::new()
    }
}

impl Protocol for Mexc {
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
        if path != if is_spot(floor) { "/ws" } else { "/edge" } {
            return Err(Reply::json(404, ""));
        }
        let now = floor.mono_ms;
        let session =
            Session { topics: BTreeSet::new(), born_ms: now, heard_ms: now, idle_ms: now, messages: VecDeque::new() };
        self.sessions.insert(client, session);
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        if !self.count(floor, client) {
            return;
        }
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let method = request["method"].as_str().unwrap_or("").to_owned();
        if is_spot(floor) {
            self.spot_request(floor, client, &method, &request);
        } else {
            self.contract_request(floor, client, &method, &request);
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.remove(&client) else { return };
        session.topics.iter().for_each(|name| self.feed.unsubscribe(name, client));
        self.feed.flowed_ms.remove(&client);
    }

    /// Ends who is too old, has subscribed nothing, or says and hears nothing.
    fn beat(&mut self, floor: &mut Floor) {
        let (now, config) = (floor.mono_ms, floor.config.mexc.clone());
        for (client, session) in &self.sessions {
            let flowed = self.feed.flowed_ms.get(client).copied().unwrap_or(0).max(session.heard_ms);
            let reason = if session.born_ms + config.connection_life_ms_max <= now {
                "the connection is too old"
            } else if session.topics.is_empty() && session.idle_ms + config.unsubscribed_ms_max <= now {
                "no subscription"
            } else if flowed + config.idle_ms_max <= now {
                "no data"
            } else {
                continue;
            };
            floor.hub.put(*client, Out::Close(1000, reason.to_owned()));
        }
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        self.rest_request(floor, request)
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        match command.kind.as_str() {
            "end_of_life" => self.sessions.keys().for_each(|client| floor.hub.put(*client, Out::Cut)),
            "snapshot_older" => {
                let books = (0..floor.market.listings().len()).map(|i| (i, floor.market.snapshot(i, usize::MAX)));
                self.old_books = books.collect();
            }
            _ => {}
        }
    }
}
