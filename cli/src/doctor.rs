//! `tapeline doctor`: everything around a pipeline that can be wrong, one line each with a remedy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use comfy_table::{Table, presets};
use nats::{Bus, Login};
use schemas::config::UserFile;
use serde::Serialize;
use serde_json::json;

use crate::run_file::{RunFile, Secrets};
use crate::{config_cmd, cores, plan, target};

pub mod bus;
pub mod rights;
pub mod tasks;

/// How long a server may take to answer the first connection.
const CONNECT_WAIT_S: u64 = 3;

/// `tapeline doctor`
#[derive(clap::Args)]
#[command(after_help = "Exit codes: 0 nothing failed (warnings are shown), 1 at least one check failed, 2 usage.
Rights are tried for each user whose password is known: from the pipeline's folder, or TAPELINE_<USER>_PASSWORD.
Examples:
  tapeline doctor
  tapeline doctor --json | jq '.lines[] | select(.state != \"ok\")'
  NATS_URL=nats://bus:4222 NATS_PASSWORD=... tapeline doctor --stages aggregate,strategy --config tapeline.toml")]
pub struct Args {
    /// Stages that must answer
    #[arg(long, value_delimiter = ',', default_values_t = plan::STAGES.map(str::to_owned))]
    stages: Vec<String>,
    /// The tapeline.toml in use; default: the running pipeline's
    #[arg(long)]
    config: Option<PathBuf>,
    /// The oldest nats-server that is good enough
    #[arg(long, default_value = "2.12")]
    server_min: Version,
    /// Difference between this clock and the server's, at most
    #[arg(long, default_value_t = 500.0)]
    skew_ms_max: f64,
    /// Free space where the streams are stored, at least
    #[arg(long, default_value_t = 1024)]
    disk_free_mib_min: u64,
    /// Inputs that may wait for a task
    #[arg(long, default_value_t = 10_000)]
    lag_max: u64,
    /// Age of a checkpoint of a task that has inputs to fold
    #[arg(long, default_value_t = 60_000)]
    checkpoint_age_ms_max: u64,
}

/// `major.minor` with an optional patch, compared number by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl std::str::FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let release = text.trim_start_matches('v').split('-').next().unwrap_or("");
        let mut parts = release.split('.').map(|part| part.parse::<u32>().ok());
        match (parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(major), Some(minor), None) => Ok(Self(major, minor, 0)),
            (Some(major), Some(minor), Some(Some(patch))) => Ok(Self(major, minor, patch)),
            _ => Err(format!("`{text}` is no version such as 2.12 or 2.15.1")),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    Warn,
    Fail,
}

/// One finding.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Line {
    /// `server`, `clock`, `disk`, `streams`, `rights`, `stages`, `checkpoints`, `config`, `ports`, `leftovers`.
    pub check: &'static str,
    /// What it is about: a stream, a user, a stage.
    pub about: String,
    pub state: State,
    pub found: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

/// All findings, in the order of the checks.
#[derive(Default)]
pub struct Findings(pub Vec<Line>);

impl Findings {
    pub fn ok(&mut self, check: &'static str, about: impl Into<String>, found: impl Into<String>) {
        let (about, found) = (about.into(), found.into());
        self.0.push(Line { check, about, state: State::Ok, found, remedy: String::new() });
    }
    pub fn warn(
        &mut self,
        check: &'static str,
        about: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (about, found, remedy) = (about.into(), found.into(), remedy.into());
        self.0.push(Line { check, about, state: State::Warn, found, remedy });
    }
    pub fn fail(
        &mut self,
        check: &'static str,
        about: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (about, found, remedy) = (about.into(), found.into(), remedy.into());
        self.0.push(Line { check, about, state: State::Fail, found, remedy });
    }
    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|line| line.state == state).count()
    }
}

pub fn run(args: Args, data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let findings = target::block_on(examine(&args, data))?;
    let (warned, failed) = (findings.count(State::Warn), findings.count(State::Fail));
    if json {
        println!("{}", json!({"ok": failed == 0, "warned": warned, "failed": failed, "lines": findings.0}));
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["", "check", "about", "found", "remedy"]);
        for line in &findings.0 {
            let state = match line.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            table.add_row([state, line.check, &line.about, &line.found, &line.remedy]);
        }
        println!("{table}\n{} checks, {warned} warnings, {failed} failed", findings.0.len());
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", findings.0.len());
    }
    Ok(())
}

async fn examine(args: &Args, data: Option<PathBuf>) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let folder = data.clone().or_else(|| {
        let named = std::env::var_os("NATS_URL").is_some();
        if named { None } else { target::folder(None).ok() }
    });
    if let Some(folder) = &folder {
        leftover_run_file(folder, &mut findings);
    }
    let run = folder.as_deref().and_then(|folder| RunFile::read(folder).ok().flatten());
    let secrets = folder.as_deref().and_then(|folder| Secrets::read(folder).ok().flatten());
    let user = config(args, data.as_deref(), &mut findings);
    let Some(login) = login(run.as_ref(), secrets.as_ref()) else {
        findings.fail(
            "server",
            "address",
            "no pipeline runs here and NATS_URL is not set",
            "start one with `tapeline up --demo`, name its folder with --data-dir, or set NATS_URL",
        );
        return Ok(findings);
    };
    let mut bounds = nats::Config::load(user.as_ref()).unwrap_or_default();
    bounds.connection.outage_s_max = CONNECT_WAIT_S;
    bounds.connection.request_tries_max = 3;
    let url = login.url.clone();
    let bus = match Bus::connect(login, bounds).await {
        Ok(bus) => bus,
        Err(error) => {
            let remedy = if error.to_string().to_lowercase().contains("authorization") {
                "set NATS_USER and NATS_PASSWORD to the operator's, as the server's configuration has them"
            } else {
                "start nats-server, or correct NATS_URL"
            };
            findings.fail("server", url, error.to_string(), remedy);
            return Ok(findings);
        }
    };
    bus::server(&bus, &url, args.server_min, &mut findings);
    bus::clock(&bus, args.skew_ms_max, &mut findings).await;
    bus::disk(&bus, folder.as_deref(), args.disk_free_mib_min, &mut findings).await;
    bus::streams(&bus, user.as_ref(), &mut findings).await;
    rights::try_all(&url, &passwords(secrets.as_ref()), &mut findings).await;
    tasks::stages(&bus, &args.stages, args.lag_max, args.checkpoint_age_ms_max, &mut findings).await;
    let known = match cores::tasks(&bus, user.as_ref()).await {
        Ok(known) => known,
        Err(error) => {
            findings.fail("config", "tasks", format!("{error:#}"), "correct the key that is named");
            Vec::new()
        }
    };
    tasks::checkpoints(&bus, &known, &mut findings).await;
    ports(run.as_ref(), &mut findings).await;
    bus::leftovers(&bus, &mut findings).await;
    Ok(findings)
}

/// The operator's login; `None`: nobody said where the server is.
fn login(run: Option<&RunFile>, secrets: Option<&Secrets>) -> Option<Login> {
    if let Some(run) = run {
        return Some(target::operator(&run.nats_url, secrets));
    }
    let url = std::env::var("NATS_URL").ok()?;
    let mut login = target::operator(&url, None);
    if let (Some(_), Ok(user)) = (&login.user, std::env::var("NATS_USER")) {
        login.user = Some(user);
    }
    Some(login)
}

/// Passwords by user: the environment's before those of the folder.
fn passwords(secrets: Option<&Secrets>) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for user in crate::run_file::USERS {
        let own = std::env::var(format!("TAPELINE_{}_PASSWORD", user.to_uppercase())).ok();
        let password = own.or_else(|| secrets.map(|s| s.of(user).to_owned()));
        known.extend(password.map(|password| (user.to_owned(), password)));
    }
    known
}

/// The configuration in use; what is wrong with it is a finding.
fn config(args: &Args, data: Option<&std::path::Path>, findings: &mut Findings) -> Option<UserFile> {
    let remedy = "correct it; `tapeline config show <stage> --defaults` says what is allowed";
    let user = match cores::user_file(args.config.as_deref(), data) {
        Ok(user) => user,
        Err(error) => {
            let about = args.config.as_ref().map_or("tapeline.toml".to_owned(), |path| path.display().to_string());
            findings.fail("config", about, format!("{error:#}"), remedy);
            return None;
        }
    };
    let about = user.as_ref().map_or("defaults".to_owned(), |user| user.name.clone());
    match config_cmd::check(user.as_ref()) {
        Ok(()) => {
            findings.ok("config", about, "every stage can use it");
            user
        }
        Err(error) => {
            findings.fail("config", about, error.to_string(), remedy);
            None
        }
    }
}

/// A pipeline that was killed leaves its run file behind.
fn leftover_run_file(folder: &std::path::Path, findings: &mut Findings) {
    #[derive(serde::Deserialize)]
    struct Pid {
        pid: u32,
    }
    let Ok(text) = std::fs::read_to_string(folder.join("run.json")) else { return };
    let Ok(Pid { pid }) = serde_json::from_str(&text) else { return };
    if !crate::process::alive(pid) {
        let found = format!("the pipeline of process {pid} was killed: its stages may still run");
        let remedy = "end the processes that its run file named; the next `tapeline up` goes on with the streams";
        findings.warn("leftovers", folder.join("run.json").display().to_string(), found, remedy);
    }
}

/// The dashboard's door.
async fn ports(run: Option<&RunFile>, findings: &mut Findings) {
    let Some(dashboard) = run.and_then(|run| run.dashboard.as_deref()) else { return };
    let address = dashboard.trim_start_matches("http://").to_owned();
    let connect = tokio::net::TcpStream::connect(address.clone());
    match tokio::time::timeout(Duration::from_secs(2), connect).await {
        Ok(Ok(_)) => findings.ok("ports", address, "the gateway listens"),
        Ok(Err(error)) => {
            findings.fail("ports", address, error.to_string(), "look into the gateway's log; another --dashboard helps")
        }
        Err(_) => findings.fail("ports", address, "no answer within 2 s", "look into the gateway's log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("2.9.9") < version("2.12"));
        assert!(version("v2.15.1-beta.2") > version("2.15"));
        assert!("two".parse::<Version>().is_err() && "2".parse::<Version>().is_err());
    }
}
