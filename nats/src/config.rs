//! Bounds of the bus; `config.toml` is the manual.

use schemas::config::{ConfigError, UserFile};
use serde::Deserialize;
use std::time::Duration;

/// The commented defaults.
pub const DEFAULT: &str = include_str!("../config.toml");

/// All bounds; each is described where it is set, in `nats/config.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub connection: Connection,
    pub writer: Writer,
    pub reader: Reader,
    pub task: Task,
    pub lease: Lease,
    pub telemetry: Telemetry,
    pub trace: Trace,
    pub layout: LayoutBounds,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    pub ping_interval_ms: u64,
    pub connect_timeout_ms: u64,
    pub reconnect_delay_ms_max: u64,
    pub outage_s_max: u64,
    pub subscription_messages_max: usize,
    pub request_timeout_ms: u64,
    pub request_tries_max: u32,
    pub behind_ms_max: u64,
    pub streams_wait_s_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writer {
    pub window: usize,
    pub ack_timeout_ms: u64,
    pub resync_tries_max: u32,
    pub backoff_ms_max: u64,
    pub compare_window: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    pub batch: usize,
    pub batch_bytes_max: usize,
    pub expires_ms: u64,
    pub heartbeat_ms: u64,
    pub inactive_s: u64,
    pub expiry_check_ms: u64,
    pub silence_check_ms: u64,
    pub recreate_tries_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub checkpoint_inputs_max: u64,
    pub checkpoint_ms_max: u64,
    pub batch: usize,
    pub preview_pending_max: u64,
    pub stop_ms_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    pub ttl_s: u64,
    pub renew_ms: u64,
    pub margin_ms: u64,
    pub quota: usize,
    pub halt_retry_s: u64,
    pub members_max: usize,
    pub entries_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub log_queue_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    pub derived: bool,
    pub raw: bool,
}

/// Retention of the streams that [`crate::Layout`] creates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutBounds {
    pub replicas: usize,
    pub raw_days: u64,
    pub raw_bytes_max: i64,
    pub aggregate_days: u64,
    pub aggregate_messages_max: i64,
    pub signal_days: u64,
    pub signal_messages_max: i64,
    pub desk_days: u64,
    pub desk_messages_max: i64,
    pub desk_bytes_max: i64,
    pub risk_days: u64,
    pub risk_messages_max: i64,
    pub exec_messages_max: i64,
}

impl Default for Config {
    fn default() -> Self {
        schemas::config::load("nats", DEFAULT, None).expect("Invariant: the defaults load, which a test shows")
    }
}

impl Config {
    /// The defaults with the user's table `[nats]` laid over them.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("nats", DEFAULT, user)?;
        config.check()?;
        Ok(config)
    }

    /// Names the first value that cannot work, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::value(&format!("nats.{key}"), format_args!("{value} is not within {low}..={high}")))
        };
        let c = &self.connection;
        within("connection.ping_interval_ms", c.ping_interval_ms, 100, 60_000)?;
        within("connection.connect_timeout_ms", c.connect_timeout_ms, 100, 60_000)?;
        within("connection.reconnect_delay_ms_max", c.reconnect_delay_ms_max, 50, 60_000)?;
        within("connection.outage_s_max", c.outage_s_max, 1, 86_400)?;
        within("connection.subscription_messages_max", c.subscription_messages_max as u64, 1024, 1 << 20)?;
        within("connection.request_timeout_ms", c.request_timeout_ms, 100, 60_000)?;
        within("connection.behind_ms_max", c.behind_ms_max, 0, 600_000)?;
        within("connection.request_tries_max", c.request_tries_max.into(), 1, 1000)?;
        within("connection.streams_wait_s_max", c.streams_wait_s_max, 0, 3600)?;
        let w = &self.writer;
        within("writer.window", w.window as u64, 1, 4096)?;
        within("writer.ack_timeout_ms", w.ack_timeout_ms, 100, 60_000)?;
        within("writer.resync_tries_max", w.resync_tries_max.into(), 1, 10_000)?;
        within("writer.backoff_ms_max", w.backoff_ms_max, 10, 60_000)?;
        within("writer.compare_window", w.compare_window as u64, 1, 1024)?;
        let r = &self.reader;
        // Two requests are in flight; what is not read yet must fit the subscription, or the client drops it.
        within("reader.batch", r.batch as u64, 1, (c.subscription_messages_max as u64 / 2).min(32_768))?;
        within("reader.batch_bytes_max", r.batch_bytes_max as u64, 1 << 20, 1 << 30)?;
        within("reader.expires_ms", r.expires_ms, 1000, 30_000)?;
        within("reader.heartbeat_ms", r.heartbeat_ms, 100, r.expires_ms / 2)?;
        within("reader.inactive_s", r.inactive_s, 5, 3600)?;
        within("reader.expiry_check_ms", r.expiry_check_ms, 100, 600_000)?;
        within("reader.silence_check_ms", r.silence_check_ms, 50, 600_000)?;
        within("reader.recreate_tries_max", r.recreate_tries_max.into(), 1, 10_000)?;
        let t = &self.task;
        within("task.checkpoint_inputs_max", t.checkpoint_inputs_max, 1, 10_000_000)?;
        within("task.checkpoint_ms_max", t.checkpoint_ms_max, 50, 60_000)?;
        within("task.batch", t.batch as u64, 1, 8192)?;
        within("task.preview_pending_max", t.preview_pending_max, 0, 10_000)?;
        within("task.stop_ms_max", t.stop_ms_max, 100, 600_000)?;
        let e = &self.lease;
        within("lease.ttl_s", e.ttl_s, 1, 60)?;
        within("lease.margin_ms", e.margin_ms, 50, e.ttl_s * 1000 / 2)?;
        // Two renewals may fail before the work has to stop.
        within("lease.renew_ms", e.renew_ms, 50, (e.ttl_s * 1000 - e.margin_ms) / 3)?;
        within("lease.quota", e.quota as u64, 0, 65_536)?;
        within("lease.halt_retry_s", e.halt_retry_s, 1, 3600)?;
        within("lease.members_max", e.members_max as u64, 1, 1024)?;
        within("lease.entries_max", e.entries_max as u64, 1, 65_536)?;
        within("telemetry.log_queue_max", self.telemetry.log_queue_max as u64, 1, 1 << 20)?;
        let l = &self.layout;
        within("layout.replicas", l.replicas as u64, 1, 5)?;
        within("layout.raw_days", l.raw_days, 1, 36_500)?;
        within("layout.aggregate_days", l.aggregate_days, 1, 36_500)?;
        within("layout.signal_days", l.signal_days, 1, 36_500)?;
        within("layout.desk_days", l.desk_days, 1, 36_500)?;
        within("layout.risk_days", l.risk_days, 1, 36_500)?;
        for (key, value) in [
            ("layout.raw_bytes_max", l.raw_bytes_max),
            ("layout.aggregate_messages_max", l.aggregate_messages_max),
            ("layout.signal_messages_max", l.signal_messages_max),
            ("layout.desk_messages_max", l.desk_messages_max),
            ("layout.desk_bytes_max", l.desk_bytes_max),
            ("layout.risk_messages_max", l.risk_messages_max),
            ("layout.exec_messages_max", l.exec_messages_max),
        ] {
            within(key, value.try_into().unwrap_or(u64::MAX), 0, i64::MAX as u64)?;
        }
        Ok(())
    }
}

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_load_and_mean_something() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_batch_beyond_half_of_the_subscription_is_refused_by_name() {
        let user = UserFile { name: "tapeline.toml".into(), text: "[nats.reader]\nbatch = 65536\n".into() };
        let error = Config::load(Some(&user)).unwrap_err();
        assert_eq!(error.key, "nats.reader.batch");
        assert!(error.why.contains("1..=32768"), "{}", error.why);
    }
}
