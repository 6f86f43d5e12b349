//! Short runs of `make chaos`, and that its verdict can fail; live feeds that are struck.

mod twins;

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::time::Duration;

use anyhow::{Context, ensure};
use ledger::db::Db;
use ledger::schema::SYSTEM_CONFIG;
use nats::Layout;
use nix::sys::signal::Signal;
use proptest::prelude::*;
use schemas::config::UserFile;
use schemas::subject::stream;
use simulator::rng::Rng;
use tests::chaos::{Blow, Options, Schedule, run};
use tests::cluster::Cluster;
use tests::fleet::Fleet;
use tests::proxy::Proxy;
use tests::session::{self, Reference, Session};
use tests::soak::{Growth, slopes};
use tests::ticks::{Ticks, newest_trade};
use tests::venue::Venues;
use tests::{Server, compare, wait_for};

proptest! {
    #[test]
    fn what_strikes_when_follows_from_the_seed(seed: u64, round in 0u64..100, three: bool) {
        let nodes = if three { 3 } else { 1 };
        let strikes = |seed| Schedule::new(seed, round, nodes, 300).take(50).collect::<Vec<_>>();
        prop_assert_eq!(strikes(seed), strikes(seed));
        prop_assert_ne!(strikes(seed), strikes(seed ^ 1));
    }
}

#[test]
fn every_kind_of_blow_strikes_every_stage_and_node() {
    let strikes: Vec<_> = Schedule::new(1, 1, 3, 300).take(5000).collect();
    let kinds: Vec<_> = strikes.iter().map(|strike| discriminant(&strike.blow)).collect();
    assert_eq!((0..kinds.len()).filter(|i| !kinds[..*i].contains(&kinds[*i])).count(), 8);
    let killed = |s: &tests::chaos::Strike| if let Blow::Kill { stage, .. } = s.blow { Some(stage) } else { None };
    assert_eq!(strikes.iter().filter_map(killed).collect::<BTreeSet<_>>().len(), tests::fleet::STAGES.len());
    let nodes = strikes.iter().filter_map(|s| if let Blow::KillServer { node } = s.blow { Some(node) } else { None });
    assert_eq!(nodes.collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
}

#[tokio::test]
async fn the_first_difference_is_told_with_both_facts_decoded() -> anyhow::Result<()> {
    let (one, other) = (Server::start().await?, Server::start().await?);
    let (one, other) = (one.bus("operator").await?, other.bus("operator").await?);
    for (bus, values) in [(&one, [1, 2, 3]), (&other, [1, 5, 3])] {
        let config = async_nats::jetstream::stream::Config {
            name: "S".into(),
            subjects: vec!["s.>".into()],
            ..Default::default()
        };
        bus.js().create_stream(config).await?;
        for value in values {
            let payload = rmp_serde::to_vec_named(&serde_json::json!({ "v": value }))?;
            bus.js().publish("s.a", payload.into()).await?.await?;
        }
    }
    let compared = compare::stream(&one, &other, "S").await?;
    assert_eq!(compared.facts, 1);
    assert_eq!(compared.difference.as_deref(), Some("S: expected 2 s.a {\"v\":2}\nS: found    2 s.a {\"v\":5}"));
    let compared = compare::beginning(&one, &one, "S", 2).await?;
    assert_eq!(compared.difference.as_deref(), Some("S: 2 facts expected, 3 found; first too many: 3 s.a {\"v\":3}"));
    Ok(())
}

// Found by chaos against three nodes: the list of streams was asked for once, and a late answer ended the ledger.
#[tokio::test]
async fn a_ledger_outlives_a_server_that_stands_still_for_longer_than_a_request() -> anyhow::Result<()> {
    let server = Server::start_with_rights().await?;
    let bus = server.bus("operator").await?;
    let layout = Layout { venues: vec![], accounts: vec!["main".into()], traders: vec![], partitions: 1 };
    layout.apply(&bus).await?;
    let (config, database) = (server.dir().join("tapeline.toml"), session::database(server.dir()));
    let text = format!(
        "[ledger]\ndatabase = \"{database}\"\ndiscover_ms = 100\n[nats.connection]\nrequest_timeout_ms = 200\n"
    );
    std::fs::write(&config, text)?;
    let mut fleet = Fleet::new(server.dir(), &config, vec![], [("ledger", server.env("ledger"))].into());
    fleet.spawn("ledger")?;
    let bound = Duration::from_secs(30);
    wait_for("the ledger", bound, || async { fleet.logs().contains("ledger opens").then_some(()) }).await?;
    // Behind a configuration entry that it wrote, the list is what it asks for next.
    let mut told = false;
    for n in 0..20 {
        let entry = format!("{{\"state\":\"active\",\"n\":{n}}}");
        nats::kv::put(&bus, stream::KV_CONFIG, "desk.main", entry.clone().into()).await?;
        wait_for("the entry in SQL", bound, || async {
            let rows = Db::open(&database, bound).await.ok()?.rows(&SYSTEM_CONFIG).await.ok()?;
            rows.iter().flatten().flatten().any(|cell| cell.contains(&format!("\"n\":{n}"))).then_some(())
        })
        .await
        .with_context(|| fleet.logs())?;
        server.signal(Signal::SIGSTOP)?;
        let word = wait_for("word of the server", Duration::from_secs(1), || async {
            fleet.logs().contains("streams cannot be listed yet").then_some(())
        })
        .await;
        server.signal(Signal::SIGCONT)?;
        told = word.is_ok();
        let ended = fleet.ended()?;
        assert!(ended.is_empty(), "{ended:?}");
        if told {
            break;
        }
    }
    assert!(told, "{}", fleet.logs());
    wait_for("the ledger's word", bound, || async {
        let all = nats::stats::gather(&bus, Duration::from_millis(200)).await.ok()?;
        all.iter().any(|s| s.stage == "ledger").then_some(())
    })
    .await?;
    let ended = fleet.ended()?;
    assert!(ended.is_empty(), "{ended:?}");
    Ok(())
}

// Found by chaos: a server that restarts between a request for statistics and its answers refuses the answers, and
// every stage that answered ended with "rights".
#[tokio::test]
async fn an_answer_that_the_server_no_longer_lets_through_ends_nobody_and_a_forbidden_fact_does() -> anyhow::Result<()>
{
    let server = Server::start_with_rights().await?;
    let operator = server.bus("operator").await?;
    let layout = Layout { venues: vec![], accounts: vec!["main".into()], traders: vec![], partitions: 1 };
    layout.apply(&operator).await?;
    let risk = server.bus("risk").await?;
    risk.publish("_INBOX_gateway.gone".into(), "late").await?;
    // The server answers in order: its refusal is here before this is.
    risk.stream("RISK_main").await?;
    assert!(risk.violation().is_none(), "{:?}", risk.violation());
    risk.publish("fill.main.x.Y".into(), "forbidden").await?;
    let violation = tokio::time::timeout(Duration::from_secs(20), risk.violated()).await?;
    assert!(violation.to_string().contains("fill.main.x.Y"), "{violation}");
    Ok(())
}

// Found by chaos against three nodes: twenty refusals within fifteen seconds without a leader ended a stage, though it
// is to wait ten minutes for a server.
#[tokio::test]
async fn a_request_that_nobody_answers_is_repeated_for_as_long_as_an_outage_may_last() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let bus_with = async |outage_s: u64| {
        let text = format!("[nats.connection]\nrequest_tries_max = 1\noutage_s_max = {outage_s}\n");
        let config = nats::Config::load(Some(&UserFile { name: "test".into(), text }))?;
        server.bus_with("operator", config).await
    };
    let (short, long) = (bus_with(1).await?, bus_with(60).await?);
    let waiting = tokio::spawn(async move { nats::kv::put(&long, "late", "key", "value".into()).await });
    let error = nats::kv::put(&short, "late", "key", "value".into()).await.unwrap_err().to_string();
    assert!(error.contains("KV_late is not there") && error.contains("put key in late"), "{error}");
    let config = async_nats::jetstream::stream::Config {
        name: "KV_late".into(),
        subjects: vec!["$KV.late.>".into()],
        ..Default::default()
    };
    short.js().create_stream(config).await?;
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), waiting).await???, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_feed_stores_every_trade_once_though_it_and_the_server_are_killed() -> anyhow::Result<()> {
    const BLOWS: usize = 12;
    let mut servers = Cluster::start(1).await?;
    let bus = servers.operator().await?;
    let layout = Layout { venues: vec!["binance".into()], accounts: vec![], traders: vec![], partitions: 2 };
    layout.apply(&bus).await?;
    let venues = Venues::start(servers.dir(), &["binance"], 5, 4).await?;
    let config = servers.dir().join("tapeline.toml");
    std::fs::write(&config, venues.configuration())?;
    let proxy = Proxy::start(servers.node(0).port()).await?;
    let env = [("ingest", servers.env("ingest", &[proxy.port()]))].into();
    let mut fleet = Fleet::new(servers.dir(), &config, vec!["--partitions".into(), "2".into()], env).of_a_live_feed();
    fleet.spawn("ingest")?;

    let mut rng = Rng::new(5, "live");
    let mut seen = 0;
    for blow in 0..=BLOWS {
        // Alive again: its trades go on.
        seen = wait_for("more trades", Duration::from_secs(60), || async {
            let newest = newest_trade(&bus, "binance").await.ok()?;
            (newest > seen + 40).then_some(newest)
        })
        .await
        .with_context(|| format!("behind {blow} blows\n{}", fleet.logs()))?;
        for end in fleet.ended()? {
            ensure!(end.ousted, "ingest ended by itself: {}", end.words);
            fleet.spawn("ingest")?;
        }
        match rng.below(4) {
            _ if blow == BLOWS => break,
            0 => proxy.cut(),
            1 => servers.kill9(0)?,
            kind => {
                fleet.kill9("ingest")?;
                if kind == 2 {
                    servers.kill9(0)?;
                }
                fleet.spawn("ingest")?;
            }
        }
    }
    fleet.kill_all();
    let ticks = Ticks::read(&bus, "binance").await?;
    assert_eq!((ticks.symbols(), ticks.told_holes()), (2, 0), "the venue fills every hole");
    assert_eq!(ticks.trouble(), Vec::<String>::new(), "of {} trades", ticks.trades());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_and_three_store_the_same_bytes_whatever_strikes() -> anyhow::Result<()> {
    let Some(whole) = Session::whole(2) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let reference = Reference::record(whole.cut(8_000, dir.path())?, 20.0).await?;
    ensure!(reference.fills() > 0, "the recorded session trades");
    for (nodes, seconds) in [(1, 8), (3, 10)] {
        let options = Options { seed: 11, nodes, seconds, kills: 1000, round_seconds: seconds, pause_ms: 250 };
        let report = run(&reference, &options, |_, _| {}).await?;
        eprintln!("{nodes} nodes: {} kills, {} facts equal", report.counts.kills(), report.facts);
        let differences: Vec<_> = report.rounds.iter().flat_map(|r| &r.verdict.differences).collect();
        assert!(differences.is_empty(), "{differences:#?}");
        assert!(report.counts.kills() >= 10, "{:?}", report.counts);
        assert_eq!(report.facts, reference.facts());
    }
    Ok(())
}

#[test]
fn the_slope_of_a_line_is_found_through_noise_and_a_peak_is_none() {
    let line = |x: f64| (x, 100.0 + 7.5 * x + if (x as i64) % 2 == 0 { 3.0 } else { -3.0 });
    let slope = slopes(&(0..300).map(|n| line(f64::from(n))).collect::<Vec<_>>());
    assert!((slope[1] - 7.5).abs() < 0.001 && slope[0] <= slope[1] && slope[1] <= slope[2], "{slope:?}");
    let verdicts = [8.0, 7.5, 7.0].map(|bound| Growth::of(slope, bound));
    assert_eq!(verdicts[0], Growth::Flat);
    assert_eq!(verdicts[2], Growth::NotFlat);
    // The garbage collector's sawtooth, and a peak at its end that a least-squares line would follow.
    let teeth = |n: i32| (f64::from(n), 150.0 + f64::from(n * 7 % 30) + if n > 54 { 200.0 } else { 0.0 });
    let slope = slopes(&(0..60).map(teeth).collect::<Vec<_>>());
    assert!(slope[1].abs() < 0.3, "{slope:?}");
    // Whether it is below that bound, sixty points of such noise cannot tell.
    assert_eq!(Growth::of(slope, slope[1] + 0.01), Growth::NotTold);
    assert_eq!((slopes(&[]), slopes(&[(1.0, 5.0)])), ([0.0; 3], [0.0; 3]));
}
