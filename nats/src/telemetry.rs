//! What a stage can say of itself: counters and positions per task, for `$SRV.STATS` and for Prometheus.
//!
//! One grammar names every metric of every stage: `tapeline_<noun>_<unit>{stage,task}`, the noun in one word or more,
//! the unit one of [`UNITS`] and last; a counter ends in `_total` behind its unit, as OpenMetrics demands. Every series
//! carries `stage`; what belongs to a task carries `task` (ingest: the venue), and a task's parts may carry one label
//! more. What belongs to the whole process has no `task`. [`check_metric`] is the grammar as a function.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};

use crate::bus::Bus;

const NO_WATERMARK: i64 = i64::MIN;

/// Counters and positions of one task; written by its loop, read by anybody.
#[derive(Debug)]
pub struct TaskStats {
    key: String,
    heard: AtomicU64,
    said: AtomicU64,
    previews: AtomicU64,
    unknown: AtomicU64,
    undecodable: AtomicU64,
    resyncs: AtomicU64,
    in_seq: AtomicU64,
    out_seq: AtomicU64,
    lag: AtomicU64,
    watermark_ns: AtomicI64,
    checkpoint_wall_ms: AtomicU64,
    checkpoints: AtomicU64,
    running: AtomicBool,
    fenced: AtomicBool,
}

impl TaskStats {
    pub fn new(key: &str) -> Arc<Self> {
        Arc::new(Self {
            key: key.to_owned(),
            heard: AtomicU64::new(0),
            said: AtomicU64::new(0),
            previews: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
            in_seq: AtomicU64::new(0),
            out_seq: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            watermark_ns: AtomicI64::new(NO_WATERMARK),
            checkpoint_wall_ms: AtomicU64::new(wall_ms()),
            checkpoints: AtomicU64::new(0),
            running: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
        })
    }

    /// The task's key within its stage.
    pub fn key(&self) -> &str {
        &self.key
    }
    /// An input was folded; the cursor stands at `in_seq`.
    pub fn heard(&self, in_seq: u64) {
        self.heard.fetch_add(1, Relaxed);
        self.in_seq.store(in_seq, Relaxed);
    }
    /// The cursor passed over inputs that the filter does not name.
    pub fn passed(&self, in_seq: u64) {
        self.in_seq.store(in_seq, Relaxed);
    }
    /// An output was pushed for position `out_seq`.
    pub fn said(&self, _out_seq: u64) {
        self.said.fetch_add(1, Relaxed);
    }
    pub fn preview(&self) {
        self.previews.fetch_add(1, Relaxed);
    }
    /// A kind that the core does not listen to was passed over.
    pub fn unknown(&self) {
        self.unknown.fetch_add(1, Relaxed);
    }
    /// A payload that is not what its subject promises was passed over; gives how many so far.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.fetch_add(1, Relaxed) + 1
    }
    pub fn opened(&self) {
        self.running.store(true, Relaxed);
    }
    /// `lag`: inputs of the filter that wait. `out_seq`: last acknowledged output.
    pub fn state(&self, lag: u64, watermark_ns: Option<i64>, out_seq: u64, resyncs: u64) {
        self.lag.store(lag, Relaxed);
        self.watermark_ns.store(watermark_ns.unwrap_or(NO_WATERMARK), Relaxed);
        self.out_seq.store(out_seq, Relaxed);
        self.resyncs.store(resyncs, Relaxed);
    }
    pub fn checkpointed(&self, out_seq: u64) {
        self.checkpoint_wall_ms.store(wall_ms(), Relaxed);
        self.checkpoints.fetch_add(1, Relaxed);
        self.out_seq.store(out_seq, Relaxed);
    }
    pub fn ended(&self, fenced: bool) {
        self.running.store(false, Relaxed);
        self.fenced.store(fenced, Relaxed);
    }

    pub fn heard_count(&self) -> u64 {
        self.heard.load(Relaxed)
    }
    pub fn unknown_count(&self) -> u64 {
        self.unknown.load(Relaxed)
    }
    pub fn undecodable_count(&self) -> u64 {
        self.undecodable.load(Relaxed)
    }
    pub fn checkpoint_count(&self) -> u64 {
        self.checkpoints.load(Relaxed)
    }
    pub fn in_seq(&self) -> u64 {
        self.in_seq.load(Relaxed)
    }
    pub fn lag(&self) -> u64 {
        self.lag.load(Relaxed)
    }

    fn watermark(&self) -> Option<i64> {
        let ns = self.watermark_ns.load(Relaxed);
        (ns != NO_WATERMARK).then_some(ns)
    }

    /// One object of `tasks` in the answer to `$SRV.STATS`.
    pub fn json(&self) -> Value {
        json!({
            "task": self.key,
            "running": self.running.load(Relaxed),
            "fenced": self.fenced.load(Relaxed),
            "in_seq": self.in_seq.load(Relaxed),
            "lag": self.lag.load(Relaxed),
            "out_seq": self.out_seq.load(Relaxed),
            "ckpt_age_ms": wall_ms().saturating_sub(self.checkpoint_wall_ms.load(Relaxed)),
            "watermark_ns": self.watermark(),
            "heard": self.heard.load(Relaxed),
            "said": self.said.load(Relaxed),
            "previews": self.previews.load(Relaxed),
            "unknown": self.unknown.load(Relaxed),
            "undecodable": self.undecodable.load(Relaxed),
            "resyncs": self.resyncs.load(Relaxed),
        })
    }
}

/// All tasks of a process with its connection and log.
#[derive(Clone)]
pub struct Board {
    bus: Bus,
    tasks: Arc<Mutex<Vec<Arc<TaskStats>>>>,
    extra: Arc<Mutex<Vec<(String, ExtraStats)>>>,
    log_dropped: Arc<AtomicU64>,
}

/// What a shell adds to its stage's statistics.
pub type ExtraStats = Box<dyn Fn() -> Value + Send + Sync>;

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Board")
    }
}

impl Board {
    pub fn new(bus: &Bus, log_dropped: Arc<AtomicU64>) -> Self {
        Self { bus: bus.clone(), tasks: Arc::default(), extra: Arc::default(), log_dropped }
    }

    pub fn add(&self, task: Arc<TaskStats>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    pub fn remove(&self, key: &str) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).retain(|task| task.key() != key);
    }

    /// Shows `stats()` under `name` in the stage's statistics.
    pub fn add_extra(&self, name: &str, stats: ExtraStats) {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), stats));
    }

    pub fn tasks(&self) -> Vec<Arc<TaskStats>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The whole, for `$SRV.STATS` and `/healthz`.
    pub fn json(&self) -> Value {
        let tasks: Vec<Value> = self.tasks().iter().map(|task| task.json()).collect();
        let mut whole = json!({
            "stage": self.bus.stage(),
            "version": env!("CARGO_PKG_VERSION"),
            "connected": self.bus.is_connected(),
            "disconnects": self.bus.disconnects(),
            "slow_consumers": self.bus.slow_consumers(),
            "log_dropped": self.log_dropped.load(Relaxed),
            "tasks": tasks,
        });
        if let Some(object) = whole.as_object_mut() {
            for (name, stats) in self.extra.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                object.insert(name.clone(), stats());
            }
        }
        whole
    }
}

type Read = fn(&TaskStats) -> Option<i64>;

/// The last words that metric names may have. `seq`: a position in a stream; `state`: 1 or 0.
pub const UNITS: &[&str] = &[
    "messages",
    "frames",
    "lines",
    "gaps",
    "requests",
    "connections",
    "disconnects",
    "failures",
    "resyncs",
    "writes",
    "bytes",
    "seq",
    "ns",
    "ms",
    "state",
];

/// Whether a metric's name, as Prometheus shows it in its `# TYPE` line, and the labels of one series follow the
/// grammar; the error says what does not.
pub fn check_metric(name: &str, labels: &[&str]) -> Result<(), String> {
    let Some(rest) = name.strip_prefix("tapeline_") else {
        return Err(format!("{name} does not begin with tapeline_"));
    };
    let good = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let Some((noun, unit)) = rest.rsplit_once('_') else { return Err(format!("{name} has no unit behind its noun")) };
    if !noun.split('_').all(good) {
        return Err(format!("{name}: `{noun}` is not lower-case words"));
    }
    if !UNITS.contains(&unit) {
        return Err(format!("{name}: `{unit}` is none of {}", UNITS.join(", ")));
    }
    match labels {
        ["stage"] | ["stage", "task"] | ["stage", "task", _] => Ok(()),
        _ => Err(format!("{name} has the labels {}, not stage, task and at most one more", labels.join(", "))),
    }
}

/// name, help, counter?, value
const TASK_METRICS: &[(&str, &str, bool, Read)] = &[
    ("input_messages", "Inputs folded", true, |t| Some(t.heard.load(Relaxed) as i64)),
    ("output_messages", "Outputs pushed", true, |t| Some(t.said.load(Relaxed) as i64)),
    ("preview_messages", "Unstored outputs published", true, |t| Some(t.previews.load(Relaxed) as i64)),
    ("unknown_messages", "Inputs of kinds not listened to", true, |t| Some(t.unknown.load(Relaxed) as i64)),
    ("undecodable_messages", "Inputs that could not be decoded", true, |t| Some(t.undecodable.load(Relaxed) as i64)),
    ("writer_resyncs", "Times the writer asked where it stands", true, |t| Some(t.resyncs.load(Relaxed) as i64)),
    ("checkpoint_writes", "Checkpoints written", true, |t| Some(t.checkpoints.load(Relaxed) as i64)),
    ("input_seq", "Sequence of the last input folded", false, |t| Some(t.in_seq.load(Relaxed) as i64)),
    ("output_seq", "Sequence of the last output acknowledged", false, |t| Some(t.out_seq.load(Relaxed) as i64)),
    ("lag_messages", "Inputs that wait", false, |t| Some(t.lag.load(Relaxed) as i64)),
    ("watermark_ns", "Event time heard completely", false, TaskStats::watermark),
    ("checkpoint_age_ms", "Since the last checkpoint", false, |t| {
        Some(wall_ms().saturating_sub(t.checkpoint_wall_ms.load(Relaxed)) as i64)
    }),
    ("running_state", "1: the task is open", false, |t| Some(t.running.load(Relaxed).into())),
    ("fenced_state", "1: another instance owns the task", false, |t| Some(t.fenced.load(Relaxed).into())),
];

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let tasks = self.tasks();
        for (name, help, counter, read) in TASK_METRICS {
            let kind = if *counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for task in &tasks {
                let Some(value) = read(task) else { continue };
                let labels = [("task", task.key.as_str())];
                let metric = family.encode_family(&labels)?;
                if *counter {
                    ConstCounter::new(value as u64).encode(metric)?;
                } else {
                    ConstGauge::new(value).encode(metric)?;
                }
            }
        }
        let whole = [
            ("bus_disconnects", "Connections to nats-server lost", self.bus.disconnects()),
            ("bus_dropped_messages", "Deliveries dropped by the client", self.bus.slow_consumers()),
            ("log_dropped_lines", "Log lines that did not fit the queue to the bus", self.log_dropped.load(Relaxed)),
        ];
        for (name, help, value) in whole {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let metric =
            encoder.encode_descriptor("bus_connected_state", "1: connected to nats-server", None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(self.bus.is_connected())).encode(metric)
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_a_task_follow_the_grammar() {
        for (name, ..) in TASK_METRICS {
            check_metric(&format!("tapeline_{name}"), &["stage", "task"]).unwrap();
        }
    }

    #[test]
    fn a_name_without_a_unit_or_with_strange_labels_is_refused() {
        for (name, labels) in [
            ("tapeline_heard", &["stage"][..]),
            ("tapeline_lag_seconds", &["stage"]),
            ("lag_messages", &["stage"]),
            ("tapeline_Lag_messages", &["stage"]),
            ("tapeline__messages", &["stage"]),
            ("tapeline_lag_messages", &["task"]),
            ("tapeline_lag_messages", &["stage", "venue"]),
        ] {
            check_metric(name, labels).unwrap_err();
        }
    }
}
