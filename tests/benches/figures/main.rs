//! `make bench`: figures, not promises; each beside its reference in the same run (`method.rs`).
//!
//! `cargo bench -p tests --bench figures -- library writer` runs those parts only; a whole run writes `BENCHMARKS.md`.
//! `--json` prints one JSON document. Build the stage programs first (`make bench` does): some parts run processes.

mod bus;
mod flood;
mod library;
mod market;
mod method;
mod pipeline;
mod venues;

use anyhow::{bail, ensure};
use method::Report;

type Part = fn(&mut Report) -> anyhow::Result<()>;

const PARTS: &[(&str, Part)] = &[
    ("wire", library::wire),
    ("candles", library::candles),
    ("indicators", library::indicators),
    ("decode", library::decode),
    ("writer", bus::writer),
    ("reader", bus::reader),
    ("aggregate", bus::aggregate),
    ("ingest", pipeline::ingest),
    ("flood", flood::flood),
    ("venues", venues::decode),
    ("startup", venues::startup),
    ("sustained", venues::sustained),
    ("symbols", venues::memory),
    ("latency", pipeline::latency),
    ("catchup", pipeline::catch_up),
    ("kill", pipeline::kill_switch),
];

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`.
    let (flags, only): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    for name in &only {
        let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        ensure!(known.contains(&name.as_str()), "no part `{name}`; known: {}", known.join(", "));
    }
    let mut report = Report::default();
    let mut failed = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name)) {
        eprintln!("--- {name}");
        if let Err(error) = part(&mut report) {
            report.skip(*name, format!("failed: {error:#}"));
            failed.push(*name);
        }
    }
    if flags.iter().any(|f| f == "--json") {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    }
    if only.is_empty() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCHMARKS.md");
        std::fs::write(&path, report.markdown())?;
        eprintln!("written to BENCHMARKS.md");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
