//! The executor at a live venue: a real nats-server, the simulator's Binance USD-M and the executor as processes, killed
//! behind every message, with replies lost, doubled. The venue's own records say what reached it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use nats::{Bus, Layout, Reader, Writer, kv};
use rust_decimal::Decimal;
use schemas::desk::{Cancel, Order, OrderKind};
use schemas::exec::{Ack, Cancelling, Done, Fill, LiveReport, LiveWhat, Reject, Sending};
use schemas::subject::stream;
use schemas::{Cause, Fact, Instrument, InstrumentKind, Place, Price, Side, Version, fixtures};
use serde_json::Value;
use simulator::sign::hmac_sha256_hex;
use tests::fleet::Fleet;
use tests::venue::Venues;
use tests::{Server, program, stored, wait_for, within};

const BOUND: Duration = Duration::from_secs(60);
const VENUE: &str = "binance-usdm";
const SYMBOL: &str = "BTCUSDT";
const ACCOUNT: &str = "main";
/// The simulator's keys (simulator/config.toml).
const KEYS: [(&str, &str); 2] =
    [("TAPELINE_BINANCE_USDM_KEY", "simulator-key"), ("TAPELINE_BINANCE_USDM_SECRET", "simulator-secret")];
/// The clock is measured once, so that a fault meets the request that it is meant for.
const LIVE: &str = "consent_to_real_orders = true\nfresh_ms = 60000\nattempts_max = 60\nrecv_window_ms = 400\n\
                    settle_ms = 100\npoll_ms = 250\nrequest_timeout_ms = 400\nbackoff_ms_min = 20\nbackoff_ms_max = 200\n\
                    clock_ms_max = 3600000\n";

/// A desk whose orders go to the simulator.
struct Floor {
    server: Server,
    bus: Bus,
    /// Lives as long as the floor.
    _venues: Venues,
    rest: String,
    http: reqwest::Client,
    risk: Writer,
    follower: tokio::sync::Mutex<Follower>,
    fleet: Fleet,
}

impl Floor {
    async fn open(tasks: &str) -> anyhow::Result<Self> {
        let server = Server::start_with_rights().await?;
        let bus = server.bus("operator").await?;
        let (venues, accounts) = (vec![VENUE.to_owned()], vec![ACCOUNT.to_owned()]);
        Layout { venues, accounts, traders: vec![], partitions: 1 }.apply(&bus).await?;
        let venues = Venues::start(server.dir(), &[VENUE], 7, 1).await?;
        let rest = venues.rest(VENUE).context("the venue's address")?;
        let config = server.dir().join("tapeline.toml");
        std::fs::write(
            &config,
            format!(
                "[executor]\nmode = \"live\"\n[executor.live]\n{LIVE}[executor.live.venues.{VENUE}]\nbase_url = \"{rest}\"\n\
                 [nats.task]\n{tasks}\n"
            ),
        )?;
        let mut env = server.env("executor");
        env.extend(KEYS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let args = vec!["--partitions".to_owned(), "1".to_owned()];
        let fleet = Fleet::new(server.dir(), &config, args, [("executor", env)].into());
        kv::put(&bus, stream::KV_INSTRUMENTS, &stream::instrument_key(VENUE, SYMBOL), instrument().encode().into())
            .await?;
        // Orders come by another source of the desk, which may be faster.
        let (desk, listed) = (stream::desk(ACCOUNT), instrument().subject());
        wait_for("the instrument on the desk", BOUND, || async {
            nats::leader::last_by_subject(&bus, &desk, &listed).await.ok()?.map(drop)
        })
        .await?;
        let risk = Writer::open(&server.bus("risk").await?, &stream::risk(ACCOUNT)).await?;
        let reader = Reader::open(&bus, &stream::exec(ACCOUNT), ">", 0).await?;
        let follower = Follower { reader, read: 0, lines: Journal::new() };
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { server, bus, _venues: venues, rest, http, risk, follower: tokio::sync::Mutex::new(follower), fleet })
    }

    async fn say(&mut self, fact: &impl Fact) -> anyhow::Result<()> {
        self.risk.push(fact.subject(), fact.encode()).await?;
        Ok(self.risk.drain().await?)
    }

    /// What the venue's own records say: `path` with a signature.
    async fn records(&self, path: &str, query: &str) -> anyhow::Result<Value> {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let query = format!("{query}&recvWindow=60000&timestamp={at_ms}");
        let signature = hmac_sha256_hex(KEYS[1].1, &query);
        let url = format!("{}{path}?{query}&signature={signature}", self.rest);
        let reply = self.http.get(url).header("X-MBX-APIKEY", KEYS[0].1).send().await?.text().await?;
        serde_json::from_str(&reply).with_context(|| reply)
    }

    async fn fault(&self, kind: &str) -> anyhow::Result<()> {
        let body = format!("{{\"kind\":\"{kind}\"}}");
        let reply = self.http.post(format!("{}/sim/faults", self.rest)).body(body).send().await?;
        ensure!(reply.status().is_success(), "{}", reply.text().await?);
        Ok(())
    }

    /// How often a fault has struck.
    async fn struck(&self, kind: &str) -> anyhow::Result<u64> {
        let text = self.http.get(format!("{}/sim/faults", self.rest)).send().await?.text().await?;
        Ok(serde_json::from_str::<Value>(&text)?["struck"][kind].as_u64().unwrap_or(0))
    }

    /// Half of what it trades at: a price where an order to buy waits.
    async fn low(&self) -> anyhow::Result<Price> {
        let text =
            self.http.get(format!("{}/fapi/v1/ticker/price?symbol={SYMBOL}", self.rest)).send().await?.text().await?;
        let last: Decimal = serde_json::from_str::<Value>(&text)?["price"].as_str().context("a price")?.parse()?;
        Ok(Price::new((last / Decimal::TWO).trunc()))
    }

    /// The journal up to its end of now. One reader follows it: each is a consumer, and there may not be many.
    async fn journal(&self) -> anyhow::Result<Journal> {
        let end = self.bus.stream(&stream::exec(ACCOUNT)).await?.last_seq;
        let mut follower = self.follower.lock().await;
        while follower.read < end {
            for message in follower.reader.next_batch(256).await? {
                let (id, line) = said(&message.subject, &message.payload)?;
                follower.lines.entry(id).or_default().push(line);
                follower.read = message.seq;
            }
        }
        Ok(follower.lines.clone())
    }

    /// Waits for the journal's word of an order's end.
    async fn ended(&self, id: &str) -> anyhow::Result<()> {
        wait_for(&format!("the end of {id}"), BOUND, || async {
            let journal = self.journal().await.ok()?;
            journal.get(id)?.iter().any(|line| line.starts_with("done") || line.starts_with("reject")).then_some(())
        })
        .await
        .with_context(|| self.fleet.logs())
    }

    /// Waits for the journal's word that the venue has an order.
    async fn acked(&self, id: &str) -> anyhow::Result<()> {
        wait_for(&format!("{id} at the venue"), BOUND, || async {
            self.journal().await.ok()?.get(id)?.contains(&"ack".to_owned()).then_some(())
        })
        .await
        .with_context(|| self.fleet.logs())
    }

    /// The venue has each order of the journal exactly once, with the same quantities and executions; what is held is what
    /// it says. Gives the life of each order without its prices, which are the market's of the moment.
    async fn agrees(&self) -> anyhow::Result<Journal> {
        let journal = self.journal().await?;
        let orders = self.records("/fapi/v1/allOrders", &format!("symbol={SYMBOL}&limit=1000")).await?;
        let orders = orders.as_array().context("orders")?;
        let number = |value: &Value| -> anyhow::Result<Decimal> {
            Ok(value.as_str().context("a number")?.parse::<Decimal>()?.normalize())
        };
        let (mut lives, mut held) = (Journal::new(), Decimal::ZERO);
        for (id, lines) in &journal {
            let theirs: Vec<&Value> = orders.iter().filter(|order| order["clientOrderId"] == id.as_str()).collect();
            ensure!(theirs.len() == 1, "the venue has {id} {} times; journal {lines:?}", theirs.len());
            let side = if theirs[0]["side"] == "BUY" { "buy" } else { "sell" };
            let sent = format!("sending {side} {}", number(&theirs[0]["origQty"])?);
            ensure!(lines[0] == sent, "{id}: {} against {sent}", lines[0]);
            let query = format!("symbol={SYMBOL}&orderId={}", theirs[0]["orderId"]);
            let mut executions = Vec::new();
            for trade in self.records("/fapi/v1/userTrades", &query).await?.as_array().context("trades")? {
                executions.push(format!("fill {} at {}", number(&trade["qty"])?, number(&trade["price"])?));
            }
            let fills: Vec<String> = lines.iter().filter(|line| line.starts_with("fill")).cloned().collect();
            ensure!(fills == executions, "{id}: {fills:?} against the venue's {executions:?}");
            let filled = number(&theirs[0]["executedQty"])?;
            held += if side == "buy" { filled } else { -filled };
            let mut life: Vec<String> = lines.iter().filter(|line| !line.starts_with("fill")).cloned().collect();
            life.dedup();
            lives.insert(id.clone(), life);
        }
        ensure!(orders.len() == journal.len(), "the venue has {} orders, the journal {}", orders.len(), journal.len());
        let positions = self.records("/fapi/v2/positionRisk", &format!("symbol={SYMBOL}")).await?;
        let position =
            positions.as_array().into_iter().flatten().find(|p| p["symbol"] == SYMBOL).context("a position")?;
        ensure!(number(&position["positionAmt"])? == held.normalize(), "{position} against {held}");
        Ok(lives)
    }

    /// `tapeline --json` as the operator: exit code and document.
    fn tapeline(&self, args: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let out = Command::new(program("tapeline")?)
            .arg("--json")
            .args(args)
            .arg("--config")
            .arg(self.server.dir().join("tapeline.toml"))
            .envs(self.server.env("operator"))
            .env_remove("TAPELINE_DATA")
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let document = serde_json::from_str(&text)
            .with_context(|| format!("{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr)))?;
        Ok((out.status.code(), document))
    }

    /// The journal is the fold of the recorded desk, in live mode too: nothing of it depends on when a venue answered.
    fn audited(&self) -> anyhow::Result<()> {
        let (code, document) = self.tapeline(&["audit", "executor"])?;
        ensure!(code == Some(0) && document["clean"] == true, "{document}");
        Ok(())
    }

    /// Waits until one of two executors has ended because the reports' stream was another's.
    async fn one_is_fenced(&mut self) -> anyhow::Result<()> {
        let ended = wait_for("the end of one", BOUND, || {
            let ended = self.fleet.ended().ok().filter(|ended| !ended.is_empty());
            async move { ended }
        })
        .await?;
        let words: Vec<&str> = ended.iter().map(|end| end.words.as_str()).collect();
        ensure!(matches!(words[..], [one] if one.contains("fenced") && one.contains("LIVE_main")), "{words:#?}");
        ensure!(self.fleet.count("executor") == 1, "{} executors", self.fleet.count("executor"));
        Ok(())
    }

    /// Each report of the venue once, and an order's end behind all of its executions.
    async fn reported_once(&self) -> anyhow::Result<()> {
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (seq, _, payload) in stored(&self.bus, &stream::live(ACCOUNT)).await? {
            let report = LiveReport::decode(&payload)?;
            let word = match &report.what {
                LiveWhat::Attempt { .. } => continue,
                LiveWhat::Acked { .. } => "acked".to_owned(),
                LiveWhat::Filled { trade_id, .. } => format!("filled {trade_id}"),
                LiveWhat::Rejected { .. } | LiveWhat::Ended { .. } => "end".to_owned(),
            };
            let words = seen.entry(report.id.clone()).or_default();
            ensure!(
                !words.contains(&word) && !words.contains(&"end".to_owned()),
                "LIVE:{seq}: {word} behind {words:?}"
            );
            words.push(word);
        }
        Ok(())
    }
}

/// Reads the journal.
struct Follower {
    reader: Reader,
    read: u64,
    lines: Journal,
}

/// One fact of the journal: the order that it is about, and its words.
fn said(subject: &str, payload: &[u8]) -> anyhow::Result<(String, String)> {
    Ok(match subject.split('.').next().unwrap_or("") {
        "sending" => {
            let order = Sending::decode(payload)?.order;
            (order.id, format!("sending {} {}", order.side.as_str(), order.qty))
        }
        "cancelling" => (Cancelling::decode(payload)?.id, "cancelling".to_owned()),
        "ack" => (Ack::decode(payload)?.id, "ack".to_owned()),
        "fill" => {
            let fill = Fill::decode(payload)?;
            (fill.id, format!("fill {} at {}", fill.qty, fill.price))
        }
        "reject" => {
            let reject = Reject::decode(payload)?;
            (reject.id, format!("reject {}", reject.code))
        }
        "done" => {
            let done = Done::decode(payload)?;
            (done.id, format!("done {:?} {}", done.state, done.filled))
        }
        other => bail!("{other} in the journal"),
    })
}

/// What the journal says of each order, by client id.
type Journal = BTreeMap<String, Vec<String>>;

fn instrument() -> Instrument {
    fixtures::instrument(VENUE, SYMBOL, InstrumentKind::Perpetual, "0.1", "0.001")
}

fn order(id: &str, side: Side, qty: &str, limit: Option<Price>) -> Order {
    Order {
        v: Version,
        account: ACCOUNT.into(),
        id: id.into(),
        venue: VENUE.into(),
        symbol: SYMBOL.into(),
        side,
        kind: if limit.is_some() { OrderKind::Limit } else { OrderKind::Market },
        qty: qty.parse().unwrap(),
        limit,
        trigger: None,
        reduce_only: side == Side::Sell,
        post_only: false,
        time_in_force: Default::default(),
        protect: None,
        parent: None,
        strategies: vec![],
        ts_ns: 1,
        reason: "test".into(),
        cause: Place::new(&stream::desk(ACCOUNT), 1).cause(0),
    }
}

fn cancel(id: &str) -> Cancel {
    let (account, venue, symbol) = (ACCOUNT.to_owned(), VENUE.to_owned(), SYMBOL.to_owned());
    let (id, reason) = (id.to_owned(), "test".to_owned());
    Cancel { v: Version, account, id, venue, symbol, reason, ts_ns: 2, cause: Cause::default() }
}

/// Three orders: one that fills, one that waits and is taken back once the venue has it, and one that closes.
struct Script {
    said: usize,
    low: Price,
}

impl Script {
    /// Says what can be said by now; true once all of it has ended.
    async fn step(&mut self, floor: &mut Floor) -> anyhow::Result<bool> {
        let journal = floor.journal().await?;
        let has = |id: &str, word: &str| journal.get(id).is_some_and(|lines| lines.iter().any(|l| l.starts_with(word)));
        match self.said {
            0 => floor.say(&order("entry", Side::Buy, "0.02", None)).await?,
            1 => floor.say(&order("waits", Side::Buy, "0.03", Some(self.low))).await?,
            2 if has("waits", "ack") => floor.say(&cancel("waits")).await?,
            3 if has("entry", "done") => floor.say(&order("exit", Side::Sell, "0.005", None)).await?,
            4 => return Ok(["entry", "waits", "exit"].iter().all(|id| has(id, "done"))),
            _ => return Ok(false),
        }
        self.said += 1;
        Ok(false)
    }

    async fn play(floor: &mut Floor) -> anyhow::Result<()> {
        let mut script = Self { said: 0, low: floor.low().await? };
        let done = within(BOUND, async || Ok(script.step(floor).await?.then_some(()))).await?;
        ensure!(done.is_some(), "{:?}\n{}", floor.journal().await?, floor.fleet.logs());
        Ok(())
    }
}

/// Positions that were asked for in a stream, refused ones too: whoever subscribes to a subject sees every publish.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, u64)>>>);

impl Asked {
    async fn watch(bus: &Bus) -> anyhow::Result<Self> {
        let asked = Self::default();
        let (mut heard, seen) = (bus.client().subscribe(format!("*.{ACCOUNT}.>")).await?, asked.clone());
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                let headers = message.headers.unwrap_or_default();
                let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
                let before = header("Nats-Expected-Last-Sequence").and_then(|seq| seq.parse::<u64>().ok());
                if let (Some(stream), Some(before)) = (header("Nats-Expected-Stream"), before) {
                    seen.0.lock().unwrap().push((stream, before + 1));
                }
            }
        });
        Ok(asked)
    }
    fn has(&self, stream: &str, seq: u64) -> bool {
        self.0.lock().unwrap().iter().any(|(s, k)| s == stream && *k == seq)
    }
    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// When the executor dies behind a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// As soon as the message is there: what follows from it has happened, or not, or in part.
    AtOnce,
    /// When the next one is about to be stored, and cannot be: what it tells of has happened at the venue then, and nobody
    /// has written it down.
    BeforeTheNext,
}

/// Kills the executor behind every message of `stream`.
async fn killed_behind_each(stream: &str, moment: Moment) -> anyhow::Result<(Journal, u64)> {
    let mut floor = Floor::open("checkpoint_inputs_max = 3").await?;
    let asked = Asked::watch(&floor.bus).await?;
    let mut script = Script { said: 0, low: floor.low().await? };
    let begun = Instant::now();
    let mut gate = 1;
    loop {
        let mut config = floor.bus.js().get_stream(stream).await?.cached_info().config.clone();
        config.max_messages = gate;
        floor.bus.js().update_stream(config).await?;
        asked.clear();
        floor.fleet.spawn("executor")?;
        let done = within(BOUND, async || {
            if script.step(&mut floor).await? {
                return Ok(Some(true));
            }
            let there = match moment {
                Moment::AtOnce => floor.bus.stream(stream).await?.last_seq == gate as u64,
                Moment::BeforeTheNext => asked.has(stream, gate as u64 + 1),
            };
            Ok(there.then_some(false))
        })
        .await?;
        match done {
            Some(true) => break,
            Some(false) if begun.elapsed() < 5 * BOUND => {}
            _ => bail!("{stream}:{gate}: {:?}\n{}", floor.journal().await?, floor.fleet.logs()),
        }
        ensure!(floor.fleet.kill9("executor")?, "the executor is gone");
        let last = floor.bus.stream(stream).await?.last_seq;
        ensure!(last == gate as u64, "{stream} ends at {last}, not at {gate}");
        gate += 1;
    }
    floor.reported_once().await?;
    floor.audited()?;
    Ok((floor.agrees().await?, gate as u64 - 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_dies_behind_any_message_brings_each_order_to_the_venue_once() -> anyhow::Result<()> {
    let mut undisturbed = Floor::open("").await?;
    undisturbed.fleet.spawn("executor")?;
    Script::play(&mut undisturbed).await?;
    undisturbed.reported_once().await?;
    let lives = undisturbed.agrees().await?;
    let ends: Vec<&str> = lives.values().filter_map(|life| life.last()).map(String::as_str).collect();
    assert_eq!(ends, ["done Filled 0.02", "done Filled 0.005", "done Cancelled 0"]);
    assert_eq!(lives["waits"], ["sending buy 0.03", "ack", "cancelling", "done Cancelled 0"]);
    undisturbed.audited()?;
    // From an execution back to what the venue said, and to the order.
    let (code, why) = undisturbed.tapeline(&["why", "entry"])?;
    let text = why.to_string();
    assert!(code == Some(0) && text.contains("LIVE_main:") && text.contains("RISK_main:1"), "{text}");
    drop(undisturbed);
    for (stream, moment, least) in [
        (stream::live(ACCOUNT), Moment::BeforeTheNext, 8),
        (stream::exec(ACCOUNT), Moment::BeforeTheNext, 11),
        (stream::live(ACCOUNT), Moment::AtOnce, 8),
        (stream::exec(ACCOUNT), Moment::AtOnce, 11),
    ] {
        let begun = Instant::now();
        let (disturbed, kills) =
            killed_behind_each(&stream, moment).await.with_context(|| format!("{stream} {moment:?}"))?;
        eprintln!("{stream} {moment:?}: {kills} kills, {:?}", begun.elapsed());
        assert_eq!(disturbed, lives, "{stream} {moment:?}");
        assert!(kills >= least, "{stream} {moment:?}: {kills} kills");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_behind_an_order_or_with_it_doubles_nothing() -> anyhow::Result<()> {
    let mut floor = Floor::open("").await?;
    let pid = floor.fleet.spawn("executor")?;
    floor.say(&order("calm", Side::Buy, "0.01", None)).await?;
    floor.ended("calm").await?;
    // Taken and never answered; then not taken, in words that leave it open.
    for (id, kind) in [("taken", "rest_lost"), ("untaken", "rest_503")] {
        floor.fault(kind).await?;
        floor.say(&order(id, Side::Buy, "0.01", None)).await?;
        floor.ended(id).await?;
        ensure!(floor.struck(kind).await? == 1, "{kind} struck nothing");
    }
    // What is refused for good is told so, and so is what no venue was asked about.
    floor.say(&order("huge", Side::Buy, "900", None)).await?;
    floor.ended("huge").await?;
    let mut journal = floor.journal().await?;
    assert_eq!(journal.remove("huge").unwrap()[1..], ["reject -2019"]);
    for id in ["taken", "untaken"] {
        assert_eq!(journal[id].last().unwrap(), "done Filled 0.01");
    }
    let attempts = |reports: &[LiveReport], id: &str| {
        reports.iter().filter(|r| r.id == id && matches!(r.what, LiveWhat::Attempt { .. })).count()
    };
    let mut reports = Vec::new();
    for (_, _, payload) in stored(&floor.bus, &stream::live(ACCOUNT)).await? {
        reports.push(LiveReport::decode(&payload)?);
    }
    assert_eq!((attempts(&reports, "calm"), attempts(&reports, "taken")), (1, 1), "found, not sent again");
    assert!(attempts(&reports, "untaken") >= 2, "not found once its time was over, and sent again");
    let orders = floor.records("/fapi/v1/allOrders", &format!("symbol={SYMBOL}&limit=1000")).await?;
    let mut ids: Vec<&str> =
        orders.as_array().into_iter().flatten().filter_map(|o| o["clientOrderId"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["calm", "taken", "untaken"]);
    let log = floor.fleet.log(pid);
    assert!(!log.contains(KEYS[0].1) && !log.contains(KEYS[1].1), "keys are not logged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_live_executors_one_ends_fenced_and_so_does_one_that_slept_and_the_venue_has_each_order_once()
-> anyhow::Result<()> {
    // No checkpoint moves meanwhile: the stream of the venue's reports is the fence that is tried.
    let mut floor = Floor::open("checkpoint_ms_max = 60000").await?;
    for _ in 0..2 {
        let pid = floor.fleet.spawn("executor")?;
        wait_for("an executor at work", BOUND, || async {
            floor.fleet.log(pid).contains("orders go to live venues").then_some(())
        })
        .await?;
    }
    Script::play(&mut floor).await?;
    // An order that waits: whoever did not bring it to the venue wants to, and finds that another one did.
    let low = floor.low().await?;
    floor.say(&order("waiting", Side::Buy, "0.01", Some(low))).await?;
    floor.one_is_fenced().await?;
    // The other one sleeps while a third takes over, and wakes up to an order that it has not heard of.
    let asleep = floor.fleet.pause("executor")?.context("an executor that runs")?;
    floor.fleet.spawn("executor")?;
    floor.say(&order("meanwhile", Side::Buy, "0.01", Some(low))).await?;
    floor.acked("meanwhile").await?;
    floor.fleet.resume(asleep)?;
    floor.one_is_fenced().await?;
    // It may have fallen asleep between its attempt and the request, and sent it now, or too late for the venue.
    floor.acked("waiting").await?;
    floor.reported_once().await?;
    assert_eq!(floor.agrees().await?.len(), 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_a_live_account_over_by_its_leases() -> anyhow::Result<()> {
    let mut floor = Floor::open("").await?;
    for _ in 0..2 {
        floor.fleet.spawn_with("executor", &["--lease"])?;
    }
    floor.say(&order("before", Side::Buy, "0.01", None)).await?;
    floor.ended("before").await?;
    // The fold and its caller have a lease each; whoever of the two dies, the other has both in the end.
    for id in ["behind", "twice"] {
        ensure!(floor.fleet.kill9("executor")?, "an executor");
        floor.say(&order(id, Side::Buy, "0.01", None)).await?;
        floor.ended(id).await?;
        floor.fleet.spawn_with("executor", &["--lease"])?;
    }
    ensure!(floor.fleet.ended()?.is_empty(), "nobody is fenced");
    floor.reported_once().await?;
    assert_eq!(floor.agrees().await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consent_or_keys_and_on_an_account_of_paper_live_does_not_start() -> anyhow::Result<()> {
    let floor = Floor::open("").await?;
    let config = floor.server.dir().join("tapeline.toml");
    let run = |keys: &[(&str, &str)]| -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(program("executor")?);
        command.arg("--config").arg(&config).args(["--partitions", "1"]).envs(floor.server.env("executor"));
        for (name, _) in KEYS {
            command.env_remove(name);
        }
        let out = command.envs(keys.iter().copied()).output()?;
        Ok((out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned()))
    };
    let (code, said) = run(&KEYS[..1])?;
    assert!(code == Some(64) && said.contains("TAPELINE_BINANCE_USDM_SECRET"), "{code:?} {said}");
    // An acknowledgement that no venue reported: the account was traded on paper.
    let (account, id, venue, symbol) = (ACCOUNT.into(), "paper".into(), VENUE.into(), SYMBOL.into());
    let (venue_order_id, cause) = ("paper".into(), Cause::default());
    let paper = Ack { v: Version, account, id, venue, symbol, venue_order_id, ts_ns: 1, cause };
    let mut journal = Writer::open(&floor.bus, &stream::exec(ACCOUNT)).await?;
    journal.push(paper.subject(), paper.encode()).await?;
    journal.drain().await?;
    let (code, said) = run(&KEYS)?;
    assert!(code == Some(64) && said.contains("EXEC_main:1") && said.contains("a name of its own"), "{code:?} {said}");
    let text = std::fs::read_to_string(&config)?.replace("consent_to_real_orders = true\n", "");
    std::fs::write(&config, text)?;
    let (code, said) = run(&KEYS)?;
    assert!(code == Some(64) && said.contains("executor.live.consent_to_real_orders"), "{code:?} {said}");
    Ok(())
}
