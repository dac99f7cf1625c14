//! How many users are wanted at each instant of a closed phase, and when that changes. k6's ramps: the n-th user of a ramp
//! starts (or leaves) when the line passes n, so the target is reached exactly at the stage's end.

use super::share::share;
use crate::model::load::{Executor, Segment};
use std::time::Duration;

/// Users over time of one phase, for the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vus {
    start: u64,
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    begin_ns: u64,
    length_ns: u64,
    from: u64,
    to: u64,
}

impl Vus {
    /// The users of a closed executor; `None` for open ones, whose users follow need.
    pub fn new(executor: &Executor) -> Option<Self> {
        match executor {
            Executor::ConstantVus { vus, .. }
            | Executor::PerVuIterations { vus, .. }
            | Executor::SharedIterations { vus, .. } => Some(Self {
                start: *vus,
                stages: Vec::new(),
            }),
            Executor::RampingVus { start_vus, stages, .. } => {
                let (mut begin_ns, mut from) = (0_u64, *start_vus);
                let stages = stages
                    .iter()
                    .map(|stage| {
                        let length_ns = u64::try_from(stage.duration.as_nanos()).unwrap_or(u64::MAX);
                        let made = Stage {
                            begin_ns,
                            length_ns,
                            from,
                            to: stage.target,
                        };
                        (begin_ns, from) = (begin_ns.saturating_add(length_ns), stage.target);
                        made
                    })
                    .collect();
                Some(Self {
                    start: *start_vus,
                    stages,
                })
            }
            Executor::ConstantArrivalRate { .. } | Executor::RampingArrivalRate { .. } => None,
        }
    }

    /// Users of the whole run at `at` from the phase's begin; past the last stage its target.
    pub fn at(&self, at: Duration) -> u64 {
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let begun = self.stages.partition_point(|stage| stage.begin_ns <= at_ns);
        match begun.checked_sub(1).and_then(|index| self.stages.get(index)) {
            None => self.start,
            Some(stage) => stage.at(at_ns - stage.begin_ns),
        }
    }

    /// This worker's users at `at`.
    pub fn own_at(&self, at: Duration, segment: Segment) -> u64 {
        share(self.at(at), segment)
    }

    /// The first instant after `after` at which this worker's users are another number; `None`: never again.
    pub fn next_change(&self, after: Duration, segment: Segment) -> Option<Duration> {
        let after_ns = u64::try_from(after.as_nanos()).ok()?;
        let own = self.own_at(after, segment);
        self.stages
            .iter()
            .filter(|stage| stage.begin_ns.saturating_add(stage.length_ns) > after_ns)
            .flat_map(|stage| {
                let begin = Some(stage.begin_ns).filter(|begin| *begin > after_ns);
                begin.into_iter().chain(stage.next_change(after_ns, segment))
            })
            .map(Duration::from_nanos)
            // What a ramp reaches at its very end may be jumped away by the next stage.
            .find(|at| self.own_at(*at, segment) != own)
    }
}

impl Stage {
    fn at(&self, inside_ns: u64) -> u64 {
        if inside_ns >= self.length_ns {
            return self.to;
        }
        let moved = u128::from(self.from.abs_diff(self.to)) * u128::from(inside_ns) / u128::from(self.length_ns);
        let moved = u64::try_from(moved).expect("the ramp moves by no more than its difference");
        if self.to >= self.from {
            self.from + moved
        } else {
            self.from - moved
        }
    }

    /// The first instant in this stage, after its begin and `after_ns`, at which the ramp changes the worker's users.
    fn next_change(&self, after_ns: u64, segment: Segment) -> Option<u64> {
        let now = self.at(self.begin_ns.max(after_ns) - self.begin_ns);
        let (count, index) = (u64::from(segment.count.max(1)), u64::from(segment.index));
        let reached = if self.to > now {
            // The share grows when the total reaches one more than a number that is the worker's.
            now.checked_add((index + count - now % count) % count + 1)
                .filter(|total| *total <= self.to)
        } else {
            // It shrinks when the total falls to a number that is the worker's.
            let below = now.checked_sub(1)?;
            below
                .checked_sub((below % count + count - index) % count)
                .filter(|total| *total >= self.to && *total < now)
        }?;
        Some(self.begin_ns + self.time_of(reached))
    }

    /// The first nanosecond at which the line has reached `total`, which lies between `from` and `to`.
    fn time_of(&self, total: u64) -> u64 {
        let moved = u128::from(self.from.abs_diff(total)) * u128::from(self.length_ns);
        let time = moved.div_ceil(u128::from(self.from.abs_diff(self.to)).max(1));
        u64::try_from(time).unwrap_or(self.length_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::Vus;
    use crate::model::load::{Executor, Segment, VuStage};
    use proptest::prelude::*;
    use std::time::Duration;

    fn ramping(start_vus: u64, stages: &[(u64, u64)]) -> Vus {
        let stages = stages
            .iter()
            .map(|(target, ms)| VuStage {
                target: *target,
                duration: Duration::from_millis(*ms),
            })
            .collect();
        Vus::new(&Executor::RampingVus {
            start_vus,
            stages,
            graceful_ramp_down: Duration::ZERO,
        })
        .expect("a closed executor")
    }

    #[test]
    fn ramps_reach_their_target_at_the_end_as_in_k6() {
        let vus = ramping(0, &[(10, 1_000), (10, 1_000), (4, 600), (20, 0), (20, 1_000)]);
        for (ms, want) in [
            (0, 0),
            (99, 0),
            (100, 1),
            (999, 9),
            (1_000, 10),
            (2_000, 10),
            (2_099, 10),
            (2_100, 9),
            (2_599, 5),
            (2_600, 20),
            (3_600, 20),
            (9_000, 20),
        ] {
            assert_eq!(vus.at(Duration::from_millis(ms)), want, "at {ms} ms");
        }
    }

    #[test]
    fn a_constant_number_never_changes() {
        let vus = Vus::new(&Executor::ConstantVus {
            vus: 7,
            duration: Duration::from_secs(1),
        })
        .expect("a closed executor");
        assert_eq!(vus.own_at(Duration::ZERO, Segment { index: 2, count: 3 }), 2);
        assert_eq!(vus.next_change(Duration::ZERO, Segment::WHOLE), None);
    }

    proptest! {
        #[test]
        fn s39_walking_the_changes_of_a_worker_gives_its_users_at_every_instant(
            start in 0_u64..20,
            stages in prop::collection::vec((0_u64..20, prop_oneof![Just(0), 1_u64..50]), 1..6),
            count in 1_u32..5,
            pick in any::<u32>(),
        ) {
            let vus = ramping(start, &stages);
            let segment = Segment { index: pick % count, count };
            let end: u64 = stages.iter().map(|stage| stage.1).sum();
            let (mut at, mut own) = (Duration::ZERO, vus.own_at(Duration::ZERO, segment));
            let mut next = vus.next_change(at, segment);
            for ms in 0..=(end + 2) {
                let now = Duration::from_millis(ms);
                while let Some(change) = next.filter(|change| *change <= now) {
                    prop_assert!(change > at);
                    let changed = vus.own_at(change, segment);
                    prop_assert_ne!(changed, own);
                    (at, own) = (change, changed);
                    next = vus.next_change(at, segment);
                }
                prop_assert_eq!(own, vus.own_at(now, segment), "at {} ms", ms);
            }
            let all: u64 = (0..count).map(|index| vus.own_at(at, Segment { index, count })).sum();
            prop_assert_eq!(all, vus.at(at));
        }
    }
}
