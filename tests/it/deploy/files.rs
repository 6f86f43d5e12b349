//! The units, manifests and the compose file: their linters accept them, and what they start exists.
//!
//! Every command is run as it stands with `--help` behind it: a program that does not know an argument, or takes no
//! such value, says so before it helps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::nodes::{checkout, nats_server, program};

const STAGES: [&str; 7] = ["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway"];

/// A command of `deploy/` with the environment that its file gives it.
#[derive(Debug, Deserialize)]
struct Start {
    file: String,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

/// The output of a tool that `scripts/setup.sh test` installs; `None` where it is absent, a failure with CI=true.
fn tool(what: &str, there: bool, command: &mut Command) -> anyhow::Result<Option<Output>> {
    if !there {
        ensure!(std::env::var("CI").as_deref() != Ok("true"), "{what} is absent and CI=true");
        eprintln!("skipped: no {what} (run scripts/setup.sh test)");
        return Ok(None);
    }
    Ok(Some(command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?))
}

fn manifests(what: &str) -> anyhow::Result<Option<Output>> {
    let modules = checkout(".tapeline/lint/py");
    let mut command = Command::new("python3");
    command.arg(checkout("scripts/lint/manifests.py")).arg(what).env("PYTHONPATH", &modules);
    tool("kubernetes-validate", modules.join("kubernetes_validate").is_dir(), &mut command)
}

fn on_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

fn accepted(output: &Output) -> anyhow::Result<()> {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{out}{error}", output.status);
    Ok(())
}

#[test]
fn the_kubernetes_manifests_fit_the_schemas_of_their_kinds_and_are_hardened() -> anyhow::Result<()> {
    let Some(checked) = manifests("check")? else { return Ok(()) };
    accepted(&checked)?;
    let counted: serde_json::Value = serde_json::from_slice(&checked.stdout)?;
    assert!(counted["resources"].as_u64().context("resources")? >= 28, "{counted}");
    Ok(())
}

#[test]
fn the_compose_file_is_accepted_by_its_linter() -> anyhow::Result<()> {
    let linter = checkout(".tapeline/lint/node/node_modules/.bin/dclint");
    let mut command = Command::new(&linter);
    // The order of keys is ours: what a reader asks first stands first.
    for rule in ["service-keys-order", "services-alphabetical-order", "top-level-properties-order"] {
        command.args(["--disable-rule", rule]);
    }
    command.args(["--max-warnings", "0", "--color", "false"]).arg(checkout("deploy/compose.yaml"));
    if let Some(checked) = tool("dclint", linter.exists(), &mut command)? {
        accepted(&checked)?;
    }
    Ok(())
}

#[test]
fn everything_that_the_image_copies_exists() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(checkout("deploy/Dockerfile"))?.replace("\\\n", " ");
    let mut counted = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let (words, target): (Vec<&str>, _) = (line.split_whitespace().collect(), line.split_whitespace().last());
        for source in words.iter().filter(|word| Some(**word) != target && !word.starts_with("--")) {
            match source.strip_prefix("/src/target/release/") {
                Some(built) => drop(program(built)?),
                None if line.starts_with("--from=") => {}
                None => ensure!(checkout(source).exists(), "{source} is absent"),
            }
            counted += 1;
        }
    }
    assert!(counted > 14, "{counted} files");
    Ok(())
}

/// A copy of a unit as one instance, with the programs where cargo built them, in a folder of its own.
fn instance(unit: &str, stage: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(checkout("deploy/systemd").join(unit))?;
    let programs = program("tapeline")?.parent().context("folder")?.display().to_string();
    let text = text.replace("/usr/local/bin/nats-server", "/bin/true").replace("/usr/local/bin", &programs);
    let path = folder.join(unit.replace('@', &format!("@{stage}")));
    std::fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn the_units_are_accepted_by_systemd_and_expose_little() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (unit, stage) in
        STAGES.map(|stage| ("tapeline@.service", stage)).into_iter().chain([("tapeline-nats.service", "")])
    {
        let path = instance(unit, stage, folder.path())?;
        let mut verify = Command::new("systemd-analyze");
        let there = on_path("systemd-analyze");
        let Some(verified) = tool("systemd-analyze", there, verify.arg("verify").arg(&path))? else { return Ok(()) };
        accepted(&verified).with_context(|| unit.to_owned())?;
        assert!(verified.stderr.is_empty(), "{}", String::from_utf8_lossy(&verified.stderr));
        // The scale ends at 10.0, written here as 100; an ordinary service has 9.6.
        let mut security = Command::new("systemd-analyze");
        let rated =
            security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&path).output()?;
        accepted(&rated).with_context(|| unit.to_owned())?;
    }
    Ok(())
}

/// What the template starts for each stage, as systemd would write it out.
fn units() -> anyhow::Result<Vec<Start>> {
    let text = std::fs::read_to_string(checkout("deploy/systemd/tapeline@.service"))?;
    let values = |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='));
    let exec = values("ExecStart").next().context("ExecStart")?;
    let env: BTreeMap<String, String> = values("Environment")
        .flat_map(|line| line.split(' '))
        .filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    let start = |stage: &str| {
        let mut line = exec.replace("/usr/local/bin/", "").replace("%i", stage).replace("%d", "/run/credentials");
        env.iter().for_each(|(key, value)| line = line.replace(&format!("${{{key}}}"), value));
        // A variable without braces is as many words as it holds: none, when it is empty.
        let words = line.split(' ').flat_map(|word| match word.strip_prefix('$').and_then(|key| env.get(key)) {
            Some(value) => value.split_whitespace().collect(),
            None => vec![word],
        });
        let argv = words.map(str::to_owned).collect();
        let env = env.iter().map(|(k, v)| (k.clone(), v.replace("%i", stage))).collect();
        Start { file: format!("tapeline@{stage}.service"), argv, env }
    };
    Ok(STAGES.map(start).into())
}

/// The lines of a text's code blocks that start one of our programs.
fn examples(file: &str) -> anyhow::Result<Vec<Start>> {
    let text = std::fs::read_to_string(checkout(file))?;
    let lines = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let plain = lines.filter(|line| line.starts_with("tapeline ")).map(|line| Start {
        file: file.to_owned(),
        argv: line.split('#').next().unwrap_or(line).split_whitespace().map(str::to_owned).collect(),
        env: BTreeMap::new(),
    });
    Ok(plain.collect())
}

/// Runs a command of `deploy/` with `last` behind it; programs come from the checkout.
fn run(start: &Start, last: &str) -> anyhow::Result<Output> {
    let (name, args) = start.argv.split_first().context("an empty command")?;
    let place = match name.as_str() {
        "share" | "healthz" => checkout("deploy/bin").join(name),
        "nats-server" => nats_server(),
        name => program(name)?,
    };
    let built = program("tapeline")?.parent().context("folder")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([built].into_iter().chain(std::env::split_paths(&path)))?;
    // The image keeps the servers' files where the checkout does not.
    let nats = checkout("deploy/nats").canonicalize()?.display().to_string();
    let args = args.iter().map(|arg| arg.replace("/etc/tapeline/nats", &nats));
    Command::new(place)
        .args(args)
        .arg(last)
        .env("PATH", path)
        .envs(&start.env)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {start:?}"))
}

#[test]
fn every_command_in_deploy_is_one_that_its_program_understands() -> anyhow::Result<()> {
    let mut starts = units()?;
    starts.extend(examples("deploy/README.md")?);
    if let Some(listed) = manifests("commands")? {
        accepted(&listed)?;
        starts.extend(serde_json::from_slice::<Vec<Start>>(&listed.stdout)?);
    }
    for start in &starts {
        // nats-server reads its configuration with all variables, and starts nothing.
        let last = if start.argv[0] == "nats-server" { "-t" } else { "--help" };
        accepted(&run(start, last)?).with_context(|| format!("{}: {}", start.file, start.argv.join(" ")))?;
    }
    // An argument that does not exist, and a value that is not allowed, are found this way.
    for wrong in [&["risk", "--no-such"][..], &["aggregate", "--log-format", "xml"], &["tapeline", "grow", "shrink"]] {
        let argv = wrong.iter().map(|word| (*word).to_owned()).collect();
        let answer = run(&Start { file: String::new(), argv, env: BTreeMap::new() }, "--help")?;
        assert_eq!(answer.status.code(), Some(2), "{wrong:?}");
    }
    eprintln!("{} commands of deploy/ are understood", starts.len());
    Ok(())
}

#[test]
fn the_configuration_in_deploy_is_good_and_kubernetes_has_the_same() -> anyhow::Result<()> {
    let file = checkout("deploy/tapeline.toml");
    accepted(&Command::new(program("tapeline")?).args(["config", "check", "--config"]).arg(&file).output()?)?;
    let toml = std::fs::read_to_string(&file)?;
    let map = std::fs::read_to_string(checkout("deploy/kubernetes/configuration.yaml"))?;
    let (_, inside) = map.split_once("tapeline.toml: |\n").context("the map's text")?;
    let inside: Vec<&str> = inside.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert_eq!(inside, toml.lines().collect::<Vec<_>>());
    Ok(())
}

#[test]
fn the_shares_of_all_instances_are_every_partition_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // A stage that only shows its arguments.
    let stage = folder.path().join("aggregate");
    std::fs::write(&stage, "#!/bin/sh\necho \"$2\"\n")?;
    std::fs::set_permissions(&stage, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = std::env::join_paths(
        [folder.path().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let share = |instance: u32, instances: u32| {
        Command::new(checkout("deploy/bin/share"))
            .args(["aggregate", "x,y"])
            .env("PATH", &path)
            .env("INSTANCE", instance.to_string())
            .env("INSTANCES", instances.to_string())
            .output()
    };
    for instances in [1, 2, 3, 5, 7, 16] {
        let mut runs = BTreeMap::new();
        for instance in 0..instances {
            let output = share(instance, instances)?;
            accepted(&output)?;
            let list = nats::TaskList::parse(String::from_utf8_lossy(&output.stdout).trim())?;
            for venue in ["x", "y"] {
                for p in list.partitions("aggregate", venue, 16) {
                    *runs.entry((venue, p)).or_insert(0) += 1;
                }
            }
        }
        assert_eq!((runs.len(), runs.values().max()), (32, Some(&1)), "{instances} instances");
    }
    assert_eq!(share(2, 2)?.status.code(), Some(2), "an instance without a share says so");
    assert_eq!(share(0, 17)?.status.code(), Some(2), "more instances than partitions");
    Ok(())
}
