//! Backtests straight from JetStream, by the program and in the library: what is stored plays as the file does.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use backtest::fact::Typed;
use backtest::source::{TradesFile, trades_tape};
use backtest::{Report, Setup, Tape, play};
use cli::stream_tape::{Range, StreamTape};
use nats::{Bus, Layout, Writer};
use schemas::Fact;
use schemas::subject::{PARTITIONS, stream};
use serde_json::Value;
use tests::Server;

const VENUES: [&str; 2] = ["binance", "binance-usdm"];

/// Two recorded quarters of an hour of the same time: a coin and its perpetual.
fn recordings() -> Option<Vec<TradesFile>> {
    let root = schemas::fixtures::root()?;
    let file = |name: &str| TradesFile::of(&root.join(format!("data/ticks/{name}.trades.csv.gz")));
    Some(["binance_spot_BTCUSDT_2024-08-08T2354", "binance_usdm_BTCUSDT_2024-08-08T2354"].map(file).to_vec())
}

fn setup() -> anyhow::Result<Setup> {
    let mut setup = Setup::of(None)?.with_strategy(&"ema_cross_2_5".parse()?, "5s".parse()?)?;
    setup.executor.fill.model = "next_trade".to_owned();
    Ok(setup)
}

fn tape(files: &[TradesFile], setup: &Setup) -> anyhow::Result<impl Tape + use<>> {
    trades_tape(files, setup.timeframe_min(), |venue| setup.aggregate.grace_ns(venue))
}

/// Stores what a file's tape holds, at the same positions, instruments included.
async fn store(server: &Server, files: &[TradesFile], setup: &Setup) -> anyhow::Result<Bus> {
    let bus = server.bus("operator").await?;
    let layout = Layout {
        venues: VENUES.map(str::to_owned).to_vec(),
        accounts: vec!["main".into()],
        traders: vec![],
        partitions: PARTITIONS,
    };
    layout.apply(&bus).await?;
    let mut tape = tape(files, setup)?;
    for instrument in tape.instruments()? {
        let key = stream::instrument_key(&instrument.venue, &instrument.symbol);
        nats::kv::put(&bus, stream::KV_INSTRUMENTS, &key, instrument.encode().into()).await?;
    }
    let mut writers = Vec::new();
    for venue in VENUES {
        writers.push((stream::raw(venue), Writer::open(&bus, &stream::raw(venue)).await?));
    }
    while let Some(entry) = tape.next()? {
        let Typed::Raw(raw) = &entry.fact else { continue };
        let writer = writers.iter_mut().find(|(name, _)| **name == *entry.place.stream).context("a writer")?;
        let seq = writer.1.push(raw.subject(), raw.encode()).await?;
        ensure!(seq == entry.place.seq, "{} at {seq}, not {}", entry.place.stream, entry.place.seq);
    }
    for (_, writer) in &mut writers {
        writer.drain().await?;
    }
    Ok(bus)
}

fn played(setup: &Setup, mut tape: impl Tape) -> anyhow::Result<Report> {
    play(setup, &mut tape, |_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_stream_says_what_the_file_says_byte_for_byte() -> anyhow::Result<()> {
    let Some(files) = recordings() else { return Ok(()) };
    let (setup, file) = (setup()?, &files[1..]);
    let server = Server::start().await?;
    let bus = store(&server, file, &setup).await?;
    let streams = [stream::raw("binance-usdm")];
    let stored = StreamTape::open(&bus, &streams, Range::ALL, false).await?;
    let from_file = played(&setup, tape(file, &setup)?)?;
    let from_stream = tokio::task::spawn_blocking({
        let setup = setup.clone();
        move || played(&setup, stored)
    })
    .await??;
    assert!(from_file.kinds["fill"] > 4, "{:?} {:?}", from_file.kinds, from_file.refusals);
    assert_eq!(from_stream.hash, from_file.hash);
    assert_eq!(from_stream.trips, from_file.trips);
    assert_eq!(from_stream.equity, from_file.equity);

    // A range that ends earlier is the beginning of the same run.
    let half = bus.stream(&streams[0]).await?.last_seq / 2;
    let range = Range { from_seq: 1, to_seq: Some(half) };
    let part = StreamTape::open(&bus, &streams, range, false).await?;
    let part = tokio::task::spawn_blocking(move || played(&setup, part)).await??;
    assert!(!part.trips.is_empty() && part.trips.len() < from_file.trips.len());
    assert_eq!(part.trips, from_file.trips[..part.trips.len()]);
    Ok(())
}

/// A program that cargo built beside this test.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("target folder")?.join(name);
    ensure!(path.is_file(), "{} is absent: cargo build --workspace --bins", path.display());
    Ok(path)
}

fn tapeline(server: Option<&Server>, args: &[&str]) -> anyhow::Result<(Option<i32>, Value, String)> {
    let mut command = Command::new(program("tapeline")?);
    command.arg("--json").arg("backtest").args(args).env_remove("TAPELINE_DATA").env_remove("NATS_PASSWORD");
    if let Some(server) = server {
        command.env("NATS_URL", server.url());
    }
    let out = command.output().context("run tapeline backtest")?;
    let json = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    Ok((out.status.code(), json, String::from_utf8_lossy(&out.stderr).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_the_program_over_two_stored_venues_write_identical_files() -> anyhow::Result<()> {
    let Some(files) = recordings() else { return Ok(()) };
    let server = Server::start().await?;
    store(&server, &files, &setup()?).await?;
    let mut written: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut hashes = Vec::new();
    for run in ["one", "two"] {
        let out = server.dir().join(run);
        let out_text = out.display().to_string();
        let args = [
            "--from-stream",
            "RAW_BINANCE",
            "--from-stream",
            "RAW_BINANCE-USDM",
            "--strategy",
            "ema_cross_2_5",
            "--timeframe",
            "5s",
            "--fill-model",
            "next-trade",
            "--out",
            &out_text,
        ];
        let (code, json, errors) = tapeline(Some(&server), &args)?;
        assert_eq!(code, Some(0), "{errors}");
        assert!(json["kinds"]["fill"].as_u64() > Some(4), "{json}");
        hashes.push(json["hash"].as_str().unwrap_or_default().to_owned());
        written.push(
            ["trades.csv", "equity.csv", "stats.json"].map(|name| std::fs::read(out.join(name)).unwrap()).to_vec(),
        );
    }
    assert_eq!((hashes[0].len(), &hashes[0]), (64, &hashes[1]));
    assert_eq!(written[0], written[1]);

    let gone = ["--from-stream", "RAW_BINANCE", "--seq", "900000..900001", "--strategy", "ema_cross", "--out", "x"];
    let (code, _, errors) = tapeline(Some(&server), &gone)?;
    assert_eq!(code, Some(1));
    assert!(errors.contains("holds nothing from 900000"), "{errors}");
    Ok(())
}

#[test]
fn the_program_clears_a_registered_strategy_of_looking_ahead() -> anyhow::Result<()> {
    let Some(files) = recordings() else { return Ok(()) };
    let path = files[1].path.display().to_string();
    let args = ["--trades", &path, "--strategy", "ema_cross_2_5", "--timeframe", "5s", "--check-lookahead"];
    let (code, json, errors) = tapeline(None, &args)?;
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!((&json["clean"], &json["converges"]), (&Value::Bool(true), &Value::Bool(true)), "{json}");
    assert!(json["verdict"]["groups"]["ema_cross"]["compared"].as_u64() > Some(100), "{json}");
    Ok(())
}

#[test]
fn the_program_says_what_it_needs() -> anyhow::Result<()> {
    for (args, code, part) in [
        (&["--strategy", "ema_cross", "--out", "x"][..], 1, "name a source"),
        (&["--trades", "a.csv", "--tape", "b.parquet", "--out", "x"], 2, "cannot be used with"),
        (&["--trades", "a.csv", "--seq", "1..2", "--out", "x"], 2, "cannot be used with"),
        (&["--seq", "1..2", "--out", "x"], 2, "--from-stream"),
        (&["--trades", "a.csv", "--from", "soon", "--out", "x"], 2, "2024-08-08"),
        (&["--tape", "/nowhere/b.parquet", "--out", "x"], 1, "/nowhere/b.parquet"),
    ] {
        let (found, _, errors) = tapeline(None, args)?;
        assert_eq!(found, Some(code), "{args:?}: {errors}");
        assert!(errors.contains(part), "{args:?}: {errors}");
    }
    Ok(())
}
