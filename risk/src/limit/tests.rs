use super::*;
use crate::config::{Config, DEFAULT, Ratio};
use proptest::prelude::*;
use schemas::Fraction;

fn limits() -> Limits {
    Config::load(None).unwrap().limits
}

#[test]
fn limit_ids_are_unique_and_each_has_a_documented_table() {
    let table: toml::Table = DEFAULT.parse().unwrap();
    let tables = table["limits"].as_table().unwrap();
    for (i, limit) in LIMITS.iter().enumerate() {
        let id = limit.id();
        assert!(LIMITS[..i].iter().all(|other| other.id() != id), "{id} twice");
        assert!(tables.contains_key(id), "no table [limits.{id}]");
        let (before, _) = DEFAULT.split_once(&format!("\n[limits.{id}]")).unwrap();
        assert!(before.lines().last().unwrap().starts_with("# "), "[limits.{id}] is not documented");
    }
    assert_eq!(tables.len(), LIMITS.len(), "a table without a limit");
}

#[test]
fn a_sound_order_breaks_no_limit() {
    assert_eq!(first_broken(&testing::sound(), &limits()), None);
}

#[test]
fn the_first_broken_limit_of_the_registry_speaks() {
    let mut asked = testing::sound();
    asked.order.qty = "1000000".parse().unwrap();
    asked.mark = None;
    assert_eq!(first_broken(&asked, &limits()).unwrap().0, "stale_mark");
}

#[test]
fn a_limit_that_is_off_is_not_asked() {
    let mut limits = limits();
    let mut asked = testing::sound();
    asked.duplicate = true;
    assert_eq!(first_broken(&asked, &limits).unwrap().0, "duplicate_intent");
    limits.duplicate_intent.on = false;
    assert_eq!(first_broken(&asked, &limits), None);
}

fn settings() -> impl Strategy<Value = Limits> {
    (prop::collection::vec(0i64..3_000, 12), prop::collection::vec(any::<bool>(), 18)).prop_map(|(n, on)| {
        let mut l = limits();
        let ratio = |i: usize| Ratio(Decimal::new(n[i], 3));
        let share = |i: usize| Fraction::clamped(Decimal::new(n[i], 3));
        l.stale_mark.age_ms_max = n[0] as u32;
        l.stale_signal.age_ms_max = n[1] as u32;
        l.order_notional_min.notional_min = Notional::new(n[2].into());
        l.order_notional_max.notional_max = Notional::new(n[3].into());
        l.price_collar.share_max = ratio(4);
        l.max_position_share.share_max = ratio(5);
        l.gross_exposure.share_max = ratio(6);
        l.net_exposure.share_max = ratio(7);
        l.leverage.times_max = ratio(8);
        l.order_rate.orders_max = n[9] as u32 / 100;
        l.daily_loss.share_max = share(10);
        l.drawdown.share_max = share(11);
        l.stop_distance.share_max = share(0);
        l.stop_distance.required = on[0];
        for (i, switch) in [
            &mut l.spot_short.on,
            &mut l.stale_mark.on,
            &mut l.stale_signal.on,
            &mut l.market_data_gap.on,
            &mut l.duplicate_intent.on,
            &mut l.min_lot.on,
            &mut l.tick.on,
            &mut l.order_notional_min.on,
            &mut l.order_notional_max.on,
            &mut l.price_collar.on,
            &mut l.max_position_share.on,
            &mut l.gross_exposure.on,
            &mut l.net_exposure.on,
            &mut l.leverage.on,
            &mut l.order_rate.on,
            &mut l.daily_loss.on,
            &mut l.stop_distance.on,
        ]
        .into_iter()
        .enumerate()
        {
            *switch = on[i + 1];
        }
        l
    })
}

fn money() -> impl Strategy<Value = Notional> {
    (-1_000_000i64..1_000_000).prop_map(|n| Notional::new(n.into()))
}

proptest! {
    ///
    #[test]
    fn no_setting_of_any_limit_stops_a_close_of_what_is_held(
        limits in settings(),
        held in (-1_000_000i64..1_000_000).prop_filter("held", |h| *h != 0),
        part in 1i64..=100,
        surroundings in prop::collection::vec(money(), 5),
        (price, age_ns, orders, signal_ts, flags) in (1i64..1_000_000, 0i64..i64::MAX, 0usize..1_000, any::<i64>(), prop::collection::vec(any::<bool>(), 6)),
    ) {
        let mut asked = testing::sound();
        asked.held = Qty::new(Decimal::new(held, 3));
        asked.order.reduce_only = true;
        asked.order.protect = None;
        asked.order.side = if held > 0 { Side::Sell } else { Side::Buy };
        asked.order.qty = Qty::new(asked.held.abs().get() * Decimal::new(part, 2));
        asked.mark = Some(Mark { price: Price::new(price.into()), age_ns });
        asked.expected = flags[0].then(|| Price::new(Decimal::new(price, 2)));
        [asked.equity, asked.day_start_equity, asked.peak_equity, asked.gross_others, asked.net_others] =
            surroundings.try_into().unwrap();
        asked.working = Qty::new(Decimal::new(held.wrapping_mul(7) % 1_000, 1));
        asked.orders_in_window = orders;
        asked.signal_ts_ns = Some(signal_ts);
        asked.gap = flags[1].then_some((5, None));
        asked.duplicate = flags[2];
        if flags[3] {
            asked.instrument = None;
        } else if let Some(instrument) = &mut asked.instrument {
            instrument.trading = flags[4];
            instrument.lot = Qty::new(Decimal::ONE_HUNDRED);
        }
        for by in [By::Strategy, By::Operator, By::Emergency] {
            for trading in [TradingState::Active, TradingState::Reducing, TradingState::Halted] {
                (asked.by, asked.trading) = (by, trading);
                let broken = first_broken(&asked, &limits).map(|(id, _)| id);
                if by == By::Strategy && trading == TradingState::Halted {
                    prop_assert_eq!(broken, Some("trading_state"));
                } else {
                    prop_assert_eq!(broken, None);
                }
            }
        }
    }
}
