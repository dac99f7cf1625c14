//! Smaller runs of a plan: `--scale 1%` and `--smoke`.

use crate::model::id::Name;
use crate::model::load::{Engine, Executor, Phase, PhaseWork, Rate, Users};
use crate::model::plan::TestPlan;
use std::time::Duration;

/// Grain of a scale: a millionth.
const GRAIN: u64 = 1_000_000;
/// How long a smoke test may take: longer than any request, think time or series of them that is still usable.
const SMOKE: Duration = Duration::from_secs(600);

/// The plan with its load multiplied by `factor` (0 to 1, in millionths): rates exactly, users and iterations rounded up. Times stay.
pub fn scale(plan: &mut TestPlan, factor: f64) {
    let millionths = ((factor.clamp(0.0, 1.0) * GRAIN as f64).round() as u64).max(1);
    for phase in &mut plan.phases {
        if let PhaseWork::Load { executor, .. } = &mut phase.work {
            scale_executor(executor, millionths);
        }
    }
}

fn scale_executor(executor: &mut Executor, millionths: u64) {
    let up = |count: &mut u64| {
        let product = u128::from(*count) * u128::from(millionths);
        *count = u64::try_from(product.div_ceil(GRAIN.into())).unwrap_or(*count);
    };
    let users = |users: &mut Users| {
        up(&mut users.pre_allocated);
        up(&mut users.max);
    };
    match executor {
        Executor::ConstantVus { vus, .. } => up(vus),
        Executor::RampingVus { start_vus, stages, .. } => {
            up(start_vus);
            stages.iter_mut().for_each(|stage| up(&mut stage.target));
        }
        Executor::ConstantArrivalRate { rate, users: some, .. } => {
            *rate = scale_rate(*rate, millionths);
            users(some);
        }
        Executor::RampingArrivalRate {
            start,
            stages,
            users: some,
        } => {
            *start = scale_rate(*start, millionths);
            stages
                .iter_mut()
                .for_each(|stage| stage.target = scale_rate(stage.target, millionths));
            users(some);
        }
        // A user of per-vu-iterations keeps its iterations: they are what it does.
        Executor::PerVuIterations { vus, .. } => up(vus),
        Executor::SharedIterations { vus, iterations, .. } => {
            up(vus);
            up(iterations);
        }
    }
}

fn scale_rate(rate: Rate, millionths: u64) -> Rate {
    let (iterations, per_ms) = (
        u128::from(rate.iterations) * u128::from(millionths),
        u128::from(rate.per_ms) * u128::from(GRAIN),
    );
    let divisor = gcd(iterations, per_ms);
    match (u64::try_from(iterations / divisor), u64::try_from(per_ms / divisor)) {
        (Ok(iterations), Ok(per_ms)) => Rate { iterations, per_ms },
        _ => rate,
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// One user and as many iterations as there are scenarios, each of the same weight; thresholds, rules and autoStop do not count.
pub fn smoke(plan: &mut TestPlan) {
    let mut scenarios = 1;
    if let Engine::Http(engine) = &mut plan.engine {
        scenarios = u64::try_from(engine.scenarios.len()).unwrap_or(u64::MAX);
        engine.scenarios.iter_mut().for_each(|scenario| scenario.weight = 1);
    }
    plan.phases = vec![Phase {
        name: Name::new("smoke").expect("`smoke` is a DNS label"),
        work: PhaseWork::Load {
            executor: Executor::PerVuIterations {
                vus: 1,
                iterations: scenarios,
                max_duration: SMOKE,
            },
            graceful_stop: Duration::ZERO,
        },
        workers: None,
    }];
    plan.thresholds.clear();
    plan.abort_rules.clear();
    plan.auto_stop = None;
}

#[cfg(test)]
mod tests {
    use super::{scale, scale_executor, smoke};
    use crate::lifecycle::arrivals::Arrivals;
    use crate::measure::testing::{plan, rule, threshold};
    use crate::model::load::{Executor, PhaseWork, Rate, Users};
    use crate::model::plan::{AutoStop, TestPlan};
    use crate::model::threshold::RuleAction;
    use std::time::Duration;

    #[test]
    fn rates_scale_exactly_and_users_round_up() {
        let users = Users {
            pre_allocated: 1,
            max: 250,
        };
        let mut executor = Executor::ConstantArrivalRate {
            rate: Rate {
                iterations: 500,
                per_ms: 1_000,
            },
            duration: Duration::from_secs(10),
            users,
        };
        scale_executor(&mut executor, 10_000);
        assert_eq!(Arrivals::new(&executor).map(|arrivals| arrivals.total()), Some(50));
        assert_eq!(executor.peak_vus(), 3);
        let mut executor = Executor::SharedIterations {
            vus: 10,
            iterations: 1_001,
            max_duration: Duration::from_secs(1),
        };
        scale_executor(&mut executor, 10_000);
        assert!(matches!(
            executor,
            Executor::SharedIterations {
                vus: 1,
                iterations: 11,
                ..
            }
        ));
    }

    fn executors(plan: &TestPlan) -> impl Iterator<Item = &Executor> {
        plan.phases.iter().filter_map(|phase| match &phase.work {
            PhaseWork::Load { executor, .. } => Some(executor),
            PhaseWork::Pause { .. } => None,
        })
    }

    #[test]
    fn a_plan_scales_in_all_its_phases_and_never_to_nothing() {
        for (factor, users) in [(1.0, 5), (0.5, 3), (0.2, 1), (0.0, 1), (7.0, 5)] {
            let mut plan = plan(&["a", "b"]);
            scale(&mut plan, factor);
            let scaled: Vec<u64> = executors(&plan).map(Executor::peak_vus).collect();
            assert_eq!(scaled, [users, users], "{factor}");
        }
    }

    #[test]
    fn a_smoke_test_is_one_user_that_nothing_judges() {
        let mut plan = plan(&["a", "b"]);
        plan.thresholds = vec![threshold("http_reqs", "count>0")];
        plan.abort_rules = vec![rule("worker_cpu", "value>90%", 0, RuleAction::Abort)];
        plan.auto_stop = Some(AutoStop::default());
        smoke(&mut plan);
        let executors: Vec<_> = executors(&plan).collect();
        assert!(
            matches!(
                executors[..],
                [Executor::PerVuIterations {
                    vus: 1,
                    iterations: 1,
                    ..
                }]
            ),
            "{executors:?}"
        );
        assert!(plan.thresholds.is_empty() && plan.abort_rules.is_empty() && plan.auto_stop.is_none());
    }
}
