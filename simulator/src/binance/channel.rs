//! Stream names, such as `btcusdt@depth@100ms`, and what they mean on each market.

use crate::instrument::VenueId;

/// What a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    Trade,
    AggTrade,
    /// Changed levels; a period of 0 is every operation.
    Depth {
        period_ms: i64,
    },
    /// The best `levels` levels, whole.
    Partial {
        levels: usize,
        period_ms: i64,
    },
    BookTicker,
    Kline {
        interval: &'static str,
        width_ms: i64,
    },
    Ticker,
    MiniTicker,
    AvgPrice,
    MarkPrice {
        period_ms: i64,
    },
    ForceOrder,
    /// Every symbol's mark price in one array.
    AllMarkPrice {
        period_ms: i64,
    },
    AllMiniTicker,
    AllForceOrder,
}

/// Which of the `/public`, `/market` and `/private` paths of the futures carries a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The old path without prefix and the spot market: everything.
    Any,
    Public,
    Market,
    Private,
}

pub const INTERVALS: &[(&str, i64)] = &[
    ("1s", 1_000),
    ("1m", 60_000),
    ("3m", 180_000),
    ("5m", 300_000),
    ("15m", 900_000),
    ("30m", 1_800_000),
    ("1h", 3_600_000),
    ("2h", 7_200_000),
    ("4h", 14_400_000),
    ("6h", 21_600_000),
    ("8h", 28_800_000),
    ("12h", 43_200_000),
    ("1d", 86_400_000),
];

/// Reads what follows the symbol. `None`: the venue would acknowledge it and send nothing.
pub fn parse(name: &str, venue: VenueId) -> Option<(Option<String>, Channel)> {
    let (symbol, rest) = name.split_once('@')?;
    let futures = venue != VenueId::BinanceSpot;
    let parts: Vec<&str> = rest.split('@').collect();
    if let Some(all) = symbol.strip_prefix('!') {
        let channel = match (all, parts.as_slice()) {
            ("markPrice", ["arr"]) if futures => Channel::AllMarkPrice { period_ms: 3_000 },
            ("markPrice", ["arr", "1s"]) if futures => Channel::AllMarkPrice { period_ms: 1_000 },
            ("miniTicker", ["arr"]) => Channel::AllMiniTicker,
            ("forceOrder", ["arr"]) if futures => Channel::AllForceOrder,
            _ => return None,
        };
        return Some((None, channel));
    }
    // Upper case in a stream name is a different, unknown stream.
    if symbol.is_empty() || symbol.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let usual = if futures { 250 } else { 1_000 };
    let period = |word: Option<&&str>| match (word, futures) {
        (None, _) => Some(usual),
        (Some(&"100ms"), _) => Some(100),
        (Some(&"1000ms"), false) => Some(1_000),
        (Some(&"0ms"), true) => Some(0),
        (Some(&"250ms"), true) => Some(250),
        (Some(&"500ms"), true) => Some(500),
        _ => None,
    };
    let channel = match parts.as_slice() {
        ["trade"] => Channel::Trade,
        ["aggTrade"] => Channel::AggTrade,
        ["bookTicker"] => Channel::BookTicker,
        ["ticker"] => Channel::Ticker,
        ["miniTicker"] => Channel::MiniTicker,
        ["avgPrice"] if !futures => Channel::AvgPrice,
        ["forceOrder"] if futures => Channel::ForceOrder,
        ["markPrice"] if futures => Channel::MarkPrice { period_ms: 3_000 },
        ["markPrice", "1s"] if futures => Channel::MarkPrice { period_ms: 1_000 },
        ["depth", speed @ ..] if speed.len() <= 1 => Channel::Depth { period_ms: period(speed.first())? },
        [depth, speed @ ..] if depth.starts_with("depth") && speed.len() <= 1 => {
            let levels = match *depth {
                "depth5" => 5,
                "depth10" => 10,
                "depth20" => 20,
                _ => return None,
            };
            Channel::Partial { levels, period_ms: period(speed.first())?.max(100) }
        }
        [kline] => {
            let word = kline.strip_prefix("kline_")?;
            let (interval, width_ms) = *INTERVALS.iter().find(|(i, _)| *i == word)?;
            Channel::Kline { interval, width_ms }
        }
        _ => return None,
    };
    Some((Some(symbol.to_ascii_uppercase()), channel))
}

impl Channel {
    /// The path that carries it on the futures.
    pub fn route(self) -> Route {
        match self {
            Self::Trade | Self::Depth { .. } | Self::Partial { .. } | Self::BookTicker => Route::Public,
            _ => Route::Market,
        }
    }

    /// How often it is published by the clock; `None` for what follows events.
    pub fn period_ms(self) -> Option<i64> {
        match self {
            Self::Depth { period_ms: 0 } => None,
            Self::Depth { period_ms }
            | Self::Partial { period_ms, .. }
            | Self::MarkPrice { period_ms }
            | Self::AllMarkPrice { period_ms } => Some(period_ms),
            Self::Kline { .. } | Self::Ticker | Self::MiniTicker | Self::AvgPrice | Self::AllMiniTicker => Some(1_000),
            Self::Trade | Self::AggTrade | Self::BookTicker | Self::ForceOrder | Self::AllForceOrder => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_mean_what_their_market_says() {
        let depth = |name, venue| parse(name, venue).map(|(_, c)| c);
        let (spot, usdm) = (VenueId::BinanceSpot, VenueId::BinanceUsdm);
        assert_eq!(depth("btcusdt@depth", spot), Some(Channel::Depth { period_ms: 1_000 }));
        assert_eq!(depth("btcusdt@depth", usdm), Some(Channel::Depth { period_ms: 250 }));
        assert_eq!(depth("btcusdt@depth@0ms", usdm), Some(Channel::Depth { period_ms: 0 }));
        assert_eq!(depth("btcusdt@depth20@100ms", spot), Some(Channel::Partial { levels: 20, period_ms: 100 }));
        assert_eq!(
            depth("btcusd_perp@kline_15m", VenueId::BinanceCoinm),
            Some(Channel::Kline { interval: "15m", width_ms: 900_000 })
        );
        for unknown in
            ["btcusdt@depth@0ms", "BTCUSDT@trade", "btcusdt@markPrice", "btcusdt@kline_7m", "btcusdt", "@trade"]
        {
            assert_eq!(parse(unknown, spot), None, "{unknown}");
        }
    }
}
