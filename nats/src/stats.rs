//! Asking every running stage how it does: `$SRV.STATS`, one answer a process.

use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bus::{Bus, why};
use crate::error::BusError;

/// One process of a stage as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageStats {
    /// `ingest`, `aggregate`, ...
    pub stage: String,
    /// Of the process, new at each start.
    pub id: String,
    pub version: String,
    /// See `telemetry::TaskStats::json`.
    pub tasks: Vec<Value>,
    /// Everything else it told: connection, counters, a shell's own.
    pub whole: Value,
}

impl StageStats {
    /// The largest number of inputs that wait for one of its tasks.
    pub fn lag(&self) -> u64 {
        self.tasks.iter().filter_map(|t| t["lag"].as_u64()).max().unwrap_or(0)
    }
}

/// Every answer that comes within `wait`, by stage and id.
pub async fn gather(bus: &Bus, wait: Duration) -> Result<Vec<StageStats>, BusError> {
    let failed =
        |error: &dyn std::error::Error| BusError::Publish { subject: "$SRV.STATS".to_owned(), why: why(error) };
    let client = bus.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|e| failed(&e))?;
    client.publish_with_reply("$SRV.STATS", inbox, "".into()).await.map_err(|e| failed(&e))?;
    client.flush().await.map_err(|e| failed(&e))?;
    let mut found = Vec::new();
    // The end of the wait is the end of the list: nobody knows how many will answer.
    let collect = async {
        while let Some(answer) = answers.next().await {
            found.extend(read(&answer.payload));
        }
    };
    let _ = tokio::time::timeout(wait, collect).await;
    found.sort_by(|a, b| (&a.stage, &a.id).cmp(&(&b.stage, &b.id)));
    Ok(found)
}

/// `None`: somebody else's service, or one that is just starting.
fn read(payload: &[u8]) -> Option<StageStats> {
    let answer: Value = serde_json::from_slice(payload).ok()?;
    let stage = answer["name"].as_str()?.strip_prefix("tapeline-")?.to_owned();
    let whole = answer["endpoints"].as_array()?.iter().find(|e| e["name"] == "status")?["data"].clone();
    Some(StageStats {
        stage,
        id: answer["id"].as_str()?.to_owned(),
        version: whole["version"].as_str().unwrap_or_default().to_owned(),
        tasks: whole["tasks"].as_array().cloned().unwrap_or_default(),
        whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_stage_is_read_and_a_strangers_is_not() {
        let ours = br#"{"name":"tapeline-risk","id":"x","endpoints":[{"name":"status","data":{"version":"0.1.0","tasks":[{"task":"main","lag":3},{"task":"b","lag":5}]}}]}"#;
        let stats = read(ours).unwrap();
        assert_eq!((stats.stage.as_str(), stats.lag()), ("risk", 5));
        assert!(read(br#"{"name":"somebody","id":"x","endpoints":[]}"#).is_none());
    }
}
