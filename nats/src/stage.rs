//! A stage process: its arguments, its tasks, its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use schemas::Core;
use schemas::config::UserFile;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Login};
use crate::checkpoint;
use crate::config::{Config, ms};
use crate::error::{BusError, Halted};
use crate::layout;
use crate::lease::host::{Host, Work};
use crate::log::{self, LogFormat};
use crate::service;
use crate::task::{self, Accept, TaskSpec};
use crate::tasklist::TaskList;
use crate::telemetry::{Board, ExtraStats, TaskStats};

/// Arguments that every stage takes.
#[derive(Clone, Debug, clap::Args)]
pub struct StageArgs {
    /// Your tapeline.toml; its tables are laid over the stages' defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of nats-server, several divided by commas.
    #[arg(long, env = "NATS_URL", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
    /// User at nats-server; the stage's name when only TAPELINE_<STAGE>_PASSWORD is set.
    #[arg(long, env = "NATS_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// Password at nats-server. Set it in the environment: arguments are visible to everybody.
    #[arg(long, env = "NATS_PASSWORD", value_name = "SECRET", hide_env_values = true)]
    pub password: Option<String>,
    /// Tasks of this process, such as `aggregate.binance.0-7`; all without it.
    #[arg(long, value_name = "LIST", default_value = "")]
    pub tasks: String,
    /// Form of log lines on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Where /metrics and /healthz are served; port 0 takes a free one and logs it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub metrics_addr: SocketAddr,
    /// Partitions of every venue; frozen when the streams are created.
    #[arg(long, value_name = "N", default_value_t = schemas::subject::PARTITIONS)]
    pub partitions: u32,
    /// Compete for the tasks with other instances of this stage that were started so: each runs its fair part, and
    /// takes over within seconds when another dies ([nats.lease]).
    #[arg(long)]
    pub lease: bool,
    /// Resume a checkpoint of another code version, made at a peaceful stop.
    #[arg(long)]
    pub accept_version: bool,
    /// Go on behind lost outputs or inputs instead of halting.
    #[arg(long)]
    pub accept_loss: bool,
}

impl Default for StageArgs {
    fn default() -> Self {
        Self {
            config: None,
            nats_url: "nats://127.0.0.1:4222".to_owned(),
            user: None,
            password: None,
            tasks: String::new(),
            log_format: LogFormat::Text,
            metrics_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            partitions: schemas::subject::PARTITIONS,
            lease: false,
            accept_version: false,
            accept_loss: false,
        }
    }
}

impl StageArgs {
    /// The file of `--config`, for `schemas::config::load`.
    pub fn user_file(&self) -> anyhow::Result<Option<UserFile>> {
        let Some(path) = &self.config else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Some(UserFile { name: path.display().to_string(), text }))
    }

    pub fn task_list(&self) -> anyhow::Result<TaskList> {
        Ok(TaskList::parse(&self.tasks)?)
    }

    /// Who `stage` is at the server. Without `--user` and `--password` the stage's own variable
    /// `TAPELINE_<STAGE>_PASSWORD` counts.
    pub fn login(&self, stage: &str) -> Login {
        let own = std::env::var(format!("TAPELINE_{}_PASSWORD", stage.to_ascii_uppercase())).ok();
        let password = self.password.clone().or(own);
        let user = self.user.clone().or_else(|| password.as_ref().map(|_| stage.to_owned()));
        Login { url: self.nats_url.clone(), stage: stage.to_owned(), user, password }
    }
}

/// A connected stage. Tasks and other work are supervised: the first that fails ends the process.
pub struct Stage {
    bus: Bus,
    board: Board,
    registry: Arc<Mutex<Registry>>,
    accept: Accept,
    partitions: u32,
    /// Tasks that wait to be run under leases; `None` without `--lease`.
    leased: Option<Mutex<Vec<Box<dyn Work>>>>,
    stop: CancellationToken,
    work: Mutex<JoinSet<anyhow::Result<()>>>,
    http: SocketAddr,
    /// Answers the service protocol for as long as the stage lives.
    _service: async_nats::service::Service,
}

impl Stage {
    /// Telemetry, connection, service protocol and `/metrics`, in this order.
    pub async fn start(stage: &str, args: &StageArgs) -> anyhow::Result<Self> {
        let config = Config::load(args.user_file()?.as_ref())?;
        let lines = log::install(args.log_format, config.telemetry.log_queue_max);
        let log_dropped = lines.dropped();
        let bus = Bus::connect(args.login(stage), config).await.with_context(|| format!("start {stage}"))?;
        tokio::spawn(lines.forward(bus.clone()));
        let stop = CancellationToken::new();
        let board = Board::new(&bus, log_dropped);
        let mut registry =
            Registry::with_prefix_and_labels("tapeline", [("stage".into(), stage.to_owned().into())].into_iter());
        registry.register_collector(Box::new(board.clone()));
        let registry = Arc::new(Mutex::new(registry));
        let http = service::serve(args.metrics_addr, board.clone(), Arc::clone(&registry), stop.clone()).await?;
        let service = service::announce(&bus, &board, http).await?;
        tracing::info!(stage, metrics = %format!("http://{http}/metrics"), url = args.nats_url, "stage started");
        Ok(Self {
            bus,
            board,
            registry,
            accept: Accept { version: args.accept_version, loss: args.accept_loss, outputs: false },
            partitions: args.partitions,
            leased: args.lease.then(Mutex::default),
            stop,
            work: Mutex::new(JoinSet::new()),
            http,
            _service: service,
        })
    }

    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }
    /// Cancelled at SIGINT, SIGTERM and when anything fails.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }
    /// Where `/metrics` and `/healthz` are served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }
    /// Registers a shell's own metrics; names get the prefix `tapeline_`.
    pub fn metrics(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }
    /// Shows `stats()` under `name` in `$SRV.STATS` and `/healthz`.
    pub fn stats(&self, name: &str, stats: ExtraStats) {
        self.board.add_extra(name, stats);
    }
    /// A row of its own in the stage's statistics, for work that is not a [`Stage::task`].
    pub fn task_stats(&self, key: &str) -> Arc<TaskStats> {
        let stats = TaskStats::new(key);
        self.board.add(Arc::clone(&stats));
        stats
    }

    /// Waits for streams (and buckets, as `KV_<bucket>`) that an operator creates, up to
    /// `connection.streams_wait_s_max`.
    pub async fn require(&self, streams: &[&str]) -> Result<(), BusError> {
        require(&self.bus, streams).await
    }

    /// Runs one pure core; its streams are waited for. With `--lease` only while this instance holds its lease.
    pub fn task<C: Core + Send + 'static>(&self, spec: TaskSpec, core: C) {
        let stats = TaskStats::new(&spec.key);
        let initial = core.save();
        let (bus, accept, partitions) = (self.bus.clone(), self.accept, self.partitions);
        self.add(Box::new(CoreWork { bus, spec, core, initial, accept, partitions, stats }));
    }

    /// Runs work whose stored facts are its state, and that one instance at a time should do, under the same rules as a
    /// task. `make` gives it for each time that it is begun; it ends soon after its token is cancelled.
    pub fn exclusive<M>(&self, key: &str, make: M)
    where
        M: FnMut(Arc<TaskStats>, CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static,
    {
        self.add(Box::new(MadeWork { stats: TaskStats::new(key), make }));
    }

    fn add(&self, mut work: Box<dyn Work>) {
        if let Some(leased) = &self.leased {
            leased.lock().unwrap_or_else(PoisonError::into_inner).push(work);
            return;
        }
        self.board.add(Arc::clone(work.stats()));
        let (name, stop) = (work.stats().key().to_owned(), self.stop.clone());
        let task = checkpoint::key(self.bus.stage(), &name);
        self.spawn(&name, async move {
            let ended = work.run(&stop).await;
            let remedied = !work.resumes();
            ended_as(work.stats(), ended, &task, remedied)
        });
    }

    /// Supervised work: its error ends the process with exit code 1. It should end soon after [`Stage::stop`].
    pub fn spawn<F>(&self, name: &str, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let named = format!("{} {name}", self.bus.stage());
        self.work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move { work.await.with_context(|| named) });
    }

    /// Runs until SIGINT or SIGTERM (Ok), all work is done (Ok), or something fails; then everything stops, drains
    /// and is awaited for at most `task.stop_ms_max`.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        if let Some(leased) = self.leased.take() {
            let tasks = leased.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.spawn("leases", Host::new(&self.bus, &self.board, tasks).run(self.stop.clone()));
        }
        let Self { bus, stop, work, .. } = &self;
        let mut work = std::mem::take(&mut *work.lock().unwrap_or_else(PoisonError::into_inner));
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            signal = signalled() => signal,
            violation = bus.violated() => Err(violation.into()),
            outcome = first_failure(&mut work) => outcome,
        };
        if let Err(error) = &outcome {
            tracing::error!(error = %format!("{error:#}"), "stage ends");
        } else {
            tracing::info!("stage stops");
        }
        stop.cancel();
        let bound = ms(bus.config().task.stop_ms_max);
        let drained = tokio::time::timeout(bound, first_failure(&mut work)).await;
        work.shutdown().await;
        // Whatever is still in the client's buffer (the last log lines) gets a moment.
        let _ = tokio::time::timeout(Duration::from_millis(500), bus.client().flush()).await;
        outcome?;
        match drained {
            Ok(drained) => drained,
            Err(_) => anyhow::bail!("stop: not drained within {} ms", bound.as_millis()),
        }
    }
}

/// One pure core with its streams.
struct CoreWork<C> {
    bus: Bus,
    spec: TaskSpec,
    core: C,
    /// The core as it was made: without a checkpoint each run begins with it.
    initial: Vec<u8>,
    accept: Accept,
    partitions: u32,
    stats: Arc<TaskStats>,
}

impl<C: Core + Send> Work for CoreWork<C> {
    fn stats(&self) -> &Arc<TaskStats> {
        &self.stats
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let Self { bus, spec, core, initial, accept, partitions, stats } = self;
            let checkpoints = crate::kv::stream(checkpoint::BUCKET);
            let needed = [spec.input.as_str(), spec.output.as_str(), checkpoints.as_str()];
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // Nothing was begun yet.
                there = require(bus, &needed) => there?,
            }
            for stream in [&spec.input, &spec.output] {
                layout::check_partitions(bus, stream, *partitions).await?;
            }
            core.restore(initial).with_context(|| format!("empty state of {}", spec.key))?;
            Ok(task::run_on(bus, spec, core, *accept, stats, stop).await?)
        })
    }
}

/// Work of a shell.
struct MadeWork<M> {
    stats: Arc<TaskStats>,
    make: M,
}

impl<M> Work for MadeWork<M>
where
    M: FnMut(Arc<TaskStats>, CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send,
{
    fn stats(&self) -> &Arc<TaskStats> {
        &self.stats
    }
    fn resumes(&self) -> bool {
        true
    }
    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, anyhow::Result<()>> {
        (self.make)(Arc::clone(&self.stats), stop.clone())
    }
}

/// Notes how a task ended, and says what to do about a halt. `remedied` is false for work without a checkpoint: an
/// operator's word is about one, and its next start goes on behind what is stored.
fn ended_as(stats: &TaskStats, ended: anyhow::Result<()>, task: &str, remedied: bool) -> anyhow::Result<()> {
    let fenced = |error: &anyhow::Error| error.downcast_ref::<BusError>().is_some_and(BusError::fenced);
    stats.ended(ended.as_ref().is_err_and(fenced));
    if !remedied {
        return ended;
    }
    ended.map_err(|error| match error.downcast::<BusError>() {
        Ok(error) => Halted::of(error, task),
        Err(other) => other,
    })
}

async fn first_failure(work: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = work.join_next().await {
        match ended {
            Ok(ended) => ended?,
            Err(panic) => anyhow::bail!("a task panicked: {panic}"),
        }
    }
    Ok(())
}

async fn signalled() -> anyhow::Result<()> {
    let mut term =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.context("listen for SIGINT"),
        _ = term.recv() => Ok(()),
    }
}

/// Waits until every stream is there; the error says how to create them.
pub async fn require(bus: &Bus, streams: &[&str]) -> Result<(), BusError> {
    let bound = Duration::from_secs(bus.config().connection.streams_wait_s_max);
    let begun = std::time::Instant::now();
    for stream in streams {
        loop {
            match bus.stream(stream).await {
                Ok(_) => break,
                Err(BusError::StreamAbsent { .. }) if begun.elapsed() < bound => {
                    tracing::info!(stream, "waiting for the stream");
                    tokio::time::sleep(ms(500)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
