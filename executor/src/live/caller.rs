//! The only part of the executor that touches a venue: it does what `state.rs` says, and stores what it hears.
//!
//! Its streams are its state: the journal says what was to be sent, `LIVE_<account>` what became of it. Dropping any await
//! loses nothing: an attempt stands in the stream before its request goes out, and the next start asks the venue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nats::telemetry::TaskStats;
use nats::{Bus, Reader, Writer};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use schemas::config::ConfigError;
use schemas::exec::{Cancelling, Done, LiveReport, LiveWhat, Reject, Sending};
use schemas::subject::stream;
use schemas::{Fact, Place};
use tokio_util::sync::CancellationToken;

use super::sign::Secret;
use super::state::{State, Step};
use super::{Answer, Ask, Keys, Protocol, Reply, protocol};
use crate::config::{Config, LiveConfig};

/// The largest reply that is read: 1000 executions are a quarter of it.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Facts of the journal that are taken at once.
const BATCH_MAX: usize = 512;

/// Asks the live venues for one account.
#[derive(Clone)]
pub struct Caller {
    account: String,
    rules: LiveConfig,
    venues: BTreeMap<String, Line>,
}

/// The way to one venue.
#[derive(Clone)]
struct Line {
    protocol: &'static dyn Protocol,
    base_url: String,
    keys: Keys,
    client: reqwest::Client,
}

impl Caller {
    /// Keys are read here, once, from the environment. Error: one is absent.
    pub fn new(account: &str, config: &Config) -> anyhow::Result<Self> {
        nats::crypto::install();
        let mut venues = BTreeMap::new();
        for (id, venue) in &config.live.venues {
            let protocol = protocol(id).with_context(|| format!("no live venue {id}"))?;
            let [key, secret] = Keys::variables(id).map(|name| variable(&name));
            let keys = Keys { key: key?, secret: Secret::new(secret?) };
            let bound = Duration::from_millis(u64::from(config.live.request_timeout_ms));
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("tapeline/", env!("CARGO_PKG_VERSION")))
                .timeout(bound)
                .connect_timeout(bound)
                // Repeating is decided in one place, behind a question to the venue.
                .retry(reqwest::retry::never())
                // A redirect could carry the key to another host.
                .redirect(reqwest::redirect::Policy::none());
            builder = if venue.plain_http() {
                // This machine: no proxy stands between, and no certificates are needed.
                builder.no_proxy().tls_certs_only([])
            } else {
                builder.https_only(true)
            };
            let client = builder.build().with_context(|| format!("make the HTTP client of {id}"))?;
            let base_url =
                if venue.base_url.is_empty() { protocol.base_url() } else { venue.base_url.trim_end_matches('/') };
            venues.insert(id.clone(), Line { protocol, base_url: base_url.to_owned(), keys, client });
        }
        Ok(Self { account: account.to_owned(), rules: config.live.clone(), venues })
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    async fn ask(&self, venue: &str, ask: &Ask, venue_ms: i64) -> Answer {
        let Some(line) = self.venues.get(venue) else {
            return Answer::Doubt { why: format!("{venue} is not among executor.live.venues any more") };
        };
        // An order goes out with the timestamp that was stored, or not at all.
        let timestamp_ms = if let Ask::Place { timestamp_ms, .. } = ask { *timestamp_ms } else { venue_ms };
        let answer = match line.exchange(ask, timestamp_ms, self.rules.recv_window_ms).await {
            Ok(reply) => line.protocol.answer(ask, &reply),
            Err(error) => Answer::Doubt { why: format!("{error:#}") },
        };
        let (asked, id) = (ask.name(), ask.id().unwrap_or(""));
        match &answer {
            Answer::Doubt { why } | Answer::Limited { why, .. } | Answer::Refused { reason: why, .. } => {
                tracing::warn!(venue, asked, id, why = line.keys.scrub(why), "the venue did not do it, or did not say");
            }
            Answer::Late => tracing::warn!(venue, asked, id, "outside the venue's window of time"),
            _ => tracing::debug!(venue, asked, id, "the venue answered"),
        }
        scrubbed(answer, &line.keys)
    }
}

/// Set, or the configuration is not whole.
fn variable(name: &str) -> Result<String, ConfigError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
        ConfigError::new("environment", name, "is not set; mode = \"live\" needs the venue's API key and its secret")
    })
}

fn scrubbed(answer: Answer, keys: &Keys) -> Answer {
    match answer {
        Answer::Refused { code, reason } => Answer::Refused { code, reason: keys.scrub(&reason) },
        Answer::Limited { retry_after_ms, why } => Answer::Limited { retry_after_ms, why: keys.scrub(&why) },
        Answer::Forbidden { why } => Answer::Forbidden { why: keys.scrub(&why) },
        Answer::Doubt { why } => Answer::Doubt { why: keys.scrub(&why) },
        other => other,
    }
}

impl Line {
    async fn exchange(&self, ask: &Ask, timestamp_ms: i64, recv_window_ms: u32) -> anyhow::Result<Reply> {
        let request = self.protocol.request(ask, &self.keys, timestamp_ms, recv_window_ms);
        let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
        let mark = if request.query.is_empty() { "" } else { "?" };
        let mut builder =
            self.client.request(method, format!("{}{}{mark}{}", self.base_url, request.path, request.query));
        if let Some(header) = request.key_header {
            let mut key =
                HeaderValue::from_str(&self.keys.key).context("the key has characters that no header takes")?;
            key.set_sensitive(true);
            builder = builder.header(header, key);
        }
        let mut answer = builder.send().await.map_err(reqwest::Error::without_url)?;
        let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_s = header.and_then(|text| text.trim().parse().ok());
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            anyhow::ensure!(body.len() + chunk.len() <= BODY_BYTES_MAX, "a reply of more than {BODY_BYTES_MAX} bytes");
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(body).context("a reply that is not text")?;
        Ok(Reply { status, retry_after_s, body })
    }
}

/// Our clock: the machine's at the start, and from then on one that nobody sets.
struct Clock {
    began: Instant,
    began_ns: i64,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX) }
    }
    fn now_ns(&self) -> i64 {
        self.began_ns.saturating_add(i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Brings the account's orders to their venues until `stop`.
pub async fn run(bus: Bus, caller: Caller, stats: Arc<TaskStats>, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        // See the module: nothing is lost wherever it is dropped.
        () = stop.cancelled() => Ok(()),
        ended = work(&bus, &caller, &stats) => ended,
    }
}

async fn work(bus: &Bus, caller: &Caller, stats: &TaskStats) -> anyhow::Result<()> {
    let (exec, live) = (stream::exec(&caller.account), stream::live(&caller.account));
    // The writer first: what another instance stores from now on ends us at our first word.
    let mut writer = Writer::open(bus, &live).await?;
    let mut journal = Reader::open(bus, &exec, ">", 0).await?;
    let mut state = State::new(&caller.account, &caller.rules);
    recall(bus, caller, &mut state, &mut journal, &live, writer.last_seq()).await?;
    let clock = Clock::start();
    let open = state.open().count();
    tracing::info!(account = caller.account, open, "orders go to live venues");
    stats.opened();
    loop {
        // What is there already; the branch behind it never waits.
        let batch = tokio::select! {
            biased;
            // Cancel safe: it takes messages or nothing.
            batch = journal.next_batch(BATCH_MAX) => batch?,
            () = std::future::ready(()) => Vec::new(),
        };
        hear_all(&mut state, &exec, batch, stats)?;
        match state.next(clock.now_ns()) {
            Step::Store(report) => store(&mut writer, &mut state, &[*report], stats).await?,
            Step::Ask { venue, ask } => {
                let asked_ns = clock.now_ns();
                let venue_ms = state.venue_ms(&venue, asked_ns).unwrap_or_default();
                let answer = caller.ask(&venue, &ask, venue_ms).await;
                let reports = state.answered(&venue, &ask, answer, asked_ns, clock.now_ns())?;
                store(&mut writer, &mut state, &reports, stats).await?;
            }
            Step::Wait { until_ns } => {
                let wait_ns = until_ns.map_or(i64::MAX, |until_ns| until_ns - clock.now_ns()).clamp(0, 60_000_000_000);
                let batch = tokio::select! {
                    biased;
                    // Cancel safe, as above.
                    batch = journal.next_batch(BATCH_MAX) => batch?,
                    () = tokio::time::sleep(Duration::from_nanos(wait_ns.unsigned_abs())) => Vec::new(),
                };
                hear_all(&mut state, &exec, batch, stats)?;
            }
        }
        stats.state(journal.pending(), None, writer.last_seq(), writer.resyncs());
    }
}

/// What the streams hold of earlier callers: the journal up to its end, then the reports up to `reported`.
async fn recall(
    bus: &Bus,
    caller: &Caller,
    state: &mut State,
    journal: &mut Reader,
    live: &str,
    reported: u64,
) -> anyhow::Result<()> {
    let exec = stream::exec(&caller.account);
    let end = bus.stream(&exec).await?.last_seq;
    let mut at = journal.cursor();
    while at < end {
        for message in journal.next_batch(BATCH_MAX).await? {
            at = message.seq;
            let head = message.subject.split('.').next().unwrap_or("");
            // A live account has none of these without a report of the venue.
            if reported == 0 && ["ack", "fill", "done", "funding"].contains(&head) {
                let why = format!(
                    "{exec}:{at} is of a simulated venue, and an account is live or simulated for its life: give the live \
                     account a name of its own in executor.accounts and risk.accounts"
                );
                return Err(ConfigError::value("executor.mode", why).into());
            }
            hear(state, &Place::new(&exec, at), &message, true)?;
        }
    }
    if reported > 0 {
        let mut reader = Reader::open(bus, live, ">", 0).await?;
        let mut at = 0;
        while at < reported {
            for message in reader.next_batch(BATCH_MAX).await? {
                at = message.seq;
                let report = LiveReport::decode(&message.payload).with_context(|| format!("read {live}:{at}"))?;
                state.stored(&report);
            }
        }
    }
    Ok(())
}

fn hear_all(state: &mut State, exec: &str, batch: Vec<nats::Message>, stats: &TaskStats) -> anyhow::Result<()> {
    for message in batch {
        hear(state, &Place::new(exec, message.seq), &message, false)?;
        stats.heard(message.seq);
    }
    Ok(())
}

fn hear(state: &mut State, place: &Place, message: &nats::Message, old: bool) -> anyhow::Result<()> {
    let read = || format!("read {}:{}", place.stream, place.seq);
    let payload = &message.payload;
    match message.subject.split('.').next().unwrap_or("") {
        "sending" => {
            let sending = Sending::decode(payload).with_context(read)?;
            state.sending(place.cause(0), sending, message.time_ns, old);
        }
        "cancelling" => state.cancelling(Cancelling::decode(payload).with_context(read)?),
        "done" => state.done(&Done::decode(payload).with_context(read)?.id),
        "reject" => state.done(&Reject::decode(payload).with_context(read)?.id),
        _ => {}
    }
    Ok(())
}

/// Stored first, and only then true.
async fn store(
    writer: &mut Writer,
    state: &mut State,
    reports: &[LiveReport],
    stats: &TaskStats,
) -> anyhow::Result<()> {
    for report in reports {
        writer.push(report.subject(), report.encode()).await?;
    }
    writer.drain().await?;
    for report in reports {
        state.stored(report);
        tell(report);
    }
    stats.said(writer.last_seq());
    Ok(())
}

fn tell(report: &LiveReport) {
    let what = match &report.what {
        LiveWhat::Attempt { .. } => "attempt",
        LiveWhat::Acked { .. } => "acked",
        LiveWhat::Filled { .. } => "filled",
        LiveWhat::Rejected { .. } => "rejected",
        LiveWhat::Ended { .. } => "ended",
    };
    tracing::info!(
        account = report.account,
        venue = report.venue,
        symbol = report.symbol,
        id = report.id,
        what,
        "live order"
    );
}
