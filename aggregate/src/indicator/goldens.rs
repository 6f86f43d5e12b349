//! Every recommended output against the values that public libraries computed from real data.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use super::registry::output_names;
use super::{Ohlcv, Set};

/// Rows of a gzipped CSV by column name.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(path: &Path) -> Self {
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip of text");
        let mut lines = text.lines();
        let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        Self { columns: cells(lines.next().expect("a header")), rows: lines.map(cells).collect() }
    }
    fn column(&self, name: &str) -> impl Iterator<Item = &str> {
        let at = self.columns.iter().position(|column| column == name).unwrap_or_else(|| panic!("no column {name}"));
        self.rows.iter().map(move |row| row[at].as_str())
    }
    fn numbers(&self, name: &str) -> Vec<f64> {
        self.column(name).map(|cell| if cell.is_empty() { f64::NAN } else { cell.parse().expect(cell) }).collect()
    }
}

struct Golden {
    dataset: String,
    output: String,
    column: String,
    scale: f64,
}

fn recommended(folder: &Path) -> Vec<Golden> {
    let text = std::fs::read_to_string(folder.join("MANIFEST.json")).expect("the manifest");
    let manifest: Vec<serde_json::Value> = serde_json::from_str(&text).expect("a list");
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().expect(key).to_owned();
    let entries = manifest.iter().filter(|entry| entry["recommended"].as_bool() == Some(true));
    let golden = |entry: &serde_json::Value| {
        let (file, column) = (text(entry, "file"), text(entry, "column"));
        let stem = file.split('/').next_back().and_then(|name| name.strip_suffix(".csv.gz")).expect("a file name");
        let output = format!("{stem}.{}", column.rsplit_once("__").expect("a library").0);
        Golden { dataset: text(entry, "dataset"), output, column, scale: entry["scale"].as_f64().expect("a scale") }
    };
    entries.map(golden).collect()
}

fn bars(table: &Table) -> Vec<Ohlcv> {
    let [times, open, high, low, close, volume] =
        ["open_ts_ms", "open", "high", "low", "close", "volume"].map(|name| table.numbers(name));
    let bar = |i: usize| Ohlcv {
        open_ns: times[i] as i64 * 1_000_000,
        open: open[i],
        high: high[i],
        low: low[i],
        close: close[i],
        volume: volume[i],
    };
    (0..times.len()).map(bar).collect()
}

/// 0/0 windows, where every library answers something else; they are left out for these families.
const ZERO_BY_ZERO: &[&str] = &["cci", "stochrsi", "stoch", "willr", "mfi", "kama", "talib_extra"];

#[test]
fn every_recommended_output_is_that_of_the_public_libraries() {
    let Some(root) = schemas::fixtures::root() else { return };
    let folder = root.join("goldens/indicators");
    let goldens = recommended(&folder);
    let datasets: BTreeSet<&str> = goldens.iter().map(|golden| golden.dataset.as_str()).collect();
    let (mut failures, mut passed) = (Vec::new(), 0);
    for dataset in datasets {
        let folder = folder.join(dataset);
        let bars = bars(&Table::read(&folder.join("sma.csv.gz")));
        let seconds = bars.windows(2).map(|w| (w[1].open_ns - w[0].open_ns) / 1_000_000_000).min().expect("bars");
        let columns: BTreeMap<_, _> = Set::new(None, seconds as u32).unwrap().run(&bars).0.into_iter().collect();
        let degenerate = Table::read(&folder.join("degenerate_rows.csv.gz"));
        let degenerate: Vec<bool> = degenerate.rows.iter().map(|row| row[6..].iter().any(|cell| cell == "1")).collect();
        for golden in goldens.iter().filter(|golden| golden.dataset == dataset) {
            let stem = super::family(&golden.output);
            let table = Table::read(&folder.join(format!("{stem}.csv.gz")));
            let (want, got) = (table.numbers(&golden.column), &columns[golden.output.as_str()]);
            assert_eq!(want.len(), got.len());
            let first = if stem == "supertrend" { 60 } else { 0 };
            let off = (first..want.len()).find(|&i| {
                let undefined = degenerate[i] && ZERO_BY_ZERO.contains(&stem);
                let equal = (want[i].is_nan() && got[i].is_nan())
                    || (want[i] - got[i]).abs() <= 1e-9 * want[i].abs().max(golden.scale);
                !(equal || undefined)
            });
            match off {
                Some(i) => failures.push(format!("{dataset} {} row {i}: {} for {}", golden.output, got[i], want[i])),
                None => passed += 1,
            }
        }
    }
    assert!(failures.is_empty(), "{passed} passed, {} failed:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(passed, goldens.len());
}

#[test]
fn every_recommended_output_has_a_name_here() {
    let Some(root) = schemas::fixtures::root() else { return };
    let ours: BTreeSet<&str> = output_names().collect();
    let goldens = recommended(&root.join("goldens/indicators"));
    let theirs: BTreeSet<&str> = goldens.iter().map(|golden| golden.output.as_str()).collect();
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert_eq!(theirs.len(), 84);
}
