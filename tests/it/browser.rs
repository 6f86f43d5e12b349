//! `tapeline up --demo` as a user starts it, the dashboard as a person sees it (headless Chromium), and Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::wait_for;

/// From the first process to every stage answering, on a busy machine.
const START_BOUND: Duration = Duration::from_secs(90);
const END_BOUND: Duration = Duration::from_secs(40);

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A running `tapeline up --demo`; ended by SIGINT, whatever the test does.
struct Demo {
    child: Child,
    data: tempfile::TempDir,
}

impl Demo {
    fn start(data: tempfile::TempDir, configuration: &str) -> anyhow::Result<Self> {
        let config = data.path().join("mine.toml");
        std::fs::write(&config, configuration)?;
        let err = std::fs::File::create(data.path().join("up.log"))?;
        let child = Command::new(program("tapeline")?)
            .args(["--json", "--data-dir"])
            .arg(data.path())
            .args(["up", "--demo", "--nats-port", "0", "--dashboard"])
            .arg(format!("127.0.0.1:{}", cli::nats_server::free_port(0)?))
            .arg("--config")
            .arg(&config)
            .current_dir(root())
            .env_remove("NATS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(err)
            .spawn()
            .context("start tapeline up")?;
        Ok(Self { child, data })
    }

    /// What `up` left in its folder, once every stage answers.
    async fn ready(&mut self) -> anyhow::Result<Value> {
        let file = self.data.path().join("run.json");
        let data = self.data.path().to_owned();
        wait_for("every stage to answer", START_BOUND, || async {
            serde_json::from_str(&std::fs::read_to_string(&file).ok()?).ok()
        })
        .await
        .with_context(|| std::fs::read_to_string(data.join("up.log")).unwrap_or_default())
    }

    fn tapeline(&self, args: &[&str]) -> anyhow::Result<Value> {
        let out = Command::new(program("tapeline")?)
            .args(["--json", "--data-dir"])
            .arg(self.data.path())
            .args(args)
            .env_remove("NATS_URL")
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("{args:?}: {text} {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// Ctrl-C; gives the folder back for a second start.
    async fn interrupt(mut self) -> anyhow::Result<tempfile::TempDir> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let status = wait_for("the end", END_BOUND, || {
            let ended = self.child.try_wait().ok().flatten();
            async move { ended }
        })
        .await?;
        ensure!(status.success(), "tapeline up ended with {status}");
        let fresh = tempfile::tempdir()?;
        Ok(std::mem::replace(&mut self.data, fresh))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It ends its own processes; a kill would leave them behind.
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
            let _ = self.child.wait();
        }
    }
}

fn alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_prices_move_a_filled_chart_and_a_paper_fill_and_ctrl_c_ends_all() -> anyhow::Result<()> {
    let mut demo = Demo::start(tempfile::tempdir()?, "")?;
    let run = demo.ready().await?;
    let url = run["dashboard"].as_str().context("dashboard")?.to_owned();

    let status = demo.tapeline(&["status"])?;
    assert_eq!(status["up"], true, "{status}");
    assert_eq!(status["stages"].as_array().map(Vec::len), Some(7));
    wait_for("a paper fill", START_BOUND, || async {
        let rows = demo.tapeline(&["trades"]).ok()?;
        (!rows["trades"].as_array()?.is_empty()).then_some(())
    })
    .await?;
    assert!(!demo.tapeline(&["signals"])?["signals"].as_array().context("signals")?.is_empty());

    // Halted: risk and executor obey the same durable state, and say so.
    assert_eq!(demo.tapeline(&["desk", "halt", "--reason", "test"])?["state"], "halted");
    assert_eq!(demo.tapeline(&["desk", "show"])?["state"], "halted");
    assert_eq!(demo.tapeline(&["desk", "resume"])?["state"], "active");

    match browser(&url)? {
        None => eprintln!("skipped: no chromium or playwright-core (run scripts/setup.sh test)"),
        Some(seen) => {
            assert_eq!(seen["troubles"], serde_json::json!([]), "{seen}");
            assert_ne!(seen["first"], seen["second"], "a price moved");
            assert!(seen["candles"].as_u64() > Some(3) && seen["colours"].as_u64() > Some(10), "{seen}");
            assert_eq!(seen["mode"], "PAPER");
            eprintln!("chromium saw {seen}");
        }
    }

    let pids: Vec<u64> = run["pids"].as_object().context("pids")?.values().filter_map(Value::as_u64).collect();
    assert_eq!(pids.len(), 9, "seven stages, the server and the simulator");
    let stored = demo.tapeline(&["status"])?["stages"].clone();
    let data = demo.interrupt().await?;
    let left: Vec<u64> = pids.into_iter().filter(|pid| alive(*pid)).collect();
    assert_eq!(left, Vec::<u64>::new(), "processes left behind");

    // A second start goes on with the stored streams, and keeps them for as long as the configuration says now.
    let mut again = Demo::start(data, "[nats.layout]\nraw_days = 3\n")?;
    again.ready().await?;
    let bus = cli::target::operator_bus(Some(again.data.path().to_owned())).await?;
    let kept = bus.js().get_stream("RAW_BINANCE").await?.cached_info().config.max_age;
    assert_eq!(kept, Duration::from_secs(3 * 86_400));
    let said = |stages: &Value| {
        stages
            .as_array()
            .into_iter()
            .flatten()
            .filter(|s| s["stage"] == "risk")
            .map(|s| s["tasks"][0]["out_seq"].as_u64().unwrap_or(0))
            .sum::<u64>()
    };
    let resumed = again.tapeline(&["status"])?["stages"].clone();
    assert!(
        said(&resumed) >= said(&stored) && said(&stored) > 0,
        "risk goes on at {} after {}",
        said(&resumed),
        said(&stored)
    );
    again.interrupt().await?;
    Ok(())
}

/// What Chromium saw; `None` where it or its driver is absent, which with CI=true is a failure.
fn browser(url: &str) -> anyhow::Result<Option<Value>> {
    let node = root().join(".tapeline/node");
    let there = node.join("node_modules/playwright-core").is_dir() && Path::new("/usr/bin/chromium").exists();
    if !there {
        ensure!(std::env::var("CI").as_deref() != Ok("true"), "chromium or playwright-core is absent and CI=true");
        return Ok(None);
    }
    let out = Command::new("node")
        .arg(root().join("scripts/browser/dashboard.mjs"))
        .arg(url)
        .env("TAPELINE_NODE", node.canonicalize()?)
        .output()
        .context("run node")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let seen =
        serde_json::from_str(&text).with_context(|| format!("{text} {}", String::from_utf8_lossy(&out.stderr)))?;
    Ok(Some(seen))
}
