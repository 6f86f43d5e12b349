//! Deribit: JSON-RPC over WebSocket and over HTTP, books that chain by change id, heartbeats, orders with pushes.

mod data;
mod feed;
mod methods;
mod trading;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::feed::Feed;
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::market::Event;
use crate::orders::Update;

/// A JSON-RPC error with its optional data.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcError {
    pub code: i64,
    pub message: &'static str,
    pub data: Option<Value>,
}

impl RpcError {
    fn new(code: i64, message: &'static str) -> Self {
        Self { code, message, data: None }
    }
    /// -32602 with the parameter and what is wrong with it.
    fn param(param: &str, reason: &str) -> Self {
        let data = Some(json!({ "reason": reason, "param": param }));
        Self { code: -32602, message: "Invalid params", data }
    }
}

#[derive(Debug, Default)]
struct Session {
    channels: BTreeSet<String>,
    /// Seconds between heartbeats, as asked for.
    heartbeat_s: Option<u64>,
    next_beat_ms: u64,
    /// A test_request went out and must be answered before this.
    test_until_ms: Option<u64>,
    token: Option<String>,
    cancel_on_disconnect: bool,
}

/// Credits that flow back with time.
#[derive(Debug)]
struct Bucket {
    left: f64,
    max: f64,
    per_ms: f64,
    at_ms: u64,
}

impl Bucket {
    fn new(max: u64, per_second: u64) -> Self {
        Self { left: max as f64, max: max as f64, per_ms: per_second as f64 / 1_000.0, at_ms: 0 }
    }
    fn take(&mut self, now_ms: u64, cost: u64) -> bool {
        self.left = (self.left + (now_ms - self.at_ms) as f64 * self.per_ms).min(self.max);
        self.at_ms = now_ms;
        let enough = self.left >= cost as f64;
        if enough {
            self.left -= cost as f64;
        }
        enough
    }
}

#[derive(Debug)]
struct Token {
    until_ms: u64,
    refresh: String,
}

/// Tokens that may be alive at the same time.
const TOKENS_MAX: usize = 256;

pub struct Deribit {
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    ordinary: Bucket,
    matching: Bucket,
    tokens: BTreeMap<String, Token>,
    next_token: u64,
    /// Who placed an order over which connection (cancel on disconnect). Closed orders leave.
    owners: BTreeMap<u64, ClientId>,
    /// Pushes of the present call, sent after its answer.
    pushes: Vec<(String, Value)>,
    in_call: bool,
    maintenance_until_ms: u64,
    /// A maintenance was announced, and its end was not.
    announced: bool,
    settlement_until_ms: u64,
    /// The next request is answered with 10028 and the session ends.
    flood: bool,
}

impl Deribit {
    pub fn new(floor: &Floor) -> Self {
        let config = &floor.config.deribit;
        Self {
            feed: Feed::default(),
            sessions: BTreeMap::new(),
            ordinary: Bucket::new(config.credits_max, config.credits_per_second),
            matching: Bucket::new(config.matching_burst_max, config.matching_per_second),
            tokens: BTreeMap::new(),
            next_token: 1,
            owners: BTreeMap::new(),
            pushes: Vec::new(),
            in_call: false,
            maintenance_until_ms: 0,
            announced: false,
            settlement_until_ms: 0,
            flood: false,
        }
    }

    /// One answer with the server's times around it.
    fn envelope(&self, floor: &Floor, id: &Value, outcome: Result<Value, RpcError>) -> String {
        let us_in = floor.now_ns / 1_000;
        // The work takes no virtual time; a microsecond keeps the difference positive.
        let tail = format!(r#""usIn":{us_in},"usOut":{},"usDiff":1,"testnet":true}}"#, us_in + 1);
        let id = match id {
            Value::Null => String::new(),
            id => format!(r#""id":{id},"#),
        };
        match outcome {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0",{id}"result":{result},{tail}"#),
            Err(e) => {
                let data = e.data.map(|d| format!(r#""data":{d},"#)).unwrap_or_default();
                let (code, message) = (e.code, e.message);
                format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},{data}"message":"{message}"}},{tail}"#)
            }
        }
    }

    /// One request, over whichever way it came. The second value says that the session ends after the answer.
    fn request(
        &mut self,
        floor: &mut Floor,
        client: Option<ClientId>,
        method: &str,
        params: &Value,
    ) -> (Result<Value, RpcError>, bool) {
        let matching = methods::is_matching(method);
        let config = &floor.config.deribit;
        let enough = match matching {
            true => self.matching.take(floor.mono_ms, 1),
            false => self.ordinary.take(floor.mono_ms, config.credits_per_request),
        };
        if std::mem::take(&mut self.flood) || !enough {
            return (Err(RpcError::new(10028, "too_many_requests")), true);
        }
        if matching && floor.mono_ms < self.maintenance_until_ms {
            return (Err(RpcError::new(11051, "system_maintenance")), false);
        }
        if matching && floor.mono_ms < self.settlement_until_ms {
            return (Err(RpcError::new(10041, "settlement_in_progress")), false);
        }
        self.in_call = true;
        let outcome = methods::call(self, floor, client, method, params);
        self.in_call = false;
        (outcome, false)
    }

    fn notify(floor: &mut Floor, client: ClientId, channel: &str, data: &Value) {
        let params = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
        floor.hub.text(client, format!(r#"{{"jsonrpc":"2.0","method":"subscription","params":{params}}}"#));
    }

    /// Whether it is locked for a maintenance.
    fn announce(&mut self, floor: &mut Floor) {
        let data = json!({ "locked": self.announced, "maintenance": self.announced, "price_index": "btc_usd" });
        self.pushes.push(("platform_state".to_owned(), data));
        self.flush_pushes(floor);
    }

    /// Sends what the call pushed to whoever follows those channels.
    fn flush_pushes(&mut self, floor: &mut Floor) {
        for (channel, data) in std::mem::take(&mut self.pushes) {
            for (client, session) in &self.sessions {
                if session.channels.contains(&channel) {
                    Self::notify(floor, *client, &channel, &data);
                }
            }
        }
    }

    fn authorized(&self, floor: &Floor, client: Option<ClientId>, params: &Value) -> Result<(), RpcError> {
        let session = client.and_then(|c| self.sessions.get(&c)).and_then(|s| s.token.as_deref());
        let Some(token) = params["access_token"].as_str().or(session) else {
            return Err(RpcError::new(10000, "authorization_required"));
        };
        match self.tokens.get(token) {
            Some(t) if t.until_ms > floor.mono_ms => Ok(()),
            _ => Err(RpcError {
                data: Some(json!({ "reason": "invalid_token" })),
                ..RpcError::new(13009, "unauthorized")
            }),
        }
    }
}

impl Protocol for Deribit {
    fn event(&mut self, floor: &mut Floor, event: &Event) {
        self.feed.event(floor, event);
    }

    fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        self.feed.time(floor, at_ns);
    }

    fn update(&mut self, floor: &mut Floor, update: &Update) {
        self.push(floor, update);
        if !self.in_call {
            self.flush_pushes(floor);
        }
    }

    fn recorded(&mut self, _floor: &mut Floor, _stream: &str, _data: &str) {}

    fn listened(&self) -> bool {
        self.feed.listened()
    }

    fn connect(&mut self, _floor: &mut Floor, client: ClientId, path: &str, _query: &str) -> Result<(), Reply> {
        if path != "/ws/api/v2" && path != "/ws/api/v2/" {
            return Err(Reply::json(404, ""));
        }
        self.sessions.insert(client, Session::default());
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let request: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => {
                let error = self.envelope(floor, &Value::Null, Err(RpcError::new(-32700, "Parse error")));
                return floor.hub.text(client, error);
            }
        };
        let id = request["id"].clone();
        let Some(method) = request["method"].as_str() else {
            let error = self.envelope(floor, &id, Err(RpcError::new(-32600, "Invalid Request")));
            return floor.hub.text(client, error);
        };
        let push_first = methods::is_matching(method) && floor.faults.take("push_first", "").is_some();
        let (outcome, end) = self.request(floor, Some(client), method, &request["params"]);
        if push_first {
            self.flush_pushes(floor);
        }
        let late_ms = match method {
            "public/subscribe" => floor.faults.take("late_ack", "").map_or(0, |f| f.ms),
            _ => 0,
        };
        let subscribed: Vec<String> = match (&outcome, method) {
            (Ok(result), "public/subscribe" | "private/subscribe") => {
                result.as_array().into_iter().flatten().filter_map(|c| c.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        let answer = self.envelope(floor, &id, outcome);
        floor.answer(client, answer, late_ms);
        self.flush_pushes(floor);
        // The first message of a book channel is its snapshot, after the answer.
        self.feed.welcome(floor, client, &subscribed);
        if end {
            floor.hub.put(client, Out::Close(1008, "too_many_requests".to_owned()));
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.remove(&client) else { return };
        for channel in &session.channels {
            self.feed.unsubscribe(channel, client);
        }
        let mine: Vec<u64> = self.owners.iter().filter(|(_, c)| **c == client).map(|(id, _)| *id).collect();
        for id in mine {
            self.owners.remove(&id);
            if session.cancel_on_disconnect {
                crate::floor::cancel(self, floor, id);
            }
        }
    }

    fn beat(&mut self, floor: &mut Floor) {
        let now = floor.mono_ms;
        let wait = floor.config.deribit.test_request_wait_ms;
        for (client, session) in &mut self.sessions {
            if session.test_until_ms.is_some_and(|until| until <= now) {
                session.test_until_ms = None;
                floor.hub.put(*client, Out::Close(1000, "heartbeat timeout".to_owned()));
                continue;
            }
            let Some(every) = session.heartbeat_s.filter(|_| session.next_beat_ms <= now) else { continue };
            session.next_beat_ms = now + every * 1_000;
            floor.hub.text(*client, r#"{"params":{"type":"heartbeat"},"method":"heartbeat","jsonrpc":"2.0"}"#);
            floor.hub.text(*client, r#"{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}"#);
            session.test_until_ms.get_or_insert(now + wait);
        }
        self.tokens.retain(|_, t| t.until_ms + 60_000 > now);
        if self.announced && self.maintenance_until_ms <= now {
            self.announced = false;
            self.announce(floor);
        }
    }

    /// `GET /api/v2/public/method?a=b` or a JSON-RPC body.
    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let Some(path) = request.path.strip_prefix("/api/v2") else { return Reply::json(404, "") };
        let mut method = path.trim_start_matches('/').to_owned();
        let mut id = Value::Null;
        let mut params = serde_json::Map::new();
        for (key, value) in crate::binance::pairs(&request.query) {
            // Numbers and booleans are read as such; names stay text.
            let read = serde_json::from_str(&value).ok().filter(|v: &Value| v.is_number() || v.is_boolean());
            params.insert(key, read.unwrap_or(Value::String(value)));
        }
        let mut params = Value::Object(params);
        if request.method == "POST" {
            let Ok(body) = serde_json::from_str::<Value>(&request.body) else {
                return Reply::json(400, self.envelope(floor, &id, Err(RpcError::new(-32700, "Parse error"))));
            };
            id = body["id"].clone();
            params = body["params"].clone();
            method = body["method"].as_str().map_or(method, str::to_owned);
        }
        if let Some(token) = request.headers.get("authorization").and_then(|a| a.strip_prefix("Bearer "))
            && params.is_object()
        {
            params["access_token"] = json!(token);
        }
        let (outcome, end) = self.request(floor, None, &method, &params);
        self.flush_pushes(floor);
        let status = match (&outcome, end) {
            (Ok(_), _) => 200,
            (Err(_), true) => 429,
            (Err(_), false) => 400,
        };
        Reply::json(status, self.envelope(floor, &id, outcome))
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        match command.kind.as_str() {
            "too_many_requests" => self.flood = true,
            "expire_tokens" => self.tokens.values_mut().for_each(|t| t.until_ms = 0),
            "test_request" => {
                let until = floor.mono_ms + floor.config.deribit.test_request_wait_ms.min(command.ms);
                for (client, session) in self.sessions.iter_mut().filter(|(_, s)| s.heartbeat_s.is_some()) {
                    floor
                        .hub
                        .text(*client, r#"{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}"#);
                    session.test_until_ms = Some(until);
                }
            }
            "maintenance" => {
                self.maintenance_until_ms = floor.mono_ms + command.ms;
                self.announced = true;
                self.announce(floor);
            }
            "settlement" => self.settlement_until_ms = floor.mono_ms + command.ms,
            _ => {}
        }
    }
}
