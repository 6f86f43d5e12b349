//! What JetStream says of a stream, and the configurations of its growth. Pure: answers in, configurations out.

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

/// On a stream of the cluster: the old stream that it was grown from, `<domain>:<created>`.
const GROWN_FROM: &str = "tapeline.grown_from";
/// On a retired stream of the old server: the subjects that it had, as a JSON list.
const RETIRED: &str = "tapeline.retired_subjects";
/// What a mirror may not have; the promoted stream has it again.
const NOT_ON_MIRRORS: &[&str] = &[
    "subjects",
    "sources",
    "first_seq",
    "subject_delete_marker_ttl",
    "allow_atomic",
    "allow_batched",
    "allow_msg_counter",
    "allow_msg_schedules",
    "placement",
];

/// One stream as `STREAM.LIST` shows it.
#[derive(Clone, Debug)]
pub struct StreamView {
    pub name: String,
    /// The server's time of creation, which identifies it.
    pub created: String,
    pub config: Map<String, Value>,
    pub last_seq: u64,
    pub messages: u64,
    /// Copies, the leader's included.
    pub replicas: usize,
    /// Every copy is as far as the leader.
    current: bool,
    mirror_lag: Option<u64>,
}

/// How far the growth of one stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// The cluster does not have it.
    Absent,
    /// It is a mirror; `lag` messages are still to come.
    Copying { lag: u64 },
    /// It is the stream.
    Promoted,
}

impl Stand {
    pub fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Copying { .. } => "mirror",
            Self::Promoted => "promoted",
        }
    }
}

impl StreamView {
    /// Reads one element of `STREAM.LIST`, or the answer to `STREAM.UPDATE`.
    pub fn read(info: &Value) -> anyhow::Result<Self> {
        let config = info["config"].as_object().context("a stream without configuration")?.clone();
        let name = config.get("name").and_then(Value::as_str).context("a stream without name")?.to_owned();
        let number = |field: &str| info["state"][field].as_u64().with_context(|| format!("{name}: state.{field}"));
        let (last_seq, messages) = (number("last_seq")?, number("messages")?);
        let cluster = &info["cluster"];
        let others = cluster["replicas"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            created: info["created"].as_str().unwrap_or_default().to_owned(),
            last_seq,
            messages,
            replicas: others.len() + 1,
            current: cluster["leader"].as_str().is_some_and(|l| !l.is_empty())
                && others.iter().all(|r| r["current"] == json!(true)),
            mirror_lag: info["mirror"]["lag"].as_u64(),
            name,
            config,
        })
    }

    /// Its sequence is the merge order of other streams.
    pub fn is_sequencer(&self) -> bool {
        self.config.get("sources").and_then(Value::as_array).is_some_and(|sources| !sources.is_empty())
    }
    pub fn is_retired(&self) -> bool {
        self.metadata(RETIRED).is_some()
    }
    /// As many copies as asked for, all as far as the leader.
    pub fn replicated(&self, replicas: usize) -> bool {
        replicas <= 1 || (self.replicas >= replicas && self.current)
    }
    /// Messages may vanish one by one, by a time of their own.
    pub fn forgets(&self) -> bool {
        self.config.get("allow_msg_ttl") == Some(&json!(true))
    }
    /// Nanoseconds; 0: for ever.
    pub fn max_age_ns(&self) -> i64 {
        self.config.get("max_age").and_then(Value::as_i64).unwrap_or(0)
    }

    /// Whether its sequences can be kept at all.
    pub fn can_grow(&self) -> anyhow::Result<()> {
        let is = |key: &str| self.config.get(key).is_some_and(|v| *v != json!(false) && !v.is_null());
        ensure!(!is("mirror"), "{} is a mirror itself: grow its origin", self.name);
        ensure!(!is("sealed"), "{} is sealed: it cannot be mirrored", self.name);
        let retention = self.config.get("retention").and_then(Value::as_str).unwrap_or("limits");
        ensure!(retention == "limits", "{} has retention {retention}: only limits keeps what it stored", self.name);
        Ok(())
    }

    /// Compares the cluster's stream of the same name with this old one; a stranger is an error.
    pub fn stand(&self, new: Option<&Self>, domain: &str) -> anyhow::Result<Stand> {
        let Some(new) = new else { return Ok(Stand::Absent) };
        let origin = self.origin(domain);
        match new.metadata(GROWN_FROM) {
            None => bail!(
                "the cluster has a stream {} of its own ({} messages): this would be two truths; delete it there if \
                 nothing needs it",
                self.name,
                new.messages
            ),
            Some(other) if other != origin => {
                bail!("{} in the cluster was grown from another stream ({other}, this is {origin})", self.name)
            }
            Some(_) => {}
        }
        Ok(match new.config.get("mirror").is_some_and(|m| !m.is_null()) {
            true => Stand::Copying { lag: new.mirror_lag.unwrap_or(0) },
            false => Stand::Promoted,
        })
    }

    /// The mirror in the cluster.
    pub fn mirror_config(&self, domain: &str, replicas: usize) -> Value {
        let mut config = self.config.clone();
        NOT_ON_MIRRORS.iter().for_each(|key| drop(config.remove(*key)));
        config.insert("num_replicas".into(), json!(replicas));
        let external = json!({ "api": format!("$JS.{domain}.API"), "deliver": "" });
        config.insert("mirror".into(), json!({ "name": self.name, "external": external }));
        config.insert("metadata".into(), self.grown_metadata(domain));
        config.into()
    }

    /// The old stream under a subject that nobody says; `None` when it is retired already, or hears only sources.
    pub fn retired_config(&self) -> Option<Value> {
        if self.is_sequencer() || self.is_retired() {
            return None;
        }
        let mut config = self.config.clone();
        let subjects = config.get("subjects").cloned().unwrap_or_else(|| json!([]));
        let mut metadata = self.plain_metadata();
        metadata.insert(RETIRED.into(), subjects.to_string().into());
        config.insert("metadata".into(), metadata.into());
        config.insert("subjects".into(), json!([format!("retired.{}", self.name)]));
        Some(config.into())
    }

    /// The old stream as it was before it retired; `None` when it never did.
    pub fn restored_config(&self) -> anyhow::Result<Option<Value>> {
        if !self.is_retired() {
            return Ok(None);
        }
        let mut config = self.config.clone();
        config.insert("subjects".into(), self.subjects()?);
        config.insert("metadata".into(), self.plain_metadata().into());
        Ok(Some(config.into()))
    }

    /// The stream that the mirror becomes: what the old one was, with copies. A source goes on behind the last
    /// sequence of its stream, all of which the frozen sequencer has heard.
    pub fn promoted_config(
        &self,
        domain: &str,
        replicas: usize,
        last_seq: impl Fn(&str) -> u64,
    ) -> anyhow::Result<Value> {
        let mut config = self.config.clone();
        config.remove("placement");
        config.insert("num_replicas".into(), json!(replicas));
        config.insert("metadata".into(), self.grown_metadata(domain));
        if self.is_sequencer() {
            for source in config.get_mut("sources").and_then(Value::as_array_mut).into_iter().flatten() {
                let name = source["name"].as_str().context("a source without name")?.to_owned();
                let source = source.as_object_mut().context("a source that is no object")?;
                source.remove("opt_start_time");
                match last_seq(&name) {
                    0 => drop(source.remove("opt_start_seq")),
                    last => drop(source.insert("opt_start_seq".into(), json!(last + 1))),
                }
            }
        } else {
            config.insert("subjects".into(), self.subjects()?);
        }
        Ok(config.into())
    }

    /// Source streams with their filters (empty: everything) and the sequence they begin at.
    pub fn sources(&self) -> Vec<(String, Vec<String>, u64)> {
        let list = |source: &Value| -> Vec<String> {
            let transforms = source["subject_transforms"].as_array().into_iter().flatten();
            let mut filters: Vec<String> = transforms.filter_map(|t| t["src"].as_str().map(str::to_owned)).collect();
            filters.extend(source["filter_subject"].as_str().filter(|f| !f.is_empty()).map(str::to_owned));
            filters
        };
        let sources = self.config.get("sources").and_then(Value::as_array).into_iter().flatten();
        sources
            .filter_map(|s| Some((s["name"].as_str()?.to_owned(), list(s), s["opt_start_seq"].as_u64().unwrap_or(1))))
            .collect()
    }

    fn origin(&self, domain: &str) -> String {
        format!("{domain}:{}", self.created)
    }
    /// The subjects that it has, or had before it retired.
    fn subjects(&self) -> anyhow::Result<Value> {
        match self.metadata(RETIRED) {
            Some(text) => serde_json::from_str(text).with_context(|| format!("{}: its retired subjects", self.name)),
            None => Ok(self.config.get("subjects").cloned().unwrap_or_else(|| json!([]))),
        }
    }
    fn metadata(&self, key: &str) -> Option<&str> {
        self.config.get("metadata")?.get(key)?.as_str()
    }
    /// Without the server's own entries and without ours.
    fn plain_metadata(&self) -> Map<String, Value> {
        let all = self.config.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        all.into_iter().filter(|(key, _)| !key.starts_with("_nats.") && key != RETIRED && key != GROWN_FROM).collect()
    }
    fn grown_metadata(&self, domain: &str) -> Value {
        let mut metadata = self.plain_metadata();
        metadata.insert(GROWN_FROM.into(), self.origin(domain).into());
        metadata.into()
    }
}
