//! The audit of the ledger: the streams folded again into a database in memory, up to the cursors of the real one,
//! and every table compared row by row.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use ledger::config::{Address, Config, address, redacted};
use ledger::db::{Cursor, Db};
use ledger::schema::{SYSTEM_CONFIG, TABLES};
use ledger::writer::Writer;
use nats::{Bus, Reader};
use schemas::config::UserFile;
use schemas::subject::stream::SIGNAL_EXTERNAL;
use serde_json::json;

use super::stored::Shown;
use super::task::{Divergence, Outcome};

/// Tries to read the tables while no transaction moves them.
const QUIET_TRIES_MAX: u32 = 10;
/// Facts folded between two transactions.
const BATCH: usize = 2_000;

type Rows = Vec<Vec<Option<String>>>;

/// Compares every table but `system_config`, which follows KV and not a stream.
pub async fn audit(bus: &Bus, user: Option<&UserFile>, mut progress: impl FnMut(u64, u64)) -> anyhow::Result<Outcome> {
    let config = Config::load(user)?;
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| config.database.clone());
    let mut outcome = Outcome::new("ledger", "every stream that it reads", &redacted(&url));
    if address(&url) != Ok(Address::Sqlite) {
        // PostgreSQL writes numbers and JSON in its own way, so rows of the two do not compare as text.
        return Ok(outcome.skip("only SQLite is compared; for PostgreSQL: `ledger rebuild` into an empty database"));
    }
    let (cursors, tables) = quiet(&url, Duration::from_millis(config.database_wait_ms_max)).await?;
    let total: u64 = cursors.values().map(|c| c.seq).sum();
    let mut writer = Writer::open(&config, "sqlite::memory:").await.context("open a database in memory")?;
    for (stream, cursor) in &cursors {
        let state = bus.stream(stream).await?;
        if state.before_first() > 0 {
            return Ok(outcome.skip(format!("{stream} has lost its beginning: its rows cannot be folded again")));
        }
        let mut reader = Reader::open(bus, stream, ">", 1).await?;
        let mut done = 0;
        while done < cursor.seq && !reader.caught_up() {
            for message in reader.next_batch(BATCH).await? {
                if message.seq > cursor.seq {
                    break;
                }
                done = message.seq;
                match writer.hear(stream, message.seq, &message.subject, &message.payload) {
                    // As the stage does: other programs may say nonsense.
                    Err(ledger::writer::WriteError::Fact { .. }) if stream == SIGNAL_EXTERNAL => {
                        outcome.undecodable += 1;
                        writer.skip(stream, message.seq);
                    }
                    heard => heard?,
                }
                outcome.inputs += 1;
            }
            writer.commit().await?;
            progress(outcome.inputs, total);
        }
    }
    for table in TABLES.iter().filter(|table| table.name != SYSTEM_CONFIG.name) {
        let again = writer.db().rows(table).await?;
        let there = &tables[table.name];
        let parts = there.iter().zip(&again).position(|(a, b)| a != b);
        let parts = parts.or_else(|| (there.len() != again.len()).then(|| there.len().min(again.len())));
        let Some(row) = parts else {
            outcome.compared += there.len() as u64;
            continue;
        };
        let show = |rows: &Rows| {
            let cells: Option<serde_json::Map<_, _>> = rows.get(row).map(|cells| {
                table.columns.iter().zip(cells).map(|((name, _), cell)| ((*name).to_owned(), json!(cell))).collect()
            });
            cells.map(|cells| Shown { place: None, subject: table.name.to_owned(), fact: cells.into() })
        };
        let (stored, folded) = (show(there), show(&again));
        let differs = match (&stored, &folded) {
            (Some(a), Some(b)) => super::stored::differences(&a.fact, &b.fact),
            _ => Vec::new(),
        };
        let position = format!("{}:{}", table.name, row + 1);
        let why = format!("another row ({} are there, {} follow from the streams)", there.len(), again.len());
        outcome.divergence = Some(Divergence { position, input: None, stored, folded, differs, why });
        break;
    }
    Ok(outcome)
}

/// Cursors and tables of one instant: read again until no cursor moved meanwhile.
async fn quiet(url: &str, wait: Duration) -> anyhow::Result<(BTreeMap<String, Cursor>, BTreeMap<&'static str, Rows>)> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = path.split('?').next().unwrap_or(path);
    if path != ":memory:" && !std::path::Path::new(path).is_file() {
        bail!("the ledger's database {path} is absent: name it in DATABASE_URL or [ledger] database");
    }
    let mut db = Db::open(url, wait).await?;
    for _ in 0..QUIET_TRIES_MAX {
        let before = db.cursors().await?;
        let mut tables = BTreeMap::new();
        for table in TABLES {
            tables.insert(table.name, db.rows(table).await?);
        }
        if db.cursors().await? == before {
            db.close().await?;
            return Ok((before, tables));
        }
    }
    bail!("the ledger writes without a pause: stop it while it is audited")
}
