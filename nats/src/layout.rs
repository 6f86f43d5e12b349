//! Every stream and bucket of the topology. An operator applies it; stages have no right to.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{
    Compression, Config as Stream, DiscardPolicy, Source, StorageType, SubjectTransform,
};
use schemas::config::ConfigError;
use schemas::subject::{self, escape, stream};

use crate::bus::{Bus, why};
use crate::config::LayoutBounds;
use crate::error::BusError;
use crate::kv;

const PARTITIONS: &str = "tapeline.partitions";

/// Message ids only name a message's predecessor; nothing is deduplicated by them, so few are kept in memory.
const MESSAGE_IDS_KEPT: Duration = Duration::from_secs(1);

/// What a deployment consists of; its streams follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub venues: Vec<String>,
    pub accounts: Vec<String>,
    /// LLM traders.
    pub traders: Vec<String>,
    /// Frozen when a venue's stream is created.
    pub partitions: u32,
}

/// A stream that is not as a layout wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub stream: String,
    /// `absent`, or `<setting>: <what is there>, <what is wanted>`.
    pub what: String,
}

/// A source of a sequencer.
struct Wanted {
    stream: String,
    /// Empty: everything.
    filters: Vec<String>,
    /// False: a sequencer that is created later hears only what is stored from then on.
    from_first: bool,
}

impl Layout {
    /// Creates what is absent and updates what differs; a second call changes nothing. A venue whose stream was
    /// created with another number of partitions is refused.
    ///
    /// A sequencer that is created later than its sources starts behind what they hold (an account does not trade
    /// the past), except for configuration and instruments, which it hears from their beginning.
    pub async fn apply(&self, operator: &Bus) -> Result<(), BusError> {
        let bounds = operator.config().layout.clone();
        for config in self.buckets(&bounds).into_iter().chain(self.plain(&bounds)) {
            put(operator, config).await?;
        }
        for (config, wanted) in self.sequencers(&bounds) {
            put_sequencer(operator, config, wanted).await?;
        }
        Ok(())
    }

    /// What [`Layout::apply`] with these bounds would change; nothing is changed.
    pub async fn differences(&self, bus: &Bus, bounds: &LayoutBounds) -> Result<Vec<Difference>, BusError> {
        let plain = self.buckets(bounds).into_iter().chain(self.plain(bounds)).map(|config| (config, None));
        let merged = self.sequencers(bounds).into_iter().map(|(config, sources)| (config, Some(sources)));
        let mut found = Vec::new();
        for (wanted, sources) in plain.chain(merged) {
            let differences = match existing(bus, &wanted.name).await? {
                None => vec!["absent".to_owned()],
                Some(there) => {
                    let asked = sources.iter().flatten().map(|source| source.stream.as_str()).collect();
                    settings(&there, &wanted, asked)
                }
            };
            found.extend(differences.into_iter().map(|what| Difference { stream: wanted.name.clone(), what }));
        }
        Ok(found)
    }

    /// Names of all streams, `KV_` ones included.
    pub fn streams(&self) -> Vec<String> {
        let bounds = crate::config::Config::default().layout;
        let sequencers = self.sequencers(&bounds).into_iter().map(|(config, _)| config);
        self.buckets(&bounds).into_iter().chain(self.plain(&bounds)).chain(sequencers).map(|s| s.name).collect()
    }

    fn buckets(&self, bounds: &LayoutBounds) -> Vec<Stream> {
        let bucket = |name: &str, history: i64| Stream {
            name: kv::stream(name),
            subjects: vec![kv::subject(name, ">")],
            max_messages_per_subject: history,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: bounds.replicas,
            ..Stream::default()
        };
        let mut lease = bucket(stream::KV_LEASE, 1);
        lease.allow_message_ttl = true;
        lease.subject_delete_marker_ttl = Some(Duration::from_secs(1));
        vec![
            bucket(stream::KV_CHECKPOINT, 5),
            // Long enough that a restarted risk task finds its own mirror behind what operators wrote since.
            bucket(stream::KV_CONFIG, 16),
            bucket(stream::KV_INSTRUMENTS, 1),
            bucket(stream::KV_QUOTA, 1),
            lease,
        ]
    }

    fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([(PARTITIONS.to_owned(), self.partitions.to_string())])
    }

    /// Streams that tasks write.
    fn plain(&self, bounds: &LayoutBounds) -> Vec<Stream> {
        let mut streams = Vec::new();
        for venue in &self.venues {
            streams.push(Stream {
                compression: Some(Compression::S2),
                deny_delete: true,
                deny_purge: true,
                metadata: self.metadata(),
                ..log(stream::raw(venue), vec![format!("raw.*.{venue}.>")], Kept::raw(bounds), bounds)
            });
            // Every stream of a partition says of how many it is one: a task compares it with its own number.
            let parted = |config: Stream| Stream { metadata: self.metadata(), ..config };
            for p in 0..self.partitions {
                let market = ["candle", "indicator", "late"].map(|kind| format!("{kind}.{p}.{venue}.>"));
                streams.push(parted(log(
                    stream::aggregate(venue, p),
                    market.to_vec(),
                    Kept::aggregate(bounds),
                    bounds,
                )));
                let signals = vec![format!("signal.{p}.*.{venue}.>")];
                streams.push(parted(log(stream::signal(venue, p), signals, Kept::signal(bounds), bounds)));
            }
        }
        let external = vec!["signal.ext.>".to_owned()];
        streams.push(log(stream::SIGNAL_EXTERNAL.to_owned(), external, Kept::signal(bounds), bounds));
        for trader in &self.traders {
            let kept = Kept::signal(bounds);
            let part = |part: &str| subject::llm(trader, part);
            streams.push(log(stream::llm_prompt(trader), vec![part("prompt")], kept, bounds));
            streams.push(log(stream::llm_reply(trader), vec![part("reply")], kept, bounds));
            let said = vec![part("verdict"), format!("signal.llm.{}.>", escape(trader))];
            streams.push(log(stream::llm_signal(trader), said, kept, bounds));
        }
        for account in &self.accounts {
            let name = escape(account);
            let under = |kinds: &[&str]| kinds.iter().map(|kind| format!("{kind}.{name}.>")).collect::<Vec<_>>();
            let mut said = under(&["intent", "order", "cancel", "refusal", "position"]);
            said.extend([subject::account("account", account), subject::account("state", account)]);
            streams.push(log(stream::risk(account), said, Kept::risk(bounds), bounds));
            // Journals of orders: nothing of them is ever dropped, a full one refuses.
            let journal = |name: String, subjects: Vec<String>| Stream {
                max_age: Duration::ZERO,
                max_messages: bounds.exec_messages_max,
                discard: DiscardPolicy::New,
                deny_delete: true,
                deny_purge: true,
                ..log(name, subjects, Kept::risk(bounds), bounds)
            };
            let executed = under(&["sending", "cancelling", "ack", "fill", "reject", "done", "funding"]);
            streams.push(journal(stream::exec(account), executed));
            streams.push(journal(stream::live(account), under(&["live"])));
        }
        streams
    }

    /// Streams whose order is the merge order of their sources.
    fn sequencers(&self, bounds: &LayoutBounds) -> Vec<(Stream, Vec<Wanted>)> {
        let part = |stream: String, filters: Vec<String>| Wanted { stream, filters, from_first: false };
        let markets = || self.venues.iter().flat_map(|venue| (0..self.partitions).map(move |p| (venue, p)));
        let mut sequencers = Vec::new();
        for trader in &self.traders {
            let sources = markets()
                .map(|(venue, p)| {
                    let seen = ["candle", "indicator"].map(|kind| format!("{kind}.{p}.{venue}.>"));
                    part(stream::aggregate(venue, p), seen.to_vec())
                })
                .collect();
            sequencers.push((log(stream::llm_desk(trader), Vec::new(), Kept::desk(bounds), bounds), sources));
        }
        for account in &self.accounts {
            let name = escape(account);
            let mut sources: Vec<Wanted> = Vec::new();
            for venue in &self.venues {
                let mut seen: Vec<_> =
                    ["trade", "quote", "ticker", "gap"].iter().map(|kind| format!("raw.*.{venue}.{kind}.*")).collect();
                // Every partition carries the same venue clock; the desk needs it once.
                seen.push(subject::clock(0, venue));
                sources.push(part(stream::raw(venue), seen));
            }
            sources.extend(markets().map(|(venue, p)| part(stream::signal(venue, p), Vec::new())));
            sources.push(part(stream::SIGNAL_EXTERNAL.to_owned(), Vec::new()));
            sources.extend(
                self.traders.iter().map(|t| part(stream::llm_signal(t), vec![format!("signal.llm.{}.>", escape(t))])),
            );
            let orders =
                vec![format!("order.{name}.>"), format!("cancel.{name}.>"), subject::account("state", account)];
            sources.push(part(stream::risk(account), orders));
            sources.push(part(stream::exec(account), Vec::new()));
            sources.push(part(stream::live(account), Vec::new()));
            let state = kv::subject(stream::KV_CONFIG, &stream::desk_state_key(account));
            sources.push(Wanted { stream: kv::stream(stream::KV_CONFIG), filters: vec![state], from_first: true });
            let instruments = kv::stream(stream::KV_INSTRUMENTS);
            sources.push(Wanted { stream: instruments, filters: Vec::new(), from_first: true });
            sequencers.push((log(stream::desk(account), Vec::new(), Kept::desk(bounds), bounds), sources));
        }
        sequencers
    }
}

/// How much of a log is kept; 0 messages or bytes is no bound.
#[derive(Clone, Copy)]
struct Kept {
    days: u64,
    messages: i64,
    bytes: i64,
}

impl Kept {
    fn raw(bounds: &LayoutBounds) -> Self {
        Self { days: bounds.raw_days, messages: 0, bytes: bounds.raw_bytes_max }
    }
    fn aggregate(bounds: &LayoutBounds) -> Self {
        Self { days: bounds.aggregate_days, messages: bounds.aggregate_messages_max, bytes: 0 }
    }
    fn signal(bounds: &LayoutBounds) -> Self {
        Self { days: bounds.signal_days, messages: bounds.signal_messages_max, bytes: 0 }
    }
    fn desk(bounds: &LayoutBounds) -> Self {
        Self { days: bounds.desk_days, messages: bounds.desk_messages_max, bytes: bounds.desk_bytes_max }
    }
    fn risk(bounds: &LayoutBounds) -> Self {
        Self { days: bounds.risk_days, messages: bounds.risk_messages_max, bytes: 0 }
    }
}

/// A file-backed log that drops the old first.
fn log(name: String, subjects: Vec<String>, kept: Kept, bounds: &LayoutBounds) -> Stream {
    Stream {
        name,
        subjects,
        max_age: Duration::from_secs(kept.days * 86_400),
        max_messages: kept.messages,
        max_bytes: kept.bytes,
        duplicate_window: MESSAGE_IDS_KEPT,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: bounds.replicas,
        allow_direct: true,
        ..Stream::default()
    }
}

/// The number of partitions that a venue's stream was created with; `None` when the stream does not say.
pub async fn partitions(bus: &Bus, venue: &str) -> Result<Option<u32>, BusError> {
    let there = existing(bus, &stream::raw(venue)).await?;
    Ok(there.and_then(|config| config.metadata.get(PARTITIONS)?.parse().ok()))
}

/// Compares `asked` partitions with the number that `stream` was created with; a stream that is no part of a venue
/// does not say one and fits any.
///
/// A task with another number would fold a share of the symbols that belongs to nobody, or to two.
pub async fn check_partitions(bus: &Bus, stream: &str, asked: u32) -> anyhow::Result<()> {
    let frozen = existing(bus, stream).await?.and_then(|config| config.metadata.get(PARTITIONS)?.parse::<u32>().ok());
    match frozen {
        Some(frozen) if frozen != asked => {
            let why = format!(
                "{asked}, but {stream} was created with {frozen} partitions, which are frozen for its life: start with \
                 --partitions {frozen}"
            );
            Err(ConfigError::new("arguments", "--partitions", why).into())
        }
        _ => Ok(()),
    }
}

async fn existing(bus: &Bus, name: &str) -> Result<Option<Stream>, BusError> {
    match bus.stream(name).await {
        Ok(_) => {}
        Err(BusError::StreamAbsent { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    match bus.js().get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => Err(BusError::Config(format!("stream {name}: {}", why(&error)))),
    }
}

async fn put(bus: &Bus, mut config: Stream) -> Result<(), BusError> {
    let failed = |what: &str, name: &str, error: &dyn std::error::Error| {
        BusError::Config(format!("{what} stream {name}: {}", why(error)))
    };
    let Some(there) = existing(bus, &config.name).await? else {
        let name = config.name.clone();
        let bytes = config.max_bytes;
        return match bus.js().create_stream(config).await {
            Ok(_) => Ok(()),
            // The server reserves what a stream may grow to, of three quarters of the disk that is free when it starts.
            Err(error) if bytes > 0 && why(&error).contains("insufficient storage") => Err(BusError::Config(format!(
                "create stream {name}: the server has no room for {bytes} bytes (three quarters of its free disk, less \
                 what other streams reserve): make room and start it again, or lower nats.layout.*_bytes_max"
            ))),
            Err(error) => Err(failed("create", &name, &error)),
        };
    };
    if let (Some(frozen), Some(asked)) = (there.metadata.get(PARTITIONS), config.metadata.get(PARTITIONS))
        && frozen != asked
    {
        return Err(BusError::Config(format!(
            "stream {} was created with {frozen} partitions, {asked} are asked for; partitions are frozen for the life of a stream",
            config.name
        )));
    }
    // Who forgets to ask for copies does not lose those that are there.
    config.num_replicas = config.num_replicas.max(there.num_replicas);
    if same(&there, &config) {
        return Ok(());
    }
    match bus.js().update_stream(config.clone()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("update", &config.name, &error)),
    }
}

/// The settings that differ, each in words. Where a sequencer's sources begin is its own affair.
fn settings(there: &Stream, wanted: &Stream, mut asked: Vec<&str>) -> Vec<String> {
    let bound = |n: i64| if n <= 0 { "none".to_owned() } else { n.to_string() };
    let age = |age: Duration| if age.is_zero() { "none".to_owned() } else { format!("{} s", age.as_secs()) };
    let mut names = source_names(there);
    names.sort_unstable();
    asked.sort_unstable();
    let partitions = |s: &Stream| s.metadata.get(PARTITIONS).cloned().unwrap_or_default();
    let pairs = [
        ("subjects", there.subjects.join(" "), wanted.subjects.join(" ")),
        ("max_age", age(there.max_age), age(wanted.max_age)),
        ("max_bytes", bound(there.max_bytes), bound(wanted.max_bytes)),
        ("max_msgs", bound(there.max_messages), bound(wanted.max_messages)),
        ("max_msgs_per_subject", bound(there.max_messages_per_subject), bound(wanted.max_messages_per_subject)),
        ("discard", format!("{:?}", there.discard), format!("{:?}", wanted.discard)),
        ("replicas", there.num_replicas.to_string(), wanted.num_replicas.max(1).to_string()),
        ("allow_direct", there.allow_direct.to_string(), wanted.allow_direct.to_string()),
        ("deny_delete", there.deny_delete.to_string(), wanted.deny_delete.to_string()),
        ("deny_purge", there.deny_purge.to_string(), wanted.deny_purge.to_string()),
        ("partitions", partitions(there), partitions(wanted)),
        ("sources", names.join(" "), asked.join(" ")),
    ];
    let differ = pairs.into_iter().filter(|(_, there, wanted)| there != wanted);
    differ.map(|(name, there, wanted)| format!("{name}: {there}, wanted {wanted}")).collect()
}

fn source_names(stream: &Stream) -> Vec<&str> {
    stream.sources.iter().flatten().map(|source| source.name.as_str()).collect()
}

/// Whether an update would change nothing; the server fills in what we leave open.
fn same(there: &Stream, wanted: &Stream) -> bool {
    let sources = |s: &Stream| {
        let filters = |s: &Source| s.subject_transforms.iter().map(|t| t.source.clone()).collect::<Vec<_>>();
        let mut list: Vec<_> =
            s.sources.iter().flatten().map(|s| (s.name.clone(), s.start_sequence, filters(s))).collect();
        list.sort();
        list
    };
    let window = wanted.duplicate_window;
    settings(there, wanted, source_names(wanted)).is_empty()
        && (window.is_zero() || there.duplicate_window == window)
        && sources(there) == sources(wanted)
}

/// A source keeps where it started; a new one starts behind what its stream holds, unless it wants all of it.
async fn put_sequencer(bus: &Bus, mut config: Stream, wanted: Vec<Wanted>) -> Result<(), BusError> {
    let there = existing(bus, &config.name).await?;
    let mut sources = Vec::with_capacity(wanted.len());
    for source in wanted {
        let known = there.iter().flat_map(|s| s.sources.iter().flatten()).find(|known| known.name == source.stream);
        let start_sequence = match known {
            Some(known) => known.start_sequence,
            None if source.from_first => None,
            None => match bus.stream(&source.stream).await?.last_seq {
                0 => None,
                last => Some(last + 1),
            },
        };
        sources.push(Source {
            name: source.stream,
            start_sequence,
            // One consumer for all filters keeps the source's own order. An empty destination changes no subject.
            subject_transforms: source
                .filters
                .into_iter()
                .map(|filter| SubjectTransform { source: filter, destination: String::new() })
                .collect(),
            ..Source::default()
        });
    }
    config.sources = Some(sources);
    put(bus, config).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            venues: vec!["binance".into(), "binance-usdm".into()],
            accounts: vec!["main".into()],
            traders: vec!["owl".into()],
            partitions: 2,
        }
    }

    #[test]
    fn no_two_streams_take_the_same_subject() {
        let bounds = crate::config::Config::default().layout;
        let layout = layout();
        let mut all: Vec<String> = layout.plain(&bounds).into_iter().flat_map(|s| s.subjects).collect();
        all.extend(layout.buckets(&bounds).into_iter().flat_map(|s| s.subjects));
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert!(!overlap(a, b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn the_desk_hears_signals_marks_orders_fills_and_configuration() {
        let bounds = crate::config::Config::default().layout;
        let sequencers = layout().sequencers(&bounds);
        let (_, sources) = sequencers.iter().find(|(s, _)| s.name == "DESK_main").unwrap();
        let names: Vec<&str> = sources.iter().map(|s| s.stream.as_str()).collect();
        let heard = [
            "RAW_BINANCE",
            "RAW_BINANCE-USDM",
            "SIG_BINANCE_0",
            "SIG_BINANCE-USDM_1",
            "SIG_EXT",
            "SIG_LLM_owl",
            "RISK_main",
            "EXEC_main",
            "LIVE_main",
            "KV_cfg",
            "KV_instruments",
        ];
        for stream in heard {
            assert!(names.contains(&stream), "{stream} is not among {names:?}");
        }
    }

    #[test]
    fn every_stream_that_grows_is_bounded_by_more_than_age() {
        let bounds = crate::config::Config::default().layout;
        let sequencers = layout().sequencers(&bounds).into_iter().map(|(stream, _)| stream);
        for stream in layout().plain(&bounds).into_iter().chain(sequencers) {
            // Ticks by bytes, which only an operator who knows the disk can choose.
            assert!(stream.max_messages > 0 || stream.name.starts_with("RAW_"), "{}", stream.name);
        }
        for bucket in layout().buckets(&bounds) {
            assert!(bucket.max_messages_per_subject > 0, "{}", bucket.name);
        }
    }

    fn overlap(a: &str, b: &str) -> bool {
        let (mut a, mut b) = (a.split('.'), b.split('.'));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
                _ => return false,
            }
        }
    }
}
