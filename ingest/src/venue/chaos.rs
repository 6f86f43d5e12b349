//! Real links against real stand-ins on loopback that misbehave on command: what is published, what is marked, and that
//! nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use schemas::Nanos;
use schemas::raw::BookAction;
use simulator::{Handle, Options, Simulator, VenueId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
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
use crate::session::{Limits, Missing, Plan};
use crate::wall::Wall;

pub use simulator::Command as Fault;

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
    #[allow(dead_code, reason = "for the venues whose ids do not rise")]
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

/// A market's links against its stand-in.
pub struct Chaos {
    pub sim: Handle,
    pub seen: Seen,
    /// One a link.
    pub orders: Vec<mpsc::Sender<ctl::Order>>,
    venue: VenueId,
    input: mpsc::Receiver<Batch>,
    work: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

/// What to try.
pub struct Trial<'a> {
    /// The market's id.
    pub market: &'a str,
    pub stand_in: VenueId,
    /// As the simulator reads them.
    pub listed: &'a [&'a str],
    /// As the venue spells them.
    pub symbols: &'a [&'a str],
    pub channels: &'a [&'a str],
    /// Changes to the session's bounds.
    pub limits: fn(&mut Limits),
    /// Changes to the stand-in.
    pub options: fn(&mut Options),
}

impl Chaos {
    pub async fn start(trial: Trial<'_>) -> Self {
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
        let plan = Plan {
            endpoints: Endpoints { ws: format!("ws://{addr}"), rest: format!("http://{addr}") },
            symbols: trial.symbols.iter().map(|s| (*s).to_owned()).collect(),
            channels: trial.channels.iter().map(|s| (*s).to_owned()).collect(),
            limits: config.session.clone(),
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
            quota: Quota::of_process("test", market.id, venue.rates(market), &BTreeMap::new(), 100, Wall::new()),
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
        Self { orders, sim, seen: Seen::default(), venue: trial.stand_in, input, work, stop }
    }

    pub fn fault(&self, fault: Fault) {
        self.sim.fault(self.venue, fault).expect("a fault that the stand-in knows");
    }

    /// Takes what is published until `reached`, which must be within a bound.
    pub async fn until(&mut self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let bound = tokio::time::Instant::now() + BOUND;
        while !reached(&self.seen) {
            match tokio::time::timeout_at(bound, self.input.recv()).await {
                Ok(Some(batch)) => self.seen.take(batch),
                Ok(None) => panic!("{what}: the links have ended"),
                Err(_) => panic!("{what}: not within {BOUND:?}; {}", self.summary()),
            }
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
            self.sim.faults(self.venue)
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
