//! An order and its surroundings as text, for the limits' tests: words over sound defaults.

use rust_decimal::Decimal;
use schemas::desk::{Order, OrderKind, Protect, TimeInForce, TradingState};
use schemas::instrument::SizeUnit;
use schemas::{InstrumentKind, Notional, Price, Qty, Side, Version};

use super::{Asked, By, Limit, Limits};
use crate::config::Config;
use crate::mark::Mark;
use crate::position::Contract;

/// A buy of 1 at a mark of 100 by an active account of 10 000, with a stop at 95.
pub fn sound() -> Asked {
    let order = Order {
        v: Version,
        account: "main".into(),
        id: String::new(),
        venue: "binance".into(),
        symbol: "BTC".into(),
        side: Side::Buy,
        kind: OrderKind::Market,
        qty: qty("1"),
        limit: None,
        trigger: None,
        reduce_only: false,
        post_only: false,
        time_in_force: TimeInForce::Gtc,
        protect: Some(Protect { stop_loss: "95".parse().ok(), take_profit: None }),
        parent: None,
        strategies: vec![],
        ts_ns: 0,
        reason: String::new(),
        cause: Default::default(),
    };
    let ten_thousand: Notional = "10000".parse().unwrap();
    Asked {
        order,
        by: By::Strategy,
        trading: TradingState::Active,
        now_ns: 1_000_000_000_000,
        instrument: Some(crate::tape::instrument("BTC")),
        contract: Contract::default(),
        mark: Some(Mark { price: price("100"), age_ns: 0 }),
        expected: Some(price("100")),
        held: Qty::ZERO,
        working: Qty::ZERO,
        equity: ten_thousand,
        day_start_equity: ten_thousand,
        peak_equity: ten_thousand,
        gross_others: Notional::ZERO,
        net_others: Notional::ZERO,
        orders_in_window: 0,
        signal_ts_ns: Some(1_000_000_000_000),
        gap: None,
        gap_bars: 0,
        duplicate: false,
    }
}

/// One limit, the words and `passes` or `<number>, allowed <bound>`.
pub fn check(limit: &dyn Limit, words: &str, expected: &str) {
    let (asked, limits) = asked(words);
    let said = match limit.check(&asked, &limits) {
        Ok(()) => "passes".to_owned(),
        Err(broken) => format!("{}, allowed {}", broken.number, broken.bound),
    };
    assert_eq!(said, expected, "{} with {words}", limit.id());
}

fn asked(words: &str) -> (Asked, Limits) {
    let mut limits = Config::load(None).unwrap().limits;
    let mut a = sound();
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let decimal = || value.parse::<Decimal>().unwrap();
        let money = || Notional::new(decimal());
        let instrument = a.instrument.as_mut().expect("`unknown` stands last");
        match key {
            "buy" => a.order.side = Side::Buy,
            "sell" => a.order.side = Side::Sell,
            "close" => a.order.reduce_only = true,
            "qty" => a.order.qty = qty(value),
            "limit" => (a.order.kind, a.order.limit) = (OrderKind::Limit, Some(price(value))),
            "stop" => protect(&mut a.order).stop_loss = Some(price(value)),
            "take" => protect(&mut a.order).take_profit = Some(price(value)),
            "no_stop" => protect(&mut a.order).stop_loss = None,
            "stop_required" => limits.stop_distance.required = value == "true",
            "by" => a.by = if value == "operator" { By::Operator } else { By::Emergency },
            "state" => {
                a.trading = match value {
                    "active" => TradingState::Active,
                    "reducing" => TradingState::Reducing,
                    "halted" => TradingState::Halted,
                    other => panic!("state {other}"),
                }
            }
            "unknown" => a.instrument = None,
            "closed" => instrument.trading = false,
            "spot" => instrument.kind = InstrumentKind::Spot,
            "inverse" => {
                (instrument.size_unit, instrument.inverse) = (SizeUnit::QuoteUsd, true);
                a.contract = Contract::of(instrument);
            }
            "lot" => instrument.lot = qty(value),
            "tick" => instrument.tick = price(value),
            "venue_min" => instrument.min_notional = money(),
            "mark" => a.mark = Some(Mark { price: price(value), age_ns: 0 }),
            "mark_age_ms" => a.mark.as_mut().unwrap().age_ns = value.parse::<i64>().unwrap() * 1_000_000,
            "no_mark" => a.mark = None,
            "expected" => a.expected = Some(price(value)),
            "held" => a.held = qty(value),
            "working" => a.working = qty(value),
            "equity" => a.equity = money(),
            "day_start" => a.day_start_equity = money(),
            "peak" => a.peak_equity = money(),
            "gross" => a.gross_others = money(),
            "net" => a.net_others = money(),
            "orders" => a.orders_in_window = value.parse().unwrap(),
            "signal_age_ms" => a.signal_ts_ns = Some(a.now_ns - value.parse::<i64>().unwrap() * 1_000_000),
            "signal_ts_ns" => a.signal_ts_ns = value.parse().ok(),
            "gap" => {
                let (from, to) = value.split_once("..").unwrap();
                a.gap = Some((from.parse().unwrap(), to.parse().ok()));
            }
            "gap_bars" => a.gap_bars = value.parse().unwrap(),
            "gap_bars_max" => limits.gap_bars.bars_max = value.parse().unwrap(),
            "duplicate" => a.duplicate = true,
            other => panic!("word {other}"),
        }
    }
    (a, limits)
}

fn protect(order: &mut Order) -> &mut Protect {
    order.protect.get_or_insert_default()
}
fn qty(text: &str) -> Qty {
    text.parse().unwrap()
}
fn price(text: &str) -> Price {
    text.parse().unwrap()
}
