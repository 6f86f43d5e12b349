//! A fact as the type that a core said or hears. Bytes are made only where somebody hashes, records or compares them.

use schemas::desk::DeskState;
use schemas::raw::Raw;
use schemas::signal::Signal;
use schemas::subject::stream;
use schemas::{Fact as _, Instrument, Place, Speak as _};

/// Everything that can stand on a stream of a backtest.
#[derive(Clone, PartialEq, Debug)]
pub enum Typed {
    /// Of the tape.
    Raw(Raw),
    /// Of the tape: an entry of KV `instruments`.
    Instrument(Box<Instrument>),
    /// Of the tape: an operator's entry of KV `cfg`.
    State(DeskState),
    Market(aggregate::core::Out),
    Signal(Signal),
    Risk(risk::Out),
    Exec(executor::Out),
}

/// A fact with its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub place: Place,
    pub fact: Typed,
}

impl Typed {
    pub fn subject(&self) -> String {
        match self {
            Self::Raw(f) => f.subject(),
            Self::Instrument(f) => f.subject(),
            Self::State(f) => format!("$KV.{}.{}", stream::KV_CONFIG, stream::desk_state_key(&f.account)),
            Self::Market(f) => f.subject(),
            Self::Signal(f) => f.subject(),
            Self::Risk(f) => f.subject(),
            Self::Exec(f) => f.subject(),
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::Raw(f) => f.encode(),
            Self::Instrument(f) => f.encode(),
            Self::State(f) => f.encode(),
            Self::Market(f) => f.payload(),
            Self::Signal(f) => f.encode(),
            Self::Risk(f) => f.payload(),
            Self::Exec(f) => f.payload(),
        }
    }

    /// A core said it; otherwise the tape holds it.
    pub fn is_said(&self) -> bool {
        match self {
            Self::Raw(_) | Self::Instrument(_) | Self::State(_) => false,
            Self::Market(_) | Self::Signal(_) | Self::Risk(_) | Self::Exec(_) => true,
        }
    }

    /// `trade`, `candle`, `signal`, `order`, ...: what it is called in counts and reports.
    pub fn kind(&self) -> &'static str {
        use aggregate::core::Out as Market;
        use executor::Out as Exec;
        use risk::Out as Risk;
        match self {
            Self::Raw(Raw::Trades(_)) => "trade",
            Self::Raw(Raw::Quotes(_)) => "quote",
            Self::Raw(Raw::Books(_)) => "book",
            Self::Raw(Raw::Tickers(_)) => "ticker",
            Self::Raw(Raw::Bars(_)) => "bar",
            Self::Raw(Raw::Liquidations(_)) => "liquidation",
            Self::Raw(Raw::Clock(_)) => "clock",
            Self::Raw(Raw::Gap(_)) => "gap",
            Self::Raw(Raw::Link(_)) => "link",
            Self::Raw(Raw::Dead(_)) => "dead",
            Self::Instrument(_) => "instrument",
            Self::State(_) => "state",
            Self::Market(Market::Candle(_)) => "candle",
            Self::Market(Market::Indicators(_)) => "indicator",
            Self::Market(Market::Late(_)) => "late",
            Self::Market(Market::Preview(_)) => "preview",
            Self::Signal(_) => "signal",
            Self::Risk(Risk::Intent(_)) => "intent",
            Self::Risk(Risk::Order(_)) => "order",
            Self::Risk(Risk::Cancel(_)) => "cancel",
            Self::Risk(Risk::Refusal(_)) => "refusal",
            Self::Risk(Risk::Position(_)) => "position",
            Self::Risk(Risk::Account(_)) => "account",
            Self::Risk(Risk::State(_)) => "state",
            Self::Exec(Exec::Sending(_)) => "sending",
            Self::Exec(Exec::Cancelling(_)) => "cancelling",
            Self::Exec(Exec::Ack(_)) => "ack",
            Self::Exec(Exec::Fill(_)) => "fill",
            Self::Exec(Exec::Reject(_)) => "reject",
            Self::Exec(Exec::Done(_)) => "done",
            Self::Exec(Exec::Funding(_)) => "funding",
        }
    }

    /// The desk of an account sources it, as `nats::layout` writes it down; `books`: full order books too.
    pub fn on_desk(&self, books: bool) -> bool {
        match self {
            Self::Raw(Raw::Trades(_) | Raw::Quotes(_) | Raw::Tickers(_) | Raw::Gap(_)) => true,
            Self::Raw(Raw::Books(_)) => books,
            // Every partition carries the same venue clock; the desk needs it once.
            Self::Raw(Raw::Clock(clock)) => clock.p == 0,
            Self::Raw(_) | Self::Market(_) => false,
            Self::Instrument(_) | Self::State(_) | Self::Signal(_) | Self::Exec(_) => true,
            Self::Risk(out) => matches!(out, risk::Out::Order(_) | risk::Out::Cancel(_) | risk::Out::State(_)),
        }
    }

    /// Event time for people and for cuts, in nanoseconds since 1970; `None` for what has none.
    pub fn ts_ns(&self) -> Option<i64> {
        use aggregate::core::Out as Market;
        use executor::Out as Exec;
        use risk::Out as Risk;
        match self {
            Self::Raw(raw) => raw_ts_ns(raw),
            Self::Instrument(_) => None,
            Self::State(f) => Some(f.ts_ns),
            Self::Market(Market::Candle(f) | Market::Preview(f)) => Some(f.close_ns),
            Self::Market(Market::Indicators(f)) => Some(f.close_ns),
            Self::Market(Market::Late(f)) => Some(f.ts_ns),
            Self::Signal(f) => Some(f.ts_ns),
            Self::Risk(Risk::Intent(f)) => Some(f.ts_ns),
            Self::Risk(Risk::Order(f)) => Some(f.ts_ns),
            Self::Risk(Risk::Cancel(f)) => Some(f.ts_ns),
            Self::Risk(Risk::Refusal(f)) => Some(f.ts_ns),
            Self::Risk(Risk::Position(f)) => Some(f.ts_ns),
            Self::Risk(Risk::Account(f)) => Some(f.ts_ns),
            Self::Risk(Risk::State(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Sending(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Cancelling(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Ack(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Fill(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Reject(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Done(f)) => Some(f.ts_ns),
            Self::Exec(Exec::Funding(f)) => Some(f.ts_ns),
        }
    }
}

/// Event time of the newest tick of a raw fact.
pub fn raw_ts_ns(raw: &Raw) -> Option<i64> {
    match raw {
        Raw::Trades(f) => f.ts_ns.last().copied(),
        Raw::Quotes(f) => f.ts_ns.last().copied(),
        Raw::Books(f) => f.items.last().map(|item| item.ts_ns),
        Raw::Tickers(f) => f.items.last().map(|item| item.ts_ns),
        Raw::Bars(f) => f.items.last().map(|item| item.ts_ns),
        Raw::Liquidations(f) => f.items.last().map(|item| item.ts_ns),
        Raw::Clock(f) => Some(f.watermark_ns),
        Raw::Gap(f) => Some(f.to_ns.unwrap_or(f.from_ns)),
        Raw::Link(_) | Raw::Dead(_) => None,
    }
}
