//! What risk hears of the desk. The desk is busy with market data of which only the newest price is needed: packs are
//! read past, not unpacked.

use std::fmt;
use std::marker::PhantomData;

use schemas::desk::DeskState;
use schemas::exec::{Ack, Done, Fill, Funding, Reject};
use schemas::market::{Candle, ClosedBy};
use schemas::raw::{Clock, Gap, Quotes, Raw, TickerUpdate, Tickers, Trades};
use schemas::signal::Signal;
use schemas::{Fact, Instrument, Listen, Price, PriceM, Scale, WireError};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// What the core hears.
#[derive(Clone, PartialEq, Debug)]
pub enum In {
    Signal(Box<Signal>),
    Tick(Tick),
    Clock(Clock),
    Gap(Gap),
    Instrument(Box<Instrument>),
    /// From KV `cfg`: an operator's, or the mirror of our own.
    State(DeskState),
    Ack(Ack),
    Fill(Box<Fill>),
    Reject(Reject),
    Done(Done),
    Funding(Funding),
}

/// The newest price of a pack.
#[derive(Clone, PartialEq, Debug)]
pub struct Tick {
    pub venue: String,
    pub symbol: String,
    pub ts_ns: i64,
    pub seen: Seen,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Seen {
    Trade(Price),
    Quote { bid: Option<Price>, ask: Option<Price> },
    Ticker { mark: Option<Price>, bid: Option<Price>, ask: Option<Price>, last: Option<Price> },
    Candle(Price),
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        let mut tokens = subject.split('.');
        let heard = match tokens.next().unwrap_or("") {
            "raw" => match tokens.nth(2).unwrap_or("") {
                "trade" => Self::Tick(schemas::wire::decode::<LastTrade>(payload)?.tick()?),
                "quote" => Self::Tick(schemas::wire::decode::<LastQuote>(payload)?.tick()?),
                "ticker" => return Ok(Tickers::decode(payload)?.try_into().map(Self::Tick).ok()),
                "clock" => Self::Clock(Clock::decode(payload)?),
                "gap" => Self::Gap(Gap::decode(payload)?),
                _ => return Ok(None),
            },
            "signal" => Self::Signal(Box::new(Signal::decode(payload)?.checked(subject)?)),
            "candle" | "preview" => Self::Tick(Candle::decode(payload)?.into()),
            "fill" => Self::Fill(Box::new(Fill::decode(payload)?)),
            "ack" => Self::Ack(Ack::decode(payload)?),
            "reject" => Self::Reject(Reject::decode(payload)?),
            "done" => Self::Done(Done::decode(payload)?),
            "funding" => Self::Funding(Funding::decode(payload)?),
            "$KV" => match (tokens.next(), tokens.next()) {
                // A deleted key has an empty body; what it said before stays.
                _ if payload.is_empty() => return Ok(None),
                (Some("cfg"), Some("desk")) => Self::State(DeskState::decode(payload)?),
                (Some("instruments"), Some(_)) => Self::Instrument(Box::new(Instrument::decode(payload)?)),
                _ => return Ok(None),
            },
            // Our own orders, cancellations and states, and the executor's `sending`, say nothing new.
            _ => return Ok(None),
        };
        Ok(Some(heard))
    }
}

impl In {
    /// For drivers in the same process; `None`: a kind that risk does not listen to.
    pub fn of_raw(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Trades(f) => f.try_into().ok().map(Self::Tick),
            Raw::Quotes(f) => f.try_into().ok().map(Self::Tick),
            Raw::Tickers(f) => f.clone().try_into().ok().map(Self::Tick),
            Raw::Clock(f) => Some(Self::Clock(f.clone())),
            Raw::Gap(f) => Some(Self::Gap(f.clone())),
            Raw::Books(_) | Raw::Bars(_) | Raw::Liquidations(_) | Raw::Link(_) | Raw::Dead(_) => None,
        }
    }
}

/// A pack without ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

impl TryFrom<&Trades> for Tick {
    type Error = Empty;
    fn try_from(pack: &Trades) -> Result<Self, Empty> {
        let last = pack.iter().last().ok_or(Empty)?;
        let seen = Seen::Trade(last.price.price(pack.scale));
        Ok(Self { venue: pack.venue.clone(), symbol: pack.symbol.clone(), ts_ns: last.ts.0, seen })
    }
}
impl TryFrom<&Quotes> for Tick {
    type Error = Empty;
    fn try_from(pack: &Quotes) -> Result<Self, Empty> {
        let last = pack.iter().last().ok_or(Empty)?;
        let price = |level: Option<(PriceM, schemas::QtyM)>| level.map(|l| l.0.price(pack.scale));
        let seen = Seen::Quote { bid: price(last.bid), ask: price(last.ask) };
        Ok(Self { venue: pack.venue.clone(), symbol: pack.symbol.clone(), ts_ns: last.ts.0, seen })
    }
}
impl TryFrom<Tickers> for Tick {
    type Error = Empty;
    fn try_from(pack: Tickers) -> Result<Self, Empty> {
        let last: &TickerUpdate = pack.items.last().ok_or(Empty)?;
        let seen = Seen::Ticker { mark: last.mark, bid: last.bid, ask: last.ask, last: last.last };
        Ok(Self { ts_ns: last.ts_ns, seen, venue: pack.venue, symbol: pack.symbol })
    }
}
impl From<Candle> for Tick {
    /// Of a forming candle only the open has happened for sure.
    fn from(c: Candle) -> Self {
        let (price, ts_ns) = if c.closed_by == ClosedBy::Open { (c.open, c.open_ns) } else { (c.close, c.close_ns) };
        Self { venue: c.venue, symbol: c.symbol, ts_ns, seen: Seen::Candle(price) }
    }
}

#[derive(serde::Deserialize)]
struct LastTrade {
    #[serde(rename = "v")]
    _v: schemas::Version,
    venue: String,
    symbol: String,
    scale: Scale,
    ts_ns: Last<i64>,
    price: Last<i64>,
}

impl LastTrade {
    fn tick(self) -> Result<Tick, WireError> {
        let (Some(ts_ns), Some(price)) = (self.ts_ns.item, self.price.item) else {
            return Err(WireError::invalid("trade pack without trades"));
        };
        even(self.ts_ns.len, &[self.price.len])?;
        Ok(Tick { venue: self.venue, symbol: self.symbol, ts_ns, seen: Seen::Trade(price_of(price, self.scale)?) })
    }
}

#[derive(serde::Deserialize)]
struct LastQuote {
    #[serde(rename = "v")]
    _v: schemas::Version,
    venue: String,
    symbol: String,
    scale: Scale,
    ts_ns: Last<i64>,
    bid: Last<Option<i64>>,
    ask: Last<Option<i64>>,
}

impl LastQuote {
    fn tick(self) -> Result<Tick, WireError> {
        let (Some(ts_ns), Some(bid), Some(ask)) = (self.ts_ns.item, self.bid.item, self.ask.item) else {
            return Err(WireError::invalid("quote pack without quotes"));
        };
        even(self.ts_ns.len, &[self.bid.len, self.ask.len])?;
        let price = |m: Option<i64>| m.map(|m| price_of(m, self.scale)).transpose();
        let seen = Seen::Quote { bid: price(bid)?, ask: price(ask)? };
        Ok(Tick { venue: self.venue, symbol: self.symbol, ts_ns, seen })
    }
}

fn even(len: usize, others: &[usize]) -> Result<(), WireError> {
    if others.iter().all(|other| *other == len) {
        return Ok(());
    }
    Err(WireError::invalid(format_args!("pack with columns of {len} and {others:?} ticks")))
}

fn price_of(mantissa: i64, scale: Scale) -> Result<Price, WireError> {
    if scale.price > schemas::fixed::SCALE_MAX {
        return Err(WireError::invalid(format_args!("price scale {}", scale.price)));
    }
    Ok(PriceM(mantissa).price(scale))
}

/// The last item of an array; the others are decoded and dropped without being kept.
struct Last<T> {
    item: Option<T>,
    len: usize,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Last<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Array<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Array<T> {
            type Value = Last<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Last<T>, A::Error> {
                let mut last = Last { item: None, len: 0 };
                // Where the length is known, all but the last item are skipped unread.
                for _ in 1..seq.size_hint().unwrap_or(0) {
                    if seq.next_element::<IgnoredAny>()?.is_none() {
                        return Ok(last);
                    }
                    last.len += 1;
                }
                while let Some(item) = seq.next_element()? {
                    last.item = Some(item);
                    last.len += 1;
                }
                Ok(last)
            }
        }
        d.deserialize_seq(Array(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::raw::{Quote, Trade};
    use schemas::{Nanos, QtyM, Side};

    proptest! {
        #[test]
        fn reading_past_a_pack_gives_the_same_price_as_unpacking_it(
            ticks in prop::collection::vec((any::<i32>(), 1i64..1_000_000_000, prop::option::of(1i64..1_000_000)), 1..=256),
        ) {
            let scale = Scale { price: 2, qty: 3 };
            let mut trades = Trades::new(3, "binance", "BTCUSDT", scale);
            let mut quotes = Quotes::new(3, "binance", "BTCUSDT", scale);
            for (ts, price, bid) in ticks {
                let ts = Nanos(ts.into());
                trades.push(Trade { ts, recv: ts, id: 1, price: PriceM(price), size: QtyM(1), side: Side::Buy });
                quotes.push(Quote { ts, recv: ts, bid: bid.map(|b| (PriceM(b), QtyM(1))), ask: Some((PriceM(price), QtyM(1))) });
            }
            let heard = In::hear(&trades.subject(), &trades.encode()).unwrap();
            prop_assert_eq!(heard, In::of_raw(&Raw::Trades(trades)));
            let heard = In::hear(&quotes.subject(), &quotes.encode()).unwrap();
            prop_assert_eq!(heard, In::of_raw(&Raw::Quotes(quotes)));
        }
    }

    #[test]
    fn uneven_and_empty_packs_stop_at_the_door() {
        let mut pack = Trades::new(0, "binance", "X", Scale::default());
        assert!(In::hear("raw.0.binance.trade.X", &pack.encode()).is_err());
        pack.push(Trade { ts: Nanos(1), recv: Nanos(1), id: 1, price: PriceM(1), size: QtyM(1), side: Side::Buy });
        assert!(In::hear("raw.0.binance.trade.X", &pack.encode()).is_ok());
        pack.ts_ns.push(2);
        assert!(In::hear("raw.0.binance.trade.X", &pack.encode()).is_err());
        pack.ts_ns.pop();
        pack.scale.price = 29;
        assert!(In::hear("raw.0.binance.trade.X", &pack.encode()).is_err());
    }

    #[test]
    fn our_own_words_and_foreign_kinds_are_passed_over() {
        for subject in [
            "order.main.binance.BTC",
            "state.main",
            "sending.main.binance.BTC",
            "raw.0.binance.book.BTC",
            "$KV.cfg.other.x",
        ] {
            assert!(In::hear(subject, b"\xc1").unwrap().is_none(), "{subject}");
        }
        assert!(In::hear("$KV.cfg.desk.main", b"").unwrap().is_none());
    }

    #[test]
    fn a_signal_on_anothers_subject_is_malformed() {
        let signal = crate::tape::signal("ema", "BTC", schemas::signal::Stance::Long, 0);
        assert!(In::hear(&signal.subject(), &signal.encode()).unwrap().is_some());
        assert!(In::hear("signal.0.other.binance.BTC", &signal.encode()).is_err());
        assert!(In::hear(&signal.subject(), b"not msgpack").is_err());
    }
}
