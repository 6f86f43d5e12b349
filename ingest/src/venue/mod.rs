//! The venues. Adding one is a file here and a line in [`VENUES`], or a description ([`crate::custom`]).

use schemas::{Instrument, Nanos, Timeframe};

use crate::book;
use crate::custom;
use crate::event::{Bar, Event, Frame};
use crate::feed::TradeIds;
use crate::rate::Allowance;
use crate::session::{Pace, Plan, Session};

pub mod binance;
pub mod coinbase;
pub mod deribit;
pub mod htx;
pub mod hyperliquid;
pub mod mexc;
pub mod okx;

/// Every venue that Tapeline can speak to.
pub const VENUES: &[&dyn Venue] = &[
    &binance::Binance,
    &coinbase::Coinbase,
    &deribit::Deribit,
    &htx::Htx,
    &hyperliquid::Hyperliquid,
    &mexc::Mexc,
    &okx::Okx,
];

/// One market of a venue: a tape of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Market {
    /// As the venue's notes and `--market` call it.
    pub name: &'static str,
    /// The venue token of its subjects, streams and configuration.
    pub id: &'static str,
}

/// Where a market is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoints {
    /// Scheme and host (and port), without a path.
    pub ws: String,
    pub rest: String,
}

/// How a REST request is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Method {
    #[default]
    Get,
    /// With a JSON body.
    Post,
}

/// A REST request for public data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub method: Method,
    /// Path and query behind [`Endpoints::rest`].
    pub path: String,
    /// Of a POST.
    pub body: String,
    /// What it costs of its bucket.
    pub weight: u32,
    /// A name of [`Venue::buckets`].
    pub bucket: &'static str,
    /// Nothing depends on it: it is paid from what others leave of the bucket.
    pub spare: bool,
}

impl Request {
    /// A GET that costs 1 of the bucket [`REST`].
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::Get, path: path.into(), body: String::new(), weight: 1, bucket: REST, spare: false }
    }
    /// A POST of JSON that costs 1 of the bucket [`REST`].
    pub fn post(path: impl Into<String>, body: impl Into<String>) -> Self {
        Self { method: Method::Post, body: body.into(), ..Self::get(path) }
    }
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
    pub fn bucket(mut self, bucket: &'static str) -> Self {
        self.bucket = bucket;
        self
    }
    pub fn spare(mut self) -> Self {
        self.spare = true;
        self
    }
}

/// The bucket of REST requests that name no other.
pub const REST: &str = "rest";
/// The bucket that every connection attempt costs 1 of.
pub const CONNECT: &str = "connect";

/// What a venue counts for itself of what an address asks of it. How much it allows is in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub name: &'static str,
    /// The header in which the venue says how much of the window is spent.
    pub used_header: Option<&'static str>,
    /// What a description states; the configuration may say otherwise.
    pub stated: Option<Allowance>,
}

impl Bucket {
    pub const fn new(name: &'static str) -> Self {
        Self { name, used_header: None, stated: None }
    }
}

/// A page of a symbol's candles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryPage<'a> {
    pub symbol: &'a str,
    pub timeframe: Timeframe,
    /// Candles that open before this; the newest ones.
    pub before: Nanos,
    /// How many are wanted; the venue may give fewer.
    pub limit: u32,
}

/// A venue: how its frames read and how one talks to it. No I/O.
pub trait Venue: Sync {
    /// Also the folder of its fixtures.
    fn id(&self) -> &'static str;
    fn markets(&self) -> &'static [Market];
    /// Reads one frame; what it says is appended. Never fails: what is not understood becomes
    /// [`Event::Malformed`] with the reason.
    fn decode(&self, market: Market, frame: Frame<'_>, out: &mut Vec<Event>);
    /// Reads a REST order book, for a book that starts from one.
    fn decode_snapshot(&self, market: Market, body: &str, out: &mut Vec<Event>) {
        self.decode(market, Frame::Text(body), out);
    }
    /// Whether the venue writes a fee that was charged as a negative number. [`crate::event::Fill`] has one sign for all
    /// venues, a row of the normalised form has the venue's.
    fn charged_fees_are_negative(&self) -> bool {
        false
    }
    /// How this market's book messages follow each other.
    fn book_rule(&self, market: Market) -> book::Rule;
    /// What this market's trade ids tell.
    fn trade_ids(&self, market: Market) -> TradeIds;
    /// Production, or the venue's test system.
    fn endpoints(&self, market: Market, test: bool) -> Endpoints;
    /// What the venue counts: at least [`REST`] and [`CONNECT`].
    fn buckets(&self, _market: Market) -> &'static [Bucket] {
        &const { [Bucket::new(REST), Bucket::new(CONNECT)] }
    }
    /// The pace that a description states. `None`: it is in the configuration.
    fn stated_pace(&self) -> Option<Pace> {
        None
    }
    /// Whether we ping it, or ask it for heartbeats.
    fn is_pinged(&self) -> bool {
        false
    }
    /// Requests whose answers describe `symbols`.
    fn instrument_requests(&self, market: Market, symbols: &[String]) -> Vec<Request>;
    /// Reads such an answer. Instruments of an unknown kind or state are left out and named in the second list.
    fn decode_instruments(&self, market: Market, body: &str) -> Result<(Vec<Instrument>, Vec<String>), String>;
    /// Instruments that no request tells, because a description states them. `None`: the venue tells them.
    fn stated_instruments(&self, market: Market, symbols: &[String]) -> Option<Vec<Instrument>> {
        let _ = (market, symbols);
        None
    }
    /// The request for a page of candles; `None`: the venue has none of this width.
    fn history_request(&self, market: Market, page: HistoryPage<'_>) -> Option<Request>;
    /// Reads such an answer: candles oldest first, the one that is still open among them if the venue sends it.
    fn decode_history(&self, market: Market, page: HistoryPage<'_>, body: &str) -> Result<Vec<Bar>, String>;
    /// Whether a channel of the configuration is one of this market's; the error says what is allowed.
    fn check_channel(&self, market: Market, channel: &str) -> Result<(), String>;
    /// Whether channels that are allowed each may be configured together.
    fn check_together(&self, _market: Market, _channels: &[String]) -> Result<(), String> {
        Ok(())
    }
    /// Cuts the wanted channels into connections within the venue's limits.
    fn sessions(&self, market: Market, plan: &Plan) -> Vec<Box<dyn Session>>;
}

/// The venue and market whose subjects carry `id` (`binance`, `binance-usdm`, `deribit`, ... or a described one).
pub fn by_id(id: &str) -> Option<(&'static dyn Venue, Market)> {
    let built_in = VENUES.iter().find_map(|venue| venue.markets().iter().find(|m| m.id == id).map(|m| (*venue, *m)));
    built_in.or_else(|| custom::registered(id).map(|described| (described as &dyn Venue, described.market())))
}

/// The market `market` of the venue `venue`; errors name what exists.
pub fn by_name(venue: &str, market: &str) -> Result<(&'static dyn Venue, Market), String> {
    let Some(found) = VENUES.iter().find(|v| v.id() == venue) else {
        let known: Vec<_> = VENUES.iter().map(|v| v.id()).collect();
        return Err(format!("unknown venue `{venue}`; known: {}", known.join(", ")));
    };
    match found.markets().iter().find(|m| m.name == market) {
        Some(m) => Ok((*found, *m)),
        None => {
            let known: Vec<_> = found.markets().iter().map(|m| m.name).collect();
            Err(format!("{venue} has no market `{market}`; it has: {}", known.join(", ")))
        }
    }
}

/// Digits behind the point of a step such as 0.001.
pub(crate) fn digits(step: schemas::Decimal) -> u8 {
    step.normalize().scale() as u8
}

/// Everything but letters, digits, `_` and `-` as `%XX`: some symbols are not ASCII.
pub(crate) fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b == b'_' || b == b'-' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(all(test, feature = "stage"))]
pub(crate) mod chaos;
#[cfg(all(test, feature = "stage"))]
mod history;
#[cfg(test)]
mod tests;
