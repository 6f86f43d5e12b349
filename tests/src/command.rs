//! What the long runs have in common as commands: arguments, interruption, progress, the report.

use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Arguments of `chaos` and `soak` alike.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// What happens when; printed, so that a run can be repeated. Chosen by the clock where absent
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Partitions of every venue
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub partitions: u32,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl Common {
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_millis() as u64 % 1_000_000)
        })
    }

    /// The report: JSON for scripts, else as `print` shows it.
    pub fn report<R: Serialize>(&self, report: &R, print: impl FnOnce(&R)) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(report).context("write the report")?);
        } else {
            print(report);
        }
        Ok(())
    }
}

/// The `main` of a long run. Ctrl-C drops the work, which ends every process that it started.
pub fn main(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    nats::exit::main(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            done = work => done,
        }
    })
}

/// A bar of `length` steps, `steps` naming them behind the count where they mean something to people.
pub fn bar(length: u64, steps: &str) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(length);
    bar.set_style(ProgressStyle::with_template(&format!("  {{bar:40}} {steps} {{msg}} {{elapsed}}"))?);
    Ok(bar)
}

pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    table
}
