//! JSON to MessagePack, member by member: `serde_json::Value` would sort them, and their order is part of the hash.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::SignError;

/// The object in `json` in MessagePack, in its own order; every integer in its shortest form.
pub fn pack(json: &str) -> Result<Vec<u8>, SignError> {
    let error = |why: String| SignError::Input { name: "action", why };
    if !json.trim_start().starts_with('{') {
        return Err(error("is no JSON object".into()));
    }
    let mut out = Vec::with_capacity(json.len());
    let mut reader = serde_json::Deserializer::from_str(json);
    Pack(&mut out).deserialize(&mut reader).and_then(|()| reader.end()).map_err(|e| error(e.to_string()))?;
    Ok(out)
}

/// Writes one value. Nesting is bounded by `serde_json` at 128.
struct Pack<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Pack<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pack<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        rmp::encode::write_nil(self.0).map_err(E::custom)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        rmp::encode::write_bool(self.0, value).map_err(E::custom)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        rmp::encode::write_uint(self.0, value).map(drop).map_err(E::custom)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        rmp::encode::write_sint(self.0, value).map(drop).map_err(E::custom)
    }
    /// A float has many texts and one hash, so what is sent would not be what is signed.
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        Err(E::custom(format_args!("{value} is no integer of 64 bits; prices and sizes are texts")))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        rmp::encode::write_str(self.0, value).map_err(E::custom)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        // The number of items stands in front of them.
        let (mut packed, mut count) = (Vec::new(), 0);
        while items.next_element_seed(Pack(&mut packed))?.is_some() {
            count += 1;
        }
        rmp::encode::write_array_len(self.0, count).map_err(A::Error::custom)?;
        self.0.append(&mut packed);
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (mut packed, mut names) = (Vec::new(), BTreeSet::<String>::new());
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("member `{name}` is there twice")));
            }
            rmp::encode::write_str(&mut packed, &name).map_err(A::Error::custom)?;
            members.next_value_seed(Pack(&mut packed))?;
            names.insert(name);
        }
        let count = u32::try_from(names.len()).map_err(A::Error::custom)?;
        rmp::encode::write_map_len(self.0, count).map_err(A::Error::custom)?;
        self.0.append(&mut packed);
        Ok(())
    }
}
