//! What an operator asks: doctor and top, against real stages on a real server. Each trouble that doctor knows is made
//! for real and must be named with a remedy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
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

    // A stage that ended.
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
    let feeding = tokio::spawn(async move {
        for id in 1..=600u64 {
            let mut pack = Trades::new(0, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
            let ts = Nanos(1_700_000_000_000_000_000 + id as i64 * 100_000_000);
            pack.push(Trade { ts, recv: ts, id, price: PriceM(6_000_000), size: QtyM(100), side: Side::Buy });
            writer.push(pack.subject(), pack.encode()).await?;
            writer.drain().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    });
    let document = wait_for("a rate of aggregate", BOUND, || async {
        let (code, document) = top(server, &dir, &["top", "--once", "--interval-ms", "600"]).ok()?;
        let task = document["tasks"].as_array()?.iter().find(|t| t["task"] == "aggregate.binance.0")?.clone();
        (code == Some(0) && task["heard_per_s"].as_f64()? > 0.0).then_some(document)
    })
    .await?;
    feeding.await??;
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
