//! The WebSocket protocol, version 1: what a client may say and what it is told. Pure text in, text out.
//!
//! Client: `{"op":"subscribe","channels":[..],"id":1}`, `unsubscribe`, `unsubscribe_all`, `list`, `ping`. `id` is
//! optional, any text or number, and comes back. Server: `connected`, `ok`, `error`, `pong`, `heartbeat`, `gap`,
//! `bye`, and data in Deribit's notification form. Unknown fields are ignored on both sides.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::channel::Channel;

/// What a client said.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub op: Op,
    /// Echoed as it came; `Null` when absent.
    pub id: Value,
}

#[derive(Debug, PartialEq)]
pub enum Op {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    UnsubscribeAll,
    List,
    Ping,
}

#[derive(Deserialize)]
struct Wire {
    op: Option<String>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    id: Value,
}

/// `Err`: a ready error message for the client.
pub fn parse(text: &str) -> Result<Request, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| error(&Value::Null, None, "bad_json", &e.to_string(), &[]))?;
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    let wire: Wire = serde_json::from_value(value).map_err(|e| error(&id, None, "bad_json", &e.to_string(), &[]))?;
    let op = match wire.op.as_deref() {
        Some("subscribe") => Op::Subscribe(wire.channels),
        Some("unsubscribe") => Op::Unsubscribe(wire.channels),
        Some("unsubscribe_all") => Op::UnsubscribeAll,
        Some("list") => Op::List,
        Some("ping") => Op::Ping,
        other => {
            let said = other.unwrap_or("nothing");
            return Err(error(
                &id,
                other,
                "unknown_op",
                &format!("`{said}` is none of subscribe, unsubscribe, unsubscribe_all, list, ping"),
                &[],
            ));
        }
    };
    Ok(Request { op, id: wire.id })
}

/// A channel that was not taken, with its code.
pub type Rejected = (String, &'static str);

fn rejected_json(rejected: &[Rejected]) -> Value {
    rejected.iter().map(|(channel, code)| json!({"channel": channel, "code": code})).collect()
}

pub fn connected(epoch: &str, session: u64, time_ms: i64, heartbeat_s: u64, limits: &crate::config::Limits) -> String {
    json!({
        "type": "connected", "epoch": epoch, "session": format!("c-{session}"),
        "server": concat!("gateway/", env!("CARGO_PKG_VERSION")), "time": time_ms, "heartbeat_s": heartbeat_s,
        "limits": {"channels": limits.channels_max, "ops_per_s": limits.ops_per_s_max, "frame_bytes": limits.frame_bytes_max},
    })
    .to_string()
}

pub fn ok(op: &str, id: &Value, channels: &[Channel], rejected: &[Rejected]) -> String {
    let names: Vec<&str> = channels.iter().map(|c| c.asked.as_str()).collect();
    let details: serde_json::Map<String, Value> =
        channels.iter().map(|c| (c.asked.clone(), json!({"policy": c.policy.as_str()}))).collect();
    with_id(
        json!({"type": "ok", "op": op, "channels": names, "details": details, "rejected": rejected_json(rejected)}),
        id,
    )
}

pub fn error(id: &Value, op: Option<&str>, code: &str, text: &str, rejected: &[Rejected]) -> String {
    let mut value = json!({"type": "error", "code": code, "error": text});
    if let Some(op) = op {
        value["op"] = json!(op);
    }
    if !rejected.is_empty() {
        value["rejected"] = rejected_json(rejected);
    }
    with_id(value, id)
}

pub fn pong(id: &Value, time_ms: i64) -> String {
    with_id(json!({"type": "pong", "time": time_ms}), id)
}

pub fn heartbeat(time_ms: i64) -> String {
    json!({"type": "heartbeat", "time": time_ms}).to_string()
}

pub fn bye() -> String {
    json!({"type": "bye", "code": "server_shutdown", "retry_ms": 1000}).to_string()
}

/// Data of a channel. `prev` only where messages must not be missed unseen (`log` channels).
pub fn data(channel: &str, data: &Value, seq: u64, prev: Option<u64>, ts_ms: i64, snapshot: bool) -> String {
    let mut params = json!({"channel": channel, "data": data, "seq": seq, "ts": ts_ms, "snapshot": snapshot});
    if let Some(prev) = prev {
        params["prev"] = json!(prev);
    }
    json!({"jsonrpc": "2.0", "method": "subscription", "params": params}).to_string()
}

fn with_id(mut value: Value, id: &Value) -> String {
    if !id.is_null() {
        value["id"] = id.clone();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{self, Scope};
    use expect_test::expect;

    #[test]
    fn an_unknown_op_is_answered_with_the_clients_id() {
        expect![[r#"{"code":"unknown_op","error":"`fly` is none of subscribe, unsubscribe, unsubscribe_all, list, ping","id":"x","op":"fly","type":"error"}"#]]
            .assert_eq(&parse(r#"{"op":"fly","id":"x"}"#).unwrap_err());
        assert!(parse("{").unwrap_err().contains("bad_json"));
        assert!(parse(r#"{"op":"subscribe","channels":"no list","id":3}"#).unwrap_err().contains(r#""id":3"#));
    }

    #[test]
    fn an_ack_names_what_was_taken_and_what_was_not() {
        let taken = channel::parse("trades.binance.BTCUSDT", Scope::Market).unwrap();
        expect![[r#"{"channels":["trades.binance.BTCUSDT"],"details":{"trades.binance.BTCUSDT":{"policy":"log"}},"id":1,"op":"subscribe","rejected":[{"channel":"orders.main","code":"channel_not_allowed"}],"type":"ok"}"#]]
            .assert_eq(&ok("subscribe", &json!(1), &[taken], &[("orders.main".into(), "channel_not_allowed")]));
    }

    #[test]
    fn data_has_deribits_notification_form() {
        expect![[r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.a.b","data":{"last":"1"},"seq":7,"snapshot":false,"ts":9}}"#]]
            .assert_eq(&data("ticker.a.b", &json!({"last": "1"}), 7, None, 9, false));
    }
}
