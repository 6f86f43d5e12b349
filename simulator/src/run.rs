//! The whole simulator: listeners, drivers, and the handle that tests and programs hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::binance::Binance;
use crate::coinbase::Coinbase;
use crate::config::Config;
use crate::deribit::Deribit;
use crate::faults::Command;
use crate::floor::{Floor, Protocol, Stand};
use crate::htx::Htx;
use crate::hyperliquid::Hyperliquid;
use crate::instrument::{Spec, VenueId};
use crate::market::{Flow, Market};
use crate::mexc::Mexc;
use crate::okx::Okx;
use crate::recording::Recorded;
use crate::reference::Mood;
use crate::server::{Shared, serve, wall_ns};

/// How fast virtual time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// Virtual seconds in a real one.
    Factor(f64),
    /// As fast as the slowest client takes it; virtual time stands still while nobody listens.
    Unlimited,
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    pub venues: Vec<VenueId>,
    /// As [`Spec::parse`] reads them; a recording brings its own.
    pub symbols: Vec<String>,
    pub seed: u64,
    pub speed: Speed,
    /// The first venue's address; further venues take the next ports, or free ones where the port is 0.
    pub listen: SocketAddr,
    pub recording: Option<PathBuf>,
    /// Virtual time of the start; the machine's clock where absent.
    pub start_ns: Option<i64>,
    /// Virtual time after which the simulator ends by itself.
    pub duration_ns: Option<i64>,
    /// Virtual time that has passed before the start, so that bars and trades have a past.
    pub history_ns: i64,
    pub flow: Flow,
    /// Market operations a real second over all symbols of a venue, in place of `flow.rate`.
    pub flood: Option<f64>,
    pub config: Config,
}

impl Options {
    /// Two symbols, real time, free ports on loopback.
    pub fn new(venues: &[VenueId], config: Config) -> Self {
        Self {
            venues: venues.to_vec(),
            symbols: vec!["BTCUSDT".to_owned(), "ETHUSDT".to_owned()],
            seed: 1,
            speed: Speed::Factor(1.0),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            recording: None,
            start_ns: None,
            duration_ns: None,
            history_ns: 0,
            flow: Flow { mood: Mood { volatility: 0.8, correlation: 0.6 }, rate: 40.0, levels: 200 },
            flood: None,
            config,
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let flow = &self.flow;
        if self.venues.is_empty() {
            bail!("at least one venue is needed");
        }
        if self.symbols.is_empty() && self.recording.is_none() {
            bail!("at least one symbol is needed");
        }
        if self.symbols.len() > 1000 {
            bail!("at most 1000 symbols, not {}", self.symbols.len());
        }
        if let Speed::Factor(factor) = self.speed
            && !(factor > 0.0 && factor <= 100_000.0)
        {
            bail!("speed must be above 0 and at most 100000, not {factor}");
        }
        for (name, value, max) in [("rate", flow.rate, 1e6), ("flood", self.flood.unwrap_or(1.0), 1e7)] {
            if !(value > 0.0 && value <= max) {
                bail!("{name} must be above 0 and at most {max}, not {value}");
            }
        }
        if !(0.0..=20.0).contains(&flow.mood.volatility) || !(0.0..=1.0).contains(&flow.mood.correlation) {
            bail!("volatility must be in 0..=20 and correlation in 0..=1");
        }
        if !(4..=5_000).contains(&flow.levels) {
            bail!("levels must be in 4..=5000, not {}", flow.levels);
        }
        if !(0..=172_800_000_000_000).contains(&self.history_ns) {
            bail!("history must be in 0..=172800 seconds");
        }
        if self.recording.is_some() && !self.venues.iter().all(|v| v.is_binance()) {
            bail!("a recording plays on binance, binance-usdm or binance-coinm only");
        }
        if self.recording.is_some() && self.venues.len() > 1 {
            bail!("a recording plays on one venue, not on {}", self.venues.len());
        }
        Ok(())
    }

    fn specs(&self, venue: VenueId, symbols: &[String]) -> anyhow::Result<Vec<Spec>> {
        let mut specs: Vec<Spec> = Vec::new();
        for symbol in symbols {
            let spec = Spec::parse(venue, symbol).map_err(anyhow::Error::msg)?;
            // Two spellings can mean one instrument (BTCUSDT and BTCUSDC are one perpetual at Deribit).
            if !specs.iter().any(|s| s.symbol == spec.symbol) {
                specs.push(spec);
            }
        }
        Ok(specs)
    }

    fn stand(&self, venue: VenueId, start_ns: i64) -> anyhow::Result<Stand> {
        let recorded = self.recording.as_deref().map(Recorded::open).transpose()?;
        let (start_ns, specs) = match &recorded {
            Some(recorded) => (recorded.first_ns(), self.specs(venue, recorded.symbols())?),
            None => (start_ns, self.specs(venue, &self.symbols)?),
        };
        let past_ns = if recorded.is_some() { 0 } else { self.history_ns };
        let symbols = specs.len() as f64;
        let market = Market::new(self.seed, specs, self.flow.clone(), start_ns - past_ns);
        let mut floor = Floor::new(venue, Arc::new(self.config.clone()), market);
        floor.recorded = recorded;
        let protocol: Box<dyn Protocol> = match venue {
            VenueId::BinanceSpot | VenueId::BinanceUsdm | VenueId::BinanceCoinm => Box::new(Binance::new(venue)),
            VenueId::Deribit => Box::new(Deribit::new(&floor)),
            VenueId::Hyperliquid => Box::new(Hyperliquid::new(&mut floor, self.seed)),
            VenueId::MexcSpot | VenueId::MexcContract => Box::new(Mexc::new()),
            VenueId::CoinbaseAdvanced | VenueId::CoinbaseExchange => Box::new(Coinbase::new(venue)),
            VenueId::Okx => Box::new(Okx::default()),
            VenueId::HtxSpot | VenueId::HtxLinear | VenueId::HtxInverse => Box::new(Htx::new(venue)),
        };
        let mut stand = Stand::new(floor, protocol);
        // The past runs at the ordinary rate: a flood begins now.
        stand.advance(start_ns, u64::MAX);
        if let Some(flood) = self.flood {
            let speed = if let Speed::Factor(factor) = self.speed { factor } else { 1.0 };
            stand.floor.market.set_rate(flood / symbols / speed);
        }
        Ok(stand)
    }
}

/// A running simulator. Dropping it stops it too, without waiting.
pub struct Handle {
    addrs: BTreeMap<VenueId, SocketAddr>,
    venues: BTreeMap<VenueId, Arc<Shared>>,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Starts simulators.
pub struct Simulator;

impl Simulator {
    /// Binds every venue's listener and lets the markets run. The addresses are in the handle.
    pub async fn start(options: Options) -> anyhow::Result<Handle> {
        options.check()?;
        let stop = CancellationToken::new();
        let start_ns = options.start_ns.unwrap_or_else(wall_ns);
        let (mut addrs, mut venues, mut tasks) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        let running = Arc::new(AtomicUsize::new(options.venues.len()));
        for (n, venue) in options.venues.iter().enumerate() {
            if venues.contains_key(venue) {
                bail!("venue {} is named twice", venue.name());
            }
            let mut addr = options.listen;
            if addr.port() != 0 {
                addr.set_port(addr.port().checked_add(n as u16).context("the ports end at 65535")?);
            }
            let listener = TcpListener::bind(addr).await.with_context(|| format!("listen on {addr}"))?;
            addrs.insert(*venue, listener.local_addr().context("read the listener's address")?);
            let shared = Shared::new(options.stand(*venue, start_ns)?, stop.clone());
            tasks.spawn(serve(listener, shared.clone()));
            tasks.spawn(drive(shared.clone(), options.clone(), running.clone()));
            venues.insert(*venue, shared);
        }
        Ok(Handle { addrs, venues, stop, tasks })
    }
}

impl Handle {
    /// Where each venue listens.
    pub fn addrs(&self) -> &BTreeMap<VenueId, SocketAddr> {
        &self.addrs
    }
    /// One venue's address.
    ///
    /// # Panics
    /// When the venue was not asked for.
    pub fn addr(&self, venue: VenueId) -> SocketAddr {
        self.addrs[&venue]
    }
    /// Arms a fault at a venue, or strikes at once; an error says what is allowed.
    pub fn fault(&self, venue: VenueId, command: Command) -> Result<(), String> {
        let shared = self.venues.get(&venue).ok_or_else(|| format!("venue {} does not run", venue.name()))?;
        shared.stand().fault(command)
    }
    /// What is armed and what has struck, as `GET /sim/faults` shows it.
    pub fn faults(&self, venue: VenueId) -> serde_json::Value {
        self.venues.get(&venue).map_or(serde_json::Value::Null, |s| s.stand().floor.faults.report())
    }
    /// What `GET /sim/state` shows, for every venue.
    pub fn state(&self) -> Vec<serde_json::Value> {
        self.venues.values().map(|s| s.stand().state()).collect()
    }
    /// Ends when the duration is over or an error stopped the simulator.
    pub async fn finished(&mut self) -> anyhow::Result<()> {
        while let Some(task) = self.tasks.join_next().await {
            let ended = task.context("a task of the simulator panicked").and_then(|result| result);
            if ended.is_err() {
                self.stop.cancel();
                return ended;
            }
        }
        Ok(())
    }
    /// Says good-bye to the clients and waits for everything that was started.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let result = self.finished().await;
        for shared in self.venues.values() {
            shared.tasks.close();
            shared.tasks.wait().await;
        }
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Market operations (or recorded frames) performed under one lock.
const BATCH: u64 = 256;

/// Lets virtual time pass for one venue.
async fn drive(shared: Arc<Shared>, options: Options, running: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let tick = Duration::from_millis(options.config.tick_ms);
    let wait_max = Duration::from_millis(options.config.slow_client_wait_ms_max);
    let start_ns = shared.stand().floor.now_ns;
    let end_ns = options.duration_ns.map(|d| start_ns.saturating_add(d));
    // Virtual time that the clock has earned; a pause earns nothing.
    let mut virtual_ns = start_ns;
    let mut before = Instant::now();
    loop {
        let mut to_ns = match options.speed {
            Speed::Unlimited => i64::MAX / 4,
            Speed::Factor(factor) => {
                let passed = before.elapsed();
                before += passed;
                let stand = shared.stand();
                let waits = stand.floor.paused || (stand.floor.recorded.is_some() && !stand.listened());
                if !waits {
                    virtual_ns += (passed.as_nanos() as f64 * factor) as i64;
                }
                virtual_ns
            }
        };
        if let Some(end) = end_ns {
            to_ns = to_ns.min(end);
        }
        loop {
            let (more, ended) = {
                let mut stand = shared.stand();
                stand.beat();
                let before = stand.events();
                let reached = if stand.floor.recorded.is_some() {
                    // A recording that has ended leaves its clients connected: they may still want the book.
                    stand.play(to_ns, BATCH)?
                } else if options.speed == Speed::Unlimited && !stand.listened() {
                    stand.floor.now_ns
                } else {
                    stand.advance(to_ns, BATCH)
                };
                let ended = end_ns.is_some_and(|end| reached >= end);
                (stand.events() - before == BATCH, ended)
            };
            if ended {
                return finish(&shared, &running).await;
            }
            let patient = options.speed == Speed::Unlimited;
            if !breathe(&shared, patient, wait_max).await {
                return Ok(());
            }
            if !more {
                break;
            }
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(tick) => {}
        }
    }
}

/// Gives the connections their turn; at unlimited speed waits until the slowest has room. False: it is time to stop.
async fn breathe(shared: &Shared, patient: bool, wait_max: Duration) -> bool {
    let since = Instant::now();
    loop {
        tokio::task::yield_now().await;
        if shared.stop.is_cancelled() {
            return false;
        }
        if !patient {
            return true;
        }
        let slowest = {
            let mut stand = shared.stand();
            let max = stand.floor.hub.outbox_max();
            // A batch may be many frames a client: a quarter of the outbox leaves room for it.
            let slowest = stand.floor.hub.backlog().filter(|(n, _)| *n > max / 4);
            if let (Some((_, client)), true) = (slowest, since.elapsed() > wait_max) {
                stand.floor.hub.put(client, crate::hub::Out::Cut);
                stand.floor.hub.leave(client);
            }
            slowest
        };
        if slowest.is_none() {
            return true;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// The end of the duration: what was sent is read out first; the last venue to end stops the simulator.
async fn finish(shared: &Shared, running: &AtomicUsize) -> anyhow::Result<()> {
    loop {
        let drained = {
            let mut stand = shared.stand();
            stand.beat();
            stand.floor.hub.backlog().is_none_or(|(n, _)| n == 0)
        };
        if drained || shared.stop.is_cancelled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if running.fetch_sub(1, Ordering::Relaxed) == 1 {
        shared.stop.cancel();
    }
    Ok(())
}
