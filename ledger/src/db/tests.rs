use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::core::config_entry;
use crate::sample::{Stored, day, merged};
use crate::sql::statements;
use crate::writer::{WriteError, Writer};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn file() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("ledger.sqlite").display());
    (dir, url)
}

fn wait() -> Duration {
    Duration::from_secs(10)
}

/// Writes facts in transactions of `per` facts and gives every table.
async fn written(url: &str, facts: &[Stored], per: usize) -> Vec<Vec<Vec<Option<String>>>> {
    for part in facts.chunks(per) {
        // A new writer each time: what a restart finds is what the last transaction left.
        let mut writer = Writer::open(&Config::load(None).unwrap(), url).await.unwrap();
        for f in part {
            writer.hear(&f.stream, f.seq, &f.subject, &f.payload).unwrap();
        }
        writer.close().await.unwrap();
    }
    let mut db = Db::open(url, wait()).await.unwrap();
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(db.rows(table).await.unwrap());
    }
    tables
}

#[test]
fn the_migrations_make_the_tables_that_the_schema_describes() {
    let (_dir, url) = file();
    block_on(async {
        let mut db = Db::open(&url, wait()).await.unwrap();
        let Conn::Sqlite(conn) = &mut db.conn else { panic!("not SQLite") };
        for table in TABLES {
            let sql = format!("SELECT name, type, pk, hidden FROM pragma_table_xinfo('{}') ORDER BY cid", table.name);
            let rows: Vec<(String, String, i64, i64)> =
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *conn).await.unwrap();
            let kind = |kind: &Kind| match kind {
                Kind::Int | Kind::Bool => "INTEGER",
                Kind::Text | Kind::Decimal | Kind::Json => "TEXT",
            };
            let want: Vec<(String, String)> =
                table.columns.iter().map(|(name, k)| (name.to_string(), kind(k).to_owned())).collect();
            let found: Vec<(String, String)> =
                rows.iter().filter(|r| r.3 == 0).map(|r| (r.0.clone(), r.1.clone())).collect();
            assert_eq!(found, want, "{}", table.name);
            let mut key: Vec<(i64, &str)> = rows.iter().filter(|r| r.2 > 0).map(|r| (r.2, r.0.as_str())).collect();
            key.sort_unstable();
            assert_eq!(key.iter().map(|k| k.1).collect::<Vec<_>>(), table.key, "{}", table.name);
        }
    });
}

#[test]
fn a_second_ledger_is_fenced_and_writes_nothing() {
    let (_dir, url) = file();
    let change = || vec![config_entry("desk.main", b"{}", 1, 2)];
    let step = |from, to| Move { stream: "RISK_main".into(), from, to, state: None };
    block_on(async {
        let (mut one, mut two) = (Db::open(&url, wait()).await.unwrap(), Db::open(&url, wait()).await.unwrap());
        one.apply(&[], &[step(None, 5)]).await.unwrap();
        let late = statements(Dialect::Sqlite, change());
        for (from, to) in [(None, 3), (Some(4), 6)] {
            let fenced = two.apply(&late, &[step(from, to)]).await;
            assert!(matches!(fenced, Err(DbError::Fenced { .. })), "{fenced:?}");
        }
        assert!(one.rows(&crate::schema::SYSTEM_CONFIG).await.unwrap().is_empty());
        two.apply(&late, &[step(Some(5), 6)]).await.unwrap();
        assert_eq!(one.rows(&crate::schema::SYSTEM_CONFIG).await.unwrap().len(), 1);
        assert!(!one.is_empty().await.unwrap());
    });
}

#[test]
fn a_fact_that_is_none_stops_the_writer_with_its_place() {
    let (_dir, url) = file();
    block_on(async {
        let mut writer = Writer::open(&Config::load(None).unwrap(), &url).await.unwrap();
        let error = writer.hear("RISK_main", 9, "order.main.binance.BTCUSDT", b"?").unwrap_err();
        assert!(matches!(error, WriteError::Fact { .. }));
        assert_eq!(error.to_string(), "RISK_main:9 on order.main.binance.BTCUSDT");
        assert_eq!(writer.cursor("RISK_main"), None);
    });
}

#[test]
fn an_execution_status_follows_what_is_known_of_a_conversation() {
    let (_dir, url) = file();
    let facts = merged(&day(3), &[]);
    block_on(async {
        let tables = written(&url, &facts, usize::MAX).await;
        assert!(tables.iter().take(8).all(|rows| !rows.is_empty()));
        let mut db = Db::open(&url, wait()).await.unwrap();
        let Conn::Sqlite(conn) = &mut db.conn else { panic!("not SQLite") };
        let sql =
            "SELECT invocation, execution_status, verdict IS NULL, response FROM ai_conversations ORDER BY invocation";
        let rows: Vec<(i64, String, bool, Option<String>)> = sqlx::query_as(sql).fetch_all(conn).await.unwrap();
        for (n, (invocation, status, open, response)) in rows.iter().enumerate() {
            assert_eq!(*invocation, n as i64 + 1);
            assert_eq!(*open, status == "asked" || status == "replied");
            assert_eq!(response.is_some(), status != "asked");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn order_restarts_and_transactions_do_not_show_in_the_tables(
        seed in any::<u64>(), order in prop::collection::vec(any::<u8>(), 0..400), per in 1usize..80,
    ) {
        let streams = day(seed);
        let ((_a, straight), (_b, mixed)) = (file(), file());
        let (want, found) = block_on(async {
            let want = written(&straight, &merged(&streams, &[]), usize::MAX).await;
            (want, written(&mixed, &merged(&streams, &order), per.max(9)).await)
        });
        prop_assert_eq!(found, want);
    }
}
