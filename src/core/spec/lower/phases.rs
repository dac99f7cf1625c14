//! Phases: k6's defaults filled in, steps expanded to stages, users bounded by what the pool carries.

use super::{Lower, at};
use crate::model::environment::Capacity;
use crate::model::load::{Executor, OnTimeout, Phase, PhaseWork, Rate, RateStage, Users, VuStage};
use crate::spec::code::Code;
use crate::spec::wire::phase::{
    ConstantArrivalRate, Iterations, OnTimeout as WireOnTimeout, Phase as WirePhase, RampingArrivalRate, RampingVus,
    Stage, Steps,
};
use crate::spec::wire::scalar::{NameText, Span};
use std::time::Duration;

/// k6's default of `gracefulStop` and `gracefulRampDown`.
const GRACEFUL: Duration = Duration::from_secs(30);
/// k6's default of `maxDuration`.
const MAX_DURATION: Duration = Duration::from_secs(600);
/// Fewest users made before an open phase starts; below, the first slow answer already finds none free.
const PRE_ALLOCATED_MIN: u64 = 10;

impl Lower<'_, '_> {
    /// Lowers all phases. `most_users` is what `maxVUs` is where a phase does not say; less where it has workers that carry less.
    pub(super) fn phases(&mut self, wire: &[WirePhase], most_users: u64, one: &Capacity) -> Vec<Phase> {
        let names: Vec<&str> = wire.iter().map(|phase| name(phase).0.as_str()).collect();
        self.unique("/spec/phases", "phase", names);
        let mut phases = Vec::new();
        for (index, phase) in wire.iter().enumerate() {
            let pointer = at("/spec/phases", index);
            let workers = workers(phase);
            let carried = workers.map(|workers| one.vus.saturating_mul(u64::from(workers)));
            let most_users = carried.map_or(most_users, |carried| carried.min(most_users));
            if let Some(work) = self.phase(&pointer, phase, most_users) {
                phases.push(Phase {
                    name: name(phase).0.clone(),
                    work,
                    workers,
                });
            }
        }
        if !wire.iter().any(|phase| !matches!(phase, WirePhase::Pause(_))) {
            self.error("/spec/phases", Code::NoLoad, "none of the phases makes load");
        }
        phases
    }

    fn phase(&mut self, pointer: &str, wire: &WirePhase, most_users: u64) -> Option<PhaseWork> {
        let (executor, graceful_stop) = match wire {
            WirePhase::Pause(pause) => {
                let timeout = at(&at(pointer, "pause"), "timeout");
                return Some(PhaseWork::Pause {
                    timeout: self.positive(&timeout, Some(&pause.pause.timeout), GRACEFUL),
                    on_timeout: match pause.pause.on_timeout {
                        Some(WireOnTimeout::Continue) => OnTimeout::Continue,
                        Some(WireOnTimeout::Abort) | None => OnTimeout::Abort,
                    },
                });
            }
            WirePhase::ConstantVus(phase) => {
                let duration = self.positive(&at(pointer, "duration"), Some(&phase.duration), GRACEFUL);
                (
                    Executor::ConstantVus {
                        vus: phase.vus.unwrap_or(1),
                        duration,
                    },
                    &phase.graceful_stop,
                )
            }
            WirePhase::RampingVus(phase) => (self.ramping_vus(pointer, phase), &phase.graceful_stop),
            WirePhase::ConstantArrivalRate(phase) => {
                (self.constant_rate(pointer, phase, most_users)?, &phase.graceful_stop)
            }
            WirePhase::RampingArrivalRate(phase) => {
                (self.ramping_rate(pointer, phase, most_users)?, &phase.graceful_stop)
            }
            WirePhase::PerVuIterations(phase) => {
                let (vus, iterations, max_duration) = self.iterations(pointer, phase);
                (
                    Executor::PerVuIterations {
                        vus,
                        iterations,
                        max_duration,
                    },
                    &phase.graceful_stop,
                )
            }
            WirePhase::SharedIterations(phase) => {
                let (vus, iterations, max_duration) = self.iterations(pointer, phase);
                if iterations < vus {
                    let text = format!("{iterations} iterations cannot be shared by {vus} users");
                    self.error(&at(pointer, "iterations"), Code::OutOfRange, text);
                }
                (
                    Executor::SharedIterations {
                        vus,
                        iterations,
                        max_duration,
                    },
                    &phase.graceful_stop,
                )
            }
        };
        let graceful_stop = graceful_stop.as_ref().map_or(GRACEFUL, |span| span.0);
        Some(PhaseWork::Load {
            executor,
            graceful_stop,
        })
    }

    fn ramping_vus(&mut self, pointer: &str, phase: &RampingVus) -> Executor {
        self.some_time(&at(pointer, "stages"), &phase.stages);
        Executor::RampingVus {
            start_vus: phase.start_vus.unwrap_or(1),
            stages: phase
                .stages
                .iter()
                .map(|stage| VuStage {
                    target: stage.target,
                    duration: stage.duration.0,
                })
                .collect(),
            graceful_ramp_down: phase.graceful_ramp_down.as_ref().map_or(GRACEFUL, |span| span.0),
        }
    }

    fn constant_rate(&mut self, pointer: &str, phase: &ConstantArrivalRate, most_users: u64) -> Option<Executor> {
        let duration = self.positive(&at(pointer, "duration"), Some(&phase.duration), GRACEFUL);
        let rate = Rate {
            iterations: phase.rate,
            per_ms: self.time_unit(pointer, phase.time_unit.as_ref())?,
        };
        let users = self.users(
            pointer,
            rate.per_second(),
            (phase.pre_allocated_vus, phase.max_vus),
            most_users,
        );
        Some(Executor::ConstantArrivalRate { rate, duration, users })
    }

    fn ramping_rate(&mut self, pointer: &str, phase: &RampingArrivalRate, most_users: u64) -> Option<Executor> {
        if !self.exactly_one(
            pointer,
            &[("stages", phase.stages.is_some()), ("steps", phase.steps.is_some())],
        ) {
            return None;
        }
        let per_ms = self.time_unit(pointer, phase.time_unit.as_ref())?;
        let (start, stages) = match (&phase.stages, &phase.steps) {
            (Some(stages), _) => {
                self.some_time(&at(pointer, "stages"), stages);
                let rate = |iterations| Rate { iterations, per_ms };
                let stages = stages.iter().map(|stage| RateStage {
                    target: rate(stage.target),
                    duration: stage.duration.0,
                });
                (rate(phase.start_rate.unwrap_or(0)), stages.collect())
            }
            (None, Some(steps)) => {
                if phase.start_rate.is_some() {
                    let text = "`steps` begin at their `from`; `startRate` cannot stand beside them";
                    self.error(&at(pointer, "startRate"), Code::Conflict, text);
                }
                self.positive(&at(&at(pointer, "steps"), "hold"), Some(&steps.hold), GRACEFUL);
                expand(steps, per_ms)
            }
            (None, None) => return None,
        };
        let peak = stages
            .iter()
            .map(|stage: &RateStage| stage.target.per_second())
            .fold(start.per_second(), f64::max);
        let users = self.users(pointer, peak, (phase.pre_allocated_vus, phase.max_vus), most_users);
        Some(Executor::RampingArrivalRate { start, stages, users })
    }

    fn iterations(&mut self, pointer: &str, phase: &Iterations) -> (u64, u64, Duration) {
        let max_duration = self.positive(&at(pointer, "maxDuration"), phase.max_duration.as_ref(), MAX_DURATION);
        (phase.vus.unwrap_or(1), phase.iterations.unwrap_or(1), max_duration)
    }

    fn some_time(&mut self, pointer: &str, stages: &[Stage]) {
        if stages.iter().all(|stage| stage.duration.0.is_zero()) {
            self.error(pointer, Code::OutOfRange, "the stages take no time at all");
        }
    }

    fn time_unit(&mut self, pointer: &str, span: Option<&Span>) -> Option<u64> {
        let unit = self.positive(&at(pointer, "timeUnit"), span, Duration::from_secs(1));
        u64::try_from(unit.as_millis()).ok()
    }

    fn users(&mut self, pointer: &str, peak_per_s: f64, given: (Option<u64>, Option<u64>), most_users: u64) -> Users {
        let (pre_allocated, max) = given;
        // A tenth of a second of arrivals: what is in flight where answers take 100 ms.
        let usual = ((peak_per_s / 10.0).ceil() as u64).max(PRE_ALLOCATED_MIN);
        let max = max.unwrap_or_else(|| most_users.max(pre_allocated.unwrap_or(0)));
        if let Some(pre_allocated) = pre_allocated
            && pre_allocated > max
        {
            let text = format!("`preAllocatedVUs` is {pre_allocated} and `maxVUs` only {max}");
            self.error(&at(pointer, "preAllocatedVUs"), Code::OutOfRange, text);
        }
        Users {
            pre_allocated: pre_allocated.unwrap_or_else(|| usual.min(max)),
            max,
        }
    }
}

/// The name of any phase.
pub(super) fn name(phase: &WirePhase) -> &NameText {
    match phase {
        WirePhase::ConstantVus(phase) => &phase.name,
        WirePhase::RampingVus(phase) => &phase.name,
        WirePhase::ConstantArrivalRate(phase) => &phase.name,
        WirePhase::RampingArrivalRate(phase) => &phase.name,
        WirePhase::PerVuIterations(phase) | WirePhase::SharedIterations(phase) => &phase.name,
        WirePhase::Pause(phase) => &phase.name,
    }
}

/// How many workers a phase asks for.
fn workers(phase: &WirePhase) -> Option<u32> {
    match phase {
        WirePhase::ConstantVus(phase) => phase.workers,
        WirePhase::RampingVus(phase) => phase.workers,
        WirePhase::ConstantArrivalRate(phase) => phase.workers,
        WirePhase::RampingArrivalRate(phase) => phase.workers,
        WirePhase::PerVuIterations(phase) | WirePhase::SharedIterations(phase) => phase.workers,
        WirePhase::Pause(_) => None,
    }
}

/// Steps as stages: `from` 500, `to` 2000, `count` 3 holds 1000, 1500 and 2000. Steps that are no whole numbers keep exact
/// fractions by a longer time unit.
fn expand(steps: &Steps, per_ms: u64) -> (Rate, Vec<RateStage>) {
    let count = u64::from(steps.count);
    let nth = |step: u64| steps.from * (count - step) + steps.to * step;
    let whole = (0..=count).all(|step| nth(step).is_multiple_of(count));
    let rate = |step: u64| match whole {
        true => Rate {
            iterations: nth(step) / count,
            per_ms,
        },
        false => Rate {
            iterations: nth(step),
            per_ms: per_ms * count,
        },
    };
    let stages = (1..=count).flat_map(|step| {
        let ramp = steps.ramp.as_ref().map_or(Duration::ZERO, |span| span.0);
        [
            RateStage {
                target: rate(step),
                duration: ramp,
            },
            RateStage {
                target: rate(step),
                duration: steps.hold.0,
            },
        ]
    });
    (rate(0), stages.collect())
}

#[cfg(test)]
mod tests {
    use super::{Rate, Span, Steps, expand};
    use std::time::Duration;

    fn steps(from: u64, to: u64, count: u32) -> Steps {
        let span = |seconds| Span(Duration::from_secs(seconds));
        Steps {
            from,
            to,
            count,
            ramp: Some(span(60)),
            hold: span(300),
        }
    }

    #[test]
    fn steps_are_ramps_and_holds() {
        let (start, stages) = expand(&steps(500, 2_000, 3), 1_000);
        assert_eq!(
            start,
            Rate {
                iterations: 500,
                per_ms: 1_000
            }
        );
        let seen: Vec<(u64, u64)> = stages
            .iter()
            .map(|stage| (stage.target.iterations, stage.duration.as_secs()))
            .collect();
        assert_eq!(
            seen,
            [
                (1_000, 60),
                (1_000, 300),
                (1_500, 60),
                (1_500, 300),
                (2_000, 60),
                (2_000, 300)
            ]
        );
    }

    #[test]
    fn steps_between_whole_rates_stay_exact() {
        let (start, stages) = expand(&steps(0, 10, 3), 1_000);
        assert_eq!(
            start,
            Rate {
                iterations: 0,
                per_ms: 3_000
            }
        );
        assert_eq!(
            stages[0].target,
            Rate {
                iterations: 10,
                per_ms: 3_000
            }
        );
        assert_eq!(
            stages[5].target,
            Rate {
                iterations: 30,
                per_ms: 3_000
            }
        );
        let (down, stages) = expand(&steps(9, 0, 3), 1_000);
        assert_eq!(
            (
                down.iterations,
                stages[1].target.iterations,
                stages[5].target.iterations
            ),
            (9, 6, 0)
        );
    }
}
