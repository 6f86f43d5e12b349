//! What a running `tapeline up` leaves beside its data, so that `status`, `stop`, `tap` and the others find it:
//! `run.json` (addresses and pids) and `secrets.env` (one password a stage, readable by its owner only).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::process;

/// Users of nats/conf/server.conf.
pub const USERS: [&str; 9] =
    ["operator", "ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway", "external"];

/// Addresses and pids of a running pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// The supervising `tapeline up`.
    pub pid: u32,
    pub nats_url: String,
    pub dashboard: Option<String>,
    /// `paper` or `sim`.
    pub mode: String,
    pub stages: Vec<String>,
    /// Processes by name, for people who look; `stop` signals `pid` only.
    pub pids: BTreeMap<String, u32>,
}

impl RunFile {
    fn path(data: &Path) -> PathBuf {
        data.join("run.json")
    }
    pub fn write(&self, data: &Path) -> anyhow::Result<()> {
        let path = Self::path(data);
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }
    /// `None`: no pipeline runs over this folder (a file left by a killed one is removed).
    pub fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(data);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let run: Self = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if process::alive(run.pid) {
            return Ok(Some(run));
        }
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        Ok(None)
    }
    pub fn remove(data: &Path) {
        // It may be gone already; a stale file is noticed by its dead pid anyway.
        let _ = fs::remove_file(Self::path(data));
    }
    /// The running pipeline, or an error that says how to start one.
    pub fn required(data: &Path) -> anyhow::Result<Self> {
        match Self::read(data)? {
            Some(run) => Ok(run),
            None => bail!(
                "no pipeline runs over {} (start one: `tapeline up --demo`, or name it with --data-dir)",
                data.display()
            ),
        }
    }
}

/// Passwords of the bus, one a user.
#[derive(Clone)]
pub struct Secrets(BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.keys().map(|k| (k, "***"))).finish()
    }
}

impl Secrets {
    /// Reads `secrets.env`, or makes it with fresh passwords (mode 0600).
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        if let Some(secrets) = Self::read(data)? {
            return Ok(secrets);
        }
        let mut text = String::from("# Passwords of the bus, one a stage. Keep them to yourself.\n");
        let mut map = BTreeMap::new();
        for user in USERS {
            let password = random_hex()?;
            text.push_str(&format!("{}={password}\n", variable(user)));
            map.insert(user.to_owned(), password);
        }
        let path = data.join("secrets.env");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(map))
    }

    /// `None` where the folder has none: an existing server without our users.
    pub fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join("secrets.env");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let mut map = BTreeMap::new();
        for user in USERS {
            let variable = variable(user);
            let value = text.lines().find_map(|line| line.strip_prefix(&variable)?.strip_prefix('='));
            let value = value.with_context(|| format!("{} lacks {variable}", path.display()))?;
            map.insert(user.to_owned(), value.to_owned());
        }
        Ok(Some(Self(map)))
    }

    pub fn of(&self, user: &str) -> &str {
        self.0.get(user).map(String::as_str).unwrap_or("")
    }

    /// `TAPELINE_<USER>_PASSWORD` of every user, for the server.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(user, password)| (variable(user), password.clone())).collect()
    }
}

/// The variable that nats/conf/server.conf reads.
fn variable(user: &str) -> String {
    format!("TAPELINE_{}_PASSWORD", user.to_uppercase())
}

fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).context("read /dev/urandom")?;
    // A letter first: nats-server would read a leading digit as a number.
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("p{hex}"))
}
