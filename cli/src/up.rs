//! `tapeline up`: nats-server, the streams, every stage, for the demo the venue simulator; all of it watched,
//! restarted within a bound, and ended in order by Ctrl-C.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{Plan, Running};
use crate::run_file::{RunFile, Secrets};
use crate::{nats_server, plan, target};

/// Restarts of one process in the last ten minutes; one more and the pipeline ends with an error.
const RESTARTS_MAX: usize = 20;
const RESTART_WINDOW: Duration = Duration::from_secs(600);
/// First wait before a restart; doubled with each restart in the window, up to `RESTART_WAIT_MAX`.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(250);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the server and the stages may take to answer.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);

/// `tapeline up`
#[derive(clap::Args, Clone)]
#[command(after_help = "Examples:
  tapeline up --demo                          simulated venues, paper account
  tapeline up --demo --seed 7 --speed 10      another market, ten times as fast
  tapeline up --venue binance,deribit         the venues' public feeds, paper account
  tapeline up --venue binance --config my.toml")]
pub struct Args {
    /// Run over the venue simulator instead of a real venue
    #[arg(long, conflicts_with = "venue")]
    pub demo: bool,
    /// Venues to read, comma-separated: binance, binance-usdm, binance-coinm, deribit
    #[arg(long, value_delimiter = ',', required_unless_present = "demo")]
    pub venue: Vec<String>,
    /// Your tapeline.toml: a table a stage, laid over the defaults
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where the dashboard listens
    #[arg(long, default_value = "127.0.0.1:8787")]
    pub dashboard: String,
    /// Preferred port of nats-server; another free one is taken when it is in use
    #[arg(long, default_value_t = 4222)]
    pub nats_port: u16,
    /// Seed of the simulated market
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// How many times faster than the clock the simulated market runs
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Log format of the stages: text or json
    #[arg(long, default_value = "text")]
    pub log_format: String,
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let data = data.unwrap_or_else(|| PathBuf::from(if args.demo { target::DEMO } else { target::LIVE }));
    target::block_on(supervise(args, data, json))
}

/// Starts everything, then watches until a signal or a process that cannot be kept.
async fn supervise(args: Args, data: PathBuf, json: bool) -> anyhow::Result<()> {
    fs::create_dir_all(data.join("logs")).with_context(|| format!("create {}", data.display()))?;
    let data = data.canonicalize().with_context(|| format!("find {}", data.display()))?;
    if let Some(run) = RunFile::read(&data)? {
        bail!("a pipeline runs over {} already (process {}): `tapeline stop` ends it", data.display(), run.pid);
    }
    // Both are asked for before the first process starts, so that no Ctrl-C can fall between.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut house = House::new(data.clone(), json);
    let ended = tokio::select! {
        biased;
        // Dropping the run half-way loses nothing: what it started is in `house`, which is ended below.
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        result = house.run(&args) => result,
    };
    house.end().await;
    RunFile::remove(&data);
    ended
}

/// The processes of one pipeline, in the order of their start.
struct House {
    data: PathBuf,
    json: bool,
    running: Vec<Running>,
    /// Starts of each process in the window.
    starts: BTreeMap<String, Vec<Instant>>,
}

impl House {
    fn new(data: PathBuf, json: bool) -> Self {
        Self { data, json, running: Vec::new(), starts: BTreeMap::new() }
    }

    async fn run(&mut self, args: &Args) -> anyhow::Result<()> {
        let logs = self.data.join("logs");
        let settings = plan::settings(args, &self.data)?;

        let (nats_url, secrets) = match std::env::var("NATS_URL") {
            Ok(url) => {
                self.say(&format!("using nats-server at {url}"));
                (url, Secrets::read(&self.data)?)
            }
            Err(_) => {
                let secrets = Secrets::open(&self.data)?;
                let port = nats_server::free_port(args.nats_port)?;
                let step = self.step("nats-server");
                let server = plan::nats_server(&self.data, port, &secrets)?;
                self.start(server, &logs)?;
                let url = format!("nats://127.0.0.1:{port}");
                step.finish_with_message(format!("nats-server on port {port}"));
                (url, Some(secrets))
            }
        };

        let step = self.step("streams");
        let login = target::operator(&nats_url, secrets.as_ref());
        let bus = tokio::time::timeout(READY_WAIT_MAX, target::connect(login, settings.bounds.clone()))
            .await
            .context("nats-server did not answer")??;
        settings.layout.apply(&bus).await.context("create the streams")?;
        step.finish_with_message(format!("{} streams and buckets", settings.layout.streams().len()));

        let mut overlay = settings.overlay.clone();
        if args.demo {
            let step = self.step("venue simulator");
            let (simulator, ports) = plan::simulator(args, &self.data)?;
            self.start(simulator, &logs)?;
            let endpoints = plan::simulator_endpoints(&ports, READY_WAIT_MAX).await?;
            overlay.point_ingest_at(&endpoints);
            step.finish_with_message("venue simulator");
        }
        let config = self.data.join("effective.toml");
        fs::write(&config, overlay.text()).with_context(|| format!("write {}", config.display()))?;

        for stage in plan::STAGES {
            let step = self.step(stage);
            let stage_plan = plan::stage(stage, &config, &nats_url, secrets.as_ref(), args)?;
            self.start(stage_plan, &logs)?;
            step.finish_with_message(stage.to_owned());
        }
        let step = self.step("waiting for every stage to answer");
        let answered = crate::status::wait_for_stages(&bus, &plan::STAGES, READY_WAIT_MAX);
        // A stage that dies while we wait is noticed here and not after the wait.
        tokio::select! {
            biased;
            // Dropping the watch loses nothing: it starts again below.
            died = self.first_death() => bail!("{died}; its log: {}", logs.display()),
            answered = answered => answered?,
        }
        step.finish_with_message("every stage answers");

        self.write_run_file(args, &nats_url)?;
        self.announce(args, &nats_url);
        self.watch(&logs).await
    }

    fn write_run_file(&self, args: &Args, nats_url: &str) -> anyhow::Result<()> {
        RunFile {
            pid: std::process::id(),
            nats_url: nats_url.to_owned(),
            dashboard: Some(format!("http://{}", args.dashboard)),
            mode: "paper".to_owned(),
            stages: plan::STAGES.map(str::to_owned).to_vec(),
            pids: self.running.iter().map(|r| (r.plan.name.clone(), r.pid())).collect(),
        }
        .write(&self.data)
    }

    fn announce(&self, args: &Args, nats_url: &str) {
        if self.json {
            println!(
                "{}",
                serde_json::json!({"ready": true, "dashboard": format!("http://{}", args.dashboard), "nats": nats_url, "data": self.data})
            );
            return;
        }
        println!();
        println!("  dashboard  http://{}", args.dashboard);
        println!("  bus        {nats_url} (user operator, password in {})", self.data.join("secrets.env").display());
        println!("  logs       {}", self.data.join("logs").display());
        println!("  look in    tapeline status | tapeline tap 'candle.>' | tapeline positions");
        println!("\n  Ctrl-C ends everything; the streams stay and are resumed next time.");
    }

    fn start(&mut self, plan: Plan, logs: &Path) -> anyhow::Result<()> {
        self.starts.entry(plan.name.clone()).or_default().push(Instant::now());
        self.running.push(Running::start(&plan, logs)?);
        Ok(())
    }

    /// The first process to end, as a sentence. Cancel safe.
    async fn first_death(&mut self) -> String {
        let (name, status, _) = self.next_end().await;
        format!("{name} ended with {status}")
    }

    /// Cancel safe: no process is taken from the list.
    async fn next_end(&mut self) -> (String, String, usize) {
        let waits = self.running.iter_mut().enumerate().map(|(i, r)| {
            let name = r.plan.name.clone();
            Box::pin(async move {
                let status = match r.wait().await {
                    Ok(status) => (status.to_string(), status.code()),
                    Err(e) => (e.to_string(), None),
                };
                (name, status, i)
            })
        });
        let ((name, (status, code), i), _, _) = futures_util::future::select_all(waits).await;
        let status =
            if code == Some(i32::from(nats::exit::CONFIG)) { format!("{status} (bad configuration)") } else { status };
        (name, status, i)
    }

    /// Restarts what ends, within the bound.
    async fn watch(&mut self, logs: &Path) -> anyhow::Result<()> {
        loop {
            let (name, status, i) = self.next_end().await;
            let plan = self.running[i].plan.clone();
            if status.contains("bad configuration") {
                bail!("{name} ended with {status}; its log: {}", logs.join(format!("{name}.log")).display());
            }
            let starts = self.starts.entry(name.clone()).or_default();
            starts.retain(|at| at.elapsed() < RESTART_WINDOW);
            if starts.len() > RESTARTS_MAX {
                bail!(
                    "{name} ended {} times in ten minutes, the last time with {status}; its log: {}",
                    starts.len(),
                    logs.join(format!("{name}.log")).display()
                );
            }
            let wait = RESTART_WAIT_MAX.min(RESTART_WAIT_MIN * 2u32.saturating_pow(starts.len() as u32 - 1));
            eprintln!("tapeline: {name} ended with {status}; starting it again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
            starts.push(Instant::now());
            // Replaced in place: the order of the end is the order of the first start.
            self.running[i] = Running::start(&plan, logs)?;
            self.refresh_pids()?;
        }
    }

    fn refresh_pids(&self) -> anyhow::Result<()> {
        if let Some(mut run) = RunFile::read(&self.data)? {
            run.pids = self.running.iter().map(|r| (r.plan.name.clone(), r.pid())).collect();
            run.write(&self.data)?;
        }
        Ok(())
    }

    /// Ends every process that we started, the last started first, the bus last of all.
    async fn end(&mut self) {
        if !self.running.is_empty() && !self.json {
            eprintln!("tapeline: ending {} processes", self.running.len());
        }
        let mut bus = None;
        let mut rest = Vec::new();
        for process in self.running.drain(..) {
            if process.plan.name == plan::NATS_SERVER { bus = Some(process) } else { rest.push(process) }
        }
        let ends = rest.into_iter().rev().map(Running::end);
        for result in futures_util::future::join_all(ends).await {
            if let Err(e) = result {
                eprintln!("tapeline: {e:#}");
            }
        }
        if let Some(bus) = bus
            && let Err(e) = bus.end().await
        {
            eprintln!("tapeline: {e:#}");
        }
    }

    fn say(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// A spinner on a terminal, one line when it is done elsewhere.
    fn step(&self, what: &str) -> Step {
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step { bar, quiet: self.json }
    }
}

struct Step {
    bar: ProgressBar,
    quiet: bool,
}

impl Step {
    fn finish_with_message(self, text: impl Into<String>) {
        let text = text.into();
        let hidden = self.bar.is_hidden();
        self.bar.finish_and_clear();
        if !self.quiet {
            eprintln!("  {} {text}", if hidden { "ok" } else { "\u{2713}" });
        }
    }
}
