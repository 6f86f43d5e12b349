//! What a backtest's fills come to over all of its instruments: one account each, and the equity of them all.

use std::collections::BTreeMap;

use aggregate::core::Out as Market;
use executor::Out as Exec;
use schemas::{Decimal, Notional, Price, Timeframe};

use crate::account::{Account, Point, Trip};
use crate::fact::{Entry, Typed};
use crate::metrics::Stats;
use crate::report::Report;

/// Equity points kept; beyond it every second one goes and bars count double. A year of minutes is 525,600.
const POINTS_MAX: usize = 1 << 20;

/// Venue and symbol.
pub type Key = (String, String);

/// See the module. Linear instruments, as [`Account`].
pub struct Portfolio {
    initial: Notional,
    /// Candles whose closes mark the account, and how many of them one point stands for.
    timeframe: Timeframe,
    bars_a_point: u64,
    bars: u64,
    tf: String,
    accounts: BTreeMap<Key, Marked>,
    /// Sum of what the accounts are worth.
    worth: Notional,
    /// Sum of what they hold, shorts negative.
    exposure: Notional,
    /// Price times size of all fills.
    traded: Notional,
    trips: Vec<(Key, Trip)>,
    points: Vec<Point>,
    /// The open bar's point; it takes its place when a later bar closes.
    newest: Option<Point>,
    kinds: BTreeMap<&'static str, u64>,
    /// By limit.
    refusals: BTreeMap<String, u64>,
    fills: u64,
}

struct Marked {
    account: Account,
    price: Price,
    worth: Notional,
    exposure: Notional,
}

impl Portfolio {
    pub fn new(initial_cash: Decimal, timeframe: Timeframe) -> Self {
        Self {
            initial: Notional::new(initial_cash),
            timeframe,
            bars_a_point: 1,
            bars: 0,
            tf: timeframe.to_string(),
            accounts: BTreeMap::new(),
            worth: Notional::ZERO,
            exposure: Notional::ZERO,
            traded: Notional::ZERO,
            trips: Vec::new(),
            points: Vec::new(),
            newest: None,
            kinds: BTreeMap::new(),
            refusals: BTreeMap::new(),
            fills: 0,
        }
    }

    /// Hears every fact of the backtest in its order.
    pub fn see(&mut self, entry: &Entry) {
        *self.kinds.entry(entry.fact.kind()).or_insert(0) += 1;
        match &entry.fact {
            Typed::Exec(Exec::Fill(fill)) => {
                self.fills += 1;
                let key = (fill.venue.clone(), fill.symbol.clone());
                let marked = self.accounts.entry(key.clone()).or_insert_with(|| Marked {
                    account: Account::new(Decimal::ZERO),
                    price: fill.price,
                    worth: Notional::ZERO,
                    exposure: Notional::ZERO,
                });
                marked.account.on_fill(fill);
                self.trips.extend(marked.account.take_trips().into_iter().map(|trip| (key.clone(), trip)));
                self.traded += (fill.price * fill.qty).abs();
                marked.revalue(&mut self.worth, &mut self.exposure);
            }
            Typed::Exec(Exec::Funding(funding)) => {
                if let Some(marked) = self.accounts.get_mut(&(funding.venue.clone(), funding.symbol.clone())) {
                    marked.account.on_funding(funding);
                    marked.revalue(&mut self.worth, &mut self.exposure);
                }
            }
            Typed::Risk(risk::Out::Refusal(refusal)) => {
                *self.refusals.entry(refusal.limit.clone()).or_insert(0) += 1;
            }
            Typed::Market(Market::Candle(candle)) if candle.tf == self.tf => {
                if let Some(marked) = self.accounts.get_mut(&(candle.venue.clone(), candle.symbol.clone())) {
                    marked.price = candle.close;
                    marked.revalue(&mut self.worth, &mut self.exposure);
                }
                self.mark(candle.open_time().as_ms());
            }
            _ => {}
        }
    }

    /// A bar closed: its point is what all instruments are worth once the last of them has closed it.
    fn mark(&mut self, open_ms: i64) {
        let (equity, exposure) = (self.initial + self.worth, self.exposure);
        let in_position = self.accounts.values().any(|marked| !marked.account.held().is_zero());
        match &mut self.newest {
            Some(point) if open_ms <= point.open_ms => {
                (point.equity, point.in_position, point.exposure) = (equity, in_position, exposure);
            }
            newest => {
                if let Some(done) = newest.replace(Point { open_ms, equity, in_position, exposure }) {
                    self.keep(done);
                }
            }
        }
    }

    fn keep(&mut self, point: Point) {
        self.bars += 1;
        if !self.bars.is_multiple_of(self.bars_a_point) {
            return;
        }
        if self.points.len() == POINTS_MAX {
            let mut n = 0;
            self.points.retain(|_| {
                n += 1;
                n % 2 == 0
            });
            self.bars_a_point *= 2;
            if !self.bars.is_multiple_of(self.bars_a_point) {
                return;
            }
        }
        self.points.push(point);
    }

    pub fn fills(&self) -> u64 {
        self.fills
    }
    /// Closed round trips with their instruments, in the order of their exits.
    pub fn trips(&self) -> &[(Key, Trip)] {
        &self.trips
    }
    /// Instruments that were traded, and their accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&Key, &Account)> {
        self.accounts.iter().map(|(key, marked)| (key, &marked.account))
    }
    /// How many facts of a kind were seen.
    pub fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// Everything in one report; `facts` and `hash` are the engine's.
    pub fn report(mut self, facts: u64, hash: String) -> anyhow::Result<Report> {
        if let Some(last) = self.newest.take() {
            // The last bar counts whatever was thinned out before it.
            self.points.push(last);
        }
        let length = format!("{}s", u64::from(self.timeframe.seconds()) * self.bars_a_point);
        let timeframe = length.parse().unwrap_or(self.timeframe);
        let (markets, trips) = self.trips.into_iter().unzip();
        let account = Account::settled(self.initial, trips, self.points, self.fills, self.traded);
        let stats = Stats::of(&account, timeframe);
        let (trips, equity) = account.into_parts();
        let kinds = self.kinds.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect();
        Ok(Report { trips, markets, equity, stats, facts, hash, kinds, refusals: self.refusals })
    }
}

impl Marked {
    /// Puts what has changed into the sums.
    fn revalue(&mut self, worth: &mut Notional, exposure: &mut Notional) {
        let (now, held) = (self.account.worth(self.price), self.account.exposure(self.price));
        *worth += now - self.worth;
        *exposure += held - self.exposure;
        (self.worth, self.exposure) = (now, held);
    }
}
