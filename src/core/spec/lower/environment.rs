//! `Environment` and `WorkerPool`.

use super::{Lower, at};
use crate::model::environment::{Capacity, Environment, EnvironmentLimits, Price, ProviderSpec, WorkerPool};
use crate::model::key::{Key, Kind};
use crate::spec::code::Code;
use crate::spec::wire::environment::{EnvironmentSpec, Provider, WorkerPoolSpec, Workers};
use std::time::Duration;

/// Bounds of `orphanTimeout` (promise 41): shorter and a slow network ends load, longer and load outlives its owner.
const ORPHAN_MIN: Duration = Duration::from_secs(5);
const ORPHAN_MAX: Duration = Duration::from_secs(15 * 60);

impl Lower<'_, '_> {
    /// Lowers an Environment.
    pub(super) fn environment(&mut self, wire: &EnvironmentSpec) -> Environment {
        let provider = match &wire.provider {
            Provider::Process(process) => ProviderSpec::Process {
                work_dir: process.work_dir.clone(),
            },
            Provider::Joined(_) => ProviderSpec::Joined,
            Provider::Simulated(simulated) => ProviderSpec::Simulated {
                ready_after: simulated.ready_after.as_ref().map_or(Duration::ZERO, |span| span.0),
                fail_every: simulated.fail_every.unwrap_or(0),
            },
        };
        if let ProviderSpec::Process { work_dir: Some(dir) } = &provider
            && dir.split('/').any(|part| part == "..")
        {
            self.error(
                "/spec/provider/workDir",
                Code::BadFormat,
                "the folder must not contain `..`",
            );
        }
        let limits = wire.limits.as_ref().map(|limits| EnvironmentLimits {
            workers: limits.workers,
            vus: limits.vus,
            rate: limits.rate,
            requests_per_second: limits.requests_per_second,
            concurrent_runs: limits.concurrent_runs,
        });
        let price = wire.cost.as_ref().map(|cost| Price {
            currency: cost.currency.clone(),
            worker_hour_micros: cost.worker_hour.0,
        });
        Environment {
            provider,
            limits: limits.unwrap_or_default(),
            price,
        }
    }

    /// Lowers a WorkerPool.
    pub(super) fn worker_pool(&mut self, wire: &WorkerPoolSpec) -> Option<WorkerPool> {
        let environment = self.reference(
            "/spec/environment",
            &wire.environment,
            &[Kind::Environment],
            Some(Kind::Environment),
        );
        let capacity = wire.capacity.as_ref().map_or(Capacity::LOCAL, |capacity| Capacity {
            vus: capacity.vus,
            rate: capacity.rate,
        });
        let (min, max) = self.pool_bounds(wire.workers.as_ref(), environment.as_ref());
        let provisioning = wire.provisioning.as_ref();
        let ready = provisioning.and_then(|provisioning| provisioning.ready_timeout.as_ref());
        let ready_timeout = self.positive("/spec/provisioning/readyTimeout", ready, Duration::from_secs(300));
        let orphan_timeout = wire
            .orphan_timeout
            .as_ref()
            .map_or(Duration::from_secs(60), |span| span.0);
        if !(ORPHAN_MIN..=ORPHAN_MAX).contains(&orphan_timeout) {
            self.error(
                "/spec/orphanTimeout",
                Code::OutOfRange,
                "`orphanTimeout` must be from 5s to 15m",
            );
        }
        let bus = match &wire.bus {
            Some(bus) => Some(self.topic("/spec/bus", &bus.kafka_cluster, &bus.topic)?),
            None => None,
        };
        Some(WorkerPool {
            environment: environment?,
            capacity,
            min,
            max,
            ready_timeout,
            lead_time: provisioning
                .and_then(|provisioning| provisioning.lead_time.as_ref())
                .map_or(Duration::ZERO, |span| span.0),
            keep_warm: provisioning
                .and_then(|provisioning| provisioning.keep_warm.as_ref())
                .map_or(Duration::ZERO, |span| span.0),
            orphan_timeout,
            bus,
        })
    }

    /// How many workers a pool has at least and at most.
    fn pool_bounds(&mut self, wire: Option<&Workers>, environment: Option<&Key>) -> (u32, u32) {
        let min = wire.and_then(|workers| workers.min).unwrap_or(0);
        let max = wire.and_then(|workers| workers.max).unwrap_or(min.max(1));
        let workers = "/spec/workers";
        if min > max {
            self.error(
                &at(workers, "min"),
                Code::OutOfRange,
                format!("`min` is {min} and `max` only {max}"),
            );
        }
        let cap = self.project().caps.workers;
        if max > cap {
            let text = format!(
                "the pool may have {max} workers; project {} may have {cap}",
                self.key.project
            );
            self.error(&at(workers, "max"), Code::CapExceeded, text);
        }
        if let Some(limit) = environment
            .and_then(|key| self.index.environment(key))
            .and_then(|environment| environment.limits.workers)
            && max > limit
        {
            let text = format!("the pool may have {max} workers; its environment {limit}");
            self.error(&at(workers, "max"), Code::LimitExceeded, text);
        }
        (min, max)
    }
}
