//! A venue's own feed: its connections, its instruments, and the one writer of `RAW_<VENUE>`.
//!
//! The first tick goes at once; what arrives while it is on its way gathers into the next packs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use nats::telemetry::TaskStats;
use nats::{Bus, Message, Writer, leader};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use schemas::raw::{Clock, Raw, Trades};
use schemas::subject::{self, stream};
use schemas::{Fact, Nanos};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, QuotaConfig, VenueConfig};
use crate::ctl::{self, Board};
use crate::feed::TradeIds;
use crate::http;
use crate::instruments;
use crate::link::{self, Batch, FRAMES_PER_BATCH_MAX, Out, Shared};
use crate::metrics::Metrics;
use crate::pack::Packer;
use crate::proxy::Proxy;
use crate::quota::Quota;
use crate::session::{Missing, Plan, Tail};
use crate::venue::{self, Market, Venue};
use crate::wall::Wall;
use crate::warmup::Source;
use crate::watermark::Watermark;

/// What a venue's task needs from its stage.
pub struct Task {
    pub bus: Bus,
    pub id: String,
    pub config: Config,
    pub partitions: u32,
    pub metrics: Metrics,
    pub stats: Arc<TaskStats>,
    pub stop: CancellationToken,
}

/// Runs the feed of the market `task.id` until the stop.
pub async fn run(task: Task) -> anyhow::Result<()> {
    let (venue, market) = venue::by_id(&task.id).context("find the venue")?;
    let settings = task.config.venues.get(&task.id).context("find the venue's configuration")?.clone();
    let proxy = Proxy::from_config(&task.config.link.proxy)?;
    // Reading the machine's certificates takes longer than all that is asked of the bus meanwhile.
    let (timeout_ms, through) = (task.config.link.http_timeout_ms, proxy.clone());
    let http = tokio::task::spawn_blocking(move || http::Client::new(timeout_ms, through.as_ref()));
    let wall = Wall::new();
    let quota = quota(&task, &settings, venue, market, &wall);
    let board = Board::default();
    let (symbols, carried) = watch::channel(settings.symbols.clone());
    // First the position, then what stands before it: another instance's fact that comes between takes the position, and
    // ends us "fenced" instead of being stored twice.
    let writer = Writer::open(&task.bus, &stream::raw(&task.id)).await?;
    let ids = venue.trade_ids(market);
    let plan = Plan {
        endpoints: settings.endpoints(venue, market),
        symbols: settings.symbols.clone(),
        channels: settings.channels.clone(),
        limits: task.config.session.clone(),
        pace: settings.pace(venue),
        last_trades: last_trades(&task.bus, &task.id, &settings, task.partitions, ids).await?,
    };
    let floor = last_clock(&task.bus, &task.id).await?;
    let http = http.await.context("make the http client")??;
    let (out, input) = mpsc::channel((task.config.frames_queued_max / FRAMES_PER_BATCH_MAX).max(1));
    let shared = Shared {
        venue: task.id.clone(),
        stale_after_ms: plan.limits.stale_after_ms,
        rest: plan.endpoints.rest.clone(),
        config: task.config.link.clone(),
        http: http.clone(),
        quota: quota.clone(),
        proxy,
        board: Arc::clone(&board),
        wall: wall.clone(),
        metrics: task.metrics.clone(),
        out: out.clone(),
        stop: task.stop.clone(),
    };
    let mut writer = writer;
    let mut packer = packer_of(&task, &settings, ids);
    let fresh = plan.symbols.iter().filter(|s| !plan.last_trades.contains_key(*s)).cloned().collect::<Vec<_>>();
    if !fresh.is_empty() && !task.config.warmup.candles.is_empty() {
        let (rest, config) = (plan.endpoints.rest.clone(), task.config.warmup.clone());
        let source = Source { venue, market, rest, http: http.clone(), quota: quota.clone(), config };
        let work = source.run(&fresh, wall.now(), &mut packer, &mut writer);
        let stored = tokio::select! {
            biased;
            () = task.stop.cancelled() => return Ok(()),
            // What is stored stays; the next start is no longer fresh only where trades are.
            stored = work => stored?,
        };
        tracing::info!(venue = task.id, symbols = fresh.len(), candles = stored, "history");
    }
    let sessions = venue.sessions(market, &plan);
    let links = sessions.len();
    let mut work = JoinSet::new();
    let mut orders = Vec::new();
    for (number, session) in sessions.into_iter().enumerate() {
        let (order, ordered) = mpsc::channel(ctl::COMMANDS_MAX);
        orders.push(order);
        work.spawn(link::run(number, session, ordered, shared.clone()));
    }
    let control = ctl::Desk {
        bus: task.bus.clone(),
        venue: task.id.clone(),
        links: orders,
        board,
        symbols,
        wall: wall.clone(),
        stop: task.stop.clone(),
    };
    work.spawn(control.run());
    work.spawn(instruments::keep(
        task.bus.clone(),
        venue,
        market,
        settings.clone(),
        carried.clone(),
        task.config.clone(),
        (http, quota),
        wall.clone(),
        out,
        task.stop.clone(),
    ));
    drop(shared);
    let desk = Desk {
        writer,
        packer,
        input,
        wall,
        watermark: Watermark::new(task.config.lateness_ms, floor),
        hold: Hold::new(task.config.watermark_hold_ms_max),
        whole: vec![false; links],
        heard: vec![Nanos(i64::MIN); links],
        symbols: carried,
        delays: Delays::new(&task.metrics, &task.id),
        period: Duration::from_millis(task.config.clock_period_ms as u64),
        stats: task.stats,
        stop: task.stop,
    };
    work.spawn(desk.run());
    while let Some(ended) = work.join_next().await {
        ended.context("a part of the venue's task panicked")??;
    }
    Ok(())
}

/// The newest stored trade of each symbol: the session goes on behind it and asks for what lies between.
async fn last_trades(
    bus: &Bus,
    id: &str,
    settings: &VenueConfig,
    partitions: u32,
    ids: TradeIds,
) -> anyhow::Result<BTreeMap<String, Tail>> {
    let tail = |symbol: String| async move {
        let found = last_trade(bus, id, &symbol, partitions, ids).await?;
        anyhow::Ok(found.map(|tail| (symbol, tail)))
    };
    let found = futures_util::stream::iter(settings.symbols.clone()).map(tail).buffer_unordered(SYMBOLS_AT_ONCE);
    found.try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await
}

/// Symbols whose newest trade is looked for at the same time.
const SYMBOLS_AT_ONCE: usize = 32;

async fn last_trade(bus: &Bus, id: &str, symbol: &str, partitions: u32, ids: TradeIds) -> anyhow::Result<Option<Tail>> {
    let p = subject::partition(id, symbol, partitions);
    let (raw, subject) = (stream::raw(id), subject::raw(p, id, Trades::KIND, symbol));
    let Some(newest) = leader::last_by_subject(bus, &raw, &subject).await? else { return Ok(None) };
    let packs = match ids {
        TradeIds::Consecutive | TradeIds::Rising => vec![newest],
        TradeIds::Unordered => newest_packs(bus, &raw, &subject, newest).await?,
    };
    let mut tail = Tail { id: 0, ts: Nanos(i64::MIN), venue_ids: Vec::new() };
    for message in packs {
        let pack = Trades::decode(&message.payload).and_then(Trades::checked);
        let pack = pack.with_context(|| format!("read the stored trades of {symbol}"))?;
        for (n, trade) in pack.iter().enumerate() {
            (tail.id, tail.ts) = (trade.id, tail.ts.max(trade.ts));
            tail.venue_ids.extend(pack.venue_id.get(n).map(|venue_id| (venue_id.clone(), trade.ts)));
        }
    }
    Ok(Some(tail))
}

/// Packs of a symbol that are read back to know its newest trades by the venue's ids.
const TAIL_PACKS_MAX: usize = 512;
/// Trades that are enough.
const TAIL_TRADES: usize = 1024;

/// The newest messages of a subject, oldest first: looked for in ever longer ends of the stream.
async fn newest_packs(bus: &Bus, raw: &str, subject: &str, newest: Message) -> anyhow::Result<Vec<Message>> {
    let mut packs = VecDeque::new();
    for back in [64, 1024, 16_384, 262_144, u64::MAX] {
        packs.clear();
        let mut at = newest.seq.saturating_sub(back).max(1);
        let (first, mut trades) = (at, 0);
        while at < newest.seq {
            let Some(message) = leader::next_by_subject(bus, raw, subject, at).await? else { break };
            at = message.seq + 1;
            trades += Trades::decode(&message.payload).map_or(0, |pack| pack.len());
            packs.push_back(message);
            if packs.len() > TAIL_PACKS_MAX {
                packs.pop_front();
            }
        }
        if trades >= TAIL_TRADES || packs.len() >= TAIL_PACKS_MAX || first == 1 {
            break;
        }
    }
    if packs.back().is_none_or(|last| last.seq < newest.seq) {
        packs.push_back(newest);
    }
    Ok(packs.into())
}

/// The watermark that was said last; the smallest time where none was.
pub async fn last_clock(bus: &Bus, id: &str) -> anyhow::Result<Nanos> {
    match leader::last_by_subject(bus, &stream::raw(id), &subject::clock(0, id)).await? {
        Some(message) => Ok(Nanos(Clock::decode(&message.payload).context("read the stored clock")?.watermark_ns)),
        None => Ok(Nanos(i64::MIN)),
    }
}

/// The writing side of a venue.
struct Desk {
    writer: Writer,
    packer: Packer,
    input: mpsc::Receiver<Batch>,
    wall: Wall,
    watermark: Watermark,
    hold: Hold,
    /// By link: its data is complete up to when the venue was last heard there.
    whole: Vec<bool>,
    heard: Vec<Nanos>,
    symbols: watch::Receiver<Vec<String>>,
    delays: Delays,
    period: Duration,
    stats: Arc<TaskStats>,
    stop: CancellationToken,
}

/// How long the watermark stands still for a connection that is not complete.
struct Hold {
    max_ms: i64,
    since: Option<Nanos>,
    /// The watermark went on without the connection: what is missing from here on is a gap.
    gave_up: Option<Nanos>,
}

impl Hold {
    fn new(max_ms: i64) -> Self {
        Self { max_ms, since: None, gave_up: None }
    }

    /// Whether the bound is reached at `now`.
    fn over(&mut self, now: Nanos) -> bool {
        let since = *self.since.get_or_insert(now);
        now - since >= self.max_ms * Nanos::PER_MS
    }
}

impl Desk {
    async fn run(mut self) -> anyhow::Result<()> {
        self.stats.opened();
        let mut clock = tokio::time::interval(self.period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut facts = Vec::new();
        let stop = self.stop.clone();
        let result = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                // Only the beat is lost; the next one comes.
                _ = clock.tick() => {
                    let now = self.wall.now();
                    // What was read before now stands before the clock.
                    self.take_ready(&mut facts);
                    self.clock(now, &mut facts);
                }
                // Cancel safe: a batch is taken or stays in the channel.
                batch = self.input.recv() => match batch {
                    Some(batch) => {
                        self.take(batch, &mut facts);
                        self.take_ready(&mut facts);
                    }
                    None => break Ok(()),
                },
            }
            if let Err(error) = self.write(&mut facts).await {
                break Err(error);
            }
        };
        if result.is_ok() {
            // What the links said on their way out.
            self.input.close();
            self.take_ready(&mut facts);
            self.write(&mut facts).await?;
        }
        let fenced =
            result.as_ref().is_err_and(|e| e.downcast_ref::<nats::BusError>().is_some_and(nats::BusError::fenced));
        self.stats.ended(fenced);
        result
    }

    /// Takes what has gathered, at most one queue full.
    fn take_ready(&mut self, facts: &mut Vec<Raw>) {
        for _ in 0..self.input.max_capacity() {
            let Ok(batch) = self.input.try_recv() else { break };
            self.take(batch, facts);
        }
    }

    fn take(&mut self, batch: Batch, facts: &mut Vec<Raw>) {
        let mut sampled = false;
        for out in batch.out {
            if let Some((ts, recv)) = out.progress() {
                self.watermark.observe(ts, recv);
                if !std::mem::replace(&mut sampled, true) {
                    self.delays.read(ts, recv);
                }
            }
            match out {
                Out::Event { recv, event, .. } => {
                    self.delays.oldest.get_or_insert(recv);
                    self.packer.take(recv, &event, facts);
                }
                Out::Gap(missing) => self.packer.gap(&missing, facts),
                Out::Dead { recv, reason, frame } => self.packer.dead(recv, &reason, &frame, facts),
                Out::Link { link, wall, event, reason, count } => {
                    self.packer.flush(facts);
                    self.packer.link(&link, wall, event, &reason, count, facts);
                }
                Out::Instrument { symbol, scale } => self.packer.instrument(&symbol, scale),
            }
        }
        if let (Some(whole), Some(heard)) = (self.whole.get_mut(batch.link), self.heard.get_mut(batch.link)) {
            (*whole, *heard) = (batch.whole, batch.heard);
        }
    }

    fn clock(&mut self, now: Nanos, facts: &mut Vec<Raw>) {
        let whole = self.whole.iter().all(|whole| *whole);
        let watermark = if whole {
            self.hold.since = None;
            // A connection that has gone silent may have died: only up to its last sign of life is nothing missing.
            let complete = self.heard.iter().min().map_or(now, |heard| now.min(*heard));
            let watermark = self.watermark.at(complete);
            if let (Some(from), Some(to)) = (self.hold.gave_up, self.watermark.newest()) {
                self.hold.gave_up = None;
                self.gap(from, Some(to.max(from)), "the connections are complete again", facts);
            }
            watermark
        } else if self.hold.over(now) {
            if self.hold.gave_up.is_none()
                && let Some(from) = self.watermark.said()
            {
                self.hold.gave_up = Some(from);
                self.gap(from, None, "a connection is down for longer than watermark_hold_ms_max", facts);
            }
            self.watermark.at(now)
        } else {
            self.watermark.said()
        };
        if let Some(watermark) = watermark {
            self.packer.clock(watermark, now, facts);
        }
        let (out_seq, resyncs) = (self.writer.known(), self.writer.resyncs());
        self.stats.state(self.input.len() as u64, watermark.map(|w| w.0), out_seq, resyncs);
    }

    fn gap(&mut self, from: Nanos, to: Option<Nanos>, reason: &str, facts: &mut Vec<Raw>) {
        for symbol in self.symbols.borrow().iter() {
            let missing =
                Missing { symbol: symbol.clone(), channel: Trades::KIND, from, to, reason: reason.to_owned() };
            self.packer.gap(&missing, facts);
        }
    }

    async fn write(&mut self, facts: &mut Vec<Raw>) -> anyhow::Result<()> {
        self.packer.flush(facts);
        for fact in facts.drain(..) {
            let (subject, payload) = (fact.subject(), fact.encode());
            self.packer.reuse(fact);
            let seq = self.writer.push(subject, payload).await?;
            self.stats.said(seq);
        }
        self.writer.drain().await?;
        self.delays.stored(&self.wall);
        Ok(())
    }
}

/// How long ticks are on their way to us, and from us to the store.
struct Delays {
    of_venue: Histogram,
    of_store: Histogram,
    shortest: Gauge,
    /// The least delay since then, in milliseconds.
    least: Option<(Nanos, i64)>,
    /// When the oldest event was read that is not stored.
    oldest: Option<Nanos>,
}

/// How long the least delay is looked for.
const LEAST_NS: i64 = 60 * Nanos::PER_SECOND;

impl Delays {
    fn new(metrics: &Metrics, venue: &str) -> Self {
        let label = crate::metrics::Venue { task: venue.to_owned() };
        Self {
            of_venue: metrics.delay.get_or_create(&label).clone(),
            of_store: metrics.stored.get_or_create(&label).clone(),
            shortest: metrics.shortest.get_or_create(&label).clone(),
            least: None,
            oldest: None,
        }
    }

    fn read(&mut self, ts: Nanos, recv: Nanos) {
        let delay_ns = recv - ts;
        // The venue's clock may be ahead of ours.
        self.of_venue.observe(delay_ns.max(0) as f64 / Nanos::PER_MS as f64);
        let ms = delay_ns.div_euclid(Nanos::PER_MS);
        self.least = match self.least {
            Some((since, least)) if recv - since < LEAST_NS => Some((since, least.min(ms))),
            Some((_, least)) => {
                self.shortest.set(least);
                Some((recv, ms))
            }
            None => {
                self.shortest.set(ms);
                Some((recv, ms))
            }
        };
    }

    fn stored(&mut self, wall: &Wall) {
        if let Some(oldest) = self.oldest.take() {
            self.of_store.observe((wall.now() - oldest).max(0) as f64 / Nanos::PER_MS as f64);
        }
    }
}

fn packer_of(task: &Task, settings: &VenueConfig, ids: TradeIds) -> Packer {
    Packer::new(&task.id, task.partitions, task.config.pack_ticks_max, settings.wants_aggregates())
        .with_venue_ids(ids == TradeIds::Unordered)
}

/// The venue's purses.
fn quota(task: &Task, settings: &VenueConfig, venue: &dyn Venue, market: Market, wall: &Wall) -> Quota {
    let QuotaConfig { address, percent } = &task.config.quota;
    let (buckets, quiet_ms) = (venue.buckets(market), settings.pace(venue).quiet_ms);
    Quota::new(task.bus.clone(), address, market.id, buckets, &settings.rates, *percent, quiet_ms, wall.clone())
}
