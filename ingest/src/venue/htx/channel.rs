//! The channels of HTX: which there are, and on which of a host's sockets each is served.

use super::Kind;
use crate::connection::Carries;

/// Open interest of swaps: no socket tells it, it is asked for by REST on the connection of another channel.
pub(super) const OPEN_INTEREST: &str = "market.{}.open_interest";

/// Whether the service of a kind of swaps works; of the whole market.
pub(super) fn heartbeat(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Spot => None,
        Kind::Linear => Some("public.linear-swap.heartbeat"),
        Kind::Inverse => Some("public.swap.heartbeat"),
    }
}

/// A socket of the host; each speaks of some channels only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Socket {
    /// Trades, quotes, books as snapshots, candles.
    Market,
    /// Spot's books by changes.
    Feed,
    /// Funding and liquidations of derivatives; spoken to in `op`s.
    Notification,
    /// Index and mark prices of derivatives.
    Index,
    /// What the venue says of its own state; spoken to in `op`s. That this has a socket of its own, and its path, are the
    /// documentation's as it is remembered: the notes and fixtures name the topic and its form alone.
    Center,
}

impl Socket {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Feed => "feed",
            Self::Notification => "notification",
            Self::Index => "index",
            Self::Center => "center",
        }
    }

    /// Path of the socket; `None`: the kind has none.
    pub(super) fn path(self, kind: Kind) -> Option<&'static str> {
        Some(match (kind, self) {
            (Kind::Spot, Self::Market) => "/ws",
            (Kind::Spot, Self::Feed) => "/feed",
            (Kind::Linear, Self::Market) => "/linear-swap-ws",
            (Kind::Linear, Self::Notification) => "/linear-swap-notification",
            (Kind::Inverse, Self::Market) => "/swap-ws",
            (Kind::Inverse, Self::Notification) => "/swap-notification",
            (Kind::Linear | Kind::Inverse, Self::Index) => "/ws_index",
            (Kind::Linear | Kind::Inverse, Self::Center) => "/center-notification",
            (Kind::Spot, Self::Notification | Self::Index | Self::Center)
            | (Kind::Linear | Kind::Inverse, Self::Feed) => return None,
        })
    }
}

/// A channel of the configuration, `{}` for the symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub socket: Socket,
    pub carries: Carries,
}

const SPOT: &str = "market.{}.trade.detail, market.{}.bbo, market.{}.detail, market.{}.kline.<period>, \
                    market.{}.mbp.<5|20|150|400>, market.{}.mbp.refresh.<5|10|20>, market.{}.depth.step<0-5>";
const SWAP: &str = "market.{}.trade.detail, market.{}.bbo, market.{}.detail, market.{}.kline.<period>, \
                    market.{}.depth.size_<20|150>.high_freq, market.{}.depth.step<0-19>, market.{}.index.<period>, \
                    market.{}.mark_price.<period>, public.{}.funding_rate, public.{}.liquidation_orders, \
                    market.{}.open_interest (by REST), public.linear-swap.heartbeat or public.swap.heartbeat";
const PERIODS: &[&str] = &["1min", "5min", "15min", "30min", "60min", "4hour", "1day", "1week", "1mon"];

impl Channel {
    /// The error says what is allowed.
    pub(super) fn parse(kind: Kind, channel: &str) -> Result<Self, String> {
        if heartbeat(kind) == Some(channel) {
            return Ok(Self { socket: Socket::Center, carries: Carries::Other });
        }
        let allowed = || format!("allowed are {}", if kind.is_swap() { SWAP } else { SPOT });
        let of = |prefix: &str| channel.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(".{}."));
        let (socket, carries) = match (of("market"), of("public")) {
            (Some(what), _) => Self::market(kind, what),
            (_, Some("funding_rate" | "liquidation_orders")) => Some((Socket::Notification, Carries::Other)),
            _ => None,
        }
        .ok_or_else(allowed)?;
        if socket.path(kind).is_none() {
            return Err(allowed());
        }
        Ok(Self { socket, carries })
    }

    fn market(kind: Kind, what: &str) -> Option<(Socket, Carries)> {
        let step = |word: &str| word.strip_prefix("step").and_then(|n| n.parse::<u8>().ok());
        let parts: Vec<&str> = what.split('.').collect();
        Some(match parts[..] {
            ["trade", "detail"] => (Socket::Market, Carries::Trades),
            ["bbo"] | ["detail"] => (Socket::Market, Carries::Other),
            ["kline", period] if PERIODS.contains(&period) => (Socket::Market, Carries::Other),
            ["mbp", "5" | "20" | "150" | "400"] => (Socket::Feed, Carries::Book),
            ["mbp", "refresh", "5" | "10" | "20"] if !kind.is_swap() => (Socket::Market, Carries::Other),
            ["depth", "size_20" | "size_150", "high_freq"] if kind.is_swap() => (Socket::Market, Carries::Book),
            ["depth", "step0"] => (Socket::Market, Carries::Book),
            ["depth", word] if step(word)? <= if kind.is_swap() { 19 } else { 5 } => (Socket::Market, Carries::Other),
            ["index" | "mark_price", period] if PERIODS.contains(&period) => (Socket::Index, Carries::Other),
            _ => return None,
        })
    }
}

/// Whether a channel of the configuration is one of the kind's; the error says what is allowed.
pub(super) fn check(kind: Kind, channel: &str) -> Result<(), String> {
    if kind.is_swap() && channel == OPEN_INTEREST {
        return Ok(());
    }
    Channel::parse(kind, channel).map(|_| ())
}

/// The socket on whose connections a symbol's open interest is asked for, if it is to be: one that carries symbols.
pub(super) fn polling(kind: Kind, channels: &[String]) -> Option<Socket> {
    let of_symbols = channels.iter().filter(|c| c.contains("{}"));
    let sockets = of_symbols.filter_map(|c| Channel::parse(kind, c).ok()).map(|c| c.socket);
    channels.iter().any(|c| c == OPEN_INTEREST).then(|| sockets.min()).flatten()
}

/// Two channels that each follow the book would mix their numbers, and what is asked for by REST needs a connection.
pub(super) fn check_together(kind: Kind, channels: &[String]) -> Result<(), String> {
    if channels.iter().any(|c| c == OPEN_INTEREST) && polling(kind, channels).is_none() {
        return Err(format!(
            "{OPEN_INTEREST} is asked for beside another channel: name one, such as market.{{}}.detail"
        ));
    }
    let books = |channel: &&String| Channel::parse(kind, channel).is_ok_and(|c| c.carries == Carries::Book);
    let books: Vec<&str> = channels.iter().filter(books).map(String::as_str).collect();
    match books[..] {
        [first, second, ..] => Err(format!("{first} and {second} both follow the order book: choose one")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_socket_and_the_others_are_refused_with_what_is_allowed() {
        let socket = |kind, channel: &str| Channel::parse(kind, channel).map(|c| c.socket.path(kind).unwrap());
        for (kind, channel, path) in [
            (Kind::Spot, "market.{}.trade.detail", "/ws"),
            (Kind::Spot, "market.{}.mbp.150", "/feed"),
            (Kind::Spot, "market.{}.mbp.refresh.20", "/ws"),
            (Kind::Linear, "market.{}.depth.size_150.high_freq", "/linear-swap-ws"),
            (Kind::Linear, "public.{}.funding_rate", "/linear-swap-notification"),
            (Kind::Inverse, "public.{}.liquidation_orders", "/swap-notification"),
            (Kind::Inverse, "market.{}.bbo", "/swap-ws"),
            (Kind::Inverse, "market.{}.mark_price.1min", "/ws_index"),
            (Kind::Linear, "public.linear-swap.heartbeat", "/center-notification"),
        ] {
            assert_eq!(socket(kind, channel).as_deref(), Ok(path), "{channel}");
        }
        for (kind, channel, names) in [
            (Kind::Spot, "market.{}.mbp.10", "mbp.<5|20|150|400>"),
            (Kind::Spot, "public.{}.funding_rate", "market.{}.trade.detail"),
            (Kind::Spot, "market.btcusdt.bbo", "market.{}.bbo"),
            (Kind::Linear, "market.{}.mbp.150", "high_freq"),
            (Kind::Linear, "market.{}.kline.3min", "kline.<period>"),
            (Kind::Linear, "market.{}.depth.step20", "step<0-19>"),
            (Kind::Linear, "public.swap.heartbeat", "public.linear-swap.heartbeat"),
        ] {
            let why = socket(kind, channel).unwrap_err();
            assert!(why.contains(names), "{channel}: {why}");
        }
        let channels = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let both = channels(&["market.{}.mbp.150", "market.{}.bbo", "market.{}.depth.step0"]);
        assert!(check_together(Kind::Spot, &both).unwrap_err().contains("choose one"));
        check_together(Kind::Spot, &channels(&["market.{}.mbp.150", "market.{}.depth.step1"])).unwrap();
        let no_symbol = channels(&["public.linear-swap.heartbeat", OPEN_INTEREST]);
        assert!(check_together(Kind::Linear, &no_symbol).unwrap_err().contains("beside another channel"));
    }
}
