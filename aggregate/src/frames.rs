//! Candles and indicators as polars frames, for research, warm-up, prompts and reports.
//!
//! Times are whole numbers of nanoseconds, prices floats: frames are statistics, nothing is booked with them. The
//! indicator columns come from the same kernels as the live stream and have the same bits; where the stream is
//! silent a frame has null.
//!
//! A row is known at its `close_ts_ns` and not before. [`join_timeframes`] keeps to that: what stands in a row was
//! known when the row's own candle closed.

use std::io::{BufRead, Write};

use polars::prelude::*;
use schemas::config::ConfigError;
use schemas::{Timeframe, WireError};

use crate::indicator::set::Room;
use crate::indicator::{BLOCK_BARS, Block, Ohlcv, Set};

mod column;

use column::ColumnWriter;

/// Start of a bar, event time, nanoseconds since 1970 UTC.
pub const OPEN_TS_NS: &str = "open_ts_ns";
/// First instant behind a bar: when its row becomes known.
pub const CLOSE_TS_NS: &str = "close_ts_ns";

/// A frame cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("polars")]
    Polars(#[from] PolarsError),
    #[error("candles: {0}")]
    Candles(String),
    #[error("read candles")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Bars as a frame: `open_ts_ns, close_ts_ns, open, high, low, close, volume`, one row each, in time order.
pub fn frame(bars: &[Ohlcv], timeframe: Timeframe) -> Result<LazyFrame, FrameError> {
    let times = |shift: i64| bars.iter().map(|bar| bar.open_ns + shift).collect::<Vec<i64>>();
    let numbers = |pick: fn(&Ohlcv) -> f64| bars.iter().map(pick).collect::<Vec<f64>>();
    let columns = vec![
        Column::new(OPEN_TS_NS.into(), times(0)),
        Column::new(CLOSE_TS_NS.into(), times(timeframe.ns())),
        Column::new("open".into(), numbers(|bar| bar.open)),
        Column::new("high".into(), numbers(|bar| bar.high)),
        Column::new("low".into(), numbers(|bar| bar.low)),
        Column::new("close".into(), numbers(|bar| bar.close)),
        Column::new("volume".into(), numbers(|bar| bar.volume)),
    ];
    Ok(DataFrame::new(bars.len(), columns)?.lazy())
}

/// The bars that a frame with `open_ts_ns, open, high, low, close, volume` holds. Times must rise and numbers be
/// finite: a null has no place in a candle.
pub fn bars(frame: &DataFrame) -> Result<Vec<Ohlcv>, FrameError> {
    let mut candles = Candles::of(frame)?;
    let (mut block, mut bars) = (Block::default(), Vec::with_capacity(frame.height()));
    while let Some(len) = candles.read(&mut block)? {
        bars.extend((0..len).map(|i| block.bar(i)));
    }
    Ok(bars)
}

/// The columns of a frame of candles, read a block at a time.
struct Candles {
    open_ns: Int64Chunked,
    /// open, high, low, close, volume.
    numbers: [Float64Chunked; 5],
    next: usize,
    before_ns: Option<i64>,
}

const NUMBERS: [&str; 5] = ["open", "high", "low", "close", "volume"];

impl Candles {
    fn of(frame: &DataFrame) -> Result<Self, FrameError> {
        let times = frame.column(OPEN_TS_NS)?.cast(&DataType::Int64)?;
        let open_ns = times.i64()?.rechunk().into_owned();
        if let Some(row) = first_null(&open_ns) {
            return Err(FrameError::Candles(format!("row {row} has no {OPEN_TS_NS}")));
        }
        let number = |name: &str| -> Result<Float64Chunked, FrameError> {
            let column = frame.column(name)?.cast(&DataType::Float64)?;
            let column = column.f64()?.rechunk().into_owned();
            let missing = |row| Err(FrameError::Candles(format!("row {row} has no finite {name}")));
            first_null(&column).map_or(Ok(()), missing)?;
            Ok(column)
        };
        let [open, high, low, close, volume] = NUMBERS.map(number);
        Ok(Self { open_ns, numbers: [open?, high?, low?, close?, volume?], next: 0, before_ns: None })
    }

    /// Puts the next bars where the block begins and says how many; `None` at the end.
    fn read(&mut self, block: &mut Block) -> Result<Option<usize>, FrameError> {
        let times = self.open_ns.cont_slice()?;
        let from = self.next;
        let times = &times[from..times.len().min(from + BLOCK_BARS)];
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(None) };
        let rises = self.before_ns.is_none_or(|before| before < *first);
        if !(rises && times.windows(2).fold(true, |rises, pair| rises & (pair[0] < pair[1]))) {
            let falls = |pair: &[i64]| pair[0] >= pair[1];
            let row = if rises { times.windows(2).position(falls).map_or(from, |at| from + at + 1) } else { from };
            return Err(FrameError::Candles(format!("row {row} does not open after the one before")));
        }
        self.before_ns = Some(*last);
        self.next += times.len();
        block.open_ns[..times.len()].copy_from_slice(times);
        let columns = [&mut block.open, &mut block.high, &mut block.low, &mut block.close, &mut block.volume];
        for ((name, numbers), column) in NUMBERS.into_iter().zip(&self.numbers).zip(columns) {
            let column = &mut column[..times.len()];
            column.copy_from_slice(&numbers.cont_slice()?[from..from + times.len()]);
            // All at once first: whoever looks for the row pays for it.
            if !column.iter().fold(true, |finite, value| finite & value.is_finite()) {
                let row = from + column.iter().position(|value| !value.is_finite()).unwrap_or(0);
                return Err(FrameError::Candles(format!("row {row} has no finite {name}")));
            }
        }
        Ok(Some(times.len()))
    }
}

fn first_null<T: PolarsNumericType>(column: &ChunkedArray<T>) -> Option<usize> {
    if column.null_count() == 0 { None } else { column.iter().position(|value| value.is_none()) }
}

/// One series per output (`None` = all), as long as `bars`; null where the indicator has no value.
pub fn indicator_series(
    bars: &[Ohlcv],
    outputs: Option<&[String]>,
    timeframe: Timeframe,
) -> Result<Vec<Series>, FrameError> {
    let mut set = Set::new(outputs, timeframe.seconds())?;
    Ok(continued(&mut set, bars))
}

/// The same for a set that has heard the bars before these (warm-up); it goes on from there.
pub fn continued(set: &mut Set, bars: &[Ohlcv]) -> Vec<Series> {
    let mut blocks = bars.chunks(BLOCK_BARS);
    let read = |block: &mut Block| {
        Ok::<_, std::convert::Infallible>(blocks.next().map(|bars| {
            block.fill(bars);
            bars.len()
        }))
    };
    let Ok(series) = series(set, bars.len(), read);
    series
}

/// Runs the set over the blocks that `read` gives, `rows` bars in all, into a series per wanted output.
fn series<E>(
    set: &mut Set,
    rows: usize,
    mut read: impl FnMut(&mut Block) -> Result<Option<usize>, E>,
) -> Result<Vec<Series>, E> {
    let mut writers: Vec<_> = set.names().map(|name| (name, ColumnWriter::new(rows))).collect();
    let mut room = Room::default();
    while let Some(len) = read(&mut room.bars)? {
        set.run_block(&mut room, len);
        for ((_, writer), said) in writers.iter_mut().zip(set.said(&room, len)) {
            writer.extend(said);
        }
    }
    Ok(writers.into_iter().map(|(name, writer)| writer.series(name)).collect())
}

/// `candles` (see [`bars`]; other columns stay) with one column per output behind them, named like the output.
pub fn indicator_frame(
    candles: &DataFrame,
    outputs: Option<&[String]>,
    timeframe: Timeframe,
) -> Result<LazyFrame, FrameError> {
    let mut set = Set::new(outputs, timeframe.seconds())?;
    let mut bars = Candles::of(candles)?;
    let mut columns = candles.columns().to_vec();
    columns.extend(series(&mut set, candles.height(), |block| bars.read(block))?.into_iter().map(Column::from));
    Ok(DataFrame::new(candles.height(), columns)?.lazy())
}

/// `base` with the columns of higher timeframes, named `<timeframe>.<column>`, such as `1h.rsi.rsi_14`.
///
/// Each frame has `close_ts_ns` and is in its order. A higher row is seen by the base rows whose own candle closed at
/// its close or later, and is replaced by the next one: no row holds anything from after its close. Before the first
/// higher close the columns are null. `1h.close_ts_ns` tells how old the row is.
pub fn join_timeframes(
    base: LazyFrame,
    higher: impl IntoIterator<Item = (Timeframe, LazyFrame)>,
) -> Result<LazyFrame, FrameError> {
    let mut joined = base;
    for (timeframe, frame) in higher {
        let prefix = format!("{timeframe}.");
        let key = format!("{prefix}{CLOSE_TS_NS}");
        let named = frame.select([all().as_expr().name().prefix(&prefix)]);
        let backward = AsOfOptions {
            strategy: AsofStrategy::Backward,
            tolerance: None,
            tolerance_str: None,
            left_by: None,
            right_by: None,
            allow_eq: true,
            check_sortedness: true,
        };
        joined = joined
            .join_builder()
            .with(named)
            .left_on([col(CLOSE_TS_NS)])
            .right_on([col(key)])
            .how(JoinType::AsOf(Box::new(backward)))
            .coalesce(JoinCoalesce::KeepColumns)
            .finish();
    }
    Ok(joined)
}

/// Candles in CSV with a header that has at least `open_ts_ms, open, high, low, close, volume`.
pub fn read_csv(reader: impl BufRead) -> Result<Vec<Ohlcv>, FrameError> {
    let mut lines = reader.lines();
    let header = lines.next().transpose()?.ok_or_else(|| FrameError::Candles("no header line".into()))?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let place = |name: &str| {
        let missing = || FrameError::Candles(format!("no column `{name}` in `{header}`"));
        names.iter().position(|column| *column == name).ok_or_else(missing)
    };
    let time = place("open_ts_ms")?;
    let places = [place("open")?, place("high")?, place("low")?, place("close")?, place("volume")?];
    let mut bars: Vec<Ohlcv> = Vec::new();
    for (i, line) in lines.enumerate() {
        let (number, line) = (i + 2, line?);
        if line.is_empty() {
            continue;
        }
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default().trim();
        let wrong = |at: usize| FrameError::Candles(format!("line {number}: `{}` is no {}", cell(at), names[at]));
        let open_ms: i64 = cell(time).parse().map_err(|_| wrong(time))?;
        let open_ns = open_ms.checked_mul(1_000_000).ok_or_else(|| wrong(time))?;
        if bars.last().is_some_and(|last| last.open_ns >= open_ns) {
            return Err(FrameError::Candles(format!("line {number} does not open after the one before")));
        }
        let mut numbers = [0.0; 5];
        for (value, at) in numbers.iter_mut().zip(places) {
            *value = cell(at).parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| wrong(at))?;
        }
        let [open, high, low, close, volume] = numbers;
        bars.push(Ohlcv { open_ns, open, high, low, close, volume });
    }
    Ok(bars)
}

/// The timeframe of bars: their most common distance, the smaller of equally common ones. `None` for fewer than two
/// bars and for distances that are no timeframe.
pub fn timeframe_of(bars: &[Ohlcv]) -> Option<Timeframe> {
    let mut counts = std::collections::BTreeMap::<i64, usize>::new();
    for pair in bars.windows(2) {
        *counts.entry(pair[1].open_ns - pair[0].open_ns).or_default() += 1;
    }
    let (distance_ns, _) = counts.into_iter().max_by_key(|&(distance, count)| (count, -distance))?;
    let seconds = distance_ns / 1_000_000_000;
    (seconds * 1_000_000_000 == distance_ns).then(|| format!("{seconds}s").parse().ok()).flatten()
}

/// All indicators of candles in CSV (see [`read_csv`]) as CSV: `open_ts_ms` and one column per output, empty = no
/// value, numbers in the shortest form that reads back to the same bits.
pub fn indicators_csv(reader: impl BufRead, mut writer: impl Write) -> Result<(), FrameError> {
    let candles = read_csv(reader)?;
    let timeframe = match timeframe_of(&candles) {
        Some(timeframe) => timeframe,
        // One candle has no distance; nothing annualised can have a value then, so any length will do.
        None if candles.len() < 2 => Timeframe::DEFAULT[0].parse().expect("Invariant: a default timeframe"),
        None => return Err(FrameError::Candles("the distance between candles is no timeframe (1s to 7d)".into())),
    };
    let table = indicator_frame(&frame(&candles, timeframe)?.collect()?, None, timeframe)?.collect()?;
    write_csv(&table, &mut writer)?;
    Ok(())
}

fn write_csv(table: &DataFrame, writer: &mut impl Write) -> Result<(), FrameError> {
    // An output has a dot in its name, a candle's column has none.
    let outputs: Vec<&Column> = table.columns().iter().filter(|column| column.name().contains('.')).collect();
    let mut text = String::from("open_ts_ms");
    for column in &outputs {
        text.push(',');
        text.push_str(column.name());
    }
    text.push('\n');
    let times = table.column(OPEN_TS_NS)?.i64()?;
    let outputs: Vec<&Float64Chunked> = outputs.into_iter().map(Column::f64).collect::<Result<_, _>>()?;
    let mut rows: Vec<_> = outputs.into_iter().map(|column| column.iter()).collect();
    for time in times.iter() {
        let time = time.expect("Invariant: candles have times");
        text.push_str(&(time / 1_000_000).to_string());
        for value in rows.iter_mut().map(Iterator::next) {
            text.push(',');
            if let Some(value) = value.flatten() {
                text.push_str(&format!("{value:?}"));
            }
        }
        text.push('\n');
        writer.write_all(text.as_bytes())?;
        text.clear();
    }
    // A table without rows still has its header.
    writer.write_all(text.as_bytes())?;
    writer.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::indicator::registry::output_names;
    use crate::indicator::set::tests::{market, same, streamed};

    fn timeframe(text: &str) -> Timeframe {
        text.parse().unwrap()
    }
    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }
    fn numbers(column: &Column) -> Vec<f64> {
        column.f64().unwrap().iter().map(|value| value.unwrap_or(f64::NAN)).collect()
    }

    /// Bars folded to `length`, only those whose whole bucket is there.
    fn folded(bars: &[Ohlcv], length: Timeframe) -> Vec<Ohlcv> {
        let whole = usize::try_from(length.seconds() / 60).unwrap();
        let bucket = |bar: &Ohlcv| bar.open_ns.div_euclid(length.ns());
        let fold = |part: &[Ohlcv]| Ohlcv {
            open_ns: part[0].open_ns,
            open: part[0].open,
            high: part.iter().map(|bar| bar.high).fold(f64::NEG_INFINITY, f64::max),
            low: part.iter().map(|bar| bar.low).fold(f64::INFINITY, f64::min),
            close: part[part.len() - 1].close,
            volume: part.iter().map(|bar| bar.volume).sum(),
        };
        bars.chunk_by(|a, b| bucket(a) == bucket(b)).filter(|part| part.len() == whole).map(fold).collect()
    }

    /// What somebody knew who had these one-minute bars and nothing else.
    fn known(bars: &[Ohlcv]) -> DataFrame {
        let outputs = names(&["ema.ema_9", "rsi.rsi_7"]);
        let with = |bars: &[Ohlcv], length| {
            let candles = frame(bars, length).unwrap().collect().unwrap();
            indicator_frame(&candles, Some(&outputs), length).unwrap()
        };
        let (m1, m3, m5) = (timeframe("1m"), timeframe("3m"), timeframe("5m"));
        let higher = [(m3, with(&folded(bars, m3), m3)), (m5, with(&folded(bars, m5), m5))];
        join_timeframes(with(bars, m1), higher).unwrap().collect().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn a_frame_has_the_bits_of_the_stream_even_of_one_saved_and_restored(bars in market(0..700), cut in 0usize..700) {
            let candles = frame(&bars, timeframe("1m")).unwrap().collect().unwrap();
            let table = indicator_frame(&candles, None, timeframe("1m")).unwrap().collect().unwrap();
            let columns: Vec<_> = output_names().map(|name| (name, numbers(table.column(name).unwrap()))).collect();
            prop_assert!(same(&columns, &streamed(None, &bars, cut)));
        }

        #[test]
        fn no_future_changes_an_earlier_joined_row(bars in market(1..120), other in market(1..60), cut in 1usize..120) {
            let cut = cut.min(bars.len());
            let past = known(&bars[..cut]);
            prop_assert_eq!(past.height(), cut);
            let all = known(&bars).head(Some(cut));
            prop_assert!(past.equals_missing(&all), "{past:?}\n{all:?}");
            // Another future that goes on from the same minute.
            let next = bars[cut - 1].open_ns;
            let other = other.iter().zip(1..).map(|(bar, i)| Ohlcv { open_ns: next + i * 60_000_000_000, ..*bar });
            let elsewhere: Vec<Ohlcv> = bars[..cut].iter().copied().chain(other).collect();
            prop_assert!(past.equals_missing(&known(&elsewhere).head(Some(cut))));
        }
    }

    fn bar(minute: i64, close: f64) -> Ohlcv {
        Ohlcv { open_ns: minute * 60_000_000_000, open: close, high: close, low: close, close, volume: 1.0 }
    }

    #[test]
    fn a_higher_row_is_seen_from_the_base_row_that_closes_with_it() {
        let base: Vec<Ohlcv> = (0..8).map(|minute| bar(minute, minute as f64)).collect();
        let m3 = timeframe("3m");
        let higher = frame(&folded(&base, m3), m3).unwrap();
        let joined =
            join_timeframes(frame(&base, timeframe("1m")).unwrap(), [(m3, higher)]).unwrap().collect().unwrap();
        let seen: Vec<_> = joined.column("3m.close").unwrap().f64().unwrap().iter().collect();
        assert_eq!(seen, [None, None, Some(2.0), Some(2.0), Some(2.0), Some(5.0), Some(5.0), Some(5.0)]);
        assert_eq!(numbers(joined.column("close").unwrap()), (0..8).map(f64::from).collect::<Vec<_>>());
        let closed = joined.column("3m.close_ts_ns").unwrap().i64().unwrap();
        assert_eq!((closed.get(1), closed.get(2)), (None, Some(180_000_000_000)));
    }

    #[test]
    fn a_frame_that_is_not_in_order_is_refused() {
        let m1 = timeframe("1m");
        let text = |bars: &[Ohlcv]| {
            let candles = frame(bars, m1).unwrap().collect().unwrap();
            indicator_frame(&candles, None, m1).err().unwrap().to_string()
        };
        assert_eq!(text(&[bar(1, 1.0), bar(0, 1.0)]), "candles: row 1 does not open after the one before");
        assert_eq!(text(&[bar(1, 1.0), bar(2, f64::NAN)]), "candles: row 1 has no finite open");
        let backwards = frame(&[bar(5, 1.0), bar(2, 1.0)], m1).unwrap();
        assert!(join_timeframes(frame(&[bar(1, 1.0)], m1).unwrap(), [(m1, backwards)]).unwrap().collect().is_err());
    }

    /// Three of the output columns, or the error.
    fn check(csv: &str, expect: Expect) {
        let mut out = Vec::new();
        if let Err(e) = indicators_csv(csv.as_bytes(), &mut out) {
            return expect.assert_eq(&e.to_string());
        }
        let text = String::from_utf8(out).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        assert_eq!(header[1..], output_names().collect::<Vec<_>>());
        let picked = ["open_ts_ms", "atr.tr", "obv.obv", "ema.ema_9"]
            .map(|name| header.iter().position(|column| *column == name).unwrap());
        let row = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells.len(), header.len());
            picked.map(|at| cells[at]).join(",")
        };
        expect.assert_eq(&text.lines().map(row).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn csv_in_csv_out_with_empty_cells_where_there_is_nothing_yet() {
        check(
            "open_ts_ms,open,high,low,close,volume,trades\n0,1,3,1,2,5,1\n60000,2,2.5,1.5,2.1,0.1,7\n",
            expect![[r#"
                open_ts_ms,atr.tr,obv.obv,ema.ema_9
                0,,5.0,
                60000,1.0,5.1,"#]],
        );
    }

    #[test]
    fn candles_that_cannot_be_read_are_named_by_line() {
        check(
            "open_ts_ms,open,high,low,close\n",
            expect!["candles: no column `volume` in `open_ts_ms,open,high,low,close`"],
        );
        let header = "open_ts_ms,open,high,low,close,volume\n";
        check(&format!("{header}0,1,x,1,1,1\n"), expect!["candles: line 2: `x` is no high"]);
        check(&format!("{header}0,1,1,1,1\n"), expect!["candles: line 2: `` is no volume"]);
        check(
            &format!("{header}0,1,1,1,1,1\n0,1,1,1,1,1\n"),
            expect!["candles: line 3 does not open after the one before"],
        );
        check("", expect!["candles: no header line"]);
    }

    #[test]
    fn the_most_common_distance_is_the_timeframe() {
        let at = |minutes: &[i64]| timeframe_of(&minutes.iter().map(|&m| bar(m, 1.0)).collect::<Vec<_>>());
        assert_eq!(at(&[0, 5, 10, 25, 30, 45]), Some(timeframe("5m")));
        assert_eq!(at(&[0, 1, 6]), Some(timeframe("1m")));
        assert_eq!(at(&[0]), None);
    }
}
