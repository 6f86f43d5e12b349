//! Counters of the shell, for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One connection of a venue.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Link {
    pub venue: String,
    pub link: String,
}

/// What all links of a process count.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Connections made; the first is no reconnect.
    pub connections: Family<Link, Counter>,
    pub failures: Family<Link, Counter>,
    pub frames: Family<Link, Counter>,
    pub dead: Family<Link, Counter>,
    pub gaps: Family<Link, Counter>,
    pub requests: Family<Link, Counter>,
    /// 1 while everything is subscribed and nothing is being filled.
    pub whole: Family<Link, Gauge>,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, family: &Family<Link, Counter>| {
            registry.register(format!("ingest_{name}"), help, family.clone());
        };
        counter("connections", "Connections made to a venue", &self.connections);
        counter("connection_failures", "Connections refused or lost", &self.failures);
        counter("frames", "Frames read", &self.frames);
        counter("dead_frames", "Frames that were not understood", &self.dead);
        counter("gaps", "Gaps told", &self.gaps);
        counter("requests", "REST requests", &self.requests);
        registry.register("ingest_link_whole", "1 while a connection is complete", self.whole.clone());
    }
}
