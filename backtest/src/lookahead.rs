//! Does a strategy look ahead, and how long must it warm up?
//!
//! *Truncation.* A tape that ends earlier must give the same facts up to its end: whoever says something else there
//! has seen what lies behind it. The tape is cut at several facts, and every fact that was said by then is compared,
//! each strategy's signals for themselves.
//!
//! *Warm-up.* A run that starts later must come to the same opinions after a while. The tape is started at several
//! facts; from which bar on do all opinions agree with those of the whole run, and how many changes of opinion do
//! they agree on? A strategy whose opinions depend on all of its past never converges, and its backtest says little of
//! a start tomorrow.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use schemas::signal::Stance;
use schemas::{Nanos, Timeframe};
use serde::Serialize;
use serde_json::Value;

use crate::engine::Engine;
use crate::fact::{Entry, Typed};
use crate::run::watch;
use crate::setup::Setup;
use crate::source::{Piece, Tape};

/// Changes of opinion that two runs must agree on before they count as converged: one may be chance.
const CHANGES_MIN: usize = 2;

/// The facts of a tape that one trial plays: those behind the first `skip`, `take` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    pub skip: u64,
    pub take: u64,
}

impl Cut {
    pub const WHOLE: Self = Self { skip: 0, take: u64::MAX };
}

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trials {
    /// Ends, evenly over the tape.
    pub ends: u64,
    /// Starts, evenly over the first half of the tape.
    pub starts: u64,
}

impl Default for Trials {
    fn default() -> Self {
        Self { ends: 5, starts: 4 }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// Facts of the tape, and of all that was said.
    pub tape_facts: u64,
    pub said: u64,
    /// Facts of the tape at which it was cut.
    pub ends: Vec<u64>,
    /// `market` (candles and indicators), `desk` (risk and executor), and each strategy's signals.
    pub groups: BTreeMap<String, Group>,
}

impl Verdict {
    /// No group said anything else before a cut.
    pub fn is_clean(&self) -> bool {
        self.groups.values().all(|group| group.difference.is_none())
    }
    /// Strategies whose opinions agree from some bar on, from every start.
    pub fn converges(&self) -> bool {
        self.groups.values().all(|group| group.warm_up.iter().all(|w| w.bars.is_some()))
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Group {
    /// Facts compared, over all cuts.
    pub compared: u64,
    pub difference: Option<Difference>,
    /// One a start and instrument; strategies only.
    pub warm_up: Vec<WarmUp>,
}

/// The first fact that the cut tape's run said otherwise.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// Facts of the tape up to the cut, and up to the fact.
    pub end: u64,
    pub tape_fact: u64,
    /// As the whole tape's run said it; absent: it said nothing there.
    pub whole: Option<Shown>,
    pub cut: Option<Shown>,
}

/// A fact for people.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    pub place: String,
    pub subject: String,
    pub fact: Value,
}

/// How a run that starts later comes to the same opinions.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WarmUp {
    pub instrument: String,
    /// Facts of the tape that were left away.
    pub start: u64,
    /// Bars behind its start from which on all opinions agree; absent: they do not, or on too little to tell.
    pub bars: Option<i64>,
    /// Changes of opinion behind that bar.
    pub changes: usize,
}

/// Makes the cores and the tape of a trial. The tape is given whole, or already cut: what a strategy could know
/// before it starts must come from no more than the cut.
pub type Make<'a> = dyn Fn(Cut) -> anyhow::Result<(Setup, Box<dyn Tape>)> + 'a;

/// Tries a setup. `progress` hears (trials done, trials in all).
pub fn check(make: &Make<'_>, trials: Trials, mut progress: impl FnMut(u64, u64)) -> anyhow::Result<Verdict> {
    let in_all = 1 + trials.ends + trials.starts;
    let whole = record(make, Cut::WHOLE)?;
    progress(1, in_all);
    let share = |i: u64, of: u64| u64::try_from(u128::from(whole.tape_facts) * u128::from(i) / u128::from(of));
    let ends: Vec<u64> = (1..=trials.ends).map(|i| share(i, trials.ends + 1)).collect::<Result<_, _>>()?;
    let mut groups: BTreeMap<String, Group> =
        whole.digests.keys().map(|name| (name.clone(), Group::default())).collect();
    for (i, end) in ends.iter().enumerate() {
        for (name, found) in truncated(make, &whole, *end)? {
            let group = groups.entry(name).or_default();
            group.compared += found.compared;
            group.difference = group.difference.take().or(found.difference);
        }
        progress(2 + i as u64, in_all);
    }
    for i in 1..=trials.starts {
        let start = share(i, 2 * trials.starts)?;
        let late = record(make, Cut { skip: start, take: u64::MAX })?;
        for ((strategy, instrument), full) in &whole.opinions {
            let key = (strategy.clone(), instrument.clone());
            let changes = late.opinions.get(&key).map_or(&[][..], |o| &o.changes);
            let found = agreement(&full.changes, changes).filter(|(_, agreed)| CHANGES_MIN <= *agreed);
            let bars = found.map(|(ts_ns, _)| full.bars(ts_ns.saturating_sub(late.begun_ns.unwrap_or(ts_ns))));
            let changes = found.map_or(0, |(_, agreed)| agreed);
            let group = groups.entry(strategy.clone()).or_default();
            group.warm_up.push(WarmUp { instrument: instrument.clone(), start, bars, changes });
        }
        progress(1 + trials.ends + i, in_all);
    }
    Ok(Verdict { tape_facts: whole.tape_facts, said: whole.said, ends, groups })
}

/// What a run said, as far as it is compared.
#[derive(Default)]
struct Recorded {
    tape_facts: u64,
    said: u64,
    begun_ns: Option<i64>,
    /// By group: the fact of the tape that it followed from, and its digest.
    digests: BTreeMap<String, Vec<(u64, u64)>>,
    /// By strategy and instrument.
    opinions: BTreeMap<(String, String), Opinions>,
}

#[derive(Default)]
struct Opinions {
    timeframe: String,
    /// Closes at which the opinion changed.
    changes: Vec<(i64, Stance)>,
}

impl Opinions {
    /// Whole bars in a stretch of event time, rounded up; milliseconds where bars have no length.
    fn bars(&self, ns: i64) -> i64 {
        let length = self.timeframe.parse::<Timeframe>().map_or(Nanos::PER_MS, Timeframe::ns);
        (ns + length - 1).div_euclid(length)
    }
}

fn record(make: &Make<'_>, cut: Cut) -> anyhow::Result<Recorded> {
    let mut recorded = Recorded::default();
    run(make, cut, |entry, tape_facts| {
        recorded.tape_facts = tape_facts;
        if !entry.fact.is_said() {
            recorded.begun_ns = recorded.begun_ns.or(entry.fact.ts_ns());
            return;
        }
        recorded.said += 1;
        recorded.digests.entry(group_of(&entry.fact)).or_default().push((tape_facts, digest(entry)));
        if let Typed::Signal(signal) = &entry.fact {
            let key = (signal.strategy.clone(), format!("{} {}", signal.venue, signal.symbol));
            let opinions = recorded.opinions.entry(key).or_default();
            if opinions.changes.last().is_none_or(|(_, side)| *side != signal.side) {
                opinions.changes.push((signal.ts_ns, signal.side));
            }
            if opinions.timeframe.is_empty() {
                opinions.timeframe.clone_from(&signal.timeframe);
            }
        }
    })?;
    Ok(recorded)
}

/// Compares a run over the first `end` facts with what the whole run said by then.
fn truncated(make: &Make<'_>, whole: &Recorded, end: u64) -> anyhow::Result<BTreeMap<String, Group>> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    run(make, Cut { skip: 0, take: end }, |entry, tape_fact| {
        if !entry.fact.is_said() {
            return;
        }
        let name = group_of(&entry.fact);
        let expected = whole.digests.get(&name).map_or(&[][..], Vec::as_slice);
        let group = groups.entry(name).or_default();
        if group.difference.is_some() {
            return;
        }
        if expected.get(group.compared as usize) == Some(&(tape_fact, digest(entry))) {
            group.compared += 1;
            return;
        }
        group.difference = Some(Difference { end, tape_fact, whole: None, cut: Some(shown(entry)) });
    })?;
    for (name, expected) in &whole.digests {
        let group = groups.entry(name.clone()).or_default();
        let next = expected.get(group.compared as usize).filter(|(tape_fact, _)| *tape_fact <= end);
        if let (None, Some((tape_fact, _))) = (&group.difference, next) {
            group.difference = Some(Difference { end, tape_fact: *tape_fact, whole: None, cut: None });
        }
        if let (Some(difference), Some(_)) = (&mut group.difference, next) {
            difference.whole = nth(make, name, group.compared)?;
        }
    }
    Ok(groups)
}

/// The `n`-th fact of a group, from 0, said again.
fn nth(make: &Make<'_>, group: &str, n: u64) -> anyhow::Result<Option<Shown>> {
    let (mut seen, mut found) = (0, None);
    run(make, Cut::WHOLE, |entry, _| {
        if entry.fact.is_said() && group_of(&entry.fact) == group {
            if seen == n {
                found = Some(shown(entry));
            }
            seen += 1;
        }
    })?;
    Ok(found)
}

/// Plays one trial; `see` hears every fact and how many facts of the tape there were so far.
fn run(make: &Make<'_>, cut: Cut, mut see: impl FnMut(&Entry, u64)) -> anyhow::Result<()> {
    let (setup, tape) = make(cut)?;
    let mut engine = Engine::new(&Setup { hash: false, ..setup })?;
    let mut tape = Piece::new(tape, cut.skip, cut.take);
    let mut tape_facts = 0;
    watch(&mut engine, &mut tape, |entry, of_tape| {
        tape_facts += u64::from(of_tape && !matches!(entry.fact, Typed::Instrument(_)));
        see(entry, tape_facts);
        Ok(())
    })
}

fn group_of(fact: &Typed) -> String {
    match fact {
        Typed::Signal(signal) => signal.strategy.clone(),
        Typed::Market(_) => "market".to_owned(),
        Typed::Raw(_) | Typed::Instrument(_) | Typed::State(_) => "tape".to_owned(),
        Typed::Risk(_) | Typed::Exec(_) => "desk".to_owned(),
    }
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(entry.place.stream.as_bytes());
    hasher.write_u64(entry.place.seq);
    hasher.write(entry.fact.subject().as_bytes());
    hasher.write(&entry.fact.payload());
    hasher.finish()
}

fn shown(entry: &Entry) -> Shown {
    let payload = entry.fact.payload();
    Shown {
        place: format!("{}:{}", entry.place.stream, entry.place.seq),
        subject: entry.fact.subject(),
        fact: rmp_serde::from_slice(&payload).unwrap_or_else(|_| Value::String(format!("{payload:?}"))),
    }
}

/// From when on two histories of opinions are the same, and on how many changes they agree there; `None`: they end
/// differently, or one of them is empty.
fn agreement(full: &[(i64, Stance)], late: &[(i64, Stance)]) -> Option<(i64, usize)> {
    let common = full.iter().rev().zip(late.iter().rev()).take_while(|(a, b)| a == b).count();
    let (first_full, first_late) = (full.len() - common, late.len() - common);
    let (first_ns, _) = full.get(first_full)?;
    // The opinions before the first common change may agree already, though they were formed at different closes.
    let before = (full[..first_full].last(), late[..first_late].last());
    let since_ns = match before {
        (Some((full_ns, full)), Some((late_ns, late))) if full == late => *full_ns.max(late_ns),
        _ => *first_ns,
    };
    Some((since_ns, common))
}

#[cfg(test)]
mod tests;
