//! Export to Parquet and back: a second server ends up with the same bytes at the same sequences.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aggregate::core::AggregateCore;
use anyhow::{Context, ensure};
use cli::export::table::{Message, Table};
use cli::export::value::Value;
use cli::export::{MANIFEST, parquet};
use nats::{Bus, Layout, Writer};
use proptest::prelude::*;
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{Core, Listen, Place, Speak};
use strategy::StrategyCore;
use tests::{Server, stored};

#[path = "../../ledger/src/sample.rs"]
#[allow(dead_code)]
mod sample;

const STEP_BOUND: Duration = Duration::from_secs(120);

fn program() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join("tapeline");
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

/// Runs `tapeline --json` against a server; its document, or what it said on stderr.
async fn tapeline(server: &Server, args: &[&str]) -> anyhow::Result<Result<serde_json::Value, String>> {
    let mut command = tokio::process::Command::from(Command::new(program()?));
    let run =
        command.arg("--json").args(args).env("NATS_URL", server.url()).env_remove("TAPELINE_DATA").kill_on_drop(true);
    let out = tokio::time::timeout(STEP_BOUND, run.output()).await.with_context(|| format!("{args:?}"))??;
    if !out.status.success() {
        return Ok(Err(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    Ok(Ok(serde_json::from_slice(&out.stdout).with_context(|| format!("{args:?}"))?))
}

async fn done(server: &Server, args: &[&str]) -> anyhow::Result<serde_json::Value> {
    tapeline(server, args).await?.map_err(|error| anyhow::anyhow!("{args:?}: {error}"))
}

async fn refused(server: &Server, args: &[&str]) -> anyhow::Result<String> {
    match tapeline(server, args).await? {
        Ok(said) => anyhow::bail!("{args:?} was not refused: {said}"),
        Err(error) => Ok(error),
    }
}

/// What `core` says of the stored input goes into `output`, as its task would write it.
async fn fold<C: Core>(bus: &Bus, mut core: C, input: &str, filter: &str, output: &str) -> anyhow::Result<u64> {
    let mut writer = Writer::open(bus, output).await?;
    let mut out = Vec::new();
    for (seq, subject, payload) in stored(bus, input).await? {
        if !subject.starts_with(filter) {
            continue;
        }
        let Some(fact) = C::In::hear(&subject, &payload)? else { continue };
        core.handle(&Place::new(input, seq), fact, &mut out)?;
        for fact in out.drain(..).filter(Speak::stored) {
            writer.push(fact.subject(), fact.payload()).await?;
        }
    }
    writer.drain().await?;
    Ok(writer.last_seq())
}

/// A server with streams of every stage: a recorded session as RAW, what follows from it, and a made-up day of a desk.
async fn recorded(recording: &Path) -> anyhow::Result<(Server, Vec<String>)> {
    let server = Server::start().await?;
    let bus = server.bus("operator").await?;
    let (venues, accounts, traders) = (vec!["binance".into()], vec!["main".into()], vec!["owl".into()]);
    Layout { venues, accounts, traders, partitions: PARTITIONS }.apply(&bus).await?;
    let file = recording.to_str().context("a path in UTF-8")?;
    done(&server, &["import", "--venue", "binance", "--form", "recording", "--flush-open", file]).await?;
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let (raw, agg, sig) = (stream::raw("binance"), stream::aggregate("binance", p), stream::signal("binance", p));
    let candles =
        fold(&bus, AggregateCore::new(&aggregate::config::Config::load(None)?)?, &raw, &format!("raw.{p}."), &agg)
            .await?;
    let rule: toml::Table = "timeframe = \"1s\"\nparams = { fast = 2, slow = 5 }".parse()?;
    let rules = strategy::Config::only("ema_cross", rule)?;
    let signals = fold(&bus, StrategyCore::new(&rules)?, &agg, "candle.", &sig).await?;
    ensure!(candles > 100 && signals > 10, "{candles} candles and indicators, {signals} signals");
    for fact in sample::merged(&sample::day(11), &[]) {
        let ack = bus.js().publish(fact.subject.clone(), fact.payload.into()).await?.await?;
        ensure!(ack.stream == fact.stream, "{} went to {ack:?}", fact.subject);
    }
    let mut streams = vec![raw, agg, sig];
    let others = ["RISK_main", "EXEC_main", "LLMP_owl", "LLMR_owl", "SIG_LLM_owl"];
    streams.extend(others.map(str::to_owned));
    Ok((server, streams))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stages_stream_is_byte_identical_on_the_server_that_imported_its_export() -> anyhow::Result<()> {
    let Some(root) = schemas::fixtures::root() else { return Ok(()) };
    let (first, streams) = recorded(&root.join("data/ws_raw/binance_spot_BTCUSDT_part1.gz")).await?;
    let bus = first.bus("operator").await?;
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("archive");
    let out = out.to_str().context("a path in UTF-8")?;
    let names: Vec<&str> = streams.iter().map(String::as_str).collect();
    let exported = done(&first, &[&["export", "--out", out], names.as_slice()].concat()).await?;
    for e in exported["streams"].as_array().context("streams")? {
        assert_eq!(e["kept"], 0, "columns say every byte of {}", e["stream"]);
    }

    // A server that has never heard of these streams.
    let second = Server::start().await?;
    let copy = second.bus("operator").await?;
    let imported = done(&second, &["import", "--form", "tables", out]).await?;
    let mut bytes = 0;
    for name in &streams {
        let (there, here) = (stored(&bus, name).await?, stored(&copy, name).await?);
        assert!(!there.is_empty(), "{name} is empty");
        assert!(there == here, "{name} differs");
        bytes += here.iter().map(|m| m.2.len()).sum::<usize>();
        let of = |list: &serde_json::Value, key: &str| {
            let one = list["streams"].as_array().and_then(|l| l.iter().find(|s| s["stream"] == **name).cloned());
            one.map(|one| one[key].clone())
        };
        for key in ["rows", "messages", "sha256", "first_seq", "last_seq"] {
            assert_eq!(of(&exported, key), of(&imported, key), "{name} {key}");
        }
        assert_eq!(of(&imported, "messages"), Some(serde_json::json!(there.len())), "{name}");
        eprintln!("{name}: {} messages, {} rows", there.len(), of(&imported, "rows").unwrap_or_default());
    }
    eprintln!("{} streams, {bytes} payload bytes identical", streams.len());

    // Again: everything is there, nothing is stored.
    let again = done(&second, &["import", "--form", "tables", out]).await?;
    assert!(again["streams"].as_array().context("streams")?.iter().all(|s| s["stored"] == 0), "{again}");
    // The second server's own facts would be at other positions: a stream that holds other bytes is not touched.
    let third = Server::start().await?;
    let other = third.bus("operator").await?;
    let (venues, accounts) = (vec!["binance".into()], vec!["main".into()]);
    Layout { venues, accounts, traders: vec![], partitions: PARTITIONS }.apply(&other).await?;
    other.js().publish("order.main.binance.X", "other bytes".into()).await?.await?;
    let error = refused(&third, &["import", "--form", "tables", &format!("{out}/RISK_main")]).await?;
    assert!(error.contains("fenced"), "{error}");
    assert_eq!(other.stream("RISK_main").await?.last_seq, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_fact_and_a_beginning_that_expired_survive_an_export() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let bus = server.bus("operator").await?;
    let (venues, accounts) = (vec!["binance".into()], vec![]);
    Layout { venues, accounts, traders: vec![], partitions: 1 }.apply(&bus).await?;
    for i in 0..10u8 {
        // Not MessagePack, another field order, a float of 32 bits, a field named like a column of ours.
        let odd: [&[u8]; 5] = [
            b"",
            b"\xff\x00garbage",
            b"\x82\xa1b\x01\xa1a\x02",
            b"\x81\xa1a\xca\x3f\x80\x00\x00",
            b"\x82\xa4_seq\x01\xa3a/b\xc0",
        ];
        bus.js()
            .publish("candle.0.binance.1s.X", [odd[i as usize % 5], &[i; 2][..(i % 2) as usize]].concat().into())
            .await?
            .await?;
    }
    bus.js().get_stream("AGG_BINANCE_0").await?.purge().sequence(4).await?;
    let dir = tempfile::tempdir()?;
    let out = dir.path().to_str().context("a path in UTF-8")?;
    let exported = done(&server, &["export", "AGG_BINANCE_0", "--out", out]).await?;
    assert_eq!((&exported["streams"][0]["first_seq"], &exported["streams"][0]["messages"]), (&4.into(), &7.into()));

    let second = Server::start().await?;
    let copy = second.bus("operator").await?;
    done(&second, &["import", "--form", "tables", out]).await?;
    let (there, here) = (stored(&bus, "AGG_BINANCE_0").await?, stored(&copy, "AGG_BINANCE_0").await?);
    assert_eq!(there, here);
    assert_eq!(here[0].0, 4);

    // A file that was changed is found before anything is stored.
    let folder = dir.path().join("AGG_BINANCE_0");
    let manifest = std::fs::read_to_string(folder.join(MANIFEST))?;
    let name = manifest.lines().find_map(|l| l.split("\"path\": \"").nth(1)).context("a file")?;
    let file = folder.join(name.trim_end_matches(['"', ',']));
    let mut bytes = std::fs::read(&file)?;
    // The column's statistics repeat it: all of them.
    let places: Vec<usize> = (0..bytes.len() - 7).filter(|i| bytes[*i..].starts_with(b"garbage")).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&file, bytes)?;
    let third = Server::start().await?;
    let error = refused(&third, &["import", "--form", "tables", out]).await?;
    assert!(error.contains("was changed since its export"), "{error}");
    assert!(third.bus("operator").await?.stream("AGG_BINANCE_0").await.is_err(), "nothing was made");
    // Over an export that is there, nothing is written.
    let error = refused(&server, &["export", "AGG_BINANCE_0", "--out", out]).await?;
    assert!(error.contains("is there already"), "{error}");
    let error = refused(&server, &["export", "KV_cfg", "--out", out]).await?;
    assert!(error.contains("nats stream backup"), "{error}");
    Ok(())
}

#[test]
fn a_pack_of_trades_has_a_row_a_trade_with_mantissas_and_scales() {
    use schemas::raw::{Trade, Trades};
    use schemas::{Fact, Nanos, PriceM, QtyM, Scale, Side};
    let mut pack = Trades::new(3, "binance", "BTCUSDT", Scale { price: 2, qty: 5 });
    for i in 0..3 {
        let side = if i == 1 { Side::Sell } else { Side::Buy };
        let (ts, recv) = (Nanos(i64::MIN + i), Nanos(i));
        pack.push(Trade { ts, recv, id: u64::MAX - i as u64, price: PriceM(6_000_010 + i), size: QtyM(150), side });
    }
    let message = Message { seq: 7, subject: pack.subject(), stored_ns: 5, payload: pack.encode() };
    let table = Table::of("trade", vec![message.clone()]);
    assert_eq!((table.rows_total(), table.kept()), (3, 0));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    parquet::write(&path, "RAW_BINANCE", "trade", &table).unwrap();
    let read = parquet::read(&path).unwrap();
    assert_eq!(read, table);
    let names: Vec<(&str, bool)> = read.columns.iter().map(|c| (c.field.name.as_str(), c.field.tick)).collect();
    assert!(names.contains(&("price", true)) && names.contains(&("scale/price", false)), "{names:?}");
    assert_eq!(read.messages().unwrap(), [message]);
}

/// Values of any shape, as deep as three lists.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::Float),
        "[ -~é]{0,6}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::vec(("[a-d_/]{1,2}", inner), 0..4).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_messages_of_any_kind_are_the_same_behind_columns_and_files(
        payloads in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                prop::collection::vec(("[a-d]|ts_ns|side|items", value()), 0..5).prop_map(|map| Value::Map(map).write().unwrap()),
            ],
            1..12,
        ),
        kind in prop_oneof![Just("trade"), Just("book"), Just("candle")],
    ) {
        let messages: Vec<Message> = payloads
            .into_iter()
            .enumerate()
            .map(|(i, payload)| Message { seq: 3 + i as u64 * 2, subject: format!("s.{i}"), stored_ns: -(i as i64), payload })
            .collect();
        let table = Table::of(kind, messages.clone());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        parquet::write(&path, "S", kind, &table).unwrap();
        prop_assert_eq!(parquet::read(&path).unwrap().messages().unwrap(), messages);
    }
}
