//! Which tasks a process runs: `aggregate.binance.0-7,risk.main`.

use crate::error::BusError;

/// A share of the tasks. The empty list is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskList {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    stage: String,
    /// Venue, account or trader; absent: all of the stage.
    key: Option<String>,
    /// First and last partition; absent: all.
    partitions: Option<(u32, u32)>,
}

impl TaskList {
    /// Reads `stage[.key[.p|.p-q]]`, divided by commas.
    pub fn parse(text: &str) -> Result<Self, BusError> {
        let mut entries = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            entries.push(entry(item).ok_or_else(|| {
                BusError::Config(format!("--tasks: `{item}` is not stage, stage.key, stage.key.p or stage.key.p-q"))
            })?);
        }
        Ok(Self { entries })
    }

    /// Whether this process runs the stage's task of `key` without partitions.
    pub fn has(&self, stage: &str, key: &str) -> bool {
        self.entries.is_empty() || self.matching(stage, key).next().is_some()
    }

    /// Whether this process runs the stage's task of `key` and partition `p`.
    pub fn has_partition(&self, stage: &str, key: &str, p: u32) -> bool {
        self.entries.is_empty()
            || self
                .matching(stage, key)
                .any(|entry| entry.partitions.is_none_or(|(first, last)| (first..=last).contains(&p)))
    }

    /// The partitions `0..partitions` of `key` that this process runs.
    pub fn partitions(&self, stage: &str, key: &str, partitions: u32) -> Vec<u32> {
        (0..partitions).filter(|p| self.has_partition(stage, key, *p)).collect()
    }

    fn matching<'a>(&'a self, stage: &'a str, key: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |e| e.stage == stage && e.key.as_deref().is_none_or(|k| k == key))
    }
}

fn entry(item: &str) -> Option<Entry> {
    let mut parts = item.splitn(3, '.');
    let stage = parts.next().filter(|s| !s.is_empty())?.to_owned();
    let key = match parts.next() {
        Some("") => return None,
        key => key.map(str::to_owned),
    };
    let partitions = match parts.next() {
        None => None,
        Some(range) => {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            Some((first, last))
        }
    };
    Some(Entry { stage, key, partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_its_partitions_and_no_others() {
        let list = TaskList::parse("aggregate.binance.0-2, aggregate.binance.7,risk.main,ledger").unwrap();
        assert_eq!(list.partitions("aggregate", "binance", 16), [0, 1, 2, 7]);
        assert!(list.partitions("aggregate", "deribit", 16).is_empty());
        assert!(list.has("risk", "main") && !list.has("risk", "other"));
        assert!(list.has("ledger", "anything"));
    }

    #[test]
    fn the_empty_list_is_everything() {
        let list = TaskList::parse("").unwrap();
        assert_eq!(list.partitions("aggregate", "binance", 3), [0, 1, 2]);
        assert!(list.has("risk", "main"));
    }

    #[test]
    fn a_list_that_means_nothing_is_refused() {
        for text in ["aggregate.", "aggregate.binance.", "aggregate.binance.5-2", "aggregate.binance.x", ".a"] {
            let error = TaskList::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
