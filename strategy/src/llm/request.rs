//! The bytes that are sent: a pure function of the prompt and the configuration, so that their hash names the
//! question.

use schemas::llm::{LlmCoin, LlmPrompt};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::config::{MaxTokensField, Scalar, Structured, Trader};
use std::collections::BTreeMap;

/// The body of a chat completion; fields in this order.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Box<RawValue>>,
    stream: bool,
    #[serde(flatten)]
    extra: &'a BTreeMap<String, Scalar>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

/// The body of the question.
pub fn ask(trader: &Trader, system: &str, user: &str, coins: &[LlmCoin]) -> Vec<u8> {
    body(trader, coins, vec![Message { role: "system", content: system }, Message { role: "user", content: user }])
}

/// The body of the one question that asks to mend an answer: the conversation so far and what is wrong with it.
pub fn repair(trader: &Trader, prompt: &LlmPrompt, answer: &str, errors: &[String]) -> Vec<u8> {
    let list: String = errors.iter().take(20).map(|error| format!("- {}\n", crate::text::plain(error, 200))).collect();
    let complaint = format!(
        "That answer cannot be used:\n{list}Send the whole answer again as one JSON object of the required form, and \
         nothing else. Change only what the list names."
    );
    let messages = [("system", &*prompt.system), ("user", &*prompt.user), ("assistant", answer), ("user", &*complaint)];
    body(trader, &prompt.coins, messages.map(|(role, content)| Message { role, content }).into())
}

/// sha256 of where and what is asked, hex.
pub fn hash(trader: &Trader, body: &[u8]) -> String {
    let mut sha = Sha256::new();
    sha.update(trader.base_url.as_bytes());
    sha.update(b"\n");
    sha.update(body);
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(trader: &Trader, coins: &[LlmCoin], messages: Vec<Message<'_>>) -> Vec<u8> {
    let response_format = match trader.structured {
        Structured::JsonSchema => Some(schema(coins)),
        Structured::JsonObject => Some(r#"{"type":"json_object"}"#.to_owned()),
        Structured::None => None,
    };
    let limit = |field| (trader.max_tokens_field == field).then_some(trader.max_tokens);
    let body = Body {
        model: &trader.model,
        messages,
        temperature: trader.temperature.parse().ok(), // empty: none is sent; `Trader::check` saw to the rest
        max_tokens: limit(MaxTokensField::MaxTokens),
        max_completion_tokens: limit(MaxTokensField::MaxCompletionTokens),
        response_format: response_format
            .map(|text| RawValue::from_string(text).expect("Invariant: our schema is JSON, which a test shows")),
        stream: false,
        extra: &trader.extra,
    };
    serde_json::to_vec(&body).expect("Invariant: a request serialises")
}

/// The reply's strict schema. Coins are `[A-Z0-9]+`, so they need no escaping.
fn schema(coins: &[LlmCoin]) -> String {
    let coins: Vec<_> = coins.iter().map(|coin| format!("\"{}\"", coin.coin)).collect();
    format!(
        concat!(
            r#"{{"type":"json_schema","json_schema":{{"name":"decisions","strict":true,"schema":{{"type":"object","#,
            r#""additionalProperties":false,"required":["schema_version","decisions","summary"],"properties":{{"#,
            r#""schema_version":{{"type":"integer","enum":[{version}]}},"#,
            r#""decisions":{{"type":"array","items":{{"type":"object","additionalProperties":false,"#,
            r#""required":["coin","action","confidence","stop_loss","take_profit","justification"],"properties":{{"#,
            r#""coin":{{"type":"string","enum":[{coins}]}},"#,
            r#""action":{{"type":"string","enum":["open_long","open_short","close","hold"]}},"#,
            r#""confidence":{{"type":["number","null"]}},"stop_loss":{{"type":["number","null"]}},"#,
            r#""take_profit":{{"type":["number","null"]}},"justification":{{"type":"string"}}}}}}}},"#,
            r#""summary":{{"type":"string"}}}}}}}}}}"#
        ),
        version = super::parse::SCHEMA_VERSION,
        coins = coins.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::verdict::tests::{coins, trader};

    #[test]
    fn the_body_holds_what_is_configured_and_nothing_else() {
        let mut trader = trader(
            "temperature = \"0.2\"\nmax_tokens_field = \"max_completion_tokens\"\nextra = { reasoning_effort = \"low\" }",
        );
        let text = |trader: &Trader| String::from_utf8(ask(trader, "S", "U", &coins())).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text(&trader)).unwrap();
        assert_eq!(value["messages"][1]["content"], "U");
        assert_eq!((&value["temperature"], &value["max_completion_tokens"]), (&0.2.into(), &4000.into()));
        assert_eq!((&value["max_tokens"], &value["reasoning_effort"]), (&serde_json::Value::Null, &"low".into()));
        let item = &value["response_format"]["json_schema"]["schema"]["properties"]["decisions"]["items"];
        assert_eq!(item["properties"]["coin"]["enum"], serde_json::json!(["BTC", "ETH"]));
        trader.structured = Structured::JsonObject;
        assert!(text(&trader).contains(r#""response_format":{"type":"json_object"}"#));
        trader.structured = Structured::None;
        assert!(!text(&trader).contains("response_format"));
    }

    #[test]
    fn the_hash_names_place_and_bytes() {
        let mut trader = trader("");
        let body = ask(&trader, "S", "U", &coins());
        let before = hash(&trader, &body);
        assert_eq!((before.len(), before == hash(&trader, &body)), (64, true));
        assert_ne!(before, hash(&trader, &ask(&trader, "S", "U.", &coins())));
        trader.base_url += "/v2";
        assert_ne!(before, hash(&trader, &body));
    }
}
