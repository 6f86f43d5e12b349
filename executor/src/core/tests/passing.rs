//! Trades that can matter to nobody are passed over; what is said is what it would be if each had been told.

use proptest::prelude::*;
use schemas::desk::{Cancel, Order};
use schemas::raw::{Trade, Trades};
use schemas::{Core, Fraction, Instrument, Nanos, Place, PriceM, Qty, QtyM, Side, WireError};

use super::with;
use crate::config::Config;
use crate::core::{ExecutorCore, In, Out};
use crate::engine::Engine;
use crate::tape::{Tape, VENUE, config, instrument, order};
use crate::venue::{ExecVenue, Report, Tick};

/// The engine without its word on which trades matter.
struct EveryTrade(Engine);

impl ExecVenue for EveryTrade {
    fn instrument(&mut self, instrument: &Instrument) {
        self.0.instrument(instrument);
    }
    fn admits(&self, order: &Order) -> Result<(), (&'static str, String)> {
        self.0.admits(order)
    }
    fn place(&mut self, order: &Order, held: Qty, out: &mut Vec<Report>) {
        self.0.place(order, held, out);
    }
    fn cancel(&mut self, order: &Order, ts_ns: i64, reason: &str, out: &mut Vec<Report>) {
        self.0.cancel(order, ts_ns, reason, out);
    }
    fn watches(&self, venue: &str, symbol: &str, held: Qty) -> bool {
        self.0.watches(venue, symbol, held)
    }
    fn tick(&mut self, venue: &str, symbol: &str, ts_ns: i64, tick: Tick<'_>, held: Qty, out: &mut Vec<Report>) {
        self.0.tick(venue, symbol, ts_ns, tick, held, out);
    }
    fn waiting(&self, venue: &str) -> Vec<String> {
        self.0.waiting(venue)
    }
    fn save(&self) -> Vec<u8> {
        self.0.save()
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), WireError> {
        self.0.restore(state)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Milliseconds since the trade before (also back), cents, size, the taker bought.
    Pack(Vec<(i64, i64, i64, bool)>),
    Text(&'static str),
    Cancel(u64),
}

const TEXTS: &[&str] = &[
    "order buy 2 BTC",
    "order sell 2 BTC",
    "order sell 3 BTC reduce",
    "order buy 3 BTC reduce",
    "order buy 2 BTC stop=97 take=103",
    "order sell 2 BTC stop=103 take=97",
    "order buy 2 BTC limit=99",
    "order sell 2 BTC limit=101 post",
    "order buy 5 BTC limit=101 ioc",
    "order sell 5 BTC limit=99 fok",
    "order buy 1 BTC trigger=102 kind=stop",
    "order sell 1 BTC trigger=98 kind=stop",
    "order buy 2 BTC limit=98 reduce",
    "quote 99.5x3 100.5x2",
    "quote 98x3 99x2",
    "quote 101x3 102x2",
    "book asks=101x1,102x5 bids=99x1,98x2",
    "update asks=101x0",
    "ticker mark=100 rate=0.0001 next=60",
    "ticker mark=97",
    "clock",
    "state reducing",
    "state active",
];

fn step() -> impl Strategy<Value = Step> {
    let trade = (-200i64..2_000, 9_500i64..10_500, 1i64..4_000, any::<bool>());
    prop_oneof![
        4 => prop::collection::vec(trade, 1..40).prop_map(Step::Pack),
        6 => prop::sample::select(TEXTS).prop_map(Step::Text),
        1 => (1u64..12).prop_map(Step::Cancel),
    ]
}

fn play(core: &mut ExecutorCore, steps: &[Step]) -> (Vec<Out>, Vec<u8>) {
    // The tape only reads texts here; its own core hears nothing.
    let mut reader = Tape::new(&config("book"));
    let mut out = Vec::new();
    let (mut now_ns, mut id, mut orders) = (0i64, 0u64, 0u64);
    core.handle(&Place::new("DESK_main", 1), In::Instrument(instrument()), &mut out).unwrap();
    for (seq, step) in (2..).zip(steps) {
        let input = match step {
            Step::Pack(trades) => {
                let mut pack = Trades::new(3, VENUE, "BTC", instrument().scale);
                for (ms, cents, size, buy) in trades {
                    now_ns += ms * Nanos::PER_MS;
                    id += 1;
                    let side = if *buy { Side::Buy } else { Side::Sell };
                    let (ts, price, size) = (Nanos(now_ns), PriceM(*cents), QtyM(*size));
                    pack.push(Trade { ts, recv: ts, id, price, size, side });
                }
                In::Trades(pack)
            }
            Step::Text(text) => match text.strip_prefix("order ") {
                Some(text) => {
                    orders += 1;
                    In::Order(Box::new(Order { id: format!("o{orders}"), ts_ns: now_ns, ..order(text) }))
                }
                None => reader.play(&format!("clock @{}", now_ns / Nanos::PER_SECOND)).input(text),
            },
            Step::Cancel(n) => In::Cancel(Cancel {
                v: schemas::Version,
                account: "main".into(),
                id: format!("o{n}"),
                venue: VENUE.into(),
                symbol: "BTC".into(),
                ts_ns: now_ns,
                reason: "asked".into(),
                cause: Default::default(),
            }),
        };
        core.handle(&Place::new("DESK_main", seq), input, &mut out).unwrap();
    }
    (out, core.save())
}

fn variant(model: &str, latency_ms: i64, margin: bool, partial: bool) -> Config {
    with(model, |c| {
        c.fill.latency_ns = latency_ms * Nanos::PER_MS;
        c.fill.partial_by_trade_size = partial;
        c.liquidation.on = margin;
        c.liquidation.initial_share = Fraction::new("0.03".parse().unwrap()).unwrap();
        c.liquidation.maintenance_share = Fraction::new("0.01".parse().unwrap()).unwrap();
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn passing_over_trades_that_matter_to_nobody_changes_nothing(
        steps in prop::collection::vec(step(), 1..40),
        book in any::<bool>(), slow in any::<bool>(), margin in any::<bool>(), partial in any::<bool>(),
    ) {
        let config = variant(if book { "book" } else { "next_trade" }, if slow { 700 } else { 0 }, margin, partial);
        let mut passing = ExecutorCore::new("main", &config);
        let mut telling = ExecutorCore::at_venue("main", &config, Box::new(EveryTrade(Engine::new(&config))));
        let (said, state) = play(&mut passing, &steps);
        let (told, told_state) = play(&mut telling, &steps);
        prop_assert_eq!(said, told);
        prop_assert_eq!(state, told_state);
    }
}
