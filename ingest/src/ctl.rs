//! Requests to a running feed: `ctl.ingest.<venue>`, NATS request and reply, JSON both ways.
//!
//! `{"op":"status"}`, `{"op":"subscribe","symbol":"BTCUSDT"}`, `unsubscribe`, `resync`, `{"op":"reconnect"}`. The answer is
//! `{"ok":true,...}` or `{"ok":false,"error":"..."}`. What is changed lasts until the process ends: the configuration says
//! how it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use nats::Bus;
use schemas::Nanos;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::session::Command;
use crate::status::Standing;
use crate::wall::Wall;

/// How long a link may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(4);
/// Commands of one link that wait.
pub const COMMANDS_MAX: usize = 64;
/// Symbols of one venue, those of the configuration included.
const SYMBOLS_MAX: usize = 5000;

/// The subject of a venue's requests.
pub fn subject(venue: &str) -> String {
    format!("ctl.ingest.{venue}")
}

/// A command and where its outcome goes.
pub type Order = (Command, oneshot::Sender<Result<(), String>>);

/// What a link shows of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkStatus {
    pub name: String,
    #[serde(skip)]
    pub group: &'static str,
    pub url: String,
    pub connected: bool,
    /// Everything is subscribed, and no hole is being filled.
    pub whole: bool,
    /// The event time stands still.
    pub stale: bool,
    /// Connections made, and why the last one ended.
    pub connections: u64,
    pub last_end: String,
    /// What the venue said of its own state over this connection and did not take back: sentences, the newest last.
    pub says: Standing,
    /// When something was heard last, by our clock.
    pub heard_ns: i64,
    pub symbols: BTreeSet<String>,
    /// Channels that it could carry besides.
    pub room: usize,
}

/// The links' own words, by number.
pub type Board = Arc<Mutex<BTreeMap<usize, LinkStatus>>>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Asked {
    Status,
    Subscribe { symbol: String },
    Unsubscribe { symbol: String },
    Resync { symbol: String },
    Reconnect,
}

/// The answering side of one venue.
pub struct Desk {
    pub bus: Bus,
    pub venue: String,
    pub links: Vec<mpsc::Sender<Order>>,
    pub board: Board,
    /// The symbols that are carried now; those who look after instruments and gaps listen.
    pub symbols: watch::Sender<Vec<String>>,
    pub wall: Wall,
    pub stop: CancellationToken,
}

impl Desk {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut requests =
            self.bus.client().subscribe(subject(&self.venue)).await.context("listen for control requests")?;
        loop {
            let request = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                // Cancel safe: a request is taken or stays in the subscription.
                request = requests.next() => request,
            };
            let Some(request) = request else { return Ok(()) };
            let answer = match serde_json::from_slice::<Asked>(&request.payload) {
                Ok(asked) => self.answer(asked).await,
                Err(error) => Err(format!(
                    "{error}; asked is {{\"op\":\"status\"|\"subscribe\"|\"unsubscribe\"|\"resync\"|\"reconnect\",\"symbol\":...}}"
                )),
            };
            let answer = answer.unwrap_or_else(|error| json!({ "ok": false, "error": error }));
            if let Some(reply) = request.reply {
                // Whoever asked may be gone already.
                let _ = self.bus.client().publish(reply, answer.to_string().into()).await;
            }
        }
    }

    fn board(&self) -> BTreeMap<usize, LinkStatus> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answer(&self, asked: Asked) -> Result<Value, String> {
        match asked {
            Asked::Status => Ok(self.status()),
            Asked::Subscribe { symbol } => self.subscribe(symbol).await,
            Asked::Unsubscribe { symbol } => {
                let links = self.carrying(&symbol)?;
                self.each(&links, &Command::Unsubscribe { symbol: symbol.clone() }).await?;
                self.symbols.send_modify(|symbols| symbols.retain(|s| *s != symbol));
                Ok(json!({ "ok": true, "symbols": *self.symbols.borrow() }))
            }
            Asked::Resync { symbol } => {
                let links = self.carrying(&symbol)?;
                let mut refused = Vec::new();
                for link in &links {
                    if let Err(why) = self.tell(*link, Command::Resync { symbol: symbol.clone() }).await {
                        refused.push(why);
                    }
                }
                // The book is on one of them.
                if refused.len() == links.len() { Err(refused.join("; ")) } else { Ok(json!({ "ok": true })) }
            }
            Asked::Reconnect => {
                let all: Vec<usize> = (0..self.links.len()).collect();
                self.each(&all, &Command::Reconnect).await?;
                Ok(json!({ "ok": true, "links": all.len() }))
            }
        }
    }

    fn status(&self) -> Value {
        let now = self.wall.now();
        let links: Vec<Value> = self
            .board()
            .values()
            .map(|link| {
                let mut row = json!(link);
                row["silent_ms"] = json!((now - Nanos(link.heard_ns)) / Nanos::PER_MS);
                row
            })
            .collect();
        json!({ "ok": true, "venue": self.venue, "symbols": *self.symbols.borrow(), "links": links })
    }

    /// The links that carry a symbol.
    fn carrying(&self, symbol: &str) -> Result<Vec<usize>, String> {
        let links: Vec<usize> =
            self.board().into_iter().filter(|(_, l)| l.symbols.contains(symbol)).map(|(n, _)| n).collect();
        if links.is_empty() { Err(format!("{symbol} is not subscribed")) } else { Ok(links) }
    }

    /// A new symbol goes to the link with the most room of each kind.
    async fn subscribe(&self, symbol: String) -> Result<Value, String> {
        if symbol.is_empty() || symbol.len() > 64 {
            return Err("a symbol has 1 to 64 bytes".to_owned());
        }
        if self.carrying(&symbol).is_ok() {
            return Err(format!("{symbol} is subscribed already"));
        }
        if self.symbols.borrow().len() >= SYMBOLS_MAX {
            return Err(format!("a venue has at most {SYMBOLS_MAX} symbols"));
        }
        let mut best: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (number, link) in self.board() {
            let place = best.entry(link.group).or_insert((number, link.room));
            if link.room > place.1 {
                *place = (number, link.room);
            }
        }
        let links: Vec<usize> = best.values().map(|(number, _)| *number).collect();
        self.each(&links, &Command::Subscribe { symbol: symbol.clone() }).await?;
        self.symbols.send_modify(|symbols| symbols.push(symbol));
        Ok(json!({ "ok": true, "symbols": *self.symbols.borrow() }))
    }

    async fn each(&self, links: &[usize], command: &Command) -> Result<(), String> {
        for link in links {
            self.tell(*link, command.clone()).await?;
        }
        Ok(())
    }

    async fn tell(&self, link: usize, command: Command) -> Result<(), String> {
        let (outcome, heard) = oneshot::channel();
        let gone = || format!("connection {link} has ended");
        self.links.get(link).ok_or_else(gone)?.try_send((command, outcome)).map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER_WAIT, heard).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(format!("connection {link} did not answer within {} s", ANSWER_WAIT.as_secs())),
        }
    }
}
