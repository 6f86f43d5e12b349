//! The connected clients and their bounded outboxes. Everything a client hears passes here in one order, answers and
//! data alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use tokio::sync::mpsc;

pub type ClientId = u64;

/// What the connection does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    Text(Utf8Bytes),
    /// A binary frame: packed text, or a format of the venue's own.
    Binary(Bytes),
    Ping(Bytes),
    /// A close frame with code and reason, then the end.
    Close(u16, String),
    /// The end without a close frame.
    Cut,
}

impl From<Utf8Bytes> for Out {
    fn from(text: Utf8Bytes) -> Self {
        Self::Text(text)
    }
}
impl From<String> for Out {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
impl From<Bytes> for Out {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// The connection's end of an outbox.
#[derive(Debug)]
pub struct Line {
    pub id: ClientId,
    pub inbox: mpsc::Receiver<Out>,
    /// Set: the connection neither reads nor writes, but stays open.
    pub silent: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Client {
    outbox: mpsc::Sender<Out>,
    silent: Arc<AtomicBool>,
}

/// Invariant H-1: a client in the map has an outbox of at most `outbox_max` frames; one that overflows leaves the map.
#[derive(Debug)]
pub struct Hub {
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
    clients_max: usize,
    outbox_max: usize,
    frames: u64,
    slow: u64,
}

impl Hub {
    pub fn new(clients_max: usize, outbox_max: usize) -> Self {
        Self { clients: BTreeMap::new(), next: 1, clients_max, outbox_max, frames: 0, slow: 0 }
    }

    /// A new client; `None` when the house is full.
    pub fn join(&mut self) -> Option<Line> {
        if self.clients.len() >= self.clients_max {
            return None;
        }
        let id = self.next;
        self.next += 1;
        let (outbox, inbox) = mpsc::channel(self.outbox_max);
        let silent = Arc::new(AtomicBool::new(false));
        self.clients.insert(id, Client { outbox, silent: silent.clone() });
        Some(Line { id, inbox, silent })
    }

    pub fn leave(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    pub fn text(&mut self, id: ClientId, text: impl Into<Utf8Bytes>) {
        self.frame(id, Out::Text(text.into()));
    }

    /// A frame of data or an answer, text or binary.
    pub fn frame(&mut self, id: ClientId, frame: impl Into<Out>) {
        self.frames += 1;
        self.put(id, frame.into());
    }

    pub fn put(&mut self, id: ClientId, out: Out) {
        let Some(client) = self.clients.get(&id) else { return };
        if client.outbox.try_send(out).is_err() {
            // Its channel closes with the entry and the connection ends, as a venue drops slow readers.
            self.clients.remove(&id);
            self.slow += 1;
        }
    }

    pub fn silence(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get(&id) {
            client.silent.store(true, Ordering::Relaxed);
        }
    }

    pub fn ids(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }
    pub fn contains(&self, id: ClientId) -> bool {
        self.clients.contains_key(&id)
    }
    /// Frames handed out since the start.
    pub fn frames(&self) -> u64 {
        self.frames
    }
    /// Clients cut off for reading too slowly.
    pub fn slow(&self) -> u64 {
        self.slow
    }
    /// The fullest outbox and whose it is, silent clients aside.
    pub fn backlog(&self) -> Option<(usize, ClientId)> {
        let waiting = |c: &Client| self.outbox_max - c.outbox.capacity();
        self.clients.iter().filter(|(_, c)| !c.silent.load(Ordering::Relaxed)).map(|(id, c)| (waiting(c), *id)).max()
    }
    /// Frames that fit into an outbox.
    pub fn outbox_max(&self) -> usize {
        self.outbox_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_is_dropped_and_the_others_stay() {
        let mut hub = Hub::new(2, 3);
        let (slow, mut quick) = (hub.join().unwrap(), hub.join().unwrap());
        assert!(hub.join().is_none());
        for n in 0..4 {
            hub.text(slow.id, format!("{n}"));
            hub.text(quick.id, format!("{n}"));
            assert_eq!(quick.inbox.try_recv().unwrap(), Out::Text(format!("{n}").into()));
        }
        assert_eq!((hub.slow(), hub.ids()), (1, vec![quick.id]));
        assert!(hub.join().is_some());
    }
}
