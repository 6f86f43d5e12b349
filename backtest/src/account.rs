//! What fills come to: cash, position, round trips, equity by bar. Linear instruments: a position is worth price
//! times size in the account's currency.

use schemas::exec::{Fill, Funding};
use schemas::{Decimal, Notional, Price, Qty};

use crate::doubles::Doubles;

/// One way out of flat and back (or through it to the other side).
#[derive(Clone, PartialEq, Debug)]
pub struct Trip {
    /// Long, otherwise short.
    pub long: bool,
    /// The largest size held; positive.
    pub units: Qty,
    pub entry_ns: i64,
    pub exit_ns: i64,
    /// Averages over the fills.
    pub entry_price: Price,
    pub exit_price: Price,
    /// The entry's average in doubles, where sizes are shares of the equity (see [`Doubles`]).
    pub entry_double: Option<f64>,
    /// Fees of both ends, positive is a cost.
    pub fees: Notional,
    /// Behind fees and funding.
    pub net: Notional,
}

/// Equity at the close of one bar, behind all fills inside it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    pub open_ms: i64,
    pub equity: Notional,
    pub in_position: bool,
    /// What the position is worth at the close; negative is short.
    pub exposure: Notional,
}

/// An open position's history.
#[derive(Clone, PartialEq, Debug)]
struct Open {
    long: bool,
    since_ns: i64,
    /// Sizes and money of entries and exits; positive.
    bought: Qty,
    cost: Notional,
    left: Qty,
    exits: Notional,
    fees: Notional,
    funding: Notional,
}

/// Money, position and what became of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    initial: Notional,
    cash: Notional,
    held: Qty,
    open: Option<Open>,
    trips: Vec<Trip>,
    points: Vec<Point>,
    fills: u64,
    traded: Notional,
    doubles: Option<Doubles>,
}

impl Account {
    pub fn new(initial_cash: Decimal) -> Self {
        let cash = Notional::new(initial_cash);
        Self {
            initial: cash,
            cash,
            held: Qty::ZERO,
            open: None,
            trips: Vec::new(),
            points: Vec::new(),
            fills: 0,
            traded: Notional::ZERO,
            doubles: None,
        }
    }
    /// Keeps the trade list's entry prices in doubles as well.
    pub fn with_doubles(mut self, doubles: Doubles) -> Self {
        self.doubles = Some(doubles);
        self
    }
    pub fn initial(&self) -> Notional {
        self.initial
    }
    /// Signed size held.
    pub fn held(&self) -> Qty {
        self.held
    }
    pub fn trips(&self) -> &[Trip] {
        &self.trips
    }
    pub fn points(&self) -> &[Point] {
        &self.points
    }
    pub fn into_parts(self) -> (Vec<Trip>, Vec<Point>) {
        (self.trips, self.points)
    }
    pub fn fills(&self) -> u64 {
        self.fills
    }
    /// Price times size of all fills, both sides; positive.
    pub fn traded(&self) -> Notional {
        self.traded
    }
    /// Trips that closed since the last call.
    pub fn take_trips(&mut self) -> Vec<Trip> {
        std::mem::take(&mut self.trips)
    }
    /// What is held at `price`; negative is short.
    pub fn exposure(&self, price: Price) -> Notional {
        price * self.held
    }
    /// Money and what is held at `price`.
    pub fn worth(&self, price: Price) -> Notional {
        self.cash + self.exposure(price)
    }
    /// What has come of a backtest, for its statistics.
    pub fn settled(initial: Notional, trips: Vec<Trip>, points: Vec<Point>, fills: u64, traded: Notional) -> Self {
        Self { trips, points, fills, traded, ..Self::new(initial.get()) }
    }

    pub fn on_fill(&mut self, fill: &Fill) {
        self.fills += 1;
        self.traded += (fill.price * fill.qty).abs();
        let change = Qty::new(fill.side.sign() * fill.qty.get());
        self.cash -= fill.price * change + fill.fee;
        let before = self.held;
        self.held += change;
        // One fill may close one trip and open the next; its fee is shared by size.
        let closes = if before.signum() * change.signum() < 0 { fill.qty.min(before.abs()) } else { Qty::ZERO };
        let opens = fill.qty - closes;
        let fee_closing =
            if opens.is_zero() { fill.fee } else { Notional::new(fill.fee.get() * closes.get() / fill.qty.get()) };
        let held_after = self.held.signum();
        let entry_double = self.doubles.as_mut().and_then(|doubles| doubles.on_fill(fill, held_after));
        if !closes.is_zero() {
            self.close(fill, closes, fee_closing, entry_double);
        }
        if !opens.is_zero() {
            self.enter(fill, opens, fill.fee - fee_closing);
        }
    }

    fn close(&mut self, fill: &Fill, qty: Qty, fee: Notional, entry_double: Option<f64>) {
        let Some(open) = &mut self.open else { return };
        open.left -= qty;
        open.exits += fill.price * qty;
        open.fees += fee;
        if !open.left.is_zero() {
            return;
        }
        let open = self.open.take().expect("Invariant: it was there a line ago");
        let gross = if open.long { open.exits - open.cost } else { open.cost - open.exits };
        self.trips.push(Trip {
            long: open.long,
            units: open.bought,
            entry_ns: open.since_ns,
            exit_ns: fill.ts_ns,
            entry_price: Price::new(open.cost.get() / open.bought.get()),
            exit_price: Price::new(open.exits.get() / open.bought.get()),
            entry_double,
            fees: open.fees,
            net: gross - open.fees + open.funding,
        });
    }

    fn enter(&mut self, fill: &Fill, qty: Qty, fee: Notional) {
        let long = self.held.signum() > 0;
        let fresh = Open {
            long,
            since_ns: fill.ts_ns,
            bought: Qty::ZERO,
            cost: Notional::ZERO,
            left: Qty::ZERO,
            exits: Notional::ZERO,
            fees: Notional::ZERO,
            funding: Notional::ZERO,
        };
        let open = self.open.get_or_insert(fresh);
        open.bought += qty;
        open.left += qty;
        open.cost += fill.price * qty;
        open.fees += fee;
    }

    pub fn on_funding(&mut self, funding: &Funding) {
        self.cash += funding.amount;
        if let Some(open) = &mut self.open {
            open.funding += funding.amount;
        }
    }

    /// Marks the account at the close of a bar.
    pub fn on_close(&mut self, open_ms: i64, close: Price) {
        let exposure = close * self.held;
        let equity = self.cash + exposure;
        self.points.push(Point { open_ms, equity, in_position: !self.held.is_zero(), exposure });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::exec::Liquidity;
    use schemas::{Cause, Side, Version};

    fn fill(side: Side, qty: i64, price: i64) -> Fill {
        let (qty, price) = (Qty::new(qty.into()), Price::new(price.into()));
        Fill {
            v: Version,
            account: "main".into(),
            id: "o".into(),
            n: 1,
            venue: "v".into(),
            symbol: "s".into(),
            side,
            price,
            qty,
            fee: Notional::new((price * qty).get() * Decimal::new(1, 3)),
            liquidity: Liquidity::Taker,
            reduce_only: false,
            left: Qty::ZERO,
            why: String::new(),
            ts_ns: 7,
            cause: Cause::default(),
        }
    }

    #[test]
    fn a_fill_through_zero_closes_one_trip_and_opens_the_next_with_its_share_of_the_fee() {
        let mut account = Account::new(Decimal::from(1_000));
        account.on_fill(&fill(Side::Buy, 1, 100));
        account.on_fill(&fill(Side::Sell, 3, 110));
        let [trip] = account.trips() else { panic!("one trip") };
        assert_eq!((trip.long, trip.net.to_string().as_str(), trip.fees.to_string().as_str()), (true, "9.79", "0.21"));
        account.on_fill(&fill(Side::Buy, 2, 105));
        assert_eq!(account.trips()[1].net.to_string(), "9.57");
        account.on_close(0, Price::new(1.into()));
        assert_eq!(account.points()[0].equity.to_string(), "1019.36");
    }

    proptest! {
        #[test]
        fn cash_is_what_the_trips_made_whenever_the_account_is_flat(fills in prop::collection::vec((any::<bool>(), 1i64..9, 50i64..150), 1..40)) {
            let mut account = Account::new(Decimal::from(1_000));
            for (buy, qty, price) in fills {
                account.on_fill(&fill(if buy { Side::Buy } else { Side::Sell }, qty, price));
            }
            let held = account.held();
            if !held.is_zero() {
                account.on_fill(&fill(if held.signum() > 0 { Side::Sell } else { Side::Buy }, i64::try_from(held.abs().get()).unwrap(), 99));
            }
            let made: Notional = account.trips().iter().map(|t| t.net).sum();
            let off = (account.cash - account.initial() - made).abs();
            prop_assert!(off.get() < Decimal::new(1, 15), "{off}");
        }
    }
}
