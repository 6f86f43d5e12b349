//! The one writer: facts of many streams into transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::wire::WireError;

use crate::config::Config;
use crate::core::Fold;
use crate::db::{Cursor, Db, DbError, Move};
use crate::row::Change;
use crate::sql;

/// Between two tries of a failed transaction.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A fact cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{stream}:{seq} on {subject}")]
    Fact { stream: String, seq: u64, subject: String, source: WireError },
    #[error("state of {stream} beside its cursor")]
    State { stream: String, source: WireError },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Folds facts and writes them. Invariant L-2: rows and the cursors of the streams they come from move together, so
/// every fact is written once however often it is read.
pub struct Writer {
    config: Config,
    url: String,
    db: Db,
    folds: BTreeMap<String, Fold>,
    /// As stored.
    cursors: BTreeMap<String, u64>,
    changes: Vec<Change>,
    /// As heard, where that is beyond what is stored.
    heard: BTreeMap<String, u64>,
}

impl Writer {
    /// Opens the database at `url`.
    pub async fn open(config: &Config, url: &str) -> Result<Self, WriteError> {
        let mut db = Db::open(url, wait(config)).await?;
        let (mut folds, mut cursors) = (BTreeMap::new(), BTreeMap::new());
        for (stream, Cursor { seq, state }) in db.cursors().await? {
            let mut fold = Fold::new(&stream, &config.market_data_timeframes);
            if let Some(state) = state {
                fold.restore(&state).map_err(|source| WriteError::State { stream: stream.clone(), source })?;
            }
            folds.insert(stream.clone(), fold);
            cursors.insert(stream, seq);
        }
        Ok(Self {
            config: config.clone(),
            url: url.to_owned(),
            db,
            folds,
            cursors,
            changes: Vec::new(),
            heard: BTreeMap::new(),
        })
    }

    pub fn db(&mut self) -> &mut Db {
        &mut self.db
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Cursors as stored, by stream.
    pub fn cursors(&self) -> &BTreeMap<String, u64> {
        &self.cursors
    }

    /// The sequence behind which `stream` goes on; `None` when none of it was written.
    pub fn cursor(&self, stream: &str) -> Option<u64> {
        self.heard.get(stream).or_else(|| self.cursors.get(stream)).copied()
    }

    /// Changed rows that wait for [`Writer::commit`].
    pub fn waiting(&self) -> usize {
        self.changes.len()
    }

    /// Folds one fact; what is at or before the cursor is passed over. On an error nothing of the fact is kept.
    pub fn hear(&mut self, stream: &str, seq: u64, subject: &str, payload: &[u8]) -> Result<(), WriteError> {
        if self.cursor(stream).is_some_and(|cursor| seq <= cursor) {
            return Ok(());
        }
        if !self.folds.contains_key(stream) {
            self.folds.insert(stream.to_owned(), Fold::new(stream, &self.config.market_data_timeframes));
        }
        let fold = self.folds.get_mut(stream).expect("Invariant: inserted above");
        let fact = |source| WriteError::Fact { stream: stream.to_owned(), seq, subject: subject.to_owned(), source };
        fold.hear(seq, subject, payload, &mut self.changes).map_err(fact)?;
        self.skip(stream, seq);
        Ok(())
    }

    /// Passes over the fact at `seq`.
    pub fn skip(&mut self, stream: &str, seq: u64) {
        match self.heard.get_mut(stream) {
            Some(heard) => *heard = seq,
            None => {
                self.heard.insert(stream.to_owned(), seq);
            }
        }
    }

    /// A change that belongs to no stream's order.
    pub fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Writes all that waits in one transaction, again and again while the database is away, at most
    /// `write_tries_max` times. A connection lost in the middle of a commit is no doubt: the cursors tell.
    pub async fn commit(&mut self) -> Result<(), WriteError> {
        if self.changes.is_empty() && self.heard.is_empty() {
            return Ok(());
        }
        let statements = sql::statements(self.db.dialect(), std::mem::take(&mut self.changes));
        let moves: Vec<Move> = std::mem::take(&mut self.heard)
            .into_iter()
            .map(|(stream, to)| Move {
                from: self.cursors.get(&stream).copied(),
                to,
                state: self.folds.get_mut(&stream).and_then(Fold::take_state),
                stream,
            })
            .collect();
        let mut tried = 0;
        while let Err(error) = self.db.apply(&statements, &moves).await {
            tried += 1;
            if matches!(error, DbError::Fenced { .. }) || tried >= self.config.write_tries_max {
                return Err(error.into());
            }
            tracing::warn!(error = %chain(&error), tried, "transaction failed");
            tokio::time::sleep(RETRY_PAUSE).await;
            if let Some(done) = self.reopen(&moves).await?
                && done
            {
                break;
            }
        }
        for step in moves {
            self.cursors.insert(step.stream, step.to);
        }
        Ok(())
    }

    /// A new connection, and whether the transaction had happened after all; `None`: no connection yet.
    async fn reopen(&mut self, moves: &[Move]) -> Result<Option<bool>, WriteError> {
        let opened = match Db::open(&self.url, wait(&self.config)).await {
            Ok(mut db) => db.cursors().await.map(|cursors| (db, cursors)),
            Err(error) => Err(error),
        };
        match opened {
            Ok((db, cursors)) => {
                self.db = db;
                let there = |step: &Move| cursors.get(&step.stream).map(|c| c.seq);
                // Without a stream there is nothing to tell by, and such changes may be written twice.
                Ok(Some(!moves.is_empty() && moves.iter().all(|step| there(step) == Some(step.to))))
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "database is away");
                Ok(None)
            }
        }
    }

    /// Writes what waits and closes the database.
    pub async fn close(mut self) -> Result<(), WriteError> {
        self.commit().await?;
        Ok(self.db.close().await?)
    }
}

fn wait(config: &Config) -> Duration {
    Duration::from_millis(config.database_wait_ms_max)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
