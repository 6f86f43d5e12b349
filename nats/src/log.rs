//! Logging: tracing to stderr, and to `log.<stage>` on the bus through a bounded queue that drops and counts.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::bus::Bus;

/// How log lines look on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The queue to the bus; one a process, because the process has one tracing subscriber.
struct Queue {
    lines: mpsc::Sender<String>,
    dropped: Arc<AtomicU64>,
}

/// The receiving end, until a stage takes it.
static WAITING: Mutex<Option<mpsc::Receiver<String>>> = Mutex::new(None);
static DROPPED: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Installs the process's subscriber; a second call changes nothing. The level comes from `RUST_LOG`, `info`
/// without it. Returns the count of dropped lines.
pub fn install(format: LogFormat, queue_max: usize) -> Arc<AtomicU64> {
    let dropped = Arc::clone(DROPPED.get_or_init(Arc::default));
    let (lines, receiver) = mpsc::channel(queue_max);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let to_bus = Queue { lines, dropped: Arc::clone(&dropped) };
    let registry = tracing_subscriber::registry().with(filter).with(to_bus);
    let installed = match format {
        LogFormat::Text => registry.with(text).try_init(),
        LogFormat::Json => registry.with(text.json().flatten_event(true)).try_init(),
    };
    if installed.is_ok() {
        *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    }
    dropped
}

/// Publishes queued lines on `log.<stage>` for as long as the process lives. Only the first stage of a process
/// finds the queue.
pub async fn forward(bus: Bus) {
    let taken = WAITING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut lines) = taken else { return };
    let subject = format!("log.{}", bus.stage());
    while let Some(line) = lines.recv().await {
        // A line that cannot be sent is on stderr already, and saying so here would make another line.
        let _ = bus.publish(subject.clone(), line).await;
    }
}

impl<S: Subscriber> Layer<S> for Queue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // What the client says of its own publishes would come back here for ever.
        if metadata.target().starts_with("async_nats") {
            return;
        }
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.0.insert("level".to_owned(), metadata.level().as_str().into());
        fields.0.insert("target".to_owned(), metadata.target().into());
        if self.lines.try_send(Value::Object(fields.0).to_string()).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}"); // a String takes every write
        self.0.insert(field.name().to_owned(), text.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
