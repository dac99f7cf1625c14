//! What the state machine needs to know of a plan: its phases, hooks and limits.

use crate::model::load::{OnTimeout, Phase, PhaseWork};
use crate::model::plan::{FailurePolicy, HookWhen, OnChange, TestPlan};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The part of a resolved plan that `step` looks at. Never changes during a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// In order.
    pub phases: Vec<PhasePlan>,
    /// In order.
    pub hooks: Vec<HookPlan>,
    /// The exact number of workers.
    pub workers: u32,
    /// How long workers may take to be there.
    pub ready_timeout: Duration,
    /// How long a worker goes on without its owner.
    pub orphan_timeout: Duration,
    /// More lost workers end the run as Invalid(workers).
    pub max_lost_workers: u32,
    /// What a commit that edits or deletes the plan does.
    pub on_change: OnChange,
    /// Load begins no earlier: the slot's instant. `None`: as soon as workers are armed.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

/// A phase, as the state machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PhasePlan {
    /// Ends by the workers' own clocks.
    Timed {
        /// How long.
        lasts: Duration,
        /// How long iterations may go on after it.
        graceful: Duration,
    },
    /// Ends when its iterations are done.
    Iterations {
        /// At most so long.
        at_most: Duration,
        /// How long iterations may go on after it.
        graceful: Duration,
    },
    /// Waits for a person.
    Pause {
        /// At most so long.
        timeout: Duration,
        /// What happens then.
        on_timeout: OnTimeout,
    },
}

/// A hook, as the state machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// Its name.
    pub name: String,
    /// When it runs.
    pub when: HookWhen,
    /// At most so long.
    pub timeout: Duration,
    /// Whether its failure is the run's.
    pub policy: FailurePolicy,
    /// May be repeated.
    pub idempotent: bool,
}

impl RunPlan {
    /// Takes what is needed out of a resolved plan.
    pub fn of(plan: &TestPlan, workers: u32, ready_timeout: Duration, orphan_timeout: Duration) -> Self {
        let hooks = plan.hooks.iter().map(|hook| HookPlan {
            name: hook.name.clone(),
            when: hook.when,
            timeout: hook.timeout,
            policy: hook.failure_policy,
            idempotent: hook.idempotent,
        });
        Self {
            phases: plan.phases.iter().map(PhasePlan::of).collect(),
            hooks: hooks.collect(),
            workers,
            ready_timeout,
            orphan_timeout,
            max_lost_workers: plan.validity.max_lost_workers,
            on_change: plan.on_change,
            not_before: None,
        }
    }

    /// Indices of the hooks that run at a time, in order.
    pub fn hooks_at(&self, when: HookWhen) -> impl Iterator<Item = (u32, &HookPlan)> {
        (0_u32..).zip(&self.hooks).filter(move |(_, hook)| hook.when == when)
    }

    /// The phase with this index; `None` past the last.
    pub fn phase(&self, index: u32) -> Option<&PhasePlan> {
        self.phases.get(usize::try_from(index).ok()?)
    }

    /// The longest graceful stop of any phase.
    pub fn longest_grace(&self) -> Duration {
        let graces = self.phases.iter().map(|phase| match phase {
            PhasePlan::Timed { graceful, .. } | PhasePlan::Iterations { graceful, .. } => *graceful,
            PhasePlan::Pause { .. } => Duration::ZERO,
        });
        graces.max().unwrap_or_default()
    }

    /// How long load may go on from the begin of a phase until it needs a word from its owner or is over, graces included.
    pub fn longest_from(&self, phase: u32) -> Duration {
        let mut sum = Duration::ZERO;
        for phase in self.phases.iter().skip(usize::try_from(phase).unwrap_or(usize::MAX)) {
            match phase {
                PhasePlan::Timed { lasts, .. } => sum = sum.saturating_add(*lasts),
                PhasePlan::Iterations { at_most, .. } => {
                    sum = sum.saturating_add(*at_most);
                    break;
                }
                PhasePlan::Pause { .. } => break,
            }
        }
        sum.saturating_add(self.longest_grace())
    }
}

impl PhasePlan {
    fn of(phase: &Phase) -> Self {
        match &phase.work {
            PhaseWork::Load {
                executor,
                graceful_stop,
            } if executor.ends_by_iterations() => Self::Iterations {
                at_most: executor.duration(),
                graceful: *graceful_stop,
            },
            PhaseWork::Load {
                executor,
                graceful_stop,
            } => Self::Timed {
                lasts: executor.duration(),
                graceful: *graceful_stop,
            },
            PhaseWork::Pause { timeout, on_timeout } => Self::Pause {
                timeout: *timeout,
                on_timeout: *on_timeout,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PhasePlan;
    use crate::model::id::Name;
    use crate::model::load::{Executor, Phase, PhaseWork};
    use std::time::Duration;

    fn phase(executor: Executor) -> Phase {
        Phase {
            name: Name::new("p").expect("a name"),
            work: PhaseWork::Load {
                executor,
                graceful_stop: Duration::ZERO,
            },
            workers: None,
        }
    }

    #[test]
    fn phases_end_by_their_clock_or_by_their_iterations() {
        let minute = Duration::from_secs(60);
        let timed = phase(Executor::ConstantVus {
            vus: 1,
            duration: minute,
        });
        let counted = phase(Executor::SharedIterations {
            vus: 1,
            iterations: 5,
            max_duration: minute,
        });
        let graceful = Duration::ZERO;
        assert_eq!(
            PhasePlan::of(&timed),
            PhasePlan::Timed {
                lasts: minute,
                graceful
            }
        );
        assert_eq!(
            PhasePlan::of(&counted),
            PhasePlan::Iterations {
                at_most: minute,
                graceful
            }
        );
    }
}
