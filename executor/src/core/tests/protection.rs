//! Stops and take-profits that live and die with the position.

use expect_test::expect;
use schemas::desk::Order;
use schemas::{Instrument, Qty, WireError};

use super::with;
use crate::config::Trigger;
use crate::tape::{Tape, check, check_with, config};
use crate::venue::{ExecVenue, Report, Tick};

#[test]
fn an_entry_is_protected_from_its_first_partial_fill_on() {
    check(
        "next_trade",
        "order buy 10 BTC stop=90 take=120 | trade 100 x4 | trade 101 x9",
        expect![[r#"
        sending o1 buy 10 market
        ack o1
        fill o1 1 4@100 taker fee 0.4 left 6: next trade 2 at 100
        sending p1 sell 4 stop 90 for o1
        sending p2 sell 4 takeprofit 120 for o1
        ack p1
        ack p2
        fill o1 2 6@101 taker fee 0.606 left 0: next trade 3 at 101
        done o1 Filled 10
        sending p3 sell 10 stop 90 for o1
        sending p4 sell 10 takeprofit 120 for o1
        ack p3
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
        ack p4
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
    "#]],
    );
}

#[test]
fn the_stop_fires_fills_and_takes_the_take_profit_with_it() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 take=120 | trade 100 x9 | trade 90 x1 sell | trade 89.5 x1 sell | trade 89 x9 sell | trade 130 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        fill p1 1 1@89.5 taker fee 0.0895 left 1: next trade 4 at 89.5
        sending p3 sell 1 takeprofit 120 for o1
        ack p3
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
        fill p1 2 1@89 taker fee 0.089 left 0: next trade 5 at 89
        done p1 Filled 2
        done p3 Cancelled 0: reduce-only and nothing is left to reduce
    "#]],
    );
}

#[test]
fn the_take_profit_fires_and_takes_the_stop_with_it() {
    check(
        "book",
        "quote 99x9 100x9 | order buy 2 BTC stop=90 take=120 | quote 119.5x9 120.5x9 | trade 120 x1 | trade 80 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: quote level 1 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        fill p2 1 2@119.5 taker fee 0.239 left 0: quote level 1 at 119.5
        done p2 Filled 2
        done p1 Cancelled 0: the position that it protects is gone
    "#]],
    );
}

#[test]
fn a_close_by_another_order_shrinks_and_then_ends_the_protection() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 | trade 100 x9 | order sell 0.5 BTC reduce | trade 101 x9 | order sell 5 BTC reduce | trade 102 x9 | trade 80 x9",
        expect![[r#"
            sending o1 buy 2 market
            ack o1
            fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
            done o1 Filled 2
            sending p1 sell 2 stop 90 for o1
            ack p1
            sending o2 sell 0.5 market
            ack o2
            fill o2 1 0.5@101 taker fee 0.0505 left 0: next trade 4 at 101
            done o2 Filled 0.5
            sending p2 sell 1.5 stop 90 for o1
            ack p2
            done p1 Cancelled 0: replaced: the position or the price that it protects changed
            sending o3 sell 5 market
            ack o3
            fill o3 1 1.5@102 taker fee 0.153 left 3.5: next trade 6 at 102
            done o3 Cancelled 1.5: reduce-only and nothing is left to reduce
            done p2 Cancelled 0: the position that it protects is gone
        "#]],
    );
}

#[test]
fn a_second_entry_brings_its_own_prices_for_all_that_is_held() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 | trade 100 x9 | order buy 1 BTC stop=95 | trade 102 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        ack p1
        sending o2 buy 1 market
        ack o2
        fill o2 1 1@102 taker fee 0.102 left 0: next trade 4 at 102
        done o2 Filled 1
        sending p2 sell 3 stop 95 for o2
        ack p2
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
    "#]],
    );
}

#[test]
fn an_order_that_turns_the_position_ends_the_old_protection_and_starts_its_own() {
    check(
        "next_trade",
        "order buy 2 BTC stop=90 take=120 | trade 100 x9 | order sell 3 BTC stop=110 | trade 101 x1 | trade 101 x9 | trade 111 x1 | trade 111 x9",
        expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0.2 left 0: next trade 2 at 100
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        ack p1
        ack p2
        sending o2 sell 3 market
        ack o2
        fill o2 1 1@101 taker fee 0.101 left 2: next trade 4 at 101
        sending p3 sell 1 stop 90 for o1
        sending p4 sell 1 takeprofit 120 for o1
        ack p3
        done p1 Cancelled 0: replaced: the position or the price that it protects changed
        ack p4
        done p2 Cancelled 0: replaced: the position or the price that it protects changed
        fill o2 2 2@101 taker fee 0.202 left 0: next trade 5 at 101
        done o2 Filled 3
        sending p5 buy 1 stop 110 for o2
        done p4 Cancelled 0: reduce-only and nothing is left to reduce
        done p3 Cancelled 0: reduce-only and nothing is left to reduce
        ack p5
        fill p5 1 1@111 taker fee 0.111 left 0: next trade 7 at 111
        done p5 Filled 1
    "#]],
    );
}

#[test]
fn a_short_is_protected_on_the_other_side() {
    check(
        "next_trade",
        "order sell 1 BTC stop=110 take=80 | trade 100 x9 | trade 109 x1 | trade 80 x1 | trade 79 x1",
        expect![[r#"
        sending o1 sell 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 2 at 100
        done o1 Filled 1
        sending p1 buy 1 stop 110 for o1
        sending p2 buy 1 takeprofit 80 for o1
        ack p1
        ack p2
        fill p2 1 1@79 taker fee 0.079 left 0: next trade 5 at 79
        done p2 Filled 1
        done p1 Cancelled 0: the position that it protects is gone
    "#]],
    );
}

#[test]
fn stops_on_mark_prices_ignore_trades() {
    let config = with("next_trade", |c| c.fill.trigger = Trigger::Mark);
    check_with(
        &config,
        "ticker mark=100 | order buy 1 BTC stop=90 | trade 100 x9 | trade 80 x1 | ticker mark=89 | trade 85 x9",
        expect![[r#"
        sending o1 buy 1 market
        ack o1
        fill o1 1 1@100 taker fee 0.1 left 0: next trade 3 at 100
        done o1 Filled 1
        sending p1 sell 1 stop 90 for o1
        ack p1
        fill p1 1 1@85 taker fee 0.085 left 0: next trade 6 at 85
        done p1 Filled 1
    "#]],
    );
}

/// A venue that takes everything, fills market orders at once at 100 and refuses stops.
#[derive(Default)]
struct NoStops;

impl ExecVenue for NoStops {
    fn instrument(&mut self, _: &Instrument) {}
    fn admits(&self, _: &Order) -> Result<(), (&'static str, String)> {
        Ok(())
    }
    fn place(&mut self, order: &Order, _: Qty, out: &mut Vec<Report>) {
        let (id, ts_ns) = (order.id.clone(), order.ts_ns);
        if order.trigger.is_some() {
            out.push(Report::Rejected { id, code: "venue".into(), reason: "no stops here".into(), ts_ns });
            return;
        }
        out.push(Report::Acked { id: id.clone(), venue_order_id: "v1".into(), ts_ns });
        let (price, fee) = ("100".parse().unwrap(), Default::default());
        out.push(Report::Filled {
            id,
            price,
            qty: order.qty,
            fee,
            liquidity: schemas::exec::Liquidity::Taker,
            why: "at once".into(),
            ts_ns,
        });
    }
    fn cancel(&mut self, _: &Order, _: i64, _: &str, _: &mut Vec<Report>) {}
    fn watches(&self, _: &str, _: &str, _: Qty) -> bool {
        false
    }
    fn tick(&mut self, _: &str, _: &str, _: i64, _: Tick<'_>, _: Qty, _: &mut Vec<Report>) {}
    fn waiting(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), WireError> {
        Ok(())
    }
}

#[test]
fn a_venue_that_refuses_the_stop_gets_a_market_close_instead() {
    let mut tape = Tape::at_venue(&config("next_trade"), Box::new(NoStops));
    expect![[r#"
        sending o1 buy 2 market
        ack o1
        fill o1 1 2@100 taker fee 0 left 0: at once
        done o1 Filled 2
        sending p1 sell 2 stop 90 for o1
        sending p2 sell 2 takeprofit 120 for o1
        reject p1 venue
        sending p3 sell 2 market for o1
        reject p2 venue
        ack p3
        fill p3 1 2@100 taker fee 0 left 0: at once
        done p3 Filled 2
    "#]]
    .assert_eq(tape.play("order buy 2 BTC stop=90 take=120").log());
    assert!(tape.core.held("binance-usdm", "BTC").is_zero());
}
