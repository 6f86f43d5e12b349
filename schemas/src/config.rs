//! Configuration: a stage's commented `config.toml` is the manual and the defaults; the user's file has one table
//! a stage, laid over it. Unknown keys are errors.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A configuration cannot be used: which file, which key, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key}: {why}")]
pub struct ConfigError {
    pub file: String,
    /// Dotted path, such as `risk.limits.leverage_max`.
    pub key: String,
    pub why: String,
}

impl ConfigError {
    pub fn new(file: &str, key: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { file: file.to_owned(), key: key.into(), why: why.to_string() }
    }
    /// A value that reads well but means nothing; `key` without the stage's name.
    pub fn value(key: &str, why: impl std::fmt::Display) -> Self {
        Self::new("configuration", key, why)
    }
}

/// The user's file: its name (for errors) and text.
#[derive(Clone, Debug)]
pub struct UserFile {
    pub name: String,
    pub text: String,
}

/// The stage's defaults with the user's `[stage]` table laid over them. Tables merge key by key; everything else
/// is replaced. Errors name the file, the key and what is allowed.
pub fn load<T: DeserializeOwned>(stage: &str, default: &str, user: Option<&UserFile>) -> Result<T, ConfigError> {
    let base_name = format!("{stage}/config.toml");
    let mut table: Table = default.parse().map_err(|e| ConfigError::new(&base_name, stage, e))?;
    let mut file = base_name;
    if let Some(user) = user {
        let whole: Table = user.text.parse().map_err(|e| ConfigError::new(&user.name, "(syntax)", e))?;
        if let Some(mine) = whole.get(stage) {
            let Value::Table(mine) = mine else {
                return Err(ConfigError::new(&user.name, stage, "must be a table"));
            };
            overlay(&mut table, mine);
            file = user.name.clone();
        }
    }
    Value::Table(table).try_into().map_err(|e: toml::de::Error| {
        let text = e.to_string();
        ConfigError::new(&file, key_of(stage, &text), text.trim().replace('\n', " "))
    })
}

/// The key that serde complains of: it names the unknown or missing field in back quotes, or the path in a
/// closing line "in `a.b`".
fn key_of(stage: &str, text: &str) -> String {
    let quoted = |s: &str| s.split('`').nth(1).map(str::to_owned);
    let place = text.rsplit_once("in `").and_then(|(_, rest)| rest.split('`').next());
    let field =
        text.contains("field `").then(|| text.split_once("field ").and_then(|(_, rest)| quoted(rest))).flatten();
    match (place, field) {
        (Some(place), Some(field)) => format!("{stage}.{place}.{field}"),
        (Some(place), None) => format!("{stage}.{place}"),
        (None, Some(field)) => format!("{stage}.{field}"),
        (None, None) => stage.to_owned(),
    }
}

fn overlay(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(b)), Value::Table(o)) => overlay(b, o),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct C {
        bound_ms: u64,
        inner: Inner,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        share: crate::Fraction,
    }
    const DEFAULT: &str = "bound_ms = 5\n[inner]\nshare = \"0.2\"\n";

    fn user(text: &str) -> UserFile {
        UserFile { name: "tapeline.toml".into(), text: text.into() }
    }

    #[test]
    fn the_users_keys_replace_the_defaults_and_the_others_stay() {
        let c: C = load("risk", DEFAULT, Some(&user("[risk]\nbound_ms = 9\n[gateway]\nport = 1\n"))).unwrap();
        assert_eq!((c.bound_ms, c.inner.share.to_string().as_str()), (9, "0.2"));
    }

    #[test]
    fn an_unknown_key_names_file_key_and_what_is_allowed() {
        let e = load::<C>("risk", DEFAULT, Some(&user("[risk.inner]\nshares = \"0.3\"\n"))).unwrap_err();
        assert_eq!(e.file, "tapeline.toml");
        assert_eq!(e.key, "risk.inner.shares");
        assert!(e.why.contains("expected `share`"), "{}", e.why);
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        let e = load::<C>("risk", DEFAULT, Some(&user("[risk.inner]\nshare = \"1.5\"\n"))).unwrap_err();
        assert_eq!(e.key, "risk.inner.share");
        assert!(e.why.contains("0..=1"), "{}", e.why);
    }
}
