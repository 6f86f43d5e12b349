//! Who should hold which task: a pure decision that every instance takes for itself, from what all of them say.
//!
//! It need not be right, only mostly right: a lease is taken by compare-and-set, and the log is the fence.

use std::collections::{BTreeMap, BTreeSet};

/// One living instance as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// Tasks that it would run: its `--tasks` share.
    pub tasks: BTreeSet<String>,
    /// How many it holds; as of its last word, so up to one renewal old.
    pub held: usize,
    /// How many it holds at most; `usize::MAX` for no limit.
    pub quota: usize,
}

/// What an instance sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    pub me: &'a Member,
    /// The others; `me` is passed over by id.
    pub others: &'a [Member],
    /// Tasks that I hold.
    pub mine: &'a BTreeSet<String>,
    /// Tasks that somebody holds, me included.
    pub taken: &'a BTreeSet<String>,
}

/// What an instance should do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Move {
    pub claim: Vec<String>,
    pub release: Vec<String>,
}

/// Every task counts one, divided by those who would run it.
const WHOLE: u64 = 720_720;

/// The most that `member` should hold: its part of every task that it would run, rounded up, within its quota.
pub fn fair(member: &Member, all: &[&Member]) -> usize {
    let part = |task: &String| WHOLE / all.iter().filter(|m| m.tasks.contains(task)).count().max(1) as u64;
    let sum: u64 = member.tasks.iter().map(part).sum();
    (sum.div_ceil(WHOLE) as usize).min(member.quota)
}

/// What to claim and what to let go.
pub fn decide(view: &View<'_>) -> Move {
    let me = view.me;
    let others: Vec<&Member> = view.others.iter().filter(|m| m.id != me.id).collect();
    let all: Vec<&Member> = others.iter().copied().chain([me]).collect();
    let fair_here = fair(me, &all);
    let mut free: Vec<&String> = me.tasks.iter().filter(|task| !view.taken.contains(*task)).collect();
    // Everybody begins at another task, so that two that start together rarely want the same one first.
    free.sort_by_key(|task| preference(&me.id, task));
    let wants: BTreeMap<&str, usize> =
        others.iter().map(|m| (m.id.as_str(), fair(m, &all).saturating_sub(m.held))).collect();
    let wanted_by = |task: &String| others.iter().any(|m| wants[m.id.as_str()] > 0 && m.tasks.contains(task));

    let held = view.mine.len();
    let mut claim: Vec<String> = free.iter().take(fair_here.saturating_sub(held)).map(|t| (*t).clone()).collect();
    // What nobody else may take (their quotas are full) is taken beyond the fair part.
    let room = me.quota.saturating_sub(held + claim.len());
    claim.extend(free.iter().skip(claim.len()).filter(|t| !wanted_by(t)).take(room).map(|t| (*t).clone()));

    let surplus = held.saturating_sub(fair_here);
    // What is free already goes to them first.
    let lacking = wants.values().sum::<usize>().saturating_sub(free.len());
    let mut letting: Vec<&String> = view.mine.iter().filter(|task| wanted_by(task)).collect();
    letting.sort_by_key(|task| std::cmp::Reverse(preference(&me.id, task)));
    let release = letting.into_iter().take(surplus.min(lacking)).cloned().collect();
    Move { claim, release }
}

/// FNV-1a-64 over instance and task: another order of the tasks for each instance.
fn preference(id: &str, task: &str) -> u64 {
    let bytes = id.bytes().chain([b'/']).chain(task.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Instances by the numbers of the tasks that they would run, with their quotas.
    struct Floor {
        members: Vec<Member>,
        mine: Vec<BTreeSet<String>>,
    }

    impl Floor {
        fn of(shares: &[(Vec<usize>, usize)]) -> Self {
            let member = |(i, (tasks, quota)): (usize, &(Vec<usize>, usize))| Member {
                id: format!("i{i}"),
                tasks: tasks.iter().map(|t| format!("t{t:02}")).collect(),
                held: 0,
                quota: *quota,
            };
            let members: Vec<Member> = shares.iter().enumerate().map(member).collect();
            Self { mine: vec![BTreeSet::new(); members.len()], members }
        }

        /// Everybody moves once, on what was seen before the round; true when anybody did.
        fn round(&mut self) -> bool {
            let seen = self.members.clone();
            let mut moved = false;
            for i in 0..seen.len() {
                let taken: BTreeSet<String> = self.mine.iter().flatten().cloned().collect();
                let view = View { me: &seen[i], others: &seen, mine: &self.mine[i], taken: &taken };
                let go = decide(&view);
                moved |= go != Move::default();
                for task in &go.release {
                    assert!(self.mine[i].remove(task), "released what it did not hold");
                }
                for task in go.claim {
                    assert!(!taken.contains(&task) && seen[i].tasks.contains(&task));
                    self.mine[i].insert(task);
                }
            }
            for (member, mine) in self.members.iter_mut().zip(&self.mine) {
                member.held = mine.len();
            }
            moved
        }

        fn settle(&mut self) {
            for _ in 0..40 {
                if !self.round() {
                    return;
                }
            }
            panic!("still moving: {:?}", self.mine);
        }
        fn counts(&self) -> Vec<usize> {
            self.mine.iter().map(BTreeSet::len).collect()
        }
    }

    fn all16() -> Vec<usize> {
        (0..16).collect()
    }

    #[test]
    fn one_instance_holds_everything_and_gives_half_to_a_second_and_a_third_of_it_to_a_third() {
        let mut floor = Floor::of(&[(all16(), usize::MAX)]);
        floor.settle();
        assert_eq!(floor.counts(), [16]);
        for (more, expected) in [(1, vec![8, 8]), (2, vec![6, 6, 4])] {
            let id = format!("i{more}");
            floor.members.push(Member { id, ..floor.members[0].clone() });
            floor.members[more].held = 0;
            floor.mine.push(BTreeSet::new());
            floor.settle();
            let mut counts = floor.counts();
            counts.sort_by(|a, b| b.cmp(a));
            assert_eq!((counts.iter().sum::<usize>(), counts[0]), (16, expected[0]), "{counts:?}");
        }
    }

    #[test]
    fn who_dies_leaves_its_tasks_to_the_others() {
        let mut floor = Floor::of(&[(all16(), usize::MAX), (all16(), usize::MAX)]);
        floor.settle();
        floor.members.remove(0);
        floor.mine.remove(0);
        floor.settle();
        assert_eq!(floor.counts(), [16]);
    }

    #[test]
    fn a_quota_is_kept_and_the_rest_goes_to_who_has_none() {
        let mut floor = Floor::of(&[(all16(), 3), (all16(), usize::MAX)]);
        floor.settle();
        assert_eq!(floor.counts(), [3, 13]);
    }

    proptest! {
        /// Whatever the shares, it comes to rest, every task that somebody would run is held by one, and nobody holds
        /// more than the fair part while another lacks what it could take.
        #[test]
        fn any_instances_come_to_rest_with_every_task_held_once(
            shares in proptest::collection::vec(
                (proptest::collection::btree_set(0usize..12, 0..12), prop_oneof![Just(usize::MAX), 12usize..20]), 1..5),
        ) {
            let shares: Vec<_> = shares.into_iter().map(|(tasks, quota)| (tasks.into_iter().collect(), quota)).collect();
            let mut floor = Floor::of(&shares);
            floor.settle();
            let held: Vec<&String> = floor.mine.iter().flatten().collect();
            let once: BTreeSet<&String> = held.iter().copied().collect();
            prop_assert_eq!(held.len(), once.len());
            let wanted: BTreeSet<&String> = floor.members.iter().flat_map(|m| &m.tasks).collect();
            prop_assert_eq!(once, wanted);
        }
    }
}
