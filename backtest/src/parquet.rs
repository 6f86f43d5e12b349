//! Trades from Parquet files, a row group at a time: the form that `tapeline export` writes for kind `trade`, of one
//! instrument a file.
//!
//! | column | type | |
//! |---|---|---|
//! | `venue`, `symbol` | text | the same in every row |
//! | `scale/price`, `scale/qty` | integer | digits of `price` and `size` |
//! | `ts_ns`, `id`, `price`, `size` | integer | mantissas; in the order of time |
//! | `side` | text | `b` the taker bought, `s` the taker sold |
//! | `recv_ns` | integer | may be absent |
//!
//! Other columns are not read. Files with a compression that this program was built without are refused by name.

use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use polars_arrow::array::{Array, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowSchema, Field};
use polars_arrow::record_batch::RecordBatchT;
use polars_buffer::Buffer;
use polars_parquet::read::{
    BasicDecompressor, FileMetadata, PageReader, column_iter_to_arrays, get_field_pages, infer_schema, read_metadata,
};
use polars_parquet::write::{
    CompressionOptions, Encoding, FileWriter, StatisticsOptions, Version, WriteOptions, row_group_iter,
};
use schemas::fixed::SCALE_MAX;
use schemas::{Scale, Timeframe};

use crate::pack::{Chain, ColumnTape, Columns, Listed, Source};
use crate::source::is_spot;

/// A row group of more rows than this is refused: it would have to be held as a whole.
const GROUP_ROWS_MAX: usize = 4 << 20;

/// Files of one or more instruments, merged by time as [`crate::source::trades_tape`] does.
pub fn tape(files: &[PathBuf], timeframe: Timeframe, grace_ns: impl Fn(&str) -> i64) -> anyhow::Result<ColumnTape> {
    ensure!(!files.is_empty(), "no file of trades");
    let mut instruments: Vec<(Listed, Vec<ParquetTrades>)> = Vec::new();
    let mut total = 0;
    for path in files {
        let (listed, trades) = ParquetTrades::open(path).with_context(|| format!("open {}", path.display()))?;
        total += trades.metadata.num_rows as u64;
        let same = |l: &Listed| (&l.venue, &l.symbol) == (&listed.venue, &listed.symbol);
        match instruments.iter_mut().find(|(l, _)| same(l)) {
            Some((known, of_instrument)) => {
                let (a, b) = (known.scale, listed.scale);
                known.scale = Scale { price: a.price.max(b.price), qty: a.qty.max(b.qty) };
                of_instrument.push(trades);
            }
            None => instruments.push((listed, vec![trades])),
        }
    }
    let mut listed = Vec::new();
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for (instrument, trades) in instruments {
        let scaled = |t: ParquetTrades| -> Box<dyn Source> { Box::new(ParquetTrades { scale: instrument.scale, ..t }) };
        sources.push(Box::new(Chain(trades.into_iter().map(scaled).collect())));
        listed.push(instrument);
    }
    Ok(ColumnTape::new(listed, sources, timeframe, grace_ns, Some(total)))
}

/// One file; its row groups are read one after the other.
pub struct ParquetTrades {
    path: PathBuf,
    file: File,
    metadata: FileMetadata,
    schema: ArrowSchema,
    group: usize,
    /// Digits that mantissas are given with.
    scale: Scale,
    /// The rows of the file have all the same digits.
    even: bool,
}

impl ParquetTrades {
    /// The file and its instrument. Reads what must be the same in all rows.
    pub fn open(path: &Path) -> anyhow::Result<(Listed, Self)> {
        let mut file = File::open(path)?;
        let metadata = read_metadata(&mut file).map_err(|e| anyhow!("not a Parquet file: {e}"))?;
        let schema = infer_schema(&metadata)?;
        let mut trades =
            Self { path: path.to_owned(), file, metadata, schema, group: 0, scale: Scale::default(), even: true };
        let mut market: Option<(String, String)> = None;
        let mut scales: Option<Scale> = None;
        for group in 0..trades.metadata.row_groups.len() {
            let rows = trades.metadata.row_groups[group].num_rows();
            ensure!(rows <= GROUP_ROWS_MAX, "row group {group} has {rows} rows; {GROUP_ROWS_MAX} are allowed");
            let venue = trades.one_text(group, "venue")?;
            let symbol = trades.one_text(group, "symbol")?;
            let (Some(venue), Some(symbol)) = (venue, symbol) else { continue };
            let here = (venue, symbol);
            if let Some(first) = market.replace(here.clone())
                && first != here
            {
                bail!("it holds {} {} and {} {}; one instrument a file", first.0, first.1, here.0, here.1);
            }
            let digits = [trades.ints(group, "scale/price")?, trades.ints(group, "scale/qty")?];
            for (price, qty) in digits[0].iter().zip(&digits[1]) {
                let fits = |n: i64| u8::try_from(n).ok().filter(|n| *n <= SCALE_MAX);
                let (Some(price), Some(qty)) = (fits(*price), fits(*qty)) else {
                    bail!("scale {price}, {qty}; allowed are 0 to {SCALE_MAX}");
                };
                let scale = Scale { price, qty };
                trades.even &= scales.is_none_or(|s| s == scale);
                let widest = scales.unwrap_or(scale);
                scales = Some(Scale { price: widest.price.max(price), qty: widest.qty.max(qty) });
            }
        }
        let ((venue, symbol), scale) = market.zip(scales).context("it holds no trades")?;
        trades.scale = scale;
        let spot = is_spot(&venue);
        Ok((Listed { venue, symbol, scale, spot }, trades))
    }

    /// A column of a row group.
    fn column(&mut self, group: usize, name: &str) -> anyhow::Result<Vec<Box<dyn Array>>> {
        let field = self.schema.get(name).with_context(|| format!("no column `{name}`"))?.clone();
        let chunks = self.metadata.row_groups[group].parquet_columns();
        let (mut sources, mut types) = (Vec::new(), Vec::new());
        for chunk in get_field_pages(chunks, chunks, name) {
            let range = chunk.byte_range();
            let length = usize::try_from(range.end.saturating_sub(range.start))?;
            let mut bytes = vec![0; length];
            self.file.seek(SeekFrom::Start(range.start))?;
            self.file.read_exact(&mut bytes).with_context(|| format!("read column `{name}`"))?;
            let reader = PageReader::new(Cursor::new(Buffer::from(bytes)), chunk, Vec::new(), usize::MAX);
            sources.push(BasicDecompressor::new(reader, Vec::new()));
            types.push(&chunk.descriptor().descriptor.primitive_type);
        }
        let (arrays, _) =
            column_iter_to_arrays(sources, types, field, None).map_err(|e| anyhow!("decode column `{name}`: {e}"))?;
        Ok(arrays)
    }

    fn ints(&mut self, group: usize, name: &str) -> anyhow::Result<Vec<i64>> {
        let mut values = Vec::with_capacity(self.metadata.row_groups[group].num_rows());
        for array in self.column(group, name)? {
            whole(&*array, name)?;
            if let Some(array) = array.as_any().downcast_ref::<PrimitiveArray<i64>>() {
                values.extend_from_slice(array.values());
            } else if let Some(array) = array.as_any().downcast_ref::<PrimitiveArray<u64>>() {
                for value in array.values().iter() {
                    values.push(i64::try_from(*value).with_context(|| format!("column `{name}`"))?);
                }
            } else {
                bail!("column `{name}` is {:?}, not a 64-bit integer", array.dtype());
            }
        }
        Ok(values)
    }

    fn texts(&mut self, group: usize, name: &str, mut each: impl FnMut(&str)) -> anyhow::Result<()> {
        for array in self.column(group, name)? {
            whole(&*array, name)?;
            let array = array.as_any().downcast_ref::<Utf8ViewArray>();
            let array = array.with_context(|| format!("column `{name}` is not text"))?;
            array.values_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// The text that all rows of a group hold.
    fn one_text(&mut self, group: usize, name: &str) -> anyhow::Result<Option<String>> {
        let (mut first, mut other): (Option<String>, Option<String>) = (None, None);
        self.texts(group, name, |text| match &first {
            None => first = Some(text.to_owned()),
            Some(known) if known == text => {}
            Some(_) => other = Some(text.to_owned()),
        })?;
        if let (Some(first), Some(other)) = (&first, other) {
            bail!("column `{name}` holds {first} and {other}; one instrument a file");
        }
        Ok(first)
    }

    fn read(&mut self, columns: &mut Columns) -> anyhow::Result<()> {
        let group = self.group;
        self.group += 1;
        columns.ts_ns = self.ints(group, "ts_ns")?;
        columns.recv_ns =
            if self.schema.contains("recv_ns") { self.ints(group, "recv_ns")? } else { columns.ts_ns.clone() };
        columns.id = self.ints(group, "id")?.into_iter().map(i64::cast_unsigned).collect();
        columns.price = self.ints(group, "price")?;
        columns.size = self.ints(group, "size")?;
        let mut sides = std::mem::take(&mut columns.side);
        let mut wrong = None;
        self.texts(group, "side", |side| match side {
            "b" => sides.push(b'b'),
            "s" => sides.push(b's'),
            other => wrong = Some(other.to_owned()),
        })?;
        if let Some(side) = wrong {
            bail!("side is `{side}`; b or s");
        }
        columns.side = sides;
        if !self.even {
            self.widen(group, columns)?;
        }
        let n = columns.len();
        let lengths = [columns.recv_ns.len(), columns.id.len(), columns.price.len(), columns.size.len()];
        ensure!(lengths == [n; 4] && columns.side.len() == n, "columns of {n}, {lengths:?} rows");
        Ok(())
    }

    /// Mantissas with fewer digits than the widest of the file.
    fn widen(&mut self, group: usize, columns: &mut Columns) -> anyhow::Result<()> {
        for (name, to, mantissas) in
            [("scale/price", self.scale.price, &mut columns.price), ("scale/qty", self.scale.qty, &mut columns.size)]
        {
            let scales = self.ints(group, name)?;
            for (mantissa, scale) in mantissas.iter_mut().zip(scales) {
                let digits = u32::try_from(i64::from(to) - scale).unwrap_or(0);
                let wide = 10i64.checked_pow(digits).and_then(|factor| mantissa.checked_mul(factor));
                *mantissa = wide.with_context(|| format!("{mantissa} with {digits} more digits leaves 63 bits"))?;
            }
        }
        Ok(())
    }
}

impl Source for ParquetTrades {
    fn fill(&mut self, columns: &mut Columns) -> anyhow::Result<()> {
        while columns.is_empty() && self.group < self.metadata.row_groups.len() {
            let what = format!("read row group {} of {}", self.group, self.path.display());
            self.read(columns).context(what)?;
        }
        Ok(())
    }
}

fn whole(array: &dyn Array, name: &str) -> anyhow::Result<()> {
    ensure!(array.null_count() == 0, "column `{name}` has {} empty cells", array.null_count());
    Ok(())
}

/// Writes a file that [`ParquetTrades`] reads, a row group a call; for tapes that are made, not exported.
pub struct TradesWriter<W: Write> {
    writer: FileWriter<W>,
    schema: Arc<ArrowSchema>,
    options: WriteOptions,
    listed: Listed,
}

impl TradesWriter<BufWriter<File>> {
    pub fn create(path: &Path, listed: Listed) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
        let row = Self::arrays(&Columns::default(), &listed);
        let fields = row.into_iter().map(|(name, array, _)| Field::new(name.into(), array.dtype().clone(), false));
        let schema: ArrowSchema = fields.map(|field| (field.name.clone(), field)).collect();
        let options = WriteOptions {
            statistics: StatisticsOptions::default(),
            version: Version::V1,
            compression: CompressionOptions::Uncompressed,
            data_page_size: None,
        };
        let writer = FileWriter::try_new(BufWriter::new(file), schema.clone(), options)?;
        Ok(Self { writer, schema: Arc::new(schema), options, listed })
    }
}

impl<W: Write> TradesWriter<W> {
    fn arrays(columns: &Columns, listed: &Listed) -> Vec<(&'static str, Box<dyn Array>, Encoding)> {
        let n = columns.len();
        let ints = |values: Vec<i64>| -> Box<dyn Array> { Box::new(PrimitiveArray::<i64>::from_vec(values)) };
        let same = |text: &str| -> Box<dyn Array> { Box::new(Utf8ViewArray::from_slice(vec![Some(text); n])) };
        let sides: Vec<Option<&str>> = columns.side.iter().map(|s| Some(if *s == b'b' { "b" } else { "s" })).collect();
        vec![
            ("venue", same(&listed.venue), Encoding::RleDictionary),
            ("symbol", same(&listed.symbol), Encoding::RleDictionary),
            ("scale/price", ints(vec![i64::from(listed.scale.price); n]), Encoding::RleDictionary),
            ("scale/qty", ints(vec![i64::from(listed.scale.qty); n]), Encoding::RleDictionary),
            ("ts_ns", ints(columns.ts_ns.clone()), Encoding::Plain),
            ("id", ints(columns.id.iter().map(|id| id.cast_signed()).collect()), Encoding::Plain),
            ("price", ints(columns.price.clone()), Encoding::Plain),
            ("size", ints(columns.size.clone()), Encoding::Plain),
            ("side", Box::new(Utf8ViewArray::from_slice(sides)), Encoding::RleDictionary),
        ]
    }

    /// One row group. Receive times are not kept.
    pub fn write(&mut self, columns: &Columns) -> anyhow::Result<()> {
        let rows = Self::arrays(columns, &self.listed);
        let encodings: Vec<Vec<Encoding>> = rows.iter().map(|(_, _, encoding)| vec![*encoding]).collect();
        let arrays: Vec<Box<dyn Array>> = rows.into_iter().map(|(_, array, _)| array).collect();
        let types = self.writer.parquet_schema().fields().to_vec();
        let batch = RecordBatchT::try_new(columns.len(), Arc::clone(&self.schema), arrays)?;
        let group = row_group_iter(batch, Buffer::from(encodings), types, self.options);
        self.writer.write(columns.len() as u64, group)?;
        Ok(())
    }

    /// The footer; without it there is no file.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.writer.end(None)?;
        self.writer.into_inner().flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Typed;
    use crate::source::Tape;
    use schemas::raw::Raw;

    fn listed(symbol: &str) -> Listed {
        let scale = Scale { price: 2, qty: 5 };
        Listed { venue: "binance-usdm".into(), symbol: symbol.into(), scale, spot: false }
    }
    fn columns(first: i64, n: i64) -> Columns {
        let ts_ns: Vec<i64> = (first..first + n).map(|i| 1_700_000_000_000_000_000 + i * 10_000_000).collect();
        Columns {
            recv_ns: ts_ns.clone(),
            ts_ns,
            id: (first..first + n).map(|i| i as u64 + 1).collect(),
            price: (first..first + n).map(|i| 6_000_000 + i % 77).collect(),
            size: (first..first + n).map(|i| 1 + i % 13).collect(),
            side: (first..first + n).map(|i| if i % 3 == 0 { b'b' } else { b's' }).collect(),
        }
    }
    fn written(symbol: &str, groups: &[Columns]) -> tempfile::TempPath {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let mut writer = TradesWriter::create(&path, listed(symbol)).unwrap();
        groups.iter().for_each(|group| writer.write(group).unwrap());
        writer.end().unwrap();
        path
    }

    #[test]
    fn trades_read_back_as_they_were_written_group_by_group() {
        let groups = [columns(0, 1_000), columns(1_000, 1), columns(1_001, 400)];
        let path = written("BTCUSDT", &groups);
        let (found, mut trades) = ParquetTrades::open(&path).unwrap();
        assert_eq!(found, listed("BTCUSDT"));
        for group in &groups {
            let mut columns = Columns::default();
            trades.fill(&mut columns).unwrap();
            assert_eq!(&columns, group);
        }
        let mut behind = Columns::default();
        trades.fill(&mut behind).unwrap();
        assert!(behind.is_empty());
    }

    #[test]
    fn files_of_one_instrument_follow_each_other_and_those_of_two_are_merged() {
        let (a, b) = (written("A", &[columns(0, 500)]), written("A", &[columns(500, 500)]));
        let c = written("C", &[columns(200, 100)]);
        let files = [a.to_path_buf(), c.to_path_buf(), b.to_path_buf()];
        let mut tape = tape(&files, "1s".parse().unwrap(), |_| 500_000_000).unwrap();
        assert_eq!((tape.instruments().unwrap().len(), tape.ticks_total()), (2, Some(1_100)));
        let (mut of_a, mut of_c) = (Vec::new(), 0);
        while let Some(entry) = tape.next().unwrap() {
            match entry.fact {
                Typed::Raw(Raw::Trades(pack)) if pack.symbol == "A" => of_a.extend(pack.id),
                Typed::Raw(Raw::Trades(pack)) => of_c += pack.len(),
                _ => {}
            }
        }
        assert_eq!((of_a, of_c), ((1..=1_000).collect(), 100));
    }

    #[test]
    fn what_is_no_tape_says_why() {
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "seq,ts_ns\n1,2\n").unwrap();
        let error = |path: &Path| format!("{:#}", ParquetTrades::open(path).err().expect("refused"));
        assert!(error(text.path()).contains("not a Parquet file"), "{}", error(text.path()));
        let empty = written("A", &[]);
        assert!(error(&empty).contains("no trades"), "{}", error(&empty));
    }
}
