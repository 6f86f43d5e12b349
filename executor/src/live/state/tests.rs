//! A model of the venue, a world that loses and delays, and a caller that dies anywhere.

use super::*;
use crate::config::Config;
use crate::tape::{VENUE, order};
use proptest::prelude::*;
use schemas::desk::{Order, OrderKind};
use schemas::exec::Liquidity;
use schemas::{Notional, Price};

const MS: i64 = Nanos::PER_MS;
const WINDOW_MS: i64 = 300;
const TIMEOUT_MS: i64 = 100;
/// The venue's clock less ours.
const AHEAD_MS: i64 = -7_000;
/// The longest way of a request or a reply that comes in time; the estimate of the clock is off by less.
const WAY_MS_MAX: i64 = 40;

fn rules() -> LiveConfig {
    LiveConfig {
        fresh_ms: 4_000,
        attempts_max: 4,
        recv_window_ms: WINDOW_MS as u32,
        settle_ms: 60,
        poll_ms: 200,
        backoff_ms_min: 20,
        backoff_ms_max: 500,
        clock_ms_max: 2_000,
        ..Config::load(None).unwrap().live
    }
}

struct Booked {
    order: Order,
    trades: Vec<Trade>,
    status: Status,
}

/// A venue that takes any order which arrives in its window, and, like the real one, an id that is open no more again.
#[derive(Default)]
struct Model {
    booked: Vec<Booked>,
    /// Orders on their way: arrival by our clock, order, timestamp.
    on_the_way: Vec<(i64, Order, i64)>,
}

impl Model {
    fn place(&mut self, order: &Order, timestamp_ms: i64, at_ms: i64) -> Answer {
        if at_ms + AHEAD_MS > timestamp_ms + WINDOW_MS {
            return Answer::Late;
        }
        if self.booked.iter().any(|b| b.order.id == order.id && b.status == Status::Open) {
            return Answer::Duplicate;
        }
        // What becomes of it follows from its name.
        if order.reason == "refused" {
            return Answer::Refused { code: "-2019".into(), reason: "margin".into() };
        }
        let n = self.booked.len();
        let whole = order.kind == OrderKind::Market;
        let parts: &[&str] = if whole { &["1.5", "0.5"] } else { &["0.5"] };
        let trade = |(i, qty): (usize, &&str)| Trade {
            id: (10 * n + i).to_string(),
            venue_order_id: n.to_string(),
            price: Price::new(100.into()),
            qty: qty.parse().unwrap(),
            fee: Notional::ZERO,
            fee_asset: "USDT".into(),
            liquidity: Liquidity::Taker,
            ts_ms: at_ms + AHEAD_MS,
        };
        let trades = parts.iter().enumerate().map(trade).collect();
        let status = if whole { Status::Filled } else { Status::Open };
        self.booked.push(Booked { order: order.clone(), trades, status });
        self.view(n)
    }
    fn view(&self, n: usize) -> Answer {
        let Booked { order, trades, status } = &self.booked[n];
        Answer::Order(View {
            venue_order_id: n.to_string(),
            symbol: order.symbol.clone(),
            side: order.side,
            qty: order.qty,
            filled: trades.iter().map(|t| t.qty).sum(),
            status: *status,
            updated_ms: 5,
        })
    }
    fn find(&self, id: &str) -> Option<usize> {
        self.booked.iter().rposition(|b| b.order.id == id)
    }
    fn hear(&mut self, ask: &Ask, at_ms: i64) -> Answer {
        match ask {
            Ask::Time => Answer::Time { server_ms: at_ms + AHEAD_MS },
            Ask::Place { order, timestamp_ms } => self.place(order, *timestamp_ms, at_ms),
            Ask::Query { id, .. } => self.find(id).map_or(Answer::Unknown, |n| self.view(n)),
            Ask::Cancel { id, .. } => match self.find(id).filter(|n| self.booked[*n].status == Status::Open) {
                None => Answer::Unknown,
                Some(n) => {
                    self.booked[n].status = Status::Cancelled;
                    self.view(n)
                }
            },
            Ask::Trades { venue_order_id, .. } => {
                Answer::Trades(self.booked[venue_order_id.parse::<usize>().unwrap()].trades.clone())
            }
        }
    }
    fn arrive(&mut self, now_ms: i64) {
        self.on_the_way.sort_by_key(|(at_ms, ..)| *at_ms);
        while self.on_the_way.first().is_some_and(|(at_ms, ..)| *at_ms <= now_ms) {
            let (at_ms, order, timestamp_ms) = self.on_the_way.remove(0);
            self.place(&order, timestamp_ms, at_ms);
        }
    }
}

/// What the streams hold, the venue, and the caller of the moment.
struct World {
    venue: Model,
    journal: Vec<(Sending, i64)>,
    cancelling: Vec<Cancelling>,
    live: Vec<LiveReport>,
    state: State,
    now_ms: i64,
    sent: usize,
    crashes: u32,
}

impl World {
    fn new() -> Self {
        let state = State::new("main", &rules());
        let (journal, cancelling, live) = (Vec::new(), Vec::new(), Vec::new());
        Self { venue: Model::default(), journal, cancelling, live, state, now_ms: 1_000_000, sent: 0, crashes: 0 }
    }

    fn send(&mut self, kind: u8) {
        let mut order = match kind % 3 {
            0 => order("buy 2 BTC"),
            _ => order("sell 2 BTC limit=120"),
        };
        self.sent += 1;
        order.id = format!("o{}", self.sent);
        if kind % 7 == 6 {
            order.reason = "refused".into();
        }
        let sending = Sending { v: Version, order, ts_ns: 0, cause: Cause::default() };
        self.journal.push((sending.clone(), self.now_ms * MS));
        self.state.sending(place(self.journal.len()), sending, self.now_ms * MS, false);
    }

    fn cancel(&mut self, which: u8) {
        let Some((sending, _)) = self.journal.get(which as usize % self.journal.len().max(1)) else { return };
        let Order { account, id, venue, symbol, .. } = sending.order.clone();
        let (reason, cause) = ("enough".to_owned(), Cause::default());
        let fact = Cancelling { v: Version, account, id, venue, symbol, reason, ts_ns: 0, cause };
        self.cancelling.push(fact.clone());
        self.state.cancelling(fact);
    }

    /// Another caller takes up what the streams hold.
    fn crash(&mut self) {
        self.crashes += 1;
        self.state = State::new("main", &rules());
        for (n, (sending, sent_ns)) in self.journal.iter().enumerate() {
            self.state.sending(place(n + 1), sending.clone(), *sent_ns, true);
        }
        for fact in &self.cancelling {
            self.state.cancelling(fact.clone());
        }
        for report in &self.live {
            self.state.stored(report);
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.venue.arrive(self.now_ms);
    }

    /// One step of the caller in the mood that `chance` says; 0 is fine weather.
    fn step(&mut self, chance: u8) {
        match self.state.next(self.now_ms * MS) {
            Step::Wait { until_ns } => {
                let until_ms = until_ns.map_or(self.now_ms + 50, |ns| ns / MS + 1);
                self.pass((until_ms - self.now_ms).clamp(1, 400));
            }
            Step::Store(report) => {
                if chance % 16 == 1 {
                    return self.crash();
                }
                self.live.push((*report).clone());
                if chance % 16 == 2 {
                    return self.crash();
                }
                self.state.stored(&report);
                // The caller may be slow, or stopped, between an attempt and its request.
                if chance % 16 == 3 {
                    self.pass(i64::from(chance) * 4);
                }
            }
            Step::Ask { venue, ask } => {
                assert_eq!(venue, VENUE);
                let asked_ms = self.now_ms;
                self.pass(i64::from(chance) % WAY_MS_MAX);
                let answer = match (chance % 16, &ask) {
                    // The request is lost, or its reply is.
                    (4, _) => None,
                    (5 | 6, _) => {
                        self.venue.hear(&ask, self.now_ms);
                        None
                    }
                    // It arrives later than we wait, and perhaps later than it is good for.
                    (7..=9, Ask::Place { order, timestamp_ms }) => {
                        let at_ms = self.now_ms + i64::from(chance) * 3;
                        self.venue.on_the_way.push((at_ms, (**order).clone(), *timestamp_ms));
                        None
                    }
                    (10, Ask::Place { order, timestamp_ms }) => {
                        let at_ms = self.now_ms + i64::from(chance) * 3;
                        self.venue.on_the_way.push((at_ms, (**order).clone(), *timestamp_ms));
                        return self.crash();
                    }
                    (11, _) => {
                        self.venue.hear(&ask, self.now_ms);
                        return self.crash();
                    }
                    (12, _) => Some(Answer::Limited { retry_after_ms: Some(90), why: "busy".into() }),
                    _ => Some(self.venue.hear(&ask, self.now_ms)),
                };
                match answer {
                    Some(_) => self.pass(i64::from(chance / 3) % WAY_MS_MAX),
                    None => self.pass(TIMEOUT_MS),
                }
                let answer = answer.unwrap_or(Answer::Doubt { why: "no reply".into() });
                let facts = self.state.answered(&venue, &ask, answer, asked_ms * MS, self.now_ms * MS);
                for fact in facts.expect("the venue forgets nothing and mixes nothing up") {
                    if chance % 16 == 13 {
                        return self.crash();
                    }
                    self.live.push(fact.clone());
                    self.state.stored(&fact);
                }
            }
        }
    }

    fn check(&self) {
        for (n, booked) in self.venue.booked.iter().enumerate() {
            let first = self.venue.find(&booked.order.id);
            assert_eq!(first, Some(n), "{} reached the venue twice", booked.order.id);
        }
    }

    /// In the end everything is known, and known once.
    fn check_end(&self) {
        self.check();
        for (sending, _) in &self.journal {
            let id = &sending.order.id;
            let said: Vec<&LiveWhat> = self.live.iter().filter(|r| r.id == *id).map(|r| &r.what).collect();
            let said: Vec<_> = said.into_iter().filter(|what| !matches!(what, LiveWhat::Attempt { .. })).collect();
            let booked = self.venue.booked.iter().find(|b| b.order.id == *id);
            let open = self.state.open().any(|open| open == id);
            let Some(booked) = booked else {
                let one_end = matches!(said[..], [LiveWhat::Ended { .. } | LiveWhat::Rejected { .. }]);
                assert!(one_end && !open, "{id} is not at the venue: {said:?}");
                continue;
            };
            assert!(matches!(said[0], LiveWhat::Acked { .. }), "{id}: {said:?}");
            let told: Vec<&str> = said[1..]
                .iter()
                .filter_map(|what| match what {
                    LiveWhat::Filled { trade_id, .. } => Some(trade_id.as_str()),
                    _ => None,
                })
                .collect();
            let traded: Vec<&str> = booked.trades.iter().map(|t| t.id.as_str()).collect();
            assert_eq!(told, traded, "{id}: each execution once, in order");
            let ended = matches!(said[said.len() - 1], LiveWhat::Ended { .. });
            assert_eq!(said.len(), 1 + told.len() + usize::from(ended), "{id}: {said:?}");
            assert_eq!((open, ended), (booked.status == Status::Open, booked.status == Status::Cancelled), "{id}");
        }
    }
}

fn place(seq: usize) -> Cause {
    Cause { stream: "EXEC_main".into(), seq: seq as u64, index: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_lost_late_or_killed_the_venue_has_each_order_once_and_each_execution_is_told_once(
        moods in prop::collection::vec((any::<u8>(), any::<u8>()), 0..120),
    ) {
        let mut world = World::new();
        for (chance, event) in moods {
            match event % 12 {
                0 | 1 if world.sent < 6 => world.send(event / 12),
                2 => world.cancel(event / 12),
                3 => world.crash(),
                _ => {}
            }
            world.step(chance);
            world.check();
        }
        world.send(0);
        world.crash();
        for _ in 0..400 {
            world.step(0);
        }
        world.check_end();
    }
}

/// What a caller does with one order in fine weather.
#[test]
fn in_fine_weather_an_order_is_one_attempt_one_request_and_its_reports() {
    let mut world = World::new();
    world.send(0);
    for _ in 0..12 {
        world.step(0);
    }
    let said: Vec<String> = world.live.iter().map(|r| format!("{:?}", r.what)).collect();
    let heads: Vec<&str> = said.iter().map(|s| s.split([' ', '{']).next().unwrap()).collect();
    assert_eq!(heads, ["Attempt", "Acked", "Filled", "Filled"]);
    assert_eq!(world.state.open().count(), 0);
}

#[test]
fn after_a_start_the_venue_is_asked_by_client_id_before_anything_is_sent() {
    let mut world = World::new();
    world.send(0);
    world.crash();
    world.step(0); // its clock
    let Step::Ask { ask, .. } = world.state.next(world.now_ms * MS) else { panic!("asks nothing") };
    assert_eq!(ask, Ask::Query { id: "o1".into(), symbol: "BTC".into() });
}

#[test]
fn an_attempt_of_unknown_fate_is_not_repeated_before_it_has_expired_and_the_venue_was_asked_again() {
    let mut world = World::new();
    world.send(0);
    world.step(0); // its clock
    world.step(0); // the attempt
    let sent_ms = world.now_ms;
    world.step(4); // lost
    let mut asks = Vec::new();
    while world.venue.booked.is_empty() {
        if let Step::Ask { ask, .. } = world.state.next(world.now_ms * MS) {
            asks.push((ask.name(), world.now_ms - sent_ms));
        }
        world.step(0);
    }
    let names: Vec<&str> = asks.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["query", "query", "place"]);
    assert!(asks[0].1 < WINDOW_MS && asks[1].1 > WINDOW_MS, "{asks:?}");
}

#[test]
fn an_order_that_is_too_old_or_was_cancelled_before_it_went_out_never_goes_out() {
    for late in [true, false] {
        let mut world = World::new();
        world.send(0);
        if late {
            world.pass(4_001);
        } else {
            world.cancel(0);
        }
        world.crash();
        for _ in 0..10 {
            world.step(0);
        }
        assert!(world.venue.booked.is_empty());
        let LiveWhat::Ended { state, reason } = &world.live[0].what else { panic!("{:?}", world.live) };
        let expected =
            if late { (DoneState::Expired, "never reached the venue") } else { (DoneState::Cancelled, "enough") };
        assert!((*state, true) == (expected.0, reason.starts_with(expected.1)), "{reason}");
    }
}

#[test]
fn a_taken_order_that_the_venue_forgot_and_an_order_that_is_not_ours_halt() {
    let mut world = World::new();
    world.send(1);
    for _ in 0..6 {
        world.step(0);
    }
    let ask = Ask::Query { id: "o1".into(), symbol: "BTC".into() };
    let now_ns = world.now_ms * MS;
    let mut forgetful = world.state.clone();
    let halt = forgetful.answered(VENUE, &ask, Answer::Unknown, now_ns, now_ns).unwrap_err();
    assert!(matches!(halt, Halt::Vanished { .. }), "{halt}");
    let Answer::Order(mut view) = world.venue.view(0) else { unreachable!() };
    view.qty = "3".parse().unwrap();
    let halt = world.state.answered(VENUE, &ask, Answer::Order(view), now_ns, now_ns).unwrap_err();
    assert_eq!(halt.to_string(), "binance-usdm has another order under our id o1: sell 3 BTC, ours is sell 2 BTC");
}

#[test]
fn a_venue_that_asks_for_silence_gets_it() {
    let mut world = World::new();
    world.send(0);
    world.step(0);
    world.step(0);
    let now_ns = world.now_ms * MS;
    let Step::Ask { venue, ask } = world.state.next(now_ns) else { panic!("places nothing") };
    let limited = Answer::Limited { retry_after_ms: Some(700), why: "418".into() };
    assert_eq!(world.state.answered(&venue, &ask, limited, now_ns, now_ns), Ok(vec![]));
    assert_eq!(world.state.next(now_ns + MS), Step::Wait { until_ns: Some(now_ns + 700 * MS) });
    assert!(matches!(world.state.next(now_ns + 700 * MS), Step::Store(_)), "a new attempt: nothing was done");
}
