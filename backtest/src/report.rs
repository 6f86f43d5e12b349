//! What a backtest gives back, and its files: CSV lists, statistics, a report for people and the same as JSON.
//!
//! Modules in reading order: what the cores did not say, the numbers, their pictures, the page.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use schemas::Nanos;

use crate::account::{Point, Trip};
use crate::metrics::Stats;
use crate::portfolio::Key;

pub mod background;
pub mod sheet;

pub(crate) mod chart;
mod page;

pub use background::Background;
pub(crate) use page::{escaped, frame};
pub use sheet::Sheet;

/// A finished backtest.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Closed round trips in the order of their exits.
    pub trips: Vec<Trip>,
    /// Venue and symbol of each trip; empty where there is only the background's market.
    pub markets: Vec<Key>,
    /// Equity at every bar's close.
    pub equity: Vec<Point>,
    pub stats: Stats,
    /// Everything that was said, the tape included, and SHA-256 over it in hex: two runs of the same are equal.
    pub facts: u64,
    pub hash: String,
    /// By kind, such as `order` or `refusal`: how many facts.
    pub kinds: BTreeMap<String, u64>,
    /// What risk refused, by the limit's code.
    pub refusals: BTreeMap<String, u64>,
}

impl Report {
    /// Writes `trades.csv`, `equity.csv`, `stats.json`, `report.json` and `report.html` into `dir`, which is made where
    /// it is absent. Without candles: see [`Report::write_with`].
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        self.write_with(dir, &Background::default())
    }

    /// As [`Report::write`], with the candles, gaps and settings of the run.
    pub fn write_with(&self, dir: &Path, background: &Background) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("make folder {}", dir.display()))?;
        let file = |name: &str| -> anyhow::Result<BufWriter<File>> {
            let path = dir.join(name);
            Ok(BufWriter::new(File::create(&path).with_context(|| format!("write {}", path.display()))?))
        };
        let mut trades = file("trades.csv")?;
        writeln!(trades, "side,units,entry_ts_ms,exit_ts_ms,entry_price,exit_price,net_pnl")?;
        for t in &self.trips {
            let side = if t.long { "long" } else { "short" };
            let (entry, exit) = (Nanos(t.entry_ns).as_ms(), Nanos(t.exit_ns).as_ms());
            let price = t.entry_double.map_or_else(|| t.entry_price.to_string(), |double| double.to_string());
            writeln!(trades, "{side},{},{entry},{exit},{price},{},{}", t.units, t.exit_price, t.net)?;
        }
        trades.flush()?;
        let mut equity = file("equity.csv")?;
        writeln!(equity, "open_ts_ms,equity")?;
        for p in &self.equity {
            writeln!(equity, "{},{}", p.open_ms, p.equity)?;
        }
        equity.flush()?;
        let mut stats = file("stats.json")?;
        serde_json::to_writer_pretty(&mut stats, &self.stats)?;
        writeln!(stats)?;
        stats.flush()?;
        let sheet = Sheet::of(self, background);
        let mut numbers = file("report.json")?;
        serde_json::to_writer_pretty(&mut numbers, &sheet)?;
        writeln!(numbers)?;
        numbers.flush()?;
        let mut page = file("report.html")?;
        page.write_all(page::html(&sheet).as_bytes())?;
        page.flush()?;
        Ok(())
    }
}
