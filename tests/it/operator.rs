//! What an operator asks: doctor and top, against real stages on a real server. Each trouble that doctor knows is made
//! for real and must be named with a remedy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::jetstream::stream::Config as Stream;
use nats::{Bus, Layout};
use schemas::raw::{Trade, Trades};
use schemas::subject::stream;
use schemas::{Fact, Nanos, PriceM, QtyM, Scale, Side};
use serde_json::{Value, json};
use tests::{Server, USERS, wait_for};

const STAGES: [&str; 4] = ["aggregate", "strategy", "risk", "executor"];
const BOUND: Duration = Duration::from_secs(60);

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

/// Stages without a venue; dropping them kills exactly these processes.
struct Stages {
    server: Server,
    bus: Bus,
    config: PathBuf,
    children: Vec<(&'static str, Child)>,
}

impl Drop for Stages {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // Dead already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stages {
    async fn start() -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        layout().apply(&bus).await?;
        let config = server.dir().join("tapeline.toml");
        let text = "[ingest.venues.binance]\nenabled = true\n[aggregate]\nvenues = [\"binance\"]\n[strategy]\nvenues = [\"binance\"]\n";
        std::fs::write(&config, text)?;
        let mut stages = Self { server, bus, config, children: Vec::new() };
        for stage in STAGES {
            let log = std::fs::File::create(stages.server.dir().join(format!("{stage}.log")))?;
            let child = Command::new(program(stage)?)
                .args(["--partitions", "1", "--config"])
                .arg(&stages.config)
                .envs(stages.server.env(stage))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            stages.children.push((stage, child));
        }
        let bus = &stages.bus;
        wait_for("every stage", BOUND, || async {
            let answers = nats::stats::gather(bus, Duration::from_millis(300)).await.ok()?;
            let runs = |stage: &&str| {
                answers.iter().any(|a| a.stage == **stage && a.tasks.iter().all(|t| t["running"] == true))
            };
            STAGES.iter().all(runs).then_some(())
        })
        .await?;
        Ok(stages)
    }

    /// `tapeline doctor --json` as the operator, with every user's password.
    fn doctor(&self, more: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, Value)> {
        let config = self.config.display().to_string();
        let mut args = vec!["doctor", "--stages", "aggregate,strategy,risk,executor"];
        if !more.contains(&"--config") {
            args.extend(["--config", &config]);
        }
        args.extend(more);
        tapeline(&self.server, &args, env)
    }
}

fn layout() -> Layout {
    Layout { venues: vec!["binance".into()], accounts: vec!["main".into()], traders: vec![], partitions: 1 }
}

fn tapeline(server: &Server, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Option<i32>, Value)> {
    let mut command = Command::new(program("tapeline")?);
    command.arg("--json").args(args).envs(server.env("operator")).env_remove("TAPELINE_DATA").current_dir(server.dir());
    for user in USERS {
        command.env(format!("TAPELINE_{}_PASSWORD", user.to_uppercase()), Server::password(user));
    }
    let out = command.envs(env.iter().copied()).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let document = serde_json::from_str(&text)
        .with_context(|| format!("{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr)))?;
    Ok((out.status.code(), document))
}

/// Lines of a check in a state, about something whose name holds `about`.
fn lines<'a>(document: &'a Value, check: &str, state: &str, about: &str) -> Vec<&'a Value> {
    let all = document["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = |l: &&Value| {
        l["check"] == check && l["state"] == state && l["about"].as_str().is_some_and(|text| text.contains(about))
    };
    all.iter().filter(wanted).collect()
}

/// Exactly this check fails, with a remedy.
fn assert_fails(document: &(Option<i32>, Value), check: &str, about: &str, found: &str) {
    let (code, document) = document;
    assert_eq!(*code, Some(1), "{document}");
    let failed = lines(document, check, "fail", about);
    assert!(!failed.is_empty(), "no failure of {check} about {about}: {document}");
    assert!(failed.iter().any(|l| l["found"].as_str().is_some_and(|f| f.contains(found))), "{failed:?}");
    assert!(failed.iter().all(|l| l["remedy"].as_str().is_some_and(|r| r.len() > 10)), "{failed:?}");
    let all = document["lines"].as_array().expect("lines");
    let others: Vec<_> = all.iter().filter(|l| l["state"] == "fail" && l["check"] != check).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_pipeline_passes_the_doctor_and_every_trouble_is_named_with_its_remedy() -> anyhow::Result<()> {
    let mut stages = Stages::start().await?;
    let (code, document) = stages.doctor(&[], &[])?;
    assert_eq!((code, &document["failed"]), (Some(0), &json!(0)), "{document}");
    for check in ["server", "clock", "disk", "streams", "rights", "stages", "checkpoints", "config", "leftovers"] {
        assert!(!lines(&document, check, "ok", "").is_empty(), "{check}: {document}");
    }
    assert_eq!(lines(&document, "rights", "ok", "").len(), USERS.len(), "{document}");

    assert_fails(&stages.doctor(&["--server-min", "99.0"], &[])?, "server", "nats://", "older than 99.0.0");
    assert_fails(&stages.doctor(&["--skew-ms-max", "0"], &[])?, "clock", "server", "at most 0 ms");
    assert_fails(&stages.doctor(&["--disk-free-mib-min", "999999999999"], &[])?, "disk", "", "MiB free");
    let wrong = [("TAPELINE_RISK_PASSWORD", "wrong")];
    assert_fails(&stages.doctor(&[], &wrong)?, "rights", "risk", "does not take its password");
    let other = stages.server.dir().join("other.toml");
    std::fs::write(&other, "[risk.limits]\nleverage_maxx = \"3\"\n")?;
    let other = other.display().to_string();
    assert_fails(&stages.doctor(&["--config", &other], &[])?, "config", "other.toml", "leverage_maxx");

    // A stream with other limits, and one that is not there.
    let name = stream::aggregate("binance", 0);
    let mut config = stages.bus.js().get_stream(&name).await?.cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    stages.bus.js().update_stream(config).await?;
    assert_fails(&stages.doctor(&[], &[])?, "streams", &name, "max_age: 3600 s, wanted 31536000 s");
    layout().apply(&stages.bus).await?;
    stages.bus.js().delete_stream("SIG_EXT").await?;
    assert_fails(&stages.doctor(&[], &[])?, "streams", "SIG_EXT", "absent");
    layout().apply(&stages.bus).await?;
    assert_eq!(stages.doctor(&[], &[])?.0, Some(0));

    // A replay that was left, and somebody else's stream: warnings.
    let metadata = [("tapeline.replay".to_owned(), "old".to_owned())].into();
    let left = Stream { name: "BT_old_X".into(), subjects: vec!["bt.old.>".into()], metadata, ..Stream::default() };
    stages.bus.js().create_stream(left).await?;
    let (code, document) = stages.doctor(&[], &[])?;
    let told = lines(&document, "leftovers", "warn", "old");
    assert!(code == Some(0) && told.len() == 1, "{document}");
    assert!(told[0]["remedy"].as_str().is_some_and(|r| r.contains("replay drop old")), "{told:?}");
    stages.bus.js().delete_stream("BT_old_X").await?;

    // A dashboard that is gone, told by the folder of a pipeline that runs (this very process, as far as it says).
    let folder = stages.server.dir().join("folder");
    std::fs::create_dir_all(&folder)?;
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let run = json!({
        "pid": std::process::id(), "nats_url": stages.server.url(), "dashboard": format!("http://{free}"),
        "mode": "paper", "stages": STAGES, "pids": {},
    });
    std::fs::write(folder.join("run.json"), run.to_string())?;
    let secrets: String = USERS
        .iter()
        .map(|user| format!("TAPELINE_{}_PASSWORD={}\n", user.to_uppercase(), Server::password(user)))
        .collect();
    std::fs::write(folder.join("secrets.env"), secrets)?;
    let data = folder.display().to_string();
    assert_fails(&stages.doctor(&["--data-dir", &data], &[])?, "ports", &free.to_string(), "refused");
    // Killed, it leaves its run file; then nobody says where the server is.
    let mut gone = Command::new("true").spawn()?;
    gone.wait()?;
    std::fs::write(folder.join("run.json"), json!({ "pid": gone.id() }).to_string())?;
    let (code, document) = stages.doctor(&["--data-dir", &data], &[])?;
    assert_eq!((code, lines(&document, "leftovers", "warn", "run.json").len()), (Some(0), 1), "{document}");

    // A stage that hangs, and one that ended.
    let hung = stages.children.iter().find(|(name, _)| *name == "executor").context("executor")?.1.id();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(hung as i32), signal);
    signal(nix::sys::signal::Signal::SIGSTOP)?;
    let found = stages.doctor(&[], &[]);
    signal(nix::sys::signal::Signal::SIGCONT)?;
    assert_fails(&found?, "stages", "executor", "does not answer");
    let at = stages.children.iter().position(|(name, _)| *name == "strategy").context("strategy")?;
    let (_, mut strategy) = stages.children.remove(at);
    strategy.kill()?;
    strategy.wait()?;
    assert_fails(&stages.doctor(&[], &[])?, "stages", "strategy", "does not answer");

    // A damaged checkpoint, of a task that does not run.
    nats::kv::put(&stages.bus, "ckpt", "strategy.binance.0", "damaged".into()).await?;
    let (code, document) = stages.doctor(&[], &[])?;
    let failed = lines(&document, "checkpoints", "fail", "strategy.binance.0");
    assert!(code == Some(1) && failed[0]["found"] == "damaged checkpoint", "{document}");
    Ok(())
}

/// A server whose configuration lets aggregate give orders. Dropping it kills exactly this process.
struct Generous {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Generous {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Generous {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (conf, ports) = (dir.path().join("server.conf"), dir.path().join("ports"));
        std::fs::create_dir_all(&ports)?;
        let text = nats::SERVER_CONF.replace("127.0.0.1:8222", "127.0.0.1:-1").replace(
            "\"candle.>\", \"indicator.>\", \"late.>\", \"preview.>\",",
            "\"candle.>\", \"indicator.>\", \"late.>\", \"preview.>\", \"order.>\",",
        );
        ensure!(text.contains("\"preview.>\", \"order.>\","), "the server's configuration reads otherwise now");
        std::fs::write(&conf, text)?;
        let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tapeline/bin/nats-server");
        let program = std::env::var_os("NATS_SERVER_BIN").map(PathBuf::from).or(local.is_file().then_some(local));
        let mut command = Command::new(program.unwrap_or_else(|| "nats-server".into()));
        for user in USERS {
            command.env(format!("TAPELINE_{}_PASSWORD", user.to_uppercase()), Server::password(user));
        }
        let child = command
            .arg("-c")
            .arg(conf)
            .args(["--port", "-1", "--ports_file_dir"])
            .arg(&ports)
            .env("TAPELINE_STORE_DIR", format!("{:?}", dir.path().join("store")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, url: String::new(), _dir: dir };
        server.url = wait_for("the generous server", BOUND, || async {
            let file = std::fs::read_dir(&ports).ok()?.flatten().next()?;
            let ports: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).ok()?).ok()?;
            let port = ports["nats"][0].as_str()?.rsplit(':').next()?.to_owned();
            Some(format!("nats://127.0.0.1:{port}"))
        })
        .await?;
        Ok(server)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_say_what_is_anothers_is_found() -> anyhow::Result<()> {
    let generous = Generous::start().await?;
    let mut command = Command::new(program("tapeline")?);
    command.args(["--json", "doctor", "--stages", "risk"]).env_remove("TAPELINE_DATA").env("NATS_URL", &generous.url);
    command.env("NATS_USER", "operator").env("NATS_PASSWORD", Server::password("operator"));
    command.current_dir(std::env::temp_dir());
    for user in USERS {
        command.env(format!("TAPELINE_{}_PASSWORD", user.to_uppercase()), Server::password(user));
    }
    let document: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let failed = lines(&document, "rights", "fail", "");
    assert_eq!(failed.len(), 1, "{document}");
    assert_eq!(
        (&failed[0]["about"], &failed[0]["found"]),
        (&json!("aggregate"), &json!("may say order.doctor.doctor._"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_users_and_no_server_at_all_are_told() -> anyhow::Result<()> {
    let server = Server::start().await?;
    layout().apply(&server.bus("operator").await?).await?;
    let (code, document) = tapeline(&server, &["doctor", "--stages", "risk"], &[])?;
    assert_eq!(code, Some(1), "risk does not run: {document}");
    assert_eq!(lines(&document, "rights", "warn", "strangers").len(), 1, "{document}");
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let url = format!("nats://{free}");
    let (code, document) = tapeline(&server, &["doctor"], &[("NATS_URL", &url)])?;
    assert_eq!(code, Some(1));
    assert_eq!(lines(&document, "server", "fail", &url).len(), 1, "{document}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_tasks_with_their_rates_and_accounts_with_their_orders() -> anyhow::Result<()> {
    let stages = Stages::start().await?;
    let (server, dir) = (&stages.server, stages.server.dir().to_owned());
    // Trades come while it looks.
    let bus = server.bus("ingest").await?;
    let mut writer = nats::Writer::open(&bus, &stream::raw("binance")).await?;
    let mut feeding = tokio::spawn(async move {
        for id in 1..=1_000_000u64 {
            let mut pack = Trades::new(0, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
            let ts = Nanos(1_700_000_000_000_000_000 + id as i64 * 100_000_000);
            pack.push(Trade { ts, recv: ts, id, price: PriceM(6_000_000), size: QtyM(100), side: Side::Buy });
            writer.push(pack.subject(), pack.encode()).await?;
            writer.drain().await?;
        }
        anyhow::Ok(())
    });
    let rated = wait_for("a rate of aggregate", BOUND, || async {
        let (code, document) = top(server, &dir, &["top", "--once", "--interval-ms", "600"]).ok()?;
        let task = document["tasks"].as_array()?.iter().find(|t| t["task"] == "aggregate.binance.0")?.clone();
        (code == Some(0) && task["heard_per_s"].as_f64()? > 0.0).then_some(document)
    });
    let document = tokio::select! {
        document = rated => document?,
        fed = &mut feeding => bail!("the trades ended first: {fed:?}"),
    };
    feeding.abort();
    for stage in STAGES {
        let tasks = document["tasks"].as_array().context("tasks")?;
        let of = |t: &&Value| t["task"].as_str().is_some_and(|name| name.starts_with(stage));
        let task = tasks.iter().find(of).with_context(|| format!("{stage} in {document}"))?;
        assert_eq!(task["state"], "up", "{task}");
        assert!(task["lag"].is_u64(), "{task}");
    }
    assert_eq!(
        (&document["accounts"][0]["account"], &document["accounts"][0]["facts"]["order"]),
        (&json!("main"), &json!(0))
    );
    Ok(())
}

fn top(server: &Server, dir: &Path, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let out = Command::new(program("tapeline")?)
        .arg("--json")
        .args(args)
        .envs(server.env("operator"))
        .env_remove("TAPELINE_DATA")
        .current_dir(dir)
        .output()?;
    Ok((out.status.code(), serde_json::from_slice(&out.stdout)?))
}
