//! Coinbase: Advanced Trade, whose messages are numbered over a connection, and Exchange, whose are not.
//!
//! What the venue does on too many messages, and the texts of most refusals, were never recorded: here such a connection
//! is closed, and the texts are the documentation's.

mod data;
mod feed;
mod rest;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use self::feed::Channel;
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Reply, Request};
use crate::hub::{ClientId, Out};
use crate::instrument::VenueId;
use crate::market::Event;
use crate::orders::Update;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Api {
    Advanced,
    Exchange,
}

/// Channels that are had product by product.
const ADVANCED: &[&str] = &["level2", "market_trades", "ticker", "ticker_batch", "candles", "status"];
const EXCHANGE: &[&str] = &["level2_batch", "matches", "ticker", "heartbeat"];
const HEARTBEATS: &str = "heartbeats";

/// A channel and an instrument; none where it is of the whole market.
type Topic = (String, Option<usize>);

#[derive(Debug, Default)]
struct Session {
    topics: BTreeSet<Topic>,
    /// Number of the next message (Advanced).
    next: u64,
    opened_ms: u64,
    /// Something was subscribed.
    greeted: bool,
    last_sent_ms: u64,
    next_beat_ms: u64,
    beats: u64,
    messages: Window,
    /// Acknowledgements that wait for their time.
    late_acks: Vec<u64>,
}

/// Times of the last second.
#[derive(Debug, Default)]
struct Window(VecDeque<u64>);

impl Window {
    /// False: this is one more than `max` in a second.
    fn take(&mut self, now_ms: u64, max: usize) -> bool {
        while self.0.front().is_some_and(|at| at + 1_000 <= now_ms) {
            self.0.pop_front();
        }
        if self.0.len() >= max {
            return false;
        }
        self.0.push_back(now_ms);
        true
    }
}

pub struct Coinbase {
    api: Api,
    sessions: BTreeMap<ClientId, Session>,
    channels: BTreeMap<(String, usize), Channel>,
    /// When channels that gather are sent next.
    due_ns: i64,
    connects: Window,
    requests: Window,
    /// A product that is offline, and until when.
    halted: Option<(u64, usize)>,
}

impl Coinbase {
    pub fn new(venue: VenueId) -> Self {
        Self {
            api: if venue == VenueId::CoinbaseExchange { Api::Exchange } else { Api::Advanced },
            sessions: BTreeMap::new(),
            channels: BTreeMap::new(),
            due_ns: 0,
            connects: Window::default(),
            requests: Window::default(),
            halted: None,
        }
    }

    /// The number of a client's next message.
    fn number(&mut self, floor: &Floor, client: ClientId) -> u64 {
        let Some(session) = self.sessions.get_mut(&client) else { return 0 };
        session.last_sent_ms = floor.mono_ms;
        session.next += 1;
        session.next - 1
    }

    /// A message of Advanced: `events` is what stands in the list.
    fn say(&mut self, floor: &mut Floor, client: ClientId, channel: &str, events: &str) {
        let number = self.number(floor, client);
        Self::say_numbered(floor, client, number, channel, events);
    }

    fn say_numbered(floor: &mut Floor, client: ClientId, number: u64, channel: &str, events: &str) {
        if floor.faults.take("drop_message", "").is_some() {
            return;
        }
        let at = data::time(floor.now_ns, false);
        // Some messages of the venue have the member, some have not.
        let id = if number % 2 == 0 { r#""client_id":"","# } else { "" };
        floor.data(
            client,
            format!(r#"{{"channel":"{channel}",{id}"timestamp":"{at}","sequence_num":{number},"events":[{events}]}}"#),
        );
    }

    /// A refusal has no number and stands outside of the order.
    fn refuse(&self, floor: &mut Floor, client: ClientId, reason: &str) {
        let text = match self.api {
            // Whatever is wrong, this is what it says (recorded for a wrong channel).
            Api::Advanced => json!({ "type": "error", "message": "authentication failure" }),
            Api::Exchange => json!({ "type": "error", "message": "Failed to subscribe", "reason": reason }),
        };
        floor.data(client, text.to_string());
    }

    /// Lists all that a client has subscribed.
    fn acknowledge(&mut self, floor: &mut Floor, client: ClientId) {
        let Some(session) = self.sessions.get(&client) else { return };
        let mut channels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (channel, instrument) in &session.topics {
            let products = channels.entry(channel).or_default();
            match instrument {
                Some(i) => products.push(&floor.market.listing(*i).spec.symbol),
                None if self.api == Api::Advanced => products.push(channel),
                None => {}
            }
        }
        match self.api {
            Api::Advanced => {
                let events = json!({ "subscriptions": channels }).to_string();
                self.say(floor, client, "subscriptions", &events);
            }
            Api::Exchange => {
                let rows: Vec<Value> =
                    channels.iter().map(|(name, products)| json!({ "name": name, "product_ids": products })).collect();
                floor.data(client, json!({ "type": "subscriptions", "channels": rows }).to_string());
            }
        }
    }

    fn acknowledge_in_time(&mut self, floor: &mut Floor, client: ClientId) {
        match floor.faults.take("late_ack", "") {
            Some(fault) => {
                let due = floor.mono_ms + fault.ms;
                if let Some(session) = self.sessions.get_mut(&client) {
                    session.late_acks.push(due);
                }
            }
            None => self.acknowledge(floor, client),
        }
    }

    /// The instruments of a list of names, and the first name that is none.
    fn instruments(floor: &Floor, names: &Value) -> (Vec<usize>, Option<String>) {
        let names = names.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str);
        let (mut known, mut unknown) = (Vec::new(), None);
        for name in names {
            match floor.market.find(name) {
                Some(i) => known.push(i),
                None => unknown = unknown.or(Some(name.to_owned())),
            }
        }
        (known, unknown)
    }

    /// One channel a message; what is unknown is missing from the list. Snapshots come before the acknowledgement.
    fn advanced_request(&mut self, floor: &mut Floor, client: ClientId, request: &Value, on: bool) {
        let channel = request["channel"].as_str().unwrap_or("").to_owned();
        let refused = on && floor.faults.take("refuse", "").is_some();
        if refused || !(channel == HEARTBEATS || ADVANCED.contains(&channel.as_str())) {
            return self.refuse(floor, client, "");
        }
        if channel == HEARTBEATS {
            self.follow(floor, client, (channel, None), on);
            return self.acknowledge_in_time(floor, client);
        }
        let (mut instruments, _) = Self::instruments(floor, &request["product_ids"]);
        if on && floor.faults.take("leave_out", "").is_some() {
            instruments.pop();
        }
        for i in &instruments {
            self.follow(floor, client, (channel.clone(), Some(*i)), on);
        }
        if on {
            self.welcome(floor, client, &channel, &instruments);
        }
        self.acknowledge_in_time(floor, client);
    }

    /// Several channels a message, each with products of its own or with those of all. One wrong name refuses it whole.
    fn exchange_request(&mut self, floor: &mut Floor, client: ClientId, request: &Value, on: bool) {
        if on && floor.faults.take("refuse", "").is_some() {
            return self.refuse(floor, client, "refused on command");
        }
        let mut topics: Vec<Topic> = Vec::new();
        for row in request["channels"].as_array().map_or(&[][..], Vec::as_slice) {
            let name = row.as_str().or(row["name"].as_str()).unwrap_or("").to_owned();
            let own = if row["product_ids"].is_array() { &row["product_ids"] } else { &request["product_ids"] };
            match name.as_str() {
                "status" => topics.push((name, None)),
                "level2" | "level3" | "full" => {
                    return self.refuse(floor, client, "level2, level3, and full channels now require authentication.");
                }
                known if EXCHANGE.contains(&known) => {
                    let (instruments, unknown) = Self::instruments(floor, own);
                    if let Some(unknown) = unknown {
                        return self.refuse(floor, client, &format!("{unknown} is not a valid product"));
                    }
                    topics.extend(instruments.into_iter().map(|i| (name.clone(), Some(i))));
                }
                unknown => return self.refuse(floor, client, &format!("{unknown} is not a valid channel")),
            }
        }
        if on && floor.faults.take("leave_out", "").is_some() {
            topics.pop();
        }
        for topic in &topics {
            self.follow(floor, client, topic.clone(), on);
        }
        self.acknowledge_in_time(floor, client);
        if on {
            for (channel, instrument) in &topics {
                let instruments: Vec<usize> = instrument.iter().copied().collect();
                self.welcome(floor, client, channel, &instruments);
            }
        }
    }

    /// Listens to a topic, or leaves it.
    fn follow(&mut self, floor: &mut Floor, client: ClientId, topic: Topic, on: bool) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if on {
            session.greeted = true;
            session.topics.insert(topic.clone());
        } else {
            session.topics.remove(&topic);
        }
        let (channel, Some(instrument)) = topic else { return };
        let key = (channel, instrument);
        // What has gathered belongs to those who listened until now.
        if let Some(mut channel) = self.channels.remove(&key) {
            self.publish(floor, &key, &mut channel, floor.now_ns);
            self.channels.insert(key.clone(), channel);
        }
        let channel = self.channels.entry(key.clone()).or_default();
        channel.listeners.retain(|id| *id != client);
        if on {
            channel.listeners.push(client);
        } else if channel.listeners.is_empty() {
            self.channels.remove(&key);
        }
    }
}

impl Protocol for Coinbase {
    fn event(&mut self, floor: &mut Floor, event: &Event) {
        self.heard(floor, event);
    }

    fn time(&mut self, floor: &mut Floor, at_ns: i64) {
        self.pass(floor, at_ns);
    }

    fn update(&mut self, _floor: &mut Floor, _update: &Update) {}

    fn recorded(&mut self, _floor: &mut Floor, _stream: &str, _data: &str) {}

    fn listened(&self) -> bool {
        !self.channels.is_empty()
    }

    fn connect(&mut self, floor: &mut Floor, client: ClientId, path: &str, _query: &str) -> Result<(), Reply> {
        if !matches!(path, "" | "/") {
            return Err(Reply::json(404, ""));
        }
        if !self.connects.take(floor.mono_ms, floor.config.coinbase.connections_per_second_max) {
            return Err(Reply::json(429, r#"{"message":"too many connections"}"#));
        }
        let now = floor.mono_ms;
        self.sessions.insert(client, Session { opened_ms: now, last_sent_ms: now, ..Session::default() });
        Ok(())
    }

    fn message(&mut self, floor: &mut Floor, client: ClientId, text: &str) {
        let max = match self.api {
            Api::Advanced => floor.config.coinbase.advanced_messages_per_second_max,
            Api::Exchange => floor.config.coinbase.exchange_messages_per_second_max,
        };
        let Some(session) = self.sessions.get_mut(&client) else { return };
        if !session.messages.take(floor.mono_ms, max) {
            return floor.hub.put(client, Out::Close(1008, "rate limit exceeded".to_owned()));
        }
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let on = match request["type"].as_str() {
            Some("subscribe") => true,
            Some("unsubscribe") => false,
            _ => return self.refuse(floor, client, "the message is neither subscribe nor unsubscribe"),
        };
        match self.api {
            Api::Advanced => self.advanced_request(floor, client, &request, on),
            Api::Exchange => self.exchange_request(floor, client, &request, on),
        }
    }

    fn control(&mut self, _floor: &mut Floor, _client: ClientId, _pong: Option<&[u8]>) {}

    fn gone(&mut self, _floor: &mut Floor, client: ClientId) {
        self.sessions.remove(&client);
        for channel in self.channels.values_mut() {
            channel.listeners.retain(|id| *id != client);
        }
        self.channels.retain(|_, channel| !channel.listeners.is_empty());
    }

    fn beat(&mut self, floor: &mut Floor) {
        let now = floor.mono_ms;
        let config = &floor.config.coinbase;
        let (greeting_ms, quiet_ms) = (config.subscribe_wait_ms, config.quiet_close_ms);
        if let Some((_, i)) = self.halted.take_if(|(until_ms, _)| *until_ms <= now) {
            self.tell_status(floor, i);
        }
        for client in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&client) else { continue };
            let acks = session.late_acks.extract_if(.., |due| *due <= now).count();
            for _ in 0..acks {
                self.acknowledge(floor, client);
            }
            let Some(session) = self.sessions.get_mut(&client) else { continue };
            if !session.greeted && now >= session.opened_ms + greeting_ms {
                floor.hub.put(client, Out::Close(1008, "no subscribe message".to_owned()));
                self.sessions.remove(&client);
                continue;
            }
            if self.api == Api::Advanced && now >= session.last_sent_ms + quiet_ms {
                floor.hub.put(client, Out::Close(1000, "quiet".to_owned()));
                self.sessions.remove(&client);
                continue;
            }
            if session.next_beat_ms <= now {
                session.next_beat_ms = now + 1_000;
                session.beats += 1;
                self.heartbeat(floor, client);
            }
        }
    }

    fn rest(&mut self, floor: &mut Floor, request: &Request) -> Reply {
        let max = floor.config.coinbase.rest_per_second_max;
        if floor.faults.take("rest_429", "").is_some() || !self.requests.take(floor.mono_ms, max) {
            return Reply::json(429, r#"{"message":"Public rate limit exceeded"}"#);
        }
        self.answer(floor, request)
    }

    fn strike(&mut self, floor: &mut Floor, command: &Command) {
        if command.kind == "status" {
            let i = command.symbol.as_deref().and_then(|symbol| floor.market.find(symbol)).unwrap_or(0);
            self.halted = Some((floor.mono_ms + command.ms, i));
            self.tell_status(floor, i);
        }
    }
}
