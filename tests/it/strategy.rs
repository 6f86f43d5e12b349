//! Strategies as programs: an LLM trader against a scripted model, and a strategy in another language.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Layout, Reader, Writer};
use schemas::llm::{LlmPrompt, LlmReply, LlmVerdict};
use schemas::market::{Candle, ClosedBy, Indicators};
use schemas::signal::{Signal, Stance};
use schemas::{Cause, Core, Fact, Listen, Notional, Place, Price, Qty, Speak, Version};
use strategy::llm::core::{PromptCore, VerdictCore};
use tests::{Server, stored, wait_for};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

// The same server as in the caller's own tests, which use more of it.
#[path = "../../strategy/src/llm/scripted.rs"]
#[allow(dead_code)]
mod scripted;
use scripted::{Scripted, Step};

const BOUND: Duration = Duration::from_secs(30);
const SECOND: i64 = 1_000_000_000;
const KEY: &str = "owl-key-5f0c2a-secret";

/// A closed bar and its indicators.
fn bar(symbol: &str, tf: &str, close_ns: i64, length_ns: i64, close: &str) -> (Candle, Indicators) {
    let price: Price = close.parse().expect("a price");
    let candle = Candle {
        v: Version,
        venue: "binance".into(),
        symbol: symbol.into(),
        p: 0,
        tf: tf.into(),
        open_ns: close_ns - length_ns,
        close_ns,
        open: price,
        high: price,
        low: price,
        close: price,
        volume: Qty::ZERO,
        buy_volume: Qty::ZERO,
        quote_volume: Notional::ZERO,
        trades: 1,
        buy_trades: 0,
        first_id: Some(1),
        last_id: Some(1),
        closed_by: ClosedBy::Trade,
        complete: true,
        filled: false,
        cause: Cause { stream: "RAW_BINANCE".into(), seq: 1, index: 0 },
    };
    let indicators = Indicators {
        v: Version,
        venue: candle.venue.clone(),
        symbol: candle.symbol.clone(),
        p: 0,
        tf: candle.tf.clone(),
        open_ns: candle.open_ns,
        close_ns,
        close: price,
        complete: true,
        values: BTreeMap::from([("rsi.rsi_14".to_owned(), 44.5)]),
        gaps: BTreeMap::new(),
        cause: candle.cause.clone(),
    };
    (candle, indicators)
}

async fn layout(server: &Server, traders: &[&str]) -> anyhow::Result<Bus> {
    let operator = server.bus("operator").await?;
    let traders = traders.iter().map(|t| (*t).to_owned()).collect();
    Layout { venues: vec!["binance".into()], accounts: Vec::new(), traders, partitions: 1 }.apply(&operator).await?;
    Ok(operator)
}

/// A program of the workspace, built beside this test.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test runs from target/<profile>/deps")?;
    let program = folder.join(name);
    ensure!(program.is_file(), "{} is not built: cargo build -p {name} --bin {name}", program.display());
    Ok(program)
}

/// The stage with one trader, `owl`; its words go to `log`.
struct Owl<'a> {
    server: &'a Server,
    config: PathBuf,
    log: PathBuf,
}

impl Owl<'_> {
    fn start(&self, key: Option<&str>) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(program("strategy")?);
        command
            .args(["--tasks", "llm.owl,strategy.binance.0", "--partitions", "1", "--log-format", "json", "--config"])
            .arg(&self.config)
            .envs(self.server.env("strategy"))
            .env_remove("OWL_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        if let Some(key) = key {
            command.env("OWL_KEY", key);
        }
        command.spawn().context("start strategy")
    }
}

fn answer(btc: &str) -> String {
    format!(
        "{{\"schema_version\":1,\"decisions\":[{btc},{{\"coin\":\"ETH\",\"action\":\"hold\",\"confidence\":null,\
         \"stop_loss\":null,\"take_profit\":null,\"justification\":\"nothing new\"}}],\"summary\":\"\"}}"
    )
}
fn long(stop: &str) -> String {
    answer(&format!(
        "{{\"coin\":\"BTC\",\"action\":\"open_long\",\"confidence\":0.7,\"stop_loss\":{stop},\"take_profit\":61000,\"justification\":\"up\"}}"
    ))
}

/// The script, and what the verdict on each cycle must be: whole verdict, code, number of signals, attempts.
fn script() -> Vec<(Vec<Step>, (&'static str, Option<&'static str>, usize, usize))> {
    let good = || Step::says(&long("59000"));
    vec![
        (vec![good()], ("decided", None, 1, 1)),
        (vec![Step::status(429, &[("retry-after", "1")], "slow down"), good()], ("decided", None, 1, 2)),
        (vec![Step::status(500, &[], "<html>oops</html>"), good()], ("decided", None, 1, 2)),
        (vec![Step::Silence], ("no_decision", Some("deadline"), 0, 1)),
        (vec![Step::finishes(&long("59000"), "length")], ("no_decision", Some("truncated"), 0, 1)),
        (vec![Step::says(&format!("RSI [44.5]. ```json\n{}\n```", long("59000")))], ("decided", None, 1, 1)),
        (vec![Step::says(&long("60500")), good()], ("decided", None, 1, 2)),
        (vec![Step::says("Buy!"), Step::says("Buy, I said.")], ("no_decision", Some("not_json"), 0, 2)),
        (vec![Step::says(&format!("your key is {KEY}")), good()], ("decided", None, 1, 2)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_llm_trader_stores_prompt_reply_and_verdict_before_a_signal_follows() -> anyhow::Result<()> {
    let server = Server::start_with_rights().await?;
    let operator = layout(&server, &["owl"]).await?;
    let mut steps = Vec::new();
    let mut wanted = Vec::new();
    for (answers, outcome) in script() {
        steps.extend(answers);
        wanted.push(outcome);
    }
    // For the cycle behind the restart.
    steps.push(Step::says(&long("59000")));
    let model = Scripted::start(steps).await?;
    let config = server.dir().join("tapeline.toml");
    let text = format!(
        "[strategy]\nvenues = [\"binance\"]\n[strategy.traders.owl]\nbase_url = \"{}\"\nmodel = \"scripted\"\n\
         key_env = \"OWL_KEY\"\ntimeframe = \"1s\"\ntimeframes = [\"1s\"]\nbars = 5\nbars_min = 1\noutputs = [\"rsi.rsi_14\"]\n\
         deadline_ms_max = 2500\nbackoff_ms_min = 10\nbackoff_ms_max = 20\nttl_ms = 60000\n\
         coins = [{{ coin = \"BTC\", venue = \"binance\", symbol = \"BTCUSDT\", tick = \"0.01\" }},\n\
         {{ coin = \"ETH\", venue = \"binance\", symbol = \"ETHUSDT\" }}]\n",
        model.base_url()
    );
    std::fs::write(&config, &text)?;
    let owl = Owl { server: &server, config, log: server.dir().join("strategy.log") };
    let mut stage = owl.start(Some(KEY))?;

    let aggregate = server.bus("aggregate").await?;
    let mut market = Writer::open(&aggregate, "AGG_BINANCE_0").await?;
    let begun_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() as i64;
    // One bar of both coins closes; what follows is waited for.
    let replies = async |cycle: usize, market: &mut Writer| -> anyhow::Result<()> {
        let close_ns = (begun_s + cycle as i64) * SECOND;
        for (symbol, price) in [("BTCUSDT", "60000"), ("ETHUSDT", "3000")] {
            let (candle, indicators) = bar(symbol, "1s", close_ns, SECOND, price);
            market.push(candle.subject(), candle.encode()).await?;
            market.push(indicators.subject(), indicators.encode()).await?;
        }
        market.drain().await?;
        let verdicts = async || {
            let all = stored(&operator, "SIG_LLM_owl").await.ok()?;
            let verdicts = all.iter().filter(|(_, subject, _)| subject == "llm.owl.verdict").count();
            (verdicts == cycle + 1).then_some(())
        };
        wait_for(&format!("verdict {cycle}"), BOUND, verdicts).await
    };
    let cycles = wanted.len();
    for cycle in 0..cycles {
        replies(cycle, &mut market).await?;
    }
    assert_eq!(model.left(), 1);

    // Killed and started again: no stored reply is asked for again, the next close is.
    stage.kill().await?;
    let asked = model.requests().len();
    let mut stage = owl.start(Some(KEY))?;
    replies(cycles, &mut market).await?;
    assert_eq!(model.requests().len(), asked + 1);
    // Without its key it asks nobody and says why.
    stage.kill().await?;
    let mut stage = owl.start(None)?;
    replies(cycles + 1, &mut market).await?;
    assert_eq!(model.requests().len(), asked + 1);
    stage.kill().await?;
    wanted.extend([("decided", None, 1, 1), ("no_decision", Some("missing_key"), 0, 1)]);

    // What is stored, in order.
    let prompts = stored(&operator, "LLMP_owl").await?;
    let answers = stored(&operator, "LLMR_owl").await?;
    let said = stored(&operator, "SIG_LLM_owl").await?;
    assert_eq!((prompts.len(), answers.len()), (wanted.len(), wanted.len()));
    let mut at = 0;
    for (i, (verdict, code, signals, attempts)) in wanted.iter().enumerate() {
        let prompt = LlmPrompt::decode(&prompts[i].2)?;
        let reply = LlmReply::decode(&answers[i].2)?;
        assert_eq!(reply.cause.to_string(), format!("LLMP_owl:{}:0", prompts[i].0));
        assert_eq!((&reply.cycle, &reply.request_hash), (&prompt.cycle, &prompt.request_hash));
        assert_eq!(reply.attempts.len(), *attempts, "cycle {i}: {:?}", reply.attempts);
        let judged = LlmVerdict::decode(&said[at].2).with_context(|| format!("cycle {i} begins with its verdict"))?;
        assert_eq!(said[at].1, "llm.owl.verdict");
        assert_eq!((judged.verdict.as_str(), judged.code.as_deref()), (*verdict, *code), "cycle {i}: {judged:?}");
        assert_eq!(judged.cause.to_string(), format!("LLMR_owl:{}:0", answers[i].0));
        at += 1;
        for _ in 0..*signals {
            let signal = Signal::decode(&said[at].2)?.checked(&said[at].1)?;
            assert_eq!((signal.symbol.as_str(), signal.side), ("BTCUSDT", Stance::Long));
            assert_eq!((signal.stop_loss, &signal.cause), (Some("59000".parse()?), &judged.cause));
            at += 1;
        }
        let time = async |stream: &str, seq: u64| {
            nats::leader::get(&operator, stream, seq).await.map(|m| m.expect("stored").time_ns)
        };
        let (asked, answered) = (time("LLMP_owl", prompts[i].0).await?, time("LLMR_owl", answers[i].0).await?);
        assert!(asked <= answered && answered <= time("SIG_LLM_owl", said[at - 1].0).await?, "cycle {i}");
    }
    assert_eq!(at, said.len());

    // Replay: the cores over the recorded facts say the recorded bytes and ask nobody.
    let user = schemas::config::UserFile { name: "tapeline.toml".into(), text };
    let trader = strategy::Config::load(Some(&user))?.traders()?.remove(0);
    let seen = stored(&operator, "SEQ_LLM_owl").await?;
    assert_eq!(replay(PromptCore::new(trader.clone()), "SEQ_LLM_owl", &seen)?, prompts);
    assert_eq!(replay(VerdictCore::new(trader), "LLMR_owl", &answers)?, said);

    // The same by the operator's command; another model's name is found in the first prompt.
    let other = server.dir().join("other.toml");
    std::fs::write(&other, user.text.replace("model = \"scripted\"", "model = \"another\""))?;
    for (config, code, position) in [(&owl.config, 0, None), (&other, 1, Some("LLMP_owl:1"))] {
        let mut command = Command::new(program("tapeline")?);
        command.args(["--json", "audit", "strategy.llm.owl", "--config"]).arg(config);
        let out = command.envs(server.env("operator")).env_remove("TAPELINE_DATA").output().await?;
        let audited: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        assert_eq!((out.status.code(), audited["tasks"].as_array().map(Vec::len)), (Some(code), Some(2)), "{audited}");
        assert_eq!(audited["tasks"][0]["divergence"]["position"].as_str(), position, "{audited}");
        let verdicts = &audited["tasks"][1];
        assert_eq!(verdicts["compared"].as_u64(), Some(said.len() as u64), "{verdicts}");
    }

    // The key went to the model and nowhere else.
    assert!(
        model
            .requests()
            .iter()
            .all(|r| r.head.contains(&format!("authorization: bearer {KEY}")) && !r.body.contains(KEY))
    );
    let mut looked_at = 0;
    for stream in ["AGG_BINANCE_0", "SEQ_LLM_owl", "LLMP_owl", "LLMR_owl", "SIG_LLM_owl", "SIG_BINANCE_0", "KV_ckpt"] {
        for (_, _, payload) in stored(&operator, stream).await? {
            assert!(!payload.windows(KEY.len()).any(|w| w == KEY.as_bytes()), "{stream}");
            looked_at += 1;
        }
    }
    let log = std::fs::read_to_string(&owl.log)?;
    assert!(log.contains("model asked") && !log.contains(KEY), "{log}");
    eprintln!(
        "{} cycles, {} requests, 0 keys in {looked_at} messages and {} bytes of log",
        wanted.len(),
        asked + 1,
        log.len()
    );
    Ok(())
}

/// What a core says over stored inputs, as it would be stored.
fn replay<C: Core>(
    mut core: C,
    stream: &str,
    inputs: &[(u64, String, Vec<u8>)],
) -> anyhow::Result<Vec<(u64, String, Vec<u8>)>> {
    let mut said = Vec::new();
    for (seq, subject, payload) in inputs {
        if let Some(input) = C::In::hear(subject, payload)? {
            let mut out = Vec::new();
            core.handle(&Place::new(stream, *seq), input, &mut out)?;
            for fact in out {
                said.push((said.len() as u64 + 1, fact.subject(), fact.payload()));
            }
        }
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategy_in_another_language_says_a_signal_that_is_accepted_like_any_other() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let packages = std::env::var_os("TAPELINE_PYTHON_PATH").map_or(root.join(".tapeline/py"), PathBuf::from);
    if !packages.join("nats").is_dir() || !packages.join("msgpack").is_dir() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no Python NATS client at {} and CI=true",
            packages.display()
        );
        eprintln!("skipped: no Python NATS client at {} (make setup)", packages.display());
        return Ok(());
    }
    let server = Server::start_with_rights().await?;
    let operator = layout(&server, &[]).await?;
    let mut program = Command::new("python3")
        .arg(root.join("examples/external_strategy.py"))
        .arg("rising")
        .env("PYTHONPATH", &packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(server.env("external"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the Python strategy")?;
    let mut lines = BufReader::new(program.stdout.take().context("stdout")?).lines();
    let ready =
        tokio::time::timeout(BOUND, lines.next_line()).await.context("the Python strategy does not listen")??;
    assert_eq!(ready.as_deref(), Some("listening"));

    let aggregate = server.bus("aggregate").await?;
    let mut market = Writer::open(&aggregate, "AGG_BINANCE_0").await?;
    for (i, close) in ["100", "101.5", "102", "102.5", "102.1"].iter().enumerate() {
        let (candle, _) = bar("BTC/USDT", "1m", (i as i64 + 1) * 60 * SECOND, 60 * SECOND, close);
        market.push(candle.subject(), candle.encode()).await?;
    }
    market.drain().await?;

    let mut reader = Reader::open(&operator, "SIG_EXT", ">", 1).await?;
    let message = tokio::time::timeout(BOUND, reader.next()).await.context("no signal in SIG_EXT")??;
    let signal = Signal::decode(&message.payload)?.checked(&message.subject)?;
    assert_eq!(message.subject.as_str(), "signal.ext.rising.binance.BTC=2FUSDT");
    assert_eq!((signal.side, signal.ts_ns, signal.symbol.as_str()), (Stance::Long, 240 * SECOND, "BTC/USDT"));
    assert_eq!(signal.cause.to_string(), "RAW_BINANCE:1:0");
    // Risk hears it as it hears our own strategies.
    let heard = risk::In::hear(&message.subject, &message.payload)?;
    assert!(matches!(heard, Some(risk::In::Signal(_))), "{heard:?}");
    assert_eq!(operator.stream("SIG_EXT").await?.last_seq, 1, "one close made the third rise in a row");
    program.kill().await?;
    Ok(())
}
