//! The growth from one server to a cluster: the pipeline runs on the old server, dies there, and goes on in the
//! cluster at its positions.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Writer};
use schemas::Fact;
use schemas::raw::Clock;
use schemas::subject::stream;
use serde_json::Value;
use tests::fleet::Fleet;
use tests::session::{self, Session};
use tests::{Server, stored, wait_for};

use super::nodes::{BOUND, Cluster, Single, done, info, refused, tapeline, tapeline_killed, whole};
use crate::fold::{Stored, assert_same, fold};

const STAGES: [&str; 5] = ["executor", "risk", "strategy", "aggregate", "ingest"];
const RUN_BOUND: Duration = Duration::from_secs(120);
/// Event time of the recording's end; the closing clock stands behind it.
const RECORDING_END_NS: i64 = 1_723_162_000_000_000_000;

/// The stages over some server; none of them gets the time to write a last checkpoint.
fn stages(url: &str, config: &Path, logs: &Path) -> anyhow::Result<Fleet> {
    let env = |stage: &str| {
        let own = [("NATS_URL", url), ("NATS_USER", stage), ("NATS_PASSWORD", &Server::password(stage))];
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let env = STAGES.map(|stage| (stage, env(stage))).into();
    let mut fleet = Fleet::new(logs, config, vec!["--partitions".to_owned(), "1".to_owned()], env);
    for stage in STAGES {
        fleet.spawn(stage)?;
    }
    Ok(fleet)
}

/// Every stream, `KV_` ones included, as its leader holds it.
async fn contents(bus: &Bus, session: &Session) -> anyhow::Result<BTreeMap<String, Stored>> {
    let mut all = BTreeMap::new();
    for name in session.layout().streams() {
        all.insert(name.clone(), stored(bus, &name).await?);
    }
    Ok(all)
}

/// What the layout says of every stream, without what a growth changes: copies, our notes, where sources begin.
async fn configurations(bus: &Bus, session: &Session) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for name in session.layout().streams() {
        let mut config = info(bus, &name).await?["config"].take();
        let fields = config.as_object_mut().context("a configuration")?;
        fields.retain(|key, _| key != "num_replicas" && key != "metadata");
        for source in fields.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten() {
            source.as_object_mut().context("a source")?.remove("opt_start_seq");
        }
        all.insert(name, config);
    }
    Ok(all)
}

/// Holds a task for a second, as an instance does.
async fn lease(bus: &Bus) -> anyhow::Result<()> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-TTL", "1s");
    let request = async_nats::Request::new().headers(headers).payload("me".into());
    let stored = bus.client().send_request("$KV.lease.risk.main", request).await?;
    ensure!(!String::from_utf8_lossy(&stored.payload).contains("error"), "{:?}", stored.payload);
    Ok(())
}

/// Waits until the whole recording went through every stage and nothing moves any more.
async fn settle(bus: &Bus) -> anyhow::Result<()> {
    let clock = schemas::subject::clock(0, "binance");
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
        let mut ends = Vec::new();
        for name in ["RAW_BINANCE", "AGG_BINANCE_0", "SIG_BINANCE_0", "DESK_main", "RISK_main", "EXEC_main"] {
            ends.push(bus.stream(name).await?.last_seq);
        }
        // Ingest may end with its recording; a core that does not answer has died.
        let all = STAGES.iter().all(|s| *s == "ingest" || answers.iter().any(|a| a.stage == *s));
        let idle = all && answers.iter().all(|a| a.lag() == 0 && a.tasks.iter().all(|t| t["running"] == true));
        let idle = idle && desk_heard_all(bus).await? && all_folded(bus, &answers).await?;
        quiet = if idle && ends == before { quiet + 1 } else { 0 };
        before = ends;
    }
    Ok(())
}

/// Whether every core stands at the end of its input. Its lag is what its last delivery said, and a reader that lost its
/// consumer with a node hears nothing for some seconds.
async fn all_folded(bus: &Bus, answers: &[nats::stats::StageStats]) -> anyhow::Result<bool> {
    for (stage, input, filters) in [
        ("aggregate", "RAW_BINANCE", &["raw.0.binance.>"][..]),
        ("strategy", "AGG_BINANCE_0", &["candle.>", "indicator.>"]),
        ("risk", "DESK_main", &[">"]),
        ("executor", "DESK_main", &[">"]),
    ] {
        let mut end = 0;
        for filter in filters {
            end = end.max(nats::leader::last_by_subject(bus, input, filter).await?.map_or(0, |m| m.seq));
        }
        let tasks = answers.iter().filter(|a| a.stage == stage).flat_map(|a| &a.tasks);
        if !tasks.filter_map(|t| t["in_seq"].as_u64()).any(|seq| seq >= end) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the newest message of every source stands on the desk. After a new leader the server takes some seconds to
/// go on with its sources, and nothing else moves meanwhile.
async fn desk_heard_all(bus: &Bus) -> anyhow::Result<bool> {
    let clock = schemas::subject::clock(0, "binance");
    for (source, filter) in [
        ("RAW_BINANCE", "raw.*.binance.trade.*"),
        ("RAW_BINANCE", "raw.*.binance.quote.*"),
        ("RAW_BINANCE", &clock),
        ("SIG_BINANCE_0", ">"),
        ("SIG_EXT", ">"),
        ("RISK_main", "order.main.>"),
        ("EXEC_main", ">"),
    ] {
        let Some(newest) = nats::leader::last_by_subject(bus, source, filter).await? else { continue };
        let heard = nats::leader::last_by_subject(bus, "DESK_main", &newest.subject).await?;
        if heard.is_none_or(|heard| heard.payload != newest.payload) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The messages of the desk whose subject begins with one of `kinds`, without their positions.
fn heard(desk: &Stored, kinds: &[&str]) -> Vec<(String, Vec<u8>)> {
    let of_kind = |subject: &str| kinds.iter().any(|kind| subject.starts_with(kind));
    desk.iter().filter(|(_, subject, _)| of_kind(subject)).map(|(_, s, p)| (s.clone(), p.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_grows_from_one_server_to_a_cluster_and_keeps_every_sequence() -> anyhow::Result<()> {
    let Some(session) = Session::whole(1) else { return Ok(()) };
    let single = Single::start().await?;
    let old = single.bus("operator").await?;
    done(tapeline(&single.node.url(), &["init", "--venue", "binance", "--partitions", "1"])?)?;
    session::put_instrument(&old).await?;
    let (config, database) = (single.dir().join("tapeline.toml"), session::database(single.dir()));
    // Slow enough that the old server never sees its end, however busy the machine is.
    std::fs::write(&config, session.configuration(&database, 10.0, ""))?;
    let mut cluster = Cluster::start(Some(&single)).await?;
    let url = cluster.url();
    let operator = cluster.bus("operator").await?;
    let old_url = single.node.url();
    let grow = |args: &[&str]| tapeline(&url, &[&["grow", "--old", &old_url, "--json"], args].concat());

    // A stream that holds nothing any more has a position all the same.
    let mut external = Writer::resume(&old, "SIG_EXT", 0).await?;
    for word in ["one", "two", "three"] {
        external.push("signal.ext.mine.binance.BTCUSDT", word).await?;
    }
    external.drain().await?;

    let running = stages(&old_url, &config, single.dir())?;
    let some = wait_for("facts on the old server", BOUND, || async {
        let last = old.stream("SIG_BINANCE_0").await.ok()?.last_seq;
        (last > 0 && old.stream("RAW_BINANCE").await.ok()?.last_seq > 300).then_some(last)
    })
    .await
    .with_context(|| running.logs())?;
    assert!(some > 0);
    old.js().get_stream("SIG_EXT").await?.purge().await?;

    let layout = configurations(&old, &session).await?;

    // Nothing happens out of order.
    assert!(refused(grow(&["finish", "--yes"])?)?.contains("tapeline grow copy"));
    assert!(refused(tapeline(&old_url, &["grow", "copy", "--old", &old_url])?)?.contains("domain `single`"));
    let stranger = serde_json::json!({ "name": "SIG_EXT", "subjects": ["somebody.else"] }).to_string();
    operator.client().request("$JS.API.STREAM.CREATE.SIG_EXT", stranger.into()).await?;
    assert!(refused(grow(&["copy"])?)?.contains("two truths"));
    operator.js().delete_stream("SIG_EXT").await?;

    // Copied while everything runs; twice is as good as once.
    lease(&old).await?;
    done(grow(&["copy"])?).with_context(|| running.logs())?;
    done(grow(&["copy"])?)?;
    assert!(refused(grow(&["finish", "--yes"])?)?.contains("stages still run"));
    let raw = old.stream("RAW_BINANCE").await?.last_seq;
    drop(running);
    assert!(refused(grow(&["finish"])?)?.contains("--yes"));

    // A mirror that is not its origin is found out before anything is promoted, and the way back is open.
    let delete = serde_json::json!({ "seq": 3 }).to_string();
    let deleted = operator.client().request("$JS.API.STREAM.MSG.DELETE.AGG_BINANCE_0", delete.into()).await?;
    assert!(String::from_utf8_lossy(&deleted.payload).contains("\"success\":true"), "{deleted:?}");
    let differs = refused(grow(&["finish", "--yes"])?)?;
    assert!(differs.contains("AGG_BINANCE_0") && differs.contains("sequence 3"), "{differs}");
    done(grow(&["abort", "--yes"])?)?;
    assert_eq!(operator.stream("RAW_BINANCE").await.map(|s| s.last_seq).ok(), None, "the mirrors are gone");

    done(grow(&["copy"])?)?;
    lease(&old).await?;
    // Killed when the first stream is frozen, and again when the first mirror is promoted: run it again.
    let finish = ["grow", "--old", &old_url, "finish", "--yes"];
    tapeline_killed(&url, &finish, || async {
        let raw = info(&old, "RAW_BINANCE").await.ok()?;
        (raw["config"]["subjects"][0] == "retired.RAW_BINANCE").then_some(())
    })
    .await?;
    tapeline_killed(&url, &finish, || async {
        let first = info(&operator, "AGG_BINANCE_0").await.ok()?;
        first["config"]["mirror"].is_null().then_some(())
    })
    .await?;
    let finished = done(grow(&["finish", "--yes"])?)?;
    let finished: Value = serde_json::from_str(&finished)?;
    let promoted = finished["streams"].as_array().context("streams")?;
    assert!(promoted.iter().all(|s| s["state"] == "promoted" && s["replicas"] == 3), "{finished:#}");
    done(grow(&["finish", "--yes"])?).context("a second time changes nothing")?;
    assert!(refused(grow(&["abort", "--yes"])?)?.contains("is promoted"));

    let before = contents(&old, &session).await?;
    let after = contents(&operator, &session).await?;
    for (name, facts) in &before {
        assert_same(name, facts, &after[name]);
        assert_eq!(old.stream(name).await?.last_seq, operator.stream(name).await?.last_seq, "{name}");
    }
    assert_eq!(configurations(&operator, &session).await?, layout);
    assert!(before["RAW_BINANCE"].len() as u64 >= raw && before["DESK_main"].len() > 300);
    assert_eq!((before["SIG_EXT"].len(), operator.stream("SIG_EXT").await?.last_seq), (0, 3));
    let mut external = Writer::resume(&operator, "SIG_EXT", 3).await?;
    assert_eq!(external.push("signal.ext.mine.binance.BTCUSDT", "four").await?, 4);
    external.drain().await?;
    // The layout of the grown streams is the layout: the operator's command changes nothing.
    done(tapeline(&cluster.url(), &["init", "--venue", "binance", "--partitions", "1"])?)?;

    // The old server is gone; every stage goes on at its position, and meanwhile the nodes lose their link one by one.
    drop(old);
    drop(single.node);
    std::fs::write(&config, session.configuration(&database, 240.0, ""))?;
    let running = stages(&cluster.url(), &config, config.parent().context("folder")?)?;
    for node in &mut cluster.nodes {
        node.restart_with("cluster.conf")?;
        for stream in ["RAW_BINANCE", "AGG_BINANCE_0", "DESK_main"] {
            whole(&operator, stream).await?;
        }
    }
    let restarted = std::time::Instant::now();
    wait_for("the desk goes on with all its sources", RUN_BOUND, || async {
        let goes_on = operator.stream("DESK_main").await.ok()?.last_seq > before["DESK_main"].len() as u64;
        (goes_on && desk_heard_all(&operator).await.ok()?).then_some(())
    })
    .await
    .with_context(|| running.logs())?;
    eprintln!("the desk hears all its sources {:?} after the last node came back", restarted.elapsed());
    settle(&operator).await.with_context(|| running.logs())?;
    let grown = contents(&operator, &session).await?;
    for (name, facts) in before.iter().filter(|(name, _)| !name.starts_with("KV_") && *name != "SIG_EXT") {
        assert!(grown[name].starts_with(facts), "{name} is not a continuation");
        assert!(
            grown[name].len() > facts.len() || name.starts_with("EXEC") || name.starts_with("LIVE"),
            "{name} did not go on\n{}",
            running.logs()
        );
    }
    drop(running);

    // What every stage said, before and after, is one fold of what it heard.
    let user = schemas::config::UserFile { name: "tapeline.toml".into(), text: std::fs::read_to_string(&config)? };
    let mut core = aggregate::core::AggregateCore::new(&aggregate::config::Config::load(Some(&user))?)?;
    assert_same("AGG_BINANCE_0", &fold(&mut core, "RAW_BINANCE", &grown["RAW_BINANCE"]), &grown["AGG_BINANCE_0"]);
    let desk = &grown["DESK_main"];
    let mut core = risk::RiskCore::new("main", &risk::Config::load(Some(&user))?)?;
    assert_same("RISK_main", &fold(&mut core, "DESK_main", desk), &grown["RISK_main"]);
    let mut core = executor::core::ExecutorCore::new("main", &executor::config::Config::load(Some(&user))?);
    assert_same("EXEC_main", &fold(&mut core, "DESK_main", desk), &grown["EXEC_main"]);
    // And the desk heard every source once, from the first message to the last.
    for (source, kinds) in [
        ("SIG_BINANCE_0", &["signal.0."][..]),
        ("EXEC_main", &["sending.", "ack.", "fill.", "reject.", "done.", "funding."][..]),
        ("RISK_main", &["order.", "cancel.", "state."][..]),
    ] {
        assert!(heard(desk, kinds) == heard(&grown[source], kinds), "the desk and {source}");
    }
    let marks = ["raw.0.binance.trade.", "raw.0.binance.quote.", "raw.0.binance.clock."];
    assert!(heard(desk, &marks) == heard(&grown["RAW_BINANCE"], &marks), "the desk and RAW_BINANCE");
    assert_eq!(heard(desk, &["signal.ext."]).len(), 4);
    eprintln!(
        "grown: {} of {} raw facts before, {} of {} on the desk, {} fills",
        before["RAW_BINANCE"].len(),
        grown["RAW_BINANCE"].len(),
        before["DESK_main"].len(),
        desk.len(),
        heard(desk, &["fill."]).len()
    );
    Ok(())
}
