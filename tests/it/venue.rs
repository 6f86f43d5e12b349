//! Venues by description alone: as processes over a real server, and the command that checks them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::Layout;
use schemas::Fact;
use schemas::market::Candle;
use schemas::raw::{Gap, Trades, VenueBars};
use schemas::subject::{self, partition, stream};
use serde_json::Value;
use tests::fleet::Fleet;
use tests::venue::Venues;
use tests::{Server, program, stored, wait_for};

const PARTITIONS: u32 = 4;
const BOUND: Duration = Duration::from_secs(90);

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/examples/venues").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_described_venue_publishes_ticks_and_aggregate_folds_them_to_candles() -> anyhow::Result<()> {
    const VENUE: &str = "my-binance";
    let server = Server::start_with_rights().await?;
    let bus = server.bus("operator").await?;
    let layout = Layout { venues: vec![VENUE.into()], accounts: vec![], traders: vec![], partitions: PARTITIONS };
    layout.apply(&bus).await?;
    let simulator = Venues::start(server.dir(), &["binance"], 7, 1).await?;
    let rest = simulator.rest("binance").context("no address")?;
    let config = server.dir().join("tapeline.toml");
    let text = format!(
        "[ingest.venues.binance]\nenabled = false\n\
         [ingest.venues.{VENUE}]\nenabled = true\ndescribe = {file:?}\nsymbols = [\"BTCUSDT\"]\n\
         channels = [\"trades\", \"quotes\", \"book\"]\nws_url = \"{ws}\"\nrest_url = \"{rest}\"\n\
         [aggregate]\nvenues = [\"{VENUE}\"]\nindicator_timeframes = [\"1s\"]\n",
        file = example("binance-spot.toml"),
        ws = rest.replace("http://", "ws://"),
    );
    std::fs::write(&config, text)?;
    let env = ["aggregate", "ingest"].map(|stage| (stage, server.env(stage))).into();
    let args = vec!["--partitions".to_owned(), PARTITIONS.to_string()];
    let mut fleet = Fleet::new(server.dir(), &config, args, env).of_a_live_feed();
    fleet.spawn("aggregate")?;
    fleet.spawn("ingest")?;
    let p = partition(VENUE, "BTCUSDT", PARTITIONS);
    let candles = wait_for("five candles of a second", BOUND, || async {
        let facts = stored(&bus, &stream::aggregate(VENUE, p)).await.ok()?;
        let candles = facts.iter().filter(|(_, subject, _)| subject.starts_with("candle.") && subject.contains(".1s."));
        let candles: Vec<Candle> = candles.filter_map(|(_, _, payload)| Candle::decode(payload).ok()).collect();
        (candles.len() >= 5).then_some(candles)
    })
    .await
    .with_context(|| fleet.logs())?;
    fleet.kill_all();

    let (mut trades, mut kinds) = (Vec::new(), std::collections::BTreeSet::new());
    for (_, subject, payload) in stored(&bus, &stream::raw(VENUE)).await? {
        let kind = subject.split('.').nth(3).unwrap_or("").to_owned();
        if kind == "trade" {
            let pack = Trades::decode(&payload)?;
            trades.extend(
                pack.iter().map(|t| (t.id, t.ts.0, t.price.price(pack.scale).get(), t.size.qty(pack.scale).get())),
            );
        }
        kinds.insert(kind);
    }
    for kind in ["trade", "quote", "book", "clock"] {
        ensure!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
    ensure!(!kinds.contains("dead"), "something was not understood");
    ensure!(trades.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "trade ids rise by one");
    // A whole candle is what the stored trades say of its second.
    let whole: Vec<&Candle> = candles.iter().filter(|c| c.complete && c.trades > 0).collect();
    ensure!(!whole.is_empty(), "no complete candle among {}", candles.len());
    for candle in whole {
        let end = candle.open_ns + 1_000_000_000;
        let mine: Vec<_> = trades.iter().filter(|t| (candle.open_ns..end).contains(&t.1)).collect();
        ensure!(mine.len() as u64 == candle.trades, "{} trades, the candle has {}", mine.len(), candle.trades);
        ensure!(mine.iter().map(|t| t.3).sum::<schemas::Decimal>() == candle.volume.get(), "another volume");
        ensure!(mine.last().is_some_and(|t| t.2 == candle.close.get()), "another close");
    }
    let instrument = nats::kv::get(&bus, stream::KV_INSTRUMENTS, &stream::instrument_key(VENUE, "BTCUSDT")).await?;
    ensure!(instrument.is_some(), "the description states the instrument");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_daily_candles_is_imported_by_its_description() -> anyhow::Result<()> {
    const VENUE: &str = "eod";
    let server = Server::start().await?;
    let bus = server.bus("operator").await?;
    let layout =
        Layout { venues: vec![VENUE.into()], accounts: vec![], traders: vec![], partitions: subject::PARTITIONS };
    layout.apply(&bus).await?;
    let mut results = Vec::new();
    for _ in 0..2 {
        let out = Command::new(program("tapeline")?)
            .args(["--json", "import", "--venue", VENUE, "--form", "files", "--describe", &example("daily-csv.toml")])
            .arg(example("daily.synthetic.csv"))
            .env("NATS_URL", server.url())
            .env_remove("TAPELINE_DATA")
            .output()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        results.push(serde_json::from_slice::<Value>(&out.stdout)?);
    }
    assert_eq!(results[1]["new"], 0, "a file is stored once");
    let (mut bars, mut gaps) = (0, Vec::new());
    for (_, subject, payload) in stored(&bus, &stream::raw(VENUE)).await? {
        match subject.split('.').nth(3) {
            Some("bar") => bars += VenueBars::decode(&payload)?.items.len(),
            Some("gap") => {
                let gap = Gap::decode(&payload)?;
                gaps.push((gap.symbol, gap.channel));
            }
            _ => {}
        }
    }
    assert_eq!((bars, gaps), (7, vec![("GOLD-X".to_owned(), "bar".to_owned())]));

    // What the file holds are candles for everything behind: aggregate says each of them.
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, format!("[aggregate]\nvenues = [\"{VENUE}\"]\n"))?;
    let env = [("aggregate", server.env("aggregate"))].into();
    let args = vec!["--partitions".to_owned(), subject::PARTITIONS.to_string()];
    let mut fleet = Fleet::new(server.dir(), &config, args, env);
    fleet.spawn("aggregate")?;
    let p = partition(VENUE, "GOLD-X", subject::PARTITIONS);
    let closes = wait_for("the candles of gold", BOUND, || async {
        let facts = stored(&bus, &stream::aggregate(VENUE, p)).await.ok()?;
        let candles = facts.iter().filter_map(|(_, subject, payload)| {
            subject.starts_with("candle.").then(|| Candle::decode(payload).ok()).flatten()
        });
        let closes: Vec<_> = candles.filter(|c| c.symbol == "GOLD-X").map(|c| (c.tf, c.close.to_string())).collect();
        (closes.len() >= 3).then_some(closes)
    })
    .await
    .with_context(|| fleet.logs())?;
    let day = |close: &str| ("1d".to_owned(), close.to_owned());
    assert_eq!(closes, [day("2005.5"), day("2018.5"), day("2012")]);
    Ok(())
}

/// `tapeline venue ...`: exit code, answer, and what it says of failure.
fn venue(args: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let out = Command::new(program("tapeline")?).arg("venue").args(args).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((out.status.code(), text(out.stdout), text(out.stderr)))
}

#[test]
fn the_check_of_a_description_tells_by_its_exit_what_it_found() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let kraken = example("kraken.toml");
    let (code, out, _) = venue(&["check", &kraken, "--sample", &example("kraken.synthetic.jsonl")])?;
    assert_eq!(code, Some(0), "{out}");
    ensure!(out.contains("12 lines, 0 of them not understood") && out.contains("BTCUSD"), "{out}");

    let sample = dir.path().join("sample");
    std::fs::write(&sample, "{\"channel\":\"heartbeat\"}\n{\"channel\":\"gossip\"}\n")?;
    let sample = sample.display().to_string();
    let (code, out, err) = venue(&["check", &kraken, "--sample", &sample, "--json"])?;
    let report: Value = serde_json::from_str(&out)?;
    assert_eq!(
        (code, report["wrong"].as_u64(), report["first_wrong"][0]["line"].as_u64()),
        (Some(1), Some(1), Some(2))
    );
    ensure!(err.contains("1 of 2 lines were not understood"), "{err}");

    let bad = dir.path().join("bad.toml");
    std::fs::write(
        &bad,
        std::fs::read_to_string(&kraken)?.replace("side = {", "sides = {").replace("depth = 100", "depth = 0"),
    )?;
    let (code, _, err) = venue(&["check", &bad.display().to_string()])?;
    assert_eq!(code, Some(64), "{err}");
    for says in [
        "book.depth: `0` stands there; allowed is a whole number in 1..=100000",
        "message[6].sides: is unknown here",
        "message[6].side: is absent",
    ] {
        ensure!(err.contains(says), "`{says}` is not in: {err}");
    }
    Ok(())
}

#[test]
fn the_list_of_venues_is_the_registry() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("tapeline.toml");
    let file = example("kraken.toml");
    std::fs::write(
        &config,
        format!(
            "[ingest.venues.kraken]\nenabled = true\ndescribe = {file:?}\nsymbols = [\"BTCUSD\"]\nchannels = [\"trades\"]\n"
        ),
    )?;
    let (code, out, err) = venue(&["list", "--json", "--config", &config.display().to_string()])?;
    assert_eq!(code, Some(0), "{err}");
    let rows: Value = serde_json::from_str(&out)?;
    let rows = rows["venues"].as_array().context("no venues")?;
    let find = |id: &str| rows.iter().find(|r| r["id"] == id).with_context(|| format!("{id} is not listed"));
    assert_eq!(
        (&find("binance")?["trade_ids"], &find("binance")?["book_rule"]),
        (&"consecutive".into(), &"first_last".into())
    );
    assert_eq!((&find("kraken")?["from"], &find("kraken")?["trade_ids"]), (&"described".into(), &"rising".into()));
    Ok(())
}
