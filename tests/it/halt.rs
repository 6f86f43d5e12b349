//! Every halt of a task against a real nats-server: what a start finds, what `tapeline task` says of it, and what
//! its commands do about it. The task folds numbers; its name is one that the program knows.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::checkpoint::{Checkpoint, Header};
use nats::task::{self, Accept};
use nats::telemetry::TaskStats;
use nats::{Bus, BusError, Config, Layout, Stage, StageArgs, TaskSpec, kv};
use schemas::Core;
use serde_json::Value;
use tests::{Server, program, stored, wait_for};
use tokio_util::sync::CancellationToken;

use crate::bus::{Fold, feed, make, make_with, quick, task_streams, totals};

const BOUND: Duration = Duration::from_secs(20);
const TASK: &str = "aggregate.fold";
/// What the program takes for the version of this release's aggregate, and any other.
const OURS: u32 = aggregate::core::AggregateCore::CODE_VERSION;
const OTHER: u32 = OURS + 1;

/// A task with its streams, and an operator beside it.
struct Desk {
    server: Server,
    bus: Bus,
    spec: TaskSpec,
}

impl Desk {
    /// Numbers `1..=n` in IN, nothing folded yet.
    async fn with(n: u64) -> anyhow::Result<Self> {
        let server = Server::start().await?;
        let mut config: Config = quick();
        config.reader.silence_check_ms = 100;
        let bus = server.bus_with("aggregate", config).await?;
        task_streams(&bus, n).await?;
        let bucket = async_nats::jetstream::stream::Config {
            name: "KV_cfg".into(),
            subjects: vec!["$KV.cfg.>".into()],
            max_messages_per_subject: 16,
            ..Default::default()
        };
        make_with(&bus, bucket).await?;
        let (key, input, output) = ("fold".into(), "IN".into(), "OUT".into());
        Ok(Self { server, bus, spec: TaskSpec { key, input, filter: "t.in.number".into(), output } })
    }

    /// One life of the task, until it has read `in_seq` or halts.
    async fn fold<const VERSION: u32>(&self, salt: u64, in_seq: u64) -> anyhow::Result<Result<(), BusError>> {
        let (stop, stats) = (CancellationToken::new(), TaskStats::new("fold"));
        let (bus, spec, token, shared) = (self.bus.clone(), self.spec.clone(), stop.clone(), Arc::clone(&stats));
        let life = tokio::spawn(async move {
            task::run(&bus, &spec, Fold::<VERSION> { total: 0, salt }, Accept::default(), &shared, &token).await
        });
        wait_for("the task to read its input", BOUND, || async {
            (stats.in_seq() >= in_seq || life.is_finished()).then_some(())
        })
        .await?;
        stop.cancel();
        Ok(tokio::time::timeout(BOUND, life).await??)
    }

    /// A start that has to halt.
    async fn halts(&self) -> anyhow::Result<BusError> {
        self.fold::<OURS>(0, u64::MAX).await?.err().context("the task ended in peace")
    }

    async fn header(&self) -> anyhow::Result<Header> {
        let newest = kv::get(&self.bus, "ckpt", TASK).await?.context("no checkpoint")?;
        Ok(Checkpoint::from_bytes(&newest.value)?.header)
    }

    /// `tapeline task ...`: exit code, stdout as JSON, stderr.
    async fn tapeline(&self, args: &[&str]) -> anyhow::Result<(i32, Value, String)> {
        let output = tokio::process::Command::new(program("tapeline")?)
            .args(["--json", "task"])
            .args(args)
            .envs(self.server.env("operator"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(BOUND, output).await.context("tapeline hangs")??;
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().context("killed")?, json, errors))
    }

    /// The verdict of `tapeline task status`, which fails exactly where a start would.
    async fn verdict(&self) -> anyhow::Result<String> {
        let (code, json, errors) = self.tapeline(&["status", TASK]).await?;
        let verdict = json["tasks"][0]["verdict"].as_str().with_context(|| format!("{json} {errors}"))?.to_owned();
        ensure!((code == 0) == ["would open", "begins anew"].contains(&verdict.as_str()), "{code} {verdict}");
        Ok(verdict)
    }

    /// A command that is refused without `--yes`, and then done.
    async fn does(&self, args: &[&str]) -> anyhow::Result<()> {
        let before = self.verdict().await?;
        let (code, _, errors) = self.tapeline(args).await?;
        ensure!(code == 1 && errors.contains("--yes"), "{args:?} without --yes: {code} {errors}");
        ensure!(self.verdict().await? == before, "{args:?} without --yes did something");
        let (code, _, errors) = self.tapeline(&[args, &["--yes"]].concat()).await?;
        ensure!(code == 0, "{args:?}: {code} {errors}");
        Ok(())
    }

    async fn noise(&self, n: u64) -> anyhow::Result<()> {
        let mut writer = nats::Writer::open(&self.bus, "IN").await?;
        for i in 0..n {
            writer.push("t.in.other", i.to_string()).await?;
        }
        Ok(writer.drain().await?)
    }

    async fn expire_before(&self, seq: u64) -> anyhow::Result<()> {
        self.bus.js().get_stream("IN").await?.purge().sequence(seq).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_input_halts_until_the_loss_is_accepted_and_the_word_counts_once() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OURS>(0, 100).await??;
    assert_eq!(desk.verdict().await?, "would open");
    let (code, _, errors) = desk.tapeline(&["accept-loss", TASK, "--yes"]).await?;
    assert!(code == 1 && errors.contains("nothing to accept"), "{code} {errors}");

    for round in 1..=2u64 {
        let end = 100 + 100 * round;
        feed(&desk.bus, end - 99, end).await?;
        desk.expire_before(end - 49).await?;
        let halt = desk.halts().await?;
        assert!(matches!(halt, BusError::InputExpired { .. }), "{halt}");
        let remedy = halt.remedy(TASK).context("a halt has a remedy")?;
        assert!(remedy.contains("tapeline task accept-loss aggregate.fold"), "{remedy}");
        // In the second round the first word is spent.
        assert_eq!(desk.verdict().await?, "input_expired");
        desk.does(&["accept-loss", TASK, "--reason", "disk was full"]).await?;
        assert_eq!(desk.verdict().await?, "would open");
        desk.fold::<OURS>(0, end).await??;
        assert_eq!(desk.bus.stream("OUT").await?.last_seq, 100 + 50 * round, "outputs go on at the next position");
        let accepted = desk.header().await?.accepted.context("not recorded")?;
        assert_eq!((accepted.halts, accepted.in_seq), (vec!["input_expired".to_owned()], end - 50));
        assert_eq!((accepted.by.as_str(), accepted.reason.as_str()), ("operator", "disk was full"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_said_again_after_a_reset_or_left_out_when_accepted() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OURS>(0, 100).await??;
    desk.bus.js().delete_stream("OUT").await?;
    make(&desk.bus, "OUT", "t.out.>").await?;
    assert!(matches!(desk.halts().await?, BusError::LostTail { last: 0, expected: 100, .. }));
    assert_eq!(desk.verdict().await?, "output_lost_tail");
    desk.does(&["reset", TASK]).await?;
    assert_eq!(desk.verdict().await?, "begins anew");
    desk.fold::<OURS>(0, 100).await??;
    assert_eq!(stored(&desk.bus, "OUT").await?, totals(100), "nothing is lost: the whole input is there");

    desk.bus.js().delete_stream("OUT").await?;
    make(&desk.bus, "OUT", "t.out.>").await?;
    desk.does(&["accept-loss", TASK]).await?;
    feed(&desk.bus, 101, 110).await?;
    desk.fold::<OURS>(0, 110).await??;
    let left: Vec<_> = stored(&desk.bus, "OUT").await?.into_iter().map(|(_, _, payload)| payload).collect();
    let wanted: Vec<_> = totals(110).into_iter().skip(100).map(|(_, _, payload)| payload).collect();
    assert_eq!(left, wanted, "the state is kept, what was lost stays lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewritten_input_halts_by_length_and_by_bytes_until_it_is_accepted() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OURS>(0, 100).await??;
    desk.bus.js().delete_stream("IN").await?;
    make(&desk.bus, "IN", "t.in.>").await?;
    assert!(matches!(desk.halts().await?, BusError::InputRewritten { seq: 100, .. }), "shorter");
    assert_eq!(desk.verdict().await?, "input_rewritten");
    feed(&desk.bus, 1001, 1150).await?;
    assert!(matches!(desk.halts().await?, BusError::InputRewritten { seq: 100, .. }), "other bytes");
    assert_eq!(desk.verdict().await?, "input_rewritten");
    desk.does(&["accept-loss", TASK]).await?;
    desk.fold::<OURS>(0, 150).await??;
    assert_eq!(desk.bus.stream("OUT").await?.last_seq, 150);
    assert_eq!(desk.header().await?.accepted.context("not recorded")?.halts, ["input_rewritten"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_at_a_position_halt_until_the_stored_ones_are_taken() -> anyhow::Result<()> {
    let desk = Desk::with(50).await?;
    desk.fold::<OURS>(0, 50).await??;
    let before = kv::get(&desk.bus, "ckpt", TASK).await?.context("no checkpoint")?;
    feed(&desk.bus, 51, 80).await?;
    // Another program says 30 outputs, and its checkpoint is lost with it.
    desk.fold::<OURS>(7, 80).await??;
    kv::put(&desk.bus, "ckpt", TASK, before.value).await?;
    feed(&desk.bus, 81, 90).await?;
    let said = stored(&desk.bus, "OUT").await?;
    let halt = desk.halts().await?;
    assert!(matches!(halt, BusError::Fenced { seq: 51, .. }), "{halt}");
    assert!(halt.remedy(TASK).is_some_and(|r| r.contains("tapeline task status aggregate.fold")));
    assert_eq!(stored(&desk.bus, "OUT").await?, said, "nothing is overwritten");
    desk.does(&["accept-outputs", TASK]).await?;
    desk.fold::<OURS>(0, 90).await??;
    let now = stored(&desk.bus, "OUT").await?;
    assert_eq!(now[..80], said[..], "what was said stands");
    assert_eq!(now[80..], totals(90)[80..], "and our own goes on behind it");
    assert_eq!(desk.header().await?.accepted.context("not recorded")?.halts, ["fenced"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_code_version_halts_until_it_is_accepted_or_everything_is_folded_again() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OTHER>(0, 100).await??;
    assert!(matches!(desk.halts().await?, BusError::CodeVersion { found: OTHER, mine: OURS, .. }));
    assert_eq!(desk.verdict().await?, "code_version", "of another release");
    desk.does(&["accept-version", TASK]).await?;
    feed(&desk.bus, 101, 120).await?;
    desk.fold::<OURS>(0, 120).await??;
    assert_eq!(desk.header().await?.code_version, OURS);

    desk.fold::<OTHER>(0, 0).await?.unwrap_err();
    desk.does(&["reset", TASK]).await?;
    desk.fold::<OTHER>(0, 120).await??;
    assert_eq!(stored(&desk.bus, "OUT").await?, totals(120), "compared, not written again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_without_a_readable_revision_halts_until_it_is_dropped() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OURS>(0, 100).await??;
    for _ in 0..4 {
        kv::put(&desk.bus, "ckpt", TASK, "rubbish".into()).await?;
    }
    assert_eq!(desk.verdict().await?, "would open", "the fifth revision can be read");
    kv::put(&desk.bus, "ckpt", TASK, "rubbish".into()).await?;
    let halt = desk.halts().await?;
    assert!(matches!(halt, BusError::CheckpointUnreadable { .. }), "{halt}");
    assert_eq!(desk.verdict().await?, "checkpoint_unreadable");
    desk.does(&["reset", TASK]).await?;
    desk.fold::<OURS>(0, 100).await??;
    assert_eq!(stored(&desk.bus, "OUT").await?, totals(100));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_would_lose_state_is_refused_unless_the_task_is_to_begin_empty() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    desk.fold::<OURS>(0, 100).await??;
    desk.expire_before(91).await?;
    let (code, _, errors) = desk.tapeline(&["reset", TASK, "--yes"]).await?;
    assert!(code == 1 && errors.contains("IN begins at 91") && errors.contains("--start-empty"), "{errors}");
    assert_eq!(desk.verdict().await?, "would open", "and nothing was dropped");
    desk.does(&["reset", TASK, "--start-empty"]).await?;
    desk.fold::<OURS>(0, 100).await??;
    let last = stored(&desk.bus, "OUT").await?.pop().context("no output")?;
    assert_eq!((last.0, last.2), (110, b"955 at 100".to_vec()), "the sum of 91 to 100, behind what was said");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_is_silent_for_a_whole_retention_period_does_not_halt() -> anyhow::Result<()> {
    let desk = Desk::with(10).await?;
    desk.fold::<OURS>(0, 10).await??;
    // While it runs, the others of its stream say so much that everything it ever read expires, twice.
    let (stop, stats) = (CancellationToken::new(), TaskStats::new("fold"));
    let (bus, spec, token, shared) = (desk.bus.clone(), desk.spec.clone(), stop.clone(), Arc::clone(&stats));
    let life = tokio::spawn(async move {
        task::run(&bus, &spec, Fold::<OURS>::default(), Accept::default(), &shared, &token).await
    });
    for end in [210, 410] {
        desk.noise(200).await?;
        wait_for("the cursor to pass the silence", BOUND, || async { (stats.in_seq() == end).then_some(()) }).await?;
        desk.expire_before(end).await?;
    }
    // Its reader loses the consumer and makes another from the cursor.
    feed(&desk.bus, 411, 411).await?;
    wait_for("the number behind the silence", BOUND, || async { (stats.in_seq() == 411).then_some(()) }).await?;
    stop.cancel();
    tokio::time::timeout(BOUND, life).await???;
    assert_eq!(desk.bus.stream("OUT").await?.last_seq, 11);

    desk.noise(50).await?;
    desk.fold::<OURS>(0, 461).await??;
    assert_eq!(desk.header().await?.in_seq, 461, "the checkpoint passed the silence too");
    desk.expire_before(461).await?;
    assert_eq!(desk.verdict().await?, "would open");
    // But a number that expired unread is a loss.
    feed(&desk.bus, 462, 462).await?;
    desk.noise(1).await?;
    desk.expire_before(463).await?;
    assert!(matches!(desk.halts().await?, BusError::InputExpired { .. }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_or_dropped_while_the_task_runs() -> anyhow::Result<()> {
    let desk = Desk::with(100).await?;
    let args = StageArgs { nats_url: desk.server.url(), ..StageArgs::default() };
    let stage = Stage::start("aggregate", &args).await?;
    stage.task(desk.spec.clone(), Fold::<OURS>::default());
    let running =
        || async { (desk.tapeline(&["status", TASK]).await.ok()?.1["tasks"][0]["instances"] == 1).then_some(()) };
    wait_for("the task to be seen running", BOUND, running).await?;
    for command in ["accept-loss", "accept-version", "accept-outputs", "reset"] {
        let (code, _, errors) = desk.tapeline(&[command, TASK, "--yes"]).await?;
        assert!(code == 1 && errors.contains("runs") && errors.contains("stop its stage"), "{command}: {errors}");
    }
    stage.stop().cancel();
    tokio::time::timeout(BOUND, stage.wait()).await??;
    assert_eq!(desk.verdict().await?, "would open");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_with_another_number_of_partitions_than_the_streams_refuse_to_start() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let operator = server.bus("operator").await?;
    let layout =
        Layout { venues: vec!["binance".into()], accounts: vec!["main".into()], traders: vec![], partitions: 4 };
    layout.apply(&operator).await?;
    let config = server.dir().join("tapeline.toml");
    std::fs::write(&config, "[aggregate]\nvenues = [\"binance\"]\n[strategy]\nvenues = [\"binance\"]\n")?;
    for stage in ["aggregate", "strategy"] {
        let run = tokio::process::Command::new(program(stage)?)
            .arg("--config")
            .arg(&config)
            .args(["--partitions", "2"])
            .envs(server.env(stage))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(BOUND, run).await.with_context(|| format!("{stage} runs on"))??;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{stage}: {errors}");
        assert!(errors.contains("--partitions 4") && errors.contains("frozen"), "{stage}: {errors}");
    }
    Ok(())
}
