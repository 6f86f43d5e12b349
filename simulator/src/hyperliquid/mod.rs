//! Hyperliquid: subscriptions by messages of their own, whole books by time, questions posted to `/info`. Market data only:
//! what an account does is not simulated, its subscriptions are acknowledged and stay empty.

mod data;
mod feed;
mod info;
mod past;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

pub use self::data::trade_number;
use self::feed::{Feed, Topic};
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::market::Event;
use crate::orders::Update;

#[derive(Debug, Default)]
struct Session {
    /// What it asked for, as the venue would name it.
    topics: BTreeSet<String>,
    /// Real time at which something was last sent to it.
    spoken_ms: u64,
}

pub struct Hyperliquid {
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    /// Real times of the messages of the last minute, over all connections: the whole house is one address.
    messages: VecDeque<u64>,
    /// Weight of the requests of a minute.
    minute: u64,
    weight: u64,
}

/// Subscriptions of an account: acknowledged, and bounded by the number of users.
const USER_KINDS: &[&str] = &[
    "orderUpdates",
    "userEvents",
    "userFills",
    "userFundings",
    "userNonFundingLedgerUpdates",
    "notification",
    "webData2",
];

impl Hyperliquid {
    /// Gives every coin a past, so that there are candles of days to ask for. The seed decides it like the market.
    pub fn new(floor: &mut Floor, seed: u64) -> Self {
        let start_ms = floor.now_ms();
        for (listing, history) in floor.market.listings().iter().zip(&mut floor.history) {
            history.precede(past::minutes(listing, seed, start_ms));
        }
        Self { feed: Feed::default(), sessions: BTreeMap::new(), messages: VecDeque::new(), minute: 0, weight: 0 }
    }

    fn say(&mut self, floor: &mut Floor, client: ClientId, text: String, after_ms: u64) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.spoken_ms = floor.mono_ms;
        }
        floor.answer(client, text, after_ms);
    }

    fn refuse(&mut self, floor: &mut Floor, client: ClientId, why: &str) {
        self.say(floor, client, json!({ "channel": "error", "data": why }).to_string(), 0);
    }

    fn subscriptions(&self) -> usize {
        self.sessions.values().map(|s| s.topics.len()).sum()
    }

    /// Users whose private data is subscribed to, with one more.
    fn users_with(&self, user: &str) -> usize {
        let of = |topic: &String| topic.split_once("/user/").map(|(_, user)| user.to_owned());
        let mut users: BTreeSet<String> = self.sessions.values().flat_map(|s| s.topics.iter().filter_map(of)).collect();
        users.insert(user.to_owned());
        users.len()
    }

    fn subscribe(&mut self, floor: &mut Floor, client: ClientId, wanted: &Value) {
        let Some(topic) = Topic::parse(floor, wanted) else {
            // How a coin that is not traded is refused is not recorded; this is what clients report.
            return self.refuse(floor, client, &format!("Invalid subscription {wanted}"));
        };
        let (key, config) = (topic.key(), floor.config.hyperliquid.clone());
        if self.sessions.get(&client).is_some_and(|s| s.topics.contains(&key)) {
            return self.refuse(floor, client, &format!("Already subscribed: {wanted}"));
        }
        if self.subscriptions() >= config.subscriptions_max {
            let why = format!("Cannot track more than {} total subscriptions.", config.subscriptions_max);
            return self.refuse(floor, client, &why);
        }
        if let Topic::User { user, .. } = &topic
            && self.users_with(user) > config.users_max
        {
            return self.refuse(floor, client, &format!("Cannot track more than {} total users.", config.users_max));
        }
        if let Some(session) = self.sessions.get_mut(&client) {
            session.topics.insert(key);
        }
        let late_ms = floor.faults.take("late_ack", "").map_or(0, |f| f.ms);
        self.say(floor, client, acknowledgement("subscribe", wanted), late_ms);
        self.feed.subscribe(floor, topic, client);
    }

    fn unsubscribe(&mut self, floor: &mut Floor, client: ClientId, wanted: &Value) {
        let known = Topic::parse(floor, wanted);
        let left = known.filter(|t| self.sessions.get_mut(&client).is_some_and(|s| s.topics.remove(&t.key())));
        match left {
            Some(topic) => {
                self.feed.unsubscribe(&topic.key(), client);
                self.say(floor, client, acknowledgement("unsubscribe", wanted), 0);
            }
            None => self.refuse(floor, client, &format!("Already unsubscribed: {wanted}")),
        }
    }

    /// A question on the socket: the answers of `/info`; orders are not simulated.
    fn post(&mut self, floor: &mut Floor, client: ClientId, request: &Value) {
        let asked = &request["request"];
        let response = match asked["type"].as_str() {
            Some("info") => match self.question(floor, &asked["payload"]) {
                Ok(answer) => {
                    json!({ "type": "info", "payload": { "type": asked["payload"]["type"], "data": answer } })
                }
                Err(reply) => json!({ "type": "error", "payload": format!("{} {}", reply.status, reply.body) }),
            },
            _ => json!({ "type": "error", "payload": "orders are not simulated" }),
        };
        let answer = json!({ "channel": "post", "data": { "id": request["id"], "response": response } });
        self.say(floor, client, answer.to_string(), 0);
    }

    /// Counts a message of the minute; false when it was one too many.
    fn count(&mut self, floor: &Floor) -> bool {
        let now = floor.mono_ms;
        while self.messages.front().is_some_and(|at| at + 60_000 <= now) {
            self.messages.pop_front();
        }
        if self.messages.len() >= floor.config.hyperliquid.messages_per_minute_max {
            return false;
        }
        self.messages.push_back(now);
        true
    }

    /// Takes weight from the minute's budget; false when it is spent.
    fn spend(&mut self, floor: &Floor, weight: u64) -> bool {
        let minute = floor.mono_ms / 60_000;
        if self.minute != minute {
            (self.minute, self.weight) = (minute, 0);
        }
        self.weight += weight;
        self.weight <= floor.config.hyperliquid.weight_per_minute_max
    }

    /// The answer to a question, or the refusal.
    fn question(&mut self, floor: &mut Floor, question: &Value) -> Result<Value, Reply> {
        if floor.faults.take("rest_429", "").is_some() {
            let mut reply = Reply::json(429, "null");
            reply.headers.push(("retry-after".to_owned(), "1".to_owned()));
            return Err(reply);
        }
        let (answer, weight) = info::answer(floor, question)?;
        match self.spend(floor, weight) {
            true => Ok(answer),
            // The venue names no time.
            false => Err(Reply::json(429, "null")),
        }
    }
}

fn acknowledgement(method: &str, subscription: &Value) -> String {
    let data = json!({ "method": method, "subscription": subscription });
    json!({ "channel": "subscriptionResponse", "data": data }).to_string()
}

impl Protocol for Hyperliquid {
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
        if path != "/ws" {
            return Err(Reply::json(404, "null"));
        }
        if self.sessions.len() >= floor.config.hyperliquid.connections_max {
            return Err(Reply::json(429, "null"));
        }
        self.sessions.insert(client, Session { spoken_ms: floor.mono_ms, ..Session::default() });
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        if !self.count(floor) {
            // What the venue does then is not recorded; to end the connection is what it does with other limits.
            floor.hub.put(client, Out::Close(1008, "too many messages".to_owned()));
            return;
        }
        let Ok(request) = serde_json::from_str::<Value>(text) else {
            let why = format!("Error parsing JSON into valid websocket request: {text}");
            return self.refuse(floor, client, &why);
        };
        match request["method"].as_str() {
            Some("subscribe") => self.subscribe(floor, client, &request["subscription"]),
            Some("unsubscribe") => self.unsubscribe(floor, client, &request["subscription"]),
            Some("ping") if floor.faults.take("no_pong", "").is_some() => {}
            Some("ping") => self.say(floor, client, json!({ "channel": "pong" }).to_string(), 0),
            Some("post") => self.post(floor, client, &request),
            _ => {
                let why = format!("Error parsing JSON into valid websocket request: {text}");
                self.refuse(floor, client, &why);
            }
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.remove(&client) else { return };
        for topic in &session.topics {
            self.feed.unsubscribe(topic, client);
        }
    }

    /// Who has heard nothing for a minute is let go: that a client's ping is answered keeps it.
    fn beat(&mut self, floor: &mut Floor) {
        let (now, max) = (floor.mono_ms, floor.config.hyperliquid.silence_ms_max);
        for (client, at) in self.feed.spoken(now) {
            if let Some(session) = self.sessions.get_mut(&client) {
                session.spoken_ms = session.spoken_ms.max(at);
            }
        }
        let over = |s: &Session| now.saturating_sub(s.spoken_ms) >= max;
        let quiet: Vec<ClientId> = self.sessions.iter().filter(|(_, s)| over(s)).map(|(id, _)| *id).collect();
        for client in quiet {
            floor.hub.put(client, Out::Close(1000, "Inactive".to_owned()));
            floor.hub.leave(client);
            self.gone(floor, client);
        }
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/info") {
            return Reply::json(404, "null");
        }
        let Ok(question) = serde_json::from_str::<Value>(&request.body) else {
            return Reply::json(422, "Failed to deserialize the JSON body into the target type");
        };
        match self.question(floor, &question) {
            Ok(answer) => Reply::json(200, answer),
            Err(reply) => reply,
        }
    }

    fn strike(&mut self, _floor: &mut Floor, _command: &Command) {}
}
