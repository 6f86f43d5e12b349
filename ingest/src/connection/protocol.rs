//! A venue's words on one kind of connection: topics, requests, and how what comes back is read. Pure.

use std::collections::BTreeSet;

use crate::event::{Event, Frame, Trade};
use crate::venue::Request;

/// What a topic carries, as far as a connection cares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Carries {
    Trades,
    /// The book that is followed by its sequence: no whole tops.
    Book,
    Other,
}

/// One thing to subscribe to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Topic {
    /// In the venue's spelling; empty: of the whole market.
    pub symbol: String,
    pub carries: Carries,
    /// As the venue names it, in requests and in the answers to them.
    pub text: String,
}

impl Topic {
    pub fn new(symbol: &str, carries: Carries, text: impl Into<String>) -> Self {
        Self { symbol: symbol.to_owned(), carries, text: text.into() }
    }
}

/// A request on the socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub text: String,
    /// What will come back, and the topics that each answer is about: an id of ours, or the topic's own text where the venue
    /// echoes that. Empty: nothing comes back.
    pub awaits: Vec<(String, Vec<Topic>)>,
}

impl Call {
    /// Answered as a whole, by `id`.
    pub fn by_id(id: u64, text: impl Into<String>, topics: &[Topic]) -> Self {
        Self { text: text.into(), awaits: vec![(id.to_string(), topics.to_vec())] }
    }
    /// Answered topic by topic, by their texts.
    pub fn by_topic(text: impl Into<String>, topics: &[Topic]) -> Self {
        let awaits = topics.iter().map(|t| (t.text.clone(), vec![t.clone()])).collect();
        Self { text: text.into(), awaits }
    }
    /// Nothing comes back.
    pub fn unanswered(text: impl Into<String>) -> Self {
        Self { text: text.into(), awaits: Vec::new() }
    }
}

/// Numbers requests; unique within a session's life.
#[derive(Debug)]
pub struct Ids(pub(super) u64);

impl Ids {
    pub fn take(&mut self) -> u64 {
        self.0 += 1;
        self.0 - 1
    }
}

/// Where a book starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BookSource {
    /// By REST.
    Rest(Request),
    /// The venue sends a snapshot when the topic is subscribed: leave it and come back.
    Resubscribe,
    /// By a request on this connection, whose answer is a book snapshot.
    Ask(Call),
}

/// The trades that a lost frame may have held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lost {
    Nothing,
    /// Of this symbol.
    Of(String),
    /// Of any symbol.
    Any,
}

/// What a refusal means for the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The request that it names is lost, or none.
    Named,
    /// It names none, and means the oldest request that waits.
    Oldest,
    /// The venue wants us to go, and to stay away this long.
    Leave { after_ms: i64 },
}

/// A venue's words on one kind of connection; pure.
pub trait Protocol: Send {
    /// Names the kind; connections of one kind carry the same channels.
    fn group(&self) -> &'static str;
    /// Path and query behind [`crate::venue::Endpoints::ws`].
    fn path(&self) -> String;
    /// Our own ping, sent every [`Pace::ping_ms`](crate::session::Pace). It must be answered ([`Control::Pong`]) within the
    /// acknowledgement's bound. `None`: the venue pings.
    fn ping(&self) -> Option<String> {
        None
    }
    /// The topics of a symbol on this kind of connection.
    fn topics(&self, symbol: &str) -> Vec<Topic>;
    /// A new connection: what was remembered of the last one is forgotten.
    fn opened(&mut self) {}
    /// Requests before the first subscription.
    fn hello(&mut self, _ids: &mut Ids) -> Vec<Call> {
        Vec::new()
    }
    /// Requests that subscribe (`on`) or leave topics, in messages that the venue takes.
    fn subscribe(&mut self, ids: &mut Ids, topics: &[Topic], on: bool) -> Vec<Call>;
    /// Reads one frame.
    fn decode(&mut self, frame: Frame<'_>, out: &mut Vec<Event>);
    /// The trades that a frame which was not understood may have held, where their ids do not show a hole: then the venue is
    /// asked for them again.
    fn lost_trades(&self, _frame: Frame<'_>) -> Lost {
        Lost::Nothing
    }
    /// Data is rare here: the venue's heartbeats show that the connection lives, and its event times may stand still.
    fn is_quiet(&self) -> bool {
        false
    }
    /// The request that answers [`Control::TestRequest`].
    fn test(&mut self, _ids: &mut Ids) -> Option<Call> {
        None
    }
    fn refused(&self, _code: Option<i64>, _message: &str) -> Refused {
        Refused::Named
    }
    fn book(&mut self, ids: &mut Ids, symbol: &str) -> BookSource;
    /// Reads a REST order book.
    fn decode_book(&self, symbol: &str, body: &str) -> Result<Event, String> {
        let _ = body;
        Err(format!("the book of {symbol} does not come by REST"))
    }
    /// The trades of a symbol behind an id: a page of them, or the newest ones. `None`: a subscription begins with them.
    fn trades_after(&self, symbol: &str, after: u64) -> Option<Request>;
    /// Reads such an answer, oldest first.
    fn decode_trades(&self, symbol: &str, body: &str) -> Result<Vec<Trade>, String>;
    /// The requests for what the venue tells of these symbols by REST alone: one a symbol, or one of all where the venue has
    /// that. Each is made again every [`Limits::poll_period_ms`].
    fn polls(&self, _symbols: &BTreeSet<String>) -> Vec<Request> {
        Vec::new()
    }
    /// Reads an answer to one of [`Protocol::polls`]; it may tell of other symbols too.
    fn decode_poll(&self, _body: &str, out: &mut Vec<Event>) {
        out.push(Event::Malformed("nothing is polled here".to_owned()));
    }
}

/// Symbols with all their topics, cut so that each part has at most `max`; topics of the whole market are put where there is
/// room. A symbol's topics stay together.
pub fn cut(
    symbols: &[String],
    of: impl Fn(&str) -> Vec<Topic>,
    whole: Vec<Topic>,
    max: usize,
) -> Vec<(Vec<String>, Vec<Topic>)> {
    let mut parts: Vec<(Vec<String>, Vec<Topic>)> = Vec::new();
    let each = symbols.iter().map(|s| (Some(s), of(s))).chain([(None, whole)]);
    for (symbol, topics) in each.filter(|(_, topics)| !topics.is_empty()) {
        match parts.last_mut() {
            Some(part) if part.1.len() + topics.len() <= max => {
                part.0.extend(symbol.cloned());
                part.1.extend(topics);
            }
            _ => parts.push((symbol.cloned().into_iter().collect(), topics)),
        }
    }
    parts
}
