//! Scripts: what happens to a session, and what it asks for.

use std::collections::BTreeSet;

use expect_test::expect;
use proptest::prelude::*;
use schemas::Nanos;
use serde_json::json;

use crate::event::{Event, Frame};
use crate::session::tests::{Bench, plan};
use crate::session::{Action, Missing, Session};
use crate::venue::by_id;

/// Trades as (tid, time in ms).
fn trades(coin: &str, rows: &[(u64, i64)]) -> String {
    let row = |&(tid, time): &(u64, i64)| json!({ "coin": coin, "side": "B", "px": "61800.0", "sz": "0.5", "time": time, "hash": "0x0", "tid": tid, "users": [] });
    json!({ "channel": "trades", "data": rows.iter().map(row).collect::<Vec<_>>() }).to_string()
}

fn ack(method: &str, kind: &str, coin: &str) -> String {
    let data = json!({ "method": method, "subscription": { "type": kind, "coin": coin } });
    json!({ "channel": "subscriptionResponse", "data": data }).to_string()
}

fn book(time: i64, bid: &str, ask: &str) -> String {
    let level = |px: &str| json!([{ "px": px, "sz": "1.0", "n": 1 }]);
    json!({ "channel": "l2Book", "data": { "coin": "BTC", "time": time, "levels": [level(bid), level(ask)] } })
        .to_string()
}

/// Trades of a coin that has told one of the past.
fn begun() -> Bench {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10)]))
        .said(concat!(
            "open\n  send {\"method\":\"subscribe\",\"subscription\":{\"coin\":\"BTC\",\"type\":\"trades\"}}\n",
            "ack (whole)\nhistory (whole)\n  trade BTC 10000 (900) from the past\n"
        ))
}

#[test]
fn each_channel_is_a_message_and_the_first_trades_are_the_past() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@trades", "{}@candle.1m"], &[]))
        .open()
        .until(1040)
        .frame("history", &trades("BTC", &[(900, 10), (17, 20), (450, 20)]))
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("candle ack", r#"{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"candle","interval":"1m","coin":"BTC"}}}"#)
        .frame("trade", &trades("BTC", &[(3, 20)]))
        .frame("the same trade", &trades("BTC", &[(3, 20)]))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1040
              send {"method":"subscribe","subscription":{"coin":"BTC","interval":"1m","type":"candle"}}
            history
              trade BTC 10000 (900) from the past
              trade BTC 20000 (17) from the past
              trade BTC 20001 (450) from the past
            ack
            candle ack (whole)
            trade (whole)
              trade BTC 20002 (3)
            the same trade (whole)
        "#]]);
}

#[test]
fn what_was_missed_comes_with_the_next_subscription_and_a_known_trade_proves_that_nothing_is_missing() {
    begun()
        .frame("trade", &trades("BTC", &[(17, 20)]))
        .close()
        .until(1100)
        .open()
        .frame("history", &trades("BTC", &[(17, 20), (450, 25), (8, 30)]))
        .frame("a trade before the ack", &trades("BTC", &[(5, 40)]))
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .end(expect![[r#"
            trade (whole)
              trade BTC 20000 (17)
            close
              GAP BTC link 20..: cut
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            history
            a trade before the ack
              GAP BTC link 20..40: cut
            ack (whole)
              trade BTC 25000 (450) from the past
              trade BTC 30000 (8) from the past
              trade BTC 40000 (5)
            trade (whole)
              trade BTC 50000 (4)
        "#]]);
}

#[test]
fn history_that_does_not_reach_back_is_a_gap_and_so_is_none_at_all() {
    begun()
        .close()
        .until(1100)
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(450, 25), (8, 30)]))
        .close()
        .until(1200)
        .open()
        .frame("ack", &ack("subscribe", "trades", "BTC"))
        .until(12_000)
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .end(expect![[r#"
            close
              GAP BTC link 10..: cut
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack
            history (whole)
              GAP BTC trade 10..: what the venue still has of its trades does not reach back to ours
              GAP BTC trade 10..25: what the venue still has of its trades does not reach back to ours
              trade BTC 25000 (450) from the past
              trade BTC 30000 (8) from the past
            close
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            ack
            timer 11200 (whole)
              warn backfill BTC: the venue sent no history
              GAP BTC trade 30..: what the venue still has of its trades does not reach back to ours
            trade (whole)
              GAP BTC trade 30..50: what the venue still has of its trades does not reach back to ours
              trade BTC 50000 (4) from the past
        "#]]);
}

#[test]
fn a_broken_frame_that_may_have_held_trades_asks_for_those_of_its_coin_again() {
    // Two trades of one millisecond, of which the first is lost.
    let half = trades("BTC", &[(450, 30)]);
    let half = &half[..half.len() / 2];
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC", "ETH"], &["{}@trades"], &[]))
        .open()
        .until(1040)
        .frame("BTC ack", &ack("subscribe", "trades", "BTC"))
        .frame("ETH ack", &ack("subscribe", "trades", "ETH"))
        .frame("BTC history", &trades("BTC", &[(900, 10)]))
        .frame("ETH history", &trades("ETH", &[(901, 11)]))
        .frame("half a quote", r#"{"channel":"bbo","data":{"coi"#)
        .frame("half a trade", half)
        .until(1200)
        .frame("a trade on its way", &trades("BTC", &[(8, 30)]))
        .frame("left", &ack("unsubscribe", "trades", "BTC"))
        .frame("back", &ack("subscribe", "trades", "BTC"))
        .frame("history", &trades("BTC", &[(900, 10), (450, 30), (8, 30)]))
        .frame("trade", &trades("BTC", &[(4, 50)]))
        .frame("a frame that says nothing", r#"{"channel":"tra"#)
        .until(1400)
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1040
              send {"method":"subscribe","subscription":{"coin":"ETH","type":"trades"}}
            BTC ack
            ETH ack (whole)
            BTC history (whole)
              trade BTC 10000 (900) from the past
            ETH history (whole)
              trade ETH 11000 (901) from the past
            half a quote (whole)
              DEAD EOF while parsing a string at line 1 column 29
            half a trade
              DEAD EOF while parsing a string at line 1 column 62
            timer 1080
              send {"method":"unsubscribe","subscription":{"coin":"BTC","type":"trades"}}
            timer 1120
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"trades"}}
            a trade on its way
            left
            back
            history (whole)
              trade BTC 30000 (450) from the past
              trade BTC 30001 (8)
            trade (whole)
              trade BTC 50000 (4)
            a frame that says nothing
              DEAD EOF while parsing a string at line 1 column 15
              send {"method":"unsubscribe","subscription":{"coin":"ETH","type":"trades"}}
            timer 1240
              send {"method":"subscribe","subscription":{"coin":"ETH","type":"trades"}}
        "#]]);
}

#[test]
fn an_unknown_coin_is_refused_and_told_as_a_gap_that_lasts() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["NOPE"], &["{}@trades"], &[]))
        .open()
        .frame("error", r#"{"channel":"error","data":"Invalid subscription {\"type\":\"trades\",\"coin\":\"NOPE\"}"}"#)
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"NOPE","type":"trades"}}
            error (whole)
              warn the venue refused a request: Invalid subscription {"type":"trades","coin":"NOPE"}
              warn the venue did not subscribe NOPE@trades
              GAP NOPE trade 1000..: the venue did not subscribe NOPE@trades
        "#]]);
}

#[test]
fn books_replace_each_other_by_time_and_a_crossed_one_is_not_published() {
    Bench::new("hyperliquid", &plan("hyperliquid", &["BTC"], &["{}@l2Book"], &[]))
        .open()
        .frame("ack", &ack("subscribe", "l2Book", "BTC"))
        .frame("book", &book(500, "10.0", "11.0"))
        .frame("the same time", &book(500, "10.0", "11.0"))
        .frame("an older one", &book(499, "9.0", "10.0"))
        .frame("a crossed one", &book(1000, "12.0", "11.0"))
        .http(1, 200, r#"{"coin":"BTC","time":1200,"levels":[[],[]]}"#)
        .frame("the next", &book(1500, "10.0", "11.0"))
        .end(expect![[r#"
            open
              send {"method":"subscribe","subscription":{"coin":"BTC","type":"l2Book"}}
            ack (whole)
            book (whole)
              book BTC snapshot at 500
            the same time (whole)
              book BTC snapshot at 500
            an older one (whole)
            a crossed one (whole)
              GAP BTC book 1000..: the book is crossed: bid 12, ask 11
              fetch 1 /info {"coin":"BTC","type":"l2Book"}
            http 1 200 (whole)
              GAP BTC book 1000..1200: the book is crossed: bid 12, ask 11
              book BTC snapshot at 1200
            the next (whole)
              book BTC snapshot at 1500
        "#]]);
}

#[test]
fn a_quiet_market_is_pinged_and_a_ping_without_an_answer_ends_the_connection() {
    begun()
        .until(21_500)
        .frame("pong", r#"{"channel":"pong"}"#)
        .frame("trade", &trades("BTC", &[(4, 20_000)]))
        .until(51_000)
        .end(expect![[r#"
            timer 16000 (whole)
              stale true
            timer 21000 (whole)
              send {"method":"ping"}
            pong (whole)
            trade (whole)
              trade BTC 20000000 (4)
              stale false
            timer 36500 (whole)
              stale true
            timer 41000 (whole)
              send {"method":"ping"}
            timer 51000 (whole)
              RECONNECT after 0 ms: no answer to a request for 10000 ms
        "#]]);
}

/// What happens to a connection; counts are trades.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message of trades.
    Traded(usize),
    /// A message of trades that arrives broken.
    Broken(usize),
    /// The connection is lost, and trades happen before the next one.
    Lost(usize),
    /// Time passes.
    Waited,
}

/// A venue of one coin that answers subscriptions, and what its connection says.
struct World {
    session: Box<dyn Session>,
    now: Nanos,
    /// Every trade that happened: tid and time in ms.
    tape: Vec<(u64, i64)>,
    /// Trades of the history that a subscription begins with.
    reach: usize,
    subscribed: bool,
    /// Our number and the venue's id.
    told: Vec<(u64, u64)>,
    gaps: Vec<Missing>,
}

impl World {
    fn new(reach: usize, held_max: usize) -> Self {
        let mut plan = plan("hyperliquid", &["BTC"], &["{}@trades"], &[]);
        plan.limits.held_max = held_max;
        let (venue, market) = by_id("hyperliquid").unwrap();
        let session = venue.sessions(market, &plan).remove(0);
        let (tape, told, gaps) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, now: Nanos::from_ms(1000), tape, reach, subscribed: false, told, gaps }
    }

    fn act(&mut self, call: impl FnOnce(&mut dyn Session, Nanos, &mut Vec<Action>)) {
        let mut out = Vec::new();
        call(&mut *self.session, self.now, &mut out);
        let mut answers = Vec::new();
        for action in out {
            match action {
                Action::Send(text) => {
                    let asked: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let method = asked["method"].as_str().unwrap();
                    if method == "ping" {
                        answers.push(r#"{"channel":"pong"}"#.to_owned());
                        continue;
                    }
                    self.subscribed = method == "subscribe";
                    if !self.subscribed {
                        // Somebody trades while we are away.
                        self.trade(1);
                    }
                    answers.push(ack(method, "trades", "BTC"));
                    let newest = &self.tape[self.tape.len().saturating_sub(self.reach)..];
                    if self.subscribed && !newest.is_empty() {
                        answers.push(trades("BTC", newest));
                    }
                }
                Action::Emit { event: Event::Trade(t), .. } => {
                    self.told.push((t.id, t.venue_id.as_deref().unwrap().parse().unwrap()));
                }
                Action::Gap(gap) if gap.channel == "trade" => self.gaps.push(gap),
                Action::Reconnect { reason, .. } => panic!("{reason}"),
                _ => {}
            }
        }
        answers.iter().for_each(|answer| self.hear(answer));
    }

    fn hear(&mut self, frame: &str) {
        self.act(|s, now, out| s.on_frame(now, Frame::Text(frame), out));
    }

    fn wait(&mut self, ms: i64) {
        let end = self.now.plus_ns(ms * Nanos::PER_MS);
        while let Some(due) = self.session.next_timer().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.act(|s, now, out| s.on_timer(now, out));
        }
        self.now = end;
    }

    /// Trades happen, some of them in the same millisecond; ids rise and fall.
    fn trade(&mut self, n: usize) -> String {
        let from = self.tape.len();
        for _ in 0..n {
            let count = self.tape.len() as u64;
            let time = self.tape.last().map_or(0, |(_, time)| *time) + i64::from(count % 3 != 0);
            self.tape.push((count.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20, time));
        }
        trades("BTC", &self.tape[from..])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Traded(n) | Step::Broken(n) => {
                let frame = self.trade(n);
                let heard = if matches!(step, Step::Traded(_)) { &frame[..] } else { &frame[..frame.len() * 2 / 3] };
                if self.subscribed {
                    self.hear(heard);
                }
            }
            Step::Lost(n) => {
                self.act(|s, now, out| s.on_closed(now, "cut", out));
                self.subscribed = false;
                self.trade(n);
                self.now = self.now.plus_ns(Nanos::PER_MS);
                self.act(|s, now, out| s.on_open(now, out));
            }
            Step::Waited => self.wait(100),
        }
    }

    fn is_told_as_missing(&self, time_ms: i64) -> bool {
        let ended: Vec<_> = self.gaps.iter().filter_map(|g| Some((g.from, g.to?))).collect();
        let open = self.gaps.iter().filter(|g| g.to.is_none()).count() > ended.len();
        let at = Nanos::from_ms(time_ms);
        ended.iter().any(|(from, to)| *from <= at && at <= *to) || (open && self.gaps.last().unwrap().from <= at)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..4).prop_map(Step::Traded),
        1 => (1usize..4).prop_map(Step::Broken),
        1 => (0usize..12).prop_map(Step::Lost),
        3 => Just(Step::Waited),
    ];
    prop::collection::vec(step, 0..60)
}

#[test]
fn a_trade_of_a_gap_that_has_ended_is_not_told_behind_later_ones() {
    let mut world = World::new(6, 3);
    world.act(|s, now, out| s.on_open(now, out));
    // The fourth trade is lost, and more follow than may wait for it; then a history has it.
    use Step::{Broken, Lost, Traded, Waited};
    let steps = [Traded(1), Broken(1), Waited, Broken(1), Traded(2), Traded(2), Lost(1), Waited, Lost(0), Waited];
    steps.into_iter().for_each(|step| world.step(step));
    world.wait(10_500);
    world.step(Traded(1));
    world.wait(10_500);
    let places = |tid: &u64| world.tape.iter().position(|(known, _)| known == tid).unwrap();
    let told: Vec<usize> = world.told.iter().map(|(_, tid)| places(tid)).collect();
    assert_eq!(told, [0, 1, 2, 4, 5, 6, 7, 8, 9], "{:?} {:?}", world.gaps, world.tape);
    assert!(world.is_told_as_missing(world.tape[3].1), "{:?}", world.gaps);
}

proptest! {
    /// Whatever is lost and however short the history is: every trade is told once and in order, or lies in a gap that is told.
    #[test]
    fn every_trade_is_told_once_or_lies_in_a_gap(
        steps in steps(), reach in 0usize..9, held_max in prop_oneof![3usize..12, Just(1000)],
    ) {
        let mut world = World::new(reach, held_max);
        world.act(|s, now, out| s.on_open(now, out));
        steps.into_iter().for_each(|step| world.step(step));
        // What is waited for is given up within the bound of an acknowledgement; a last trade ends the last gap.
        world.wait(10_500);
        world.step(Step::Traded(1));
        world.wait(10_500);
        prop_assert!(world.session.is_whole());
        prop_assert!(world.told.windows(2).all(|two| two[0].0 < two[1].0), "{:?}", world.told);
        let places: Vec<usize> =
            world.told.iter().map(|(_, tid)| world.tape.iter().position(|(known, _)| known == tid).unwrap()).collect();
        // The tape begins with the first trade that was told; of its millisecond an older one may come with a history.
        let first = places[0];
        let time = |place: usize| world.tape[place].1;
        let on_tape: Vec<usize> = places.iter().copied().filter(|place| *place >= first).collect();
        prop_assert!(on_tape.windows(2).all(|two| time(two[0]) <= time(two[1])), "{places:?}");
        prop_assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{:?}", places);
        for (place, (tid, time)) in world.tape.iter().enumerate().skip(first) {
            prop_assert!(places.contains(&place) || world.is_told_as_missing(*time), "{tid} at {time}: {:?}", world.gaps);
        }
    }
}
