//! The commands that read a finished session again: audit, replay, why, parity. One recorded quarter of an hour runs
//! through every stage as a program of its own, once; then each command is asked about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Layout};
use schemas::config::UserFile;
use schemas::raw::Clock;
use schemas::subject::{partition, stream};
use schemas::{Core, Fact, Listen, Place, Speak};
use serde_json::{Value, json};
use tests::session::instrument;
use tests::{Server, stored, wait_for};

/// Partitions of the session: few, so that little is started.
const PARTITIONS: u32 = 2;
const STAGES: [&str; 6] = ["ledger", "executor", "risk", "strategy", "aggregate", "ingest"];
const RUN_BOUND: Duration = Duration::from_secs(180);
/// Event time of the recording's end; the closing clock stands behind it.
const RECORDING_END_NS: i64 = 1_723_162_000_000_000_000;

type Stored = Vec<(u64, String, Vec<u8>)>;

/// A program that cargo built beside this test.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

/// A server with the session's streams, and the stages while they run. Dropping it kills exactly these processes.
struct Session {
    server: Server,
    bus: Bus,
    config: PathBuf,
    children: BTreeMap<&'static str, Child>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Session {
    /// Runs the recording through every stage and waits until nothing moves any more; the stages still run.
    async fn run(recording: &[PathBuf]) -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        layout().apply(&bus).await?;
        let key = stream::instrument_key("binance", "BTCUSDT");
        nats::kv::put(&bus, stream::KV_INSTRUMENTS, &key, instrument()?.encode().into()).await?;
        let config = server.dir().join("tapeline.toml");
        std::fs::write(&config, configuration(server.dir(), recording, ""))?;
        let mut session = Self { server, bus, config, children: BTreeMap::new() };
        for stage in STAGES {
            let log = std::fs::File::create(session.log(stage))?;
            let child = Command::new(program(stage)?)
                .args(["--partitions", &PARTITIONS.to_string(), "--config"])
                .arg(&session.config)
                .envs(session.server.env(stage))
                .env_remove("DATABASE_URL")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {stage}"))?;
            session.children.insert(stage, child);
        }
        session.settle().await.with_context(|| session.logs())?;
        Ok(session)
    }

    async fn settle(&self) -> anyhow::Result<()> {
        let (bus, clock) = (&self.bus, schemas::subject::clock(0, "binance"));
        wait_for("the recording's last clock", RUN_BOUND, || async {
            let last = nats::leader::last_by_subject(bus, &stream::raw("binance"), &clock).await.ok()??;
            (Clock::decode(&last.payload).ok()?.watermark_ns > RECORDING_END_NS).then_some(())
        })
        .await?;
        let (mut before, mut quiet) = (Vec::new(), 0);
        let begun = std::time::Instant::now();
        while quiet < 4 {
            ensure!(begun.elapsed() < RUN_BOUND, "not settled");
            let answers = nats::stats::gather(bus, Duration::from_millis(300)).await?;
            let all = STAGES.iter().all(|s| answers.iter().any(|a| a.stage == *s && a.lag() == 0));
            let mut ends = Vec::new();
            for name in layout().streams() {
                ends.push(bus.stream(&name).await?.last_seq);
            }
            quiet = if all && ends == before { quiet + 1 } else { 0 };
            before = ends;
        }
        Ok(())
    }

    /// Ends every stage.
    fn stop(&mut self) {
        for child in self.children.values_mut() {
            // Dead already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }

    fn log(&self, stage: &str) -> PathBuf {
        self.server.dir().join(format!("{stage}.log"))
    }

    /// The last lines of every stage's log, for a failure.
    fn logs(&self) -> String {
        let tail = |stage: &&str| {
            let text = std::fs::read_to_string(self.log(stage)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {stage}\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        STAGES.iter().map(tail).collect()
    }

    fn user(&self) -> anyhow::Result<UserFile> {
        Ok(UserFile { name: "tapeline.toml".into(), text: std::fs::read_to_string(&self.config)? })
    }

    /// `tapeline --json ARGS --config <the session's>`: exit code and document.
    fn tapeline(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        tapeline(&self.server, &self.config, args)
    }
}

/// Runs the command as the operator of `server`; what it printed must be one JSON document.
fn tapeline(server: &Server, config: &Path, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let out = Command::new(program("tapeline")?)
        .arg("--json")
        .args(args)
        .arg("--config")
        .arg(config)
        .envs(server.env("operator"))
        .env_remove("TAPELINE_DATA")
        .env_remove("DATABASE_URL")
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let document = serde_json::from_str(&text)
        .with_context(|| format!("{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr)))?;
    Ok((out.status.code(), document))
}

fn layout() -> Layout {
    Layout { venues: vec!["binance".into()], accounts: vec!["main".into()], traders: vec![], partitions: PARTITIONS }
}

/// The session's tapeline.toml; `more` goes behind it.
fn configuration(dir: &Path, recording: &[PathBuf], more: &str) -> String {
    let files: Vec<String> = recording.iter().map(|p| format!("{:?}", p.display().to_string())).collect();
    format!(
        r#"
[ingest.venues.binance]
enabled = true
source = "recording"
symbols = ["BTCUSDT"]
files = [{files}]
speed = 120.0
flush_open = true
[aggregate]
venues = ["binance"]
indicator_timeframes = ["1s", "1m"]
[strategy]
venues = ["binance"]
[strategy.rule]
timeframe = "1s"
valid_bars = 30
[ledger]
database = "sqlite://{db}"
# Spot without a borrow: the recorded session is to trade both ways.
[risk.limits.spot_short]
on = false
{more}
"#,
        files = files.join(", "),
        db = dir.join("ledger.db").display(),
    )
}

fn recording() -> Option<Vec<PathBuf>> {
    let root = schemas::fixtures::root()?;
    Some(["part1", "part2"].map(|part| root.join(format!("data/ws_raw/binance_spot_BTCUSDT_{part}.gz"))).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_session_is_audited_replayed_and_explained() -> anyhow::Result<()> {
    let Some(files) = recording() else { return Ok(()) };
    let mut session = Session::run(&files).await?;
    let begun = std::time::Instant::now();
    let step = |what: &str| eprintln!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    a_clean_session_audits_clean(&session)?;
    step("audited");
    session.stop();
    every_fill_is_walked_to_a_tick(&session).await?;
    step("walked");
    a_backtest_over_the_recorded_ticks_equals_the_session_or_says_why_not(&session, &files)?;
    step("parity");
    the_ledgers_tables_are_those_of_the_streams_and_a_changed_cell_is_found(&session).await?;
    step("ledger");
    another_parameter_is_found_at_its_first_position(&session, &files).await?;
    step("other parameter");
    a_flipped_byte_is_found_at_its_position(&session).await?;
    step("flipped byte");
    a_replay_of_the_whole_range_says_what_the_live_tasks_said(&session).await?;
    step("replayed");
    a_merged_replay_trades_on_its_own_signals(&session).await?;
    step("replayed with a desk of its own");
    a_paced_replay_of_a_part_says_its_beginning_and_is_dropped_whole(&session).await?;
    step("replayed a part");
    Ok(())
}

/// The tick at a place `stream:seq:index` as the raw stream holds it; its trade or quote must be there.
fn is_tick(raw: &Stored, name: &str, place: &str) -> bool {
    let Ok(cause) = place.parse::<schemas::Cause>() else { return false };
    let Some((_, subject, payload)) = raw.iter().find(|(seq, _, _)| *seq == cause.seq) else { return false };
    let index = usize::from(cause.index);
    cause.stream == name
        && match schemas::raw::Raw::hear(subject, payload) {
            Ok(Some(schemas::raw::Raw::Trades(pack))) => index < pack.len(),
            Ok(Some(schemas::raw::Raw::Quotes(pack))) => index < pack.len(),
            _ => false,
        }
}

fn leaves<'a>(node: &'a cli::why::walk::Node, found: &mut Vec<&'a cli::why::walk::Node>) {
    if node.because.is_empty() {
        found.push(node);
    }
    node.because.iter().for_each(|below| leaves(below, found));
}

async fn every_fill_is_walked_to_a_tick(session: &Session) -> anyhow::Result<()> {
    let raw_name = stream::raw("binance");
    let raw = stored(&session.bus, &raw_name).await?;
    let mut walker = cli::why::walk::Walker::new(&session.bus, 512, 100_000);
    let (mut fills, mut reads_most) = (0, 0);
    for (seq, subject, payload) in stored(&session.bus, &stream::exec("main")).await? {
        if !subject.starts_with("fill.") {
            continue;
        }
        fills += 1;
        let tree = walker.walk(&format!("EXEC_main:{seq}")).await?;
        reads_most = reads_most.max(walker.reads());
        let tick = tree.because.iter().find(|n| n.role == "tick").context("a tick")?;
        assert!(is_tick(&raw, &raw_name, &tick.place), "fill {seq}: {}", tick.place);
        // The tick that filled it names the price.
        let fill = schemas::exec::Fill::decode(&payload)?;
        assert!(tick.ts_ns <= Some(fill.ts_ns), "{} {fill:?}", tick.place);
        // The price of the fill is one that the venue showed: that of the tick, or of the quote beside it.
        let ticks = || tree.because.iter().filter(|n| n.role == "tick" || n.role == "price shown");
        assert!(ticks().all(|tick| is_tick(&raw, &raw_name, &tick.place)));
        let prices: Vec<&str> =
            ticks().flat_map(|t| ["price", "bid", "ask"].map(|name| t.fact[name].as_str())).flatten().collect();
        let price = fill.price.get().normalize().to_string();
        assert!(prices.contains(&price.as_str()), "fill {seq} at {price}, {}: {prices:?}", fill.why);
        let order = tree.because.iter().find(|n| n.role == "order").context("an order")?;
        assert_eq!(order.fact["id"].as_str().or(order.fact["order"]["id"].as_str()), Some(fill.id.as_str()));
        let mut ends = Vec::new();
        leaves(order, &mut ends);
        let places: Vec<_> = ends.iter().map(|end| format!("{} {}", end.place, end.subject)).collect();
        assert!(!ends.is_empty() && ends.iter().all(|end| end.subject.starts_with("raw.")), "{places:?}");
        assert!(ends.iter().any(|end| is_tick(&raw, &raw_name, &end.place) || end.subject.contains(".clock.")));
        let hops = order.hop_ns.context("latency")?;
        assert!((0..60_000_000_000).contains(&hops), "{hops} ns from order to fill");
    }
    assert!(fills > 0, "the session trades");
    eprintln!("{fills} fills walked to their ticks, at most {reads_most} reads each");
    // By its id, as an operator asks; an order of risk shows its votes and the limits that it passed.
    let risk = stored(&session.bus, &stream::risk("main")).await?;
    let order = risk.iter().find(|(_, subject, _)| subject.starts_with("order.")).context("an order")?;
    let id = schemas::desk::Order::decode(&order.2)?.id;
    let (code, document) = session.tapeline(&["why", &id])?;
    assert_eq!(code, Some(0), "{document}");
    let text = document.to_string();
    for part in ["\"role\":\"decision\"", "\"role\":\"vote\"", "\"role\":\"tick\"", "stale_mark", "vote_weight"] {
        assert!(text.contains(part), "{part} is not in the tree of {id}");
    }
    // The same order as the desk heard it.
    let desk = stored(&session.bus, &stream::desk("main")).await?;
    let heard =
        desk.iter().find(|(_, subject, payload)| *subject == order.1 && *payload == order.2).context("heard")?;
    let (code, document) = session.tapeline(&["why", &format!("DESK_main:{}", heard.0)])?;
    assert_eq!((code, &document["tree"]["place"]), (Some(0), &json!(format!("RISK_main:{}", order.0))), "{document}");
    // A refusal says its limit.
    if let Some((seq, _, payload)) = risk.iter().find(|(_, subject, _)| subject.starts_with("refusal.")) {
        let (code, document) = session.tapeline(&["why", &format!("RISK_main:{seq}")])?;
        assert_eq!(code, Some(0), "{document}");
        let limit = schemas::desk::Refusal::decode(payload)?.limit;
        assert_eq!(document["tree"]["fact"]["limit"], json!(limit));
    }
    Ok(())
}

fn a_backtest_over_the_recorded_ticks_equals_the_session_or_says_why_not(
    session: &Session,
    files: &[PathBuf],
) -> anyhow::Result<()> {
    let (code, document) = session.tapeline(&["parity"])?;
    assert_eq!((code, &document["unproved"]), (Some(0), &json!([])), "{document}");
    let rows = document["kinds"].as_array().context("kinds")?;
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).with_context(|| format!("{kind} in {rows:?}"));
    for kind in ["candle", "indicator", "signal"] {
        let row = of(kind)?;
        assert!(row["live"].as_u64() > Some(10), "{row}");
        assert_eq!((&row["live"], &row["equal"]), (&row["backtest"], &row["live"]), "{row}");
    }
    for kind in ["order", "fill"] {
        let row = of(kind)?;
        let count = |name: &str| row[name].as_u64().unwrap_or(0);
        assert!(count("live") > 0 && count("unexplained") == 0, "{row}");
        assert_eq!(2 * count("equal") + count("explained"), count("live") + count("backtest"), "{row}");
        eprintln!("parity: {kind} {} live, {} equal, {} explained", count("live"), count("equal"), count("explained"));
    }
    for shown in rows.iter().flat_map(|row| row["shown"].as_array().into_iter().flatten()) {
        let because = &shown["because"];
        assert!(shown["explained"] == json!(true) && because["live_behind"] != because["backtest_behind"], "{shown}");
    }
    if rows.iter().any(|row| row["explained"] != json!(0)) {
        assert!(document["first_inversion"]["live_behind"].is_string(), "{document}");
    }

    // Another parameter of risk is no merge order: the proof fails, and the differences stay unexplained.
    let text = configuration(session.server.dir(), files, "[risk.sizing]\nshare = \"0.07\"\n");
    let other = session.server.dir().join("sized.toml");
    std::fs::write(&other, text)?;
    let (code, document) = tapeline(&session.server, &other, &["parity"])?;
    assert_eq!(code, Some(1));
    assert!(document["unexplained"].as_u64() > Some(0));
    assert!(
        document["unproved"].to_string().contains("risk.main is not the fold of its desk"),
        "{}",
        document["unproved"]
    );
    Ok(())
}

fn row<'a>(document: &'a Value, task: &str) -> anyhow::Result<&'a Value> {
    let rows = document["tasks"].as_array().context("tasks")?;
    rows.iter().find(|row| row["task"] == task).with_context(|| format!("{task} in {document}"))
}

fn a_clean_session_audits_clean(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let (code, document) = session.tapeline(&["audit"])?;
    assert_eq!((code, &document["clean"]), (Some(0), &json!(true)), "{document}");
    let names = [
        "ingest.binance".to_owned(),
        format!("aggregate.binance.{p}"),
        format!("strategy.binance.{p}"),
        "risk.main".to_owned(),
        "executor.main".to_owned(),
    ];
    for name in names {
        let row = row(&document, &name)?;
        assert!(row["compared"].as_u64() > Some(10), "{row}");
        assert_eq!((&row["ahead"], &row["skipped"], &row["passed"]), (&json!(0), &Value::Null, &json!(0)), "{row}");
    }
    let (code, document) = session.tapeline(&["audit", "risk", "--from-checkpoint"])?;
    assert_eq!(code, Some(0), "{document}");
    assert!(row(&document, "risk.main")?["began"].as_str().is_some_and(|b| b.starts_with("checkpoint ")));
    let (code, document) = session.tapeline(&["audit", "risk", "--from", "100", "--to", "2000"])?;
    assert_eq!(code, Some(0), "{document}");
    Ok(())
}

async fn the_ledgers_tables_are_those_of_the_streams_and_a_changed_cell_is_found(
    session: &Session,
) -> anyhow::Result<()> {
    let (code, document) = session.tapeline(&["audit", "ledger"])?;
    let ledger = row(&document, "ledger")?;
    assert_eq!((code, &ledger["divergence"]), (Some(0), &Value::Null), "{document}");
    assert!(ledger["compared"].as_u64() > Some(100), "{ledger}");
    let url = format!("sqlite://{}", session.server.dir().join("ledger.db").display());
    let mut db = ledger::db::Db::open(&url, Duration::from_secs(10)).await?;
    let sql = "UPDATE fills SET fee = '0.5' WHERE order_id = (SELECT MIN(order_id) FROM fills)".to_owned();
    db.apply(&[ledger::sql::Statement { sql, values: Vec::new(), rows: 1 }], &[]).await?;
    db.close().await?;
    let (code, document) = session.tapeline(&["audit", "ledger"])?;
    let divergence = &row(&document, "ledger")?["divergence"];
    assert_eq!(code, Some(1), "{document}");
    assert!(divergence["position"].as_str().is_some_and(|p| p.starts_with("fills:")), "{divergence}");
    assert!(divergence["differs"].to_string().contains("fee"), "{divergence}");
    Ok(())
}

/// What a core says over a stored input.
fn fold<C: Core>(core: &mut C, input: &str, facts: &Stored) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut said = Vec::new();
    for (seq, subject, payload) in facts {
        let Ok(Some(fact)) = C::In::hear(subject, payload) else { continue };
        let mut out = Vec::new();
        core.handle(&Place::new(input, *seq), fact, &mut out)?;
        said.extend(out.iter().filter(|f| f.stored()).map(|f| (f.subject(), f.payload())));
    }
    Ok(said)
}

async fn another_parameter_is_found_at_its_first_position(session: &Session, files: &[PathBuf]) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let text =
        configuration(session.server.dir(), files, "[strategy.rules.ema_cross]\nparams = { fast = 8, slow = 21 }\n");
    let other = session.server.dir().join("other.toml");
    std::fs::write(&other, &text)?;
    // The position that the two parameters part at, found without the command.
    let (input, output) = (stream::aggregate("binance", p), stream::signal("binance", p));
    let config = strategy::Config::load(Some(&UserFile { name: "other.toml".into(), text }))?;
    let facts = stored(&session.bus, &input).await?;
    let said = fold(&mut strategy::StrategyCore::new(&config)?, &input, &facts)?;
    let there = stored(&session.bus, &output).await?;
    let parts = there.iter().zip(&said).position(|(a, b)| (&a.1, &a.2) != (&b.0, &b.1)).context("they part")?;
    let position = format!("{output}:{}", parts + 1);

    let (code, document) = tapeline(&session.server, &other, &["audit", &format!("strategy.binance.{p}")])?;
    let divergence = &row(&document, &format!("strategy.binance.{p}"))?["divergence"];
    assert_eq!((code, &divergence["position"]), (Some(1), &json!(position)), "{divergence}");
    assert_eq!(divergence["stored"]["place"], json!(position), "{divergence}");
    assert!(divergence["folded"]["fact"]["strategy"].is_string(), "{divergence}");
    assert!(divergence["input"]["place"].as_str().is_some_and(|place| place.starts_with(&input)), "{divergence}");
    Ok(())
}

/// The streams of strategy on a server of their own, one bit of one signal turned over.
async fn a_flipped_byte_is_found_at_its_position(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let (input, output) = (stream::aggregate("binance", p), stream::signal("binance", p));
    let (facts, mut signals) = (stored(&session.bus, &input).await?, stored(&session.bus, &output).await?);
    let at = signals.len() / 2;
    let payload = &mut signals[at].2;
    let byte = payload.len() / 2;
    payload[byte] ^= 1;
    let server = Server::start().await?;
    let bus = server.bus("operator").await?;
    layout().apply(&bus).await?;
    for (name, facts) in [(&input, &facts), (&output, &signals)] {
        let mut writer = nats::Writer::open(&bus, name).await?;
        for (_, subject, payload) in facts {
            writer.push(subject.clone(), payload.clone()).await?;
        }
        writer.drain().await?;
    }
    let task = format!("strategy.binance.{p}");
    let (code, document) = tapeline(&server, &session.config, &["audit", &task])?;
    let row = row(&document, &task)?;
    let position = format!("{output}:{}", at + 1);
    assert_eq!((code, &row["divergence"]["position"]), (Some(1), &json!(position)), "{row}");
    assert_eq!(row["compared"], json!(at), "{row}");
    Ok(())
}

async fn a_replay_of_the_whole_range_says_what_the_live_tasks_said(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let live = [
        stream::raw("binance"),
        stream::aggregate("binance", p),
        stream::signal("binance", p),
        stream::desk("main"),
        stream::risk("main"),
        stream::exec("main"),
    ];
    let mut before = Vec::new();
    for name in &live {
        before.push(session.bus.stream(name).await?.last_seq);
    }
    let stages = "aggregate,strategy,risk,executor";
    let (code, document) = session.tapeline(&["replay", "--stage", stages, "--name", "calm", "--compare"])?;
    assert_eq!((code, &document["finished"]), (Some(0), &json!(true)), "{document}");
    for name in [&live[1], &live[2], &live[4], &live[5]] {
        let (ours, theirs) =
            (stored(&session.bus, &format!("BT_calm_{name}")).await?, stored(&session.bus, name).await?);
        assert!(ours.len() > 10, "{name}: {} facts", ours.len());
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!((our.0, &our.1, &our.2), (their.0, &format!("bt.calm.{}", their.1), &their.2), "{name}");
        }
        let compared = document["compared"].as_array().context("compared")?;
        let row = compared.iter().find(|row| row["live"] == **name).context("a row")?;
        assert_eq!((&row["equal"], &row["differs_at"]), (&json!(theirs.len()), &Value::Null), "{row}");
    }
    for (name, before) in live.iter().zip(before) {
        assert_eq!(session.bus.stream(name).await?.last_seq, before, "{name} is untouched");
    }
    // A stage of the live pipeline may not say anything there.
    let aggregate = session.server.bus("aggregate").await?;
    let last = session.bus.stream(&format!("BT_calm_{}", live[1])).await?.last_seq;
    aggregate.publish(format!("bt.calm.candle.{p}.binance.1s.BTCUSDT"), "forged").await?;
    let violation = tokio::time::timeout(Duration::from_secs(10), aggregate.violated()).await?;
    assert!(violation.to_string().contains("bt.calm"), "{violation}");
    assert_eq!(session.bus.stream(&format!("BT_calm_{}", live[1])).await?.last_seq, last);
    let out = Command::new(program("tapeline")?)
        .args(["replay", "list"])
        .envs(session.server.env("aggregate"))
        .env_remove("TAPELINE_DATA")
        .output()?;
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && error.contains("a replay is the operator's: rights"), "{error}");
    Ok(())
}

async fn a_merged_replay_trades_on_its_own_signals(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let (code, document) = session.tapeline(&[
        "replay",
        "--stage",
        "strategy,risk,executor",
        "--name",
        "own",
        "--desk",
        "merged",
        "--speed",
        "2",
    ])?;
    assert_eq!((code, &document["finished"]), (Some(0), &json!(true)), "{document}");
    let signals = stream::signal("binance", p);
    let (ours, theirs) =
        (stored(&session.bus, &format!("BT_own_{signals}")).await?, stored(&session.bus, &signals).await?);
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(&theirs).all(|(our, their)| our.2 == their.2), "the signals are the live ones");
    // What it traded follows from its own desk, whose order is recorded like the live one's.
    let risk = stored(&session.bus, "BT_own_RISK_main").await?;
    let orders: Vec<_> = risk.iter().filter(|(_, subject, _)| subject.starts_with("bt.own.order.")).collect();
    assert!(!orders.is_empty(), "{document}");
    for (_, _, payload) in orders {
        assert_eq!(schemas::desk::Order::decode(payload)?.cause.stream, "BT_own_DESK_main");
    }
    let fills = stored(&session.bus, "BT_own_EXEC_main").await?;
    assert!(fills.iter().any(|(_, subject, _)| subject.starts_with("bt.own.fill.")), "it trades");
    let desk: Stored = stored(&session.bus, "BT_own_DESK_main").await?;
    let plain = |(seq, subject, payload): (u64, String, Vec<u8>)| {
        (seq, subject.strip_prefix("bt.own.").unwrap_or(&subject).to_owned(), payload)
    };
    let desk: Stored = desk.into_iter().map(plain).collect();
    let mut core = risk::RiskCore::new("main", &risk::Config::load(Some(&session.user()?))?)?;
    let said = fold(&mut core, "BT_own_DESK_main", &desk)?;
    let found: Vec<_> = risk.into_iter().map(plain).map(|(_, subject, payload)| (subject, payload)).collect();
    assert!(said == found, "risk said {} facts, its desk gives {}", found.len(), said.len());
    Ok(())
}

async fn a_paced_replay_of_a_part_says_its_beginning_and_is_dropped_whole(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let (raw, aggregate) = (stream::raw("binance"), stream::aggregate("binance", p));
    let half = session.bus.stream(&raw).await?.last_seq / 2;
    let facts: Stored = stored(&session.bus, &raw).await?.into_iter().take(half as usize).collect();
    let (first, last) = (1, half);
    let stored_ns = |seq| async move {
        let found = nats::leader::get(&session.bus, &stream::raw("binance"), seq).await?.context("stored")?;
        anyhow::Ok(found.time_ns)
    };
    let speed = 20.0;
    let shortest_ms = (stored_ns(last).await? - stored_ns(first).await?) as f64 / 1e6 / speed;
    let (code, document) = session.tapeline(&[
        "replay",
        "--stage",
        "aggregate",
        "--name",
        "part",
        "--to",
        &half.to_string(),
        "--speed",
        "20",
        "--compare",
    ])?;
    assert_eq!((code, &document["finished"]), (Some(0), &json!(true)), "{document}");
    assert!(document["took_ms"].as_f64() >= Some(shortest_ms), "{document} within {shortest_ms} ms");

    let mut core = aggregate::core::AggregateCore::new(&aggregate::config::Config::load(Some(&session.user()?))?)?;
    let own: Stored = facts.into_iter().filter(|f| f.1.starts_with(&format!("raw.{p}."))).collect();
    let expected = fold(&mut core, &raw, &own)?;
    let found = stored(&session.bus, &format!("BT_part_{aggregate}")).await?;
    assert!(!expected.is_empty());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((found.1.strip_prefix("bt.part."), &found.2), (Some(expected.0.as_str()), &expected.1));
    }

    a_replay_from_a_time_begins_empty_at_the_first_message_stored_then(session).await?;
    let (_, document) = tapeline_without_config(session, &["replay", "list"])?;
    assert!(document["runs"]["part"].is_object() && document["runs"]["calm"].is_object(), "{document}");
    let (code, _) = tapeline_without_config(session, &["replay", "drop", "part", "calm", "own", "late"])?;
    assert_eq!(code, Some(0));
    let (_, document) = tapeline_without_config(session, &["replay", "list"])?;
    assert_eq!(document["runs"], json!({}));
    let left = nats::Reader::latest(&session.bus, "KV_ckpt", "$KV.ckpt.operator.>", 100).await?;
    assert!(left.is_empty(), "{} checkpoints of the runs are left", left.len());
    Ok(())
}

async fn a_replay_from_a_time_begins_empty_at_the_first_message_stored_then(session: &Session) -> anyhow::Result<()> {
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let raw = stream::raw("binance");
    let third = session.bus.stream(&raw).await?.last_seq / 3;
    // The command reads times; this one is cut to whole milliseconds, as it prints them.
    let found = nats::leader::get(&session.bus, &raw, third).await?.context("stored")?;
    let at_ns = found.time_ns / 1_000_000 * 1_000_000;
    let mut reader = nats::Reader::open(&session.bus, &raw, ">", 1).await?;
    let first = loop {
        let message = reader.next().await?;
        if message.time_ns >= at_ns {
            break message.seq;
        }
    };
    let task = format!("aggregate.binance.{p}");
    let time = cli::records::time_text(at_ns);
    let (code, document) = session.tapeline(&["replay", "--stage", &task, "--name", "late", "--from", &time])?;
    assert_eq!((code, &document["tasks"][0]["from"]), (Some(0), &json!(first)), "{document}");
    let own = |fact: &(u64, String, Vec<u8>)| fact.0 >= first && fact.1.starts_with(&format!("raw.{p}."));
    let facts: Stored = stored(&session.bus, &raw).await?.into_iter().filter(own).collect();
    let mut core = aggregate::core::AggregateCore::new(&aggregate::config::Config::load(Some(&session.user()?))?)?;
    let expected: Vec<Vec<u8>> = fold(&mut core, &raw, &facts)?.into_iter().map(|(_, payload)| payload).collect();
    let found = stored(&session.bus, &format!("BT_late_{}", stream::aggregate("binance", p))).await?;
    assert!(found.into_iter().map(|(_, _, payload)| payload).eq(expected), "an empty core from {first} on");
    Ok(())
}

fn tapeline_without_config(session: &Session, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let out = Command::new(program("tapeline")?)
        .arg("--json")
        .args(args)
        .envs(session.server.env("operator"))
        .env_remove("TAPELINE_DATA")
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    Ok((out.status.code(), serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}"))?))
}
