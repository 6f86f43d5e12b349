use proptest::prelude::*;
use schemas::{Decimal, Price, Qty};

use super::*;
use crate::fact::Typed;

const DAY_MS: i64 = 86_400_000;

fn point(open_ms: i64, equity: i64) -> Point {
    let equity = Notional::new(Decimal::from(equity));
    Point { open_ms, equity, in_position: true, exposure: equity }
}

fn trip(entry_ns: i64, exit_ns: i64, net: i64) -> Trip {
    Trip {
        long: true,
        units: Qty::new(Decimal::ONE),
        entry_ns,
        exit_ns,
        entry_price: Price::new(Decimal::from(100)),
        exit_price: Price::new(Decimal::from(101)),
        entry_double: None,
        fees: Notional::ZERO,
        net: Notional::new(Decimal::from(net)),
    }
}

fn window(from_ns: i64, to_ns: i64) -> Window {
    Window { venue: "v".into(), symbol: "s".into(), from_ns, to_ns, why: "gap".into() }
}

#[test]
fn a_month_is_measured_against_the_one_before_it() {
    // 1970: last bar of January 110, of March 99; 1971: January 198.
    let points = [point(0, 90), point(30 * DAY_MS, 110), point(70 * DAY_MS, 99), point(370 * DAY_MS, 198)];
    let years = months(100.0, &points);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert_eq!((years.len(), years[0].year, years[1].year), (2, 1970, 1971));
    let [january, february, march] = [0, 1, 2].map(|m| years[0].months[m]);
    assert!(close(january.unwrap(), 0.1) && february.is_none() && close(march.unwrap(), -0.1));
    assert!(close(years[0].total, -0.01) && close(years[1].total, 1.0) && close(years[1].months[0].unwrap(), 1.0));
}

#[test]
fn trades_over_a_gap_are_those_held_for_some_of_it() {
    // Two windows that touch, and one apart. A trade that ends where a window begins was not held over it.
    let windows = [window(20, 30), window(10, 20), window(50, 60)];
    let spans = disjoint(&windows);
    assert_eq!(spans, [(10, 30), (50, 60)]);
    for (entry, exit, held) in
        [(0, 10, false), (0, 11, true), (29, 31, true), (30, 50, false), (0, 99, true), (15, 16, true), (60, 70, false)]
    {
        assert_eq!(overlaps(&trip(entry, exit, 1), &spans), held, "{entry}..{exit}");
    }
    let trades: Vec<Trade> = [(0, 5, 30), (12, 15, -10), (55, 70, 40)]
        .map(|(entry, exit, net)| {
            let trip = trip(entry, exit, net);
            trade(&trip, "v s", "x", overlaps(&trip, &spans))
        })
        .to_vec();
    let found = gaps(&trades, &windows);
    assert_eq!(
        (found.trades, found.net, found.net_share, found.absolute_share),
        (2, 30.0, Some(0.5), Some(50.0 / 80.0))
    );
    assert_eq!(found.windows_total, 3);
}

#[test]
fn a_long_series_keeps_its_end_and_its_largest_drawdown() {
    let mut points: Vec<Point> = (0..50_000).map(|i| point(i * 60_000, 1_000)).collect();
    points[31_234].equity = Notional::new(Decimal::from(400));
    let samples = series(1_000.0, &points);
    assert!(samples.len() <= POINTS_MAX, "{}", samples.len());
    assert_eq!(samples.last().unwrap().open_ms, 49_999 * 60_000);
    let deepest = samples.iter().map(|s| s.drawdown).fold(0.0, f64::max);
    assert!((deepest - 0.6).abs() < 1e-12);
}

#[test]
fn a_run_over_several_markets_tells_its_candles_and_gaps() {
    use schemas::market::{Candle, ClosedBy};
    use schemas::raw::{Gap, Raw};
    use schemas::{Cause, Version};
    let price = Price::new(Decimal::from(100));
    let candle = |symbol: &str, tf: &str, open_ns: i64, complete: bool| Candle {
        v: Version,
        venue: "v".into(),
        symbol: symbol.into(),
        p: 0,
        tf: tf.into(),
        open_ns,
        close_ns: open_ns + 60_000_000_000,
        open: price,
        high: price,
        low: price,
        close: price,
        volume: Qty::ZERO,
        buy_volume: Qty::ZERO,
        quote_volume: Notional::ZERO,
        trades: 1,
        buy_trades: 0,
        first_id: None,
        last_id: None,
        closed_by: ClosedBy::Trade,
        complete,
        filled: false,
        cause: Cause::default(),
    };
    let gap = |to_ns| Gap {
        v: Version,
        venue: "v".into(),
        symbol: "A".into(),
        p: 0,
        channel: "trade".into(),
        from_ns: 5,
        to_ns,
        reason: "test".into(),
    };
    let mut background = Background::default();
    for candle in [
        candle("A", "1m", 0, true),
        candle("B", "1m", 0, false),
        candle("A", "5m", 0, true),
        candle("A", "1m", 60, true),
    ] {
        background.hear(&Typed::Market(aggregate::core::Out::Candle(candle)), "1m");
    }
    // A gap that lasts has no length yet; its end tells all of it.
    for gap in [gap(None), gap(Some(9))] {
        background.hear(&Typed::Raw(Raw::Gap(gap)), "1m");
    }
    let bars: Vec<_> = background.charts.iter().map(|c| (c.symbol.as_str(), c.bars.len())).collect();
    assert_eq!(bars, [("A", 2), ("B", 1)]);
    let windows: Vec<_> = background.windows.iter().map(|w| (w.symbol.as_str(), w.from_ns, w.why.as_str())).collect();
    assert_eq!(windows, [("B", 0, "incomplete candle"), ("A", 5, "gap")]);
}

#[test]
fn a_run_without_a_bar_has_a_report_too() {
    let report = Report {
        markets: Vec::new(),
        trips: Vec::new(),
        equity: Vec::new(),
        stats: Stats::of(&crate::account::Account::new(Decimal::from(100)), "1m".parse().unwrap()),
        facts: 0,
        hash: "0".repeat(64),
        kinds: BTreeMap::new(),
        refusals: BTreeMap::new(),
    };
    let dir = tempfile::tempdir().unwrap();
    report.write(dir.path()).unwrap();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("no bars") && page.contains(&report.hash));
}

proptest! {
    #[test]
    fn groups_add_up_to_the_whole(nets in prop::collection::vec((-50i64..50, 0usize..3), 0..40)) {
        let trades: Vec<Trade> = nets.iter().map(|(net, m)| trade(&trip(0, 1_000_000, *net), &format!("m{m}"), "x", false)).collect();
        let groups = groups(&trades, |t| &t.symbol);
        prop_assert_eq!(groups.iter().map(|g| g.trades).sum::<usize>(), nets.len());
        let net: f64 = groups.iter().map(|g| g.net).sum();
        prop_assert!((net - nets.iter().map(|(n, _)| *n as f64).sum::<f64>()).abs() < 1e-9);
    }

    #[test]
    fn months_multiply_to_the_total(equity in prop::collection::vec(1i64..1_000, 1..60), step_days in 1i64..20) {
        let points: Vec<Point> = equity.iter().enumerate().map(|(i, e)| point(i as i64 * step_days * DAY_MS, *e)).collect();
        let years = months(100.0, &points);
        let product: f64 = years.iter().flat_map(|y| y.months.iter().flatten()).map(|r| 1.0 + r).product();
        let whole = *equity.last().unwrap() as f64 / 100.0;
        prop_assert!((product / whole - 1.0).abs() < 1e-9);
        let by_year: f64 = years.iter().map(|y| 1.0 + y.total).product();
        prop_assert!((by_year / whole - 1.0).abs() < 1e-9);
    }

    #[test]
    fn folded_candles_hold_the_same_range(prices in prop::collection::vec(1.0f64..100.0, 1..2_000)) {
        let bars: Vec<Bar> = prices.iter().enumerate().map(|(i, p)| {
            let open_ms = i as i64 * 60_000;
            Bar { open_ms, close_ms: open_ms + 60_000, open: *p, high: p + 1.0, low: p - 0.5, close: p + 0.2 }
        }).collect();
        let (folded, per_bar) = folded(&bars);
        prop_assert!(folded.len() <= BARS_MAX && per_bar * folded.len() >= bars.len());
        let high = |highs: &mut dyn Iterator<Item = f64>| highs.fold(0.0, f64::max);
        prop_assert_eq!(high(&mut folded.iter().map(|b| b.high)), high(&mut bars.iter().map(|b| b.high)));
        prop_assert_eq!((folded[0].open, folded.last().unwrap().close), (bars[0].open, bars.last().unwrap().close));
        prop_assert!(folded.windows(2).all(|w| w[0].close_ms == w[1].open_ms));
    }
}
