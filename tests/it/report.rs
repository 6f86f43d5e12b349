//! The report of a backtest as a person opens it: one file in headless Chromium, and the same numbers as JSON.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn program() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join("tapeline");
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

fn tapeline(args: &[&str]) -> anyhow::Result<Value> {
    let out = Command::new(program()?).arg("--json").args(args).output()?;
    ensure!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// What Chromium saw; `None` where it or its driver is absent, which with CI=true is a failure.
fn browser(file: &Path) -> anyhow::Result<Option<Value>> {
    let node = root().join(".tapeline/node");
    let there = node.join("node_modules/playwright-core").is_dir() && Path::new("/usr/bin/chromium").exists();
    if !there {
        ensure!(std::env::var("CI").as_deref() != Ok("true"), "chromium or playwright-core is absent and CI=true");
        return Ok(None);
    }
    let script = root().join("scripts/browser/report.mjs");
    let out = Command::new("node").arg(script).arg(file).env("TAPELINE_NODE", node.canonicalize()?).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let seen = serde_json::from_str(&text);
    Ok(Some(seen.with_context(|| format!("{text} {}", String::from_utf8_lossy(&out.stderr)))?))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[test]
fn a_report_is_one_file_that_asks_nobody_and_its_charts_answer_the_pointer() -> anyhow::Result<()> {
    let Some(fixtures) = schemas::fixtures::root() else { return Ok(()) };
    let trades = fixtures.join("data/ticks/binance_usdm_BTCUSDT_2024-08-08T2354.trades.csv.gz");
    let dir = tempfile::tempdir()?;
    let (out, trades) = (dir.path().to_str().context("UTF-8")?, trades.to_str().context("UTF-8")?);
    let args = ["backtest", "--trades", trades, "--strategy", "ema_cross_3_8", "--timeframe", "5s", "--out", out];
    let said = tapeline(&[&args[..], &["--sizing", "equity:0.5"]].concat())?;
    let numbers = read(&dir.path().join("report.json"))?;
    assert_eq!((&numbers["hash"], &numbers["stats"]), (&said["hash"], &read(&dir.path().join("stats.json"))?));
    assert_eq!(numbers["trades_total"], numbers["stats"]["closed_trades"]);
    let sum: f64 = numbers["symbols"].as_array().into_iter().flatten().filter_map(|g| g["net"].as_f64()).sum();
    let stats = &numbers["stats"];
    let net = stats["sum_net_wins"].as_f64().unwrap_or(0.0) + stats["sum_net_losses"].as_f64().unwrap_or(0.0);
    assert!((sum - net).abs() < 1e-6 && net != 0.0, "{sum} {net}");
    assert_eq!(numbers["symbols"][0]["name"], "binance-usdm BTCUSDT");

    let page = std::fs::read_to_string(dir.path().join("report.html"))?;
    assert!(page.contains(said["hash"].as_str().context("a hash")?), "the page names the run");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is loaded from anywhere");
    let Some(seen) = browser(&dir.path().join("report.html"))? else { return Ok(()) };
    assert_eq!(seen["troubles"], serde_json::json!([]), "{seen}");
    let charts = seen["charts"].as_array().map_or(0, Vec::len);
    assert!(charts >= 4 && seen["trades"].as_u64() > Some(5) && seen["months"].as_u64() >= Some(1), "{seen}");
    Ok(())
}

#[test]
fn a_sweep_is_a_page_a_table_and_a_document_with_the_same_best() -> anyhow::Result<()> {
    let Some(fixtures) = schemas::fixtures::root() else { return Ok(()) };
    let candles = fixtures.join("data/candles/binance_spot_XRPETH_5m.freqtrade.csv.gz");
    let dir = tempfile::tempdir()?;
    let (out, candles) = (dir.path().to_str().context("UTF-8")?, candles.to_str().context("UTF-8")?);
    let mut args = vec!["sweep", "--candles", candles, "--strategy", "ema_cross", "--out", out, "--by", "total_return"];
    args.extend(["--param", "fast=2..6..2", "--param", "slow=6,12", "--sizing", "equity:0.5"]);
    args.extend(["--walk-forward", "train=12h,test=6h"]);
    let said = tapeline(&args)?;
    assert_eq!(read(&dir.path().join("sweep.json"))?, said);
    // fast 6 slow 6 is no crossing: it is told, not counted.
    assert_eq!((said["trials"].as_array().map(Vec::len), &said["verdict"]["trials"]), (Some(6), &5.into()));
    assert!(said["trials"][5]["error"].as_str().is_some_and(|why| why.contains("slow")), "{said}");
    let returns: Vec<f64> = (0..5).filter_map(|i| said["trials"][i]["stats"]["total_return"].as_f64()).collect();
    assert!(returns.len() == 5 && returns.windows(2).all(|w| w[0] >= w[1]), "{returns:?}");
    let mut rows = csv::Reader::from_path(dir.path().join("sweep.csv"))?;
    let column = rows.headers()?.iter().position(|n| n == "total_return").context("total_return")?;
    let listed = rows.records().filter_map(|r| r.ok()?.get(column)?.parse::<f64>().ok()).fold(f64::MIN, f64::max);
    assert_eq!(listed, returns[0]);
    assert!(said["walk_forward"]["steps"].as_array().map_or(0, Vec::len) > 1, "{}", said["walk_forward"]);
    let Some(seen) = browser(&dir.path().join("sweep.html"))? else { return Ok(()) };
    assert_eq!(seen["troubles"], serde_json::json!([]), "{seen}");

    let out =
        Command::new(program()?).args(&args[..7]).args(["--param", "fast=1..9..1", "--trials-max", "5"]).output()?;
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && error.contains("9 combinations"), "{:?} {error}", out.status);
    Ok(())
}
