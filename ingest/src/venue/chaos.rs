//! Real links against real stand-ins on loopback that misbehave on command: what is published, what is marked, and that
//! nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use schemas::Nanos;
use schemas::raw::BookAction;
use simulator::{Handle, Options, Simulator, VenueId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Endpoints, by_id};
use crate::book::Levels;
use crate::config::Config;
use crate::ctl::{self, Board};
use crate::event::Event;
use crate::http;
use crate::link::{self, Batch, Out, Shared};
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::session::{Command, Limits, Missing, Plan};
use crate::wall::Wall;

pub use simulator::Command as Fault;

/// What is tried at every venue.
pub mod trials;

/// Bound of every wait: generous, because the machine may be busy.
const BOUND: Duration = Duration::from_secs(60);

/// What the links have published so far.
#[derive(Default)]
pub struct Seen {
    /// By symbol: id, the venue's own id, time, whether it was asked for afterwards.
    pub trades: BTreeMap<String, Vec<SeenTrade>>,
    pub books: BTreeMap<String, SeenBook>,
    pub gaps: Vec<Missing>,
    /// Reasons of frames that were not understood.
    pub dead: Vec<String>,
    /// `connected`, `lost`, ... with their reasons.
    pub links: Vec<(&'static str, String)>,
    /// Kinds of events besides trades and books, counted.
    pub others: BTreeMap<&'static str, u64>,
    /// By link: its data is complete so far.
    pub whole: BTreeMap<usize, bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SeenTrade {
    pub id: u64,
    pub venue_id: Option<String>,
    pub ts: Nanos,
    pub backfill: bool,
}

#[derive(Default)]
pub struct SeenBook {
    pub levels: Levels,
    pub snapshots: usize,
    pub updates: usize,
    /// Changes that were published while a gap of the book was open.
    pub over_gap: usize,
}

impl Seen {
    fn take(&mut self, batch: Batch) {
        self.whole.insert(batch.link, batch.whole);
        for out in batch.out {
            match out {
                Out::Event { event: Event::Trade(t), .. } => {
                    let venue_id = t.venue_id.as_ref().map(|id| id.to_string());
                    let seen = SeenTrade { id: t.id, venue_id, ts: t.ts, backfill: t.backfill };
                    self.trades.entry(t.symbol.to_string()).or_default().push(seen);
                }
                Out::Event { event: Event::Book(b), .. } => {
                    let symbol = b.symbol.to_string();
                    let open = self.open_gaps(&symbol, "book") > 0;
                    let book = self.books.entry(symbol).or_default();
                    match b.action {
                        BookAction::Snapshot => book.snapshots += 1,
                        BookAction::Update => book.updates += 1,
                    }
                    book.over_gap += usize::from(open);
                    book.levels.apply(&b);
                }
                Out::Event { event, .. } => *self.others.entry(kind(&event)).or_default() += 1,
                Out::Gap(missing) => self.gaps.push(missing),
                Out::Dead { reason, .. } => self.dead.push(reason),
                Out::Link { event, reason, .. } => self.links.push((event, reason)),
                Out::Instrument { .. } => {}
            }
        }
    }

    pub fn is_whole(&self) -> bool {
        !self.whole.is_empty() && self.whole.values().all(|whole| *whole)
    }

    pub fn trades_of(&self, symbol: &str) -> &[SeenTrade] {
        self.trades.get(symbol).map_or(&[], Vec::as_slice)
    }

    /// Gaps of a channel that were told and did not end.
    pub fn open_gaps(&self, symbol: &str, channel: &str) -> usize {
        let of = |ended: bool| {
            let mine = |g: &&Missing| g.symbol == symbol && g.channel == channel && g.to.is_some() == ended;
            self.gaps.iter().filter(mine).count()
        };
        of(false).saturating_sub(of(true))
    }

    pub fn gaps_of(&self, symbol: &str, channel: &str) -> Vec<&Missing> {
        self.gaps.iter().filter(|g| g.symbol == symbol && g.channel == channel).collect()
    }

    pub fn snapshots(&self, symbol: &str) -> usize {
        self.books.get(symbol).map_or(0, |book| book.snapshots)
    }

    /// Events of a kind besides trades and books.
    pub fn count(&self, kind: &str) -> u64 {
        self.others.get(kind).copied().unwrap_or(0)
    }

    pub fn lost(&self) -> usize {
        self.links.iter().filter(|(event, _)| *event == "lost").count()
    }

    /// The ids of a symbol's trades rise by one: none is missing, none came twice.
    pub fn assert_consecutive(&self, symbol: &str) {
        for pair in self.trades_of(symbol).windows(2) {
            assert_eq!(pair[1].id, pair[0].id + 1, "{symbol}: {pair:?}");
        }
    }

    /// Ids rise and no venue id came twice.
    pub fn assert_rising(&self, symbol: &str) {
        let trades = self.trades_of(symbol);
        trades.windows(2).for_each(|pair| assert!(pair[1].id > pair[0].id, "{symbol}: {pair:?}"));
        let named: Vec<&String> = trades.iter().filter_map(|t| t.venue_id.as_ref()).collect();
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "{symbol}: a venue id came twice");
    }

    /// No change was published across a gap, and the book is not crossed.
    pub fn assert_books_are_sound(&self) {
        for (symbol, book) in &self.books {
            assert_eq!(book.over_gap, 0, "{symbol}: published across a gap");
            if let (Some((bid, _)), Some((ask, _))) = (book.levels.bids().next(), book.levels.asks().next()) {
                assert!(bid < ask, "{symbol}: bid {bid}, ask {ask}");
            }
        }
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Bbo(_) => "bbo",
        Event::Ticker(_) => "ticker",
        Event::Bar(_) => "bar",
        Event::Mark(_) => "mark",
        Event::Index { .. } => "index",
        Event::Funding(_) => "funding",
        Event::OpenInterest { .. } => "open_interest",
        Event::Liquidation(_) => "liquidation",
        Event::Ignored { .. } => "ignored",
        _ => "other",
    }
}

/// What a book's start looks like in a trial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Books {
    /// No channel follows one.
    None,
    /// One snapshot, then changes.
    Once,
    /// One snapshot or more: the venue may start it again for another symbol's sake.
    AtLeastOnce,
    /// Every message is a whole book.
    Always,
}

/// What to try.
#[derive(Clone, Copy)]
pub struct Trial {
    /// The market's id.
    pub market: &'static str,
    pub stand_in: VenueId,
    /// As the simulator reads them.
    pub listed: &'static [&'static str],
    /// As the venue spells them. The first one is watched closely.
    pub symbols: &'static [&'static str],
    /// Asked for too, although the venue does not know it.
    pub unknown: Option<&'static str>,
    pub channels: &'static [&'static str],
    pub books: Books,
    /// Connections that these channels are spread over.
    pub sockets: usize,
    /// A start brings more trades than this.
    pub trades_min: usize,
    /// Panics where a trade of a symbol is missing or came twice, as far as the stand-in's ids tell.
    pub complete: fn(&Seen, &str),
    /// Changes to the session's bounds.
    pub limits: fn(&mut Limits),
    /// Changes to the stand-in.
    pub options: fn(&mut Options),
}

impl Trial {
    /// One symbol whose trades have ids that rise by one, and its book, on one connection.
    pub fn of(
        market: &'static str,
        stand_in: VenueId,
        listed: &'static [&'static str],
        symbols: &'static [&'static str],
        channels: &'static [&'static str],
    ) -> Self {
        Self {
            market,
            stand_in,
            listed,
            symbols,
            unknown: None,
            channels,
            books: Books::Once,
            sockets: 1,
            trades_min: 20,
            complete: Seen::assert_consecutive,
            limits: |_| {},
            options: |options| options.flow.rate = 200.0,
        }
    }

    /// The same with nothing but trades.
    pub fn trades(self, channels: &'static [&'static str]) -> Self {
        Self { channels, books: Books::None, sockets: 1, ..self }
    }
}

/// A market's links against its stand-in.
pub struct Chaos {
    pub sim: Handle,
    pub seen: Seen,
    trial: Trial,
    /// Starts of the books that were awaited.
    starts: usize,
    /// When the last fault was ordered.
    since: Instant,
    /// One a link.
    orders: Vec<mpsc::Sender<ctl::Order>>,
    input: mpsc::Receiver<Batch>,
    work: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Chaos {
    pub async fn start(trial: Trial) -> Self {
        let mut config = Config::load(None).expect("defaults");
        config.link.backoff_first_ms = 20;
        config.link.backoff_max_ms = 200;
        config.session.request_spacing_ms = 20;
        config.session.snapshot_retry_ms = 50;
        (trial.limits)(&mut config.session);
        let mut simulated = simulator::config::Config::load(None).expect("defaults");
        simulated.client_outbox_frames_max = 100_000;
        let mut options = Options::new(&[trial.stand_in], simulated);
        options.symbols = trial.listed.iter().map(|s| (*s).to_owned()).collect();
        options.history_ns = 60 * Nanos::PER_SECOND;
        options.flow.levels = 40;
        (trial.options)(&mut options);
        let sim = Simulator::start(options).await.expect("start the stand-in");
        let addr = sim.addr(trial.stand_in);
        let (venue, market) = by_id(trial.market).expect("a known market");
        // A described venue has no table: its description says all.
        let settings = config.venues.get(market.id).cloned().unwrap_or_default();
        let plan = Plan {
            endpoints: Endpoints { ws: format!("ws://{addr}"), rest: format!("http://{addr}") },
            symbols: trial.symbols.iter().chain(&trial.unknown).map(|s| (*s).to_owned()).collect(),
            channels: trial.channels.iter().map(|s| (*s).to_owned()).collect(),
            limits: config.session.clone(),
            pace: settings.pace(venue),
            last_trades: BTreeMap::new(),
        };
        let (out, input) = mpsc::channel(4096);
        let stop = CancellationToken::new();
        let shared = Shared {
            venue: market.id.to_owned(),
            stale_after_ms: plan.limits.stale_after_ms,
            rest: plan.endpoints.rest.clone(),
            config: config.link.clone(),
            http: http::Client::new(config.link.http_timeout_ms, None).expect("a client"),
            quota: Quota::of_process(
                "test",
                market.id,
                venue.buckets(market),
                &settings.rates,
                100,
                plan.pace.quiet_ms,
                Wall::new(),
            ),
            proxy: None,
            board: Board::default(),
            wall: Wall::new(),
            metrics: Metrics::default(),
            out,
            stop: stop.clone(),
        };
        let (mut work, mut orders) = (JoinSet::new(), Vec::new());
        for (number, session) in venue.sessions(market, &plan).into_iter().enumerate() {
            let (order, ordered) = mpsc::channel(ctl::COMMANDS_MAX);
            orders.push(order);
            work.spawn(link::run(number, session, ordered, shared.clone()));
        }
        let seen = Seen::default();
        Self { sim, seen, trial, starts: 0, since: Instant::now(), orders, input, work, stop }
    }

    pub fn fault(&mut self, fault: Fault) {
        self.sim.fault(self.trial.stand_in, fault).expect("a fault that the stand-in knows");
        self.since = Instant::now();
    }

    /// How often a fault has struck.
    pub fn struck(&self, kind: &str) -> u64 {
        self.sim.faults(self.trial.stand_in)["struck"][kind].as_u64().unwrap_or(0)
    }

    /// An operator's wish, and what the link says to it.
    pub async fn order(&self, link: usize, command: Command) -> Result<(), String> {
        let (answer, outcome) = oneshot::channel();
        self.orders[link].send((command, answer)).await.expect("the link takes orders");
        outcome.await.expect("the link answers")
    }

    /// Takes what is published until `reached`, which must be within a bound.
    pub async fn until(&mut self, what: &str, reached: impl Fn(&Seen) -> bool) {
        self.within(BOUND, what, reached).await;
    }

    async fn within(&mut self, bound: Duration, what: &str, reached: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + bound;
        while !reached(&self.seen) {
            self.step(end, what).await;
        }
    }

    async fn step(&mut self, end: Instant, what: &str) {
        match tokio::time::timeout_at(end, self.input.recv()).await {
            Ok(Some(batch)) => self.seen.take(batch),
            Ok(None) => panic!("{what}: the links have ended"),
            Err(_) => panic!("{what}: not in time; {}", self.summary()),
        }
    }

    /// Until `n` more trades of a symbol were published.
    pub async fn trades(&mut self, symbol: &str, n: usize) {
        let aim = self.seen.trades_of(symbol).len() + n;
        self.until("more trades", |seen| seen.trades_of(symbol).len() >= aim).await;
    }

    fn summary(&self) -> String {
        fn last<T: Debug>(list: &[T]) -> String {
            format!("{:?}", &list[list.len().saturating_sub(5)..])
        }
        let trades: Vec<_> = self.seen.trades.iter().map(|(s, t)| (s, t.len())).collect();
        let books: Vec<_> = self.seen.books.iter().map(|(s, b)| (s, b.snapshots, b.updates)).collect();
        format!(
            "trades {trades:?}, books {books:?}, others {:?}, gaps {}, dead {}, links {}, whole {:?}, faults {}",
            self.seen.others,
            last(&self.seen.gaps),
            last(&self.seen.dead),
            last(&self.seen.links),
            self.seen.whole,
            self.sim.faults(self.trial.stand_in)
        )
    }

    pub async fn end(mut self) -> Seen {
        self.stop.cancel();
        while let Some(ended) = self.work.join_next().await {
            ended.expect("no link panics").expect("no link fails");
        }
        self.sim.stop().await.expect("stop the stand-in");
        self.seen
    }
}
