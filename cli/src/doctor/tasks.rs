//! Stages that should answer, tasks that should move, checkpoints that should be readable.

use std::collections::BTreeMap;
use std::time::Duration;

use nats::bus::StreamState;
use nats::checkpoint::{self, Checkpoint};
use nats::stats::gather;
use nats::{Bus, BusError, Reader};
use serde_json::{Value, json};

use super::Findings;
use crate::cores::Task;

/// How long stages may take to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(700);
/// Checkpoints that are looked at.
const CHECKPOINTS_MAX: usize = 8_192;

/// Every stage that must answer, with its tasks.
pub async fn stages(bus: &Bus, wanted: &[String], lag_max: u64, age_ms_max: u64, findings: &mut Findings) {
    let answers = match gather(bus, ANSWER_WAIT).await {
        Ok(answers) => answers,
        Err(error) => {
            findings.fail("stages", "all", error.to_string(), "look at the server's log");
            return;
        }
    };
    for stage in wanted {
        if answers.iter().all(|a| a.stage != *stage) {
            let remedy = format!("start `{stage}`; its log says why it ended");
            findings.fail("stages", stage, "does not answer", remedy);
        }
    }
    for a in &answers {
        let before = findings.0.len();
        let count = |t: &Value, field: &str| t[field].as_u64().unwrap_or(0);
        for t in &a.tasks {
            let name = format!("{}.{}", a.stage, t["task"].as_str().unwrap_or("?"));
            if t["fenced"] == json!(true) {
                let remedy = "another instance owns it, or its code disagrees with what is stored: `tapeline audit`";
                findings.fail("stages", name, "fenced", remedy);
            } else if t["running"] == json!(false) {
                findings.fail("stages", name, "does not run", "its stage's log says why");
            } else if count(t, "lag") > lag_max {
                let found = format!("{} inputs wait; at most {lag_max}", count(t, "lag"));
                findings.fail("stages", name, found, "start more of the stage with --tasks, or give it more CPU");
            } else if count(t, "lag") > 0 && count(t, "ckpt_age_ms") > age_ms_max {
                let found = format!("its last checkpoint is {} ms old while inputs wait", count(t, "ckpt_age_ms"));
                findings.fail("stages", name, found, "it hangs: look into its stage's log, then end it by its pid");
            } else if count(t, "undecodable") > 0 {
                let found = format!("{} inputs could not be decoded", count(t, "undecodable"));
                findings.warn("stages", name, found, "its stage's log names the first ones");
            }
        }
        for (field, what) in [("slow_consumers", "deliveries were dropped"), ("log_dropped", "log lines were dropped")]
        {
            let n = a.whole[field].as_u64().unwrap_or(0);
            if n > 0 {
                findings.warn("stages", a.stage.clone(), format!("{n} {what}"), "it is short of CPU");
            }
        }
        if findings.0.len() == before {
            findings.ok("stages", a.stage.clone(), format!("{} tasks, {} inputs wait", a.tasks.len(), a.lag()));
        }
    }
    if answers.is_empty() && wanted.is_empty() {
        findings.warn("stages", "all", "none answers", "start them with `tapeline up`");
    }
}

/// Every checkpoint: readable, of this program's version, and within the streams it names.
pub async fn checkpoints(bus: &Bus, tasks: &[Task], findings: &mut Findings) {
    let bucket = nats::kv::stream(checkpoint::BUCKET);
    let newest = match Reader::latest(bus, &bucket, &nats::kv::subject(checkpoint::BUCKET, ">"), CHECKPOINTS_MAX).await
    {
        Ok(newest) => newest,
        Err(error) => {
            findings.fail("checkpoints", bucket, error.to_string(), "create it with `tapeline init`");
            return;
        }
    };
    let mut states: BTreeMap<String, Option<StreamState>> = BTreeMap::new();
    let mut sound = 0;
    for entry in newest.iter().filter(|entry| !entry.payload.is_empty()) {
        let key = entry.subject.strip_prefix("$KV.ckpt.").unwrap_or(&entry.subject).to_owned();
        let header = match Checkpoint::from_bytes(&entry.payload) {
            Ok(read) => read.header,
            Err(error) => {
                let remedy = "an older revision is used at the next start; delete the key to fold from the beginning";
                findings.fail("checkpoints", key, error.to_string(), remedy);
                continue;
            }
        };
        for stream in [&header.input, &header.output] {
            if !states.contains_key(stream) {
                let state = match bus.stream(stream).await {
                    Ok(state) => Some(state),
                    Err(BusError::StreamAbsent { .. }) => None,
                    Err(error) => {
                        findings.fail("checkpoints", key.clone(), error.to_string(), "look at the server's log");
                        return;
                    }
                };
                states.insert(stream.clone(), state);
            }
        }
        let code = tasks.iter().find(|task| task.name() == key).and_then(|task| task.core().ok());
        let mine = code.map(|core| core.code_version());
        let trouble = match (states[&header.input], states[&header.output]) {
            (None, _) => Some((format!("its input {} is absent", header.input), "restore it, or delete the key")),
            (_, None) => Some((format!("its output {} is absent", header.output), "restore it, or delete the key")),
            (Some(input), _) if input.last_seq < header.in_seq => Some((
                format!("stands at {} of {}, which ends at {}", header.in_seq, header.input, input.last_seq),
                "the input was rewritten: restore it, or start the stage with --accept-loss",
            )),
            (Some(input), _) if input.before_first() > header.in_seq => Some((
                format!("stands at {} of {}, which begins at {}", header.in_seq, header.input, input.first_seq),
                "inputs have expired: raise [nats.layout] retention, or start the stage with --accept-loss",
            )),
            (_, Some(output)) if output.last_seq < header.out_seq => Some((
                format!("{} facts were acknowledged, {} ends at {}", header.out_seq, header.output, output.last_seq),
                "the output lost its tail: restore it, or start the stage with --accept-loss",
            )),
            _ if mine.is_some_and(|mine| mine != header.code_version) => Some((
                format!("made by code version {}, this program is {}", header.code_version, mine.unwrap_or(0)),
                "stop the old version in peace, then start the new one with --accept-version",
            )),
            _ => None,
        };
        match trouble {
            Some((found, remedy)) => findings.fail("checkpoints", key, found, remedy),
            None => sound += 1,
        }
    }
    findings.ok("checkpoints", "all", format!("{sound} are sound"));
}
