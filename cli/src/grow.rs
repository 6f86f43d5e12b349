//! `tapeline grow`: the streams of one server move to a cluster and keep every sequence.
//!
//! The store of a single server cannot be opened by a cluster (it deletes such streams after 30 s), so the cluster
//! mirrors them over a leafnode link, and its mirrors become the streams:
//!
//! * `copy`, while stages run: one mirror a stream. Sequences, times and headers come along.
//! * `finish`, when they are stopped: the old streams get another subject, so that nothing can be stored there any
//!   more; the sequencers drain; every message is compared; then the mirrors are promoted, sequencers last, each
//!   source from the sequence behind the one that it has heard.
//!
//! Every step looks at the servers and not at a note of ours, so a command that was killed is run again. The old
//! streams keep their messages.

mod compare;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use nats::{Bus, Login};
use serde_json::{Value, json};

use crate::target;
use view::{Stand, StreamView};

/// One request; it is repeated `REQUEST_TRIES_MAX` times while the other side does not answer.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
const REQUEST_TRIES_MAX: u32 = 6;
/// How long a server that is not there is waited for.
const CONNECT_S_MAX: u64 = 10;
/// How long stages may take to say that they still run.
const STAGES_WAIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// `tapeline grow`
#[derive(clap::Args)]
#[command(
    after_help = "Order: start the old server with deploy/nats/grow-from.conf and the cluster with grow-into.conf; \
`grow copy`; stop the stages; `grow finish --yes`; start the stages with NATS_URL of the cluster.
The operator's password comes from NATS_PASSWORD; that of the old server from TAPELINE_OLD_PASSWORD when it differs.
Examples:
  tapeline grow status --old nats://127.0.0.1:4222 --new nats://node-1:4222,nats://node-2:4222
  tapeline grow copy   --old nats://127.0.0.1:4222 --new nats://node-1:4222,nats://node-2:4222
  tapeline grow finish --old nats://127.0.0.1:4222 --new nats://node-1:4222,nats://node-2:4222 --yes"
)]
pub struct Args {
    #[command(subcommand)]
    phase: Phase,
    /// The single server, started with grow-from.conf
    #[arg(long, global = true, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    old: String,
    /// The cluster, several addresses divided by commas, started with grow-into.conf
    #[arg(long, global = true, env = "NATS_URL", value_name = "URL")]
    new: Option<String>,
    /// Copies of every stream in the cluster
    #[arg(long, global = true, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    /// End with an error when nothing moved for this long
    #[arg(long, global = true, value_name = "S", default_value_t = 60)]
    stall_s_max: u64,
}

#[derive(Subcommand)]
enum Phase {
    /// Where every stream stands; changes nothing
    Status,
    /// Mirror every stream and wait until the mirrors hold what is stored now; stages may run
    Copy,
    /// Freeze the old streams, compare, promote the mirrors; stages must be stopped
    Finish {
        /// The old server takes no facts from here on
        #[arg(long)]
        yes: bool,
    },
    /// Before anything is promoted: take the mirrors away and let the old server store again
    Abort {
        /// The mirrors are deleted
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(args: Args, _data: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    target::block_on(async {
        let growth = Growth::open(&args, json).await?;
        match args.phase {
            Phase::Status => growth.status().await,
            Phase::Copy => growth.copy().await,
            Phase::Finish { yes } => growth.finish(yes).await,
            Phase::Abort { yes } => growth.abort(yes).await,
        }
    })
}

/// Both sides, with the link between them looked at.
struct Growth {
    old: Bus,
    new: Bus,
    /// The old server's JetStream domain.
    domain: String,
    replicas: usize,
    stall_max: Duration,
    json: bool,
}

type Streams = BTreeMap<String, StreamView>;

impl Growth {
    /// Refuses two servers between which nothing can grow.
    async fn open(args: &Args, json: bool) -> anyhow::Result<Self> {
        let Some(cluster) = args.new.as_deref().filter(|url| !url.is_empty()) else {
            let what = "name the cluster with --new or NATS_URL\n";
            clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, what).exit()
        };
        let password = std::env::var("NATS_PASSWORD").ok();
        let old_password = std::env::var("TAPELINE_OLD_PASSWORD").ok().or_else(|| password.clone());
        let old = connect(&args.old, old_password).await.context("connect to the old server")?;
        let new = connect(cluster, password).await.context("connect to the cluster")?;
        let domain = domain(&old, "$JS.API").await.context("ask the old server for its domain")?;
        let Some(domain) = domain else {
            bail!("{} has no JetStream domain: start it with deploy/nats/grow-from.conf", args.old);
        };
        let here = domain_of_cluster(&new).await?;
        ensure!(
            here.as_deref() != Some(domain.as_str()),
            "both sides are domain `{domain}`: --old and --new are the same, or the cluster was not started with \
             deploy/nats/grow-into.conf"
        );
        let growth = Self {
            old,
            new,
            domain,
            replicas: args.replicas.into(),
            stall_max: Duration::from_secs(args.stall_s_max),
            json,
        };
        growth.linked().await?;
        Ok(growth)
    }

    /// The API that the cluster calls by the old server's domain is the old server's.
    async fn linked(&self) -> anyhow::Result<()> {
        let through = streams(&self.new, &self.api()).await.with_context(|| {
            format!(
                "the cluster does not reach domain `{}`: start its nodes with deploy/nats/grow-into.conf and \
                 TAPELINE_GROW_FROM",
                self.domain
            )
        })?;
        let direct = self.olds().await?;
        let identity = |streams: &Streams| streams.values().map(|s| (s.name.clone(), s.created.clone())).collect();
        let (through, direct): (Vec<_>, Vec<_>) = (identity(&through), identity(&direct));
        ensure!(through == direct, "the link of the cluster leads to another server than --old");
        ensure!(!direct.is_empty(), "the old server holds no stream");
        Ok(())
    }

    fn api(&self) -> String {
        format!("$JS.{}.API", self.domain)
    }
    async fn olds(&self) -> anyhow::Result<Streams> {
        streams(&self.old, "$JS.API").await.context("list the old streams")
    }
    async fn news(&self) -> anyhow::Result<Streams> {
        streams(&self.new, "$JS.API").await.context("list the cluster's streams")
    }

    /// Every old stream with where it stands; the first that cannot grow is an error.
    fn stands<'a>(&self, olds: &'a Streams, news: &Streams) -> anyhow::Result<Vec<(&'a StreamView, Stand)>> {
        olds.values()
            .map(|old| {
                old.can_grow()?;
                Ok((old, old.stand(news.get(&old.name), &self.domain)?))
            })
            .collect()
    }

    async fn status(&self) -> anyhow::Result<()> {
        let (olds, news) = (self.olds().await?, self.news().await?);
        self.stands(&olds, &news)?;
        self.show("status", &olds, &news)
    }

    async fn copy(&self) -> anyhow::Result<()> {
        let (olds, news) = (self.olds().await?, self.news().await?);
        let stands = self.stands(&olds, &news)?;
        for (old, _) in stands.iter().filter(|(_, stand)| *stand == Stand::Absent) {
            self.mirror(old).await?;
        }
        // What is stored later comes along too; `finish` waits for it.
        let goal: BTreeMap<&str, u64> =
            stands.iter().filter(|(_, s)| *s != Stand::Promoted).map(|(o, _)| (o.name.as_str(), o.last_seq)).collect();
        self.until("copied", goal.values().sum(), || async {
            let news = self.news().await?;
            let reached = |(name, goal): (&&str, &u64)| news.get(*name).map_or(0, |s| s.last_seq.min(*goal));
            Ok((goal.iter().map(reached).sum(), Vec::new()))
        })
        .await?;
        self.show("copied", &self.olds().await?, &self.news().await?)
    }

    async fn mirror(&self, old: &StreamView) -> anyhow::Result<()> {
        let config = old.mirror_config(&self.domain, self.replicas);
        let made = api(&self.new, &format!("$JS.API.STREAM.CREATE.{}", old.name), &config).await;
        made.map(drop).with_context(|| format!("mirror {} with {} replicas", old.name, self.replicas))
    }

    async fn finish(&self, yes: bool) -> anyhow::Result<()> {
        let (olds, news) = (self.olds().await?, self.news().await?);
        let stands = self.stands(&olds, &news)?;
        if let Some((old, _)) = stands.iter().find(|(_, stand)| *stand == Stand::Absent) {
            bail!("{} has no mirror yet: run `tapeline grow copy` first", old.name);
        }
        if stands.iter().all(|(_, stand)| *stand == Stand::Promoted) {
            // A retired stream that listens again would be a second truth.
            if let Some((old, _)) = stands.iter().find(|(old, _)| !old.is_sequencer() && !old.is_retired()) {
                bail!("{} is promoted, but the old server stores it again: stop the old server", old.name);
            }
            return self.show("promoted", &olds, &news);
        }
        let running = nats::stats::gather(&self.old, STAGES_WAIT).await?;
        if !running.is_empty() {
            let names: Vec<_> = running.iter().map(|s| s.stage.as_str()).collect();
            bail!("stages still run ({}): stop them, then finish", names.join(", "));
        }
        ensure!(yes, "from here on the old server takes no facts: add --yes");

        for (old, _) in &stands {
            let Some(config) = old.retired_config() else { continue };
            let retired = api(&self.old, &format!("$JS.API.STREAM.UPDATE.{}", old.name), &config).await;
            retired.with_context(|| format!("retire {} on the old server", old.name))?;
        }
        self.drain().await?;
        let olds = self.olds().await?;
        self.catch_up(&olds).await?;
        self.compare(&olds).await?;
        self.promote(&olds).await?;
        self.show("promoted", &olds, &self.news().await?)
    }

    /// Waits until every sequencer of the old server has heard all that its sources hold, and until leases have expired:
    /// what moves by itself has to stand still before it is compared.
    async fn drain(&self) -> anyhow::Result<()> {
        self.until("drained", 0, || async {
            let olds = self.olds().await?;
            let mut heard = 0;
            let mut missing = Vec::new();
            for desk in olds.values().filter(|s| s.is_sequencer()) {
                heard += desk.last_seq;
                missing.extend(compare::unheard(&self.old, desk).await?);
            }
            let expiring = olds.values().filter(|s| s.forgets() && s.messages > 0);
            missing.extend(expiring.map(|s| format!("{} entries of {} have not expired", s.messages, s.name)));
            Ok((heard, missing))
        })
        .await
        .context("the old server does not come to rest")
    }

    /// Waits until every mirror ends where its frozen stream ends, on all replicas.
    async fn catch_up(&self, olds: &Streams) -> anyhow::Result<()> {
        // A mirror does not hear of messages that expired before they were copied; made anew it begins behind them.
        for (old, stand) in self.stands(olds, &self.news().await?)? {
            if old.messages == 0 && stand == (Stand::Copying { lag: 0 }) {
                let new = self.news().await?;
                if new.get(&old.name).is_some_and(|new| new.last_seq < old.last_seq) {
                    api(&self.new, &format!("$JS.API.STREAM.DELETE.{}", old.name), &json!({})).await?;
                    self.mirror(old).await?;
                }
            }
        }
        self.until("caught up", olds.values().map(|s| s.last_seq).sum(), || async {
            let news = self.news().await?;
            let mut reached = 0;
            let mut missing = Vec::new();
            for (old, stand) in self.stands(olds, &news)? {
                let Some(new) = news.get(&old.name) else { bail!("{} vanished from the cluster", old.name) };
                if stand == Stand::Promoted {
                    reached += old.last_seq;
                    continue;
                }
                ensure!(new.last_seq <= old.last_seq, "{} is longer in the cluster than its origin", old.name);
                reached += new.last_seq;
                if new.last_seq < old.last_seq || !new.replicated(self.replicas) {
                    missing.push(format!("{} at {} of {}", old.name, new.last_seq, old.last_seq));
                }
            }
            Ok((reached, missing))
        })
        .await
        .context(
            "the mirrors (one whose origin lost its last message to an expiry or a delete can never catch up; its \
             sequences cannot be kept)",
        )
    }

    async fn compare(&self, olds: &Streams) -> anyhow::Result<()> {
        let news = self.news().await?;
        let bar = self.bar("compared", olds.values().map(|s| s.messages).sum());
        for (old, stand) in self.stands(olds, &news)? {
            if stand != Stand::Promoted {
                compare::same(&self.old, &self.new, old, &bar)
                    .await
                    .with_context(|| format!("compare {} with its mirror; nothing is promoted yet", old.name))?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Sequencers last: their sources have to be streams that can be asked.
    async fn promote(&self, olds: &Streams) -> anyhow::Result<()> {
        let news = self.news().await?;
        let mut stands = self.stands(olds, &news)?;
        stands.sort_by_key(|(old, _)| old.is_sequencer());
        for (old, _) in stands.iter().filter(|(_, stand)| *stand != Stand::Promoted) {
            let last_seq = |stream: &str| olds.get(stream).map_or(0, |s| s.last_seq);
            let config = old.promoted_config(&self.domain, self.replicas, last_seq)?;
            let made = api(&self.new, &format!("$JS.API.STREAM.UPDATE.{}", old.name), &config)
                .await
                .with_context(|| format!("promote {}; run `tapeline grow finish` again to go on", old.name))?;
            let now = StreamView::read(&made)?;
            ensure!(
                now.last_seq == old.last_seq || old.is_sequencer(),
                "{} ends at {} after its promotion, its origin at {}",
                old.name,
                now.last_seq,
                old.last_seq
            );
        }
        Ok(())
    }

    async fn abort(&self, yes: bool) -> anyhow::Result<()> {
        let (olds, news) = (self.olds().await?, self.news().await?);
        let stands = self.stands(&olds, &news)?;
        if let Some((old, _)) = stands.iter().find(|(_, stand)| *stand == Stand::Promoted) {
            bail!("{} is promoted: the cluster is the truth now; go on with `tapeline grow finish`", old.name);
        }
        ensure!(yes, "the mirrors are deleted and the old server stores again: add --yes");
        for (old, stand) in &stands {
            if *stand != Stand::Absent {
                let gone = api(&self.new, &format!("$JS.API.STREAM.DELETE.{}", old.name), &json!({})).await;
                gone.with_context(|| format!("delete the mirror {}", old.name))?;
            }
            if let Some(config) = old.restored_config()? {
                let back = api(&self.old, &format!("$JS.API.STREAM.UPDATE.{}", old.name), &config).await;
                back.with_context(|| format!("give {} its subjects back", old.name))?;
            }
        }
        self.show("aborted", &self.olds().await?, &self.news().await?)
    }

    /// Asks until nothing is missing and `goal` is reached; ends with an error when no number moves for `stall_max`.
    async fn until<F>(&self, what: &str, goal: u64, mut look: impl FnMut() -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<(u64, Vec<String>)>>,
    {
        let bar = self.bar(what, goal);
        let mut moved = Instant::now();
        let mut before = None;
        loop {
            let (reached, missing) = look().await?;
            bar.set_position(reached);
            if missing.is_empty() && reached >= goal {
                bar.finish_and_clear();
                return Ok(());
            }
            if before != Some((reached, missing.len())) {
                (moved, before) = (Instant::now(), Some((reached, missing.len())));
            }
            if moved.elapsed() > self.stall_max {
                bar.finish_and_clear();
                bail!(
                    "nothing moved for {} s at {reached} of {goal} messages: {}",
                    self.stall_max.as_secs(),
                    missing.join(", ")
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn bar(&self, what: &str, length: u64) -> ProgressBar {
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new(length) };
        if let Ok(style) = ProgressStyle::with_template("  {msg:10} {bar:40} {human_pos}/{human_len} messages {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    fn show(&self, phase: &str, olds: &Streams, news: &Streams) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for old in olds.values() {
            let new = news.get(&old.name);
            let stand = old.stand(new, &self.domain)?;
            rows.push((old, new, stand));
        }
        if self.json {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(old, new, stand)| {
                    json!({"stream": old.name, "state": stand.word(), "retired": old.is_retired(), "messages": old.messages,
                        "old_last_seq": old.last_seq, "new_last_seq": new.map(|n| n.last_seq), "replicas": new.map(|n| n.replicas)})
                })
                .collect();
            println!("{}", json!({"phase": phase, "domain": self.domain, "streams": rows}));
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "stream",
            "old last seq",
            "new last seq",
            "replicas",
            "state",
        ]);
        for (old, new, stand) in rows {
            let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
            table.add_row([
                old.name.clone(),
                old.last_seq.to_string(),
                number(new.map(|n| n.last_seq)),
                number(new.map(|n| n.replicas as u64)),
                stand.word().to_owned(),
            ]);
        }
        println!("{table}");
        println!("{phase}: {} streams", olds.len());
        if phase == "promoted" {
            println!(
                "Start the stages with NATS_URL of the cluster; stop the old server and keep its store for a while."
            );
        }
        Ok(())
    }
}

async fn connect(url: &str, password: Option<String>) -> anyhow::Result<Bus> {
    let mut config = nats::Config::load(None)?;
    config.connection.outage_s_max = CONNECT_S_MAX;
    let user = password.as_ref().map(|_| target::OPERATOR.to_owned());
    Ok(Bus::connect(Login { url: url.to_owned(), stage: target::OPERATOR.to_owned(), user, password }, config).await?)
}

/// The JetStream domain behind an API prefix.
async fn domain(bus: &Bus, prefix: &str) -> anyhow::Result<Option<String>> {
    let info = api(bus, &format!("{prefix}.INFO"), &json!({})).await?;
    Ok(info["domain"].as_str().map(str::to_owned))
}

async fn domain_of_cluster(bus: &Bus) -> anyhow::Result<Option<String>> {
    domain(bus, "$JS.API").await.context("ask the cluster for its domain (are at least two of three nodes up?)")
}

/// All streams behind an API prefix, by name.
async fn streams(bus: &Bus, prefix: &str) -> anyhow::Result<Streams> {
    let mut all = Streams::new();
    loop {
        let page = api(bus, &format!("{prefix}.STREAM.LIST"), &json!({ "offset": all.len() })).await?;
        if let Some(missing) = page["missing"].as_array().filter(|m| !m.is_empty()) {
            bail!("no answer for {}", json!(missing));
        }
        let before = all.len();
        for stream in page["streams"].as_array().into_iter().flatten() {
            let view = StreamView::read(stream)?;
            all.insert(view.name.clone(), view);
        }
        // A page without news ends the walk, whatever the total says.
        if all.len() == before || all.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
            return Ok(all);
        }
    }
}

/// One request to JetStream. Creates and updates may be repeated: the same configuration changes nothing.
async fn api(bus: &Bus, subject: &str, body: &Value) -> anyhow::Result<Value> {
    let mut trouble = String::new();
    for attempt in 0..REQUEST_TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let request = async_nats::Request::new().payload(body.to_string().into()).timeout(Some(REQUEST_WAIT));
        let reply = tokio::select! {
            biased;
            // Dropping the request loses nothing: the command ends.
            violation = bus.violated() => return Err(violation.into()),
            reply = bus.client().send_request(subject.to_owned(), request) => reply,
        };
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                trouble = error.to_string();
                continue;
            }
        };
        let answer: Value = serde_json::from_slice(&reply.payload).with_context(|| format!("read {subject}"))?;
        let error = &answer["error"];
        if error.is_null() {
            return Ok(answer);
        }
        trouble = format!("{} (err_code {})", error["description"].as_str().unwrap_or("refused"), error["err_code"]);
        // 503: the cluster elects a leader.
        if error["code"] != json!(503) {
            break;
        }
    }
    bail!("{subject}: {trouble}")
}
