//! HTX on its sockets: one request a topic, pings answered with their number, spot's book asked for on the connection.

use std::collections::BTreeSet;

use serde_json::json;

use super::Kind;
use super::channel::{Channel, Socket, heartbeat, polling};
use super::{decode, rest};
use crate::book::Rule;
use crate::connection::{BookSource, Call, Carries, Connection, Ids, Lost, Protocol, Refused, Topic, cut};
use crate::event::{Event, Frame, Trade};
use crate::feed::TradeIds;
use crate::session::{Plan, Session};
use crate::venue::Request;

/// As few connections as the limits allow, for each socket that the channels need.
pub fn sessions(kind: Kind, rule: Rule, ids: TradeIds, plan: &Plan) -> Vec<Box<dyn Session>> {
    let mut sessions: Vec<Box<dyn Session>> = Vec::new();
    for socket in [Socket::Market, Socket::Feed, Socket::Notification, Socket::Index, Socket::Center] {
        let Some(path) = socket.path(kind) else { continue };
        let protocol = || Htx { kind, socket, path, channels: plan.channels.clone(), quiet_ms: plan.pace.quiet_ms };
        let whole = plan.channels.iter().filter(|c| socket == Socket::Center && heartbeat(kind) == Some(c.as_str()));
        let whole = whole.map(|c| Topic::new("", Carries::Other, c.clone())).collect();
        for (symbols, topics) in cut(&plan.symbols, |symbol| protocol().topics(symbol), whole, plan.pace.topics_max) {
            let number = sessions.len();
            sessions.push(Box::new(Connection::new(protocol(), number, plan, rule, ids, &symbols, topics)));
        }
    }
    sessions
}

struct Htx {
    kind: Kind,
    socket: Socket,
    path: &'static str,
    /// Of the configuration.
    channels: Vec<String>,
    quiet_ms: i64,
}

impl Htx {
    /// The one channel whose book is followed, where it is this socket's.
    fn book_channel(&self) -> Option<&String> {
        self.channels.iter().find(|channel| {
            let known = Channel::parse(self.kind, channel);
            known.is_ok_and(|c| c.carries == Carries::Book && c.socket == self.socket)
        })
    }

    fn call(&self, id: u64, topic: &Topic, on: bool) -> Call {
        let text = &topic.text;
        let body = match (self.socket, on) {
            (Socket::Notification | Socket::Center, true) => {
                json!({ "op": "sub", "cid": id.to_string(), "topic": text })
            }
            (Socket::Notification | Socket::Center, false) => {
                json!({ "op": "unsub", "cid": id.to_string(), "topic": text })
            }
            (_, true) if text.ends_with(".high_freq") => {
                json!({ "sub": text, "data_type": "incremental", "id": id.to_string() })
            }
            (_, true) => json!({ "sub": text, "id": id.to_string() }),
            (_, false) => json!({ "unsub": text, "id": id.to_string() }),
        };
        Call::by_id(id, body.to_string(), std::slice::from_ref(topic))
    }
}

impl Protocol for Htx {
    fn group(&self) -> &'static str {
        self.socket.name()
    }

    fn path(&self) -> String {
        self.path.to_owned()
    }

    /// Funding comes once a minute, liquidations and statuses when there are any: what shows that the socket lives is its ping.
    fn is_quiet(&self) -> bool {
        matches!(self.socket, Socket::Notification | Socket::Center)
    }

    fn topics(&self, symbol: &str) -> Vec<Topic> {
        let mine = |channel: &String| {
            let known = Channel::parse(self.kind, channel).ok().filter(|c| c.socket == self.socket)?;
            Some(Topic::new(symbol, known.carries, channel.replace("{}", symbol)))
        };
        self.channels.iter().filter(|c| c.contains("{}")).filter_map(mine).collect()
    }

    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call> {
        topics.iter().map(|topic| self.call(ids.take(), topic, on)).collect()
    }

    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>) {
        decode::decode(self.kind, frame, out);
    }

    /// Ids of spot's trades show a hole by themselves; those of swaps do not.
    fn lost_trades(&self, frame: Frame<'_>) -> Lost {
        if !self.kind.is_swap() || self.socket != Socket::Market {
            return Lost::Nothing;
        }
        let Ok(text) = decode::text(frame) else { return Lost::Any };
        let Some(rest) = text.strip_prefix(r#"{"ch":"market."#) else { return Lost::Any };
        match rest.split('"').next().and_then(|channel| channel.split_once('.')) {
            Some((symbol, "trade.detail")) => Lost::Of(symbol.to_owned()),
            // A name that was cut off may have been that of trades.
            Some((_, what)) if rest.contains('"') || !"trade.detail".starts_with(what) => Lost::Nothing,
            Some(_) | None => Lost::Any,
        }
    }

    fn refused(&self, code: Option<i64>, message: &str) -> Refused {
        // Too many requests in its window: those that wait would be refused as well.
        if code == Some(429) || message.starts_with("429") || message.starts_with("too-many-request") {
            return Refused::Leave { after_ms: self.quiet_ms };
        }
        Refused::Named
    }

    /// Spot's book by changes is asked for on this very connection; the others begin with a snapshot.
    fn book(&mut self, ids: &mut Ids, symbol: &str) -> BookSource {
        let linked = self.book_channel().filter(|channel| channel.contains(".mbp."));
        let Some(channel) = linked else { return BookSource::Resubscribe };
        // With its topic: a book that is refused is a gap.
        let topic = Topic::new(symbol, Carries::Book, channel.replace("{}", symbol));
        let id = ids.take();
        let body = json!({ "req": topic.text, "id": id.to_string() });
        BookSource::Ask(Call::by_id(id, body.to_string(), &[topic]))
    }

    fn trades_after(&self, symbol: &str, _after: u64) -> Option<Request> {
        Some(rest::trades_request(self.kind, symbol))
    }

    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String> {
        let trade = |event| if let Event::Trade(trade) = event { Some(trade) } else { None };
        Ok(rest::trades(self.kind, symbol, body)?.into_iter().filter_map(trade).collect())
    }

    fn polls(&self, symbols: &BTreeSet<String>) -> Vec<Request> {
        let mine = polling(self.kind, &self.channels) == Some(self.socket);
        if mine { rest::open_interest_request(self.kind, symbols).into_iter().collect() } else { Vec::new() }
    }

    fn decode_poll(&self, body: &str, out: &mut Vec<Event>) {
        if let Err(why) = rest::open_interest(body, out) {
            out.push(Event::Malformed(why));
        }
    }
}

#[cfg(test)]
mod tests;
