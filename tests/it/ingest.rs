//! The ingest shell: a venue of our own on loopback that misbehaves, and recordings that are killed half-way.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use ingest::config::{Config, Source};
use ingest::live::{self, Task};
use ingest::metrics::{Link, Metrics};
use ingest::source::{Job, import};
use nats::telemetry::TaskStats;
use nats::{Bus, Layout};
use schemas::raw::{LinkEvent, Raw};
use schemas::subject::{self, stream};
use schemas::{Fact, Instrument};
use tests::{Server, stored, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const VENUE: &str = "binance";
const BOUND: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 4;

async fn server() -> anyhow::Result<(Server, Bus)> {
    let server = Server::start().await?;
    let bus = server.bus("ingest").await?;
    let layout = Layout { venues: vec![VENUE.into()], accounts: vec![], traders: vec![], partitions: PARTITIONS };
    layout.apply(&bus).await?;
    Ok((server, bus))
}

/// What the toy venue does on one connection, in order.
#[derive(Clone, Debug)]
enum Step {
    /// Waits for a SUBSCRIBE and acknowledges it.
    Ack,
    /// Trades of BTCUSDT with these ids.
    Trades(std::ops::RangeInclusive<u64>),
    Frame(&'static str),
    /// Ends the connection without a word.
    Cut,
}

/// A venue on loopback with one symbol; behind its script a connection stays open and silent.
struct Toy {
    ws: u16,
    rest: u16,
    /// Connections taken so far.
    connections: Arc<Mutex<usize>>,
    work: Vec<JoinHandle<()>>,
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.work.iter().for_each(JoinHandle::abort);
    }
}

fn trade(id: u64) -> String {
    let ts = 1_700_000_000_000 + id;
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{ts},"s":"BTCUSDT","t":{id},"p":"100.5","q":"0.01","T":{ts},"m":true}}}}"#
    )
}

impl Toy {
    /// `history`: the newest trade id that REST knows.
    async fn start(scripts: Vec<Vec<Step>>, history: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ws = listener.local_addr()?.port();
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        let sockets = tokio::spawn(async move {
            let mut scripts = VecDeque::from(scripts);
            let mut open = Vec::new();
            while let Ok((socket, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                let script = scripts.pop_front().unwrap_or_else(|| vec![Step::Ack]);
                if let Ok(Some(socket)) = play(socket, script).await {
                    open.push(tokio::spawn(hold(socket)));
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let rest = listener.local_addr()?.port();
        let http = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // A client that goes away is not our concern.
                let _ = answer(socket, history).await;
            }
        });
        Ok(Self { ws, rest, connections, work: vec![sockets, http] })
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// The socket, when the script leaves it open.
async fn play(socket: TcpStream, script: Vec<Step>) -> anyhow::Result<Option<WebSocketStream<TcpStream>>> {
    let mut ws = tokio_tungstenite::accept_async(socket).await?;
    for step in script {
        match step {
            Step::Ack => loop {
                let Some(frame) = ws.next().await else { return Ok(None) };
                if let Message::Text(text) = frame? {
                    let request: serde_json::Value = serde_json::from_str(&text)?;
                    ws.send(Message::text(format!(r#"{{"result":null,"id":{}}}"#, request["id"]))).await?;
                    break;
                }
            },
            Step::Trades(ids) => {
                for id in ids {
                    ws.send(Message::text(trade(id))).await?;
                }
            }
            Step::Frame(text) => ws.send(Message::text(text)).await?,
            Step::Cut => return Ok(None),
        }
    }
    Ok(Some(ws))
}

async fn hold(mut ws: WebSocketStream<TcpStream>) {
    while let Some(Ok(_)) = ws.next().await {}
}

/// One HTTP request: the instrument list, or a page of trades.
async fn answer(mut socket: TcpStream, history: u64) -> anyhow::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        let n = socket.read(&mut buffer).await?;
        ensure!(n > 0, "half a request");
        request.extend_from_slice(&buffer[..n]);
    }
    let request = String::from_utf8(request)?;
    let path = request.split(' ').nth(1).context("a path")?;
    let body = if path.starts_with("/api/v3/exchangeInfo") {
        r#"{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01"},{"filterType":"LOT_SIZE","stepSize":"0.00001"},{"filterType":"NOTIONAL","minNotional":"5"}]}]}"#.to_owned()
    } else {
        let from = path.split("fromId=").nth(1).and_then(|t| t.split('&').next()).context("fromId")?.parse::<u64>()?;
        let row = |id| {
            format!(
                r#"{{"id":{id},"price":"100.5","qty":"0.01","time":{},"isBuyerMaker":true}}"#,
                1_700_000_000_000 + id
            )
        };
        format!("[{}]", (from..=history).map(row).collect::<Vec<_>>().join(","))
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    Ok(())
}

fn config(ws: u16, rest: u16) -> Config {
    let mut config = Config::load(None).unwrap();
    config.clock_period_ms = 50;
    config.link.backoff_first_ms = 20;
    config.link.backoff_max_ms = 100;
    config.session.request_spacing_ms = 10;
    // The toy has no history.
    config.warmup.candles.clear();
    let venue = config.venues.get_mut(VENUE).unwrap();
    venue.ws_url = format!("ws://127.0.0.1:{ws}");
    venue.rest_url = format!("http://127.0.0.1:{rest}");
    venue.symbols = vec!["BTCUSDT".into()];
    venue.channels = vec!["{}@trade".into()];
    config
}

/// The venue's task in this process.
struct Feed {
    stop: CancellationToken,
    metrics: Metrics,
    work: JoinHandle<anyhow::Result<()>>,
}

impl Feed {
    fn start(bus: &Bus, config: Config) -> Self {
        let (stop, metrics) = (CancellationToken::new(), Metrics::default());
        let task = Task {
            bus: bus.clone(),
            id: VENUE.into(),
            config,
            partitions: PARTITIONS,
            metrics: metrics.clone(),
            stats: TaskStats::new(VENUE),
            stop: stop.clone(),
        };
        Self { stop, metrics, work: tokio::spawn(live::run(task)) }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.work).await.context("the feed did not stop")??
    }
}

async fn facts(bus: &Bus) -> anyhow::Result<Vec<Raw>> {
    let messages = stored(bus, &stream::raw(VENUE)).await?;
    messages.iter().map(|(_, subject, payload)| Raw::hear(subject, payload)?.context("a raw fact")).collect()
}

fn trade_ids(facts: &[Raw]) -> Vec<u64> {
    facts.iter().flat_map(|f| if let Raw::Trades(t) = f { t.id.clone() } else { Vec::new() }).collect()
}

async fn until_trades(bus: &Bus, count: usize) -> anyhow::Result<Vec<Raw>> {
    wait_for(&format!("{count} stored trades"), BOUND, || async {
        let facts = facts(bus).await.ok()?;
        (trade_ids(&facts).len() >= count).then_some(facts)
    })
    .await
}

fn links(facts: &[Raw]) -> Vec<&str> {
    facts.iter().filter_map(|f| if let Raw::Link(l) = f { Some(l.event.as_str()) } else { None }).collect()
}

#[tokio::test]
async fn a_lost_connection_is_told_and_what_was_missed_is_fetched_in_order() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    let first = vec![Step::Ack, Step::Trades(1..=3), Step::Frame("{\"e\":\"neverHeardOf\"}"), Step::Cut];
    let toy = Toy::start(vec![first, vec![Step::Ack, Step::Trades(6..=6)]], 6).await?;
    let feed = Feed::start(&bus, config(toy.ws, toy.rest));
    until_trades(&bus, 6).await?;
    let metrics = feed.metrics.clone();
    feed.stop().await?;

    let facts = facts(&bus).await?;
    assert_eq!(trade_ids(&facts), [1, 2, 3, 4, 5, 6]);
    assert_eq!(links(&facts), ["connected", "lost", "connected", "planned_reconnect"]);
    let dead: Vec<_> =
        facts.iter().filter_map(|f| if let Raw::Dead(d) = f { Some((&*d.reason, &*d.frame)) } else { None }).collect();
    assert_eq!(dead, [("unknown event `neverHeardOf`", "{\"e\":\"neverHeardOf\"}")]);
    let gaps: Vec<_> = facts
        .iter()
        .filter_map(|f| if let Raw::Gap(g) = f { Some((&*g.channel, g.to_ns.is_some())) } else { None })
        .collect();
    // Down, up again, and down at the stop; no trade is missing.
    assert_eq!(gaps, [("link", false), ("link", true), ("link", false)]);
    let labels = Link { task: VENUE.into(), link: "stream-0".into() };
    assert_eq!(metrics.connections.get_or_create(&labels).get(), 2);
    assert_eq!(metrics.dead.get_or_create(&labels).get(), 1);
    Ok(())
}

#[tokio::test]
async fn a_process_that_starts_again_goes_on_behind_what_is_stored() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    let toy = Toy::start(vec![vec![Step::Ack, Step::Trades(1..=4)], vec![Step::Ack, Step::Trades(3..=8)]], 8).await?;
    let feed = Feed::start(&bus, config(toy.ws, toy.rest));
    until_trades(&bus, 4).await?;
    feed.stop().await?;
    let feed = Feed::start(&bus, config(toy.ws, toy.rest));
    until_trades(&bus, 8).await?;
    feed.stop().await?;
    assert_eq!(trade_ids(&facts(&bus).await?), [1, 2, 3, 4, 5, 6, 7, 8]);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_stays_silent_is_given_up_and_made_again() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    let toy = Toy::start(vec![], 0).await?;
    let mut config = config(toy.ws, toy.rest);
    config.session.idle_timeout_ms = 100;
    let feed = Feed::start(&bus, config);
    wait_for("three connections", BOUND, || async { (toy.connections() >= 3).then_some(()) }).await?;
    feed.stop().await?;
    let facts = facts(&bus).await?;
    let reason =
        facts.iter().find_map(|f| if let Raw::Link(l) = f { (l.event == "lost").then_some(&l.reason) } else { None });
    assert_eq!(reason.map(String::as_str), Some("idle: no market data for 100 ms"));
    Ok(())
}

#[tokio::test]
async fn a_venue_that_is_away_is_tried_until_it_is_there() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    // A port that was free a moment ago: nobody listens there yet.
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let toy = Toy::start(vec![vec![Step::Ack, Step::Trades(1..=2)]], 2).await?;
    let mut config = config(port, toy.rest);
    config.link.unreachable_after_ms = 200;
    let feed = Feed::start(&bus, config);
    let labels = Link { task: VENUE.into(), link: "stream-0".into() };
    wait_for("three failures", BOUND, || async {
        (feed.metrics.failures.get_or_create(&labels).get() >= 3).then_some(())
    })
    .await?;
    let told = |facts: Vec<Raw>| {
        let reason = |f: Raw| if let Raw::Link(l) = f { (l.event == "unreachable").then_some(l.reason) } else { None };
        facts.into_iter().filter_map(reason).collect::<Vec<_>>()
    };
    wait_for("the error", BOUND, || async { (!told(facts(&bus).await.ok()?).is_empty()).then_some(()) }).await?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let Ok(mut to) = TcpStream::connect(("127.0.0.1", toy.ws)).await else { return };
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    until_trades(&bus, 2).await?;
    let told = told(facts(&bus).await?);
    let clear = |why: &String| why.contains(&format!("ws://127.0.0.1:{port}")) && why.contains("200 ms: ");
    assert!(told.len() == 1 && told.iter().all(clear), "told once, with the address and why: {told:?}");
    feed.stop().await?;
    forward.abort();
    Ok(())
}

#[tokio::test]
async fn the_watermark_follows_the_venue_and_the_instrument_stands_in_its_bucket() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    let toy = Toy::start(vec![vec![Step::Ack, Step::Trades(1..=1)]], 1).await?;
    let mut config = config(toy.ws, toy.rest);
    config.lateness_ms = 10;
    let feed = Feed::start(&bus, config);
    let trade_ns = 1_700_000_000_001_000_000;
    wait_for("a clock behind the trade in every partition", BOUND, || async {
        let facts = facts(&bus).await.ok()?;
        let past = |p: u32| facts.iter().any(|f| matches!(f, Raw::Clock(c) if c.p == p && c.watermark_ns >= trade_ns));
        (0..PARTITIONS).all(past).then_some(())
    })
    .await?;
    let key = stream::instrument_key(VENUE, "BTCUSDT");
    let entry =
        wait_for("the instrument", BOUND, || async { nats::kv::get(&bus, stream::KV_INSTRUMENTS, &key).await.ok()? })
            .await?;
    let instrument = Instrument::decode(&entry.value)?;
    assert_eq!((instrument.tick.to_string(), instrument.scale.qty), ("0.01".to_owned(), 5));
    feed.stop().await
}

#[tokio::test]
async fn of_two_instances_one_is_fenced_off_and_no_trade_is_stored_twice() -> anyhow::Result<()> {
    let (_server, bus) = server().await?;
    let twice = vec![Step::Ack, Step::Trades(1..=2)];
    let toy = Toy::start(vec![twice.clone(), twice, vec![Step::Ack, Step::Trades(1..=3)]], 3).await?;
    let mut first = Feed::start(&bus, config(toy.ws, toy.rest));
    until_trades(&bus, 2).await?;
    let mut second = Feed::start(&bus, config(toy.ws, toy.rest));
    // Whoever reaches the next position later sees another's bytes there.
    let race = async {
        tokio::select! {
            ended = &mut first.work => (ended, true),
            ended = &mut second.work => (ended, false),
        }
    };
    let (ended, first_ended) = tokio::time::timeout(BOUND, race).await.context("both went on")?;
    let other = if first_ended { second } else { first };
    let text = format!("{:#}", ended?.unwrap_err());
    assert!(text.contains("fenced"), "{text}");
    // Exactly one is fenced; the other goes on and ends only when it is asked to.
    other.stop().await?;
    let third = Feed::start(&bus, config(toy.ws, toy.rest));
    until_trades(&bus, 3).await?;
    third.stop().await?;
    assert_eq!(trade_ids(&facts(&bus).await?), [1, 2, 3]);
    Ok(())
}

/// A recording of two symbols: trades, quotes, a hole and a line that is no frame.
fn recording(folder: &Path, lines: u64) -> anyhow::Result<PathBuf> {
    let path = folder.join("recording.txt");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    for n in 1..=lines {
        let recv = 1_700_000_000_000_000_000 + n as i64 * 7_000_000;
        let ms = recv / 1_000_000 + 900;
        let symbol = if n % 5 == 0 { "ETHUSDT" } else { "BTCUSDT" };
        if n % 3 == 0 {
            writeln!(
                file,
                r#"{recv} {{"u":{n},"s":"{symbol}","b":"{}.5","B":"1","a":"{}.7","A":"2.25"}}"#,
                100 + n % 9,
                100 + n % 9
            )?;
        } else if n % 997 == 0 {
            writeln!(file, "not a line of a recording")?;
        } else {
            writeln!(
                file,
                r#"{recv} {{"e":"trade","E":{ms},"s":"{symbol}","t":{n},"p":"{}.{}","q":"0.0{}","T":{ms},"m":{}}}"#,
                100 + n % 9,
                n % 100,
                n % 7 + 1,
                n % 2 == 0
            )?;
        }
    }
    file.flush()?;
    Ok(path)
}

fn job(path: &Path) -> Job {
    let config = Config::load(None).unwrap();
    let mut settings = config.venues[VENUE].clone();
    settings.source = Source::Recording;
    settings.files = vec![path.to_owned()];
    settings.speed = 0.0;
    Job::of(VENUE, &settings, &config, PARTITIONS)
}

#[tokio::test]
async fn a_recording_gives_the_same_bytes_though_its_import_is_killed_and_started_again() -> anyhow::Result<()> {
    let (server, undisturbed) = server().await?;
    let path = recording(server.dir(), 6000)?;
    let never = CancellationToken::new();
    let done = import(&undisturbed, &job(&path), &never, None, |_| {}).await?;
    assert!(done.finished && done.facts_found == 0);
    let wanted = stored(&undisturbed, &stream::raw(VENUE)).await?;
    assert_eq!(wanted.len() as u64, done.facts);

    let (_other, bus) = self::server().await?;
    for share in [5, 3, 2] {
        // Aborted in the middle of whatever it does: what a kill leaves behind.
        let (reached, seen) = tokio::sync::oneshot::channel();
        let (bus, job, bound) = (bus.clone(), job(&path), done.facts / share);
        let work = tokio::spawn(async move {
            let mut reached = Some(reached);
            let never = CancellationToken::new();
            import(&bus, &job, &never, None, |p| {
                if p.facts >= bound
                    && let Some(reached) = reached.take()
                {
                    let _ = reached.send(());
                }
            })
            .await
        });
        tokio::time::timeout(BOUND, seen).await??;
        work.abort();
        let _ = work.await;
    }
    let resumed = import(&bus, &job(&path), &never, None, |_| {}).await?;
    assert!(resumed.finished && resumed.facts_found > 0 && resumed.facts == done.facts, "{resumed:?}");
    assert!(stored(&bus, &stream::raw(VENUE)).await? == wanted, "other bytes");

    let again = import(&bus, &job(&path), &never, None, |_| {}).await?;
    assert!(again.finished && again.facts == 0);
    assert_eq!(stored(&bus, &stream::raw(VENUE)).await?.len(), wanted.len());
    Ok(())
}

#[tokio::test]
async fn an_import_neither_goes_back_in_time_nor_into_the_middle_of_another() -> anyhow::Result<()> {
    let (server, bus) = server().await?;
    let path = recording(server.dir(), 3000)?;
    let never = CancellationToken::new();
    import(&bus, &job(&path), &never, None, |_| {}).await?;
    let early = server.dir().join("early.csv");
    std::fs::write(&early, "ts_ns,price,qty,side\n1600000000000000000,5,1,buy\n")?;
    let mut old = job(&early);
    old.form = ingest::recording::Form::Csv;
    old.files[0].0 = "BTCUSDT".into();
    let error = format!("{:#}", import(&bus, &old, &never, None, |_| {}).await.unwrap_err());
    assert!(error.contains("cannot go back in time"), "{error}");

    // A later recording begins, and is killed; then it is tried with other options.
    let later = server.dir().join("later.csv");
    std::fs::write(&later, "ts_ns,price,qty,side\n1800000000000000000,5,1,buy\n")?;
    let begun = LinkEvent {
        v: schemas::wire::Version,
        venue: VENUE.into(),
        link: "recording".into(),
        wall_ns: 1,
        event: "connected".into(),
        reason: "another; sha256 00".into(),
        count: 1,
    };
    let mut writer = nats::Writer::open(&bus, &stream::raw(VENUE)).await?;
    writer.push(subject::link(VENUE), begun.encode()).await?;
    writer.drain().await?;
    let mut other = job(&later);
    other.form = ingest::recording::Form::Csv;
    other.files[0].0 = "BTCUSDT".into();
    let error = format!("{:#}", import(&bus, &other, &never, None, |_| {}).await.unwrap_err());
    assert!(error.contains("in the middle of another recording"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_paced_recording_takes_the_time_that_its_speed_says() -> anyhow::Result<()> {
    let (server, bus) = server().await?;
    let path = recording(server.dir(), 300)?;
    // Two seconds of recorded time, ten times faster.
    let mut job = job(&path);
    job.speed = 10.0;
    job.options.frames_per_flush = 8;
    let begun = std::time::Instant::now();
    let never = CancellationToken::new();
    let done = import(&bus, &job, &never, None, |_| {}).await?;
    let took = begun.elapsed();
    assert!(done.finished);
    assert!(took >= Duration::from_millis(195), "{took:?}");
    Ok(())
}
