use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::*;

const TICKS: &str = "seq,ts_ns,trade_id,price,qty,side\n\
    0,1000000000,7,100.5,2,buy\n1,1500000000,8,101,0.25,sell\n2,4000000000,9,99.125,1,buy\n";

fn csv(fill: bool, ticks: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let result = candles_csv("1s".parse().unwrap(), fill, ticks.as_bytes(), &mut out);
    result.map(|()| String::from_utf8(out).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn a_batch_ends_with_the_candle_that_was_open() {
    expect_test::expect![[r#"
        open_ts_ms,open,high,low,close,volume,trades,buy_volume,buy_trades,quote_volume,vwap
        1000,100.5,101,100.5,101,2.25,2,2,1,226.25,100.55555555555556
        4000,99.125,99.125,99.125,99.125,1,1,1,1,99.125,99.125
    "#]]
    .assert_eq(&csv(false, TICKS).unwrap());
}

#[test]
fn a_filled_batch_repeats_the_close_through_the_silence() {
    expect_test::expect![[r#"
        open_ts_ms,open,high,low,close,volume,trades,buy_volume,buy_trades,quote_volume,vwap
        1000,100.5,101,100.5,101,2.25,2,2,1,226.25,100.55555555555556
        2000,101,101,101,101,0,0,0,0,0,
        3000,101,101,101,101,0,0,0,0,0,
        4000,99.125,99.125,99.125,99.125,1,1,1,1,99.125,99.125
    "#]]
    .assert_eq(&csv(true, TICKS).unwrap());
}

#[test]
fn a_row_that_is_no_trade_names_its_line() {
    assert_eq!(csv(false, &TICKS.replace("101,0.25,sell", "101,0.25,hold")).unwrap_err(), "line 3: side is `hold`");
    assert_eq!(csv(false, &TICKS.replace("101,", "1o1,")).unwrap_err(), "line 3: price is `1o1`");
    assert_eq!(csv(false, "seq,price\n").unwrap_err(), "line 1: no column `ts_ns`");
}

fn text_of(path: &Path) -> String {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(BufReader::new(file)).read_to_string(&mut text).expect("gzip text");
    text
}

fn tick_files(folder: &Path, found: &mut BTreeMap<String, PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("folder entry").path();
        if path.is_dir() {
            tick_files(&path, found);
            continue;
        }
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        for suffix in [".trades.csv.gz", ".aggtrades.csv.gz"] {
            if let Some(case) = name.strip_suffix(suffix) {
                found.insert(case.to_owned(), path.clone());
            }
        }
    }
}

/// The first difference between a golden file and our candles.
fn difference(golden: &str, ours: &[Candle]) -> Option<String> {
    let mut lines = golden.lines();
    let names: Vec<&str> = lines.next()?.split(',').collect();
    let at: Vec<usize> =
        HEADER.split(',').map(|h| names.iter().position(|n| *n == h).expect("golden column")).collect();
    let lines: Vec<&str> = lines.collect();
    if lines.len() != ours.len() {
        return Some(format!("{} candles expected, {} found", lines.len(), ours.len()));
    }
    for (line, candle) in lines.iter().zip(ours) {
        let cells: Vec<&str> = line.split(',').collect();
        let (want, found) = (at.iter().map(|&i| cells[i]), row(candle));
        for ((name, want), found) in HEADER.split(',').zip(want).zip(found.split(',')) {
            let same = match (name, want.is_empty() || found.is_empty()) {
                (_, true) => want == found,
                ("vwap", _) => {
                    let (w, f): (f64, f64) = (want.parse().unwrap(), found.parse().unwrap());
                    (w - f).abs() <= 1e-12 * w.abs()
                }
                _ => parse_decimal(want).unwrap() == parse_decimal(found).unwrap(),
            };
            if !same {
                return Some(format!("{} {name}: expected {want}, found {found}", candle.open_ns));
            }
        }
    }
    None
}

#[test]
fn the_candles_of_real_ticks_equal_every_golden() {
    let Some(root) = schemas::fixtures::root() else { return };
    let mut files = BTreeMap::new();
    tick_files(&root.join("data"), &mut files);
    let timeframes = Timeframe::DEFAULT.map(|tf| tf.parse().unwrap());
    let (mut compared, mut wrong) = (0, Vec::new());
    for (case, path) in files {
        let goldens = root.join("goldens/candles").join(&case);
        if !goldens.is_dir() {
            continue;
        }
        let ticks = text_of(&path);
        for (fill, form) in [(false, "sparse"), (true, "filled")] {
            let mut ours: BTreeMap<String, Vec<Candle>> = BTreeMap::new();
            candles(&timeframes, fill, ticks.as_bytes(), |c| ours.entry(c.tf.clone()).or_default().push(c)).unwrap();
            for tf in Timeframe::DEFAULT {
                let golden = text_of(&goldens.join(format!("{tf}.{form}.csv.gz")));
                compared += 1;
                wrong.extend(difference(&golden, &ours[tf]).map(|d| format!("{case} {tf} {form}: {d}")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(compared >= 16, "only {compared} golden files were found");
}
