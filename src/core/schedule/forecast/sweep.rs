//! Sums over runs that are at the same time: load per target and minute, and limits.

use super::{CLASHES_MAX, Clash, ClashKind, Peak, Plan, Use};
use crate::model::environment::EnvironmentLimits;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rates are summed in millionths, so that what was added is gone when it is taken away.
const RATE_UNIT: f64 = 1e6;
/// Plans named in a clash at most.
const NAMES_MAX: usize = 10;
const MINUTE_S: i64 = 60;

/// Clashes found so far.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    kept: Vec<Clash>,
    /// All of them.
    pub(super) count: u64,
}

impl Clashes {
    /// Keeps a clash, or only counts it.
    pub(super) fn add(&mut self, clash: impl FnOnce() -> Clash) {
        self.count += 1;
        if self.kept.len() < CLASHES_MAX {
            self.kept.push(clash());
        }
    }

    pub(super) fn sorted(mut self) -> Vec<Clash> {
        self.kept
            .sort_by(|a, b| (a.from, a.kind, &a.plans, &a.detail).cmp(&(b.from, b.kind, &b.plans, &b.detail)));
        self.kept
    }
}

/// What runs at the same time, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rate: i128,
    vus: i128,
    runs: i128,
}

impl Sum {
    fn of(plan: &Plan<'_>) -> Self {
        Self {
            rate: (plan.peak_rate * RATE_UNIT).round() as i128,
            vus: i128::from(plan.peak_vus),
            runs: 1,
        }
    }

    fn add(&mut self, other: Self, sign: i128) {
        self.rate += other.rate * sign;
        self.vus += other.vus * sign;
        self.runs += other.runs * sign;
    }
}

/// Load per target over minutes in which it does not change.
pub(super) fn peaks(plans: &[Plan<'_>], uses: &[Use]) -> Vec<Peak> {
    let mut targets: BTreeMap<&str, Vec<(i64, i128, usize)>> = BTreeMap::new();
    for one in uses {
        let events = targets.entry(plans[one.plan].target).or_default();
        let first = one.from.as_second().div_euclid(MINUTE_S);
        let nanosecond = one.until.as_nanosecond();
        let end = nanosecond.div_euclid(60_000_000_000) + i128::from(nanosecond.rem_euclid(60_000_000_000) > 0);
        events.push((first, 1, one.plan));
        events.push((i64::try_from(end).unwrap_or(i64::MAX).max(first + 1), -1, one.plan));
    }
    let sums: Vec<Sum> = plans.iter().map(Sum::of).collect();
    let mut peaks: Vec<Peak> = Vec::new();
    for (target, mut events) in targets {
        let target: Arc<str> = target.into();
        events.sort_unstable();
        let mut now = Sum::default();
        let mut began = 0;
        for same in events.chunk_by(|a, b| a.0 == b.0) {
            let before = now;
            for (_, sign, plan) in same {
                now.add(sums[*plan], *sign);
            }
            if now == before {
                continue;
            }
            let minute = same[0].0;
            if before.runs > 0 {
                peaks.push(Peak {
                    target: Arc::clone(&target),
                    from: at_minute(began),
                    until: at_minute(minute),
                    rate: before.rate as f64 / RATE_UNIT,
                    vus: u64::try_from(before.vus).unwrap_or(u64::MAX),
                    runs: u32::try_from(before.runs).unwrap_or(u32::MAX),
                });
            }
            began = minute;
        }
    }
    peaks
}

fn at_minute(minute: i64) -> Timestamp {
    Timestamp::from_second(minute.saturating_mul(MINUTE_S)).unwrap_or(Timestamp::MAX)
}

/// One bound and what a run takes of it.
struct Measure {
    what: &'static str,
    bound: fn(&EnvironmentLimits) -> Option<u64>,
    takes: fn(&Plan<'_>) -> u64,
    /// Workers are there before load is.
    from: fn(&Use) -> Timestamp,
}

const MEASURES: [Measure; 4] = [
    Measure {
        what: "workers",
        bound: |limits| limits.workers.map(u64::from),
        takes: |plan| u64::from(plan.workers),
        from: |one| one.ready,
    },
    Measure {
        what: "users",
        bound: |limits| limits.vus,
        takes: |plan| plan.peak_vus,
        from: |one| one.from,
    },
    Measure {
        what: "iterations/s",
        bound: |limits| limits.rate,
        takes: |plan| plan.peak_rate.ceil() as u64,
        from: |one| one.from,
    },
    Measure {
        what: "runs",
        bound: |limits| limits.concurrent_runs.map(u64::from),
        takes: |_| 1,
        from: |one| one.ready,
    },
];

/// Where runs that are at the same time take more than a limit allows.
pub(super) fn limits(
    plans: &[Plan<'_>],
    names: &[Arc<str>],
    uses: &[Use],
    limits: &BTreeMap<&str, &EnvironmentLimits>,
    clashes: &mut Clashes,
) {
    for (scope, limits) in limits {
        let counts: Vec<bool> = plans.iter().map(|plan| plan.counts_in.contains(scope)).collect();
        let counted: Vec<&Use> = uses.iter().filter(|one| counts[one.plan]).collect();
        for measure in &MEASURES {
            if let Some(bound) = (measure.bound)(limits) {
                exceeded(plans, names, &counted, measure, bound, scope, clashes);
            }
        }
    }
}

fn exceeded(
    plans: &[Plan<'_>],
    names: &[Arc<str>],
    uses: &[&Use],
    measure: &Measure,
    bound: u64,
    scope: &str,
    clashes: &mut Clashes,
) {
    // An end sorts before a start at the same instant: one run may follow the other.
    let mut events: Vec<(Timestamp, bool, usize)> = Vec::with_capacity(uses.len() * 2);
    for (index, one) in uses.iter().enumerate() {
        let from = (measure.from)(one);
        if from < one.until {
            events.push((from, true, index));
            events.push((one.until, false, index));
        }
    }
    events.sort_unstable();
    let mut sum: u128 = 0;
    let mut running: BTreeSet<usize> = BTreeSet::new();
    // Since when too much is taken, the most of it, and who took it then.
    let mut over: Option<(Timestamp, u128, Vec<usize>)> = None;
    for (at, starts, index) in events {
        let takes = u128::from((measure.takes)(&plans[uses[index].plan]));
        if starts {
            sum += takes;
            running.insert(index);
        } else {
            sum -= takes;
            running.remove(&index);
        }
        if sum > u128::from(bound) {
            let (_, most, who) = over.get_or_insert((at, 0, Vec::new()));
            if sum > *most {
                *most = sum;
                *who = running.iter().take(NAMES_MAX).copied().collect();
            }
        } else if let Some((from, most, who)) = over.take() {
            clashes.add(|| Clash {
                kind: ClashKind::Limit,
                from,
                until: at,
                plans: who
                    .iter()
                    .map(|index| &names[uses[*index].plan])
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(Arc::clone)
                    .collect(),
                detail: format!("{scope} allows {bound} {}, {most} are wanted", measure.what),
            });
        }
    }
}
