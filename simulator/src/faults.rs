//! Faults on command. Each kind is a line of [`FAULTS`] and the place that asks for it; the tests walk the table.
//!
//! A fault is armed with `POST /sim/faults {"kind":"drop_depth","symbol":"BTCUSDT","count":1}` or through the handle,
//! and strikes the next `count` occasions. Faults of the moment (cutting a connection, pausing) strike at once.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::instrument::VenueId;

/// An order to misbehave.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// A name of [`FAULTS`].
    pub kind: String,
    /// The venue's symbol; every symbol where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// How many occasions it strikes.
    #[serde(default = "one")]
    pub count: u32,
    /// Milliseconds, where the kind has a duration.
    #[serde(default = "half_a_second")]
    pub ms: u64,
}

fn one() -> u32 {
    1
}
fn half_a_second() -> u64 {
    500
}

impl Command {
    /// One strike, on every symbol.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), symbol: None, count: 1, ms: 500 }
    }
    pub fn symbol(mut self, symbol: &str) -> Self {
        self.symbol = Some(symbol.to_owned());
        self
    }
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }
    pub fn ms(mut self, ms: u64) -> Self {
        self.ms = ms;
        self
    }
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// At the next diff depth (Binance) or book change (Deribit) of the symbol.
    Depth,
    /// At the next frame or answer that fits.
    Frame,
    /// At the next REST request.
    Rest,
    /// At once.
    Now,
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FaultKind {
    pub name: &'static str,
    pub occasion: Occasion,
    /// Which protocols know it.
    pub venues: Protocols,
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocols {
    All,
    Binance,
    BinanceSpot,
    BinanceFutures,
    BinanceMexc,
    Coinbase,
    CoinbaseAdvanced,
    Deribit,
    Htx,
    HtxSwaps,
    Hyperliquid,
    Mexc,
    MexcSpot,
    Okx,
    /// Who say over a socket in which state they are; Deribit's is part of its maintenance.
    Announcing,
    /// Whose changes of a book name their predecessor.
    Chained,
    /// Whom a client pings.
    Pinged,
    /// Whose REST has a budget.
    Budgeted,
}

impl Protocols {
    pub fn has(self, venue: VenueId) -> bool {
        use VenueId::*;
        match self {
            Self::All => true,
            Self::Binance => venue.is_binance(),
            Self::BinanceSpot => venue == BinanceSpot,
            Self::BinanceFutures => matches!(venue, BinanceUsdm | BinanceCoinm),
            Self::BinanceMexc => venue.is_binance() || Self::Mexc.has(venue),
            Self::Coinbase => venue.is_coinbase(),
            Self::CoinbaseAdvanced => venue == CoinbaseAdvanced,
            Self::Deribit => venue == Deribit,
            Self::Htx => venue == HtxSpot || Self::HtxSwaps.has(venue),
            Self::HtxSwaps => matches!(venue, HtxLinear | HtxInverse),
            Self::Hyperliquid => venue == Hyperliquid,
            Self::Mexc => matches!(venue, MexcSpot | MexcContract),
            Self::MexcSpot => venue == MexcSpot,
            Self::Okx => venue == Okx,
            Self::Announcing => matches!(venue, Okx | CoinbaseAdvanced | CoinbaseExchange) || Self::HtxSwaps.has(venue),
            Self::Chained => matches!(venue, Deribit | HtxSpot),
            Self::Pinged => matches!(venue, Hyperliquid | Okx) || Self::Mexc.has(venue),
            Self::Budgeted => venue != Deribit,
        }
    }
}

macro_rules! faults {
    ($($name:literal $occasion:ident $venues:ident $help:literal;)*) => {
        &[$(FaultKind { name: $name, occasion: Occasion::$occasion, venues: Protocols::$venues, help: $help }),*]
    };
}

/// Every fault that the stand-ins know.
pub const FAULTS: &[FaultKind] = faults![
    "drop_depth"          Depth All            "leave out one depth event";
    "repeat_depth"        Depth All            "send one depth event twice";
    "swap_depth"          Depth All            "send one depth event after its successor";
    "stale_depth"         Depth BinanceMexc    "send an extra depth event with u below what was sent";
    "jump_pu"             Depth BinanceFutures "send one depth event with a wrong pu, U and u as they should be";
    "break_chain"         Depth Chained        "send one book change with a wrong predecessor (prev_change_id, prevSeqNum)";
    "bad_json"            Frame All            "cut one data frame in its middle";
    "unknown_enum"        Frame All            "put an unknown word into one trade (e, X or direction)";
    "late_ack"            Frame All            "answer one subscription `ms` after its data has begun";
    "null_numbers"        Frame Deribit        "send one ticker with nulls where there is no trade or quote yet";
    "scientific"          Frame Deribit        "send one book change with amounts as 1.0e3";
    "push_first"          Frame Deribit        "push user.orders and user.trades before the answer to one order";
    "turn_away"           Frame All            "answer one new connection with 503";
    "delay"               Now   All            "hold every data frame back for `ms`, then send them in order";
    "pause"               Now   All            "stop the market until `resume`";
    "resume"              Now   All            "let the market go on";
    "silence"             Now   All            "keep the connections open but neither read nor write any more";
    "cut"                 Now   All            "end the TCP connections without a close frame";
    "close"               Now   All            "close the connections with code 1001";
    "server_shutdown"     Now   Binance        "send serverShutdown, then close";
    "end_of_life"         Now   BinanceMexc    "end the connections as after 24 hours";
    "ping"                Now   Binance        "send a ping with a payload at once and expect its echo within `ms`";
    "rest_429"            Rest  Budgeted       "answer 429 in the venue's own words (Binance: Retry-After and -1003)";
    "snapshot_older"      Rest  BinanceMexc    "serve the depth snapshot as it was when the fault was armed";
    "snapshot_inside"     Rest  BinanceMexc    "take the depth snapshot at once and answer `ms` later";
    "snapshot_newer"      Rest  BinanceMexc    "serve the depth snapshot, and the events before it `ms` later";
    "rest_418"            Rest  Binance        "answer 418 (banned) with Retry-After and -1003";
    "rest_503"            Rest  All            "answer 503, outcome unknown";
    "rest_delay"          Rest  All            "do what was asked and answer `ms` later";
    "rest_lost"           Rest  All            "do what was asked and never answer";
    "clock_skew"          Rest  Binance        "refuse one signed request with -1021";
    "listen_key_expired"  Now   BinanceFutures "send listenKeyExpired and forget the listen keys";
    "stream_terminated"   Now   BinanceSpot    "send eventStreamTerminated and end the user data subscriptions";
    "unwrapped_events"    Frame BinanceSpot    "send one user event without subscriptionId and event";
    "too_many_requests"   Now   Deribit        "answer the next request with 10028 and end the session";
    "expire_tokens"       Now   Deribit        "let every access token expire (13009)";
    "test_request"        Now   Deribit        "send a test_request at once to who has set a heartbeat";
    "maintenance"         Now   Deribit        "announce platform_state locked and refuse orders with 11051 for `ms`, then announce its end";
    "status"              Now   Announcing     "tell of a maintenance (Coinbase: of a product that is offline), and `ms` later of its end";
    "settlement"          Now   Deribit        "refuse orders with 10041 for `ms`";
    "empty_book"          Frame Hyperliquid    "send one book without levels";
    "one_sided_bbo"       Frame Hyperliquid    "send one best bid without an ask";
    "no_pong"             Frame Pinged         "leave one ping of the client unanswered";
    "refuse_channel"      Frame Mexc           "refuse one subscription (spot: with code 0 and a sentence)";
    "old_deals"           Frame Mexc           "send the trades of one moment as before they had ids (contract: as objects)";
    "unknown_fields"      Frame MexcSpot       "put fields of a later schema around one frame";
    "empty_body"          Frame MexcSpot       "send one frame without its body";
    "drop_message"        Frame CoinbaseAdvanced "leave out one message of a connection, whatever its channel";
    "bad_level"           Depth Coinbase       "send one change of a book with a size of 0.-10000";
    "bad_snapshot"        Frame Coinbase       "send one whole book with a size of 0.-10000";
    "no_time"             Depth Coinbase       "send one change of a book with a time of 1970 (Advanced) or 0001 (Exchange)";
    "leave_out"           Frame Coinbase       "leave the last product or channel out of one subscription";
    "refuse"              Frame Coinbase       "refuse one subscription (Advanced: authentication failure)";
    "upgrade_notice"      Now   Okx            "send notice 64008 (and a status), close `ms` later";
    "keep_alive"          Now   Okx            "repeat every book's number without a change";
    "reset_sequence"      Now   Okx            "let the books' numbers begin anew";
    "wrong_checksum"      Frame Okx            "send one book change with a wrong checksum, where real ones are sent";
    "bad_gzip"            Frame Htx            "damage one packed data frame";
    "big_gzip"            Frame Htx            "pad one data frame to more than 32 MiB before it is packed";
    "empty_direction"     Frame HtxSwaps       "send one trade with an empty direction";
    "snapshot_again"      Depth HtxSwaps       "send the whole book again on the channel of changes";
    "deaf"                Now   Htx            "take no answers to pings in any more: the connections are closed for it";
    "outage"              Now   Htx            "close the connections and refuse new ones with 503 for `ms`";
];

/// A depth event before it is text.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthFrame {
    pub time_ns: i64,
    /// First update id in it (`U`).
    pub first: u64,
    /// Last one (`u`, `change_id`).
    pub last: u64,
    /// Last one of the event before (`pu`, `prev_change_id`).
    pub prev: u64,
    /// Changed levels in ticks and lots, zero lots deletes; with whether the level was there before.
    pub bids: Vec<(i64, i64, bool)>,
    pub asks: Vec<(i64, i64, bool)>,
}

#[derive(Clone, Debug)]
struct Armed {
    command: Command,
    left: u32,
}

/// What is armed on one venue and what has struck. Bounded by the configuration.
#[derive(Debug)]
pub struct Faults {
    venue: VenueId,
    armed_max: usize,
    armed: Vec<Armed>,
    /// Events that `swap_depth` keeps until their successor went out, by stream.
    held: BTreeMap<String, DepthFrame>,
    struck: BTreeMap<String, u64>,
    log: VecDeque<String>,
}

/// Names of struck faults that are kept for `GET /sim/faults`.
const LOG_MAX: usize = 64;

impl Faults {
    pub fn new(venue: VenueId, armed_max: usize) -> Self {
        let (armed, held, struck, log) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { venue, armed_max, armed, held, struck, log }
    }

    /// Finds the kind; says what is allowed when it is unknown here.
    pub fn kind(&self, name: &str) -> Result<&'static FaultKind, String> {
        let known = || FAULTS.iter().filter(|f| f.venues.has(self.venue));
        known().find(|f| f.name == name).ok_or_else(|| {
            let names: Vec<_> = known().map(|f| f.name).collect();
            format!("fault `{name}` is not one of {} at {}", names.join(", "), self.venue.name())
        })
    }

    pub fn arm(&mut self, command: Command) -> Result<(), String> {
        if self.armed.len() >= self.armed_max {
            return Err(format!("{} faults are armed already", self.armed_max));
        }
        if command.count == 0 {
            return Err("count must be at least 1".to_owned());
        }
        self.armed.push(Armed { left: command.count, command });
        Ok(())
    }

    pub fn disarm(&mut self) {
        self.armed.clear();
    }

    /// Does a fault of this kind strike here? Uses one strike up.
    pub fn take(&mut self, kind: &str, symbol: &str) -> Option<Command> {
        if self.armed.is_empty() {
            return None;
        }
        let fits = |a: &Armed| a.command.kind == kind && a.command.symbol.as_deref().is_none_or(|s| s == symbol);
        let at = self.armed.iter().position(fits)?;
        let command = self.armed[at].command.clone();
        self.armed[at].left -= 1;
        if self.armed[at].left == 0 {
            self.armed.remove(at);
        }
        self.note(kind);
        Some(command)
    }

    /// Is one armed? Uses nothing up.
    pub fn armed(&self, kind: &str) -> bool {
        self.armed.iter().any(|a| a.command.kind == kind)
    }

    /// Remembers that a fault struck.
    pub fn note(&mut self, kind: &str) {
        *self.struck.entry(kind.to_owned()).or_default() += 1;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(kind.to_owned());
    }

    /// How often a kind has struck.
    pub fn struck(&self, kind: &str) -> u64 {
        self.struck.get(kind).copied().unwrap_or(0)
    }

    /// For `GET /sim/faults`.
    pub fn report(&self) -> serde_json::Value {
        let kinds: Vec<_> = FAULTS.iter().filter(|f| f.venues.has(self.venue)).collect();
        let armed: Vec<_> = self.armed.iter().map(|a| &a.command).collect();
        serde_json::json!({ "kinds": kinds, "armed": armed, "struck": self.struck, "log": self.log })
    }

    /// What is really sent in place of one depth event of a stream.
    pub fn depth(&mut self, stream: &str, symbol: &str, mut frame: DepthFrame) -> Vec<DepthFrame> {
        if self.armed.is_empty() && self.held.is_empty() {
            return vec![frame];
        }
        if let Some(earlier) = self.held.remove(stream) {
            return vec![frame, earlier];
        }
        if self.take("drop_depth", symbol).is_some() {
            return Vec::new();
        }
        if self.take("swap_depth", symbol).is_some() {
            self.held.insert(stream.to_owned(), frame);
            return Vec::new();
        }
        if self.take("repeat_depth", symbol).is_some() {
            return vec![frame.clone(), frame];
        }
        if self.take("stale_depth", symbol).is_some() {
            let mut stale = frame.clone();
            (stale.first, stale.last, stale.prev) = (frame.prev - 20, frame.prev - 10, frame.prev - 21);
            return vec![stale, frame];
        }
        if self.take("jump_pu", symbol).is_some() || self.take("break_chain", symbol).is_some() {
            frame.prev += 7;
        }
        vec![frame]
    }

    /// What is really sent in place of one data frame.
    pub fn text(&mut self, is_trade: bool, symbol: &str, text: String) -> String {
        if self.armed.is_empty() {
            return text;
        }
        if is_trade && self.take("unknown_enum", symbol).is_some() {
            let words = [
                (r#""X":"MARKET""#, r#""X":"MYSTERY""#),
                (r#""direction":"buy""#, r#""direction":"sideways""#),
                (r#""direction":"sell""#, r#""direction":"sideways""#),
                (r#""e":"trade""#, r#""e":"tradeMystery""#),
                (r#""side":"A""#, r#""side":"Mystery""#),
                (r#""side":"B""#, r#""side":"Mystery""#),
                (r#""side":"BUY""#, r#""side":"MYSTERY""#),
                (r#""side":"SELL""#, r#""side":"MYSTERY""#),
                (r#""side":"buy""#, r#""side":"sideways""#),
                (r#""side":"sell""#, r#""side":"sideways""#),
            ];
            return match words.iter().find(|(known, _)| text.contains(known)) {
                Some((known, unknown)) => text.replacen(known, unknown, 1),
                None => text,
            };
        }
        if self.take("bad_json", symbol).is_some() {
            // Data frames are ASCII, so every byte is a boundary.
            return text[..text.len() / 2].to_owned();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u64) -> DepthFrame {
        DepthFrame { time_ns: 0, first, last: first + 4, prev: first - 1, bids: vec![], asks: vec![] }
    }

    fn sent(kinds: &[&str]) -> Vec<(u64, u64)> {
        let mut faults = Faults::new(VenueId::BinanceUsdm, 8);
        for kind in kinds {
            faults.arm(Command::new(kind).symbol("BTCUSDT")).unwrap();
        }
        let mut out = Vec::new();
        for first in [100, 105, 110] {
            assert_eq!(faults.depth("other", "ETHUSDT", frame(first)).len(), 1);
            out.extend(faults.depth("s", "BTCUSDT", frame(first)).into_iter().map(|f| (f.first, f.prev)));
        }
        out
    }

    #[test]
    fn each_depth_fault_strikes_once_and_only_its_symbol() {
        assert_eq!(sent(&[]), [(100, 99), (105, 104), (110, 109)]);
        assert_eq!(sent(&["drop_depth"]), [(105, 104), (110, 109)]);
        assert_eq!(sent(&["repeat_depth"]), [(100, 99), (100, 99), (105, 104), (110, 109)]);
        assert_eq!(sent(&["swap_depth"]), [(105, 104), (100, 99), (110, 109)]);
        assert_eq!(sent(&["stale_depth"])[0], (79, 78));
        assert_eq!(sent(&["jump_pu"])[0], (100, 106));
    }

    #[test]
    fn names_are_unique_words_and_every_kind_has_help_and_a_venue() {
        let mut names: Vec<_> = FAULTS.iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAULTS.len());
        for f in FAULTS {
            assert!(f.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{}", f.name);
            assert!(!f.help.is_empty() && VenueId::ALL.iter().any(|v| f.venues.has(*v)), "{}", f.name);
        }
        let faults = Faults::new(VenueId::Deribit, 8);
        assert!(faults.kind("jump_pu").unwrap_err().contains("break_chain"));
    }

    #[test]
    fn a_bound_on_armed_faults_holds() {
        let mut faults = Faults::new(VenueId::Deribit, 2);
        faults.arm(Command::new("pause")).unwrap();
        faults.arm(Command::new("pause")).unwrap();
        assert!(faults.arm(Command::new("pause")).is_err());
    }
}
