//! What `tapeline up` starts and with which configuration: pure decisions, so that they can be tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nats::Layout;
use schemas::config::UserFile;
use schemas::subject::PARTITIONS;
use toml::{Table, Value};

use crate::process::Plan;
use crate::run_file::Secrets;
use crate::{config_cmd, up};

/// Name of the server's process; it ends last.
pub const NATS_SERVER: &str = "nats-server";
/// The stages in the order of their start: readers first, so that nothing waits for them.
pub const STAGES: [&str; 7] = ["ledger", "gateway", "executor", "risk", "strategy", "aggregate", "ingest"];

/// Venues of the demo, and the symbols that the simulator trades there.
const DEMO_VENUES: [(&str, &[&str]); 3] = [
    ("binance", &["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
    ("binance-usdm", &["BTCUSDT", "ETHUSDT"]),
    ("deribit", &["BTC-PERPETUAL", "ETH-PERPETUAL"]),
];
/// What the simulator trades at every venue, in the first venue's spelling.
const DEMO_SYMBOLS: &str = "BTCUSDT,ETHUSDT,SOLUSDT";

/// What the demo changes so that a visitor sees candles, signals and fills within the first minute; the user's
/// file is laid over it.
const DEMO: &str = include_str!("../demo.toml");

/// Configuration of all stages, as one tapeline.toml.
#[derive(Clone, Debug)]
pub struct Overlay {
    table: Table,
}

/// What a pipeline consists of.
pub struct Settings {
    pub layout: Layout,
    /// `[nats]`: of our own connection, and retention and copies of the streams.
    pub bounds: nats::Config,
    pub overlay: Overlay,
}

/// Reads and checks the user's file, adds what the arguments say.
pub fn settings(args: &up::Args, data: &Path) -> anyhow::Result<Settings> {
    let user = config_cmd::user_file(args.config.as_deref())?;
    config_cmd::check(user.as_ref())?;
    let mut table: Table =
        if args.demo { DEMO.parse().context("read the demo's configuration")? } else { Table::new() };
    if let Some(user) = &user {
        lay_over(&mut table, user.text.parse().context("read the configuration")?);
    }
    let venues: Vec<String> = match args.demo {
        true => DEMO_VENUES.iter().map(|(venue, _)| (*venue).to_owned()).collect(),
        false => args.venue.clone(),
    };
    let known: Vec<String> = ingest::config::Config::load(user.as_ref())?.venues.keys().cloned().collect();
    if let Some(unknown) = venues.iter().find(|v| !known.contains(v)) {
        bail!("--venue {unknown}: there are {}", known.join(", "));
    }
    let mut overlay = Overlay { table };
    for venue in &known {
        overlay.set(&["ingest", "venues", venue, "enabled"], Value::Boolean(venues.contains(venue)));
    }
    if args.demo {
        for (venue, symbols) in DEMO_VENUES {
            let symbols = symbols.iter().map(|s| Value::String((*s).to_owned())).collect();
            overlay.set_default(&["ingest", "venues", venue, "symbols"], Value::Array(symbols));
        }
    }
    let list = Value::Array(venues.iter().cloned().map(Value::String).collect());
    overlay.set(&["aggregate", "venues"], list.clone());
    overlay.set(&["strategy", "venues"], list);
    overlay.set(&["gateway", "listen"], Value::String(args.dashboard.clone()));
    let database = format!("sqlite://{}", data.join("ledger.db").display());
    overlay.set_default(&["ledger", "database"], Value::String(database));

    let traders = overlay.names(&["strategy", "traders"]);
    overlay.set_default(&["gateway", "traders"], Value::Array(traders.iter().cloned().map(Value::String).collect()));
    let layout = Layout { venues, accounts: vec!["main".to_owned()], traders, partitions: PARTITIONS };
    let name = user.map_or_else(|| "demo.toml".to_owned(), |user| user.name);
    let bounds = nats::Config::load(Some(&UserFile { name, text: overlay.text() }))?;
    Ok(Settings { layout, bounds, overlay })
}

impl Overlay {
    pub fn text(&self) -> String {
        let body = toml::to_string(&self.table).expect("Invariant: a table that was read can be written");
        format!("# Written by `tapeline up` at every start from your file and its arguments; do not edit.\n{body}")
    }

    fn set(&mut self, path: &[&str], value: Value) {
        if let Some((last, table)) = self.descend(path) {
            table.insert(last, value);
        }
    }
    fn set_default(&mut self, path: &[&str], value: Value) {
        if let Some((last, table)) = self.descend(path) {
            table.entry(last).or_insert(value);
        }
    }
    /// The table that holds the path's last key; `None` where the user wrote something else than a table, which the
    /// stage itself refuses with a clear error.
    fn descend(&mut self, path: &[&str]) -> Option<(String, &mut Table)> {
        let (last, parents) = path.split_last()?;
        let mut table = &mut self.table;
        for key in parents {
            table = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
        }
        Some(((*last).to_owned(), table))
    }
    /// Keys of a table, in order; empty where it is absent.
    fn names(&self, path: &[&str]) -> Vec<String> {
        let mut table = &self.table;
        for key in path {
            match table.get(*key).and_then(Value::as_table) {
                Some(inner) => table = inner,
                None => return Vec::new(),
            }
        }
        table.keys().cloned().collect()
    }

    /// Real venues are replaced by the simulator's addresses.
    pub fn point_ingest_at(&mut self, addresses: &BTreeMap<String, String>) {
        for (venue, address) in addresses {
            self.set(&["ingest", "venues", venue, "ws_url"], Value::String(format!("ws://{address}")));
            self.set(&["ingest", "venues", venue, "rest_url"], Value::String(format!("http://{address}")));
        }
    }
}

fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(b)), Value::Table(o)) => lay_over(b, o),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// A program beside our own.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("find our own program")?;
    let path = exe.with_file_name(name);
    if !path.is_file() {
        bail!("{} is absent: build all programs (`cargo build --release --bins`)", path.display());
    }
    Ok(path)
}

/// nats-server with one user a stage, over `data/nats`.
pub fn nats_server(data: &Path, port: u16, secrets: &Secrets) -> anyhow::Result<Plan> {
    let conf = data.join("nats-server.conf");
    std::fs::write(&conf, nats::SERVER_CONF).with_context(|| format!("write {}", conf.display()))?;
    let store = data.join("nats");
    std::fs::create_dir_all(&store).with_context(|| format!("create {}", store.display()))?;
    let monitor = crate::nats_server::free_port(8222)?;
    let mut env = secrets.environment();
    env.push(("TAPELINE_STORE_DIR".to_owned(), store.display().to_string()));
    let args = [
        "-c".to_owned(),
        conf.display().to_string(),
        "--port".to_owned(),
        port.to_string(),
        "--http_port".to_owned(),
        monitor.to_string(),
    ];
    Ok(Plan { name: NATS_SERVER.to_owned(), program: crate::nats_server::find()?, args: args.to_vec(), env })
}

/// A stage with its own user.
pub fn stage(
    name: &str,
    config: &Path,
    nats_url: &str,
    secrets: Option<&Secrets>,
    args: &up::Args,
) -> anyhow::Result<Plan> {
    let mut env = vec![("NATS_URL".to_owned(), nats_url.to_owned())];
    if let Some(secrets) = secrets {
        env.push(("NATS_USER".to_owned(), name.to_owned()));
        env.push(("NATS_PASSWORD".to_owned(), secrets.of(name).to_owned()));
    }
    let args =
        ["--config".to_owned(), config.display().to_string(), "--log-format".to_owned(), args.log_format.clone()];
    Ok(Plan { name: name.to_owned(), program: sibling(name)?, args: args.to_vec(), env })
}

/// The venue simulator and the file that it writes its addresses to.
pub fn simulator(args: &up::Args, data: &Path) -> anyhow::Result<(Plan, PathBuf)> {
    let ports = data.join("simulator.json");
    // A file of an earlier run would send us to a dead port.
    if ports.exists() {
        std::fs::remove_file(&ports).with_context(|| format!("remove {}", ports.display()))?;
    }
    let venues: Vec<&str> = DEMO_VENUES.iter().map(|(venue, _)| *venue).collect();
    let args = [
        ("--venue", venues.join(",")),
        ("--symbols", DEMO_SYMBOLS.to_owned()),
        ("--listen", "127.0.0.1:0".to_owned()),
        ("--ports-file", ports.display().to_string()),
        ("--seed", args.seed.to_string()),
        ("--speed", args.speed.to_string()),
    ];
    let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    Ok((Plan { name: "simulator".to_owned(), program: sibling("simulator")?, args, env: Vec::new() }, ports))
}

/// Waits until the simulator has written its addresses.
/// Gives `address:port` by venue.
pub async fn simulator_endpoints(ports: &Path, wait_max: Duration) -> anyhow::Result<BTreeMap<String, String>> {
    let until = Instant::now() + wait_max;
    loop {
        if let Ok(text) = std::fs::read_to_string(ports)
            && let Ok(addresses) = serde_json::from_str(&text)
        {
            return Ok(addresses);
        }
        if Instant::now() > until {
            bail!("the simulator wrote no addresses to {}", ports.display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
