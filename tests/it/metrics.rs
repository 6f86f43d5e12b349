//! What every stage shows on `/metrics`, as a whole pipeline of real programs: one grammar.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::telemetry::check_metric;
use schemas::subject::PARTITIONS;
use tests::fleet::{Fleet, STAGES};
use tests::session::{Session, database};
use tests::{Server, wait_for};

const BOUND: Duration = Duration::from_secs(60);

/// `name{a="x",b="y"} 1` as its name and labels.
fn series(line: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (series, _value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else { return Some((series, Vec::new())) };
    let labels = labels.strip_suffix('}')?.split(',').filter_map(|label| label.split_once('=')).collect();
    Some((name, labels))
}

/// Checks one page; gives the names of its metrics.
fn check(stage: &str, page: &str) -> anyhow::Result<BTreeSet<String>> {
    let kinds: Vec<(&str, &str)> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    ensure!(!kinds.is_empty(), "{stage} shows nothing: {page}");
    let mut names = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (shown, labels) = series(line).with_context(|| format!("not a series: {line}"))?;
        let (name, kind) = *kinds
            .iter()
            .find(|(name, kind)| shown == if *kind == "counter" { format!("{name}_total") } else { (*name).to_owned() })
            .with_context(|| format!("no kind for {line}"))?;
        ensure!(["counter", "gauge"].contains(&kind), "{name} is a {kind}");
        let named: Vec<&str> = labels.iter().map(|(label, _)| *label).collect();
        check_metric(name, &named).map_err(anyhow::Error::msg).with_context(|| stage.to_owned())?;
        let of = labels.iter().find(|(label, _)| *label == "stage").map(|(_, value)| value.trim_matches('"'));
        ensure!(of == Some(stage), "{line} is not of {stage}");
        names.insert(name.to_owned());
    }
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_every_stage_follows_one_grammar() -> anyhow::Result<()> {
    let Some(session) = Session::whole(PARTITIONS) else { return Ok(()) };
    let server = Server::start_with_rights().await?;
    let bus = server.bus("operator").await?;
    session.layout().apply(&bus).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, session.configuration(&database(server.dir()), 600.0, ""))?;
    let env = STAGES.map(|stage| (stage, server.env(stage))).into();
    let mut fleet = Fleet::new(server.dir(), &config, vec![], env);
    for stage in STAGES {
        fleet.spawn(stage)?;
    }
    let mut all = BTreeSet::new();
    for stage in STAGES {
        let page = wait_for(&format!("metrics of {stage}"), BOUND, || async {
            let info = bus.client().request(format!("$SRV.INFO.tapeline-{stage}"), "".into()).await.ok()?;
            let info: serde_json::Value = serde_json::from_slice(&info.payload).ok()?;
            let page = reqwest::get(format!("{}/metrics", info["metadata"]["http"].as_str()?)).await.ok()?;
            page.text().await.ok().filter(|page| page.contains("tapeline_bus_connected_state"))
        })
        .await?;
        all.extend(check(stage, &page)?);
    }
    ensure!(all.len() >= 15, "{all:?}");
    eprintln!("{} metrics of {} stages follow the grammar: {all:?}", all.len(), STAGES.len());
    Ok(())
}
