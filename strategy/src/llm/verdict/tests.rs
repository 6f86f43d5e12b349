use expect_test::{Expect, expect};

use super::*;

/// A trader over BTC and ETH with these lines.
pub(crate) fn trader(lines: &str) -> Trader {
    let text = format!(
        "[strategy.traders.alice]\nbase_url = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\ntimeframe = \"1m\"\n\
         timeframes = [\"5m\", \"1m\"]\nbars = 3\nbars_min = 1\noutputs = [\"ema.ema_20\", \"rsi.rsi_14\"]\n\
         coins = [{{ coin = \"BTC\", venue = \"binance\", symbol = \"BTCUSDT\", tick = \"0.01\" }},\n\
         {{ coin = \"ETH\", venue = \"binance\", symbol = \"ETHUSDT\" }}]\n{lines}\n"
    );
    // A line given twice is an error in TOML: what `lines` sets is taken out of the above.
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines() {
        let key = line.split(" = ").next().unwrap_or("");
        if let Some(earlier) = kept.iter().position(|l| l.split(" = ").next() == Some(key) && line.contains(" = ")) {
            kept.remove(earlier);
        }
        kept.push(line);
    }
    let user = schemas::config::UserFile { name: "test".into(), text: kept.join("\n") };
    crate::Config::load(Some(&user)).unwrap().traders().unwrap().remove(0)
}

pub(crate) fn coins() -> Vec<LlmCoin> {
    [("BTC", "BTCUSDT", "60000"), ("ETH", "ETHUSDT", "3000")]
        .map(|(coin, symbol, close)| LlmCoin {
            coin: coin.into(),
            venue: "binance".into(),
            symbol: symbol.into(),
            timeframe: "1m".into(),
            close: close.parse().unwrap(),
            gap_bars: 0,
        })
        .into()
}

pub(crate) fn attempt(kind: &str, content: &str) -> LlmAttempt {
    LlmAttempt {
        kind: kind.into(),
        status: Some(200),
        finish_reason: Some("stop".into()),
        content: Some(content.into()),
        reasoning: None,
        refusal: None,
        error: None,
        usage: Default::default(),
        latency_ms: 5,
    }
}

pub(crate) fn reply(attempts: Vec<LlmAttempt>) -> LlmReply {
    LlmReply {
        v: Version,
        trader: "alice".into(),
        cycle: "alice-60000".into(),
        as_of_ns: 60_000_000_000,
        valid_until_ns: 90_000_000_000,
        request_hash: "h".into(),
        model: "m".into(),
        coins: coins(),
        wall_ns: 61_000_000_000,
        attempts,
        cause: Cause::default(),
    }
}

fn lines(trader: &Trader, reply: &LlmReply) -> String {
    let cause: Cause = "LLMR_alice:7:0".parse().unwrap();
    let (verdict, signals) = judge(trader, reply, &cause);
    let mut text = format!("{} {}", verdict.verdict, verdict.code.as_deref().unwrap_or("-"));
    text += if verdict.repaired { " repaired\n" } else { "\n" };
    for coin in &verdict.coins {
        text += &format!("{} {} {} {}\n", coin.coin, coin.verdict, coin.code.as_deref().unwrap_or("-"), coin.detail);
    }
    for s in &signals {
        assert_eq!(s.cause, cause);
        s.clone().checked(&schemas::Fact::subject(s)).unwrap();
        text += &format!("signal {} {:?} until {} {}\n", s.symbol, s.side, s.valid_until_ns / 1_000_000_000, s.reason);
    }
    assert!(verdict.coins.iter().filter(|c| c.verdict == "signal").count() == signals.len());
    text
}

fn check(content: &str, expected: Expect) {
    expected.assert_eq(&lines(&trader(""), &reply(vec![attempt("ask", content)])));
}

/// Both coins: BTC with these fields, ETH on hold.
fn btc(fields: &str) -> String {
    let content = format!("[{{\"coin\":\"BTC\",{fields}}},{{\"coin\":\"ETH\",\"action\":\"hold\"}}]");
    let text = lines(&trader(""), &reply(vec![attempt("ask", &content)]));
    text.lines().find(|line| line.starts_with("BTC")).unwrap().to_owned()
}

#[test]
fn a_sound_answer_becomes_signals_and_a_hold_becomes_none() {
    check(
        r#"{"schema_version":1,"decisions":[
            {"coin":"BTC","action":"open_long","confidence":0.7,"stop_loss":59000.5,"take_profit":"62000","justification":"a\nb","leverage":99},
            {"coin":"ETH","action":"hold","confidence":null,"stop_loss":-1,"take_profit":null,"justification":"wait"}],"summary":"s"}"#,
        expect![[r#"
            decided -
            BTC signal - long, stop 59000.5, target 62000, confidence 0.7
            ETH hold - wait
            signal BTCUSDT Long until 180 a b
        "#]],
    );
}

#[test]
fn one_broken_coin_does_not_stop_another_from_closing() {
    check(
        r#"{"decisions":[{"coin":"BTC","action":"close","confidence":65,"stop_loss":"NaN"},{"coin":"ETH","action":"short"},
            {"coin":"PEPE","action":"open_long"}]}"#,
        expect![[r#"
            decided -
            BTC signal - flat, confidence 1
            ETH no_decision V01 action `short`
            PEPE no_decision V02 is not a coin that was asked about
            signal BTCUSDT Flat until 180 
        "#]],
    );
}

#[test]
fn coins_are_spelt_exactly() {
    for name in ["btc", "BTCUSDT", "ВТС", "BTC "] {
        let content = format!("[{{\"coin\":\"{name}\",\"action\":\"close\"}}]");
        let text = lines(&trader(""), &reply(vec![attempt("ask", &content)]));
        assert!(text.contains(&format!("{name} no_decision V02")), "{text}");
        assert!(text.contains("BTC no_decision missing") && !text.contains("signal"), "{text}");
    }
}

#[test]
fn a_coin_decided_twice_is_not_decided() {
    check(
        r#"[{"coin":"BTC","action":"close"},{"coin":"BTC","action":"open_long"},{"coin":"ETH","action":"close","signal":"hold"}]"#,
        expect![[r#"
            no_decision V03
            BTC no_decision V03 2 decisions for one coin
            ETH no_decision V03 two different values of action
        "#]],
    );
}

#[test]
fn numbers_are_plain_decimals_in_range() {
    let open = |confidence: &str, stop: &str, take: &str| {
        btc(&format!(
            "\"action\":\"open_long\",\"confidence\":{confidence},\"stop_loss\":{stop},\"take_profit\":{take}"
        ))
    };
    assert_eq!(open("1", "59000", "61000"), "BTC signal - long, stop 59000, target 61000, confidence 1");
    assert_eq!(open("0", "\"5.9e4\"", "null"), "BTC signal - long, stop 59000, confidence 0");
    for (confidence, stop, take) in [
        ("-1", "59000", "null"),
        ("1.5", "59000", "null"),
        ("65", "59000", "null"),
        ("null", "59000", "null"),
        ("true", "59000", "null"),
        ("0.5", "\"NaN\"", "null"),
        ("0.5", "\"59,000\"", "null"),
        ("0.5", "\"3~5\"", "null"),
        ("0.5", "\"0x10\"", "null"),
        ("0.5", "\"5_9000\"", "null"),
        ("0.5", "1e400", "null"),
        ("0.5", "-0", "null"),
        ("0.5", "-59000", "null"),
        ("0.5", "[59000]", "null"),
        ("0.5", "59000", "\"Infinity\""),
        ("0.5", "59000", "0"),
    ] {
        let line = open(confidence, stop, take);
        assert!(line.starts_with("BTC no_decision V04"), "{confidence} {stop} {take}: {line}");
    }
}

#[test]
fn stops_and_targets_stand_on_their_sides_of_the_shown_close() {
    // The close is 60000 and the least distance of a stop 0.05 %, which is 30.
    let open = |side: &str, stop: &str, take: &str| {
        let line =
            btc(&format!("\"action\":\"open_{side}\",\"confidence\":0.5,\"stop_loss\":{stop},\"take_profit\":{take}"));
        line.split(' ').take(3).collect::<Vec<_>>().join(" ")
    };
    for (side, stop, take, line) in [
        ("long", "59970", "60000.01", "BTC signal -"),
        ("long", "59970.01", "61000", "BTC no_decision V07"),
        ("long", "60000", "61000", "BTC no_decision V07"),
        ("long", "60100", "61000", "BTC no_decision V07"),
        ("long", "59000", "60000", "BTC no_decision V07"),
        ("long", "59000", "59900", "BTC no_decision V07"),
        ("long", "null", "61000", "BTC no_decision V07"),
        ("short", "60030", "59999.99", "BTC signal -"),
        ("short", "60029.99", "59000", "BTC no_decision V07"),
        ("short", "59000", "58000", "BTC no_decision V07"),
        ("short", "61000", "60000", "BTC no_decision V07"),
    ] {
        assert_eq!(open(side, stop, take), line, "{side} {stop} {take}");
    }
    let free = trader("stop_loss_required = false");
    let content = r#"[{"coin":"BTC","action":"open_long","confidence":0.5}]"#;
    assert!(lines(&free, &reply(vec![attempt("ask", content)])).contains("BTC signal"));
}

#[test]
fn a_late_answer_opens_nothing_and_still_closes() {
    let content =
        r#"[{"coin":"BTC","action":"open_long","confidence":0.5,"stop_loss":59000},{"coin":"ETH","action":"close"}]"#;
    let mut late = reply(vec![attempt("ask", content)]);
    late.wall_ns = late.valid_until_ns;
    assert!(lines(&trader(""), &late).contains("BTC signal"));
    late.wall_ns += 3_000_000;
    expect![[r#"
        decided -
        BTC no_decision V14 the answer is 3 ms too late to open
        ETH signal - flat, confidence 1
        signal ETHUSDT Flat until 180 
    "#]]
    .assert_eq(&lines(&trader(""), &late));
    assert!(lines(&trader("expiry_clock = \"stored\""), &late).contains("BTC signal"));
}

#[test]
fn a_failed_reply_is_no_decision_for_every_coin_with_the_reason() {
    let mut failed = attempt("ask", "");
    failed.error = Some("deadline: nothing within 30000 ms".into());
    expect![[r#"
        no_decision deadline
        BTC no_decision deadline nothing within 30000 ms
        ETH no_decision deadline nothing within 30000 ms
    "#]]
    .assert_eq(&lines(&trader(""), &reply(vec![failed])));
    assert!(lines(&trader(""), &reply(vec![])).starts_with("no_decision no_attempt"));
    check(
        "I would rather not.",
        expect![[r#"
        no_decision not_json
        BTC no_decision not_json the answer holds no JSON value
        ETH no_decision not_json the answer holds no JSON value
    "#]],
    );
}

#[test]
fn a_repair_counts_when_it_decides_and_the_first_answer_when_it_does_not() {
    let first = r#"[{"coin":"BTC","action":"close"},{"coin":"ETH","action":"open"}]"#;
    let second = r#"[{"coin":"BTC","action":"hold"},{"coin":"ETH","action":"close"}]"#;
    let text = lines(&trader(""), &reply(vec![attempt("ask", first), attempt("repair", second)]));
    assert!(text.starts_with("decided - repaired\nBTC hold") && text.contains("ETH signal"), "{text}");
    let text = lines(&trader(""), &reply(vec![attempt("ask", first), attempt("repair", "sorry")]));
    assert!(text.starts_with("decided - repaired\nBTC signal") && text.contains("ETH no_decision V01"), "{text}");
}
