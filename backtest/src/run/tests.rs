use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::*;

fn gunzip(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn near(mine: f64, golden: f64, tolerance: f64, scale: f64) -> bool {
    (mine - golden).abs() <= tolerance * golden.abs().max(scale)
}

/// One golden case: trades, equity and statistics within the tolerances of the goldens' README.
fn equals_the_golden(case: &Path, stem: &str) {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    let (_, strategy) = name.split_once("__").unwrap();
    let golden: Value =
        serde_json::from_reader(std::fs::File::open(case.join(format!("{stem}.stats.json"))).unwrap()).unwrap();
    let standard = golden["standard"].as_object().unwrap();
    let sizing = if stem == "fixed" { format!("fixed:{}", golden["units"]) } else { "equity:0.5".to_owned() };
    let cash = standard["initial_cash"].as_f64().unwrap();
    let report = run_candles(
        &CandleOptions {
            candles: case.join("signals.csv.gz"),
            strategy: strategy.parse().unwrap(),
            sizing: Some(sizing.parse().unwrap()),
            fee_bps: Decimal::from(5),
            slippage_bps: Decimal::ZERO,
            initial_cash: standard["initial_cash"].to_string().parse().unwrap(),
            user: None,
        },
        |_| (),
    )
    .unwrap();

    // The trade list of `fraction50` divides entry prices back out of a cost held as a double (104579.99999999999 for
    // an order at 104580). Its list of orders has the prices themselves, so exact prices are compared with those.
    let orders = case.join(format!("{stem}.orders.csv.gz"));
    let orders: Option<BTreeMap<String, Price>> = orders.exists().then(|| {
        gunzip(&orders).into_iter().map(|row| (row["ts_ms"].clone(), row["price"].parse().unwrap())).collect()
    });
    let trips = gunzip(&case.join(format!("{stem}.trades.csv.gz")));
    assert_eq!(trips.len(), report.trips.len(), "{name} {stem}: closed trades");
    for (i, (want, got)) in trips.iter().zip(&report.trips).enumerate() {
        let at = format!("{name} {stem}: trade {i}");
        assert_eq!(want["side"] == "long", got.long, "{at}");
        assert_eq!(
            (want["entry_ts_ms"].parse::<i64>().unwrap(), want["exit_ts_ms"].parse::<i64>().unwrap()),
            (Nanos(got.entry_ns).as_ms(), Nanos(got.exit_ns).as_ms()),
            "{at}"
        );
        let price = |column: &str, at_ms: &str| match &orders {
            Some(orders) => orders[&want[at_ms]],
            None => want[column].parse::<Price>().unwrap(),
        };
        assert_eq!(
            (price("entry_price", "entry_ts_ms"), price("exit_price", "exit_ts_ms")),
            (got.entry_price, got.exit_price),
            "{at}"
        );
        // The trade list's own column, to the last bit: doubles where sizes are shares of the equity.
        let listed = got.entry_double.unwrap_or_else(|| got.entry_price.to_f64());
        assert_eq!(listed.to_bits(), want["entry_price"].parse::<f64>().unwrap().to_bits(), "{at}");
        assert!(near(got.units.to_f64(), want["units"].parse().unwrap(), 1e-9, 1.0), "{at}: {} units", got.units);
        assert!(near(got.net.to_f64(), want["net_pnl"].parse().unwrap(), 1e-9, cash), "{at}: net {}", got.net);
    }
    let equity = gunzip(&case.join(format!("{stem}.equity.csv.gz")));
    assert_eq!(equity.len(), report.equity.len(), "{name} {stem}: bars");
    for (want, got) in equity.iter().zip(&report.equity) {
        assert_eq!(want["open_ts_ms"].parse::<i64>().unwrap(), got.open_ms);
        assert!(
            near(got.equity.to_f64(), want["equity_vectorbt"].parse().unwrap(), 1e-9, cash),
            "{name} {stem} at {}: {}",
            got.open_ms,
            got.equity
        );
    }
    let stats = serde_json::to_value(&report.stats).unwrap();
    for (key, want) in standard {
        let tolerance =
            if ["sharpe", "sortino", "volatility"].iter().any(|k| key.starts_with(k)) { 1e-6 } else { 1e-9 };
        let money = ["final_equity", "fees_paid_in_closed_trades", "sum_net_wins", "sum_net_losses", "mean_net"]
            .contains(&key.as_str());
        let (mine, want) = (stats[key].as_f64(), want.as_f64().unwrap());
        assert!(
            mine.is_some_and(|mine| near(mine, want, tolerance, if money { cash } else { 1.0 })),
            "{name} {stem}: {key} {mine:?}, golden {want}"
        );
    }
}

#[test]
fn candle_backtests_equal_the_goldens_of_two_other_engines() {
    let Some(root) = schemas::fixtures::root() else { return };
    let mut cases: Vec<_> =
        std::fs::read_dir(root.join("goldens/backtests")).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert_eq!(cases.len(), 4);
    for case in &cases {
        equals_the_golden(case, "fixed");
        equals_the_golden(case, "fraction50");
    }
}

/// Prices that wander, from a seed; steps of a cent around 100.
fn wander(seed: u64, n: usize) -> Vec<i64> {
    let (mut state, mut cents) = (seed, 10_000i64);
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        cents = (cents + (state >> 33) as i64 % 41 - 20).max(1_000);
        cents
    };
    (0..n).map(step).collect()
}

fn text_file(header: &str, rows: &[String]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{header}\n{}\n", rows.join("\n"))).unwrap();
    file
}

fn cents(n: i64) -> String {
    Decimal::new(n, 2).to_string()
}

/// Three trades a second.
fn trades_file(prices: &[i64]) -> tempfile::NamedTempFile {
    let row = |(i, p): (usize, &i64)| {
        let ts_ns = 1_700_000_000_000_000_000 + i as i64 * 333_000_000;
        format!("{i},{ts_ns},{},{},{},{}", i + 1, cents(*p), 1 + i % 5, if i % 2 == 0 { "buy" } else { "sell" })
    };
    let rows: Vec<String> = prices.iter().enumerate().map(row).collect();
    text_file("seq,ts_ns,trade_id,price,qty,side", &rows)
}

fn trade_options(path: &Path, sizing: Option<&str>) -> TradeOptions {
    let mut options = TradeOptions::new(path.to_owned(), "ema_cross_2_5".parse().unwrap());
    options.timeframe = "5s".parse().unwrap();
    options.sizing = sizing.map(|text| text.parse().unwrap());
    options.initial_cash = Decimal::from(1_000);
    options
}

#[test]
fn the_future_changes_nothing_of_the_past_in_a_trades_backtest() {
    let prices = wander(7, 3_000);
    for sizing in [None, Some("equity:0.5"), Some("fixed:3")] {
        let (whole, part) = (trades_file(&prices), trades_file(&prices[..1_700]));
        let whole = run_trades(&trade_options(whole.path(), sizing), |_| ()).unwrap();
        let part = run_trades(&trade_options(part.path(), sizing), |_| ()).unwrap();
        assert!(
            part.trips.len() > 5,
            "{sizing:?}: {} trips of {:?}, refusals {:?}",
            part.trips.len(),
            part.kinds,
            part.refusals
        );
        assert_eq!(part.trips, whole.trips[..part.trips.len()]);
        // The last bar of the shorter file is cut short.
        let bars = part.equity.len() - 1;
        assert_eq!(part.equity[..bars], whole.equity[..bars]);
    }
}

#[test]
fn the_future_changes_nothing_of_the_past_in_a_candle_backtest() {
    let row = |(i, p): (usize, &[i64])| {
        let (high, low) = (p.iter().max().unwrap(), p.iter().min().unwrap());
        format!("{},{},{},{},{},1", i * 60_000, cents(p[0]), cents(*high), cents(*low), cents(p[3]))
    };
    let prices = wander(11, 4_000);
    let rows: Vec<String> = prices.chunks_exact(4).enumerate().map(row).collect();
    let header = "open_ts_ms,open,high,low,close,volume";
    // Every strategy, so that those that need indicators are played as well.
    for kind in strategy::STRATEGIES {
        let run = |rows: &[String], sizing: Option<&str>| {
            let file = text_file(header, rows);
            let options = CandleOptions {
                candles: file.path().to_owned(),
                strategy: kind.name().parse().unwrap(),
                sizing: sizing.map(|text| text.parse().unwrap()),
                fee_bps: Decimal::from(5),
                slippage_bps: Decimal::from(1),
                initial_cash: Decimal::from(10_000),
                user: None,
            };
            run_candles(&options, |_| ()).unwrap()
        };
        for sizing in [Some("equity:0.5"), None] {
            let (whole, part) = (run(&rows, sizing), run(&rows[..600], sizing));
            let at = format!("{} {sizing:?}: {:?} {:?}", kind.name(), part.kinds, part.refusals);
            assert!(!part.trips.is_empty(), "{at}");
            assert_eq!(part.trips, whole.trips[..part.trips.len()], "{at}");
            assert_eq!(part.equity, whole.equity[..600], "{at}");
        }
    }
}

#[test]
fn two_runs_over_a_recording_say_the_same_bytes_and_another_fee_says_others() {
    let Some(root) = schemas::fixtures::root() else { return };
    let file = root.join("data/ticks/binance_usdm_BTCUSDT_2024-08-08T2354.trades.csv.gz");
    let mut options = TradeOptions::new(file, "ema_cross_2_5".parse().unwrap());
    options.timeframe = "5s".parse().unwrap();
    let mut seen = Vec::new();
    let first = run_trades(&options, |progress| seen.push(progress)).unwrap();
    assert_eq!(run_trades(&options, |_| ()).unwrap(), first);
    assert!(first.kinds["fill"] > 0 && first.kinds["order"] > 0 && !first.trips.is_empty(), "{:?}", first.kinds);
    let last = seen.last().unwrap();
    assert_eq!((Some(last.done), last.fills), (last.total, first.kinds["fill"]));
    options.fee_bps = Decimal::from(6);
    assert_ne!(run_trades(&options, |_| ()).unwrap().hash, first.hash);
}

#[test]
fn a_report_is_three_files() {
    let file = trades_file(&wander(3, 900));
    let report = run_trades(&trade_options(file.path(), Some("fixed:2")), |_| ()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    report.write(&dir.path().join("new")).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("new").join(name)).unwrap();
    assert_eq!(read("trades.csv").lines().count(), report.trips.len() + 1);
    assert_eq!(read("equity.csv").lines().count(), report.equity.len() + 1);
    let stats: Value = serde_json::from_str(&read("stats.json")).unwrap();
    assert_eq!(stats["closed_trades"].as_u64(), Some(report.trips.len() as u64));
}
