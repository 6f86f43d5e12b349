//! How a figure is measured: rounds alternate between ours and the reference of the same run, the median counts,
//! wall clock and CPU time stand side by side. Machines are shared and noisy: ratios say more than rates.

use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

/// Rounds of everything that is compared.
pub const ROUNDS: usize = 5;

/// What a run of `count` units took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub wall_s: f64,
    /// Of this process and of those that were named, user and system.
    pub cpu_s: f64,
}

/// Runs `work` and measures it; `others` are processes whose CPU time counts too.
pub fn took(others: &[u32], work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Took> {
    let cpu = |_: ()| -> f64 { cpu_seconds("self") + others.iter().map(|p| cpu_seconds(&p.to_string())).sum::<f64>() };
    let (cpu_begun, begun) = (cpu(()), Instant::now());
    work()?;
    Ok(Took { wall_s: begun.elapsed().as_secs_f64(), cpu_s: cpu(()) - cpu_begun })
}

/// User and system time of a process so far; 0 when it is gone. Linux counts in hundredths of a second.
pub fn cpu_seconds(process: &str) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    // Fields 14 and 15; the second is the name in brackets and may hold spaces.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Resident memory of a process, MiB.
pub fn resident_mib(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The `q`-quantile of sorted values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// Ours divided by the reference.
    RatioAtLeast(f64),
}

/// One line of the report.
struct Row {
    section: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    /// CPU time a unit, nanoseconds.
    cpu_ns: Option<f64>,
    reference: Option<(String, f64, Option<f64>)>,
    aim: Option<Aim>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, value, _)| self.value / value)
    }

    fn met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtLeast(bound) => self.value >= bound,
            Aim::AtMost(bound) => self.value <= bound,
            Aim::RatioAtLeast(bound) => self.ratio()? >= bound,
        })
    }

    fn aim_text(&self) -> String {
        match self.aim {
            Some(Aim::AtLeast(bound)) => format!(">= {}", number(bound)),
            Some(Aim::AtMost(bound)) => format!("<= {}", number(bound)),
            Some(Aim::RatioAtLeast(bound)) => format!("ratio >= {bound}"),
            None => String::new(),
        }
    }
}

/// All lines so far, and what was left out.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    skipped: Vec<(String, String)>,
}

impl Report {
    /// Units a second, medians of [`ROUNDS`] rounds.
    #[allow(clippy::too_many_arguments)]
    pub fn rate(
        &mut self,
        section: &'static str,
        what: impl Into<String>,
        count: usize,
        unit: &'static str,
        ours: &[Took],
        reference: Option<(&str, &[Took])>,
        aim: Option<Aim>,
    ) {
        let rate = |list: &[Took]| median(list.iter().map(|t| count as f64 / t.wall_s).collect());
        let cpu = |list: &[Took]| Some(median(list.iter().map(|t| t.cpu_s * 1e9 / count as f64).collect()));
        self.push(Row {
            section,
            what: what.into(),
            value: rate(ours),
            unit,
            cpu_ns: cpu(ours),
            reference: reference.map(|(name, list)| (name.to_owned(), rate(list), cpu(list))),
            aim,
        });
    }

    /// A figure that is no rate.
    pub fn value(
        &mut self,
        section: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        reference: Option<(&str, f64)>,
        aim: Option<Aim>,
    ) {
        let reference = reference.map(|(name, value)| (name.to_owned(), value, None));
        self.push(Row { section, what: what.into(), value, unit, cpu_ns: None, reference, aim });
    }

    /// A peer or a part that cannot run here, and why.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        eprintln!("skipped: {what}: {why}");
        self.skipped.push((what, why));
    }

    fn push(&mut self, row: Row) {
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    pub fn json(&self) -> Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|r| {
                json!({
                    "section": r.section, "what": r.what, "value": r.value, "unit": r.unit, "cpu_ns": r.cpu_ns,
                    "reference": r.reference.as_ref().map(|(name, value, cpu_ns)| {
                        json!({"what": name, "value": value, "cpu_ns": cpu_ns, "ratio": r.value / value})
                    }),
                    "aim": r.aim.map(|_| r.aim_text()), "met": r.met(),
                })
            })
            .collect();
        let skipped: Vec<_> = self.skipped.iter().map(|(what, why)| json!({"what": what, "why": why})).collect();
        json!({"machine": machine(), "rounds": ROUNDS, "rows": rows, "skipped": skipped})
    }

    /// `BENCHMARKS.md`: method, machine class, one table a section.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Benchmarks\n\nWritten by `make bench`; nothing here is typed by hand.\n\n\
             **Method.** Every figure stands beside its reference from the same run. Rounds alternate between ours and \
             the reference; the median of {ROUNDS} rounds is printed, wall clock first, CPU time (of all processes that \
             take part) beside it. The machine is shared: read the ratios.\n\n**Machine.** {}.\n",
            machine()
        );
        let mut section = "";
        for r in &self.rows {
            if r.section != section {
                section = r.section;
                text.push_str(&format!(
                    "\n## {section}\n\n| what | ours | CPU ns | reference | its figure | its CPU ns | ratio | aim | met |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
                ));
            }
            let cpu = |ns: Option<f64>| ns.map(number).unwrap_or_default();
            let (name, value, cpu_ns) = match &r.reference {
                Some((name, value, ns)) => (name.as_str(), number(*value), cpu(*ns)),
                None => ("", String::new(), String::new()),
            };
            text.push_str(&format!(
                "| {} | {} {} | {} | {name} | {value} | {cpu_ns} | {} | {} | {} |\n",
                r.what,
                number(r.value),
                r.unit,
                cpu(r.cpu_ns),
                r.ratio().map(|x| format!("{x:.2}")).unwrap_or_default(),
                r.aim_text(),
                r.met().map_or("", |met| if met { "yes" } else { "**no**" }),
            ));
        }
        if !self.skipped.is_empty() {
            text.push_str("\n## Left out\n\n");
            for (what, why) in &self.skipped {
                text.push_str(&format!("- {what}: {why}\n"));
            }
        }
        text
    }
}

fn line(r: &Row) -> String {
    let reference = r
        .reference
        .as_ref()
        .map(|(name, value, _)| format!("  beside {name}: {} (ratio {:.2})", number(*value), r.value / value));
    let aim = r.met().map(|met| format!("  aim {}: {}", r.aim_text(), if met { "met" } else { "NOT met" }));
    let cpu = r.cpu_ns.map(|ns| format!("  {} ns CPU", number(ns)));
    format!(
        "{:<62} {:>9} {:<9}{}{}{}",
        r.what,
        number(r.value),
        r.unit,
        cpu.unwrap_or_default(),
        reference.unwrap_or_default(),
        aim.unwrap_or_default()
    )
}

pub fn number(v: f64) -> String {
    match v {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.3}"),
    }
}

/// Core count, architecture and memory: the class, not the machine.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.split_whitespace().next());
    let gib = kib.and_then(|k| k.parse::<f64>().ok()).unwrap_or(0.0) / (1024.0 * 1024.0);
    format!("{cores} cores, {}, {gib:.0} GiB, {}", std::env::consts::ARCH, std::env::consts::OS)
}

/// A program that cargo built beside this bench.
pub fn program(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let bench = std::env::current_exe()?;
    let path = bench.ancestors().nth(2).context("target folder")?.join(name);
    anyhow::ensure!(path.is_file(), "{} is absent: cargo build --release --bins", path.display());
    Ok(path)
}
