//! A gap on its way: a fact of ingest's, an incomplete candle, indicators and a signal that say so, a refusal; and the
//! ledger of days. Real stages as processes on a real server.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nats::{Bus, Layout, Writer, kv};
use schemas::desk::Refusal;
use schemas::market::{Candle, Indicators};
use schemas::raw::{Gap, Trade, Trades};
use schemas::signal::{Signal, Stance};
use schemas::subject::stream;
use schemas::{Fact, InstrumentKind, Nanos, Price, Qty, Scale, Side, Version, fixtures};
use serde_json::{Value, json};
use tests::fleet::Fleet;
use tests::{Server, program, stored, wait_for};

const BOUND: Duration = Duration::from_secs(60);
const VENUE: &str = "binance";
const SYMBOL: &str = "BTCUSDT";
const ACCOUNT: &str = "main";
const SCALE: Scale = Scale { price: 2, qty: 5 };
const SECOND: i64 = Nanos::PER_SECOND;
/// 2023-11-14T22:14:00Z
const START_NS: i64 = 1_700_000_040 * SECOND;
/// EMA 1 and EMA 2 cross at the close of the fifth minute; an EMA of 2 forgets a bar within 7, a crossing looks at one
/// more.
const CONFIG: &str = "[aggregate]\nvenues = [\"binance\"]\n[strategy]\nvenues = [\"binance\"]\n\
    [strategy.rules.ema_cross]\nparams = { fast = 1, slow = 2 }\n[strategy.rules.rsi_mean_reversion]\nenabled = false\n\
    [strategy.rules.macd_trend]\nenabled = false\n[strategy.rules.bollinger_breakout]\nenabled = false\n\
    [strategy.rules.supertrend]\nenabled = false\n";

async fn server() -> anyhow::Result<(Server, Bus, Writer)> {
    let server = Server::start_with_rights().await?;
    let bus = server.bus("operator").await?;
    let (venues, accounts) = (vec![VENUE.to_owned()], vec![ACCOUNT.to_owned()]);
    Layout { venues, accounts, traders: vec![], partitions: 1 }.apply(&bus).await?;
    let ingest = Writer::open(&server.bus("ingest").await?, &stream::raw(VENUE)).await?;
    Ok((server, bus, ingest))
}

/// A trade in the middle of a minute.
fn trade(minute: i64, price: i64) -> Trades {
    let mut pack = Trades::new(0, VENUE, SYMBOL, SCALE);
    let ts = Nanos(START_NS + (60 * minute + 30) * SECOND);
    let (price, size) = (SCALE.price_m(Price::new(price.into())), SCALE.qty_m(Qty::new(1.into())));
    pack.push(Trade {
        ts,
        recv: ts,
        id: minute as u64 + 1,
        price: price.unwrap(),
        size: size.unwrap(),
        side: Side::Buy,
    });
    pack
}

fn gap(symbol: &str, channel: &str, from_s: i64, to_s: Option<i64>) -> Gap {
    let at = |s: i64| START_NS + s * SECOND;
    let (venue, symbol, channel, reason) = (VENUE.into(), symbol.into(), channel.into(), "a hole of the test's".into());
    Gap { v: Version, venue, symbol, p: 0, channel, from_ns: at(from_s), to_ns: to_s.map(at), reason }
}

async fn say(writer: &mut Writer, fact: &impl Fact) -> anyhow::Result<()> {
    writer.push(fact.subject(), fact.encode()).await?;
    Ok(writer.drain().await?)
}

/// Facts of one kind in a stream.
async fn said<F: Fact>(bus: &Bus, stream: &str) -> anyhow::Result<Vec<F>> {
    let mine = |(_, subject, payload): (u64, String, Vec<u8>)| {
        (subject.split('.').next() == Some(F::KIND)).then(|| F::decode(&payload).context(subject))
    };
    stored(bus, stream).await?.into_iter().filter_map(mine).collect()
}

/// `tapeline gaps` with these words, as the operator: exit code, output, errors.
fn gaps(server: &Server, words: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(program("tapeline")?);
    command.arg("gaps").args(words).envs(server.env("operator")).env_remove("TAPELINE_DATA").current_dir(server.dir());
    let out = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code(), text(&out.stdout), text(&out.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_whose_averages_look_back_on_a_gap_says_so_and_risk_refuses_it() -> anyhow::Result<()> {
    let (server, bus, mut ingest) = server().await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, CONFIG)?;
    let stages = ["aggregate", "strategy", "risk"];
    let env = stages.map(|stage| (stage, server.env(stage))).into();
    let mut fleet = Fleet::new(server.dir(), &config, vec!["--partitions".into(), "1".into()], env);
    for stage in stages {
        fleet.spawn(stage)?;
    }
    let instrument = fixtures::instrument(VENUE, SYMBOL, InstrumentKind::Spot, "0.01", "0.00001");
    let key = stream::instrument_key(VENUE, SYMBOL);
    kv::put(&bus, stream::KV_INSTRUMENTS, &key, instrument.encode().into()).await?;
    let (desk, listed) = (stream::desk(ACCOUNT), instrument.subject());
    wait_for("the instrument on the desk", BOUND, || async {
        nats::leader::last_by_subject(&bus, &desk, &listed).await.ok()?.map(drop)
    })
    .await?;

    for (minute, price) in (0..).zip([100, 90, 80, 70]) {
        say(&mut ingest, &trade(minute, price)).await?;
    }
    say(&mut ingest, &gap(SYMBOL, "trade", 3 * 60 + 40, Some(3 * 60 + 50))).await?;
    say(&mut ingest, &trade(4, 90)).await?;
    say(&mut ingest, &trade(5, 95)).await?;

    let refused = wait_for("a refusal", BOUND, || async {
        said::<Refusal>(&bus, &stream::risk(ACCOUNT)).await.ok()?.into_iter().next()
    })
    .await
    .with_context(|| fleet.logs())?;
    assert_eq!((&*refused.limit, &*refused.number, &*refused.bound), ("gap_bars", "1", "0"), "{refused:?}");

    let aggregate = stream::aggregate(VENUE, 0);
    let minute = |open_ns: i64| (open_ns - START_NS) / (60 * SECOND);
    let candles = said::<Candle>(&bus, &aggregate).await?;
    let whole: Vec<_> = candles.iter().filter(|c| c.tf == "1m").map(|c| (minute(c.open_ns), c.complete)).collect();
    // The first is where we began.
    assert_eq!(whole, [(0, false), (1, true), (2, true), (3, false), (4, true)]);
    let indicators = said::<Indicators>(&bus, &aggregate).await?;
    let of_true_range = |i: &Indicators| (minute(i.open_ns), i.complete, i.gaps.get("atr.tr").copied());
    let over: Vec<_> = indicators.iter().filter(|i| i.tf == "1m").map(of_true_range).collect();
    // It looks back on two bars.
    assert_eq!(
        over,
        [(0, false, None), (1, true, None), (2, true, None), (3, false, Some(1)), (4, true, Some(1))],
        "{indicators:?}"
    );
    let signals = said::<Signal>(&bus, &stream::signal(VENUE, 0)).await?;
    let told: Vec<_> = signals.iter().map(|s| (minute(s.ts_ns), s.side, s.gap_bars)).collect();
    assert_eq!(told, [(5, Stance::Long, 1)]);
    assert!(fleet.ended()?.is_empty(), "{}", fleet.logs());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_of_gaps_has_a_row_for_each_day_and_channel() -> anyhow::Result<()> {
    let (server, _bus, mut ingest) = server().await?;
    let (code, text, _) = gaps(&server, &[])?;
    assert_eq!((code, text.trim()), (Some(0), "no gaps"));

    // Between trades, of which the command hears nothing: a gap that lasts, its end, one that overlaps it, one over
    // midnight (6360 s behind the start), and a book's that lasts still.
    for (minute, fact) in (0..).zip([
        gap(SYMBOL, "trade", 10, None),
        gap(SYMBOL, "trade", 10, Some(40)),
        gap(SYMBOL, "trade", 30, Some(55)),
        gap(SYMBOL, "trade", 6300, Some(6480)),
        gap("ETHUSDT", "book", 6240, None),
    ]) {
        say(&mut ingest, &trade(minute, 100)).await?;
        say(&mut ingest, &fact).await?;
    }
    let (code, text, errors) = gaps(&server, &["--json", "--to", "2023-11-15"])?;
    assert_eq!(code, Some(0), "{errors}");
    let row = |day: &str, symbol: &str, channel: &str, numbers: [i64; 4]| {
        json!({
            "day": day, "venue": VENUE, "symbol": symbol, "channel": channel, "gaps": numbers[0], "open": numbers[1],
            "missing_ns": numbers[2] * SECOND, "longest_ns": numbers[3] * SECOND,
        })
    };
    let expected = [
        row("2023-11-14", SYMBOL, "trade", [3, 0, 105, 60]),
        row("2023-11-14", "ETHUSDT", "book", [1, 1, 120, 120]),
        row("2023-11-15", SYMBOL, "trade", [1, 0, 120, 120]),
        row("2023-11-15", "ETHUSDT", "book", [1, 1, 86_400, 86_400]),
    ];
    assert_eq!(serde_json::from_str::<Value>(&text)?, json!({ "days": expected }));

    let (_, table, _) = gaps(&server, &["--venue", VENUE, "--symbol", SYMBOL, "--from", "2023-11-15"])?;
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = table.lines().filter(|line| line.contains("2023")).map(cells).collect();
    assert_eq!(lines, [["2023-11-15", VENUE, SYMBOL, "trade", "1", "0", "120.000", "120.000"]]);

    let (_, text, _) = gaps(&server, &["--json", "--list", "--symbol", SYMBOL, "--to", "2023-11-14"])?;
    let listed = serde_json::from_str::<Value>(&text)?;
    let begins: Vec<_> =
        listed["gaps"].as_array().context("gaps")?.iter().map(|g| (&g["missing_ns"], &g["reason"])).collect();
    let reason = json!("a hole of the test's");
    assert_eq!(begins, [30, 25, 180].map(|s| json!(s * SECOND)).iter().map(|ns| (ns, &reason)).collect::<Vec<_>>());
    let (_, table, _) = gaps(&server, &["--list", "--symbol", "ETHUSDT", "--to", "2023-11-14"])?;
    assert!(table.contains("2023-11-14T23:58:00.000Z") && table.contains(" open "), "{table}");

    // A venue without a stream is an error that names those with one; a day that is none is a usage error.
    let (code, _, errors) = gaps(&server, &["--venue", "nowhere"])?;
    assert_eq!(code, Some(1));
    assert!(errors.contains("RAW_NOWHERE") && errors.contains("RAW_BINANCE"), "{errors}");
    let (code, _, errors) = gaps(&server, &["--from", "2023-11-31"])?;
    assert_eq!(code, Some(2), "{errors}");
    Ok(())
}
