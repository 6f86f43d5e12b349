//! What is subscribed to, and what it means on each market.

use serde_json::Value;

use crate::floor::Floor;
use crate::instrument::VenueId;

/// What a channel carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    Deals,
    /// Changes of the book, by versions.
    Depth,
    /// The best `levels` levels, whole.
    Top {
        levels: usize,
    },
    /// Best bid and ask (spot).
    Touch,
    Kline {
        interval: &'static str,
        width_ms: i64,
    },
    /// Spot: the mini ticker.
    Ticker,
    /// Contract: every symbol's in one message.
    Tickers,
    Funding,
    Index,
    Fair,
}

/// A channel that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// As the client named it (spot), or as `<method>@<symbol>@<parameter>` (contract).
    pub name: String,
    pub carries: Carries,
    /// None: of the whole market.
    pub instrument: Option<usize>,
    /// Virtual time between two messages; 0 is at every operation.
    pub period_ms: i64,
}

pub const INTERVALS: &[(&str, i64)] = &[
    ("Min1", 60_000),
    ("Min5", 300_000),
    ("Min15", 900_000),
    ("Min30", 1_800_000),
    ("Min60", 3_600_000),
    ("Hour4", 14_400_000),
    ("Hour8", 28_800_000),
    ("Day1", 86_400_000),
];

fn interval(word: &str) -> Option<Carries> {
    let (interval, width_ms) = *INTERVALS.iter().find(|(name, _)| *name == word)?;
    Some(Carries::Kline { interval, width_ms })
}

fn top(word: &str) -> Option<Carries> {
    let levels = word.parse().ok().filter(|n| [5, 10, 20].contains(n))?;
    Some(Carries::Top { levels })
}

/// A spot channel; `None`: the venue would say that it is blocked.
pub fn spot(floor: &Floor, name: &str) -> Option<Topic> {
    let mut parts = name.split('@').skip(1);
    let channel = parts.next()?.strip_prefix("public.")?.strip_suffix(".v3.api.pb")?;
    let rest: Vec<&str> = parts.collect();
    let speed = |word: &str| match word {
        "10ms" => Some(10),
        "100ms" => Some(100),
        _ => None,
    };
    let (carries, symbol, period_ms) = match (channel, rest.as_slice()) {
        ("aggre.deals", [word, symbol]) => (Carries::Deals, *symbol, speed(word)?),
        ("aggre.depth", [word, symbol]) => (Carries::Depth, *symbol, speed(word)?),
        ("aggre.bookTicker", [word, symbol]) => (Carries::Touch, *symbol, speed(word)?),
        ("limit.depth", [symbol, levels]) => (top(levels)?, *symbol, 100),
        ("kline", [symbol, word]) => (interval(word)?, *symbol, 1_000),
        ("miniTicker", [symbol, _zone]) => (Carries::Ticker, *symbol, 1_000),
        _ => return None,
    };
    // Names are upper case; another spelling is another, unknown symbol.
    let instrument = Some(floor.market.find(symbol)?);
    Some(Topic { name: name.to_owned(), carries, instrument, period_ms })
}

/// What a contract method subscribes to; the error is what the venue answers.
pub fn contract(floor: &Floor, method: &str, param: &Value) -> Result<Topic, String> {
    let symbol = param["symbol"].as_str().unwrap_or("");
    let unknown = || format!("method [{method}] or its parameters are wrong");
    let (carries, period_ms, tail) = match method {
        "deal" => (Carries::Deals, 0, String::new()),
        "depth" => (Carries::Depth, 50, String::new()),
        "depth.full" => {
            let levels = param["limit"].as_u64().unwrap_or(20).to_string();
            (top(&levels).ok_or_else(unknown)?, 200, levels)
        }
        "kline" => {
            let word = param["interval"].as_str().unwrap_or("");
            (interval(word).ok_or_else(unknown)?, 500, word.to_owned())
        }
        "ticker" => (Carries::Ticker, 1_000, String::new()),
        "tickers" => (Carries::Tickers, 1_000, String::new()),
        "funding.rate" => (Carries::Funding, 1_000, String::new()),
        "index.price" => (Carries::Index, 1_000, String::new()),
        "fair.price" => (Carries::Fair, 1_000, String::new()),
        _ => return Err(unknown()),
    };
    if carries == Carries::Tickers {
        return Ok(Topic { name: method.to_owned(), carries, instrument: None, period_ms });
    }
    let instrument = floor.market.find(symbol).ok_or_else(|| format!("Contract [{symbol}] not exists"))?;
    Ok(Topic { name: format!("{method}@{symbol}@{tail}"), carries, instrument: Some(instrument), period_ms })
}

/// The venue's market.
pub fn is_spot(floor: &Floor) -> bool {
    floor.venue == VenueId::MexcSpot
}
