//! Channels: what a client may subscribe to, and how each is kept for a slow one.
//!
//! | channel | policy | data |
//! |---|---|---|
//! | `ticker.<venue>.<symbol>` | latest | last, bid, ask, mark, funding, ... merged from all raw kinds |
//! | `trades.<venue>.<symbol>` | log | list of trades |
//! | `candle.<venue>.<symbol>.<tf>` | latest | the forming candle, and each closed one |
//! | `indicator.<venue>.<symbol>.<tf>` | latest | all outputs of the newest closed candle |
//! | `ticker.<instrument>.<interval>`, `trades.<instrument>.<interval>` | | Deribit's own names, for `deribit` |
//! | `signals`, `intents.<account>`, `orders.<account>`, `fills.<account>` | log | operator only |
//! | `positions.<account>`, `account.<account>`, `stages` | latest | operator only |
//!
//! A symbol is its escaped token (`schemas::subject::escape`): `BTC=2FUSDT` for `BTC/USDT`.

/// How updates wait for a slow client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Only the newest one per key waits.
    Latest,
    /// All wait up to a bound; what is dropped is announced as a gap.
    Log,
}

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Latest => "latest",
            Policy::Log => "log",
        }
    }
}

/// Who asks: a widget or page that may see the market, or the operator's own dashboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Market,
    Operator,
}

/// A family of channels: one line below is all it takes to add one.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    /// Tokens behind the name.
    pub args: usize,
    pub policy: Policy,
    pub scope: Scope,
}

pub const FAMILIES: &[Family] = &[
    Family { name: "ticker", args: 2, policy: Policy::Latest, scope: Scope::Market },
    Family { name: "trades", args: 2, policy: Policy::Log, scope: Scope::Market },
    Family { name: "candle", args: 3, policy: Policy::Latest, scope: Scope::Market },
    Family { name: "indicator", args: 3, policy: Policy::Latest, scope: Scope::Market },
    Family { name: "signals", args: 0, policy: Policy::Log, scope: Scope::Operator },
    Family { name: "intents", args: 1, policy: Policy::Log, scope: Scope::Operator },
    Family { name: "orders", args: 1, policy: Policy::Log, scope: Scope::Operator },
    Family { name: "fills", args: 1, policy: Policy::Log, scope: Scope::Operator },
    Family { name: "positions", args: 1, policy: Policy::Latest, scope: Scope::Operator },
    Family { name: "account", args: 1, policy: Policy::Latest, scope: Scope::Operator },
    Family { name: "stages", args: 0, policy: Policy::Latest, scope: Scope::Operator },
];

/// The longest channel name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Intervals of Deribit's own channel names; we send as it comes.
const DERIBIT_INTERVALS: [&str; 3] = ["raw", "100ms", "agg2"];

/// A channel that was allowed: the name the client used, and the one that updates carry inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channel {
    /// As the client wrote it; its messages carry this name.
    pub asked: String,
    /// The canonical name.
    pub name: String,
    pub policy: Policy,
}

/// `Err` is a stable code: `bad_channel` (grammar) or `channel_not_allowed` (unknown family or scope).
pub fn parse(asked: &str, scope: Scope) -> Result<Channel, &'static str> {
    let tokens: Vec<&str> = asked.split('.').collect();
    let clean = |t: &&str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b));
    if asked.len() > NAME_BYTES_MAX || !tokens.iter().all(|t| clean(&t)) {
        return Err("bad_channel");
    }
    let family = FAMILIES.iter().find(|f| f.name == tokens[0]).ok_or("channel_not_allowed")?;
    if tokens.len() != family.args + 1 {
        return Err("bad_channel");
    }
    if family.scope == Scope::Operator && scope != Scope::Operator {
        return Err("channel_not_allowed");
    }
    let name = match (family.name, &tokens[1..]) {
        ("ticker" | "trades", [instrument, interval]) if DERIBIT_INTERVALS.contains(interval) => {
            format!("{}.deribit.{instrument}", family.name)
        }
        _ => asked.to_owned(),
    };
    Ok(Channel { asked: asked.to_owned(), name, policy: family.policy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_with_wildcards_holes_or_other_letters_are_refused() {
        let long = format!("ticker.binance.{}", "A".repeat(NAME_BYTES_MAX));
        for name in [
            "ticker.*.>",
            "ticker..X",
            "",
            ".",
            "ticker.binance.B T",
            "ticker.binance.\u{fc}",
            "ticker.binance.a\0b",
            "ticker.binance",
            "ticker.a.b.c",
            &long,
        ] {
            assert_eq!(parse(name, Scope::Operator).unwrap_err(), "bad_channel", "{name}");
        }
        assert_eq!(parse("secrets.main", Scope::Operator).unwrap_err(), "channel_not_allowed");
    }

    #[test]
    fn a_market_client_does_not_hear_of_positions() {
        assert_eq!(parse("positions.main", Scope::Market).unwrap_err(), "channel_not_allowed");
        assert!(parse("positions.main", Scope::Operator).is_ok());
    }

    #[test]
    fn deribits_own_names_mean_deribits_instruments() {
        let channel = parse("ticker.BTC-PERPETUAL.100ms", Scope::Market).unwrap();
        assert_eq!(
            (channel.asked.as_str(), channel.name.as_str()),
            ("ticker.BTC-PERPETUAL.100ms", "ticker.deribit.BTC-PERPETUAL")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_an_allowed_channel_that_could_be_a_wildcard(text in "\\PC{0,160}") {
            if let Ok(channel) = parse(&text, Scope::Operator) {
                prop_assert!(!channel.name.contains(['*', '>', ' ']));
                prop_assert!(channel.name.len() <= NAME_BYTES_MAX + 8);
            }
        }
    }
}
