//! The Grafana dashboard and Prometheus' configuration against what real stages export.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use nats::Layout;
use serde_json::Value;
use tests::{Server, wait_for};

use super::nodes::{BOUND, checkout, program};

/// A stage program; dropping it kills exactly this process.
struct Stage(Child);

impl Drop for Stage {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a stage and waits until it says where its metrics are and that all its tasks run.
async fn started(server: &Server, name: &str, config: &str) -> anyhow::Result<(Stage, String)> {
    let file = server.dir().join(format!("{name}.toml"));
    std::fs::write(&file, config)?;
    let mut child = Command::new(program(name)?)
        .args(["--partitions", "1", "--log-format", "json", "--config"])
        .arg(&file)
        .envs(server.env(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = BufReader::new(child.stderr.take().context("its log")?);
    let stage = Stage(child);
    // Reads to the end, so that the stage never waits for its log to be read.
    let (said, mut heard) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("\"metrics\":\"") {
                // Said once; a second time nobody would listen.
                let _ = said.try_send(rest.split('"').next().unwrap_or_default().to_owned());
            }
        }
    });
    let url = tokio::time::timeout(BOUND, heard.recv()).await?.with_context(|| format!("{name} names no address"))?;
    let health = url.replace("/metrics", "/healthz");
    wait_for("a healthy stage", BOUND, || async {
        reqwest::get(&health).await.ok()?.status().is_success().then_some(())
    })
    .await
    .with_context(|| name.to_owned())?;
    Ok((stage, url))
}

/// Every name of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !word(c)).filter(|w| w.starts_with("tapeline_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_dashboard_is_exported_by_a_real_stage() -> anyhow::Result<()> {
    let dashboard = std::fs::read_to_string(checkout("deploy/grafana/tapeline.json"))?;
    let json: Value = serde_json::from_str(&dashboard)?;
    let mut wanted = BTreeSet::new();
    for panel in json["panels"].as_array().context("panels")? {
        if panel["type"] == "row" {
            continue;
        }
        for target in panel["targets"].as_array().context("targets")? {
            let named = names(target["expr"].as_str().context("expr")?);
            ensure!(!named.is_empty(), "{} asks for nothing of ours", panel["title"]);
            wanted.extend(named);
        }
    }

    let server = Server::start_with_rights().await?;
    let operator = server.bus("operator").await?;
    let layout =
        Layout { venues: vec!["binance".into()], accounts: vec!["main".into()], traders: vec![], partitions: 1 };
    layout.apply(&operator).await?;
    // A venue that refuses every connection makes ingest count.
    let ingest = "[ingest.venues.binance]\nenabled = true\nsymbols = [\"BTCUSDT\"]\nws_url = \"ws://127.0.0.1:1\"\nrest_url = \"http://127.0.0.1:1\"\n";
    let (_aggregate, aggregate_url) = started(&server, "aggregate", "[aggregate]\nvenues = [\"binance\"]\n").await?;
    let (_ingest, ingest_url) = started(&server, "ingest", ingest).await?;
    let mut exported = String::new();
    for url in [&aggregate_url, &ingest_url] {
        exported.push_str(&reqwest::get(url).await?.error_for_status()?.text().await?);
    }
    // As Prometheus stores them: a counter is TYPEd without the `_total` that its series have.
    let mut there = BTreeSet::new();
    for line in exported.lines() {
        match line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            Some((name, "counter")) => there.insert(format!("{name}_total")),
            Some((name, "histogram")) => there.insert(format!("{name}_bucket")),
            Some((name, _)) => there.insert(name.to_owned()),
            None => true,
        };
    }
    let missing: Vec<_> = wanted.difference(&there).collect();
    assert!(missing.is_empty(), "no stage exports {missing:?}; there are {there:?}");
    // The health check of the images, against a real stage and against nothing.
    let port = aggregate_url.rsplit(':').next().and_then(|rest| rest.split('/').next()).context("a port")?;
    let healthz = |port: &str| Command::new(checkout("deploy/bin/healthz")).arg(port).stderr(Stdio::null()).status();
    assert!(healthz(port)?.success());
    assert!(!healthz("1")?.success());
    eprintln!("{} metrics on the dashboard, all exported", wanted.len());
    Ok(())
}

#[test]
fn prometheus_scrapes_every_stage() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(checkout("deploy/prometheus.yml"))?;
    let compose = std::fs::read_to_string(checkout("deploy/compose.yaml"))?;
    for stage in ["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway"] {
        let target = format!("{{ targets: [\"{stage}:9090\"], labels: {{ stage: {stage} }} }}");
        assert!(text.contains(&target), "{target}");
        assert!(compose.contains(&format!("\"{stage}\", \"--config\"")), "{stage} is no service");
    }
    assert!(compose.contains("0.0.0.0:9090"));
    Ok(())
}
