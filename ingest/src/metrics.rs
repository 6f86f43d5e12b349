//! Counters of the shell, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One connection of a venue.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Link {
    /// The venue, which is what ingest's tasks are called.
    pub task: String,
    pub link: String,
}

/// One venue.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Venue {
    /// The venue, which is what ingest's tasks are called.
    pub task: String,
}

/// From a millisecond to half a minute, each bound twice the one before.
fn milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 16))
}

type Histograms = Family<Venue, Histogram, fn() -> Histogram>;

/// What all links of a process count.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// From the venue's time of an event until it was read here, by our clock: its way, and the difference of the clocks. One
    /// event of every handful that is read at once.
    pub delay: Histograms,
    /// From when the oldest of what is written at once was read until the server acknowledged it.
    pub stored: Histograms,
    /// The shortest of those ways within the last minute: what it changes by is the drift of the clocks.
    pub shortest: Family<Venue, Gauge>,
    /// Connections made; the first is no reconnect.
    pub connections: Family<Link, Counter>,
    pub failures: Family<Link, Counter>,
    pub frames: Family<Link, Counter>,
    pub dead: Family<Link, Counter>,
    pub gaps: Family<Link, Counter>,
    pub requests: Family<Link, Counter>,
    /// 1 while everything is subscribed and nothing is being filled.
    pub whole: Family<Link, Gauge>,
    /// 1 while the event time of a living connection does not grow.
    pub stale: Family<Link, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            delay: Family::new_with_constructor(milliseconds),
            stored: Family::new_with_constructor(milliseconds),
            shortest: Family::default(),
            connections: Family::default(),
            failures: Family::default(),
            frames: Family::default(),
            dead: Family::default(),
            gaps: Family::default(),
            requests: Family::default(),
            whole: Family::default(),
            stale: Family::default(),
        }
    }
}

impl Metrics {
    /// Every figure of a link at 0: what was never exported has no rate when it happens for the first time.
    pub fn known(&self, link: &Link) {
        for family in [&self.connections, &self.failures, &self.frames, &self.dead, &self.gaps, &self.requests] {
            drop(family.get_or_create(link));
        }
        drop(self.whole.get_or_create(link));
        drop(self.stale.get_or_create(link));
        let venue = Venue { task: link.task.clone() };
        drop(self.delay.get_or_create(&venue));
        drop(self.stored.get_or_create(&venue));
        drop(self.shortest.get_or_create(&venue));
    }

    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, family: &Family<Link, Counter>| {
            registry.register(name, help, family.clone());
        };
        // Named by the grammar of `nats::telemetry`.
        counter("venue_connections", "Connections made to a venue", &self.connections);
        counter("venue_failures", "Connections refused or lost", &self.failures);
        counter("venue_frames", "Frames read", &self.frames);
        counter("venue_dead_frames", "Frames that were not understood", &self.dead);
        counter("venue_gaps", "Gaps told", &self.gaps);
        counter("venue_requests", "REST requests", &self.requests);
        registry.register("venue_whole_state", "1 while a connection is complete", self.whole.clone());
        let venues = [
            ("venue_delay_ms", "From the venue's time until it was read here", &self.delay),
            ("store_delay_ms", "From when it was read until it was stored", &self.stored),
        ];
        for (name, help, family) in venues {
            registry.register(name, help, family.clone());
        }
        registry.register("venue_shortest_delay_ms", "Least venue delay of a minute: drift", self.shortest.clone());
        registry.register("venue_stale_state", "1 while event times stand still", self.stale.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_a_link_follows_the_grammar_of_all_stages() {
        let (metrics, link) = (Metrics::default(), Link { task: "binance".into(), link: "1".into() });
        let counters = [&metrics.connections, &metrics.failures, &metrics.frames, &metrics.dead, &metrics.gaps];
        for family in counters.into_iter().chain([&metrics.requests]) {
            family.get_or_create(&link).inc();
        }
        metrics.whole.get_or_create(&link).set(1);
        metrics.stale.get_or_create(&link).set(0);
        metrics.known(&link);
        let mut registry = Registry::with_prefix("tapeline");
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), 11, "{text}");
        for name in names {
            nats::telemetry::check_metric(name, &["stage", "task", "link"]).unwrap();
        }
    }
}
