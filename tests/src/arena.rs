//! The place of a disturbed run: servers, stages behind proxies, and the inputs that the undisturbed run had.
//!
//! RAW, candles and signals follow from the recording. The desk is merged by the server, and its recorded order *is*
//! the input of risk and executor: so it is stored again here, fact by fact at the same sequences, in place of the
//! sequencer. Everything that the stages say then has one right form.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nats::Bus;
use schemas::subject::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::compare::{self, Compared};
use crate::feed::Feed;
use crate::fleet::{Fleet, STAGES};
use crate::proxy::Proxy;
use crate::session::{self, ACCOUNT, Reference, VENUE};
use crate::within;

/// How long the rest of a session may take once nobody disturbs it.
const FINISH_BOUND: Duration = Duration::from_secs(240);
/// How long one stream of a failed run may take to be compared.
const SO_FAR_BOUND: Duration = Duration::from_secs(10);
/// Checkpoints often and connects again soon, so that kills fall on more of the protocol.
const HASTE: &str = "
[nats.connection]
reconnect_delay_ms_max = 200
[nats.task]
checkpoint_ms_max = 400
";

/// A disturbed run of a recorded session.
pub struct Arena {
    pub servers: Cluster,
    pub fleet: Fleet,
    pub bus: Bus,
    /// By stage, one for each node; empty when stages connect directly.
    pub proxies: BTreeMap<&'static str, Vec<Proxy>>,
    database: String,
    mark: watch::Sender<u64>,
    fed: watch::Receiver<u64>,
    feed: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What a disturbed run stored, beside what it should have.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub streams: Vec<Compared>,
    pub differences: Vec<String>,
}

impl Arena {
    /// Starts servers and stages; the recording runs at `speed`, the desk waits for [`Arena::desk_up_to`].
    pub async fn start(reference: &Reference, nodes: usize, speed: f64, proxied: bool) -> anyhow::Result<Self> {
        let servers = Cluster::start(nodes).await?;
        let bus = servers.operator().await?;
        servers.create(&bus, &reference.session.layout()).await?;
        let desk = Feed::sequencer(&reference.bus, &stream::desk(ACCOUNT), &bus, nodes).await?;
        let database = session::database(servers.dir());
        session::make_database(&database).await?;
        let config = servers.dir().join("tapeline.toml");
        std::fs::write(&config, reference.session.configuration(&database, speed, HASTE))?;

        let (mut proxies, mut env) = (BTreeMap::new(), BTreeMap::new());
        for stage in STAGES {
            let direct: Vec<u16> = (0..nodes).map(|node| servers.node(node).port()).collect();
            let mut between = Vec::new();
            for port in direct.iter().filter(|_| proxied) {
                between.push(Proxy::start(*port).await?);
            }
            let ports = if proxied { between.iter().map(Proxy::port).collect() } else { direct };
            env.insert(stage, servers.env(stage, &ports));
            proxies.insert(stage, between);
        }
        let args = vec!["--partitions".to_owned(), reference.session.partitions.to_string()];
        let mut fleet = Fleet::new(servers.dir(), &config, args, env);
        for stage in STAGES {
            fleet.spawn(stage)?;
        }
        let (mark, marks) = watch::channel(0);
        let (progress, fed) = watch::channel(0);
        let feed = Some(tokio::spawn(follow(desk, marks, progress)));
        Ok(Self { servers, fleet, bus, proxies, database, mark, fed, feed })
    }

    /// Lets the recorded desk be stored up to this sequence, in the background.
    pub fn desk_up_to(&self, seq: u64) {
        self.mark.send_if_modified(|mark| {
            let news = seq > *mark;
            *mark = seq.max(*mark);
            news
        });
    }
    /// How far it is stored.
    pub fn desk_fed(&self) -> u64 {
        *self.fed.borrow()
    }

    /// Looks after the stages: what lost its task to another instance is replaced, any other end is an error. Gives
    /// how many lost theirs.
    pub fn look_after(&mut self) -> anyhow::Result<u32> {
        let mut ousted = 0;
        for end in self.fleet.ended()? {
            if !end.ousted {
                bail!("{} ended by itself:\n{}", end.stage, end.words);
            }
            ousted += 1;
            if self.fleet.count(end.stage) == 0 {
                self.fleet.spawn(end.stage)?;
            }
        }
        Ok(ousted)
    }

    /// Ends the disturbance: one running instance of each stage, nothing held, the rest of the inputs at once; waits
    /// until every stream is as long as it should be and the ledger has written it.
    pub async fn finish(&mut self, reference: &Reference) -> anyhow::Result<()> {
        for node in 0..self.servers.nodes() {
            self.servers.resume(node)?;
        }
        self.proxies.values().flatten().for_each(|proxy| proxy.hold(false));
        self.fleet.resume_all()?;
        // The recording's pace is no part of its facts.
        let config = self.servers.dir().join("tapeline.toml");
        std::fs::write(config, reference.session.configuration(&self.database, 0.0, HASTE))?;
        while self.fleet.kill9("ingest")? {}
        for stage in STAGES {
            while self.fleet.count(stage) > 1 {
                self.fleet.kill9(stage)?;
            }
            if self.fleet.count(stage) == 0 {
                self.fleet.spawn(stage)?;
            }
        }
        self.desk_up_to(u64::MAX);
        let finished = within(FINISH_BOUND, async || {
            self.look_after()?;
            if self.feed.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(feed) = self.feed.take()
            {
                feed.await.context("the desk's feed panicked")??;
            }
            let ends = session::ends(&self.bus, &reference.session).await?;
            let long_enough = reference.ends.iter().all(|(name, end)| ends.get(name) >= Some(end));
            let written = long_enough && session::written(&self.database, &ends).await?;
            Ok(written.then_some(()))
        })
        .await?;
        if finished.is_none() {
            // The comparison says where it stopped.
            eprintln!("not finished within {FINISH_BOUND:?}\n{}", self.fleet.logs());
        }
        Ok(())
    }

    /// Compares everything with the undisturbed run. The stages are ended first: what they would still say counts
    /// as said too late.
    pub async fn verify(&mut self, reference: &Reference) -> anyhow::Result<Verdict> {
        self.quiet().await?;
        self.fleet.kill_all();
        let (mut streams, mut differences) = (Vec::new(), Vec::new());
        for name in reference.session.streams() {
            let compared = compare::stream(&reference.bus, &self.bus, &name).await?;
            differences.extend(compared.difference.clone());
            streams.push(compared);
        }
        differences.extend(compare::tables(&reference.tables, &session::tables(&self.database).await?));
        let state = session::desk_state(&self.bus).await?;
        if state != reference.desk_state {
            differences.push(format!("KV cfg: expected {:?}, found {state:?}", reference.desk_state));
        }
        Ok(Verdict { streams, differences })
    }

    /// What differs already, for a run that failed before its end; what cannot be asked any more is left out.
    pub async fn so_far(&self, reference: &Reference) -> String {
        let mut told = Vec::new();
        for name in reference.session.streams() {
            let asked = tokio::time::timeout(SO_FAR_BOUND, compare::so_far(&reference.bus, &self.bus, &name)).await;
            told.extend(asked.ok().and_then(Result::ok).flatten());
        }
        if told.is_empty() { "what is stored so far does not differ".to_owned() } else { told.join("\n") }
    }

    /// Waits until no task has inputs that wait, so that facts too many would be seen.
    async fn quiet(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            let answers = nats::stats::gather(&self.bus, Duration::from_millis(150)).await?;
            let all = STAGES.iter().all(|s| *s == "ingest" || answers.iter().any(|a| a.stage == *s));
            if all && answers.iter().all(|a| a.lag() == 0) {
                break;
            }
        }
        Ok(())
    }

    /// Facts of the recording that are stored.
    pub async fn raw(&self) -> anyhow::Result<u64> {
        Ok(self.bus.stream(&stream::raw(VENUE)).await?.last_seq)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

async fn follow(mut desk: Feed, mut marks: watch::Receiver<u64>, progress: watch::Sender<u64>) -> anyhow::Result<()> {
    while desk.fed() < desk.last() {
        let mark = *marks.borrow_and_update();
        desk.up_to(mark).await?;
        progress.send_replace(desk.fed());
        if desk.fed() < desk.last() && marks.changed().await.is_err() {
            break;
        }
    }
    Ok(())
}
