//! A session on a real socket (or none: see [`crate::poll`]): connects, carries out its actions, reconnects.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::bail;
use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use schemas::Nanos;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use crate::config::LinkConfig;
use crate::ctl::{Board, LinkStatus, Order};
use crate::event::{Event, Frame};
use crate::feed::subject_of;
use crate::http;
use crate::metrics::{self, Metrics};
use crate::poll::Wire as Socket;
use crate::proxy::{self, Proxy};
use crate::quota::Quota;
use crate::session::{Action, HttpResult, Missing, Session};
use crate::venue::{self, Request};
use crate::wall::Wall;

/// Frames that are read before what they say is handed on.
pub const FRAMES_PER_BATCH_MAX: usize = 64;
/// Frames that were there together and are stamped with one reading of the clock.
const FRAMES_PER_STAMP_MAX: usize = 16;

/// What a link hands to its venue's writer.
#[derive(Debug)]
pub struct Batch {
    /// Which link.
    pub link: usize,
    /// The session's data is complete so far.
    pub whole: bool,
    /// When the venue was last heard on this connection, be it a pong: all that it sent before has arrived.
    pub heard: Nanos,
    pub out: Vec<Out>,
}

#[derive(Debug)]
pub enum Out {
    Event {
        recv: Nanos,
        event: Event,
        /// It did not come over the socket: see [`Action::Aside`].
        aside: bool,
    },
    Gap(Missing),
    Dead {
        recv: Nanos,
        reason: String,
        frame: String,
    },
    /// A connection was made or lost, or what the venue said over it of its own state.
    Link {
        link: String,
        wall: Nanos,
        event: &'static str,
        reason: String,
        count: u64,
    },
    /// The digits of an instrument.
    Instrument {
        symbol: String,
        scale: schemas::Scale,
    },
}

impl Out {
    /// How far the socket's data has come, as this shows: the venue's time of it, and when it was read. What was asked for aside
    /// may be ahead of a socket that lags: candles would close too early by it.
    pub fn progress(&self) -> Option<(Nanos, Nanos)> {
        match self {
            Self::Event { recv, event, aside: false } => subject_of(event)?.1.map(|ts| (ts, *recv)),
            _ => None,
        }
    }
}

/// What every link of a venue shares.
#[derive(Clone)]
pub struct Shared {
    pub venue: String,
    pub stale_after_ms: i64,
    /// Scheme and host of its REST requests.
    pub rest: String,
    pub config: LinkConfig,
    pub http: http::Client,
    pub quota: Quota,
    pub proxy: Option<Proxy>,
    pub board: Board,
    pub wall: Wall,
    pub metrics: Metrics,
    pub out: mpsc::Sender<Batch>,
    pub stop: CancellationToken,
}

/// Why a connection ended.
struct Ended {
    reason: String,
    planned: bool,
    after_ms: i64,
}

impl Ended {
    fn lost(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string(), planned: false, after_ms: 0 }
    }
}

/// Runs one session until `stop`. Connections that fail are tried again without end; each try is counted, told and
/// paused for.
pub async fn run(
    number: usize,
    session: Box<dyn Session>,
    orders: mpsc::Receiver<Order>,
    shared: Shared,
) -> anyhow::Result<()> {
    let labels = metrics::Link { task: shared.venue.clone(), link: session.name() };
    let frames = shared.metrics.frames.get_or_create(&labels).clone();
    let mut link = Link {
        number,
        status: LinkStatus { name: session.name(), group: session.group(), ..LinkStatus::default() },
        session,
        orders,
        unreached: None,
        labels,
        frames,
        pending: Pending::default(),
        actions: Vec::new(),
        count: 0,
        was_whole: false,
        heard: shared.wall.now(),
        told: Nanos(0),
        pinged: false,
        shared,
    };
    link.shared.metrics.known(&link.labels);
    link.run().await
}

struct Link {
    number: usize,
    session: Box<dyn Session>,
    orders: mpsc::Receiver<Order>,
    status: LinkStatus,
    /// Since when no connection could be made, and whether that was told.
    unreached: Option<(Instant, bool)>,
    shared: Shared,
    labels: metrics::Link,
    /// Counted too often to be looked up each time.
    frames: Counter,
    pending: Pending,
    /// Of the frame at hand; empty between frames.
    actions: Vec<Action>,
    /// Connections made.
    count: u64,
    was_whole: bool,
    /// The last frame of any kind, what the writer was told of it, and whether a ping is on its way.
    heard: Nanos,
    told: Nanos,
    pinged: bool,
}

/// Actions sorted by who carries them out.
#[derive(Default)]
struct Pending {
    out: Vec<Out>,
    sends: VecDeque<String>,
    fetches: Vec<(u64, Request)>,
    ended: Option<Ended>,
}

impl Link {
    async fn run(&mut self) -> anyhow::Result<()> {
        let stop = self.shared.stop.clone();
        let mut attempt = 0;
        loop {
            let bound = Duration::from_millis(self.shared.config.connect_timeout_ms);
            let url = self.session.url();
            let polled = self.session.is_polled();
            self.show();
            let (config, proxy, quota) =
                (self.shared.config.clone(), self.shared.proxy.clone(), self.shared.quota.clone());
            let attempt_it = async move {
                if polled {
                    return Ok(Socket::none());
                }
                quota.spend(venue::CONNECT, 1).await?;
                tokio::time::timeout(bound, connect(&url, &config, proxy.as_ref()))
                    .await
                    .unwrap_or_else(|_| bail!("no connection within {} ms", bound.as_millis()))
            };
            let connected = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // Dropped half-way, the connection attempt is given up; nothing was read from it.
                connected = self.meanwhile(attempt_it) => connected,
            };
            let mut after_ms = 0;
            match connected {
                Ok(socket) => {
                    self.unreached = None;
                    let since = Instant::now();
                    let Some(ended) = self.connection(socket).await? else { return Ok(()) };
                    let lived = since.elapsed() >= Duration::from_millis(self.shared.config.backoff_reset_ms);
                    if lived || ended.planned {
                        attempt = 0;
                    }
                    after_ms = ended.after_ms.max(0) as u64;
                }
                Err(error) => self.unreachable(&format!("{error:#}")).await?,
            }
            let pause = backoff(&self.shared.config, attempt, rand::random()).max(Duration::from_millis(after_ms));
            attempt += 1;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // Only time is lost.
                () = self.meanwhile(tokio::time::sleep(pause)) => {}
            }
        }
    }

    /// Waits for `work` and carries out what operators ask meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // Cancel safe: an order is taken or stays in the channel.
                Some(order) = self.orders.recv() => self.order(order),
            }
        }
    }

    fn order(&mut self, (command, outcome): Order) {
        let mut actions = Vec::new();
        let result = self.session.on_command(self.shared.wall.now(), &command, &mut actions);
        tracing::info!(venue = self.shared.venue, link = self.labels.link, ?command, ?result, "operator");
        if self.status.connected {
            self.sort(&mut actions, None);
        }
        self.show();
        // Whoever asked may not wait any more.
        let _ = outcome.send(result);
    }

    /// A connection could not be made; told once when that has lasted.
    async fn unreachable(&mut self, why: &str) -> anyhow::Result<()> {
        self.failed(why);
        self.status.last_end = why.to_owned();
        let (since, told) = *self.unreached.get_or_insert((Instant::now(), false));
        let bound_ms = self.shared.config.unreachable_after_ms;
        if !told && since.elapsed() >= Duration::from_millis(bound_ms) {
            self.unreached = Some((since, true));
            let url = self.session.url();
            tracing::error!(
                venue = self.shared.venue,
                link = self.labels.link,
                url,
                why,
                "the venue cannot be reached"
            );
            self.tell("unreachable", format!("no connection to {url} for {bound_ms} ms: {why}"));
            self.hand_on().await?;
        }
        Ok(())
    }

    /// Puts what others may see of this link on the board.
    fn show(&mut self) {
        self.status.url = self.session.url();
        self.status.symbols = self.session.symbols();
        self.status.room = self.session.room();
        self.status.connections = self.count;
        self.note();
    }

    fn note(&mut self) {
        self.status.whole = self.was_whole;
        self.status.heard_ns = self.heard.0;
        let mut board = self.shared.board.lock().unwrap_or_else(PoisonError::into_inner);
        match board.get_mut(&self.number) {
            Some(shown) if shown.symbols == self.status.symbols => {
                let LinkStatus { connected, whole, stale, connections, heard_ns, .. } = self.status;
                (shown.connected, shown.whole, shown.stale) = (connected, whole, stale);
                (shown.connections, shown.heard_ns, shown.room) = (connections, heard_ns, self.status.room);
                shown.last_end.clone_from(&self.status.last_end);
                shown.says.clone_from(&self.status.says);
            }
            _ => {
                board.insert(self.number, self.status.clone());
            }
        }
    }

    fn failed(&self, why: &str) {
        self.shared.metrics.failures.get_or_create(&self.labels).inc();
        tracing::warn!(venue = self.shared.venue, link = self.labels.link, why, "connect");
    }

    /// One connection from its first to its last frame; `None`: the process stops.
    async fn connection(&mut self, mut socket: Socket) -> anyhow::Result<Option<Ended>> {
        self.count += 1;
        (self.heard, self.pinged) = (self.shared.wall.now(), false);
        self.shared.metrics.connections.get_or_create(&self.labels).inc();
        tracing::info!(venue = self.shared.venue, link = self.labels.link, count = self.count, "connected");
        self.tell("connected", self.session.url());
        self.status.connected = true;
        self.show();
        let mut actions = Vec::new();
        self.session.on_open(self.shared.wall.now(), &mut actions);
        self.sort(&mut actions, None);
        let ended = self.carry(&mut socket).await?;
        let reason = ended.as_ref().map_or("the process stops", |e| e.reason.as_str()).to_owned();
        // The venue learns of it if it still listens; we do not depend on that.
        let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
        self.status.connected = false;
        self.status.last_end.clone_from(&reason);
        self.show();
        let planned = ended.as_ref().is_none_or(|e| e.planned);
        if !planned {
            self.failed(&reason);
        }
        self.session.on_closed(self.shared.wall.now(), &reason, &mut actions);
        self.sort(&mut actions, None);
        self.tell(if planned { "planned_reconnect" } else { "lost" }, reason);
        self.pending.sends.clear();
        self.pending.fetches.clear();
        self.pending.ended = None;
        if ended.is_some() {
            self.hand_on().await?;
        } else {
            // The writer may have gone already: what it does not take any more is not stored, as if we had been
            // killed.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.hand_on()).await;
        }
        Ok(ended)
    }

    fn tell(&mut self, event: &'static str, reason: String) {
        let (link, wall, count) = (self.labels.link.clone(), self.shared.wall.now(), self.count);
        self.pending.out.push(Out::Link { link, wall, event, reason, count });
    }

    async fn carry(&mut self, socket: &mut Socket) -> anyhow::Result<Option<Ended>> {
        let stop = self.shared.stop.clone();
        let mut fetches: JoinSet<(u64, HttpResult)> = JoinSet::new();
        let mut actions = Vec::new();
        loop {
            if let Err(why) = self.send(socket).await {
                return Ok(Some(Ended::lost(why)));
            }
            for (id, request) in self.pending.fetches.drain(..) {
                self.shared.metrics.requests.get_or_create(&self.labels).inc();
                let Shared { http, rest, quota, .. } = self.shared.clone();
                fetches.spawn(async move { (id, http.ask(&rest, &request, &quota).await) });
            }
            self.hand_on().await?;
            if let Some(ended) = self.pending.ended.take() {
                return Ok(Some(ended));
            }
            let now = self.shared.wall.now();
            let quiet = (!self.pinged).then(|| self.heard.plus_ns(self.shared.config.ping_quiet_ms * Nanos::PER_MS));
            let due = self.session.next_timer().into_iter().chain(quiet).min();
            let wait = due.map_or(Duration::from_secs(3600), |due| Duration::from_nanos((due - now).max(0) as u64));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                // Cancel safe: an answer is taken or stays in the set.
                Some(done) = fetches.join_next(), if !fetches.is_empty() => {
                    let Ok((id, answer)) = done else { bail!("a request panicked") };
                    self.session.on_http(self.shared.wall.now(), id, answer, &mut actions);
                    self.heard = self.session.heard().unwrap_or(self.heard);
                    self.sort(&mut actions, None);
                }
                // Cancel safe: an order is taken or stays in the channel.
                Some(order) = self.orders.recv() => self.order(order),
                // Only time is lost.
                () = tokio::time::sleep(wait) => {
                    let now = self.shared.wall.now();
                    self.session.on_timer(now, &mut actions);
                    self.sort(&mut actions, None);
                    if quiet.is_some_and(|due| due <= now) {
                        self.pinged = true;
                        let ping = Message::Ping(Default::default());
                        if let Err(why) = put(socket, ping, self.shared.config.send_timeout_ms).await {
                            return Ok(Some(Ended::lost(why)));
                        }
                    }
                }
                // Cancel safe: a frame is taken or stays in the socket.
                frame = socket.next() => {
                    let mut now = self.shared.wall.now();
                    self.frame(now, frame);
                    for n in 1..FRAMES_PER_BATCH_MAX {
                        // What has arrived already goes along.
                        if self.pending.ended.is_some() {
                            break;
                        }
                        let Some(frame) = socket.next().now_or_never() else { break };
                        if n.is_multiple_of(FRAMES_PER_STAMP_MAX) {
                            now = self.shared.wall.now();
                        }
                        self.frame(now, frame);
                    }
                }
            }
        }
    }

    async fn send(&mut self, socket: &mut Socket) -> Result<(), String> {
        while let Some(text) = self.pending.sends.pop_front() {
            put(socket, Message::text(text), self.shared.config.send_timeout_ms).await?;
        }
        Ok(())
    }

    fn frame(&mut self, now: Nanos, frame: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) {
        if let Some(Ok(_)) = frame {
            (self.heard, self.pinged) = (now, false);
        }
        match frame {
            Some(Ok(Message::Text(text))) => self.hear(now, Frame::Text(text.as_str())),
            Some(Ok(Message::Binary(bytes))) => self.hear(now, Frame::Binary(&bytes)),
            // The library answers pings by itself. Neither is progress of the data, but both say that nothing that
            // the venue sent before is still on its way.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(why))) => {
                let why = why.map_or("no reason".to_owned(), |c| format!("{} {}", c.code, c.reason));
                self.pending.ended = Some(Ended::lost(format!("closed by the venue: {why}")));
            }
            Some(Err(error)) => self.pending.ended = Some(Ended::lost(error)),
            None => self.pending.ended = Some(Ended::lost("the connection ended without a close")),
        }
    }

    fn hear(&mut self, now: Nanos, frame: Frame<'_>) {
        self.frames.inc();
        let mut actions = std::mem::take(&mut self.actions);
        self.session.on_frame(now, frame, &mut actions);
        self.sort(&mut actions, Some((now, frame)));
        self.actions = actions;
    }

    fn dead(&mut self, recv: Nanos, reason: String, frame: Frame<'_>) {
        self.shared.metrics.dead.get_or_create(&self.labels).inc();
        let bytes_max = self.shared.config.dead_bytes_max;
        let frame = match frame.text() {
            Ok(text) => text[..text.floor_char_boundary(bytes_max)].to_owned(),
            Err(_) => hex(frame, bytes_max),
        };
        self.pending.out.push(Out::Dead { recv, reason, frame });
    }

    /// `frame`: the one that the session was just given, for its dead letters.
    fn sort(&mut self, actions: &mut Vec<Action>, frame: Option<(Nanos, Frame<'_>)>) {
        for action in actions.drain(..) {
            match action {
                Action::Send(text) => self.pending.sends.push_back(text),
                Action::Fetch { id, request } => self.pending.fetches.push((id, request)),
                Action::Emit { recv, event } => self.pending.out.push(Out::Event { recv, event, aside: false }),
                Action::Aside { recv, event } => self.pending.out.push(Out::Event { recv, event, aside: true }),
                Action::Status(status) => {
                    let what = status.to_string();
                    tracing::info!(venue = self.shared.venue, link = self.labels.link, what, "status");
                    self.status.says.heed(&status);
                    self.tell("status", what);
                }
                Action::Gap(missing) => {
                    self.shared.metrics.gaps.get_or_create(&self.labels).inc();
                    self.pending.out.push(Out::Gap(missing));
                }
                Action::Dead { reason } => {
                    let (recv, frame) = frame.unwrap_or((self.shared.wall.now(), Frame::Text("")));
                    self.dead(recv, reason, frame);
                }
                Action::Reconnect { reason, planned, after_ms } => {
                    self.pending.ended.get_or_insert(Ended { reason, planned, after_ms });
                }
                Action::Stale(stale) => {
                    self.shared.metrics.stale.get_or_create(&self.labels).set(stale.into());
                    self.status.stale = stale;
                    let event = if stale { "stale" } else { "fresh" };
                    tracing::warn!(venue = self.shared.venue, link = self.labels.link, event, "event time");
                    self.tell(event, format!("{} ms without a newer event time", self.shared.stale_after_ms));
                }
                Action::Warn(what) => {
                    tracing::warn!(venue = self.shared.venue, link = self.labels.link, what, "session")
                }
            }
        }
    }

    /// Gives what has gathered to the writer, and waits while it is behind.
    async fn hand_on(&mut self) -> anyhow::Result<()> {
        let whole = self.session.is_whole();
        if self.pending.out.is_empty() && whole == self.was_whole && self.heard == self.told {
            return Ok(());
        }
        (self.was_whole, self.told) = (whole, self.heard);
        self.note();
        self.shared.metrics.whole.get_or_create(&self.labels).set(whole.into());
        let batch = Batch { link: self.number, whole, heard: self.heard, out: std::mem::take(&mut self.pending.out) };
        let stop = self.shared.stop.clone();
        tokio::select! {
            biased;
            sent = self.shared.out.send(batch) => match sent {
                Ok(()) => Ok(()),
                Err(_) if stop.is_cancelled() => Ok(()),
                Err(_) => bail!("the writer is gone"),
            },
            // The writer stopped with a full queue: the rest is not stored, as if we had been killed.
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// Two digits a byte, at most `bytes_max` of them.
fn hex(frame: Frame<'_>, bytes_max: usize) -> String {
    match frame {
        Frame::Text(text) => text.to_owned(),
        Frame::Binary(bytes) => bytes.iter().take(bytes_max / 2).map(|b| format!("{b:02x}")).collect(),
    }
}

async fn put(socket: &mut Socket, message: Message, timeout_ms: u64) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_millis(timeout_ms), socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("send: {error}")),
        Err(_) => Err(format!("nothing could be sent for {timeout_ms} ms")),
    }
}

async fn connect(url: &str, config: &LinkConfig, proxy: Option<&Proxy>) -> anyhow::Result<Socket> {
    let bound = Some(config.frame_bytes_max);
    let limits = WebSocketConfig::default().max_message_size(bound).max_frame_size(bound);
    let (socket, _) = match proxy {
        None => tokio_tungstenite::connect_async_with_config(url, Some(limits), true).await?,
        Some(proxy) => {
            let tunnel = proxy.tunnel(&proxy::target(url)?).await?;
            tokio_tungstenite::client_async_tls_with_config(url, tunnel, Some(limits), None).await?
        }
    };
    Ok(Socket::socket(socket))
}

/// The pause before attempt `attempt` (from 0): doubles from the first to the maximum, a quarter up or down by
/// `chance` (0 to 1).
fn backoff(config: &LinkConfig, attempt: u32, chance: f64) -> Duration {
    let plain = config.backoff_first_ms.saturating_mul(1 << attempt.min(20)).min(config.backoff_max_ms);
    Duration::from_millis(plain).mul_f64(0.75 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_aside_does_not_show_how_far_a_socket_has_come() {
        let (ts, recv) = (Nanos(5), Nanos(7));
        let event = || Event::Index { symbol: "BTC".into(), price: 1.into(), ts };
        assert_eq!(Out::Event { recv, event: event(), aside: false }.progress(), Some((ts, recv)));
        assert_eq!(Out::Event { recv, event: event(), aside: true }.progress(), None);
        assert_eq!(Out::Event { recv, event: Event::Other("x".into()), aside: false }.progress(), None);
    }

    #[test]
    fn the_pause_doubles_to_its_maximum_and_is_shaken_by_a_quarter() {
        let mut config = crate::config::Config::load(None).unwrap().link;
        (config.backoff_first_ms, config.backoff_max_ms) = (100, 1000);
        let pauses: Vec<_> = (0..6).map(|n| backoff(&config, n, 0.5).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff(&config, 40, 0.0).as_millis(), 750);
        assert_eq!(backoff(&config, 40, 1.0).as_millis(), 1250);
    }
}
