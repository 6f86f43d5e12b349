//! What we hold of one instrument, and what it has earned.
//!
//! All money is in the account's currency (USD, which also stands for the dollar coins that instruments are quoted
//! in). A contract is counted in *coins*: a linear one of size `q` is `q * multiplier` coins, an inverse one, whose
//! size is dollars, is `q * multiplier / price` coins when it is opened (rounded to 14 digits) and gives them back
//! in proportion when it is closed. From there both are the same: coins were paid for, coins are worth the mark.
//! For an inverse contract this is its profit in the coin, turned into dollars at the price of the closing fill,
//! and at the mark while it is open.
//!
//! ```text
//! flow       = - sum of (coins got * price)            what fills paid out or in
//! cost       = what the coins still held were paid with
//! realised   = flow + cost
//! unrealised = coins * mark - cost
//! ```
//!
//! * Invariant R-1: `held` moves in [`Position::apply_fill`] and nowhere else. An order is not a position.
//! * Invariant R-2: a fill moves nothing out of the world: `flow + coins * price` at the fill's own price is the
//!   same before and behind it, exactly.
//! * Invariant R-3: a fill in parts, at one price, leaves the position that the whole fill leaves (linear: equal;
//!   inverse: up to the 14th digit of a coin).
//! * Invariant R-4: a flat position has no coins, no cost and no entry; its realised is its flow.

use rust_decimal::Decimal;
use schemas::exec::{Fill, Funding};
use schemas::instrument::SizeUnit;
use schemas::{Instrument, Notional, Price, Qty, Side};
use serde::{Deserialize, Serialize};

/// Digits that a division keeps behind the point: money, and coins of inverse contracts.
const MONEY_DIGITS: u32 = 12;
const COIN_DIGITS: u32 = 14;

/// What one unit of an instrument's size is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contract {
    /// The size is dollars (times `multiplier`), the profit is coins.
    inverse: bool,
    multiplier: Decimal,
}

impl Default for Contract {
    /// One unit is one coin.
    fn default() -> Self {
        Self { inverse: false, multiplier: Decimal::ONE }
    }
}

impl Contract {
    pub fn of(instrument: &Instrument) -> Self {
        match (instrument.size_unit, instrument.inverse) {
            (SizeUnit::Base, _) => Self::default(),
            (SizeUnit::QuoteUsd, _) => Self { inverse: true, multiplier: Decimal::ONE },
            (SizeUnit::Contracts, inverse) => Self { inverse, multiplier: instrument.contract_size.get() },
        }
    }
    /// What `qty` is worth at `price`; signed like `qty`. An inverse contract's worth is its size in dollars.
    pub fn notional(&self, qty: Qty, price: Price) -> Notional {
        let units = qty.get() * self.multiplier;
        Notional::new(if self.inverse { units } else { units * price.get() })
    }
    /// How much of it `money` is worth at `price`, signed like `money`; `None` at price zero.
    pub fn qty(&self, money: Notional, price: Price) -> Option<Qty> {
        let unit = self.notional(Qty::new(Decimal::ONE), price);
        money.get().checked_div(unit.get()).map(Qty::new)
    }
    fn coins(&self, qty: Qty, price: Price) -> Decimal {
        let units = qty.get() * self.multiplier;
        if !self.inverse || price.is_zero() { units } else { (units / price.get()).round_dp(COIN_DIGITS) }
    }
}

/// What was held when the position last grew. What is left of it later is a share of this, so that closing in parts
/// rounds once and not once a part.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Base {
    held: Qty,
    coins: Decimal,
    cost: Decimal,
}

/// One instrument's position of one account. See the module for its invariants.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    contract: Contract,
    held: Qty,
    base: Base,
    flow: Notional,
    fees: Notional,
    funding: Notional,
    /// The trade that is open now.
    since_ns: Option<i64>,
    result_before: Notional,
    notional_max: Notional,
}

/// A position that went from flat to flat (or through it).
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedTrade {
    pub since_ns: i64,
    pub until_ns: i64,
    /// Net of fees and with funding; positive is a gain.
    pub result: Notional,
    /// The most that was paid for it at once; positive.
    pub notional: Notional,
}

/// What a fill did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Moved {
    /// The money that it moved: cash changes by this (fee included).
    pub cash: Notional,
    pub closed: Option<ClosedTrade>,
    /// A position was opened from flat or through it.
    pub opened: bool,
}

impl Position {
    /// Signed: long positive, short negative.
    pub fn held(&self) -> Qty {
        self.held
    }
    pub fn is_flat(&self) -> bool {
        self.held.is_zero()
    }
    /// What the open position is counted by; of the last one while flat.
    pub fn contract(&self) -> Contract {
        self.contract
    }
    /// Event time at which the position left flat.
    pub fn since_ns(&self) -> Option<i64> {
        self.since_ns
    }
    /// Paid since the start; positive is a cost.
    pub fn fees(&self) -> Notional {
        self.fees
    }
    /// Received since the start; negative was paid.
    pub fn funding(&self) -> Notional {
        self.funding
    }
    /// Average entry price; `None` when flat.
    pub fn entry(&self) -> Option<Price> {
        let coins = self.coins();
        (!coins.is_zero()).then(|| Price::new((self.cost() / coins).round_dp(MONEY_DIGITS)))
    }
    /// Since the start, fees and funding not included.
    pub fn realised(&self) -> Notional {
        self.flow + Notional::new(self.cost())
    }
    /// What was not realised yet at `mark`.
    pub fn unrealised(&self, mark: Price) -> Notional {
        self.worth(mark) - Notional::new(self.cost())
    }
    /// What is held, at `mark`: what selling it there would bring.
    pub fn worth(&self, mark: Price) -> Notional {
        Notional::new(self.coins() * mark.get())
    }

    /// The venue says that it happened. `contract` is looked at when the position leaves flat only.
    pub fn apply_fill(&mut self, fill: &Fill, contract: Contract) -> Moved {
        let before = self.flow;
        let delta = match fill.side {
            Side::Buy => fill.qty,
            Side::Sell => -fill.qty,
        };
        let mut moved = Moved::default();
        let closes = if self.held.signum() * delta.signum() < 0 { self.held.abs().min(fill.qty) } else { Qty::ZERO };
        let mut fee = fill.fee;
        if !closes.is_zero() {
            let part = if closes == fill.qty {
                fee.get()
            } else {
                (fee.get() * closes.get() / fill.qty.get()).round_dp(MONEY_DIGITS)
            };
            let part = Notional::new(part);
            fee -= part;
            self.fees += part;
            self.shrink(if delta.signum() > 0 { closes } else { -closes }, fill.price);
            moved.closed = self.close_trade(fill.ts_ns);
        }
        let opens = if delta.signum() > 0 { delta - closes } else { delta + closes };
        if !opens.is_zero() {
            if self.is_flat() {
                self.contract = contract;
                self.since_ns = Some(fill.ts_ns);
                self.result_before = self.result();
                self.notional_max = Notional::ZERO;
                moved.opened = true;
            }
            self.fees += fee;
            self.grow(opens, fill.price);
        } else {
            self.fees += fee;
        }
        moved.cash = self.flow - before - fill.fee;
        moved
    }

    /// The payment moves money, never the size.
    pub fn apply_funding(&mut self, funding: &Funding) {
        self.funding += funding.amount;
    }

    fn grow(&mut self, delta: Qty, price: Price) {
        let coins = self.contract.coins(delta, price);
        let paid = coins * price.get();
        self.base = Base { held: self.held + delta, coins: self.coins() + coins, cost: self.cost() + paid };
        self.held += delta;
        self.flow -= Notional::new(paid);
        self.notional_max = self.notional_max.max(Notional::new(self.base.cost.abs()));
    }

    fn shrink(&mut self, delta: Qty, price: Price) {
        let before = self.coins();
        self.held += delta;
        self.flow += Notional::new((before - self.coins()) * price.get());
        if self.held.is_zero() {
            self.base = Base::default();
        }
    }

    fn close_trade(&mut self, ts_ns: i64) -> Option<ClosedTrade> {
        if !self.is_flat() {
            return None;
        }
        let since_ns = self.since_ns.take()?;
        Some(ClosedTrade {
            since_ns,
            until_ns: ts_ns,
            result: self.result() - self.result_before,
            notional: self.notional_max,
        })
    }

    /// Everything earned so far; meaningful while flat.
    fn result(&self) -> Notional {
        self.flow - self.fees + self.funding
    }
    fn coins(&self) -> Decimal {
        match self.contract.inverse {
            false => self.held.get() * self.contract.multiplier,
            true => self.share(self.base.coins).round_dp(COIN_DIGITS),
        }
    }
    fn cost(&self) -> Decimal {
        if self.held == self.base.held { self.base.cost } else { self.share(self.base.cost).round_dp(MONEY_DIGITS) }
    }
    fn share(&self, whole: Decimal) -> Decimal {
        if self.held == self.base.held {
            whole
        } else if self.base.held.is_zero() {
            Decimal::ZERO
        } else {
            whole * self.held.get() / self.base.held.get()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::exec::Liquidity;
    use schemas::{Cause, Version};

    const LINEAR: Contract = Contract { inverse: false, multiplier: Decimal::ONE };
    const INVERSE: Contract = Contract { inverse: true, multiplier: Decimal::TEN };

    fn fill(side: Side, qty: Decimal, price: Decimal, fee: Decimal) -> Fill {
        Fill {
            v: Version,
            account: "main".into(),
            id: "o".into(),
            n: 1,
            venue: "deribit".into(),
            symbol: "BTC".into(),
            side,
            price: Price::new(price),
            qty: Qty::new(qty),
            fee: Notional::new(fee),
            liquidity: Liquidity::Taker,
            reduce_only: false,
            left: Qty::ZERO,
            why: String::new(),
            ts_ns: 5,
            cause: Cause::default(),
        }
    }
    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }
    fn trade(position: &mut Position, contract: Contract, text: &str) -> Moved {
        let mut words = text.split(' ');
        let side = if words.next() == Some("buy") { Side::Buy } else { Side::Sell };
        let (qty, price) = (d(words.next().unwrap()), d(words.next().unwrap()));
        position.apply_fill(&fill(side, qty, price, words.next().map_or(Decimal::ZERO, d)), contract)
    }

    #[test]
    fn a_long_that_is_closed_in_two_parts_realises_each_at_its_price() {
        let mut p = Position::default();
        trade(&mut p, LINEAR, "buy 1 100");
        trade(&mut p, LINEAR, "buy 2 103");
        assert_eq!(p.entry().unwrap().to_string(), "102");
        trade(&mut p, LINEAR, "sell 1 110");
        assert_eq!((p.realised().to_string().as_str(), p.entry().unwrap().to_string().as_str()), ("8", "102"));
        let moved = trade(&mut p, LINEAR, "sell 2 99 0.5");
        assert_eq!((p.realised().to_string(), p.entry(), p.is_flat()), ("2".into(), None, true));
        assert_eq!(moved.closed.unwrap().result.to_string(), "1.5");
    }

    #[test]
    fn a_flip_closes_the_old_trade_and_opens_the_new_one_at_the_fills_price() {
        let mut p = Position::default();
        trade(&mut p, LINEAR, "buy 1 100");
        let moved = trade(&mut p, LINEAR, "sell 3 110 0.3");
        let closed = moved.closed.unwrap();
        assert_eq!((closed.result.to_string().as_str(), closed.notional.to_string().as_str()), ("9.9", "100"));
        assert!(moved.opened);
        assert_eq!((p.held().to_string().as_str(), p.entry().unwrap().to_string().as_str()), ("-2", "110"));
        assert_eq!((p.realised().to_string().as_str(), p.fees().to_string().as_str()), ("10", "0.3"));
        assert_eq!(p.unrealised(Price::new(d("100"))).to_string(), "20");
    }

    #[test]
    fn an_inverse_long_earns_coins_that_are_dollars_at_the_closing_price() {
        // 100 contracts of 10 dollars at 50 000 are 0.02 coins; at 62 500 the 1 000 dollars are 0.016 coins, so 0.004
        // coins are gained, which are 250 dollars there.
        let mut p = Position::default();
        trade(&mut p, INVERSE, "buy 100 50000");
        assert_eq!(p.entry().unwrap().to_string(), "50000");
        assert_eq!(p.unrealised(Price::new(d("62500"))).to_string(), "250");
        trade(&mut p, INVERSE, "sell 50 62500");
        assert_eq!(p.realised().to_string(), "125");
        trade(&mut p, INVERSE, "sell 50 62500");
        assert_eq!((p.realised().to_string().as_str(), p.is_flat()), ("250", true));
    }

    #[test]
    fn an_inverse_positions_worth_is_its_size_in_dollars_at_every_price() {
        for price in ["1", "60000.5"] {
            assert_eq!(INVERSE.notional(Qty::new(d("-7")), Price::new(d(price))).to_string(), "-70");
        }
        assert_eq!(INVERSE.qty(Notional::new(d("70")), Price::new(d("123"))).unwrap().to_string(), "7");
    }

    #[test]
    fn funding_moves_money_and_never_the_size() {
        let mut p = Position::default();
        trade(&mut p, LINEAR, "buy 1 100");
        p.apply_funding(&Funding {
            v: Version,
            account: "main".into(),
            venue: "v".into(),
            symbol: "s".into(),
            held: p.held(),
            mark: Price::new(d("100")),
            rate: Price::new(d("0.01")),
            amount: Notional::new(d("-1")),
            ts_ns: 9,
            cause: Cause::default(),
        });
        assert_eq!((p.held().to_string().as_str(), p.funding().to_string().as_str()), ("1", "-1"));
        assert_eq!(trade(&mut p, LINEAR, "sell 1 100").closed.unwrap().result.to_string(), "-1");
    }

    type Traded = (bool, i64, i64, i64);
    fn tape() -> impl Strategy<Value = Vec<Traded>> {
        prop::collection::vec((any::<bool>(), 1i64..5_000, 100i64..2_000_000, -50i64..500), 1..40)
    }
    fn fill_of(t: &Traded) -> Fill {
        let side = if t.0 { Side::Buy } else { Side::Sell };
        fill(side, Decimal::new(t.1, 3), Decimal::new(t.2, 2), Decimal::new(t.3, 4))
    }

    proptest! {
        /// R-1, R-2, R-4.
        #[test]
        fn cash_and_the_positions_worth_are_conserved_by_every_fill(tape in tape(), inverse in any::<bool>()) {
            let contract = if inverse { INVERSE } else { LINEAR };
            let mut p = Position::default();
            let mut cash = Notional::ZERO;
            let mut held = Qty::ZERO;
            for t in &tape {
                let fill = fill_of(t);
                let before = cash + p.worth(fill.price);
                let realised_before = p.realised() + p.unrealised(fill.price);
                cash += p.apply_fill(&fill, contract).cash;
                held += Qty::new(fill.side.sign() * fill.qty.get());
                prop_assert_eq!(cash + p.worth(fill.price), before - fill.fee);
                prop_assert_eq!(p.realised() + p.unrealised(fill.price), realised_before);
                prop_assert_eq!(p.held(), held);
                prop_assert_eq!(p.entry().is_none(), held.is_zero());
                prop_assert_eq!(p.since_ns().is_none(), held.is_zero());
                if held.is_zero() {
                    prop_assert!(p.worth(fill.price).is_zero());
                }
            }
        }

        /// R-3.
        #[test]
        fn any_split_of_a_fill_gives_the_same_position(tape in tape(), cuts in prop::collection::vec(1i64..100, 40)) {
            let (mut whole, mut parts) = (Position::default(), Position::default());
            for (t, cut) in tape.iter().zip(&cuts) {
                let whole_fill = fill_of(t);
                whole.apply_fill(&whole_fill, LINEAR);
                let first = t.1 * cut / 100;
                // The whole fee comes with the second part.
                for (size, fee) in [(first, 0), (t.1 - first, t.3)].into_iter().filter(|part| part.0 > 0) {
                    parts.apply_fill(&fill_of(&(t.0, size, t.2, fee)), LINEAR);
                }
                prop_assert_eq!(whole.held(), parts.held());
                prop_assert_eq!(whole.entry(), parts.entry());
                prop_assert_eq!(whole.realised(), parts.realised());
                prop_assert_eq!(whole.fees(), parts.fees());
            }
        }

        #[test]
        fn an_inverse_fill_in_parts_differs_by_less_than_a_millionth_of_a_cent(tape in tape(), cuts in prop::collection::vec(1i64..100, 40)) {
            let (mut whole, mut parts) = (Position::default(), Position::default());
            for (t, cut) in tape.iter().zip(&cuts) {
                whole.apply_fill(&fill_of(t), INVERSE);
                let first = t.1 * cut / 100;
                for size in [first, t.1 - first].into_iter().filter(|s| *s > 0) {
                    parts.apply_fill(&fill_of(&(t.0, size, t.2, 0)), INVERSE);
                }
                prop_assert_eq!(whole.held(), parts.held());
                prop_assert!((whole.realised() - parts.realised()).abs().get() < Decimal::new(1, 8));
            }
        }

        #[test]
        fn a_saved_position_goes_on_as_the_one_that_was_not(tape in tape(), at in 0usize..40) {
            let mut p = Position::default();
            let mut q = Position::default();
            for (i, t) in tape.iter().enumerate() {
                if i == at {
                    q = schemas::wire::decode(&schemas::wire::encode(&q)).unwrap();
                }
                prop_assert_eq!(p.apply_fill(&fill_of(t), INVERSE), q.apply_fill(&fill_of(t), INVERSE));
                prop_assert_eq!(&p, &q);
            }
        }
    }
}
