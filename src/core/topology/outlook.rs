//! The forecast over everything that is desired: what each plan aims at, what it takes, and the limits it counts against.

use super::{local_environment_spec, local_pool_spec};
use crate::model::desired::Desired;
use crate::model::environment::{Environment, EnvironmentLimits, WorkerPool};
use crate::model::key::Key;
use crate::model::load::{Executor, PhaseWork};
use crate::model::plan::{Target, TestPlan};
use crate::model::resource::Spec;
use crate::schedule::forecast::{Forecast, Plan, forecast};
use crate::schedule::slot::Suspension;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Longest forecast, in days: a year and a month.
pub const DAYS_MAX: u32 = 400;

/// The last instant of so many days from `from` on. `None`: beyond the calendar.
pub fn end(from: Timestamp, days: u32) -> Option<Timestamp> {
    from.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).ok()
}

/// A plan with a schedule, and what of it the forecast borrows.
struct Row<'a> {
    key: &'a Key,
    plan: &'a TestPlan,
    pool: WorkerPool,
    environment: Environment,
    /// The environment's key as text.
    counts_in: String,
    target: String,
    suspended: Option<Suspension>,
}

/// Looks ahead from `from` to `until`, both included, over every plan with a schedule that `wanted` takes. `held`: plans that are held back
/// beside git's `suspend`.
pub fn outlook(
    desired: &Desired,
    held: &BTreeMap<Key, Suspension>,
    (from, until): (Timestamp, Timestamp),
    wanted: impl Fn(&Key) -> bool,
) -> Forecast {
    let rows: Vec<Row<'_>> = desired
        .resources()
        .filter_map(|resource| match &resource.spec {
            Spec::TestPlan(plan) if plan.timing.schedule.is_some() => Some((&resource.meta.key, plan.as_ref())),
            _ => None,
        })
        .filter(|(key, _)| wanted(key))
        .map(|(key, plan)| row(desired, held.get(key), key, plan))
        .collect();
    let limits: BTreeMap<&str, &EnvironmentLimits> = rows
        .iter()
        .map(|row| (row.counts_in.as_str(), &row.environment.limits))
        .collect();
    let plans: Vec<Plan<'_>> = rows.iter().map(Row::plan).collect();
    forecast(&plans, &limits, from, until)
}

fn row<'a>(desired: &Desired, held: Option<&Suspension>, key: &'a Key, plan: &'a TestPlan) -> Row<'a> {
    let pool = plan.pool.as_ref().and_then(|pool| match &desired.get(pool)?.spec {
        Spec::WorkerPool(pool) => Some(pool.clone()),
        _ => None,
    });
    // A pool that cannot be read, or none: what one process on the daemon's host takes.
    let pool = pool.unwrap_or_else(local_pool_spec);
    let environment = desired
        .get(&pool.environment)
        .and_then(|resource| match &resource.spec {
            Spec::Environment(environment) => Some(environment.clone()),
            _ => None,
        })
        .unwrap_or_else(local_environment_spec);
    Row {
        key,
        plan,
        counts_in: pool.environment.to_string(),
        pool,
        environment,
        target: target(&plan.target),
        suspended: Suspension::of(plan, held),
    }
}

impl Row<'_> {
    fn plan(&self) -> Plan<'_> {
        let executors = || {
            self.plan.phases.iter().filter_map(|phase| match &phase.work {
                PhaseWork::Load { executor, .. } => Some(executor),
                PhaseWork::Pause { .. } => None,
            })
        };
        Plan {
            key: self.key,
            timing: &self.plan.timing,
            suspended: self.suspended.as_ref(),
            duration: self.plan.duration(),
            lead_time: self.pool.lead_time,
            target: &self.target,
            peak_rate: executors().filter_map(Executor::peak_rate).fold(0.0, f64::max),
            peak_vus: executors().map(Executor::peak_vus).max().unwrap_or(0),
            workers: self.pool.capacity.workers_for(&self.plan.phases),
            price: self.environment.price.as_ref(),
            counts_in: vec![&self.counts_in],
        }
    }
}

/// What plans share when they aim at it: the origin of a URL, whatever the path, or the service.
fn target(target: &Target) -> String {
    match target {
        Target::BaseUrl(url) => {
            let origin: Vec<&str> = url.split('/').take(3).collect();
            origin.join("/").to_ascii_lowercase()
        }
        Target::Service { service, .. } => service.to_string(),
    }
}
