//! The crate edges that must not exist (ARCHITECTURE.md, A-1 and A-2), read from cargo's own metadata.

use std::process::Command;

use serde_json::{Value, json};

/// Stages: a pure library and a thin binary behind the feature `stage`.
const STAGES: [&str; 7] = ["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway"];
/// What a pure library may not depend on, directly or through others.
const WORLD: [&str; 8] = ["nats", "async-nats", "tokio", "reqwest", "sqlx", "axum", "tokio-tungstenite", "rand"];

/// Every forbidden edge in `cargo metadata --no-deps`, as a sentence.
fn forbidden_edges(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let is_stage = STAGES.contains(&name);
        for dep in package["dependencies"].as_array().expect("dependencies") {
            if dep["kind"] == "dev" {
                continue;
            }
            let to = dep["name"].as_str().expect("dependency name");
            let always = dep["optional"] == json!(false);
            if is_stage && STAGES.contains(&to) {
                found.push(format!("{name} -> {to}: a stage does not know another stage"));
            }
            if is_stage && always && WORLD.contains(&to) {
                found.push(format!("{name} -> {to}: a stage library is pure; put the shell behind `stage`"));
            }
            if name == "schemas" && (WORLD.contains(&to) || STAGES.contains(&to)) {
                found.push(format!("schemas -> {to}: facts know nobody"));
            }
            if name == "nats" && STAGES.contains(&to) {
                found.push(format!("nats -> {to}: the bus knows no stage"));
            }
        }
    }
    found
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("run cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("metadata is JSON")
}

#[test]
fn no_forbidden_edge_exists() {
    assert_eq!(forbidden_edges(&metadata()), Vec::<String>::new());
}

#[test]
fn an_added_forbidden_edge_is_found() {
    for (from, to, optional) in
        [("risk", "tokio", false), ("strategy", "executor", true), ("schemas", "nats", false), ("nats", "risk", false)]
    {
        let mut changed = metadata();
        let package =
            changed["packages"].as_array_mut().unwrap().iter_mut().find(|p| p["name"] == from).expect("package");
        package["dependencies"].as_array_mut().unwrap().push(json!({"name": to, "kind": null, "optional": optional}));
        let found = forbidden_edges(&changed);
        assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
        assert!(found[0].starts_with(&format!("{from} -> {to}")));
    }
}

#[test]
fn no_pure_library_reaches_the_world_through_another_crate() {
    for stage in STAGES {
        let out = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "-p",
                stage,
                "--no-default-features",
                "-e",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("run cargo tree");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8_lossy(&out.stdout);
        let reached: Vec<&str> =
            text.lines().filter_map(|line| line.split(' ').next()).filter(|name| WORLD.contains(name)).collect();
        assert!(text.lines().count() > 5, "{stage}: cargo tree said nothing");
        assert_eq!(reached, Vec::<&str>::new(), "{stage}");
    }
}
