//! What stands in `deploy/`, tried: the servers' files on real servers, the growth from one server to a cluster, the
//! units and manifests by their linters and by the programs' own `--help`, the dashboard against real metrics.

mod cluster;
mod dashboard;
mod files;
mod grow;
mod nodes;
