//! OKX: three sockets that refuse each other's channels, bare texts as pings, books that chain by `seqId`, REST. Market data
//! only: nobody can log in.

mod data;
mod feed;
mod rest;

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

pub use self::data::swap;
use self::feed::{Feed, Path};
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::market::Event;
use crate::orders::Update;

#[derive(Debug)]
struct Session {
    path: Path,
    /// When it was heard last, and when its requests of the last hour came, in real time.
    heard_ms: u64,
    requests: VecDeque<u64>,
}

#[derive(Default)]
pub struct Okx {
    feed: Feed,
    sessions: BTreeMap<ClientId, Session>,
    /// REST requests of the last two seconds, by endpoint.
    calls: BTreeMap<String, VecDeque<u64>>,
    /// Connections that a notice was sent to, and when they are closed.
    closing: Vec<(u64, ClientId)>,
    /// A maintenance that was told of: when it is over in real time, and its begin and end.
    work: Option<(u64, i64, i64)>,
}

const HOUR_MS: u64 = 3_600_000;
/// What is worked on during a maintenance.
const WORK: &str = "Trading account WebSocket system upgrade";

fn connection_id(client: ClientId) -> String {
    format!("{client:08x}")
}

fn error(client: ClientId, id: &str, code: u32, message: &str) -> String {
    let conn = connection_id(client);
    format!(r#"{{{id}"event":"error","msg":"{message}","code":"{code}","connId":"{conn}"}}"#)
}

/// `channel:books,instId:BTC-USDT`, as a refusal names it.
fn named(arg: &Value) -> String {
    let of =
        ["instId", "instType", "instFamily"].iter().find_map(|key| Some(format!(",{key}:{}", arg[*key].as_str()?)));
    format!("channel:{}{}", arg["channel"].as_str().unwrap_or_default(), of.unwrap_or_default())
}

/// What a client sent may be repeated to it only as plain text.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Okx {
    fn request(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let request: Value = serde_json::from_str(text).unwrap_or_default();
        let id = match request["id"].as_str() {
            Some(id) if is_plain(id) => format!(r#""id":"{id}","#),
            _ => String::new(),
        };
        let now = floor.mono_ms;
        while session.requests.front().is_some_and(|at| at + HOUR_MS <= now) {
            session.requests.pop_front();
        }
        let op = request["op"].as_str().unwrap_or_default();
        let known = ["subscribe", "unsubscribe", "login"].contains(&op);
        if known && session.requests.len() >= floor.config.okx.requests_per_hour_max {
            return floor.hub.text(client, error(client, &id, 60014, "Requests too frequent."));
        }
        let path = session.path;
        if known {
            session.requests.push_back(now);
        }
        match (op, request["args"].as_array()) {
            ("login", _) => floor.hub.text(client, error(client, &id, 60009, "Login failed.")),
            ("subscribe" | "unsubscribe", _) if path == Path::Private => {
                floor.hub.text(client, error(client, &id, 60011, "Please log in."));
            }
            ("subscribe", Some(args)) => {
                args.iter().for_each(|arg| self.subscribe(floor, client, path, &id, arg));
            }
            ("unsubscribe", Some(args)) => {
                for arg in args {
                    let arg = feed::canonical(arg);
                    self.feed.unsubscribe(&arg, client);
                    floor.answer(client, acknowledgement("unsubscribe", &id, &arg, client), 0);
                }
            }
            _ => floor.hub.text(client, error(client, &id, 60012, "Illegal request.")),
        }
    }

    fn subscribe(&mut self, floor: &mut Floor, client: ClientId, path: Path, id: &str, arg: &Value) {
        if !self.feed.subscribe(floor, path, arg, client) {
            let name = named(arg);
            let name =
                if name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') { &name } else { "channel:?" };
            let why = format!(
                "Wrong URL or {name} doesn't exist. Please use the correct URL, channel and parameters referring to API document."
            );
            return floor.hub.text(client, error(client, id, 60018, &why));
        }
        let arg = feed::canonical(arg);
        let late_ms = floor.faults.take("late_ack", "").map_or(0, |fault| fault.ms);
        floor.answer(client, acknowledgement("subscribe", id, &arg, client), late_ms);
        self.feed.welcome(floor, client, &arg);
    }
}

/// A row of `status`.
fn status(state: &str, (begin, end): (i64, i64), title: &str, ts: i64) -> String {
    format!(
        r#"{{"begin":"{begin}","end":"{end}","href":"","preOpenBegin":"","scheDesc":"","serviceType":"0","state":"{state}","system":"unified","maintType":"1","env":"1","title":"{title}","ts":"{ts}"}}"#
    )
}

fn acknowledgement(event: &str, id: &str, arg: &str, client: ClientId) -> String {
    format!(r#"{{{id}"event":"{event}","arg":{arg},"connId":"{}"}}"#, connection_id(client))
}

impl Protocol for Okx {
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
        let path = match path {
            "/ws/v5/public" => Path::Public,
            "/ws/v5/business" => Path::Business,
            "/ws/v5/private" => Path::Private,
            _ => return Err(Reply::json(404, "")),
        };
        self.sessions.insert(client, Session { path, heard_ms: floor.mono_ms, requests: VecDeque::new() });
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.heard_ms = floor.mono_ms;
        }
        match text {
            "ping" if floor.faults.take("no_pong", "").is_some() => {}
            "ping" => floor.hub.text(client, "pong"),
            text => self.request(floor, client, text),
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        self.sessions.remove(&client);
        self.feed.gone(client);
    }

    /// Closes who neither spoke nor was spoken to, and who was told to go.
    fn beat(&mut self, floor: &mut Floor) {
        let now = floor.mono_ms;
        for (client, session) in &mut self.sessions {
            let spoken = self.feed.spoken_ms.get(client).copied().unwrap_or(0);
            if session.heard_ms.max(spoken) + floor.config.okx.idle_ms <= now {
                session.heard_ms = now;
                floor.hub.put(*client, Out::Close(4004, "No data received in 30s.".to_owned()));
            }
        }
        for (_, client) in self.closing.extract_if(.., |(at, _)| *at <= now) {
            floor.hub.put(client, Out::Close(1001, "service upgrade".to_owned()));
        }
        if let Some((_, begin, end)) = self.work.take_if(|(until_ms, ..)| *until_ms <= now) {
            self.feed.status(floor, &status("completed", (begin, end), WORK, floor.now_ms()));
        }
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        self.answer(floor, request)
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        match command.kind.as_str() {
            "upgrade_notice" => {
                for client in self.sessions.keys() {
                    let conn = connection_id(*client);
                    let why = "The connection will soon be closed for a service upgrade. Please reconnect.";
                    floor.hub.text(
                        *client,
                        format!(r#"{{"event":"notice","code":"64008","msg":"{why}","connId":"{conn}"}}"#),
                    );
                    self.closing.push((floor.mono_ms + command.ms, *client));
                }
                let now = floor.now_ms();
                let data = status("ongoing", (now, now + command.ms as i64), "service upgrade", now);
                self.feed.status(floor, &data);
            }
            "status" => {
                let (begin, end) = (floor.now_ms(), floor.now_ms() + command.ms as i64);
                self.work = Some((floor.mono_ms + command.ms, begin, end));
                self.feed.status(floor, &status("ongoing", (begin, end), WORK, begin));
            }
            "keep_alive" => self.feed.keep_alive(floor),
            "reset_sequence" => self.feed.reset_sequence(floor),
            _ => {}
        }
    }
}
