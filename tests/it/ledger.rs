//! The ledger against a real nats-server and real databases: killed in the middle and rebuilt, the tables are those
//! of an undisturbed run.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ledger::config::Config;
use ledger::db::Db;
use ledger::schema::{SYSTEM_CONFIG, TABLES};
use ledger::writer::Writer;
use nats::{Bus, Layout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use schemas::subject::stream::KV_CONFIG;
use tests::{Server, wait_for};

#[path = "../../ledger/src/sample.rs"]
mod sample;
use sample::{Stored, day, merged};

const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_tables_of_a_killed_and_of_a_rebuilt_ledger_are_those_of_an_undisturbed_one() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    check(|name| Ok(format!("sqlite:{}", dir.path().join(format!("{name}.sqlite")).display()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tables_of_a_killed_and_of_a_rebuilt_ledger_are_those_of_an_undisturbed_one() -> anyhow::Result<()> {
    let Some(postgres) = Postgres::start().await? else { return Ok(()) };
    check(|name| postgres.database(name)).await
}

async fn check(database: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let server = Server::start_with_rights().await?;
    let operator = server.bus("operator").await?;
    let layout = Layout {
        venues: vec!["binance".into()],
        accounts: vec!["main".into()],
        traders: vec!["owl".into()],
        partitions: 1,
    };
    layout.apply(&operator).await?;
    let choices: Vec<u8> = (0..2000u32).map(|n| (n * 7 % 11) as u8).collect();
    let facts = merged(&day(11), &choices);
    nats::kv::put(&operator, KV_CONFIG, "desk.main", "{\"state\":\"active\"}".into()).await?;

    let killed = database("killed")?;
    // Made before the ledger comes: two that migrate one SQLite file at once would meet.
    open(&killed).await?.close().await?;
    let first = start(&server, &killed, &[])?;
    let (one, rest) = facts.split_at(facts.len() / 3);
    let (two, three) = rest.split_at(rest.len() / 2);
    publish(&operator, one).await?;
    progress(&killed, 1).await?;
    first.kill9()?;
    publish(&operator, two).await?;
    let second = start(&server, &killed, &[])?;
    progress(&killed, one.len() as u64 + 1).await?;
    second.kill9()?;
    let third = start(&server, &killed, &[])?;
    publish(&operator, three).await?;
    let tables = settled(&killed, &facts).await?;
    third.terminate()?;
    third.succeeds().await?;

    let undisturbed = database("undisturbed")?;
    let mut writer = Writer::open(&Config::load(None)?, &undisturbed).await?;
    for fact in merged(&day(11), &[]) {
        writer.hear(&fact.stream, fact.seq, &fact.subject, &fact.payload)?;
    }
    writer.close().await?;
    let rebuilt = database("rebuilt")?;
    start(&server, &rebuilt, &["rebuild"])?.succeeds().await?;
    let again = all(&rebuilt).await?;
    let straight = all(&undisturbed).await?;
    for table in TABLES {
        assert_eq!(tables[table.name], again[table.name], "rebuilt {}", table.name);
        if table != &SYSTEM_CONFIG {
            assert_eq!(tables[table.name], straight[table.name], "undisturbed {}", table.name);
        }
        assert!(!tables[table.name].is_empty(), "{} is empty", table.name);
    }
    let status = start(&server, &rebuilt, &["rebuild"])?.exit().await?;
    ensure!(status.code() == Some(1), "a rebuild into a database that is not empty ended with {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_within_seconds_and_writes_every_row_once() -> anyhow::Result<()> {
    let server = Server::start_with_rights().await?;
    let operator = server.bus("operator").await?;
    let accounts = vec!["main".into()];
    let layout = Layout { venues: vec!["binance".into()], accounts, traders: vec!["owl".into()], partitions: 1 };
    layout.apply(&operator).await?;
    let choices: Vec<u8> = (0..2000u32).map(|n| (n * 5 % 11) as u8).collect();
    let facts = merged(&day(3), &choices);
    nats::kv::put(&operator, KV_CONFIG, "desk.main", "{\"state\":\"active\"}".into()).await?;
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite:{}", dir.path().join("ledger.sqlite").display());
    open(&url).await?.close().await?;

    let (mut told, mut took_ms) = (0, Vec::new());
    let mut holder = start(&server, &url, &["--lease"])?;
    for part in facts.chunks(facts.len() / 4 + 1) {
        if told > 0 {
            // Whoever comes while another holds the lease waits for it.
            let standby = start(&server, &url, &["--lease"])?;
            wait_for("the standby", BOUND, || async {
                let all = nats::stats::gather(&operator, Duration::from_millis(200)).await.ok()?;
                (all.iter().filter(|s| s.stage == "ledger").count() == 2).then_some(())
            })
            .await?;
            let killed = Instant::now();
            std::mem::replace(&mut holder, standby).kill9()?;
            publish(&operator, part).await?;
            progress(&url, told + 1).await?;
            took_ms.push(killed.elapsed().as_millis());
        } else {
            publish(&operator, part).await?;
        }
        told += part.len() as u64;
        progress(&url, told).await?;
    }
    let tables = settled(&url, &facts).await?;
    holder.terminate()?;
    holder.succeeds().await?;

    let undisturbed = format!("sqlite:{}", dir.path().join("undisturbed.sqlite").display());
    let mut writer = Writer::open(&Config::load(None)?, &undisturbed).await?;
    for fact in merged(&day(3), &[]) {
        writer.hear(&fact.stream, fact.seq, &fact.subject, &fact.payload)?;
    }
    writer.close().await?;
    let straight = all(&undisturbed).await?;
    for table in TABLES.iter().filter(|table| **table != &SYSTEM_CONFIG) {
        assert_eq!(tables[table.name], straight[table.name], "{}", table.name);
    }
    eprintln!("standby of the ledger: {took_ms:?} ms to new rows (ttl 2 s), {told} facts");
    assert!(took_ms.len() == 3 && took_ms.iter().all(|ms| *ms < 10_000), "{took_ms:?}");
    let refused = start(&server, &undisturbed, &["--lease", "rebuild"])?.exit().await?;
    assert_eq!(refused.code(), Some(64), "a rebuild competes with nobody");
    Ok(())
}

type Tables = BTreeMap<&'static str, Vec<Vec<Option<String>>>>;

async fn all(url: &str) -> anyhow::Result<Tables> {
    let mut db = open(url).await?;
    let mut tables = Tables::new();
    for table in TABLES {
        tables.insert(table.name, db.rows(table).await?);
    }
    Ok(tables)
}

async fn open(url: &str) -> anyhow::Result<Db> {
    Ok(Db::open(url, Duration::from_secs(10)).await?)
}

/// Waits until at least `facts` of all streams together were written.
async fn progress(url: &str, facts: u64) -> anyhow::Result<()> {
    wait_for("the ledger's progress", BOUND, || async {
        let cursors = open(url).await.ok()?.cursors().await.ok()?;
        (cursors.values().map(|c| c.seq).sum::<u64>() >= facts).then_some(())
    })
    .await
}

/// Waits until every stream was written to its end.
async fn settled(url: &str, facts: &[Stored]) -> anyhow::Result<Tables> {
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    facts.iter().for_each(|f| _ = ends.insert(&f.stream, f.seq));
    wait_for("all facts in SQL", BOUND, || async {
        let mut db = open(url).await.ok()?;
        let cursors = db.cursors().await.ok()?;
        let there = ends.iter().all(|(stream, end)| cursors.get(*stream).is_some_and(|c| c.seq == *end));
        (there && !db.rows(&SYSTEM_CONFIG).await.ok()?.is_empty()).then_some(())
    })
    .await?;
    all(url).await
}

async fn publish(bus: &Bus, facts: &[Stored]) -> anyhow::Result<()> {
    for fact in facts {
        let ack = bus.js().publish(fact.subject.clone(), fact.payload.clone().into()).await?.await?;
        ensure!((ack.stream.as_str(), ack.sequence) == (&fact.stream, fact.seq), "{} went to {ack:?}", fact.subject);
    }
    Ok(())
}

/// The `ledger` program, built beside this test.
fn program() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test runs from target/<profile>/deps")?;
    let program = folder.join("ledger");
    ensure!(program.is_file(), "{} is not built: cargo build -p ledger --bin ledger", program.display());
    Ok(program)
}

/// A running ledger; dropping it kills exactly this process.
struct Running(Child);

fn start(server: &Server, database: &str, arguments: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new(program()?);
    command.args(arguments).envs(server.env("ledger")).env("DATABASE_URL", database).stdin(Stdio::null());
    Ok(Running(command.spawn().context("start ledger")?))
}

impl Running {
    fn kill9(mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the ledger ended by itself");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn terminate(&self) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM)?)
    }

    async fn exit(mut self) -> anyhow::Result<std::process::ExitStatus> {
        let child = std::sync::Mutex::new(&mut self.0);
        let ended = || async { child.lock().ok()?.try_wait().ok().flatten() };
        wait_for("the end of the ledger", BOUND, ended).await
    }

    async fn succeeds(self) -> anyhow::Result<()> {
        let status = self.exit().await?;
        ensure!(status.success(), "the ledger ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A PostgreSQL cluster of one's own in a temporary folder; dropping it ends exactly its processes.
struct Postgres {
    programs: PathBuf,
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// `None` (after saying so) where PostgreSQL is not installed; with `CI=true` that is an error.
    async fn start() -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else {
            ensure!(std::env::var("CI").as_deref() != Ok("true"), "PostgreSQL is not installed and CI=true");
            eprintln!("skipped: no initdb on PATH or in /usr/lib/postgresql/*/bin");
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("tapeline-postgres-").tempdir()?;
        // It refuses to run as root: the folder goes to somebody else, and so do its processes.
        let other = (std::fs::metadata(dir.path())?.uid() == 0).then(unprivileged).transpose()?;
        if let Some((uid, gid)) = other {
            chown(dir.path(), Some(uid), Some(gid))?;
        }
        let run = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((uid, gid)) = other {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = dir.path().join("data");
        let mut initdb = run("initdb");
        initdb.args(["--username=tapeline", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = initdb.arg(&data).status().context("run initdb")?;
        ensure!(made.success(), "initdb ended with {made}");
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = run("postgres");
        let log = std::fs::File::create(dir.path().join("postgres.log"))?;
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-F", "-p", &port.to_string(), "-k"]).arg(dir.path());
        let child = server.stderr(log).spawn().context("start postgres")?;
        let postgres = Self { programs, child, port, dir };
        let up = || async { Db::open(&postgres.url("postgres"), Duration::from_secs(5)).await.ok() };
        wait_for("PostgreSQL to answer", BOUND, up)
            .await
            .with_context(|| std::fs::read_to_string(postgres.dir.path().join("postgres.log")).unwrap_or_default())?;
        Ok(Some(postgres))
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tapeline@127.0.0.1:{}/{database}", self.port)
    }

    /// A new, empty database.
    fn database(&self, name: &str) -> anyhow::Result<String> {
        let port = self.port.to_string();
        let mut create = Command::new(self.programs.join("createdb"));
        let made = create.args(["-h", "127.0.0.1", "-p", &port, "-U", "tapeline", name]).status()?;
        ensure!(made.success(), "createdb ended with {made}");
        Ok(self.url(name))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends the server and its own children at once; dead already is fine.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

/// The folder with `initdb`, `postgres` and `createdb`.
fn programs() -> Option<PathBuf> {
    let whole = |dir: &PathBuf| ["initdb", "postgres", "createdb"].iter().all(|name| dir.join(name).is_file());
    let mut installed: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().map(|dir| dir.path().join("bin")).collect())
        .unwrap_or_default();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(installed.into_iter().rev()).find(whole)
}

/// User and group of `postgres`, else of `nobody`.
fn unprivileged() -> anyhow::Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").context("read the users of this machine")?;
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    of("postgres").or_else(|| of("nobody")).context("root, and neither a user postgres nor nobody")
}
