//! The hot packs as MessagePack, written field by field into one buffer of the right size.
//!
//! The bytes are those that serde writes, which `raw.rs` tests: the smallest form of every number, fields by name in the
//! order of the type.

use std::convert::Infallible;

use rmp::encode::{self, ByteBuf, ValueWriteError};

use crate::fixed::Scale;
use crate::wire::VERSION;

/// The names of a pack's fields, its version, scale and partition, and the heads of its columns, with room to spare.
const FRAME_BYTES_MAX: usize = 160;
/// A marker and 64 bits.
const INT_BYTES_MAX: usize = 9;

/// A map being written.
pub(crate) struct Map(ByteBuf);

impl Map {
    /// A map of `fields`, which hold `text_bytes` of text and `ints` numbers in columns.
    pub fn new(fields: u32, text_bytes: usize, ints: usize) -> Self {
        let mut buffer = ByteBuf::with_capacity(FRAME_BYTES_MAX + text_bytes + INT_BYTES_MAX * ints);
        taken(encode::write_map_len(&mut buffer, fields));
        Self(buffer)
    }

    /// `name`: shorter than 32 bytes, which makes its marker.
    #[inline(always)]
    fn name(&mut self, name: &str) -> &mut ByteBuf {
        debug_assert!(name.len() < 32, "Invariant: the names of fields are short");
        let bytes = self.0.as_mut_vec();
        bytes.push(0xA0 | name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        &mut self.0
    }

    /// The first field of every fact.
    #[inline]
    pub fn version(&mut self) -> &mut Self {
        self.uint("v", u32::from(VERSION))
    }

    #[inline]
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        taken(encode::write_str(self.name(name), text));
        self
    }

    #[inline]
    pub fn uint(&mut self, name: &str, value: u32) -> &mut Self {
        taken(encode::write_uint(self.name(name), u64::from(value)));
        self
    }

    #[inline]
    pub fn scale(&mut self, scale: Scale) -> &mut Self {
        taken(encode::write_map_len(self.name("scale"), 2));
        self.uint("price", u32::from(scale.price)).uint("qty", u32::from(scale.qty))
    }

    #[inline]
    fn column(&mut self, name: &str, len: usize) -> &mut ByteBuf {
        let buffer = self.name(name);
        taken(encode::write_array_len(buffer, len as u32));
        buffer
    }

    /// Left out when there are none.
    pub fn texts(&mut self, name: &str, values: &[String]) -> &mut Self {
        if values.is_empty() {
            return self;
        }
        let buffer = self.column(name, values.len());
        for value in values {
            taken(encode::write_str(buffer, value));
        }
        self
    }

    #[inline]
    pub fn ints(&mut self, name: &str, values: &[i64]) -> &mut Self {
        let buffer = self.column(name, values.len());
        for value in values {
            taken(encode::write_sint(buffer, *value));
        }
        self
    }

    #[inline]
    pub fn uints(&mut self, name: &str, values: &[u64]) -> &mut Self {
        let buffer = self.column(name, values.len());
        for value in values {
            taken(encode::write_uint(buffer, *value));
        }
        self
    }

    #[inline]
    pub fn maybe_ints(&mut self, name: &str, values: &[Option<i64>]) -> &mut Self {
        let buffer = self.column(name, values.len());
        for value in values {
            match value {
                Some(value) => _ = taken(encode::write_sint(buffer, *value)),
                None => encode::write_nil(buffer).expect("Invariant: a buffer takes every write"),
            }
        }
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_vec()
    }
}

fn taken<T>(written: Result<T, ValueWriteError<Infallible>>) -> T {
    written.expect("Invariant: a buffer takes every write")
}
