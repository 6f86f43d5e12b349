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
            sizing: sizing.parse().unwrap(),
            fee_bps: Decimal::from(5),
            slippage_bps: Decimal::ZERO,
            initial_cash: standard["initial_cash"].to_string().parse().unwrap(),
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
        // Whatever the trade list says of a price is that of its order, but for the last bit of a double.
        assert!(near(got.entry_price.to_f64(), want["entry_price"].parse().unwrap(), 4e-16, 0.0), "{at}");
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
