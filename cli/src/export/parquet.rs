//! A table as a Parquet file and back, with the writer and reader of polars.
//!
//! Columns of our own: `_seq`, `_subject`, `_stored_ns`, `_tick` (place in the pack), `_payload`. What the columns mean is
//! said in the file's metadata under `tapeline`. Pages are not compressed: the integers that rise or repeat are packed
//! by differences and by dictionaries, which takes most of what compression would.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use polars_arrow::array::{Array, BinaryViewArray, BooleanArray, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field as ArrowField};
use polars_arrow::record_batch::RecordBatchT;
use polars_buffer::Buffer;
use polars_parquet::read::{
    BasicDecompressor, PageReader, column_iter_to_arrays, get_field_pages, infer_schema, read_metadata,
};
use polars_parquet::write::{
    CompressionOptions, Encoding, FileWriter, KeyValue, StatisticsOptions, Version, WriteOptions, row_group_iter,
    schema_to_metadata_key,
};
use serde::{Deserialize, Serialize};

use super::table::{Cells, Column, Field, Shape, Table, Type};

const KEY: &str = "tapeline";
/// Version of the form.
pub const FORM: u32 = 1;

/// What a file says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Meta {
    v: u32,
    stream: String,
    kind: String,
    shape: Shape,
    columns: Vec<Field>,
}

/// Writes a table; the file is whole when this returns.
pub fn write(path: &Path, stream: &str, kind: &str, table: &Table) -> anyhow::Result<()> {
    let what = || format!("write {}", path.display());
    let mut columns = Columns::default();
    let each_row = |m: usize| std::iter::repeat_n(m, table.rows[m] as usize);
    let by_message: Vec<usize> = (0..table.len()).flat_map(each_row).collect();
    let of_message = |m: &usize| *m;
    columns.uints("_seq", by_message.iter().map(of_message).map(|m| Some(table.seq[m])).collect());
    columns.texts("_subject", by_message.iter().map(of_message).map(|m| Some(table.subject[m].as_str())).collect());
    columns.ints("_stored_ns", by_message.iter().map(of_message).map(|m| Some(table.stored_ns[m])).collect());
    let ticks = |m: usize| (0..table.rows[m]).map(move |i| (i < table.ticks[m]).then_some(i64::from(i)));
    if table.shape != Shape::One {
        columns.ints("_tick", (0..table.len()).flat_map(ticks).collect());
    }
    let kept = |m: &usize| table.payload[*m].as_deref();
    // Once, not in every row of a pack.
    let mut before = usize::MAX;
    let kept_once = by_message.iter().map(|m| {
        let first = before != *m;
        before = *m;
        if first { kept(m) } else { None }
    });
    columns.bytes("_payload", kept_once.collect());
    for column in &table.columns {
        let name = column.field.name.as_str();
        let tick = column.field.tick;
        macro_rules! spread {
            ($cells:expr, $give:expr) => {
                if tick {
                    $cells.iter().map($give).collect()
                } else {
                    by_message.iter().map(|m| &$cells[*m]).map($give).collect()
                }
            };
        }
        match &column.cells {
            Cells::Int(cells) => columns.ints(name, spread!(cells, |c: &Option<i64>| *c)),
            Cells::UInt(cells) => columns.uints(name, spread!(cells, |c: &Option<u64>| *c)),
            Cells::Float(cells) => columns.floats(name, spread!(cells, |c: &Option<f64>| *c)),
            Cells::Bool(cells) => columns.bools(name, spread!(cells, |c: &Option<bool>| *c)),
            Cells::Text(cells) => columns.texts(name, spread!(cells, |c: &Option<String>| c.as_deref())),
            Cells::Bytes(cells) => columns.bytes(name, spread!(cells, |c: &Option<Vec<u8>>| c.as_deref())),
            Cells::Nil => {}
        }
    }
    let meta = Meta {
        v: FORM,
        stream: stream.to_owned(),
        kind: kind.to_owned(),
        shape: table.shape,
        columns: table.columns.iter().map(|c| c.field.clone()).collect(),
    };
    let file = BufWriter::new(File::create(path).with_context(what)?);
    columns.write(file, by_message.len(), serde_json::to_string(&meta)?).with_context(what)
}

/// Columns of a file that is being written.
#[derive(Default)]
struct Columns {
    fields: Vec<ArrowField>,
    arrays: Vec<Box<dyn Array>>,
    encodings: Vec<Vec<Encoding>>,
}

impl Columns {
    fn add(&mut self, name: &str, array: Box<dyn Array>, encoding: Encoding) {
        self.fields.push(ArrowField::new(name.into(), array.dtype().clone(), true));
        self.arrays.push(array);
        self.encodings.push(vec![encoding]);
    }
    fn ints(&mut self, name: &str, values: Vec<Option<i64>>) {
        let encoding = packing(&values);
        self.add(name, Box::new(PrimitiveArray::<i64>::from(values)), encoding);
    }
    fn uints(&mut self, name: &str, values: Vec<Option<u64>>) {
        let encoding = packing(&values);
        self.add(name, Box::new(PrimitiveArray::<u64>::from(values)), encoding);
    }
    fn floats(&mut self, name: &str, values: Vec<Option<f64>>) {
        self.add(name, Box::new(PrimitiveArray::<f64>::from(values)), Encoding::Plain);
    }
    fn bools(&mut self, name: &str, values: Vec<Option<bool>>) {
        self.add(name, Box::new(BooleanArray::from(values)), Encoding::Plain);
    }
    fn texts(&mut self, name: &str, values: Vec<Option<&str>>) {
        self.add(name, Box::new(Utf8ViewArray::from_slice(values)), Encoding::RleDictionary);
    }
    fn bytes(&mut self, name: &str, values: Vec<Option<&[u8]>>) {
        self.add(name, Box::new(BinaryViewArray::from_slice(values)), Encoding::Plain);
    }

    fn write(self, file: impl Write, rows: usize, meta: String) -> anyhow::Result<()> {
        let schema: ArrowSchema = self.fields.into_iter().map(|f| (f.name.clone(), f)).collect();
        let options = WriteOptions {
            statistics: StatisticsOptions::default(),
            version: Version::V1,
            compression: CompressionOptions::Uncompressed,
            data_page_size: None,
        };
        let mut writer = FileWriter::try_new(file, schema.clone(), options)?;
        let types = writer.parquet_schema().fields().to_vec();
        let batch = RecordBatchT::try_new(rows, Arc::new(schema.clone()), self.arrays)?;
        writer.write(rows as u64, row_group_iter(batch, Buffer::from(self.encodings), types, options))?;
        let meta = KeyValue { key: KEY.to_owned(), value: Some(meta) };
        writer.end(Some(vec![schema_to_metadata_key(&schema), meta]))?;
        writer.into_inner().flush()?;
        Ok(())
    }
}

/// Few values are a dictionary, many are told by their differences.
fn packing<T: Copy + Ord>(values: &[Option<T>]) -> Encoding {
    let mut seen: Vec<T> = values.iter().flatten().copied().collect();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() * 8 <= values.len() { Encoding::RleDictionary } else { Encoding::DeltaBinaryPacked }
}

/// Reads a file whole; files are written in pieces of a bounded size.
pub fn read(path: &Path) -> anyhow::Result<Table> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    parse(bytes).with_context(|| format!("{} is no file of an export", path.display()))
}

fn parse(bytes: Vec<u8>) -> anyhow::Result<Table> {
    let metadata = read_metadata(&mut Cursor::new(&bytes))?;
    let said = metadata.key_value_metadata.iter().flatten().find(|kv| kv.key == KEY).and_then(|kv| kv.value.as_deref());
    let meta: Meta = serde_json::from_str(said.context("its metadata does not name tapeline")?)?;
    ensure!(meta.v == FORM, "it has form {}, this program reads {FORM}", meta.v);
    let schema = infer_schema(&metadata)?;
    let bytes = Buffer::from(bytes);
    let mut arrays: BTreeMap<String, Vec<Box<dyn Array>>> = BTreeMap::new();
    for group in &metadata.row_groups {
        let chunks = group.parquet_columns();
        for (name, field) in schema.iter() {
            let pages = get_field_pages(chunks, chunks, name);
            let (mut sources, mut types) = (Vec::new(), Vec::new());
            for chunk in pages {
                let range = chunk.byte_range();
                ensure!(range.end as usize <= bytes.len(), "column {name} ends behind the file");
                let part = bytes.clone().sliced(range.start as usize..range.end as usize);
                let reader = PageReader::new(Cursor::new(part), chunk, Vec::new(), usize::MAX);
                sources.push(BasicDecompressor::new(reader, Vec::new()));
                types.push(&chunk.descriptor().descriptor.primitive_type);
            }
            let (read, _) = column_iter_to_arrays(sources, types, field.clone(), None)?;
            arrays.entry(name.to_string()).or_default().extend(read);
        }
    }
    let source = Source { arrays };
    let seqs: Vec<u64> = source.uints("_seq")?.into_iter().flatten().collect();
    ensure!(seqs.len() == metadata.num_rows, "{} of {} rows have a sequence", seqs.len(), metadata.num_rows);
    let mut firsts: Vec<usize> = Vec::new();
    for (row, seq) in seqs.iter().enumerate() {
        match firsts.last() {
            Some(first) if seqs[*first] == *seq => {}
            Some(first) => {
                ensure!(seqs[*first] < *seq, "sequence {seq} stands behind {}", seqs[*first]);
                firsts.push(row);
            }
            None => firsts.push(row),
        }
    }
    let rows: Vec<u32> =
        firsts.iter().zip(firsts.iter().skip(1).chain([&seqs.len()])).map(|(from, to)| (to - from) as u32).collect();
    let ticks = match meta.shape {
        Shape::One => vec![0; rows.len()],
        _ => {
            let ticks = source.ints("_tick")?;
            let count =
                |(first, n): (&usize, &u32)| ticks[*first..*first + *n as usize].iter().flatten().count() as u32;
            firsts.iter().zip(&rows).map(count).collect()
        }
    };
    let missing = |name: &'static str| move || anyhow!("a row has no {name}");
    let mut columns = Vec::with_capacity(meta.columns.len());
    for field in meta.columns {
        let rows = if field.tick { None } else { Some(firsts.as_slice()) };
        let cells = source.cells(&field, rows).with_context(|| format!("column {}", field.name))?;
        columns.push(Column { field, cells });
    }
    Ok(Table {
        shape: meta.shape,
        seq: firsts.iter().map(|row| seqs[*row]).collect(),
        subject: at(source.texts("_subject")?, &firsts)
            .into_iter()
            .collect::<Option<_>>()
            .with_context(missing("_subject"))?,
        stored_ns: at(source.ints("_stored_ns")?, &firsts)
            .into_iter()
            .collect::<Option<_>>()
            .with_context(missing("_stored_ns"))?,
        rows,
        ticks,
        payload: at(source.bytes("_payload")?, &firsts),
        columns,
    })
}

/// Values of the first row of each message.
fn at<T: Clone>(values: Vec<Option<T>>, firsts: &[usize]) -> Vec<Option<T>> {
    firsts.iter().map(|row| values[*row].clone()).collect()
}

/// Columns of a file that was read.
struct Source {
    arrays: BTreeMap<String, Vec<Box<dyn Array>>>,
}

impl Source {
    /// Every array of a column as the type that it must have.
    fn typed<A: 'static>(&self, name: &str, dtype: &ArrowDataType) -> anyhow::Result<Vec<&A>> {
        let arrays = self.arrays.get(name).with_context(|| format!("no column `{name}`"))?;
        arrays
            .iter()
            .map(|array| {
                let found = array.as_any().downcast_ref::<A>();
                found.with_context(|| format!("column `{name}` is {:?}, not {dtype:?}", array.dtype()))
            })
            .collect()
    }
    fn ints(&self, name: &str) -> anyhow::Result<Vec<Option<i64>>> {
        let arrays = self.typed::<PrimitiveArray<i64>>(name, &ArrowDataType::Int64)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter().map(|v| v.copied())).collect())
    }
    fn uints(&self, name: &str) -> anyhow::Result<Vec<Option<u64>>> {
        let arrays = self.typed::<PrimitiveArray<u64>>(name, &ArrowDataType::UInt64)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter().map(|v| v.copied())).collect())
    }
    fn floats(&self, name: &str) -> anyhow::Result<Vec<Option<f64>>> {
        let arrays = self.typed::<PrimitiveArray<f64>>(name, &ArrowDataType::Float64)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter().map(|v| v.copied())).collect())
    }
    fn bools(&self, name: &str) -> anyhow::Result<Vec<Option<bool>>> {
        let arrays = self.typed::<BooleanArray>(name, &ArrowDataType::Boolean)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter()).collect())
    }
    fn texts(&self, name: &str) -> anyhow::Result<Vec<Option<String>>> {
        let arrays = self.typed::<Utf8ViewArray>(name, &ArrowDataType::Utf8View)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter().map(|v| v.map(str::to_owned))).collect())
    }
    fn bytes(&self, name: &str) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let arrays = self.typed::<BinaryViewArray>(name, &ArrowDataType::BinaryView)?;
        Ok(arrays.into_iter().flat_map(|a| a.iter().map(|v| v.map(<[u8]>::to_vec))).collect())
    }

    /// `firsts`: one a message, from its first row; otherwise one a row.
    fn cells(&self, field: &Field, firsts: Option<&[usize]>) -> anyhow::Result<Cells> {
        fn thin<T: Clone>(values: Vec<Option<T>>, firsts: Option<&[usize]>) -> Vec<Option<T>> {
            match firsts {
                Some(firsts) => at(values, firsts),
                None => values,
            }
        }
        let name = field.name.as_str();
        Ok(match field.r#type {
            Type::Int => Cells::Int(thin(self.ints(name)?, firsts)),
            Type::UInt => Cells::UInt(thin(self.uints(name)?, firsts)),
            Type::Float => Cells::Float(thin(self.floats(name)?, firsts)),
            Type::Bool => Cells::Bool(thin(self.bools(name)?, firsts)),
            Type::Text | Type::Json => Cells::Text(thin(self.texts(name)?, firsts)),
            Type::Bytes => Cells::Bytes(thin(self.bytes(name)?, firsts)),
            Type::Nil => Cells::Nil,
        })
    }
}
