//! The harness of the cross-stage tests: a real nats-server of one's own, and waiting for a state with a bound.
//!
//! Modules in reading order: what runs (servers, connections, stages), what they run on (a recorded session), what is
//! compared, and who disturbs it.

pub mod cluster;
pub mod fleet;
pub mod proxy;
pub mod ticks;
pub mod venue;

pub mod feed;
pub mod session;

pub mod arena;
pub mod compare;

pub mod chaos;
pub mod command;
pub mod soak;
pub mod standby;

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nats::{Bus, Config, Login};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Interval, MissedTickBehavior};

/// The users of `nats/conf/server.conf`.
pub const USERS: &[&str] =
    &["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway", "operator", "external"];

const START_BOUND: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No users: everybody may do everything.
    Plain,
    /// `nats/conf/server.conf` with a password for every user.
    Rights,
}

/// A nats-server on a free loopback port with a store of its own. Dropping it kills exactly this process.
pub struct Server {
    child: Child,
    dir: TempDir,
    kind: Kind,
    name: String,
    port: u16,
    member: Option<Member>,
}

/// A server's place in a cluster on loopback.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub route_port: u16,
    pub monitor_port: u16,
    /// Route ports of all members.
    pub routes: Vec<u16>,
}

impl Server {
    /// A server without users.
    pub async fn start() -> anyhow::Result<Self> {
        Self::of(Kind::Plain).await
    }

    /// A server with the users and rights of `nats/conf/server.conf`.
    pub async fn start_with_rights() -> anyhow::Result<Self> {
        Self::of(Kind::Rights).await
    }

    async fn of(kind: Kind) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tapeline-nats-").tempdir().context("make a store")?;
        let name = dir.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let child = spawn(kind, dir.path(), &name, None, None)?;
        let mut server = Self { child, dir, kind, name, port: 0, member: None };
        server.port = server.listens().await?;
        server.answers().await?;
        Ok(server)
    }

    /// A member of a cluster, with users; it answers once the others are there as well.
    pub(crate) async fn of_cluster(member: Member) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tapeline-nats-").tempdir().context("make a store")?;
        let name = dir.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let child = spawn(Kind::Rights, dir.path(), &name, None, Some(&member))?;
        let mut server = Self { child, dir, kind: Kind::Rights, name, port: 0, member: Some(member) };
        server.port = server.listens().await?;
        Ok(server)
    }

    async fn listens(&self) -> anyhow::Result<u16> {
        let ports = self.dir.path().join("ports");
        wait_for("the ports file of nats-server", START_BOUND, || async { port_in(&ports) })
            .await
            .with_context(|| tail(&self.dir.path().join("server.log"), 12))
    }

    /// `nats://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    /// As the server names itself, in a cluster too.
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// A scratch folder that goes with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// Where the streams are stored.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
    /// Where its monitoring answers: `http://127.0.0.1:<port>`. A server without users has none.
    pub fn monitor(&self) -> anyhow::Result<String> {
        let ports = ports_in(&self.dir.path().join("ports")).context("no ports file")?;
        Ok(ports["monitoring"][0].as_str().context("no monitoring port")?.to_owned())
    }
    /// The password of a user of `nats/conf/server.conf`.
    pub fn password(user: &str) -> String {
        format!("secret{user}")
    }

    pub fn login(&self, stage: &str) -> Login {
        let login = Login { url: self.url(), stage: stage.to_owned(), ..Login::default() };
        match self.kind {
            Kind::Plain => login,
            Kind::Rights => Login { user: Some(stage.to_owned()), password: Some(Self::password(stage)), ..login },
        }
    }

    /// A connection of `stage` with the default bounds.
    pub async fn bus(&self, stage: &str) -> anyhow::Result<Bus> {
        self.bus_with(stage, Config::default()).await
    }
    pub async fn bus_with(&self, stage: &str, config: Config) -> anyhow::Result<Bus> {
        Ok(Bus::connect(self.login(stage), config).await?)
    }

    /// Environment for stage programs that are to use this server.
    pub fn env(&self, stage: &str) -> Vec<(String, String)> {
        let mut env = vec![("NATS_URL".to_owned(), self.url())];
        if self.kind == Kind::Rights {
            env.push(("NATS_USER".to_owned(), stage.to_owned()));
            env.push(("NATS_PASSWORD".to_owned(), Self::password(stage)));
        }
        env
    }

    /// SIGKILL; what was acknowledged is in the store.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL).context("kill nats-server")?;
        self.child.wait().context("await nats-server")?;
        Ok(())
    }

    /// Starts it again on the same port and store; it must be dead.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_some(), "nats-server still runs");
        self.start_again()?;
        self.answers().await
    }

    /// Like [`Server::restart`], without waiting until it answers.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_some(), "nats-server still runs");
        self.child = spawn(self.kind, self.dir.path(), &self.name, Some(self.port), self.member.as_ref())?;
        Ok(())
    }

    /// SIGSTOP, SIGCONT and the like.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal).context("signal nats-server")
    }

    /// Why the server ended by itself, if it did.
    pub fn ended(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        Ok(Some(format!("nats-server ended with {status}: {}", tail(&self.dir.path().join("server.log"), 6))))
    }

    pub(crate) fn monitor_port(&self) -> Option<u16> {
        self.member.as_ref().map(|member| member.monitor_port)
    }

    /// Waits until the server at our port is ours: it says its name when one connects.
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        let (port, name) = (self.port, self.name.clone());
        let ours = within(START_BOUND, async || {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
                bail!("nats-server ended with {status}: {log}");
            }
            match greeting(port) {
                Some(info) if info.contains(&format!("\"server_name\":\"{name}\"")) => Ok(Some(())),
                Some(info) => bail!("another server took port {port}: {info}"),
                None => Ok(None),
            }
        });
        ours.await?.with_context(|| format!("nats-server does not answer on {port}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dead already is fine; by pid, so no other server is touched.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(kind: Kind, dir: &Path, name: &str, port: Option<u16>, member: Option<&Member>) -> anyhow::Result<Child> {
    let (ports, store, log) = (dir.join("ports"), dir.join("store"), dir.join("server.log"));
    std::fs::create_dir_all(&ports)?;
    let mut command = Command::new(binary()?);
    let port = port.map_or("-1".to_owned(), |port| port.to_string());
    match kind {
        Kind::Plain => {
            let conf = dir.join("plain.conf");
            std::fs::write(
                &conf,
                format!("host: \"127.0.0.1\"\nmax_payload: 8MB\njetstream {{ store_dir: {store:?} }}\n"),
            )?;
            command.arg("-c").arg(conf);
        }
        Kind::Rights => {
            let conf = dir.join("server.conf");
            // The monitoring port is fixed in the file; a test takes a free one.
            let monitor = member.map_or("-1".to_owned(), |member| member.monitor_port.to_string());
            let mut text = nats::SERVER_CONF.replace("127.0.0.1:8222", &format!("127.0.0.1:{monitor}"));
            text += &member.map(cluster::block).unwrap_or_default();
            std::fs::write(&conf, text)?;
            command.arg("-c").arg(conf).env("TAPELINE_STORE_DIR", format!("{store:?}"));
            for user in USERS {
                command.env(format!("TAPELINE_{}_PASSWORD", user.to_ascii_uppercase()), Server::password(user));
            }
        }
    }
    let errors = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    command
        .args(["--name", name, "--port", &port, "--ports_file_dir"])
        .arg(ports)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("start nats-server")
}

/// `NATS_SERVER_BIN`, else `.tapeline/bin/nats-server` of the checkout, else `nats-server` on PATH.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER_BIN") {
        return Ok(path.into());
    }
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tapeline/bin/nats-server");
    if local.exists() {
        return Ok(local);
    }
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file()));
    on_path.context("no nats-server: run `make setup`, or set NATS_SERVER_BIN")
}

/// The client port in nats-server's ports file, once it is written.
fn port_in(ports: &Path) -> Option<u16> {
    ports_in(ports)?["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

fn ports_in(ports: &Path) -> Option<serde_json::Value> {
    let file = std::fs::read_dir(ports).ok()?.flatten().find(|f| f.path().extension().is_some_and(|e| e == "ports"))?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    serde_json::from_str(&text).ok()
}

/// The INFO line that a server sends to whoever connects.
fn greeting(port: u16) -> Option<String> {
    let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.starts_with("INFO").then_some(line)
}

/// A program that cargo built beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // A test binary lies one folder below the programs.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is absent beside {}: cargo build --workspace --bins", own.display()))
}

/// The last lines of a log, for an error.
pub fn tail(path: &Path, lines_max: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

/// Waits until `probe` gives a value, at most `bound`; `what` names the state in the error.
pub async fn wait_for<T, F>(what: &str, bound: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let found = within(bound, async || Ok(probe().await)).await?;
    found.with_context(|| format!("{what}: not within {bound:?}"))
}

/// The pace at which a state is looked at that is waited for.
pub fn beat() -> Interval {
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// What the probe found, which may fail and may change what it looks at; None when the bound passed without it.
pub async fn within<T>(
    bound: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let (begun, mut beat) = (Instant::now(), beat());
    loop {
        beat.tick().await;
        let found = probe().await?;
        if found.is_some() || begun.elapsed() >= bound {
            return Ok(found);
        }
    }
}

/// Every stored message of a stream, as (sequence, subject, payload), read by its leader.
pub async fn stored(bus: &Bus, stream: &str) -> anyhow::Result<Vec<(u64, String, Vec<u8>)>> {
    let last = bus.stream(stream).await?;
    let mut all = Vec::new();
    if last.messages == 0 {
        return Ok(all);
    }
    let mut reader = nats::Reader::open(bus, stream, ">", 0).await?;
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), reader.next()).await.context("read a stream")??;
        let end = message.seq >= last.last_seq;
        all.push((message.seq, message.subject.to_string(), message.payload.to_vec()));
        if end {
            return Ok(all);
        }
    }
}
