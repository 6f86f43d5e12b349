//! The shell's clock: receive times and timers. It never steps back, whatever happens to the system's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schemas::Nanos;

/// Nanoseconds since 1970: goes on at the pace of the monotonic clock and follows the system's only forwards (the
/// monotonic one stands still while a machine sleeps). Clones share it.
#[derive(Clone, Debug)]
pub struct Wall(Arc<Mutex<(Instant, i64)>>);

impl Wall {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), system_ns()))))
    }

    pub fn now(&self) -> Nanos {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let instant = Instant::now();
        let passed = instant.duration_since(anchor.0).as_nanos() as i64;
        *anchor = (instant, anchor.1.saturating_add(passed).max(system_ns()));
        Nanos(anchor.1)
    }
}

impl Default for Wall {
    fn default() -> Self {
        Self::new()
    }
}

/// A system clock before 1970 counts as 1970.
fn system_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
