//! Sizes by rule instead of by risk: a signal becomes one order that moves the position from what it is to what it
//! should be. For research and for comparison with other engines; it asks no limit.

use std::collections::BTreeMap;

use schemas::desk::{Order, OrderKind, order_id};
use schemas::exec::{Done, Fill, Reject};
use schemas::market::{Candle, ClosedBy};
use schemas::raw::{Raw, Trades};
use schemas::signal::{Signal, Stance};
use schemas::{Core, Decimal, Fact, Fault, Listen, Nanos, Notional, Place, Price, Qty, Side, Version, WireError};
use serde::{Deserialize, Serialize};

use crate::options::Sizing;

/// Decimals of a size that comes from a division; rounded toward zero. Fifteen leave room for price, fee and sums
/// within the 28 digits of a decimal.
const SIZE_DIGITS: u32 = 15;

/// What the sizer hears.
#[derive(Clone, PartialEq, Debug)]
pub enum In {
    Signal(Signal),
    /// The open of a candle: where orders decided before it execute.
    Candle(Box<Candle>),
    Trades(Trades),
    Fill(Fill),
    Done(Done),
    Reject(Reject),
}

impl Listen for In {
    fn hear(subject: &str, payload: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(match subject.split('.').next().unwrap_or("") {
            "signal" => Some(Self::Signal(Signal::decode(payload)?.checked(subject)?)),
            "preview" => Some(Self::Candle(Box::new(Candle::decode(payload)?))),
            "fill" => Some(Self::Fill(Fill::decode(payload)?)),
            "done" => Some(Self::Done(Done::decode(payload)?)),
            "reject" => Some(Self::Reject(Reject::decode(payload)?)),
            "raw" => match Raw::hear(subject, payload)? {
                Some(Raw::Trades(trades)) => Some(Self::Trades(trades)),
                _ => None,
            },
            _ => None,
        })
    }
}

schemas::says! {
    /// What the sizer says.
    pub enum Out { Order(Order) }
}

/// Where the price that sizes an order comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// The open of the next candle, which is also where the order executes.
    NextOpen,
    /// The newest trade, at once.
    Now,
}

/// One instrument's position by rule.
pub struct Sizer {
    account: String,
    sizing: Sizing,
    when: When,
    state: State,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct State {
    cash: Notional,
    held: Qty,
    /// Signed size still to be filled, by order id.
    working: BTreeMap<String, Qty>,
    /// The side that was last ordered.
    side: Stance,
    /// A signal that waits for its price.
    waiting: Option<Signal>,
    price: Option<Price>,
    watermark_ns: i64,
}

impl Sizer {
    pub fn new(account: &str, sizing: Sizing, when: When, cash: Decimal) -> Self {
        let state = State {
            cash: Notional::new(cash),
            held: Qty::ZERO,
            working: BTreeMap::new(),
            side: Stance::Flat,
            waiting: None,
            price: None,
            watermark_ns: 0,
        };
        Self { account: account.to_owned(), sizing, when, state }
    }

    /// Signed size for a side, valued at `price` before fees.
    fn target(&self, side: Stance, price: Price) -> Qty {
        let sign = match side {
            Stance::Long => Decimal::ONE,
            Stance::Flat => return Qty::ZERO,
            Stance::Short => Decimal::NEGATIVE_ONE,
        };
        let units = match self.sizing {
            Sizing::Fixed(units) => units,
            Sizing::Equity(share) => {
                let equity = self.state.cash + price * self.state.held;
                let units = (equity * share).checked_qty(price).unwrap_or(Qty::ZERO).get();
                units.max(Decimal::ZERO).trunc_with_scale(SIZE_DIGITS)
            }
        };
        Qty::new(sign * units)
    }

    fn order(&mut self, place: &Place, price: Price, ts_ns: i64, out: &mut Vec<Out>) {
        let Some(signal) = self.state.waiting.take() else { return };
        self.state.side = signal.side;
        let working: Qty = self.state.working.values().copied().sum();
        let change = self.target(signal.side, price) - self.state.held - working;
        if change.is_zero() {
            return;
        }
        let id = order_id(place, 0);
        self.state.working.insert(id.clone(), change);
        out.push(Out::Order(Order {
            v: Version,
            account: self.account.clone(),
            id,
            side: if change.signum() > 0 { Side::Buy } else { Side::Sell },
            kind: OrderKind::Market,
            qty: change.abs(),
            limit: None,
            trigger: None,
            reduce_only: signal.side == Stance::Flat && working.is_zero(),
            post_only: false,
            time_in_force: Default::default(),
            protect: None,
            parent: None,
            ts_ns,
            reason: signal.reason,
            cause: place.cause(0),
            venue: signal.venue,
            symbol: signal.symbol,
            strategies: vec![signal.strategy],
        }));
    }
}

impl Sizer {
    /// The newest trade of a pack; the same as [`Core::handle`] with it, for drivers in the same process.
    pub fn on_trades(&mut self, pack: &Trades) {
        if let (Some(price), Some(ts_ns)) = (pack.price.last(), pack.ts_ns.last()) {
            self.state.price = Some(schemas::PriceM(*price).price(pack.scale));
            self.state.watermark_ns = self.state.watermark_ns.max(*ts_ns);
        }
    }
}

impl Core for Sizer {
    type In = In;
    type Out = Out;
    const CODE_VERSION: u32 = 1;

    fn handle(&mut self, place: &Place, input: In, out: &mut Vec<Out>) -> Result<(), Fault> {
        match input {
            In::Signal(signal) => {
                self.state.watermark_ns = self.state.watermark_ns.max(signal.ts_ns);
                // The same side again changes nothing, also where it took another side back that still waited.
                self.state.waiting = (signal.side != self.state.side).then_some(signal);
                if let (When::Now, Some(price)) = (self.when, self.state.price) {
                    self.order(place, price, self.state.watermark_ns, out);
                }
            }
            In::Candle(candle) if candle.closed_by == ClosedBy::Open && self.when == When::NextOpen => {
                self.state.watermark_ns = candle.open_ns;
                self.order(place, candle.open, candle.open_ns, out);
            }
            In::Candle(_) => {}
            In::Trades(pack) => self.on_trades(&pack),
            In::Fill(fill) => {
                let moved = Qty::new(fill.side.sign() * fill.qty.get());
                self.state.held += moved;
                if let Some(left) = self.state.working.get_mut(&fill.id) {
                    *left -= moved;
                }
                self.state.cash -= fill.price * moved + fill.fee;
            }
            In::Done(done) => {
                self.state.working.remove(&done.id);
            }
            In::Reject(reject) => {
                self.state.working.remove(&reject.id);
            }
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        schemas::wire::encode(&self.state)
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.state = schemas::wire::decode(state)?;
        Ok(())
    }
    fn watermark(&self) -> Option<Nanos> {
        (self.state.watermark_ns > 0).then_some(Nanos(self.state.watermark_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizer(text: &str) -> Sizer {
        Sizer::new("main", text.parse().unwrap(), When::NextOpen, Decimal::from(1_000))
    }

    proptest! {
        #[test]
        fn a_share_of_equity_is_never_more_than_that_share(price in 1i64..1_000_000, share in 1i64..=100) {
            let mut s = sizer("fixed:1");
            let share = Decimal::new(share, 2);
            s.sizing = Sizing::Equity(schemas::Fraction::new(share).unwrap());
            let price = Price::new(Decimal::new(price, 2));
            let worth = (price * s.target(Stance::Long, price)).get();
            prop_assert!(worth <= share * Decimal::from(1_000));
            prop_assert!(share * Decimal::from(1_000) - worth < price.get() * Decimal::new(1, SIZE_DIGITS));
            prop_assert_eq!(s.target(Stance::Short, price), -s.target(Stance::Long, price));
        }
    }

    #[test]
    fn who_lost_everything_orders_nothing() {
        let mut s = sizer("equity:0.5");
        s.state.cash = Notional::new(Decimal::from(-5));
        assert!(s.target(Stance::Long, Price::new(Decimal::ONE)).is_zero());
    }
}
