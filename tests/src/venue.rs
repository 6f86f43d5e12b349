//! The venue simulator as a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::{program, tail, wait_for};

const START_BOUND: Duration = Duration::from_secs(60);

/// Simulated venues on loopback; dropping it kills exactly this process.
pub struct Venues {
    child: Child,
    /// `address:port` by venue.
    addresses: BTreeMap<String, String>,
}

impl Venues {
    /// BTC and ETH at `venues`; `speed` is market seconds in a real one.
    pub async fn start(dir: &Path, venues: &[&str], seed: u64, speed: u64) -> anyhow::Result<Self> {
        let (ports, log) = (dir.join("simulator.json"), dir.join("simulator.log"));
        let child = Command::new(program("simulator")?)
            .args(["--venue", &venues.join(","), "--symbols", "BTCUSDT,ETHUSDT", "--listen", "127.0.0.1:0"])
            .args(["--seed", &seed.to_string(), "--speed", &speed.to_string()])
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("start the simulator")?;
        let mut started = Self { child, addresses: BTreeMap::new() };
        started.addresses = wait_for("the simulator's addresses", START_BOUND, || async {
            serde_json::from_str(&std::fs::read_to_string(&ports).ok()?).ok()
        })
        .await
        .with_context(|| tail(&log, 8))?;
        Ok(started)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `http://<address>:<port>` of a venue.
    pub fn rest(&self, venue: &str) -> Option<String> {
        self.addresses.get(venue).map(|address| format!("http://{address}"))
    }

    /// Ingest's tables for these venues.
    pub fn configuration(&self) -> String {
        let tables = self.addresses.iter().map(|(venue, address)| {
            format!(
                "[ingest.venues.{venue}]\nenabled = true\nsymbols = [\"BTCUSDT\", \"ETHUSDT\"]\n\
                 ws_url = \"ws://{address}\"\nrest_url = \"http://{address}\"\n"
            )
        });
        tables.collect()
    }
}

impl Drop for Venues {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
