//! `config.toml` as a struct. The file is the manual.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemas::Timeframe;
use schemas::config::{ConfigError, UserFile};
use schemas::raw::PACK_MAX;
use serde::Deserialize;

use crate::custom;
use crate::rate::Allowance;
use crate::session::{Limits, Pace};
use crate::venue::{self, Endpoints, Market, Venue};

/// The defaults, and the manual.
pub const DEFAULT: &str = include_str!("../config.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub clock_period_ms: i64,
    pub lateness_ms: i64,
    pub watermark_hold_ms_max: i64,
    pub frames_queued_max: usize,
    pub pack_ticks_max: usize,
    pub instruments_period_ms: u64,
    pub link: LinkConfig,
    pub session: Limits,
    pub quota: QuotaConfig,
    pub warmup: WarmupConfig,
    pub recording: RecordingConfig,
    pub venues: BTreeMap<String, VenueConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    pub connect_timeout_ms: u64,
    pub send_timeout_ms: u64,
    pub ping_quiet_ms: i64,
    pub http_timeout_ms: u64,
    pub backoff_first_ms: u64,
    pub backoff_max_ms: u64,
    pub backoff_reset_ms: u64,
    pub unreachable_after_ms: u64,
    /// Empty: none.
    pub proxy: String,
    pub frame_bytes_max: usize,
    pub dead_bytes_max: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaConfig {
    pub address: String,
    pub percent: u32,
}

/// History that is fetched of a symbol that nothing is stored of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmupConfig {
    pub ms_max: u64,
    /// Candles by timeframe.
    pub candles: BTreeMap<Timeframe, u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingConfig {
    pub frames_per_flush: usize,
    pub clock_period_ms: i64,
    pub csv_clock_period_ms: i64,
    pub line_bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The venue's own feed, or a stand-in that speaks like it.
    Venue,
    /// Lines of receive time and frame.
    Recording,
    /// CSV files of trades or of best bid and ask.
    Trades,
    /// Files of rows as the venue's description says: CSV or one JSON object a line.
    Files,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Production,
    Test,
}

/// One market; keys that a user's own table leaves out have these defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VenueConfig {
    pub enabled: bool,
    pub source: Source,
    pub environment: Environment,
    /// The file that describes a venue which is not built in.
    pub describe: String,
    pub ws_url: String,
    pub rest_url: String,
    pub symbols: Vec<String>,
    pub channels: Vec<String>,
    /// What the venue allows an address, by bucket; of a described venue in place of what its description says.
    pub rates: BTreeMap<String, Allowance>,
    pub pace: Pace,
    pub files: Vec<PathBuf>,
    pub symbol: String,
    /// 0: at once.
    pub speed: f64,
    pub instruments_file: String,
    pub flush_open: bool,
}

impl Default for VenueConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            source: Source::Venue,
            environment: Environment::Production,
            describe: String::new(),
            ws_url: String::new(),
            rest_url: String::new(),
            symbols: Vec::new(),
            channels: Vec::new(),
            rates: BTreeMap::new(),
            pace: Pace::default(),
            files: Vec::new(),
            symbol: String::new(),
            speed: 1.0,
            instruments_file: String::new(),
            flush_open: false,
        }
    }
}

impl VenueConfig {
    /// The venue's addresses, those of the configuration first.
    pub fn endpoints(&self, venue: &dyn Venue, market: Market) -> Endpoints {
        let own = venue.endpoints(market, self.environment == Environment::Test);
        let or = |set: &String, own: String| if set.is_empty() { own } else { set.trim_end_matches('/').to_owned() };
        Endpoints { ws: or(&self.ws_url, own.ws), rest: or(&self.rest_url, own.rest) }
    }

    /// The venue's pace: what its description states, or what stands here.
    pub fn pace(&self, venue: &dyn Venue) -> Pace {
        venue.stated_pace().unwrap_or(self.pace)
    }

    /// Trades come as aggregates, whose ids are others.
    pub fn wants_aggregates(&self) -> bool {
        self.channels.iter().any(|c| c.ends_with("@aggTrade"))
    }
}

impl Config {
    /// The defaults with the user's `[ingest]` laid over them, checked. The descriptions of enabled venues are read and
    /// registered.
    pub fn load(user: Option<&UserFile>) -> Result<Self, ConfigError> {
        let config: Self = schemas::config::load("ingest", DEFAULT, user)?;
        for (id, venue) in config.venues.iter().filter(|(_, venue)| venue.enabled && !venue.describe.is_empty()) {
            describe(id, &venue.describe)?;
        }
        config.check()?;
        Ok(config)
    }

    /// What reads well but means nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: String| Err(ConfigError::value(&format!("ingest.{key}"), why));
        for (key, value) in [
            ("clock_period_ms", self.clock_period_ms),
            ("watermark_hold_ms_max", self.watermark_hold_ms_max),
            ("session.idle_timeout_ms", self.session.idle_timeout_ms),
            ("session.ack_timeout_ms", self.session.ack_timeout_ms),
            ("session.lifetime_ms", self.session.lifetime_ms),
            ("session.poll_period_ms", self.session.poll_period_ms),
            ("recording.clock_period_ms", self.recording.clock_period_ms),
            ("recording.csv_clock_period_ms", self.recording.csv_clock_period_ms),
            ("recording.frames_per_flush", self.recording.frames_per_flush as i64),
            ("frames_queued_max", self.frames_queued_max as i64),
            ("session.held_max", self.session.held_max as i64),
            ("link.ping_quiet_ms", self.link.ping_quiet_ms),
            ("link.backoff_first_ms", self.link.backoff_first_ms as i64),
        ] {
            if value <= 0 {
                return wrong(key, format!("{value} is not above 0"));
            }
        }
        if !(1..=100).contains(&self.quota.percent) {
            return wrong("quota.percent", format!("{} is not in 1..=100", self.quota.percent));
        }
        let address = &self.quota.address;
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return wrong("quota.address", format!("`{address}` is not written with letters, digits, - and _"));
        }
        if !self.link.proxy.is_empty()
            && let Err(why) = proxy_address(&self.link.proxy)
        {
            return wrong("link.proxy", why);
        }
        if let Some((tf, n)) = self.warmup.candles.iter().find(|(_, n)| **n > 5000) {
            return wrong("warmup.candles", format!("{n} of {tf} is above 5000"));
        }
        if self.lateness_ms < 0 {
            return wrong("lateness_ms", format!("{} is below 0", self.lateness_ms));
        }
        if !(1..=PACK_MAX).contains(&self.pack_ticks_max) {
            return wrong("pack_ticks_max", format!("{} is not in 1..={PACK_MAX}", self.pack_ticks_max));
        }
        for (id, venue) in self.venues.iter().filter(|(_, venue)| venue.enabled) {
            check_venue(id, venue)?;
        }
        Ok(())
    }
}

/// Reads a venue's description and registers it under `id`.
pub fn describe(id: &str, file: &str) -> Result<&'static custom::Described, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|why| ConfigError::value(&format!("ingest.venues.{id}.describe"), format!("{file}: {why}")))?;
    custom::register(id, file, &text).map_err(custom::together)
}

/// Checks one market's table; `id` is its name.
pub fn check_venue(id: &str, config: &VenueConfig) -> Result<(), ConfigError> {
    let wrong = |key: &str, why: String| Err(ConfigError::value(&format!("ingest.venues.{id}.{key}"), why));
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return wrong("(name)", "a venue is written with a-z, 0-9 and -".to_owned());
    }
    if !config.speed.is_finite() || config.speed < 0.0 {
        return wrong("speed", format!("{} is not 0 (at once) or above", config.speed));
    }
    let files = config.source != Source::Venue;
    if files && config.files.is_empty() {
        return wrong("files", "names no file to read".to_owned());
    }
    if config.source == Source::Trades {
        return if config.symbol.is_empty() { wrong("symbol", "the files do not tell it".to_owned()) } else { Ok(()) };
    }
    let Some((venue, market)) = venue::by_id(id) else {
        let known: Vec<_> = venue::VENUES.iter().flat_map(|v| v.markets()).map(|m| m.id).collect();
        let known = known.join(", ");
        return wrong("(name)", format!("unknown venue; known: {known}; another one needs describe = \"file.toml\""));
    };
    let rows = custom::registered(id).filter(|_| !config.describe.is_empty());
    let rows = rows.is_some_and(|described| described.description.files.is_some());
    if config.source == Source::Files && !rows {
        return wrong("source", "`files` needs a `describe` with a [files] table".to_owned());
    }
    if files {
        return Ok(());
    }
    if config.symbols.is_empty() && !config.describe.is_empty() {
        return wrong("symbols", "is empty, and a described venue is asked for each of them".to_owned());
    }
    if config.symbols.is_empty() && config.channels.iter().any(|c| c.contains("{}")) {
        return wrong("symbols", "is empty, and channels ask for them".to_owned());
    }
    if config.symbols.iter().collect::<BTreeSet<_>>().len() != config.symbols.len() {
        return wrong("symbols", "names a symbol twice".to_owned());
    }
    if config.channels.is_empty() {
        return wrong("channels", "is empty".to_owned());
    }
    let buckets: Vec<_> = venue.buckets(market).iter().map(|bucket| bucket.name).collect();
    for bucket in venue.buckets(market).iter().filter(|b| b.stated.is_none()) {
        if !config.rates.contains_key(bucket.name) {
            return wrong("rates", format!("`{}` is missing", bucket.name));
        }
    }
    for (bucket, rate) in &config.rates {
        if !buckets.contains(&bucket.as_str()) {
            return wrong("rates", format!("`{bucket}` is none of {}", buckets.join(", ")));
        }
        if rate.weight == 0 || rate.window_ms == 0 {
            return wrong("rates", format!("`{bucket}` allows nothing"));
        }
    }
    check_pace(id, venue, config)?;
    for channel in &config.channels {
        if let Err(why) = venue.check_channel(market, channel) {
            return wrong("channels", format!("`{channel}`: {why}"));
        }
    }
    if let Err(why) = venue.check_together(market, &config.channels) {
        return wrong("channels", why);
    }
    if config.wants_aggregates() && config.channels.iter().any(|c| c.ends_with("@trade")) {
        return wrong("channels", "has both @trade and @aggTrade: choose one, their ids differ".to_owned());
    }
    for (key, url, schemes) in
        [("ws_url", &config.ws_url, ["ws://", "wss://"]), ("rest_url", &config.rest_url, ["http://", "https://"])]
    {
        if !url.is_empty() && !schemes.iter().any(|scheme| url.starts_with(scheme)) {
            return wrong(key, format!("`{url}` does not begin with {} or {}", schemes[0], schemes[1]));
        }
    }
    Ok(())
}

fn check_pace(id: &str, venue: &dyn Venue, config: &VenueConfig) -> Result<(), ConfigError> {
    let wrong = |key: &str, why: &str| Err(ConfigError::value(&format!("ingest.venues.{id}.pace{key}"), why));
    let Pace { send_spacing_ms, topics_max, ping_ms, quiet_ms } = config.pace;
    if venue.stated_pace().is_some() {
        return if config.pace == Pace::default() { Ok(()) } else { wrong("", "is what its description says") };
    }
    for (key, is_set) in
        [(".send_spacing_ms", send_spacing_ms > 0), (".topics_max", topics_max > 0), (".quiet_ms", quiet_ms > 0)]
    {
        if !is_set {
            return wrong(key, "is not above 0");
        }
    }
    match venue.is_pinged() {
        // Heartbeats that a venue is asked for are of whole seconds.
        true if ping_ms < 1000 => wrong(".ping_ms", "is not 1000 or more"),
        false if ping_ms != 0 => wrong(".ping_ms", "has no meaning here: the venue pings"),
        _ => Ok(()),
    }
}

/// `host:port` of a proxy written `http://host:port`; the error says what is allowed.
pub(crate) fn proxy_address(url: &str) -> Result<&str, String> {
    let allowed =
        || format!("`{url}` is not http://host:port (TAPELINE_PROXY_USER and TAPELINE_PROXY_PASSWORD log in)");
    let address = url.strip_prefix("http://").ok_or_else(allowed)?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(allowed)?;
    let fits = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0);
    if fits { Ok(address) } else { Err(allowed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(&UserFile { name: "tapeline.toml".into(), text: text.into() }))
    }

    #[test]
    fn every_number_that_a_venue_takes_says_where_it_is_from() {
        let numbers = DEFAULT.lines().filter(|line| line.starts_with("rates.") || line.starts_with("pace."));
        let sources: Vec<_> = numbers.map(|line| (line, line.split_once("# ").map(|(_, source)| source))).collect();
        assert!(sources.len() > 60);
        for (line, source) in sources {
            let source = source.and_then(|text| text.split(':').next());
            assert!(matches!(source, Some("D" | "S" | "M" | "K" | "ours")), "{line}");
        }
    }

    #[test]
    fn a_pace_that_means_nothing_is_refused_and_another_one_cuts_connections_anew() {
        let wrong = |text: &str| load(text).unwrap_err().key;
        let pace = |key: &str| format!("[ingest.venues.binance.pace]\n{key}\n");
        assert_eq!(wrong(&pace("topics_max = 0")), "ingest.venues.binance.pace.topics_max");
        assert_eq!(wrong(&pace("ping_ms = 5000")), "ingest.venues.binance.pace.ping_ms");
        assert_eq!(wrong("[ingest.venues.okx]\nenabled = true\npace.ping_ms = 5\n"), "ingest.venues.okx.pace.ping_ms");
        let mut plan = crate::session::tests::plan("binance", &["A", "B", "C"], &["{}@trade", "{}@bookTicker"], &[]);
        plan.pace = load(&pace("topics_max = 4")).unwrap().venues["binance"].pace;
        let (venue, market) = venue::by_id("binance").unwrap();
        let carried: Vec<_> = venue.sessions(market, &plan).iter().map(|s| s.symbols().len()).collect();
        assert_eq!(carried, [2, 1]);
    }

    #[test]
    fn the_manual_is_a_configuration_and_knows_every_market() {
        let mut config = Config::load(None).unwrap();
        let known: BTreeSet<_> = venue::VENUES.iter().flat_map(|v| v.markets()).map(|m| m.id.to_owned()).collect();
        assert_eq!(config.venues.keys().cloned().collect::<BTreeSet<_>>(), known);
        config.venues.values_mut().for_each(|v| v.enabled = true);
        config.check().unwrap();
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_key_and_what_is_allowed() {
        for (text, key, why) in [
            ("[ingest]\npack_ticks_max = 300", "ingest.pack_ticks_max", "1..=256"),
            ("[ingest.venues.kraken]\nenabled = true", "ingest.venues.kraken.(name)", "binance-usdm"),
            ("[ingest.venues.binance]\nchannels = [\"{}@trades\"]", "ingest.venues.binance.channels", "{}@aggTrade"),
            (
                "[ingest.venues.binance]\nchannels = [\"{}@trade\", \"{}@aggTrade\"]",
                "ingest.venues.binance.channels",
                "choose one",
            ),
            (
                "[ingest.venues.htx]\nenabled = true\nchannels = [\"market.{}.mbp.5\", \"market.{}.depth.step0\"]",
                "ingest.venues.htx.channels",
                "choose one",
            ),
            ("[ingest.venues.binance]\nsource = \"recording\"", "ingest.venues.binance.files", "no file"),
            (
                "[ingest.venues.bitmex]\nenabled = true\nsource = \"trades\"\nfiles = [\"a\"]",
                "ingest.venues.bitmex.symbol",
                "do not tell",
            ),
            (
                "[ingest.venues.deribit]\nenabled = true\nws_url = \"http://x\"",
                "ingest.venues.deribit.ws_url",
                "wss://",
            ),
            ("[ingest.venues.deribit]\nenabled = true\nspeed = -1.0", "ingest.venues.deribit.speed", "0 (at once)"),
        ] {
            let error = load(text).unwrap_err();
            assert_eq!(error.key, key, "{text}");
            assert!(error.why.contains(why), "{text}: {}", error.why);
        }
    }

    #[test]
    fn a_venue_of_ones_own_name_may_be_filled_from_trade_files() {
        load("[ingest.venues.bitmex]\nenabled = true\nsource = \"trades\"\nfiles = [\"a.csv\"]\nsymbol = \"XBTUSD\"")
            .unwrap();
    }
}
