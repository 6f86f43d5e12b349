use super::*;
use crate::llm::scripted::{Scripted, Step};
use crate::llm::verdict::tests::{coins, trader};
use crate::llm::{prompt, verdict};

const GOOD: &str = r#"{"schema_version":1,"decisions":[
    {"coin":"BTC","action":"open_long","confidence":0.7,"stop_loss":59000,"take_profit":null,"justification":"up"},
    {"coin":"ETH","action":"hold","confidence":null,"stop_loss":null,"take_profit":null,"justification":"-"}],"summary":""}"#;
const KEY: &str = "key-1234567890-secret";

/// A scripted server, and a caller of it that waits little.
struct Bench {
    server: Scripted,
    trader: Trader,
    key: Option<String>,
    gates: Gates,
}

impl Bench {
    async fn new(lines: &str, steps: Vec<Step>) -> Self {
        let server = Scripted::start(steps).await.unwrap();
        let mut trader = trader(&format!("backoff_ms_min = 1\nbackoff_ms_max = 2\nttl_ms = 20000\n{lines}"));
        trader.base_url = server.base_url();
        trader.key_env = "SOME_KEY".into();
        Self { server, trader, key: Some(KEY.into()), gates: Gates::default() }
    }

    fn prompt(&self) -> LlmPrompt {
        let as_of_ns = wall_ns();
        let system = prompt::system(&self.trader);
        let user = "the question".to_owned();
        let body = request::ask(&self.trader, &system, &user, &coins());
        LlmPrompt {
            v: Version,
            trader: "alice".into(),
            cycle: "alice-1".into(),
            as_of_ns,
            valid_until_ns: as_of_ns + self.trader.ttl_ms * Nanos::PER_MS,
            template: prompt::TEMPLATE.into(),
            request_hash: request::hash(&self.trader, &body),
            system,
            user,
            coins: coins(),
            cause: Default::default(),
        }
    }

    async fn ask(&self, prompt: LlmPrompt) -> LlmReply {
        let caller = Caller::new(self.trader.clone(), self.key.clone(), self.gates.clone()).unwrap();
        let reply = caller.answer(&prompt, &Place::new("LLMP_alice", 4), wall_ns()).await;
        assert_eq!(reply.cause.to_string(), "LLMP_alice:4:0");
        assert!(!format!("{reply:?} {:?}", caller.key).contains(KEY), "a key is stored");
        reply
    }

    /// Attempts as `kind status code-of-what-it-is-worth`, and the verdict on the whole.
    async fn told(&self) -> String {
        let reply = self.ask(self.prompt()).await;
        self.judged(&reply)
    }
    fn judged(&self, reply: &LlmReply) -> String {
        let mut words = Vec::new();
        for attempt in &reply.attempts {
            let code = match verdict::examine(&self.trader, &reply.coins, attempt) {
                Ok(examined) if examined.complaints().is_empty() => "sound".to_owned(),
                Ok(examined) => examined.complaints().join("; "),
                Err(failure) => failure.code,
            };
            let status = attempt.status.map_or("-".to_owned(), |s| s.to_string());
            words.push(format!("{} {status} {code}", attempt.kind));
        }
        let (verdict, signals) = verdict::judge(&self.trader, reply, &Default::default());
        let code = verdict.code.unwrap_or_default();
        words.push(format!("{}{code} {}", if code.is_empty() { "decided" } else { "" }, signals.len()));
        words.join(" | ")
    }
}

#[tokio::test]
async fn a_good_answer_takes_one_call_with_the_key_in_its_header_only() {
    let bench = Bench::new("", vec![Step::says(GOOD)]).await;
    let reply = bench.ask(bench.prompt()).await;
    assert_eq!(bench.judged(&reply), "ask 200 sound | decided 1");
    let usage = reply.attempts[0].usage;
    let counts = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens];
    assert_eq!(counts, [Some(100), Some(20), Some(60), Some(5)]);
    assert!(reply.attempts[0].reasoning.as_deref().unwrap().contains("close"), "kept, and never parsed");
    let request = bench.server.requests().remove(0);
    assert!(request.head.starts_with("post /v1/chat/completions "), "{}", request.head);
    assert!(request.head.contains(&format!("authorization: bearer {KEY}")));
    assert!(!request.body.contains(KEY) && request.body.contains("the question"));
}

#[tokio::test]
async fn trouble_of_the_moment_is_tried_again_and_the_rest_is_not() {
    let html = "<html>502 Bad Gateway</html>";
    let s = |status: u16| Step::status(status, &[], html);
    let ok = || Step::says(GOOD);
    let cases: Vec<(Vec<Step>, &str)> = vec![
        (vec![s(500), s(503), ok()], "ask 500 http_500 | ask 503 http_503 | ask 200 sound | decided 1"),
        (vec![s(500), s(502), s(524), ok()], "ask 500 http_500 | ask 502 http_502 | ask 524 http_524 | http_524 0"),
        (vec![Step::Broken, ok()], "ask 200 transport | ask 200 sound | decided 1"),
        (vec![s(200), ok()], "ask 200 not_json_body | ask 200 sound | decided 1"),
        (vec![Step::says(" "), ok()], "ask 200 empty | ask 200 sound | decided 1"),
        (vec![Step::status(200, &[], r#"{"choices":[]}"#), ok()], "ask 200 empty | ask 200 sound | decided 1"),
        (vec![Step::status(429, &[("retry-after", "soon")], ""), ok()], "ask 429 http_429 | ask 200 sound | decided 1"),
        (
            vec![Step::status(200, &[], r#"{"error":{"message":"no"}}"#), ok()],
            "ask 200 provider_error | provider_error 0",
        ),
        (vec![s(400), ok()], "ask 400 http_400 | http_400 0"),
        (vec![s(401), ok()], "ask 401 http_401 | http_401 0"),
        (vec![Step::finishes(GOOD, "length"), ok()], "ask 200 truncated | truncated 0"),
        (vec![Step::finishes(GOOD, "content_filter"), ok()], "ask 200 content_filter | content_filter 0"),
    ];
    for (steps, expected) in cases {
        let bench = Bench::new("", steps).await;
        assert_eq!(bench.told().await, expected);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let bench = Bench::new("", vec![Step::status(429, &[("retry-after", "1")], ""), Step::says(GOOD)]).await;
    assert_eq!(bench.told().await, "ask 429 http_429 | ask 200 sound | decided 1");
    let requests = bench.server.requests();
    assert!(Duration::from_secs(1) <= requests[1].at - requests[0].at);
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_silences_every_trader_of_that_key() {
    let bench = Bench::new("", vec![Step::status(429, &[("retry-after", "600")], ""), Step::says(GOOD)]).await;
    assert_eq!(bench.told().await, "ask 429 http_429 | http_429 0");
    assert_eq!(bench.told().await, "ask - rate_limited | rate_limited 0");
    assert_eq!((bench.server.requests().len(), bench.server.left()), (1, 1));
    let other = Bench { trader: Trader { key_env: "OTHER_KEY".into(), ..bench.trader.clone() }, ..bench };
    assert_eq!(other.told().await, "ask 200 sound | decided 1");
}

#[tokio::test]
async fn the_deadline_holds_for_the_whole_call_however_the_server_dawdles() {
    for (step, expected) in
        [(Step::Silence, "ask - deadline | deadline 0"), (Step::Trickle, "ask 200 deadline | deadline 0")]
    {
        let bench = Bench::new("deadline_ms_max = 300", vec![step, Step::says(GOOD)]).await;
        let began = Instant::now();
        assert_eq!(bench.told().await, expected);
        assert!((300..3000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert_eq!(bench.server.left(), 1);
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_mended_once_with_the_reasons() {
    let wrong = GOOD.replace("59000", "61000");
    let bench = Bench::new("", vec![Step::says(&wrong), Step::says(GOOD)]).await;
    let told = bench.told().await;
    assert!(told.starts_with("ask 200 BTC: V07 stop_loss 61000 of a long at 60000"), "{told}");
    assert!(told.ends_with(" | repair 200 sound | decided 1"), "{told}");
    let repair = &bench.server.requests()[1].body;
    assert!(repair.contains("BTC: V07 stop_loss 61000") && repair.contains("\"role\":\"assistant\""), "{repair}");

    let bench = Bench::new("", vec![Step::says("I think up."), Step::says("Still up."), Step::says(GOOD)]).await;
    assert_eq!(bench.told().await, "ask 200 not_json | repair 200 not_json | not_json 0");
    let bench = Bench::new("", vec![Step::says("I think up."), Step::status(500, &[], ""), Step::says(GOOD)]).await;
    assert_eq!(bench.told().await, "ask 200 not_json | repair 500 http_500 | http_500 0");
    let bench = Bench::new("repairs_max = 0", vec![Step::says("I think up."), Step::says(GOOD)]).await;
    assert_eq!(bench.told().await, "ask 200 not_json | not_json 0");
}

#[tokio::test]
async fn prose_around_the_answer_needs_no_second_call() {
    let bench = Bench::new("", vec![Step::says(&format!("RSI [51, 52].\n```json\n{GOOD}\n```\nDone."))]).await;
    assert_eq!(bench.told().await, "ask 200 sound | decided 1");
}

#[tokio::test]
async fn without_a_key_with_an_old_prompt_or_another_configuration_nobody_is_asked() {
    let mut bench = Bench::new("", vec![Step::says(GOOD)]).await;
    bench.key = None;
    assert_eq!(bench.told().await, "ask - missing_key | missing_key 0");
    bench.key = Some(KEY.into());
    let mut old = bench.prompt();
    old.valid_until_ns = wall_ns() - 1;
    let reply = bench.ask(old).await;
    assert_eq!(bench.judged(&reply), "ask - expired | expired 0");
    let prompt = bench.prompt();
    bench.trader.max_tokens += 1;
    let reply = bench.ask(prompt).await;
    assert_eq!(bench.judged(&reply), "ask - request_changed | request_changed 0");
    assert_eq!(bench.server.requests().len(), 0);
}

#[tokio::test]
async fn a_simulation_in_another_time_is_measured_from_when_the_prompt_was_stored() {
    let bench = Bench::new("expiry_clock = \"stored\"", vec![Step::says(GOOD)]).await;
    let mut prompt = bench.prompt();
    (prompt.as_of_ns, prompt.valid_until_ns) = (60_000_000_000, 61_000_000_000);
    let reply = bench.ask(prompt.clone()).await;
    assert_eq!(bench.judged(&reply), "ask 200 sound | decided 1");
    let caller = Caller::new(bench.trader.clone(), bench.key.clone(), Gates::default()).unwrap();
    let late = caller.answer(&prompt, &Place::new("LLMP_alice", 4), wall_ns() - 2_000_000_000).await;
    assert_eq!(bench.judged(&late), "ask - expired | expired 0");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_answer_beyond_its_bound_is_dropped() {
    let elsewhere = Bench::new("", vec![Step::says(GOOD)]).await;
    let to = format!("{}/chat/completions", elsewhere.server.base_url());
    let bench = Bench::new("", vec![Step::status(307, &[("location", &to)], "")]).await;
    assert_eq!(bench.told().await, "ask 307 http_307 | http_307 0");
    assert_eq!(elsewhere.server.requests().len(), 0);
    let bench = Bench::new("reply_bytes_max = 1024", vec![Step::says(&"x".repeat(2000))]).await;
    assert_eq!(bench.told().await, "ask 200 too_large | too_large 0");
}

#[tokio::test]
async fn a_key_that_the_server_echoes_is_not_stored() {
    let echo = format!("you sent {KEY}");
    // `ask` itself asserts that no key is in the reply.
    for step in [Step::status(401, &[], &echo), Step::says(&echo), Step::finishes("x", &echo)] {
        let bench = Bench::new("repairs_max = 0", vec![step]).await;
        let reply = bench.ask(bench.prompt()).await;
        assert!(format!("{reply:?}").contains("***"));
    }
}

#[tokio::test]
async fn reasoning_is_kept_only_when_it_is_wanted() {
    let bench = Bench::new("keep_reasoning = false", vec![Step::says(GOOD)]).await;
    assert_eq!(bench.ask(bench.prompt()).await.attempts[0].reasoning, None);
}
