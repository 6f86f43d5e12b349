//! Clients and the fan-out to them. One lock around plain maps; nothing is awaited under it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::Notify;

use crate::channel::{Channel, Policy};
use crate::config::Config;
use crate::outbox::{Outbox, TooSlow};
use crate::protocol;
use crate::view::{Update, View};

/// One connection.
pub struct Client {
    pub id: u64,
    outbox: Mutex<Outbox>,
    wake: Notify,
}

impl Client {
    /// The next frame to write; `None`: nothing waits now.
    pub fn pop(&self) -> Option<Arc<str>> {
        lock(&self.outbox).pop()
    }
    /// Returns when something may wait. Cancel safe.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
    pub fn control(&self, frame: String) -> Result<(), TooSlow> {
        let queued = lock(&self.outbox).control(frame.into());
        self.wake.notify_one();
        queued
    }
}

/// Everything shared by connections, REST and the feed.
pub struct Hub {
    pub config: Config,
    /// Names this run of the gateway: sequence numbers count within it.
    pub epoch: String,
    state: Mutex<State>,
    next_client: AtomicU64,
    pub messages_out: AtomicU64,
    pub undecodable: AtomicU64,
    /// Rung when a followed stream may have grown.
    pub knock: Notify,
}

struct State {
    view: View,
    stages: Value,
    channels: HashMap<String, Subscribers>,
    clients: BTreeMap<u64, Arc<Client>>,
}

#[derive(Default)]
struct Subscribers {
    /// Messages told on this channel in this epoch.
    seq: u64,
    /// Newest data by key, for a snapshot on subscribe (`latest` channels only).
    newest: BTreeMap<String, (u64, Value)>,
    /// Client -> the name under which it asked.
    clients: BTreeMap<u64, Arc<str>>,
}

/// Channels whose newest data is kept though nobody listens; the oldest names go first.
const CHANNELS_KEPT_MAX: usize = 20_000;

impl Hub {
    pub fn new(config: Config) -> Self {
        let view = View::new(&config.account, config.history.clone());
        Self {
            epoch: format!("{:x}", now_ms()),
            state: Mutex::new(State {
                view,
                stages: Value::Array(Vec::new()),
                channels: HashMap::new(),
                clients: BTreeMap::new(),
            }),
            next_client: AtomicU64::new(1),
            messages_out: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            knock: Notify::new(),
            config,
        }
    }

    /// Reads the view under the lock; `read` must not block.
    pub fn with_view<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&lock(&self.state).view)
    }
    pub fn stages(&self) -> Value {
        lock(&self.state).stages.clone()
    }
    pub fn clients(&self) -> usize {
        lock(&self.state).clients.len()
    }

    /// Folds a fact and tells the channels. A fact that cannot be read is counted, not shown.
    pub fn hear(&self, subject: &str, payload: &[u8]) {
        let mut updates = Vec::new();
        let mut state = lock(&self.state);
        if let Err(error) = state.view.hear(subject, payload, &mut updates) {
            self.undecodable.fetch_add(1, Relaxed);
            tracing::debug!(subject, %error, "fact cannot be read");
        }
        for update in updates {
            self.tell(&mut state, update);
        }
    }

    /// What the stages answered last.
    pub fn hear_stages(&self, stages: Value) {
        let mut state = lock(&self.state);
        state.stages = stages.clone();
        self.tell(
            &mut state,
            Update { channel: "stages".into(), key: String::new(), policy: Policy::Latest, data: stages },
        );
    }

    fn tell(&self, state: &mut State, update: Update) {
        if !state.channels.contains_key(&update.channel) && state.channels.len() >= CHANNELS_KEPT_MAX {
            state.channels.retain(|_, s| !s.clients.is_empty());
        }
        let subscribers = state.channels.entry(update.channel).or_default();
        let prev = subscribers.seq;
        subscribers.seq += 1;
        let seq = subscribers.seq;
        let shown_prev = (update.policy == Policy::Log).then_some(prev);
        let ts_ms = now_ms();
        // Most clients use the canonical name: one frame serves them all.
        let mut frames: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        for (id, asked) in &subscribers.clients {
            let Some(client) = state.clients.get(id) else { continue };
            let frame = frames
                .entry(asked.clone())
                .or_insert_with(|| protocol::data(asked, &update.data, seq, shown_prev, ts_ms, false).into());
            lock(&client.outbox).data(asked, update.policy, &update.key, seq, frame.clone());
            client.wake.notify_one();
            self.messages_out.fetch_add(1, Relaxed);
        }
        if update.policy == Policy::Latest {
            subscribers.newest.insert(update.key, (seq, update.data));
        }
    }

    /// `None`: the house is full.
    pub fn join(&self) -> Option<Arc<Client>> {
        let limits = &self.config.limits;
        let mut state = lock(&self.state);
        if state.clients.len() >= limits.clients_max {
            return None;
        }
        let id = self.next_client.fetch_add(1, Relaxed);
        let client = Arc::new(Client {
            id,
            outbox: Mutex::new(Outbox::new(limits.control_queue_max, limits.log_queue_max)),
            wake: Notify::new(),
        });
        state.clients.insert(id, client.clone());
        Some(client)
    }

    pub fn leave(&self, client: &Client) {
        let mut state = lock(&self.state);
        state.clients.remove(&client.id);
        for subscribers in state.channels.values_mut() {
            subscribers.clients.remove(&client.id);
        }
    }

    /// The ack is queued first, then the snapshot, then updates: no update falls between.
    pub fn subscribe(&self, client: &Client, channels: &[Channel], ack: String) -> Result<(), TooSlow> {
        let mut state = lock(&self.state);
        client.control(ack)?;
        let state = &mut *state;
        for channel in channels {
            let asked: Arc<str> = channel.asked.as_str().into();
            let from_view = state.view.snapshot(&channel.name);
            let subscribers = state.channels.entry(channel.name.clone()).or_default();
            subscribers.clients.insert(client.id, asked.clone());
            if channel.policy != Policy::Latest {
                continue;
            }
            if subscribers.newest.is_empty() {
                let seq = subscribers.seq;
                subscribers.newest.extend(from_view.into_iter().map(|(key, data)| (key, (seq, data))));
            }
            for (key, (seq, data)) in &subscribers.newest {
                let frame = protocol::data(&asked, data, *seq, None, now_ms(), true).into();
                lock(&client.outbox).data(&asked, Policy::Latest, key, *seq, frame);
            }
        }
        client.wake.notify_one();
        Ok(())
    }

    pub fn unsubscribe(&self, client: &Client, channels: &[Channel]) {
        let mut state = lock(&self.state);
        for channel in channels {
            if let Some(subscribers) = state.channels.get_mut(&channel.name) {
                subscribers.clients.remove(&client.id);
            }
            lock(&client.outbox).forget(&channel.asked);
        }
    }
}

/// The wall clock, for `time` and `ts` fields only.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// A poisoned lock means a bug elsewhere already printed its panic; the data is plain and still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
