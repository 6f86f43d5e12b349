//! A column of numbers that grows to a length known before, and what of it is null.

use memmap2::MmapMut;
use polars::prelude::*;
use polars_arrow::array::PrimitiveArray;
use polars_arrow::bitmap::BitmapBuilder;
use polars_arrow::datatypes::ArrowDataType;
use polars_buffer::Buffer;

/// Columns of this many bytes and more live in pages of 2 MiB, where the system has them: it clears new memory page by
/// page, and for a frame of a million rows small pages cost three times as much as all of its indicators.
const LARGE_BYTES_MIN: usize = 4 << 20;

/// Writes a column from its head to its end.
pub struct ColumnWriter {
    values: Values,
    /// Rows so far.
    len: usize,
    /// Which rows have a value; empty until one has none.
    present: BitmapBuilder,
}

/// New memory in large pages; `None` where the system has none.
fn large_pages(bytes: usize) -> Option<MmapMut> {
    let memory = MmapMut::map_anon(bytes).ok()?;
    #[cfg(target_os = "linux")]
    return memory.advise(memmap2::Advice::HugePage).is_ok().then_some(memory);
    #[cfg(not(target_os = "linux"))]
    Some(memory)
}

enum Values {
    Small(Vec<f64>),
    Large(MmapMut),
}

impl ColumnWriter {
    /// Room for `rows` rows.
    pub fn new(rows: usize) -> Self {
        let bytes = rows.saturating_mul(size_of::<f64>());
        let large = if bytes < LARGE_BYTES_MIN { None } else { large_pages(bytes) };
        let values = large.map_or_else(|| Values::Small(Vec::with_capacity(rows)), Values::Large);
        Self { values, len: 0, present: BitmapBuilder::new() }
    }

    /// The next rows; `NaN` = null.
    pub fn extend(&mut self, rows: &[f64]) {
        let nulls = rows.iter().fold(false, |nulls, value| nulls | value.is_nan());
        if nulls && self.present.is_empty() {
            self.present.extend_constant(self.len, true);
        }
        if nulls {
            for value in rows {
                self.present.push(!value.is_nan());
            }
        } else if !self.present.is_empty() {
            self.present.extend_constant(rows.len(), true);
        }
        match &mut self.values {
            Values::Small(values) => values.extend_from_slice(rows),
            Values::Large(memory) => {
                let values: &mut [f64] = bytemuck::cast_slice_mut(memory);
                values[self.len..self.len + rows.len()].copy_from_slice(rows);
            }
        }
        self.len += rows.len();
    }

    pub fn series(self, name: &str) -> Series {
        let values = match self.values {
            Values::Small(values) => Buffer::from(values),
            Values::Large(memory) => {
                let bytes = Buffer::from_owner(memory).sliced(..self.len * size_of::<f64>());
                let numbers = bytes.try_transmute::<f64>();
                numbers.unwrap_or_else(|_| unreachable!("Invariant: a page begins where a number may"))
            }
        };
        let present = self.present.into_opt_validity();
        let array = PrimitiveArray::new(ArrowDataType::Float64, values, present);
        Float64Chunked::with_chunk(name.into(), array).into_series()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_holds_what_was_written_and_null_for_no_number_in_small_pages_and_in_large() {
        let large = LARGE_BYTES_MIN / size_of::<f64>();
        for rows in [0, 1, 700, large, large + 77] {
            let value = |i: usize| if i < 3 || i == rows / 2 { f64::NAN } else { i as f64 };
            let all: Vec<f64> = (0..rows).map(value).collect();
            let mut writer = ColumnWriter::new(rows);
            assert!(rows >= large || matches!(writer.values, Values::Small(_)));
            all.chunks(256).for_each(|chunk| writer.extend(chunk));
            let series = writer.series("a.b");
            let want = all.iter().map(|value| (!value.is_nan()).then_some(*value));
            assert!(series.f64().unwrap().iter().eq(want), "{rows}");
            assert_eq!((series.len(), series.name().as_str()), (rows, "a.b"));
        }
    }

    #[test]
    fn a_column_without_a_gap_has_no_nulls_and_may_end_early() {
        let mut writer = ColumnWriter::new(10);
        writer.extend(&[1.0, 2.0]);
        let series = writer.series("a.b");
        assert_eq!((series.len(), series.null_count()), (2, 0));
    }
}
