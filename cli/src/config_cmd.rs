//! `tapeline config`: whether your tapeline.toml can be used, and what every stage makes of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use schemas::config::{ConfigError, UserFile};
use serde_json::json;

/// A stage's manual, and the loader that the stage itself uses.
struct Known {
    name: &'static str,
    manual: &'static str,
    check: fn(Option<&UserFile>) -> Result<(), ConfigError>,
}

/// Every table that a tapeline.toml may hold.
const KNOWN: &[Known] = &[
    Known { name: "nats", manual: nats::config::DEFAULT, check: |u| nats::Config::load(u).map(drop) },
    Known { name: "ingest", manual: ingest::config::DEFAULT, check: |u| ingest::config::Config::load(u).map(drop) },
    Known {
        name: "aggregate",
        manual: aggregate::config::DEFAULT,
        check: |u| aggregate::config::Config::load(u).map(drop),
    },
    Known {
        name: "strategy",
        manual: strategy::config::DEFAULT,
        check: |u| strategy::config::Config::load(u).map(drop),
    },
    Known { name: "risk", manual: risk::config::DEFAULT, check: |u| risk::config::Config::load(u).map(drop) },
    Known {
        name: "executor",
        manual: executor::config::DEFAULT,
        check: |u| executor::config::Config::load(u).map(drop),
    },
    Known { name: "ledger", manual: ledger::config::DEFAULT, check: |u| ledger::config::Config::load(u).map(drop) },
    Known { name: "gateway", manual: gateway::config::DEFAULT, check: |u| gateway::config::Config::load(u).map(drop) },
    Known {
        name: "simulator",
        manual: simulator::config::DEFAULT,
        check: |u| simulator::config::Config::load(u).map(drop),
    },
];

#[derive(Subcommand)]
enum Action {
    /// Read the file as every stage would; exit 64 names file, key and what is allowed
    Check,
    /// Print the values in force, or the commented defaults
    Show {
        /// Only this stage
        stage: Option<String>,
        /// The manual: defaults with their comments
        #[arg(long)]
        defaults: bool,
    },
}

/// `tapeline config`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tapeline config check --config tapeline.toml
  tapeline config show risk --defaults          the manual of a stage
  tapeline config show --config tapeline.toml   all values in force")]
pub struct Args {
    /// Your tapeline.toml
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

/// Your file, with unknown tables refused.
pub fn user_file(path: Option<&Path>) -> anyhow::Result<Option<UserFile>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let file = UserFile { name: path.display().to_string(), text };
    let table: toml::Table = file
        .text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::new(&file.name, "(syntax)", e.to_string().trim()))?;
    for name in table.keys() {
        if KNOWN.iter().all(|k| k.name != name) {
            let allowed: Vec<&str> = KNOWN.iter().map(|k| k.name).collect();
            return Err(ConfigError::new(
                &file.name,
                name,
                format_args!("unknown table; allowed: {}", allowed.join(", ")),
            )
            .into());
        }
    }
    Ok(Some(file))
}

/// What every stage would say of the file.
pub fn check(user: Option<&UserFile>) -> Result<(), ConfigError> {
    KNOWN.iter().try_for_each(|known| (known.check)(user))
}

pub fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let user = user_file(args.config.as_deref())?;
    check(user.as_ref())?;
    match args.action {
        Action::Check if json => println!("{}", json!({"ok": true})),
        Action::Check => println!("ok"),
        Action::Show { stage, defaults } => {
            if let Some(stage) = &stage
                && KNOWN.iter().all(|k| k.name != stage)
            {
                bail!("no stage `{stage}`; there are {}", KNOWN.iter().map(|k| k.name).collect::<Vec<_>>().join(", "));
            }
            let wanted = || KNOWN.iter().filter(|k| stage.as_deref().is_none_or(|s| s == k.name));
            if defaults {
                wanted().for_each(|k| println!("{}", k.manual));
                return Ok(());
            }
            let mut whole = toml::Table::new();
            for known in wanted() {
                let table: toml::Table = schemas::config::load(known.name, known.manual, user.as_ref())?;
                whole.insert(known.name.to_owned(), toml::Value::Table(table));
            }
            if json {
                println!("{}", serde_json::to_string(&whole).context("write JSON")?);
            } else {
                print!("{}", toml::to_string(&whole).context("write TOML")?);
            }
        }
    }
    Ok(())
}
