//! The server, its clock, its disk, its streams, and what lies about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::TryStreamExt;
use nats::{Bus, Layout};
use schemas::config::UserFile;
use schemas::subject::{PARTITIONS, unescape};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Findings, Version};

/// Consumers of one stream that are more than readers in good order leave.
const CONSUMERS_MAX: usize = 100;
/// Share of the account's storage that is a warning.
const STORAGE_SHARE_MAX: f64 = 0.9;
/// Differences of one stream that are told.
const TOLD_MAX: usize = 20;

/// Version, JetStream, and who can reach it.
pub fn server(bus: &Bus, url: &str, oldest: Version, findings: &mut Findings) {
    let info = bus.client().server_info();
    match info.version.parse::<Version>() {
        Ok(version) if version >= oldest => findings.ok("server", url, format!("nats-server {version}")),
        Ok(version) => findings.fail(
            "server",
            url,
            format!("nats-server {version} is older than {oldest}"),
            "install a newer nats-server: scripts/setup.sh run",
        ),
        Err(why) => findings.fail("server", url, why, "use nats-server"),
    }
    let open = ["0.0.0.0", "::"].contains(&info.host.as_str());
    if open && !info.tls_required {
        findings.warn(
            "ports",
            format!("{}:{}", info.host, info.port),
            "nats-server listens on every address without TLS",
            "set host: \"127.0.0.1\" in its configuration, or TLS",
        );
    }
}

async fn api(bus: &Bus, subject: &str) -> anyhow::Result<Value> {
    let answer = bus.client().request(subject.to_owned(), "".into()).await.with_context(|| format!("ask {subject}"))?;
    serde_json::from_slice(&answer.payload).context("read the answer")
}

/// The difference between our clock and the server's, as its stream information carries its time.
pub async fn clock(bus: &Bus, skew_ms_max: f64, findings: &mut Findings) {
    let now_ns = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    let before = now_ns();
    let answer = api(bus, "$JS.API.STREAM.INFO.KV_ckpt").await;
    let after = now_ns();
    let server_ns = match &answer {
        Ok(answer) => answer["ts"].as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()),
        Err(_) => None,
    };
    let Some(server) = server_ns else {
        let found = match answer {
            Err(error) => format!("{error:#}"),
            Ok(answer) => format!("its answer carries no time: {}", answer["error"]["description"]),
        };
        findings.warn("clock", "server", found, "create the streams with `tapeline init`, then ask again");
        return;
    };
    // Somewhere between the question and the answer.
    let skew_ms = (server.unix_timestamp_nanos() - (before + after) / 2) as f64 / 1e6;
    let unsure_ms = (after - before) as f64 / 2e6;
    let found = format!("{skew_ms:+.3} ms, give or take {unsure_ms:.3}");
    if skew_ms.abs() > skew_ms_max {
        let remedy = "let both machines follow NTP: candles and lags are told by these clocks";
        findings.fail("clock", "server", format!("{found}; at most {skew_ms_max} ms"), remedy);
    } else {
        findings.ok("clock", "server", found);
    }
}

/// Free space, and JetStream's own account of it.
pub async fn disk(bus: &Bus, folder: Option<&Path>, free_mib_min: u64, findings: &mut Findings) {
    match api(bus, "$JS.API.INFO").await {
        Ok(info) => {
            let used = info["storage"].as_u64().unwrap_or(0);
            let limit = info["limits"]["max_storage"].as_i64().unwrap_or(-1);
            let found = format!("{} MiB in {} streams", used >> 20, info["streams"]);
            if limit > 0 && used as f64 > limit as f64 * STORAGE_SHARE_MAX {
                let found = format!("{found} of {} MiB", limit >> 20);
                findings.warn("disk", "JetStream", found, "raise max_file_store, or shorten [nats.layout] raw_days");
            } else {
                findings.ok("disk", "JetStream", found);
            }
        }
        Err(error) => findings.fail("disk", "JetStream", format!("{error:#}"), "enable JetStream in the server"),
    }
    let folder = folder.unwrap_or(Path::new("."));
    match free_mib(folder) {
        Ok(free) if free < free_mib_min => findings.fail(
            "disk",
            folder.display().to_string(),
            format!("{free} MiB free; at least {free_mib_min}"),
            "make room, or shorten [nats.layout] raw_days",
        ),
        Ok(free) => findings.ok("disk", folder.display().to_string(), format!("{free} MiB free")),
        Err(error) => findings.warn("disk", folder.display().to_string(), format!("{error:#}"), "look with `df`"),
    }
}

/// What `df` says is free.
fn free_mib(folder: &Path) -> anyhow::Result<u64> {
    let out = Command::new("df").arg("-Pk").arg(folder).output().context("run df")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let cells: Vec<&str> = text.lines().nth(1).unwrap_or("").split_whitespace().collect();
    let free: u64 = cells.get(3).context("df said nothing")?.parse().context("read what df said")?;
    Ok(free >> 10)
}

/// Streams against the layout that the server's own streams and the configuration ask for.
pub async fn streams(bus: &Bus, user: Option<&UserFile>, findings: &mut Findings) {
    let names = match names(bus).await {
        Ok(names) => names,
        Err(error) => {
            findings.fail("streams", "all", format!("{error:#}"), "enable JetStream in the server");
            return;
        }
    };
    let mut total = 0;
    let mut wrong = 0;
    for layout in layouts(bus, &names, user).await {
        let bounds = bus.config().layout.clone();
        total += layout.streams().len();
        match layout.differences(bus, &bounds).await {
            Ok(differences) => {
                wrong += differences.len();
                for d in differences.iter().take(TOLD_MAX) {
                    let remedy = if d.what.starts_with("partitions") {
                        "partitions are frozen for the life of a stream: run the stages with the same --partitions"
                    } else {
                        "`tapeline up` or `tapeline init` sets it; or set [nats.layout] to what is wanted"
                    };
                    findings.fail("streams", d.stream.clone(), d.what.clone(), remedy);
                }
                if differences.len() > TOLD_MAX {
                    let more = format!("{} more differences", differences.len() - TOLD_MAX);
                    findings.fail("streams", "others", more, "`tapeline init` sets them");
                }
            }
            Err(error) => findings.fail("streams", "all", error.to_string(), "look at the server's log"),
        }
    }
    if total == 0 {
        findings.fail("streams", "all", "there are none", "create them with `tapeline up` or `tapeline init`");
    } else if wrong == 0 {
        findings.ok("streams", "all", format!("{total} streams and buckets are as the layout wants them"));
    }
}

async fn names(bus: &Bus) -> anyhow::Result<BTreeSet<String>> {
    Ok(bus.js().stream_names().try_collect::<Vec<String>>().await.context("list streams")?.into_iter().collect())
}

/// One layout for each number of partitions: a layout has one for all of its venues.
async fn layouts(bus: &Bus, names: &BTreeSet<String>, user: Option<&UserFile>) -> Vec<Layout> {
    let under = |prefix: &str| {
        let found = names.iter().filter_map(|name| name.strip_prefix(prefix).map(str::to_owned));
        found.collect::<BTreeSet<String>>()
    };
    let mut venues: BTreeSet<String> = under("RAW_").into_iter().map(|venue| venue.to_ascii_lowercase()).collect();
    let plain = |tokens: BTreeSet<String>| tokens.iter().filter_map(|t| unescape(t)).collect::<BTreeSet<String>>();
    let (mut accounts, mut traders) = (plain(under("DESK_")), plain(under("LLMP_")));
    if user.is_some() {
        if let Ok(config) = ingest::config::Config::load(user) {
            venues.extend(config.venues.iter().filter(|(_, venue)| venue.enabled).map(|(id, _)| id.clone()));
        }
        accounts.extend(risk::Config::load(user).map(|config| config.accounts).unwrap_or_default());
        let known = strategy::Config::load(user).and_then(|config| config.traders()).unwrap_or_default();
        traders.extend(known.into_iter().map(|trader| trader.name));
    }
    let mut by_partitions: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for venue in venues {
        let partitions = nats::layout::partitions(bus, &venue).await.ok().flatten().unwrap_or(PARTITIONS);
        by_partitions.entry(partitions).or_default().push(venue);
    }
    // Desks merge all venues, which only one layout can tell.
    let whole = by_partitions.len() <= 1;
    let of = |(partitions, venues): (u32, Vec<String>)| Layout {
        venues,
        accounts: if whole { accounts.iter().cloned().collect() } else { Vec::new() },
        traders: if whole { traders.iter().cloned().collect() } else { Vec::new() },
        partitions,
    };
    by_partitions.into_iter().map(of).collect()
}

/// Replays that were kept, streams that nobody knows, consumers that nobody reads.
pub async fn leftovers(bus: &Bus, findings: &mut Findings) {
    let runs = match crate::replay::runs(bus).await {
        Ok(runs) => runs,
        Err(error) => {
            findings.warn("leftovers", "replays", format!("{error:#}"), "look at the server's log");
            return;
        }
    };
    for (name, run) in &runs {
        let found = format!("a replay of {} streams, {} MiB", run.streams.len(), run.bytes >> 20);
        findings.warn("leftovers", name.clone(), found, format!("`tapeline replay drop {name}` when it is not needed"));
    }
    let mut streams = bus.js().streams();
    let ours = ["RAW_", "AGG_", "SIG_", "DESK_", "RISK_", "EXEC_", "LIVE_", "KV_", "LLMP_", "LLMR_", "SEQ_LLM_", "BT_"];
    let mut strange = Vec::new();
    while let Ok(Some(info)) = streams.try_next().await {
        let name = info.config.name.clone();
        if !ours.iter().any(|prefix| name.starts_with(prefix)) {
            strange.push(name);
        } else if info.state.consumer_count > CONSUMERS_MAX {
            findings.warn(
                "leftovers",
                name,
                format!("{} consumers", info.state.consumer_count),
                "something makes readers in a loop: look for restarts in the stages' logs",
            );
        }
    }
    if !strange.is_empty() {
        findings.warn("leftovers", strange.join(", "), "streams of something else", "nothing, if you know them");
    }
    if runs.is_empty() && strange.is_empty() {
        findings.ok("leftovers", "streams", "none");
    }
}
