//! A real nats-server with `nats/conf/server.conf`: a stage can say what is its own and nothing else.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_nats::HeaderMap;
use futures_util::StreamExt;
use nats::{Bus, BusError, Config, Layout, Reader, Writer, kv};
use tests::{Server, USERS, wait_for};

const BOUND: Duration = Duration::from_secs(10);

/// Who may say what: every subject of the system with its owners.
const SAID: &[(&str, &[&str])] = &[
    ("raw.0.x.trade.A", &["ingest"]),
    ("raw.0.x.dead", &["ingest"]),
    ("candle.0.x.1m.A", &["aggregate"]),
    ("indicator.0.x.1m.A", &["aggregate"]),
    ("late.0.x.A", &["aggregate"]),
    ("preview.0.x.1m.A", &["aggregate"]),
    ("signal.0.ema.x.A", &["strategy"]),
    ("signal.llm.owl.x.A", &["strategy"]),
    ("llm.owl.prompt", &["strategy"]),
    ("llm.owl.reply", &["strategy"]),
    ("llm.owl.verdict", &["strategy"]),
    ("signal.ext.mine.x.A", &["external"]),
    ("intent.main.x.A", &["risk"]),
    ("order.main.x.A", &["risk"]),
    ("cancel.main.x.A", &["risk"]),
    ("refusal.main.x.A", &["risk"]),
    ("position.main.x.A", &["risk"]),
    ("account.main", &["risk"]),
    ("state.main", &["risk"]),
    ("sending.main.x.A", &["executor"]),
    ("cancelling.main.x.A", &["executor"]),
    ("ack.main.x.A", &["executor"]),
    ("fill.main.x.A", &["executor"]),
    ("reject.main.x.A", &["executor"]),
    ("done.main.x.A", &["executor"]),
    ("funding.main.x.A", &["executor"]),
    ("live.main.x.A", &["executor"]),
    ("$KV.cfg.desk.main", &["risk"]),
    ("$KV.cfg.other", &[]),
    ("$KV.instruments.x.A", &["ingest"]),
    ("$KV.quota.default.x.rest", &["ingest"]),
    ("ctl.ingest.x", &[]),
    ("$KV.ckpt.ingest.x", &["ingest"]),
    ("$KV.ckpt.aggregate.x.0", &["aggregate"]),
    ("$KV.ckpt.strategy.x.0", &["strategy"]),
    ("$KV.ckpt.risk.main", &["risk"]),
    ("$KV.ckpt.executor.main", &["executor"]),
    ("$KV.ckpt.ledger.all", &["ledger"]),
    ("$KV.lease.aggregate.task.x.0", &["aggregate"]),
    ("$KV.lease.aggregate.member.i", &["aggregate"]),
    ("$KV.lease.strategy.task.x.0", &["strategy"]),
    ("$KV.lease.risk.task.main", &["risk"]),
    ("$KV.lease.executor.task.main", &["executor"]),
    ("$KV.cfg.accept.risk.main", &[]),
    ("log.risk", &["risk"]),
    ("log.gateway", &["gateway"]),
];

async fn rights() -> anyhow::Result<(Server, Bus)> {
    let server = Server::start_with_rights().await?;
    let operator = server.bus("operator").await?;
    let layout =
        Layout { venues: vec!["x".into()], accounts: vec!["main".into()], traders: vec!["owl".into()], partitions: 1 };
    layout.apply(&operator).await?;
    Ok((server, operator))
}

/// What the server says to one publish of a user: the violation names the subject; silence is a yes, which the
/// PONG of a request behind it shows.
async fn may_publish(server: &Server, user: &str, subject: &str) -> anyhow::Result<bool> {
    let (refusals, mut heard) = tokio::sync::mpsc::channel::<String>(16);
    let client = async_nats::ConnectOptions::new()
        .user_and_password(user.to_owned(), Server::password(user))
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .event_callback(move |event| {
            let refusals = refusals.clone();
            async move {
                // A full queue holds the refusal that counts already.
                let _ = refusals.try_send(event.to_string());
            }
        })
        .connect(server.url())
        .await?;
    // A stream would refuse this position, so nothing is stored by asking.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Sequence", "999999999");
    client.publish_with_headers(subject.to_owned(), headers, "".into()).await?;
    // Behind it, something this server answers to everybody: a publish that nobody may do. Its refusal comes after
    // the answer to ours, because the server works through a connection in order.
    client.publish("nobody.may.say.this", "".into()).await?;
    let operator = user == "operator";
    if operator {
        return Ok(true);
    }
    loop {
        let event =
            tokio::time::timeout(BOUND, heard.recv()).await.context("no answer from the server")?.context("closed")?;
        if event.contains("Permissions Violation") || event.contains("permissions violation") {
            if event.to_lowercase().contains("nobody.may.say.this") {
                return Ok(true);
            }
            ensure!(event.to_lowercase().contains(&subject.to_lowercase()), "{event} is not about {subject}");
            return Ok(false);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_may_say_its_own_subjects_and_none_of_the_others() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for user in USERS.iter().filter(|user| **user != "operator") {
        for (subject, owners) in SAID {
            asked += 1;
            let may = may_publish(&server, user, subject).await?;
            if may != owners.contains(user) {
                wrong.push(format!("{user} {} say {subject}", if may { "may" } else { "may not" }));
            }
        }
    }
    assert_eq!(asked, (USERS.len() - 1) * SAID.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_writes_reads_and_checkpoints_with_its_own_rights_alone() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let ingest = server.bus("ingest").await?;
    let mut writer = Writer::open(&ingest, "RAW_X").await?;
    writer.push("raw.0.x.trade.A", "1").await?;
    writer.drain().await?;

    let aggregate = server.bus("aggregate").await?;
    let mut reader = Reader::open(&aggregate, "RAW_X", "raw.0.x.>", 1).await?;
    assert_eq!(tokio::time::timeout(BOUND, reader.next()).await??.seq, 1);
    let mut writer = Writer::resume(&aggregate, "AGG_X_0", 0).await?;
    writer.push("candle.0.x.1m.A", "candle").await?;
    writer.drain().await?;
    kv::update(&aggregate, "ckpt", "aggregate.x.0", "state".into(), 0).await?;
    assert_eq!(kv::history(&aggregate, "ckpt", "aggregate.x.0").await?.len(), 1);

    for (stage, stream) in
        [("strategy", "AGG_X_0"), ("risk", "DESK_main"), ("executor", "DESK_main"), ("ledger", "AGG_X_0")]
    {
        let bus = server.bus(stage).await?;
        let mut reader = Reader::open(&bus, stream, ">", 1).await?;
        tokio::time::timeout(BOUND, reader.next()).await.with_context(|| format!("{stage} reads {stream}"))??;
        assert!(bus.violation().is_none(), "{stage}: {:?}", bus.violation());
    }
    let gateway = server.bus("gateway").await?;
    let ask = serde_json::json!({ "last_by_subj": "candle.0.x.1m.A" }).to_string();
    let newest = gateway.client().request("$JS.API.DIRECT.GET.AGG_X_0", ask.into()).await?;
    assert_eq!(&newest.payload[..], b"candle");
    assert!(gateway.violation().is_none(), "{:?}", gateway.violation());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_is_an_error_that_names_the_subject_and_not_a_silence() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let strategy = server.bus("strategy").await?;
    let mut writer = Writer::resume(&strategy, "RISK_main", 0).await?;
    writer.push("order.main.x.A", "buy everything").await?;
    let error = tokio::time::timeout(BOUND, writer.drain()).await?.unwrap_err();
    assert!(matches!(error, BusError::Rights(_)) && error.to_string().contains("order.main.x.A"), "{error}");

    let aggregate = server.bus("aggregate").await?;
    let error = tokio::time::timeout(BOUND, Reader::open(&aggregate, "RISK_main", "order.>", 1)).await?.err();
    let error = error.context("aggregate reads orders")?;
    assert!(matches!(error, BusError::Rights(_)), "{error}");

    let gateway = server.bus("gateway").await?;
    let error = tokio::time::timeout(BOUND, kv::put(&gateway, "cfg", "desk.main", "active".into())).await?.unwrap_err();
    assert!(matches!(error, BusError::Rights(_)), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_process_ends_when_the_server_refuses_it_something() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let args = nats::StageArgs {
        nats_url: server.url(),
        user: Some("ledger".into()),
        password: Some(Server::password("ledger")),
        ..Default::default()
    };
    let stage = nats::Stage::start("ledger", &args).await?;
    let (bus, stop) = (stage.bus(), stage.stop());
    stage.spawn("work", async move {
        bus.publish("order.main.x.A".to_owned(), "buy").await?;
        stop.cancelled().await;
        Ok(())
    });
    let error = tokio::time::timeout(BOUND, stage.wait()).await?.unwrap_err().to_string();
    assert!(error.contains("rights") && error.contains("order.main.x.A"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_answers_the_service_protocol_with_its_own_rights() -> anyhow::Result<()> {
    let (server, operator) = rights().await?;
    for name in ["ingest", "aggregate", "strategy", "risk", "executor", "ledger", "gateway"] {
        let args = nats::StageArgs {
            nats_url: server.url(),
            user: Some(name.into()),
            password: Some(Server::password(name)),
            ..Default::default()
        };
        let stage = nats::Stage::start(name, &args).await?;
        let asked = &operator;
        wait_for("$SRV.STATS", BOUND, || async {
            let reply = asked.client().request(format!("$SRV.STATS.tapeline-{name}"), "".into()).await.ok()?;
            let stats: serde_json::Value = serde_json::from_slice(&reply.payload).ok()?;
            (stats["endpoints"][0]["data"]["stage"] == name).then_some(())
        })
        .await
        .with_context(|| name.to_owned())?;
        stage.stop().cancel();
        stage.wait().await.with_context(|| format!("{name} was refused something"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_the_answers_to_another_stage() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let strategy = server.bus("strategy").await?;
    let _listener = strategy.client().subscribe("_INBOX_risk.>").await?;
    let violation = tokio::time::timeout(BOUND, strategy.violated()).await?;
    assert!(violation.to_string().contains("_INBOX_risk"), "{violation}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_cannot_make_or_delete_streams() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    for user in ["risk", "gateway", "external"] {
        for api in ["STREAM.CREATE.MINE", "STREAM.DELETE.RAW_X", "STREAM.PURGE.EXEC_main", "STREAM.MSG.DELETE.RAW_X"] {
            assert!(!may_publish(&server, user, &format!("$JS.API.{api}")).await?, "{user} {api}");
        }
        // Without a name in the subject the filter would be hidden.
        assert!(!may_publish(&server, user, "$JS.API.CONSUMER.CREATE.RAW_X").await?, "{user}");
    }
    for user in ["gateway", "external"] {
        assert!(!may_publish(&server, user, "$JS.API.CONSUMER.CREATE.RAW_X.c.raw.>").await?, "{user}");
    }
    Ok(())
}

/// A push consumer that delivers stored facts of `stream` to `subject`, made with the rights of `reader`.
async fn deliver(reader: &Bus, stream: &str, name: &str, filter: &str, subject: &str) -> anyhow::Result<()> {
    let config = serde_json::json!({ "name": name, "deliver_subject": subject, "ack_policy": "none",
        "filter_subject": filter, "deliver_policy": "all", "inactive_threshold": 60_000_000_000u64 });
    let body = serde_json::json!({ "stream_name": stream, "config": config, "action": "create" }).to_string();
    let api = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}");
    let made = reader.client().request(api, body.into()).await?;
    let made: serde_json::Value = serde_json::from_slice(&made.payload)?;
    ensure!(made["error"].is_null(), "{made}");
    Ok(())
}

/// The server checks no right for what a push consumer delivers. But a delivery keeps the subject that it was stored
/// under, and the header that a stage's writer gave it and that names its stream, so no other stream takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_cannot_put_words_into_the_stream_of_another_stage() -> anyhow::Result<()> {
    let (server, operator) = rights().await?;
    let mut writer = Writer::resume(&server.bus("aggregate").await?, "AGG_X_0", 0).await?;
    writer.push("candle.0.x.1m.A", "candle").await?;
    writer.drain().await?;
    let strategy = server.bus("strategy").await?;
    // Deliveries begin when somebody listens to exactly the subject.
    let mut watched = Vec::new();
    for (name, subject) in [("order", "order.main.x.A"), ("state", "state.main"), ("control", "free.control")] {
        watched.push(operator.client().subscribe(subject).await?);
        operator.client().flush().await?;
        deliver(&strategy, "AGG_X_0", name, "candle.>", subject).await?;
    }
    let control = watched.last_mut().context("three are watched")?;
    let delivered = tokio::time::timeout(BOUND, control.next()).await.context("push consumers deliver")?;
    assert_eq!(
        delivered.context("closed")?.subject.as_str(),
        "candle.0.x.1m.A",
        "its own subject, not the one delivered to"
    );

    let risk = server.bus("risk").await?;
    let mut writer = Writer::resume(&risk, "RISK_main", 0).await?;
    writer.push("intent.main.x.A", "ours").await?;
    writer.drain().await?;
    assert_eq!(tests::stored(&operator, "RISK_main").await?, [(1, "intent.main.x.A".to_owned(), b"ours".to_vec())]);
    Ok(())
}

/// A fact as a program that does not name its position would store it: the worst case, because no header binds it to
/// its stream.
async fn plain_fact(server: &Server) -> anyhow::Result<()> {
    let stored = server.bus("ingest").await?.client().request("raw.0.x.trade.A", "plain".into()).await?;
    ensure!(String::from_utf8_lossy(&stored.payload).contains("\"seq\":1"), "{:?}", stored.payload);
    Ok(())
}

/// Waits until a stream ends at `last`, and gives its last message.
async fn ends_with(operator: &Bus, stream: &str, last: u64) -> anyhow::Result<(u64, String, Vec<u8>)> {
    wait_for(stream, BOUND, || async { (operator.stream(stream).await.ok()?.last_seq == last).then_some(()) }).await?;
    tests::stored(operator, stream).await?.pop().context("empty")
}

/// What a writer says that finds its next position taken.
async fn risk_finds_its_position_taken(server: &Server) -> anyhow::Result<()> {
    let mut writer = Writer::resume(&server.bus("risk").await?, "RISK_main", 0).await?;
    writer.push("intent.main.x.A", "ours").await?;
    let error = tokio::time::timeout(BOUND, writer.drain()).await?.unwrap_err();
    ensure!(error.fenced(), "{error}");
    Ok(())
}

/// A documented impossibility (deploy/README.md). Whoever reads may have what it reads delivered anywhere: the subject
/// stays what it was, so it is no order; the position is gone, so risk ends and does not trade on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_of_any_reader_can_take_a_position_but_never_say_a_subject() -> anyhow::Result<()> {
    for user in ["ingest", "aggregate", "strategy", "risk", "executor", "ledger"] {
        let (server, operator) = rights().await?;
        plain_fact(&server).await?;
        let reader = server.bus(user).await?;
        let targets = ["order.main.x.A", "fill.main.x.A", "$KV.cfg.desk.main", "$JS.API.STREAM.DELETE.SIG_X_0"];
        let mut delivered = Vec::new();
        for subject in targets {
            delivered.push(operator.client().subscribe(subject).await?);
        }
        operator.client().flush().await?;
        for (i, subject) in targets.iter().enumerate() {
            deliver(&reader, "RAW_X", &format!("p{i}"), "raw.>", subject).await?;
        }
        for (subject, heard) in targets.iter().zip(&mut delivered) {
            let message = tokio::time::timeout(BOUND, heard.next()).await.context("delivery")?.context("closed")?;
            assert_eq!(message.subject.as_str(), "raw.0.x.trade.A", "{user} to {subject}");
        }
        for stream in ["RISK_main", "EXEC_main", "KV_cfg"] {
            let (_, subject, _) = ends_with(&operator, stream, 1).await.with_context(|| format!("{user}: {stream}"))?;
            assert_eq!(subject, "raw.0.x.trade.A", "{user}: {stream}");
        }
        assert_eq!(nats::kv::get(&operator, "cfg", "desk.main").await?, None, "{user}");
        operator.stream("SIG_X_0").await.with_context(|| format!("{user}: a delivery is no request to the server"))?;
        risk_finds_its_position_taken(&server).await?;
    }
    Ok(())
}

/// A documented impossibility, for every user: an answer goes to the subject that the asker names. It is the server's
/// JSON, which no stage takes for a fact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_sent_into_a_stream_is_no_fact_and_ends_its_writer() -> anyhow::Result<()> {
    let asks = [
        ("gateway", "$JS.API.STREAM.INFO.RAW_X"),
        ("external", "signal.ext.mine.x.A"),
        ("strategy", "signal.0.ema.x.A"),
        ("aggregate", "$JS.API.STREAM.MSG.GET.RAW_X"),
    ];
    let (server, operator) = rights().await?;
    plain_fact(&server).await?;
    for (k, (user, ask)) in asks.iter().enumerate() {
        let bus = server.bus(user).await?;
        bus.client().publish_with_reply(*ask, "order.main.x.A", r#"{"seq":1}"#.into()).await?;
        let (_, subject, payload) = ends_with(&operator, "RISK_main", k as u64 + 1).await.context(*user)?;
        assert_eq!(subject, "order.main.x.A", "{user}");
        assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok(), "{user}: {payload:?}");
        let order: Result<schemas::desk::Order, _> = schemas::Fact::decode(&payload);
        assert!(order.is_err(), "{user} said an order");
        assert!(bus.violation().is_none(), "{user}: the server does not mind");
    }
    risk_finds_its_position_taken(&server).await
}

/// The answer to a direct get is the stored bytes themselves. Who can store bytes of its own and ask for them so could say
/// anything on any subject.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_gateway_may_get_directly_and_not_what_could_be_said_again() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let streams = ["RAW_X", "AGG_X_0", "DESK_main", "RISK_main", "SIG_EXT", "KV_cfg", "KV_ckpt", "KV_lease"];
    for user in USERS.iter().filter(|user| **user != "operator") {
        for stream in streams {
            let open = *user == "gateway" && !["SIG_EXT", "KV_cfg", "KV_ckpt", "KV_lease"].contains(&stream);
            for subject in [format!("$JS.API.DIRECT.GET.{stream}"), format!("$JS.API.DIRECT.GET.{stream}.a.b")] {
                assert_eq!(may_publish(&server, user, &subject).await?, open, "{user} {subject}");
            }
        }
    }
    Ok(())
}

/// What the gateway may get directly names its position, so the server does not store it once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_word_cannot_be_said_again_by_a_direct_get() -> anyhow::Result<()> {
    let (server, operator) = rights().await?;
    for state in ["active", "halted"] {
        kv::put(&operator, "cfg", "desk.main", state.into()).await?;
    }
    let mut writer = Writer::resume(&server.bus("risk").await?, "RISK_main", 0).await?;
    for order in ["first", "second"] {
        writer.push("order.main.x.A", order).await?;
    }
    writer.drain().await?;
    ends_with(&operator, "DESK_main", 4).await.context("the desk hears both")?;
    let gateway = server.bus("gateway").await?;
    for (stream, seqs) in [("RISK_main", 1..=2), ("DESK_main", 1..=4)] {
        for seq in seqs {
            let (subject, ask) = (format!("$JS.API.DIRECT.GET.{stream}"), format!("{{\"seq\":{seq}}}"));
            for said in ["order.main.x.A", "$KV.cfg.desk.main"] {
                gateway.client().publish_with_reply(subject.clone(), said, ask.clone().into()).await?;
            }
            // Answered behind the other two, which are on their way to the streams by then.
            let answer = gateway.client().request(subject, ask.into()).await?;
            assert!(answer.status.is_none(), "{stream}:{seq} can be got: {answer:?}");
        }
    }
    // The next words of those who may say them stand where they should: nothing came between.
    assert_eq!(kv::put(&operator, "cfg", "desk.main", "reducing".into()).await?, 3, "halted stayed halted");
    assert_eq!(writer.push("order.main.x.A", "third").await?, 3);
    writer.drain().await.context("no order twice")?;
    assert_eq!(tests::stored(&operator, "RISK_main").await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_fails_at_once() -> anyhow::Result<()> {
    let (server, _operator) = rights().await?;
    let login = nats::Login { password: Some("wrong".into()), ..server.login("risk") };
    let error =
        tokio::time::timeout(BOUND, Bus::connect(login, Config::default())).await?.err().context("it let us in")?;
    assert!(matches!(error, BusError::Connect { .. }), "{error}");
    Ok(())
}
