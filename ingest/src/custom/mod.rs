//! A venue by configuration alone: a TOML file says where it is, how one subscribes, and where in its JSON or CSV the
//! trades, quotes, books and candles and their fields are.
//!
//! In reading order: `json` (values and paths into them), `keys` (a table that tells what is wrong with it), `value`
//! (times, sides, symbols), `message` (one kind of message), `description` (the whole file), `files` (rows of CSV and
//! NDJSON), `polled` (REST asked again and again), `venue` (all of it as a [`crate::venue::Venue`]), `sample` (a try on
//! recorded lines). The manual is the commented files in `ingest/examples/venues/`.
//!
//! Invariant C-1: what a description says of a frame follows from the frame alone, and numbers go from text to decimal.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use schemas::config::ConfigError;

use crate::venue::VENUES;

pub mod description;
pub mod files;
pub mod json;
mod keys;
pub mod message;
mod polled;
pub mod sample;
mod value;
mod venue;

pub use description::Description;
pub use venue::Described;

/// Descriptions of one process. Each stays for its life: a registered venue is as `'static` as a built-in one.
pub const DESCRIBED_MAX: usize = 256;

struct Registry {
    venues: BTreeMap<String, &'static Described>,
    leaked: usize,
}

static REGISTRY: RwLock<Registry> = RwLock::new(Registry { venues: BTreeMap::new(), leaked: 0 });

/// Makes a venue of a description under the id that its subjects and streams carry; `file` names it in errors. The same
/// text again changes nothing; another one takes the place of the first for what starts from then on.
pub fn register(id: &str, file: &str, text: &str) -> Result<&'static Described, Vec<ConfigError>> {
    let wrong = |key: &str, why: String| vec![ConfigError::new(file, key, why)];
    if VENUES.iter().flat_map(|v| v.markets()).any(|m| m.id == id) {
        return Err(wrong("(id)", format!("`{id}` is a built-in venue; a described one needs a name of its own")));
    }
    let description = Description::parse(file, text)?;
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = registry.venues.get(id).filter(|there| there.description.digest == description.digest) {
        return Ok(there);
    }
    if registry.leaked == DESCRIBED_MAX {
        return Err(wrong("(id)", format!("one process takes at most {DESCRIBED_MAX} descriptions")));
    }
    let described = Described::leak(id, description);
    registry.leaked += 1;
    registry.venues.insert(id.to_owned(), described);
    Ok(described)
}

/// All that is wrong as one error: the first with its key, the others a line each.
pub fn together(problems: Vec<ConfigError>) -> ConfigError {
    let mut problems = problems.into_iter();
    let Some(mut first) = problems.next() else { return ConfigError::new("description", "(none)", "nothing is wrong") };
    for more in problems {
        first.why += &format!("\n{more}");
    }
    first
}

/// The described venue of this id.
pub fn registered(id: &str) -> Option<&'static Described> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).venues.get(id).copied()
}

/// All of them, by id.
pub fn all() -> Vec<&'static Described> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).venues.values().copied().collect()
}

#[cfg(test)]
mod tests;
