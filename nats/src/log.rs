//! Logging: tracing to stderr, and to `log.<stage>` on the bus through a bounded queue that drops and counts.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
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

/// Hands lines to the queue of every stage of this process: one, outside of tests.
struct Queue;

static QUEUES: Mutex<Vec<mpsc::Sender<String>>> = Mutex::new(Vec::new());
static DROPPED: OnceLock<Arc<AtomicU64>> = OnceLock::new();

fn dropped() -> &'static Arc<AtomicU64> {
    DROPPED.get_or_init(Arc::default)
}

/// A stage's queue to the bus.
pub struct Lines {
    lines: mpsc::Receiver<String>,
    dropped: Arc<AtomicU64>,
}

/// Installs the process's subscriber (a second call keeps the first) and opens a queue of `queue_max` lines. The
/// level on stderr comes from `RUST_LOG`, `info` without it.
pub fn install(format: LogFormat, queue_max: usize) -> Lines {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let colour = std::io::stderr().is_terminal();
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    // RUST_LOG is about stderr; watchers on the bus see what a stage says at `info`.
    let registry = tracing_subscriber::registry().with(Queue.with_filter(LevelFilter::INFO));
    let installed = match format {
        LogFormat::Text => registry.with(text.with_filter(filter)).try_init(),
        LogFormat::Json => registry.with(text.json().flatten_event(true).with_filter(filter)).try_init(),
    };
    // An error means that a subscriber is there already, ours in a process with several stages.
    drop(installed);
    let (sender, lines) = mpsc::channel(queue_max);
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    Lines { lines, dropped: Arc::clone(dropped()) }
}

impl Lines {
    /// Lines that did not fit a queue, since the process started.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Publishes the lines on `log.<stage>` for as long as the process lives.
    pub async fn forward(mut self, bus: Bus) {
        let subject = format!("log.{}", bus.stage());
        while let Some(line) = self.lines.recv().await {
            // A line that cannot be sent is on stderr already, and saying so here would make another line.
            let _ = bus.publish(subject.clone(), line).await;
        }
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
        let line = Value::Object(fields.0).to_string();
        QUEUES.lock().unwrap_or_else(PoisonError::into_inner).retain(|queue| match queue.try_send(line.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                dropped().fetch_add(1, Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
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
