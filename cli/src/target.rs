//! Which pipeline a command means, and a connection to its bus as the operator.

use std::path::{Path, PathBuf};

use anyhow::bail;
use nats::{Bus, Login};

use crate::run_file::{RunFile, Secrets};

/// Where `up` keeps its folder when `--data-dir` is absent.
pub const LIVE: &str = ".tapeline/live";
pub const DEMO: &str = ".tapeline/demo";
/// The user with the right to make streams.
pub const OPERATOR: &str = "operator";

/// The folder named by the user, else the running one of live and demo, else an error that says so.
pub fn folder(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    let mut running = Vec::new();
    for place in [LIVE, DEMO] {
        if RunFile::read(Path::new(place))?.is_some() {
            running.push(PathBuf::from(place));
        }
    }
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => bail!("no pipeline runs here (start one: `tapeline up --demo`, or name its folder with --data-dir)"),
        _ => bail!("two pipelines run here: name one with --data-dir {LIVE} or --data-dir {DEMO}"),
    }
}

/// The bus of the pipeline over `data`; without one, the server at NATS_URL when it is set.
pub async fn operator_bus(data: Option<PathBuf>) -> anyhow::Result<Bus> {
    operator_bus_with(data, nats::Config::load(None)?).await
}

/// Like [`operator_bus`], with the user's bounds.
pub async fn operator_bus_with(data: Option<PathBuf>, config: nats::Config) -> anyhow::Result<Bus> {
    if data.is_none()
        && let Ok(url) = std::env::var("NATS_URL")
    {
        let password = std::env::var("NATS_PASSWORD").ok();
        let user = password.as_ref().map(|_| std::env::var("NATS_USER").unwrap_or_else(|_| OPERATOR.to_owned()));
        return Ok(Bus::connect(Login { url, stage: OPERATOR.to_owned(), user, password }, config).await?);
    }
    let folder = folder(data)?;
    let run = RunFile::required(&folder)?;
    Ok(Bus::connect(operator(&run.nats_url, Secrets::read(&folder)?.as_ref()), config).await?)
}

/// The operator's login; without secrets (a server that is not ours) the environment's.
pub fn operator(url: &str, secrets: Option<&Secrets>) -> Login {
    let password = secrets.map(|s| s.of(OPERATOR).to_owned()).or_else(|| std::env::var("NATS_PASSWORD").ok());
    let user = password.as_ref().map(|_| OPERATOR.to_owned());
    Login { url: url.to_owned(), stage: OPERATOR.to_owned(), user, password }
}

/// A connection with the user's bounds.
pub async fn connect(login: Login, config: nats::Config) -> anyhow::Result<Bus> {
    Ok(Bus::connect(login, config).await?)
}

/// One runtime a command; the commands are the shells.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
