//! The wire format of protobuf, as far as `push.proto` needs it: the fields of a message, read in place.
//!
//! A field is a varint (number and wire type), then its value. Prices are text here, so that a frame is mostly short
//! texts: they stay where they are, and nothing is allocated to read them.
//! <https://protobuf.dev/programming-guides/encoding/>

/// A field's value. Those of fixed width are passed over: no field that we know is one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Value<'a> {
    /// A message inside a message.
    pub fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err("a number where bytes belong".to_owned()),
        }
    }
    pub fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text that is not UTF-8".to_owned())
    }
    /// An `int32`, `int64` or `bool`; negative ones are written as 64 bits in two's complement.
    pub fn int(self) -> Result<i64, String> {
        match self {
            Self::Varint(n) => Ok(n as i64),
            Self::Bytes(_) | Self::Fixed => Err("no varint where one belongs".to_owned()),
        }
    }
}

/// The fields of a message in the order in which they were written. Ends behind the first error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), String> {
        const NUMBER_MAX: u64 = (1 << 29) - 1;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > NUMBER_MAX {
            return Err(format!("field number {number}"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // 3 and 4 are groups, which this version of the format does not have; 6 and 7 mean nothing.
            wire_type => return Err(format!("field {number} has wire type {wire_type}")),
        };
        Ok((number as u32, value))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for (n, byte) in self.rest.iter().enumerate() {
            // The tenth byte has room for one bit.
            if n == 9 && *byte > 1 {
                return Err("a number of more than 64 bits".to_owned());
            }
            value |= u64::from(byte & 0x7F) << (7 * n);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[n + 1..];
                return Ok(value);
            }
        }
        Err("cut inside a number".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        if length > self.rest.len() {
            return Err(format!("cut: {length} bytes announced, {} there", self.rest.len()));
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simulator::mexc::proto::Message;

    use super::*;

    #[derive(Clone, Debug)]
    enum Field {
        Int(i64),
        Bytes(Vec<u8>),
        Eight,
        Four,
    }

    fn field() -> impl Strategy<Value = (u32, Field)> {
        let value = prop_oneof![
            any::<i64>().prop_map(Field::Int),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Field::Bytes),
            Just(Field::Eight),
            Just(Field::Four),
        ];
        (prop_oneof![1u32..20, 301u32..400, Just((1 << 29) - 1)], value)
    }

    fn written(fields: &[(u32, Field)]) -> Vec<u8> {
        let mut message = Message::default();
        for (number, value) in fields {
            message = match value {
                Field::Int(n) => message.int(*number, *n),
                Field::Bytes(bytes) => message.bytes(*number, bytes),
                Field::Eight => message.fixed64(*number, 7),
                Field::Four => message.fixed32(*number, 7),
            };
        }
        message.0
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_in_its_order(all in prop::collection::vec(field(), 0..12)) {
            let bytes = written(&all);
            let read: Vec<_> = fields(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), all.len());
            for ((number, value), (wanted, field)) in read.into_iter().zip(&all) {
                prop_assert_eq!(number, *wanted);
                match field {
                    Field::Int(n) => prop_assert_eq!(value.int(), Ok(*n)),
                    Field::Bytes(bytes) => prop_assert_eq!(value.bytes(), Ok(&bytes[..])),
                    Field::Eight | Field::Four => prop_assert_eq!(value, Value::Fixed),
                }
            }
        }

        /// A message that ends inside a field says so, whatever it holds; between two fields it is a shorter message.
        #[test]
        fn a_message_that_is_cut_inside_a_field_is_an_error(
            before in prop::collection::vec(field(), 0..4), last in field(), at in any::<prop::sample::Index>(),
        ) {
            let whole = written(&before);
            let field = written(&[last]);
            let kept = 1 + at.index(field.len() - 1);
            let bytes = [&whole[..], &field[..kept.min(field.len() - 1)]].concat();
            prop_assert!(fields(&bytes).last().unwrap().is_err());
        }

        #[test]
        fn no_bytes_make_it_panic_or_read_on_behind_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read: Vec<_> = fields(&bytes).collect();
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn what_the_format_does_not_have_is_named() {
        let why = |bytes: &[u8]| fields(bytes).last().unwrap().unwrap_err();
        assert_eq!(why(&[0x00]), "field number 0");
        assert_eq!(why(&[0x0B]), "field 1 has wire type 3");
        assert_eq!(why(&[0x08, 0xFF]), "cut inside a number");
        assert_eq!(why(&[0x0A, 0x05, b'x']), "cut: 5 bytes announced, 1 there");
        assert_eq!(
            why(&[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]),
            "a number of more than 64 bits"
        );
    }
}
