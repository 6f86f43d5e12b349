//! Files that a backtest plays.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use schemas::num::parse_decimal;
use schemas::{Decimal, Price, Qty, Side, Timeframe};

/// Rows of a CSV file by column name, and where they stand.
struct Table {
    rows: csv::Reader<Box<dyn Read>>,
    names: StringRecord,
}

impl Table {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let zipped = path.extension().is_some_and(|e| e == "gz");
        let bytes: Box<dyn Read> =
            if zipped { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
        let mut rows = csv::Reader::from_reader(bytes);
        let names = rows.headers().with_context(|| format!("read the header of {}", path.display()))?.clone();
        Ok(Self { rows, names })
    }
    fn column(&self, name: &str) -> anyhow::Result<usize> {
        self.names.iter().position(|n| n == name).with_context(|| format!("no column `{name}`"))
    }
}

fn number(row: &StringRecord, column: usize) -> anyhow::Result<Decimal> {
    let text = row.get(column).unwrap_or("");
    parse_decimal(text).with_context(|| format!("column {}", column + 1))
}

/// One candle of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    pub open_ms: i64,
    pub open: Price,
    pub high: Price,
    pub low: Price,
    pub close: Price,
    pub volume: Qty,
}

/// All candles of a file, in time order, and their length: the shortest step between two of them.
pub fn candles(path: &Path) -> anyhow::Result<(Vec<Bar>, Timeframe)> {
    let mut table = Table::open(path)?;
    let columns = ["open_ts_ms", "open", "high", "low", "close", "volume"].map(|name| table.column(name));
    let [at, open, high, low, close, volume] = columns;
    let (at, open, high, low, close, volume) = (at?, open?, high?, low?, close?, volume?);
    let mut bars: Vec<Bar> = Vec::new();
    let mut step_ms = i64::MAX;
    for (i, row) in table.rows.records().enumerate() {
        let line = i + 2;
        let bar = bar(&row?, [at, open, high, low, close, volume])
            .with_context(|| format!("{} line {line}", path.display()))?;
        if let Some(before) = bars.last() {
            ensure!(
                before.open_ms < bar.open_ms,
                "{} line {line}: {} is not behind {}",
                path.display(),
                bar.open_ms,
                before.open_ms
            );
            step_ms = step_ms.min(bar.open_ms - before.open_ms);
        }
        bars.push(bar);
    }
    ensure!(bars.len() > 1, "{} holds {} candles; at least 2", path.display(), bars.len());
    ensure!(step_ms % 1_000 == 0, "{}: candles {step_ms} ms apart; whole seconds are needed", path.display());
    let timeframe = format!("{}s", step_ms / 1_000)
        .parse()
        .with_context(|| format!("length of the candles of {}", path.display()))?;
    Ok((bars, timeframe))
}

fn bar(row: &StringRecord, columns: [usize; 6]) -> anyhow::Result<Bar> {
    let [at, open, high, low, close, volume] = columns;
    let price = |column| number(row, column).map(Price::new);
    let bar = Bar {
        open_ms: row.get(at).unwrap_or("").parse().context("open_ts_ms")?,
        open: price(open)?,
        high: price(high)?,
        low: price(low)?,
        close: price(close)?,
        volume: Qty::new(number(row, volume)?),
    };
    let inside = |p: Price| bar.low <= p && p <= bar.high;
    ensure!(
        bar.low.get() > Decimal::ZERO && inside(bar.open) && inside(bar.close),
        "open and close are not inside {}..{}",
        bar.low,
        bar.high
    );
    Ok(bar)
}

/// One trade of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Print {
    pub ts_ns: i64,
    pub id: u64,
    pub price: Decimal,
    pub qty: Decimal,
    pub side: Side,
}

/// The trades of a file, one at a time.
pub struct Prints {
    path: PathBuf,
    table: Table,
    /// Of seq, ts_ns, trade_id, price, qty, side.
    columns: [usize; 6],
    row: StringRecord,
    count: u64,
}

impl Prints {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let table = Table::open(path)?;
        let columns = ["seq", "ts_ns", "trade_id", "price", "qty", "side"].map(|name| table.column(name));
        let [seq, ts, id, price, qty, side] = columns;
        let columns = [seq?, ts?, id?, price?, qty?, side?];
        Ok(Self { path: path.to_owned(), table, columns, row: StringRecord::new(), count: 0 })
    }

    /// The next trade; `None` at the end. A file without any is an error.
    pub fn next(&mut self) -> anyhow::Result<Option<Print>> {
        if !self.table.rows.read_record(&mut self.row)? {
            ensure!(self.count > 0, "{} holds no trades", self.path.display());
            return Ok(None);
        }
        self.count += 1;
        self.print().with_context(|| format!("{} line {}", self.path.display(), self.count + 1)).map(Some)
    }

    fn print(&self) -> anyhow::Result<Print> {
        let ([seq, ts, id, price, qty, side], row) = (self.columns, &self.row);
        let whole = |column: usize| row.get(column).unwrap_or("").parse::<u64>();
        Ok(Print {
            ts_ns: row.get(ts).unwrap_or("").parse().context("ts_ns")?,
            // A source without ids is counted by its rows, from 1: 0 means "no id" further on.
            id: if row.get(id) == Some("") { whole(seq).context("seq")? + 1 } else { whole(id).context("trade_id")? },
            price: number(row, price)?,
            qty: number(row, qty)?,
            side: match row.get(side) {
                Some("buy") => Side::Buy,
                Some("sell") => Side::Sell,
                other => bail!("side is `{}`; buy or sell", other.unwrap_or("")),
            },
        })
    }
}

/// Every trade of a file in its order, and how many there are. The first error ends the reading.
pub fn trades(path: &Path, mut each: impl FnMut(Print) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    let mut prints = Prints::open(path)?;
    while let Some(print) = prints.next()? {
        each(print)?;
    }
    Ok(prints.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn candles_are_as_long_as_their_shortest_step() {
        let f =
            file("open_ts_ms,open,high,low,close,volume,x\n0,1,2,1,2,5,\n120000,2,2,2,2,0,\n180000,2,3,1.5,1.5,1,\n");
        let (bars, timeframe) = candles(f.path()).unwrap();
        assert_eq!((bars.len(), timeframe.to_string().as_str()), (3, "1m"));
        assert_eq!(bars[2].low.to_string(), "1.5");
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        for (text, part) in [
            ("open_ts_ms,open,high,low,close\n", "no column `volume`"),
            ("open_ts_ms,open,high,low,close,volume\n0,1,2,1,2,5\n0,1,2,1,2,5\n", "line 3: 0 is not behind 0"),
            ("open_ts_ms,open,high,low,close,volume\n0,1,2,1,2.5,5\n", "line 2"),
            ("open_ts_ms,open,high,low,close,volume\n0,1,2,1,x,5\n", "line 2"),
        ] {
            let error = format!("{:#}", candles(file(text).path()).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
        let error = trades(file("seq,ts_ns,trade_id,price,qty,side\n0,1,,1,1,up\n").path(), |_| Ok(())).unwrap_err();
        assert!(format!("{error:#}").contains("line 2: side is `up`"), "{error:#}");
    }

    #[test]
    fn trades_without_ids_are_counted() {
        let f = file("seq,ts_ns,trade_id,price,qty,side\n0,1,,1.5,1,buy\n1,2,,1.5,1,sell\n");
        let mut ids = Vec::new();
        trades(f.path(), |t| {
            ids.push(t.id);
            Ok(())
        })
        .unwrap();
        assert_eq!(ids, [1, 2]);
    }
}
