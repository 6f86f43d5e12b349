//! All stages as separate programs over a real nats-server with rights, fed by a recorded session of eleven minutes:
//! the candles are the golden ones, and every stream ends byte for byte the same though each program is killed once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::Bus;
use schemas::market::Candle;
use schemas::subject::{PARTITIONS, partition, stream};
use schemas::{Decimal, Fact};
use tests::arena::Arena;
use tests::fleet::STAGES;
use tests::session::{Reference, Session};
use tests::{stored, wait_for};

use crate::fold::{assert_same, fold};

const STEP_BOUND: Duration = Duration::from_secs(60);

/// What risk and executor said equals the fold of the desk as it was recorded, done here without bus and processes.
async fn assert_desk_is_its_own_fold(bus: &Bus, config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(config)?;
    let user = schemas::config::UserFile { name: "tapeline.toml".into(), text };
    let desk = stored(bus, &stream::desk("main")).await?;
    let mut core = risk::RiskCore::new("main", &risk::Config::load(Some(&user))?)?;
    assert_same(
        "RISK_main",
        &fold(&mut core, &stream::desk("main"), &desk),
        &stored(bus, &stream::risk("main")).await?,
    );
    let mut core = executor::core::ExecutorCore::new("main", &executor::config::Config::load(Some(&user))?);
    assert_same(
        "EXEC_main",
        &fold(&mut core, &stream::desk("main"), &desk),
        &stored(bus, &stream::exec("main")).await?,
    );
    Ok(())
}

/// Every golden candle of the recording, read back from JetStream.
async fn assert_candles_are_golden(bus: &Bus) -> anyhow::Result<usize> {
    let root =
        schemas::fixtures::root().context("fixtures")?.join("goldens/candles/binance_spot_BTCUSDT_2024-08-08T2354");
    let p = partition("binance", "BTCUSDT", PARTITIONS);
    let mut found: BTreeMap<String, Vec<Candle>> = BTreeMap::new();
    for (_, subject, payload) in stored(bus, &stream::aggregate("binance", p)).await? {
        if subject.starts_with("candle.") {
            let candle = Candle::decode(&payload)?;
            found.entry(candle.tf.clone()).or_default().push(candle);
        }
    }
    let mut compared = 0;
    for tf in schemas::Timeframe::DEFAULT {
        let file = std::fs::File::open(root.join(format!("{tf}.sparse.csv.gz")))?;
        let mut rows = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
        let names = rows.headers()?.clone();
        let golden: Vec<BTreeMap<String, String>> = rows
            .records()
            .map(|r| Ok(names.iter().map(str::to_owned).zip(r?.iter().map(str::to_owned)).collect()))
            .collect::<anyhow::Result<_>>()?;
        let candles = found.get(tf).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(candles.len(), golden.len(), "{tf}: number of candles");
        for (c, g) in candles.iter().zip(&golden) {
            let exact = |name: &str| g[name].parse::<Decimal>().expect("golden number");
            assert_eq!((c.open_ns / 1_000_000).to_string(), g["open_ts_ms"], "{tf}");
            for (name, value) in [
                ("open", c.open.get()),
                ("high", c.high.get()),
                ("low", c.low.get()),
                ("close", c.close.get()),
                ("volume", c.volume.get()),
                ("buy_volume", c.buy_volume.get()),
                ("quote_volume", c.quote_volume.get()),
            ] {
                assert_eq!(value, exact(name), "{tf} {} {name}", c.open_ns);
            }
            assert_eq!(
                (c.trades.to_string(), c.buy_trades.to_string()),
                (g["trades"].clone(), g["buy_trades"].clone()),
                "{tf}"
            );
            compared += 1;
        }
    }
    Ok(compared)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_ends_the_same_whatever_is_killed_meanwhile() -> anyhow::Result<()> {
    let Some(session) = Session::whole(PARTITIONS) else { return Ok(()) };
    let reference = Reference::record(session, 120.0).await?;
    let golden = assert_candles_are_golden(&reference.bus).await?;
    assert_desk_is_its_own_fold(&reference.bus, &reference.config).await?;
    let (raw, desk) = (reference.ends[&stream::raw("binance")], reference.ends[&stream::desk("main")]);
    eprintln!("undisturbed: {golden} golden candles equal, {raw} raw facts, {} fills", reference.fills());
    assert!(reference.fills() > 0, "the recorded session trades on paper");

    // Paced, so that every kill falls into the run; the desk comes as it was recorded.
    let mut arena = Arena::start(&reference, 1, 60.0, false).await?;
    let victims: Vec<&str> = STAGES.iter().copied().chain(["nats-server"]).collect();
    let mut reached = 0;
    for (victim, n) in victims.iter().zip(1..) {
        arena.desk_up_to(desk * n / (victims.len() as u64 + 1));
        let goal = reached + 150;
        reached =
            wait_for("more raw facts", STEP_BOUND, || async { arena.raw().await.ok().filter(|last| *last > goal) })
                .await
                .with_context(|| format!("before the end of {victim}\n{}", arena.fleet.logs()))?;
        match STAGES.iter().find(|stage| *stage == victim) {
            None => arena.servers.kill9(0)?,
            Some(stage) => {
                ensure!(arena.fleet.kill9(stage)?, "{stage} was not there");
                arena.fleet.spawn(stage)?;
            }
        }
        assert_eq!(arena.look_after()?, 0, "nobody took a task away from anybody");
    }
    assert!(reached < raw, "the last kill came before the end of the recording");
    arena.finish(&reference).await?;
    let verdict = arena.verify(&reference).await?;
    assert!(verdict.differences.is_empty(), "{}", verdict.differences.join("\n"));
    eprintln!(
        "disturbed: {} kills, {} streams and the ledger's tables are the same",
        victims.len(),
        verdict.streams.len()
    );
    Ok(())
}
