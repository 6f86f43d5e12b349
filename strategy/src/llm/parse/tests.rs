use proptest::prelude::*;

use super::*;

const CLEAN: &str = r#"{"schema_version": 1, "decisions": [{"coin": "BTC", "action": "open_long", "confidence": 0.7,
    "stop_loss": 66000.50, "take_profit": null, "justification": "a \"b\" {c} [d], ```e``` ~"}], "summary": "s"}"#;

fn code(text: &str) -> String {
    match document(text) {
        Ok(document) => format!("{} decisions", document.decisions.len()),
        Err(failure) => failure.code,
    }
}

fn attempt() -> LlmAttempt {
    LlmAttempt {
        kind: "ask".into(),
        status: Some(200),
        finish_reason: Some("stop".into()),
        content: Some(CLEAN.into()),
        reasoning: None,
        refusal: None,
        error: None,
        usage: Default::default(),
        latency_ms: 1,
    }
}

#[test]
fn the_transport_is_judged_before_anything_is_parsed() {
    assert_eq!(content(&attempt()), Ok(CLEAN));
    let edits: [(fn(&mut LlmAttempt), &str); 9] = [
        (|a| a.error = Some("deadline: nothing within 5 ms".into()), "deadline"),
        (|a| a.status = Some(503), "http_503"),
        (|a| a.status = None, "transport"),
        (|a| a.refusal = Some("no".into()), "refused"),
        (|a| a.finish_reason = Some("length".into()), "truncated"),
        (|a| a.finish_reason = Some("content_filter".into()), "content_filter"),
        (|a| a.finish_reason = Some("tool_calls".into()), "finish_reason"),
        (|a| a.finish_reason = None, "no_terminator"),
        (|a| a.content = Some(" \n".into()), "empty"),
    ];
    for (edit, code) in edits {
        let mut broken = attempt();
        edit(&mut broken);
        assert_eq!(content(&broken).unwrap_err().code, code);
    }
}

#[test]
fn the_clean_answer_is_read_as_it_stands() {
    let document = document(CLEAN).unwrap();
    assert!(!document.repaired);
    assert_eq!(document.summary, "s");
    let decision = &document.decisions[0];
    assert_eq!(decision.field("stop_loss"), Ok(Some(&Json::Number("66000.50".into()))));
    assert_eq!(decision.field("justification").unwrap().unwrap().text(), Some("a \"b\" {c} [d], ```e``` ~"));
}

#[test]
fn fences_prose_and_thoughts_around_the_answer_change_nothing() {
    let clean = document(CLEAN).unwrap();
    for text in [
        format!("```json\n{CLEAN}\n```"),
        format!("~~~\n{CLEAN}\n~~~ done"),
        format!("MACD was [-2140.7, -1936.3] and {{so on}}; RSI [1, 2\n{CLEAN}\nGood luck {{}}!"),
        format!("<think>{{\"decisions\":[{{\"coin\":\"BTC\",\"action\":\"close\"}}]}}</think>{CLEAN}"),
        format!("a thought whose opening mark was lost</think>\n{CLEAN}"),
        format!("draft {CLEAN} final {CLEAN}"),
    ] {
        assert_eq!(document(&text).as_ref(), Ok(&clean), "{text}");
    }
}

#[test]
fn what_is_cut_off_doubled_or_contradictory_decides_nothing() {
    let other = CLEAN.replace("open_long", "close");
    for (text, expected) in [
        (format!("<think>hm {CLEAN}"), "truncated"),
        (format!("{CLEAN} or rather {other}"), "ambiguous"),
        (CLEAN.replace("\"coin\"", "\"coin\": \"ETH\", \"coin\""), "duplicate_key"),
        (format!("so: {}", CLEAN.replace("\"coin\"", "\"coin\": \"ETH\", \"coin\"")), "duplicate_key"),
        (CLEAN.replace("\"schema_version\": 1", "\"schema_version\": 2"), "version"),
        (CLEAN[..CLEAN.len() - 1].to_owned(), "not_json"),
        (CLEAN[..CLEAN.len() - 17].to_owned(), "not_json"),
        (format!("so: {}", &CLEAN[..CLEAN.len() - 20]), "not_json"),
        (CLEAN.replace("66000.50", "NaN"), "not_json"),
        (CLEAN.replace("66000.50", "66\u{200b}000.50"), "not_json"),
        (CLEAN.replace("66000.50", "66，000.50"), "not_json"),
        (CLEAN.replace("66000.50", "3000*0.01"), "not_json"),
        (CLEAN.replace("66000.50", "0x10"), "not_json"),
        (CLEAN.replace('"', "'"), "not_json"),
        ("buy BTC now".to_owned(), "not_json"),
        ("{\"plan\": \"buy\"}".to_owned(), "schema"),
        ("[1, 2, 3]".to_owned(), "schema"),
        ("{\"decisions\": []}".to_owned(), "schema"),
        ("[".repeat(100_000), "not_json"),
        ("x".repeat(CONTENT_BYTES_MAX + 1), "too_large"),
    ] {
        assert_eq!(code(&text), expected, "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn the_shapes_that_models_know_mean_the_same() {
    let fields = r#""action":"open_long","stop_loss":1,"take_profit":2"#;
    let wanted = document(&format!("{{\"decisions\":[{{\"coin\":\"BTC\",{fields}}}]}}")).unwrap();
    for text in [
        format!("[{{\"coin\":\"BTC\",{fields}}}]"),
        format!("{{\"coin\":\"BTC\",{fields}}}"),
        format!("{{\"BTC\":{{{fields}}}}}"),
        format!("[{{\"BTC\":{{{fields}}}}}]"),
        format!("{{\"decisions\":{{\"BTC\":{{{fields}}}}}}}"),
        r#"{"BTC":{"trade_signal_args":{"coin":"BTC","signal":"open_long","stop_loss":1,"profit_target":2}}}"#
            .to_owned(),
    ] {
        assert_eq!(document(&text).as_ref(), Ok(&wanted), "{text}");
    }
}

#[test]
fn two_names_of_a_field_must_agree() {
    let both = document(r#"{"coin":"BTC","action":"close","signal":"open_long"}"#).unwrap();
    assert_eq!(both.decisions[0].field("action"), Err(()));
    let same = document(r#"{"coin":"BTC","action":"close","signal":"close"}"#).unwrap();
    assert!(same.decisions[0].field("action").is_ok());
}

/// Marks around values written otherwise; strings stay as they are.
fn disturbed(kinds: &[u8]) -> String {
    let mut text = String::from("\u{feff}");
    let mut inside = false;
    let mut escaped = false;
    for (i, c) in CLEAN.chars().enumerate() {
        let kind = kinds[i % kinds.len()];
        if inside {
            inside = escaped || c != '"';
            escaped = !escaped && c == '\\';
            text.push(c);
            continue;
        }
        match (c, kind) {
            ('"', _) => {
                inside = true;
                text.push('"');
            }
            ('{', 1) => text.push('｛'),
            ('[', 1) => text.push('［'),
            (':', 1) => text.push('：'),
            (',', 1) => text.push('，'),
            ('}', 1) => text.push('｝'),
            (']', 2) => text.push_str(" ,\n]"),
            ('}', 2) => text.push_str(",}"),
            (c, 3) if "{}[]:, \n".contains(c) => text.extend(['\u{200b}', c]),
            (c, _) => text.push(c),
        }
    }
    text
}

#[test]
fn typographic_quotes_are_marks_too() {
    let text = "{“coin”: “BTC”, “action”: “close”, “justification”: “so \"said\" he”}";
    let document = document(text).unwrap();
    assert!(document.repaired);
    assert_eq!(document.decisions[0].field("justification").unwrap().unwrap().text(), Some("so \"said\" he"));
}

proptest! {
    #[test]
    fn mending_gives_the_value_of_the_clean_answer(kinds in proptest::collection::vec(0u8..4, 1..40)) {
        let clean = document(CLEAN).unwrap();
        let got = document(&disturbed(&kinds)).unwrap();
        prop_assert_eq!(got.decisions, clean.decisions);
        prop_assert_eq!(got.summary, clean.summary);
    }

    #[test]
    fn a_mutated_answer_never_holds_a_number_that_was_not_literally_there(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0u8..3), 1..6)
    ) {
        let mut text: Vec<char> = CLEAN.chars().collect();
        for (at, c, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = c,
                1 => text.insert(at, c),
                _ => { text.remove(at); }
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(document) = document(&text) {
            for (_, value) in document.decisions.iter().flat_map(|d| &d.fields) {
                if let Json::Number(number) = value {
                    prop_assert!(text.contains(number.as_str()));
                }
            }
        }
    }
}
