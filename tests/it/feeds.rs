//! Feeds while they run: requests to them, the purse that they share, and the history that they begin with.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ingest::config::Config;
use ingest::live::{self, Task};
use ingest::metrics::Metrics;
use ingest::quota::Quota;
use ingest::rate::Allowance;
use ingest::venue::{Bucket, REST};
use ingest::wall::Wall;
use nats::telemetry::TaskStats;
use nats::{Bus, Layout};
use schemas::market::ClosedBy;
use schemas::raw::Raw;
use schemas::subject::stream;
use schemas::{Core, Place, Qty, Timeframe};
use serde_json::{Value, json};
use simulator::{Handle, Options, Simulator, VenueId};
use tests::{Server, stored, wait_for};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 4;

async fn server(venue: &str) -> anyhow::Result<(Server, Bus)> {
    let server = Server::start().await?;
    let bus = server.bus("ingest").await?;
    let layout = Layout { venues: vec![venue.into()], accounts: vec![], traders: vec![], partitions: PARTITIONS };
    layout.apply(&bus).await?;
    Ok((server, bus))
}

/// One venue's task in this process over a stand-in.
struct Feed {
    sim: Handle,
    stop: CancellationToken,
    work: JoinHandle<anyhow::Result<()>>,
}

impl Feed {
    async fn start(
        bus: &Bus,
        venue: &str,
        stand_in: VenueId,
        listed: &[&str],
        symbols: &[&str],
    ) -> anyhow::Result<Self> {
        let mut options = Options::new(&[stand_in], simulator::config::Config::load(None)?);
        options.symbols = listed.iter().map(|s| (*s).to_owned()).collect();
        options.history_ns = 3600 * 1_000_000_000;
        options.flow.levels = 20;
        let sim = Simulator::start(options).await?;
        let addr = sim.addr(stand_in);
        let mut config = Config::load(None)?;
        config.clock_period_ms = 50;
        let settings = config.venues.get_mut(venue).context("a venue of the manual")?;
        settings.ws_url = format!("ws://{addr}");
        settings.rest_url = format!("http://{addr}");
        settings.symbols = symbols.iter().map(|s| (*s).to_owned()).collect();
        let stop = CancellationToken::new();
        let task = Task {
            bus: bus.clone(),
            id: venue.into(),
            config,
            partitions: PARTITIONS,
            metrics: Metrics::default(),
            stats: TaskStats::new(venue),
            stop: stop.clone(),
        };
        Ok(Self { sim, stop, work: tokio::spawn(live::run(task)) })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.work).await.context("the feed did not stop")??
    }
}

async fn ask(bus: &Bus, venue: &str, request: Value) -> anyhow::Result<Value> {
    let answer = bus.client().request(ingest::ctl::subject(venue), request.to_string().into()).await?;
    Ok(serde_json::from_slice(&answer.payload)?)
}

/// Sequences of a symbol's facts of one kind.
async fn of(bus: &Bus, venue: &str, kind: &str, symbol: &str) -> anyhow::Result<Vec<u64>> {
    let facts = stored(bus, &stream::raw(venue)).await?;
    let end = format!(".{venue}.{kind}.{symbol}");
    Ok(facts.into_iter().filter(|(_, subject, _)| subject.ends_with(&end)).map(|(seq, ..)| seq).collect())
}

async fn more(bus: &Bus, venue: &str, kind: &str, symbol: &str) -> anyhow::Result<()> {
    let before = of(bus, venue, kind, symbol).await?.len();
    wait_for(&format!("more {kind} facts of {symbol}"), BOUND, || async {
        (of(bus, venue, kind, symbol).await.ok()?.len() > before).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_feed_takes_another_symbol_restarts_a_book_reconnects_and_refuses_nonsense() -> anyhow::Result<()> {
    const VENUE: &str = "binance";
    let (_server, bus) = server(VENUE).await?;
    let feed = Feed::start(&bus, VENUE, VenueId::BinanceSpot, &["BTCUSDT", "ETHUSDT"], &["BTCUSDT"]).await?;
    more(&bus, VENUE, "trade", "BTCUSDT").await?;
    assert_eq!(of(&bus, VENUE, "trade", "ETHUSDT").await?, [0; 0]);

    let said = ask(&bus, VENUE, json!({ "op": "subscribe", "symbol": "ETHUSDT" })).await?;
    assert_eq!(said, json!({ "ok": true, "symbols": ["BTCUSDT", "ETHUSDT"] }));
    more(&bus, VENUE, "trade", "ETHUSDT").await?;
    more(&bus, VENUE, "book", "ETHUSDT").await?;
    wait_for("its instrument", BOUND, || async {
        let key = stream::instrument_key(VENUE, "ETHUSDT");
        nats::kv::get(&bus, stream::KV_INSTRUMENTS, &key).await.ok()?
    })
    .await?;

    let resync = json!({ "op": "resync", "symbol": "BTCUSDT" });
    assert_eq!(ask(&bus, VENUE, resync).await?["ok"], true);
    wait_for("a gap of the book that ended", BOUND, || async {
        let facts = stored(&bus, &stream::raw(VENUE)).await.ok()?;
        let gaps = facts.iter().filter_map(|(_, s, p)| match Raw::hear(s, p) {
            Ok(Some(Raw::Gap(gap))) if gap.channel == "book" && gap.symbol == "BTCUSDT" => Some(gap),
            _ => None,
        });
        gaps.into_iter().any(|gap| gap.to_ns.is_some() && gap.reason.contains("operator")).then_some(())
    })
    .await?;

    let connections =
        async || anyhow::Ok(ask(&bus, VENUE, json!({ "op": "status" })).await?["links"][0]["connections"].as_u64());
    assert_eq!(connections().await?, Some(1));
    assert_eq!(ask(&bus, VENUE, json!({ "op": "reconnect" })).await?["ok"], true);
    wait_for("another connection", BOUND, || async { (connections().await.ok()? == Some(2)).then_some(()) }).await?;

    let said = ask(&bus, VENUE, json!({ "op": "unsubscribe", "symbol": "ETHUSDT" })).await?;
    assert_eq!(said, json!({ "ok": true, "symbols": ["BTCUSDT"] }));
    let status = ask(&bus, VENUE, json!({ "op": "status" })).await?;
    assert_eq!(status["links"][0]["symbols"], json!(["BTCUSDT"]));

    for (request, why) in [
        (json!({ "op": "subscribe", "symbol": "BTCUSDT" }), "subscribed already"),
        (json!({ "op": "unsubscribe", "symbol": "XRPUSDT" }), "not subscribed"),
        (json!({ "op": "resync", "symbol": "XRPUSDT" }), "not subscribed"),
        (json!({ "op": "dance" }), "unknown variant"),
        (json!({ "op": "subscribe", "symbol": "" }), "1 to 64 bytes"),
    ] {
        let said = ask(&bus, VENUE, request.clone()).await?;
        assert_eq!(said["ok"], false, "{request}");
        assert!(said["error"].as_str().is_some_and(|error| error.contains(why)), "{request}: {said}");
    }
    more(&bus, VENUE, "trade", "BTCUSDT").await?;
    feed.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbol_that_binance_acknowledges_and_does_not_list_is_a_gap_that_lasts() -> anyhow::Result<()> {
    const VENUE: &str = "binance";
    let (_server, bus) = server(VENUE).await?;
    let feed = Feed::start(&bus, VENUE, VenueId::BinanceSpot, &["BTCUSDT"], &["BTCUSDT", "NOPEUSDT"]).await?;
    more(&bus, VENUE, "trade", "BTCUSDT").await?;
    let told = async || -> anyhow::Result<Vec<(String, String, Option<i64>)>> {
        let facts = stored(&bus, &stream::raw(VENUE)).await?;
        let gap = |(_, subject, payload): &(u64, String, Vec<u8>)| match Raw::hear(subject, payload) {
            Ok(Some(Raw::Gap(gap))) => Some((gap.symbol, gap.channel, gap.to_ns)),
            _ => None,
        };
        Ok(facts.iter().filter_map(gap).collect())
    };
    let lasting = ("NOPEUSDT".to_owned(), "trade".to_owned(), None);
    wait_for("the gap", BOUND, || async { told().await.ok()?.contains(&lasting).then_some(()) }).await?;
    more(&bus, VENUE, "trade", "BTCUSDT").await?;
    assert_eq!(told().await?, [lasting]);
    feed.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_venue_says_of_its_own_state_is_stored_and_shown_until_it_takes_it_back() -> anyhow::Result<()> {
    const VENUE: &str = "deribit";
    let (_server, bus) = server(VENUE).await?;
    let feed = Feed::start(&bus, VENUE, VenueId::Deribit, &["BTCUSDT"], &["BTC-PERPETUAL"]).await?;
    more(&bus, VENUE, "trade", "BTC-PERPETUAL").await?;
    let shown = async || anyhow::Ok(ask(&bus, VENUE, json!({ "op": "status" })).await?["links"][0]["says"].clone());
    assert_eq!(shown().await?, json!([]));
    feed.sim.fault(VenueId::Deribit, simulator::Command::new("maintenance").ms(3000)).map_err(anyhow::Error::msg)?;
    let sentence = "maintenance: index btc_usd (maintenance)";
    wait_for("the status", BOUND, || async { (shown().await.ok()? == json!([sentence])).then_some(()) }).await?;
    wait_for("its end", BOUND, || async { (shown().await.ok()? == json!([])).then_some(()) }).await?;
    let facts = stored(&bus, &stream::raw(VENUE)).await?;
    let told = |(_, subject, payload): &(u64, String, Vec<u8>)| match Raw::hear(subject, payload) {
        Ok(Some(Raw::Link(link))) if link.event == "status" => Some(link.reason),
        _ => None,
    };
    let told: Vec<String> = facts.iter().filter_map(told).collect();
    assert!(matches!(&told[..], [begin, end] if begin == sentence && end.starts_with("online: ")), "{told:?}");
    feed.end().await
}

/// What is stored of a symbol's open interest.
async fn open_interest(bus: &Bus, venue: &str, symbol: &str) -> anyhow::Result<Vec<Qty>> {
    let facts = stored(bus, &stream::raw(venue)).await?;
    let tickers = facts.iter().filter_map(|(_, subject, payload)| match Raw::hear(subject, payload) {
        Ok(Some(Raw::Tickers(pack))) if pack.symbol == symbol => Some(pack.items),
        _ => None,
    });
    Ok(tickers.flatten().filter_map(|ticker| ticker.open_interest).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_interest_that_a_venue_tells_by_rest_alone_is_stored_among_its_tickers() -> anyhow::Result<()> {
    for (venue, stand_in, first, later) in [
        ("binance-usdm", VenueId::BinanceUsdm, "BTCUSDT", "ETHUSDT"),
        ("binance-coinm", VenueId::BinanceCoinm, "BTCUSD_PERP", "ETHUSD_PERP"),
        ("htx-linear", VenueId::HtxLinear, "BTC-USDT", "ETH-USDT"),
        ("htx-inverse", VenueId::HtxInverse, "BTC-USD", "ETH-USD"),
    ] {
        let (_server, bus) = server(venue).await?;
        let feed = Feed::start(&bus, venue, stand_in, &["BTCUSDT", "ETHUSDT"], &[first]).await?;
        let told = async |symbol: &str| {
            let sizes = open_interest(&bus, venue, symbol).await.ok()?;
            sizes.first().is_some_and(|size| *size > Qty::ZERO).then_some(())
        };
        wait_for(&format!("open interest of {venue} {first}"), BOUND, || async { told(first).await }).await?;
        assert_eq!(open_interest(&bus, venue, later).await?, [Qty::ZERO; 0]);
        // The period of the manual is a minute; a symbol that comes later does not wait for it.
        assert_eq!(ask(&bus, venue, json!({ "op": "subscribe", "symbol": later })).await?["ok"], true);
        wait_for(&format!("open interest of {venue} {later}"), BOUND, || async { told(later).await }).await?;
        feed.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_spend_in_the_same_moment_counts_each_time() -> anyhow::Result<()> {
    const WEIGHT: u32 = 40;
    let (server, bus) = server("binance").await?;
    let other = server.bus("ingest").await?;
    // Parts of a second: spends of one such are alike.
    let own = [(REST.to_owned(), Allowance { weight: WEIGHT, window_ms: 60_000 })].into();
    let mut work = tokio::task::JoinSet::new();
    for bus in [&bus, &other].into_iter().cycle().take(6) {
        let quota = Quota::new(bus.clone(), "here", "binance", &[Bucket::new(REST)], &own, 100, 10_000, Wall::new());
        work.spawn(async move {
            let mut granted = 0;
            // Ends: what is beyond the allowance would wait for a minute.
            while let Ok(spent) = tokio::time::timeout(Duration::from_secs(5), quota.spend(REST, 1)).await {
                spent?;
                granted += 1;
            }
            anyhow::Ok(granted)
        });
    }
    let mut granted = 0;
    while let Some(done) = work.join_next().await {
        granted += done??;
    }
    assert_eq!(granted, WEIGHT);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_behind_one_address_spend_from_one_purse() -> anyhow::Result<()> {
    const WINDOW_MS: u64 = 1500;
    let (server, bus) = server("binance").await?;
    let other = server.bus("ingest").await?;
    let own = [(REST.to_owned(), Allowance { weight: 10, window_ms: WINDOW_MS })].into();
    let quota =
        |bus: &Bus| Quota::new(bus.clone(), "here", "binance", &[Bucket::new(REST)], &own, 100, 10_000, Wall::new());
    let (one, two) = (quota(&bus), quota(&other));
    let since = Instant::now();
    let mut work = tokio::task::JoinSet::new();
    for quota in [one, two] {
        work.spawn(async move {
            let mut granted = Vec::new();
            for _ in 0..15 {
                quota.spend(REST, 1).await?;
                granted.push(since.elapsed());
            }
            anyhow::Ok(granted)
        });
    }
    let mut granted = Vec::new();
    while let Some(done) = work.join_next().await {
        granted.extend(done??);
    }
    granted.sort();
    assert_eq!(granted.len(), 30);
    // The times are taken behind the grants, so that two windows' worth cannot have been granted in one window.
    let window = Duration::from_millis(WINDOW_MS);
    ensure!(granted[29] >= window * 2, "30 were granted within {:?}", granted[29]);
    // An allowance of the configuration takes the venue's place.
    let own = [(REST.to_owned(), Allowance { weight: 1000, window_ms: 1000 })].into();
    let free = Quota::new(bus, "elsewhere", "binance", &[Bucket::new(REST)], &own, 100, 10_000, Wall::new());
    for _ in 0..20 {
        ensure!(!free.spend(REST, 1).await?, "had to wait");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_feed_of_hyperliquid_begins_with_the_candles_that_strategies_need() -> anyhow::Result<()> {
    const VENUE: &str = "hyperliquid";
    const COINS: [&str; 6] = ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"];
    let (_server, bus) = server(VENUE).await?;
    let feed = Feed::start(&bus, VENUE, VenueId::Hyperliquid, &COINS, &COINS).await?;
    for coin in COINS {
        more(&bus, VENUE, "trade", coin).await?;
    }
    feed.end().await?;

    let mut aggregate = aggregate::core::AggregateCore::new(&aggregate::config::Config::load(None)?)?;
    let mut candles = std::collections::BTreeMap::new();
    let (mut live, mut out) = (0, Vec::new());
    for (seq, subject, payload) in stored(&bus, &stream::raw(VENUE)).await? {
        let Some(input) = <aggregate::core::In as schemas::Listen>::hear(&subject, &payload)? else { continue };
        let trades = matches!(input, aggregate::core::In::Trades(_));
        aggregate.handle(&Place::new("RAW", seq), input, &mut out).map_err(|fault| anyhow::anyhow!(fault.0))?;
        for fact in out.drain(..) {
            let aggregate::core::Out::Candle(candle) = fact else { continue };
            if candle.closed_by == ClosedBy::History {
                ensure!(live == 0 || !trades, "history behind a trade");
                let tf: Timeframe = candle.tf.parse()?;
                candles.entry((candle.symbol.clone(), tf)).or_insert_with(Vec::new).push(candle.open_ns);
            }
        }
        live += usize::from(trades);
    }
    ensure!(live > 0, "no trade was stored");
    for coin in COINS {
        for (tf, wanted) in [("3m", 200), ("4h", 100)] {
            let tf: Timeframe = tf.parse()?;
            let opens = candles.get(&(coin.to_owned(), tf)).with_context(|| format!("{coin} {tf}"))?;
            assert_eq!(opens.len(), wanted, "{coin} {tf}");
            assert!(opens.windows(2).all(|pair| pair[1] == pair[0] + tf.ns()), "{coin} {tf}: without a hole");
        }
    }
    Ok(())
}
