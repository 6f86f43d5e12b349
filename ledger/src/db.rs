//! The database: one connection, one writer. Rows and cursors move in one transaction.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Postgres, Row, Sqlite};

use crate::config::{Address, address, redacted};
use crate::row::Value;
use crate::schema::{Kind, TABLES, Table};
use crate::sql::{Dialect, Statement, select_all};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("database {url}: {why}")]
    Address { url: String, why: String },
    #[error("{what} in {url}")]
    Sql { what: &'static str, url: String, source: sqlx::Error },
    #[error("migrate {url}")]
    Migrate { url: String, source: MigrateError },
    #[error("{url} does not answer within {waited_ms} ms")]
    Slow { url: String, waited_ms: u128 },
    #[error("fenced: another ledger moved the cursor of {stream}; stop one of the two")]
    Fenced { stream: String },
}

/// How far a stream was folded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    pub seq: u64,
    /// What its fold remembers; `None` before it has anything to.
    pub state: Option<Vec<u8>>,
}

/// One stream's step within a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub stream: String,
    /// Where the cursor must stand; `None`: there must be none.
    pub from: Option<u64>,
    pub to: u64,
    /// `None`: unchanged.
    pub state: Option<Vec<u8>>,
}

/// Boxed: the compiler cannot show for every lifetime that sqlx's futures may change threads, for one it can.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbError>> + Send + 'a>>;

enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// An open database with the tables of this version.
pub struct Db {
    conn: Conn,
    /// Without its password.
    url: String,
    wait: Duration,
}

impl Db {
    /// Connects, creates an SQLite file that is absent, and brings the tables up to date. `wait` bounds every
    /// answer.
    pub fn open(url: &str, wait: Duration) -> Work<'_, Self> {
        let slow = DbError::Slow { url: redacted(url), waited_ms: wait.as_millis() };
        Box::pin(async move { tokio::time::timeout(wait, Self::connect(url, wait)).await.unwrap_or(Err(slow)) })
    }

    async fn connect(url: &str, wait: Duration) -> Result<Self, DbError> {
        let shown = redacted(url);
        let wrong = |why: String| DbError::Address { url: shown.clone(), why };
        let sql = |source| DbError::Sql { what: "connect", url: shown.clone(), source };
        let mut conn = match address(url).map_err(wrong)? {
            Address::Sqlite => Conn::Sqlite(sqlite(url, wait).await.map_err(sql)?),
            Address::Postgres => {
                let options = PgConnectOptions::from_str(url).map_err(sql)?;
                // Its notices ("exists already, skipping") are no news.
                let options = options.application_name("tapeline-ledger").options([("client_min_messages", "warning")]);
                Conn::Postgres(options.connect().await.map_err(sql)?)
            }
        };
        let migrated = match &mut conn {
            Conn::Sqlite(conn) => SQLITE.run_direct(None, conn, false).await,
            Conn::Postgres(conn) => POSTGRES.run_direct(None, conn, false).await,
        };
        migrated.map_err(|source| DbError::Migrate { url: shown.clone(), source })?;
        Ok(Self { conn, url: shown, wait })
    }

    pub fn dialect(&self) -> Dialect {
        match self.conn {
            Conn::Sqlite(_) => Dialect::Sqlite,
            Conn::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The address without its password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All cursors, by stream.
    pub async fn cursors(&mut self) -> Result<BTreeMap<String, Cursor>, DbError> {
        const SELECT: &str = "SELECT stream, seq, state FROM cursors";
        let found: Result<Vec<(String, i64, Option<Vec<u8>>)>, sqlx::Error> = match &mut self.conn {
            Conn::Sqlite(conn) => sqlx::query_as(SELECT).fetch_all(conn).await,
            Conn::Postgres(conn) => sqlx::query_as(SELECT).fetch_all(conn).await,
        };
        let rows = found.map_err(|source| self.sql("read cursors", source))?;
        Ok(rows.into_iter().map(|(stream, seq, state)| (stream, Cursor { seq: seq as u64, state })).collect())
    }

    /// True when no fact was ever written.
    pub async fn is_empty(&mut self) -> Result<bool, DbError> {
        for table in TABLES {
            if !self.rows(table).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(self.cursors().await?.is_empty())
    }

    /// Every row of a table as texts, in the order of its key; for tests and comparisons, not for large tables.
    pub async fn rows(&mut self, table: &Table) -> Result<Vec<Vec<Option<String>>>, DbError> {
        let select = AssertSqlSafe(select_all(table));
        let columns = 0..table.columns.len();
        let read: Result<Vec<Vec<Option<String>>>, sqlx::Error> = match &mut self.conn {
            Conn::Sqlite(conn) => match sqlx::query(select).fetch_all(conn).await {
                Ok(rows) => rows.iter().map(|row| columns.clone().map(|i| row.try_get(i)).collect()).collect(),
                Err(source) => Err(source),
            },
            Conn::Postgres(conn) => match sqlx::query(select).fetch_all(conn).await {
                Ok(rows) => rows.iter().map(|row| columns.clone().map(|i| row.try_get(i)).collect()).collect(),
                Err(source) => Err(source),
            },
        };
        read.map_err(|source| self.sql("read rows", source))
    }

    /// Applies statements and moves cursors, all or nothing. Behind an error the connection is not to be used: open
    /// another and look where the cursors stand.
    pub fn apply<'a>(&'a mut self, statements: &'a [Statement], moves: &'a [Move]) -> Work<'a, ()> {
        Box::pin(async move {
            let slow = DbError::Slow { url: self.url.clone(), waited_ms: self.wait.as_millis() };
            tokio::time::timeout(self.wait, self.apply_now(statements, moves)).await.unwrap_or(Err(slow))
        })
    }

    async fn apply_now(&mut self, statements: &[Statement], moves: &[Move]) -> Result<(), DbError> {
        // Immediate: another writer of the same file is met here, not in the middle.
        let begin = if self.dialect() == Dialect::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.execute("begin", &plain(begin)).await?;
        for statement in statements {
            self.execute("write rows", statement).await?;
        }
        for step in moves {
            if self.step(step).await? != 1 {
                self.execute("roll back", &plain("ROLLBACK")).await?;
                return Err(DbError::Fenced { stream: step.stream.clone() });
            }
        }
        self.execute("commit", &plain("COMMIT")).await?;
        Ok(())
    }

    /// Rows affected.
    fn execute<'a>(&'a mut self, what: &'static str, statement: &'a Statement) -> Work<'a, u64> {
        Box::pin(async move {
            let done = match &mut self.conn {
                Conn::Sqlite(conn) => sqlite_query(statement).execute(conn).await.map(|done| done.rows_affected()),
                Conn::Postgres(conn) => postgres_query(statement).execute(conn).await.map(|done| done.rows_affected()),
            };
            done.map_err(|source| self.sql(what, source))
        })
    }

    /// 1 when the cursor stood where it had to.
    fn step<'a>(&'a mut self, step: &'a Move) -> Work<'a, u64> {
        const FIRST: &str =
            "INSERT INTO cursors (stream, seq, state) VALUES ($1, $2, $3) ON CONFLICT (stream) DO NOTHING";
        const NEXT: &str = "UPDATE cursors SET seq = $2, state = COALESCE($3, state) WHERE stream = $1 AND seq = $4";
        Box::pin(async move {
            let text = if step.from.is_some() { NEXT } else { FIRST };
            let (to, from) = (step.to as i64, step.from.map(|seq| seq as i64));
            let done = match &mut self.conn {
                Conn::Sqlite(conn) => {
                    let query = sqlx::query(text).bind(&step.stream).bind(to).bind(&step.state);
                    let query = if from.is_some() { query.bind(from) } else { query };
                    query.execute(conn).await.map(|done| done.rows_affected())
                }
                Conn::Postgres(conn) => {
                    let query = sqlx::query(text).bind(&step.stream).bind(to).bind(&step.state);
                    let query = if from.is_some() { query.bind(from) } else { query };
                    query.execute(conn).await.map(|done| done.rows_affected())
                }
            };
            done.map_err(|source| self.sql("move cursor", source))
        })
    }

    /// Says goodbye to the server; SQLite folds its log into the file.
    pub async fn close(self) -> Result<(), DbError> {
        let url = self.url;
        let closed = match self.conn {
            Conn::Sqlite(conn) => conn.close().await,
            Conn::Postgres(conn) => conn.close().await,
        };
        closed.map_err(|source| DbError::Sql { what: "close", url, source })
    }

    fn sql(&self, what: &'static str, source: sqlx::Error) -> DbError {
        DbError::Sql { what, url: self.url.clone(), source }
    }
}

async fn sqlite(url: &str, wait: Duration) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        // Readers do not wait for us. A power cut may lose the last transactions, cursor included; they are folded again.
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(wait);
    options.connect().await
}

fn plain(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), values: Vec::new(), rows: 1 }
}

fn sqlite_query(statement: &Statement) -> Query<'_, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(statement.sql.clone())).persistent(statement.rows == 1);
    for (kind, value) in &statement.values {
        query = match (value, kind) {
            (Value::Text(text) | Value::Json(text), _) => query.bind(text.as_str()),
            (Value::Int(n), _) => query.bind(n),
            (Value::Decimal(d), _) => query.bind(d.to_string()),
            (Value::Bool(b), _) => query.bind(b),
            (Value::Null, Kind::Int) => query.bind(None::<i64>),
            (Value::Null, Kind::Bool) => query.bind(None::<bool>),
            (Value::Null, Kind::Text | Kind::Decimal | Kind::Json) => query.bind(None::<&str>),
        };
    }
    query
}

fn postgres_query(statement: &Statement) -> Query<'_, Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(statement.sql.clone())).persistent(statement.rows == 1);
    for (kind, value) in &statement.values {
        query = match (value, kind) {
            (Value::Text(text) | Value::Json(text), _) => query.bind(text.as_str()),
            (Value::Int(n), _) => query.bind(n),
            (Value::Decimal(d), _) => query.bind(d.to_string()),
            (Value::Bool(b), _) => query.bind(b),
            (Value::Null, Kind::Int) => query.bind(None::<i64>),
            (Value::Null, Kind::Bool) => query.bind(None::<bool>),
            (Value::Null, Kind::Text | Kind::Decimal | Kind::Json) => query.bind(None::<&str>),
        };
    }
    query
}

#[cfg(test)]
mod tests;
