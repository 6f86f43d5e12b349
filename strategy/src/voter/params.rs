//! Parameters of strategies: a table of what is allowed, and one reader that refuses everything else.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// One parameter: key, meaning, range and default.
#[derive(Clone, Copy, Debug)]
pub struct ParamSpec {
    pub key: &'static str,
    /// With its unit.
    pub about: &'static str,
    pub range: ParamRange,
}

/// What a parameter can be; bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum ParamRange {
    Count { min: u32, max: u32, default: u32 },
    Number { min: f64, max: f64, default: f64 },
    Flag { default: bool },
}

/// A parameter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ParamError {
    pub key: String,
    pub why: String,
}

impl ParamError {
    pub fn new(key: &str, why: impl Into<String>) -> Self {
        Self { key: key.to_owned(), why: why.into() }
    }
}

/// Values of all parameters of a kind, each in its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Params(BTreeMap<&'static str, Param>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Param {
    Count(u32),
    Number(f64),
    Flag(bool),
}

impl Params {
    /// Reads a TOML table against `specs`. Errors name the key and what is allowed.
    pub fn read(specs: &'static [ParamSpec], table: &Table) -> Result<Self, ParamError> {
        if let Some(unknown) = table.keys().find(|key| specs.iter().all(|spec| spec.key != key.as_str())) {
            let known: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.key)).collect();
            return Err(ParamError::new(unknown, format!("unknown parameter; allowed are {}", known.join(", "))));
        }
        let read = |spec: &ParamSpec| {
            let given = table.get(spec.key);
            let wrong = |allowed: String| match given {
                Some(value) => ParamError::new(spec.key, format!("{value} is not {allowed}")),
                None => ParamError::new(spec.key, format!("is not {allowed}")),
            };
            let value = match (spec.range, given) {
                (ParamRange::Count { default, .. }, None) => Param::Count(default),
                (ParamRange::Number { default, .. }, None) => Param::Number(default),
                (ParamRange::Flag { default }, None) => Param::Flag(default),
                (ParamRange::Count { min, max, .. }, Some(value)) => {
                    let count = value.as_integer().and_then(|i| u32::try_from(i).ok());
                    let count = count.filter(|i| (min..=max).contains(i));
                    Param::Count(count.ok_or_else(|| wrong(format!("a whole number within {min}..={max}")))?)
                }
                (ParamRange::Number { min, max, .. }, Some(value)) => {
                    let number = match value {
                        Value::Float(x) => Some(*x),
                        Value::Integer(i) => Some(*i as f64),
                        _ => None,
                    };
                    let number = number.filter(|x| (min..=max).contains(x));
                    Param::Number(number.ok_or_else(|| wrong(format!("a number within {min}..={max}")))?)
                }
                (ParamRange::Flag { .. }, Some(value)) => {
                    Param::Flag(value.as_bool().ok_or_else(|| wrong("true or false".to_owned()))?)
                }
            };
            Ok((spec.key, value))
        };
        specs.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// # Panics
    /// When the kind did not declare `key` as a count: our own bug, which the table's test would find.
    pub fn count(&self, key: &str) -> u32 {
        match self.0.get(key) {
            Some(Param::Count(count)) => *count,
            other => panic!("Invariant: {key} is declared as a count, not {other:?}"),
        }
    }
    /// # Panics
    /// As [`Params::count`].
    pub fn number(&self, key: &str) -> f64 {
        match self.0.get(key) {
            Some(Param::Number(number)) => *number,
            other => panic!("Invariant: {key} is declared as a number, not {other:?}"),
        }
    }
    /// # Panics
    /// As [`Params::count`].
    pub fn flag(&self, key: &str) -> bool {
        match self.0.get(key) {
            Some(Param::Flag(flag)) => *flag,
            other => panic!("Invariant: {key} is declared as a flag, not {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[ParamSpec] = &[
        ParamSpec { key: "fast", about: "bars", range: ParamRange::Count { min: 2, max: 500, default: 9 } },
        ParamSpec { key: "level", about: "0..100", range: ParamRange::Number { min: 0.0, max: 100.0, default: 30.0 } },
        ParamSpec { key: "wait", about: "", range: ParamRange::Flag { default: false } },
    ];

    fn read(text: &str) -> Result<Params, String> {
        Params::read(SPECS, &text.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let params = read("level = 25").unwrap();
        assert_eq!((params.count("fast"), params.number("level"), params.flag("wait")), (9, 25.0, false));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_is_allowed() {
        for (text, error) in [
            ("fsat = 3", "fsat: unknown parameter; allowed are `fast`, `level`, `wait`"),
            ("fast = 1", "fast: 1 is not a whole number within 2..=500"),
            ("fast = 9.5", "fast: 9.5 is not a whole number within 2..=500"),
            ("fast = \"9\"", "fast: \"9\" is not a whole number within 2..=500"),
            ("level = 100.5", "level: 100.5 is not a number within 0..=100"),
            ("level = nan", "level: nan is not a number within 0..=100"),
            ("wait = 1", "wait: 1 is not true or false"),
        ] {
            assert_eq!(read(text).unwrap_err(), error);
        }
    }
}
