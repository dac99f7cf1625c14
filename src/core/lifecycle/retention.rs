//! Which runs lose their details (promise 53): those whose time is over, but never a tagged one or the newest that passed of a plan.

use crate::model::id::RunId;
use crate::model::key::Key;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is looked at of a finished run whose details are still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRun {
    /// The run.
    pub run: RunId,
    /// Of which plan.
    pub plan: Key,
    /// When it was over.
    pub finished_at: Timestamp,
    /// How long its details are kept after that.
    pub keep: Duration,
    /// Whether somebody gave it a name.
    pub is_tagged: bool,
    /// Whether it passed, and was no smoke test: what later runs are compared with.
    pub is_baseline: bool,
}

/// The runs whose details are to be removed now, those that ended first at the front.
pub fn expired(runs: &[FinishedRun], now: Timestamp) -> Vec<RunId> {
    let mut last_passed: BTreeMap<&Key, (Timestamp, RunId)> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.is_baseline) {
        let newest = last_passed.entry(&run.plan).or_insert((run.finished_at, run.run));
        *newest = (*newest).max((run.finished_at, run.run));
    }
    let is_over = |run: &&FinishedRun| {
        let age = Duration::try_from(now.duration_since(run.finished_at));
        // A run that ended in the future, by a clock that was set back since, is kept.
        age.is_ok_and(|age| age >= run.keep)
    };
    let is_kept = |run: &FinishedRun| run.is_tagged || last_passed.get(&run.plan).is_some_and(|kept| kept.1 == run.run);
    let mut over: Vec<&FinishedRun> = runs.iter().filter(is_over).filter(|run| !is_kept(run)).collect();
    over.sort_unstable_by_key(|run| (run.finished_at, run.run));
    over.into_iter().map(|run| run.run).collect()
}

#[cfg(test)]
mod tests {
    use super::{FinishedRun, expired};
    use crate::model::id::RunId;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;
    use uuid::Uuid;

    fn run(number: u128, plan: u8, finished_s: i64, keep_s: u64, is_tagged: bool, is_baseline: bool) -> FinishedRun {
        FinishedRun {
            run: RunId(Uuid::from_u128(number)),
            plan: format!("default/TestPlan/p{plan}").parse().unwrap(),
            finished_at: Timestamp::from_second(finished_s).unwrap(),
            keep: Duration::from_secs(keep_s),
            is_tagged,
            is_baseline,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn s53_a_run_is_kept_for_its_time_and_not_longer() {
        let one = [run(1, 0, 100, 50, false, false)];
        assert_eq!(expired(&one, at(149)), []);
        assert_eq!(expired(&one, at(150)), [one[0].run]);
        assert_eq!(expired(&one, at(10)), [], "the clock was set back");
    }

    #[test]
    fn s53_the_newest_that_passed_stays_and_gives_way_to_a_newer_one() {
        let passed = run(1, 0, 100, 50, false, true);
        let failed = run(2, 0, 120, 50, false, false);
        let other = run(3, 1, 90, 50, false, true);
        assert_eq!(
            expired(&[passed.clone(), failed.clone(), other.clone()], at(1_000)),
            [failed.run]
        );
        let newer = run(4, 0, 900, 500, false, true);
        assert_eq!(
            expired(&[passed.clone(), failed.clone(), other, newer], at(1_000)),
            [passed.run, failed.run]
        );
    }

    prop_compose! {
        fn runs()(drawn in proptest::collection::vec((0_u8..3, 0_i64..1_000, 0_u64..1_000, any::<bool>(), any::<bool>()), 0..40))
            -> Vec<FinishedRun> {
            (1..).zip(drawn).map(|(number, (plan, end, keep, tag, base))| run(number, plan, end, keep, tag, base)).collect()
        }
    }

    proptest! {
        #[test]
        fn s53_tagged_runs_and_the_last_passed_of_each_plan_stay_for_ever(all in runs(), now in 0_i64..5_000) {
            let gone: BTreeSet<RunId> = expired(&all, at(now)).into_iter().collect();
            prop_assert!(all.iter().filter(|run| run.is_tagged).all(|run| !gone.contains(&run.run)));
            for plan in all.iter().map(|run| &run.plan) {
                let last = all.iter().filter(|run| run.is_baseline && run.plan == *plan).max_by_key(|run| (run.finished_at, run.run));
                prop_assert!(last.is_none_or(|last| !gone.contains(&last.run)));
            }
            // Nothing more goes when it is asked again about what is left, and nothing comes back later.
            let left: Vec<_> = all.iter().filter(|run| !gone.contains(&run.run)).cloned().collect();
            prop_assert_eq!(expired(&left, at(now)), []);
            let later: BTreeSet<RunId> = expired(&all, at(now + 100)).into_iter().collect();
            prop_assert!(gone.is_subset(&later));
        }
    }
}
